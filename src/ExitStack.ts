/**
 * ExitStack: resources entered as you go, and handlers that see the exit and may change it; all of it can move on.
 *
 * DESIGN. A stack (ExitStack/stack.ts) is a list of steps (ExitStack/steps.ts). A close unwinds it once, for all callers; a
 * hand-over moves the list to another stack in one synchronous step. A handler that may replace the exit says so in the
 * requirements of its `push`, `Replaces<A, E>`, which `use` takes from there into its result, as `Effect.scoped` takes a `Scope`.
 *
 * INVARIANTS
 * - ExitStack-1 (L1, L3) Every resource and handler runs once, in the reverse order of registration, whatever the exit.
 * - ExitStack-2 (L2) To acquire and to register are one step; an acquire that failed or was interrupted has registered nothing.
 * - ExitStack-3 A handler sees the exit as it is by then and may replace it; the last one's exit is the result.
 * - ExitStack-4 (L4, L5) One that fails, throws or overruns its deadline stops no other; its failure is appended.
 * - ExitStack-5 (L1) At every instant one owner: `popAll` and `moveTo` hand over everything, in one step, or nothing.
 * - ExitStack-6 (L7) Close unwinds once and to its end, even if the closer is interrupted; all callers see one exit.
 * - ExitStack-7 (L7) A closed or emptied stack dies with `OwnerClosed` before anything is acquired; a resource that was being
 *   acquired meanwhile is released, and only then does the close, or that of the stack that got the rest, release what it may have
 *   used.
 * - ExitStack-8 `enterAll` enters all or none.
 * - ExitStack-9 A close never waits for itself. A close asked for by one of the stack's own releases changes nothing and returns at
 *   once; one asked for by an acquire does not wait for that acquire, which then dies with `OwnerClosed` and is released.
 * - ExitStack-10 (L4) An end waits 5 seconds for acquires under way, then names them in its exit and continues. Where its owner
 *   ends (`use`, the scope of `make`), acquires in fibers that were forked there are interrupted first.
 *
 * COST (2026-11, `npm run bench -- ExitStack`) `use` no more than `acquireUseRelease`; a `Managed` entered and released about
 * 4 µs, a fifth of `acquireRelease` in a scope; a scoped effect 2 to 3 times that one: its scope is its own, its close bounded.
 * NOT DONE a close that interrupts the acquire of a fiber that lives longer: that fiber does other work too. A close by a fiber
 * that an acquire forked waits for that acquire (ExitStack-9): the runtime does not say who waits for a fiber. A stack without an
 * owner: an interrupt right after `popAll` would lose everything, so its result belongs to a scope.
 * SOURCES Python's `AsyncExitStack` (test/ExitStack.parity.test.ts runs one table on both), tc39's `move()`, cats-effect.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { type EnterOptions, type ReleaseOptions, Stack, type TypeId } from "./ExitStack/stack.ts"
import * as Lent from "./internal/lent.ts"
import * as Rules from "./internal/options.ts"

export { type EnterOptions, EnterTimeout, type ReleaseOptions, TypeId } from "./ExitStack/stack.ts"

/**
 * The settings of a stack.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Shown in errors, and by the ledger as the owner of what the stack holds. Default: `"exit stack"`, and no owner there. */
  readonly name?: string | undefined
}

