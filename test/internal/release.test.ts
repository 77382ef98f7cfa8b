import { describe, expect, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, FiberId, TestClock } from "effect"
import * as Release from "../../src/internal/release.ts"

const second = Duration.seconds(1)

/** A ledger that writes down what it is told. */
const recording = () => {
  const log: Array<string> = []
  const ledger: Release.Recorder = {
    unsafeReleasing: ({ id }) => log.push(`releasing ${id}`),
    unsafeReleased: ({ id }, failure) => log.push(`released ${id}${failure ? " failed" : ""}`),
    unsafeAbandoned: ({ id }) => log.push(`abandoned ${id}`)
  }
  const release = {
    kind: "lamp",
    name: "l",
    deadline: second,
    recorded: { ledger, entry: { id: 1 } }
  }
  return { log, release }
}

const waits = Effect.sleep("900 millis")
const several = Effect.zipRight(Effect.void, Effect.void)

describe("release", () => {
  for (
    const [what, work] of [["one", Effect.void], ["several", several], ["waits", waits]] as const
  ) {
    it.effect(`Release-1, Release-2: a release that ends is recorded as released (${what})`, () =>
      Effect.gen(function*() {
        const { log, release } = recording()
        const running = Release.run(release, () => {
          log.push("runs")
          return work
        }, Exit.void)
        const fiber = yield* Effect.fork(Effect.uninterruptible(running))
        yield* TestClock.adjust(second)
        expect(yield* Fiber.join(fiber)).toEqual(Exit.void)
        expect(log).toEqual(["releasing 1", "runs", "released 1"])
      }))
  }

  it.effect("Release-1, Release-2: a release that does not end is abandoned, then `onOverrun` has a second", () =>
    Effect.gen(function*() {
      const { log, release } = recording()
      const hard = { ...release, onOverrun: () => Effect.never }
      const fiber = yield* Effect.fork(
        Effect.uninterruptible(Release.run(hard, () => Effect.never, Exit.void))
      )
      yield* TestClock.adjust(second)
      expect(log).toEqual(["releasing 1"])
      yield* TestClock.adjust(second)
      const exit = yield* Fiber.join(fiber)
      const [first, then] = Exit.isFailure(exit) ? Array.from(Cause.defects(exit.cause)) : []
      expect(first).toMatchObject({ _tag: "ReleaseTimeout", step: "release", resource: "l" })
      expect(then).toMatchObject({ _tag: "ReleaseTimeout", step: "onOverrun" })
      expect(log).toEqual(["releasing 1", "abandoned 1"])
    }))

  for (
    const [what, work] of [["one", Exit.interrupt(FiberId.none)], [
      "several",
      Effect.interrupt
    ]] as ReadonlyArray<readonly [string, Effect.Effect<never>]>
  ) {
    it.effect(`Release-3: an interrupt of its own is a defect that names it (${what})`, () =>
      Effect.gen(function*() {
        const { log, release } = recording()
        const exit = yield* Release.run(release, () => work, Exit.void)
        expect(Exit.isFailure(exit) && Cause.isInterrupted(exit.cause)).toBe(false)
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
          "The release of lamp \"l\" ended by an interrupt of its own"
        )
        expect(log).toEqual(["releasing 1", "released 1 failed"])
      }))
  }

  it.effect("Release-3: a release that throws, or gives no effect, has failed", () =>
    Effect.gen(function*() {
      const { log, release } = recording()
      const thrown = yield* Release.run(release, (): Effect.Effect<void> => {
        throw new Error("no")
      }, Exit.void)
      const nothing = yield* Release.run(
        release,
        (): Effect.Effect<void> => undefined as never,
        Exit.void
      )
      expect([thrown, nothing].map((exit) => Exit.isFailure(exit))).toEqual([true, true])
      expect(log).toEqual(["releasing 1", "released 1 failed", "releasing 1", "released 1 failed"])
    }))
})
