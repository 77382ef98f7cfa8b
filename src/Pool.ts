/**
 * Pool: a bounded number of items, made on demand, lent to one holder at a time, and always taken back.
 *
 * DESIGN. All state is plain fields, changed by synchronous functions in one step, so it is right in the same tick. An item, a
 * failure or a refusal is granted straight to the head of the queue (internal/waitQueue.ts decides the order). Items are opened,
 * checked, reset and destroyed in fibers of the pool, so no borrower's interruption cuts them and no borrower waits for them.
 * Deadlines share the timers of the pool (internal/timers.ts): they share one fiber, which lives only while
 * there is a deadline.
 * Rooms: options.ts (checked and resolved once), state.ts (what there is), evict.ts and quota.ts (questions), items.ts (open,
 * check, reset, destroy), lend.ts (take, grant, return, refuse: `reconcile`), close.ts, meter.ts, errors.ts.
 *
 * INVARIANTS
 * - Pool-1 `idle + used + creating + closing = size ≤ max` at every instant, in every schedule. (An opening that was abandoned at
 *   its `createTimeout` counts no more, though it may ignore that for a while. `Control.resize` to less: PoolControl-1.)
 * - Pool-2 (L6) Waiters are served first come, first served within one priority, higher priorities first; no newcomer passes one.
 * - Pool-3 (L1, L2) An item lent comes back exactly once: by its bracket, its scope or its lease, whatever the exit; a grant
 *   whose waiter was interrupted goes to the next in the same step. In a scope that is closed nothing is lent.
 * - Pool-4 A failure of opening reaches exactly one waiter, the first, and is never stored.
 * - Pool-5 An item that is invalid, worn out, too old or of an older generation is never lent again.
 * - Pool-6 (L7) After closing began nothing is lent; an item that comes back or comes to be is destroyed by that step.
 * - Pool-7 (L4) Checks, resets, releases and the shutdown end by their deadline; the rest is abandoned by name.
 * - Pool-8 (L9) Everything created is destroyed, or held by a fiber that `holders` names.
 * - Pool-9 No fiber lives on behalf of an idle pool unless an option asks for one, and then one.
 * - Pool-10 (L9) With a ledger in force, a waiter is `acquiring` there and the holder of an item is `held`; a waiter is blocked
 *   by those who have the items that could serve it.
 *
 * COST (2026-11-21) a warm `use` is one operation, about 0.4 µs: 0.4 to 0.5 times a hand-written `uninterruptibleMask` pool. With
 * `invalidateOn` or `reset`, which are called with the exit, and under a tracker it is a mask: 1.1 to 1.4 times (bench/Pool.bench.ts). A check, a reset or a release forks. Housekeeping wakes once per
 * deadline and looks at every idle item: O(max) each time.
 * NOT DONE several holders per item: that is Pool/Shared.ts. Another size, an item that leaves, events: Pool/Control.ts.
 * SOURCES puddle (opening outlives its caller), HikariCP (bounds on every step), tarn, the promises S1–S21 of the design.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { Handle } from "./internal/handle.ts"
import * as Ledger from "./Ledger.ts"
import * as Closing from "./Pool/close.ts"
import type { PoolClosed, PoolError, PoolExhausted, PoolTimeout } from "./Pool/errors.ts"
import * as Items from "./Pool/items.ts"
import * as Lend from "./Pool/lend.ts"
import { checkWait, rules, type Settings, sizeRule, type WaitOptions } from "./Pool/options.ts"
import * as State from "./Pool/state.ts"
import * as Use from "./Pool/use.ts"

export {
  PoolClosed,
  PoolClosedByHolder,
  type PoolError,
  PoolExhausted,
  PoolLeak,
  PoolTimeout
} from "./Pool/errors.ts"
export type { Settings, WaitOptions } from "./Pool/options.ts"
export type { Holder, PoolStats, Reason } from "./Pool/state.ts"
export type { Lease } from "./Pool/use.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Pool")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * The options of `make`. Only `acquire` and `max` are needed; an option that is absent costs nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R = never, R2 = never, R3 = never> extends Settings<A, R2, R3> {
  /** Opens an item; what it adds to its scope is released when the item is destroyed. A `Managed` fits. */
  readonly acquire: Effect.Effect<A, E, R>
  /** How many items there may be at once. */
  readonly max: number
}

