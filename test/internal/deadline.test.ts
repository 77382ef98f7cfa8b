import { describe, expect, it } from "@effect/vitest"
import { Duration, Effect, Either, Exit, Fiber, FiberRef, Option, TestClock } from "effect"
import {
  Budget,
  BudgetInForce,
  callerOf,
  exitWithin,
  isBounded,
  millisOf,
  outcomeWithin
} from "../../src/internal/deadline.ts"
import { isInstant } from "../../src/internal/runtime.ts"

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

  /** A budget, and how to begin it now. */
  const budgetOf = Effect.map(Effect.clock, (clock) => {
    const budget = new Budget()
    const begin = (seconds: number) =>
      Effect.sync(() =>
        budget.begin({ by: millisOf(clock) + seconds * 1000, now: () => millisOf(clock) })
      )
    const inIt = Effect.provideService(BudgetInForce, budget)
    return { budget, begin, inIt }
  })

  it.effect("Deadline-4: within a budget that has begun, four fifths of what is left, or the deadline", () =>
    Effect.gen(function*() {
      const { begin, budget, inIt } = yield* budgetOf
      yield* begin(10)
      for (
        const [deadline, waited] of [
          ["1 minute", 8000], // of 10 s
          [Infinity, 1600], // of 2 s
          ["100 millis", 100] // of 400 ms
        ] as const
      ) {
        const fiber = yield* Effect.fork(
          inIt(outcomeWithin(Effect.never, Duration.decode(deadline)))
        )
        yield* TestClock.adjust(Duration.millis(waited - 1))
        expect(fiber.unsafePoll()).toBe(null)
        yield* TestClock.adjust("1 millis")
        expect(yield* Fiber.join(fiber)).toEqual(Either.left(Duration.millis(waited)))
      }
      expect(budget.waiting.size).toBe(0)
    }))

  it.effect("Deadline-4: what has begun before is held to it from then on, elsewhere nothing is", () =>
    Effect.gen(function*() {
      const { begin, budget, inIt } = yield* budgetOf
      const minute = Duration.minutes(1)
      const [inside, slow, outside] = yield* Effect.all([
        Effect.fork(inIt(outcomeWithin(Effect.never, minute))),
        Effect.fork(inIt(outcomeWithin(Effect.sleep("30 seconds"), minute))),
        Effect.fork(outcomeWithin(Effect.never, minute))
      ])
      yield* TestClock.adjust("23 seconds")
      yield* begin(10)
      yield* TestClock.adjust("8 seconds")
      expect(yield* Fiber.join(inside)).toEqual(Either.left(Duration.seconds(31)))
      expect(yield* Fiber.join(slow)).toEqual(Either.right(Exit.void))
      expect(outside.unsafePoll()).toBe(null)
      expect(budget.waiting.size).toBe(0)
      budget.end()
      yield* TestClock.adjust("29 seconds")
      expect(yield* Fiber.join(outside)).toEqual(Either.left(minute))
    }))

  for (const when of ["before", "after"] as const) {
    it.effect(`Deadline-4: work inside of work is ended first, begun ${when} the budget, and the outer goes on`, () =>
      Effect.gen(function*() {
        const { begin, inIt } = yield* budgetOf
        const nested = (left: number): Effect.Effect<ReadonlyArray<number>> =>
          left === 0
            ? Effect.never
            : Effect.map(outcomeWithin(nested(left - 1), Duration.infinity), (outcome) =>
              Either.isLeft(outcome)
                ? [Duration.toMillis(outcome.left)]
                : Exit.isSuccess(outcome.right)
                ? [...outcome.right.value, left]
                : [])
        if (when === "after") yield* begin(10)
        const fiber = yield* Effect.fork(inIt(nested(3)))
        yield* Effect.yieldNow()
        if (when === "before") yield* begin(10)
        yield* TestClock.adjust(Duration.millis(7900)) // 10 s x 0.8 - 50 ms - 50 ms
        expect(yield* Fiber.join(fiber)).toEqual([7900, 2, 3])
      }))

    it.effect(`Deadline-4: ten deep there is still half of it, begun ${when} the budget; of a little each leaves a fifth`, () =>
      Effect.gen(function*() {
        for (const [seconds, ends] of [[3, 1900], [0.1, 40.96]] as const) {
          const { begin, inIt } = yield* budgetOf
          const nested = (left: number): Effect.Effect<unknown> =>
            left === 0
              ? Effect.never
              : Effect.map(outcomeWithin(nested(left - 1), Duration.infinity), (outcome) =>
                Either.isLeft(outcome) ? Duration.toMillis(outcome.left) : outcome.right)
          const fiber = yield* Effect.fork(inIt(nested(seconds === 3 ? 11 : 4)))
          if (when === "after") yield* begin(seconds)
          yield* Effect.yieldNow()
          if (when === "before") yield* begin(seconds)
          yield* TestClock.adjust(Duration.millis(ends - 1))
          expect(fiber.unsafePoll()).toBe(null)
          yield* TestClock.adjust(Duration.millis(2))
          yield* Fiber.join(fiber)
        }
      }))
  }

  it.effect("says which fibers are its own, and which of them nobody waits for", () =>
    Effect.gen(function*() {
      const before = new Set(Fiber.unsafeRoots())
      const fresh = () => Fiber.unsafeRoots().filter((root) => !before.has(root))
      const stuck = Effect.uninterruptible(Effect.never)
      const fiber = yield* Effect.fork(exitWithin(stuck, second))
      yield* Effect.yieldNow()
      expect(fresh().map(isBounded)).toEqual([true, true])
      expect(fresh().map(callerOf).filter((caller) => caller !== undefined)).toEqual([fiber])
      yield* TestClock.adjust(second)
      yield* Fiber.join(fiber)
      yield* Effect.yieldNow()
      expect(fresh().map(isBounded)).toEqual([true])
      expect(fresh().map(callerOf)).toEqual([undefined])
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
