/**
 * Semaphore: a number of permits, granted in the order in which they were asked for. And `KeyedSemaphore`: permits per key.
 *
 * DESIGN. A counter and the fair queue. Order is decided in internal/waitQueue.ts, brackets and scopes are in internal/line.ts: a
 * release gives its permits straight to the waiters at the head and wakes exactly those, and no newcomer passes a waiter. Effect's
 * own semaphore wakes every waiter on each release, which costs the square of the waiters and starves them.
 *
 * INVARIANTS
 * - Semaphore-1 (L1) `free + taken = permits` at every instant; a permit taken is released exactly once.
 * - Semaphore-2 (L6) FIFO by arrival within one priority, weighted waiters included: a small request never passes a large one.
 * - Semaphore-3 (L2) An interrupted waiter leaves nothing taken, and those behind it are served in the same step.
 * - Semaphore-4 Growing serves waiters in the same step. Shrinking takes nothing from a holder: `free` is negative until
 *   enough came back. A waiter that asked for more than the new size dies, as a newcomer would, and blocks no other waiter. With 0
 *   permits every request waits.
 * - Semaphore-5 A try never waits and never passes a waiter.
 * - Semaphore-6 (L9) With a ledger in force, a waiter is `acquiring` there and a granted one is `held`, from the same step as in
 *   `stats`. `takeInMask` and `unsafeTryTake` are not recorded.
 * - Semaphore-7 (L7) After `close` every waiter and every newcomer fails; holders keep what they have.
 * - KeyedSemaphore-1 Each key has its own permits. A key without holders and waiters takes no memory.
 *
 * COST about 0.3 µs uncontended; one queue node per wait. With a ledger in force about 1 µs more, and its line.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import type { TypeLambda } from "effect/HKT"
import type * as Inspectable from "effect/Inspectable"
import type * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import type * as Hold from "./internal/hold.ts"
import * as Line from "./internal/line.ts"
import * as Rules from "./internal/options.ts"
import type { AnyFiber } from "./internal/runtime.ts"
import type * as Shapes from "./internal/shapes.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"
import {
  SemaphoreCancelled,
  SemaphoreClosed,
  SemaphoreTimeout,
  type Stats
} from "./Semaphore/errors.ts"

export {
  SemaphoreCancelled,
  SemaphoreClosed,
  SemaphoreTimeout,
  type Stats
} from "./Semaphore/errors.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Semaphore")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A counter with a queue of waiters. `E` is what a waiter or a newcomer fails with: `never`, unless it is `closable`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Semaphore<in out E = never> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _E: Types.Invariant<E> }
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** The number of permits, free or not. */
  readonly permits: number
  /** @internal */
  line(): Permits<E>
}

/**
 * As many permits for each key; the keys are compared as `Equal` does (data by value, other objects by identity).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedSemaphore<in out K> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> }
  readonly name: string
  /** Of each key. */
  readonly permits: number
  /** @internal */
  at(key: K): Line.Source<never, SemaphoreTimeout>
  /** @internal */
  unsafeFind(key: K): Permits<never> | undefined
  /** @internal The keys in use. */
  readonly size: number
}

interface KeyedSemaphoreLambda extends TypeLambda {
  readonly type: KeyedSemaphore<this["Target"]>
}

/**
 * How to make a semaphore.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Shown in errors and by the ledger. Default `"semaphore"`. */
  readonly name?: string | undefined
  /** Whether `close` and `cancelWaiters` may be used. Each operation can then fail with `Cancelled`. Default `false`. */
  readonly closable?: boolean | undefined
}

/**
 * How to wait.
 *
 * @category models
 * @since 0.1.0
 */
export interface WaitOptions {
  /** The bound of the wait, by the `Clock`; it never bounds the use. Default: none. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** Higher ones are served first, equal ones in the order of arrival. Default 0. */
  readonly priority?: number | undefined
}

/**
 * `X` if the options `O` may bound the wait.
 *
 * @category models
 * @since 0.1.0
 */
export type TimeoutOf<O, X> = Line.TimeoutOf<O, X>

/**
 * Makes a part of a masked effect interruptible again.
 *
 * @category models
 * @since 0.1.0
 */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * The failures of the operations of a `closable` semaphore.
 *
 * @category errors
 * @since 0.1.0
 */
