/**
 * Batch/engine: one run of a job, shared by its workers. ../Batch.ts has the invariants.
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import type * as Schedule from "effect/Schedule"
import * as Condition from "../internal/condition.ts"
import { BudgetInForce, exitWithin } from "../internal/deadline.ts"
import { prettyOf, withFailure } from "../internal/exit.ts"
import { withSpan } from "../internal/span.ts"
import * as Workers from "../internal/workers.ts"
import { ItemTimeout, type Job } from "../Job.ts"
import * as Nursery from "../Nursery.ts"
import * as Parallel from "../Parallel.ts"
import * as RateLimiter from "../RateLimiter.ts"
import type * as Semaphore from "../Semaphore.ts"
import type { Checkpoint, CheckpointError, ItemDead, Superseded } from "./Checkpoint.ts"
import * as Intake from "./intake.ts"
import {
  BatchFailed,
  type Ending,
  type ItemFailure,
  type Options,
  type Report,
  type Tally,
  type Verdict
} from "./model.ts"

/** The work on one item; `attempts` counts how often `process` has started. */
interface Attempts<A, E, R> {
  readonly work: Effect.Effect<Ending<A, E>, E, R>
  readonly attempts: () => number
}

export type Begin<Item, A, E, R> = (item: Item, key: string | undefined) => Attempts<A, E, R>

type Fatal = (CheckpointError | Superseded | ItemDead)["_tag"]

/** By tag: a run without a checkpoint does not load its errors. */
const failedWith = (cause: Cause.Cause<unknown>, tag: Fatal): boolean =>
  Chunk.some(Cause.failures(cause), Predicate.isTagged(tag))

export const beginItem = <Item, A, E, R>(
  job: Job<Item, A, E, R>,
  checkpoint: Checkpoint | undefined
): Begin<Item, A, E | ItemFailure, R> => {
  type Work = Attempts<A, E | ItemFailure, R>["work"]
  const timeout = job.timeout === undefined ? undefined : Duration.decode(job.timeout)
  // `Job.make` has checked that it takes what `process` fails with.
  const retry = job.retry as Schedule.Schedule<unknown, unknown, R> | undefined
  const done = (value: A) => ({ status: "done", value } as const)
  const alreadyDone = { status: "alreadyDone" } as const
  const processed = (item: Item, attempts: { n: number }): Effect.Effect<A, E | ItemTimeout, R> => {
    const attempt = Effect.suspend(() => {
      const n = ++attempts.n
      const work = job.process(item, n)
      return timeout === undefined ? work : Nursery.timeoutFail(work, {
        duration: timeout,
        onTimeout: () => new ItemTimeout({ job: job.name, attempt: n, timeout })
      })
    })
    return retry === undefined ? attempt : Effect.retry(attempt, retry)
  }
  if (checkpoint === undefined) {
    return (item) => {
      const attempts = { n: 0 }
      const value = processed(item, attempts)
      const { commit, commitAll } = job
      const work: Work = commit === undefined && commitAll === undefined
        ? Effect.map(value, done)
        : Effect.flatMap(value, (value) =>
          Effect.as(
            commitAll?.([{ item, value, attempts: attempts.n }]) ??
              commit!(item, value, attempts.n),
            done(value)
          ))
      return { work, attempts: () => attempts.n }
    }
  }
  const attached = checkpoint.attach(job)
  return (item, key = "") => {
    const attempts = { n: 0 }
    const fresh = Effect.flatMap(
      processed(item, attempts),
      (value) =>
        Effect.map(
          attached.commit({ key, item, value, attempts: attempts.n }),
          (isNew) => isNew ? done(value) : alreadyDone
        )
    )
    const work: Work = Effect.flatMap(
      attached.isDone(key),
      (isDone) => isDone ? Effect.succeed(alreadyDone) : fresh
    )
    return { work, attempts: () => attempts.n }
  }
}

/** For an item that the source gave after the last worker had ended. */
const notBegun: Attempts<never, never, never> = { work: Effect.interrupt, attempts: () => 0 }

const silent = Effect.succeed({ once: Effect.void, repeated: Effect.never })

/** The name, key and schema of a job: what a run needs of it beside the work. */
type Named<Item> = Pick<Job<Item, unknown, unknown, unknown>, "name" | "key" | "item">

type RunFailure<E, E2> = E | E2 | ItemFailure

