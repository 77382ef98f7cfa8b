/**
 * advisory: session advisory locks. Many keys share one session, and each wait has one of its own.
 *
 * DESIGN. A key that is free is taken by a try on the session that all share. A key that is not is waited for on a session of a small
 * pool, where the server queues the waiters; the grant stays on that session to its end, because a lock cannot move. While such a
 * session is idle it is used first: a wait costs as much as a try. With all of them in use the try is repeated, so holders that wait
 * for each other's sessions do not stand still. ../Postgres.ts has the invariants.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"
import * as Lock from "../../Lock.ts"
import type * as Managed from "../../Managed.ts"
import * as Pool from "../../Pool.ts"
import * as Shared from "../../Shared.ts"
import { idOf, self } from "./schema.ts"
import {
  type Address,
  clientOf,
  failed,
  isDirect,
  type LockSession,
  longestAnswer,
  makeSchema,
  managedSession,
  type Row,
  type Settings
} from "./session.ts"

/**
 * Where the server is, how many sessions there may be, and how they are watched.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Address {
  /** The time between two pings of a session that holds keys. Default 2 seconds. */
  readonly pingInterval?: Duration.DurationInput | undefined
  /** How long the answer to a ping may take. Default 4 seconds; keep the sum with the interval below 10 seconds. */
  readonly pingTimeout?: Duration.DurationInput | undefined
  /** Sessions at most, 2 or more: one for all keys that are free when they are asked for, the others for waits. Default 10. */
  readonly maxSessions?: number | undefined
  /** Idle sessions are closed after this. Default 30 seconds. */
  readonly idleTimeout?: Duration.DurationInput | undefined
}

/** The settings that a lock session relies on, without those that the server does not know. */
const prepareSql = `SELECT set_config(name, value, false)
FROM (VALUES ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
  ('idle_session_timeout', '0'), ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'),
  ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10s')) AS wanted (name, value)
WHERE current_setting(name, true) IS NOT NULL`

const drawn = "THEN nextval('holdfast.lock_fence'::regclass) END AS fence"
const trySql = `SELECT CASE WHEN pg_try_advisory_lock($1::bigint) ${drawn}`
const waitSql = `SELECT CASE WHEN pg_advisory_lock($1::bigint) IS NOT NULL ${drawn}`
const unlockSql = "SELECT pg_advisory_unlock($1::bigint) AS ok"

/** The row of a held key: \`pg_locks\` shows the 64-bit number in two halves, with objsubid 1. */
const isHeld = `held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND held.classid::bigint = (($1::bigint >> 32) & 4294967295) AND held.objid::bigint = ($1::bigint & 4294967295)`

const holderSql = `SELECT held.pid, activity.application_name AS name, named.holder, named.fence,
  (extract(epoch FROM named.since) * 1000)::float8 AS since
FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
  LEFT JOIN holdfast.lock_holder AS named ON named.id = $1::bigint AND named.pid = held.pid WHERE ${isHeld}`
const verifySql =
  `SELECT EXISTS (SELECT FROM pg_locks AS held WHERE ${isHeld} AND held.pid = pg_backend_pid()) AS ok`
/** After a failed statement: a fence may have been refused when the lock was granted. */
const undoSql =
  `SELECT pg_advisory_unlock($1::bigint) FROM pg_locks AS held WHERE ${isHeld} AND held.pid = pg_backend_pid()`

const nameSql = `INSERT INTO holdfast.lock_holder (id, pid, fence, holder, since)
VALUES ($1::bigint, pg_backend_pid(), $2::bigint, $3, clock_timestamp())
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, fence = excluded.fence, holder = excluded.holder, since = excluded.since`
const unnameSql =
  `WITH named AS (DELETE FROM holdfast.lock_holder WHERE id = $1::bigint AND pid = pg_backend_pid()) ${unlockSql}`

const fenceOf = ([row]: ReadonlyArray<Row>): Option.Option<bigint> =>
  Option.map(Option.fromNullable(row?.fence), BigInt)

