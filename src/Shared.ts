/**
 * Shared: one instance for all its users, released after the last of them. `makeKeyed`: one instance per key.
 *
 * DESIGN. A `Shared` is a keyed one with a single key. Each instance has a fiber of its own, which opens it, waits for the
 * last user, and releases it; users only enter and leave. So the interruption of a user never reaches the acquire of the
 * others. The state of an instance stands on the instance, never on its key, so an old instance cannot touch its successor.
 * A successor opens after the release of its predecessors, except of those still in use after an `invalidate`.
 *
 * INVARIANTS
 * - Shared-1 (L1, L10) All users at one time have the same instance; it is released once, after the last of them has ended.
 * - Shared-2 (L2) An interrupted user interrupts nobody else. The acquire is interrupted when its last waiter has left.
 * - Shared-3 A failed acquire fails all who wait for it, and is not remembered: the next user acquires anew.
 * - Shared-4 The last user to leave starts `idleTimeToLive`; without it, that user releases, and waits for the release.
 * - Shared-5 After `invalidate` no new user gets the old instance; its users keep it to their end; its end does not touch
 *   the new one.
 * - Shared-6 (L7) After the owner's scope began to close, a use fails with `SharedClosed` before anything is acquired, and so
 *   do those who wait for an acquire. Users keep what they have; the close waits for them, then releases. If the closing
 *   fiber is itself a user, the close does not wait for that instance: it dies with `SharedClosedByHolder`.
 * - Shared-7 (L4, L5) `Managed` bounds and records a release. Its failure reaches the user that waited for it, or
 *   else the owner of the scope.
 * - Shared-8 (L9) With a ledger in force, a user that waits for an acquire is `acquiring` there, blocked by that acquire; one
 *   that has the instance is `held`. An acquire that uses itself is a deadlock there.
 * - KeyedShared-1 A key without users and without an instance occupies no memory.
 * - KeyedShared-2 Never more than `capacity` instances, those being opened or released included. A newcomer replaces the
 *   instance that was idle longest, or fails with `SharedFull`.
 *
 * COST about 1.2 µs for a use of an open instance; about 60 µs for one that opens and releases it; one parked fiber per
 * instance, and one that sleeps for all idle ones.
 * NOT DONE an acquire that uses itself is not refused: it waits until the ledger reports it. No `layerConfig`: an acquire is
 * no configuration.
 * SOURCES effect#8389 (first caller owns the lookup), effect#7516 (old entry's cleanup removes its replacement), RcMap
 * (`touch`, `idleTimeToLive` per key).
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { nameOfKey } from "./internal/handle.ts"
import * as Handover from "./internal/handover.ts"
import * as Lent from "./internal/lent.ts"
import * as Rules from "./internal/options.ts"
import { isClosed } from "./internal/runtime.ts"
import * as Ledger from "./Ledger.ts"
import type { SharedClosed, SharedFull } from "./Shared/errors.ts"
import {
  enterInMask,
  Group,
  type Instance,
  type KeyedOptions,
  keyedRules,
  type KeyedShared,
  leave,
  rules
} from "./Shared/instances.ts"

export { SharedClosed, SharedClosedByHolder, SharedFull } from "./Shared/errors.ts"
export { TypeId } from "./Shared/instances.ts"
export type { KeyedOptions, KeyedShared } from "./Shared/instances.ts"

/**
 * One instance for all its users.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shared<out A, out E = never> extends KeyedShared<undefined, A, E> {}

/**
 * The options of `make`, as in `makeKeyed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R>
  extends Omit<KeyedOptions<never, A, E, R>, "acquire" | "idleTimeToLive" | "capacity">
{
  readonly acquire: Effect.Effect<A, E, R>
  readonly idleTimeToLive?:
    | Duration.DurationInput
    | ((value: A) => Duration.DurationInput)
    | undefined
}

/**
 * The instance to invalidate. Default: the present one.
 *
 * @category models
 * @since 0.1.0
 */
export interface InvalidateOptions<A> {
  /** Does nothing unless this value is the present one. */
  readonly only?: A
}

/**
 * The present instance of a key, and the number of former ones.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** `"none"`: the next user acquires. */
  readonly state: "none" | "opening" | "open" | "closed"
  /** The number of users that have the present instance or wait for its acquire. */
  readonly users: number
  /** Instances that are not the present one any more, but still in use or being released. */
  readonly former: number
}

/** Without a `capacity` no use fails with `SharedFull`. */
type FullOf<C> = [C] extends [undefined] ? never : SharedFull

