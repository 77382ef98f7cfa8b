/**
 * Batch: a job over a source, by a bounded number of workers that share whatever is acquired around it.
 *
 * DESIGN. A job says how to process and commit one item, its key and its retry. `run` has workers (internal/workers.ts) that pull
 * items. A worker takes an item and settles it, which counts it, in one masked step, so a report always adds up. `process` runs
 * outside any transaction and may run more than once. `commit` runs inside the checkpoint's transaction, which marks the item done.
 *
 * INVARIANTS
 * - Batch-1 (L10) When `run` returns, by success, failure, interruption or drain, no item is running and the source is closed.
 * - Batch-2 `done + alreadyDone + skipped + failed + interrupted = taken`, in every report.
 * - Batch-3 At most `concurrency` items in flight; the source is pulled by free workers only, with no look-ahead.
 * - Batch-4 After a fatal failure or a drain request no item starts. A drain lets running items finish for `grace`, then
 *   interrupts and awaits them.
 * - Batch-5 An interruption is never counted as a failure of its item.
 * - Batch-6 With a `key`, a key that comes twice in one run is one item.
 *
 * COST about 2 µs per item over the item itself; memory is O(concurrency), plus the keys if there is a `key`.
 * NOT DONE skip limits, dead letters, rates, adaptive concurrency, ordered output, crash counts, Stream sources.
 * SOURCES Spring Batch (chunk and job repository in one transaction), River's JobCompleteTx, p-map's pull.
 * TO ADD a checkpoint backend: implement `Checkpoint` as Batch/Postgres.ts does.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Condition from "./internal/condition.ts"
import { BudgetInForce, exitWithin } from "./internal/deadline.ts"
import { prettyOf, withFailure } from "./internal/exit.ts"
import * as Rules from "./internal/options.ts"
import * as Source from "./internal/source.ts"
import { withSpan } from "./internal/span.ts"
import * as Workers from "./internal/workers.ts"
import * as Ledger from "./Ledger.ts"
import * as Nursery from "./Nursery.ts"
import * as Semaphore from "./Semaphore.ts"

/**
 * One attempt at `process` did not end within the job's `timeout`; it was interrupted and awaited.
 *
 * @category errors
 * @since 0.1.0
 */
export class ItemTimeout extends Data.TaggedError("ItemTimeout")<{
  readonly job: string
  readonly attempt: number
  readonly timeout: Duration.Duration
}> {
  override get message(): string {
    const timeout = Duration.format(this.timeout)
    return `Job "${this.job}": attempt ${this.attempt} at an item did not end within ${timeout}. `
      + "Raise `timeout`, or find what the item waits for."
  }
}

/**
 * The work on each item. `E` and `R` are those of `process`, `E2` and `R2` those of `commit`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Job<Item, A, E, R, E2 = E, R2 = R> {
  readonly name: string
  /** Names an item across runs; needed for a checkpoint. Items of one key are one item. */
  readonly key?: ((item: Item) => string) | undefined
  /** At least once: no transaction is held while it runs. `attempt` counts from 1. */
  readonly process: (item: Item, attempt: number) => Effect.Effect<A, E, R>
  /** Exactly once, with a checkpoint: runs inside its transaction. */
  readonly commit?:
    | ((item: Item, value: A, attempts: number) => Effect.Effect<unknown, E2, R2>)
    | undefined
  /** When to try `process` again. Default: never. */
  readonly retry?: Schedule.Schedule<unknown, NoInfer<E> | ItemTimeout, R> | undefined
  /** Bound of each attempt. Default: none. */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * Remembers which keys are done, in one transaction with their effects.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint<E, R> {
  readonly isDone: (key: string) => Effect.Effect<boolean, E, R>
  /** Marks the key and runs its effects, or does neither and gives false: the key was marked before. */
  readonly commit: <E2, R2>(
    key: string,
    effects: Effect.Effect<unknown, E2, R2>
  ) => Effect.Effect<boolean, E | E2, R | R2>
}

/**
 * The checkpoint of a program as a service. `layer` of `holdfast/Batch/Postgres` provides it. `run` does not look for it: pass it
 * as the option `checkpoint` (`const checkpoint = yield* Batch.Checkpoint`).
 *
 * @category tags
 * @since 0.1.0
 */
export const Checkpoint = Context.GenericTag<Checkpoint<CheckpointError | Superseded, never>>(
  "holdfast/Batch/Checkpoint"
)

/**
 * The backend of the service `Checkpoint` failed. The failures of an item's own effects pass unchanged.
 *
 * @category errors
 * @since 0.1.0
 */
