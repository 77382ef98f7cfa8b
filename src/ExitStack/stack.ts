/**
 * stack: the stack itself: what it holds, what is being acquired for it, and how it ends.
 *
 * INVARIANTS those of ExitStack.ts, named where they are kept.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { callerOf, outcomeWithin, releaseDeadlineOf } from "../internal/deadline.ts"
import { withFailure } from "../internal/exit.ts"
import { Handle } from "../internal/handle.ts"
import { OwnerClosed } from "../internal/handover.ts"
import * as Interrupt from "../internal/interrupt.ts"
import * as Rules from "../internal/options.ts"
import type * as Release from "../internal/release.ts"
import { type AnyFiber, currentFiber, nextFiberId } from "../internal/runtime.ts"
import * as Ledger from "../Ledger.ts"
import { asManaged, fromScopedAt, type Restore } from "../Managed/resource.ts"
import * as Parallel from "../Parallel.ts"
import * as Steps from "./steps.ts"

/**
 * Identifies an `ExitStack`.
 *
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/ExitStack")

/**
 * The type of `TypeId`.
 *
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * The name and bound of a handler, or of a scoped effect that is entered.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReleaseOptions {
  /** Shown by the ledger and in errors. Default: the handler's own name, or its kind. */
  readonly name?: string | undefined
  /** How long it may take. Default 5 seconds; `Infinity` for no bound. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

/**
 * The settings of `enter`. A `Managed` has a name and a deadline of its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface EnterOptions<out A, out E> extends ReleaseOptions {
  /**
   * The exit if the resource swallows the failure that is thrown into it (`Managed.fromAsyncGenerator`). Default: the failure
   * stands, since nothing else has the result's type. Another failure of such a resource is a defect; to translate with a type,
   * `push`.
   */
  readonly instead?: Exit.Exit<A, E> | undefined
}

/**
 * A stack has ended while something was still being acquired for it, and did not wait any longer: a defect in the cause of its
 * exit. What that acquires after it is released at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class EnterTimeout extends Data.TaggedError("EnterTimeout")<{
  /** Its name. */
  readonly stack: string
  /** Each acquire: its name (those of one `enterAll`, joined by `, `), and the line that asked, if it is known. */
  readonly entering: ReadonlyArray<{
    readonly resource: string
    readonly site: string | undefined
  }>
  readonly deadline: Duration.Duration
  /** How long it waited: less than `deadline` where a shutdown had less time left. */
  readonly elapsed: Duration.Duration
}> {
  override get message(): string {
    const all = this.entering.map(({ resource, site }) =>
      site === undefined
        ? `"${resource}"`
        : `"${resource}" (requested at ${site.split("\n", 1)[0]})`
    )
    return `The exit stack "${this.stack}" waited ${
      Duration.format(Duration.min(this.elapsed, this.deadline))
    } at its end for acquires under way, and did not wait any longer for ${all.join(", ")}: `
      + "the resources of the stack are released by now, and what is acquired later is released at once. "
      + "Bound the acquire, let it be interrupted (`restore`), or wait for it before the stack ends."
  }
}

/** A value acquired for a stack, and the steps that release it. */
interface Taken<out B, out A, out E> {
  readonly value: B
  readonly steps: ReadonlyArray<Steps.Step<A, E>>
}

/** The fiber that runs now, and those that wait for it. */
const waitingForThis = (): ReadonlySet<unknown> => {
  const fibers = new Set<unknown>()
  for (let next = currentFiber(); next !== undefined; next = callerOf(next)) fibers.add(next)
  return fibers
}

/** The children of a fiber with ids from `since` on, and their descendants: they are interrupted when it ends. */
const descendantsOf = (
  fiber: Fiber.Fiber<unknown, unknown>,
  since: number
): Effect.Effect<ReadonlyArray<AnyFiber>> =>
  Effect.flatMap(fiber.children, (all) => {
    const children = all.filter((child) => child.id().id >= since)
    return Effect.map(
      Effect.forEach(children, (child) => descendantsOf(child, since)),
      (theirs) => [...children, ...theirs.flat()]
    )
  })

