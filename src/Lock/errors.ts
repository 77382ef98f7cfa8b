/** errors: how a lock fails, and who holds it. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import { printable } from "../Ledger/words.ts"

/**
 * Who holds a key, as far as the backend knows. `since` is in milliseconds of the holder's clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Holder {
  readonly holder: string
  readonly fence?: bigint | undefined
  readonly since?: number | undefined
}

/**
 * The reason of a `LockLost`. `"released"`: the lease was used after its own scope had closed.
 *
 * @category models
 * @since 0.1.0
 */
export type LossReason = "connection" | "vanished" | "superseded" | "deadline" | "released"

/** The code of an error of Node or pg. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined

const describe = ({ fence, holder }: Holder): string =>
  printable(holder) + (fence === undefined ? "" : ` (fence ${fence})`)

/**
 * The key was not free within `acquireTimeout`. Nothing is held.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockTimeout extends Data.TaggedError("LockTimeout")<{
  readonly key: string
  readonly waited: Duration.Duration
  readonly holder?: Holder | undefined
}> {
  override get message(): string {
    const by = this.holder === undefined
      ? "an unknown holder (or it was freed just now)"
      : describe(this.holder)
    const waited = Duration.format(this.waited)
    return `Lock "${printable(this.key)}" was not free within ${waited}: held by ${by}. `
      + "Raise `acquireTimeout`, or hold it for less."
  }
}

/**
 * The lease is gone: another process may hold the key now. The body was interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockLost extends Data.TaggedError("LockLost")<{
  readonly key: string
  readonly fence: bigint
  readonly reason: LossReason
}> {
  override get message(): string {
    const lock = `lock "${printable(this.key)}" (fence ${this.fence})`
    return `The lease of ${lock} was lost: ${this.reason}. Another process may hold it now: `
      + "the target of your writes must refuse this fence."
  }
}

/**
 * The same fiber tree holds this key: the wait would never end. A defect.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockReentry extends Data.TaggedError("LockReentry")<{ readonly key: string }> {
  override get message(): string {
    const lock = `Lock "${printable(this.key)}"`
    return `${lock} is held by this fiber or one that forked it, which would wait for itself. `
      + "Take it once, outside, and pass the lease in."
  }
}

/**
 * This backend cannot keep its promise here.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockUnsupported extends Data.TaggedError("LockUnsupported")<{
  readonly why: "pooler" | "platform"
  readonly detail: string
}> {
  override get message(): string {
    return `This lock cannot work here (${this.why}): ${this.detail}`
  }
}

/**
 * The backend failed at `op`. Nothing is held.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockBackendError extends Data.TaggedError("LockBackendError")<{
  readonly op: string
  readonly cause: unknown
}> {
  override get message(): string {
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `The lock backend failed at "${this.op}": ${printable(why)}`
  }
}
