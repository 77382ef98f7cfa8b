/**
 * Shutdown: how a program ends when it is asked to: phase by phase, each bounded, and what became of everything it held.
 *
 * DESIGN. One request, seen by all at once; then `run`, which watches the program from outside, leads it through the phases:
 * running → draining (not ready any more, still serving) → stopping (what is under way finishes) → releasing (the main fiber
 * is interrupted, then the fibers it left behind) → exited. What nobody uses takes no time: without hooks, drainers and
 * delay a request goes straight to releasing. Nothing of the process is known here; signals and exit codes are Main.ts.
 *
 * INVARIANTS
 * - Shutdown-1 The first request wins; later ones change nothing and say so.
 * - Shutdown-2 The count of drainers is exact at every instant, whatever way a draining region ends; what drains or is in
 *   flight finishes before the program is interrupted, within `stopTimeout`.
 * - Shutdown-3 Phases only go forward. Readiness is gone in the very step of the request, before anything else is done.
 * - Shutdown-4 (L4) Each phase ends by its bound and all by `total`, whatever the program, a hook or a release does; draining
 *   and stopping leave the releases `releaseTimeout`, or half of `total` if that is less, and draining leaves stopping
 *   `stopTimeout`, or a third of the rest. While releasing, each release that is bounded at all (Managed.ts) has four fifths of
 *   what is left, whatever its own deadline: the ones after it still run.
 * - Shutdown-5 A hook whose scope is open at the request runs once, and its scope stays open until it has ended or its phase
 *   has; one whose scope has closed before never runs.
 * - Shutdown-6 (L3) What overran stopping and is the program's is interrupted and waited for, for half of `releaseTimeout` at
 *   most, before the main fiber lets go of what it uses. When that has ended, in whatever way, the fibers it left behind are
 *   interrupted and waited for, so that what they hold is let go; a release under way is waited for, never cut.
 * - Shutdown-7 (L5) The report names what failed, was abandoned or is still held, from the very step of the request on, each
 *   phase that overran and by what line's work, and each fiber that is left; a release only by its resource.
 * - Shutdown-8 What asks a run for its end asks those inside of it, in the same step and for the same reason, but for one that
 *   runs in a release, or masked: nobody cuts that. All are waited for like what is in flight, their ends take no longer than
 *   that may, and what they report shows in the report of the outer one.
 *
 * COST (2026-11) one fiber beside the program and a look at `Fiber.roots` at the end: 0.2 ms for a run of nothing; 10,000
 * resources are let go of, and reported, in 0.1 s.
 * NOT DONE a synchronous loop cannot be bounded by anybody in its own process.
 * SOURCES lightship and terminus (unready, delay, stop), OTP (a deadline each), uber-go/fx (who takes how long), suture's
 * report of what did not stop, trio#147 (a reason and a grace).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as RuntimeFlags from "effect/RuntimeFlags"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Subscribable from "effect/Subscribable"
import * as Deadline from "./internal/deadline.ts"
import { prettyOf } from "./internal/exit.ts"
import * as Ledger from "./Ledger.ts"

/**
 * Why the end was asked for.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason =
  | { readonly kind: "signal"; readonly signal: string }
  | { readonly kind: "error"; readonly error: unknown }
  | { readonly kind: "request"; readonly by: string }

/**
 * How far the end has come.
 *
 * @category models
 * @since 0.1.0
 */
export type Phase = "running" | "draining" | "stopping" | "releasing" | "exited"

/**
 * How long each phase may take. All of it is taken out of `total`: what does not fit is cut (see `shortfall`). Releasing keeps
 * `releaseTimeout`, or half of `total` if that is less; of what is left stopping keeps `stopTimeout`, or a third if that is less.
 *
 * @category models
 * @since 0.1.0
 */
export interface Budgets {
  /**
   * How long to go on serving after readiness is gone, until those who send work have seen it. Default 0. It is taken out of
   * `total` like all else: with the defaults it is at most 10 seconds, and more than 5 leaves stopping less than its own 10.
   */
  readonly drainDelay?: Duration.DurationInput | undefined
  /** How long the `onDrain` hooks may take, from the request on. Default 5 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /** How long the `onStop` hooks and what is marked by `drains` or `inFlight` may take after that. Default 10 seconds. */
  readonly stopTimeout?: Duration.DurationInput | undefined
  /**
   * How long the program may take to let go, once interrupted. Default 10 seconds. Each release may take four fifths of what is
   * left of it, less if its own deadline is shorter: then it is abandoned by name, and its owner goes on.
   */
  readonly releaseTimeout?: Duration.DurationInput | undefined
  /** How long all of it may take. Default 25 seconds: Kubernetes kills after 30. */
  readonly total?: Duration.DurationInput | undefined
}

/**
 * What `run` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Budgets {
  /**
   * Which of the fibers that are left behind count as the program's: its own (all that was forked in it), or every one in the
   * process. Default `"own"`.
   */
  readonly fibers?: "own" | "all" | undefined
  /** Called, synchronously, as each phase ends. It must not throw. */
  readonly onPhaseEnd?: ((phase: PhaseReport) => void) | undefined
}

/**
 * One phase. Times are in milliseconds of the `Clock`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PhaseReport {
  readonly phase: Phase
  readonly startedAt: number
  /** How long it took, or has taken so far. */
  readonly duration: number
  /** Something in it did not end by its bound. */
  readonly overran: boolean
  /** What draining or stopping went on without, having waited for it. */
  readonly unfinished: ReadonlyArray<Unfinished>
}

/**
 * Work that has not ended, all of one line: marked by `inFlight` or `drains`, or hooks; or the program itself, which was to end
 * because something in it had drained.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unfinished {
  readonly what: "inFlight" | "drains" | "onDrain" | "onStop" | "program"
  readonly count: number
  /** The line that marked or registered it. */
  readonly site: string | undefined
  /** Milliseconds that the longest of them has taken so far. */
  readonly longest: number
}

/**
 * What became of one resource: all that were live at the end of the report, and those that ended since the request (of those
 * that were let go in peace, as many as the ledger's history keeps).
 *
 * @category models
 * @since 0.1.0
 */
export interface ResourceReport {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: Ledger.State
  /** The line that asked for it. */
  readonly site: string | undefined
  /** Milliseconds from its acquire to its release. */
  readonly heldFor: number | undefined
  /** Milliseconds of its release, so far if it is still being released. */
  readonly releaseTook: number | undefined
  /** Why it failed or was abandoned. */
  readonly cause: string | undefined
}

/**
 * What became of one hook.
 *
 * @category models
 * @since 0.1.0
 */
export interface HookReport {
  readonly phase: "draining" | "stopping"
  /** The line that registered it. */
  readonly site: string | undefined
  readonly state: "running" | "done" | "failed" | "abandoned"
  /** Milliseconds. */
  readonly took: number
  readonly cause: string | undefined
}

/**
 * What became of one fiber that the program left behind.
 *
 * @category models
 * @since 0.1.0
 */
export interface FiberReport {
  /** Such as `"#12"`. */
  readonly fiber: string
  readonly state: "running" | "failed"
  readonly cause: string | undefined
}

