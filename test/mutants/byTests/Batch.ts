/** Mutants of Batch, found by test/Batch.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant, of } from "./mutant.ts"

const mutant = (
  what: string,
  from: string,
  to: string,
  title: string,
  file = "Batch/engine.ts"
): Mutant => ({
  what,
  file,
  from,
  to,
  tests: "Batch.test.ts",
  title
})

const postgres = of("Batch/Postgres.ts", "Batch/Postgres.test.ts")
const zombie = of("Batch/Postgres.ts", "Batch/Postgres.zombie.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "the source is not closed",
    "          intake.close,\n",
    "          Effect.succeed(undefined),\n",
    "Batch-3"
  ),
  mutant(
    "an item that ends is not counted",
    "        this.tally[ending.status]++\n",
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
    "question === undefined ? Effect.void : Condition.wait(group.changed, isAnswered)",
    "Effect.void",
    "Batch-2: an item that an async source was giving",
    "Batch/intake.ts"
  ),
  mutant(
    "a source that has nothing to give delays a drain",
    "() => isAnswered() || group.stopped)",
    "isAnswered)",
    "Batch-4: an async source that never yields",
    "Batch/intake.ts"
  ),
  mutant(
    "the failure of a stream is a mere end",
    "return Exit.isFailure(answer) ? answer.cause : undefined",
    "return undefined",
    "BatchStreams-1",
    "Batch/intake.ts"
  ),
  mutant(
    "one item more than `concurrency` is in flight",
    "      count: concurrency,",
    "      count: concurrency + 1,",
    "Batch-3"
  ),
  mutant(
    "a drain request is not heard",
    "    const drainOnRequest = (drain?.when ?? Effect.never).pipe(",
    "    const drainOnRequest = Effect.never.pipe(",
    "Batch-4: a drain lets what runs finish"
  ),
  mutant(
    "a drain has no grace",
    "      Effect.zipRight(Effect.sleep(grace)),\n",
    "",
    "Batch-4: a drain lets what runs finish"
  ),
  mutant(
    "a drain never ends what runs",
    "      Effect.zipRight(Effect.sync(() => Workers.cut(group)))\n",
    "      Effect.zipRight(Effect.never)\n",
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
    "const isInterrupted = Cause.isInterruptedOnly(found)",
    "const isInterrupted = false",
    "Batch-4 Batch-5"
  ),
  mutant(
    "a key that comes twice is two items",
    "if (key !== undefined && this.seen.has(key)) {",
    "if (key === \"no key\") {",
    "Batch-6"
  ),
  mutant(
    "a done item is processed again",
    "(isDone) => isDone ? Effect.succeed(alreadyDone) : fresh",
    "() => fresh",
    "with a checkpoint: what is done is not processed again"
  ),
  mutant(
    "`commit` runs beside the checkpoint's transaction",
    "commit(group.map(({ key }) => key), effectsOf(group))",
    "Effect.zipLeft(commit(group.map(({ key }) => key), Effect.void), effectsOf(group))",
    "with a checkpoint: what is done is not processed again",
    "Batch/Checkpoint.ts"
  ),
  mutant(
    "a verdict of `skip` counts as a failure",
    "verdict === \"skip\" && !isLost ? \"skipped\" : \"failed\"",
    "\"failed\"",
    "Batch-2: the report adds up"
  ),
  mutant(
    "a drained run says that it is complete",
    "const isComplete = intake.isExhausted() && tally.interrupted === 0",
    "const isComplete = true",
    "Batch-4: a drain lets what runs finish"
  ),
  mutant(
    "one item that fails spoils its group",
    "Effect.forEach(group, (one) => commitGroup([one]))",
    "Effect.succeed(group.map(() => exit))",
    "BatchCheckpoint-2: items that wait together",
    "Batch/Checkpoint.ts"
  ),
  mutant(
    "a group is committed, then each of its items again",
    "      ? exit.value\n",
    "      ? false\n",
    "BatchCheckpoint-2: items that wait together",
    "Batch/Checkpoint.ts"
  ),
  mutant(
    "an interrupted item does not await its group",
    "if (at < 0) return Condition.wait(changed, isAnswered)",
    "if (at < 0) return Effect.void",
    "BatchCheckpoint-1: a group that is interrupted",
    "Batch/Checkpoint.ts"
  ),
  mutant(
    "the skip limit does not see the letters that are being written",
    "this.skipping >= (this.options.skipLimit ?? Infinity)",
    "this.tally.skipped >= (this.options.skipLimit ?? Infinity)",
    "Batch-7"
  ),
  mutant(
    "a dead letter that is lost is no failure",
    "const isLost = Exit.isFailure(letter)",
    "const isLost = false",
    "Batch-7"
  ),
  mutant(
    "the last progress is not shown",
    "yield* Effect.exit(progress.once)",
    "Exit.void",
    "BatchProgress-1"
  ),
  mutant(
    "a rate limit is not kept",
    "return rate === undefined ? settle()",
    "return rate === undefined || taken ? settle()",
    "BatchProgress-1"
  ),
  mutant(
    "outcomes come as they end",
    "ordered ? settled.has(next) : settled.size > 0",
    "settled.size > 0",
    "BatchStreams-2",
    "Batch/Streams.ts"
  ),
  mutant(
    "a reader that leaves does not end the run",
    "isClosed ? Effect.interrupt : Effect.void",
    "Effect.void",
    "BatchStreams-2",
    "Batch/Streams.ts"
  ),
  zombie(
    "a later run does not fence an earlier one",
    "SELECT ${run}, key FROM fence, unnest(${list}) key",
    "SELECT ${run}, key FROM unnest(${list}) key",
    "a COMMIT that arrives late"
  ),
  zombie(
    "a mark that is there refuses nothing",
    "rows.length === keys.length",
    "rows.length >= 0",
    "two runs of one epoch"
  ),
  postgres(
    "the mark is committed before the effects",
    "          sql.withTransaction,\n",
    "",
    "a commit that fails leaves neither"
  ),
  postgres(
    "a discarded dead letter is lost",
    "INSERT INTO holdfast_batch_done (run, key) SELECT ${run}, key FROM taken",
    "INSERT INTO holdfast_batch_done (run, key) SELECT ${run}, key FROM taken WHERE false",
    "BatchPostgres-5"
  ),
  postgres(
    "an item that kills its process is started for ever",
    "FROM started WHERE n > ${maxCrashes}",
    "FROM started WHERE n < ${maxCrashes} - ${maxCrashes}",
    "BatchPostgres-4"
  )
]
