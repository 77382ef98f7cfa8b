/** `transact` and `guard`, in transactions of ours and of sql-pg, with leases of each backend that can be guarded. */
import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, type Scope } from "effect"
import type * as Lock from "holdfast/Lock"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as LockRedis from "holdfast/Lock/Redis"
import * as Postgres from "holdfast/Postgres"
import { failuresOf, freshKey, heldBody } from "../../Lock.contract.ts"
import { embeddedServer, query } from "../../support/postgres.ts"
import { redisServer, startRedis } from "../../support/redis.ts"

const server = embeddedServer()
const address = () => {
  const { database, host, port } = server.get()
  return { host, port, user: "postgres", database: database ?? "postgres" }
}
const advisory = Effect.suspend(() => LockPostgres.make({ ...address(), namespace: "guarded" }))

const sql: Effect.Effect<SqlClient.SqlClient, unknown, Scope.Scope> = Effect.map(
  Effect.suspend(() => Postgres.make(address())),
  (pool) => pool.sql
)
const stockSql = Effect.suspend(() => PgClient.make({ ...address(), username: "postgres" })).pipe(
  Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make)
)

/** A counter that each body reads and then writes: a stale commit loses an update. */
const counter = (client: SqlClient.SqlClient, name: string) =>
  Effect.gen(function*() {
    yield* client`create table if not exists counters (name text primary key, n int not null)`
    yield* client`insert into counters values (${name}, 0)`
    const add = Effect.gen(function*() {
      const [row] = yield* client<{ n: number }>`select n from counters where name = ${name}`
      yield* Effect.yieldNow()
      yield* client`update counters set n = ${row!.n + 1} where name = ${name}`
    })
    const value = Effect.map(
      client<{ n: number }>`select n from counters where name = ${name}`,
      ([row]) => row?.n
    )
    return { add, value }
  })

const using = <A, E, R>(client: SqlClient.SqlClient, effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, SqlClient.SqlClient, client)

describe("transact", () => {
  for (const [name, client] of [["ours", sql], ["sql-pg", stockSql]] as const) {
    it.scopedLive(`LockPostgres-6: ${name}: transactions of a key take turns, and a lease excludes them`, () =>
      Effect.gen(function*() {
        const db = yield* client
        const lock = yield* advisory
        const key = freshKey()
        const { add, value } = yield* counter(db, key)
        const once = using(db, LockPostgres.transact(key, { namespace: "guarded" })(add))
        const fibers = yield* Effect.forEach(Array.from({ length: 6 }), () => Effect.fork(once))
        for (const fiber of fibers) yield* Fiber.join(fiber)
        expect(yield* value).toBe(6)
        const late = using(
          db,
          LockPostgres.transact(key, { namespace: "guarded", acquireTimeout: "50 millis" })(add)
        )
        const held = yield* lock.withLock(key)(Effect.either(late))
        expect(held).toMatchObject({ _tag: "Left", left: { _tag: "LockTimeout", key } })
        expect(yield* value).toBe(6)
        // What was rolled back holds nothing.
        yield* Effect.exit(
          using(db, LockPostgres.transact(key, { namespace: "guarded" })(Effect.fail("no")))
        )
        expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
      }))
  }

  it.scopedLive("LockPostgres-6: an interrupted wait leaves no lock and no session behind", () =>
    Effect.gen(function*() {
      const pool = yield* Postgres.make({ ...address(), max: 1 })
      const lock = yield* advisory
      const key = freshKey()
      const body = using(
        pool.sql,
        LockPostgres.transact(key, { namespace: "guarded" })(Effect.void)
      )
      const waiter = yield* lock.withLock(key)(
        Effect.gen(function*() {
          const fiber = yield* Effect.forkDaemon(body)
          yield* Effect.sleep("30 millis")
          yield* Fiber.interrupt(fiber)
          return fiber
        })
      )
      expect(Exit.isInterrupted(yield* Fiber.await(waiter))).toBe(true)
      yield* body
      expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.some(undefined))
    }))
})

/** A lease that was superseded without a notice to its holder: what a pause or a lost network makes. */
const stale = (lease: Lock.Lease): Lock.Lease => ({ ...lease, ensureLive: Effect.void })