/**
 * What the end has come to so far. Plain data, but for the error of a reason.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly reason: Reason | undefined
  /** Milliseconds since the request, or since the program ended by itself. */
  readonly took: number
  readonly phases: ReadonlyArray<PhaseReport>
  /** Counted since then, by the ledger in force; all 0 without one. */
  readonly released: number
  readonly failed: number
  readonly abandoned: number
  readonly held: number
  /**
   * Releases since then, or since its start if it ended by itself, that went wrong and were only reported
   * (`onReleaseFailure`): counted without a ledger, too.
   */
  readonly reported: number
  /** The slowest release first. */
  readonly resources: ReadonlyArray<ResourceReport>
  readonly hooks: ReadonlyArray<HookReport>
  /** What is marked by `inFlight` or `drains` and has not ended yet. */
  readonly unfinished: ReadonlyArray<Unfinished>
  /** Of the fibers left behind, those that did not end, or not without a failure of their own. */
  readonly fibers: ReadonlyArray<FiberReport>
  /** Whether anything did not end by its bound: a phase, a hook, a release, a fiber. */
  readonly overran: boolean
  /** What the process is to end with: known to `Main.run` only, and at the end only. */
  readonly exitCode: number | undefined
}

/**
 * How a program ended, and what that took.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended<out A, out E = never> {
  /** The program's own exit; a `ShutdownTimeout` defect if it did not end. */
  readonly exit: Exit.Exit<A, E>
  readonly report: Report
}

/**
 * The program did not end in the time its releases have, and was left behind.
 *
 * @category errors
 * @since 0.1.0
 */
export class ShutdownTimeout extends Data.TaggedError("ShutdownTimeout")<{
  /** How long it was waited for. */
  readonly waited: Duration.Duration
  /** What it was still releasing, was acquiring or held, in this order. */
  readonly held: ReadonlyArray<Ledger.Entry>
}> {
  override get message(): string {
    const shown = this.held.slice(0, 10).map((entry) => Ledger.describe(entry)).join("; ")
    const more = this.held.length > 10 ? ` and ${this.held.length - 10} more` : ""
    return `The program did not end within ${
      Duration.format(this.waited)
    } of being interrupted and was left behind`
      + (shown === ""
        ? ". Look for an uninterruptible wait, or raise `releaseTimeout`."
        : `, with ${shown}${more}. Bound what hangs (a release by \`releaseDeadline\`, an acquire by \`restore\`), or raise \`releaseTimeout\`.`)
  }
}

/**
 * The state of the end.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** Waits for the request. */
  readonly requested: Effect.Effect<Reason>
  /** The request, if there has been one; never waits. */
  readonly reason: Effect.Effect<Option.Option<Reason>>
  /** Asks for the end; true if this was the first request. */
  readonly request: (reason: Reason) => Effect.Effect<boolean>
  /** Marks a region that ends by itself soon after `requested`, and the program with it; `site` names it if it does not. */
  readonly drains: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ) => Effect.Effect<A, E, R>
  /** Marks work that is to finish before the program is interrupted; `site` names it if it does not. */
  readonly inFlight: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ) => Effect.Effect<A, E, R>
  /** The phase; its `changes` begin with the current one and end after `exited`, for who is not interrupted before. */
  readonly phase: Subscribable.Subscribable<Phase>
  /** Whether new work is welcome: false from the request on. */
  readonly isReady: Effect.Effect<boolean>
  /** Runs in draining, if the scope is still open; `site` names it in the report. */
  readonly onDrain: <A, E, R>(
    hook: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ) => Effect.Effect<void, never, R | Scope.Scope>
  /** Runs in stopping, if the scope is still open; `site` names it in the report. */
  readonly onStop: <A, E, R>(
    hook: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ) => Effect.Effect<void, never, R | Scope.Scope>
  readonly report: Effect.Effect<Report>
  /** Runs the program of this shutdown; there is only one. */
  readonly run: <A, E, R>(
    program: Effect.Effect<A, E, R>,
    options?: Options
  ) => Effect.Effect<Ended<A, E>, never, R>
  readonly unsafeRequest: (reason: Reason) => boolean
  /** As `reason`, in the same step: a release reads it. */
  readonly unsafeReason: () => Option.Option<Reason>
  readonly unsafePhase: () => Phase
  readonly unsafeDrainers: () => number
  readonly unsafeReport: () => Report
  /** Counts a release that failed or was abandoned and of which its owner does not hear. */
  readonly unsafeReported: () => void
}

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** A phase as it is kept. Guarded by the single thread; written only by the course. */
interface Stretch {
  readonly phase: Phase
  readonly startedAt: number
  endedAt: number | undefined
  overran: boolean
  unfinished: ReadonlyArray<Unfinished>
}

/** What is marked, as it is kept. */
interface Region {
  readonly what: Unfinished["what"]
  readonly site: Ledger.Site | undefined
  readonly fiber?: AnyFiber | undefined
  readonly startedAt: number
}

/** Those of one line together, the line with most of them first. */
const grouped = (regions: Iterable<Region>, now: number): ReadonlyArray<Unfinished> => {
  const groups = new Map<string, Unfinished>()
  for (const { site, startedAt, what } of regions) {
    const key = `${what} ${site?.text}`
    const { count, longest } = groups.get(key) ?? { count: 0, longest: 0 }
    groups.set(key, {
      what,
      count: count + 1,
      site: site?.text,
      longest: Math.max(longest, now - startedAt)
    })
  }
  return Array.from(groups.values()).toSorted((one, other) => other.count - one.count)
}

/** A hook as it is kept. Guarded by the single thread; written only by the course. */
interface Hook {
  readonly phase: HookReport["phase"]
  readonly run: Effect.Effect<unknown, unknown>
  readonly site: Ledger.Site | undefined
  state: "waiting" | HookReport["state"]
  fiber: AnyFiber | undefined
  startedAt: number
  endedAt: number | undefined
  cause: Cause.Cause<unknown> | undefined
}

/** The budgets in milliseconds. */
type Millis = Readonly<Record<keyof Budgets, number>>

const millisOf = (
  option: keyof Budgets,
  given: Duration.DurationInput | undefined,
  otherwise: number
): number => {
  const wrong = (): RangeError =>
    new RangeError(
      `Shutdown: ${option} is not a duration: ${String(given)}. Give milliseconds or "5 seconds".`
    )
  if (given === undefined) return otherwise
  if (typeof given === "number" && !(given >= 0)) throw wrong()
  try {
    return Duration.toMillis(given)
  } catch {
    throw wrong()
  }
}

const millisIn = (budgets: Budgets): Millis => ({
  drainDelay: millisOf("drainDelay", budgets.drainDelay, 0),
  drainTimeout: millisOf("drainTimeout", budgets.drainTimeout, 5000),
  stopTimeout: millisOf("stopTimeout", budgets.stopTimeout, 10_000),
  releaseTimeout: millisOf("releaseTimeout", budgets.releaseTimeout, 10_000),
  total: millisOf("total", budgets.total, 25_000)
})

/** INVARIANT Shutdown-4: how long after the request draining and stopping must have ended. */
const latest = ({ releaseTimeout, stopTimeout, total }: Millis) => {
  const work = total === Infinity ? Infinity : total - Math.min(releaseTimeout, total / 2)
  const serving = work === Infinity ? Infinity : work - Math.min(stopTimeout, work / 3)
  return { serving, work }
}