export class CheckpointError extends Data.TaggedError("CheckpointError")<{
  readonly operation: "isDone" | "commit"
  readonly key: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `Checkpoint: ${this.operation} of key "${this.key}" failed: ${this.cause}`
  }
}

/**
 * A later run of the same name has begun, maybe in another process: this one may commit nothing more. It always ends the run.
 *
 * @category errors
 * @since 0.1.0
 */
export class Superseded extends Data.TaggedError("BatchSuperseded")<{
  readonly run: string
  readonly epoch: number
}> {
  override get message(): string {
    return `Run "${this.run}", epoch ${this.epoch}: a later run of this name has begun, so this one commits nothing more. `
      + "Let only one process work on a run, or give the runs different names."
  }
}

/**
 * How one taken item ended.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<Item, A, E> = {
  readonly item: Item
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
 * The result of a run; the counts are in items.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly name: string
  /** `"drained"`: it stopped on request before the source was exhausted, or interrupted items. */
  readonly status: "complete" | "drained" | "failed"
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
 * How to run a job. `E` is the error of an item, `E2` and `R2` are of the checkpoint, `E3` and `R3` of `onSettled`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<Item, A, E, R, E2 = E, R2 = R, E3 = E, R3 = R> {
  /** Items in flight at the most. Default 16. */
  readonly concurrency?: number | undefined
  /** `"fail"` (default) ends the run, `"collect"` counts the item as failed and continues, `"skip"` as skipped. A defect always
   * ends it, unless the function form says otherwise. */
  readonly onError?: Verdict | ((cause: Cause.Cause<E>, item: Item) => Verdict) | undefined
  readonly checkpoint?: Checkpoint<E2, R2> | undefined
  /** When `when` succeeds no further item is taken; items that run have `grace` (default 25 seconds) to finish. An interrupted
   * caller drains too, but sees no report. Under `Main.run`: `when: Shutdown.requested`, and `Shutdown.drains` around the run; a
   * process whose batch was drained ends 75 (run it again). */
  readonly drain?: {
    readonly when?: Effect.Effect<unknown, never, R> | undefined
    readonly grace?: Duration.DurationInput | undefined
  } | undefined
  readonly onTaken?: ((item: Item, index: number) => Effect.Effect<unknown, never, R>) | undefined
  readonly onSettled?:
    | ((outcome: Outcome<Item, A, E>) => Effect.Effect<unknown, E3, R3>)
    | undefined
}

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
  checkpoint: Rules.anything,
  drain: Rules.anything,
  onTaken: Rules.callback,
  onSettled: Rules.callback
}
const drainRules = { when: Rules.anything, grace: Rules.duration }
const defaultGrace = Duration.seconds(25)
const sourceCloseDeadline = Duration.seconds(5)

interface Intake<Item> {
  /** Waits until `take` may give an item. An interrupt loses no item. Undefined if the source is synchronous. */
  readonly ready: Effect.Effect<void> | undefined
  /** The next item, if it is there; run in the step that begins to settle it. */
  readonly take: () => Source.Taken<Item> | undefined
  /** Ends the source, and returns the last item that it gave if no worker took it. */
  readonly close: Effect.Effect<Source.Taken<Item> | undefined>
  readonly isExhausted: () => boolean
}

const openSource = <Item>(
  source: Iterable<Item> | AsyncIterable<Item>,
  group: Workers.Group<unknown>
): Intake<Item> => {
  if (Symbol.asyncIterator in Object(source)) {
    return openAsync(source as AsyncIterable<Item>, group)
  }
  const { close, isExhausted, pull } = Source.make(source as Iterable<Item>)
  return {
    ready: undefined,
    take: pull,
    close: Effect.as(Effect.sync(close), undefined),
    isExhausted
  }
}

interface Answer<Item> {
  result: (() => IteratorResult<Item>) | undefined
}