export type Cancelled = SemaphoreClosed | SemaphoreCancelled

/** Only this file writes it. */
class Permits<in out E> extends Line.Line<E, SemaphoreTimeout> implements Semaphore<E> {
  readonly [TypeId]: { readonly _E: Types.Invariant<E> } = { _E: identity }
  readonly module = "semaphore"
  permits: number
  free: number
  closed: Cause.Cause<E> | undefined = undefined

  constructor(permits: number, name: string, registration?: Line.Registration) {
    super(name, registration)
    this.permits = permits
    this.free = permits
  }

  stats(): Stats {
    return { permits: this.permits, free: this.free, waiting: this.queue.size }
  }

  toJSON(): unknown {
    return { _id: "Semaphore", name: this.name, ...this.stats() }
  }

  kindOf(): string {
    return "permit"
  }

  recorder(fiber?: AnyFiber): Hold.Recorder | undefined {
    return Ledger.unsafeInForce(fiber)
  }

  tryTake(permits: number): boolean {
    this.check(permits)
    // INVARIANT Semaphore-2: a newcomer passes no waiter.
    if (this.queue.size > 0 || this.free < permits || this.closed !== undefined) return false
    this.free -= permits
    return true
  }

  override refusal(): Effect.Effect<never, E> | undefined {
    return this.closed && Effect.failCause(this.closed)
  }

  late(asked: number, waited: Duration.Duration): SemaphoreTimeout {
    return new SemaphoreTimeout({ semaphore: this.name, asked, waited, stats: this.stats() })
  }

  serve(): void {
    const { queue } = this
    while (queue.head !== undefined && queue.head.need <= this.free) {
      this.free -= queue.head.need
      WaitQueue.grantHead(queue)
    }
  }

  giveBack(permits: number): void {
    const free = this.free + permits
    if (free > this.permits) {
      throw new RangeError(
        `Semaphore-1 broken: ${free} permits free of ${this.permits}; one was released twice.`
      )
    }
    this.free = free
    if (this.queue.size > 0) this.serve()
    this.settle()
  }

  isIdle(): boolean {
    return this.free === this.permits && this.queue.size === 0
  }

  isServedIf(waiting: Hold.Hold, releases: (hold: Hold.Hold) => boolean): boolean {
    return Line.isServedInTurn(this, this.permits, waiting, releases)
  }

  check(permits: number): void {
    if (!Number.isSafeInteger(permits) || permits < 1 || this.isNever(permits)) {
      this.settle()
      throw this.neverServed(permits)
    }
  }

  /** With 0 permits it is paused, and will be resized. */
  isNever(permits: number): boolean {
    return permits > this.permits && this.permits > 0
  }

  neverServed(permits: number): RangeError {
    return new RangeError(
      `Semaphore-1: asked for ${permits} permits of "${this.name}", which has ${this.permits}; `
        + "this could never be served."
    )
  }

  resize(permits: number): void {
    checkSize(permits)
    this.free += permits - this.permits
    this.permits = permits
    WaitQueue.refuse(
      this.queue,
      (need) => this.isNever(need) ? Cause.die(this.neverServed(need)) : undefined
    )
    this.serve()
  }
}

class KeyedPermits<in out K> extends Line.Keyed<K, Permits<never>> implements KeyedSemaphore<K> {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> } = { _K: identity }
  readonly id = "KeyedSemaphore"
  readonly permits: number

  constructor(permits: number, name: string) {
    super(name)
    this.permits = permits
  }

  makeLine(registration: Line.Registration): Permits<never> {
    return new Permits(this.permits, this.name, registration)
  }
}

const checkSize = (permits: number): void => {
  if (!Number.isSafeInteger(permits) || permits < 0) {
    throw new RangeError(`A semaphore needs a whole number of permits, 0 or more; got ${permits}.`)
  }
}

const rules: Rules.Rules = { name: Rules.text, closable: Rules.flag }

/**
 * A semaphore of `permits` permits, all free. See `make`.
 *
 * @category unsafe
 * @since 0.1.0
 */
