/**
 * The contract of every lock backend. Run it on yours:
 * `lockContract("mine", { one, two })`, where `two` is a second service on the same locks, if there can be one.
 * T and a number at the end of a title name a fault test of the research on locks (this file is T1).
 */
import { expect, it } from "@effect/vitest"
import { Cause, Chunk, Deferred, Effect, Exit, Fiber, FiberId, Option, Scope } from "effect"
import * as fc from "fast-check"
import { Ledger } from "holdfast"
import * as Lock from "holdfast/Lock"
import * as Singleton from "holdfast/Lock/Singleton"
import * as fs from "node:fs"
import * as path from "node:path"

export interface Subject {
  readonly one: Effect.Effect<Lock.Service, unknown, Scope.Scope>
  /** Another service that contends for the same keys, as another process would. */
  readonly two?: Effect.Effect<Lock.Service, unknown, Scope.Scope> | undefined
  /** How many fibers fight in the exclusion test, and how many offsets the race sweeps. Default 24 and 60. */
  readonly fibers?: number | undefined
  readonly offsets?: number | undefined
  /** One step of the race sweep. Default: the n-th yield. */
  readonly step?: ((offset: number) => Effect.Effect<void>) | undefined
  /** Lets a waiter get in line. Default: a few turns. */
  readonly queued?: Effect.Effect<void> | undefined
}

const yields = (times: number): Effect.Effect<void> => Effect.repeatN(Effect.yieldNow(), times)

