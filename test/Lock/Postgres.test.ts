import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Logger, Option, Scope } from "effect"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as Embedded from "holdfast/Postgres/Embedded"
import { type ChildProcess, spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import {
  failuresOf,
  freshKey,
  heldBody,
  lockContract,
  rises,
  turns,
  unguardedCounter
} from "../Lock.contract.ts"
import { embeddedServer, query } from "../support/postgres.ts"

const root = path.resolve(import.meta.dirname, "../..")
const server = embeddedServer()

const optionsOf = (at: Embedded.Server, namespace: string): LockPostgres.Options => ({
  namespace,
  host: at.host,
  port: at.port,
  user: "postgres",
  database: at.database ?? "postgres",
  idleTimeout: "100 millis"
})
const options = (): LockPostgres.Options => optionsOf(server.get(), "test")

/** The whole file watches for it: no error of a connection may go unhandled (LockPostgres-4). */
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

/** The mutants have one server for all their copies, with a database each. */
const here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"

const connections = Effect.promise(async () => {
  const [row] = await query(
    server.get(),
    "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'lock:%' AND datname = current_database()"
  )
  return row?.["n"] as number
})
const advisoryLocks = Effect.promise(async () => {
  const [row] = await query(
    server.get(),
    `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND ${here}`
  )
  return row?.["n"] as number
})

/** Waits for the server to see it; the test's time limit is the cap. */
const until = (count: Effect.Effect<number>, wanted: number): Effect.Effect<void> =>
  Effect.flatMap(
    count,
    (n) => n === wanted ? Effect.void : Effect.zipRight(pause(10), until(count, wanted))
  )

lockContract("postgres", {
  one: Effect.suspend(() => LockPostgres.make(options())),
  two: Effect.suspend(() => LockPostgres.make(options())),
  fibers: 12,
  offsets: 40,
  queued: pause(15),
  step: turns
})

describe("LockPostgres", () => {
  it.scopedLive("LockPostgres-3: a terminated session interrupts the body with LockLost at once", () =>
    Effect.gen(function*() {
      const lock = yield* LockPostgres.make(options())
      const { fiber, seen } = yield* heldBody(lock, freshKey())
      yield* Effect.promise(() =>
        query(
          server.get(),
          `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND ${here}`
        )
      )
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([
        { _tag: "LockLost", reason: "connection" }
      ])
      expect(seen.interrupted).toBe(true)
      yield* until(advisoryLocks, 0)
    }))

  it.scopedLive(
    "LockPostgres-2: interrupted around the grant 200 times, nothing waits and nothing is held",
    () =>
      Effect.gen(function*() {
        const one = yield* LockPostgres.make(options())
        const two = yield* LockPostgres.make(options())
        let granted = 0
        const race = (round: number) =>
          Effect.gen(function*() {
            const key = `race ${round}`
            const scope = yield* Scope.make()
            yield* Scope.extend(one.get(key), scope)
            const waiter = yield* Effect.fork(two.withLock(key)(Effect.sync(() => granted++)))
            // Every fourth round is interrupted while it opens; the others wait in the server's queue.
            yield* pause(round % 4 === 0 ? round % 12 : 15)
            const freeing = yield* Effect.fork(Scope.close(scope, Exit.void))
            // The unlock, the grant, the fence and the body follow each other within these turns.
            yield* turns(round % 50)
            const exit = yield* Fiber.interrupt(waiter)
            yield* Fiber.join(freeing)
            expect(failuresOf(exit)).toEqual([])
          })
        const lane = (first: number) =>
          Effect.forEach(Array.from({ length: 50 }, (_, index) => first + index * 4), race)
        const lanes = yield* Effect.forEach([0, 1, 2, 3], (first) => Effect.fork(lane(first)))
        for (const fiber of lanes) yield* Fiber.join(fiber)
        expect(yield* advisoryLocks).toBe(0)
        yield* until(connections, 0)
      }),
    60_000
  )

  it.scopedLive("LockPostgres-1: two services that make the sequence at once both get a fence", () =>
    Effect.gen(function*() {
      yield* Effect.promise(() => query(server.get(), "DROP SCHEMA IF EXISTS holdfast CASCADE"))
      const draws = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, index) => index),
        (index) =>
          Effect.flatMap(
            LockPostgres.make(options()),
            (lock) =>
              Effect.fork(lock.withLock(`seq ${index}`)(({ fence }) => Effect.succeed(fence)))
          )
      )
      const fences: Array<bigint> = []
      for (const fiber of draws) fences.push(yield* Fiber.join(fiber))
      expect(new Set(fences).size).toBe(8)
      // Seeded with the server's microseconds: it outruns whatever an earlier database had given.
      expect(fences.every((fence) => fence > BigInt(Date.now() - 3_600_000) * 1000n)).toBe(true)
    }))

  it.scopedLive("LockPostgres-8: a hundred keys are held by one session, and thirty waiters of a key are one wait", () =>
    Effect.gen(function*() {
      const holder = yield* LockPostgres.make({ ...options(), idleTimeout: "1 minute" })
      const lock = yield* LockPostgres.make({ ...options(), idleTimeout: "1 minute" })
      const key = freshKey()
      const scope = yield* Scope.make()
      yield* Scope.extend(holder.get(key), scope)
      for (let i = 0; i < 99; i++) yield* Scope.extend(holder.get(freshKey()), scope)
      expect([yield* connections, yield* advisoryLocks]).toEqual([1, 100])
      const waiters = yield* Effect.forEach(
        Array.from({ length: 30 }, (_, index) => index),
        () => Effect.fork(lock.withLock(key)(Effect.void))
      )
      yield* until(advisoryLocks, 101)
      // Its try was refused, so it waits on a session of its own.
      expect(yield* connections).toBe(3)
      for (const waiter of waiters) yield* Effect.asVoid(Fiber.interrupt(waiter))
      yield* Scope.close(scope, Exit.void)
      yield* until(advisoryLocks, 0)
    }))

  it.scopedLive("LockPostgres-8: an interrupted wait is cancelled, and its session waits for the next key", () =>
    Effect.gen(function*() {
      const one = yield* LockPostgres.make({ ...options(), idleTimeout: "1 minute" })
      const two = yield* LockPostgres.make({ ...options(), idleTimeout: "1 minute" })
      const pids = new Set<unknown>()
      for (let round = 0; round < 10; round++) {
        const key = freshKey()
        yield* one.withLock(key)(Effect.gen(function*() {
          const waiter = yield* Effect.fork(two.withLock(key)(Effect.void))
          const waiting = Effect.promise(async () => {
            const [row] = await query(
              server.get(),
              `SELECT min(pid) AS pid, count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND ${here}`
            )
            if (row?.["n"] === 1) pids.add(row["pid"])
            return row?.["n"] as number
          })
          yield* until(waiting, 1)
          yield* Fiber.interrupt(waiter)
          expect(yield* waiting).toBe(0)
        }))
      }
      expect(pids.size).toBe(1)
      expect(yield* connections).toBe(3)
      expect(yield* advisoryLocks).toBe(0)
    }))

  it.scopedLive("LockPostgres-8: with all sessions in use a wait goes on by tries, and nested waits of two services end", () =>
    Effect.gen(function*() {
      const few = { ...options(), maxSessions: 2 }
      const one = yield* LockPostgres.make(few)
      const two = yield* LockPostgres.make(few)
      const [a, b] = [freshKey(), freshKey()]
      const log: Array<string> = []
      // The only session for waits of `two` waits for `a`; then `b` must be had by tries.
      yield* one.withLock(a)(Effect.gen(function*() {
        const first = yield* Effect.forkDaemon(two.withLock(a)(Effect.sync(() => log.push("a"))))
        yield* until(advisoryLocks, 2)
        const held = yield* Scope.make()
        yield* Scope.extend(one.get(b), held)
        const second = yield* Effect.forkDaemon(two.withLock(b)(Effect.sync(() => log.push("b"))))
        yield* pause(50)
        yield* Scope.close(held, Exit.void)
        yield* Effect.timeout(Fiber.join(second), "10 seconds")
        return first
      })).pipe(Effect.flatMap(Fiber.join))
      expect(log).toEqual(["b", "a"])
    }))

  it.scopedLive("LockPostgres-3: the end of a session loses all its leases at once, and no other", () =>
    Effect.gen(function*() {
      const lock = yield* LockPostgres.make(options())
      const other = yield* LockPostgres.make(options())
      const mine = yield* Effect.forEach([1, 2, 3], () => heldBody(lock, freshKey()))
      const [row] = yield* Effect.promise(() =>
        query(
          server.get(),
          `SELECT min(pid) AS pid, count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND ${here}`
        )
      )
      expect(row?.["n"]).toBe(3)
      const spared = yield* heldBody(other, freshKey())
      yield* Effect.promise(() =>
        query(server.get(), `SELECT pg_terminate_backend(${row?.["pid"]})`)
      )
      for (const { fiber, seen } of mine) {
        expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{
          _tag: "LockLost",
          reason: "connection"
        }])
        expect(seen.interrupted).toBe(true)
      }
      yield* spared.lease.verify
      // The service goes on with a new session.
      expect(yield* lock.tryWithLock(freshKey())(Effect.succeed(1))).toEqual(Option.some(1))
      yield* Fiber.interrupt(spared.fiber)
    }))

  it.scopedLive("LockPostgres-1: a role that may lock but draw no fence gets an error, and holds nothing", () =>
    Effect.gen(function*() {
      const lock = yield* LockPostgres.make(options())
      yield* lock.withLock("makes the schema")(Effect.void)
      yield* Effect.promise(() =>
        query(
          server.get(),
          "CREATE ROLE poor LOGIN; GRANT USAGE ON SCHEMA holdfast TO poor"
        )
      )
      const poor = yield* LockPostgres.make({ ...options(), user: "poor" })
      const key = freshKey()
      const tried = yield* Effect.flip(poor.withLock(key)(Effect.void))
      expect(tried.message).toContain("permission denied")
      expect(yield* advisoryLocks).toBe(0)
      yield* Effect.promise(() =>
        query(server.get(), "GRANT USAGE ON SEQUENCE holdfast.lock_fence TO poor")
      )
      expect(yield* poor.withLock(key)(Effect.succeed(1))).toBe(1)
    }))

  it.live("LockPostgres-4: closing the layer takes the leases that are left, and leaves no connection", () =>
    Effect.gen(function*() {
      const layer = yield* Scope.make()
      const lock = yield* Scope.extend(LockPostgres.make(options()), layer)
      const key = freshKey()
      const { fiber } = yield* heldBody(lock, key)
      yield* Scope.close(layer, Exit.void)
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ _tag: "LockLost" }])
      yield* until(connections, 0)
      expect(yield* advisoryLocks).toBe(0)
    }))

  it.scopedLive("LockPostgres-4: a server that cannot be reached is a LockBackendError", () =>
    Effect.gen(function*() {
      const lock = yield* LockPostgres.make({ ...options(), port: 1 })
      const failures = [
        yield* Effect.flip(lock.withLock("k")(Effect.void)),
        yield* Effect.flip(lock.tryWithLock("k")(Effect.void)),
        yield* Effect.flip(lock.inspect("k"))
      ]
      expect(failures.map((error) => error._tag)).toEqual(Array(3).fill("LockBackendError"))
      const wrong = yield* LockPostgres.make({ ...options(), database: "nowhere" })
      expect((yield* Effect.flip(wrong.withLock("k")(Effect.void))).message).toContain("nowhere")
    }))
})

