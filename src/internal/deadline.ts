/**
 * deadline: run something to its end or give up on it after a while, whatever the caller's own state.
 *
 * DESIGN. The work is started at once in a fiber of its own and runs there, inside the caller's step, up to its first wait.
 * Most work has ended by then and nothing else is needed; for what has not, a timer is started beside it and the caller
 * only observes the two. Plain `Effect.timeout` cannot do this: inside a release it waits for the uninterruptible work it
 * should bound, and in a fiber that is already interrupted it fires at once. The work runs interruptibly, because the only
 * one who may interrupt it is this file, at the deadline: the caller's interruption never reaches it, so a deadline never
 * skips a good release. When a program ends, a budget (Shutdown.ts) bounds all that waits here besides: each piece of work gets
 * four fifths of what is then left, so that something is left for every later one; inside of it there is nothing later, and what
 * nests there leaves only the time to note how it ended.
 *
 * INVARIANTS
 * - Deadline-1 The caller gets an answer no later than the deadline, even if the work ignores interruption. The time counts
 *   from the work's first wait: what never waits cannot be stopped in JavaScript, by anybody.
 * - Deadline-2 The work is never cut before its deadline (none: never) or its share of a budget that has begun, even if the
 *   caller is interrupted meanwhile.
 * - Deadline-3 However deep such work nests, the stack stays shallow.
 * - Deadline-4 From the instant in which a budget begins, work that waits takes at most four fifths of what is left of it, also
 *   if it has begun before; work that its own fiber waits for, the same of its share, or all but 50 ms if that is more.
 *
 * COST (2026-11) work that never waits 2 µs, one fork; work that waits one fork more. Time is the `Clock`'s, so `TestClock`
 * drives it.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import type * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import { isSleeper } from "./timers.ts"

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

/** A piece of work. Guarded by the single thread. */
interface Work {
  readonly caller: Fibers
  id: FiberId.Runtime | undefined
  /** When it must have ended for the sake of the budget, by the clock of that; once it has been worked out. */
  latest: number | undefined
}

// Guarded by the single thread: written in the step that begins to wait for work of ours; nothing of what is abandoned, or a timer.
const bounded = new WeakMap<object, Work | undefined>()

/** Whether a fiber is ours: work that only its deadline may cut, or was cut by that, or a timer. Shutdown.ts asks. */
export const isBounded = (fiber: object): boolean => bounded.has(fiber) || isSleeper(fiber)

// Guarded by the single thread: those that are on the stack right now, the innermost last.
const starts: Array<Work> = []
const deepest = 16

const workOf = (fiber: Fibers): Work | undefined =>
  bounded.get(fiber) ?? starts.findLast(({ id }) => id === fiber.id())

/** Whether a fiber is ours or will be: also while its first step is on the stack, before it waits. */
export const isWork = (fiber: Fibers): boolean => bounded.has(fiber) || workOf(fiber) !== undefined

/** The fiber that can do nothing until this one, which is work of ours, has ended or is abandoned; none of any other fiber. */
export const callerOf = (fiber: Fibers): Fibers | undefined => workOf(fiber)?.caller

/** What all work in whose context it stands may take together. Guarded by the single thread. */
export class Budget {
  limit: Limit | undefined
  readonly waiting = new Set<(limit: Limit) => void>()

  begin(limit: Limit): void {
    this.limit = limit
    for (const look of this.waiting) look(limit)
  }

  end(): void {
    this.limit = undefined
  }
}

/** In milliseconds of one clock. */
export interface Limit {
  readonly by: number
  readonly now: () => number
}

/** Default: that of the process. */
export class BudgetInForce extends Context.Reference<BudgetInForce>()("holdfast/internal/Budget", {
  defaultValue: () => new Budget()
}) {}

/** INVARIANT Deadline-4. */
const latestOf = (work: Work, limit: Limit): number => {
  if (work.latest !== undefined) return work.latest
  const outer = workOf(work.caller)
  if (outer === undefined) return work.latest = shareOf(limit)
  const by = latestOf(outer, limit)
  return work.latest = by - Math.min(0.2 * Math.max(0, by - limit.now()), toNote)
}

/** Milliseconds that work has left when what it waits for inside of it is ended: to note that. */
const toNote = 50

/** By when what begins now must have ended. */
export const shareOf = ({ by, now }: Limit): number => now() + 0.8 * (by - now())