/** One acquire under way. */
interface Entering {
  readonly what: string
  readonly site: Ledger.Site | undefined
  readonly fiber: AnyFiber | undefined
  /** The stack of an `enterAll`'s members, each of which may have a fiber of its own. */
  group: { readonly entering: ReadonlyArray<Entering>; refusing: boolean } | undefined
  /** It came too late, and is being released. */
  isTooLate: boolean
}

const isBy = ({ fiber, group }: Entering, fibers: ReadonlySet<unknown>): boolean =>
  fibers.has(fiber) ||
  (group !== undefined && group.entering.some((member) => isBy(member, fibers)))

const scopedName = "scoped effect"

/** How long an end waits for acquires under way. */
const enterDeadline = releaseDeadlineOf()

const nameOf = (resource: Effect.Effect<any, any, any>): string =>
  asManaged(resource)?.name ?? scopedName

const rules: Rules.Rules = { name: Rules.text, releaseDeadline: Rules.duration }

const enterRules: Rules.Rules = { ...rules, instead: Rules.anything }

const variance: Record<"_A" | "_E", Types.Contravariant<unknown>> = { _A: (_) => _, _E: (_) => _ }

/** A stack. Its handlers may put an exit of `A` or `E` in place of its own. */
export class Stack<in out A, in out E> extends Handle {
  readonly [TypeId] = variance
  readonly name: string
  /** The owner that the ledger shows. */
  readonly owner: string | undefined
  /** Older fibers have lower ids. */
  since = nextFiberId()
  steps: Array<Steps.Step<A, E>> = []
  /** Closed, closing, or emptied: nothing more comes in. */
  refusing = false
  /** The acquires under way that a close waits for. */
  readonly entering: Array<Entering> = []
  /** Wakes the close that waits for the last of them. */
  wake: (() => void) | undefined = undefined
  /** The stack that has what this one had. */
  successor: Stack<unknown, unknown> | undefined = undefined
  /** It is closing or closed. */
  isEnding = false
  /** The fiber that runs its steps. */
  unwinder: AnyFiber | undefined = undefined
  /** The exit it has ended with. */
  final: Exit.Exit<unknown, unknown> | undefined = undefined
  /** For callers that wait for that. */
  joined: Deferred.Deferred<Exit.Exit<unknown, unknown>> | undefined = undefined

  constructor(name = "exit stack", owner?: string) {
    super()
    this.name = name
    this.owner = owner
    // The operations work without their stack: `managed.pipe(stack.enter)`.
    this.enter = this.enter.bind(this)
    this.enterAll = this.enterAll.bind(this)
    this.push = this.push.bind(this)
    this.callback = this.callback.bind(this)
    this.moveTo = this.moveTo.bind(this)
    this.close = this.close.bind(this)
  }

  enter<B, E2, R>(
    resource: Effect.Effect<B, E2, R>,
    options?: EnterOptions<A, E>
  ): Effect.Effect<B, E2, Exclude<R, Scope.Scope>> {
    const site = Ledger.unsafeSite()
    if (options !== undefined) Rules.check(`ExitStack "${this.name}"`, options, enterRules)
    const managed = asManaged(resource) ?? fromScopedAt(
      {
        name: options?.name ?? scopedName,
        kind: "scope",
        releaseDeadline: options?.releaseDeadline
      },
      resource,
      site
    )
    return this.take(
      managed.name,
      site,
      (restore) =>
        Effect.map(managed.openInMask(restore, site), (opened) => ({
          value: opened.value,
          steps: [Steps.releaseStep(opened, options?.instead)]
        }))
    )
  }

