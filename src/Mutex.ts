/**
 * Mutex: one holder at a time, in the order in which they asked. And `KeyedMutex`: one holder per key.
 *
 * DESIGN. One bit and the fiber whose bracket holds it, so that a fiber that asks again dies instead of waiting for itself for
 * ever. A keyed mutex has a mutex per key in use. Order is decided in internal/waitQueue.ts; brackets, scopes and keys are in
 * internal/line.ts.
 *
 * INVARIANTS
 * - Mutex-1 (L1) At most one holder; given back exactly once, in the step in which its holder ends, whatever the exit.
 * - Mutex-2 (L6) FIFO within one priority: a holder that asks again does not pass a waiter.
 * - Mutex-3 (L2) An interrupted or late waiter holds nothing and blocks no other waiter.
 * - Mutex-4 A fiber that holds it by a bracket and asks again dies with `MutexReentry` at once.
 * - Mutex-5 `acquireTimeout` bounds the wait only: a holder keeps the mutex for as long as its body runs.
 * - Mutex-6 (L9) With a ledger in force, a waiter is `acquiring` there and a granted one is `held`, each key for itself. From the
 *   same step `stats` names the fiber that was granted.
 * - KeyedMutex-1 Different keys never wait for each other; the same key is one mutex.
 * - KeyedMutex-2 A key without a holder and without waiters takes no memory.
 * - KeyedMutex-3 Every call takes several keys in the same order, so no two of these calls deadlock.
 *
 * COST about 0.3 µs uncontended, the reentry check included: it compares the asking fiber with the holder, nothing more.
 * A key that is not in use costs about 1.3 µs more: its entry is made and removed again.
 * NOT DONE re-entrant mutex; the reentry of a fiber that was forked by the holder (`Lock` finds those).
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import { dual, identity } from "effect/Function"
import type { TypeLambda } from "effect/HKT"
import type * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import type * as Hold from "./internal/hold.ts"
import * as Line from "./internal/line.ts"
import * as Rules from "./internal/options.ts"
import { type AnyFiber, currentFiber } from "./internal/runtime.ts"
import type * as Shapes from "./internal/shapes.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"
import type { TimeoutOf, WaitOptions } from "./Semaphore.ts"

/**
 * The defect of a fiber that holds the mutex already: waiting for it would wait for ever.
 *
 * @category errors
 * @since 0.1.0
 */
export class MutexReentry extends Data.TaggedError("MutexReentry")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly mutex: string
  readonly fiberId: FiberId.FiberId
}> {
  override get message(): string {
    return `Mutex "${this.mutex}" is held by this very fiber and would wait for itself. `
      + "Take it once, outside."
  }
}

/**
 * The mutex was not free within `acquireTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export class MutexTimeout extends Data.TaggedError("MutexTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly mutex: string
  readonly waited: Duration.Duration
  /** How many others waited when this one gave up. */
  readonly waiting: number
  /** The fiber that held it by a bracket, if one did. */
  readonly holder: Option.Option<FiberId.FiberId>
}> {
  override get message(): string {
    const { holder, mutex, waited, waiting } = this
    const by = Option.isSome(holder) ? `fiber ${FiberId.threadName(holder.value)}` : "a scope"
    return `Mutex "${mutex}" was not free within ${Duration.format(waited)}: held by ${by}, `
      + `${waiting} more waiting. Wait longer, or hold it for less.`
  }
}

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Mutex")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A lock with one holder.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mutex extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: TypeId
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** @internal */
  line(): Slot
}

/**
 * One lock per key; the keys are compared as `Equal` does (data by value, other objects by identity).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedMutex<in out K> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> }
  readonly name: string
  /** @internal */
  lineOf(key: K): Slot
  /** @internal */
  at(key: K): Line.Source<never, MutexTimeout>
  /** @internal */
  unsafeFind(key: K): Slot | undefined
  /** @internal The keys in use. */
  readonly size: number
}

