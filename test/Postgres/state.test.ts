import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import * as Postgres from "holdfast/Postgres"
import { embeddedServer, query } from "../support/postgres.ts"

const server = embeddedServer()

const address = () => {
  const { database, host, port, user } = server.get()
  return { host, port, database, username: user }
}

/** What leaves state in a session, and a question that is true, or fails, if it is there. */
interface Kind {
  readonly leave: string
  readonly isLeft: string
  /** Left by failed and rolled back statements too. */
  readonly survivesRollback?: true
}

const tenant = "current_setting('app.tenant', true) = 'a'"
const shadowed = "(select count(*) from users) = 0"
const lock = "exists (select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())"

const kinds: Record<string, Kind> = {
  "SET": { leave: "set app.tenant = 'a'", isLeft: tenant },
  "SET SESSION after a comment": {
    leave: "/* who */ set session app.tenant = 'a'",
    isLeft: tenant
  },
  "SET TIME ZONE": {
    leave: "set time zone 'Asia/Tokyo'",
    isLeft: "current_setting('TimeZone') = 'Asia/Tokyo'"
  },
  "SET SESSION CHARACTERISTICS": {
    leave: "set session characteristics as transaction isolation level serializable",
    isLeft: "current_setting('default_transaction_isolation') = 'serializable'"
  },
  "set_config": { leave: "select set_config('app.tenant', 'a', false)", isLeft: tenant },
  "set_config, quoted": {
    leave: `select "set_config" ('app.tenant', 'a', false)`,
    isLeft: tenant
  },
  "set_config, with its schema and a comment": {
    leave: "select pg_catalog.set_config /* , true */ ('app.tenant', 'a', false)",
    isLeft: tenant
  },
  "set_config in a DO": {
    leave: "do $$ begin perform set_config('app.tenant', 'a', false); end $$",
    isLeft: tenant
  },
  "set_config in a function": { leave: "select leave_tenant()", isLeft: tenant },
  "set_config in a CTE": {
    leave: "with x as materialized (select set_config('app.tenant', 'a', false)) select * from x",
    isLeft: tenant
  },
  "set_config in EXPLAIN ANALYZE": {
    leave: "explain analyze select set_config('app.tenant', 'a', false)",
    isLeft: tenant
  },
  "SET ROLE": { leave: "set role tenant", isLeft: "current_user = 'tenant'" },
  "role by set_config": {
    leave: "select set_config('role', 'tenant', false)",
    isLeft: "current_user = 'tenant'"
  },
  "SET SESSION AUTHORIZATION": {
    leave: "set session authorization tenant",
    isLeft: "session_user = 'tenant'"
  },
  "CREATE TEMP TABLE": { leave: "create temp table users (name text)", isLeft: shadowed },
  "CREATE TEMPORARY VIEW": {
    leave: "create temporary view users as select 1 where false",
    isLeft: shadowed
  },
  "SELECT INTO TEMP": { leave: "select 1 as n into temp users where false", isLeft: shadowed },
  "CREATE TABLE pg_temp": { leave: "create table pg_temp.users (name text)", isLeft: shadowed },
  "pg_advisory_lock": {
    leave: "select pg_advisory_lock(1)",
    isLeft: lock,
    survivesRollback: true
  },
  "pg_try_advisory_lock_shared": {
    leave: "select pg_try_advisory_lock_shared(1)",
    isLeft: lock,
    survivesRollback: true
  },
  "nextval": {
    leave: "select nextval('numbers')",
    isLeft: "currval('numbers') > 0",
    survivesRollback: true
  },
  "LISTEN": { leave: "listen news", isLeft: "exists (select pg_listening_channels())" },
  "PREPARE": {
    leave: "prepare answer as select 42",
    isLeft: "exists (select from pg_prepared_statements)",
    survivesRollback: true
  },
  "DECLARE WITH HOLD": {
    leave: "declare rows cursor with hold for select 1",
    isLeft: "exists (select from pg_cursors where is_holdable)"
  },
  "LOAD": {
    leave: "load 'auto_explain'",
    isLeft: "current_setting('auto_explain.log_format', true) is not null",
    survivesRollback: true
  },
  "setseed": {
    leave: "select setseed(0.42)",
    isLeft: "random() = (select value from seeded)",
    survivesRollback: true
  }
}

const prepare = Effect.promise(async () => {
  await query(
    server.get(),
    `
    drop table if exists users, seeded; drop sequence if exists numbers; drop role if exists tenant;
    create table users (name text); insert into users values ('Ann'); grant select on users to public;
    create sequence numbers; grant usage on numbers to public; create role tenant;
    create or replace function leave_tenant() returns void language sql
      as $$ select set_config('app.tenant', 'a', false) $$;
    create table seeded (value float8);
    do $$ begin perform setseed(0.42); insert into seeded select random(); end $$`
  )
})

