/**
 * Batch/model: what a run is given and gives: options, outcomes, report, errors. ../Batch.ts has the invariants.
 */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import { prettyOf } from "../internal/exit.ts"
import type { ItemTimeout } from "../Job.ts"
import type * as RateLimiter from "../RateLimiter.ts"
import type { Checkpoint, CheckpointError, ItemDead, Superseded } from "./Checkpoint.ts"

/**
 * The failures of an item that are not its job's own. The last three occur only with a checkpoint.
 *
 * @category models
 * @since 0.1.0
 */
export type ItemFailure = ItemTimeout | CheckpointError | Superseded | ItemDead

/**
 * How one taken item ended.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<Item, A, E> = {
  readonly item: Item
  /** The place among the items taken, from 0. */
  readonly index: number
  readonly attempts: number
} & Ending<A, E>

/**
 * The part of an outcome that differs.
 *
 * @category models
 * @since 0.1.0
 */
export type Ending<A, E> =
  | { readonly status: "done"; readonly value: A }
  | { readonly status: "alreadyDone" }
  | { readonly status: "skipped" | "failed"; readonly cause: Cause.Cause<E> }
  | { readonly status: "interrupted" }

/**
 * The counts of a run, in items.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tally {
  readonly taken: number
  readonly done: number
  readonly alreadyDone: number
  readonly skipped: number
  readonly failed: number
  readonly interrupted: number
  /** Items dropped because their key had been taken before in this run; not part of `taken`. */
  readonly duplicates: number
}

/**
 * The result of a run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report extends Tally {
  readonly name: string
  /** `"drained"`: it stopped on request before the source was exhausted, or interrupted items. */
  readonly status: "complete" | "drained" | "failed"
}

/**
 * A failure that ended the whole run. `failure` holds every concurrent one.
 *
 * @category errors
 * @since 0.1.0
 */
export class BatchFailed<E> extends Data.TaggedError("BatchFailed")<{
  readonly report: Report
  readonly failure: Cause.Cause<E>
}> {
  override get message(): string {
    const { done, name, taken } = this.report
    return `Job "${name}" stopped after ${taken} items (${done} done): ${prettyOf(this.failure)}`
  }
}

/**
 * The effect of an item's last failure on the run; see `onError`.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = "fail" | "collect" | "skip"

/**
 * Shows how far a run is: `repeated` while it lasts, `once` when all items have ended. `total` is known if the source is an array.
 *
 * @category models
 * @since 0.1.0
 */
export type Progress<E, R> = (tally: Tally, total: number | undefined) => Effect.Effect<
  {
    readonly once: Effect.Effect<unknown, E, R>
    readonly repeated: Effect.Effect<unknown, E, R>
  },
  never,
  R
>

/**
 * How to run a job. `E` is the error of an item, `E2` and `R2` are those of the hooks.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<Item, A, E, E2 = E, R2 = never> {
  /** Items in flight at the most. Default 16. */
  readonly concurrency?: number | undefined
  /** `"fail"` (default) ends the run, `"collect"` counts the item as failed and continues, `"skip"` as skipped. A defect or a
   * failure of the checkpoint always ends it, unless the function form says otherwise. */
  readonly onError?: Verdict | ((cause: Cause.Cause<E>, item: Item) => Verdict) | undefined
  /** Items skipped at the most; one more ends the run. Default: no limit. */
  readonly skipLimit?: number | undefined
  /** Items start no faster than this. */
  readonly rate?: RateLimiter.RateLimiter | undefined
  /** Remembers done items, and writes a dead letter for each that is skipped. */
  readonly checkpoint?: Checkpoint | undefined
  /** When `when` succeeds no further item is taken; items that run have `grace` (default 25 seconds) to finish. An interrupted
   * caller drains too, but sees no report. Under `Main.run`: `when: Shutdown.requested`, and `Shutdown.drains` around the run; a
   * process whose batch was drained ends 75 (run it again). */
  readonly drain?: {
    readonly when?: Effect.Effect<unknown, never, R2> | undefined
    readonly grace?: Duration.DurationInput | undefined
  } | undefined
  /** By `every` of `holdfast/Batch/Progress`. */
  readonly progress?: Progress<E2, R2> | undefined
  readonly onSettled?:
    | ((outcome: Outcome<Item, A, E>) => Effect.Effect<unknown, E2, R2>)
    | undefined
}
