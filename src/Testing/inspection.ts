/**
 * inspection: a closer look at what was found: source lines, the steps before it, whether users can get there.
 *
 * DESIGN. The inspector, which knows the lines, is slow, so only this file asks it. One replay shows which slices run code of
 * the user; one per finding shows where the target stood and what it left behind.
 */
import { plainOf, programText } from "./certificate.ts"
import { judge, type RunOptions, type Unreleased } from "./experiment.ts"
import {
  countGrades,
  differenceTo,
  faultText,
  type Finding,
  gather,
  type Grade,
  type Graded,
  gradeOf,
  rangesOf,
  representative,
  type Strike,
  windowOf
} from "./findings.ts"
import { mistakeOf } from "./mistakes.ts"
import type { Point } from "./points.ts"
import { type AnyFiber, type Instruction, stackOf } from "./runtime.ts"
import { runPlan, type Session } from "./session.ts"
import { makeTrace, type Strategy, type Trace } from "./simulation.ts"
import { type Row, tableOf } from "./steps.ts"
import { planOf, type Swept, type Ungraded } from "./sweep.ts"
import { toToken } from "./token.ts"
import { getLocator, isShown, isUserCode, lineWithin, type Locator } from "./where.ts"

/** Whether code of the user ran in the slice of a step, before it. */
type UserCode = (trace: Trace, global: number) => boolean

type Executed = readonly [next: Instruction, returnsTo: Instruction | undefined]

/** The code that each step of a run executed, from one more run of it. */
const executedBy = async (
  session: Session,
  run: Pick<RunOptions, "plan" | "fault">
): Promise<ReadonlyArray<Executed>> => {
  const executed: Array<Executed> = []
  const trace = makeTrace({
    onStep: (fiber, next) => executed.push([next, stackOf(fiber).at(-1)])
  })
  await runPlan(session, { ...run, trace })
  return executed
}

