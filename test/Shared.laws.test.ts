/**
 * The laws of Shared: random events against a model, with a pause after each; random events without pauses, where only the
 * outcome is checked; and an interrupt between any two operations, by reducing the number of operations after which a fiber
 * yields.
 */
import { expect, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Scope } from "effect"
import * as fc from "fast-check"
import { Ledger } from "holdfast"
import * as Shared from "holdfast/Shared"
import { delayed, turnsBeforeYield } from "./support/yields.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 12)

/** A clock that only `advance` moves. */
const makeClock = () => {
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>()
  const state = { now: 0, sleepers: sleepers as ReadonlySet<unknown> }
  const clock: Clock.Clock = {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: () => state.now,
    currentTimeMillis: Effect.sync(() => state.now),
    unsafeCurrentTimeNanos: () => BigInt(state.now) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => BigInt(state.now) * 1_000_000n),
    sleep: (duration) =>
      Effect.async((resume) => {
        const sleeper = {
          at: state.now + Duration.toMillis(duration),
          wake: () => resume(Effect.void)
        }
        sleepers.add(sleeper)
        return Effect.sync(() => sleepers.delete(sleeper))
      })
  }
  const advance = (millis: number): void => {
    state.now += millis
    for (const sleeper of sleepers) {
      if (sleeper.at > state.now) continue
      sleepers.delete(sleeper)
      sleeper.wake()
    }
  }
  return { advance, clock, state }
}

const who = fc.nat(9)
const event = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("use" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("get" as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("opens" as const), isGood: fc.boolean() })
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("end" as const), who }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("interrupt" as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("invalidate" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("time" as const),
      millis: fc.integer({ min: 1, max: 60 })
    })
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const) }) }
)
type Event = typeof event extends fc.Arbitrary<infer A> ? A : never

interface Instance {
  state: "opening" | "open" | "gone"
  isDoomed: boolean
  idleSince: number
  readonly users: Set<number>
}

/** The expected state. Instances and users are known by their index. */
class Model {
  readonly instances: Array<Instance> = []
  /** How each user ended; undefined while it has an instance or waits for one. */
  readonly ends: Array<"ended" | "interrupted" | "refused" | "closed" | undefined> = []
  current: Instance | undefined = undefined
  isClosed = false
  now = 0
  readonly timeToLive: number
  constructor(timeToLive: number) {
    this.timeToLive = timeToLive
  }
  doom(instance: Instance | undefined) {
    if (instance === undefined) return
    instance.isDoomed = true
    if (this.current === instance) this.current = undefined
  }
  settle(instance: Instance) {
    if (instance.users.size > 0 || instance.state === "gone") return
    const isDue = instance.isDoomed || this.timeToLive <= this.now - instance.idleSince
    if (instance.state === "opening" || isDue) {
      this.doom(instance)
      instance.state = "gone"
    }
  }
  ask() {
    const user = this.ends.push(undefined) - 1
    if (this.isClosed) {
      this.ends[user] = "closed"
      return
    }
    if (this.current === undefined) {
      this.current = { state: "opening", isDoomed: false, idleSince: 0, users: new Set() }
      this.instances.push(this.current)
    }
    this.current.users.add(user)
  }
  leave(user: number, how: "ended" | "interrupted") {
    if (user >= this.ends.length || this.ends[user] !== undefined) return
    const instance = this.instances.find(({ users }) => users.has(user))!
    if (how === "ended" && instance.state === "opening") return
    this.ends[user] = how
    instance.users.delete(user)
    instance.idleSince = this.now
    this.settle(instance)
  }
  send(instance: Instance, how: "refused" | "closed") {
    for (const user of instance.users) this.ends[user] = how
    instance.users.clear()
    this.doom(instance)
    instance.state = "gone"
  }
  opens(index: number, isGood: boolean) {
    const instance = this.instances[index]!
    if (isGood) instance.state = "open"
    else this.send(instance, "refused")
  }
  invalidate() {
    const instance = this.current
    if (instance === undefined) return
    this.doom(instance)
    this.settle(instance)
  }
  time(millis: number) {
    this.now += millis
    for (const instance of this.instances) this.settle(instance)
  }
  close() {
    this.isClosed = true
    for (const instance of this.instances) {
      this.doom(instance)
      if (instance.state === "opening") this.send(instance, "closed")
      else this.settle(instance)
    }
  }
}

