import { Reactivity } from "@effect/experimental"
import { SqlClient, SqlResolver } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Schema,
  Stream,
  Tracer
} from "effect"
import * as Postgres from "holdfast/Postgres"
import { embeddedServer } from "../support/postgres.ts"
import { failureOf, poolsOf, reasonOf, until } from "../support/postgresPool.ts"
import { tcpProxy } from "../support/tcpProxy.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })
const { ask, pool, statesOf, table, untilCommits } = poolsOf(server, "tx")

const idsOf = (name: string) =>
  Effect.map(ask(`select id from ${name} order by id`), (rows) => rows.map((row) => row["id"]))

describe("Postgres/transaction: streams", () => {
  it.scopedLive("Postgres-6: other statements of the transaction run between two fetches of a stream", () =>
    Effect.gen(function*() {
      const { sql, stats } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const numbers = sql<{ n: number }>`select n from generate_series(1, 300) n`.stream
      yield* sql.withTransaction(Stream.runDrain(
        Stream.mapEffect(numbers, ({ n }) => sql`insert into ${sql(t)} values (${n})`)
      ))
      expect((yield* idsOf(t)).length).toBe(300)
      expect(yield* stats).toMatchObject({ active: 0, idle: 1, waiting: 0 })
    }))

  it.scopedLive("Postgres-6: streams nest, and nested transactions run between two fetches", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const t = yield* table("id int primary key")
      const upTo = (n: number) =>
        sql<{ n: number }>`select n from generate_series(1, ${n}::int) n`.stream
      const insert = (id: number) =>
        sql.withTransaction(Effect.zipRight(
          sql`insert into ${sql(t)} values (${id})`,
          id % 100 === 0 ? Effect.fail("hundred") : Effect.void
        ))
      yield* sql.withTransaction(Stream.runDrain(
        upTo(300).pipe(
          Stream.mapEffect(({ n }) => Effect.exit(insert(n))),
          Stream.flatMap(() => Stream.take(upTo(200), 1))
        )
      ))
      expect((yield* idsOf(t)).length).toBe(297)
    }))

  it.scopedLive("Postgres-6: a nested transaction may read on in a stream of the outer one", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const count = yield* sql.withTransaction(Effect.scoped(Effect.gen(function*() {
        const pull = yield* Stream.toPull(sql`select n from generate_series(1, 300) n`.stream)
        const first = yield* pull
        const second = yield* sql.withTransaction(pull)
        return Chunk.size(first) + Chunk.size(second)
      })))
      expect(count).toBe(300)
    }))

  it.scopedLive("Postgres-6: a bad parameter or a failing row fails the stream; the pool goes on", () =>
    Effect.gen(function*() {
      const { sql, stats } = yield* pool({ max: 1 })
      const rows = sql`select 1 / (200 - n) from generate_series(1, 300) n`.stream
      const failed = yield* failureOf(sql.withTransaction(Stream.runDrain(rows)))
      expect(Postgres.sqlState(failed)).toEqual(Option.some("22012"))
      const circle: Record<string, unknown> = {}
      circle["self"] = circle
      const bad = sql`select ${circle as never}::json`.stream
      for (const one of [Stream.runDrain(bad), sql.withTransaction(Stream.runDrain(bad))]) {
        expect((yield* failureOf(one)).message).toContain("circular")
      }
      expect(yield* Stream.runCollect(sql`select 1 as one`.stream)).toEqual(Chunk.of({ one: 1 }))
      expect(yield* stats).toMatchObject({ active: 0, idle: 1, waiting: 0 })
    }))

  it.scopedLive("Postgres-6: a stream of a reserved session refuses other statements, which would wait for themselves", () =>
    Effect.gen(function*() {
      const { reserve } = yield* pool({ max: 1 })
      const session = yield* reserve
      const numbers = session.executeStream(
        "select n from generate_series(1, 300) n",
        [],
        undefined
      )
      const one = session.execute("select 1 as one", [], undefined)
      const error = yield* failureOf(Stream.runDrain(Stream.mapEffect(numbers, () => one)))
      expect(reasonOf(error)).toBe("SessionBusy")
      expect(yield* one).toEqual([{ one: 1 }])
    }))
})

