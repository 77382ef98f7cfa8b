/** A failing test as its reader sees it, and its replay: vitest in a child process. */
import { afterAll, expect, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "../..")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
fs.chmodSync(folder, 0o755)
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const conditions = ["@holdfast/source"]
const config = path.join(folder, "vitest.config.mjs")
fs.writeFileSync(
  config,
  `export default ${
    JSON.stringify({
      resolve: { conditions },
      ssr: { resolve: { conditions } },
      test: {
        include: ["test/seeds/vitestFixture.ts"],
        maxWorkers: 1,
        minWorkers: 1,
        testTimeout: 30_000
      }
    })
  }`
)

interface Result {
  readonly title: string
  readonly status: string
  readonly failureMessages: ReadonlyArray<string>
}

const run = (env: Record<string, string>): ReadonlyArray<Result> => runWithOutput(env).results

const runWithOutput = (
  env: Record<string, string>
): { readonly results: ReadonlyArray<Result>; readonly stdout: string } => {
  const out = path.join(folder, "out.json")
  const { HOLDFAST_REPLAY: _, ...inherited } = process.env
  const { stdout } = spawnSync(
    path.join(root, "node_modules", ".bin", "vitest"),
    [
      "run",
      "--root",
      root,
      "--config",
      config,
      "--reporter=default",
      "--reporter=json",
      `--outputFile=${out}`
    ],
    { cwd: root, env: { ...inherited, ...env }, encoding: "utf8", timeout: 60_000 }
  )
  const { testResults } = JSON.parse(fs.readFileSync(out, "utf8")) as {
    readonly testResults: ReadonlyArray<{ readonly assertionResults: ReadonlyArray<Result> }>
  }
  return { results: testResults.flatMap(({ assertionResults }) => assertionResults), stdout }
}

it(
  "a failing test prints the finding; its token replays it alone; changed code makes it stale",
  () => {
    const { results: [leaks, keeps, counts, long], stdout } = runWithOutput({})
    expect([leaks, keeps, counts].map((one) => one?.status)).toEqual(["failed", "passed", "passed"])
    // Its timeout of two seconds bounds all three uses together: a verdict that says what was left out.
    const told = long?.failureMessages.join() ?? ""
    expect(told).toMatch(/\d+ of \d+ points \(budget spent\)/)
    expect(Number(/ runs in ([\d.]+) s/.exec(told)?.[1])).toBeLessThan(3)
    const report = leaks?.failureMessages.join("\n") ?? ""
    expect(report).toContain("leaks is not safe")
    expect(report).toContain("never released: r#1")
    // The error points at the test's own line.
    expect(report).toMatch(/\n +at (async )?[^\n]*test\/seeds\/vitestFixture\.ts:11:4/)
    expect(report).toMatch(/fix +Make it a finalizer/)
    expect(stdout).toContain(`"counts" holds nothing that the explorer sees`)
    expect(stdout).not.toContain(`"keeps" holds nothing`)
    expect(report).toMatch(/stopped at +(in the body at )?test\/seeds\/vitestFixture\.ts:\d+/)
    const token = /HOLDFAST_REPLAY=(\S+)/.exec(report)?.[1] ?? ""

    const replayed = run({ HOLDFAST_REPLAY: token })
    expect(replayed.map(({ status }) => status)).toEqual([
      "failed",
      "skipped",
      "skipped",
      "skipped"
    ])
    expect(replayed[0]?.failureMessages.join()).toContain("all is released: never released: r#1")

    const stale = run({ HOLDFAST_REPLAY: token, HOLDFAST_FIXTURE_CHANGED: "yes" })
    expect(stale[0]?.failureMessages.join()).toContain("is stale")
  },
  120_000
)
