/**
 * Lock/Redis: a lock among all that reach one Redis server, or most of several; a lease with a time to live.
 *
 * DESIGN. A grant is a field of a hash, with its end; its holder renews it at each third of the time to live. Lock/Redis/scripts.ts has the steps
 * that run on the server, server.ts the connections, Lock/renewal.ts the deadline that stops the body without the server's help. A
 * waiter stands in a queue on the server. A release gives the lock to the first waiter and wakes it by a message; a waiter also asks
 * again at each `pollInterval`, so a lost message is a delay only.
 * With several servers a grant needs most of them. Its fence is the highest that they drew, and is written back to most of them
 * before it counts, so that the next grant draws a higher one. There is no queue then: a release wakes all waiters.
 *
 * INVARIANTS
 * - LockRedis-1 (G1) The server draws the fence in the step of the grant. A fence of a key is higher than each before it.
 * - LockRedis-2 (G3) A waiter that leaves is out of the queue, and gives the lock on if it was granted meanwhile.
 * - LockRedis-3 (G4) The body is interrupted at the last successful renewal plus 4/5 of the time to live, by local clocks.
 * - LockRedis-4 (G1) Renewal and release compare the owner, which is unique: an expired lease neither renews nor frees another's.
 * - LockRedis-5 A server that started less than a time to live (and a second) ago grants nothing: it may have forgotten a grant.
 * - LockRedis-6 (G8) No error of a connection is unhandled, and closing the layer leaves no connection.
 * - LockRedis-7 The lock goes to the waiters of all processes in the order in which they asked, as long as they answer (one server).
 *
 * COST (2026-11) one round trip to acquire, one to release, one per renewal; a hand-over between processes takes both. One
 * connection per service and server, a second one from the first wait on.
 * NOT DONE Redis Cluster and Sentinel.
 * NOT PROMISED safety across a failover to a replica that had not seen the grant, FLUSHALL, or a server whose clock jumps ahead; a
 * body that is paused past its time to live, or ignores interruption, still runs while the next holder does. Let the target refuse
 * an old `fence`. All services of a namespace need the same `ttl`.
 * SOURCES Kleppmann 2016 (fencing), node-redlock #296 (expiry counts from the send), redisson #1104 (dead waiters in a fair queue),
 * bsm/redislock #93 (one counter per namespace), Consul's lock-delay (LockRedis-5).
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { RedisOptions } from "ioredis"
import * as crypto from "node:crypto"
import * as os from "node:os"
import * as Ledger from "../Ledger.ts"
import * as Lock from "../Lock.ts"
import * as Managed from "../Managed.ts"
import * as Permits from "./Permits.ts"
import * as Scripts from "./Redis/scripts.ts"
import { evaluate, Server } from "./Redis/server.ts"
import { type Answer, type Moment, now, Renewal, since } from "./renewal.ts"

/**
 * Where the servers are, and how long a lease lives.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Keeps the keys of one application apart from another's on the same server. */
  readonly namespace: string
  /** `redis://…`, `rediss://…` or the path of a socket. Several servers must be independent, and an odd number. */
  readonly url: string | Redacted.Redacted | ReadonlyArray<string | Redacted.Redacted>
  /** More options of ioredis, such as `tls`. */
  readonly client?: RedisOptions | undefined
  /** How long a lease outlives a holder that has died. Default 15 seconds. */
  readonly ttl?: Duration.DurationInput | undefined
  /** A waiter asks again at least so often. Default 1 second. */
  readonly pollInterval?: Duration.DurationInput | undefined
  /** LockRedis-5. Default true; false for a server that never forgets. */
  readonly restartGuard?: boolean | undefined
}

/** The part of a time to live in which the body stops before the server forgets the grant. */
const margin = 1 / 5
/** Shorter than the 2 seconds after which a release is abandoned. */
const longestAnswerMillis = 1800
/** The error of `uptime_in_seconds`, and of the two machines' clocks within a time to live. */
const guardMillis = 1000

const settingsOf = (options: Options) => {
  const ttl = Duration.toMillis(options.ttl ?? "15 seconds")
  if (!(ttl >= 100)) {
    throw new RangeError(`Lock/Redis: \`ttl\` must be 100 milliseconds or more, not ${ttl}`)
  }
  const urls = [options.url].flat().map((url) =>
    Redacted.isRedacted(url) ? Redacted.value(url) : url
  )
  return {
    namespace: options.namespace,
    urls,
    client: options.client ?? {},
    ttl: Math.ceil(ttl),
    pollMillis: Duration.toMillis(options.pollInterval ?? "1 second"),
    answerMillis: Math.min(longestAnswerMillis, ttl / 3),
    patienceMillis: Math.min(longestAnswerMillis, ttl),
    guard: options.restartGuard ?? true,
    quorum: Math.floor(urls.length / 2) + 1
  }
}

