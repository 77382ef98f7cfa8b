/**
 * analysis: what the views derive from a snapshot: spans of time, the verdict, the load.
 *
 * DESIGN. A time may be missing, infinite or earlier than the one before it. `phasesOf` and `spanOf` correct that once, so that
 * no view draws a phase that runs backwards.
 */
import type * as Ledger from "../../Ledger.ts"
import { count, isTime, joined, plural } from "./format.ts"

/** The phases of a hold; each begins where the one before it ends. */
export interface Phases {
  readonly requested: number
  readonly held: number | undefined
  readonly releasing: number | undefined
  /** When it ended, or the instant of the snapshot if it has not. */
  readonly end: number
  readonly isLive: boolean
}

export interface Span {
  readonly from: number
  readonly to: number
}

export const entriesOf = ({ ended, live }: Ledger.Snapshot): ReadonlyArray<Ledger.Entry> => [
  ...live,
  ...ended
]

const timesOf = (entry: Ledger.Entry): ReadonlyArray<number> =>
  [entry.requestedAt, entry.heldAt, entry.releasingAt, entry.endedAt]
    .filter((at): at is number => at !== undefined && isTime(at))

/** At least a millisecond. */
export const spanOf = (snapshot: Ledger.Snapshot): Span => {
  let from = Infinity
  let to = isTime(snapshot.takenAt) ? snapshot.takenAt : -Infinity
  for (const entry of entriesOf(snapshot)) {
    for (const at of timesOf(entry)) {
      if (at < from) from = at
      if (at > to) to = at
    }
  }
  if (from > to) from = Number.isFinite(to) ? to : 0
  return { from, to: Math.max(to, from + 1) }
}

/** INVARIANT View-1: finite, in order, inside the snapshot's span. */
export const phasesOf = (entry: Ledger.Entry, span: Span): Phases => {
  const within = (at: number | undefined, least: number): number | undefined =>
    at === undefined || Number.isNaN(at)
      ? undefined
      : Math.min(span.to, Math.max(least, at))
  const isLive = isLiveState(entry.state)
  const requested = within(entry.requestedAt, span.from) ?? span.from
  const held = within(entry.heldAt, requested)
  const releasing = within(entry.releasingAt, held ?? requested)
  const last = releasing ?? held ?? requested
  // An ended entry without the time of its end is drawn as if it ended at once.
  const end = isLive ? span.to : within(entry.endedAt, last) ?? last
  return { requested, held, releasing, end, isLive }
}

export const isLiveState = (state: Ledger.State): boolean =>
  state === "acquiring" || state === "held" || state === "releasing"

/** The time since it entered its state; of an ended entry, the time from its request to its end. */
export const ageOf = (entry: Ledger.Entry, takenAt: number): number =>
  isLiveState(entry.state) ? takenAt - entry.since : (entry.endedAt ?? NaN) - entry.requestedAt

/** Nothing is held, something is held, a release failed, something is abandoned or deadlocked. */
export type Tone = "quiet" | "busy" | "failed" | "lost"

export interface Verdict {
  readonly tone: Tone
  readonly headline: string
  readonly counts: Readonly<Record<Ledger.State, number>>
}

export const verdictOf = (snapshot: Ledger.Snapshot): Verdict => {
  const counts = { acquiring: 0, held: 0, releasing: 0, released: 0, failed: 0, abandoned: 0 }
  for (const { state } of entriesOf(snapshot)) counts[state]++
  const { deadlocks, live, total } = snapshot
  const stuck = deadlocks.reduce((sum, { waits }) => sum + waits.length, 0)
  const headline = joined([
    stuck === 0 ? "" : `deadlock of ${plural(stuck, "fiber", "fibers")}`,
    total.abandoned === 0 ? "" : `${count(total.abandoned)} abandoned`,
    total.failed === 0 ? "" : plural(total.failed, "release failed", "releases failed"),
    counts.held === 0 ? "" : `${count(counts.held)} held`,
    counts.releasing === 0 ? "" : `${count(counts.releasing)} releasing`,
    counts.acquiring === 0 ? "" : `${count(counts.acquiring)} acquiring`,
    live.length > 0 ? "" : total.acquired === 0 ? "nothing was acquired" : "nothing is held"
  ], ", ")
  const calm = live.length > 0 ? "busy" : "quiet"
  const tone = stuck > 0 || total.abandoned > 0 ? "lost" : total.failed > 0 ? "failed" : calm
  return { tone, headline: headline.charAt(0).toUpperCase() + headline.slice(1), counts }
}

/** How many were held and how many waited at once: the maximum in each of `buckets` equal parts of the span. */
export interface Load {
  readonly held: ReadonlyArray<number>
  readonly acquiring: ReadonlyArray<number>
}

export const loadOf = (snapshot: Ledger.Snapshot, span: Span, buckets: number): Load => {
  const held: Array<readonly [number, number]> = []
  const acquiring: Array<readonly [number, number]> = []
  for (const entry of entriesOf(snapshot)) {
    const { requested, end, held: from } = phasesOf(entry, span)
    acquiring.push([requested, from ?? end])
    if (from !== undefined) held.push([from, end])
  }
  return { held: levels(held, span, buckets), acquiring: levels(acquiring, span, buckets) }
}

const levels = (
  intervals: ReadonlyArray<readonly [number, number]>,
  { from, to }: Span,
  buckets: number
): ReadonlyArray<number> => {
  const most = Array.from({ length: buckets }, () => 0)
  const bucketOf = (at: number) =>
    Math.min(buckets - 1, Math.floor((at - from) / (to - from) * buckets))
  const changes = intervals
    // A hold of no duration is no load.
    .filter(([start, end]) => end > start)
    .flatMap(([start, end]) => [{ at: start, by: 1 }, { at: end, by: -1 }])
    // At one instant ends count before beginnings.
    .toSorted((one, other) => one.at - other.at || one.by - other.by)
  let level = 0
  let bucket = 0
  for (const { at, by } of changes) {
    const next = bucketOf(at)
    for (bucket++; bucket <= next; bucket++) most[bucket] = level
    bucket = next
    level += by
    most[bucket] = Math.max(most[bucket]!, level)
  }
  return most
}

export const byId = (snapshot: Ledger.Snapshot): ReadonlyMap<number, Ledger.Entry> =>
  new Map([...snapshot.ended, ...snapshot.live].map((entry) => [entry.id, entry]))

/** At least 0. Not `Math.max(...values)`, because arguments have to fit on the stack. */
export const largest = (values: ReadonlyArray<number>): number =>
  values.reduce((most, value) => Math.max(most, value), 0)

/** Each live state, then each end. The page numbers them like this. */
export const states = ["acquiring", "held", "releasing", "released", "failed", "abandoned"] as const

/** The sort order of states, the worst first. */
export const severity: Readonly<Record<Ledger.State, number>> = {
  abandoned: 0,
  failed: 1,
  acquiring: 2,
  releasing: 3,
  held: 4,
  released: 5
}
