/**
 * Batch/Postgres: a checkpoint in the same database, and the same transaction, as what an item does.
 *
 * DESIGN. One table of done keys per run name. `commit` opens a transaction, runs the item's effects and marks the key, so
 * both become true together or not at all; after any number of kills each key's effects exist exactly once.
 *
 * INVARIANTS
 * - BatchPostgres-1 A key is done if and only if its effects are committed.
 * - BatchPostgres-2 Two processes that meet on an empty database both get the table.
 *
 * NOT DONE here yet: fencing of a stale owner (hold a `Lock` around the run), compaction of finished runs.
 * SOURCES Spring Batch's job repository, River's JobCompleteTx.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import type * as Batch from "../Batch.ts"

/**
 * Which run is remembered. A later run of the same name goes on where the earlier one stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly run: string
}

/**
 * A checkpoint that can also be told to forget.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint extends Batch.Checkpoint<SqlError.SqlError, never> {
  readonly forget: (key: string) => Effect.Effect<void, SqlError.SqlError>
}

/**
 * Opens the checkpoint of a run, making its table `holdfast_batch_done` if need be.
 *
 * **Interruption** — as the statements'. **Errors** — `SqlError`. **Cost** — one indexed read and one insert per item.
 *
 * @category constructors
 * @since 0.1.0
 */
export const checkpoint = (
  { run }: Options
): Effect.Effect<Checkpoint, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.withTransaction(Effect.zipRight(
      // BatchPostgres-2: IF NOT EXISTS alone fails for one of two first comers.
      sql`SELECT pg_advisory_xact_lock(hashtext('holdfast_batch_done'))`,
      sql`CREATE TABLE IF NOT EXISTS holdfast_batch_done (
        run text NOT NULL,
        key text NOT NULL,
        finished_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (run, key)
      )`
    ))
    return {
      isDone: (key) =>
        Effect.map(
          sql`SELECT 1 FROM holdfast_batch_done WHERE run = ${run} AND key = ${key}`,
          (rows) => rows.length > 0
        ),
      commit: (key, effects) =>
        sql.withTransaction(Effect.zipRight(
          effects,
          sql`INSERT INTO holdfast_batch_done (run, key) VALUES (${run}, ${key})
            ON CONFLICT (run, key) DO UPDATE SET finished_at = now()`
        )),
      forget: (key) =>
        Effect.asVoid(sql`DELETE FROM holdfast_batch_done WHERE run = ${run} AND key = ${key}`)
    }
  })
