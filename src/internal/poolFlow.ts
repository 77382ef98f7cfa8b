/**
 * poolFlow: how items and waiters move. One file, because each movement may cause any other: a return serves a waiter, a
 * destruction makes room for an opening, an opening that fails refuses the oldest waiter.
 *
 * DESIGN. Synchronous functions that leave the state right behind them; whatever takes time is a fiber that calls one of them
 * at its end. `pump` follows everything that may have changed what is wanted or what there is room for; `makeAvailable` is
 * the one way to the next holder, `retire` the one way out. Order among waiters is decided in waitQueue.ts.
 *
 * INVARIANTS those of Pool.ts and Pool/Keyed.ts, named where they are kept.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { exitWithin } from "./deadline.ts"
import * as Handover from "./handover.ts"
import * as Hold from "./hold.ts"
import {
  append,
  awaitState,
  changed,
  describeHolder,
  hasRoom,
  headOf,
  holderOf,
  hungriest,
  inTheWayOf,
  isEmpty,
  isFull,
  isQuiet,
  isStale,
  lentItems,
  log,
  makeList,
  mayBeServed,
  nextIdle,
  nowOf,
  owesItsSlot,
  shelve,
  shortage,
  sizeOf,
  unfit,
  unlink,
  unsafeEngineStats,
  unsafeHolders,
  unsafeShelfStats,
  unservedBefore
} from "./poolState.ts"
import type {
  Borrower,
  Creation,
  Engine,
  Holding,
  Item,
  Opened,
  Reason,
  Restore,
  Shelf,
  Site
} from "./poolState.ts"
import { isClosed } from "./runtime.ts"
import * as CapturedSite from "./site.ts"
import * as WaitQueue from "./waitQueue.ts"

// Lending.

/** Who asks, as the ledger in force is told. */
const recorded = <A, E>(shelf: Shelf<A, E>, site: Site | undefined): Hold.Hold | undefined => {
  const recorder = shelf.engine.recorder()
  return recorder && new Hold.Hold(recorder, shelf, {
    kind: "pool lease",
    name: shelf.name,
    amount: 1,
    site,
    inTheWay: () => holdsOf(inTheWayOf(shelf)),
    isServedIf: (_, letsGo) => mayBeServed(shelf, letsGo)
  })
}

function* holdsOf(shelves: Iterable<Shelf<any, any>>): Iterable<Hold.Hold> {
  for (const { holds } of shelves) if (holds !== undefined) yield* holds
}

const lend = <A, E>(
  item: Item<A, E>,
  fiber: Holding,
  site: Site | undefined,
  hold: Hold.Hold | undefined,
  now: number
): void => {
  const { engine, lent } = item.shelf
  item.holder = fiber
  item.site = site
  item.hold = hold
  item.lentAt = now
  append(lent, item)
  if (engine.leakAfter !== Infinity) arm(engine, now + engine.leakAfter)
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
  item.hold?.left()
  item.hold = undefined
  item.holder = undefined
  item.site = undefined
}

/** Lends an idle item in this very step, if nobody waits and one is fit without a check. */
export const takeNow = <A, E>(
  shelf: Shelf<A, E>,
  fiber: Holding,
  site: Site | undefined
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
    if (engine.checks && isStale(item, now)) return undefined
    unlink(item)
    const hold = recorded(shelf, site)
    hold?.granted()
    lend(item, fiber, site, hold, now)
    if (engine.watched) changed(engine)
    return item
  }
}

const dequeue = <A, E>(shelf: Shelf<A, E>): Borrower<A, E> | undefined => {
  const ticket = shelf.queue.head?.need
  if (ticket === undefined) return undefined
  const borrower = shelf.borrowers.get(ticket)
  shelf.borrowers.delete(ticket)
  return borrower
}

const grant = <A, E>(item: Item<A, E>, now: number): void => {
  const { engine, queue } = item.shelf
  const borrower = dequeue(item.shelf)
  if (borrower === undefined) throw new Error("Pool-2 broken: nobody to grant to")
  borrower.item = item
  lend(item, borrower.fiber, borrower.site, borrower.hold, now)
  engine.meter?.waited(nowOf(engine) - borrower.since)
  WaitQueue.grantHead(queue)
}

