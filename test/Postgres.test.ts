import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Config,
  ConfigProvider,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Redacted,
  Stream,
  String
} from "effect"
import { Ledger } from "holdfast"
import * as Postgres from "holdfast/Postgres"
import * as Embedded from "holdfast/Postgres/Embedded"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { embeddedServer, urlOf } from "./support/postgres.ts"
import { failureOf, poolsOf, reasonOf, until } from "./support/postgresPool.ts"
import { tcpProxy } from "./support/tcpProxy.ts"
import { tlsProxy } from "./support/tlsProxy.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })

const { ask, pool, statesOf, table, untilCommits } = poolsOf(server, "test")

const untilStates = (applicationName: string, ...states: Array<string>) =>
  until(
    `${applicationName} has the sessions [${states.join()}]`,
    Effect.map(statesOf(applicationName), (now) => now.join() === states.join())
  )

/** A way to the server by TCP, that a test may spoil. */
const door = Effect.acquireRelease(
  Effect.promise(() => tcpProxy(server.get().host, server.get().port)),
  (proxy) => Effect.promise(() => proxy.close())
)

/** The counters of a pool that nobody uses. */
const free = (max: number, idle: number): Postgres.Stats => ({
  max,
  active: 0,
  idle,
  closing: 0,
  waiting: 0,
  holders: []
})

describe("Postgres: statements", () => {
  it.scopedLive("the statement builder of @effect/sql works on it", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool()
      const name = yield* table("id int primary key, label text")
      const rows = [{ id: 1, label: "a" }, { id: 2, label: "b" }]
      expect(yield* sql`insert into ${sql(name)} ${sql.insert(rows).returning("*")}`).toEqual(rows)
      expect(yield* sql`select id from ${sql(name)} where ${sql.in("label", ["b"])}`.values)
        .toEqual([[2]])
      expect(yield* sql`select 1 as a; select 2 as b`).toEqual([[{ a: 1 }], [{ b: 2 }]])
      const all = yield* Stream.runCollect(sql`select * from generate_series(1, 1000)`.stream)
      expect(Chunk.size(all)).toBe(1000)
    }))

  it.scopedLive("a failed statement carries its SQLSTATE, and the session goes on", () =>
    Effect.gen(function*() {
      const { sql, stats } = yield* pool({ max: 1 })
      const error = yield* failureOf(sql`select nope`)
      expect(error._tag).toBe("SqlError")
      expect(Postgres.sqlState(error)).toEqual(Option.some("42703"))
      expect(Postgres.isConnectionLost(error)).toBe(false)
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
      expect(yield* stats).toEqual(free(1, 1))
    }))

  it.scopedLive("control characters in the server's message do not reach the error's", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const error = yield* failureOf(
        sql`do $$ begin raise exception using message = E'bad \\u009b31m\\nline'; end $$`
      )
      expect(error.message).toBe("Failed to execute statement: bad \\u{9b}31m line")
    }))

  it.scopedLive("Postgres-1: interrupted in a full pool, nothing runs on the server any more", () =>
    Effect.gen(function*() {
      const { applicationName, sql, stats } = yield* pool({ max: 2 })
      const pids = sql`select pg_backend_pid() as pid`
      const fibers = yield* Effect.all([
        Effect.fork(sql`select pg_sleep(60)`),
        Effect.fork(sql`select pg_sleep(60)`)
      ])
      yield* untilStates(applicationName, "active", "active")
      const used = yield* ask(
        "select pid from pg_stat_activity where application_name = $1",
        applicationName
      )
      for (const fiber of fibers) {
        expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      }
      // No waiting here: when the interrupt has returned the server has already stopped.
      expect(yield* statesOf(applicationName)).toEqual(["idle", "idle"])
      expect(used).toContainEqual((yield* pids)[0])
      expect(yield* stats).toEqual(free(2, 2))
    }))

  it.scopedLive("Postgres-1: a stream blocked in a read is cancelled; one that is not read to its end is closed", () =>
    Effect.gen(function*() {
      const { applicationName, sql, stats } = yield* pool({ max: 1 })
      const rows = sql`select pg_sleep(60) from generate_series(1, 3)`.stream
      const fiber = yield* Effect.fork(Stream.runDrain(rows))
      yield* untilStates(applicationName, "active")
      yield* Fiber.interrupt(fiber)
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
      for (let i = 0; i < 20; i++) {
        const one = Stream.take(sql`select * from generate_series(1, 1000)`.stream, 1)
        expect(Chunk.size(yield* Stream.runCollect(one))).toBe(1)
      }
      const failed = yield* failureOf(
        Stream.runDrain(sql`select 1 / (3 - n) from generate_series(1, 5) n`.stream)
      )
      expect(Postgres.sqlState(failed)).toEqual(Option.some("22012"))
      expect(yield* stats).toEqual(free(1, 1))
    }))

  it.scopedLive("Postgres-1, -2: in a black hole the interrupt returns, and the session is given up", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      const { applicationName, sql, stats } = yield* pool({
        host: "127.0.0.1",
        port: proxy.port,
        cancelTimeout: "100 millis",
        drain: "50 millis"
      })
      const fiber = yield* Effect.fork(sql`select pg_sleep(60)`)
      yield* untilStates(applicationName, "active")
      proxy.freeze()
      yield* Fiber.interrupt(fiber)
      expect(yield* stats).toMatchObject({ active: 0, idle: 0 })
      // closing must end too: the scope of this test is the proof
    }))

  it.scopedLive("Postgres-2: a session whose cancel was not confirmed is not lent again", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      const { applicationName, sql, stats } = yield* pool({
        host: "127.0.0.1",
        port: proxy.port,
        cancelTimeout: "300 millis"
      })
      const fiber = yield* Effect.fork(sql`select pg_sleep(0.1)`)
      yield* untilStates(applicationName, "active")
      // The cancel goes astray while the statement comes to its own end: it might still arrive.
      proxy.ignoreNew()
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* stats).toMatchObject({ active: 0, idle: 0 })
      yield* untilStates(applicationName)
    }))

  it.scopedLive("Postgres-2: settings and locks of a reserved session do not reach the next user", () =>
    Effect.gen(function*() {
      const { applicationName, reserve, sql } = yield* pool({ max: 1 })
      const before = yield* sql`select pg_backend_pid() as pid`
      yield* Effect.scoped(Effect.gen(function*() {
        const session = yield* reserve
        yield* session.execute("set statement_timeout = 1234", [], undefined)
        yield* session.execute("select pg_advisory_lock(4711)", [], undefined)
        yield* session.execute("begin", [], undefined)
      }))
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
      expect(yield* sql`select pg_backend_pid() as pid`).toEqual(before)
      expect(yield* sql`show statement_timeout`).toEqual([{ statement_timeout: "0" }])
      expect(yield* sql`select count(*)::int as n from pg_locks where locktype = 'advisory'`)
        .toEqual([{ n: 0 }])
    }))

  it.scopedLive("Postgres-2: a SET of one statement does not reach the next user either", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      yield* sql`set statement_timeout = 1234`
      expect(yield* sql`show statement_timeout`).toEqual([{ statement_timeout: "0" }])
    }))

  it.scopedLive("a reserved session reports its loss", () =>
    Effect.gen(function*() {
      const { reserve, sql, stats } = yield* pool({ max: 1 })
      yield* Effect.scoped(Effect.gen(function*() {
        const session = yield* reserve
        yield* ask("select pg_terminate_backend($1)", session.processId)
        expect((yield* session.lost)._tag).toBe("ConnectionLost")
        const error = yield* failureOf(session.execute("select 1", [], undefined))
        expect(Postgres.isConnectionLost(error)).toBe(true)
      }))
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
      expect((yield* stats).active).toBe(0)
    }))
})