interface KeyedMutexLambda extends TypeLambda {
  readonly type: KeyedMutex<this["Target"]>
}

/**
 * The holder and the number of waiters. `holder` is the fiber whose bracket holds it; a scope's hold, or one of a mutex that does
 * not detect reentry, names none.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly locked: boolean
  readonly waiting: number
  readonly holder: Option.Option<FiberId.FiberId>
}

/**
 * How to make a mutex.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Shown in errors and by the ledger. Default `"mutex"`. */
  readonly name?: string | undefined
  /** Whether a fiber that asks again dies with `MutexReentry`. Default `true`; without it such a fiber waits for ever. */
  readonly detectReentry?: boolean | undefined
}

const free: Stats = { locked: false, waiting: 0, holder: Option.none() }

/** Only this file writes it. */
class Slot extends Line.Line<never, MutexTimeout> implements Mutex {
  readonly [TypeId]: TypeId = TypeId
  readonly module = "mutex"
  readonly detects: boolean
  locked = false
  /** The fiber whose bracket holds it; a scope's hold has none, since any fiber may close a scope. */
  holder: AnyFiber | undefined = undefined

  constructor(name: string, detects: boolean, registration?: Line.Registration) {
    super(name, registration)
    this.detects = detects
  }

  stats(): Stats {
    return {
      locked: this.locked,
      waiting: this.queue.size,
      holder: Option.map(Option.fromNullable(this.holder), (fiber) => fiber.id())
    }
  }

  toJSON(): unknown {
    return { _id: "Mutex", name: this.name, locked: this.locked, waiting: this.queue.size }
  }

  kindOf(): string {
    return "lock"
  }

  recorder(fiber?: AnyFiber): Hold.Recorder | undefined {
    return Ledger.unsafeInForce(fiber)
  }

  override asker(fiber = currentFiber()): AnyFiber | undefined {
    return this.detects ? fiber : undefined
  }

  tryTake(_: number, owner: AnyFiber | undefined): boolean {
    if (this.locked) return false
    this.locked = true
    this.holder = owner
    return true
  }

  override refusal(_: number, asker: AnyFiber | undefined): Effect.Effect<never> | undefined {
    return asker !== undefined && asker === this.holder
      ? Effect.die(new MutexReentry({ mutex: this.name, fiberId: asker.id() }))
      : undefined
  }

  late(_: number, waited: Duration.Duration): MutexTimeout {
    const { holder, waiting } = this.stats()
    return new MutexTimeout({ mutex: this.name, waited, waiting, holder })
  }

  serve(): void {
    const { head } = this.queue
    if (head === undefined || this.locked) return
    this.locked = true
    this.holder = head.owner
    WaitQueue.grantHead(this.queue)
  }

  giveBack(): void {
    if (!this.locked) throw new Error("Mutex-1 broken: released twice")
    this.locked = false
    this.holder = undefined
    this.serve()
    this.settle()
  }

  isIdle(): boolean {
    return !this.locked
  }

  isServedIf(waiting: Hold.Hold, releases: (hold: Hold.Hold) => boolean): boolean {
    return Line.isServedInTurn(this, 1, waiting, releases)
  }
}

class KeyedSlots<in out K> extends Line.Keyed<K, Slot> implements KeyedMutex<K> {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> } = { _K: identity }
  readonly id = "KeyedMutex"
  readonly detects: boolean

  constructor(name: string, detects: boolean) {
    super(name)
    this.detects = detects
  }

  makeLine(registration: Line.Registration): Slot {
    return new Slot(this.name, this.detects, registration)
  }
}

const rules: Rules.Rules = { name: Rules.text, detectReentry: Rules.flag }

const settingsOf = (where: string, options: Options = {}): readonly [string, boolean] => {
  Rules.check(where, options, rules)
  return [options.name ?? "mutex", options.detectReentry ?? true]
}