/** The sessions of one service. */
interface Sessions {
  readonly namespace: string
  readonly shared: Shared.Shared<LockSession, Lock.LockError>
  readonly waits: Pool.Pool<LockSession, Lock.LockError | Pool.PoolClosed>
  /** Of the grants, and of those being asked for: each keeps its session by one. */
  readonly scopes: Set<Scope.CloseableScope>
}

const unlessClosed = <E>(
  error: E | Shared.SharedClosed | Pool.PoolClosed
): E | Lock.LockBackendError =>
  error instanceof Shared.SharedClosed || error instanceof Pool.PoolClosed
    ? failed("connect")({ cause: error })
    : error

const grantOf = (
  session: LockSession,
  id: string,
  fence: bigint,
  { label, lose, owner }: Lock.Request,
  giveBack: Effect.Effect<void>
): Effect.Effect<Lock.Grant> => {
  let isNamed = false
  const lost = (): void => lose("connection")
  session.hold(lost)
  const grant: Lock.Grant = {
    fence,
    // An open session holds the lock, unless a statement of someone else released it.
    verify: Effect.suspend(() =>
      session.lost === undefined
        ? Effect.map(session.ask("verify", verifySql, [id]), ([row]) => row?.ok === true)
        : Effect.succeed(false)
    ),
    release: Effect.ensuring(
      Effect.suspend(() => {
        session.leases.delete(lost)
        if (session.lost !== undefined) return Effect.void
        const unlocked = session.ask("release", isNamed ? unnameSql : unlockSql, [id])
        return Effect.flatMap(unlocked, ([row]) => {
          if (row?.ok === true) return Effect.void
          session.unsafeEnd("it did not hold what it should have held")
          return Effect.fail(
            failed("release")({ cause: new Error("the server did not confirm the unlock") })
          )
        })
      }),
      giveBack
    )
  }
  // A name is for others to read: nothing waits for it.
  const isWorth = label !== undefined || owner.includes(" at ")
  const named = Effect.map(session.ask("name", nameSql, [id, String(fence), owner]), () => {
    isNamed = true
  })
  return isWorth ? Effect.as(Effect.forkDaemon(named), grant) : Effect.succeed(grant)
}

/** A session for as long as it has the grant; without a grant it is given back. */
const granted = <E>(
  { namespace, scopes }: Sessions,
  request: Lock.Request,
  restore: Managed.Restore,
  from: Effect.Effect<LockSession, E, Scope.Scope>,
  ask: (
    session: LockSession,
    id: string
  ) => Effect.Effect<ReadonlyArray<Row>, Lock.LockBackendError>
): Effect.Effect<Option.Option<Lock.Grant>, E | Lock.LockBackendError> =>
  Effect.flatMap(Scope.make(), (scope) => {
    scopes.add(scope)
    const giveBack = Effect.suspend(() => {
      scopes.delete(scope)
      return Scope.close(scope, Exit.void)
    })
    const id = idOf(namespace, request.key)
    const asked = Effect.flatMap(restore(Scope.extend(from, scope)), (session) => {
      const undone = Effect.tapErrorCause(ask(session, id), () => session.undo(undoSql, [id]))
      return Effect.flatMap(undone, (rows) =>
        Option.match(fenceOf(rows), {
          onNone: () => Effect.as(giveBack, Option.none<Lock.Grant>()),
          onSome: (fence) => Effect.asSome(grantOf(session, id, fence, request, giveBack))
        }))
    })
    return Effect.onError(asked, () => giveBack)
  })

/** The time between two tries while all sessions for waits are in use. */
const pollInterval = Duration.millis(250)

