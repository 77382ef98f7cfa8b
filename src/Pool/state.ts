/**
 * state: the data of a pool, and questions about it.
 *
 * DESIGN. A `State` is shared by the partitions of one pool; a partition has the items and the waiters of one key (a plain pool
 * has one partition). An item stands on at most one list, idle or lent, and on none while it is checked, reset or destroyed. Plain fields,
 * so every question has an exact answer in the same tick. Only items.ts, lend.ts and close.ts write them.
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Tracer from "effect/Tracer"
import * as Condition from "../internal/condition.ts"
import type * as Hold from "../internal/hold.ts"
import type { AnyFiber, Frame } from "../internal/runtime.ts"
import type * as CapturedSite from "../internal/site.ts"
import type * as Timers from "../internal/timers.ts"
import type * as WaitQueue from "../internal/waitQueue.ts"
import type * as Options from "./options.ts"

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
 * The holder of an item. `since` is in milliseconds of the `Clock` and known if an option of the pool needs the time at each
 * borrow (leak detection, ageing, metrics); `site` is known with leak detection, or with a ledger in force that keeps sites.
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

/**
 * Why an item was destroyed, or that it left the pool with its holder (`"detached"`).
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
  | "detached"

/** The user's line, or lines, that asked for an item. */
export type Site = Pick<CapturedSite.Site, "text">

/** Is called at each change: updates the metrics of a pool (meter.ts), or tells its observers (Control.ts). */
export interface Meter {
  readonly sample: (stats: PoolStats) => void
  readonly waited: (millis: number) => void
  readonly lent?: (item: unknown) => void
  readonly used: (millis: number, item: unknown) => void
  readonly created: (millis: number, item: unknown) => void
  readonly destroyed: (reason: Reason, item: unknown) => void
  readonly createFailed: () => void
  readonly timedOut: () => void
  readonly cancelled: () => void
  readonly leaked: () => void
}

/** An acquired value and its release, which is bounded and cannot fail. */
export interface Opened<out A> {
  readonly value: A
  readonly close: Effect.Effect<Exit.Exit<unknown, unknown>>
}

export interface Item<A, E> {
  readonly value: A
  readonly close: Opened<A>["close"]
  readonly partition: Partition<A, E>
  readonly generation: number
  readonly expiresAt: number
  readonly keepAliveEvery: number
  isInvalid: boolean
  uses: number
  /** The end of the last use; orders the idle list. */
  idleSince: number
  /** When it was last known to be good. */
  soundSince: number
  keepAliveAt: number
  holder: AnyFiber | undefined
  lentAt: number
  isWarnedOf: boolean
  site: Site | undefined
  hold: Hold.Hold | undefined
  /** Gives it back at the end of a use in one step; made by the first. */
  frame: Frame | undefined
  list: List<A, E> | undefined
  previous: Item<A, E> | undefined
  next: Item<A, E> | undefined
}

export interface List<A, E> {
  head: Item<A, E> | undefined
  tail: Item<A, E> | undefined
  size: number
}

export interface Waiter<A, E> {
  /** Stands as `need` in the queue; counts up, so it is also the order of arrival. */
  readonly id: number
  readonly priority: number
  readonly fiber: AnyFiber | undefined
  readonly site: Site | undefined
  readonly hold: Hold.Hold | undefined
  readonly since: number
  isLate: boolean
  item: Item<A, E> | undefined
  /** Granted instead of an item. */
  failure: Cause.Cause<E> | undefined
}

export interface Opening {
  readonly generation: number
  readonly startedAt: number
  readonly deadline: number
  hasEnded: boolean
  isUnwanted: boolean
  fiber: Fiber.RuntimeFiber<void> | undefined
}

