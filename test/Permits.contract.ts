/** The contract of `SharedLock` and `DistributedSemaphore`: `one` and `two` are services on the same keys. */
import { expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Ledger } from "holdfast"
import type * as Permits from "holdfast/Lock/Permits"
import { freshKey, turns } from "./Lock.contract.ts"

type Make = Effect.Effect<Permits.Services, unknown, Scope.Scope>

export const permitsContract = (
  name: string,
  makeOne: Make,
  makeTwo: Make | undefined,
  /** Ends when so many wait for a key. */
  queued: (kind: Permits.Request["kind"], key: string, waiters: number) => Effect.Effect<void>
): void => {
  const test = (
    title: string,
    run: (
      one: Permits.Services,
      two: Permits.Services
    ) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    it.scopedLive(`${name}: ${title}`, () =>
      Effect.gen(function*() {
        const one = yield* makeOne
        yield* run(one, makeTwo === undefined ? one : yield* makeTwo)
        const ledger = yield* Ledger.Ledger
        for (const kind of ["permit", "read lock", "write lock"]) {
          const totals = ledger!.unsafeSnapshot().kinds[kind]
          expect(totals?.acquired).toBe(totals?.released)
        }
      }).pipe(Effect.provide(Ledger.layer())))

  test(
    "Permits-1: never more permits than the limit, and each fence is higher than the one before",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const fences: Array<bigint> = []
        let [used, most] = [0, 0]
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (let i = 0; i < 20; i++) {
          const permits = 1 + i % 3
          const use = (i % 2 === 0 ? one : two).semaphore.withPermits(key, { limit: 4, permits })
          fibers.push(
            yield* Effect.fork(use((lease) =>
              Effect.gen(function*() {
                fences.push(lease.fence)
                used += permits
                most = Math.max(most, used)
                yield* turns(3)
                yield* lease.ensureLive
                used -= permits
              })
            ))
          )
        }
        for (const fiber of fibers) yield* Fiber.join(fiber)
        expect(most).toBeGreaterThan(2)
        expect(most).toBeLessThanOrEqual(4)
        expect(new Set(fences).size).toBe(20)
      })
  )

  test(
    "Permits-1: readers together, a writer alone; a try takes only what is free",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const inside = yield* one.shared.withRead(key)(
          two.shared.withRead(key)(
            Effect.all([
              two.shared.tryWithRead(key)(Effect.succeed("read")),
              one.shared.tryWithWrite(key)(Effect.succeed("write"))
            ])
          )
        )
        expect(inside).toEqual([Option.some("read"), Option.none()])
        const tried = yield* one.shared.withWrite(key)(
          Effect.all([
            two.shared.tryWithRead(key)(Effect.void),
            two.shared.tryWithWrite(key)(Effect.void)
          ])
        )
        expect(tried).toEqual([Option.none(), Option.none()])
        // The two kinds do not meet.
        const use = two.semaphore.withPermits(key, { limit: 1 })(Effect.succeed("permit"))
        expect(yield* one.shared.withWrite(key)(use)).toBe("permit")
      })
  )

  test(
    "Permits-2: a writer that waits holds back later readers, and goes before them",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const order: Array<string> = []
        const log = (what: string) => Effect.sync(() => order.push(what))
        const reader = yield* Scope.make()
        yield* Scope.extend(one.shared.getRead(key), reader)
        const writer = yield* Effect.fork(two.shared.withWrite(key)(log("writer")))
        yield* queued("shared", key, 1)
        const later = yield* Effect.fork(one.shared.withRead(key)(log("reader")))
        yield* queued("shared", key, 2)
        expect(yield* one.shared.tryWithRead(key)(Effect.void)).toEqual(Option.none())
        yield* Scope.close(reader, Exit.void)
        yield* Fiber.join(writer)
        yield* Fiber.join(later)
        expect(order).toEqual(["writer", "reader"])
      })
  )

  test(
    "Permits-3: a waiter that is interrupted or late holds nothing, and those behind it are served",
    (one, two) =>
      Effect.gen(function*() {
        const key = freshKey()
        const reader = yield* Scope.make()
        yield* Scope.extend(one.shared.getRead(key, { label: "export" }), reader)
        const late = yield* Effect.flip(
          two.shared.withWrite(key, { acquireTimeout: "50 millis" })(Effect.void)
        )
        expect(late.message).toContain("export")
        const writer = yield* Effect.fork(two.shared.withWrite(key)(Effect.void))
        yield* queued("shared", key, 1)
        const behind = yield* Effect.fork(one.shared.withRead(key)(Effect.succeed("served")))
        yield* queued("shared", key, 2)
        expect(Exit.isInterrupted(yield* Fiber.interrupt(writer))).toBe(true)
        expect(yield* Fiber.join(behind)).toBe("served")
        yield* Scope.close(reader, Exit.void)
        for (let offset = 0; offset < 30; offset++) {
          const held = yield* Scope.make()
          yield* Scope.extend(one.semaphore.getPermits(key, { limit: 2, permits: 2 }), held)
          const waiter = yield* Effect.fork(
            two.semaphore.withPermits(key, { limit: 2 })(Effect.void)
          )
          yield* queued("permits", key, 1)
          const freeing = yield* Effect.fork(Scope.close(held, Exit.void))
          yield* makeTwo === undefined ? Effect.repeatN(Effect.yieldNow(), offset) : turns(offset)
          yield* Fiber.interrupt(waiter)
          yield* Fiber.join(freeing)
        }
        const both = one.semaphore.tryWithPermits(key, { limit: 2, permits: 2 })(Effect.void)
        expect(Option.isSome(yield* both)).toBe(true)
        expect(yield* one.shared.tryWithWrite(key)(Effect.void)).toEqual(Option.some(undefined))
      })
  )

  test("more permits than the limit are a defect", ({ semaphore }) =>
    Effect.gen(function*() {
      const asked = semaphore.withPermits("k", { limit: 1, permits: 2 })(Effect.void)
      const exit = yield* Effect.exit(asked)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("can never be taken")
    }))
}
