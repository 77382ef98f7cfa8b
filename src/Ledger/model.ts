/** model: the public types of a ledger, which `Ledger.ts` exports and its other files share. */
import type * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Inspectable from "effect/Inspectable"
import type * as Pipeable from "effect/Pipeable"
import * as Words from "./words.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Ledger")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * How a ledger records the line that made a request: not at all, that line, or the user's whole stack.
 *
 * @category models
 * @since 0.1.0
 */
export type Sites = "off" | "first" | "full"

/**
 * The options of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default `"first"`. */
  readonly sites?: Sites | undefined
  /** How many ended entries a snapshot shows. Default 1,000. */
  readonly history?: number | undefined
  /**
   * Whether to update `Metric`, all by the label `holdfast.resource.kind`: the gauge `holdfast.resource.count` by
   * `holdfast.resource.state`; the histograms `holdfast.resource.acquire.duration`, `.use.duration` and `.release.duration`,
   * in seconds; the counters `holdfast.resource.failures` (of acquires and releases), `.abandoned` and `.leaked`. Default
   * `false`.
   */
  readonly metrics?: boolean | undefined
  /** The kinds that `leakAfter` applies to, such as `["lock", "pool lease"]`. Default: all. */
  readonly leakKinds?: ReadonlyArray<string> | undefined
}

/**
 * The options of `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LayerOptions extends Options {
  /** Log one warning for each resource held for longer, and for each deadlock. Default: never; 0 and Infinity: never. */
  readonly leakAfter?: Duration.DurationInput | undefined
}

/**
 * The state of a hold. `failed`: its acquire failed (it was never held) or its release failed.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "acquiring" | "held" | "releasing" | "released" | "failed" | "abandoned"

/**
 * One hold of one resource. Times are in milliseconds of the ledger's `Clock`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Unique in its ledger, ascending. */
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: State
  /** When it entered `state`. */
  readonly since: number
  /** The owners it was requested in, the outermost first: see `withOwner`. */
  readonly owner: ReadonlyArray<string>
  /** The fiber that made the request: `"#12"`. */
  readonly fiber: string | undefined
  /** The span in which the request was made. */
  readonly span: string | undefined
  /**
   * The line that made the request: `"openDb (/app/src/db.ts:12:10)"`; with sites `"full"` the user's stack, a line each. Where
   * Effect made it on the user's behalf (a pipe, `Layer.scoped`, `Effect.all`) it is the line that described the resource.
   */
  readonly site: string | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  /** The ids of the entries that hold what this one waits for; the first 100. */
  readonly blockedBy: ReadonlyArray<number>
  readonly requestedAt: number
  readonly heldAt: number | undefined
  readonly releasingAt: number | undefined
  readonly endedAt: number | undefined
  /** Why it failed or was abandoned. */
  readonly cause: string | undefined
}

/**
 * How many holds of one kind began and how they ended. `failed` counts the releases, already in `released`, that ended in
 * a failure of their own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Totals {
  readonly acquired: number
  readonly released: number
  readonly failed: number
  readonly abandoned: number
}

/**
 * Fibers that wait for each other in a circle: `waiter` waits for what `holder` holds, which belongs to the fiber of the next
 * waiter, and so on. Ids of entries.
 *
 * @category models
 * @since 0.1.0
 */
export interface Deadlock {
  readonly waits: ReadonlyArray<{ readonly waiter: number; readonly holder: number }>
}

/**
 * A consistent copy of the ledger at one instant. Entries that wait, are held or are being released stand in `live` by
 * ascending id, ended ones in `ended` with the oldest end first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly takenAt: number
  readonly total: Totals
  readonly kinds: Readonly<Record<string, Totals>>
  readonly live: ReadonlyArray<Entry>
  readonly ended: ReadonlyArray<Entry>
  readonly deadlocks: ReadonlyArray<Deadlock>
}

/**
 * A change: `entry` after it. `seq` counts up by one for each change of the ledger.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event {
  readonly seq: number
  readonly at: number
  readonly entry: Entry
}

/**
 * Resources are held where none should be. The entries name them.
 *
 * @category errors
 * @since 0.1.0
 */
export class StillHeld extends Data.TaggedError("StillHeld")<{
  readonly entries: ReadonlyArray<Entry>
}> {
  override get message(): string {
    return Words.describeStillHeld(this.entries)
  }
}

/**
 * A captured line of the user's code. Its text is computed on the first read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Site {
  readonly text: string | undefined
  /** Converts it to text, so that it no longer keeps the frames, and what they close over, alive. */
  readonly settle?: (() => void) | undefined
}

/**
 * The details of a hold that a module records when it begins.
 *
 * @category models
 * @since 0.1.0
 */
export interface Details {
  readonly site?: Site | undefined
  readonly attributes?: Readonly<Record<string, unknown>> | undefined
  /** The entries that hold what this one waits for. Called for each snapshot while it waits. */
  readonly blockedBy?: (() => Iterable<Entry>) | undefined
  /**
   * Whether it would be served if the holders for which `releases` is true released. Default: one of `blockedBy` is enough. The
   * search for deadlocks calls it repeatedly with more and more of them: once true, it must stay true.
   */
  readonly isServedIf?: ((releases: (holder: Entry) => boolean) => boolean) | undefined
  /** Waits with the same `alike` have the same answer of `isServedIf`, so that it is called once for all of them. */
  readonly alike?: object | undefined
  /** The fiber that makes the request. Default: the current fiber. */
  readonly fiber?: Fiber.RuntimeFiber<unknown, unknown> | undefined
}

/**
 * The write operations, for modules that acquire. Each is synchronous and must be called in the same step as the change that it
 * records; the time is that of the ledger's own clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  /** Opens an entry in state `acquiring`. */
  readonly unsafeAcquiring: (kind: string, name: string, details?: Details) => Entry
  /** The acquire failed or was interrupted: nothing is counted. */
  readonly unsafeGaveUp: (entry: Entry, cause?: Cause.Cause<unknown>) => void
  readonly unsafeHeld: (entry: Entry, attributes?: Readonly<Record<string, unknown>>) => void
  readonly unsafeReleasing: (entry: Entry) => void
  readonly unsafeReleased: (entry: Entry, failure?: Cause.Cause<unknown>) => void
  readonly unsafeAbandoned: (entry: Entry, cause?: Cause.Cause<unknown>) => void
}

/**
 * A ledger: its write and read operations.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service extends Recorder, Pipeable.Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: TypeId
  readonly sites: Sites
  readonly snapshot: Effect.Effect<Snapshot>
  readonly unsafeSnapshot: () => Snapshot
  /** Fails with the live entries, if there are any. */
  readonly assertEmpty: Effect.Effect<void, StillHeld>
  /** The entries held for longer, the oldest first. */
  readonly leaks: (olderThan: Duration.DurationInput) => Effect.Effect<ReadonlyArray<Entry>>
  /** In words, each once: entries held for longer than `leakAfter`, and deadlocks. */
  readonly unsafeOverdue: (leakAfter: Duration.Duration) => ReadonlyArray<string>
  /** Calls `listener` in the step of each change, until the returned function is called. It must not throw. */
  readonly unsafeListen: (listener: (event: Event) => void) => () => void
}
