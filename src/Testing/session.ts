/**
 * session: one subject under exploration: how it runs, what its plain run is, what it has cost so far.
 *
 * DESIGN. The plain run is made twice with a trace and once without. All three must be the same run, or no finding would mean
 * anything. A body that does not end synchronously gets the event loop. The plain run is made once more at the very end.
 *
 * INVARIANTS
 * - Explore-10 A plain run that fails, dies or leaves something open is inconclusive, unless the subject says that it is expected; a note shows it then.
 * - Explore-11 State that survives from run to run makes the verdict inconclusive; it is a defect of the subject's setup, no finding.
 */
import * as Predicate from "effect/Predicate"
import { performance } from "node:perf_hooks"
import { asynchronous, attempt, type Driver, synchronous } from "./driver.ts"
import {
  BrokenSetup,
  judge,
  longerThan,
  never,
  type Outcome,
  type Program,
  type RunOptions,
  signatureOf,
  type Use
} from "./experiment.ts"
import { type Points, pointsOf } from "./points.ts"
import { watchScopes } from "./scopes.ts"
import { controlGlobals, makeTrace, type Plan, type Trace } from "./simulation.ts"

/** The bounds of an exploration. */
export interface Limits {
  readonly runs: number
  /** When the exploration ends, by `performance.now`. */
  readonly endsAt: number
  readonly opLimit: number
  readonly seed: number
  /** Virtual milliseconds. */
  readonly horizon: number
}

/** A subject whose plain run is known. */
export interface Session {
  readonly program: Program
  readonly driver: Driver
  /** What is interrupted. */
  readonly use: Use
  readonly limits: Limits
  readonly plain: Outcome
  readonly trace: Trace
  readonly points: Points
  /** Whether plain runs are the same run, operation by operation. With real I/O they may only look alike. */
  readonly isExact: boolean
  readonly startedAt: number
  // Counted by `runPlan`.
  runs: number
  readonly notes: Array<string>
}

/** Why nothing could be explored. */
export class Unexplorable extends Error {
  override readonly name = "Unexplorable"
  /** The abandoned run, if the program waits for something native: then it is tried again beside the event loop. */
  readonly waits: Plain | undefined
  constructor(reason: string, waits?: Plain) {
    super(reason)
    this.waits = waits
  }
}

