/**
 * Postgres/errors: the errors of the pool and of its transactions, and how a `SqlError` is read.
 *
 * @since 0.1.0
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { printable } from "../Ledger/words.ts"
import type { Holder } from "../Pool.ts"

/**
 * The pool at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly max: number
  /** Lent out, checked, or being opened for a waiter. */
  readonly active: number
  readonly idle: number
  /** Said goodbye to, but perhaps still on the server. */
  readonly closing: number
  readonly waiting: number
  readonly holders: ReadonlyArray<Holder>
}

/**
 * The URL cannot be read. It is not shown: it may hold a password.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidUrl extends Data.TaggedError("InvalidUrl")<{ readonly reason: string }> {
  override get message(): string {
    return `The Postgres URL cannot be read: ${this.reason}. `
      + "Write it as postgres://user:password@host:port/database; percent-encode special characters of the password."
  }
}

/**
 * No session could be opened when the pool was made. `code` is an SQLSTATE or a system error code.
 *
 * @category errors
 * @since 0.1.0
 */
export class PostgresUnavailable extends Data.TaggedError("PostgresUnavailable")<{
  readonly host: string
  readonly port: number
  readonly user: string
  readonly database: string
  readonly code: string
  readonly reason: string
}> {
  override get message(): string {
    return `No Postgres at ${this.host}:${this.port} for user "${this.user}", database "${this.database}": `
      + `${this.reason}. ${hintFor(this.code, this.reason)}`
  }
}

/**
 * No session became free in time.
 *
 * @category errors
 * @since 0.1.0
 */
export class PostgresTimeout extends Data.TaggedError("PostgresTimeout")<{
  readonly waited: Duration.Duration
  readonly stats: Stats
}> {
  override get message(): string {
    const { active, holders, max, waiting } = this.stats
    const waited = Duration.format(this.waited)
    const [first] = holders
    const holder = first === undefined ? "" : `; one is held by fiber ${describe(first)}`
    return `No Postgres session within ${waited}: ${active} of ${max} in use, ${waiting} waiting${holder}. `
      + "Raise `max` or `acquireTimeout`, or look for transactions that wait for something else."
  }
}

const describe = ({ fiber, site, span }: Holder): string =>
  fiber + (span === undefined ? "" : ` in span "${span}"`)
  + (site === undefined ? "" : ` at ${site.split("\n")[0]}`)

/**
 * As many wait already as `maxWaiters` allows; this one was refused at once.
 *
 * @category errors
 * @since 0.1.0
 */
export class PostgresExhausted extends Data.TaggedError("PostgresExhausted")<{
  readonly maxWaiters: number
  readonly stats: Stats
}> {
  override get message(): string {
    const { active, max, waiting } = this.stats
    return `No Postgres session: ${active} of ${max} in use and ${waiting} waiting already (maxWaiters ${this.maxWaiters}). `
      + "Shed load, or raise `max`."
  }
}

/**
 * The pool is closed or closing.
 *
 * @category errors
 * @since 0.1.0
 */
export class PostgresClosed
  extends Data.TaggedError("PostgresClosed")<{ readonly applicationName: string }>
{
  override get message(): string {
    return `The Postgres pool "${this.applicationName}" is closed. Its scope ended before its users did.`
  }
}

/**
 * The session ended while it was in use: the server or the network went away, or the pool cut it.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionLost extends Data.TaggedError("ConnectionLost")<{
  readonly reason: string
  /** False if the statement that failed has certainly not reached the server. */
  readonly wasSent: boolean
}> {
  override get message(): string {
    return `The Postgres connection was lost: ${this.reason}. `
      + (this.wasSent
        ? "Statements not confirmed may or may not have run."
        : "The statement was not sent.")
  }
}

/**
 * A statement was sent to a transaction, or to a reserved session, that is over.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionClosed extends Data.TaggedError("TransactionClosed")<{
  readonly owner: "transaction" | "session"
}> {
  override get message(): string {
    return `The ${this.owner} of this fiber is over, so the statement was not sent. `
      + "Wait for the fibers forked inside before its body ends."
  }
}

/**
 * The body succeeded after it caught the failure of a statement. Postgres rolled the whole transaction back.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionAborted extends Data.TaggedError("TransactionAborted") {
  override get message(): string {
    return "A statement of this transaction had failed, so nothing was committed. "
      + "To go on after a failed statement, run it in a nested `withTransaction`."
  }
}

/**
 * The connection was lost while COMMIT was under way, so it may or may not have taken effect. Look before you retry.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionOutcomeUnknown extends Data.TaggedError("TransactionOutcomeUnknown")<{
  readonly reason: string
}> {
  override get message(): string {
    return `The connection was lost during COMMIT (${this.reason}): it may or may not have taken effect. `
      + "Look for its result before you try again."
  }
}

/**
 * A statement had to wait for a nested transaction, and nothing ran on the session meanwhile.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionStuck extends Data.TaggedError("TransactionStuck")<{
  readonly waited: Duration.Duration
}> {
  override get message(): string {
    const waited = Duration.format(this.waited)
    return `A nested transaction kept the session for ${waited} without running a statement, and this statement waited for it. `
      + "Probably it waits for this fiber. Do not wait inside a nested transaction for a fiber of the outer one."
  }
}

/**
 * The session serves a stream or a COPY alone. To wait for its end could be to wait for itself.
 *
 * @category errors
 * @since 0.1.0
 */