type Settings = ReturnType<typeof settingsOf>

const host = os.hostname()
const self = `${host}:${process.pid}`

/** What each server said, or its error. */
type Answers<A> = ReadonlyArray<
  { readonly server: Server } & ({ readonly value: A } | { readonly error: unknown })
>

const valuesOf = <A>(answers: Answers<A>): ReadonlyArray<A> =>
  answers.flatMap((answer) => "value" in answer ? [answer.value] : [])

/** A grant, or how long to wait before the next try. */
type Reply = { readonly fence: bigint } | { readonly waitMillis: number }

interface Waiter {
  /** A message came that was not waited for yet. */
  isWoken: boolean
  wake: () => void
}

const fencesOf = (replies: ReadonlyArray<Reply>): ReadonlyArray<bigint> =>
  replies.flatMap((reply) => "fence" in reply ? [reply.fence] : [])

/** From owner and `fence end beginning` in turns. */
const holdersOf = (grants: ReadonlyArray<string>) =>
  grants.flatMap((owner, index) => {
    if (index % 2 === 1) return []
    const [fence = "0", , began = "0"] = grants[index + 1]!.split(" ")
    const holder = owner.split("|").slice(2).join("|")
    return [{ holder, fence: BigInt(fence), since: Math.floor(Number(began) / 1000) }]
  })

/** What is asked for, by whom. An exclusive lock is one permit of one. */
interface Claim {
  readonly kind: "lock" | Permits.Request["kind"]
  readonly key: string
  readonly owner: string
  readonly limit: number
}

/** The connections, waiters and leases of one service. */
class Client {
  readonly settings: Settings
  readonly servers: ReadonlyArray<Server>
  /** Tells our owners and channel from all others'. */
  readonly id = crypto.randomBytes(9).toString("base64url")
  readonly prefix: string
  /** By owner. */
  readonly waiters = new Map<string, Waiter>()
  readonly leases = new Set<Renewal>()

  constructor(settings: Settings) {
    const { answerMillis, client, namespace, patienceMillis, urls } = settings
    this.settings = settings
    this.servers = urls.map((url) => new Server({ url, client, answerMillis, patienceMillis }))
    // The braces keep the keys of one namespace on one node of a cluster.
    this.prefix = `holdfast:{${namespace}}:`
  }

  /** A service and a number make it unique, even among processes with one name and one id. */
  ownerOf(owner: string, permits: number): string {
    return `${this.id}|${permits}|${owner}`
  }

  get isAlone(): boolean {
    return this.servers.length === 1
  }

  keys({ key, kind }: Pick<Claim, "kind" | "key">): ReadonlyArray<string> {
    return [
      `${this.prefix}${kind}:${key}`,
      `${this.prefix}fence`,
      `${this.prefix}queue:${kind}:${key}`
    ]
  }

  run(
    server: Server,
    script: string,
    claim: Claim,
    ...args: ReadonlyArray<string | number>
  ): Promise<unknown> {
    return server.run(script, this.keys(claim), [claim.owner, claim.limit, ...args])
  }

  /** How long a waiter has to ask for the grant that it was given; 0: there is no queue. And where its service listens. */
  get handover(): readonly [number, string] {
    // It asks at each `pollInterval`, so it finds its grant even if it missed the message.
    const millis = this.isAlone ? Math.ceil(this.settings.pollMillis * 1.5) : 0
    return [millis, `${this.prefix}wake:`]
  }

  /** Asks all servers. Ends when `isDecided`, or when all have answered. */
  all<A>(
    ask: (server: Server) => Promise<A>,
    isDecided: (values: ReadonlyArray<A>) => boolean
  ): Promise<Answers<A>> {
    return new Promise((resolve) => {
      const answers: Array<Answers<A>[number]> = []
      const answered = (answer: Answers<A>[number]): void => {
        answers.push(answer)
        if (answers.length === this.servers.length || isDecided(valuesOf(answers))) {
          resolve([...answers])
        }
      }
      for (const server of this.servers) {
        ask(server).then(
          (value) => answered({ server, value }),
          (error) => answered({ server, error })
        )
      }
    })
  }

  /** Whether so many values agree. */
  readonly isMost = (count: number): boolean => count >= this.settings.quorum

