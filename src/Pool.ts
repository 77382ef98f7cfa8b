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
 * - Pool-1 `idle + used + creating + closing = size ≤ max` at every instant, in every schedule.
 * - Pool-2 (L6) Waiters are served first come, first served; nobody who comes later is served before them.
 * - Pool-3 (L1, L2) An item lent comes back exactly once: by its bracket, its scope or its lease, whatever the exit; a grant
 *   whose waiter was interrupted goes to the next in the same step.
 * - Pool-4 A failure of opening reaches exactly one waiter, the oldest, and is never stored.
 * - Pool-5 An item that is invalid, worn out, too old or of an older generation is never lent again.
 * - Pool-6 (L7) After closing began nothing is lent; an item that comes back or comes to be is destroyed by that step.
 * - Pool-7 (L4) Checks, resets, releases and the shutdown end by their deadline; what is left behind is named.
 * - Pool-8 (L9) Everything created is destroyed, or held by somebody `holders` names.
 * - Pool-9 No fiber lives on behalf of an idle pool unless an option asks for one, and then one.
 *
 * COST a warm `use` about 1.2 times a hand-written `uninterruptibleMask` pool (bench/Pool.bench.ts); a check, a reset or a
 * release forks. Housekeeping wakes once per deadline and looks at every idle item, so it is O(max) each time.
 * NOT DONE several holders per item (`concurrencyPerItem`), `resize`, a timeout per call: `Effect.timeout` round `use` is safe.
 * SOURCES puddle (opening outlives its caller), HikariCP (bounds on every step), tarn, the promises S1–S21 of the design.
 * To add a reason to destroy an item: `Reason`, `unfit`. To add a deadline: `housekeep` and its `arm`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { exitWithin } from "./internal/deadline.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"

// The words of the pool.

/**
 * The pool at one instant. `used` counts the items that are lent, checked or reset; `closing` those being destroyed; `pending`
 * the waiters. The last six are totals since the pool was made.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStats {
  readonly max: number
  readonly minIdle: number
  readonly size: number
  readonly idle: number
  readonly used: number
  readonly creating: number
  readonly closing: number
  readonly pending: number
  readonly created: number
  readonly destroyed: number
  readonly createFailures: number
  readonly timeouts: number
  readonly cancelledWaits: number
  readonly leaks: number
}

/**
 * Who has an item. `since` is in milliseconds of the `Clock` and known if an option of the pool needs the time at each borrow
 * (leak detection, metrics); `site` is known with leak detection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Holder {
  readonly fiber: string
  readonly span: string | undefined
  readonly since: number | undefined
  readonly site: string | undefined
}

const describeHolder = ({ fiber, site, span }: Holder): string =>
  `fiber ${fiber}${span === undefined ? "" : ` in span "${span}"`}${
    site === undefined ? "" : ` at ${site.split("\n")[0]}`
  }`

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
      ? `Opening last failed with: ${Cause.pretty(this.lastFailure.value)}`
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
      + `${closing} being destroyed: ${this.holders.map(describeHolder).join("; ")}.`
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
      describeHolder(this.holder)
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
export type Reason =
  | "idle"
  | "lifetime"
  | "uses"
  | "invalid"
  | "error"
  | "evicted"
  | "shutdown"

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
export interface Pool<A, E = never> {
  readonly name: string
  readonly max: number
  /** @internal */
  readonly shelf: Shelf<A, E>
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

// The machinery. Everything below is guarded by the single thread and written only by this file.

/** Who holds or asks. */
type Holding = Fiber.RuntimeFiber<unknown, unknown> | undefined

interface Item<A, E> {
  readonly value: A
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
  readonly shelf: Shelf<A, E>
  readonly generation: number
  readonly expiresAt: number
  readonly keepAliveEvery: number
  doomed: boolean
  uses: number
  /** The last use ended; orders the idle list. */
  idleSince: number
  /** Last known to be good. */
  soundSince: number
  keepAliveAt: number
  holder: Holding
  lentAt: number
  warned: boolean
  site: Error | undefined
  entry: Ledger.Entry | undefined
  list: List<A, E> | undefined
  previous: Item<A, E> | undefined
  next: Item<A, E> | undefined
}

interface List<A, E> {
  head: Item<A, E> | undefined
  tail: Item<A, E> | undefined
  size: number
}

interface Borrower<A, E> {
  readonly fiber: Holding
  readonly site: Error | undefined
  order: number
  since: number
  deadline: number
  item: Item<A, E> | undefined
  failure: Cause.Cause<E> | undefined
}

