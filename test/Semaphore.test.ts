import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Either, Exit, Fiber, Option, Scope, TestClock, Tracer } from "effect"
import { Ledger, Mutex, RwLock, Semaphore, type Shared } from "holdfast"
import { expectTypeOf } from "vitest"

const settle = Effect.repeatN(Effect.yieldNow(), 20)

/** Over and over, without a pause between one round and the next. */
const atOnceAgain = <A>(body: () => Effect.Effect<A>, rounds = Number.POSITIVE_INFINITY) => {
  let left = rounds
  return Effect.whileLoop({ while: () => left-- > 0, body, step: () => {} })
}

/** Asks, and tells when it is served; holds on until it is interrupted or told to end. */
const makeAsker = (semaphore: Semaphore.Semaphore) => {
  const served: Array<string> = []
  const hold = (name: string, permits: number) =>
    Effect.fork(
      Semaphore.withPermits(
        Effect.zipRight(Effect.sync(() => served.push(name)), Effect.never),
        semaphore,
        permits
      )
    )
  return { served, hold }
}

describe("Semaphore", () => {
  it.effect("Semaphore-2 WaitQueue-1: serves first come first, small requests never pass large ones (S2)", () =>
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
      expect(yield* Semaphore.stats(semaphore)).toEqual({ permits: 2, free: 2, waiting: 0 })
    }))

  it.effect("Semaphore-2: nobody barges in over 10^5 rounds (S1)", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(1)
      const rounds = 100_000
      let served = 0
      let barged = 0
      const greedy = yield* Effect.fork(atOnceAgain(() => {
        const isAwaited = Semaphore.unsafeStats(semaphore).waiting > 0
        const before = served
        return Semaphore.withPermit(
          Effect.suspend(() => {
            if (isAwaited && served === before) barged++
            return Effect.yieldNow()
          }),
          semaphore
        )
      }))
      yield* Effect.yieldNow()
      yield* atOnceAgain(() => Semaphore.withPermit(Effect.sync(() => served++), semaphore), rounds)
      yield* Fiber.interrupt(greedy)
      expect([served, barged]).toEqual([rounds, 0])
    }))

  it.effect("Effect's own semaphore never serves a waiter while the holder comes straight back (S1)", () =>
    Effect.gen(function*() {
      const semaphore = Effect.unsafeMakeSemaphore(1)
      let rounds = 0
      let isServed = false
      const greedy = yield* Effect.fork(atOnceAgain(
        () =>
          semaphore.withPermits(1)(Effect.zipRight(Effect.sync(() => rounds++), Effect.yieldNow())),
        1_000
      ))
      yield* Effect.yieldNow()
      const waiter = yield* Effect.fork(
        semaphore.withPermits(1)(Effect.sync(() => {
          isServed = true
        }))
      )
      yield* Fiber.join(greedy)
      expect([rounds, isServed]).toEqual([1_000, false])
      yield* Fiber.join(waiter)
    }))

  it.effect("Semaphore-3: an interrupted waiter leaves the line at once, while all holders hold (S4)", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(1)
      const { hold, served } = makeAsker(semaphore)
      yield* hold("holder", 1)
      yield* settle
      const fibers = yield* Effect.forEach(
        Array.from({ length: 1_000 }, (_, index) => index),
        (index) => hold(String(index), 1)
      )
      yield* settle
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 0, waiting: 1_000 })
      yield* Fiber.interruptAll(fibers)
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 0, waiting: 0 })
      expect(served).toEqual(["holder"])
    }))

  it.effect("Semaphore-3: granted but not begun, the body never runs and the next is granted in that step (S5)", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(1)
      const { hold, served } = makeAsker(semaphore)
      expect(Semaphore.unsafeTryTake(semaphore, 1)).toBe(true)
      const first = yield* hold("first", 1)
      yield* hold("second", 1)
      yield* settle
      Semaphore.unsafeRelease(semaphore, 1)
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 0, waiting: 1 })
      yield* Fiber.interrupt(first)
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 0, waiting: 0 })
      yield* settle
      expect(served).toEqual(["second"])
    }))

  it.effect("Semaphore-3: a large request that leaves lets the small ones behind it in (S7)", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2)
      const { hold, served } = makeAsker(semaphore)
      yield* hold("holder", 1)
      const big = yield* hold("BIG", 2)
      yield* hold("small", 1)
      yield* settle
      expect(served).toEqual(["holder"])
      yield* Fiber.interrupt(big)
      yield* settle
      expect(served).toEqual(["holder", "small"])
    }))

  it.effect("Semaphore-1: given back once on success, failure, defect and interruption", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(3)
      const bodies = [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt]
      for (const body of bodies) {
        for (const permits of [1, 3]) {
          const plain = yield* Effect.exit(body)
          expect(yield* Effect.exit(Semaphore.withPermits(body, semaphore, permits))).toEqual(plain)
          expect(Semaphore.unsafeStats(semaphore).free).toBe(3)
        }
      }
    }))

  it.effect("Semaphore-5: a try takes what is free, and never passes a waiter", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2)
      const { hold } = makeAsker(semaphore)
      const attempt = Semaphore.tryWithPermits(Effect.succeed("in"), semaphore, 1)
      expect(yield* attempt).toEqual(Option.some("in"))
      yield* hold("holder", 1)
      const big = yield* hold("BIG", 2)
      yield* settle
      expect(yield* attempt).toEqual(Option.none())
      yield* Fiber.interrupt(big)
      expect(yield* Effect.succeed("in").pipe(Semaphore.tryWithPermits(semaphore, 1))).toEqual(
        Option.some("in")
      )
      expect(yield* Effect.exit(Semaphore.tryWithPermits(Effect.fail("no"), semaphore, 1)))
        .toEqual(Exit.fail("no"))
      expect(Semaphore.unsafeStats(semaphore).free).toBe(1)
    }))

  it.effect("Semaphore-4: growing serves in the same step, shrinking takes nothing from a holder", () =>
    Effect.gen(function*() {
      const semaphore = yield* Semaphore.make(1)
      const { hold, served } = makeAsker(semaphore)
      const holders = [yield* hold("a", 1), yield* hold("b", 1), yield* hold("c", 1)]
      yield* settle
      yield* Semaphore.resize(semaphore, 3)
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 3, free: 0, waiting: 0 })
      yield* settle
      expect(served).toEqual(["a", "b", "c"])
      yield* Semaphore.resize(semaphore, 1)
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: -2, waiting: 0 })
      yield* hold("d", 1)
      yield* settle
      for (const holder of holders) {
        expect(served).toEqual(["a", "b", "c"])
        yield* Fiber.interrupt(holder)
      }
      yield* settle
      expect(served).toEqual(["a", "b", "c", "d"])
    }))

  it.effect("Semaphore-4: who waits for more than is left dies as a newcomer would, and blocks nobody", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(3, { name: "lanes" })
      const { hold, served } = makeAsker(semaphore)
      yield* hold("holder", 1)
      const big = yield* hold("BIG", 3)
      yield* hold("small", 1)
      yield* settle
      yield* Semaphore.resize(2)(semaphore)
      const exit = yield* Fiber.await(big)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
        "asked for 3 permits of \"lanes\", which has 2"
      )
      yield* settle
      expect(served).toEqual(["holder", "small"])
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 2, free: 0, waiting: 0 })
    }))

  it.effect("Semaphore-1: a scope's hold is in the ledger, ends with the scope, and needs an open one", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2, { name: "lanes" })
      const ledger = yield* Ledger.Ledger
      const scope = yield* Scope.make()
      yield* Scope.extend(Semaphore.get(semaphore, 2), scope)
      expect(Semaphore.unsafeStats(semaphore).free).toBe(0)
      expect((yield* ledger!.snapshot).live).toMatchObject([{ kind: "permit", name: "lanes" }])
      yield* Scope.close(scope, Exit.void)
      expect(Semaphore.unsafeStats(semaphore).free).toBe(2)
      yield* ledger!.assertEmpty
      const exit = yield* Effect.exit(Scope.extend(Semaphore.get(semaphore, 1), scope))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("OwnerClosed")
      expect(Semaphore.unsafeStats(semaphore).free).toBe(2)
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Semaphore-3: a bound on the wait is on the wait only, and who is late lets the next in at once", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2)
      const { hold, served } = makeAsker(semaphore)
      yield* hold("holder", 1)
      const late = yield* Effect.fork(
        Effect.uninterruptibleMask((restore) =>
          Semaphore.takeInMask(semaphore, 2, restore, { acquireTimeout: "1 second" })
        )
      )
      yield* hold("small", 1)
      yield* settle
      expect(served).toEqual(["holder"])
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(Fiber.join(late))
      expect(error).toMatchObject({ asked: 2, stats: { permits: 2, free: 1, waiting: 1 } })
      expect(error.message).toMatch(
        /^2 of 2 permits of "semaphore" were not free within 1s: 1 free/
      )
      yield* settle
      expect(served).toEqual(["holder", "small"])
    }))

  it.effect("Semaphore-6: asked, granted, gone: each in the step in which the line decides it, with how many and why", () =>
    Effect.gen(function*() {
      const ledger = (yield* Ledger.Ledger)!
      const semaphore = Semaphore.unsafeMake(3, { name: "three" })
      const states = () => {
        const { ended, live } = ledger.unsafeSnapshot()
        return [...live, ...ended].map(({ attributes, state }) => [attributes["permits"], state])
      }
      const hold = (permits: number) =>
        Effect.fork(Semaphore.withPermits(Effect.never, semaphore, permits))
      const three = yield* hold(3)
      const two = yield* hold(2)
      const one = yield* hold(1)
      yield* settle
      expect(states()).toEqual([[3, "held"], [2, "acquiring"], [undefined, "acquiring"]])
      // Whoever is granted is a holder at once, though its fiber has not run, and even if it never does.
      const seen: Array<ReadonlyArray<unknown>> = []
      three.addObserver(() => seen.push(states()))
      yield* Fiber.interruptAll([three, two])
      expect(seen).toEqual([[[2, "held"], [undefined, "held"], [3, "released"]]])
      yield* settle
      expect(states()).toEqual([[undefined, "held"], [3, "released"], [2, "released"]])
      yield* hold(3)
      yield* settle
      yield* Semaphore.resize(semaphore, 2)
      yield* Fiber.interrupt(one)
      const refused = (yield* ledger.snapshot).ended.find(({ state }) => state === "failed")
      expect(refused?.cause).toContain("could never be served")
      expect((yield* ledger.snapshot).kinds["permit"]).toMatchObject({ acquired: 3, released: 3 })
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Semaphore-2: a higher priority is served first, before those for whom too little is free (S2)", () =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(2)
      const served: Array<string> = []
      const ask = (name: string, permits: number, priority: number) =>
        Effect.fork(
          Effect.zipRight(Effect.sync(() => served.push(name)), Effect.never).pipe(
            Semaphore.withPermits(semaphore, permits, { priority })
          )
        )
      const holder = yield* ask("holder", 1, 0)
      const big = yield* ask("BIG", 2, 0)
      const low = yield* ask("low", 2, -1)
      yield* settle
      expect(served).toEqual(["holder"])
      // One permit is free: enough for this one, who stands before BIG.
      const urgent = yield* ask("urgent", 1, 1)
      yield* settle
      expect(served).toEqual(["holder", "urgent"])
      yield* ask("normal", 2, 0)
      yield* settle
      for (const fiber of [holder, urgent, big]) yield* Fiber.interrupt(fiber)
      yield* settle
      expect(served).toEqual(["holder", "urgent", "BIG", "normal"])
      yield* Fiber.interrupt(low)
    }))

  it.effect("Semaphore-4: with 0 permits every request waits, and none is refused for its size", () =>
    Effect.gen(function*() {
      const semaphore = yield* Semaphore.make(0)
      const { hold, served } = makeAsker(semaphore)
      yield* hold("three", 3)
      yield* hold("one", 1)
      const tooMany = yield* hold("five", 5)
      yield* settle
      expect(yield* Semaphore.tryWithPermits(Effect.void, semaphore, 1)).toEqual(Option.none())
      yield* Semaphore.resize(semaphore, 4)
      yield* settle
      expect(served).toEqual(["three", "one"])
      expect((yield* Fiber.await(tooMany))._tag).toBe("Failure")
      yield* Semaphore.resize(semaphore, 0)
      expect(yield* Semaphore.stats(semaphore)).toEqual({ permits: 0, free: -4, waiting: 0 })
    }))

  it.effect("Semaphore-7: close fails every waiter and every newcomer, and leaves the holders alone", () =>
    Effect.gen(function*() {
      const semaphore = yield* Semaphore.make(2, { name: "gate", closable: true })
      const holder = yield* Effect.fork(
        Semaphore.withPermit(Effect.as(Effect.sleep("1 second"), "held to its end"), semaphore)
      )
      yield* settle
      const waiters = yield* Effect.forEach(
        [
          Semaphore.withPermits(Effect.void, semaphore, 2),
          Effect.scoped(Semaphore.get(semaphore, 2)),
          Semaphore.withPermits(Effect.void, semaphore, 2, { acquireTimeout: "1 hour" })
        ],
        (wait) => Effect.fork(Effect.either(wait))
      )
      yield* settle
      yield* Semaphore.close(semaphore)
      yield* Semaphore.close(semaphore)
      for (const waiter of waiters) {
        const either = yield* Fiber.join(waiter)
        expect(Either.isLeft(either) && either.left._tag).toBe("SemaphoreClosed")
      }
      const refused = [
        Semaphore.withPermit(Effect.void, semaphore),
        Semaphore.tryWithPermits(Effect.void, semaphore, 1),
        Effect.scoped(Semaphore.get(semaphore, 1)),
        Effect.uninterruptibleMask((restore) => Semaphore.takeInMask(semaphore, 1, restore))
      ]
      for (const one of refused) expect((yield* Effect.flip(one))._tag).toBe("SemaphoreClosed")
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(holder)).toBe("held to its end")
      expect(yield* Semaphore.stats(semaphore)).toEqual({ permits: 2, free: 2, waiting: 0 })
    }))

  it.effect("Semaphore-7: cancelWaiters fails those who wait now; the semaphore stays open", () =>
    Effect.gen(function*() {
      const semaphore = yield* Semaphore.make(1, { closable: true })
      const holder = yield* Effect.fork(Semaphore.withPermit(Effect.never, semaphore))
      const wait = Effect.flip(Semaphore.withPermit(Effect.void, semaphore))
      const waiters = yield* Effect.forEach([wait, wait], Effect.fork)
      yield* settle
      expect(yield* Semaphore.cancelWaiters(semaphore)).toBe(2)
      for (const waiter of waiters) {
        expect((yield* Fiber.join(waiter))._tag).toBe("SemaphoreCancelled")
      }
      yield* Fiber.interrupt(holder)
      expect(yield* Semaphore.withPermit(Effect.succeed("in"), semaphore)).toBe("in")
      // Only a closable one may be closed.
      const plain = Semaphore.unsafeMake(1)
      // @ts-expect-error
      const closing = Semaphore.close(plain)
      expect(closing).toBeDefined()
    }))

  it.effect("KeyedSemaphore-1: each key has its own permits, and leaves nothing behind", () =>
    Effect.gen(function*() {
      const hosts = yield* Semaphore.makeKeyed<string>(2, { name: "host" })
      const stay = (key: string, permits: number) =>
        Effect.fork(Semaphore.withPermitsKey(Effect.never, hosts, key, permits))
      const a = yield* stay("a", 2)
      const b = yield* stay("b", 1)
      const late = yield* Effect.fork(
        Semaphore.withPermitsKey(Effect.void, hosts, "a", 1, { acquireTimeout: "1 second" })
      )
      yield* settle
      expect(yield* Semaphore.statsKey(hosts, "a")).toEqual({ permits: 2, free: 0, waiting: 1 })
      expect(yield* Semaphore.tryWithPermitsKey(Effect.void, hosts, "a", 1)).toEqual(Option.none())
      yield* Effect.scoped(Semaphore.getKey(hosts, "b", 1))
      yield* TestClock.adjust("1 second")
      expect((yield* Effect.flip(Fiber.join(late))).message).toContain("\"host[a]\"")
      const tooMany = yield* Effect.exit(Semaphore.withPermitsKey(Effect.void, hosts, "c", 3))
      expect(Exit.isFailure(tooMany) && Cause.pretty(tooMany.cause)).toContain("never be served")
      expect(yield* Semaphore.size(hosts)).toBe(2)
      yield* Fiber.interruptAll([a, b])
      expect(yield* Semaphore.size(hosts)).toBe(0)
      expect(yield* Semaphore.statsKey(hosts, "a")).toEqual({ permits: 2, free: 2, waiting: 0 })
    }))

  it.effect("a wait is a span of the program's tracer; what is free at once is none", () =>
    Effect.gen(function*() {
      const spans: Array<string> = []
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: native.context,
        span: (name, ...rest) => {
          spans.push(name)
          return native.span(name, ...rest)
        }
      })
      const semaphore = Semaphore.unsafeMake(1)
      const use = Effect.withTracer(Semaphore.withPermit(Effect.yieldNow(), semaphore), tracer)
      yield* use
      expect(spans).toEqual([])
      const fibers = [yield* Effect.fork(use), yield* Effect.fork(use)]
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(spans).toEqual(["holdfast.semaphore.acquire"])
      expect(Semaphore.unsafeStats(semaphore).free).toBe(1)
    }))

  it("a handle shows its name and its counters, and is no other handle", () => {
    const semaphore = Semaphore.unsafeMake(2, { name: "two" })
    expect(JSON.stringify(semaphore)).toBe(
      "{\"_id\":\"Semaphore\",\"name\":\"two\",\"permits\":2,\"free\":2,\"waiting\":0}"
    )
    expect(semaphore.pipe((self) => self.name)).toBe("two")
    expect(JSON.stringify(Mutex.unsafeMake())).toContain("\"locked\":false")
    expect(JSON.stringify(RwLock.unsafeMake())).toContain("\"readers\":0")
    const takesShared = (shared: Shared.Shared<unknown, unknown>): unknown => shared
    const takesMutex = (mutex: Mutex.Mutex): unknown => mutex
    // @ts-expect-error
    takesShared(Mutex.unsafeMake())
    // @ts-expect-error
    takesMutex(RwLock.unsafeMake())
    // @ts-expect-error
    takesMutex(semaphore)
    const unbounded: Effect.Effect<void> = Semaphore.withPermit(Effect.void, semaphore)
    const bounded = Semaphore.withPermit(Effect.void, semaphore, { acquireTimeout: "1 second" })
    expectTypeOf(bounded).toEqualTypeOf<Effect.Effect<void, Semaphore.SemaphoreTimeout>>()
    expect(unbounded).toBeDefined()
  })

  it("misuse is refused by name", () => {
    for (const permits of [-1, 1.5, NaN, Infinity]) {
      expect(() => Semaphore.unsafeMake(permits)).toThrow("whole number of permits")
    }
    expect(() => Semaphore.unsafeMake(1, { nome: "x" } as {})).toThrow("has no option `nome`")
    const semaphore = Semaphore.unsafeMake(1)
    expect(() => Semaphore.unsafeTryTake(semaphore, 2)).toThrow("could never be served")
    expect(() => Semaphore.unsafeRelease(semaphore, 1)).toThrow("released twice")
    expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 1, free: 1, waiting: 0 })
  })
})

