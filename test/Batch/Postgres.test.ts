import { SqlClient, type SqlError } from "@effect/sql"
import { expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Effect, Exit, Fiber } from "effect"
import { Batch, Parallel } from "holdfast"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import * as Postgres from "holdfast/Postgres"
import { expectTypeOf } from "vitest"

const items = Array.from({ length: 60 }, (_, i) => i)

const setUp = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE effect_rows (key text)`
  return sql
})

const job = (sql: SqlClient.SqlClient, process: (i: number) => Effect.Effect<void, Error>) => ({
  name: "rows",
  key: String,
  process,
  commit: (i: number) =>
    Effect.asVoid(sql`INSERT INTO effect_rows ${sql.insert({ key: String(i) })}`)
})

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

    it.scoped("BatchPostgres-1: a commit that fails leaves neither mark nor effect; forget makes it undone", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* BatchPostgres.checkpoint({ run: "failing" })
        const failing = checkpoint.commit(
          "k",
          Effect.zipRight(
            sql`INSERT INTO effect_rows ${sql.insert({ key: "k" })}`,
            Effect.fail("after the effect")
          )
        )
        expect(Exit.isFailure(yield* Effect.exit(failing))).toBe(true)
        expect(yield* checkpoint.isDone("k")).toBe(false)
        expect(yield* counts(sql)).toEqual({ n: 0, d: 0 })
        yield* checkpoint.commit("k", Effect.void)
        expect(yield* checkpoint.isDone("k")).toBe(true)
        yield* checkpoint.forget("k")
        expect(yield* checkpoint.isDone("k")).toBe(false)
        yield* sql`DROP TABLE effect_rows`
      }))

    it.scoped("as a service it has errors of its own, and those of the items pass unchanged", () =>
      Effect.gen(function*() {
        const sql = yield* setUp
        const checkpoint = yield* Batch.Checkpoint
        const run = Batch.run(job(sql, () => Effect.void), items, { checkpoint })
        expectTypeOf(run).toEqualTypeOf<
          Effect.Effect<
            Batch.Report,
            Batch.BatchFailed<
              | Error
              | SqlError.SqlError
              | Batch.CheckpointError
              | Batch.Superseded
              | Batch.ItemTimeout
            >
          >
        >()
        expect([(yield* run).done, (yield* run).alreadyDone]).toEqual([60, 60])
        const wrong = sql`SELECT * FROM no_such_table`
        expect((yield* Effect.flip(checkpoint.commit("k", wrong)))._tag).toBe("SqlError")
        yield* sql`ALTER TABLE holdfast_batch_done RENAME TO away`
        const failed = yield* Effect.flip(checkpoint.commit("k", Effect.void))
        const unread = yield* Effect.flip(checkpoint.isDone("k"))
        yield* sql`ALTER TABLE away RENAME TO holdfast_batch_done`
        if (failed._tag !== "CheckpointError" || unread._tag !== "CheckpointError") {
          return expect.fail(`${failed}, ${unread}`)
        }
        expect([failed._tag, failed.operation, unread.operation, unread.key]).toEqual([
          "CheckpointError",
          "commit",
          "isDone",
          "k"
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
  }
)
