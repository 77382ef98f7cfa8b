/**
 * Ten programs of three fibers, each with the exit that every order must have: some right, some with a planted race. What the plain
 * enumeration of their orders finds, the reduced one must find too.
 */
import { Deferred, Effect, Exit, Fiber, Queue, Ref } from "effect"
import { Mutex, Semaphore } from "holdfast"
import { Explore } from "holdfast/Testing"
import { makeHandOff } from "./handOff.ts"

export interface Trio {
  readonly name: string
  /** Whether some order with up to two delays ends wrongly. */
  readonly isBroken: boolean
  readonly body: () => Effect.Effect<unknown>
  readonly right: unknown
}

/** A piece of work in a bracket, as requests run. */
const request = (work: Effect.Effect<unknown>): Effect.Effect<unknown> =>
  Effect.acquireUseRelease(Effect.void, () => work, () => Effect.void)

/** Three fibers at once, all awaited; then a look at what they have left. */
const three = <A>(
  one: Effect.Effect<unknown>,
  two: Effect.Effect<unknown>,
  three: Effect.Effect<unknown>,
  look: () => A
): Effect.Effect<A> =>
  Effect.gen(function*() {
    const fibers = [
      yield* Effect.fork(request(one)),
      yield* Effect.fork(request(two)),
      yield* Effect.fork(request(three))
    ]
    for (const fiber of fibers) yield* Fiber.join(fiber)
    return look()
  })

const thrice = <A>(each: Effect.Effect<unknown>, look: () => A): Effect.Effect<A> =>
  three(each, each, each, look)

const increment = (ref: Ref.Ref<number>) =>
  Effect.gen(function*() {
    const n = yield* Ref.get(ref)
    yield* Ref.set(ref, n + 1)
  })

/** An object that three users read and write. */
const account = () => ({ balance: 0, entries: 0, ok: true, inside: 0, most: 0 })

const enter = (state: ReturnType<typeof account>) =>
  Effect.zipRight(
    Effect.sync(() => {
      state.most = Math.max(state.most, ++state.inside)
    }),
    Effect.sync(() => {
      state.inside--
    })
  )

const within =
  (make: () => { readonly lock: (use: Effect.Effect<void>) => Effect.Effect<void> }) => () =>
    Effect.suspend(() => {
      const state = account()
      const { lock } = make()
      return thrice(lock(enter(state)), () => state.most)
    })

export const trios: ReadonlyArray<Trio> = [
  {
    name: "updates in one step",
    isBroken: false,
    right: 3,
    body: () =>
      Effect.flatMap(
        Ref.make(0),
        (ref) => thrice(Ref.update(ref, (n) => n + 1), () => Effect.runSync(Ref.get(ref)))
      )
  },
  {
    name: "a lost update of a Ref",
    isBroken: true,
    right: 3,
    body: () =>
      Effect.flatMap(
        Ref.make(0),
        (ref) => thrice(increment(ref), () => Effect.runSync(Ref.get(ref)))
      )
  },
  {
    name: "a lost update of a variable",
    isBroken: true,
    right: 3,
    body: () =>
      Effect.suspend(() => {
        let count = 0
        const each = Effect.gen(function*() {
          const before = count
          yield* Effect.sync(() => {})
          count = before + 1
        })
        return thrice(each, () => count)
      })
  },
  {
    name: "a torn read that takes two delays",
    isBroken: true,
    right: true,
    body: () =>
      Effect.suspend(() => {
        let value = "A"
        let seen = ""
        const look = Effect.sync(() => {
          seen += value
        })
        const write = (to: string) =>
          Effect.sync(() => {
            value = to
          })
        return three(
          Effect.zipRight(write("A"), Effect.void),
          Effect.zipRight(look, look),
          Effect.zipRight(write("B"), write("A")),
          () => seen !== "AB"
        )
      })
  },
  {
    name: "a balance and its entries in two steps",
    isBroken: true,
    right: true,
    body: () =>
      Effect.suspend(() => {
        const state = account()
        const deposit = Effect.zipRight(
          Effect.sync(() => {
            state.balance++
          }),
          Effect.sync(() => {
            state.entries++
          })
        )
        const audit = Effect.sync(() => {
          if (state.balance !== state.entries) state.ok = false
        })
        return three(deposit, audit, deposit, () => state.ok)
      })
  },
  {
    name: "two locks in two orders, beside a third",
    isBroken: true,
    right: true,
    body: () =>
      Effect.gen(function*() {
        const a = yield* Semaphore.make(1)
        const b = yield* Semaphore.make(1)
        const use = (outer: Semaphore.Semaphore, inner: Semaphore.Semaphore) =>
          Semaphore.withPermit(outer)(Semaphore.withPermit(inner)(Effect.void))
        return yield* three(use(a, b), use(b, a), Semaphore.withPermit(a)(Effect.void), () => true)
      })
  },
  {
    name: "a hand-off, right",
    isBroken: false,
    right: 1,
    body: within(() => ({ lock: makeHandOff().withPermit }))
  },
  {
    name: "a hand-off that counts a step too late",
    isBroken: true,
    right: 1,
    body: within(() => ({ lock: makeHandOff({ checkThenAct: true }).withPermit }))
  },
  {
    name: "a Mutex of ours",
    isBroken: false,
    right: 1,
    body: () =>
      Effect.flatMap(Mutex.make(), (mutex) => within(() => ({ lock: Mutex.withLock(mutex) }))())
  },
  {
    name: "a result that is taken before it is whole",
    isBroken: true,
    right: 2,
    body: () =>
      Effect.gen(function*() {
        const ready = yield* Deferred.make<void>()
        const queue = yield* Queue.unbounded<number>()
        let total = 0
        const producer = Effect.gen(function*() {
          yield* Queue.offer(queue, 1)
          yield* Deferred.succeed(ready, undefined)
          yield* Queue.offer(queue, 1)
        })
        const consumer = Effect.gen(function*() {
          yield* Deferred.await(ready)
          for (const n of yield* Queue.takeAll(queue)) total += n
        })
        return yield* three(producer, consumer, Queue.size(queue), () => total)
      })
  }
]

/** What an enumeration of the orders of a trio has shown. */
export interface Shown {
  readonly runs: number
  readonly seconds: number
  readonly status: Explore.Verdict["status"]
  /** Every end that differs from the right one, the hang included. */
  readonly wrong: ReadonlyArray<string>
}

/** Every set of up to two delays: all of them, or one of each order. */
export const ordersOf = async ({ body, name, right }: Trio, reduced: boolean): Promise<Shown> => {
  const wrong = new Set<string>()
  const { findings, runs, seconds, status } = await Explore.interleavings({ name, body }, {
    reduced,
    random: 0,
    pct: { runs: 0 },
    budget: { runs: Infinity, millis: Infinity },
    check: (exit) => {
      if (Exit.isSuccess(exit) && exit.value === right) return true
      const end = Exit.isSuccess(exit) ? String(exit.value) : "a failure"
      wrong.add(end)
      return end
    }
  })
  const laws = findings.flatMap(({ violations }) => violations.map(({ law }) => law))
  if (laws.includes("the target exits")) wrong.add("never")
  return { runs, seconds, status, wrong: [...wrong].toSorted() }
}