const endOf = (exit: Exit.Exit<unknown, unknown> | null): Model["ends"][number] => {
  if (exit === null) return undefined
  return Exit.match(exit, {
    onSuccess: () => "ended" as const,
    onFailure: (cause) =>
      cause._tag === "Fail" ? cause.error === "refused" ? "refused" : "closed" : "interrupted"
  })
}

const run = (timeToLive: number, events: ReadonlyArray<Event>) =>
  Effect.gen(function*() {
    const { advance, clock, state } = makeClock()
    const model = new Model(timeToLive)
    const opening = new Map<number, (isGood: boolean) => void>()
    const open = new Set<number>()
    const inside = new Map<number, { readonly instance: number; readonly end: () => void }>()
    let next = 0
    const acquire = Effect.suspend(() => {
      const id = next++
      return Effect.acquireReleaseInterruptible(
        Effect.async<number, string>((resume) => {
          opening.set(id, (isGood) => {
            opening.delete(id)
            if (isGood) open.add(id)
            resume(isGood ? Effect.succeed(id) : Effect.fail("refused"))
          })
          return Effect.sync(() => opening.delete(id))
        }),
        () => Effect.sync(() => open.delete(id))
      )
    })
    const owner = yield* Scope.make()
    const shared = yield* Shared.make({ name: "law", acquire, idleTimeToLive: timeToLive }).pipe(
      Scope.extend(owner),
      Effect.withClock(clock)
    )
    const users: Array<Fiber.RuntimeFiber<void, string | Shared.SharedClosed>> = []
    const stay = (who: number, instance: number) =>
      Effect.async<void>((resume) => {
        inside.set(who, { instance, end: () => resume(Effect.void) })
        return Effect.sync(() => inside.delete(who))
      })
    const closing: Array<Fiber.RuntimeFiber<void>> = []
    for (const event of events) {
      if (event.kind === "use" || event.kind === "get") {
        model.ask()
        const who = users.length
        const visit = event.kind === "use"
          ? Shared.use(shared, (id) => stay(who, id))
          : Effect.scoped(Effect.flatMap(Shared.get(shared), (id) => stay(who, id)))
        users.push(yield* Effect.fork(visit))
      } else if (event.kind === "opens") {
        const [first] = opening
        if (first === undefined) continue
        model.opens(first[0], event.isGood)
        first[1](event.isGood)
      } else if (event.kind === "end") {
        model.leave(event.who, "ended")
        const visitor = inside.get(event.who)
        inside.delete(event.who)
        visitor?.end()
      } else if (event.kind === "interrupt") {
        model.leave(event.who, "interrupted")
        if (users[event.who] !== undefined) yield* Fiber.interruptFork(users[event.who]!)
      } else if (event.kind === "invalidate") {
        model.invalidate()
        yield* Shared.invalidate(shared)
      } else if (event.kind === "time") {
        model.time(event.millis)
        advance(event.millis)
      } else {
        model.close()
        closing.push(yield* Effect.fork(Scope.close(owner, Exit.void)))
      }
      yield* settle
      const states = (wanted: Instance["state"]) =>
        model.instances.flatMap(({ state }, index) => state === wanted ? [index] : [])
      expect([...open]).toEqual(states("open"))
      expect([...opening.keys()]).toEqual(states("opening"))
      expect(users.map((user) => endOf(user.unsafePoll()))).toEqual(model.ends)
      for (const [index, { state, users }] of model.instances.entries()) {
        for (const user of state === "open" ? users : []) {
          expect(inside.get(user)?.instance).toBe(index)
        }
      }
      expect(yield* Shared.stats(shared)).toEqual({
        state: model.isClosed ? "closed" : model.current?.state ?? "none",
        users: model.current?.users.size ?? 0,
        former: states("open").length + states("opening").length
          - (model.current === undefined ? 0 : 1)
      })
    }
    closing.push(yield* Effect.fork(Scope.close(owner, Exit.void)))
    yield* settle
    yield* Fiber.interruptAll(users)
    for (const fiber of closing) yield* Fiber.join(fiber)
    yield* settle
    expect([open.size, opening.size, state.sleepers.size]).toEqual([0, 0, 0])
    const ledger = yield* Ledger.Ledger
    yield* ledger!.assertEmpty
  }).pipe(Effect.provide(Ledger.layer()))

