/**
 * fibers: interrupts hooks and work that overran their phase, and the fibers that a program leaves behind, each where it waits. It
 * knows which of them have not ended, and which failed.
 *
 * DESIGN. A release under way, which is a root fiber of internal/deadline.ts, is waited for and never interrupted: it has a
 * deadline of its own. Its resource stands in the report, so the fiber does not.
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import * as Deadline from "../internal/deadline.ts"
import { prettyOf } from "../internal/exit.ts"
import * as Interrupt from "../internal/interrupt.ts"
import type { AnyFiber } from "../internal/runtime.ts"

/**
 * How one of the fibers that the program left behind ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface FiberReport {
  /** Such as `"#12"`. */
  readonly fiber: string
  readonly state: "running" | "failed"
  readonly cause: string | undefined
}

/** Whether it is an abandoned release, or the timer of one. The shutdown does not wait for those. */
const isAbandoned = (fiber: AnyFiber): boolean =>
  Deadline.isBounded(fiber) && Deadline.callerOf(fiber) === undefined

const idOf = (fiber: AnyFiber): number => fiber.id().id

export class Interrupted {
  readonly #onEnd: () => void
  readonly #known = new WeakSet<AnyFiber>()
  readonly #pending = new Set<AnyFiber>()
  readonly #failed = new Map<AnyFiber, Cause.Cause<unknown>>()

  constructor(onEnd: () => void) {
    this.#onEnd = onEnd
  }

  /** Interrupts each fiber once. Gives whether any of them is new. */
  add(fibers: Iterable<AnyFiber>, by: FiberId.FiberId): boolean {
    let hasNew = false
    for (const fiber of fibers) {
      if (this.#known.has(fiber)) continue
      hasNew = true
      this.#known.add(fiber)
      this.#pending.add(fiber)
      fiber.addObserver((exit) => {
        this.#pending.delete(fiber)
        const hasFailed = Exit.isFailure(exit) && !Cause.isInterruptedOnly(exit.cause)
        // The owner of a release reports its failure.
        if (hasFailed && !Deadline.isBounded(fiber)) this.#failed.set(fiber, exit.cause)
        this.#onEnd()
      })
      if (!Deadline.isBounded(fiber)) Interrupt.atWait(fiber, by)
    }
    return hasNew
  }

  /**
   * Adds the root fibers that are `ours`. Unless `all`, those younger than a release under way are left alone: they may work
   * for it.
   */
  addRoots(isOurs: (fiber: AnyFiber) => boolean, all: boolean, by: FiberId.FiberId): boolean {
    const ours = Fiber.unsafeRoots().filter((fiber) => isOurs(fiber) && !isAbandoned(fiber))
    const oldest = all
      ? Infinity
      : ours.filter(Deadline.isBounded).map(idOf).reduce(
        (one, other) => Math.min(one, other),
        Infinity
      )
    return this.add(ours.filter((fiber) => Deadline.isBounded(fiber) || idOf(fiber) < oldest), by)
  }

  /** Whether all have ended, but for abandoned releases. */
  hasEnded(): boolean {
    for (const fiber of this.#pending) if (!isAbandoned(fiber)) return false
    return true
  }

  report(): ReadonlyArray<FiberReport> {
    const running = Array.from(this.#pending).filter((fiber) => !Deadline.isBounded(fiber))
    return [
      ...running.map((fiber) => reportOf(fiber, undefined)),
      ...Array.from(this.#failed, ([fiber, cause]) => reportOf(fiber, cause))
    ]
  }
}

const reportOf = (fiber: AnyFiber, cause: Cause.Cause<unknown> | undefined): FiberReport => ({
  fiber: `#${idOf(fiber)}`,
  state: cause === undefined ? "running" : "failed",
  cause: cause && prettyOf(cause)
})
