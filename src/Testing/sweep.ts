/**
 * sweep: tries points one by one and keeps those at which a law broke.
 *
 * DESIGN. Every run must be the plain run up to its point: the hash says so. Faults are swept as SQLite does, the nth call
 * until there is no nth call; under a fault the points are those of the faulted run.
 *
 * Two interrupts. An interrupt is noted in the fiber and goes down to its children. A second one changes something only where it
 * reaches a fiber that the first did not: a child that the clean-up has started. So those pairs are tried first. An interrupt of
 * the target's parent while the target cleans up is this second interrupt. An interrupt of the fiber that sent the first one and
 * waits in `Fiber.interrupt` only takes its observer away, which the target cannot see: it is not tried.
 *
 * INVARIANTS
 * - Explore-14 A second interrupt during the clean-up of a first, and an interrupt of the fiber that closes the owner, are found, graded, replayed and proved as any other.
 */
import { makeObserved } from "./conflicts.ts"
import { judge, longerThan, type Outcome } from "./experiment.ts"
import type { Strike } from "./findings.ts"
import { matters } from "./interleavings.ts"
import { type Point, pointAt, pointsOf } from "./points.ts"
import type * as Recording from "./recorder.ts"
import { isSpent, runPlan, type Session } from "./session.ts"
import { makeTrace, type Plan, type Strategy, type Trace } from "./simulation.ts"

/** A strike whose grade is not known yet. */
export type Ungraded = Omit<Strike, "grade" | "step"> & { readonly trace: Trace }

/** The results of a sweep. */
export interface Swept {
  readonly strikes: Array<Ungraded>
  tried: number
  planned: number
  unstable: number
  /** Runs that could not be judged, by reason. */
  readonly unjudged: Map<string, number>
  /** Pairs of interrupts: their firsts, those whose second reaches a fiber that the first did not, and the others. */
  readonly pairs: { readonly firsts: Tried; readonly reaching: Tried; readonly others: Tried }
}

/** How many there are, and how many of them were tried. */
interface Tried {
  all: number
  tried: number
}

export const makeSwept = (): Swept => ({
  strikes: [],
  tried: 0,
  planned: 0,
  unstable: 0,
  unjudged: new Map(),
  pairs: {
    firsts: { all: 0, tried: 0 },
    reaching: { all: 0, tried: 0 },
    others: { all: 0, tried: 0 }
  }
})

/** Why a run cannot be judged, if it cannot. */
export const unjudgedOf = (
  { limits }: Session,
  { overtime, waiting }: Outcome
): string | undefined => {
  if (waiting !== undefined || overtime === undefined) return waiting
  return `${overtime} takes ${longerThan(limits.horizon)}; \`horizon\` sets how long is waited`
}

/** Counts a run that could not be judged. */
export const countUnjudged = (session: Session, { unjudged }: Swept, outcome: Outcome): void => {
  const reason = unjudgedOf(session, outcome)
  if (reason !== undefined) unjudged.set(reason, (unjudged.get(reason) ?? 0) + 1)
}

/** How often a place is looked for again that real I/O has made the run miss. */
const retries = 3

/** The plan of a strike. */
export const planOf = (
  { delays, first, point, strategy }: Pick<Strike, "delays" | "first" | "point"> & {
    readonly strategy?: Strategy | undefined
  }
): Plan => ({
  place: (first ?? point).place,
  again: first === undefined ? undefined : point.place,
  delays,
  strategy
})