/** The head of the line gets a failure instead of an item. */
const refuseHead = <A, E>(shelf: Shelf<A, E>, failure: Cause.Cause<E>): void => {
  const borrower = dequeue(shelf)
  if (borrower === undefined) throw new Error("Pool-2 broken: nobody to refuse")
  borrower.failure = failure
  borrower.hold?.left(failure)
  WaitQueue.grantHead(shelf.queue)
}

/** An item on no list goes to the head of the line, to the idle ones, or away. */
const makeAvailable = <A, E>(item: Item<A, E>): void => {
  const { shelf } = item
  const { engine } = shelf
  const now = engine.timed ? nowOf(engine) : 0
  const reason = unfit(item, now)
    ?? (engine.maxTotal !== Infinity && owesItsSlot(shelf) ? "evicted" : undefined)
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

export const giveBack = <A, E>(item: Item<A, E>, exit: Exit.Exit<unknown, unknown>): void => {
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
  if (engine.watched) changed(engine)
}

/** Does something to an item that is lent to nobody meanwhile; it must say `true`, or the item goes. */
export const inspect = <A, E>(
  item: Item<A, E>,
  work: Effect.Effect<boolean>,
  reason: Reason
): void => {
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
  opened: Opened<A>,
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
      hold: undefined,
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

const tidy = <A, E>(shelf: Shelf<A, E>): void => {
  if (sizeOf(shelf) + shelf.queue.size === 0) shelf.forget()
}

// Waiting.

const timeout = <A, E>(
  shelf: Shelf<A, E>,
  phase: "acquire" | "create",
  waited: number
): Cause.Cause<E> => {
  const { engine } = shelf
  const fiber = headOf(shelf)?.fiber
  return engine.refusals.timeout({
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
  // No pump: nobody is short of anything because somebody left.
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
    refuseHead(shelf, engine.refusals.closed(shelf.name))
  }
}

const refusalOf = <A, E>(shelf: Shelf<A, E>): Cause.Cause<E> | undefined => {
  const { maxWaiters, refusals } = shelf.engine
  if (shelf.engine.closed) return refusals.closed(shelf.name)
  if (!isFull(shelf)) return undefined
  return refusals.exhausted(shelf.name, maxWaiters, unsafeShelfStats(shelf))
}

/** Waits in line for an item. To be run in a masked region; only the wait is restored. */
const waitInMask = <A, E>(
  shelf: Shelf<A, E>,
  fiber: Holding,
  site: Site | undefined,
  restore: Restore
): Effect.Effect<Item<A, E>, E> => {
  const { engine } = shelf
  const refusal = refusalOf(shelf)
  if (refusal !== undefined) {
    tidy(shelf)
    return Effect.failCause(refusal)
  }
  const ticket = engine.tickets++
  const hold = recorded(shelf, site)
  const borrower: Borrower<A, E> = {
    fiber,
    site,
    hold,
    order: Infinity,
    since: 0,
    deadline: Infinity,
    item: undefined,
    failure: undefined
  }
  shelf.borrowers.set(ticket, borrower)
  const inLine = WaitQueue.waitInMask(
    shelf.queue,
    ticket,
    restore,
    () => left(shelf, ticket, borrower),
    hold
  )
  // We stand in line from this step on: now something may be granted.
  joined(shelf, borrower)
  return Effect.flatMap(
    inLine,
    () => {
      if (borrower.item !== undefined) return Effect.succeed(borrower.item)
      return Effect.failCause(
        borrower.failure ?? Cause.die(new Error("Pool-3 broken: granted nothing"))
      )
    }
  )
}

/** An item of this shelf, at once or after a wait. To be run in a masked region. */
export const takeInMask = <A, E>(
  shelfOf: () => Shelf<A, E>,
  site: Site | undefined,
  restore: Restore
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
    refuseHead(shelf, timeout(shelf, "acquire", now - head.since))
  }
}

/** The slot is free again at once, even if the opening ignores its interruption. */
const giveUpOn = <A, E>(shelf: Shelf<A, E>, creation: Creation): void => {
  const { engine } = shelf
  const error = timeout(shelf, "create", engine.createTimeout)
  settle(shelf, creation)
  engine.total--
  creation.fiber?.unsafeInterruptAsFork(FiberId.none)
  failed(shelf, error)
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
    Effect.die(engine.refusals.leak(unsafeHolders(engine), unsafeEngineStats(engine)))
  )

/** Begins closing, once, and waits for its end. */
export const closeEngine = <A, E>(engine: Engine<A, E>): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    beginClosing(engine)
    const own = Array.from(engine.shelves).flatMap(lentItems).find(({ holder }) => holder === fiber)
    return own === undefined
      ? Deferred.await(engine.ended)
      : Effect.die(engine.refusals.closedByHolder(holderOf(own)))
  })

