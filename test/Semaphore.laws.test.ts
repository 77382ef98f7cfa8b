/**
 * The laws of the semaphore: against a model that is a list, in any order of events; and an interrupt in every gap between
 * two operations, found by shrinking the number of operations after which a fiber yields.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as fc from "fast-check"
import { Semaphore } from "holdfast"
import { delayed, turnsBeforeYield } from "./support/yields.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 3)

type Event =
  | { readonly kind: "ask"; readonly permits: number }
  | { readonly kind: "try"; readonly permits: number }
  | { readonly kind: "end"; readonly who: number }
  | { readonly kind: "interrupt"; readonly who: number }
  | { readonly kind: "resize"; readonly permits: number }

const permits = fc.integer({ min: 1, max: 3 })
const who = fc.nat(11)
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("ask" as const), permits }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("try" as const), permits }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("end" as const), who }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("interrupt" as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("resize" as const), permits }) }
)

interface Asker {
  readonly permits: number
  state: "waiting" | "holding" | "gone"
}

/** What has to be: a list of askers in the order they came. */
class Model {
  permits: number
  readonly askers: Array<Asker> = []
  constructor(permits: number) {
    this.permits = permits
  }
  get free() {
    return this.askers.reduce(
      (free, asker) => asker.state === "holding" ? free - asker.permits : free,
      this.permits
    )
  }
  get waiting() {
    return this.askers.filter(({ state }) => state === "waiting")
  }
  serve() {
    for (const asker of this.waiting) {
      if (asker.permits > this.permits) asker.state = "gone"
      else if (asker.permits > this.free) return
      else asker.state = "holding"
    }
  }
  ask(permits: number) {
    this.askers.push({ permits, state: permits > this.permits ? "gone" : "waiting" })
    this.serve()
  }
  /** A resize sends the hopeless away wherever they stand. */
  resize(permits: number) {
    this.permits = permits
    for (const asker of this.waiting) if (asker.permits > permits) asker.state = "gone"
    this.serve()
  }
  leave(who: number, from: ReadonlyArray<Asker["state"]>) {
    const asker = this.askers[who]
    if (asker !== undefined && from.includes(asker.state)) asker.state = "gone"
    this.serve()
  }
}

const run = (events: ReadonlyArray<Event>) =>
  Effect.gen(function*() {
    const semaphore = Semaphore.unsafeMake(2)
    const model = new Model(2)
    const holding = new Map<number, () => void>()
    const fibers: Array<Fiber.RuntimeFiber<void>> = []
    const ask = (permits: number) => {
      const who = fibers.length
      const body = Effect.async<void>((resume) => {
        holding.set(who, () => resume(Effect.void))
        return Effect.sync(() => holding.delete(who))
      })
      return Effect.map(
        Effect.fork(Semaphore.withPermits(body, semaphore, permits)),
        (fiber) => fibers.push(fiber)
      )
    }
    for (const event of events) {
      if (event.kind === "ask") {
        model.ask(event.permits)
        yield* ask(event.permits)
      } else if (event.kind === "try") {
        if (event.permits > semaphore.permits) continue
        const isFree = model.waiting.length === 0 && model.free >= event.permits
        expect(Semaphore.unsafeTryTake(semaphore, event.permits)).toBe(isFree)
        if (isFree) Semaphore.unsafeRelease(semaphore, event.permits)
      } else if (event.kind === "resize") {
        model.resize(event.permits)
        yield* Semaphore.resize(semaphore, event.permits)
      } else if (event.kind === "end") {
        model.leave(event.who, ["holding"])
        holding.get(event.who)?.()
        holding.delete(event.who)
      } else if (fibers[event.who] !== undefined) {
        model.leave(event.who, ["holding", "waiting"])
        yield* Fiber.interruptFork(fibers[event.who]!)
      }
      yield* settle
      expect(Semaphore.unsafeStats(semaphore)).toEqual({
        permits: model.permits,
        free: model.free,
        waiting: model.waiting.length
      })
      expect([...holding.keys()].toSorted((a, b) => a - b)).toEqual(
        model.askers.flatMap(({ state }, who) => state === "holding" ? [who] : [])
      )
    }
    yield* Fiber.interruptAll(fibers)
    expect(Semaphore.unsafeStats(semaphore)).toMatchObject({ free: semaphore.permits, waiting: 0 })
  })

it("Semaphore-1 Semaphore-2 Semaphore-3 Semaphore-4 Semaphore-5: 4,000 random schedules go as the model does", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 14 }),
      (events) => Effect.runPromise(run(events))
    ),
    { numRuns: 4_000, seed: 20_261_120 }
  )
})

