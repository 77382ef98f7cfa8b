/** Another size, an item that leaves, observers; on a pool that has them and one that does not need them. */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Logger, Metric, Option, Scope } from "effect"
import * as fc from "fast-check"
import { Ledger, Managed } from "holdfast"
import * as Pool from "holdfast/Pool"
import * as Control from "holdfast/Pool/Control"

const settle = Effect.repeatN(Effect.yieldNow(), 30)

const source = () => {
  const state = { made: 0, live: 0, closed: [] as Array<number> }
  const acquire = Effect.acquireRelease(
    Effect.sync(() => {
      state.live++
      return ++state.made
    }),
    (id) =>
      Effect.sync(() => {
        state.live--
        state.closed.push(id)
      })
  )
  return { state, acquire }
}

/** A holder that gives back at its `release`. */
const hold = <A, E>(pool: Pool.Pool<A, E>) =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const fiber = yield* Effect.forkScoped(Pool.use(pool, () => Deferred.await(gate)))
    yield* settle
    return { fiber, release: Effect.zipLeft(Deferred.succeed(gate, undefined), settle) }
  })

const numbers = <A, E>(pool: Pool.Pool<A, E>) => {
  const { idle, max, pending, size, used } = Pool.unsafeStats(pool)
  return { max, size, idle, used, pending }
}

describe("Control.resize", () => {
  it.scoped("PoolControl-1: more room goes to the waiters at once", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      for (let i = 0; i < 4; i++) yield* hold(pool)
      expect(numbers(pool)).toEqual({ max: 1, size: 1, idle: 0, used: 1, pending: 3 })
      yield* Control.resize(pool, 3)
      yield* settle
      expect(numbers(pool)).toEqual({ max: 3, size: 3, idle: 0, used: 3, pending: 1 })
      expect(pool.max).toBe(3)
    }))

  it.scoped("PoolControl-1: a surplus that is idle goes at once, the longest idle first", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 3 })
      const holders = [yield* hold(pool), yield* hold(pool), yield* hold(pool)]
      for (const { release } of holders) yield* release
      yield* pool.pipe(Control.resize(1))
      yield* Pool.awaitIdle(pool)
      expect(state.closed).toEqual([1, 2])
      expect(numbers(pool)).toEqual({ max: 1, size: 1, idle: 1, used: 0, pending: 0 })
    }))

  it.scoped("PoolControl-1: a surplus that is held goes as it comes back, before a waiter gets one", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 3 })
      const holders = [yield* hold(pool), yield* hold(pool), yield* hold(pool)]
      yield* hold(pool)
      yield* Control.resize(pool, 1)
      expect(numbers(pool)).toEqual({ max: 1, size: 3, idle: 0, used: 3, pending: 1 })
      yield* holders[0]!.release
      yield* holders[1]!.release
      expect(state.closed).toEqual([1, 2])
      expect(numbers(pool)).toEqual({ max: 1, size: 1, idle: 0, used: 1, pending: 1 })
      yield* holders[2]!.release
      expect(state.made).toBe(3)
      expect(numbers(pool)).toEqual({ max: 1, size: 1, idle: 0, used: 1, pending: 0 })
    }))

  it.scoped("PoolControl-1: with a surplus maxWaiters still counts from none", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 3, maxWaiters: 1 })
      for (let i = 0; i < 3; i++) yield* hold(pool)
      yield* Control.resize(pool, 1)
      const first = yield* hold(pool)
      expect(first.fiber.unsafePoll()).toBe(null)
      expect(yield* Effect.flip(Pool.use(pool, () => Effect.void)))
        .toBeInstanceOf(Pool.PoolExhausted)
    }))

  it.scoped("a size that cannot be is a RangeError, and changes nothing", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 3, minIdle: 2 })
      for (
        const [max, message] of [[0, "`max` must be"], [1.5, "`max` must be"], [
          1,
          "minIdle"
        ]] as const
      ) {
        const exit = yield* Effect.exit(Control.resize(pool, max))
        const defect = Exit.isFailure(exit) ? Cause.dieOption(exit.cause) : Option.none()
        expect(Option.getOrThrow(defect)).toBeInstanceOf(RangeError)
        expect(String(Option.getOrThrow(defect))).toContain(message)
      }
      expect(pool.max).toBe(3)
    }))

  it.effect("PoolControl-1: never more than the highest size of late, and what is over goes, whatever the order", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.oneof(fc.integer({ min: 1, max: 4 }), fc.constant("hold"), fc.constant("free")),
            {
              maxLength: 40
            }
          ),
          (steps) =>
            Effect.runPromise(Effect.scoped(Effect.gen(function*() {
              const { acquire, state } = source()
              const pool = yield* Pool.make({ acquire, max: 2 })
              const holders: Array<{ readonly release: Effect.Effect<void> }> = []
              for (const step of steps) {
                const before = numbers(pool)
                if (typeof step === "number") yield* Control.resize(pool, step)
                else if (step === "hold") holders.push(yield* hold(pool))
                else yield* (holders.shift()?.release ?? Effect.void)
                yield* settle
                const { idle, max, pending, size, used } = numbers(pool)
                expect(idle + used).toBe(size)
                expect(state.live).toBe(size)
                // Only what was held may be over, and it never grows.
                expect(size <= max || (size <= before.size && idle === 0)).toBe(true)
                expect(pending === 0 || size >= max).toBe(true)
              }
            })))
        ),
        { numRuns: 100, seed: 12 }
      )
    ))
})

