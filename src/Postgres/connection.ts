/**
 * Postgres/connection: the one place that connects to a server, cancels on a socket of its own, and closes.
 *
 * DESIGN. A `pg.Client` and what pg does not do: a cancel that needs no session and goes over TLS if the session does, and a close
 * that waits for the server. The sessions of the pool (session.ts) and of the locks (../Lock/Postgres.ts) stand on it.
 *
 * INVARIANTS
 * - PgConnection-1 A connection is closed in the order of the protocol: goodbye, then the server's end of the socket, which the
 *   server's process closes by its own end. Only after `cancelTimeout` is the socket destroyed.
 * - PgConnection-2 A cancel goes over TLS if its session does. It never gives away its key on a socket that is not encrypted.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type { Socket } from "node:net"
import * as Pg from "pg"
import * as Deadline from "../Deadline.ts"
import type * as Managed from "../Managed.ts"
import { codeOf, ConnectionLost, messageOf } from "./errors.ts"

export interface Settings {
  readonly client: Pg.ClientConfig
  readonly connectTimeout: Duration.Duration
  readonly cancelTimeout: Duration.Duration
}

/** Fields of a client that pg's typings leave out. */
interface Details {
  readonly processID: number | null
  readonly secretKey: number
  readonly ssl: Pg.ClientConfig["ssl"]
  readonly sslNegotiation: "postgres" | "direct"
}

/** The raw connection beneath a `pg.Client`, for which pg has no typings. */
interface Wire extends NodeJS.EventEmitter {
  readonly stream: Socket
  readonly connect: (portOrPath: number | string, host?: string) => void
  readonly requestSsl: () => void
  readonly cancel: (processId: number, secretKey: number) => void
  readonly end: () => void
}

const Wire = Pg.Connection as unknown as new(config: object) => Wire

export class Connection {
  readonly settings: Settings
  readonly client: Pg.Client
  readonly ended = Deferred.unsafeMake<ConnectionLost>(FiberId.none)
  // Written by this class alone.
  lost: ConnectionLost | undefined = undefined
  /** The code of the socket's error that ended it. */
  lostBy: string | undefined = undefined
  isEnding = false

  constructor(settings: Settings) {
    this.settings = settings
    this.client = new Pg.Client(settings.client)
    this.client.on("error", (cause) => {
      this.lostBy ??= codeOf(cause)
      this.lose(messageOf(cause))
    })
    this.client.on("end", () => {
      Deferred.unsafeDone(this.ended, Exit.succeed(this.lose("it was closed")))
    })
  }

  get wire(): Wire {
    return this.client.connection as unknown as Wire
  }

  get details(): Details {
    return this.client as unknown as Details
  }

  /** The server's process, as the server announced it. */
  get processId(): number | null {
    return this.details.processID
  }

  /** The first reason counts. */
  lose(reason: string): ConnectionLost {
    return this.lost ??= new ConnectionLost({ reason, wasSent: true })
  }

  /** Says goodbye; the server then rolls back and frees all that the session held. */
  unsafeEnd(reason: string): void {
    this.lose(reason)
    if (this.isEnding) return
    this.isEnding = true
    const { bytesRead, connecting } = this.wire.stream
    // A server that has never answered has no session to end.
    if (connecting || bytesRead === 0) this.destroy()
    else this.wire.end()
  }

  destroy(): void {
    this.wire.stream.destroy()
  }

  /** Says goodbye and waits until the server has closed its end, or cuts the socket (PgConnection-1). */
  close(reason: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.unsafeEnd(reason)
      const ended = Deadline.exit(Deferred.await(this.ended), this.settings.cancelTimeout)
      return Effect.map(ended, (answer) => {
        if (Option.isNone(answer)) this.destroy()
      })
    })
  }

  /** Whether the server took a CancelRequest: it closes that socket when it has signalled its process. Bounded. */
  get cancelRequest(): Effect.Effect<boolean> {
    // WINDOW: `Deadline` interrupts it only where it waits.
    const request = Effect.async<boolean>((resume) => {
      const { processID, secretKey, ssl, sslNegotiation } = this.details
      const { host, port } = this.client
      const wire = new Wire({ ssl, sslNegotiation, stream: this.settings.client.stream })
      let isSent = false
      const send = (): void => {
        wire.cancel(processID ?? 0, secretKey)
        isSent = true
      }
      // PgConnection-2: "sslconnect" comes when the server has agreed to encrypt.
      wire.on("connect", () => {
        if (!ssl) send()
        else if (sslNegotiation !== "direct") wire.requestSsl()
      })
      wire.on("sslconnect", send)
      wire.on("error", () => {
        isSent = false
      })
      wire.on("end", () => resume(Effect.succeed(isSent)))
      if (host.startsWith("/")) wire.connect(`${host}/.s.PGSQL.${port}`)
      else wire.connect(port, host)
      return Effect.sync(() => wire.stream.destroy())
    })
    return Effect.map(
      Deadline.exit(request, this.settings.cancelTimeout),
      (answer) => Option.isSome(answer) && Exit.isSuccess(answer.value) && answer.value.value
    )
  }
}

/** Connects. Interruptible only where it waits; an interrupt or a failure closes the connection under way. */
export const connect = <C extends Connection>(
  connection: C,
  restore: Managed.Restore
): Effect.Effect<C, unknown> => {
  const { client, settings: { connectTimeout: duration } } = connection
  const ready = Effect.async<void, unknown>((resume) => {
    client.connect((cause: Error | null | undefined) =>
      resume(cause ? Effect.fail(cause) : Effect.void)
    )
  })
  const onTimeout = () => new Error(`no answer within ${Duration.format(duration)}`)
  return restore(Effect.timeoutFail(ready, { duration, onTimeout })).pipe(
    Effect.onError(() => connection.close("its opening was abandoned")),
    Effect.as(connection)
  )
}
