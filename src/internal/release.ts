/**
 * release: runs a release once, bounded, recorded, out of reach of its owner's interruption.
 *
 * DESIGN. One function, `runThen`. The owner says what is released (`Release`), calls it inside its mask in the step in which its
 * user ended, and continues with the exit of the release: what to do about a failure is the owner's decision. A release of one
 * operation that cannot wait runs where it stands; any other runs by internal/deadline.ts. The ledger is a parameter: internal/
 * imports no core module.
 *
 * INVARIANTS
 * - Release-1 (L4) A run ends by the deadline, and by a second more if there is an `onOverrun`. A release that has not ended by
 *   then is interrupted and abandoned, and the exit is the defect `ReleaseTimeout`.
 * - Release-2 (L9) The ledger sees "releasing" before the first step of the release, then exactly one of "released" and
 *   "abandoned".
 * - Release-3 (L5) No release ends with an interrupt that is not its owner's: its own becomes a defect that names it.
 *
 * COST (2026-11) 0.2 µs for a release of one operation, 2 µs and a fork for one of several, a second fork if it waits.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type * as FiberRefs from "effect/FiberRefs"
import { outcomeWithin } from "./deadline.ts"
import { asDefects, effectOf, interruptsAsDefects, releaseOf } from "./exit.ts"
import * as Lent from "./lent.ts"
import { isInstant } from "./runtime.ts"

/** An entry of a ledger; opaque here. */
interface Entry {
  readonly id: number
}

/** The part of `Ledger.Recorder` that a release needs. Methods, so that the ledger's own type of entries is accepted. */
export interface Recorder {
  unsafeReleasing(entry: Entry): void
  unsafeReleased(entry: Entry, failure?: Cause.Cause<unknown>): void
  unsafeAbandoned(entry: Entry, cause?: Cause.Cause<unknown>): void
}

/** The entry of what is released, in the ledger that has it. */
export interface Recorded {
  readonly ledger: Recorder
  readonly entry: Entry
}

/** One release: its subject and its bounds. */
export interface Release {
  readonly kind: string
  readonly name: string
  /** Counted from the first wait of the release; infinite for no bound but that of a shutdown. */
  readonly deadline: Duration.Duration
  /** Runs if the release overran. Bounded by `deadline`, at most a second. */
  readonly onOverrun?: (() => Effect.Effect<unknown, unknown>) | undefined
  /** The line that acquired it. */
  readonly site?: { readonly text: string | undefined } | undefined
  readonly recorded?: Recorded | undefined
  /** The FiberRefs it runs with, its context included. Default: those of the fiber that releases. */
  readonly refs?: FiberRefs.FiberRefs | undefined
  /** Since when it is in use, if a tracker is there: the release then waits for its dying users (tracker.ts). */
  readonly lent?: Lent.Lent | undefined
}

/**
 * A release did not end by its deadline and was abandoned. It is a defect in the cause of the owner's exit.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReleaseTimeout extends Data.TaggedError("ReleaseTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly resource: string
  readonly kind: string
  readonly deadline: Duration.Duration
  /** How long the owner waited: less than `deadline` where a shutdown had less time left. */
  readonly elapsed?: Duration.Duration | undefined
  /** The line that acquired it, if it is known (Ledger.ts), else the line that described it. */
  readonly site?: string | undefined
  /** The step that overran. Default `"release"`. */
  readonly step?: "release" | "onOverrun" | undefined
}> {
  override get message(): string {
    const where = this.site === undefined ? "" : ` (acquired at ${this.site.split("\n", 1)[0]})`
    const waited = Duration.min(this.elapsed ?? this.deadline, this.deadline)
    const what = `${this.kind} "${this.resource}"${where} did not end within ${
      Duration.format(waited)
    }`
    if (this.step === "onOverrun") {
      return `The \`onOverrun\` of ${what} either: look for what it waits for.`
    }
    return Duration.lessThan(waited, this.deadline)
      ? `The release of ${what}, its share of what the shutdown had left, and was abandoned. `
        + "Raise the shutdown's `releaseTimeout`, or look for what it waits for."
      : `The release of ${what} and was abandoned. `
        + "Raise `releaseDeadline`, or look for what it waits for."
  }
}