/**
 * What of a `drainDelay` and of what comes after it does not fit in `total`, in words; `undefined` if all of it fits, or
 * there is no delay. `Main.run` prints it at its start.
 *
 * **Errors** — throws a `RangeError` that names the option, for what is not a duration.
 *
 * **Example** (a delay that is too long)
 * ```ts run
 * import { Shutdown } from "holdfast"
 *
 * Shutdown.shortfall({ drainDelay: "5 seconds" }) // => undefined
 * const line = Shutdown.shortfall({ drainDelay: "20 seconds" })
 * line?.includes("they get at most 10s, 5s and 10s; raise total") // => true
 * ```
 *
 * @category formatting
 * @since 0.1.0
 */
export const shortfall = (budgets: Budgets): string | undefined => {
  const asked = millisIn(budgets)
  const { drainDelay, releaseTimeout, stopTimeout, total } = asked
  if (drainDelay === 0 || drainDelay + stopTimeout + releaseTimeout <= total) return undefined
  const { serving, work } = latest(asked)
  const delay = Math.min(drainDelay, serving)
  const stop = Math.min(stopTimeout, work - delay)
  const [inTotal, ...all] = [
    total,
    drainDelay,
    stopTimeout,
    releaseTimeout,
    delay,
    stop,
    Math.min(releaseTimeout, total - delay - stop)
  ].map((millis) => Duration.format(Duration.millis(Math.round(millis))))
  return `shutdown: drainDelay ${all[0]}, stopTimeout ${all[1]} and releaseTimeout ${
    all[2]
  } do not fit in total ${inTotal}: `
    + `they get at most ${all[3]}, ${all[4]} and ${all[5]}; raise total.`
}

interface Abandoned {
  readonly count: number
  readonly since: number
}

/** What is to be told of one ledger. */
interface Seen {
  readonly ledger: Ledger.Service
  readonly before: Ledger.Totals
  readonly since: number
  /** From when on, and after how many, what was abandoned counts. */
  readonly abandoned: Abandoned
  readonly troubled: ReadonlyMap<number, Ledger.Entry>
}

/** What the ledger said when the end began, and what it has lost from its history since. */
class Watched implements Seen {
  readonly ledger: Ledger.Service
  readonly before: Ledger.Totals
  readonly since: number
  readonly abandoned: Abandoned
  // Guarded by the single thread.
  readonly troubled = new Map<number, Ledger.Entry>()
  readonly stop: () => void

  constructor(ledger: Ledger.Service, abandoned: Abandoned | undefined) {
    const { takenAt, total } = ledger.unsafeSnapshot()
    this.abandoned = abandoned ?? { count: total.abandoned, since: takenAt }
    this.ledger = ledger
    this.before = total
    this.since = takenAt
    this.stop = ledger.unsafeListen(({ entry }) => {
      if (entry.state === "abandoned" || entry.state === "failed") {
        this.troubled.set(entry.id, entry)
      }
    })
  }
}

/** Several runs have seen one ledger: what it has come to is told once, since the first of them. */
const seenOnce = (all: Iterable<Seen>): ReadonlyArray<Seen> => {
  const ledgers = new Map<Ledger.Service, Seen>()
  for (const one of all) {
    const other = ledgers.get(one.ledger)
    ledgers.set(one.ledger, other === undefined ? one : seenByBoth(other, one))
  }
  return Array.from(ledgers.values())
}

const seenByBoth = (one: Seen, other: Seen): Seen => ({
  ...(one.since <= other.since ? one : other),
  abandoned: one.abandoned.since <= other.abandoned.since ? one.abandoned : other.abandoned,
  // The first of them may have ended, and listens no more.
  troubled: new Map([...one.troubled, ...other.troubled])
})

const ledgerReportOf = (
  { abandoned, before, ledger, since, troubled }: Seen
): Pick<Report, "abandoned" | "failed" | "held" | "released" | "resources"> => {
  const { ended, live, takenAt, total } = ledger.unsafeSnapshot()
  const entries = new Map(troubled)
  for (const entry of ended) {
    const from = entry.state === "abandoned" ? abandoned.since : since
    if ((entry.endedAt ?? 0) >= from) entries.set(entry.id, entry)
  }
  for (const entry of live) entries.set(entry.id, entry)
  const failed = total.failed - before.failed
  return {
    released: total.released - before.released - failed,
    failed,
    abandoned: total.abandoned - abandoned.count,
    held: live.filter(({ state }) => state !== "acquiring").length,
    resources: Array.from(entries.values())
      // Who waited in vain held nothing.
      .filter(({ endedAt, heldAt }) => heldAt !== undefined || endedAt === undefined)
      .map((entry) => resourceOf(entry, takenAt))
  }
}

const resourceOf = (entry: Ledger.Entry, now: number): ResourceReport => {
  const { cause, endedAt, heldAt, id, kind, name, releasingAt, site, state } = entry
  const end = endedAt ?? now
  return {
    id,
    kind,
    name,
    state,
    site,
    heldFor: heldAt === undefined ? undefined : (releasingAt ?? end) - heldAt,
    releaseTook: releasingAt === undefined ? undefined : end - releasingAt,
    cause
  }
}

const slowestFirst = (one: ResourceReport, other: ResourceReport): number =>
  (other.releaseTook ?? 0) - (one.releaseTook ?? 0)

/** What hangs comes first. */
const urgency: ReadonlyArray<Ledger.State> = ["releasing", "acquiring", "held"]

/** Whether nobody waits for a fiber: a release that was abandoned, or what has timed one. */
const isLeft = (fiber: AnyFiber): boolean =>
  Deadline.isBounded(fiber) && Deadline.callerOf(fiber) === undefined

/** The fibers that the program has left behind, each told once to end. */
class LeftBehind {
  readonly #isOurs: (fiber: AnyFiber) => boolean
  readonly #by: FiberId.FiberId
  readonly #onEnd: () => void
  // Guarded by the single thread.
  readonly #told = new WeakSet<AnyFiber>()
  readonly pending = new Set<AnyFiber>()
  readonly #failed = new Map<AnyFiber, Cause.Cause<unknown>>()

  constructor(isOurs: (fiber: AnyFiber) => boolean, by: FiberId.FiberId, onEnd: () => void) {
    this.#isOurs = isOurs
    this.#by = by
    this.#onEnd = onEnd
  }

  /**
   * Interrupts those that are new; whether there were any. `everyone`: also those that may work for a release under way, as
   * whatever is younger than one may.
   */
  tell(everyone: boolean): boolean {
    const ours = Fiber.unsafeRoots().filter((fiber) => this.#isOurs(fiber) && !isLeft(fiber))
    const releases = ours.filter((fiber) => Deadline.isBounded(fiber)).map((fiber) => fiber.id().id)
    const oldest = everyone
      ? Infinity
      : releases.reduce((one, other) => Math.min(one, other), Infinity)
    const fresh = ours.filter((fiber) =>
      !this.#told.has(fiber) && (Deadline.isBounded(fiber) || fiber.id().id < oldest)
    )
    for (const fiber of fresh) {
      this.#told.add(fiber)
      this.pending.add(fiber)
      fiber.addObserver((exit) => {
        this.pending.delete(fiber)
        // What a bounded release comes to is told by whoever it is for.
        if (Exit.isSuccess(exit) || Deadline.isBounded(fiber)) return this.#onEnd()
        if (!Cause.isInterruptedOnly(exit.cause)) this.#failed.set(fiber, exit.cause)
        this.#onEnd()
      })
      // INVARIANT Shutdown-6: the release of somebody who is ending anyway has a deadline of its own.
      if (!Deadline.isBounded(fiber)) fiber.unsafeInterruptAsFork(this.#by)
    }
    return fresh.length > 0
  }

  /** Whether nothing of it is waited for any more. */
  isOver(): boolean {
    for (const fiber of this.pending) if (!isLeft(fiber)) return false
    return true
  }

  report(): ReadonlyArray<FiberReport> {
    const idOf = (fiber: AnyFiber): string => `#${fiber.id().id}`
    // A release is told of by the name of its resource.
    const running = Array.from(this.pending).filter((fiber) => !Deadline.isBounded(fiber))
    return [
      ...running.map((fiber): FiberReport => ({
        fiber: idOf(fiber),
        state: "running",
        cause: undefined
      })),
      ...Array.from(this.#failed, ([fiber, cause]): FiberReport => ({
        fiber: idOf(fiber),
        state: "failed",
        cause: prettyOf(cause)
      }))
    ]
  }
}

