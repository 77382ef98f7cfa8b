/**
 * Postgres: a pool of Postgres sessions beneath `@effect/sql`, whose statements, transactions and waits can all be stopped.
 *
 * DESIGN. `SqlClient.make` keeps the statement builder, schemas, resolvers and models of `@effect/sql`; beneath it stand
 * bare `pg` clients and a pool of our own: a fair semaphore for the places, a stack of idle sessions. A statement is
 * cancelled by a CancelRequest on a socket of its own, so it needs no place in the pool. A lane is what a borrower gets: one
 * statement at a time, and dead when the loan ends. The pool judges a session by the protocol's own transaction status.
 *
 * INVARIANTS
 * - Postgres-1 Interrupting a statement returns within twice `cancelTimeout`, whatever the load of the pool.
 * - Postgres-2 A session is lent again only in status "I" with nothing running; one that was sent a cancel only if the
 *   server confirmed it (57014), since a late cancel would hit the next statement. All others are closed.
 * - Postgres-3 `active + idle <= max` at every instant; no interruption loses a place.
 * - Postgres-4 Waiting for a session is interruptible, FIFO, and ends by `acquireTimeout`.
 * - Postgres-5 A transaction commits only if its body succeeded and the server said COMMIT. All its errors are typed; an
 *   interrupt lets a COMMIT under way finish within its grace.
 * - Postgres-6 Statements of a transaction run one at a time, nested transactions too; a fiber that outlives its
 *   transaction gets `TransactionClosed`, never another's session.
 * - Postgres-7 Closing ends by `drain` and three times `cancelTimeout`, and leaves no session on the server.
 *
 * COST measured November 2026, two loaded cores, Unix socket, `select 1`: 136 µs a statement (sql-pg 141, bare pg 86), 71 µs
 * with 4 fibers on 4 sessions (105); with 32 fibers on 4 sessions 180 µs (98: there the line costs more than the query).
 * One round trip more after `reserve` and after a statement whose effect stays with the session (DISCARD ALL).
 * NOT DONE LISTEN; ageing and health checks; retry of 40001; cancel through TLS-only proxies (the session is then closed).
 * A transaction of one database does not keep apart the statements of another: `@effect/sql` has one tag for both.
 * SOURCES pgx (status check, own socket for cancel), asyncpg (deadlines for release and close), sqlx 4385, effect 8068.
 *
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { createRequire } from "node:module"
import * as net from "node:net"
import type { ConnectionOptions } from "node:tls"
import * as Pg from "pg"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"
import * as Embedded from "./Postgres/Embedded.ts"
import * as Semaphore from "./Semaphore.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Options and errors
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How the pool behaves. All of it is optional.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolOptions {
  /** Sessions at most. Default 10. */
  readonly max?: number | undefined
  /** For a connection to be ready for statements. Default 5 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** For waiting in line for a session. Default 30 seconds. */
  readonly acquireTimeout?: Duration.DurationInput | undefined
  /** For the server to confirm a cancel, a ROLLBACK or a goodbye before the socket is cut. Default 1 second. */
  readonly cancelTimeout?: Duration.DurationInput | undefined
  /** How long closing waits for borrowers before it cancels what they run. Default 500 milliseconds. */
  readonly drain?: Duration.DurationInput | undefined
  /** Shown in `pg_stat_activity`. Default `"holdfast"`. */
  readonly applicationName?: string | undefined
}

/**
 * Where the server is, and how the pool behaves. What is given by neither `url` nor a field is taken from the usual
 * environment variables (`PGHOST`, `PGUSER`, …). What `url` holds wins over the fields.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends PoolOptions {
  /** `postgres://user:password@host:port/database?sslmode=require`, or `postgres:///database?host=/socket/directory`. */
  readonly url?: string | Redacted.Redacted | undefined
  /** A name, an address, or the directory of a Unix socket. */
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly user?: string | undefined
  readonly password?: string | Redacted.Redacted | undefined
  readonly database?: string | undefined
  readonly ssl?: boolean | ConnectionOptions | undefined
}

/**
 * The pool at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly max: number
  /** Lent out, or being opened for somebody. */
  readonly active: number
  readonly idle: number
  readonly waiting: number
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
 * Nobody gave a session back in time.
 *
 * @category errors
 * @since 0.1.0
 */
export class AcquireTimeout extends Data.TaggedError("AcquireTimeout")<{
  readonly waited: Duration.Duration
  readonly stats: Stats
}> {
  override get message(): string {
    const { active, max, waiting } = this.stats
    return `No Postgres session within ${
      Duration.format(this.waited)
    }: ${active} of ${max} in use, ${waiting} waiting. `
      + "Raise `max` or `acquireTimeout`, or look for transactions that wait for something else."
  }
}

/**
 * The pool is closed or closing.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolClosed
  extends Data.TaggedError("PoolClosed")<{ readonly applicationName: string }>
{
  override get message(): string {
    return `The Postgres pool "${this.applicationName}" is closed. Its layer's scope has ended before its users did.`
  }
}

/**
 * The session ended under its user: the server or the network went away, or the pool cut it.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionLost
  extends Data.TaggedError("ConnectionLost")<{ readonly reason: string }>
{
  override get message(): string {
    return `The Postgres connection was lost: ${this.reason}. Statements not confirmed may or may not have run.`
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
 * The body succeeded, but a statement in it had failed and the failure was caught: Postgres rolled all of it back.
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
 * The connection was lost while COMMIT was under way: nobody here knows whether it took effect. Never retry blindly.
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
 * What may stand as the `cause` of a `SqlError`, beside the server's own `pg.DatabaseError`.
 *
 * @category errors
 * @since 0.1.0
 */
