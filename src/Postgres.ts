/**
 * Postgres: a pool of Postgres sessions beneath `@effect/sql`, whose statements, transactions and waits can all be stopped.
 *
 * DESIGN. `SqlClient.make` keeps the statement builder, schemas, resolvers and models of `@effect/sql`; beneath it stand bare `pg`
 * clients in a `Pool`. A session is judged by the protocol's own transaction status. This file has the options, the service and
 * the layers; Postgres/{connection, session, pool, loan, stream, client, transaction, errors}.ts have the rest.
 *
 * INVARIANTS
 * - Postgres-1 Interrupting a statement returns within twice `cancelTimeout`, whatever the load of the pool. In a black hole so does
 *   interrupting a transaction.
 * - Postgres-2 A session is lent again only in status "I" with nothing running; one that was sent a cancel only if the
 *   server confirmed it (57014), or itself took it before it was sent anything else: a late cancel would hit the next statement.
 *   All others are closed.
 * - Postgres-3 `active + idle <= max` at every instant; no interruption loses a permit.
 * - Postgres-4 Waiting for a session is interruptible, FIFO, and ends by `acquireTimeout`.
 * - Postgres-5 A transaction commits only if its body succeeded and the server said COMMIT. All its errors are typed; an
 *   interrupt lets a COMMIT under way finish within its grace.
 * - Postgres-6 Statements of a transaction run one at a time, nested transactions too; a fiber that outlives its
 *   transaction gets `TransactionClosed`, never another's session. A statement runs in a transaction of its own pool or in none.
 * - Postgres-7 Closing ends by `drain` and three times `cancelTimeout`, and leaves no session on the server.
 *
 * COST measured November 2026 in one run on a busy machine, the client's processor time on 10 sessions and 1 to 64 fibers: for `select 1`,
 * an insert and a transaction of ten statements sql-pg takes 1.4 to 2.8 times as long, for a stream of 1,000 rows 0.98 to 1.12; bare
 * `pg` takes 0.4 to 0.7 of our time. `npm run bench -- Postgres` has the rest. With a tracer or a statement transformer a
 * statement also has a span and a scope. After `reserve`, and after a text that may leave something in its session, DISCARD ALL: about
 * 40 µs of the server, and no wait but for its next user.
 * SOURCES pgx (status check, own socket for cancel), asyncpg (deadlines for release and close), sqlx 4385, effect 8068.
 *
 * @since 0.1.0
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Ledger from "./Ledger.ts"
import { makeClient } from "./Postgres/client.ts"
import { copyFrom, type CopyInput, type CopyStatement, copyTo } from "./Postgres/copy.ts"
import * as Embedded from "./Postgres/Embedded.ts"
import {
  codeOf,
  type ConnectionLost,
  type InvalidUrl,
  messageOf,
  PostgresUnavailable,
  type Stats
} from "./Postgres/errors.ts"
import { type Gap, managedHub, type Notification } from "./Postgres/listen.ts"
import { borrow, type TransactionOptions } from "./Postgres/loan.ts"
import {
  configOf,
  type Options,
  type PoolOptions,
  resolve,
  type Resolved
} from "./Postgres/options.ts"
import { managedPool, type SessionPool } from "./Postgres/pool.ts"
import { addHook, withTransaction } from "./Postgres/transaction.ts"

export type { CopyInput, CopyStatement } from "./Postgres/copy.ts"
export {
  type Cause,
  causeOf,
  ConnectionLost,
  ForeignStatement,
  InvalidUrl,
  isConnectionLost,
  PostgresClosed,
  PostgresExhausted,
  PostgresTimeout,
  PostgresUnavailable,
  SessionBusy,
  sqlState,
  type Stats,
  TransactionAborted,
  TransactionClosed,
  TransactionOutcomeUnknown,
  TransactionStuck
} from "./Postgres/errors.ts"
export type { Gap, Notification } from "./Postgres/listen.ts"
export type { TransactionOptions } from "./Postgres/loan.ts"

export type { Options, PoolOptions } from "./Postgres/options.ts"

/**
 * A session with one user, for advisory locks, temporary tables and settings. It is wiped when its scope ends.
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
 * The pool: its `SqlClient`, sessions to reserve, counters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** The client of `@effect/sql-pg`, and so of `@effect/sql`. Its `listen` gives payloads alone; `Service.listen` tells of gaps. */
  readonly sql: PgClient.PgClient
  /** As `Postgres.transaction`. */
  readonly transaction: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: TransactionOptions | undefined
  ) => Effect.Effect<A, E | SqlError, R>
  /** As `Postgres.onCommit`. */
  readonly onCommit: <R>(effect: Effect.Effect<void, never, R>) => Effect.Effect<void, never, R>
  /** As `Postgres.onRollback`. */
  readonly onRollback: <R>(effect: Effect.Effect<void, never, R>) => Effect.Effect<void, never, R>
  /** A session with one user, until the scope ends. */
  readonly reserve: Effect.Effect<ReservedSession, SqlError, Scope.Scope>
  /**
   * Notifications of a channel, as a stream that is ready when the server has acknowledged it. A `Gap` says that some may be
   * missing: read again what they tell about. All channels share one connection, which does not count for `max`; when it is lost,
   * it is made anew. Fails at once if it cannot be made, and at the close of the pool.
   */
  readonly listen: (
    channel: string
  ) => Effect.Effect<Stream.Stream<Notification | Gap, SqlError>, SqlError, Scope.Scope>
  /** Sends to a channel; in a transaction, when it commits. A payload has at most 7,999 bytes. */
  readonly notify: (channel: string, payload: string) => Effect.Effect<void, SqlError>
  /**
   * Sends a stream to `copy … from stdin`, in the transaction around it or alone, and gives the number of rows. If the stream fails or
   * is interrupted, nothing is copied. A statement of the source itself to the same transaction fails with `SessionBusy`.
   */
  readonly copyFrom: <E, R>(
    statement: CopyStatement,
    source: Stream.Stream<CopyInput, E, R>
  ) => Effect.Effect<number, E | SqlError, R>
  /**
   * What `copy … to stdout` sends, in pieces that are cut anywhere. The server waits for a slow reader. In a transaction no other
   * statement can run meanwhile: it fails with `SessionBusy`.
   */
  readonly copyTo: (statement: CopyStatement) => Stream.Stream<Uint8Array, SqlError>
  /**
   * An exclusive lock on a name among all sessions of the database, until the scope ends. It takes a session of the pool. Run
   * migrations under it: two concurrent `Migrator`s may both create their table, and then one fails. `Lock/Postgres` has leases.
   */
  readonly advisoryLock: (key: string) => Effect.Effect<void, SqlError, Scope.Scope>
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

