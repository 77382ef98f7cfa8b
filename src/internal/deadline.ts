/**
 * deadline: runs work to its end, or gives up on it after a while, whatever the caller's own state.
 *
 * DESIGN. The work starts at once in a root fiber of its own and runs, inside the caller's step, up to its first wait. Most work
 * has ended by then. For work that waits, a timer fiber starts beside it and the caller observes both. `Effect.timeout` cannot
 * do this: inside a release it waits for the uninterruptible work that it should bound, and in a fiber that is already
 * interrupted it fires at once. Only this file interrupts the work, at the deadline; the caller's interruption never reaches
 * it. The end of a program sets a budget (Shutdown.ts) that bounds all that waits here. Each piece of work gets four fifths of
 * the time left, so that some is left for the next one. Work nested in other work has no next one, and leaves 50 ms.
 *
 * INVARIANTS
 * - Deadline-1 The caller gets an answer by the deadline, even if the work ignores interruption. The time counts from the first
 *   wait of the work: nothing in JavaScript can stop work that never waits.
 * - Deadline-2 The work is never interrupted before its deadline (none: never) or its share of a budget that has begun, even if
 *   the caller is interrupted meanwhile.
 * - Deadline-3 However deep such work nests, the stack stays shallow.
 * - Deadline-4 From the instant in which a budget begins, work that waits takes at most four fifths of what is left of it, even
 *   if the work began before. Work that other work waits for takes as much of that one's share, or all but 50 ms if that is more.
 *
 * COST (2026-11) work that never waits 2 µs, one fork; work that waits one fork more. Time is the caller's `Clock`.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import type * as FiberRefs from "effect/FiberRefs"
import type * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as Interrupt from "./interrupt.ts"
import { type AnyFiber, contextIn } from "./runtime.ts"
import { isSleeper } from "./timers.ts"

const defaultReleaseDeadline = Duration.seconds(5)

/** How long a release with these settings may take. */
export const releaseDeadlineOf = (
  { releaseDeadline }: { readonly releaseDeadline?: Duration.DurationInput | undefined } = {}
): Duration.Duration =>
  releaseDeadline === undefined ? defaultReleaseDeadline : Duration.decode(releaseDeadline)

/** A piece of work. */
interface Work {
  readonly caller: AnyFiber
  id: FiberId.Runtime | undefined
  /** When it must have ended because of the budget, by the budget's clock; computed once. */
  latest: number | undefined
}

/** Work that waits, and its timers; undefined for a timer, and for work that was abandoned. */
const bounded = new WeakMap<object, Work | undefined>()

/** Whether a fiber was started here: work that only its deadline may interrupt, or a timer. */
export const isBounded = (fiber: object): boolean => bounded.has(fiber) || isSleeper(fiber)

/** The work whose first step is on the stack right now, the innermost last. */
const starts: Array<Work> = []
const deepest = 16

const workOf = (fiber: AnyFiber): Work | undefined =>
  bounded.get(fiber) ?? starts.findLast(({ id }) => id === fiber.id())

/** As `isBounded`, but true from the first step of the work on, before it waits. */
export const isWork = (fiber: AnyFiber): boolean =>
  bounded.has(fiber) || workOf(fiber) !== undefined

/** The fiber that waits for this one, if this one is work started here that is not abandoned. */
export const callerOf = (fiber: AnyFiber): AnyFiber | undefined => workOf(fiber)?.caller

/** The time that all work with this budget in its context may take together. */
export class Budget {
  limit: Limit | undefined
  readonly waiting = new Set<(limit: Limit) => void>()
  /** How many batches (Batch.ts) were drained in this context. */
  drained = 0

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
  return work.latest = by - Math.min(0.2 * Math.max(0, by - limit.now()), reserveMillis)
}

/** The time that work keeps for itself when nested work runs out of time. */
const reserveMillis = 50

/** When work that begins now must have ended. */
export const shareOf = ({ by, now }: Limit): number => now() + 0.8 * (by - now())

