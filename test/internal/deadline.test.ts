import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, TestClock } from "effect"
import { exitWithin } from "../../src/internal/deadline.ts"

const second = Duration.seconds(1)

describe("deadline", () => {
  for (
    const [what, work] of [
      ["never", Effect.never],
      ["an uninterruptible never", Effect.uninterruptible(Effect.never)],
      ["a promise that never settles", Effect.promise(() => new Promise(() => {}))],
      [
        "a scope whose release hangs",
        Effect.scoped(Effect.zipRight(Effect.addFinalizer(() => Effect.never), Effect.void))
      ]
    ] as const
  ) {
    it.effect(`Deadline-1: an answer by the deadline, though the work is ${what}`, () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(exitWithin(work, second))
        yield* TestClock.adjust(second)
        expect(yield* Fiber.join(fiber)).toEqual(Option.none())
      }))
  }

  it.effect("Deadline-1: also in a fiber that is interrupted already", () =>
    Effect.gen(function*() {
      let answer: Option.Option<unknown> | undefined
      const fiber = yield* Effect.fork(
        Effect.onInterrupt(
          Effect.never,
          () =>
            Effect.map(exitWithin(Effect.never, second), (exit) => {
              answer = exit
            })
        )
      )
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust(second)
      yield* Fiber.join(ending)
      expect(answer).toEqual(Option.none())
    }))

  it.effect("Deadline-2: the caller's interruption does not cut the work", () =>
    Effect.gen(function*() {
      let done = false
      const work = Effect.zipRight(
        Effect.sleep("900 millis"),
        Effect.sync(() => {
          done = true
        })
      )
      const fiber = yield* Effect.fork(exitWithin(work, second))
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("900 millis")
      yield* Fiber.join(ending)
      expect(done).toBe(true)
    }))

  it.effect("gives the work's own exit, whatever it is, and waits without a bound if asked to", () =>
    Effect.gen(function*() {
      expect(yield* exitWithin(Effect.succeed(1), second)).toEqual(Option.some(Exit.succeed(1)))
      expect(yield* exitWithin(Effect.fail("no"), second)).toEqual(Option.some(Exit.fail("no")))
      expect(yield* exitWithin(Effect.die("bug"), Duration.infinity)).toEqual(
        Option.some(Exit.die("bug"))
      )
    }))
})