/** One turn of the event loop, in which sockets are served. */
const turn: Effect.Effect<void> = Effect.async((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

export const turns = (times: number): Effect.Effect<void> => Effect.repeatN(turn, times)

/** Waits until it is so, within the time limit of the test. */
export const eventually = (so: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => so() ? Effect.void : Effect.zipRight(turn, eventually(so)))

let keys = 0
export const freshKey = (): string => `key ${process.pid} ${keys++}`

const ledgerTotals = Effect.flatMap(
  Ledger.Ledger,
  (ledger) =>
    Effect.map(ledger!.snapshot, ({ kinds, live }) => ({
      lock: kinds["lock"],
      live: live.filter(({ kind }) => kind === "lock").map(({ state }) => state)
    }))
)

export const lockContract = (name: string, subject: Subject): void => {
  const { fibers = 24, offsets = 60, one, queued = turns(3), step = yields, two } = subject
  const test = (
    title: string,
    run: (one: Lock.Service, two: Lock.Service) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.scopedLive(`${name}: ${title}`, () =>
      Effect.flatMap(
        one,
        (first) => Effect.flatMap(two ?? Effect.succeed(first), (second) => run(first, second))
      ).pipe(
        Effect.provide(Ledger.layer())
      ))

  test(
    "Lock-1: one at a time, and each grant's fence is higher than the one before",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const fences: Array<bigint> = []
        let inside = 0
        let most = 0
        const body = (lease: Lock.Lease) =>
          Effect.gen(function*() {
            most = Math.max(most, ++inside)
            fences.push(lease.fence)
            yield* turns(2)
            yield* lease.ensureLive
            inside--
          })
        const running = yield* Effect.forEach(
          Array.from({ length: fibers }, (_, index) => index),
          (index) => Effect.fork((index % 2 === 0 ? one : two).withLock(key)(body))
        )
        for (const fiber of running) yield* Fiber.join(fiber)
        expect(most).toBe(1)
        expect(fences.length).toBe(fibers)
        for (let i = 1; i < fences.length; i++) expect(fences[i]! > fences[i - 1]!).toBe(true)
      })
  )

  test(
    "Lock-1: a process whose clock is an hour ahead, or behind, takes no key that is held (T10)",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const held = yield* Scope.make()
        yield* Scope.extend(one.get(key), held)
        for (const ahead of [3_600_000, -3_600_000]) {
          const tried = yield* Effect.acquireUseRelease(
            Effect.sync(() => shiftClock(ahead)),
            () => two.tryWithLock(key)(Effect.void),
            (restore) => Effect.sync(restore)
          )
          expect(tried).toEqual(Option.none())
        }
        yield* Scope.close(held, Exit.void)
        expect(yield* two.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
      })
  )

  test(
    "Lock-1, Lock-3: in any order of takes, ends and interruptions one body runs, fences rise, and the key is free afterwards (T19)",
    (one, two) =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(fc.tuple(fc.constantFrom("toggle", "interrupt"), fc.nat(3)), {
              maxLength: 14
            }),
            (events) => Effect.runPromise(inAnyOrder([one, two], events))
          ),
          { numRuns: 12, seed: 19 }
        )
      )
  )

  test("Lock-6: first come, first served among fibers", (lock) =>
    Effect.gen(function*() {
      const key = freshKey()
      const order: Array<number> = []
      const waiters = yield* lock.withLock(key)(
        Effect.forEach(
          Array.from({ length: 8 }, (_, index) => index),
          (index) =>
            Effect.tap(
              // Daemons without a parent: they outlive the body, so their wait is no reentry.
              Effect.forkDaemon(
                outside(lock.withLock(key)(Effect.sync(() => order.push(index))))
              ),
              () => yields(2)
            )
        )
      )
      for (const fiber of waiters) yield* Fiber.join(fiber)
      expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
    }))

  test("Lock-2: released once on success, failure, defect and interruption; the ledger agrees", (lock) =>
    Effect.gen(function*() {
      const key = freshKey()
      const success = yield* Effect.exit(lock.withLock(key)(Effect.succeed(1)))
      const failure = yield* Effect.exit(lock.withLock(key)(Effect.fail("no")))
      const defect = yield* Effect.exit(lock.withLock(key)(Effect.die("broken")))
      let started = false
      const held = yield* Effect.fork(
        lock.withLock(key)(Effect.zipRight(
          Effect.sync(() => {
            started = true
          }),
          Effect.never
        ))
      )
      yield* eventually(() => started)
      const interrupted = yield* Fiber.interrupt(held)
      expect(success).toEqual(Exit.succeed(1))
      expect(failure).toEqual(Exit.fail("no"))
      expect(defect).toEqual(Exit.die("broken"))
      expect(Exit.isInterrupted(interrupted)).toBe(true)
      expect(yield* lock.tryWithLock(key)(Effect.succeed("free"))).toEqual(Option.some("free"))
      expect(yield* ledgerTotals).toEqual({
        lock: { acquired: 5, released: 5, failed: 0, abandoned: 0 },
        live: []
      })
    }))

  test(
    "Lock-3: a waiter interrupted anywhere around the grant leaves the lock free (T6)",
    (one, two) =>
      Effect.gen(function*() {
        for (let offset = 0; offset < offsets; offset++) {
          const key = freshKey()
          const held = yield* Scope.make()
          yield* Scope.extend(one.get(key), held)
          const waiter = yield* Effect.fork(
            (offset % 2 === 0 ? one : two).withLock(
              key,
              offset % 4 < 2 ? {} : { acquireTimeout: "20 seconds" }
            )(Effect.void)
          )
          yield* queued
          const freeing = yield* Effect.fork(Scope.close(held, Exit.void))
          yield* step(Math.floor(offset / 4))
          const exit = yield* Fiber.interrupt(waiter)
          yield* Fiber.join(freeing)
          if (Exit.isFailure(exit)) expect(failuresOf(exit)).toEqual([])
          for (const lock of [one, two]) {
            expect(yield* lock.tryWithLock(key)(Effect.succeed(offset))).toEqual(
              Option.some(offset)
            )
          }
        }
        const { live, lock } = yield* ledgerTotals
        expect(live).toEqual([])
        expect(lock?.acquired).toBe(lock?.released)
      })
  )

  test(
    "Lock-3: a late waiter fails with LockTimeout, which names the holder, and holds nothing",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const [mine, theirs] = yield* one.withLock(key, { label: "nightly" })((lease) =>
          Effect.all([
            Effect.map(
              Effect.flip(outside(one.withLock(key, { acquireTimeout: "30 millis" })(Effect.void))),
              (error) => ({ error, fence: lease.fence })
            ),
            Effect.flip(outside(two.withLock(key, { acquireTimeout: "150 millis" })(Effect.void)))
          ])
        )
        expect(mine.error).toMatchObject({ _tag: "LockTimeout", key })
        expect(mine.error.message).toContain(`fence ${mine.fence}`)
        for (const error of [mine.error, theirs]) expect(error.message).toContain("nightly")
        expect(yield* one.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
        expect(yield* two.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
      })
  )

  test("Lock-7: the same fiber tree is refused at once, as a defect; other keys, and later, are not", (lock) =>
    Effect.gen(function*() {
      const key = freshKey()
      const again = lock.withLock(key)(Effect.void)
      const [same, child, other, late] = yield* lock.withLock(key)(
        Effect.gen(function*() {
          const same = yield* Effect.exit(again)
          const child = yield* Fiber.await(yield* Effect.fork(again))
          const other = yield* lock.withLock(freshKey())(Effect.succeed("other"))
          const late = yield* Effect.forkDaemon(
            Effect.zipRight(eventually(() => left), lock.withLock(key)(Effect.succeed("late")))
          )
          return [same, child, other, late] as const
        })
      )
      left = true
      expect([...defectsOf(same), ...defectsOf(child)]).toMatchObject([
        { _tag: "LockReentry", key },
        { _tag: "LockReentry", key }
      ])
      expect(other).toBe("other")
      expect(yield* Fiber.join(late)).toBe("late")
    }))
  let left = false

  test(
    "a try never waits: none while held, and the body does not run",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        let ran = false
        const tried = yield* one.withLock(key)(
          Effect.forEach([one, two], (lock) =>
            Effect.all([
              lock.tryWithLock(key)(Effect.sync(() => {
                ran = true
              })),
              Effect.map(Effect.scoped(lock.tryGet(key)), Option.isSome)
            ]))
        )
        expect(tried).toEqual([[Option.none(), false], [Option.none(), false]])
        expect(ran).toBe(false)
        expect(yield* Effect.map(Effect.scoped(two.tryGet(key)), Option.isSome)).toBe(true)
        expect(yield* Effect.flip(one.tryWithLock(key)(Effect.fail("mine")))).toBe("mine")
      })
  )

  test(
    "a scope holds a lease until it closes; inspect says who",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        expect(yield* one.inspect(key)).toEqual(Option.none())
        yield* Effect.scoped(Effect.gen(function*() {
          const lease = yield* one.get(key, { label: "export" })
          yield* lease.verify
          yield* lease.ensureLive
          expect(lease.owner).toContain("export")
          for (const lock of [one, two]) {
            const holder = yield* lock.inspect(key)
            expect(Option.getOrThrow(holder).holder).toContain("export")
          }
        }))
        expect(yield* one.inspect(key)).toEqual(Option.none())
        expect(yield* two.inspect(key)).toEqual(Option.none())
      })
  )

  test(
    "Lock-9: bodies with several keys in opposite orders never wait for each other (T16)",
    (one, two) =>
      Effect.gen(function*() {
        const [a, b] = [freshKey(), freshKey()]
        let inside = 0
        const body = (leases: ReadonlyArray<Lock.Lease>) =>
          Effect.gen(function*() {
            expect(leases.map(({ key }) => key)).toEqual([a, b].toSorted())
            expect(++inside).toBe(1)
            yield* turns(1)
            inside--
          })
        const fibers = yield* Effect.forEach(
          [0, 1, 2, 3, 4, 5],
          (i) => {
            const keys = i % 2 === 0 ? [a, b, a] : [b, a]
            return Effect.fork((i % 4 < 2 ? one : two).withLocks(keys)(body))
          }
        )
        for (const fiber of fibers) yield* Fiber.join(fiber)
        for (const key of [a, b]) expect(yield* one.inspect(key)).toEqual(Option.none())
      })
  )

  test(
    "Singleton-1: a singleton runs in one service, and in the other when the first has ended",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const log: Array<string> = []
        const lead = (lock: Lock.Service, name: string) =>
          Singleton.run(key)(Effect.zipRight(Effect.sync(() => log.push(name)), Effect.never)).pipe(
            Effect.provideService(Lock.Lock, lock)
          )
        const first = yield* Effect.fork(lead(one, "one"))
        yield* eventually(() => log.length === 1)
        const second = yield* Effect.fork(lead(two, "two"))
        yield* queued
        expect(log).toEqual(["one"])
        yield* Fiber.interrupt(first)
        yield* eventually(() => log.length === 2)
        yield* Fiber.interrupt(second)
        expect(log).toEqual(["one", "two"])
        expect(yield* one.inspect(key)).toEqual(Option.none())
      })
  )
}

