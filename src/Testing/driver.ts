/**
 * driver: runs an experiment to its end, synchronously or beside the real event loop.
 *
 * DESIGN. The synchronous driver owns everything, so what has nothing left to run hangs. A program that also waits on a native
 * promise or handle is driven with turns of the event loop between the steps: three idle turns without a handle of its own
 * mean that nothing will come; a handle that stays open means that the program cannot be judged, and the verdict says so.
 *
 * INVARIANTS
 * - Explore-4 A program that still waits on a real handle is never reported as hung: the verdict is inconclusive and names it.
 *
 * SOURCES Coyote (partly controlled programs), Trio's autojump clock.
 */
import * as process from "node:process"
import * as timers from "node:timers/promises"
import { makeWorld, type Outcome, type Program, type RunOptions, type Until } from "./experiment.ts"
import { Endless, type Simulation } from "./simulation.ts"

/** A real handle is still open, so whether the program hangs is not known. */
export class WaitingOnHandle extends Error {
  override readonly name = "WaitingOnHandle"
  readonly handles: ReadonlyArray<string>
  constructor(handles: ReadonlyArray<string>) {
    super(`waiting on ${handles.join(", ")}`)
    this.handles = handles
  }
}

const idleTurns = 3
const handleCapMillis = 1_000

const countHandles = (): Map<string, number> => {
  const counts = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind === "Immediate") continue
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  return counts
}

/** The handles that are open now and were not at the start. */
const newHandles = (before: ReadonlyMap<string, number>): ReadonlyArray<string> =>
  Array.from(countHandles()).filter(([kind, count]) => count > (before.get(kind) ?? 0))
    .map(([kind]) => kind)

/** How to run: with or without the event loop. */
export interface Driver {
  readonly mode: "synchronous" | "asynchronous"
  readonly run: (program: Program, options: RunOptions) => Outcome | Promise<Outcome>
}

type Step = IteratorResult<Until, Outcome>

export const synchronous: Driver = {
  mode: "synchronous",
  run: (program, options) => {
    const { run, simulation } = makeWorld(program, options)
    let step: Step = run.next()
    while (step.done !== true) {
      try {
        simulation.settle(step.value)
      } catch (error) {
        if (!(error instanceof Endless)) throw error
        step = run.throw(error)
        continue
      }
      step = run.next()
    }
    return step.value
  }
}

/** True when three turns brought nothing and nothing real is open; false as soon as something is ready. */
const idle = (before: ReadonlyMap<string, number>) => async (simulation: Simulation) => {
  for (let turn = 0; turn < idleTurns; turn++) {
    await timers.setImmediate()
    if (!simulation.isIdle) return false
  }
  let waited = 0
  let open = newHandles(before)
  while (open.length > 0) {
    if (waited++ >= handleCapMillis) throw new WaitingOnHandle(open)
    await timers.setTimeout(1)
    if (!simulation.isIdle) return false
    open = newHandles(before)
  }
  // The result of the last handle arrives in the turn after it.
  await timers.setImmediate()
  return simulation.isIdle
}

export const asynchronous = (): Driver => {
  const before = countHandles()
  return {
    mode: "asynchronous",
    run: async (program, options) => {
      const { run, simulation } = makeWorld(program, options)
      let step: Step = run.next()
      while (step.done !== true) {
        try {
          await simulation.settleAsync(step.value, idle(before))
        } catch (error) {
          if (!(error instanceof Endless)) throw error
          step = run.throw(error)
          continue
        }
        step = run.next()
      }
      return step.value
    }
  }
}
