/** Tcp/listener: a Node server whose connections are children of a nursery. ../Tcp.ts has the invariants. */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Deadline from "../Deadline.ts"
import * as Nursery from "../Nursery.ts"
import { codeOf, TcpListenFailed } from "./errors.ts"

export interface Listening {
  readonly address: Net.AddressInfo | string
  readonly stats: Effect.Effect<{
    readonly connections: number
    readonly accepted: number
    readonly refused: number
  }>
}

/** Serves until the scope closes: then it accepts no more, waits for the handlers up to `drain`, and interrupts them. */
export const open = <R>(
  options: {
    readonly listen: Net.ListenOptions
    readonly name: string
    readonly tls: Tls.TlsOptions | undefined
    readonly maxConnections: number | undefined
    readonly drain: Duration.Duration
    /** Of one connection. */
    readonly releaseDeadline: Duration.Duration
  },
  handle: (socket: Net.Socket) => Effect.Effect<void, never, R>
): Effect.Effect<Listening, TcpListenFailed, R | Scope.Scope> =>
  Effect.gen(function*() {
    const { listen, maxConnections, name, tls } = options
    const runtime = yield* Effect.runtime<R>()
    // Also those without a handler: in a handshake of TLS, or of a child that was interrupted before its first step.
    const sockets = new Set<Net.Socket>()
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
      })
    )
    const nursery = yield* Nursery.make({ name })
    let accepted = 0
    let refused = 0
    let isClosing = false
    const accept = (socket: Net.Socket): void => {
      if (isClosing) return void socket.destroy()
      accepted++
      // Not before: Node would keep a connection whose client left in the middle of its TLS handshake.
      socket.allowHalfOpen = true
      Runtime.runSync(runtime)(Nursery.start(nursery, handle(socket)))
    }
    const server = tls === undefined
      ? Net.createServer({ noDelay: true }, accept)
      : Tls.createServer({ noDelay: true, ...tls }, accept)
    if (maxConnections !== undefined) server.maxConnections = maxConnections
    const log = Runtime.runFork(runtime)
    server.on("drop", () => refused++)
    server.on("connection", (socket: Net.Socket) => {
      sockets.add(socket)
      socket.once("close", () => sockets.delete(socket))
    })
    server.on(
      "tlsClientError",
      (error: Error) => log(Effect.logDebug(`${name}: a TLS handshake failed: ${codeOf(error)}`))
    )
    const opened = Deferred.unsafeMake<void, TcpListenFailed>(FiberId.none)
    server.on("error", (cause) => {
      const code = codeOf(cause)
      if (server.listening) return void log(Effect.logError(`${name} could not accept: ${code}`))
      const failed = new TcpListenFailed({ address: name, code, cause })
      Deferred.unsafeDone(opened, Exit.fail(failed))
    })
    const listening = Effect.suspend(() => {
      server.listen(listen, () => Deferred.unsafeDone(opened, Exit.void))
      return Deferred.await(opened)
    })
    const stop = Effect.suspend(() => {
      isClosing = true
      if (server.listening) server.close()
      const ended = Nursery.awaitAll(nursery)
      const drained = Deadline.exit(ended, options.drain)
      // The release of the nursery would wait 5 seconds, however long connections linger.
      const cut = Effect.zipRight(
        Nursery.cancel(nursery),
        Deadline.exit(ended, options.releaseDeadline)
      )
      return Effect.zipRight(drained, cut)
    })
    yield* Effect.acquireRelease(listening, () => stop)
    return {
      address: server.address()!,
      stats: Effect.map(Nursery.stats(nursery), ({ running }) => ({
        connections: running,
        accepted,
        refused
      }))
    }
  })
