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
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Recording from "./recorder.ts"
import { type AnyFiber } from "./runtime.ts"
import { makeScopeLedger, pendingOf, type ScopeLedger } from "./scopes.ts"
import { Endless, type Plan, Simulation, type Trace } from "./simulation.ts"

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
}

/** The laws of a run. */
export type Law =
  | "the target exits"
  | "the second use is as the first"
  | "the invariant holds"
  | "the owner closes"
  | "all is released"
  | "released once"
  | "released in order"
  | "no fiber is left"
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

/** Settings of one run. */
export interface RunOptions {
  readonly plan: Plan
  readonly fault?: Recording.PlannedFault | undefined
  readonly trace?: Trace | undefined
  readonly locate?: (() => string | undefined) | undefined
  readonly pad?: number | undefined
  readonly seed: number
  readonly opLimit: number
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
  readonly survivors: number
  readonly endless: string | undefined
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
}

/** Where a run has to settle: until this holds, or until nothing is left to run. */
export type Until = () => boolean

const quiescence: Until = () => false

export const never = "never"

/** An exit in one word and, if it failed, its first line. */
export const show = (exit: Exit.Exit<unknown, unknown> | null): string => {
  if (exit === null) return never
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.isInterruptedOnly(exit.cause)) return "interrupted"
  return `failure: ${Cause.pretty(exit.cause).split("\n")[0]}`
}

const ended = (fiber: AnyFiber): Until => () => fiber.unsafePoll() !== null

const check = (program: Program, state: unknown): string | undefined => {
  if (program.invariant === undefined) return undefined
  try {
    const said = program.invariant(state as never)
    return said === false ? "does not hold" : typeof said === "string" ? said : undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

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
  const { opLimit, plan, seed, trace } = options
  const simulation = new Simulation({ plan, trace, opLimit, seed })
  return { simulation, run: steps(program, simulation, options) }
}

/** How the parts of a run ended. */
interface Seen {
  exit: Exit.Exit<unknown, unknown> | null
  second: string
  close: string
  invariant: string | undefined
  endless: string | undefined
}

/** The state when a run is over. */
const leftovers = ({ first, recorder, scopes, simulation }: {
  readonly simulation: Simulation
  readonly scopes: ScopeLedger
  readonly recorder: Recording.Recorder
  readonly first: AnyFiber
}) => {
  const living = Array.from(simulation.fibers.keys()).filter((fiber) =>
    fiber !== undefined && fiber !== first && fiber.unsafePoll() === null
  )
  const held = Array.from(
    simulation.held,
    ({ kind, name }) => ({ name: `${kind} "${name}"`, at: undefined })
  )
  return {
    unreleased: [...recorder.unreleased(), ...held],
    pending: pendingOf(scopes).map(({ at }) => ({ name: "a finalizer", at })),
    doubles: [
      ...recorder.releasedTwice(),
      ...(scopes.doubles > 0 ? [`${scopes.doubles} finalizer(s)`] : []),
      ...recorder.unbalanced()
    ],
    disorders: scopes.disorders,
    survivors: living.length,
    struck: recorder.struck(),
    log: recorder.log
  }
}

const counts = (simulation: Simulation) => {
  const { delayHash, escapes, global, hash, hit, hitGlobal, hitHash, ops, own } = simulation
  return { delayHash, escapes, global, hash, hit, hitGlobal, hitHash, ops, own }
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
  let owner: Scope.CloseableScope | undefined
  const setup = simulation.fork(
    Effect.flatMap(Scope.make(), (scope) => {
      owner = scope
      return Scope.extend(program.setup(probe), scope)
    })
  )
  yield ended(setup)
  const prepared = setup.unsafePoll()
  if (prepared === null || Exit.isFailure(prepared)) {
    throw new BrokenSetup(`the setup of "${program.name}" ends as: ${show(prepared)}`)
  }
  yield quiescence
  const state = prepared.value as never
  const use = Effect.scoped(Effect.suspend(() => program.body(state, probe)))

  const seen: Seen = {
    exit: null,
    second: "not tried",
    close: "not tried",
    invariant: undefined,
    endless: undefined
  }
  recorder.arm("all")
  const first = simulation.forkTarget(use)
  try {
    yield ended(first)
    // Checked before the second use, which may wake a fiber that had hung until then.
    seen.exit = first.unsafePoll()
    simulation.unwatch()
    yield quiescence
    seen.invariant = check(program, state)

    // The second use shows what the first has left behind, not what a fault does.
    recorder.arm("none")
    const { after } = program
    const again = simulation.fork(
      after === undefined ? use : Effect.scoped(Effect.suspend(() => after(state)))
    )
    yield ended(again)
    seen.second = show(again.unsafePoll())
    yield quiescence
    seen.invariant ??= check(program, state)

    recorder.arm("release")
    const closing = simulation.fork(
      owner === undefined ? Effect.void : Scope.close(owner, Exit.void)
    )
    yield ended(closing)
    seen.close = show(closing.unsafePoll())
    yield quiescence
  } catch (error) {
    if (!(error instanceof Endless)) throw error
    seen.endless = error.message
  }
  return {
    ...seen,
    first: show(seen.exit),
    ...leftovers({ simulation, scopes, recorder, first }),
    ...counts(simulation)
  }
}

const names = (list: ReadonlyArray<Unreleased>): string =>
  list.map(({ at, name }) => at === undefined ? name : `${name} (${at})`).join(", ")

/** Whether an injected fault explains this end. */
const isOurs = (shown: string): boolean => shown.includes("The explorer made")

/** Which laws a run broke that the plain run keeps. */
export const judge = (outcome: Outcome, plain: Outcome): ReadonlyArray<Violation> => {
  const found: Array<Violation> = []
  const add = (law: Law, message: string) => found.push({ law, message })
  if (outcome.endless !== undefined) add("the run ends", outcome.endless)
  if (outcome.first === never) add("the target exits", "the fiber never exits")
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
  if (outcome.doubles.length > plain.doubles.length) {
    add("released once", `not exactly once: ${outcome.doubles.join(", ")}`)
  }
  if (outcome.disorders > plain.disorders) {
    add(
      "released in order",
      `${outcome.disorders} finalizer(s) ran before those registered after them`
    )
  }
  if (outcome.survivors > plain.survivors && outcome.first !== never) {
    add("no fiber is left", `${outcome.survivors} fiber(s) still there after the owner's close`)
  }
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
