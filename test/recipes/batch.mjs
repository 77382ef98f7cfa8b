import { SqlClient } from "@effect/sql"
import { Effect } from "effect"
import { Batch } from "holdfast"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import * as Postgres from "holdfast/Postgres"

const importUsers = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table if not exists users (id int, name text)`
  const checkpoint = yield* BatchPostgres.checkpoint({ run: "import of November" })
  const job = {
    name: "import users",
    key: (id) => `${id}`,
    // At least once, outside of any transaction.
    process: (id) => Effect.succeed(`user ${id}`),
    // Exactly once: in the transaction that marks the key as done.
    commit: (id, name) => sql`insert into users values (${id}, ${name})`
  }
  return yield* Batch.run(job, [1, 2, 3], { checkpoint, concurrency: 8 })
})

const twice = Effect.gen(function*() {
  const first = yield* importUsers
  const second = yield* importUsers
  console.log(`first: ${first.done} done; second: ${second.alreadyDone} already done`)
})
// `Postgres.layer({ url })` in production.
await Effect.runPromise(Effect.provide(twice, Postgres.layerEmbedded()))
