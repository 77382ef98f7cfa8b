/**
 * phases: how long each phase of a shutdown may take, and how far a run has come.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Record from "effect/Record"
import * as Stream from "effect/Stream"
import * as Subscribable from "effect/Subscribable"
import * as Options from "../internal/options.ts"
import type { Unfinished } from "./marks.ts"
import type { Waits } from "./waits.ts"

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
 * How long each phase may take. All of it comes out of `total`; what does not fit is shortened (see `shortfall`). Releasing gets
 * `releaseTimeout`, or half of `total` if that is less; of the rest, stopping gets `stopTimeout`, or a third if that is less.
 *
 * @category models
 * @since 0.1.0
 */
export interface Budgets {
  /**
   * How long to serve on after readiness is gone, until the senders of work have seen it. Default 0. With the other defaults it
   * is at most 10 seconds, and more than 5 leaves stopping less than its own 10.
   */
  readonly drainDelay?: Duration.DurationInput | undefined
  /** How long the `onDrain` hooks may take, from the request on. Default 5 seconds. */
  readonly drainTimeout?: Duration.DurationInput | undefined
  /** How long the `onStop` hooks, and work marked by `drains` or `inFlight`, may take after that. Default 10 seconds. */
  readonly stopTimeout?: Duration.DurationInput | undefined
  /**
   * How long the program may take to release, once interrupted. Default 10 seconds. Each release may take four fifths of what is
   * left of it, or its own deadline if that is shorter; then it is abandoned by name, and its owner continues.
   */
  readonly releaseTimeout?: Duration.DurationInput | undefined
  /** How long all of it may take. Default 25 seconds: Kubernetes kills after 30. */
  readonly total?: Duration.DurationInput | undefined
}

/** The budgets in milliseconds. */
export type Millis = Readonly<Record<keyof Budgets, number>>

const defaults: Millis = {
  drainDelay: 0,
  drainTimeout: 5000,
  stopTimeout: 10_000,
  releaseTimeout: 10_000,
  total: 25_000
}

export const rules = Record.map(defaults, () => Options.duration)

/** The options must have been checked. */
export const millisIn = (budgets: Budgets): Millis =>
  Record.map(defaults, (otherwise, name) => {
    const given = budgets[name]
    return given === undefined ? otherwise : Duration.toMillis(given)
  })

/** INVARIANT Shutdown-4: how long after the request draining and stopping must have ended. */
const latest = ({ releaseTimeout, stopTimeout, total }: Millis) => {
  const work = total === Infinity ? Infinity : total - Math.min(releaseTimeout, total / 2)
  const serving = work === Infinity ? Infinity : work - Math.min(stopTimeout, work / 3)
  return { serving, work }
}

/** Instants, in milliseconds. */
export interface Bounds {
  readonly servedUntil: number
  readonly drainedBy: number
  readonly workEndsBy: number
  readonly endsBy: number
}

export const boundsOf = (millis: Millis, from: number): Bounds => {
  const { drainDelay, drainTimeout, total } = millis
  const { serving, work } = latest(millis)
  return {
    servedUntil: from + Math.min(serving, drainDelay),
    drainedBy: from + Math.min(serving, Math.max(drainDelay, drainTimeout)),
    workEndsBy: from + work,
    endsBy: from + total
  }
}

/**
 * A line that says how a `drainDelay`, and the phases after it, are shortened to fit in `total`; `undefined` if all of it fits, or
 * there is no delay. `Main.run` prints the line at its start.
 *
 * **Errors** — throws a `RangeError` that names the option, for a value that is not a duration.
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
  Options.check("Shutdown.shortfall", budgets, rules)
  const asked = millisIn(budgets)
  const { drainDelay, releaseTimeout, stopTimeout, total } = asked
  if (drainDelay === 0 || drainDelay + stopTimeout + releaseTimeout <= total) return undefined
  const { serving, work } = latest(asked)
  const delay = Math.min(drainDelay, serving)
  const stop = Math.min(stopTimeout, work - delay)
  const release = Math.min(releaseTimeout, total - delay - stop)
  const format = (millis: number): string => Duration.format(Duration.millis(Math.round(millis)))
  return `shutdown: drainDelay ${format(drainDelay)}, stopTimeout ${format(stopTimeout)} and `
    + `releaseTimeout ${format(releaseTimeout)} do not fit in total ${format(total)}: `
    + `they get at most ${format(delay)}, ${format(stop)} and ${format(release)}; raise total.`
}

/** One phase that has begun. Only the run writes it. */
export interface PhaseRecord {
  readonly phase: Phase
  readonly startedAt: number
  endedAt: number | undefined
  overran: boolean
  unfinished: ReadonlyArray<Unfinished>
}

/** INVARIANT Shutdown-3: phases only go forward. */
export class Phases {
  readonly records: Array<PhaseRecord> = []
  readonly #waits: Waits

  constructor(waits: Waits) {
    this.#waits = waits
  }

  get current(): Phase {
    return this.records.at(-1)?.phase ?? "running"
  }

  recordOf(phase: Phase): PhaseRecord | undefined {
    return this.records.find((one) => one.phase === phase)
  }

  enter(phase: Phase): void {
    const now = this.#waits.now()
    const last = this.records.at(-1)
    if (last !== undefined) last.endedAt = now
    const endedAt = phase === "exited" ? now : undefined
    this.records.push({ phase, startedAt: now, endedAt, overran: false, unfinished: [] })
    this.#waits.notify()
  }

  readonly subscribable: Subscribable.Subscribable<Phase> = Subscribable.make({
    get: Effect.sync(() => this.current),
    changes: Stream.suspend(() =>
      Stream.unfoldEffect(this.records.length - 1, (index) => this.#next(index))
    )
  })

  /** The phase at an index, once it has begun, and the next index; none after the last. Before the first the index is -1. */
  #next(index: number): Effect.Effect<Option.Option<readonly [Phase, number]>> {
    if (this.records[index - 1]?.phase === "exited") return Effect.succeedNone
    return Effect.map(
      this.#waits.until(() => index < this.records.length, Infinity),
      () => Option.some([this.records[index]?.phase ?? "running", index + 1] as const)
    )
  }
}
