/**
 * waits: the clock of a run, and waits for a condition that end by an instant of it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Condition from "../internal/condition.ts"
import { millisOf } from "../internal/deadline.ts"
import * as Registration from "../internal/registration.ts"
import * as Timers from "../internal/timers.ts"

export class Waits {
  clock: Clock.Clock = Clock.make()
  readonly #changed = Condition.make()
  #timers: Timers.Timers | undefined

  /** Milliseconds that only go forward. */
  now(): number {
    return millisOf(this.clock)
  }

  /** To be called in the step of each change that can meet a condition. */
  notify(): void {
    Condition.notify(this.#changed)
  }

  /** Waits until `isMet` holds, or until the instant `by`. Gives whether it holds. */
  until(isMet: () => boolean, by: number): Effect.Effect<boolean> {
    return Effect.withFiberRuntime((caller) =>
      Registration.wait((resume) => {
        const left = by - this.now()
        const met = isMet()
        if (met || left <= 0) {
          resume(Effect.succeed(met))
          return () => {}
        }
        const timers = this.#timers = Timers.on(this.#timers, this.clock)
        const forget = Condition.observe(this.#changed, () => {
          if (timer !== undefined) Timers.stop(timer)
          resume(Effect.succeed(true))
        }, isMet)
        const timer = left === Infinity ? undefined : Timers.start(timers, left, caller, () => {
          forget()
          resume(Effect.succeed(false))
        })
        return () => {
          forget()
          if (timer !== undefined) Timers.stop(timer)
        }
      })
    )
  }
}
