import { describe, expect } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Semaphore } from "holdfast"
import { it } from "holdfast/Testing/Vitest"
import { makeHandOff } from "../seeds/handOff.ts"

describe("it.interruptSafe", () => {
  it.interruptSafe("a body alone", (probe) => probe.resource("r"))

  it.interruptSafe("a whole subject", {
    setup: Semaphore.make(1),
    body: (semaphore) => Semaphore.withPermit(semaphore)(Effect.yieldNow()),
    invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1,
    faults: "all",
    mode: "quick",
    fail: ["R0", "R1", "R2", "R3", "R4"]
  })
})

describe("it.interleave", () => {
  it.interleave("one at a time", {
    setup: Effect.sync(() => makeHandOff()),
    body: ({ withPermit }) =>
      Effect.gen(function*() {
        let count = 0
        const increment = withPermit(Effect.gen(function*() {
          const seen = count
          yield* Effect.yieldNow()
          count = seen + 1
        }))
        const fibers = [yield* Effect.fork(increment), yield* Effect.fork(increment)]
        for (const fiber of fibers) yield* Fiber.join(fiber)
        return count
      }),
    delays: 1,
    check: (exit) => Exit.isSuccess(exit) && exit.value === 2
  })
})

it.effect("the rest is the `it` of @effect/vitest", () => Effect.sync(() => expect(1).toBe(1)))
