/**
 * Managed: a resource as a value. It has a name, an acquire, and a release that sees how its user ended.
 *
 * DESIGN. A descriptor, not a new runtime: yielded in a scope it is `acquireRelease` with a name, a deadline and a ledger
 * entry; in `use` it is a bracket that needs no `Scope`. `Layer.scoped(Tag, managed)` composes it into services as it is.
 *
 * INVARIANTS
 * - Managed-1 (L1) Every successful acquire is followed by exactly one release, whatever the exit.
 * - Managed-2 (L2) Acquire and its registration are one uninterruptible step; only what `acquire` passes to `restore` may
 *   be cut, and an acquire that was cut has registered nothing.
 * - Managed-3 (L4) A release ends by `releaseDeadline` or is abandoned by name: the cause gains `ReleaseTimeout`, the
 *   ledger counts it as abandoned, and the releases after it still run.
 * - Managed-4 (L5) A failing release is appended to the cause of its user's exit; it replaces nothing.
 *
 * COST (2026-11, `npm run bench -- Managed`) `use` about 20 µs, in a scope about 30; of both, a bounded release takes 12 (it
 * forks two fibers), an infinite `releaseDeadline` none. Effect's own brackets, which bound nothing: 2 and 19.
 * NOT DONE here yet: call sites, `onOverrun`, interop with disposables and generators, typed refusal of closed scopes.
 * SOURCES cats-effect `Resource.makeFull` (the restore argument), OTP child specs (a deadline per release).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { exitWithin } from "./internal/deadline.ts"
import * as Ledger from "./Ledger.ts"

/**
 * Makes a part of an acquire interruptible again.
 *
 * @category models
 * @since 0.1.0
 */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * A resource: an effect that acquires it into the current scope, and the parts to bracket it without one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Managed<out A, out E = never, out R = never>
  extends Effect.Effect<A, E, R | Scope.Scope>
{
  readonly name: string
  readonly kind: string
  /** @internal acquires and says how to release; must run inside an uninterruptible region. */
  readonly openInMask: (restore: Restore) => Effect.Effect<Opened<A>, E, R>
}

/** @internal */
export interface Opened<out A> {
  readonly value: A
  /** Ends by the release deadline, whatever the release does; fails (defects only) with what the release failed with. */
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
  /**
   * Of a resource that may change how its user ended (suppress, translate): releases like `close`, within the same bounds,
   * and gives the exit as it is now. To be called instead of `close`, never besides. Undefined when it never changes it.
   */
  readonly exit?:
    | ((exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Exit.Exit<unknown, unknown>>)
    | undefined
}

/**
 * A release did not end by its deadline and was left behind. It is a defect in the cause of the owner's exit.
 *
 * @category errors
 * @since 0.1.0
 */
export class ReleaseTimeout extends Data.TaggedError("ReleaseTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly resource: string
  readonly kind: string
  readonly deadline: Duration.Duration
}> {
  override get message(): string {
    return `The release of ${this.kind} "${this.resource}" did not end within ${
      Duration.format(this.deadline)
    } and was abandoned. `
      + "Raise `releaseDeadline`, or look for what it waits for."
  }
}

/**
 * The owner has been closed: nothing more is acquired into it.
 *
 * @category errors
 * @since 0.1.0
 */
export class OwnerClosed extends Data.TaggedError("OwnerClosed")<{
  /** Who is closed: the name of a stack, or `"scope"`. */
  readonly owner: string
  /** What was asked for. */
  readonly resource: string
}> {
  override get message(): string {
    return `"${this.resource}" was not acquired: its owner "${this.owner}" is closed. `
      + "Acquire it before its owner closes, or in an owner that lives longer."
  }
}

/**
 * What `make` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R, R2> {
  /** Shown by the ledger and in errors. */
  readonly name: string
  /** What sort of thing it is (`"file"`, `"connection"`); the ledger sums by kind. Default `"resource"`. */
  readonly kind?: string | undefined
  /**
   * Runs uninterruptibly; the function form marks with `restore` what may be cut. Where TypeScript loses the type on its way to
   * `release` (`Effect.map(open, (x) => …)` written here), a pipe, a generator or `() => Effect.map(…)` keeps it.
   */
  readonly acquire: Effect.Effect<A, E, R> | ((restore: Restore) => Effect.Effect<A, E, R>)
  /** Sees the exit of its user. Runs once, in a fiber of its own that the owner's interruption does not reach. */
  readonly release: (
    resource: A,
    exit: Exit.Exit<unknown, unknown>
  ) => Effect.Effect<unknown, unknown, R2>
  /** How long the release may take. Default 5 seconds; `Duration.infinity` for no bound. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

const defaultReleaseDeadline = Duration.seconds(5)

/** The ledger's entry of one hold. */
interface Recorded {
  readonly ledger: Ledger.Service
  readonly entry: Ledger.Entry
}

class ManagedImpl<A, E, R, R2> extends Effectable.Class<A, E, R | R2 | Scope.Scope>
  implements Managed<A, E, R | R2>
{
  readonly name: string
  readonly kind: string
  readonly deadline: Duration.Duration
  readonly options: Options<A, E, R, R2>

  constructor(options: Options<A, E, R, R2>) {
    super()
    this.options = options
    this.name = options.name
    this.kind = options.kind ?? "resource"
    this.deadline = options.releaseDeadline === undefined
      ? defaultReleaseDeadline
      : Duration.decode(options.releaseDeadline)
  }

  override commit(): Effect.Effect<A, E, R | R2 | Scope.Scope> {
    // MASK: acquire and registration are one step (Managed-2); waiting is restored by `acquire` itself.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        Effect.scope,
        (scope) =>
          Effect.flatMap(this.openInMask(restore), (opened) =>
            Effect.as(
              Scope.addFinalizerExit(scope, opened.close),
              opened.value
            ))
      )
    )
  }

  openInMask(restore: Restore): Effect.Effect<Opened<A>, E, R | R2> {
    return Effect.flatMap(Effect.context<R | R2>(), (context) => {
      const ledger = Context.get(context, Ledger.Ledger)
      return ledger === undefined
        ? Effect.map(
          this.acquire(restore),
          (value) => ({ value, close: this.closing(value, context, undefined) })
        )
        : this.openRecorded(restore, context, ledger)
    })
  }

  acquire(restore: Restore): Effect.Effect<A, E, R> {
    const { acquire } = this.options
    return Effect.isEffect(acquire) ? acquire : Effect.suspend(() => acquire(restore))
  }

  openRecorded(
    restore: Restore,
    context: Context.Context<R | R2>,
    ledger: Ledger.Service
  ): Effect.Effect<Opened<A>, E, R> {
    return Effect.suspend(() => {
      const entry = ledger.unsafeAcquiring(this.kind, this.name)
      return Effect.matchCauseEffect(this.acquire(restore), {
        onFailure: (cause) => {
          ledger.unsafeGaveUp(entry, cause)
          return Effect.failCause(cause)
        },
        onSuccess: (value) => {
          ledger.unsafeHeld(entry)
          const record: Recorded = { ledger, entry }
          return Effect.succeed({ value, close: this.closing(value, context, record) })
        }
      })
    })
  }

  closing(
    value: A,
    context: Context.Context<R | R2>,
    record: Recorded | undefined
  ): (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void> {
    return (exit) =>
      Effect.suspend(() => {
        record?.ledger.unsafeReleasing(record.entry)
        const release = Effect.provide(
          // suspend: a release callback that throws is a failed release, not a broken scope.
          Effect.suspend(() => this.options.release(value, exit)),
          context
        )
        return Effect.flatMap(exitWithin(release, this.deadline), (ended) => {
          if (Option.isNone(ended)) {
            record?.ledger.unsafeAbandoned(record.entry)
            const { deadline, kind, name } = this
            return Effect.die(new ReleaseTimeout({ resource: name, kind, deadline }))
          }
          record?.ledger.unsafeReleased(
            record.entry,
            Exit.isFailure(ended.value) ? ended.value.cause : undefined
          )
          return Exit.isFailure(ended.value)
            ? Effect.orDie(Effect.failCause(ended.value.cause))
            : Effect.void
        })
      })
  }
}