const openAsync = <Item>(
  source: AsyncIterable<Item>,
  group: Workers.Group<unknown>
): Intake<Item> => {
  const iterator = source[Symbol.asyncIterator]()
  const turn = Semaphore.unsafeMake(1, { name: "batch source" })
  // It outlives the wait of an interrupted worker, because it may bring an item.
  let answer: Answer<Item> | undefined
  let exhausted = false
  let index = 0
  const ask = async (answer: Answer<Item>): Promise<void> => {
    try {
      const result = await iterator.next()
      answer.result = () => result
    } catch (error) {
      answer.result = () => {
        throw error
      }
    }
    Condition.notify(group.changed)
  }
  const isAnswered = () => answer?.result !== undefined
  const ready = Effect.suspend(() => {
    if (exhausted || group.stopped) return Effect.void
    if (answer === undefined) void ask(answer = { result: undefined })
    // A source that has nothing to give must not delay a drain.
    return Condition.wait(group.changed, () => isAnswered() || group.stopped)
  })
  const take = () => {
    const result = answer?.result
    if (result === undefined) return undefined
    answer = undefined
    // A source that throws has ended.
    exhausted = true
    const next = result()
    if (next.done === true) return undefined
    exhausted = false
    return { item: next.value, index: index++ }
  }
  const closed = Effect.zipRight(
    Effect.promise(async () => iterator.return?.()),
    Effect.suspend(() =>
      answer === undefined ? Effect.void : Condition.wait(group.changed, isAnswered)
    )
  )
  return {
    ready: Semaphore.withPermit(turn)(ready),
    take,
    close: Effect.suspend(() => {
      if (exhausted) return Effect.succeed(undefined)
      const ended = Effect.flatMap(
        exitWithin(closed, sourceCloseDeadline),
        Option.getOrElse(() => Exit.void)
      )
      return Effect.map(ended, take)
    }),
    isExhausted: () => exhausted
  }
}

/** The work on one item; `attempts` counts how often `process` has started. */
interface Attempts<A, E, R> {
  readonly work: Effect.Effect<Ending<A, E>, E, R>
  readonly attempts: () => number
}

type Begin<Item, A, E, R> = (item: Item, key: string | undefined) => Attempts<A, E, R>

const beginItem = <Item, A, E, R, E2, R2, E3, R3>(
  job: Job<Item, A, E, R, E2, R2>,
  checkpoint: Checkpoint<E3, R3> | undefined
): Begin<Item, A, E | E2 | E3 | ItemTimeout, R | R2 | R3> =>
(item, key) => {
  type Work = Attempts<A, E | E2 | E3 | ItemTimeout, R | R2 | R3>["work"]
  let attempts = 0
  const timeout = job.timeout === undefined ? undefined : Duration.decode(job.timeout)
  const attempt = Effect.suspend(() => {
    attempts++
    const work = job.process(item, attempts)
    return timeout === undefined ? work : Nursery.timeoutFail(work, {
      duration: timeout,
      onTimeout: () => new ItemTimeout({ job: job.name, attempt: attempts, timeout })
    })
  })
  const processed = job.retry === undefined ? attempt : Effect.retry(attempt, job.retry)
  const commitOf = (value: A): Effect.Effect<unknown, E2, R2> =>
    Effect.suspend(() => job.commit?.(item, value, attempts) ?? Effect.void)
  const done = (value: A) => ({ status: "done", value } as const)
  const work: Work = checkpoint === undefined || key === undefined
    ? Effect.flatMap(processed, (value) => Effect.as(commitOf(value), done(value)))
    : Effect.if(Effect.suspend(() => checkpoint.isDone(key)), {
      onTrue: () => Effect.succeed({ status: "alreadyDone" } as const),
      onFalse: () =>
        Effect.flatMap(
          processed,
          (value) =>
            Effect.map(
              checkpoint.commit(key, commitOf(value)),
              (isNew) => isNew ? done(value) : { status: "alreadyDone" } as const
            )
        )
    })
  return { work, attempts: () => attempts }
}

/** For an item that the source gave after the last worker had ended. */
const notBegun: Attempts<never, never, never> = { work: Effect.interrupt, attempts: () => 0 }

type Named<Item> = Pick<Job<Item, unknown, unknown, unknown>, "name" | "key">

/** One run, shared by its workers. Items fail with `E`, `onSettled` with `E2`. */
class Run<Item, A, E, E2, R> {
  readonly group = Workers.makeGroup<E | E2>()
  readonly seen = new Set<string>()
  readonly tally = {
    taken: 0,
    done: 0,
    alreadyDone: 0,
    skipped: 0,
    failed: 0,
    interrupted: 0,
    duplicates: 0
  }
  readonly intake: Intake<Item>
  readonly job: Named<Item>
  readonly begin: Begin<Item, A, E, R>
  readonly options: Options<Item, A, E, R, E, R, E2, R>

  constructor(
    source: Iterable<Item> | AsyncIterable<Item>,
    job: Named<Item>,
    begin: Begin<Item, A, E, R>,
    options: Options<Item, A, E, R, E, R, E2, R>
  ) {
    this.intake = openSource(source, this.group)
    this.job = job
    this.begin = begin
    this.options = options
  }

