/**
 * A pool for each key, with a bound per key and a bound for all keys together.
 *
 * DESIGN. Each key has a partition, which is what a plain `Pool` consists of, so everything said there holds here per key. The
 * partitions share one state: the timer, the closing and the count of slots (Pool/quota.ts). A partition is made for the first
 * fiber that asks for its key, and removed with its last item and waiter.
 *
 * INVARIANTS
 * - KeyedPool-1 Per key no more than `maxPerKey`, in all no more than `maxTotal` items, at every instant.
 * - KeyedPool-2 Keys do not wait for each other while there is room. When there is none, the item that was idle for longest
 *   is destroyed to make some, and an item that comes back goes to the first waiter, of any key.
 * - KeyedPool-3 A key without items and waiters leaves nothing behind.
 *
 * COST that of `Pool` and one look into a map. While all slots are taken, a return looks at every key that has items or waiters.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { Handle, nameOfKey } from "../internal/handle.ts"
import * as Ledger from "../Ledger.ts"
import type * as Pool from "../Pool.ts"
import * as Closing from "./close.ts"
import * as Items from "./items.ts"
import * as Lend from "./lend.ts"
import { checkWait, rules, sizeRule, type WaitOptions } from "./options.ts"
import { quota } from "./quota.ts"
import * as State from "./state.ts"
import * as Use from "./use.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/KeyedPool")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * The options of `make`. `minIdle` is per key, from its first use on; the rest is as for a pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<K, A, E, R = never, R2 = never, R3 = never>
  extends Pool.Settings<A, R2, R3>
{
  /** Opens an item for a key; what it adds to its scope is released when the item is destroyed. */
  readonly acquire: (key: K) => Effect.Effect<A, E, R>
  /** How many items a key may have at once, or a function of the key, called when the key comes into use. */
  readonly maxPerKey: number | ((key: K) => number)
  /** How many there may be in all. Default no bound. */
  readonly maxTotal?: number | undefined
}

/**
 * Pools of `A` by `K`; keys are compared by `Equal`. `E` is everything that getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedPool<in out K, in out A, out E = never>
  extends Pipeable, Inspectable.Inspectable
{
  readonly [TypeId]: {
    readonly _K: Types.Invariant<K>
    readonly _A: Types.Invariant<A>
    readonly _E: Types.Covariant<E>
  }
  readonly name: string
  /** `Infinity` if it depends on the key; `statsKey` has the number of a key in use. */
  readonly maxPerKey: number
  readonly maxTotal: number
  /** @internal */
  readonly pool: State.State<A, E>
  /** @internal */
  readonly partitions: MutableHashMap.MutableHashMap<K, State.Partition<A, E>>
  /** @internal The partition of this key, made if there is none. To be called in the step that takes from it. */
  partitionOf(key: K): State.Partition<A, E>
  /** @internal */
  nameOf(key: K): string
}

const variance: any = { _K: identity, _A: identity, _E: identity }

class KeyedPoolHandle<K, A, E> extends Handle implements KeyedPool<K, A, E> {
  readonly [TypeId]: KeyedPool<K, A, E>[TypeId] = variance
  readonly name: string
  readonly maxPerKey: number
  readonly maxTotal: number
  readonly pool: State.State<A, E>
  readonly open: (key: K, name: string) => Effect.Effect<State.Opened<A>, E>
  readonly maxOf: (key: K) => number
  readonly partitions = MutableHashMap.empty<K, State.Partition<A, E>>()

  constructor(
    pool: State.State<A, E>,
    open: (key: K, name: string) => Effect.Effect<State.Opened<A>, E>,
    maxOf: (key: K) => number
  ) {
    super()
    const { max, maxTotal, name } = pool.options
    this.name = name
    this.maxPerKey = max
    this.maxTotal = maxTotal
    this.pool = pool
    this.open = open
    this.maxOf = maxOf
  }

  nameOf(key: K): string {
    return nameOfKey(this.name, key)
  }

  partitionOf(key: K): State.Partition<A, E> {
    const { partitions, pool } = this
    const known = MutableHashMap.get(partitions, key)
    if (Option.isSome(known)) return known.value
    const name = this.nameOf(key)
    const max = this.maxOf(key)
    if (!sizeRule.accepts(max)) {
      throw new RangeError(
        `KeyedPool.make: \`maxPerKey\` of ${name} must be ${sizeRule.expected}; got ${max}.`
      )
    }
    const forget = () => {
      MutableHashMap.remove(partitions, key)
      pool.partitions.delete(partition)
    }
    const partition = Lend.unsafeAddPartition(pool, name, this.open(key, name), forget, max)
    MutableHashMap.set(partitions, key, partition)
    return partition
  }

  toJSON(): unknown {
    const { name, partitions, pool } = this
    const keys = MutableHashMap.size(partitions)
    return { _id: "holdfast/KeyedPool", name, keys, ...State.unsafeTotalStats(pool) }
  }
}