export function unsafeMake(
  permits: number,
  options: Options & { readonly closable: true }
): Semaphore<Cancelled>
export function unsafeMake(permits: number, options?: Options): Semaphore
export function unsafeMake(permits: number, options?: Options): unknown {
  checkSize(permits)
  Rules.check("Semaphore.make", options, rules)
  return new Permits(permits, options?.name ?? "semaphore")
}

/**
 * A semaphore of `permits` permits, all free. With 0 it is paused: every request waits until `resize`.
 *
 * **Errors** — a number that is negative or not whole, or an unknown option, is a `RangeError` defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(
  permits: number,
  options: Options & { readonly closable: true }
): Effect.Effect<Semaphore<Cancelled>>
export function make(permits: number, options?: Options): Effect.Effect<Semaphore>
export function make(permits: number, options?: Options): Effect.Effect<unknown> {
  return Effect.sync(() => unsafeMake(permits, options))
}

/**
 * A semaphore of `permits` permits for each key. A key without holders and waiters takes no memory.
 *
 * **Errors** — as `make`. **Cost** — about 1.3 µs for a key that is not in use.
 *
 * **Example** (two downloads per host)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel, Semaphore } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const hosts = yield* Semaphore.makeKeyed<string>(2, { name: "host" })
 *   const download = (host: string) =>
 *     Effect.yieldNow().pipe(Semaphore.withPermitsKey(hosts, host, 1))
 *   yield* Parallel.forEach(["a", "a", "a", "b"], download, { concurrency: 4, discard: true })
 *   return yield* Semaphore.size(hosts)
 * })
 * await Effect.runPromise(program) // => 0
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <K>(
  permits: number,
  options?: { readonly name?: string | undefined }
): Effect.Effect<KeyedSemaphore<K>> =>
  Effect.sync(() => {
    checkSize(permits)
    Rules.check("Semaphore.makeKeyed", options, { name: Rules.text })
    return new KeyedPermits<K>(permits, options?.name ?? "semaphore")
  })

/**
 * The counters at this instant.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeStats = <E>(self: Semaphore<E>): Stats => self.line().stats()

/**
 * The counters, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <E>(self: Semaphore<E>): Effect.Effect<Stats> =>
  Effect.sync(() => unsafeStats(self))

/**
 * The counters of one key, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: Shapes.KeyGetter<KeyedSemaphoreLambda, Stats> = dual(
  2,
  (self: KeyedSemaphore<any>, key: unknown) =>
    Effect.sync(() => {
      const { permits } = self
      return self.unsafeFind(key)?.stats() ?? { permits, free: permits, waiting: 0 }
    })
)

/**
 * How many keys are held or awaited.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K>(self: KeyedSemaphore<K>): Effect.Effect<number> =>
  Effect.sync(() => self.size)

/**
 * Takes permits if they are free and the queue is empty. The caller must give them to `unsafeRelease`.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeTryTake = <E>(self: Semaphore<E>, permits: number): boolean =>
  self.line().tryTake(permits)

/**
 * Gives permits back; the waiters they can serve are granted in this very step.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeRelease = <E>(self: Semaphore<E>, permits: number): void =>
  self.line().giveBack(permits)

/**
 * Takes permits, waiting in the queue if need be. For building brackets: call it inside `Effect.uninterruptibleMask` and pass
 * that `restore`; only the wait is interruptible, and when it returns the permits are yours in the same masked step. Do NOT
 * wrap the call itself in `restore`: the interrupt could then fall between the grant and your bracket.
 *
 * **Interruption** — Waiting: the place in the queue is given up, or a grant just received is passed on; nothing is taken.
 * **Errors** — `SemaphoreTimeout` with `acquireTimeout`; a request that could never be served is a `RangeError` defect.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const takeInMask = <E, O extends WaitOptions = {}>(
  self: Semaphore<E>,
  permits: number,
  restore: Restore,
  options?: O
): Effect.Effect<void, E | TimeoutOf<O, SemaphoreTimeout>> =>
  // `any`: the type of a wait does not say that only a bounded one is late.
  Effect.suspend((): Effect.Effect<void, any> => {
    const line = self.line()
    if (line.tryTake(permits)) return Effect.void
    return line.refusal() ?? Line.wait(line, permits, undefined, restore, undefined, options)
  })

/** `More` stands between the semaphore and the options. */
interface PermitBracket<More extends ReadonlyArray<unknown> = []> {
  <X, O extends WaitOptions = {}>(
    self: Semaphore<X>,
    ...more: [...More, options?: O]
  ): <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | X | TimeoutOf<O, SemaphoreTimeout>, R>
  <A, E, R, X, O extends WaitOptions = {}>(
    effect: Effect.Effect<A, E, R>,
    self: Semaphore<X>,
    ...more: [...More, options?: O]
  ): Effect.Effect<A, E | X | TimeoutOf<O, SemaphoreTimeout>, R>
}

