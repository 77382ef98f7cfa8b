/**
 * words: a report, and the holders of a ledger, as lines for people.
 *
 * DESIGN. Names, sites and causes come from users and servers, so each line passes `printable` here: it is one line, without
 * control characters.
 */
import * as Ledger from "../Ledger.ts"
import { printable } from "../Ledger/words.ts"
import type { Unfinished } from "./marks.ts"
import { mostUrgentFirst, type Report, type ResourceReport } from "./report.ts"

export const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`

const many = (count: number): string => count.toLocaleString("en-US")
const firstLine = (text: string): string => text.split("\n", 1)[0]!
const at = (word: string, site: string | undefined): string =>
  site === undefined ? "" : `${word}${firstLine(site)}`
const because = (cause: string | undefined): string =>
  cause === undefined ? "" : `: ${firstLine(cause)}`
const andMore = (count: number): string => count > 0 ? ` and ${many(count)} more` : ""

const mostLines = 50
const mostShown = 5

/** At most 50 of the lines, and how many more there are. */
export const capped = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length <= mostLines
    ? lines
    : [...lines.slice(0, mostLines), `  …${andMore(lines.length - mostLines)}`]

/** The deadlocks, then the entries and the holders that block them; entries that are alike in one line. */
export const holderLines = (
  { deadlocks, live, takenAt }: Ledger.Snapshot
): ReadonlyArray<string> => {
  const byId = new Map(live.map((entry) => [entry.id, entry]))
  const fiberOf = ({ fiber }: Ledger.Entry): string => fiber === undefined ? "" : ` of ${fiber}`
  const blocked = ({ blockedBy }: Ledger.Entry): string => {
    const holders = blockedBy.flatMap((id) => byId.get(id) ?? [])
    const shown = holders.slice(0, mostShown)
      .map((holder) => `${holder.kind} "${holder.name}"${fiberOf(holder)}`)
    return holders.length === 0
      ? ""
      : `; waits for ${shown.join(", ")}${andMore(holders.length - shown.length)}`
  }
  const groups = new Map<string, { what: string; where: string; entries: Array<Ledger.Entry> }>()
  for (const entry of live) {
    const { kind, name, owner, site, state } = entry
    const what = `${state} ${[...owner, `${kind} "${name}"`].join(" > ")}`
    const where = `${at(", requested at ", site)}${blocked(entry)}`
    const group = groups.get(what + where)
    if (group === undefined) groups.set(what + where, { what, where, entries: [entry] })
    else group.entries.push(entry)
  }
  const lines = Array.from(groups.values())
    .toSorted((one, other) => mostUrgentFirst(one.entries[0]!, other.entries[0]!))
    .map(({ entries, what, where }) => {
      const since = entries.reduce((least, { since }) => Math.min(least, since), Infinity)
      const longest = seconds(takenAt - since)
      return entries.length === 1
        ? `  ${what} for ${longest}${fiberOf(entries[0]!)}${where}`
        : `  ${many(entries.length)} x ${what} for up to ${longest}${where}`
    })
  const circles = deadlocks.map((deadlock) => `  ${Ledger.describeDeadlock(deadlock, live)}`)
  return [...capped(circles), ...capped(lines)].map(printable)
}

const words = {
  inFlight: "in flight",
  drains: "draining",
  onDrain: "onDrain hook",
  onStop: "onStop hook",
  program: "program that was to end by itself"
} as const

/** `4 in flight at serve (/app/service.js:62:3), 1 draining`. */
export const unfinishedText = (unfinished: ReadonlyArray<Unfinished>): string => {
  const shown = unfinished.slice(0, mostShown)
    .map(({ count, site, what }) => `${many(count)} ${words[what]}${at(" at ", site)}`)
  const more = unfinished.length - shown.length
  return printable(`${shown.join(", ")}${more > 0 ? ` and more at ${more} other lines` : ""}`)
}

const resourceLine = (
  { cause, kind, name, site, state }: Ledger.Entry | ResourceReport,
  releaseTook: number
): string =>
  `  ${state} ${kind} "${name}" after ${seconds(releaseTook)}${at(", requested at ", site)}${
    state === "abandoned" ? "" : because(cause)
  }`

const hasTrouble = ({ state }: { readonly state: string }): boolean =>
  state === "failed" || state === "abandoned"

/** One line for each hook, resource and fiber that failed or was abandoned. */
export const troubleLines = ({ fibers, hooks, resources }: Report): ReadonlyArray<string> =>
  [
    ...hooks.filter(hasTrouble).map(({ cause, phase, site, state, took }) =>
      `  ${state} ${phase === "draining" ? "onDrain" : "onStop"} hook after ${seconds(took)}${
        at(", registered at ", site)
      }${because(cause)}`
    ),
    ...resources.filter(hasTrouble).map((one) => resourceLine(one, one.releaseTook ?? 0)),
    ...fibers.flatMap(({ cause, fiber }) =>
      cause === undefined
        ? [`  fiber ${fiber} was left behind and did not end`]
        : `fiber ${fiber} was left behind and failed: ${cause}`.split("\n").map((line) =>
          `  ${line}`
        )
    )
  ].map(printable)

/** The releases in a ledger that failed or were abandoned, if there is no report. */
export const troubleIn = ({ ended }: Ledger.Snapshot): ReadonlyArray<string> =>
  ended.filter((entry) => entry.heldAt !== undefined && hasTrouble(entry)).map((entry) =>
    printable(resourceLine(entry, (entry.endedAt ?? 0) - (entry.releasingAt ?? 0)))
  )

const reasonText = ({ reason }: Report): string => {
  if (reason === undefined) return "End"
  if (reason.kind === "signal") return reason.signal
  return reason.kind === "error" ? "Error" : `Asked for by ${reason.by}`
}

/** `SIGTERM: 3 released, 1 abandoned in 0.3 s; stopping overran with 4 in flight; exit 1.` */
export const summary = (report: Report, hasLedger: boolean, isStray: boolean): string => {
  const { abandoned, drained, exitCode, failed, held, phases, released, reported, took } = report
  const counts = [`${many(released)} released`]
  if (failed > 0) counts.push(`${many(failed)} failed`)
  if (abandoned > 0) counts.push(`${many(abandoned)} abandoned`)
  if (held > 0) counts.push(`${many(held)} still held`)
  const overruns = phases.filter(({ overran }) => overran).map(({ phase, unfinished }) =>
    `; ${phase} overran${unfinished.length === 0 ? "" : ` with ${unfinishedText(unfinished)}`}`
  )
  // A ledger of the program's own is not the one that is read here.
  const unknown = Math.max(0, reported - failed - abandoned)
  return printable(
    `${isStray ? "Stray error" : reasonText(report)}: ${
      hasLedger ? counts.join(", ") : "ended"
    } in ${seconds(took)}${overruns.join("")}${
      unknown === 0 ? "" : `; ${many(unknown)} not released, as was reported`
    }${
      drained === 0 ? "" : `; ${many(drained)} drained, run again for the rest`
    }; exit ${exitCode}.`
  )
}
