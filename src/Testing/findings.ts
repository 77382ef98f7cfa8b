/**
 * findings: the points at which a law is broken, gathered into windows, with how far production is from each.
 *
 * DESIGN. Grades of reach. R0: the fiber waits, or has just been started or resumed; any scheduler interrupts there. R1: in the
 * first slice of the fiber; as many cheap operations before the call bring the default yield, one in 2,048, to that very
 * operation. R2: in a later slice, after code of the user that could do the same. R3: only with
 * `Effect.withMaxOpsBeforeYield`. R4: only with a scheduler that decides by itself, which its contract allows.
 *
 * COST a few replays per finding. SOURCES Lincheck (the table), IOSimPOR (the nearest passing run), research on grades.
 *
 * @since 0.1.0
 */
import type { Law, Outcome, Unreleased, Use, Violation } from "./experiment.ts"
import type { Point } from "./points.ts"
import type * as Recording from "./recorder.ts"
import type { Place, Step, Trace } from "./simulation.ts"
import type { Chosen } from "./token.ts"

/**
 * How far production is from a point, nearest first.
 *
 * @category models
 * @since 0.1.0
 */
export type Grade = "R0" | "R1" | "R2" | "R3" | "R4"

export const grades: ReadonlyArray<Grade> = ["R0", "R1", "R2", "R3", "R4"]

/** How an interrupt gets to a point of each grade. */
export const meanings: Readonly<Record<Grade, string>> = {
  R0: "it waits there, or has just been resumed: any timeout, race or shutdown gets there",
  R1:
    "in its first slice: enough operations before the call make the default scheduler yield there",
  R2: "in a later slice: enough operations of your own code make the default scheduler yield there",
  R3: "only with Effect.withMaxOpsBeforeYield",
  R4: "only with a scheduler of your own"
}

/** A point at which a run broke laws. */
export interface Strike {
  readonly point: Point
  readonly grade: Grade
  readonly outcome: Outcome
  readonly violations: ReadonlyArray<Violation>
  readonly fault: Recording.PlannedFault | undefined
  readonly delays: ReadonlyArray<number>
  /** With two interrupts: the point of the first one; `point` is the second. */
  readonly first: Point | undefined
  /** The random schedule it ran under, if it did. */
  readonly chosen: Chosen | undefined
  /** Where the point stands in the run it was taken from. */
  readonly step: Step | undefined
}

/** A strike and the trace of its run. */
export type Graded = Strike & { readonly trace: Trace }

/**
 * When a plain program interrupts: after some turns of the scheduler and some real time. Fields that are left out are 0.
 *
 * @category models
 * @since 0.1.0
 */
export interface Moment {
  /** The use runs to its end: a fault or an order alone breaks the law. */
  readonly uncut?: true
  readonly turns?: number
  readonly millis?: number
  /** As another fiber stops for the nth time, in the same instant: when that one has just woken the target. */
  readonly stops?: number
  /** Before the nth operation of a fiber, as if the code before it in its slice had been as long as it takes to yield there. */
  readonly op?: number
  /** Whose operation: the target's (0), or that of the nth fiber that the use starts. */
  readonly fiber?: number
  /** Operations before the call. */
  readonly before?: number
  /** Operations in each acquire of the probe. */
  readonly inside?: number
  /** The operations between two yields. */
  readonly budget?: number
  /** Turns and real time after the first interrupt, at which a second one is sent. */
  readonly again?: { readonly turns?: number; readonly millis?: number }
}

/**
 * What a plain program needs to know of a finding.
 *
 * @category models
 * @since 0.1.0
 */
export interface Plain {
  readonly laws: ReadonlyArray<Law>
  readonly fault: Recording.PlannedFault | undefined
  /** What is interrupted. */
  readonly use: Use
  /** Tried one after the other, likeliest first. */
  readonly moments: ReadonlyArray<Moment>
  /** How many times faster than real time its clock runs, for subjects that wait for long. */
  readonly speed: number
  /** What takes longer, in milliseconds of that clock, hangs. */
  readonly cap: number
}

/**
 * A kind of mistake.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mistake {
  readonly kind: string
  /** Why it breaks, in one sentence. */
  readonly why: string
  /** What to do, in one line. */
  readonly fix: string
}

