import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, TestClock } from "effect"
import { Deadline } from "holdfast"

describe("Deadline", () => {
  it.effect("the exit of an effect that ends in time, however it ends", () =>
    Effect.gen(function*() {
      expect(yield* Deadline.exit(Effect.succeed(1), "1 second")).toEqual(
        Option.some(Exit.succeed(1))
      )
      const fails = Effect.zipRight(Effect.yieldNow(), Effect.fail("no"))
      expect(yield* fails.pipe(Deadline.exit("1 second"))).toEqual(Option.some(Exit.fail("no")))
    }))

  it.effect("none at the deadline, in an interrupted and uninterruptible caller too", () =>
    Effect.gen(function*() {
      let answer: unknown
      const stuck = Effect.uninterruptible(Effect.never)
      const fiber = yield* Effect.fork(
        Effect.onInterrupt(
          Effect.never,
          () =>
            Effect.map(Deadline.exit(stuck, "1 second"), (exit) => {
              answer = exit
            })
        )
      )
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("999 millis")
      expect(answer).toBe(undefined)
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(ending)
      expect(answer).toEqual(Option.none())
    }))

  it("a duration that is none is refused", () => {
    for (const duration of [NaN, -1, "soon" as never]) {
      expect(() => Deadline.exit(Effect.never, duration)).toThrow(/`duration` must be a duration/)
    }
  })
})