describe("Postgres: the options of PgClient.layer", () => {
  it.scopedLive("its names, transforms, types and span attributes work", () =>
    Effect.gen(function*() {
      const { database, host, port, user } = server.get()
      const options: PgClient.PgClientConfig = {
        host,
        port,
        database,
        username: user,
        maxConnections: 2,
        minConnections: 1,
        idleTimeout: "1 minute",
        connectionTTL: "1 hour",
        connectTimeout: "5 seconds",
        applicationName: "drop-in",
        transformResultNames: String.snakeToCamel,
        transformQueryNames: String.camelToSnake,
        spanAttributes: { shard: 7 },
        types: { getTypeParser: () => (text: string) => `<${text}>` }
      }
      const { sql, stats } = yield* Postgres.make(options)
      expect(yield* sql`select 1 as ${sql("oneOfMany")}`).toEqual([{ oneOfMany: "<1>" }])
      expect(yield* sql`select 1 as one_of_many`.withoutTransform).toEqual([{ one_of_many: "<1>" }])
      expect((yield* stats).max).toBe(2)
    }))

  it.live("Postgres.layer is PgClient too: json, notify and listen", () =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      expect(sql).toBe(yield* SqlClient.SqlClient)
      expect(sql.config).toMatchObject({ host: server.get().host, username: "postgres" })
      yield* sql`create table papers (body jsonb)`
      yield* sql`insert into papers ${sql.insert({ body: sql.json({ pages: [1, 2] }) })}`
      expect(yield* sql`select body->'pages' as pages from papers`).toEqual([{ pages: [1, 2] }])
      const heard = yield* Effect.fork(Stream.runCollect(Stream.take(sql.listen("news"), 2)))
      yield* until(
        "it listens",
        Effect.map(ask("select 1 from pg_stat_activity where query ilike 'listen%'"), (rows) =>
          rows.length > 0)
      )
      yield* sql.notify("news", "one")
      yield* sql.notify("news", "")
      expect(Chunk.toReadonlyArray(yield* Fiber.join(heard))).toEqual(["one", ""])
    }).pipe(Effect.provide(Layer.suspend(() => {
      const { database, host, port, user } = server.get()
      return Postgres.layer({ host, port, username: user, database })
    }))))

  it.live("layerConfig reads them from a configuration", () =>
    Effect.gen(function*() {
      const { host, port } = server.get()
      const live = Postgres.layerConfig({
        url: Config.redacted("DATABASE_URL"),
        max: Config.withDefault(Config.integer("DATABASE_SESSIONS"), 3)
      })
      const max = Effect.flatMap(Postgres.Postgres, ({ stats }) =>
        Effect.map(stats, ({ max }) => max))
      const from = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.withConfigProvider(
          Effect.provide(max, live),
          ConfigProvider.fromMap(new Map(entries))
        )
      const url = `postgres://postgres@localhost:${port}/postgres?host=${encodeURIComponent(host)}`
      expect(yield* from([["DATABASE_URL", url]])).toBe(3)
      expect(yield* from([["DATABASE_URL", url], ["DATABASE_SESSIONS", "5"]])).toBe(5)
      expect(yield* failureOf(from([]))).toMatchObject({ _op: "MissingData" })
    }))
})