/** The timers of every course, which no program has left behind. */
const timers = new WeakSet<AnyFiber>()

/** What a run, with those inside of it, has to tell to the one around it. */
interface Told {
  readonly seen: ReadonlyArray<Seen>
  readonly reported: number
  readonly hooks: ReadonlyArray<HookReport>
  readonly fibers: ReadonlyArray<FiberReport>
  /** Whether a phase did. */
  readonly overran: boolean
}

const toldNothing: Told = { seen: [], reported: 0, hooks: [], fibers: [], overran: false }

const toldByBoth = (one: Told, other: Told): Told => {
  const fibers = new Set(one.fibers.map(({ fiber }) => fiber))
  return {
    seen: seenOnce([...one.seen, ...other.seen]),
    reported: one.reported + other.reported,
    hooks: [...one.hooks, ...other.hooks],
    // The sweep of a whole process finds those of a run inside as well.
    fibers: [...one.fibers, ...other.fibers.filter(({ fiber }) => !fibers.has(fiber))],
    overran: one.overran || other.overran
  }
}

/** All that is known of one end. Guarded by the single thread: every writer is synchronous. */
class Course implements Service {
  readonly budget: Deadline.Budget
  clock: Clock.Clock = Clock.make()
  why: Reason | undefined
  isRunning = false
  readonly drainers = new Set<Region>()
  readonly flying = new Set<Region>()
  /** Something drained at the request or after: the program is on its way out by itself. */
  endsByItself = false
  /** When it was asked for, or the program ended by itself. */
  begunAt: number | undefined
  budgets: Millis = millisIn({})
  ledger: Ledger.Service | undefined
  /** The run that this one is inside of; those inside of this one that go on; and what those told that have ended since the end began. */
  outer: Course | undefined
  readonly inside = new Set<Course>()
  toldInside = toldNothing
  /** What those inside went on without, until it is told. */
  lost: ReadonlyArray<Unfinished> = []
  /** It runs in a release, or masked: what asks the outer one for its end does not ask this one. */
  isShielded = false
  watched: Watched | undefined
  /** Since its start, and those before the request. */
  reported = { soFar: 0, before: 0 }
  /** How it was at the start. */
  abandoned: Abandoned | undefined
  left: LeftBehind | undefined
  stretches: Array<Stretch> = []
  readonly hooks = new Set<Hook>()
  readonly started: Array<Hook> = []
  readonly listeners = new Set<(phase: Phase) => void>()
  readonly watchers = new Set<() => void>()
  readonly asked = Deferred.unsafeMake<Reason>(FiberId.none)

  constructor(budget: Deadline.Budget) {
    this.budget = budget
  }

  // What is read.

