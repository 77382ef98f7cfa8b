/**
 * Managed: a resource as a value. It has a name, an acquire, and a release that sees how its user ended.
 *
 * DESIGN. A descriptor, not a new runtime: yielded in a scope it is `acquireRelease` with a name, a deadline and a ledger
 * entry; in `use` it is a bracket that needs no `Scope`. `Layer.scoped(Tag, managed)` composes it into services as it is.
 * Every form is one method, `openInMask`: what it opens says how it is closed, and whoever called it is the owner. A release
 * starts in its owner's step and is only bounded if it waits (internal/deadline.ts).
 *
 * INVARIANTS
 * - Managed-1 (L1) Every successful acquire is followed by exactly one release, whatever the exit.
 * - Managed-2 (L2) Acquire and its registration are one uninterruptible step; only what `acquire` passes to `restore` may
 *   be cut, and an acquire that was cut has registered nothing.
 * - Managed-3 (L4) A release ends by `releaseDeadline`, and in the end of a program by its share of what is left for that, or
 *   is abandoned by name: the cause gains `ReleaseTimeout`, the ledger counts it as abandoned, `onOverrun` has its turn, and
 *   the releases after it still run.
 * - Managed-4 (L5) A failing release is appended to the cause of its user's exit, or told to the ledger and the log if
 *   `onReleaseFailure` is `"report"`; it replaces nothing.
 * - Managed-5 (L7) Into a scope that is closed nothing is acquired: it dies with `OwnerClosed` before its acquire runs.
 * - Managed-6 The release is told why: success, failure, interruption, or the shutdown that has been asked for.
 * - Managed-7 (L3) `all` opens all or nothing, and releases in the reverse of the order in which they were open.
 * - Managed-8 A generator is entered once and left once: its user's failure is thrown in at the `yield`; what it does about
 *   it counts for owners that can change an exit (`useOption`, ExitStack.ts), and no interruption is ever swallowed.
 * - Managed-9 (L9) Off, the ledger costs a lookup; on, what an acquire acquires stands under its name.
 *
 * COST (2026-11, `npm run bench -- Managed`) `use` 1.3 µs with a release of one step (`acquireUseRelease`, which bounds
 * nothing: 1.7), 5 with one of several, 20 with one that waits; in a scope 15 (effect's own: 19). The ledger adds 1, the
 * user's line 3 to 4 more.
 * NOT DONE a release that computes for ever: JavaScript cannot stop it. `Effect.gen`'s rule holds for `gen` too: what fails
 * ends the generator without running its `finally`.
 * SOURCES cats-effect `Resource.makeFull` (the restore argument), OTP child specs (a deadline per release, then the kill),
 * Python's `asynccontextmanager` and `AsyncExitStack`, TC39 explicit resource management.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import type { YieldWrap } from "effect/Utils"
import { isInstant, outcomeWithin, releaseDeadlineOf } from "./internal/deadline.ts"
import { asyncDispose, disposal } from "./internal/disposable.ts"
import { asDefects, effectOf, interruptsAsDefects, withFailure } from "./internal/exit.ts"
import * as Generators from "./internal/generator.ts"
import { ownerClosed } from "./internal/handover.ts"
import { isClosed } from "./internal/runtime.ts"
import * as Workers from "./internal/workers.ts"
import * as Ledger from "./Ledger.ts"
import * as Shutdown from "./Shutdown.ts"

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
  /**
   * @internal acquires and says how to release; must run inside an uninterruptible region. `site` is the line that asked;
   * `asked` is told the ledger's entry, where there is one, in the step that makes it.
   */
  readonly openInMask: (
    restore: Restore,
    site?: Ledger.Site,
    asked?: (entry: Ledger.Entry) => void
  ) => Effect.Effect<Opened<A, E>, E, R>
}

/** @internal */
export interface Opened<out A, out E = unknown> {
  readonly value: A
  /**
   * Ends by the release deadline, whatever the release does; fails (defects only) with what the release failed with. Must
   * run inside an uninterruptible region.
   */
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>
  /**
   * Of a resource that may change how its user ended (suppress, translate): releases like `close`, within the same bounds,
   * and gives the exit as it is now. To be called instead of `close`, never besides. Undefined when it never changes it.
   */
  readonly exit?:
    | (<E2>(exit: Exit.Exit<unknown, E2>) => Effect.Effect<Exit.Exit<unknown, E | E2>>)
    | undefined
}

/**
 * Why a release runs. `failure` is what its user failed with, a defect included; `shutdown` is an interruption while an end
 * has been asked for (Shutdown.ts), with the reason of that.
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
  /** How long it was in fact waited for: less than `deadline` where the end of the program could not wait that long. */
  readonly elapsed?: Duration.Duration | undefined
  /** The line that acquired it, as far as it is known (Ledger.ts), else the one that described it. */
  readonly site?: string | undefined
  /** What overran. Default `"release"`. */
  readonly step?: "release" | "onOverrun" | undefined
}> {
  override get message(): string {
    const where = this.site === undefined ? "" : ` (acquired at ${this.site.split("\n", 1)[0]})`
    const waited = Duration.min(this.elapsed ?? this.deadline, this.deadline)
    const isCut = Duration.lessThan(waited, this.deadline)
    const what = `${this.kind} "${this.resource}"${where} did not end within ${
      Duration.format(waited)
    }`
    if (this.step === "onOverrun") {
      return `The \`onOverrun\` of ${what} either: look for what it waits for.`
    }
    return isCut
      ? `The release of ${what}, its share of what the shutdown had left, and was abandoned. `
        + "Raise the shutdown's `releaseTimeout`, or look for what it waits for."
      : `The release of ${what} and was abandoned. `
        + "Raise `releaseDeadline`, or look for what it waits for."
  }
}

export { OwnerClosed } from "./internal/handover.ts"

/**
 * What every constructor takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings<in A, out R2 = never> {
  /** Shown by the ledger and in errors. */
  readonly name: string
  /** What sort of thing it is (`"file"`, `"connection"`); the ledger sums by kind. Default `"resource"`. */
  readonly kind?: string | undefined
  /** What the ledger shows besides, worked out only if there is one. */
  readonly attributes?:
    | Readonly<Record<string, unknown>>
    | ((resource: A) => Readonly<Record<string, unknown>>)
    | undefined
  /**
   * How long the release may take, counted from its first wait. Default 5 seconds; `Infinity` for no bound of its own: while a
   * program is made to let go, any release has four fifths of what is left of its `releaseTimeout`; one inside of another's (a
   * resource made of others) all but 50 ms of what that has.
   */
  readonly releaseDeadline?: Duration.DurationInput | undefined
  /**
   * The hard way, for a release that overran (`socket.destroy()`, a SIGKILL): the resource counts as abandoned all the same.
   * It may take as long as the release, but no more than a second; what it fails with is in the cause.
   */
  readonly onOverrun?: ((resource: A) => Effect.Effect<unknown, unknown, R2>) | undefined
  /**
   * Where a failed or abandoned release shows: `"cause"`, in its owner's exit, as a defect; or `"report"`, in the ledger and as
   * a warning in the log, so that a success stays one and a typed failure can still be caught. Default `"cause"`.
   */
  readonly onReleaseFailure?: "cause" | "report" | undefined
}