/**
 * A pool of `A`; `E` is everything that getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pool<in out A, out E = never> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _A: Types.Invariant<A>; readonly _E: Types.Covariant<E> }
  readonly name: string
  readonly max: number
  /** @internal */
  readonly partition: State.Partition<A, E>
}

/**
 * The options that decide which errors getting an item has.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounds<T, C, M> {
  readonly acquireTimeout?: T | undefined
  readonly createTimeout?: C | undefined
  readonly maxWaiters?: M | undefined
}

/**
 * The errors of a pool itself: `PoolClosed`, and those that its `Bounds` can cause.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorsOf<T, C, M> =
  | PoolClosed
  | ([T | C] extends [undefined] ? never : PoolTimeout)
  | ([M] extends [undefined] ? never : PoolExhausted)

/**
 * `PoolTimeout` if these options of a wait bound it.
 *
 * @category models
 * @since 0.1.0
 */
export type TimeoutOf<W> = W extends WaitOptions & { readonly acquireTimeout?: undefined } ? never
  : PoolTimeout

/**
 * The options that no configuration can hold.
 *
 * @category models
 * @since 0.1.0
 */
export type Functions = "validate" | "reset" | "invalidateOn" | "createRetry"

const variance: any = { _A: identity, _E: identity }

class PoolHandle<A, E> extends Handle implements Pool<A, E> {
  readonly [TypeId]: Pool<A, E>[TypeId] = variance
  readonly name: string
  readonly partition: State.Partition<A, E>

  constructor(partition: State.Partition<A, E>) {
    super()
    this.name = partition.name
    this.partition = partition
  }

  get max(): number {
    return this.partition.max
  }

  toJSON(): unknown {
    return { _id: "holdfast/Pool", name: this.name, ...State.unsafeStats(this.partition) }
  }
}

// Making.

const all = { max: sizeRule, ...rules }

