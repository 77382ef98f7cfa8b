import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import * as Workers from "../../src/internal/workers.ts"

/** Four workers that count how many of them live, and end as `body` does. */
const groupOf = (body: (index: number) => Effect.Effect<void, string>) => {
  const group = Workers.makeGroup<string>()
  const living = { now: 0 }
  const run = Workers.run(group, {
    count: 4,
    worker: (index) =>
      Effect.acquireUseRelease(
        Effect.sync(() => living.now++),
        () => body(index),
        () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => living.now--))
      )
  })
  return { group, living, run }
}

describe("workers", () => {
  it.effect("Workers-1: no worker is alive when it returns, however it ends", () =>
    Effect.gen(function*() {
      const endings: Record<string, (index: number) => Effect.Effect<void, string>> = {
        success: () => Effect.yieldNow(),
        failure: (i) => i === 2 ? Effect.fail("no") : Effect.never,
        defect: (i) => i === 0 ? Effect.die("bug") : Effect.never,
        selfInterruption: (i) => i === 1 ? Effect.interrupt : Effect.never
      }
      for (const [how, body] of Object.entries(endings)) {
        const { living, run } = groupOf(body)
        const exit = yield* Effect.exit(run)
        expect([how, Exit.isSuccess(exit), living.now]).toEqual([how, how === "success", 0])
      }
    }))

  it.effect("Workers-1 Workers-4: interrupted at every offset it returns, and no worker is alive", () =>
    Effect.gen(function*() {
      for (let offset = 0; offset < 40; offset++) {
        const { living, run } = groupOf(() => Effect.forever(Effect.yieldNow()))
        const fiber = yield* Effect.fork(run)
        for (let i = 0; i < offset; i++) yield* Effect.yieldNow()
        const exit = yield* Fiber.interrupt(fiber)
        expect([offset, Exit.isInterrupted(exit), living.now]).toEqual([offset, true, 0])
      }
    }))

  it.effect("Workers-2: the first failure sets `stopped` in the same step", () =>
    Effect.gen(function*() {
      const started: Array<number> = []
      const group = Workers.makeGroup<string>()
      let next = 0
      yield* Effect.exit(Workers.run(group, {
        count: 3,
        worker: () =>
          Effect.whileLoop({
            while: () => !group.stopped,
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

  it.effect("Workers-3: the cause has all failures of the moment, and none of our own interruptions", () =>
    Effect.gen(function*() {
      const { run } = groupOf((i) =>
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

  it("Workers-5: interrupting thousands of workers takes linear time", async () => {
    const group = Workers.makeGroup<string>()
    let asked = 0
    const counted = (fiber: Fiber.RuntimeFiber<unknown, string>) => {
      const interrupt = fiber.unsafeInterruptAsFork.bind(fiber)
      fiber.unsafeInterruptAsFork = (by) => {
        asked++
        interrupt(by)
      }
    }
    const add = group.fibers.add.bind(group.fibers)
    group.fibers.add = (fiber) => {
      counted(fiber)
      return add(fiber)
    }
    await Effect.runPromiseExit(Workers.run(group, {
      count: 2000,
      worker: (i) => i === 1999 ? Effect.fail("one") : Effect.never
    }))
    expect(asked).toBeLessThanOrEqual(2000)
  })

  it("Workers-5: a worker that is forked just as another fails is interrupted too, at every budget of the scheduler", async () => {
    for (let ops = 12; ops < 90; ops++) {
      for (let failing = 0; failing < 4; failing++) {
        const run = Workers.run(Workers.makeGroup<string>(), {
          count: 6,
          worker: (i) =>
            i === failing
              ? Effect.zipRight(Effect.yieldNow(), Effect.fail("no"))
              : Effect.never
        })
        const ended = { yes: false }
        void Effect.runPromiseExit(Effect.withMaxOpsBeforeYield(run, ops)).then(() => {
          ended.yes = true
        })
        // Turns of the loop, not time: nothing here waits for a clock.
        for (let turn = 0; turn < 200 && !ended.yes; turn++) {
          await new Promise((resolve) => setImmediate(resolve))
        }
        expect([ops, failing, ended.yes]).toEqual([ops, failing, true])
      }
    }
  })

  it.effect("forks no worker once there is no work", () =>
    Effect.gen(function*() {
      let left = 3
      const group = Workers.makeGroup<never>()
      yield* Workers.run(group, {
        count: 1_000_000,
        hasWork: () => left > 0,
        worker: () =>
          Effect.whileLoop({
            while: () => left > 0,
            body: () => Effect.sync(() => left--),
            step: () => {}
          })
      })
      expect(group.ended.length).toBeLessThan(10_000)
    }))
})
