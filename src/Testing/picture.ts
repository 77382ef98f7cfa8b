/**
 * picture: a verdict as SVG, and one or more of them as an HTML page.
 *
 * DESIGN. For each finding one line of all operations, on which its windows stand: bars for operations, diamonds for waits. A
 * nearer grade is a higher bar, so colour is never alone. Colours are CSS variables with a dark set, as in `Ledger/View`. The page has no
 * script and allows no request. Texts come from programs, so each passes `escaped`.
 */
import { clipped, count, escaped, plural } from "../Ledger/View/format.ts"
import { type Finding, type Grade, grades, meanings, type Range } from "./findings.ts"
import type { Verdict } from "./report.ts"

const style = `
.hfx{--bg:#fff;--ink:#1b2029;--soft:#5c6675;--line:#c9ced6;--R0:#b3261e;--R1:#a35200;--R2:#7b3294;--R3:#2f6db5;--R4:#667080;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){.hfx{--bg:#11151b;--ink:#e3e7ed;--soft:#97a2b2;--line:#3a4450;--R0:#ff8a70;--R1:#f0b44c;--R2:#d79be6;--R3:#7db2f0;--R4:#98a3b2}}
.hfx text{fill:var(--ink)}.hfx .soft{fill:var(--soft)}.hfx .h1{font-size:15px;font-weight:600}.hfx .b{font-weight:600}.hfx .end{text-anchor:end}.hfx .rule{stroke:var(--line);stroke-width:2}
${grades.map((grade) => `.hfx .${grade}{fill:var(--${grade})}`).join("")}`.trim()

const heights: Record<Grade, number> = { R0: 20, R1: 16, R2: 12, R3: 8, R4: 5 }

const width = 960
const margin = 16
const lineHeight = 46
const headHeight = 66

const round = (value: number): string => String(Math.round(value * 10) / 10)

const rangeText = ({ from, grade, kind, to }: Range): string => {
  const where = kind === "wait"
    ? `as it waits after operation ${count(from)}`
    : `${kind === "other" ? "operations of other fibers" : "operations"} ${count(from)} to ${
      count(to)
    }`
  return `${grade}: ${where}`
}

/** A window on the line of all operations. */
const mark = (range: Range, most: number, y: number): string => {
  const x = (operation: number) => margin + operation / Math.max(1, most) * (width - 2 * margin)
  const { from, grade, kind, to } = range
  const height = heights[grade]
  const title = `<title>${escaped(rangeText(range))}</title>`
  if (kind === "wait") {
    const [at, half] = [x(from), 4 + height / 4]
    const corners = [[at, y - half], [at + half, y], [at, y + half], [at - half, y]]
    return `<polygon class="${grade}" points="${
      corners.map(([left = 0, top = 0]) => `${round(left)},${round(top)}`).join(" ")
    }">${title}</polygon>`
  }
  const left = x(from - 1)
  return `<rect class="${grade}" x="${round(left)}" y="${round(y - height / 2)}" width="${
    round(Math.max(3, x(to) - left))
  }" height="${height}" rx="2">${title}</rect>`
}

const headOf = ({ at, grade, mistake, violations }: Finding, index: number): string =>
  clipped(
    `${index + 1} · ${grade} · ${mistake?.kind ?? violations[0]?.law ?? ""}${
      at === undefined ? "" : ` · ${at}`
    }`,
    130
  )

/** A line of operations and the windows on it. */
const lineOf = (ranges: ReadonlyArray<Range>, most: number, label: string, y: number): string =>
  [
    `<line class="rule" x1="${margin}" x2="${width - margin}" y1="${y}" y2="${y}"/>`,
    ...ranges.map((range) => mark(range, most, y)),
    `<text class="soft" x="${margin}" y="${y + 22}">1</text>`,
    `<text class="soft end" x="${width - margin}" y="${y + 22}">${count(most)} ${label}</text>`
  ].join("\n")

const hasOthers = ({ ranges }: Finding): boolean => ranges.some(({ kind }) => kind === "other")

const heightOf = (finding: Finding): number =>
  hasOthers(finding) ? 2 * lineHeight + 24 : lineHeight + 24

const row = (
  finding: Finding,
  index: number,
  { others, own, waits }: Verdict["points"],
  top: number
): string => {
  const y = top + 34
  const ownRanges = finding.ranges.filter(({ kind }) => kind !== "other")
  const otherRanges = finding.ranges.filter(({ kind }) => kind === "other")
  return [
    `<text class="b" x="${margin}" y="${top + 12}">${escaped(headOf(finding, index))}</text>`,
    lineOf(ownRanges, own, `own operations, ${plural(waits, "wait", "waits")}`, y),
    ...hasOthers(finding)
      ? [lineOf(otherRanges, own + others, "operations of all fibers", y + lineHeight)]
      : []
  ].join("\n")
}

