import { describe, expect, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, TestClock, TestServices } from "effect"
import * as fc from "effect/FastCheck"
import * as Hold from "../../src/internal/hold.ts"
import * as Timers from "../../src/internal/timers.ts"
import * as WaitQueue from "../../src/internal/waitQueue.ts"

/** A line in front of a single good, and what happened there. */
const makeCounter = () => {
  const queue = WaitQueue.make()
  const log: Array<string> = []
  const counter = { queue, log, free: 0, departures: 0 }
  const serve = (): void => {
    while (queue.head !== undefined && counter.free > 0) {
      counter.free--
      WaitQueue.grantHead(queue)
    }
  }
  const giveOn = (wasGranted: boolean): void => {
    counter.departures++
    if (wasGranted) counter.free++
    serve()
  }
  const ask = (name: string) =>
    // MASK: as a primitive would; the wait is restored.
    Effect.uninterruptibleMask((restore) =>
      Effect.tap(
        WaitQueue.waitInMask(queue, 1, restore, giveOn),
        () => log.push(name)
      )
    )
  const give = (): void => {
    counter.free++
    serve()
  }
  return { counter, serve, giveOn, ask, give }
}

const settle = Effect.repeatN(Effect.yieldNow(), 4)

describe("waitQueue", () => {
  it.effect("WaitQueue-1: only the head is granted; granting nobody is a defect by name", () =>
    Effect.gen(function*() {
      const { ask, counter, give } = makeCounter()
      for (const name of ["a", "b", "c"]) yield* Effect.fork(ask(name))
      yield* settle
      for (let i = 0; i < 3; i++) give()
      yield* settle
      expect(counter.log).toEqual(["a", "b", "c"])
      expect(() => WaitQueue.grantHead(counter.queue)).toThrow("WaitQueue-1 broken")
    }))

  it.effect("WaitQueue-2: granted and interrupted before it ran, it gives the grant on in the same step", () =>
    Effect.gen(function*() {
      const { ask, counter, give } = makeCounter()
      const first = yield* Effect.fork(ask("first"))
      yield* Effect.fork(ask("second"))
      yield* settle
      give()
      yield* Fiber.interrupt(first)
      yield* settle
      expect(counter.log).toEqual(["second"])
      expect([counter.free, counter.queue.size]).toEqual([0, 0])
    }))

  it.effect("WaitQueue-3: who is interrupted, late or refused leaves at once, from any place in the line", () =>
    Effect.gen(function*() {
      const { ask, counter, give, giveOn } = makeCounter()
      const names = ["a", "b", "c", "d"]
      const fibers = yield* Effect.forEach(names, (name) => Effect.fork(ask(name)))
      const late = yield* Effect.fork(
        Effect.uninterruptibleMask((restore) =>
          WaitQueue.waitInMask(counter.queue, 2, restore, giveOn, undefined, {
            bound: { atMost: Duration.seconds(1), late: () => Cause.fail("late" as const) }
          })
        )
      )
      yield* settle
      yield* Fiber.interrupt(fibers[1]!)
      yield* Fiber.interrupt(fibers[0]!)
      expect(counter.queue.size).toBe(3)
      yield* TestClock.adjust("1 second")
      expect(yield* Effect.flip(Fiber.join(late))).toBe("late")
      expect(counter.queue.size).toBe(2)
      WaitQueue.refuse(counter.queue, () => Cause.die("refused"))
      expect(counter.queue.size).toBe(0)
      expect(yield* Fiber.await(fibers[3]!)).toEqual(Exit.die("refused"))
      give()
      expect(counter.free).toBe(1)
    }))

  it.effect("WaitQueue-3: a grant and the bound in one instant are one outcome", () =>
    Effect.gen(function*() {
      const { counter, give, giveOn } = makeCounter()
      let refusals = 0
      const waiter = yield* Effect.fork(
        Effect.uninterruptibleMask((restore) =>
          WaitQueue.waitInMask(counter.queue, 1, restore, giveOn, undefined, {
            bound: {
              atMost: Duration.seconds(1),
              late: () => {
                refusals++
                return Cause.fail("late" as const)
              }
            }
          })
        )
      )
      yield* settle
      give()
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waiter)
      expect([refusals, counter.free]).toEqual([0, 0])
    }))

  it.effect("WaitQueue-4: so many wake-ups as grants and departures, also in a long line (S3)", () =>
    Effect.gen(function*() {
      const { ask, counter, give } = makeCounter()
      const fibers = yield* Effect.forEach(
        Array.from({ length: 1_000 }, (_, index) => index),
        (index) => Effect.fork(ask(String(index)))
      )
      yield* settle
      let wakeUps = 0
      for (let { head } = counter.queue; head !== undefined; head = head.next) {
        const { resume } = head
        head.resume = () => {
          wakeUps++
          resume?.()
        }
      }
      for (let i = 0; i < 1_000; i += 4) yield* Fiber.interrupt(fibers[i]!)
      expect(wakeUps).toBe(0)
      for (let i = 0; i < 750; i++) give()
      yield* settle
      expect([wakeUps, counter.departures, counter.log.length]).toEqual([750, 250, 750])
    }))

  it.effect("WaitQueue-3: all bounds of a queue share one timer fiber, which ends with the last wait", () =>
    Effect.gen(function*() {
      const { counter, give, giveOn } = makeCounter()
      const sleepers = () => Fiber.unsafeRoots().filter(Timers.isSleeper).length
      const ask = (millis: number) =>
        Effect.fork(
          Effect.uninterruptibleMask((restore) =>
            WaitQueue.waitInMask(counter.queue, 1, restore, giveOn, undefined, {
              bound: { atMost: Duration.millis(millis), late: () => Cause.fail("late") }
            })
          )
        )
      const fibers = yield* Effect.forEach([30, 20, 10, 20, 30, Infinity], ask)
      yield* settle
      expect([sleepers(), counter.queue.timers?.heap.length]).toEqual([1, 5])
      give()
      yield* Fiber.interrupt(fibers[1]!)
      expect(counter.queue.timers?.heap.length).toBe(3)
      yield* TestClock.adjust(30)
      const exits = yield* Effect.forEach(fibers.slice(0, 5), (fiber) => Fiber.await(fiber))
      expect(exits.map((exit) => exit._tag)).toEqual([
        "Success",
        "Failure",
        "Failure",
        "Failure",
        "Failure"
      ])
      yield* settle
      expect([sleepers(), counter.queue.size]).toEqual([0, 1])
      yield* Fiber.interrupt(fibers[5]!)
    }))

  it.effect("WaitQueue-3: a bound is on its caller's clock, though another waits on another clock", () =>
    Effect.gen(function*() {
      const { counter, giveOn } = makeCounter()
      const ask = Effect.uninterruptibleMask((restore) =>
        WaitQueue.waitInMask(counter.queue, 1, restore, giveOn, undefined, {
          bound: { atMost: Duration.millis(5), late: () => Cause.fail("late") }
        })
      )
      const test = yield* Effect.fork(ask)
      yield* settle
      expect(yield* Effect.flip(TestServices.provideLive(ask))).toBe("late")
      expect(test.unsafePoll()).toBeNull()
      yield* TestClock.adjust(5)
      expect(yield* Effect.flip(Fiber.join(test))).toBe("late")
    }))

  it("WaitQueue-1: higher priorities first, first come first served within one, whatever joins and leaves", () =>
    fc.assert(fc.asyncProperty(
      fc.array(
        fc.oneof(
          { weight: 6, arbitrary: fc.record({ join: fc.integer({ min: -1, max: 1 }) }) },
          { weight: 3, arbitrary: fc.record({ leave: fc.nat(20) }) },
          { weight: 1, arbitrary: fc.constant("grant" as const) }
        ),
        { maxLength: 40, size: "max" }
      ),
      (events) =>
        Effect.runPromise(Effect.gen(function*() {
          const queue = WaitQueue.make()
          const served: Array<number> = []
          let model: Array<{ readonly id: number; readonly priority: number }> = []
          const expected: Array<number> = []
          const fibers: Array<Fiber.Fiber<unknown>> = []
          for (const event of events) {
            if (event === "grant") {
              if (queue.head === undefined) continue
              WaitQueue.grantHead(queue)
              expected.push(model.shift()!.id)
            } else if ("join" in event) {
              const id = fibers.length
              const priority = event.join
              fibers.push(
                yield* Effect.fork(Effect.uninterruptibleMask((restore) =>
                  Effect.map(
                    WaitQueue.waitInMask(queue, id, restore, () => {}, undefined, { priority }),
                    () => served.push(id)
                  )
                ))
              )
              model.push({ id, priority })
              model = model.toSorted((a, b) => b.priority - a.priority || a.id - b.id)
            } else if (model.length > 0) {
              const [left] = model.splice(event.leave % model.length, 1)
              yield* Fiber.interrupt(fibers[left!.id]!)
            }
            yield* settle
            const line: Array<number> = []
            for (let waiter = queue.head; waiter !== undefined; waiter = waiter.next) {
              line.push(waiter.need)
              expect(waiter.next?.previous ?? waiter).toBe(waiter)
            }
            expect(line).toEqual(model.map(({ id }) => id))
            expect(served).toEqual(expected)
          }
          yield* Fiber.interruptAll(fibers)
          expect([queue.size, queue.head, queue.tail, queue.lasts]).toEqual([
            0,
            undefined,
            undefined,
            undefined
          ])
        }))
    )))

  it.effect("WaitQueue-6, Hold-1: who watches is told in the step itself, and of each end once", () =>
    Effect.gen(function*() {
      const { counter, give, giveOn } = makeCounter()
      const thing: Hold.Thing = { holds: undefined }
      const told: Array<string> = []
      const recorder: Hold.Recorder = {
        unsafeAcquiring: (_, name) => ({ id: told.push(`${name} asks`) }),
        unsafeHeld: ({ id }) => void told.push(`${id} has`),
        unsafeGaveUp: ({ id }, cause) =>
          void told.push(
            `${id} gave up: ${cause !== undefined && Cause.isInterrupted(cause) ? "cut" : "?"}`
          ),
        unsafeReleased: ({ id }) => void told.push(`${id} gave back`)
      }
      const holdOf = (name: string) =>
        new Hold.Hold(recorder, thing, { kind: "k", name, amount: 1, site: undefined })
      const ask = (hold: Hold.Hold) =>
        Effect.fork(
          Effect.uninterruptibleMask((restore) =>
            WaitQueue.waitInMask(counter.queue, 1, restore, giveOn, hold)
          )
        )
      const [a, b, c] = [holdOf("a"), holdOf("b"), holdOf("c")]
      const first = yield* ask(a)
      const second = yield* ask(b)
      yield* ask(c)
      yield* settle
      expect(c.waiter?.previous?.watch).toBe(b)
      told.length = 0
      yield* Fiber.interrupt(second)
      expect(told).toEqual(["2 gave up: cut"])
      give()
      expect(told.at(-1)).toBe("1 has")
      expect(Array.from(thing.holds ?? [])).toEqual([a])
      // Its grant goes to the next: first it comes back, then the other has it.
      yield* Fiber.interrupt(first)
      expect(told.slice(-2)).toEqual(["1 gave back", "3 has"])
      expect(Array.from(thing.holds ?? [])).toEqual([c])
      expect(thing.holds?.amount).toBe(1)
      for (const hold of [a, b, c]) {
        hold.left()
        hold.left()
        hold.granted()
      }
      expect(told.slice(-2)).toEqual(["3 has", "3 gave back"])
      expect([thing.holds?.size, thing.holds?.amount]).toEqual([0, 0])
    }))
})

