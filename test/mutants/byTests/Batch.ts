/** Mutants of Batch, found by test/Batch.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

const mutant = (what: string, from: string, to: string, title: string): Mutant => ({
  what,
  file: "Batch.ts",
  from,
  to,
  tests: "Batch.test.ts",
  title
})

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "the source is not closed",
    "        intake.close,\n",
    "        Effect.succeed(undefined),\n",
    "Batch-3"
  ),
  mutant(
    "an item that ends is not counted",
    "    tally[ending.status]++\n",
    "",
    "Batch-2: the report adds up"
  ),
  mutant(
    "an item that the source gave after the last worker ended is dropped",
    "late === undefined ? Effect.void : this.settle(late, restore, () => notBegun)",
    "Effect.void",
    "Batch-2: an item that an async source was giving"
  ),
  mutant(
    "a source that answers late is not waited for",
    "answer === undefined ? Effect.void : Condition.wait(group.changed, isAnswered)",
    "Effect.void",
    "Batch-2: an item that an async source was giving"
  ),
  mutant(
    "a source that has nothing to give delays a drain",
    "() => isAnswered() || group.stopped)",
    "isAnswered)",
    "Batch-4: an async source that never yields"
  ),
  mutant(
    "`onTaken` that fails passes the tally",
    "const began = yield* exitOf(() => options.onTaken?.(item, index))",
    "yield* options.onTaken?.(item, index) ?? Effect.void\n    const began = Exit.void",
    "Batch-2: whatever throws"
  ),
  mutant(
    "one item more than `concurrency` is in flight",
    "    count: concurrency,",
    "    count: concurrency + 1,",
    "Batch-3"
  ),
  mutant(
    "a drain request is not heard",
    "  const drainOnRequest = (drain?.when ?? Effect.never).pipe(",
    "  const drainOnRequest = Effect.never.pipe(",
    "Batch-4: a drain lets what runs finish"
  ),
  mutant(
    "a drain has no grace",
    "    Effect.zipRight(Effect.sleep(grace)),\n",
    "",
    "Batch-4: a drain lets what runs finish"
  ),
  mutant(
    "a drain never ends what runs",
    "    Effect.zipRight(Effect.sync(() => Workers.cut(group))),\n",
    "    Effect.zipRight(Effect.never),\n",
    "Batch-4 Batch-5"
  ),
  mutant(
    "an interrupted caller does not drain",
    "Effect.zipRight(stop, exitWithin(Workers.awaitEnd(group), grace))",
    "stop",
    "Batch-4: an interrupted caller drains too"
  ),
  mutant(
    "an interruption counts as a failure",
    "const failure = Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)",
    "const failure = Exit.isFailure(exit)",
    "Batch-4 Batch-5"
  ),
  mutant(
    "a key that comes twice is two items",
    "      if (!this.isFirst(key)) return\n",
    "",
    "Batch-6"
  ),
  mutant(
    "a done item is processed again",
    "checkpoint.isDone(key)",
    "Effect.succeed(false)",
    "with a checkpoint: what is done is not processed again"
  ),
  mutant(
    "`commit` runs beside the checkpoint's transaction",
    "checkpoint.commit(key, commitOf(value))",
    "Effect.zipRight(checkpoint.commit(key, Effect.void), commitOf(value))",
    "with a checkpoint: what is done is not processed again"
  ),
  mutant(
    "a verdict of `skip` counts as a failure",
    "failure.verdict === \"skip\" ? \"skipped\" : \"failed\"",
    "\"failed\"",
    "Batch-2: the report adds up"
  ),
  mutant(
    "a drained run says that it is complete",
    "const isComplete = intake.isExhausted() && tally.interrupted === 0",
    "const isComplete = true",
    "Batch-4: a drain lets what runs finish"
  )
]
