/**
 * Exit stacks as subjects: entered alone and together, with handlers, closed by one and by two, handed over, and ended while an
 * acquire hangs. The explorer finds nothing in them, at any grade.
 */
import { Cause, Chunk, Clock, Effect, Exit, Fiber, Ref, Scope } from "effect"
import { Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"
import { Explore, type Probe } from "holdfast/Testing"
import { alone, isReported, type Own } from "./own.ts"

/** A slow release is waited for here; that one past its deadline is abandoned by name is ExitStack-4's. */
const patient = { releaseDeadline: Infinity }

const resource = (probe: Probe.Probe, name: string, takes = 0) =>
  Managed.make({
    name,
    acquire: probe.acquire(name, { acquireTakes: takes }),
    release: (handle) => probe.release(handle, { releaseTakes: takes }),
    ...patient
  })

/** The same for a scope, which bounds nothing. */
const scoped = (probe: Probe.Probe, name: string, takes = 0) =>
  Effect.acquireRelease(
    probe.acquire(name, { acquireTakes: takes }),
    (handle) => probe.release(handle, { releaseTakes: takes })
  )

/** Where others are in the way. */
const beside = <S = void>(subject: Explore.Subject<S>): Own => ({
  ...alone(subject),
  interleavings: (options) => Explore.interleavings(subject, options)
})

/** How often each handler was pushed and not run yet, or run again. */
const pushing = (
  name: string,
  body: (
    stack: ExitStack.ExitStack,
    push: Effect.Effect<void>,
    probe: Probe.Probe
  ) => Effect.Effect<unknown, unknown, Scope.Scope>
): Own =>
  alone({
    name,
    setup: Ref.make<ReadonlyArray<number>>([]),
    body: (ran, probe) =>
      ExitStack.use((stack) =>
        Effect.suspend(() => {
          let index = -1
          const pushed = Ref.modify(ran, (counts) => {
            index = counts.length
            return [undefined, [...counts, 0]]
          })
          const runs = Effect.suspend(() => {
            const mine = index
            return Ref.update(ran, (counts) => counts.with(mine, counts[mine]! + 1))
          })
          const push = Effect.uninterruptible(
            Effect.zipRight(pushed, stack.callback(runs, patient))
          )
          return body(stack, push, probe)
        })
      ),
    invariant: (ran) => Effect.runSync(Ref.get(ran)).every((count) => count === 1)
  })

const turn = Effect.yieldNow()

/** The stack has said that it would not wait any longer for some acquire. */
const leftBehind = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) &&
  Chunk.some(Cause.defects(exit.cause), (defect) => defect instanceof ExitStack.EnterTimeout)

/** Whether anything took longer than a stack waits for an acquire, and whether the stack has said so. */
interface Told {
  wasSlow: boolean
  wasTold: boolean
}

interface Guarded extends Told {
  open: boolean
  usedAfterRelease: number
}

const timed = <A, E, R>(state: Told, step: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Clock.currentTimeMillis, (began) =>
    Effect.ensuring(
      step,
      Effect.map(Clock.currentTimeMillis, (ended) => {
        state.wasSlow ||= ended - began >= 5000
      })
    ))

/** Tells of its end. */
const telling = (stack: ExitStack.ExitStack<unknown, unknown>, state: { wasTold: boolean }) =>
  stack.push((exit) =>
    Effect.sync(() => {
      state.wasTold ||= leftBehind(exit)
    }), patient)

const hung = (acquire: (restore: Managed.Restore) => Effect.Effect<never>) =>
  Managed.make({ name: "hung", acquire, release: () => Effect.void })

const guarded = (state: { open: boolean }) =>
  Managed.make({
    name: "guarded",
    acquire: Effect.sync(() => {
      state.open = true
    }),
    release: () =>
      Effect.sync(() => {
        state.open = false
      }),
    ...patient
  })