// Using.

/** `f` may throw instead of failing; the item must come back all the same. */
export const bodyOf = <A, B, E2, R2>(
  value: A,
  f: (item: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R2> => {
  try {
    return f(value)
  } catch (defect) {
    return Effect.die(defect)
  }
}

export const runInMask = <A, E, B, E2, R2>(
  item: Item<A, E>,
  body: Effect.Effect<B, E2, R2>,
  restore: Restore
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
export const currentFiber = (): Fiber.RuntimeFiber<unknown, unknown> | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())

/** The bracket of `use`. To be run in a masked region. */
export const useInMask = <A, E, B, E2, R2>(
  shelf: Shelf<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: Site | undefined,
  restore: Restore
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

/** `siteInForce` itself, `siteOf`, the function the user calls, and three more if that is data-last in a pipe. */
const userFrames = 6

/** Where a borrow was asked for, if anybody will want to know. To be called in the function that the user calls. */
export const siteOf = <A, E>(engine: Engine<A, E>): Site | undefined =>
  engine.leakAfter === Infinity
    ? engine.siteInForce(userFrames)
    : new CapturedSite.Site(new Error(), Infinity)

/** Takes an item and gives it to the scope of the context: `own` registers the end of the lending with it. */
export const takeInScope = <A, E, B>(
  resourceOf: () => string,
  shelfOf: () => Shelf<A, E>,
  site: Site | undefined,
  own: (scope: Scope.Scope, item: Item<A, E>) => Effect.Effect<B>
): Effect.Effect<B, E, Scope.Scope> =>
  // MASK: the taking and its finalizer are one step; the wait is restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) =>
      isClosed(scope)
        ? Handover.ownerClosed(resourceOf())
        : Effect.flatMap(
          takeInMask(shelfOf, site, restore),
          (item) => own(scope, item)
        ))
  )

export const ownInScope = <A, E>(scope: Scope.Scope, item: Item<A, E>): Effect.Effect<A> =>
  Effect.as(
    Handover.ownInScope(scope, item.shelf.name, (exit) => Effect.sync(() => giveBack(item, exit))),
    item.value
  )

/** Has the next idle item checked if that is what keeps it from being lent at once. */
export const checkNext = <A, E>(shelf: Shelf<A, E>): void => {
  const stale = shelf.queue.size > 0 ? undefined : nextIdle(shelf)
  if (stale === undefined) return
  unlink(stale)
  inspect(stale, shelf.engine.care.check(stale.value), "invalid")
}

// On demand.

export const unsafeInvalidate = <A, E>(item: Item<A, E>): boolean => {
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

/** */
export const unsafeInvalidateIn = <A, E>(shelf: Shelf<A, E>, value: A): boolean => {
  for (const item of shelf.items) {
    if (Object.is(item.value, value) && unsafeInvalidate(item)) return true
  }
  return false
}

/** */
export const unsafeInvalidateAllIn = <A, E>(shelf: Shelf<A, E>): void => {
  shelf.generation++
  retireIdle(shelf, "invalid")
}

export const retireIdle = <A, E>(shelf: Shelf<A, E>, reason: Reason): number => {
  const count = shelf.idle.size
  while (shelf.idle.head !== undefined) retire(shelf.idle.head, reason)
  pump(shelf)
  changed(shelf.engine)
  return count
}

/** */
export const awaitQuiet = <A, E>(engine: Engine<A, E>): Effect.Effect<void> =>
  awaitState(engine, () => isQuiet(engine))

/** A shelf, filled up to `minIdle` from now on. */
export const unsafeAddShelf = <A, E>(
  engine: Engine<A, E>,
  name: string,
  open: Effect.Effect<Opened<A>, E>,
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
    holds: undefined,
    generation: 0,
    backoff: undefined,
    retry: undefined,
    lastFailure: undefined
  }
  engine.shelves.add(shelf)
  pump(shelf)
  return shelf
}

/** For Pool/Keyed.ts, which sees the machine through Pool.ts. */
export { unsafeEngineStats, unsafeShelfStats } from "./poolState.ts"
export type { Engine, Shelf } from "./poolState.ts"
