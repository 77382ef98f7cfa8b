/**
 * Postgres/session: a connection whose statements can be cancelled, and that makes itself fit for its next user.
 *
 * DESIGN. A statement is over when the server is ready for the next one; then pg knows the transaction's status. Every wait for
 * the server is bounded: a session that does not answer in time is closed, and the server then rolls back and frees all it held.
 * A session that is not fit after its use cleans itself in the background, and its next user waits for that.
 * ../Postgres.ts has the invariants.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Deadline from "../Deadline.ts"
import type * as Managed from "../Managed.ts"
import { Connection, type Settings as ConnectionSettings } from "./connection.ts"
import {
  codeOf,
  type ConnectionLost,
  failed,
  isConflict,
  isSqlState,
  messageOf,
  unsent
} from "./errors.ts"
import { verdictOf } from "./state.ts"
import { type Result, type Results, Statement } from "./statement.ts"

export interface Settings extends ConnectionSettings {
  /** Runs work of a session in the background. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Called once, when a session is lost or closed. */
  readonly onLost: (session: Session) => void
  readonly reset: Reset
}

/** When a session is wiped for its next user: after what may have left something in it, after all, or never. */
export type Reset = "dirty" | "always" | "transaction"

/** A portal that keeps the session from everything else until it has ended. */
interface Portal {
  readonly end: Effect.Effect<unknown>
}

export type { Result, Results } from "./statement.ts"

export const resultsOf = (result: Results): ReadonlyArray<Result> =>
  Array.isArray(result) ? result : [result as Result]

/** An answer that is awaited from the server. */
export class Pending {
  /** Called once each, when it is settled. */
  waiting: Array<() => void> | undefined = undefined
  /** The server has answered, and will soon be ready for the next statement. */
  isAnswered = false
  /** What its sender gets; set once. */
  outcome: Effect.Effect<any, SqlError> | undefined = undefined
  isCancelled = false
  /** Asks the server to end it, where a cancel does not reach: a COPY that waits for data. */
  abort: (() => void) | undefined = undefined
  /** What the socket had been given before. */
  readonly bytesBefore: number
  error: unknown = undefined
  value: unknown = undefined

  constructor(bytesBefore: number) {
    this.bytesBefore = bytesBefore
  }

  get isSettled(): boolean {
    return this.outcome !== undefined
  }

  answer(error: unknown, value: unknown): void {
    if (this.isAnswered) return
    this.isAnswered = true
    this.error = error ?? undefined
    this.value = value
  }

  settle(outcome: Effect.Effect<unknown, SqlError>): void {
    this.outcome = outcome
    if (this.waiting !== undefined) { for (const wake of this.waiting) wake() }
  }

  /** Waits for the outcome and gives it. */
  readonly received: Effect.Effect<any, SqlError> = Effect.async((resume) => {
    const wake = (): void => resume(this.outcome!)
    if (this.isSettled) wake()
    else if (this.waiting === undefined) this.waiting = [wake]
    else this.waiting.push(wake)
  })

  get awaited(): Effect.Effect<void> {
    return Effect.ignore(this.received)
  }
}

type WhenInterrupted = "stop" | "finish"

/** The kernel takes so many bytes in one piece, or none. */
const onePiece = 4096

export class Session extends Connection {
  declare readonly settings: Settings
  // The fields below are written by this class and by its borrower alone.
  pending: Pending | undefined = undefined
  portal: Portal | undefined = undefined
  /** A cancel was sent, and perhaps taken by the server, but no statement has felt it: it may hit the next one. */
  stray: "sent" | "taken" | undefined = undefined
  /** Something of its user may be left in it. */
  isDirty = false
  /** Something is left in it that no statement undoes. */
  isSpoilt = false
  /** A transaction or a reserved session has it, and cleans it at its end. */
  isReserved = false
  /** The exchanges so far. */
  exchanges = 0
  /** A concurrent transaction was the reason of a failure. Written by this class and by transaction.ts. */
  hadConflict = false
  cleaning: Pending | undefined = undefined

  constructor(settings: Settings) {
    super(settings)
    // pg tells a query of its failure before the server is ready for the next one.
    this.client.once("connect", () => {
      this.client.connection.on("readyForQuery", () => {
        if (this.pending?.isAnswered) this.settle(this.pending)
      })
      // A hint more: the server reports the change of some settings, whichever way they were changed.
      this.client.connection.on("parameterStatus", () => {
        if (this.pending !== undefined) this.soil()
      })
    })
  }