export type Cause =
  | AcquireTimeout
  | PoolClosed
  | ConnectionLost
  | TransactionClosed
  | TransactionAborted
  | TransactionOutcomeUnknown

const causeClasses = [
  AcquireTimeout,
  PoolClosed,
  ConnectionLost,
  TransactionClosed,
  TransactionAborted,
  TransactionOutcomeUnknown
]

const hintFor = (code: string, reason: string): string => {
  switch (code) {
    case "ECONNREFUSED":
      return "Is the server running, and is the port right?"
    case "ENOENT":
      return "No server has its socket in that directory."
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "The host name is not known here."
    case "28P01":
    case "28000":
      return "Check the user and the password."
    case "3D000":
      return "Create the database, or name another one."
    case "53300":
      return "The server has no connection to spare; lower `max` here or in other programs."
    default:
      return reason.includes("password must be a string")
        ? "The server asks for a password and none was given."
        : "Check the host, the port and the server's log."
  }
}

const codeOf = (cause: unknown): string | undefined =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined

const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)

/** Classes of SQLSTATE by which the server says that it ends the session. */
const endsSession = (state: string): boolean => state.startsWith("08") || state.startsWith("57P")

const messageOf = (cause: unknown): string => {
  if (cause instanceof AggregateError && cause.errors.length > 0) return messageOf(cause.errors[0])
  return cause instanceof Error ? cause.message : String(cause)
}

const failed = (cause: Cause): SqlError => new SqlError({ message: cause.message, cause })

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
 * What this module has to say about a `SqlError`, if it is not the server's own answer.
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

// ---------------------------------------------------------------------------------------------------------------------
// Deadlines
// ---------------------------------------------------------------------------------------------------------------------

/** The timers of waits under way; to interrupt one is to end its wait. */
type Timers = Set<Fiber.RuntimeFiber<void>>

/**
 * The exit of `work`, or none when `duration` has passed or somebody interrupted the timer. Both run as daemons that are
 * only observed, so the answer comes in time even in a fiber that is interrupted already.
 */
const within = <A, E, R>(
  work: Effect.Effect<A, E, R>,
  duration: Duration.Duration,
  timers?: Timers
): Effect.Effect<Option.Option<Exit.Exit<A, E>>, never, R> =>
  // MASK: both fibers are known to the ensuring before anything can cut it; the wait is restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDaemon(Effect.interruptible(work)), (working) =>
      Effect.flatMap(Effect.forkDaemon(Effect.interruptible(Effect.sleep(duration))), (timer) => {
        timers?.add(timer)
        const observed = Effect.async<Option.Option<Exit.Exit<A, E>>>((resume) => {
          working.addObserver((exit) =>
            resume(Effect.succeed(Option.some(exit)))
          )
          timer.addObserver(() => resume(Effect.succeed(Option.none())))
        })
        return Effect.ensuring(
          restore(observed),
          Effect.sync(() => {
            timers?.delete(timer)
            working.unsafeInterruptAsFork(timer.id())
            timer.unsafeInterruptAsFork(timer.id())
          })
        )
      }))
  )

// ---------------------------------------------------------------------------------------------------------------------
// Session: one connection to the server
// ---------------------------------------------------------------------------------------------------------------------

interface Settings {
  readonly client: Pg.ClientConfig
  readonly address: {
    readonly host: string
    readonly port: number
    readonly user: string
    readonly database: string
  }
  readonly applicationName: string
  readonly max: number
  readonly connectTimeout: Duration.Duration
  readonly acquireTimeout: Duration.Duration
  readonly cancelTimeout: Duration.Duration
  readonly drain: Duration.Duration
}

/** `pg-cursor` comes with `@effect/sql-pg`; this is the part of it that we use. */
interface Cursor extends Pg.Submittable {
  readonly read: (
    rows: number,
    callback: (error: Error | undefined | null, rows: ReadonlyArray<object>) => void
  ) => void
  readonly close: (callback: () => void) => void
}

const Cursor: new(sql: string, values: ReadonlyArray<unknown>) => Cursor = createRequire(
  createRequire(import.meta.url).resolve("@effect/sql-pg")
)("pg-cursor")

/** A stream of rows under way. Guarded by the single thread. */
interface Portal {
  readonly cursor: Cursor
  isOver: boolean
}

/** What pg's typings leave out. */
type Keys = { readonly processID: number; readonly secretKey: number }

interface Result {
  readonly command?: string
  readonly rows?: ReadonlyArray<object>
}

/** Commands whose effect stays with the session; it is wiped before the next user gets it. */
const staying = new Set(["SET", "LISTEN", "PREPARE", "DECLARE", "LOAD"])

const resultsOf = (result: Result | ReadonlyArray<Result>): ReadonlyArray<Result> =>
  Array.isArray(result) ? result : [result as Result]

/** Milliseconds in which a statement may end by itself before a cancel is sent, which might cost the session. */
const briefly = 10

/** An answer that is awaited from the server. Guarded by the single thread. */
class Pending {
  settled = false
  isCancelled = false
  error: unknown = undefined
  readonly waiting: Array<() => void> = []

  settle(error: unknown): void {
    this.settled = true
    this.error = error
    for (const wake of this.waiting) wake()
  }

  get awaited(): Effect.Effect<void> {
    return Effect.async((resume) => {
      if (this.settled) resume(Effect.void)
      else this.waiting.push(() => resume(Effect.void))
    })
  }

