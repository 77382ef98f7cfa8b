/**
 * timeline: a snapshot as SVG: a row for each hold, grouped by owner, on one axis of time.
 *
 * DESIGN. Shape shows the state first (hatched while acquiring, solid while held, striped while releasing; at the end a tick, a
 * cross, a triangle, or an arrow if it is live), then colour. Colours are CSS variables with a dark set, so one file serves
 * both. The area on top is the load of *all* entries, with a row or without.
 */
import type * as Ledger from "../../Ledger.ts"
import { printable } from "../words.ts"
import * as Analysis from "./analysis.ts"
import * as Format from "./format.ts"

interface Size {
  readonly width: number
  readonly rows: number
}

const margin = 16
const loadHeight = 40
const mostDeadlocks = 3
const mostWaits = 8
const mostNamed = 5

const style = `
.hf{--bg:#fff;--ink:#1b2029;--soft:#5c6675;--line:#e4e7ec;--held:#2f6db5;--acquiring:#a86500;--releasing:#0b7f74;--failed:#c0390b;--abandoned:#8f2d86;--load:#dbe6f4;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){.hf{--bg:#11151b;--ink:#e3e7ed;--soft:#97a2b2;--line:#28303b;--held:#6ca6ee;--acquiring:#e3a93c;--releasing:#45c2b2;--failed:#ff8660;--abandoned:#e08ad8;--load:#1e2f45}}
.hf text{fill:var(--ink)}.hf .soft{fill:var(--soft)}.hf .h1{font-size:15px;font-weight:600}.hf .owner{font-weight:600}.hf .bad{fill:var(--failed);font-weight:600}
.hf .end{text-anchor:end}.hf .mid{text-anchor:middle}.hf .rule{stroke:var(--line)}.hf .held{fill:var(--held)}
.hf .acquiring{fill:url(#hf-acquiring);stroke:var(--acquiring)}.hf .releasing{fill:url(#hf-releasing);stroke:var(--releasing)}
.hf .failed,.hf .cross{fill:none;stroke:var(--failed);stroke-width:2}.hf .abandoned{fill:var(--abandoned)}.hf .tick{stroke:var(--ink);stroke-width:1.5}.hf .live{fill:var(--ink)}
.hf .load{fill:var(--load);stroke:var(--held)}.hf .line{fill:none;stroke:var(--acquiring);stroke-dasharray:3 2}`
  .trim()

const patterns = `<defs>
<pattern id="hf-acquiring" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="5" height="5" fill="var(--bg)"/><rect width="1.6" height="5" fill="var(--acquiring)"/></pattern>
<pattern id="hf-releasing" width="4" height="4" patternUnits="userSpaceOnUse"><rect width="4" height="4" fill="var(--bg)"/><rect width="2" height="4" fill="var(--releasing)"/></pattern>
</defs>`

const round = (value: number): string => String(Math.round(value * 10) / 10)

/** In pixels. Wide scripts need about twice the width. */
const widthOf = (character: string): number => character.codePointAt(0)! > 0x2e7f ? 12.5 : 6.5

/** The text in lines of at most `room` pixels. */
const wrapped = (text: string, room: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  let used = 0
  for (const word of printable(text).split(" ")) {
    const width = Array.from(word).reduce((sum, character) => sum + widthOf(character), 4)
    if (used > 0 && used + width > room) {
      lines.push(line)
      line = ""
      used = 0
    }
    line = line === "" ? word : `${line} ${word}`
    used += width
  }
  return [...lines, line]
}

/** Shortened in the middle, because the ends of a name are the most specific. */
const fittedEnds = (text: string, room: number): string => {
  const characters = Array.from(printable(text))
  const widths = characters.map(widthOf)
  let left = room
  if (widths.reduce((sum, width) => sum + width, 0) <= room) return Format.escaped(text)
  let head = 0
  while (head < characters.length && left - widths[head]! > room * 0.5) left -= widths[head++]!
  let tail = characters.length
  while (tail > head && left - widths[tail - 1]! > 10) left -= widths[--tail]!
  return Format.escaped(`${characters.slice(0, head).join("")}…${characters.slice(tail).join("")}`)
}

const fitted = (text: string, room: number): string => {
  let used = 0
  const characters = Array.from(printable(text))
  for (const [at, character] of characters.entries()) {
    used += widthOf(character)
    if (used > room) return Format.escaped(`${characters.slice(0, Math.max(0, at - 1)).join("")}…`)
  }
  return Format.escaped(text)
}

interface Drawn {
  readonly entry: Ledger.Entry
  readonly phases: Analysis.Phases
}

type Ending = "live" | "abandoned" | "failed" | "released"
const endings: ReadonlyArray<Ending> = ["live", "abandoned", "failed", "released"]
const endingOf = ({ state }: Ledger.Entry): Ending =>
  state === "abandoned" || state === "failed" || state === "released" ? state : "live"

