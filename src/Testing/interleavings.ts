/**
 * interleavings: other orders of the same program, without any interrupt.
 *
 * DESIGN. The base order is FIFO, as in production; a schedule is a set of forced yields. Few yields first (0, 1, 2), so what is
 * found is already small. Beyond that a seeded random walk and PCT (random priorities with a few
 * changes), which also permute the ready queue. A fiber that yields of itself loses its priority, or PCT would livelock.
 *
 * Reduction. The order of a run is the sequence of fibers at its operations that may touch what fibers share (`conflicts.ts`). Two
 * schedules of one order are one. So a yield is forced only before such an operation, or before one that starts or wakes
 * another fiber: a yield before any other operation gives the same order as one before the next such operation. The order
 * that a yield gives is known beforehand: those who are ready take their turn, then the delayed fiber goes on. If a schedule of
 * that order was run, this one is not. Here the reduction is a heuristic: it takes what comes after those turns to be as it was,
 * though what the delayed fiber would have woken is woken later. In return the enumeration of ten programs of three fibers
 * takes a tenth of the schedules and finds the same (`npm run explore -- orders`).
 *
 * COST O(N^d) runs for d delays, whatever the number of fibers. SOURCES delay-bounded scheduling (Emmi, Qadeer, Rakamarić,
 * POPL 2011), CHESS, PCT (Burckhardt et al., ASPLOS 2010), sleep sets (Godefroid, CAV 1990).
 */
import type { Observed } from "./conflicts.ts"
import type { AnyFiber } from "./runtime.ts"
import { makeRandom, type Step, type Strategy } from "./simulation.ts"
import type { Chosen } from "./token.ts"

/** A yield itself takes this many operations after it resumes; a delay among them is the same delay again. */
const yieldOperations = 9

/** Whether a step is part of the yield that a delay has forced. */
const isOverhead = (step: Step, delayed: Step | undefined): boolean =>
  delayed !== undefined && step.fiber === delayed.fiber && step.slice === delayed.slice + 1
  && step.offset <= yieldOperations

/** The operations of a run before which a delay may make a difference, after the last delay it already has. */
export const delaysIn = ({ trace: { steps } }: Observed, last: number): ReadonlyArray<number> =>
  steps.flatMap((step, index) =>
    index + 1 > last && step.ready > 0 && !isOverhead(step, steps[last - 1]) ? [index + 1] : []
  )

/** Whether the operation at `index` has made another fiber ready, and its own goes on. */
const wakes = (steps: ReadonlyArray<Step>, index: number): boolean => {
  const step = steps[index]
  const next = steps[index + 1]
  return step !== undefined && next !== undefined && next.fiber === step.fiber
    && next.slice === step.slice && next.ready > step.ready
}

/** Whether another fiber could tell whether it runs before or after the operation at `index`. */
export const matters = ({ touches, trace: { steps } }: Observed, index: number): boolean =>
  touches[index] === true || wakes(steps, index)

/** The order of a run in a few letters: which fiber did its next operation that matters to others. */
type Order = string

const hashOf = (fibers: Iterable<number>): Order => {
  let one = 0x811C9DC5
  let two = 0x01000193
  for (const fiber of fibers) {
    one = Math.imul(one ^ fiber, 16_777_619)
    two = Math.imul(two + fiber, 2_654_435_761) ^ (two >>> 15)
  }
  return `${one}.${two}`
}

/** Whose operations from one index to another may touch what fibers share. */
const touchesIn = (
  { touches, trace: { steps } }: Observed,
  delays: ReadonlyArray<number>,
  from: number,
  to: number
): Array<number> => {
  const fibers: Array<number> = []
  for (let index = from; index < to; index++) {
    const step = steps[index]!
    if (touches[index] === true && !delays.some((at) => isOverhead(step, steps[at - 1]))) {
      fibers.push(step.fiber)
    }
  }
  return fibers
}

/** The order of a run with these delays. */
export const orderOf = (run: Observed, delays: ReadonlyArray<number>): Order =>
  hashOf(touchesIn(run, delays, 0, run.trace.steps.length))

const sliceEnd = (steps: ReadonlyArray<Step>, from: number): number => {
  const { fiber, slice } = steps[from]!
  let end = from
  while (steps[end]?.fiber === fiber && steps[end]?.slice === slice) end++
  return end
}

/** The order that the run will have with one delay more. */
export const orderAfter = (
  run: Observed,
  delays: ReadonlyArray<number>,
  delay: number
): Order => {
  const { steps } = run.trace
  const at = delay - 1
  const end = sliceEnd(steps, at)
  let resumed = end
  for (let turns = steps[at]!.ready; turns > 0 && resumed < steps.length; turns--) {
    resumed = sliceEnd(steps, resumed)
  }
  const part = (from: number, to: number) => touchesIn(run, delays, from, to)
  return hashOf([
    ...part(0, at),
    ...part(end, resumed),
    ...part(at, end),
    ...part(resumed, steps.length)
  ])
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
