/**
 * Explore: interrupts a program at every point where production could, and says which laws that breaks.
 *
 * DESIGN. A program runs under a scheduler, a clock and random numbers of our own (`simulation.ts`), unmodified and
 * synchronously, thousands of times a second. The plain run is traced once; then each of its points is tried: interrupt
 * there, let all settle, use the subject a second time, close its owner, check what is left (`experiment.ts`). Violations of laws
 * that the plain run obeys are gathered into windows with a grade of reach and a token (`findings.ts`, `token.ts`).
 *
 * INVARIANTS
 * - Explore-5 A verdict says what it covered; a program that could not be judged is "inconclusive", never "safe".
 * - Explore-12 An exploration always ends with a verdict, which names the use it is about and every sampling with its counts.
 * - Explore-6 A replay runs the same operations up to its point, or fails as stale.
 *
 * COST see the verdict: `runs` and `seconds`; 5,000 to 20,000 runs a second.
 * NOT DONE Bun and browsers.
 * SOURCES Monarch's `cancel_safe`, Lincheck, IOSimPOR, shuttle, SQLite's fault loops; research measured on effect 3.22.4.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { performance } from "node:perf_hooks"
import { type Certificate, certifyPlainly } from "./certificate.ts"
import { coveredBy, ordersIn } from "./coverage.ts"
import { asynchronous } from "./driver.ts"
import { judge, type Program, type Use, type Violation } from "./experiment.ts"
import { type Finding, type Grade, grades } from "./findings.ts"
import { findingsOf, hashOf, type Look, lookAt } from "./inspection.ts"
import { strategyOf } from "./interleavings.ts"
import { htmlOf, svgOf } from "./picture.ts"
import { pointAt } from "./points.ts"
import type * as Probe from "./Probe.ts"
import { formatVerdict, type Verdict } from "./report.ts"
import { selfCheck } from "./runtime.ts"
import { type Check, judgeSchedule, sweepDelays, sweepRandom } from "./schedules.ts"
import {
  isSpent,
  type Limits,
  openSession,
  runPlan,
  secondsOf,
  type Session,
  sharedState,
  sharesState,
  takeControl,
  Unexplorable
} from "./session.ts"
import {
  makeSwept,
  planOf,
  sample,
  sweepDelayed,
  sweepFaults,
  sweepPairs,
  sweepPlain,
  type Swept,
  unjudgedOf
} from "./sweep.ts"
import { allFaults, fromToken, isHash, nameHash, type Parsed, StaleToken } from "./token.ts"
import { getLocator } from "./where.ts"

/**
 * The subject of an exploration. The body is run many times, each time in a scope of its own; the setup is run once per run, in the owner's
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
  /** Must still work after an interrupt. Default: the body again, which must end as it did the first time. */
  readonly after?: ((state: S) => Effect.Effect<unknown, unknown, Scope.Scope>) | undefined
  /** Called when all has settled; broken if it returns `false` or a text, or throws. */
  readonly invariant?: ((state: S) => boolean | string | void) | undefined
  readonly faults?: Faults | undefined
  /** True if the body ends as a failure or a defect by contract. Default: a plain run that fails is inconclusive. */
  readonly fails?: boolean | undefined
  /** True if resources, scopes or fibers stay open behind the owner's close by design. Then only more of them is a leak. */
  readonly staysOpen?: boolean | undefined
  /** Defects by which the subject reports something on purpose. Any other that the plain run lacks breaks a law. */
  readonly mayDie?: ((defect: unknown) => boolean) | undefined
  /** @internal The function whose line stands for the body's. */
  readonly origin?: unknown
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
  /** Default 50,000 runs and 20 seconds. The verdict says what was left out. */
  readonly budget?:
    | { readonly runs?: number | undefined; readonly millis?: number | undefined }
    | undefined
  readonly seed?: number | undefined
  /** A run with more operations counts as one that spins. Default one million. */
  readonly opLimit?: number | undefined
  /** How much virtual time the setup, each use and the close may take. Default 10 minutes. */
  readonly horizon?: Duration.DurationInput | undefined
  /** How many points of other fibers are tried at most: evenly spread ones, if there are more. Default 5,000. */
  readonly others?: number | undefined
  /**
   * What is interrupted, each in runs of its own: `[1, 2]` the first use and the second of two; "close" the fiber that closes the owner
   * after the first use, and waits for its releases. Default the first use.
   */
  readonly uses?: ReadonlyArray<Use> | undefined
  /**
   * Default 1. 2: a second interrupt at each class of points behind each class of first ones, while the target cleans up. The pairs
   * whose second interrupt reaches a fiber that the first did not come first; of the others, which should change nothing, a tenth
   * as many are tried. The verdict says how many there are.
   */
  readonly interrupts?: 1 | 2 | undefined
  /** How many pairs of two interrupts are tried at most: evenly spread ones, if there are more. Default 2,000. */
  readonly pairs?: number | undefined
}

