/**
 * inspection: a closer look at what was found: source lines, the steps before it, whether users can get there.
 *
 * DESIGN. The inspector, which knows the lines, is slow, so only this file asks it. One replay shows which slices run code of
 * the user; one per finding shows where the target stood and what it left behind.
 */
import { type Graded, plainOf, programText } from "./certificate.ts"
import { judge, type Unreleased } from "./experiment.ts"
import {
  countGrades,
  differenceTo,
  faultText,
  type Finding,
  gather,
  type Grade,
  gradeOf,
  representative,
  type Strike,
  windowOf
} from "./findings.ts"
import type * as Recording from "./recorder.ts"
import { type AnyFiber, type Instruction, stackOf } from "./runtime.ts"
import { runPlan, type Session } from "./session.ts"
import { makeTrace, type Step, type Strategy, type Trace } from "./simulation.ts"
import type { Swept, Ungraded } from "./sweep.ts"
import { toToken } from "./token.ts"
import { getLocator, isUserCode, type Locator } from "./where.ts"

/** Whether code of the user ran in the slice of a step, before it. */
type UserCode = (trace: Trace, global: number) => boolean

type Executed = readonly [next: Instruction, returnsTo: Instruction | undefined]

/** The code that each step of a run executed, from one more run of it. */
const executedBy = async (
  session: Session,
  fault: Recording.PlannedFault | undefined,
  delays: ReadonlyArray<number>
): Promise<ReadonlyArray<Executed>> => {
  const executed: Array<Executed> = []
  const trace = makeTrace({
    onStep: (fiber, next) => executed.push([next, stackOf(fiber).at(-1)])
  })
  await runPlan(session, { plan: { delays }, trace, fault })
  return executed
}