type Sql = SqlClient.SqlClient
type Way = (
  sql: Sql,
  leave: string,
  reserve: Postgres.Service["reserve"]
) => Effect.Effect<unknown, unknown>

const ways: Record<string, Way> = {
  "a statement": (sql, leave) => sql.unsafe(leave),
  "its values": (sql, leave) => sql.unsafe(leave).values,
  "its raw result": (sql, leave) => sql.unsafe(leave).raw,
  "a stream": (sql, leave) => Stream.runDrain(sql.unsafe(leave).stream),
  "a transaction": (sql, leave) => sql.withTransaction(sql.unsafe(leave)),
  "a transaction rolled back": (sql, leave) =>
    Effect.flip(sql.withTransaction(Effect.zipRight(sql.unsafe(leave), Effect.fail("no")))),
  "a transaction interrupted": (sql, leave) =>
    Effect.flatMap(
      Effect.fork(
        sql.withTransaction(Effect.zipRight(sql.unsafe(leave), sql`select pg_sleep(60)`))
      ),
      (fiber) => Effect.zipRight(Effect.sleep(5), Fiber.interrupt(fiber))
    ),
  "a reserved session": (_, leave, reserve) =>
    Effect.scoped(Effect.flatMap(reserve, (session) => session.execute(leave, [], undefined)))
}

/** False also if the question itself fails: `currval` of a sequence that this session has not used. */
const isLeft = (sql: Sql, { isLeft }: Kind) =>
  Effect.orElseSucceed(
    Effect.map(sql.unsafe<{ left: boolean | null }>(`select ${isLeft} as left`), ([row]) =>
      row!.left === true),
    () =>
      false
  )

describe("PgState-1: what a user leaves in a session does not reach the next", () => {
  for (const [name, way] of Object.entries(ways)) {
    it.scopedLive(`by ${name}`, () =>
      Effect.gen(function*() {
        yield* prepare
        const { reserve, sql } = yield* Postgres.make({ ...address(), max: 1 })
        for (const [kind, one] of Object.entries(kinds)) {
          yield* way(sql, one.leave, reserve)
          expect([kind, yield* isLeft(sql, one)]).toEqual([kind, false])
        }
      }))
  }

  it.live("and with sql-pg it does, so the questions above see it", () =>
    Effect.gen(function*() {
      yield* prepare
      for (const [kind, one] of Object.entries(kinds)) {
        const left = Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql.unsafe(one.leave)
          return yield* isLeft(sql, one)
        })
        const live = PgClient.layer({ ...address(), maxConnections: 1 })
        expect([kind, yield* Effect.provide(left, live)]).toEqual([kind, true])
      }
    }))

  it.scopedLive("a session that nothing was left in is not wiped", () =>
    Effect.gen(function*() {
      yield* prepare
      const { sql } = yield* Postgres.make({ ...address(), max: 1 })
      // What the server does not show in the text stays, which shows that nothing was wiped.
      yield* Effect.promise(() =>
        query(
          server.get(),
          "create or replace view leaves as select set_config('app.tenant', 'a', false)"
        )
      )
      yield* sql`select * from leaves`
      const clean = [
        "select count(*), max(name) from users where name in ('a', 'b')",
        `insert into "users" ("name") values ('Bob') returning *`,
        "update users set name = data.b from (values ('Bob', 'Cid')) as data(a, b) where name = data.a",
        "select set_config('app.other', 'b', true)",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) select * from t",
        "delete from users where name = 'Cid'; select pg_advisory_xact_lock(1)"
      ]
      for (const text of clean) {
        yield* sql.unsafe(text)
        yield* sql.withTransaction(sql.unsafe(text))
        expect([text, yield* isLeft(sql, kinds["set_config"]!)]).toEqual([text, true])
      }
    }))

  it.scopedLive(`with reset: "always" not even what the text does not show; with "transaction" all of it`, () =>
    Effect.gen(function*() {
      yield* prepare
      yield* Effect.promise(() =>
        query(
          server.get(),
          "create or replace view leaves as select set_config('app.tenant', 'a', false)"
        )
      )
      for (const reset of ["always", "transaction"] as const) {
        const { reserve, sql } = yield* Postgres.make({ ...address(), max: 1, reset })
        yield* sql`select * from leaves`
        expect(yield* isLeft(sql, kinds["set_config"]!)).toBe(reset === "transaction")
        yield* Effect.scoped(
          Effect.flatMap(reserve, (one) => one.execute("listen news", [], undefined))
        )
        expect(yield* isLeft(sql, kinds["LISTEN"]!)).toBe(reset === "transaction")
      }
    }))
})