  /** In real time: no test should have to move its clock for an interrupt to be seen. */
  get awaitedBriefly(): Effect.Effect<void> {
    return Effect.async((resume) => {
      const timer = setTimeout(() => resume(Effect.void), briefly)
      this.waiting.push(() => {
        clearTimeout(timer)
        resume(Effect.void)
      })
    })
  }
}

class Session {
  readonly client: Pg.Client
  readonly settings: Settings
  readonly ended: Deferred.Deferred<ConnectionLost>
  // All guarded by the single thread; written only by this class and the pool.
  lost: ConnectionLost | undefined = undefined
  pending: Pending | undefined = undefined
  portal: Portal | undefined = undefined
  /** A cancel was sent and not confirmed: it may still hit whatever runs next. */
  isTainted = false
  isDirty = false
  isEnding = false

  constructor(client: Pg.Client, settings: Settings, ended: Deferred.Deferred<ConnectionLost>) {
    this.client = client
    this.settings = settings
    this.ended = ended
    client.on("error", (cause) => this.lose(messageOf(cause)))
    client.on("end", () => {
      this.lose("it was closed")
      Deferred.unsafeDone(
        ended,
        Exit.succeed(this.lost ?? new ConnectionLost({ reason: "closed" }))
      )
    })
  }

  lose(reason: string): void {
    this.lost ??= new ConnectionLost({ reason })
  }

  /** Cuts the socket. The server rolls back and frees all that the session held. */
  cut(reason: string): void {
    this.lose(reason)
    this.client.connection.stream.destroy()
  }

  get processId(): number {
    return (this.client as unknown as Keys).processID
  }

  get status(): string | null {
    return this.client.getTransactionStatus()
  }

  errorFrom(cause: unknown): SqlError {
    const code = codeOf(cause)
    const isAnswer = code !== undefined && isSqlState(code)
    return isAnswer || this.lost === undefined
      ? new SqlError({ message: `Failed to execute statement: ${messageOf(cause)}`, cause })
      : failed(this.lost)
  }

  /** The 16 bytes of a CancelRequest, on a socket of their own; the server closes it when it has sent the signal. */
  readonly cancelRequest: Effect.Effect<void> = Effect.async((resume) => {
    const { processID, secretKey } = this.client as unknown as Keys
    const request = Buffer.alloc(16)
    request.writeInt32BE(16, 0)
    request.writeInt32BE(80877102, 4)
    request.writeInt32BE(processID, 8)
    request.writeInt32BE(secretKey, 12)
    const { host, port } = this.settings.address
    const socket = host.startsWith("/")
      ? net.connect(`${host}/.s.PGSQL.${port}`)
      : net.connect(port, host)
    socket.once("connect", () => socket.write(request))
    socket.on("error", () => {})
    // Read, or the end of the stream is never seen.
    socket.resume()
    socket.once("close", () => resume(Effect.void))
    return Effect.sync(() => socket.destroy())
  })

  /** Cancels what runs and waits until it has stopped, or cuts the socket (Postgres-1). */
  stop(pending: Pending): Effect.Effect<void> {
    return Effect.suspend(() =>
      pending.settled
        ? Effect.void
        : Effect.zipRight(pending.awaitedBriefly, this.cancel(pending))
    )
  }