/** Says for each step whether code of the user ran before it in its slice. */
const userCodeOf = async (
  session: Session,
  locator: Locator,
  strikes: ReadonlyArray<Ungraded>
): Promise<UserCode> => {
  const known = new Map<Trace, ReadonlyArray<Executed>>()
  for (const { delays, fault, point, trace } of strikes) {
    if (known.has(trace)) continue
    // The trace of a second delay is that of the run with the first.
    const before = point.place.kind === "nowhere" ? delays.slice(0, -1) : []
    known.set(trace, await executedBy(session, fault, before))
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

/** The result of a closer look at one strike. */
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
const table = (
  rows: ReadonlyArray<Row>,
  hitGlobal: number,
  target: number,
  isInterrupted: boolean
): string => {
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
  const mark = isInterrupted ? ["       ── the target is interrupted here ──"] : []
  return [head, ...before.map(row), ...mark, ...after.map(row)].join("\n")
}

/** Where the body was written: for stacks that hold no line of the user. */
const bodyOf = ({ program }: Session, locator: Locator): string | undefined => {
  const line = locator.lineOf(program.origin)
  return line?.isUser === true ? `in the body at ${line.text}` : undefined
}

/** One more run of a strike, with lines. */
export const lookAt = async (
  session: Session,
  locator: Locator,
  strike: Pick<Strike, "delays" | "fault" | "outcome" | "point"> & {
    readonly strategy?: Strategy | undefined
  }
): Promise<Look> => {
  const lines = new Map<number, string>()
  const { delays, fault, outcome, point } = strike
  // Without an interrupt the table is about the last delay.
  const center = outcome.hit ? outcome.hitGlobal : delays.at(-1) ?? outcome.global
  const near = (global: number) => Math.abs(global - center) <= 4 * (shownBefore + shownAfter)
  let stack: ReadonlyArray<string> = []
  let at: string | undefined
  const show = (fiber: AnyFiber, next: Instruction | undefined): void => {
    const all = locator.linesOf(fiber, next)
    stack = all.map(({ text }) => text)
    at = all.find(({ isUser }) => isUser)?.text ?? bodyOf(session, locator)
  }
  const trace = makeTrace({
    onStep: (fiber, next, global) => {
      if (!near(global)) return
      const line = locator.userLineOf(fiber, next)
      if (line !== undefined) lines.set(global, line.text)
    },
    onDelay: show,
    // A parked target has no next instruction; its stack shows where it stands.
    onHit: (fiber, next, interrupted) => show(interrupted, fiber === interrupted ? next : undefined)
  })
  const seen = await runPlan(session, {
    plan: { place: point.place, delays, strategy: strike.strategy },
    fault,
    trace,
    locate: locator.here
  })
  const target = trace.steps.find(({ own }) => own > 0)?.fiber ?? 0
  const rows = trace.steps.map((step, index): Row => ({
    global: index + 1,
    step,
    line: lines.get(index + 1) ?? ""
  }))
  return {
    at,
    stack,
    unreleased: seen.unreleased.length > 0 ? seen.unreleased : seen.pending,
    steps: table(rows, center, target, outcome.hit)
  }
}

/** The hash that a replay must show: at the interrupt, or at the last delay, or over all. */
export const hashOf = (
  { chosen, delays, outcome, point }: Pick<Strike, "chosen" | "delays" | "outcome" | "point">
): number => {
  if (point.place.kind !== "nowhere") return outcome.hitHash
  return delays.length > 0 && chosen === undefined ? outcome.delayHash : outcome.hash
}

const delaysText = ({ chosen, delays }: Strike): string => {
  if (chosen !== undefined) {
    return `, ${chosen.kind === "walk" ? "random walk" : "PCT"} ${chosen.seed}`
  }
  return delays.length === 0 ? "" : `, delayed at op ${delays.join(" and ")}`
}

const grade = (strike: Ungraded, userCode: UserCode): Graded => {
  const { point, trace } = strike
  const reach = (global: number): Grade =>
    gradeOf(point.place, trace.steps[global - 1], () => userCode(trace, global))
  const interrupt = point.place.kind === "nowhere" ? "R0" : reach(point.global)
  // A strike is as far from production as the farthest thing that it needs.
  const delays = strike.delays.map((global): Grade =>
    gradeOf(
      { kind: "global", index: global },
      trace.steps[global - 1],
      () => userCode(trace, global)
    )
  )
  const all = [interrupt, ...delays, ...(strike.chosen === undefined ? [] : ["R4" as const])]
  const farthest = all.reduce((far, one) => one > far ? one : far)
  return { ...strike, grade: farthest, step: trace.steps[point.global - 1] }
}

const findingOf = async (
  session: Session,
  locator: Locator,
  group: ReadonlyArray<Graded>,
  swept: Swept
): Promise<Omit<Finding, "rate">> => {
  const chosen = representative(group)
  const { delays, fault, point, violations } = chosen
  const look = await lookAt(session, locator, chosen)
  const pass = await nearestPass(session, chosen, swept)
  const { seed } = session.limits
  const plain = plainOf(group, chosen, session.use)
  return {
    window: windowOf(group.map((strike) => strike.point.place)) + faultText(fault)
      + delaysText(chosen),
    grade: chosen.grade,
    grades: countGrades(group),
    violations,
    at: look.at,
    stack: look.stack,
    unreleased: look.unreleased,
    steps: look.steps,
    nearestPass: pass,
    token: toToken({
      name: session.program.name,
      place: point.place,
      use: session.use,
      delays,
      chosen: chosen.chosen,
      fault,
      seed,
      hash: hashOf(chosen)
    }),
    plain,
    program: plain === undefined ? undefined : programText(session.program.name, plain)
  }
}

/** The nearest own operation before the strike that keeps the laws, and what was different there. */
const nearestPass = async (
  session: Session,
  { fault, outcome, point }: Strike,
  swept: Swept
): Promise<string | undefined> => {
  if (point.place.kind !== "op") return undefined
  const struck = new Set(
    swept.strikes.filter((strike) => strike.point.place.kind === "op")
      .map((strike) => strike.point.place.index)
  )
  let index = point.place.index - 1
  while (index > 0 && struck.has(index)) index--
  if (index === 0) return undefined
  const pass = session.points.own[index - 1]
  if (pass === undefined) return undefined
  const passed = await runPlan(session, { plan: { place: pass.place }, fault })
  return differenceTo(pass, passed, outcome)
}

const repeats = 5

/** How often a finding shows again with real I/O, where each run is another one. */
const rateOf = async (session: Session, strike: Strike): Promise<Finding["rate"]> => {
  if (session.driver.mode === "synchronous") return undefined
  const { delays, fault, point } = strike
  let seen = 0
  for (let nth = 0; nth < repeats; nth++) {
    const plan = { place: point.place, delays }
    const again = await runPlan(session, { plan, fault, isPatient: true })
    if (judge(again, session.plain).length > 0) seen++
  }
  return { seen, of: repeats }
}

/** The findings of a sweep, each inspected. One that never shows again is none, and noted. */
export const findingsOf = async (
  session: Session,
  swept: Swept
): Promise<ReadonlyArray<Finding>> => {
  if (swept.strikes.length === 0) return []
  const locator = await getLocator()
  const userCode = await userCodeOf(session, locator, swept.strikes)
  const groups = gather(swept.strikes.map((strike) => grade(strike, userCode)))
  const findings: Array<Finding> = []
  for (const group of groups) {
    const rate = await rateOf(session, representative(group))
    if (rate?.seen === 0) {
      session.notes.push(
        `a suspicion did not show again in ${rate.of} runs: ${
          windowOf(group.map(({ point }) => point.place))
        }`
      )
    } else findings.push({ ...await findingOf(session, locator, group, swept), rate })
  }
  return findings
}
