/**
 * page: a snapshot as one self-contained HTML page.
 *
 * DESIGN. The page is a fixed skeleton, style and script around one block of data. Only the title of a snapshot is written as
 * markup; the rest is data that the script inserts as text. The data is small: entries are rows of numbers that point into a
 * table of strings, times are milliseconds after the first and already in order (analysis.ts). The policy names script and
 * style by hash, and allows no request at all.
 */
import { createHash } from "node:crypto"
import type * as Ledger from "../../Ledger.ts"
import * as Analysis from "./analysis.ts"
import { count, duration, escaped, firstLine, instant, tickSteps } from "./format.ts"
import { plainAttributes } from "./json.ts"
import { script } from "./pageScript.ts"
import { style } from "./pageStyle.ts"

const buckets = 240
const mostProblems = 6
const mostExamples = 4
const mostDeadlocks = 5
const mostWaits = 20
const mostLinks = 20

/** A table of distinct texts; 0 stands for none. */
class Strings {
  readonly all: Array<string | null> = [null]
  readonly #known = new Map<string, number>()

  indexOf(text: string | undefined): number {
    if (text === undefined) return 0
    const known = this.#known.get(text)
    if (known !== undefined) return known
    this.#known.set(text, this.all.length)
    return this.all.push(text) - 1
  }
}

/** The first of the entries that one entry waits for, or that wait for it. */
interface Links {
  readonly ids: ReadonlyArray<number>
  readonly many: number
}

const waitersOf = (entries: ReadonlyArray<Ledger.Entry>): ReadonlyMap<number, Links> => {
  const waiters = new Map(entries.map(({ id }) => [id, { ids: new Array<number>(), many: 0 }]))
  for (const { blockedBy, id } of entries) {
    for (const holder of blockedBy) {
      const known = waiters.get(holder)
      if (known !== undefined && known.many++ < mostLinks) known.ids.push(id)
    }
  }
  return waiters
}

/** The fields in the order that pageScript.ts names; -1 for a missing time. */
const rowOf = (entry: Ledger.Entry, waiters: Links, span: Analysis.Span, strings: Strings) => {
  const { end, held, releasing, requested } = Analysis.phasesOf(entry, span)
  const since = (at: number | undefined): number => at === undefined ? -1 : at - span.from
  const row: Array<number | ReadonlyArray<number>> = [
    entry.id,
    Analysis.states.indexOf(entry.state),
    strings.indexOf(entry.kind),
    strings.indexOf(entry.name),
    entry.owner.length === 0 ? 0 : strings.indexOf(entry.owner.join(" › ")),
    strings.indexOf(entry.fiber),
    strings.indexOf(entry.span),
    strings.indexOf(entry.site),
    strings.indexOf(JSON.stringify(plainAttributes(entry), null, 2)),
    strings.indexOf(entry.cause),
    since(requested),
    since(held),
    since(releasing),
    since(end)
  ]
  const { blockedBy } = entry
  if (blockedBy.length > 0 || waiters.many > 0) {
    row.push(blockedBy.slice(0, mostLinks), blockedBy.length, waiters.ids, waiters.many)
  }
  return row
}

/** Failed and abandoned entries, grouped by kind and cause: abandoned first, then the largest groups. */
const problemsOf = (ended: ReadonlyArray<Ledger.Entry>, strings: Strings) => {
  interface Problem {
    readonly state: number
    readonly kind: number
    readonly cause: number
    readonly failedToRelease: boolean
    readonly ids: Array<number>
    many: number
  }
  const groups = new Map<string, Problem>()
  for (const entry of ended) {
    if (entry.state === "released") continue
    const failedToRelease = entry.heldAt !== undefined
    // Causes that differ only by the name are one group.
    const first = entry.cause && firstLine(entry.cause).replaceAll(entry.name, "…")
    const key = JSON.stringify([entry.state, entry.kind, failedToRelease, first])
    const group = groups.get(key) ?? {
      state: Analysis.states.indexOf(entry.state),
      kind: strings.indexOf(entry.kind),
      cause: strings.indexOf(entry.cause),
      failedToRelease,
      ids: [],
      many: 0
    }
    groups.set(key, group)
    group.many++
    if (group.ids.length < mostExamples) group.ids.push(entry.id)
  }
  return Array.from(groups.values()).toSorted((one, other) =>
    other.state - one.state
    || Number(other.failedToRelease) - Number(one.failedToRelease)
    || other.many - one.many
  )
}

