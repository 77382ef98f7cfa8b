/**
 * `npm run check`: everything a change must pass, cheapest first; stops at the first failure with that tool's output.
 * `npm run check -- types lint` runs only the named steps.
 *
 * Needs no network and no install scripts: Effect's diagnostics come from the executable that `effect-tsgo` names, not from a
 * patched TypeScript, and the consumer project of the last step borrows this repository's `node_modules`.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { bin, build, modules, root } from "./build.mjs"

class Failed extends Error {}

const run = (command, args, cwd = root) => {
  const ended = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 1 << 28 })
  if (ended.error !== undefined) throw new Failed(`${command}: ${ended.error.message}`)
  if (ended.status !== 0) throw new Failed(`${ended.stdout}${ended.stderr}`)
  return ended.stdout
}

const temp = fs.mkdtempSync(path.join(os.tmpdir(), "hf-check-"))
// npm and dprint keep caches at home; an account that has none of its own gets one for the run.
try {
  fs.accessSync(os.homedir(), fs.constants.W_OK)
} catch {
  process.env.HOME = temp
}

/** Packs once; the steps after it look at the tarball as a user would get it. */
let packed
const tarball = () => {
  if (packed === undefined) {
    const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", temp]
    packed = path.join(temp, JSON.parse(run("npm", args))[0].filename)
  }
  return packed
}

/** A project that installs the tarball and imports every public module of it, by name, with library checks on. */
const consumer = () => {
  const home = path.join(temp, "consumer")
  const installed = path.join(home, "node_modules")
  fs.mkdirSync(installed, { recursive: true })
  for (const name of fs.readdirSync(path.join(root, "node_modules"))) {
    if (!name.startsWith(".")) {
      fs.symlinkSync(path.join(root, "node_modules", name), path.join(installed, name))
    }
  }
  run("tar", ["-xzf", tarball(), "-C", temp])
  fs.renameSync(path.join(temp, "package"), path.join(installed, "holdfast"))
  // A lower-case file or folder is machinery, not a public module. What builds on vitest loads only inside vitest.
  const names = modules().filter((name) =>
    !/(^|\/)[a-z]/.test(name)
  )
  const loadable = names.filter((name) => name !== "Testing/Vitest")
  const file = (name, text) => fs.writeFileSync(path.join(home, name), text)
  file("package.json", JSON.stringify({ private: true, type: "module" }))
  file(
    "tsconfig.json",
    JSON.stringify({
      compilerOptions: {
        target: "ES2022",
        module: "NodeNext",
        strict: true,
        skipLibCheck: false,
        types: ["node"],
        rootDir: ".",
        outDir: "out"
      },
      include: ["*.ts"]
    })
  )
  file("types.ts", loadable.map((name, i) => `export * as M${i} from "holdfast/${name}"\n`).join(""))
  file(
    "main.ts",
    [
      `import { Effect } from "effect"`,
      `import * as holdfast from "holdfast"`,
      ...loadable.map((name, i) => `import * as M${i} from "holdfast/${name}"`),
      `const modules: ReadonlyArray<object> = [${loadable.map((_, i) => `M${i}`).join(", ")}]`,
      `if (modules.some((module) => Object.keys(module).length === 0)) throw new Error("empty module")`,
      `const lamp = holdfast.Managed.make({ name: "lamp", acquire: Effect.succeed("on"), release: () => Effect.void })`,
      `const seen: string = await Effect.runPromise(holdfast.Managed.use(lamp, Effect.succeed))`,
      `if (seen !== "on") throw new Error("the packed Managed.use does not work")`
    ].join("\n")
  )
  run(bin("tsc"), ["-p", "."], home)
  // The core needs no types of Node's, and no `Disposable` in the consumer's `lib`.
  file("core.ts", `import * as holdfast from "holdfast"\nexport const core: object = holdfast\n`)
  file(
    "tsconfig.core.json",
    JSON.stringify({
      extends: "./tsconfig.json",
      compilerOptions: { types: [], lib: ["ES2022", "DOM"], noEmit: true },
      include: ["core.ts"]
    })
  )
  run(bin("tsc"), ["-p", "tsconfig.core.json"], home)
  // vitest's own declarations do not pass the library check.
  file("vitest.ts", `export { it } from "holdfast/Testing/Vitest"\n`)
  run(bin("tsc"), ["-p", ".", "--skipLibCheck"], home)
  run(process.execPath, ["out/main.js"], home)
}

const steps = {
  types: () => run(run(bin("effect-tsgo"), ["get-exe-path"]).trim(), ["-p", "."]),
  lint: () => run(bin("oxlint"), ["--deny-warnings", "src", "test", "bench"]),
  format: () => run(bin("dprint"), ["check"]),
  tests: () => {
    // Some tests do here, in short, what a slow file does with more.
    process.env.HOLDFAST_SLOW = "false"
    run(bin("vitest"), [
      ...["run", "--root", ".", "--config", "test/vitest.config.ts"],
      ...["--exclude", "test/**/*.slow.test.ts"]
    ])
  },
  build: () => {
    const { ok, output } = build()
    if (!ok) throw new Failed(output)
  },
  pack: tarball,
  publint: () => run(bin("publint"), [tarball(), "--strict"]),
  attw: () => run(bin("attw"), [tarball(), "--profile", "esm-only", "--no-definitely-typed"]),
  consumer
}

const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !(name in steps))
if (unknown.length > 0) {
  console.error(`No step ${unknown.join(", ")}; there are: ${Object.keys(steps).join(" ")}`)
  process.exit(2)
}
try {
  for (const [name, step] of Object.entries(steps)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    const began = performance.now()
    const line = (result) =>
      `${name.padEnd(9)} ${result.padEnd(6)} ${((performance.now() - began) / 1000).toFixed(1)} s`
    try {
      step()
      console.log(line("ok"))
    } catch (error) {
      console.log(line("FAILED"))
      console.error(error instanceof Failed ? error.message : error)
      process.exitCode = 1
      break
    }
  }
} finally {
  fs.rmSync(temp, { recursive: true, force: true })
}