const all = {
  maxPerKey: {
    expected: `${sizeRule.expected}, or a function of the key`,
    accepts: (value: unknown) => typeof value === "function" || sizeRule.accepts(value)
  },
  maxTotal: sizeRule,
  ...rules
}

/**
 * Makes a keyed pool in this scope. Nothing is opened until a key is asked for.
 *
 * **Details**, **Interruption**, **Errors** — as `Pool.make`. **Cost** — one object, and one per key in use.
 *
 * **Example** (a pool per host, never more than three sockets)
 * ```ts run
 * import { Effect } from "effect"
 * import * as KeyedPool from "holdfast/Pool/Keyed"
 *
 * const program = Effect.gen(function*() {
 *   const pool = yield* KeyedPool.make({
 *     acquire: (host: string) => Effect.succeed(`socket to ${host}`),
 *     maxPerKey: 2,
 *     maxTotal: 3
 *   })
 *   return yield* KeyedPool.use(pool, "a.example", (socket) => Effect.succeed(socket))
 * })
 * const socket = await Effect.runPromise(Effect.scoped(program))
 * socket // => "socket to a.example"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  K,
  A,
  E,
  R,
  R2 = never,
  R3 = never,
  T extends Duration.DurationInput | undefined = undefined,
  C extends Duration.DurationInput | undefined = undefined,
  M extends number | undefined = undefined
>(
  options: Options<K, A, E, R, R2, R3> & Pool.Bounds<T, C, M>
): Effect.Effect<
  KeyedPool<K, A, E | Pool.ErrorsOf<T, C, M>>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
> => {
  const { acquire, maxPerKey, maxTotal, releaseDeadline } = options
  const site = Ledger.unsafeSite(2)
  // MASK: the pool and its closing are one step.
  return Effect.uninterruptible(Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const limits = { maxPerKey: typeof maxPerKey === "function" ? undefined : maxPerKey, maxTotal }
    const pool = yield* Closing.makeState<A, E, R2, R3>(
      "KeyedPool.make",
      all,
      options,
      limits,
      quota
    )
    return new KeyedPoolHandle<K, A, E | Pool.ErrorsOf<T, C, M>>(pool, (key, name) => {
      const acquired = Effect.suspend(() => acquire(key))
      return Effect.provide(Items.opening(name, acquired, releaseDeadline, site), context)
    }, typeof maxPerKey === "function" ? maxPerKey : () => maxPerKey)
  }))
}

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
  K,
  A,
  E,
  R,
  R2 = never,
  R3 = never,
  T extends Duration.DurationInput | undefined = undefined,
  C extends Duration.DurationInput | undefined = undefined,
  M extends number | undefined = undefined
>(
  tag: Context.Tag<I, KeyedPool<K, A, E | Pool.ErrorsOf<T, C, M>>>,
  options: Options<K, A, E, R, R2, R3> & Pool.Bounds<T, C, M>
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3> => Layer.scoped(tag, make(options))

// In the implementations; the declared types are exact.
type AnyPool = KeyedPool<any, any, any>
type AnyUse = (item: any) => Effect.Effect<any, any, any>

/**
 * Runs `f` with an item of this key and gives it back, whatever the exit. The hot path: it makes no `Scope`.
 *
 * **Interruption**, **Errors**, **Cost** — as `Pool.use`.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <K, A, B, E2, R2, W extends WaitOptions = {}>(
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): <E>(self: KeyedPool<K, A, E>) => Effect.Effect<B, E | E2 | Pool.TimeoutOf<W>, R2>
  <K, A, E, B, E2, R2, W extends WaitOptions = {}>(
    self: KeyedPool<K, A, E>,
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>,
    options?: W
  ): Effect.Effect<B, E | E2 | Pool.TimeoutOf<W>, R2>
} = dual(
  ([, , third]) => typeof third === "function",
  (self: AnyPool, key: unknown, f: AnyUse, options?: WaitOptions) => {
    const site = Use.siteOf(self.pool)
    checkWait("KeyedPool.use", options)
    // Looked up in the step that takes: a partition is removed with its last item.
    return Use.use(self.pool, () => self.partitionOf(key), f, site, options)
  }
)

/**
 * `use`, if an item of this key is idle and fit and there is no waiter; otherwise none, at once. It never waits and never opens.
 *
 * **Details**, **Interruption**, **Errors**, **Cost** — as `Pool.tryUse`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryUse: {
  <K, A, B, E2, R2>(
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: KeyedPool<K, A, E>) => Effect.Effect<Option.Option<B>, E | E2, R2>
  <K, A, E, B, E2, R2>(
    self: KeyedPool<K, A, E>,
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<Option.Option<B>, E | E2, R2>
} = dual(3, (self: AnyPool, key: unknown, f: AnyUse) => {
  const site = Use.siteOf(self.pool)
  const some = (item: any) => Effect.asSome(f(item))
  return Use.use(self.pool, () => self.partitionOf(key), some, site, Use.atOnce)
})

const takeAs = (
  where: string,
  own: Parameters<typeof Use.takeInScope<any, any, any>>[3]
): (...args: ReadonlyArray<any>) => any =>
  dual(
    ([first]) => Predicate.hasProperty(first, TypeId),
    (self: AnyPool, key: unknown, options?: WaitOptions) => {
      const site = Use.siteOf(self.pool)
      checkWait(where, options)
      const partitionOf = () => self.partitionOf(key)
      return Use.takeInScope(() => self.nameOf(key), partitionOf, site, own, options)
    }
  )

/**
 * An item of this key for as long as the scope lives.
 *
 * **Interruption**, **Errors**, **Cost** — as `Pool.get`.
 *
 * @category operations
 * @since 0.1.0
 */
