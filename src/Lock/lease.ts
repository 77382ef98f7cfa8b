/**
 * lease: one grant of one key, from the grant to its end, and the effects that run under it.
 *
 * DESIGN. A hold ends once: released by its owner, or lost by its backend. It notifies its observers in that step.
 * The invariants stand in Lock.ts.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Condition from "../internal/condition.ts"
import * as Interrupt from "../internal/interrupt.ts"
import * as Registration from "../internal/registration.ts"
import type { Site } from "../Ledger.ts"
import { type LockBackendError, LockLost, type LossReason } from "./errors.ts"

/**
 * A held lock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  readonly key: string
  /** Unique to this hold: the service, the label, a number, and the line that acquires, if the ledger records lines. */
  readonly owner: string
  /** Strictly increasing per key. Send it with each write; the target must refuse a smaller one than it has seen. */
  readonly fence: bigint
  /** Names the locks among which the fences of a key rise: the backend and its namespace. Absent: those of this process. */
  readonly realm: string | undefined
  /** Never succeeds; fails when the lease is lost. */
  readonly lost: Effect.Effect<never, LockLost>
  /** Fails if the loss is known in this process, without I/O: call it before a side effect. */
  readonly ensureLive: Effect.Effect<void, LockLost>
  /** Asks the backend. */
  readonly verify: Effect.Effect<void, LockLost | LockBackendError>
  /**
   * Makes the lease last at least so long from now, without further renewals: before work that blocks the process. Locks without a
   * time to live last anyway.
   */
  readonly extend: (
    duration: Duration.DurationInput
  ) => Effect.Effect<void, LockLost | LockBackendError>
  /** Runs an effect that is interrupted, and fails with `LockLost`, when the lease is lost or its scope closes. */
  readonly protect: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LockLost, R>
}

/**
 * The result of a backend's take.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Grant {
  readonly fence: bigint
  /** Whether the backend still holds the key for us. */
  readonly verify: Effect.Effect<boolean, LockBackendError>
  /** Runs once. At the `releaseDeadline` it is interrupted and abandoned: the backend must then free the key by itself. */
  readonly release: Effect.Effect<unknown, unknown>
  /** Looks at the deadline of the lease, without I/O. Calls `lose` and gives false if it has passed. Absent: there is none. */
  readonly isLive?: (() => boolean) | undefined
  /** Whether the backend still holds the key, and now does for so many milliseconds. Absent: it does as long as it can. */
  readonly extend?: ((millis: number) => Effect.Effect<boolean, LockBackendError>) | undefined
}

/** A grant, or the request for it. Written only by this file and Lock.ts. */
export class Hold {
  readonly key: string
  readonly #name: string
  readonly #site: Site | undefined
  readonly ending = Condition.make()
  grant: Grant | undefined = undefined
  since = 0
  ended: LossReason | undefined = undefined

  constructor(key: string, name: string, site: Site | undefined) {
    this.key = key
    this.#name = name
    this.#site = site
  }

  get owner(): string {
    const line = this.#site?.text
    return line === undefined ? this.#name : `${this.#name} at ${line}`
  }
}

/** Ends it, unless it has ended. */
export const end = (hold: Hold, reason: LossReason): void => {
  if (hold.ended !== undefined) return
  hold.ended = reason
  Condition.notify(hold.ending)
}

const lostBy = ({ grant, key }: Hold, reason: LossReason): LockLost =>
  new LockLost({ key, fence: grant?.fence ?? 0n, reason })

/** The reason for which it has ended. A deadline may have passed before its timer ran. */
const endOf = (hold: Hold): LossReason | undefined => {
  if (hold.ended === undefined) hold.grant?.isLive?.()
  return hold.ended
}

const ensureLive = (hold: Hold): Effect.Effect<void, LockLost> =>
  Effect.suspend(() => {
    const ended = endOf(hold)
    return ended === undefined ? Effect.void : Effect.fail(lostBy(hold, ended))
  })

/** Fails if the backend says that it does not hold the key for us. */
const confirmed = (
  hold: Hold,
  asked: Effect.Effect<boolean, LockBackendError>
): Effect.Effect<void, LockLost | LockBackendError> =>
  Effect.zipRight(
    ensureLive(hold),
    Effect.flatMap(asked, (isOurs) => {
      if (!isOurs) end(hold, "vanished")
      return ensureLive(hold)
    })
  )

/** Leaves out the interrupt that the loss caused; any other failure of the body stays beside the loss (L5). */
const lostWith = <E>(
  lost: LockLost,
  exit: Exit.Exit<unknown, E>
): Effect.Effect<never, E | LockLost> =>
  Effect.failCause(
    Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)
      ? Cause.fail(lost)
      : Cause.sequential(Cause.fail(lost), exit.cause)
  )

const protect = <A, E, R>(
  hold: Hold,
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockLost, R> =>
  // MASK: the caller continues only after the body has ended; the body and the wait for it are restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.zipRight(ensureLive(hold), Effect.fork(restore(body))), (fiber) => {
      let lost: LockLost | undefined
      const forget = Condition.observe(hold.ending, () => {
        // INVARIANT Lock-5: a body that has ended loses nothing.
        if (hold.ended === undefined || fiber.unsafePoll() !== null) return
        lost = lostBy(hold, hold.ended)
        Interrupt.atWait(fiber, FiberId.none)
      }, () => hold.ended !== undefined)
      const ended = Effect.catchAllCause(restore(Fiber.await(fiber)), () => {
        forget()
        return Fiber.interrupt(fiber)
      })
      return Effect.flatMap(ended, (exit) => {
        forget()
        // It ran past its deadline without a wait in which its timer could run.
        if (lost === undefined && hold.ended === undefined && endOf(hold) !== undefined) {
          lost = lostBy(hold, "deadline")
        }
        return Effect.zipRight(
          Fiber.inheritAll(fiber),
          lost === undefined ? exit : lostWith(lost, exit)
        )
      })
    })
  )

export const leaseOf = (hold: Hold, grant: Grant, realm?: string): Lease => ({
  key: hold.key,
  get owner() {
    return hold.owner
  },
  fence: grant.fence,
  realm,
  lost: Registration.wait((resume) =>
    Condition.observe(hold.ending, () => {
      // INVARIANT Lock-5: our own release is no loss.
      if (hold.ended !== undefined && hold.ended !== "released") {
        resume(Effect.fail(lostBy(hold, hold.ended)))
      }
    }, () => hold.ended !== undefined)
  ),
  ensureLive: ensureLive(hold),
  verify: confirmed(hold, grant.verify),
  extend: (duration) =>
    confirmed(hold, grant.extend?.(Duration.toMillis(duration)) ?? Effect.succeed(true)),
  protect: (effect) => protect(hold, effect)
})