/** The items and the waiters of one key; a plain pool has one partition. */
export interface Partition<A, E> {
  readonly pool: State<A, E>
  readonly name: string
  /** How many items it may have. Only Control.ts writes it. */
  max: number
  readonly open: Effect.Effect<Opened<A>, E>
  /** Called when it has no items and no waiters. */
  readonly forget: () => void
  readonly queue: WaitQueue.WaitQueue
  readonly items: Set<Item<A, E>>
  readonly idle: List<A, E>
  readonly lent: List<A, E>
  /** The lent items that a leak warning has named. */
  readonly overdue: List<A, E>
  readonly opening: Set<Opening>
  checking: number
  closing: number
  /** The recorded holders of its items; only internal/hold.ts writes it. */
  holds: Hold.Holds | undefined
  generation: number
  /** The wait before the next refill, after a failed one. */
  backoff: Fiber.RuntimeFiber<void> | undefined
  /** Counts the failures in a row, for the schedule. */
  retry: Schedule.ScheduleDriver<unknown, unknown> | undefined
  lastFailure: Cause.Cause<unknown> | undefined
}

/** How partitions share one bound (quota.ts). A plain pool has none, unless it was resized (Control.ts). */
export interface Quota {
  readonly next: <A, E>(pool: State<A, E>) => Decision<A, E> | undefined
  readonly owesSlot: <A, E>(partition: Partition<A, E>) => boolean
}

/** One step of `reconcile` (lend.ts). */
export type Decision<A, E> =
  | { readonly _tag: "grant" | "check"; readonly item: Item<A, E> }
  | { readonly _tag: "destroy"; readonly item: Item<A, E>; readonly reason: Reason }
  | { readonly _tag: "open"; readonly partition: Partition<A, E> }

export type Totals = {
  -readonly [
    K in "created" | "destroyed" | "createFailures" | "timeouts" | "cancelledWaits" | "leaks"
  ]: PoolStats[K]
}

/** The data that the partitions of one pool share. */
export interface State<A, E> {
  readonly options: Options.Resolved<A>
  // Only Control.ts writes these two.
  quota: Quota | undefined
  meter: Meter | undefined
  readonly clock: Clock.Clock
  /** Whether a borrow reads the time. */
  readonly isTimed: boolean
  /** Starts a fiber of the pool, uninterruptible, after the step that asks for it. */
  readonly fork: (effect: Effect.Effect<void>) => Fiber.RuntimeFiber<void>
  readonly maker: AnyFiber
  readonly timers: Timers.Timers
  readonly changes: Condition.Condition
  /** How closing ended. */
  ended: Exit.Exit<void> | undefined
  readonly partitions: Set<Partition<A, E>>
  readonly waiters: Map<number, Waiter<A, E>>
  readonly totals: Totals
  /** The slots taken, over all partitions. */
  size: number
  closing: number
  isClosed: boolean
  lastId: number
  timer: Timers.Timer | undefined
  wakeAt: number
}

// Lists.

export const makeList = <A, E>(): List<A, E> => ({ head: undefined, tail: undefined, size: 0 })

const insertAfter = <A, E>(
  list: List<A, E>,
  item: Item<A, E>,
  previous: Item<A, E> | undefined
): void => {
  const next = previous === undefined ? list.head : previous.next
  item.list = list
  item.previous = previous
  item.next = next
  if (previous === undefined) list.head = item
  else previous.next = item
  if (next === undefined) list.tail = item
  else next.previous = item
  list.size++
}

export const append = <A, E>(list: List<A, E>, item: Item<A, E>): void =>
  insertAfter(list, item, list.tail)

