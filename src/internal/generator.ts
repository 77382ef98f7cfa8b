/**
 * generator: a resource written as a generator, entered up to its one `yield` and left with the exit of its user.
 *
 * DESIGN. Two drivers of one contract: of an async generator each step is a promise; a generator of effects is run here, effect
 * by effect, up to its `use`. Neither knows who bounds or records it: Managed.ts makes a resource of entering and leaving, and
 * says what goes wrong in its own, public errors. That is also why this stands here, as the pool's machine does, although one
 * module uses it: that file is what a resource is, this one is how a generator is asked.
 *
 * INVARIANTS Managed-8, named where it is kept.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import { SingleShotGen, type YieldWrap, yieldWrapGet } from "effect/Utils"

/** What a generator may do wrong, in the words of whoever makes a resource of it. */
export interface Faults<out N> {
  readonly didNotYield: () => N
  readonly yieldedTwice: () => unknown
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// An async generator.

/** How it begins, and what is made of what comes out of it. */
export interface AsyncBody<A, out E, out N> extends Faults<N> {
  readonly start: (signal: AbortSignal) => AsyncGenerator<A, unknown, unknown>
  /** What it threw, as a failure of its own. */
  readonly threw: (error: unknown) => E
  /** What is thrown in where its acquire is interrupted. */
  readonly interrupted: () => unknown
  /** Waits for its end no longer than it may take; then fails with `cause`, and with what went wrong at that end. */
  readonly giveUp: (
    cause: Cause.Cause<never>,
    ending: Effect.Effect<unknown>
  ) => Effect.Effect<never>
}

/** A generator that stands at its `yield`. */
export interface Entered<out A> {
  readonly generator: AsyncGenerator<unknown, unknown, unknown>
  readonly abort: AbortController
  readonly value: A
}

type Answer<A> = Either.Either<IteratorResult<A, unknown>, unknown>

/** Asks at once, and never rejects. */
const ask = async <A>(step: () => Promise<IteratorResult<A, unknown>>): Promise<Answer<A>> => {
  try {
    return Either.right(await step())
  } catch (error) {
    return Either.left(error)
  }
}

/** Up to its `yield`. Must run inside an uninterruptible region. */
export const enterAsync = <A, E, N>(
  body: AsyncBody<A, E, N>,
  restore: Restore
): Effect.Effect<Entered<A>, E | N> =>
  Effect.suspend(() => {
    const abort = new AbortController()
    const generator = body.start(abort.signal)
    const first = ask(() => generator.next())
    return Effect.matchCauseEffect(restore(Effect.promise(() => first)), {
      onFailure: (cause) => {
        // The interrupt came before the `yield`. The generator hears of it by the signal and, should it get to its `yield`
        // all the same, by what is thrown in there: it answers in the order in which it is asked, so nothing is left open,
        // even if this gives up waiting for it.
        const interruption = body.interrupted()
        abort.abort(interruption)
        return body.giveUp(cause, leaveAsync(body, generator, Exit.failCause(cause), interruption))
      },
      onSuccess: (answer): Effect.Effect<Entered<A>, E | N> => {
        if (Either.isLeft(answer)) return Effect.fail(body.threw(answer.left))
        return answer.right.done === true
          ? Effect.fail(body.didNotYield())
          : Effect.succeed({ generator, abort, value: answer.right.value })
      }
    })
  })

/**
 * From its `yield` to its end. `interruption` is what is thrown in there if its user was interrupted, else undefined.
 *
 * INVARIANT Managed-8: gives the exit that is to be its user's, if that is not what it was.
 */
export const leaveAsync = <E>(
  body: Pick<AsyncBody<never, E, unknown>, "threw" | "yieldedTwice">,
  generator: AsyncGenerator<unknown, unknown, unknown>,
  exit: Exit.Exit<unknown, unknown>,
  interruption: unknown
): Effect.Effect<Exit.Exit<unknown, E> | void> => {
  const thrown = interruption ?? (Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined)
  const last = ask(() => Exit.isSuccess(exit) ? generator.next() : generator.throw(thrown))
  const mayChange = Exit.isFailure(exit) && interruption === undefined
  return Effect.flatMap(
    Effect.promise(() => last),
    (answer): Effect.Effect<Exit.Exit<unknown, E> | void> => {
      if (Either.isRight(answer)) {
        if (answer.right.done !== true) return refuse(body, generator)
        return mayChange ? Effect.succeed(Exit.void) : Effect.void
      }
      const error = answer.left
      if (Exit.isFailure(exit) && error === thrown) return Effect.void
      // Only who says what he makes it from has translated it; anything else has gone wrong besides.
      return mayChange && error instanceof Error && "cause" in error && error.cause === thrown
        ? Effect.sync(() => Exit.fail(body.threw(error)))
        : Effect.die(error)
    }
  )
}

/** It has given a second resource: it is ended there. */
const refuse = (
  { yieldedTwice }: Pick<Faults<unknown>, "yieldedTwice">,
  generator: AsyncGenerator<unknown, unknown, unknown>
): Effect.Effect<never> => {
  const ended = ask(() => generator.return(undefined))
  return Effect.flatMap(Effect.promise(() => ended), () => Effect.die(yieldedTwice()))
}

// A generator of effects.

/**
 * What its `use` gives it to yield. No effect, although `yield*` takes it: TypeScript leaves out of a union what another member
 * of it covers, and among the effects that a generator yields one that gives anything would cover this.
 */
export class Held<out A> {
  readonly resource: A

  constructor(resource: A) {
    this.resource = resource
  }

  [Symbol.iterator](): Iterator<Held<A>, Exit.Exit<unknown, unknown>, any> {
    return new SingleShotGen(this)
  }
}

export type Yielded = YieldWrap<Effect.Effect<any, any, any>> | Held<any>

type Effects = Generator<Yielded, unknown, any>

/** Where it stands: at a `use`, or at its end. */
type Stop =
  | { readonly done: false; readonly resource: any }
  | { readonly done: true; readonly returned: unknown }

/** Runs it up to its next stop. */
const advance = (generator: Effects, sent: unknown): Effect.Effect<Stop, any, any> =>
  Effect.suspend((): Effect.Effect<Stop, any, any> => {
    const next = generator.next(sent)
    if (next.done === true) return Effect.succeed({ done: true, returned: next.value })
    return next.value instanceof Held
      ? Effect.succeed({ done: false, resource: next.value.resource })
      : Effect.flatMap(yieldWrapGet(next.value), (value) => advance(generator, value))
  })

/** Up to its `use`. */
export const enter = (
  start: () => Effects,
  { didNotYield }: Faults<unknown>
): Effect.Effect<{ readonly generator: Effects; readonly value: any }, any, any> =>
  Effect.suspend(() => {
    const generator = start()
    return Effect.flatMap(
      advance(generator, undefined),
      (at) =>
        at.done ? Effect.fail(didNotYield()) : Effect.succeed({ generator, value: at.resource })
    )
  })

/** From its `use` to its end; gives what it returns, but no success where that may not take the place of its user's exit. */
export const leave = (
  generator: Effects,
  exit: Exit.Exit<unknown, unknown>,
  maySwallow: boolean,
  { yieldedTwice }: Faults<unknown>
): Effect.Effect<unknown, any, any> =>
  Effect.flatMap(advance(generator, exit), (at) => {
    if (!at.done) return Effect.die(yieldedTwice())
    const swallows = Exit.isExit(at.returned) && Exit.isSuccess(at.returned)
    return swallows && !maySwallow ? Effect.void : Effect.succeed(at.returned)
  })