const backendOf = (sessions: Sessions): Lock.Backend => {
  const { namespace, shared, waits } = sessions
  const tryTake: Lock.Backend["tryTake"] = (request, restore) =>
    granted(
      sessions,
      request,
      restore,
      Effect.mapError(Shared.get(shared), unlessClosed),
      (session, id) => session.ask("lock", trySql, [id])
    )
  const wait = (request: Lock.Request, restore: Managed.Restore) =>
    granted(
      sessions,
      request,
      restore,
      Effect.mapError(Pool.get(waits, { acquireTimeout: pollInterval }), unlessClosed),
      (session, id) => restore(session.wait(waitSql, [id]))
    )
  const take: Lock.Backend["take"] = (request, restore) =>
    Effect.suspend(() => {
      const isWarm = Pool.unsafeStats(waits).idle > 0
      return Effect.flatMap(isWarm ? Effect.succeedNone : tryTake(request, restore), (tried) => {
        if (Option.isSome(tried)) return Effect.succeed(tried.value)
        const waited = Effect.map(wait(request, restore), Option.getOrThrow)
        return Effect.catchTag(waited, "PoolTimeout", () => take(request, restore))
      })
    })
  const inspect: Lock.Backend["inspect"] = (key) =>
    Effect.mapError(
      Shared.use(shared, (session) => session.ask("inspect", holderSql, [idOf(namespace, key)])),
      (error) =>
        error instanceof Lock.LockBackendError ? error : failed("inspect")({ cause: error })
    ).pipe(Effect.map(([row]) =>
      Option.map(Option.fromNullable(row), ({ fence, holder, name, pid, since }) => ({
        holder: holder ?? (name?.replace(/^lock:/, "") || `server process ${pid}`),
        fence: fence == null ? undefined : BigInt(fence),
        since: since ?? undefined
      }))
    ))
  return { self, remote: true, realm: `advisory:${namespace}`, take, tryTake, inspect }
}

const pooler = (): Lock.LockUnsupported =>
  new Lock.LockUnsupported({
    why: "pooler",
    detail:
      "the server process that answers is not the one that was announced: there is a pooler between, and a session lock "
      + "would outlive its holder. Connect to the server itself, or use `layerLease`."
  })

export const makeService = (options: Options): Effect.Effect<Lock.Service, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { idleTimeout = "30 seconds", maxSessions = 10, namespace } = options
    if (!(maxSessions >= 2)) {
      return yield* Effect.die(
        new RangeError(`LockPostgres: \`maxSessions\` must be 2 or more, not ${maxSessions}`)
      )
    }
    const fork = Runtime.runFork(yield* Effect.runtime<never>())
    const schema = makeSchema()
    const open = new Set<LockSession>()
    const scopes = new Set<Scope.CloseableScope>()
    let isClosed = false
    const prepare = (session: LockSession) =>
      Effect.gen(function*() {
        if (isClosed) {
          return yield* failed("connect")({ cause: new Error("the lock service is closed") })
        }
        open.add(session)
        // INVARIANT LockPostgres-5: before a setting reaches another user of a pooler's session.
        if (!(yield* isDirect(session))) return yield* pooler()
        yield* session.ask("connect", prepareSql)
        // A failure is ignored: some platforms of the server lack the setting, which only ends dead sessions sooner.
        yield* Effect.ignore(session.ask("connect", "SET client_connection_check_interval = '2s'"))
        yield* schema(session)
      })
    const managed = (onLost: (session: LockSession) => Effect.Effect<unknown>) => {
      const settings: Settings = {
        client: clientOf(options),
        connectTimeout: Duration.decode(options.connectTimeout ?? "5 seconds"),
        answerTimeout: longestAnswer,
        pingInterval: Duration.decode(options.pingInterval ?? "2 seconds"),
        pingTimeout: Duration.decode(options.pingTimeout ?? "4 seconds"),
        fork,
        onLost: (session) => {
          open.delete(session)
          fork(onLost(session))
        }
      }
      return managedSession(namespace, settings, prepare)
    }
    const shared: Sessions["shared"] = yield* Shared.make({
      name: namespace,
      acquire: managed((session) => Shared.invalidate(shared, { only: session })),
      idleTimeToLive: idleTimeout
    })
    const waits: Sessions["waits"] = yield* Pool.make({
      name: namespace,
      acquire: managed((session) => Pool.invalidate(waits, session)),
      max: maxSessions - 1,
      idleTimeout,
      validate: (session) => Effect.as(session.ask("check", ""), true),
      validateAfterIdle: "1 second"
    })
    // INVARIANT LockPostgres-4: a holder loses its lease before the layer is gone.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        isClosed = true
        for (const session of open) session.unsafeEnd("the lock service is closed")
        return Effect.forEach(scopes, (scope) => Scope.close(scope, Exit.void), { discard: true })
      })
    )
    return Lock.make(backendOf({ namespace, shared, waits, scopes }))
  })
