/**
 * Mutation, found by tests: each mutant is one change of a copy of this package, and the tests it names must fail there. On the
 * unchanged copy all of them must pass. (What the explorer finds stands in mutants.slow.test.ts.)
 *
 * A copy is a folder of its own with package.json, `dist` and the tests, so `holdfast` means the copy there, also in the child processes of
 * Main's tests. What a copy loads is JavaScript that Node reads by itself: only the test files go through vitest. One vitest runs the tests
 * of all copies, since each start of one loads Effect and a Postgres server anew.
 *
 * `npm test` runs each tenth row, and looks whether all rows still fit the sources; `npm run mutants` runs all.
 *
 * To add a mutant: a row in test/mutants/byTests/<Module>.ts. To add a module: such a file, and its name in `rows` below. The rows
 * of one module alone: `vitest run … test/mutants.byTests.slow.test.ts -t Lock`; a part of a row's title runs that row.
 */
import { Effect, Exit, Scope } from "effect"
import * as esbuild from "esbuild"
import * as Embedded from "holdfast/Postgres/Embedded"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it, type RunnerTestSuite as Suite } from "vitest"
import { mutants as Batch } from "./mutants/byTests/Batch.ts"
import { mutants as Files } from "./mutants/byTests/Files.ts"
import { mutants as Http } from "./mutants/byTests/Http.ts"
import { mutants as Lock } from "./mutants/byTests/Lock.ts"
import { mutants as LockFile } from "./mutants/byTests/LockFile.ts"
import { mutants as LockPostgres } from "./mutants/byTests/LockPostgres.ts"
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
  LockPostgres,
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
  /** Each with its reason. */
  readonly failed: ReadonlyArray<string>
}

interface JsonReport {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<
      {
        readonly title: string
        readonly status: string
        readonly failureMessages: ReadonlyArray<string>
      }
    >
  }>
}

/**
 * A test that its mutant makes hang has found it; one of the unchanged sources may be slow on a busy machine. The two kinds share no
 * process, so that no mutant spoils what is unchanged.
 */
const timeouts = {
  unchanged: { testTimeout: 60_000, hookTimeout: 60_000 },
  mutant: { testTimeout: 6000, hookTimeout: 1000 }
}

/** Copies that are run: each with parts of the titles of its tests. */
type Titles = Readonly<Record<string, ReadonlyArray<string>>>

/** Runs the tests of all copies below `work`; the results by the folder of the copy. */
const runTests = async (
  work: string,
  titles: Titles,
  server: Embedded.Server | undefined
): Promise<ReadonlyMap<string, Result>> => {
  const out = path.join(work, "report.json")
  const config = {
    root: work,
    test: {
      projects: Object.entries(timeouts).map(([kind, bounds]) => ({
        test: {
          name: kind,
          include: [`${kind}-*/test/**/*.test.ts`],
          setupFiles: [path.join(testFolder, "mutants/byTests/setup.ts")],
          provide: { copies: work, titles },
          deps: { moduleDirectories: ["node_modules", "dist"] },
          ...bounds
        }
      })),
      reporters: [["json", { outputFile: out }]],
      // Effect is loaded once and not for each copy; setup.ts clears what it keeps for the process.
      isolate: false,
      maxWorkers: 2,
      minWorkers: 1
    }
  }
  const configFile = path.join(work, "vitest.config.mjs")
  fs.writeFileSync(configFile, `export default ${JSON.stringify(config)}`)
  const vitest = path.join(root, "node_modules/vitest/vitest.mjs")
  await exec(process.execPath, [vitest, "run", "--config", configFile], {
    cwd: work,
    timeout: limit,
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
    const endedAs = (status: string) => assertionResults.filter((one) => one.status === status)
    const result = {
      message,
      passed: endedAs("passed").map(({ title }) => title),
      failed: endedAs("failed").map((one) => [one.title, ...one.failureMessages].join("\n"))
    }
    return [path.relative(work, name).split(path.sep)[0]!, result]
  }))
}

it("each row fits the sources", () => {
  for (const mutant of Object.values(rows).flat()) expect(compiled(mutated(mutant))).not.toBe("")
})

const isWhole = process.env["HOLDFAST_MUTANTS"] === "all"
const limit = isWhole ? 1_800_000 : 280_000

