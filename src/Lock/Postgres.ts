/**
 * Lock/Postgres: a lock among all that reach one Postgres database, held by a session.
 *
 * DESIGN. A key is a session advisory lock on a connection of its own, never one of a query pool: the server queues the
 * waiters in order, and the lock is held as long as the session lives; there is no time to live. The end of the socket is the
 * loss signal: it interrupts the body at once, and a bounded ping finds a silent peer. That bound (`pingInterval +
 * pingTimeout`, 6 s) is shorter than the time in which the server drops us by the keepalive settings of the session (10 to
 * 11 s), so the body is stopped before the next holder starts.
 * An interrupted wait is cancelled from a second connection, then the end of the first query is awaited: cancel and grant may
 * cross, and only the query knows which came first. Then the session is closed, which frees the lock if it was granted.
 *
 * INVARIANTS
 * - LockPostgres-1 (G1) The fence is drawn by the granted session, after the grant and before its release, from one sequence of the
 *   database, whatever the `search_path`: it rises.
 * - LockPostgres-2 (G3) After an interrupted wait no session of ours waits or holds: after 2 s without an answer the socket is
 *   destroyed.
 * - LockPostgres-3 (G4) A session that ends, or does not answer a ping in time, loses the lease.
 * - LockPostgres-4 (G8) No error of a connection is unhandled, and closing the layer leaves no connection.
 * - LockPostgres-6 `transact`: the lock ends with the transaction, whatever ends that; a lease of the same key excludes it.
 * - LockPostgres-7 `guard`: a transaction whose fence is lower than one that a guarded transaction of the key has brought fails with
 *   `LockLost` and changes nothing. It sees what guarded transactions of lower fences have committed, and higher ones wait for it.
 * - LockPostgres-5 Behind a pooler that separates session and connection it fails with `LockUnsupported`.
 *
 * COST (2026-11, Unix socket) 4.5 ms for acquire and release, nearly all of it the connection of its own; an interrupted
 * waiter is gone in 7 ms; one more connection for an instant per cancel and per `inspect`.
 * NOT DONE reuse of sessions; `lock_timeout` for `acquireTimeout` (it may raise although the lock was granted); shared mode;
 * lease rows for use behind poolers; safety across a failover to a replica that had not seen the grant: fence what you write.
 * Keepalive notices a server that vanishes during a wait, in about 15 s.
 * Waits for sockets are in real time, not on the `Clock`; `acquireTimeout` is on the `Clock`.
 * NOT PROMISED that a network failure stops the holder before the server grants the key to the next: `guard` makes that harmless in
 * the database, and `transact` needs no promise.
 * PRIVILEGES The first user makes the schema `holdfast` (Postgres/schema.ts), and needs CREATE on the database for that. Each other needs
 * `GRANT USAGE ON SCHEMA holdfast`, `GRANT USAGE ON SEQUENCE holdfast.lock_fence`, `GRANT SELECT, INSERT, UPDATE ON holdfast.lock_lease`.
 * SOURCES madelson/DistributedLock #147 (lock_timeout), pgbouncer #102, yugabyte #26105.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { ConnectionOptions } from "node:tls"
import { Client, type ClientConfig } from "pg"
import * as Deadline from "../Deadline.ts"
import * as Ledger from "../Ledger.ts"
import * as Lock from "../Lock.ts"
import * as Managed from "../Managed.ts"
import { codeOf } from "./errors.ts"
import { createSql, idOf, self } from "./Postgres/schema.ts"

export { guard, transact, type TransactOptions } from "./Postgres/guard.ts"

/**
 * Where the server is, and how a session is watched. The parts of `url` win over the other fields.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
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
  /** The time between two pings of a session that holds a key. Default 2 seconds. */
  readonly pingInterval?: Duration.DurationInput | undefined
  /** How long the answer to a ping may take. Default 4 seconds; keep the sum with the interval below 10 seconds. */
  readonly pingTimeout?: Duration.DurationInput | undefined
}

const unredacted = (text: string | Redacted.Redacted | undefined): string | undefined =>
  Redacted.isRedacted(text) ? Redacted.value(text) : text

const settingsOf = (options: Options) => ({
  namespace: options.namespace,
  client: {
    connectionString: unredacted(options.url),
    host: options.host,
    port: options.port,
    user: options.user,
    password: unredacted(options.password),
    database: options.database,
    ...(options.ssl === undefined ? {} : { ssl: options.ssl }),
    connectionTimeoutMillis: Duration.toMillis(options.connectTimeout ?? "5 seconds"),
    keepAlive: true,
    keepAliveInitialDelayMillis: 5000
  } satisfies ClientConfig,
  pingIntervalMillis: Duration.toMillis(options.pingInterval ?? "2 seconds"),
  pingTimeoutMillis: Duration.toMillis(options.pingTimeout ?? "4 seconds")
})