/** A plain run and its trace. */
interface Plain {
  readonly outcome: Outcome
  readonly trace: Trace
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

export const isSpent = ({ limits, runs }: Session): boolean =>
  runs >= limits.runs || performance.now() > limits.endsAt

export const secondsOf = ({ startedAt }: { readonly startedAt: number }): number =>
  (performance.now() - startedAt) / 1000

const noPlan: Plan = {}

/** What one run has of its own. */
type Given = Partial<
  Pick<RunOptions, "fault" | "isPatient" | "locate" | "pad" | "plan" | "trace">
>

// Field by field: two spreads take V8 a fiftieth of the time of a short run.
const settingsOf = (
  { limits, use }: Pick<Session, "limits" | "use">,
  { fault, isPatient = false, locate, pad, plan = noPlan, trace }: Given = {},
  isHasty = false
): RunOptions => ({
  plan,
  fault,
  trace,
  locate,
  pad,
  isPatient,
  isHasty,
  opLimit: limits.opLimit,
  seed: limits.seed,
  horizon: limits.horizon,
  use
})

export const runPlan = (session: Session, given: Given): Outcome | Promise<Outcome> => {
  session.runs++
  const { driver, plain, program } = session
  const { isPatient = false, trace } = given
  const isHasty = driver.mode === "synchronous" && !isPatient && trace === undefined
  const outcome = driver.run(program, settingsOf(session, given, isHasty))
  if (!Predicate.isPromise(outcome)) {
    // What a later heartbeat puts right breaks no law.
    const isSuspect = outcome.isCut && judge(outcome, plain).length > 0
    return isSuspect ? driver.run(program, settingsOf(session, given)) : outcome
  }
  if (isPatient) return outcome
  // A setup on a busy machine: it has worked before, so it is given more time.
  return outcome.catch((error: unknown) => {
    if (!(error instanceof BrokenSetup)) throw error
    return runPlan(session, { ...given, isPatient: true })
  })
}

type Opening = Pick<Session, "program" | "driver" | "limits" | "use">

const plainRun = async (opening: Opening): Promise<Plain> => {
  const trace = makeTrace()
  const settings = settingsOf(opening, { trace, isPatient: true })
  return { outcome: await opening.driver.run(opening.program, settings), trace }
}

/** The very first run: without the event loop, if the program lets it. */
const firstRun = async (opening: Opening): Promise<Plain> => {
  if (opening.driver.mode === "asynchronous") return plainRun(opening)
  const trace = makeTrace()
  const settings = settingsOf(opening, { trace, isPatient: true })
  const { outcome, waited } = await attempt(opening.program, settings)
  if (!waited) return { outcome, trace }
  throw new Unexplorable("it waits for something native", { outcome, trace })
}

/** The reason why a plain run cannot be explored. */
const troubleOf = ({ limits, program, use }: Opening, { outcome }: Plain): string | undefined => {
  const { fails, staysOpen } = program
  if (outcome.waiting !== undefined) return outcome.waiting
  if (outcome.overtime !== undefined) {
    return `${outcome.overtime} takes ${
      longerThan(limits.horizon)
    }; \`horizon\` sets how long is waited`
  }
  if (outcome.first === never) {
    return "the body does not end, even without an interrupt: nothing is left that could wake it"
  }
  if (outcome.first !== "success" && !fails) {
    return `without any interrupt: the body ends as ${outcome.first}; \`fails: true\` says that this is expected`
  }
  const clean: Outcome = {
    ...outcome,
    second: use === "close"
      ? outcome.second
      : program.after === undefined
      ? outcome.first
      : "success",
    close: "success",
    invariant: undefined,
    doubles: [],
    disorders: 0,
    endless: undefined,
    defects: fails ? outcome.defects : [],
    ...(staysOpen ? {} : { unreleased: [], pending: [], survivors: 0, leftOpen: [] })
  }
  const [found] = judge(outcome, clean)
  return found === undefined ? undefined : `without any interrupt: ${found.law}: ${found.message}`
}

const isSameRun = (one: Outcome, two: Outcome): boolean =>
  one.hash === two.hash && signatureOf(one) === signatureOf(two)

/** Whether two runs did the same operations, in any order. */
const didTheSame = (one: Plain, two: Plain): boolean => {
  const [first, second] = [one, two].map(({ trace }) => trace.steps.map(({ op }) => op).toSorted())
  return first!.length === second!.length && first!.every((op, index) => op === second![index])
}

export const sharedState = "your setup shares state: "
  + "what one run leaves behind changes the next; make it anew in `setup`"

/** Why plain runs differ: the first from all later ones, or each from each. */
const differenceOf = (first: Plain, again: Plain, untraced: Outcome): string => {
  if (isSameRun(again.outcome, untraced)) return sharedState
  const at = first.trace.steps.findIndex(({ hash }, index) =>
    hash !== again.trace.steps[index]?.hash
  )
  const where = at < 0 ? "" : ` at op ${at + 1} (${first.trace.steps[at]?.op})`
  return `not deterministic: two plain runs differ${where}`
}

/** What the subject declares, and what left our control: always shown. */
const notesOn = ({ program }: Opening, { outcome }: Plain): Array<string> => {
  const { defects, escapes, first, pending, survivors, unreleased } = outcome
  const open = unreleased.length + pending.length
  return [
    ...(first === "success" ? [] : [`the plain run ends as ${first}, as expected`]),
    ...(program.fails && defects.length > 0
      ? [`the plain run has defects: ${defects.join("; ")}`]
      : []),
    ...(open + survivors > 0
      ? [`as declared, ${open} resource(s) and finalizer(s) and ${survivors} fiber(s) stay open`]
      : []),
    ...(escapes > 0 ? [`${escapes} task(s) went to another scheduler, out of control`] : [])
  ]
}

const atMost = 5

/** Several plain runs more, and whether they are the same run. */
const compare = async (opening: Opening, first: Plain) => {
  const again = [await plainRun(opening)]
  const untraced = await opening.driver.run(opening.program, settingsOf(opening))
  const isSame = (one: Plain) => isSameRun(first.outcome, one.outcome)
  const isExact = again.every(isSame) && isSameRun(first.outcome, untraced)
  if (isExact) return { plain: untraced, shortest: first, isExact, count: 3 }
  if (opening.driver.mode === "synchronous") {
    throw new Unexplorable(differenceOf(first, again[0]!, untraced))
  }
  // Real I/O need not come in the same order; then the runs must look alike from outside.
  while (again.length < atMost) again.push(await plainRun(opening))
  const [second, ...others] = again
  const isOdd = !isSame(second!)
    && others.every(({ outcome }) => isSameRun(outcome, second!.outcome))
  // Another order alone may be chance. What shares state also does something else the second time.
  if (isOdd && !didTheSame(first, second!)) throw new Unexplorable(sharedState)
  if (again.some(({ outcome }) => signatureOf(outcome) !== signatureOf(first.outcome))) {
    throw new Unexplorable(`${differenceOf(first, second!, untraced)}, and end differently`)
  }
  const shortest = again.reduce((one, two) => two.outcome.own < one.outcome.own ? two : one, first)
  return { plain: shortest.outcome, shortest, isExact, count: again.length + 2 }
}

const open = async (opening: Opening): Promise<Session> => {
  const startedAt = performance.now()
  const first = await firstRun(opening)
  const trouble = troubleOf(opening, first)
  if (trouble !== undefined) throw new Unexplorable(trouble, first)
  const { count, isExact, plain, shortest } = await compare(opening, first)
  return {
    ...opening,
    // Only a traced run sees each way out of control.
    plain: { ...plain, escapes: first.outcome.escapes },
    trace: shortest.trace,
    points: pointsIn(shortest.trace, isExact),
    isExact,
    startedAt,
    runs: count,
    notes: [
      ...notesOn(opening, first),
      ...(isExact
        ? []
        : ["real I/O comes in another order each time: points are found by their number"])
    ]
  }
}

/** Other fibers' operations have no number that two runs with another order share. */
const pointsIn = (trace: Trace, isExact: boolean): Points => {
  const points = pointsOf(trace)
  return isExact ? points : { ...points, others: [] }
}

/** How many operations a run did before it first had to wait for something that was not there. */
const untilFirstWait = ({ trace }: Plain): number =>
  trace.parks.find(({ kind }) => kind === "quiet")?.global ?? 0

/** Whether a run that gave up as it waited is the beginning of another one. */
const isBeginning = (abandoned: Plain, whole: Trace): boolean => {
  const last = untilFirstWait(abandoned) - 1
  return last < 0 || abandoned.trace.steps[last]?.hash === whole.steps[last]?.hash
}

/** Opens a session by the plain runs of a subject: synchronously if possible, otherwise with the event loop. */
export const openSession = async (
  program: Program,
  limits: Limits,
  { driver, use = 1 }: { readonly driver?: Driver | undefined; readonly use?: Use | undefined } = {}
): Promise<Session> => {
  const opening = { program, limits, use }
  let abandoned: Plain | undefined
  try {
    return await open({ ...opening, driver: driver ?? synchronous })
  } catch (error) {
    if (driver !== undefined) throw explain(error)
    // What ends by itself needs no event loop. State that the first run left behind would only look like success.
    const waits = error instanceof BrokenSetup
      || (error instanceof Unexplorable && error.waits !== undefined)
    if (!waits) throw explain(error)
    if (error instanceof Unexplorable) abandoned = error.waits
  }
  try {
    const session = await open({ ...opening, driver: asynchronous })
    if (abandoned !== undefined && session.isExact && !isBeginning(abandoned, session.trace)) {
      throw new Unexplorable(sharedState)
    }
    return session
  } catch (error) {
    throw explain(error)
  }
}

/** The plain run once more, at the end: whether what the runs have left behind changes it. */
export const sharesState = async (session: Session): Promise<boolean> => {
  const again = await runPlan(session, { isPatient: true })
  if (session.driver.mode === "synchronous") return !isSameRun(again, session.plain)
  // Real I/O may come in another order, so only its end counts.
  return signatureOf(again) !== signatureOf(session.plain)
}

const explain = (error: unknown): unknown =>
  error instanceof BrokenSetup ? new Unexplorable(error.message) : error
