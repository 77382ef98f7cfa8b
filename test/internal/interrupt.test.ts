import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as Interrupt from "../../src/internal/interrupt.ts"
import { runVirtually } from "../support/virtualTime.ts"

const compute = (operations: number, step: () => void): Effect.Effect<void> => {
  let left = operations
  return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step })
}

/** Interrupts a program before one of its tasks, and gives its exit and the operations that it has computed. */
const interruptBefore = (task: number, make: (step: () => void) => Effect.Effect<unknown>) => {
  let steps = 0
  let interrupt = () => {}
  const fiber = runVirtually(
    (run, scheduler) => {
      const program = Effect.suspend(() => make(() => steps++))
      const fiber = Effect.runFork(run(program), { scheduler, immediate: false })
      // Another fiber, so that there is a second task when the first fiber waits.
      Effect.runFork(run(Effect.void), { scheduler, immediate: false })
      interrupt = () => Interrupt.atWait(fiber, fiber.id())
      return fiber
    },
    1000,
    (number) => {
      if (number === task) interrupt()
    }
  )
  return { exit: fiber.unsafePoll(), steps }
}

const isInterrupted = (exit: Exit.Exit<unknown, unknown> | null) =>
  exit !== null && Exit.isInterrupted(exit)

describe("interrupt", () => {
  it("Interrupt-1: a fiber that computes is interrupted where it waits next", () => {
    const { exit, steps } = interruptBefore(
      2,
      (step) => Effect.zipRight(compute(10_000, step), Effect.never)
    )
    expect(steps).toBe(10_000)
    expect(isInterrupted(exit)).toBe(true)
  })

  it("Interrupt-1: one that waits is interrupted at once, one that has not begun never begins", () => {
    const waiting = interruptBefore(
      2,
      (step) => Effect.zipRight(Effect.zipRight(compute(3, step), Effect.never), compute(3, step))
    )
    expect([waiting.steps, isInterrupted(waiting.exit)]).toEqual([3, true])
    const unstarted = interruptBefore(1, (step) => compute(3, step))
    expect([unstarted.steps, isInterrupted(unstarted.exit)]).toEqual([0, true])
  })

  it("Interrupt-1: one that never waits is interrupted after a hundred looks", () => {
    const { exit, steps } = interruptBefore(2, (step) => compute(10_000_000, step))
    expect(isInterrupted(exit)).toBe(true)
    expect(steps).toBeGreaterThan(50 * 2048)
    expect(steps).toBeLessThan(500 * 2048)
  })

  it("Interrupt-1: one that ends by itself is left alone", () => {
    const { exit } = interruptBefore(2, (step) => compute(10_000, step))
    expect(exit).toEqual(Exit.void)
  })
})
