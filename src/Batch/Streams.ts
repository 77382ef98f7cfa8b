/**
 * Batch/Streams: a stream as the source of a batch, and the outcomes of a batch as a stream.
 *
 * INVARIANTS
 * - BatchStreams-1 The failure of a stream that is a source ends the run with that failure, typed.
 * - BatchStreams-2 `outcomes` gives each outcome once and, `ordered`, in the order of the source; items wait for a slow reader, and
 *   a reader that leaves ends the run.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Batch from "../Batch.ts"
import * as Condition from "../internal/condition.ts"
import type * as Job from "../Job.ts"

/**
 * A stream as the source of a batch, for one run. It is pulled by free workers only, and closed when the run ends.
 *
 * **Errors** — a failure of the stream ends the run with that failure, in `BatchFailed`. **Cost** — a fork per item.
 *
 * **Example**
 * ```ts run
 * import { Effect, Stream } from "effect"
 * import { Batch } from "holdfast"
 * import * as BatchStreams from "holdfast/Batch/Streams"
 *
 * const job = { name: "count", process: (n: number) => Effect.succeed(n) }
 * const report = await Effect.runPromise(Batch.run(job, BatchStreams.source(Stream.range(1, 5))))
 * report.done // => 5
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const source = <Item, E, R>(stream: Stream.Stream<Item, E, R>): Batch.Source<Item, E, R> => {
  const scope = Effect.runSync(Scope.make())
  let pull: Effect.Effect<Chunk.Chunk<Item>, Option.Option<E>, R> | undefined
  let asked: Fiber.RuntimeFiber<Batch.Answer<Item, E>> | undefined
  const opened = Effect.suspend(() =>
    pull === undefined
      // One item at a time: the rest of a chunk would be lost to the report.
      ? Effect.map(
        Scope.extend(Stream.toPull(Stream.rechunk(stream, 1)), scope),
        (it) => pull = it
      )
      : Effect.succeed(pull)
  )
  const next = Effect.matchCause(Effect.flatten(opened), {
    onFailure: (cause): Batch.Answer<Item, E> =>
      Option.match(Cause.flipCauseOption(cause), {
        onNone: () => Exit.succeed(Option.none()),
        onSome: Exit.failCause
      }),
    onSuccess: (chunk): Batch.Answer<Item, E> => Exit.succeed(Chunk.head(chunk))
  })
  return {
    ask: (answered) =>
      Effect.map(Effect.forkDaemon(Effect.interruptible(next)), (fiber) => {
        asked = fiber
        fiber.addObserver((exit) => answered(Exit.flatten(exit)))
      }),
    close: Effect.zipRight(
      Effect.suspend(() => asked === undefined ? Effect.void : Fiber.interrupt(asked)),
      Scope.close(scope, Exit.void)
    )
  }
}

/**
 * Runs a job over a source and gives how each item ended, as a stream. A failed or skipped item has its place in it too.
 *
 * **Details** — With `ordered`, in the order of the source: at most `window` (default four times the concurrency) items wait for
 *   an earlier one, or for the reader. **Interruption**, and a reader that ends early — as an interrupted `run`.
 * **Errors** — `BatchFailed`, after the outcomes. **Cost** — about 2 µs per item over those of `run`.
 *
 * **Example** (the results as an array, in order)
 * ```ts run
 * import { Effect, Stream } from "effect"
 * import { Job } from "holdfast"
 * import * as BatchStreams from "holdfast/Batch/Streams"
 *
 * const square = Job.make({ name: "square", process: (n: number) => Effect.succeed(n * n) })
 * const squares = BatchStreams.outcomes(square, [1, 2, 3], { ordered: true }).pipe(
 *   Stream.map((outcome) => outcome.status === "done" ? outcome.value : undefined),
 *   Stream.runCollect
 * )
 * Array.from(await Effect.runPromise(squares)) // => [1, 4, 9]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const outcomes = <Item, A, E, R, E2 = never, R2 = never, E3 = never, R3 = never>(
  job: Job.Job<Item, A, E, R>,
  source: Batch.Source<Item, E2, R2>,
  { ordered = false, window, ...options }:
    & Omit<Batch.Options<Item, A, NoInfer<E | Batch.ItemFailure>, E3, R3>, "onSettled">
    & { readonly ordered?: boolean; readonly window?: number } = {}
): Stream.Stream<
  Batch.Outcome<Item, A, E | Batch.ItemFailure>,
  Batch.BatchFailed<E | E2 | E3 | Batch.ItemFailure>,
  R | R2 | R3
> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const room = window ?? 4 * (options.concurrency ?? 16)
    const changed = Condition.make()
    const settled = new Map<number, Batch.Outcome<Item, A, E | Batch.ItemFailure>>()
    let next = 0
    let isClosed = false
    const hasNext = () => ordered ? settled.has(next) : settled.size > 0
    const onSettled = (outcome: Batch.Outcome<Item, A, E | Batch.ItemFailure>) => {
      settled.set(outcome.index, outcome)
      Condition.notify(changed)
      const fits = () => isClosed || (ordered ? outcome.index - next < room : settled.size < room)
      // It ends the run when the reader has left. A wait that is met at once would never yield.
      const end = Effect.suspend(() => isClosed ? Effect.interrupt : Effect.void)
      return fits() ? end : Effect.zipRight(Condition.wait(changed, fits), end)
    }
    let ended:
      | Exit.Exit<Batch.Report, Batch.BatchFailed<E | E2 | E3 | Batch.ItemFailure>>
      | undefined
    const fiber = yield* Effect.acquireRelease(
      Effect.forkDaemon(Effect.interruptible(Batch.run(job, source, { ...options, onSettled }))),
      (fiber) => {
        // Items that wait for the reader must not wait for ever.
        isClosed = true
        Condition.notify(changed)
        return Fiber.interrupt(fiber)
      }
    )
    fiber.addObserver((exit) => {
      ended = exit
      Condition.notify(changed)
    })
    const take = () => {
      const outcomes = []
      for (const [index, outcome] of ordered ? inOrder(settled, next) : settled) {
        outcomes.push(outcome)
        settled.delete(index)
        next++
      }
      Condition.notify(changed)
      return Chunk.unsafeFromArray(outcomes)
    }
    const end = () =>
      ended !== undefined && Exit.isFailure(ended)
        ? Effect.failCause(Cause.map(ended.cause, Option.some))
        : Effect.fail(Option.none())
    return Stream.repeatEffectChunkOption(
      Effect.flatMap(
        Condition.wait(changed, () => hasNext() || ended !== undefined),
        () => hasNext() ? Effect.sync(take) : end()
      )
    )
  }))

function* inOrder<A>(
  settled: ReadonlyMap<number, A>,
  from: number
): Generator<readonly [number, A]> {
  for (let at = from; settled.has(at); at++) yield [at, settled.get(at)!]
}
