/**
 * Pool: a bounded number of items, made on demand, lent to one holder at a time, and always taken back.
 *
 * DESIGN. All state is plain fields, changed by synchronous functions in one step, so it is right in the same tick. Who waits
 * is served in the order of internal/waitQueue.ts: an item, a failure or a refusal is granted straight to the head of the
 * line. Items are opened, checked, reset and destroyed in fibers the pool owns, so nobody's cancellation cuts them and no
 * borrower waits for them; each begins uninterruptible and says itself what may be cut. Deadlines (waiting, opening, ageing,
 * leaks) are kept by one housekeeper that sleeps until the next of them and does not exist when there is none.
 *
 * INVARIANTS
 * - Pool-1 `idle + used + creating + closing = size ≤ max` at every instant, in every schedule. (An opening given up at its
 *   `createTimeout` counts no more, though it may ignore that for a while.)
 * - Pool-2 (L6) Waiters are served first come, first served; nobody who comes later is served before them.
 * - Pool-3 (L1, L2) An item lent comes back exactly once: by its bracket, its scope or its lease, whatever the exit; a grant
 *   whose waiter was interrupted goes to the next in the same step.
 * - Pool-4 A failure of opening reaches exactly one waiter, the oldest, and is never stored.
 * - Pool-5 An item that is invalid, worn out, too old or of an older generation is never lent again.
 * - Pool-6 (L7) After closing began nothing is lent; an item that comes back or comes to be is destroyed by that step.
 * - Pool-7 (L4) Checks, resets, releases and the shutdown end by their deadline; what is left behind is named.
 * - Pool-8 (L9) Everything created is destroyed, or held by somebody `holders` names.
 * - Pool-9 No fiber lives on behalf of an idle pool unless an option asks for one, and then one.
 * - Pool-10 (L9) With a ledger in force, who waits is `acquiring` there and who was granted an item is `held`, blocked by
 *   those who have the items that could serve it.
 *
 * COST (2026-11-20) a warm `use` is 1.1 to 1.4 times a hand-written `uninterruptibleMask` pool, about 0.9 µs, and 12 to 18
 * times faster than effect's scoped get (bench/Pool.bench.ts). A check, a reset or a release forks. Housekeeping wakes once per
 * deadline and looks at every idle item, so it is O(max) each time.
 * NOT DONE several holders per item (`concurrencyPerItem`), `resize`, a timeout per call: `Effect.timeout` round `use` is safe.
 * SOURCES puddle (opening outlives its caller), HikariCP (bounds on every step), tarn, the promises S1–S21 of the design.
 * Order is decided in internal/waitQueue.ts, who gets what in internal/poolFlow.ts, what there is in internal/poolState.ts. To
 * add a reason to destroy an item: `Reason`, `unfit`. To add a deadline: `housekeep` and its `arm`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { exitWithin } from "./internal/deadline.ts"
import { prettyOf } from "./internal/exit.ts"
import * as Handover from "./internal/handover.ts"
import * as Rule from "./internal/options.ts"
import * as Flow from "./internal/poolFlow.ts"
import * as State from "./internal/poolState.ts"
import * as Ledger from "./Ledger.ts"
import { fromScopedAt } from "./Managed/resource.ts"

// The words of the pool.

/**
 * The pool at one instant. `used` counts the items that are lent, checked or reset; `closing` those being destroyed; `pending`
 * the waiters. The last six are totals since the pool was made.
 *
 * @category models
 * @since 0.1.0
 */
export type PoolStats = State.PoolStats

/**
 * Who has an item. `since` is in milliseconds of the `Clock` and known if an option of the pool needs the time at each borrow
 * (leak detection, metrics); `site` is known with leak detection, or with a ledger in force that keeps sites.
 *
 * @category models
 * @since 0.1.0
 */
export type Holder = State.Holder

