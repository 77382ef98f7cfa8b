/**
 * schedules: tries orders of one subject, fewest delays first, and keeps those that end otherwise than the plain run.
 */
import type * as Exit from "effect/Exit"
import { makeObserved, type Observed } from "./conflicts.ts"
import { judge, type Outcome, type Violation } from "./experiment.ts"
import { delaysIn, matters, orderAfter, orderOf, strategyOf } from "./interleavings.ts"
import { isSpent, runPlan, type Session } from "./session.ts"
import type { Trace } from "./simulation.ts"
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

/** Whether the budget is spent before the next schedule, which then is one that was planned and not tried. */
const isCut = (session: Session, swept: Swept): boolean => {
  if (!isSpent(session)) return false
  swept.planned++
  return true
}

/** One schedule: its outcome, and whether it is right. `trace`: of the run whose operations the delays are counted in. */
const trySchedule = async (
  session: Session,
  swept: Swept,
  check: Check | undefined,
  schedule: {
    readonly delays: ReadonlyArray<number>
    readonly chosen?: Chosen | undefined
    readonly trace: Trace
    /** Records this run. */
    readonly own?: Trace | undefined
  }
): Promise<boolean> => {
  const { chosen, delays, own, trace } = schedule
  const strategy = chosen === undefined ? undefined : strategyOf(chosen)
  const outcome = await runPlan(session, { plan: { delays, strategy }, trace: own })
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

/** The orders that runs have shown, and those that they are expected to show. */
class Orders {
  // Written by this class alone.
  readonly #shown = new Set<string>()
  readonly #known = new Set<string>()
  readonly #isReduced: boolean

  constructor(isReduced: boolean) {
    this.#isReduced = isReduced
  }

  /** Notes the order of a run; true if no run has shown it before. */
  show(run: Observed, delays: ReadonlyArray<number>): boolean {
    const order = orderOf(run, delays)
    const isNew = !this.#shown.has(order)
    this.#shown.add(order)
    this.#known.add(order)
    return isNew || !this.#isReduced
  }

  /** The further delays that give a new order. */
  after(run: Observed, delays: ReadonlyArray<number>): ReadonlyArray<number> {
    const all = delaysIn(run, delays[0] ?? 0)
    if (!this.#isReduced) return all
    return all.filter((delay) => {
      if (!matters(run, delay - 1)) return false
      const order = orderAfter(run, delays, delay)
      const isNew = !this.#known.has(order)
      this.#known.add(order)
      return isNew
    })
  }
}

/** How many operations of runs are remembered; longer ones are run again. */
const mostKept = 200_000

/**
 * Every set of up to `most` delays, smallest sets first; if `isReduced`, one of each order. A set that fails is not made larger.
 */
export const sweepDelays = async (
  session: Session,
  swept: Swept,
  most: 0 | 1 | 2,
  options: { readonly check: Check | undefined; readonly isReduced: boolean }
): Promise<void> => {
  const { check } = options
  const orders = new Orders(options.isReduced)
  const plain = makeObserved()
  const none = { delays: [], trace: session.trace, own: plain.trace }
  if (await trySchedule(session, swept, check, none) || most === 0) return
  orders.show(plain, [])
  const firsts: Array<readonly [delay: number, run: Observed | undefined]> = []
  let kept = 0
  for (const one of orders.after(plain, [])) {
    if (isCut(session, swept)) return
    const run = makeObserved()
    const own = most === 1 ? undefined : run.trace
    const schedule = { delays: [one], trace: plain.trace, own }
    if (await trySchedule(session, swept, check, schedule) || most === 1) continue
    kept += run.touches.length
    if (orders.show(run, [one])) firsts.push([one, kept > mostKept ? undefined : run])
  }
  for (const [one, known] of firsts) {
    const run = known ?? makeObserved()
    if (known === undefined) await runPlan(session, { plan: { delays: [one] }, trace: run.trace })
    for (const two of orders.after(run, [one])) {
      if (isCut(session, swept)) return
      await trySchedule(session, swept, check, { delays: [one, two], trace: run.trace })
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
    if (isCut(session, swept)) return
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