describe("Postgres/transaction: other databases", () => {
  it.scopedLive("Postgres-6: two pools never get each other's statements, and resolvers of @effect/sql still find theirs", () =>
    Effect.gen(function*() {
      const first = yield* pool({ max: 2 })
      const second = yield* pool({ max: 2 })
      const t = yield* table("id int primary key")
      const insert = ({ sql }: Postgres.Service, id: number) =>
        sql`insert into ${sql(t)} values (${id})`
      const rolledBack = first.sql.withTransaction(Effect.gen(function*() {
        yield* insert(first, 1)
        yield* insert(second, 2)
        yield* second.sql.withTransaction(Effect.zipRight(insert(first, 3), insert(second, 4)))
        return yield* Effect.fail("no")
      }))
      expect(yield* failureOf(rolledBack)).toBe("no")
      expect(yield* idsOf(t)).toEqual([2, 4])
      const { sql } = first
      const resolver = yield* SqlResolver.void("Insert", {
        Request: Schema.Number,
        execute: (ids) => sql`insert into ${sql(t)} ${sql.insert(ids.map((id) => ({ id })))}`
      })
      yield* Effect.exit(
        sql.withTransaction(Effect.zipRight(resolver.execute(5), Effect.fail("no")))
      )
      yield* sql.withTransaction(resolver.execute(6))
      expect(yield* idsOf(t)).toEqual([2, 4, 6])
    }))

  it.scopedLive("Postgres-6: a client of another kind is refused in a transaction, not given its session", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1 })
      const other = yield* SqlClient.make({
        acquirer: Effect.dieMessage("no session of the other database is needed here"),
        compiler: PgClient.makeCompiler(),
        spanAttributes: []
      }).pipe(Effect.provide(Reactivity.layer))
      const uses: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        other`select 1`,
        Stream.runDrain(other`select 1`.stream),
        other.withTransaction(Effect.void)
      ]
      for (const inner of uses) {
        const exit = yield* Effect.exit(sql.withTransaction(inner))
        expect(reasonOf(Exit.isFailure(exit) && Cause.squash(exit.cause))).toBe("ForeignStatement")
      }
    }))
})

