/**
 * reading: what a snapshot says, in the words and numbers that all views share.
 *
 * DESIGN. Nothing here trusts the clock: a time may be missing, infinite or before the one it follows. It is put in order
 * once, in `phasesOf` and `spanOf`; whoever draws gets spans that never run backwards.
 */
import type * as Ledger from "../../Ledger.ts"

const bySecond = 1000
const byMinute = 60 * bySecond
const byHour = 60 * byMinute
const byDay = 24 * byHour

const two = (count: number): string => String(count).padStart(2, "0")
const trimmed = (value: number, digits: number): string => String(Number(value.toFixed(digits)))

/** Milliseconds as people write them: `0 ms`, `12.5 ms`, `1.23 s`, `3 m 04 s`, `2 h 07 m`, `3 d 04 h`. */
export const duration = (millis: number): string => {
  if (Number.isNaN(millis)) return "?"
  if (millis === Infinity) return "∞"
  const at = Math.max(0, millis)
  if (at < 9.995) return `${trimmed(at, 2)} ms`
  if (at < 999.5) return `${Math.round(at)} ms`
  if (at < 9.995 * bySecond) return `${(at / bySecond).toFixed(2)} s`
  if (at < 59.95 * bySecond) return `${(at / bySecond).toFixed(1)} s`
  const seconds = Math.round(at / bySecond)
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`
  const minutes = Math.round(at / byMinute)
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} m`
  const hours = Math.round(at / byHour)
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`
}

/** `12,345`: the same in every locale. */
export const count = (value: number): string =>
  String(value).replace(/\B(?=(?:\d{3})+(?!\d))/g, ",")

/** What a clock can show: 285,000 years round 1970. Beyond, a time is none. */
const isTime = (millis: number): boolean => Math.abs(millis) <= 8.64e15

/** An instant of the ledger's clock, in UTC. */
export const instant = (millis: number): string =>
  isTime(millis) ? new Date(millis).toISOString() : "an unknown time"

/** At most `most` characters. */
export const clipped = (text: string, most: number): string => {
  if (text.length <= most) return text
  const characters = Array.from(text)
  return characters.length <= most
    ? text
    : `${characters.slice(0, Math.max(0, most - 1)).join("")}…`
}

/** The file and its line: `orders.ts:88` of `loadOrder (/srv/shop/src/orders.ts:88:21)`. */
export const shortSite = (site: string): string => {
  const first = site.split("\n", 1)[0]!
  return /([^/\\()\s]+?:\d+)(?::\d+)?\)?$/.exec(first)?.[1] ?? first
}

/** When something was waited for, held and let go; each phase begins where the one before it ends. */
export interface Phases {
  readonly asked: number
  readonly held: number | undefined
  readonly releasing: number | undefined
  /** When it ended, or the instant of the snapshot if it has not. */
  readonly end: number
  readonly isLive: boolean
}

/** From the first instant that anything happened to the last. */
export interface Span {
  readonly from: number
  readonly to: number
}

const timesOf = (entry: Ledger.Entry): ReadonlyArray<number> =>
  [entry.requestedAt, entry.heldAt, entry.releasingAt, entry.endedAt]
    .filter((at): at is number => at !== undefined && isTime(at))

/** The time that a snapshot speaks of, at least a millisecond. */
export const spanOf = (snapshot: Ledger.Snapshot): Span => {
  let from = Infinity
  let to = isTime(snapshot.takenAt) ? snapshot.takenAt : -Infinity
  for (const entries of [snapshot.live, snapshot.ended]) {
    for (const entry of entries) {
      for (const at of timesOf(entry)) {
        if (at < from) from = at
        if (at > to) to = at
      }
    }
  }
  if (from > to) from = Number.isFinite(to) ? to : 0
  return { from, to: Math.max(to, from + 1) }
}

/** INVARIANT View-1: finite, never negative, inside the snapshot's own span. */
export const phasesOf = (entry: Ledger.Entry, span: Span): Phases => {
  const within = (at: number | undefined, least: number): number | undefined =>
    at === undefined || Number.isNaN(at)
      ? undefined
      : Math.min(span.to, Math.max(least, at))
  const isLive = isLiveState(entry.state)
  const asked = within(entry.requestedAt, span.from) ?? span.from
  const held = within(entry.heldAt, asked)
  const releasing = within(entry.releasingAt, held ?? asked)
  const last = releasing ?? held ?? asked
  // What has ended but does not say when ended at once, as far as we know.
  const end = isLive ? span.to : within(entry.endedAt, last) ?? last
  return { asked, held, releasing, end, isLive }
}

export const isLiveState = (state: Ledger.State): boolean =>
  state === "acquiring" || state === "held" || state === "releasing"

/** How long it has been in its state, or took from its asking to its end. */
export const ageOf = (entry: Ledger.Entry, takenAt: number): number =>
  isLiveState(entry.state) ? takenAt - entry.since : (entry.endedAt ?? NaN) - entry.requestedAt

/** How bad it is: nothing is wrong, something is held, something failed, something is lost for good. */
export type Tone = "quiet" | "busy" | "failed" | "lost"

/** A snapshot in one line. */
export interface Verdict {
  readonly tone: Tone
  readonly headline: string
  readonly counts: Readonly<Record<Ledger.State, number>>
}

const plural = (n: number, one: string, many: string): string =>
  `${count(n)} ${n === 1 ? one : many}`

export const verdictOf = (snapshot: Ledger.Snapshot): Verdict => {
  const counts = { acquiring: 0, held: 0, releasing: 0, released: 0, failed: 0, abandoned: 0 }
  for (const { state } of snapshot.live) counts[state]++
  for (const { state } of snapshot.ended) counts[state]++
  const { deadlocks, live, total } = snapshot
  const stuck = deadlocks.reduce((sum, { waits }) => sum + waits.length, 0)
  const parts = [
    stuck === 0 ? "" : `deadlock of ${plural(stuck, "fiber", "fibers")}`,
    total.abandoned === 0 ? "" : `${count(total.abandoned)} abandoned`,
    total.failed === 0 ? "" : plural(total.failed, "release failed", "releases failed"),
    counts.held === 0 ? "" : `${count(counts.held)} held`,
    counts.releasing === 0 ? "" : `${count(counts.releasing)} releasing`,
    counts.acquiring === 0 ? "" : `${count(counts.acquiring)} acquiring`,
    live.length > 0 ? "" : total.acquired === 0 ? "nothing was acquired" : "nothing is held"
  ].filter((part) => part !== "")
  const headline = parts.join(", ")
  return {
    tone: stuck > 0 || total.abandoned > 0
      ? "lost"
      : total.failed > 0
      ? "failed"
      : live.length > 0
      ? "busy"
      : "quiet",
    headline: headline.charAt(0).toUpperCase() + headline.slice(1),
    counts
  }
}

/** How much was held, and asked for in vain, at once: the most in each of `buckets` equal parts of the span. */
export interface Load {
  readonly held: ReadonlyArray<number>
  readonly acquiring: ReadonlyArray<number>
}

export const loadOf = (snapshot: Ledger.Snapshot, span: Span, buckets: number): Load => {
  const held: Array<readonly [number, number]> = []
  const acquiring: Array<readonly [number, number]> = []
  for (const entries of [snapshot.live, snapshot.ended]) {
    for (const entry of entries) {
      const { asked, end, held: from } = phasesOf(entry, span)
      acquiring.push([asked, from ?? end])
      if (from !== undefined) held.push([from, end])
    }
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
    // An instant is no load.
    .filter(([start, end]) => end > start)
    .flatMap(([start, end]) => [{ at: start, by: 1 }, { at: end, by: -1 }])
    // At one instant what ends makes room for what begins.
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

/** Distances of ticks that people read easily, in milliseconds. */
export const tickSteps = [
  1,
  2,
  5,
  10,
  20,
  50,
  100,
  200,
  500,
  ...[1, 2, 5, 10, 15, 30].map((n) => n * bySecond),
  ...[1, 2, 5, 10, 15, 30].map((n) => n * byMinute),
  ...[1, 2, 3, 6, 12].map((n) => n * byHour),
  ...[1, 2, 7, 14, 30, 90, 365].map((n) => n * byDay)
]

/** The distance of ticks, at most `most` of them, over so much time. */
export const tickStep = (millis: number, most: number): number =>
  tickSteps.find((step) => millis / step <= most)
    ?? 365 * byDay * 10 ** Math.ceil(Math.log10(millis / most / (365 * byDay)))

/** `1.5 s` where durations would say `1.50 s`: a tick is a round number. */
export const tickLabel = (millis: number): string => {
  if (millis < bySecond) return `${trimmed(millis, 3)} ms`
  if (millis < byMinute) return `${trimmed(millis / bySecond, 3)} s`
  return duration(millis).replace(/ 00 [a-z]$/, "")
}

/** Whatever the entries need from each other. */
export const byId = (snapshot: Ledger.Snapshot): ReadonlyMap<number, Ledger.Entry> =>
  new Map([...snapshot.ended, ...snapshot.live].map((entry) => [entry.id, entry]))

/** The largest, 0 at the least. Not `Math.max(...values)`, whose arguments have to fit on the stack. */
export const largest = (values: ReadonlyArray<number>): number =>
  values.reduce((most, value) => Math.max(most, value), 0)

/** `… and 12 more`: INVARIANT View-4. */
export const andMore = (n: number): string => n > 0 ? ` and ${count(n)} more` : ""

/** Whose turn it is to be looked at: worst first. */
export const severity: Readonly<Record<Ledger.State, number>> = {
  abandoned: 0,
  failed: 1,
  acquiring: 2,
  releasing: 3,
  held: 4,
  released: 5
}