/**
 * No item in time: the wait (`phase: "acquire"`) or the opening of one item (`"create"`) took longer than its timeout.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolTimeout extends Data.TaggedError("PoolTimeout")<{
  readonly pool: string
  readonly phase: "acquire" | "create"
  readonly waited: Duration.Duration
  readonly stats: PoolStats
  /** The last failure of opening an item, if there was one. */
  readonly lastFailure: Option.Option<Cause.Cause<unknown>>
  /** How many items the waiting fiber itself held: more than none is a self-deadlock in the making. */
  readonly heldByWaiter: number
}> {
  override get message(): string {
    const { creating, idle, max, pending, used } = this.stats
    const what = this.phase === "acquire"
      ? `No item of pool "${this.pool}" within ${Duration.format(this.waited)}`
      : `Opening an item of pool "${this.pool}" took longer than ${Duration.format(this.waited)}`
    const why = this.heldByWaiter > 0
      ? `The waiting fiber itself holds ${this.heldByWaiter}: nested use needs max ≥ depth × users.`
      : Option.isSome(this.lastFailure)
      ? `Opening last failed with: ${prettyOf(this.lastFailure.value)}`
      : "Raise `max` or the timeout, or look at `Pool.holders`."
    return `${what} (max ${max}: ${used} used, ${idle} idle, ${creating} creating; ${pending} waiting). ${why}`
  }
}

/**
 * The pool is closed or closing; nothing was lent.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosed extends Data.TaggedError("PoolClosed")<{ readonly pool: string }> {
  override get message(): string {
    return `Pool "${this.pool}" is closed. Its scope ended before its user did.`
  }
}

/**
 * As many wait already as `maxWaiters` allows; this one was refused at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolExhausted extends Data.TaggedError("PoolExhausted")<{
  readonly pool: string
  readonly maxWaiters: number
  readonly stats: PoolStats
}> {
  override get message(): string {
    return `Pool "${this.pool}" is exhausted: ${this.stats.used} of ${this.stats.max} used and `
      + `${this.stats.pending} waiting (maxWaiters ${this.maxWaiters}). Shed load, or raise \`max\`.`
  }
}

/**
 * What a pool itself may refuse with.
 *
 * @category errors
 * @since 0.1.0
 */
export type PoolError = PoolTimeout | PoolClosed | PoolExhausted

/**
 * The pool was closed and not everything came back by `shutdownTimeout`. A defect in the cause of the scope's exit.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolLeak extends Data.TaggedError("PoolLeak")<{
  readonly pool: string
  readonly holders: ReadonlyArray<Holder>
  readonly stats: PoolStats
}> {
  override get message(): string {
    const { closing, creating } = this.stats
    return `Pool "${this.pool}" was closed with ${this.holders.length} item(s) not returned, ${creating} being opened and `
      + `${closing} being destroyed: ${this.holders.map(State.describeHolder).join("; ")}.`
  }
}

/**
 * A fiber that holds an item closed the pool and would have waited for itself. A defect.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosedByHolder extends Data.TaggedError("PoolClosedByHolder")<{
  readonly pool: string
  readonly holder: Holder
}> {
  override get message(): string {
    return `Pool-6: ${
      State.describeHolder(this.holder)
    } closes pool "${this.pool}" while it holds an item of it: it would wait for `
      + "itself. The pool closes without it; give the item back first."
  }
}

/**
 * Why an item was destroyed.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason = State.Reason

/**
 * What `make` takes. Only `acquire` and `max` are needed; what is not given costs nothing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R = never, R2 = never, R3 = never> extends Settings<A, R2, R3> {
  /** Opens an item; what it adds to its scope is released when the item is destroyed. A `Managed` fits. */
  readonly acquire: Effect.Effect<A, E, R>
  /** How many items there may be at once, all told. */
  readonly max: number
}