/** Forwards bytes between a TCP port of ours and the server's Unix socket, until it is stopped. */
const proxy = Effect.acquireRelease(
  Effect.promise(async () => {
    const state = { frozen: false, forge: false }
    const peers = new Set<net.Socket>()
    const listener = net.createServer((client) => {
      const upstream = net.connect(`${server.get().host}/.s.PGSQL.${server.get().port}`)
      for (const [from, to] of [[client, upstream], [upstream, client]] as const) {
        peers.add(from)
        from.on("error", () => {})
        from.on("close", () => {
          peers.delete(from)
          to.destroy()
        })
        from.on("data", (chunk: Buffer) => {
          if (state.frozen) return
          if (from === upstream && state.forge) forgePid(chunk)
          to.write(chunk)
        })
      }
    })
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve))
    const { port } = listener.address() as net.AddressInfo
    return { listener, peers, port, state }
  }),
  ({ listener, peers }) =>
    Effect.sync(() => {
      listener.close()
      for (const peer of peers) peer.destroy()
    })
)

/** As a pooler does: BackendKeyData ('K', length 12) announces a process that is not the one which answers. */
const forgePid = (chunk: Buffer): void => {
  const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]))
  if (at >= 0) chunk.writeInt32BE(1, at + 5)
}

describe("LockPostgres, through a network", () => {
  const through = (port: number): LockPostgres.Options => ({
    namespace: "proxy",
    url: `postgres://postgres@127.0.0.1:${port}/${server.get().database ?? "postgres"}`,
    pingInterval: "50 millis",
    pingTimeout: "200 millis"
  })

  it.scopedLive("LockPostgres-3: a peer that goes silent is found by its ping, and the body is stopped", () =>
    Effect.gen(function*() {
      const { port, state } = yield* proxy
      const lock = yield* LockPostgres.make(through(port))
      const key = freshKey()
      const { fiber, seen } = yield* heldBody(lock, key)
      // Answered pings lose nothing.
      yield* pause(300)
      expect(seen.interrupted).toBe(false)
      state.frozen = true
      expect(failuresOf(yield* Effect.timeout(Fiber.join(fiber), "10 seconds"))).toMatchObject([{
        _tag: "LockLost"
      }])
    }))

  it.scopedLive("LockPostgres-2: an interrupted waiter of a silent server ends within the bound", () =>
    Effect.gen(function*() {
      const { port, state } = yield* proxy
      const near = yield* LockPostgres.make({ ...options(), namespace: "proxy" })
      const far = yield* LockPostgres.make(through(port))
      const key = freshKey()
      const scope = yield* Scope.make()
      yield* Scope.extend(near.get(key), scope)
      const waiter = yield* Effect.fork(far.withLock(key)(Effect.void))
      yield* until(advisoryLocks, 2)
      state.frozen = true
      const exit = yield* Fiber.interrupt(waiter)
      expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
      // The server notices the closed socket while it waits for a lock: client_connection_check_interval.
      yield* until(advisoryLocks, 1)
      yield* Scope.close(scope, Exit.void)
      yield* until(advisoryLocks, 0)
    }))

  it.scopedLive("LockPostgres-2: a release that the server does not answer changes nothing of the exit", () =>
    Effect.gen(function*() {
      const { port, state } = yield* proxy
      const lock = yield* LockPostgres.make({ ...through(port), pingInterval: "1 minute" })
      const key = freshKey()
      const exit = yield* Effect.exit(
        lock.withLock(key)(Effect.sync(() => {
          state.frozen = true
          return "done"
        }))
      )
      expect(exit).toEqual(Exit.succeed("done"))
      // The socket was destroyed, so the server released the lock.
      yield* until(advisoryLocks, 0)
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockPostgres-5: behind a pooler it refuses", () =>
    Effect.gen(function*() {
      const { port, state } = yield* proxy
      state.forge = true
      const lock = yield* LockPostgres.make(through(port))
      const error = yield* Effect.flip(lock.withLock(freshKey())(Effect.void))
      expect(error).toMatchObject({ _tag: "LockUnsupported", why: "pooler" })
      yield* until(connections, 0)
    }))
})

const ended = (child: ChildProcess): Effect.Effect<number | string | null> =>
  Effect.async((resume) => {
    const done = (): void => resume(Effect.succeed(child.exitCode ?? child.signalCode))
    if (child.exitCode !== null || child.signalCode !== null) done()
    else child.once("exit", done)
  })

/** A process of its own that runs `body` on the built package, with `lock` and `Effect` in scope. */
const spawned = (body: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [
        "--input-type=module",
        "-e",
        `import { Effect, Scope } from "effect"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as fs from "node:fs"
const scope = Effect.runSync(Scope.make())
const lock = await Effect.runPromise(Scope.extend(LockPostgres.make(${
          JSON.stringify(options())
        }), scope))
${body}`
      ], { cwd: root, stdio: ["ignore", "pipe", "inherit"] })
    ),
    (child) => {
      child.kill("SIGKILL")
      return ended(child)
    }
  )