interface Creation {
  readonly generation: number
  readonly startedAt: number
  readonly deadline: number
  settled: boolean
  unwanted: boolean
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/** @internal The items and waiters of one key; a plain pool has one. */
export interface Shelf<A, E> {
  readonly engine: Engine<A, E>
  readonly name: string
  readonly open: Effect.Effect<Managed.Opened<A>, E>
  /** Called when nothing is on it and nobody waits for it. */
  readonly forget: () => void
  readonly queue: WaitQueue.WaitQueue
  /** By the ticket that stands as `need` in the queue. */
  readonly borrowers: Map<number, Borrower<A, E>>
  readonly items: Set<Item<A, E>>
  readonly idle: List<A, E>
  readonly lent: List<A, E>
  /** Lent, and warned about. */
  readonly overdue: List<A, E>
  readonly creating: Set<Creation>
  checking: number
  closing: number
  generation: number
  /** Waits before the next refill, after a failed one. */
  backoff: Fiber.RuntimeFiber<void> | undefined
  /** How often it has failed in a row, to the schedule. */
  retry: Schedule.ScheduleDriver<unknown, unknown> | undefined
  lastFailure: Cause.Cause<unknown> | undefined
}

interface Watcher {
  readonly test: () => boolean
  readonly resume: () => void
}

interface Totals {
  created: number
  destroyed: number
  createFailures: number
  timeouts: number
  cancelledWaits: number
  leaks: number
}

/** @internal What is done with items; each bounded, none can fail. */
export interface Care<A> {
  check(item: A): Effect.Effect<boolean>
  reset(item: A, exit: Exit.Exit<unknown, unknown>): Effect.Effect<boolean>
}

/** @internal What the shelves of one pool share. */
export interface Engine<A, E> {
  readonly name: string
  readonly max: number
  readonly maxTotal: number
  readonly minIdle: number
  readonly maxWaiters: number
  readonly maxConnecting: number
  readonly fifo: boolean
  readonly interruptAbandoned: boolean
  readonly acquireTimeout: number
  readonly createTimeout: number
  readonly care: Care<A>
  readonly checks: boolean
  readonly resets: boolean
  readonly validateAfterIdle: number
  readonly keepAlive: number
  readonly invalidateOn: ((exit: Exit.Exit<unknown, unknown>) => boolean) | undefined
  readonly maxLifetime: number
  readonly jitter: number
  readonly maxUses: number
  readonly idleTimeout: number
  readonly leakAfter: number
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly shutdownTimeout: Duration.Duration
  readonly interruptHolders: boolean
  /** Whether a borrow needs the time at all. */
  readonly timed: boolean
  readonly clock: Clock.Clock
  readonly ledger: Ledger.Service | undefined
  readonly meter: Meter | undefined
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly refuse: (error: PoolError) => Cause.Cause<E>
  readonly ended: Deferred.Deferred<void>
  readonly shelves: Set<Shelf<A, E>>
  readonly watchers: Set<Watcher>
  readonly totals: Totals
  /** Slots taken over all shelves. */
  total: number
  closing: number
  watched: boolean
  closed: boolean
  tickets: number
  arrivals: number
  housekeeper: Fiber.RuntimeFiber<void> | undefined
  wakeAt: number
  /** Which housekeeper is the one in charge: one that was replaced may still be on its way out. */
  shift: number
}

const makeList = <A, E>(): List<A, E> => ({ head: undefined, tail: undefined, size: 0 })

const append = <A, E>(list: List<A, E>, item: Item<A, E>): void => {
  item.list = list
  item.previous = list.tail
  item.next = undefined
  if (list.tail === undefined) list.head = item
  else list.tail.next = item
  list.tail = item
  list.size++
}

const unlink = <A, E>(item: Item<A, E>): void => {
  const { list } = item
  if (list === undefined) return
  if (item.previous === undefined) list.head = item.next
  else item.previous.next = item.next
  if (item.next === undefined) list.tail = item.previous
  else item.next.previous = item.previous
  item.list = undefined
  item.previous = undefined
  item.next = undefined
  list.size--
}

/** Keeps the idle list in the order of last use, also for one that was only checked. */
const shelve = <A, E>(list: List<A, E>, item: Item<A, E>): void => {
  let after = list.tail
  while (after !== undefined && after.idleSince > item.idleSince) after = after.previous
  if (after === list.tail) return append(list, item)
  const next = after === undefined ? list.head : after.next
  item.list = list
  item.previous = after
  item.next = next
  if (after === undefined) list.head = item
  else after.next = item
  if (next !== undefined) next.previous = item
  list.size++
}

const nowOf = <A, E>(engine: Engine<A, E>): number => engine.clock.unsafeCurrentTimeMillis()

const usedOf = <A, E>(shelf: Shelf<A, E>): number =>
  shelf.lent.size + shelf.overdue.size + shelf.checking

const sizeOf = <A, E>(shelf: Shelf<A, E>): number => shelf.items.size + shelf.creating.size

/** @internal */
export const unsafeShelfStats = <A, E>(shelf: Shelf<A, E>): PoolStats => ({
  max: shelf.engine.max,
  minIdle: shelf.engine.minIdle,
  size: sizeOf(shelf),
  idle: shelf.idle.size,
  used: usedOf(shelf),
  creating: shelf.creating.size,
  closing: shelf.closing,
  pending: shelf.queue.size,
  ...shelf.engine.totals
})

const nameOf = (fiber: Holding): string =>
  fiber === undefined ? "none" : FiberId.threadName(fiber.id())

const holderOf = <A, E>(item: Item<A, E>): Holder => {
  const fiber = item.holder
  const span = fiber === undefined
    ? Option.none()
    : Context.getOption(fiber.currentContext, Tracer.ParentSpan)
  return {
    fiber: nameOf(fiber),
    span: Option.isSome(span) && span.value._tag === "Span" ? span.value.name : undefined,
    since: item.lentAt === 0 ? undefined : item.lentAt,
    site: item.site?.stack?.split("\n").slice(1)
      .filter((line) => !/\/effect\/|\bPool\.[jt]s|\bKeyed\.[jt]s/.test(line))
      .map((line) => line.trim().replace(/^at /, "")).join("\n")
  }
}

const lentItems = <A, E>(shelf: Shelf<A, E>): Array<Item<A, E>> => {
  const items: Array<Item<A, E>> = []
  for (const list of [shelf.overdue, shelf.lent]) {
    for (let item = list.head; item !== undefined; item = item.next) items.push(item)
  }
  return items
}

/** @internal */
export const unsafeHolders = <A, E>(engine: Engine<A, E>): ReadonlyArray<Holder> =>
  Array.from(engine.shelves).flatMap(lentItems).map(holderOf)

// Watching: metrics and those who wait for a state.

const changed = <A, E>(engine: Engine<A, E>): void => {
  if (!engine.watched) return
  engine.meter?.sample(engine)
  for (const watcher of engine.watchers) {
    if (watcher.test()) {
      engine.watchers.delete(watcher)
      watcher.resume()
    }
  }
  engine.watched = engine.meter !== undefined || engine.watchers.size > 0
}

const awaitState = <A, E>(engine: Engine<A, E>, test: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (test()) return resume(Effect.void)
    const watcher: Watcher = { test, resume: () => resume(Effect.void) }
    engine.watchers.add(watcher)
    engine.watched = true
    return Effect.sync(() => engine.watchers.delete(watcher))
  })

const isQuiet = <A, E>(engine: Engine<A, E>): boolean => {
  for (const shelf of engine.shelves) {
    if (usedOf(shelf) + shelf.creating.size + shelf.closing + shelf.queue.size > 0) return false
  }
  return true
}

const isEmpty = <A, E>(engine: Engine<A, E>): boolean => {
  for (const shelf of engine.shelves) if (sizeOf(shelf) > 0) return false
  return true
}

/** What only ends by itself or by its own deadline has ended; what holders have may be out. */
const log = <A, E>(
  engine: Engine<A, E>,
  message: string,
  cause?: Cause.Cause<unknown>
): void => {
  engine.fork(cause === undefined ? Effect.logWarning(message) : Effect.logWarning(message, cause))
}

// Lending.

const lend = <A, E>(
  item: Item<A, E>,
  fiber: Holding,
  site: Error | undefined,
  now: number
): void => {
  const { engine, lent } = item.shelf
  item.holder = fiber
  item.site = site
  item.lentAt = now
  append(lent, item)
  if (engine.leakAfter !== Infinity) arm(engine, now + engine.leakAfter)
  if (engine.ledger !== undefined) recordLease(engine, engine.ledger, item)
}

const recordLease = <A, E>(
  engine: Engine<A, E>,
  ledger: Ledger.Service,
  item: Item<A, E>
): void => {
  const now = nowOf(engine)
  const name = `${item.shelf.name} by ${nameOf(item.holder)}`
  item.entry = ledger.unsafeAcquiring("pool lease", name, now)
  ledger.unsafeHeld(item.entry, now)
}

/** The item is nobody's; it stands on no list until the caller of this puts it on one. */
const unlend = <A, E>(item: Item<A, E>): void => {
  const { engine } = item.shelf
  unlink(item)
  if (item.warned) {
    item.warned = false
    const { fiber } = holderOf(item)
    engine.fork(
      Effect.logInfo(
        `Pool "${item.shelf.name}": fiber ${fiber} gave back an item after its leak warning`
      )
    )
  }
  if (item.entry !== undefined) {
    engine.ledger?.unsafeReleased(item.entry, false)
    item.entry = undefined
  }
  item.holder = undefined
  item.site = undefined
}

