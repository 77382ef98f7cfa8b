/**
 * options: the options of a pool, their rules, and the form in which the pool reads them.
 *
 * DESIGN. Each option is checked and resolved once, when the pool is made; the other rooms read numbers of milliseconds, with
 * `Infinity` for "no bound". To add an option: `Settings`, `shared`, `resolve`.
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import * as Rule from "../internal/options.ts"

/**
 * The options that a pool and a keyed pool share.
 *
 * **Details** — `0` turns off `acquireTimeout`, `createTimeout`, `keepAlive`, `maxLifetime`, `maxUses`, `idleTimeout` and
 *   `leakDetection`, as in HikariCP and pg-pool. NaN, a negative number and an unknown name are `RangeError` defects.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings<A, R2 = never, R3 = never> {
  /** Shown in errors, by the ledger and in metrics. Default `"pool"`. */
  readonly name?: string | undefined
  /** How many items are kept ready. Refilled after every removal. Default 0. */
  readonly minIdle?: number | undefined
  /** How many may wait beyond those for whom an item is being opened or checked. Default no bound. */
  readonly maxWaiters?: number | undefined
  /** How many items may be opened at the same time. Default no bound. */
  readonly maxConnecting?: number | undefined
  /** Which idle item is lent first: the last one used (`"lifo"`, so that the pool can shrink) or the oldest. Default `"lifo"`. */
  readonly reuse?: "lifo" | "fifo" | undefined
  /** Bounds waiting, opening and checking together. Default no bound. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** Bounds the opening of one item. An item that opens later is destroyed. Default no bound. */
  readonly createTimeout?: Duration.DurationInput | undefined
  /** When to try again to fill up to `minIdle`. Default exponential from 250 ms by 1.5 up to 10 s, jittered. */
  readonly createRetry?: Schedule.Schedule<unknown, unknown> | undefined
  /** Whether an opening whose waiter has left continues. Default `"keep"`: the item goes idle. */
  readonly createOnAbandon?: "keep" | "interrupt" | undefined
  /** Tells whether the item is still good. On any answer but `true` it is destroyed, and the next item is tried. */
  readonly validate?: ((item: A) => Effect.Effect<boolean, unknown, R2>) | undefined
  /** Above 0. Default 5 seconds. */
  readonly validateTimeout?: Duration.DurationInput | undefined
  /** An item that was idle this long is checked before it is lent; 0 checks each idle item. Default 500 ms. */
  readonly validateAfterIdle?: Duration.DurationInput | undefined
  /** An item is checked each time it has been idle this long; 10 % jitter. Needs `validate`. Default never. */
  readonly keepAlive?: Duration.DurationInput | undefined
  /** Runs after each use, off the borrower's path, before the item is lent again. A failure destroys the item. */
  readonly reset?:
    | ((item: A, exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown, unknown, R3>)
    | undefined
  /** Above 0. Default 5 seconds. */
  readonly resetTimeout?: Duration.DurationInput | undefined
  /** Whether this end of a use makes the item unfit. Default never. */
  readonly invalidateOn?: ((exit: Exit.Exit<unknown, unknown>) => boolean) | undefined
  /** An item older than this is not lent again; it is never taken from its holder. Default no bound. */
  readonly maxLifetime?: Duration.DurationInput | undefined
  /** The part of `maxLifetime`, 0 to 1, by which it may be shortened at random. Default 0.1. */
  readonly maxLifetimeJitter?: number | undefined
  /** An item is destroyed after so many uses. Default no bound. */
  readonly maxUses?: number | undefined
  /** Idle items beyond `minIdle` are destroyed after this. Default never. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** Warn once, with fiber, span and line, when an item has been held this long. It is never taken away. Default never. */
  readonly leakDetection?: Duration.DurationInput | undefined
  /** How long the release of one item may take. Default 5 seconds. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
  /** How long closing waits for the items that are held; 0 does not wait. Default no bound. */
  readonly shutdownTimeout?: Duration.DurationInput | undefined
  /** Then: interrupt the holders and wait as long again (default), or abandon them. */
  readonly onShutdownTimeout?: "interrupt" | "abandon" | undefined
  /**
   * Metrics in the shape of OpenTelemetry's `db.client.connection.*` under this prefix, by the labels `<prefix>.pool.name` and
   * `<prefix>.state`; times in seconds. `true` means `"holdfast.pool.item"`, with the label `holdfast.pool.name`. Default none.
   */
  readonly metrics?: boolean | string | undefined
}