const iconOf = ({ counts, tone }: Analysis.Verdict, isDeadlock: boolean): string => {
  if (isDeadlock) return "deadlock"
  if (tone === "lost") return "abandoned"
  if (tone === "failed") return "failed"
  if (tone === "quiet") return "released"
  return counts.held > 0 ? "held" : counts.releasing > 0 ? "releasing" : "acquiring"
}

const dataOf = (snapshot: Ledger.Snapshot, verdict: Analysis.Verdict, span: Analysis.Span) => {
  const { deadlocks, ended, kinds, total } = snapshot
  const strings = new Strings()
  const entries = Analysis.entriesOf(snapshot)
  const waiters = waitersOf(entries)
  const rows = entries.map((entry) => rowOf(entry, waiters.get(entry.id)!, span, strings))
  const problems = problemsOf(ended, strings)
  return {
    states: Analysis.states,
    severity: Analysis.states.map((state) => Analysis.severity[state]),
    steps: tickSteps,
    icon: iconOf(verdict, deadlocks.length > 0),
    from: span.from,
    span: span.to - span.from,
    load: Analysis.loadOf(snapshot, span, buckets),
    stats: [
      ["acquired", total.acquired, ""],
      ["released", total.released, ""],
      ["held now", verdict.counts.held, "held"],
      ["acquiring", verdict.counts.acquiring, "acquiring"],
      ["releasing", verdict.counts.releasing, "releasing"],
      ["releases failed", total.failed, "failed"],
      ["abandoned", total.abandoned, "abandoned"]
    ],
    kinds: Object.entries(kinds).map((
      [kind, { abandoned, acquired, failed, released }]
    ) => [kind, acquired, released, acquired - released - abandoned, failed, abandoned]),
    deadlocks: deadlocks.slice(0, mostDeadlocks).map(({ waits }) => ({
      fibers: waits.length,
      waits: waits.slice(0, mostWaits).map(({ holder, waiter }) => [waiter, holder])
    })),
    moreDeadlocks: Math.max(0, deadlocks.length - mostDeadlocks),
    problems: problems.slice(0, mostProblems),
    moreProblems: problems.slice(mostProblems).reduce((sum, { many }) => sum + many, 0),
    strings: strings.all,
    rows
  }
}

/** INVARIANT View-3: JSON without `<`, so that nothing in the block of data reads as markup. */
const inScript = (data: unknown): string => JSON.stringify(data).replaceAll("<", "\\u003c")

/** With no line break between a number and its word. */
const unbroken = (text: string): string => text.replace(/(\d) /g, "$1\u00a0")

const hashOf = (text: string): string =>
  `'sha256-${createHash("sha256").update(text).digest("base64")}'`

const symbols = `<svg class="unseen" aria-hidden="true"><defs>
<symbol id="i-acquiring" viewBox="0 0 14 14"><circle cx="7" cy="7" r="5" fill="none" stroke="currentColor" stroke-width="1.8" stroke-dasharray="2.9 2.3"/></symbol>
<symbol id="i-held" viewBox="0 0 14 14"><circle cx="7" cy="7" r="5.4" fill="currentColor"/></symbol>
<symbol id="i-releasing" viewBox="0 0 14 14"><circle cx="7" cy="7" r="5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="M7 2a5 5 0 0 0 0 10z" fill="currentColor"/></symbol>
<symbol id="i-released" viewBox="0 0 14 14"><path d="M2.5 7.5l3 3 6-7" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/></symbol>
<symbol id="i-failed" viewBox="0 0 14 14"><path d="M3 3l8 8M11 3l-8 8" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round"/></symbol>
<symbol id="i-abandoned" viewBox="0 0 14 14"><path d="M7 1.6L13 12.4H1z" fill="currentColor"/></symbol>
<symbol id="i-deadlock" viewBox="0 0 14 14"><path d="M2 6.2a5.2 5.2 0 0 1 9.4-2.1M12 7.8a5.2 5.2 0 0 1-9.4 2.1" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/><path d="M12.6 1.2v4h-4zM1.4 12.8v-4h4z" fill="currentColor"/></symbol>
<symbol id="i-goes" viewBox="0 0 14 14"><path d="M6 1.5L13 7l-7 5.5z" fill="currentColor"/></symbol>
<symbol id="i-arrow" viewBox="0 0 8 8"><path d="M4 1.2L7.4 6.8H.6z" fill="currentColor"/></symbol>
</defs></svg>`

const columns = [
  ["state", "State", "c-state"],
  ["kind", "Kind", "c-kind"],
  ["name", "Name", "c-name"],
  ["owner", "Owner", "c-owner"],
  ["fiber", "Fiber", "c-fiber"],
  ["waited", "Waited", "c-num"],
  ["held", "Held", "c-num"],
  ["release", "Release", "c-num"],
  ["time", "Time, by start", "c-time"]
] as const

