import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  TestClock,
  Tracer
} from "effect"
import { Ledger, type Managed } from "holdfast"
import * as Lock from "holdfast/Lock"
import * as Singleton from "holdfast/Lock/Singleton"
import { eventually, failuresOf, lockContract } from "./Lock.contract.ts"

lockContract("memory", { one: Lock.makeMemory, fibers: 200, offsets: 160 })

/** A backend of this process whose grants can be lost, with the given release. */
const fragile = (release: Effect.Effect<unknown, unknown> = Effect.void) => {
  const lose: Array<(reason: Lock.LossReason) => void> = []
  let fence = 0n
  let releases = 0
  const grant = (request: Lock.Request) =>
    Effect.sync((): Lock.Grant => {
      lose.push(request.lose)
      return {
        fence: ++fence,
        verify: Effect.succeed(true),
        release: Effect.zipRight(
          Effect.sync(() => {
            releases++
          }),
          release
        )
      }
    })
  const service = Lock.make({
    self: "test",
    remote: true,
    take: grant,
    tryTake: (request) => Effect.asSome(grant(request)),
    inspect: () => Effect.succeedNone
  })
  return { service, lose: () => lose.at(-1)!("connection"), releases: () => releases }
}

/** A backend whose take waits interruptibly, and then runs `rest` uninterruptibly. */
const slow = (rest: Effect.Effect<unknown>) => {
  let held = 0
  const take = (_: Lock.Request, restore: Managed.Restore) =>
    Effect.zipRight(
      restore(Effect.repeatN(Effect.yieldNow(), 3)),
      Effect.zipLeft(
        Effect.sync((): Lock.Grant => {
          held++
          return {
            fence: 1n,
            verify: Effect.succeed(true),
            release: Effect.sync(() => {
              held--
            })
          }
        }),
        rest
      )
    )
  const service = Lock.make({
    self: "slow",
    remote: false,
    take,
    tryTake: (request, restore) => Effect.asSome(take(request, restore)),
    inspect: () => Effect.succeedNone
  })
  return { service, held: () => held }
}

const leading = <A, E>(lock: Lock.Service, body: Lock.Body<A, E, never>) =>
  Effect.provideService(Singleton.run(body, "k"), Lock.Lock, lock)

