/** Random schedules against a model: who asks, leaves, gives back, spoils, closes, and when; on virtual time. */
import { describe, expect, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Logger, Scope } from "effect"
import * as fc from "fast-check"
import * as Pool from "holdfast/Pool"

type Step =
  | { readonly _tag: "ask"; readonly way: "use" | "get" | "lease" | "tryUse" }
  | { readonly _tag: "return" | "interrupt" | "invalidate"; readonly which: number }
  | { readonly _tag: "tick"; readonly millis: number }
  | { readonly _tag: "invalidateAll" | "evictIdle" | "close" | "toggleDown" | "toggleBad" }

const which = fc.nat(7)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("ask" as const),
      way: fc.constantFrom(
        "use" as const,
        "use" as const,
        "get" as const,
        "lease" as const,
        "tryUse" as const
      )
    })
  },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("return" as const), which }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("interrupt" as const), which }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("invalidate" as const), which }) },
  {
    weight: 3,
    arbitrary: fc.record({
      _tag: fc.constant("tick" as const),
      millis: fc.constantFrom(1, 5, 10, 60)
    })
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Step>(
      { _tag: "invalidateAll" },
      { _tag: "evictIdle" },
      { _tag: "close" },
      { _tag: "toggleDown" },
      { _tag: "toggleBad" }
    )
  }
)

const settings = fc.record({
  max: fc.integer({ min: 1, max: 3 }),
  minIdle: fc.nat(1),
  opensIn: fc.constantFrom(0, 0, 10),
  maxUses: fc.constantFrom(undefined, 1, 2),
  acquireTimeout: fc.constantFrom(undefined, 5, 50),
  createTimeout: fc.constantFrom(undefined, 5, 50),
  idleTimeout: fc.constantFrom(undefined, 10),
  maxLifetime: fc.constantFrom(undefined, 20),
  maxWaiters: fc.constantFrom(undefined, 1),
  checks: fc.boolean(),
  resets: fc.boolean(),
  reuse: fc.constantFrom("lifo" as const, "fifo" as const),
  createOnAbandon: fc.constantFrom("keep" as const, "interrupt" as const)
})
type Given = typeof settings extends fc.Arbitrary<infer A> ? A : never

interface Item {
  readonly id: number
  closed: boolean
  /** When it was declared invalid, in epochs. */
  spoiltIn: number
  held: boolean
}

interface Asker {
  readonly id: number
  readonly way: string
  readonly gate: Deferred.Deferred<void>
  fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  /** Has the item. */
  item: Item | undefined
  /** Does not wait any more. */
  served: boolean
}

/** The world one schedule runs in, and what is not allowed to happen in it. */
const makeWorld = (given: Given) => {
  const world = {
    down: false,
    bad: false,
    items: [] as Array<Item>,
    live: 0,
    askers: [] as Array<Asker>,
    wrongs: [] as Array<string>,
    /** Counts the times everything granted had its turn: what was granted before may still begin until then. */
    epoch: 0,
    closedIn: Infinity
  }
  const wrong = (what: string) => world.wrongs.push(what)
  const acquire = Effect.acquireRelease(
    Effect.suspend(() => {
      if (world.down) return Effect.fail("down" as const)
      const item: Item = { id: world.items.length, closed: false, spoiltIn: Infinity, held: false }
      world.items.push(item)
      world.live++
      return Effect.succeed(item)
    }),
    (item) =>
      Effect.sync(() => {
        if (item.closed) wrong(`item ${item.id} closed twice`)
        if (item.held) wrong(`item ${item.id} closed while held`)
        item.closed = true
        world.live--
      })
  )
  const { checks, opensIn, resets, ...options } = given
  const make = Pool.make({
    ...options,
    acquire: opensIn === 0 ? acquire : Effect.delay(acquire, opensIn),
    validate: checks ? () => Effect.sync(() => !world.bad) : undefined,
    validateAfterIdle: 5,
    reset: resets ? () => Effect.sleep(1) : undefined
  })
  /** A holder: it takes an item, waits for its gate and gives the item back. */
  const body = (asker: Asker) => (item: Item) =>
    Effect.suspend(() => {
      asker.served = true
      if (item.held) wrong(`item ${item.id} lent twice at once`)
      if (item.closed) wrong(`item ${item.id} lent after its release`)
      if (world.epoch > item.spoiltIn) wrong(`item ${item.id} lent after it was invalid`)
      if (world.epoch > world.closedIn) wrong(`item ${item.id} lent after closing`)
      const passed = world.askers.find((other) =>
        other.id < asker.id && !other.served && other.fiber?.unsafePoll() === null
      )
      if (passed !== undefined) wrong(`${asker.id} was served before ${passed.id}`)
      item.held = true
      asker.item = item
      return Effect.ensuring(
        Deferred.await(asker.gate),
        Effect.sync(() => {
          item.held = false
          asker.item = undefined
        })
      )
    })
  return { world, wrong, make, body }
}