describe("Postgres: waiting", () => {
  it.scopedLive("Postgres-4: a waiter can be interrupted and leaves the line; its permit is not lost", () =>
    Effect.gen(function*() {
      const { reserve, sql, stats } = yield* pool({ max: 1 })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* reserve
        const waits: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          sql`select 1`,
          sql.withTransaction(sql`select 1`),
          Effect.scoped(reserve)
        ]
        for (const waiting of waits) {
          const fiber = yield* Effect.fork(waiting)
          yield* until("it waits", Effect.map(stats, (now) => now.waiting === 1))
          yield* Fiber.interrupt(fiber)
          expect((yield* stats).waiting).toBe(0)
        }
      }))
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
    }))

  it.scopedLive("Postgres-4: first come, first served", () =>
    Effect.gen(function*() {
      const { reserve, sql, stats } = yield* pool({ max: 1 })
      const order: Array<number> = []
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      yield* Effect.scoped(Effect.gen(function*() {
        yield* reserve
        for (let i = 0; i < 5; i++) {
          fibers.push(yield* Effect.forkDaemon(Effect.tap(sql`select 1`, () => order.push(i))))
          yield* until("it waits", Effect.map(stats, (now) => now.waiting === i + 1))
        }
      }))
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(order).toEqual([0, 1, 2, 3, 4])
    }))

  it.scopedLive("Postgres-4: waiting ends by acquireTimeout, with the state of the pool", () =>
    Effect.gen(function*() {
      const { reserve, sql } = yield* pool({ max: 1, acquireTimeout: "50 millis" })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* reserve
        const error = yield* failureOf(sql`select 1`)
        const cause = Option.getOrThrow(Postgres.causeOf(error))
        expect(cause).toMatchObject({ _tag: "PostgresTimeout", stats: { max: 1, active: 1 } })
        expect(error.message).toContain("1 of 1 in use")
      }))
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
    }))
})

