import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberId,
  FiberRef,
  Request,
  RequestResolver,
  TestClock
} from "effect"
import { Managed, Parallel } from "holdfast"
import { expectTypeOf } from "vitest"

const wide = { concurrency: "unbounded" } as const

class Item extends Context.Tag("Item")<Item, Effect.Effect<unknown>>() {}

class Get extends Request.TaggedClass("Get")<string, never, { readonly id: number }> {}

/** A resource that counts its uses after its release. */
const guarded = () => {
  const state = { open: false, usedAfterRelease: 0, acquired: 0, released: 0 }
  const managed = Managed.make({
    name: "guarded",
    acquire: Effect.sync(() => {
      state.open = true
      state.acquired++
    }),
    release: () =>
      Effect.sync(() => {
        state.open = false
        state.released++
      })
  })
  const touch = Effect.sync(() => {
    if (!state.open) state.usedAfterRelease++
  })
  return { state, managed, touch }
}

const failingFirst = (touch: Effect.Effect<void>) => (i: number) =>
  i === 0
    ? Effect.fail("boom")
    : Effect.uninterruptible(Effect.zipRight(Effect.sleep(i * 50), touch))

/** Runs `program` so that its yields fall on swept offsets of the op budget, interrupts it at each, counts those that hang. */
const hangsWhenInterrupted = async (program: Effect.Effect<unknown>): Promise<number> => {
  let hangs = 0
  for (let prefix = 1960; prefix < 2056; prefix++) {
    const steps = Effect.gen(function*() {
      for (let i = 0; i < prefix; i++) yield* Effect.sync(() => {})
    })
    const fiber = Effect.runFork(Effect.zipRight(steps, program))
    if (fiber.unsafePoll() !== null) continue
    fiber.unsafeInterruptAsFork(fiber.id())
    const ended = await Promise.race([
      Effect.runPromise(Fiber.await(fiber)),
      new Promise<"hang">((resolve) => setTimeout(() => resolve("hang"), 300))
    ])
    if (ended === "hang") {
      hangs++
      if (hangs > 2) break
    }
  }
  return hangs
}

const shared = (
  parallel: (f: (i: number) => Effect.Effect<void, string>) => Effect.Effect<unknown, string>
) =>
  Effect.gen(function*() {
    const { managed, state, touch } = guarded()
    const fiber = yield* Effect.fork(Managed.use(managed, () => parallel(failingFirst(touch))))
    yield* TestClock.adjust("1 second")
    expect(Exit.isFailure(yield* Fiber.await(fiber))).toBe(true)
    return state
  })

