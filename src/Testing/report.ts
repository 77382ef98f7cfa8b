/**
 * report: a verdict in words.
 *
 * SOURCES Lincheck's table; wishes of users of other explorers: the line, the leak, how to replay it.
 *
 * @since 0.1.0
 */
import { type Finding, grades } from "./findings.ts"

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
  /** A number for the whole exploration: the same program gives the same number. */
  readonly hash: number
}

const reach = (finding: Finding): string =>
  grades.filter((grade) => finding.grades[grade] > 0)
    .map((grade) => `${grade}: ${finding.grades[grade]}`).join(", ")

const line = (label: string, text: string | undefined): ReadonlyArray<string> =>
  text === undefined ? [] : [`  ${label.padEnd(12)} ${text}`]

const indented = (text: string): string => text.split("\n").map((one) => `    ${one}`).join("\n")

const formatFinding = (finding: Finding, index: number): string =>
  [
    `${index + 1}. ${finding.grade} · ${finding.window}`,
    ...finding.violations.flatMap(({ law, message }) => line("broken", `${law}: ${message}`)),
    ...line(
      "seen",
      finding.rate === undefined ? undefined : `${finding.rate.seen} of ${finding.rate.of} times`
    ),
    ...line("stopped at", finding.at),
    ...line("reach", reach(finding)),
    ...finding.unreleased.flatMap(({ at, name }) =>
      line("unreleased", at === undefined ? name : `${name}, acquired at ${at}`)
    ),
    ...line("nearest pass", finding.nearestPass),
    ...line("replay", `HOLDFAST_REPLAY=${finding.token}`),
    indented(finding.steps)
  ].join("\n")

const marks: Record<Verdict["status"], string> = {
  safe: "✓",
  violations: "✗",
  inconclusive: "?"
}

const said = ({ findings, name, status }: Verdict): string => {
  if (status === "safe") return `${name} is safe`
  return status === "inconclusive"
    ? `${name}: inconclusive`
    : `${name} is not safe: ${findings.length} finding(s)`
}

/** The whole verdict: the findings, and exactly what was covered. */
export const formatVerdict = (verdict: Verdict): string => {
  const { classes, covered, findings, notes, points, runs, seconds, status } = verdict
  return [
    `${marks[status]} ${said(verdict)}`,
    `  covered: ${covered} (${points.own} own points in ${classes} classes, ${points.waits} waits, `
    + `${points.others} of other fibers; ${runs} runs in ${seconds.toFixed(2)} s)`,
    ...notes.map((note) => `  note: ${note}`),
    ...findings.map(formatFinding)
  ].join("\n")
}
