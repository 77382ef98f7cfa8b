/**
 * deadline: run something to its end or give up on it after a while, whatever the caller's own state.
 *
 * DESIGN. The work and the timer each run in a daemon fiber of their own and the caller only observes them. Plain
 * `Effect.timeout` cannot do this: inside a release it waits for the uninterruptible work it should bound, and in a fiber
 * that is already interrupted it fires at once. The work runs interruptibly, because the only one who may interrupt it is
 * this file, at the deadline: the caller's interruption never reaches it, so a deadline never skips a good release.
 *
 * INVARIANTS
 * - Deadline-1 The caller gets an answer no later than the deadline, even if the work ignores interruption.
 * - Deadline-2 The work is never cut before its deadline, even if the caller is interrupted meanwhile.
 *
 * COST two forks and a wait for them, about 12 µs. Time is the `Clock`'s, so `TestClock` drives it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

// Guarded by the single thread: added to in the step that forks.
const bounded = new WeakSet<object>()

/** Whether a fiber is work that only its deadline may cut: who interrupts what is left behind (Shutdown.ts) asks. */
export const isBounded = (fiber: object): boolean => bounded.has(fiber)

const observe = <A, E>(
  work: Fiber.RuntimeFiber<A, E>,
  timer: Fiber.RuntimeFiber<void>
): Effect.Effect<Option.Option<Exit.Exit<A, E>>> =>
  Effect.async((resume) => {
    bounded.add(work)
    // Guarded by the single thread: whichever observer runs first decides, the other finds `decided`.
    let decided = false
    work.addObserver((exit) => {
      if (decided) return
      decided = true
      timer.unsafeInterruptAsFork(work.id())
      resume(Effect.succeed(Option.some(exit)))
    })
    timer.addObserver(() => {
      if (decided) return
      decided = true
      work.unsafeInterruptAsFork(timer.id())
      resume(Effect.succeed(Option.none()))
    })
  })

/**
 * The exit of `effect`, or none if it has not ended by `deadline` (it is then interrupted and left behind).
 */
export const exitWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R> => {
  if (!Duration.isFinite(deadline)) {
    return Effect.map(Effect.exit(effect), Option.some)
  }
  // MASK: an interrupt must not part the caller from the work it has to wait for; nothing waits but `observe`, and that
  // ends by the deadline.
  return Effect.uninterruptible(
    Effect.flatMap(
      Effect.forkDaemon(Effect.interruptible(effect)),
      (work) =>
        Effect.flatMap(
          Effect.forkDaemon(Effect.interruptible(Effect.sleep(deadline))),
          (timer) => observe(work, timer)
        )
    )
  )
}
