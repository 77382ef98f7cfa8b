/**
 * exit: how the failure of a release is added to the exit of its owner.
 *
 * INVARIANTS those of its callers (L5): the failure of a release comes after its owner's own, and replaces nothing.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HashSet from "effect/HashSet"

/** `Cause.pretty`, but an error that cannot be shown (its cause is itself, its getters throw) hides only itself. */
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

/** How a release is called in messages. */
export const releaseOf = (kind: string, name: string): string => `The release of ${kind} "${name}"`

/** The effect that a release callback returns. A callback that throws, or returns anything else, counts as a failed release. */
export const effectOf = <A, E, R>(
  callback: () => Effect.Effect<A, E, R>,
  kind: string,
  name: string
): Effect.Effect<A, E, R> => {
  try {
    const given = callback()
    if (Effect.isEffect(given)) return given
    const what = `${releaseOf(kind, name)} gave no effect to run, but ${typeof given}`
    return Effect.die(new TypeError(`${what}: return one (Effect.sync).`))
  } catch (error) {
    return Effect.die(error)
  }
}

/**
 * The failure of a release, for an owner that ended with `exit`. An interrupt that is not the owner's would read as one of the
 * owner, so it becomes a defect that names the release.
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
