/**
 * session: a connection of a lock service. Its statements take turns, and all leases that it has end with it.
 *
 * DESIGN. A session of ../../Postgres/session.ts, which cancels a wait and stays usable. It carries short statements of many fibers, or one
 * wait. A statement that is not answered in `answerTimeout` ends the session, because what it will do is unknown. While the session
 * has leases it is pinged. ../Postgres.ts has the invariants.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { ConnectionOptions } from "node:tls"
import type { ClientConfig } from "pg"
import * as Deadline from "../../Deadline.ts"
import * as Lock from "../../Lock.ts"
import * as Managed from "../../Managed.ts"
import { connect } from "../../Postgres/connection.ts"
import type { ConnectionLost } from "../../Postgres/errors.ts"
import { type Result, type Results, Session } from "../../Postgres/session.ts"
import * as Semaphore from "../../Semaphore.ts"
import { createSql, self } from "./schema.ts"

/**
 * Where the server is. The parts of `url` win over the other fields.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  /** Keeps the keys of one application apart from another's in the same database. */
  readonly namespace: string
  readonly url?: string | Redacted.Redacted | undefined
  /** A name, an address, or the directory of a Unix socket. */
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly user?: string | undefined
  readonly password?: string | Redacted.Redacted | undefined
  readonly database?: string | undefined
  readonly ssl?: boolean | ConnectionOptions | undefined
  /** Default 5 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
}

const unredacted = (text: string | Redacted.Redacted | undefined): string | undefined =>
  Redacted.isRedacted(text) ? Redacted.value(text) : text

/** As the server would make it: printable ASCII, 63 bytes at most. */
const applicationName = `lock:${self}`.replaceAll(/[^ -~]/g, "?").slice(0, 63)

export const clientOf = (address: Address): ClientConfig => ({
  connectionString: unredacted(address.url),
  host: address.host,
  port: address.port,
  user: address.user,
  password: unredacted(address.password),
  database: address.database,
  ...(address.ssl === undefined ? {} : { ssl: address.ssl }),
  application_name: applicationName,
  keepAlive: true,
  keepAliveInitialDelayMillis: 5000
})

/** Shorter than the 2 seconds after which a release is abandoned. */
export const longestAnswer = Duration.millis(1800)

export interface Row {
  readonly pid?: number
  readonly ok?: boolean
  readonly holder?: string | null
  readonly name?: string | null
  readonly fence?: string | null
  readonly since?: number | null
  readonly wait?: number | null
}

const rowsOf = (results: Results): ReadonlyArray<Row> => (results as Result).rows ?? []

export const failed =
  (op: string) => ({ cause }: { readonly cause?: unknown }): Lock.LockBackendError =>
    new Lock.LockBackendError({ op, cause })

export interface Settings {
  readonly client: ClientConfig
  readonly connectTimeout: Duration.Duration
  readonly answerTimeout: Duration.Duration
  readonly pingInterval: Duration.Duration
  readonly pingTimeout: Duration.Duration
  readonly fork: (effect: Effect.Effect<unknown>) => void
  readonly onLost: (session: LockSession) => void
}

export class LockSession extends Session {
  readonly own: Settings
  readonly turns = Semaphore.unsafeMake(1, { name: "lock session" })
  // The fields below are written by this class alone.
  readonly leases = new Set<() => void>()
  pinging: ReturnType<typeof setTimeout> | undefined = undefined

  constructor(own: Settings) {
    super({
      ...own,
      cancelTimeout: own.answerTimeout,
      reset: "transaction",
      onLost: () => own.onLost(this)
    })
    this.own = own
    // `undo` cleans it, not the background.
    this.isReserved = true
  }

  override lose(reason: string): ConnectionLost {
    const isFirst = this.lost === undefined
    const lost = super.lose(reason)
    if (isFirst) {
      clearTimeout(this.pinging)
      for (const lose of this.leases) lose()
      this.leases.clear()
    }
    return lost
  }

