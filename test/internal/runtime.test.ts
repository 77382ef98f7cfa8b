import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, FiberId, Stream } from "effect"
import { Mutex } from "holdfast"
import * as Pool from "holdfast/Pool"
import { Frame, frames, pushFrame } from "../../src/internal/runtime.ts"
import { withoutFrames } from "./frames.ts"

/** An effect above a frame that counts its runs. */
const counted = () => {
  let runs = 0
  const above = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiberRuntime<A, E, R>((fiber) => {
      pushFrame(fiber, new Frame(() => void runs++))
      return effect
    })
  return { above, runs: () => runs }
}

const exits: Readonly<Record<string, Effect.Effect<number, string>>> = {
  success: Effect.succeed(1),
  "success after a wait": Effect.as(Effect.yieldNow(), 1),
  failure: Effect.fail("no"),
  defect: Effect.die("broken"),
  "a thrown defect": Effect.sync(() => {
    throw new Error("thrown")
  }),
  "an interrupt of its own": Effect.interrupt,
  "a failing finalizer": Effect.ensuring(Effect.fail("no"), Effect.die("broken"))
}

describe("Runtime-1: frames", () => {
  it("this version of Effect runs them", () => {
    expect(frames.areSound).toBe(true)
  })

  for (const [name, effect] of Object.entries(exits)) {
    for (const region of [Effect.interruptible, Effect.uninterruptible]) {
      it.effect(`runs once and leaves the exit and the flags: ${name}, ${region.name}`, () =>
        Effect.gen(function*() {
          const { above, runs } = counted()
          const without = yield* Effect.exit(region(effect))
          const flags = Effect.checkInterruptible(Effect.succeed)
          const both = region(Effect.zip(Effect.exit(above(effect)), flags))
          const [exit, isInterruptible] = yield* both
          expect(exit).toEqual(without)
          expect(isInterruptible).toBe(region === Effect.interruptible)
          expect(runs()).toBe(1)
        }))
    }
  }

  it.effect("an interrupted wait has the same cause as in a mask, and ends once", () =>
    Effect.gen(function*() {
      const { above, runs } = counted()
      const wait = Effect.ensuring(Effect.never, Effect.void)
      const masked = Effect.uninterruptibleMask((restore) =>
        Effect.ensuring(restore(wait), Effect.void)
      )
      const fibers = [yield* Effect.fork(masked), yield* Effect.fork(above(wait))] as const
      yield* Effect.yieldNow()
      for (const fiber of fibers) yield* Fiber.interruptAs(fiber, FiberId.none)
      const [inMask, exit] = [yield* Fiber.await(fibers[0]), yield* Fiber.await(fibers[1])]
      expect(Exit.isInterrupted(exit)).toBe(true)
      expect(exit).toEqual(inMask)
      expect(runs()).toBe(1)
    }))

  it.effect("an interrupt in the step that pushes cuts the effect before it begins", () =>
    Effect.gen(function*() {
      let began = false
      let runs = 0
      const body = Effect.sync(() => {
        began = true
      })
      const fiber = yield* Effect.fork(Effect.withFiberRuntime<void>((self) => {
        pushFrame(self, new Frame(() => void runs++))
        self.unsafeInterruptAsFork(FiberId.none)
        return body
      }))
      expect(Exit.isInterrupted(yield* Fiber.await(fiber))).toBe(true)
      expect([began, runs]).toEqual([false, 1])
    }))

  it.effect("in a masked caller the wait is not cut, and what was granted is used", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      let used = false
      const gate = yield* Deferred.make<void>()
      const holder = yield* Effect.fork(Mutex.withLock(Deferred.await(gate), mutex))
      yield* Effect.yieldNow()
      const waiter = yield* Effect.fork(
        Effect.uninterruptible(Mutex.withLock(
          Effect.sync(() => {
            used = true
          }),
          mutex
        ))
      )
      yield* Effect.yieldNow()
      yield* Fiber.interruptFork(waiter)
      yield* Effect.yieldNow()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(holder)
      yield* Fiber.await(waiter)
      expect(used).toBe(true)
      expect((yield* Mutex.stats(mutex)).locked).toBe(false)
    }))

  it.effect("a stream inside the bracket holds it until its last element", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const seen: Array<boolean> = []
      const body = Stream.runForEach(
        Stream.range(1, 3),
        () => Effect.map(Mutex.stats(mutex), ({ locked }) => void seen.push(locked))
      )
      yield* Mutex.withLock(body, mutex)
      expect(seen).toEqual([true, true, true])
      expect((yield* Mutex.stats(mutex)).locked).toBe(false)
    }))
})

describe("Runtime-1: where this version does not run frames", () => {
  it(
    "each bracket is a mask, and gives back as before",
    withoutFrames(async () => {
      const program = Effect.gen(function*() {
        const mutex = yield* Mutex.make()
        const pool = yield* Pool.make({ acquire: Effect.succeed(1), max: 1 })
        const fail = Mutex.withLock(Pool.use(pool, () => Effect.fail("no")), mutex)
        const exits = yield* Effect.all([Effect.exit(fail), Effect.exit(fail)])
        return { exits, locked: (yield* Mutex.stats(mutex)).locked, stats: yield* Pool.stats(pool) }
      })
      const { exits, locked, stats } = await Effect.runPromise(Effect.scoped(program))
      for (const exit of exits) expect(exit).toEqual(Exit.failCause(Cause.fail("no")))
      expect([locked, stats.used, stats.idle]).toEqual([false, 0, 1])
    })
  )
})