export type { Certificate, Check, Finding, Grade, Use, Verdict, Violation }

const failing: ReadonlyArray<Grade> = ["R0", "R1", "R2"]

const limitsOf = ({ budget, horizon, opLimit, seed }: Options): Limits => ({
  runs: budget?.runs ?? 50_000,
  endsAt: performance.now() + (budget?.millis ?? 20_000),
  opLimit: opLimit ?? 1_000_000,
  seed: seed ?? 1,
  horizon: Duration.toMillis(horizon ?? "10 minutes")
})

const faultsOf = (faults: Faults | undefined): ReadonlyArray<Probe.Fault> => {
  if (faults === undefined) return []
  if (typeof faults !== "string") return faults
  return allFaults.filter((fault) =>
    faults === "all" || (fault.startsWith(faults) && !fault.endsWith("never returns"))
  )
}

/** A subject, or an effect as its own body. */
const programOf = <S>(
  given: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>
): Program & { readonly faults?: Faults | undefined } => {
  if (Effect.isEffect(given)) {
    const effect = given as Effect.Effect<unknown, unknown, Scope.Scope>
    return {
      name: "effect",
      setup: () => Effect.void,
      body: () => effect,
      origin: effect,
      fails: false,
      staysOpen: false,
      mayDie: () => false
    }
  }
  const { after, body, faults, invariant, name, origin = body, setup } = given as Subject<S>
  const { fails = false, mayDie = () => false, staysOpen = false } = given as Subject<S>
  return {
    name,
    fails,
    staysOpen,
    mayDie,
    setup: (probe) =>
      setup === undefined ? Effect.void : Effect.isEffect(setup) ? setup : setup(probe),
    body,
    after,
    invariant,
    origin,
    faults
  }
}

const askedOf = ({ interleave, interrupts, mode, others }: Options) => ({
  mode: mode ?? "full",
  interleave: interleave ?? 0,
  interrupts: interrupts ?? 1,
  others: others ?? 5_000
})

const mostRechecked = 200

/**
 * Whether a strike is none when the event loop runs: after its interrupt the program waited for something native. Each kind of
 * strike is tried: a promise may delay a release, a close, or the end of a fiber.
 */
const isOnlySynchronous = async (session: Session, { strikes }: Swept): Promise<boolean> => {
  if (session.driver.mode === "asynchronous") return false
  const beside = { ...session, driver: asynchronous }
  for (const strike of sample(strikes, mostRechecked)) {
    const again = await runPlan(beside, { plan: planOf(strike), fault: strike.fault })
    if (judge(again, session.plain).length === 0) return true
  }
  return false
}

const sweepAll = async (session: Session, options: Options, faults: Faults | undefined) => {
  const swept = makeSwept()
  const { interleave, interrupts, mode, others } = askedOf(options)
  await sweepPlain(session, swept, mode, others)
  if (interrupts === 2) await sweepPairs(session, swept, options.pairs ?? 2_000)
  await sweepFaults(session, swept, faultsOf(options.faults ?? faults), mode)
  if (interleave !== 0) await sweepDelayed(session, swept, interleave)
  return swept
}

/** What keeps a verdict from being clean, each in words. */
const doubtsOf = async (session: Session, swept: Swept): Promise<ReadonlyArray<string>> => [
  ...(swept.unstable > 0
    ? [`${swept.unstable} point(s) were not reached again: the program is not deterministic`]
    : []),
  ...Array.from(swept.unjudged, ([reason, times]) => `at ${times} point(s): ${reason}`),
  ...(await sharesState(session) ? [sharedState] : [])
]

const verdictOf = async (
  session: Session,
  swept: Swept,
  options: Pick<Options, "fail">,
  covered: string
): Promise<Verdict> => {
  const doubts = await doubtsOf(session, swept)
  // A state that survives breaks laws in runs that are right.
  const findings = doubts.includes(sharedState) ? [] : await findingsOf(session, swept)
  const { points } = session
  const isWhole = doubts.length === 0 && session.plain.escapes === 0
    && !(isSpent(session) && swept.tried < swept.planned)
  const fail = options.fail ?? failing
  const status = findings.length > 0 ? "violations" : isWhole ? "safe" : "inconclusive"
  return {
    name: session.program.name,
    status,
    passed: isWhole && !findings.some((finding) => fail.includes(finding.grade)),
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
    covered,
    notes: [...session.notes, ...doubts],
    watched: session.plain.watched,
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
  watched: 0,
  hash: 0
})