  enterAll<const T extends ReadonlyArray<Effect.Effect<any, any, any>>>(
    resources: T,
    options?: { readonly concurrency?: Types.Concurrency | undefined }
  ): Effect.Effect<
    { -readonly [K in keyof T]: Effect.Effect.Success<T[K]> },
    Effect.Effect.Error<T[number]>,
    Exclude<Effect.Effect.Context<T[number]>, Scope.Scope>
  > {
    type Values = { -readonly [K in keyof T]: Effect.Effect.Success<T[K]> }
    type Member = Effect.Effect<
      Values[number],
      Effect.Effect.Error<T[number]>,
      Effect.Effect.Context<T[number]>
    >
    const site = Ledger.unsafeSite()
    const names = resources.map((resource) => nameOf(resource)).join(", ")
    const taken = this.take(names, site, (restore, entering) => {
      // All on a stack of their own, whose steps this one gets when it is complete.
      const group = new Stack<A, E>(this.name)
      group.since = this.since
      entering.group = group
      const entered = Parallel.forEach(
        resources,
        (resource: Member) => group.enter(resource),
        options
      )
      return Effect.matchCauseEffect(restore(entered), {
        onFailure: (cause) => group.failed(cause, group.steps),
        onSuccess: (values) =>
          // One value for each, in their order; the type of `forEach` does not say that it is a tuple.
          Effect.succeed({ value: values as Values, steps: group.steps })
      })
    })
    return Ledger.withSite(taken, site)
  }

  push<R = never>(
    handler: Steps.Handler<A, E, R>,
    options?: ReleaseOptions
  ): Effect.Effect<void, never, R> {
    // `R` is in the context of the FiberRefs that the release keeps.
    const work = handler as Steps.Handler<A, E, never>
    return this.register<R>(
      (release) => Steps.handlerStep(release, work),
      "exit handler",
      handler.name || "exit handler",
      options
    )
  }

  callback<R>(
    effect: Effect.Effect<unknown, unknown, R>,
    options?: ReleaseOptions
  ): Effect.Effect<void, never, R> {
    // As in `push`.
    const work = effect as Effect.Effect<unknown, unknown>
    return this.register<R>(
      (release) => Steps.callbackStep(release, work),
      "callback",
      "callback",
      options
    )
  }

  get popAll(): Effect.Effect<Stack<unknown, unknown>, never, Scope.Scope> {
    return Effect.flatMap(Effect.scope, (scope) => this.handOver(scope))
  }

  moveTo(scope: Scope.Scope): Effect.Effect<void> {
    return Effect.asVoid(this.handOver(scope))
  }

  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<Exit.Exit<unknown, unknown>> {
    // MASK: an interrupt must not end the unwinding half-way; waiting for another's close is restored.
    return Effect.uninterruptibleMask((restore) =>
      this.isEnding ? restore(this.join(exit)) : this.endInMask(exit, "hand")
    )
  }

  toJSON(): unknown {
    const state = this.final !== undefined
      ? "closed"
      : this.isEnding
      ? "closing"
      : this.refusing
      ? "moved"
      : "open"
    const { entering, name, steps } = this
    return {
      _id: "holdfast/ExitStack",
      name,
      state,
      steps: steps.length,
      entering: entering.length
    }
  }

  /** Acquires, and registers in the step in which that has succeeded. */
  take<B, E2, R>(
    what: string,
    site: Ledger.Site | undefined,
    open: (
      restore: Restore,
      entering: Entering
    ) => Effect.Effect<Taken<B, A, E>, E2, R>
  ): Effect.Effect<B, E2, R> {
    // MASK: acquire and registration are one step; waiting is restored by the resource.
    return this.inItsName(Effect.uninterruptibleMask((restore) => {
      if (this.refusing) return this.refused(what)
      const fiber = currentFiber()
      const entering: Entering = { what, site, fiber, group: undefined, isTooLate: false }
      this.entering.push(entering)
      return Effect.matchCauseEffect(open(restore, entering), {
        onFailure: (cause) => {
          this.leave(entering)
          return Effect.failCause(cause)
        },
        onSuccess: ({ steps, value }) => {
          if (this.refusing) return this.tooLate(what, steps, entering)
          this.steps.push(...steps)
          this.leave(entering)
          return Effect.succeed(value)
        }
      })
    }))
  }

  /** It was acquired for a stack that has closed meanwhile: it is released at once, and the close waits for that. */
  tooLate(
    what: string,
    steps: ReadonlyArray<Steps.Step<A, E>>,
    entering: Entering
  ): Effect.Effect<never> {
    entering.isTooLate = true
    const refused = Cause.die(new OwnerClosed({ owner: this.name, resource: what }))
    return Effect.onExit(
      this.failed(refused, [...steps]),
      () => Effect.sync(() => this.leave(entering))
    )
  }

