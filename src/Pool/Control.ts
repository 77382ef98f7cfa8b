/**
 * Control: what a running pool is told from outside: another size, an item that leaves it, and who listens.
 *
 * DESIGN. A pool pays for none of this until it is used: `resize` gives a plain pool a quota (state.ts), `observe` a meter, and
 * `detach` needs a lease, which knows its item.
 *
 * INVARIANTS
 * - PoolControl-1 After a resize to less nothing is opened until there are fewer than `max` items, and nothing is taken from its
 *   holder: of the surplus the idle items are destroyed at once, the longest idle first, then items as they come back.
 * - PoolControl-2 (L1) A detached item frees its slot in the step in which its scope gets it, and is released once, by that scope.
 * - PoolControl-3 (L9) Each item has the events `created`, `acquired` and `released` in turns, and `destroyed` last. They are told
 *   in the step in which they happen. An observer that throws is logged and changes nothing.
 *
 * COST a resized pool: one comparison per give-back; an observed one: its observers and a count of its items per change.
 * NOT DONE `resize` of a keyed pool. While a surplus comes back, the ledger may see a waiter as served by the first item that does.
 * SOURCES pgx (`Hijack`, `SetMaxConns` of puddle), HikariCP (`setMaximumPoolSize`), pg-pool's events.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { constVoid, dual } from "effect/Function"
import type * as Scope from "effect/Scope"
import * as Handover from "../internal/handover.ts"
import * as Lent from "../internal/lent.ts"
import * as Rule from "../internal/options.ts"
import { isClosed } from "../internal/runtime.ts"
import type * as Pool from "../Pool.ts"
import * as Items from "./items.ts"
import * as Lend from "./lend.ts"
import { checkMinIdle, sizeRule } from "./options.ts"
import * as State from "./state.ts"

const hasSurplus = <A, E>(partition: State.Partition<A, E>): boolean =>
  State.sizeOf(partition) - partition.closing > partition.max

/** INVARIANT PoolControl-1. */
const resized: State.Quota = {
  next: ({ partitions }) => {
    for (const partition of partitions) {
      if (State.shortage(partition) > 0 && State.hasRoom(partition)) {
        return { _tag: "open", partition }
      }
    }
    return undefined
  },
  owesSlot: hasSurplus
}

/**
 * Changes how many items there may be, from this step on. Waiters get the new room at once; a surplus goes as it becomes idle.
 *
 * **Details** — `Pool.stats` has the new `max` at once, and a `size` above it until the surplus has come back.
 * **Errors** — a `max` that is no integer from 1 on, or is below `minIdle`, is a `RangeError` defect.
 * **Cost** — O(surplus).
 *
 * **Example** (room for a waiter)
 * ```ts run
 * import { Effect } from "effect"
 * import { Pool } from "holdfast"
 * import * as Control from "holdfast/Pool/Control"
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({ acquire: Effect.succeed("socket"), max: 1 })
 *   yield* Pool.get(pool)
 *   yield* Control.resize(pool, 2)
 *   return yield* Pool.use(pool, (socket) => Effect.succeed(socket))
 * })
 * const second = await Effect.runPromise(Effect.scoped(program))
 * second // => "socket"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const resize: {
  (max: number): <A, E>(self: Pool.Pool<A, E>) => Effect.Effect<void>
  <A, E>(self: Pool.Pool<A, E>, max: number): Effect.Effect<void>
} = dual(2, <A, E>({ partition }: Pool.Pool<A, E>, max: number) =>
  Effect.sync(() => {
    const { idle, pool } = partition
    Rule.check("Control.resize", { max }, { max: sizeRule })
    checkMinIdle("Control.resize", pool.options.minIdle, max)
    partition.max = pool.options.max = max
    pool.quota = resized
    while (idle.head !== undefined && hasSurplus(partition)) Lend.destroy(idle.head, "evicted")
    Lend.settle(partition)
  }))

/**
 * Takes the item of a lease out of its pool: the scope owns it from this step on and releases it at its end, and the pool may open
 * another in its place. For an item that was changed for good, such as a socket after an upgrade. `false` if the lease has ended.
 *
 * **Details** — The pool counts it as destroyed, for the reason `detached`, and does not wait for it when it closes. The rest of the
 *   lease does nothing.
 * **Interruption** — Holding: the scope releases it. **Errors** — In a scope that is closed it dies with `Managed.OwnerClosed`.
 * **Cost** — that of a finalizer in a scope.
 *
 * **Example** (the pool opens another)
 * ```ts run
 * import { Effect } from "effect"
 * import { Pool } from "holdfast"
 * import * as Control from "holdfast/Pool/Control"
 *
 * let opened = 0
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({ acquire: Effect.sync(() => ++opened), max: 1 })
 *   const lease = yield* Pool.lease(pool)
 *   yield* Control.detach(lease)
 *   return yield* Pool.use(pool, (socket) => Effect.succeed(socket))
 * })
 * const second = await Effect.runPromise(Effect.scoped(program))
 * second // => 2
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const detach = <A>(lease: Pool.Lease<A>): Effect.Effect<boolean, never, Scope.Scope> =>
  // MASK: the item leaves the pool and gets its new owner in one step. It never waits.
  Effect.uninterruptible(Effect.flatMap(Effect.scope, (scope) => {
    if (isClosed(scope)) return Handover.ownerClosed("a detached item")
    const item = lease.unsafeKeep()
    if (item === undefined) return Effect.succeed(false)
    const { partition, value } = item
    Lend.unlend(item)
    Items.forget(item, "detached")
    Lend.settle(partition)
    const lent = Lent.lend("none", undefined, value)
    return Effect.as(
      Handover.ownInScope(scope, partition.name, () => Items.close(item), lent),
      true
    )
  }))

/**
 * What happened to an item. `"created"`: it was opened. `"destroyed"`: its release has ended, or it was detached.
 *
 * @category models
 * @since 0.1.0
 */