  cancel(pending: Pending): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { cancelTimeout } = this.settings
      if (pending.settled) return Effect.void
      // One cancel a statement: a second one could arrive after the first was confirmed.
      if (pending.isCancelled) {
        return Effect.asVoid(within(pending.awaited, Duration.times(cancelTimeout, 2)))
      }
      pending.isCancelled = true
      this.isTainted = true
      return within(this.cancelRequest, cancelTimeout).pipe(
        Effect.zipRight(within(pending.awaited, cancelTimeout)),
        Effect.map(() => {
          if (!pending.settled) this.cut("the server did not confirm a cancel")
          // Only this answer says that the cancel has arrived and is spent (Postgres-2).
          else if (codeOf(pending.error) === "57014") this.isTainted = false
        })
      )
    })
  }

  /** Lets what runs finish within the grace of an interrupted COMMIT, or cuts the socket. */
  finish(pending: Pending): Effect.Effect<void> {
    return Effect.map(
      within(pending.awaited, Duration.times(this.settings.cancelTimeout, 2)),
      () => {
        if (!pending.settled) this.cut("the server did not answer a COMMIT in time")
      }
    )
  }

  get stopRunning(): Effect.Effect<void> {
    return Effect.suspend(() => this.pending === undefined ? Effect.void : this.stop(this.pending))
  }

  query(
    config: Pg.QueryConfig | Pg.QueryArrayConfig,
    whenInterrupted: "stop" | "finish" = "stop"
  ): Effect.Effect<Result | ReadonlyArray<Result>, SqlError> {
    return Effect.async((resume) => {
      if (this.lost !== undefined) return resume(Effect.fail(failed(this.lost)))
      const pending = new Pending()
      this.pending = pending
      const settle = (error: unknown, result: Result | ReadonlyArray<Result>): void => {
        if (pending.settled) return
        if (this.pending === pending) this.pending = undefined
        pending.settle(error)
        if (error !== undefined && error !== null) return resume(Effect.fail(this.errorFrom(error)))
        if (resultsOf(result).some((one) => staying.has(one.command ?? ""))) this.isDirty = true
        resume(Effect.succeed(result))
      }
      try {
        this.client.query(config, settle)
      } catch (cause) {
        settle(cause, [])
      }
      return whenInterrupted === "stop" ? this.stop(pending) : this.finish(pending)
    })
  }

  text(sql: string): Effect.Effect<void, SqlError> {
    return Effect.asVoid(this.query({ text: sql }))
  }

  /** A statement of ours that must be answered in time, or the socket is cut. True if it succeeded. */
  promptly(sql: string): Effect.Effect<boolean> {
    return Effect.map(within(this.text(sql), this.settings.cancelTimeout), (answer) => {
      if (Option.isNone(answer)) this.cut(`the server did not answer "${sql}" in time`)
      return Option.isSome(answer) && Exit.isSuccess(answer.value)
    })
  }

  stream(sql: string, values: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(Effect.map(
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (this.lost !== undefined) return Effect.fail(failed(this.lost))
          const cursor = this.client.query(new Cursor(sql, values))
          this.portal = { cursor, isOver: false }
          return Effect.succeed(this.portal)
        }),
        (portal) => this.closePortal(portal)
      ),
      (portal) => Stream.repeatEffectChunkOption(this.read(portal))
    ))
  }

  read(portal: Portal): Effect.Effect<Chunk.Chunk<object>, Option.Option<SqlError>> {
    return Effect.async((resume) => {
      const pending = new Pending()
      this.pending = pending
      portal.cursor.read(128, (error, rows) => {
        if (pending.settled) return
        if (this.pending === pending) this.pending = undefined
        pending.settle(error)
        if (error) return resume(Effect.fail(Option.some(this.errorFrom(error))))
        if (rows.length > 0) return resume(Effect.succeed(Chunk.unsafeFromArray(rows)))
        portal.isOver = true
        resume(Effect.fail(Option.none()))
      })
      return this.stop(pending)
    })
  }

  /**
   * Closed once, by the stream or, if that is late, by whoever cleans the session. A portal that was read to its end has
   * closed itself; else the answer to the next statement tells that the session is free again.
   */
  closePortal(portal: Portal): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.portal !== portal) return Effect.void
      this.portal = undefined
      if (portal.isOver || this.lost !== undefined) return Effect.void
      portal.cursor.close(() => {})
      return this.promptly("")
    })
  }

  get isFit(): boolean {
    return this.lost === undefined && this.status === "I" && !this.isTainted && !this.isDirty
      && this.pending === undefined && this.portal === undefined
  }

  /** Makes it fit for the next user, or cuts it (Postgres-2). Bounded. */
  readonly clean: Effect.Effect<void> = Effect.gen(this, function*() {
    yield* this.stopRunning
    if (this.portal !== undefined) yield* this.closePortal(this.portal)
    if (this.lost === undefined && this.status !== "I") yield* this.promptly("ROLLBACK")
    if (this.lost === undefined && this.isDirty) {
      this.isDirty = !(yield* this.promptly("DISCARD ALL"))
    }
    if (!this.isFit) this.cut("it was not fit for another user")
  })

  unsafeEnd(): void {
    if (this.isEnding) return
    this.isEnding = true
    if (this.lost === undefined) this.client.end(() => {})
    else this.client.connection.stream.destroy()
  }

  /** Says goodbye and waits until the socket has closed, or cuts it. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.unsafeEnd()
    return Effect.map(within(Deferred.await(this.ended), this.settings.cancelTimeout), (answer) => {
      if (Option.isNone(answer)) this.cut("the server did not close it in time")
    })
  })
}

/** Interruptible only where it waits; whatever was opened by then is cut. */
const connect = (
  settings: Settings,
  timers: Timers,
  restore: Managed.Restore
): Effect.Effect<Session, unknown> =>
  Effect.flatMap(Deferred.make<ConnectionLost>(), (ended) =>
    Effect.suspend(() => {
      const client = new Pg.Client(settings.client)
      const session = new Session(client, settings, ended)
      const connecting = Effect.async<void, unknown>((resume) => {
        client.connect((cause: Error | null | undefined) =>
          resume(cause ? Effect.fail(cause) : Effect.void)
        )
      })
      const late = new Error(`no answer within ${Duration.format(settings.connectTimeout)}`)
      return restore(within(connecting, settings.connectTimeout, timers)).pipe(
        Effect.flatMap(Option.getOrElse(() => Exit.fail<unknown>(late))),
        Effect.onError(() => Effect.sync(() => session.cut("it was not wanted any more"))),
        Effect.as(session)
      )
    }))

const managedSession = (settings: Settings, timers: Timers): Managed.Managed<Session, unknown> =>
  Managed.make({
    name: settings.applicationName,
    kind: "postgres connection",
    acquire: (restore) => connect(settings, timers, restore),
    release: (session) => session.close,
    releaseDeadline: Duration.times(settings.cancelTimeout, 3)
  })

// ---------------------------------------------------------------------------------------------------------------------
// Pool: who gets which session
// ---------------------------------------------------------------------------------------------------------------------

interface Place {
  readonly session: Session
  readonly scope: Scope.CloseableScope
}

class Pool {
  readonly settings: Settings
  readonly ledger: Ledger.Service | undefined
  readonly semaphore: Semaphore.Semaphore
  // All guarded by the single thread; written only by this class.
  readonly idle: Array<Place> = []
  readonly active = new Set<Place>()
  readonly connecting: Timers = new Set()
  readonly drained: Array<() => void> = []
  isClosed = false

  constructor(settings: Settings, ledger: Ledger.Service | undefined) {
    this.settings = settings
    this.ledger = ledger
    this.semaphore = Semaphore.unsafeMake(settings.max, { name: "postgres sessions" })
  }

  unsafeStats(): Stats {
    const { free, permits, waiting } = Semaphore.unsafeStats(this.semaphore)
    const idle = this.idle.filter((place) => place.session.lost === undefined).length
    return { max: this.settings.max, active: permits - free, idle, waiting }
  }

