/**
 * lease: a lock that is a row with an end, for servers behind a transaction pooler.
 *
 * DESIGN. Each step is one statement, and may be sent twice: an owner is unique, and the same owner gets the same grant again. So a
 * statement whose connection ends is sent on another. Times are the server's (`clock_timestamp`, since `now` stands still in a
 * transaction). ../renewal.ts stops the body without the server's help. All of a service goes over one connection. Without a pooler
 * between, that listens too, and a release that somebody waits for wakes them; each waiter also asks again at `pollInterval`.
 * The invariants stand in ../Postgres.ts, the columns in schema.ts.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as crypto from "node:crypto"
import * as Lock from "../../Lock.ts"
import type * as Managed from "../../Managed.ts"
import { codeOf, ConnectionLost } from "../../Postgres/errors.ts"
import * as Shared from "../../Shared.ts"
import { type Answer, type Moment, now, Renewal } from "../renewal.ts"
import { nameOf, self } from "./schema.ts"
import {
  type Address,
  clientOf,
  failed,
  isDirect,
  type LockSession,
  longestAnswer,
  makeSchema,
  managedSession,
  type Row
} from "./session.ts"

/**
 * Where the server or its pooler is, and how long a lease lives.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseOptions extends Address {
  /** How long a lease outlives a holder that has died. Default 15 seconds, 100 milliseconds or more. */
  readonly ttl?: Duration.DurationInput | undefined
  /** A waiter asks again at least so often. Behind a pooler nothing else wakes it. Default 1 second. */
  readonly pollInterval?: Duration.DurationInput | undefined
}

/** The part of a time to live in which the body stops before the server gives the key to another. */
const margin = 1 / 5

const micros = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
const end = "clock_timestamp() + $3::float8 * interval '1 ms'"

/**
 * $1 name, $2 owner, $3 ttl, $4 whether it will wait. The row lock comes before the fence is computed: a later grant has a higher one. A
 * row that is locked is being changed, or kept by a guarded transaction: it is not free now.
 */
const acquireSql = `WITH free AS (
  SELECT name FROM holdfast.lock_lease
  WHERE name = $1 AND (owner IS NULL OR owner = $2 OR expires_at <= clock_timestamp()) FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE holdfast.lock_lease AS lease SET expires_at = ${end}, owner = $2,
    fence = CASE WHEN lease.owner = $2 THEN lease.fence ELSE greatest(lease.fence + 1, ${micros}) END,
    since = CASE WHEN lease.owner = $2 THEN lease.since ELSE clock_timestamp() END
  FROM free WHERE lease.name = free.name RETURNING lease.fence
), made AS (
  INSERT INTO holdfast.lock_lease (name, fence, owner, since, expires_at)
  SELECT $1, ${micros}, $2, clock_timestamp(), ${end} WHERE NOT EXISTS (SELECT FROM holdfast.lock_lease WHERE name = $1)
  ON CONFLICT DO NOTHING RETURNING fence
), marked AS (
  UPDATE holdfast.lock_lease SET wanted = true
  WHERE $4::boolean AND name = $1 AND owner IS NOT NULL AND NOT wanted AND NOT EXISTS (SELECT FROM free)
)
SELECT fence, NULL::float8 AS wait FROM taken UNION ALL SELECT fence, NULL FROM made
UNION ALL SELECT NULL, extract(epoch FROM expires_at - clock_timestamp()) * 1000 FROM holdfast.lock_lease
  WHERE name = $1 AND NOT EXISTS (SELECT FROM taken)`

/** $3 the lease's new end, if that is later. The fence stays, so transactions that keep the row do not wait for it. */
const renewSql = `WITH ours AS (
  UPDATE holdfast.lock_lease SET expires_at = greatest(expires_at, ${end}) WHERE name = $1 AND owner = $2 RETURNING 1
) SELECT EXISTS (SELECT FROM ours) AS ok, (SELECT owner FROM holdfast.lock_lease WHERE name = $1) AS holder`

/** A release that is lost in a crash is a lease that expires, so its COMMIT waits for no disk. */
const releaseSql = `WITH mine AS (
  SELECT wanted FROM holdfast.lock_lease WHERE name = $1 AND owner = $2 FOR NO KEY UPDATE
), freed AS (
  UPDATE holdfast.lock_lease AS lease SET owner = NULL, since = NULL, expires_at = NULL, wanted = false
  FROM mine WHERE lease.name = $1 RETURNING mine.wanted
) SELECT true AS ok, set_config('synchronous_commit', 'off', true),
  CASE WHEN wanted THEN pg_notify('holdfast_lock', md5($1)) END FROM freed`

