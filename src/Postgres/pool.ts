/**
 * Postgres/pool: our `Pool` of sessions.
 *
 * DESIGN. ../Pool.ts decides who gets which session, and when one is opened, checked and closed. This file says how a session is
 * opened, what makes it unfit, and how all of them end. loan.ts has what a borrower may do with a session.
 *
 * INVARIANTS
 * - PgPool-1 The server never has more than `max` sessions of the pool: a place is free only after the server has closed its end of
 *   the session that had it, or has not done so for `cancelTimeout`.
 * - PgPool-2 A session that was lost while it was idle is never lent, and one that was idle for `validateAfterIdle` answers
 *   within `cancelTimeout` before it is lent, or is replaced. A statement that was not sent to a lost session is sent to another.
 * - PgPool-3 A server that has no room (53300, EAGAIN) is a smaller `max` for a while, as long as the pool has a session there.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Deadline from "../Deadline.ts"
import * as Managed from "../Managed.ts"
import * as Pool from "../Pool.ts"
import * as Semaphore from "../Semaphore.ts"
import { connect, type Settings as ConnectionSettings } from "./connection.ts"
import {
  codeOf,
  failed,
  isUnsent,
  messageOf,
  PostgresClosed,
  PostgresExhausted,
  PostgresTimeout,
  type Stats,
  unsent
} from "./errors.ts"
import { type Reset, Session } from "./session.ts"

export interface Settings extends ConnectionSettings {
  readonly applicationName: string
  readonly drain: Duration.Duration
  readonly reset: Reset
  readonly pool:
    & Required<
      Pick<Pool.Options<Session, never>, "max" | "minIdle" | "acquireTimeout" | "validateAfterIdle">
    >
    & Pool.Settings<Session>
}

/** How long a server without room is left alone. */
const pause = Duration.millis(250)

const never = (): boolean => false

const isFull = (cause: unknown): boolean => ["53300", "EAGAIN"].includes(codeOf(cause) ?? "")

export class SessionPool {
  readonly settings: Settings
  /** All that are connected, or may still be on the server. */
  readonly sessions = new Set<Session>()
  /** Serves one at a time those whose opening the server refused for want of room. */
  readonly retries = Semaphore.unsafeMake(1, { name: "postgres connections refused" })
  refused = 0
  /** Set once, by `make`. */
  pool!: Pool.Pool<Session, SqlError | Pool.PoolError>
  scope!: Scope.CloseableScope
  runtime!: Runtime.Runtime<never>

  constructor(settings: Settings) {
    this.settings = settings
  }

  unsafeStats(): Stats {
    const { closing, creating, idle, max, pending, used } = Pool.unsafeStats(this.pool)
    const opening = creating - this.refused
    const waiting = Math.max(0, pending - opening)
    const holders = Effect.runSync(Pool.holders(this.pool))
    return { max, active: used + opening, idle, closing, waiting, holders }
  }

  /** One attempt. Interruptible only where it waits. */
  get managedSession(): Managed.Managed<Session, unknown> {
    const { applicationName, cancelTimeout } = this.settings
    return Managed.make({
      name: applicationName,
      kind: "postgres connection",
      acquire: (restore) =>
        Effect.suspend(() => {
          const session = new Session({
            ...this.settings,
            fork: Runtime.runFork(this.runtime),
            // INVARIANT PgPool-2.
            onLost: () => void Effect.runSync(Pool.invalidate(this.pool, session))
          })
          return Effect.map(connect(session, restore), () => {
            this.sessions.add(session)
            return session
          })
        }),
      release: (session) =>
        Effect.map(session.close("it was closed"), () => void this.sessions.delete(session)),
      releaseDeadline: Duration.times(cancelTimeout, 3)
    })
  }

  /** INVARIANT PgPool-3: while others have sessions of this pool one of them comes back, or the server gets room. */
  get open(): Effect.Effect<Session, unknown, Scope.Scope> {
    const mayWait = (cause: unknown): boolean => isFull(cause) && this.sessions.size > 0
    const wanted = Effect.repeat(Effect.sleep(pause), {
      until: () => Pool.unsafeStats(this.pool).pending > 0
    })
    const again = Effect.retry(Effect.zipRight(wanted, this.managedSession), { while: mayWait })
    return Effect.catchIf(this.managedSession, mayWait, () =>
      Effect.suspend(() => {
        this.refused++
        return Effect.ensuring(
          Semaphore.withPermit(this.retries)(again),
          Effect.sync(() => this.refused--)
        )
      }))
  }

  refusalOf(error: SqlError | Pool.PoolError): SqlError {
    switch (error._tag) {
      case "SqlError":
        return error
      case "PoolClosed":
        return failed(new PostgresClosed({ applicationName: this.settings.applicationName }))
      case "PoolExhausted":
        return failed(
          new PostgresExhausted({ stats: this.unsafeStats(), maxWaiters: error.maxWaiters })
        )
      case "PoolTimeout":
        return failed(new PostgresTimeout({ waited: error.waited, stats: this.unsafeStats() }))
    }
  }

