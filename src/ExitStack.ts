/**
 * ExitStack: resources entered as you go, and handlers that see how it ended and may change it; all of it can move on.
 *
 * DESIGN. A stack is a list of steps, each a function from the exit as it is to the exit as it becomes. To unwind is to run
 * them from the last to the first. A resource's step releases it; a handler's step runs the handler. To close is to unwind
 * once, for everybody who asks; to hand over is to move the list to another stack in one step of the single thread.
 * `ExitStack<A, E>` says what a handler may put in place of the exit: in a plain `(stack) => …` nothing, so that the result of
 * `use` is the body's; write `(stack: ExitStack<string>) => …` and a handler may end it with a string.
 *
 * INVARIANTS
 * - ExitStack-1 (L1, L3) What was entered or pushed runs once, in the reverse order of registration, whatever the exit.
 * - ExitStack-2 (L2) To acquire and to register are one step; what was cut or failed has registered nothing.
 * - ExitStack-3 A handler sees the exit as it is by then and may replace it; what the last one leaves is the result.
 * - ExitStack-4 (L4, L5) One that fails, throws or overruns its deadline stops no other; its failure is appended.
 * - ExitStack-5 (L1) At every instant one owner: `popAll` and `moveTo` hand over everything, in one step, or nothing.
 * - ExitStack-6 (L7) Close unwinds once and to its end, even if the closer is interrupted; all who wait for it see one exit.
 * - ExitStack-7 (L7) A closed or emptied stack refuses with `OwnerClosed` before anything is acquired; what was being
 *   acquired meanwhile is given back, and only then does the close, or that of an heir, go on to what it may have used.
 * - ExitStack-8 `enterAll` enters all or none.
 * - ExitStack-9 Nobody waits for himself. A close asked for by one of the stack's own releases changes nothing and returns at
 *   once; one asked for by an acquire does not wait for that one, which is then refused and given back.
 * - ExitStack-10 (L4) An end waits 5 seconds for what is being acquired, then names it in its exit and goes on. Where its owner
 *   ends (`use`, the scope of `make`), what fibers that were forked there acquire is interrupted first.
 *
 * COST (2026-11, `npm run bench -- ExitStack`) `use` no more than `acquireUseRelease`; a `Managed` entered and released about
 * 4 µs, a fifth of `acquireRelease` in a scope; a scoped effect 2 to 3 times that one: its scope is its own, its close bounded.
 * NOT DONE a close that cuts the acquire of a fiber that lives longer: what else that does is not the stack's, and whether
 * what masks will ever end, or who waits for a fiber (so ExitStack-9 is not for those it forks), nobody knows. A stack without
 * an owner: what `popAll` returns belongs to a scope, or an interrupt right after it would lose everything.
 * SOURCES Python's `AsyncExitStack` (test/ExitStack.parity.test.ts runs one table on both), tc39's `move()`, cats-effect.
 *
 * @since 0.1.0
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
import { callerOf, outcomeWithin, releaseDeadlineOf } from "./internal/deadline.ts"
import { asDefects, withFailure } from "./internal/exit.ts"
import * as Release from "./internal/release.ts"
import { type AnyFiber, currentFiber, nextFiberId } from "./internal/runtime.ts"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"
import { asManaged, fromScopedAt, type Opened } from "./Managed/resource.ts"
import * as Parallel from "./Parallel.ts"

/**
 * How a stack is called: in errors, and as the owner, in the ledger, of what it holds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default: it is called `"exit stack"` and owns nothing by name. */
  readonly name?: string | undefined
}

/**
 * How what is pushed, or a scoped effect that is entered, is called and bounded.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReleaseOptions {
  /** Shown by the ledger and in errors. Default: the handler's own name, or what it is. */
  readonly name?: string | undefined
  /** How long it may take. Default 5 seconds; `Duration.infinity` for no bound. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

/**
 * How something is entered. A `Managed` has a name and a deadline of its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface EnterOptions<out A, out E> extends ReleaseOptions {
  /**
   * How it ends where the resource swallows the failure that is thrown into it (`Managed.fromAsyncGenerator`). Default: the
   * failure stands, since nothing else has the result's type. What such a resource fails with in its place is a defect; to
   * translate with a type, `push`.
   */
  readonly instead?: Exit.Exit<A, E> | undefined
}

