/**
 * Deadlocks of real primitives: every circle is found, through any mix of them, and nothing else is reported as one.
 */
import { describe, expect, it } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Queue, type Scope } from "effect"
import * as fc from "effect/FastCheck"
import { Ledger, Lock, Mutex, Pool, RwLock, Semaphore, Shared } from "holdfast"
import * as KeyedPool from "holdfast/Pool/Keyed"

const settle = Effect.repeatN(Effect.yieldNow(), 40)

type Body = Effect.Effect<unknown, unknown>
type Take = (body: Body) => Body

/** Without its own detection of reentry, so that the ledger has to report it. */
const mutex = (name: string) => Mutex.unsafeMake({ name, detectReentry: false })

/** Acquires one after the other, each inside the one before, then runs `last`. */
const nest = (takes: ReadonlyArray<Take>, last: Body): Body =>
  Arr.reduceRight(takes, last, (body, take) => take(Effect.zipRight(Effect.yieldNow(), body)))

/** Each circle as the sorted list of its links: `a: x of b` means that `a` waits for `x`, which `b` holds. */
const circles = (
  fibers: Readonly<Record<string, Fiber.RuntimeFiber<unknown, unknown>>>
): Effect.Effect<ReadonlyArray<ReadonlyArray<string>>> =>
  Effect.map(Ledger.snapshot, ({ deadlocks, live }) => {
    const names = new Map(
      Object.entries(fibers).map(([name, fiber]) => [`#${fiber.id().id}`, name])
    )
    const entryOf = (id: number) => live.find((entry) => entry.id === id)!
    const who = (id: number) => names.get(entryOf(id).fiber!) ?? "somebody"
    for (const { waits } of deadlocks) {
      for (const [index, { holder }] of waits.entries()) {
        const next = waits[(index + 1) % waits.length]!
        expect(entryOf(next.waiter).fiber).toBe(entryOf(holder).fiber)
      }
    }
    return deadlocks.map(({ waits }) =>
      waits.map(({ holder, waiter }) => `${who(waiter)}: ${entryOf(waiter).name} of ${who(holder)}`)
        .toSorted()
    )
  })

/** Starts them, one turn of the scheduler after the other, and returns the circles once all of them wait. */
const start = (bodies: Readonly<Record<string, Body>>) =>
  Effect.gen(function*() {
    const fibers: Record<string, Fiber.RuntimeFiber<unknown, unknown>> = {}
    for (const [name, body] of Object.entries(bodies)) {
      fibers[name] = yield* Effect.forkScoped(body)
    }
    yield* settle
    return { fibers, found: yield* circles(fibers) }
  })

const inLedger = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.provide(Effect.scoped(effect), Ledger.layer())

const circle = (title: string, effect: Effect.Effect<void, unknown, Scope.Scope>) =>
  it.effect(`Ledger-5: ${title}`, () => inLedger(effect))

