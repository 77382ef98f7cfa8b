/** The promises of a pool, S1–S21, on virtual time, some of them compared with effect's own pool. */
import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Option,
  Pool as EffectPool,
  Ref,
  Schedule,
  Scope,
  TestClock,
  Tracer
} from "effect"
import { Ledger } from "holdfast"
import * as Pool from "holdfast/Pool"

const settle = Effect.repeatN(Effect.yieldNow(), 30)

interface Thing {
  readonly id: number
  closed: boolean
}

/** Something to acquire that counts, and that misbehaves on demand. */
const source = () => {
  const state = { made: 0, live: 0, mostLive: 0, closed: [] as Array<number> }
  const acquire = Effect.acquireRelease(
    Effect.sync((): Thing => {
      state.live++
      state.mostLive = Math.max(state.mostLive, state.live)
      return { id: ++state.made, closed: false }
    }),
    (thing) =>
      Effect.sync(() => {
        if (thing.closed) throw new Error("closed twice")
        thing.closed = true
        state.live--
        state.closed.push(thing.id)
      })
  )
  return { state, acquire }
}

const numbers = <A, E>(pool: Pool.Pool<A, E>) => {
  const { closing, creating, idle, pending, used } = Pool.unsafeStats(pool)
  return { idle, used, creating, closing, pending }
}
const quiet = { idle: 0, used: 0, creating: 0, closing: 0, pending: 0 }

const failureOf = <A, E>(exit: Exit.Exit<A, E>): E | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.failureOption(exit.cause)) : undefined

const diedOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined

/** A holder that gives back at its `release`. */
const hold = <A, E>(pool: Pool.Pool<A, E>) =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const got = yield* Deferred.make<A, E>()
    const fiber = yield* Effect.fork(
      Pool.use(
        pool,
        (item) => Effect.zipRight(Deferred.succeed(got, item), Deferred.await(gate))
      )
    )
    yield* settle
    return { fiber, got, release: Effect.zipLeft(Deferred.succeed(gate, undefined), settle) }
  })

const collectingLogs = (into: Array<string>) =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ message }) => {
      into.push(Arr.ensure(message).map(String).join(" "))
    })
  )

describe("Pool, fairness", () => {
  it.scoped("S1: waiters are served in the order of arrival, and no newcomer passes one", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const order: Array<number> = []
      const first = yield* hold(pool)
      const waiters: Array<Fiber.RuntimeFiber<void, Pool.PoolClosed>> = []
      for (let i = 0; i < 20; i++) {
        waiters.push(
          yield* Effect.fork(
            Pool.use(
              pool,
              () => Effect.zipRight(Effect.sync(() => order.push(i)), Effect.yieldNow())
            )
          )
        )
        yield* Effect.yieldNow()
      }
      yield* settle
      yield* first.release
      for (const waiter of waiters) yield* Fiber.join(waiter)
      expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i))
    }))

  it.scoped("S1: who gives back and asks again does not pass a waiter; effect's pool lets him, for ever", () =>
    Effect.gen(function*() {
      const rounds = 1_000
      const roundsBeforeServed = (
        use: (body: Effect.Effect<void>) => Effect.Effect<void, unknown>
      ) =>
        Effect.gen(function*() {
          let round = 0
          let served = Infinity
          const greedy = yield* Effect.fork(
            Effect.whileLoop({
              while: () => round < rounds,
              body: () => use(Effect.zipRight(Effect.sync(() => round++), Effect.yieldNow())),
              step: () => {}
            })
          )
          yield* Effect.yieldNow()
          const waiter = yield* Effect.fork(use(Effect.sync(() => {
            served = round
          })))
          yield* Fiber.join(greedy)
          yield* Fiber.join(waiter)
          return served
        })
      const ours = yield* Pool.make({ acquire: source().acquire, max: 1 })
      expect(yield* roundsBeforeServed((body) => Pool.use(ours, () => body))).toBeLessThanOrEqual(2)
      const raw = yield* EffectPool.make({ acquire: Effect.void, size: 1 })
      // The defect. When this line fails, upstream has fixed it.
      expect(
        yield* roundsBeforeServed((body) =>
          Effect.scoped(Effect.zipRight(EffectPool.get(raw), body))
        )
      ).toBeGreaterThanOrEqual(rounds)
    }))

  it.scoped("S2: tryUse takes what is idle, never waits, never passes a waiter", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const attempt = Pool.tryUse(pool, ({ id }) => Effect.succeed(id))
      expect(yield* attempt).toEqual(Option.none())
      yield* Pool.use(pool, () => Effect.void)
      expect(yield* attempt).toEqual(Option.some(1))
      const holder = yield* hold(pool)
      const waiter = yield* hold(pool)
      expect(yield* attempt).toEqual(Option.none())
      expect(numbers(pool)).toEqual({ ...quiet, used: 1, pending: 1 })
      yield* holder.release
      expect(yield* attempt).toEqual(Option.none())
      yield* waiter.release
      expect(yield* attempt).toEqual(Option.some(1))
    }))

  it.scoped("Pool-2: a higher priority is served first, first come first served within one", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const order: Array<string> = []
      const ask = (name: string, priority?: number) =>
        Effect.zipLeft(
          Effect.fork(
            Pool.use(pool, () => Effect.sync(() => order.push(name)), { priority })
          ),
          settle
        )
      const holder = yield* hold(pool)
      const waiters = [
        yield* ask("low", -1),
        yield* ask("first"),
        yield* ask("high", 5),
        yield* ask("second"),
        yield* ask("high too", 5)
      ]
      yield* holder.release
      yield* Effect.forEach(waiters, Fiber.join)
      expect(order).toEqual(["high", "high too", "first", "second", "low"])
      expect(() => Pool.use(pool, () => Effect.void, { priority: NaN }))
        .toThrow("Pool.use: `priority` must be a number")
    }))

  it.scoped("S3: a return wakes exactly one waiter", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 2 })
      const holders = [yield* hold(pool), yield* hold(pool)]
      const waiters = [yield* hold(pool), yield* hold(pool), yield* hold(pool)]
      expect(numbers(pool)).toEqual({ ...quiet, used: 2, pending: 3 })
      yield* holders[0]!.release
      expect(yield* Effect.forEach(waiters, ({ got }) => Deferred.isDone(got)))
        .toEqual([true, false, false])
      expect(numbers(pool)).toEqual({ ...quiet, used: 2, pending: 2 })
      for (const { release } of [holders[1]!, ...waiters]) yield* release
      expect(numbers(pool)).toEqual({ ...quiet, idle: 2 })
    }))
})

