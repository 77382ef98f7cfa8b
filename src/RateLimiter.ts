/**
 * RateLimiter: a number of tokens per interval, granted in the order in which they were asked for. And `KeyedRateLimiter`: one such
 * limit per key.
 *
 * DESIGN. A token bucket: it holds at most `burst` tokens and refills evenly, `limit` per `interval`. Tokens are spent, not given
 * back. The bucket is refilled when it is read. While a fiber waits, a timer (internal/timers.ts) runs until the head of the queue
 * can be served. Order is decided in internal/waitQueue.ts.
 *
 * INVARIANTS
 * - RateLimiter-1 In any time `t` at most `burst + limit × t / interval` tokens are granted.
 * - RateLimiter-2 (L6) FIFO by arrival within one priority, whatever their weights: no newcomer passes a waiter.
 * - RateLimiter-3 A waiter is granted when its tokens are there, not later than the `Clock`'s next millisecond.
 * - RateLimiter-4 (L2) An interrupted or late waiter spends nothing; the next one is served in the same step, or as soon as it can
 *   be.
 * - RateLimiter-5 Each key has its own bucket. A limiter without waiters has no fiber. The full bucket of a key is forgotten as
 *   others come into use.
 *
 * COST about 1 µs when the tokens are there; one queue node per wait, and one timer fiber for all waits.
 * NOT DONE a limit shared by processes.
 * SOURCES the token bucket of ITU-T I.371; Guava's RateLimiter (which lets the next caller pay) and Bottleneck (priorities).
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual, identity } from "effect/Function"
import type { TypeLambda } from "effect/HKT"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type { Pipeable } from "effect/Pipeable"
import type * as Types from "effect/Types"
import type * as Hold from "./internal/hold.ts"
import * as Line from "./internal/line.ts"
import * as Rules from "./internal/options.ts"
import { type AnyFiber, currentFiber } from "./internal/runtime.ts"
import type * as Shapes from "./internal/shapes.ts"
import * as Timers from "./internal/timers.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"
import type { WaitOptions } from "./Semaphore.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/RateLimiter")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A bucket of tokens with a queue of waiters.
 *
 * @category models
 * @since 0.1.0
 */
export interface RateLimiter extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: TypeId
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** @internal */
  line(): Bucket
}

/**
 * One bucket per key; the keys are compared as `Equal` does (data by value, other objects by identity).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedRateLimiter<in out K> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> }
  readonly name: string
  /** @internal */
  at(key: K): { line(): Bucket }
  /** @internal */
  unsafeFind(key: K): Bucket | undefined
  /** @internal The keys that are remembered. */
  readonly size: number
  /** @internal */
  readonly settings: Settings
}

interface KeyedRateLimiterLambda extends TypeLambda {
  readonly type: KeyedRateLimiter<this["Target"]>
}

/**
 * The tokens that are there now, of at most `burst`, and the number of waiters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly burst: number
  readonly available: number
  readonly waiting: number
}

/**
 * How to make a rate limiter.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Tokens per `interval`, 1 or more. */
  readonly limit: number
  /** Above 0. */
  readonly interval: Duration.DurationInput
  /** Tokens that a bucket holds at most, and at first. Default `limit`. */
  readonly burst?: number | undefined
  /** Shown in errors and by the ledger. Default `"rate limiter"`. */
  readonly name?: string | undefined
}

/**
 * How many tokens to take and how to wait for them.
 *
 * @category models
 * @since 0.1.0
 */
export interface TakeOptions extends WaitOptions {
  /** Above 0 and at most `burst`. Default 1. */
  readonly tokens?: number | undefined
}

/**
 * The tokens were not there within `acquireTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export class RateLimiterTimeout extends Data.TaggedError("RateLimiterTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly limiter: string
  readonly tokens: number
  readonly waited: Duration.Duration
  readonly stats: Stats
}> {
  override get message(): string {
    const waited = Duration.format(this.waited)
    return `${this.tokens} tokens of "${this.limiter}" were not there within ${waited}: `
      + `${this.stats.waiting} more waiting. Wait longer, or ask for less at a time.`
  }
}

interface Settings {
  readonly name: string
  readonly burst: number
  /** Tokens per millisecond. */
  readonly rate: number
  readonly timers: Timers.Timers
}

/** For rounding: sums of fractions come out a little too small. */
const tolerance = 1e-6

/** Only this file writes it. */
class Bucket extends Line.Line<never, RateLimiterTimeout> implements RateLimiter {
  readonly [TypeId]: TypeId = TypeId
  readonly module = "rateLimiter"
  readonly settings: Settings
  tokens: number
  /** When `tokens` was counted. */
  at: number
  /** Until the head of the queue can be served. */
  timer: Timers.Timer | undefined = undefined

  constructor(settings: Settings, registration?: Line.Registration) {
    super(settings.name, registration)
    this.settings = settings
    this.tokens = settings.burst
    this.at = Timers.nowOf(settings.timers)
    this.queue.timers = settings.timers
  }