/** Says for each step whether code of the user ran before it in its slice. */
const userCodeOf = async (
  session: Session,
  locator: Locator,
  strikes: ReadonlyArray<Ungraded>
): Promise<UserCode> => {
  const known = new Map<Trace, ReadonlyArray<Executed>>()
  if (strikes.some(({ first }) => first !== undefined)) {
    known.set(session.trace, await executedBy(session, { plan: {} }))
  }
  for (const { delays, fault, first, point, trace } of strikes) {
    if (known.has(trace)) continue
    // The trace of a second delay is that of the run with the first.
    const before = point.place.kind === "nowhere" ? delays.slice(0, -1) : []
    const plan = { delays: before, place: first?.place }
    known.set(trace, await executedBy(session, { plan, fault }))
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
  /** Another fiber that stood at the place, and its line. */
  readonly other: string | undefined
  readonly stack: ReadonlyArray<string>
  readonly unreleased: ReadonlyArray<Unreleased>
  readonly steps: string
}

/** How many operations around an interrupt are asked for their lines. */
const shownAround = 60

/** Where the body was written: for stacks that hold no line of the user. */
const bodyOf = ({ program }: Session, locator: Locator): string | undefined => {
  const line = lineWithin(locator, program.origin)
  return line === undefined ? undefined : `in the body at ${line.text}`
}

/** One more run of a strike, with lines. */
export const lookAt = async (
  session: Session,
  locator: Locator,
  strike: Pick<Strike, "delays" | "fault" | "first" | "outcome" | "point"> & {
    readonly strategy?: Strategy | undefined
  }
): Promise<Look & { readonly isAfter: boolean }> => {
  const lines = new Map<number, string>()
  const { delays, fault, outcome } = strike
  // Without an interrupt the table is about the last delay.
  const center = outcome.hit ? outcome.hitGlobal : delays.at(-1) ?? outcome.global
  const near = (global: number) => Math.abs(global - center) <= shownAround
  let stack: ReadonlyArray<string> = []
  let at: string | undefined
  let other: string | undefined
  let isHit = false
  // What the probe acquired after the interrupt had come.
  const late = new Set<string>()
  const show = (fiber: AnyFiber, next: Instruction | undefined): void => {
    const all = locator.linesOf(fiber, next)
    stack = all.map(({ text }) => text)
    at = all.find(isShown)?.text ?? bodyOf(session, locator)
  }
  const trace = makeTrace({
    onStep: (fiber, next, global) => {
      if (!near(global)) return
      const line = locator.userLineOf(fiber, next)
      if (line !== undefined) lines.set(global, line.text)
    },
    onDelay: show,
    // A parked target has no next instruction; its stack shows where it stands.
    onHit: (fiber, next, interrupted) => {
      isHit = true
      show(interrupted, fiber === interrupted ? next : undefined)
      if (fiber === interrupted) return
      const line = locator.userLineOf(fiber, next)?.text ?? "a line of a library"
      other = `another fiber is before ${next?._op ?? "an operation"} at ${line}`
    }
  })
  const seen = await runPlan(session, {
    plan: planOf(strike),
    fault,
    trace,
    locate: (acquired) => {
      if (isHit && acquired !== undefined) late.add(acquired)
      return locator.here()
    }
  })
  const target = trace.steps.find(({ own }) => own > 0)?.fiber ?? 0
  const rows = trace.steps.map((step, index): Row => ({
    global: index + 1,
    step,
    line: lines.get(index + 1) ?? ""
  }))
  const unreleased = seen.unreleased.length > 0 ? seen.unreleased : seen.pending
  return {
    at,
    other,
    stack,
    unreleased,
    steps: tableOf(rows, center, target, outcome.hit),
    isAfter: unreleased.length > 0 && unreleased.every(({ name }) => late.has(name.split(",")[0]!))
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

const grade = (strike: Ungraded, plain: Trace, userCode: UserCode): Graded => {
  const { first, point, trace } = strike
  const reach = ({ global, place }: Point, of: Trace): Grade =>
    gradeOf(place, of.steps[global - 1], () => userCode(of, global))
  const interrupts = point.place.kind === "nowhere"
    ? []
    : [reach(point, trace), ...(first === undefined ? [] : [reach(first, plain)])]
  // A strike is as far from production as the farthest thing that it needs.
  const delays = strike.delays.map((global): Grade =>
    gradeOf(
      { kind: "global", index: global },
      trace.steps[global - 1],
      () => userCode(trace, global)
    )
  )
  const all = [...interrupts, ...delays, ...(strike.chosen === undefined ? [] : ["R4" as const])]
  const farthest = all.reduce<Grade>((far, one) => one > far ? one : far, "R0")
  return { ...strike, grade: farthest, step: trace.steps[point.global - 1] }
}

const findingOf = async (
  session: Session,
  locator: Locator,
  group: ReadonlyArray<Graded>,
  swept: Swept
): Promise<Omit<Finding, "rate">> => {
  const chosen = representative(group)
  const { delays, fault, first, point, violations } = chosen
  const look = await lookAt(session, locator, chosen)
  const pass = await nearestPass(session, chosen, swept)
  const { seed } = session.limits
  const plain = plainOf(group, chosen, session.use)
  const mistake = mistakeOf(chosen, {
    isAfter: look.isAfter,
    isClose: session.use === "close",
    isHarmlessLater: isHarmlessLater(session, group)
  })
  return {
    window: windowOf(group) + faultText(fault) + delaysText(chosen),
    grade: chosen.grade,
    grades: countGrades(group),
    violations,
    mistake,
    ranges: rangesOf(group),
    at: look.at,
    other: look.other,
    stack: look.stack,
    unreleased: look.unreleased,
    steps: look.steps,
    nearestPass: pass,
    token: toToken({
      name: session.program.name,
      place: (first ?? point).place,
      again: first === undefined ? undefined : point.place,
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

/** Whether the target has later operations, and no wait, at which an interrupt breaks nothing of this sort. */
const isHarmlessLater = ({ points }: Session, group: ReadonlyArray<Strike>): boolean => {
  const places = group.map(({ point }) => point.place)
  const last = Math.max(0, ...places.filter(({ kind }) => kind === "op").map(({ index }) => index))
  return last < points.own.length
    && !places.some(({ kind }) => kind === "parked" || kind === "quiet" || kind === "between")
}

/** The nearest own operation before the strike that keeps the laws, and what was different there. */
const nearestPass = async (
  session: Session,
  { fault, first, outcome, point }: Strike,
  swept: Swept
): Promise<string | undefined> => {
  if (first !== undefined) {
    return differenceTo(first, await runPlan(session, { plan: { place: first.place } }), outcome)
  }
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
  let seen = 0
  for (let nth = 0; nth < repeats; nth++) {
    const run = { plan: planOf(strike), fault: strike.fault, isPatient: true }
    const again = await runPlan(session, run)
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
  const groups = gather(swept.strikes.map((strike) => grade(strike, session.trace, userCode)))
  const findings: Array<Finding> = []
  for (const group of groups) {
    const rate = await rateOf(session, representative(group))
    if (rate?.seen === 0) {
      session.notes.push(
        `a suspicion did not show again in ${rate.of} runs: ${windowOf(group)}`
      )
    } else findings.push({ ...await findingOf(session, locator, group, swept), rate })
  }
  return findings
}