/**
 * A stack of resources and handlers. `A` and `E` are what its handlers may put in place of the exit.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitStack<in A = never, in E = never> {
  readonly name: string
  /**
   * Acquires a `Managed`, or whatever an effect acquires in its `Scope`, and gives its value; it is released when the stack
   * unwinds.
   *
   * **Interruption** — while it is acquired: as the resource allows; nothing is then registered.
   * **Errors** — those of the resource; `OwnerClosed` before anything is acquired, or, if the stack closed or moved meanwhile,
   *   after the resource has been released again.
   * **Cost** — a `Managed` about 4 µs with its release; a scoped effect has a scope of its own and takes ten to twenty times that.
   */
  readonly enter: <B, E2, R>(
    resource: Effect.Effect<B, E2, R>,
    options?: EnterOptions<A, E>
  ) => Effect.Effect<B, E2 | Managed.OwnerClosed, Exclude<R, Scope.Scope>>
  /**
   * Enters all or none, `concurrency` at once (default 1). If one fails, those that were opened are released in reverse and
   * the stack is as it was.
   *
   * **Interruption**, **Errors** — as `enter`; **Cost** — besides, a fork per worker if `concurrency` is not 1.
   */
  readonly enterAll: <const T extends ReadonlyArray<Effect.Effect<any, any, any>>>(
    resources: T,
    options?: { readonly concurrency?: Types.Concurrency | undefined }
  ) => Effect.Effect<
    { -readonly [K in keyof T]: Effect.Effect.Success<T[K]> },
    Effect.Effect.Error<T[number]> | Managed.OwnerClosed,
    Exclude<Effect.Effect.Context<T[number]>, Scope.Scope>
  >
  /**
   * Registers a handler. It sees the exit as it is when its turn comes, and may return another in its place: a success
   * suppresses the failure, a failure translates it. One that fails is appended to the exit.
   *
   * **Interruption** — never waits. The handler is not reached by an interrupt of whoever unwinds the stack.
   * **Errors** — `OwnerClosed`. **Cost** — one record; its run is bounded like a release.
   */
  readonly push: <R = never>(
    handler: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Exit.Exit<A, E> | void, E, R>,
    options?: ReleaseOptions
  ) => Effect.Effect<void, Managed.OwnerClosed, R>
  /**
   * Registers an effect that runs whatever the exit, and does not change it but by failing: that is a defect, as a failed
   * release is.
   *
   * **Interruption**, **Errors**, **Cost** — as `push`.
   */
  readonly callback: <R>(
    effect: Effect.Effect<unknown, unknown, R>,
    options?: ReleaseOptions
  ) => Effect.Effect<void, Managed.OwnerClosed, R>
  /**
   * Hands everything over to a new stack, which the current scope owns, and leaves this one closed and empty.
   *
   * **Interruption** — never waits; interrupted, either stack owns everything. **Errors** — `OwnerClosed` if this stack or the
   *   scope is closed; this stack then keeps what it has. **Cost** — one finalizer, however much moves.
   */
  readonly popAll: Effect.Effect<
    ExitStack<unknown, unknown>,
    Managed.OwnerClosed,
    Scope.Scope
  >
  /**
   * Hands everything over to a scope, whose close then unwinds it with the scope's exit. That exit stays as it is: what a
   * handler puts in its place is lost, what fails is in the exit of the close.
   *
   * **Interruption**, **Errors**, **Cost** — as `popAll`.
   */
  readonly moveTo: (scope: Scope.Scope) => Effect.Effect<void, Managed.OwnerClosed>
  /**
   * Unwinds with `exit` and gives the exit that came of it: as a value, failures of releases included, so look at it or flatten
   * it. Whoever closes it again waits for the same end and gets the same exit.
   *
   * **Details** — From inside, where it would wait for itself: one of the stack's own releases or handlers gets `exit` back at
   *   once, since the stack is closing anyway; an acquire for the stack waits for all but itself, and is then refused with
   *   `OwnerClosed` and given back (`enterAll` is one acquire). Inside is what runs in the fiber of the acquire or the release;
   *   one that it forks waits like anybody else, so do not wait for that.
   *   What others are acquiring for it is waited for before the first release, 5 seconds at most (`EnterTimeout` in the exit),
   *   and is not interrupted.
   * **Interruption** — the unwinding runs to its end; who waits for another's close stops waiting. **Errors** — none.
   * **Cost** — that of the releases.
   */
  readonly close: (
    exit: Exit.Exit<unknown, unknown>
  ) => Effect.Effect<Exit.Exit<unknown, unknown>>
}