describe("Postgres/transaction: options", () => {
  it.scopedLive("Postgres-5: isolation, read only and deferrable reach the server", () =>
    Effect.gen(function*() {
      const { sql, transaction } = yield* pool({ max: 1 })
      const shown = sql`select current_setting('transaction_isolation') as isolation,
        current_setting('transaction_read_only') as ro, current_setting('transaction_deferrable') as def`
      expect(
        yield* transaction(shown, { isolation: "serializable", readOnly: true, deferrable: true })
      )
        .toEqual([{ isolation: "serializable", ro: "on", def: "on" }])
      expect(yield* transaction(shown)).toEqual([{
        isolation: "read committed",
        ro: "off",
        def: "off"
      }])
    }))

  it.scopedLive("Postgres-5: a nested transaction cannot ask for what the outermost does not have", () =>
    Effect.gen(function*() {
      const { sql, transaction } = yield* pool({ max: 1 })
      const inner = transaction(sql`select 1 as one`, { isolation: "serializable" })
      const exit = yield* Effect.exit(transaction(inner))
      expect(Exit.isFailure(exit) && String(Cause.squash(exit.cause))).toContain("Ask for it there")
      expect(yield* transaction(inner, { isolation: "serializable" })).toEqual([{ one: 1 }])
    }))

  it.scopedLive("Postgres-5: with `retry`, a serialization failure runs the whole body again; nothing else does", () =>
    Effect.gen(function*() {
      const { sql, transaction } = yield* pool({ max: 4 })
      const t = yield* table("id int primary key, n int not null")
      yield* ask(`insert into ${t} values (1, 0)`)
      let bodies = 0
      const increment = Effect.gen(function*() {
        bodies++
        const [row] = yield* sql<{ n: number }>`select n from ${sql(t)} where id = 1`
        yield* Effect.sleep(2)
        yield* sql`update ${sql(t)} set n = ${row!.n + 1} where id = 1`
      })
      const all = Effect.forEach(
        [1, 2, 3, 4],
        () => transaction(increment, { isolation: "serializable", retry: 50 }),
        { concurrency: 4 }
      )
      yield* all
      expect(yield* ask(`select n from ${t}`)).toEqual([{ n: 4 }])
      expect(bodies).toBeGreaterThan(4)
      bodies = 0
      const broken = Effect.zipRight(Effect.sync(() => bodies++), sql`select nope`)
      yield* failureOf(transaction(broken, { retry: 5 }))
      expect(bodies).toBe(1)
    }))

  it.scopedLive("Postgres-5: a conflict that the body turned into an error of its own is tried again too", () =>
    Effect.gen(function*() {
      const { sql, transaction } = yield* pool({ max: 1 })
      let bodies = 0
      const conflict = sql`do $$ begin raise exception using errcode = '40001'; end $$`
      const mine = Effect.zipRight(Effect.mapError(conflict, () => "mine"), Effect.succeed(0))
      const body = Effect.suspend(() => ++bodies < 3 ? mine : Effect.succeed(bodies))
      expect(yield* transaction(body, { retry: 5 })).toBe(3)
      bodies = -5
      expect(yield* failureOf(transaction(body, { retry: 2 }))).toBe("mine")
      expect(bodies).toBe(-2)
      // The same session, after a conflict of somebody else.
      let others = 0
      const other = Effect.zipRight(Effect.sync(() => others++), Effect.fail("other"))
      expect(yield* failureOf(transaction(other, { retry: 2 }))).toBe("other")
      expect(others).toBe(1)
    }))
})

describe("Postgres/transaction: hooks", () => {
  const hooked = Effect.gen(function*() {
    const service = yield* pool({ max: 1 })
    const log: Array<string> = []
    const note = (what: string) => Effect.sync(() => void log.push(what))
    const both = (what: string) =>
      Effect.zipRight(
        service.onCommit(note(`${what} committed`)),
        service.onRollback(note(`${what} rolled back`))
      )
    return { ...service, log, note, both }
  })

  it.scopedLive("Postgres-5: hooks run once, after the outermost transaction, by its outcome", () =>
    Effect.gen(function*() {
      const { both, log, note, onCommit, sql } = yield* hooked
      const no = Effect.fail("no")
      yield* onCommit(note("outside"))
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* both("outer")
        yield* sql.withTransaction(both("kept"))
        yield* Effect.exit(sql.withTransaction(Effect.zipRight(both("dropped"), no)))
        yield* note("body ends")
      }))
      expect(log).toEqual([
        "outside",
        "dropped rolled back",
        "body ends",
        "outer committed",
        "kept committed"
      ])
      log.length = 0
      yield* Effect.exit(
        sql.withTransaction(Effect.zipRight(sql.withTransaction(both("nested")), no))
      )
      expect(log).toEqual(["nested rolled back"])
    }))

  it.scopedLive("Postgres-5: a hook has the pool to itself: its statements are outside of the transaction", () =>
    Effect.gen(function*() {
      const { onCommit, onRollback, sql } = yield* hooked
      const t = yield* table("id int primary key")
      const insert = (id: number) => Effect.ignore(sql`insert into ${sql(t)} values (${id})`)
      yield* sql.withTransaction(onCommit(insert(1)))
      yield* Effect.exit(
        sql.withTransaction(Effect.zipRight(onRollback(insert(2)), Effect.fail("no")))
      )
      // The hook of a nested transaction is in the outer one, which goes on.
      yield* sql.withTransaction(
        Effect.exit(sql.withTransaction(Effect.zipRight(onRollback(insert(3)), Effect.fail("no"))))
      )
      expect(yield* idsOf(t)).toEqual([1, 2, 3])
    }))

  it.scopedLive("Postgres-5: an interrupted COMMIT that took effect runs onCommit; a hook that dies changes nothing", () =>
    Effect.gen(function*() {
      const { applicationName, both, log, onCommit, sql } = yield* hooked
      const t = yield* table("id int primary key")
      yield* ask(`create function slow_${t}() returns trigger language plpgsql as
        $$ begin perform pg_sleep(0.3); return null; end $$`)
      yield* ask(`create constraint trigger slow after insert on ${t}
        deferrable initially deferred for each row execute function slow_${t}()`)
      const body = sql`insert into ${sql(t)} values (1)`.pipe(
        Effect.zipRight(onCommit(Effect.dieMessage("a hook"))),
        Effect.zipRight(both("it"))
      )
      const fiber = yield* Effect.fork(
        Effect.provide(sql.withTransaction(body), Logger.remove(Logger.defaultLogger))
      )
      yield* untilCommits(applicationName)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* idsOf(t)).toEqual([1])
      expect(log).toEqual(["it committed"])
    }))
})