describe("Postgres: the pool", () => {
  const pidOf = ({ sql }: Postgres.Service) =>
    Effect.map(sql<{ pid: number }>`select pg_backend_pid() as pid`, ([row]) => row!.pid)

  /** A server process that is stopped keeps its socket and answers nothing. */
  const stopped = (pid: number) =>
    Effect.acquireRelease(
      Effect.sync(() => process.kill(pid, "SIGSTOP")),
      () => Effect.sync(() => process.kill(pid, "SIGCONT"))
    )

  it.scopedLive("PgPool-1, PgConnection-1: a session that is closed keeps its place until the server has closed it", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      const { applicationName, sql, stats } = service
      const pid = yield* pidOf(service)
      const fiber = yield* Effect.fork(sql`select pg_sleep(60)`)
      yield* untilStates(applicationName, "active")
      const next = yield* Effect.scoped(Effect.gen(function*() {
        yield* stopped(pid)
        yield* Fiber.interrupt(fiber)
        const next = yield* Effect.fork(pidOf(service))
        yield* Effect.sleep(50)
        expect(yield* stats).toMatchObject({ active: 0, idle: 0, closing: 1, waiting: 1 })
        expect(yield* statesOf(applicationName)).toEqual(["active"])
        return next
      }))
      expect(yield* Fiber.join(next)).not.toBe(pid)
      expect(yield* stats).toEqual(free(1, 1))
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
    }))

  it.scopedLive("PgConnection-2: over TLS a cancel is encrypted too", () =>
    Effect.gen(function*() {
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => tlsProxy(server.get().host, server.get().port)),
        (proxy) => Effect.promise(() => proxy.close())
      )
      const { applicationName, sql, stats } = yield* pool({
        host: "127.0.0.1",
        port: proxy.port,
        ssl: { rejectUnauthorized: false },
        max: 1
      })
      const before = proxy.encrypted()
      const fiber = yield* Effect.fork(sql`select pg_sleep(60)`)
      yield* untilStates(applicationName, "active")
      yield* Fiber.interrupt(fiber)
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
      expect(yield* stats).toEqual(free(1, 1))
      expect(proxy.encrypted()).toBe(before + 1)
      expect(proxy.plain()).toBe(0)
    }))

  it.scopedLive("PgPool-2: sessions terminated while they are idle are replaced, and no statement fails", () =>
    Effect.gen(function*() {
      const { applicationName, sql, stats } = yield* pool({ max: 4 })
      const four = Effect.all(Array.from({ length: 4 }, () => sql`select pg_sleep(0.01)`), {
        concurrency: 4
      })
      for (let i = 0; i < 3; i++) {
        yield* four
        yield* ask(
          "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = $1",
          applicationName
        )
        yield* four
      }
      expect(yield* stats).toEqual(free(4, 4))
    }))

  it.scopedLive("PgPool-2: a session that has died in silence is found by a bounded check, and replaced", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 2, validateAfterIdle: 0, cancelTimeout: "100 millis" })
      const pid = yield* pidOf(service)
      yield* stopped(pid)
      expect(yield* pidOf(service)).not.toBe(pid)
    }))

  it.scopedLive("PgPool-2: a statement that cannot have reached its server is sent to another session", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      const { sql, stats } = service
      const pid = yield* pidOf(service)
      // The server's process ends while this one is busy, so that the statement is written to a socket closed at its other end.
      process.kill(pid, "SIGTERM")
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
      expect(yield* stats).toMatchObject({ active: 0, idle: 1 })
      // In a transaction it is not known what the statements before it have led to.
      const error = yield* failureOf(sql.withTransaction(Effect.gen(function*() {
        const [row] = yield* sql<{ pid: number }>`select pg_backend_pid() as pid`
        process.kill(row!.pid, "SIGTERM")
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
        yield* sql`select 1`
      })))
      expect(Postgres.isConnectionLost(error)).toBe(true)
      const cause = Option.getOrUndefined(Postgres.causeOf(error))
      expect(cause).toMatchObject({ _tag: "ConnectionLost", wasSent: false })
    }))

  it.scopedLive("PgPool-3: a server that has no room for all of `max` makes statements wait, not fail", () =>
    Effect.gen(function*() {
      yield* ask("create role crowded login connection limit 3")
      const { applicationName, sql, stats } = yield* pool({ user: "crowded", max: 12 })
      const naps = Array.from({ length: 24 }, () => sql`select pg_sleep(0.01) is null as nap`)
      for (const rows of yield* Effect.all(naps, { concurrency: "unbounded" })) {
        expect(rows).toEqual([{ nap: false }])
      }
      expect(yield* stats).toMatchObject({ active: 0, idle: 3, waiting: 0 })
      expect(yield* statesOf(applicationName)).toEqual(["idle", "idle", "idle"])
    }))

  it.scopedLive("Postgres-4: more waiters than `maxWaiters` are refused at once", () =>
    Effect.gen(function*() {
      const { reserve, sql, stats } = yield* pool({ max: 1, maxWaiters: 1 })
      yield* reserve
      const first = yield* Effect.fork(sql`select 1`)
      yield* until("it waits", Effect.map(stats, (now) => now.waiting === 1))
      const error = yield* failureOf(sql`select 1`)
      expect(reasonOf(error)).toBe("PostgresExhausted")
      expect(error.message).toContain("1 of 1 in use and 1 waiting already")
      expect((yield* stats).holders).toHaveLength(1)
      yield* Fiber.interrupt(first)
    }))

  it.scopedLive("a session older than maxLifetime is replaced; min sessions are opened ahead", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 2, min: 2, maxLifetime: "200 millis" })
      yield* until("both are open", Effect.map(service.stats, (now) => now.idle === 2))
      const pid = yield* pidOf(service)
      yield* until("it is replaced", Effect.map(pidOf(service), (now) => now !== pid))
    }))
})

