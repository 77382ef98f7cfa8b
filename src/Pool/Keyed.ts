/**
 * A pool per key under one roof: so many items per key, and so many all told.
 *
 * DESIGN. Each key has a shelf of its own, which is what a plain `Pool` is made of, so everything said there holds here per
 * key. The shelves share one engine: one housekeeper, one closing, one count of slots. A shelf comes with the first who asks
 * for its key and goes with its last item.
 *
 * INVARIANTS
 * - KeyedPool-1 Per key no more than `maxPerKey`, all told no more than `maxTotal` items, at every instant.
 * - KeyedPool-2 Keys do not wait for each other while there is room. When there is none, the idle item unused for longest makes
 *   some, and an item that comes back goes to whoever asked first, of whatever key.
 * - KeyedPool-3 A key nobody uses leaves nothing behind.
 *
 * COST that of `Pool` and one look into a map. While all slots are taken, a return looks at every key that has items or waiters.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Rule from "../internal/options.ts"
import * as Ledger from "../Ledger.ts"
import * as Pool from "../Pool.ts"

/**
 * What `make` takes. `minIdle` is per key, from its first use on; the rest is as for a pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<K, A, E, R = never, R2 = never, R3 = never>
  extends Pool.Settings<A, R2, R3>
{
  /** Opens an item for a key; what it adds to its scope is released when the item is destroyed. */
  readonly acquire: (key: K) => Effect.Effect<A, E, R>
  /** How many items a key may have at once. */
  readonly maxPerKey: number
  /** How many there may be all told. Default no bound. */
  readonly maxTotal?: number | undefined
}

/**
 * Pools of `A` by `K`; keys are compared by `Equal`. `E` is everything that getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedPool<in out K, in out A, out E = never> {
  readonly name: string
  readonly maxPerKey: number
  readonly maxTotal: number
  /** @internal */
  readonly engine: Pool.Machine.Engine<A, E>
  /** @internal Written only by this file. */
  readonly shelves: MutableHashMap.MutableHashMap<K, Pool.Machine.Shelf<A, E>>
  /** @internal The shelf of this key, a new one if need be. To be asked in the step that takes from it. */
  shelfOf(key: K): Pool.Machine.Shelf<A, E>
}

const nameOf = (pool: string, key: unknown): string => `${pool}[${String(key)}]`

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
export function make<K, A, E, R, R2 = never, R3 = never>(
  options: Options<K, A, E, R, R2, R3> & Pool.NoTimeouts & Pool.NoMaxWaiters
): Effect.Effect<
  KeyedPool<K, A, E | Pool.PoolClosed>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
>
export function make<K, A, E, R, R2 = never, R3 = never>(
  options: Options<K, A, E, R, R2, R3> & Pool.NoMaxWaiters
): Effect.Effect<
  KeyedPool<K, A, E | Pool.PoolClosed | Pool.PoolTimeout>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
>
export function make<K, A, E, R, R2 = never, R3 = never>(
  options: Options<K, A, E, R, R2, R3>
): Effect.Effect<
  KeyedPool<K, A, E | Pool.PoolError>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
>
export function make<K, A, E, R, R2 = never, R3 = never>(
  options: Options<K, A, E, R, R2, R3>
): Effect.Effect<
  KeyedPool<K, A, E | Pool.PoolError>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
> {
  const { acquire, maxPerKey, maxTotal = Infinity, releaseDeadline } = options
  const site = Ledger.unsafeSite(2)
  // MASK: the pool and its closing are one step; nothing waits.
  return Effect.uninterruptible(Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const engine = yield* Pool.makeEngine<A, E, R2, R3>(
      "KeyedPool.make",
      { maxPerKey: Rule.integer(1), maxTotal: Rule.integer(1) },
      options,
      maxPerKey,
      maxTotal
    )
    const shelves = MutableHashMap.empty<K, Pool.Machine.Shelf<A, E | Pool.PoolError>>()
    yield* Effect.addFinalizer(() => Pool.Machine.closeEngine(engine))
    const shelfOf = (key: K): Pool.Machine.Shelf<A, E | Pool.PoolError> => {
      const known = MutableHashMap.get(shelves, key)
      if (Option.isSome(known)) return known.value
      const name = nameOf(engine.name, key)
      const open = Pool.opening(name, Effect.suspend(() => acquire(key)), releaseDeadline, site)
      const shelf = Pool.Machine.unsafeAddShelf(engine, name, Effect.provide(open, context), () => {
        MutableHashMap.remove(shelves, key)
        engine.shelves.delete(shelf)
      })
      MutableHashMap.set(shelves, key, shelf)
      return shelf
    }
    return { name: engine.name, maxPerKey, maxTotal, engine, shelves, shelfOf }
  }))
}

