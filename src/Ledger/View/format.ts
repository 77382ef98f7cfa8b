/** format: numbers, times and texts as all views write them. */
import { printable } from "../words.ts"

/**
 * The formats that the page has too: its script contains the text of this function (pageScript.ts). So it uses nothing from outside.
 */
export const makeFormats = () => {
  const two = (count: number): string => String(count).padStart(2, "0")
  const trimmed = (value: number, digits: number): string => String(Number(value.toFixed(digits)))

  /** Milliseconds in readable units: `0 ms`, `12.5 ms`, `1.23 s`, `3 m 04 s`, `2 h 07 m`, `3 d 04 h`. */
  const duration = (millis: number): string => {
    if (Number.isNaN(millis)) return "?"
    if (millis === Infinity) return "∞"
    const at = Math.max(0, millis)
    if (at < 9.995) return `${trimmed(at, 2)} ms`
    if (at < 999.5) return `${Math.round(at)} ms`
    if (at < 9995) return `${(at / 1000).toFixed(2)} s`
    if (at < 59_950) return `${(at / 1000).toFixed(1)} s`
    const seconds = Math.round(at / 1000)
    if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`
    const minutes = Math.round(at / 60_000)
    if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} m`
    const hours = Math.round(at / 3_600_000)
    return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`
  }

  /** `1.5 s` where durations would say `1.50 s`: a tick is a round number. */
  const tickLabel = (millis: number): string => {
    if (millis < 1000) return `${trimmed(millis, 3)} ms`
    if (millis < 60_000) return `${trimmed(millis / 1000, 3)} s`
    return duration(millis).replace(/ 00 [a-z]$/, "")
  }

  /** `12,345`: the same in every locale. */
  const count = (value: number): string => String(value).replace(/\B(?=(?:\d{3})+(?!\d))/g, ",")

  /** The range of `Date`, 285,000 years around 1970. A number outside of it is no time. */
  const isTime = (millis: number): boolean => Math.abs(millis) <= 8.64e15

  /** An instant of the ledger's clock, in UTC. */
  const instant = (millis: number): string =>
    isTime(millis) ? new Date(millis).toISOString() : "an unknown time"

  const firstLine = (text: string): string => text.split("\n", 1)[0]!

  /** The file and the line number: `orders.ts:88` of `loadOrder (/srv/shop/src/orders.ts:88:21)`. */
  const shortSite = (site: string): string => {
    const first = firstLine(site)
    return /([^/\\()\s]+?:\d+)(?::\d+)?\)?$/.exec(first)?.[1] ?? first
  }

  return { count, duration, firstLine, instant, isTime, shortSite, tickLabel }
}

export const { count, duration, firstLine, instant, isTime, shortSite, tickLabel } = makeFormats()

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

/** INVARIANT View-3: text of a snapshot as text of XML or HTML. */
export const escaped = (text: string): string =>
  printable(text).replace(/[&<>"']/g, (found) => `&#${found.charCodeAt(0)};`)

export const plural = (n: number, one: string, many: string): string =>
  `${count(n)} ${n === 1 ? one : many}`

/** INVARIANT View-4: ` and 12 more`. */
export const andMore = (n: number): string => n > 0 ? ` and ${count(n)} more` : ""

const day = 86_400_000

/** Distances of ticks that are easy to read, in milliseconds. */
export const tickSteps = ([
  [1, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
  [1000, [1, 2, 5, 10, 15, 30]],
  [60_000, [1, 2, 5, 10, 15, 30]],
  [3_600_000, [1, 2, 3, 6, 12]],
  [day, [1, 2, 7, 14, 30, 90, 365]]
] as const).flatMap(([unit, counts]) => counts.map((n) => n * unit))

/** The distance of ticks, at most `most` of them, over so much time. */
export const tickStep = (millis: number, most: number): number =>
  tickSteps.find((step) => millis / step <= most)
    ?? 365 * day * 10 ** Math.ceil(Math.log10(millis / most / (365 * day)))
