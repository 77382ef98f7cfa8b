import { expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Explore } from "holdfast/Testing"
import * as Registration from "../../src/internal/registration.ts"

type Wake = (effect: Effect.Effect<string>) => void

const fail: ReadonlyArray<Explore.Grade> = ["R0", "R1", "R2", "R3", "R4"]

/** A wait in a set of those to be woken, which a child wakes. */
const explored = (wait: (waiting: Set<Wake>) => Effect.Effect<string>) =>
  Explore.interruptions({
    name: "wait",
    setup: Effect.sync(() => new Set<Wake>()),
    body: (waiting) =>
      Effect.gen(function*() {
        yield* Effect.forkScoped(
          Effect.zipRight(
            Effect.sleep(1),
            Effect.sync(() => {
              for (const wake of waiting) if (waiting.delete(wake)) wake(Effect.succeed("woken"))
            })
          )
        )
        return yield* wait(waiting)
      }),
    invariant: (waiting) => waiting.size === 0
  }, { fail })

const register = (waiting: Set<Wake>) => (wake: Wake) => {
  waiting.add(wake)
  return () => void waiting.delete(wake)
}

it("Registration-1: an interrupt at any operation takes away what was registered", async () => {
  const verdict = await explored((waiting) => Registration.wait(register(waiting)))
  expect(verdict.status, Explore.format(verdict)).toBe("safe")
})

it("stock `Effect.async` leaves it behind, for two operations", async () => {
  const verdict = await explored((waiting) =>
    Effect.async<string>((wake) => {
      const leave = register(waiting)(wake)
      return Effect.sync(leave)
    })
  )
  expect(verdict.findings.flatMap(({ grade, ranges }) => [grade, ranges.length])).toContain("R1")
})

it.effect("a wait ends as its waker says, and one that is woken at once never waits", () =>
  Effect.gen(function*() {
    let left = 0
    const at = (wake: (effect: Effect.Effect<number, string>) => void) => {
      wake(Effect.fail("no"))
      return () => void left++
    }
    expect(yield* Effect.exit(Registration.wait(at))).toEqual(Exit.fail("no"))
    const waiting = yield* Effect.fork(Registration.wait<never>(() => () => void left++))
    yield* Effect.yieldNow()
    yield* Fiber.interrupt(waiting)
    expect(left).toBe(1)
  }))
