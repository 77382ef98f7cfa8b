/**
 * Vitest: the explorer as tests.
 *
 * DESIGN. `it` is the `it` of `@effect/vitest` with two methods more. A test fails with the whole report, and each finding in
 * it names the variable that replays it: `HOLDFAST_REPLAY=<token> npx vitest run -t <name>`; tests of other subjects are
 * skipped then, and a stale token fails. The error points at the test's own line. An
 * exploration ends before the test's timeout. Subjects run under the tracker of `Nursery`.
 *
 * @since 0.1.0
 */
import { it as base } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as process from "node:process"
import * as Nursery from "../Nursery.ts"
import * as Explore from "./Explore.ts"
import type * as Probe from "./Probe.ts"

/**
 * A subject and how to explore it, without its name: that is the test's.
 *
 * @category models
 * @since 0.1.0
 */
export interface Safe<S> extends Omit<Explore.Subject<S>, "name">, Explore.Options {
  readonly faults?: Explore.Faults | undefined
}

/**
 * A subject and in which orders to run it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Interleaved<S>
  extends Omit<Explore.Subject<S>, "name" | "faults">, Explore.Schedules
{}

type Body = (probe: Probe.Probe) => Effect.Effect<unknown, unknown, Scope.Scope>

/**
 * The methods that this `it` adds to the one of `@effect/vitest`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Methods {
  /** Passes when the explorer finds nothing of a grade that fails (default R0 to R2) at any interruption point. */
  readonly interruptSafe: <S = void>(
    name: string,
    subject: Body | Safe<S>,
    timeout?: number
  ) => void
  /** Passes when every order of operations that was tried ends as the plain one does, or as `check` says. */
  readonly interleave: <S = void>(
    name: string,
    subject: Body | Interleaved<S>,
    timeout?: number
  ) => void
}

interface Context {
  readonly skip: () => void
  /** In milliseconds. */
  readonly timeout: number
}

/** Replays the token of `HOLDFAST_REPLAY` if there is one. True if the test is thereby done. */
const replayed = async <S>(
  context: Context,
  subject: Explore.Subject<S>,
  options: Pick<Explore.Schedules, "check" | "horizon" | "opLimit">
): Promise<boolean> => {
  const token = process.env["HOLDFAST_REPLAY"]
  if (token === undefined || token === "") return false
  if (!Explore.isTokenOf(token, subject.name)) {
    context.skip()
    return true
  }
  const { at, steps, violations } = await Explore.replay(token, subject, options)
  if (violations.length > 0) {
    const broken = violations.map(({ law, message }) => `${law}: ${message}`).join("\n")
    throw new Error(`${broken}\nstopped at ${at ?? "an unknown line"}\n${steps}`)
  }
  return true
}

/** Runs `use` so that its error points at the line of the test, not into this file. */
const at = async (frames: string, use: () => Promise<void>): Promise<void> => {
  try {
    await use()
  } catch (error) {
    if (error instanceof Error) error.stack = `${error.name}: ${error.message}\n${frames}`
    throw error
  }
}

/** Under the tracker, as `Main.run` runs a program: releases of ours wait for the dying users that stock operators started. */
const tracked = <S>({ after, body, setup, ...rest }: Explore.Subject<S>): Explore.Subject<S> => ({
  ...rest,
  body: (state, probe) => Nursery.tracked(Effect.suspend(() => body(state, probe))),
  after: after && ((state) => Nursery.tracked(Effect.suspend(() => after(state)))),
  setup: setup &&
    ((probe) =>
      Nursery.tracked(Effect.suspend(() => Effect.isEffect(setup) ? setup : setup(probe))))
})

/** The frames of whoever called `method`. */
const framesOf = (method: (...args: Array<never>) => unknown): string => {
  const holder = { stack: "" }
  Error.captureStackTrace(holder, method)
  return holder.stack.split("\n").slice(1).join("\n")
}

const nothingSeen =
  `holds nothing that the explorer sees: no finalizer of a scope, nothing of the probe.
  A plain counter or handle is no scope. To show it, count it with probe.counter(name) or probe.wrap(name, service, …),
  or give { setup, body, invariant } and let the invariant look at it.`

/** The budget of a test, which ends before its timeout does: a verdict that says what was left out beats a test that is killed. */
const boundedBy = (
  timeout: number,
  given: Body | Pick<Explore.Options, "budget">
): Explore.Options["budget"] => {
  const budget = typeof given === "function" ? undefined : given.budget
  return {
    ...budget,
    millis: Math.min(budget?.millis ?? 20_000, timeout > 0 ? timeout * 0.8 : 20_000)
  }
}

const register = <S>(
  { frames, given, name, timeout }: {
    readonly name: string
    readonly given: Body | (Pick<Explore.Subject<S>, "body"> & Pick<Explore.Options, "budget">)
    readonly timeout: number | undefined
    readonly frames: string
  },
  replaying: Pick<Explore.Schedules, "check" | "horizon" | "opLimit">,
  explore: (
    subject: Explore.Subject<S>,
    budget: Explore.Options["budget"]
  ) => Promise<Explore.Verdict>
): void => {
  const isShort = typeof given === "function"
  const subject = tracked<S>(
    isShort
      ? { name, body: (_, probe) => given(probe), origin: given }
      : { ...given, name, origin: given.body }
  )
  const run = async (context: Context) => {
    if (await replayed(context, subject, replaying)) return
    const verdict = await explore(subject, boundedBy(context.timeout, given))
    const note = isShort && verdict.watched === 0 ? `"${name}" ${nothingSeen}` : undefined
    if (!verdict.passed) {
      throw new Error([Explore.format(verdict), ...(note === undefined ? [] : [note])].join("\n"))
    }
    // oxlint-disable-next-line no-console -- A test that passes has no other place for it.
    if (note !== undefined) console.info(note)
  }
  base(
    name,
    (context) =>
      at(frames, () => run({ skip: () => context.skip(), timeout: context.task.timeout })),
    timeout
  )
}

const methods: Methods = {
  interruptSafe: (name, given, timeout) => {
    const options: Explore.Options = typeof given === "function" ? {} : given
    register(
      { name, given, timeout, frames: framesOf(methods.interruptSafe) },
      options,
      (subject, budget) => Explore.interruptions(subject, { ...options, budget })
    )
  },
  interleave: (name, given, timeout) => {
    const options: Explore.Schedules = typeof given === "function" ? {} : given
    register(
      { name, given, timeout, frames: framesOf(methods.interleave) },
      options,
      (subject, budget) => Explore.interleavings(subject, { ...options, budget })
    )
  }
}

/**
 * `it` of `@effect/vitest`, with `it.interruptSafe` and `it.interleave`.
 *
 * **Example** (the two tests of a lock)
 * ```ts
 * import { Effect } from "effect"
 * import { Semaphore } from "holdfast"
 * import { it } from "holdfast/Testing/Vitest"
 *
 * it.interruptSafe("withPermit gives its permit back", {
 *   setup: Semaphore.make(1),
 *   body: (semaphore) => Semaphore.withPermit(semaphore)(Effect.yieldNow()),
 *   invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1
 * })
 * ```
 *
 * @category testing
 * @since 0.1.0
 */
export const it: typeof base & Methods = new Proxy(base, {
  get: (of, key) => Object.hasOwn(methods, key) ? Reflect.get(methods, key) : Reflect.get(of, key)
}) as typeof base & Methods
