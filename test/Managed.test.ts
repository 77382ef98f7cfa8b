import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, TestClock } from "effect"
import { Ledger, Managed } from "holdfast"

const traced = (
  log: Array<string>,
  name: string,
  release: Effect.Effect<unknown, unknown> = Effect.void
) =>
  Managed.make({
    name,
    kind: "traced",
    acquire: Effect.sync(() => {
      log.push(`+${name}`)
      return name
    }),
    release: (_, exit) =>
      Effect.zipRight(Effect.sync(() => log.push(`-${name} ${exit._tag}`)), release)
  })

const totals = Effect.flatMap(Ledger.Ledger, (ledger) => ledger!.snapshot)

describe("Managed", () => {
  it.effect("Managed-1: released once, in reverse order, seeing the exit", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.zipRight(traced(log, "a"), traced(log, "b")))
      expect(log).toEqual(["+a", "+b", "-b Success", "-a Success"])
      log.length = 0
      yield* Effect.exit(Managed.use(traced(log, "a"), () => Effect.fail("no")))
      expect(log).toEqual(["+a", "-a Failure"])
    }))

  it.effect("Managed-2: an acquire cut inside restore has registered nothing", () =>
    Effect.gen(function*() {
      let released = 0
      const never = Managed.make({
        name: "slow",
        acquire: (restore) => restore(Effect.never),
        release: () => Effect.sync(() => released++)
      })
      const fiber = yield* Effect.fork(Effect.scoped(never))
      yield* Effect.yieldNow()
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(released).toBe(0)
    }))

  for (
    const [what, hung] of [
      ["never", Effect.never],
      ["an uninterruptible never", Effect.uninterruptible(Effect.never)],
      ["a promise that never settles", Effect.promise(() => new Promise(() => {}))]
    ] as const
  ) {
    it.effect(`Managed-3: a release that is ${what} is abandoned by name, the outer one still runs`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const fiber = yield* Effect.fork(
          Effect.scoped(Effect.zipRight(traced(log, "outer"), traced(log, "hung", hung)))
        )
        yield* TestClock.adjust("5 seconds")
        const exit = yield* Fiber.await(fiber)
        expect(log).toEqual(["+outer", "+hung", "-hung Success", "-outer Success"])
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
          "ReleaseTimeout: The release of traced \"hung\" did not end within 5s"
        )
        const { kinds, live } = yield* totals
        expect(kinds["traced"]).toEqual({ acquired: 2, released: 1, failed: 0, abandoned: 1 })
        expect(live).toEqual([])
      }).pipe(Effect.provide(Ledger.layer())))
  }

  it.effect("Managed-3: a deadline never skips a good release of an interrupted owner", () =>
    Effect.gen(function*() {
      let done = false
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.void,
        release: () =>
          Effect.zipRight(
            Effect.sleep("1 second"),
            Effect.sync(() => {
              done = true
            })
          ),
        releaseDeadline: "3 seconds"
      })
      const fiber = yield* Effect.fork(Managed.use(slow, () => Effect.never))
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(ending)
      expect(done).toBe(true)
    }))

  it.effect("Managed-4: a failing release is kept beside the primary failure", () =>
    Effect.gen(function*() {
      const bad = traced([], "bad", Effect.fail("broken release"))
      const exit = yield* Effect.exit(Managed.use(bad, () => Effect.fail("primary")))
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["primary"])
      expect(Array.from(Cause.defects(exit.cause))).toEqual(["broken release"])
    }))

  it.effect("Managed-4: a release callback that throws is a failed release", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const throws = Managed.make({
        name: "t",
        acquire: Effect.void,
        release: () => {
          throw new Error("sync")
        }
      })
      const exit = yield* Effect.exit(Effect.scoped(Effect.zipRight(traced(log, "outer"), throws)))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(log).toEqual(["+outer", "-outer Success"])
    }))
})