/** @internal Lends an idle item in this very step, if nobody waits and one is fit without a check. */
const takeNow = <A, E>(
  shelf: Shelf<A, E>,
  fiber: Holding,
  site: Error | undefined
): Item<A, E> | undefined => {
  const { engine } = shelf
  // INVARIANT Pool-2: nobody passes those in line.
  if (shelf.queue.size > 0) return undefined
  const now = engine.timed ? nowOf(engine) : 0
  while (true) {
    const item = nextIdle(shelf)
    if (item === undefined) return undefined
    // INVARIANT Pool-5.
    if (item.expiresAt <= now) {
      retire(item, "lifetime")
      continue
    }
    if (isStale(item, now)) return undefined
    unlink(item)
    lend(item, fiber, site, now)
    changed(engine)
    return item
  }
}

/** The idle item that is next to be lent. */
const nextIdle = <A, E>({ engine, idle }: Shelf<A, E>): Item<A, E> | undefined =>
  engine.fifo ? idle.head : idle.tail

const isStale = <A, E>(item: Item<A, E>, now: number): boolean =>
  item.shelf.engine.checks
  && now - item.soundSince >= item.shelf.engine.validateAfterIdle

const unfit = <A, E>(item: Item<A, E>, now: number): Reason | undefined => {
  const { engine, generation } = item.shelf
  if (engine.closed) return "shutdown"
  if (item.doomed || item.generation !== generation) return "invalid"
  if (item.uses >= engine.maxUses) return "uses"
  return item.expiresAt <= now ? "lifetime" : undefined
}

const dequeue = <A, E>(shelf: Shelf<A, E>): Borrower<A, E> | undefined => {
  const ticket = shelf.queue.head?.need
  if (ticket === undefined) return undefined
  const borrower = shelf.borrowers.get(ticket)
  shelf.borrowers.delete(ticket)
  return borrower
}

const headOf = <A, E>(shelf: Shelf<A, E>): Borrower<A, E> | undefined =>
  shelf.queue.head === undefined ? undefined : shelf.borrowers.get(shelf.queue.head.need)

const grant = <A, E>(item: Item<A, E>, now: number): void => {
  const { engine, queue } = item.shelf
  const borrower = dequeue(item.shelf)
  if (borrower === undefined) throw new Error("Pool-2 broken: nobody to grant to")
  borrower.item = item
  lend(item, borrower.fiber, borrower.site, now)
  engine.meter?.waited(nowOf(engine) - borrower.since)
  WaitQueue.grantHead(queue)
}

/** The head of the line gets a failure instead of an item. */
const refuseHead = <A, E>(shelf: Shelf<A, E>, failure: Cause.Cause<E>): void => {
  const borrower = dequeue(shelf)
  if (borrower === undefined) throw new Error("Pool-2 broken: nobody to refuse")
  borrower.failure = failure
  WaitQueue.grantHead(shelf.queue)
}

/** An item on no list goes to the head of the line, to the idle ones, or away. */
const makeAvailable = <A, E>(item: Item<A, E>): void => {
  const { shelf } = item
  const { engine } = shelf
  const now = engine.timed ? nowOf(engine) : 0
  const reason = unfit(item, now) ?? (owesItsSlot(shelf) ? "evicted" : undefined)
  if (reason !== undefined) {
    retire(item, reason)
    pump(shelf)
  } else if (shelf.queue.head !== undefined) {
    grant(item, now)
  } else {
    shelve(shelf.idle, item)
    const { idleTimeout } = engine
    if (engine.keepAlive !== Infinity) item.keepAliveAt = now + item.keepAliveEvery
    // The longest idle one: it may be due long since, and only now be one too many.
    const oldest = shelf.idle.head?.idleSince ?? now
    const idleUntil = shelf.idle.size > engine.minIdle ? oldest + idleTimeout : Infinity
    const next = Math.min(item.expiresAt, idleUntil, item.keepAliveAt)
    if (next !== Infinity) arm(engine, next)
  }
}

const wantsOut = <A, E>(engine: Engine<A, E>, exit: Exit.Exit<unknown, unknown>): boolean => {
  try {
    return engine.invalidateOn?.(exit) ?? false
  } catch (defect) {
    log(
      engine,
      `Pool "${engine.name}": invalidateOn threw; the item is destroyed`,
      Cause.die(defect)
    )
    return true
  }
}

const giveBack = <A, E>(item: Item<A, E>, exit: Exit.Exit<unknown, unknown>): void => {
  const { shelf } = item
  const { engine } = shelf
  const now = engine.timed ? nowOf(engine) : 0
  engine.meter?.used(now - item.lentAt)
  unlend(item)
  item.uses++
  item.idleSince = now
  item.soundSince = now
  if (engine.invalidateOn !== undefined && wantsOut(engine, exit)) item.doomed = true
  if (engine.resets && unfit(item, now) === undefined) {
    inspect(item, engine.care.reset(item.value, exit), "error")
  } else {
    makeAvailable(item)
  }
  changed(engine)
}

/** Does something to an item that is lent to nobody meanwhile; it must say `true`, or the item goes. */
const inspect = <A, E>(item: Item<A, E>, work: Effect.Effect<boolean>, reason: Reason): void => {
  const { shelf } = item
  shelf.checking++
  shelf.engine.fork(Effect.map(work, (sound) => {
    shelf.checking--
    if (sound) {
      if (shelf.engine.timed) item.soundSince = nowOf(shelf.engine)
      makeAvailable(item)
    } else {
      retire(item, reason)
      pump(shelf)
    }
    changed(shelf.engine)
  }))
}

// Opening and destroying.

const retire = <A, E>(item: Item<A, E>, reason: Reason): void => {
  const { shelf } = item
  const { engine } = shelf
  unlink(item)
  shelf.closing++
  engine.closing++
  engine.fork(Effect.map(Effect.exit(item.close(Exit.void)), (exit) => {
    shelf.closing--
    engine.closing--
    shelf.items.delete(item)
    engine.total--
    engine.totals.destroyed++
    engine.meter?.destroyed(reason)
    if (Exit.isFailure(exit)) {
      log(engine, `Pool "${shelf.name}": an item's release failed`, exit.cause)
    }
    pump(shelf)
    changed(engine)
    tidy(shelf)
  }))
}

const create = <A, E>(shelf: Shelf<A, E>): void => {
  const { engine } = shelf
  const startedAt = nowOf(engine)
  const creation: Creation = {
    generation: shelf.generation,
    startedAt,
    deadline: startedAt + engine.createTimeout,
    settled: false,
    unwanted: false,
    fiber: undefined
  }
  shelf.creating.add(creation)
  engine.total++
  // Pool fibers start uninterruptible: from here to the registration only the acquire itself may be cut.
  creation.fiber = engine.fork(
    Effect.flatMap(Random.next, (random) =>
      Effect.matchCauseEffect(shelf.open, {
        onFailure: (cause) => Effect.sync(() => createFailed(shelf, creation, cause)),
        onSuccess: (opened) => created(shelf, creation, opened, random)
      }))
  )
  if (creation.deadline !== Infinity) arm(engine, creation.deadline)
}