describe("a circle is found", () => {
  circle(
    "two mutexes in opposite orders",
    Effect.gen(function*() {
      const [left, right] = [Mutex.withLock(mutex("left")), Mutex.withLock(mutex("right"))]
      const { found } = yield* start({
        ann: nest([left, right], Effect.void),
        bob: nest([right, left], Effect.void)
      })
      expect(found).toEqual([["ann: right of bob", "bob: left of ann"]])
    })
  )

  circle(
    "three in a ring",
    Effect.gen(function*() {
      const [x, y, z] = [mutex("x"), mutex("y"), mutex("z")]
      const { found } = yield* start({
        ann: nest([Mutex.withLock(x), Mutex.withLock(y)], Effect.void),
        bob: nest([Mutex.withLock(y), Mutex.withLock(z)], Effect.void),
        cat: nest([Mutex.withLock(z), Mutex.withLock(x)], Effect.void)
      })
      expect(found).toEqual([["ann: y of bob", "bob: z of cat", "cat: x of ann"]])
    })
  )

  circle(
    "a mutex and a semaphore",
    Effect.gen(function*() {
      const lock = mutex("lock")
      const permits = Semaphore.unsafeMake(3, { name: "permits" })
      const { found } = yield* start({
        ann: nest([Mutex.withLock(lock), Semaphore.withPermits(permits, 2)], Effect.void),
        bob: nest([Semaphore.withPermits(permits, 2), Mutex.withLock(lock)], Effect.void)
      })
      expect(found).toEqual([["ann: permits of bob", "bob: lock of ann"]])
    })
  )

  circle(
    "keys of a keyed mutex in nested calls",
    Effect.gen(function*() {
      const keys = yield* Mutex.makeKeyed<string>({ name: "row" })
      const { found } = yield* start({
        ann: nest([Mutex.withLockKey(keys, "a"), Mutex.withLockKey(keys, "b")], Effect.void),
        bob: nest([Mutex.withLockKey(keys, "b"), Mutex.withLockKeys(keys, ["c", "a"])], Effect.void)
      })
      expect(found).toEqual([["ann: row[b] of bob", "bob: row[a] of ann"]])
    })
  )

  circle(
    "two pools of one, crossed",
    Effect.gen(function*() {
      const pool = (name: string) =>
        Effect.map(
          Pool.make({ name, acquire: Effect.void, max: 1 }),
          (pool): Take => (body) => Pool.use(pool, () => body)
        )
      const [one, other] = [yield* pool("one"), yield* pool("other")]
      const { found } = yield* start({
        ann: nest([one, other], Effect.void),
        bob: nest([other, one], Effect.void)
      })
      expect(found).toEqual([["ann: other of bob", "bob: one of ann"]])
    })
  )

  circle(
    "a fiber that asks a pool of one twice, and one key of a keyed pool",
    Effect.gen(function*() {
      const pool = yield* Pool.make({ name: "pool", acquire: Effect.void, max: 1 })
      const keyed = yield* KeyedPool.make({
        name: "keyed",
        acquire: () => Effect.void,
        maxPerKey: 1
      })
      const { found } = yield* start({
        ann: Pool.use(pool, () => Effect.scoped(Pool.get(pool))),
        bob: KeyedPool.use(keyed, "k", () => KeyedPool.use(keyed, "k", () => Effect.void))
      })
      expect(found).toEqual([["ann: pool of ann"], ["bob: keyed[k] of bob"]])
    })
  )

  circle(
    "two keys of a keyed pool with room for one item in all",
    Effect.gen(function*() {
      const keyed = yield* KeyedPool.make({
        name: "keyed",
        acquire: () => Effect.void,
        maxPerKey: 1,
        maxTotal: 1
      })
      const { found } = yield* start({
        ann: KeyedPool.use(keyed, "a", () => KeyedPool.use(keyed, "b", () => Effect.void))
      })
      expect(found).toEqual([["ann: keyed[b] of ann"]])
    })
  )

  circle(
    "a reader behind a writer that waits for that reader",
    Effect.gen(function*() {
      const lock = RwLock.unsafeMake({ name: "config", detectReentry: false })
      const { found } = yield* start({
        ann: RwLock.withRead(
          nest([
            (body) => Effect.zipRight(Effect.repeatN(Effect.yieldNow(), 3), body),
            RwLock.withRead(lock)
          ], Effect.void),
          lock
        ),
        bob: Effect.zipRight(Effect.yieldNow(), RwLock.withWrite(Effect.void, lock))
      })
      expect(found).toEqual([["ann: config of ann"]])
    })
  )

  circle(
    "a writer that waits for two readers, one of which waits for the writer while the other works",
    Effect.gen(function*() {
      const lock = RwLock.unsafeMake({ name: "config" })
      const x = mutex("x")
      const { found } = yield* start({
        ann: nest([RwLock.withRead(lock), Mutex.withLock(x)], Effect.void),
        bob: RwLock.withRead(Effect.never, lock),
        cat: nest([Mutex.withLock(x), RwLock.withWrite(lock)], Effect.void)
      })
      expect(found).toEqual([["ann: x of cat", "cat: config of ann"]])
    })
  )

  circle(
    "a semaphore of two, whose holders both want another one",
    Effect.gen(function*() {
      const two = Semaphore.unsafeMake(2, { name: "two" })
      const twice = nest([Semaphore.withPermit(two), Semaphore.withPermit(two)], Effect.void)
      const { found } = yield* start({ ann: twice, bob: twice })
      expect(found).toEqual([["ann: two of bob", "bob: two of ann"]])
    })
  )

  circle(
    "scoped and bracket forms mixed",
    Effect.gen(function*() {
      const x = mutex("x")
      const two = Semaphore.unsafeMake(2, { name: "two" })
      const lock = RwLock.unsafeMake({ name: "lock" })
      const { found } = yield* start({
        ann: Effect.scoped(
          Effect.zipRight(
            Mutex.get(x),
            Effect.zipRight(Effect.yieldNow(), Semaphore.withPermits(Effect.void, two, 2))
          )
        ),
        bob: Semaphore.withPermit(
          Effect.zipRight(Effect.yieldNow(), Effect.scoped(RwLock.getWrite(lock))),
          two
        ),
        cat: Effect.scoped(
          Effect.zipRight(
            RwLock.getRead(lock),
            Effect.zipRight(Effect.yieldNow(), Mutex.withLock(Effect.void, x))
          )
        )
      })
      expect(found).toEqual([["ann: two of bob", "bob: lock of cat", "cat: x of ann"]])
    })
  )

  circle(
    "locks by key, taken in opposite orders",
    Effect.gen(function*() {
      const service = yield* Lock.makeMemory
      const { found } = yield* start({
        ann: nest(
          [service.withLock("a"), service.withLock("b", { acquireTimeout: "1 hour" })],
          Effect.void
        ),
        bob: nest([service.withLock("b"), service.withLock("a")], Effect.void)
      })
      expect(found).toEqual([["ann: b of bob", "bob: a of ann"]])
    })
  )

  circle(
    "an instance whose acquire uses itself; fibers that wait for it are not part of it",
    Effect.gen(function*() {
      const shared: Shared.Shared<void, unknown> = yield* Shared.make({
        name: "ouroboros",
        acquire: Effect.suspend(() => Shared.use(shared, () => Effect.void))
      })
      const { fibers, found } = yield* start({ ann: Shared.use(shared, () => Effect.void) })
      expect(found).toEqual([["somebody: ouroboros of somebody"]])
      yield* Fiber.interrupt(fibers["ann"]!)
    })
  )
})