const longestOverrun = Duration.seconds(1)

const late = (
  { kind, name, site }: Release,
  step: "release" | "onOverrun",
  deadline: Duration.Duration,
  elapsed: Duration.Duration
): Cause.Cause<never> =>
  Cause.die(
    new ReleaseTimeout({ resource: name, kind, deadline, elapsed, site: site?.text, step })
  )

const ended = <A, E>(
  { kind, name, recorded }: Release,
  released: Exit.Exit<A, E>,
  owners: Exit.Exit<unknown, unknown>
): Exit.Exit<A, E> => {
  if (Exit.isSuccess(released)) {
    recorded?.ledger.unsafeReleased(recorded.entry)
    return released
  }
  recorded?.ledger.unsafeReleased(recorded.entry, released.cause)
  return Exit.failCause(interruptsAsDefects(released.cause, owners, releaseOf(kind, name)))
}

/** INVARIANT Release-1: the release is abandoned; what `onOverrun` fails with comes after that in the cause. */
const overran = (
  release: Release,
  elapsed: Duration.Duration
): Effect.Effect<Exit.Exit<never>> => {
  const { deadline, onOverrun, recorded, refs } = release
  const abandon = (cause: Cause.Cause<never>): Exit.Exit<never> => {
    recorded?.ledger.unsafeAbandoned(recorded.entry, cause)
    return Exit.failCause(cause)
  }
  const cause = late(release, "release", deadline, elapsed)
  if (onOverrun === undefined) return Effect.succeed(abandon(cause))
  const within = Duration.min(deadline, longestOverrun)
  return Effect.map(outcomeWithin(Effect.suspend(onOverrun), within, refs), (outcome) => {
    if (Either.isLeft(outcome)) {
      return abandon(Cause.sequential(cause, late(release, "onOverrun", within, outcome.left)))
    }
    return abandon(
      Exit.isSuccess(outcome.right)
        ? cause
        : Cause.sequential(cause, asDefects(outcome.right.cause))
    )
  })
}

const runNow = <A, E, R, B, E2, R2>(
  release: Release,
  work: () => Effect.Effect<A, E, R>,
  exit: Exit.Exit<unknown, unknown>,
  then: (released: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R | R2> => {
  const { recorded } = release
  recorded?.ledger.unsafeReleasing(recorded.entry)
  const effect = effectOf(work, release.kind, release.name)
  // Narrowed to an exit of anything.
  if (Exit.isExit(effect)) return then(ended(release, effect as Exit.Exit<A, E>, exit))
  if (isInstant(effect)) {
    return Effect.matchCauseEffect(effect, {
      onFailure: (cause) => then(ended(release, Exit.failCause(cause), exit)),
      onSuccess: (value) => then(ended(release, Exit.succeed(value), exit))
    })
  }
  return Effect.flatMap(
    outcomeWithin(effect, release.deadline, release.refs),
    (outcome) =>
      Either.isLeft(outcome)
        ? Effect.flatMap(overran(release, outcome.left), then)
        : then(ended(release, outcome.right, exit))
  )
}

/**
 * Runs `work` as this release, for an owner that ended with `exit`, and continues with the exit of it, in the same step if it
 * can. A `work` that throws, or that returns no effect, is a release that failed. Must run inside an uninterruptible region.
 */
export const runThen = <A, E, R, B, E2, R2>(
  release: Release,
  work: () => Effect.Effect<A, E, R>,
  exit: Exit.Exit<unknown, unknown>,
  then: (released: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R | R2> =>
  release.lent === undefined
    ? runNow(release, work, exit, then)
    : Lent.settleThen(release.lent, release, Exit.void, (settled) =>
      runNow(release, work, exit, (released) =>
        Exit.isSuccess(settled)
          ? then(released)
          : then(Exit.failCause(
            Exit.isSuccess(released)
              ? settled.cause
              : Cause.sequential(settled.cause, released.cause)
          ))))

/** As `runThen`, with the exit of the release as its result. */
export const run = <A, E, R>(
  release: Release,
  work: () => Effect.Effect<A, E, R>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<Exit.Exit<A, E>, never, R> =>
  runThen(release, work, exit, (released) => Effect.succeed(released))