it("Shared-1 Shared-2 Shared-3 Shared-4 Shared-5 Shared-6: 2,500 random schedules end as in the model", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0, 50),
      fc.array(event, { maxLength: 14 }),
      (timeToLive, events) => Effect.runPromise(run(timeToLive, events))
    ),
    { numRuns: 2_500, seed: 20_261_120 }
  )
})

/** An acquire that records which instances are open; `visit` fails if its instance is not. */
const makeWatched = (yields: number, failsEvery: number) => {
  const open = new Set<number>()
  let next = 0
  const pause = Effect.repeatN(Effect.yieldNow(), yields)
  const acquire = Effect.acquireRelease(
    Effect.suspend(() => {
      const id = next++
      return Effect.zipRight(
        pause,
        id % failsEvery === failsEvery - 1
          ? Effect.fail("refused")
          : Effect.sync(() => {
            open.add(id)
            return id
          })
      )
    }),
    (id) =>
      Effect.zipRight(
        pause,
        Effect.sync(() => {
          expect(open.delete(id)).toBe(true)
        })
      )
  )
  const check = (id: number) => Effect.sync(() => expect(open.has(id)).toBe(true))
  const visit = (id: number) =>
    Effect.zipRight(check(id), Effect.ensuring(Effect.repeatN(Effect.yieldNow(), 2), check(id)))
  return { acquire, open, visit }
}

it("Shared-1 Shared-2 KeyedShared-1 KeyedShared-2: 1,000 random schedules without pauses: no use of a closed instance, no entry left", async () => {
  const plan = fc.record({
    yields: fc.nat(3),
    failsEvery: fc.integer({ min: 2, max: 5 }),
    isKept: fc.boolean(),
    closeAt: fc.nat(12),
    users: fc.array(
      fc.record({
        key: fc.nat(2),
        startAt: fc.nat(6),
        interruptAt: fc.option(fc.nat(10), { nil: undefined }),
        invalidatesAt: fc.option(fc.nat(10), { nil: undefined })
      }),
      { maxLength: 9 }
    )
  })
  type Plan = typeof plan extends fc.Arbitrary<infer A> ? A : never
  const race = ({ closeAt, failsEvery, isKept, users, yields }: Plan) =>
    Effect.gen(function*() {
      const { acquire, open, visit } = makeWatched(yields, failsEvery)
      const owner = yield* Scope.make()
      const keyed = yield* Shared.makeKeyed({
        name: "law",
        acquire: () => acquire,
        capacity: 2,
        idleTimeToLive: isKept ? Duration.infinity : 0
      }).pipe(Scope.extend(owner))
      const fibers: Array<Fiber.RuntimeFiber<unknown, unknown>> = []
      const fibersOf = new Map<number, Fiber.RuntimeFiber<unknown, unknown>>()
      for (let tick = 0; tick <= 12; tick++) {
        for (const [who, { interruptAt, invalidatesAt, key, startAt }] of users.entries()) {
          if (startAt === tick) {
            const fiber = yield* Effect.fork(Shared.useKey(keyed, key, visit))
            fibersOf.set(who, fiber)
            fibers.push(fiber)
          }
          const fiber = fibersOf.get(who)
          if (interruptAt === tick && fiber) yield* Fiber.interruptFork(fiber)
          if (invalidatesAt === tick) {
            fibers.push(yield* Effect.fork(Shared.invalidateKey(keyed, key)))
          }
        }
        if (closeAt === tick) fibers.push(yield* Effect.fork(Scope.close(owner, Exit.void)))
        expect(open.size).toBeLessThanOrEqual(2)
        yield* Effect.yieldNow()
      }
      for (const fiber of fibers) yield* Fiber.await(fiber)
      yield* Scope.close(owner, Exit.void)
      const defects = fibers.flatMap((fiber) => {
        const exit = fiber.unsafePoll()
        return exit !== null && Exit.isFailure(exit) && exit.cause._tag === "Die"
          ? [exit.cause]
          : []
      })
      expect(defects).toEqual([])
      expect([open.size, yield* Shared.size(keyed)]).toEqual([0, 0])
      const ledger = yield* Ledger.Ledger
      yield* ledger!.assertEmpty
    }).pipe(Effect.provide(Ledger.layer()))
  await fc.assert(
    fc.asyncProperty(plan, (plan) => Effect.runPromise(race(plan))),
    { numRuns: 1_000, seed: 20_261_120 }
  )
})