/**
 * Makes a pool in this scope. Nothing is opened until it is asked for, or `minIdle` says so.
 *
 * **Details** — Closing the scope refuses all waiters, destroys the idle items and waits for the rest, see `shutdownTimeout`.
 *   To fail at once when nothing can be opened, use it once: `Effect.tap(Pool.make(…), Pool.use(() => Effect.void))`.
 * **Interruption** — Closing runs in a fiber of the pool: the interruption of a fiber that waits for it does not stop it.
 * **Errors** — Getting an item fails with `E` of `acquire`, `PoolClosed`, and, only if the options can cause them, `PoolTimeout`
 *   and `PoolExhausted`. Items that are not back by `shutdownTimeout` are a `PoolLeak` defect in the scope's exit. An option that
 *   cannot be is a `RangeError` defect that names it.
 * **Cost** — one object; a fiber only while an option has a deadline.
 * **Source** — HikariCP for the options, puddle for who opens, tokio for who is next.
 *
 * **Example** (one item serves three users)
 * ```ts run
 * import { Effect } from "effect"
 * import { Pool } from "holdfast"
 *
 * let opened = 0
 * const connect = Effect.acquireRelease(Effect.sync(() => ++opened), () => Effect.void)
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({ acquire: connect, max: 10 })
 *   for (let i = 0; i < 3; i++) yield* Pool.use(pool, () => Effect.yieldNow())
 *   return yield* Pool.stats(pool)
 * })
 * const { idle, used } = await Effect.runPromise(Effect.scoped(program))
 * opened // => 1
 * idle // => 1
 * used // => 0
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
  options: Options<A, E, R, R2, R3> & Bounds<T, C, M>
): Effect.Effect<
  Pool<A, E | ErrorsOf<T, C, M>>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
> => {
  const site = Ledger.unsafeSite(2)
  const { acquire, max, releaseDeadline } = options
  // MASK: the pool and its closing are one step.
  return Effect.uninterruptible(Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const pool = yield* Closing.makeState<A, E, R2, R3>(
      "Pool.make",
      all,
      options,
      { max },
      undefined
    )
    const { name } = pool.options
    const open = Effect.provide(Items.opening(name, acquire, releaseDeadline, site), context)
    const partition = Lend.unsafeAddPartition(pool, name, open, () => {}, max)
    return new PoolHandle<A, E | ErrorsOf<T, C, M>>(partition)
  }))
}

/**
 * `make` as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`.
 *
 * **Example** (a pool as a service)
 * ```ts
 * import { Context, Effect } from "effect"
 * import { Pool } from "holdfast"
 *
 * class Sockets extends Context.Tag("Sockets")<Sockets, Pool.Pool<number, Pool.PoolClosed>>() {}
 * const live = Pool.layer(Sockets, { acquire: Effect.succeed(1), max: 4 })
 * const program = Effect.flatMap(Sockets, Pool.use((socket) => Effect.log(socket)))
 * export const main = Effect.provide(program, live)
 * ```
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
  tag: Context.Tag<I, Pool<A, E | ErrorsOf<T, C, M>>>,
  options: Options<A, E, R, R2, R3> & Bounds<T, C, M>
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3> => Layer.scoped(tag, make(options))

/**
 * `layer` whose sizes and times come from a configuration. `acquire` and the other functions stand in `options`.
 *
 * **Errors** — `ConfigError`; a value that cannot be is a `RangeError` defect that names its option.
 *
 * **Example** (the size from the environment)
 * ```ts
 * import { Config, Context, Effect } from "effect"
 * import { Pool } from "holdfast"
 *
 * class Sockets extends Context.Tag("Sockets")<Sockets, Pool.Pool<number, Pool.PoolError>>() {}
 * export const live = Pool.layerConfig(Sockets, { acquire: Effect.succeed(1) }, {
 *   max: Config.integer("SOCKETS"),
 *   acquireTimeout: Config.duration("SOCKET_TIMEOUT")
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <I, A, E, R, R2 = never, R3 = never>(
  tag: Context.Tag<I, Pool<A, E | PoolError>>,
  options: Pick<Options<A, E, R, R2, R3>, "acquire" | Functions>,
  config: Config.Config.Wrap<Omit<Options<A, E, R, R2, R3>, "acquire" | Functions>>
): Layer.Layer<I, ConfigError.ConfigError, Exclude<R, Scope.Scope> | R2 | R3> =>
  Layer.scoped(
    tag,
    Effect.flatMap(Config.unwrap(config), (values) => make({ ...values, ...options }))
  ) as Layer.Layer<I, ConfigError.ConfigError, Exclude<R, Scope.Scope> | R2 | R3>

// Using.

/**
 * Runs `f` with an item of the pool and gives it back, whatever the exit. The hot path: it makes no `Scope`.
 *
 * **Interruption** — Waiting: leaves the line at once; an item just granted goes to the next in the same step; an opening
 *   continues for the others. Holding: `f` is cut and the item is given back (destroyed if `invalidateOn` says so).
 * **Errors** — those of `f`, of `acquire`, and of the pool as its options and those of this wait allow.
 * **Cost** — about 0.4 µs when an item is idle and needs no check; about twice that with `invalidateOn` or `reset`.
 *
 * **Example** (an item after a failed use is not lent again)
 * ```ts run
 * import { Effect } from "effect"
 * import { Pool } from "holdfast"
 *
 * let opened = 0
 * const program = Effect.gen(function*() {
 *   const pool = yield* Pool.make({
 *     acquire: Effect.sync(() => ++opened),
 *     max: 1,
 *     invalidateOn: (exit) => exit._tag === "Failure"
 *   })
 *   yield* Effect.exit(Pool.use(pool, () => Effect.fail("broken pipe")))
 *   return yield* Pool.use(pool, (socket) => Effect.succeed(socket))
 * })
 * const second = await Effect.runPromise(Effect.scoped(program))
 * second // => 2
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2, W extends WaitOptions = {}>(
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): <E>(self: Pool<A, E>) => Effect.Effect<B, E | E2 | TimeoutOf<W>, R2>
  <A, E, B, E2, R2, W extends WaitOptions = {}>(
    self: Pool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): Effect.Effect<B, E | E2 | TimeoutOf<W>, R2>
} = (first: any, second?: any, third?: any): any =>
  // Not `dual`: with an optional argument it costs a fifth of a warm use.
  typeof first === "function"
    ? (self: Pool<unknown>) => useWith(self, first, second)
    : useWith(first, second, third)

const useWith = <A, E, B, E2, R2>(
  { partition }: Pool<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  options: WaitOptions | undefined
): Effect.Effect<B, E | E2, R2> => {
  const site = Use.siteOf(partition.pool)
  checkWait("Pool.use", options)
  return Use.use(partition.pool, () => partition, f, site, options)
}

/**
 * `use`, if an item is idle and fit and there is no waiter; otherwise none, at once. It never waits and never opens.
 *
 * **Details** — An idle item that is due for a check is checked in the background, so a later try may find it.
 * **Interruption** — Holding: as `use`. **Errors** — those of `f`; `PoolClosed`. **Cost** — as `use`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryUse: {
  <A, B, E2, R2>(
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: Pool<A, E>) => Effect.Effect<Option.Option<B>, E | E2, R2>
  <A, E, B, E2, R2>(
    self: Pool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<Option.Option<B>, E | E2, R2>
} = dual(2, <A, E>({ partition }: Pool<A, E>, f: (item: A) => Effect.Effect<any, any, any>) => {
  const site = Use.siteOf(partition.pool)
  const some = (item: A) => Effect.asSome(f(item))
  return Use.use(partition.pool, () => partition, some, site, Use.atOnce)
})

/**
 * An item for as long as the scope lives.
 *
 * **Interruption** — Waiting: as `use`. Holding: the scope gives it back.
 * **Errors** — as `use`. In a scope that is closed it dies with `Managed.OwnerClosed`.
 * **Cost** — that of a finalizer in a scope on top of `use`, about 5 µs.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <A, E, W extends WaitOptions = {}>(
  self: Pool<A, E>,
  options?: W
): Effect.Effect<A, E | TimeoutOf<W>, Scope.Scope> => {
  const { name, partition } = self
  const site = Use.siteOf(partition.pool)
  checkWait("Pool.get", options)
  return Use.takeInScope(() => name, () => partition, site, Use.ownInScope, options)
}

/**
 * An item that is given back by `release`, or by the scope at the latest.
 *
 * **Interruption**, **Errors** — as `get`. **Cost** — one scope more than `get`.
 *
 * @category operations
 * @since 0.1.0
 */
