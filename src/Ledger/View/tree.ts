/**
 * tree: a snapshot as text for a terminal: deadlocks and failures first, then the live entries by owner, the last releases, the
 * totals.
 */
import type * as Ledger from "../../Ledger.ts"
import { printable } from "../words.ts"
import { ageOf, byId, largest, verdictOf } from "./analysis.ts"
import * as Format from "./format.ts"

const mostCauses = 20
const mostDeadlocks = 5
const mostWaits = 20
const deepest = 32
const mostNamed = 3
const mostReleased = 10

const marks: Readonly<Record<Ledger.State, string>> = {
  acquiring: "○",
  held: "●",
  releasing: "◐",
  released: "✓",
  failed: "✗",
  abandoned: "▲"
}

const labelOf = ({ id, kind, name }: Ledger.Entry): string => `${kind} "${name}" [${id}]`

/** An owner: the owners inside it, and its own entries. */
interface Branch {
  readonly owners: Map<string, Branch>
  readonly entries: Array<Ledger.Entry>
}

const branch = (): Branch => ({ owners: new Map(), entries: [] })

/** The depth of the tree is bounded: deeper owners share one line. */
const pathOf = ({ owner }: Ledger.Entry): ReadonlyArray<string> =>
  owner.length <= deepest
    ? owner
    : [...owner.slice(0, deepest - 1), owner.slice(deepest - 1).join(" > ")]

const treeOf = (entries: ReadonlyArray<Ledger.Entry>): Branch => {
  const root = branch()
  for (const entry of entries) {
    let at = root
    for (const name of pathOf(entry)) {
      const known = at.owners.get(name) ?? branch()
      at.owners.set(name, known)
      at = known
    }
    at.entries.push(entry)
  }
  return root
}

/** A line: its part of the tree, and the columns to the right of it. */
interface Row {
  readonly left: string
  readonly right: string
}

function* rowsOf(
  { entries, owners }: Branch,
  indent: string,
  columnsOf: (entry: Ledger.Entry) => string
): Generator<Row> {
  let left = entries.length + owners.size
  const limb = (): string => indent + (--left === 0 ? "└─ " : "├─ ")
  for (const entry of entries) {
    yield { left: `${limb()}${marks[entry.state]} ${labelOf(entry)}`, right: columnsOf(entry) }
  }
  for (const [owner, node] of owners) {
    yield { left: limb() + owner, right: "" }
    yield* rowsOf(node, indent + (left === 0 ? "   " : "│  "), columnsOf)
  }
}

const inColumns = (rows: ReadonlyArray<Row>, width: number): ReadonlyArray<string> => {
  const widest = largest(rows.map((row) => row.right === "" ? 0 : row.left.length))
  const left = Math.min(72, Math.floor(width / 2), widest)
  return rows.map((row) =>
    row.right === "" ? row.left : `${Format.clipped(row.left, left).padEnd(left)}  ${row.right}`
  )
}

const named = (ids: ReadonlyArray<number>, entries: ReadonlyMap<number, Ledger.Entry>): string => {
  const shown = ids.slice(0, mostNamed).map((id) => {
    const entry = entries.get(id)
    return entry?.fiber === undefined ? `[${id}]` : `[${id}] of fiber ${entry.fiber}`
  })
  return shown.join(", ") + Format.andMore(ids.length - mostNamed)
}

/** INVARIANT View-4: a line that counts what is not shown. */
const more = (n: number, what: string): ReadonlyArray<string> =>
  n > 0 ? [`  …${Format.andMore(n)} ${what}`] : []

const circleLines = (
  { waits }: Ledger.Deadlock,
  entries: ReadonlyMap<number, Ledger.Entry>
): ReadonlyArray<string> => {
  const lines = waits.slice(0, mostWaits).map(({ holder, waiter }) => {
    const [wanted, held] = [entries.get(waiter), entries.get(holder)]
    const at = wanted?.site === undefined ? "" : ` at ${Format.shortSite(wanted.site)}`
    const what = wanted === undefined ? `[${waiter}]` : labelOf(wanted)
    return `  fiber ${wanted?.fiber ?? "?"} waits${at} for ${what}, `
      + `which fiber ${held?.fiber ?? "?"} holds as [${holder}]`
  })
  return ["", "Deadlock", ...lines, ...more(waits.length - mostWaits, "fibers in it")]
}

