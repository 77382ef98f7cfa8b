/** Statements per second on one server: ours, sql-pg's client, and the bare pool of `pg`; 10 sessions each. */
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Exit, Layer, Scope, Stream } from "effect"
import * as Postgres from "holdfast/Postgres"
import * as Embedded from "holdfast/Postgres/Embedded"
import { createRequire } from "node:module"
import * as Pg from "pg"
import type { Suite } from "./run.ts"

const sessions = 10

const scope = Effect.runSync(Scope.make())
const built = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Scope.extend(effect, scope))
const clientOf = <E>(layer: Layer.Layer<SqlClient.SqlClient, E>) =>
  Effect.map(Layer.build(layer), Context.get(SqlClient.SqlClient))

const { host, port, user } = await built(Embedded.make())
const address = { host, port, username: user, database: user }
const ours = await built(clientOf(Postgres.layer({ ...address, max: sessions })))
const wiping = await built(clientOf(Postgres.layer({ ...address, max: sessions, reset: "always" })))
const theirs = await built(clientOf(PgClient.layer({ ...address, maxConnections: sessions })))
const bare = new Pg.Pool({ host, port, user, database: user, max: sessions })
await bare.query("create table rows (id serial primary key, name text)")
await bare.query(
  "create table thousand as select n as id, 'name ' || n as name from generate_series(1, 1000) n"
)

export const close = () => bare.end().then(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type PgCursor = new(text: string) => Pg.Submittable & {
  readonly read: (rows: number) => Promise<ReadonlyArray<unknown>>
  readonly close: () => Promise<void>
}
const Cursor: PgCursor = createRequire(createRequire(import.meta.url).resolve("@effect/sql-pg"))(
  "pg-cursor"
)

const withClient = async <A>(use: (client: Pg.PoolClient) => Promise<A>): Promise<A> => {
  const client = await bare.connect()
  try {
    return await use(client)
  } finally {
    client.release()
  }
}

const ten = Array.from({ length: 10 }, (_, i) => i)

const works: Record<string, {
  readonly effect: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>
  readonly promise: () => Promise<unknown>
  /** For one call of a contender, over all its fibers. */
  readonly operations: number
}> = {
  "select 1": {
    effect: (sql) => sql`select 1`,
    promise: () => bare.query("select 1"),
    operations: 640
  },
  "insert": {
    effect: (sql) => sql`insert into rows (name) values (${"a name"})`,
    promise: () => bare.query("insert into rows (name) values ($1)", ["a name"]),
    operations: 640
  },
  "transaction of ten": {
    effect: (sql) =>
      sql.withTransaction(Effect.forEach(ten, (i) => sql`select ${i}::int`, { discard: true })),
    promise: () =>
      withClient(async (client) => {
        await client.query("BEGIN")
        for (const i of ten) await client.query("select $1::int", [i])
        await client.query("COMMIT")
      }),
    operations: 64
  },
  "stream of 1,000 rows": {
    effect: (sql) => Stream.runDrain(sql`select * from thousand`.stream),
    promise: () =>
      withClient(async (client) => {
        const cursor = client.query(new Cursor("select * from thousand"))
        while ((await cursor.read(128)).length > 0);
        await cursor.close()
      }),
    operations: 64
  }
}

const suites: Array<Suite> = []
for (const [name, { effect, operations, promise }] of Object.entries(works)) {
  for (const fibers of [1, 16, 64]) {
    const each = operations / fibers
    const run = (one: Effect.Effect<unknown, unknown>) => () =>
      Effect.runPromise(Effect.forEach(
        Array.from({ length: fibers }),
        () => {
          let i = 0
          return Effect.whileLoop({ while: () => i < each, body: () => one, step: () => void i++ })
        },
        { concurrency: "unbounded", discard: true }
      ))
    const contenders: Record<string, Suite["contenders"][string]> = {
      "holdfast": run(effect(ours)),
      "sql-pg": run(effect(theirs)),
      "bare pg": () =>
        Promise.all(Array.from({ length: fibers }, async () => {
          for (let i = 0; i < each; i++) await promise()
        }))
    }
    if (name === "select 1") contenders[`holdfast, reset "always"`] = run(effect(wiping))
    suites.push({ title: `Postgres: ${name}, ${fibers} at a time`, operations, contenders })
  }
}

export default suites