/**
 * What `make` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R, R2> extends Settings<A, R2> {
  /**
   * Runs uninterruptibly; the function form marks with `restore` what may be cut. Where TypeScript loses the type on its way to
   * `release` (`Effect.map(open, (x) => …)` written here), a pipe, a generator or `() => Effect.map(…)` keeps it.
   */
  readonly acquire: Effect.Effect<A, E, R> | ((restore: Restore) => Effect.Effect<A, E, R>)
  /**
   * Sees the exit of its user, and why it runs. Runs once, and not in reach of any interruption. It starts in its owner's step;
   * unless it is a single `Effect.sync`, in a fiber of its own.
   */
  readonly release: (
    resource: A,
    exit: Exit.Exit<unknown, unknown>,
    reason: ReleaseReason
  ) => Effect.Effect<unknown, unknown, R2>
  /** @internal */
  readonly told?: Told | undefined
}

/** @internal What else the ledger is told by a module that makes a resource for its own user. */
export interface Told {
  /** The line of that user. */
  readonly site: Ledger.Site | undefined
  /** Who holds what the acquire waits for. */
  readonly blockedBy: () => Iterable<Ledger.Entry>
  /** The entry, in the step that makes it. */
  readonly asked: (entry: Ledger.Entry) => void
}

const longestOverrun = Duration.seconds(1)

// How something ended.

const succeeded: ReleaseReason = { kind: "success" }
const hasFailed: ReleaseReason = { kind: "failure" }
const interrupted: ReleaseReason = { kind: "interrupt" }

// Guarded by the single thread. An unwinding asks of a cause that grows, each with the one before to its left: so a question is
// one look, however many releases have failed before.
const answered = new WeakMap<Cause.Cause<unknown>, boolean>()

/** Whether a user was interrupted, whatever the releases before this one have added to that. No cause is too deep for it. */
const wasInterrupted = (cause: Cause.Cause<unknown>): boolean => {
  let first = cause
  while (first._tag === "Sequential" && !answered.has(first)) {
    first = first.left._tag === "Empty" ? first.right : first.left
  }
  const answer = answered.get(first) ?? (Cause.isInterruptedOnly(first) && !Cause.isEmpty(first))
  if (cause._tag === "Sequential") answered.set(cause, answer)
  return answer
}

const reasonOf = (
  exit: Exit.Exit<unknown, unknown>,
  context: Context.Context<never>
): ReleaseReason => {
  if (Exit.isSuccess(exit)) return succeeded
  if (!wasInterrupted(exit.cause)) return hasFailed
  const asked = Context.get(context, Shutdown.Shutdown).unsafeReason()
  return Option.isSome(asked) ? { kind: "shutdown", reason: asked.value } : interrupted
}

/** INVARIANT Managed-4: what a user ended with, once it is released, and after it what went wrong with that. */
const endedWith = <B, E2>(
  release: Effect.Effect<unknown>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<B, E2> =>
  Effect.matchCauseEffect(release, {
    onSuccess: () => exit,
    onFailure: (cause) => withFailure(exit, cause)
  })

// Into a scope.

const register = <A>(
  scope: Scope.Scope,
  { close, value }: Opened<A>,
  resource: string
): Effect.Effect<A> => {
  // Guarded by the single thread: set in the step in which the release begins.
  let isOver = false
  const finalizer = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> => {
    isOver = true
    // MASK: a scope may be closed by hand where it can be interrupted; nothing waits but the release, up to its deadline.
    return Effect.uninterruptible(close(exit))
  }
  return Effect.flatMap(
    Scope.addFinalizerExit(scope, finalizer),
    // INVARIANT Managed-5: it closed while this was being acquired, so this has been released already.
    () => isOver ? ownerClosed(resource) : Effect.succeed(value)
  )
}

const intoScope = <A, E, R>(
  managed: Managed<A, E, R>,
  site: Ledger.Site | undefined
): Effect.Effect<A, E, R | Scope.Scope> =>
  // MASK: acquire and registration are one step (Managed-2); waiting is restored by `acquire` itself.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) =>
      isClosed(scope)
        ? ownerClosed(managed.name)
        : Effect.flatMap(
          managed.openInMask(restore, site),
          (opened) => register(scope, opened, managed.name)
        ))
  )

/** Of whatever may be thrown, also what has no text. */
const textOf = (thrown: unknown): string => {
  try {
    return String(thrown)
  } catch {
    return "something that has no text"
  }
}