/** Items fail with `E`, the source and the hooks with `E2`. */
export class Run<Item, A, E, E2, R> {
  readonly group = Workers.makeGroup<RunFailure<E, E2>>()
  readonly seen = new Set<string>()
  /** Written by `settle` and what it calls. */
  readonly tally: { -readonly [K in keyof Tally]: number } = {
    taken: 0,
    done: 0,
    alreadyDone: 0,
    skipped: 0,
    failed: 0,
    interrupted: 0,
    duplicates: 0
  }
  /** Counted as skipped, or about to be when its dead letter is written (Batch-7). */
  skipping = 0
  readonly intake: Intake.Intake<Item, E2, R>
  readonly job: Named<Item>
  readonly begin: Begin<Item, A, E, R>
  readonly options: Options<Item, A, E, E2, R>
  readonly total: number | undefined

  constructor(
    source: Intake.Source<Item, E2, R>,
    job: Named<Item>,
    begin: Begin<Item, A, E, R>,
    options: Options<Item, A, E, E2, R>
  ) {
    this.intake = Intake.open(source, this.group)
    this.job = job
    this.begin = begin
    this.options = options
    this.total = Array.isArray(source) ? source.length : undefined
  }

  hasWork(): boolean {
    return !this.group.stopped && !this.intake.isExhausted()
  }

