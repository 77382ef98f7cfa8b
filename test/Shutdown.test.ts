import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { Shutdown } from "holdfast"

describe("Shutdown", () => {
  it.effect("Shutdown-1: the first request wins and wakes everyone who waits", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      expect(yield* shutdown.reason).toEqual(Option.none())
      const waiting = yield* Effect.fork(shutdown.requested)
      const first = { kind: "signal", signal: "SIGTERM" } as const
      expect(yield* shutdown.request(first)).toBe(true)
      expect(yield* shutdown.request({ kind: "request", by: "later" })).toBe(false)
      expect(yield* Fiber.join(waiting)).toEqual(first)
      expect(yield* shutdown.reason).toEqual(Option.some(first))
    }))

  it.effect("Shutdown-2: a draining region is counted exactly, however it ends", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      const inside = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        shutdown.drains(Effect.zipRight(Deferred.succeed(inside, undefined), Effect.never))
      )
      yield* Deferred.await(inside)
      expect(shutdown.unsafeDrainers()).toBe(1)
      yield* Fiber.interrupt(fiber)
      yield* Effect.exit(shutdown.drains(Effect.fail("no")))
      expect(shutdown.unsafeDrainers()).toBe(0)
    }))

  it.effect("the accessors speak of the shutdown in force", () => {
    const shutdown = Shutdown.unsafeMake()
    return Effect.gen(function*() {
      const seen = yield* Shutdown.drains(Effect.sync(() => shutdown.unsafeDrainers()))
      expect([seen, shutdown.unsafeDrainers()]).toEqual([1, 0])
      const why = { kind: "request", by: "a test" } as const
      expect(yield* Shutdown.reason).toEqual(Option.none())
      expect(yield* Shutdown.request(why)).toBe(true)
      expect(yield* Shutdown.requested).toEqual(why)
      expect(yield* shutdown.reason).toEqual(Option.some(why))
    }).pipe(Effect.provideService(Shutdown.Shutdown, shutdown))
  })
})
