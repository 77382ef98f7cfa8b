import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Semaphore } from "holdfast"

const settle = Effect.repeatN(Effect.yieldNow(), 20)

describe("Semaphore", () => {
  it.effect("Semaphore-2 WaitQueue-1: serves first come first, small requests never pass large ones", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2)
      const order: Array<string> = []
      const ask = (name: string, permits: number) =>
        Effect.fork(
          Semaphore.withPermits(semaphore, permits)(
            Effect.zipRight(Effect.sync(() => order.push(name)), Effect.yieldNow())
          )
        )
      const fibers = [
        yield* ask("a", 1),
        yield* ask("b", 1),
        yield* ask("BIG", 2),
        yield* ask("c", 1)
      ]
      yield* settle
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(order).toEqual(["a", "b", "BIG", "c"])
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 2, free: 2, waiting: 0 })
    }))

  it.effect("Semaphore-1 Semaphore-3 WaitQueue-2 WaitQueue-3: interruption at every offset loses and doubles nothing", () =>
    Effect.gen(function*() {
      for (let offset = 0; offset < 60; offset++) {
        const semaphore = Semaphore.unsafeMake(1)
        const body = Semaphore.withPermit(semaphore)(Effect.yieldNow())
        const fibers = [
          yield* Effect.fork(body),
          yield* Effect.fork(body),
          yield* Effect.fork(body)
        ]
        for (let i = 0; i < offset % 20; i++) yield* Effect.yieldNow()
        yield* Fiber.interruptFork(fibers[offset % 3]!)
        for (const fiber of fibers) yield* Fiber.await(fiber)
        expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 1, waiting: 0 })
      }
    }))

  it.effect("Semaphore-2: a releaser that comes straight back does not pass the waiter", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(1)
      let rounds = 0
      let served = -1
      const greedy = yield* Effect.fork(
        Effect.forever(
          Semaphore.withPermit(semaphore)(
            Effect.zipRight(Effect.sync(() => rounds++), Effect.yieldNow())
          )
        )
      )
      yield* Effect.yieldNow()
      yield* Semaphore.withPermit(semaphore)(Effect.sync(() => {
        served = rounds
      }))
      yield* Fiber.interrupt(greedy)
      expect(served).toBeLessThanOrEqual(2)
    }))

  it("misuse is refused by name", () => {
    expect(() => Semaphore.unsafeMake(0)).toThrow("whole number of permits")
    const semaphore = Semaphore.unsafeMake(1)
    expect(() => Semaphore.unsafeTryTake(semaphore, 2)).toThrow("could never be served")
    expect(() => Semaphore.unsafeRelease(semaphore, 1)).toThrow("released twice")
  })
})
