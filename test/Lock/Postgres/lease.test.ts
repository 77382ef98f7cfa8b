/** `layerLease`: the contract and the faults, on a server and behind pgbouncer. */
import * as SqlClient from "@effect/sql/SqlClient"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Option, Scope } from "effect"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as Postgres from "holdfast/Postgres"
import * as Embedded from "holdfast/Postgres/Embedded"
import { spawn } from "node:child_process"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"
import { failuresOf, freshKey, heldBody, lockContract, turns } from "../../Lock.contract.ts"
import { pgbouncer, startPgbouncer } from "../../support/pgbouncer.ts"
import { embeddedServer, query } from "../../support/postgres.ts"
import { type TcpProxy, tcpProxy } from "../../support/tcpProxy.ts"

const root = path.resolve(import.meta.dirname, "../../..")
const server = embeddedServer()
const addressOf = ({ host, port }: { readonly host: string; readonly port: number }) => ({
  host,
  port,
  user: "postgres",
  database: server.get().database ?? "postgres"
})
const at = (where: { readonly host: string; readonly port: number }) => ({
  namespace: "leases",
  ...addressOf(where)
})
const direct = (more: Partial<LockPostgres.LeaseOptions> = {}) =>
  Effect.suspend(() => LockPostgres.makeLease({ ...at(server.get()), ...more }))

const unhandled: Array<unknown> = []
const note = (error: unknown): void => {
  unhandled.push(error)
}
beforeAll(() => {
  process.on("unhandledRejection", note)
})
afterAll(() => {
  process.off("unhandledRejection", note)
  expect(unhandled).toEqual([])
})

const pause = (millis: number): Effect.Effect<void> =>
  Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))
const ask = (sql: string) => Effect.promise(() => query(server.get(), sql))
const held = Effect.map(
  ask("select count(*)::int as n from holdfast.lock_lease where owner <> 'thief'"),
  ([row]) => row?.["n"]
)

lockContract("postgres lease", {
  one: direct(),
  two: direct(),
  fibers: 12,
  offsets: 24,
  queued: pause(15),
  step: turns
})