  override lose(reason: string): ConnectionLost {
    if (this.lost === undefined) {
      super.lose(reason)
      this.settings.onLost(this)
    }
    if (this.pending !== undefined) this.settle(this.pending)
    return this.lost!
  }

  get status(): string | null {
    return this.client.getTransactionStatus()
  }

  errorOf({ bytesBefore, error, isAnswered }: Pending): SqlError {
    const code = codeOf(error)
    if (code !== undefined && isConflict(code)) this.hadConflict = true
    if (this.lost === undefined || (code !== undefined && isSqlState(code))) {
      return new SqlError({
        message: `Failed to execute statement: ${messageOf(error)}`,
        cause: error
      })
    }
    const bytes = this.wire.stream.bytesWritten - bytesBefore
    return !isAnswered && this.lostBy === "EPIPE" && bytes <= onePiece
      ? unsent(this.lost)
      : failed(this.lost)
  }

  /** The end of an exchange, or of the session. */
  settle(pending: Pending): void {
    if (pending.isSettled) return
    if (this.pending === pending) this.pending = undefined
    const isOver = pending.isAnswered && pending.error === undefined
    pending.settle(isOver ? Effect.succeed(pending.value) : Effect.fail(this.errorOf(pending)))
    // `stop` does it at its own end.
    if (!pending.isCancelled) this.cleanInBackground()
  }

  /** Sends something and waits for its answer; an interrupt ends it and waits until it has ended. */
  exchange<A>(
    start: (pending: Pending) => void,
    whenInterrupted?: WhenInterrupted
  ): Effect.Effect<A, SqlError> {
    // MASK: from the sending to the outcome, or to the end of what was interrupted; the wait is restored.
    return Effect.uninterruptibleMask((restore) =>
      this.exchangeInMask(restore, start, whenInterrupted)
    )
  }

  exchangeInMask<A>(
    restore: Managed.Restore,
    start: (pending: Pending) => void,
    whenInterrupted: WhenInterrupted = "stop"
  ): Effect.Effect<A, SqlError> {
    if (this.lost !== undefined) return Effect.fail(unsent(this.lost))
    const pending = new Pending(this.wire.stream.bytesWritten)
    this.pending = pending
    this.exchanges++
    try {
      start(pending)
    } catch (cause) {
      pending.answer(cause, undefined)
      this.settle(pending)
    }
    return Effect.catchAllCause(restore(pending.received), (cause) => {
      if (pending.isSettled) return Effect.failCause(cause)
      const end = whenInterrupted === "stop" ? this.stop(pending) : this.finish(pending)
      return Effect.zipRight(end, Effect.failCause(cause))
    })
  }

  soil(): void {
    if (this.settings.reset !== "transaction") this.isDirty = true
  }

  /** To be called with the text of each user's statement before it is sent. */
  note(sql: string): void {
    const verdict = verdictOf(sql)
    if (verdict !== "clean" || this.settings.reset === "always") this.soil()
    if (verdict === "spoilt") this.isSpoilt = this.isDirty
  }

  /** A statement of a user. `project` makes the value of its results. */
  query<A>(
    sql: string,
    values: ReadonlyArray<unknown>,
    project: (results: Results) => A,
    rowMode?: "array"
  ): Effect.Effect<A, SqlError> {
    // MASK: of the exchange; the wait for its answer is restored.
    return Effect.uninterruptibleMask((restore) =>
      this.queryInMask(restore, sql, values, project, rowMode)
    )
  }

  queryInMask<A>(
    restore: Managed.Restore,
    sql: string,
    values: ReadonlyArray<unknown>,
    project: (results: Results) => A,
    rowMode?: "array"
  ): Effect.Effect<A, SqlError> {
    return this.exchangeInMask(restore, (pending) => {
      this.note(sql)
      this.client.query(new Statement(sql, values, rowMode, project, pending))
    })
  }

  /** A statement of ours. */
  send(sql: string): Effect.Effect<Results, SqlError> {
    return this.exchange((pending) => {
      this.client.query(new Statement(sql, [], undefined, identity, pending))
    })
  }

  text(sql: string): Effect.Effect<void, SqlError> {
    return Effect.asVoid(this.send(sql))
  }

  /** A statement of ours that must be answered in time, or the session is closed. True if it succeeded. */
  promptly(sql: string): Effect.Effect<boolean> {
    return Effect.map(Deadline.exit(this.text(sql), this.settings.cancelTimeout), (answer) => {
      if (Option.isNone(answer)) this.unsafeEnd(`the server did not answer "${sql}" in time`)
      return Option.isSome(answer) && Exit.isSuccess(answer.value)
    })
  }

