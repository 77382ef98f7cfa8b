/**
 * Batch/Postgres: a checkpoint in the same database, and the same transaction, as what an item does.
 *
 * DESIGN. Tables of runs with their epochs, of done keys, of dead letters, and of started items. `commit` opens a transaction; one
 * statement locks the epoch's row and marks the keys; then the items' effects run. So marks and effects become true together or not
 * at all. Opening a run raises its epoch. A COMMIT may reach the server long after its process was killed: no lock around a run can
 * stop it, so each transaction holds the epoch's row until it has ended.
 *
 * INVARIANTS
 * - BatchPostgres-1 A key is done if and only if its effects are committed, once, whoever else commits it.
 * - BatchPostgres-2 Two processes that meet on an empty database both get the tables.
 * - BatchPostgres-3 After a run was opened no earlier run of its name commits or writes a dead letter; opening waits for those
 *   transactions of it that are under way.
 * - BatchPostgres-4 With `maxCrashes`, an item that was started that often, and never ended, is not started again.
 * - BatchPostgres-5 A dead letter is retried or discarded, and a discarded item is done: neither loses the item.
 *
 * NOT DONE compaction of finished runs; telling the item that killed a process from those that ran beside it.
 * SOURCES Spring Batch's job repository, River's JobCompleteTx.
 *
 * @since 0.1.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import type * as Statement from "@effect/sql/Statement"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Deadline from "../Deadline.ts"
import * as Checkpoint from "./Checkpoint.ts"

/**
 * How to open a run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** A later run of the same name processes the keys that the earlier one did not finish. */
  readonly run: string
  /** The most items that share a transaction; the concurrency of the run bounds it too. Default 1. */
  readonly groupSize?: number | undefined
  /** An item that ran in so many processes that died gets a dead letter. Items that ran beside it count too, so allow a few.
   * Costs a row per item that is written and removed. Default: not counted. */
  readonly maxCrashes?: number | undefined
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
    )`,
    sql`CREATE TABLE IF NOT EXISTS holdfast_batch_attempt (
      run text NOT NULL,
      key text NOT NULL,
      n int NOT NULL,
      PRIMARY KEY (run, key)
    )`,
    sql`CREATE TABLE IF NOT EXISTS holdfast_batch_dead (
      run text NOT NULL,
      key text NOT NULL,
      item jsonb,
      attempts int NOT NULL,
      cause text NOT NULL,
      buried_at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (run, key)
    )`
  ], { discard: true }))

const releaseWithin = "5 seconds"

/** Rolls the transaction back; `commit` turns it into its answer. */
class AlreadyDone extends Data.TaggedError("AlreadyDone")<{}> {}

/** A failure of an item's own effects, which may be a `SqlError` too. */
class Own<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}

/** In one order for all transactions, so that no two wait for each other's marks. */
const sorted = (keys: ReadonlyArray<string>): Array<string> => keys.toSorted()

/**
 * Opens the checkpoint of a run, under a new epoch, and creates its tables `holdfast_batch_*` if they are missing.
 *
 * **Interruption** — as the statements'; opening waits for the commits of an earlier run that are under way. **Errors** —
 *   `CheckpointError`; then also `Checkpoint.Superseded`, once a later run was opened. **Cost** — per group one indexed read, BEGIN,
 *   one insert and COMMIT beside the items' own statements.
 *
 * **Example** (a job whose items are inserted once, many in one transaction)
 * ```ts
 * import { SqlClient } from "@effect/sql"
 * import { Effect } from "effect"
 * import { Batch, Job } from "holdfast"
 * import * as BatchPostgres from "holdfast/Batch/Postgres"
 *
 * const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   const insert = Job.make({
 *     name: "insert users",
 *     key: (id: number) => `${id}`,
 *     process: (id) => Effect.succeed(`user ${id}`),
 *     commitAll: (group) => sql`insert into users ${sql.insert(group.map(({ item: id, value: name }) => ({ id, name })))}`
 *   })
 *   const checkpoint = yield* BatchPostgres.checkpoint({ run: "import of November", groupSize: 50 })
 *   return yield* Batch.run(insert, [1, 2, 3], { checkpoint, concurrency: 100 })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const checkpoint = (
  { groupSize = 1, maxCrashes, run }: Options
): Effect.Effect<Checkpoint.Checkpoint, Checkpoint.CheckpointError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const failed = (operation: Checkpoint.CheckpointError["operation"]) =>
      Effect.mapError((cause: SqlError.SqlError) =>
        new Checkpoint.CheckpointError({ operation, run, cause })
      )
    yield* failed("open")(createTables(sql))
    const raised = sql<{ epoch: number }>`INSERT INTO holdfast_batch_run VALUES (${run}, 1)
      ON CONFLICT (run) DO UPDATE SET epoch = holdfast_batch_run.epoch + 1 RETURNING epoch`
    const [opened] = yield* failed("open")(raised)
    const epoch = opened!.epoch
    // INVARIANT BatchPostgres-3: the lock lasts until the transaction has ended, and a new epoch waits for it.
    const fence = sql`SELECT 1 FROM holdfast_batch_run
      WHERE run = ${run} AND epoch = ${epoch} FOR SHARE`
    const superseded = new Checkpoint.Superseded({ run, epoch })
    const ended = (keys: Statement.Fragment) =>
      maxCrashes === undefined
        ? sql``
        : sql`, ended AS (DELETE FROM holdfast_batch_attempt WHERE run = ${run} AND key = ANY(${keys}))`
    // INVARIANT BatchPostgres-1: the marks come before the effects, and wait for a transaction that marks one of the keys.
    const mark = (keys: ReadonlyArray<string>) => {
      const list = sql`${sorted(keys)}::text[]`
      const marked = sql`WITH fence AS MATERIALIZED (${fence})${ended(list)}
        INSERT INTO holdfast_batch_done (run, key)
        SELECT ${run}, key FROM fence, unnest(${list}) key
        ON CONFLICT DO NOTHING RETURNING 1`
      return Effect.flatMap(failed("commit")(marked), (rows) =>
        rows.length === keys.length
          ? Effect.void
          : Effect.flatMap(
            failed("commit")(fence),
            (rows): Effect.Effect<never, Checkpoint.CheckpointFailure | AlreadyDone> =>
              Effect.fail(rows.length === 0 ? superseded : new AlreadyDone())
          ))
    }
    const known = (list: Statement.Fragment) =>
      sql`SELECT key, 'done' AS state FROM holdfast_batch_done WHERE run = ${run} AND key = ANY(${list})
        UNION ALL
        SELECT key, 'dead' FROM holdfast_batch_dead WHERE run = ${run} AND key = ANY(${list})`
    // INVARIANT BatchPostgres-4: a start is written before its item starts.
    const started = (list: Statement.Fragment, maxCrashes: number) =>
      sql`WITH known AS MATERIALIZED (${known(list)}), started AS (
          INSERT INTO holdfast_batch_attempt (run, key, n)
          SELECT ${run}, key, 1 FROM unnest(${list}) key WHERE key NOT IN (SELECT key FROM known)
          ON CONFLICT (run, key) DO UPDATE SET n = holdfast_batch_attempt.n + 1
          RETURNING key, n
        )
        SELECT key, state FROM known
        UNION ALL
        SELECT key, 'crashing' FROM started WHERE n > ${maxCrashes}`
    return Checkpoint.make({
      run,
      groupSize,
      begin: (keys) => {
        const list = sql`${sorted(keys)}::text[]`
        const states = maxCrashes === undefined ? known(list) : started(list, maxCrashes)
        return Effect.map(
          failed("begin")(
            states as Statement.Statement<{ key: string; state: "done" | "dead" | "crashing" }>
          ),
          (rows) => new Map(rows.map(({ key, state }) => [key, state]))
        )
      },
      commit: <E, R>(keys: ReadonlyArray<string>, effects: Effect.Effect<unknown, E, R>) =>
        Effect.zipRight(mark(keys), Effect.mapError(effects, (error) => new Own(error))).pipe(
          Effect.as(true),
          sql.withTransaction,
          Effect.catchAll((error): Effect.Effect<boolean, E | Checkpoint.CheckpointFailure> =>
            error instanceof AlreadyDone
              ? Effect.succeed(false)
              : error instanceof Own
              ? Effect.fail(error.error)
              : error._tag === "SqlError"
              ? Effect.fail(
                new Checkpoint.CheckpointError({ operation: "commit", run, cause: error })
              )
              : Effect.fail(error)
          )
        ),
      release: (key) =>
        maxCrashes === undefined
          ? Effect.void
          // An item that was interrupted waits for this: a database that is silent must not hold it.
          : Effect.flatMap(
            Deadline.exit(
              failed("release")(
                sql`DELETE FROM holdfast_batch_attempt WHERE run = ${run} AND key = ${key}`
              ),
              releaseWithin
            ),
            Option.match({
              onNone: () =>
                new Checkpoint.CheckpointError({
                  operation: "release",
                  run,
                  cause: `no answer within ${releaseWithin}`
                }),
              onSome: (exit) => Effect.asVoid(exit)
            })
          ),
      bury: ({ attempts, cause, item, key, schema }) => {
        const encoded = Effect.mapError(
          schema === undefined ? Effect.succeed(item) : Schema.encode(schema)(item),
          (cause) => new Checkpoint.CheckpointError({ operation: "bury", run, cause })
        )
        const insert = (json: string) =>
          sql`WITH fence AS MATERIALIZED (${fence})${ended(sql`ARRAY[${key}]`)}
            INSERT INTO holdfast_batch_dead (run, key, item, attempts, cause)
            SELECT ${run}, ${key}, ${json}::jsonb, ${attempts}::int, ${cause} FROM fence
            ON CONFLICT (run, key) DO UPDATE SET run = excluded.run RETURNING 1`
        return encoded.pipe(
          Effect.flatMap((item) => failed("bury")(insert(JSON.stringify(item) ?? "null"))),
          Effect.filterOrFail((rows) => rows.length > 0, () => superseded),
          Effect.asVoid
        )
      }
    })
  })

