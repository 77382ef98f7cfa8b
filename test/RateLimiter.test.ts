import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Config,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  TestClock,
  TestContext
} from "effect"
import * as fc from "effect/FastCheck"
import { Ledger, RateLimiter } from "holdfast"

const settle = Effect.repeatN(Effect.yieldNow(), 6)

const roots = () => Fiber.unsafeRoots().length

/** A token each 10 ms. */
const limited = (burst: number) =>
  RateLimiter.make({ limit: 10, interval: "100 millis", burst, name: "api" })

/** Fibers that ask, and when each was served. */
const makeAsker = (limiter: RateLimiter.RateLimiter) => {
  const served: Array<readonly [string, number]> = []
  const ask = (name: string, options?: RateLimiter.TakeOptions) =>
    Effect.fork(
      Effect.map(Clock.currentTimeMillis, (now) => void served.push([name, now])).pipe(
        RateLimiter.withLimit(limiter, options)
      )
    )
  return { served, ask }
}

describe("RateLimiter", () => {
  it.effect("RateLimiter-1 RateLimiter-2 RateLimiter-3: a burst at once, then each when its tokens are there, in order", () =>
    Effect.gen(function*() {
      const limiter = yield* limited(3)
      const { ask, served } = makeAsker(limiter)
      for (const name of ["a", "b"]) yield* ask(name)
      yield* ask("BIG", { tokens: 3 })
      yield* ask("small")
      yield* settle
      expect(served).toEqual([["a", 0], ["b", 0]])
      expect(yield* RateLimiter.stats(limiter)).toEqual({ burst: 3, available: 1, waiting: 2 })
      expect(yield* RateLimiter.tryWithLimit(Effect.void, limiter)).toEqual(Option.none())
      yield* TestClock.adjust(19)
      expect(served.length).toBe(2)
      yield* TestClock.adjust(1)
      expect(served.at(-1)).toEqual(["BIG", 20])
      yield* TestClock.adjust(100)
      expect(served.at(-1)).toEqual(["small", 30])
      yield* TestClock.adjust("1 hour")
      expect(yield* RateLimiter.stats(limiter)).toEqual({ burst: 3, available: 3, waiting: 0 })
    }))

  it.effect("RateLimiter-1: a sum of fractions that is a little too small costs no millisecond more", () =>
    Effect.gen(function*() {
      const { ask, served } = makeAsker(yield* limited(3))
      yield* ask("a")
      yield* TestClock.adjust(3)
      yield* ask("b")
      yield* settle
      // 0.7 tokens are missing, and a hair.
      yield* ask("c", { tokens: 2 })
      yield* TestClock.adjust(500)
      expect(served).toEqual([["a", 0], ["b", 3], ["c", 10]])
    }))

  it.effect("RateLimiter-1: beside a date the last fraction of a token is waited for as well", () =>
    Effect.gen(function*() {
      // Here 1,333 / 1,666 ms each add up to just less than a token, and what is missing takes less than the clock can tell.
      yield* TestClock.setTime(1_763_730_000_000)
      const limiter = yield* RateLimiter.make({ limit: 1666, interval: 1333, burst: 2 })
      const fibers = yield* Effect.forEach(
        Array.from({ length: 25 }),
        () => Effect.fork(Effect.void.pipe(RateLimiter.withLimit(limiter)))
      )
      yield* settle
      yield* TestClock.adjust("30 millis")
      yield* Fiber.joinAll(fibers)
    }))

  it.effect("RateLimiter-2: a higher priority is served first", () =>
    Effect.gen(function*() {
      const limiter = yield* limited(2)
      const { ask, served } = makeAsker(limiter)
      yield* ask("first", { tokens: 2 })
      yield* ask("BIG", { tokens: 2 })
      yield* settle
      yield* ask("urgent", { priority: 1 })
      yield* settle
      yield* TestClock.adjust(100)
      expect(served).toEqual([["first", 0], ["urgent", 10], ["BIG", 30]])
    }))

  it.effect("RateLimiter-4: an interrupted or late waiter spends nothing, and the next is served when it can be", () =>
    Effect.gen(function*() {
      const limiter = yield* limited(2)
      const { ask, served } = makeAsker(limiter)
      yield* ask("first")
      const big = yield* ask("BIG", { tokens: 2 })
      yield* ask("small")
      yield* settle
      yield* Fiber.interrupt(big)
      yield* settle
      expect(served).toEqual([["first", 0], ["small", 0]])
      const late = yield* ask("late", { tokens: 2, acquireTimeout: 15 })
      yield* ask("next")
      yield* settle
      yield* TestClock.adjust(15)
      const exit = yield* Fiber.await(late)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
        "2 tokens of \"api\" were not there within 15ms: 1 more waiting"
      )
      yield* settle
      expect(served.at(-1)).toEqual(["next", 15])
      expect(yield* RateLimiter.stats(limiter)).toEqual({ burst: 2, available: 0, waiting: 0 })
    }))

  it.effect("RateLimiter-4: granted and interrupted before it ran, its tokens go to the next in that step", () =>
    Effect.gen(function*() {
      const limiter = yield* limited(2)
      const { ask, served } = makeAsker(limiter)
      yield* ask("first")
      const big = yield* ask("BIG", { tokens: 2 })
      const second = yield* ask("second")
      yield* ask("third")
      yield* settle
      // The end of BIG grants the second, which has not run then.
      big.addObserver(() => second.unsafeInterruptAsFork(big.id()))
      yield* Fiber.interrupt(big)
      yield* settle
      expect(served).toEqual([["first", 0], ["third", 0]])
      expect(yield* RateLimiter.stats(limiter)).toEqual({ burst: 2, available: 0, waiting: 0 })
    }))

  it.effect("RateLimiter-5: no fiber lives for a limiter on which nobody waits", () =>
    Effect.gen(function*() {
      const limiter = yield* limited(1)
      const { ask } = makeAsker(limiter)
      yield* ask("first")
      yield* settle
      const before = roots()
      const waiters = [yield* ask("second"), yield* ask("third", { acquireTimeout: "1 hour" })]
      yield* settle
      expect(roots()).toBe(before + 1)
      yield* Fiber.interruptAll(waiters)
      yield* settle
      expect(roots()).toBe(before)
    }))

  it.effect("RateLimiter-5: keys have limits of their own, and a full bucket is forgotten as others come", () =>
    Effect.gen(function*() {
      const users = yield* RateLimiter.makeKeyed<number>({ limit: 1, interval: "10 millis" })
      const call = (user: number) => RateLimiter.tryWithLimitKey(Effect.void, users, user)
      for (let user = 0; user < 100; user++) expect(Option.isSome(yield* call(user))).toBe(true)
      expect(Option.isNone(yield* call(7))).toBe(true)
      expect(yield* RateLimiter.size(users)).toBe(100)
      const waiting = yield* Effect.fork(RateLimiter.withLimitKey(Effect.succeed(1), users, 7))
      yield* settle
      expect(yield* RateLimiter.statsKey(users, 7)).toEqual({ burst: 1, available: 0, waiting: 1 })
      yield* TestClock.adjust(10)
      expect(yield* Fiber.join(waiting)).toBe(1)
      for (let user = 100; user < 160; user++) yield* call(user)
      // The 60 new ones, and 7.
      expect(yield* RateLimiter.size(users)).toBe(61)
      expect(yield* RateLimiter.statsKey(users, 1)).toEqual({ burst: 1, available: 1, waiting: 0 })
      const tooMany = yield* Effect.exit(
        RateLimiter.withLimitKey(Effect.void, users, 999, { tokens: 2 })
      )
      expect(Exit.isFailure(tooMany) && Cause.pretty(tooMany.cause)).toContain("never be served")
      expect(Option.isSome(yield* call(999))).toBe(true)
    }))

  it("RateLimiter-1 RateLimiter-2 RateLimiter-3: granted when a model of the bucket grants, whatever comes and goes", () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.array(
          fc.record({
            after: fc.integer({ min: 0, max: 40 }),
            tokens: fc.integer({ min: 1, max: 4 }),
            leaves: fc.boolean()
          }),
          { maxLength: 12 }
        ),
        (burst, given) =>
          Effect.runPromise(
            Effect.gen(function*() {
              const asks = given.map((ask) => ({ ...ask, tokens: Math.min(ask.tokens, burst) }))
              const limiter = yield* limited(burst)
              const { ask, served } = makeAsker(limiter)
              // The model: tokens in hundredths, a step each millisecond.
              let tokens = burst * 10
              let line: Array<{ readonly name: string; readonly tokens: number }> = []
              const expected: Array<readonly [string, number]> = []
              let now = 0
              const serve = () => {
                while (line.length > 0 && line[0]!.tokens * 10 <= tokens) {
                  const { name, tokens: spent } = line.shift()!
                  tokens -= spent * 10
                  expected.push([name, now])
                }
              }
              const pass = (millis: number) =>
                Effect.suspend(() => {
                  for (let i = 0; i < millis; i++) {
                    now++
                    tokens = Math.min(burst * 10, tokens + 1)
                    serve()
                  }
                  return Effect.zipRight(TestClock.adjust(millis), settle)
                })
              const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
              for (const [index, { after, leaves, tokens }] of asks.entries()) {
                yield* pass(after)
                fibers.push(yield* ask(String(index), { tokens }))
                yield* settle
                line.push({ name: String(index), tokens })
                serve()
                if (leaves) {
                  yield* Fiber.interrupt(fibers[index >> 1]!)
                  line = line.filter(({ name }) => name !== String(index >> 1))
                  serve()
                  yield* settle
                }
              }
              yield* pass(500)
              expect(served).toEqual(expected)
            }).pipe(Effect.provide(TestContext.TestContext))
          )
      ),
      { numRuns: 40 }
    ))

  it.effect("waits are in the ledger and spans; options are checked; layers take them from the configuration", () =>
    Effect.gen(function*() {
      const ledger = (yield* Ledger.Ledger)!
      const limiter = yield* limited(1)
      const { ask } = makeAsker(limiter)
      yield* ask("first")
      yield* ask("second")
      yield* settle
      const { live } = yield* ledger.snapshot
      expect(live.map(({ kind, name, state }) => [kind, name, state])).toEqual([
        ["rate limit", "api", "acquiring"]
      ])
      yield* TestClock.adjust(10)
      yield* settle
      yield* ledger.assertEmpty
      const wrong = RateLimiter.make({ limit: 0, interval: "1 second" })
      expect(String((yield* Effect.exit(wrong)).pipe(Exit.causeOption, Option.getOrThrow)))
        .toContain(
          "`limit` must be"
        )
      class Api extends Context.Tag("Api")<Api, RateLimiter.RateLimiter>() {}
      const layer = Layer.provide(
        RateLimiter.layerConfig(Api, {
          limit: Config.number("LIMIT"),
          interval: Config.duration("INTERVAL")
        }),
        Layer.setConfigProvider(
          ConfigProvider.fromMap(new Map([["LIMIT", "7"], ["INTERVAL", "1 second"]]))
        )
      )
      const stats = Effect.provide(Effect.flatMap(Api, RateLimiter.stats), layer)
      expect(yield* stats).toEqual({ burst: 7, available: 7, waiting: 0 })
      expect(JSON.stringify(limiter)).toContain("\"_id\":\"RateLimiter\",\"name\":\"api\"")
    }).pipe(Effect.provide(Ledger.layer())))
})
