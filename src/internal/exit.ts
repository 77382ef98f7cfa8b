/**
 * exit: what a release makes of how its user ended.
 *
 * INVARIANTS those of its callers (L5): what went wrong with a release comes after what its user ended with, and replaces nothing.
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"

/** An owner has no type for what a release fails with. */
export const asDefects = (cause: Cause.Cause<unknown>): Cause.Cause<never> =>
  Cause.flatMap(cause, (error) => Cause.die(error))

/** `exit`, and after it `failure`. */
export const withFailure = <E, F>(
  exit: Exit.Exit<unknown, E>,
  failure: Cause.Cause<F>
): Exit.Exit<never, E | F> =>
  Exit.failCause(Exit.isFailure(exit) ? Cause.sequential(exit.cause, failure) : failure)