/** A root fiber with the FiberRefs of its caller, interruptible, that has run up to its first wait. */
const start = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  begun: Work,
  flags: RuntimeFlags.RuntimeFlags
): Fiber.RuntimeFiber<A, E> => {
  const { caller } = begun
  const runtime = Runtime.make({
    // `R` is what the caller's own type asks for, so its context has it.
    context: caller.currentContext as Runtime.Runtime<R>["context"],
    runtimeFlags: RuntimeFlags.enable(flags, RuntimeFlags.Interruption),
    fiberRefs: caller.getFiberRefs()
  })
  starts.push(begun)
  try {
    return Runtime.runFork(runtime, effect, {
      immediate: starts.length <= deepest,
      // The only place that knows which fiber it will be before that runs.
      updateRefs: (refs, id) => {
        begun.id = id
        return refs
      }
    })
  } finally {
    starts.pop()
  }
}

/** Waits for work that waits. */
const observe = <A, E>(
  fiber: Fiber.RuntimeFiber<A, E>,
  work: Work,
  deadline: Duration.Duration,
  clock: Clock.Clock,
  flags: RuntimeFlags.RuntimeFlags
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>> =>
  Effect.async((resume) => {
    const { caller } = work
    const budget = Context.get(caller.currentContext, BudgetInForce)
    const began = millisOf(clock)
    // Guarded by the single thread: whichever observer runs first decides, the others find `decided`.
    let decided = false
    const timers: Array<Fibers> = []
    const decide = (outcome: Either.Either<Exit.Exit<A, E>, Duration.Duration>): void => {
      decided = true
      budget.waiting.delete(look)
      for (const timer of timers) timer.unsafeInterruptAsFork(fiber.id())
      resume(Effect.succeed(outcome))
    }
    /** At the least: a timer may come early by a part of a millisecond. */
    const expireIn = (wait: Duration.Duration, atLeast: Duration.Duration): void => {
      const timer = start(clock.sleep(wait), { caller, id: undefined, latest: undefined }, flags)
      bounded.set(timer, undefined)
      timers.push(timer)
      timer.addObserver((exit) => {
        if (decided) return
        bounded.set(fiber, undefined)
        fiber.unsafeInterruptAsFork(timer.id())
        const elapsed = Duration.millis(millisOf(clock) - began)
        decide(Either.left(exit._tag === "Success" ? Duration.max(elapsed, atLeast) : elapsed))
      })
    }
    const look = (limit: Limit): void => {
      const share = latestOf(work, limit) - limit.now()
      if (share < Duration.toMillis(deadline)) expireIn(Duration.millis(share), Duration.zero)
    }
    fiber.addObserver((exit) => {
      if (!decided) decide(Either.right(exit))
    })
    if (decided) return
    if (Duration.isFinite(deadline)) expireIn(deadline, deadline)
    budget.waiting.add(look)
    if (budget.limit !== undefined) look(budget.limit)
  })

/** Whatever becomes of the wall clock meanwhile, it only goes forward. */
export const millisOf = (clock: Clock.Clock): number =>
  Number(clock.unsafeCurrentTimeNanos() / 1_000_000n)

/**
 * The exit of `effect`; or, if it has not ended by `deadline`, how long it has been waited for (it is then interrupted and
 * left behind): less than `deadline` if the budget has ended it.
 */
export const outcomeWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>, never, R> =>
  // MASK: an interrupt must not part the caller from the work it has to wait for; nothing waits but `observe`, and that
  // ends by the deadline.
  Effect.uninterruptible(
    Effect.withFiberRuntime((caller, { runtimeFlags }) => {
      const work: Work = { caller, id: undefined, latest: undefined }
      const fiber = start(effect, work, runtimeFlags)
      const ended = fiber.unsafePoll()
      if (ended !== null) return Effect.succeed(Either.right(ended))
      bounded.set(fiber, work)
      // Without a bound, too, it runs by itself: in the caller's fiber an interruption of that would reach it.
      return Effect.clockWith((clock) => observe(fiber, work, deadline, clock, runtimeFlags))
    })
  )

/**
 * The exit of `effect`, or none if it has not ended by `deadline`.
 */
export const exitWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R> =>
  Effect.map(outcomeWithin(effect, deadline), Either.getRight)