describe("nothing else is called a circle", () => {
  circle(
    "a long queue behind one holder that works",
    Effect.gen(function*() {
      const x = mutex("x")
      const line = Object.fromEntries(
        Array.from({ length: 100 }, (_, index) => [`w${index}`, Mutex.withLock(Effect.void, x)])
      )
      const { fibers, found } = yield* start({ ann: Mutex.withLock(Effect.never, x), ...line })
      expect(found).toEqual([])
      const { live } = yield* Ledger.snapshot
      const [held, ...waiting] = live
      expect(held).toMatchObject({ state: "held", fiber: `#${fibers["ann"]!.id().id}` })
      expect(waiting.map(({ blockedBy }) => blockedBy)).toEqual(waiting.map(() => [held!.id]))
    })
  )

  circle(
    "a semaphore of two of whose holders one works",
    Effect.gen(function*() {
      const two = Semaphore.unsafeMake(2, { name: "two" })
      const { found } = yield* start({
        ann: nest([Semaphore.withPermit(two), Semaphore.withPermit(two)], Effect.void),
        bob: Semaphore.withPermit(Effect.never, two)
      })
      expect(found).toEqual([])
    })
  )

  circle(
    "a holder that is not recorded may work",
    Effect.gen(function*() {
      const two = Semaphore.unsafeMake(2, { name: "two" })
      const { found } = yield* start({
        ann: nest([Semaphore.withPermit(two), Semaphore.withPermit(two)], Effect.void),
        bob: Effect.provideService(
          Semaphore.withPermit(Effect.never, two),
          Ledger.Ledger,
          undefined
        )
      })
      expect(found).toEqual([])
    })
  )

  circle(
    "a fiber that waits for a circle is not named in it; the circle ends when one of its fibers gives up",
    Effect.gen(function*() {
      const [x, y] = [mutex("x"), mutex("y")]
      const { fibers, found } = yield* start({
        ann: nest([Mutex.withLock(x), Mutex.withLock(y)], Effect.void),
        bob: nest([Mutex.withLock(y), Mutex.withLock(x)], Effect.void),
        cat: Mutex.withLock(Effect.void, x)
      })
      expect(found).toEqual([["ann: y of bob", "bob: x of ann"]])
      yield* Fiber.interrupt(fibers["ann"]!)
      expect(yield* circles(fibers)).toEqual([])
      yield* settle
      yield* Ledger.assertEmpty
    })
  )

  circle(
    "a grant that has not run yet is a hold: no waiter is seen waiting for it",
    Effect.gen(function*() {
      const [x, y] = [mutex("x"), mutex("y")]
      const { fibers } = yield* start({
        ann: nest([Mutex.withLock(x), Mutex.withLock(y)], Effect.never),
        bob: Effect.zipRight(settle, Mutex.withLock(Effect.void, x))
      })
      yield* settle
      // Interrupted, ann gives x back; bob has it from that step on, though bob has not run.
      const seen: Array<ReadonlyArray<string>> = []
      fibers["ann"]!.addObserver(() => {
        const { deadlocks, live } = Ledger.unsafeInForce()?.unsafeSnapshot() ??
          { deadlocks: [], live: [] }
        seen.push([...live.map(({ name, state }) => `${name} ${state}`), ...deadlocks.map(String)])
      })
      yield* Fiber.interruptFork(fibers["ann"]!)
      yield* settle
      expect(seen).toEqual([["x held"]])
    })
  )
})

