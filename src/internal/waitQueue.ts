/**
 * waitQueue: THE fair queue. Order, cancellation and hand-over of everything that waits are decided here and nowhere else.
 *
 * DESIGN. A doubly linked list of waiter records. Whoever has something to give grants it to the head record in one
 * synchronous step; the record, not the fiber's wake-up, is the truth. A waiter whose fiber is interrupted finds out from
 * its record, inside its own uninterruptible region, whether it was still queued (it unlinks itself, O(1)) or had been
 * granted (it gives the grant on in the same step). So a grant is never lost between "given" and "started".
 *
 * INVARIANTS
 * - WaitQueue-1 (L6) First come, first served: only the head is ever granted.
 * - WaitQueue-2 (L2) A granted waiter that was interrupted before it ran gives its grant on in the same step.
 * - WaitQueue-3 A cancelled, late or refused waiter leaves at once; the queue holds only fibers that still want, and
 *   whoever leaves lets the owner serve those behind it in the same step.
 * - WaitQueue-4 A grant wakes exactly the waiter it was given to: wake-ups never outnumber grants and departures.
 * - WaitQueue-5 To find nothing and to stand in line are one step: no release falls between and is missed.
 * - WaitQueue-6 Whoever watches a waiter is told in the step itself: joined, granted or gone, and gone after all.
 *
 * COST one record and one `Effect.async` per wait; cancel and grant O(1). A bound on the wait forks one timer.
 * SOURCES tokio's batch semaphore (one queue under every primitive), Trio's parking lot.
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Who is told what becomes of a waiter (internal/hold.ts, for the ledger). */
export interface Watch {
  joined(waiter: Waiter): void
  granted(): void
  /** It goes without: late, refused, or interrupted, with the cause; after `granted`, if that was given on. */
  left(cause?: Cause.Cause<unknown>): void
}

/** One fiber in line. `need` is what it asks for; it is the queue owner's to read. */
export interface Waiter {
  readonly need: number
  readonly watch: Watch | undefined
  // All guarded by the single thread; written only by this file.
  state: "queued" | "granted" | "refused" | "cancelled"
  resume: ((effect: Effect.Effect<void>) => void) | undefined
  /** Why it was refused. */
  refusal: Cause.Cause<never> | undefined
  previous: Waiter | undefined
  next: Waiter | undefined
}

/** A line of waiters. */
export interface WaitQueue {
  // Guarded by the single thread; written only by this file.
  head: Waiter | undefined
  tail: Waiter | undefined
  size: number
}

/**
 * What the owner of the line does when a waiter goes without what it was given: with `true` it had been granted (the goods
 * must go to the next in line), with `false` it left the line (the new head may now be served).
 */
export type GiveOn = (wasGranted: boolean) => void

export const make = (): WaitQueue => ({ head: undefined, tail: undefined, size: 0 })

const enqueue = (queue: WaitQueue, need: number, watch: Watch | undefined): Waiter => {
  const waiter: Waiter = {
    need,
    watch,
    state: "queued",
    resume: undefined,
    refusal: undefined,
    previous: queue.tail,
    next: undefined
  }
  if (queue.tail === undefined) queue.head = waiter
  else queue.tail.next = waiter
  queue.tail = waiter
  queue.size++
  watch?.joined(waiter)
  return waiter
}

/** Ends the waiting of a queued waiter. It keeps no neighbour: a waiter in hand must not keep a whole line in memory. */
const leave = (
  queue: WaitQueue,
  waiter: Waiter,
  state: "granted" | "refused" | "cancelled",
  why?: () => Cause.Cause<unknown> | undefined
): void => {
  if (waiter.previous === undefined) queue.head = waiter.next
  else waiter.previous.next = waiter.next
  if (waiter.next === undefined) queue.tail = waiter.previous
  else waiter.next.previous = waiter.previous
  waiter.previous = undefined
  waiter.next = undefined
  queue.size--
  waiter.state = state
  // Asked for when the waiter has left: whoever counts those in line for it does not count this one.
  const cause = why?.()
  if (state === "granted") waiter.watch?.granted()
  else waiter.watch?.left(cause)
  if (state !== "cancelled") waiter.resume?.(Effect.void)
}

/** Grants the head what it asked for and wakes it. The caller has already set the goods aside for it. */
export const grantHead = (queue: WaitQueue): void => {
  const waiter = queue.head
  if (waiter === undefined) throw new Error("WaitQueue-1 broken: nobody to grant to")
  leave(queue, waiter, "granted")
}

/** Sends everybody away for whom `hopeless` knows why; the caller then serves those who stay. O(waiters). */
export const refuse = (
  queue: WaitQueue,
  hopeless: (need: number) => Cause.Cause<never> | undefined
): void => {
  for (let waiter = queue.head; waiter !== undefined;) {
    const { next } = waiter
    const refusal = hopeless(waiter.need)
    waiter.refusal = refusal
    if (refusal !== undefined) leave(queue, waiter, "refused", () => refusal)
    waiter = next
  }
}

const settled = <E>(
  queue: WaitQueue,
  waiter: Waiter,
  restore: Restore,
  giveOn: GiveOn,
  refusal: () => Cause.Cause<E> | undefined
): Effect.Effect<void, E> => {
  const woken = Effect.async<void>((resume) => {
    waiter.resume = resume
    if (waiter.state !== "queued") resume(Effect.void)
  })
  return Effect.matchCauseEffect(restore(woken), {
    onFailure: (cause) => {
      if (waiter.state === "granted") {
        waiter.watch?.left(cause)
        giveOn(true)
      } else if (waiter.state === "queued") {
        leave(queue, waiter, "cancelled", () => cause)
        giveOn(false)
      }
      return Effect.failCause(cause)
    },
    onSuccess: () => {
      const refused = refusal()
      return refused === undefined ? Effect.void : Effect.failCause(refused)
    }
  })
}

/**
 * Waits in line until granted, or until `refuse` says why not.
 *
 * It stands in line when this is CALLED, not when the effect runs (which it must, once, in the mask): call it in the very
 * step that found nothing to take, or a release in between is missed and it waits for ever (WaitQueue-5).
 */
export const waitInMask = (
  queue: WaitQueue,
  need: number,
  restore: Restore,
  giveOn: GiveOn,
  watch?: Watch
): Effect.Effect<void> => {
  const waiter = enqueue(queue, need, watch)
  return settled(queue, waiter, restore, giveOn, () => waiter.refusal)
}

/** As `waitInMask`, for at most `atMost` of the `Clock`: whoever is late leaves in the timer's own step, as `late` says. */
export const waitAtMostInMask = <E>(
  queue: WaitQueue,
  need: number,
  restore: Restore,
  giveOn: GiveOn,
  atMost: Duration.Duration,
  late: () => Cause.Cause<E>,
  watch?: Watch
): Effect.Effect<void, E> => {
  const waiter = enqueue(queue, need, watch)
  // Guarded by the single thread.
  let lateness: Cause.Cause<E> | undefined
  const wait = settled(queue, waiter, restore, giveOn, () => waiter.refusal ?? lateness)
  return Effect.flatMap(
    Effect.forkDaemon(Effect.interruptible(Effect.sleep(atMost))),
    (timer) => {
      timer.addObserver(() => {
        if (waiter.state !== "queued") return
        leave(queue, waiter, "refused", () => lateness = late())
        giveOn(false)
      })
      return Effect.onExit(wait, () => Effect.sync(() => timer.unsafeInterruptAsFork(timer.id())))
    }
  )
}