/**
 * What a pool and a keyed pool have in common.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings<A, R2 = never, R3 = never> {
  /** Shown in errors, by the ledger and in metrics. Default `"pool"`. */
  readonly name?: string | undefined
  /** How many items are kept ready. Refilled after every removal. Default 0. */
  readonly minIdle?: number | undefined
  /** How many may wait beyond those an item is already being made ready for. Default no bound. */
  readonly maxWaiters?: number | undefined
  /** How many items may be opened at the same time. Default no bound. */
  readonly maxConnecting?: number | undefined
  /** Which idle item is lent first: the last one used (`"lifo"`, so that the pool can shrink) or the oldest. Default `"lifo"`. */
  readonly reuse?: "lifo" | "fifo" | undefined
  /** Bounds waiting, opening and checking together. Default no bound. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** Bounds the opening of one item. What opens later is destroyed. Default no bound. */
  readonly createTimeout?: Duration.DurationInput | undefined
  /** When to try again to fill up to `minIdle`. Default exponential from 250 ms by 1.5 up to 10 s, jittered. */
  readonly createRetry?: Schedule.Schedule<unknown, unknown> | undefined
  /** What becomes of an opening nobody waits for any more. Default `"keep"`: it goes idle. */
  readonly createOnAbandon?: "keep" | "interrupt" | undefined
  /** Is the item still good? Anything but `true` destroys it and the next is tried. */
  readonly validate?: ((item: A) => Effect.Effect<boolean, unknown, R2>) | undefined
  /** Default 5 seconds. */
  readonly validateTimeout?: Duration.DurationInput | undefined
  /** Checked before it is lent if it was idle this long. Default 500 ms. */
  readonly validateAfterIdle?: Duration.DurationInput | undefined
  /** Checked (and so kept alive) each time it has been idle this long; 10 % jitter. Needs `validate`. */
  readonly keepAlive?: Duration.DurationInput | undefined
  /** Runs after each use, off the borrower's path, before the item is lent again. A failure destroys the item. */
  readonly reset?:
    | ((item: A, exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown, unknown, R3>)
    | undefined
  /** Default 5 seconds. */
  readonly resetTimeout?: Duration.DurationInput | undefined
  /** Whether this end of a use makes the item unfit. Default never. */
  readonly invalidateOn?: ((exit: Exit.Exit<unknown, unknown>) => boolean) | undefined
  /** An item older than this is not lent again. A borrowed one is never cut. */
  readonly maxLifetime?: Duration.DurationInput | undefined
  /** The part of `maxLifetime`, 0 to 1, by which it may be shortened at random. Default 0.1. */
  readonly maxLifetimeJitter?: number | undefined
  /** An item is destroyed after so many uses. */
  readonly maxUses?: number | undefined
  /** Idle items beyond `minIdle` are destroyed after this. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** Warn once, with fiber, span and place, when an item has been held this long. It is never taken away. */
  readonly leakDetection?: Duration.DurationInput | undefined
  /** How long one item's release may take. Default 5 seconds. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
  /** How long closing waits for what is out. Default without end. */
  readonly shutdownTimeout?: Duration.DurationInput | undefined
  /** Then: interrupt the holders and wait as long again (default), or leave them behind. */
  readonly onShutdownTimeout?: "interrupt" | "abandon" | undefined
  /** Metrics under OpenTelemetry's names with this prefix; `true` means `"pool"`. Default none. */
  readonly metrics?: boolean | string | undefined
}

/**
 * A pool of `A`; `E` is everything that getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pool<in out A, out E = never> {
  readonly name: string
  readonly max: number
  /** @internal */
  readonly shelf: State.Shelf<A, E>
}

/**
 * An item that can be given back before its scope ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease<out A> {
  readonly value: A
  /** Gives the item back; a second time it does nothing. */
  readonly release: Effect.Effect<void>
  /** The item will be destroyed instead of lent again. */
  readonly invalidate: Effect.Effect<boolean>
}

// Metrics.