// Against a model.

/** What there is: all of them, to the model, are so many units, given out in the order in which they were asked for. */
const things = ["x", "y", "three", "config", "pool"] as const
type Thing = (typeof things)[number]
const everything = 1_000
const units: Record<Thing, number> = { x: 1, y: 1, three: 3, config: everything, pool: 2 }

/** One take; `amount` is of a semaphore; of a lock a reader takes one unit and a writer all of them. */
interface Wish {
  readonly thing: Thing
  readonly amount: number
  readonly scoped: boolean
}

type Move =
  | { readonly _tag: "take"; readonly who: number; readonly wish: Wish }
  | { readonly _tag: "giveBack"; readonly who: number }
  | { readonly _tag: "interrupt"; readonly who: number }

const who = fc.nat(3)
const wish: fc.Arbitrary<Wish> = fc.tuple(fc.constantFrom(...things), fc.nat(2), fc.boolean()).map(
  ([thing, size, scoped]) => ({
    thing,
    scoped,
    amount: thing === "three" ? size + 1 : thing === "config" && size === 0 ? everything : 1
  })
)
const move: fc.Arbitrary<Move> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ _tag: fc.constant("take" as const), who, wish }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("giveBack" as const), who }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("interrupt" as const), who }) }
)

/** Who has and who waits, and nothing of how the library does it. */
class Model {
  held = new Map<number, Array<Wish>>([0, 1, 2, 3].map((who) => [who, []]))
  line: Array<{ readonly who: number; readonly wish: Wish }> = []
  gone = new Set<number>()

