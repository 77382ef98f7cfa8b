/**
 * Batch: a job over a source, by a bounded number of workers that share whatever is acquired around it.
 *
 * DESIGN. A job (Job.ts) says how to process and commit one item. `run` has workers (internal/workers.ts) that take items from
 * Batch/intake.ts. A worker takes an item and settles it, which counts it, in one masked step, so a report always adds up
 * (Batch/engine.ts). With a checkpoint, the items that wait to be looked up or committed at the same time share one statement or
 * one transaction (Batch/Checkpoint.ts), so a checkpoint costs less per item the more items are in flight.
 *
 * INVARIANTS
 * - Batch-1 (L10) When `run` returns, by success, failure, interruption or drain, no item is running and the source is closed.
 * - Batch-2 `done + alreadyDone + skipped + failed + interrupted = taken`, in every report.
 * - Batch-3 At most `concurrency` items in flight; the source is pulled by free workers only, with no look-ahead.
 * - Batch-4 After a fatal failure or a drain request no item starts. A drain lets running items finish for `grace`, then
 *   interrupts and awaits them.
 * - Batch-5 An interruption is never counted as a failure of its item.
 * - Batch-6 With a `key`, a key that comes twice in one run is one item.
 * - Batch-7 At most `skipLimit` items are skipped, by all workers together. With a checkpoint each has one dead letter, written before
 *   it counts as skipped; an item with a dead letter is not processed; a letter that cannot be written ends the run.
 *
 * COST (2026-11) about 0.8 µs per item over the item itself; memory is O(concurrency), plus the keys if there is a `key`.
 * NOT DONE adaptive concurrency; the cluster.
 * SOURCES Spring Batch (chunk and job repository in one transaction), River's JobCompleteTx, p-map's pull.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Engine from "./Batch/engine.ts"
import type { Source } from "./Batch/intake.ts"
import type { BatchFailed, ItemFailure, Options, Report } from "./Batch/model.ts"
import * as Rules from "./internal/options.ts"
import type { Job } from "./Job.ts"
import * as Ledger from "./Ledger.ts"

export type { Answer, Feed, Source } from "./Batch/intake.ts"
export {
  BatchFailed,
  type Ending,
  type ItemFailure,
  type Options,
  type Outcome,
  type Progress,
  type Report,
  type Tally,
  type Verdict
} from "./Batch/model.ts"

const verdicts = Rules.oneOf("fail", "collect", "skip")
const rules = {
  concurrency: {
    expected: "an integer, 1 or more",
    accepts: (value: unknown) => Number.isSafeInteger(value) && Number(value) >= 1
  },
  onError: {
    expected: `${verdicts.expected}, or a function`,
    accepts: (value: unknown) => typeof value === "function" || verdicts.accepts(value)
  },
  skipLimit: Rules.integer(0),
  rate: Rules.anything,
  checkpoint: Rules.anything,
  drain: Rules.anything,
  progress: Rules.callback,
  onSettled: Rules.callback
}
const drainRules = { when: Rules.anything, grace: Rules.duration }

/**
 * Runs a job over a source and reports.
 *
 * **Details** — `source` is an iterable or an async iterable, endless ones too, or a `Stream` by `source` of
 *   `holdfast/Batch/Streams`. A source that throws ends the run with a defect. An item that an async source gives after the run has stopped counts as interrupted, and
 *   `onSettled` sees it; a source that does not answer within 5 seconds is abandoned. All items share the resources acquired
 *   around `run`, which are released after the last item has ended (Batch-1). Where the program has a tracer, each item has a
 *   span `holdfast.batch.item`.
 * **Interruption** — No further item starts; with `drain`, running items may finish for `grace`; then they are interrupted and
 *   awaited, and the interrupt is seen.
 * **Errors** — `BatchFailed` with the report and every concurrent failure. With `onError: "collect"` only defects and
 *   failures of `onSettled` end the run. The job, the source and the hooks each have an error and a context of
 *   their own. A checkpoint without a `key`, or an invalid option, is a `RangeError` defect.
 * **Cost** — about 0.8 µs per item; with a checkpoint its share of two statements and a transaction.
 *
 * **Example** (collect what fails)
 * ```ts run
 * import { Effect } from "effect"
 * import { Batch } from "holdfast"
 *
 * const halve = { name: "halve", process: (n: number) => n % 2 === 0 ? Effect.succeed(n / 2) : Effect.fail("odd") }
 * const run = Batch.run(halve, [1, 2, 3, 4], { onError: "collect" })
 * const { done, failed, status } = await Effect.runPromise(run)
 * const seen = { done, failed, status }
 * seen // => { done: 2, failed: 2, status: "complete" }
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <Item, A, E, R, E2 = never, R2 = never, E3 = never, R3 = never>(
  job: Job<Item, A, E, R>,
  source: Source<Item, E2, R2>,
  options: Options<Item, A, NoInfer<E | ItemFailure>, E3, R3> = {}
): Effect.Effect<Report, BatchFailed<E | E2 | E3 | ItemFailure>, R | R2 | R3> => {
  const site = Ledger.unsafeSite()
  return Effect.suspend(() => {
    Rules.check("Batch.run", options, rules)
    Rules.check("Batch.run, drain", options.drain, drainRules)
    Rules.check("Batch.run, job", { timeout: job.timeout }, { timeout: Rules.positiveDuration })
    if (options.checkpoint !== undefined && job.key === undefined) {
      throw new RangeError(
        `Batch-6: job "${job.name}" has a checkpoint but no \`key\`.`
      )
    }
    const run = new Engine.Run<Item, A, E | ItemFailure, E2 | E3, R | R2 | R3>(
      source,
      job,
      Engine.beginItem(job, options.checkpoint),
      options
    )
    return Ledger.withSite(Ledger.withOwner(run.supervise(), job.name), site)
  })
}
