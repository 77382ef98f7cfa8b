/**
 * report: the report of a run, and the counts of a ledger since the run began to end.
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import type * as Exit from "effect/Exit"
import * as Ledger from "../Ledger.ts"
import type { FiberReport } from "./fibers.ts"
import type { HookReport, Unfinished } from "./marks.ts"
import type { Phase, PhaseRecord, Reason } from "./phases.ts"

/**
 * One phase. Times are in milliseconds of the `Clock`.
 *
 * @category models
 * @since 0.1.0
 */
export interface PhaseReport {
  readonly phase: Phase
  readonly startedAt: number
  /** How long it took, or has taken so far. */
  readonly duration: number
  /** Something in it did not end by its bound. */
  readonly overran: boolean
  /** The work, also of nested runs, that draining or stopping waited for and that had not ended by its bound. */
  readonly unfinished: ReadonlyArray<Unfinished>
}

/**
 * How one resource ended: of all that were live at the end of the report, and those that ended since the request (of those that
 * were released without trouble, as many as the ledger's history has).
 *
 * @category models
 * @since 0.1.0
 */
export interface ResourceReport {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: Ledger.State
  /** The line that acquired it. */
  readonly site: string | undefined
  /** Milliseconds from its acquire to its release. */
  readonly heldFor: number | undefined
  /** Milliseconds of its release, so far if it is still being released. */
  readonly releaseTook: number | undefined
  /** Why it failed or was abandoned. */
  readonly cause: string | undefined
}

/**
 * How the end has gone so far. Plain data, except for the error of a reason. Counts, resources, hooks and fibers include those of
 * the children.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report {
  readonly reason: Reason | undefined
  /** Milliseconds since the request, or since the program ended by itself. */
  readonly took: number
  readonly phases: ReadonlyArray<PhaseReport>
  /** Counted since then, by the ledgers in force, each ledger once; all 0 without a ledger. */
  readonly released: number
  readonly failed: number
  readonly abandoned: number
  readonly held: number
  /**
   * Releases since then, or since the start of the program if it ended by itself, that failed or overran and were only reported
   * (`onReleaseFailure`): counted without a ledger, too.
   */
  readonly reported: number
  /** Batches that were drained since the request: another run of the program finds work left. */
  readonly drained: number
  /** The slowest release first. */
  readonly resources: ReadonlyArray<ResourceReport>
  readonly hooks: ReadonlyArray<HookReport>
  /** Work that is marked by `inFlight` or `drains` and has not ended yet. */
  readonly unfinished: ReadonlyArray<Unfinished>
  /** Of the fibers left behind, those that did not end, or failed. */
  readonly fibers: ReadonlyArray<FiberReport>
  /** Whether anything did not end by its bound: a phase, a hook, a release, a fiber. */
  readonly overran: boolean
  /** The exit code of the process: known to `Main.run` only, and at the end only. */
  readonly exitCode: number | undefined
  /** The runs inside this one that go on, or have ended since then. */
  readonly children: ReadonlyArray<Report>
}

/**
 * How a program ended, and the report of that.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended<out A, out E = never> {
  /** The program's own exit; a `ShutdownTimeout` defect if it did not end. */
  readonly exit: Exit.Exit<A, E>
  readonly report: Report
}

/**
 * The program did not end in the time that its releases have, and was left behind.
 *
 * @category errors
 * @since 0.1.0
 */
export class ShutdownTimeout extends Data.TaggedError("ShutdownTimeout")<{
  /** How long it was waited for. */
  readonly waited: Duration.Duration
  /** The resources that it was still releasing, was acquiring, or held, in this order. */
  readonly held: ReadonlyArray<Ledger.Entry>
}> {
  override get message(): string {
    const shown = this.held.slice(0, 10).map((entry) => Ledger.describe(entry)).join("; ")
    const more = this.held.length > 10 ? ` and ${this.held.length - 10} more` : ""
    return `The program did not end within ${
      Duration.format(this.waited)
    } of being interrupted and was left behind`
      + (shown === ""
        ? ". Look for an uninterruptible wait, or raise `releaseTimeout`."
        : `, with ${shown}${more}. Bound what hangs (a release by \`releaseDeadline\`, an acquire by \`restore\`), or raise \`releaseTimeout\`.`)
  }
}

/** The releases that a ledger knows to have been abandoned before an instant. */
export interface Abandoned {
  readonly count: number
  readonly since: number
}

/** The state of a ledger when the end began, and the releases that have failed since, also those its history has lost. */
export class Baseline {
  readonly ledger: Ledger.Service
  /** Abandoned releases count from then on. */
  readonly from: number
  readonly #since: number
  readonly #total: Ledger.Totals
  readonly #abandonedBefore: number
  readonly #troubled = new Map<number, Ledger.Entry>()
  readonly stop: () => void

  constructor(ledger: Ledger.Service, abandoned: Abandoned | undefined) {
    const { takenAt, total } = ledger.unsafeSnapshot()
    this.ledger = ledger
    this.#since = takenAt
    this.#total = total
    this.#abandonedBefore = abandoned?.count ?? total.abandoned
    this.from = abandoned?.since ?? takenAt
    this.stop = ledger.unsafeListen(({ entry }) => {
      if (entry.state === "abandoned" || entry.state === "failed") {
        this.#troubled.set(entry.id, entry)
      }
    })
  }