  hasWork(): boolean {
    return !this.group.stopped && !this.intake.isExhausted()
  }

  /** Forks the workers, watches for a drain, and closes the source after the last of them. */
  supervise(): Effect.Effect<Report, BatchFailed<E | E2>, R> {
    const { group, intake, options: { concurrency = 16, drain } } = this
    const grace = Duration.decode(drain?.grace ?? defaultGrace)
    const stop = Effect.sync(() => Workers.stop(group))
    const workers = Workers.run(group, {
      count: concurrency,
      hasWork: () => this.hasWork(),
      worker: () => this.worker(),
      onInterrupted: drain === undefined
        ? stop
        : Effect.zipRight(stop, exitWithin(Workers.awaitEnd(group), grace))
    })
    const drainOnRequest = (drain?.when ?? Effect.never).pipe(
      Effect.zipRight(stop),
      Effect.zipRight(Effect.sleep(grace)),
      Effect.zipRight(Effect.sync(() => Workers.cut(group))),
      // Without its watcher the run cannot be drained, so it fails with the cause.
      Effect.catchAllCause((cause) => Effect.sync(() => Workers.fail(group, cause)))
    )
    // MASK: the drain's watcher and the source must be ended whatever the workers' end; `workers` is restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function*() {
        const watcher = yield* Effect.forkDaemon(Effect.interruptible(drainOnRequest))
        const ended = yield* Effect.exit(restore(workers))
        yield* Fiber.interrupt(watcher)
        const closed = yield* Effect.exit(Effect.flatMap(
          intake.close,
          (late) => late === undefined ? Effect.void : this.settle(late, restore, () => notBegun)
        ))
        return yield* this.reported(both(ended, closed))
      })
    )
  }

  reported(exit: Exit.Exit<void, E | E2>): Effect.Effect<Report, BatchFailed<E | E2>> {
    const { group, intake, job, tally } = this
    const isComplete = intake.isExhausted() && tally.interrupted === 0
    const status = Exit.isFailure(exit) ? "failed" : isComplete ? "complete" : "drained"
    const report: Report = { name: job.name, status, ...tally }
    if (Exit.isSuccess(exit)) {
      return status === "drained" ? Effect.as(countDrained, report) : Effect.succeed(report)
    }
    if (!Workers.wasInterrupted(group)) {
      return new BatchFailed({ report, failure: exit.cause })
    }
    // The caller was interrupted: the cause has its interrupt, and the failures that followed.
    return Effect.failCause(
      Cause.map(exit.cause, (error) => new BatchFailed({ report, failure: Cause.fail(error) }))
    )
  }

  worker(): Effect.Effect<void, E | E2, R> {
    const { group, intake } = this
    const settleNext = (restore: Semaphore.Restore) => {
      const taken = group.stopped ? undefined : intake.take()
      return taken === undefined ? Effect.void : this.settle(taken, restore, this.begin)
    }
    // MASK: taking an item and settling it belong together, or the report would not add up; waiting and processing are restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.whileLoop({
        while: () => this.hasWork(),
        body: () =>
          intake.ready === undefined
            ? settleNext(restore)
            : Effect.flatMap(restore(intake.ready), () => settleNext(restore)),
        step: () => {}
      })
    )
  }

  /** True if the key is new in this run (Batch-6). */
  isFirst(key: string | undefined): boolean {
    if (key === undefined) return true
    if (this.seen.has(key)) {
      this.tally.duplicates++
      return false
    }
    this.seen.add(key)
    return true
  }

  /** An `onError` that throws is itself a failure, which ends the run. */
  judge(cause: Cause.Cause<E>, item: Item): { cause: Cause.Cause<E>; verdict: Verdict } {
    const { onError } = this.options
    if (Chunk.some(Cause.failures(cause), (error) => error instanceof Superseded)) {
      return { cause, verdict: "fail" }
    }
    if (typeof onError !== "function") {
      return { cause, verdict: Cause.isDie(cause) ? "fail" : onError ?? "fail" }
    }
    try {
      return { cause, verdict: onError(cause, item) }
    } catch (thrown) {
      return { cause: Cause.sequential(cause, Cause.die(thrown)), verdict: "fail" }
    }
  }

  settle(
    { index, item }: Source.Taken<Item>,
    restore: Semaphore.Restore,
    begin: Begin<Item, A, E, R>
  ): Effect.Effect<void, E | E2, R> {
    const { job, options, tally } = this
    return Effect.gen(this, function*() {
      const key = job.key?.(item)
      const { attempts, work } = begin(item, key)
      if (!this.isFirst(key)) return
      // INVARIANT Batch-2: up to the count of its ending, no failure may leave this generator.
      tally.taken++
      const began = yield* exitOf(() => options.onTaken?.(item, index))
      const attributes = () => ({
        "holdfast.batch.job": job.name,
        "holdfast.batch.index": index,
        ...key === undefined ? {} : { "holdfast.batch.key": key }
      })
      const spanned = Effect.withFiberRuntime<Ending<A, E>, E, R>((fiber) =>
        withSpan(fiber, work, "batch.item", attributes, undefined)
      )
      const exit = Exit.isFailure(began) ? began : yield* Effect.exit(restore(spanned))
      const failure = Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)
        ? this.judge(exit.cause, item)
        : undefined
      const ending: Ending<A, E> = Exit.isSuccess(exit)
        ? exit.value
        : failure === undefined
        ? { status: "interrupted" }
        : { status: failure.verdict === "skip" ? "skipped" : "failed", cause: failure.cause }
      tally[ending.status]++
      const settled = yield* exitOf(() =>
        options.onSettled?.({ item, index, attempts: attempts(), ...ending })
      )
      yield* failure?.verdict === "fail" ? both(Exit.failCause(failure.cause), settled) : settled
    })
  }
}

