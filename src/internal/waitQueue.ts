/**
 * waitQueue: THE fair queue. It alone decides the order, the cancellation and the hand-over of everything that waits in line.
 *
 * DESIGN. A doubly linked list of waiter records. The owner of the queue grants to the head record in one synchronous step; the
 * record holds the truth, not the moment at which the fiber wakes. An interrupted waiter reads in its own uninterruptible region
 * whether it was still queued (it unlinks itself) or granted (it passes the grant on in the same step), so no grant is lost between
 * "granted" and "started". A waiter of higher priority joins before those of lower priority; only a queue whose waiters differ in
 * priority remembers the last waiter of each. All bounds of one queue share one timer fiber (timers.ts).
 *
 * INVARIANTS
 * - WaitQueue-1 (L6) First come, first served within one priority, higher priorities first: only the head is ever granted.
 * - WaitQueue-2 (L2) A granted waiter that is interrupted before it runs passes its grant on in the same step.
 * - WaitQueue-3 A cancelled, late or refused waiter leaves at once, and the owner serves those behind it in the same step.
 * - WaitQueue-4 A grant wakes exactly the waiter that gets it: wake-ups never outnumber grants and departures.
 * - WaitQueue-5 Finding nothing and joining the queue are one step: no release falls between them and is missed.
 * - WaitQueue-6 The watch of a waiter is called in the step itself: joined, granted, left, and left after a grant.
 *
 * COST one record and one `Effect.async` per wait, and without a mask one frame; cancel and grant O(1). Joining O(1), or O(priorities in the queue). A bound is
 * an entry of a heap; the first one of a queue forks.
 * SOURCES tokio's batch semaphore (one queue under every primitive), Trio's parking lot.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type AnyFiber, currentFiber, Frame, pushFrame } from "./runtime.ts"
import * as Timers from "./timers.ts"

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Observes one waiter (internal/hold.ts does, for the ledger). */
export interface Watch {
  joined(waiter: Waiter<unknown>): void
  granted(): void
  /** It leaves without a grant: late, refused or interrupted, with the cause; or it passes its grant on, after `granted`. */
  left(cause?: Cause.Cause<unknown>): void
}

/** One fiber in the queue. Only this file writes it. */
export interface Waiter<E> {
  /** The amount it asks for; only the owner of the queue reads it. */
  readonly need: number
  readonly priority: number
  /** The fiber that will own the grant, if its owner remembers that. */
  readonly owner: AnyFiber | undefined
  readonly watch: Watch | undefined
  state: "queued" | "granted" | "refused" | "cancelled"
  resume: (() => void) | undefined
  timer: Timers.Timer | undefined
  /** Why it was refused. */
  refusal: Cause.Cause<E> | undefined
  previous: Waiter<E> | undefined
  next: Waiter<E> | undefined
}

/** A queue whose owner may refuse waiters with `E`. Only this file writes it. */
export interface WaitQueue<E = never> {
  head: Waiter<E> | undefined
  tail: Waiter<E> | undefined
  size: number
  /** The last waiter of each priority, from when a second priority joins until the queue is empty. */
  lasts: Map<number, Waiter<E>> | undefined
  timers: Timers.Timers | undefined
}

/**
 * How the owner reacts when a waiter leaves without what it asked for. `true`: it had a grant, which must go to the next waiter.
 * `false`: it left the queue, and the new head may now be served.
 */
export type OnLeave = (wasGranted: boolean) => void

/** How long a waiter waits, and the failure of a late one. */
export interface Bound<E> {
  readonly atMost: Duration.Duration
  /** Called when it has left. It may throw. */
  readonly late: () => Cause.Cause<E>
}

export interface Options<E> {
  readonly priority?: number | undefined
  readonly owner?: AnyFiber | undefined
  readonly bound?: Bound<E> | undefined
}

export const make = <E = never>(): WaitQueue<E> => ({
  head: undefined,
  tail: undefined,
  size: 0,
  lasts: undefined,
  timers: undefined
})

/** From the first tracker of the process on (tracker.ts): the queue in which each fiber waits, and who sees one begin to. */
let isWatched = false
const queues = new WeakMap<AnyFiber, object>()
const observers = new Set<(fiber: AnyFiber) => void>()

export const watch = (): void => {
  isWatched = true
}