/**
 * A stack has ended while something was still being acquired for it, and did not wait any longer: a defect in the cause of its
 * exit. What is acquired after that is released at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class EnterTimeout extends Data.TaggedError("EnterTimeout")<{
  /** Its name. */
  readonly stack: string
  /** What it did not wait for: the names, joined by `, ` for one `enterAll`, and the line that asked, as far as it is known. */
  readonly entering: ReadonlyArray<{
    readonly resource: string
    readonly site: string | undefined
  }>
  readonly deadline: Duration.Duration
  /** How long they were in fact waited for: less than `deadline` where the end of the program could not wait that long. */
  readonly elapsed: Duration.Duration
}> {
  override get message(): string {
    const all = this.entering.map(({ resource, site }) =>
      site === undefined
        ? `"${resource}"`
        : `"${resource}" (asked for at ${site.split("\n", 1)[0]})`
    )
    return `The exit stack "${this.stack}" waited ${
      Duration.format(Duration.min(this.elapsed, this.deadline))
    } at its end for what was still being acquired, and went on without ${all.join(", ")}: `
      + "what that uses of the stack is released by now, and what it acquires goes at once. "
      + "Bound the acquire, let it be interrupted (`restore`), or wait for it before the stack ends."
  }
}

/** From the exit as it is to the exit as it becomes. Never fails and never waits for longer than a release may. */
type Step<out A, out E> = <B, F>(
  exit: Exit.Exit<B, F>
) => Effect.Effect<Exit.Exit<A | B, E | F>>

type Handler<A, E, R> = (
  exit: Exit.Exit<unknown, unknown>
) => Effect.Effect<Exit.Exit<A, E> | void, E, R>

/** What was acquired for a stack, and how to let it go. */
interface Taken<out B, out A, out E> {
  readonly value: B
  readonly steps: ReadonlyArray<Step<A, E>>
}

// Exits. A failure that the types do not speak of is a defect.

/** `cause` with `known` where it stands in it, and with defects for all else. A loop: no cause is too deep for it. */
const asDefectsBut = <E>(
  cause: Cause.Cause<unknown>,
  known: Cause.Cause<E> | undefined
): Cause.Cause<E> => {
  const done: Array<Cause.Cause<E>> = []
  const todo: Array<Cause.Cause<unknown> | "sequential" | "parallel"> = [cause]
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    if (next === known) done.push(known)
    else if (typeof next === "string") {
      const right = done.pop()!
      const left = done.pop()!
      done.push(next === "sequential" ? Cause.sequential(left, right) : Cause.parallel(left, right))
    } else if (next._tag === "Sequential") todo.push("sequential", next.right, next.left)
    else if (next._tag === "Parallel") todo.push("parallel", next.right, next.left)
    else done.push(asDefects(next))
  }
  return done[0]!
}

/** What an unwinding that began with `before` has added to it: as defects, since its owner has no type for them. */
const addedTo = (
  before: Cause.Cause<unknown>,
  after: Cause.Cause<unknown>
): Cause.Cause<never> | undefined => {
  const added: Array<Cause.Cause<never>> = []
  let first = after
  for (; first !== before && first._tag === "Sequential"; first = first.left) {
    added.push(asDefects(first.right))
  }
  if (first !== before) added.push(asDefects(first))
  return added.length === 0
    ? undefined
    : added.reduceRight((all, next) => Cause.sequential(all, next))
}

const newsIn = (
  before: Exit.Exit<unknown, unknown>,
  after: Exit.Exit<unknown, unknown>
): Cause.Cause<never> | undefined => {
  if (Exit.isSuccess(after)) return undefined
  return Exit.isSuccess(before) ? asDefects(after.cause) : addedTo(before.cause, after.cause)
}

// Steps.

