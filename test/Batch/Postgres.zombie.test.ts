/** Exactly once under two runs at once and late COMMITs; no unique key helps the table of effects. */
import { SqlClient } from "@effect/sql"
import { expect, it } from "@effect/vitest"
import { Effect, Either, Fiber } from "effect"
import { Batch } from "holdfast"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import { embeddedServer } from "../support/postgres.ts"
import { poolsOf, until } from "../support/postgresPool.ts"
import { tcpProxy } from "../support/tcpProxy.ts"

const server = embeddedServer()
const { ask, pool, table } = poolsOf(server, "zombie")
/** `HOLDFAST_ZOMBIES=200` for a long run. */
const rounds = Number(process.env["HOLDFAST_ZOMBIES"] ?? 3)
const items = Array.from({ length: 60 }, (_, i) => i)

/** Opens the run and works on all items, in a pool of its own. */
const runOn = (effects: string, run: string, options: Parameters<typeof pool>[0] = {}) =>
  Effect.scoped(Effect.gen(function*() {
    const { sql } = yield* pool({ max: 4, ...options })
    const checkpoint = yield* Effect.provideService(
      BatchPostgres.checkpoint({ run }),
      SqlClient.SqlClient,
      sql
    )
    return yield* Batch.run(
      {
        name: "rows",
        key: String,
        process: () => Effect.void,
        commit: (i: number) => sql`INSERT INTO ${sql(effects)} ${sql.insert({ key: `${i}` })}`
      },
      items,
      { concurrency: 4, checkpoint }
    )
  }))

const counts = (effects: string) =>
  Effect.map(
    ask(`SELECT count(*)::int n, count(DISTINCT key)::int d FROM ${effects}`),
    (rows) => rows[0]
  )

it.scopedLive("BatchPostgres-3: a COMMIT that arrives late doubles nothing", () =>
  Effect.gen(function*() {
    const { host, port } = server.get()
    for (let round = 0; round < rounds; round++) {
      const effects = yield* table("key text")
      const proxy = yield* Effect.promise(() => tcpProxy(host, port))
      const zombie = yield* Effect.fork(Effect.either(
        runOn(effects, effects, { host: "127.0.0.1", port: proxy.port })
      ))
      yield* until(
        "some items are done",
        Effect.map(counts(effects), (seen) => seen!["n"] > round * 5)
      )
      proxy.hold("toServer")
      const next = yield* Effect.fork(runOn(effects, effects))
      yield* Effect.sleep(20 * round)
      proxy.resume()
      expect((yield* Fiber.join(next)).status).toBe("complete")
      const before = yield* Fiber.join(zombie)
      // It may have been through before the later run opened.
      if (Either.isLeft(before)) expect(String(before.left)).toContain("a later run of this name")
      expect(yield* counts(effects)).toEqual({ n: 60, d: 60 })
      yield* Effect.promise(proxy.close)
    }
  }))

it.scopedLive("BatchPostgres-3: of two runs at once the earlier ends as superseded, and nothing is doubled", () =>
  Effect.gen(function*() {
    for (let round = 0; round < rounds; round++) {
      const effects = yield* table("key text")
      const runs = yield* Effect.forEach([0, 1], (at) =>
        Effect.fork(Effect.either(
          Effect.delay(runOn(effects, effects), at * round * 5)
        )))
      const ends = yield* Effect.forEach(runs, Fiber.join)
      expect(ends.filter(Either.isRight).length).toBeGreaterThan(0)
      expect(yield* counts(effects)).toEqual({ n: 60, d: 60 })
    }
  }))

it.scopedLive("BatchPostgres-1: two runs of one epoch commit each key once, and both reports add up", () =>
  Effect.gen(function*() {
    const effects = yield* table("key text")
    const { sql } = yield* pool({ max: 8 })
    const checkpoint = yield* Effect.provideService(
      BatchPostgres.checkpoint({ run: effects }),
      SqlClient.SqlClient,
      sql
    )
    const run = Batch.run(
      {
        name: "rows",
        key: String,
        process: () => Effect.yieldNow(),
        commit: (i: number) => sql`INSERT INTO ${sql(effects)} ${sql.insert({ key: `${i}` })}`
      },
      items,
      { concurrency: 4, checkpoint }
    )
    const [left, right] = yield* Effect.zip(run, run, { concurrent: true })
    expect(yield* counts(effects)).toEqual({ n: 60, d: 60 })
    expect([left.done + right.done, left.done + left.alreadyDone]).toEqual([60, 60])
  }))
