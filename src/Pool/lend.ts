/**
 * lend: decides which waiter gets an item, and when: take, grant, return, refuse. `reconcile` stands behind all of them.
 *
 * DESIGN. All functions are synchronous, and after each the state is consistent. Work that takes time is a fiber of items.ts that
 * calls one of them at its end. `decide` looks at a partition and names the next step towards what is wanted (destroy, check, grant, open);
 * `reconcile` performs steps until there is none. A returned item takes the
 * short way, `offer`. Order among waiters is decided in internal/waitQueue.ts, order among keys in quota.ts.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Hold from "../internal/hold.ts"
import type { AnyFiber } from "../internal/runtime.ts"
import * as Timers from "../internal/timers.ts"
import * as WaitQueue from "../internal/waitQueue.ts"
import * as Ledger from "../Ledger.ts"
import { PoolTimeout, refusal } from "./errors.ts"
import { dueOf, isStale, nextDue, nextDueOf, nextIdle, unfit } from "./evict.ts"
import * as Items from "./items.ts"
import * as State from "./state.ts"

// The ledger.

/** The partitions whose items a waiter of this one waits for: all, unless its own is as large as it may be. */
const inTheWayOf = <A, E>(partition: State.Partition<A, E>): Iterable<State.Partition<A, E>> =>
  State.sizeOf(partition) >= partition.max ? [partition] : partition.pool.partitions

/** Whether an item would come for a waiter if the holders for whom `isReleased` is true, and those not recorded, ended. */
const mayBeServed = <A, E>(
  partition: State.Partition<A, E>,
  isReleased: (hold: Hold.Hold) => boolean
): boolean => {
  for (const other of inTheWayOf(partition)) {
    // The work of the pool itself ends without a holder.
    if (other.opening.size + other.checking + other.closing > 0) return true
    if (Hold.keepAtMost(other, other.lent.size + other.overdue.size - 1, isReleased)) return true
  }
  return false
}

function* holdsOf(partitions: Iterable<State.Partition<any, any>>): Iterable<Hold.Hold> {
  for (const { holds } of partitions) if (holds !== undefined) yield* holds
}

/** The waiter or holder as the ledger in force shows it; none without a ledger. */
export const recorded = <A, E>(
  partition: State.Partition<A, E>,
  fiber: AnyFiber | undefined,
  site: State.Site | undefined
): Hold.Hold | undefined => {
  const recorder = Ledger.unsafeInForce(fiber)
  return recorder && new Hold.Hold(recorder, partition, {
    kind: "pool lease",
    name: partition.name,
    amount: 1,
    site,
    inTheWay: () => holdsOf(inTheWayOf(partition)),
    isServedIf: (_, isReleased) => mayBeServed(partition, isReleased),
    alike: partition
  })
}

// Lending.

const lend = <A, E>(
  item: State.Item<A, E>,
  fiber: AnyFiber | undefined,
  site: State.Site | undefined,
  hold: Hold.Hold | undefined,
  now: number
): void => {
  const { lent, pool } = item.partition
  item.holder = fiber
  item.site = site
  item.hold = hold
  item.lentAt = now
  State.append(lent, item)
  pool.meter?.lent?.(item.value)
  if (pool.options.leakAfter !== Infinity) arm(pool, now + pool.options.leakAfter)
}

/** Ends the holding of an item. The item stands on no list until the caller puts it on one. */
export const unlend = <A, E>(item: State.Item<A, E>): void => {
  const { name, pool } = item.partition
  State.unlink(item)
  if (item.isWarnedOf) {
    item.isWarnedOf = false
    const { fiber } = State.holderOf(item)
    const what = `Pool "${name}": fiber ${fiber} gave back an item after its leak warning`
    pool.fork(Effect.logInfo(what))
  }
  item.hold?.left()
  item.hold = undefined
  item.holder = undefined
  item.site = undefined
}

