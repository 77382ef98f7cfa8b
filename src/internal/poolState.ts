/**
 * poolState: what a pool is made of, and what can be read off it. Nothing here changes who has what.
 *
 * DESIGN. An engine is what the shelves of one pool share; a shelf is the items and the waiters of one key (a plain pool has
 * one). An item stands on at most one list, idle or lent, and on none while it is checked, reset or destroyed. Errors and
 * records are the owner's: the engine is told how to word a refusal and how to find the ledger.
 *
 * INVARIANTS those of Pool.ts. Everything is guarded by the single thread and written only by poolFlow.ts.
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Tracer from "effect/Tracer"
import * as Hold from "./hold.ts"
import type * as CapturedSite from "./site.ts"
import type * as WaitQueue from "./waitQueue.ts"

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** An acquired value and its release, as `Managed` has it. */
export interface Opened<out A> {
  readonly value: A
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
}

/**
 * The pool at one instant. `used` counts the items that are lent, checked or reset; `closing` those being destroyed; `pending`
 * the waiters. The last six are totals since the pool was made.
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
 * (leak detection, metrics); `site` is known with leak detection, or with a ledger in force that keeps sites.
 */
export interface Holder {
  readonly fiber: string
  readonly span: string | undefined
  readonly since: number | undefined
  readonly site: string | undefined
}

/**
 * Why an item was destroyed.
 */
export type Reason =
  | "idle"
  | "lifetime"
  | "uses"
  | "invalid"
  | "error"
  | "evicted"
  | "shutdown"

/** How the owner of the engine words what it cannot do. */
export interface Refusals<E> {
  readonly closed: (pool: string) => Cause.Cause<E>
  readonly exhausted: (pool: string, maxWaiters: number, stats: PoolStats) => Cause.Cause<E>
  readonly timeout: (facts: TimeoutFacts) => Cause.Cause<E>
  /** Defects. */
  readonly leak: (holders: ReadonlyArray<Holder>, stats: PoolStats) => unknown
  readonly closedByHolder: (holder: Holder) => unknown
}

export interface TimeoutFacts {
  readonly pool: string
  readonly phase: "acquire" | "create"
  readonly waited: Duration.Duration
  readonly stats: PoolStats
  readonly lastFailure: Option.Option<Cause.Cause<unknown>>
  readonly heldByWaiter: number
}

