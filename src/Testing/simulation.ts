/**
 * simulation: one deterministic run. It owns the ready queue, the clock, the random numbers and each decision to yield.
 *
 * DESIGN. Each fiber has an effect `SchedulerRunner`, as under `Scheduler.makeBatched`, so tasks keep effect's own order; only
 * where the batches go is ours: a queue that is drained synchronously. Time is a list of timers that jumps to the next one when nothing is ready.
 * One fiber, the target, is watched: its operations are counted, and at the planned place it is made to yield (or is found
 * parked) and gets the interrupt. The interrupt goes in where another fiber would put it: behind the resume in the mailbox,
 * never from inside `shouldYield`.
 *
 * INVARIANTS
 * - Explore-2 The same subject and plan give the same run: the hash over all operations is the same.
 *
 * COST about 200 ns per operation, no supervisor unless a trace is asked for.
 * SOURCES cats-effect `TestControl`, Trio's autojump clock, shuttle.
 */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import * as Scheduler from "effect/Scheduler"
import type * as Ledger from "../Ledger.ts"
import { activate, type Active, activeRun, runtime, tracedRuntime } from "./environment.ts"
import {
  type AnyFiber,
  forget,
  hasChildren,
  hasUninterrupted,
  type Instruction,
  interceptDefaultScheduler,
  interceptInterrupts,
  isInterruptible,
  loopOf,
  offsetOf,
  runOf,
  schedulerOf,
  stackOf,
  standOf
} from "./runtime.ts"

/**
 * Where the target is interrupted: before its nth operation; when any fiber is before the nth operation of all; as it parks
 * for the nth time; between two others that run while it is parked; when nothing else can run while it is parked; or behind
 * what wakes it from its nth park.
 */
export interface Place {
  readonly kind: "op" | "global" | "parked" | "between" | "quiet" | "resumed" | "nowhere"
  readonly index: number
}

/** The differences of one run to the plain one. */
export interface Plan {
  readonly place?: Place | undefined
  /** Where the target is interrupted a second time. Only after `place`. */
  readonly again?: Place | undefined
  /** Operations, counted over all fibers, before which a yield is forced. Ascending. */
  readonly delays?: ReadonlyArray<number> | undefined
  /** Chooses among the ready fibers and yields at will; for random schedules. */
  readonly strategy?: Strategy | undefined
}

/** A way to choose a schedule. */
export interface Strategy {
  /** The index of the ready fiber to run next. */
  readonly next: (ready: ReadonlyArray<AnyFiber | undefined>) => number
  readonly yields: (fiber: AnyFiber, ready: ReadonlyArray<AnyFiber | undefined>) => boolean
}

/** One operation of the plain run, counted over all fibers. */
export interface Step {
  readonly hash: number
  /** Fibers are numbered in the order of their birth; the target is the one with `own`. */
  readonly fiber: number
  /** The number of this operation among the target's own, or 0. */
  readonly own: number
  readonly slice: number
  readonly offset: number
  /** The first operation after the scheduler started or resumed the fiber; others may have run just before. */
  readonly resumed: boolean
  readonly interruptible: boolean
  readonly children: boolean
  readonly op: string
  /** How many fibers could run instead: with one or more, a delay here makes a difference. */
  readonly ready: number
  /** Whether a second interrupt of the target here would reach a fiber that the first did not. */
  readonly spreads: boolean
}

/** One moment of the plain run at which the target waits. */
export interface Park {
  readonly kind: "parked" | "between" | "quiet" | "resumed"
  readonly index: number
  /** Operations done so far, over all fibers, and the hash over them. */
  readonly global: number
  readonly own: number
  readonly hash: number
  readonly now: number
  /** As of a step. */
  readonly spreads: boolean
}

/** A trace: filled by a run that was given one. */
export interface Trace {
  readonly steps: Array<Step>
  readonly parks: Array<Park>
  /** Called at the place of the interrupt, with the fiber that stands there, its next instruction, and the target. */
  readonly onHit?:
    | ((fiber: AnyFiber, next: Instruction | undefined, target: AnyFiber) => void)
    | undefined
  /** Called at each delay, with the fiber that is delayed. */
  readonly onDelay?: ((fiber: AnyFiber, next: Instruction | undefined) => void) | undefined
  readonly onStep?: ((fiber: AnyFiber, next: Instruction, global: number) => void) | undefined
}