const exploreUse = async (
  program: ReturnType<typeof programOf>,
  options: Options,
  use: Use
): Promise<Verdict> => {
  const limits = limitsOf(options)
  let session = await openSession(program, limits, { use })
  let swept = await sweepAll(session, options, program.faults)
  if (await isOnlySynchronous(session, swept)) {
    session = await openSession(program, limits, { driver: asynchronous, use })
    swept = await sweepAll(session, options, program.faults)
  }
  return verdictOf(session, swept, options, coveredBy(session, swept, askedOf(options)))
}

const worst: ReadonlyArray<Verdict["status"]> = ["violations", "inconclusive", "safe"]

/** The verdicts on several uses as one. */
const together = (one: Verdict, two: Verdict): Verdict => ({
  name: one.name,
  status: worst.find((status) => [one.status, two.status].includes(status)) ?? "safe",
  passed: one.passed && two.passed,
  points: {
    own: one.points.own + two.points.own,
    waits: one.points.waits + two.points.waits,
    others: one.points.others + two.points.others
  },
  classes: one.classes + two.classes,
  runs: one.runs + two.runs,
  seconds: one.seconds + two.seconds,
  mode: two.mode === "asynchronous" ? two.mode : one.mode,
  findings: [...one.findings, ...two.findings],
  covered: `${one.covered}; ${two.covered}`,
  notes: [...new Set([...one.notes, ...two.notes])],
  watched: Math.max(one.watched, two.watched),
  hash: Math.imul(one.hash ^ two.hash, 16_777_619)
})

const explore = async (program: ReturnType<typeof programOf>, options: Options) => {
  const uses = options.uses?.length ? options.uses : [1]
  const { endsAt } = limitsOf(options)
  const verdicts: Array<Verdict> = []
  for (const [index, use] of uses.entries()) {
    // The time is for all uses together; each has its part of what is left.
    const millis = (endsAt - performance.now()) / (uses.length - index)
    const part = { ...options, budget: { ...options.budget, millis } }
    verdicts.push(await controlled(program.name, () => exploreUse(program, part, use)))
  }
  return verdicts.reduce(together)
}

/** Runs `use` with everything under control. A program that cannot be judged gives an inconclusive verdict, always. */
const controlled = async (name: string, use: () => Promise<Verdict>): Promise<Verdict> => {
  selfCheck()
  const release = takeControl()
  try {
    return await use()
  } catch (error) {
    const isKnown = error instanceof Unexplorable
    return inconclusive(name, isKnown ? error.message : Cause.pretty(Cause.die(error)))
  } finally {
    release()
  }
}

/**
 * Interrupts a subject at every point where production could, one run for each, and judges each run: the interrupted fiber
 * exits, a second use ends as the first did, the owner closes, every scope and every probe has released everything once and in
 * order, no fiber is left. Needs nothing from the subject: it may be any Effect 3 program.
 *
 * **Details** — Runs synchronously in virtual time; a program that waits on native promises or handles gets the event loop. The
 *   body must be repeatable. Time is the `Clock`'s, `Date.now` and `Math.random` are controlled during a run; `new Date` is not.
 * **Interruption** — It is a promise; it cannot be interrupted, but `budget` bounds it.
 * **Errors** — rejects with `UnknownRuntime` on an effect that is not 3.22's kind. A subject that hangs or fails its own laws
 *   without any interrupt, or that is not deterministic, is `"inconclusive"` and says why. So is a body that fails
 *   without any interrupt, unless the subject says `fails: true`, and state that survives from run to run.
 * **Cost** — about 0.1 to 0.2 ms per point.
 *
 * **Example** (a permit that is lost)
 * ```ts run
 * import { Effect } from "effect"
 * import { Explore } from "holdfast/Testing"
 *
 * let free = 1
 * const careless = Effect.gen(function*() {
 *   yield* Effect.suspend(() => free > 0 ? Effect.void : Effect.never)
 *   free--
 *   yield* Effect.yieldNow()
 *   free++
 * })
 * const subject = { name: "careless", setup: Effect.sync(() => { free = 1 }), body: () => careless }
 * const verdict = await Explore.interruptions(subject)
 * verdict.status // => "violations"
 * verdict.findings[0]?.grade // => "R0"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const interruptions = <S = void>(
  subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>,
  options: Options = {}
): Promise<Verdict> => {
  const program = programOf(subject)
  return explore(program, options)
}

/**
 * Which schedules to try, beside the plain one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Schedules
  extends Pick<Options, "fail" | "budget" | "seed" | "opLimit" | "horizon">
{
  /** Every set of up to this many forced yields. Default 2. */
  readonly delays?: 0 | 1 | 2 | undefined
  /** Random walks over the ready fibers. Default 200. */
  readonly random?: number | undefined
  /** Random priorities. Default 200 runs of depth 3. */
  readonly pct?:
    | { readonly runs?: number | undefined; readonly depth?: number | undefined }
    | undefined
  /**
   * Default true: of the sets of forced yields, one of each order of the operations that may touch what fibers share. False: all of
   * them, about ten times as many.
   */
  readonly reduced?: boolean | undefined
  /** Whether an exit is right. Default: it ends (success, failure with the same first line) as the plain run does. */
  readonly check?: Check | undefined
}

