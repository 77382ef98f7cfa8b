/**
 * interleavings: other orders of the same program, without any interrupt.
 *
 * DESIGN. The base order is FIFO, as in production; a schedule is a set of forced yields. Few yields first (0, 1, 2: each set
 * once, by class), so what is found is already small. Beyond that a seeded random walk and PCT (random priorities with a few
 * changes), which also permute the ready queue. A fiber that yields of itself loses its priority, or PCT would livelock.
 *
 * COST O(N^d) runs for d delays, whatever the number of fibers. SOURCES delay-bounded scheduling (Emmi, Qadeer, Rakamarić,
 * POPL 2011), CHESS, PCT (Burckhardt et al., ASPLOS 2010).
 */
import { pointsOf } from "./points.ts"
import type { AnyFiber } from "./runtime.ts"
import { makeRandom, type Strategy, type Trace } from "./simulation.ts"
import type { Chosen } from "./token.ts"

/** A yield itself takes this many operations after it resumes; a delay among them is the same delay again. */
const yieldOperations = 9

const firstYieldedSlice = (
  trace: Trace,
  delay: number
): readonly [fiber: number, slice: number] => {
  const at = trace.steps[delay - 1]
  return at === undefined ? [-1, -1] : [at.fiber, at.slice + 1]
}

/** The operations of a run before which a delay makes a difference, after the last delay it already has. */
export const delaysIn = (trace: Trace, last: number): ReadonlyArray<number> => {
  const { others, own } = pointsOf(trace)
  const [fiber, slice] = firstYieldedSlice(trace, last)
  return [...own, ...others]
    .filter(({ global, leads }) => {
      const step = trace.steps[global - 1]
      if (step === undefined || global <= last || !step.contended) return false
      const isOverhead = step.fiber === fiber && step.slice === slice &&
        step.offset <= yieldOperations
      return !isOverhead && (leads || step.resumed)
    })
    .map(({ global }) => global)
    .toSorted((a, b) => a - b)
}

const walkYields = 0.03

const walk = (random: () => number): Strategy => ({
  next: (ready) => Math.floor(random() * ready.length),
  // Often enough to matter; much more often, and the yields themselves never end.
  yields: () => random() < walkYields
})

const pct = (random: () => number, { depth, steps }: Chosen): Strategy => {
  // Above zero: as given at the start. Below zero: lowered; a later change gives a lower one.
  const priorities = new Map<AnyFiber | undefined, number>()
  let lowest = 0
  let step = 0
  const changes = new Set(Array.from({ length: depth - 1 }, () => Math.floor(random() * steps)))
  const priorityOf = (fiber: AnyFiber | undefined): number => {
    const known = priorities.get(fiber)
    if (known !== undefined) return known
    const fresh = 1 + random()
    priorities.set(fiber, fresh)
    return fresh
  }
  // How often each fiber was passed over: a spinning favourite must not starve the rest.
  let favourite: AnyFiber | undefined
  let streak = 0
  return {
    next: (ready) => {
      let best = 0
      for (let index = 1; index < ready.length; index++) {
        if (priorityOf(ready[index]) > priorityOf(ready[best])) best = index
      }
      streak = ready[best] === favourite ? streak + 1 : 0
      favourite = ready[best]
      if (streak > 1) priorities.set(favourite, --lowest)
      return best
    },
    yields: (fiber, ready) => {
      if (changes.has(step++)) {
        priorities.set(fiber, --lowest)
        return true
      }
      const mine = priorityOf(fiber)
      return ready.some((other) => other !== fiber && priorityOf(other) > mine)
    }
  }
}

export const strategyOf = (chosen: Chosen): Strategy => {
  const random = makeRandom(chosen.seed)
  return chosen.kind === "walk" ? walk(random) : pct(random, chosen)
}
