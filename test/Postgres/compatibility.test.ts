/**
 * What programs on `@effect/sql` and `@effect/sql-pg` rely on, on our layer and on sql-pg's own: one row a behaviour. `sqlPg` stands
 * where sql-pg does something else; a row without it is the same on both.
 */
import { ClusterSchema, Entity, SingleRunner } from "@effect/cluster"
import * as Reactivity from "@effect/experimental/Reactivity"
import { NodeContext } from "@effect/platform-node"
import { Rpc } from "@effect/rpc"
import { Migrator, Model, SqlClient, SqlResolver, SqlSchema, Statement } from "@effect/sql"
import { PgClient, PgMigrator } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Config,
  ConfigProvider,
  DateTime,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  PrimaryKey,
  Schema,
  Stream,
  String,
  Tracer
} from "effect"
import * as Postgres from "holdfast/Postgres"
import type * as pg from "pg"
import { beforeAll } from "vitest"
import { embeddedServer, query } from "../support/postgres.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })

type Services = PgClient.PgClient | SqlClient.SqlClient

const sides = {
  holdfast: (options: PgClient.PgClientConfig): Layer.Layer<Services, unknown> =>
    Postgres.layer(options),
  "sql-pg": (options: PgClient.PgClientConfig): Layer.Layer<Services, unknown> =>
    PgClient.layer(options)
}
type Name = keyof typeof sides

// A database each, so that both may use the same names.
const databaseOf = (side: Name): string => side.replace("-", "_")

beforeAll(async () => {
  for (const side of Object.keys(sides) as Array<Name>) {
    await query(server.get(), `create database ${databaseOf(side)}`)
  }
})

const layerOf = (side: Name, options: Partial<PgClient.PgClientConfig> = {}) => {
  const { host, port } = server.get()
  const database = databaseOf(side)
  return sides[side]({ host, port, username: "postgres", database, maxConnections: 4, ...options })
}

const ask = (side: Name, sql: string) =>
  Effect.promise(() => query(server.get(), sql, [], databaseOf(side)))

interface Row {
  readonly what: string
  readonly options?: Partial<PgClient.PgClientConfig>
  readonly run: (
    side: Name
  ) => Effect.Effect<
    unknown,
    unknown,
    Services | Reactivity.Reactivity | NodeContext.NodeContext
  >
  readonly gives: unknown
  /** Where sql-pg gives something else. */
  readonly sqlPg?: unknown
}

const migrations = PgMigrator.fromRecord({
  "0001_cats": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create table m_cats (id int)`),
  "0002_dogs": Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create table m_dogs (id int)`)
})

class Cat extends Model.Class<Cat>("Cat")({
  id: Model.Generated(Schema.Number),
  name: Schema.String,
  createdAt: Model.DateTimeInsertFromDate,
  updatedAt: Model.DateTimeUpdateFromDate
}) {}

const names = {
  transformQueryNames: String.camelToSnake,
  transformResultNames: String.snakeToCamel
}

const Counter = Entity.make("Counter", [
  Rpc.make("Add", {
    payload: class extends Schema.Class<any>("Add")({ id: Schema.String, n: Schema.Number }) {
      [PrimaryKey.symbol]() {
        return this.id
      }
    },
    success: Schema.Number
  }).annotate(ClusterSchema.Persisted, true)
])

