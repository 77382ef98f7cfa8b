/**
 * The laws of the reader-writer lock: against a model that is a list, in any order of events; and an interrupt in every gap
 * between two operations, found by shrinking the number of operations after which a fiber yields.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as fc from "fast-check"
import { RwLock } from "holdfast"
import { delayed, turnsBeforeYield } from "./support/yields.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 3)

const who = fc.nat(11)
const event = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("write" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("downgrade" as const) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("end" as const), who }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("interrupt" as const), who }) }
)
type Event = typeof event extends fc.Arbitrary<infer A> ? A : never

interface Visitor {
  readonly asked: "read" | "write" | "downgrade"
  state: "waiting" | "reading" | "writing" | "gone"
}

/** What has to be: a list of visitors in the order they came. */
class Model {
  readonly visitors: Array<Visitor> = []
  count(state: Visitor["state"]) {
    return this.visitors.filter((visitor) => visitor.state === state).length
  }
  serve() {
    for (const visitor of this.visitors) {
      if (visitor.state !== "waiting") continue
      const isReader = visitor.asked === "read"
      if (this.count("writing") > 0 || !isReader && this.count("reading") > 0) return
      visitor.state = isReader ? "reading" : "writing"
    }
  }
  ask(asked: Visitor["asked"]) {
    this.visitors.push({ asked, state: "waiting" })
    this.serve()
  }
  /** The end of what it does: a writer that downgrades goes on to read. */
  end(who: number) {
    const visitor = this.visitors[who]
    if (visitor?.state === "reading") visitor.state = "gone"
    else if (visitor?.state === "writing") {
      visitor.state = visitor.asked === "downgrade" ? "reading" : "gone"
    }
    this.serve()
  }
  interrupt(who: number) {
    const visitor = this.visitors[who]
    if (visitor !== undefined) visitor.state = "gone"
    this.serve()
  }
}

const run = (events: ReadonlyArray<Event>) =>
  Effect.gen(function*() {
    const lock = RwLock.unsafeMake()
    const model = new Model()
    const inside = new Map<number, { readonly mode: string; readonly end: () => void }>()
    const fibers: Array<Fiber.RuntimeFiber<void, RwLock.RwLockReentry>> = []
    const stay = (who: number, mode: "reading" | "writing") =>
      Effect.async<void>((resume) => {
        inside.set(who, { mode, end: () => resume(Effect.void) })
        return Effect.sync(() => inside.delete(who))
      })
    const visit = (asked: Visitor["asked"], who: number) =>
      asked === "read"
        ? RwLock.withRead(stay(who, "reading"), lock)
        : asked === "write"
        ? RwLock.withWrite(stay(who, "writing"), lock)
        : RwLock.withWriteDowngraded(stay(who, "writing"), lock, () => stay(who, "reading"))
    for (const event of events) {
      if (event.kind === "end") {
        model.end(event.who)
        const visitor = inside.get(event.who)
        inside.delete(event.who)
        visitor?.end()
      } else if (event.kind === "interrupt") {
        if (fibers[event.who] !== undefined) {
          model.interrupt(event.who)
          yield* Fiber.interruptFork(fibers[event.who]!)
        }
      } else {
        model.ask(event.kind)
        fibers.push(yield* Effect.fork(visit(event.kind, fibers.length)))
      }
      yield* settle
      expect(yield* RwLock.stats(lock)).toEqual({
        readers: model.count("reading"),
        writing: model.count("writing") === 1,
        waiting: model.count("waiting")
      })
      for (const [index, { state }] of model.visitors.entries()) {
        const mode = inside.get(index)?.mode
        expect([index, mode]).toEqual([
          index,
          state === "reading" || state === "writing" ? state : undefined
        ])
      }
    }
    yield* Fiber.interruptAll(fibers)
    expect(yield* RwLock.stats(lock)).toEqual({ readers: 0, writing: false, waiting: 0 })
  })

it("RwLock-1 RwLock-2 RwLock-3 RwLock-4: 3,000 random schedules go as the model does", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 14 }),
      (events) => Effect.runPromise(run(events))
    ),
    { numRuns: 3_000, seed: 20_261_120 }
  )
})

/** A reader, a writer that downgrades, a reader; one of them is interrupted after `yields`. */
const interruptOne = (victim: number, yields: number, turns: number) =>
  Effect.gen(function*() {
    const lock = RwLock.unsafeMake()
    const read = RwLock.withRead(Effect.yieldNow(), lock)
    const write = RwLock.withWriteDowngraded(Effect.yieldNow(), lock, () => Effect.yieldNow())
    const scoped = Effect.scoped(Effect.zipRight(RwLock.getWrite(lock), Effect.yieldNow()))
    const fibers = yield* Effect.forEach(
      [read, write, read, scoped],
      (visit) => Effect.fork(Effect.zipRight(delayed(turns), visit))
    )
    yield* Effect.repeatN(Effect.yieldNow(), yields)
    yield* Fiber.interrupt(fibers[victim]!)
    for (const fiber of fibers) yield* Fiber.await(fiber)
    expect(yield* RwLock.stats(lock)).toEqual({ readers: 0, writing: false, waiting: 0 })
    yield* RwLock.withWrite(Effect.void, lock)
  })

it("RwLock-3: an interrupt at every yield of every budget leaves nobody inside (S6)", () =>
  Effect.runPromise(Effect.gen(function*() {
    for (let budget = 14; budget <= 42; budget++) {
      for (let yields = 0; yields <= 25; yields++) {
        for (let victim = 0; victim < 4; victim++) {
          yield* Effect.withMaxOpsBeforeYield(interruptOne(victim, yields, 0), budget)
        }
      }
    }
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) {
      for (let victim = 0; victim < 4; victim++) yield* interruptOne(victim, 1, turns - less)
    }
  })))

it("RwLock-2 WaitQueue-5: a release between finding it closed and standing in line is not missed", () =>
  Effect.runPromise(Effect.gen(function*() {
    const turns = yield* turnsBeforeYield
    for (let less = 0; less < 60; less++) {
      const lock = RwLock.unsafeMake()
      for (
        const use of [
          RwLock.withRead(Effect.void, lock),
          RwLock.withWrite(Effect.void, lock),
          RwLock.withWriteDowngraded(Effect.void, lock, () => Effect.void),
          Effect.scoped(RwLock.getRead(lock))
        ]
      ) {
        yield* Effect.fork(RwLock.withWrite(Effect.yieldNow(), lock))
        const second = yield* Effect.fork(Effect.zipRight(delayed(turns - less), use))
        yield* Effect.repeatN(Effect.yieldNow(), 8)
        expect([less, yield* RwLock.stats(lock)]).toEqual([
          less,
          { readers: 0, writing: false, waiting: 0 }
        ])
        yield* Fiber.join(second)
      }
    }
  })))