/**
 * The entries of deadlocks, then the longest of each ending with a quarter of the rows each, so that a thousand failures do not
 * hide the live ones; then the longest. By the time of their requests.
 */
const chosen = (
  snapshot: Ledger.Snapshot,
  span: Analysis.Span,
  rows: number
): ReadonlyArray<Drawn> => {
  const all = Analysis.entriesOf(snapshot)
    .map((entry) => ({ entry, phases: Analysis.phasesOf(entry, span) }))
    .toSorted((one, other) => lengthOf(other) - lengthOf(one) || one.entry.id - other.entry.id)
  const stuck = new Set<number>()
  for (const { waits } of snapshot.deadlocks) {
    for (const { holder, waiter } of waits) stuck.add(holder).add(waiter)
  }
  const share = Math.floor(rows / endings.length)
  const first = endings.flatMap((ending) =>
    all.filter(({ entry }) => endingOf(entry) === ending).slice(0, share)
  )
  return Array.from(new Set([...all.filter(({ entry }) => stuck.has(entry.id)), ...first, ...all]))
    .slice(0, rows)
    .toSorted((one, other) =>
      one.phases.requested - other.phases.requested || one.entry.id - other.entry.id
    )
}

/** `15 live, 13 abandoned, 32 released`. */
const composition = (drawn: ReadonlyArray<Drawn>): string =>
  endings.flatMap((ending) => {
    const n = drawn.filter(({ entry }) => endingOf(entry) === ending).length
    return n === 0 ? [] : [`${Format.count(n)} ${ending}`]
  }).join(", ")

const lengthOf = ({ phases }: Drawn): number => phases.end - phases.requested

const byOwner = (drawn: ReadonlyArray<Drawn>): ReadonlyMap<string, ReadonlyArray<Drawn>> => {
  const groups = new Map<string, Array<Drawn>>()
  for (const one of drawn) {
    const owner = one.entry.owner.join(" › ")
    const group = groups.get(owner) ?? []
    groups.set(owner, group)
    group.push(one)
  }
  return groups
}

/** The place of each drawn entry in the order of their ends. */
const orderOf = (drawn: ReadonlyArray<Drawn>, snapshot: Ledger.Snapshot) => {
  const shown = new Set(drawn.map(({ entry }) => entry.id))
  const inOrder = snapshot.ended.filter(({ id }) => shown.has(id))
  return new Map(inOrder.map(({ id }, index) => [id, index + 1]))
}

interface Plan extends Size {
  readonly left: number
  readonly right: number
  readonly isNarrow: boolean
  readonly rowHeight: number
  readonly x: (at: number) => number
}

const planOf = ({ rows, width }: Size, { from, to }: Analysis.Span): Plan => {
  const isNarrow = width < 640
  const left = margin + (isNarrow ? 0 : Math.min(320, width * 0.3))
  const right = width - margin - (isNarrow ? 10 : 104)
  const x = (at: number): number => left + (at - from) / (to - from) * (right - left)
  return { width, rows, left, right, isNarrow, rowHeight: isNarrow ? 36 : 22, x }
}

const bar = (
  className: string,
  { x }: Plan,
  from: number,
  to: number,
  middle: number,
  height: number
): string => {
  const [y, width] = [round(middle - height / 2), round(Math.max(1.5, x(to) - x(from)))]
  return `<rect class="${className}" x="${
    round(x(from))
  }" y="${y}" width="${width}" height="${height}"/>`
}

const endMark = (state: Ledger.State, x: number, y: number): string => {
  const at = (dx: number, dy: number) => `${round(x + dx)} ${round(y + dy)}`
  switch (state) {
    case "failed":
      return `<path class="cross" d="M${at(-4, -4)}L${at(4, 4)}M${at(-4, 4)}L${at(4, -4)}"/>`
    case "abandoned":
      return `<path class="abandoned" d="M${at(0, -6)}L${at(6, 5)}L${at(-6, 5)}Z"/>`
    case "released":
      return `<path class="tick" d="M${at(0, -7)}L${at(0, 7)}"/>`
    default:
      return `<path class="live" d="M${at(1, -5)}L${at(7, 0)}L${at(1, 5)}Z"/>`
  }
}

const barsOf = ({ entry, phases }: Drawn, plan: Plan, y: number): string => {
  const { end, held, releasing, requested } = phases
  return Format.joined([
    held === requested ? "" : bar("acquiring", plan, requested, held ?? end, y, 7),
    held === undefined ? "" : bar("held", plan, held, releasing ?? end, y, 11),
    releasing === undefined || releasing === end
      ? ""
      : bar("releasing", plan, releasing, end, y, 9),
    endMark(entry.state, plan.x(end), y)
  ], "")
}