abstract class Base<A, E, R> extends Effectable.Class<A, E, R | Scope.Scope>
  implements Managed<A, E, R>
{
  abstract readonly name: string
  abstract readonly kind: string
  abstract openInMask(
    restore: Restore,
    site?: Ledger.Site,
    asked?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A, E>, E, R>

  override commit(): Effect.Effect<A, E, R | Scope.Scope> {
    return intoScope(this, undefined)
  }

  /** `yield*` calls this in the user's own step: the only place where his line can be seen. */
  override [Symbol.iterator](): Effect.EffectGenerator<Effect.Effect<A, E, R | Scope.Scope>> {
    const site = Ledger.unsafeSite(2)
    return site === undefined
      ? super[Symbol.iterator]()
      : intoScope<A, E, R>(this, site)[Symbol.iterator]()
  }
}

const currentFiber = () => Option.getOrUndefined(Fiber.getCurrentFiber())

const contextOf = (fiber: ReturnType<typeof currentFiber>): Context.Context<never> =>
  fiber?.currentContext ?? Context.empty()

/** One hold: what is needed at its end. */
interface Hold<A, R> {
  readonly value: A
  readonly context: Context.Context<R>
  readonly site: Ledger.Site | undefined
  readonly recorded: { readonly ledger: Ledger.Service; readonly entry: Ledger.Entry } | undefined
}

class Single<A, E, R, R2> extends Base<A, E, R | R2> {
  readonly name: string
  readonly kind: string
  readonly deadline: Duration.Duration
  readonly options: Options<A, E, R, R2>
  /** The line that described it, for those who acquire it in a way that leaves no line of theirs. */
  readonly site: Ledger.Site | undefined
  /** Whether an exit that the release gives is to become its user's; it is then of `E`, or none of a failure at all. */
  readonly changesExit: boolean

  constructor(
    options: Options<A, E, R, R2>,
    site: Ledger.Site | undefined,
    changesExit: boolean
  ) {
    super()
    this.options = options
    this.name = options.name
    this.kind = options.kind ?? "resource"
    this.site = site
    this.changesExit = changesExit
    this.deadline = releaseDeadlineOf(options)
  }

  /** How it is called where something goes wrong. */
  get whose(): string {
    return `The release of ${this.kind} "${this.name}"`
  }

  openInMask(
    restore: Restore,
    from?: Ledger.Site,
    asked?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A, E>, E, R | R2> {
    return Effect.suspend(() =>
      this.acquireThen(restore, from, asked, (hold) => Effect.succeed(this.opened(hold)))
    )
  }

  /** `use`, without what only other owners need: nobody pays more for it than for effect's own bracket. */
  useInMask<B, E2, R3>(
    restore: Restore,
    f: (resource: A) => Effect.Effect<B, E2, R3>,
    from: Ledger.Site | undefined
  ): Effect.Effect<B, E | E2, R | R3> {
    return this.acquireThen(
      restore,
      from,
      undefined,
      (hold) =>
        Effect.matchCauseEffect(restore(Effect.suspend(() => f(hold.value))), {
          onFailure: (cause) => this.endUse(hold, Exit.failCause(cause)),
          onSuccess: (value) => this.endUse(hold, Exit.succeed(value))
        })
    )
  }

  endUse<B, E2>(hold: Hold<A, R | R2>, exit: Exit.Exit<B, E2>): Effect.Effect<B, E2> {
    hold.recorded?.ledger.unsafeReleasing(hold.recorded.entry)
    const release = this.release(hold.value, exit, hold.context)
    if (!Exit.isExit(release) || Exit.isFailure(release)) {
      return endedWith(this.bounded(hold, release, exit), exit)
    }
    // Nothing to run, as `Effect.void`.
    hold.recorded?.ledger.unsafeReleased(hold.recorded.entry)
    return exit
  }

  /** Acquires, and goes on in the very step in which the ledger is told that it is held. */
  acquireThen<B, E2, R3>(
    restore: Restore,
    from: Ledger.Site | undefined,
    asked: ((entry: Ledger.Entry) => void) | undefined,
    then: (hold: Hold<A, R | R2>) => Effect.Effect<B, E2, R3>
  ): Effect.Effect<B, E | E2, R | R3> {
    const { acquire: how, attributes, told } = this.options
    const acquire = Effect.isEffect(how) ? how : Effect.suspend(() => how(restore))
    // Looked up once: in a bracket of 1 µs it shows.
    const fiber = currentFiber()
    const ledger = Ledger.unsafeInForce(fiber)
    // `R` is what this effect asks for, so its fiber's context has it.
    const context = contextOf(fiber) as Context.Context<R | R2>
    const site = told?.site ?? from ?? this.site
    if (ledger === undefined) {
      return Effect.flatMap(
        acquire,
        (value) => then({ value, context, site, recorded: undefined })
      )
    }
    const entry = ledger.unsafeAcquiring(this.kind, this.name, {
      site,
      attributes: typeof attributes === "function" ? undefined : attributes,
      blockedBy: told?.blockedBy,
      fiber
    })
    asked?.(entry)
    told?.asked(entry)
    // A single step acquires nothing else.
    const inItsName = isInstant(acquire) ? acquire : Ledger.withOwner(acquire, this.name)
    return Effect.matchCauseEffect(inItsName, {
      onFailure: (cause) => {
        ledger.unsafeGaveUp(entry, cause)
        return Effect.failCause(cause)
      },
      onSuccess: (value) => {
        ledger.unsafeHeld(entry, this.attributesOf(value))
        return then({ value, context, site, recorded: { ledger, entry } })
      }
    })
  }

  attributesOf(value: A): Readonly<Record<string, unknown>> | undefined {
    const { attributes } = this.options
    if (typeof attributes !== "function") return undefined
    try {
      // A copy: the object's own getters may throw, and then they do so here.
      return { ...attributes(value) }
    } catch (error) {
      // What only describes a resource must not cost it.
      return { attributesFailed: textOf(error) }
    }
  }

  opened(hold: Hold<A, R | R2>): Opened<A, E> {
    return this.changesExit
      ? {
        value: hold.value,
        close: (exit) => this.closeUnchanged(hold, exit),
        exit: (exit) => this.closeChanging(hold, exit)
      }
      : { value: hold.value, close: (exit) => Effect.asVoid(this.end(hold, exit)) }
  }

  closeUnchanged(
    hold: Hold<A, R | R2>,
    exit: Exit.Exit<unknown, unknown>
  ): Effect.Effect<void> {
    return Effect.flatMap(this.end(hold, exit), (changed) =>
      // An owner that cannot put another failure in place of the first one keeps both.
      Exit.isExit(changed) && Exit.isFailure(changed)
        ? Effect.failCause(interruptsAsDefects(asDefects(changed.cause), exit, this.whose))
        : Effect.void)
  }

  closeChanging<E2>(
    hold: Hold<A, R | R2>,
    exit: Exit.Exit<unknown, E2>
  ): Effect.Effect<Exit.Exit<unknown, E | E2>> {
    return Effect.matchCause(this.end(hold, exit), {
      onFailure: (cause) => withFailure(exit, cause),
      // See `changesExit`.
      onSuccess: (changed) => Exit.isExit(changed) ? changed as Exit.Exit<unknown, E> : exit
    })
  }

  /** The release, within its deadline. Fails with defects only; succeeds with what the release says. */
  end(hold: Hold<A, R | R2>, exit: Exit.Exit<unknown, unknown>): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      hold.recorded?.ledger.unsafeReleasing(hold.recorded.entry)
      return this.bounded(hold, this.release(hold.value, exit, hold.context), exit)
    })
  }

  bounded(
    hold: Hold<A, R | R2>,
    release: Effect.Effect<unknown, unknown, R2>,
    exit: Exit.Exit<unknown, unknown>
  ): Effect.Effect<unknown> {
    if (isInstant(release)) {
      // It cannot wait, nor see a context.
      return Effect.matchCauseEffect(release as Effect.Effect<unknown, unknown>, {
        onFailure: (cause) => this.failed(hold, cause, exit),
        onSuccess: (value) => this.released(hold, value)
      })
    }
    const provided = contextOf(currentFiber()) === hold.context
      ? release as Effect.Effect<unknown, unknown>
      : Effect.provide(release, hold.context)
    return Effect.flatMap(outcomeWithin(provided, this.deadline), (outcome) => {
      if (Either.isLeft(outcome)) return this.overran(hold, outcome.left)
      return Exit.isSuccess(outcome.right)
        ? this.released(hold, outcome.right.value)
        : this.failed(hold, outcome.right.cause, exit)
    })
  }

  release(
    value: A,
    exit: Exit.Exit<unknown, unknown>,
    context: Context.Context<never>
  ): Effect.Effect<unknown, unknown, R2> {
    const reason = reasonOf(exit, context)
    try {
      return effectOf(
        this.options.release(value, exit, reason),
        this.whose
      )
    } catch (error) {
      // A release callback that throws is a failed release, not a broken scope.
      return Effect.die(error)
    }
  }

  released({ recorded }: Hold<A, R | R2>, value: unknown): Effect.Effect<unknown> {
    recorded?.ledger.unsafeReleased(recorded.entry)
    return Effect.succeed(value)
  }

  failed(
    hold: Hold<A, R | R2>,
    cause: Cause.Cause<unknown>,
    exit: Exit.Exit<unknown, unknown>
  ): Effect.Effect<void> {
    hold.recorded?.ledger.unsafeReleased(hold.recorded.entry, cause)
    const failure = interruptsAsDefects(asDefects(cause), exit, this.whose)
    return this.tell(hold, `${this.whose} failed.`, failure)
  }

  /** INVARIANT Managed-3: it has been abandoned; now the hard way. */
  overran(hold: Hold<A, R | R2>, elapsed: Duration.Duration): Effect.Effect<void> {
    const abandon = (cause: Cause.Cause<never>): Effect.Effect<void> => {
      hold.recorded?.ledger.unsafeAbandoned(hold.recorded.entry, cause)
      return this.tell(hold, `${this.whose} was abandoned.`, cause)
    }
    const cause = Cause.die(this.timeout("release", this.deadline, elapsed, hold.site))
    const { onOverrun } = this.options
    if (onOverrun === undefined) return abandon(cause)
    const within = Duration.min(this.deadline, longestOverrun)
    const hard = Effect.provide(Effect.suspend(() => onOverrun(hold.value)), hold.context)
    return Effect.flatMap(outcomeWithin(hard, within), (outcome) => {
      if (Either.isLeft(outcome)) {
        const late = this.timeout("onOverrun", within, outcome.left, hold.site)
        return abandon(Cause.sequential(cause, Cause.die(late)))
      }
      return abandon(
        Exit.isSuccess(outcome.right)
          ? cause
          : Cause.sequential(cause, asDefects(outcome.right.cause))
      )
    })
  }

  timeout(
    step: "release" | "onOverrun",
    deadline: Duration.Duration,
    elapsed: Duration.Duration,
    site: Ledger.Site | undefined
  ): ReleaseTimeout {
    const { kind, name } = this
    return new ReleaseTimeout({ resource: name, kind, deadline, elapsed, site: site?.text, step })
  }

  tell(
    { context }: Hold<A, R | R2>,
    what: string,
    cause: Cause.Cause<never>
  ): Effect.Effect<void> {
    if (this.options.onReleaseFailure !== "report") return Effect.failCause(cause)
    Context.get(context, Shutdown.Shutdown).unsafeReported()
    // A logger that throws is no reason to fail either.
    return Effect.catchAllCause(Effect.logWarning(what, cause), () => Effect.void)
  }
}

