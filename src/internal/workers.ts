/**
 * workers: a fixed number of fibers that share one supply of work and one lifetime.
 *
 * DESIGN. The workers are daemon fibers joined by hand. Daemons, because Effect sends a parent's interrupt to its children at
 * once, even while the parent is inside an uninterruptible region, which would make a drain impossible. By hand, because
 * `Effect.forEach`/`all` return while a sibling still runs after a failure, and can hang when they are interrupted just
 * after their fork. Here the caller returns in exactly one place: when no worker is alive.
 *
 * INVARIANTS
 * - Workers-1 (L10) When `run` returns, by success, failure, defect or interruption, no worker fiber is alive.
 * - Workers-2 After the first failure, and after `stop`, no new item starts: `crew.stopped` is set in the same step.
 * - Workers-3 (L5) The cause holds every failure that is not an interruption of our own making.
 * - Workers-4 An interrupted caller always returns, however unlucky the moment: nothing but `settled` is waited for, and the
 *   last worker's observer ends it.
 *
 * - Workers-5 Cutting costs O(workers), however many of them fail; a worker that is forked after the cut, or in between its
 *   fork and its enlistment, is cut too.
 *
 * COST one fork (about 4 µs) per worker, not per item; none once `isDry` says that nothing is left to do.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"

/** The state of one run. `stopped` is what a worker reads before it takes the next item. */
export interface Crew<E> {
  // All guarded by the single thread; written only by this file.
  stopped: boolean
  /** Everyone has been interrupted, and whoever still comes is. */
  isCut: boolean
  /** The caller of `run` was interrupted while it waited. */
  wasInterrupted: boolean
  alive: number
  readonly causes: Array<Cause.Cause<E>>
  readonly fibers: Array<Fiber.RuntimeFiber<void, E>>
  wake: (() => void) | undefined
  owner: FiberId.FiberId
}

export const makeCrew = <E>(): Crew<E> => ({
  stopped: false,
  isCut: false,
  wasInterrupted: false,
  alive: 0,
  causes: [],
  fibers: [],
  wake: undefined,
  owner: FiberId.none
})

/** No new item starts; what runs may go on. */
export const stop = <E>(crew: Crew<E>): void => {
  crew.stopped = true
}

/** No new item starts and every running one is interrupted. Does not wait. */
export const cut = <E>(crew: Crew<E>): void => {
  crew.stopped = true
  // Each of n workers that fails cuts: without this, n² interrupts.
  if (crew.isCut) return
  crew.isCut = true
  for (const fiber of crew.fibers) fiber.unsafeInterruptAsFork(crew.owner)
}

/** After `run` has failed: whether its caller was interrupted, while it waited or before it could begin. */
export const wasInterrupted = <E>(crew: Crew<E>): boolean =>
  crew.wasInterrupted || crew.owner === FiberId.none

/** Something beside the workers has failed: they are cut, and the run fails with this too. */
export const fail = <E>(crew: Crew<E>, cause: Cause.Cause<E>): void => {
  crew.causes.push(cause)
  cut(crew)
}

const settled = <E>(crew: Crew<E>): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (crew.alive === 0) resume(Effect.void)
    else crew.wake = () => resume(Effect.void)
  })

const enlist = <E>(crew: Crew<E>, fiber: Fiber.RuntimeFiber<void, E>): void => {
  crew.fibers.push(fiber)
  fiber.addObserver((exit) => {
    if (Exit.isFailure(exit)) {
      // An interruption after `stopped` is our own; anything else is news.
      if (!crew.stopped || !Cause.isInterruptedOnly(exit.cause)) crew.causes.push(exit.cause)
      cut(crew)
    }
    if (--crew.alive === 0) crew.wake?.()
  })
  // It may have run, and the crew been cut, between its fork and here.
  if (crew.isCut) fiber.unsafeInterruptAsFork(crew.owner)
}

const forkAll = <E, R>(
  crew: Crew<E>,
  { count, isDry, worker }: Options<E, R>
): Effect.Effect<void, never, R> => {
  let index = 0
  return Effect.whileLoop({
    while: () => index < count && !crew.stopped && isDry?.() !== true,
    body: () => {
      crew.alive++
      return Effect.forkDaemon(worker(index++))
    },
    step: (fiber) => enlist(crew, fiber)
  })
}

/** `isDry` says that a further worker would find nothing to do. */
interface Options<E, R> {
  readonly count: number
  readonly worker: (index: number) => Effect.Effect<void, E, R>
  readonly isDry?: (() => boolean) | undefined
  readonly onInterrupted?: Effect.Effect<unknown> | undefined
}

/** Every concurrent failure, first one first; `undefined` if there was none. */
const allCauses = <E>(crew: Crew<E>): Cause.Cause<E> | undefined =>
  crew.causes.length === 0 ? undefined : crew.causes.reduce(Cause.parallel)

/**
 * Runs `worker` in `count` fibers and returns when all have ended. A failing worker cuts the others; an interrupted caller
 * runs `onInterrupted` (which may let them finish for a while), then cuts them, and both wait for the last to end.
 */
export const run = <E, R>(
  crew: Crew<E>,
  options: Options<E, R>
): Effect.Effect<void, E, R> =>
  // MASK: between the first fork and the last worker's end the caller must stay; only the wait is restored, and the workers
  // are as interruptible as the caller was.
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      crew.owner = yield* Effect.fiberId
      yield* forkAll(crew, { ...options, worker: (index) => restore(options.worker(index)) })
      const waited = yield* Effect.exit(restore(settled(crew)))
      if (Exit.isFailure(waited)) {
        crew.stopped = true
        crew.wasInterrupted = true
        if (options.onInterrupted !== undefined) yield* options.onInterrupted
        cut(crew)
        yield* settled(crew)
      }
      const failed = allCauses(crew)
      if (Exit.isFailure(waited)) {
        return yield* Effect.failCause(
          failed === undefined ? waited.cause : Cause.parallel(waited.cause, failed)
        )
      }
      if (failed !== undefined) return yield* Effect.failCause(failed)
    })
  )

/** As a join does: what the workers left in FiberRefs comes to the caller. After the run. */
export const inherit = <E>(crew: Crew<E>): Effect.Effect<void> =>
  Effect.forEach(crew.fibers, (fiber) => fiber.inheritAll, { discard: true })

/** Waits for the workers to end. For a grace period: bound it from outside. */
export const awaitEnd = <E>(crew: Crew<E>): Effect.Effect<void> => settled(crew)