/** Every handle is a `Group`. */
const groupOf = <K, A, E>(self: KeyedShared<K, A, E>): Group<K, A, E> =>
  self as unknown as Group<K, A, E>

// Constructors.

const makeGroup = <K, A, E, R>(
  options: KeyedOptions<K, A, E, R>,
  nameOf: (key: K) => string
): Effect.Effect<Group<K, A, E>, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<Exclude<R, Scope.Scope>>()
    // Each acquire runs in this runtime, which has `R`.
    const own = options as KeyedOptions<K, A, E, Scope.Scope>
    const group = new Group(own, nameOf, runtime, yield* Effect.clock)
    yield* Effect.addFinalizer(() => group.close())
    return group
  })

/**
 * One instance for all its users, in the scope it is made in. Nothing is acquired before the first use.
 *
 * **Details** — The acquire sees the context of this call, and none of a user's.
 * **Interruption** — The close of the scope waits for the users, then for the release.
 * **Errors** — The exit of the close has the failures of releases that no user waited for, and `SharedClosedByHolder`. A wrong
 *   option is a defect.
 *
 * **Example** (acquired once, released after the last user)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Parallel, Shared } from "holdfast"
 *
 * const log: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const shared = yield* Shared.make({
 *     name: "line",
 *     acquire: Managed.make({
 *       name: "line",
 *       acquire: Effect.sync(() => log.push("open")),
 *       release: () => Effect.sync(() => log.push("close"))
 *     })
 *   })
 *   const user = Shared.use(shared, () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => log.push("use"))))
 *   yield* Parallel.all([user, user, user], { concurrency: 3, discard: true })
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * log // => ["open", "use", "use", "use", "close"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E, R>(
  options: Options<A, E, R>
): Effect.Effect<Shared<A, E>, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.suspend(() => {
    Rules.check("Shared.make", options, rules)
    const { acquire, idleTimeToLive: idle } = options
    const idleTimeToLive = typeof idle === "function"
      ? (_: undefined, value: A) => idle(value)
      : idle
    return makeGroup({ ...options, acquire: () => acquire, idleTimeToLive }, () => options.name)
  })

/**
 * One instance per key, in the scope it is made in. Nothing is acquired before the first use of a key.
 *
 * **Details**, **Interruption**, **Errors** — as `make`. With a `capacity` a use can fail with `SharedFull`.
 * **Cost** — one map; a key has an entry while it has an instance.
 *
 * **Example** (one instance per key)
 * ```ts run
 * import { Effect } from "effect"
 * import { Shared } from "holdfast"
 *
 * let opened = 0
 * const program = Effect.gen(function*() {
 *   const houses = yield* Shared.makeKeyed({
 *     name: "house",
 *     acquire: (street: string) => Effect.sync(() => `${street} ${++opened}`),
 *     idleTimeToLive: "1 minute",
 *     capacity: 2
 *   })
 *   const visit = (street: string) => Shared.useKey(houses, street, Effect.succeed)
 *   return [yield* visit("Elm"), yield* visit("Oak"), yield* visit("Elm"), yield* visit("Ash"), yield* visit("Oak")]
 * })
 * await Effect.runPromise(Effect.scoped(program)) // => ["Elm 1", "Oak 2", "Elm 1", "Ash 3", "Oak 4"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <K, A, E, R, C extends number | undefined = undefined>(
  options: KeyedOptions<K, A, E, R> & { readonly capacity?: C | undefined }
): Effect.Effect<KeyedShared<K, A, E | FullOf<C>>, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.suspend(() => {
    Rules.check("Shared.makeKeyed", options, keyedRules)
    return makeGroup(options, (key) => nameOfKey(options.name, key))
  })

/**
 * `make` as a layer.
 *
 * **Interruption**, **Errors** — as `make`.
 *
 * **Example** (a connection as a service, opened by its first user)
 * ```ts
 * import { Context, Effect } from "effect"
 * import { Shared } from "holdfast"
 *
 * class Line extends Context.Tag("Line")<Line, Shared.Shared<number>>() {}
 * const live = Shared.layer(Line, { name: "line", acquire: Effect.succeed(1) })
 * const program = Effect.flatMap(Line, Shared.use((line) => Effect.log(line)))
 * export const main = Effect.provide(program, live)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <I, A, E, R>(
  tag: Context.Tag<I, Shared<A, E>>,
  options: Options<A, E, R>
): Layer.Layer<I, never, Exclude<R, Scope.Scope>> => Layer.scoped(tag, make(options))

/**
 * `makeKeyed` as a layer.
 *
 * **Interruption**, **Errors** — as `makeKeyed`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKeyed = <I, K, A, E, R, C extends number | undefined = undefined>(
  tag: Context.Tag<I, KeyedShared<K, A, E | FullOf<C>>>,
  options: KeyedOptions<K, A, E, R> & { readonly capacity?: C | undefined }
): Layer.Layer<I, never, Exclude<R, Scope.Scope>> => Layer.scoped(tag, makeKeyed(options))

// Operations.

const useOne = <K, A, E, B, E2, R2>(
  self: KeyedShared<K, A, E>,
  key: K,
  f: (value: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2 | SharedClosed, R2> => {
  const site = Ledger.unsafeSite()
  // MASK: from entering to leaving; the wait and the use are restored.
  return Effect.uninterruptibleMask((restore) =>
    enterInMask(groupOf(self), key, restore, site, (instance, user, value) =>
      Lent.useThen(
        Lent.lend("children"),
        { kind: "shared", name: instance.name, site },
        restore(Effect.suspend(() => f(value))),
        (exit) => leave(instance, user, exit)
      ))
  )
}

const getOne = <K, A, E>(
  self: KeyedShared<K, A, E>,
  key: K
): Effect.Effect<A, E | SharedClosed, Scope.Scope> => {
  const site = Ledger.unsafeSite()
  // MASK: entering and the finalizer that leaves are one step; the wait is restored.
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) =>
      isClosed(scope)
        ? Handover.ownerClosed(groupOf(self).nameOf(key))
        : enterInMask(groupOf(self), key, restore, site, (instance, user, value) => {
          const end = () => Effect.suspend(() => leave(instance, user, Exit.void))
          const lent = Lent.lend("none", undefined, value)
          return Effect.as(Handover.ownInScope(scope, instance.name, end, lent), value)
        }))
  )
}

/**
 * Runs `f` with the instance, acquiring it if there is none: the bracket, without a `Scope` in the context.
 *
 * **Interruption** — Waiting: the other users wait on; the acquire is interrupted, and not waited for, if there are none.
 *   Holding: `f` is interrupted; the last user waits for the release, unless there is an `idleTimeToLive`.
 * **Errors** — `E` of the acquire, for all who wait for it; `SharedClosed`; a failed release is appended to the cause.
 * **Cost** — about 1.2 µs if it is open.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2>(
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: Shared<A, E>) => Effect.Effect<B, E | E2 | SharedClosed, R2>
  <A, E, B, E2, R2>(
    self: Shared<A, E>,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2>
} = dual(
  2,
  <A, E, B, E2, R2>(self: Shared<A, E>, f: (value: A) => Effect.Effect<B, E2, R2>) =>
    useOne(self, undefined, f)
)

/**
 * `use` of one key.
 *
 * **Interruption**, **Errors**, **Cost** — as `use`; `SharedFull` if there is a `capacity` and all instances are in use.
 *
 * @category operations
 * @since 0.1.0
 */
