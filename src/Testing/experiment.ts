/**
 * experiment: one run of a subject under a plan, and what the laws say about it.
 *
 * DESIGN. Set up in an owner's scope; start the body as the target; let all settle; use it a second time; close the owner;
 * look at what is left. The steps are a generator that yields where the run has to settle, so the same code runs
 * synchronously (thousands of runs a second) and, for programs that wait on real handles, asynchronously.
 *
 * INVARIANTS
 * - Explore-3 A law is broken only relative to the plain run: a violation that happens without an interrupt is no finding.
 *
 * SOURCES Meta's `cancel_safe` and xapi's `cancel_test` (the second use as oracle).
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Recording from "./recorder.ts"
import { type AnyFiber } from "./runtime.ts"
import { makeScopeLedger, pairsOf, pendingOf, type ScopeLedger } from "./scopes.ts"
import { Endless, type Plan, Simulation, type Trace, type Until } from "./simulation.ts"

/** A subject with its types forgotten. */
export interface Program {
  readonly name: string
  readonly setup: (probe: Recording.Probe) => Effect.Effect<unknown, unknown, Scope.Scope>
  readonly body: (
    state: never,
    probe: Recording.Probe
  ) => Effect.Effect<unknown, unknown, Scope.Scope>
  readonly after?: ((state: never) => Effect.Effect<unknown, unknown, Scope.Scope>) | undefined
  readonly invariant?: ((state: never) => boolean | string | void) | undefined
  /** A value that was written where the subject was. */
  readonly origin: unknown
  /** The plain run may end as a failure. */
  readonly fails: boolean
  /** The plain run may leave finalizers, resources and fibers behind. */
  readonly staysOpen: boolean
  /** Defects by which the subject reports something on purpose. */
  readonly mayDie: (defect: unknown) => boolean
}

/** The laws of a run. */
export type Law =
  | "the target exits"
  | "the target exits at once"
  | "the second use is as the first"
  | "the invariant holds"
  | "the owner closes"
  | "all is released"
  | "released once"
  | "released in order"
  | "no fiber is left"
  | "no defect"
  | "the run ends"
  | "every schedule ends alike"

/** A law that a run broke, and how. */
export interface Violation {
  readonly law: Law
  readonly message: string
}

/** A resource that was acquired and never released, and its line. */
export interface Unreleased {
  readonly name: string
  readonly at: string | undefined
}

/** The part of a run that is the target: the nth use, after those before it, or the owner's close after the first use. */
export type Use = number | "close"

/** Settings of one run. */
export interface RunOptions {
  readonly plan: Plan
  readonly fault?: Recording.PlannedFault | undefined
  readonly trace?: Trace | undefined
  /** The line of the running fiber, which has acquired this from the probe, or registers a finalizer. */
  readonly locate?: ((acquired?: string) => string | undefined) | undefined
  readonly pad?: number | undefined
  readonly seed: number
  readonly opLimit: number
  /** How many virtual milliseconds each part of a run may take. */
  readonly horizon: number
  readonly use: Use
  /** Waits much longer for real I/O: to find out whether a suspicion was only impatience. */
  readonly isPatient?: boolean | undefined
  /** Waits less long for what the setup's fibers may still do. Then a run that breaks a law shows nothing if it is cut. */
  readonly isHasty?: boolean | undefined
  /** What is open natively, in words. */
  readonly leftOpen?: (() => ReadonlyArray<string>) | undefined
}

/** How a run went, in facts. */
export interface Outcome {
  readonly exit: Exit.Exit<unknown, unknown> | null
  readonly first: string
  readonly second: string
  readonly close: string
  readonly invariant: string | undefined
  readonly unreleased: ReadonlyArray<Unreleased>
  readonly pending: ReadonlyArray<Unreleased>
  readonly doubles: ReadonlyArray<string>
  readonly disorders: number
  /** Pairs of finalizers of nested scopes: those that ran from the inside out, and those that did not. */
  readonly nested: ReadonlyArray<string>
  readonly reversed: ReadonlyArray<string>
  readonly swallowed: number
  readonly survivors: number
  /** The first line of each defect of any fiber. */
  readonly defects: ReadonlyArray<string>
  readonly endless: string | undefined
  /** Whether a hasty run was cut. */
  readonly isCut: boolean
  /** Which part was still going on at the horizon, so that the run cannot be judged. */
  readonly overtime: string | undefined
  /** What it still waited on natively when it was given up, so that the run cannot be judged. */
  readonly waiting: string | undefined
  readonly leftOpen: ReadonlyArray<string>
  /** Whether every planned interrupt has come. */
  readonly hit: boolean
  readonly struck: boolean
  /** Operations of the watched phase: all, and the target's own. */
  readonly global: number
  readonly own: number
  readonly ops: number
  readonly hash: number
  readonly hitHash: number
  readonly hitGlobal: number
  readonly delayHash: number
  readonly escapes: number
  readonly log: ReadonlyArray<string>
  /** Finalizers, and resources and counters of the probe, that the run has shown. */
  readonly watched: number
}