  /** Lends a session to `use`, one that is ready. */
  lend<A, R>(
    use: (session: Session) => Effect.Effect<A, SqlError, R>,
    isAgain: (error: SqlError) => boolean = never,
    attempts = this.settings.pool.max
  ): Effect.Effect<A, SqlError, R> {
    const lent = Pool.use(this.pool, (session): Effect.Effect<A, SqlError | Unready, R> => {
      if (session.cleaning === undefined && session.lost === undefined) return use(session)
      return Effect.flatMap(
        session.ready,
        (isReady): Effect.Effect<A, SqlError | Unready, R> =>
          isReady ? use(session) : Effect.fail(new Unready(session))
      )
    })
    return Effect.catchAllCause(lent, (cause) => {
      const failure = Cause.failureOrCause(cause)
      if (Either.isRight(failure)) return Effect.failCause(failure.right)
      const error = failure.left
      const isUnready = error instanceof Unready
      if (attempts > 0 && (isUnready || (error._tag === "SqlError" && isAgain(error)))) {
        return this.lend(use, isAgain, attempts - 1)
      }
      return Effect.fail(isUnready ? unsent(error.session.lost!) : this.refusalOf(error))
    })
  }

  /** One statement. What was not sent to a session that is lost is sent to the next (PgPool-2). */
  single<A>(
    statement: (session: Session) => Effect.Effect<A, SqlError>
  ): Effect.Effect<A, SqlError> {
    return this.lend(statement, isUnsent)
  }

  /** A session for as long as the scope lives. */
  get(attempts = this.settings.pool.max): Effect.Effect<Session, SqlError, Scope.Scope> {
    const leased = Effect.mapError(Pool.lease(this.pool), (error) => this.refusalOf(error))
    return Effect.flatMap(leased, ({ release, value }) =>
      Effect.flatMap(value.ready, (isReady) => {
        if (isReady) return Effect.succeed(value)
        if (attempts === 0) return Effect.fail(unsent(value.lost!))
        return Effect.zipRight(release, this.get(attempts - 1))
      }))
  }

  /** As `end`; then the scope of the pool, which waits for no more than the pool's own end. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    const left = Scope.close(this.scope, Exit.void)
    return Effect.flatMap(this.end, (isOver) => isOver ? left : Effect.forkDaemon(left))
  })

  /** Refuses newcomers, drains, cancels statements, interrupts holders, closes sessions (Postgres-7). True if the pool is closed. */
  readonly end: Effect.Effect<boolean> = Effect.gen(this, function*() {
    const { cancelTimeout, drain } = this.settings
    const isClosed = (within: Duration.Duration) =>
      Effect.map(Deadline.exit(Pool.close(this.pool), within), Option.isSome)
    if (yield* isClosed(drain)) return true
    for (const session of this.sessions) yield* Effect.forkDaemon(session.stopRunning)
    // The pool interrupts its holders when half of this time has passed.
    if (yield* isClosed(Duration.times(cancelTimeout, 2))) return true
    for (const session of this.sessions) session.unsafeEnd("the pool was closed")
    const ended = Effect.forEach(this.sessions, (session) => Deferred.await(session.ended))
    yield* Deadline.exit(ended, cancelTimeout)
    for (const session of this.sessions) session.destroy()
    return false
  })
}

/** The session was lost before its borrower began. */
class Unready {
  readonly _tag = "Unready"
  readonly session: Session

  constructor(session: Session) {
    this.session = session
  }
}

export const managedPool = (settings: Settings): Managed.Managed<SessionPool> => {
  const { applicationName, cancelTimeout, drain } = settings
  return Managed.make({
    name: applicationName,
    kind: "postgres pool",
    acquire: Effect.gen(function*() {
      const self = new SessionPool(settings)
      self.runtime = yield* Effect.runtime<never>()
      const acquire = Effect.mapError(
        self.open,
        (cause) => new SqlError({ message: `Failed to connect: ${messageOf(cause)}`, cause })
      )
      const pool = Pool.make({
        ...settings.pool,
        name: applicationName,
        acquire,
        validate: (session) => Effect.zipRight(session.ready, session.promptly("")),
        validateTimeout: Duration.times(cancelTimeout, 3),
        releaseDeadline: Duration.times(cancelTimeout, 4),
        shutdownTimeout: Duration.sum(drain, cancelTimeout)
      })
      self.scope = yield* Scope.make()
      self.pool = yield* Scope.extend(pool, self.scope)
      return self
    }),
    release: (pool) => pool.close,
    releaseDeadline: Duration.sum(drain, Duration.times(cancelTimeout, 5))
  })
}
