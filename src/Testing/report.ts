/**
 * report: a verdict in words, made to be acted on: each finding says what happens, at which line, why, and the fix; then
 * come the steps, how to replay it, and the plain program of the nearest finding. The grades are explained once, at the end.
 *
 * SOURCES Lincheck's table; wishes of users of other explorers: the line, the leak, how to replay it.
 *
 * @since 0.1.0
 */
import { printable } from "../Ledger/words.ts"
import { type Finding, grades, meanings } from "./findings.ts"

/**
 * The result of an exploration.
 *
 * @category models
 * @since 0.1.0
 */
export interface Verdict {
  readonly name: string
  readonly status: "safe" | "violations" | "inconclusive"
  /** No finding has a grade that fails, and nothing is inconclusive. */
  readonly passed: boolean
  readonly points: { readonly own: number; readonly waits: number; readonly others: number }
  readonly classes: number
  readonly runs: number
  readonly seconds: number
  readonly mode: "synchronous" | "asynchronous"
  readonly findings: ReadonlyArray<Finding>
  /** Exactly what was tried, in words. */
  readonly covered: string
  readonly notes: ReadonlyArray<string>
  /** How many finalizers, and resources and counters of the probe, the plain run has shown. With 0, none could be judged. */
  readonly watched: number
  /** A number for the whole exploration: the same program gives the same number. */
  readonly hash: number
}

const reach = (finding: Finding): string =>
  grades.filter((grade) => finding.grades[grade] > 0)
    .map((grade) => `${grade} × ${finding.grades[grade]}`).join(", ")

const line = (label: string, text: string | undefined): ReadonlyArray<string> =>
  text === undefined ? [] : [`   ${label.padEnd(12)} ${text}`]

const indented = (text: string): string => text.split("\n").map((one) => `     ${one}`).join("\n")

const formatFinding = (finding: Finding, index: number): string => {
  const { at, grade, mistake, nearestPass, other, rate, steps, token, window } = finding
  const { unreleased, violations } = finding
  return [
    `${index + 1}. ${grade} · ${mistake?.kind ?? violations[0]?.law ?? ""}`,
    ...violations.flatMap(({ law, message }) => line("broken", `${law}: ${printable(message)}`)),
    ...line("seen", rate === undefined ? undefined : `${rate.seen} of ${rate.of} times`),
    ...line("stopped at", at),
    ...line("while", other),
    ...unreleased.flatMap((one) =>
      line("unreleased", one.at === undefined ? one.name : `${one.name}, acquired at ${one.at}`)
    ),
    ...line("why", mistake?.why),
    ...line("fix", mistake?.fix),
    ...line("points", `${window} (${reach(finding)})`),
    ...line("nearest pass", nearestPass),
    ...line("replay", `HOLDFAST_REPLAY=${token} npx vitest run, or Explore.replay`),
    indented(steps)
  ].join("\n")
}

const marks: Record<Verdict["status"], string> = {
  safe: "✓",
  violations: "✗",
  inconclusive: "?"
}

const said = ({ findings, name, status }: Verdict): string => {
  const shown = printable(name)
  if (status === "safe") return `${shown} is safe`
  return status === "inconclusive"
    ? `${shown}: inconclusive`
    : `${shown} is not safe: ${findings.length} finding(s)`
}

/** The grades that occur, once. */
const legend = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> => {
  const seen = grades.filter((grade) => findings.some((finding) => finding.grades[grade] > 0))
  return seen.length === 0
    ? []
    : [
      "Grades, nearest to production first:",
      ...seen.map((grade) => `   ${grade} ${meanings[grade]}`)
    ]
}

const embedded = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> => {
  const index = findings.findIndex(({ program }) => program !== undefined)
  const program = findings[index]?.program
  return program === undefined
    ? []
    : [
      `Finding ${index + 1} as a plain program, which fails without the explorer:`,
      indented(program)
    ]
}

/** The whole verdict: exactly what was covered, the findings, what their grades mean, and a plain program. */
export const formatVerdict = (verdict: Verdict): string => {
  const { classes, covered, findings, notes, points, runs, seconds } = verdict
  return [
    `${marks[verdict.status]} ${said(verdict)}`,
    `  covered: ${covered} (${points.own} own points in ${classes} classes, ${points.waits} waits, `
    + `${points.others} of other fibers; ${runs} runs in ${seconds.toFixed(2)} s)`,
    ...notes.map((note) => `  note: ${note}`),
    ...findings.map(formatFinding),
    ...legend(findings),
    ...embedded(findings)
  ].join("\n")
}