const settle = <A, E>(shelf: Shelf<A, E>, creation: Creation): void => {
  creation.settled = true
  shelf.creating.delete(creation)
}

const created = <A, E>(
  shelf: Shelf<A, E>,
  creation: Creation,
  opened: Managed.Opened<A>,
  random: number
): Effect.Effect<void> => {
  const { engine } = shelf
  engine.totals.created++
  if (creation.settled) {
    // Too late: nobody counts on it any more.
    return Effect.map(Effect.exit(opened.close(Exit.void)), () => {
      engine.totals.destroyed++
    })
  }
  return Effect.sync(() => {
    const now = nowOf(engine)
    settle(shelf, creation)
    engine.meter?.created(now - creation.startedAt)
    const item: Item<A, E> = {
      value: opened.value,
      close: opened.close,
      shelf,
      generation: creation.generation,
      expiresAt: Math.ceil(now + engine.maxLifetime * (1 - random * engine.jitter)),
      keepAliveEvery: Math.ceil(engine.keepAlive * (1 - random * 0.1)),
      doomed: false,
      uses: 0,
      idleSince: now,
      soundSince: now,
      keepAliveAt: Infinity,
      holder: undefined,
      lentAt: 0,
      warned: false,
      site: undefined,
      entry: undefined,
      list: undefined,
      previous: undefined,
      next: undefined
    }
    shelf.items.add(item)
    stopBackoff(shelf)
    makeAvailable(item)
    pump(shelf)
    changed(engine)
  })
}

const createFailed = <A, E>(
  shelf: Shelf<A, E>,
  creation: Creation,
  cause: Cause.Cause<E>
): void => {
  if (creation.settled) return
  const { engine } = shelf
  settle(shelf, creation)
  engine.total--
  if (!engine.closed && !creation.unwanted) {
    // A bare interrupt would look like the waiter's own.
    failed(
      shelf,
      Cause.isInterruptedOnly(cause)
        ? Cause.die(new Error(`Pool "${shelf.name}": opening an item was interrupted from outside`))
        : cause
    )
  }
  pump(shelf)
  changed(engine)
  tidy(shelf)
}

/** INVARIANT Pool-4: the oldest waiter gets the failure, or else the log does; it is kept only to be named in timeouts. */
const failed = <A, E>(shelf: Shelf<A, E>, cause: Cause.Cause<E>): void => {
  const { engine } = shelf
  engine.totals.createFailures++
  engine.meter?.createFailed()
  shelf.lastFailure = cause
  if (shelf.queue.head !== undefined) return refuseHead(shelf, cause)
  log(engine, `Pool "${shelf.name}": opening an item nobody waits for failed`, cause)
  if (shelf.backoff !== undefined || engine.minIdle === 0) return
  const next = Effect.flatMap(
    shelf.retry === undefined ? Schedule.driver(engine.retry) : Effect.succeed(shelf.retry),
    (retry) => {
      shelf.retry = retry
      return retry.next(cause)
    }
  )
  const backoff = engine.fork(Effect.map(Effect.exit(Effect.interruptible(next)), (exit) => {
    // Interrupted: whoever did that has seen to the rest. Given up: a success by other means starts again.
    if (Exit.isFailure(exit) || shelf.backoff !== backoff) return
    shelf.backoff = undefined
    pump(shelf)
  }))
  shelf.backoff = backoff
}

const stopBackoff = <A, E>(shelf: Shelf<A, E>): void => {
  shelf.retry = undefined
  shelf.backoff?.unsafeInterruptAsFork(FiberId.none)
  shelf.backoff = undefined
}

/** How many more items are wanted than there are or come. */
const shortage = <A, E>(shelf: Shelf<A, E>): number =>
  shelf.queue.size - shelf.idle.size - shelf.creating.size - shelf.checking
  + (shelf.backoff === undefined ? shelf.engine.minIdle : 0)

const hasRoom = <A, E>(shelf: Shelf<A, E>): boolean =>
  sizeOf(shelf) < shelf.engine.max && shelf.creating.size < shelf.engine.maxConnecting

/** Serves the line from the idle items, then opens what is short. Called after everything that may have changed either. */
const pump = <A, E>(shelf: Shelf<A, E>): void => {
  const { engine } = shelf
  if (engine.closed) return
  serveIdle(shelf)
  if (engine.maxTotal !== Infinity) return shareRoom(engine)
  while (shortage(shelf) > 0 && hasRoom(shelf)) create(shelf)
}

const serveIdle = <A, E>(shelf: Shelf<A, E>): void => {
  const { engine, idle, queue } = shelf
  if (idle.size === 0 || queue.size === 0) return
  const now = nowOf(engine)
  // Those a check or an opening is under way for are served by it.
  while (queue.size > shelf.checking + shelf.creating.size) {
    const item = nextIdle(shelf)
    if (item === undefined) return
    unlink(item)
    if (item.expiresAt <= now) retire(item, "lifetime")
    else if (isStale(item, now)) {
      inspect(item, engine.care.check(item.value), "invalid")
    } else grant(item, now)
  }
}

// Several shelves under one bound (keyed pools).

/** The waiter of a shelf nobody opens or checks anything for yet. */
const firstUnserved = <A, E>(shelf: Shelf<A, E>): number => {
  let waiter = shelf.queue.head
  for (let i = shelf.creating.size + shelf.checking; i > 0 && waiter !== undefined; i--) {
    waiter = waiter.next
  }
  return waiter === undefined ? Infinity : shelf.borrowers.get(waiter.need)?.order ?? Infinity
}

const hungriest = <A, E>(engine: Engine<A, E>): Shelf<A, E> | undefined => {
  let best: Shelf<A, E> | undefined
  let earliest = Infinity
  for (const shelf of engine.shelves) {
    if (shortage(shelf) <= 0 || !hasRoom(shelf)) continue
    const order = firstUnserved(shelf)
    if (best === undefined || order < earliest) {
      best = shelf
      earliest = order
    }
  }
  return best
}

/** Gives free slots to the longest waiting of all keys; if there are none, an idle item elsewhere makes room. */
const shareRoom = <A, E>(engine: Engine<A, E>): void => {
  while (true) {
    const shelf = hungriest(engine)
    if (shelf === undefined) return
    if (engine.total < engine.maxTotal) {
      create(shelf)
      continue
    }
    if (shelf.queue.size > 0 && engine.closing < unservedBefore(engine, Infinity)) {
      evictOldest(engine)
    }
    return
  }
}

const evictOldest = <A, E>(engine: Engine<A, E>): void => {
  let oldest: Item<A, E> | undefined
  for (const { idle } of engine.shelves) {
    if (
      idle.head !== undefined && (oldest === undefined || idle.head.idleSince < oldest.idleSince)
    ) {
      oldest = idle.head
    }
  }
  if (oldest !== undefined) retire(oldest, "evicted")
}

