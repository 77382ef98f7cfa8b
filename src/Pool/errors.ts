/**
 * errors: how a pool fails. `PoolTimeout`, `PoolClosed` and `PoolExhausted` are for callers to handle; the others are defects.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { prettyOf } from "../internal/exit.ts"
import { describeHolder, type Holder, type PoolStats } from "./state.ts"

/**
 * No item in time: the wait (`phase: "acquire"`) or the opening of one item (`"create"`) took longer than its timeout.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolTimeout extends Data.TaggedError("PoolTimeout")<{
  readonly pool: string
  readonly phase: "acquire" | "create"
  readonly waited: Duration.Duration
  readonly stats: PoolStats
  /** The last failure of opening an item, if there was one. */
  readonly lastFailure: Option.Option<Cause.Cause<unknown>>
  /** How many items the waiting fiber itself held: more than none is a self-deadlock in the making. */
  readonly heldByWaiter: number
}> {
  override get message(): string {
    const { creating, idle, max, pending, used } = this.stats
    const what = this.phase === "acquire"
      ? `No item of pool "${this.pool}" within ${Duration.format(this.waited)}`
      : `Opening an item of pool "${this.pool}" took longer than ${Duration.format(this.waited)}`
    const why = this.heldByWaiter > 0
      ? `The waiting fiber itself holds ${this.heldByWaiter}: nested use needs max ≥ depth × users.`
      : Option.isSome(this.lastFailure)
      ? `Opening last failed with: ${prettyOf(this.lastFailure.value)}`
      : "Raise `max` or the timeout, or look at `Pool.holders`."
    return `${what} (max ${max}: ${used} used, ${idle} idle, ${creating} creating; ${pending} waiting). ${why}`
  }
}

/**
 * The pool is closed or closing; nothing was lent.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosed extends Data.TaggedError("PoolClosed")<{ readonly pool: string }> {
  override get message(): string {
    return `Pool "${this.pool}" is closed. Its scope ended before its user did.`
  }
}

/**
 * As many wait already as `maxWaiters` allows; this one was refused at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolExhausted extends Data.TaggedError("PoolExhausted")<{
  readonly pool: string
  readonly maxWaiters: number
  readonly stats: PoolStats
}> {
  override get message(): string {
    return `Pool "${this.pool}" is exhausted: ${this.stats.used} of ${this.stats.max} used and `
      + `${this.stats.pending} waiting (maxWaiters ${this.maxWaiters}). Shed load, or raise \`max\`.`
  }
}

/**
 * The errors of a pool itself.
 *
 * @category errors
 * @since 0.1.0
 */
export type PoolError = PoolTimeout | PoolClosed | PoolExhausted

/** The overloads of `make` decide which of these errors the type of a pool shows; within the pool they have no type. */
export const refusal = (error: PoolError): Cause.Cause<never> => Cause.fail(error as never)

/**
 * The pool was closed and not everything came back by `shutdownTimeout`. A defect in the cause of the scope's exit.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolLeak extends Data.TaggedError("PoolLeak")<{
  readonly pool: string
  readonly holders: ReadonlyArray<Holder>
  readonly stats: PoolStats
}> {
  override get message(): string {
    const { closing, creating } = this.stats
    return `Pool "${this.pool}" was closed with ${this.holders.length} item(s) not returned, ${creating} being opened and `
      + `${closing} being destroyed: ${this.holders.map(describeHolder).join("; ")}.`
  }
}

/**
 * A fiber that holds an item closed the pool and would have waited for itself. A defect.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosedByHolder extends Data.TaggedError("PoolClosedByHolder")<{
  readonly pool: string
  readonly holder: Holder
}> {
  override get message(): string {
    const holder = describeHolder(this.holder)
    return `Pool-6: ${holder} closes pool "${this.pool}" while it holds an item of it: `
      + "it would wait for itself. The pool closes without it; give the item back first."
  }
}
