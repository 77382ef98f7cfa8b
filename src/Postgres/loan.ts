/**
 * Postgres/loan: what a borrower may do with a session: `@effect/sql`'s `Connection`.
 *
 * DESIGN. A statement of no transaction has a session for itself. Any other borrower gets a `Loan`, which runs one statement at a
 * time and refuses statements once it has ended. ../Postgres.ts has the invariants.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Pg from "pg"
import type * as Managed from "../Managed.ts"
import * as Semaphore from "../Semaphore.ts"
import { failed, TransactionClosed } from "./errors.ts"
import type { SessionPool } from "./pool.ts"
import type { Result, Results, Session } from "./session.ts"

type TransformRows = Parameters<Connection["execute"]>[2]

type Config = Pg.QueryConfig | Pg.QueryArrayConfig

/** `@effect/sql`'s `Connection` over `run` and `rows`. */
abstract class Statements implements Connection {
  abstract run(config: Config): Effect.Effect<Results, SqlError>
  abstract rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError>

  execute(sql: string, params: ReadonlyArray<unknown>, transformRows: TransformRows) {
    return Effect.map(this.run({ text: sql, values: [...params] }), (result) => {
      // A text of several statements gives several results.
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
    return transformRows === undefined ?
      rows :
      Stream.mapChunks(
        rows,
        (chunk) => Chunk.unsafeFromArray(transformRows(Chunk.toReadonlyArray(chunk)))
      )
  }
}

/** Statements outside transactions: each takes a session and returns it with its answer. */
export class Single extends Statements {
  readonly pool: SessionPool

  constructor(pool: SessionPool) {
    super()
    this.pool = pool
  }

  override run(config: Config): Effect.Effect<Results, SqlError> {
    return this.pool.single((session) => session.query(config))
  }

  override rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(
      Effect.map(borrow(this.pool, false), (loan) => loan.rows(sql, params))
    )
  }
}

/** A session on loan: one statement at a time, and none when the loan is over (Postgres-6). */
export class Loan extends Statements {
  readonly pool: SessionPool
  readonly session: Session
  readonly owner: "transaction" | "session"
  readonly lock = Semaphore.unsafeMake(1, { name: "postgres statements" })
  /** Set to false once, by the owner of the loan. */
  isOpen = true

  constructor(pool: SessionPool, session: Session, owner: "transaction" | "session") {
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

  override run(config: Config): Effect.Effect<Results, SqlError> {
    return Semaphore.withPermit(this.lock)(Effect.zipRight(this.ifOpen, this.session.query(config)))
  }

  override rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    // MASK: between the permit and its registration; the wait is restored.
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

  /** Refuses newcomers, and waits until the statement under way has ended. */
  settle(restore: Managed.Restore): Effect.Effect<void> {
    this.isOpen = false
    return Effect.map(
      Semaphore.takeInMask(this.lock, 1, restore),
      // Released at once: the waiters of the queue find the loan closed.
      () => Semaphore.unsafeRelease(this.lock, 1)
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
  return new Loan(pool, session, owner)
}

/** Ends a loan: what runs is cancelled, and the session made fit for its next user. */
export const ended = ({ abort, session }: Loan): Effect.Effect<void> =>
  Effect.zipRight(
    Effect.zipRight(abort, Effect.suspend(() => session.isFit ? Effect.void : session.clean)),
    Effect.sync(() => {
      session.isReserved = false
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
      if (isExclusive) session.isDirty = true
      return Effect.as(Effect.addFinalizer(() => ended(loan)), loan)
    })
  )