/** An interruptible root fiber with these FiberRefs, that has run up to its first wait. */
const start = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  begun: Work,
  flags: RuntimeFlags.RuntimeFlags,
  refs: FiberRefs.FiberRefs
): Fiber.RuntimeFiber<A, E> => {
  const runtime = Runtime.make({
    // `R` is what the caller's own type, or that of the refs' owner, asks for, so the context has it.
    context: contextIn(refs) as Runtime.Runtime<R>["context"],
    runtimeFlags: RuntimeFlags.enable(flags, RuntimeFlags.Interruption),
    fiberRefs: refs
  })
  starts.push(begun)
  try {
    return Runtime.runFork(runtime, effect, {
      immediate: starts.length <= deepest,
      // Called before the fiber's first step.
      updateRefs: (refs, id) => {
        begun.id = id
        return refs
      }
    })
  } finally {
    starts.pop()
  }
}

/** Waits for the end of work, or for its deadline. */
const observe = <A, E>(
  fiber: Fiber.RuntimeFiber<A, E>,
  work: Work,
  deadline: Duration.Duration,
  clock: Clock.Clock,
  flags: RuntimeFlags.RuntimeFlags
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>> =>
  Effect.async((resume) => {
    const { caller } = work
    const refs = caller.getFiberRefs()
    const budget = Context.get(caller.currentContext, BudgetInForce)
    const began = millisOf(clock)
    // The first observer to run decides.
    let decided = false
    const timers: Array<AnyFiber> = []
    const decide = (outcome: Either.Either<Exit.Exit<A, E>, Duration.Duration>): void => {
      decided = true
      budget.waiting.delete(look)
      for (const timer of timers) timer.unsafeInterruptAsFork(fiber.id())
      resume(Effect.succeed(outcome))
    }
    /** A timer may fire a fraction of a millisecond early: then `atLeast` has passed. */
    const expireIn = (wait: Duration.Duration, atLeast: Duration.Duration): void => {
      const timer = start(
        clock.sleep(wait),
        { caller, id: undefined, latest: undefined },
        flags,
        refs
      )
      bounded.set(timer, undefined)
      timers.push(timer)
      timer.addObserver((exit) => {
        if (decided) return
        bounded.set(fiber, undefined)
        Interrupt.atWait(fiber, timer.id())
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

/** Milliseconds that only go forward, whatever is done to the wall clock. */
export const millisOf = (clock: Clock.Clock): number =>
  Number(clock.unsafeCurrentTimeNanos() / 1_000_000n)

/**
 * The exit of `effect`; or, if it has not ended by `deadline`, how long it was waited for: less than `deadline` if a budget ended
 * it. It is then interrupted and left behind. It runs with `refs`, default the caller's, which have its context.
 */
export const outcomeWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration,
  refs?: FiberRefs.FiberRefs
): Effect.Effect<Either.Either<Exit.Exit<A, E>, Duration.Duration>, never, R> =>
  // MASK: an interrupt must not part the caller from the work; only `observe` waits, until the deadline at most.
  Effect.uninterruptible(
    Effect.withFiberRuntime((caller, { runtimeFlags }) => {
      const work: Work = { caller, id: undefined, latest: undefined }
      const fiber = start(effect, work, runtimeFlags, refs ?? caller.getFiberRefs())
      const ended = fiber.unsafePoll()
      if (ended !== null) return Effect.succeed(Either.right(ended))
      bounded.set(fiber, work)
      // Without a bound, too, it is only observed: in the caller's fiber an interruption of the caller would reach it.
      return Effect.clockWith((clock) => observe(fiber, work, deadline, clock, runtimeFlags))
    })
  )

/** The exit of `effect`, or none if it has not ended by `deadline`. */
export const exitWithin = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  deadline: Duration.Duration
): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R> =>
  Effect.map(outcomeWithin(effect, deadline), Either.getRight)