/** Shifts the clock of this process; the result shifts it back. */
const shiftClock = (millis: number): () => void => {
  const real = Date.now
  Date.now = () => real() + millis
  return () => {
    Date.now = real
  }
}

/** Four visitors of one key. A toggle lets one ask for it, or end its body, at once if it still waits. */
const inAnyOrder = (
  locks: readonly [Lock.Service, Lock.Service],
  events: ReadonlyArray<readonly [string, number]>
) =>
  Effect.gen(function*() {
    const key = freshKey()
    const visitors = new Map<
      number,
      { readonly gate: Deferred.Deferred<void>; readonly fiber: Fiber.Fiber<void, unknown> }
    >()
    let inside = 0
    let last = 0n
    const body = (gate: Deferred.Deferred<void>) => ({ fence }: Lock.Lease) =>
      Effect.suspend(() => {
        expect(++inside).toBe(1)
        expect(fence > last).toBe(true)
        last = fence
        return Effect.ensuring(Deferred.await(gate), Effect.sync(() => inside--))
      })
    const fibers: Array<Fiber.Fiber<void, unknown>> = []
    for (const [event, who] of events) {
      const visitor = visitors.get(who)
      visitors.delete(who)
      if (visitor !== undefined) {
        if (event === "toggle") yield* Deferred.succeed(visitor.gate, undefined)
        else yield* Fiber.interrupt(visitor.fiber)
      } else if (event === "toggle") {
        const gate = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(locks[who % 2]!.withLock(key)(body(gate)))
        visitors.set(who, { gate, fiber })
        fibers.push(fiber)
      }
      yield* turns(2)
    }
    for (const { gate } of visitors.values()) yield* Deferred.succeed(gate, undefined)
    for (const fiber of fibers) {
      const exit = yield* Fiber.await(fiber)
      expect(Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)).toBe(true)
    }
    for (const lock of locks) {
      expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
    }
  })