const rows: ReadonlyArray<Row> = [
  {
    what: "PgMigrator runs what is new, once",
    run: () => {
      const migrate = PgMigrator.run({ loader: migrations, table: "migrations" })
      return Effect.zip(migrate, migrate)
    },
    gives: [[[1, "cats"], [2, "dogs"]], []]
  },
  {
    what: "four migrators at once: each migration runs once, none fails",
    run: (side) =>
      Effect.gen(function*() {
        const one = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`insert into m_runs values (1)`)
        yield* ask(side, "create table m_runs (n int)")
        // The table of the migrations is there: sql-pg and ours both race to create it.
        yield* ask(
          side,
          `create table at_once (migration_id integer primary key,
            created_at timestamptz not null default now(), name text not null)`
        )
        const loader = Migrator.fromRecord({ "0001_one": one, "0002_two": one })
        const migrate = Migrator.make({})({ loader, table: "at_once" })
        const exits = yield* Effect.all(
          Array.from({ length: 4 }, () => Effect.exit(Effect.provide(migrate, layerOf(side)))),
          { concurrency: 4 }
        )
        const [ran] = yield* ask(side, "select count(*)::int as n from m_runs")
        return [exits.filter(Exit.isSuccess).length, ran?.["n"]]
      }),
    gives: [4, 2]
  },
  {
    what: "resolvers batch: many requests, one statement",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table r_cats (id serial primary key, name text, owner int)`
        const Row = Schema.Struct({ id: Schema.Number, name: Schema.String, owner: Schema.Number })
        let statements = 0
        const counted = <A, E>(statement: Effect.Effect<A, E>) =>
          Effect.zipRight(Effect.sync(() => statements++), statement)
        const insert = yield* SqlResolver.ordered("InsertCat", {
          Request: Schema.Struct({ name: Schema.String, owner: Schema.Number }),
          Result: Row,
          execute: (cats) => counted(sql`insert into r_cats ${sql.insert(cats).returning("*")}`)
        })
        const byId = yield* SqlResolver.findById("CatById", {
          Id: Schema.Number,
          Result: Row,
          ResultId: (row) => row.id,
          execute: (ids) => counted(sql`select * from r_cats where ${sql.in("id", ids)}`)
        })
        const byOwner = yield* SqlResolver.grouped("CatsByOwner", {
          Request: Schema.Number,
          RequestGroupKey: (owner) => owner,
          Result: Row,
          ResultGroupKey: (row) => row.owner,
          execute: (owners) => counted(sql`select * from r_cats where ${sql.in("owner", owners)}`)
        })
        const batch = { batching: true } as const
        const inserted = yield* Effect.forEach(
          ["Tom", "Kit", "Puss"],
          (name, i) => insert.execute({ name, owner: i % 2 }),
          batch
        )
        const found = yield* Effect.forEach([3, 1, 99], (id) => byId.execute(id), batch)
        const grouped = yield* Effect.forEach([0, 1], (owner) => byOwner.execute(owner), batch)
        return {
          inserted: inserted.map(({ name }) => name),
          found: found.map((cat) => Option.getOrUndefined(Option.map(cat, ({ name }) => name))),
          grouped: grouped.map((cats) => cats.length),
          statements
        }
      }),
    gives: {
      inserted: ["Tom", "Kit", "Puss"],
      found: ["Puss", "Tom", undefined],
      grouped: [2, 1],
      statements: 3
    }
  },
  {
    what: "SqlSchema decodes and encodes",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const find = SqlSchema.findOne({
          Request: Schema.NumberFromString,
          Result: Schema.Struct({ at: Schema.DateFromSelf, n: Schema.NumberFromString }),
          execute: (n) => sql`select '2026-01-02'::timestamptz as at, ${n}::bigint as n`
        })
        const row = Option.getOrThrow(yield* find(7))
        return [row.at instanceof Date, row.n]
      }),
    gives: [true, 7]
  },
  {
    what: "Model.makeRepository and makeDataLoaders",
    options: names,
    run: () =>
      Effect.scoped(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table model_cats (id serial primary key, name text not null,
          created_at timestamptz not null, updated_at timestamptz not null)`
        const options = { tableName: "model_cats", spanPrefix: "Cats", idColumn: "id" } as const
        const cats = yield* Model.makeRepository(Cat, options)
        const loaders = yield* Model.makeDataLoaders(Cat, { ...options, window: 5 })
        const tom = yield* cats.insert(Cat.insert.make({ name: "Tom" }))
        yield* cats.update(Cat.update.make({ id: tom.id, name: "Thomas" }))
        const found = Option.getOrThrow(yield* cats.findById(tom.id))
        const kit = yield* loaders.insert(Cat.insert.make({ name: "Kit" }))
        const both = yield* Effect.forEach([tom.id, kit.id], loaders.findById, {
          concurrency: "unbounded"
        })
        yield* cats.delete(tom.id)
        const none = yield* cats.findById(tom.id)
        return [
          found.name,
          DateTime.isDateTime(found.createdAt),
          both.map((cat) => Option.getOrThrow(cat).name),
          none._tag
        ]
      })),
    gives: ["Thomas", true, ["Thomas", "Kit"], "None"]
  },
  {
    what: "a reactive query runs again when its keys are invalidated",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table reactive_cats (n int)`
        const first = yield* Deferred.make<void>()
        const counts = sql.reactive(
          ["cats"],
          sql<{ n: number }>`select count(*)::int as n from reactive_cats`
        )
        const fiber = yield* Stream.runCollect(
          Stream.take(Stream.tap(counts, () => Deferred.succeed(first, void 0)), 2)
        ).pipe(Effect.fork)
        yield* Deferred.await(first)
        yield* Reactivity.mutation(sql`insert into reactive_cats values (1)`, ["cats"])
        return Chunk.toReadonlyArray(yield* Fiber.join(fiber)).map(([row]) => row?.n)
      }),
    gives: [0, 1]
  },
  {
    what: "a stream: all rows in order, transformed, and its error typed",
    options: names,
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const rows = yield* Stream.runCollect(
          sql`select n as some_number from generate_series(1, 1000) n`.stream
        )
        const last = Chunk.unsafeLast(rows)
        const error = yield* Effect.flip(Stream.runDrain(
          sql`select 1 / (300 - n) from generate_series(1, 1000) n`.stream
        ))
        return [Chunk.size(rows), last, error._tag]
      }),
    gives: [1000, { someNumber: 1000 }, "SqlError"]
  },
  {
    what: "a stream inside a transaction sees the transaction",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table stream_cats (id int)`
        return yield* sql.withTransaction(Effect.gen(function*() {
          yield* sql`insert into stream_cats select generate_series(1, 200)`
          return yield* Stream.runCount(sql`select * from stream_cats`.stream)
        }))
      }),
    gives: 200
  },
  {
    what: "other statements of a transaction run beside its stream",
    run: (side) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const numbers = sql<{ n: number }>`select n from generate_series(1, 300) n`.stream
        const each = Stream.mapEffect(numbers, ({ n }) => sql`select ${n}::int as n`)
        const counted = sql.withTransaction(Stream.runCount(each))
        return yield* Effect.timeoutTo(Effect.disconnect(counted), {
          // Only sql-pg hangs; ours may be slow.
          duration: side === "sql-pg" ? "2 seconds" : "1 minute",
          onSuccess: (n): unknown => n,
          onTimeout: () => "hangs"
        })
      }),
    gives: 300,
    // It reads 128 rows at a time and waits for the next ones while the statement waits for the cursor.
    sqlPg: "hangs"
  },
  {
    what: "listen and notify",
    run: (side) =>
      Effect.gen(function*() {
        const pg = yield* PgClient.PgClient
        const fiber = yield* Effect.fork(Stream.runCollect(Stream.take(pg.listen("cats"), 2)))
        const listening = `select 1 from pg_stat_activity
          where query ilike 'listen "cats"%' and state = 'idle' and datname = current_database()`
        while ((yield* ask(side, listening)).length === 0) yield* Effect.sleep(10)
        yield* pg`select pg_notify('cats', 'one')`
        yield* pg`select pg_notify('cats', 'two')`
        const heard = Chunk.toReadonlyArray(yield* Fiber.join(fiber))
        const notified = yield* Effect.exit(pg.notify("cats", "three"))
        return [heard, notified._tag]
      }),
    gives: [["one", "two"], "Success"],
    // `NOTIFY` takes no parameter: a syntax error.
    sqlPg: [["one", "two"], "Failure"]
  },
  {
    what: "names are transformed on the way in and out, inside JSON too",
    options: names,
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table ${sql("nameCats")} (first_name text, some_data jsonb)`
        yield* sql`insert into ${sql("nameCats")} ${
          sql.insert({ firstName: "Tom", someData: null })
        }`
        yield* sql`update ${sql("nameCats")} set ${
          sql.update({ firstName: "Kit" })
        }, some_data = '{"deep_key": [{"a_b": 1}]}'`
        return [
          yield* sql`select * from ${sql("nameCats")} where ${sql.in("firstName", ["Kit"])}`,
          yield* sql.withoutTransforms()`select first_name from name_cats`
        ]
      }),
    gives: [
      [{ firstName: "Kit", someData: { deepKey: [{ aB: 1 }] } }],
      [{ first_name: "Kit" }]
    ]
  },
  {
    what: "names inside JSON stay with transformJson: false",
    options: { ...names, transformJson: false },
    run: () =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select '{"a_b": 1}'::jsonb as some_data`),
    gives: [{ someData: { a_b: 1 } }]
  },
  {
    what: "PgClient.json, and types of one's own",
    options: { types: { getTypeParser: () => (text: unknown) => `<${text}>` } as never },
    run: () =>
      Effect.gen(function*() {
        const pg = yield* PgClient.PgClient
        return yield* pg`select ${pg.json({ a: [1, { b: 2 }] })}::jsonb #>> '{a,1,b}' as b`
      }),
    gives: [{ b: "<2>" }]
  },
  {
    what: "the config of PgClient",
    run: (side) =>
      Effect.map(PgClient.PgClient, ({ config: { database, host, port, username } }) => [
        database === databaseOf(side),
        host === server.get().host,
        port,
        username
      ]),
    gives: [true, true, 5432, "postgres"]
  },
  {
    what:
      "helpers of the compiler: and, or, csv, updateValues, unsafe, values, raw, several statements",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table h_cats (id int primary key, name text)`
        const cats = [{ id: 1, name: "Tom" }, { id: 2, name: "Kit" }]
        yield* sql`insert into h_cats ${sql.insert(cats)} on conflict (id) do nothing`
        yield* sql`update h_cats set name = data.name from ${
          sql.updateValues([{ id: 1, name: "Thomas" }], "data")
        } where h_cats.id = data.id::int`
        return [
          yield* sql`select name from h_cats where ${sql.and([sql`id > 0`, sql.in("id", [1, 2])])}
            order by ${sql.csv(["id desc"])}`.values,
          yield* sql`select id from h_cats where ${sql.or([sql`id = 1`, sql`id = 3`])}`,
          yield* sql.unsafe("select name from h_cats where id = $1", [2]),
          ((yield* sql`select 1 as one`.raw) as { readonly rowCount: number }).rowCount,
          yield* sql`select 1 as a; select 2 as b`,
          (yield* sql`select ${new Date(0)}::timestamptz as at, ${
            Statement.isFragment(sql`x`)
          } as is`)[0]
        ]
      }),
    gives: [
      [["Kit"], ["Thomas"]],
      [{ id: 1 }],
      [{ name: "Kit" }],
      1,
      [[{ a: 1 }], [{ b: 2 }]],
      { at: new Date(0), is: "true" }
    ]
  },
  {
    what: "nested transactions: the inner one is undone alone, the outer one whole",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table n_cats (id int)`
        const insert = (id: number) => sql`insert into n_cats values (${id})`
        const undone = (id: number) =>
          Effect.flip(sql.withTransaction(Effect.zipRight(insert(id), Effect.fail("no"))))
        yield* sql.withTransaction(Effect.gen(function*() {
          yield* insert(1)
          yield* undone(2)
          yield* sql.withTransaction(sql.withTransaction(insert(3)))
        }))
        yield* undone(4)
        return (yield* sql`select id from n_cats order by id`.values).flat()
      }),
    gives: [1, 3]
  },
  {
    what: "a transformer sees and replaces each statement",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const both = Effect.all([sql`select 1 as one`, sql.unsafe("select 2 as two").values])
        return yield* Statement.withTransformer(
          both,
          (self, make) => Effect.succeed(make`select ${self.compile()[0]} as seen`)
        )
      }),
    gives: [[{ seen: "select 1 as one" }], [["select 2 as two"]]]
  },
  {
    what: "rows: the last of equal names, odd names, nulls, and a raw result",
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const [row] = yield* sql`select 1 as a, 2 as a, '{"b":1}'::json as "__proto__", null as n`
        const result = (yield* sql`select 7 as n union all select null`.raw) as pg.QueryResult
        const { command, fields, rowCount, rows } = result
        return [Object.entries(row!), command, fields.map(({ name }) => name), rowCount, rows]
      }),
    gives: [
      [["a", 2], ["__proto__", { b: 1 }], ["n", null]],
      "SELECT",
      ["n"],
      2,
      [{ n: 7 }, { n: null }]
    ]
  },
  {
    what: "the span of a statement and of a transaction",
    options: { spanAttributes: { team: "cats" } },
    run: () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const spans: Array<Tracer.Span> = []
        const tracer = yield* Effect.tracer
        const recording = Tracer.make({
          context: tracer.context,
          span: (...args) => {
            const span = tracer.span(...args)
            spans.push(span)
            return span
          }
        })
        yield* Effect.withTracer(sql.withTransaction(sql`select 1 as one`), recording)
        // Our pool adds a span of its own.
        return spans.filter(({ name }) => name.startsWith("sql.")).map((
          { attributes, kind, name }
        ) => [
          name,
          kind,
          attributes.get("team"),
          attributes.get("db.system.name"),
          attributes.get("db.query.text"),
          attributes.get("db.operation.name")
        ])
      }),
    gives: [
      ["sql.transaction", "client", "cats", "postgresql", undefined, undefined],
      ["sql.execute", "client", "cats", "postgresql", "select 1 as one", "execute"]
    ]
  },
  {
    what: "the storage of @effect/cluster: a persisted message of an entity, on SQL shard locks",
    run: (side) =>
      Effect.scoped(Effect.gen(function*() {
        let ran = 0
        const live = Counter.toLayer({
          Add: ({ payload }) => Effect.sync(() => payload.n + ++ran)
        }).pipe(Layer.provideMerge(SingleRunner.layer({ runnerStorage: "sql" })))
        const answers = yield* Effect.gen(function*() {
          const client = yield* Counter.client
          const counter = client("one")
          // The second has the key of the first: its answer comes from the storage.
          return [
            yield* counter.Add({ id: "a", n: 40 }),
            yield* counter.Add({ id: "a", n: 40 }),
            yield* counter.Add({ id: "b", n: 40 })
          ]
        }).pipe(Effect.provide(live))
        const [row] = yield* ask(side, "select count(*)::int as n from cluster_messages")
        return [answers, ran, row?.["n"]]
      })),
    gives: [[41, 41, 42], 2, 2]
  }
]

