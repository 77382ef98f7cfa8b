/**
 * inspection: a closer look at what was found: source lines, the steps before it, whether users can get there.
 *
 * DESIGN. Lines are asked of the inspector, which is slow, so only here: one replay tells which slices run code of the user,
 * and one per finding shows where the target stood and what it left behind.
 *
 * @since 0.1.0
 */
import type { Outcome, Unreleased } from "./experiment.ts"
import type { Strike } from "./findings.ts"
import type * as Probe from "./Probe.ts"
import { type Instruction, stackOf } from "./runtime.ts"
import { runPlan, type Session } from "./session.ts"
import { makeTrace, type Step, type Trace } from "./simulation.ts"
import type { UserCode } from "./sweep.ts"
import { isUserCode, type Locator } from "./where.ts"

type Executed = readonly [next: Instruction, returnsTo: Instruction | undefined]

/** What each step of a run executed, by one more run of it. */
const executedBy = async (
  session: Session,
  fault: Probe.PlannedFault | undefined
): Promise<ReadonlyArray<Executed>> => {
  const executed: Array<Executed> = []
  const trace = makeTrace({
    onStep: (fiber, next) => executed.push([next, stackOf(fiber).at(-1)])
  })
  await runPlan(session, { trace, fault })
  return executed
}

/** Tells of each step whether code of the user ran in its slice before it. */
export const userCodeOf = async (
  session: Session,
  locator: Locator,
  strikes: ReadonlyArray<{ readonly trace: Trace; readonly fault: Probe.PlannedFault | undefined }>
): Promise<UserCode> => {
  const known = new Map<Trace, ReadonlyArray<Executed>>()
  for (const { fault, trace } of strikes) {
    if (!known.has(trace)) known.set(trace, await executedBy(session, fault))
  }
  const isUser = (executed: Executed | undefined): boolean =>
    executed !== undefined
    && executed.some((one) => one !== undefined && isUserCode(locator, one))
  return (trace, global) => {
    const at = trace.steps[global - 1]
    const executed = known.get(trace)
    if (at === undefined || executed === undefined) return false
    for (let index = global - 2; index >= 0; index--) {
      const step = trace.steps[index]!
      if (step.fiber !== at.fiber) continue
      if (step.slice !== at.slice) return false
      if (isUser(executed[index])) return true
    }
    return false
  }
}

/** What a closer look at one strike shows. */
export interface Look {
  readonly at: string | undefined
  readonly stack: ReadonlyArray<string>
  readonly unreleased: ReadonlyArray<Unreleased>
  readonly steps: string
}

const shownBefore = 12
const shownAfter = 8

interface Row {
  readonly global: number
  readonly step: Step
  readonly line: string
}

/** The last steps of each fiber before the interrupt, and the first after it. */
const table = (rows: ReadonlyArray<Row>, hitGlobal: number, target: number): string => {
  const perFiber = new Map<number, number>()
  const before = rows.filter(({ global }) => global <= hitGlobal).toReversed()
    .filter(({ step }) => {
      const count = (perFiber.get(step.fiber) ?? 0) + 1
      perFiber.set(step.fiber, count)
      return count <= shownBefore
    }).toReversed()
  const after = rows.filter(({ global }) => global > hitGlobal).slice(0, shownAfter)
  const fibers = [...new Set([...before, ...after].map(({ step }) => step.fiber))]
    .toSorted((a, b) => a - b)
  const width = 20
  const row = ({ global, line, step }: Row): string =>
    [
      `${global === hitGlobal ? ">" : " "}${String(global).padStart(5)}`,
      ...fibers.map((fiber) => (fiber === step.fiber ? step.op : "").padEnd(width)),
      line
    ].join(" │ ").trimEnd()
  const head = [
    "    op",
    ...fibers.map((fiber) => (fiber === target ? "target" : `fiber ${fiber}`).padEnd(width))
  ].join(" │ ").trimEnd()
  const mark = `       ── the target is interrupted here ──`
  return [head, ...before.map(row), mark, ...after.map(row)].join("\n")
}

/** Where the body was written: for stacks that hold no line of the user. */
const bodyOf = ({ program }: Session, locator: Locator): string | undefined => {
  const line = locator.lineOf(program.body)
  return line?.isUser === true ? `in the body at ${line.text}` : undefined
}

export const lookAt = async (
  session: Session,
  locator: Locator,
  strike: Strike
): Promise<Look> => {
  const lines = new Map<number, string>()
  const { delays, fault, outcome, point } = strike
  const near = (global: number) =>
    Math.abs(global - outcome.hitGlobal) <= 4 * (shownBefore + shownAfter)
  let stack: ReadonlyArray<string> = []
  let at: string | undefined
  let target = 0
  const trace = makeTrace({
    onStep: (fiber, next, global) => {
      if (!near(global)) return
      const line = locator.linesOf(fiber, next).find(({ isUser }) => isUser)
      if (line !== undefined) lines.set(global, line.text)
    },
    onHit: (fiber, next, interrupted) => {
      // A parked target has no next instruction of its own; its stack tells.
      const all = locator.linesOf(interrupted, fiber === interrupted ? next : undefined)
      stack = all.map(({ text }) => text)
      at = all.find(({ isUser }) => isUser)?.text ?? bodyOf(session, locator)
    }
  })
  const seen: Outcome = await runPlan(session, {
    plan: { place: point.place, delays },
    fault,
    trace,
    locate: locator.here
  })
  target = trace.steps.find(({ own }) => own > 0)?.fiber ?? 0
  const rows = trace.steps.map((step, index): Row => ({
    global: index + 1,
    step,
    line: lines.get(index + 1) ?? ""
  }))
  return {
    at,
    stack,
    unreleased: seen.unreleased.length > 0 ? seen.unreleased : seen.pending,
    steps: table(rows, seen.hitGlobal, target)
  }
}