/**
 * Describes a resource. Nothing is acquired until it is yielded in a scope, handed to `Layer.scoped`, or given to `use`.
 *
 * **Details** — The release sees the exit of its user and is bounded by `releaseDeadline` (default 5 seconds).
 * **Interruption** — Waiting and opening: only inside what `acquire` gave to `restore`; nothing is then registered. Holding:
 *   released once, before the interrupt is seen by whoever waits for the owner.
 * **Errors** — `E` of the acquire passes through. A failed release is a defect in the owner's cause; one that overruns is a
 *   `ReleaseTimeout` there.
 * **Cost** — about 30 µs in a scope, about 20 by `use`; 12 of them are the bounded release.
 * **Source** — cats-effect `Resource.makeFull`; the deadline per release is OTP's.
 *
 * **Example** (the release sees the exit)
 * ```ts run
 * import { Effect, Exit } from "effect"
 * import { Managed } from "holdfast"
 *
 * let seen = "nothing"
 * const door = Managed.make({
 *   name: "door",
 *   acquire: Effect.succeed("open"),
 *   release: (_, exit) => Effect.sync(() => { seen = Exit.isSuccess(exit) ? "left in peace" : "left in a hurry" })
 * })
 * await Effect.runPromiseExit(Effect.scoped(Effect.zipRight(door, Effect.fail("fire"))))
 * seen // => "left in a hurry"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E = never, R = never, R2 = never>(
  options: Options<A, E, R, R2>
): Managed<A, E, R | R2> => new ManagedImpl(options)

/**
 * Acquires, runs `f`, releases: the bracket, without a `Scope` in the context.
 *
 * **Interruption** — Opening: as in `make`. Holding: `f` is cut, the release runs to its end or its deadline, then the
 *   interrupt is seen.
 * **Errors** — `E` of the acquire and of `f`; a failing release is appended to the cause (Managed-4).
 * **Cost** — about 20 µs, 8 with an infinite `releaseDeadline`.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2>(
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): <E, R>(self: Managed<A, E, R>) => Effect.Effect<B, E | E2, R | R2>
  <A, E, R, B, E2, R2>(
    self: Managed<A, E, R>,
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R | R2>
} = dual(
  2,
  <A, E, R, B, E2, R2>(
    self: Managed<A, E, R>,
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R | R2> =>
    // MASK: from the acquire to the release nothing may be cut but `f` itself, which is restored.
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(self.openInMask(restore), ({ close, value }) =>
        Effect.flatMap(
          Effect.exit(restore(Effect.suspend(() => f(value)))),
          (exit) =>
            Effect.matchCauseEffect(close(exit), {
              onSuccess: () => exit,
              onFailure: (cause) =>
                Exit.isFailure(exit)
                  ? Effect.failCause(Cause.sequential(exit.cause, cause))
                  : Effect.failCause(cause)
            })
        ))
    )
)
