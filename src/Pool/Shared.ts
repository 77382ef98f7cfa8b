/**
 * SharedPool: a pool whose items have several users each, such as connections that carry several requests at a time.
 *
 * DESIGN. Three primitives. A `Pool` of seats, `max` times `concurrencyPerItem`, decides who is next, and bounds the wait. A keyed
 * `Shared` has one instance per group of seats: an item of the `Pool` of items, for as long as the group has users. So an item
 * is opened, checked, reset and aged as in any pool.
 *
 * INVARIANTS
 * - SharedPool-1 There are at most `max` items, and each has at most `concurrencyPerItem` users. Further users wait in the order of
 *   arrival.
 * - SharedPool-2 A user gets a seat of the item that has the most users and room for one more, so no item is opened while another has
 *   room. With its last user an item goes back to the pool.
 * - SharedPool-3 An item that is invalid or past its `maxLifetime` gets no new user. Its users keep it to their end.
 *
 * COST (2026-11, 2 busy cores) about 8 µs for a use beside other users of the item. A first user takes the item from the pool of items and
 * the last one gives it back: about 0.1 ms.
 * NOT DONE a hot path in one operation, as `Pool.use` has it.
 * SOURCES effect's `Pool` (`concurrency`), HTTP/2 clients (streams per connection).
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual, identity } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { Handle } from "../internal/handle.ts"
import * as Rule from "../internal/options.ts"
import * as Pool from "../Pool.ts"
import * as Shared from "../Shared.ts"
import { unfit } from "./evict.ts"
import * as Items from "./items.ts"
import * as Lend from "./lend.ts"
import { sizeRule, type WaitOptions } from "./options.ts"
import * as State from "./state.ts"
import * as Use from "./use.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/SharedPool")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * The options of `make`: those of a pool, except that `acquireTimeout` bounds the wait for a seat, and that for the item again.
 * `maxWaiters` and `leakDetection` are about seats, `invalidateOn` about each use, `reset` about the last user of an item.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R = never, R2 = never, R3 = never>
  extends Omit<Pool.Options<A, E, R, R2, R3>, "maxUses">
{
  /** How many users an item may have at once. */
  readonly concurrencyPerItem: number
}

/** Seats of one item. */
interface Group<A> {
  users: number
  /** The item that it has, or had last. */
  item: State.Item<A, any> | undefined
}

/**
 * A pool of `A` whose items have several users each; `E` is everything that getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedPool<in out A, out E = never> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _A: Types.Invariant<A>; readonly _E: Types.Covariant<E> }
  readonly name: string
  readonly max: number
  readonly concurrencyPerItem: number
  /** @internal */
  readonly seats: Pool.Pool<void, E>
  /** @internal */
  readonly items: Pool.Pool<A, E>
  /** @internal */
  readonly shared: Shared.KeyedShared<Group<A>, State.Item<A, E>, E>
  /** @internal Those with users. Only `enter` and `leave` write it. */
  readonly groups: Set<Group<A>>
}

