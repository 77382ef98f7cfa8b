/**
 * exit: what a release makes of how its user ended.
 *
 * INVARIANTS those of its callers (L5): what went wrong with a release comes after what its user ended with, and replaces nothing.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HashSet from "effect/HashSet"

/** `Cause.pretty`, but an error that cannot be shown (its cause is itself, its getters throw) hides nothing but itself. */
export const prettyOf = (cause: Cause.Cause<unknown>): string => {
  try {
    return Cause.pretty(cause)
  } catch {
    const errors = [...Cause.failures(cause), ...Cause.defects(cause)]
    return errors.map(textOf).join("\n") || "a failure that cannot be shown"
  }
}

const textOf = (error: unknown): string => {
  try {
    return String(error)
  } catch {
    return "an error that cannot be shown"
  }
}

/** An owner has no type for what a release fails with. */
export const asDefects = (cause: Cause.Cause<unknown>): Cause.Cause<never> =>
  Cause.flatMap(cause, (error) => Cause.die(error))

/** `exit`, and after it `failure`. */
export const withFailure = <E, F>(
  exit: Exit.Exit<unknown, E>,
  failure: Cause.Cause<F>
): Exit.Exit<never, E | F> =>
  Exit.failCause(Exit.isFailure(exit) ? Cause.sequential(exit.cause, failure) : failure)

/** What a callback gave to run at the end; JavaScript lets it give something else, and then it has failed. */
export const effectOf = <A, E, R>(
  given: Effect.Effect<A, E, R>,
  what: string
): Effect.Effect<A, E, R> =>
  Effect.isEffect(given) ? given : Effect.die(
    new TypeError(`${what} gave no effect to run, but ${typeof given}: return one (Effect.sync).`)
  )

/**
 * What a release failed with, told to an owner that ended with `exit`. Nobody interrupts a release: an interrupt of its own would
 * read as one of its owner, and is a defect that names it.
 */
export const interruptsAsDefects = <E>(
  cause: Cause.Cause<E>,
  exit: Exit.Exit<unknown, unknown>,
  what: string
): Cause.Cause<E> => {
  if (!Cause.isInterrupted(cause)) return cause
  const owners = Exit.isFailure(exit) ? Cause.interruptors(exit.cause) : HashSet.empty()
  return Cause.match<Cause.Cause<E>, E>(cause, {
    onEmpty: Cause.empty,
    onFail: (error) => Cause.fail(error),
    onDie: (defect) => Cause.die(defect),
    onInterrupt: (by) =>
      HashSet.has(owners, by)
        ? Cause.interrupt(by)
        : Cause.die(
          new Error(`${what} ended by an interrupt of its own: look for what it interrupts.`)
        ),
    onSequential: (left, right) => Cause.sequential(left, right),
    onParallel: (left, right) => Cause.parallel(left, right)
  })
}
