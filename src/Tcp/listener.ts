/** Tcp/listener: a Node server whose connections are children of a nursery. ../Tcp.ts has the invariants. */
import * as Cause from "effect/Cause"
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
  },
  handle: (socket: Net.Socket) => Effect.Effect<unknown, unknown, R>
): Effect.Effect<Listening, TcpListenFailed, R | Scope.Scope> =>
  Effect.gen(function*() {
    const { listen, maxConnections, name, tls } = options
    const runtime = yield* Effect.runtime<R>()
    const nursery = yield* Nursery.make({ name })
    let accepted = 0
    let refused = 0
    let isClosing = false
    const accept = (socket: Net.Socket): void => {
      if (isClosing) return void socket.destroy()
      accepted++
      const handler = Nursery.start(nursery, reported(handle(socket), name))
      // A child that is interrupted before its first step releases nothing.
      Runtime.runSync(runtime)(handler).addObserver(() => void socket.destroy())
    }
    const common = { allowHalfOpen: true, noDelay: true }
    const server = tls === undefined
      ? Net.createServer(common, accept)
      : Tls.createServer({ ...common, ...tls }, accept)
    if (maxConnections !== undefined) server.maxConnections = maxConnections
    server.on("drop", () => refused++)
    const stop = Effect.suspend(() => {
      isClosing = true
      if (server.listening) server.close()
      return Deadline.exit(Nursery.awaitAll(nursery), options.drain)
    })
    yield* Effect.acquireRelease(listening(server, listen, name), () => stop)
    const log = Runtime.runFork(runtime)
    server.on(
      "error",
      (error) => log(Effect.logError(`${name} could not accept: ${codeOf(error)}`))
    )
    server.on(
      "tlsClientError",
      (error: Error) => log(Effect.logDebug(`${name}: a TLS handshake failed: ${codeOf(error)}`))
    )
    return {
      address: server.address()!,
      stats: Effect.map(Nursery.stats(nursery), ({ running }) => ({
        connections: running,
        accepted,
        refused
      }))
    }
  })

/** The listeners are set in the step that begins: an event may come before anyone waits for it. */
const listening = (
  server: Net.Server,
  listen: Net.ListenOptions,
  address: string
): Effect.Effect<void, TcpListenFailed> =>
  Effect.suspend(() => {
    const opened = Deferred.unsafeMake<void, TcpListenFailed>(FiberId.none)
    server.once("error", (cause) =>
      Deferred.unsafeDone(
        opened,
        Exit.fail(new TcpListenFailed({ address, code: codeOf(cause), cause }))
      ))
    server.listen(listen, () => {
      server.removeAllListeners("error")
      Deferred.unsafeDone(opened, Exit.void)
    })
    return Deferred.await(opened)
  })

/** A handler that fails ends its own connection only. */
const reported = <R>(handler: Effect.Effect<unknown, unknown, R>, name: string) =>
  Effect.catchAllCause(Effect.asVoid(handler), (cause) =>
    Cause.isInterruptedOnly(cause)
      ? Effect.void
      : Effect.logWarning(`A connection of ${name} ended with a failure`, cause))