const inspectSql =
  `SELECT owner AS holder, fence, (extract(epoch FROM since) * 1000)::float8 AS since
FROM holdfast.lock_lease WHERE name = $1 AND expires_at > clock_timestamp()`

const md5 = (text: string): string => crypto.createHash("md5").update(text).digest("hex")

/** An end of the connection, of the server behind a pooler, or of the way to it: the statement may be sent again. */
const isPassing = ({ cause, op }: Lock.LockBackendError): boolean =>
  op === "connect" || cause instanceof ConnectionLost || /^(08|57P0)/.test(codeOf(cause) ?? "")

class Client {
  readonly realm: string
  readonly ttl: number
  readonly pollMillis: number
  /** Tells our owners from all others'. */
  readonly id = crypto.randomBytes(9).toString("base64url")
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Promise<A>
  readonly patience: Duration.Duration
  /** By the digest of the name, as a notification has it. */
  readonly waiters = new Map<string, Deferred.Deferred<void>>()
  readonly leases = new Set<Renewal>()
  /** Set once, by `make`. */
  shared!: Shared.Shared<LockSession, Lock.LockError>

  constructor(options: LeaseOptions, run: Client["run"]) {
    this.realm = `lease:${options.namespace}`
    this.ttl = Duration.toMillis(options.ttl ?? "15 seconds")
    this.pollMillis = Duration.toMillis(options.pollInterval ?? "1 second")
    this.patience = Duration.min(longestAnswer, Duration.millis(this.ttl))
    this.run = run
  }

  ownerOf({ owner }: Lock.Request): string {
    return `${this.id}|${owner}`
  }

  /** Sends a statement, and again on another connection when one ends. */
  ask(
    op: string,
    sql: string,
    values: ReadonlyArray<unknown>
  ): Effect.Effect<ReadonlyArray<Row>, Lock.LockBackendError> {
    const asked = Effect.mapError(
      Shared.use(this.shared, (session) => session.ask(op, sql, values)),
      (error) => error._tag === "LockBackendError" ? error : failed("use")({ cause: error })
    )
    return Effect.retry(asked, {
      while: isPassing,
      schedule: Schedule.intersect(Schedule.spaced("20 millis"), Schedule.recurUpTo(this.patience))
    })
  }

  wake(digest: string): void {
    const waiter = this.waiters.get(digest)
    if (waiter !== undefined) Deferred.unsafeDone(waiter, Effect.void)
  }

  release(name: string, owner: string): Effect.Effect<boolean, Lock.LockBackendError> {
    return Effect.map(this.ask("release", releaseSql, [name, owner]), ([row]) => row?.ok === true)
  }

  async renew(name: string, owner: string, ttl: number): Promise<Answer> {
    const [row] = await this.run(this.ask("renew", renewSql, [name, owner, ttl]))
    return row?.ok === true ? "ours" : row?.holder == null ? "vanished" : "superseded"
  }

  grantOf(
    name: string,
    request: Lock.Request,
    fence: bigint,
    sent: Moment
  ): Lock.Grant {
    const owner = this.ownerOf(request)
    const renewal: Renewal = new Renewal(
      { ttl: this.ttl, margin },
      sent,
      (ttl) => this.renew(name, owner, ttl),
      (reason) => {
        this.leases.delete(renewal)
        request.lose(reason)
      }
    )
    this.leases.add(renewal)
    const asked = <A>(op: string, ask: () => Promise<A>) =>
      Effect.tryPromise({ try: ask, catch: (cause) => new Lock.LockBackendError({ op, cause }) })
    return {
      fence,
      isLive: () => renewal.isLive(),
      extend: (millis) => asked("extend", () => renewal.renew(millis)),
      verify: asked("verify", () => renewal.verify()),
      release: Effect.suspend((): Effect.Effect<unknown, Lock.LockBackendError> => {
        const isLive = renewal.isLive()
        renewal.stop()
        this.leases.delete(renewal)
        const released = this.release(name, owner)
        // A lost lease ends by itself: its server need not answer.
        if (!isLive) return Effect.forkDaemon(Effect.ignore(released))
        const unknown = { cause: new Error("the server does not know this lease any more") }
        return Effect.filterOrFail(released, (wasOurs) => wasOurs, () => failed("release")(unknown))
      })
    }
  }

