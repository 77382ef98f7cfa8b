/**
 * Lock/Postgres: locks among all that reach one Postgres database.
 *
 * DESIGN. This file is the door. Postgres/advisory.ts holds keys by sessions: the server queues the waiters in order, there is no time
 * to live, and the end of the socket is the loss signal. A bounded ping finds a silent peer; that bound (`pingInterval + pingTimeout`,
 * 6 s) is shorter than the time in which the server drops us by the keepalive settings of the session (10 to 11 s), so the body is
 * stopped before the next holder starts. Postgres/lease.ts holds keys by rows that end, for servers behind a pooler. guard.ts has what a transaction of the user can do; session.ts has the connections,
 * which are never those of a query pool; schema.ts has what stands in the database.
 *
 * INVARIANTS
 * - LockPostgres-1 (G1) The fence is drawn by the granted session, after the grant and before its release, from one sequence of the
 *   database, whatever the `search_path`: it rises.
 * - LockPostgres-2 (G3) After an interrupted wait no session of ours waits or holds: after 2 s without an answer the socket is
 *   destroyed.
 * - LockPostgres-3 (G4) A session that ends, or does not answer a ping in time, loses all its leases at once.
 * - LockPostgres-4 (G8) No error of a connection is unhandled, and closing the layer leaves no connection.
 * - LockPostgres-5 Behind a pooler that separates session and connection `layer` fails with `LockUnsupported`.
 * - LockPostgres-6 `transact`: the lock ends with the transaction, whatever ends that; a lease of the same key excludes it.
 * - LockPostgres-7 `guard`: a transaction whose fence is lower than one that a guarded transaction of the key has brought fails with
 *   `LockLost` and changes nothing. It sees what guarded transactions of lower fences have committed, and higher ones wait for it.
 * - LockPostgres-9 (G4) The body under a lease of `layerLease` is interrupted at the last successful renewal plus 4/5 of the time to live,
 *   by local clocks.
 * - LockPostgres-10 (G1) `layerLease` draws the fence in the statement of the grant, with the row locked: it is higher than each before.
 *   Renewal and release compare the owner, which is unique: an expired lease neither renews nor frees another's.
 * - LockPostgres-11 `layerLease` works behind a transaction pooler. A notification that is lost is a delay of `pollInterval`.
 * - LockPostgres-8 Keys that are free when they are asked for share one session, however many. A wait has a session to itself, keeps it
 *   while it holds, and gives it back when it is cancelled. There are never more than `maxSessions`.
 *
 * COST (2026-11) one round trip to acquire a free key and one to release it; a wait is one more. A label, and a line that the ledger
 * records, is a write that nothing waits for. A cancel opens a socket for an instant.
 * A lease row costs one statement to acquire, which the server writes to disk, one per renewal, and one to release.
 * NOT DONE `lock_timeout` for `acquireTimeout` (it may raise although the lock was granted); shared mode; safety across a failover to
 * a replica that had not seen the grant. Keepalive notices a server that vanishes during a wait, in about 15 s.
 * Bounds on an answer are in real time, not on the `Clock`; `acquireTimeout` is on the `Clock`.
 * NOT PROMISED that a network failure stops the holder before the server grants the key to the next: `guard` makes that harmless in
 * the database, and `transact` needs no promise. A body under a row that is paused past its time to live still runs while the next
 * holder does: the same. Rows give no order among processes.
 * PRIVILEGES The first user makes the schema `holdfast`, and needs CREATE on the database for that. Each other role needs
 * `GRANT USAGE ON SCHEMA holdfast`, `GRANT USAGE ON SEQUENCE holdfast.lock_fence`, `GRANT SELECT, INSERT, UPDATE, DELETE ON
 * holdfast.lock_lease, holdfast.lock_holder`.
 * SOURCES madelson/DistributedLock (multiplexing by a try; #147, lock_timeout), pgbouncer #102, yugabyte #26105.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Ledger from "../Ledger.ts"
import * as Lock from "../Lock.ts"
import * as Advisory from "./Postgres/advisory.ts"
import * as Leases from "./Postgres/lease.ts"

export type { Options } from "./Postgres/advisory.ts"
export { guard, transact, type TransactOptions } from "./Postgres/guard.ts"
export type { LeaseOptions } from "./Postgres/lease.ts"
export type { Address } from "./Postgres/session.ts"

/**
 * A lock service among all that reach one database, until the scope closes; leases still held then are lost.
 *
 * **Interruption** — Opening, Waiting: cancelled on the server, and its end awaited; within 2 seconds if the server does not answer.
 *   Holding: the lock is released before the interrupt is seen.
 * **Errors** — of the service's operations: `LockUnsupported` behind a pooler, `LockBackendError` if the server fails; of the
 *   brackets also `LockLost` when the session ends. `make` itself connects to nothing and does not fail.
 * **Cost** — see the head of this file.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Advisory.Options): Effect.Effect<Lock.Service, never, Scope.Scope> =>
  Advisory.makeService(options)

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
export const layer = (options: Advisory.Options): Layer.Layer<Lock.Lock> =>
  Layer.scoped(Lock.Lock, Ledger.withSite(make(options), Ledger.unsafeSite()))

/**
 * Another name of `layer`, beside `layerLease`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAdvisory: typeof layer = layer

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
  config: Config.Config.Wrap<Advisory.Options>
): Layer.Layer<Lock.Lock, ConfigError.ConfigError> =>
  Layer.scoped(
    Lock.Lock,
    Ledger.withSite(Effect.flatMap(Config.unwrap(config), make), Ledger.unsafeSite())
  )

/**
 * A lock service by rows with a time to live, among all that reach one database, until the scope closes; leases still held then are
 * lost, and expire. It works behind a transaction pooler. Its keys are not those of `make`.
 *
 * **Interruption** — Waiting: the wait ends. Opening: the answer is awaited, 2 seconds at most. Holding: the lock is released before the
 *   interrupt is seen.
 * **Errors** — of the service's operations: `LockBackendError` if the server does not answer; of the brackets also `LockLost`. `make`
 *   itself connects to nothing and does not fail. A `ttl` below 100 milliseconds is a defect.
 * **Cost** — see the head of this file.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeLease = (
  options: Leases.LeaseOptions
): Effect.Effect<Lock.Service, never, Scope.Scope> => Leases.makeLeaseService(options)

/**
 * `makeLease` as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `makeLease`.
 *
 * **Example** (behind a pooler; nothing stale is committed, even by a holder that was paused)
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import * as Lock from "holdfast/Lock"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 *
 * const write = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE reports SET ready = true`)
 * const report = Lock.withLock("report")((lease) => LockPostgres.guard(lease)(write))
 * const locks = LockPostgres.layerLease({ namespace: "billing", url: "postgres://pooler:6432/billing" })
 * export const program = Effect.provide(report, locks)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLease = (options: Leases.LeaseOptions): Layer.Layer<Lock.Lock> =>
  Layer.scoped(Lock.Lock, Ledger.withSite(makeLease(options), Ledger.unsafeSite()))

/**
 * `layerLease`, with options from the configuration.
 *
 * **Errors** — `ConfigError`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLeaseConfig = (
  config: Config.Config.Wrap<Leases.LeaseOptions>
): Layer.Layer<Lock.Lock, ConfigError.ConfigError> =>
  Layer.scoped(
    Lock.Lock,
    Ledger.withSite(Effect.flatMap(Config.unwrap(config), makeLease), Ledger.unsafeSite())
  )