/**
 * Runs a subject in many orders, without interrupting it: plain, with one and with two forced yields, then at random. Every order
 * must end as the plain one does, or as `check` says, and keep all laws.
 *
 * **Details** — Two schedules that differ only in operations that no other fiber can see count as one; `reduced: false` tries both.
 * **Interruption**, **Errors** — as `interruptions`. **Cost** — N² short runs for two delays, N being the operations that another
 *   fiber may see; the budget bounds it.
 *
 * **Example** (a lost update)
 * ```ts run
 * import { Effect, Exit, Fiber, Ref } from "effect"
 * import { Explore } from "holdfast/Testing"
 *
 * const increment = (ref: Ref.Ref<number>) => Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1))
 * const twice = Effect.gen(function*() {
 *   const ref = yield* Ref.make(0)
 *   const one = yield* Effect.fork(increment(ref))
 *   const two = yield* Effect.fork(increment(ref))
 *   yield* Fiber.join(one)
 *   yield* Fiber.join(two)
 *   return yield* Ref.get(ref)
 * })
 * const verdict = await Explore.interleavings(twice, {
 *   check: (exit) => Exit.isSuccess(exit) && exit.value === 2
 * })
 * verdict.status // => "violations"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const interleavings = <S = void>(
  subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>,
  options: Schedules = {}
): Promise<Verdict> => {
  // A check judges every exit, the plain one as well.
  const given = programOf(subject)
  const program = { ...given, fails: given.fails || options.check !== undefined }
  return controlled(program.name, async () => {
    const session = await openSession(program, limitsOf(options))
    const swept = makeSwept()
    const delays = options.delays ?? 2
    const walks = options.random ?? 200
    const { depth = 3, runs = 200 } = options.pct ?? {}
    const isReduced = options.reduced ?? true
    await sweepDelays(session, swept, delays, { check: options.check, isReduced })
    if (swept.strikes.length === 0) {
      await sweepRandom(session, swept, { walks, pct: runs, depth }, options.check)
    }
    const covered = ordersIn(session, swept, { delays, isReduced, walks, pct: runs, depth })
    // An order of operations has no grade of reach, so every grade fails.
    return verdictOf(session, swept, { fail: options.fail ?? grades }, covered)
  })
}

/**
 * The result of one replayed run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Replay extends Look {
  readonly violations: ReadonlyArray<Violation>
}

/** The content of a token, which must be one of a subject of this name. */
const parsedFor = (token: string, name: string): Parsed => {
  const parsed = fromToken(token)
  if (parsed.nameHash === nameHash(name)) return parsed
  throw new StaleToken({ token, reason: `it is of another subject than "${name}"` })
}

/** The one run that a token names, after checking that it still is that run. */
const rerun = async (token: string, parsed: Parsed, session: Session) => {
  const { again, chosen, delays, fault, place } = parsed
  const strategy = chosen === undefined ? undefined : strategyOf(chosen)
  const plan = { place, again, delays, strategy }
  const outcome = await runPlan(session, { plan, fault, isPatient: true })
  const unjudged = unjudgedOf(session, outcome)
  if (unjudged !== undefined) throw new Unexplorable(unjudged)
  const point = pointAt(again ?? place, outcome)
  const first = again === undefined ? undefined : pointAt(place, outcome)
  if (place.kind !== "nowhere" && !outcome.hit) {
    throw new StaleToken({ token, reason: "its place is not reached any more" })
  }
  // A random schedule asks its strategy anew; the rest of the hash is the schedule itself.
  const isSame = isHash(hashOf({ chosen, delays, outcome, point }), parsed.hashText)
  if (session.isExact && !isSame) {
    throw new StaleToken({ token, reason: "the code before its place has changed" })
  }
  return { chosen, delays, fault, first, outcome, point }
}