describe("Pool, interruption", () => {
  it.scoped("S4: an interrupted waiter leaves at once, while all holders hold", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const holder = yield* hold(pool)
      const waiters = yield* Effect.replicateEffect(hold(pool), 3)
      yield* Fiber.interrupt(waiters[1]!.fiber)
      expect(numbers(pool)).toEqual({ ...quiet, used: 1, pending: 2 })
      expect(Pool.unsafeStats(pool).cancelledWaits).toBe(1)
      yield* holder.release
      yield* waiters[0]!.release
      yield* waiters[2]!.release
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it.scoped("S5: a waiter interrupted after its grant never runs, and the grant goes to the next", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const gate = yield* Deferred.make<void>()
      const ran: Array<string> = []
      const holder = yield* Effect.fork(Pool.use(pool, () => Deferred.await(gate)))
      yield* settle
      const granted = yield* Effect.fork(
        Pool.use(pool, () => Effect.sync(() => ran.push("granted")))
      )
      yield* settle
      const next = yield* Effect.fork(Pool.use(pool, () => Effect.sync(() => ran.push("next"))))
      yield* settle
      // Interrupted in the step in which its grant is given: it is granted, and has not run.
      holder.addObserver(() => granted.unsafeInterruptAsFork(granted.id()))
      yield* Deferred.succeed(gate, undefined)
      expect(Exit.isInterrupted(yield* Fiber.await(granted))).toBe(true)
      yield* Fiber.join(next)
      expect(ran).toEqual(["next"])
      expect(Pool.unsafeStats(pool).created).toBe(1)
      yield* Pool.awaitIdle(pool)
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it.scoped("S7: when the only waiter of an opening leaves, what it opens serves the next", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire: Effect.delay(acquire, "1 second"), max: 1 })
      const first = yield* hold(pool)
      const second = yield* hold(pool)
      yield* Fiber.interrupt(first.fiber)
      yield* TestClock.adjust("1 second")
      expect((yield* second.got).id).toBe(1)
      yield* second.release
      expect(state.made).toBe(1)
    }))

  it.scoped("S8: an opening outlives its caller and goes idle; with createOnAbandon interrupt it is cut", () =>
    Effect.gen(function*() {
      const kept = source()
      const keep = yield* Pool.make({ acquire: Effect.delay(kept.acquire, "1 second"), max: 1 })
      const caller = yield* hold(keep)
      yield* Fiber.interrupt(caller.fiber)
      expect(numbers(keep)).toEqual({ ...quiet, creating: 1 })
      yield* TestClock.adjust("1 second")
      expect(numbers(keep)).toEqual({ ...quiet, idle: 1 })

      const cut = source()
      const interrupt = yield* Pool.make({
        acquire: Effect.delay(cut.acquire, "1 second"),
        max: 1,
        createOnAbandon: "interrupt"
      })
      const other = yield* hold(interrupt)
      yield* Fiber.interrupt(other.fiber)
      yield* settle
      expect(numbers(interrupt)).toEqual(quiet)
      expect(Pool.unsafeStats(interrupt).createFailures).toBe(0)
      expect(cut.state.made).toBe(0)
    }))
})