export type Event<A> =
  | { readonly _tag: "created" | "acquired" | "released"; readonly item: A }
  | { readonly _tag: "destroyed"; readonly item: A; readonly reason: Pool.Reason }

type Observer = (event: Event<any>) => void

/** A meter that tells its observers, and then the meter that it replaces. */
interface Observed extends State.Meter {
  readonly observers: Set<Observer>
  readonly replaced: State.Meter | undefined
}

const silent: State.Meter = {
  sample: constVoid,
  waited: constVoid,
  used: constVoid,
  created: constVoid,
  destroyed: constVoid,
  createFailed: constVoid,
  timedOut: constVoid,
  cancelled: constVoid,
  leaked: constVoid
}

const observed = (pool: State.State<any, any>): Observed => {
  const { meter } = pool
  if (meter !== undefined && "observers" in meter) return meter as Observed
  const observers = new Set<Observer>()
  const tell = (event: Event<unknown>): void => {
    for (const observer of observers) {
      try {
        observer(event)
      } catch (defect) {
        const what = `Pool "${pool.options.name}": an observer threw at "${event._tag}"`
        State.warn(pool, what, Cause.die(defect))
      }
    }
  }
  const inner = meter ?? silent
  return pool.meter = {
    ...inner,
    observers,
    replaced: meter,
    created: (millis, item) => {
      tell({ _tag: "created", item })
      inner.created(millis, item)
    },
    lent: (item) => tell({ _tag: "acquired", item }),
    used: (millis, item) => {
      tell({ _tag: "released", item })
      inner.used(millis, item)
    },
    destroyed: (reason, item) => {
      tell({ _tag: "destroyed", item, reason })
      inner.destroyed(reason, item)
    }
  } as Observed
}

/**
 * Calls `observer` at each event of the pool until the scope ends, in the step of the event.
 *
 * **Details** — The step is not over: for `Pool.stats`, or anything that takes time, offer the event to a queue. A check and a
 *   reset have no events of their own.
 * **Errors** — an observer that throws is logged.
 * **Cost** — see the file head.
 *
 * **Example** (the life of a socket)
 * ```ts run
 * import { Effect } from "effect"
 * import { Pool } from "holdfast"
 * import * as Control from "holdfast/Pool/Control"
 *
 * const life: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({ acquire: Effect.succeed("socket"), max: 1, maxUses: 1 })
 *   yield* Control.observe(pool, (event) => life.push(event._tag))
 *   yield* Pool.use(pool, () => Effect.void)
 *   yield* Pool.awaitIdle(pool)
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * life.join(" ") // => "created acquired released destroyed"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const observe: {
  <A>(
    observer: (event: Event<A>) => void
  ): <E>(self: Pool.Pool<A, E>) => Effect.Effect<void, never, Scope.Scope>
  <A, E>(
    self: Pool.Pool<A, E>,
    observer: (event: Event<A>) => void
  ): Effect.Effect<void, never, Scope.Scope>
} = dual(
  2,
  <A, E>({ partition: { pool } }: Pool.Pool<A, E>, observer: (event: Event<A>) => void) => {
    // One that is given twice is called twice.
    const own: Observer = (event) => observer(event)
    return Effect.acquireRelease(
      Effect.sync(() => void observed(pool).observers.add(own)),
      () =>
        Effect.sync(() => {
          const { observers, replaced } = observed(pool)
          observers.delete(own)
          if (observers.size === 0) pool.meter = replaced
        })
    )
  }
)