it("Semaphore-1 Semaphore-2: 1,000 random schedules without a pause: never more inside than permits, first come first", async () => {
  const asks = fc.array(
    fc.record({
      permits: fc.integer({ min: 1, max: 3 }),
      yields: fc.nat(3),
      interruptAfter: fc.option(fc.nat(6), { nil: undefined })
    }),
    { maxLength: 12 }
  )
  const race = (schedule: typeof asks extends fc.Arbitrary<infer A> ? A : never) =>
    Effect.gen(function*() {
      const semaphore = Semaphore.unsafeMake(3)
      const order: Array<number> = []
      let inside = 0
      const fibers = yield* Effect.forEach(
        schedule,
        ({ permits, yields }, who) =>
          Effect.fork(Semaphore.withPermits(
            Effect.acquireUseRelease(
              Effect.sync(() => {
                order.push(who)
                inside += permits
                expect(inside).toBeLessThanOrEqual(3)
              }),
              () => Effect.repeatN(Effect.yieldNow(), yields),
              () =>
                Effect.sync(() => {
                  inside -= permits
                })
            ),
            semaphore,
            permits
          ))
      )
      for (let tick = 0; tick <= 6; tick++) {
        for (const [who, { interruptAfter }] of schedule.entries()) {
          if (interruptAfter === tick) yield* Fiber.interruptFork(fibers[who]!)
        }
        yield* Effect.yieldNow()
      }
      for (const fiber of fibers) yield* Fiber.await(fiber)
      expect(order).toEqual(order.toSorted((a, b) => a - b))
      expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 3, free: 3, waiting: 0 })
    })
  await fc.assert(
    fc.asyncProperty(asks, (schedule) => Effect.runPromise(race(schedule))),
    { numRuns: 1_000, seed: 20_261_120 }
  )
})

/** One holds, one waits, one is interrupted after `yields`; afterwards everything is as if nothing had been. */
const interruptOne = (victim: 0 | 1, yields: number, turns: number) =>
  Effect.gen(function*() {
    const semaphore = Semaphore.unsafeMake(2)
    const body = Effect.zipRight(
      delayed(turns),
      Semaphore.withPermits(Effect.yieldNow(), semaphore, 2)
    )
    const fibers = [yield* Effect.fork(body), yield* Effect.fork(body), yield* Effect.fork(body)]
    yield* Effect.repeatN(Effect.yieldNow(), yields)
    yield* Fiber.interrupt(fibers[victim]!)
    for (const fiber of fibers) yield* Fiber.await(fiber)
    expect(Semaphore.unsafeStats(semaphore)).toEqual({ permits: 2, free: 2, waiting: 0 })
    expect(yield* Semaphore.tryWithPermits(Effect.void, semaphore, 2)).toMatchObject({
      _tag: "Some"
    })
  })

it("Semaphore-3: an interrupt at every yield of every budget loses and doubles nothing (S6)", () =>
  Effect.runPromise(Effect.gen(function*() {
    for (let budget = 14; budget <= 42; budget++) {
      for (let yields = 0; yields <= 25; yields++) {
        for (const victim of [0, 1] as const) {
          yield* Effect.withMaxOpsBeforeYield(interruptOne(victim, yields, 0), budget)
        }
      }
    }
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) {
      for (const victim of [0, 1] as const) yield* interruptOne(victim, 1, turns - less)
    }
  })))

it("Semaphore-2 WaitQueue-5: a release between finding nothing and standing in line is not missed", () =>
  Effect.runPromise(Effect.gen(function*() {
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) {
      const semaphore = Semaphore.unsafeMake(1)
      for (
        const use of [
          Semaphore.withPermit(Effect.void, semaphore),
          Effect.scoped(Semaphore.get(semaphore, 1)),
          Effect.uninterruptibleMask((restore) =>
            Effect.map(
              Semaphore.takeInMask(semaphore, 1, restore, { acquireTimeout: "1 hour" }),
              () => Semaphore.unsafeRelease(semaphore, 1)
            )
          )
        ]
      ) {
        yield* Effect.fork(Semaphore.withPermit(Effect.yieldNow(), semaphore))
        const second = yield* Effect.fork(Effect.zipRight(delayed(turns - less), use))
        yield* Effect.repeatN(Effect.yieldNow(), 8)
        expect([less, Semaphore.unsafeStats(semaphore)]).toEqual([
          less,
          { permits: 1, free: 1, waiting: 0 }
        ])
        yield* Fiber.join(second)
      }
    }
  })))
