import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  RcRef,
  Scope,
  ScopedRef,
  TestClock
} from "effect"
import { Ledger, Managed, Mutex } from "holdfast"
import * as Shared from "holdfast/Shared"

const settle = Effect.repeatN(Effect.yieldNow(), 30)

/** A resource and the log of its instances: `+1` when the first is opened, `-1` when it is released. `gate` delays the acquire. */
const makeResource = (gate: Effect.Effect<void, string> = Effect.void) => {
  const log: Array<string> = []
  let opened = 0
  const acquire = Effect.zipRight(
    gate,
    Effect.acquireRelease(
      Effect.sync(() => {
        log.push(`+${++opened}`)
        return opened
      }),
      (id) => Effect.sync(() => log.push(`-${id}`))
    )
  )
  return { log, acquire }
}

describe("Shared", () => {
  it.effect("Shared-1: n users at once acquire once; it is released after the last of them (S26)", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource(Effect.sleep("1 second"))
      const ends = yield* Effect.forEach([1, 2, 3], () => Deferred.make<void>())
      yield* Effect.scoped(Effect.gen(function*() {
        const shared = yield* Shared.make({ name: "line", acquire })
        const users = yield* Effect.forEach(
          ends,
          (end) => Effect.fork(Shared.use(shared, (id) => Effect.as(Deferred.await(end), id)))
        )
        yield* settle
        expect(yield* Shared.stats(shared)).toEqual({ state: "opening", users: 3, former: 0 })
        yield* TestClock.adjust("1 second")
        expect(yield* Shared.stats(shared)).toEqual({ state: "open", users: 3, former: 0 })
        for (const [index, end] of ends.entries()) {
          expect([log, yield* Shared.refCount(shared)]).toEqual([["+1"], 3 - index])
          yield* Deferred.succeed(end, undefined)
          expect(yield* Fiber.join(users[index]!)).toBe(1)
        }
        expect(log).toEqual(["+1", "-1"])
        expect(yield* Shared.stats(shared)).toEqual({ state: "none", users: 0, former: 0 })
      }))
      expect(log).toEqual(["+1", "-1"])
    }))

  it.effect("Shared-2: the first user is interrupted, the second gets the instance that was being acquired (S26)", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource(Effect.sleep("1 second"))
      const shared = yield* Shared.make({ name: "line", acquire })
      const first = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      const second = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("500 millis")
      expect(yield* Fiber.join(second)).toBe(1)
      expect(log).toEqual(["+1", "-1"])
    }).pipe(Effect.scoped))

  it.effect("Shared-2: the acquire is interrupted when its last waiter leaves; the next user acquires anew (S26)", () =>
    Effect.gen(function*() {
      let interrupts = 0
      const gate = Effect.onInterrupt(
        Effect.sleep("1 second"),
        () => Effect.sync(() => interrupts++)
      )
      const { acquire, log } = makeResource(gate)
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 hour" })
      const users = [
        yield* Effect.fork(Shared.use(shared, Effect.succeed)),
        yield* Effect.fork(Effect.scoped(Shared.get(shared)))
      ]
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(users[0]!)
      yield* settle
      expect(interrupts).toBe(0)
      yield* Fiber.interrupt(users[1]!)
      yield* settle
      expect([interrupts, log, yield* Shared.stats(shared)]).toEqual([
        1,
        [],
        { state: "none", users: 0, former: 0 }
      ])
      const next = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(next)).toBe(1)
    }).pipe(Effect.scoped))

  it.effect("Shared-2: an uninterruptible acquire delays no user that leaves; its instance is released", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const acquire = Managed.make({
        name: "line",
        acquire: Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("open"))),
        release: () => Effect.sync(() => log.push("closed"))
      })
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 hour" })
      const user = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* settle
      yield* Fiber.interrupt(user)
      expect(yield* Shared.stats(shared)).toEqual({ state: "none", users: 0, former: 1 })
      const next = yield* Effect.fork(Shared.use(shared, () => Effect.void))
      yield* TestClock.adjust("1 second")
      expect(log).toEqual(["open", "closed"])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(next)
      expect(log).toEqual(["open", "closed", "open"])
    }).pipe(Effect.scoped))

  it.effect("Shared-2: an acquire is interruptible also if `make` ran uninterruptibly", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource(Effect.never)
      const shared = yield* Effect.uninterruptible(Shared.make({ name: "line", acquire }))
      const user = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* settle
      yield* Fiber.interrupt(user)
      yield* settle
      expect([log, yield* Shared.stats(shared)]).toEqual([
        [],
        { state: "none", users: 0, former: 0 }
      ])
    }).pipe(Effect.scoped))

  it.effect("Shared-2: the acquire sees the context of the owner, and none of a user's", () =>
    Effect.gen(function*() {
      class Who extends Context.Tag("Who")<Who, string>() {}
      const shared = yield* Effect.provideService(
        Shared.make({ name: "who", acquire: Who }),
        Who,
        "owner"
      )
      const seen = yield* Effect.provideService(Shared.use(shared, Effect.succeed), Who, "user")
      expect(seen).toBe("owner")
    }).pipe(Effect.scoped))

  it.effect("Shared-3: a failure or a defect reaches all waiters of that acquire, and no later user (S26)", () =>
    Effect.gen(function*() {
      for (const bad of [Exit.fail("refused"), Exit.die("bug")]) {
        let isDown = true
        const { acquire, log } = makeResource(
          Effect.zipRight(Effect.yieldNow(), Effect.suspend(() => isDown ? bad : Exit.void))
        )
        const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 hour" })
        const users = yield* Effect.forEach(
          [1, 2, 3],
          () => Effect.fork(Shared.use(shared, Effect.succeed))
        )
        for (const user of users) expect(yield* Fiber.await(user)).toEqual(bad)
        expect(yield* Shared.stats(shared)).toEqual({ state: "none", users: 0, former: 0 })
        isDown = false
        expect(yield* Shared.use(shared, Effect.succeed)).toBe(1)
        expect(log).toEqual(["+1"])
      }
    }).pipe(Effect.scoped))

  it.effect("Shared-4: the last user to leave starts the time to live; a use within it keeps the instance open (S26)", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
      yield* Shared.use(shared, () => Effect.void)
      yield* TestClock.adjust("59 seconds")
      yield* Shared.use(shared, () => Effect.void)
      yield* TestClock.adjust("59 seconds")
      expect(log).toEqual(["+1"])
      const user = yield* Effect.fork(Shared.use(shared, () => Effect.never))
      yield* TestClock.adjust("1 hour")
      expect(log).toEqual(["+1"])
      yield* Fiber.interrupt(user)
      yield* TestClock.adjust("59 seconds")
      expect(yield* Shared.stats(shared)).toEqual({ state: "open", users: 0, former: 0 })
      yield* TestClock.adjust("1 second")
      expect(log).toEqual(["+1", "-1"])
      expect(yield* Shared.use(shared, Effect.succeed)).toBe(2)
    }).pipe(Effect.scoped))

  it.effect("Shared-4: an infinite time to live ends when the owner closes", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      yield* Effect.scoped(Effect.gen(function*() {
        const shared = yield* Shared.make({
          name: "line",
          acquire,
          idleTimeToLive: Duration.infinity
        })
        yield* Shared.use(shared, () => Effect.void)
        yield* TestClock.adjust("1000 days")
        expect(log).toEqual(["+1"])
      }))
      expect(log).toEqual(["+1", "-1"])
    }))

  it.effect("Shared-4: without it the last user waits for the release; the next instance opens after it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const acquire = Effect.acquireRelease(
        Effect.sync(() => log.push("open")),
        () => Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("closed")))
      )
      const shared = yield* Shared.make({ name: "port", acquire })
      const first = yield* Effect.fork(Shared.use(shared, () => Effect.void))
      yield* settle
      const second = yield* Effect.fork(Shared.use(shared, () => Effect.void))
      yield* settle
      expect([log, first.unsafePoll()]).toEqual([["open"], null])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(first)
      expect(log).toEqual(["open", "closed", "open"])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(second)
    }).pipe(Effect.scoped))

  it.effect("Shared-5: invalidated in use: its users keep it, new users get another, its end does not touch that one (S26)", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
      const old = yield* Effect.fork(Shared.use(shared, () => Effect.never))
      yield* settle
      expect(yield* Shared.invalidate(shared)).toBe(true)
      expect(yield* Shared.invalidate(shared)).toBe(false)
      const fresh = yield* Effect.fork(Shared.use(shared, () => Effect.never))
      yield* settle
      expect(log).toEqual(["+1", "+2"])
      expect(yield* Shared.stats(shared)).toEqual({ state: "open", users: 1, former: 1 })
      yield* Fiber.interrupt(old)
      expect(log).toEqual(["+1", "+2", "-1"])
      expect(yield* Shared.use(shared, Effect.succeed)).toBe(2)
      yield* Fiber.interrupt(fresh)
      yield* TestClock.adjust("1 minute")
      expect(log).toEqual(["+1", "+2", "-1", "-2"])
    }).pipe(Effect.scoped))

  it.effect("Shared-5: invalidated while idle: it is released when `invalidate` returns; `only` spares its successor", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
      const first = yield* Shared.use(shared, Effect.succeed)
      expect(yield* Shared.invalidate(shared, { only: first })).toBe(true)
      expect(log).toEqual(["+1", "-1"])
      const second = yield* Shared.use(shared, Effect.succeed)
      expect(yield* Shared.invalidate(shared, { only: first })).toBe(false)
      expect(yield* Shared.use(shared, Effect.succeed)).toBe(second)
    }).pipe(Effect.scoped))

  it.effect("Shared-5: invalidated while it opens: its waiters still get it, the next user gets another", () =>
    Effect.gen(function*() {
      const { acquire } = makeResource(Effect.sleep("1 second"))
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
      const before = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* TestClock.adjust("500 millis")
      expect(yield* Shared.invalidate(shared)).toBe(true)
      const after = yield* Effect.fork(Shared.use(shared, Effect.succeed))
      yield* TestClock.adjust("500 millis")
      expect(yield* Fiber.join(before)).toBe(1)
      yield* TestClock.adjust("500 millis")
      expect(yield* Fiber.join(after)).toBe(2)
    }).pipe(Effect.scoped))

  it.effect("Shared-6: the close waits for the users, then releases; after it nothing is acquired (S26)", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const owner = yield* Scope.make()
      const shared = yield* Scope.extend(Shared.make({ name: "line", acquire }), owner)
      const end = yield* Deferred.make<void>()
      const user = yield* Effect.fork(Shared.use(shared, () => Deferred.await(end)))
      yield* settle
      const closing = yield* Effect.fork(Scope.close(owner, Exit.void))
      yield* settle
      expect([log, closing.unsafePoll()]).toEqual([["+1"], null])
      const error = yield* Effect.flip(Shared.use(shared, () => Effect.void))
      expect(error).toBeInstanceOf(Shared.SharedClosed)
      expect(String(error)).toContain("Shared \"line\" is closed")
      yield* Deferred.succeed(end, undefined)
      yield* Fiber.join(closing)
      yield* Fiber.join(user)
      expect(yield* Effect.flip(Effect.scoped(Shared.get(shared)))).toBeInstanceOf(
        Shared.SharedClosed
      )
      expect(log).toEqual(["+1", "-1"])
      expect(yield* Shared.stats(shared)).toEqual({ state: "closed", users: 0, former: 0 })
    }))

  it.effect("Shared-6: the close fails those who wait for an acquire, and interrupts the acquire", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource(Effect.never)
      const owner = yield* Scope.make()
      const shared = yield* Scope.extend(Shared.make({ name: "line", acquire }), owner)
      const users = yield* Effect.forEach(
        [1, 2],
        () => Effect.fork(Shared.use(shared, () => Effect.void))
      )
      yield* settle
      yield* Scope.close(owner, Exit.void)
      for (const user of users) {
        expect(yield* Effect.flip(Fiber.join(user))).toBeInstanceOf(Shared.SharedClosed)
      }
      expect(log).toEqual([])
    }))

  it.effect("Shared-6: a close by a fiber that uses it names that fiber and its line instead of waiting for it", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const owner = yield* Scope.make()
      const shared = yield* Scope.extend(Shared.make({ name: "line", acquire }), owner)
      const user = yield* Effect.forkDaemon(
        Shared.use(shared, () => Effect.exit(Scope.close(owner, Exit.void)))
      )
      yield* settle
      const ended = yield* Effect.fromNullable(user.unsafePoll())
      const closed = yield* ended
      expect(Exit.isFailure(closed) && Array.from(Cause.defects(closed.cause))).toMatchObject([{
        _tag: "SharedClosedByHolder",
        shared: "line",
        fiber: `#${user.id().id}`,
        site: expect.stringContaining("Shared.test.ts")
      }])
      expect(log).toEqual(["+1", "-1"])
      expect(yield* Shared.stats(shared)).toEqual({ state: "closed", users: 0, former: 0 })
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Shared-6: a close by a user of one key still waits for the others", () =>
    Effect.gen(function*() {
      const owner = yield* Scope.make()
      const keyed = yield* Scope.extend(
        Shared.makeKeyed({ name: "line", acquire: (key: string) => Effect.succeed(key) }),
        owner
      )
      const end = yield* Deferred.make<void>()
      yield* Effect.fork(Shared.useKey(keyed, "b", () => Deferred.await(end)))
      const user = yield* Effect.forkDaemon(
        Shared.useKey(keyed, "a", () => Effect.exit(Scope.close(owner, Exit.void)))
      )
      yield* settle
      expect(user.unsafePoll()).toBe(null)
      yield* Deferred.succeed(end, undefined)
      const closed = yield* Fiber.join(user)
      expect(Exit.isFailure(closed) && Cause.pretty(closed.cause)).toContain("\"line[a]\"")
    }))

  it.effect("Shared-7: a release that hangs is abandoned at its deadline, and fails the user that waited for it", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.Ledger
      const acquire = Effect.acquireRelease(Effect.void, () => Effect.never)
      const shared = yield* Shared.make({ name: "line", acquire, releaseDeadline: "1 second" })
      const user = yield* Effect.fork(Shared.use(shared, () => Effect.fail("mine")))
      yield* settle
      expect((yield* ledger!.snapshot).live).toMatchObject([{ kind: "shared", name: "line" }])
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.await(user)
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["mine"])
      expect(Array.from(Cause.defects(exit.cause))).toMatchObject([{ _tag: "ReleaseTimeout" }])
      expect((yield* ledger!.snapshot).kinds["shared"]).toMatchObject({ acquired: 1, abandoned: 1 })
      yield* ledger!.assertEmpty
    }).pipe(Effect.scoped, Effect.provide(Ledger.layer())))

  it.effect("Shared-7: the failure of a release that no user waited for is in the exit of the owner", () =>
    Effect.gen(function*() {
      const acquire = Managed.make({
        name: "line",
        acquire: Effect.void,
        release: () => Effect.fail("jammed")
      })
      const exit = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
        const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
        yield* Shared.use(shared, () => Effect.void)
        yield* TestClock.adjust("1 minute")
      })))
      expect(Exit.isFailure(exit) && Array.from(Cause.defects(exit.cause))).toEqual(["jammed"])
    }))

  it.effect("Shared-7: a Managed is recorded as itself, once", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.Ledger
      const acquire = Managed.make({
        name: "db",
        kind: "connection",
        acquire: Effect.void,
        release: () => Effect.void
      })
      yield* Effect.scoped(Effect.gen(function*() {
        const shared = yield* Shared.make({ name: "line", acquire })
        yield* Shared.get(shared)
        expect((yield* ledger!.snapshot).live).toMatchObject([
          { kind: "shared use", name: "line", owner: [] },
          { kind: "connection", name: "db", owner: ["line"] }
        ])
      }))
      yield* ledger!.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Shared-8: a user is acquiring, blocked by the acquire; then held, or failed if the acquire fails", () =>
    Effect.scoped(Effect.gen(function*() {
      const ledger = (yield* Ledger.Ledger)!
      const gate = yield* Deferred.make<void, string>()
      const shared = yield* Shared.make({
        name: "line",
        acquire: makeResource(Deferred.await(gate)).acquire
      })
      const use = Effect.fork(Shared.use(shared, () => Effect.never))
      const [one, other] = [yield* use, yield* use]
      yield* settle
      const opening = (yield* ledger.snapshot).live.find(({ kind }) => kind === "shared")!
      const uses = () => {
        const { ended, live } = ledger.unsafeSnapshot()
        return [...live, ...ended].filter(({ kind }) => kind === "shared use")
          .map(({ blockedBy, state }) => [state, blockedBy])
      }
      expect(uses()).toEqual([["acquiring", [opening.id]], ["acquiring", [opening.id]]])
      yield* Fiber.interrupt(one)
      expect(uses()).toEqual([["acquiring", [opening.id]], ["failed", []]])
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      expect(uses()).toEqual([["held", []], ["failed", []]])
      expect((yield* Shared.stats(shared)).users).toBe(1)
      yield* Fiber.interrupt(other)
      expect(uses()).toEqual([["failed", []], ["released", []]])

      const broken = yield* Shared.make({ name: "broken", acquire: Effect.fail("no such host") })
      yield* Effect.flip(Shared.use(broken, () => Effect.void))
      const entry = (yield* ledger.snapshot).ended.findLast(({ kind }) => kind === "shared use")
      expect(entry).toMatchObject({ state: "failed", cause: "Error: no such host" })
      yield* ledger.assertEmpty
    })).pipe(Effect.provide(Ledger.layer())))

  it.effect("Shared-1: `get` in a closed scope acquires nothing; a Layer offers the instance to services", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      class Line extends Context.Tag("Line")<Line, Shared.Shared<number, string>>() {}
      yield* Effect.gen(function*() {
        const shared = yield* Line
        const closed = yield* Scope.make()
        yield* Scope.close(closed, Exit.void)
        const exit = yield* Effect.exit(Scope.extend(Shared.get(shared), closed))
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("OwnerClosed")
        expect([log, yield* Shared.refCount(shared)]).toEqual([[], 0])
      }).pipe(Effect.provide(Layer.scoped(Line, Shared.make({ name: "line", acquire }))))
    }))

  it.effect("Shared-4: `touch` restarts the idle time, as a use would; without an instance it acquires none", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const shared = yield* Shared.make({ name: "line", acquire, idleTimeToLive: "1 minute" })
      expect(yield* Shared.touch(shared)).toBe(false)
      yield* Shared.use(shared, () => Effect.void)
      yield* TestClock.adjust("40 seconds")
      expect(yield* Shared.touch(shared)).toBe(true)
      yield* TestClock.adjust("40 seconds")
      expect(log).toEqual(["+1"])
      yield* TestClock.adjust("20 seconds")
      expect(log).toEqual(["+1", "-1"])
    }).pipe(Effect.scoped))

  it.effect("Shared-4: the idle time may depend on the value; one that is no duration fails the users, and the instance is released", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      const shared = yield* Shared.make({
        name: "line",
        acquire,
        idleTimeToLive: (id) => id === 1 ? "1 minute" : id === 2 ? 0 : -1
      })
      yield* Shared.use(shared, () => Effect.void)
      yield* TestClock.adjust("1 minute")
      yield* Shared.use(shared, () => Effect.void)
      expect(log).toEqual(["+1", "-1", "+2", "-2"])
      const exit = yield* Effect.exit(Shared.use(shared, () => Effect.void))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
        "Shared \"line\": `idleTimeToLive` must be a duration, 0 or more"
      )
      yield* settle
      expect(log.slice(4)).toEqual(["+3", "-3"])
    }).pipe(Effect.scoped))

  it.effect("Options-1: a wrong option is a defect that says what to write", () =>
    Effect.gen(function*() {
      const textOf = (make: Effect.Effect<unknown, never, Scope.Scope>) =>
        Effect.map(Effect.exit(make), (exit) => Exit.isFailure(exit) && Cause.pretty(exit.cause))
      const line = { name: "line", acquire: Effect.void }
      expect(yield* textOf(Shared.make({ ...line, idleTimeToLive: NaN }))).toContain(
        "Shared.make: `idleTimeToLive` must be a duration"
      )
      expect(yield* textOf(Shared.make({ ...line, ["capacity" as "name"]: "2" }))).toContain(
        "Shared.make has no option `capacity`"
      )
      const keyed = { name: "line", acquire: () => Effect.void, capacity: 0 }
      expect(yield* textOf(Shared.makeKeyed(keyed))).toContain(
        "Shared.makeKeyed: `capacity` must be an integer, 1 or more"
      )
    }).pipe(Effect.scoped))

  it.effect("a handle is pipeable, shows its name and counters, and is no handle of another sort", () =>
    Effect.gen(function*() {
      const shared = yield* Shared.make({ name: "line", acquire: Effect.succeed(1) })
      const keyed = yield* Shared.makeKeyed({
        name: "lines",
        acquire: (key: string) => Effect.succeed(key)
      })
      expect(yield* shared.pipe(Shared.use(Effect.succeed))).toBe(1)
      expect(JSON.parse(JSON.stringify(shared))).toEqual({
        _id: "Shared",
        name: "line",
        isClosed: false,
        instances: 0
      })
      // @ts-expect-error a mutex
      expect(() => Shared.use(Mutex.unsafeMake(), Effect.succeed)).not.toBe(undefined)
      // @ts-expect-error one with keys
      expect(() => Shared.use(keyed, Effect.succeed)).not.toBe(undefined)
    }).pipe(Effect.scoped))

  it.effect("Shared-1: `layer` and `layerKeyed` offer it to services, and close with them", () =>
    Effect.gen(function*() {
      const { acquire, log } = makeResource()
      class Line extends Context.Tag("Line")<Line, Shared.Shared<number, string>>() {}
      class Lines
        extends Context.Tag("Lines")<Lines, Shared.KeyedShared<string, number, string>>()
      {}
      const live = Layer.merge(
        Shared.layer(Line, { name: "line", acquire, idleTimeToLive: Duration.infinity }),
        Shared.layerKeyed(Lines, { name: "lines", acquire: () => acquire })
      )
      yield* Effect.provide(
        Effect.gen(function*() {
          expect(yield* Shared.use(yield* Line, Effect.succeed)).toBe(1)
          expect(yield* Shared.useKey(yield* Lines, "a", Effect.succeed)).toBe(2)
        }),
        live
      )
      expect(log).toEqual(["+1", "+2", "-2", "-1"])
    }))

  it.live("a plain timeout leaks from Effect's RcRef.get and ScopedRef.set, and not from ours", () =>
    Effect.gen(function*() {
      const leftOpen = <A>(
        make: (
          resource: Effect.Effect<void, never, Scope.Scope>
        ) => Effect.Effect<A, never, Scope.Scope>,
        ask: (
          a: A,
          resource: Effect.Effect<void, never, Scope.Scope>
        ) => Effect.Effect<unknown, unknown>
      ) =>
        Effect.gen(function*() {
          let open = 0
          const opening = yield* Deferred.make<void>()
          const goOn = yield* Deferred.make<void>()
          const resource = Effect.acquireRelease(
            Effect.gen(function*() {
              yield* Deferred.succeed(opening, undefined)
              yield* Deferred.await(goOn)
              open++
            }),
            () => Effect.sync(() => open--)
          )
          const owner = yield* Scope.make()
          const ref = yield* Scope.extend(make(resource), owner)
          const user = yield* Effect.fork(ask(ref, resource))
          yield* Deferred.await(opening)
          // As a timeout does: an interrupt during an uninterruptible acquire.
          const ending = yield* Effect.fork(Fiber.interrupt(user))
          yield* Effect.yieldNow()
          yield* Deferred.succeed(goOn, undefined)
          yield* Fiber.join(ending)
          yield* Scope.close(owner, Exit.void)
          yield* settle
          return open
        })
      expect(
        yield* leftOpen(
          (acquire) => RcRef.make({ acquire }),
          (ref) => Effect.scoped(RcRef.get(ref))
        )
      ).toBe(1)
      expect(
        yield* leftOpen(
          () => ScopedRef.make(() => undefined),
          (ref, acquire) =>
            ScopedRef.set(ref, acquire as Effect.Effect<undefined, never, Scope.Scope>)
        )
      ).toBe(1)
      expect(
        yield* leftOpen(
          (acquire) => Shared.make({ name: "ours", acquire }),
          (shared) => Shared.use(shared, () => Effect.void)
        )
      ).toBe(0)
    }))
})