/** The queue in which a fiber waits. */
export const queueOf = (fiber: AnyFiber): object | undefined => queues.get(fiber)

/** Calls `observer` with each fiber that begins to wait, until the result is called. */
export const onWait = (observer: (fiber: AnyFiber) => void): () => void => {
  observers.add(observer)
  return () => void observers.delete(observer)
}

const begin = (queue: object): AnyFiber | undefined => {
  const fiber = isWatched ? currentFiber() : undefined
  if (fiber === undefined) return undefined
  queues.set(fiber, queue)
  for (const observer of observers) observer(fiber)
  return fiber
}

/** The waiter after which one of this priority joins. */
const predecessor = <E>(queue: WaitQueue<E>, priority: number): Waiter<E> | undefined => {
  const { tail } = queue
  if (queue.lasts === undefined) {
    if (tail === undefined || tail.priority === priority) return tail
    queue.lasts = new Map([[tail.priority, tail]])
  }
  let nearest: Waiter<E> | undefined
  for (const last of queue.lasts.values()) {
    const isNearer = nearest === undefined || last.priority < nearest.priority
    if (last.priority >= priority && isNearer) nearest = last
  }
  return nearest
}

const enqueue = <E>(
  queue: WaitQueue<E>,
  need: number,
  watch: Watch | undefined,
  { owner, priority = 0 }: Options<unknown>
): Waiter<E> => {
  const previous = predecessor(queue, priority)
  const next = previous === undefined ? queue.head : previous.next
  const waiter: Waiter<E> = {
    need,
    priority,
    owner,
    watch,
    state: "queued",
    resume: undefined,
    timer: undefined,
    refusal: undefined,
    previous,
    next
  }
  if (previous === undefined) queue.head = waiter
  else previous.next = waiter
  if (next === undefined) queue.tail = waiter
  else next.previous = waiter
  queue.lasts?.set(priority, waiter)
  queue.size++
  watch?.joined(waiter)
  return waiter
}

const unlink = <E>(queue: WaitQueue<E>, waiter: Waiter<E>): void => {
  const { next, previous, priority } = waiter
  if (queue.lasts?.get(priority) === waiter) {
    if (previous?.priority === priority) queue.lasts.set(priority, previous)
    else queue.lasts.delete(priority)
  }
  if (previous === undefined) queue.head = next
  else previous.next = next
  if (next === undefined) queue.tail = previous
  else next.previous = previous
  // A reference to one waiter must not keep the whole queue in memory.
  waiter.previous = undefined
  waiter.next = undefined
  if (--queue.size === 0) queue.lasts = undefined
}

/** Ends the wait of a queued waiter. */
const leave = <E>(
  queue: WaitQueue<E>,
  waiter: Waiter<E>,
  state: "granted" | "refused" | "cancelled",
  why?: () => Cause.Cause<unknown> | undefined
): void => {
  unlink(queue, waiter)
  if (waiter.timer !== undefined) Timers.stop(waiter.timer)
  waiter.state = state
  // After it has left: a message that counts the waiters must not count this one.
  const cause = why?.()
  if (state === "granted") waiter.watch?.granted()
  else waiter.watch?.left(cause)
  if (state !== "cancelled") waiter.resume?.()
}

/** Grants the head what it asked for and wakes it. The caller has already reserved that for it. */
export const grantHead = <E>(queue: WaitQueue<E>): void => {
  const waiter = queue.head
  if (waiter === undefined) throw new Error("WaitQueue-1 broken: nobody to grant to")
  leave(queue, waiter, "granted")
}

/** Refuses each waiter for which `refusalOf` gives a cause; the caller then serves the others. O(waiters). */
export const refuse = <E>(
  queue: WaitQueue<E>,
  refusalOf: (need: number) => Cause.Cause<E> | undefined
): void => {
  for (let waiter = queue.head; waiter !== undefined;) {
    const { next } = waiter
    const refusal = refusalOf(waiter.need)
    waiter.refusal = refusal
    if (refusal !== undefined) leave(queue, waiter, "refused", () => refusal)
    waiter = next
  }
}

const causeOf = <E>(late: () => Cause.Cause<E>): Cause.Cause<E> => {
  try {
    return late()
  } catch (defect) {
    return Cause.die(defect)
  }
}

