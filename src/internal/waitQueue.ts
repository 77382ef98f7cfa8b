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
 * - WaitQueue-3 A cancelled waiter leaves at once; the queue holds only fibers that still want.
 *
 * COST one record and one `Effect.async` per wait; cancel and grant O(1).
 * SOURCES tokio's batch semaphore (one queue under every primitive), Trio's parking lot.
 */
import * as Effect from "effect/Effect"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** One fiber in line. `need` is what it asks for; it is the queue owner's to read. */
export interface Waiter {
  readonly need: number
  // All guarded by the single thread; written only by this file.
  state: "queued" | "granted" | "cancelled"
  resume: ((effect: Effect.Effect<void>) => void) | undefined
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

export const make = (): WaitQueue => ({ head: undefined, tail: undefined, size: 0 })

const enqueue = (queue: WaitQueue, need: number): Waiter => {
  const waiter: Waiter = {
    need,
    state: "queued",
    resume: undefined,
    previous: queue.tail,
    next: undefined
  }
  if (queue.tail === undefined) queue.head = waiter
  else queue.tail.next = waiter
  queue.tail = waiter
  queue.size++
  return waiter
}

const unlink = (queue: WaitQueue, waiter: Waiter): void => {
  if (waiter.previous === undefined) queue.head = waiter.next
  else waiter.previous.next = waiter.next
  if (waiter.next === undefined) queue.tail = waiter.previous
  else waiter.next.previous = waiter.previous
  queue.size--
}

/** Grants the head what it asked for and wakes it. The caller has already set the goods aside for it. */
export const grantHead = (queue: WaitQueue): void => {
  const waiter = queue.head
  if (waiter === undefined) throw new Error("WaitQueue-1 broken: nobody to grant to")
  unlink(queue, waiter)
  waiter.state = "granted"
  waiter.resume?.(Effect.void)
}

/**
 * Waits in line until granted. `giveOn` is called when this waiter was interrupted: with `true` if it had been granted
 * (the goods must go to the next in line), with `false` if it left the line (the new head may now be served).
 */
export const waitInMask = (
  queue: WaitQueue,
  need: number,
  restore: Restore,
  giveOn: (wasGranted: boolean) => void
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const waiter = enqueue(queue, need)
    const granted = Effect.async<void>((resume) => {
      waiter.resume = resume
      if (waiter.state === "granted") resume(Effect.void)
    })
    return Effect.catchAllCause(restore(granted), (cause) => {
      const wasGranted = waiter.state === "granted"
      if (!wasGranted) {
        waiter.state = "cancelled"
        unlink(queue, waiter)
      }
      giveOn(wasGranted)
      return Effect.failCause(cause)
    })
  })