export const useKey: {
  <K, A, B, E2, R2>(
    key: K,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: KeyedShared<K, A, E>) => Effect.Effect<B, E | E2 | SharedClosed, R2>
  <K, A, E, B, E2, R2>(
    self: KeyedShared<K, A, E>,
    key: K,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2>
} = dual(3, useOne)

/**
 * The instance, acquired if there is none, and held until the scope closes.
 *
 * **Interruption** — as `use`. **Errors** — as `use`. In a scope that is closed it dies with
 *   `Managed.OwnerClosed`, and nothing is acquired.
 * **Cost** — about 9 µs if it is open.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <A, E>(self: Shared<A, E>): Effect.Effect<A, E | SharedClosed, Scope.Scope> =>
  getOne(self, undefined)

/**
 * `get` of one key.
 *
 * **Interruption**, **Errors**, **Cost** — as `get`; `SharedFull` if there is a `capacity` and all instances are in use.
 *
 * @category operations
 * @since 0.1.0
 */
export const getKey: {
  <K>(key: K): <A, E>(self: KeyedShared<K, A, E>) => Effect.Effect<A, E | SharedClosed, Scope.Scope>
  <K, A, E>(self: KeyedShared<K, A, E>, key: K): Effect.Effect<A, E | SharedClosed, Scope.Scope>
} = dual(2, getOne)

/**
 * The next user gets a new instance. Present users keep theirs to their end; without users it is released, and this waits for
 * the release. `false` if there was nothing to invalidate.
 *
 * **Interruption** — Waiting: only the wait ends. **Errors** — A failed release is in the exit of the owner's close.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidate = <A, E>(
  self: Shared<A, E>,
  options?: InvalidateOptions<A>
): Effect.Effect<boolean> => invalidateKey(self, undefined, options)

/**
 * `invalidate` of one key.
 *
 * **Interruption**, **Errors** — as `invalidate`.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateKey: {
  <K, A>(
    key: K,
    options?: InvalidateOptions<A>
  ): <E>(self: KeyedShared<K, A, E>) => Effect.Effect<boolean>
  <K, A, E>(
    self: KeyedShared<K, A, E>,
    key: K,
    options?: InvalidateOptions<A>
  ): Effect.Effect<boolean>
} = dual(
  ([self]) => self instanceof Group,
  <K, A, E>(self: KeyedShared<K, A, E>, key: K, options: InvalidateOptions<A> = {}) =>
    Effect.suspend(() => {
      const instance = groupOf(self).present(key)
      const isMeant = ({ outcome }: Instance<K, A, E>): boolean =>
        !("only" in options)
        || outcome !== undefined && Exit.isSuccess(outcome) && outcome.value === options.only
      if (instance === undefined || !isMeant(instance)) return Effect.succeed(false)
      instance.isRetired = true
      instance.settle()
      return instance.state === "ending"
        ? Effect.as(Fiber.await(instance.fiber), true)
        : Effect.succeed(true)
    })
)

/**
 * Restarts the `idleTimeToLive` of an instance without users, as a use would. `false` if there is no instance; none is acquired.
 *
 * @category operations
 * @since 0.1.0
 */
export const touch = <A, E>(self: Shared<A, E>): Effect.Effect<boolean> => touchKey(self, undefined)

/**
 * `touch` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const touchKey: {
  <K>(key: K): <A, E>(self: KeyedShared<K, A, E>) => Effect.Effect<boolean>
  <K, A, E>(self: KeyedShared<K, A, E>, key: K): Effect.Effect<boolean>
} = dual(
  2,
  <K, A, E>(self: KeyedShared<K, A, E>, key: K): Effect.Effect<boolean> =>
    Effect.sync(() => {
      const instance = groupOf(self).present(key)
      instance?.settle()
      return instance !== undefined
    })
)

// Getters.

/**
 * The present instance, and the number of former ones, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E>(self: Shared<A, E>): Effect.Effect<Stats> =>
  Effect.map(statsKey(self, undefined), (stats) => {
    const state = groupOf(self).isClosed ? "closed" : "none"
    return Option.getOrElse(stats, (): Stats => ({ state, users: 0, former: 0 }))
  })

/**
 * `stats` of one key; none if it has no instance.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: {
  <K>(key: K): <A, E>(self: KeyedShared<K, A, E>) => Effect.Effect<Option.Option<Stats>>
  <K, A, E>(self: KeyedShared<K, A, E>, key: K): Effect.Effect<Option.Option<Stats>>
} = dual(
  2,
  <K, A, E>(self: KeyedShared<K, A, E>, key: K): Effect.Effect<Option.Option<Stats>> =>
    Effect.sync(() => {
      const group = groupOf(self)
      const line = group.lineOf(key)
      if (line === undefined) return Option.none()
      const present = group.present(key)
      const state = present?.outcome === undefined ? "opening" : "open"
      return Option.some<Stats>({
        state: group.isClosed ? "closed" : present === undefined ? "none" : state,
        users: present?.users.size ?? 0,
        former: line.length - (present === undefined ? 0 : 1)
      })
    })
)

/**
 * The number of users that have the present instance or wait for its acquire.
 *
 * @category getters
 * @since 0.1.0
 */
export const refCount = <A, E>(self: Shared<A, E>): Effect.Effect<number> =>
  Effect.map(stats(self), ({ users }) => users)

/**
 * The keys that have an instance, those being opened, idle or released included.
 *
 * @category getters
 * @since 0.1.0
 */
export const keys = <K, A, E>(self: KeyedShared<K, A, E>): Effect.Effect<ReadonlyArray<K>> =>
  Effect.sync(() => MutableHashMap.keys(groupOf(self).lines))

/**
 * The number of `keys`.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K, A, E>(self: KeyedShared<K, A, E>): Effect.Effect<number> =>
  Effect.sync(() => MutableHashMap.size(groupOf(self).lines))
