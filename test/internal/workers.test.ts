import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import * as Workers from "../../src/internal/workers.ts"

/** Four workers that tell how many of them live, and end as `body` does. */
const crewOf = (body: (index: number) => Effect.Effect<void, string>) => {
  const crew = Workers.makeCrew<string>()
  const living = { now: 0 }
  const run = Workers.run(crew, {
    count: 4,
    worker: (index) =>
      Effect.acquireUseRelease(
        Effect.sync(() => living.now++),
        () => body(index),
        () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => living.now--))
      )
  })
  return { crew, living, run }
}

describe("workers", () => {
  it.effect("Workers-1: nobody is alive when it returns, however it ends", () =>
    Effect.gen(function*() {
      const endings: Record<string, (index: number) => Effect.Effect<void, string>> = {
        success: () => Effect.yieldNow(),
        failure: (i) => i === 2 ? Effect.fail("no") : Effect.never,
        defect: (i) => i === 0 ? Effect.die("bug") : Effect.never,
        selfInterruption: (i) => i === 1 ? Effect.interrupt : Effect.never
      }
      for (const [how, body] of Object.entries(endings)) {
        const { living, run } = crewOf(body)
        const exit = yield* Effect.exit(run)
        expect([how, Exit.isSuccess(exit), living.now]).toEqual([how, how === "success", 0])
      }
    }))

  it.effect("Workers-1 Workers-4: interrupted at every offset it returns, and nobody is alive", () =>
    Effect.gen(function*() {
      for (let offset = 0; offset < 40; offset++) {
        const { living, run } = crewOf(() => Effect.forever(Effect.yieldNow()))
        const fiber = yield* Effect.fork(run)
        for (let i = 0; i < offset; i++) yield* Effect.yieldNow()
        const exit = yield* Fiber.interrupt(fiber)
        expect([offset, Exit.isInterrupted(exit), living.now]).toEqual([offset, true, 0])
      }
    }))

  it.effect("Workers-2: the first failure sets `stopped` in the same step", () =>
    Effect.gen(function*() {
      const started: Array<number> = []
      const crew = Workers.makeCrew<string>()
      let next = 0
      yield* Effect.exit(Workers.run(crew, {
        count: 3,
        worker: () =>
          Effect.whileLoop({
            while: () => !crew.stopped,
            body: () => {
              started.push(next++)
              return next === 5 ? Effect.fail("stop") : Effect.yieldNow()
            },
            step: () => {}
          })
      }))
      const atFailure = started.length
      yield* Effect.yieldNow()
      expect(started.length).toBe(atFailure)
      expect(atFailure).toBeLessThanOrEqual(7)
    }))

  it.effect("Workers-3: all failures of the moment are kept, our own interruptions are not", () =>
    Effect.gen(function*() {
      const { run } = crewOf((i) =>
        i === 0
          ? Effect.fail("first")
          : i === 1
          ? Effect.onInterrupt(Effect.never, () => Effect.die("on the way out"))
          : Effect.never
      )
      const exit = yield* Effect.exit(run)
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["first"])
      expect(Array.from(Cause.defects(exit.cause))).toEqual(["on the way out"])
    }))
})