  readonly requested = Deferred.await(this.asked)
  readonly reason = Effect.sync(() => this.unsafeReason())
  readonly isReady = Effect.sync(() => this.unsafePhase() === "running")
  readonly report = Effect.sync(() => this.unsafeReport())
  readonly phase = Subscribable.make({
    get: Effect.sync(() => this.unsafePhase()),
    changes: Stream.asyncPush<Phase>((emit) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const listener = (phase: Phase): void => {
            emit.single(phase)
            if (phase === "exited") emit.end()
          }
          listener(this.unsafePhase())
          this.listeners.add(listener)
          return listener
        }),
        (listener) => Effect.sync(() => this.listeners.delete(listener))
      ), { bufferSize: "unbounded" })
  })

  unsafeReason = (): Option.Option<Reason> => Option.fromNullable(this.why)
  unsafePhase = (): Phase => this.stretches.at(-1)?.phase ?? "running"
  unsafeDrainers = (): number => this.drainers.size

  unsafeReport = (): Report => {
    const now = this.now()
    const { fibers, hooks, overran, reported, seen } = this.told(now)
    const ledgers = seen.map(ledgerReportOf)
    const sum = (count: "abandoned" | "failed" | "held" | "released"): number =>
      ledgers.reduce((total, ledger) => total + ledger[count], 0)
    return {
      reason: this.why,
      took: this.begunAt === undefined ? 0 : (this.stretches.at(-1)?.endedAt ?? now) - this.begunAt,
      phases: this.stretches.map((stretch) => phaseOf(stretch, now)),
      released: sum("released"),
      failed: sum("failed"),
      abandoned: sum("abandoned"),
      held: sum("held"),
      reported,
      resources: ledgers.flatMap(({ resources }) => resources).toSorted(slowestFirst),
      hooks,
      unfinished: grouped([...this.flying, ...this.drainers], now),
      fibers,
      overran: overran || sum("abandoned") > 0,
      exitCode: undefined
    }
  }

  /** INVARIANT Shutdown-8. */
  told(now: number): Told {
    const own: Told = {
      seen: this.watched === undefined ? [] : [this.watched],
      reported: this.reported.soFar - this.reported.before,
      hooks: this.started.map((hook) => hookOf(hook, now)),
      fibers: this.left?.report() ?? [],
      overran: this.stretches.some(({ overran }) => overran)
    }
    return Array.from(this.inside, (inner) => inner.told(inner.now()))
      .reduce(toldByBoth, toldByBoth(own, this.toldInside))
  }

  // What is written.

  unsafeReported = (): void => {
    this.reported.soFar++
  }

  request = (reason: Reason): Effect.Effect<boolean> =>
    Effect.sync(() => this.unsafeRequest(reason))

  unsafeRequest = (reason: Reason): boolean => {
    if (this.why !== undefined) return false
    this.why = reason
    // INVARIANT Shutdown-7: what ends in this very step is told as well.
    if (this.isRunning) this.began()
    this.endsByItself = this.drainers.size > 0
    // INVARIANT Shutdown-3: whoever is woken below finds it not ready.
    if (this.unsafePhase() === "running") this.enter("draining")
    for (const inner of this.inside) if (!inner.isShielded) inner.unsafeRequest(reason)
    Deferred.unsafeDone(this.asked, Effect.succeed(reason))
    this.poke()
    return true
  }

  drains = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ): Effect.Effect<A, E, R> => {
    const began = (): void => {
      this.endsByItself ||= this.why !== undefined
    }
    return this.marked(this.drainers, "drains", effect, site, began)
  }

  inFlight = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ): Effect.Effect<A, E, R> => this.marked(this.flying, "inFlight", effect, site)

  /** INVARIANT Shutdown-2. */
  marked<A, E, R>(
    among: Set<Region>,
    what: Unfinished["what"],
    effect: Effect.Effect<A, E, R>,
    site: Ledger.Site | undefined,
    began?: () => void
  ): Effect.Effect<A, E, R> {
    return Effect.acquireUseRelease(
      Effect.withFiberRuntime<Region>((fiber) => {
        const region = { what, site, fiber, startedAt: this.now() }
        among.add(region)
        began?.()
        return Effect.succeed(region)
      }),
      () => effect,
      (region) =>
        Effect.sync(() => {
          among.delete(region)
          this.poke()
        })
    )
  }

  onDrain = <A, E, R>(
    hook: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ): Effect.Effect<void, never, R | Scope.Scope> => this.register("draining", hook, site)

  onStop = <A, E, R>(
    hook: Effect.Effect<A, E, R>,
    site?: Ledger.Site
  ): Effect.Effect<void, never, R | Scope.Scope> => this.register("stopping", hook, site)

  register<A, E, R>(
    phase: HookReport["phase"],
    effect: Effect.Effect<A, E, R>,
    site: Ledger.Site | undefined
  ): Effect.Effect<void, never, R | Scope.Scope> {
    return Effect.flatMap(Effect.context<R>(), (context) => {
      const hook: Hook = {
        phase,
        run: Effect.provide(effect, context),
        site,
        state: "waiting",
        fiber: undefined,
        startedAt: 0,
        endedAt: undefined,
        cause: undefined
      }
      return Effect.asVoid(Effect.acquireRelease(
        Effect.suspend(() => {
          this.hooks.add(hook)
          // What comes late still belongs to the phase it is for.
          return this.isRunning && this.unsafePhase() === phase ? this.start(hook) : Effect.void
        }),
        () => {
          if (!this.isDue(hook)) this.hooks.delete(hook)
          // INVARIANT Shutdown-5: at the latest the end of its phase lets the scope go on.
          return this.until(() => !this.isDue(hook), Infinity)
        }
      ))
    })
  }

  /** Whether a hook runs, or is to run by what has been asked for. */
  isDue({ phase, state }: Hook): boolean {
    if (state !== "waiting") return state === "running"
    const now = this.unsafePhase()
    return this.isRunning && (now === "draining" || now === "stopping" && phase === "stopping")
  }

  /** Starts a hook in a fiber of its own. */
  start(hook: Hook): Effect.Effect<void> {
    return Effect.map(Effect.forkDaemon(Effect.interruptible(hook.run)), (fiber) => {
      hook.state = "running"
      hook.fiber = fiber
      hook.startedAt = this.now()
      this.started.push(hook)
      fiber.addObserver((exit) => {
        if (hook.state !== "running") return
        this.endHook(hook, Exit.isSuccess(exit) ? "done" : "failed")
        if (Exit.isFailure(exit)) hook.cause = exit.cause
      })
    })
  }

  endHook(hook: Hook, state: "done" | "failed" | "abandoned"): void {
    hook.state = state
    hook.endedAt = this.now()
    this.poke()
  }

  // How it goes on.

  /** Whatever becomes of the wall clock meanwhile: this one of the `Clock` only goes forward. */
  now(): number {
    return Deadline.millisOf(this.clock)
  }

  /** Lets those who wait for something look again. */
  poke(): void {
    for (const look of this.watchers) look()
  }

  enter(phase: Phase): void {
    const now = this.now()
    const last = this.stretches.at(-1)
    if (last !== undefined) last.endedAt = now
    this.stretches.push({
      phase,
      startedAt: now,
      endedAt: phase === "exited" ? now : undefined,
      overran: false,
      unfinished: []
    })
    for (const listener of this.listeners) listener(phase)
    this.poke()
  }

  /** Waits for something, at most until `at`; whether it came. */
  until(isThere: () => boolean, at: number): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      if (isThere()) return Effect.succeed(true)
      const left = at - this.now()
      if (left <= 0) return Effect.succeed(false)
      if (left === Infinity) return this.watch(isThere, undefined)
      return Effect.flatMap(
        Effect.forkDaemon(Effect.interruptible(Effect.sleep(left))),
        (timer) => this.watch(isThere, timer)
      )
    })
  }

  watch(
    isThere: () => boolean,
    timer: Fiber.RuntimeFiber<void> | undefined
  ): Effect.Effect<boolean> {
    return Effect.async((resume) => {
      const forget = (): void => {
        this.watchers.delete(look)
        timer?.unsafeInterruptAsFork(FiberId.none)
      }
      const look = (): void => {
        if (!isThere()) return
        forget()
        resume(Effect.succeed(true))
      }
      if (timer !== undefined) timers.add(timer)
      this.watchers.add(look)
      timer?.addObserver(() => {
        if (this.watchers.delete(look)) resume(Effect.succeed(false))
      })
      look()
      return Effect.sync(forget)
    })
  }

  run = <A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options = {},
    site: Ledger.Site | undefined = Ledger.unsafeSite()
  ): Effect.Effect<Ended<A, E>, never, R> =>
    Effect.flatMap(Shutdown, (outer) =>
      outer instanceof Course && outer !== this && !this.isRunning
        ? outer.around(this, this.lead(program, options), site)
        : this.lead(program, options))

  /** INVARIANT Shutdown-8: another run goes on inside of this one. */
  around<A, R>(
    inner: Course,
    run: Effect.Effect<A, never, R>,
    site: Ledger.Site | undefined
  ): Effect.Effect<A, never, R> {
    const entered = Effect.sync(() => {
      inner.outer = this
      this.inside.add(inner)
      if (this.why !== undefined && !inner.isShielded) inner.unsafeRequest(this.why)
    })
    const left = Effect.sync(() => {
      this.inside.delete(inner)
      // What ended before is told to whoever ran it, and to nobody else.
      if (this.begunAt === undefined) return
      this.toldInside = toldByBoth(this.toldInside, inner.told(inner.now()))
    })
    return Effect.withFiberRuntime((caller, { runtimeFlags }) => {
      inner.isShielded = !RuntimeFlags.interruptible(runtimeFlags) || Deadline.isWork(caller)
      return this.inFlight(Effect.acquireUseRelease(entered, () => run, () => left), site)
    })
  }

  lead<A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options
  ): Effect.Effect<Ended<A, E>, never, R> {
    // MASK: whoever interrupts the run asks for the end and gets it, phase by phase; only the wait for it is restored, and
    // every wait after that has a bound.
    return Effect.uninterruptibleMask((restore) => {
      // Now: at the end is too late to say that an option is wrong.
      this.budgets = millisIn(options)
      return Effect.flatMap(this.launch(program, options), (main) =>
        Effect.zipRight(
          Effect.onInterrupt(
            restore(this.until(() => this.why !== undefined || main.exit !== undefined, Infinity)),
            () => this.request({ kind: "request", by: "interruption" })
          ).pipe(Effect.exit),
          this.wind(main, options)
        ))
    })
  }

  /** Forks the program, with this shutdown in its context. */
  launch<A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options
  ): Effect.Effect<Watching<A, E>, never, R> {
    return Effect.flatMap(Effect.zip(Effect.clock, Ledger.Ledger), ([clock, ledger]) => {
      if (this.isRunning) {
        return Effect.dieMessage("Shutdown.run: this shutdown has a program already. Make another.")
      }
      this.isRunning = true
      this.clock = clock
      this.ledger = ledger
      if (ledger !== undefined && options.fibers === "all") {
        // A program that ends by itself has closed its scopes before anybody knows: what was abandoned counts from its start.
        // That is known only where the whole process is its own, and so the ledger.
        const { takenAt, total } = ledger.unsafeSnapshot()
        this.abandoned = { count: total.abandoned, since: takenAt }
      }
      const interruptible = Effect.interruptible(program).pipe(
        Effect.provideService(Shutdown, this),
        Effect.provideService(Deadline.BudgetInForce, this.budget)
      )
      return Effect.map(Effect.forkDaemon(interruptible), (fiber) => {
        const main: Watching<A, E> = { fiber, exit: undefined }
        // The stretch before the request, unless that has come already.
        if (this.stretches.length === 0) this.enter("running")
        fiber.addObserver((exit) => {
          main.exit = exit
          this.began()
          this.poke()
        })
        return main
      })
    })
  }

  /** From now on it is told what ends: since when. */
  began(): number {
    if (this.begunAt !== undefined) return this.begunAt
    // One that ends by itself has let go before anybody knows.
    if (this.why !== undefined) this.reported.before = this.reported.soFar
    if (this.ledger !== undefined) {
      this.watched = new Watched(this.ledger, this.why === undefined ? this.abandoned : undefined)
    }
    return this.begunAt = this.now()
  }

  bounds(): Bounds {
    const from = this.began()
    const total = Math.min(this.budgets.total, (this.outer?.innerEndsBy() ?? Infinity) - from)
    return boundsOf({ ...this.budgets, total: Math.max(0, total) }, from)
  }

  /** INVARIANT Shutdown-8: by when a run inside of this one must have ended. */
  innerEndsBy(): number {
    if (this.budget.limit !== undefined) return Deadline.shareOf(this.budget.limit)
    if (this.begunAt === undefined) return Infinity
    const { stopTimeout, workEndsBy } = this.bounds()
    return Math.min(workEndsBy, this.begunAt + stopTimeout)
  }

  /** From the request, or the program's own end, to the end of all. */
  wind<A, E>(
    main: Watching<A, E>,
    options: Options
  ): Effect.Effect<Ended<A, E>> {
    return Effect.suspend(() => {
      const bounds = this.bounds()
      const told = (phase: Phase, overran: boolean): void => {
        const stretch = this.stretches.find((one) => one.phase === phase)
        if (stretch === undefined) return
        const unfinished = overran ? this.unfinishedIn(phase, main) : []
        stretch.overran = overran
        stretch.unfinished = unfinished
        this.outer?.lose(unfinished)
        if (phase === "stopping" || phase === "releasing") this.tellLost(stretch)
        options.onPhaseEnd?.(phaseOf(stretch, this.now()))
      }
      told("running", false)
      const serving = this.why === undefined
        ? Effect.void
        : Effect.zipRight(
          this.inPhase("draining", this.draining(main, bounds), told),
          this.inPhase("stopping", this.stopping(main, bounds), told)
        )
      return Effect.zipRight(
        serving,
        this.inPhase("releasing", this.releasing(main, bounds, options), told)
      )
        .pipe(Effect.map(() => {
          this.enter("exited")
          this.budget.end()
          this.watched?.stop()
          return { exit: main.exit ?? this.timedOut(), report: this.unsafeReport() }
        }))
    })
  }

  /** What a run inside of this one went on without, this one went on without as well. */
  lose(unfinished: ReadonlyArray<Unfinished>): void {
    if (this.begunAt === undefined || unfinished.length === 0) return
    this.lost = [...this.lost, ...unfinished]
    this.outer?.lose(unfinished)
  }

  /** Whatever phase that was in: it is stopping that has waited for it, if there was that. */
  tellLost(now: Stretch): void {
    if (this.lost.length === 0) return
    const stretch = this.stretches.find(({ phase }) => phase === "stopping") ?? now
    stretch.overran = true
    stretch.unfinished = [...stretch.unfinished, ...this.lost]
    this.lost = []
  }

  inPhase(
    phase: Phase,
    work: Effect.Effect<boolean>,
    told: (phase: Phase, overran: boolean) => void
  ): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.unsafePhase() !== phase) this.enter(phase)
      return Effect.map(work, (inTime) => told(phase, !inTime))
    })
  }

  draining(main: Watching<unknown, unknown>, bounds: Bounds): Effect.Effect<boolean> {
    // Whoever has ended serves nobody.
    const served = this.until(() => main.exit !== undefined, bounds.servedUntil)
    return Effect.zipRight(this.startHooks("draining"), served).pipe(
      Effect.zipRight(this.until(() => this.hooksRunning() === 0, bounds.drainedBy)),
      Effect.tap(() => this.cutHooks())
    )
  }

  stopping(main: Watching<unknown, unknown>, bounds: Bounds): Effect.Effect<boolean> {
    return Effect.zipRight(
      this.startHooks("stopping"),
      Effect.suspend(() =>
        this.until(
          () =>
            this.flying.size === 0 && this.drainers.size === 0 && this.hooksRunning() === 0
            && (!this.endsByItself || main.exit !== undefined),
          Math.min(bounds.workEndsBy, this.now() + bounds.stopTimeout)
        )
      )
    ).pipe(Effect.tap(() => this.cutHooks()))
  }

  /**
   * INVARIANT Shutdown-6: what overran, then the main fiber, then those it left behind. What overran leaves the main fiber half
   * of the time, and that leaves the others a tenth.
   */
  releasing(
    main: Watching<unknown, unknown>,
    bounds: Bounds,
    options: Options
  ): Effect.Effect<boolean> {
    return Effect.withFiberRuntime<boolean>((self) => {
      const from = this.now()
      const by = Math.min(bounds.endsBy, from + bounds.releaseTimeout)
      const left = this.left = new LeftBehind(
        (fiber) =>
          fiber !== main.fiber && fiber !== self && !timers.has(fiber)
          && (options.fibers === "all" || belongsTo(fiber, this)),
        self.id(),
        () => this.poke()
      )
      // INVARIANT Shutdown-4: no release takes what the ones after it need.
      this.budget.begin({ by, now: () => this.now() })
      const interruptMain = Effect.sync(() => {
        if (main.exit === undefined) main.fiber.unsafeInterruptAsFork(self.id())
      })
      const ended = (): boolean => main.exit !== undefined && left.isOver()
      const sweep = (everyone: boolean, at: number): Effect.Effect<boolean> =>
        Effect.suspend(() =>
          // What ends may leave others behind.
          left.tell(everyone)
            ? Effect.flatMap(
              this.until(ended, at),
              (inTime) => inTime ? sweep(everyone, at) : Effect.succeed(false)
            )
            : this.until(ended, at)
        )
      const alone = by === Infinity ? Infinity : by - (by - from) / 10
      const isOurs = (fiber: AnyFiber): boolean =>
        options.fibers === "all" || belongsInside(fiber, this)
      const cutBy = by === Infinity ? Infinity : (from + by) / 2
      return this.cutWork(main, self.id(), cutBy, isOurs).pipe(
        Effect.zipRight(interruptMain),
        Effect.zipRight(this.until(() => main.exit !== undefined, alone)),
        Effect.zipRight(sweep(false, alone)),
        Effect.flatMap((inTime) => inTime ? Effect.succeed(true) : sweep(true, by))
      )
    })
  }

  /**
   * INVARIANT Shutdown-6: what the phases before have waited for in vain is interrupted, and waited for until `at`, before the
   * main fiber lets go of what it uses.
   */
  cutWork(
    main: Watching<unknown, unknown>,
    by: FiberId.FiberId,
    at: number,
    isOurs: (fiber: AnyFiber) => boolean
  ): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const hooks = this.started.map(({ fiber }) => fiber)
      // Somebody else's fiber has been waited for, which is all that its mark asks for.
      const work = [...this.flying, ...this.drainers].map(({ fiber }) => fiber)
        .filter((fiber) => fiber !== undefined && isOurs(fiber))
      const marked = [...work, ...hooks]
      const pending = new Set<AnyFiber>()
      for (const fiber of new Set(marked)) {
        // A release is never cut.
        if (fiber === undefined || fiber === main.fiber || Deadline.isBounded(fiber)) continue
        pending.add(fiber)
        fiber.addObserver(() => {
          pending.delete(fiber)
          this.poke()
        })
        fiber.unsafeInterruptAsFork(by)
      }
      return this.until(() => pending.size === 0, at)
    })
  }

  startHooks(phase: HookReport["phase"]): Effect.Effect<void> {
    return Effect.suspend(() =>
      Effect.forEach(
        Array.from(this.hooks).filter((hook) => hook.phase === phase && hook.state === "waiting"),
        (hook) => this.start(hook),
        { discard: true }
      )
    )
  }

  hooksRunning(): number {
    return this.started.filter(({ state }) => state === "running").length
  }

  /** What a phase that overran has waited for in vain; its hooks have been cut. */
  unfinishedIn(phase: Phase, main: Watching<unknown, unknown>): ReadonlyArray<Unfinished> {
    const hooks = this.started.filter((hook) => hook.phase === phase && hook.state === "abandoned")
      .map(({ site, startedAt }): Region => ({
        what: phase === "draining" ? "onDrain" : "onStop",
        site,
        startedAt
      }))
    if (phase !== "stopping") return grouped(hooks, this.now())
    const isProgram = this.drainers.size === 0 && this.endsByItself && main.exit === undefined
    const program: ReadonlyArray<Region> = isProgram
      ? [{ what: "program", site: undefined, startedAt: this.begunAt ?? this.now() }]
      : []
    return grouped([...this.flying, ...this.drainers, ...hooks, ...program], this.now())
  }

  cutHooks(): Effect.Effect<void> {
    return Effect.withFiberRuntime((self) => {
      for (const hook of this.started) {
        if (hook.state !== "running") continue
        hook.fiber?.unsafeInterruptAsFork(self.id())
        this.endHook(hook, "abandoned")
      }
      return Effect.void
    })
  }

  timedOut(): Exit.Exit<never> {
    const stretch = this.stretches.find(({ phase }) => phase === "releasing")
    return Exit.die(
      new ShutdownTimeout({
        waited: Duration.millis(this.now() - (stretch?.startedAt ?? this.now())),
        held: (this.ledger?.unsafeSnapshot().live ?? []).toSorted((one, other) =>
          urgency.indexOf(one.state) - urgency.indexOf(other.state)
        )
      })
    )
  }
}

