/**
 * Mutation, found by tests: each mutant is one change of a copy of this package, and the tests it names must fail there. On the
 * unchanged copy all of them must pass. (What the explorer finds stands in mutants.slow.test.ts.)
 *
 * A copy is a folder of its own with package.json, `dist` and the tests, so `holdfast` means the copy there, also in the child processes of
 * Main's tests. What a copy loads is JavaScript that Node reads by itself: only the test files go through vitest. One vitest runs the tests
 * of all copies of a module.
 *
 * `npm test` runs each fifth row, and looks whether all rows still fit the sources; `npm run mutants` runs all.
 *
 * To add a mutant: a row in test/mutants/byTests/<Module>.ts. To add a module: such a file, and its name in `rows` below. The rows
 * of one module alone: `vitest run … test/mutants.byTests.slow.test.ts -t Lock`.
 */
import { Effect, Exit, Scope } from "effect"
import * as esbuild from "esbuild"
import * as Embedded from "holdfast/Postgres/Embedded"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { mutants as Batch } from "./mutants/byTests/Batch.ts"
import { mutants as Files } from "./mutants/byTests/Files.ts"
import { mutants as Http } from "./mutants/byTests/Http.ts"
import { mutants as Lock } from "./mutants/byTests/Lock.ts"
import { mutants as LockFile } from "./mutants/byTests/LockFile.ts"
import { mutants as Main } from "./mutants/byTests/Main.ts"
import { type Mutant } from "./mutants/byTests/mutant.ts"
import { mutants as Nursery } from "./mutants/byTests/Nursery.ts"
import { mutants as Pool } from "./mutants/byTests/Pool.ts"
import { mutants as Postgres } from "./mutants/byTests/Postgres.ts"
import { mutants as Redis } from "./mutants/byTests/Redis.ts"
import { mutants as Server } from "./mutants/byTests/Server.ts"
import { mutants as Shutdown } from "./mutants/byTests/Shutdown.ts"
import { mutants as Tcp } from "./mutants/byTests/Tcp.ts"
import { mutants as Testing } from "./mutants/byTests/Testing.ts"
import { mutants as Transaction } from "./mutants/byTests/Transaction.ts"
import { mutants as Waits } from "./mutants/byTests/Waits.ts"

const rows = {
  Batch,
  Files,
  Http,
  Lock,
  LockFile,
  Main,
  Nursery,
  Pool,
  Postgres,
  Redis,
  Server,
  Shutdown,
  Tcp,
  Testing,
  Transaction,
  Waits
}

const root = path.join(import.meta.dirname, "..")
const exec = promisify(execFile)

const mutated = ({ file, from, to, what }: Mutant): string => {
  const parts = fs.readFileSync(path.join(root, "src", file), "utf8").split(from)
  if (parts.length === 2) return parts.join(to)
  throw new Error(`"${what}" fits ${parts.length - 1} places of ${file}, not one`)
}

/** As the build writes it, without types. */
const compiled = (source: string): string =>
  esbuild.transformSync(source, { loader: "ts", format: "esm", target: "es2022" }).code
    .replace(/((?:from|import\() ?"\.[^"]+)\.ts"/g, "$1.js\"")

const testFolder = path.join(root, "test")
const contracts = fs.readdirSync(testFolder).filter((name) => name.endsWith(".contract.ts"))

/** What the tests import of `src` by path they import of the copy's `dist`. */
const onDist = (test: string): string =>
  test.replace(/(["'](?:\.\.\/)+)src\/([^"']+)\.ts(?=["'])/g, "$1dist/$2.js")

const scripts = fs.readdirSync(path.join(root, "dist"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".js"))
  .map((file) => path.join("dist", file))

/** Copies to `folder` what the tests in `file` need, with one mutant or none. */
const copy = (folder: string, file: string, mutant: Mutant | undefined): void => {
  const tests = [file, "support", "seeds", ...contracts].map((name) => path.join("test", name))
  for (const name of ["package.json", ...scripts, ...tests]) {
    fs.cpSync(path.join(root, name), path.join(folder, name), { recursive: true })
  }
  const test = path.join(folder, "test", file)
  fs.writeFileSync(test, onDist(fs.readFileSync(test, "utf8")))
  if (mutant === undefined) return
  const script = path.join(folder, "dist", mutant.file.replace(/\.ts$/, ".js"))
  fs.writeFileSync(script, compiled(mutated(mutant)))
}

interface Result {
  /** Why the file itself did not load, if it did not. */
  readonly message: string
  readonly passed: ReadonlyArray<string>
  readonly failed: ReadonlyArray<string>
}

interface JsonReport {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<{ readonly title: string; readonly status: string }>
  }>
}

/** A test that its mutant makes hang has found it; one of the unchanged sources may be slow on a busy machine. */
const timeouts = {
  mutant: { testTimeout: 6000, hookTimeout: 1000 },
  unchanged: { testTimeout: 60_000 }
}

