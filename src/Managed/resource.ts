/**
 * resource: what every form of `Managed` is made of: the types, the release of one hold, the way into a scope.
 *
 * DESIGN. Every form is one method, `openInMask`. The `Opened` that it gives says how to close what it opened, and its caller is
 * the owner. The forms: `Single` (one acquire with its release, the hot path), `Derived` (one that changes only the value of
 * another), and several together (all.ts, `flatMap`), which combine the closes of their members.
 *
 * INVARIANTS those of Managed.ts, named where they are kept.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Exit from "effect/Exit"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { releaseDeadlineOf } from "../internal/deadline.ts"
import { asDefects, interruptsAsDefects, releaseOf, withFailure } from "../internal/exit.ts"
import { ownerClosed, ownInScope } from "../internal/handover.ts"
import * as Lent from "../internal/lent.ts"
import * as Rules from "../internal/options.ts"
import * as Release from "../internal/release.ts"
import { type AnyFiber, contextIn, currentFiber, isClosed, isInstant } from "../internal/runtime.ts"
import * as Ledger from "../Ledger.ts"
import * as Shutdown from "../Shutdown.ts"

/**
 * Makes a part of an acquire interruptible again.
 *
 * @category models
 * @since 0.1.0
 */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Identifies a `Managed`.
 *
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Managed")

/**
 * The type of `TypeId`.
 *
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A resource: an effect that acquires it into the current scope, and the parts to bracket it without one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Managed<out A, out E = never, out R = never>
  extends Effect.Effect<A, E, R | Scope.Scope>, Inspectable.Inspectable
{
  readonly [TypeId]: {
    readonly _A: Types.Covariant<A>
    readonly _E: Types.Covariant<E>
    readonly _R: Types.Covariant<R>
  }
  readonly name: string
  readonly kind: string
  /**
   * @internal acquires, and gives the way to release; must run inside an uninterruptible region. `site` is the line that asked;
   * `onEntry` gets the ledger's entry, if there is one, in the step that makes it.
   */
  readonly openInMask: (
    restore: Restore,
    site?: Ledger.Site,
    onEntry?: (entry: Ledger.Entry) => void
  ) => Effect.Effect<Opened<A, E>, E, R>
}

export interface Opened<out A, out E = unknown> {
  readonly value: A
  /**
   * Ends by the release deadline; fails, with defects only, if the release failed. Must run inside an uninterruptible region.
   */
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
  /**
   * Of a resource that may change the exit of its user (suppress, translate): releases like `close`, within the same bounds,
   * and gives the exit as it is now. Call it instead of `close`. Undefined if the resource never changes it.
   */
  readonly exit?:
    | (<E2>(exit: Exit.Exit<unknown, E2>) => Effect.Effect<Exit.Exit<unknown, E | E2>>)
    | undefined
}

/**
 * Why a release runs. `failure` includes defects; `shutdown` is an interruption after an end was requested (Shutdown.ts), with the
 * reason of that request.
 *
 * @category models
 * @since 0.1.0
 */
export type ReleaseReason =
  | { readonly kind: "success" }
  | { readonly kind: "failure" }
  | { readonly kind: "interrupt" }
  | { readonly kind: "shutdown"; readonly reason: Shutdown.Reason }

/**
 * The settings that every constructor takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings<in A, out R2 = never> {
  /** Shown by the ledger and in errors. */
  readonly name: string
  /** Its kind (`"file"`, `"connection"`); the ledger sums by kind. Default `"resource"`. */
  readonly kind?: string | undefined
  /** More that the ledger shows; a function is called only if there is a ledger. */
  readonly attributes?:
    | Readonly<Record<string, unknown>>
    | ((resource: A) => Readonly<Record<string, unknown>>)
    | undefined
  /**
   * How long the release may take, counted from its first wait. Default 5 seconds; `Infinity` for no bound of its own. During a
   * shutdown any release also ends by its share of the `releaseTimeout` (Shutdown.ts): four fifths of what is left of it, or, for
   * a release nested in another, all but 50 ms of what that one has.
   */
  readonly releaseDeadline?: Duration.DurationInput | undefined
  /**
   * Ends a resource by force after its release overran (`socket.destroy()`, a SIGKILL). The resource still counts as abandoned. It
   * may take as long as the release, but at most a second; its failure is in the cause.
   */
  readonly onOverrun?: ((resource: A) => Effect.Effect<unknown, unknown, R2>) | undefined
  /**
   * Where a failed or abandoned release shows: `"cause"`, as a defect in its owner's exit; or `"report"`, in the ledger and as a
   * warning in the log, so that a success stays a success and a typed failure can still be caught. Default `"cause"`.
   */
  readonly onReleaseFailure?: "cause" | "report" | undefined
}

