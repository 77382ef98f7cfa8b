/** The same programs on Effect's operators and on ours: what they give must be equal, but for what is documented. */
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberRef,
  Layer,
  Request,
  RequestResolver,
  TestClock
} from "effect"
import { Parallel } from "holdfast"

type Operators = Pick<typeof Effect, "all" | "forEach" | "race" | "raceAll" | "raceFirst">

/** What a caller can see of an exit. */
const shown = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isSuccess(exit) ? exit.value : {
    failures: Chunk.toReadonlyArray(Cause.failures(exit.cause)),
    defects: Chunk.toReadonlyArray(Cause.defects(exit.cause)).map(String),
    interrupted: Cause.isInterrupted(exit.cause)
  }

const seen = (program: Effect.Effect<unknown, unknown>): Effect.Effect<unknown> =>
  Effect.map(Effect.exit(program), shown)

/** Ends after `turns` yields. */
const after = (turns: number) => Effect.repeatN(Effect.yieldNow(), turns)

/** What `program` notes, and how it ends. */
const noting = (
  program: (note: (text: string) => Effect.Effect<void>) => Effect.Effect<unknown, unknown>
): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    const notes: Array<string> = []
    return Effect.map(
      seen(program((text) => Effect.sync(() => void notes.push(text)))),
      (exit) => ({ notes, exit })
    )
  })

const programs: Record<string, (ops: Operators) => Effect.Effect<unknown, unknown>> = {}

const wide = { concurrency: "unbounded" } as const

// Children that items fork.
for (const concurrency of [1, 2, 3, "unbounded"] as const) {
  programs[`children of items run on after forEach, ${concurrency} at once`] = ({ forEach }) =>
    Effect.gen(function*() {
      let ended = 0
      const child = Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => ended++))
      const fibers = yield* forEach([1, 2, 3, 4], () => Effect.fork(child), { concurrency })
      yield* TestClock.adjust("2 seconds")
      const exits = yield* Effect.forEach(fibers, Fiber.await)
      return [ended, exits.map(Exit.isSuccess)]
    })
  programs[`children of items end with the caller, ${concurrency} at once`] = ({ forEach }) =>
    Effect.gen(function*() {
      let ended = 0
      const child = Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended++))
      const caller = yield* Effect.fork(
        Effect.zipRight(
          forEach([1, 2, 3], () => Effect.zipRight(Effect.fork(child), after(3)), { concurrency }),
          Effect.sync(() => ended)
        )
      )
      const whileItRan = yield* Fiber.join(caller)
      yield* after(20)
      return [whileItRan, ended]
    })
}
programs["children of a racer end with the racer"] = ({ race }) =>
  Effect.gen(function*() {
    let ended = 0
    const child = Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended++))
    const racer = Effect.zipRight(Effect.fork(child), after(3))
    yield* race(racer, Effect.zipRight(racer, Effect.never))
    yield* after(20)
    return ended
  })

// FiberRefs.
for (const concurrency of [1, 2, 4, "unbounded"] as const) {
  programs[`FiberRefs are joined as items end, ${concurrency} at once`] = ({ forEach }) =>
    Effect.gen(function*() {
      const ref = FiberRef.unsafeMake("none")
      yield* forEach(
        [9, 1, 5, 3],
        (n) => Effect.zipRight(after(n * 4), FiberRef.set(ref, `after ${n}`)),
        { concurrency }
      )
      return yield* FiberRef.get(ref)
    })
}
programs["FiberRefs of a race are the winner's"] = ({ race, raceAll, raceFirst }) =>
  Effect.gen(function*() {
    const ref = FiberRef.unsafeMake("none")
    const racer = (n: number, end: Effect.Effect<unknown, unknown>) =>
      Effect.zipRight(FiberRef.set(ref, `racer ${n}`), Effect.zipRight(after(n * 4), end))
    const left: Array<string> = []
    const note = Effect.flatMap(FiberRef.get(ref), (value) => Effect.sync(() => left.push(value)))
    yield* race(racer(3, Effect.void), racer(2, Effect.void))
    yield* note
    yield* raceAll([racer(1, Effect.fail("no")), racer(5, Effect.void), racer(6, Effect.void)])
    yield* note
    yield* Effect.exit(raceFirst(racer(4, Effect.void), racer(3, Effect.fail("first"))))
    yield* note
    return left
  })
