/**
 * Shutdown: that the process has been asked to end, why, and who will end by himself.
 *
 * DESIGN. One request, seen by all. A part of the program that knows how to finish (a batch that drains) marks itself with
 * `drains`; whoever runs the program (Main.ts) interrupts at once if nobody drains, and else gives the drainers their time.
 *
 * INVARIANTS
 * - Shutdown-1 The first request wins; later ones change nothing and say so.
 * - Shutdown-2 The count of drainers is exact at every instant, whatever way a draining region ends.
 *
 * NOT DONE here yet: phases with budgets of their own, readiness, hooks, the report.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"

/**
 * Why the end was asked for.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason =
  | { readonly kind: "signal"; readonly signal: string }
  | { readonly kind: "error"; readonly error: unknown }
  | { readonly kind: "request"; readonly by: string }

/**
 * The state of the end.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** Waits for the request. */
  readonly requested: Effect.Effect<Reason>
  /** The request, if there has been one; never waits. */
  readonly reason: Effect.Effect<Option.Option<Reason>>
  /** Asks for the end; true if this was the first request. */
  readonly request: (reason: Reason) => Effect.Effect<boolean>
  /** Marks a region that ends by itself soon after `requested`. */
  readonly drains: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly unsafeRequest: (reason: Reason) => boolean
  /** As `reason`, in the same step: a release reads it. */
  readonly unsafeReason: () => Option.Option<Reason>
  readonly unsafeDrainers: () => number
}

/**
 * A shutdown that nobody has asked for yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (): Service => {
  // Both guarded by the single thread.
  let current: Reason | undefined
  let drainers = 0
  const requested = Deferred.unsafeMake<Reason>(FiberId.none)
  const unsafeRequest = (reason: Reason): boolean => {
    if (current !== undefined) return false
    current = reason
    Deferred.unsafeDone(requested, Effect.succeed(reason))
    return true
  }
  return {
    requested: Deferred.await(requested),
    reason: Effect.sync(() => Option.fromNullable(current)),
    request: (reason) => Effect.sync(() => unsafeRequest(reason)),
    drains: (effect) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          drainers++
        }),
        () => effect,
        () =>
          Effect.sync(() => {
            drainers--
          })
      ),
    unsafeRequest,
    unsafeReason: () => Option.fromNullable(current),
    unsafeDrainers: () => drainers
  }
}

/**
 * The shutdown in force. The default is one of the whole process, which only your own `request` ever asks for.
 *
 * **Example** (a batch that finishes what it has begun)
 * ```ts run
 * import { Effect, Fiber } from "effect"
 * import { Batch, Shutdown } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const tick = { name: "tick", process: () => Effect.sleep("5 millis") }
 *   const forEver = (function*() { for (let n = 0;; n++) yield n })()
 *   const ticks = Batch.run(tick, forEver, { drain: { when: Shutdown.requested } })
 *   const batch = yield* Effect.fork(Shutdown.drains(ticks)) // without `drains`, `Main.run` interrupts it at once
 *   yield* Effect.sleep("20 millis")
 *   yield* Shutdown.request({ kind: "request", by: "the example" })
 *   return yield* Fiber.join(batch)
 * })
 * const report = await Effect.runPromise(Effect.provideService(program, Shutdown.Shutdown, Shutdown.unsafeMake()))
 * report.status // => "drained"
 * ```
 *
 * @category tags
 * @since 0.1.0
 */
export class Shutdown extends Context.Reference<Shutdown>()("holdfast/Shutdown", {
  defaultValue: unsafeMake
}) {}

/**
 * Waits until the end is asked for, and says why.
 *
 * **Interruption** — Waiting: at once. **Errors** — none. **Cost** — none to speak of.
 *
 * @category operations
 * @since 0.1.0
 */
export const requested: Effect.Effect<Reason> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.requested
)

/**
 * Why the end has been asked for, if it has; never waits.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none to speak of.
 *
 * @category getters
 * @since 0.1.0
 */
export const reason: Effect.Effect<Option.Option<Reason>> = Effect.flatMap(
  Shutdown,
  (shutdown) => shutdown.reason
)

/**
 * Asks for the end; true if this was the first request.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — none to speak of.
 *
 * @category operations
 * @since 0.1.0
 */
export const request = (reason: Reason): Effect.Effect<boolean> =>
  Effect.flatMap(Shutdown, (shutdown) => shutdown.request(reason))

/**
 * Marks an effect that ends by itself soon after `requested`: `Main.run` then waits for it, up to `drain`, instead of
 * interrupting at once.
 *
 * **Interruption** — the effect's own. **Errors** — the effect's own. **Cost** — a counter.
 *
 * @category operations
 * @since 0.1.0
 */
export const drains = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Shutdown, (shutdown) => shutdown.drains(effect))
