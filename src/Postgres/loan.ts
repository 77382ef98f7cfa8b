/**
 * Postgres/loan: what runs on a session. `Single` takes one for each statement; `Loan` is a session that somebody keeps.
 *
 * DESIGN. A session runs one exchange at a time. A `Loan` has a fair lock for them, and each nested transaction is a `Loan` of its own,
 * which keeps the lock of its parent to its end. ../Postgres.ts has the invariants.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Managed from "../Managed.ts"
import * as Semaphore from "../Semaphore.ts"
import {
  failed,
  ForeignStatement,
  SessionBusy,
  TransactionClosed,
  TransactionStuck
} from "./errors.ts"
import type { SessionPool } from "./pool.ts"
import type { Result, Results, Session } from "./session.ts"
import { type Rows, rowsOf, type TransformRows, type Turn } from "./stream.ts"

/** A text of several statements gives several results. */
const rowsOfResults = (results: Results): ReadonlyArray<any> =>
  Array.isArray(results)
    ? results.map((one: Result) => one.rows ?? [])
    : (results as Result).rows ?? []

/** `@effect/sql`'s `Connection` over `run` and `rows`. */
export abstract class Statements implements Connection {
  /** `Session.query` when its turn has come. */
  abstract run<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    project: (results: Results) => A,
    rowMode?: "array"
  ): Effect.Effect<A, SqlError>
  /** What a stream reads, which ends with the scope. */
  abstract rows(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Effect.Effect<Rows, SqlError, Scope.Scope>

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    const rows = this.run(sql, params, rowsOfResults)
    return transformRows === undefined ? rows : Effect.map(rows, transformRows)
  }

  executeRaw(sql: string, params: ReadonlyArray<unknown>) {
    return this.run(sql, params, identity)
  }

  executeValues(sql: string, params: ReadonlyArray<unknown>) {
    return this.run(sql, params, rowsOfResults, "array")
  }

  executeUnprepared(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return this.execute(sql, params, transformRows)
  }

  executeStream(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Stream.fromChannel(Channel.unwrapScoped(this.rows(sql, params, transformRows)))
  }
}

/** Statements outside transactions: each takes a session and returns it with its answer. */
export class Single extends Statements {
  readonly pool: SessionPool

  constructor(pool: SessionPool) {
    super()
    this.pool = pool
  }

  override run<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    project: (results: Results) => A,
    rowMode?: "array"
  ): Effect.Effect<A, SqlError> {
    return this.pool.single((session) => session.query(sql, params, project, rowMode))
  }

  override rows(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Effect.flatMap(
      borrow(this.pool, false),
      (loan) => loan.rows(sql, params, transformRows)
    )
  }
}

/**
 * What `TransactionConnection` of `@effect/sql` holds inside a transaction. A client of this module finds its own transaction in it; a
 * client of another database, which would run its statements here, is refused.
 */
export class Inside implements Connection {
  readonly loan: Loan
  readonly outer: Inside | undefined

  constructor(loan: Loan, outer: Inside | undefined) {
    this.loan = loan
    this.outer = outer
  }

  readonly execute = (): Effect.Effect<never, SqlError> =>
    Effect.fail(failed(new ForeignStatement()))
  readonly executeRaw = this.execute
  readonly executeValues = this.execute
  readonly executeUnprepared = this.execute
  readonly executeStream = (): Stream.Stream<never, SqlError> => Stream.fromEffect(this.execute())
}

/**
 * How a transaction runs. The server's defaults hold for what is not given.
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionOptions {
  readonly isolation?: "read committed" | "repeatable read" | "serializable" | undefined
  readonly readOnly?: boolean | undefined
  /** With `readOnly` and `"serializable"`: waits until it can neither fail nor disturb others. */
  readonly deferrable?: boolean | undefined
  /**
   * Runs the whole body again, in a new transaction, after a serialization failure (40001) or a deadlock (40P01): so many times at
   * most, after short random pauses, or as the schedule says. Never when the outcome is unknown. Default: not at all.
   */
  readonly retry?: number | Schedule.Schedule<unknown, unknown> | undefined
}