  closed(): SqlError {
    return failed(new PoolClosed({ applicationName: this.settings.applicationName }))
  }

  permit(restore: Managed.Restore): Effect.Effect<void, SqlError> {
    const { acquireTimeout } = this.settings
    return Semaphore.takeWithinInMask(
      this.semaphore,
      1,
      restore,
      acquireTimeout,
      () => failed(new AcquireTimeout({ waited: acquireTimeout, stats: this.unsafeStats() }))
    )
  }

  /** A session and a permit with it; both are the caller's to `giveBack`. Call it inside a mask. */
  take(restore: Managed.Restore): Effect.Effect<Place, SqlError> {
    return Effect.suspend(() =>
      this.isClosed
        ? Effect.fail(this.closed())
        : Effect.zipRight(
          this.permit(restore),
          Effect.onError(this.fill(restore), () =>
            Effect.sync(() => Semaphore.unsafeRelease(this.semaphore, 1)))
        )
    )
  }

  /** The session used last, if one is idle, else a new one. */
  fill(restore: Managed.Restore): Effect.Effect<Place, SqlError> {
    return Effect.suspend(() => {
      if (this.isClosed) return Effect.fail(this.closed())
      const place = this.idle.pop()
      if (place === undefined) return this.open(restore)
      if (place.session.lost !== undefined) {
        return Effect.zipRight(Scope.close(place.scope, Exit.void), this.fill(restore))
      }
      this.active.add(place)
      return Effect.succeed(place)
    })
  }

  open(restore: Managed.Restore): Effect.Effect<Place, SqlError> {
    const managed = Effect.provideService(
      managedSession(this.settings, this.connecting),
      Ledger.Ledger,
      this.ledger
    )
    return Effect.flatMap(Scope.make(), (scope) =>
      restore(Scope.extend(managed, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
        Effect.mapError((cause) =>
          this.isClosed
            ? this.closed()
            : new SqlError({ message: `Failed to connect: ${messageOf(cause)}`, cause })
        ),
        Effect.map((session) => {
          const place = { session, scope }
          this.active.add(place)
          return place
        })
      ))
  }

  giveBack(place: Place): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (place.session.isFit && !this.isClosed) return Effect.sync(() => this.unsafePutBack(place))
      return place.session.clean.pipe(
        Effect.zipRight(
          Effect.suspend(() =>
            place.session.isFit && !this.isClosed
              ? Effect.void
              : Scope.close(place.scope, Exit.void)
          )
        ),
        Effect.ensuring(Effect.sync(() => this.unsafePutBack(place)))
      )
    })
  }

  unsafePutBack(place: Place): void {
    this.active.delete(place)
    if (place.session.isFit && !this.isClosed) this.idle.push(place)
    Semaphore.unsafeRelease(this.semaphore, 1)
    if (this.active.size === 0) { for (const wake of this.drained) wake() }
  }

  /** Until nobody holds a session, or until `duration` has passed. */
  drainFor(duration: Duration.Duration): Effect.Effect<unknown> {
    return within(
      Effect.async<void>((resume) => {
        if (this.active.size === 0) resume(Effect.void)
        else this.drained.push(() => resume(Effect.void))
      }),
      duration
    )
  }

  /** Refuses, drains, cancels, cuts (Postgres-7). */
  readonly close: Effect.Effect<void> = Effect.gen(this, function*() {
    this.isClosed = true
    // Who waits in line gets a permit and finds the pool closed; who waits for a connection, that its time is over.
    const { permits, waiting } = Semaphore.unsafeStats(this.semaphore)
    yield* Semaphore.resize(this.semaphore, permits + waiting)
    for (const timer of this.connecting) timer.unsafeInterruptAsFork(timer.id())
    for (const { session } of this.idle) session.unsafeEnd()
    yield* this.drainFor(this.settings.drain)
    for (const { session } of this.active) yield* Effect.forkDaemon(session.stopRunning)
    if (this.active.size > 0) yield* this.drainFor(this.settings.cancelTimeout)
    for (const { session } of this.active) session.cut("the pool was closed")
    const left = [...this.idle, ...this.active]
    const allEnded = Effect.forEach(left, (place) => Deferred.await(place.session.ended), {
      discard: true
    })
    yield* within(allEnded, this.settings.cancelTimeout)
    for (const { session } of left) session.cut("the server did not close it in time")
    for (const { scope } of left) yield* Scope.close(scope, Exit.void)
  })
}

const managedPool = (
  settings: Settings,
  ledger: Ledger.Service | undefined
): Managed.Managed<Pool> =>
  Managed.make({
    name: settings.applicationName,
    kind: "postgres pool",
    acquire: Effect.sync(() => new Pool(settings, ledger)),
    release: (pool) => pool.close,
    releaseDeadline: Duration.sum(settings.drain, Duration.times(settings.cancelTimeout, 5))
  })

// ---------------------------------------------------------------------------------------------------------------------
// Lane: what a borrower may do with a session, and for how long
// ---------------------------------------------------------------------------------------------------------------------

type TransformRows = Parameters<Connection["execute"]>[2]

type Config = Pg.QueryConfig | Pg.QueryArrayConfig

