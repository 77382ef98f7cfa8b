/**
 * Shutdown: ends a program phase by phase, each phase bounded, and reports how everything it held ended.
 *
 * DESIGN. A run (`Shutdown/run`) leads its program from outside through the phases: running → draining (not ready any more, still
 * serving) → stopping (work under way finishes) → releasing (the main fiber is interrupted, then the fibers it left behind) →
 * exited. A phase that has nothing to wait for takes no time. Signals and exit codes are Main.ts.
 * Rooms: phases (bounds, the phase in force), marks (hooks, work in flight), fibers (interrupts and waits), report, words, waits.
 *
 * INVARIANTS
 * - Shutdown-1 The first request wins; later ones change nothing and return false.
 * - Shutdown-2 The count of drainers is exact at every instant, however marked work ends. Work that drains or is in flight finishes
 *   before the program is interrupted, within `stopTimeout`.
 * - Shutdown-3 Phases only go forward. Readiness is gone in the very step of the request, before anything else happens.
 * - Shutdown-4 (L4) Each phase ends by its bound, and all by `total`, whatever the program, a hook or a release does. Draining
 *   and stopping leave the releases `releaseTimeout`, or half of `total` if that is less, and draining leaves stopping
 *   `stopTimeout`, or a third of the rest. While releasing, each bounded release (Managed.ts) has four fifths of the time that is
 *   left, whatever its own deadline: the ones after it still run.
 * - Shutdown-5 A hook whose scope is open at the request runs once. Its scope stays open until the hook or its phase has ended. A
 *   hook whose scope has closed before never runs.
 * - Shutdown-6 (L3) The program's work that overran stopping is interrupted, and waited for, for half of `releaseTimeout` at
 *   most, before the main fiber releases what that work uses. After the main fiber, the fibers it left behind are interrupted and
 *   waited for. A release under way is waited for, never interrupted. Each fiber is interrupted where it waits, because stock
 *   operators may hang for ever if they are interrupted in the midst of a computation.
 * - Shutdown-7 (L5) From the step of the request on, the report names each resource that failed, was abandoned or is still held,
 *   each phase that overran with the lines of its work, and each fiber that is left; a release only by its resource.
 * - Shutdown-8 A request is passed to nested runs in the same step, with the same reason, except to one in a release, or masked.
 *   All nested runs are waited for like work in flight, end within its bound, and are part of the report of the outer run.
 *
 * COST (2026-11) one fiber beside the program and a look at `Fiber.roots` at the end: 0.2 ms for an empty run; 10,000 resources
 * are released and reported in 0.1 s.
 * NOT DONE a synchronous loop cannot be bounded in its own process.
 * SOURCES lightship and terminus (unready, delay, stop), OTP (a deadline each), uber-go/fx (times per resource), suture (a report
 * of services that did not stop), trio#147 (a reason and a grace).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Subscribable from "effect/Subscribable"
import * as Deadline from "./internal/deadline.ts"
import { forgetDefault } from "./internal/runtime.ts"
import * as Ledger from "./Ledger.ts"
import type { Phase, Reason } from "./Shutdown/phases.ts"
import type { Ended, Report } from "./Shutdown/report.ts"
import { type Options, Run, type Tag } from "./Shutdown/run.ts"

export type { FiberReport } from "./Shutdown/fibers.ts"
export type { HookReport, Unfinished } from "./Shutdown/marks.ts"
export { type Budgets, type Phase, type Reason, shortfall } from "./Shutdown/phases.ts"
export {
  type Ended,
  type PhaseReport,
  type Report,
  type ResourceReport,
  ShutdownTimeout
} from "./Shutdown/report.ts"
export type { Options } from "./Shutdown/run.ts"

/**
 * The shutdown of one run, with the operations of this module as methods. The functions here use the one in force.
 *
 * @category models
 * @since 0.1.0
 */
export type Service = Run

const tag: Tag = {
  get: (context) => Context.get(context, Shutdown),
  provide: (effect, run) => Effect.provideService(effect, Shutdown, run)
}