/** Interrupts at one point, or at two; remembers what broke. */
const tryPoint = async (
  session: Session,
  swept: Swept,
  point: Point,
  options: {
    readonly trace: Trace
    readonly fault?: Recording.PlannedFault | undefined
    readonly delays?: ReadonlyArray<number> | undefined
    /** The point of the first of two interrupts. */
    readonly first?: Point | undefined
  }
): Promise<void> => {
  const { fault, first, trace } = options
  const delays = options.delays ?? []
  const run = { plan: planOf({ point, delays, first }), fault }
  const isBeside = session.driver.mode === "asynchronous"
  const isAsPlain = ({ hit, hitHash }: Outcome) =>
    hit && (delays.length > 0 || hitHash === point.hash)
  let outcome = await runPlan(session, run)
  // Real I/O may come in another order: then the place is looked for again, and in the end found by its number.
  for (let more = isBeside ? retries : 0; more > 0 && !isAsPlain(outcome); more--) {
    outcome = await runPlan(session, run)
  }
  swept.tried++
  if (!isAsPlain(outcome) && !(isBeside && outcome.hit)) {
    // A delay may well end the target before its point.
    if (delays.length === 0) swept.unstable++
    return
  }
  // The interrupt came before the fault, so this is the run without the fault.
  if (fault !== undefined && !outcome.struck) return
  if (judge(outcome, session.plain).length > 0 || outcome.waiting !== undefined) {
    // With real I/O a suspicion may be only impatience.
    if (isBeside) outcome = await runPlan(session, { ...run, isPatient: true })
  }
  countUnjudged(session, swept, outcome)
  const violations = judge(outcome, session.plain)
  if (violations.length === 0) return
  swept.strikes.push({ point, outcome, violations, fault, delays, first, chosen: undefined, trace })
}

export const sweepPoints = async (
  session: Session,
  swept: Swept,
  points: ReadonlyArray<Point>,
  options: { readonly trace: Trace; readonly fault?: Recording.PlannedFault | undefined }
): Promise<void> => {
  swept.planned += points.length
  for (const point of points) {
    if (isSpent(session)) return
    await tryPoint(session, swept, point, options)
  }
}

/** Of a long list, evenly spread ones. */
export const sample = <A>(list: ReadonlyArray<A>, most: number): ReadonlyArray<A> => {
  const stride = list.length / most
  return stride <= 1 ? list : Array.from({ length: most }, (_, i) => list[Math.floor(i * stride)]!)
}

/** Every point of the plain run: all of them, or one of each class. */
export const sweepPlain = async (
  session: Session,
  swept: Swept,
  mode: "quick" | "full",
  mostOthers: number
): Promise<void> => {
  const { points, trace } = session
  const { others, own, waits } = points
  const chosen = mode === "full"
    ? [...own, ...waits, ...sample(others, mostOthers)]
    : [...own.filter(({ leads }) => leads), ...waits]
  await sweepPoints(session, swept, chosen, { trace })
}

/** The point of a run that is not interrupted. */
export const nowhere = ({ hash }: Outcome): Point =>
  pointAt({ kind: "nowhere", index: 0 }, { hash, hitGlobal: 0 })

const mostFaults = 100

/** The nth acquire or release goes wrong, for each n there is, alone and with an interrupt at each class of points. */
export const sweepFaults = async (
  session: Session,
  swept: Swept,
  faults: ReadonlyArray<Recording.Fault>,
  mode: "quick" | "full"
): Promise<void> => {
  for (const fault of faults) {
    for (let nth = 1; nth <= mostFaults && !isSpent(session); nth++) {
      const planned = { fault, nth }
      const trace = makeTrace()
      const outcome = await runPlan(session, { trace, fault: planned })
      if (!outcome.struck) break
      swept.planned++
      swept.tried++
      countUnjudged(session, swept, outcome)
      // A fiber that waits for an acquire that never returns waits until it is interrupted.
      const violations = fault === "acquire never returns" ? [] : judge(outcome, session.plain)
      if (violations.length > 0) {
        const strike = { point: nowhere(outcome), outcome, violations, fault: planned, trace }
        swept.strikes.push({ ...strike, delays: [], first: undefined, chosen: undefined })
      }
      const points = pointsOf(trace)
      const own = mode === "full" ? points.own.filter(({ leads }) => leads) : []
      await sweepPoints(session, swept, [...own, ...points.waits], { trace, fault: planned })
    }
  }
}

/** The steps of other fibers than the target before which a delay may make a difference. */
const delaysOf = async (session: Session): Promise<ReadonlyArray<number>> => {
  const run = makeObserved()
  await runPlan(session, { trace: run.trace })
  return run.trace.steps.flatMap(({ own, ready }, index) =>
    ready > 0 && own === 0 && matters(run, index) ? [index + 1] : []
  )
}