/**
 * In the requirements of an effect: handlers that it registers may replace the exit of their `use` by one of `A` or `E`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Replaces<out A, out E> {
  readonly [TypeId]: { readonly _A: Types.Covariant<A>; readonly _E: Types.Covariant<E> }
}

type Replacing<A, E> = [A, E] extends [never, never] ? never : Replaces<A, E>
type ReplacedValue<R> = R extends Replaces<infer A, infer _E> ? A : never
type ReplacedError<R> = R extends Replaces<infer _A, infer E> ? E : never

interface Common extends Pipeable, Inspectable.Inspectable {
  readonly name: string
  /**
   * Enters all or none, `concurrency` at once (default 1). If one fails, those that were opened are released in reverse and
   * the stack is as it was.
   *
   * **Interruption**, **Errors** — As `enter`; **Cost** — besides, a fork per worker if `concurrency` is not 1.
   */
  readonly enterAll: <const T extends ReadonlyArray<Effect.Effect<any, any, any>>>(
    resources: T,
    options?: { readonly concurrency?: Types.Concurrency | undefined }
  ) => Effect.Effect<
    { -readonly [K in keyof T]: Effect.Effect.Success<T[K]> },
    Effect.Effect.Error<T[number]>,
    Exclude<Effect.Effect.Context<T[number]>, Scope.Scope>
  >
  /**
   * Registers an effect that runs whatever the exit. Its failure is a defect, as that of a release is; it changes the exit in no
   * other way.
   *
   * **Interruption**, **Errors**, **Cost** — As `push`.
   */
  readonly callback: <R>(
    effect: Effect.Effect<unknown, unknown, R>,
    options?: ReleaseOptions
  ) => Effect.Effect<void, never, R>
  /**
   * Hands everything over to a new stack, which the current scope owns, and leaves this one closed and empty.
   *
   * **Interruption** — Interrupted, either stack owns everything. **Errors** — Dies with `OwnerClosed` if this stack or the
   *   scope is closed; this stack then keeps what it has. **Cost** — One finalizer, however much moves.
   */
  readonly popAll: Effect.Effect<ExitStack<unknown, unknown>, never, Scope.Scope>
  /**
   * Hands everything over to a scope, whose close then unwinds it with the scope's exit. That exit stays as it is: the exit that a
   * handler returns is lost, its failure is in the exit of the close.
   *
   * **Interruption**, **Errors**, **Cost** — As `popAll`.
   */
  readonly moveTo: (scope: Scope.Scope) => Effect.Effect<void>
  /**
   * Unwinds with `exit` and gives the exit that came of it: as a value, failures of releases included, so look at it or flatten
   * it. Another close waits for the same end and gets the same exit.
   *
   * **Details** — Called from inside, a close would wait for itself. So one of the stack's own releases or handlers gets `exit` back
   *   at once; a close in an acquire for the stack waits for all but that acquire, which then dies with `OwnerClosed` and is
   *   released (`enterAll` is one acquire). Inside means in the fiber of the acquire or the release: do not wait there for a forked
   *   fiber that closes.
   *   Acquires under way in other fibers are waited for before the first release, 5 seconds at most (`EnterTimeout` in the
   *   exit), and are not interrupted.
   * **Interruption** — The unwinding runs to its end; a caller that waits for another's close stops waiting.
   * **Cost** — That of the releases.
   */
  readonly close: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Exit.Exit<unknown, unknown>>
}

/**
 * A stack of resources and handlers. Its handlers may replace the exit by one of `A` or `E`: `unknown` where a scope owns the
 * stack, since the scope's exit stays; nothing (the default) for a function that takes any stack.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitStack<in A = never, in E = never> extends Common {
  readonly [TypeId]: { readonly _A: Types.Contravariant<A>; readonly _E: Types.Contravariant<E> }
  /**
   * Acquires a `Managed`, or whatever an effect acquires in its `Scope`, and gives its value; it is released when the stack
   * unwinds.
   *
   * **Interruption** — While it is acquired: as the resource allows; nothing is then registered.
   * **Errors** — Those of the resource. Dies with `OwnerClosed` before anything is acquired, or, if the stack closed or moved
   *   meanwhile, after the resource has been released again.
   * **Cost** — A `Managed` about 4 µs with its release; a scoped effect has a scope of its own and takes ten to twenty times that.
   */
  readonly enter: <B, E2, R>(
    resource: Effect.Effect<B, E2, R>,
    options?: EnterOptions<A, E>
  ) => Effect.Effect<B, E2, Exclude<R, Scope.Scope>>
  /**
   * Registers a handler. It sees the exit as it is when its turn comes, and may return another in its place: a success
   * suppresses the failure, a failure translates it. Its failure is appended to the exit.
   *
   * **Interruption** — The handler runs out of reach of any interrupt, with the FiberRefs of this call.
   * **Errors** — Dies with `OwnerClosed`. **Cost** — One record; its run is bounded like a release.
   */
  readonly push: <R = never>(
    handler: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Exit.Exit<A, E> | void, E, R>,
    options?: ReleaseOptions
  ) => Effect.Effect<void, never, R>
}

/**
 * The stack of a `use`. The type of what replaces its exit is inferred: it stands in the requirements of `enter` and `push`.
 *
 * @category models
 * @since 0.1.0
 */
export interface InUse extends Common {
  readonly [TypeId]: ExitStack[TypeId]
  /** As `ExitStack.enter`. */
  readonly enter: <B, E2, R, A = never, E = never>(
    resource: Effect.Effect<B, E2, R>,
    options?: EnterOptions<A, E>
  ) => Effect.Effect<B, E2, Exclude<R, Scope.Scope> | Replacing<A, E>>
  /** As `ExitStack.push`. */
  readonly push: <A = never, E = never, R = never>(
    handler: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<Exit.Exit<A, E> | void, E, R>,
    options?: ReleaseOptions
  ) => Effect.Effect<void, never, R | Replacing<A, E>>
}