const makeMeter = (prefix: string, pool: string): State.Meter => {
  const labels = [MetricLabel.make("pool.name", pool)]
  const idle = [...labels, MetricLabel.make("state", "idle")]
  const used = [...labels, MetricLabel.make("state", "used")]
  const boundaries = MetricBoundaries.exponential({ start: 0.001, factor: 2, count: 16 })
  const gauge = (name: string) => Metric.gauge(`${prefix}.${name}`)
  const count = gauge("count")
  const max = gauge("max")
  const idleMin = gauge("idle.min")
  const pending = gauge("pending_requests")
  const counting = (name: string) => {
    const counter = Metric.counter(`${prefix}.${name}`, { incremental: true })
    return () => counter.unsafeUpdate(1, labels)
  }
  const timing = (name: string) => {
    const histogram = Metric.histogram(`${prefix}.${name}`, boundaries)
    return (millis: number) => histogram.unsafeUpdate(millis / 1000, labels)
  }
  const destroyed = Metric.counter(`${prefix}.destroyed`, { incremental: true })
  const createTime = timing("create_time")
  const madeOne = counting("created")
  return {
    sample: (engine) => {
      const stats = State.unsafeEngineStats(engine)
      count.unsafeUpdate(stats.idle, idle)
      count.unsafeUpdate(stats.used, used)
      max.unsafeUpdate(stats.max, labels)
      idleMin.unsafeUpdate(stats.minIdle, labels)
      pending.unsafeUpdate(stats.pending, labels)
    },
    waited: timing("wait_time"),
    used: timing("use_time"),
    created: (millis) => {
      createTime(millis)
      madeOne()
    },
    destroyed: (reason) =>
      destroyed.unsafeUpdate(1, [...labels, MetricLabel.make("reason", reason)]),
    createFailed: counting("create_failures"),
    timedOut: counting("timeouts"),
    cancelled: counting("cancelled_waits"),
    leaked: counting("leaks")
  }
}

// Making.

const millisOf = (duration: Duration.DurationInput | undefined): number =>
  duration === undefined ? Infinity : Duration.toMillis(duration)

/** What `make` of a pool accepts; its own bounds come with each kind of pool. */
const rules: Rule.Rules = {
  name: Rule.text,
  acquire: Rule.anything,
  minIdle: Rule.integer(0),
  maxWaiters: Rule.integer(0),
  maxConnecting: Rule.integer(1),
  reuse: Rule.oneOf("lifo", "fifo"),
  acquireTimeout: Rule.duration,
  createTimeout: Rule.duration,
  createRetry: Rule.anything,
  createOnAbandon: Rule.oneOf("keep", "interrupt"),
  validate: Rule.callback,
  validateTimeout: Rule.positiveDuration,
  validateAfterIdle: Rule.duration,
  keepAlive: Rule.duration,
  reset: Rule.callback,
  resetTimeout: Rule.positiveDuration,
  invalidateOn: Rule.callback,
  maxLifetime: Rule.duration,
  maxLifetimeJitter: Rule.number(0, 1),
  maxUses: Rule.integer(0),
  idleTimeout: Rule.duration,
  leakDetection: Rule.duration,
  releaseDeadline: Rule.duration,
  shutdownTimeout: Rule.duration,
  onShutdownTimeout: Rule.oneOf("interrupt", "abandon"),
  metrics: {
    expected: "true, false or a prefix",
    accepts: (value) => ["boolean", "string"].includes(typeof value)
  }
}

/** @internal Opens one item; what `acquire` put into its scope is released, within its deadline, when the item is destroyed. */
export const opening = <A, E, R>(
  name: string,
  acquire: Effect.Effect<A, E, R>,
  releaseDeadline: Duration.DurationInput | undefined,
  site: Ledger.Site | undefined
): Effect.Effect<State.Opened<A>, E, Exclude<R, Scope.Scope>> => {
  const managed = fromScopedAt({ name, kind: "pool item", releaseDeadline }, acquire, site)
  return managed.openInMask(Effect.interruptible)
}

