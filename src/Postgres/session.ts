/**
 * Postgres/session: one connection to the server, whose statements can be cancelled.
 *
 * DESIGN. A statement is cancelled by a CancelRequest on a socket of its own, so a cancel needs no session of the pool. Every wait for
 * the server is bounded: a session that does not answer in time is cut, and the server then rolls back and frees all it held.
 * ../Postgres.ts has the invariants.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { createRequire } from "node:module"
import * as net from "node:net"
import * as Pg from "pg"
import * as Deadline from "../Deadline.ts"
import * as Managed from "../Managed.ts"
import { codeOf, ConnectionLost, failed, isSqlState, messageOf } from "./errors.ts"

export interface Settings {
  readonly client: Pg.ClientConfig
  readonly address: {
    readonly host: string
    readonly port: number
    readonly user: string
    readonly database: string
  }
  readonly applicationName: string
  readonly max: number
  readonly connectTimeout: Duration.Duration
  readonly acquireTimeout: Duration.Duration
  readonly cancelTimeout: Duration.Duration
  readonly drain: Duration.Duration
}

/** `pg-cursor` comes with `@effect/sql-pg`; this is the part of it that we use. */
interface Cursor extends Pg.Submittable {
  readonly read: (
    rows: number,
    callback: (error: Error | undefined | null, rows: ReadonlyArray<object>) => void
  ) => void
  readonly close: (callback: () => void) => void
}

const Cursor: new(sql: string, values: ReadonlyArray<unknown>) => Cursor = createRequire(
  createRequire(import.meta.url).resolve("@effect/sql-pg")
)("pg-cursor")

interface Portal {
  readonly cursor: Cursor
  isOver: boolean
}

/** Fields that pg's typings leave out. */
type Keys = { readonly processID: number; readonly secretKey: number }

export interface Result {
  readonly command?: string
  readonly rows?: ReadonlyArray<object>
}

/** Commands whose effect stays with the session; it is wiped before the next user gets it. */
const staying = new Set(["SET", "LISTEN", "PREPARE", "DECLARE", "LOAD"])

export const resultsOf = (result: Result | ReadonlyArray<Result>): ReadonlyArray<Result> =>
  Array.isArray(result) ? result : [result as Result]

/** Milliseconds in which a statement may end by itself before a cancel is sent. A cancel may cost the session. */
const graceMillis = 10

/** An answer that is awaited from the server. */
class Pending {
  settled = false
  isCancelled = false
  error: unknown = undefined
  readonly waiting: Array<() => void> = []

  settle(error: unknown): void {
    this.settled = true
    this.error = error
    for (const wake of this.waiting) wake()
  }

  get awaited(): Effect.Effect<void> {
    return Effect.async((resume) => {
      if (this.settled) resume(Effect.void)
      else this.waiting.push(() => resume(Effect.void))
    })
  }

  /** In real time, so that an interrupt is seen without a step of a `TestClock`. */
  get awaitedBriefly(): Effect.Effect<void> {
    return Effect.async((resume) => {
      const timer = setTimeout(() => resume(Effect.void), graceMillis)
      this.waiting.push(() => {
        clearTimeout(timer)
        resume(Effect.void)
      })
    })
  }
}

export class Session {
  readonly client: Pg.Client
  readonly settings: Settings
  readonly ended: Deferred.Deferred<ConnectionLost>
  // The fields below are written by this class and the pool alone.
  lost: ConnectionLost | undefined = undefined
  pending: Pending | undefined = undefined
  portal: Portal | undefined = undefined
  /** A cancel was sent and not confirmed: it may still hit the next statement. */
  isTainted = false
  isDirty = false
  isEnding = false

  constructor(client: Pg.Client, settings: Settings, ended: Deferred.Deferred<ConnectionLost>) {
    this.client = client
    this.settings = settings
    this.ended = ended
    client.on("error", (cause) => this.lose(messageOf(cause)))
    client.on("end", () => Deferred.unsafeDone(ended, Exit.succeed(this.lose("it was closed"))))
  }

  lose(reason: string): ConnectionLost {
    return this.lost ??= new ConnectionLost({ reason })
  }

  /** Cuts the socket. The server rolls back and frees all that the session held. */
  cut(reason: string): void {
    this.lose(reason)
    this.client.connection.stream.destroy()
  }

  get processId(): number {
    return (this.client as unknown as Keys).processID
  }

  get status(): string | null {
    return this.client.getTransactionStatus()
  }

