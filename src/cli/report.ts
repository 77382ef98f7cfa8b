/**
 * report: the results of a mirror run, as data and as lines for people.
 *
 * INVARIANTS
 * - Report-1 The counts are those of the items: they add up by construction.
 */
import type * as Batch from "../Batch.ts"
import type * as Ledger from "../Ledger.ts"
import type * as UrlList from "./urlList.ts"

/** One URL, or one rejected line (`skipped`, its text in `url`). Bytes; sha256 in hex; `path` below the folder. */
export interface Item {
  readonly url: string
  readonly status: Batch.Ending<unknown, unknown>["status"]
  readonly path: string | null
  readonly bytes: number | null
  readonly sha256: string | null
  readonly attempts: number
  readonly error: string | null
}

/** The JSON of `--report`. */
export interface Report {
  readonly taken: number
  readonly done: number
  readonly alreadyDone: number
  readonly skipped: number
  readonly failed: number
  readonly interrupted: number
  readonly ledger: {
    readonly acquired: number
    readonly released: number
    readonly abandoned: number
  }
  readonly items: ReadonlyArray<Item>
}

export const rejected = ({ line, reason, text }: UrlList.Rejected): Item => ({
  url: text,
  status: "skipped",
  path: null,
  bytes: null,
  sha256: null,
  attempts: 0,
  error: `line ${line}: ${reason}`
})

export const make = (items: ReadonlyArray<Item>, ledger: Ledger.Snapshot | undefined): Report => {
  const count = (status: Item["status"]): number =>
    items.reduce((sum, item) => item.status === status ? sum + 1 : sum, 0)
  const { abandoned = 0, acquired = 0, released = 0 } = ledger?.total ?? {}
  return {
    taken: items.length,
    done: count("done"),
    alreadyDone: count("alreadyDone"),
    skipped: count("skipped"),
    failed: count("failed"),
    interrupted: count("interrupted"),
    ledger: { acquired, released, abandoned },
    items
  }
}

const maxNamed = 50

/** The end of the run for people: each failure by name, the counts, the ledger by kind. */
export const lines = (
  report: Report,
  ledger: Ledger.Snapshot | undefined
): ReadonlyArray<string> => {
  const bad = report.items.filter(({ status }) => status === "failed" || status === "skipped")
  const named = bad.slice(0, maxNamed).map(({ error, status, url }) => `${status} ${url}: ${error}`)
  const more = bad.length > maxNamed
    ? [`… and ${bad.length - maxNamed} more; --report names them all.`]
    : []
  const { alreadyDone, done, failed, interrupted, skipped, taken } = report
  const sum = ({ abandoned, acquired, released }: Report["ledger"]): string =>
    `${acquired} acquired, ${released} released, ${abandoned} abandoned`
  return [
    ...named,
    ...more,
    `${taken} taken: ${done} done, ${alreadyDone} already done, ${skipped} skipped, ${failed} failed, ${interrupted} interrupted.`,
    `Ledger: ${sum(report.ledger)}.`,
    ...Object.entries(ledger?.kinds ?? {}).map(([kind, counts]) => `  ${kind}: ${sum(counts)}`)
  ]
}
