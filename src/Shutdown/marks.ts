/**
 * marks: the work that a shutdown waits for: effects marked by `inFlight` or `drains`, and hooks.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { prettyOf } from "../internal/exit.ts"
import type { AnyFiber } from "../internal/runtime.ts"
import type * as Ledger from "../Ledger.ts"
import type { Waits } from "./waits.ts"

/**
 * Work that has not ended, summed up by line: marked by `inFlight` or `drains`, or hooks; or the program itself, if something in
 * it had drained, so that it was to end by itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unfinished {
  readonly what: "inFlight" | "drains" | "onDrain" | "onStop" | "program"
  readonly count: number
  /** The line that marked or registered it. */
  readonly site: string | undefined
  /** Milliseconds that the longest of them has taken so far. */
  readonly longest: number
}

/**
 * How one hook ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface HookReport {
  readonly phase: "draining" | "stopping"
  /** The line that registered it. */
  readonly site: string | undefined
  readonly state: "running" | "done" | "failed" | "abandoned"
  /** Milliseconds. */
  readonly took: number
  readonly cause: string | undefined
}

/** One piece of work. */
export interface Mark {
  readonly what: Unfinished["what"]
  readonly site: Ledger.Site | undefined
  readonly fiber?: AnyFiber | undefined
  readonly startedAt: number
}

/** One entry for each line, the line with most of them first. */
export const grouped = (marks: Iterable<Mark>, now: number): ReadonlyArray<Unfinished> => {
  const groups = new Map<string, Unfinished>()
  for (const { site, startedAt, what } of marks) {
    const key = `${what} ${site?.text}`
    const { count, longest } = groups.get(key) ?? { count: 0, longest: 0 }
    groups.set(key, {
      what,
      count: count + 1,
      site: site?.text,
      longest: Math.max(longest, now - startedAt)
    })
  }
  return Array.from(groups.values()).toSorted((one, other) => other.count - one.count)
}

export class Marks {
  readonly inFlight = new Set<Mark>()
  readonly drains = new Set<Mark>()
  #isRequested = false
  /** Whether work that drains was under way at the request or began after it. The program is then to end by itself. */
  endsByItself = false
  readonly #waits: Waits

  constructor(waits: Waits) {
    this.#waits = waits
  }

  get all(): ReadonlyArray<Mark> {
    return [...this.inFlight, ...this.drains]
  }

  /** Called in the step of the request. */
  onRequest(): void {
    this.#isRequested = true
    this.endsByItself = this.drains.size > 0
  }

  /** INVARIANT Shutdown-2. */
  mark<A, E, R>(
    what: "inFlight" | "drains",
    effect: Effect.Effect<A, E, R>,
    site: Ledger.Site | undefined
  ): Effect.Effect<A, E, R> {
    const among = this[what]
    return Effect.acquireUseRelease(
      Effect.withFiberRuntime<Mark>((fiber) => {
        const mark = { what, site, fiber, startedAt: this.#waits.now() }
        among.add(mark)
        if (what === "drains" && this.#isRequested) this.endsByItself = true
        return Effect.succeed(mark)
      }),
      () => effect,
      (mark) =>
        Effect.sync(() => {
          among.delete(mark)
          this.#waits.notify()
        })
    )
  }
}

/** A hook. Only `Hooks` writes it. */
interface Hook {
  readonly phase: HookReport["phase"]
  readonly run: Effect.Effect<unknown, unknown>
  readonly site: Ledger.Site | undefined
  state: "waiting" | HookReport["state"]
  fiber?: AnyFiber
  startedAt: number
  endedAt?: number
  cause?: Cause.Cause<unknown>
}

export class Hooks {
  readonly #registered = new Set<Hook>()
  readonly #started: Array<Hook> = []
  readonly #waits: Waits
  /** The phase of the run; undefined before it has a program, and after that. */
  readonly #phase: () => string | undefined

  constructor(waits: Waits, phase: () => string | undefined) {
    this.#waits = waits
    this.#phase = phase
  }

  /** Registers a hook for the length of the scope. */
  register<A, E, R>(
    phase: HookReport["phase"],
    effect: Effect.Effect<A, E, R>,
    site: Ledger.Site | undefined
  ): Effect.Effect<void, never, R | Scope.Scope> {
    return Effect.flatMap(Effect.context<R>(), (context) => {
      const run = Effect.provide(effect, context)
      const hook: Hook = { phase, run, site, state: "waiting", startedAt: 0 }
      return Effect.asVoid(Effect.acquireRelease(
        Effect.suspend(() => {
          this.#registered.add(hook)
          return this.#phase() === phase ? this.#start(hook) : Effect.void
        }),
        () => {
          if (!this.#isDue(hook)) this.#registered.delete(hook)
          // INVARIANT Shutdown-5: the scope waits for the hook, until the end of its phase at most.
          return this.#waits.until(() => !this.#isDue(hook), Infinity)
        }
      ))
    })
  }

  /** Whether a hook runs, or will run because the end has been asked for. */
  #isDue({ phase, state }: Hook): boolean {
    if (state !== "waiting") return state === "running"
    const now = this.#phase()
    return now === phase || now === "draining"
  }

  /** Starts the hooks of a phase, each in a fiber of its own. */
  startAll(phase: HookReport["phase"]): Effect.Effect<void> {
    return Effect.suspend(() => {
      const due = Array.from(this.#registered).filter((hook) =>
        hook.phase === phase && hook.state === "waiting"
      )
      return Effect.forEach(due, (hook) => this.#start(hook), { discard: true })
    })
  }

  #start(hook: Hook): Effect.Effect<void> {
    return Effect.map(Effect.forkDaemon(Effect.interruptible(hook.run)), (fiber) => {
      hook.state = "running"
      hook.fiber = fiber
      hook.startedAt = this.#waits.now()
      this.#started.push(hook)
      fiber.addObserver((exit) => {
        if (hook.state !== "running") return
        if (Exit.isFailure(exit)) hook.cause = exit.cause
        this.#end(hook, Exit.isSuccess(exit) ? "done" : "failed")
      })
    })
  }

  #end(hook: Hook, state: "done" | "failed" | "abandoned"): void {
    hook.state = state
    hook.endedAt = this.#waits.now()
    this.#waits.notify()
  }

  isIdle(): boolean {
    return this.#started.every(({ state }) => state !== "running")
  }

  /** Leaves the hooks that run behind, and gives their fibers. */
  abandon(): ReadonlyArray<AnyFiber> {
    const running = this.#started.filter(({ state }) => state === "running")
    for (const hook of running) this.#end(hook, "abandoned")
    return running.flatMap(({ fiber }) => fiber ?? [])
  }

  /** The hooks of a phase that were abandoned. */
  abandonedIn(phase: string): ReadonlyArray<Mark> {
    return this.#started.filter((hook) => hook.phase === phase && hook.state === "abandoned")
      .map(({ phase, site, startedAt }) => ({
        what: phase === "draining" ? "onDrain" : "onStop",
        site,
        startedAt
      }))
  }

  report(): ReadonlyArray<HookReport> {
    const now = this.#waits.now()
    return this.#started.map(({ cause, endedAt, phase, site, startedAt, state }) => ({
      phase,
      site: site?.text,
      state: state === "waiting" ? "running" : state,
      took: (endedAt ?? now) - startedAt,
      cause: cause && prettyOf(cause)
    }))
  }
}
