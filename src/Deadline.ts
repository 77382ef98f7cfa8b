/**
 * Deadline: runs an effect to its end, or gives up on it after a while, whether or not the caller is interruptible.
 *
 * DESIGN. For adapters and for releases, where `Effect.timeout` fails: it waits for the uninterruptible work that it should bound,
 * and in a fiber that is already interrupted it fires at once. internal/deadline.ts has the machinery and its invariants.
 *
 * COST (2026-11) 2 µs and a fork for an effect of several steps; a second fork if it waits.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import { exitWithin } from "./internal/deadline.ts"
import * as Rules from "./internal/options.ts"
import { isInstant } from "./internal/runtime.ts"

const rules: Rules.Rules = { duration: Rules.duration }

/**
 * The exit of an effect, or none if it has not ended within `duration`. The time counts from the first wait of the effect.
 *
 * **Details** — The effect runs in a fiber of its own, interruptibly, with the context and FiberRefs of the caller; changes that it
 *   makes to FiberRefs are lost. At the deadline it is interrupted and not waited for. During a shutdown it also ends by its share
 *   of the time that the shutdown has left (Shutdown.ts). `Infinity`: no bound of its own.
 * **Interruption** — The caller's interruption does not reach the effect: it is seen after the answer, at the deadline at the
 *   latest.
 * **Errors** — Those of the effect are in its exit. A `duration` that is none throws a `RangeError`.
 * **Cost** — 2 µs and a fork; one fork more if the effect waits; nothing for one `Effect.sync` or `Effect.succeed`.
 *
 * **Example** (closed in time, or cut off)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { Deadline } from "holdfast"
 *
 * const log: Array<string> = []
 * const goodbye = Effect.uninterruptible(Effect.never)
 * const close = Deadline.exit(goodbye, "10 millis").pipe(
 *   Effect.map((exit) => log.push(Option.isNone(exit) ? "cut" : "closed"))
 * )
 * await Effect.runPromise(Effect.uninterruptible(close))
 * log // => ["cut"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const exit: {
  (
    duration: Duration.DurationInput
  ): <A, E, R>(
    self: Effect.Effect<A, E, R>
  ) => Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    duration: Duration.DurationInput
  ): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, duration: Duration.DurationInput) => {
  Rules.check("Deadline.exit", { duration }, rules)
  return isInstant(self)
    ? Effect.map(Effect.exit(self), Option.some)
    : exitWithin(self, Duration.decode(duration))
})