/**
 * Runs an effect while holding `permits` permits.
 *
 * **Interruption** — Waiting: leaves the queue, nothing is taken. Holding: the effect is interrupted and the permits go to the
 *   next waiter. **Errors** — the effect's own; `SemaphoreTimeout` with `acquireTimeout`; `Cancelled` if it is closable; a request
 *   that could never be served is a `RangeError` defect. **Cost** — about 0.3 µs uncontended.
 *
 * **Example** (two at a time)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel, Semaphore } from "holdfast"
 *
 * const two = Semaphore.unsafeMake(2)
 * let inside = 0
 * let most = 0
 * const visit = Effect.gen(function*() {
 *   most = Math.max(most, ++inside)
 *   yield* Effect.yieldNow()
 *   inside--
 * })
 * const visits = Array.from({ length: 10 }, () => visit.pipe(Semaphore.withPermits(two, 1)))
 * await Effect.runPromise(Parallel.all(visits, { concurrency: 10, discard: true }))
 * most // => 2
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withPermits: PermitBracket<[permits: number]> = (
  first: any,
  second: any,
  third?: any,
  fourth?: any
): any => {
  // Not `dual`, which costs a twentieth of an uncontended use.
  const site = Ledger.unsafeSite()
  return Effect.isEffect(first)
    ? Line.use(second, third, first, site, fourth)
    : (effect: Effect.Effect<unknown>) => Line.use(first, second, effect, site, third)
}

/**
 * `withPermits` of one permit.
 *
 * @category operations
 * @since 0.1.0
 */
export const withPermit: PermitBracket = (first: any, second?: any, third?: any): any => {
  const site = Ledger.unsafeSite()
  return Effect.isEffect(first)
    ? Line.use(second, 1, first, site, third)
    : (effect: Effect.Effect<unknown>) => Line.use(first, 1, effect, site, second)
}