/**
 * Describes a resource. Nothing is acquired until it is yielded in a scope, handed to `Layer.scoped`, or given to `use`.
 *
 * **Details** — The release sees the exit of its user and why it runs, and is bounded by `releaseDeadline` (default 5 seconds).
 * **Interruption** — Waiting and opening: only inside what `acquire` gave to `restore`; nothing is then registered. Holding:
 *   released once, before the interrupt is seen by whoever waits for the owner.
 * **Errors** — `E` of the acquire passes through. A failed release is a defect in the owner's cause; one that overruns is a
 *   `ReleaseTimeout` there. In a scope that is closed it dies with `OwnerClosed`, and acquires nothing.
 * **Cost** — about 15 µs in a scope, less by `use`.
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
): Managed<A, E, R | R2> => new Single(options, Ledger.unsafeSite(2), false)

// Kept in something that has what its release needs: its scope, its generator.

/** The resource, without what it is kept in. */
class Inside<A, H extends { readonly value: A }, E, R> extends Base<A, E, R> {
  readonly name: string
  readonly kind: string
  readonly outer: Managed<H, E, R>

  constructor(outer: Managed<H, E, R>) {
    super()
    this.name = outer.name
    this.kind = outer.kind
    this.outer = outer
  }

  openInMask(
    restore: Restore,
    site?: Ledger.Site,
    asked?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A, E>, E, R> {
    return Effect.map(
      this.outer.openInMask(restore, site, asked),
      ({ close, exit, value: { value } }) => ({ value, close, exit })
    )
  }
}

/** The settings for what a resource is kept in. */
const kept = <A, R2>(
  { attributes, onOverrun, ...rest }: Settings<A, R2>
): Settings<{ readonly value: A }, R2> => ({
  ...rest,
  attributes: typeof attributes === "function" ? ({ value }) => attributes(value) : attributes,
  onOverrun: onOverrun && (({ value }) => onOverrun(value))
})

/** An acquire has failed: what it had begun is ended, within the deadline; what goes wrong there comes after its cause. */
const giveUp = <E>(
  cause: Cause.Cause<E>,
  ending: Effect.Effect<unknown>,
  what: Omit<ConstructorParameters<typeof ReleaseTimeout>[0], "elapsed">
): Effect.Effect<never, E> =>
  Effect.flatMap(outcomeWithin(ending, what.deadline), (outcome) => {
    const ended = Either.getOrElse(
      outcome,
      (elapsed) => Exit.die(new ReleaseTimeout({ ...what, elapsed }))
    )
    const failed = Exit.failCause(cause)
    return Exit.isSuccess(ended) ? failed : withFailure(failed, ended.cause)
  })

/** @internal The resource that an effect is, if it is one. It needs a scope only to be yielded, not to be opened. */
export const asManaged = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Managed<A, E, Exclude<R, Scope.Scope>> | undefined =>
  "openInMask" in effect
    ? effect as unknown as Managed<A, E, Exclude<R, Scope.Scope>>
    : undefined

/**
 * @internal What an effect acquires in its scope, as one resource. The scope is its own, and closed within the deadline, also
 * if the effect fails.
 */
export const fromScoped = <A, E, R>(
  settings: Settings<A>,
  effect: Effect.Effect<A, E, R>,
  site: Ledger.Site | undefined
): Managed<A, E, Exclude<R, Scope.Scope>> => {
  const { kind = "resource", name } = settings
  const deadline = releaseDeadlineOf(settings)
  const acquire = (restore: Restore) =>
    Effect.flatMap(
      Scope.make(),
      (scope) =>
        Effect.matchCauseEffect(restore(Scope.extend(effect, scope)), {
          onFailure: (cause) =>
            giveUp(cause, Scope.close(scope, Exit.failCause(cause)), {
              resource: name,
              kind,
              deadline,
              site: site?.text
            }),
          onSuccess: (value) => Effect.succeed({ value, scope })
        })
    )
  return new Inside(
    new Single(
      { ...kept(settings), acquire, release: ({ scope }, exit) => Scope.close(scope, exit) },
      site,
      false
    )
  )
}

// Brackets.

type Use<A, B, E, R> = (resource: A) => Effect.Effect<B, E, R>

/** Runs `f` with what it opens; `end` closes that, and says what comes of it. */
const bracketInMask = <A, E, R, B, E2, R2, C, E3>(
  self: Managed<A, E, R>,
  restore: Restore,
  f: (resource: A) => Effect.Effect<B, E2, R2>,
  end: (opened: Opened<A, E>, exit: Exit.Exit<B, E2>) => Effect.Effect<C, E3>,
  site: Ledger.Site | undefined
): Effect.Effect<C, E | E3, R | R2> =>
  Effect.flatMap(
    self.openInMask(restore, site),
    (opened) =>
      Effect.matchCauseEffect(restore(Effect.suspend(() => f(opened.value))), {
        onFailure: (cause) => end(opened, Exit.failCause(cause)),
        onSuccess: (value) => end(opened, Exit.succeed(value))
      })
  )

const endUnchanged = <B, E2>(
  { close }: Opened<unknown>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<B, E2> => endedWith(close(exit), exit)

/**
 * Acquires, runs `f`, releases: the bracket, without a `Scope` in the context.
 *
 * **Interruption** — Opening: as in `make`. Holding: `f` is cut, the release runs to its end or its deadline, then the
 *   interrupt is seen.
 * **Errors** — `E` of the acquire and of `f`; a failing release is appended to the cause (Managed-4).
 * **Cost** — 1.3 µs with a release of one step (as `Effect.sync`), 5 with one of several, 20 with one that waits.
 *
 * @category operations
 * @since 0.1.0
 */
export function use<A, B, E2, R2>(
  f: (resource: A) => Effect.Effect<B, E2, R2>
): <E, R>(self: Managed<A, E, R>) => Effect.Effect<B, E | E2, R | R2>
export function use<A, E, R, B, E2, R2>(
  self: Managed<A, E, R>,
  f: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2, R | R2>
export function use<A, E, R, B, E2, R2>(
  of: Managed<A, E, R> | Use<A, B, E2, R2>,
  f?: Use<A, B, E2, R2>
) {
  // Not `dual`, nor `...args`: of what stands between the user's line and this, each frame and value is captured too.
  const site = Ledger.unsafeSite(2)
  return typeof of === "function"
    ? (self: Managed<A, E, R>) => useAt(site, self, of)
    // By the overloads there are two.
    : useAt(site, of, f as Use<A, B, E2, R2>)
}

const useAt = <A, E, R, B, E2, R2>(
  site: Ledger.Site | undefined,
  self: Managed<A, E, R>,
  f: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2, R | R2> =>
  // MASK: from the acquire to the release nothing may be cut but `f` itself, which is restored.
  Effect.uninterruptibleMask((restore) =>
    self instanceof Single && !self.changesExit
      ? self.useInMask(restore, f, site)
      : bracketInMask(self, restore, f, endUnchanged, site)
  )

const endChanging = <E, B, E2>(
  opened: Opened<unknown, E>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<Option.Option<B>, E | E2> =>
  opened.exit === undefined || Exit.isSuccess(exit)
    ? Effect.map(endUnchanged(opened, exit), Option.some)
    : Effect.flatMap(
      opened.exit(exit),
      (changed) => Exit.isSuccess(changed) ? Effect.succeedNone : Effect.failCause(changed.cause)
    )

/**
 * As `use`, for a resource that may swallow its user's failure, as a Python `with` block does: none if it did. It may also put
 * a failure of its own type in its place.
 *
 * **Details** — Only `fromAsyncGenerator`, `gen` and an `all` of them can do either; of any other the result is always some.
 * **Interruption** — as `use`; an interruption is never swallowed.
 * **Errors** — `E` of the acquire and of `f`, unless swallowed; a failing release is appended to the cause (Managed-4).
 * **Cost** — as `use`.
 *
 * **Example** (a missing file is no matter)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const forgiving = Managed.fromAsyncGenerator("forgiving", async function*() {
 *   try {
 *     yield "desk"
 *   } catch (error) {
 *     if (error !== "not found") throw error
 *   }
 * })
 * const found = await Effect.runPromise(Managed.useOption(forgiving, () => Effect.fail("not found")))
 * found._tag // => "None"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export function useOption<A, B, E2, R2>(
  f: (resource: A) => Effect.Effect<B, E2, R2>
): <E, R>(self: Managed<A, E, R>) => Effect.Effect<Option.Option<B>, E | E2, R | R2>
export function useOption<A, E, R, B, E2, R2>(
  self: Managed<A, E, R>,
  f: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<Option.Option<B>, E | E2, R | R2>
export function useOption<A, E, R, B, E2, R2>(
  of: Managed<A, E, R> | Use<A, B, E2, R2>,
  f?: Use<A, B, E2, R2>
) {
  const site = Ledger.unsafeSite(2)
  return typeof of === "function"
    ? (self: Managed<A, E, R>) => useOptionAt(site, self, of)
    // By the overloads there are two.
    : useOptionAt(site, of, f as Use<A, B, E2, R2>)
}

const useOptionAt = <A, E, R, B, E2, R2>(
  site: Ledger.Site | undefined,
  self: Managed<A, E, R>,
  f: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<Option.Option<B>, E | E2, R | R2> =>
  // MASK: from the acquire to the release nothing may be cut but `f` itself, which is restored.
  Effect.uninterruptibleMask((restore) =>
    bracketInMask(self, restore, f, endChanging<E, B, E2>, site)
  )

// Several at once.

/**
 * How `all` opens and releases.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllOptions {
  /** How many are opened at once. Default `"unbounded"`. */
  readonly concurrency?: Types.Concurrency | undefined
  /**
   * `"sequential"`: one after the other, in the reverse of the order in which they were open. `"parallel"`: all at once; then
   * none of them can change the exit. Default `"sequential"`.
   */
  readonly releases?: "sequential" | "parallel" | undefined
}

type AnyManaged = Managed<any, any, any>
type ValueOf<M> = M extends Managed<infer A, infer _E, infer _R> ? A : never
type ErrorOf<M> = M extends Managed<infer _A, infer E, infer _R> ? E : never
type ContextOf<M> = M extends Managed<infer _A, infer _E, infer R> ? R : never
type MemberOf<T> = T extends Iterable<infer M> ? M : T[keyof T]
type ValuesOf<T> = T extends ReadonlyArray<unknown> ? { -readonly [K in keyof T]: ValueOf<T[K]> }
  : T extends Iterable<infer M> ? Array<ValueOf<M>>
  : { -readonly [K in keyof T]: ValueOf<T[K]> }

/** Of some that are open, in the order in which they were: the last first, each to its end, whatever the others do. */
const closeInTurn = (
  members: ReadonlyArray<Opened<unknown>>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.flatMap(
    Effect.reduceRight(members, [] as Array<Cause.Cause<never>>, ({ close }, causes) =>
      Effect.matchCause(close(exit), {
        onFailure: (cause) => [...causes, cause],
        onSuccess: () =>
          causes
      })),
    (causes) =>
      causes.length === 0 ? Effect.void : Effect.failCause(causes.reduce(Cause.sequential))
  )

const closeTogether = (
  members: ReadonlyArray<Opened<unknown>>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    // Guarded by the single thread. Kept here: a crew cuts its members at the first failure.
    const causes: Array<Cause.Cause<never>> = []
    const worker = (index: number): Effect.Effect<void> =>
      Effect.matchCause(members[index]!.close(exit), {
        onFailure: (cause) => {
          causes.push(cause)
        },
        onSuccess: () => {}
      })
    return Effect.flatMap(
      Workers.run(Workers.makeGroup<never>(), { count: members.length, worker }),
      () => causes.length === 0 ? Effect.void : Effect.failCause(causes.reduce(Cause.parallel))
    )
  })

/** As `closeInTurn`; each sees what the one before has made of the exit. */
const exitInTurn = <E, E2>(
  members: ReadonlyArray<Opened<unknown, E>>,
  exit: Exit.Exit<unknown, E2>
): Effect.Effect<Exit.Exit<unknown, E | E2>> =>
  Effect.reduceRight(
    members,
    exit as Exit.Exit<unknown, E | E2>,
    ({ close, exit }, current) =>
      exit === undefined
        ? Effect.matchCause(close(current), {
          onFailure: (cause) => withFailure(current, cause),
          onSuccess: () => current
        })
        : exit(current)
  )

class All<A, E, R> extends Base<A, E, R> {
  readonly name: string
  readonly kind = "all"
  readonly members: ReadonlyArray<Managed<unknown, E, R>>
  readonly assemble: (values: ReadonlyArray<unknown>) => A
  readonly options: AllOptions

  constructor(
    members: ReadonlyArray<Managed<unknown, E, R>>,
    assemble: (values: ReadonlyArray<unknown>) => A,
    options: AllOptions
  ) {
    super()
    this.name = `all(${members.slice(0, 5).map(({ name }) => name).join(", ")}${
      members.length > 5 ? ", …" : ""
    })`
    this.members = members
    this.assemble = assemble
    this.options = options
  }

  openInMask(restore: Restore, site?: Ledger.Site): Effect.Effect<Opened<A, E>, E, R> {
    return Effect.withFiberRuntime((fiber) => {
      const width = widthOf(
        this.options.concurrency,
        fiber.getFiberRef(FiberRef.currentConcurrency)
      )
      if (!(width >= 1)) {
        return Effect.die(
          new RangeError(`Managed-7: concurrency must be 1 or more; got ${width}.`)
        )
      }
      // All guarded by the single thread. `opened` is in the order in which they were open: the release goes back on it.
      const opened: Array<Opened<unknown, E>> = []
      const values: Array<unknown> = Array.from({ length: this.members.length })
      const crew = Workers.makeGroup<E>()
      let next = 0
      const worker = (): Effect.Effect<void, E, R> =>
        Effect.whileLoop({
          while: () => !crew.stopped && next < this.members.length,
          body: () => {
            const index = next++
            return openMember(this.members[index]!, site, (member) => {
              opened.push(member)
              values[index] = member.value
            })
          },
          step: () => {}
        })
      const opening = width === 1
        ? Effect.suspend(worker)
        : Effect.zipRight(
          Workers.run(crew, { count: Math.min(width, this.members.length), worker }),
          Workers.inherit(crew)
        )
      return Effect.matchCauseEffect(restore(opening), {
        // INVARIANT Managed-7: all or nothing.
        onFailure: (cause) => endUnchanged(this.opened(opened, undefined), Exit.failCause(cause)),
        onSuccess: () => Effect.succeed(this.opened(opened, this.assemble(values)))
      })
    })
  }

  opened<V>(members: ReadonlyArray<Opened<unknown, E>>, value: V): Opened<V, E> {
    if (this.options.releases === "parallel") {
      return { value, close: (exit) => closeTogether(members, exit) }
    }
    const close = (exit: Exit.Exit<unknown, unknown>) => closeInTurn(members, exit)
    return members.some(({ exit }) => exit !== undefined)
      ? { value, close, exit: (exit) => exitInTurn(members, exit) }
      : { value, close }
  }
}

const widthOf = (
  concurrency: Types.Concurrency | undefined,
  inherited: number | "unbounded"
): number => {
  const width = concurrency === "inherit" ? inherited : concurrency ?? "unbounded"
  return width === "unbounded" ? Number.POSITIVE_INFINITY : width
}

const openMember = <A, E, R>(
  member: Managed<A, E, R>,
  site: Ledger.Site | undefined,
  keep: (opened: Opened<A, E>) => void
): Effect.Effect<void, E, R> =>
  // MASK: acquire and registration are one step (Managed-2); waiting is restored by the member's own acquire.
  Effect.uninterruptibleMask((restore) => Effect.map(member.openInMask(restore, site), keep))

/**
 * Several resources as one: opened together, released in the reverse of the order in which they were open. Takes a tuple, a
 * record or anything iterable. Each keeps its name, its deadline and its entry in the ledger.
 *
 * **Interruption** — Opening: whatever of it is interruptible is cut, and what was opened is released. Holding: as one.
 * **Errors** — The first that fails cuts the others; what was opened is released; the cause holds all that failed. A
 *   concurrency below 1 is a `RangeError` defect.
 * **Cost** — one fork for each that is opened at the same time.
 *
 * **Example** (all or nothing)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const named = (name: string) =>
 *   Managed.make({
 *     name,
 *     acquire: Effect.sync(() => { log.push(`+${name}`); return name }),
 *     release: () => Effect.sync(() => log.push(`-${name}`))
 *   })
 * const both = Managed.all({ db: named("db"), cache: named("cache") })
 * await Effect.runPromise(Managed.use(both, ({ cache, db }) => Effect.sync(() => log.push(db + cache))))
 * log // => ["+db", "+cache", "dbcache", "-cache", "-db"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const all = <const T extends Iterable<AnyManaged> | Readonly<Record<string, AnyManaged>>>(
  collection: T,
  options: AllOptions = {}
): Managed<ValuesOf<T>, ErrorOf<MemberOf<T>>, ContextOf<MemberOf<T>>> => {
  const keys = Symbol.iterator in collection ? undefined : Object.keys(collection)
  const members = Object.values(Symbol.iterator in collection ? Array.from(collection) : collection)
  // `ValuesOf` says the same in types.
  const assemble = (values: ReadonlyArray<unknown>): ValuesOf<T> =>
    (keys === undefined
      ? values
      : Object.fromEntries(keys.map((key, index) => [key, values[index]]))) as ValuesOf<T>
  return new All(members, assemble, options)
}

// Interop.

const settingsOf = <A, R2>(nameOrSettings: string | Settings<A, R2>): Settings<A, R2> =>
  typeof nameOrSettings === "string" ? { name: nameOrSettings } : nameOrSettings

/**
 * A resource of something that can be disposed of (`using`, `await using`): by `Symbol.asyncDispose` if it has that, else by
 * `Symbol.dispose`. `acquire` makes it, as a plain call or as an effect.
 *
 * **Interruption**, **Cost** — as `make`.
 * **Errors** — those of the effect; a plain call that throws is a defect, and so is a value that cannot be disposed of.
 *
 * **Example** (a disposable in a bracket)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * let open = true
 * const gate = Managed.fromDisposable("gate", () => ({ wide: true, [Symbol.dispose]() { open = false } }))
 * await Effect.runPromise(Managed.use(gate, ({ wide }) => Effect.succeed([wide, open]))) // => [true, true]
 * open // => false
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const fromDisposable = <
  A extends Disposable | AsyncDisposable,
  E = never,
  R = never,
  R2 = never
>(
  options: string | Settings<A, R2>,
  acquire: (() => A) | Effect.Effect<A, E, R>
): Managed<A, E, R | R2> => {
  const settings = settingsOf(options)
  const opening = Effect.isEffect(acquire) ? acquire : Effect.sync(acquire)
  return new Single(
    {
      ...settings,
      acquire: () =>
        Effect.tap(opening, (resource) =>
          disposal(resource) === undefined
            ? Effect.die(new TypeError(`"${settings.name}" has no dispose method.`))
            : Effect.void),
      release: (resource) => disposal(resource) ?? Effect.void
    },
    Ledger.unsafeSite(2),
    false
  )
}

/**
 * The generator of a resource ended, or gave up, before its first `yield`.
 *
 * @category errors
 * @since 0.1.0
 */
export class GeneratorDidNotYield extends Data.TaggedError("GeneratorDidNotYield")<{
  readonly resource: string
}> {
  override get message(): string {
    return `The generator of "${this.resource}" ended without giving a resource: `
      + "it has to `yield` exactly once, what its user is to have."
  }
}

/**
 * The generator of a resource gave a second resource where it should have ended. A defect in its owner's cause.
 *
 * @category errors
 * @since 0.1.0
 */
export class GeneratorYieldedTwice extends Data.TaggedError("GeneratorYieldedTwice")<{
  readonly resource: string
}> {
  override get message(): string {
    return `The generator of "${this.resource}" did not end after its user had: `
      + "it has to `yield` exactly once; what comes after that is the release."
  }
}

/**
 * The generator of a resource threw: before its first `yield`, or a failure of its own in place of its user's.
 *
 * @category errors
 * @since 0.1.0
 */
export class GeneratorFailed extends Data.TaggedError("GeneratorFailed")<{
  readonly resource: string
  readonly cause: unknown
}> {
  override get message(): string {
    const what = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `The generator of "${this.resource}" failed: ${what}`
  }
}

/**
 * What an interruption looks like inside an async generator: an `AbortError`, with the reason.
 *
 * @category errors
 * @since 0.1.0
 */
export class Interrupted extends Data.TaggedError("Interrupted")<{
  readonly resource: string
  readonly reason: ReleaseReason
}> {
  override readonly name = "AbortError"

  override get message(): string {
    return this.reason.kind === "shutdown"
      ? `The user of "${this.resource}" was interrupted by a shutdown.`
      : `The user of "${this.resource}" was interrupted.`
  }
}

const faultsOf = (resource: string): Generators.Faults<GeneratorDidNotYield> => ({
  didNotYield: () => new GeneratorDidNotYield({ resource }),
  yieldedTwice: () => new GeneratorYieldedTwice({ resource })
})

/**
 * What `fromAsyncGenerator` takes besides: what to make of what the generator throws. Default `GeneratorFailed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface GeneratorOptions<in A, out E, out R2 = never> extends Settings<A, R2> {
  readonly catch: (error: unknown) => E
}

/**
 * A resource written as an async generator, like Python's `asynccontextmanager`: up to its one `yield` it acquires, there its
 * user has what it yielded, and after that it releases.
 *
 * **Details** — The user's failure is thrown in at the `yield`: its error, its defect, or for an interruption an `Interrupted`.
 *   A generator that throws it on, or merely has a `finally`, changes nothing. One that swallows it suppresses it, and one
 *   that throws another error whose `cause` it is puts that (by `catch`) in its place, for those who can change an exit:
 *   `useOption` and ExitStack.ts. A scope and `use` cannot: there a swallowed failure stays, and another is added as a defect.
 *   Anything else it throws then is a failed release. `signal` is aborted when the acquire is interrupted, and when the
 *   release overruns.
 * **Interruption** — Opening: at once for the signal, then as long as the generator takes, up to `releaseDeadline`. Holding: as
 *   `make`. An interruption cannot be swallowed.
 * **Errors** — `GeneratorFailed`, or what `catch` makes of it, if it throws before its `yield`; `GeneratorDidNotYield`; a second
 *   `yield` is a failed release, with `GeneratorYieldedTwice`.
 * **Cost** — as `make`, and two promises.
 * **Source** — Python's `contextlib.asynccontextmanager`.
 *
 * **Example** (the failure comes in at the yield)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const transaction = Managed.fromAsyncGenerator("transaction", async function*() {
 *   log.push("begin")
 *   try {
 *     yield "tx"
 *     log.push("commit")
 *   } catch (error) {
 *     log.push(`rollback: ${error}`)
 *     throw error
 *   }
 * })
 * await Effect.runPromiseExit(Managed.use(transaction, () => Effect.fail("no funds")))
 * log // => ["begin", "rollback: no funds"]
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const fromAsyncGenerator: {
  <A, E, R2 = never>(
    options: GeneratorOptions<A, E, R2>,
    body: (signal: AbortSignal) => AsyncGenerator<A, unknown, unknown>
  ): Managed<A, E | GeneratorDidNotYield, R2>
  <A, R2 = never>(
    options: string | Settings<A, R2>,
    body: (signal: AbortSignal) => AsyncGenerator<A, unknown, unknown>
  ): Managed<A, GeneratorFailed | GeneratorDidNotYield, R2>
} = <A, R2>(
  options: string | (Settings<A, R2> & { readonly catch?: (error: unknown) => unknown }),
  body: (signal: AbortSignal) => AsyncGenerator<A, unknown, unknown>
): Managed<A, any, R2> => {
  const { catch: threw, ...settings } = typeof options === "string" ? { name: options } : options
  const resource = settings.name
  const deadline = releaseDeadlineOf(settings)
  const generator: Generators.AsyncBody<A, unknown, GeneratorDidNotYield> = {
    ...faultsOf(resource),
    start: body,
    threw: threw ?? ((cause) => new GeneratorFailed({ resource, cause })),
    interrupted: () => new Interrupted({ resource, reason: interrupted }),
    giveUp: (cause, ending) => giveUp(cause, ending, { resource, kind: "generator", deadline })
  }
  return new Inside(
    new Single(
      {
        ...kept(settings),
        acquire: (restore) => Generators.enterAsync(generator, restore),
        release: (entered, exit, reason) =>
          Generators.leaveAsync(
            generator,
            entered.generator,
            exit,
            reason.kind === "interrupt" || reason.kind === "shutdown"
              ? new Interrupted({ resource, reason }) :
              undefined
          ),
        onOverrun: (entered) => {
          entered.abort.abort()
          return settings.onOverrun?.(entered.value) ?? Effect.void
        }
      },
      Ledger.unsafeSite(2),
      true
    )
  )
}

/**
 * What `use` gives in a `gen`: yielded, it hands the resource over, and comes back with how its user ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Held<out A> {
  readonly resource: A
  [Symbol.iterator](): Iterator<Held<A>, Exit.Exit<unknown, unknown>, any>
}

type ErrorIn<Y> = Y extends YieldWrap<Effect.Effect<infer _A, infer E, infer _R>> ? E : never
type ContextIn<Y> = Y extends YieldWrap<Effect.Effect<infer _A, infer _E, infer R>> ? R : never
type HeldBy<Y> = Y extends Held<infer A> ? A : never
type ErrorOfExit<X> = X extends Exit.Exit<infer _A, infer E> ? E : never

/**
 * A resource written as one generator of effects: up to `yield* use(resource)` it acquires, and after that, with the exit of its
 * user, it releases.
 *
 * **Details** — It runs uninterruptibly; `restore` marks what of the acquire may be cut. If it returns an `Exit`, that takes
 *   the place of its user's, for those who can change one: `useOption` and ExitStack.ts (elsewhere a failure is added).
 * **Interruption** — as `make`; an interruption cannot be swallowed.
 * **Errors** — those of all its effects (TypeScript cannot tell which come after `use`; those are failed releases), and
 *   `GeneratorDidNotYield`; a second `use` is a failed release, with `GeneratorYieldedTwice`.
 * **Cost** — as `make`, and one generator.
 *
 * **Example** (acquire and release in one place)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const say = (text: string) => Effect.sync(() => { log.push(text) })
 * const room = Managed.gen("room", function*(use) {
 *   yield* say("unlock")
 *   const exit = yield* use("room 101")
 *   yield* say(`lock, ${exit._tag}`)
 * })
 * await Effect.runPromise(Managed.use(room, say))
 * log // => ["unlock", "room 101", "lock, Success"]
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const gen = <Y extends Generators.Yielded, X, R2 = never>(
  options: string | Settings<HeldBy<Y>, R2>,
  body: (use: <A>(resource: A) => Held<A>, restore: Restore) => Generator<Y, X, any>
): Managed<
  HeldBy<Y>,
  ErrorIn<Y> | ErrorOfExit<X> | GeneratorDidNotYield,
  ContextIn<Y> | R2
> => {
  const settings = settingsOf(options)
  const faults = faultsOf(settings.name)
  return new Inside(
    new Single(
      {
        ...kept(settings),
        acquire: (restore) =>
          Generators.enter(() => body((value) => new Generators.Held(value), restore), faults),
        release: ({ generator }, exit, reason) =>
          // INVARIANT Managed-8: an interruption is never swallowed.
          Generators.leave(generator, exit, reason.kind === "failure", faults)
      },
      Ledger.unsafeSite(2),
      true
    )
  )
}

/**
 * A resource that its owner disposes of by hand, or by `await using`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Owned<out A> extends AsyncDisposable {
  readonly value: A
}

/**
 * Opens a resource for code that is not Effect's: `await using owned = await Effect.runPromise(Managed.toAsyncDisposable(m))`.
 *
 * **Details** — Its release sees a success: nobody tells a disposable how its user ended. To dispose of it twice, or while it
 *   is being disposed of, waits for the one release.
 * **Interruption** — Opening: as `make`; interrupted by the time it is open, it is released at once. After that whoever ran this
 *   is the owner: run it as the whole of a program, where nobody can part the result from him.
 * **Errors** — those of the acquire. A failing release rejects the promise of the disposal.
 * **Cost** — as `make`.
 *
 * **Example** (disposed of at the end of the block)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * let lit = false
 * const lamp = Managed.make({
 *   name: "lamp",
 *   acquire: Effect.sync(() => { lit = true; return "lamp" }),
 *   release: () => Effect.sync(() => { lit = false })
 * })
 * const owned = await Effect.runPromise(Managed.toAsyncDisposable(lamp))
 * const before = [owned.value, lit]
 * await owned[Symbol.asyncDispose]()
 * before.concat(lit) // => ["lamp", true, false]
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const toAsyncDisposable = <A, E, R>(
  self: Managed<A, E, R>
): Effect.Effect<Owned<A>, E, R> => {
  const site = Ledger.unsafeSite(2)
  // MASK: until it is open and handed over it is ours; waiting is restored by `acquire` itself.
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.runtime(),
      (runtime) =>
        Effect.flatMap(self.openInMask(restore, site), ({ close, value }) => {
          // Guarded by the single thread; there before the release begins, which may itself dispose of it.
          let ending: Promise<void> | undefined
          const end = (): Promise<void> => {
            if (ending !== undefined) return ending
            let endsAs!: (ended: Promise<void>) => void
            ending = new Promise((resolve) => {
              endsAs = resolve
            })
            // MASK: nobody can reach it but by its deadline.
            endsAs(Runtime.runPromise(runtime, Effect.uninterruptible(close(Exit.void))))
            return ending
          }
          return Effect.matchCauseEffect(restore(Effect.void), {
            onFailure: (cause) => endUnchanged({ value, close }, Exit.failCause(cause)),
            onSuccess: () => Effect.succeed({ value, [asyncDispose()]: end })
          })
        })
    )
  )
}
