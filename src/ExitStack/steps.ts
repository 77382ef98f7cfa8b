/**
 * steps: what a stack runs when it unwinds. Each step takes the exit as it is and gives the exit as it becomes.
 *
 * INVARIANTS ExitStack-1, ExitStack-3 and ExitStack-4: each step runs once, the last first, and none stops another.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { asDefects, withFailure } from "../internal/exit.ts"
import * as Release from "../internal/release.ts"
import type { Opened } from "../Managed/resource.ts"

/** Never fails, and takes no longer than a release may. */
export type Step<out A, out E> = <B, F>(
  exit: Exit.Exit<B, F>
) => Effect.Effect<Exit.Exit<A | B, E | F>>

export type Handler<A, E, R> = (
  exit: Exit.Exit<unknown, unknown>
) => Effect.Effect<Exit.Exit<A, E> | void, E, R>

// Exits. A failure that the types do not mention is a defect.

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

/** What an unwinding that began with `before` has added to it, as defects; undefined if nothing. */
export const addedTo = (
  before: Exit.Exit<unknown, unknown>,
  after: Exit.Exit<unknown, unknown>
): Cause.Cause<never> | undefined => {
  if (Exit.isSuccess(after)) return undefined
  if (Exit.isSuccess(before)) return asDefects(after.cause)
  const added: Array<Cause.Cause<never>> = []
  let first = after.cause
  for (; first !== before.cause && first._tag === "Sequential"; first = first.left) {
    added.push(asDefects(first.right))
  }
  if (first !== before.cause) added.push(asDefects(first))
  return added.length === 0
    ? undefined
    : added.reduceRight((all, next) => Cause.sequential(all, next))
}

// Steps.

/** Runs `work` as a release, and makes the next exit of the exit and of how that ended. */
const step = <A, E, B, F>(
  release: Release.Release,
  work: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<B, F>,
  next: <C, G>(exit: Exit.Exit<C, G>, ended: Exit.Exit<B, F>) => Exit.Exit<A | C, E | G>
): Step<A, E> =>
(exit) =>
  Effect.suspend(() =>
    Release.runThen(release, () => work(exit), exit, (ended) => Effect.succeed(next(exit, ended)))
  )

/** A handler: its exit, if it gives one. */
export const handlerStep = <A, E>(
  release: Release.Release,
  handler: Handler<A, E, never>
): Step<A, E> =>
  step<A, E, Exit.Exit<A, E> | void, E>(release, handler, (exit, ended) =>
    // It may have given anything: often a handler is an effect that runs for its own sake.
    Exit.isFailure(ended)
      ? withFailure(exit, ended.cause)
      : Exit.isExit(ended.value)
      ? ended.value
      : exit)

/** An effect that changes the exit only by failing. */
export const callbackStep = (
  release: Release.Release,
  effect: Effect.Effect<unknown, unknown>
): Step<never, never> =>
  step<never, never, unknown, unknown>(
    release,
    () => effect,
    (exit, ended) => Exit.isFailure(ended) ? withFailure(exit, asDefects(ended.cause)) : exit
  )

/** The release of a resource. `instead` is the exit if it swallows a failure. */
export const releaseStep = <A, E>(
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

/** Removes and runs them one by one, the last first. */
export const unwind = <A, E, B, F>(
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