/** A step that runs `work` as a release, and makes the next exit of the exit and of how that ended. */
const step = <A, E, B, F>(
  release: Release.Release,
  work: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<B, F>,
  next: <C, G>(exit: Exit.Exit<C, G>, ended: Exit.Exit<B, F>) => Exit.Exit<A | C, E | G>
): Step<A, E> =>
(exit) =>
  Effect.suspend(() =>
    Effect.map(Release.run(release, () => work(exit), exit), (ended) => next(exit, ended))
  )

/** Of a handler: its exit, if it gives one. */
const replaced = <A, E, C, G>(
  exit: Exit.Exit<C, G>,
  ended: Exit.Exit<Exit.Exit<A, E> | void, E>
): Exit.Exit<A | C, E | G> =>
  // It may have given anything: a handler is often an effect that is run for what it does.
  Exit.isFailure(ended)
    ? withFailure(exit, ended.cause)
    : Exit.isExit(ended.value)
    ? ended.value
    : exit

/** Of a release: what it failed with, and nothing else. */
const kept = <C, G>(
  exit: Exit.Exit<C, G>,
  ended: Exit.Exit<unknown, unknown>
): Exit.Exit<C, G> => Exit.isFailure(ended) ? withFailure(exit, asDefects(ended.cause)) : exit

const releaseStep = <A, E>(
  { close, exit: change }: Opened<unknown>,
  instead: Exit.Exit<A, E> | undefined
): Step<A, E> =>
(exit) =>
  change === undefined
    ? Effect.matchCause(close(exit), {
      onSuccess: () => exit,
      onFailure: (cause) => withFailure(exit, cause)
    })
    : Effect.map(change(exit), (changed) => {
      if (Exit.isSuccess(changed)) return Exit.isSuccess(exit) ? exit : instead ?? exit
      return Exit.failCause(
        asDefectsBut(changed.cause, Exit.isFailure(exit) ? exit.cause : undefined)
      )
    })

/** Takes them off one by one, the last first. */
const unwound = <A, E, B, F>(
  steps: Array<Step<A, E>>,
  exit: Exit.Exit<B, F>
): Effect.Effect<Exit.Exit<A | B, E | F>> =>
  Effect.suspend(() => {
    let current: Exit.Exit<A | B, E | F> = exit
    return Effect.map(
      Effect.whileLoop({
        while: () => steps.length > 0,
        body: () => steps.pop()!(current),
        step: (next) => {
          current = next
        }
      }),
      () => current
    )
  })

// Who waits for whom.

/** The fiber that runs now, and those that can do nothing until it has ended. */
const waitingForThis = (): ReadonlySet<unknown> => {
  const fibers = new Set<unknown>()
  for (let next = currentFiber(); next !== undefined; next = callerOf(next)) fibers.add(next)
  return fibers
}

/** Those that a fiber has forked, from the id `since` on, and those have forked, that are interrupted when it ends. */
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

/** One acquire in flight. Guarded by the single thread. */
interface Entering {
  readonly what: string
  readonly site: Ledger.Site | undefined
  readonly fiber: AnyFiber | undefined
  /** Of `enterAll`: the stack of its members, each of which may have a fiber of its own. */
  part: { readonly entering: ReadonlyArray<Entering>; refusing: boolean } | undefined
  /** It came too late, and is given back. */
  isOver: boolean
}

const isBy = ({ fiber, part }: Entering, fibers: ReadonlySet<unknown>): boolean =>
  fibers.has(fiber) ||
  (part !== undefined && part.entering.some((member) => isBy(member, fibers)))

// What can be entered.

const scopedName = "scoped effect"

/** How long an end waits for acquires in flight. */
const enterDeadline = releaseDeadlineOf()

const nameOf = (resource: Effect.Effect<any, any, any>): string =>
  asManaged(resource)?.name ?? scopedName

// The stack.