export const makeTrace = (listeners?: Pick<Trace, "onHit" | "onDelay" | "onStep">): Trace => ({
  steps: [],
  parks: [],
  ...listeners
})

/** A run did more operations than allowed: it spins. */
export class Endless extends Error {
  override readonly name = "Endless"
}

interface Ready {
  readonly drain: (depth: number) => void
  readonly fiber: AnyFiber | undefined
}

interface Timer {
  readonly at: number
  readonly fire: () => void
  /** Set by a fiber of the setup, not by one of the uses. */
  readonly isBackground: boolean
}

/**
 * How far a run goes before its next step: until `done` holds, or until nothing is left to run. "now": without any time
 * passing. "settled": the fibers of the setup that go on for ever are not waited for.
 */
export interface Until {
  readonly done: () => boolean
  readonly as: "now" | "ended" | "settled"
}

/** A part of a run: how far it may go. */
interface Phase {
  readonly end: number
  readonly most: number
  beats: number
  moves: number
}

/** The default budget of operations between two yields. */
export const defaultBudget = 2048
/** How often in a row fibers of the setup may wake for nothing before the rest counts as settled, or as hung. */
const mostBeats = { now: 0, settled: 30, ended: 10_000 }
/** The same for a run that is made again, with all beats, if it breaks a law. The second sees what the first has done. */
const hastyBeats = { ...mostBeats, settled: 2 }

/** It is the scheduler of its fibers itself: an object or a closure more for each run is garbage that V8 frees late. */
export class Simulation implements Active, Scheduler.Scheduler {
  // Written by this file alone.
  now = 0
  ops = 0
  global = 0
  own = 0
  hash = 0
  hit = false
  /** Whether the second interrupt has come as well. */
  hitAgain = false
  /** The hash at the moment of the last interrupt. */
  hitHash = 0
  hitGlobal = 0
  /** The hash at the last delay. */
  delayHash = 0
  escapes = 0
  target: AnyFiber | undefined = undefined
  /** Every fiber that was ever scheduled. A map, not a weak one as effect's: weak keys double the cost of a run. */
  readonly fibers = new Map<AnyFiber | undefined, Scheduler.SchedulerRunner>()
  readonly held = new Set<Ledger.Entry>()
  /** The ledger of the scopes of this run. */
  scopes: unknown = undefined
  readonly #plan: Plan
  readonly #trace: Trace | undefined
  readonly #opLimit: number
  readonly #ready: Array<Ready> = []
  #head = 0
  readonly #timers: Array<Timer> = []
  readonly #horizon: number
  /** The fibers that the setup started, and theirs: those that were there before the target. */
  readonly #background = new Set<AnyFiber>()
  /** Batches of fibers that are not of the setup. */
  #moves = 0
  /** Whether the last part of the run was cut by the horizon, while something of the uses still waited for its time. */
  isOvertime = false
  /** What was open natively when the last part of the run gave up; written by the driver. */
  waitingOn: ReadonlyArray<string> = []
  readonly #isHasty: boolean
  /** Whether a part of the run was cut because it is a hasty one. */
  isCut = false
  readonly #seed: number
  readonly #random: () => number
  #chance: Random.Random | undefined = undefined
  #firstFiber = -1
  #scheduling: AnyFiber | undefined = undefined
  readonly #foreign = new Set<AnyFiber>()
  #stackAtHit: ReadonlyArray<Instruction> = []
  #stopDepth = Infinity
  #stopTop: Instruction | undefined = undefined
  /** How often the target went on with a loop after it was stopped there by its interrupt. */
  swallowed = 0
  #nextDelay = 0
  #delayAt: number
  #place: Place | undefined
  #ownAt = -1
  #globalAt = -1
  #yielding: AnyFiber | undefined = undefined
  #adopting = false
  #watched: AnyFiber | undefined = undefined
  #queued = false
  #ran = false
  /** The fiber whose batch has just begun; only for traces. */
  #fresh: AnyFiber | undefined = undefined
  #parked = false
  #parks = 0
  #quiets = 0
  #betweens = 0
  #instruction: Instruction | undefined = undefined
  readonly #slices = new Map<AnyFiber, { slice: number; offset: number }>()