/** Lends an idle item in this very step, if there is no waiter and one is fit without a check. */
export const takeNow = <A, E>(
  partition: State.Partition<A, E>,
  fiber: AnyFiber | undefined,
  site: State.Site | undefined
): State.Item<A, E> | undefined => {
  const { pool, queue } = partition
  // INVARIANT Pool-2: a newcomer passes no waiter.
  if (queue.size > 0) return undefined
  const now = State.borrowTimeOf(pool)
  for (let item = nextIdle(partition); item !== undefined; item = nextIdle(partition)) {
    // INVARIANT Pool-5.
    if (item.expiresAt <= now) {
      destroy(item, "lifetime")
      continue
    }
    if (isStale(item, now)) return undefined
    State.unlink(item)
    const hold = recorded(partition, fiber, site)
    hold?.granted()
    lend(item, fiber, site, hold, now)
    State.notify(pool)
    return item
  }
  return undefined
}

/** To be called where there is one. */
const dequeue = <A, E>(partition: State.Partition<A, E>): State.Waiter<A, E> => {
  const waiter = State.headOf(partition)!
  partition.pool.waiters.delete(waiter.id)
  return waiter
}

const grant = <A, E>(item: State.Item<A, E>): void => {
  const { partition } = item
  const { meter } = partition.pool
  const waiter = dequeue(partition)
  waiter.item = item
  lend(item, waiter.fiber, waiter.site, waiter.hold, State.borrowTimeOf(partition.pool))
  meter?.waited(State.nowOf(partition.pool) - waiter.since)
  WaitQueue.grantHead(partition.queue)
}

/** The head of the queue gets a failure instead of an item. */
export const refuseHead = <A, E>(
  partition: State.Partition<A, E>,
  failure: Cause.Cause<E>
): void => {
  const waiter = dequeue(partition)
  waiter.failure = failure
  waiter.hold?.left(failure)
  WaitQueue.grantHead(partition.queue)
}

/** An item that stands on no list goes to the first waiter, to the idle items, or away. */
const offer = <A, E>(item: State.Item<A, E>): void => {
  const { partition } = item
  const { quota } = partition.pool
  const now = State.borrowTimeOf(partition.pool)
  const reason = unfit(item, now) ?? (quota?.owesSlot(partition) === true ? "evicted" : undefined)
  if (reason !== undefined) {
    destroy(item, reason)
    reconcile(partition)
  } else if (partition.queue.head !== undefined) {
    grant(item)
  } else {
    State.insertByUse(partition.idle, item)
    if (!partition.pool.isTimed) return
    item.keepAliveAt = now + item.keepAliveEvery
    const next = nextDueOf(item)
    if (next !== Infinity) arm(partition.pool, next)
  }
}

export const giveBack = <A, E>(item: State.Item<A, E>, exit: Exit.Exit<unknown, unknown>): void => {
  const { pool } = item.partition
  const now = State.borrowTimeOf(pool)
  pool.meter?.used(now - item.lentAt, item.value)
  unlend(item)
  item.uses++
  item.idleSince = now
  item.soundSince = now
  const { invalidateOn, reset } = pool.options
  if (invalidateOn !== undefined && Items.isRuledOut(pool, exit)) item.isInvalid = true
  if (reset !== undefined && unfit(item, now) === undefined) Items.reset(item, exit, afterReset)
  else offer(item)
  State.notify(pool)
}

// Reconciling.

/** The next step towards what is wanted of a partition; none if there is nothing to do or no room to do it. Only reads. */
const decide = <A, E>(
  partition: State.Partition<A, E>,
  now: number
): State.Decision<A, E> | undefined => {
  const { checking, idle, opening, pool, queue } = partition
  if (pool.isClosed) return undefined
  // A waiter for whom a check or an opening is under way is served by that.
  if (idle.size > 0 && queue.size > checking + opening.size) {
    const item = nextIdle(partition)!
    if (item.expiresAt <= now) return { _tag: "destroy", item, reason: "lifetime" }
    return { _tag: isStale(item, now) ? "check" : "grant", item }
  }
  if (pool.quota !== undefined) return pool.quota.next(pool)
  return State.shortage(partition) > 0 && State.hasRoom(partition)
    ? { _tag: "open", partition }
    : undefined
}

const perform = <A, E>(decision: State.Decision<A, E>): void => {
  switch (decision._tag) {
    case "destroy":
      return destroy(decision.item, decision.reason)
    case "check":
      return Items.check(decision.item, afterCheck)
    case "grant":
      State.unlink(decision.item)
      return grant(decision.item)
    case "open":
      return open(decision.partition)
  }
}