/** How many waiters, of shelves that may still grow, came before this one and have nothing coming. */
const unservedBefore = <A, E>(engine: Engine<A, E>, order: number): number => {
  let count = 0
  for (const shelf of engine.shelves) {
    const room = Math.min(engine.max - sizeOf(shelf), engine.maxConnecting - shelf.creating.size)
    let waiter = shelf.queue.head
    let skip = shelf.creating.size + shelf.checking
    let taken = 0
    while (waiter !== undefined && taken < room) {
      if (skip > 0) skip--
      else if ((shelf.borrowers.get(waiter.need)?.order ?? Infinity) < order) taken++
      else break
      waiter = waiter.next
    }
    count += taken
  }
  return count
}

/** INVARIANT Pool-2 over keys: an item just returned gives its slot up if somebody of another key came earlier. */
const owesItsSlot = <A, E>(shelf: Shelf<A, E>): boolean => {
  const { engine } = shelf
  if (engine.total < engine.maxTotal) return false
  return unservedBefore(engine, headOf(shelf)?.order ?? Infinity) > engine.closing
}

const tidy = <A, E>(shelf: Shelf<A, E>): void => {
  // Not the queue: who is on his way into it counts as well.
  if (sizeOf(shelf) + shelf.borrowers.size === 0) shelf.forget()
}

// Waiting.

const timeout = <A, E>(
  shelf: Shelf<A, E>,
  phase: "acquire" | "create",
  waited: number
): PoolTimeout => {
  const { engine } = shelf
  const fiber = headOf(shelf)?.fiber
  return new PoolTimeout({
    pool: shelf.name,
    phase,
    waited: Duration.millis(waited),
    stats: unsafeShelfStats(shelf),
    // An opening that was too slow becomes the last failure itself: kept there, each would keep all before it.
    lastFailure: phase === "create" ? Option.none() : Option.fromNullable(shelf.lastFailure),
    heldByWaiter: fiber === undefined
      ? 0
      : Array.from(engine.shelves).flatMap(lentItems).filter((item) => item.holder === fiber).length
  })
}

const joined = <A, E>(shelf: Shelf<A, E>, borrower: Borrower<A, E>): void => {
  const { engine } = shelf
  // Closed between the asking and the queueing.
  if (engine.closed) return refuseAll(shelf)
  borrower.order = engine.arrivals++
  borrower.since = nowOf(engine)
  borrower.deadline = borrower.since + engine.acquireTimeout
  if (borrower.deadline !== Infinity) arm(engine, borrower.deadline)
  pump(shelf)
  changed(engine)
}

const left = <A, E>(shelf: Shelf<A, E>, ticket: number, borrower: Borrower<A, E>): void => {
  const { engine } = shelf
  shelf.borrowers.delete(ticket)
  engine.totals.cancelledWaits++
  engine.meter?.cancelled()
  if (borrower.item !== undefined) {
    const { item } = borrower
    // INVARIANT Pool-3: the grant goes on in this step.
    unlend(item)
    makeAvailable(item)
  }
  if (engine.interruptAbandoned && shortage(shelf) < 0) interruptNewest(shelf)
  pump(shelf)
  changed(engine)
  tidy(shelf)
}

const interruptNewest = <A, E>(shelf: Shelf<A, E>): void => {
  const newest = Array.from(shelf.creating).findLast(({ unwanted }) => !unwanted)
  if (newest === undefined) return
  newest.unwanted = true
  newest.fiber?.unsafeInterruptAsFork(FiberId.none)
}

const refuseAll = <A, E>(shelf: Shelf<A, E>): void => {
  const { engine, queue } = shelf
  while (queue.head !== undefined) {
    refuseHead(shelf, engine.refuse(new PoolClosed({ pool: shelf.name })))
  }
}

/** More waiting than `maxWaiters`, not counting those something is coming for or may still come for. */
const isFull = <A, E>(shelf: Shelf<A, E>): boolean => {
  const { engine } = shelf
  if (engine.maxWaiters === Infinity) return false
  const room = Math.min(engine.max - sizeOf(shelf), engine.maxTotal - engine.total)
  const coming = shelf.creating.size + shelf.checking + shelf.idle.size + room
  return shelf.queue.size >= coming + engine.maxWaiters
}

const refusalOf = <A, E>(shelf: Shelf<A, E>): PoolError | undefined => {
  const { engine, name: pool } = shelf
  if (engine.closed) return new PoolClosed({ pool })
  if (!isFull(shelf)) return undefined
  return new PoolExhausted({ pool, maxWaiters: engine.maxWaiters, stats: unsafeShelfStats(shelf) })
}

/** Waits in line for an item. To be run in a masked region; only the wait is restored. */
const waitInMask = <A, E>(
  shelf: Shelf<A, E>,
  fiber: Holding,
  site: Error | undefined,
  restore: Managed.Restore
): Effect.Effect<Item<A, E>, E> => {
  const { engine } = shelf
  const refusal = refusalOf(shelf)
  if (refusal !== undefined) {
    tidy(shelf)
    return Effect.failCause(engine.refuse(refusal))
  }
  const ticket = engine.tickets++
  const borrower: Borrower<A, E> = {
    fiber,
    site,
    order: Infinity,
    since: 0,
    deadline: Infinity,
    item: undefined,
    failure: undefined
  }
  shelf.borrowers.set(ticket, borrower)
  // The queue asks for the wait right after we stand in line: only now may anything be granted.
  const wait: Managed.Restore = (effect) => {
    joined(shelf, borrower)
    return restore(effect)
  }
  return Effect.flatMap(
    WaitQueue.waitInMask(shelf.queue, ticket, wait, () => left(shelf, ticket, borrower)),
    () => {
      if (borrower.item !== undefined) return Effect.succeed(borrower.item)
      return Effect.failCause(
        borrower.failure ?? Cause.die(new Error("Pool-3 broken: granted nothing"))
      )
    }
  )
}

/** @internal An item of this shelf, at once or after a wait. To be run in a masked region. */
export const takeInMask = <A, E>(
  shelfOf: () => Shelf<A, E>,
  site: Error | undefined,
  restore: Managed.Restore
): Effect.Effect<Item<A, E>, E> =>
  Effect.suspend(() => {
    const shelf = shelfOf()
    const fiber = currentFiber()
    const item = takeNow(shelf, fiber, site)
    return item === undefined ? waitInMask(shelf, fiber, site, restore) : Effect.succeed(item)
  })

// Housekeeping.

/** The longest a timer of the platform can be told to sleep. */
const longestSleep = 2 ** 30

/** Makes sure the housekeeper is up by `at`. */
const arm = <A, E>(engine: Engine<A, E>, at: number): void => {
  if (engine.wakeAt <= at || engine.closed) return
  engine.wakeAt = at
  engine.housekeeper?.unsafeInterruptAsFork(FiberId.none)
  engine.housekeeper = engine.fork(keepHouse(engine, ++engine.shift))
}

