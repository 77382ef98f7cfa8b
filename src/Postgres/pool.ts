/**
 * Postgres/pool: which session serves which statement.
 *
 * DESIGN. A fair semaphore counts the sessions; idle ones are on a stack. A borrower gets a `Loan`, which runs one statement at a
 * time and refuses statements once it has ended. ../Postgres.ts has the invariants.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Pg from "pg"
import * as Deadline from "../Deadline.ts"
import * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"
import * as Semaphore from "../Semaphore.ts"
import {
  failed,
  messageOf,
  PostgresClosed,
  PostgresTimeout,
  type Stats,
  TransactionClosed
} from "./errors.ts"
import { managedSession, type Result, type Session, type Settings } from "./session.ts"

interface Slot {
  readonly session: Session
  readonly scope: Scope.CloseableScope
}

export class Pool {
  readonly settings: Settings
  readonly ledger: Ledger.Service | undefined
  readonly semaphore: Semaphore.Semaphore
  // The fields below are written by this class alone.
  readonly idle: Array<Slot> = []
  readonly active = new Set<Slot>()
  readonly connecting = new Set<Session>()
  readonly drained: Array<() => void> = []
  isClosed = false

  constructor(settings: Settings, ledger: Ledger.Service | undefined) {
    this.settings = settings
    this.ledger = ledger
    this.semaphore = Semaphore.unsafeMake(settings.max, { name: "postgres sessions" })
  }

  unsafeStats(): Stats {
    const { free, permits, waiting } = Semaphore.unsafeStats(this.semaphore)
    const idle = this.idle.filter((slot) => slot.session.lost === undefined).length
    return { max: this.settings.max, active: permits - free, idle, waiting }
  }

  closed(): SqlError {
    return failed(new PostgresClosed({ applicationName: this.settings.applicationName }))
  }

  permit(restore: Managed.Restore): Effect.Effect<void, SqlError> {
    const { acquireTimeout } = this.settings
    return Effect.mapError(
      Semaphore.takeInMask(this.semaphore, 1, restore, { acquireTimeout }),
      () => failed(new PostgresTimeout({ waited: acquireTimeout, stats: this.unsafeStats() }))
    )
  }

  /** A session and its permit, which `giveBack` returns. Called inside a mask. */
  take(restore: Managed.Restore): Effect.Effect<Slot, SqlError> {
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
  fill(restore: Managed.Restore): Effect.Effect<Slot, SqlError> {
    return Effect.suspend(() => {
      if (this.isClosed) return Effect.fail(this.closed())
      const slot = this.idle.pop()
      if (slot === undefined) return this.open(restore)
      if (slot.session.lost !== undefined) {
        return Effect.zipRight(Scope.close(slot.scope, Exit.void), this.fill(restore))
      }
      this.active.add(slot)
      return Effect.succeed(slot)
    })
  }

  open(restore: Managed.Restore): Effect.Effect<Slot, SqlError> {
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
          const slot = { session, scope }
          this.active.add(slot)
          return slot
        })
      ))
  }

  giveBack(slot: Slot): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (slot.session.isFit && !this.isClosed) return Effect.sync(() => this.unsafePutBack(slot))
      const closeUnfit = Effect.suspend(() =>
        slot.session.isFit && !this.isClosed ? Effect.void : Scope.close(slot.scope, Exit.void)
      )
      return Effect.ensuring(
        Effect.zipRight(slot.session.clean, closeUnfit),
        Effect.sync(() => this.unsafePutBack(slot))
      )
    })
  }

  unsafePutBack(slot: Slot): void {
    this.active.delete(slot)
    if (slot.session.isFit && !this.isClosed) this.idle.push(slot)
    Semaphore.unsafeRelease(this.semaphore, 1)
    if (this.active.size === 0) { for (const wake of this.drained) wake() }
  }

  /** Waits until all sessions are back, or until `duration` has passed. */
  drainFor(duration: Duration.Duration): Effect.Effect<unknown> {
    return Deadline.exit(
      Effect.async<void>((resume) => {
        if (this.active.size === 0) resume(Effect.void)
        else this.drained.push(() => resume(Effect.void))
      }),
      duration
    )
  }

  /** Refuses newcomers, drains, cancels statements, cuts sockets (Postgres-7). */
  readonly close: Effect.Effect<void> = Effect.gen(this, function*() {
    this.isClosed = true
    // Each waiter of the queue gets a permit and finds the pool closed. A connection that is being opened is cut.
    const { permits, waiting } = Semaphore.unsafeStats(this.semaphore)
    yield* Semaphore.resize(this.semaphore, permits + waiting)
    for (const session of this.connecting) session.cut("the pool was closed")
    for (const { session } of this.idle) session.unsafeEnd()
    yield* this.drainFor(this.settings.drain)
    for (const { session } of this.active) yield* Effect.forkDaemon(session.stopRunning)
    if (this.active.size > 0) yield* this.drainFor(this.settings.cancelTimeout)
    for (const { session } of this.active) session.cut("the pool was closed")
    const left = [...this.idle, ...this.active]
    const ended = Effect.forEach(left, ({ session }) => Deferred.await(session.ended))
    yield* Deadline.exit(ended, this.settings.cancelTimeout)
    for (const { session } of left) session.cut("the server did not close it in time")
    for (const { scope } of left) yield* Scope.close(scope, Exit.void)
  })
}

export const managedPool = (
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

type TransformRows = Parameters<Connection["execute"]>[2]

type Config = Pg.QueryConfig | Pg.QueryArrayConfig

/** `@effect/sql`'s `Connection` over `run` and `rows`. */
abstract class Statements implements Connection {
  abstract run(config: Config): Effect.Effect<Result | ReadonlyArray<Result>, SqlError>
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
  readonly pool: Pool

  constructor(pool: Pool) {
    super()
    this.pool = pool
  }

  override run(config: Config): Effect.Effect<Result | ReadonlyArray<Result>, SqlError> {
    // MASK: between taking and returning the session; waiting, connecting and the statement are restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(
        this.pool.take(restore),
        (slot) =>
          Effect.matchCauseEffect(restore(slot.session.query(config)), {
            onFailure: (cause) =>
              Effect.zipRight(this.pool.giveBack(slot), Effect.failCause(cause)),
            onSuccess: (result) => Effect.as(this.pool.giveBack(slot), result)
          })
      )
    )
  }

  override rows(sql: string, params: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(
      Effect.map(borrow(this.pool, false), (loan) => loan.rows(sql, params))
    )
  }
}

/** A session on loan: one statement at a time, and none when the loan is over (Postgres-6). */
export class Loan extends Statements {
  readonly pool: Pool
  readonly session: Session
  readonly owner: "transaction" | "session"
  readonly lock = Semaphore.unsafeMake(1, { name: "postgres statements" })
  /** Set to false once, by the owner of the loan. */
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

export const borrow = (
  pool: Pool,
  isExclusive: boolean
): Effect.Effect<Loan, SqlError, Scope.Scope> =>
  // MASK: taking and registering are one step; waiting and connecting are restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(pool.take(restore), (slot) => {
      const loan = new Loan(pool, slot.session, "session")
      // Locks, settings and temporary tables of the holder end with the loan.
      if (isExclusive) slot.session.isDirty = true
      return Effect.as(
        Effect.addFinalizer(() => Effect.zipRight(loan.abort, pool.giveBack(slot))),
        loan
      )
    })
  )