  copy(): Model {
    const copy = new Model()
    copy.held = new Map(Array.from(this.held, ([who, wishes]) => [who, [...wishes]]))
    copy.line = [...this.line]
    return copy
  }

  waits(who: number): boolean {
    return this.line.some((waiter) => waiter.who === who)
  }

  free(thing: Thing): number {
    const taken = Array.from(this.held.values()).flat().filter((wish) => wish.thing === thing)
    return units[thing] - taken.reduce((sum, { amount }) => sum + amount, 0)
  }

  serve(): void {
    for (const thing of things) {
      for (;;) {
        const next = this.line.find(({ wish }) => wish.thing === thing)
        if (next === undefined || next.wish.amount > this.free(thing)) break
        this.line.splice(this.line.indexOf(next), 1)
        this.held.get(next.who)!.push(next.wish)
      }
    }
  }

  take(who: number, wish: Wish): void {
    this.line.push({ who, wish })
    this.serve()
  }

  giveBack(who: number): void {
    this.held.get(who)!.pop()
    this.serve()
  }

  interrupt(who: number): void {
    this.line = this.line.filter((waiter) => waiter.who !== who)
    this.held.set(who, [])
    this.serve()
  }

  /** Who waits for ever, though all the others give back what they have. */
  stuck(): ReadonlySet<number> {
    const after = this.copy()
    for (;;) {
      const free = Array.from(after.held).filter(([who, wishes]) =>
        wishes.length > 0 && !after.waits(who)
      )
      if (free.length === 0) return new Set(after.line.map(({ who }) => who))
      for (const [who] of free) after.interrupt(who)
    }
  }
}

/** The real things, each taken by its scoped form or its bracket. */
const makeThings = Effect.gen(function*() {
  const [x, y] = [mutex("x"), mutex("y")]
  const three = Semaphore.unsafeMake(3, { name: "three" })
  const config = RwLock.unsafeMake({ name: "config", detectReentry: false })
  const pool = yield* Pool.make({ name: "pool", acquire: Effect.void, max: 2 })
  const scoped = (take: Effect.Effect<unknown, unknown, Scope.Scope>): Take => (body) =>
    Effect.scoped(Effect.zipRight(take, body))
  const taking = (wish: Wish): Take => {
    const writes = wish.amount > 1
    if (wish.scoped) {
      return scoped(
        {
          x: Mutex.get(x),
          y: Mutex.get(y),
          three: Semaphore.get(three, Math.min(wish.amount, 3)),
          config: writes ? RwLock.getWrite(config) : RwLock.getRead(config),
          pool: Pool.get(pool)
        }[wish.thing]
      )
    }
    return (body) =>
      ({
        x: () => Mutex.withLock(body, x),
        y: () => Mutex.withLock(body, y),
        three: () => Semaphore.withPermits(body, three, wish.amount),
        config: () => writes ? RwLock.withWrite(body, config) : RwLock.withRead(body, config),
        pool: () => Pool.use(pool, () => body)
      })[wish.thing]()
  }
  const waiting = Effect.gen(function*() {
    const { readers, waiting, writing } = yield* RwLock.stats(config)
    return {
      x: (yield* Mutex.stats(x)).waiting,
      y: (yield* Mutex.stats(y)).waiting,
      three: Semaphore.unsafeStats(three).waiting,
      config: waiting,
      pool: Pool.unsafeStats(pool).pending,
      inside: readers + (writing ? 1 : 0)
    }
  })
  return { taking, waiting }
})

/** A fiber that takes what it is told to, and gives the last of it back when it is told to. */
const obeying = (orders: Queue.Queue<Take | "giveBack">): Body =>
  Effect.flatMap(
    Queue.take(orders),
    (order) =>
      order === "giveBack"
        ? Effect.void
        : Effect.zipRight(order(Effect.suspend(() => obeying(orders))), obeying(orders))
  )