describe("Postgres: transactions", () => {
  const rowsOf = (name: string) =>
    Effect.map(ask(`select id from ${name} order by id`), (rows) => rows.map((row) => row["id"]))

  it.scopedLive("Postgres-5: all or nothing, nested too", () =>
    Effect.gen(function*() {
      const { sql, stats } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const insert = (id: number) => sql`insert into ${sql(t)} values (${id})`
      const no = Effect.fail("no" as const)
      yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(1), no)))
      expect(yield* rowsOf(t)).toEqual([])
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* insert(2)
        yield* Effect.exit(sql.withTransaction(Effect.zipRight(insert(3), no)))
        yield* sql.withTransaction(insert(4))
      }))
      expect(yield* rowsOf(t)).toEqual([2, 4])
      expect((yield* stats).active).toBe(0)
    }))

  it.scopedLive("Postgres-5: a COMMIT that fails is typed", () =>
    Effect.gen(function*() {
      const { applicationName, sql } = yield* pool({ max: 1 })
      const t = yield* table("id int, unique (id) deferrable initially deferred")
      const twice = sql`insert into ${sql(t)} values (1), (1)`
      const error = yield* failureOf(sql.withTransaction(twice))
      expect(Postgres.sqlState(error)).toEqual(Option.some("23505"))
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
    }))

  it.scopedLive("Postgres-5: a failure that was caught in the body cannot be committed, and is not silent", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const insert = sql`insert into ${sql(t)} values (1)`
      const caught = Effect.zipRight(insert, Effect.ignore(sql`select nope`))
      expect(reasonOf(yield* failureOf(sql.withTransaction(caught)))).toBe("TransactionAborted")
      const outer = Effect.gen(function*() {
        expect(reasonOf(yield* failureOf(sql.withTransaction(caught)))).toBe("TransactionAborted")
        yield* sql`insert into ${sql(t)} values (2)`
      })
      yield* sql.withTransaction(outer)
      expect(yield* rowsOf(t)).toEqual([2])
    }))

  it.scopedLive("Postgres-5: a backend killed in the body is typed, and the next transaction works", () =>
    Effect.gen(function*() {
      const { sql, stats } = yield* pool({ max: 1 })
      const error = yield* failureOf(sql.withTransaction(Effect.gen(function*() {
        const [row] = yield* sql<{ pid: number }>`select pg_backend_pid() as pid`
        yield* ask("select pg_terminate_backend($1)", row?.pid)
        yield* sql`select 1`
      })))
      expect(Postgres.isConnectionLost(error)).toBe(true)
      expect(yield* sql.withTransaction(sql`select 1 as one`)).toEqual([{ one: 1 }])
      expect(yield* stats).toEqual(free(1, 1))
    }))

  it.scopedLive("Postgres-5: a connection lost during COMMIT leaves an unknown outcome, and says so", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      const { sql } = yield* pool({
        host: "127.0.0.1",
        port: proxy.port,
        max: 1,
        cancelTimeout: "100 millis"
      })
      const t = yield* table("id int primary key")
      const swallowed = proxy.swallowed()
      const body = Effect.tap(
        sql`insert into ${sql(t)} values (1)`,
        () => Effect.sync(proxy.freeze)
      )
      const committing = yield* Effect.fork(failureOf(sql.withTransaction(body)))
      yield* Effect.promise(() => swallowed)
      proxy.cut()
      const error = yield* Fiber.join(committing)
      expect(reasonOf(error)).toBe("TransactionOutcomeUnknown")
      expect(Postgres.isConnectionLost(error)).toBe(true)
    }))

  it.scopedLive("Postgres-5: an interrupt during COMMIT lets it finish", () =>
    Effect.gen(function*() {
      const { applicationName, sql, stats } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      yield* ask(`create function slow_${t}() returns trigger language plpgsql as
        $$ begin perform pg_sleep(0.3); return null; end $$`)
      yield* ask(`create constraint trigger slow after insert on ${t}
        deferrable initially deferred for each row execute function slow_${t}()`)
      const fiber = yield* Effect.fork(sql.withTransaction(sql`insert into ${sql(t)} values (1)`))
      yield* untilCommits(applicationName)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* rowsOf(t)).toEqual([1])
      expect(yield* stats).toMatchObject({ active: 0, idle: 1 })
    }))

  it.scopedLive("Postgres-6: nested transactions side by side keep all their rows", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const insert = (id: number) => sql`insert into ${sql(t)} values (${id})`
      const branch = (id: number) =>
        sql.withTransaction(Effect.zipRight(
          Effect.zipRight(insert(id), Effect.yieldNow()),
          id % 2 === 0 ? Effect.fail("even") : Effect.void
        ))
      yield* sql.withTransaction(
        Effect.forEach([1, 2, 3, 4, 5], (id) => Effect.exit(branch(id)), { concurrency: 5 })
      )
      expect(yield* rowsOf(t)).toEqual([1, 3, 5])
    }))

  it.scopedLive("Postgres-6: a fiber that outlives its transaction gets TransactionClosed", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const go = yield* Deferred.make<void>()
      const late = yield* sql.withTransaction(
        Effect.forkDaemon(
          Effect.zipRight(Deferred.await(go), sql`insert into ${sql(t)} values (1)`)
        )
      )
      const error = yield* sql.withTransaction(Effect.zipRight(
        Deferred.succeed(go, void 0),
        failureOf(Fiber.join(late))
      ))
      expect(reasonOf(error)).toBe("TransactionClosed")
      expect(yield* rowsOf(t)).toEqual([])
    }))

  it.scopedLive("Postgres-3: after 150 interrupts at random moments all sessions are sound and the sum is right", () =>
    Effect.gen(function*() {
      const { applicationName, sql, stats } = yield* pool({ max: 3 })
      const t = yield* table("id int primary key, n int not null")
      yield* ask(`insert into ${t} select i, 100 from generate_series(0, 3) i`)
      // xorshift: the same moments in every run
      let seed = 42
      const random = (below: number): number => {
        seed ^= seed << 13
        seed ^= seed >>> 17
        seed ^= seed << 5
        return (seed >>> 0) % below
      }
      const move = (id: number, n: number) =>
        sql`update ${sql(t)} set n = n + ${n} where id = ${id}`
      const transfer = (from: number, to: number) =>
        sql.withTransaction(Effect.gen(function*() {
          yield* move(Math.min(from, to), from < to ? -1 : 1)
          yield* sql.withTransaction(move(Math.max(from, to), from < to ? 1 : -1))
          yield* Stream.runDrain(Stream.take(sql`select * from generate_series(1, 300)`.stream, 2))
          yield* sql`select pg_sleep(${random(3) * 0.02})`
        }))
      const worker = Effect.gen(function*() {
        for (let i = 0; i < 25; i++) {
          const from = random(4)
          const fiber = yield* Effect.fork(transfer(from, (from + 1 + random(3)) % 4))
          if (random(3) === 0) { for (let k = random(20); k > 0; k--) yield* Effect.yieldNow() }
          else yield* Effect.sleep(random(12))
          yield* Fiber.interrupt(fiber)
        }
      })
      yield* Effect.forEach([1, 2, 3, 4, 5, 6], () => worker, { concurrency: 6 })
      const now = yield* stats
      expect(now.active).toBe(0)
      expect(now.waiting).toBe(0)
      expect(now.idle).toBeLessThanOrEqual(3)
      yield* until(
        "closed sessions are gone",
        Effect.map(statesOf(applicationName), (states) => states.length === now.idle)
      )
      expect(new Set(yield* statesOf(applicationName))).toEqual(
        now.idle === 0 ? new Set() : new Set(["idle"])
      )
      expect(yield* ask(`select sum(n)::int as sum from ${t}`)).toEqual([{ sum: 400 }])
      const all = Array.from({ length: 3 }, () => sql.withTransaction(sql`select 1 as one`))
      expect(yield* Effect.all(all, { concurrency: 3 })).toEqual([[{ one: 1 }], [{ one: 1 }], [{
        one: 1
      }]])
    }))
})

