/**
 * Batch/Postgres: a checkpoint in the same database, and the same transaction, as what an item does.
 *
 * DESIGN. One table of done keys, and one of runs with their epochs. `commit` opens a transaction, checks the epoch, marks the key
 * and runs the item's effects, so mark and effects become true together or not at all. Opening a run raises its epoch. A COMMIT may
 * reach the server long after its process was killed: no lock around a run can stop it, so each transaction holds the epoch's row.
 *
 * INVARIANTS
 * - BatchPostgres-1 A key is done if and only if its effects are committed, once, whoever else commits it.
 * - BatchPostgres-2 Two processes that meet on an empty database both get the tables.
 * - BatchPostgres-3 After a run was opened no earlier run of its name commits; opening waits for the commits under way.
 *
 * NOT DONE compaction of finished runs.
 * SOURCES Spring Batch's job repository, River's JobCompleteTx.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Data from "effect/Data"
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
export interface Checkpoint extends Batch.Checkpoint<SqlError.SqlError | Batch.Superseded, never> {
  readonly forget: (key: string) => Effect.Effect<void, SqlError.SqlError>
}

const createTables = (sql: SqlClient.SqlClient) =>
  sql.withTransaction(Effect.all([
    // BatchPostgres-2: IF NOT EXISTS alone fails for one of two first comers.
    sql`SELECT pg_advisory_xact_lock(hashtext('holdfast_batch'))`,
    sql`CREATE TABLE IF NOT EXISTS holdfast_batch_run (run text PRIMARY KEY, epoch int NOT NULL)`,
    sql`CREATE TABLE IF NOT EXISTS holdfast_batch_done (
      run text NOT NULL,
      key text NOT NULL,
      finished_at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (run, key)
    )`
  ], { discard: true }))

/** Rolls the transaction back; `commit` turns it into its answer. */
class AlreadyDone extends Data.TaggedError("AlreadyDone")<{}> {}

/**
 * Opens the checkpoint of a run, under a new epoch, and creates its tables `holdfast_batch_*` if they are missing.
 *
 * **Interruption** — as the statements'; opening waits for the commits of an earlier run that are under way, and those that come
 *   later fail. **Errors** — `SqlError`; `Batch.Superseded` of a commit after a later run was opened. **Cost** — one indexed read,
 *   and one insert, per item.
 *
 * @category constructors
 * @since 0.1.0
 */
export const checkpoint = (
  { run }: Options
): Effect.Effect<Checkpoint, SqlError.SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* createTables(sql)
    const [opened] = yield* sql<{ epoch: number }>`INSERT INTO holdfast_batch_run VALUES (${run}, 1)
      ON CONFLICT (run) DO UPDATE SET epoch = holdfast_batch_run.epoch + 1 RETURNING epoch`
    const epoch = opened!.epoch
    // INVARIANT BatchPostgres-3: the lock lasts until the transaction has ended, and a new epoch waits for it.
    const fence =
      sql`SELECT 1 FROM holdfast_batch_run WHERE run = ${run} AND epoch = ${epoch} FOR SHARE`
    // INVARIANT BatchPostgres-1: the mark comes before the effects, and waits for a transaction that marks the same key.
    const mark = (key: string) =>
      sql`INSERT INTO holdfast_batch_done (run, key) VALUES (${run}, ${key})
        ON CONFLICT DO NOTHING RETURNING 1`
    return {
      isDone: (key) =>
        Effect.map(
          sql`SELECT 1 FROM holdfast_batch_done WHERE run = ${run} AND key = ${key}`,
          (rows) => rows.length > 0
        ),
      commit: (key, effects) =>
        fence.pipe(
          Effect.filterOrFail(isPresent, () => new Batch.Superseded({ run, epoch })),
          Effect.zipRight(mark(key)),
          Effect.filterOrFail(isPresent, () => new AlreadyDone()),
          Effect.zipRight(effects),
          Effect.as(true),
          sql.withTransaction,
          Effect.catchIf((error) => error instanceof AlreadyDone, () => Effect.succeed(false))
        ),
      forget: (key) =>
        Effect.asVoid(sql`DELETE FROM holdfast_batch_done WHERE run = ${run} AND key = ${key}`)
    }
  })

const isPresent = (rows: ReadonlyArray<unknown>): boolean => rows.length > 0

/** A failure of an item's own effects, which may be a `SqlError` too. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

type Provided = Batch.Checkpoint<Batch.CheckpointError | Batch.Superseded, never>

const asService = ({ commit, isDone }: Checkpoint): Provided => {
  const failed =
    (operation: "isDone" | "commit", key: string) =>
    (error: SqlError.SqlError | Batch.Superseded) =>
      error instanceof Batch.Superseded
        ? error
        : new Batch.CheckpointError({ operation, key, cause: error })
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
