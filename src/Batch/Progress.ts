/**
 * Batch/Progress: the numbers of a batch while it runs.
 *
 * INVARIANTS
 * - BatchProgress-1 No number decreases, but for `inFlight`; the last ones are those of the report.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Batch from "../Batch.ts"

/**
 * How far a run is. Rate and remaining time are null in the first two seconds, and the latter if the total is not known.
 *
 * @category models
 * @since 0.1.0
 */
export interface Progress extends Batch.Tally {
  readonly inFlight: number
  /** Known if the source is an array. */
  readonly total: number | undefined
  readonly elapsed: Duration.Duration
  /** The mean; items done by an earlier run took no time and do not count. */
  readonly perSecond: number | null
  readonly eta: Duration.Duration | null
}

const rateFrom = 2000

const progressOf = (tally: Batch.Tally, total: number | undefined, millis: number): Progress => {
  const worked = tally.done + tally.skipped + tally.failed
  const ended = worked + tally.alreadyDone + tally.interrupted
  const perSecond = millis < rateFrom ? null : worked * 1000 / millis
  const left = total === undefined ? undefined : total - ended - tally.duplicates
  return {
    ...tally,
    inFlight: tally.taken - ended,
    total,
    elapsed: Duration.millis(millis),
    perSecond,
    eta: perSecond === null || perSecond === 0 || left === undefined
      ? null
      : Duration.seconds(left / perSecond)
  }
}

/**
 * Calls `onProgress` at each interval and once at the end.
 *
 * **Errors** — a failure of `onProgress` ends the run. **Cost** — a fiber per run.
 *
 * **Example**
 * ```ts run
 * import { Effect } from "effect"
 * import { Batch } from "holdfast"
 * import * as BatchProgress from "holdfast/Batch/Progress"
 *
 * const seen: Array<string> = []
 * const progress = BatchProgress.every("1 second", ({ done, total }) => Effect.sync(() => seen.push(`${done} of ${total}`)))
 * await Effect.runPromise(Batch.run({ name: "count", process: () => Effect.void }, [1, 2, 3], { progress }))
 * seen // => ["3 of 3"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const every = <E, R>(
  interval: Duration.DurationInput,
  onProgress: (progress: Progress) => Effect.Effect<unknown, E, R>
): Batch.Progress<E, R> =>
(tally, total) =>
  Effect.map(Clock.currentTimeMillis, (began) => {
    const once = Effect.flatMap(
      Clock.currentTimeMillis,
      (now) => onProgress(progressOf(tally, total, now - began))
    )
    return { once, repeated: Effect.forever(Effect.delay(once, interval)) }
  })