  /** Runs `steps` and fails: with `cause`, and with what they failed with. */
  failed<E2>(cause: Cause.Cause<E2>, steps: Array<Steps.Step<A, E>>): Effect.Effect<never, E2> {
    const before = Exit.failCause(cause)
    return Effect.flatMap(Steps.unwind(steps, before), (after) => {
      const added = Steps.addedTo(before, after)
      return Effect.failCause(added === undefined ? cause : Cause.sequential(cause, added))
    })
  }

  leave(entering: Entering): void {
    this.remove(entering)
    this.successor?.leave(entering)
  }

  remove(entering: Entering): void {
    const index = this.entering.lastIndexOf(entering)
    if (index === -1) return
    // Their order has no meaning.
    const last = this.entering.pop()!
    if (last !== entering) this.entering[index] = last
    if (this.entering.length === 0) this.wake?.()
  }

  /** INVARIANT ExitStack-9: no close waits for the acquires of these fibers. */
  stopAwaitingBy(fibers: ReadonlySet<unknown>): void {
    for (const entering of this.entering.filter((one) => isBy(one, fibers))) {
      this.stopAwaiting(entering)
    }
  }

  /** Nothing waits for it, and it opens nothing more. */
  stopAwaiting(entering: Entering): void {
    if (entering.group !== undefined) entering.group.refusing = true
    this.remove(entering)
  }

  /** Whether one of these runs a release of this stack. */
  isReleasedBy(fibers: ReadonlySet<unknown>): boolean {
    return fibers.has(this.unwinder) ||
      this.entering.some(({ fiber, isTooLate }) => isTooLate && fibers.has(fiber))
  }

  /** One step: nothing comes between the question whether it is closed and the answer. */
  register<R>(
    make: (release: Release.Release) => Steps.Step<A, E>,
    kind: string,
    defaultName: string,
    options: ReleaseOptions | undefined
  ): Effect.Effect<void, never, R> {
    const site = Ledger.unsafeSite()
    const name = options?.name ?? defaultName
    Rules.check(`ExitStack "${this.name}"`, options, rules)
    return this.inItsName(Effect.withFiberRuntime((fiber) => {
      if (this.refusing) return this.refused(name)
      const ledger = Ledger.unsafeInForce(fiber)
      const entry = ledger?.unsafeAcquiring(kind, name, { site, fiber })
      if (entry !== undefined) ledger?.unsafeHeld(entry)
      this.steps.push(make({
        kind,
        name,
        site,
        deadline: releaseDeadlineOf(options),
        recorded: ledger && entry && { ledger, entry },
        refs: fiber.getFiberRefs()
      }))
      return Effect.void
    }))
  }

  refused(what: string): Effect.Effect<never> {
    return Effect.die(new OwnerClosed({ owner: this.name, resource: what }))
  }

