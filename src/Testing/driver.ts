/**
 * driver: runs an experiment to its end, synchronously or beside the real event loop.
 *
 * DESIGN. The synchronous driver owns everything, so what has nothing left to run hangs. A program that also waits on a native
 * promise or handle is driven with turns of the event loop between the steps: three idle turns without anything native of its
 * own mean that nothing will come; something native that stays open means that the run cannot be judged, and the verdict says so.
 *
 * INVARIANTS
 * - Explore-4 A program that still waits on a real handle is never reported as hung: the verdict is inconclusive and names it.
 * - Explore-13 With real I/O a suspected finding is repeated with more patience; it is reported with how often it shows again, or not at all.
 * - Explore-16 A first run without the event loop that turns out to need it goes on to its end, so that it leaves nothing open.
 * - Explore-17 A run waits for the answer on a connection that its setup has opened.
 *
 * SOURCES Coyote (partly controlled programs), Trio's autojump clock.
 */
import * as timers from "node:timers/promises"
import { runAround } from "./environment.ts"
import { makeWorld, type Outcome, type Program, type RunOptions } from "./experiment.ts"
import { type Natives, watching } from "./natives.ts"
import { Endless, type Simulation, type Until } from "./simulation.ts"

const idleTurns = 3
/** How many turns of the event loop, of a millisecond or more, may pass without any event. */
const patience = {
  usual: { now: 10, settled: 10, ended: 40 },
  patient: { now: 50, settled: 50, ended: 400 }
}
/** As above, for the next part of an answer of which a part has come on a connection of the setup. */
const nextPart = { now: 3, settled: 3, ended: 40 }
/** As above, while something is open that is sure to end. */
const sureTurns = { now: 100, settled: 100, ended: 1_000 }

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

/**
 * True when some turns brought nothing, and what is open natively stays silent; false as soon as something is ready. Time may
 * pass then: a real answer takes no virtual time, so it comes before any timer that it races with.
 */
const idle =
  (natives: Natives, options: RunOptions) => async (simulation: Simulation, as: Until["as"]) => {
    for (let turn = 0; turn < idleTurns; turn++) {
      await timers.setImmediate()
      if (!simulation.isIdle) return false
    }
    const silent = patience[options.isPatient === true ? "patient" : "usual"][as]
    let { events } = natives
    let since = 0
    for (let turn = 0;; turn++) {
      const { isSure, names } = natives.pending(nextPart[as])
      simulation.waitingOn = names
      const most = isSure ? sureTurns[as] : silent
      // An interval has events for ever.
      if (names.length === 0 || turn - since > most || turn > 3 * most) break
      await timers.setTimeout(1)
      if (!simulation.isIdle) return false
      if (natives.events !== events) since = turn
      events = natives.events
    }
    // The result of the last one arrives in the turn after it.
    await timers.setImmediate()
    return simulation.isIdle
  }

/** `isBeside`: whether to go beside the event loop from the beginning, or only as soon as a part of the run cannot end without it. */
const runWatched = (program: Program, options: RunOptions, isBeside: boolean) =>
  watching(async (natives, watched) => {
    const { run, simulation } = makeWorld(program, {
      ...options,
      leftOpen: () => natives.leftOpen()
    })
    const within = (part: () => void): void => watched(() => runAround(simulation, part))
    let waited = isBeside
    let step: Step = run.next()
    while (step.done !== true) {
      const until = step.value
      const { as } = until
      try {
        if (!waited) {
          within(() => simulation.settle(until))
          waited = as === "ended" && !until.done() && !simulation.isOvertime
        }
        if (waited) await simulation.settleAsync(until, idle(natives, options), within)
      } catch (error) {
        if (!(error instanceof Endless)) throw error
        step = run.throw(error)
        continue
      }
      if (as === "now") natives.markBackground()
      step = run.next()
    }
    return { outcome: step.value, waited }
  })

/**
 * A first run without the event loop, and whether it had to wait for it. Then it has gone on beside it, to its end, so that nothing
 * that it opened stays open behind it; but in that run time has passed that should not have, so it shows nothing more.
 */
export const attempt = (
  program: Program,
  options: RunOptions
): Promise<{ readonly outcome: Outcome; readonly waited: boolean }> =>
  runWatched(program, options, false)

export const asynchronous: Driver = {
  mode: "asynchronous",
  run: async (program, options) => (await runWatched(program, options, true)).outcome
}
