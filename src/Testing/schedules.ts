/**
 * schedules: tries orders of one subject, fewest delays first, and keeps those that end otherwise than the plain run.
 */
import type * as Exit from "effect/Exit"
import { judge, type Outcome, type Violation } from "./experiment.ts"
import { delaysIn, strategyOf } from "./interleavings.ts"
import { isSpent, runPlan, type Session } from "./session.ts"
import { makeTrace, type Trace } from "./simulation.ts"
import { countUnjudged, nowhere, type Swept } from "./sweep.ts"
import type { Chosen } from "./token.ts"

/** Says whether an exit is right; a text says what is wrong with it. */
export type Check = (exit: Exit.Exit<unknown, unknown>) => boolean | string | void

/** The laws, and that the exit is right. */
export const judgeSchedule = (
  outcome: Outcome,
  plain: Outcome,
  check: Check | undefined
): ReadonlyArray<Violation> => {
  const found = judge(outcome, plain)
  if (outcome.overtime !== undefined) return found
  const add = (message: string): ReadonlyArray<Violation> => [
    ...found,
    { law: "every schedule ends alike", message }
  ]
  if (outcome.exit === null) return found
  if (check === undefined) {
    return outcome.first === plain.first
      ? found
      : add(`ends as ${outcome.first}, in plain order as ${plain.first}`)
  }
  const said = check(outcome.exit)
  return said === false || typeof said === "string"
    ? add(said === false ? "the check says no" : said)
    : found
}

/** One schedule. `trace`: of the run whose operations the delays are counted in. */
const trySchedule = async (
  session: Session,
  swept: Swept,
  check: Check | undefined,
  schedule: {
    readonly delays: ReadonlyArray<number>
    readonly chosen?: Chosen | undefined
    readonly trace: Trace
  }
): Promise<boolean> => {
  const { chosen, delays, trace } = schedule
  const strategy = chosen === undefined ? undefined : strategyOf(chosen)
  const outcome = await runPlan(session, { plan: { delays, strategy } })
  swept.tried++
  swept.planned++
  countUnjudged(session, swept, outcome)
  const violations = judgeSchedule(outcome, session.plain, check)
  if (violations.length === 0) return false
  const point = nowhere(outcome)
  const alone = { fault: undefined, first: undefined }
  swept.strikes.push({ point, outcome, violations, delays, chosen, trace, ...alone })
  return true
}

/** Every set of up to `most` delays, smallest sets first. A set that fails is not made larger. */
export const sweepDelays = async (
  session: Session,
  swept: Swept,
  most: 0 | 1 | 2,
  check: Check | undefined
): Promise<void> => {
  const { trace } = session
  if (await trySchedule(session, swept, check, { delays: [], trace }) || most === 0) return
  const firsts: Array<number> = []
  for (const one of delaysIn(trace, 0)) {
    if (isSpent(session)) return
    if (!(await trySchedule(session, swept, check, { delays: [one], trace }))) firsts.push(one)
  }
  if (most === 1) return
  for (const one of firsts) {
    const delayed = makeTrace()
    await runPlan(session, { plan: { delays: [one] }, trace: delayed })
    for (const two of delaysIn(delayed, one)) {
      if (isSpent(session)) return
      await trySchedule(session, swept, check, { delays: [one, two], trace: delayed })
    }
  }
}

/** Random schedules, each named by its seed. */
export const sweepRandom = async (
  session: Session,
  swept: Swept,
  strategies: { readonly walks: number; readonly pct: number; readonly depth: number },
  check: Check | undefined
): Promise<void> => {
  const { limits, plain, trace } = session
  const runs = [
    ...Array.from({ length: strategies.walks }, () => "walk" as const),
    ...Array.from({ length: strategies.pct }, () => "pct" as const)
  ]
  for (const [index, kind] of runs.entries()) {
    if (isSpent(session)) return
    const chosen = {
      kind,
      seed: limits.seed * 7919 + index,
      depth: strategies.depth,
      steps: plain.global
    }
    // One is enough: the next seeds mostly show the same again.
    if (await trySchedule(session, swept, check, { delays: [], chosen, trace })) return
  }
}