describe("Postgres: interrupted between any two steps", () => {
  const one = (service: Postgres.Service): Record<string, Effect.Effect<unknown, unknown>> => {
    const { reserve, sql } = service
    return {
      "a statement": sql`select 1`,
      "a transaction": sql.withTransaction(
        Effect.zipRight(sql`select 1`, sql.withTransaction(sql`select 2`))
      ),
      "a reserved session": Effect.scoped(
        Effect.flatMap(reserve, (session) => session.execute("select 1", [], undefined))
      ),
      "a stream": Stream.runDrain(sql`select * from generate_series(1, 200)`.stream)
    }
  }

  // The fiber yields after `ops` steps, the other interrupts it after `yields` turns: every window is met.
  for (const what of ["a statement", "a transaction", "a reserved session", "a stream"]) {
    it.scopedLive(`Postgres-2, -3: ${what} gives back what it took, fit for the next`, () =>
      Effect.gen(function*() {
        const service = yield* pool({ max: 1 })
        for (let ops = 14; ops <= 42; ops += 7) {
          for (let yields = 0; yields < 26; yields++) {
            const work = one(service)[what] ?? Effect.dieMessage("no such work")
            const fiber = yield* Effect.fork(Effect.withMaxOpsBeforeYield(work, ops))
            for (let i = 0; i < yields; i++) yield* Effect.yieldNow()
            yield* Fiber.interrupt(fiber)
            expect(yield* service.stats).toMatchObject({ active: 0, waiting: 0 })
            expect(yield* service.sql`select 1 as one`).toEqual([{ one: 1 }])
          }
        }
        yield* untilStates(service.applicationName, "idle")
      }))
  }
})