describe("Lock", () => {
  it.effect("Lock-3: acquireTimeout is on the Clock, and does not disturb the next waiter", () =>
    Effect.gen(function*() {
      const lock = yield* Lock.makeMemory
      const order: Array<string> = []
      const holder = yield* Effect.fork(
        lock.withLock("k", { label: "holder" })(Effect.sleep("1 minute"))
      )
      yield* Effect.yieldNow()
      const late = yield* Effect.fork(
        Effect.exit(lock.withLock("k", { acquireTimeout: "10 seconds" })(Effect.void))
      )
      const patient = yield* Effect.fork(
        lock.withLock("k", { acquireTimeout: "2 minutes" })(
          Effect.sync(() => order.push("patient"))
        )
      )
      yield* TestClock.adjust("10 seconds")
      const exit = yield* Fiber.join(late)
      expect(failuresOf(exit)).toMatchObject([{
        _tag: "LockTimeout",
        waited: Duration.seconds(10),
        holder: { fence: 1n }
      }])
      yield* TestClock.adjust("50 seconds")
      yield* Fiber.join(holder)
      yield* Fiber.join(patient)
      expect(order).toEqual(["patient"])
      expect(yield* lock.tryWithLock("k")(Effect.void)).toEqual(Option.some(undefined))
    }))

  it.effect("Lock-3: a grant and a timeout in one instant: exactly one of them counts", () =>
    Effect.gen(function*() {
      const lock = yield* Lock.makeMemory
      for (let round = 0; round < 50; round++) {
        const holder = yield* Effect.fork(lock.withLock("k")(Effect.sleep("1 second")))
        yield* Effect.yieldNow()
        const waiter = yield* Effect.fork(
          Effect.exit(lock.withLock("k", { acquireTimeout: "1 second" })(Effect.succeed("in")))
        )
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(holder)
        const exit = yield* Fiber.join(waiter)
        if (Exit.isFailure(exit)) expect(failuresOf(exit)).toMatchObject([{ _tag: "LockTimeout" }])
        expect(yield* lock.tryWithLock("k")(Effect.void)).toEqual(Option.some(undefined))
      }
    }))

  for (const options of [{}, { acquireTimeout: "1 hour" }] satisfies ReadonlyArray<Lock.Options>) {
    it.effect(`Lock-3: interrupted at any step of a slow backend, nothing is held (${JSON.stringify(options)})`, () =>
      Effect.gen(function*() {
        const { held, service } = slow(Effect.repeatN(Effect.yieldNow(), 3))
        for (let offset = 0; offset < 40; offset++) {
          const fiber = yield* Effect.fork(service.withLock("k", options)(Effect.void))
          yield* Effect.repeatN(Effect.yieldNow(), offset)
          yield* Fiber.interrupt(fiber)
          expect(held()).toBe(0)
          expect(yield* service.tryWithLock("k")(Effect.succeed(offset))).toEqual(
            Option.some(offset)
          )
        }
      }))
  }

  it.effect("Lock-3: a grant in the moment of the timeout counts, and is released once", () =>
    Effect.gen(function*() {
      const { held, service } = slow(Effect.sleep("2 seconds"))
      const fiber = yield* Effect.fork(
        service.withLock("k", { acquireTimeout: "1 second" })(Effect.sync(() => held()))
      )
      yield* TestClock.adjust("2 seconds")
      expect(yield* Fiber.join(fiber)).toBe(1)
      expect(held()).toBe(0)
    }))

  it.effect("Lock-3: acquireTimeout counts in the queue and at the backend together", () =>
    Effect.gen(function*() {
      let interrupted = 0
      const service = Lock.make({
        self: "test",
        remote: false,
        // The first take ends after 6 seconds, each later one never.
        take: (_, restore) =>
          Effect.as(
            restore(
              Effect.onInterrupt(
                interrupted === 0 ? Effect.sleep("6 seconds") : Effect.never,
                () => Effect.sync(() => interrupted++)
              )
            ),
            { fence: 1n, verify: Effect.succeed(true), release: Effect.void }
          ),
        tryTake: () => Effect.succeedNone,
        inspect: () => Effect.succeedSome({ holder: "another\u001b[31m" })
      })
      interrupted++
      const first = yield* Effect.fork(
        Effect.flip(service.withLock("k", { acquireTimeout: "6 seconds" })(Effect.void))
      )
      yield* Effect.yieldNow()
      const second = yield* Effect.fork(
        Effect.flip(service.withLock("k", { acquireTimeout: "10 seconds" })(Effect.void))
      )
      yield* TestClock.adjust("6 seconds")
      expect(yield* Fiber.join(first)).toMatchObject({ _tag: "LockTimeout", key: "k" })
      yield* TestClock.adjust("4 seconds")
      const error = yield* Effect.fromNullable(second.unsafePoll()).pipe(Effect.flatten)
      expect(error).toMatchObject({ _tag: "LockTimeout", waited: Duration.seconds(10) })
      expect(String(error)).toContain("held by another\\u{1b}[31m")
      expect(interrupted).toBe(3)
      expect(yield* service.tryWithLock("k")(Effect.void)).toEqual(Option.none())
    }))

  it.effect("Lock-2: the next waiter gets the key after the release has ended", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { service } = fragile(
        Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("released")))
      )
      const use = (name: string) => service.withLock("k")(Effect.sync(() => log.push(name)))
      const fibers = [yield* Effect.fork(use("first")), yield* Effect.fork(use("second"))]
      yield* TestClock.adjust("2 seconds")
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(log).toEqual(["first", "released", "second", "released"])
    }))

  it.effect("Span-1: with a tracer, the wait for a key and the time it is held are spans, which end with them", () =>
    Effect.gen(function*() {
      const spans: Array<string> = []
      const tracer = Tracer.make({
        context: (run) => run(),
        span: (name, parent, context, links, startTime, kind) => {
          const attributes = new Map<string, unknown>()
          spans.push(`+${name}`)
          return {
            _tag: "Span",
            name,
            spanId: name,
            traceId: "t",
            parent,
            context,
            links,
            kind,
            sampled: true,
            status: { _tag: "Started", startTime },
            attributes,
            attribute: (key, value) => attributes.set(key, value),
            event: () => {},
            addLinks: () => {},
            end: () => spans.push(`-${name} ${attributes.get("holdfast.lock.key")}`)
          }
        }
      })
      const lock = yield* Lock.makeMemory
      const one = lock.withLock("k")(Effect.fail("no"))
      yield* Effect.withTracer(Effect.exit(one), tracer)
      yield* Effect.withTracer(lock.tryWithLock("k")(Effect.void), tracer)
      const once = [
        "+holdfast.lock.acquire",
        "-holdfast.lock.acquire k",
        "+holdfast.lock.hold",
        "-holdfast.lock.hold k"
      ]
      expect(spans).toEqual([...once, ...once])
    }))

  it.effect("Options-1: a wrong option is a defect that says what to write", () =>
    Effect.gen(function*() {
      const lock = yield* Lock.makeMemory
      const exit = yield* Effect.exit(lock.withLock("k", { acquireTimeout: NaN })(Effect.void))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(
        "Lock: `acquireTimeout` must be a duration"
      )
      const options: Lock.Options = { acquireTimeout: "1 second" }
      const tried = yield* Effect.exit(lock.tryWithLock("k", options)(Effect.void))
      expect(Exit.isFailure(tried) && Cause.pretty(tried.cause)).toContain(
        "Lock has no option `acquireTimeout`"
      )
      const got = yield* Effect.exit(Effect.scoped(lock.tryGet("k", options)))
      expect(Exit.isFailure(got)).toBe(true)
    }))

  it.effect("Lock-4: loss interrupts the body, and the effect fails with LockLost", () =>
    Effect.gen(function*() {
      const { lose, releases, service } = fragile()
      let interrupted = false
      let started = false
      const fiber = yield* Effect.fork(
        Effect.exit(
          service.withLock("k")((lease) =>
            Effect.sync(() => {
              started = true
            }).pipe(
              Effect.zipRight(Effect.never),
              Effect.onInterrupt(() =>
                Effect.gen(function*() {
                  interrupted = true
                  expect(failuresOf(yield* Effect.exit(lease.ensureLive))).toMatchObject([
                    { _tag: "LockLost", fence: 1n, reason: "connection" }
                  ])
                })
              )
            )
          )
        )
      )
      yield* eventually(() => started)
      lose()
      lose()
      const exit = yield* Fiber.join(fiber)
      expect(interrupted).toBe(true)
      expect(failuresOf(exit)).toMatchObject([{ _tag: "LockLost", key: "k", fence: 1n }])
      expect(releases()).toBe(1)
    }))

  it.effect("Lock-4: another defect of the body stays beside the loss; a body that ignores the interruption fails too", () =>
    Effect.gen(function*() {
      const { lose, service } = fragile()
      const failing = yield* Effect.exit(
        service.withLock("k")(
          Effect.ensuring(Effect.zipRight(Effect.sync(lose), Effect.never), Effect.die("cleanup"))
        )
      )
      expect(failuresOf(failing)).toMatchObject([{ _tag: "LockLost" }])
      expect(Exit.isFailure(failing) && Array.from(Cause.defects(failing.cause))).toEqual([
        "cleanup"
      ])
      const deaf = yield* Effect.exit(
        service.withLock("k")(
          Effect.uninterruptible(Effect.zipRight(Effect.sync(lose), Effect.yieldNow()))
        )
      )
      expect(failuresOf(deaf)).toMatchObject([{ _tag: "LockLost" }])
      const tried = yield* Effect.exit(
        service.tryWithLock("k")(Effect.ensuring(
          Effect.zipRight(Effect.sync(lose), Effect.never),
          Effect.die("cleanup")
        ))
      )
      expect(Exit.isFailure(tried) && Array.from(Cause.defects(tried.cause))).toEqual(["cleanup"])
    }))

  it.effect("Lock-5: no LockLost once the body has ended, nor from our own release", () =>
    Effect.gen(function*() {
      const made: { lose?: () => void } = {}
      // The session ends while, and because, it is released.
      const subject = fragile(Effect.sync(() => made.lose?.()))
      made.lose = subject.lose
      expect(yield* Effect.exit(subject.service.withLock("k")(Effect.succeed("done")))).toEqual(
        Exit.succeed("done")
      )
    }))

  it.effect("Lock-2: a failed or hung release changes nothing of the exit, and delays it by 2 seconds at most", () =>
    Effect.gen(function*() {
      const broken = fragile(Effect.fail("unlock failed")).service
      expect(yield* Effect.exit(broken.withLock("k")(Effect.succeed(1)))).toEqual(Exit.succeed(1))
      expect(yield* Effect.exit(broken.withLock("k")(Effect.fail("mine")))).toEqual(
        Exit.fail("mine")
      )
      // The second hears no interruption either.
      for (const hang of [Effect.never, Effect.uninterruptible(Effect.never)]) {
        const hung = fragile(hang).service
        const fiber = yield* Effect.fork(Effect.exit(hung.withLock("k")(Effect.succeed(2))))
        yield* TestClock.adjust("2 seconds")
        expect(yield* Fiber.join(fiber)).toEqual(Exit.succeed(2))
        // The next one gets its turn all the same.
        const next = yield* Effect.fork(Effect.exit(hung.withLock("k")(Effect.succeed(3))))
        yield* TestClock.adjust("2 seconds")
        expect(yield* Fiber.join(next)).toEqual(Exit.succeed(3))
      }
    }))

  it.effect("Lock-4: a scoped lease protects what it wraps, until its scope closes", () =>
    Effect.gen(function*() {
      const { lose, service } = fragile()
      const exit = yield* Effect.exit(Effect.scoped(Effect.flatMap(
        service.get("k"),
        (lease) => lease.protect(Effect.zipRight(Effect.sync(lose), Effect.never))
      )))
      expect(failuresOf(exit)).toMatchObject([{ _tag: "LockLost", reason: "connection" }])
      const lock = yield* Lock.makeMemory
      const after = yield* Effect.scoped(lock.get("k"))
      expect(failuresOf(yield* Effect.exit(after.protect(Effect.void)))).toMatchObject([
        { _tag: "LockLost", reason: "released" }
      ])
    }))

  it.effect("Lock-2: an interrupted body of a remote lease ends before the lock is released", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { service } = fragile(Effect.sync(() => log.push("released")))
      const fiber = yield* Effect.fork(
        service.withLock("k")(
          Effect.onInterrupt(
            Effect.never,
            () =>
              Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("body ended")))
          )
        )
      )
      yield* Effect.yieldNow()
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("1 second")
      expect(Exit.isInterrupted(yield* Fiber.join(ending))).toBe(true)
      expect(log).toEqual(["body ended", "released"])
    }))

  it.effect("Lock-9: the second key fails or is late: the first is free again; one bound for both", () =>
    Effect.gen(function*() {
      const lock = yield* Lock.makeMemory
      const held = yield* Effect.fork(lock.withLock("b")(Effect.sleep("1 hour")))
      const other = yield* Effect.fork(lock.withLock("a")(Effect.sleep("40 seconds")))
      yield* Effect.yieldNow()
      const both = yield* Effect.fork(
        Effect.flip(
          Lock.withLocks(Effect.void, new Set(["b", "a"]), { acquireTimeout: "1 minute" })
        )
          .pipe(Effect.provideService(Lock.Lock, lock))
      )
      yield* TestClock.adjust("40 seconds")
      yield* Fiber.join(other)
      expect(Option.isSome(yield* lock.inspect("a"))).toBe(true)
      yield* TestClock.adjust("20 seconds")
      expect(yield* Fiber.join(both)).toMatchObject({ _tag: "LockTimeout", key: "b" })
      expect(yield* lock.inspect("a")).toEqual(Option.none())
      yield* Fiber.interrupt(held)
    }))

  it.effect("Lock-9: the loss of one lease ends the body under several", () =>
    Effect.gen(function*() {
      const { lose, releases, service } = fragile()
      const exit = yield* Effect.exit(
        service.withLocks(["a", "b"])(([first]) =>
          Effect.zipRight(Effect.sync(lose), Effect.as(Effect.never, first))
        )
      )
      expect(failuresOf(exit)).toMatchObject([{ _tag: "LockLost", key: "b" }])
      expect(releases()).toBe(2)
    }))

  it.effect("Singleton-1, Singleton-2: a singleton that loses its lease, or cannot reach the backend, runs again; its own failure ends it", () =>
    Effect.gen(function*() {
      const { lose, service } = fragile()
      const runs: Array<bigint> = []
      const lost = new Lock.LockLost({ key: "other", fence: 1n, reason: "deadline" })
      const ended = yield* Effect.exit(
        leading(service, (lease) =>
          Effect.suspend(() => {
            runs.push(lease.fence)
            if (runs.length === 3) return Effect.fail(lost)
            if (runs.length > 3) return Effect.die("it ran again")
            lose()
            return Effect.never
          }))
      )
      expect(runs).toEqual([1n, 2n, 3n])
      // The loss of another lock is a failure like any other.
      expect(failuresOf(ended)).toEqual([lost])
      const died = yield* Effect.exit(
        leading(
          service,
          Effect.ensuring(Effect.zipRight(Effect.sync(lose), Effect.never), Effect.die("cleanup"))
        )
      )
      expect(Exit.isFailure(died) && Array.from(Cause.defects(died.cause))).toEqual(["cleanup"])

      let times = 0
      const failing = Effect.suspend(() => {
        lose()
        return ++times === 1 ? Effect.fail("mine") : Effect.die("it ran again")
      })
      const beside = yield* Effect.exit(leading(service, Effect.uninterruptible(failing)))
      expect(failuresOf(beside)).toContain("mine")

      let tries = 0
      const grant = { fence: 1n, verify: Effect.succeed(true), release: Effect.void }
      const flaky = Lock.make({
        self: "test",
        remote: true,
        take: () =>
          ++tries < 3
            ? new Lock.LockBackendError({ op: "take", cause: "down" })
            : Effect.succeed(grant),
        tryTake: () => Effect.succeedNone,
        inspect: () => Effect.succeedNone
      })
      const elected = yield* Effect.fork(leading(flaky, Effect.succeed("leads")))
      yield* TestClock.adjust("2 seconds")
      expect(yield* Fiber.join(elected)).toBe("leads")
      expect(tries).toBe(3)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.effect("Lock-3: a timeout names the line of the holder, if the ledger records lines", () =>
    Effect.gen(function*() {
      const lock = yield* Lock.makeMemory
      const holder = yield* Effect.fork(lock.withLock("k")(Effect.never))
      yield* Effect.yieldNow()
      const late = yield* Effect.fork(
        Effect.flip(lock.withLock("k", { acquireTimeout: "1 second" })(Effect.void))
      )
      yield* TestClock.adjust("1 second")
      expect((yield* Fiber.join(late)).message).toMatch(
        /held by this process#1 at .*Lock\.test\.ts:\d+/
      )
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.provide(Ledger.layer({ sites: "first" }))))

  it.effect("a body under a remote lease fails with its own errors", () =>
    Effect.gen(function*() {
      const { service } = fragile()
      const exit = yield* Effect.exit(
        service.withLock("k")(Effect.fail({ _tag: "Mine" as const }))
      )
      expect(failuresOf(exit)).toEqual([{ _tag: "Mine" }])
    }))

  it.effect("Lock-8: a waiter is acquiring, blocked by the holder of the key, or by the fiber that waits for the backend before it", () =>
    Effect.gen(function*() {
      const ledger = (yield* Ledger.Ledger)!
      const gate = yield* Deferred.make<void>()
      const service = Lock.make({
        self: "test",
        remote: true,
        take: (_, restore) =>
          Effect.as(restore(Deferred.await(gate)), {
            fence: 1n,
            verify: Effect.succeed(true),
            release: Effect.void
          }),
        tryTake: () => Effect.succeedNone,
        inspect: () => Effect.succeedNone
      })
      // One and the same effect, run by both.
      const body = service.withLock("k")(Effect.never)
      const [one, other] = [yield* Effect.fork(body), yield* Effect.fork(body)]
      yield* eventually(() => ledger.unsafeSnapshot().live.length === 2)
      const states = Effect.map(
        ledger.snapshot,
        ({ live }) =>
          live.map(({ blockedBy, fiber, kind, name, state }) => ({
            what: `${kind} ${name} ${state}`,
            fiber,
            blockedBy: blockedBy.length
          }))
      )
      const asks = (
        fiber: Fiber.RuntimeFiber<unknown, unknown>,
        state: string,
        blockedBy: number
      ) => ({
        what: `lock k ${state}`,
        fiber: `#${fiber.id().id}`,
        blockedBy
      })
      yield* Effect.repeatN(Effect.yieldNow(), 10)
      expect(yield* states).toEqual([asks(one, "acquiring", 0), asks(other, "acquiring", 1)])
      yield* Deferred.succeed(gate, undefined)
      yield* Effect.repeatN(Effect.yieldNow(), 10)
      expect(yield* states).toEqual([asks(one, "held", 0), asks(other, "acquiring", 1)])
      yield* Fiber.interruptAll([one, other])
      yield* ledger.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))

  it("only a bounded wait has LockTimeout among its errors", () => {
    type Errors = Lock.LockError | Lock.LockLost
    expectTypeOf(Lock.withLock("k")(Effect.void))
      .toEqualTypeOf<Effect.Effect<void, Errors, Lock.Lock>>()
    expectTypeOf(Lock.tryWithLock(Effect.void, "k"))
      .toEqualTypeOf<Effect.Effect<Option.Option<void>, Errors, Lock.Lock>>()
    expectTypeOf(Lock.withLock(Effect.void, "k", { acquireTimeout: 1 }))
      .toEqualTypeOf<Effect.Effect<void, Errors | Lock.LockTimeout, Lock.Lock>>()
  })

  it.effect("the accessors ask the layer", () =>
    Effect.gen(function*() {
      const fence = yield* Lock.withLock("k")((lease) => Effect.succeed(lease.fence))
      expect(fence).toBe(1n)
      yield* Effect.scoped(Lock.get("k"))
      expect(yield* Effect.scoped(Effect.map(Lock.tryGet("k"), Option.isSome))).toBe(true)
      expect(yield* Lock.tryWithLock("k")(Effect.succeed(1))).toEqual(Option.some(1))
      expect(yield* Lock.tryWithLock(Effect.succeed(1), "k", { label: "l" })).toEqual(
        Option.some(1)
      )
      const timed = Lock.withLock((lease) => Effect.succeed(lease.key), "k", { acquireTimeout: 1 })
      expect(yield* timed).toBe("k")
      expect(yield* Lock.inspect("k")).toEqual(Option.none())
      const ledger = yield* Ledger.Ledger
      yield* ledger!.assertEmpty
    }).pipe(Effect.provide(Layer.merge(Lock.layerMemory, Ledger.layer()))))
})