/** What runs when a transaction has ended. `around` is the transaction that it runs in. */
export interface Hook {
  readonly on: "commit" | "rollback"
  readonly run: (around: Inside | undefined) => Effect.Effect<void>
}

/** The innermost of our transactions around a fiber, whichever its database is. */
export const insideOf = (context: Context.Context<never>): Inside | undefined => {
  const [connection] = Context.getOrElse(
    context as Context.Context<SqlClient.TransactionConnection>,
    SqlClient.TransactionConnection,
    () => []
  )
  return connection instanceof Inside ? connection : undefined
}

/** The innermost transaction of a pool around a fiber. */
export const loanOf = (context: Context.Context<never>, pool: SessionPool): Loan | undefined => {
  let inside = insideOf(context)
  while (inside !== undefined && inside.loan.pool !== pool) inside = inside.outer
  return inside?.loan
}

/** The nested transaction of this fiber that keeps the lock of `loan`, or `loan` itself. */
const innermost = (context: Context.Context<never>, loan: Loan): Loan => {
  const inner = loanOf(context, loan.pool)
  for (let one = inner; one !== undefined && one.isOpen; one = one.parent) {
    if (one === loan) return inner ?? loan
  }
  return loan
}

/** `acquireTimeout`, or 30 seconds if the pool has no bound: there waiting may end, here it would not. */
const patienceOf = ({ settings }: SessionPool): Duration.Duration => {
  const bound = Duration.decode(settings.pool.acquireTimeout ?? 0)
  return Duration.toMillis(bound) === 0 ? Duration.seconds(30) : bound
}

/** A session that somebody keeps: one exchange at a time, and none when the loan is over (Postgres-6). */
export class Loan extends Statements {
  readonly pool: SessionPool
  readonly session: Session
  readonly owner: "transaction" | "session"
  /** The transaction around a nested one. */
  readonly parent: Loan | undefined
  readonly depth: number
  readonly lock = Semaphore.unsafeMake(1, { name: "postgres statements" })
  /** Set to false once, by the owner of the loan. */
  isOpen = true
  /** Refuses what would wait for itself. Written by this class and copy.ts. */
  keeper: "stream" | "copy" | undefined = undefined
  // The fields below are written by transaction.ts.
  options: TransactionOptions = {}
  readonly hooks: Array<Hook> = []

  constructor(
    pool: SessionPool,
    session: Session,
    owner: "transaction" | "session",
    parent: Loan | undefined
  ) {
    super()
    this.pool = pool
    this.session = session
    this.owner = owner
    this.parent = parent
    this.depth = parent === undefined ? 0 : parent.depth + 1
  }

