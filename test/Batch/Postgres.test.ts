import { SqlClient, type SqlError } from "@effect/sql"
import { expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Deferred, Effect, Exit, Fiber, Schema, TestClock } from "effect"
import { Batch, Job, Parallel } from "holdfast"
import * as Checkpoint from "holdfast/Batch/Checkpoint"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import * as Postgres from "holdfast/Postgres"
import { expectTypeOf } from "vitest"

const items = Array.from({ length: 60 }, (_, i) => i)

const setUp = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE effect_rows (key text)`
  return sql
})

const job = (sql: SqlClient.SqlClient, process: (i: number) => Effect.Effect<void, Error>) =>
  Job.make({
    name: "rows",
    key: String,
    process,
    commit: (i: number) =>
      Effect.asVoid(sql`INSERT INTO effect_rows ${sql.insert({ key: String(i) })}`)
  })

/** One key alone, whose effects are these. */
const alone = <E>(checkpoint: Checkpoint.Checkpoint, effects: Effect.Effect<unknown, E>) =>
  checkpoint.attach({ commit: () => effects }).commit({
    key: "k",
    item: "k",
    value: undefined,
    attempts: 1
  })

const isDone = (checkpoint: Checkpoint.Checkpoint) => checkpoint.attach({}).isDone("k")

const counts = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<
      { n: number; d: number }
    >`SELECT count(*)::int n, count(DISTINCT key)::int d FROM effect_rows`,
    (rows) => rows[0]
  )

it.layer(Postgres.layerEmbedded({ max: 4 }), {
  timeout: "60 seconds"
})(
  "Batch/Postgres",
  (it) => {
    it.scoped("BatchPostgres-1: interrupted and resumed at random, each key's effect exists exactly once", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* BatchPostgres.checkpoint({ run: "resumed" })
        const options = { concurrency: 4, checkpoint }
        for (let round = 0; round < 12; round++) {
          const fiber = yield* Effect.fork(
            Batch.run(job(sql, () => Effect.yieldNow()), items, options)
          )
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, round * 3)))
          yield* Fiber.interrupt(fiber)
        }
        const report = yield* Batch.run(job(sql, () => Effect.void), items, options)
        expect(report.done + report.alreadyDone).toBe(60)
        expect(yield* counts(sql)).toEqual({ n: 60, d: 60 })
        yield* sql`DROP TABLE effect_rows`
      }))

    it.scoped("BatchPostgres-1: a commit that fails leaves neither mark nor effect", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* BatchPostgres.checkpoint({ run: "failing" })
        const failing = alone(
          checkpoint,
          Effect.zipRight(
            sql`INSERT INTO effect_rows ${sql.insert({ key: "k" })}`,
            Effect.fail("after the effect")
          )
        )
        expect(Exit.isFailure(yield* Effect.exit(failing))).toBe(true)
        expect(yield* isDone(checkpoint)).toBe(false)
        expect(yield* counts(sql)).toEqual({ n: 0, d: 0 })
        yield* alone(checkpoint, Effect.void)
        expect(yield* isDone(checkpoint)).toBe(true)
        yield* sql`DROP TABLE effect_rows`
      }))

    it.scoped("as a service it has errors of its own, and those of the items pass unchanged", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* Checkpoint.Checkpoint
        const run = Batch.run(job(sql, () => Effect.void), items, { checkpoint })
        expectTypeOf(run).toEqualTypeOf<
          Effect.Effect<
            Batch.Report,
            Batch.BatchFailed<
              Error | SqlError.SqlError | Batch.ItemFailure
            >
          >
        >()
        expect([(yield* run).done, (yield* run).alreadyDone]).toEqual([60, 60])
        const wrong = sql`SELECT * FROM no_such_table`
        expect((yield* Effect.flip(alone(checkpoint, wrong)))._tag).toBe("SqlError")
        yield* sql`ALTER TABLE holdfast_batch_done RENAME TO away`
        const failed = yield* Effect.flip(alone(checkpoint, Effect.void))
        const unread = yield* Effect.flip(isDone(checkpoint))
        yield* sql`ALTER TABLE away RENAME TO holdfast_batch_done`
        if (failed._tag !== "CheckpointError" || unread._tag !== "CheckpointError") {
          return expect.fail(`${failed}, ${unread}`)
        }
        expect([failed._tag, failed.operation, unread.operation, unread.run]).toEqual([
          "CheckpointError",
          "commit",
          "begin",
          "service"
        ])
        yield* sql`DROP TABLE effect_rows`
      }).pipe(
        Effect.provide(BatchPostgres.layerConfig({ run: Config.string("RUN") })),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["RUN", "service"]])))
      ))

    it.scoped("BatchPostgres-2: many first comers all get the table", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`DROP TABLE IF EXISTS holdfast_batch_done`
        const opens = Array.from({ length: 4 }, () => BatchPostgres.checkpoint({ run: "first" }))
        const all = yield* Parallel.all(opens, { concurrency: 4 })
        expect(all.length).toBe(4)
      }))

    it.scoped("BatchPostgres-1 BatchCheckpoint-2: many items share a transaction; one that fails is replayed alone and doubles nothing", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* BatchPostgres.checkpoint({ run: "grouped", groupSize: 20 })
        const insert = Job.make({
          name: "rows",
          key: String,
          process: () => Effect.void,
          commitAll: (group: ReadonlyArray<Job.Processed<number, void>>) =>
            Effect.zipRight(
              sql`INSERT INTO effect_rows ${
                sql.insert(group.map(({ item }) => ({ key: `${item}` })))
              }`,
              group.some(({ item }) => item === 33) ? Effect.fail("33") : Effect.void
            )
        })
        const options = { concurrency: 50, checkpoint, onError: "collect" } as const
        const before = yield* sql<{ n: number }>`SELECT pg_current_xact_id()::text::int AS n`
        const report = yield* Batch.run(insert, items, options)
        const after = yield* sql<{ n: number }>`SELECT pg_current_xact_id()::text::int AS n`
        expect([report.done, report.failed]).toEqual([59, 1])
        expect(yield* counts(sql)).toEqual({ n: 59, d: 59 })
        // Three groups, of which one is replayed.
        expect(after[0]!.n - before[0]!.n).toBeLessThan(30)
        expect((yield* Batch.run(insert, items, options)).alreadyDone).toBe(59)
        yield* sql`DROP TABLE effect_rows`
      }))

    it.scoped("BatchPostgres-4 BatchPostgres-5: an item that kills its process gets a dead letter, which is retried or discarded", () =>
      Effect.gen(function*() {
        const options = { run: "poison", maxCrashes: 2 }
        const item = Schema.Struct({ id: Schema.Number, due: Schema.Date })
        const poison = Job.make({
          name: "poison",
          item,
          key: ({ id }) => `${id}`,
          process: ({ id }) => id === 2 ? Effect.fail("bad") : Effect.void
        })
        const rows = [1, 2, 3].map((id) => ({ id, due: new Date(id) }))
        for (let crash = 0; crash < 2; crash++) {
          // A process that dies here has begun item 3, and ends nothing.
          yield* Effect.flatMap(
            BatchPostgres.checkpoint(options),
            (it) => it.attach({}).isDone("3")
          )
        }
        const run = Effect.flatMap(
          BatchPostgres.checkpoint(options),
          (checkpoint) => Batch.run(poison, rows, { checkpoint, onError: "skip" })
        )
        const first = yield* run
        expect([first.done, first.skipped]).toEqual([1, 2])
        const letters = yield* BatchPostgres.deadLetters(options)
        expect(
          (yield* letters.list).map(({ attempts, item, key }) => [key, item, attempts]).toSorted()
        )
          .toEqual([
            ["2", { id: 2, due: "1970-01-01T00:00:00.002Z" }, 1],
            ["3", { id: 3, due: "1970-01-01T00:00:00.003Z" }, 0]
          ])
        const second = yield* run
        expect([second.alreadyDone, second.skipped]).toEqual([1, 2])
        expect((yield* letters.list).length).toBe(2)
        expect(yield* letters.discard(["2"])).toBe(1)
        expect(yield* letters.retry()).toBe(1)
        const third = yield* run
        expect([third.alreadyDone, third.done, third.skipped]).toEqual([2, 1, 0])
        expect(yield* BatchPostgres.status(options)).toEqual({ done: 3, dead: 0, epoch: 5 })
        // Items that ended, in whatever way, count no crash.
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`SELECT * FROM holdfast_batch_attempt`).toEqual([])
      }))

    it.scoped("BatchPostgres-4: a database that does not answer holds an item that has ended for 5 seconds at most", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const checkpoint = yield* BatchPostgres.checkpoint({ run: "silent", maxCrashes: 2 })
        const isLocked = yield* Deferred.make<void>()
        const blocker = yield* Effect.fork(sql.withTransaction(
          sql`LOCK TABLE holdfast_batch_attempt`.pipe(
            Effect.zipRight(Deferred.succeed(isLocked, undefined)),
            Effect.zipRight(Effect.never)
          )
        ))
        yield* Deferred.await(isLocked)
        const releasing = yield* Effect.fork(
          Effect.uninterruptible(Effect.flip(checkpoint.release("k")))
        )
        const waits = sql<{ n: number }>`SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted`
        yield* Effect.repeat(waits, { until: ([row]) => row!.n === 1 })
        yield* TestClock.adjust("5 seconds")
        expect(yield* Fiber.join(releasing)).toMatchObject({
          operation: "release",
          cause: "no answer within 5 seconds"
        })
        yield* Fiber.interrupt(blocker)
      }))
  }
)