const reconcile = <A, E>(partition: State.Partition<A, E>): void => {
  const now = State.nowOf(partition.pool)
  let decision = decide(partition, now)
  for (; decision !== undefined; decision = decide(partition, now)) perform(decision)
}

/** To be called after a change that may call for a step, or leave the partition empty. */
export const settle = <A, E>(partition: State.Partition<A, E>): void => {
  reconcile(partition)
  State.notify(partition.pool)
  if (State.isVacant(partition)) partition.forget()
}

export const destroy = <A, E>(item: State.Item<A, E>, reason: State.Reason): void =>
  Items.destroy(item, reason, settle)

const afterInspection =
  (reason: State.Reason) => <A, E>(item: State.Item<A, E>, isSound: boolean): void => {
    if (isSound) offer(item)
    else destroy(item, reason)
    settle(item.partition)
  }

const afterCheck = afterInspection("invalid")

/** Without waiters only a check that is due keeps an idle item from being lent at once. */
export const checkNextIdle = <A, E>(partition: State.Partition<A, E>): void => {
  const item = partition.queue.size > 0 ? undefined : nextIdle(partition)
  if (item !== undefined) Items.check(item, afterCheck)
}

const afterReset = afterInspection("error")

const open = <A, E>(partition: State.Partition<A, E>): void => {
  const { deadline } = Items.open(partition, (opening, exit) => {
    if (Exit.isSuccess(exit)) offer(exit.value)
    else if (!partition.pool.isClosed && !opening.isUnwanted) reportFailure(partition, exit.cause)
    settle(partition)
  })
  if (deadline !== Infinity) arm(partition.pool, deadline)
}

/** INVARIANT Pool-4: the first waiter gets the failure, or else the log; it is stored only to be named in timeouts. */
const reportFailure = <A, E>(partition: State.Partition<A, E>, failure: Cause.Cause<E>): void => {
  const { meter, options, totals } = partition.pool
  // A bare interrupt would look like the waiter's own.
  const cause = Cause.isInterruptedOnly(failure)
    ? Cause.die(new Error(`Pool "${partition.name}": opening was interrupted`))
    : failure
  totals.createFailures++
  meter?.createFailed()
  partition.lastFailure = cause
  if (partition.queue.head !== undefined) return refuseHead(partition, cause)
  const what = `Pool "${partition.name}": opening failed without a waiter`
  State.warn(partition.pool, what, cause)
  if (partition.backoff === undefined && options.minIdle > 0) {
    Items.backOff(partition, cause, () => settle(partition))
  }
}

// Housekeeping: one timer for the earliest deadline of openings, ageing, keep-alive and leaks.

/** Makes sure that the housekeeping runs by `at`. */
const arm = <A, E>(pool: State.State<A, E>, at: number): void => {
  if (pool.wakeAt <= at || pool.isClosed) return
  const { timer } = pool
  pool.wakeAt = at
  pool.timer = Timers.start(pool.timers, at - State.nowOf(pool), pool.maker, () => housekeep(pool))
  if (timer !== undefined) Timers.stop(timer)
}

const housekeep = <A, E>(pool: State.State<A, E>): void => {
  pool.timer = undefined
  if (pool.isClosed) return
  // The steps below must not arm the timer.
  pool.wakeAt = -Infinity
  const now = State.nowOf(pool)
  let next = Infinity
  for (const partition of pool.partitions) {
    doDue(partition, now)
    next = Math.min(next, nextDue(partition))
  }
  pool.wakeAt = Infinity
  arm(pool, next)
  State.notify(pool)
}

const doDue = <A, E>(partition: State.Partition<A, E>, now: number): void => {
  const { idle, lent, pool } = partition
  for (const opening of partition.opening) {
    if (opening.deadline <= now) giveUpOn(partition, opening)
  }
  for (let item = idle.head; item !== undefined;) {
    // Read before the item leaves the list.
    const { next } = item
    const decision = dueOf(item, now)
    if (decision !== undefined) perform(decision)
    item = next
  }
  for (let item = lent.head; item !== undefined; item = lent.head) {
    if (item.lentAt + pool.options.leakAfter > now) break
    warnOf(item, now)
  }
  reconcile(partition)
}