describe("Control.detach", () => {
  it.scoped("PoolControl-2: the slot is free at once, and the scope releases the item once", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 1 })
      const [leasing, owning] = [yield* Scope.make(), yield* Scope.make()]
      const lease = yield* Scope.extend(Pool.lease(pool), leasing)
      const waiter = yield* Effect.fork(Pool.use(pool, Effect.succeed))
      yield* settle
      expect(yield* Scope.extend(Control.detach(lease), owning)).toBe(true)
      expect(yield* Fiber.join(waiter)).toBe(2)
      yield* lease.release
      expect(yield* lease.invalidate).toBe(false)
      yield* Scope.close(leasing, Exit.void)
      expect(state.closed).toEqual([])
      expect(Pool.unsafeStats(pool)).toMatchObject({ size: 1, idle: 1, used: 0, destroyed: 1 })
      yield* Scope.close(owning, Exit.void)
      expect(state.closed).toEqual([1])
    }))

  it.scoped("PoolControl-2: a lease that has ended detaches nothing, also when its item has another holder", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* Pool.make({ acquire, max: 1 })
      const lease = yield* Pool.lease(pool)
      yield* lease.release
      yield* hold(pool)
      expect(yield* Effect.scoped(Control.detach(lease))).toBe(false)
      expect(state.closed).toEqual([])
      expect(numbers(pool)).toMatchObject({ size: 1, used: 1 })
    }))

  it.scoped("PoolControl-2: a pool closes without what was detached, and the ledger shows it until its release", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const ledger = yield* Ledger.make()
      const own = yield* Scope.make()
      yield* Effect.scoped(Effect.gen(function*() {
        const pool = yield* Pool.make({ acquire, max: 1 })
        const lease = yield* Pool.lease(pool)
        yield* Scope.extend(Control.detach(lease), own)
      })).pipe(Effect.provideService(Ledger.Ledger, ledger))
      expect(state.closed).toEqual([])
      expect((yield* ledger.snapshot).live.map(({ kind }) => kind)).toEqual(["pool item"])
      yield* Scope.close(own, Exit.void)
      expect(state.closed).toEqual([1])
      expect((yield* ledger.snapshot).live).toEqual([])
    }))

  it.scoped("PoolControl-2: into a closed scope nothing is detached", () =>
    Effect.gen(function*() {
      const pool = yield* Pool.make({ acquire: source().acquire, max: 1 })
      const lease = yield* Pool.lease(pool)
      const closed = yield* Scope.make()
      yield* Scope.close(closed, Exit.void)
      const exit = yield* Effect.exit(Scope.extend(Control.detach(lease), closed))
      expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toBeInstanceOf(Managed.OwnerClosed)
      yield* lease.release
      expect(numbers(pool)).toMatchObject({ size: 1, idle: 1 })
    }))
})

describe("Control.observe", () => {
  it.scoped("PoolControl-3: each item is created, acquired and released in turns, and destroyed last", () =>
    Effect.gen(function*() {
      const { acquire } = source()
      const pool = yield* Pool.make({ acquire, max: 2 })
      const events: Array<string> = []
      const noted = (event: Control.Event<number>) =>
        events.push(`${event._tag} ${event.item}${"reason" in event ? ` ${event.reason}` : ""}`)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Control.observe(pool, noted)
        const first = yield* hold(pool)
        yield* Effect.scoped(Effect.flatMap(Pool.lease(pool), Control.detach))
        yield* first.release
        const second = yield* hold(pool)
        yield* Pool.invalidate(pool, 1)
        yield* second.release
        yield* Pool.awaitIdle(pool)
      }))
      yield* Pool.use(pool, () => Effect.void)
      expect(events).toEqual([
        "created 1",
        "acquired 1",
        "created 2",
        "acquired 2",
        "destroyed 2 detached",
        "released 1",
        "acquired 1",
        "released 1",
        "destroyed 1 invalid"
      ])
    }))

  it.scoped("PoolControl-3: metrics go on beside observers, and one that throws is logged and changes nothing", () =>
    Effect.gen(function*() {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => void logged.push(String(message)))
      const pool = yield* Effect.provide(
        Pool.make({ acquire: source().acquire, max: 1, metrics: "test.control.item" }),
        Logger.replace(Logger.defaultLogger, logger)
      )
      const seen: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Control.observe(pool, () => {
          throw new Error("observer")
        })
        yield* Control.observe(pool, ({ _tag }) => seen.push(_tag))
        yield* Pool.use(pool, () => Effect.void)
      }))
      yield* Pool.use(pool, () => Effect.void)
      yield* settle
      expect(seen).toEqual(["created", "acquired", "released"])
      expect(logged.filter((line) => line.includes("an observer threw"))).toHaveLength(3)
      const metrics = yield* Metric.snapshot
      const uses = metrics.find(({ metricKey }) => metricKey.name === "test.control.item.use_time")
      expect(uses?.metricState).toMatchObject({ count: 2 })
    }))
})