describe("Parallel", () => {
  it.effect("Parallel-1: never releases a shared resource under a running sibling; raw forEach does", () =>
    Effect.gen(function*() {
      const ours = yield* shared((f) =>
        Parallel.forEach([0, 1, 2, 3, 4], f, { concurrency: 4, discard: true })
      )
      expect(ours).toEqual({ open: false, usedAfterRelease: 0, acquired: 1, released: 1 })
      const raw = yield* shared((f) =>
        Effect.forEach([0, 1, 2, 3, 4], f, { concurrency: 4, discard: true })
      )
      // The defect this module exists for. When this line fails, upstream has fixed it.
      expect(raw.usedAfterRelease).toBeGreaterThan(0)
    }))

  it("Parallel-2: never hangs when interrupted at an unlucky yield; raw Effect.all does", async () => {
    const three = [Effect.yieldNow(), Effect.yieldNow(), Effect.yieldNow()]
    expect(await hangsWhenInterrupted(Parallel.all(three, { concurrency: "unbounded" }))).toBe(0)
    expect(await hangsWhenInterrupted(Parallel.all(three, { concurrency: 2 }))).toBe(0)
    expect(await hangsWhenInterrupted(Effect.all(three, { concurrency: "unbounded" })))
      .toBeGreaterThan(0)
  })

  it.effect("Parallel-3: keeps every concurrent failure, drops our own interruptions", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const exit = yield* Effect.exit(Parallel.forEach([1, 2, 3], (i) =>
        i === 3
          ? Effect.never
          : i === 2
          ? Effect.onInterrupt(Effect.never, () => Effect.die("on the way out"))
          : Effect.zipRight(Effect.yieldNow(), Effect.fail("first")), { concurrency: 3 }))
      yield* Deferred.succeed(gate, undefined)
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["first"])
      expect(Array.from(Cause.defects(exit.cause))).toEqual(["on the way out"])
    }))

  it.effect("Parallel-3: after the first failure no new item starts", () =>
    Effect.gen(function*() {
      const started: Array<number> = []
      yield* Effect.exit(Parallel.forEach(Array.from({ length: 100 }, (_, i) => i), (i) => {
        started.push(i)
        return i === 5 ? Effect.fail("stop") : Effect.yieldNow()
      }, { concurrency: 3 }))
      expect(started.length).toBeLessThanOrEqual(9)
    }))

  it.effect("Parallel-4: pulls an endless source only as workers are free, and closes it", () =>
    Effect.gen(function*() {
      let pulled = 0
      let closed = false
      const endless = function*() {
        try {
          while (true) yield pulled++
        } finally {
          closed = true
        }
      }
      let inFlight = 0
      let most = 0
      const exit = yield* Effect.exit(Parallel.forEach(endless(), (i) =>
        Effect.gen(function*() {
          most = Math.max(most, ++inFlight)
          yield* Effect.yieldNow()
          inFlight--
          if (i === 20) return yield* Effect.fail("enough")
        }), { concurrency: 4, discard: true }))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(most).toBe(4)
      expect(pulled).toBeLessThanOrEqual(25)
      expect(closed).toBe(true)
    }))

  it.effect("keeps input order, in lists, records and sequence", () =>
    Effect.gen(function*() {
      const slowFirst = (i: number) => Effect.as(i === 0 ? Effect.yieldNow() : Effect.void, i * 10)
      expect(yield* Parallel.forEach([0, 1, 2], slowFirst, { concurrency: 3 })).toEqual([0, 10, 20])
      expect(yield* Parallel.forEach([0, 1, 2], slowFirst)).toEqual([0, 10, 20])
      expect(yield* Parallel.all({ a: Effect.succeed(1), b: Effect.succeed("b") })).toEqual({
        a: 1,
        b: "b"
      })
      const tuple: [number, string] = yield* Parallel.all([Effect.succeed(1), Effect.succeed("b")])
      expect(tuple).toEqual([1, "b"])
      expect(yield* Parallel.forEach([], slowFirst, { concurrency: 3 })).toEqual([])
    }))

  it.effect("what an item leaves in a FiberRef comes back, as with a join", () =>
    Effect.gen(function*() {
      const ref = FiberRef.unsafeMake(0)
      yield* Parallel.forEach([7], (i) => FiberRef.set(ref, i), { concurrency: 2 })
      expect(yield* FiberRef.get(ref)).toBe(7)
    }))

  it.effect("an interrupted call awaits its items before it returns", () =>
    Effect.gen(function*() {
      let ended = 0
      const item = Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended++))
      const fiber = yield* Effect.fork(
        Parallel.forEach([1, 2, 3, 4], () => item, { concurrency: 3, discard: true })
      )
      yield* Effect.yieldNow()
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      expect(ended).toBe(3)
    }))

  it.effect("an iterator that throws is not closed; a failure to close it stands beside the item's", () =>
    Effect.gen(function*() {
      for (const concurrency of [1, 2]) {
        let closed = 0
        const source = (next: () => IteratorResult<number>): Iterable<number> => ({
          [Symbol.iterator]: () => ({
            next,
            return: () => {
              closed++
              throw new Error("no return")
            }
          })
        })
        const thrown = yield* Effect.exit(Parallel.forEach(
          source(() => {
            throw new Error("no next")
          }),
          () => Effect.void,
          { concurrency }
        ))
        expect(Exit.isFailure(thrown) && Cause.pretty(thrown.cause)).toContain("no next")
        expect(closed).toBe(0)
        const failed = yield* Effect.exit(Parallel.forEach(
          source(() => ({ value: 1 })),
          () => Effect.fail("item"),
          { concurrency }
        ))
        if (Exit.isSuccess(failed)) return expect.fail("should have failed")
        expect(Cause.pretty(failed.cause)).toMatch(/item[^]*no return/)
      }
    }))

  it.effect("a concurrency far above the number of items costs next to nothing", () =>
    Effect.gen(function*() {
      const doubled = yield* Parallel.forEach(
        new Set([1, 2, 3]),
        (n) => Effect.succeed(2 * n),
        { concurrency: 1_000_000_000 }
      )
      expect(doubled).toEqual([2, 4, 6])
    }))

  it.effect("an option that is not understood is a defect that says what to write", () =>
    Effect.gen(function*() {
      const said = (run: Effect.Effect<unknown>) =>
        Effect.map(
          Effect.exit(run),
          (exit) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : exit
        )
      for (const concurrency of [0, -1, 1.5, Number.NaN]) {
        expect(yield* said(Parallel.forEach([1, 2], Effect.succeed, { concurrency }))).toContain(
          `Parallel.forEach: \`concurrency\` must be an integer, 1 or more, or "unbounded" or "inherit"; got ${concurrency}.`
        )
      }
      // @ts-expect-error a wrong name
      expect(yield* said(Parallel.forEach([1], Effect.succeed, { concurency: 2 }))).toContain(
        "Parallel.forEach has no option `concurency`."
      )
      // @ts-expect-error a wrong mode
      expect(yield* said(Parallel.all([Effect.void], { mode: "both" }))).toContain(
        `Parallel.all: \`mode\` must be one of "default", "validate", "either"; got "both".`
      )
    }))

  it.effect("a fiber dump shows the workers that a caller waits for", () =>
    Effect.gen(function*() {
      const blockingOn = (run: Effect.Effect<unknown>) =>
        Effect.gen(function*() {
          const started: Array<FiberId.FiberId> = []
          const item = Effect.zipRight(
            Effect.flatMap(Effect.fiberId, (id) => Effect.sync(() => started.push(id))),
            Effect.never
          )
          const fiber = yield* Effect.fork(Effect.provideService(run, Item, item))
          yield* Effect.repeatN(Effect.yieldNow(), 5)
          const { status } = yield* Fiber.dump(fiber)
          yield* Fiber.interrupt(fiber)
          const shown = status._tag === "Suspended"
            ? FiberId.threadName(status.blockingOn)
            : status._tag
          return [shown.split(",").toSorted(), started.map(FiberId.threadName).toSorted()]
        })
      for (
        const run of [
          Parallel.forEach([1, 2, 3], () => Effect.flatten(Item), { concurrency: 2 }),
          Parallel.all([Effect.flatten(Item), Effect.flatten(Item)], wide),
          Parallel.race(Effect.flatten(Item), Effect.flatten(Item))
        ]
      ) {
        const [shown, started] = yield* blockingOn(run as Effect.Effect<unknown>)
        expect(started).toHaveLength(2)
        expect(shown).toEqual(started)
      }
    }))

  it.effect("Parallel-3: of what an interrupted sibling fails with, its own failure is in the cause, our interrupt is not", () =>
    Effect.gen(function*() {
      const slow = Effect.uninterruptible(
        Effect.zipRight(Effect.repeatN(Effect.yieldNow(), 3), Effect.fail("slow"))
      )
      const exit = yield* Effect.exit(
        Parallel.all([slow, Effect.zipRight(Effect.yieldNow(), Effect.fail("fast"))], wide)
      )
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["slow", "fast"])
      expect(Cause.isInterrupted(exit.cause)).toBe(false)
    }))

  it.effect("Parallel-3: a sibling that has not begun at the first failure does not begin; raw Effect.all begins it", () =>
    Effect.gen(function*() {
      const begun = (all: typeof Effect.all) =>
        Effect.gen(function*() {
          let begun = 0
          const second = Effect.sync(() => begun++)
          yield* Effect.exit(all([Effect.fail("first"), second], wide))
          return begun
        })
      expect([yield* begun(Parallel.all), yield* begun(Effect.all)]).toEqual([0, 1])
    }))

  it.effect("Parallel-6: requests of interrupted items are abandoned and what was acquired before them is released; raw forEach hangs", () =>
    Effect.gen(function*() {
      for (let turns = 0; turns < 40; turns++) {
        for (const wrap of [<A, E>(self: Effect.Effect<A, E>) => self, Effect.uninterruptible]) {
          let held = 0
          const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) =>
            Effect.zipRight(
              Effect.repeatN(Effect.yieldNow(), 5),
              Effect.forEach(requests, (request) => Request.succeed(request, "found"), {
                discard: true
              })
            )
          )
          const item = Effect.acquireUseRelease(
            Effect.sync(() => held++),
            () => wrap(Effect.request(new Get({ id: 1 }), resolver)),
            () => Effect.sync(() => held--)
          )
          const fiber = yield* Effect.fork(
            Parallel.forEach([1, 2, 3], () => item, { concurrency: 2, batching: true })
          )
          yield* Effect.repeatN(Effect.yieldNow(), turns)
          yield* Fiber.interrupt(fiber)
          expect([turns, held]).toEqual([turns, 0])
        }
      }
    }))

  it.effect("Parallel-5: a race returns the first success after its losers have ended", () =>
    Effect.gen(function*() {
      let ended = 0
      const loser = Effect.onInterrupt(
        Effect.never,
        () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => ended++))
      )
      const late = Effect.zipRight(Effect.yieldNow(), Effect.succeed("won"))
      expect(yield* Parallel.raceAll([loser, late, loser, Effect.fail("no")])).toBe("won")
      expect(ended).toBe(2)
      expect(yield* Parallel.race(loser, Effect.succeed(1))).toBe(1)
      expect(yield* Effect.flip(Parallel.raceFirst(loser, Effect.fail("first")))).toBe("first")
      expect(ended).toBe(4)
    }))

  it.effect("Parallel-5: fails with all causes when no effect succeeds; a defect of an interrupted loser fails the race", () =>
    Effect.gen(function*() {
      const failed = yield* Effect.exit(Parallel.raceAll([Effect.fail("a"), Effect.fail("b")]))
      expect(Exit.isFailure(failed) && Array.from(Cause.failures(failed.cause))).toEqual(["b", "a"])
      const dirty = Effect.onInterrupt(Effect.never, () => Effect.die("release broke"))
      const kept = yield* Effect.exit(
        Parallel.race(dirty, Effect.zipRight(Effect.yieldNow(), Effect.succeed(1)))
      )
      expect(Exit.isFailure(kept) && Array.from(Cause.defects(kept.cause))).toEqual([
        "release broke"
      ])
    }))

  it("Parallel-2 Parallel-5: a race never hangs when interrupted; raw Effect.raceFirst may", async () => {
    const two = () => [Effect.yieldNow(), Effect.yieldNow()] as const
    expect(await hangsWhenInterrupted(Parallel.raceFirst(...two()))).toBe(0)
    expect(await hangsWhenInterrupted(Parallel.race(...two()))).toBe(0)
  })

  it.effect("raceAll infers the union of what its effects succeed and fail with", () =>
    Effect.gen(function*() {
      const race = Parallel.raceAll([Effect.succeed(1), Effect.succeed("x"), Effect.fail(true)])
      expectTypeOf(race).toEqualTypeOf<Effect.Effect<number | string, boolean>>()
      expect([1, "x"]).toContain(yield* race)
    }))

  it.effect("Parallel-5: a race of no effects dies at once", () =>
    Effect.gen(function*() {
      const none: ReadonlyArray<Effect.Effect<void>> = []
      const fiber = yield* Effect.fork(Parallel.raceAll(none))
      yield* Effect.repeatN(Effect.yieldNow(), 10)
      const exit = fiber.unsafePoll()
      yield* Fiber.interruptFork(fiber)
      if (exit === null || Exit.isSuccess(exit)) return expect.fail("should have died at once")
      expect(Cause.pretty(exit.cause)).toContain("a race of no effects has no winner")
    }))
})