describe("Postgres/transaction: a lost server", () => {
  const behindProxy = Effect.gen(function*() {
    const proxy = yield* Effect.acquireRelease(
      Effect.promise(() => tcpProxy(server.get().host, server.get().port)),
      (one) => Effect.promise(() => one.close())
    )
    const at: Postgres.Options = {
      host: "127.0.0.1",
      port: proxy.port,
      cancelTimeout: "100 millis",
      drain: "50 millis"
    }
    return { proxy, ...(yield* pool({ ...at, max: 1 })) }
  })

  it.scopedLive("Postgres-5: an unknown outcome runs no hook and is not tried again", () =>
    Effect.gen(function*() {
      const { onCommit, onRollback, proxy, sql, transaction } = yield* behindProxy
      const t = yield* table("id int primary key")
      const log: Array<string> = []
      const note = (what: string) => Effect.sync(() => void log.push(what))
      const swallowed = proxy.swallowed()
      const body = Effect.all([
        note("body"),
        onCommit(note("committed")),
        onRollback(note("rolled back")),
        sql`insert into ${sql(t)} values (1)`,
        Effect.sync(proxy.freeze)
      ])
      const committing = yield* Effect.fork(failureOf(transaction(body, { retry: 5 })))
      yield* Effect.promise(() => swallowed)
      proxy.cut()
      expect(reasonOf(yield* Fiber.join(committing))).toBe("TransactionOutcomeUnknown")
      expect(log).toEqual(["body"])
    }))

  it.scopedLive("Postgres-5: a ROLLBACK that is not answered is bounded, and the body's failure is kept", () =>
    Effect.gen(function*() {
      const { onRollback, proxy, sql, stats } = yield* behindProxy
      const log: Array<string> = []
      const body = sql`select 1`.pipe(
        Effect.zipRight(onRollback(Effect.sync(() => void log.push("rolled back")))),
        Effect.zipRight(Effect.sync(proxy.freeze)),
        Effect.zipRight(Effect.fail("no"))
      )
      expect(yield* failureOf(sql.withTransaction(body))).toBe("no")
      expect(log).toEqual(["rolled back"])
      expect(yield* stats).toMatchObject({ active: 0, idle: 0 })
    }))
})