const unavailable = (settings: Resolved, error: SqlError): PostgresUnavailable => {
  const cause = error.cause instanceof AggregateError ? error.cause.errors[0] : error.cause
  return new PostgresUnavailable({
    ...settings.address,
    code: codeOf(cause) ?? "",
    reason: messageOf(cause)
  })
}

/** Opens the first session, so that a wrong address fails here and not at the first statement. */
const firstSession = (pool: SessionPool): Effect.Effect<void, SqlError> =>
  pool.lend(() => Effect.void)

/** The parameter that the compiler of sql-pg knows as JSON; its own constructor is not exported. */
const json = Statement.custom<Statement.Custom<"PgJson", unknown>>("PgJson")

const makeService = (
  given: Options
): Effect.Effect<Service, PostgresUnavailable | InvalidUrl, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function*() {
    const settings = yield* resolve(given)
    const { address, options } = settings
    const pool = yield* managedPool(settings)
    yield* Effect.mapError(firstSession(pool), (error) => unavailable(settings, error))
    const hub = yield* managedHub(settings, settings.applicationName)
    const { transformJson, transformQueryNames, transformResultNames } = options
    const reserve = borrow(pool, true)
    const spanAttributes = [
      ...Object.entries(options.spanAttributes ?? {}),
      ["db.system.name", "postgresql"],
      ["db.namespace", address.database],
      ["server.address", address.host],
      ["server.port", address.port]
    ] as const
    const client = yield* makeClient({
      pool,
      reserve,
      compiler: PgClient.makeCompiler(transformQueryNames, transformJson),
      transformRows: transformResultNames
        && Statement.defaultTransforms(transformResultNames, transformJson).array,
      spanAttributes
    })
    const notify: Service["notify"] = (channel, payload) =>
      Effect.asVoid(client`select pg_notify(${channel}, ${payload})`)
    const sql: PgClient.PgClient = Object.assign(client, {
      [PgClient.TypeId]: PgClient.TypeId,
      config: configOf(settings),
      json,
      listen: (channel: string) =>
        Stream.filterMap(
          Stream.unwrapScoped(hub.listen(channel)),
          (one) => one._tag === "Notification" ? Option.some(one.payload) : Option.none()
        ),
      notify
    })
    return {
      sql,
      transaction: withTransaction(pool, spanAttributes),
      onCommit: (effect) => addHook(pool, "commit", effect),
      onRollback: (effect) => addHook(pool, "rollback", effect),
      listen: (channel) => hub.listen(channel),
      notify,
      copyFrom: (statement, source) => copyFrom(pool, statement, source),
      copyTo: (statement) => copyTo(pool, statement),
      advisoryLock: (key) =>
        Effect.flatMap(reserve, (loan) =>
          Effect.asVoid(
            loan.execute("select pg_advisory_lock(hashtextextended($1, 0))", [key], undefined)
          )),
      stats: Effect.sync(() => pool.unsafeStats()),
      reserve: Effect.map(reserve, (loan): ReservedSession =>
        Object.assign(loan, {
          processId: loan.session.processId ?? 0,
          lost: Deferred.await(loan.session.ended)
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
 *   `SqlError`, which `sqlState`, `causeOf` and `isConnectionLost` read. An option that cannot be is a `RangeError` defect.
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

/**
 * Runs an effect in a transaction: COMMIT if it succeeds, ROLLBACK otherwise. In a transaction of the same pool it is nested: a
 * savepoint. Nested ones that run side by side take turns, in the order of arrival. `sql.withTransaction` is the same.
 *
 * **Details** — Statements find the transaction of their own pool, also inside one of another pool. An option of a nested
 *   transaction that the outermost does not have is a defect; its `retry` does nothing.
 * **Interruption** — Waiting, BEGIN and the body: rolled back, within twice `cancelTimeout`. A COMMIT under way gets that time to
 *   end; the exit is an interruption, and `onCommit` tells whether it took effect.
 * **Errors** — `SqlError`, read with `sqlState` and `causeOf`: `TransactionAborted`, `TransactionOutcomeUnknown`, `TransactionClosed`,
 *   `TransactionStuck`, and those of waiting for a session.
 * **Cost** — Two round trips; two for a nested one.
 *
 * **Example** (again after a serialization failure)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Postgres from "holdfast/Postgres"
 *
 * const count = Effect.gen(function*() {
 *   const { sql } = yield* Postgres.Postgres
 *   return yield* sql`select 1 as one`
 * })
 * const program = Postgres.transaction(count, { isolation: "serializable", readOnly: true, retry: 5 })
 * const rows = await Effect.runPromise(Effect.provide(program, Postgres.layerEmbedded()))
 * rows // => [{ one: 1 }]
 * ```
 *
 * @category transactions
 * @since 0.1.0
 */
export const transaction: {
  (
    options?: TransactionOptions
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R | Postgres>
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: TransactionOptions
  ): Effect.Effect<A, E | SqlError, R | Postgres>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: TransactionOptions) =>
    Effect.flatMap(Postgres, (postgres) => postgres.transaction(self, options))
)

/**
 * Runs an effect after the COMMIT of the transaction around this fiber, and only if it took effect; at once outside of a
 * transaction. In a nested transaction it waits for the outermost, and is dropped if the nested one is rolled back.
 *
 * **Details** — Hooks run in the order in which they were added, when the session has been given back, and before the transaction
 *   returns. With `retry`, those of the last attempt run.
 * **Interruption** — A hook is not interrupted, so keep it short. **Errors** — What it dies with is logged.
 *
 * @category transactions
 * @since 0.1.0
 */
export const onCommit = <R>(
  effect: Effect.Effect<void, never, R>
): Effect.Effect<void, never, R | Postgres> =>
  Effect.flatMap(Postgres, (postgres) => postgres.onCommit(effect))

/**
 * Runs an effect after the transaction around this fiber, or a nested one of it, was rolled back. Neither this nor `onCommit` runs if
 * the outcome is unknown. As `onCommit` otherwise.
 *
 * **Interruption**, **Errors** — as `onCommit`.
 *
 * @category transactions
 * @since 0.1.0
 */
export const onRollback = <R>(
  effect: Effect.Effect<void, never, R>
): Effect.Effect<void, never, R | Postgres> =>
  Effect.flatMap(Postgres, (postgres) => postgres.onRollback(effect))

type Services = Postgres | SqlClient.SqlClient | PgClient.PgClient

const contextOf = (service: Service): Context.Context<Services> =>
  Context.make(Postgres, service).pipe(
    Context.add(SqlClient.SqlClient, service.sql),
    Context.add(PgClient.PgClient, service.sql)
  )

/**
 * The pool as a layer, in the place of `PgClient.layer`: `SqlClient.SqlClient` for all of `@effect/sql`, `PgClient.PgClient` for what is
 * Postgres' own there, and `Postgres` for reserved sessions and counters.
 *
 * **Interruption** — as `make`. **Errors** — as `make`. **Cost** — as `make`.
 *
 * **Example** (a token for each connection, in the place of a password)
 * ```ts
 * import { Effect } from "effect"
 * import * as Postgres from "holdfast/Postgres"
 *
 * const token = Effect.promise(() => fetch("http://169.254.169.254/token").then((answer) => answer.text()))
 * export const live = Postgres.layer({ host: "db.internal", user: "shop", password: token, ssl: true })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Services, PostgresUnavailable | InvalidUrl> =>
  Layer.provide(
    Layer.scopedContext(
      Effect.map(Ledger.withSite(makeService(options), Ledger.unsafeSite()), contextOf)
    ),
    Reactivity.layer
  )

/**
 * `layer`, with options from the configuration.
 *
 * **Errors** — those of `layer`, and `ConfigError`.
 *
 * **Example** (the URL from the environment)
 * ```ts
 * import { Config } from "effect"
 * import * as Postgres from "holdfast/Postgres"
 *
 * export const live = Postgres.layerConfig({
 *   url: Config.redacted("DATABASE_URL"),
 *   max: Config.withDefault(Config.integer("DATABASE_SESSIONS"), 10)
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<
  Services,
  PostgresUnavailable | InvalidUrl | ConfigError.ConfigError
> => {
  const made = Effect.flatMap(Config.unwrap(config), makeService)
  return Layer.provide(
    Layer.scopedContext(Effect.map(Ledger.withSite(made, Ledger.unsafeSite()), contextOf)),
    Reactivity.layer
  )
}

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
  Services | Embedded.Embedded,
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