const guards = (
  name: string,
  make: Effect.Effect<Lock.Service, unknown, Scope.Scope>,
  skip = false
) =>
  describe.skipIf(skip)(`guard: ${name}`, () => {
    it.scopedLive("LockPostgres-7: the present holder commits; one of a lower fence changes nothing", () =>
      Effect.gen(function*() {
        const lock = yield* make
        const db = yield* sql
        const key = freshKey()
        const { add, value } = yield* counter(db, `${name} ${key}`)
        const first = yield* lock.withLock(key)((lease) =>
          Effect.as(
            Effect.zipRight(
              using(db, LockPostgres.guard(lease)(add)),
              using(db, LockPostgres.guard(lease)(add))
            ),
            lease
          )
        )
        expect(yield* value).toBe(2)
        // Released: its own process knows.
        expect(yield* Effect.flip(using(db, LockPostgres.guard(first)(add)))).toMatchObject({
          _tag: "LockLost",
          reason: "released"
        })
        yield* lock.withLock(key)((lease) => using(db, LockPostgres.guard(lease)(add)))
        const refused = yield* Effect.flip(using(db, LockPostgres.guard(stale(first))(add)))
        expect(refused).toMatchObject({
          _tag: "LockLost",
          fence: first.fence,
          reason: "superseded"
        })
        expect(yield* value).toBe(3)
      }))

    it.scopedLive("LockPostgres-7: a holder that is overtaken before its commit is waited for, and its successor sees its change", () =>
      Effect.gen(function*() {
        const lock = yield* make
        const db = yield* sql
        const key = freshKey()
        const { add, value } = yield* counter(db, `${name} ${key}`)
        const old = yield* Effect.scoped(lock.get(key))
        // Its row has its fence already: another transaction of it only keeps the row.
        yield* using(db, LockPostgres.guard(stale(old))(Effect.void))
        const isInside = yield* Deferred.make<void>()
        const mayEnd = yield* Deferred.make<void>()
        const paused = Effect.zipRight(
          Deferred.succeed(isInside, undefined),
          Effect.zipRight(Deferred.await(mayEnd), add)
        )
        const late = yield* Effect.fork(using(db, LockPostgres.guard(stale(old))(paused)))
        yield* Deferred.await(isInside)
        const next = yield* Effect.fork(
          lock.withLock(key)((lease) => using(db, LockPostgres.guard(lease)(add)))
        )
        // Time enough for one that does not wait.
        yield* Effect.sleep("300 millis")
        expect(next.unsafePoll()).toBe(null)
        yield* Deferred.succeed(mayEnd, undefined)
        yield* Fiber.join(late)
        yield* Fiber.join(next)
        expect(yield* value).toBe(2)
      }))
  })

guards("advisory", advisory)
guards(
  "lease",
  Effect.suspend(() =>
    LockPostgres.makeLease({ ...address(), namespace: "guarded", pollInterval: "20 millis" })
  )
)
guards(
  "Redis",
  Effect.flatMap(
    Effect.suspend(() => startRedis),
    ({ socket }) => LockRedis.make({ namespace: "guarded", url: socket, restartGuard: false })
  ),
  redisServer === undefined
)

it.scopedLive("LockPostgres-7: bodies that are interrupted at any moment lose no update and keep no row", () =>
  Effect.gen(function*() {
    const lock = yield* advisory
    const db = yield* sql
    const key = freshKey()
    const { add, value } = yield* counter(db, key)
    let done = 0
    for (let round = 0; round < 60; round++) {
      const fiber = yield* Effect.fork(
        lock.withLock(key)((lease) => using(db, LockPostgres.guard(lease)(add)))
      )
      yield* Effect.sleep(round % 6)
      const exit = yield* Fiber.interrupt(fiber)
      expect(failuresOf(exit)).toEqual([])
      if (Exit.isSuccess(exit)) done++
    }
    yield* lock.withLock(key)((lease) => using(db, LockPostgres.guard(lease)(add)))
    // A COMMIT under way may take effect though its fiber was interrupted.
    expect(yield* value).toBeGreaterThan(done)
    expect(yield* value).toBeLessThanOrEqual(61)
  }))

it.scopedLive("LockPostgres-1: clients with different search paths draw from one sequence, and their fences rise", () =>
  Effect.gen(function*() {
    yield* Effect.promise(() =>
      query(
        server.get(),
        `create schema elsewhere; alter database ${address().database} set search_path to elsewhere`
      )
    )
    const other = yield* Effect.ensuring(
      Effect.flatMap(advisory, (lock) => Effect.scoped(Effect.as(lock.get(freshKey()), lock))),
      Effect.promise(() =>
        query(server.get(), `alter database ${address().database} reset search_path`)
      )
    )
    const one = yield* advisory
    const key = freshKey()
    const fences: Array<bigint> = []
    for (let i = 0; i < 6; i++) {
      yield* (i % 2 === 0 ? one : other).withLock(key)(({ fence }) =>
        Effect.sync(() => fences.push(fence))
      )
    }
    expect(fences).toEqual(fences.toSorted((a, b) => Number(a - b)))
    const [row] = yield* Effect.promise(() =>
      query(
        server.get(),
        "select count(*)::int as n from pg_class where relname like '%lock_fence'"
      )
    )
    expect(row).toEqual({ n: 1 })
  }))

it.scopedLive("LockPostgres-7: a lease whose fences are those of one process is a defect", () =>
  Effect.gen(function*() {
    const { makeMemory } = yield* Effect.promise(() => import("holdfast/Lock"))
    const { fiber, lease } = yield* heldBody(yield* makeMemory, "k")
    const exit = yield* Effect.exit(using(yield* sql, LockPostgres.guard(lease)(Effect.void)))
    expect(Exit.isFailure(exit) && exit.cause._tag).toBe("Die")
    yield* Fiber.interrupt(fiber)
  }))

it.scopedLive("LockPostgres-7: a long key, and one with bytes that Postgres refuses, have a row each", () =>
  Effect.gen(function*() {
    const lock = yield* Effect.suspend(() =>
      LockPostgres.makeLease({ ...address(), namespace: "keys\0" })
    )
    const db = yield* sql
    const keys = ["\0", "\ud800", "\ud801", Array.from({ length: 9000 }, (_, i) => i * 7919).join()]
    const held = yield* lock.withLocks(keys)((leases) =>
      Effect.forEach(
        leases,
        (lease) => using(db, LockPostgres.guard(lease)(Effect.succeed(lease.key)))
      )
    )
    expect(held).toEqual(keys.toSorted())
  }))
