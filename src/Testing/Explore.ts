/**
 * Explore: interrupts a program at every point where production could, and says which laws that breaks.
 *
 * DESIGN. A program runs under a scheduler, a clock and random numbers of our own (`simulation.ts`), unmodified and
 * synchronously, thousands of times a second. The plain run is traced once; then each of its points is tried: interrupt
 * there, let all settle, use the subject a second time, close its owner, look at what is left (`experiment.ts`). What breaks a
 * law that the plain run keeps is gathered into windows with a grade of reach and a token (`findings.ts`, `token.ts`).
 *
 * INVARIANTS
 * - Explore-5 A verdict says what it covered; what could not be told is "inconclusive", never "safe".
 * - Explore-6 A replay runs the very same operations up to its place, or fails as stale.
 *
 * COST see the verdict: `runs` and `seconds`; 5,000 to 20,000 runs a second.
 * NOT DONE partial-order reduction, second interrupts, Bun and browsers.
 * SOURCES Monarch's `cancel_safe`, Lincheck, IOSimPOR, shuttle, SQLite's fault loops; research measured on effect 3.22.4.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { asynchronous, WaitingOnHandle } from "./driver.ts"
import { judge, never, type Program } from "./experiment.ts"
import {
  countGrades,
  differenceTo,
  faultText,
  type Finding,
  gather,
  type Grade,
  representative,
  type Strike,
  windowOf
} from "./findings.ts"
import { lookAt, userCodeOf } from "./inspection.ts"
import type * as Probe from "./Probe.ts"
import { selfCheck } from "./runtime.ts"
import {
  isSpent,
  type Limits,
  openSession,
  runPlan,
  secondsOf,
  type Session,
  takeControl,
  Unexplorable
} from "./session.ts"
import {
  grade,
  makeSwept,
  sweepDelayed,
  sweepFaults,
  sweepPlain,
  type Swept,
  type Ungraded
} from "./sweep.ts"
import { allFaults, toToken } from "./token.ts"
import { type Locator, makeLocator } from "./where.ts"

/**
 * What is explored. The body is run many times, each time in a scope of its own; the setup is run once per run, in the owner's
 * scope, and is not interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subject<S = void> {
  readonly name: string
  readonly setup?:
    | Effect.Effect<S, unknown, Scope.Scope>
    | ((probe: Probe.Probe) => Effect.Effect<S, unknown, Scope.Scope>)
    | undefined
  readonly body: (state: S, probe: Probe.Probe) => Effect.Effect<unknown, unknown, Scope.Scope>
  /** What must still work after an interrupt. Default: the body again, ending as it did the first time. */
  readonly after?: ((state: S) => Effect.Effect<unknown, unknown, Scope.Scope>) | undefined
  /** Looked at when all has settled; broken if it is `false`, a text, or throws. */
  readonly invariant?: ((state: S) => boolean | string | void) | undefined
  readonly faults?: Faults | undefined
}

/**
 * Which faults strike what the probe acquires and releases.
 *
 * @category models
 * @since 0.1.0
 */
export type Faults = "acquire" | "release" | "all" | ReadonlyArray<Probe.Fault>

/**
 * How to explore.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Default "full": every point. "quick": one of each class, and none of other fibers. */
  readonly mode?: "quick" | "full" | undefined
  /** The grades that fail the verdict. Default R0, R1 and R2. */
  readonly fail?: ReadonlyArray<Grade> | undefined
  readonly faults?: Faults | undefined
  /** How many forced delays of other fibers go with each interrupt. Default 0. */
  readonly interleave?: 0 | 1 | 2 | undefined
  /** Default 50,000 runs and 20 seconds. What was left out is in the verdict. */
  readonly budget?:
    | { readonly runs?: number | undefined; readonly millis?: number | undefined }
    | undefined
  readonly seed?: number | undefined
  /** A run with more operations is said to spin. Default one million. */
  readonly opLimit?: number | undefined
}

/**
 * What an exploration came to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Verdict {
  readonly name: string
  readonly status: "safe" | "violations" | "inconclusive"
  /** No finding has a grade that fails, and nothing is inconclusive. */
  readonly passed: boolean
  readonly points: { readonly own: number; readonly waits: number; readonly others: number }
  readonly classes: number
  readonly runs: number
  readonly seconds: number
  readonly mode: "synchronous" | "asynchronous"
  readonly findings: ReadonlyArray<Finding>
  /** Exactly what was tried, in words. */
  readonly covered: string
  readonly notes: ReadonlyArray<string>
  /** A number for the whole exploration: the same program gives the same number. */
  readonly hash: number
}

export type { Finding, Grade }

const failing: ReadonlyArray<Grade> = ["R0", "R1", "R2"]

const limitsOf = ({ budget, opLimit, seed }: Options): Limits => ({
  runs: budget?.runs ?? 50_000,
  millis: budget?.millis ?? 20_000,
  opLimit: opLimit ?? 1_000_000,
  seed: seed ?? 1
})

const faultsOf = (faults: Faults | undefined): ReadonlyArray<Probe.Fault> => {
  if (faults === undefined) return []
  if (typeof faults !== "string") return faults
  return allFaults.filter((fault) =>
    faults === "all" || (fault.startsWith(faults) && !fault.endsWith("never returns"))
  )
}

const isSubject = <S>(subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>) =>
  !Effect.isEffect(subject)

/** A subject, or an effect as its own body. */
const toProgram = <S>(
  given: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>
): Program & { readonly faults?: Faults | undefined } => {
  if (!isSubject(given)) {
    const effect = given as Effect.Effect<unknown, unknown, Scope.Scope>
    return { name: "effect", setup: () => Effect.void, body: () => effect }
  }
  const subject = given as Subject<S>
  const setup = subject.setup
  return {
    name: subject.name,
    setup: (probe) =>
      setup === undefined ? Effect.void : Effect.isEffect(setup) ? setup : setup(probe),
    body: subject.body,
    after: subject.after,
    invariant: subject.invariant,
    faults: subject.faults
  }
}

