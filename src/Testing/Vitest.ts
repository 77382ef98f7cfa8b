/**
 * Vitest: the explorer as tests.
 *
 * DESIGN. `it` is the `it` of `@effect/vitest` with two methods more. A test fails with the whole report, and each finding in
 * it names the variable that replays it: `HOLDFAST_REPLAY=<token> npx vitest run -t <name>`; tests of other subjects are
 * skipped then, and a stale token fails.
 *
 * @since 0.1.0
 */
import { it as base } from "@effect/vitest"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as process from "node:process"
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
  extends Pick<Explore.Subject<S>, "setup" | "body" | "after" | "invariant">, Explore.Schedules
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
}

/** Replays the token of `HOLDFAST_REPLAY` if there is one. True if the test is thereby done. */
const replayed = async <S>(
  context: Context,
  subject: Explore.Subject<S>,
  check: Explore.Check | undefined
): Promise<boolean> => {
  const token = process.env["HOLDFAST_REPLAY"]
  if (token === undefined || token === "") return false
  if (!Explore.isTokenOf(token, subject.name)) {
    context.skip()
    return true
  }
  const { at, steps, violations } = await Explore.replay(token, subject, { check })
  if (violations.length > 0) {
    const broken = violations.map(({ law, message }) => `${law}: ${message}`).join("\n")
    throw new Error(`${broken}\nstopped at ${at ?? "an unknown line"}\n${steps}`)
  }
  return true
}

const assertPassed = (verdict: Explore.Verdict): void => {
  if (!verdict.passed) throw new Error(Explore.format(verdict))
}

const bodyOf = (given: Body | { readonly body: unknown }): unknown =>
  typeof given === "function" ? given : given.body

const test = (
  name: string,
  timeout: number | undefined,
  run: (context: Context) => Promise<void>
): void => base(name, (context) => run({ skip: () => context.skip() }), timeout)

const methods: Methods = {
  interruptSafe: <S = void>(name: string, given: Body | Safe<S>, timeout?: number) => {
    const safe: Safe<S> = typeof given === "function"
      ? { body: (_, probe) => given(probe) }
      : given
    const subject: Explore.Subject<S> = { ...safe, name, origin: bodyOf(given) }
    test(name, timeout, async (context) => {
      if (await replayed(context, subject, undefined)) return
      assertPassed(await Explore.interruptions(subject, safe))
    })
  },
  interleave: <S = void>(name: string, given: Body | Interleaved<S>, timeout?: number) => {
    const interleaved: Interleaved<S> = typeof given === "function"
      ? { body: (_, probe) => given(probe) }
      : given
    const subject: Explore.Subject<S> = { ...interleaved, name, origin: bodyOf(given) }
    test(name, timeout, async (context) => {
      if (await replayed(context, subject, interleaved.check)) return
      assertPassed(await Explore.interleavings(subject, interleaved))
    })
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