const rules: Rules.Rules = { name: Rules.text }

const unsafeMake = <A, E>(options: Options | undefined): Stack<A, E> => {
  if (options !== undefined) Rules.check("ExitStack", options, rules)
  return new Stack(options?.name, options?.name)
}

/**
 * A stack that its scope unwinds, with the scope's exit.
 *
 * **Interruption** — Its close interrupts and waits for acquires under way, as the end of `use` does, and waits for the releases;
 *   all of it is bounded.
 * **Errors** — In a closed scope it is a closed stack. The failures of the unwinding are in the exit of the scope's close; nothing
 *   changes the scope's own exit.
 * **Cost** — One finalizer.
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
 *     // A failure up to here closes them; from here on the scope does.
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
 * A layer that provides a stack, for services that enter resources while they run; it unwinds when the layer ends.
 *
 * **Interruption**, **Errors**, **Cost** — As `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <I>(
  tag: Context.Tag<I, ExitStack<unknown, unknown>>,
  options?: Options
): Layer.Layer<I> => Layer.scoped(tag, make(options))

/**
 * Runs `body` with a stack and unwinds it: the result is the exit that the last handler leaves.
 *
 * **Details** — The result has the type of the body, and of the exits that its handlers may return. Those are inferred for the
 *   innermost `use` around the `push`; to register a handler on an outer stack from inside another `use`, write what the outer one's
 *   handlers may return: `(outer: ExitStack<A2, E2>) => …`.
 *   An interrupt of the calling fiber cannot be suppressed: it is seen again as soon as `use` has ended (`Effect.interrupt` in the
 *   body is a failure like another). A body that closes its stack itself keeps its own exit.
 *   Different from Python's: the first failure stays the one that is caught, those of handlers are appended; a stack that is
 *   closed, emptied by `popAll` or unwinding dies with `OwnerClosed`, where Python's accepts more; a second closer waits for the
 *   first, or does nothing from inside a release; what `popAll` hands over always has an owner; acquire and registration
 *   are one step; no release is interrupted.
 *   An acquire under way when the body ends may use resources that are about to be released. So fibers that are entering and that
 *   the body has forked by `Effect.fork` (and their own forks) are interrupted. All acquires under way are then waited for, 5
 *   seconds at most, and less where a shutdown has less time left.
 * **Interruption** — The body is interrupted; then the stack is unwound to its end, each step bounded by its deadline.
 * **Errors** — Those of the body; failures of handlers and releases are appended to the cause, or replace it where a handler
 *   returned another exit; before all that the defect `EnterTimeout`, if an acquire was left behind.
 * **Cost** — That of `Effect.acquireUseRelease`, and of what is entered. **Source** — Python's `async with AsyncExitStack() as stack`.
 *
 * **Example** (a handler replaces a failure)
 * ```ts run
 * import { Effect, Exit } from "effect"
 * import * as ExitStack from "holdfast/ExitStack"
 *
 * const program: Effect.Effect<string, "no answer"> = ExitStack.use((stack) =>
 *   Effect.gen(function*() {
 *     yield* stack.push((exit) =>
 *       Effect.succeed(Exit.isFailure(exit) ? Exit.succeed("from the cache") : undefined))
 *     yield* stack.enter(Effect.acquireRelease(Effect.succeed("connection"), () => Effect.void))
 *     return yield* Effect.fail("no answer" as const)
 *   }))
 * await Effect.runPromise(program) // => "from the cache"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, E, R>(
    body: (stack: InUse) => Effect.Effect<A, E, R>,
    options?: Options
  ): Effect.Effect<
    A | ReplacedValue<R>,
    E | ReplacedError<R>,
    Exclude<R, Replaces<unknown, unknown>>
  >
  <A, E, R, A2, E2>(
    body: (stack: ExitStack<A2, E2>) => Effect.Effect<A, E, R>,
    options?: Options
  ): Effect.Effect<A | A2, E | E2, R>
} = <A, E, R, A2, E2>(
  body: (stack: Stack<A2, E2>) => Effect.Effect<A, E, R>,
  options?: Options
): Effect.Effect<A | A2, E | E2, R> =>
  // MASK: whatever the body has entered is released; the body itself is restored.
  Effect.uninterruptibleMask((restore) => {
    const stack = unsafeMake<A2, E2>(options)
    return Lent.useThen(
      Lent.lend("children"),
      { kind: "exit stack", name: stack.name },
      restore(Effect.suspend(() => body(stack))),
      (exit) => Effect.flatten(stack.endInMask(exit, "owner"))
    )
  })