/** Whether it says so (or, with nothing to say, ends) in time. */
const soundWithin = (
  work: () => Effect.Effect<unknown, unknown>,
  deadline: Duration.Duration,
  isSound: (value: unknown) => boolean
): Effect.Effect<boolean> =>
  Effect.map(
    exitWithin(Effect.suspend(work), deadline),
    (ended) => Option.isSome(ended) && Exit.isSuccess(ended.value) && isSound(ended.value.value)
  )

const defaultTimeout = Duration.seconds(5)

const defaultRetry = Schedule.jittered(
  Schedule.union(Schedule.exponential("250 millis", 1.5), Schedule.spaced("10 seconds"))
)

/** A duration of 0 means none, as in HikariCP and pg-pool. */
const unlessZero = (duration: Duration.DurationInput | undefined): number =>
  millisOf(duration) || Infinity

/** @internal */
export const makeEngine = <A, E, R2, R3>(
  where: string,
  bounds: Rule.Rules,
  settings: Settings<A, R2, R3>,
  max: number,
  maxTotal: number
): Effect.Effect<State.Engine<A, E | PoolError>, never, R2 | R3> =>
  Effect.gen(function*() {
    const name = settings.name ?? "pool"
    const minIdle = settings.minIdle ?? 0
    Rule.check(where, settings, { ...bounds, ...rules })
    if (minIdle > max) {
      throw new RangeError(
        `${where}: \`minIdle\` ${minIdle} is more than ${max}, the most there may be.`
      )
    }
    const keepAlive = unlessZero(settings.keepAlive)
    if (keepAlive !== Infinity && settings.validate === undefined) {
      throw new RangeError(
        `${where}: \`keepAlive\` needs \`validate\`: it keeps an item alive by checking it.`
      )
    }
    const runtime = yield* Effect.runtime<R2 | R3>()
    // Not the runtime: it would bring this region's flags along, and a check must be cut at its deadline.
    const { context } = runtime
    const { validate, reset } = settings
    // MASK: what the pool does in its own fibers is cut only where it says so, never before its first step.
    const uninterrupted = Runtime.disableRuntimeFlag(runtime, RuntimeFlags.Interruption)
    const validateTimeout = Duration.decode(settings.validateTimeout ?? defaultTimeout)
    const resetTimeout = Duration.decode(settings.resetTimeout ?? defaultTimeout)
    const leakAfter = unlessZero(settings.leakDetection)
    const maxLifetime = unlessZero(settings.maxLifetime)
    const idleTimeout = unlessZero(settings.idleTimeout)
    const { metrics } = settings
    const meter = metrics === undefined || metrics === false
      ? undefined
      : makeMeter(metrics === true ? "pool" : metrics, name)
    return {
      name,
      max,
      maxTotal,
      minIdle,
      maxWaiters: settings.maxWaiters ?? Infinity,
      maxConnecting: settings.maxConnecting ?? Infinity,
      fifo: settings.reuse === "fifo",
      interruptAbandoned: settings.createOnAbandon === "interrupt",
      acquireTimeout: unlessZero(settings.acquireTimeout),
      createTimeout: unlessZero(settings.createTimeout),
      care: {
        check: (item) =>
          validate === undefined
            ? Effect.succeed(true)
            : soundWithin(
              () => Effect.provide(validate(item), context),
              validateTimeout,
              (sound) => sound === true
            ),
        reset: (item, exit) =>
          reset === undefined
            ? Effect.succeed(true)
            : soundWithin(
              () => Effect.provide(reset(item, exit), context),
              resetTimeout,
              () => true
            )
      },
      checks: validate !== undefined,
      resets: reset !== undefined,
      validateAfterIdle: Duration.toMillis(settings.validateAfterIdle ?? "500 millis"),
      keepAlive,
      invalidateOn: settings.invalidateOn,
      maxLifetime,
      jitter: settings.maxLifetimeJitter ?? 0.1,
      maxUses: settings.maxUses || Infinity,
      idleTimeout,
      leakAfter,
      retry: settings.createRetry ?? defaultRetry,
      shutdownTimeout: Duration.decode(settings.shutdownTimeout ?? Duration.infinity),
      interruptHolders: settings.onShutdownTimeout !== "abandon",
      timed: validate !== undefined || meter !== undefined || maxTotal !== Infinity
        || Math.min(leakAfter, maxLifetime, idleTimeout) !== Infinity,
      clock: yield* Effect.clock,
      recorder: Ledger.unsafeInForce,
      siteInForce: Ledger.unsafeSite,
      meter,
      // Never in the step that forks: the state is settled before the fiber runs.
      fork: (effect) => Runtime.runFork(uninterrupted, effect, { immediate: false }),
      refusals: {
        closed: (pool) => Cause.fail(new PoolClosed({ pool })),
        exhausted: (pool, maxWaiters, now) =>
          Cause.fail(new PoolExhausted({ pool, maxWaiters, stats: now })),
        timeout: (facts) => Cause.fail(new PoolTimeout(facts)),
        leak: (left, now) => new PoolLeak({ pool: name, holders: left, stats: now }),
        closedByHolder: (holder) => new PoolClosedByHolder({ pool: name, holder })
      },
      ended: yield* Deferred.make<void>(),
      shelves: new Set(),
      watchers: new Set(),
      totals: {
        created: 0,
        destroyed: 0,
        createFailures: 0,
        timeouts: 0,
        cancelledWaits: 0,
        leaks: 0
      },
      total: 0,
      closing: 0,
      watched: meter !== undefined,
      closed: false,
      tickets: 0,
      arrivals: 0,
      housekeeper: undefined,
      wakeAt: Infinity,
      shift: 0
    }
  })

