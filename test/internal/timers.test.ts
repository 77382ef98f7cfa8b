import { describe, expect, it } from "@effect/vitest"
import { type Clock, Duration, Effect, Fiber, TestClock, TestContext } from "effect"
import * as fc from "effect/FastCheck"
import * as Deadline from "../../src/internal/deadline.ts"
import { currentFiber } from "../../src/internal/runtime.ts"
import * as Timers from "../../src/internal/timers.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 4)

/** The fibers that sleep for timers, and whether they still do. */
const sleepers = () => Fiber.unsafeRoots().filter(Timers.isSleeper)

const makeTimers = Effect.map(Effect.clock, (clock) => {
  const timers = Timers.make(clock)
  const log: Array<string> = []
  const start = (name: string, millis: number) =>
    Effect.sync(() => Timers.start(timers, millis, currentFiber()!, () => log.push(name)))
  return { timers, log, start }
})

describe("timers", () => {
  it.effect("Timers-1: each runs once, at its deadline, the earliest first; a stopped one never", () =>
    Effect.gen(function*() {
      const { log, start, timers } = yield* makeTimers
      yield* start("30", 30)
      yield* start("10", 10)
      const stopped = yield* start("20", 20)
      yield* start("10 too", 10)
      yield* settle
      yield* TestClock.adjust(9)
      expect(log).toEqual([])
      yield* TestClock.adjust(1)
      expect(log).toEqual(["10", "10 too"])
      Timers.stop(stopped)
      Timers.stop(stopped)
      yield* TestClock.adjust(100)
      expect(log).toEqual(["10", "10 too", "30"])
      expect(timers.heap).toEqual([])
      yield* start("again", 5)
      yield* TestClock.adjust(5)
      expect(log.at(-1)).toBe("again")
    }))

  it.effect("Timers-2: one fiber for all, none when the last has run or is stopped", () =>
    Effect.gen(function*() {
      const { start, timers } = yield* makeTimers
      const many: Array<Timers.Timer> = []
      for (let i = 0; i < 100; i++) many.push(yield* start(String(i), 1_000 + (i % 7)))
      yield* settle
      expect(sleepers()).toEqual([timers.fiber])
      for (const timer of many) Timers.stop(timer)
      expect(timers.heap.length).toBe(0)
      yield* settle
      expect(sleepers()).toEqual([])
      yield* start("late", 10)
      yield* TestClock.adjust(10)
      yield* settle
      expect(sleepers()).toEqual([])
    }))

  it.effect("Timers-2: a stopped timer leaves no fiber though the caller had ended", () =>
    Effect.gen(function*() {
      const { timers } = yield* makeTimers
      const caller = yield* Effect.fork(Effect.sync(() => currentFiber()!))
      const ended = yield* Fiber.join(caller)
      yield* settle
      const timer = Timers.start(timers, 1_000, ended, () => {})
      yield* settle
      expect(sleepers().length).toBe(1)
      Timers.stop(timer)
      yield* settle
      expect(sleepers()).toEqual([])
    }))

  it.effect("Timers-2: somebody else's interrupt of the fiber ends no timer, and a release that waits is not cut", () =>
    Effect.gen(function*() {
      const { log, start, timers } = yield* makeTimers
      yield* start("10", 10)
      yield* settle
      const fiber = timers.fiber!
      expect([Deadline.isBounded(fiber), Deadline.callerOf(fiber)]).toEqual([true, undefined])
      yield* Fiber.interrupt(fiber)
      expect(timers.fiber).not.toBe(fiber)
      yield* TestClock.adjust(10)
      expect(log).toEqual(["10"])
    }))

  it.effect("Timers-1: a clock that fires early, or cannot sleep so long, is slept on again", () =>
    Effect.gen(function*() {
      const clock = yield* Effect.clock
      const sleeps: Array<number> = []
      const early: Clock.Clock = {
        ...clock,
        unsafeCurrentTimeNanos: () => clock.unsafeCurrentTimeNanos(),
        sleep: (duration) => {
          const millis = Duration.toMillis(duration)
          sleeps.push(millis)
          return clock.sleep(Duration.millis(Math.max(1, millis - 1)))
        }
      }
      const log: Array<string> = []
      const timers = Timers.make(early)
      Timers.start(timers, 10, currentFiber()!, () => log.push("10"))
      yield* settle
      yield* TestClock.adjust(9)
      expect(log).toEqual([])
      yield* TestClock.adjust(1)
      expect(log).toEqual(["10"])
      Timers.start(timers, 2 ** 31, currentFiber()!, () => log.push("long"))
      expect(sleeps).toEqual([10, 1, 2 ** 30])
      yield* TestClock.adjust(2 ** 31)
      expect(log).toEqual(["10", "long"])
    }))

  it.effect("Timers-1: a timer may start and stop others while it runs", () =>
    Effect.gen(function*() {
      const { log, start, timers } = yield* makeTimers
      const caller = currentFiber()!
      const victim = yield* start("victim", 11)
      Timers.start(timers, 10, caller, () => {
        log.push("first")
        Timers.stop(victim)
        Timers.start(timers, 10, caller, () => log.push("second"))
      })
      yield* TestClock.adjust(10)
      yield* TestClock.adjust(10)
      expect(log).toEqual(["first", "second"])
    }))

  it("Timers-1: runs what a sorted list would run, whatever is started and stopped", () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.option(fc.nat(30))), {
          maxLength: 30
        }),
        (given) =>
          Effect.runPromise(
            Effect.gen(function*() {
              const timers = Timers.make(yield* Effect.clock)
              const ran: Array<number> = []
              const started = given.map(([millis], index) =>
                Timers.start(timers, millis + 1, currentFiber()!, () => ran.push(index))
              )
              const stopped = new Set(given.flatMap(([, stop]) => stop === null ? [] : [stop]))
              for (const index of stopped) if (index < started.length) Timers.stop(started[index]!)
              yield* settle
              yield* TestClock.adjust(40)
              const left = given.map(([millis], index) => ({ millis, index }))
                .filter(({ index }) => !stopped.has(index))
              expect(ran.map((index) => given[index]![0])).toEqual(
                left.map(({ millis }) => millis).toSorted((a, b) => a - b)
              )
              expect(ran.toSorted((a, b) => a - b)).toEqual(left.map(({ index }) => index))
            }).pipe(Effect.provide(TestContext.TestContext))
          )
      ),
      { numRuns: 30 }
    ))
})