const findingOf = async (
  session: Session,
  locator: Locator,
  group: ReadonlyArray<Strike>,
  swept: Swept
): Promise<Finding> => {
  const chosen = representative(group)
  const { delays, fault, outcome, point, violations } = chosen
  const look = await lookAt(session, locator, chosen)
  const pass = await nearestPass(session, chosen, swept)
  const hash = point.place.kind === "nowhere" ? outcome.hash : outcome.hitHash
  const { seed } = session.limits
  return {
    window: windowOf(group.map((strike) => strike.point.place)) + faultText(fault)
      + (delays.length > 0 ? `, with other fibers delayed` : ""),
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
      delays,
      chosen: undefined,
      fault,
      seed,
      hash
    }),
    program: undefined
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

/** A hang that goes away beside the event loop was no hang: the program waits on something native after its interrupt. */
const isRealHang = async (session: Session, strike: Ungraded): Promise<boolean> => {
  const { close, first, second } = strike.outcome
  if (session.driver.mode === "asynchronous" || ![first, second, close].includes(never)) return true
  const { delays, fault, point } = strike
  const { opLimit, seed } = session.limits
  const again = await asynchronous().run(session.program, {
    plan: { place: point.place, delays },
    fault,
    opLimit,
    seed
  })
  return judge(again, session.plain).length > 0
}

const sweepAll = async (session: Session, options: Options, faults: Faults | undefined) => {
  const swept = makeSwept()
  const mode = options.mode ?? "full"
  await sweepPlain(session, swept, mode)
  await sweepFaults(session, swept, faultsOf(options.faults ?? faults), mode)
  const depth = options.interleave ?? 0
  if (depth !== 0) await sweepDelayed(session, swept, depth)
  return swept
}

const findingsOf = async (session: Session, swept: Swept): Promise<ReadonlyArray<Finding>> => {
  if (swept.strikes.length === 0) return []
  const locator = await makeLocator()
  try {
    const userCode = await userCodeOf(session, locator, swept.strikes)
    const groups = gather(swept.strikes.map((strike) => grade(strike, userCode)))
    const findings: Array<Finding> = []
    for (const group of groups) findings.push(await findingOf(session, locator, group, swept))
    return findings
  } finally {
    locator.close()
  }
}

const coveredBy = (session: Session, swept: Swept, options: Options): string => {
  const { points } = session
  const left = swept.planned - swept.tried
  return [
    left > 0
      ? `${swept.tried} of ${swept.planned} points (budget spent)`
      : options.mode === "quick"
      ? `one point of each of ${points.classes} classes and ${points.waits.length} waits`
      : "every point",
    options.interleave === undefined || options.interleave === 0
      ? "FIFO order"
      : `FIFO order with up to ${options.interleave} delay(s)`,
    "this input"
  ].join(", ")
}

const verdictOf = async (
  session: Session,
  swept: Swept,
  options: Options
): Promise<Verdict> => {
  const findings = await findingsOf(session, swept)
  const { points } = session
  const notes = [...session.notes]
  if (swept.unstable > 0) {
    notes.push(`${swept.unstable} point(s) were not reached again: the program is not deterministic`)
  }
  const isWhole = swept.unstable === 0 && session.plain.escapes === 0
    && !(isSpent(session) && swept.tried < swept.planned)
  const fail = options.fail ?? failing
  const status = findings.length > 0 ? "violations" : isWhole ? "safe" : "inconclusive"
  return {
    name: session.program.name,
    status,
    passed: status !== "inconclusive" && !findings.some((finding) => fail.includes(finding.grade)),
    points: {
      own: points.own.length,
      waits: points.waits.length,
      others: points.others.length
    },
    classes: points.classes,
    runs: session.runs,
    seconds: secondsOf(session),
    mode: session.driver.mode,
    findings,
    covered: coveredBy(session, swept, options),
    notes,
    hash: swept.strikes.reduce(
      (hash, { outcome }) => Math.imul(hash ^ outcome.hash, 16_777_619),
      session.plain.hash
    )
  }
}

const inconclusive = (name: string, reason: string): Verdict => ({
  name,
  status: "inconclusive",
  passed: false,
  points: { own: 0, waits: 0, others: 0 },
  classes: 0,
  runs: 0,
  seconds: 0,
  mode: "synchronous",
  findings: [],
  covered: "nothing",
  notes: [reason],
  hash: 0
})

const explore = async (program: ReturnType<typeof toProgram>, options: Options) => {
  const limits = limitsOf(options)
  let session = await openSession(program, limits)
  let swept = await sweepAll(session, options, program.faults)
  const hang = swept.strikes.find(({ outcome }) =>
    [outcome.first, outcome.second, outcome.close].includes(never)
  )
  if (hang !== undefined && !(await isRealHang(session, hang))) {
    session = await openSession(program, limits, asynchronous())
    swept = await sweepAll(session, options, program.faults)
  }
  return verdictOf(session, swept, options)
}

/**
 * Interrupts a subject at every point, one run for each, and judges each run.
 *
 * @category operations
 * @since 0.1.0
 */
export const interruptions = async <S = void>(
  subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>,
  options: Options = {}
): Promise<Verdict> => {
  selfCheck()
  const program = toProgram(subject)
  const release = takeControl()
  try {
    return await explore(program, options)
  } catch (error) {
    if (error instanceof Unexplorable || error instanceof WaitingOnHandle) {
      return inconclusive(program.name, error.message)
    }
    throw error
  } finally {
    release()
  }
}