  /** Forks the workers, watches for a drain, and closes the source after the last of them. */
  supervise(): Effect.Effect<Report, BatchFailed<RunFailure<E, E2>>, R> {
    const { group, intake, options, tally, total } = this
    const { concurrency = 16, drain } = options
    const grace = Duration.decode(drain?.grace ?? "25 seconds")
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
      Effect.zipRight(Effect.sync(() => Workers.cut(group)))
    )
    // Without its watcher the run cannot be drained, so it fails with the cause.
    const watch = (watcher: Effect.Effect<unknown, E2, R>) =>
      Effect.forkDaemon(Effect.interruptible(
        Effect.catchAllCause(watcher, (cause) => Effect.sync(() => Workers.fail(group, cause)))
      ))
    // MASK: the watchers and the source must be ended whatever the workers' end; `workers` is restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(this, function*() {
        const progress = yield* options.progress?.(tally, total) ?? silent
        const watchers = [yield* watch(drainOnRequest), yield* watch(progress.repeated)]
        const ended = yield* Effect.exit(restore(workers))
        yield* Fiber.interruptAll(watchers)
        const closed = yield* Effect.exit(Effect.flatMap(
          intake.close,
          (late) => late === undefined ? Effect.void : this.settle(late, restore, () => notBegun)
        ))
        const shown = yield* Effect.exit(progress.once)
        return yield* this.reported(both(both(ended, closed), shown))
      })
    )
  }

  reported(
    exit: Exit.Exit<void, RunFailure<E, E2>>
  ): Effect.Effect<Report, BatchFailed<RunFailure<E, E2>>> {
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

  worker(): Effect.Effect<void, RunFailure<E, E2>, R> {
    const { group, intake, options: { rate } } = this
    const stopped = Condition.wait(group.changed, () => group.stopped)
    const start = (taken: Intake.Taken<Item>, restore: Semaphore.Restore) => {
      const settle = () => this.settle(taken, restore, group.stopped ? () => notBegun : this.begin)
      // Paced after it is taken: before, the end of the source would have to wait for its turn too.
      return rate === undefined ? settle() : Effect.flatMap(
        Effect.exit(restore(Parallel.raceFirst(RateLimiter.withLimit(Effect.void, rate), stopped))),
        settle
      )
    }
    const settleNext = (restore: Semaphore.Restore) => {
      const taken = group.stopped ? undefined : intake.take()
      if (taken === undefined) return Effect.void
      return Cause.isCause(taken) ? Effect.failCause(taken) : start(taken, restore)
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

  readonly attributesOf = (
    { index, key }: { readonly index: number; readonly key?: string | undefined }
  ) => ({
    "holdfast.batch.job": this.job.name,
    "holdfast.batch.index": index,
    ...key !== undefined && { "holdfast.batch.key": key }
  })

  /** An `onError` that throws is itself a failure, which ends the run. */
  judge(cause: Cause.Cause<E>, item: Item): { cause: Cause.Cause<E>; verdict: Verdict } {
    const { onError } = this.options
    if (failedWith(cause, "BatchSuperseded")) return { cause, verdict: "fail" }
    if (failedWith(cause, "BatchItemDead")) return this.limited(cause)
    try {
      const verdict = typeof onError === "function"
        ? onError(cause, item)
        : Cause.isDie(cause) || failedWith(cause, "CheckpointError")
        ? "fail"
        : onError ?? "fail"
      return verdict === "skip" ? this.limited(cause) : { cause, verdict }
    } catch (thrown) {
      return { cause: Cause.sequential(cause, Cause.die(thrown)), verdict: "fail" }
    }
  }

  /** INVARIANT Batch-7: counted before anything is awaited, so the limit holds for all workers together. */
  limited(cause: Cause.Cause<E>): { cause: Cause.Cause<E>; verdict: Verdict } {
    const isOver = this.skipping >= (this.options.skipLimit ?? Infinity)
    if (!isOver) this.skipping++
    return { cause, verdict: isOver ? "fail" : "skip" }
  }

  settle(
    { item }: Intake.Taken<Item>,
    restore: Semaphore.Restore,
    begin: Begin<Item, A, E, R>
  ): Effect.Effect<unknown, RunFailure<E, E2>, R> {
    const key = this.job.key?.(item)
    // INVARIANT Batch-6.
    if (key !== undefined && this.seen.has(key)) {
      return Effect.sync(() => this.tally.duplicates++)
    }
    if (key !== undefined) this.seen.add(key)
    const { attempts, work } = begin(item, key)
    // INVARIANT Batch-2: up to the count of its ending, no failure may leave this function.
    const taken = { item, index: this.tally.taken++ }
    return Effect.matchCauseEffect(
      restore(
        Effect.withFiberRuntime<Ending<A, E>, E, R>((fiber) =>
          withSpan(fiber, work, "batch.item", this.attributesOf, { index: taken.index, key })
        )
      ),
      {
        onSuccess: (ending) => {
          this.tally[ending.status]++
          return this.settled(taken, attempts(), ending)
        },
        onFailure: (cause) => this.failed(taken, key, attempts(), cause)
      }
    )
  }

  /** Judges a failure, writes a dead letter before the item counts as skipped, and counts. */
  failed(
    taken: Intake.Taken<Item>,
    key: string | undefined,
    attempts: number,
    found: Cause.Cause<E>
  ): Effect.Effect<unknown, RunFailure<E, E2>, R> {
    const { options: { checkpoint }, tally } = this
    const isInterrupted = Cause.isInterruptedOnly(found)
    const { cause, verdict } = isInterrupted
      ? { cause: found, verdict: "collect" as const }
      : this.judge(found, taken.item)
    const written = Effect.suspend((): Effect.Effect<void, ItemFailure> =>
      checkpoint === undefined || key === undefined
        ? Effect.void
        : verdict !== "skip"
        ? checkpoint.release(key)
        : checkpoint.bury({
          key,
          item: taken.item,
          schema: this.job.item,
          attempts,
          cause: prettyOf(cause)
        })
    )
    return Effect.flatMap(Effect.exit(written), (letter) => {
      const isLost = Exit.isFailure(letter)
      const ending: Ending<A, E> = isInterrupted
        ? { status: "interrupted" }
        : { status: verdict === "skip" && !isLost ? "skipped" : "failed", cause }
      tally[ending.status]++
      return Effect.flatMap(Effect.exit(this.settled(taken, attempts, ending)), (settled) => {
        const own = verdict === "fail" || isLost ? Exit.failCause(cause) : Exit.void
        return both(both(own, letter), settled)
      })
    })
  }

  /** The hook, which may throw. */
  settled(
    { index, item }: Intake.Taken<Item>,
    attempts: number,
    ending: Ending<A, E>
  ): Effect.Effect<unknown, E2, R> {
    const { onSettled } = this.options
    if (onSettled === undefined) return Effect.void
    return Effect.suspend(() => onSettled({ item, index, attempts, ...ending }))
  }
}

/** For the report of Shutdown.ts, and the exit code of `Main.run`. */
const countDrained = Effect.map(BudgetInForce, (budget) => void budget.drained++)

/** The first exit; if both failed, both causes (L5). */
const both = <A, E, E2>(
  first: Exit.Exit<A, E>,
  second: Exit.Exit<unknown, E2>
): Exit.Exit<A, E | E2> => Exit.isSuccess(second) ? first : withFailure(first, second.cause)
