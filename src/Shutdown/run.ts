/**
 * run: leads one program to its end, phase by phase.
 *
 * DESIGN. A run is a request, the marks and hooks that it waits for, and its nested runs. The fiber that leads it is outside of the
 * program. A nested run is one in-flight mark of its parent, and one of the runs that a request of the parent is passed to.
 */
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as RuntimeFlags from "effect/RuntimeFlags"
import type * as Subscribable from "effect/Subscribable"
import * as Deadline from "../internal/deadline.ts"
import * as Interrupt from "../internal/interrupt.ts"
import * as OptionsOf from "../internal/options.ts"
import type { AnyFiber } from "../internal/runtime.ts"
import { isSleeper } from "../internal/timers.ts"
import * as Ledger from "../Ledger.ts"
import { Interrupted } from "./fibers.ts"
import { grouped, Hooks, type Mark, Marks } from "./marks.ts"
import type { Bounds, Budgets, Millis, Phase, Reason } from "./phases.ts"
import { boundsOf, millisIn, Phases, rules } from "./phases.ts"
import type { Abandoned, Ended, PhaseReport, Report, Sources } from "./report.ts"
import { Baseline, mostUrgentFirst, phaseReportOf, reportOf, ShutdownTimeout } from "./report.ts"
import { Waits } from "./waits.ts"

/**
 * The options of `run`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Budgets {
  /**
   * Which fibers that are left behind count as the program's: its own (all that were forked in it), or every one in the process.
   * Default `"own"`.
   */
  readonly fibers?: "own" | "all" | undefined
  /** Called, synchronously, as each phase ends. It must not throw. */
  readonly onPhaseEnd?: ((phase: PhaseReport) => void) | undefined
}

/** The main fiber of the program, and its exit once it has one. */
interface Main<A, E> {
  readonly fiber: Fiber.RuntimeFiber<A, E>
  exit: Exit.Exit<A, E> | undefined
}

/** The tag of the shutdown in force, which Shutdown.ts owns. */
export interface Tag {
  readonly get: (context: Context.Context<never>) => Run
  readonly provide: <A, E, R>(effect: Effect.Effect<A, E, R>, run: Run) => Effect.Effect<A, E, R>
}