/**
 * The options that decide what getting an item can fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface NoTimeouts {
  readonly acquireTimeout?: undefined
  readonly createTimeout?: undefined
}

/**
 * See `NoTimeouts`.
 *
 * @category models
 * @since 0.1.0
 */
export interface NoMaxWaiters {
  readonly maxWaiters?: undefined
}

/**
 * Makes a pool in this scope. Nothing is opened until it is asked for, or `minIdle` says so.
 *
 * **Details** — Closing the scope refuses all waiters, destroys the idle items and waits for the rest, see `shutdownTimeout`.
 *   To fail at once when nothing can be opened, use it once: `Effect.tap(Pool.make(…), Pool.use(() => Effect.void))`.
 * **Interruption** — never waits. Closing runs in a fiber of the pool: interrupting who waits for it does not stop it.
 * **Errors** — none; getting an item fails with `E` of `acquire`, `PoolClosed`, and, only if the options can cause them,
 *   `PoolTimeout` and `PoolExhausted`. What comes not back by `shutdownTimeout` is a `PoolLeak` defect of the scope's exit.
 * **Cost** — one object; a fiber only while an option has a deadline to keep.
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
export function make<A, E, R, R2 = never, R3 = never>(
  options: Options<A, E, R, R2, R3> & NoTimeouts & NoMaxWaiters
): Effect.Effect<Pool<A, E | PoolClosed>, never, Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3>
export function make<A, E, R, R2 = never, R3 = never>(
  options: Options<A, E, R, R2, R3> & NoMaxWaiters
): Effect.Effect<
  Pool<A, E | PoolClosed | PoolTimeout>,
  never,
  Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3
>
export function make<A, E, R, R2 = never, R3 = never>(
  options: Options<A, E, R, R2, R3>
): Effect.Effect<Pool<A, E | PoolError>, never, Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3>
export function make<A, E, R, R2 = never, R3 = never>(
  options: Options<A, E, R, R2, R3>
): Effect.Effect<Pool<A, E | PoolError>, never, Scope.Scope | Exclude<R, Scope.Scope> | R2 | R3> {
  const site = Ledger.unsafeSite(2)
  // MASK: the pool and its closing are one step; nothing waits.
  return Effect.uninterruptible(Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const engine = yield* makeEngine<A, E, R2, R3>(
      "Pool.make",
      { max: Rule.integer(1) },
      options,
      options.max,
      Infinity
    )
    yield* Effect.addFinalizer(() => Flow.closeEngine(engine))
    const open = opening(engine.name, options.acquire, options.releaseDeadline, site)
    const shelf = Flow.unsafeAddShelf(engine, engine.name, Effect.provide(open, context), () => {})
    return { name: engine.name, max: engine.max, shelf }
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
export function layer<I, A, E, R, R2 = never, R3 = never>(
  tag: Context.Tag<I, Pool<A, E | PoolClosed>>,
  options: Options<A, E, R, R2, R3> & NoTimeouts & NoMaxWaiters
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3>
export function layer<I, A, E, R, R2 = never, R3 = never>(
  tag: Context.Tag<I, Pool<A, E | PoolError>>,
  options: Options<A, E, R, R2, R3>
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3>
export function layer<I, A, E, R, R2 = never, R3 = never>(
  tag: Context.Tag<I, Pool<A, E | PoolError>>,
  options: Options<A, E, R, R2, R3>
): Layer.Layer<I, never, Exclude<R, Scope.Scope> | R2 | R3> {
  return Layer.scoped(tag, make(options)) as Layer.Layer<
    I,
    never,
    Exclude<R, Scope.Scope> | R2 | R3
  >
}

// Using.

/**
 * Runs `f` with an item of the pool and gives it back, whatever the exit. The hot path: no `Scope`, no lookup.
 *
 * **Interruption** — Waiting: leaves the line at once; an item just granted goes to the next in the same step; an opening goes
 *   on for the others. Holding: `f` is cut and the item is given back (destroyed if `invalidateOn` says so).
 * **Errors** — those of `f`, of `acquire`, and of the pool as its options allow.
 * **Cost** — 1.1 to 1.4 times the least a masked bracket can cost, when an item is idle and needs no check.
 *
 * **Example** (what one leaves dirty, nobody gets)
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
  <A, B, E2, R2>(
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: Pool<A, E>) => Effect.Effect<B, E | E2, R2>
  <A, E, B, E2, R2>(
    self: Pool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R2>
} = dual(
  2,
  <A, E, B, E2, R2>(
    { shelf }: Pool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R2> => {
    const site = Flow.siteOf(shelf.engine)
    // MASK: from the taking to the giving back; the wait and `f` are restored.
    return Effect.uninterruptibleMask((restore) => Flow.useInMask(shelf, f, site, restore))
  }
)

/**
 * `use`, if an item is idle, fit and nobody waits; otherwise none, at once. Never waits, never opens.
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
} = dual(
  2,
  <A, E, B, E2, R2>(
    { shelf }: Pool<A, E>,
    f: (item: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<Option.Option<B>, E | E2, R2> => {
    const { engine } = shelf
    const site = Flow.siteOf(engine)
    // MASK: as `use`.
    return Effect.uninterruptibleMask((restore): Effect.Effect<Option.Option<B>, E | E2, R2> => {
      if (engine.closed) {
        return Effect.failCause(engine.refusals.closed(shelf.name))
      }
      const item = Flow.takeNow(shelf, Flow.currentFiber(), site)
      if (item !== undefined) {
        return Effect.map(Flow.runInMask(item, Flow.bodyOf(item.value, f), restore), Option.some)
      }
      Flow.checkNext(shelf)
      return Effect.succeedNone
    })
  }
)

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
export const get = <A, E>(self: Pool<A, E>): Effect.Effect<A, E, Scope.Scope> => {
  const site = Flow.siteOf(self.shelf.engine)
  return Flow.takeInScope(() => self.name, () => self.shelf, site, Flow.ownInScope)
}

/**
 * An item that is given back by `release`, or by the scope at the latest.
 *
 * **Interruption** — as `get`. **Errors** — as `use`. **Cost** — one scope more than `get`.
 *
 * @category operations
 * @since 0.1.0
 */
