/**
 * deadline: run something to its end or give up on it after a while, whatever the caller's own state.
 *
 * DESIGN. The work is started at once in a fiber of its own and runs there, inside the caller's step, up to its first wait.
 * Most work has ended by then and nothing else is needed; for what has not, a timer is started beside it and the caller
 * only observes the two. Plain `Effect.timeout` cannot do this: inside a release it waits for the uninterruptible work it
 * should bound, and in a fiber that is already interrupted it fires at once. The work runs interruptibly, because the only
 * one who may interrupt it is this file, at the deadline: the caller's interruption never reaches it, so a deadline never
 * skips a good release.
 *
 * INVARIANTS
 * - Deadline-1 The caller gets an answer no later than the deadline, even if the work ignores interruption. The time counts
 *   from the work's first wait: what never waits cannot be stopped in JavaScript, by anybody.
 * - Deadline-2 The work is never cut before its deadline (none: never), even if the caller is interrupted meanwhile.
 * - Deadline-3 However deep such work nests, the stack stays shallow.
 *
 * COST (2026-11) work that never waits 2 µs, one fork; work that waits one fork more. Time is the `Clock`'s, so `TestClock`
 * drives it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import type * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"

const defaultReleaseDeadline = Duration.seconds(5)

/** How long a release may take for which this has been asked. */
export const releaseDeadlineOf = (
  { releaseDeadline }: { readonly releaseDeadline?: Duration.DurationInput | undefined } = {}
): Duration.Duration =>
  releaseDeadline === undefined ? defaultReleaseDeadline : Duration.decode(releaseDeadline)

type Fibers = Fiber.RuntimeFiber<unknown, unknown>

/**
 * Whether this is a single operation that ends in its own step: it may run where its caller stands, for it cannot wait.
 * `_op` is what the run loop itself looks at; an effect without one of these is merely taken for one that may wait.
 */
export const isInstant = (effect: object): boolean => {
  const op = "_op" in effect ? effect._op : undefined
  return op === "Success" || op === "Sync" || op === "Failure"
}

// Guarded by the single thread: who waits for work of ours, written in the step that begins to; nobody, once it is abandoned.
const bounded = new WeakMap<object, Fibers | undefined>()

/** Whether a fiber is work that only its deadline may cut: who interrupts what is left behind (Shutdown.ts) asks. */
export const isBounded = (fiber: object): boolean => bounded.has(fiber)

/** One start that is on the stack right now. */
interface Start {
  readonly caller: Fibers
  work: FiberId.Runtime | undefined
}

// Guarded by the single thread: the innermost is the last.
const starts: Array<Start> = []
const deepest = 16

/** The fiber that can do nothing until this one, which is work of ours, has ended or is abandoned; none of any other fiber. */
export const callerOf = (fiber: Fibers): Fibers | undefined =>
  bounded.get(fiber) ?? starts.findLast(({ work }) => work === fiber.id())?.caller

/** A root fiber with the FiberRefs of `caller`, interruptible, that has run up to its first wait. */
const start = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  caller: Fibers,
  flags: RuntimeFlags.RuntimeFlags
): Fiber.RuntimeFiber<A, E> => {
  const runtime = Runtime.make({
    // `R` is what the caller's own type asks for, so its context has it.
    context: caller.currentContext as Runtime.Runtime<R>["context"],
    runtimeFlags: RuntimeFlags.enable(flags, RuntimeFlags.Interruption),
    fiberRefs: caller.getFiberRefs()
  })
  const begun: Start = { caller, work: undefined }
  starts.push(begun)
  try {
    return Runtime.runFork(runtime, effect, {
      immediate: starts.length <= deepest,
      // The only place that knows which fiber it will be before that runs.
      updateRefs: (refs, id) => {
        begun.work = id
        return refs
      }
    })
  } finally {
    starts.pop()
  }
}

const observe = <A, E>(
  work: Fiber.RuntimeFiber<A, E>,
  timer: Fiber.RuntimeFiber<Duration.Duration> | undefined
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>> =>
  Effect.async((resume) => {
    // Guarded by the single thread: whichever observer runs first decides, the other finds `decided`.
    let decided = false
    work.addObserver((exit) => {
      if (decided) return
      decided = true
      timer?.unsafeInterruptAsFork(work.id())
      resume(Effect.succeed(Either.right(exit)))
    })
    timer?.addObserver((exit) => {
      if (decided) return
      decided = true
      bounded.set(work, undefined)
      work.unsafeInterruptAsFork(timer.id())
      resume(Effect.succeed(Either.left(exit._tag === "Success" ? exit.value : Duration.zero)))
    })
  })

/**
 * The exit of `effect`; or, if it has not ended by `deadline`, how long it has been waited for (it is then interrupted and
 * left behind).
 */
export const outcomeWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>, never, R> =>
  // MASK: an interrupt must not part the caller from the work it has to wait for; nothing waits but `observe`, and that
  // ends by the deadline.
  Effect.uninterruptible(
    Effect.withFiberRuntime((caller, { runtimeFlags }) => {
      const work = start(effect, caller, runtimeFlags)
      const ended = work.unsafePoll()
      if (ended !== null) return Effect.succeed(Either.right(ended))
      bounded.set(work, caller)
      // Without a bound, too, it runs by itself: in the caller's fiber an interruption of that would reach it.
      const timer = Duration.isFinite(deadline)
        ? start(timerOf(deadline), caller, runtimeFlags)
        : undefined
      if (timer !== undefined) bounded.set(timer, undefined)
      return observe(work, timer)
    })
  )

const timerOf = (deadline: Duration.Duration): Effect.Effect<Duration.Duration> =>
  Effect.clockWith((clock) => {
    const began = clock.unsafeCurrentTimeMillis()
    return Effect.map(
      clock.sleep(deadline),
      () => Duration.millis(clock.unsafeCurrentTimeMillis() - began)
    )
  })

/**
 * The exit of `effect`, or none if it has not ended by `deadline`.
 */
export const exitWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R> =>
  Effect.map(outcomeWithin(effect, deadline), Either.getRight)