/** The program's main fiber, and its exit once it has one. Guarded by the single thread. */
interface Watching<A, E> {
  readonly fiber: Fiber.RuntimeFiber<A, E>
  exit: Exit.Exit<A, E> | undefined
}

/** Instants and lengths, in milliseconds. */
interface Bounds {
  readonly servedUntil: number
  readonly drainedBy: number
  readonly workEndsBy: number
  readonly stopTimeout: number
  readonly releaseTimeout: number
  readonly endsBy: number
}

const boundsOf = (budgets: Millis, from: number): Bounds => {
  const { drainDelay, drainTimeout, releaseTimeout, stopTimeout, total } = budgets
  const { serving, work } = latest(budgets)
  return {
    servedUntil: from + Math.min(serving, drainDelay),
    drainedBy: from + Math.min(serving, Math.max(drainDelay, drainTimeout)),
    workEndsBy: from + work,
    stopTimeout,
    releaseTimeout,
    endsBy: from + total
  }
}

const phaseOf = (stretch: Stretch, now: number): PhaseReport => ({
  phase: stretch.phase,
  startedAt: stretch.startedAt,
  duration: (stretch.endedAt ?? now) - stretch.startedAt,
  overran: stretch.overran,
  unfinished: stretch.unfinished
})

const hookOf = (hook: Hook, now: number): HookReport => ({
  phase: hook.phase,
  site: hook.site?.text,
  state: hook.state === "waiting" ? "running" : hook.state,
  took: (hook.endedAt ?? now) - hook.startedAt,
  cause: hook.cause && prettyOf(hook.cause)
})