const deadlockLines = (
  { deadlocks }: Ledger.Snapshot,
  entries: ReadonlyMap<number, Ledger.Entry>
): ReadonlyArray<string> => [
  ...deadlocks.slice(0, mostDeadlocks).flatMap((deadlock) => circleLines(deadlock, entries)),
  ...more(deadlocks.length - mostDeadlocks, "deadlocks")
]

const liveLines = (
  { live, takenAt }: Ledger.Snapshot,
  entries: ReadonlyMap<number, Ledger.Entry>,
  width: number
): ReadonlyArray<string> => {
  if (live.length === 0) return []
  const columnsOf = (entry: Ledger.Entry): string =>
    Format.joined([
      entry.state.padEnd(9),
      Format.duration(ageOf(entry, takenAt)).padStart(9),
      entry.fiber ?? "",
      entry.site === undefined ? "" : Format.shortSite(entry.site),
      entry.blockedBy.length === 0 ? "" : `waits for ${named(entry.blockedBy, entries)}`
    ], "  ")
  const rows = Array.from(rowsOf(treeOf(live), "", columnsOf))
  return ["", "Held and waited for", ...inColumns(rows, width)]
}

const causeOf = ({ cause }: Ledger.Entry): string =>
  cause === undefined ? "" : `: ${Format.firstLine(cause)}`

const badLines = ({ ended, takenAt }: Ledger.Snapshot): ReadonlyArray<string> => {
  const bad = ended.filter(({ state }) => state !== "released").toSorted((one, other) =>
    Number(other.state === "abandoned") - Number(one.state === "abandoned")
  )
  if (bad.length === 0) return []
  const lines = bad.slice(0, mostCauses).map((entry) => {
    const path = [...entry.owner, labelOf(entry)].join(" > ")
    const took = `after ${Format.duration(ageOf(entry, takenAt))}`
    const never = entry.heldAt === undefined ? ", never held" : ""
    const at = entry.site === undefined ? "" : `, requested at ${Format.shortSite(entry.site)}`
    return `  ${marks[entry.state]} ${entry.state} ${path} ${took}${never}${at}${causeOf(entry)}`
  })
  return ["", "Abandoned and failed", ...lines, ...more(bad.length - mostCauses, "")]
}

/** The last releases, so that a clean run shows more than totals. */
const releasedLines = (
  { ended, takenAt }: Ledger.Snapshot,
  width: number
): ReadonlyArray<string> => {
  const released = ended.filter(({ state }) => state === "released")
  if (released.length === 0) return []
  const rows = released.slice(-mostReleased).map((entry) => ({
    left: `  ${marks.released} ${[...entry.owner, labelOf(entry)].join(" > ")}`,
    right: Format.joined([
      `after ${Format.duration(ageOf(entry, takenAt))}`.padEnd(15),
      entry.fiber ?? "",
      entry.site === undefined ? "" : Format.shortSite(entry.site)
    ], "  ")
  }))
  const before = released.length - rows.length
  const earlier = `${Format.count(before)} before these: --html shows the ledger's whole history`
  return ["", "Released last", ...(before > 0 ? [`  … ${earlier}`] : []), ...inColumns(rows, width)]
}

const kindLines = (snapshot: Ledger.Snapshot): ReadonlyArray<string> => {
  const kinds = Object.entries(snapshot.kinds)
  if (kinds.length === 0) return []
  const rows = [...kinds, ["in all", snapshot.total] as const].map(([kind, sums]) =>
    [Format.clipped(printable(kind), 32)].concat(
      [sums.acquired, sums.released, sums.failed, sums.abandoned].map(Format.count)
    )
  )
  const head = ["", "acquired", "released", "of these failed", "abandoned"]
  const widths = head.map((title, at) =>
    Math.max(title.length, largest(rows.map((row) => row[at]!.length)))
  )
  const padded = (cell: string, at: number): string =>
    at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!)
  const line = (cells: ReadonlyArray<string>): string => `  ${cells.map(padded).join("  ")}`
  return ["", "Since the start", line(head), ...rows.map(line)]
}

export const draw = (snapshot: Ledger.Snapshot, width: number): string => {
  const entries = byId(snapshot)
  const lines = [
    `Ledger at ${Format.instant(snapshot.takenAt)}: ${verdictOf(snapshot).headline}.`,
    ...deadlockLines(snapshot, entries),
    ...badLines(snapshot),
    ...liveLines(snapshot, entries, width),
    ...releasedLines(snapshot, width),
    ...kindLines(snapshot)
  ]
  return `${lines.map((line) => Format.clipped(printable(line), width).trimEnd()).join("\n")}\n`
}
