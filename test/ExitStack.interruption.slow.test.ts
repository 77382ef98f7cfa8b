/** Every way to use a stack, interrupted at every point, without a fault and with each (test/Testing/ours.test.ts: in all orders). */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"
import { Explore } from "holdfast/Testing"
import { exitStacks } from "./seeds/exitStack.ts"

/** Not those that never return: what is masked then waits for ever by contract, or is abandoned by name (ExitStack-4). */
const faults: Explore.Faults = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "release dies",
  "release is slow"
]

/** No limit by the clock: a busy machine looks at every point too. */
const budget = { millis: Infinity }

describe(
  "ExitStack-1, ExitStack-2, ExitStack-5, ExitStack-6, ExitStack-7, ExitStack-8, ExitStack-9, ExitStack-10: interrupted at every point",
  {
    timeout: 120_000
  },
  () => {
    for (const { interruptions, name } of exitStacks) {
      it(`${name}, with each fault`, async () => {
        const verdict = await interruptions({ faults, budget })
        expect(verdict.status, Explore.format(verdict)).toBe("safe")
        expect(verdict.covered).toBe("every point, FIFO order, this input, first use")
      })
    }
  }
)

/** As many yields as any of these closes may need: more is a hang. */
const patience = 400

describe("ExitStack-6, ExitStack-7: a close that yields between any two of its operations", () => {
  it.effect("misses no acquire that ends meanwhile", () =>
    Effect.gen(function*() {
      // Fewer than 14, and a fiber of effect's gets nowhere.
      for (let budget = 14; budget <= 42; budget++) {
        for (let takes = 0; takes <= 8; takes++) {
          for (let headStart = 0; headStart <= 3; headStart++) {
            const label = `budget ${budget}, ${takes} yields, ${headStart} before the close`
            let open = 0
            const slow = Managed.make({
              name: "slow",
              acquire: Effect.zipRight(
                Effect.repeatN(Effect.yieldNow(), takes),
                Effect.sync(() => open++)
              ),
              release: () => Effect.sync(() => open--)
            })
            yield* Effect.scoped(Effect.gen(function*() {
              const stack = yield* ExitStack.make()
              const entering = yield* Effect.fork(Effect.exit(stack.enter(slow)))
              yield* Effect.repeatN(Effect.yieldNow(), headStart)
              const closing = yield* Effect.forkDaemon(
                Effect.withMaxOpsBeforeYield(stack.close(Exit.void), budget)
              )
              for (let i = 0; i < patience && closing.unsafePoll() === null; i++) {
                yield* Effect.yieldNow()
              }
              expect(closing.unsafePoll(), label).not.toBe(null)
              yield* Fiber.join(entering)
              expect(open, label).toBe(0)
            }))
          }
        }
      }
    }))
})