describe("Postgres: opening and closing", () => {
  it.live("Postgres-7: closing cancels and cuts sessions that daemons still hold; no session is left", () =>
    Effect.gen(function*() {
      const { applicationName, held, service } = yield* Effect.scoped(Effect.gen(function*() {
        const service = yield* pool({ max: 3, drain: "50 millis" })
        const { applicationName, sql } = service
        const asleep = yield* Effect.forkDaemon(failureOf(sql`select pg_sleep(60)`))
        const inside = yield* Effect.forkDaemon(
          sql.withTransaction(Effect.zipRight(sql`select 1`, Effect.never))
        )
        const holder = yield* Effect.forkDaemon(
          Effect.scoped(Effect.zipRight(service.reserve, Effect.never))
        )
        yield* until("all are held", Effect.map(service.stats, (now) => now.active === 3))
        const waiting = yield* Effect.forkDaemon(failureOf(sql`select 1`))
        yield* until("one waits", Effect.map(service.stats, (now) => now.waiting === 1))
        yield* untilStates(applicationName, "active", "idle", "idle in transaction")
        return { applicationName, service, held: { asleep, inside, holder, waiting } }
      }))
      yield* untilStates(applicationName)
      expect(reasonOf(yield* Fiber.join(held.waiting))).toBe("PostgresClosed")
      expect(Postgres.sqlState(yield* Fiber.join(held.asleep))).toEqual(Option.some("57014"))
      expect(reasonOf(yield* failureOf(service.sql`select 1`))).toBe("PostgresClosed")
      yield* Fiber.interrupt(held.inside)
      yield* Fiber.interrupt(held.holder)
      const ledger = (yield* Ledger.Ledger)!
      yield* ledger.assertEmpty
      const { kinds } = yield* ledger.snapshot
      expect(kinds["postgres connection"]).toEqual({
        acquired: 3,
        released: 3,
        failed: 0,
        abandoned: 0
      })
    }).pipe(Effect.provide(Ledger.layer())))

  it.live("Postgres-7: waiters and connecting fibers fail at once, though no session is returned", () =>
    Effect.gen(function*() {
      const full = yield* Effect.scoped(Effect.gen(function*() {
        const { reserve, sql, stats } = yield* pool({
          max: 1,
          drain: "10 millis",
          cancelTimeout: "50 millis"
        })
        const holder = yield* Effect.forkDaemon(
          Effect.scoped(Effect.zipRight(reserve, Effect.never))
        )
        yield* until("it is held", Effect.map(stats, (now) => now.active === 1))
        const waiting = yield* Effect.forkDaemon(failureOf(sql`select 1`))
        yield* until("one waits", Effect.map(stats, (now) => now.waiting === 1))
        return { holder, waiting }
      }))
      expect(reasonOf(yield* Fiber.join(full.waiting))).toBe("PostgresClosed")
      yield* Fiber.interrupt(full.holder)
      const proxy = yield* door
      const { connecting, holder } = yield* Effect.scoped(Effect.gen(function*() {
        const { reserve, sql, stats } = yield* pool({
          host: "127.0.0.1",
          port: proxy.port,
          drain: "10 millis",
          cancelTimeout: "50 millis"
        })
        // A daemon: what it gave back would serve the other, who waits for any session.
        const holder = yield* Effect.forkDaemon(
          Effect.scoped(Effect.zipRight(reserve, Effect.never))
        )
        yield* until("it is held", Effect.map(stats, (now) => now.holders.length === 1))
        proxy.ignoreNew()
        const swallowed = proxy.swallowed()
        const connecting = yield* Effect.forkDaemon(failureOf(sql`select 1`))
        yield* Effect.promise(() => swallowed)
        return { connecting, holder }
      }))
      expect(reasonOf(yield* Fiber.join(connecting))).toBe("PostgresClosed")
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.scoped))

  it.live("layerEmbedded: a server killed in mid-query is typed, and the layer closes", () =>
    Effect.gen(function*() {
      const { pid } = yield* Embedded.Embedded
      const sql = yield* SqlClient.SqlClient
      const { stats } = yield* Postgres.Postgres
      const asleep = yield* Effect.fork(failureOf(sql`select pg_sleep(60)`))
      const inside = yield* Effect.fork(failureOf(sql.withTransaction(sql`select pg_sleep(60)`)))
      yield* until("both run", Effect.map(stats, (now) => now.active === 2))
      yield* Effect.sleep(20)
      // The backends of a server that is gone end when they notice; told here, they end now.
      const backends = childrenOf(pid)
      for (const one of [pid, ...backends]) process.kill(one, "SIGKILL")
      expect(Postgres.isConnectionLost(yield* Fiber.join(asleep))).toBe(true)
      expect(Postgres.isConnectionLost(yield* Fiber.join(inside))).toBe(true)
      const again = yield* failureOf(sql`select 1`)
      expect(again._tag).toBe("SqlError")
      expect(yield* stats).toMatchObject({ active: 0, idle: 0 })
    }).pipe(Effect.provide(Postgres.layerEmbedded({ cancelTimeout: "500 millis" }))))

  const childrenOf = (pid: number): Array<number> =>
    process.platform === "linux"
      ? fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number)
      : []

  const opening = (options: Postgres.Options) => failureOf(Effect.scoped(Postgres.make(options)))

  it.live("an address where nothing listens is typed", () =>
    Effect.gen(function*() {
      const refused = yield* opening({ url: "postgres://someone:se%20cret@127.0.0.1:1/shop" })
      expect(refused).toMatchObject({
        _tag: "PostgresUnavailable",
        host: "127.0.0.1",
        port: 1,
        database: "shop",
        user: "someone",
        code: "ECONNREFUSED"
      })
      expect(refused.message).toContain("Check that the server runs")
      expect(JSON.stringify(refused) + refused.message).not.toContain("cret")
      const nowhere = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmdirSync(nowhere)))
      expect(yield* opening({ host: nowhere })).toMatchObject({
        _tag: "PostgresUnavailable",
        code: "ENOENT"
      })
    }).pipe(Effect.scoped))

  it.effect("a `max` that is no positive whole number is a defect that says what to write", () =>
    Effect.gen(function*() {
      for (const max of [0, -1, 1.5, Number.NaN]) {
        const exit = yield* Effect.exit(Effect.scoped(Postgres.make({ max })))
        expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toEqual(
          new RangeError(`Postgres.make: \`max\` has to be a whole number, 1 or more; got ${max}.`)
        )
      }
    }))

  it.effect("PgOptions-1: an option that cannot be is a defect that says what to write", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [Record<string, unknown>, string]> = [
        [{ maxConnection: 3 }, "there is no option `maxConnection`. There are: max, min, "],
        [{ min: -1 }, "`min` has to be a whole number, 0 or more; got -1."],
        [{ min: 3, max: 2 }, "`min` 3 is more than `max` 2."],
        [
          { drain: "-1 second" },
          "`drain` has to be a duration, 0 or more, such as \"5 seconds\"; got -1 second."
        ],
        [{ connectTimeout: 0 }, "`connectTimeout` has to be a duration above 0"],
        [{ max: 2, maxConnections: 3 }, "`maxConnections` and `max` are one option; write `max`."],
        [{ port: "x" }, "`port` has to be a port; got x."],
        [{ password: 1234 }, "`password` has to be a string, a Redacted, or an effect of one."]
      ]
      for (const [options, message] of wrong) {
        const exit = yield* Effect.exit(Effect.scoped(Postgres.make(options)))
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        expect(error).toBeInstanceOf(RangeError)
        expect(`${error}`).toContain(`Postgres.make: ${message}`)
      }
    }))

  it.live("a server that accepts and never answers is typed by connectTimeout", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      proxy.freeze()
      const address = {
        host: "127.0.0.1",
        port: proxy.port,
        user: "postgres",
        database: "postgres"
      }
      const late = yield* opening({ ...address, connectTimeout: "50 millis" })
      expect(late.message).toContain("no answer within 50ms")
      const swallowed = proxy.swallowed()
      const fiber = yield* Effect.fork(Effect.scoped(Postgres.make(address)))
      yield* Effect.promise(() => swallowed)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
    }).pipe(Effect.scoped))

  it.live("a database that does not exist, and a password that is missing or wrong, are typed", () =>
    Effect.gen(function*() {
      const { host, port } = server.get()
      expect(yield* opening({ url: urlOf(server.get(), "no_such_database") })).toMatchObject({
        _tag: "PostgresUnavailable",
        code: "3D000",
        database: "no_such_database"
      })
      const [where] = yield* ask("select current_setting('hba_file') as hba")
      const hba = `${where?.["hba"]}`
      fs.writeFileSync(hba, `local all locked scram-sha-256\n${fs.readFileSync(hba, "utf8")}`)
      yield* ask("create role locked login password 'open sesame'")
      yield* ask("select pg_reload_conf()")
      const as = { host, port, user: "locked", database: "postgres" }
      yield* until(
        "the rule is in force",
        Effect.map(opening(as), (error) => error._tag === "PostgresUnavailable")
      )
      expect((yield* opening(as)).message).toContain("none was given")
      const wrong = yield* opening({ ...as, password: Redacted.make("knock knock") })
      expect(wrong).toMatchObject({ code: "28P01" })
      expect(wrong.message).not.toContain("knock")
      let tokens = 0
      const passwords = [
        Redacted.make("open sesame"),
        Effect.sync(() => Redacted.make(++tokens > 0 ? "open sesame" : ""))
      ]
      for (const password of passwords) {
        const { sql } = yield* Postgres.make({ ...as, password })
        expect(yield* sql`select current_user as me`).toEqual([{ me: "locked" }])
      }
      expect(tokens).toBe(1)
      const noToken = yield* opening({ ...as, password: Effect.fail("no token") })
      expect(noToken.message).toContain("no token")
    }).pipe(Effect.scoped))

  for (
    const url of [
      "mysql://root:hunter2@localhost/db",
      "localhost:5432",
      "",
      "postgres://u:hunter2@h:99999/db"
    ]
  ) {
    it.live(`an unreadable URL is refused before anything is opened: ${url.slice(0, 8)}`, () =>
      Effect.gen(function*() {
        for (const one of [url, Redacted.make(url)]) {
          const error = yield* opening({ url: one })
          expect(error._tag).toBe("InvalidUrl")
          expect(error.message).not.toContain("hunter2")
        }
      }))
  }
})
