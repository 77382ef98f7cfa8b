import { describe, expect, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Scope, TestClock } from "effect"
import { Ledger, RwLock } from "holdfast"

const settle = Effect.repeatN(Effect.yieldNow(), 6)

const nobody = { readers: 0, writing: false, waiting: 0 }

/** What it dies of. */
const defectOf = (effect: Effect.Effect<unknown, unknown>) =>
  Effect.map(
    Effect.sandbox(effect).pipe(Effect.flip),
    (cause) => Option.getOrThrow(Cause.dieOption(cause))
  )

/** Fibers that enter, tell so, and stay until they are interrupted. */
const makeVisitors = (lock: RwLock.RwLock) => {
  const log: Array<string> = []
  const stay = (name: string) => Effect.zipRight(Effect.sync(() => log.push(name)), Effect.never)
  return {
    log,
    read: (name: string) => Effect.fork(RwLock.withRead(stay(name), lock)),
    write: (name: string) => Effect.fork(RwLock.withWrite(stay(name), lock))
  }
}

describe("RwLock", () => {
  it.effect("RwLock-1 RwLock-2: readers at the head enter together, those behind a writer wait (S23)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const { log, read, write } = makeVisitors(lock)
      const inside = [yield* read("r1"), yield* read("r2")]
      const writer = yield* write("w")
      const behind = [yield* read("r3"), yield* read("r4")]
      yield* write("w2")
      yield* settle
      expect(log).toEqual(["r1", "r2"])
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 2, writing: false, waiting: 4 })
      yield* Fiber.interruptAll(inside)
      yield* settle
      expect(log).toEqual(["r1", "r2", "w"])
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 0, writing: true, waiting: 3 })
      yield* Fiber.interrupt(writer)
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 2, writing: false, waiting: 1 })
      yield* settle
      expect(log).toEqual(["r1", "r2", "w", "r3", "r4"])
      yield* Fiber.interruptAll(behind)
      yield* settle
      expect(log.at(-1)).toBe("w2")
    }))

  it.effect("RwLock-1: let out once on success, failure, defect and interruption, reading and writing", () =>
    Effect.gen(function*() {
      const lock = RwLock.unsafeMake()
      for (const body of [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt]) {
        const plain = yield* Effect.exit(body)
        expect(yield* Effect.exit(body.pipe(RwLock.withRead(lock)))).toEqual(plain)
        expect(yield* Effect.exit(body.pipe(RwLock.withWrite(lock)))).toEqual(plain)
        expect(yield* Effect.exit(RwLock.withWriteDowngraded(body, lock, () => Effect.void)))
          .toEqual(plain)
        expect(yield* Effect.exit(RwLock.withWriteDowngraded(Effect.void, lock, () => body)))
          .toEqual(plain)
        expect(yield* RwLock.stats(lock)).toEqual(nobody)
      }
    }))

  it.effect("RwLock-3: a writer that leaves the line lets the readers behind it in, in the same step (S7)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const { log, read, write } = makeVisitors(lock)
      yield* read("r1")
      const writer = yield* write("w")
      yield* read("r2")
      yield* settle
      expect(log).toEqual(["r1"])
      yield* Fiber.interrupt(writer)
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 2, writing: false, waiting: 0 })
      yield* settle
      expect(log).toEqual(["r1", "r2"])
    }))

  it.effect("RwLock-3: a writer granted but not begun gives on to all the readers behind it (S5)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const { log, read, write } = makeVisitors(lock)
      const opened = yield* Deferred.make<void>()
      const holder = yield* Effect.fork(RwLock.withRead(Deferred.await(opened), lock))
      yield* settle
      const writer = yield* write("w")
      yield* read("r1")
      yield* read("r2")
      yield* settle
      holder.addObserver(() => writer.unsafeInterruptAsFork(holder.id()))
      yield* Deferred.succeed(opened, undefined)
      yield* Fiber.await(writer)
      yield* settle
      expect(log).toEqual(["r1", "r2"])
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 2, writing: false, waiting: 0 })
    }))

  it.effect("RwLock-4: a downgrade lets the readers in, and no writer before its own read has ended (S23)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const { log, read, write } = makeVisitors(lock)
      const written = yield* Deferred.make<string>()
      const wasRead = yield* Deferred.make<void>()
      const both = yield* Effect.fork(
        RwLock.withWriteDowngraded(
          Deferred.await(written),
          lock,
          (value) => Effect.as(Deferred.await(wasRead), value)
        )
      )
      yield* settle
      const reader = yield* read("r")
      yield* write("w")
      yield* settle
      expect(log).toEqual([])
      yield* Deferred.succeed(written, "written")
      yield* settle
      expect(log).toEqual(["r"])
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 2, writing: false, waiting: 1 })
      yield* Fiber.interrupt(reader)
      expect(yield* RwLock.stats(lock)).toEqual({ readers: 1, writing: false, waiting: 1 })
      yield* Deferred.succeed(wasRead, undefined)
      expect(yield* Fiber.join(both)).toBe("written")
      yield* settle
      expect(log).toEqual(["r", "w"])
    }))

  it.effect("RwLock-5: a fiber that would wait for itself dies of what it holds and what it asked (S23)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make({ name: "config" })
      const ways = [
        ["write", "write", RwLock.withWrite(RwLock.withWrite(Effect.void, lock), lock)],
        ["write", "read", RwLock.withWrite(RwLock.withRead(Effect.void, lock), lock)],
        ["read", "write", RwLock.withRead(RwLock.withWrite(Effect.void, lock), lock)],
        [
          "read",
          "write",
          RwLock.withWriteDowngraded(Effect.void, lock, () => RwLock.withWrite(Effect.void, lock))
        ]
      ] as const
      for (const [holds, asked, way] of ways) {
        expect(yield* defectOf(way)).toMatchObject({
          _tag: "RwLockReentry",
          lock: "config",
          holds,
          asked
        })
        expect(yield* RwLock.stats(lock)).toEqual(nobody)
      }
    }))

  it.effect("RwLock-5: read inside read is fine until a writer waits between the two, and then it dies (S23)", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const { write } = makeVisitors(lock)
      const twice = RwLock.withRead(RwLock.withRead(Effect.succeed("read"), lock), lock)
      expect(yield* twice).toBe("read")
      // The inner read ends first: the fiber still counts as inside.
      const afterInner = RwLock.withRead(
        Effect.zipRight(RwLock.withRead(Effect.void, lock), RwLock.withWrite(Effect.void, lock)),
        lock
      )
      expect(yield* defectOf(afterInner)).toBeInstanceOf(RwLock.RwLockReentry)
      const behindWriter = RwLock.withRead(
        Effect.gen(function*() {
          const writer = yield* Effect.forkDaemon(RwLock.withWrite(Effect.void, lock))
          yield* settle
          const error = yield* defectOf(RwLock.withRead(Effect.void, lock))
          expect(error).toMatchObject({ holds: "read", asked: "read" })
          return writer
        }),
        lock
      )
      yield* Fiber.join(yield* behindWriter)
      const writer = yield* write("w")
      yield* settle
      yield* Fiber.interrupt(writer)
      expect(yield* RwLock.stats(lock)).toEqual(nobody)
    }))

  it.effect("RwLock-1: a scope's hold is in the ledger, ends with the scope, and needs an open one", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make({ name: "config" })
      const ledger = yield* Ledger.Ledger
      for (
        const [kind, hold] of [["read", RwLock.getRead(lock)], [
          "write",
          RwLock.getWrite(lock)
        ]] as const
      ) {
        const scope = yield* Scope.make()
        yield* Scope.extend(hold, scope)
        expect((yield* ledger!.snapshot).live).toMatchObject([{ kind: `${kind} lock` }])
        expect(yield* RwLock.stats(lock)).not.toEqual(nobody)
        yield* Scope.close(scope, Exit.void)
        yield* ledger!.assertEmpty
        expect(yield* RwLock.stats(lock)).toEqual(nobody)
        const exit = yield* Effect.exit(Scope.extend(hold, scope))
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("OwnerClosed")
        expect(yield* RwLock.stats(lock)).toEqual(nobody)
      }
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("RwLock-2 RwLock-3: a try enters only what is open and passes nobody; a late waiter lets those behind it in", () =>
    Effect.gen(function*() {
      const lock = yield* RwLock.make({ name: "config" })
      const { log, read } = makeVisitors(lock)
      const reader = yield* read("r1")
      yield* settle
      expect(yield* RwLock.tryWithRead(Effect.succeed(1), lock)).toEqual(Option.some(1))
      expect(yield* RwLock.tryWithWrite(Effect.succeed(1), lock)).toEqual(Option.none())
      const writer = yield* Effect.fork(
        RwLock.withWrite(Effect.void, lock, { acquireTimeout: "1 second" })
      )
      yield* read("r2")
      yield* settle
      expect(yield* RwLock.tryWithRead(Effect.succeed(1), lock)).toEqual(Option.none())
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(Fiber.join(writer))
      expect(error).toMatchObject({ asked: "write", stats: { readers: 1, waiting: 1 } })
      expect(error.message).toContain("Lock \"config\" could not be entered to write within 1s")
      expect(log).toEqual(["r1", "r2"])
      // Who has priority stands before a writer that waits.
      yield* Effect.fork(RwLock.withWrite(Effect.void, lock))
      yield* settle
      expect(yield* RwLock.withRead(Effect.succeed("in"), lock, { priority: 1 })).toBe("in")
      yield* Fiber.interrupt(reader)
    }))

  it.effect("KeyedRwLock-1: keys do not wait for each other, and leave nothing behind", () =>
    Effect.gen(function*() {
      const files = yield* RwLock.makeKeyed<string>()
      const writer = yield* Effect.fork(RwLock.withWriteKey(Effect.never, files, "a"))
      const scoped = yield* Effect.fork(
        Effect.scoped(Effect.zipRight(RwLock.getReadKey(files, "b"), Effect.never))
      )
      yield* settle
      expect(yield* RwLock.tryWithReadKey(Effect.succeed(1), files, "a")).toEqual(Option.none())
      expect(yield* RwLock.tryWithWriteKey(Effect.succeed(1), files, "b")).toEqual(Option.none())
      expect(yield* RwLock.withReadKey(Effect.succeed(1), files, "b")).toBe(1)
      expect(yield* RwLock.statsKey(files, "b")).toEqual({ readers: 1, writing: false, waiting: 0 })
      expect(yield* RwLock.size(files)).toBe(2)
      yield* Effect.scoped(RwLock.getWriteKey(files, "c"))
      yield* Fiber.interruptAll([writer, scoped])
      expect(yield* RwLock.size(files)).toBe(0)
      expect(yield* RwLock.statsKey(files, "a")).toEqual(nobody)
    }))
})