describe.skipIf(pgbouncer === undefined)("behind pgbouncer", () => {
  const scope = Effect.runSync(Scope.make())
  let bouncer = { host: "", port: 0 }
  beforeAll(async () => {
    bouncer = await Effect.runPromise(Scope.extend(startPgbouncer(server.get(), 4), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  const through = Effect.suspend(() =>
    LockPostgres.makeLease({ ...at(bouncer), pollInterval: "30 millis" })
  )
  lockContract("postgres lease, pgbouncer", {
    one: through,
    two: through,
    fibers: 12,
    offsets: 12,
    queued: pause(15),
    step: turns
  })

  it.scopedLive("LockPostgres-11: ten services on four sessions of the server lose no update, and leave no setting there", () =>
    Effect.gen(function*() {
      const key = freshKey()
      let inside = 0
      const fences: Array<bigint> = []
      const fibers = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () =>
          Effect.flatMap(through, (lock) =>
            Effect.fork(
              lock.withLock(key)(({ fence }) =>
                Effect.gen(function*() {
                  expect(++inside).toBe(1)
                  fences.push(fence)
                  yield* turns(2)
                  inside--
                })
              )
            ))
      )
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(fences).toEqual(fences.toSorted((a, b) => Number(a - b)))
      expect(yield* held).toBe(0)
      const listening = yield* ask(
        "select pid from pg_stat_activity where query like '%LISTEN%' and application_name like 'lock:%' and datname = current_database()"
      )
      expect(listening).toEqual([])
    }))

  it.scopedLive("LockPostgres-5: session locks are refused, and leave no setting in the pooler's sessions", () =>
    Effect.gen(function*() {
      const lock = yield* LockPostgres.make(at(bouncer))
      const error = yield* Effect.flip(lock.withLock(freshKey())(Effect.void))
      expect(error).toMatchObject({ _tag: "LockUnsupported", why: "pooler" })
      const db = yield* Postgres.make({ ...addressOf(bouncer), reset: "transaction" })
      const [row] = yield* db.sql`select current_setting('client_connection_check_interval') as n`
      expect(row).toEqual({ n: "0" })
    }))

  it.scopedLive("LockPostgres-6, LockPostgres-7: transact and guard work behind it", () =>
    Effect.gen(function*() {
      const { sql } = yield* Postgres.make({ ...addressOf(bouncer), reset: "transaction" })
      const lock = yield* through
      const one = Effect.map(sql`select 1 as one`, (rows) => rows.length)
      const guarded = lock.withLock(freshKey())((lease) => LockPostgres.guard(lease)(one))
      const transacted = LockPostgres.transact(freshKey(), { namespace: "n" })(one)
      const using = Effect.provideService(SqlClient.SqlClient, sql)
      expect([yield* using(guarded), yield* using(transacted)]).toEqual([1, 1])
    }))
})

const proxied = Effect.acquireRelease(
  Effect.suspend(() => Effect.promise(() => tcpProxy(server.get().host, server.get().port))),
  (proxy) => Effect.promise(() => proxy.close())
)
const far = ({ port }: TcpProxy, more: Partial<LockPostgres.LeaseOptions> = {}) =>
  direct({ host: "127.0.0.1", port, ...more })

describe("faults", () => {
  it.scopedLive("LockPostgres-9: renewals keep a lease; a silent server ends it at its deadline, and then another gets the key", () =>
    Effect.gen(function*() {
      const proxy = yield* proxied
      const lock = yield* far(proxy, { ttl: "2 seconds" })
      const key = freshKey()
      const { fiber, lease, seen } = yield* heldBody(lock, key)
      yield* pause(2300)
      yield* lease.verify
      expect(seen.interrupted).toBe(false)
      proxy.freeze()
      const next = yield* Effect.fork(
        Effect.flatMap(
          direct({ pollInterval: "20 millis" }),
          (near) =>
            near.withLock(key)(({ fence }) => Effect.sync(() => [fence, seen.interrupted] as const))
        )
      )
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{
        _tag: "LockLost",
        reason: "deadline"
      }])
      const [fence, wasOver] = yield* Fiber.join(next)
      expect(wasOver).toBe(true)
      expect(fence).toBeGreaterThan(lease.fence)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockPostgres-10: resets, and the end of each session on the server, lose no lease and no waiter", () =>
    Effect.gen(function*() {
      const proxy = yield* proxied
      const lock = yield* far(proxy)
      const key = freshKey()
      const { fiber, lease, seen } = yield* heldBody(lock, key)
      const waiter = yield* Effect.fork(
        Effect.flatMap(
          far(proxy, { pollInterval: "50 millis" }),
          (other) => other.withLock(key)(Effect.succeed("next"))
        )
      )
      for (let round = 0; round < 4; round++) {
        yield* pause(20)
        if (round % 2 === 0) proxy.reset()
        else {yield* ask(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'lock:%' and datname = current_database()"
          )}
        yield* lease.verify
      }
      expect(seen.interrupted).toBe(false)
      yield* Fiber.interrupt(fiber)
      expect(yield* Fiber.join(waiter)).toBe("next")
    }))

  it.scopedLive("LockPostgres-10: a session that ends with the last answer of its opening is not kept", () =>
    Effect.gen(function*() {
      const proxy = yield* proxied
      const lock = yield* far(proxy)
      proxy.delay(100, "toClient")
      const fiber = yield* Effect.fork(lock.withLock(freshKey())(Effect.succeed("done")))
      const prepared = "application_name like 'lock:%' and query like 'LISTEN%' and state = 'idle'"
      const sessions = ask(`select pid from pg_stat_activity where ${prepared}`)
      const [{ pid }] = (yield* Effect.repeat(sessions, { until: (rows) => rows.length > 0 })) as [
        { readonly pid: number }
      ]
      proxy.hold("toClient")
      yield* ask(`select pg_terminate_backend(${pid}, 5000)`)
      yield* pause(20)
      proxy.resume()
      expect(yield* Fiber.join(fiber)).toBe("done")
    }))

  it.scopedLive("LockPostgres-10: a row that another took, or that is gone, loses the lease; a late release frees nothing of another's", () =>
    Effect.gen(function*() {
      const lock = yield* direct({ ttl: "2 seconds" })
      const key = freshKey()
      const { fiber } = yield* heldBody(lock, key)
      yield* ask(
        `update holdfast.lock_lease set owner = 'thief', fence = fence + 1 where name like '%${key}%'`
      )
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{
        _tag: "LockLost",
        reason: "superseded"
      }])
      const [row] = yield* ask(`select owner from holdfast.lock_lease where name like '%${key}%'`)
      expect(row).toEqual({ owner: "thief" })
      expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.none())
      const third = freshKey()
      const scope = yield* Scope.make()
      yield* Scope.extend(lock.get(third), scope)
      yield* ask(`update holdfast.lock_lease set owner = 'thief' where name like '%${third}%'`)
      yield* Scope.close(scope, Exit.void)
      const owner = yield* ask(`select owner from holdfast.lock_lease where name like '%${third}%'`)
      expect(owner).toEqual([{ owner: "thief" }])
      const again = freshKey()
      const { lease } = yield* heldBody(lock, again)
      yield* ask(`update holdfast.lock_lease set owner = null where name like '%${again}%'`)
      expect(yield* Effect.flip(lease.verify)).toMatchObject({
        _tag: "LockLost",
        reason: "vanished"
      })
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockPostgres-11: without any notification a waiter asks again", () =>
    Effect.gen(function*() {
      const one = yield* direct()
      const two = yield* direct({ pollInterval: "50 millis" })
      const key = freshKey()
      const scope = yield* Scope.make()
      yield* Scope.extend(one.get(key), scope)
      const waiter = yield* Effect.fork(two.withLock(key)(Effect.succeed("mine")))
      yield* pause(30)
      // As if the notification of this release were lost.
      yield* ask(
        `update holdfast.lock_lease set owner = null, expires_at = null, wanted = false where name like '%${key}%'`
      )
      expect(yield* Effect.timeout(Fiber.join(waiter), "10 seconds")).toBe("mine")
      yield* Effect.exit(Scope.close(scope, Exit.void))
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockPostgres-11: a release wakes a waiter at once, long before it would ask again", () =>
    Effect.gen(function*() {
      const one = yield* direct()
      const two = yield* direct({ pollInterval: "1 hour" })
      const key = freshKey()
      for (let round = 0; round < 5; round++) {
        const scope = yield* Scope.make()
        yield* Scope.extend(one.get(key), scope)
        const waiter = yield* Effect.fork(two.withLock(key)(Effect.succeed(round)))
        yield* pause(round * 10)
        yield* Scope.close(scope, Exit.void)
        // The holder's time to live would be 15 seconds.
        expect(yield* Effect.timeout(Fiber.join(waiter), "10 seconds")).toBe(round)
      }
    }))

  it.scopedLive("LockPostgres-7: a holder that was stopped beyond its lease commits nothing when it wakes", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const { sql } = yield* Postgres.make(addressOf(server.get()))
      yield* sql`create table paused (who text)`
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, [
            "--input-type=module",
            "-e",
            `
import { Effect } from "effect"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Lock from "holdfast/Lock"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as Postgres from "holdfast/Postgres"
const address = ${JSON.stringify(at(server.get()))}
const { namespace, ...database } = address
await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
  const lock = yield* LockPostgres.makeLease({ ...address, ttl: "1 second" })
  const { sql } = yield* Postgres.make(database)
  const lease = yield* lock.get(${JSON.stringify(key)})
  // Its process does not look at its clock: only the database can refuse.
  const blind = { ...lease, ensureLive: Effect.void }
  yield* Effect.sync(() => console.log("held"))
  yield* Effect.async((resume) => { process.stdin.once("data", () => resume(Effect.void)) })
  const exit = yield* Effect.flip(Effect.provideService(
    LockPostgres.guard(blind)(sql\`insert into paused values ('old')\`), SqlClient.SqlClient, sql))
  console.log(exit._tag)
})))
process.exit(0)`
          ], { cwd: root, stdio: ["pipe", "pipe", "inherit"] })
        ),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const line = Effect.async<string>((resume) => {
        child.stdout.once("data", (text: Buffer) => resume(Effect.succeed(text.toString().trim())))
      })
      expect(yield* line).toBe("held")
      child.kill("SIGSTOP")
      const lock = yield* direct({ pollInterval: "20 millis" })
      yield* lock.withLock(key)((lease) =>
        Effect.provideService(
          LockPostgres.guard(lease)(sql`insert into paused values ('new')`),
          SqlClient.SqlClient,
          sql
        )
      )
      const said = yield* Effect.fork(line)
      yield* Effect.yieldNow()
      child.kill("SIGCONT")
      child.stdin.write("go\n")
      expect(yield* Fiber.join(said)).toBe("LockLost")
      expect(yield* sql`select who from paused`).toEqual([{ who: "new" }])
    }))

  it.scopedLive(
    "LockPostgres-10: interrupted around the grant 200 times, no row has an owner",
    () =>
      Effect.gen(function*() {
        const one = yield* direct()
        const two = yield* direct()
        const race = (round: number) =>
          Effect.gen(function*() {
            const key = freshKey()
            const scope = yield* Scope.make()
            yield* Scope.extend(one.get(key), scope)
            const waiter = yield* Effect.fork(two.withLock(key)(Effect.void))
            yield* pause(round % 12)
            const freeing = yield* Effect.fork(Scope.close(scope, Exit.void))
            yield* turns(round % 30)
            expect(failuresOf(yield* Fiber.interrupt(waiter))).toEqual([])
            yield* Fiber.join(freeing)
          })
        const lane = (first: number) =>
          Effect.forEach(Array.from({ length: 50 }, (_, index) => first + index * 4), race)
        const lanes = yield* Effect.forEach([0, 1, 2, 3], (first) => Effect.fork(lane(first)))
        for (const fiber of lanes) yield* Fiber.join(fiber)
        expect(yield* held).toBe(0)
      }),
    60_000
  )
})

