/**
 * Semaphore: a number of permits, handed over in the order they were asked for.
 *
 * DESIGN. A counter and the fair queue. Order is decided in internal/waitQueue.ts: a release gives its permits straight to
 * the waiters at the head and wakes exactly those, and nobody who comes later passes a waiter. `effect`'s own semaphore
 * wakes every waiter on each release, which costs the square of the waiters and starves them.
 *
 * INVARIANTS
 * - Semaphore-1 (L1) `free + taken = permits` at every instant; a permit taken is released exactly once.
 * - Semaphore-2 (L6) FIFO by arrival, weighted waiters included: a small request never passes a large one.
 * - Semaphore-3 (L2) An interrupted waiter leaves nothing taken.
 *
 * COST about 0.5 µs uncontended; one queue node per wait. NOT DONE here yet: `resize`.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as WaitQueue from "./internal/waitQueue.ts"

/**
 * A counter with a line of waiters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Semaphore {
  readonly permits: number
  /** @internal Guarded by the single thread; written only by this file. */
  free: number
  /** @internal */
  readonly queue: WaitQueue.WaitQueue
}

/**
 * Makes a part of a masked effect interruptible again.
 *
 * @category models
 * @since 0.1.0
 */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * A semaphore of `permits` permits, all free. Misuse (not a positive whole number) throws a `RangeError`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (permits: number): Semaphore => {
  if (!Number.isSafeInteger(permits) || permits < 1) {
    throw new RangeError(`A semaphore needs a whole number of permits, 1 or more; got ${permits}.`)
  }
  return { permits, free: permits, queue: WaitQueue.make() }
}

/**
 * A semaphore of `permits` permits, all free.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (permits: number): Effect.Effect<Semaphore> =>
  Effect.sync(() => unsafeMake(permits))

/**
 * What is free and who waits, exact at this instant.
 *
 * @category getters
 * @since 0.1.0
 */
export const unsafeStats = (
  self: Semaphore
): { readonly permits: number; readonly free: number; readonly waiting: number } => ({
  permits: self.permits,
  free: self.free,
  waiting: self.queue.size
})

/** Serves the line from its head as far as the free permits reach. */
const serve = (self: Semaphore): void => {
  while (self.queue.head !== undefined && self.queue.head.need <= self.free) {
    self.free -= self.queue.head.need
    WaitQueue.grantHead(self.queue)
  }
}

const check = (self: Semaphore, permits: number): void => {
  if (!Number.isSafeInteger(permits) || permits < 1 || permits > self.permits) {
    throw new RangeError(
      `Semaphore-1: asked for ${permits} permits of a semaphore of ${self.permits}; this could never be served.`
    )
  }
}

/**
 * Takes permits if they are free and nobody waits before; never waits. What it took must be given to `unsafeRelease`.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeTryTake = (self: Semaphore, permits: number): boolean => {
  check(self, permits)
  // A newcomer never passes a waiter (Semaphore-2).
  if (self.queue.size > 0 || self.free < permits) return false
  self.free -= permits
  return true
}

/**
 * Gives permits back; the waiters they can serve are granted in this very step.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeRelease = (self: Semaphore, permits: number): void => {
  self.free += permits
  if (self.free > self.permits) {
    throw new RangeError(
      `Semaphore-1 broken: ${self.free} permits free of ${self.permits}; one was released twice.`
    )
  }
  serve(self)
}

/**
 * Takes permits, waiting in line if need be. For building brackets: call it inside `Effect.uninterruptibleMask` and pass
 * that `restore`; only the wait is interruptible, and when it returns the permits are yours in the same masked step. Do NOT
 * wrap the call itself in `restore`: the interrupt could then fall between the grant and your bracket.
 *
 * **Interruption** — Waiting: the place in line is given up, or a grant just received is given on; nothing is taken.
 * **Errors** — none; asking for more than the semaphore has is a `RangeError` defect. **Cost** — none uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const takeInMask = (
  self: Semaphore,
  permits: number,
  restore: Restore
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (unsafeTryTake(self, permits)) return Effect.void
    return WaitQueue.waitInMask(self.queue, permits, restore, (wasGranted) => {
      if (wasGranted) self.free += permits
      serve(self)
    })
  })

/**
 * Runs an effect while holding `permits` permits.
 *
 * **Interruption** — Waiting: leaves the line, nothing is taken. Holding: the effect is cut and the permits go to the next
 *   in line. **Errors** — the effect's own. **Cost** — about 0.5 µs uncontended.
 *
 * **Example** (two at a time)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel, Semaphore } from "holdfast"
 *
 * const two = Semaphore.unsafeMake(2)
 * let inside = 0
 * let most = 0
 * const visit = Effect.gen(function*() {
 *   most = Math.max(most, ++inside)
 *   yield* Effect.yieldNow()
 *   inside--
 * })
 * const visits = Array.from({ length: 10 }, () => Semaphore.withPermits(two, 1)(visit))
 * await Effect.runPromise(Parallel.all(visits, { concurrency: 10, discard: true }))
 * most // => 2
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withPermits =
  (self: Semaphore, permits: number) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    // MASK: from the grant to the release; the wait and the effect are restored.
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(takeInMask(self, permits, restore), () =>
        Effect.matchCauseEffect(restore(effect), {
          onFailure: (cause) => {
            unsafeRelease(self, permits)
            return Effect.failCause(cause)
          },
          onSuccess: (value) => {
            unsafeRelease(self, permits)
            return Effect.succeed(value)
          }
        }))
    )

/**
 * `withPermits` of one permit.
 *
 * @category operations
 * @since 0.1.0
 */
export const withPermit = (self: Semaphore) => withPermits(self, 1)