/**
 * The dead letters of a run. It opens no run, so one that works is not disturbed.
 *
 * @category dead letters
 * @since 0.1.0
 */
export const deadLetters = (
  { run }: Pick<Options, "run">
): Effect.Effect<
  Checkpoint.DeadLetters<SqlError.SqlError>,
  SqlError.SqlError,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* createTables(sql)
    const taken = (keys: ReadonlyArray<string> | undefined) => {
      const chosen = keys === undefined ? sql`` : sql` AND key = ANY(${sorted(keys)}::text[])`
      return sql`DELETE FROM holdfast_batch_dead WHERE run = ${run}${chosen} RETURNING key`
    }
    return {
      list: sql<Checkpoint.DeadLetter>`SELECT key, item, attempts, cause FROM holdfast_batch_dead
        WHERE run = ${run} ORDER BY buried_at, key`,
      retry: (keys) => Effect.map(taken(keys), (rows) => rows.length),
      // INVARIANT BatchPostgres-5.
      discard: (keys) =>
        Effect.map(
          sql`WITH taken AS (${taken(keys)})
            INSERT INTO holdfast_batch_done (run, key) SELECT ${run}, key FROM taken
            ON CONFLICT DO NOTHING RETURNING 1`,
          (rows) => rows.length
        )
    }
  })