const keepHouse = <A, E>(engine: Engine<A, E>, shift: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    const wait = Math.min(engine.wakeAt - nowOf(engine), longestSleep)
    return Effect.flatMap(Effect.interruptible(Effect.sleep(Duration.millis(wait))), () => {
      if (engine.shift !== shift || engine.closed) return Effect.void
      // While it is up, nobody needs to wake it.
      engine.wakeAt = -Infinity
      const now = nowOf(engine)
      let next = Infinity
      for (const shelf of engine.shelves) next = Math.min(next, housekeep(shelf, now))
      changed(engine)
      engine.wakeAt = next
      if (next !== Infinity) return keepHouse(engine, shift)
      engine.housekeeper = undefined
      return Effect.void
    })
  })

/** Does what is due and says when next to look. */
const housekeep = <A, E>(shelf: Shelf<A, E>, now: number): number => {
  const { engine } = shelf
  refuseOverdue(shelf, now)
  for (const creation of shelf.creating) {
    if (creation.deadline <= now) giveUpOn(shelf, creation)
  }
  for (let item = shelf.idle.head; item !== undefined;) {
    // Read before the item leaves the list.
    const { next } = item
    sortOut(item, now)
    item = next
  }
  for (let item = shelf.lent.head; item !== undefined; item = shelf.lent.head) {
    if (item.lentAt + engine.leakAfter > now) break
    warn(item, now)
  }
  pump(shelf)
  return nextDeadline(shelf)
}

const nextDeadline = <A, E>(shelf: Shelf<A, E>): number => {
  const { engine } = shelf
  let next = headOf(shelf)?.deadline ?? Infinity
  for (const { deadline } of shelf.creating) next = Math.min(next, deadline)
  const mayGo = shelf.idle.size > engine.minIdle
  for (let item = shelf.idle.head; item !== undefined; item = item.next) {
    next = Math.min(next, item.expiresAt, item.keepAliveAt)
    if (mayGo) next = Math.min(next, item.idleSince + engine.idleTimeout)
  }
  return Math.min(next, (shelf.lent.head?.lentAt ?? Infinity) + engine.leakAfter)
}

const refuseOverdue = <A, E>(shelf: Shelf<A, E>, now: number): void => {
  const { engine } = shelf
  for (let head = headOf(shelf); head !== undefined && head.deadline <= now; head = headOf(shelf)) {
    engine.totals.timeouts++
    engine.meter?.timedOut()
    refuseHead(shelf, engine.refuse(timeout(shelf, "acquire", now - head.since)))
  }
}

/** The slot is free again at once, even if the opening ignores its interruption. */
const giveUpOn = <A, E>(shelf: Shelf<A, E>, creation: Creation): void => {
  const { engine } = shelf
  const error = timeout(shelf, "create", engine.createTimeout)
  settle(shelf, creation)
  engine.total--
  creation.fiber?.unsafeInterruptAsFork(FiberId.none)
  failed(shelf, engine.refuse(error))
}

const sortOut = <A, E>(item: Item<A, E>, now: number): void => {
  const { engine, idle } = item.shelf
  if (item.expiresAt <= now) retire(item, "lifetime")
  else if (idle.size > engine.minIdle && item.idleSince + engine.idleTimeout <= now) {
    retire(item, "idle")
  } else if (item.keepAliveAt <= now) {
    unlink(item)
    inspect(item, engine.care.check(item.value), "invalid")
  }
}

const warn = <A, E>(item: Item<A, E>, now: number): void => {
  const { engine, name, overdue } = item.shelf
  unlink(item)
  append(overdue, item)
  item.warned = true
  engine.totals.leaks++
  engine.meter?.leaked()
  const held = Duration.format(Duration.millis(now - item.lentAt))
  const holder = holderOf(item)
  engine.fork(Effect.annotateLogs(
    Effect.logWarning(`Pool "${name}": ${describeHolder(holder)} holds an item for ${held}`),
    { pool: name, ...holder }
  ))
}

// Closing.

const beginClosing = <A, E>(engine: Engine<A, E>): void => {
  if (engine.closed) return
  // INVARIANT Pool-6: from this step on nothing is lent.
  engine.closed = true
  engine.housekeeper?.unsafeInterruptAsFork(FiberId.none)
  for (const shelf of engine.shelves) {
    shelf.backoff?.unsafeInterruptAsFork(FiberId.none)
    refuseAll(shelf)
    while (shelf.idle.head !== undefined) retire(shelf.idle.head, "shutdown")
    for (const { fiber } of shelf.creating) fiber?.unsafeInterruptAsFork(FiberId.none)
  }
  engine.fork(Effect.flatMap(
    Effect.exit(shutDown(engine)),
    (exit) => Deferred.done(engine.ended, exit)
  ))
  changed(engine)
}

const shutDown = <A, E>(engine: Engine<A, E>): Effect.Effect<void> => {
  const drained = exitWithin(awaitState(engine, () => isEmpty(engine)), engine.shutdownTimeout)
  return Effect.flatMap(drained, (inTime) => {
    if (Option.isSome(inTime)) return Effect.void
    const holders = unsafeHolders(engine)
    log(
      engine,
      `Pool "${engine.name}": still held at shutdown by ${holders.map(describeHolder).join("; ")}`
    )
    if (!engine.interruptHolders) return reportLeak(engine)
    for (const shelf of engine.shelves) {
      for (const { holder } of lentItems(shelf)) holder?.unsafeInterruptAsFork(FiberId.none)
    }
    return Effect.flatMap(drained, (late) => Option.isSome(late) ? Effect.void : reportLeak(engine))
  })
}

const reportLeak = <A, E>(engine: Engine<A, E>): Effect.Effect<never> =>
  Effect.suspend(() =>
    Effect.die(
      new PoolLeak({
        pool: engine.name,
        holders: unsafeHolders(engine),
        stats: unsafeEngineStats(engine)
      })
    )
  )

/** @internal Begins closing, once, and waits for its end. */
export const closeEngine = <A, E>(engine: Engine<A, E>): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    beginClosing(engine)
    const own = Array.from(engine.shelves).flatMap(lentItems).find(({ holder }) => holder === fiber)
    return own === undefined
      ? Deferred.await(engine.ended)
      : Effect.die(new PoolClosedByHolder({ pool: engine.name, holder: holderOf(own) }))
  })

/** @internal The sum over all shelves. */
export const unsafeEngineStats = <A, E>(engine: Engine<A, E>): PoolStats => {
  const { max, maxTotal, minIdle, totals } = engine
  const sum = { size: 0, idle: 0, used: 0, creating: 0, closing: 0, pending: 0 }
  for (const shelf of engine.shelves) {
    sum.size += sizeOf(shelf)
    sum.idle += shelf.idle.size
    sum.used += usedOf(shelf)
    sum.creating += shelf.creating.size
    sum.closing += shelf.closing
    sum.pending += shelf.queue.size
  }
  return { max: maxTotal === Infinity ? max : maxTotal, minIdle, ...sum, ...totals }
}

// Metrics.

interface Meter {
  readonly sample: <A, E>(engine: Engine<A, E>) => void
  readonly waited: (millis: number) => void
  readonly used: (millis: number) => void
  readonly created: (millis: number) => void
  readonly destroyed: (reason: Reason) => void
  readonly createFailed: () => void
  readonly timedOut: () => void
  readonly cancelled: () => void
  readonly leaked: () => void
}