const arrow = `<svg class="arrow" aria-hidden="true"><use href="#i-arrow"/></svg>`
const head = columns.map(([column, title, className]) => {
  const classes = className === "c-num" ? `${column} num` : column
  const marks = column === "time" ? `<div class="marks" id="ticks" aria-hidden="true"></div>` : ""
  return `<th role="columnheader" scope="col" data-column="${column}" aria-sort="none" class="${classes}">`
    + `<button type="button">${title}${arrow}</button>${marks}</th>`
}).join("")

const key = (state: string): string =>
  `<span class="key"><span class="lane"><i class="s-${state}"></i></span>${state}</span>`

export const draw = (snapshot: Ledger.Snapshot): string => {
  const span = Analysis.spanOf(snapshot)
  const verdict = Analysis.verdictOf(snapshot)
  const allowed = `script-src ${hashOf(script)}; style-src ${hashOf(style)}; img-src data:`
  const policy = `default-src 'none'; ${allowed}; base-uri 'none'; form-action 'none'`
  const lasted = duration(span.to - span.from)
  const widths = columns.map(([, , className]) => `<col class="${className}">`).join("")
  const keys = ["acquiring", "held", "releasing"].map(key).join("")
  const [live, ended] = [count(snapshot.live.length), count(snapshot.ended.length)]
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Ledger: ${escaped(verdict.headline)}</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
${symbols}
<header>
<p class="eyebrow"><span><b>Ledger</b> of resources</span><span>${lasted} up to ${
    escaped(instant(snapshot.takenAt))
  }</span></p>
<h1 id="headline"><span>${escaped(unbroken(verdict.headline))}</span></h1>
<dl class="stats" id="stats"></dl>
</header>
<main>
<noscript><p class="empty">This page is drawn by its own script. Without it: holdfast view --svg, or --text.</p></noscript>
<div class="pair" id="pair">
<section class="card" aria-labelledby="problems-title"><h2 id="problems-title">What went wrong</h2><ul class="problems" id="problems"></ul></section>
<div class="side"><section class="card" aria-labelledby="kinds-title"><h2 id="kinds-title">By kind, since the start</h2><div class="scroll" tabindex="0"><table class="kinds"><thead><tr><th scope="col">kind</th><th scope="col">acquired</th><th scope="col">released</th><th scope="col">held</th><th scope="col">failed</th><th scope="col">aband.</th></tr></thead><tbody id="kinds"></tbody></table></div></section>
<section class="card" id="oldestcard" aria-labelledby="oldest-title"><h2 id="oldest-title">Held longest, and still held</h2><ol class="oldest" id="oldest"></ol></section></div>
</div>
<div class="tools" id="tools" role="search">
<div class="find"><label class="unseen" for="search">Filter the entries</label><input id="search" type="search" placeholder="Filter by name, owner, line, cause" title="Every word must be found; press / to get here" autocomplete="off" spellcheck="false"><output id="count" for="search" aria-live="polite"></output><button type="button" class="link" id="clear" hidden>Clear</button></div>
<div class="sets"><div class="chips" id="states" role="group" aria-label="States"></div><div class="chips" id="kindchips" role="group" aria-label="Kinds"></div></div>
</div>
<section class="load" aria-labelledby="load-title">
<div class="head"><h2 id="load-title">Load</h2><span class="soft" id="peak"></span><span class="zoom"><span class="soft" id="window" aria-live="polite"></span><button type="button" id="in" aria-label="Zoom in">+</button><button type="button" id="out" aria-label="Zoom out">−</button><button type="button" id="all">Whole run</button></span></div>
<div class="graph" id="graph" tabindex="0" role="group" aria-label="Time that is shown: plus and minus zoom, arrows move, Escape shows the whole run"><div class="brush" id="brush" hidden></div></div>
<div class="marks" id="whole" aria-hidden="true"></div>
</section>
<div class="sheet" id="sheet">
<table class="entries" id="entries" role="table" aria-label="Entries"><colgroup>${widths}</colgroup><thead role="rowgroup"><tr role="row">${head}</tr></thead><tbody role="rowgroup" id="body"></tbody></table>
<p class="empty" id="nothing" hidden></p>
</div>
</main>
<footer class="foot">${keys}<span>${live} live and the last ${ended} that ended</span></footer>
<aside class="detail" id="detail" hidden></aside>
<script type="application/json" id="ledger">${inScript(dataOf(snapshot, verdict, span))}</script>
<script>${script}</script>
</body>
</html>
`
}