  refill(): void {
    const { burst, rate, timers } = this.settings
    const now = Timers.nowOf(timers)
    this.tokens = Math.min(burst, this.tokens + (now - this.at) * rate)
    this.at = now
  }

  stats(): Stats {
    this.refill()
    const available = Math.floor(this.tokens + tolerance)
    return { burst: this.settings.burst, available, waiting: this.queue.size }
  }

  toJSON(): unknown {
    return { _id: "RateLimiter", name: this.name, ...this.stats() }
  }

  kindOf(): string {
    return "rate limit"
  }

  recorder(fiber?: AnyFiber): Hold.Recorder | undefined {
    return Ledger.unsafeInForce(fiber)
  }

  tryTake(tokens: number): boolean {
    const { burst } = this.settings
    if (!(tokens > 0 && tokens <= burst)) {
      this.settle()
      throw new RangeError(
        `RateLimiter-1: asked for ${tokens} tokens of "${this.name}", which holds at most ${burst}; `
          + "this could never be served."
      )
    }
    // INVARIANT RateLimiter-2.
    if (this.queue.size > 0) return false
    this.refill()
    if (this.tokens + tolerance < tokens) return false
    this.tokens -= tokens
    return true
  }

  late(tokens: number, waited: Duration.Duration): RateLimiterTimeout {
    return new RateLimiterTimeout({ limiter: this.name, tokens, waited, stats: this.stats() })
  }

  serve(): void {
    const { queue, settings: { rate, timers } } = this
    if (this.timer !== undefined) Timers.stop(this.timer)
    this.refill()
    while (queue.head !== undefined && queue.head.need <= this.tokens + tolerance) {
      this.tokens -= queue.head.need
      WaitQueue.grantHead(queue)
    }
    const fiber = currentFiber()
    if (queue.head === undefined || fiber === undefined) return
    const missing = queue.head.need - this.tokens - tolerance / 2
    // Less than a microsecond is nothing beside a date: the timer would be due before any time has passed.
    const wait = Math.max(missing / rate, 0.001)
    this.timer = Timers.start(timers, wait, fiber, () => this.serve())
  }

  /** Takes back the tokens of a waiter that was granted and then interrupted. */
  giveBack(tokens: number): void {
    this.tokens += tokens
    this.serve()
    this.settle()
  }

  /** Spent tokens do not come back. */
  override ending(_tokens: number, _owner: undefined, hold: Hold.Hold | undefined): undefined {
    hold?.left()
  }

  isIdle(): boolean {
    this.refill()
    return this.queue.size === 0 && this.tokens + tolerance >= this.settings.burst
  }

  /** Time alone serves every waiter. */
  isServedIf(): boolean {
    return true
  }
}

class KeyedBuckets<in out K> extends Line.Keyed<K, Bucket> implements KeyedRateLimiter<K> {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> } = { _K: identity }
  readonly id = "KeyedRateLimiter"
  readonly settings: Settings
  /** In the order in which they are looked at. */
  readonly buckets = new Set<Bucket>()

  constructor(settings: Settings) {
    super(settings.name)
    this.settings = settings
  }

  /** INVARIANT RateLimiter-5: each new key looks at two others, so that memory follows the buckets that are not full. */
  makeLine(registration: Line.Registration): Bucket {
    let looks = 0
    for (const bucket of this.buckets) {
      if (looks++ === 2) break
      this.buckets.delete(bucket)
      if (bucket.isIdle()) bucket.settle()
      else this.buckets.add(bucket)
    }
    const made = new Bucket(this.settings, {
      key: registration.key,
      forget: () => {
        this.buckets.delete(made)
        registration.forget()
      }
    })
    this.buckets.add(made)
    return made
  }
}

const rules: Rules.Rules = {
  limit: Rules.number(1, Number.MAX_SAFE_INTEGER),
  interval: Rules.positiveDuration,
  burst: Rules.number(1, Number.MAX_SAFE_INTEGER),
  name: Rules.text
}

const settingsOf = (where: string, options: Options): Effect.Effect<Settings> =>
  Effect.clockWith((clock) => {
    Rules.check(where, options, rules)
    const { burst = options.limit, interval, limit, name = "rate limiter" } = options
    const rate = limit / Duration.toMillis(interval)
    return Effect.succeed({ name, burst, rate, timers: Timers.make(clock) })
  })