/**
 * How many seats and items are in use and waited for.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedPoolStats {
  readonly seats: Pool.PoolStats
  readonly items: Pool.PoolStats
}

const variance: any = { _A: identity, _E: identity }

class SharedPoolHandle<A, E> extends Handle implements SharedPool<A, E> {
  readonly [TypeId]: SharedPool<A, E>[TypeId] = variance
  readonly concurrencyPerItem: number
  readonly items: Pool.Pool<A, E>
  readonly shared: SharedPool<A, E>["shared"]
  readonly seats: Pool.Pool<void, E>
  readonly groups = new Set<Group<A>>()

  constructor(
    concurrencyPerItem: number,
    items: Pool.Pool<A, E>,
    shared: SharedPool<A, E>["shared"],
    seats: Pool.Pool<void, E>
  ) {
    super()
    this.concurrencyPerItem = concurrencyPerItem
    this.items = items
    this.shared = shared
    this.seats = seats
  }

  get name(): string {
    return this.items.name
  }

  get max(): number {
    return this.items.max
  }

  toJSON(): unknown {
    return { _id: "holdfast/SharedPool", name: this.name, ...unsafeStats(this) }
  }
}

const unsafeStats = <A, E>({ items, seats }: SharedPool<A, E>): SharedPoolStats => ({
  seats: Pool.unsafeStats(seats),
  items: Pool.unsafeStats(items)
})

/**
 * Makes a pool of shared items in this scope. Nothing is opened until it is asked for, or `minIdle` says so.
 *
 * **Details**, **Interruption** — as `Pool.make`. **Errors** — as `Pool.make`; a failed opening fails each user that waits for that
 *   item.
 * **Cost** — two pools and a `Shared`.
 *
 * **Example** (three users on two connections)
 * ```ts run
 * import { Effect } from "effect"
 * import * as SharedPool from "holdfast/Pool/Shared"
 *
 * let opened = 0
 * const program = Effect.gen(function*() {
 *   const pool = yield* SharedPool.make({
 *     acquire: Effect.sync(() => ++opened),
 *     max: 4,
 *     concurrencyPerItem: 2
 *   })
 *   for (let user = 0; user < 3; user++) yield* SharedPool.get(pool)
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * opened // => 2
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  A,
  E,
  R,
  R2 = never,
  R3 = never,
  T extends Duration.DurationInput | undefined = undefined,
  C extends Duration.DurationInput | undefined = undefined,
  M extends number | undefined = undefined
>(
  options: Options<A, E, R, R2, R3> & Pool.Bounds<T, C, M>
): Effect.Effect<
  SharedPool<A, E | Pool.ErrorsOf<T, C, M>>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
> =>
  Effect.gen(function*() {
    const { concurrencyPerItem, leakDetection, maxWaiters, ...rest } = options
    Rule.check("SharedPool.make", { concurrencyPerItem }, { concurrencyPerItem: sizeRule })
    const { acquireTimeout, max, name = "pool", onShutdownTimeout, shutdownTimeout } = rest
    type All = E | Pool.ErrorsOf<T, C, M>
    // Closed in the reverse order, so a closed pool refuses its users by the seats.
    const items: Pool.Pool<A, any> = yield* Pool.make(rest)
    const { partition } = items
    const own = (group: Group<A>) => (scope: Scope.Scope, item: State.Item<A, All>) =>
      Effect.map(Use.ownInScope(scope, item), () => group.item = item)
    const shared = yield* Shared.makeKeyed({
      name,
      acquire: (group: Group<A>) =>
        Use.takeInScope<A, All, State.Item<A, All>>(
          () => name,
          () => partition,
          undefined,
          own(group),
          undefined
        )
    })
    const seats: Pool.Pool<void, any> = yield* Pool.make({
      acquire: Effect.void,
      max: max * concurrencyPerItem,
      name,
      acquireTimeout,
      maxWaiters,
      leakDetection,
      shutdownTimeout,
      onShutdownTimeout
    })
    return new SharedPoolHandle<A, All>(concurrencyPerItem, items, shared as any, seats)
  })

/**
 * `make` as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <
  I,
  A,
  E,
  R,
  R2 = never,
  R3 = never,
  T extends Duration.DurationInput | undefined = undefined,
  C extends Duration.DurationInput | undefined = undefined,
  M extends number | undefined = undefined
>(
  tag: Context.Tag<I, SharedPool<A, E | Pool.ErrorsOf<T, C, M>>>,
  options: Options<A, E, R, R2, R3> & Pool.Bounds<T, C, M>
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3> => Layer.scoped(tag, make(options))

/** INVARIANTS SharedPool-2, SharedPool-3. */
const enter = <A, E>({ concurrencyPerItem, groups, items }: SharedPool<A, E>): Group<A> => {
  const now = State.nowOf(items.partition.pool)
  let fullest: Group<A> | undefined
  for (const group of groups) {
    if (group.item !== undefined && unfit(group.item, now) !== undefined) groups.delete(group)
    else if (group.users < concurrencyPerItem && group.users > (fullest?.users ?? 0)) {
      fullest = group
    }
  }
  const group = fullest ?? { users: 0, item: undefined }
  groups.add(group)
  group.users++
  return group
}

const leave = <A, E>({ groups }: SharedPool<A, E>, group: Group<A>): void => {
  if (--group.users === 0) groups.delete(group)
}

/** A group, and the leaving of it. */
const seatIn = <A, E>(self: SharedPool<A, E>) => ({
  entered: Effect.sync(() => enter(self)),
  left: (group: Group<A>) => Effect.sync(() => leave(self, group))
})