describe("KeyedShared", () => {
  const keyedResource = () => {
    const log: Array<string> = []
    const acquire = (key: string) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          log.push(`+${key}`)
          return key
        }),
        () => Effect.sync(() => log.push(`-${key}`))
      )
    return { log, acquire }
  }

  it.effect("KeyedShared-1: one instance per key, each with its own users; 20,000 keys leave no entry", () =>
    Effect.gen(function*() {
      const { acquire, log } = keyedResource()
      const keyed = yield* Shared.makeKeyed({ name: "line", acquire })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Shared.getKey(keyed, "a")
        yield* Shared.getKey(keyed, "b")
        yield* Shared.getKey("a")(keyed)
        expect(log).toEqual(["+a", "+b"])
        expect(yield* Shared.size(keyed)).toBe(2)
        expect(yield* Shared.statsKey(keyed, "a")).toEqual(
          Option.some({ state: "open", users: 2, former: 0 })
        )
        expect(yield* Shared.invalidateKey(keyed, "b")).toBe(true)
        expect(yield* Shared.invalidateKey(keyed, "c")).toBe(false)
      }))
      expect(log.toSorted()).toEqual(["+a", "+b", "-a", "-b"])
      let key = 0
      yield* Effect.whileLoop({
        while: () => key < 20_000,
        body: () => Shared.useKey(keyed, String(key), () => Effect.void),
        step: () => key++
      })
      expect(yield* Shared.size(keyed)).toBe(0)
      expect(yield* Shared.statsKey(keyed, "a")).toEqual(Option.none())
    }).pipe(Effect.scoped))

  it.effect("KeyedShared-1: `keys` lists open and idle instances; the idle time may depend on the key; `touchKey` restarts it", () =>
    Effect.gen(function*() {
      const { acquire, log } = keyedResource()
      const keyed = yield* Shared.makeKeyed({
        name: "line",
        acquire,
        idleTimeToLive: (key, value) => key === value && key === "a" ? "1 minute" : "2 minutes"
      })
      for (const key of ["a", "b", "c"]) yield* Shared.useKey(keyed, key, () => Effect.void)
      expect(yield* Shared.keys(keyed)).toEqual(["a", "b", "c"])
      yield* TestClock.adjust("1 minute")
      expect(yield* Shared.keys(keyed)).toEqual(["b", "c"])
      expect([yield* Shared.touchKey(keyed, "c"), yield* Shared.touchKey("a")(keyed)]).toEqual([
        true,
        false
      ])
      yield* TestClock.adjust("1 minute")
      expect([log.slice(3), yield* Shared.keys(keyed)]).toEqual([["-a", "-b"], ["c"]])
      expect(yield* Shared.invalidateKey<string, string>("c", { only: "c" })(keyed)).toBe(true)
      expect(yield* Shared.keys(keyed)).toEqual([])
    }).pipe(Effect.scoped))

  it.effect("KeyedShared-1: a failed acquire, one that throws, and a closed owner leave no entry", () =>
    Effect.gen(function*() {
      const owner = yield* Scope.make()
      const keyed = yield* Scope.extend(
        Shared.makeKeyed({
          name: "line",
          acquire: (key: string): Effect.Effect<string, string> => {
            if (key === "throws") throw new Error("no such thing")
            return Effect.fail("refused")
          }
        }),
        owner
      )
      expect(yield* Effect.flip(Shared.useKey(keyed, "a", Effect.succeed))).toBe("refused")
      const thrown = yield* Effect.exit(Shared.useKey(keyed, "throws", Effect.succeed))
      expect(Exit.isFailure(thrown) && Cause.pretty(thrown.cause)).toContain("no such thing")
      yield* Scope.close(owner, Exit.void)
      const error = yield* Effect.flip(Shared.useKey(keyed, "b", Effect.succeed))
      expect(error).toMatchObject({ _tag: "SharedClosed", shared: "line[b]" })
      expect(yield* Shared.size(keyed)).toBe(0)
    }))

  it.effect("KeyedShared-2: a newcomer replaces the longest idle instance, or fails if all are in use", () =>
    Effect.gen(function*() {
      const { acquire, log } = keyedResource()
      const keyed = yield* Shared.makeKeyed({
        name: "line",
        acquire,
        idleTimeToLive: "1 hour",
        capacity: 2
      })
      const visit = (key: string) => Shared.useKey(keyed, key, () => Effect.void)
      yield* visit("a")
      yield* visit("b")
      yield* visit("a")
      yield* visit("c")
      expect(log).toEqual(["+a", "+b", "-b", "+c"])
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Shared.getKey(keyed, "a")
        yield* Shared.getKey(keyed, "c")
        const error = yield* Effect.flip(visit("d"))
        expect(error).toMatchObject({ _tag: "SharedFull", capacity: 2 })
        expect(yield* Shared.size(keyed)).toBe(2)
      }))
      yield* visit("d")
      expect(log.slice(4)).toEqual(["-c", "+d"])
    }).pipe(Effect.scoped))

  it.effect("KeyedShared-2: instances being released count: a newcomer waits for them", () =>
    Effect.gen(function*() {
      let open = 0
      let most = 0
      const acquire = () =>
        Effect.acquireRelease(
          Effect.sync(() => {
            most = Math.max(most, ++open)
          }),
          () => Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => open--))
        )
      const keyed = yield* Shared.makeKeyed({ name: "line", acquire, capacity: 2 })
      const users = yield* Effect.forEach(
        [1, 2, 3, 4, 5, 6],
        (key) =>
          Effect.fork(Effect.zipRight(
            Effect.sleep(Duration.millis(key * 700)),
            Shared.useKey(keyed, key, () => Effect.void)
          ))
      )
      yield* TestClock.adjust("20 seconds")
      const exits = yield* Effect.forEach(users, Fiber.await)
      expect(exits.filter(Exit.isSuccess).length).toBeGreaterThan(2)
      expect([most, open]).toEqual([2, 0])
      expect(yield* Shared.size(keyed)).toBe(0)
    }).pipe(Effect.scoped))

  it.effect("a key that throws when it is shown has an instance all the same", () =>
    Effect.gen(function*() {
      const unshowable = {
        toJSON: () => {
          throw new Error("toJSON")
        },
        toString: () => {
          throw new Error("toString")
        }
      }
      const acquire = (key: typeof unshowable) => Effect.succeed(typeof key)
      const keyed = yield* Shared.makeKeyed({ name: "line", acquire })
      expect(yield* Shared.useKey(keyed, unshowable, Effect.succeed)).toBe("object")
    }).pipe(Effect.scoped))

  it("only one with a capacity has SharedFull among its errors", () => {
    type Made<E> = Effect.Effect<Shared.KeyedShared<string, number, E>, never, Scope.Scope>
    const options = { name: "line", acquire: (key: string) => Effect.as(Effect.fail(key), 1) }
    const withAny: Shared.KeyedOptions<string, number, string, never> = options
    expectTypeOf(Shared.makeKeyed(options)).toEqualTypeOf<Made<string>>()
    expectTypeOf(Shared.makeKeyed({ ...options, capacity: 2 }))
      .toEqualTypeOf<Made<string | Shared.SharedFull>>()
    expectTypeOf(Shared.makeKeyed(withAny)).toEqualTypeOf<Made<string | Shared.SharedFull>>()
  })
})