/**
 * A limiter whose bucket is full.
 *
 * **Errors** — a `limit` or `burst` below 1, an `interval` of 0, or an unknown option is a `RangeError` defect.
 *
 * **Example** (three at once, then one each 10 ms)
 * ```ts run
 * import { Clock, Effect } from "effect"
 * import { Parallel, RateLimiter } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const limiter = yield* RateLimiter.make({ limit: 100, interval: "1 second", burst: 3 })
 *   const began = yield* Clock.currentTimeMillis
 *   const call = RateLimiter.withLimit(Effect.succeed("called"), limiter)
 *   yield* Parallel.all([call, call, call, call, call], { concurrency: 5 })
 *   return (yield* Clock.currentTimeMillis) - began >= 19
 * })
 * await Effect.runPromise(program) // => true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<RateLimiter> =>
  Effect.map(settingsOf("RateLimiter.make", options), (settings) => new Bucket(settings))

/**
 * A limit of its own for each key. A key takes memory until its bucket is full again and other keys have come into use.
 *
 * **Errors** — as `make`.
 *
 * **Example** (each user has a limit)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { RateLimiter } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const users = yield* RateLimiter.makeKeyed<string>({ limit: 1, interval: "1 minute" })
 *   const call = (user: string) => RateLimiter.tryWithLimitKey(Effect.succeed("called"), users, user)
 *   yield* call("ann")
 *   return [yield* call("ann"), yield* call("bob")]
 * })
 * Effect.runSync(program) // => [Option.none(), Option.some("called")]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <K>(options: Options): Effect.Effect<KeyedRateLimiter<K>> =>
  Effect.map(
    settingsOf("RateLimiter.makeKeyed", options),
    (settings) => new KeyedBuckets<K>(settings)
  )

/**
 * A limiter as a service.
 *
 * **Errors** — as `make`.
 *
 * **Example** (one limit for a program)
 * ```ts run
 * import { Context, Effect } from "effect"
 * import { RateLimiter } from "holdfast"
 *
 * class Api extends Context.Tag("Api")<Api, RateLimiter.RateLimiter>() {}
 * const call = Effect.flatMap(Api, (api) => RateLimiter.withLimit(Effect.succeed("called"), api))
 * const live = RateLimiter.layer(Api, { limit: 10, interval: "1 second" })
 * Effect.runSync(Effect.provide(call, live)) // => "called"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <I>(tag: Context.Tag<I, RateLimiter>, options: Options): Layer.Layer<I> =>
  Layer.effect(tag, make(options))

/**
 * `layer` with its options from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <I>(
  tag: Context.Tag<I, RateLimiter>,
  options: Config.Config.Wrap<Options>
): Layer.Layer<I, ConfigError.ConfigError> =>
  Layer.effect(tag, Effect.flatMap(Config.unwrap(options), make))

/**
 * The tokens and the number of waiters, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: RateLimiter): Effect.Effect<Stats> =>
  Effect.sync(() => self.line().stats())

/**
 * `stats` of one key.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: Shapes.KeyGetter<KeyedRateLimiterLambda, Stats> = dual(
  2,
  (self: KeyedRateLimiter<any>, key: unknown) =>
    Effect.sync(() => {
      const { burst } = self.settings
      return self.unsafeFind(key)?.stats() ?? { burst, available: burst, waiting: 0 }
    })
)

/**
 * How many keys are remembered: those whose bucket is not full, and some that are.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K>(self: KeyedRateLimiter<K>): Effect.Effect<number> =>
  Effect.sync(() => self.size)

/**
 * Waits for its tokens, spends them and runs the effect.
 *
 * **Interruption** — Waiting: leaves the queue, nothing is spent. **Errors** — the effect's own; `RateLimiterTimeout` with
 *   `acquireTimeout`; more tokens than `burst` are a `RangeError` defect. **Cost** — about 1 µs when the tokens are there.
 *
 * **Example** (a large request costs more)
 * ```ts run
 * import { Effect } from "effect"
 * import { RateLimiter } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const limiter = yield* RateLimiter.make({ limit: 10, interval: "1 second" })
 *   yield* RateLimiter.withLimit(Effect.void, limiter, { tokens: 4, acquireTimeout: "1 second" })
 *   return yield* RateLimiter.stats(limiter)
 * })
 * Effect.runSync(program).available // => 6
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withLimit: Line.Bracket<RateLimiter, TakeOptions, RateLimiterTimeout> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: RateLimiter, options?: TakeOptions) =>
    Line.use(self, options?.tokens ?? 1, effect, Ledger.unsafeSite(), options)
)

/**
 * `withLimit` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLimitKey: Shapes.KeyBracket<
  KeyedRateLimiterLambda,
  RateLimiterTimeout,
  [],
  TakeOptions
> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: KeyedRateLimiter<any>, key: unknown, options?: TakeOptions) =>
    Line.use(self.at(key), options?.tokens ?? 1, effect, Ledger.unsafeSite(), options)
)

type Tokens = Pick<TakeOptions, "tokens">

/**
 * Spends tokens and runs the effect, if the tokens are there at once and the queue is empty; otherwise gives none.
 *
 * **Errors** — the effect's own. **Cost** — as `withLimit`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithLimit: Line.Attempt<RateLimiter, [options?: Tokens]> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: RateLimiter, options?: Tokens) =>
    Line.tryUse(self, options?.tokens ?? 1, effect, Ledger.unsafeSite())
)

/**
 * `tryWithLimit` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithLimitKey: Shapes.KeyAttempt<KeyedRateLimiterLambda, [options?: Tokens]> = dual(
  Line.isDataFirst,
  (effect: Line.AnyEffect, self: KeyedRateLimiter<any>, key: unknown, options?: Tokens) =>
    Line.tryUse(self.at(key), options?.tokens ?? 1, effect, Ledger.unsafeSite())
)