  /** Throws if most servers did not answer. */
  requireMost<A>(answers: Answers<A>): ReadonlyArray<A> {
    const values = valuesOf(answers)
    if (this.isMost(values.length)) return values
    const errors = answers.flatMap((answer) => "error" in answer ? [answer.error] : [])
    throw this.isAlone
      ? errors[0]
      : new AggregateError(errors, `no answer of most servers: ${errors.join("; ")}`)
  }

  acquireFrom(server: Server, claim: Claim, joins: boolean): Promise<Reply> {
    const { guard, pollMillis, ttl } = this.settings
    return server.ask(async ({ client, startedAt }) => {
      const oldEnoughIn = startedAt + ttl + guardMillis - performance.now()
      // INVARIANT LockRedis-5: a restart ends the connection, and each new one asks its server's age first.
      if (guard && oldEnoughIn > 0) return { waitMillis: oldEnoughIn }
      const keys = this.keys(claim)
      // A queue that nobody asks about is forgotten.
      const stay = joins ? Math.ceil(ttl + 10 * pollMillis) : 0
      const args = [claim.owner, claim.limit, ttl, stay, ...this.handover]
      const reply = await evaluate(client, Scripts.acquire, keys, args)
      const [isOurs, number] = reply as [number, string]
      return isOurs === 1 ? { fence: BigInt(number) } : { waitMillis: Number(number) }
    })
  }

  /** One try. If it rejects, nothing is held, or will be given back as soon as most servers answer. */
  async attempt(claim: Claim, joins: boolean): Promise<Reply & { readonly sent: Moment }> {
    const sent = now()
    try {
      const answers = await this.all(
        (server) => this.acquireFrom(server, claim, joins),
        (replies) => this.isMost(fencesOf(replies).length)
      )
      const replies = this.requireMost(answers)
      const fences = fencesOf(replies)
      if (this.isMost(fences.length)) {
        const fence = fences.reduce((a, b) => a > b ? a : b)
        const counts = this.isAlone || await this.raise(claim, fence)
        if (counts && since(sent) < this.settings.ttl * (1 - margin)) return { fence, sent }
      }
      if (fences.length > 0) {
        await this.leave(claim)
        // Contenders that got a part each must not try again at the same time.
        return { waitMillis: Math.random() * 50, sent }
      }
      const waits = replies.flatMap((reply) => "waitMillis" in reply ? [reply.waitMillis] : [])
      return { waitMillis: Math.min(...waits), sent }
    } catch (error) {
      // It may have been granted, and the reply lost.
      this.leave(claim).catch(() => {})
      throw error
    }
  }

  /** Writes the fence of a grant to most servers: those of any later grant meet one that draws a higher one. */
  async raise(claim: Claim, fence: bigint): Promise<boolean> {
    const answers = await this.all(
      (server) => this.run(server, Scripts.raise, claim, `${fence}`),
      (values) => this.isMost(values.filter((value) => value === 1).length)
    )
    return this.isMost(valuesOf(answers).filter((value) => value === 1).length)
  }

  /** Leaves the queue, and frees the lock if it is the owner's. Whether it was. */
  async leave(claim: Claim): Promise<boolean> {
    const freed = (values: ReadonlyArray<unknown>): boolean =>
      this.isMost(values.filter((value) => value === 1).length)
    const answers = await this.all(
      (server) => this.run(server, Scripts.release, claim, ...this.handover),
      // One that did not grant it may answer before those that did.
      (values) => freed(values) || this.isMost(values.filter((value) => value === 0).length)
    )
    return freed(this.requireMost(answers))
  }

  /** `ttl` 0 only looks. */
  async renew(claim: Claim, fence: bigint, ttl: number): Promise<Answer> {
    const answers = await this.all(
      (server) => this.run(server, Scripts.renew, claim, `${fence}`, Math.ceil(ttl)),
      (values) => this.isMost(values.filter((value) => value === 1).length)
    )
    const values = this.requireMost(answers)
    if (this.isMost(values.filter((value) => value === 1).length)) return "ours"
    const others = values.filter((value) => value !== 1)
    // The servers that did not answer may still decide.
    if (!this.isAlone && others.length < this.servers.length - this.settings.quorum + 1) {
      throw new Error("no answer of most servers")
    }
    return others.includes(-1) ? "superseded" : "vanished"
  }

  /** The oldest grant that any of most servers knows. */
  async inspect(what: Pick<Claim, "kind" | "key">): Promise<Option.Option<Lock.Holder>> {
    const answers = await this.all(
      (server) => server.run(Scripts.inspect, this.keys(what).slice(0, 1), []),
      (values) => this.isMost(values.length)
    )
    const holders = (this.requireMost(answers) as ReadonlyArray<ReadonlyArray<string>>).flatMap(
      holdersOf
    )
    return Option.fromNullable(holders.toSorted((a, b) => a.since - b.since)[0])
  }

