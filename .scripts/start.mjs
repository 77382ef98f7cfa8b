/**
 * `npm start`: the command, from a fresh checkout, in this very process (signals and exit codes are its own).
 * No arguments: the demo. With arguments: `holdfast mirror <arguments>`.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { build, isStale, root } from "./build.mjs"

const cli = path.join(root, "dist", "cli.js")

if (isStale()) {
  try {
    const { ok, output } = build()
    if (!ok) {
      process.stderr.write(`${output}\nThe build failed; nothing was started.\n`)
      process.exit(1)
    }
  } catch (error) {
    // A read-only checkout runs the earlier build.
    if (!fs.existsSync(cli)) throw error
    process.stderr.write(`Not rebuilt (${error.code ?? error.message}): running the dist that is here.\n`)
  }
}

const given = process.argv.slice(2)
process.argv = [process.execPath, cli, ...(given.length === 0 ? ["demo"] : ["mirror", ...given])]
await import(pathToFileURL(cli).href)