const tooltip = ({ entry, phases }: Drawn, { from }: Analysis.Span): string => {
  const { end, held, isLive, releasing, requested } = phases
  const { blockedBy } = entry
  const named = blockedBy.slice(0, mostNamed).map((id) => `[${id}]`).join(" ")
  const waited = held !== undefined ? "waited" : isLive ? "waiting" : "waited in vain"
  return Format.joined([
    `${entry.kind} "${entry.name}" [${entry.id}], ${entry.state}`,
    `requested at +${Format.duration(requested - from)}`,
    `${waited} ${Format.duration((held ?? end) - requested)}`,
    held === undefined ? "" : `held ${Format.duration((releasing ?? end) - held)}`,
    releasing === undefined ? "" : `releasing ${Format.duration(end - releasing)}`,
    entry.fiber === undefined ? "" : `fiber ${entry.fiber}`,
    entry.site === undefined ? "" : `at ${Format.shortSite(entry.site)}`,
    blockedBy.length === 0
      ? ""
      : `waits for ${named}${Format.andMore(blockedBy.length - mostNamed)}`,
    entry.cause === undefined ? "" : Format.firstLine(entry.cause).slice(0, 200)
  ], "; ")
}

const rowOf = (
  drawn: Drawn,
  plan: Plan,
  span: Analysis.Span,
  y: number,
  order: number | undefined
): string => {
  const { entry, phases } = drawn
  const { isNarrow, left, right, width } = plan
  const room = (isNarrow ? right - 104 : left) - margin - 16
  const label = fittedEnds(`${entry.kind} ${entry.name}`, room)
  const barAt = isNarrow ? y + 25 : y + 11
  const held = phases.held === undefined
    ? phases.isLive ? "not yet" : "never held"
    : Format.duration((phases.releasing ?? phases.end) - phases.held)
  const text = (attributes: string, content: unknown): string =>
    `<text ${attributes}" y="${round(isNarrow ? y + 13 : y + 15)}">${content}</text>`
  const parts = [
    `<title>${Format.escaped(tooltip(drawn, span))}</title>`,
    text(`x="${isNarrow ? margin : margin + 8}`, label),
    barsOf(drawn, plan, barAt),
    text(`class="end" x="${width - margin - 32}`, held),
    order === undefined ? "" : text(`class="soft end" x="${width - margin}`, order)
  ]
  return `<g>${parts.join("")}</g>`
}

const loadArea = (load: Analysis.Load, { left, right }: Plan, top: number): string => {
  const most = Math.max(1, ...load.held, ...load.acquiring)
  const step = (right - left) / load.held.length
  const path = (values: ReadonlyArray<number>): string =>
    values.map((value, at) => {
      const y = round(top + loadHeight - value / most * loadHeight)
      return `${at === 0 ? "M" : "L"}${round(left + at * step)} ${y}h${round(step)}`
    }).join("")
  const line = load.acquiring.some((value) => value > 0)
    ? `<path class="line" d="${path(load.acquiring)}"/>`
    : ""
  const bottom = top + loadHeight
  return `<path class="load" d="${path(load.held)}V${bottom}H${round(left)}Z"/>${line}`
}

const axis = (plan: Plan, { from, to }: Analysis.Span, top: number, bottom: number): string => {
  const step = Format.tickStep(to - from, Math.max(2, Math.floor((plan.right - plan.left) / 80)))
  const ticks: Array<string> = []
  for (let at = 0; at <= to - from; at += step) {
    const x = round(plan.x(from + at))
    const [anchor, label] = at === 0 ? ["", "0"] : ["mid", Format.tickLabel(at)]
    ticks.push(
      `<path class="rule" d="M${x} ${top + 6}V${bottom}"/>`,
      `<text class="soft ${anchor}" x="${x}" y="${top}">${label}</text>`
    )
  }
  return ticks.join("")
}

const legend = (plan: Plan, y: number): string => {
  const samples: ReadonlyArray<readonly [string, (x: number) => string]> = [
    ["acquiring", (x) => `<rect class="acquiring" x="${x}" y="${y - 7}" width="20" height="7"/>`],
    ["held", (x) => `<rect class="held" x="${x}" y="${y - 9}" width="20" height="11"/>`],
    ["releasing", (x) => `<rect class="releasing" x="${x}" y="${y - 8}" width="20" height="9"/>`],
    ["released", (x) => endMark("released", x + 14, y - 4)],
    ["failed", (x) => endMark("failed", x + 14, y - 4)],
    ["abandoned", (x) => endMark("abandoned", x + 14, y - 4)],
    ["live", (x) => endMark("held", x + 10, y - 4)]
  ]
  const columns = plan.isNarrow ? Math.max(2, Math.floor((plan.width - 2 * margin) / 100)) : 7
  return samples.map(([word, sample], at) => {
    const x = margin + at % columns * 100
    const text = `<text class="soft" x="${x + 26}" y="${y}">${word}</text>`
    return `<g transform="translate(0 ${Math.floor(at / columns) * 18})">${sample(x)}${text}</g>`
  }).join("")
}