describe("Pool, opening", () => {
  it.scoped("Pool-4: S9: a failed opening fails exactly the oldest waiter; effect's pool replays old failures", () =>
    Effect.gen(function*() {
      const { acquire } = source()
      const down = yield* Ref.make(true)
      const flaky = Effect.delay(
        Effect.flatMap(Ref.get(down), (isDown) => isDown ? Effect.fail("down" as const) : acquire),
        "1 second"
      )
      const pool = yield* Pool.make({ acquire: flaky, max: 1 })
      const first = yield* hold(pool)
      const second = yield* hold(pool)
      yield* TestClock.adjust("1 second")
      expect(failureOf(yield* Fiber.await(first.fiber))).toBe("down")
      yield* Ref.set(down, false)
      expect(numbers(pool)).toEqual({ ...quiet, creating: 1, pending: 1 })
      yield* TestClock.adjust("1 second")
      expect((yield* second.got).id).toBe(1)
      yield* second.release
      expect(yield* Pool.use(pool, ({ id }) => Effect.succeed(id))).toBe(1)

      yield* Ref.set(down, true)
      const raw = yield* EffectPool.make({ acquire: flaky, size: 1 })
      yield* TestClock.adjust("1 second")
      yield* Ref.set(down, false)
      const late = yield* Effect.fork(Effect.exit(Effect.scoped(EffectPool.get(raw))))
      yield* TestClock.adjust("10 seconds")
      // The defect: the source is up again, and the failure of long ago is handed out.
      expect(failureOf(yield* Fiber.join(late))).toBe("down")
    }))

  it.scoped("S10: a failed refill is logged and tried again by the schedule, until close", () => {
    const logs: Array<string> = []
    return Effect.gen(function*() {
      const { acquire, state } = source()
      let attempts = 0
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(
        Pool.make({
          acquire: Effect.suspend((): Effect.Effect<Thing, string, Scope.Scope> =>
            ++attempts < 4 ? Effect.fail("down") : acquire
          ),
          max: 2,
          minIdle: 1,
          createRetry: Schedule.spaced("1 second")
        }),
        scope
      )
      yield* settle
      expect(attempts).toBe(1)
      yield* TestClock.adjust("2 seconds")
      expect(attempts).toBe(3)
      expect(logs.filter((line) => line.includes("without a waiter"))).toHaveLength(3)
      expect(Pool.unsafeStats(pool).createFailures).toBe(3)
      yield* TestClock.adjust("1 second")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      yield* Scope.close(scope, Exit.void)
      expect(state.live).toBe(0)
    }).pipe(Effect.provide(collectingLogs(logs)))
  })

  it.scoped("S10: the default schedule waits longer each time, and close ends it", () =>
    Effect.gen(function*() {
      let attempts = 0
      const scope = yield* Scope.make()
      yield* Scope.extend(
        Pool.make({
          acquire: Effect.suspend(() => {
            attempts++
            return Effect.fail("down")
          }),
          max: 1,
          minIdle: 1
        }),
        scope
      )
      yield* TestClock.adjust("1 minute")
      expect(attempts).toBeGreaterThan(8)
      expect(attempts).toBeLessThan(30)
      yield* Scope.close(scope, Exit.void)
      const atClose = attempts
      yield* TestClock.adjust("10 minutes")
      expect(attempts).toBe(atClose)
    }).pipe(Effect.provide(collectingLogs([]))))

  it.scoped("S11: acquireTimeout bounds wait and opening, and tells why; the pool goes on", () =>
    Effect.gen(function*() {
      const { acquire } = source()
      const pool = yield* Pool.make({
        name: "db",
        acquire: Effect.delay(acquire, "10 seconds"),
        max: 1,
        acquireTimeout: "3 seconds"
      })
      const first = yield* hold(pool)
      yield* TestClock.adjust("1 second")
      const second = yield* hold(pool)
      yield* TestClock.adjust("2 seconds")
      const error = failureOf(yield* Fiber.await(first.fiber))
      expect(error).toBeInstanceOf(Pool.PoolTimeout)
      if (error?._tag !== "PoolTimeout") return
      expect(error.phase).toBe("acquire")
      expect(Duration.toMillis(error.waited)).toBe(3_000)
      expect(error.stats.creating).toBe(1)
      expect(error.heldByWaiter).toBe(0)
      expect(error.message).toContain("No item of pool \"db\" within 3s (max 1: 0 used")
      expect(second.fiber.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 second")
      expect(failureOf(yield* Fiber.await(second.fiber))?._tag).toBe("PoolTimeout")
      expect(Pool.unsafeStats(pool).timeouts).toBe(2)
      yield* TestClock.adjust("6 seconds")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it.scoped("S11: the timeout of a fiber that waits for itself says so", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({
        acquire: source().acquire,
        max: 1,
        acquireTimeout: "1 second"
      })
      const nested = yield* Effect.fork(
        Effect.flip(Pool.use(pool, () => Pool.use(pool, () => Effect.void)))
      )
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(nested)
      expect(error._tag === "PoolTimeout" && error.heldByWaiter).toBe(1)
      expect(error.message).toContain("The waiting fiber itself holds 1")
    }))

  it.scoped("S11: a wait may have a bound of its own, which is in its type; the waiters behind it stay", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const holder = yield* hold(pool)
      const first = yield* hold(pool)
      const bounded: Effect.Effect<void, Pool.PoolClosed | Pool.PoolTimeout> = Pool.use(
        pool,
        () => Effect.void,
        { acquireTimeout: "1 second" }
      )
      const late = yield* Effect.fork(Effect.flip(bounded))
      const lateGet = yield* Effect.fork(
        Effect.flip(Effect.scoped(Pool.get(pool, { acquireTimeout: "2 seconds" })))
      )
      const last = yield* hold(pool)
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(late)).toMatchObject({ _tag: "PoolTimeout", phase: "acquire" })
      expect(numbers(pool)).toMatchObject({ pending: 3 })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(lateGet)).toMatchObject({ _tag: "PoolTimeout" })
      yield* holder.release
      yield* first.release
      yield* last.release
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      expect(() => Pool.use(pool, () => Effect.void, { acquireTimeout: -1 }))
        .toThrow("Pool.use: `acquireTimeout` must be a duration")
    }))

  it.scoped("S11: createTimeout fails one waiter, frees the slot; what opens late is destroyed", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      let attempts = 0
      const pool = yield* Pool.make({
        // The first ignores its interruption, as a connect without a signal does.
        acquire: Effect.suspend(() =>
          ++attempts === 1 ? Effect.uninterruptible(Effect.delay(acquire, "1 minute")) : acquire
        ),
        max: 1,
        createTimeout: "5 seconds"
      })
      const first = yield* hold(pool)
      const second = yield* hold(pool)
      yield* TestClock.adjust("5 seconds")
      const error = failureOf(yield* Fiber.await(first.fiber))
      expect(error?._tag === "PoolTimeout" && error.phase).toBe("create")
      expect((yield* second.got).id).toBe(1)
      yield* second.release
      yield* TestClock.adjust("1 minute")
      expect(state).toMatchObject({ made: 2, live: 1, closed: [2] })
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it.scoped("S12: maxWaiters refuses at once; openings are bounded by need and by maxConnecting", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({
        acquire: Effect.delay(source().acquire, "1 second"),
        max: 3,
        maxConnecting: 2,
        maxWaiters: 1
      })
      const served = yield* Effect.replicateEffect(hold(pool), 3)
      // Three are being served, two by an opening under way and one by the next: only the fourth waits.
      expect(numbers(pool)).toEqual({ ...quiet, creating: 2, pending: 3 })
      const waiting = yield* hold(pool)
      const refused = yield* Effect.flip(Pool.use(pool, () => Effect.void))
      expect(refused).toBeInstanceOf(Pool.PoolExhausted)
      expect(refused.message).toContain("4 waiting (maxWaiters 1)")
      yield* TestClock.adjust("1 second")
      expect(numbers(pool)).toEqual({ ...quiet, used: 2, creating: 1, pending: 2 })
      yield* TestClock.adjust("1 second")
      for (const { release } of [...served, waiting]) yield* release
      expect(numbers(pool)).toEqual({ ...quiet, idle: 3 })
    }))
})

