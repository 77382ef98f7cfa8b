/**
 * The page of results, bench/RESULTS.md: one row per goal, with the date and the circumstances of the run, but not the name of
 * the machine.
 */
import * as fs from "node:fs"
import * as os from "node:os"
import { type Figures, format, type Goal, isMet, ratioOf } from "./goals.ts"

export interface Row {
  readonly goal: Goal
  readonly figures: Figures
}

/** The two cells by which a row of the page is known. */
export const keyOf = ({ against, work }: Goal): string => `| ${work} | ${against} |`

const rowText = ({ figures: [ours, theirs], goal }: Row): string =>
  [
    `${keyOf(goal)} ${format(goal, ours)}`,
    format(goal, theirs),
    ratioOf([ours, theirs]),
    goal.goal,
    isMet(goal, [ours, theirs]) ? "yes |" : "**no** |"
  ].join(" | ")

const versionOf = (name: string): string => {
  const { version } = JSON.parse(
    fs.readFileSync(`node_modules/${name}/package.json`, "utf8")
  ) as { readonly version: string }
  return `${name} ${version}`
}

const rivals = ["effect", "async-mutex", "generic-pool", "lightning-pool", "tarn"]

/** When a run began, and how busy the machine was then. */
export interface Beginning {
  readonly date: string
  readonly load: number
}

export const now = (): Beginning => ({
  date: new Date().toISOString().slice(0, 10),
  load: os.loadavg()[0] ?? 0
})

const page = (rows: ReadonlyArray<Row>, { date, load }: Beginning): string => {
  const notes = rows.flatMap(({ goal: { note } }) => note === undefined ? [] : [`- ${note}`])
  const missed = rows.filter(({ figures, goal }) => !isMet(goal, figures)).length
  return [
    "# Results",
    "",
    "Written by `npm run bench -- goals`. Do not edit it.",
    "",
    `${date}, Node ${process.version}, ${os.platform()} ${os.arch()}, ${os.cpus().length} cores, `
    + `load average at the start ${load.toFixed(1)}. `
    + `${rivals.map(versionOf).join(", ")}.`,
    "",
    `Medians of one run, ours and theirs in turns; ${
      rows.length - missed
    } of ${rows.length} goals are met. Figures of one run `
    + "compare with each other. A load near the number of cores, or above it, makes them larger and less even.",
    "",
    "<!-- dprint-ignore -->",
    "| work | against | ours | theirs | theirs / ours | goal | met |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...rows.map(rowText),
    "",
    ...notes,
    ""
  ].join("\n")
}

export const write = (rows: ReadonlyArray<Row>, began: Beginning): void =>
  fs.writeFileSync("bench/RESULTS.md", page(rows, began))
