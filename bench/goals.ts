/**
 * The goals of `npm run bench -- goals`: what is measured, against what, and what is enough. A goal that is missed is shown as
 * missed. To add one: a row here, its figures in measure.ts, and a run, which writes it to RESULTS.md.
 */

/** One row: `work` of ours `against` something, and how large theirs / ours must be. */
export interface Goal {
  readonly work: string
  readonly against: string
  /** In words. */
  readonly goal: string
  readonly least?: number
  readonly most?: number
  /** Of both figures. Default: nanoseconds. */
  readonly unit?: "×" | "MB" | "runs/s"
  /** What a reader of the row should know. */
  readonly note?: string
}

/** Ours and theirs, in the unit of the goal. */
export type Figures = readonly [ours: number, theirs: number]

/** theirs / ours: how many times faster we are, for a time. */
export const ratioOf = ([ours, theirs]: Figures): number => Number((theirs / ours).toFixed(2))

export const isMet = ({ least = 0, most = Infinity }: Goal, [ours, theirs]: Figures): boolean =>
  theirs / ours >= least && theirs / ours <= most

const inTime = (nanos: number): string => {
  const [value, unit] = nanos >= 1e6
    ? [nanos / 1e6, "ms"] as const
    : nanos >= 1e3
    ? [nanos / 1e3, "µs"] as const
    : [nanos, "ns"] as const
  return `${Number(value.toPrecision(3))} ${unit}`
}

export const format = ({ unit }: Goal, value: number): string =>
  unit === undefined
    ? inTime(value)
    : `${unit === "×" ? value.toFixed(2) : Math.round(value).toLocaleString("en")} ${unit}`

const warmUse = "warm `Pool.use`"
const aloneLock = "uncontended `Mutex.withLock`"
const crowdOnOne = "1,000 fibers on 1 permit, hold one yield"

/** What is measured, against what, and what is enough: a least for theirs / ours. */
export const goals = {
  managed: {
    work: "`Managed.use`, ledger off",
    against: "`Effect.acquireUseRelease`",
    goal: "≤ 1.1 × its time",
    least: 1 / 1.1
  },
  trackedUse: {
    work: "`Managed.use` under the tracker",
    against: "`Effect.acquireUseRelease`",
    goal: "≤ 1.3 × its time",
    least: 1 / 1.3
  },
  trackedFork: {
    work: "fork + join under the tracker",
    against: "without it",
    goal: "≤ 1.25 × its time",
    least: 1 / 1.25
  },
  siteInGenerator: {
    work: "what sites `first` add to an acquire in a generator, ledger on",
    against: "the goal",
    goal: "≤ 3 µs",
    least: 1,
    note: "A line is Node's own `Error`: 1.5 to 2 µs at its best."
  },
  siteInThunk: { work: "the same in a thunk", against: "the goal", goal: "≤ 3 µs", least: 1 },
  ledgerAndSite: {
    work: "what ledger and sites together add to an acquire in a generator",
    against: "the goal",
    goal: "≤ 3 µs",
    least: 1
  },
  snapshot: {
    work: "snapshot of 10,000 held resources",
    against: "the goal",
    goal: "≤ 20 ms",
    least: 1
  },
  poolEffect: {
    work: warmUse,
    against: "effect 3 scoped `Pool.get`",
    goal: "≥ 15 × faster",
    least: 15
  },
  poolHand: {
    work: warmUse,
    against: "a hand-written pool in `uninterruptibleMask`",
    goal: "≤ 0.75 × its time",
    least: 1 / 0.75
  },
  poolGeneric: {
    work: warmUse,
    against: "generic-pool",
    goal: "faster",
    least: 1
  },
  poolTarn: { work: warmUse, against: "tarn", goal: "faster", least: 1 },
  poolLightning: { work: warmUse, against: "lightning-pool", goal: "faster", least: 1 },
  poolCrowd: {
    work: "1,000 fibers on a pool of 10",
    against: "effect 3 `Pool`",
    goal: "≥ 10 × faster",
    least: 10
  },
  mutexEffect: {
    work: aloneLock,
    against: "effect 3 `Semaphore`",
    goal: "≥ 3 × faster",
    least: 3
  },
  mutexAsync: { work: aloneLock, against: "async-mutex", goal: "≤ 0.5 × its time", least: 2 },
  crowdEffect: {
    work: crowdOnOne,
    against: "effect 3 `Semaphore`",
    goal: "≥ 50 × faster",
    least: 50
  },
  perTask: {
    work: "per task: 10,000 waiters against 100",
    against: "ourselves",
    goal: "flat within 50 %",
    least: 1 / 1.5,
    most: 1.5,
    note:
      "10,000 fibers cost about twice as much each as 100 do, with a lock or without. The next row has the lock's part alone."
  },
  perTaskNet: {
    work: "the same, as a multiple of what fork + yield alone take",
    against: "ourselves",
    goal: "flat within 50 %",
    least: 1 / 1.5,
    most: 1.5,
    unit: "×"
  },
  crowdAsync: {
    work: `${crowdOnOne}, net of fork + yield`,
    against: "async-mutex",
    goal: "≤ 1 × its time",
    least: 1
  },
  forEach: {
    work: "`Parallel.forEach`, 10⁶ items, 16 at once",
    against: "`Effect.forEach`",
    goal: "≤ 0.5 × its time",
    least: 2
  },
  heap: {
    work: "peak heap: 400,000 items against 20,000",
    against: "ourselves",
    goal: "independent of length (≤ 1.5 ×)",
    least: 1 / 1.5,
    unit: "MB"
  },
  explorer: {
    work: "explorer on `Pool.use`",
    against: "the goal",
    goal: "≥ 10,000 runs/s",
    most: 1,
    unit: "runs/s"
  },
  explorerYield: {
    work: "explorer on `Pool.use`, its body yields once",
    against: "the goal",
    goal: "≥ 10,000 runs/s",
    most: 1,
    unit: "runs/s"
  }
} as const satisfies Record<string, Goal>

export type Id = keyof typeof goals