/** The ledger's record of a resource that a module makes for its own user. */
export interface Recording {
  /** The line of that user. */
  readonly site: Ledger.Site | undefined
  /** The entries that the acquire waits for. */
  readonly blockedBy: () => Iterable<Ledger.Entry>
  /** Gets the entry in the step that makes it. */
  readonly onEntry: (entry: Ledger.Entry) => void
}

/**
 * The parameter of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R, R2> extends Settings<A, R2> {
  /** Runs uninterruptibly; the function form marks with `restore` the part that may be interrupted. */
  readonly acquire: Effect.Effect<A, E, R> | ((restore: Restore) => Effect.Effect<A, E, R>)
  /**
   * Gets the exit of its user, and the reason why it runs. Runs once, out of reach of any interruption. It starts in its owner's
   * step; unless it is one `Effect.sync`, in a fiber of its own.
   */
  readonly release: (
    resource: A,
    exit: Exit.Exit<unknown, unknown>,
    reason: ReleaseReason
  ) => Effect.Effect<unknown, unknown, R2>
  /** @internal */
  readonly recording?: Recording | undefined
}

export const settingsOf = <A, R2>(nameOrSettings: string | Settings<A, R2>): Settings<A, R2> =>
  typeof nameOrSettings === "string" ? { name: nameOrSettings } : nameOrSettings

// Exits.

const succeeded: ReleaseReason = { kind: "success" }
const hasFailed: ReleaseReason = { kind: "failure" }
const interrupted: ReleaseReason = { kind: "interrupt" }

/**
 * The causes that were looked at. While owners unwind, a cause grows on the right of the one before; with this each question costs
 * one look, however many releases have failed.
 */
const answered = new WeakMap<Cause.Cause<unknown>, boolean>()

/** Whether a user was interrupted, whatever failed releases have added to its cause since. No cause is too deep for it. */
const wasInterrupted = (cause: Cause.Cause<unknown>): boolean => {
  let first = cause
  while (first._tag === "Sequential" && !answered.has(first)) {
    first = first.left._tag === "Empty" ? first.right : first.left
  }
  const answer = answered.get(first) ?? (Cause.isInterruptedOnly(first) && !Cause.isEmpty(first))
  if (cause._tag === "Sequential") answered.set(cause, answer)
  return answer
}

const contextOf = (hold: Hold<unknown>): Context.Context<never> =>
  hold.refs === undefined
    ? currentFiber()?.currentContext ?? Context.empty()
    : contextIn(hold.refs)

const reasonOf = (exit: Exit.Exit<unknown, unknown>, hold: Hold<unknown>): ReleaseReason => {
  if (Exit.isSuccess(exit)) return succeeded
  if (!wasInterrupted(exit.cause)) return hasFailed
  const requested = Context.get(contextOf(hold), Shutdown.Shutdown).unsafeReason()
  return Option.isSome(requested) ? { kind: "shutdown", reason: requested.value } : interrupted
}

/** INVARIANT Managed-4: the exit of a user, and after it what its release failed with. */
export const endedWith = <B, E2>(
  release: Effect.Effect<unknown>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<B, E2> =>
  Effect.matchCauseEffect(release, {
    onSuccess: () => exit,
    onFailure: (cause) => withFailure(exit, cause)
  })

export const endUnchanged = <B, E2>(
  { close }: Opened<unknown>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<B, E2> => endedWith(close(exit), exit)

/** An acquire has failed: what it began is ended, within the deadline; a failure of that comes after its cause. */
export const giveUp = <E>(
  cause: Cause.Cause<E>,
  ending: Effect.Effect<unknown>,
  release: Release.Release
): Effect.Effect<never, E> => {
  const failed = Exit.failCause(cause)
  return Release.runThen(
    release,
    () => ending,
    failed,
    (ended) => Exit.isSuccess(ended) ? failed : withFailure(failed, ended.cause)
  )
}

// Into a scope.

const intoScope = <A, E, R>(
  managed: Managed<A, E, R>,
  site: Ledger.Site | undefined
): Effect.Effect<A, E, R | Scope.Scope> =>
  // MASK: acquire and registration are one step (Managed-2); waiting is restored by `acquire` itself.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) =>
      isClosed(scope)
        ? ownerClosed(managed.name)
        : Effect.flatMap(managed.openInMask(restore, site), ({ close, value }) =>
          Effect.as(
            // MASK: a scope may be closed by hand where that can be interrupted; only the release waits, up to its deadline.
            ownInScope(scope, managed.name, (exit) => Effect.uninterruptible(close(exit))),
            value
          )))
  )