/**
 * Neighbouring points of one grade. A wait is counted by the own operations before it; operations of other fibers are counted
 * over all fibers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Range {
  readonly kind: "op" | "wait" | "other"
  readonly grade: Grade
  readonly from: number
  readonly to: number
}

/**
 * One window of points that break the same laws.
 *
 * @category models
 * @since 0.1.0
 */
export interface Finding {
  /** Which points: `ops 79–97; as it begins to wait, time 1`. */
  readonly window: string
  /** The nearest to production of all its points. */
  readonly grade: Grade
  readonly grades: Readonly<Record<Grade, number>>
  readonly violations: ReadonlyArray<Violation>
  /** With real I/O: how many runs at its representative point showed it again. Otherwise every run does. */
  readonly rate: { readonly seen: number; readonly of: number } | undefined
  /** The kind of mistake, why it breaks and its fix, if the facts tell. */
  readonly mistake: Mistake | undefined
  /** The window as numbers, for pictures. */
  readonly ranges: ReadonlyArray<Range>
  /** The innermost line of the user at which the target stood. */
  readonly at: string | undefined
  /** Another fiber that stood at the point, and its line. */
  readonly other: string | undefined
  /** All lines of the target's stack, innermost first. */
  readonly stack: ReadonlyArray<string>
  readonly unreleased: ReadonlyArray<Unreleased>
  /** The last steps of each fiber, as a table. */
  readonly steps: string
  readonly nearestPass: string | undefined
  /** Replays the representative point: `Explore.replay(token, subject)`. */
  readonly token: string
  /** For R0 to R2: a program that needs no explorer to fail, and what it is made of. */
  readonly program: string | undefined
  readonly plain: Plain | undefined
}

/** The lowest offset a tuned budget of operations reaches: a yield itself takes nine, so smaller budgets never progress. */
const firstTunedOffset = 11

/** Which grade an interrupt at a step has. `userCodeBefore`: code of the user ran earlier in its slice. */
export const gradeOf = (
  place: Place,
  step: Step | undefined,
  userCodeBefore: () => boolean
): Grade => {
  if (place.kind !== "op" && place.kind !== "global") return "R0"
  if (step === undefined) return "R4"
  if (step.own > 0 && step.resumed) return "R0"
  if (step.own > 0 && step.slice === 0) return "R1"
  if (userCodeBefore()) return "R2"
  return step.offset >= firstTunedOffset ? "R3" : "R4"
}

const ranges = (numbers: ReadonlyArray<number>): string => {
  const sorted = [...new Set(numbers)].toSorted((a, b) => a - b)
  const parts: Array<readonly [number, number]> = []
  for (const n of sorted) {
    const last = parts.at(-1)
    if (last !== undefined && last[1] === n - 1) parts[parts.length - 1] = [last[0], n]
    else parts.push([n, n])
  }
  return parts.map(([from, to]) => from === to ? `${from}` : `${from}–${to}`).join(", ")
}

/** The points of a group as ranges, each of one grade. */
export const rangesOf = (group: ReadonlyArray<Graded>): ReadonlyArray<Range> => {
  const all = group.flatMap(
    ({ first, grade, point, step, trace }): ReadonlyArray<Range> => {
      // The first of two is a point of the plain run, which a picture shows.
      const { global, place } = first ?? point
      if (place.kind === "nowhere") return []
      if (place.kind === "op") return [{ kind: "op", grade, from: place.index, to: place.index }]
      if (place.kind === "global") return [{ kind: "other", grade, from: global, to: global }]
      const own = trace.parks.find(({ index, kind }) =>
        kind === place.kind && index === place.index
      )
      const at = own?.own ?? step?.own ?? 0
      return [{ kind: "wait", grade, from: at, to: at }]
    }
  ).toSorted((a, b) => a.kind.localeCompare(b.kind) || a.from - b.from)
  const joined: Array<Range> = []
  for (const range of all) {
    const last = joined.at(-1)
    const joins = last !== undefined && last.kind === range.kind && last.grade === range.grade
      && range.from <= last.to + (range.kind === "wait" ? 0 : 1)
    if (joins) joined[joined.length - 1] = { ...last, to: range.to }
    else joined.push(range)
  }
  return joined
}