  /** A grant, or how many milliseconds the present one lasts. On a failure it will be released when the server answers. */
  attempt(
    name: string,
    request: Lock.Request,
    waits: boolean
  ): Effect.Effect<Lock.Grant | number, Lock.LockBackendError> {
    return Effect.suspend(() => {
      const sent = now()
      const owner = this.ownerOf(request)
      const asked = this.ask("lock", acquireSql, [name, owner, this.ttl, waits])
      return Effect.map(
        Effect.tapErrorCause(
          asked,
          () => Effect.forkDaemon(Effect.ignore(this.release(name, owner)))
        ),
        ([row]) =>
          row?.fence == null
            // No row, or one without an end: it is being changed in this moment, or a guarded transaction keeps it.
            ? row?.wait ?? 20
            : this.grantOf(name, request, BigInt(row.fence), sent)
      )
    })
  }

  take(
    request: Lock.Request,
    restore: Managed.Restore
  ): Effect.Effect<Lock.Grant, Lock.LockBackendError> {
    const name = nameOf(this.realm, request.key)
    const digest = md5(name)
    const again: Effect.Effect<Lock.Grant, Lock.LockBackendError> = Effect.suspend(() => {
      // Before the try: a release that comes after that is not missed.
      const woken = Deferred.unsafeMake<void>(FiberId.none)
      this.waiters.set(digest, woken)
      return Effect.flatMap(this.attempt(name, request, true), (tried) => {
        if (typeof tried !== "number") return Effect.succeed(tried)
        // At different times, so that the waiters of a dead holder do not all ask at once.
        const atMost = this.pollMillis * (0.9 + 0.2 * Math.random())
        const millis = Math.max(1, Math.min(tried + 1, atMost))
        return Effect.zipRight(restore(Effect.timeoutOption(Deferred.await(woken), millis)), again)
      })
    })
    return Effect.ensuring(again, Effect.sync(() => this.waiters.delete(digest)))
  }

  inspect(key: string): Effect.Effect<Option.Option<Lock.Holder>, Lock.LockBackendError> {
    return Effect.map(
      this.ask("inspect", inspectSql, [nameOf(this.realm, key)]),
      ([row]) =>
        Option.map(Option.fromNullable(row), ({ fence, holder, since }) => ({
          holder: (holder ?? "").split("|").slice(1).join("|"),
          fence: BigInt(fence ?? 0),
          since: since ?? undefined
        }))
    )
  }

  get backend(): Lock.Backend {
    return {
      self,
      remote: true,
      realm: this.realm,
      take: (request, restore) => this.take(request, restore),
      tryTake: (request) =>
        Effect.map(
          this.attempt(nameOf(this.realm, request.key), request, false),
          (tried) => typeof tried === "number" ? Option.none() : Option.some(tried)
        ),
      inspect: (key) => this.inspect(key)
    }
  }
}

export const makeLeaseService = (
  options: LeaseOptions
): Effect.Effect<Lock.Service, never, Scope.Scope> =>
  Effect.gen(function*() {
    const runtime = yield* Effect.runtime<never>()
    const client = new Client(options, Runtime.runPromise(runtime))
    if (!(client.ttl >= 100)) {
      return yield* Effect.die(
        new RangeError(`LockPostgres: \`ttl\` must be 100 milliseconds or more, not ${client.ttl}`)
      )
    }
    const fork = Runtime.runFork(runtime)
    const schema = makeSchema()
    const settings = {
      client: clientOf(options),
      connectTimeout: Duration.min(options.connectTimeout ?? "5 seconds", client.patience),
      answerTimeout: Duration.min(longestAnswer, Duration.millis(client.ttl / 3)),
      // No lease ends with its session, so none is pinged.
      pingInterval: Duration.zero,
      pingTimeout: Duration.zero,
      fork,
      onLost: (session: LockSession) => {
        // Notifications may be missing from here on.
        for (const digest of client.waiters.keys()) client.wake(digest)
        fork(Shared.invalidate(client.shared, { only: session }))
      }
    }
    const prepare = (session: LockSession) =>
      Effect.gen(function*() {
        yield* schema(session)
        if (!(yield* isDirect(session))) return
        session.client.on("notification", ({ payload = "" }) => client.wake(payload))
        yield* session.ask("connect", "LISTEN holdfast_lock")
      })
    client.shared = yield* Shared.make({
      name: options.namespace,
      acquire: managedSession(options.namespace, settings, prepare),
      idleTimeToLive: "30 seconds"
    })
    // INVARIANT LockPostgres-4: a holder loses its lease before the layer is gone.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const lease of client.leases) lease.end("connection")
      })
    )
    return Lock.make(client.backend)
  })
