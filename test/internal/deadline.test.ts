import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect, Either, Exit, Fiber, FiberRef, Option, TestClock } from "effect"
import { exitWithin, isInstant, outcomeWithin } from "../../src/internal/deadline.ts"

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

  it.effect("Deadline-2: nor does an interruption that was there before the work", () =>
    Effect.gen(function*() {
      let done = false
      const work = Effect.zipRight(
        Effect.sleep("900 millis"),
        Effect.sync(() => {
          done = true
        })
      )
      const fiber = yield* Effect.fork(
        Effect.onInterrupt(Effect.never, () => exitWithin(work, second))
      )
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("900 millis")
      yield* Fiber.join(ending)
      expect(done).toBe(true)
    }))

  it.effect("Deadline-3: 2,000 inside each other do not fill the stack", () =>
    Effect.gen(function*() {
      const nested = (left: number): Effect.Effect<number> =>
        left === 0
          ? Effect.succeed(0)
          : Effect.flatMap(
            exitWithin(Effect.suspend(() => nested(left - 1)), second),
            (exit) => Effect.map(Option.getOrThrow(exit), (n) => n + 1)
          )
      expect(yield* nested(2_000)).toBe(2_000)
    }))

  it.effect("whether it waits or not, the work has the caller's FiberRefs", () =>
    Effect.gen(function*() {
      const label = FiberRef.unsafeMake("none")
      const seen: Array<string> = []
      const work = Effect.flatMap(
        FiberRef.get(label),
        (value) => Effect.sync(() => seen.push(value))
      )
      yield* Effect.locally(exitWithin(work, second), label, "ours")
      yield* exitWithin(work, second)
      const fiber = yield* Effect.fork(
        Effect.locally(exitWithin(Effect.zipRight(Effect.yieldNow(), work), second), label, "later")
      )
      yield* Fiber.join(fiber)
      expect(seen).toEqual(["ours", "none", "later"])
    }))

  it.effect("says how long it waited in vain", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(outcomeWithin(Effect.never, second))
      yield* TestClock.adjust(second)
      expect(yield* Fiber.join(fiber)).toEqual(Either.left(second))
    }))

  it("work that never waits is over when the call returns", () => {
    const work = Effect.zipRight(Effect.sync(Math.random), Effect.succeed(1))
    expect(Effect.runSync(exitWithin(work, second))).toEqual(Option.some(Exit.succeed(1)))
  })

  it("isInstant: one operation that cannot wait", () => {
    for (const instant of [Effect.void, Effect.fail("no"), Effect.sync(Math.random), Exit.void]) {
      expect(isInstant(instant)).toBe(true)
    }
    for (
      const other of [
        Effect.never,
        Effect.yieldNow(),
        Effect.suspend(() => Effect.void),
        Effect.zipRight(Effect.void, Effect.void)
      ]
    ) expect(isInstant(other)).toBe(false)
  })

  it.effect("gives the work's own exit, whatever it is, and waits without a bound if asked to", () =>
    Effect.gen(function*() {
      expect(yield* exitWithin(Effect.succeed(1), second)).toEqual(Option.some(Exit.succeed(1)))
      expect(yield* exitWithin(Effect.fail("no"), second)).toEqual(Option.some(Exit.fail("no")))
      expect(yield* exitWithin(Effect.die("bug"), Duration.infinity)).toEqual(
        Option.some(Exit.die("bug"))
      )
    }))

  it.effect("Deadline-2: without a bound the caller's interruption does not reach it, nor it the caller", () =>
    Effect.gen(function*() {
      const label = FiberRef.unsafeMake("none")
      const seen: Array<string> = []
      const work = Effect.gen(function*() {
        yield* FiberRef.set(label, "the work's")
        yield* Effect.fork(Effect.onInterrupt(
          Effect.never,
          () => Effect.sync(() => seen.push("child cut"))
        ))
        yield* Effect.interruptible(Effect.sleep("1 hour"))
        seen.push("done")
      })
      const fiber = yield* Effect.fork(
        Effect.onInterrupt(Effect.never, () =>
          Effect.zipRight(
            exitWithin(work, Duration.infinity),
            Effect.map(FiberRef.get(label), (value) => seen.push(value))
          ))
      )
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(ending)
      expect(seen).toEqual(["done", "child cut", "none"])
    }))
})
