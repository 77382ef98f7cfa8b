/**
 * conflicts: which operations of a run may touch what fibers share.
 *
 * DESIGN. Two neighbouring operations of two fibers may change places if one of them touches only its own fiber. JavaScript does not
 * show what a function reads and writes. So each function that an operation calls counts as touching what all share, but for
 * those of effect that are known, by their text, to work on their own fiber alone: the steps of masks and brackets, the start and
 * the join of a fiber. A text that is not in the list, of another version of effect or minified, counts as touching.
 *
 * INVARIANTS
 * - Explore-15 A reduced exploration of orders finds what the plain enumeration finds, on ten programs of three fibers each.
 *
 * NOT DONE telling apart the variables that two functions touch: any two of them conflict. A function of the user whose text is
 * one of those in the list would be taken for effect's. COST about 1 µs per operation, in traced runs only.
 */
import { type AnyFiber, calledBy, type Instruction } from "./runtime.ts"
import { makeTrace, type Trace } from "./simulation.ts"

/** How the functions of effect begin that touch only the fiber that calls them. */
const known: ReadonlyArray<string> = [
  // A value goes on to the next step.
  "() => self",
  "() => that",
  "() => succeed(value)",
  "a => a",
  "a => as(that, a)",
  "a => core.as(",
  // Masks and brackets build their steps.
  "restore => matchCauseEffect(restore(self), {",
  "restore => core.matchCauseEffect(restore(self), {",
  "restore => flatMap(acquire",
  "a => flatMap(exit(suspend(() => restore(use(a)))), exit",
  "exit => { return suspend(() => release(a, exit)).pipe(matchCauseEffect({",
  "() => exit",
  "state => { const [b, a] = f(state.getFiberRef(self)); state.setFiberRef(self, a);",
  "scope => scopeUse",
  "fiber => exitSucceed(fiber.getFiberRef(self))",
  "fiber => exitSucceed(fiber.currentContext)",
  // A fiber starts another, waits for it, and takes over its FiberRefs.
  "(state, status) => core.succeed(unsafeFork(",
  "(parentFiber, parentStatus) => { const parentFiberId",
  "resume => { const cb = exit => resume(",
  "resume => { backingResume = resume;"
]

// Filled as texts are met; there are only as many as there are places in the code.
const verdicts = new Map<string, boolean>()

const isKnown = (called: unknown): boolean => {
  if (typeof called !== "function") return false
  const text = String(called)
  const verdict = verdicts.get(text)
  if (verdict !== undefined) return verdict
  const line = text.replaceAll(/\s+/g, " ")
  const found = known.some((start) => line.startsWith(start))
  verdicts.set(text, found)
  return found
}

/** A run and, for each of its operations, whether it may touch what fibers share. */
export interface Observed {
  readonly trace: Trace
  readonly touches: ReadonlyArray<boolean>
}

export const makeObserved = (): Observed => {
  const touches: Array<boolean> = []
  const before = new Map<AnyFiber, Instruction>()
  const trace = makeTrace({
    onStep: (fiber, next, global) => {
      touches[global - 1] = calledBy(fiber, next, before.get(fiber)).some((one) => !isKnown(one))
      before.set(fiber, next)
    }
  })
  return { trace, touches }
}