  inItsName<B, E2, R>(effect: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R> {
    return this.owner === undefined ? effect : Ledger.withOwner(effect, this.owner)
  }

  /** Unwinds it. A caller that is not the first only waits for that, and keeps its own exit. */
  endInMask<B, F>(
    exit: Exit.Exit<B, F>,
    by: "owner" | "hand"
  ): Effect.Effect<Exit.Exit<A | B, E | F>> {
    if (this.isEnding) return Effect.as(this.join(exit), exit)
    this.isEnding = true
    this.refusing = true
    if (this.entering.length > 0) this.stopAwaitingBy(waitingForThis())
    return this.entering.length === 0
      ? this.unwind(exit)
      : Effect.flatMap(
        this.settle(by === "owner" ? currentFiber() : undefined),
        (late) => this.unwind(late === undefined ? exit : withFailure(exit, late))
      )
  }

  /** INVARIANT ExitStack-10: waits for the acquires under way, and gives those that it no longer waits for. */
  settle(owner: AnyFiber | undefined): Effect.Effect<Cause.Cause<never> | undefined> {
    const quiet = Effect.async<void>((resume) => {
      // The last of them may have left before this fiber waits.
      if (this.entering.length === 0) resume(Effect.void)
      else this.wake = () => resume(Effect.void)
    })
    const work = owner === undefined ? quiet : Effect.zipRight(this.interruptForks(owner), quiet)
    return Effect.flatMap(outcomeWithin(work, enterDeadline), (outcome) => {
      if (Either.isRight(outcome)) return Effect.succeed(undefined)
      // Those that are being released end by the deadlines of their releases.
      return Effect.as(quiet, this.abandonLate(outcome.left))
    })
  }

  /** Interrupts the acquires that the end of the owner's fiber would interrupt anyway. */
  interruptForks(owner: AnyFiber): Effect.Effect<void> {
    return Effect.map(descendantsOf(owner, this.since), (descendants) => {
      const mayBeCut = new Set<unknown>(descendants)
      for (const { fiber } of this.entering) {
        if (fiber !== undefined && mayBeCut.has(fiber)) Interrupt.atWait(fiber, owner.id())
      }
    })
  }

  /** Waits no longer for acquires under way; they open nothing more, and release what they get. */
  abandonLate(elapsed: Duration.Duration): Cause.Cause<never> | undefined {
    const late = this.entering.filter(({ isTooLate }) => !isTooLate)
    if (late.length === 0) return undefined
    for (const entering of late) this.stopAwaiting(entering)
    return Cause.die(
      new EnterTimeout({
        stack: this.name,
        entering: late.map(({ site, what }) => ({ resource: what, site: site?.text })),
        deadline: enterDeadline,
        elapsed
      })
    )
  }

  unwind<B, F>(exit: Exit.Exit<B, F>): Effect.Effect<Exit.Exit<A | B, E | F>> {
    const end = (final: Exit.Exit<A | B, E | F>): Exit.Exit<A | B, E | F> => {
      this.final = final
      this.unwinder = undefined
      if (this.joined !== undefined) Deferred.unsafeDone(this.joined, Exit.succeed(final))
      return final
    }
    if (this.steps.length === 0) return Effect.sync(() => end(exit))
    this.unwinder = currentFiber()
    return Effect.map(Steps.unwind(this.steps, exit), end)
  }

  /** Waits for the end and gives its exit; gives one of its own releases, which the end waits for, `exit` at once. */
  join(exit: Exit.Exit<unknown, unknown>): Effect.Effect<Exit.Exit<unknown, unknown>> {
    if (this.final !== undefined) return Effect.succeed(this.final)
    const fibers = waitingForThis()
    if (this.isReleasedBy(fibers)) return Effect.succeed(exit)
    this.stopAwaitingBy(fibers)
    this.joined ??= Deferred.unsafeMake(FiberId.none)
    return Deferred.await(this.joined)
  }

  /** The scope's close ends it. The scope's exit stays; the close fails with what the unwinding added to it. */
  belongTo(scope: Scope.Scope): Effect.Effect<void> {
    return Scope.addFinalizerExit(scope, (exit) =>
      // MASK: as in `close`; a raw `Scope.close` is interruptible between its finalizers.
      Effect.uninterruptible(Effect.suspend(() =>
        Effect.flatMap(this.endInMask(exit, "owner"), (final) => {
          const added = Steps.addedTo(exit, final)
          return added === undefined ? Effect.void : Effect.failCause(added)
        })
      )))
  }

  /** First the scope owns an empty successor, then everything moves to that in one step: it always has an owner. */
  handOver(scope: Scope.Scope): Effect.Effect<Stack<unknown, unknown>, never> {
    return Effect.suspend(() => {
      if (this.refusing) return this.refused("popAll")
      const successor = new Stack<unknown, unknown>(this.name, this.owner)
      return Effect.flatMap(successor.belongTo(scope), () => {
        if (this.refusing) return this.refused("popAll")
        // A closed scope has ended its new finalizer, and with it the successor, at once.
        if (successor.refusing) {
          return Effect.die(new OwnerClosed({ owner: "scope", resource: this.name }))
        }
        this.refusing = true
        successor.steps = this.steps
        this.steps = []
        // They will be released, but may use what the successor has now.
        successor.entering.push(...this.entering)
        this.successor = successor
        return Effect.succeed(successor)
      })
    })
  }
}
