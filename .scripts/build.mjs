/**
 * Builds `dist` from `src`: as a script (`npm run build`), and for the tests and `npm start`, which build only when stale.
 *
 * tsc writes into a folder of its own and each file is then renamed into place, so a command that runs from `dist`
 * meanwhile never reads half a file. An output without a source is removed, so `dist` equals a clean build.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
export const bin = (name) => path.join(root, "node_modules", ".bin", name)
const src = path.join(root, "src")
const dist = path.join(root, "dist")

const filesUnder = (folder) =>
  fs.existsSync(folder)
    ? fs.readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => path.relative(folder, path.join(entry.parentPath ?? entry.path, entry.name)))
    : []

/** The modules of `src`, without extension: `Managed`, `Postgres/Embedded`. */
export const modules = () =>
  filesUnder(src).filter((file) => file.endsWith(".ts")).map((file) => file.slice(0, -3)).sort()

const modified = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs

/** Whether some module has no output, or one older than any source; or some output has no module. */
export const isStale = () => {
  const names = modules()
  const newest = Math.max(...names.map((name) => modified(path.join(src, `${name}.ts`)) ?? 0))
  const outputs = filesUnder(dist).filter((file) => file.endsWith(".js"))
  return outputs.length !== names.length
    || names.some((name) => !((modified(path.join(dist, `${name}.js`)) ?? 0) >= newest))
}

/** Builds, and returns tsc's output. With type errors it still emits, as tsc does. Throws if it may not write. */
export const build = () => {
  const next = fs.mkdtempSync(path.join(root, ".dist-"))
  try {
    fs.writeFileSync(path.join(next, ".gitignore"), "*\n")
    const tsc = spawnSync(bin("tsc"), ["-p", src, "--outDir", next], { cwd: root, encoding: "utf8" })
    const built = filesUnder(next).filter((file) => file !== ".gitignore")
    for (const file of built) {
      fs.mkdirSync(path.dirname(path.join(dist, file)), { recursive: true })
      fs.renameSync(path.join(next, file), path.join(dist, file))
    }
    if (built.length > 0) {
      for (const file of filesUnder(dist)) {
        if (!built.includes(file)) fs.rmSync(path.join(dist, file), { force: true })
      }
    }
    return { ok: tsc.status === 0, output: tsc.error?.message ?? `${tsc.stdout}${tsc.stderr}` }
  } finally {
    fs.rmSync(next, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (!process.argv.includes("--if-stale") || isStale()) {
    const { ok, output } = build()
    process.stderr.write(output)
    process.exitCode = ok ? 0 : 1
  }
}