/** Two users at once, by bracket and by scope; one is interrupted after `yields`; the other must succeed. */
const interruptOne = (victim: 0 | 1, yields: number, turns: number) =>
  Effect.gen(function*() {
    const { acquire, open, visit } = makeWatched(1, Number.POSITIVE_INFINITY)
    yield* Effect.scoped(Effect.gen(function*() {
      const shared = yield* Shared.make({ name: "law", acquire })
      const fibers = [
        yield* Effect.fork(Effect.zipRight(delayed(turns), Shared.use(shared, visit))),
        yield* Effect.fork(Effect.zipRight(
          delayed(turns),
          Effect.scoped(Effect.flatMap(Shared.get(shared), visit))
        ))
      ]
      yield* Effect.repeatN(Effect.yieldNow(), yields)
      yield* Fiber.interrupt(fibers[victim]!)
      expect(Exit.isSuccess(yield* Fiber.await(fibers[1 - victim]!))).toBe(true)
      expect(yield* Shared.refCount(shared)).toBe(0)
      yield* Shared.use(shared, visit)
    }))
    expect(open.size).toBe(0)
  })

it("Shared-1 Shared-2: an interrupt at every yield of every budget leaves nothing open, and the other user succeeds (S6)", () =>
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

it("KeyedShared-1 KeyedShared-2: two users of one key, one delayed or interrupted at every step: never two instances, no entry left", () =>
  Effect.runPromise(Effect.gen(function*() {
    const scenario = (victim: 0 | 1 | undefined, yields: number, turns: number) =>
      Effect.gen(function*() {
        const { acquire, open, visit } = makeWatched(0, Number.POSITIVE_INFINITY)
        const one = (id: number) =>
          Effect.zipRight(Effect.sync(() => expect([...open]).toEqual([id])), visit(id))
        yield* Effect.scoped(Effect.gen(function*() {
          const keyed = yield* Shared.makeKeyed({ name: "law", acquire: () => acquire })
          const use = Shared.useKey(keyed, "key", one)
          const get = Effect.scoped(Effect.flatMap(Shared.getKey(keyed, "key"), one))
          const fibers = [
            yield* Effect.fork(use),
            yield* Effect.fork(Effect.zipRight(delayed(turns), yields % 2 === 0 ? get : use))
          ]
          yield* Effect.repeatN(Effect.yieldNow(), yields)
          if (victim !== undefined) yield* Fiber.interrupt(fibers[victim]!)
          for (const [index, fiber] of fibers.entries()) {
            expect(Exit.isSuccess(yield* Fiber.await(fiber)) || index === victim).toBe(true)
          }
          expect(yield* Shared.size(keyed)).toBe(0)
        }))
        expect(open.size).toBe(0)
      })
    for (let budget = 14; budget <= 42; budget++) {
      for (let yields = 0; yields <= 25; yields++) {
        for (const victim of [0, 1] as const) {
          yield* Effect.withMaxOpsBeforeYield(scenario(victim, yields, 0), budget)
        }
      }
    }
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) {
      for (const victim of [0, 1, undefined] as const) {
        for (const yields of [1, 2]) yield* scenario(victim, yields, turns - less)
      }
      const keyed = yield* Effect.provideService(
        Shared.makeKeyed({ name: "law", acquire: () => Effect.void }),
        Scope.Scope,
        yield* Scope.make()
      )
      const alone = yield* Effect.fork(
        Effect.zipRight(delayed(turns - less), Shared.useKey(keyed, "key", () => Effect.never))
      )
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(alone)
      expect([less, yield* Shared.size(keyed)]).toEqual([less, 0])
    }
  })))