/** Whether this end of a use rules out the item; what goes back to the pool of items is the end of the last use alone. */
const judge = <A, E>(
  { items: { partition: { pool } } }: SharedPool<A, E>,
  item: State.Item<A, E>
) =>
(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
  Effect.sync(() => {
    if (Items.isRuledOut(pool, exit)) Lend.unsafeInvalidate(item)
  })

/** Only a user that is still there after the end of the seats finds the items closed. */
const refusing = <A, E, B, R>(
  { name }: SharedPool<A, E>,
  effect: Effect.Effect<B, E | Shared.SharedClosed, R>
): Effect.Effect<B, E, R> =>
  Effect.mapError(
    effect,
    (error) =>
      (error instanceof Shared.SharedClosed ? new Pool.PoolClosed({ pool: name }) : error) as E
  )

/**
 * A seat of an item for as long as the scope lives.
 *
 * **Interruption** — Waiting: leaves the line at once; an opening for which nobody waits is left to the pool. Holding: the scope gives
 *   the seat back.
 * **Errors** — those of the pool. In a scope that is closed it dies with `Managed.OwnerClosed`.
 * **Cost** — see the file head.
 *
 * @category operations
 * @since 0.1.0
 */
export const get: {
  <W extends WaitOptions = {}>(
    options?: W
  ): <A, E>(self: SharedPool<A, E>) => Effect.Effect<A, E | Pool.TimeoutOf<W>, Scope.Scope>
  <A, E, W extends WaitOptions = {}>(
    self: SharedPool<A, E>,
    options?: W
  ): Effect.Effect<A, E | Pool.TimeoutOf<W>, Scope.Scope>
} = dual(
  ([first]) => Predicate.hasProperty(first, TypeId),
  <A, E>(self: SharedPool<A, E>, options?: WaitOptions) => {
    // Called here, where the user's line is on the stack.
    const seat = Pool.get(self.seats, options)
    const { entered, left } = seatIn(self)
    const item = Effect.flatMap(
      Effect.zipRight(seat, Effect.acquireRelease(entered, left)),
      (group) => Shared.getKey(self.shared, group)
    )
    return Effect.flatMap(
      refusing(self, item),
      (item) => Effect.as(Effect.addFinalizer(judge(self, item)), item.value)
    )
  }
)

/**
 * Runs `f` with an item, which it may share with others, and gives the seat back, whatever the exit.
 *
 * **Interruption**, **Errors**, **Cost** — as `get`, and those of `f`.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2, W extends WaitOptions = {}>(
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): <E>(self: SharedPool<A, E>) => Effect.Effect<B, E | E2 | Pool.TimeoutOf<W>, R2>
  <A, E, B, E2, R2, W extends WaitOptions = {}>(
    self: SharedPool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): Effect.Effect<B, E | E2 | Pool.TimeoutOf<W>, R2>
} = dual(
  ([first]) => Predicate.hasProperty(first, TypeId),
  <A, E, B, E2, R2>(
    self: SharedPool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: WaitOptions
  ) => {
    const { entered, left } = seatIn(self)
    // An exit, since an error of `f` is none of ours.
    const run = (item: State.Item<A, E>) =>
      Effect.exit(Effect.onExit(Effect.suspend(() => f(item.value)), judge(self, item)))
    const seated = Pool.use(
      self.seats,
      () =>
        Effect.acquireUseRelease(entered, (group) => Shared.useKey(self.shared, group, run), left),
      options
    )
    return Effect.flatten(refusing(self, seated))
  }
)

/**
 * This item gets no new user, and is destroyed after its last one. `false` if the pool does not have it, or if it was invalid
 * already.
 *
 * **Cost** — looks at every item, by identity.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidate: {
  <A>(item: A): <E>(self: SharedPool<A, E>) => Effect.Effect<boolean>
  <A, E>(self: SharedPool<A, E>, item: A): Effect.Effect<boolean>
} = dual(2, <A, E>({ items }: SharedPool<A, E>, item: A) => Pool.invalidate(items, item))

/**
 * The pool at this instant, exact. `seats.used` counts the users, `seats.pending` the waiters.
 *
 * **Cost** — three small objects.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E>(self: SharedPool<A, E>): Effect.Effect<SharedPoolStats> =>
  Effect.sync(() => unsafeStats(self))
