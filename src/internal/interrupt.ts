/**
 * interrupt: interrupts a fiber where it waits.
 *
 * DESIGN. Stock operators that are interrupted while they compute, at a yield of the run loop, can hang for ever or leak
 * (`Effect.all`, `forEach`, `Layer.mergeAll`, `race`, `withEarlyRelease`); where they wait, none does. So the fiber is asked, in a
 * step of its own, whether it is suspended, and is asked again in a later turn of its scheduler if it is not.
 *
 * INVARIANTS
 * - Interrupt-1 The fiber is interrupted once: before its first step, in a step in which it waits, or after `mostLooks` looks that
 *   found it computing.
 *
 * COST one message where the fiber waits already; one task of the scheduler per further look.
 */
import type * as FiberId from "effect/FiberId"
import { type AnyFiber, askIfWaiting, isUnstarted } from "./runtime.ts"

/** A fiber that computes yields about every 2,048 operations: these are some hundred milliseconds of computing. */
const mostLooks = 100

/** Interrupts the fiber where it waits, and returns at once. */
export const atWait = (fiber: AnyFiber, by: FiberId.FiberId): void => {
  let looks = 0
  const look = (): void => {
    if (fiber.unsafePoll() !== null) return
    const isAsked = ++looks <= mostLooks && !isUnstarted(fiber) &&
      askIfWaiting(fiber, (isWaiting) => {
        if (isWaiting) fiber.unsafeInterruptAsFork(by)
        else fiber.currentScheduler.scheduleTask(look, 0, fiber)
      })
    if (!isAsked) fiber.unsafeInterruptAsFork(by)
  }
  look()
}
