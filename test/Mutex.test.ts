import { describe, expect, it } from "@effect/vitest"
import { Cause, Data, Effect, Exit, Fiber, Option, Runtime, Scope, TestClock } from "effect"
import { Ledger, Mutex } from "holdfast"
import { delayed, turnsBeforeYield } from "./support/yields.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 6)

const isFree = { locked: false, waiting: 0, holder: Option.none() }

/** Every gap between two operations: small budgets and all yields in them, then the default budget ending in each gap. */
const inEveryGap = (
  scenario: (yields: number, delay: Effect.Effect<void>) => Effect.Effect<void>
) =>
  Effect.gen(function*() {
    for (let budget = 14; budget <= 42; budget++) {
      for (let yields = 0; yields <= 25; yields++) {
        yield* Effect.withMaxOpsBeforeYield(scenario(yields, Effect.void), budget)
      }
    }
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) yield* scenario(1, delayed(turns - less))
  })

/** What it dies of. */
const defectOf = (effect: Effect.Effect<unknown, unknown>) =>
  Effect.map(
    Effect.sandbox(effect).pipe(Effect.flip),
    (cause) => Option.getOrThrow(Cause.dieOption(cause))
  )

describe("Mutex", () => {
  it.effect("Mutex-1 Mutex-2: one at a time, first come first served, and who comes back waits again", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const log: Array<string> = []
      const visit = (name: string) =>
        Effect.gen(function*() {
          log.push(`+${name}`)
          yield* Effect.yieldNow()
          log.push(`-${name}`)
        }).pipe(Mutex.withLock(mutex))
      const fibers = [
        yield* Effect.fork(Effect.zipRight(visit("a1"), visit("a2"))),
        yield* Effect.fork(visit("b")),
        yield* Effect.fork(visit("c"))
      ]
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(log).toEqual(["+a1", "-a1", "+b", "-b", "+c", "-c", "+a2", "-a2"])
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }))

  it.effect("Mutex-1 Handover-1: given back once on success, failure, defect and interruption", () =>
    Effect.gen(function*() {
      const mutex = Mutex.unsafeMake()
      for (const body of [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt]) {
        const plain = yield* Effect.exit(body)
        expect(yield* Effect.exit(Mutex.withLock(body, mutex))).toEqual(plain)
        expect(yield* Mutex.stats(mutex)).toEqual(isFree)
      }
    }))

  it.effect("Mutex-1 Mutex-3: interrupted in every gap, by lock, try, timeout and scope: free afterwards (S6)", () =>
    Effect.gen(function*() {
      const inScope = (mutex: Mutex.Mutex) =>
        Effect.scoped(Effect.zipRight(Mutex.get(mutex), Effect.yieldNow()))
      const ways: Array<(mutex: Mutex.Mutex) => Effect.Effect<unknown, unknown>> = [
        (mutex) => Mutex.withLock(Effect.yieldNow(), mutex),
        (mutex) => Mutex.tryWithLock(Effect.yieldNow(), mutex),
        (mutex) => Mutex.withLock(Effect.yieldNow(), mutex, { acquireTimeout: "1 hour" }),
        inScope
      ]
      for (const way of ways) {
        yield* inEveryGap((yields, delay) =>
          Effect.gen(function*() {
            const mutex = Mutex.unsafeMake()
            const first = yield* Effect.fork(Effect.zipRight(delay, way(mutex)))
            const second = yield* Effect.fork(Effect.zipRight(delay, way(mutex)))
            yield* Effect.repeatN(Effect.yieldNow(), yields)
            yield* Fiber.interrupt(yields % 2 === 0 ? first : second)
            yield* Fiber.await(first)
            yield* Fiber.await(second)
            expect(yield* Mutex.stats(mutex)).toEqual(isFree)
            expect(yield* Mutex.tryWithLock(Effect.succeed(1), mutex)).toEqual(Option.some(1))
          })
        )
      }
    }))

  it.effect("Mutex-4: a fiber that asks again dies at once, and what it holds is given back once (S22)", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make({ name: "ledger" })
      const again = Mutex.withLock(Mutex.withLock(Effect.void, mutex), mutex)
      const error = yield* defectOf(again)
      expect(error).toBeInstanceOf(Mutex.MutexReentry)
      expect(String(error)).toContain("Mutex \"ledger\" is held by this very fiber")
      expect(
        yield* defectOf(
          Mutex.withLock(Mutex.withLock(Effect.void, mutex, { acquireTimeout: "1 hour" }), mutex)
        )
      ).toBeInstanceOf(Mutex.MutexReentry)
      expect(yield* defectOf(Mutex.withLock(Effect.scoped(Mutex.get(mutex)), mutex)))
        .toBeInstanceOf(Mutex.MutexReentry)
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }))

  it.effect("Mutex-4: another fiber waits, one that had it before is welcome, and detection can be off (S22)", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const unaware = yield* Mutex.make({ detectReentry: false })
      const twice: Effect.Effect<void> = Mutex.withLock(Effect.void, unaware)
      yield* Effect.zipRight(twice, twice)
      yield* Mutex.withLock(Effect.void, mutex)
      yield* Mutex.withLock(
        Effect.gen(function*() {
          const child = yield* Effect.forkDaemon(Mutex.withLock(Effect.succeed("child"), mutex))
          yield* settle
          const { holder, ...rest } = yield* Mutex.stats(mutex)
          expect(rest).toEqual({ locked: true, waiting: 1 })
          expect(Option.getOrThrow(holder)).toEqual(yield* Effect.fiberId)
          yield* Fiber.interrupt(child)
        }),
        mutex
      )
      const waiting = yield* Effect.fork(Mutex.withLock(twice, unaware))
      yield* settle
      expect((yield* Mutex.stats(unaware)).waiting).toBe(1)
      yield* Fiber.interrupt(waiting)
    }))

  it.effect("Mutex-5 Mutex-3: the bound is on the wait only; who is late says who held it (S25)", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make({ name: "press" })
      const long = yield* Effect.fork(
        Mutex.withLock(Effect.as(Effect.sleep("1 hour"), "done"), mutex, {
          acquireTimeout: "1 second"
        })
      )
      yield* settle
      const late = yield* Effect.fork(
        Mutex.withLock(Effect.void, mutex, { acquireTimeout: "1 second" })
      )
      yield* settle
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(Fiber.join(late))
      if (error._tag !== "MutexTimeout") return expect.fail("not a timeout")
      expect(error.holder).toEqual(Option.some(long.id()))
      expect(error.message).toMatch(/^Mutex "press" was not free within 1s: held by fiber #\d+/)
      yield* TestClock.adjust("1 hour")
      expect(yield* Fiber.join(long)).toBe("done")
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }))

  it.effect("Mutex-3: a try is refused while it is held, and never waits", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const holder = yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      yield* settle
      expect(yield* Effect.void.pipe(Mutex.tryWithLock(mutex))).toEqual(Option.none())
      yield* Fiber.interrupt(holder)
      expect(yield* Mutex.tryWithLock(Effect.fail("no"), mutex).pipe(Effect.flip)).toBe("no")
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }))

  it.effect("Handover-2 Mutex-1: a scope's hold is in the ledger, ends with the scope, and needs an open one", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make({ name: "door" })
      const ledger = yield* Ledger.Ledger
      const scope = yield* Scope.make()
      yield* Scope.extend(Mutex.get(mutex), scope)
      expect((yield* ledger!.snapshot).live).toMatchObject([{ kind: "lock", name: "door" }])
      expect((yield* Mutex.stats(mutex)).locked).toBe(true)
      yield* Scope.close(scope, Exit.void)
      yield* ledger!.assertEmpty
      const exit = yield* Effect.exit(Scope.extend(Mutex.get(mutex), scope))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
        "\"door\" was not acquired: its owner \"scope\" is closed"
      )
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Mutex-6: a wait that was late or interrupted stands in the ledger with why; a try that found nothing does not", () =>
    Effect.gen(function*() {
      const ledger = (yield* Ledger.Ledger)!
      const mutex = Mutex.unsafeMake({ name: "m" })
      const holder = yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      yield* settle
      const late = yield* Effect.fork(
        Mutex.withLock(Effect.void, mutex, { acquireTimeout: "1 second" })
      )
      const cut = yield* Effect.fork(Effect.scoped(Mutex.get(mutex)))
      yield* settle
      expect(yield* Mutex.tryWithLock(Effect.void, mutex)).toEqual(Option.none())
      yield* Fiber.interrupt(cut)
      yield* TestClock.adjust("1 second")
      expect(yield* Effect.flip(Fiber.join(late))).toMatchObject({ waiting: 0 })
      const { ended, live, total } = yield* ledger.snapshot
      expect(live.map(({ state }) => state)).toEqual(["held"])
      expect(total).toMatchObject({ acquired: 1, released: 0 })
      expect(ended.map(({ kind, name, state }) => [kind, name, state])).toEqual([
        ["lock", "m", "failed"],
        ["lock", "m", "failed"]
      ])
      expect(ended[0]!.cause).toContain("interrupted")
      expect(ended[1]!.cause).toContain("Mutex \"m\" was not free within 1s")
      yield* Fiber.interrupt(holder)
      yield* ledger.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Mutex-2: an option of a wait that is wrong is a defect, passes nobody, and nothing is remembered of its keys", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<string>({ name: "m" })
      const holder = yield* Effect.fork(Mutex.withLockKey(Effect.never, keyed, "a"))
      yield* settle
      for (
        const [options, complaint] of [
          [{ priority: NaN }, "mutex \"m\": `priority` must be a number; got NaN."],
          [{ priority: "high" }, "`priority` must be a number"],
          [{ acquireTimeout: NaN }, "`acquireTimeout` must be a duration"],
          [{ acquireTimeout: "soon" }, "`acquireTimeout` must be a duration"],
          [{ timeout: 5 }, "mutex \"m\" has no option `timeout`"]
        ] as ReadonlyArray<readonly [{}, string]>
      ) {
        const one = yield* defectOf(Mutex.withLockKey(Effect.void, keyed, "a", options))
        const several = yield* defectOf(Mutex.withLockKeys(Effect.void, keyed, ["b", "a"], options))
        expect([String(one), String(several)]).toEqual([
          expect.stringContaining(complaint),
          expect.stringContaining(complaint)
        ])
        expect([yield* Mutex.size(keyed), (yield* Mutex.statsKey(keyed, "a")).waiting]).toEqual([
          1,
          0
        ])
      }
      yield* Fiber.interrupt(holder)
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))

  it.effect("Mutex-4: for a scope that is closed it does not even wait", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const keyed = yield* Mutex.makeKeyed<string>()
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      yield* settle
      for (const get of [Mutex.get(mutex), Mutex.getKey(keyed, "a")]) {
        expect(yield* defectOf(Scope.extend(get, scope))).toMatchObject({ _tag: "OwnerClosed" })
      }
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))

  it.effect("Mutex-6: between a grant and its fiber's next step stats names the fiber that was granted", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const first = yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      const second = yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      const third = yield* Effect.fork(Effect.scoped(Effect.zipRight(Mutex.get(mutex), settle)))
      yield* settle
      const seen: Array<unknown> = []
      const runtime = yield* Effect.runtime()
      const look = () => seen.push(Runtime.runSync(runtime)(Mutex.stats(mutex)))
      first.addObserver(look)
      yield* Fiber.interrupt(first)
      // Here the second has not run.
      expect(seen).toEqual([{ locked: true, waiting: 1, holder: Option.some(second.id()) }])
      second.addObserver(look)
      yield* Fiber.interrupt(second)
      expect(seen.at(-1)).toEqual({ locked: true, waiting: 0, holder: Option.none() })
      yield* Fiber.join(third)
      expect(yield* Mutex.stats(mutex)).toEqual(isFree)
    }))

  it.effect("Mutex-2: a higher priority is served first, equal ones in the order of arrival", () =>
    Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const log: Array<string> = []
      const ask = (name: string, priority: number) =>
        Effect.fork(
          Mutex.withLock(Effect.sync(() => log.push(name)), mutex, {
            priority,
            acquireTimeout: "1 hour"
          })
        )
      const holder = yield* Effect.fork(Mutex.withLock(Effect.never, mutex))
      yield* settle
      for (const [name, priority] of [["a", 0], ["b", 5], ["c", 0], ["d", 5], ["e", -1]] as const) {
        yield* ask(name, priority)
      }
      yield* settle
      yield* Fiber.interrupt(holder)
      yield* settle
      expect(log).toEqual(["b", "d", "a", "c", "e"])
    }))
})