export class SessionBusy extends Data.TaggedError("SessionBusy")<{
  readonly keeper: "stream" | "copy"
}> {
  override get message(): string {
    return this.keeper === "stream"
      ? "A stream of this reserved session is being read, so it can run no other statement. "
        + "Read the stream in a transaction: there other statements run between two fetches."
      : "A COPY is under way on this session, and the statement would wait for its end. "
        + "Run it before or after the COPY, or outside of the transaction."
  }
}

/**
 * A client of another database was used inside a transaction, where `@effect/sql` gives it the session of the transaction.
 *
 * @category errors
 * @since 0.1.0
 */
export class ForeignStatement extends Data.TaggedError("ForeignStatement") {
  override get message(): string {
    return "A client of another database was used inside a transaction of this one, so the statement was not sent. "
      + "Use it outside of the transaction, or make it with `holdfast/Postgres` too."
  }
}

/**
 * The `cause` of a `SqlError` that is not the server's own `pg.DatabaseError`.
 *
 * @category errors
 * @since 0.1.0
 */
export type Cause = InstanceType<typeof causeClasses[number]>

const causeClasses = [
  PostgresTimeout,
  PostgresExhausted,
  PostgresClosed,
  ConnectionLost,
  TransactionClosed,
  TransactionAborted,
  TransactionOutcomeUnknown,
  TransactionStuck,
  SessionBusy,
  ForeignStatement
] as const

const hints: Readonly<Record<string, string>> = {
  ECONNREFUSED: "Check that the server runs and that the port is right.",
  ENOENT: "No server has its socket in that directory.",
  ENOTFOUND: "The host name is not known here.",
  EAI_AGAIN: "The host name is not known here.",
  "28P01": "Check the user and the password.",
  "28000": "Check the user and the password.",
  "3D000": "Create the database, or name another one.",
  "53300": "The server has no connection to spare; lower `max` here or in other programs."
}

const hintFor = (code: string, reason: string): string =>
  hints[code] ?? (reason.includes("password must be a string")
    ? "The server asks for a password and none was given."
    : "Check the host, the port and the server's log.")

export const codeOf = (cause: unknown): string | undefined =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined

export const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)

/** Whether the server ends the session with this SQLSTATE. */
const endsSession = (state: string): boolean => state.startsWith("08") || state.startsWith("57P")

/** Whether a concurrent transaction is the reason: serialization failure, deadlock. The whole transaction may be tried again. */
export const isConflict = (state: string): boolean => state === "40001" || state === "40P01"

export const messageOf = (cause: unknown): string => {
  if (cause instanceof AggregateError && cause.errors.length > 0) return messageOf(cause.errors[0])
  return printable(cause instanceof Error ? cause.message : String(cause))
}

export const failed = (cause: Cause): SqlError => new SqlError({ message: cause.message, cause })

/** For a statement that was not sent because the session is lost. */
export const unsent = ({ reason }: ConnectionLost): SqlError =>
  failed(new ConnectionLost({ reason, wasSent: false }))

export const isUnsent = ({ cause }: SqlError): boolean =>
  cause instanceof ConnectionLost && !cause.wasSent

/**
 * The SQLSTATE the server answered with (`"23505"`), if the error is one of the server's.
 *
 * @category getters
 * @since 0.1.0
 */
export const sqlState = (error: unknown): Option.Option<string> => {
  const code = error instanceof SqlError ? codeOf(error.cause) : codeOf(error)
  return code !== undefined && isSqlState(code) ? Option.some(code) : Option.none()
}

/**
 * The error of this module inside a `SqlError`; none for an answer of the server.
 *
 * @category getters
 * @since 0.1.0
 */
export const causeOf = (error: unknown): Option.Option<Cause> => {
  const cause = error instanceof SqlError ? error.cause : error
  return causeClasses.some((one) => cause instanceof one)
    ? Option.some(cause as Cause)
    : Option.none()
}

/**
 * Whether the error means that the session is gone (and a new one may well work).
 *
 * @category getters
 * @since 0.1.0
 */
export const isConnectionLost = (error: unknown): boolean =>
  Option.exists(sqlState(error), endsSession)
  || Option.exists(
    causeOf(error),
    (cause) => cause instanceof ConnectionLost || cause instanceof TransactionOutcomeUnknown
  )
