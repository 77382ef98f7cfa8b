/**
 * session: one subject under exploration: how it runs, what its plain run is, what it has cost so far.
 *
 * DESIGN. The plain run is made twice with a trace and once without. All three must be the same run, or no finding would mean
 * anything. A body that does not end synchronously gets the event loop.
 */
import { performance } from "node:perf_hooks"
import { asynchronous, type Driver, synchronous, WaitingOnHandle } from "./driver.ts"
import {
  BrokenSetup,
  judge,
  never,
  type Outcome,
  type Program,
  type RunOptions,
  signatureOf
} from "./experiment.ts"
import { type Points, pointsOf } from "./points.ts"
import { watchScopes } from "./scopes.ts"
import { controlGlobals, makeTrace, type Plan, type Trace } from "./simulation.ts"

/** The bounds of an exploration. */
export interface Limits {
  readonly runs: number
  readonly millis: number
  readonly opLimit: number
  readonly seed: number
}

/** A subject whose plain run is known. */
export interface Session {
  readonly program: Program
  readonly driver: Driver
  readonly limits: Limits
  readonly plain: Outcome
  readonly trace: Trace
  readonly points: Points
  readonly startedAt: number
  // Counted by `runPlan`.
  runs: number
  readonly notes: Array<string>
}

/** Why nothing could be explored. */
export class Unexplorable extends Error {
  override readonly name = "Unexplorable"
}

// Written by `takeControl` alone.
let holders = 0
let undoControl: ReadonlyArray<() => void> = []

/** Controls what all runs share, while any exploration is open. Returns the function that gives it back, which works once. */
export const takeControl = (): () => void => {
  if (holders++ === 0) undoControl = [controlGlobals(), watchScopes()]
  let released = false
  return () => {
    if (released) return
    released = true
    if (--holders === 0) { for (const undo of undoControl) undo() }
  }
}

export const isSpent = ({ limits, runs, startedAt }: Session): boolean =>
  runs >= limits.runs || performance.now() - startedAt > limits.millis

export const secondsOf = ({ startedAt }: { readonly startedAt: number }): number =>
  (performance.now() - startedAt) / 1000

const noPlan: Plan = {}

export const runPlan = (
  session: Session,
  options: Partial<RunOptions>
): Outcome | Promise<Outcome> => {
  session.runs++
  const { opLimit, seed } = session.limits
  return session.driver.run(session.program, { plan: noPlan, opLimit, seed, ...options })
}

const plainRun = async (
  program: Program,
  driver: Driver,
  limits: Limits
): Promise<{ readonly outcome: Outcome; readonly trace: Trace }> => {
  const trace = makeTrace()
  const { opLimit, seed } = limits
  const outcome = await driver.run(program, { plan: noPlan, trace, opLimit, seed })
  return { outcome, trace }
}

/** The reason why a plain run cannot be explored. */
const troubleOf = (program: Program, { outcome }: { readonly outcome: Outcome }) => {
  const clean: Outcome = {
    ...outcome,
    first: "success",
    second: program.after === undefined ? outcome.first : "success",
    close: "success",
    invariant: undefined,
    unreleased: [],
    pending: [],
    doubles: [],
    disorders: 0,
    endless: undefined
  }
  const [found] = judge(outcome, clean)
  return found === undefined ? undefined : `${found.law}: ${found.message}`
}

const open = async (program: Program, driver: Driver, limits: Limits): Promise<Session> => {
  const startedAt = performance.now()
  const first = await plainRun(program, driver, limits)
  if (first.outcome.first === never) {
    throw new Unexplorable("the body never ends, even without an interrupt")
  }
  const trouble = troubleOf(program, first)
  if (trouble !== undefined) throw new Unexplorable(`without any interrupt: ${trouble}`)
  const again = await plainRun(program, driver, limits)
  const untraced = await driver.run(program, { plan: noPlan, ...limits })
  const same = (other: Outcome) =>
    other.hash === first.outcome.hash && signatureOf(other) === signatureOf(first.outcome)
  if (!same(again.outcome) || !same(untraced)) {
    const steps = first.trace.steps
    const at = steps.findIndex(({ hash }, index) => hash !== again.trace.steps[index]?.hash)
    throw new Unexplorable(
      `not deterministic: two plain runs differ${
        at < 0 ? "" : ` at op ${at + 1} (${steps[at]?.op})`
      }`
    )
  }
  const notes = first.outcome.escapes > 0
    ? [`${first.outcome.escapes} task(s) went to effect's own scheduler, out of control`]
    : []
  return {
    program,
    driver,
    limits,
    plain: untraced,
    trace: first.trace,
    points: pointsOf(first.trace),
    startedAt,
    runs: 3,
    notes
  }
}

/** Opens a session by the plain runs of a subject: synchronously if possible, otherwise with the event loop. */
export const openSession = async (
  program: Program,
  limits: Limits,
  driver?: Driver
): Promise<Session> => {
  try {
    return await open(program, driver ?? synchronous, limits)
  } catch (error) {
    if (driver !== undefined || !(error instanceof Unexplorable || error instanceof BrokenSetup)) {
      throw explain(error)
    }
  }
  try {
    return await open(program, asynchronous(), limits)
  } catch (error) {
    throw explain(error)
  }
}

const explain = (error: unknown): unknown =>
  error instanceof BrokenSetup || error instanceof WaitingOnHandle
    ? new Unexplorable(error.message)
    : error