/**
 * Runs the one run of a token again, with source lines.
 *
 * **Errors** — rejects with `StaleToken` when the program does other operations before the token's place than when it was
 *   made; the replay then tested nothing. **Cost** — five runs and the inspector, about 50 ms.
 *
 * **Example** (again, and after a change)
 * ```ts run
 * import { Effect } from "effect"
 * import { Explore } from "holdfast/Testing"
 *
 * const pair = Effect.forEach([1, 2], () => Effect.yieldNow(), { concurrency: 2 })
 * const verdict = await Explore.interruptions({ name: "pair", body: () => pair })
 * const token = verdict.findings[0]?.token ?? ""
 * const again = await Explore.replay(token, { name: "pair", body: () => pair })
 * const law = again.violations[0]?.law
 * law // => "the target exits"
 * const changed = { name: "pair", body: () => Effect.zipRight(Effect.yieldNow(), pair) }
 * const stale = await Explore.replay(token, changed).catch((error: Error) => error.name)
 * stale // => "StaleToken"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const replay = async <S = void>(
  token: string,
  subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>,
  options: Pick<Schedules, "check" | "horizon" | "opLimit"> = {}
): Promise<Replay> => {
  selfCheck()
  const given = programOf(subject)
  const program = { ...given, fails: given.fails || options.check !== undefined }
  const parsed = parsedFor(token, program.name)
  const release = takeControl()
  const locator = await getLocator()
  try {
    const limits = limitsOf({ ...options, seed: parsed.seed })
    const session = await openSession(program, limits, { use: parsed.use })
    const { chosen, fault, outcome, point, ...rest } = await rerun(token, parsed, session)
    const strategy = chosen === undefined ? undefined : strategyOf(chosen)
    const look = await lookAt(session, locator, { ...rest, fault, outcome, point, strategy })
    const violations = point.place.kind === "nowhere" && fault === undefined
      ? judgeSchedule(outcome, session.plain, options.check)
      : judge(outcome, session.plain)
    return { violations, ...look }
  } finally {
    release()
  }
}

/**
 * Whether a token was made for a subject of this name.
 *
 * **Errors** — throws `StaleToken` on what is no token at all.
 *
 * @category getters
 * @since 0.1.0
 */
export const isTokenOf = (token: string, name: string): boolean =>
  fromToken(token).nameHash === nameHash(name)

/**
 * A verdict in words: the findings, their lines, how to replay them, and exactly what was covered.
 *
 * @category getters
 * @since 0.1.0
 */
export const format = (verdict: Verdict): string => formatVerdict(verdict)

/**
 * A verdict as an SVG picture: for each finding one line of all operations, its windows coloured by grade, light or dark as the
 * reader's system is.
 *
 * @category getters
 * @since 0.1.0
 */
export const svg = (verdict: Verdict): string => svgOf(verdict)

/**
 * One or more verdicts as one self-contained HTML page: the picture, and each finding with its line, why, fix, steps and plain
 * program. `holdfast explore --page` writes it.
 *
 * @category getters
 * @since 0.1.0
 */
export const html = (verdict: Verdict | ReadonlyArray<Verdict>): string =>
  htmlOf("findings" in verdict ? [verdict] : verdict)

/**
 * Proves a finding of grade R0, R1 or R2 without the explorer: runs its plain program here, on the default runtime and scheduler,
 * in real time. Certified if a law of the finding breaks, and breaks again at the same moment.
 *
 * **Errors** — rejects with `StaleToken` if the finding is of another subject. **Cost** — up to about 40 real runs; those that hang
 *   take 250 ms or more each.
 *
 * @category operations
 * @since 0.1.0
 */
export const certify = <S = void>(
  finding: Pick<Finding, "token" | "plain">,
  subject: Subject<S> | Effect.Effect<unknown, unknown, Scope.Scope>,
  options: { readonly check?: Check | undefined } = {}
): Promise<Certificate> => {
  const { name } = programOf(subject)
  parsedFor(finding.token, name)
  const given = Effect.isEffect(subject) ? { body: () => subject } : subject
  return certifyPlainly(name, finding.plain, { ...given, ...options })
}

/**
 * The program of a finding as text, with the predicted padding; `certify` finds the exact one. None for R3 and R4.
 *
 * @category getters
 * @since 0.1.0
 */
export const toProgram = (finding: Finding): string | undefined => finding.program
