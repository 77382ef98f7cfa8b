/**
 * json: a snapshot as versioned JSON. document.ts reads it.
 *
 * DESIGN. Empty fields are left out, and a reader fills them in. Attributes become plain data; a number that JSON does not have
 * is written as its name. No module of effect is loaded for it, because every program that runs by Main.ts loads this file.
 */
import type * as Ledger from "../../Ledger.ts"

/** The version that `json` writes. A change that older readers would misread gets a new number. */
export const version = 1

const deepest = 8

/** INVARIANT View-1: plain data for any value, also for cycles and getters that throw. */
const plain = (value: unknown, above: ReadonlyArray<object>): unknown => {
  switch (typeof value) {
    case "string":
    case "boolean":
      return value
    case "number":
      return Number.isFinite(value) ? value : String(value)
    case "bigint":
      return `${value}n`
    case "function":
      return `[function ${value.name}]`
    case "symbol":
      return value.toString()
    case "undefined":
      return undefined
    case "object":
      return value === null ? null : plainObject(value, above)
  }
}

const attempt = (read: () => unknown): unknown => {
  try {
    return read()
  } catch (error) {
    return `[${error instanceof Error ? error.message : "unreadable"}]`
  }
}

const plainObject = (value: object, above: ReadonlyArray<object>): unknown => {
  if (above.includes(value)) return "[circular]"
  if (above.length >= deepest) return "[deeper]"
  const inside = [...above, value]
  return attempt(() => {
    // Dates, Redacted and the data types of effect define how they are written.
    if ("toJSON" in value && typeof value.toJSON === "function") {
      return plain(value.toJSON(), inside)
    }
    if (Array.isArray(value)) return value.map((item) => plain(item, inside) ?? null)
    if (value instanceof Error) return String(value)
    if (value instanceof Map || value instanceof Set) return plain(Array.from(value), inside)
    return plainFields(value, inside)
  })
}

/** Field by field: one that throws does not affect the others. */
const plainFields = (value: object, inside: ReadonlyArray<object>) =>
  Object.fromEntries(
    Object.keys(value).map((key) => [
      key,
      attempt(() => plain((value as Record<string, unknown>)[key], inside))
    ])
  )

/** As plain data; undefined if there are none. */
export const plainAttributes = ({ attributes }: Ledger.Entry) =>
  Object.keys(attributes).length === 0 ? undefined : plainFields(attributes, [attributes])

const some = <A>(items: ReadonlyArray<A>): ReadonlyArray<A> | undefined =>
  items.length === 0 ? undefined : items
const time = (millis: number | undefined): number | string | undefined =>
  millis === undefined || Number.isFinite(millis) ? millis : String(millis)

const encodedEntry = (entry: Ledger.Entry) => ({
  id: entry.id,
  kind: entry.kind,
  name: entry.name,
  state: entry.state,
  since: time(entry.since),
  owner: some(entry.owner),
  fiber: entry.fiber,
  span: entry.span,
  site: entry.site,
  attributes: plainAttributes(entry),
  blockedBy: some(entry.blockedBy),
  requestedAt: time(entry.requestedAt),
  heldAt: time(entry.heldAt),
  releasingAt: time(entry.releasingAt),
  endedAt: time(entry.endedAt),
  cause: entry.cause
})

const encoded = (snapshot: Ledger.Snapshot) => ({
  holdfast: { ledger: version },
  takenAt: time(snapshot.takenAt),
  total: snapshot.total,
  // A list, because a kind such as "__proto__" is no safe key.
  kinds: Object.entries(snapshot.kinds).map(([kind, totals]) => Object.assign({ kind }, totals)),
  deadlocks: snapshot.deadlocks,
  live: snapshot.live.map(encodedEntry),
  ended: snapshot.ended.map(encodedEntry)
})

/** One line for each entry, so that people can read and compare it. */
export const write = (snapshot: Ledger.Snapshot): string => {
  const { ended, live, ...head } = encoded(snapshot)
  const lines = (entries: ReadonlyArray<unknown>): string =>
    entries.length === 0
      ? "[]"
      : `[\n${entries.map((entry) => `    ${JSON.stringify(entry)}`).join(",\n")}\n  ]`
  const fields = Object.entries(head).map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`)
  fields.push(`  "live": ${lines(live)}`, `  "ended": ${lines(ended)}`)
  return `{\n${fields.join(",\n")}\n}\n`
}