export const exitStacks: ReadonlyArray<Own> = [
  alone({
    name: "ExitStack.use, entering",
    body: (_, probe) =>
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "a"))
          yield* stack.enter(scoped(probe, "b"), patient)
          yield* stack.enter(resource(probe, "c", 3))
          yield* Effect.sleep(1)
        })
      )
  }),
  alone({
    name: "ExitStack.use, deadlines",
    body: (_, probe) =>
      ExitStack.use((stack) =>
        Effect.zipRight(stack.enter(scoped(probe, "a", 3)), stack.callback(Effect.sleep(1)))
      )
  }),
  pushing("ExitStack.use, handlers", (stack, push, probe) =>
    Effect.gen(function*() {
      yield* push
      yield* stack.enter(resource(probe, "a"))
      yield* stack.push(() => turn, patient)
      yield* turn
    })),
  alone({
    name: "ExitStack.use, a handler that suppresses",
    body: (_, probe) =>
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "a"))
          yield* stack.push(() => Effect.succeed(Exit.void), patient)
          yield* stack.enter(resource(probe, "b", 1))
        })
      )
  }),
  alone({
    name: "ExitStack.enterAll, slow members",
    body: (_, probe) =>
      ExitStack.use((stack) =>
        Effect.zipRight(
          stack.enter(resource(probe, "first")),
          stack.enterAll([
            resource(probe, "a", 3),
            scoped(probe, "b", 1),
            resource(probe, "c", 2)
          ], { concurrency: 2 })
        )
      )
  }),
  alone({
    name: "ExitStack.enterAll, one fails",
    body: (_, probe) =>
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "first"))
          yield* Effect.exit(stack.enterAll([
            resource(probe, "a", 3),
            Effect.zipRight(scoped(probe, "b", 1), Effect.fail("no"))
          ], { concurrency: "unbounded" }))
          yield* stack.enter(resource(probe, "last"))
        })
      )
  }),
  alone({
    name: "ExitStack.popAll, then used and closed",
    body: (_, probe) =>
      Effect.gen(function*() {
        const kept = yield* ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(resource(probe, "a", 1))
            yield* stack.enter(scoped(probe, "b"), patient)
            return yield* stack.popAll
          })
        )
        yield* kept.enter(resource(probe, "c"))
        yield* turn
        yield* Effect.flatten(kept.close(Exit.void))
      })
  }),
  alone({
    name: "ExitStack.moveTo",
    body: (_, probe) =>
      Effect.gen(function*() {
        const scope = yield* Effect.acquireRelease(
          Scope.make(),
          (scope, exit) => Scope.close(scope, exit)
        )
        yield* ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(resource(probe, "a", 1))
            yield* stack.moveTo(scope)
            yield* turn
          })
        )
        yield* turn
      })
  }),
  alone({
    name: "ExitStack.make, closed by hand",
    body: (_, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(resource(probe, "a", 1))
        yield* stack.enter(resource(probe, "b", 1))
        yield* Effect.flatten(stack.close(Exit.void))
      })
  }),
  beside({
    name: "ExitStack.close, two at once",
    body: (_, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(resource(probe, "a", 1))
        yield* stack.enter(resource(probe, "b", 1))
        const other = yield* Effect.forkScoped(stack.close(Exit.void))
        yield* turn
        yield* stack.close(Exit.void)
        yield* Fiber.join(other)
      })
  }),
  beside<Guarded>({
    name: "ExitStack.enter beside its close",
    mayDie: isReported,
    setup: Effect.sync(() => ({
      open: false,
      usedAfterRelease: 0,
      wasSlow: false,
      wasTold: false
    })),
    body: (state, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(guarded(state))
        yield* telling(stack, state)
        const uses = Effect.sync(() => {
          if (!state.open) state.usedAfterRelease++
        })
        const entering = yield* Effect.forkScoped(
          Effect.exit(stack.enter(Managed.make({
            name: "b",
            acquire: () =>
              Effect.zipLeft(timed(state, probe.acquire("b", { acquireTakes: 2 })), uses),
            release: (handle) => Effect.zipRight(uses, probe.release(handle)),
            ...patient
          })))
        )
        const other = yield* Effect.forkScoped(
          Effect.exit(stack.enter(timed(state, scoped(probe, "c", 1)), patient))
        )
        yield* turn
        yield* stack.close(Exit.void)
        yield* Fiber.join(entering)
        yield* Fiber.join(other)
      }),
    // What came first is let go last, and not before it is known what came of the others, or that they take too long.
    invariant: ({ usedAfterRelease, wasSlow, wasTold }) =>
      (usedAfterRelease === 0 || wasTold) && (wasSlow || !wasTold)
  }),
  beside<{ open: boolean; endedAt: number; waited: number }>({
    name: "ExitStack.use, children that hang",
    mayDie: isReported,
    setup: Effect.sync(() => ({ open: false, endedAt: 0, waited: 0 })),
    body: (state, probe) =>
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "a"))
          yield* stack.callback(
            Effect.map(Clock.currentTimeMillis, (now) => {
              state.waited = now - state.endedAt
            }),
            patient
          )
          const never = hung((restore) => restore(Effect.never))
          yield* Effect.fork(stack.enter(never))
          yield* Effect.fork(Effect.timeout(
            stack.enterAll([guarded(state), never], { concurrency: 2 }),
            "1 minute"
          ))
          yield* Effect.sleep(2)
        }).pipe(Effect.ensuring(Effect.map(Clock.currentTimeMillis, (now) => {
          state.endedAt = now
        })))
      ),
    // They are interrupted, so nobody has to wait.
    invariant: ({ open, waited }) => !open && waited === 0
  }),
  beside({
    name: "ExitStack.use, hung for ever",
    mayDie: isReported,
    staysOpen: true,
    body: (_, probe) =>
      Effect.exit(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "a"))
          yield* Effect.forkDaemon(stack.enter(hung(() => Effect.never)))
          yield* turn
        })
      ))
  }),
  beside({
    name: "ExitStack.use, an acquire that outlasts it",
    mayDie: isReported,
    body: (_, probe) =>
      Effect.exit(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(probe, "a", 1))
          const late = (name: string) =>
            Managed.make({
              name,
              acquire: probe.acquire(name, { acquireTakes: "10 seconds" }),
              release: (handle) => probe.release(handle, { releaseTakes: 1 }),
              ...patient
            })
          yield* Effect.timeoutOption(Effect.disconnect(stack.enter(late("b"))), 1)
          yield* Effect.forkDaemon(stack.enterAll([late("c"), resource(probe, "d")]))
          yield* turn
        })
      ))
  }),
  alone({
    name: "ExitStack.enter after its close",
    mayDie: isReported,
    body: (_, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.close(Exit.void)
        yield* Effect.exit(stack.enter(resource(probe, "a")))
      })
  }),
  beside({
    name: "ExitStack.popAll beside an enter",
    body: (_, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(resource(probe, "a"))
        const entering = yield* Effect.forkScoped(Effect.exit(stack.enter(resource(probe, "b", 1))))
        yield* turn
        const kept = yield* stack.popAll
        yield* kept.close(Exit.void)
        yield* Fiber.join(entering)
      })
  }),
  beside<Told>({
    name: "ExitStack.close, by what is acquired",
    mayDie: isReported,
    setup: Effect.sync(() => ({ wasSlow: false, wasTold: false })),
    body: (state, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        const slowly = (name: string, before: Effect.Effect<unknown>) =>
          Managed.make({
            name,
            acquire: () =>
              Effect.zipRight(before, timed(state, probe.acquire(name, { acquireTakes: 1 }))),
            release: (handle) => timed(state, probe.release(handle, { releaseTakes: 1 })),
            ...patient
          })
        yield* stack.enter(slowly("a", Effect.void))
        yield* telling(stack, state)
        const closing = slowly("b", Effect.suspend(() => stack.close(Exit.void)))
        const other = yield* Effect.forkScoped(Effect.exit(stack.enter(closing)))
        yield* Effect.exit(stack.enterAll([slowly("c", Effect.void), closing], { concurrency: 2 }))
        yield* Fiber.join(other)
      }),
    // None waits for himself, nor for one that does.
    invariant: ({ wasSlow, wasTold }) => wasSlow || !wasTold
  }),
  beside({
    name: "ExitStack.close, by its own release",
    body: (_, probe) =>
      Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(resource(probe, "a", 1))
        const closes = Effect.zipRight(turn, stack.close(Exit.void))
        yield* stack.callback(closes, patient)
        yield* stack.enter(Managed.make({
          name: "b",
          acquire: probe.acquire("b"),
          release: (handle) => Effect.zipRight(closes, probe.release(handle)),
          ...patient
        }))
        const other = yield* Effect.forkScoped(stack.close(Exit.void))
        yield* turn
        yield* stack.close(Exit.void)
        yield* Fiber.join(other)
      })
  })
]