  errorFrom(cause: unknown): SqlError {
    const code = codeOf(cause)
    const isAnswer = code !== undefined && isSqlState(code)
    return isAnswer || this.lost === undefined
      ? new SqlError({ message: `Failed to execute statement: ${messageOf(cause)}`, cause })
      : failed(this.lost)
  }

  /** The 16 bytes of a CancelRequest, on a socket of their own; the server closes it when it has sent the signal. */
  readonly cancelRequest: Effect.Effect<void> = Effect.async((resume) => {
    const { processID, secretKey } = this.client as unknown as Keys
    const request = Buffer.alloc(16)
    request.writeInt32BE(16, 0)
    request.writeInt32BE(80877102, 4)
    request.writeInt32BE(processID, 8)
    request.writeInt32BE(secretKey, 12)
    const { host, port } = this.settings.address
    const socket = host.startsWith("/")
      ? net.connect(`${host}/.s.PGSQL.${port}`)
      : net.connect(port, host)
    socket.once("connect", () => socket.write(request))
    socket.on("error", () => {})
    // An unread stream never ends.
    socket.resume()
    socket.once("close", () => resume(Effect.void))
    return Effect.sync(() => socket.destroy())
  })

  /** Cancels what runs and waits until it has stopped, or cuts the socket (Postgres-1). */
  stop(pending: Pending): Effect.Effect<void> {
    return Effect.suspend(() =>
      pending.settled
        ? Effect.void
        : Effect.zipRight(pending.awaitedBriefly, this.cancel(pending))
    )
  }