describe("Pool, the life of an item", () => {
  it.scoped("S13: the last used is lent first, so the pool can shrink; fifo on demand", () =>
    Effect.gen(function*() {
      for (const [reuse, expected] of [["lifo", 2], ["fifo", 1]] as const) {
        const pool = yield* Pool.make({ acquire: source().acquire, max: 2, reuse })
        const one = yield* hold(pool)
        const two = yield* hold(pool)
        yield* one.release
        yield* two.release
        expect(yield* Pool.use(pool, ({ id }) => Effect.succeed(id))).toBe(expected)
      }
    }))

  it.scoped("S13: what idled is checked before it is lent; bad ones are replaced unseen", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const checked: Array<number> = []
      const verdicts: Array<Effect.Effect<boolean, string>> = [
        Effect.succeed(true),
        Effect.succeed(false),
        Effect.fail("reset by peer"),
        Effect.die("bug"),
        Effect.never
      ]
      const pool = yield* Pool.make({
        acquire,
        max: 1,
        validate: ({ id }) =>
          Effect.suspend(() => {
            checked.push(id)
            return verdicts.shift() ?? Effect.succeed(true)
          }),
        validateTimeout: "2 seconds"
      })
      const use = Pool.use(pool, ({ id }) => Effect.succeed(id))
      expect(yield* use).toBe(1)
      yield* TestClock.adjust("499 millis")
      expect(yield* use).toBe(1)
      expect(checked).toEqual([])
      for (const [round, expected] of [1, 2, 3, 4].entries()) {
        yield* TestClock.adjust("500 millis")
        expect([round, yield* use]).toEqual([round, expected])
      }
      yield* TestClock.adjust("500 millis")
      const hung = yield* Effect.fork(use)
      yield* TestClock.adjust("2 seconds")
      expect(yield* Fiber.join(hung)).toBe(5)
      expect(checked).toEqual([1, 1, 2, 3, 4])
      expect(state.live).toBe(1)
    }))

  it.scoped("S14: an old item is replaced at borrow, at return and by the housekeeper, never while lent", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({
        acquire,
        max: 1,
        maxLifetime: "1 minute",
        maxLifetimeJitter: 0
      })
      const old = yield* hold(pool)
      yield* TestClock.adjust("2 minutes")
      expect(state.live).toBe(1)
      yield* old.release
      expect(state.closed).toEqual([1])
      yield* Pool.use(pool, () => Effect.void)
      expect(state.live).toBe(1)
      yield* TestClock.adjust("1 minute")
      expect(state.closed).toEqual([1, 2])
      expect(yield* Pool.use(pool, ({ id }) => Effect.succeed(id))).toBe(3)
    }))

  it.scoped("S14: a hundred born together do not die together", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const died: Array<number> = []
      const pool = yield* Pool.make({
        acquire: Effect.zipLeft(
          acquire,
          Effect.addFinalizer(() =>
            Effect.map(Effect.clock, (clock) => died.push(clock.unsafeCurrentTimeMillis()))
          )
        ),
        max: 100,
        maxLifetime: "100 seconds"
      })
      const all = yield* Effect.replicateEffect(hold(pool), 100)
      for (const { release } of all) yield* release
      expect(state.live).toBe(100)
      yield* TestClock.adjust("100 seconds")
      expect(died).toHaveLength(100)
      expect(Math.min(...died)).toBeGreaterThanOrEqual(90_000)
      expect(Math.max(...died) - Math.min(...died)).toBeGreaterThan(5_000)
    }))

  it.scoped("S15: idle ones above minIdle go after idleTimeout; minIdle is refilled after every removal", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({
        acquire,
        max: 3,
        minIdle: 1,
        idleTimeout: "1 minute",
        maxUses: 2
      })
      yield* settle
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      const holders = yield* Effect.replicateEffect(hold(pool), 3)
      yield* settle
      for (const { release } of holders) yield* release
      expect(numbers(pool).idle).toBe(3)
      yield* TestClock.adjust("61 seconds")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      yield* TestClock.adjust("1 hour")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      // It is the same one: what minIdle keeps does not go.
      expect(state.made).toBe(3)
      // Worn out, invalid, evicted: each time another is there.
      const before = state.made
      yield* Pool.use(pool, () => Effect.void)
      yield* settle
      expect(numbers(pool).idle).toBeGreaterThanOrEqual(1)
      yield* Pool.use(pool, (thing) => Pool.invalidate(pool, thing))
      yield* settle
      expect(numbers(pool).idle).toBeGreaterThanOrEqual(1)
      expect(yield* Pool.evictIdle(pool)).toBeGreaterThanOrEqual(1)
      yield* settle
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      expect(state.made).toBeGreaterThan(before + 1)
      expect(state.mostLive).toBeLessThanOrEqual(3)
    }))

  it.scoped("S15: one that idled too long already goes as soon as it is one too many", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 2, minIdle: 1, idleTimeout: "1 minute" })
      const holders = yield* Effect.replicateEffect(hold(pool), 2)
      yield* holders[0]!.release
      yield* TestClock.adjust("2 minutes")
      expect(state.closed).toEqual([])
      yield* holders[1]!.release
      yield* TestClock.adjust("1 millis")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      expect(state.closed).toHaveLength(1)
    }))

  it.scoped("S15: keepAlive checks an idle item, which is not lent meanwhile", () =>
    Effect.gen(function*() {
      let checks = 0
      const pool = yield* Pool.make({
        acquire: source().acquire,
        max: 1,
        validate: () => Effect.delay(Effect.sync(() => ++checks > 0), "1 second"),
        keepAlive: "1 minute",
        idleTimeout: "10 minutes"
      })
      yield* Pool.use(pool, () => Effect.void)
      yield* TestClock.adjust("54 seconds")
      expect(checks).toBe(0)
      yield* TestClock.adjust("6 seconds")
      yield* TestClock.adjust("1 second")
      expect(checks).toBe(1)
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      // Being kept alive is not being used: the idle time runs on.
      yield* TestClock.adjust("10 minutes")
      expect(numbers(pool)).toEqual(quiet)
    }))

  it.scoped("S16: invalidate destroys once, now or on return; strangers are none of its business", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 1 })
      const idle = yield* Pool.use(pool, Effect.succeed)
      expect(yield* Pool.invalidate(pool, idle)).toBe(true)
      expect(yield* Pool.invalidate(pool, idle)).toBe(false)
      yield* settle
      expect(state.closed).toEqual([1])
      yield* Pool.use(pool, (thing) =>
        Effect.gen(function*() {
          expect(yield* Pool.invalidate(pool, thing)).toBe(true)
          expect(yield* Pool.invalidate(pool, thing)).toBe(false)
          expect(thing.closed).toBe(false)
        }))
      yield* settle
      expect(state.closed).toEqual([1, 2])
      expect(yield* Pool.invalidate(pool, { id: 3, closed: false })).toBe(false)
      expect(yield* Pool.invalidate(pool, idle)).toBe(false)
    }))

  it.scoped("Pool-5: S16: invalidateAll reaches what is idle, lent and being opened", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire: Effect.delay(acquire, "1 second"), max: 3 })
      const holders = yield* Effect.replicateEffect(hold(pool), 2)
      yield* TestClock.adjust("1 second")
      yield* holders[0]!.release
      const opening = yield* Effect.replicateEffect(hold(pool), 2)
      expect(numbers(pool)).toEqual({ ...quiet, used: 2, creating: 1, pending: 1 })
      yield* Pool.invalidateAll(pool)
      yield* TestClock.adjust("1 second")
      // The one being opened is of the old generation: its waiter gets another.
      expect(state.closed).toEqual([3])
      yield* TestClock.adjust("1 second")
      for (const { release } of [holders[1]!, ...opening]) yield* release
      expect(state.closed.toSorted()).toEqual([1, 2, 3])
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it.scoped("S17: reset runs after the borrower has gone on; a bad or slow one destroys the item", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const seen: Array<string> = []
      const outcomes: Array<Effect.Effect<void, string>> = [
        Effect.sleep("1 second"),
        Effect.fail("ROLLBACK failed"),
        Effect.never
      ]
      const pool = yield* Pool.make({
        acquire,
        max: 1,
        reset: (_, exit) =>
          Effect.suspend(() => {
            seen.push(exit._tag)
            return outcomes.shift() ?? Effect.void
          }),
        resetTimeout: "5 seconds"
      })
      yield* Pool.use(pool, () => Effect.void)
      expect(numbers(pool)).toEqual({ ...quiet, used: 1 })
      yield* TestClock.adjust("1 second")
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      yield* Effect.exit(Pool.use(pool, () => Effect.fail("mine")))
      yield* settle
      expect(state.closed).toEqual([1])
      yield* Pool.use(pool, () => Effect.void)
      yield* TestClock.adjust("5 seconds")
      expect(state.closed).toEqual([1, 2])
      expect(seen).toEqual(["Success", "Failure", "Success"])
      expect(numbers(pool)).toEqual(quiet)
    }))

  it.scoped("S17: invalidateOn decides by the exit, interruption included; a throw in it destroys the item", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({
        acquire,
        max: 1,
        invalidateOn: (exit) => {
          if (Exit.isFailure(exit) && Cause.contains(exit.cause, Cause.fail("throw"))) {
            throw new Error("bug")
          }
          return Exit.isInterrupted(exit)
        }
      })
      yield* Effect.exit(Pool.use(pool, () => Effect.fail("harmless")))
      expect(state.closed).toEqual([])
      const cut = yield* hold(pool)
      yield* Fiber.interrupt(cut.fiber)
      yield* settle
      expect(state.closed).toEqual([1])
      yield* Effect.exit(Pool.use(pool, () => Effect.fail("throw")))
      yield* settle
      expect(state.closed).toEqual([1, 2])
    }).pipe(Effect.provide(collectingLogs([]))))

  it.scoped("Pool-7: an item whose release fails or hangs frees its slot", () =>
    Effect.gen(function*() {
      let made = 0
      const pool = yield* Pool.make({
        acquire: Effect.acquireRelease(
          Effect.sync(() => ++made),
          (id) => id === 1 ? Effect.die("cannot close") : id === 2 ? Effect.never : Effect.void
        ),
        max: 1,
        maxUses: 1,
        releaseDeadline: "1 second"
      })
      const use = Pool.use(pool, Effect.succeed)
      expect(yield* use).toBe(1)
      expect(yield* use).toBe(2)
      const third = yield* Effect.fork(use)
      yield* settle
      expect(numbers(pool)).toEqual({ ...quiet, closing: 1, pending: 1 })
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(third)).toBe(3)
    }).pipe(Effect.provide(collectingLogs([]))))

  it.scoped("Pool-7: an opening that fails keeps what its releases fail with, and is not held up by one that hangs", () =>
    Effect.gen(function*() {
      const refusedWith = (release: Effect.Effect<void>) =>
        Effect.gen(function*() {
          const pool = yield* Pool.make({
            name: "db",
            acquire: Effect.zipRight(Effect.addFinalizer(() => release), Effect.fail("down")),
            max: 1,
            releaseDeadline: "1 second"
          })
          const refused = yield* Effect.fork(Pool.use(pool, Effect.succeed))
          yield* settle
          yield* TestClock.adjust("1 second")
          const exit = yield* Fiber.await(refused)
          expect(failureOf(exit)).toBe("down")
          expect(numbers(pool)).toEqual(quiet)
          return Exit.isFailure(exit) ? Arr.fromIterable(Cause.defects(exit.cause)) : []
        })
      expect(yield* refusedWith(Effect.die("too"))).toEqual(["too"])
      expect(yield* refusedWith(Effect.uninterruptible(Effect.never))).toMatchObject([
        { _tag: "ReleaseTimeout", resource: "db", kind: "pool item" }
      ])
    }).pipe(Effect.provide(collectingLogs([]))))
})