type Settings = ReturnType<typeof settingsOf>

/** After this time a cancel, unlock, close or `inspect` is abandoned and the socket destroyed. */
const answerMillis = 2000

/** As the server would make it, so that it can be compared: printable ASCII, 63 bytes at most. */
const applicationName = (label: string | undefined): string =>
  `lock:${self}${label === undefined ? "" : `:${label}`}`.replaceAll(/[^ -~]/g, "?").slice(0, 63)

/** The settings that a lock session relies on, without those that the server does not know. */
const prepareSql = `SELECT set_config(name, value, false)
FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
  ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'),
  ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10s'), ('application_name', $1)) AS wanted (name, value)
WHERE current_setting(name, true) IS NOT NULL`

/** The holder of a key: `pg_locks` shows the 64-bit number in two halves, with objsubid 1. */
const holderSql = `SELECT activity.application_name AS name, held.pid
FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND held.classid::bigint = (($1::bigint >> 32) & 4294967295) AND held.objid::bigint = ($1::bigint & 4294967295)`

/** Whether it succeeded or failed within that time, which is real time because a peer does not follow the `Clock`. */
const endsWithin = (work: Promise<unknown>, millis: number): Promise<boolean> =>
  Effect.runPromise(Effect.map(Deadline.exit(Effect.promise(() => work), millis), Option.isSome))

const destroy = (client: Client): void => {
  client.connection.stream.destroy()
}

/** Ends the session after `first`, or destroys it. */
const close = async (client: Client, first: Promise<unknown>): Promise<void> => {
  const ended = first.then(() => client.end(), () => client.end())
  if (!(await endsWithin(ended, answerMillis))) destroy(client)
}

/** One connection that waits for one key, then holds it. */
class Session {
  readonly settings: Settings
  readonly name: string
  readonly client: Client
  readonly onLoss: () => void
  /** The latest query. pg accepts one at a time, so each starts when the one before has ended. Never rejects. */
  last: Promise<unknown> = Promise.resolve()
  pinging: ReturnType<typeof setTimeout> | undefined
  /** The query under way waits for the lock, and may never end by itself. */
  isWaiting = false
  isEnding = false
  isGone = false
  ending: Promise<void> | undefined

  constructor(settings: Settings, label: string | undefined, onLoss: () => void) {
    this.settings = settings
    this.name = applicationName(label)
    this.client = new Client(settings.client)
    this.onLoss = onLoss
    // INVARIANT LockPostgres-4: an 'error' without a listener would end the process.
    this.client.on("error", () => this.lose())
    this.client.on("end", () => this.lose())
  }

  lose(): void {
    clearTimeout(this.pinging)
    this.isGone = true
    if (!this.isEnding) this.onLoss()
  }

  query(sql: string, values: ReadonlyArray<unknown> = []): Promise<ReadonlyArray<Row>> {
    const result = this.last.then(async () => (await this.client.query<Row>(sql, [...values])).rows)
    this.last = result.then(() => {}, () => {})
    return result
  }

  get pid(): number | null {
    // From BackendKeyData; the types of pg do not have it.
    return Reflect.get(this.client, "processID")
  }

  async open(): Promise<void> {
    await this.client.connect()
    await this.query(prepareSql, [this.name])
    // A failure is ignored: some platforms of the server lack the setting, which only ends dead sessions sooner.
    await this.query("SET client_connection_check_interval = '2s'").catch(() => {})
    const [row] = await this.query("SELECT pg_backend_pid() AS pid")
    if (row?.pid !== this.pid) {
      throw new Lock.LockUnsupported({
        why: "pooler",
        detail:
          `the server process (${row?.pid}) is not the one that was announced (${this.pid}): there is a pooler between, and a `
          + "session lock would outlive its holder. Connect to the server itself."
      })
    }
  }

  async lock(sql: string, id: string): Promise<ReadonlyArray<Row>> {
    this.isWaiting = true
    try {
      return await this.query(sql, [id])
    } finally {
      this.isWaiting = false
    }
  }

  /** Pings while it holds. Without an answer in time the lease is lost. */
  watch(): void {
    if (this.isGone || this.isEnding) return
    this.pinging = setTimeout(() => {
      void endsWithin(this.query("SELECT 1"), this.settings.pingTimeoutMillis).then((answered) => {
        if (answered) return this.watch()
        this.lose()
        destroy(this.client)
      })
    }, this.settings.pingIntervalMillis)
    this.pinging.unref()
  }

