/**
 * generator: a resource written as a generator, entered up to its one `yield` and left with the exit of its user.
 *
 * DESIGN. Two drivers of one contract. Each step of an async generator is a promise; a generator of effects is run here, effect by
 * effect, up to its `use`. The bound and the record of the release are those of every resource (resource.ts).
 *
 * INVARIANTS Managed-8, named where it is kept.
 * SOURCES Python's `contextlib.asynccontextmanager`.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import { SingleShotGen, type YieldWrap, yieldWrapGet } from "effect/Utils"
import { releaseDeadlineOf } from "../internal/deadline.ts"
import * as Ledger from "../Ledger.ts"
import {
  giveUp,
  inside,
  type Managed,
  type ReleaseReason,
  type Restore,
  type Settings,
  settingsOf
} from "./resource.ts"

/**
 * The generator of a resource ended before its first `yield`.
 *
 * @category errors
 * @since 0.1.0
 */
export class GeneratorDidNotYield extends Data.TaggedError("GeneratorDidNotYield")<{
  readonly resource: string
}> {
  override get message(): string {
    return `The generator of "${this.resource}" ended without giving a resource: `
      + "it has to `yield` exactly once, and what it yields is the resource."
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
 * An interruption, as an async generator sees it: an `AbortError`, with the reason.
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

/** Ends a generator that gave a second resource. */
const refuse = (end: Effect.Effect<unknown>, resource: string): Effect.Effect<never> =>
  Effect.zipRight(end, Effect.die(new GeneratorYieldedTwice({ resource })))

// An async generator.

type AsyncBody = AsyncGenerator<unknown, unknown, unknown>

/** A generator that stands at its `yield`. */
interface Entered<out A> {
  readonly generator: AsyncBody
  readonly abort: AbortController
  readonly value: A
}

type Answer<A> = Either.Either<IteratorResult<A, unknown>, unknown>

/** Asks at once; the effect waits for the answer and never fails. */
const ask = <A>(step: () => Promise<IteratorResult<A, unknown>>): Effect.Effect<Answer<A>> => {
  const asked = async (): Promise<Answer<A>> => {
    try {
      return Either.right(await step())
    } catch (error) {
      return Either.left(error)
    }
  }
  const answer = asked()
  return Effect.promise(() => answer)
}

type Start<A> = (signal: AbortSignal) => AsyncGenerator<A, unknown, unknown>

/** A resource written as an async generator; `threw` makes its error of what the generator throws. */
interface AsyncResource<A, E> {
  readonly settings: Settings<A, any>
  readonly start: Start<A>
  readonly threw: (error: unknown) => E
  readonly site: Ledger.Site | undefined
}

/** Up to its `yield`. Must run inside an uninterruptible region. */
const enter = <A, E>(
  self: AsyncResource<A, E>,
  restore: Restore
): Effect.Effect<Entered<A>, E | GeneratorDidNotYield> => {
  const { name } = self.settings
  return Effect.suspend(() => {
    const abort = new AbortController()
    const generator = self.start(abort.signal)
    return Effect.matchCauseEffect(restore(ask(() => generator.next())), {
      onFailure: (cause) => {
        // Interrupted before the `yield`. The signal says so to the generator; if it still reaches its `yield`, the error is
        // thrown in there. A generator answers its calls in order, so nothing stays open even if this wait is abandoned.
        const interruption = new Interrupted({ resource: name, reason: { kind: "interrupt" } })
        abort.abort(interruption)
        return giveUp(cause, leave(self, generator, Exit.failCause(cause), interruption), {
          name,
          kind: "generator",
          deadline: releaseDeadlineOf(self.settings),
          site: self.site
        })
      },
      onSuccess: (answer): Effect.Effect<Entered<A>, E | GeneratorDidNotYield> => {
        if (Either.isLeft(answer)) return Effect.fail(self.threw(answer.left))
        return answer.right.done === true
          ? Effect.fail(new GeneratorDidNotYield({ resource: name }))
          : Effect.succeed({ generator, abort, value: answer.right.value })
      }
    })
  })
}

/**
 * From its `yield` to its end. `interruption` is thrown in there if its user was interrupted, else it is undefined.
 *
 * INVARIANT Managed-8: gives the exit that replaces its user's, if any does.
 */
const leave = <A, E>(
  self: AsyncResource<A, E>,
  generator: AsyncBody,
  exit: Exit.Exit<unknown, unknown>,
  interruption: Interrupted | undefined
): Effect.Effect<Exit.Exit<unknown, E> | void> => {
  const thrown = interruption ?? (Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined)
  const mayChange = Exit.isFailure(exit) && interruption === undefined
  return Effect.flatMap(
    ask(() => Exit.isSuccess(exit) ? generator.next() : generator.throw(thrown)),
    (answer): Effect.Effect<Exit.Exit<unknown, E> | void> => {
      if (Either.isRight(answer)) {
        if (answer.right.done !== true) {
          return refuse(ask(() => generator.return(undefined)), self.settings.name)
        }
        return mayChange ? Effect.succeed(Exit.void) : Effect.void
      }
      const error = answer.left
      if (Exit.isFailure(exit) && error === thrown) return Effect.void
      // Only an error whose `cause` is the user's has translated it; any other is a failure of the release.
      return mayChange && error instanceof Error && "cause" in error && error.cause === thrown
        ? Effect.sync(() => Exit.fail(self.threw(error)))
        : Effect.die(error)
    }
  )
}

/**
 * The settings of `fromAsyncGenerator` with an error of one's own: `catch` makes it of what the generator throws. Default:
 * `GeneratorFailed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface GeneratorOptions<in A, out E, out R2 = never> extends Settings<A, R2> {
  readonly catch: (error: unknown) => E
}

/**
 * A resource written as an async generator, like Python's `asynccontextmanager`: it acquires up to its one `yield`, gives its user
 * what it yields there, and releases after that.
 *
 * **Details** — The user's failure is thrown in at the `yield`: its error, its defect, or for an interruption an `Interrupted`.
 *   A generator that rethrows it, or only has a `finally`, changes nothing. One that swallows it suppresses it. One that throws
 *   another error whose `cause` it is replaces it by that error (by `catch`). Only `useOption` and ExitStack.ts can change an exit;
 *   in a scope and in `use` a swallowed failure stays, and another error is added as a defect. Any other error that it throws
 *   after the `yield` is a failed release. `signal` is aborted when the acquire is interrupted and when the release overruns.
 * **Interruption** — Opening: the signal is aborted at once; then it waits for the generator, up to `releaseDeadline`. Holding: as
 *   `make`. An interruption cannot be swallowed.
 * **Errors** — `GeneratorFailed`, or what `catch` makes of it, if it throws before its `yield`; `GeneratorDidNotYield`; a second
 *   `yield` is a failed release, with `GeneratorYieldedTwice`.
 * **Cost** — As `make`, and two promises.
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
  body: Start<A>
): Managed<A, any, R2> => {
  const { catch: threw, ...settings } = typeof options === "string" ? { name: options } : options
  const { name: resource, onOverrun } = settings
  const site = Ledger.unsafeSite(2)
  const self: AsyncResource<A, unknown> = {
    settings,
    start: body,
    threw: threw ?? ((cause) => new GeneratorFailed({ resource, cause })),
    site
  }
  return inside<A, Entered<A>, unknown, never, R2>(
    settings,
    {
      acquire: (restore) => enter(self, restore),
      release: (entered, exit, reason) =>
        leave(
          self,
          entered.generator,
          exit,
          reason.kind === "interrupt" || reason.kind === "shutdown"
            ? new Interrupted({ resource, reason })
            : undefined
        ),
      onOverrun: (entered) => {
        entered.abort.abort()
        return onOverrun?.(entered.value) ?? Effect.void
      }
    },
    site,
    true
  )
}

// A generator of effects.

/**
 * The resource that `use` hands over in a `gen`: yielded, it comes back with the exit of its user.
 *
 * @category models
 * @since 0.1.0
 */
export interface Held<out A> {
  readonly resource: A
  [Symbol.iterator](): Iterator<Held<A>, Exit.Exit<unknown, unknown>, any>
}

/**
 * Not an `Effect`, although `yield*` takes it: in the union of what a generator yields, TypeScript would drop it beside an `Effect`
 * of `any`.
 */
class HeldImpl<out A> implements Held<A> {
  readonly resource: A

  constructor(resource: A) {
    this.resource = resource
  }

  [Symbol.iterator](): Iterator<HeldImpl<A>, Exit.Exit<unknown, unknown>, any> {
    return new SingleShotGen(this)
  }
}

type Yielded = YieldWrap<Effect.Effect<any, any, any>> | Held<any>
type Effects = Generator<Yielded, unknown, any>
type ErrorIn<Y> = Y extends YieldWrap<Effect.Effect<infer _A, infer E, infer _R>> ? E : never
type ContextIn<Y> = Y extends YieldWrap<Effect.Effect<infer _A, infer _E, infer R>> ? R : never
type HeldBy<Y> = Y extends Held<infer A> ? A : never
type ErrorOfExit<X> = X extends Exit.Exit<infer _A, infer E> ? E : never

/** Where a generator stopped: at a `use`, or at its end. */
type Stop =
  | { readonly done: false; readonly resource: any }
  | { readonly done: true; readonly returned: unknown }

/** Runs it up to its next stop. */
const advance = (generator: Effects, sent: unknown): Effect.Effect<Stop, any, any> =>
  Effect.suspend((): Effect.Effect<Stop, any, any> => {
    const next = generator.next(sent)
    if (next.done === true) return Effect.succeed({ done: true, returned: next.value })
    return next.value instanceof HeldImpl
      ? Effect.succeed({ done: false, resource: next.value.resource })
      // By `Yielded` all else is wrapped.
      : Effect.flatMap(
        yieldWrapGet(next.value as YieldWrap<Effect.Effect<any, any, any>>),
        (value) => advance(generator, value)
      )
  })

/**
 * A resource written as one generator of effects: it acquires up to `yield* use(resource)`, and after that, with the exit of its
 * user, it releases.
 *
 * **Details** — It runs uninterruptibly; `restore` marks the part of the acquire that may be interrupted. If it returns an `Exit`,
 *   that replaces its user's, for owners that can change one: `useOption` and ExitStack.ts (elsewhere a failure is added).
 * **Interruption** — As `make`; an interruption cannot be swallowed.
 * **Errors** — Those of all its effects (TypeScript cannot separate those after `use`, which are failed releases), and
 *   `GeneratorDidNotYield`; a second `use` is a failed release, with `GeneratorYieldedTwice`.
 * **Cost** — As `make`, and one generator.
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
export const gen = <Y extends Yielded, X, R2 = never>(
  options: string | Settings<HeldBy<Y>, R2>,
  body: (use: <A>(resource: A) => Held<A>, restore: Restore) => Generator<Y, X, any>
): Managed<
  HeldBy<Y>,
  ErrorIn<Y> | ErrorOfExit<X> | GeneratorDidNotYield,
  ContextIn<Y> | R2
> => {
  const settings = settingsOf(options)
  const { name: resource } = settings
  return inside<HeldBy<Y>, { readonly generator: Effects; readonly value: any }, any, any, any>(
    settings,
    {
      acquire: (restore) =>
        Effect.suspend(() => {
          const generator = body((value) => new HeldImpl(value), restore)
          return Effect.flatMap(
            advance(generator, undefined),
            (at) =>
              at.done
                ? Effect.fail(new GeneratorDidNotYield({ resource }))
                : Effect.succeed({ generator, value: at.resource })
          )
        }),
      release: ({ generator }, exit, reason) =>
        Effect.flatMap(advance(generator, exit), (at) => {
          if (!at.done) return refuse(Effect.void, resource)
          // INVARIANT Managed-8: an interruption is never swallowed.
          const swallows = Exit.isExit(at.returned) && Exit.isSuccess(at.returned)
          return swallows && reason.kind !== "failure" ? Effect.void : Effect.succeed(at.returned)
        })
    },
    Ledger.unsafeSite(2),
    true
  )
}
