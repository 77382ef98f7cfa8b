/**
 * guard: a lock inside a transaction of the user, and a fence that the database itself checks.
 *
 * DESIGN. ../Postgres.ts has the promises. Both are the first statement of their transaction: what it reads after that is as new as
 * the lock. `guard` keeps the row of the key `FOR KEY SHARE`, so no higher fence gets in before the COMMIT (schema.ts).
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Lock from "../../Lock.ts"
import { createSql, idOf, nameOf } from "./schema.ts"

/**
 * How `transact` waits. `acquireTimeout` bounds the wait for the key; default no bound.
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactOptions {
  /** That of the `layerAdvisory` whose leases exclude this transaction. */
  readonly namespace: string
  readonly acquireTimeout?: Duration.DurationInput | undefined
}

/** $1 name, $2 fence. A row of this fence is kept; a lower one is raised, which waits for the transactions that keep it. */
const guardSql = `WITH kept AS (
  SELECT 1 FROM holdfast.lock_lease WHERE name = $1 AND fence = $2::bigint FOR KEY SHARE
), raised AS (
  INSERT INTO holdfast.lock_lease AS lease (name, fence)
  SELECT $1, $2::bigint WHERE NOT EXISTS (SELECT FROM kept)
  ON CONFLICT (name) DO UPDATE SET fence = excluded.fence WHERE lease.fence <= excluded.fence
  RETURNING 1
) SELECT EXISTS (SELECT FROM kept) OR EXISTS (SELECT FROM raised) AS ours`

/**
 * Runs an effect in a transaction of the user that holds the key: the lock and the changes begin and end together. It cannot be lost
 * without its transaction, so it needs no lease, and it works behind a transaction pooler. In a transaction it is a nested one, and
 * holds the key until the outermost ends. Read after it, not before.
 *
 * **Interruption** — Waiting: the statement is cancelled. The body: rolled back.
 * **Errors** — `SqlError`; `LockTimeout` if there is an `acquireTimeout`, which undoes a surrounding transaction too unless it is caught
 *   outside this effect.
 * **Cost** — One statement more than the transaction. The key takes a session of the client's pool while it waits.
 *
 * **Example** (one transfer at a time)
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 *
 * export const transfer = Effect.flatMap(
 *   SqlClient.SqlClient,
 *   (sql) => sql`UPDATE accounts SET balance = balance - 1 WHERE id = 7`
 * ).pipe(LockPostgres.transact("account 7", { namespace: "billing" }))
 * ```
 *
 * @category transactions
 * @since 0.1.0
 */
export const transact = (key: string, { acquireTimeout, namespace }: TransactOptions) =>
<A, E, R>(
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError | Lock.LockTimeout, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const id = idOf(namespace, key)
    const locked = sql.unsafe("SELECT pg_advisory_xact_lock($1::bigint)", [id])
    const waited = acquireTimeout === undefined
      ? locked
      : Effect.timeoutFail(locked, {
        duration: acquireTimeout,
        onTimeout: () => new Lock.LockTimeout({ key, waited: Duration.decode(acquireTimeout) })
      })
    return sql.withTransaction(Effect.zipRight(waited, body))
  })

/** The clients whose database is known to have the table. */
const ready = new WeakSet<SqlClient.SqlClient>()

/**
 * Runs an effect in a transaction that the database refuses once the key has a higher fence. For leases of `layerAdvisory` and
 * `layerLease` of this module and of Lock/Redis: whatever happened to the holder (a pause, a lost network), nothing stale is committed.
 *
 * **Details** — Guarded transactions of one key take effect in the order of their fences. So read inside of one what you base a write on.
 * **Interruption** — As that of the transaction. The loss of the lease interrupts `lease.protect`, not this.
 * **Errors** — `LockLost`, and nothing was changed; `SqlError`.
 * **Cost** — One statement more than the transaction; a write for the first of each lease.
 *
 * **Example** (a report that only the present holder can write)
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import * as Lock from "holdfast/Lock"
 * import * as LockPostgres from "holdfast/Lock/Postgres"
 *
 * const write = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE reports SET ready = true`)
 * export const report = Lock.withLock("report")((lease) => LockPostgres.guard(lease)(write))
 * ```
 *
 * @category transactions
 * @since 0.1.0
 */
export const guard = (lease: Lock.Lease) =>
<A, E, R>(
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError | Lock.LockLost, R | SqlClient.SqlClient> =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => {
    const { fence, key, realm } = lease
    if (realm === undefined) {
      return Effect.dieMessage(
        `LockPostgres.guard: the fences of "${key}" are those of one process, and mean nothing to a database.`
      )
    }
    const check = Effect.flatMap(
      sql.unsafe<{ readonly ours: boolean }>(guardSql, [nameOf(realm, key), String(fence)]),
      ([row]) =>
        row?.ours === true
          ? Effect.void
          : new Lock.LockLost({ key, fence, reason: "superseded" })
    )
    const first = ready.has(sql) ? check : Effect.zipRight(sql.unsafe(createSql), check)
    return Effect.zipRight(
      lease.ensureLive,
      Effect.tap(
        sql.withTransaction(Effect.zipRight(first, body)),
        () => Effect.sync(() => ready.add(sql))
      )
    )
  })