const legend = (used: ReadonlyArray<Grade>, top: number): ReadonlyArray<string> =>
  used.map((grade, index) => {
    const y = top + index * 20
    const high = heights[grade] * 0.8
    return `<rect class="${grade}" x="${margin}" y="${
      round(y - high / 2 - 4)
    }" width="14" height="${round(high)}" rx="2"/><text x="${margin + 22}" y="${y}">${grade} ${
      escaped(meanings[grade])
    }</text>`
  })

const titleOf = ({ findings, name, status }: Verdict): string =>
  `${name}: ${status === "violations" ? plural(findings.length, "finding", "findings") : status}`

const mostRows = 20

/** The verdict as SVG. */
export const svgOf = (verdict: Verdict): string => {
  const shown = verdict.findings.slice(0, mostRows)
  const used = grades.filter((grade) => shown.some((finding) => finding.grades[grade] > 0))
  const tops = shown.map((_, index) =>
    shown.slice(0, index).reduce((sum, finding) => sum + heightOf(finding), headHeight)
  )
  const foot = shown.reduce((sum, finding) => sum + heightOf(finding), headHeight)
    + (shown.length === 0 ? lineHeight : 0)
  const height = foot + used.length * 20 + margin
  const title = titleOf(verdict)
  const left = verdict.findings.length - shown.length
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="hfx" role="img" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<title>${
      escaped(title)
    }</title><style>${style}</style><rect width="100%" height="100%" fill="var(--bg)"/>`,
    `<text class="h1" x="${margin}" y="26">${escaped(clipped(title, 100))}</text>`,
    `<text class="soft" x="${margin}" y="46">${
      escaped(
        clipped(`covered: ${verdict.covered}${left > 0 ? `; ${left} more findings` : ""}`, 150)
      )
    }</text>`,
    ...shown.map((finding, index) => row(finding, index, verdict.points, tops[index]!)),
    ...(shown.length === 0
      ? [lineOf([], verdict.points.own, "own operations, each interrupted", headHeight + 12)]
      : []),
    ...legend(used, foot + 12),
    "</svg>"
  ].join("\n")
}

const pageStyle = `
:root{color-scheme:light dark}body{margin:0 auto;max-width:960px;padding:16px;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
svg{max-width:100%;height:auto}h1{font-size:18px}article{margin-bottom:32px}h2{font-size:15px;margin:24px 0 4px}dl{display:grid;grid-template-columns:96px minmax(0,1fr);gap:2px 12px;margin:0}dt{opacity:.75}dd{margin:0;overflow-wrap:anywhere}
pre{overflow:auto;padding:8px;border:1px solid color-mix(in srgb,currentColor 25%,transparent);border-radius:6px;font-size:12px;line-height:1.4}summary{cursor:pointer;margin-top:6px}`
  .trim()

const term = (name: string, text: string | undefined): string =>
  text === undefined ? "" : `<dt>${name}</dt><dd>${escaped(text)}</dd>`

/** `escaped` makes one line of a text; a block keeps its own. */
const block = (summary: string, text: string | undefined): string =>
  text === undefined
    ? ""
    : `<details><summary>${summary}</summary><pre>${
      text.split("\n").map(escaped).join("\n")
    }</pre></details>`

const section = (finding: Finding, index: number): string => {
  const { mistake, other, program, steps, token, violations, window } = finding
  return `<section><h2>${escaped(headOf(finding, index))}</h2><dl>${
    violations.map(({ law, message }) => term("broken", `${law}: ${message}`)).join("")
  }${term("while", other)}${term("why", mistake?.why)}${term("fix", mistake?.fix)}${
    term("points", window)
  }${term("replay", `HOLDFAST_REPLAY=${token}`)}</dl>${
    block("The steps around the interrupt", steps)
  }${block("A plain program that fails without the explorer", program)}</section>`
}

const article = (verdict: Verdict): string =>
  [
    "<article>",
    svgOf(verdict),
    ...verdict.findings.map(section),
    ...verdict.notes.map((note) => `<p>Note: ${escaped(note)}</p>`),
    "</article>"
  ].join("\n")

const pageTitle = (verdicts: ReadonlyArray<Verdict>): string => {
  const [first] = verdicts
  if (first !== undefined && verdicts.length === 1) return titleOf(first)
  const passed = verdicts.filter((verdict) => verdict.passed).length
  return `${plural(verdicts.length, "subject", "subjects")}: ${passed} passed, ${
    verdicts.length - passed
  } failed`
}

/** Verdicts as one page: of each the picture, then each finding with its steps and its program. */
export const htmlOf = (verdicts: ReadonlyArray<Verdict>): string =>
  `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(pageTitle(verdicts))}</title><style>${pageStyle}</style></head>
<body><main>
${verdicts.length > 1 ? `<h1>${escaped(pageTitle(verdicts))}</h1>\n` : ""}${
    verdicts.map(article).join("\n")
  }
</main></body></html>
`