const makeMeter = (prefix: string, pool: string): Meter => {
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
      const stats = unsafeEngineStats(engine)
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

const positive = (name: string, value: number, least: number): void => {
  if (value !== Infinity && (!Number.isSafeInteger(value) || value < least)) {
    throw new RangeError(`Pool: ${name} must be a whole number, ${least} or more; got ${value}.`)
  }
}

/** @internal Opens one item; what `acquire` put into its scope is released, within its deadline, when the item is destroyed. */
export const opening = <A, E, R>(
  name: string,
  acquire: Effect.Effect<A, E, R>,
  releaseDeadline: Duration.DurationInput | undefined
): Effect.Effect<Managed.Opened<A>, E, Exclude<R, Scope.Scope>> => {
  const managed = Managed.make({
    name,
    kind: "pool item",
    releaseDeadline,
    acquire: (restore) =>
      Effect.flatMap(
        Scope.make(),
        (scope) =>
          Effect.matchCauseEffect(restore(Scope.extend(acquire, scope)), {
            onFailure: (cause) =>
              Effect.zipRight(Scope.close(scope, Exit.failCause(cause)), Effect.failCause(cause)),
            onSuccess: (value) => Effect.succeed({ value, scope })
          })
      ),
    release: ({ scope }, exit) => Scope.close(scope, exit)
  })
  return Effect.map(
    managed.openInMask(Effect.interruptible),
    ({ close, value: { value } }) => ({ value, close })
  )
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

/** @internal */
export const makeEngine = <A, E, R2, R3>(
  settings: Settings<A, R2, R3>,
  max: number,
  maxTotal: number
): Effect.Effect<Engine<A, E | PoolError>, never, R2 | R3> =>
  Effect.gen(function*() {
    const name = settings.name ?? "pool"
    const minIdle = settings.minIdle ?? 0
    positive("max", max, 1)
    positive("maxTotal", maxTotal, 1)
    positive("minIdle", minIdle, 0)
    positive("maxWaiters", settings.maxWaiters ?? Infinity, 0)
    positive("maxConnecting", settings.maxConnecting ?? Infinity, 1)
    positive("maxUses", settings.maxUses ?? Infinity, 1)
    if (minIdle > max) throw new RangeError(`Pool: minIdle ${minIdle} is more than max ${max}.`)
    if (settings.keepAlive !== undefined && settings.validate === undefined) {
      throw new RangeError(
        "Pool: keepAlive needs `validate`: it is what is done to keep an item alive."
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
    const leakAfter = millisOf(settings.leakDetection)
    const maxLifetime = millisOf(settings.maxLifetime)
    const idleTimeout = millisOf(settings.idleTimeout)
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
      acquireTimeout: millisOf(settings.acquireTimeout),
      createTimeout: millisOf(settings.createTimeout),
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
      keepAlive: millisOf(settings.keepAlive),
      invalidateOn: settings.invalidateOn,
      maxLifetime,
      jitter: settings.maxLifetimeJitter ?? 0.1,
      maxUses: settings.maxUses ?? Infinity,
      idleTimeout,
      leakAfter,
      retry: settings.createRetry ?? defaultRetry,
      shutdownTimeout: Duration.decode(settings.shutdownTimeout ?? Duration.infinity),
      interruptHolders: settings.onShutdownTimeout !== "abandon",
      timed: validate !== undefined || meter !== undefined || maxTotal !== Infinity
        || Math.min(leakAfter, maxLifetime, idleTimeout) !== Infinity,
      clock: yield* Effect.clock,
      ledger: yield* Ledger.Ledger,
      meter,
      // Never in the step that forks: the state is settled before the fiber runs.
      fork: (effect) => Runtime.runFork(uninterrupted, effect, { immediate: false }),
      refuse: Cause.fail,
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

/** @internal A shelf, filled up to `minIdle` from now on. */
export const unsafeAddShelf = <A, E>(
  engine: Engine<A, E>,
  name: string,
  open: Effect.Effect<Managed.Opened<A>, E>,
  forget: () => void
): Shelf<A, E> => {
  const shelf: Shelf<A, E> = {
    engine,
    name,
    open,
    forget,
    queue: WaitQueue.make(),
    borrowers: new Map(),
    items: new Set(),
    idle: makeList(),
    lent: makeList(),
    overdue: makeList(),
    creating: new Set(),
    checking: 0,
    closing: 0,
    generation: 0,
    backoff: undefined,
    retry: undefined,
    lastFailure: undefined
  }
  engine.shelves.add(shelf)
  pump(shelf)
  return shelf
}

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
  // MASK: the pool and its closing are one step; nothing waits.
  return Effect.uninterruptible(Effect.gen(function*() {
    const context = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const engine = yield* makeEngine<A, E, R2, R3>(options, options.max, Infinity)
    yield* Effect.addFinalizer(() => closeEngine(engine))
    const open = opening(engine.name, options.acquire, options.releaseDeadline)
    const shelf = unsafeAddShelf(engine, engine.name, Effect.provide(open, context), () => {})
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

/** `f` may throw instead of failing; the item must come back all the same. */
const bodyOf = <A, B, E2, R2>(
  value: A,
  f: (item: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R2> => {
  try {
    return f(value)
  } catch (defect) {
    return Effect.die(defect)
  }
}

const runInMask = <A, E, B, E2, R2>(
  item: Item<A, E>,
  body: Effect.Effect<B, E2, R2>,
  restore: Managed.Restore
): Effect.Effect<B, E2, R2> =>
  Effect.matchCauseEffect(restore(body), {
    onFailure: (cause) => {
      const exit = Exit.failCause(cause)
      giveBack(item, exit)
      return exit
    },
    onSuccess: (value) => {
      const exit = Exit.succeed(value)
      giveBack(item, exit)
      return exit
    }
  })

/** The one who asks. Free, unlike an effect that asks the runtime. */
const currentFiber = (): Fiber.RuntimeFiber<unknown, unknown> | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())

/** @internal The bracket of `use`. To be run in a masked region. */
export const useInMask = <A, E, B, E2, R2>(
  shelf: Shelf<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: Error | undefined,
  restore: Managed.Restore
): Effect.Effect<B, E | E2, R2> => {
  const fiber = currentFiber()
  const item = takeNow(shelf, fiber, site)
  if (item !== undefined) return runInMask(item, bodyOf(item.value, f), restore)
  return Effect.flatMap(
    waitInMask(shelf, fiber, site, restore),
    // suspend: who was interrupted after the grant does not even build its body.
    (granted) => runInMask(granted, Effect.suspend(() => f(granted.value)), restore)
  )
}

/** @internal Where a borrow was asked for, if anybody will want to know. */
export const siteOf = <A, E>(engine: Engine<A, E>): Error | undefined =>
  engine.leakAfter === Infinity ? undefined : new Error("borrowed here")

/**
 * Runs `f` with an item of the pool and gives it back, whatever the exit. The hot path: no `Scope`, no lookup.
 *
 * **Interruption** — Waiting: leaves the line at once; an item just granted goes to the next in the same step; an opening goes
 *   on for the others. Holding: `f` is cut and the item is given back (destroyed if `invalidateOn` says so).
 * **Errors** — those of `f`, of `acquire`, and of the pool as its options allow.
 * **Cost** — about 1.2 times the least a masked bracket can cost, when an item is idle and needs no check.
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
    const site = siteOf(shelf.engine)
    // MASK: from the taking to the giving back; the wait and `f` are restored.
    return Effect.uninterruptibleMask((restore) => useInMask(shelf, f, site, restore))
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
    const site = siteOf(engine)
    // MASK: as `use`.
    return Effect.uninterruptibleMask((restore): Effect.Effect<Option.Option<B>, E | E2, R2> => {
      if (engine.closed) {
        return Effect.failCause(engine.refuse(new PoolClosed({ pool: shelf.name })))
      }
      const item = takeNow(shelf, currentFiber(), site)
      if (item !== undefined) {
        return Effect.map(runInMask(item, bodyOf(item.value, f), restore), Option.some)
      }
      const stale = shelf.queue.size > 0 ? undefined : nextIdle(shelf)
      if (stale !== undefined) {
        unlink(stale)
        inspect(stale, engine.care.check(stale.value), "invalid")
      }
      return Effect.succeedNone
    })
  }
)

/**
 * An item for as long as the scope lives.
 *
 * **Interruption** — Waiting: as `use`. Holding: the scope gives it back.
 * **Errors** — as `use`. **Cost** — that of a finalizer in a scope on top of `use`, about 5 µs.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <A, E>({ shelf }: Pool<A, E>): Effect.Effect<A, E, Scope.Scope> => {
  const site = siteOf(shelf.engine)
  return Effect.flatMap(Effect.scope, (scope) => getIn(scope, () => shelf, site))
}

/** @internal */
export const getIn = <A, E>(
  scope: Scope.Scope,
  shelfOf: () => Shelf<A, E>,
  site: Error | undefined
): Effect.Effect<A, E> =>
  // MASK: the taking and its finalizer are one step; the wait is restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(takeInMask(shelfOf, site, restore), (item) =>
      Effect.as(
        Scope.addFinalizerExit(scope, (exit) => Effect.sync(() => giveBack(item, exit))),
        item.value
      ))
  )

/**
 * An item that is given back by `release`, or by the scope at the latest.
 *
 * **Interruption** — as `get`. **Errors** — as `use`. **Cost** — one scope more than `get`.
 *
 * @category operations
 * @since 0.1.0
 */
export const lease = <A, E>({ shelf }: Pool<A, E>): Effect.Effect<Lease<A>, E, Scope.Scope> => {
  const site = siteOf(shelf.engine)
  return Effect.flatMap(Effect.scope, (scope) =>
    // MASK: as `get`.
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(takeInMask(() => shelf, site, restore), (item) => leaseIn(scope, item))
    ))
}

const leaseIn = <A, E>(scope: Scope.Scope, item: Item<A, E>): Effect.Effect<Lease<A>> => {
  // Guarded by the single thread: an item is given back once, and then it is somebody else's.
  let ended = false
  const end = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (ended) return
      ended = true
      giveBack(item, exit)
    })
  // A child scope: what was released early leaves nothing behind in a long-lived one.
  return Effect.flatMap(
    Scope.fork(scope, ExecutionStrategy.sequential),
    (own) =>
      Effect.as(Scope.addFinalizerExit(own, end), {
        value: item.value,
        // MASK: a release that was begun is done; nothing waits.
        release: Effect.uninterruptible(Scope.close(own, Exit.void)),
        invalidate: Effect.sync(() => !ended && unsafeInvalidate(item))
      })
  )
}

const unsafeInvalidate = <A, E>(item: Item<A, E>): boolean => {
  const { shelf } = item
  if (item.doomed) return false
  item.doomed = true
  if (item.list === shelf.idle) {
    retire(item, "invalid")
    pump(shelf)
    changed(shelf.engine)
  }
  return true
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
  <A, E>({ shelf }: Pool<A, E>, value: A): Effect.Effect<boolean> =>
    Effect.sync(() => unsafeInvalidateIn(shelf, value))
)

/** @internal */
export const unsafeInvalidateIn = <A, E>(shelf: Shelf<A, E>, value: A): boolean => {
  for (const item of shelf.items) {
    if (Object.is(item.value, value) && unsafeInvalidate(item)) return true
  }
  return false
}

/**
 * None of the items there are now, nor those being opened, is lent again: after a failover, say, or new credentials.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateAll = <A, E>({ shelf }: Pool<A, E>): Effect.Effect<void> =>
  Effect.sync(() => unsafeInvalidateAllIn(shelf))

/** @internal */
export const unsafeInvalidateAllIn = <A, E>(shelf: Shelf<A, E>): void => {
  shelf.generation++
  retireIdle(shelf, "invalid")
}

/**
 * Destroys the items that are idle now; `minIdle` new ones are opened. Says how many.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(idle).
 *
 * @category operations
 * @since 0.1.0
 */
export const evictIdle = <A, E>({ shelf }: Pool<A, E>): Effect.Effect<number> =>
  Effect.sync(() => retireIdle(shelf, "evicted"))

const retireIdle = <A, E>(shelf: Shelf<A, E>, reason: Reason): number => {
  const count = shelf.idle.size
  while (shelf.idle.head !== undefined) retire(shelf.idle.head, reason)
  pump(shelf)
  changed(shelf.engine)
  return count
}

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
export const unsafeStats = <A, E>({ shelf }: Pool<A, E>): PoolStats => unsafeShelfStats(shelf)

/**
 * Who holds items at this instant.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — O(used).
 *
 * @category getters
 * @since 0.1.0
 */
export const holders = <A, E>({ shelf }: Pool<A, E>): Effect.Effect<ReadonlyArray<Holder>> =>
  Effect.sync(() => unsafeHolders(shelf.engine))

/**
 * Waits until nobody holds or waits for an item and none is being opened, checked or destroyed.
 *
 * **Interruption** — Waiting: stops waiting. **Errors** — none. **Cost** — none while it waits but a look after each change.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitIdle = <A, E>({ shelf: { engine } }: Pool<A, E>): Effect.Effect<void> =>
  awaitQuiet(engine)

/** @internal */
export const awaitQuiet = <A, E>(engine: Engine<A, E>): Effect.Effect<void> =>
  awaitState(engine, () => isQuiet(engine))

/**
 * Closes the pool before its scope does, or waits for its end if it is closing already.
 *
 * **Interruption** — Waiting: stops waiting; the closing goes on. **Errors** — none; `PoolLeak` and `PoolClosedByHolder` are
 *   defects. **Cost** — see `shutdownTimeout`.
 *
 * @category operations
 * @since 0.1.0
 */
export const close = <A, E>({ shelf: { engine } }: Pool<A, E>): Effect.Effect<void> =>
  closeEngine(engine)