describe("Pool, closing", () => {
  /** A pool in a scope of its own. */
  const closable = <A, E>(make: Effect.Effect<Pool.Pool<A, E>, never, Scope.Scope>) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(make, scope)
      return { pool, close: Effect.fork(Effect.exit(Scope.close(scope, Exit.void))) }
    })

  it.scoped("S18: closing fails those who wait or come with PoolClosed, at once", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const { close, pool } = yield* closable(Pool.make({ acquire, max: 2 }))
      const idle = yield* hold(pool)
      const holder = yield* hold(pool)
      yield* idle.release
      const again = yield* hold(pool)
      const waiter = yield* hold(pool)
      yield* again.release
      yield* waiter.release
      const late = yield* Effect.replicateEffect(hold(pool), 2)
      const closing = yield* close
      yield* settle
      expect(failureOf(yield* Fiber.await(late[1]!.fiber))?._tag).toBe("PoolClosed")
      for (
        const refused of [
          Pool.use(pool, () => Effect.void),
          Effect.scoped(Pool.get(pool)),
          Effect.scoped(Pool.lease(pool)),
          Pool.tryUse(pool, () => Effect.void)
        ]
      ) {
        expect((yield* Effect.flip(refused))._tag).toBe("PoolClosed")
      }
      expect(closing.unsafePoll()).toBeNull()
      yield* late[0]!.release
      yield* holder.release
      expect(Exit.isSuccess(yield* Fiber.join(closing))).toBe(true)
      expect(state.live).toBe(0)
      expect(state.made).toBe(state.closed.length)
    }))

  it.scoped("S19: by default closing waits for the holders without end", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const { close, pool } = yield* closable(Pool.make({ acquire, max: 2 }))
      const holder = yield* hold(pool)
      const closing = yield* close
      yield* TestClock.adjust("10 hours")
      expect(closing.unsafePoll()).toBeNull()
      expect(state.live).toBe(1)
      yield* holder.release
      expect(Exit.isSuccess(yield* Fiber.join(closing))).toBe(true)
      expect(state.live).toBe(0)
    }))

  it.scoped("Pool-7: S19: after shutdownTimeout holders are interrupted; who ignores that is named", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const { close, pool } = yield* closable(
        Pool.make({ name: "db", acquire, max: 2, shutdownTimeout: "5 seconds" })
      )
      const polite = yield* hold(pool)
      const deaf = yield* Effect.fork(
        Effect.withSpan(
          Pool.use(pool, () => Effect.uninterruptible(Effect.sleep("1 minute"))),
          "import"
        )
      )
      yield* settle
      const closing = yield* close
      yield* TestClock.adjust("5 seconds")
      expect(Exit.isInterrupted(yield* Fiber.await(polite.fiber))).toBe(true)
      yield* TestClock.adjust("5 seconds")
      const exit = yield* Fiber.join(closing)
      const leak = Exit.isFailure(exit)
        ? Arr.head(Arr.fromIterable(Cause.defects(exit.cause)))
        : Option.none()
      const error = Option.getOrUndefined(leak)
      expect(error).toBeInstanceOf(Pool.PoolLeak)
      expect((error as Pool.PoolLeak).holders).toHaveLength(1)
      expect((error as Pool.PoolLeak).message).toContain("in span \"import\"")
      expect((error as Pool.PoolLeak).message).toContain(`#${deaf.id().id}`)
      // It is destroyed all the same when it comes back.
      yield* TestClock.adjust("1 minute")
      expect(state.live).toBe(0)
    }).pipe(Effect.provide(collectingLogs([]))))

  it.scoped("S19: onShutdownTimeout abandon leaves the holders running", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const { close, pool } = yield* closable(
        Pool.make({ acquire, max: 1, shutdownTimeout: "5 seconds", onShutdownTimeout: "abandon" })
      )
      const holder = yield* hold(pool)
      const closing = yield* close
      yield* TestClock.adjust("5 seconds")
      expect(Exit.isFailure(yield* Fiber.join(closing))).toBe(true)
      expect(holder.fiber.unsafePoll()).toBeNull()
      yield* holder.release
      expect(state.live).toBe(0)
    }).pipe(Effect.provide(collectingLogs([]))))

  it.scoped("S20: what is opened or given back after closing began is destroyed; closing twice joins", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const { close, pool } = yield* closable(
        Pool.make({ acquire: Effect.uninterruptible(Effect.delay(acquire, "1 second")), max: 1 })
      )
      const waiter = yield* hold(pool)
      const closing = yield* close
      yield* settle
      expect(failureOf(yield* Fiber.await(waiter.fiber))?._tag).toBe("PoolClosed")
      const second = yield* Effect.fork(Pool.close(pool))
      yield* settle
      expect(closing.unsafePoll()).toBeNull()
      expect(second.unsafePoll()).toBeNull()
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(closing)
      yield* Fiber.join(second)
      expect(state).toMatchObject({ made: 1, live: 0 })
      yield* Pool.close(pool)
    }))

  it.scoped("Pool-6: S20: closing from inside a borrow is named instead of waited for", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 1 })
      const exit = yield* Effect.exit(Pool.use(pool, () => Pool.close(pool)))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("while it holds an item")
      yield* Pool.close(pool)
      expect(state.live).toBe(0)
    }))
})