/** Runs the tests of all copies of one kind below `work`; `titles` by the folder of the copy. */
const runTests = async (
  work: string,
  kind: "mutant" | "unchanged",
  titles: Readonly<Record<string, ReadonlyArray<string>>>,
  server: Embedded.Server | undefined
): Promise<ReadonlyMap<string, Result>> => {
  const out = path.join(work, `${kind}.json`)
  const config = {
    root: work,
    test: {
      include: [`${kind}-*/test/**/*.test.ts`],
      setupFiles: [path.join(testFolder, "mutants/byTests/setup.ts")],
      provide: { copies: work, titles },
      reporters: [["json", { outputFile: out }]],
      deps: { moduleDirectories: ["node_modules", "dist"] },
      // Effect is loaded once and not for each copy; setup.ts clears what it keeps for the process.
      isolate: false,
      maxWorkers: 2,
      minWorkers: 1,
      ...timeouts[kind]
    }
  }
  const configFile = path.join(work, `${kind}.config.mjs`)
  fs.writeFileSync(configFile, `export default ${JSON.stringify(config)}`)
  const vitest = path.join(root, "node_modules/vitest/vitest.mjs")
  await exec(process.execPath, [vitest, "run", "--config", configFile], {
    cwd: work,
    timeout: 280_000,
    env: server === undefined
      ? process.env
      : { ...process.env, HOLDFAST_TEST_SERVER: JSON.stringify(server) },
    maxBuffer: 1 << 28
  }).catch((error: unknown) => {
    // Its tests fail, as they should; without a report vitest itself did.
    if (!fs.existsSync(out)) throw error
  })
  const { testResults } = JSON.parse(fs.readFileSync(out, "utf8")) as JsonReport
  return new Map(testResults.map(({ assertionResults, message, name }) => {
    const titlesOf = (status: string) =>
      assertionResults.filter((one) => one.status === status).map(({ title }) => title)
    const result = { message, passed: titlesOf("passed"), failed: titlesOf("failed") }
    return [path.relative(work, name).split(path.sep)[0]!, result]
  }))
}

it("each row fits the sources", () => {
  for (const mutant of Object.values(rows).flat()) expect(compiled(mutated(mutant))).not.toBe("")
})

/** Each fifth one, because all of them take as long as all other tests together. */
const chosen = (mutants: ReadonlyArray<Mutant>): ReadonlyArray<Mutant> =>
  process.env["HOLDFAST_MUTANTS"] === "all"
    ? mutants
    : mutants.filter((_, index) => index % 5 === 0)

for (const [module, all] of Object.entries(rows)) {
  const mutants = chosen(all)
  const files = Array.from(new Set(mutants.map(({ tests }) => tests)))
  describe.runIf(mutants.length > 0)(`mutants of ${module}`, () => {
    let work = ""
    // One for all copies: a hook of a mutant has a second.
    const scope = Effect.runSync(Scope.make())
    let results: ReadonlyMap<string, Result> = new Map()
    beforeAll(async () => {
      work = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "hf-mutants-")))
      fs.symlinkSync(path.join(root, "node_modules"), path.join(work, "node_modules"))
      const titles: Record<string, ReadonlyArray<string>> = {}
      for (const [index, file] of files.entries()) {
        copy(path.join(work, `unchanged-${index}`), file, undefined)
        titles[`unchanged-${index}`] = mutants.filter(({ tests }) => tests === file)
          .map(({ title }) => title)
      }
      for (const [index, mutant] of mutants.entries()) {
        copy(path.join(work, `mutant-${index}`), mutant.tests, mutant)
        titles[`mutant-${index}`] = [mutant.title]
      }
      const server = module === "Transaction"
        ? await Effect.runPromise(
          Scope.extend(Embedded.make({ settings: { max_connections: "200" } }), scope)
        )
        : undefined
      results = new Map([
        ...await runTests(work, "unchanged", titles, server),
        ...await runTests(work, "mutant", titles, server)
      ])
    }, 300_000)
    afterAll(async () => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      fs.rmSync(work, { recursive: true, force: true })
    })

    it("no child process of a test is left", async () => {
      const { stdout } = await exec("ps", ["-A", "-o", "pid,args"], { maxBuffer: 1 << 28 })
      expect(stdout.split("\n").filter((line) => line.includes(work))).toEqual([])
    })

    for (const [index, file] of files.entries()) {
      it(`${file}: each named test passes on the sources as they are`, () => {
        const { failed = [], message, passed = [] } = results.get(`unchanged-${index}`) ?? {}
        expect({ failed, message }).toEqual({ failed: [], message: "" })
        const missing = mutants.filter(({ tests, title }) =>
          tests === file && !passed.some((one) => one.includes(title))
        )
        expect(missing.map(({ title }) => title)).toEqual([])
      })
    }

    for (const [index, { file, what }] of mutants.entries()) {
      it(`${file}: ${what}`, () => {
        const { failed, message } = results.get(`mutant-${index}`) ?? {}
        // A copy that does not load counts as not found.
        expect(message).toBe("")
        expect(failed).not.toEqual([])
      })
    }
  })
}