/** The faces `@effect/sql` asks for, over two ways to get an answer. */
abstract class Statements implements Connection {
  abstract run(config: Config): Effect.Effect<Result | ReadonlyArray<Result>, SqlError>
  abstract rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError>

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Effect.map(this.run({ text: sql, values: [...params] }), (result) => {
      // several statements in one text give several results
      const rows = Array.isArray(result)
        ? result.map((one: Result) => one.rows ?? [])
        : (result as Result).rows ?? []
      return transformRows === undefined ? rows : transformRows(rows)
    })
  }

  executeRaw(sql: string, params: ReadonlyArray<unknown>) {
    return this.run({ text: sql, values: [...params] })
  }

  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return Effect.map(
      this.run({ text: sql, values: [...params], rowMode: "array" }),
      (result) => (result as { readonly rows: ReadonlyArray<ReadonlyArray<unknown>> }).rows
    )
  }

  executeUnprepared(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.execute(sql, params, transformRows)
  }

  executeStream(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    const rows = this.rows(sql, params)
    return transformRows === undefined
      ? rows
      : Stream.mapChunks(
        rows,
        (chunk) => Chunk.unsafeFromArray(transformRows(Chunk.toReadonlyArray(chunk)))
      )
  }
}

/** Statements on their own: each takes a session for itself and gives it back when it is answered. */
class Single extends Statements {
  readonly pool: Pool

  constructor(pool: Pool) {
    super()
    this.pool = pool
  }

  override run(config: Config): Effect.Effect<Result | ReadonlyArray<Result>, SqlError> {
    // MASK: from the session taken to the session given back; waiting, connecting and the statement are restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        this.pool.take(restore),
        (place) =>
          Effect.matchCauseEffect(restore(place.session.query(config)), {
            onFailure: (cause) =>
              Effect.zipRight(this.pool.giveBack(place), Effect.failCause(cause)),
            onSuccess: (result) => Effect.as(this.pool.giveBack(place), result)
          })
      )
    )
  }

  override rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(
      Effect.map(borrow(this.pool, false), (lane) => lane.rows(sql, params))
    )
  }
}

/** A session on loan: one statement at a time, and none when the loan is over (Postgres-6). */
class Lane extends Statements {
  readonly pool: Pool
  readonly session: Session
  readonly owner: "transaction" | "session"
  readonly lock = Semaphore.unsafeMake(1, { name: "postgres statements" })
  /** Guarded by the single thread; closed once, by its owner. */
  isOpen = true

  constructor(pool: Pool, session: Session, owner: "transaction" | "session") {
    super()
    this.pool = pool
    this.session = session
    this.owner = owner
  }

  get ifOpen(): Effect.Effect<void, SqlError> {
    return Effect.suspend(() =>
      this.isOpen ? Effect.void : Effect.fail(failed(new TransactionClosed({ owner: this.owner })))
    )
  }

  override run(config: Config): Effect.Effect<Result | ReadonlyArray<Result>, SqlError> {
    return Semaphore.withPermit(this.lock)(Effect.zipRight(this.ifOpen, this.session.query(config)))
  }

  override rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    // MASK: from the permit to its registration; the wait is restored.
    const turn = Effect.uninterruptibleMask((restore) =>
      Effect.zipRight(
        Semaphore.takeInMask(this.lock, 1, restore),
        Effect.addFinalizer(() => Effect.sync(() => Semaphore.unsafeRelease(this.lock, 1)))
      )
    )
    return Stream.unwrapScoped(
      Effect.as(Effect.zipRight(turn, this.ifOpen), this.session.stream(sql, params))
    )
  }

  /** Closed to newcomers; returns when the statement under way, of whatever fiber, has ended. */
  settle(restore: Managed.Restore): Effect.Effect<void> {
    this.isOpen = false
    return Effect.map(
      Semaphore.takeInMask(this.lock, 1, restore),
      // Given on at once: those in line learn that the lane is closed.
      () => Semaphore.unsafeRelease(this.lock, 1)
    )
  }

  /** Closed to newcomers; what is under way is cancelled. */
  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isOpen = false
      return this.session.stopRunning
    })
  }
}

/** A session lent to the current scope. */
const borrow = (pool: Pool, isExclusive: boolean): Effect.Effect<Lane, SqlError, Scope.Scope> =>
  // MASK: taking and registering are one step; waiting and connecting are restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(pool.take(restore), (place) => {
      const lane = new Lane(pool, place.session, "session")
      // Whatever its holder does to the session (locks, settings, temporary tables) ends with the loan.
      if (isExclusive) place.session.isDirty = true
      return Effect.as(
        Effect.addFinalizer(() => Effect.zipRight(lane.abort, pool.giveBack(place))),
        lane
      )
    })
  )

// ---------------------------------------------------------------------------------------------------------------------
// Transactions
// ---------------------------------------------------------------------------------------------------------------------

interface Step<A, E, R> {
  readonly lane: Lane
  readonly restore: Managed.Restore
  readonly body: Effect.Effect<A, E, R>
  readonly begin: string
  readonly commit: Effect.Effect<void, SqlError>
  readonly rollback: string
}