  /** A short statement, in its turn. */
  ask(
    op: string,
    sql: string,
    values: ReadonlyArray<unknown> = []
  ): Effect.Effect<ReadonlyArray<Row>, Lock.LockBackendError> {
    const millis = Duration.toMillis(this.own.answerTimeout)
    const asked = Effect.suspend(() => {
      this.announceLoss()
      const late = setTimeout(
        () => this.unsafeEnd(`the server did not answer "${op}" in time`),
        millis
      )
      return Effect.onExit(
        this.query(sql, values, rowsOf),
        () => Effect.sync(() => clearTimeout(late))
      )
    })
    // MASK: a statement that was sent is answered, or ends the session; only the wait for its turn may be cut.
    return Effect.mapError(
      Semaphore.withPermit(this.turns)(Effect.uninterruptible(asked)),
      failed(op)
    )
  }

  /** A statement that may wait for long. An interrupt cancels it on the server and waits for its end. */
  wait(
    sql: string,
    values: ReadonlyArray<unknown>
  ): Effect.Effect<ReadonlyArray<Row>, Lock.LockBackendError> {
    return Semaphore.withPermit(this.turns)(
      Effect.mapError(
        Effect.suspend(() => {
          this.announceLoss()
          return this.query(sql, values, rowsOf)
        }),
        failed("lock")
      )
    )
  }

  /** Again: a session that was lost at the end of its opening was not its owner's yet, and would be given to all that come. */
  announceLoss(): void {
    if (this.lost !== undefined) this.own.onLost(this)
  }

  /** After a wait that failed or was cancelled: undoes what it may have done, or ends the session. */
  undo(sql: string, values: ReadonlyArray<unknown>): Effect.Effect<void> {
    return Effect.zipRight(
      Semaphore.withPermit(this.turns)(this.clean),
      Effect.catchAll(
        Effect.asVoid(this.ask("undo", sql, values)),
        () => Effect.sync(() => this.unsafeEnd("it may still hold a lock"))
      )
    )
  }

  /** From now on the end of the session is the loss of this lease. */
  hold(lose: () => void): void {
    if (this.lost !== undefined) return lose()
    this.leases.add(lose)
    if (this.pinging === undefined) this.watch()
  }

  watch(): void {
    this.pinging = setTimeout(() => {
      this.pinging = undefined
      if (this.leases.size > 0) this.own.fork(this.ping)
    }, Duration.toMillis(this.own.pingInterval))
    this.pinging.unref()
  }

  get ping(): Effect.Effect<void> {
    const asked = Effect.suspend(() => this.text(""))
    const answered = Semaphore.withPermit(this.turns)(Deadline.exit(asked, this.own.pingTimeout))
    return Effect.map(answered, (answer) => {
      if (Option.isNone(answer)) this.unsafeEnd("the server did not answer a ping in time")
      else if (this.lost === undefined && this.pinging === undefined) this.watch()
    })
  }
}

/** A session; `prepare` runs before its first use. */
export const managedSession = (
  namespace: string,
  settings: Settings,
  prepare: (session: LockSession) => Effect.Effect<void, Lock.LockError>
): Managed.Managed<LockSession, Lock.LockError> =>
  Managed.make({
    name: namespace,
    kind: "lock connection",
    acquire: (restore) =>
      Effect.suspend(() => {
        const session = new LockSession(settings)
        const connected = connect(session, restore)
        return Effect.tap(
          Effect.mapError(connected, (cause) => failed("connect")({ cause })),
          Effect.onError(prepare(session), () => session.close("it cannot be used"))
        )
      }),
    release: (session) => session.close("it is not needed any more"),
    releaseDeadline: Duration.times(settings.answerTimeout, 3)
  })

/** Whether the server process that answers is the one that was announced. It is not behind a pooler. */
export const isDirect = (session: LockSession): Effect.Effect<boolean, Lock.LockBackendError> =>
  Effect.map(
    session.ask("connect", "SELECT pg_backend_pid() AS pid"),
    ([row]) => row?.pid === session.processId
  )

/** Makes the schema on the first session of a service. */
export const makeSchema = () => {
  let isMade = false
  return (session: LockSession): Effect.Effect<void, Lock.LockBackendError> =>
    Effect.suspend(() =>
      isMade ? Effect.void : Effect.map(session.ask("schema", createSql), () => {
        isMade = true
      })
    )
}