it.scopedLive("LockPostgres-10: a server that restarts loses no lease and no fence", () =>
  Effect.gen(function*() {
    const fs = yield* Effect.promise(() => import("node:fs"))
    const os = yield* Effect.promise(() => import("node:os"))
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-lease-"))
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => fs.rmSync(folder, { recursive: true, force: true }))
    )
    const first = yield* Scope.make()
    const before = yield* Scope.extend(
      Embedded.make({ dataDirectory: path.join(folder, "data") }),
      first
    )
    const proxy = yield* Effect.acquireRelease(
      Effect.promise(() => tcpProxy(before.host, before.port)),
      (proxy) => Effect.promise(() => proxy.close())
    )
    const lock = yield* LockPostgres.makeLease({
      ...at({ host: "127.0.0.1", port: proxy.port }),
      ttl: "1 minute"
    })
    const key = freshKey()
    const { fiber, lease, seen } = yield* heldBody(lock, key)
    yield* Scope.close(first, Exit.void)
    const after = yield* Embedded.make({ dataDirectory: path.join(folder, "data") })
    const near = yield* LockPostgres.makeLease(at(after))
    expect(yield* near.tryWithLock(key)(Effect.void)).toEqual(Option.none())
    expect(seen.interrupted).toBe(false)
    expect(Option.getOrThrow(yield* near.inspect(key)).fence).toBe(lease.fence)
    yield* Fiber.interrupt(fiber)
  }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))