/** The idle list is in the order of last use; a check does not count as a use. */
export const insertByUse = <A, E>(list: List<A, E>, item: Item<A, E>): void => {
  let previous = list.tail
  while (previous !== undefined && previous.idleSince > item.idleSince) previous = previous.previous
  insertAfter(list, item, previous)
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

// Questions.

export const nowOf = <A, E>({ clock }: State<A, E>): number => clock.unsafeCurrentTimeMillis()

/** The time, if a borrow reads it. */
export const borrowTimeOf = <A, E>(pool: State<A, E>): number => pool.isTimed ? nowOf(pool) : 0

export const usedOf = <A, E>({ checking, lent, overdue }: Partition<A, E>): number =>
  lent.size + overdue.size + checking

export const sizeOf = <A, E>({ items, opening }: Partition<A, E>): number =>
  items.size + opening.size

/** Whether there are no items and no waiters. */
export const isVacant = <A, E>(partition: Partition<A, E>): boolean =>
  sizeOf(partition) + partition.queue.size === 0

export const headOf = <A, E>({ pool, queue }: Partition<A, E>): Waiter<A, E> | undefined =>
  queue.head === undefined ? undefined : pool.waiters.get(queue.head.need)

/** How many items to open: those wanted, minus those that are idle or on their way. */
export const shortage = <A, E>(partition: Partition<A, E>): number =>
  partition.queue.size - partition.idle.size - partition.opening.size - partition.checking
  + (partition.backoff === undefined ? partition.pool.options.minIdle : 0)

export const hasRoom = <A, E>(partition: Partition<A, E>): boolean =>
  sizeOf(partition) < partition.max
  && partition.opening.size < partition.pool.options.maxConnecting

/** Whether `maxWaiters` refuses one more waiter. Those for whom an item comes, or may be opened, do not count. */
export const isFull = <A, E>(partition: Partition<A, E>): boolean => {
  const { options, size } = partition.pool
  if (options.maxWaiters === Infinity) return false
  // Below 0 after a resize to less.
  const room = Math.max(0, Math.min(partition.max - sizeOf(partition), options.maxTotal - size))
  const coming = partition.opening.size + partition.checking + partition.idle.size + room
  return partition.queue.size >= coming + options.maxWaiters
}

const partitionStats = <A, E>(partition: Partition<A, E>) => ({
  size: sizeOf(partition),
  idle: partition.idle.size,
  used: usedOf(partition),
  creating: partition.opening.size,
  closing: partition.closing,
  pending: partition.queue.size
})

export const unsafeStats = <A, E>(partition: Partition<A, E>): PoolStats => {
  const { options, totals } = partition.pool
  return { max: partition.max, minIdle: options.minIdle, ...partitionStats(partition), ...totals }
}

export const unsafeTotalStats = <A, E>(pool: State<A, E>): PoolStats => {
  const { options: { max, maxTotal, minIdle }, partitions, totals } = pool
  const sum = { size: 0, idle: 0, used: 0, creating: 0, closing: 0, pending: 0 }
  for (const partition of partitions) {
    const stats = partitionStats(partition)
    for (const name of Object.keys(sum) as Array<keyof typeof sum>) sum[name] += stats[name]
  }
  return { max: maxTotal === Infinity ? max : maxTotal, minIdle, ...sum, ...totals }
}

export const isQuiet = <A, E>(pool: State<A, E>): boolean => {
  for (const partition of pool.partitions) {
    const { closing, opening, queue } = partition
    if (usedOf(partition) + opening.size + closing + queue.size > 0) return false
  }
  return true
}

/** Calls the observers whose test now holds, and the meter. */
export const notify = <A, E>(pool: State<A, E>): void => {
  if (pool.meter !== undefined) pool.meter.sample(unsafeTotalStats(pool))
  if (pool.changes.size > 0) Condition.notify(pool.changes)
}

// Holders.

export const holderOf = <A, E>({ holder, lentAt, site }: Item<A, E>): Holder => {
  const span = holder === undefined
    ? Option.none()
    : Context.getOption(holder.currentContext, Tracer.ParentSpan)
  return {
    fiber: holder === undefined ? "none" : FiberId.threadName(holder.id()),
    span: Option.isSome(span) && span.value._tag === "Span" ? span.value.name : undefined,
    since: lentAt === 0 ? undefined : lentAt,
    site: site?.text
  }
}

export const lentItems = <A, E>(pool: State<A, E>): Array<Item<A, E>> => {
  const items: Array<Item<A, E>> = []
  for (const { lent, overdue } of pool.partitions) {
    for (let item = overdue.head; item !== undefined; item = item.next) items.push(item)
    for (let item = lent.head; item !== undefined; item = item.next) items.push(item)
  }
  return items
}

export const unsafeHolders = <A, E>(pool: State<A, E>): ReadonlyArray<Holder> =>
  lentItems(pool).map(holderOf)

export const describeHolder = ({ fiber, site, span }: Holder): string => {
  const within = span === undefined ? "" : ` in span "${span}"`
  return `fiber ${fiber}${within}${site === undefined ? "" : ` at ${site.split("\n")[0]}`}`
}

export const warn = <A, E>(pool: State<A, E>, ...message: [string, Cause.Cause<unknown>?]): void =>
  void pool.fork(Effect.logWarning(...message))
