import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { Ledger, Managed } from "holdfast"

const thing = Managed.make({
  name: "held",
  kind: "thing",
  acquire: Effect.void,
  release: () => Effect.void
})

describe("Ledger", () => {
  it.effect("Ledger-1: acquired = released + abandoned + held, at every instant", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      const fiber = yield* Effect.fork(Effect.provideService(
        Managed.use(thing, () => Effect.never),
        Ledger.Ledger,
        ledger
      ))
      yield* Effect.yieldNow()
      const during = yield* ledger.snapshot
      expect(during.total.acquired).toBe(1)
      expect(during.live.map((e) => [e.name, e.state])).toEqual([["held", "held"]])
      const refused = yield* Effect.flip(ledger.assertEmpty)
      expect(refused.message).toContain("thing \"held\" (held)")
      yield* Fiber.interrupt(fiber)
      const after = yield* ledger.snapshot
      expect(after.total).toEqual({ acquired: 1, released: 1, failed: 0, abandoned: 0 })
      yield* ledger.assertEmpty
    }))

  it.effect("Ledger-2: the first end of an entry counts, later ones are ignored", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      const entry = ledger.unsafeAcquiring("k", "n")
      ledger.unsafeHeld(entry)
      ledger.unsafeAbandoned(entry)
      ledger.unsafeReleased(entry)
      ledger.unsafeAbandoned(entry)
      expect((yield* ledger.snapshot).kinds["k"]).toEqual({
        acquired: 1,
        released: 0,
        failed: 0,
        abandoned: 1
      })
    }))

  it.effect("Ledger-3: ended entries leave only their counts; an acquire that failed leaves nothing", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      for (let i = 0; i < 1000; i++) {
        const entry = ledger.unsafeAcquiring("k", `n${i}`)
        if (i % 2 === 0) ledger.unsafeGaveUp(entry)
        else {
          ledger.unsafeHeld(entry)
          ledger.unsafeReleased(entry, i % 3 === 0 ? Cause.die("broken") : undefined)
        }
      }
      const snapshot = yield* ledger.snapshot
      expect(snapshot.live).toEqual([])
      expect(snapshot.total).toEqual({ acquired: 500, released: 500, failed: 167, abandoned: 0 })
    }))

  it.effect("off by default: nothing is recorded", () =>
    Effect.gen(function*() {
      expect(yield* Ledger.Ledger).toBe(undefined)
      yield* Managed.use(thing, () => Effect.void)
    }))

  it.effect("the accessors speak of the ledger in force; without one they are a defect, not a test passed", () =>
    Effect.gen(function*() {
      const exits: ReadonlyArray<Exit.Exit<unknown, unknown>> = [
        yield* Effect.exit(Ledger.assertEmpty),
        yield* Effect.exit(Ledger.snapshot)
      ]
      for (const exit of exits) {
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("No ledger is in force")
      }
      yield* Effect.gen(function*() {
        const held = yield* Effect.scoped(Effect.zipRight(thing, Effect.flip(Ledger.assertEmpty)))
        expect(held.entries.map((entry) => entry.name)).toEqual(["held"])
        yield* Ledger.assertEmpty
        expect((yield* Ledger.snapshot).total.released).toBe(1)
      }).pipe(Effect.provide(Ledger.layer()))
    }))
})