/** Suspends the fiber until its waiter has left the queue; then it runs `next`. */
const suspended = <A, E, R>(
  waiter: Waiter<any>,
  next: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.async<A, E, R>((resume) => {
    waiter.resume = () => resume(next)
    if (waiter.state !== "queued") resume(next)
  })

/** A waiter ends without using what it was granted. */
const quit = <E>(
  queue: WaitQueue<E>,
  waiter: Waiter<E>,
  onLeave: OnLeave,
  cause?: Cause.Cause<unknown>
): void => {
  if (waiter.state === "granted") {
    waiter.watch?.left(cause)
    onLeave(true)
  } else if (waiter.state === "queued") {
    leave(queue, waiter, "cancelled", () => cause)
    onLeave(false)
  }
}

/** `wait`, and from its first step on the timer of its bound. */
const bounded = <A, E, R>(
  queue: WaitQueue<any>,
  waiter: Waiter<any>,
  wait: Effect.Effect<A, E, R>,
  onLeave: OnLeave,
  bound: Bound<E> | undefined
): Effect.Effect<A, E, R> => {
  if (bound === undefined || !Duration.isFinite(bound.atMost)) return wait
  const { atMost, late } = bound
  const onLate = (): void => {
    if (waiter.state !== "queued") return
    leave(queue, waiter, "refused", () => waiter.refusal = causeOf(late))
    onLeave(false)
  }
  return Effect.clockWith((clock) => {
    const caller = currentFiber()
    if (waiter.state === "queued" && caller !== undefined) {
      queue.timers = Timers.on(queue.timers, clock)
      waiter.timer = Timers.start(queue.timers, Duration.toMillis(atMost), caller, onLate)
    }
    return wait
  })
}

/**
 * Waits in the queue until granted, refused, or late by its bound.
 *
 * The waiter joins when this is CALLED, not when the effect runs (which it must, once, inside the mask): call it in the step that
 * found nothing to take, or a release in between is missed (WaitQueue-5). After a call with a priority, serve the head: the new
 * waiter may be it.
 */
export const waitInMask = <E = never, E2 = never>(
  queue: WaitQueue<E>,
  need: number,
  restore: Restore,
  onLeave: OnLeave,
  watch?: Watch,
  options: Options<E2> = {}
): Effect.Effect<void, E | E2> => {
  const waiter = enqueue(queue, need, watch, options)
  const fiber = begin(queue)
  const wait = Effect.matchCauseEffect(restore(suspended(waiter, Effect.void)), {
    onFailure: (cause) => {
      if (fiber !== undefined) queues.delete(fiber)
      quit(queue, waiter, onLeave, cause)
      return Effect.failCause(cause)
    },
    onSuccess: (): Effect.Effect<void, E> => {
      if (fiber !== undefined) queues.delete(fiber)
      return waiter.refusal === undefined ? Effect.void : Effect.failCause(waiter.refusal)
    }
  })
  return bounded<void, E | E2, never>(queue, waiter, wait, onLeave, options.bound)
}

/**
 * `waitInMask` and the use that follows, with one frame and no mask; for a waiter without a watch. When it is granted, the fiber runs
 * `use()`, and `endingOf()` runs in the step in which that ends. Must be called in a step of the fiber that returns the result.
 */
export const useInStep = <A, E, R, E2 = never, E3 = never>(
  fiber: AnyFiber,
  queue: WaitQueue<E2>,
  need: number,
  use: () => Effect.Effect<A, E, R>,
  endingOf: () => Frame | undefined,
  onLeave: OnLeave,
  options: Options<E3>
): Effect.Effect<A, E | E2 | E3, R> => {
  const waiter = enqueue(queue, need, undefined, options)
  begin(queue)
  let end = (): void => {
    queues.delete(fiber)
    quit(queue, waiter, onLeave)
  }
  pushFrame(fiber, new Frame(() => end()))
  const next = Effect.suspend((): Effect.Effect<A, E | E2, R> => {
    if (waiter.refusal !== undefined) return Effect.failCause(waiter.refusal)
    queues.delete(fiber)
    const ending = endingOf()
    end = () => ending?.run()
    return use()
  })
  return bounded<A, E | E2 | E3, R>(
    queue,
    waiter,
    suspended(waiter, next),
    onLeave,
    options.bound
  )
}
