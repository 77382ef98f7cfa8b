import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, TestClock } from "effect"
import type * as Lock from "holdfast/Lock"
import * as Permits from "holdfast/Lock/Permits"
import { failuresOf, turns } from "../Lock.contract.ts"
import { permitsContract } from "../Permits.contract.ts"

const memory = Effect.map(
  Effect.all({ shared: Permits.SharedLock, semaphore: Permits.DistributedSemaphore }),
  (services): Permits.Services => services
).pipe(Effect.provide(Permits.layerMemory))

permitsContract("memory", memory, undefined, () => turns(3))

describe("Lock/Permits", () => {
  it.effect("Permits-4: the loss of a lease ends its body; the others go on", () =>
    Effect.gen(function*() {
      const losing: Array<Lock.Request["lose"]> = []
      const take = (request: Permits.Request) =>
        Effect.sync(() => {
          losing.push(request.lose)
          return { fence: 1n, verify: Effect.succeed(true), release: Effect.void }
        })
      const { shared } = Permits.make({
        self: "test",
        remote: true,
        take,
        tryTake: (request) => Effect.asSome(take(request)),
        inspect: () => Effect.succeedNone
      })
      const one = yield* Effect.fork(Effect.exit(shared.withRead("k")(Effect.never)))
      const two = yield* Effect.fork(
        shared.withRead("k")(Effect.delay(Effect.succeed(2), "1 second"))
      )
      yield* Effect.repeatN(Effect.yieldNow(), 10)
      losing[0]!("vanished")
      expect(failuresOf(yield* Fiber.join(one))).toMatchObject([
        { _tag: "LockLost", reason: "vanished" }
      ])
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(two)).toBe(2)
    }))
})
