/**
 * `npm run bench` runs every suite, `npm run bench -- Managed Parallel` those two; `goals`, `postgres-faults`,
 * `postgres-interruptions`, `locks`, `lock-faults`, `lock-races`, `lock-torture`, `files-faults` and `files-kills` are no suites. A suite is
 * a file `X.bench.ts` whose default export says what is
 * ours and what it is compared with, and whose `close` ends what would keep the process alive; this file does the measuring and the printing.
 *
 * Each contender does `operations` operations a call. The contenders run in turns, so a slow moment of the machine hits all of them.
 * Printed: the median time of one operation on the clock and of this process's processors, and the ratios of both to ours
 * (2.00 means: takes twice as long as ours). On a busy machine the processor time is the steadier one. Numbers of one run compare
 * with each other, not with another day's.
 */
import * as fs from "node:fs"
import * as os from "node:os"

export interface Suite {
  readonly title: string
  /** How many operations one call of a contender performs. */
  readonly operations: number
  /** By name; the first is ours. */
  readonly contenders: Readonly<Record<string, () => Promise<unknown>>>
}

/** Milliseconds for each contender, and the fewest rounds, of which the first ones warm up. */
const budget = 1_000
const warmup = 2
const fewestRounds = 7

interface Taken {
  readonly name: string
  readonly run: () => Promise<unknown>
  readonly wall: Array<number>
  readonly processor: Array<number>
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** In microseconds of the clock and of the processors. */
const timed = async (run: () => Promise<unknown>): Promise<readonly [number, number]> => {
  const before = process.cpuUsage()
  const began = performance.now()
  await run()
  const wall = (performance.now() - began) * 1000
  const { system, user } = process.cpuUsage(before)
  return [wall, user + system]
}

const measure = async ({ contenders, operations, title }: Suite): Promise<void> => {
  const all = Object.entries(contenders).map(([name, run]): Taken => ({
    name,
    run,
    wall: [],
    processor: []
  }))
  const end = performance.now() + budget * all.length
  for (let round = -warmup; round < fewestRounds || performance.now() < end; round++) {
    for (const { processor, run, wall } of all) {
      const [onClock, onProcessor] = await timed(run)
      if (round < 0) continue
      wall.push(onClock / operations)
      processor.push(onProcessor / operations)
    }
  }
  console.log(`\n${title}`)
  const columns = (values: ReadonlyArray<number>, ours: ReadonlyArray<number>): string => {
    const ratio = (median(values) / median(ours)).toFixed(2).padStart(6)
    return `${median(values).toFixed(3).padStart(10)} µs ${ratio}`
  }
  for (const { name, processor, wall } of all) {
    const onProcessor = columns(processor, all[0]!.processor)
    console.log(`  ${name.padEnd(40)} ${columns(wall, all[0]!.wall)}  processor ${onProcessor}`)
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
if (process.argv.includes("lock-worker")) await (await import("./locks/worker.ts")).serve()
if (process.argv.includes("locks")) await (await import("./locks/speed.ts")).run()
if (process.argv.includes("lock-races")) await (await import("./locks/races.ts")).run()
if (process.argv.includes("lock-torture")) await (await import("./locks/torture.ts")).run()
if (process.argv.includes("lock-faults")) await (await import("./locks/faults.ts")).run()
if (process.argv.includes("downloads")) {
  const share = Number(process.argv[process.argv.indexOf("downloads") + 1] ?? 1)
  await (await import("./downloads.ts")).downloads(share)
}

if (process.argv.includes("files-faults")) await (await import("./filesFaults.ts")).faults()
if (process.argv.includes("files-kills")) await (await import("./filesFaults.ts")).kills()

const wanted = process.argv.slice(2).filter((argument) => !argument.includes("/"))
const names = fs.readdirSync("bench")
  .filter((file) => file.endsWith(".bench.ts"))
  .map((file) => file.slice(0, -".bench.ts".length))
  .filter((name) => wanted.length === 0 || wanted.includes(name))
if (names.length === 0) throw new Error(`No suite named ${wanted.join(", ")} in bench/`)

console.log(`Node ${process.version}, ${os.cpus()[0]?.model.trim()} × ${os.cpus().length}`)
for (const name of names) {
  const { close, default: suites } = await import(`./${name}.bench.ts`) as {
    readonly default: ReadonlyArray<Suite>
    readonly close?: () => Promise<unknown>
  }
  for (const suite of suites) await measure(suite)
  await close?.()
}