class ExitStackImpl<in out A, in out E> implements ExitStack<A, E> {
  readonly name: string
  /** In whose name it enters. */
  readonly owner: string | undefined
  // All guarded by the single thread; written only by this class.
  /** Fibers that are older have lower ids. */
  since = nextFiberId()
  steps: Array<Step<A, E>> = []
  /** Closed, closing, or emptied: nothing more comes in. */
  refusing = false
  /** The acquires in flight that a close waits for. */
  readonly entering: Array<Entering> = []
  /** Who waits for the last of them. */
  wake: (() => void) | undefined = undefined
  /** Who has what it had. */
  heir: ExitStackImpl<unknown, unknown> | undefined = undefined
  /** Somebody closes it, or has. */
  isEnding = false
  /** Who runs its steps. */
  unwinder: AnyFiber | undefined = undefined
  /** The exit it has ended with. */
  final: Exit.Exit<unknown, unknown> | undefined = undefined
  /** Who waits for that. */
  joined: Deferred.Deferred<Exit.Exit<unknown, unknown>> | undefined = undefined

  constructor(name = "exit stack", owner?: string) {
    this.name = name
    this.owner = owner
    // A stack is used piece by piece, too: `managed.pipe(stack.enter)`.
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
  ): Effect.Effect<B, E2 | Managed.OwnerClosed, Exclude<R, Scope.Scope>> {
    const site = Ledger.unsafeSite()
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
          steps: [releaseStep(opened, options?.instead)]
        }))
    )
  }

  enterAll<const T extends ReadonlyArray<Effect.Effect<any, any, any>>>(
    resources: T,
    options?: { readonly concurrency?: Types.Concurrency | undefined }
  ): Effect.Effect<
    { -readonly [K in keyof T]: Effect.Effect.Success<T[K]> },
    Effect.Effect.Error<T[number]> | Managed.OwnerClosed,
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
      // All of them on a stack of their own, which is laid on this one when it is complete.
      const part = new ExitStackImpl<A, E>(this.name)
      part.since = this.since
      entering.part = part
      const entered = Parallel.forEach(
        resources,
        (resource: Member) => part.enter(resource),
        options
      )
      return Effect.matchCauseEffect(restore(entered), {
        onFailure: (cause) => part.failed(cause, part.steps),
        onSuccess: (values) =>
          // One value for each, in their order: that it is a tuple TypeScript cannot follow through `forEach`.
          Effect.succeed({ value: values as Values, steps: part.steps })
      })
    })
    return Ledger.withSite(taken, site)
  }

  push<R = never>(
    handler: Handler<A, E, R>,
    options?: ReleaseOptions
  ): Effect.Effect<void, Managed.OwnerClosed, R> {
    // `R` is in the context of the FiberRefs that the release keeps.
    const work = handler as Handler<A, E, never>
    return this.register<R>(
      (release) => step<A, E, Exit.Exit<A, E> | void, E>(release, work, replaced),
      "exit handler",
      handler.name || "exit handler",
      options
    )
  }

  callback<R>(
    effect: Effect.Effect<unknown, unknown, R>,
    options?: ReleaseOptions
  ): Effect.Effect<void, Managed.OwnerClosed, R> {
    // As in `push`.
    const work = effect as Effect.Effect<unknown, unknown>
    return this.register<R>(
      (release) => step<never, never, unknown, unknown>(release, () => work, kept),
      "callback",
      "callback",
      options
    )
  }

  get popAll(): Effect.Effect<ExitStack<unknown, unknown>, Managed.OwnerClosed, Scope.Scope> {
    return Effect.flatMap(Effect.scope, (scope) => this.handOver(scope))
  }

  moveTo(scope: Scope.Scope): Effect.Effect<void, Managed.OwnerClosed> {
    return Effect.asVoid(this.handOver(scope))
  }

  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<Exit.Exit<unknown, unknown>> {
    // MASK: from the first release to the last, or an interrupt would lose the rest; who waits for another's close may go.
    return Effect.uninterruptibleMask((restore) =>
      this.isEnding ? restore(this.join(exit)) : this.endInMask(exit, "hand")
    )
  }

  /** Acquires, and registers in the step in which that has succeeded. */
  take<B, E2, R>(
    what: string,
    site: Ledger.Site | undefined,
    open: (
      restore: Managed.Restore,
      entering: Entering
    ) => Effect.Effect<Taken<B, A, E>, E2, R>
  ): Effect.Effect<B, E2 | Managed.OwnerClosed, R> {
    // MASK: nothing may fall between the acquire and its registration; waiting is restored by what is acquired.
    return this.inItsName(Effect.uninterruptibleMask((restore) => {
      if (this.refusing) return this.refused(what)
      const fiber = currentFiber()
      const entering: Entering = { what, site, fiber, part: undefined, isOver: false }
      this.entering.push(entering)
      return Effect.matchCauseEffect(open(restore, entering), {
        onFailure: (cause) => {
          this.leave(entering)
          return Effect.failCause(cause)
        },
        onSuccess: ({ steps, value }) => {
          if (this.refusing) return this.tooLate(what, steps, entering)
          for (const step of steps) this.steps.push(step)
          this.leave(entering)
          return Effect.succeed(value)
        }
      })
    }))
  }

  /** It was acquired for a stack that has closed meanwhile: it goes at once, and the close waits for it. */
  tooLate(
    what: string,
    steps: ReadonlyArray<Step<A, E>>,
    entering: Entering
  ): Effect.Effect<never, Managed.OwnerClosed> {
    entering.isOver = true
    const refused = Cause.fail(new Managed.OwnerClosed({ owner: this.name, resource: what }))
    return Effect.onExit(
      this.failed(refused, [...steps]),
      () => Effect.sync(() => this.leave(entering))
    )
  }

  /** Lets go of `steps` and fails: with `cause`, and with what went wrong in doing so. */
  failed<E2>(cause: Cause.Cause<E2>, steps: Array<Step<A, E>>): Effect.Effect<never, E2> {
    const before = Exit.failCause(cause)
    return Effect.flatMap(unwound(steps, before), (after) => {
      const news = newsIn(before, after)
      return Effect.failCause(news === undefined ? cause : Cause.sequential(cause, news))
    })
  }

  leave(entering: Entering): void {
    this.remove(entering)
    this.heir?.leave(entering)
  }

  remove(entering: Entering): void {
    const index = this.entering.lastIndexOf(entering)
    if (index === -1) return
    // Their order says nothing.
    const last = this.entering.pop()!
    if (last !== entering) this.entering[index] = last
    if (this.entering.length === 0) this.wake?.()
  }

  /** INVARIANT ExitStack-9: the acquires of these are not waited for; they are refused, and nothing more is opened by them. */
  excuse(fibers: ReadonlySet<unknown>): void {
    for (const entering of this.entering.filter((one) => isBy(one, fibers))) {
      this.dismiss(entering)
    }
  }

  /** It is not waited for, and opens nothing more. */
  dismiss(entering: Entering): void {
    if (entering.part !== undefined) entering.part.refusing = true
    this.remove(entering)
  }

  /** Whether one of these runs a release of this stack. */
  isReleasedBy(fibers: ReadonlySet<unknown>): boolean {
    return fibers.has(this.unwinder) ||
      this.entering.some(({ fiber, isOver }) => isOver && fibers.has(fiber))
  }

  /** One step: nothing comes between the question whether it is closed and the answer. */
  register<R>(
    make: (release: Release.Release) => Step<A, E>,
    kind: string,
    defaultName: string,
    options: ReleaseOptions | undefined
  ): Effect.Effect<void, Managed.OwnerClosed, R> {
    const site = Ledger.unsafeSite()
    const name = options?.name ?? defaultName
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

  refused(what: string): Effect.Effect<never, Managed.OwnerClosed> {
    return Effect.fail(new Managed.OwnerClosed({ owner: this.name, resource: what }))
  }

  inItsName<B, E2, R>(effect: Effect.Effect<B, E2, R>): Effect.Effect<B, E2, R> {
    return this.owner === undefined ? effect : Ledger.withOwner(effect, this.owner)
  }

  /** Unwinds it. Whoever is not the first only waits for that, and keeps the exit it came with. */
  endInMask<B, F>(
    exit: Exit.Exit<B, F>,
    by: "owner" | "hand"
  ): Effect.Effect<Exit.Exit<A | B, E | F>> {
    if (this.isEnding) return Effect.as(this.join(exit), exit)
    this.isEnding = true
    this.refusing = true
    if (this.entering.length > 0) this.excuse(waitingForThis())
    return this.entering.length === 0
      ? this.unwind(exit)
      : Effect.flatMap(
        this.settle(by === "owner" ? currentFiber() : undefined),
        (late) => this.unwind(late === undefined ? exit : withFailure(exit, late))
      )
  }

  /** INVARIANT ExitStack-10: waits for the acquires in flight, and says which of them it has left behind. */
  settle(owner: AnyFiber | undefined): Effect.Effect<Cause.Cause<never> | undefined> {
    const quiet = Effect.async<void>((resume) => {
      // The last of them may have left before this fiber came to wait.
      if (this.entering.length === 0) resume(Effect.void)
      else this.wake = () => resume(Effect.void)
    })
    const work = owner === undefined ? quiet : Effect.zipRight(this.cut(owner), quiet)
    return Effect.flatMap(outcomeWithin(work, enterDeadline), (outcome) => {
      if (Either.isRight(outcome)) return Effect.succeed(undefined)
      // What is being given back is bounded by the deadlines of its releases.
      return Effect.as(quiet, this.leaveBehind(outcome.left))
    })
  }

  /** The acquires that would be cut anyhow as soon as the owner's fiber ends are cut now; what they can, they give up. */
  cut(owner: AnyFiber): Effect.Effect<void> {
    return Effect.map(descendantsOf(owner, this.since), (descendants) => {
      const mayBeCut = new Set<unknown>(descendants)
      for (const { fiber } of this.entering) {
        if (mayBeCut.has(fiber)) fiber?.unsafeInterruptAsFork(owner.id())
      }
    })
  }

  /** Nobody waits any longer for what is still being acquired; it opens nothing more, and gives back what comes. */
  leaveBehind(elapsed: Duration.Duration): Cause.Cause<never> | undefined {
    const late = this.entering.filter(({ isOver }) => !isOver)
    if (late.length === 0) return undefined
    for (const entering of late) this.dismiss(entering)
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
    return Effect.map(unwound(this.steps, exit), end)
  }

  /** Waits for the end and gives what came of it; to one of its own releases, which the end waits for, `exit` at once. */
  join(exit: Exit.Exit<unknown, unknown>): Effect.Effect<Exit.Exit<unknown, unknown>> {
    if (this.final !== undefined) return Effect.succeed(this.final)
    const fibers = waitingForThis()
    if (this.isReleasedBy(fibers)) return Effect.succeed(exit)
    this.excuse(fibers)
    this.joined ??= Deferred.unsafeMake(FiberId.none)
    return Deferred.await(this.joined)
  }

  /** The scope's close ends it. The scope's exit stays; what the unwinding added to it fails the close. */
  belongTo(scope: Scope.Scope): Effect.Effect<void> {
    return Scope.addFinalizerExit(scope, (exit) =>
      // MASK: as in `close`; a raw `Scope.close` is interruptible between its finalizers.
      Effect.uninterruptible(Effect.suspend(() =>
        Effect.flatMap(this.endInMask(exit, "owner"), (final) => {
          const news = newsIn(exit, final)
          return news === undefined ? Effect.void : Effect.failCause(news)
        })
      )))
  }

  /** First an empty heir stands in the scope, then everything moves to it in one step: no interrupt finds it ownerless. */
  handOver(scope: Scope.Scope): Effect.Effect<ExitStack<unknown, unknown>, Managed.OwnerClosed> {
    return Effect.suspend(() => {
      if (this.refusing) return this.refused("popAll")
      const heir = new ExitStackImpl<unknown, unknown>(this.name, this.owner)
      return Effect.flatMap(heir.belongTo(scope), () => {
        if (this.refusing) return this.refused("popAll")
        // A closed scope has ended its new finalizer, and with it the heir, at once.
        if (heir.refusing) {
          return Effect.fail(new Managed.OwnerClosed({ owner: "scope", resource: this.name }))
        }
        this.refusing = true
        heir.steps = this.steps
        this.steps = []
        // They are given back, but may use what the heir has now.
        heir.entering.push(...this.entering)
        this.heir = heir
        return Effect.succeed(heir)
      })
    })
  }
}