const configured = (side: Name): Layer.Layer<SqlClient.SqlClient, unknown> => {
  const config = {
    host: Config.string("HOST"),
    database: Config.string("DATABASE"),
    username: Config.succeed("postgres"),
    maxConnections: Config.integer("MAX")
  }
  return side === "holdfast" ? Postgres.layerConfig(config) : PgClient.layerConfig(config)
}

for (const side of Object.keys(sides) as Array<Name>) {
  describe(`Postgres: what runs on sql-pg, on ${side}`, () => {
    for (const { gives, options, run, sqlPg, what } of rows) {
      it.live(what, () =>
        Effect.gen(function*() {
          const expected = side === "sql-pg" && sqlPg !== undefined ? sqlPg : gives
          expect(yield* run(side)).toEqual(expected)
        }).pipe(
          Effect.provide(
            Layer.mergeAll(layerOf(side, options), Reactivity.layer, NodeContext.layer)
          )
        ))
    }

    it.live("the layer from a Config", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        expect(yield* sql`select current_database() as name`).toEqual([{ name: databaseOf(side) }])
      }).pipe(
        Effect.provide(configured(side)),
        Effect.withConfigProvider(ConfigProvider.fromMap(
          new Map([
            ["HOST", server.get().host],
            ["DATABASE", databaseOf(side)],
            ["MAX", "2"]
          ])
        ))
      ))
  })
}