/**
 * The options of one wait for an item.
 *
 * @category models
 * @since 0.1.0
 */
export interface WaitOptions {
  /** A waiter of higher priority is served first; first come, first served within one priority. Default 0. */
  readonly priority?: number | undefined
  /** Instead of that of the pool; 0 for no bound. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
}

/** The options of a pool, resolved. Durations that end something are in milliseconds. */
export type Resolved<A> = ReturnType<typeof resolve<A, never, never>>

export const sizeRule = Rule.integer(1)

/** Without the sizes. Whole tables: joining them anew in each `make` costs more than all else that it checks. */
export const rules: Rule.Rules = {
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
    accepts: (value) => typeof value === "boolean" || typeof value === "string"
  }
}

export const checkWait = (where: string, options: WaitOptions | undefined): void => {
  if (options !== undefined) Rule.check(where, options, Rule.waitRules)
}

/** A duration of 0 means none. */
export const unlessZero = (duration: Duration.DurationInput | undefined): number =>
  duration === undefined ? Infinity : Duration.toMillis(duration) || Infinity

export const checkMinIdle = (where: string, minIdle: number, max: number): void => {
  if (minIdle > max) {
    throw new RangeError(
      `${where}: \`minIdle\` ${minIdle} is more than ${max}, the most there may be.`
    )
  }
}

const defaultTimeout = Duration.seconds(5)

const defaultRetry = Schedule.jittered(
  Schedule.union(Schedule.exponential("250 millis", 1.5), Schedule.spaced("10 seconds"))
)

/** `limits` are the sizes; `where` is the operation as users write it. Throws a `RangeError`. */
export const resolve = <A, R2, R3>(
  where: string,
  rules: Rule.Rules,
  settings: Settings<A, R2, R3>,
  limits: Readonly<Record<string, number | undefined>>,
  context: Context.Context<R2 | R3>
) => {
  Rule.check(where, settings, rules)
  const [max = Infinity, maxTotal = Infinity] = Object.values(limits)
  const { minIdle = 0, reset, validate } = settings
  checkMinIdle(where, minIdle, max)
  const keepAlive = unlessZero(settings.keepAlive)
  if (keepAlive !== Infinity && validate === undefined) {
    throw new RangeError(`${where}: \`keepAlive\` needs \`validate\`: it checks the item.`)
  }
  return {
    name: settings.name ?? "pool",
    max,
    maxTotal,
    minIdle,
    maxWaiters: settings.maxWaiters ?? Infinity,
    maxConnecting: settings.maxConnecting ?? Infinity,
    isFifo: settings.reuse === "fifo",
    interruptAbandoned: settings.createOnAbandon === "interrupt",
    acquireTimeout: unlessZero(settings.acquireTimeout),
    createTimeout: unlessZero(settings.createTimeout),
    retry: settings.createRetry ?? defaultRetry,
    validate: validate && ((item: A) => Effect.provide(validate(item), context)),
    validateTimeout: Duration.decode(settings.validateTimeout ?? defaultTimeout),
    validateAfterIdle: Duration.toMillis(settings.validateAfterIdle ?? 500),
    keepAlive,
    reset: reset &&
      ((item: A, exit: Exit.Exit<unknown, unknown>) => Effect.provide(reset(item, exit), context)),
    resetTimeout: Duration.decode(settings.resetTimeout ?? defaultTimeout),
    invalidateOn: settings.invalidateOn,
    maxLifetime: unlessZero(settings.maxLifetime),
    jitter: settings.maxLifetimeJitter ?? 0.1,
    maxUses: settings.maxUses || Infinity,
    idleTimeout: unlessZero(settings.idleTimeout),
    leakAfter: unlessZero(settings.leakDetection),
    releaseDeadline: settings.releaseDeadline,
    shutdownTimeout: Duration.decode(settings.shutdownTimeout ?? Duration.infinity),
    interruptHolders: settings.onShutdownTimeout !== "abandon"
  }
}