/** The places of one kind in words, by their numbers. */
const words: Record<Place["kind"], (numbers: string) => string> = {
  op: (n) => `ops ${n}`,
  global: (n) => `ops of other fibers ${n}`,
  parked: (n) => `as it begins to wait, time ${n}`,
  between: (n) => `while others run, time ${n}`,
  quiet: (n) => `while nothing else runs, time ${n}`,
  resumed: (n) => `as it is resumed, time ${n}`,
  nowhere: () => "not interrupted"
}

const kinds: ReadonlyArray<Place["kind"]> = [
  "nowhere",
  "op",
  "parked",
  "between",
  "quiet",
  "resumed",
  "global"
]

/** `ops 79–97; as it begins to wait, time 1`. */
const placesOf = (places: ReadonlyArray<Place>): string =>
  kinds.flatMap((kind) => {
    const indices = places.filter((place) => place.kind === kind).map(({ index }) => index)
    if (indices.length === 0) return []
    return [words[kind](ranges(indices))]
  }).join("; ")

/** The points of a group: `ops 79–97`, or `ops 12, again ops 30–31` for two interrupts. */
export const windowOf = (
  group: ReadonlyArray<Pick<Strike, "first" | "point">>
): string => {
  const seconds = placesOf(group.map(({ point }) => point.place))
  const firsts = group.flatMap(({ first }) => first === undefined ? [] : [first.place])
  return firsts.length === 0 ? seconds : `${placesOf(firsts)}, again ${seconds}`
}

export const faultText = (fault: Recording.PlannedFault | undefined): string =>
  fault === undefined
    ? ""
    : ` when ${fault.fault.split(" ")[0]} ${fault.nth} ${fault.fault.split(" ").slice(1).join(" ")}`

/** Strikes that break the same laws under the same fault, the nearest to production first. */
export const gather = <S extends Strike>(
  strikes: ReadonlyArray<S>
): ReadonlyArray<ReadonlyArray<S>> => {
  const groups = new Map<string, Array<S>>()
  for (const strike of strikes) {
    const laws = strike.violations.map(({ law }) => law).join("+")
    const twice = strike.first === undefined ? "" : "|twice"
    const key = `${laws}|${faultText(strike.fault)}${twice}`
    const known = groups.get(key)
    if (known === undefined) groups.set(key, [strike])
    else known.push(strike)
  }
  const nearest = (group: ReadonlyArray<S>) => representative(group).grade
  return Array.from(groups.values()).toSorted((a, b) => nearest(a).localeCompare(nearest(b)))
}

/** The strike that stands for its group: best grade, fewest delays, an operation before a wait, lowest number. */
export const representative = <S extends Strike>(group: ReadonlyArray<S>): S => {
  const rank = ({ delays, grade, point: { place } }: Strike) =>
    grades.indexOf(grade) * 1e9 + delays.length * 1e8 + kinds.indexOf(place.kind) * 1e6 +
    place.index
  return group.reduce((best, next) => rank(next) < rank(best) ? next : best)
}

export const countGrades = (group: ReadonlyArray<Strike>): Record<Grade, number> => {
  const counts: Record<Grade, number> = { R0: 0, R1: 0, R2: 0, R3: 0, R4: 0 }
  for (const { grade } of group) counts[grade]++
  return counts
}

const describeOutcome = ({ close, first, log, second }: Outcome): ReadonlyArray<string> => [
  `first use: ${first}`,
  `next use: ${second}`,
  `owner's close: ${close}`,
  ...(log.length === 0 ? [] : [`resources: ${log.join(" ")}`])
]

/** The difference to the nearest point that keeps the laws. */
export const differenceTo = (pass: Strike["point"], passed: Outcome, failed: Outcome): string => {
  const other = describeOutcome(failed)
  const differing = describeOutcome(passed).filter((line) => !other.includes(line))
  const { index, kind } = pass.place
  const where = kind === "op" ? `at op ${index}` : words[kind](String(index))
  return [`an interrupt ${where} breaks nothing`, ...differing].join("; ")
}
