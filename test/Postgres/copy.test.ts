import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Option, Stream } from "effect"
import * as Postgres from "holdfast/Postgres"
import { embeddedServer } from "../support/postgres.ts"
import { failureOf, poolsOf, reasonOf } from "../support/postgresPool.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })
const { ask, pool, statesOf, table } = poolsOf(server, "copy")

const countOf = (name: string) =>
  Effect.map(ask(`select count(*)::int as n from ${name}`), (rows) => rows[0]!["n"] as number)

const textOf = (bytes: Iterable<Uint8Array>) => Buffer.concat([...bytes]).toString()

describe("Postgres/copy: from", () => {
  it.scopedLive("rows and bytes arrive as they are, outside and inside of a transaction", () =>
    Effect.gen(function*() {
      const { copyFrom, sql } = yield* pool({ max: 1 })
      const t = yield* table(
        "id int, label text, data jsonb, at timestamptz, raw bytea, list int[]"
      )
      const at = new Date("2026-01-02T03:04:05.678Z")
      const label = "tab\t line\n return\r back\\slash ü \\N"
      const row = [1, label, { a: ["\n"] }, at, Buffer.from([0, 92, 255]), [1, 2]]
      const rows = Stream.make(row, [2, null, undefined, null, null, null])
      expect(yield* copyFrom(sql`copy ${sql(t)} from stdin`, rows)).toBe(2)
      const [first, second] = yield* sql`select * from ${sql(t)} order by id`
      expect(first).toEqual({
        id: 1,
        label,
        data: { a: ["\n"] },
        at,
        raw: Buffer.from([0, 92, 255]),
        list: [1, 2]
      })
      expect(second).toMatchObject({ label: null, data: null, raw: null })
      const csv = Stream.make("3,thr", Buffer.from("ee\n4,four\n"))
      expect(
        yield* sql.withTransaction(copyFrom(`copy ${t} (id, label) from stdin (format csv)`, csv))
      ).toBe(2)
      yield* Effect.exit(sql.withTransaction(
        Effect.zipRight(copyFrom(`copy ${t} (id) from stdin`, Stream.make([9])), Effect.fail("no"))
      ))
      expect(yield* countOf(t)).toBe(4)
    }))

  it.scopedLive("a source that fails or is interrupted copies nothing, and the session goes on", () =>
    Effect.gen(function*() {
      const { applicationName, copyFrom, sql, stats } = yield* pool({ max: 1 })
      const t = yield* table("id int")
      const [{ pid }] = (yield* sql<{ pid: number }>`select pg_backend_pid() as pid`) as [
        { pid: number }
      ]
      const into = `copy ${t} from stdin`
      const failing = Stream.concat(Stream.make([1]), Stream.fail("no"))
      expect(yield* failureOf(copyFrom(into, failing))).toBe("no")
      const reached = yield* Deferred.make<void>()
      const endless = Stream.concat(
        Stream.make([1]),
        Stream.fromEffect(Effect.zipRight(Deferred.succeed(reached, void 0), Effect.never))
      )
      const fiber = yield* Effect.fork(copyFrom(into, endless))
      yield* Deferred.await(reached)
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(yield* sql`select pg_backend_pid() as pid`).toEqual([{ pid }])
      expect(yield* statesOf(applicationName)).toEqual(["idle"])
      expect(yield* countOf(t)).toBe(0)
      expect(yield* stats).toMatchObject({ active: 0, idle: 1 })
    }))

  it.scopedLive("a bad row ends a source that has not ended; a statement that is no COPY FROM is refused", () =>
    Effect.gen(function*() {
      const { copyFrom, sql } = yield* pool({ max: 1 })
      const t = yield* table("id int")
      const bad = Stream.concat(Stream.make("no number\n"), Stream.never)
      expect(Postgres.sqlState(yield* failureOf(copyFrom(`copy ${t} from stdin`, bad)))).toEqual(
        Option.some("22P02")
      )
      for (const wrong of ["select 1", `copy ${t} to stdout`, "", "nonsense"]) {
        expect(yield* failureOf(copyFrom(wrong, Stream.make([1])))).toMatchObject({
          _tag: "SqlError"
        })
      }
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
    }))

  it.scopedLive("a statement of the source to the same transaction is refused, not waited for", () =>
    Effect.gen(function*() {
      const { copyFrom, sql } = yield* pool({ max: 1 })
      const t = yield* table("id int")
      const source = Stream.mapEffect(Stream.range(1, 3), (id) => Effect.as(sql`select 1`, [id]))
      const error = yield* failureOf(sql.withTransaction(copyFrom(`copy ${t} from stdin`, source)))
      expect(reasonOf(error)).toBe("SessionBusy")
    }))

  it.scopedLive("a source is read no faster than the server takes it", () =>
    Effect.gen(function*() {
      const { copyFrom } = yield* pool({ max: 1 })
      const t = yield* table("id text")
      const line = `${"x".repeat(1 << 16)}\n`
      expect(
        yield* copyFrom(
          `copy ${t} from stdin`,
          Stream.rechunk(Stream.take(Stream.repeatValue(line), 200), 1)
        )
      ).toBe(200)
    }))
})

describe("Postgres/copy: to", () => {
  it.scopedLive("gives what the server sends, outside and inside of a transaction", () =>
    Effect.gen(function*() {
      const { copyTo, sql } = yield* pool({ max: 1 })
      const numbers = copyTo("copy (select generate_series(1, 50000)) to stdout")
      const lines = textOf(yield* Stream.runCollect(numbers)).trimEnd().split("\n")
      expect([lines.length, lines[0], lines.at(-1)]).toEqual([50000, "1", "50000"])
      const inside = sql.withTransaction(
        Stream.runCollect(copyTo(sql`copy (select 'ü') to stdout`))
      )
      expect(textOf(yield* inside)).toBe("ü\n")
    }))

  it.scopedLive("a slow reader makes the server wait; a reader that leaves cancels, and the session goes on", () =>
    Effect.gen(function*() {
      const { copyTo, sql, stats } = yield* pool({ max: 1 })
      const much = copyTo(
        "copy (select repeat('x', 10000) from generate_series(1, 100000)) to stdout"
      )
      for (let i = 0; i < 3; i++) {
        expect(Chunk.size(yield* Stream.runCollect(Stream.take(much, 1)))).toBe(1)
      }
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
      expect(yield* stats).toMatchObject({ active: 0 })
    }))

  it.scopedLive("failures are typed: in the middle, and of a statement that is no COPY TO", () =>
    Effect.gen(function*() {
      const { copyTo, sql } = yield* pool({ max: 1 })
      const t = yield* table("id int")
      const broken = copyTo(
        "copy (select 1 / (1000 - n) from generate_series(1, 2000) n) to stdout"
      )
      expect(Postgres.sqlState(yield* failureOf(Stream.runDrain(broken)))).toEqual(
        Option.some("22012")
      )
      for (const wrong of ["select 1", `copy ${t} from stdin`, ""]) {
        expect(yield* failureOf(Stream.runDrain(copyTo(wrong)))).toMatchObject({ _tag: "SqlError" })
      }
      expect(yield* sql`select 1 as one`).toEqual([{ one: 1 }])
    }))

  it.scopedLive("a statement of the reader to the same transaction is refused, not waited for", () =>
    Effect.gen(function*() {
      const { copyTo, sql } = yield* pool({ max: 1 })
      const read = Stream.runForEach(copyTo("copy (select 1) to stdout"), () => sql`select 1`)
      expect(reasonOf(yield* failureOf(sql.withTransaction(read)))).toBe("SessionBusy")
    }))
})