  stopWatching(): void {
    this.isEnding = true
    clearTimeout(this.pinging)
  }

  /** Unlocks and closes. Rejects if the server does not confirm that the lock was held until now. */
  async release(id: string): Promise<void> {
    // Lost already, or closed by the layer.
    if (this.isGone || this.isEnding) return this.abandon()
    this.stopWatching()
    let unlocked: boolean | undefined
    const asked = this.query("SELECT pg_advisory_unlock($1::bigint) AS ok", [id])
    this.ending = close(this.client, asked.then(([row]) => unlocked = row?.ok))
    await this.ending
    if (unlocked !== true) {
      throw new Error("the server did not confirm the unlock; the session was closed")
    }
  }

  /**
   * Ends the session in any state (LockPostgres-2). A wait under way is cancelled and its end awaited; a lock that it may have won
   * ends with the session. Never rejects.
   */
  abandon(): Promise<void> {
    this.stopWatching()
    this.ending ??= this.disconnect()
    return this.ending
  }

  async disconnect(): Promise<void> {
    // Not connected yet, or not any more.
    if (this.isGone || this.pid === null) return destroy(this.client)
    // The session ends after the answer to the cancel: the cancel must not reach a successor with the same pid.
    await close(this.client, this.isWaiting ? cancel(this).then(() => this.last) : this.last)
  }

  /** The layer closes: a holder loses its lease first. */
  async close(): Promise<void> {
    if (!this.isEnding) this.onLoss()
    await this.abandon()
  }
}

interface Row {
  readonly pid?: number
  readonly ok?: boolean
  readonly name?: string | null
  readonly next?: string
}

/** One statement on a connection of its own, bounded. */
const once = async (
  settings: Settings,
  name: string,
  sql: string,
  values: ReadonlyArray<unknown>
): Promise<ReadonlyArray<Row>> => {
  const client = new Client({ ...settings.client, application_name: name })
  client.on("error", () => {})
  const work = client.connect().then(() => client.query<Row>(sql, [...values]))
  try {
    if (!(await endsWithin(work, answerMillis))) {
      throw new Error(`no answer within ${answerMillis} ms`)
    }
    const { rows } = await work
    await close(client, work)
    return rows
  } catch (error) {
    destroy(client)
    throw error
  }
}

/** If it fails the session still waits: `close` destroys its socket, and the server notices that within 2 s. */
const cancel = (session: Session): Promise<void> =>
  once(
    session.settings,
    applicationName("cancel"),
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2",
    [session.pid, session.name]
  ).then(() => {}, () => {})

/** Draws the next fence. */
const nextFence = async (session: Session): Promise<bigint> => {
  const draw = async (): Promise<bigint> => {
    const [row] = await session.query("SELECT nextval('holdfast.lock_fence'::regclass) AS next")
    return BigInt(row?.next ?? "0")
  }
  try {
    return await draw()
  } catch (error) {
    if (!["42P01", "3F000"].includes(codeOf(error) ?? "")) throw error
  }
  await session.query(createSql)
  return draw()
}

type Failure = Lock.LockUnsupported | Lock.LockBackendError

const step = <A>(op: string, run: () => Promise<A>): Effect.Effect<A, Failure> =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      cause instanceof Lock.LockUnsupported ? cause : new Lock.LockBackendError({ op, cause })
  })

const ask = <A>(op: string, run: () => Promise<A>): Effect.Effect<A, Lock.LockBackendError> =>
  Effect.tryPromise({ try: run, catch: (cause) => new Lock.LockBackendError({ op, cause }) })

const grantOf = (session: Session, id: string, fence: bigint): Lock.Grant => ({
  fence,
  // An open session holds the lock, unless a statement of someone else released it.
  verify: ask("verify", async () => {
    if (session.isGone) return false
    const [row] = await session.query(
      `SELECT EXISTS (SELECT 1 FROM (${holderSql}) AS holders WHERE pid = pg_backend_pid()) AS ok`,
      [id]
    )
    return row?.ok === true
  }),
  release: ask("release", () => session.release(id))
})