/** Everything that is forked in a program inherits its context. */
const belongsTo = (fiber: AnyFiber, shutdown: Service): boolean => courseOf(fiber) === shutdown

const courseOf = (fiber: AnyFiber): unknown => fiber.currentContext.unsafeMap.get(Shutdown.key)

/** Also to a run inside. */
const belongsInside = (fiber: AnyFiber, shutdown: Course): boolean => {
  let course = courseOf(fiber)
  while (course instanceof Course && course !== shutdown) course = course.outer
  return course === shutdown
}

/**
 * A shutdown that nobody has asked for yet, and that has no program yet. Whoever asks it for the end need not be in the
 * program; without one (`run`), a request only wakes those who wait for it and takes readiness away.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (): Service => make()

const make = (): Course => new Course(new Deadline.Budget())

/**
 * The shutdown in force. The default is one of the whole process, which only your own `request` ever asks for.
 *
 * **Example** (a batch that finishes what it has begun)
 * ```ts run
 * import { Effect } from "effect"
 * import { Batch, Shutdown } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const tick = { name: "tick", process: () => Effect.sleep("5 millis") }
 *   const forEver = (function*() { for (let n = 0;; n++) yield n })()
 *   const ticks = Batch.run(tick, forEver, { drain: { when: Shutdown.requested } })
 *   yield* Effect.fork(Effect.delay(Shutdown.request({ kind: "request", by: "the example" }), "20 millis"))
 *   return yield* Shutdown.drains(ticks) // without `drains` it is interrupted at once
 * })
 * const { exit } = await Effect.runPromise(Shutdown.run(program))
 * const status = exit._tag === "Success" ? exit.value.status : "cut"
 * status // => "drained"
 * ```
 *
 * @category tags
 * @since 0.1.0
 */
export class Shutdown extends Context.Reference<Shutdown>()("holdfast/Shutdown", {
  // The budget of what runs without a program's context, as a callback's fiber does.
  defaultValue: (): Service => new Course(Context.get(Context.empty(), Deadline.BudgetInForce))
}) {}

