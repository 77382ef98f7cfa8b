import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Scope
} from "effect"
import * as Lock from "holdfast/Lock"
import * as Permits from "holdfast/Lock/Permits"
import * as LockRedis from "holdfast/Lock/Redis"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
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
import { permitsContract } from "../Permits.contract.ts"
import { type RedisServer, redisServer, startRedis } from "../support/redis.ts"
import { tcpProxy } from "../support/tcpProxy.ts"

const root = path.resolve(import.meta.dirname, "../..")

/** The whole file watches for it: no error of a connection may go unhandled (LockRedis-6). */
const unhandled: Array<unknown> = []
const note = (error: unknown): void => {
  unhandled.push(error)
}
const scope = Effect.runSync(Scope.make())
const servers: Array<RedisServer> = []
let server: RedisServer
beforeAll(async () => {
  process.on("unhandledRejection", note)
  if (redisServer === undefined) return
  const starting = [0, 1, 2].map(() => Effect.runPromise(Scope.extend(startRedis, scope)))
  servers.push(...await Promise.all(starting))
  server = servers[0]!
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  process.off("unhandledRejection", note)
  expect(unhandled).toEqual([])
})

const options = (more: Partial<LockRedis.Options> = {}): LockRedis.Options => ({
  namespace: "test",
  url: server.socket,
  ttl: "2 seconds",
  restartGuard: false,
  ...more
})
const make = (more?: Partial<LockRedis.Options>) =>
  Effect.suspend(() => LockRedis.make(options(more)))

const pause = (millis: number): Effect.Effect<void> =>
  Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))

const command = (at: RedisServer, name: string, ...args: ReadonlyArray<string | number>) =>
  Effect.promise(() => at.command(name, ...args))

/** The locks and queues that the server knows, of one namespace. */
const remains = (namespace: string, at: RedisServer = server) =>
  Effect.map(
    command(at, "KEYS", `holdfast:{${namespace}}:[^f]*`),
    (found) => found as ReadonlyArray<string>
  )
const lockKey = (key: string) => `holdfast:{test}:lock:${key}`

/** Looks again until it is so; the test's time limit is the cap. */
const until = (isSo: Effect.Effect<boolean>): Effect.Effect<void> =>
  Effect.flatMap(
    isSo,
    (so) => so ? Effect.void : Effect.zipRight(pause(5), until(isSo))
  )

/** Joins the queue of a held key. */
const waiterOf = <A>(key: string, waiting: Effect.Effect<A, unknown>, among = 1) =>
  Effect.tap(Effect.fork(waiting), () =>
    until(Effect.map(
      command(server, "ZCARD", `holdfast:{test}:queue:lock:${key}`),
      (n) => n === among
    )))

const proxy = Effect.acquireRelease(
  Effect.promise(() => tcpProxy(server.socket, 0, "raw")),
  (made) => Effect.promise(() => made.close())
)

const ended = (child: ChildProcess): Effect.Effect<number | string | null> =>
  Effect.async((resume) => {
    const done = (): void => resume(Effect.succeed(child.exitCode ?? child.signalCode))
    if (child.exitCode !== null || child.signalCode !== null) done()
    else child.once("exit", done)
  })

/** The next line of a child. */
const says = (child: ChildProcess): Effect.Effect<string> =>
  Effect.async((resume) => {
    child.stdout!.once("data", (bytes: Buffer) => resume(Effect.succeed(`${bytes}`.trim())))
  })

/** A process of its own that runs `body` on the built package, with `lock` and `Effect` in scope. */
const spawned = (body: string, more: Partial<LockRedis.Options> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [
        "--input-type=module",
        "-e",
        `import { Effect, Scope } from "effect"
import * as Permits from "holdfast/Lock/Permits"
import * as LockRedis from "holdfast/Lock/Redis"
import * as fs from "node:fs"
const scope = Effect.runSync(Scope.make())
const lock = await Effect.runPromise(Scope.extend(LockRedis.make(${
          JSON.stringify(options(more))
        }), scope))
${body}
process.exit(0)`
      ], { cwd: root, stdio: ["ignore", "pipe", "inherit"] })
    ),
    (child) => {
      child.kill("SIGKILL")
      return ended(child)
    }
  )

