/**
 * What tests start as a process again and again, each in one file: it loads in half the time or less. globalSetup.ts writes them.
 *
 * A copy of the sources for a mutant (mutants.byTests.slow.test.ts) has none: there the programs themselves run.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
export const dist = path.join(root, "dist")
export const cli = path.join(dist, "cli.js")

export interface Bundle {
  readonly source: string
  readonly file: string
  /** A program whose own lines are asserted needs a map, which takes time. */
  readonly hasMap: boolean
}

// As deep as `dist`: the command finds its package.json from there.
const bundled = path.join(root, "node_modules/.holdfast")

/** It shows no line of its own sources. */
export const bundledCli = path.join(bundled, "cli.js")

const program = (name: string): Bundle => ({
  source: path.join(root, "test/support/programs", name),
  file: path.join(bundled, "programs", name),
  hasMap: true
})

export const programs = {
  again: program("again.mjs"),
  main: program("main.mjs"),
  table: program("table.mjs")
}

export const bundles: ReadonlyArray<Bundle> = [
  { source: cli, file: bundledCli, hasMap: false },
  ...Object.values(programs)
]

/** The file that Node runs, and the environment in which its lines are those of the sources. */
export const startOf = ({ file, source }: Bundle) =>
  fs.existsSync(file)
    ? { file, env: { ...process.env, NODE_OPTIONS: "--enable-source-maps" } }
    : { file: source, env: process.env }