describe("hold.keepAtMost", () => {
  const recorder: Hold.Recorder = {
    unsafeAcquiring: () => ({ id: 0 }),
    unsafeHeld: () => {},
    unsafeGaveUp: () => {},
    unsafeReleased: () => {}
  }
  const thingOf = (amounts: ReadonlyArray<number>) => {
    const thing: Hold.Thing = { holds: undefined }
    const holds = amounts.map((amount) =>
      new Hold.Hold(recorder, thing, { kind: "k", name: "n", amount, site: undefined })
    )
    for (const hold of holds) hold.granted()
    return { thing, holds }
  }

  it("says what a sum over all would say", () => {
    fc.assert(fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.boolean()), { maxLength: 8 }),
      fc.integer({ min: -1, max: 20 }),
      (given, most) => {
        const { holds, thing } = thingOf(given.map(([amount]) => amount))
        const stays = new Set(holds.filter((_, i) => given[i]![1]))
        const kept = Array.from(stays).reduce((sum, { amount }) => sum + amount, 0)
        expect(Hold.keepAtMost(thing, most, (hold) => !stays.has(hold))).toBe(kept <= most)
      }
    ))
  })

  it("looks at no more than it takes: 10,000 who wait for 10,000 are not as many pairs", () => {
    const { thing } = thingOf(Array.from({ length: 10_000 }, () => 1))
    let looks = 0
    const letsGo = (answer: boolean) => () => {
      looks++
      return answer
    }
    expect(Hold.keepAtMost(thing, 9_999, letsGo(true))).toBe(true)
    expect(Hold.keepAtMost(thing, 0, letsGo(false))).toBe(false)
    expect(looks).toBe(2)
  })
})
