/**
 * `npm run bench`: the benches on plain node against `dist`, as users get it. The module loader of a test runner slows every call
 * between modules, so a measurement there measures the loader.
 */
import { build } from "esbuild"
import { execFileSync, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { root } from "./build.mjs"

execFileSync(process.execPath, [path.join(root, ".scripts/build.mjs"), "--if-stale"], { stdio: "inherit" })
// Below the repository, so that `holdfast` is this package.
const home = path.join(root, ".bench")
try {
  await build({
    entryPoints: [path.join(root, "bench/run.ts")],
    outdir: home,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    packages: "external",
    logLevel: "error"
  })
  const { status } = spawnSync(
    process.execPath,
    ["--expose-gc", path.join(home, "run.mjs"), ...process.argv.slice(2)],
    { stdio: "inherit" }
  )
  process.exitCode = status ?? 1
} finally {
  fs.rmSync(home, { recursive: true, force: true })
}
