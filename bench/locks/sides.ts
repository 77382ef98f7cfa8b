/**
 * sides: our locks, those of npm, and bare statements, behind one function. Each runs in processes of its own (worker.ts).
 *
 * A side is given what its documentation tells a user to do, no less: redlock 4 has no renewal, so a timer extends its lock.
 */
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { DistributedSemaphore, RedisBacking } from "effect-distributed-lock"
import * as Lock from "holdfast/Lock"
import * as LockFile from "holdfast/Lock/File"
import * as Permits from "holdfast/Lock/Permits"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as LockRedis from "holdfast/Lock/Redis"
import { Redis } from "ioredis"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { Client } from "pg"
import * as properLockfile from "proper-lockfile"
import { Mutex } from "redis-semaphore"
import Redlock4 from "redlock"
import Redlock5 from "redlock-5"

export interface Held {
  readonly fence?: bigint
  /** Aborted when the side says that the lock is lost. */
  readonly lost: AbortSignal
  /** What the side says when it is asked, without I/O. */
  readonly isLive: () => boolean
}

/** Waits for the key, runs the body, releases. `waiting` interrupts the wait, on sides that can. */
export type Hold = (
  key: string,
  body: (held: Held) => Promise<void>,
  waiting?: AbortSignal
) => Promise<void>

/** Where the servers and files are. */
export interface Place {
  readonly ttl: number
  readonly redis: string
  readonly postgres: { readonly host: string; readonly port: number; readonly user: string }
  readonly directory: string
}

export interface Side {
  readonly name: string
  readonly server: "redis" | "postgres" | "host" | "process"
  readonly isOurs: boolean
  readonly isInterruptible: boolean
  readonly open: (place: Place) => Promise<Hold>
}

/** Ends with the process. */
const scope = Effect.runSync(Scope.make())
const opened = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Scope.extend(effect, scope))

type WithLock = (
  key: string
) => (body: (lease: Lock.Lease) => Effect.Effect<void>) => Effect.Effect<void, unknown>

const ours = (
  name: string,
  server: Side["server"],
  make: (place: Place) => Effect.Effect<WithLock, unknown, Scope.Scope>
): Side => ({
  name,
  server,
  isOurs: true,
  isInterruptible: true,
  open: async (place) => {
    const withLock = await opened(make(place))
    return (key, body, waiting) =>
      Effect.runPromise(
        withLock(key)((lease) =>
          Effect.promise((lost) =>
            body({
              fence: lease.fence,
              lost,
              isLive: () => !lost.aborted && Exit.isSuccess(Effect.runSyncExit(lease.ensureLive))
            })
          )
        ),
        waiting === undefined ? {} : { signal: waiting }
      )
  }
})

const lockOf = (make: Effect.Effect<Lock.Service, unknown, Scope.Scope>) =>
  Effect.map(make, (lock): WithLock => (key) => (body) => lock.withLock(key)(body))

const namespace = "bench"

const rival = (
  name: string,
  server: Side["server"],
  isInterruptible: boolean,
  open: Side["open"]
): Side => ({ name, server, isOurs: false, isInterruptible, open })

const connected = (url: string): Redis => {
  const client = new Redis(url)
  client.on("error", () => {})
  return client
}

/** Of a library that tells a loss by a callback. */
const watched = () => {
  const lost = new AbortController()
  const held: Held = { lost: lost.signal, isLive: () => !lost.signal.aborted }
  return { held, lose: () => lost.abort() }
}

/** Bare statements know of no loss. */
const unaware: Held = { lost: new AbortController().signal, isLive: () => true }

const free = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