/** Begin, body, and then either all of it or nothing. Runs inside a mask; begin, body and commit are restored. */
const runStep = <A, E, R>(step: Step<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
  Effect.gen(function*() {
    const { lane, restore } = step
    const undo = Effect.zipRight(
      lane.abort,
      Effect.suspend(() =>
        lane.session.lost === undefined ? lane.session.promptly(step.rollback) : Effect.void
      )
    )
    yield* restore(lane.session.text(step.begin))
    const exit = yield* Effect.exit(restore(step.body))
    if (Exit.isFailure(exit)) {
      yield* undo
      return yield* exit
    }
    yield* Effect.onError(lane.settle(restore), () => undo)
    yield* restore(step.commit)
    return exit.value
  })

const commitTransaction = (session: Session): Effect.Effect<void, SqlError> =>
  Effect.suspend(() => {
    // Nothing was sent yet, so nothing can have been committed.
    if (session.lost !== undefined) return Effect.fail(failed(session.lost))
    return session.query({ text: "COMMIT" }, "finish").pipe(
      Effect.catchAll((error) =>
        isConnectionLost(error)
          ? Effect.fail(failed(new TransactionOutcomeUnknown({ reason: error.message })))
          : Effect.fail(error)
      ),
      // COMMIT of a failed transaction is answered "ROLLBACK", without an error.
      Effect.flatMap((result) =>
        resultsOf(result).some((one) => one.command === "ROLLBACK")
          ? Effect.fail(failed(new TransactionAborted()))
          : Effect.void
      )
    )
  })

const releaseSavepoint = (session: Session, name: string): Effect.Effect<void, SqlError> =>
  Effect.catchAll(session.text(`RELEASE SAVEPOINT ${name}`), (error) =>
    // 25P02: a statement of the body had failed. Undone here, so that the outer transaction can go on.
    Option.contains(sqlState(error), "25P02")
      ? Effect.zipRight(
        session.promptly(`ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`),
        Effect.fail(failed(new TransactionAborted()))
      )
      : Effect.fail(error))

type Body<A, E, R> = (lane: Lane, depth: number) => Effect.Effect<A, E, R>

const outermost = <A, E, R>(
  pool: Pool,
  restore: Managed.Restore,
  body: Body<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.flatMap(pool.take(restore), (place) => {
    const lane = new Lane(pool, place.session, "transaction")
    return Effect.ensuring(
      runStep({
        lane,
        restore,
        body: body(lane, 0),
        begin: "BEGIN",
        commit: commitTransaction(place.session),
        rollback: "ROLLBACK"
      }),
      pool.giveBack(place)
    )
  })

/** Holds the turn of the transaction around it, so siblings come one after the other. */
const nested = <A, E, R>(
  parent: Lane,
  depth: number,
  restore: Managed.Restore,
  body: Body<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.zipRight(
    Semaphore.takeInMask(parent.lock, 1, restore),
    Effect.ensuring(
      Effect.zipRight(
        parent.ifOpen,
        Effect.suspend(() => {
          const lane = new Lane(parent.pool, parent.session, "transaction")
          const name = `hf_${depth}`
          return runStep({
            lane,
            restore,
            body: body(lane, depth),
            begin: `SAVEPOINT ${name}`,
            commit: releaseSavepoint(parent.session, name),
            rollback: `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`
          })
        })
      ),
      Effect.sync(() => Semaphore.unsafeRelease(parent.lock, 1))
    )
  )

const transactionOf = (pool: Pool): SqlClient.SqlClient["withTransaction"] => (effect) =>
  // MASK: between begin and commit or rollback nothing may be cut but what is restored: waiting, begin, body, commit.
  Effect.uninterruptibleMask((restore) =>
    Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
      Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (outer) => {
        const body = (lane: Lane, depth: number) =>
          effect.pipe(
            Effect.provideService(SqlClient.TransactionConnection, [lane, depth] as const),
            Effect.provideService(Tracer.ParentSpan, span)
          )
        const around = Option.getOrUndefined(outer)
        return around !== undefined && around[0] instanceof Lane && around[0].pool === pool
          ? nested(around[0], around[1] + 1, restore, body)
          : outermost(pool, restore, body)
      }))
  )

// ---------------------------------------------------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A session of one's own: for advisory locks, temporary tables, settings. It is wiped when it is given back.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReservedSession extends Connection {
  /** The server's process that serves this session. */
  readonly processId: number
  /** Waits until the session has ended, and says why. */
  readonly lost: Effect.Effect<ConnectionLost>
}

/**
 * What the pool offers beside the `SqlClient`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  readonly sql: SqlClient.SqlClient
  /** A session of one's own, until the scope ends. */
  readonly reserve: Effect.Effect<ReservedSession, SqlError, Scope.Scope>
  /** Exact at this instant. */
  readonly stats: Effect.Effect<Stats>
}

/**
 * The pool, as a service.
 *
 * @category tags
 * @since 0.1.0
 */
export class Postgres extends Context.Tag("holdfast/Postgres")<Postgres, Service>() {}

const clientConfig = (options: Options, applicationName: string): Pg.ClientConfig => ({
  connectionString: Redacted.isRedacted(options.url) ? Redacted.value(options.url) : options.url,
  host: options.host,
  port: options.port,
  user: options.user,
  password: Redacted.isRedacted(options.password)
    ? Redacted.value(options.password)
    : options.password,
  database: options.database,
  ssl: options.ssl,
  application_name: applicationName,
  keepAlive: true
})

const readSettings = (options: Options): Effect.Effect<Settings, InvalidUrl> =>
  Effect.suspend(() => {
    const applicationName = options.applicationName ?? "holdfast"
    const client = clientConfig(options, applicationName)
    const url = client.connectionString
    if (url !== undefined && !/^(postgres|postgresql):\/\//.test(url)) {
      return Effect.fail(
        new InvalidUrl({ reason: "it does not begin with postgres:// or postgresql://" })
      )
    }
    let parsed: Pg.Client
    try {
      parsed = new Pg.Client(client)
    } catch {
      // The parser's own message may quote the URL, password and all.
      return Effect.fail(new InvalidUrl({ reason: "its host, port or escapes are malformed" }))
    }
    const { database, host, port, user } = parsed
    return Effect.succeed({
      client,
      address: { host, port, user: user ?? "", database: database ?? user ?? "" },
      applicationName,
      max: options.max ?? 10,
      connectTimeout: Duration.decode(options.connectTimeout ?? "5 seconds"),
      acquireTimeout: Duration.decode(options.acquireTimeout ?? "30 seconds"),
      cancelTimeout: Duration.decode(options.cancelTimeout ?? "1 second"),
      drain: Duration.decode(options.drain ?? "500 millis")
    })
  })