describe("Pool, watching", () => {
  it.scoped("S21: a leak is warned about once, with who and where; the item is left alone", () => {
    const logs: Array<string> = []
    return Effect.gen(function*() {
      const pool = yield* Pool.make({
        name: "db",
        acquire: source().acquire,
        max: 2,
        leakDetection: "30 seconds"
      })
      const slow = yield* hold(pool)
      yield* TestClock.adjust("20 seconds")
      const other = yield* hold(pool)
      yield* TestClock.adjust("15 seconds")
      expect(logs).toHaveLength(1)
      expect(logs[0]).toContain(`Pool "db": fiber #${slow.fiber.id().id}`)
      expect(logs[0]).toContain("Pool.test.ts")
      expect(logs[0]).toContain("holds an item for 30s")
      yield* other.release
      yield* TestClock.adjust("1 hour")
      expect(logs).toHaveLength(1)
      expect(Pool.unsafeStats(pool).leaks).toBe(1)
      yield* slow.release
      expect(logs).toHaveLength(2)
      expect(logs[1]).toContain("gave back an item after its leak warning")
    }).pipe(Effect.provide(collectingLogs(logs)))
  })

  it.scoped("Pool-8: the ledger shows the items and, by name, who has them; both end at nothing", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      yield* Effect.gen(function*() {
        const pool = yield* Pool.make({ name: "db", acquire: source().acquire, max: 2 })
        const holder = yield* hold(pool)
        const { live } = yield* ledger.snapshot
        const byKind = live.toSorted((a, b) => a.kind < b.kind ? -1 : 1)
        expect(byKind.map(({ kind, name, state }) => [kind, name, state])).toEqual([
          ["pool item", "db", "held"],
          ["pool lease", "db", "held"]
        ])
        expect(byKind[1]).toMatchObject({
          fiber: `#${holder.fiber.id().id}`,
          site: expect.stringContaining("test/Pool.test.ts")
        })
        expect((yield* Pool.holders(pool)).map(({ fiber }) => fiber))
          .toEqual([`#${holder.fiber.id().id}`])
        yield* holder.release
      }).pipe(Effect.scoped, Effect.provideService(Ledger.Ledger, ledger))
      yield* ledger.assertEmpty
      const { kinds } = yield* ledger.snapshot
      expect(kinds["pool item"]).toMatchObject({ acquired: 1, released: 1 })
      expect(kinds["pool lease"]).toMatchObject({ acquired: 1, released: 1 })
    }))

  it.scoped("Pool-9: a pool without deadlines has no fiber; with them one, and only while there is something to watch", () =>
    Effect.gen(function*() {
      // Not `TestClock.sleeps`: that keeps the sleeps of interrupted fibers until their time.
      let asleep = 0
      const sleeping = Effect.sync(() => asleep)
      const clock = yield* Effect.clock
      const counting: Clock.Clock = {
        [Clock.ClockTypeId]: Clock.ClockTypeId,
        unsafeCurrentTimeMillis: () => clock.unsafeCurrentTimeMillis(),
        unsafeCurrentTimeNanos: () => clock.unsafeCurrentTimeNanos(),
        currentTimeMillis: clock.currentTimeMillis,
        currentTimeNanos: clock.currentTimeNanos,
        sleep: (duration) =>
          Effect.acquireUseRelease(
            Effect.sync(() => asleep++),
            () => clock.sleep(duration),
            () => Effect.sync(() => asleep--)
          )
      }
      const plain = yield* Effect.withClock(
        Pool.make({ acquire: source().acquire, max: 2 }),
        counting
      )
      yield* Pool.use(plain, () => Effect.void)
      expect(yield* sleeping).toBe(0)
      const timed = yield* Pool.make({
        acquire: source().acquire,
        max: 2,
        idleTimeout: "1 minute",
        maxLifetime: "1 hour",
        acquireTimeout: "1 second",
        leakDetection: "10 minutes"
      }).pipe(Effect.withClock(counting))
      expect(yield* sleeping).toBe(0)
      yield* Effect.replicateEffect(Pool.use(timed, () => Effect.void), 10)
      yield* settle
      expect(yield* sleeping).toBe(1)
      yield* TestClock.adjust("1 hour")
      expect(yield* sleeping).toBe(0)
    }))

  it.scoped("metrics stand under their OpenTelemetry names", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({
        name: "metered",
        acquire: source().acquire,
        max: 2,
        metrics: "db.client.connection"
      })
      yield* Pool.use(pool, () => Effect.void)
      const holder = yield* hold(pool)
      const state = yield* Metric.snapshot
      const mine = state.filter(({ metricKey: { tags } }) =>
        tags.some(({ key, value }) =>
          key === "db.client.connection.pool.name" && value === "metered"
        )
      )
      expect(Array.from(new Set(mine.map(({ metricKey }) => metricKey.name))).toSorted()).toEqual([
        "db.client.connection.count",
        "db.client.connection.create_time",
        "db.client.connection.created",
        "db.client.connection.idle.min",
        "db.client.connection.max",
        "db.client.connection.pending_requests",
        "db.client.connection.use_time",
        "db.client.connection.wait_time"
      ])
      const labelsOf = (name: string) =>
        mine.filter(({ metricKey }) => metricKey.name === `db.client.connection.${name}`)
          .map(({ metricKey: { tags } }) =>
            Array.from(tags, ({ key, value }) => `${key}=${value}`).toSorted().slice(1).join(" ")
          ).toSorted()
      expect(labelsOf("count")).toEqual([
        "db.client.connection.state=idle unit={connection}",
        "db.client.connection.state=used unit={connection}"
      ])
      expect(labelsOf("wait_time")).toEqual(["unit=s"])
      yield* holder.release
    }))

  it.scoped("a lease ends early, once; get ends with its scope; a layer with its own", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 1 })
      yield* Effect.scoped(Effect.gen(function*() {
        const lease = yield* Pool.lease(pool)
        expect(numbers(pool).used).toBe(1)
        yield* lease.release
        yield* lease.release
        expect(yield* lease.invalidate).toBe(false)
        expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
        yield* Pool.get(pool)
        expect(numbers(pool).used).toBe(1)
      }))
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      yield* Effect.scoped(Effect.flatMap(Pool.lease(pool), ({ invalidate }) => invalidate))
      yield* settle
      expect(state.closed).toEqual([1])

      class Things extends Context.Tag("Things")<Things, Pool.Pool<Thing, Pool.PoolClosed>>() {}
      const live = Pool.layer(Things, { acquire, max: 1 })
      yield* Effect.provide(Effect.flatMap(Things, Pool.use(() => Effect.void)), live)
      expect(state.live).toBe(0)
      void Layer
    }))

  it.scoped("Pool-3: get and lease in a scope that is closed die and acquire nothing; no item has two users", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ name: "db", acquire, max: 1 })
      for (const take of [Effect.asVoid(Pool.get(pool)), Effect.asVoid(Pool.lease(pool))]) {
        const closed = yield* Scope.make()
        yield* Scope.close(closed, Exit.void)
        const before = state.made
        const late = yield* Effect.exit(Scope.extend(take, closed))
        expect(diedOf(late)).toMatchObject({ _tag: "OwnerClosed", owner: "scope", resource: "db" })
        expect(state.made).toBe(before)

        const scope = yield* Scope.make()
        const holder = yield* hold(pool)
        const waiter = yield* Effect.fork(Effect.exit(Scope.extend(take, scope)))
        yield* settle
        yield* Scope.close(scope, Exit.void)
        yield* holder.release
        expect(diedOf(yield* Fiber.join(waiter))).toMatchObject({ _tag: "OwnerClosed" })
        expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
      }
    }))

  it.scoped("a handle is pipeable, has a TypeId, and prints its counters, never its items", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ name: "db", acquire: Effect.succeed("secret"), max: 1 })
      expect(pool[Pool.TypeId]).toBeDefined()
      expect(yield* pool.pipe(Pool.use(Effect.succeed))).toBe("secret")
      expect(JSON.parse(JSON.stringify(pool)))
        .toMatchObject({ _id: "holdfast/Pool", name: "db", max: 1, idle: 1 })
      expect(String(pool)).not.toContain("secret")
      // @ts-expect-error a pool of strings is none of numbers
      const numbers: Pool.Pool<number, Pool.PoolClosed> = pool
      void numbers
    }))

  it("the options decide the errors, also beside callbacks and in options of a declared type", () => {
    type ErrorsOf<P> = P extends Effect.Effect<Pool.Pool<number, infer E>, never, Scope.Scope> ? E
      : "no pool"
    const acquire: Effect.Effect<number, "refused"> = Effect.succeed(1)
    const validate = (item: number) => Effect.succeed(item > 0)
    const plain = Pool.make({ validate: (item) => validate(item), acquire, max: 1 })
    const timed = Pool.make({
      validate: (item) => validate(item),
      acquire,
      max: 1,
      acquireTimeout: 1
    })
    const opened = Pool.make({
      acquire,
      max: 1,
      createTimeout: "1 second" as Duration.DurationInput
    })
    const full = Pool.make({ acquire, max: 1, maxWaiters: 3, validate: (item) => validate(item) })
    const absent = Pool.make({ acquire, max: 1, acquireTimeout: undefined, maxWaiters: undefined })
    const options: Pool.Options<number, "refused"> = { acquire, max: 1 }
    const declared = Pool.make(options)
    expectTypeOf<ErrorsOf<typeof plain>>().toEqualTypeOf<"refused" | Pool.PoolClosed>()
    expectTypeOf<ErrorsOf<typeof absent>>().toEqualTypeOf<"refused" | Pool.PoolClosed>()
    type Timed = "refused" | Pool.PoolClosed | Pool.PoolTimeout
    expectTypeOf<ErrorsOf<typeof timed>>().toEqualTypeOf<Timed>()
    expectTypeOf<ErrorsOf<typeof opened>>().toEqualTypeOf<Timed>()
    expectTypeOf<ErrorsOf<typeof full>>()
      .toEqualTypeOf<"refused" | Pool.PoolClosed | Pool.PoolExhausted>()
    expectTypeOf<ErrorsOf<typeof declared>>().toEqualTypeOf<"refused" | Pool.PoolError>()
  })

  it.scoped("layer has the errors of make; layerConfig reads sizes and times", () =>
    Effect.gen(function*() {
      class Bounded extends Context.Tag("Bounded")<
        Bounded,
        Pool.Pool<string, Pool.PoolClosed | Pool.PoolTimeout>
      >() {}
      class Configured
        extends Context.Tag("Configured")<Configured, Pool.Pool<string, Pool.PoolError>>()
      {}
      const acquire = Effect.succeed("item")
      const bounded = Pool.layer(Bounded, { acquire, max: 1, acquireTimeout: "1 second" })
      const configured = Pool.layerConfig(Configured, { acquire }, {
        max: Config.integer("MAX"),
        acquireTimeout: Config.duration("WAIT")
      })
      const from = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries)))
      expect(yield* Effect.provide(Effect.flatMap(Bounded, Pool.use(Effect.succeed)), bounded))
        .toBe("item")
      const max = Effect.provide(Effect.map(Configured, ({ max }) => max), configured)
      expect(yield* from([["MAX", "3"], ["WAIT", "1 second"]])(max)).toBe(3)
      const refused = yield* Effect.flip(from([["MAX", "many"], ["WAIT", "1 second"]])(max))
      expect(String(refused)).toContain("MAX")
    }))

  it.scoped("with a tracer, a wait and a use are spans; without one there is none", () =>
    Effect.gen(function*() {
      const names: Array<string> = []
      const pool = yield* Pool.make({ name: "db", acquire: source().acquire, max: 1 })
      const { span } = yield* Effect.tracer
      const tracer = Tracer.make({
        span: (name, ...rest) => {
          names.push(name)
          return span(name, ...rest)
        },
        context: (f) => f()
      })
      yield* Effect.withTracer(Pool.use(pool, () => Effect.void), tracer)
      yield* Pool.use(pool, () => Effect.void)
      yield* Effect.withTracer(Pool.use(pool, () => Effect.void), tracer)
      expect(names).toEqual([
        "holdfast.pool.acquire",
        "holdfast.pool.use",
        "holdfast.pool.use"
      ])
    }))

  it.scoped("a body that throws instead of failing gives its item back", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const thrower = Pool.use(pool, (): Effect.Effect<void> => {
        throw new Error("bug")
      })
      expect(Exit.isFailure(yield* Effect.exit(thrower))).toBe(true)
      expect(Exit.isFailure(yield* Effect.exit(thrower))).toBe(true)
      expect(numbers(pool)).toEqual({ ...quiet, idle: 1 })
    }))

  it("options that cannot be are refused by name", () => {
    const make = (options: object) =>
      Effect.runSyncExit(Effect.scoped(Pool.make({ acquire: Effect.void, max: 1, ...options })))
    for (
      const [options, complaint] of [
        [{ max: 0 }, "Pool.make: `max` must be an integer, 1 or more"],
        [{ max: NaN }, "`max` must be"],
        [{ maxTotal: 1 }, "Pool.make has no option `maxTotal`"],
        [{ minIdle: 2 }, "`minIdle` 2 is more than 1"],
        [{ minIdle: -1 }, "`minIdle` must be"],
        [{ maxUses: 0.5 }, "`maxUses` must be"],
        [{ maxWaiters: -1 }, "`maxWaiters` must be"],
        [{ maxLifetime: "-1 second" }, "`maxLifetime` must be a duration"],
        [{ maxLifetimeJitter: 1.5 }, "`maxLifetimeJitter` must be a number from 0 to 1"],
        [{ maxLifetimeJitter: NaN }, "`maxLifetimeJitter` must be"],
        [{ idleTimeout: NaN }, "`idleTimeout` must be"],
        [{ validateTimeout: 0 }, "`validateTimeout` must be a duration above 0"],
        [{ reuse: "random" }, "`reuse` must be one of"],
        [{ acquireTimout: "1 second" }, "Pool.make has no option `acquireTimout`"],
        [{ keepAlive: "1 second" }, "`keepAlive` needs `validate`"]
      ] as const
    ) {
      const exit = make(options)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(complaint)
    }
  })

  it.scoped("Pool-5: an item of the shortest lifetime is lent once, whatever the date", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_763_730_000_000)
      let opened = 0
      const pool = yield* Pool.make({
        acquire: Effect.sync(() => {
          // Else it opens and retires items in this very step, for ever.
          if (++opened > 100) throw new Error("endless")
          return opened
        }),
        max: 1,
        maxLifetime: Duration.nanos(1n)
      })
      expect(yield* Pool.use(pool, Effect.succeed)).toBe(1)
      yield* TestClock.adjust("1 second")
      expect(yield* Pool.use(pool, Effect.succeed)).toBe(2)
    }))

  it.scoped("an option of 0 that bounds the life of an item or a wait is off", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({
        acquire: Effect.delay(acquire, "1 second"),
        max: 1,
        minIdle: 1,
        maxLifetime: 0,
        idleTimeout: 0,
        keepAlive: 0,
        maxUses: 0,
        leakDetection: 0,
        acquireTimeout: 0,
        createTimeout: 0
      })
      const first = yield* hold(pool)
      const second = yield* hold(pool)
      yield* TestClock.adjust("1 hour")
      yield* first.release
      yield* second.release
      yield* TestClock.adjust("1 hour")
      expect(state).toMatchObject({ made: 1, live: 1 })
      expect(Pool.unsafeStats(pool)).toMatchObject({ idle: 1, timeouts: 0, leaks: 0 })
    }))
})
