/**
 * Batch/Checkpoint: what remembers the done and the dead items of a run, from a backend that answers many keys at once.
 *
 * DESIGN. Requests of many workers are joined into few larger ones. There is no fiber of its own and no timer: a worker that finds
 * nobody at work leads; it answers all that has gathered, its own request included, while later ones gather. Another leads beside
 * it as soon as a whole group waits. Alone, a request waits for one yield.
 *
 * INVARIANTS
 * - BatchCheckpoint-1 Each request is in one group and gets one exit; an interrupted one that waits leaves its place, one that
 *   is in a group waits for the group.
 * - BatchCheckpoint-2 Items that share a transaction are committed together or, if that fails, each alone: an item that fails spoils no
 *   other.
 *
 * TO ADD a backend: implement `Backend` as Postgres.ts does.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Schema from "effect/Schema"
import * as Condition from "../internal/condition.ts"
import type { Commits, Processed } from "../Job.ts"

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

/**
 * The failures of a checkpoint.
 *
 * @category errors
 * @since 0.1.0
 */
export type CheckpointFailure = CheckpointError | Superseded

type State = "done" | ItemDead["reason"]

/**
 * An item to be marked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Marked<Item, A> extends Processed<Item, A> {
  readonly key: string
}

/**
 * Remembers which keys of one run are done and which are dead. `make` makes one from a backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint {
  readonly run: string
  readonly attach: <Item, A, E, R>(job: Commits<Item, A, E, R>) => {
    /** Called before an item is processed. */
    readonly isDone: (key: string) => Effect.Effect<boolean, CheckpointFailure | ItemDead>
    /** Marks the item and runs its effects, or does neither and gives false: it was marked before. */
    readonly commit: (marked: Marked<Item, A>) => Effect.Effect<boolean, E | CheckpointFailure, R>
  }
  /** An item has ended that is neither done nor dead: the process did not die. */
  readonly release: (key: string) => Effect.Effect<void, CheckpointFailure>
  readonly bury: (letter: Letter) => Effect.Effect<void, CheckpointFailure>
}

/**
 * The checkpoint of a program as a service. `layer` of `holdfast/Batch/Postgres` provides it. `run` does not look for it: pass it
 * as the option `checkpoint` (`const checkpoint = yield* Checkpoint.Checkpoint`).
 *
 * @category tags
 * @since 0.1.0
 */
export const Checkpoint = Context.GenericTag<Checkpoint>("holdfast/Batch/Checkpoint")

/**
 * Remembers which keys of one run are done, in one transaction with their effects, and which are dead.
 *
 * @category models
 * @since 0.1.0
 */