const settled: Until = { done: () => false, as: "settled" }
const now: Until = { done: () => false, as: "now" }

export const never = "never"

/** An exit in one word and, if it failed, its first line. */
export const show = (exit: Exit.Exit<unknown, unknown> | null): string => {
  if (exit === null) return never
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.isInterruptedOnly(exit.cause)) return "interrupted"
  return `failure: ${Cause.pretty(exit.cause).split("\n")[0]}`
}

const ended = (fiber: AnyFiber): Until => ({ done: () => fiber.unsafePoll() !== null, as: "ended" })

const check = (program: Program, state: unknown): string | undefined => {
  if (program.invariant === undefined) return undefined
  try {
    const said = program.invariant(state as never)
    return said === false ? "does not hold" : typeof said === "string" ? said : undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** A body that is a plain or an async function by mistake would die of something unreadable. */
const bodyOf = (
  program: Program,
  state: never,
  probe: Recording.Probe
): Effect.Effect<unknown, unknown, Scope.Scope> => {
  const body = program.body(state, probe)
  if (Effect.isEffect(body)) return body
  const given = Predicate.isPromise(body as unknown)
    ? "a promise (is it an async function?)"
    : typeof body
  return Effect.die(new TypeError(`the body must return an effect, not ${given}`))
}

/** A time in words: `longer than 10m`. */
export const longerThan = (millis: number): string =>
  `longer than ${Duration.format(Duration.millis(millis))} of virtual time`

/** The setup of a subject does not work: nothing can be explored. */
export class BrokenSetup extends Error {
  override readonly name = "BrokenSetup"
}

/** The parts of a run. */
export interface World {
  readonly simulation: Simulation
  readonly run: Generator<Until, Outcome, void>
}

export const makeWorld = (program: Program, options: RunOptions): World => {
  const { horizon, isHasty = false, opLimit, plan, seed, trace } = options
  const simulation = new Simulation({ plan, trace, opLimit, seed, horizon, isHasty })
  return { simulation, run: steps(program, simulation, options) }
}

/** How the parts of a run ended. */
interface Seen {
  exit: Exit.Exit<unknown, unknown> | null
  second: string
  close: string
  invariant: string | undefined
  endless: string | undefined
  overtime: string | undefined
  waiting: string | undefined
}

/** Whether an injected fault explains this end. */
const isOurs = (shown: string): boolean => shown.includes("The explorer made")

/** The first lines of the defects of these fibers, each defect once. Those that the explorer injected are none. */
const defectsOf = (
  fibers: Iterable<AnyFiber | undefined>,
  { mayDie }: Program
): ReadonlyArray<string> => {
  const defects = new Set<unknown>()
  for (const fiber of fibers) {
    const exit = fiber?.unsafePoll()
    if (exit?._tag !== "Failure" || Cause.isInterruptedOnly(exit.cause)) continue
    for (const defect of Cause.defects(exit.cause)) if (!mayDie(defect)) defects.add(defect)
  }
  if (defects.size === 0) return []
  return Array.from(defects, (defect) => Cause.pretty(Cause.die(defect)).split("\n")[0] ?? "")
    .filter((line) => !isOurs(line))
}

/** The facts of a run that is over. */
const outcomeOf = (parts: {
  readonly program: Program
  readonly simulation: Simulation
  readonly scopes: ScopeLedger
  readonly recorder: Recording.Recorder
  readonly first: AnyFiber | undefined
  readonly seen: Seen
  readonly leftOpen: ReadonlyArray<string>
  /** Two interrupts were planned. */
  readonly isPair: boolean
}): Outcome => {
  const { first, leftOpen, program, recorder, scopes, seen, simulation } = parts
  const { fibers } = simulation
  let survivors = 0
  let left = 0
  for (const fiber of fibers.keys()) {
    if (fiber === undefined || fiber === first || fiber.unsafePoll() !== null) continue
    survivors++
    if (simulation.hasLeft(fiber)) left++
  }
  const held = Array.from(
    simulation.held,
    ({ kind, name }) => ({ name: `${kind} "${name}"`, at: undefined })
  )
  // Field by field: joined by spreads, so wide an object takes V8 a fifth of the time of a short run.
  return {
    exit: seen.exit,
    first: show(seen.exit),
    second: seen.second,
    close: seen.close,
    invariant: seen.invariant,
    endless: seen.endless,
    overtime: seen.overtime,
    waiting: seen.waiting,
    leftOpen,
    unreleased: [...recorder.unreleased(), ...held],
    pending: pendingOf(scopes).map(({ at }) => ({ name: "a finalizer", at })),
    doubles: [
      ...recorder.releasedTwice(),
      ...(scopes.doubles > 0 ? [`${scopes.doubles} finalizer(s)`] : []),
      ...recorder.unbalanced()
    ],
    disorders: scopes.disorders,
    // The plain run says which pairs there are, any other run which of them it reversed.
    nested: simulation.hit ? [] : pairsOf(scopes, "nested"),
    reversed: simulation.hit ? pairsOf(scopes, "reversed") : [],
    isCut: simulation.isCut,
    swallowed: simulation.swallowed,
    escapes: simulation.escapes + left,
    survivors,
    defects: defectsOf(fibers.keys(), program),
    struck: recorder.struck(),
    log: recorder.log,
    watched: scopes.registrations.length + recorder.count(),
    hit: parts.isPair ? simulation.hitAgain : simulation.hit,
    global: simulation.global,
    own: simulation.own,
    ops: simulation.ops,
    hash: simulation.hash,
    hitHash: simulation.hitHash,
    hitGlobal: simulation.hitGlobal,
    delayHash: simulation.delayHash
  }
}

// Waits for a part of a run, and shows how it ended: a wait that the horizon cut is no hang.
function* awaited(
  simulation: Simulation,
  seen: Seen,
  part: string,
  fiber: AnyFiber
): Generator<Until, string, void> {
  yield ended(fiber)
  const exit = fiber.unsafePoll()
  if (exit === null && simulation.isOvertime) seen.overtime ??= part
  if (exit === null && simulation.waitingOn.length > 0) {
    seen.waiting ??= `waiting on ${simulation.waitingOn.join(", ")}`
  }
  return show(exit)
}

// The setup, in the owner's scope. The body begins at the instant at which the setup has ended.
function* prepare(
  program: Program,
  simulation: Simulation,
  probe: Recording.Probe,
  horizon: number
): Generator<Until, { readonly owner: Scope.CloseableScope; readonly state: never }, void> {
  const setup = simulation.fork(
    Effect.flatMap(Scope.make(), (owner) => {
      const made = Effect.suspend(() => program.setup(probe))
      return Effect.map(Scope.extend(made, owner), (state) => ({ owner, state: state as never }))
    })
  )
  const ends = (how: string) => new BrokenSetup(`the setup of "${program.name}" ${how}`)
  try {
    yield ended(setup)
    const prepared = setup.unsafePoll()
    if (prepared === null) {
      const { waitingOn } = simulation
      if (waitingOn.length > 0) throw ends(`is waiting on ${waitingOn.join(", ")}`)
      throw ends(simulation.isOvertime ? `takes ${longerThan(horizon)}` : `does not end`)
    }
    if (Exit.isFailure(prepared)) throw ends(`ends as: ${show(prepared)}`)
    yield now
    return prepared.value
  } catch (error) {
    throw error instanceof Endless ? ends(error.message) : error
  }
}

function* steps(
  program: Program,
  simulation: Simulation,
  options: RunOptions
): Generator<Until, Outcome, void> {
  const { locate } = options
  const scopes = makeScopeLedger(simulation, locate)
  const recorder = Recording.makeRecorder({ fault: options.fault, pad: options.pad, locate })
  const { probe } = recorder
  const { owner, state } = yield* prepare(program, simulation, probe, options.horizon)
  const use = Effect.scoped(Effect.suspend(() => bodyOf(program, state, probe)))

  const seen: Seen = {
    exit: null,
    second: "not tried",
    close: "not tried",
    invariant: undefined,
    endless: undefined,
    overtime: undefined,
    waiting: undefined
  }
  // MASK: a scope is closed masked, as `Effect.scoped` does it; an interrupt is only noted, and reaches what the release restores.
  const close = Effect.uninterruptible(Scope.close(owner, Exit.void))
  const isClose = options.use === "close"
  let first: AnyFiber | undefined
  try {
    for (let nth = 1; isClose ? nth === 1 : nth < options.use; nth++) {
      yield* awaited(simulation, seen, `use ${nth}`, simulation.fork(use))
      yield settled
    }
    recorder.arm("all")
    first = simulation.forkTarget(isClose ? close : use)
    yield* awaited(simulation, seen, "the target", first)
    // Checked before the second use, which may wake a fiber that had hung until then.
    seen.exit = first.unsafePoll()
    simulation.unwatch()
    yield settled
    if (!isClose) {
      seen.invariant = check(program, state)

      // The second use shows what the first has left behind, not what a fault does.
      recorder.arm("none")
      const { after } = program
      const again = simulation.fork(
        after === undefined ? use : Effect.scoped(Effect.suspend(() => after(state)))
      )
      seen.second = yield* awaited(simulation, seen, "the next use", again)
      yield settled
      seen.invariant ??= check(program, state)
    }

    recorder.arm("release")
    const closing = simulation.fork(Scope.close(owner, Exit.void))
    seen.close = yield* awaited(simulation, seen, "the owner's close", closing)
    yield settled
  } catch (error) {
    if (!(error instanceof Endless)) throw error
    seen.endless = error.message
  }
  const leftOpen = options.leftOpen?.() ?? []
  const isPair = options.plan.again !== undefined
  const outcome = outcomeOf({
    program,
    simulation,
    scopes,
    recorder,
    first,
    seen,
    leftOpen,
    isPair
  })
  simulation.dispose()
  return outcome
}

const names = (list: ReadonlyArray<Unreleased>): string =>
  list.map(({ at, name }) => at === undefined ? name : `${name} (${at})`).join(", ")

/** A program may catch its interrupt, tidy up, and wait once more; who does it again and again does not listen. */
const mostSwallowed = 3

/** Those that the plain run lacks, or has less often. */
const newIn = (lines: ReadonlyArray<string>, plain: ReadonlyArray<string>) => {
  const known = [...plain]
  return lines.filter((line) => {
    const at = known.indexOf(line)
    if (at >= 0) known.splice(at, 1)
    return at < 0
  })
}

/** Which laws a run broke that the plain run keeps. Nothing is said about a run that was given up. */
export const judge = (outcome: Outcome, plain: Outcome): ReadonlyArray<Violation> => {
  if (outcome.overtime !== undefined || outcome.waiting !== undefined) return []
  const found: Array<Violation> = []
  const add = (law: Law, message: string) => found.push({ law, message })
  if (outcome.endless !== undefined) add("the run ends", outcome.endless)
  if (outcome.first === never) add("the target exits", "the fiber never exits")
  else if (outcome.swallowed >= mostSwallowed) {
    add("the target exits at once", `it has swallowed its interrupt ${outcome.swallowed} times`)
  }
  if (outcome.invariant !== undefined && plain.invariant === undefined) {
    add("the invariant holds", outcome.invariant)
  }
  if (outcome.endless === undefined) {
    if (outcome.second !== plain.second && !isOurs(outcome.second)) {
      add(
        "the second use is as the first",
        outcome.second === never ? "the next use hangs" : `the next use ends as ${outcome.second}`
      )
    }
    if (outcome.close !== plain.close && !isOurs(outcome.close)) {
      add(
        "the owner closes",
        outcome.close === never
          ? "closing the owner hangs"
          : `closing the owner ends as ${outcome.close}`
      )
    }
  }
  if (outcome.unreleased.length > plain.unreleased.length) {
    add("all is released", `never released: ${names(outcome.unreleased)}`)
  } else if (outcome.pending.length > plain.pending.length) {
    add(
      "all is released",
      `${outcome.pending.length} finalizer(s) of scopes that were never closed`
    )
  }
  const open = newIn(outcome.leftOpen, plain.leftOpen)
  if (open.length > 0) add("all is released", `left open natively: ${open.join(", ")}`)
  if (outcome.doubles.length > plain.doubles.length) {
    add("released once", `not exactly once: ${outcome.doubles.join(", ")}`)
  }
  if (outcome.disorders > plain.disorders) {
    add(
      "released in order",
      `${outcome.disorders} finalizer(s) ran before those registered after them`
    )
  }
  const pair = outcome.reversed.find((one) => plain.nested.includes(one))
  if (pair !== undefined) {
    const [inner, outer] = pair.split(" of ")
    const resources = outcome.log.length === 0 ? "" : `; resources: ${outcome.log.join(" ")}`
    add(
      "released in order",
      `an outer scope closed before the one inside it: finalizer ${outer} ran before finalizer ${inner}${resources}`
    )
  }
  if (outcome.survivors > plain.survivors && outcome.first !== never) {
    add("no fiber is left", `${outcome.survivors} fiber(s) still there after the owner's close`)
  }
  // A fault has defects of its own, and those who report it.
  const died = outcome.struck ? [] : newIn(outcome.defects, plain.defects)
  if (died.length > 0) add("no defect", `not in the plain run: ${died.join("; ")}`)
  return found
}

/** The part of a run that an observer sees. */
export const signatureOf = (outcome: Outcome): string =>
  [
    outcome.first,
    outcome.second,
    outcome.close,
    outcome.unreleased.length,
    outcome.pending.length,
    outcome.log.join(" ")
  ].join("|")