const unavailable = (settings: Settings, error: SqlError): PostgresUnavailable => {
  const cause = error.cause instanceof AggregateError ? error.cause.errors[0] : error.cause
  return new PostgresUnavailable({
    ...settings.address,
    code: codeOf(cause) ?? "",
    reason: messageOf(cause)
  })
}

/** Opens the first session, so that a wrong address fails here and not at the first statement. */
const firstSession = (pool: Pool): Effect.Effect<void, SqlError> =>
  Effect.scoped(Effect.asVoid(borrow(pool, false)))

const makeService = (
  options: Options
): Effect.Effect<
  Service,
  PostgresUnavailable | InvalidUrl,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function*() {
    const settings = yield* readSettings(options)
    const pool = yield* managedPool(settings, yield* Ledger.Ledger)
    yield* Effect.mapError(firstSession(pool), (error) => unavailable(settings, error))
    const reserve = borrow(pool, true)
    const client = yield* SqlClient.make({
      acquirer: Effect.succeed(new Single(pool)),
      transactionAcquirer: reserve,
      compiler: PgClient.makeCompiler(),
      spanAttributes: [
        ["db.system.name", "postgresql"],
        ["db.namespace", settings.address.database],
        ["server.address", settings.address.host],
        ["server.port", settings.address.port]
      ]
    })
    return {
      sql: Object.assign(client, { withTransaction: transactionOf(pool) }),
      stats: Effect.sync(() => pool.unsafeStats()),
      reserve: Effect.map(reserve, (lane): ReservedSession =>
        Object.assign(lane, {
          processId: lane.session.processId,
          lost: Deferred.await(lane.session.ended)
        }))
    }
  })

/**
 * A pool in the current scope. The first session is opened at once.
 *
 * **Interruption** — Opening: the connection under way is cut. Waiting for a session: leaves the line. A statement: cancelled
 *   on the server, or its session is closed (Postgres-1). A transaction: rolled back; a COMMIT under way gets its grace.
 *   Holding: closing drains, cancels and cuts (Postgres-7).
 * **Errors** — `InvalidUrl` before anything is opened; `PostgresUnavailable` if the first session fails. Statements fail with
 *   `SqlError`: ask `sqlState`, `causeOf`, `isConnectionLost` what it was.
 * **Cost** — see the head of this file.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options = {}
): Effect.Effect<Service, PostgresUnavailable | InvalidUrl, Scope.Scope> =>
  Effect.provideServiceEffect(
    Ledger.withSite(makeService(options), Ledger.unsafeSite()),
    Reactivity.Reactivity,
    Reactivity.make
  )

const contextOf = (service: Service): Context.Context<Postgres | SqlClient.SqlClient> =>
  Context.make(Postgres, service).pipe(Context.add(SqlClient.SqlClient, service.sql))

/**
 * The pool as a layer: `SqlClient.SqlClient` for all of `@effect/sql`, and `Postgres` for what lies beneath.
 *
 * **Interruption** — as `make`. **Errors** — as `make`. **Cost** — as `make`.
 *
 * **Example** (the URL from the environment)
 * ```ts
 * import { Config, Effect, Layer } from "effect"
 * import * as Postgres from "holdfast/Postgres"
 *
 * export const live = Layer.unwrapEffect(
 *   Effect.map(Config.redacted("DATABASE_URL"), (url) => Postgres.layer({ url }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Postgres | SqlClient.SqlClient, PostgresUnavailable | InvalidUrl> =>
  Layer.provide(
    Layer.scopedContext(
      Effect.map(Ledger.withSite(makeService(options), Ledger.unsafeSite()), contextOf)
    ),
    Reactivity.layer
  )

/**
 * A pool on an embedded server that lives exactly as long; `server` is what `Embedded.make` takes.
 *
 * **Interruption** — as `Embedded.make` and `make`. **Errors** — of both. **Cost** — about 1 s to start.
 *
 * **Example** (all or nothing)
 * ```ts run
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import * as Postgres from "holdfast/Postgres"
 *
 * const adopt = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* sql`create table cats (name text)`
 *   yield* Effect.ignore(sql.withTransaction(Effect.zipRight(sql`insert into cats values ('Tom')`, Effect.fail("no"))))
 *   yield* sql.withTransaction(sql`insert into cats values ('Kit')`)
 *   return yield* sql<{ name: string }>`select name from cats`
 * })
 * const cats = await Effect.runPromise(Effect.provide(adopt, Postgres.layerEmbedded()))
 * cats // => [{ name: "Kit" }]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEmbedded = (
  options: PoolOptions & { readonly server?: Embedded.Options | undefined } = {}
): Layer.Layer<
  Postgres | SqlClient.SqlClient | Embedded.Embedded,
  PostgresUnavailable | InvalidUrl | Embedded.EmbeddedUnavailable | Embedded.EmbeddedFailed
> => {
  const made = Effect.gen(function*() {
    const server = yield* Embedded.make(options.server)
    const { database, host, port, user } = server
    const service = yield* makeService({ ...options, host, port, user, database })
    return Context.add(contextOf(service), Embedded.Embedded, server)
  })
  return Layer.provide(
    Layer.scopedContext(Ledger.withSite(made, Ledger.unsafeSite())),
    Reactivity.layer
  )
}