/**
 * `withPermits` of one key.
 *
 * **Interruption**, **Errors** — as `withPermits`. **Cost** — about 2 µs uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const withPermitsKey: Shapes.KeyBracket<
  KeyedSemaphoreLambda,
  SemaphoreTimeout,
  [permits: number]
> = dual(
  Line.isDataFirst,
  (
    effect: Line.AnyEffect,
    self: KeyedSemaphore<any>,
    key: unknown,
    permits: number,
    options?: WaitOptions
  ) => Line.use(self.at(key), permits, effect, Ledger.unsafeSite(), options)
)

/**
 * Runs an effect while holding `permits` permits, if they are free at once and the queue is empty; otherwise gives none.
 *
 * **Interruption** — Holding: as `withPermits`. **Errors**, **Cost** — as `withPermits`.
 *
 * **Example** (only if it is free)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { Semaphore } from "holdfast"
 *
 * const one = Semaphore.unsafeMake(1)
 * const attempt = Semaphore.tryWithPermits(Effect.succeed("in"), one, 1)
 * Effect.runSync(attempt) // => Option.some("in")
 * Effect.runSync(Semaphore.withPermit(attempt, one)) // => Option.none()
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithPermits: {
  <X>(
    self: Semaphore<X>,
    permits: number
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E | X, R>
  <A, E, R, X>(
    effect: Effect.Effect<A, E, R>,
    self: Semaphore<X>,
    permits: number
  ): Effect.Effect<Option.Option<A>, E | X, R>
} = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: Semaphore<any>, permits: number) =>
    Line.tryUse(self, permits, effect, Ledger.unsafeSite())
)

/**
 * `tryWithPermits` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithPermitsKey: Shapes.KeyAttempt<KeyedSemaphoreLambda, [permits: number]> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: KeyedSemaphore<any>, key: unknown, permits: number) =>
    Line.tryUse(self.at(key), permits, effect, Ledger.unsafeSite())
)

/**
 * Takes permits, waiting in the queue if need be, and holds them until the scope closes.
 *
 * **Interruption** — Waiting: leaves the queue, nothing is taken. **Errors** — as `withPermits`; in a closed scope it dies with
 *   `Managed.OwnerClosed`, and nothing stays taken. **Cost** — about 9 µs.
 *
 * **Example** (a permit for as long as the scope)
 * ```ts run
 * import { Effect } from "effect"
 * import { Semaphore } from "holdfast"
 *
 * const one = Semaphore.unsafeMake(1)
 * const inside = Effect.scoped(Effect.zipRight(Semaphore.get(one, 1), Semaphore.stats(one)))
 * Effect.runSync(inside).free // => 0
 * Semaphore.unsafeStats(one).free // => 1
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <E, O extends WaitOptions = {}>(
  self: Semaphore<E>,
  permits: number,
  options?: O
): Effect.Effect<void, E | TimeoutOf<O, SemaphoreTimeout>, Scope.Scope> =>
  Line.get(self, permits, Ledger.unsafeSite(), options)

/**
 * `get` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const getKey: Shapes.KeyGet<KeyedSemaphoreLambda, SemaphoreTimeout, [permits: number]> = (
  self,
  key,
  permits,
  options
) => Line.get(self.at(key), permits, Ledger.unsafeSite(), options)

/**
 * Changes how many permits there are. 0 is a pause: holders keep theirs, every request waits.
 *
 * **Details** — Growing serves waiters at once. Shrinking never touches a holder: `free` is negative until enough came back. A
 *   waiter that asked for more than there are now dies with the `RangeError` a newcomer would get.
 * **Errors** — a number that is negative or not whole is a `RangeError` defect. **Cost** — one look at each waiter.
 *
 * **Example** (pause and resume)
 * ```ts run
 * import { Effect, Fiber } from "effect"
 * import { Semaphore } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const gate = yield* Semaphore.make(0)
 *   const waiting = yield* Effect.fork(Semaphore.withPermit(Effect.succeed("through"), gate))
 *   yield* Effect.yieldNow()
 *   yield* Semaphore.resize(gate, 1)
 *   return yield* Fiber.join(waiting)
 * })
 * await Effect.runPromise(program) // => "through"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const resize: {
  (permits: number): <E>(self: Semaphore<E>) => Effect.Effect<void>
  <E>(self: Semaphore<E>, permits: number): Effect.Effect<void>
} = dual(
  2,
  <E>(self: Semaphore<E>, permits: number): Effect.Effect<void> =>
    Effect.sync(() => self.line().resize(permits))
)

/**
 * Fails every waiter with `SemaphoreCancelled`; gives how many there were. Newcomers are served as before.
 *
 * **Cost** — one look at each waiter.
 *
 * @category operations
 * @since 0.1.0
 */
export const cancelWaiters = (self: Semaphore<Cancelled>): Effect.Effect<number> =>
  Effect.sync(() => {
    const { queue } = self.line()
    const { size } = queue
    const refusal = Cause.fail(new SemaphoreCancelled({ semaphore: self.name }))
    WaitQueue.refuse(queue, () => refusal)
    return size
  })

/**
 * Fails every waiter with `SemaphoreClosed`, and from now on every newcomer. Holders keep their permits to their end. Closing
 * again does nothing.
 *
 * **Cost** — one look at each waiter.
 *
 * **Example** (a closed semaphore refuses)
 * ```ts run
 * import { Effect } from "effect"
 * import { Semaphore } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const gate = yield* Semaphore.make(1, { closable: true })
 *   yield* Semaphore.close(gate)
 *   return yield* Effect.flip(Semaphore.withPermit(Effect.void, gate))
 * })
 * Effect.runSync(program)._tag // => "SemaphoreClosed"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const close = (self: Semaphore<Cancelled>): Effect.Effect<void> =>
  Effect.sync(() => {
    const line = self.line()
    const refusal = Cause.fail(new SemaphoreClosed({ semaphore: self.name }))
    line.closed ??= refusal
    WaitQueue.refuse(line.queue, () => refusal)
  })
