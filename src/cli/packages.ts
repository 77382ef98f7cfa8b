/** packages: says which optional peers the command needs when one of them is not installed. It needs only Node itself. */
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
    fs.readFileSync(new URL("../../package.json", import.meta.url), "utf8")
  )
  return Object.entries(manifest.peerDependencies)
    .filter(([name]) => !name.endsWith("vitest"))
    .map(([name, version]) => `"${name}@${version}"`)
}

/** Whether the error of an import is a package that is not installed; if so, standard error gets a line that installs it. */
export const reportMissing = (error: unknown): boolean => {
  const missing = missingIn(error)
  if (missing === undefined) return false
  process.stderr.write(
    `holdfast: the package "${missing}" is not installed. The command needs these packages beside holdfast:\n`
      + `  npm i ${neededPackages().join(" ")}\n`
  )
  return true
}