describe("LockPostgres, among processes", () => {
  it.scopedLive("LockPostgres-1: two processes lose no update of an unguarded counter, and their fences rise", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))),
        (made) => Effect.sync(() => fs.rmSync(made, { recursive: true }))
      )
      const { fences, increments, read } = unguardedCounter(directory, "counter", "counter")
      const body = increments(50)
      const children = [yield* spawned(body), yield* spawned(body)]
      for (const child of children) expect(yield* ended(child)).toBe(0)
      expect(read()).toBe("100")
      expect(rises(fences)).toBe(100)
    }))

  it.scopedLive("LockPostgres-3: a killed holder frees the key; a stopped one still holds it, and is named", () =>
    Effect.gen(function*() {
      const key = `child ${randomBytes(4).toString("hex")}`
      const lock = yield* LockPostgres.make(options())
      const child = yield* spawned(
        `setInterval(() => {}, 1000)
await Effect.runPromise(lock.withLock(${JSON.stringify(key)}, { label: "child" })(
  Effect.zipRight(Effect.sync(() => console.log("held")), Effect.never)
))`
      )
      yield* Effect.async<void>((resume) => {
        child.stdout.once("data", () => resume(Effect.void))
      })
      child.kill("SIGSTOP")
      expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.none())
      const late = yield* Effect.flip(
        lock.withLock(key, { acquireTimeout: "200 millis" })(Effect.void)
      )
      expect(late._tag).toBe("LockTimeout")
      expect(late.message).toContain(`${os.hostname()}:${child.pid}:child`.slice(0, 58))
      const waiter = yield* Effect.fork(lock.withLock(key)(Effect.succeed("mine")))
      child.kill("SIGKILL")
      expect(yield* Fiber.join(waiter)).toBe("mine")
    }))
})

it.scopedLive("LockPostgres-3: a server killed while a lock is held and another awaited ends both", () =>
  Effect.gen(function*() {
    const doomed = yield* Embedded.make()
    const lock = yield* LockPostgres.make(optionsOf(doomed, "test"))
    const other = yield* LockPostgres.make(optionsOf(doomed, "test"))
    const key = freshKey()
    const { fiber, seen } = yield* heldBody(lock, key)
    const waiter = yield* Effect.fork(Effect.exit(other.withLock(key)(Effect.void)))
    yield* pause(100)
    process.kill(doomed.pid, "SIGKILL")
    expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ _tag: "LockLost" }])
    expect(seen.interrupted).toBe(true)
    expect(failuresOf(yield* Fiber.join(waiter))).toMatchObject([{ _tag: "LockBackendError" }])
  }))