export const lease = <A, E>(self: Pool<A, E>): Effect.Effect<Lease<A>, E, Scope.Scope> => {
  const site = Flow.siteOf(self.shelf.engine)
  return Flow.takeInScope(() => self.name, () => self.shelf, site, leaseIn)
}

const leaseIn = <A, E>(scope: Scope.Scope, item: State.Item<A, E>): Effect.Effect<Lease<A>> => {
  // Guarded by the single thread: an item is given back once, and then it is somebody else's.
  let ended = false
  const end = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (ended) return
      ended = true
      Flow.giveBack(item, exit)
    })
  // A child scope: what was released early leaves nothing behind in a long-lived one.
  return Effect.flatMap(
    Scope.fork(scope, ExecutionStrategy.sequential),
    (own) =>
      Effect.as(Handover.ownInScope(own, item.shelf.name, end), {
        value: item.value,
        // MASK: a release that was begun is done; nothing waits.
        release: Effect.uninterruptible(Scope.close(own, Exit.void)),
        invalidate: Effect.sync(() => !ended && Flow.unsafeInvalidate(item))
      })
  )
}

/**
 * This item is never lent again: destroyed now if it is idle, when it comes back if it is out. `false` if it is none of the
 * pool's, or was invalid already.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — looks at every item, by identity.
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
    Effect.sync(() => Flow.unsafeInvalidateIn(self.shelf, value))
)

/**
 * None of the items there are now, nor those being opened, is lent again: after a failover, say, or new credentials.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateAll = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Effect.sync(() => Flow.unsafeInvalidateAllIn(self.shelf))

/**
 * Destroys the items that are idle now; `minIdle` new ones are opened. Says how many.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const evictIdle = <A, E>(self: Pool<A, E>): Effect.Effect<number> =>
  Effect.sync(() => Flow.retireIdle(self.shelf, "evicted"))

/**
 * The pool at this instant, exact.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — one small object.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E>(self: Pool<A, E>): Effect.Effect<PoolStats> =>
  Effect.sync(() => unsafeStats(self))

/**
 * `stats`, outside of an effect.
 *
 * @category getters
 * @since 0.1.0
 */
