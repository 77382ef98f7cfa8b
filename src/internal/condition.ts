/**
 * condition: waits until something holds.
 *
 * DESIGN. A condition is the set of observers of one owner's state. The owner calls `notify` in the step that
 * changes the state; each observer whose test holds then leaves the set and is called, in the order of arrival. A test is
 * synchronous and only reads. A test that holds at once needs no notification, so no change is missed between look and wait.
 *
 * INVARIANTS
 * - Condition-1 An observer is called in the step of the notification that finds its test true, once, first come first called.
 * - Condition-2 An interrupted wait leaves the set in the step of its interruption.
 *
 * COST joining and leaving O(1); a notification runs every test in the set, and costs one look when the set is empty.
 */
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Registration from "./registration.ts"

export interface Observer {
  readonly isMet: () => boolean
  readonly run: () => void
}

export type Condition = Set<Observer>

export const make = (): Condition => new Set()

const always = (): boolean => true

/** Calls each observer whose test holds. A called observer may change the state, observe again and notify. */
export const notify = (self: Condition): void => {
  for (const observer of self) {
    if (observer.isMet() && self.delete(observer)) observer.run()
  }
}

/**
 * Calls `run` once, as soon as `isMet`: in this step if it holds already. Returns the function that takes the observer away.
 * Without a test the next notification calls it.
 */
export const observe = (
  self: Condition,
  run: () => void,
  isMet: (() => boolean) | undefined = undefined
): () => void => {
  if (isMet?.() === true) {
    run()
    return () => {}
  }
  const observer: Observer = { isMet: isMet ?? always, run }
  self.add(observer)
  return () => {
    self.delete(observer)
  }
}

/** Waits until `isMet`. A fiber dump shows `blockingOn` as what the fiber waits for. */
export const wait = (
  self: Condition,
  isMet: () => boolean,
  blockingOn: FiberId.FiberId = FiberId.none
): Effect.Effect<void> =>
  Registration.wait((resume) => observe(self, () => resume(Effect.void), isMet), blockingOn)