export interface Meter {
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

export const describeHolder = ({ fiber, site, span }: Holder): string =>
  `fiber ${fiber}${span === undefined ? "" : ` in span "${span}"`}${
    site === undefined ? "" : ` at ${site.split("\n")[0]}`
  }`

/** Who holds or asks. */
export type Holding = Fiber.RuntimeFiber<unknown, unknown> | undefined

export interface Item<A, E> {
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
  site: Site | undefined
  /** What the ledger knows of who has it. */
  hold: Hold.Hold | undefined
  list: List<A, E> | undefined
  previous: Item<A, E> | undefined
  next: Item<A, E> | undefined
}

export interface List<A, E> {
  head: Item<A, E> | undefined
  tail: Item<A, E> | undefined
  size: number
}

export interface Borrower<A, E> {
  readonly fiber: Holding
  readonly site: Site | undefined
  readonly hold: Hold.Hold | undefined
  order: number
  since: number
  deadline: number
  item: Item<A, E> | undefined
  failure: Cause.Cause<E> | undefined
}

export interface Creation {
  readonly generation: number
  readonly startedAt: number
  readonly deadline: number
  settled: boolean
  unwanted: boolean
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/** The items and waiters of one key; a plain pool has one. */
export interface Shelf<A, E> {
  readonly engine: Engine<A, E>
  readonly name: string
  readonly open: Effect.Effect<Opened<A>, E>
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
  /** Who has its items, as far as recorded; written only by internal/hold.ts. */
  holds: Hold.Holds | undefined
  generation: number
  /** Waits before the next refill, after a failed one. */
  backoff: Fiber.RuntimeFiber<void> | undefined
  /** How often it has failed in a row, to the schedule. */
  retry: Schedule.ScheduleDriver<unknown, unknown> | undefined
  lastFailure: Cause.Cause<unknown> | undefined
}

export interface Watcher {
  readonly test: () => boolean
  readonly resume: () => void
}

export interface Totals {
  created: number
  destroyed: number
  createFailures: number
  timeouts: number
  cancelledWaits: number
  leaks: number
}

/** What is done with items; each bounded, none can fail. */
export interface Care<A> {
  check(item: A): Effect.Effect<boolean>
  reset(item: A, exit: Exit.Exit<unknown, unknown>): Effect.Effect<boolean>
}

/** What the shelves of one pool share. */
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
  /** The ledger in force in this step. */
  readonly recorder: () => Hold.Recorder | undefined
  /** The line that asks, if that ledger wants it; for a function the user calls. */
  readonly siteInForce: (frames: number) => Site | undefined
  readonly meter: Meter | undefined
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly refusals: Refusals<E>
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

export const makeList = <A, E>(): List<A, E> => ({ head: undefined, tail: undefined, size: 0 })

export const append = <A, E>(list: List<A, E>, item: Item<A, E>): void => {
  item.list = list
  item.previous = list.tail
  item.next = undefined
  if (list.tail === undefined) list.head = item
  else list.tail.next = item
  list.tail = item
  list.size++
}

export const unlink = <A, E>(item: Item<A, E>): void => {
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
export const shelve = <A, E>(list: List<A, E>, item: Item<A, E>): void => {
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

export const nowOf = <A, E>(engine: Engine<A, E>): number => engine.clock.unsafeCurrentTimeMillis()

export const usedOf = <A, E>(shelf: Shelf<A, E>): number =>
  shelf.lent.size + shelf.overdue.size + shelf.checking

export const sizeOf = <A, E>(shelf: Shelf<A, E>): number => shelf.items.size + shelf.creating.size

/** */
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

export const nameOf = (fiber: Holding): string =>
  fiber === undefined ? "none" : FiberId.threadName(fiber.id())

/** Where something was asked for: the user's line, or lines. */
export type Site = Pick<CapturedSite.Site, "text">

export const holderOf = <A, E>(item: Item<A, E>): Holder => {
  const fiber = item.holder
  const span = fiber === undefined
    ? Option.none()
    : Context.getOption(fiber.currentContext, Tracer.ParentSpan)
  return {
    fiber: nameOf(fiber),
    span: Option.isSome(span) && span.value._tag === "Span" ? span.value.name : undefined,
    since: item.lentAt === 0 ? undefined : item.lentAt,
    site: item.site?.text
  }
}

export const lentItems = <A, E>(shelf: Shelf<A, E>): Array<Item<A, E>> => {
  const items: Array<Item<A, E>> = []
  for (const list of [shelf.overdue, shelf.lent]) {
    for (let item = list.head; item !== undefined; item = item.next) items.push(item)
  }
  return items
}

/** */
export const unsafeHolders = <A, E>(engine: Engine<A, E>): ReadonlyArray<Holder> =>
  Array.from(engine.shelves).flatMap(lentItems).map(holderOf)

/** The sum over all shelves. */
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

// Watching: metrics and those who wait for a state.

export const changed = <A, E>(engine: Engine<A, E>): void => {
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

export const awaitState = <A, E>(engine: Engine<A, E>, test: () => boolean): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (test()) return resume(Effect.void)
    const watcher: Watcher = { test, resume: () => resume(Effect.void) }
    engine.watchers.add(watcher)
    engine.watched = true
    return Effect.sync(() => engine.watchers.delete(watcher))
  })

export const isQuiet = <A, E>(engine: Engine<A, E>): boolean => {
  for (const shelf of engine.shelves) {
    if (usedOf(shelf) + shelf.creating.size + shelf.closing + shelf.queue.size > 0) return false
  }
  return true
}

export const isEmpty = <A, E>(engine: Engine<A, E>): boolean => {
  for (const shelf of engine.shelves) if (sizeOf(shelf) > 0) return false
  return true
}

/** What only ends by itself or by its own deadline has ended; what holders have may be out. */
export const log = <A, E>(
  engine: Engine<A, E>,
  message: string,
  cause?: Cause.Cause<unknown>
): void => {
  engine.fork(cause === undefined ? Effect.logWarning(message) : Effect.logWarning(message, cause))
}

// Questions.

export const headOf = <A, E>(shelf: Shelf<A, E>): Borrower<A, E> | undefined =>
  shelf.queue.head === undefined ? undefined : shelf.borrowers.get(shelf.queue.head.need)

/** The idle item that is next to be lent. */
export const nextIdle = <A, E>({ engine, idle }: Shelf<A, E>): Item<A, E> | undefined =>
  engine.fifo ? idle.head : idle.tail

export const isStale = <A, E>(item: Item<A, E>, now: number): boolean =>
  item.shelf.engine.checks
  && now - item.soundSince >= item.shelf.engine.validateAfterIdle

export const unfit = <A, E>(item: Item<A, E>, now: number): Reason | undefined => {
  const { engine, generation } = item.shelf
  if (engine.closed) return "shutdown"
  if (item.doomed || item.generation !== generation) return "invalid"
  if (item.uses >= engine.maxUses) return "uses"
  return item.expiresAt <= now ? "lifetime" : undefined
}

/** How many more items are wanted than there are or come. */
export const shortage = <A, E>(shelf: Shelf<A, E>): number =>
  shelf.queue.size - shelf.idle.size - shelf.creating.size - shelf.checking
  + (shelf.backoff === undefined ? shelf.engine.minIdle : 0)

export const hasRoom = <A, E>(shelf: Shelf<A, E>): boolean =>
  sizeOf(shelf) < shelf.engine.max && shelf.creating.size < shelf.engine.maxConnecting

/** The shelves whose items a waiter of this one waits for: all of them, unless its own is as large as it may be. */
export const inTheWayOf = <A, E>(shelf: Shelf<A, E>): Iterable<Shelf<A, E>> =>
  sizeOf(shelf) >= shelf.engine.max ? [shelf] : shelf.engine.shelves

/** Whether an item would come for who waits here, if all holders let go for whom `letsGo` is true, and all not recorded. */
export const mayBeServed = <A, E>(
  shelf: Shelf<A, E>,
  letsGo: (hold: Hold.Hold) => boolean
): boolean => {
  for (const other of inTheWayOf(shelf)) {
    // What the pool itself does ends.
    if (other.creating.size + other.checking + other.closing > 0) return true
    if (Hold.keepAtMost(other, other.lent.size + other.overdue.size - 1, letsGo)) return true
  }
  return false
}

/** The waiter of a shelf nobody opens or checks anything for yet. */
export const firstUnserved = <A, E>(shelf: Shelf<A, E>): number => {
  let waiter = shelf.queue.head
  for (let i = shelf.creating.size + shelf.checking; i > 0 && waiter !== undefined; i--) {
    waiter = waiter.next
  }
  return waiter === undefined ? Infinity : shelf.borrowers.get(waiter.need)?.order ?? Infinity
}

export const hungriest = <A, E>(engine: Engine<A, E>): Shelf<A, E> | undefined => {
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

/** How many waiters, of shelves that may still grow, came before this one and have nothing coming. */
export const unservedBefore = <A, E>(engine: Engine<A, E>, order: number): number => {
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
export const owesItsSlot = <A, E>(shelf: Shelf<A, E>): boolean => {
  const { engine } = shelf
  if (engine.total < engine.maxTotal) return false
  return unservedBefore(engine, headOf(shelf)?.order ?? Infinity) > engine.closing
}

/** More waiting than `maxWaiters`, not counting those something is coming for or may still come for. */
export const isFull = <A, E>(shelf: Shelf<A, E>): boolean => {
  const { engine } = shelf
  if (engine.maxWaiters === Infinity) return false
  const room = Math.min(engine.max - sizeOf(shelf), engine.maxTotal - engine.total)
  const coming = shelf.creating.size + shelf.checking + shelf.idle.size + room
  return shelf.queue.size >= coming + engine.maxWaiters
}