  constructor(options: {
    readonly plan: Plan
    readonly trace?: Trace | undefined
    readonly opLimit: number
    readonly seed: number
    readonly horizon: number
    readonly isHasty: boolean
  }) {
    this.#isHasty = options.isHasty
    this.#horizon = options.horizon
    this.#plan = options.plan
    this.#trace = options.trace
    this.#opLimit = options.opLimit
    this.#seed = options.seed
    this.#random = makeRandom(options.seed)
    const { delays, place } = options.plan
    this.#delayAt = delays?.[0] ?? -1
    this.#aim(place)
  }

  /** The place of the next interrupt. */
  #aim(place: Place | undefined): void {
    this.#place = place
    this.#ownAt = place?.kind === "op" ? place.index : -1
    this.#globalAt = place?.kind === "global" ? place.index : -1
  }

  shouldYield(fiber: AnyFiber): number | false {
    if (++this.ops > this.#opLimit) {
      throw new Endless(`more than ${this.#opLimit} operations: something spins`)
    }
    const target = this.target
    if (target !== undefined && this.#isPlanned(fiber, target)) return 0
    return Scheduler.defaultShouldYield(fiber)
  }

  /** Counts an operation of the watched phase, and says whether the plan wants the fiber to yield here. */
  #isPlanned(fiber: AnyFiber, target: AnyFiber): boolean {
    const global = ++this.global
    const own = fiber === target ? ++this.own : 0
    this.hash = Math.imul(this.hash ^ standOf(fiber) ^ (this.numberOf(fiber) << 20), 16_777_619)
    if (this.#trace !== undefined) this.#record(this.#trace, fiber, own)
    if (global === this.#delayAt) {
      this.#delayAt = this.#plan.delays?.[++this.#nextDelay] ?? -1
      this.delayHash = this.hash
      this.#trace?.onDelay?.(fiber, this.#instruction)
      return true
    }
    if (global === this.#globalAt || (own > 0 && own === this.#ownAt)) {
      this.#markHit(fiber, this.#instruction)
      this.#yielding = fiber
      return true
    }
    const strategy = this.#plan.strategy
    return strategy !== undefined && this.#waiting() > 0
      && strategy.yields(fiber, this.#readyFibers())
  }

  /** `next`: the instruction that the fiber executes next; a wait has none. */
  #markHit(fiber: AnyFiber, next: Instruction | undefined): void {
    this.hitAgain = this.hit
    this.hit = true
    this.#aim(this.hitAgain ? undefined : this.#plan.again)
    this.hitHash = this.hash
    this.hitGlobal = this.global
    if (this.#watched !== undefined) this.#trace?.onHit?.(fiber, next, this.#watched)
  }

  /** Births are counted from the first fiber of the run. */
  numberOf(fiber: AnyFiber): number {
    return fiber.id().id - this.#firstFiber
  }

  #record(trace: Trace, fiber: AnyFiber, own: number): void {
    const offset = offsetOf(fiber)
    const known = this.#slices.get(fiber) ?? { slice: 0, offset: 0 }
    if (offset <= known.offset) known.slice++
    known.offset = offset
    this.#slices.set(fiber, known)
    trace.steps.push({
      hash: this.hash,
      fiber: this.numberOf(fiber),
      own,
      slice: known.slice,
      offset,
      resumed: this.#fresh === fiber,
      interruptible: isInterruptible(fiber),
      children: hasChildren(fiber),
      op: this.#instruction?._op ?? "",
      ready: this.#waiting(),
      spreads: this.#spreads()
    })
    this.#fresh = undefined
    if (this.#instruction !== undefined) trace.onStep?.(fiber, this.#instruction, this.global)
  }

  scheduleTask(task: () => void, priority: number, fiber?: AnyFiber): void {
    const outer = this.#scheduling
    this.#scheduling = fiber
    const isRun = fiber !== undefined && task === runOf(fiber)
    const runner = this.#runnerOf(fiber, outer)
    if (isRun && this.#adopting) {
      this.#adopting = false
      this.target = fiber
      this.#watched = fiber
    }
    if (isRun && fiber === this.target) {
      this.#queued = true
      runner.scheduleTask(this.#runTarget, priority)
    } else {
      runner.scheduleTask(task, priority)
    }
    this.#scheduling = outer
    if (isRun && fiber === this.#yielding) {
      // The fiber has parked on the yield it was asked for: its mailbox is [resume]. The interrupt goes behind it.
      this.#yielding = undefined
      this.#interrupt()
    } else if (isRun && fiber === this.target && this.#parked) {
      this.#parked = false
      this.#atPark("resumed", this.#parks, fiber)
    }
  }

  #runnerOf(
    fiber: AnyFiber | undefined,
    parent: AnyFiber | undefined
  ): Scheduler.SchedulerRunner {
    const known = this.fibers.get(fiber)
    if (known !== undefined) return known
    if (fiber !== undefined && parent !== undefined && this.#background.has(parent)) {
      this.#background.add(fiber)
    }
    const runner = new Scheduler.SchedulerRunner(this.#toReady)
    this.fibers.set(fiber, runner)
    return runner
  }

  readonly #toReady = (_: number, drain: (depth: number) => void): void => {
    this.#ready.push({ drain, fiber: this.#scheduling })
  }

  readonly #runTarget = (): void => {
    this.#queued = false
    this.#ran = true
    if (this.#watched !== undefined) runOf(this.#watched)()
  }

  /** Whether the first interrupt has come, and a second one would reach a fiber that the first did not. */
  #spreads(): boolean {
    return this.hit && this.#watched !== undefined && hasUninterrupted(this.#watched)
  }

  #interrupt(): void {
    if (this.#watched !== undefined && !this.hitAgain) {
      this.#stackAtHit = [...stackOf(this.#watched)]
    }
    this.#watched?.unsafeInterruptAsFork(FiberId.none)
  }

  #atPark(kind: Park["kind"], index: number, fiber: AnyFiber): void {
    this.#trace?.parks.push({
      kind,
      index,
      global: this.global,
      own: this.own,
      hash: this.hash,
      now: this.now,
      spreads: this.#spreads()
    })
    if (this.#place?.kind !== kind || this.#place.index !== index) return
    this.#markHit(fiber, undefined)
    this.#interrupt()
  }

  /** Starts the fiber that is watched until it ends. */
  forkTarget(effect: Effect.Effect<unknown, unknown>): AnyFiber {
    for (const known of this.fibers.keys()) {
      if (known?.unsafePoll() === null) this.#background.add(known)
    }
    this.#adopting = true
    const fiber = this.fork(effect)
    fiber.addObserver(() => {
      this.target = undefined
    })
    return fiber
  }

  unwatch(): void {
    this.target = undefined
    this.#parked = false
  }

  fork<A>(effect: Effect.Effect<A, unknown>): Fiber.RuntimeFiber<A, unknown> {
    const within = this.#trace === undefined ? runtime : tracedRuntime
    const fiber = Runtime.runFork(within)(effect, { scheduler: this, immediate: false })
    if (this.#firstFiber < 0) this.#firstFiber = fiber.id().id
    return fiber
  }

  at(delay: number, fire: () => void): () => boolean {
    const setter = this.#scheduling
    const isBackground = setter !== undefined && this.#background.has(setter)
    const timer = { at: this.now + Math.max(0, delay), fire, isBackground }
    const timers = this.#timers
    let index = timers.length
    while (index > 0 && timers[index - 1]!.at > timer.at) index--
    timers.splice(index, 0, timer)
    return () => {
      const found = timers.indexOf(timer)
      if (found >= 0) timers.splice(found, 1)
      return found >= 0
    }
  }

  random(): number {
    return this.#random()
  }

  get chance(): Random.Random {
    return this.#chance ??= Random.make(this.#seed)
  }

  onOperation(fiber: AnyFiber, instruction: Instruction): void {
    this.#instruction = instruction
    if (schedulerOf(fiber) === this || !this.fibers.has(fiber)) return
    if (!this.#foreign.has(fiber)) this.escapes++
    this.#foreign.add(fiber)
  }

  /** Whether a fiber of this run has left it for another scheduler. */
  hasLeft(fiber: AnyFiber): boolean {
    return schedulerOf(fiber) !== this
  }

  /**
   * Counts how often the target, once interrupted, is stopped in a loop that it was in already, and goes on with it. As it
   * unwinds it is stopped at ever lower places, and what its finalizers do are new loops: neither counts.
   */
  onStop(fiber: AnyFiber): void {
    if (fiber !== this.#watched || !this.hit) return
    const stack = stackOf(fiber)
    const loop = loopOf(fiber)
    const top = stack.at(-1)
    const isSame = loop === undefined ? top === this.#stopTop : this.#stackAtHit.includes(loop)
    if (isSame && stack.length >= this.#stopDepth) this.swallowed++
    this.#stopDepth = stack.length
    this.#stopTop = top
  }

  /** The number of the fiber that runs now; -1 for none. */
  get runningNumber(): number {
    return this.#scheduling === undefined ? -1 : this.numberOf(this.#scheduling)
  }

  #waiting(): number {
    return this.#ready.length - this.#head
  }

  /**
   * Forgets what the run has made, the fibers that never end included. V8 frees an object that is old only in a full collection,
   * and until then all that it refers to. Some are old from the start: V8 makes a function old that is assigned to a property,
   * as effect does for each `async` and each mask. And through the scheduler each fiber refers to all others of its run.
   */
  dispose(): void {
    for (const fiber of this.fibers.keys()) if (fiber?.unsafePoll() === null) forget(fiber)
    this.unwatch()
    this.#watched = undefined
    this.#scheduling = undefined
    this.#yielding = undefined
    this.#stopTop = undefined
    this.#stackAtHit = []
    this.#ready.length = 0
    this.#timers.length = 0
    this.#background.clear()
    this.fibers.clear()
    this.held.clear()
    this.scopes = undefined
  }

  get isIdle(): boolean {
    return this.#waiting() === 0
  }

  #readyFibers(): ReadonlyArray<AnyFiber | undefined> {
    return this.#ready.slice(this.#head).map(({ fiber }) => fiber)
  }

  #next(): Ready {
    const { strategy } = this.#plan
    if (strategy !== undefined && this.target !== undefined && this.#waiting() > 1) {
      const chosen = this.#head + strategy.next(this.#readyFibers())
      const [ready] = this.#ready.splice(chosen, 1)
      return ready!
    }
    return this.#ready[this.#head++]!
  }

  /** Runs whatever is ready, until nothing is. Time stands still. */
  drain(): void {
    const outer = activate(this)
    try {
      while (this.#head < this.#ready.length) {
        const { drain, fiber } = this.#next()
        if (this.#head > 1024) {
          this.#ready.splice(0, this.#head)
          this.#head = 0
        }
        if (fiber === undefined || !this.#background.has(fiber)) this.#moves++
        this.#scheduling = fiber
        this.#fresh = fiber
        drain(0)
        this.#scheduling = undefined
        if (this.#ran) this.#noticePark()
        else if (this.#parked && this.target !== undefined) {
          this.#atPark("between", ++this.#betweens, this.target)
        }
      }
      this.#ready.length = 0
      this.#head = 0
    } finally {
      activate(outer)
    }
  }

  #noticePark(): void {
    this.#ran = false
    const { target } = this
    if (target === undefined || this.#queued) return
    this.#parked = true
    this.#atPark("parked", ++this.#parks, target)
  }

  /** Called when nothing is ready: true if the plan then made something ready. */
  notice(): boolean {
    if (this.target !== undefined && this.#parked) {
      this.#atPark("quiet", ++this.#quiets, this.target)
    }
    return !this.isIdle
  }

  /** Jumps to the next timer, if there is one within the horizon. */
  jump(end: number): boolean {
    const timer = this.#timers[0]
    if (timer === undefined || timer.at > end) return false
    this.#timers.shift()
    if (timer.at > this.now) this.now = timer.at
    const outer = activate(this)
    try {
      timer.fire()
    } finally {
      activate(outer)
    }
    return true
  }

  /** Jumps over time: true if something may be ready then; false at the horizon, or when only the setup's fibers go on. */
  #advance(phase: Phase): boolean {
    if (this.notice()) return true
    const [timer] = this.#timers
    if (timer === undefined) return false
    const isOver = timer.at > phase.end
    const isForeground = this.#timers.some(({ isBackground }) => !isBackground)
    if (isOver) this.isOvertime = isForeground
    if (!isForeground && this.#moves === phase.moves && phase.beats++ >= phase.most) {
      if (phase.most === hastyBeats.settled) this.isCut = true
      return false
    }
    if (this.#moves !== phase.moves) phase.beats = 0
    phase.moves = this.#moves
    return !isOver && this.jump(phase.end)
  }

  #phase(as: Until["as"]): Phase {
    this.isOvertime = false
    const end = as === "now" ? -1 : this.now + this.#horizon
    // What comes before the target is as in the plain run.
    const isHasty = this.#isHasty && this.#watched !== undefined
    const most = (isHasty ? hastyBeats : mostBeats)[as]
    return { end, most, beats: 0, moves: this.#moves }
  }

  /** Runs, jumping over time, until `done` or until nothing is left to run before the horizon. */
  settle({ as, done }: Until): void {
    const phase = this.#phase(as)
    do {
      this.drain()
    } while (!done() && this.#advance(phase))
  }

  /**
   * As `settle`, for programs that also wait on native promises and handles: `idle` says whether those are done, and
   * what they open is the run's own if it is opened `within`.
   */
  async settleAsync(
    { as, done }: Until,
    idle: (sim: Simulation, as: Until["as"]) => Promise<boolean>,
    within: (part: () => void) => void
  ): Promise<void> {
    const phase = this.#phase(as)
    for (;;) {
      within(() => this.drain())
      if (done()) return
      if (await idle(this, as)) {
        let goesOn = false
        within(() => {
          goesOn = this.#advance(phase)
        })
        if (!goesOn) return
      }
    }
  }
}

/** mulberry32: small, seeded, good enough for schedules. */
export const makeRandom = (seed: number): () => number => {
  let state = seed | 0
  return () => {
    state = (state + 0x6D2B79F5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

// Globals, for as long as something is explored.

/** `Effect.never` keeps the process alive with an interval that never fires; in a run it must not look like a handle. */
const withoutIdleIntervals = (): () => void => {
  const original = globalThis.setInterval
  const longest = 2 ** 31 - 1
  const patched = (...args: Parameters<typeof original>) =>
    activeRun() !== undefined && (args[1] ?? 0) >= longest ? {} : original(...args)
  Object.assign(globalThis, { setInterval: patched })
  return () => {
    Object.assign(globalThis, { setInterval: original })
  }
}

const replace = <K extends "now" | "random", O extends { [P in K]: () => number }>(
  owner: O,
  key: K,
  value: () => number
): () => void => {
  const original = owner[key]
  Object.assign(owner, { [key]: value })
  return () => {
    Object.assign(owner, { [key]: original })
  }
}

/** Makes `Date.now`, `Math.random` and effect's own scheduler ask the active run. Returns how to undo. */
export const controlGlobals = (): () => void => {
  const { now } = Date
  const { random } = Math
  const undo = [
    replace(Date, "now", () => activeRun()?.now ?? now()),
    replace(Math, "random", () => activeRun()?.random() ?? random()),
    withoutIdleIntervals(),
    interceptDefaultScheduler(() => {
      const run = activeRun()
      if (run !== undefined) run.escapes++
    }),
    interceptInterrupts((fiber) => activeRun()?.onStop(fiber))
  ]
  return () => {
    for (const one of undo) one()
  }
}