  get isHearing(): boolean {
    return this.servers.every(({ isHearing }) => isHearing)
  }

  hear(): Promise<unknown> {
    const channel = `${this.prefix}wake:${this.id}`
    const wake = (owner: string): void => this.waiters.get(owner)?.wake()
    return Promise.all(this.servers.map((server) => server.hear(channel, wake)))
  }

  /** Waits for a message for this owner, at most so long; a message that came before counts. */
  woken(waiter: Waiter, millis: number): Effect.Effect<void> {
    // WINDOW: the timer is left, fires for nobody, and takes away its wake.
    return Effect.async((resume) => {
      // Again, if the connection has ended since.
      void this.hear()
      const done = (): void => {
        clearTimeout(timer)
        waiter.isWoken = false
        waiter.wake = remember
        resume(Effect.void)
      }
      const remember = waiter.wake
      const timer = setTimeout(done, millis)
      waiter.wake = done
      if (waiter.isWoken) done()
      return Effect.sync(() => clearTimeout(timer))
    })
  }

  async close(): Promise<void> {
    // INVARIANT LockRedis-6: a holder loses its lease before the layer is gone.
    for (const lease of this.leases) lease.end("connection")
    for (const server of this.servers) server.close()
  }
}

const ask = <A>(op: string, run: () => Promise<A>): Effect.Effect<A, Lock.LockBackendError> =>
  Effect.tryPromise({ try: run, catch: (cause) => new Lock.LockBackendError({ op, cause }) })

const grantOf = (
  client: Client,
  claim: Claim,
  lose: Lock.Request["lose"],
  { fence, sent }: { readonly fence: bigint; readonly sent: Moment }
): Lock.Grant => {
  const renewal: Renewal = new Renewal(
    { ttl: client.settings.ttl, margin },
    sent,
    (ttl) => client.renew(claim, fence, ttl),
    (reason) => {
      client.leases.delete(renewal)
      lose(reason)
    }
  )
  client.leases.add(renewal)
  return {
    fence,
    isLive: () => renewal.isLive(),
    extend: (millis) => ask("extend", () => renewal.renew(millis)),
    verify: ask("verify", () => renewal.verify()),
    release: ask("release", async () => {
      const isLive = renewal.isLive()
      renewal.stop()
      client.leases.delete(renewal)
      const freed = client.leave(claim)
      // A lost lease ends by itself: its server need not answer.
      if (!isLive) freed.catch(() => {})
      else if (!(await freed)) throw new Error("the server does not know this lease any more")
    })
  }
}

type Failure = Lock.LockBackendError

const take = (
  client: Client,
  claim: Claim,
  lose: Lock.Request["lose"],
  restore: Managed.Restore
): Effect.Effect<Lock.Grant, Failure> => {
  const waiter: Waiter = {
    isWoken: false,
    wake: () => {
      waiter.isWoken = true
    }
  }
  const tryAgain = (joins: boolean): Effect.Effect<Lock.Grant, Failure> =>
    Effect.flatMap(ask("acquire", () => client.attempt(claim, joins)), (reply) => {
      if ("fence" in reply) return Effect.succeed(grantOf(client, claim, lose, reply))
      // At different times, so that the waiters of a dead holder do not all ask at once.
      const atMost = client.settings.pollMillis * (0.9 + 0.2 * Math.random())
      const wait = joins
        ? client.woken(waiter, Math.max(1, Math.min(reply.waitMillis + 1, atMost)))
        : Effect.promise(() => client.hear())
      return Effect.matchCauseEffect(restore(wait), {
        onSuccess: () => tryAgain(true),
        onFailure: (cause) =>
          Effect.zipRight(
            Effect.ignore(ask("leave", () => client.leave(claim))),
            Effect.failCause(cause)
          )
      })
    })
  return Effect.suspend(() => {
    client.waiters.set(claim.owner, waiter)
    const forget = Effect.sync(() => client.waiters.delete(claim.owner))
    return Effect.ensuring(tryAgain(client.isHearing), forget)
  })
}

const tryTake = (
  client: Client,
  claim: Claim,
  lose: Lock.Request["lose"]
): Effect.Effect<Option.Option<Lock.Grant>, Failure> =>
  Effect.map(
    ask("acquire", () => client.attempt(claim, false)),
    (reply) => "fence" in reply ? Option.some(grantOf(client, claim, lose, reply)) : Option.none()
  )

