/** Several users per item: how they share it, and what they get when it goes. */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, Scope, TestClock } from "effect"
import * as Pool from "holdfast/Pool"
import * as SharedPool from "holdfast/Pool/Shared"

const settle = Effect.repeatN(Effect.yieldNow(), 60)

const source = () => {
  const state = { made: 0, live: 0, mostLive: 0, closed: [] as Array<number> }
  const acquire = Effect.acquireRelease(
    Effect.sync(() => {
      state.mostLive = Math.max(state.mostLive, ++state.live)
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

/** A user that gives its seat back at its `leave`. */
const enter = <A, E>(pool: SharedPool.SharedPool<A, E>) =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<Exit.Exit<void, string>>()
    const got = yield* Deferred.make<A>()
    const fiber = yield* Effect.forkScoped(SharedPool.use(pool, (item) =>
      Effect.zipRight(Deferred.succeed(got, item), Effect.flatten(Deferred.await(gate)))))
    yield* settle
    const item = Option.map(yield* Deferred.poll(got), Effect.runSync)
    const leave = (exit: Exit.Exit<void, string> = Exit.void) =>
      Effect.zipRight(Deferred.succeed(gate, exit), settle)
    return { fiber, item: Option.getOrUndefined(item), leave }
  })

describe("SharedPool", () => {
  it.scoped("SharedPool-1: an item has so many users and no more, and waiters come in the order of arrival", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* SharedPool.make({ acquire, max: 2, concurrencyPerItem: 2 })
      const users = []
      for (let i = 0; i < 7; i++) users.push(yield* enter(pool))
      expect(users.map(({ item }) => item)).toEqual([1, 1, 2, 2, undefined, undefined, undefined])
      expect((yield* SharedPool.stats(pool)).seats).toMatchObject({ used: 4, pending: 3 })
      yield* users[2]!.leave()
      yield* users[0]!.leave()
      expect((yield* SharedPool.stats(pool)).seats).toMatchObject({ used: 4, pending: 1 })
      // The last to come still waits.
      yield* users[6]!.leave()
      expect((yield* SharedPool.stats(pool)).seats).toMatchObject({ used: 4, pending: 1 })
      for (const { leave } of users) yield* leave()
      expect(state.mostLive).toBe(2)
      expect(yield* SharedPool.stats(pool)).toMatchObject({
        seats: { used: 0, pending: 0 },
        items: { idle: 2, used: 0 }
      })
    }))

  it.scoped("SharedPool-2: users come together, and an item without users goes back", () =>
    Effect.gen(function*() {
      const { acquire } = source()
      const pool = yield* SharedPool.make({ acquire, max: 3, concurrencyPerItem: 3 })
      const users = []
      for (let i = 0; i < 5; i++) users.push(yield* enter(pool))
      expect(users.map(({ item }) => item)).toEqual([1, 1, 1, 2, 2])
      yield* users[0]!.leave()
      yield* users[1]!.leave()
      // The second item has more users now.
      expect((yield* enter(pool)).item).toBe(2)
      const again = yield* enter(pool)
      expect(again.item).toBe(1)
      yield* again.leave()
      yield* users[2]!.leave()
      expect((yield* SharedPool.stats(pool)).items).toMatchObject({ idle: 1, used: 1 })
      expect((yield* enter(pool)).item).toBe(1)
    }))

  it.scoped("SharedPool-3: an invalid item gets no new user; it is destroyed after its last", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* SharedPool.make({ acquire, max: 2, concurrencyPerItem: 2 })
      const old = yield* enter(pool)
      expect(yield* SharedPool.invalidate(pool, 1)).toBe(true)
      expect((yield* enter(pool)).item).toBe(2)
      expect(state.closed).toEqual([])
      yield* old.leave()
      expect(state.closed).toEqual([1])
    }))

  it.scoped("SharedPool-3: so does one past its lifetime, however busy, and one that a use has ruled out", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const pool = yield* SharedPool.make({
        acquire,
        max: 2,
        concurrencyPerItem: 2,
        maxLifetime: "1 minute",
        maxLifetimeJitter: 0,
        invalidateOn: Exit.isFailure
      })
      const first = yield* enter(pool)
      yield* TestClock.adjust("1 minute")
      const second = yield* enter(pool)
      expect(second.item).toBe(2)
      const third = yield* enter(pool)
      expect(third.item).toBe(2)
      yield* third.leave(Exit.fail("broken"))
      yield* first.leave()
      expect((yield* enter(pool)).item).toBe(3)
      expect(state.closed).toEqual([1])
      yield* second.leave()
      expect(state.closed).toEqual([1, 2])
    }))

  it.scoped("a failed opening fails those who wait for that item, and the next user opens anew", () =>
    Effect.gen(function*() {
      let attempts = 0
      const gate = yield* Deferred.make<void>()
      const acquire = Effect.suspend(() =>
        ++attempts === 1
          ? Effect.zipRight(Deferred.await(gate), Effect.fail("down"))
          : Effect.succeed("up")
      )
      const pool = yield* SharedPool.make({ acquire, max: 1, concurrencyPerItem: 2 })
      const users = yield* Effect.forkAll(
        [1, 2].map(() => Effect.flip(SharedPool.use(pool, Effect.succeed)))
      )
      yield* settle
      yield* Deferred.succeed(gate, undefined)
      expect(yield* Fiber.join(users)).toEqual(["down", "down"])
      expect(yield* pool.pipe(SharedPool.use(Effect.succeed))).toBe("up")
    }))

  it.scoped("the wait for a seat has the bounds of a pool's", () =>
    Effect.gen(function*() {
      const pool = yield* SharedPool.make({
        acquire: source().acquire,
        max: 1,
        concurrencyPerItem: 1,
        acquireTimeout: "1 second",
        maxWaiters: 1
      })
      yield* enter(pool)
      const waiting = yield* Effect.fork(Effect.flip(SharedPool.use(pool, Effect.succeed)))
      yield* settle
      expect(yield* Effect.flip(Effect.scoped(SharedPool.get(pool)))).toBeInstanceOf(
        Pool.PoolExhausted
      )
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(waiting)).toBeInstanceOf(Pool.PoolTimeout)
    }))

  it.scoped("closing refuses who comes and who waits, waits for the users, and then destroys", () =>
    Effect.gen(function*() {
      const { acquire, state } = source()
      const scope = yield* Scope.make()
      const pool = yield* Scope.extend(
        SharedPool.make({ acquire, max: 1, concurrencyPerItem: 1 }),
        scope
      )
      const user = yield* enter(pool)
      const waiter = yield* Effect.fork(Effect.flip(SharedPool.use(pool, Effect.succeed)))
      yield* settle
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* settle
      expect(yield* Fiber.join(waiter)).toBeInstanceOf(Pool.PoolClosed)
      expect(closing.unsafePoll()).toBe(null)
      yield* user.leave()
      yield* Fiber.join(closing)
      expect(state.closed).toEqual([1])
      expect(yield* Effect.flip(SharedPool.use(pool, Effect.succeed))).toBeInstanceOf(
        Pool.PoolClosed
      )
    }))
})