export const unsafeStats = <A, E>(self: Pool<A, E>): PoolStats => State.unsafeShelfStats(self.shelf)

/**
 * Who holds items at this instant.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(used).
 *
 * @category getters
 * @since 0.1.0
 */
export const holders = <A, E>(self: Pool<A, E>): Effect.Effect<ReadonlyArray<Holder>> =>
  Effect.sync(() => State.unsafeHolders(self.shelf.engine))

/**
 * Waits until nobody holds or waits for an item and none is being opened, checked or destroyed.
 *
 * **Interruption** — Waiting: stops waiting. **Errors** — none. **Cost** — none while it waits but a look after each change.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitIdle = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Flow.awaitQuiet(self.shelf.engine)

/**
 * Closes the pool before its scope does, or waits for its end if it is closing already.
 *
 * **Interruption** — Waiting: stops waiting; the closing goes on. **Errors** — none; `PoolLeak` and `PoolClosedByHolder` are
 *   defects. **Cost** — see `shutdownTimeout`.
 *
 * @category operations
 * @since 0.1.0
 */
export const close = <A, E>(self: Pool<A, E>): Effect.Effect<void> =>
  Flow.closeEngine(self.shelf.engine)

/** @internal What Pool/Keyed.ts is made of, too. */
export * as Machine from "./internal/poolFlow.ts"