  read() {
    const { ended, live, takenAt, total } = this.ledger.unsafeSnapshot()
    const entries = new Map(this.#troubled)
    for (const entry of ended) {
      const from = entry.state === "abandoned" ? this.from : this.#since
      if ((entry.endedAt ?? 0) >= from) entries.set(entry.id, entry)
    }
    for (const entry of live) entries.set(entry.id, entry)
    const failed = total.failed - this.#total.failed
    return {
      released: total.released - this.#total.released - failed,
      failed,
      abandoned: total.abandoned - this.#abandonedBefore,
      held: live.filter(({ state }) => state !== "acquiring").length,
      resources: Array.from(entries.values())
        // A waiter that left held nothing.
        .filter(({ endedAt, heldAt }) => heldAt !== undefined || endedAt === undefined)
        .map((entry) => resourceOf(entry, takenAt))
    }
  }
}

/** One baseline for each ledger: the earliest, so that each release is counted once. */
const earliest = (all: ReadonlyArray<Baseline>): ReadonlyArray<Baseline> => {
  const byLedger = new Map<Ledger.Service, Baseline>()
  for (const one of all) {
    const other = byLedger.get(one.ledger)
    if (other === undefined || one.from < other.from) byLedger.set(one.ledger, one)
  }
  return Array.from(byLedger.values())
}

/** What the report of a run is made of. */
export interface Sources extends Pick<Report, "reason" | "reported" | "drained"> {
  readonly begunAt: number | undefined
  readonly now: number
  readonly phases: ReadonlyArray<PhaseRecord>
  readonly baseline: Baseline | undefined
  /** Of the run itself. */
  readonly hooks: ReadonlyArray<HookReport>
  readonly unfinished: ReadonlyArray<Unfinished>
  readonly fibers: ReadonlyArray<FiberReport>
  readonly children: ReadonlyArray<Sources>
}

const baselinesOf = ({ baseline, children }: Sources): ReadonlyArray<Baseline> => [
  ...baseline === undefined ? [] : [baseline],
  ...children.flatMap(baselinesOf)
]

/** The sum over the ledgers of a run and of its children. */
const readAll = (all: ReadonlyArray<Baseline>) => {
  const read = earliest(all).map((one) => one.read())
  const sum = (count: "abandoned" | "failed" | "held" | "released"): number =>
    read.reduce((total, one) => total + one[count], 0)
  return {
    released: sum("released"),
    failed: sum("failed"),
    abandoned: sum("abandoned"),
    held: sum("held"),
    resources: read.flatMap(({ resources }) => resources).toSorted(slowestFirst)
  }
}

const unfinishedInside = ({ children }: Sources): ReadonlyArray<Unfinished> =>
  children.flatMap((child) => [
    ...child.phases.flatMap(({ unfinished }) => unfinished),
    ...unfinishedInside(child)
  ])

export const phaseReportOf = (record: PhaseRecord, self: Sources): PhaseReport => {
  const { endedAt, phase, startedAt } = record
  const recordOf = (phase: Phase) => self.phases.find((one) => one.phase === phase)
  // This phase waited for the nested runs, so it lists the work that they left.
  const waited = recordOf("stopping") ?? recordOf("releasing")
  const nested = record === waited ? unfinishedInside(self) : []
  return {
    phase,
    startedAt,
    duration: (endedAt ?? self.now) - startedAt,
    overran: record.overran || nested.length > 0,
    unfinished: [...record.unfinished, ...nested]
  }
}

export const reportOf = (self: Sources): Report => {
  const { begunAt, fibers, hooks, now, reason, unfinished } = self
  const children = self.children.map(reportOf)
  const phases = self.phases.map((record) => phaseReportOf(record, self))
  const ledgers = readAll(baselinesOf(self))
  const own = new Set(fibers.map(({ fiber }) => fiber))
  const sum = (count: "reported" | "drained"): number =>
    children.reduce((total, child) => total + child[count], self[count])
  return {
    reason,
    took: begunAt === undefined ? 0 : (self.phases.at(-1)?.endedAt ?? now) - begunAt,
    phases,
    ...ledgers,
    reported: sum("reported"),
    drained: sum("drained"),
    hooks: [...hooks, ...children.flatMap(({ hooks }) => hooks)],
    unfinished,
    // The sweep of a whole process finds the fibers of nested runs, too.
    fibers: [
      ...fibers,
      ...children.flatMap(({ fibers }) => fibers).filter(({ fiber }) => !own.has(fiber))
    ],
    overran: ledgers.abandoned > 0
      || phases.some(({ overran }) => overran)
      || children.some(({ overran }) => overran),
    exitCode: undefined,
    children
  }
}

const slowestFirst = (one: ResourceReport, other: ResourceReport): number =>
  (other.releaseTook ?? 0) - (one.releaseTook ?? 0)

const resourceOf = (entry: Ledger.Entry, now: number): ResourceReport => {
  const { cause, endedAt, heldAt, id, kind, name, releasingAt, site, state } = entry
  const end = endedAt ?? now
  return {
    id,
    kind,
    name,
    state,
    site,
    heldFor: heldAt === undefined ? undefined : (releasingAt ?? end) - heldAt,
    releaseTook: releasingAt === undefined ? undefined : end - releasingAt,
    cause
  }
}

/** The states in order: an entry that hangs comes first. */
const urgency: ReadonlyArray<Ledger.State> = ["releasing", "acquiring", "held"]

export const mostUrgentFirst = (
  one: { readonly state: Ledger.State },
  other: { readonly state: Ledger.State }
): number => urgency.indexOf(one.state) - urgency.indexOf(other.state)