/**
 * A shutdown without a request and without a program. A request may come from outside of the program. Without a program (`run`) it
 * only wakes fibers that wait for it and takes readiness away.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (): Service => new Run(new Deadline.Budget(), tag)

/**
 * The shutdown in force. The default is that of the whole process: `Main.run` leads it; without Main only your own `request` asks it.
 *
 * **Example** (a batch that finishes what it has begun)
 * ```ts run
 * import { Effect } from "effect"
 * import { Batch, Shutdown } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const tick = { name: "tick", process: () => Effect.sleep("5 millis") }
 *   const forEver = (function*() { for (let n = 0;; n++) yield n })()
 *   const ticks = Batch.run(tick, forEver, { drain: { when: Shutdown.requested } })
 *   yield* Effect.fork(Effect.delay(Shutdown.request({ kind: "request", by: "the example" }), "20 millis"))
 *   return yield* Shutdown.drains(ticks) // without `drains` it is interrupted at once
 * })
 * const { exit } = await Effect.runPromise(Shutdown.run(program))
 * const status = exit._tag === "Success" ? exit.value.status : "cut"
 * status // => "drained"
 * ```
 *
 * @category tags
 * @since 0.1.0
 */
export class Shutdown extends Context.Reference<Shutdown>()("holdfast/Shutdown", {
  // With the budget of fibers that run without a program's context, such as those of callbacks.
  defaultValue: (): Service => new Run(Context.get(Context.empty(), Deadline.BudgetInForce), tag)
}) {}

/**
 * The shutdown of the whole process, for another program: a new one if the program of the last one has ended. For modules that run
 * programs as a process, as `Main.run` does.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeOfProcess = (): Service => {
  const last = Context.get(Context.empty(), Shutdown)
  if (last.unsafePhase() !== "exited") return last
  forgetDefault(Shutdown)
  return Context.get(Context.empty(), Shutdown)
}

/**
 * Runs a program with a shutdown of its own, and leads it to its end, phase by phase, once anything in it asks for that.
 * `Main.run` does this for a process.
 *
 * **Details** — Draining: not ready any more; the `onDrain` hooks run, for `drainTimeout`, and `drainDelay` passes. Stopping:
 *   the `onStop` hooks run and work marked by `drains` or `inFlight` finishes, for `stopTimeout`. Releasing, for `releaseTimeout`:
 *   unfinished work is interrupted and waited for, then the main fiber, then the fibers it left behind (`forkDaemon`; mark those
 *   that must end before the main fiber releases). A program that ends by itself goes straight to releasing. To ask from outside:
 *   `unsafeMake`, and its `run` and `request`.
 *   A nested run gets the request of the outer one, has that one's `stopTimeout` for all of its end, and ends before the outer
 *   program is interrupted. One in a release, or masked (also in a fiber forked there), gets no request, and is bounded once it
 *   ends. With an outer `stopTimeout` of 0 its releases have no time. One that is ending already has its own bounds.
 * **Interruption** — is a request; the run ends when the program has.
 * **Errors** — in the exit of the program: a `ShutdownTimeout` defect if it did not end. A `RangeError` defect for a wrong option.
 * **Cost** — a fork, and a look at the ledger at the end.
 *
 * **Example** (a daemon releases what it holds)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Shutdown } from "holdfast"
 *
 * let log = ""
 * const lamp = Managed.make({
 *   name: "lamp",
 *   acquire: Effect.sync(() => { log += "on " }),
 *   release: () => Effect.sync(() => { log += "off" })
 * })
 * const program = Effect.zipRight(
 *   Effect.forkDaemon(Managed.use(lamp, () => Effect.never)),
 *   Effect.sleep("10 millis") // ends, and leaves the daemon behind
 * )
 * await Effect.runPromise(Shutdown.run(program))
 * log // => "on off"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E, R>(
  program: Effect.Effect<A, E, R>,
  options: Options = {}
): Effect.Effect<Ended<A, E>, never, R> => {
  const site = Ledger.unsafeSite()
  return Effect.suspend(() => unsafeMake().run(program, options, site))
}

/**
 * Waits until the end is asked for, and gives the reason.
 *
 * **Interruption** — Waiting: at once.
 *
 * @category operations
 * @since 0.1.0
 */
export const requested: Effect.Effect<Reason> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.requested
)

/**
 * The reason why the end has been asked for, if it has.
 *
 * @category getters
 * @since 0.1.0
 */
export const reason: Effect.Effect<Option.Option<Reason>> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.reason
)

/**
 * Asks for the end. True if this was the first request.
 *
 * @category operations
 * @since 0.1.0
 */
export const request = (reason: Reason): Effect.Effect<boolean> =>
  Effect.flatMap(Shutdown, (shutdown) => shutdown.request(reason))

/**
 * Marks an effect that ends by itself soon after `requested`, and the program with it, such as a batch that drains. Both get
 * `stopTimeout` for that before the program is interrupted.
 *
 * **Interruption** — the effect's own. **Errors** — the effect's own.
 * **Cost** — an entry in a set; 2 µs for its line where sites are on, and always outside of a fiber.
 *
 * @category operations
 * @since 0.1.0
 */