  get ifOpen(): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => this.isOpen ? Effect.void : this.closed)
  }

  get closed(): Effect.Effect<never, SqlError> {
    return Effect.fail(failed(new TransactionClosed({ owner: this.owner })))
  }

  /** Waits for the lock, which `unsafeRelease` returns. Called inside a mask. */
  take(restore: Managed.Restore): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      const { keeper, session } = this
      if (keeper !== undefined) return Effect.fail(failed(new SessionBusy({ keeper })))
      const waited = patienceOf(this.pool)
      const { exchanges } = session
      const isIdle = () => session.pending === undefined && session.exchanges === exchanges
      return Effect.catchAll(
        Semaphore.takeInMask(this.lock, 1, restore, { acquireTimeout: waited }),
        // Only a nested transaction keeps the lock while nothing runs.
        () =>
          isIdle()
            ? Effect.fail(failed(new TransactionStuck({ waited })))
            : this.take(restore)
      )
    })
  }

  unsafeRelease(): void {
    Semaphore.unsafeRelease(this.lock, 1)
  }

  /** One exchange with the server, when its turn has come. */
  turn<A, E, R>(
    exchange: (restore: Managed.Restore) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | SqlError, R> {
    // MASK: between the lock and its release; the wait is restored, and `exchange` restores its own.
    return Effect.uninterruptibleMask((restore) => {
      const open = Effect.suspend((): Effect.Effect<A, E | SqlError, R> =>
        this.isOpen ? exchange(restore) : this.closed
      )
      const exchanged = Effect.matchCauseEffect(open, {
        onFailure: (cause) => {
          this.unsafeRelease()
          return Effect.failCause(cause)
        },
        onSuccess: (value) => {
          this.unsafeRelease()
          return Effect.succeed(value)
        }
      })
      const isFree = this.keeper === undefined && Semaphore.unsafeTryTake(this.lock, 1)
      return isFree ? exchanged : Effect.zipRight(this.take(restore), exchanged)
    })
  }

  override run<A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    project: (results: Results) => A,
    rowMode?: "array"
  ): Effect.Effect<A, SqlError> {
    return this.turn((restore) => this.session.queryInMask(restore, sql, params, project, rowMode))
  }

  override rows(
    sql: string,
    params: ReadonlyArray<unknown>,
    transformRows: TransformRows
  ): Effect.Effect<Rows, SqlError, Scope.Scope> {
    const turn: Turn = (exchange) =>
      Effect.contextWithEffect((context: Context.Context<never>) =>
        innermost(context, this).turn(exchange)
      )
    return Effect.suspend(() => {
      if (this.owner === "transaction" || this.session.status !== "I") {
        return rowsOf(this, turn, sql, params, transformRows)
      }
      const rows = rowsOf(this, undefined, sql, params, transformRows)
      return Effect.zipRight(this.keepFor("stream"), rows)
    })
  }

  /** The lock until the scope ends; meanwhile a statement would wait for itself if the reader of the stream sent it. */
  keepFor(keeper: "stream" | "copy"): Effect.Effect<void, SqlError, Scope.Scope> {
    // MASK: between the lock and its registration; the wait is restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(this.take(restore), () => {
        this.keeper = keeper
        const release = Effect.sync(() => {
          this.keeper = undefined
          this.unsafeRelease()
        })
        return Effect.zipRight(Effect.addFinalizer(() => release), this.ifOpen)
      })
    )
  }

  /** Refuses newcomers, and waits until the statement under way has ended. */
  settle(restore: Managed.Restore): Effect.Effect<void> {
    this.isOpen = false
    return Effect.map(
      Semaphore.takeInMask(this.lock, 1, restore),
      // Released at once: the waiters of the queue find the loan closed.
      () => this.unsafeRelease()
    )
  }

  /** Refuses newcomers, and cancels the statement under way. */
  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isOpen = false
      return this.session.stopRunning
    })
  }
}

/** The session serves this loan alone until it is cleaned. */
export const opened = (
  pool: SessionPool,
  session: Session,
  owner: "transaction" | "session"
): Loan => {
  session.isReserved = true
  return new Loan(pool, session, owner, undefined)
}

/** Ends a loan: what runs is cancelled, and the session made fit for its next user. What a holder of a session holds is free then. */
export const ended = ({ abort, owner, session }: Loan): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.zipRight(
      abort,
      Effect.suspend(() =>
        session.isFit || (owner === "transaction" && session.status === "I")
          ? Effect.void
          : session.clean
      )
    ),
    Effect.sync(() => {
      session.isReserved = false
      session.cleanInBackground()
    })
  )

export const borrow = (
  pool: SessionPool,
  isExclusive: boolean
): Effect.Effect<Loan, SqlError, Scope.Scope> =>
  // MASK: the loan and its end are one step; waiting and connecting are restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(restore(pool.get()), (session) => {
      const loan = opened(pool, session, "session")
      // Locks, settings and temporary tables of the holder end with the loan.
      if (isExclusive) session.soil()
      return Effect.as(Effect.addFinalizer(() => ended(loan)), loan)
    })
  )