const asModelled = (moves: ReadonlyArray<Move>) =>
  inLedger(Effect.gen(function*() {
    const model = new Model()
    const { taking, waiting } = yield* makeThings
    const orders = yield* Effect.forEach(
      [0, 1, 2, 3],
      () => Queue.unbounded<Take | "giveBack">()
    )
    const fibers = yield* Effect.forEach(orders, (queue) => Effect.forkScoped(obeying(queue)))
    const numberOf = new Map(fibers.map((fiber, who) => [`#${fiber.id().id}`, who]))
    let deadlocks = 0
    for (const move of moves) {
      const { who } = move
      if (model.gone.has(who) || (move._tag !== "interrupt" && model.waits(who))) continue
      if (move._tag === "take") {
        model.take(who, move.wish)
        yield* orders[who]!.offer(taking(move.wish))
      } else if (move._tag === "giveBack") {
        if (model.held.get(who)!.length === 0) continue
        model.giveBack(who)
        yield* orders[who]!.offer("giveBack")
      } else {
        model.gone.add(who)
        model.interrupt(who)
        yield* Fiber.interrupt(fibers[who]!)
      }
      yield* settle
      deadlocks += yield* compare(model, yield* waiting, numberOf)
    }
    return deadlocks
  }))

const compare = (
  model: Model,
  waiting: Readonly<Record<Thing | "inside", number>>,
  numberOf: ReadonlyMap<string, number>
) =>
  Effect.map(Ledger.snapshot, ({ deadlocks, live }) => {
    const entries = live.filter(({ kind }) => kind !== "pool item")
    const who = ({ fiber }: Ledger.Entry) => numberOf.get(fiber!)!
    const byId = new Map(entries.map((entry) => [entry.id, entry]))
    // The same who hold and who wait, and the primitives say so too.
    for (const thing of things) {
      const of = entries.filter(({ name }) => name === thing)
      const holders = of.filter(({ state }) => state === "held")
      const waiters = of.filter(({ state }) => state === "acquiring")
      const held = Array.from(model.held).flatMap(([who, wishes]) =>
        wishes.filter((wish) => wish.thing === thing).map(() => who)
      )
      expect(holders.map(who).toSorted()).toEqual(held.toSorted())
      expect(waiters.map(who)).toEqual(
        model.line.filter(({ wish }) => wish.thing === thing).map(({ who }) => who)
      )
      expect(waiting[thing]).toBe(waiters.length)
      if (thing === "config") expect(waiting.inside).toBe(holders.length)
      for (const { blockedBy } of waiters) {
        expect(blockedBy.toSorted()).toEqual(holders.map(({ id }) => id).toSorted())
      }
    }
    // Reported if and only if somebody is stuck; and nobody is named who is not.
    const stuck = model.stuck()
    expect(deadlocks.length > 0).toBe(stuck.size > 0)
    for (const { waits } of deadlocks) {
      for (const [index, { holder, waiter }] of waits.entries()) {
        expect(stuck).toContain(who(byId.get(waiter)!))
        expect(byId.get(waiter)!.blockedBy).toContain(holder)
        const next = waits[(index + 1) % waits.length]!
        expect(who(byId.get(next.waiter)!)).toBe(who(byId.get(holder)!))
      }
    }
    return deadlocks.length
  })

describe("random programs", () => {
  it.effect(
    "Ledger-5, Semaphore-6, Mutex-6, RwLock-6, Pool-10: 700 of them: the ledger says what the model says",
    () =>
      Effect.gen(function*() {
        let deadlocks = 0
        for (const moves of fc.sample(fc.array(move, { minLength: 4, maxLength: 24 }), 700)) {
          deadlocks += yield* Effect.catchAllDefect(
            asModelled(moves),
            (defect) => Effect.die(new Error(`${JSON.stringify(moves)}`, { cause: defect }))
          )
        }
        // They are worth the name.
        expect(deadlocks).toBeGreaterThan(100)
      }),
    60_000
  )
})
