/**
 * Job: the work on each item of a batch.
 *
 * DESIGN. A job says nothing about where it runs, how many items run at once, or what remembers the done ones: those are options
 * of `Batch.run`. `process` runs outside any transaction, so it may run again after a crash. `commit` runs inside the transaction
 * that marks the item as done.
 *
 * INVARIANTS
 * - Job-1 (L8) A job has one error and one context, those of `process` and `commit` together, inferred.
 *
 * SOURCES River's JobCompleteTx, Spring Batch's processor and writer.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Schedule from "effect/Schedule"
import type * as Schema from "effect/Schema"

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
 * An item whose `process` has succeeded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Processed<Item, A> {
  readonly item: Item
  readonly value: A
  readonly attempts: number
}

/**
 * What a job says beside its commits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Work<Item, A, E, R> {
  readonly name: string
  /** Names an item across runs; needed for a checkpoint. Items of one key are one item. */
  readonly key?: ((item: Item) => string) | undefined
  /** At least once: no transaction is held while it runs. `attempt` counts from 1. */
  readonly process: (item: Item, attempt: number) => Effect.Effect<A, E, R>
  /** Bound of each attempt. Default: none. */
  readonly timeout?: Duration.DurationInput | undefined
}

/**
 * The effects of an item that exist exactly once, with a checkpoint: they run inside its transaction.
 *
 * @category models
 * @since 0.1.0
 */
export interface Commits<Item, A, E, R> {
  readonly commit?:
    | ((item: Item, value: A, attempts: number) => Effect.Effect<unknown, E, R>)
    | undefined
  /** In the place of `commit`: all items of one transaction at once. If it fails, it runs again for each item alone. */
  readonly commitAll?:
    | ((group: ReadonlyArray<Processed<Item, A>>) => Effect.Effect<unknown, E, R>)
    | undefined
}

/**
 * The work on each item. `make` infers `E` and `R` from parts that differ in them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Job<Item, A, E, R> extends Work<Item, A, E, R>, Commits<Item, A, E, R> {
  /** How a dead letter of an item is written. Default: as JSON. */
  readonly item?: Schema.Schema<Item, any> | undefined
  /** When to try `process` again. Default: never. */
  readonly retry?: Schedule.Schedule<unknown, never, R> | undefined
}

/**
 * A job whose `process` and `commit` may differ in errors and context.
 *
 * **Example**
 * ```ts run
 * import { Effect, Schedule, Schema } from "effect"
 * import { Batch, Job } from "holdfast"
 *
 * const welcome = Job.make({
 *   name: "welcome",
 *   item: Schema.Struct({ id: Schema.Number, name: Schema.String }),
 *   key: ({ id }) => `${id}`,
 *   process: ({ name }) => name === "" ? Effect.fail("no name") : Effect.succeed(`Hello ${name}`),
 *   retry: Schedule.recurs(1),
 *   timeout: "10 seconds"
 * })
 * const people = [{ id: 1, name: "Ann" }, { id: 2, name: "" }]
 * const { done, skipped } = await Effect.runPromise(Batch.run(welcome, people, { onError: "skip" }))
 * const seen = { done, skipped }
 * seen // => { done: 1, skipped: 1 }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <Item, A, E, R, E2 = never, R2 = never, I = Item>(
  spec: Work<Item, A, E, R> & Commits<Item, A, E2, R2> & {
    readonly item?: Schema.Schema<Item, I> | undefined
    readonly retry?: Schedule.Schedule<unknown, NoInfer<E> | ItemTimeout, NoInfer<R>> | undefined
  }
): Job<Item, A, E | E2, R | R2> => spec