const deadlocksOf = (snapshot: Ledger.Snapshot): ReadonlyArray<string> => {
  const entries = Analysis.byId(snapshot)
  const lines = snapshot.deadlocks.slice(0, mostDeadlocks).map(({ waits }) => {
    const shown = waits.slice(0, mostWaits).map(({ waiter }) => {
      const entry = entries.get(waiter)
      return entry === undefined
        ? `[${waiter}]`
        : `fiber ${entry.fiber ?? "?"} waits for ${entry.kind} ${entry.name}`
    })
    return `Deadlock: ${shown.join(", ")}${Format.andMore(waits.length - mostWaits)}`
  })
  const more = snapshot.deadlocks.length - lines.length
  return more > 0 ? [...lines, `… and ${Format.count(more)} more deadlocks`] : lines
}

export const draw = (snapshot: Ledger.Snapshot, size: Size): string => {
  const span = Analysis.spanOf(snapshot)
  const plan = planOf(size, span)
  const { headline } = Analysis.verdictOf(snapshot)
  const all = snapshot.live.length + snapshot.ended.length
  const drawn = chosen(snapshot, span, size.rows)
  const order = orderOf(drawn, snapshot)
  const room = size.width - 2 * margin
  const parts: Array<string> = []
  let y = margin + 14
  const addText = (className: string, text: string): void => {
    const isTitle = className === "h1"
    for (const line of wrapped(text, isTitle ? room * 0.78 : room)) {
      parts.push(`<text class="${className}" x="${margin}" y="${y}">${fitted(line, room)}</text>`)
      y += isTitle ? 20 : 17
    }
  }

  addText("h1", headline)
  const taken = `${Format.duration(span.to - span.from)} up to ${Format.instant(snapshot.takenAt)}`
  addText("soft", `${taken}; ${Format.plural(all, "entry", "entries")}`)
  if (drawn.length < all) {
    const first = snapshot.deadlocks.length > 0 ? "deadlocks and " : ""
    const shown = `Showing ${Format.count(drawn.length)} of ${Format.count(all)}`
    addText("soft", `${shown}, ${first}the longest of each: ${composition(drawn)}`)
  }
  for (const text of deadlocksOf(snapshot)) addText("bad", text)

  const load = Analysis.loadOf(
    snapshot,
    span,
    Math.max(20, Math.floor((plan.right - plan.left) / 4))
  )
  y += 4
  parts.push(loadArea(load, plan, y))
  const most = `held at once: at most ${Format.count(Math.max(0, ...load.held))}`
  y += loadHeight + (plan.isNarrow ? 14 : 0)
  parts.push(`<text class="soft" x="${margin + (plan.isNarrow ? 0 : 8)}" y="${y}">${most}</text>`)
  if (!plan.isNarrow) y += 22
  parts.push(
    `<text class="soft end" x="${size.width - margin - 32}" y="${y}">held</text>`,
    `<text class="soft end" x="${size.width - margin}" y="${y}">end</text>`
  )
  if (plan.isNarrow) y += 22
  const axisTop = y
  y += 10
  const rows: Array<string> = []
  const groups = byOwner(drawn)
  for (const [owner, group] of groups) {
    if (groups.size > 1 || owner !== "") {
      const title = fitted(owner === "" ? "no owner" : owner, room * 0.9)
      rows.push(`<text class="owner" x="${margin}" y="${y + 16}">${title}</text>`)
      y += 24
    }
    for (const one of group) {
      rows.push(rowOf(one, plan, span, y, order.get(one.entry.id)))
      y += plan.rowHeight
    }
    y += 6
  }
  parts.push(axis(plan, span, axisTop, y), ...rows)
  y += 22
  parts.push(legend(plan, y))
  y += plan.isNarrow ? 54 : 16

  const description =
    `Who held what when, in ${Format.count(drawn.length)} of ${Format.count(all)} rows grouped by `
    + `owner, on an axis of ${Format.duration(span.to - span.from)}. `
    + `The column "end" numbers them in the order of their ends.`
  const [width, height] = [size.width, Math.ceil(y)]
  return `<svg xmlns="http://www.w3.org/2000/svg" class="hf" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="hf-title hf-desc">
<title id="hf-title">${Format.escaped(`Ledger: ${headline}`)}</title>
<desc id="hf-desc">${Format.escaped(description)}</desc>
<style>${style}</style>
${patterns}
<rect width="100%" height="100%" fill="var(--bg)"/>
${parts.join("\n")}
</svg>
`
}