/** Runs it in a fiber without a parent: a child inherits the keys that its parent holds. */
const outside = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.async((resume) => {
    const fiber = Effect.runFork(effect)
    fiber.addObserver((exit) => resume(exit))
    return Effect.sync(() => fiber.unsafeInterruptAsFork(FiberId.none))
  })

/** Runs a body that never ends by itself, and hands over how it ended. */
export const heldBody = (lock: Lock.Service, key: string) =>
  Effect.gen(function*() {
    const seen: { lease?: Lock.Lease; interrupted: boolean } = { interrupted: false }
    const fiber = yield* Effect.fork(Effect.exit(
      lock.withLock(key)((lease) => {
        seen.lease = lease
        return Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            seen.interrupted = true
          }))
      })
    ))
    yield* eventually(() => seen.lease !== undefined)
    return { fiber, seen, lease: seen.lease! }
  })

/** A number in a file that only a lock protects, and the text of a process that increments it, with the fences in a second file. */
export const unguardedCounter = (directory: string, name: string, key: string) => {
  const counter = path.join(directory, name)
  const fences = `${counter}-fences`
  fs.writeFileSync(counter, "0")
  const increments = (times: number) =>
    `const increment = lock.withLock(${
      JSON.stringify(key)
    })(({ fence }) => Effect.promise(async () => {
  const read = Number(await fs.promises.readFile(${JSON.stringify(counter)}, "utf8"))
  await fs.promises.appendFile(${JSON.stringify(fences)}, fence + "\\n")
  await fs.promises.writeFile(${JSON.stringify(counter)}, String(read + 1))
}))
await Effect.runPromise(Effect.repeatN(increment, ${times - 1}))`
  return { fences, increments, read: () => fs.readFileSync(counter, "utf8") }
}

/** How many fences, one a line in the order of their grants, were each higher than the one before. */
export const rises = (file: string): number => {
  const fences = fs.readFileSync(file, "utf8").trim().split("\n").map(BigInt)
  return fences.filter((fence, index) => index === 0 || fence > fences[index - 1]!).length
}

/** The failures of a cause, by tag or as they are. */
export const failuresOf = (exit: Exit.Exit<unknown, unknown>): ReadonlyArray<unknown> =>
  Exit.isSuccess(exit) ? [] : Chunk.toReadonlyArray(Cause.failures(exit.cause))

const defectsOf = (exit: Exit.Exit<unknown, unknown>): ReadonlyArray<unknown> =>
  Exit.isSuccess(exit) ? [] : Chunk.toReadonlyArray(Cause.defects(exit.cause))
