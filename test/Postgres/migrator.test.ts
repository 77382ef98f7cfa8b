import { Migrator, SqlClient } from "@effect/sql"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { embeddedServer } from "../support/postgres.ts"
import { poolsOf } from "../support/postgresPool.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })
const { ask, pool } = poolsOf(server, "migrator")

describe("Postgres: migrations", () => {
  it.scopedLive("four Migrators at once under advisoryLock: one does the work, none fails", () =>
    Effect.gen(function*() {
      for (let round = 0; round < 5; round++) {
        const table = `migrations_${round}`
        const migrate = Migrator.make({})({
          table,
          loader: Migrator.fromRecord({
            "1_cats": Effect.flatMap(
              SqlClient.SqlClient,
              (sql) => sql`create table ${sql(`cats_${round}`)} (id int)`
            )
          })
        })
        const done = yield* Effect.forEach([1, 2, 3, 4], () =>
          Effect.gen(function*() {
            const { advisoryLock, sql } = yield* pool({ max: 2 })
            const locked = Effect.scoped(Effect.zipRight(advisoryLock("migrations"), migrate))
            return yield* Effect.provideService(locked, SqlClient.SqlClient, sql)
          }), { concurrency: 4 })
        expect(done.flat()).toEqual([[1, "cats"]])
      }
      expect(yield* ask("select count(*)::int as n from pg_locks where locktype = 'advisory'"))
        .toEqual([{ n: 0 }])
    }))
})