class Key extends Data.Class<{ readonly id: number }> {}

describe("KeyedMutex", () => {
  it.effect("KeyedMutex-1: the same key is one lock, different keys do not wait, data is compared by value (S24)", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<Key>()
      const log: Array<string> = []
      const visit = (name: string, id: number) =>
        Effect.fork(
          Effect.zipRight(Effect.sync(() => log.push(name)), Effect.never).pipe(
            Mutex.withLockKey(keyed, new Key({ id }))
          )
        )
      const first = yield* visit("1a", 1)
      yield* visit("1b", 1)
      yield* visit("2", 2)
      yield* settle
      expect(log).toEqual(["1a", "2"])
      yield* Fiber.interrupt(first)
      yield* settle
      expect(log).toEqual(["1a", "2", "1b"])
      expect(yield* Mutex.size(keyed)).toBe(2)
    }))

  it.effect("KeyedMutex-2: 10^6 keys leave nothing behind (S24)", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<number>()
      let key = 0
      yield* Effect.whileLoop({
        while: () => key < 1_000_000,
        body: () => Mutex.withLockKey(Effect.void, keyed, key),
        step: () => key++
      })
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))

  it.effect("KeyedMutex-3: opposite orders do not deadlock; each key is taken once (S24)", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<string>()
      const inside = new Set<string>()
      const visit = (keys: ReadonlyArray<string>) =>
        Effect.gen(function*() {
          for (const key of new Set(keys)) {
            expect(inside.has(key)).toBe(false)
            inside.add(key)
          }
          yield* Effect.yieldNow()
          for (const key of keys) inside.delete(key)
        }).pipe(Mutex.withLockKeys(keyed, keys))
      const lists = [["a", "b"], ["b", "a"], ["c", "a", "c"], ["b", "c"], ["a", "b", "c"], []]
      const fibers = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => lists[index % lists.length]!),
        (keys) => Effect.fork(visit(keys))
      )
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))

  it.effect("KeyedMutex-2 KeyedMutex-3: interrupted in every gap, also half way through its keys: nothing is held (S6, S24)", () =>
    inEveryGap((yields, delay) =>
      Effect.gen(function*() {
        const keyed = yield* Mutex.makeKeyed<string>()
        const visit = (keys: ReadonlyArray<string>) =>
          Effect.fork(
            Effect.zipRight(delay, Mutex.withLockKeys(Effect.yieldNow(), keyed, keys))
          )
        const fibers = [
          yield* visit(["b"]),
          yield* visit(["a", "b", "c"]),
          yield* visit(["c", "a"])
        ]
        yield* Effect.repeatN(Effect.yieldNow(), yields)
        yield* Fiber.interrupt(fibers[yields % 3]!)
        for (const fiber of fibers) yield* Fiber.await(fiber)
        expect(yield* Mutex.size(keyed)).toBe(0)
      })
    ))

  it.effect("KeyedMutex-3: one that leaves half way gives what it had to the next in line", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<string>()
      const visit = (...keys: ReadonlyArray<string>) =>
        Effect.fork(Mutex.withLockKeys(Effect.never, keyed, keys))
      const first = yield* visit("a")
      yield* visit("b")
      const both = yield* visit("a", "b")
      yield* settle
      yield* Fiber.interrupt(first)
      const next = yield* Effect.fork(Mutex.withLockKey(Effect.succeed("has a"), keyed, "a"))
      yield* settle
      expect(next.unsafePoll()).toBeNull()
      yield* Fiber.interrupt(both)
      expect(yield* Fiber.join(next)).toBe("has a")
    }))

  it.effect("Mutex-4 KeyedMutex-2: a fiber that asks for a key that it holds dies before any is taken (S22)", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<string>({ name: "row" })
      const error = yield* defectOf(
        Mutex.withLockKey(Mutex.withLockKeys(Effect.void, keyed, ["b", "a"]), keyed, "a")
      )
      expect(String(error)).toContain("Mutex \"row[a]\" is held by this very fiber")
      yield* Mutex.withLockKey(Mutex.withLockKey(Effect.void, keyed, "b"), keyed, "a")
      const broken = Effect.exit(Mutex.withLockKeys(
        Effect.void,
        keyed,
        (function*() {
          yield "a"
          throw new Error("no more keys")
        })()
      ))
      expect(Exit.isFailure(yield* broken)).toBe(true)
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))

  it.effect("KeyedMutex-1 KeyedMutex-2: a try, a scope and a bound by key leave nothing behind", () =>
    Effect.gen(function*() {
      const keyed = yield* Mutex.makeKeyed<string>({ name: "row" })
      expect(yield* Mutex.tryWithLockKey(Effect.succeed(1), keyed, "a")).toEqual(Option.some(1))
      expect(yield* Mutex.size(keyed)).toBe(0)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Mutex.getKey(keyed, "a")
        expect(yield* Mutex.tryWithLockKey(Effect.succeed(1), keyed, "a")).toEqual(Option.none())
        expect(yield* Mutex.tryWithLockKey(Effect.succeed(1), keyed, "b")).toEqual(Option.some(1))
        expect(yield* Mutex.statsKey(keyed, "a")).toMatchObject({ locked: true, waiting: 0 })
        expect(yield* Mutex.statsKey(keyed, "b")).toEqual(isFree)
        const late = yield* Effect.fork(
          Mutex.withLockKeys(Effect.void, keyed, ["b", "a"], { acquireTimeout: "1 second" })
        )
        yield* settle
        yield* TestClock.adjust("1 second")
        expect((yield* Effect.flip(Fiber.join(late))).message).toContain(
          "Mutex \"row[a]\" was not free within 1s: held by a scope, 0 more waiting"
        )
        expect(yield* Mutex.size(keyed)).toBe(1)
      }))
      expect(yield* Mutex.size(keyed)).toBe(0)
    }))
})