const backend = (settings: Settings, sessions: Set<Session>): Lock.Backend => {
  /** Connects, takes the lock and draws a fence. An interrupt at any of these steps ends the session. */
  const attempt = (
    request: Lock.Request,
    restore: Managed.Restore,
    sql: string
  ): Effect.Effect<Option.Option<Lock.Grant>, Failure> =>
    Effect.suspend(() => {
      const id = idOf(settings.namespace, request.key)
      const session = new Session(settings, request.label, () => request.lose("connection"))
      sessions.add(session)
      session.client.on("end", () => sessions.delete(session))
      const steps = Effect.gen(function*() {
        yield* step("connect", () => session.open())
        const [row] = yield* step("lock", () => session.lock(sql, id))
        if (row?.ok === false) return Option.none()
        return Option.some(yield* step("fence", () => nextFence(session)))
      })
      const abandoned = Effect.promise(() => session.abandon())
      return Effect.matchCauseEffect(restore(steps), {
        onFailure: (cause) => Effect.zipRight(abandoned, Effect.failCause(cause)),
        onSuccess: (fence) => {
          if (Option.isNone(fence)) return Effect.as(abandoned, Option.none())
          session.watch()
          return Effect.succeedSome(grantOf(session, id, fence.value))
        }
      })
    })

  return {
    self,
    remote: true,
    realm: `advisory:${settings.namespace}`,
    take: (request, restore) =>
      Effect.map(
        attempt(request, restore, "SELECT pg_advisory_lock($1::bigint)"),
        Option.getOrThrowWith(() => new Error("LockPostgres: a wait ended without a grant"))
      ),
    tryTake: (request, restore) =>
      attempt(request, restore, "SELECT pg_try_advisory_lock($1::bigint) AS ok"),
    inspect: (key) =>
      Effect.map(
        ask("inspect", () =>
          once(settings, applicationName("inspect"), holderSql, [idOf(settings.namespace, key)])),
        ([row]) =>
          Option.map(Option.fromNullable(row), ({ name, pid }) => ({
            holder: name?.replace(/^lock:/, "") || `server process ${pid}`
          }))
      )
  }
}

/**
 * A lock service among all that reach one database, until the scope closes; leases still held then are lost.
 *
 * **Interruption** — Opening, Waiting: cancelled, settled, the session closed; within 2 seconds if the server does not answer.
 *   Holding: the lock is released and the session closed before the interrupt is seen.
 * **Errors** — of the service's operations: `LockUnsupported` behind a pooler, `LockBackendError` if the server fails; of the
 *   brackets also `LockLost` when the session ends. `make` itself connects to nothing and does not fail.
 * **Cost** — see the head of this file.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<Lock.Service, never, Scope.Scope> =>
  Effect.map(
    Managed.make({
      name: options.namespace,
      kind: "lock sessions",
      acquire: Effect.sync(() => new Set<Session>()),
      // INVARIANT LockPostgres-4: a holder loses its lease before the layer is gone.
      release: (sessions) =>
        Effect.promise(() => Promise.all(Array.from(sessions, (session) => session.close())))
    }),
    (sessions) => Lock.make(backend(settingsOf(options), sessions))
  )

/**
 * The lock of one database as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`.
 *
 * **Example** (one nightly report, wherever it runs)
 * ```ts
 * import { Effect } from "effect"
 * import * as Lock from "holdfast/Lock"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 *
 * const report = Lock.withLock("nightly-report", { acquireTimeout: "1 minute" })((lease) =>
 *   Effect.log(`writing with fence ${lease.fence}`)
 * )
 * const database = LockPostgres.layer({ namespace: "billing", url: "postgres://localhost/billing" })
 * Effect.runPromise(Effect.provide(report, database))
 * ```
 *
 * **Example** (on the embedded server)
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 * import * as Embedded from "holdfast/Postgres/Embedded"
 *
 * const locks = Layer.unwrapEffect(Effect.map(
 *   Embedded.Embedded,
 *   ({ database, host, port, user }) =>
 *     LockPostgres.layer({ namespace: "test", host, port, user, database })
 * ))
 * export const live = Layer.provide(locks, Embedded.layer())
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Lock.Lock> =>
  Layer.scoped(Lock.Lock, Ledger.withSite(make(options), Ledger.unsafeSite()))

/**
 * `layer`, with options from the configuration.
 *
 * **Errors** — `ConfigError`.
 *
 * **Example** (the address from the environment)
 * ```ts
 * import { Config } from "effect"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 *
 * export const live = LockPostgres.layerConfig({
 *   namespace: Config.succeed("billing"),
 *   url: Config.redacted("DATABASE_URL")
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<Lock.Lock, ConfigError.ConfigError> =>
  Layer.scoped(
    Lock.Lock,
    Ledger.withSite(Effect.flatMap(Config.unwrap(config), make), Ledger.unsafeSite())
  )