const unsafeMake = <A, E>(options: Options | undefined): ExitStackImpl<A, E> =>
  new ExitStackImpl(options?.name, options?.name)

/**
 * A stack that its scope unwinds, with the scope's exit.
 *
 * **Interruption** — never waits. Its close interrupts and waits for what is being entered, as the end of `use` does, and waits
 *   for the releases; all of it is bounded.
 * **Errors** — none. In a scope that is closed it is a closed stack. What the unwinding failed with is in the exit of the
 *   scope's close; the scope's own exit nothing changes.
 * **Cost** — one finalizer.
 *
 * **Example** (opened together or not at all, then kept)
 * ```ts run
 * import { Effect } from "effect"
 * import * as ExitStack from "holdfast/ExitStack"
 *
 * const log: Array<string> = []
 * const file = (name: string) =>
 *   Effect.acquireRelease(Effect.succeed(name), () => Effect.sync(() => log.push(`close ${name}`)))
 * const files = ExitStack.use((stack) =>
 *   Effect.gen(function*() {
 *     yield* stack.enterAll([file("a"), file("b")])
 *     // What fails up to here closes them; from here on the scope does.
 *     return yield* stack.popAll
 *   }), { name: "files" })
 * const program = Effect.gen(function*() {
 *   const opened = yield* files
 *   yield* opened.callback(Effect.sync(() => log.push("flush")))
 *   log.push("in use")
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * log // => ["in use", "flush", "close b", "close a"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options?: Options
): Effect.Effect<ExitStack<unknown, unknown>, never, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) => {
    const stack = unsafeMake<unknown, unknown>(options)
    return Effect.as(stack.belongTo(scope), stack)
  })

/**
 * Runs `body` with a stack and unwinds it: the result is the exit that the last handler leaves.
 *
 * **Details** — What may replace the exit stands in the type of the parameter: with `(stack) =>` handlers only look on (and
 *   may end it with a defect), with `(stack: ExitStack<A2, E2>) =>` they may return an `Exit<A2, E2>`, and the result may be
 *   one. An interrupt of the calling fiber cannot be suppressed: it is seen again as soon as `use` has ended
 *   (`Effect.interrupt` in the body is a failure like another). A body that closes its stack itself keeps its own exit.
 *   Other than Python's: the first failure stays the one that is caught, those of handlers are appended to it; a stack that is
 *   closed, emptied by `popAll` or unwinding refuses with `OwnerClosed`, where Python's takes on; a second closer waits for the
 *   first, or does nothing from inside a release; what `popAll` hands over is never without an owner; acquire and registration
 *   are one step; no release is cut.
 *   What is still being acquired when the body ends may use what is about to be released. So fibers that are entering and that
 *   the body has forked by `Effect.fork` (and those they forked so) are interrupted: nothing comes in.
 *   All that is in flight is then waited for, 5 seconds at most, and fewer where the end of the program has less left.
 * **Interruption** — the body is cut; then the stack is unwound to its end, each step bounded by its deadline.
 * **Errors** — those of the body; what handlers and releases failed with is appended to the cause, or replaces it where a
 *   handler returned another exit; before all that the defect `EnterTimeout`, if an acquire was left behind.
 * **Cost** — that of `Effect.acquireUseRelease`, and of what is entered. **Source** — Python's `async with AsyncExitStack() as stack`.
 *
 * **Example** (a handler translates the failure, another makes do with it)
 * ```ts run
 * import { Effect, Exit } from "effect"
 * import * as ExitStack from "holdfast/ExitStack"
 *
 * const program = ExitStack.use((stack: ExitStack.ExitStack<string>) =>
 *   Effect.gen(function*() {
 *     yield* stack.push((exit) =>
 *       Effect.succeed(Exit.isFailure(exit) ? Exit.succeed("from the cache") : undefined))
 *     yield* stack.enter(Effect.acquireRelease(Effect.succeed("connection"), () => Effect.void))
 *     return yield* Effect.fail("no answer")
 *   }))
 * await Effect.runPromise(program) // => "from the cache"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const use = <A, E, R, A2 = never, E2 = never>(
  body: (stack: ExitStack<A2, E2>) => Effect.Effect<A, E, R>,
  options?: Options
): Effect.Effect<A | A2, E | E2, R> =>
  // MASK: whatever the body has entered is let go; the body itself is restored.
  Effect.uninterruptibleMask((restore) => {
    const stack = unsafeMake<A2, E2>(options)
    return Effect.matchCauseEffect(restore(Effect.suspend(() => body(stack))), {
      onFailure: (cause) => Effect.flatten(stack.endInMask(Exit.failCause(cause), "owner")),
      onSuccess: (value) => Effect.flatten(stack.endInMask(Exit.succeed(value), "owner"))
    })
  })