  // Ending what runs.

  /** Cancels what runs and waits until it has stopped, or closes the session (Postgres-1). */
  stop(pending: Pending): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { cancelTimeout } = this.settings
      if (pending.isSettled) return Effect.void
      // One cancel a statement: a second one could arrive after the first was confirmed.
      if (pending.isCancelled) {
        return Effect.asVoid(Deadline.exit(pending.awaited, Duration.times(cancelTimeout, 2)))
      }
      pending.isCancelled = true
      if (pending.abort !== undefined) return this.abort(pending, pending.abort)
      this.stray = "sent"
      const taken = Effect.map(this.cancelRequest, (isTaken) => {
        if (isTaken) this.stray = "taken"
      })
      // One bound for both: the interrupt waits no longer, whichever of them gets no answer.
      const both = Deadline.exit(Effect.zipRight(taken, pending.awaited), cancelTimeout)
      return Effect.map(both, () => {
        if (codeOf(pending.error) === "57014") this.stray = undefined
        // INVARIANT Postgres-2: what follows could feel the cancel, even a ROLLBACK. The server rolls back by itself.
        if (!pending.isSettled || this.stray === "sent") {
          this.unsafeEnd("the server did not confirm a cancel")
        }
        this.cleanInBackground()
      })
    })
  }

  abort(pending: Pending, ask: () => void): Effect.Effect<void> {
    ask()
    return Effect.map(Deadline.exit(pending.awaited, this.settings.cancelTimeout), () => {
      if (!pending.isSettled) this.unsafeEnd("the server did not end a COPY in time")
      this.cleanInBackground()
    })
  }

  /** Waits for the answer to an interrupted COMMIT for twice `cancelTimeout`, then closes the session. */
  finish(pending: Pending): Effect.Effect<void> {
    const twice = Duration.times(this.settings.cancelTimeout, 2)
    return Effect.map(Deadline.exit(pending.awaited, twice), () => {
      if (!pending.isSettled) this.unsafeEnd("the server did not answer a COMMIT in time")
    })
  }

  get stopRunning(): Effect.Effect<void> {
    return Effect.suspend(() => this.pending === undefined ? Effect.void : this.stop(this.pending))
  }

  // Cleaning.

  get isFit(): boolean {
    return this.lost === undefined && this.status === "I" && this.stray === undefined &&
      !this.isDirty
      && this.pending === undefined && this.portal === undefined
  }

  /** Makes it fit for the next user, or closes it (Postgres-2). Bounded. */
  readonly clean: Effect.Effect<void> = Effect.gen(this, function*() {
    yield* this.stopRunning
    if (this.portal !== undefined) yield* this.portal.end
    if (this.lost === undefined && this.stray === "taken") yield* this.outrunStray
    if (this.lost === undefined && this.status !== "I") yield* this.promptly("ROLLBACK")
    // INVARIANT PgState-1.
    if (this.lost === undefined && this.isDirty && !this.isSpoilt) {
      this.isDirty = !(yield* this.promptly("DISCARD ALL"))
    }
    if (!this.isFit) this.unsafeEnd("it was not fit for another user")
  })

  /**
   * A server closes the socket of a cancel after it has signalled its process, which drops a signal that finds no statement. So
   * after that no statement can feel it, unless a pooler stands between: then the pid is not the one that was announced.
   */
  get outrunStray(): Effect.Effect<void> {
    const asked = Deadline.exit(
      this.send("SELECT pg_backend_pid() AS pid"),
      this.settings.cancelTimeout
    )
    return Effect.map(asked, (answer) => {
      const isDirect = Option.isSome(answer) && Exit.isSuccess(answer.value)
        && resultsOf(answer.value.value).some(({ rows }) =>
          (rows?.[0] as { pid?: number } | undefined)?.pid === this.processId
        )
      if (isDirect) this.stray = undefined
    })
  }

  /** Its user does not wait; the next one does. */
  cleanInBackground(): void {
    if (this.isReserved || this.cleaning !== undefined || this.lost !== undefined) return
    if (this.isFit || this.pending !== undefined) return
    const cleaning = new Pending(0)
    this.cleaning = cleaning
    this.settings.fork(Effect.map(this.clean, () => {
      this.cleaning = undefined
      cleaning.settle(Effect.void)
    }))
  }

  /** Waits until it is fit for a user. False if it is lost: then nothing was sent. */
  get ready(): Effect.Effect<boolean> {
    return Effect.map(this.cleaning?.awaited ?? Effect.void, () => this.lost === undefined)
  }
}