/**
 * Runs a program with a shutdown of its own, which anything in it may ask for the end; then leads it there, phase by phase.
 * This is what `Main.run` does for a process; use it for what comes and goes inside one.
 *
 * **Details** — Draining: not ready any more; the `onDrain` hooks run, for `drainTimeout`, and `drainDelay` passes. Stopping:
 *   the `onStop` hooks run and what is marked by `drains` or `inFlight` finishes, for `stopTimeout`. Releasing: what has not
 *   finished is interrupted, then the main fiber, then the fibers it left behind (`forkDaemon`: they may use what it holds, and it
 *   what they hold; mark those that must end first), each waited for, for `releaseTimeout`. A program that ends by itself goes
 *   straight there. To ask from outside: `unsafeMake`, and its `run` and `request`. Inside of another run (`Main.run`) it is
 *   asked for its end when that is, has that one's `stopTimeout` for all of it, and ends before that interrupts its program;
 *   but one that runs in a release, or masked (also in a fiber forked there), is only bounded once it ends. With a `stopTimeout`
 *   of 0 outside its releases have no time. One that is ending already keeps its own times.
 * **Interruption** — is a request; the run ends when the program has. **Errors** — none: the program's exit is the answer, a
 *   `ShutdownTimeout` defect if it did not end.
 * **Cost** — a fork, and a look at the ledger at the end.
 *
 * **Example** (a daemon that holds something lets go of it)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Shutdown } from "holdfast"
 *
 * let log = ""
 * const lamp = Managed.make({
 *   name: "lamp",
 *   acquire: Effect.sync(() => { log += "on " }),
 *   release: () => Effect.sync(() => { log += "off" })
 * })
 * const program = Effect.zipRight(
 *   Effect.forkDaemon(Managed.use(lamp, () => Effect.never)),
 *   Effect.sleep("10 millis") // ends, and leaves the daemon behind
 * )
 * await Effect.runPromise(Shutdown.run(program))
 * log // => "on off"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E, R>(
  program: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<Ended<A, E>, never, R> => {
  const site = Ledger.unsafeSite()
  return Effect.suspend(() => make().run(program, options, site))
}

/**
 * Waits until the end is asked for, and says why.
 *
 * **Interruption** — Waiting: at once. **Errors** — none. **Cost** — none to speak of.
 *
 * @category operations
 * @since 0.1.0
 */
export const requested: Effect.Effect<Reason> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.requested
)

/**
 * Why the end has been asked for, if it has; never waits.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none to speak of.
 *
 * @category getters
 * @since 0.1.0
 */
export const reason: Effect.Effect<Option.Option<Reason>> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.reason
)

/**
 * Asks for the end; true if this was the first request.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none to speak of.
 *
 * @category operations
 * @since 0.1.0
 */
export const request = (reason: Reason): Effect.Effect<boolean> =>
  Effect.flatMap(Shutdown, (shutdown) => shutdown.request(reason))

/**
 * Marks an effect that ends by itself soon after `requested`, and the program with it, such as a batch that drains: both then
 * get `stopTimeout` for that, before the program is interrupted.
 *
 * **Interruption** — the effect's own. **Errors** — the effect's own. **Cost** — an entry in a set; its line, 2 µs, where
 *   sites are on, and outside of a fiber always.
 *
 * @category operations
 * @since 0.1.0
 */
export const drains = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.drains(effect, site))
}

/**
 * Marks work that is to finish, within `stopTimeout`, before the program is interrupted, such as a request being served. When
 * none is left the program is interrupted at once.
 *
 * **Interruption** — the effect's own. **Errors** — the effect's own. **Cost** — an entry in a set; its line, 2 µs, where
 *   sites are on, and outside of a fiber always.
 *
 * **Example** (a request is answered, then the server goes)
 * ```ts run
 * import { Effect } from "effect"
 * import { Shutdown } from "holdfast"
 *
 * let answer = "none"
 * const answering = Effect.delay(Effect.sync(() => { answer = "42" }), "20 millis")
 * const server = Effect.gen(function*() {
 *   yield* Effect.fork(Shutdown.inFlight(answering))
 *   yield* Effect.sleep("5 millis")
 *   yield* Shutdown.request({ kind: "request", by: "the example" })
 *   return yield* Effect.never
 * })
 * await Effect.runPromise(Shutdown.run(server))
 * answer // => "42"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const inFlight = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.inFlight(effect, site))
}

/**
 * The phase now, and its changes: a stream that begins with the current phase and ends after `exited`.
 *
 * **Details** — A reader in the program is interrupted with it in `releasing`, and sees no more. `exited` is for readers that
 *   outlive it: outside of what `run` runs, and under `Main.run`, whose program is the whole process, nobody. What has to be
 *   done last there is the release of the outermost resource.
 * **Interruption** — Waiting for a change: at once. **Errors** — none. **Cost** — a listener for each reader.
 *
 * @category getters
 * @since 0.1.0
 */
export const phase: Subscribable.Subscribable<Phase> = Subscribable.make({
  get: Effect.flatMap(Shutdown, (shutdown) => shutdown.phase.get),
  changes: Stream.unwrap(Effect.map(Shutdown, (shutdown) => shutdown.phase.changes))
})

/**
 * Whether new work is welcome, for a readiness probe: false from the request on, before anything else is done about it.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none to speak of.
 *
 * @category getters
 * @since 0.1.0
 */
export const isReady: Effect.Effect<boolean> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.isReady
)

/**
 * Registers a hook for the length of the scope: it runs once, when the end has been asked for, while the program still serves.
 *
 * **Details** — Hooks run at the same time, each in a fiber of its own with the context it was registered in. One that is
 *   registered in that very phase runs at once, later ones never. A scope that closes after the
 *   request waits for its hooks.
 * **Interruption** — `drainTimeout` after the request the hook is interrupted and left behind.
 * **Errors** — stand in the report; they stop nothing. **Cost** — a finalizer.
 *
 * @category operations
 * @since 0.1.0
 */
export const onDrain = <A, E, R>(
  hook: Effect.Effect<A, E, R>
): Effect.Effect<void, never, R | Scope.Scope> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.onDrain(hook, site))
}

/**
 * Registers a hook for the length of the scope: it runs once, when nothing new is to be begun any more, before the program is
 * interrupted. The place to stop taking work.
 *
 * **Details** — as `onDrain`, which runs before.
 * **Interruption** — after `stopTimeout` the hook is interrupted and left behind.
 * **Errors** — stand in the report; they stop nothing. **Cost** — a finalizer.
 *
 * **Example** (the order of the end)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Shutdown } from "holdfast"
 *
 * const log: Array<string> = []
 * const say = (line: string) => Effect.sync(() => { log.push(line) })
 * const server = Managed.make({ name: "server", acquire: Effect.void, release: () => say("closed") })
 * const program = Effect.scoped(Effect.gen(function*() {
 *   yield* server
 *   yield* Shutdown.onDrain(say("told the load balancer"))
 *   yield* Shutdown.onStop(say("no new requests"))
 *   yield* Shutdown.request({ kind: "request", by: "the example" })
 *   return yield* Effect.never
 * }))
 * const { report } = await Effect.runPromise(Shutdown.run(program))
 * log // => ["told the load balancer", "no new requests", "closed"]
 * const phases = report.phases.map(({ phase }) => phase)
 * phases // => ["running", "draining", "stopping", "releasing", "exited"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const onStop = <A, E, R>(
  hook: Effect.Effect<A, E, R>
): Effect.Effect<void, never, R | Scope.Scope> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.onStop(hook, site))
}

/**
 * What the end has come to so far: the phases and their times, and what became of each resource, hook and fiber.
 *
 * **Interruption** — never waits. **Errors** — none; without a ledger it names no resources. **Cost** — a snapshot.
 *
 * @category getters
 * @since 0.1.0
 */
export const report: Effect.Effect<Report> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.report
)
