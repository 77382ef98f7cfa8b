/**
 * Batch/checkpoint: what remembers the keys of a run, and its errors. ../Batch.ts has the invariants.
 *
 * TO ADD a backend: implement `Checkpoint` as Postgres.ts does.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"

/**
 * The backend of a checkpoint failed. The failures of an item's own effects pass unchanged.
 *
 * @category errors
 * @since 0.1.0
 */
export class CheckpointError extends Data.TaggedError("CheckpointError")<{
  readonly operation: "open" | "begin" | "commit" | "release" | "bury" | "letters"
  readonly run: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `Checkpoint of run "${this.run}": ${this.operation} failed: ${this.cause}`
  }
}

/**
 * A later run of the same name has begun, maybe in another process: this one may commit nothing more.
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
 * An item that is not processed: it has a dead letter, or the process died `maxCrashes` times while it ran.
 *
 * @category errors
 * @since 0.1.0
 */
export class ItemDead extends Data.TaggedError("BatchItemDead")<{
  readonly run: string
  readonly key: string
  readonly reason: "dead" | "crashing"
}> {
  override get message(): string {
    const why = this.reason === "dead"
      ? "an earlier run gave it up"
      : "the process died too often while it ran"
    return `Run "${this.run}": item "${this.key}" has a dead letter: ${why}. `
      + "Look at the dead letters of the run, then retry or discard them."
  }
}

/**
 * An item that a run gave up. `attempts` is 0 if it was not processed.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter {
  readonly key: string
  /** As JSON, by the job's schema if it has one. */
  readonly item: unknown
  readonly attempts: number
  readonly cause: string
}

/**
 * The dead letters of a run. Without `keys`, all of them; the functions give how many there were.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetters<E> {
  readonly list: Effect.Effect<ReadonlyArray<DeadLetter>, E>
  /** The next run of this name processes them. */
  readonly retry: (keys?: ReadonlyArray<string>) => Effect.Effect<number, E>
  /** No run of this name processes them. */
  readonly discard: (keys?: ReadonlyArray<string>) => Effect.Effect<number, E>
}

/**
 * A dead letter to be written.
 *
 * @category models
 * @since 0.1.0
 */
export interface Letter extends DeadLetter {
  readonly schema: Schema.Schema<any, any> | undefined
}

type Failure = CheckpointError | Superseded

/**
 * Remembers which keys of one run are done, in one transaction with their effects, and which are dead.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint {
  readonly run: string
  /** The most items of one transaction. */
  readonly groupSize: number
  /** Called before items are processed: those that must not be. */
  readonly begin: (
    keys: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyMap<string, "done" | ItemDead["reason"]>, Failure>
  /** Marks all keys and runs the effects, or does neither and gives false: one of them was marked before. */
  readonly commit: <E, R>(
    keys: ReadonlyArray<string>,
    effects: Effect.Effect<unknown, E, R>
  ) => Effect.Effect<boolean, E | Failure, R>
  /** An item has ended that is neither done nor dead: the process did not die. */
  readonly release: (key: string) => Effect.Effect<void, Failure>
  readonly bury: (letter: Letter) => Effect.Effect<void, Failure>
}

/**
 * The checkpoint of a program as a service. `layer` of `holdfast/Batch/Postgres` provides it. `run` does not look for it: pass it
 * as the option `checkpoint` (`const checkpoint = yield* Batch.Checkpoint`).
 *
 * @category tags
 * @since 0.1.0
 */
export const Checkpoint = Context.GenericTag<Checkpoint>("holdfast/Batch/Checkpoint")