// Each set of one or two of them. There may be millions, so each is made when it is its turn.
function* setsOf(at: ReadonlyArray<number>, depth: 1 | 2): Generator<ReadonlyArray<number>> {
  for (const one of at) yield [one]
  if (depth === 1) return
  for (const [index, one] of at.entries()) {
    for (let next = index + 1; next < at.length; next++) yield [one, at[next]!]
  }
}

/** An interrupt at each class of points, while other fibers are delayed at one or two of their operations. */
export const sweepDelayed = async (
  session: Session,
  swept: Swept,
  depth: 1 | 2
): Promise<void> => {
  const { points, trace } = session
  const leading = [...points.own.filter(({ leads }) => leads), ...points.waits]
  const at = await delaysOf(session)
  const pairs = depth === 1 ? 0 : at.length * (at.length - 1) / 2
  swept.planned += (at.length + pairs) * leading.length
  for (const delays of setsOf(at, depth)) {
    for (const point of leading) {
      if (isSpent(session)) return
      await tryPoint(session, swept, point, { trace, delays })
    }
  }
}

interface Pair {
  readonly first: Point
  readonly point: Point
}

/** The classes of points behind a first interrupt, by whether a second one reaches a fiber there that the first did not. */
const laterOf = async (session: Session, first: Point) => {
  const trace = makeTrace()
  const { hitGlobal } = await runPlan(session, { plan: { place: first.place }, trace })
  const { others, own, waits } = pointsOf(trace)
  // Where it reaches nobody, an interrupt at an operation of another fiber is only a delay of that fiber.
  const later = [...waits, ...own, ...others.filter(({ spreads }) => spreads)]
    .filter(({ global, leads }) => leads && global > hitGlobal)
  return {
    reaching: later.filter(({ spreads }) => spreads),
    others: later.filter(({ spreads }) => !spreads)
  }
}

/** How many first interrupts are tried at most. */
const mostFirsts = 500
/** How many pairs that break a law are looked at. */
const mostStruck = 20

/**
 * Two interrupts: one at each class of points and each wait, and another while the target still cleans up behind it. First the
 * pairs whose second interrupt reaches a fiber that the first did not. The others should change nothing, so fewer do.
 */
export const sweepPairs = async (
  session: Session,
  swept: Swept,
  most: number
): Promise<void> => {
  const { own, waits } = session.points
  const { firsts, others, reaching } = swept.pairs
  // A point that fails by itself needs no second interrupt.
  const struck = new Set(swept.strikes.map(({ point }) => point))
  const all = [...waits, ...own.filter(({ leads }) => leads)].filter((point) => !struck.has(point))
  const pairs: { readonly [K in "reaching" | "others"]: Array<Pair> } = { reaching: [], others: [] }
  firsts.all = all.length
  for (const first of sample(all, mostFirsts)) {
    if (isSpent(session)) break
    firsts.tried++
    const later = await laterOf(session, first)
    reaching.all += later.reaching.length
    others.all += later.others.length
    for (const point of sample(later.reaching, most)) pairs.reaching.push({ first, point })
    for (const point of sample(later.others, most / 10)) pairs.others.push({ first, point })
  }
  await tryPairs(session, swept, sample(pairs.reaching, most), reaching)
  await tryPairs(session, swept, sample(pairs.others, most / 10), others)
}

const tryPairs = async (
  session: Session,
  swept: Swept,
  pairs: ReadonlyArray<Pair>,
  counted: Tried
): Promise<void> => {
  const twice = () => swept.strikes.filter(({ first }) => first !== undefined).length
  swept.planned += pairs.length
  for (const { first, point } of pairs) {
    if (isSpent(session)) return
    const before = twice()
    // One behind each first interrupt is enough: the nearest second comes first. All of them mostly show the same.
    if (before >= mostStruck || swept.strikes.at(-1)?.first === first) {
      swept.planned--
      continue
    }
    counted.tried++
    const trace = makeTrace()
    await tryPoint(session, swept, point, { trace, first })
    // What was found is graded by the run with the first interrupt alone.
    if (twice() > before) await runPlan(session, { plan: { place: first.place }, trace })
  }
}
