import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Option,
  Scope,
  TestClock
} from "effect"
import * as fc from "fast-check"
import type * as Pool from "holdfast/Pool"
import * as KeyedPool from "holdfast/Pool/Keyed"

const settle = Effect.repeatN(Effect.yieldNow(), 30)

const source = () => {
  const state = { made: [] as Array<string>, closed: [] as Array<string>, live: 0, mostLive: 0 }
  const acquire = (key: string) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        state.live++
        state.mostLive = Math.max(state.mostLive, state.live)
        state.made.push(key)
        return { key, id: state.made.length }
      }),
      () =>
        Effect.sync(() => {
          state.live--
          state.closed.push(key)
        })
    )
  return { state, acquire }
}

const hold = <A, E>(pool: KeyedPool.KeyedPool<string, A, E>, key: string, order?: Array<string>) =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const fiber = yield* Effect.fork(
      KeyedPool.use(
        pool,
        key,
        () => Effect.zipRight(Effect.sync(() => order?.push(key)), Deferred.await(gate))
      )
    )
    yield* settle
    return { fiber, release: Effect.zipLeft(Deferred.succeed(gate, undefined), settle) }
  })

describe("KeyedPool", () => {
  it.scoped("KeyedPool-1: bounds each key and all together", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ acquire, maxPerKey: 2, maxTotal: 3 })
      const holders = []
      for (const key of ["a", "a", "a", "b", "c"]) holders.push(yield* hold(pool, key))
      expect(yield* KeyedPool.stats(pool)).toMatchObject({ max: 3, size: 3, used: 3, pending: 2 })
      expect(Option.getOrThrow(yield* KeyedPool.statsKey(pool, "a")))
        .toMatchObject({ max: 2, used: 2, pending: 1 })
      expect(state.mostLive).toBe(3)
      for (const { release } of holders) yield* release
      yield* KeyedPool.awaitIdle(pool)
      expect(state.mostLive).toBe(3)
      expect(yield* KeyedPool.stats(pool)).toMatchObject({ used: 0, pending: 0 })
    }))

  it.scoped("KeyedPool-1: the bound of a key may depend on the key; one that cannot be is named", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({
        acquire,
        maxPerKey: (key: string) => key === "none" ? 0 : key.length,
        minIdle: 2
      })
      const fibers = []
      for (const key of ["a", "a", "bbb", "bbb", "bbb", "bbb"]) {
        fibers.push((yield* hold(pool, key)).fiber)
      }
      expect(Option.getOrThrow(yield* KeyedPool.statsKey(pool, "a")))
        .toMatchObject({ max: 1, size: 1, used: 1, pending: 1 })
      expect(Option.getOrThrow(yield* KeyedPool.statsKey(pool, "bbb")))
        .toMatchObject({ max: 3, size: 3, used: 3, pending: 1 })
      expect(state.mostLive).toBe(4)
      const refused = yield* Effect.exit(KeyedPool.use(pool, "none", () => Effect.void))
      expect(Exit.isFailure(refused) && Cause.pretty(refused.cause))
        .toContain("`maxPerKey` of pool[none] must be an integer, 1 or more")
      expect(yield* KeyedPool.size(pool)).toBe(2)
      yield* Fiber.interruptAll(fibers)
    }))

  it.scoped("KeyedPool-2: a key does not wait for another while there is room", () =>
    Effect.gen(function*() {
      const pool = yield* KeyedPool.make({ acquire: source().acquire, maxPerKey: 1 })
      const a = yield* hold(pool, "a")
      const waiting = yield* hold(pool, "a")
      expect(yield* KeyedPool.use(pool, "b", ({ key }) => Effect.succeed(key))).toBe("b")
      yield* a.release
      yield* waiting.release
    }))

  it.scoped("KeyedPool-2: the item idle for longest makes room for another key", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ acquire, maxPerKey: 2, maxTotal: 2 })
      yield* KeyedPool.use(pool, "old", () => Effect.void)
      yield* TestClock.adjust("1 second")
      yield* KeyedPool.use(pool, "new", () => Effect.void)
      expect(yield* KeyedPool.use(pool, "other", ({ key }) => Effect.succeed(key))).toBe("other")
      expect(state.closed).toEqual(["old"])
    }))

  it.scoped("KeyedPool-2: a busy key does not starve another: first come, first served over keys", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ acquire, maxPerKey: 1, maxTotal: 1 })
      const order: Array<string> = []
      const holders = []
      for (const key of ["a", "a", "b", "a", "c", "b"]) holders.push(yield* hold(pool, key, order))
      for (const { release } of holders) yield* release
      expect(order).toEqual(["a", "a", "b", "a", "c", "b"])
      expect(state.mostLive).toBe(1)
    }))

  it.scoped("KeyedPool-2: a higher priority is served first over keys", () =>
    Effect.gen(function*() {
      const pool = yield* KeyedPool.make({ acquire: source().acquire, maxPerKey: 1, maxTotal: 1 })
      const order: Array<string> = []
      const ask = (key: string, priority: number) =>
        Effect.zipLeft(
          Effect.fork(
            KeyedPool.use(pool, key, () => Effect.sync(() => order.push(key)), { priority })
          ),
          settle
        )
      const holder = yield* hold(pool, "a")
      const waiters = [yield* ask("a", 0), yield* ask("b", 0), yield* ask("c", 1)]
      yield* holder.release
      yield* Effect.forEach(waiters, Fiber.join)
      expect(order).toEqual(["c", "a", "b"])
    }))

  it.scoped("KeyedPool-3: a key without users leaves nothing behind", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ acquire, maxPerKey: 1, idleTimeout: "1 minute" })
      yield* Effect.forEach(
        Array.from({ length: 1_000 }, (_, i) => `key ${i}`),
        (key) => KeyedPool.use(pool, key, () => Effect.void),
        { discard: true }
      )
      expect(yield* KeyedPool.size(pool)).toBe(1_000)
      yield* TestClock.adjust("2 minutes")
      expect(yield* KeyedPool.size(pool)).toBe(0)
      expect(state.live).toBe(0)
      expect(yield* KeyedPool.statsKey(pool, "key 1")).toEqual(Option.none())
    }))

  it.scoped("KeyedPool-3: neither does one whose opening failed, whose waiter left, or that came too late", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(
        KeyedPool.make({
          acquire: (key: string) => key === "down" ? Effect.fail("down" as const) : Effect.never,
          maxPerKey: 1,
          createOnAbandon: "interrupt"
        }),
        scope
      )
      expect(yield* Effect.flip(KeyedPool.use(pool, "down", () => Effect.void))).toBe("down")
      yield* settle
      expect(yield* KeyedPool.size(pool)).toBe(0)
      const left = yield* hold(pool, "slow")
      yield* Fiber.interrupt(left.fiber)
      yield* settle
      expect(yield* KeyedPool.size(pool)).toBe(0)
      yield* KeyedPool.close(pool)
      expect(yield* Effect.flip(KeyedPool.use(pool, "late", () => Effect.void)))
        .toMatchObject({ _tag: "PoolClosed", pool: "pool[late]" })
      expect(yield* KeyedPool.size(pool)).toBe(0)
      yield* Scope.close(scope, Exit.void)
    }))

  it.scoped("keys are compared by value; get ends with its scope; invalidate finds its item", () =>
    Effect.gen(function*() {
      let made = 0
      const pool = yield* KeyedPool.make({
        acquire: (key: { readonly host: string; readonly port: number }) =>
          Effect.sync(() => ({ id: ++made, port: key.port })),
        maxPerKey: 1
      })
      const at = (port: number) => Data.struct({ host: "a.example", port })
      yield* Effect.scoped(KeyedPool.get(pool, at(80)))
      yield* KeyedPool.use(pool, at(80), () => Effect.void)
      expect(made).toBe(1)
      const item = yield* KeyedPool.use(pool, at(80), Effect.succeed)
      expect(yield* KeyedPool.invalidate(pool, item)).toBe(true)
      expect(yield* KeyedPool.invalidate(pool, item)).toBe(false)
      yield* KeyedPool.use(pool, at(80), () => Effect.void)
      yield* KeyedPool.invalidateKey(pool, at(80))
      yield* KeyedPool.use(pool, at(80), () => Effect.void)
      expect(made).toBe(3)
    }))

  it.scoped("Pool-3: get in a scope that is closed dies and acquires nothing; no item has two users", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ acquire, maxPerKey: 1 })
      const closed = yield* Scope.make()
      yield* Scope.close(closed, Exit.void)
      const refused = { _tag: "OwnerClosed", owner: "scope", resource: "pool[a]" }
      expect(yield* Effect.flip(Effect.sandbox(Scope.extend(KeyedPool.get(pool, "a"), closed))))
        .toMatchObject({ defect: refused })
      expect(state.made).toEqual([])

      const scope = yield* Scope.make()
      const holder = yield* hold(pool, "a")
      const waiter = yield* Effect.fork(
        Effect.flip(Effect.sandbox(Scope.extend(KeyedPool.get(pool, "a"), scope)))
      )
      yield* settle
      yield* Scope.close(scope, Exit.void)
      yield* holder.release
      expect(yield* Fiber.join(waiter)).toMatchObject({ defect: refused })
      expect(yield* KeyedPool.stats(pool)).toMatchObject({ idle: 1, used: 0 })
    }))

  it.scoped("tryUse, lease and holders work by key; a wait has its bound; a layer provides it", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* KeyedPool.make({ name: "hosts", acquire, maxPerKey: 1 })
      const attempt = KeyedPool.tryUse(pool, "a", ({ key }) => Effect.succeed(key))
      expect(yield* attempt).toEqual(Option.none())
      expect(yield* KeyedPool.size(pool)).toBe(0)
      yield* Effect.scoped(Effect.gen(function*() {
        const lease = yield* KeyedPool.lease(pool, "a")
        expect((yield* KeyedPool.holders(pool)).length).toBe(1)
        expect(yield* attempt).toEqual(Option.none())
        const late = yield* Effect.fork(
          Effect.flip(KeyedPool.use(pool, "a", () => Effect.void, { acquireTimeout: "1 second" }))
        )
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(late)).toMatchObject({ _tag: "PoolTimeout", pool: "hosts[a]" })
        yield* lease.release
        expect(yield* KeyedPool.holders(pool)).toEqual([])
      }))
      expect(yield* attempt).toEqual(Option.some("a"))
      expect(JSON.parse(JSON.stringify(pool)))
        .toMatchObject({ _id: "holdfast/KeyedPool", name: "hosts", keys: 1, idle: 1 })
      expect(yield* pool.pipe(KeyedPool.get("a"), Effect.scoped)).toMatchObject({ key: "a" })

      class Hosts extends Context.Tag("Hosts")<
        Hosts,
        KeyedPool.KeyedPool<string, { readonly key: string }, Pool.PoolClosed>
      >() {}
      const live = KeyedPool.layer(Hosts, {
        acquire: (key: string): Effect.Effect<{ readonly key: string }, never, Scope.Scope> =>
          acquire(key),
        maxPerKey: 1
      })
      yield* Effect.provide(Effect.flatMap(Hosts, KeyedPool.use("b", () => Effect.void)), live)
      expect(state.closed).toEqual(["b"])
    }))

  it("options that cannot be are refused by name", () => {
    const make = (options: object) => () =>
      Effect.runSync(Effect.scoped(
        KeyedPool.make({ acquire: () => Effect.void, maxPerKey: 1, ...options })
      ))
    expect(make({ maxPerKey: 0 })).toThrow("KeyedPool.make: `maxPerKey` must be an integer, 1 or")
    expect(make({ maxTotal: NaN })).toThrow("KeyedPool.make: `maxTotal` must be")
    expect(make({ max: 1 })).toThrow("KeyedPool.make has no option `max`")
    expect(make({ maxLifetime: "-1 second" })).toThrow("`maxLifetime` must be a duration")
  })

  it("KeyedPool-1, KeyedPool-2, KeyedPool-3: hold in 1,000 random schedules", async () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ ask: fc.constantFrom("a", "b", "c", "d") }) },
      { weight: 2, arbitrary: fc.record({ giveBack: fc.nat(9) }) },
      { weight: 1, arbitrary: fc.record({ interrupt: fc.nat(9) }) }
    )
    const schedule = fc.record({
      maxPerKey: fc.integer({ min: 1, max: 2 }),
      maxTotal: fc.integer({ min: 1, max: 3 }),
      steps: fc.array(step, { minLength: 3, maxLength: 16 })
    })
    await fc.assert(
      fc.asyncProperty(schedule, async ({ maxPerKey, maxTotal, steps }) => {
        const wrongs = await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
          const { acquire, state } = source()
          const pool = yield* KeyedPool.make({ acquire, maxPerKey, maxTotal })
          const wrong: Array<string> = []
          const askers: Array<
            { readonly release: Effect.Effect<void>; readonly fiber: Fiber.Fiber<void, unknown> }
          > = []
          const short = Effect.repeatN(Effect.yieldNow(), 4)
          for (const one of steps) {
            if ("ask" in one) {
              const gate = yield* Deferred.make<void>()
              const fiber = yield* Effect.fork(
                KeyedPool.use(pool, one.ask, ({ key }) => {
                  if (key !== one.ask) wrong.push(`${one.ask} got ${key}`)
                  return Deferred.await(gate)
                })
              )
              askers.push({ fiber, release: Deferred.succeed(gate, undefined) })
            } else if ("giveBack" in one) {
              yield* askers[one.giveBack % Math.max(1, askers.length)]?.release ?? Effect.void
            } else {
              const asker = askers[one.interrupt % Math.max(1, askers.length)]
              if (asker !== undefined) yield* Fiber.interruptFork(asker.fiber)
            }
            if (askers.length % 2 === 0) yield* short
            if (state.live > maxTotal) wrong.push(`${state.live} live of ${maxTotal}`)
            for (const key of ["a", "b", "c", "d"]) {
              const { size } = Option.getOrElse(
                yield* KeyedPool.statsKey(pool, key),
                () => ({ size: 0 })
              )
              if (size > maxPerKey) wrong.push(`${size} of ${key}, at most ${maxPerKey}`)
            }
          }
          for (const { release } of askers) yield* release
          for (let i = 0; i < 30; i++) yield* short
          const stats = yield* KeyedPool.stats(pool)
          if (stats.used + stats.pending + stats.creating + stats.closing > 0) {
            wrong.push(`left over: ${JSON.stringify(stats)}`)
          }
          yield* KeyedPool.close(pool)
          if (state.live > 0) wrong.push(`${state.live} live after closing`)
          if ((yield* KeyedPool.size(pool)) > 0) wrong.push("keys after closing")
          return wrong
        })))
        expect(wrongs).toEqual([])
      }),
      { numRuns: 1_000, seed: 7 }
    )
  })
})
