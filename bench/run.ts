/**
 * `npm run bench` runs every suite, `npm run bench -- Managed Parallel` those two; `goals`, `postgres-faults` and
 * `postgres-interruptions` are no suites. A suite is a file `X.bench.ts` whose default export says what is ours and what it is
 * compared with; this file does the measuring and the printing.
 *
 * Each contender does `operations` operations a call. Printed: the median time of one operation, and the ratio to ours
 * (2.00 means: takes twice as long as ours). Numbers of one run compare with each other, not with another day's.
 */
import * as fs from "node:fs"
import * as os from "node:os"
import { Bench } from "tinybench"

export interface Suite {
  readonly title: string
  /** How many operations one call of a contender performs. */
  readonly operations: number
  /** By name; the first is ours. */
  readonly contenders: Readonly<Record<string, () => Promise<unknown>>>
}

const microseconds = (millis: number, operations: number): string =>
  `${((millis * 1000) / operations).toFixed(3).padStart(10)} µs`

const measure = async ({ contenders, operations, title }: Suite): Promise<void> => {
  const bench = new Bench({ time: 1_000, warmupTime: 250, throws: true })
  for (const [name, run] of Object.entries(contenders)) bench.add(name, run)
  const tasks = await bench.run()
  const medians = tasks.map(({ name, result }) => {
    if (result.state !== "completed") throw new Error(`${name} did not complete`)
    return { name, median: result.latency.p50 }
  })
  const ours = medians[0]?.median ?? Number.NaN
  console.log(`\n${title}`)
  for (const { median, name } of medians) {
    const ratio = (median / ours).toFixed(2).padStart(6)
    console.log(`  ${name.padEnd(40)} ${microseconds(median, operations)} ${ratio}`)
  }
}

// Each ends the process.
if (process.argv.includes("goals")) {
  const { run } = await import("./measure.ts")
  await run(process.argv.includes("--json"))
}
if (process.argv.includes("postgres-faults")) await (await import("./postgresFaults.ts")).faults()
if (process.argv.includes("postgres-interruptions")) {
  await (await import("./postgresFaults.ts")).manyInterruptions()
}

const wanted = process.argv.slice(2).filter((argument) => !argument.includes("/"))
const names = fs.readdirSync("bench")
  .filter((file) => file.endsWith(".bench.ts"))
  .map((file) => file.slice(0, -".bench.ts".length))
  .filter((name) => wanted.length === 0 || wanted.includes(name))
if (names.length === 0) throw new Error(`No suite named ${wanted.join(", ")} in bench/`)

console.log(`Node ${process.version}, ${os.cpus()[0]?.model.trim()} × ${os.cpus().length}`)
for (const name of names) {
  const { default: suites } = await import(`./${name}.bench.ts`) as {
    readonly default: ReadonlyArray<Suite>
  }
  for (const suite of suites) await measure(suite)
}