/** Each tenth one, because all of them take as long as all other tests together. */
const chosen = (mutants: ReadonlyArray<Mutant>): ReadonlyArray<Mutant> =>
  isWhole ? mutants : mutants.filter((_, index) => index % 10 === 0)

const slug = (file: string): string => file.replaceAll("/", "-").replace(/\.test\.ts$/, "")

interface Copy {
  readonly folder: string
  readonly tests: string
  readonly titles: ReadonlyArray<string>
  /** None in the copies of the sources as they are, one for each file of tests. */
  readonly mutant?: Mutant
}

const modules = Object.entries(rows).map(([module, all]) => {
  const mutants = chosen(all)
  const mutated = mutants.map((mutant, index): Copy => ({
    folder: `mutant-${module}-${index}`,
    tests: mutant.tests,
    titles: [mutant.title],
    mutant
  }))
  // `npm test` runs these tests on the sources anyway.
  const unchanged = !isWhole ?
    [] :
    Array.from(new Set(mutants.map(({ tests }) => tests)), (tests): Copy => ({
      folder: `unchanged-${module}-${slug(tests)}`,
      tests,
      titles: mutants.filter((mutant) => mutant.tests === tests).map(({ title }) => title)
    }))
  return { module, mutated, unchanged }
})

let work = ""
let results: ReadonlyMap<string, Result> = new Map()
// One for all copies: a hook of a mutant has a second.
const scope = Effect.runSync(Scope.make())

/** The tests of the copies in `asked`; a Postgres server for them if one needs it. */
const runCopies = async (asked: ReadonlyArray<Copy>): Promise<void> => {
  work = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "hf-mutants-")))
  fs.symlinkSync(path.join(root, "node_modules"), path.join(work, "node_modules"))
  if (asked.length === 0) return
  for (const { folder, mutant, tests } of asked) copy(path.join(work, folder), tests, mutant)
  const isOnServer = asked.some(({ tests }) =>
    fs.readFileSync(path.join(testFolder, tests), "utf8").includes("embeddedServer(")
  )
  const server = isOnServer
    ? await Effect.runPromise(
      Scope.extend(Embedded.make({ settings: { max_connections: "200" } }), scope)
    )
    : undefined
  const titles = Object.fromEntries(asked.map(({ folder, titles }) => [folder, titles]))
  results = await runTests(work, titles, server)
}

/** The titles of the tests that `vitest -t` has left, in all modules. */
const askedOf = ({ tasks }: Readonly<Suite>): ReadonlySet<string> =>
  new Set(tasks.flatMap((task) =>
    task.type === "suite"
      ? [...askedOf(task)]
      : task.mode === "run"
      ? [`${task.suite?.name} ${task.name}`]
      : []
  ))

const suiteOf = (module: string) => `mutants of ${module}`
const unchangedTitle = (tests: string) =>
  `${tests}: each named test passes on the sources as they are`
const titleOf = ({ file, what }: Mutant) => `${file}: ${what}`

beforeAll(async (file) => {
  const titles = askedOf(file)
  await runCopies(
    modules.flatMap(({ module, mutated, unchanged }) =>
      [...unchanged, ...mutated].filter(({ mutant, tests }) =>
        titles.has(
          `${suiteOf(module)} ${mutant === undefined ? unchangedTitle(tests) : titleOf(mutant)}`
        )
      )
    )
  )
}, limit + 20_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  fs.rmSync(work, { recursive: true, force: true })
}, 180_000)

it("no child process of a test is left", async () => {
  const { stdout } = await exec("ps", ["-A", "-o", "pid,args"], { maxBuffer: 1 << 28 })
  expect(stdout.split("\n").filter((line) => line.includes(work))).toEqual([])
})

for (const { module, mutated, unchanged } of modules) {
  describe.runIf(mutated.length > 0)(suiteOf(module), () => {
    for (const { folder, tests, titles } of unchanged) {
      it(unchangedTitle(tests), () => {
        const { failed = [], message, passed = [] } = results.get(folder) ?? {}
        expect({ failed, message }).toEqual({ failed: [], message: "" })
        expect(titles.filter((title) => !passed.some((one) => one.includes(title)))).toEqual([])
      })
    }

    for (const { folder, mutant } of mutated) {
      it(titleOf(mutant!), () => {
        const { failed, message } = results.get(folder) ?? {}
        // A copy that does not load counts as not found.
        expect(message).toBe("")
        expect(failed).not.toEqual([])
      })
    }
  })
}