const lockBackend = (client: Client): Lock.Backend => {
  const claimOf = ({ key, owner }: Lock.Request): Claim => ({
    kind: "lock",
    key,
    owner: client.ownerOf(owner, 1),
    limit: 1
  })
  return {
    self,
    remote: true,
    realm: `redis:${client.settings.namespace}`,
    take: (request, restore) => take(client, claimOf(request), request.lose, restore),
    tryTake: (request) => tryTake(client, claimOf(request), request.lose),
    inspect: (key) => ask("inspect", () => client.inspect({ kind: "lock", key }))
  }
}

const permitsBackend = (client: Client): Permits.Backend => {
  const claimOf = ({ key, kind, limit, owner, permits }: Permits.Request): Claim => {
    // Of three servers, two grants of one permit each may stand on different pairs.
    if (kind === "permits" && !client.isAlone) {
      throw new RangeError("Lock/Redis: a semaphore needs one server, not several")
    }
    return { kind, key, owner: client.ownerOf(owner, permits), limit }
  }
  return {
    self,
    remote: true,
    take: (request, restore) =>
      Effect.suspend(() => take(client, claimOf(request), request.lose, restore)),
    tryTake: (request) => Effect.suspend(() => tryTake(client, claimOf(request), request.lose)),
    inspect: (what) => ask("inspect", () => client.inspect(what))
  }
}

const makeClient = (options: Options): Managed.Managed<Client> =>
  Managed.make({
    name: options.namespace,
    kind: "lock connections",
    acquire: Effect.sync(() => new Client(settingsOf(options))),
    release: (client) => Effect.promise(() => client.close())
  })

/**
 * A lock service among all that reach the server, or most of the servers, until the scope closes; leases still held then are lost.
 *
 * **Interruption** — Waiting: leaves the queue; one round trip. Opening: the answer is awaited, 2 seconds at most. Holding: the lock
 *   is released before the interrupt is seen.
 * **Errors** — of the service's operations: `LockBackendError` if the server, or most of them, do not answer; of the brackets also
 *   `LockLost`. `make` itself connects to nothing and does not fail. A `ttl` below 100 milliseconds throws a `RangeError`.
 * **Cost** — see the head of this file.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<Lock.Service, never, Scope.Scope> =>
  Effect.map(makeClient(options), (client) => Lock.make(lockBackend(client)))

/**
 * The lock of one server, or of most of several, as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`.
 *
 * **Example** (one nightly report, wherever it runs)
 * ```ts
 * import { Effect } from "effect"
 * import * as Lock from "holdfast/Lock"
 * import * as LockRedis from "holdfast/Lock/Redis"
 *
 * const report = Lock.withLock("nightly-report", { acquireTimeout: "1 minute" })((lease) =>
 *   Effect.log(`writing with fence ${lease.fence}`)
 * )
 * const redis = LockRedis.layer({ namespace: "billing", url: "redis://localhost" })
 * Effect.runPromise(Effect.provide(report, redis))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Lock.Lock> =>
  Layer.scoped(Lock.Lock, Ledger.withSite(make(options), Ledger.unsafeSite()))

/**
 * `layer`, with options from the configuration.
 *
 * **Errors** — `ConfigError`.
 *
 * **Example** (the address from the environment)
 * ```ts
 * import { Config } from "effect"
 * import * as LockRedis from "holdfast/Lock/Redis"
 *
 * export const live = LockRedis.layerConfig({
 *   namespace: Config.succeed("billing"),
 *   url: Config.redacted("REDIS_URL")
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<Lock.Lock, ConfigError.ConfigError> =>
  Layer.scoped(
    Lock.Lock,
    Ledger.withSite(Effect.flatMap(Config.unwrap(config), make), Ledger.unsafeSite())
  )

/**
 * `SharedLock` and `DistributedSemaphore` (Lock/Permits.ts) through Redis. The semaphore needs one server: with several it is a defect.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`; a step on the server costs more with more holders of one key.
 *
 * **Example** (at most ten uploads, wherever they run)
 * ```ts
 * import { Effect } from "effect"
 * import * as Permits from "holdfast/Lock/Permits"
 * import * as LockRedis from "holdfast/Lock/Redis"
 *
 * const upload = Effect.flatMap(Permits.DistributedSemaphore, (semaphore) =>
 *   semaphore.withPermits("uploads", { limit: 10 })(Effect.log("uploading"))
 * )
 * const redis = LockRedis.layerPermits({ namespace: "billing", url: "redis://localhost" })
 * Effect.runPromise(Effect.provide(upload, redis))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerPermits = (
  options: Options
): Layer.Layer<Permits.SharedLock | Permits.DistributedSemaphore> =>
  Permits.layer(
    Ledger.withSite(Effect.map(makeClient(options), permitsBackend), Ledger.unsafeSite())
  )