export const drains = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.drains(effect, site))
}

/**
 * Marks work that is to finish, within `stopTimeout`, before the program is interrupted, such as a request being served. The
 * program is interrupted as soon as no such work is left.
 *
 * **Interruption** — the effect's own. **Errors** — the effect's own.
 * **Cost** — an entry in a set; 2 µs for its line where sites are on, and always outside of a fiber.
 *
 * **Example** (a request is answered, then the server ends)
 * ```ts run
 * import { Effect } from "effect"
 * import { Shutdown } from "holdfast"
 *
 * let answer = "none"
 * const answering = Effect.delay(Effect.sync(() => { answer = "42" }), "20 millis")
 * const server = Effect.gen(function*() {
 *   yield* Effect.fork(Shutdown.inFlight(answering))
 *   yield* Effect.sleep("5 millis")
 *   yield* Shutdown.request({ kind: "request", by: "the example" })
 *   return yield* Effect.never
 * })
 * await Effect.runPromise(Shutdown.run(server))
 * answer // => "42"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const inFlight = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.inFlight(effect, site))
}

/**
 * The phase, and its changes: a stream that begins with the current phase and ends after `exited`.
 *
 * **Details** — A reader in the program is interrupted with it in `releasing`. Only readers outside of the program see `exited`;
 *   under `Main.run` there are none, so the last action there belongs in the release of the outermost resource.
 * **Interruption** — Waiting for a change: at once. **Cost** — a listener for each reader.
 *
 * @category getters
 * @since 0.1.0
 */
export const phase: Subscribable.Subscribable<Phase> = Subscribable.make({
  get: Effect.flatMap(Shutdown, (shutdown) => shutdown.phase.get),
  changes: Stream.unwrap(Effect.map(Shutdown, (shutdown) => shutdown.phase.changes))
})

/**
 * Whether to accept new work, for a readiness probe: false from the step of the request on.
 *
 * @category getters
 * @since 0.1.0
 */
export const isReady: Effect.Effect<boolean> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.isReady
)

/**
 * Registers a hook for the length of the scope. It runs once, after the request, while the program still serves.
 *
 * **Details** — Hooks run concurrently, each in a fiber of its own with the context of its registration. A hook that is registered
 *   in draining runs at once, a later one never. A scope that closes after the request waits for its hooks.
 * **Interruption** — `drainTimeout` after the request the hook is interrupted and left behind.
 * **Errors** — in the report; the shutdown continues. **Cost** — a finalizer.
 *
 * @category operations
 * @since 0.1.0
 */
export const onDrain = <A, E, R>(
  hook: Effect.Effect<A, E, R>
): Effect.Effect<void, never, R | Scope.Scope> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.onDrain(hook, site))
}

/**
 * Registers a hook for the length of the scope. It runs once, after draining and before the program is interrupted: the place to
 * stop accepting work.
 *
 * **Details** — as `onDrain`, one phase later.
 * **Interruption** — after `stopTimeout` the hook is interrupted and left behind.
 * **Errors** — in the report; the shutdown continues. **Cost** — a finalizer.
 *
 * **Example** (the order of the end)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Shutdown } from "holdfast"
 *
 * const log: Array<string> = []
 * const say = (line: string) => Effect.sync(() => { log.push(line) })
 * const server = Managed.make({ name: "server", acquire: Effect.void, release: () => say("closed") })
 * const program = Effect.scoped(Effect.gen(function*() {
 *   yield* server
 *   yield* Shutdown.onDrain(say("left the load balancer"))
 *   yield* Shutdown.onStop(say("no new requests"))
 *   yield* Shutdown.request({ kind: "request", by: "the example" })
 *   return yield* Effect.never
 * }))
 * const { report } = await Effect.runPromise(Shutdown.run(program))
 * log // => ["left the load balancer", "no new requests", "closed"]
 * const phases = report.phases.map(({ phase }) => phase)
 * phases // => ["running", "draining", "stopping", "releasing", "exited"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const onStop = <A, E, R>(
  hook: Effect.Effect<A, E, R>
): Effect.Effect<void, never, R | Scope.Scope> => {
  const site = Ledger.unsafeSite()
  return Effect.flatMap(Shutdown, (shutdown) => shutdown.onStop(hook, site))
}

/**
 * The report so far: the phases and their times, and how each resource, hook and fiber ended. Without a ledger it has no resources.
 *
 * **Cost** — a snapshot of the ledger.
 *
 * @category getters
 * @since 0.1.0
 */
export const report: Effect.Effect<Report> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.report
)