export const lease = <A, E, W extends WaitOptions = {}>(
  self: Pool<A, E>,
  options?: W
): Effect.Effect<Use.Lease<A>, E | TimeoutOf<W>, Scope.Scope> => {
  const { name, partition } = self
  const site = Use.siteOf(partition.pool)
  checkWait("Pool.lease", options)
  return Use.takeInScope(() => name, () => partition, site, Use.leaseInScope, options)
}

/**
 * This item is never lent again: it is destroyed now if it is idle, else when it comes back. `false` if the pool does not have it,
 * or if it was invalid already.
 *
 * **Cost** — looks at every item, by identity.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidate: {
  <A>(item: A): <E>(self: Pool<A, E>) => Effect.Effect<boolean>
  <A, E>(self: Pool<A, E>, item: A): Effect.Effect<boolean>
} = dual(
  2,
  <A, E>(self: Pool<A, E>, value: A): Effect.Effect<boolean> =>
    Effect.sync(() => Lend.unsafeInvalidateValue(self.partition.pool, value))
)

/**
 * No item that exists or is being opened now is lent again: for a failover, or new credentials.
 *
 * **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateAll = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Effect.sync(() => Lend.unsafeInvalidateAll(self.partition))

/**
 * Destroys the items that are idle now, and gives their number; `minIdle` new ones are opened.
 *
 * **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const evictIdle = <A, E>(self: Pool<A, E>): Effect.Effect<number> =>
  Effect.sync(() => Lend.destroyIdle(self.partition, "evicted"))

/**
 * The pool at this instant, exact.
 *
 * **Cost** — one small object.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E>(self: Pool<A, E>): Effect.Effect<State.PoolStats> =>
  Effect.sync(() => unsafeStats(self))

/**
 * `stats`, outside of an effect.
 *
 * @category getters
 * @since 0.1.0
 */
export const unsafeStats = <A, E>(self: Pool<A, E>): State.PoolStats =>
  State.unsafeStats(self.partition)

/**
 * The holders of items at this instant.
 *
 * **Cost** — O(used).
 *
 * @category getters
 * @since 0.1.0
 */
export const holders = <A, E>(self: Pool<A, E>): Effect.Effect<ReadonlyArray<State.Holder>> =>
  Effect.sync(() => State.unsafeHolders(self.partition.pool))

/**
 * Waits until no item is held, waited for, being opened, checked or destroyed.
 *
 * **Interruption** — Waiting: stops waiting. **Cost** — a look after each change while it waits.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitIdle = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Closing.awaitQuiet(self.partition.pool)

/**
 * Closes the pool before its scope does, or waits for its end if it is closing already.
 *
 * **Interruption** — Waiting: stops waiting; the closing continues. **Errors** — `PoolLeak` and `PoolClosedByHolder` are defects.
 *
 * @category operations
 * @since 0.1.0
 */
export const close = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Closing.close(self.partition.pool)
