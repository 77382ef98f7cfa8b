/** format: numbers, times and texts as all views write them. */
import { printable } from "../words.ts"

const bySecond = 1000
const byMinute = 60 * bySecond
const byHour = 60 * byMinute
const byDay = 24 * byHour

const two = (count: number): string => String(count).padStart(2, "0")
const trimmed = (value: number, digits: number): string => String(Number(value.toFixed(digits)))

/** Milliseconds in readable units: `0 ms`, `12.5 ms`, `1.23 s`, `3 m 04 s`, `2 h 07 m`, `3 d 04 h`. */
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

/** The range of `Date`, 285,000 years around 1970. A number outside of it is no time. */
export const isTime = (millis: number): boolean => Math.abs(millis) <= 8.64e15

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

/** The parts that are not empty. */
export const joined = (parts: ReadonlyArray<string>, separator: string): string =>
  parts.filter((part) => part !== "").join(separator)

export const firstLine = (text: string): string => text.split("\n", 1)[0]!

/** The file and the line number: `orders.ts:88` of `loadOrder (/srv/shop/src/orders.ts:88:21)`. */
export const shortSite = (site: string): string => {
  const first = firstLine(site)
  return /([^/\\()\s]+?:\d+)(?::\d+)?\)?$/.exec(first)?.[1] ?? first
}

/** INVARIANT View-3: text of a snapshot as text of XML or HTML. */
export const escaped = (text: string): string =>
  printable(text).replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`)

export const plural = (n: number, one: string, many: string): string =>
  `${count(n)} ${n === 1 ? one : many}`

/** INVARIANT View-4: ` and 12 more`. */
export const andMore = (n: number): string => n > 0 ? ` and ${count(n)} more` : ""

/** Distances of ticks that are easy to read, in milliseconds. */
export const tickSteps = ([
  [1, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
  [bySecond, [1, 2, 5, 10, 15, 30]],
  [byMinute, [1, 2, 5, 10, 15, 30]],
  [byHour, [1, 2, 3, 6, 12]],
  [byDay, [1, 2, 7, 14, 30, 90, 365]]
] as const).flatMap(([unit, counts]) => counts.map((n) => n * unit))

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