  cancel(pending: Pending): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { cancelTimeout } = this.settings
      if (pending.settled) return Effect.void
      // One cancel a statement: a second one could arrive after the first was confirmed.
      if (pending.isCancelled) {
        return Effect.asVoid(Deadline.exit(pending.awaited, Duration.times(cancelTimeout, 2)))
      }
      pending.isCancelled = true
      this.isTainted = true
      return Deadline.exit(this.cancelRequest, cancelTimeout).pipe(
        Effect.zipRight(Deadline.exit(pending.awaited, cancelTimeout)),
        Effect.map(() => {
          if (!pending.settled) this.cut("the server did not confirm a cancel")
          // Only this answer confirms that the cancel took effect (Postgres-2).
          else if (codeOf(pending.error) === "57014") this.isTainted = false
        })
      )
    })
  }

  /** Waits for the answer to an interrupted COMMIT for twice `cancelTimeout`, then cuts the socket. */
  finish(pending: Pending): Effect.Effect<void> {
    const twice = Duration.times(this.settings.cancelTimeout, 2)
    return Effect.map(Deadline.exit(pending.awaited, twice), () => {
      if (!pending.settled) this.cut("the server did not answer a COMMIT in time")
    })
  }

  get stopRunning(): Effect.Effect<void> {
    return Effect.suspend(() => this.pending === undefined ? Effect.void : this.stop(this.pending))
  }

  query(
    config: Pg.QueryConfig | Pg.QueryArrayConfig,
    whenInterrupted: "stop" | "finish" = "stop"
  ): Effect.Effect<Result | ReadonlyArray<Result>, SqlError> {
    return Effect.async((resume) => {
      if (this.lost !== undefined) return resume(Effect.fail(failed(this.lost)))
      const pending = new Pending()
      this.pending = pending
      const settle = (error: unknown, result: Result | ReadonlyArray<Result>): void => {
        if (pending.settled) return
        if (this.pending === pending) this.pending = undefined
        pending.settle(error)
        if (error !== undefined && error !== null) return resume(Effect.fail(this.errorFrom(error)))
        if (resultsOf(result).some((one) => staying.has(one.command ?? ""))) this.isDirty = true
        resume(Effect.succeed(result))
      }
      try {
        this.client.query(config, settle)
      } catch (cause) {
        settle(cause, [])
      }
      return whenInterrupted === "stop" ? this.stop(pending) : this.finish(pending)
    })
  }

  text(sql: string): Effect.Effect<void, SqlError> {
    return Effect.asVoid(this.query({ text: sql }))
  }

  /** A statement of ours that must be answered in time, or the socket is cut. True if it succeeded. */
  promptly(sql: string): Effect.Effect<boolean> {
    return Effect.map(Deadline.exit(this.text(sql), this.settings.cancelTimeout), (answer) => {
      if (Option.isNone(answer)) this.cut(`the server did not answer "${sql}" in time`)
      return Option.isSome(answer) && Exit.isSuccess(answer.value)
    })
  }

  stream(sql: string, values: ReadonlyArray<unknown>): Stream.Stream<object, SqlError> {
    return Stream.unwrapScoped(Effect.map(
      Effect.acquireRelease(
        Effect.suspend(() => {
          if (this.lost !== undefined) return Effect.fail(failed(this.lost))
          const cursor = this.client.query(new Cursor(sql, values))
          this.portal = { cursor, isOver: false }
          return Effect.succeed(this.portal)
        }),
        (portal) => this.closePortal(portal)
      ),
      (portal) => Stream.repeatEffectChunkOption(this.read(portal))
    ))
  }

  read(portal: Portal): Effect.Effect<Chunk.Chunk<object>, Option.Option<SqlError>> {
    return Effect.async((resume) => {
      const pending = new Pending()
      this.pending = pending
      portal.cursor.read(128, (error, rows) => {
        if (pending.settled) return
        if (this.pending === pending) this.pending = undefined
        pending.settle(error)
        if (error) return resume(Effect.fail(Option.some(this.errorFrom(error))))
        if (rows.length > 0) return resume(Effect.succeed(Chunk.unsafeFromArray(rows)))
        portal.isOver = true
        resume(Effect.fail(Option.none()))
      })
      return this.stop(pending)
    })
  }

  /**
   * Closes the portal once: when the stream ends, or when the session is cleaned. A portal that was read to its end has closed
   * itself. For any other, the answer to an empty statement shows that the session is free again.
   */
  closePortal(portal: Portal): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.portal !== portal) return Effect.void
      this.portal = undefined
      if (portal.isOver || this.lost !== undefined) return Effect.void
      portal.cursor.close(() => {})
      return this.promptly("")
    })
  }

  get isFit(): boolean {
    return this.lost === undefined && this.status === "I" && !this.isTainted && !this.isDirty
      && this.pending === undefined && this.portal === undefined
  }

  /** Makes it fit for the next user, or cuts it (Postgres-2). Bounded. */
  readonly clean: Effect.Effect<void> = Effect.gen(this, function*() {
    yield* this.stopRunning
    if (this.portal !== undefined) yield* this.closePortal(this.portal)
    if (this.lost === undefined && this.status !== "I") yield* this.promptly("ROLLBACK")
    if (this.lost === undefined && this.isDirty) {
      this.isDirty = !(yield* this.promptly("DISCARD ALL"))
    }
    if (!this.isFit) this.cut("it was not fit for another user")
  })

  unsafeEnd(): void {
    if (this.isEnding) return
    this.isEnding = true
    if (this.lost === undefined) this.client.end(() => {})
    else this.client.connection.stream.destroy()
  }

  /** Says goodbye and waits until the socket has closed, or cuts it. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.unsafeEnd()
    const ended = Deadline.exit(Deferred.await(this.ended), this.settings.cancelTimeout)
    return Effect.map(ended, (answer) => {
      if (Option.isNone(answer)) this.cut("the server did not close it in time")
    })
  })
}

/** Interruptible only where it waits. An interrupt cuts the connection under way. */
const connect = (
  settings: Settings,
  connecting: Set<Session>,
  restore: Managed.Restore
): Effect.Effect<Session, unknown> =>
  Effect.flatMap(Deferred.make<ConnectionLost>(), (ended) =>
    Effect.suspend(() => {
      const client = new Pg.Client(settings.client)
      const session = new Session(client, settings, ended)
      const ready = Effect.async<void, unknown>((resume) => {
        client.connect((cause: Error | null | undefined) =>
          resume(cause ? Effect.fail(cause) : Effect.void)
        )
      })
      connecting.add(session)
      const { connectTimeout: duration } = settings
      const onTimeout = () => new Error(`no answer within ${Duration.format(duration)}`)
      return restore(Effect.timeoutFail(ready, { duration, onTimeout })).pipe(
        Effect.onError(() => Effect.sync(() => session.cut("its opening was abandoned"))),
        Effect.ensuring(Effect.sync(() => connecting.delete(session))),
        Effect.as(session)
      )
    }))

/** A session; `connecting` holds it while it is being opened. */
export const managedSession = (
  settings: Settings,
  connecting: Set<Session>
): Managed.Managed<Session, unknown> =>
  Managed.make({
    name: settings.applicationName,
    kind: "postgres connection",
    acquire: (restore) => connect(settings, connecting, restore),
    release: (session) => session.close,
    releaseDeadline: Duration.times(settings.cancelTimeout, 3)
  })