export const sides: ReadonlyArray<Side> = [
  rival("bare Effect.Semaphore", "process", true, async () => {
    const semaphore = Effect.unsafeMakeSemaphore(1)
    return (_, body, waiting) =>
      Effect.runPromise(
        semaphore.withPermits(1)(Effect.promise(() => body(unaware))),
        waiting === undefined ? {} : { signal: waiting }
      )
  }),
  ours("Lock, in process", "process", () => lockOf(Lock.makeMemory)),
  ours("Lock/File, abstract", "host", () => lockOf(LockFile.make({ namespace }))),
  ours(
    "Lock/File, files",
    "host",
    ({ directory }) => lockOf(LockFile.make({ namespace, directory, sockets: "file" }))
  ),
  rival("proper-lockfile", "host", false, async ({ directory, ttl }) => async (key, body) => {
    const { held, lose } = watched()
    const release = await properLockfile.lock(path.join(directory, key), {
      realpath: false,
      stale: Math.max(2000, ttl),
      update: 1000,
      retries: { forever: true, factor: 1, minTimeout: 10, maxTimeout: 10 },
      onCompromised: lose
    })
    await body(held)
    await release().catch(() => {})
  }),
  rival("bare pg_advisory_lock", "postgres", false, async ({ postgres }) => {
    const idle: Array<Client> = []
    const open = async (): Promise<Client> => {
      const client = new Client(postgres)
      client.on("error", () => {})
      await client.connect()
      return client
    }
    return async (key, body) => {
      const client = idle.pop() ?? await open()
      await client.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [key])
      await body(unaware)
      await client.query("SELECT pg_advisory_unlock(hashtextextended($1, 0))", [key])
      idle.push(client)
    }
  }),
  ours(
    "Lock/Postgres",
    "postgres",
    ({ postgres }) => lockOf(LockPostgres.make({ namespace, ...postgres }))
  ),
  ours(
    "Lock/Postgres, lease",
    "postgres",
    ({ postgres, ttl }) => lockOf(LockPostgres.makeLease({ namespace, ttl, ...postgres }))
  ),
  rival("bare SET NX, poll 1 ms", "redis", true, async ({ redis, ttl }) => {
    const client = connected(redis)
    let owners = 0
    return async (key, body, waiting) => {
      const owner = `${process.pid}-${owners++}`
      while (await client.set(key, owner, "PX", ttl, "NX") === null) {
        await pause(1, undefined, { signal: waiting })
      }
      await body(unaware)
      await client.eval(free, 1, key, owner)
    }
  }),
  ours(
    "Lock/Redis",
    "redis",
    ({ redis, ttl }) => lockOf(LockRedis.make({ namespace, url: redis, ttl }))
  ),
  ours("Lock/Redis, semaphore of one", "redis", ({ redis, ttl }) =>
    Effect.map(
      Layer.build(LockRedis.layerPermits({ namespace, url: redis, ttl })),
      (context): WithLock => (key) => (body) =>
        Context.get(context, Permits.DistributedSemaphore).withPermits(key, { limit: 1 })(body)
    )),
  rival("redlock 4.2.0", "redis", false, async ({ redis, ttl }) => {
    const redlock = new Redlock4([connected(redis)], { retryCount: -1 })
    return async (key, body) => {
      const { held, lose } = watched()
      let lock = await redlock.lock(key, ttl)
      const timer = setInterval(() => {
        lock.extend(ttl).then((extended) => {
          lock = extended
        }, lose)
      }, ttl / 3)
      await body(held)
      clearInterval(timer)
      await lock.unlock().catch(() => {})
    }
  }),
  rival("redlock 5.0.0-beta.2", "redis", false, async ({ redis, ttl }) => {
    const redlock = new Redlock5([connected(redis)], {
      retryCount: -1,
      automaticExtensionThreshold: (ttl * 2) / 3
    })
    redlock.on("error", () => {})
    return (key, body) =>
      redlock.using([key], ttl, (lost) => body({ lost, isLive: () => !lost.aborted })).catch(
        () => {}
      )
  }),
  rival("redis-semaphore 5.8.0", "redis", true, async ({ redis, ttl }) => {
    const client = connected(redis)
    return async (key, body, waiting) => {
      const { held, lose } = watched()
      const mutex = new Mutex(client, key, {
        lockTimeout: ttl,
        refreshInterval: ttl / 3,
        acquireTimeout: Infinity,
        onLockLost: lose
      })
      await mutex.acquire(waiting)
      await body(held)
      await mutex.release().catch(() => {})
    }
  }),
  rival("effect-distributed-lock 0.0.11", "redis", true, async ({ redis, ttl }) => {
    const context = await opened(
      Layer.build(RedisBacking.layer(connected(redis), { keyPrefix: "edl:" }))
    )
    return (key, body, waiting) =>
      Effect.runPromise(
        Effect.provide(
          Effect.flatMap(
            DistributedSemaphore.make(key, { limit: 1, ttl, refreshInterval: ttl / 3 }),
            (semaphore) =>
              semaphore.withPermits(1)(
                Effect.promise((lost) => body({ lost, isLive: () => !lost.aborted }))
              )
          ),
          context
        ),
        waiting === undefined ? {} : { signal: waiting }
      )
  })
]