/**
 * Runs `f` with an item of this key and gives it back, whatever the exit. The hot path: no `Scope`, no lookup but the key's.
 *
 * **Interruption**, **Errors**, **Cost** — as `Pool.use`.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <K, A, B, E2, R2>(
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: KeyedPool<K, A, E>) => Effect.Effect<B, E | E2, R2>
  <K, A, E, B, E2, R2>(
    self: KeyedPool<K, A, E>,
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R2>
} = dual(
  3,
  <K, A, E, B, E2, R2>(
    self: KeyedPool<K, A, E>,
    key: K,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R2> => {
    const site = Pool.Machine.siteOf(self.engine)
    // MASK: from the taking to the giving back; the wait and `f` are restored. The shelf is looked up in the step that takes:
    // it may go with its last item.
    return Effect.uninterruptibleMask((restore) =>
      Pool.Machine.useInMask(self.shelfOf(key), f, site, restore)
    )
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
  <K>(key: K): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<A, E, Scope.Scope>
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<A, E, Scope.Scope>
} = dual(
  2,
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<A, E, Scope.Scope> => {
    const site = Pool.Machine.siteOf(self.engine)
    return Pool.Machine.takeInScope(
      () => nameOf(self.name, key),
      () => self.shelfOf(key),
      site,
      Pool.Machine.ownInScope
    )
  }
)

/**
 * Neither this item nor, if it is out, its next return is lent again. `false` if it is none of the pool's, or was invalid.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — looks at every item of every key, by identity.
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
    Effect.sync(() => {
      for (const shelf of self.engine.shelves) {
        if (Pool.Machine.unsafeInvalidateIn(shelf, item)) return true
      }
      return false
    })
)

/**
 * None of the items this key has now, nor those being opened for it, is lent again.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(idle of the key).
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateKey: {
  <K>(key: K): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<void>
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<void>
} = dual(
  2,
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<void> =>
    Effect.sync(() => {
      const shelf = MutableHashMap.get(self.shelves, key)
      if (Option.isSome(shelf)) Pool.Machine.unsafeInvalidateAllIn(shelf.value)
    })
)

/**
 * All keys together, exact at this instant; `max` is `maxTotal`, or `maxPerKey` if that has no bound.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(keys in use).
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<Pool.PoolStats> =>
  Effect.sync(() => Pool.Machine.unsafeEngineStats(self.engine))

/**
 * One key, exact at this instant; none if nothing is held, kept or wanted for it. The totals are those of all keys.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — one look into the map.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsOf: {
  <K>(key: K): <A, E>(self: KeyedPool<K, A, E>) => Effect.Effect<Option.Option<Pool.PoolStats>>
  <K, A, E>(self: KeyedPool<K, A, E>, key: K): Effect.Effect<Option.Option<Pool.PoolStats>>
} = dual(
  2,
  <K, A, E>(
    { shelves }: KeyedPool<K, A, E>,
    key: K
  ): Effect.Effect<Option.Option<Pool.PoolStats>> =>
    Effect.sync(() => Option.map(MutableHashMap.get(shelves, key), Pool.Machine.unsafeShelfStats))
)

/**
 * How many keys something is held, kept or wanted for.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<number> =>
  Effect.sync(() => MutableHashMap.size(self.shelves))

/**
 * Waits until nobody holds or waits for an item and none is being opened, checked or destroyed, of whatever key.
 *
 * **Interruption** — Waiting: stops waiting. **Errors** — none. **Cost** — a look after each change.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitIdle = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<void> =>
  Pool.Machine.awaitQuiet(self.engine)

/**
 * Closes the pool before its scope does, or waits for its end if it is closing already.
 *
 * **Interruption**, **Errors**, **Cost** — as `Pool.close`.
 *
 * @category operations
 * @since 0.1.0
 */
export const close = <K, A, E>(self: KeyedPool<K, A, E>): Effect.Effect<void> =>
  Pool.Machine.closeEngine(self.engine)