describe("Postgres/transaction: a cancel without an answer", () => {
  const throughProxy = (cancelTimeout: Duration.DurationInput) =>
    Effect.gen(function*() {
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => tcpProxy(server.get().host, server.get().port)),
        (proxy) => Effect.promise(() => proxy.close())
      )
      const made = yield* pool({ max: 1, host: "127.0.0.1", port: proxy.port, cancelTimeout })
      const untilActive = until(
        "a statement runs",
        Effect.map(statesOf(made.applicationName), (states) => states.includes("active"))
      )
      return { ...made, proxy, untilActive }
    })

  it.scopedLive("Postgres-2: the transaction fails, for the cancel may still hit its next statement", () =>
    Effect.gen(function*() {
      const { applicationName, proxy, sql, untilActive } = yield* throughProxy("300 millis")
      const t = yield* table("id int")
      const error = yield* failureOf(sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into ${sql(t)} values (1)`
        const slow = yield* Effect.fork(sql`select pg_sleep(0.1)`)
        yield* untilActive
        proxy.ignoreNew()
        // The statement comes to its own end.
        yield* Fiber.interrupt(slow)
        yield* sql`insert into ${sql(t)} values (2)`
      })))
      expect(reasonOf(error)).toBe("ConnectionLost")
      expect(yield* idsOf(t)).toEqual([])
      yield* until(
        "the session has ended",
        Effect.map(statesOf(applicationName), (states) => states.length === 0)
      )
    }))

  it.scopedLive("Postgres-1: in a black hole an interrupted transaction returns within twice cancelTimeout", () =>
    Effect.gen(function*() {
      const { proxy, sql, untilActive } = yield* throughProxy("1 second")
      const fiber = yield* Effect.fork(sql.withTransaction(sql`select pg_sleep(0.2)`))
      yield* untilActive
      // The statement is still answered; the server gets neither a cancel nor a ROLLBACK.
      proxy.freeze("toServer")
      const began = performance.now()
      yield* Fiber.interrupt(fiber)
      expect(performance.now() - began).toBeLessThanOrEqual(2_000)
    }))
})

describe("Postgres/transaction: waiting for itself", () => {
  it.scopedLive("Postgres-6: a nested transaction that waits for a fiber of the outer one is named, not silent", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1, acquireTimeout: "150 millis" })
      const error = yield* failureOf(sql.withTransaction(Effect.gen(function*() {
        const go = yield* Deferred.make<void>()
        const outer = yield* Effect.fork(Effect.zipRight(Deferred.await(go), sql`select 1`))
        yield* sql.withTransaction(Effect.zipRight(Deferred.succeed(go, void 0), Fiber.join(outer)))
      })))
      expect(reasonOf(error)).toBe("TransactionStuck")
      expect(error).toMatchObject({ message: expect.stringContaining("waits for this fiber") })
    }))

  it.scopedLive("Postgres-6: a statement may wait longer than acquireTimeout for one that runs", () =>
    Effect.gen(function*() {
      const { sql } = yield* pool({ max: 1, acquireTimeout: "100 millis" })
      const both = Effect.all([sql`select pg_sleep(0.4)`, sql`select 1 as one`], { concurrency: 2 })
      expect((yield* sql.withTransaction(both))[1]).toEqual([{ one: 1 }])
    }))
})

describe("Postgres/transaction: spans", () => {
  it.scopedLive("Postgres-5: a span has an event for begin, savepoint, commit and rollback", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const tracer = Tracer.make({
        span: (name, parent, context, links, startTime, kind) => ({
          _tag: "Span",
          name,
          parent,
          context,
          links,
          kind,
          sampled: true,
          spanId: "1",
          traceId: "1",
          status: { _tag: "Started", startTime },
          attributes: new Map(),
          attribute: () => {},
          addLinks: () => {},
          end: () => {},
          event: (event: string) => void events.push(event)
        }),
        context: (run) => run()
      })
      const { sql } = yield* pool({ max: 1 })
      const no = sql.withTransaction(Effect.fail("no"))
      const body = Effect.zipRight(sql.withTransaction(sql`select 1`), Effect.exit(no))
      yield* Effect.provide(sql.withTransaction(body), Layer.setTracer(tracer))
      expect(events.map((event) => event.replace("db.transaction.", ""))).toEqual([
        "begin",
        "begin",
        "savepoint",
        "begin",
        "rollback",
        "commit"
      ])
      expect(yield* statesOf("none")).toEqual([])
    }))
})