export interface Backend extends Pick<Checkpoint, "run" | "release" | "bury"> {
  /** The most items of one transaction. */
  readonly groupSize: number
  /** Called before items are processed: those that must not be. */
  readonly begin: (
    keys: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyMap<string, State>, CheckpointFailure>
  /** Marks all keys and runs the effects, or does neither and gives false: one of them was marked before. */
  readonly commit: <E, R>(
    keys: ReadonlyArray<string>,
    effects: Effect.Effect<unknown, E, R>
  ) => Effect.Effect<boolean, E | CheckpointFailure, R>
}

interface Request<In, Out, E> {
  readonly input: In
  exit: Exit.Exit<Out, E> | undefined
}

/** `answer` gives one exit for each input, in their order; if it fails, all of them fail so. */
const grouped = <In, Out, E, R>(
  size: number,
  answer: (inputs: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Exit.Exit<Out, E>>, E, R>
): (input: In) => Effect.Effect<Out, E, R> => {
  const waiting: Array<Request<In, Out, E>> = []
  const changed = Condition.make()
  let leaders = 0
  let isGathering = false
  const mayLead = () =>
    !isGathering && waiting.length > 0 && (leaders === 0 || waiting.length >= size)
  // MASK: a group that was taken is answered; the answer itself is restored.
  const lead = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      leaders++
      isGathering = true
      // Those that are ready in this turn of the event loop join in.
      return Effect.flatMap(size === 1 ? Effect.void : Effect.yieldNow(), () => {
        isGathering = false
        const group = waiting.splice(0, size)
        Condition.notify(changed)
        const inputs = group.map(({ input }) => input)
        return Effect.map(Effect.exit(restore(Effect.suspend(() => answer(inputs)))), (exit) => {
          leaders--
          for (const [index, request] of group.entries()) {
            request.exit = Exit.isSuccess(exit) ? exit.value[index]! : Exit.failCause(exit.cause)
          }
          Condition.notify(changed)
        })
      })
    })
  )
  return (input) =>
    // MASK: a request that a leader has taken is not left; its wait for one is restored.
    Effect.uninterruptibleMask((restore) => {
      const request: Request<In, Out, E> = { input, exit: undefined }
      const isAnswered = () => request.exit !== undefined
      waiting.push(request)
      const leave = Effect.suspend(() => {
        const at = waiting.indexOf(request)
        if (at < 0) return Condition.wait(changed, isAnswered)
        waiting.splice(at, 1)
        return Effect.void
      })
      const wait = Condition.wait(changed, () => isAnswered() || mayLead())
      return Effect.matchCauseEffect(
        Effect.whileLoop({
          while: () => !isAnswered(),
          body: () => restore(mayLead() ? lead : wait),
          step: () => {}
        }),
        {
          onFailure: (cause) =>
            Effect.flatMap(leave, () => request.exit ?? Effect.failCause(cause)),
          onSuccess: () => request.exit!
        }
      )
    })
}

/** INVARIANT BatchCheckpoint-2. */
const committer = <Item, A, E, R>(
  { commit, groupSize }: Backend,
  job: Commits<Item, A, E, R>
) => {
  const effectsOf = (group: ReadonlyArray<Marked<Item, A>>): Effect.Effect<unknown, E, R> =>
    Effect.suspend(() =>
      job.commitAll?.(group)
        ?? Effect.forEach(
          group,
          ({ attempts, item, value }) => job.commit?.(item, value, attempts) ?? Effect.void,
          { discard: true }
        )
    )
  const commitGroup = (group: ReadonlyArray<Marked<Item, A>>) =>
    Effect.exit(commit(group.map(({ key }) => key), effectsOf(group)))
  type Ended = Exit.Exit<boolean, E | CheckpointFailure>
  /** Whether to try each item alone would change nothing. */
  const isFinal = (exit: Ended) =>
    Exit.isSuccess(exit)
      ? exit.value
      : Cause.isInterruptedOnly(exit.cause) ||
        Chunk.some(Cause.failures(exit.cause), (error) => error instanceof Superseded)
  return grouped(
    groupSize,
    (group: ReadonlyArray<Marked<Item, A>>): Effect.Effect<ReadonlyArray<Ended>, never, R> =>
      Effect.flatMap(commitGroup(group), (exit) =>
        group.length === 1 || isFinal(exit)
          ? Effect.succeed(group.map(() => exit))
          : Effect.forEach(group, (one) => commitGroup([one])))
  )
}

/**
 * A checkpoint that joins lookups and commits of items that wait at the same time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backend: Backend): Checkpoint => ({
  run: backend.run,
  release: backend.release,
  bury: backend.bury,
  attach: (job) => ({
    isDone: grouped(
      backend.groupSize,
      (keys: ReadonlyArray<string>) =>
        Effect.map(
          backend.begin(keys),
          (known) =>
            keys.map((key): Exit.Exit<boolean, CheckpointFailure | ItemDead> => {
              const state = known.get(key)
              return state === undefined || state === "done"
                ? Exit.succeed(state === "done")
                : Exit.fail(new ItemDead({ run: backend.run, key, reason: state }))
            })
        )
    ),
    commit: committer(backend, job)
  })
})