export const timeout = <A, E>(
  partition: State.Partition<A, E>,
  phase: "acquire" | "create",
  waited: number,
  fiber: AnyFiber | undefined
): PoolTimeout =>
  new PoolTimeout({
    pool: partition.name,
    phase,
    waited: Duration.millis(waited),
    stats: State.unsafeStats(partition),
    // An opening that was too slow becomes the last failure itself: it would keep all before it in memory.
    lastFailure: phase === "create" ? Option.none() : Option.fromNullable(partition.lastFailure),
    heldByWaiter: fiber === undefined
      ? 0
      : State.lentItems(partition.pool).filter(({ holder }) => holder === fiber).length
  })

const giveUpOn = <A, E>(partition: State.Partition<A, E>, opening: State.Opening): void => {
  const { createTimeout } = partition.pool.options
  const error = timeout(partition, "create", createTimeout, State.headOf(partition)?.fiber)
  Items.abandon(partition, opening)
  reportFailure(partition, refusal(error))
}

const warnOf = <A, E>(item: State.Item<A, E>, now: number): void => {
  const { name, overdue, pool } = item.partition
  State.unlink(item)
  State.append(overdue, item)
  item.isWarnedOf = true
  pool.totals.leaks++
  pool.meter?.leaked()
  const held = Duration.format(Duration.millis(now - item.lentAt))
  const holder = State.holderOf(item)
  const what = `Pool "${name}": ${State.describeHolder(holder)} holds an item for ${held}`
  pool.fork(Effect.annotateLogs(Effect.logWarning(what), { pool: name, ...holder }))
}

/** Called when a waiter leaves its line: it is late or interrupted, perhaps after its grant. */
export const forgetWaiter = <A, E>(
  partition: State.Partition<A, E>,
  waiter: State.Waiter<A, E>
): void => {
  const { meter, options, totals, waiters } = partition.pool
  waiters.delete(waiter.id)
  if (!waiter.isLate) {
    totals.cancelledWaits++
    meter?.cancelled()
  }
  if (waiter.item !== undefined) {
    // INVARIANT Pool-3: the grant goes to the next waiter in this step.
    unlend(waiter.item)
    offer(waiter.item)
  }
  if (options.interruptAbandoned && State.shortage(partition) < 0) Items.interruptNewest(partition)
  settle(partition)
}

// On demand.

export const unsafeInvalidate = <A, E>(item: State.Item<A, E>): boolean => {
  if (item.isInvalid) return false
  item.isInvalid = true
  if (item.list === item.partition.idle) {
    destroy(item, "invalid")
    settle(item.partition)
  }
  return true
}

/** By identity, in every partition. */
export const unsafeInvalidateValue = <A, E>(pool: State.State<A, E>, value: A): boolean =>
  Array.from(pool.partitions).some(({ items }) =>
    Array.from(items).some((item) => Object.is(item.value, value) && unsafeInvalidate(item))
  )

export const unsafeInvalidateAll = <A, E>(partition: State.Partition<A, E>): void => {
  partition.generation++
  destroyIdle(partition, "invalid")
}

export const destroyIdle = <A, E>(
  partition: State.Partition<A, E>,
  reason: State.Reason
): number => {
  const count = partition.idle.size
  while (partition.idle.head !== undefined) destroy(partition.idle.head, reason)
  settle(partition)
  return count
}

/** A partition, filled up to `minIdle` from now on. */
export const unsafeAddPartition = <A, E>(
  pool: State.State<A, E>,
  name: string,
  open: Effect.Effect<State.Opened<A>, E>,
  forget: () => void,
  max: number
): State.Partition<A, E> => {
  const queue = WaitQueue.make()
  // Bounds of waits share the fiber of the housekeeping.
  queue.timers = pool.timers
  const partition: State.Partition<A, E> = {
    pool,
    name,
    max,
    open,
    forget,
    queue,
    items: new Set(),
    idle: State.makeList(),
    lent: State.makeList(),
    overdue: State.makeList(),
    opening: new Set(),
    checking: 0,
    closing: 0,
    holds: undefined,
    generation: 0,
    backoff: undefined,
    retry: undefined,
    lastFailure: undefined
  }
  pool.partitions.add(partition)
  reconcile(partition)
  return partition
}
