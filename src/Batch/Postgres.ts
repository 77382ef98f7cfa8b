/**
 * Batch/Postgres: a checkpoint in the same database, and the same transaction, as what an item does.
 *
 * DESIGN. One table of done keys per run name. `commit` opens a transaction, runs the item's effects and marks the key, so
 * both become true together or not at all. After any number of kills each key's effects exist exactly once.
 *
 * INVARIANTS
 * - BatchPostgres-1 A key is done if and only if its effects are committed.
 * - BatchPostgres-2 Two processes that meet on an empty database both get the table.
 *
 * NOT DONE fencing of a stale owner (hold a `Lock` around the run), compaction of finished runs.
 * SOURCES Spring Batch's job repository, River's JobCompleteTx.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Batch from "../Batch.ts"

/**
 * The name of a run. A later run of the same name processes the keys that the earlier one did not finish.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly run: string
}

/**
 * A checkpoint that can also forget a key: its item is processed again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Checkpoint extends Batch.Checkpoint<SqlError.SqlError, never> {
  readonly forget: (key: string) => Effect.Effect<void, SqlError.SqlError>
}

/**
 * Opens the checkpoint of a run and creates its table `holdfast_batch_done` if it is missing.
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

/** A failure of an item's own effects, which may be a `SqlError` too. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

type Provided = Batch.Checkpoint<Batch.CheckpointError, never>

const asService = ({ commit, isDone }: Checkpoint): Provided => {
  const failed = (operation: "isDone" | "commit", key: string) => (cause: SqlError.SqlError) =>
    new Batch.CheckpointError({ operation, key, cause })
  return {
    isDone: (key) => Effect.mapError(isDone(key), failed("isDone", key)),
    commit: (key, effects) =>
      Effect.mapError(
        commit(key, Effect.mapError(effects, (error) => new Own(error))),
        (error) => error instanceof Own ? error.error : failed("commit", key)(error)
      )
  }
}

/**
 * Provides the service `Batch.Checkpoint` from the checkpoint of a run.
 *
 * **Interruption**, **Cost** — as `checkpoint`. **Errors** — `SqlError` when it is built; then `CheckpointError`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<Provided, SqlError.SqlError, SqlClient.SqlClient> =>
  Layer.effect(Batch.Checkpoint, Effect.map(checkpoint(options), asService))

/**
 * `layer` with options that are read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<Provided, SqlError.SqlError | ConfigError.ConfigError, SqlClient.SqlClient> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
