/**
 * `npm run explore`: every public primitive of ours, interrupted at every point, twice, as its owner closes, with each fault and in
 * other orders, all grades counted; ours on real files and servers; then effect's own, where the known defects must be seen. The last line is
 * `N passed, M failed`.
 *
 * `npm run explore -- hostile [times]`: instead, all programs of `seeds/hostile.ts`, each judged that often in a row (default
 * 20). A program passes if every verdict is its rightful one.
 *
 * `npm run explore -- orders`: instead, the programs of three fibers of `seeds/trios.ts`: how many schedules the plain enumeration of
 * their orders takes, and the reduced one. A program passes if the reduced one shows the same wrong ends with a tenth of them.
 */
import { Effect } from "effect"
import { Managed } from "holdfast"
import * as Embedded from "holdfast/Postgres/Embedded"
import { Explore } from "holdfast/Testing"
import { hostiles, saidOf, tidyUp } from "./seeds/hostile.ts"
import { ours, type Own } from "./seeds/ours.ts"
import { real } from "./seeds/real.ts"
import { ordersOf, trios } from "./seeds/trios.ts"
import { gradeInNursery, type Seed, upstream, upstreamMore } from "./seeds/upstream.ts"

const everyGrade: ReadonlyArray<Explore.Grade> = ["R0", "R1", "R2", "R3", "R4"]

const budget = { runs: 100_000, millis: 20_000 }

/** Two interrupts of the use, and of the fiber that closes the owner. */
const twice = { interrupts: 2, pairs: 400, uses: [1, "close"] } as const

/** With up to two delays, reduced. */
const orders = { budget: { ...budget, millis: 60_000 }, random: 50, pct: { runs: 50 } }

/** Not those that never return: what is masked then waits for ever by contract, or is abandoned by name (Managed-3). */
const faults: Explore.Faults = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "release dies",
  "release is slow"
]

/** Every verdict on one of ours: interrupted; with each fault; in other orders, where it contends. */
const verdictsOn = async (
  { interleavings, interruptions, trio }: Own
): Promise<ReadonlyArray<Explore.Verdict>> => [
  await interruptions({ budget, fail: everyGrade, ...twice }),
  await interruptions({ budget, fail: everyGrade, faults }),
  // Where three users are tried with two delays, one is enough for two of them.
  ...interleavings === undefined
    ? []
    : [await interleavings(trio === undefined ? orders : { ...orders, delays: 1 })],
  ...trio === undefined ? [] : [await trio(orders)]
]

const cell = (value: string | number, width: number): string => String(value).padStart(width)
const total = (
  verdicts: ReadonlyArray<Explore.Verdict>,
  of: (verdict: Explore.Verdict) => number
): number => verdicts.reduce((sum, verdict) => sum + of(verdict), 0)

const row = (name: string, verdicts: ReadonlyArray<Explore.Verdict>, last: string): string =>
  [
    name.padEnd(52),
    cell(total(verdicts, ({ points }) => points.own + points.waits + points.others), 7),
    cell(total(verdicts, ({ classes }) => classes), 8),
    cell(total(verdicts, ({ runs }) => runs), 8),
    cell(total(verdicts, ({ findings }) => findings.length), 11),
    cell(total(verdicts, ({ seconds }) => seconds).toFixed(1), 8),
    `  ${last}`
  ].join("")

const head = (title: string, last: string): string =>
  `\n${title.padEnd(52)} points classes    runs violations seconds  ${last}`

const exploreOurs = async (): Promise<ReadonlyArray<boolean>> => {
  console.log(head("Ours: all grades, nothing may be found", "verdict"))
  const passed: Array<boolean> = []
  for (const own of ours) {
    const verdicts = await verdictsOn(own)
    const bad = verdicts.filter((verdict) => !verdict.passed)
    console.log(
      row(
        own.name,
        verdicts,
        bad.length === 0 ? "safe" : bad.map(({ status }) => status).join(", ")
      )
    )
    for (const verdict of bad) console.log(Explore.format(verdict))
    passed.push(bad.length === 0)
  }
  return passed
}

/** One point of each class: real I/O takes its time. */
const exploreReal = async (server: Embedded.Server): Promise<ReadonlyArray<boolean>> => {
  console.log(head("Ours on real files, sockets and servers", "verdict"))
  const passed: Array<boolean> = []
  for (const own of real(server)) {
    const settings = { mode: "quick", fail: everyGrade, budget: { millis: 120_000 } } as const
    const verdict = await own.interruptions(settings)
    console.log(row(own.name, [verdict], verdict.status))
    if (!verdict.passed) console.log(Explore.format(verdict))
    passed.push(verdict.passed)
  }
  return passed
}