programs["a failure joins no FiberRefs"] = ({ forEach }) =>
  Effect.gen(function*() {
    const ref = FiberRef.unsafeMake("none")
    yield* Effect.exit(
      forEach([1, 2], (n) =>
        Effect.zipRight(FiberRef.set(ref, `${n}`), n === 2 ? Effect.fail(n) : Effect.void), wide)
    )
    return yield* FiberRef.get(ref)
  })

// Order of causes.
for (const concurrency of [3, "unbounded"] as const) {
  programs[`causes come in input order, ${concurrency} at once`] = ({ forEach }) =>
    Effect.flatMap(
      Deferred.make<void>(),
      (latch) =>
        forEach([3, 1, 2], (n) =>
          Effect.uninterruptible(
            Effect.zipRight(
              n === 2 ? Deferred.succeed(latch, undefined) : Deferred.await(latch),
              Effect.fail(n)
            )
          ), { concurrency })
    )
}
programs["both of a race fail"] = ({ race }) =>
  race(Effect.zipRight(after(5), Effect.fail("slow")), Effect.fail("fast"))
programs["all of a race fail"] = ({ raceAll }) =>
  raceAll([3, 1, 2].map((n) => Effect.zipRight(after(n * 3), Effect.fail(n))))
programs["a race of a defect with a success"] = ({ race }) =>
  race(Effect.die("broken"), Effect.zipRight(after(2), Effect.succeed("won")))
programs["a race of a defect with a failure"] = ({ race }) =>
  race(Effect.die("broken"), Effect.fail("no"))

// A race whose first effect ends at once.
for (const operator of ["race", "raceFirst"] as const) {
  programs[`${operator}: the second begins although the first ends at once`] = (ops) =>
    noting((note) =>
      ops[operator](
        Effect.zipRight(note("first"), Effect.succeed("won")),
        Effect.onInterrupt(
          Effect.zipRight(note("second"), Effect.never),
          () => Effect.zipRight(Effect.yieldNow(), note("second ended"))
        )
      )
    )
  programs[`${operator} in an uninterruptible region waits for the loser`] = (ops) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(
        Effect.uninterruptible(ops[operator](Effect.void, Effect.sleep("45 seconds")))
      )
      yield* TestClock.adjust("30 seconds")
      const before = fiber.unsafePoll() === null
      yield* TestClock.adjust("30 seconds")
      return [before, fiber.unsafePoll() === null]
    })
  programs[`${operator} interrupted while a loser is slow to end`] = (ops) =>
    noting((note) =>
      Effect.gen(function*() {
        const slow = Effect.onInterrupt(
          Effect.never,
          () => Effect.zipRight(Effect.sleep("1 second"), note("slow ended"))
        )
        const fiber = yield* Effect.fork(ops[operator](slow, slow))
        yield* after(3)
        const ending = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust("2 seconds")
        return Exit.isInterrupted(yield* Fiber.join(ending))
      })
    )
}
programs["raceAll: racers are interruptible in an uninterruptible region"] = ({ raceAll }) =>
  Effect.uninterruptible(raceAll([Effect.never, Effect.zipRight(after(2), Effect.succeed("won"))]))

// Shapes and modes of `all`.
const mixed = { a: Effect.succeed(1), c: Effect.succeed("c"), b: Effect.fail("b") }
for (const concurrency of [undefined, 2, "unbounded"] as const) {
  for (const mode of ["default", "validate", "either"] as const) {
    for (const discard of [false, true]) {
      const options = { concurrency, mode, discard }
      const name = `all: mode ${mode}, ${concurrency ?? "one"} at once${discard ? ", discard" : ""}`
      programs[`${name}, record`] = ({ all }) => all(mixed, options)
      programs[`${name}, tuple`] = ({ all }) => all([mixed.a, mixed.c, mixed.b], options)
      programs[`${name}, iterable`] = ({ all }) => all(new Set([mixed.a, mixed.b]), options)
      programs[`${name}, successes`] = ({ all }) => all({ a: mixed.a, c: mixed.c }, options)
      programs[`${name}, nothing`] = ({ all }) => all([], options)
    }
  }
}
programs["all: defects pass through the modes"] = ({ all }) =>
  all([
    seen(all([Effect.die("x")], { mode: "either" })),
    seen(all([Effect.die("x")], { mode: "validate" }))
  ])
programs["forEach: discard gives nothing"] = ({ forEach }) =>
  forEach([1, 2], Effect.succeed, { discard: true, concurrency: 2 })

