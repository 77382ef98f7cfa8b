/**
 * Bugs planted for the explorer, each the smallest of its kind, with the law it breaks and how near to production.
 */
import { Deferred, Effect, Exit, Fiber, FiberId, type Scope } from "effect"
import { type Explore, type Probe } from "holdfast/Testing"
import { type HandOff, makeHandOff, type Mistakes } from "./handOff.ts"
import type { Seed } from "./upstream.ts"

type Run = typeof Explore.interruptions

/** Waits behind a holder, so that a grant is handed over. */
const contend = ({ withPermit }: HandOff) =>
  Effect.scoped(Effect.gen(function*() {
    yield* Effect.forkScoped(withPermit(Effect.sleep(5)))
    yield* Effect.yieldNow()
    yield* withPermit(Effect.yieldNow())
  }))

const isFree = (handOff: HandOff) =>
  handOff.free() === 1 && handOff.waiting() === 0
    ? true
    : `${handOff.free()} free, ${handOff.waiting()} waiting`

export const planted = (run: Run): ReadonlyArray<Seed> => {
  const seed = <S = void>(
    grade: Explore.Grade | undefined,
    law: Explore.Violation["law"] | undefined,
    subject: Explore.Subject<S>,
    settings?: Explore.Options
  ): Seed => ({
    name: subject.name,
    grade,
    law,
    explore: (options) => run(subject, { ...options, ...settings })
  })
  const handOff = (
    grade: Explore.Grade | undefined,
    law: Explore.Violation["law"] | undefined,
    name: string,
    mistakes: Mistakes
  ) =>
    seed(grade, law, {
      name,
      setup: Effect.sync(() => makeHandOff(mistakes)),
      body: contend,
      invariant: isFree
    })
  const body = (
    f: (probe: Probe.Probe) => Effect.Effect<unknown, unknown, Scope.Scope>
  ) =>
  (_: void, probe: Probe.Probe) => f(probe)
  return [
    handOff(undefined, undefined, "hand-off, right", {}),
    handOff("R0", "the invariant holds", "grant without pass-on", { noPassOn: true }),
    handOff("R0", "the invariant holds", "cancel handler dropped", { noCancel: true }),
    handOff("R2", "the invariant holds", "mask removed", { noMask: true }),
    handOff("R0", "the invariant holds", "release on success only", { releaseOnSuccessOnly: true }),
    handOff("R0", "the invariant holds", "release twice", { releaseTwice: true }),
    seed("R1", "all is released", {
      name: "release registered one step late",
      body: body((probe) =>
        Effect.flatMap(
          probe.acquire("r"),
          (handle) => Effect.addFinalizer(() => probe.release(handle))
        )
      )
    }),
    seed("R1", "all is released", {
      name: "bracket without a mask",
      body: body((probe) =>
        Effect.flatMap(
          probe.acquire("r"),
          (handle) => Effect.ensuring(Effect.yieldNow(), probe.release(handle))
        )
      )
    }),
    seed("R0", "all is released", {
      name: "release after the use, not whatever happens",
      body: body((probe) =>
        Effect.gen(function*() {
          const handle = yield* probe.acquire("r")
          yield* Effect.sleep(1)
          yield* probe.release(handle)
        })
      )
    }),
    seed("R0", "released once", {
      name: "released by the finalizer and by the interrupt",
      body: body((probe) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(probe.acquire("r"), (handle) =>
            restore(Effect.sleep(1)).pipe(
              Effect.onInterrupt(() => probe.release(handle)),
              Effect.ensuring(probe.release(handle))
            ))
        )
      )
    }),
    seed("R0", "released once", {
      name: "a counter that comes down on success only",
      body: body((probe) => {
        const inside = probe.counter("inside")
        return Effect.zipRight(
          Effect.zipRight(inside.increment, Effect.sleep(1)),
          inside.decrement
        )
      })
    }),
    seed("R0", "the second use is as the first", {
      name: "a cache that its first user poisons",
      setup: Effect.sync(() => ({
        value: undefined as Deferred.Deferred<number> | undefined
      })),
      body: (cache) =>
        Effect.suspend(() => {
          const known = cache.value
          if (known !== undefined) return Effect.asVoid(Deferred.await(known))
          const value = Deferred.unsafeMake<number>(FiberId.none)
          cache.value = value
          return Effect.asVoid(Effect.zipRight(Effect.sleep(1), Deferred.succeed(value, 1)))
        })
    }),
    seed("R0", "no fiber is left", {
      name: "a daemon that only success ends",
      body: () =>
        Effect.gen(function*() {
          const daemon = yield* Effect.forkDaemon(Effect.never)
          yield* Effect.sleep(1)
          yield* Fiber.interrupt(daemon)
        })
    }),
    seed("R0", "the owner closes", {
      name: "a close that waits for what only success brings",
      setup: Effect.gen(function*() {
        const done = yield* Deferred.make<void>()
        let open = 0
        yield* Effect.addFinalizer(() => open > 0 ? Deferred.await(done) : Effect.void)
        return { enter: () => open++, leave: () => open-- }
      }),
      body: ({ enter, leave }) =>
        Effect.gen(function*() {
          enter()
          yield* Effect.sleep(1)
          leave()
        })
    }),
    seed("R0", "the target exits", {
      name: "a masked wait for a child that was interrupted",
      body: () =>
        Effect.uninterruptible(Effect.gen(function*() {
          const done = yield* Deferred.make<void>()
          const child = Effect.zipRight(Effect.sleep(1), Deferred.succeed(done, undefined))
          yield* Effect.fork(Effect.interruptible(child))
          yield* Deferred.await(done)
        }))
    }),
    seed("R0", "the run ends", {
      name: "a loop that waits for a flag without waiting",
      body: () =>
        Effect.suspend(() => {
          let done = false
          const work = Effect.zipRight(
            Effect.sleep(1),
            Effect.sync(() => {
              done = true
            })
          )
          const spin = Effect.repeat(Effect.yieldNow(), { until: () => done })
          return Effect.ensuring(work, spin)
        })
    }, { opLimit: 20_000 }),
    seed("R0", "the second use is as the first", {
      name: "a wrapped service that is not closed when its use is cut",
      setup: Effect.sync(() => ({ open: 0 })),
      body: (state, probe) => {
        const service = probe.wrap("socket", {
          connect: () => Effect.sync(() => ({ end: () => Effect.sync(() => state.open--) }))
        }, { open: ["connect"], close: ["end"] })
        return Effect.gen(function*() {
          if (state.open > 0) return yield* Effect.fail("still open")
          const socket = yield* service.connect()
          state.open++
          yield* Effect.sleep(1)
          yield* socket.end()
        })
      }
    }),
    seed(undefined, undefined, {
      name: "an exit that is kept",
      body: () => Effect.exit(Effect.sleep(1)).pipe(Effect.map(Exit.isSuccess))
    })
  ]
}