/** Its fields are private, so that a `Service` is made by `unsafeMake` only. */
export class Run {
  readonly #budget: Deadline.Budget
  readonly #tag: Tag
  readonly #waits = new Waits()
  readonly #phases = new Phases(this.#waits)
  readonly #marks = new Marks(this.#waits)
  readonly #hooks = new Hooks(
    this.#waits,
    () => this.#hasProgram ? this.#phases.current : undefined
  )
  readonly #asked = Deferred.unsafeMake<Reason>(FiberId.none)
  #reason: Reason | undefined
  /** The instant of the request, or of the end of a program that ended by itself. */
  #begunAt: number | undefined
  #hasProgram = false
  #millis: Millis = millisIn({})
  #ledger: Ledger.Service | undefined
  #abandoned: Abandoned | undefined
  #baseline: Baseline | undefined
  #reported = { total: 0, before: 0 }
  /** Batches that were drained before the request. */
  #drainedBefore = 0
  /** Hooks and marked work; and, of those it did not wait for, the fibers that the program left behind. */
  readonly #overran = new Interrupted(() => this.#waits.notify())
  readonly #orphans = new Interrupted(() => this.#waits.notify())
  /** The run that this one is nested in. */
  #parent: Run | undefined
  /** The nested runs that go on, or have ended since this one began to end. */
  readonly #children = new Set<Run>()
  /** Whether it began in a release, or masked. Then its parent passes it no request. */
  #isShielded = false

  constructor(budget: Deadline.Budget, tag: Tag) {
    this.#budget = budget
    this.#tag = tag
  }

  readonly requested: Effect.Effect<Reason> = Deferred.await(this.#asked)
  readonly reason: Effect.Effect<Option.Option<Reason>> = Effect.sync(() => this.unsafeReason())
  readonly isReady: Effect.Effect<boolean> = Effect.sync(() => this.unsafePhase() === "running")
  readonly report: Effect.Effect<Report> = Effect.sync(() => this.unsafeReport())
  readonly phase: Subscribable.Subscribable<Phase> = this.#phases.subscribable
  unsafeReason = (): Option.Option<Reason> => Option.fromNullable(this.#reason)
  unsafePhase = (): Phase => this.#phases.current
  unsafeDrainers = (): number => this.#marks.drains.size
  /** Counts a failed or abandoned release that its owner does not see. */
  unsafeReported = (): void => {
    this.#reported.total++
  }

  /** Here and below, `site` is the line that the report gives. */
  inFlight = <A, E, R>(effect: Effect.Effect<A, E, R>, site?: Ledger.Site) =>
    this.#marks.mark("inFlight", effect, site)
  drains = <A, E, R>(effect: Effect.Effect<A, E, R>, site?: Ledger.Site) =>
    this.#marks.mark("drains", effect, site)
  onDrain = <A, E, R>(hook: Effect.Effect<A, E, R>, site?: Ledger.Site) =>
    this.#hooks.register("draining", hook, site)
  onStop = <A, E, R>(hook: Effect.Effect<A, E, R>, site?: Ledger.Site) =>
    this.#hooks.register("stopping", hook, site)

  request = (reason: Reason): Effect.Effect<boolean> =>
    Effect.sync(() => this.unsafeRequest(reason))

  /** INVARIANT Shutdown-1: true if this is the first request. */
  unsafeRequest = (reason: Reason): boolean => {
    if (this.#reason !== undefined) return false
    this.#reason = reason
    this.#drainedBefore = this.#budget.drained
    // INVARIANT Shutdown-7: from this step on the report counts.
    if (this.#hasProgram) this.#begin()
    this.#marks.onRequest()
    // INVARIANT Shutdown-3: before anything that waits for the request is woken.
    if (this.#phases.current === "running") this.#phases.enter("draining")
    // INVARIANT Shutdown-8.
    for (const child of this.#children) if (!child.#isShielded) child.unsafeRequest(reason)
    Deferred.unsafeDone(this.#asked, Effect.succeed(reason))
    this.#waits.notify()
    return true
  }

  unsafeReport = (): Report => reportOf(this.#sources())

  #sources(): Sources {
    const now = this.#waits.now()
    return {
      reason: this.#reason,
      begunAt: this.#begunAt,
      now,
      phases: this.#phases.records,
      baseline: this.#baseline,
      reported: this.#reported.total - this.#reported.before,
      drained: this.#reason === undefined ? 0 : this.#budget.drained - this.#drainedBefore,
      hooks: this.#hooks.report(),
      unfinished: grouped(this.#marks.all, now),
      fibers: this.#orphans.report(),
      children: Array.from(this.#children, (child) => child.#sources())
    }
  }

  /** Runs the program of this shutdown. There is only one: a second is a defect. */
  run = <A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options = {},
    site: Ledger.Site | undefined = Ledger.unsafeSite()
  ): Effect.Effect<Ended<A, E>, never, R> =>
    Effect.withFiberRuntime((caller, { runtimeFlags }) => {
      const parent = this.#tag.get(caller.currentContext)
      const running = this.#lead(program, options)
      if (parent === this || this.#hasProgram) return running
      this.#isShielded = !RuntimeFlags.interruptible(runtimeFlags) || Deadline.isWork(caller)
      const entered = Effect.sync(() => {
        this.#parent = parent
        parent.#children.add(this)
        if (parent.#reason !== undefined && !this.#isShielded) this.unsafeRequest(parent.#reason)
      })
      const left = Effect.sync(() => {
        // The report of a run that ended before is its caller's alone.
        if (parent.#begunAt !== undefined) return
        parent.#children.delete(this)
        this.#stopCounting()
      })
      return parent.inFlight(Effect.acquireUseRelease(entered, () => running, () => left), site)
    })

  /** Stops listening to the ledger: the report is not read any more. */
  #stopCounting(): void {
    this.#baseline?.stop()
    for (const child of this.#children) child.#stopCounting()
  }

  #lead<A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options
  ): Effect.Effect<Ended<A, E>, never, R> {
    // MASK: an interrupt of the run is a request, and the run then ends phase by phase. The wait for the end of the program is
    // restored; each wait after that has a bound.
    return Effect.uninterruptibleMask((restore) => {
      OptionsOf.check("Shutdown.run", options, {
        ...rules,
        fibers: OptionsOf.oneOf("own", "all"),
        onPhaseEnd: OptionsOf.callback
      })
      return Effect.flatMap(this.#launch(program, options), (main) => {
        const isEnding = () => this.#reason !== undefined || main.exit !== undefined
        const waiting = Effect.onInterrupt(
          restore(this.#waits.until(isEnding, Infinity)),
          () => this.request({ kind: "request", by: "interruption" })
        )
        return Effect.zipRight(Effect.exit(waiting), this.#end(main, options))
      })
    })
  }

  /** Forks the program, with this shutdown in its context. */
  #launch<A, E, R>(
    program: Effect.Effect<A, E, R>,
    options: Options
  ): Effect.Effect<Main<A, E>, never, R> {
    return Effect.flatMap(Effect.zip(Effect.clock, Ledger.Ledger), ([clock, ledger]) => {
      if (this.#hasProgram) {
        return Effect.dieMessage("Shutdown.run: this shutdown has a program already. Make another.")
      }
      this.#hasProgram = true
      this.#millis = millisIn(options)
      this.#waits.clock = clock
      this.#ledger = ledger
      if (ledger !== undefined && options.fibers === "all") {
        // A program that ends by itself has closed its scopes before its end is seen. The ledger is its own only where the whole
        // process is.
        const { takenAt, total } = ledger.unsafeSnapshot()
        this.#abandoned = { count: total.abandoned, since: takenAt }
      }
      const provided = Effect.interruptible(program).pipe(
        (effect) => this.#tag.provide(effect, this),
        Effect.provideService(Deadline.BudgetInForce, this.#budget)
      )
      return Effect.map(Effect.forkDaemon(provided), (fiber) => {
        const main: Main<A, E> = { fiber, exit: undefined }
        // A request may have come before.
        if (this.#phases.records.length === 0) this.#phases.enter("running")
        fiber.addObserver((exit) => {
          main.exit = exit
          this.#begin()
          this.#waits.notify()
        })
        return main
      })
    })
  }

  /** Begins the counting of the report, once, and gives the instant of that. */
  #begin(): number {
    if (this.#begunAt !== undefined) return this.#begunAt
    if (this.#reason !== undefined) this.#reported.before = this.#reported.total
    if (this.#ledger !== undefined) {
      const abandoned = this.#reason === undefined ? this.#abandoned : undefined
      this.#baseline = new Baseline(this.#ledger, abandoned)
    }
    return this.#begunAt = this.#waits.now()
  }

  #bounds(): Bounds {
    const from = this.#begin()
    const total = Math.min(
      this.#millis.total,
      (this.#parent === undefined ? Infinity : this.#parent.#nestedEndsBy()) - from
    )
    return boundsOf({ ...this.#millis, total: Math.max(0, total) }, from)
  }

  /** INVARIANT Shutdown-8: when a nested run must have ended. */
  #nestedEndsBy(): number {
    if (this.#budget.limit !== undefined) return Deadline.shareOf(this.#budget.limit)
    if (this.#begunAt === undefined) return Infinity
    return Math.min(this.#bounds().workEndsBy, this.#begunAt + this.#millis.stopTimeout)
  }

  /** From the request, or the program's own end, to `exited`. */
  #end<A, E>(main: Main<A, E>, options: Options): Effect.Effect<Ended<A, E>> {
    return Effect.withFiberRuntime((self) => {
      const bounds = this.#bounds()
      const ended = (phase: Phase, isInTime: boolean): void => {
        const record = this.#phases.recordOf(phase)
        if (record === undefined) return
        record.overran = !isInTime
        if (!isInTime) record.unfinished = grouped(this.#leftIn(phase, main), this.#waits.now())
        options.onPhaseEnd?.(phaseReportOf(record, this.#sources()))
      }
      const inPhase = (phase: Phase, work: Effect.Effect<boolean>): Effect.Effect<void> =>
        Effect.suspend(() => {
          if (this.#phases.current !== phase) this.#phases.enter(phase)
          return Effect.map(work, (isInTime) => {
            this.#overran.add(this.#hooks.abandon(), self.id())
            ended(phase, isInTime)
          })
        })
      return Effect.gen(this, function*() {
        ended("running", true)
        if (this.#reason !== undefined) {
          yield* inPhase("draining", this.#drain(main, bounds))
          yield* inPhase("stopping", this.#stop(main, bounds))
        }
        yield* inPhase("releasing", this.#release(main, bounds, options, self))
        this.#phases.enter("exited")
        this.#budget.end()
        const exit = main.exit ?? this.#timedOut()
        const report = this.unsafeReport()
        if (this.#parent === undefined) this.#stopCounting()
        return { exit, report }
      })
    })
  }

  /** The work that a phase waited for and that has not ended; its hooks have been abandoned. */
  #leftIn(phase: Phase, main: Main<unknown, unknown>): ReadonlyArray<Mark> {
    const hooks = this.#hooks.abandonedIn(phase)
    if (phase !== "stopping") return hooks
    const { all, drains, endsByItself } = this.#marks
    const isProgram = drains.size === 0 && endsByItself && main.exit === undefined
    const startedAt = this.#begunAt ?? this.#waits.now()
    return [
      ...all,
      ...hooks,
      ...isProgram ? [{ what: "program", site: undefined, startedAt } as const] : []
    ]
  }

  #drain(main: Main<unknown, unknown>, bounds: Bounds): Effect.Effect<boolean> {
    return this.#hooks.startAll("draining").pipe(
      // A program that has ended serves nothing.
      Effect.zipRight(this.#waits.until(() => main.exit !== undefined, bounds.servedUntil)),
      Effect.zipRight(this.#waits.until(() => this.#hooks.isIdle(), bounds.drainedBy))
    )
  }

  #stop(main: Main<unknown, unknown>, bounds: Bounds): Effect.Effect<boolean> {
    const { drains, inFlight } = this.#marks
    const hasStopped = (): boolean =>
      inFlight.size === 0 && drains.size === 0 && this.#hooks.isIdle()
      && (!this.#marks.endsByItself || main.exit !== undefined)
    return Effect.flatMap(this.#hooks.startAll("stopping"), () => {
      const by = Math.min(bounds.workEndsBy, this.#waits.now() + this.#millis.stopTimeout)
      return this.#waits.until(hasStopped, by)
    })
  }

  /**
   * INVARIANT Shutdown-6: the work that overran, then the main fiber, then the fibers that it left behind. The first may
   * take half of the time, and the first two nine tenths.
   */
  #release(
    main: Main<unknown, unknown>,
    bounds: Bounds,
    options: Options,
    self: AnyFiber
  ): Effect.Effect<boolean> {
    const isAll = options.fibers === "all"
    const isWork = (fiber: AnyFiber): boolean =>
      fiber !== main.fiber && (isAll || this.#isAround(fiber))
    const isOrphan = (fiber: AnyFiber): boolean =>
      fiber !== main.fiber && fiber !== self && !isSleeper(fiber)
      && (isAll || this.#tag.get(fiber.currentContext) === this)
    const hasExited = (): boolean => main.exit !== undefined
    const sweep = (all: boolean, by: number): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        const hasNew = this.#orphans.addRoots(isOrphan, all, self.id())
        return Effect.flatMap(
          this.#waits.until(() => hasExited() && this.#orphans.hasEnded(), by),
          // The end of a fiber may leave others behind.
          (isInTime) => isInTime && hasNew ? sweep(all, by) : Effect.succeed(isInTime)
        )
      })
    return Effect.gen(this, function*() {
      const from = this.#waits.now()
      const by = Math.min(bounds.endsBy, from + this.#millis.releaseTimeout)
      const instantAt = (share: number) => by === Infinity ? Infinity : from + share * (by - from)
      // INVARIANT Shutdown-4: no release takes the time that those after it need.
      this.#budget.begin({ by, now: () => this.#waits.now() })
      const marked = this.#marks.all.flatMap(({ fiber }) => fiber ?? [])
      this.#overran.add(marked.filter(isWork), self.id())
      yield* this.#waits.until(() => this.#overran.hasEnded(), instantAt(0.5))
      if (!hasExited()) Interrupt.atWait(main.fiber, self.id())
      yield* this.#waits.until(hasExited, instantAt(0.9))
      return (yield* sweep(false, instantAt(0.9))) || (yield* sweep(true, by))
    })
  }

  /** Whether a fiber is of this program, or of a nested one: what is forked in a program inherits its context. */
  #isAround(fiber: AnyFiber): boolean {
    let run: Run | undefined = this.#tag.get(fiber.currentContext)
    while (run !== undefined && run !== this) run = run.#parent
    return run === this
  }

  #timedOut(): Exit.Exit<never> {
    const now = this.#waits.now()
    const since = this.#phases.recordOf("releasing")?.startedAt ?? now
    const held = this.#ledger?.unsafeSnapshot().live ?? []
    return Exit.die(
      new ShutdownTimeout({
        waited: Duration.millis(now - since),
        held: held.toSorted(mostUrgentFirst)
      })
    )
  }
}