/** Not `repeatN`, which yields once more after each. */
const settle = Effect.suspend(() => {
  let left = 8
  return Effect.whileLoop({ while: () => left-- > 0, body: Effect.yieldNow, step: () => {} })
})

/** `TestClock` waits for real milliseconds at each step; ten thousand schedules have no time for that. */
const makeClock = () => {
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>()
  let now = 0
  const clock: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => now,
    unsafeCurrentTimeNanos: () => BigInt(now) * 1_000_000n,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    sleep: (duration) =>
      Effect.async((resume) => {
        const sleeper = { at: now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
        sleepers.add(sleeper)
        return Effect.sync(() => sleepers.delete(sleeper))
      })
  }
  const next = (until: number) =>
    Array.from(sleepers).filter(({ at }) => at <= until).toSorted((a, b) => a.at - b.at)[0]
  const advance = (millis: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const until = now + millis
      return Effect.map(
        Effect.whileLoop({
          while: () => next(until) !== undefined,
          body: () => {
            const first = next(until)
            if (first !== undefined) {
              now = Math.max(now, first.at)
              sleepers.delete(first)
              first.wake()
            }
            return settle
          },
          step: () => {}
        }),
        () => {
          now = until
        }
      )
    })
  return { advance, clock }
}

const runSchedule = (given: Given, steps: ReadonlyArray<Step>) => {
  const { advance, clock } = makeClock()
  return Effect.gen(function*() {
    const { body, make, world, wrong } = makeWorld(given)
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(make, scope)
    const check = () => {
      const { closing, creating, idle, max, size, used } = Pool.unsafeStats(pool)
      if (idle + used + creating + closing !== size) {
        wrong(`Pool-1: ${idle} + ${used} + ${creating} + ${closing} ≠ ${size}`)
      }
      if (size > max) wrong(`Pool-1: ${size} > ${max}`)
    }
    const borrow = (asker: Asker): Effect.Effect<unknown, unknown> => {
      const run = body(asker)
      if (asker.way === "use") return Pool.use(pool, run)
      if (asker.way === "tryUse") return Pool.tryUse(pool, run)
      if (asker.way === "get") return Effect.scoped(Effect.flatMap(Pool.get(pool), run))
      return Effect.scoped(Effect.flatMap(
        Pool.lease(pool),
        ({ release, value }) => Effect.zipRight(run(value), release)
      ))
    }
    const take = (which: number, who: (asker: Asker) => boolean): Asker | undefined => {
      const some = world.askers.filter(who)
      return some[which % Math.max(1, some.length)]
    }
    const perform = (step: Step): Effect.Effect<unknown> => {
      switch (step._tag) {
        case "ask":
          return Effect.gen(function*() {
            const gate = yield* Deferred.make<void>()
            const id = world.askers.length
            const asker: Asker = {
              id,
              way: step.way,
              gate,
              fiber: undefined,
              item: undefined,
              // Who does not wait cannot be passed.
              served: step.way === "tryUse"
            }
            world.askers.push(asker)
            asker.fiber = yield* Effect.fork(Effect.exit(borrow(asker)))
          })
        case "return": {
          const asker = take(step.which, ({ item }) => item !== undefined)
          return asker === undefined ? Effect.void : Deferred.succeed(asker.gate, undefined)
        }
        case "interrupt": {
          const asker = take(step.which, ({ fiber }) => fiber?.unsafePoll() === null)
          return asker?.fiber === undefined ? Effect.void : Fiber.interruptFork(asker.fiber)
        }
        case "invalidate": {
          const item = world.items[step.which % Math.max(1, world.items.length)]
          return item === undefined ? Effect.void : Effect.map(
            Pool.invalidate(pool, item),
            () => {
              item.spoiltIn = Math.min(item.spoiltIn, world.epoch)
            }
          )
        }
        case "tick":
          return advance(step.millis)
        case "invalidateAll":
          return Effect.map(Pool.invalidateAll(pool), () => {
            for (const item of world.items) item.spoiltIn = Math.min(item.spoiltIn, world.epoch)
          })
        case "evictIdle":
          return Pool.evictIdle(pool)
        case "close":
          return Effect.fork(Effect.exit(Effect.suspend(() => {
            world.closedIn = Math.min(world.closedIn, world.epoch)
            return Pool.close(pool)
          })))
        case "toggleDown":
          world.down = !world.down
          return Effect.void
        case "toggleBad":
          world.bad = !world.bad
          return Effect.void
      }
    }
    for (const [index, step] of steps.entries()) {
      yield* perform(step)
      check()
      // Not always: steps that fall on one another are where the trouble is.
      if (index % 3 !== 0) {
        yield* settle
        world.epoch++
      }
      check()
    }
    // The end: the source works, all holders give back, and no item or waiter is left.
    world.down = false
    world.bad = false
    for (const { gate } of world.askers) yield* Deferred.succeed(gate, undefined)
    for (let i = 0; i < 20 && world.askers.some(({ fiber }) => fiber?.unsafePoll() === null); i++) {
      yield* advance(50)
      yield* settle
      check()
    }
    for (const { fiber, id } of world.askers) {
      if (fiber?.unsafePoll() === null) wrong(`${id} is never served`)
    }
    const closing = yield* Effect.fork(Effect.exit(Scope.close(scope, Exit.void)))
    for (let i = 0; i < 20 && closing.unsafePoll() === null; i++) {
      yield* settle
      yield* advance(50)
    }
    if (closing.unsafePoll() === null) wrong("closing hangs")
    // What was opened too late for its createTimeout.
    yield* advance(60)
    const { created, destroyed, size } = Pool.unsafeStats(pool)
    if (size !== 0 || created !== destroyed || world.live !== 0) {
      wrong(`Pool-8: ${created} created, ${destroyed} destroyed, ${world.live} live, ${size} left`)
    }
    return world.wrongs
  }).pipe(Effect.withClock(clock))
}

const holds = (runs: number, seed: number) => {
  let run = 0
  return fc.assert(
    fc.asyncProperty(
      settings,
      fc.array(step, { minLength: 3, maxLength: 12 }),
      async (given, steps) => {
        // Schedules are microtasks to the last: let the test runner have a word now and then.
        if (++run % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
        const wrongs = await Effect.runPromise(
          Effect.provide(runSchedule(given, steps), quietly)
        )
        expect(wrongs).toEqual([])
      }
    ),
    { numRuns: runs, seed }
  )
}

const quietly = Logger.remove(Logger.defaultLogger)

describe("Pool, random schedules", () => {
  it(
    "Pool-1, Pool-2, Pool-3, Pool-5, Pool-6, Pool-8: hold in 10,000 random schedules",
    async () => {
      await holds(10_000, 20_261_120)
    },
    180_000
  )
})