/**
 * How far a run has come, from any process: items done and dead, and how often it was opened.
 *
 * @category dead letters
 * @since 0.1.0
 */
export const status = ({ run }: Pick<Options, "run">): Effect.Effect<
  { readonly done: number; readonly dead: number; readonly epoch: number },
  SqlError.SqlError,
  SqlClient.SqlClient
> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* createTables(sql)
    const rows = yield* sql<{ done: number; dead: number; epoch: number }>`SELECT
      (SELECT count(*)::int FROM holdfast_batch_done WHERE run = ${run}) AS done,
      (SELECT count(*)::int FROM holdfast_batch_dead WHERE run = ${run}) AS dead,
      coalesce((SELECT epoch FROM holdfast_batch_run WHERE run = ${run}), 0) AS epoch`
    return rows[0]!
  })

/**
 * Provides the service `Checkpoint.Checkpoint` from the checkpoint of a run.
 *
 * **Interruption**, **Errors**, **Cost** — as `checkpoint`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<Checkpoint.Checkpoint, Checkpoint.CheckpointError, SqlClient.SqlClient> =>
  Layer.effect(Checkpoint.Checkpoint, checkpoint(options))

/**
 * `layer` with options that are read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<
  Checkpoint.Checkpoint,
  Checkpoint.CheckpointError | ConfigError.ConfigError,
  SqlClient.SqlClient
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))