export const get: {
  <K, W extends WaitOptions = {}>(
    key: K,
    options?: W
  ): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<A, E | Pool.TimeoutOf<W>, Scope.Scope>
  <K, A, E, W extends WaitOptions = {}>(
    self: KeyedPool<K, A, E>,
    key: K,
    options?: W
  ): Effect.Effect<A, E | Pool.TimeoutOf<W>, Scope.Scope>
} = takeAs("KeyedPool.get", Use.ownInScope)

/**
 * An item of this key that is given back by `release`, or by the scope at the latest.
 *
 * **Interruption**, **Errors**, **Cost** — as `Pool.lease`.
 *
 * @category operations
 * @since 0.1.0
 */
export const lease: {
  <K, W extends WaitOptions = {}>(
    key: K,
    options?: W
  ): <A, E>(
    self: KeyedPool<K, A, E>
  ) => Effect.Effect<Pool.Lease<A>, E | Pool.TimeoutOf<W>, Scope.Scope>
  <K, A, E, W extends WaitOptions = {}>(
    self: KeyedPool<K, A, E>,
    key: K,
    options?: W
  ): Effect.Effect<Pool.Lease<A>, E | Pool.TimeoutOf<W>, Scope.Scope>
} = takeAs("KeyedPool.lease", Use.leaseInScope)

/**
 * This item is never lent again. `false` if the pool does not have it, or if it was invalid already.
 *
 * **Cost** — looks at every item of every key, by identity.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidate: {
  <A>(item: A): <K, E>(self: KeyedPool<K, A, E>) => Effect.Effect<boolean>
  <K, A, E>(self: KeyedPool<K, A, E>, item: A): Effect.Effect<boolean>
} = dual(
  2,
  <K, A, E>(self: KeyedPool<K, A, E>, item: A): Effect.Effect<boolean> =>
    Effect.sync(() => Lend.unsafeInvalidateValue(self.pool, item))
)

/**
 * No item that exists or is being opened now for this key is lent again.
 *
 * **Cost** — O(idle of the key).
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateKey: {
  <K>(key: K): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<void>
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<void>
} = dual(2, ({ partitions }: AnyPool, key: unknown) =>
  Effect.sync(() => {
    const partition = MutableHashMap.get(partitions, key)
    if (Option.isSome(partition)) Lend.unsafeInvalidateAll(partition.value)
  }))

/**
 * All keys together, exact at this instant; `max` is `maxTotal`, or `maxPerKey` if that has no bound.
 *
 * **Cost** — O(keys in use).
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<Pool.PoolStats> =>
  Effect.sync(() => State.unsafeTotalStats(self.pool))

/**
 * One key, exact at this instant; none if it has no items and no waiters. The totals are those of all keys.
 *
 * **Cost** — one look into the map.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: {
  <K>(key: K): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<Option.Option<Pool.PoolStats>>
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<Option.Option<Pool.PoolStats>>
} = dual(
  2,
  ({ partitions }: AnyPool, key: unknown) =>
    Effect.sync(() => Option.map(MutableHashMap.get(partitions, key), State.unsafeStats))
)

/**
 * The holders of items of all keys at this instant.
 *
 * **Cost** — O(used).
 *
 * @category getters
 * @since 0.1.0
 */
export const holders = <K, A, E>(
  self: KeyedPool<K, A, E>
): Effect.Effect<ReadonlyArray<Pool.Holder>> => Effect.sync(() => State.unsafeHolders(self.pool))

/**
 * How many keys have items or waiters.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<number> =>
  Effect.sync(() => MutableHashMap.size(self.partitions))

/**
 * Waits until no item of any key is held, waited for, being opened, checked or destroyed.
 *
 * **Interruption**, **Cost** — as `Pool.awaitIdle`.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitIdle = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<void> =>
  Closing.awaitQuiet(self.pool)

/**
 * Closes the pool before its scope does, or waits for its end if it is closing already.
 *
 * **Interruption**, **Errors** — as `Pool.close`.
 *
 * @category operations
 * @since 0.1.0
 */
export const close = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<void> =>
  Closing.close(self.pool)