const variance: Managed<never>[TypeId] = { _A: (_) => _, _E: (_) => _, _R: (_) => _ }

export abstract class Base<A, E, R> extends Effectable.Class<A, E, R | Scope.Scope>
  implements Managed<A, E, R>
{
  readonly [TypeId]: Managed<A, E, R>[TypeId] = variance
  readonly name: string
  readonly kind: string

  constructor(name: string, kind: string) {
    super()
    this.name = name
    this.kind = kind
  }

  abstract openInMask(
    restore: Restore,
    site?: Ledger.Site,
    onEntry?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A, E>, E, R>

  override commit(): Effect.Effect<A, E, R | Scope.Scope> {
    return intoScope(this, undefined)
  }

  /** `yield*` calls this in the user's own step: only there is the user's line on the stack. */
  override [Symbol.iterator](): Effect.EffectGenerator<Effect.Effect<A, E, R | Scope.Scope>> {
    const site = Ledger.unsafeSite(2)
    return site === undefined
      ? super[Symbol.iterator]()
      : intoScope<A, E, R>(this, site)[Symbol.iterator]()
  }

  toJSON(): unknown {
    return { _id: "holdfast/Managed", name: this.name, kind: this.kind }
  }

  override toString(): string {
    return Inspectable.format(this.toJSON())
  }

  [Inspectable.NodeInspectSymbol](): unknown {
    return this.toJSON()
  }
}

/** Of anything that may be thrown, also what has no text. */
const textOf = (thrown: unknown): string => {
  try {
    return String(thrown)
  } catch {
    return "something that has no text"
  }
}

/** One hold: the value, and what its release needs. */
interface Hold<out A> extends Release.Release {
  readonly value: A
}

const rules: Rules.Rules = {
  name: Rules.text,
  kind: Rules.text,
  attributes: Rules.anything,
  acquire: Rules.anything,
  release: Rules.callback,
  releaseDeadline: Rules.duration,
  onOverrun: Rules.callback,
  onReleaseFailure: Rules.oneOf("cause", "report"),
  recording: Rules.anything
}

/** One acquire with its release. */
export class Single<A, E, R, R2> extends Base<A, E, R | R2> {
  readonly deadline: Duration.Duration
  readonly parts: Options<A, E, R, R2>
  /** The line that described it, for acquires that leave no line of their own. */
  readonly site: Ledger.Site | undefined
  /** Whether an exit that the release gives becomes that of its user. It must be a success, or a failure of `E`. */
  readonly changesExit: boolean

  constructor(
    parts: Options<A, E, R, R2>,
    site: Ledger.Site | undefined,
    changesExit = false
  ) {
    super(parts.name, parts.kind ?? "resource")
    Rules.check(`Managed "${parts.name}"`, parts, rules)
    this.parts = parts
    this.site = site
    this.changesExit = changesExit
    this.deadline = releaseDeadlineOf(parts)
  }

  openInMask(
    restore: Restore,
    from?: Ledger.Site,
    onEntry?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A, E>, E, R | R2> {
    return Effect.suspend(() =>
      this.acquireThen(restore, from, onEntry, true, (hold) => Effect.succeed(this.opened(hold)))
    )
  }

  /** `use`, without the costs of other owners. Its release runs in the fiber that acquired, with the FiberRefs it has by then. */
  useInMask<B, E2, R3>(
    restore: Restore,
    f: (resource: A) => Effect.Effect<B, E2, R3>,
    from: Ledger.Site | undefined
  ): Effect.Effect<B, E | E2, R | R2 | R3> {
    return this.acquireThen(
      restore,
      from,
      undefined,
      false,
      (hold) =>
        Effect.matchCauseEffect(restore(Effect.suspend(() => f(hold.value))), {
          onFailure: (cause) => this.endUse(hold, Exit.failCause(cause)),
          onSuccess: (value) => this.endUse(hold, Exit.succeed(value))
        })
    )
  }

  endUse<B, E2>(hold: Hold<A>, exit: Exit.Exit<B, E2>): Effect.Effect<B, E2, R2> {
    return this.run(
      hold,
      exit,
      (ended) => Exit.isSuccess(ended) ? exit : endedWith(this.failed(hold, ended.cause), exit)
    )
  }

  /** Acquires, and runs `then` in the step in which the ledger records it as held. */
  acquireThen<B, E2, R3>(
    restore: Restore,
    from: Ledger.Site | undefined,
    onEntry: ((entry: Ledger.Entry) => void) | undefined,
    keepsRefs: boolean,
    then: (hold: Hold<A>) => Effect.Effect<B, E2, R3>
  ): Effect.Effect<B, E | E2, R | R3> {
    const { acquire: how, attributes, recording } = this.parts
    const { kind, name } = this
    const acquire = Effect.isEffect(how) ? how : Effect.suspend(() => how(restore))
    // Looked up once: in a bracket of 1 µs it shows.
    const fiber = currentFiber()
    const ledger = Ledger.unsafeInForce(fiber)
    const site = recording?.site ?? from ?? this.site
    if (ledger === undefined) {
      return Effect.flatMap(
        acquire,
        (value) => then(this.holdOf(value, site, undefined, keepsRefs ? fiber : undefined))
      )
    }
    const entry = ledger.unsafeAcquiring(kind, name, {
      site,
      attributes: typeof attributes === "function" ? undefined : attributes,
      blockedBy: recording?.blockedBy,
      fiber
    })
    onEntry?.(entry)
    recording?.onEntry(entry)
    // One operation acquires nothing else.
    const owned = isInstant(acquire) ? acquire : Ledger.withOwner(acquire, name)
    return Effect.matchCauseEffect(owned, {
      onFailure: (cause) => {
        ledger.unsafeGaveUp(entry, cause)
        return Effect.failCause(cause)
      },
      onSuccess: (value) => {
        ledger.unsafeHeld(entry, this.attributesOf(value))
        return then(
          this.holdOf(value, site, { ledger, entry }, keepsRefs ? fiber : undefined)
        )
      }
    })
  }

  /** `fiber`: whose FiberRefs its release has, if another fiber may close it. */
  holdOf(
    value: A,
    site: Ledger.Site | undefined,
    recorded: Release.Recorded | undefined,
    fiber: AnyFiber | undefined
  ): Hold<A> {
    const { onOverrun } = this.parts
    return {
      kind: this.kind,
      name: this.name,
      deadline: this.deadline,
      // `R2` is what the acquire asks for, so the context of its fiber has it.
      onOverrun: onOverrun && (() => onOverrun(value) as Effect.Effect<unknown, unknown>),
      site,
      recorded,
      refs: fiber?.getFiberRefs(),
      lent: fiber === undefined ? Lent.lend("children") : Lent.lend("none", fiber, value),
      value
    }
  }

  attributesOf(value: A): Readonly<Record<string, unknown>> | undefined {
    const { attributes } = this.parts
    if (typeof attributes !== "function") return undefined
    try {
      // A copy: the object's own getters may throw, and then they do so here.
      return { ...attributes(value) }
    } catch (error) {
      // A description that fails must not cost the resource.
      return { attributesFailed: textOf(error) }
    }
  }

  opened(hold: Hold<A>): Opened<A, E> {
    return this.changesExit
      ? {
        value: hold.value,
        close: (exit) => this.closeUnchanged(hold, exit),
        exit: (exit) => this.closeChanging(hold, exit)
      }
      : { value: hold.value, close: (exit) => Effect.asVoid(this.end(hold, exit)) }
  }

  closeUnchanged(hold: Hold<A>, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.flatMap(this.end(hold, exit), (changed) =>
      // An owner that cannot replace the first failure keeps both.
      Exit.isExit(changed) && Exit.isFailure(changed)
        ? Effect.failCause(
          interruptsAsDefects(
            asDefects(changed.cause),
            exit,
            releaseOf(this.kind, this.name)
          )
        )
        : Effect.void)
  }

  closeChanging<E2>(
    hold: Hold<A>,
    exit: Exit.Exit<unknown, E2>
  ): Effect.Effect<Exit.Exit<unknown, E | E2>> {
    return Effect.matchCause(this.end(hold, exit), {
      onFailure: (cause) => withFailure(exit, cause),
      // See `changesExit`.
      onSuccess: (changed) => Exit.isExit(changed) ? changed as Exit.Exit<unknown, E> : exit
    })
  }

  /** The release, for an owner that has kept the FiberRefs. Fails with defects only; succeeds with what the release gives. */
  end(hold: Hold<A>, exit: Exit.Exit<unknown, unknown>): Effect.Effect<unknown> {
    return Effect.suspend(() =>
      this.run(
        hold,
        exit,
        (ended): Effect.Effect<unknown> =>
          Exit.isSuccess(ended) ? Effect.succeed(ended.value) : this.failed(hold, ended.cause)
      )
      // `R2` is in the context of those FiberRefs.
    ) as Effect.Effect<unknown>
  }

  run<B, E2>(
    hold: Hold<A>,
    exit: Exit.Exit<unknown, unknown>,
    then: (released: Exit.Exit<unknown, unknown>) => Effect.Effect<B, E2>
  ): Effect.Effect<B, E2, R2> {
    return Release.runThen(
      hold,
      () => this.parts.release(hold.value, exit, reasonOf(exit, hold)),
      exit,
      then
    )
  }

  failed(hold: Hold<A>, cause: Cause.Cause<unknown>): Effect.Effect<void> {
    const failure = asDefects(cause)
    if (this.parts.onReleaseFailure !== "report") return Effect.failCause(failure)
    Context.get(contextOf(hold), Shutdown.Shutdown).unsafeReported()
    const message = `${releaseOf(this.kind, this.name)} failed.`
    // A logger that throws is no reason to fail either.
    return Effect.catchAllCause(Effect.logWarning(message, failure), () => Effect.void)
  }
}

/** Another resource, with its value changed. */
export class Derived<A, B, E, R> extends Base<B, E, R> {
  readonly source: Managed<A, E, R>
  readonly f: (value: A) => B

  constructor(source: Managed<A, E, R>, f: (value: A) => B) {
    super(source.name, source.kind)
    this.source = source
    this.f = f
  }

  openInMask(
    restore: Restore,
    site?: Ledger.Site,
    onEntry?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<B, E>, E, R> {
    return Effect.flatMap(this.source.openInMask(restore, site, onEntry), (opened) => {
      const { close, exit } = opened
      return Effect.matchCauseEffect(Effect.sync(() => this.f(opened.value)), {
        onFailure: (cause) => endUnchanged(opened, Exit.failCause(cause)),
        onSuccess: (value) => Effect.succeed({ value, close, exit })
      })
    })
  }
}

interface Inside<out A> {
  readonly value: A
}

const valueIn = <A>({ value }: Inside<A>): A => value

/**
 * The resource in the `value` of another that has what the release needs besides: its scope, its generator. The settings
 * speak of the one inside.
 */
export const inside = <A, H extends Inside<A>, E, R, R2>(
  { attributes, onOverrun, ...rest }: Settings<A, R2>,
  parts: Pick<Options<H, E, R, R2>, "acquire" | "release" | "onOverrun">,
  site: Ledger.Site | undefined,
  changesExit?: boolean
): Managed<A, E, R | R2> =>
  new Derived(
    new Single<H, E, R, R2>(
      {
        ...rest,
        attributes: typeof attributes === "function"
          ? ({ value }) => attributes(value)
          : attributes,
        onOverrun: onOverrun && (({ value }) => onOverrun(value)),
        ...parts
      },
      site,
      changesExit
    ),
    valueIn
  )

/** The resource that an effect is, if it is one. It needs a scope only to be yielded, not to be opened. */
export const asManaged = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Managed<A, E, Exclude<R, Scope.Scope>> | undefined =>
  TypeId in effect
    ? effect as unknown as Managed<A, E, Exclude<R, Scope.Scope>>
    : undefined

/** `fromScoped`, with the line that describes it. */
export const fromScopedAt = <A, E, R, R2 = never>(
  settings: Settings<A, R2>,
  effect: Effect.Effect<A, E, R>,
  site: Ledger.Site | undefined
): Managed<A, E, Exclude<R, Scope.Scope> | R2> => {
  const { kind = "resource", name } = settings
  const deadline = releaseDeadlineOf(settings)
  return inside(settings, {
    acquire: (restore) =>
      Effect.flatMap(
        Scope.make(),
        (scope) =>
          Effect.matchCauseEffect(restore(Scope.extend(effect, scope)), {
            onFailure: (cause) =>
              giveUp(cause, Scope.close(scope, Exit.failCause(cause)), {
                name,
                kind,
                deadline,
                site
              }),
            onSuccess: (value) => Effect.succeed({ value, scope })
          })
      ),
    release: ({ scope }, exit) => Scope.close(scope, exit)
  }, site)
}