/** For the report of Shutdown.ts, and the exit code of `Main.run`. */
const countDrained = Effect.map(BudgetInForce, (budget) => void budget.drained++)

/** The first exit; if both failed, both causes (L5). */
const both = <A, E, E2>(
  first: Exit.Exit<A, E>,
  second: Exit.Exit<unknown, E2>
): Exit.Exit<A, E | E2> => Exit.isSuccess(second) ? first : withFailure(first, second.cause)

/** The exit of a hook, which may be absent, and may throw. */
const exitOf = <E, R>(
  hook: () => Effect.Effect<unknown, E, R> | undefined
): Effect.Effect<Exit.Exit<unknown, E>, never, R> =>
  Effect.exit(Effect.suspend(() => hook() ?? Effect.void))

/**
 * Runs a job over a source and reports.
 *
 * **Details** — `source` is any iterable or async iterable, endless ones too; a `Stream` by `Stream.toAsyncIterable`. A source
 *   that throws ends the run with a defect. An item that an async source gives after the run has stopped counts as interrupted, and
 *   `onSettled` sees it; a source that does not answer within 5 seconds is abandoned. All items share the resources acquired
 *   around `run`, which are released after the last item has ended (Batch-1). Where the program has a tracer, each item has a
 *   span `holdfast.batch.item`.
 * **Interruption** — No further item starts; with `drain`, running items may finish for `grace`; then they are interrupted and
 *   awaited, and the interrupt is seen.
 * **Errors** — `BatchFailed` with the report and every concurrent failure. With `onError: "collect"` only defects and
 *   failures of `onSettled` end the run. `process`, `commit`, the checkpoint and `onSettled` each have error and context types of
 *   their own. A checkpoint without a `key`, or an invalid option, is a `RangeError` defect.
 * **Cost** — about 2 µs per item.
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
export const run = <
  Item,
  A,
  E,
  R,
  E2 = never,
  R2 = never,
  E3 = never,
  R3 = never,
  E4 = never,
  R4 = never,
  R5 = never
>(
  job: Job<Item, A, E, R, E2, R2>,
  source: Iterable<Item> | AsyncIterable<Item>,
  options: Options<Item, A, NoInfer<E | E2 | E3 | ItemTimeout>, R5, E3, R3, E4, R4> = {}
): Effect.Effect<Report, BatchFailed<E | E2 | E3 | E4 | ItemTimeout>, R | R2 | R3 | R4 | R5> => {
  const site = Ledger.unsafeSite()
  return Effect.suspend(() => {
    Rules.check("Batch.run", options, rules)
    Rules.check("Batch.run, drain", options.drain, drainRules)
    Rules.check("Batch.run, job", { timeout: job.timeout }, { timeout: Rules.positiveDuration })
    if (options.checkpoint !== undefined && job.key === undefined) {
      throw new RangeError(
        `Batch-6: job "${job.name}" has a checkpoint but no \`key\` to remember items by.`
      )
    }
    const run = new Run<Item, A, E | E2 | E3 | ItemTimeout, E4, R | R2 | R3 | R4 | R5>(
      source,
      job,
      beginItem(job, options.checkpoint),
      options
    )
    return Ledger.withSite(Ledger.withOwner(run.supervise(), job.name), site)
  })
}