// `inherit`.
for (const inherited of [1, 2, "unbounded"] as const) {
  programs[`concurrency: "inherit" of ${inherited}`] = ({ forEach }) =>
    Effect.suspend(() => {
      let now = 0
      let most = 0
      const item = Effect.acquireUseRelease(
        Effect.sync(() => {
          most = Math.max(most, ++now)
        }),
        () => after(2),
        () => Effect.sync(() => now--)
      )
      return forEach([1, 2, 3, 4], () => item, { concurrency: "inherit" }).pipe(
        Effect.withConcurrency(inherited),
        Effect.map(() => most)
      )
    })
}

// Finalizers.
for (const concurrentFinalizers of [undefined, false, true]) {
  for (const concurrency of [1, 2, "unbounded"] as const) {
    programs[`concurrentFinalizers: ${concurrentFinalizers}, ${concurrency} at once`] = (
      { forEach }
    ) =>
      noting((note) =>
        Effect.gen(function*() {
          const items = forEach([1, 2, 3], (n) =>
            Effect.addFinalizer(() =>
              Effect.zipRight(
                note(`begin ${n}`),
                Effect.zipRight(after(9 - 2 * n), note(`end ${n}`))
              )
            ), { concurrency, concurrentFinalizers })
          yield* Effect.scoped(items)
        })
      )
  }
}

// Requests.
class Get extends Request.TaggedClass("Get")<string, string, { readonly id: number }> {}

const queried = (
  program: (get: (id: number) => Effect.Effect<string, string>) => Effect.Effect<unknown, unknown>
) =>
  Effect.suspend(() => {
    const queries: Array<string> = []
    const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) =>
      Effect.zipRight(
        Effect.yieldNow(),
        Effect.suspend(() => {
          queries.push(requests.map(({ id }) => id).join(" "))
          return Effect.forEach(requests, (request) =>
            Request.completeEffect(
              request,
              request.id < 0
                ? Effect.fail(`no ${request.id}`)
                : Effect.succeed(`item ${request.id}`)
            ), { discard: true })
        })
      )
    )
    return Effect.map(
      seen(program((id) => Effect.request(new Get({ id }), resolver))),
      (exit) => ({ queries, exit })
    )
  })

const five = [1, 2, 3, 4, 5]
for (const concurrency of [undefined, 1, 2, "unbounded", "inherit"] as const) {
  for (const batching of [undefined, false, true, "inherit"] as const) {
    const options = { concurrency, batching }
    const name = `batching: ${batching}, ${concurrency ?? "one"} at once`
    programs[`${name}, five requests`] = ({ forEach }) =>
      queried((get) => forEach(five, get, options))
    programs[`${name}, as withRequestBatching says`] = ({ forEach }) =>
      queried((get) => Effect.withRequestBatching(forEach(five, get, options), true))
    programs[`${name}, one request after the other`] = ({ forEach }) =>
      queried((get) =>
        forEach(
          [1, 2, 3],
          (id) =>
            id === 2
              ? get(id)
              : Effect.zipWith(get(id), Effect.suspend(() => get(id * 10)), (a, b) => a + b),
          {
            ...options,
            discard: false
          }
        )
      )
    programs[`${name}, within each other`] = ({ all, forEach }) =>
      queried((get) =>
        forEach(
          [1, 2],
          (id) => all([get(id), Effect.flatMap(get(id * 10), () => get(id * 100))], options),
          options
        )
      )
    programs[`${name}, one of them fails`] = ({ forEach }) =>
      queried((get) => forEach([1, 3, -2], (id) => Effect.uninterruptible(get(id)), options))
    programs[`${name}, validated`] = ({ all }) =>
      queried((get) =>
        all([get(1), get(-2), Effect.succeed("plain"), get(-4)], { ...options, mode: "validate" })
      )
  }
}
programs["batching: what is acquired before a request is released after it"] = ({ forEach }) =>
  noting((note) =>
    queried((get) =>
      forEach(
        [1, 2],
        (id) =>
          Effect.acquireUseRelease(
            note(`acquire ${id}`),
            () => get(id),
            () => note(`release ${id}`)
          ),
        {
          concurrency: "unbounded",
          batching: true
        }
      )
    )
  )