describe.skipIf(redisServer === undefined)("Lock/Redis", () => {
  lockContract("redis", {
    one: make(),
    two: make(),
    queued: pause(5),
    step: turns
  })

  lockContract("redis, most of three", {
    one: Effect.suspend(() => make({ url: servers.map(({ socket }) => socket) })),
    two: Effect.suspend(() => make({ url: servers.map(({ socket }) => socket) })),
    fibers: 8,
    offsets: 24,
    queued: pause(10),
    step: turns
  })

  const services = (more?: Partial<LockRedis.Options>) =>
    Effect.suspend(() =>
      Effect.map(
        Layer.build(LockRedis.layerPermits(options(more))),
        (context): Permits.Services => ({
          shared: Context.get(context, Permits.SharedLock),
          semaphore: Context.get(context, Permits.DistributedSemaphore)
        })
      )
    )
  permitsContract("redis", services(), services(), (kind, key, waiters) => {
    const count = command(server, "ZCARD", `holdfast:{test}:queue:${kind}:${key}`)
    return until(Effect.map(count, (n) => n === waiters))
  })

  it.scopedLive("LockRedis-4: the permits of a holder that was killed are free after its time to live; others renew theirs", () =>
    Effect.gen(function*() {
      const { semaphore } = yield* services({ ttl: "300 millis" })
      const key = freshKey()
      const limit = 2
      const next = yield* semaphore.withPermits(key, { limit })((lease) =>
        Effect.gen(function*() {
          // Of a service that is gone.
          const ends = (Date.now() + 400) * 1000
          const entry = [`holdfast:{test}:permits:${key}`, "gone|1|its#1", `1 ${ends} 1`] as const
          yield* command(server, "HSET", ...entry)
          expect(yield* semaphore.tryWithPermits(key, { limit })(Effect.void)).toEqual(
            Option.none()
          )
          const next = yield* Effect.exit(
            semaphore.withPermits(key, { limit, acquireTimeout: "1 second" })(
              Effect.succeed("next")
            )
          )
          yield* lease.verify
          return next
        })
      )
      expect(next).toEqual(Exit.succeed("next"))
      const several = yield* services({ url: servers.map(({ socket }) => socket) })
      yield* several.shared.withRead("k")(several.shared.withRead("k")(Effect.void))
      const refused = yield* Effect.exit(
        several.semaphore.withPermits("k", { limit: 1 })(Effect.void)
      )
      expect(Exit.isFailure(refused) && Cause.pretty(refused.cause)).toContain("needs one server")
    }))

  it.scopedLive("a lock that is free costs two commands: one to acquire, one to release", () =>
    Effect.gen(function*() {
      const lock = yield* make()
      const once = lock.withLock(freshKey())(Effect.void)
      yield* once
      yield* command(server, "CONFIG", "RESETSTAT")
      yield* Effect.repeatN(once, 9)
      const stats = String(yield* command(server, "INFO", "commandstats"))
      expect(stats).toMatch(/^cmdstat_evalsha:calls=20,/m)
      expect(stats).not.toMatch(/^cmdstat_(eval|script|subscribe|publish):/m)
    }))

  it.scopedLive("LockRedis-2: interrupted around the grant 400 times, nothing waits and nothing is held (T6)", () =>
    Effect.gen(function*() {
      const one = yield* make({ namespace: "race" })
      const two = yield* make({ namespace: "race" })
      let granted = 0
      const race = (round: number) =>
        Effect.gen(function*() {
          const held = yield* Scope.make()
          yield* Scope.extend(one.get(`race ${round}`), held)
          const waiter = yield* Effect.fork(
            two.withLock(`race ${round}`)(Effect.sync(() => granted++))
          )
          yield* pause(round % 4 === 0 ? 0 : 4)
          const freeing = yield* Effect.fork(Scope.close(held, Exit.void))
          yield* turns(round % 20)
          expect(failuresOf(yield* Fiber.interrupt(waiter))).toEqual([])
          yield* Fiber.join(freeing)
        })
      const several = (first: number) =>
        Effect.forEach(Array.from({ length: 50 }, (_, index) => first + index * 8), race)
      const fibers = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, first) => first),
        (first) => Effect.fork(several(first))
      )
      for (const fiber of fibers) yield* Fiber.join(fiber)
      expect(granted).toBeGreaterThan(20)
      expect(granted).toBeLessThan(400)
      expect(yield* remains("race")).toEqual([])
    }))

  it.scopedLive("LockRedis-7: services take turns in the order in which they asked, and no newcomer passes", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const order: Array<number> = []
      const holder = yield* make()
      const held = yield* Scope.make()
      yield* Scope.extend(holder.get(key), held)
      const waiters: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let i = 0; i < 6; i++) {
        const lock = yield* make()
        const use = lock.withLock(key)(Effect.zipRight(turns(3), Effect.sync(() => order.push(i))))
        waiters.push(yield* waiterOf(key, use, i + 1))
      }
      yield* Scope.close(held, Exit.void)
      // The holder comes back at once, and stands behind all of them.
      yield* holder.withLock(key)(Effect.sync(() => order.push(6)))
      for (const waiter of waiters) yield* Fiber.join(waiter)
      expect(order).toEqual([0, 1, 2, 3, 4, 5, 6])
      expect(yield* remains("test")).toEqual([])
    }))

  it.scopedLive("LockRedis-7: a waiter that was killed is passed over", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const holder = yield* make()
      const next = yield* make({ pollInterval: "1 hour", ttl: "1 hour" })
      const held = yield* Scope.make()
      yield* Scope.extend(holder.get(key), held)
      const dead = yield* spawned(
        `await Effect.runPromise(lock.withLock(${JSON.stringify(key)})(Effect.void))`
      )
      yield* until(
        Effect.map(command(server, "ZCARD", `holdfast:{test}:queue:lock:${key}`), (n) => n === 1)
      )
      const waiter = yield* waiterOf(key, next.withLock(key)(Effect.succeed("next")), 2)
      dead.kill("SIGKILL")
      yield* ended(dead)
      yield* Scope.close(held, Exit.void)
      const holding = Option.map(yield* holder.inspect(key), ({ holder }) => holder)
      expect(String(Option.getOrNull(holding))).not.toContain(`:${dead.pid}#`)
      expect(yield* Fiber.join(waiter)).toBe("next")
    }))

  it.scopedLive("LockRedis-7: a waiter whose message is lost finds the lock when it asks again (T20)", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const [holder, other] = [yield* make(), yield* make({ pollInterval: "100 millis" })]
      const held = yield* Scope.make()
      yield* Scope.extend(holder.get(key), held)
      const waiter = yield* waiterOf(key, other.withLock(key)(Effect.succeed("mine")))
      yield* command(server, "CLIENT", "KILL", "TYPE", "pubsub")
      yield* Scope.close(held, Exit.void)
      expect(yield* Fiber.join(waiter)).toBe("mine")
    }))

  it.scopedLive("LockRedis-3: a server that goes silent: the body is stopped at its deadline (T5)", () =>
    Effect.gen(function*() {
      const { freeze, port } = yield* proxy
      const lock = yield* make({ url: `redis://127.0.0.1:${port}`, ttl: "600 millis" })
      const key = freshKey()
      const { fiber, lease, seen } = yield* heldBody(lock, key)
      // Longer than the time to live: it is renewed.
      yield* pause(900)
      yield* lease.verify
      expect(seen.interrupted).toBe(false)
      freeze()
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([
        { _tag: "LockLost", key, fence: lease.fence, reason: "deadline" }
      ])
      expect(seen.interrupted).toBe(true)
      const next = yield* make()
      expect(yield* next.withLock(key)(({ fence }) => Effect.succeed(fence > lease.fence))).toBe(
        true
      )
    }))

  it.scopedLive("LockRedis-3: a server that is stopped beyond the time to live", () =>
    Effect.gen(function*() {
      const doomed = yield* startRedis
      const lock = yield* make({ url: doomed.socket, ttl: "400 millis" })
      const { fiber } = yield* heldBody(lock, "k")
      process.kill(doomed.pid(), "SIGSTOP")
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ reason: "deadline" }])
      expect((yield* Effect.flip(lock.tryWithLock("k")(Effect.void)))._tag).toBe("LockBackendError")
      process.kill(doomed.pid(), "SIGCONT")
      expect(yield* lock.withLock("k")(Effect.succeed("again"))).toBe("again")
    }))

  it.scopedLive("LockRedis-3: a body that blocks its process past the deadline fails with LockLost (T9)", () =>
    Effect.gen(function*() {
      const lock = yield* make({ ttl: "200 millis" })
      const block = Effect.sync(() => {
        const end = performance.now() + 400
        while (performance.now() < end);
      })
      const seen: Array<unknown> = []
      const exit = yield* Effect.exit(
        lock.withLock(freshKey())((lease) =>
          Effect.zipRight(
            block,
            Effect.tap(Effect.exit(lease.ensureLive), (live) => Effect.sync(() => seen.push(live)))
          )
        )
      )
      expect(failuresOf(exit)).toMatchObject([{ _tag: "LockLost", reason: "deadline" }])
      expect(failuresOf(seen[0] as Exit.Exit<void, unknown>)).toMatchObject([{ _tag: "LockLost" }])
      const unaware = yield* Effect.exit(lock.withLock(freshKey())(block))
      expect(failuresOf(unaware)).toMatchObject([{ _tag: "LockLost", reason: "deadline" }])
      // Prepared for, it may block.
      const extended = lock.withLock(freshKey())((lease) =>
        Effect.zipRight(lease.extend("1 minute"), Effect.as(block, "done"))
      )
      expect(yield* extended).toBe("done")
    }))

  it.scopedLive("LockRedis-4: an expired lease neither renews nor frees the lease of another", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* make({ ttl: "600 millis" }), yield* make()]
      const key = freshKey()
      const { fiber } = yield* heldBody(one, key)
      // As if it had expired.
      yield* command(server, "DEL", lockKey(key))
      const other = yield* heldBody(two, key)
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ reason: "superseded" }])
      // The release of a lost lease is not waited for: it comes at some time.
      yield* Effect.repeatN(Effect.delay(other.lease.verify, 10), 10)
      expect(yield* one.tryWithLock(key)(Effect.void)).toEqual(Option.none())
      yield* Fiber.interrupt(other.fiber)
    }))

  it.scopedLive("LockRedis-4: after FLUSHALL the holder is stopped by its next renewal, and `verify` fails (T8)", () =>
    Effect.gen(function*() {
      const doomed = yield* startRedis
      const lock = yield* make({ url: doomed.socket, ttl: "600 millis" })
      const { fiber } = yield* heldBody(lock, "a")
      const { lease } = yield* heldBody(lock, "b")
      yield* command(doomed, "FLUSHALL")
      expect(yield* Effect.flip(lease.verify)).toMatchObject({ reason: "vanished" })
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ reason: "vanished" }])
      // The clock of the server seeds the fence again.
      expect(yield* lock.withLock("a")(({ fence }) => Effect.succeed(fence > lease.fence))).toBe(
        true
      )
    }))

  it.scopedLive("LockRedis-5: a server that restarted grants nothing until every lease it forgot has ended (T8)", () =>
    Effect.gen(function*() {
      const doomed = yield* startRedis
      const ours = { url: doomed.socket, ttl: "1 second" } as const
      // Unguarded, so that the first grant need not wait for the age of the new server.
      const before = yield* make(ours)
      const guarded = yield* make({ ...ours, restartGuard: true })
      const { fiber, lease, seen } = yield* heldBody(before, "k")
      yield* Effect.promise(doomed.restart)
      expect(yield* guarded.tryWithLock("k")(Effect.void)).toEqual(Option.none())
      const [stopped, fence] = yield* guarded.withLock("k")((after) =>
        Effect.sync(() => [seen.interrupted, after.fence] as const)
      )
      expect(stopped).toBe(true)
      expect(fence > lease.fence).toBe(true)
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ _tag: "LockLost" }])
    }))

  it.scopedLive("LockRedis-6: cut connections lose no lease and no waiter; closing leaves none (T5, T18)", () =>
    Effect.gen(function*() {
      const doomed = yield* startRedis
      const layer = yield* Scope.make()
      const lock = yield* Scope.extend(make({ url: doomed.socket }), layer)
      const other = yield* Scope.extend(make({ url: doomed.socket }), layer)
      const held = yield* Scope.make()
      const lease = yield* Scope.extend(lock.get("k"), held)
      const waiter = yield* Effect.fork(other.withLock("k")(Effect.succeed("mine")))
      yield* pause(50)
      for (const type of ["normal", "pubsub", "normal"]) {
        yield* command(doomed, "CLIENT", "KILL", "TYPE", type)
        yield* lease.verify
      }
      yield* Scope.close(held, Exit.void)
      expect(yield* Fiber.join(waiter)).toBe("mine")
      const { fiber } = yield* heldBody(lock, "last")
      yield* Scope.close(layer, Exit.void)
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ reason: "connection" }])
      expect((yield* Effect.flip(lock.withLock("k")(Effect.void)))._tag).toBe("LockBackendError")
      // The one that asks.
      yield* until(Effect.map(
        command(doomed, "CLIENT", "LIST"),
        (list) => String(list).trim().split("\n").length === 1
      ))
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockRedis-6: a server that cannot be reached is a LockBackendError", () =>
    Effect.gen(function*() {
      const lock = yield* make({ url: "redis://127.0.0.1:1", ttl: "600 millis" })
      const asking: ReadonlyArray<
        Fiber.Fiber<{ readonly _tag: string; readonly message: string }, unknown>
      > = [
        yield* Effect.fork(Effect.flip(lock.withLock("a")(Effect.void))),
        yield* Effect.fork(Effect.flip(lock.tryWithLock("b")(Effect.void))),
        yield* Effect.fork(Effect.flip(lock.inspect("c")))
      ]
      const failures = yield* Effect.forEach(asking, (fiber) => Fiber.join(fiber))
      expect(failures.map((error) => error._tag)).toEqual(Array(3).fill("LockBackendError"))
      expect(failures[0]!.message).toContain("ECONNREFUSED")
    }))

  it.scopedLive("LockRedis-2: an interrupted waiter of a silent server ends, and a release that gets no answer changes no exit (T15)", () =>
    Effect.gen(function*() {
      const { freeze, port } = yield* proxy
      const near = yield* make()
      const far = yield* make({ url: `redis://127.0.0.1:${port}`, ttl: "600 millis" })
      const [key, mine] = [freshKey(), freshKey()]
      const held = yield* Scope.make()
      yield* Scope.extend(near.get(key), held)
      const waiter = yield* waiterOf(key, far.withLock(key)(Effect.void))
      const exit = yield* Effect.exit(
        far.withLock(mine)(Effect.sync(() => {
          freeze()
          return "done"
        }))
      )
      expect(exit).toEqual(Exit.succeed("done"))
      expect(Exit.isInterrupted(yield* Fiber.interrupt(waiter))).toBe(true)
      yield* Scope.close(held, Exit.void)
      // Its place in the queue does not keep the lock.
      expect(yield* near.withLock(key)(Effect.succeed("next"))).toBe("next")
    }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))

  it.scopedLive("LockRedis-1: a grant whose answer was lost is the same grant when it is asked for again (T17)", () =>
    Effect.gen(function*() {
      const { cut, hold, port, resume } = yield* proxy
      const lock = yield* make({ url: `redis://127.0.0.1:${port}`, ttl: "1 second" })
      const key = freshKey()
      yield* lock.tryWithLock(freshKey())(Effect.void)
      hold("toClient")
      const asking = yield* Effect.fork(lock.withLock(key)(({ fence }) => Effect.succeed(fence)))
      yield* until(Effect.map(command(server, "EXISTS", lockKey(key)), (n) => n === 1))
      const [grant] = (yield* command(server, "HVALS", lockKey(key))) as [string]
      cut()
      resume()
      expect(String(yield* Fiber.join(asking))).toBe(grant.split(" ")[0])
      expect(yield* remains("test")).toEqual([])
    }))

  it.scopedLive("LockRedis-1: two processes lose no update of an unguarded counter, and their fences rise (T2)", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))),
        (made) => Effect.sync(() => fs.rmSync(made, { recursive: true }))
      )
      const { fences, increments, read } = unguardedCounter(directory, "counter", "counter")
      const body = increments(200)
      const children = [yield* spawned(body), yield* spawned(body)]
      for (const child of children) expect(yield* ended(child)).toBe(0)
      expect(read()).toBe("400")
      expect(rises(fences)).toBe(400)
    }))

  it.scopedLive("LockRedis-3: a holder that is killed, and one that is stopped beyond its time to live (T3, T4)", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const lock = yield* make()
      const holding = `const exit = await Effect.runPromiseExit(lock.withLock(${
        JSON.stringify(key)
      }, { label: "child" })(({ fence }) =>
  Effect.zipRight(Effect.sync(() => console.log(String(fence))), Effect.sleep("1 minute"))
))
console.log(exit.cause.error._tag)`
      const killed = yield* spawned(holding, { ttl: "900 millis" })
      const first = BigInt(yield* says(killed))
      expect(Option.getOrThrow(yield* lock.inspect(key)).holder)
        .toContain(`${os.hostname()}:${killed.pid}:child`)
      killed.kill("SIGKILL")
      expect(yield* lock.withLock(key)(({ fence }) => Effect.succeed(fence > first))).toBe(true)

      const stopped = yield* spawned(holding, { ttl: "900 millis" })
      const second = BigInt(yield* says(stopped))
      stopped.kill("SIGSTOP")
      expect(yield* lock.withLock(key)(({ fence }) => Effect.succeed(fence > second))).toBe(true)
      const word = yield* Effect.fork(says(stopped))
      stopped.kill("SIGCONT")
      expect(yield* Fiber.join(word)).toBe("LockLost")
    }))

  it.scopedLive("LockRedis-1: with several servers, one whose numbers are far ahead raises those of the others", () =>
    Effect.gen(function*() {
      const three = [yield* startRedis, yield* startRedis, yield* startRedis]
      const lock = yield* make({ url: three.map(({ socket }) => socket), ttl: "1 second" })
      const far = 8_000_000_000_000_000n
      yield* command(three[0]!, "SET", "holdfast:{test}:fence", `${far}`)
      let last = 0n
      while (last < far) last = yield* lock.withLock("k")(({ fence }) => Effect.succeed(fence))
      yield* Effect.promise(three[0]!.kill)
      expect(yield* lock.withLock("k")(({ fence }) => Effect.succeed(fence > last))).toBe(true)
      const { fiber } = yield* heldBody(lock, "k")
      yield* Effect.promise(three[1]!.kill)
      expect(failuresOf(yield* Fiber.join(fiber))).toMatchObject([{ reason: "deadline" }])
      expect((yield* Effect.flip(lock.withLock("k")(Effect.void)))._tag).toBe("LockBackendError")
    }))

  it.scopedLive("LockRedis-4: with several servers, a release counts all that granted the lease, though another answers first", () =>
    Effect.gen(function*() {
      const { delay, port } = yield* proxy
      const others = servers.slice(1).map(({ socket }) => socket)
      const lock = yield* make({ url: [`redis://127.0.0.1:${port}`, ...others] })
      const key = freshKey()
      const ends = (Date.now() + 60_000) * 1000
      yield* command(servers[2]!, "HSET", lockKey(key), "other|1|other", `1 ${ends} 1`)
      delay(30)
      const warnings: Array<unknown> = []
      const logger = Logger.make(({ message }) => void warnings.push(message))
      yield* Effect.provide(
        lock.withLock(key)(Effect.void),
        Logger.replace(Logger.defaultLogger, logger)
      )
      expect(warnings).toEqual([])
      yield* command(servers[2]!, "DEL", lockKey(key))
    }))

  it.scopedLive("`layerConfig` reads its options from the configuration", () =>
    Effect.gen(function*() {
      const config = {
        namespace: Config.succeed("config"),
        url: Config.redacted("REDIS_URL"),
        restartGuard: Config.succeed(false)
      }
      const key = freshKey()
      const use = Lock.withLock(({ key }) => Effect.succeed(key), key).pipe(
        Effect.provide(LockRedis.layerConfig(config)),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["REDIS_URL", server.socket]])))
      )
      expect(yield* use).toBe(key)
      expect(() => Effect.runSync(Effect.scoped(make({ ttl: 50 })))).toThrow("`ttl` must be 100")
    }))
})