describe("keyed operations", () => {
  it("infer the key, and fail with a timeout only if the wait is bounded", () => {
    type Key = "a" | "b"
    type Kept = Effect.Effect<number, "no">
    const semaphores = Effect.runSync(Semaphore.makeKeyed<Key>(1))
    const locks = Effect.runSync(RwLock.makeKeyed<Key>())
    const work: Kept = Effect.succeed(1)
    const bound = { acquireTimeout: "1 second" } as const
    expectTypeOf(Semaphore.withPermitsKey(work, semaphores, "a", 1)).toEqualTypeOf<Kept>()
    expectTypeOf(work.pipe(Semaphore.withPermitsKey(semaphores, "a", 1, bound)))
      .toEqualTypeOf<Effect.Effect<number, "no" | Semaphore.SemaphoreTimeout>>()
    expectTypeOf(Semaphore.getKey(semaphores, "b", 1)).toEqualTypeOf<
      Effect.Effect<void, never, Scope.Scope>
    >()
    expectTypeOf(RwLock.tryWithReadKey(work, locks, "a"))
      .toEqualTypeOf<Effect.Effect<Option.Option<number>, "no">>()
    expectTypeOf(RwLock.withWriteKey(locks, "a", bound)(work))
      .toEqualTypeOf<Effect.Effect<number, "no" | RwLock.RwLockTimeout>>()
    // @ts-expect-error: no such key
    const noSuchKey = RwLock.statsKey(locks, "c")
    // @ts-expect-error: a handle of another module
    const otherHandle = () => Semaphore.statsKey(locks, "a")
    expect(Effect.isEffect(noSuchKey) && Effect.isEffect(otherHandle)).toBe(false)
  })
})
