#!/usr/bin/env node
/**
 * The `holdfast` command. `holdfast mirror <urls.txt> --to <dir>` is the main job; `holdfast demo` shows it.
 *
 * DESIGN. A loader: the packages that the command needs are optional peers, and the first that is missing would end Node with a
 * stack trace before any line of ours ran.
 *
 * EXIT CODES 0 all done, also after a signal; 1 some items failed; 2 bad arguments, an unreadable list or ledger, or a package
 * that is not installed; 3 held elsewhere; 75 a signal came and URLs are left: the same command resumes; 130/143 ended or forced
 * by a signal without a drain.
 */
import * as fs from "node:fs"
import process from "node:process"

/** The package that an import did not find; none if the error is another. */
const missingIn = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND"
    ? /^Cannot find package '([^']+)'/.exec(error.message)?.[1]
    : undefined

/** Every peer but those of the test integration, at the versions this package was made for. */
const neededPackages = (): ReadonlyArray<string> => {
  const manifest: { readonly peerDependencies: Readonly<Record<string, string>> } = JSON.parse(
    fs.readFileSync(new URL("../package.json", import.meta.url), "utf8")
  )
  return Object.entries(manifest.peerDependencies)
    .filter(([name]) => !name.endsWith("vitest"))
    .map(([name, version]) => `"${name}@${version}"`)
}

try {
  await import("./cli/program.ts")
} catch (error) {
  const missing = missingIn(error)
  if (missing === undefined) throw error
  process.stderr.write(
    `holdfast: the package "${missing}" is not installed. The command needs these packages beside holdfast:\n`
      + `  npm i ${neededPackages().join(" ")}\n`
  )
  process.exitCode = 2
}