/**
 * A mutex, free.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeMake = (options?: Options): Mutex =>
  new Slot(...settingsOf("Mutex.make", options))

/**
 * A mutex, free.
 *
 * **Errors** — an unknown option is a `RangeError` defect.
 *
 * **Example** (one after the other)
 * ```ts run
 * import { Effect } from "effect"
 * import { Mutex, Parallel } from "holdfast"
 *
 * const log: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const mutex = yield* Mutex.make({ name: "log" })
 *   const write = (who: string) =>
 *     Effect.gen(function*() {
 *       log.push(`${who} begins`)
 *       yield* Effect.yieldNow()
 *       log.push(`${who} ends`)
 *     }).pipe(Mutex.withLock(mutex))
 *   yield* Parallel.all([write("a"), write("b")], { concurrency: 2, discard: true })
 *   return yield* Mutex.stats(mutex)
 * })
 * const after = await Effect.runPromise(program)
 * after.locked // => false
 * log // => ["a begins", "a ends", "b begins", "b ends"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<Mutex> =>
  Effect.sync(() => unsafeMake(options))

/**
 * A lock per key, all free.
 *
 * **Example** (opposite orders do not deadlock)
 * ```ts run
 * import { Effect } from "effect"
 * import { Mutex, Parallel } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const accounts = yield* Mutex.makeKeyed<string>({ name: "account" })
 *   const transfer = (from: string, to: string) =>
 *     Effect.yieldNow().pipe(Mutex.withLockKeys(accounts, [from, to]))
 *   yield* Parallel.all([transfer("ann", "bob"), transfer("bob", "ann")], { concurrency: 2 })
 *   return yield* Mutex.size(accounts)
 * })
 * await Effect.runPromise(program) // => 0
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <K>(options?: Options): Effect.Effect<KeyedMutex<K>> =>
  Effect.sync(() => new KeyedSlots<K>(...settingsOf("Mutex.makeKeyed", options)))

/**
 * The holder and the number of waiters, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: Mutex): Effect.Effect<Stats> => Effect.sync(() => self.line().stats())

/**
 * `stats` of one key.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: Shapes.KeyGetter<KeyedMutexLambda, Stats> = dual(
  2,
  (self: KeyedMutex<any>, key: unknown) => Effect.sync(() => self.unsafeFind(key)?.stats() ?? free)
)

/**
 * How many keys are held or awaited.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K>(self: KeyedMutex<K>): Effect.Effect<number> => Effect.sync(() => self.size)

/**
 * Runs an effect while holding the mutex.
 *
 * **Interruption** — Waiting: leaves the queue, nothing is taken. Holding: the effect is interrupted and the mutex goes to the next
 *   waiter. **Errors** — the effect's own; `MutexTimeout` with `acquireTimeout`; a fiber that holds it already dies with
 *   `MutexReentry`. **Cost** — about 0.3 µs uncontended.
 *
 * **Example** (a bounded wait)
 * ```ts run
 * import { Effect } from "effect"
 * import { Mutex } from "holdfast"
 *
 * const mutex = Mutex.unsafeMake()
 * const write = Mutex.withLock(Effect.succeed("written"), mutex, { acquireTimeout: "1 second" })
 * Effect.runSync(write) // => "written"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withLock: Line.Bracket<Mutex, WaitOptions, MutexTimeout> = (
  first: any,
  second?: any,
  third?: any
): any => {
  // Not `dual`, which costs a twentieth of an uncontended use.
  const site = Ledger.unsafeSite()
  return Effect.isEffect(first)
    ? Line.use(second, 1, first, site, third)
    : (effect: Effect.Effect<unknown>) => Line.use(first, 1, effect, site, second)
}

/**
 * `withLock` of one key.
 *
 * **Interruption**, **Errors** — as `withLock`. **Cost** — about 2 µs uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLockKey: Shapes.KeyBracket<KeyedMutexLambda, MutexTimeout> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: KeyedMutex<any>, key: unknown, options?: WaitOptions) =>
    Line.use(self.at(key), 1, effect, Ledger.unsafeSite(), options)
)

/**
 * Runs an effect while holding several keys, each taken once, in the same order in every call.
 *
 * **Details** — The order is that in which the keys came into use. A call nested in another one can still deadlock with a
 *   call nested the other way round: take all keys in one call. `acquireTimeout` bounds the wait for each key.
 * **Interruption** — Waiting: leaves the queue; the keys taken so far are given back. Holding: as `withLock`.
 * **Errors** — the effect's own; `MutexTimeout`; a fiber that holds one of the keys dies with `MutexReentry` before any is taken.
 * **Cost** — about 1.5 µs a key, uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLockKeys: {
  <K, O extends WaitOptions = {}>(
    self: KeyedMutex<K>,
    keys: Iterable<K>,
    options?: O
  ): <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | TimeoutOf<O, MutexTimeout>, R>
  <A, E, R, K, O extends WaitOptions = {}>(
    effect: Effect.Effect<A, E, R>,
    self: KeyedMutex<K>,
    keys: Iterable<K>,
    options?: O
  ): Effect.Effect<A, E | TimeoutOf<O, MutexTimeout>, R>
} = dual(
  Line.isDataFirst,
  (
    effect: Line.AnyEffect,
    self: KeyedMutex<any>,
    keys: Iterable<unknown>,
    options?: WaitOptions
  ) => {
    // The list is whole before a line is made: an iterable that throws must leave nothing behind.
    const lines = () => Array.from(new Set(Array.from(keys).map((key) => self.lineOf(key))))
    return Line.useAll(lines, effect, Ledger.unsafeSite(), options)
  }
)

/**
 * Runs an effect while holding the mutex, if it is free at once; otherwise none.
 *
 * **Errors** — the effect's own. **Cost** — as `withLock`.
 *
 * **Example** (only if it is free)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { Mutex } from "holdfast"
 *
 * const mutex = Mutex.unsafeMake()
 * Effect.runSync(Mutex.tryWithLock(Effect.succeed("in"), mutex)) // => Option.some("in")
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithLock: Line.Attempt<Mutex> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: Mutex) => Line.tryUse(self, 1, effect, Ledger.unsafeSite())
)

/**
 * `tryWithLock` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithLockKey: Shapes.KeyAttempt<KeyedMutexLambda> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: KeyedMutex<any>, key: unknown) =>
    Line.tryUse(self.at(key), 1, effect, Ledger.unsafeSite())
)

/**
 * Takes the mutex and holds it until the scope closes. Such a hold belongs to the scope, which any fiber may close, so a fiber that
 * asks again waits for the scope; only one that holds it by a bracket dies with `MutexReentry`.
 *
 * **Interruption** — Waiting: leaves the queue, nothing is taken. **Errors** — `MutexTimeout` with `acquireTimeout`; in a closed
 *   scope it dies with `Managed.OwnerClosed`, and nothing stays taken. **Cost** — about 9 µs.
 *
 * **Example** (locked for as long as the scope)
 * ```ts run
 * import { Effect } from "effect"
 * import { Mutex } from "holdfast"
 *
 * const mutex = Mutex.unsafeMake()
 * const inside = Effect.scoped(Effect.zipRight(Mutex.get(mutex), Mutex.stats(mutex)))
 * Effect.runSync(inside).locked // => true
 * Effect.runSync(Mutex.stats(mutex)).locked // => false
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <O extends WaitOptions = {}>(
  self: Mutex,
  options?: O
): Effect.Effect<void, TimeoutOf<O, MutexTimeout>, Scope.Scope> =>
  Line.get(self, 1, Ledger.unsafeSite(), options)

/**
 * `get` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const getKey: Shapes.KeyGet<KeyedMutexLambda, MutexTimeout> = (self, key, options) =>
  Line.get(self.at(key), 1, Ledger.unsafeSite(), options)