programs["batching: a failure beside suspended requests"] = ({ forEach }) =>
  noting((note) =>
    queried((get) =>
      seen(
        forEach([1, 2, 3], (id) =>
          id === 2
            ? Effect.zipRight(after(3), Effect.fail("no"))
            : Effect.acquireUseRelease(note(`acquire ${id}`), () => get(id), () =>
              note(`release ${id}`)), {
          concurrency: "unbounded",
          batching: true
        }).pipe(Effect.flip)
      )
    )
  )
programs["batching: FiberRefs of the items are joined"] = ({ forEach }) =>
  Effect.gen(function*() {
    const ref = FiberRef.unsafeMake("none")
    const { exit, queries } = yield* queried((get) =>
      forEach([1, 2, 3], (id) => Effect.zipRight(FiberRef.set(ref, `set by ${id}`), get(id)), {
        ...wide,
        batching: true
      })
    )
    return [queries, exit, yield* FiberRef.get(ref)]
  })
programs["batching: requests in a cache are answered after an interrupted batch"] = ({ forEach }) =>
  queried((get) =>
    Effect.gen(function*() {
      yield* Effect.exit(
        forEach([1, 2], (id) => id === 2 ? Effect.zipRight(after(3), Effect.fail("no")) : get(id), {
          ...wide,
          batching: true
        })
      )
      yield* after(30)
      return yield* get(1)
    })
  ).pipe(
    Effect.withRequestCaching(true),
    Effect.provide(
      Layer.setRequestCache(Request.makeCache({ capacity: 10, timeToLive: "1 minute" }))
    )
  )

programs["batching: composes with Effect's own operators, outside and inside"] = (
  { all, forEach }
) =>
  queried((get) =>
    Effect.all([
      forEach([1, 2], get, { ...wide, batching: true }),
      Effect.withSpan(
        all([get(3), Effect.zip(get(4), get(5), { concurrent: true, batching: true })], {
          ...wide,
          batching: "inherit"
        }),
        "span"
      ),
      forEach([6], get)
    ], { ...wide, batching: true })
  ).pipe(Effect.withRequestBatching(true))
programs["batching: uninterruptible, an interrupt does not reach it"] = ({ forEach }) =>
  queried((get) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(
        Effect.uninterruptible(forEach(five, get, { concurrency: 2, batching: true }))
      )
      yield* after(3)
      return shown(yield* Fiber.interrupt(fiber))
    })
  )
programs["batching: equal requests in a cache are one"] = ({ forEach }) =>
  queried((get) =>
    Effect.zip(
      forEach([1, 1, 2], get, { ...wide, batching: true }),
      forEach([2, 1, 3], get, { concurrency: 2, batching: true })
    )
  ).pipe(
    Effect.withRequestCaching(true),
    Effect.provide(
      Layer.setRequestCache(Request.makeCache({ capacity: 10, timeToLive: "1 minute" }))
    )
  )
programs["a race within forEach, and forEach within a race"] = ({ forEach, race }) =>
  noting((note) =>
    race(
      forEach([1, 2, 3], (n) =>
        race(
          Effect.zipRight(after(n), note(`fast ${n}`)),
          Effect.onInterrupt(Effect.never, () => note(`slow ${n} ended`))
        ), wide),
      Effect.onInterrupt(Effect.never, () => note("ended"))
    )
  )
programs["a service and a scope reach the items"] = ({ forEach }) =>
  noting((note) =>
    Effect.scoped(
      forEach([1, 2], (n) =>
        Effect.acquireRelease(
          note(`acquire ${n}`),
          (_, exit) => note(`release ${n}: ${exit._tag}`)
        ), wide)
    )
  )
for (const concurrency of [undefined, 2, "unbounded"] as const) {
  programs[`an item that throws, ${concurrency ?? "one"} at once`] = ({ forEach }) =>
    forEach([1], () => {
      throw new Error("thrown")
    }, { concurrency })
  programs[`an item that interrupts itself, ${concurrency ?? "one"} at once`] = ({ forEach }) =>
    forEach([1, 2], (n) => n === 2 ? Effect.interrupt : Effect.void, { concurrency })
  programs[`a call of no items, ${concurrency ?? "one"} at once`] = ({ forEach }) =>
    forEach([], Effect.succeed, { concurrency })
}

describe("Parallel-6: as Effect's", () => {
  for (const [name, program] of Object.entries(programs)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const theirs = yield* seen(program(Effect))
        const ours = yield* seen(program(Parallel))
        expect(ours).toEqual(theirs)
      }))
  }
})