const isAsKnown = ({ grade }: Seed, { findings, status }: Explore.Verdict): boolean =>
  grade === undefined ? status === "safe" : findings.some((finding) => finding.grade === grade)

const gradesOf = ({ findings }: Explore.Verdict): string =>
  Array.from(new Set(findings.map(({ grade }) => grade))).toSorted().join(" ") || "nothing"

/** Whether the plain program of each finding up to R2 fails without the explorer, and passes once its subject is mended. */
const areCertified = async ({ certify }: Seed, { findings }: Explore.Verdict) => {
  const near = findings.filter(({ grade }) => grade <= "R2")
  if (certify === undefined) return near.length === 0
  for (const finding of near) {
    if (!(await certify(finding)).certified) return false
    if ((await certify(finding, true)).certified) return false
  }
  return true
}

const exploreUpstream = async (): Promise<ReadonlyArray<boolean>> => {
  console.log(
    head("effect 3.22.4: its known defects, by grade of reach", "found (known), in a nursery")
  )
  const passed: Array<boolean> = []
  const run = Explore.interruptions
  for (const seed of [...upstream(run), ...upstreamMore(run)]) {
    const verdict = await seed.explore()
    const held = await seed.inNursery?.()
    const isCertified = await areCertified(seed, verdict)
    const inNursery = held === undefined ? "" : `, ${gradesOf(held)}`
    console.log(
      row(seed.name, [verdict], `${gradesOf(verdict)} (${seed.grade ?? "nothing"})${inNursery}`)
        + (isCertified ? "" : ", a plain program that does not show it")
    )
    passed.push(isAsKnown(seed, verdict) && isCertified)
    if (held !== undefined) passed.push(isAsKnown({ ...seed, grade: gradeInNursery(seed) }, held))
  }
  return passed
}

const exploreHostile = async (times: number): Promise<ReadonlyArray<boolean>> => {
  console.log(`\n${"Hostile programs".padEnd(72)} right  rightful verdict`)
  const passed: Array<boolean> = []
  for (const hostile of hostiles) {
    const wrong: Array<Explore.Verdict> = []
    for (let nth = 0; nth < times; nth++) {
      const verdict = await hostile.explore()
      await tidyUp()
      if (saidOf(verdict, hostile) !== hostile.rightful) wrong.push(verdict)
    }
    const right = `${times - wrong.length}/${times}`
    console.log(`${hostile.name.padEnd(70)} ${cell(right, 7)}  ${hostile.rightful}`)
    if (wrong[0] !== undefined) console.log(Explore.format(wrong[0]))
    passed.push(wrong.length === 0)
  }
  return passed
}

const onServer = <A>(use: (server: Embedded.Server) => Promise<A>): Promise<A> =>
  Effect.runPromise(Managed.use(Embedded.make(), (server) => Effect.promise(() => use(server))))

const exploreOrders = async (): Promise<ReadonlyArray<boolean>> => {
  console.log(
    `\n${
      "Three fibers, up to two delays".padEnd(46)
    }   plain reduced  share  wrong ends, plain    reduced`
  )
  const passed: Array<boolean> = []
  let plains = 0
  let reduceds = 0
  for (const trio of trios) {
    const plain = await ordersOf(trio, false)
    const reduced = await ordersOf(trio, true)
    const [all, some] = [plain, reduced].map(({ wrong }) => wrong.join(" ") || "none")
    const share = reduced.runs / plain.runs
    console.log(
      trio.name.padEnd(46) + cell(plain.runs, 8) + cell(reduced.runs, 8)
        + cell((100 * share).toFixed(1), 6) + `%  ${all?.padEnd(20)} ${some}`
    )
    plains += plain.runs
    reduceds += reduced.runs
    passed.push(all === some && share <= 0.1 && trio.isBroken === (all !== "none"))
  }
  console.log(
    "all".padEnd(46) + cell(plains, 8) + cell(reduceds, 8)
      + cell((100 * reduceds / plains).toFixed(1), 6) + "%"
  )
  return passed
}

const [what, times = "20"] = process.argv.slice(2).filter((word) => word !== "--")
const passed = what === "hostile"
  ? await exploreHostile(Number(times))
  : what === "orders"
  ? await exploreOrders()
  : [...await exploreOurs(), ...await onServer(exploreReal), ...await exploreUpstream()]
const failed = passed.filter((one) => !one).length
console.log(`\n${passed.length - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
