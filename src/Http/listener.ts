/**
 * Http/listener: a Node server that listens only once its handler is attached, and the connections that it has.
 *
 * DESIGN. It counts the answers that each connection has under way, because `server.closeIdleConnections` would also cut an answer
 * that has been written but not been sent. Server.ts has the invariants.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as HttpApp from "@effect/platform/HttpApp"
import type { HttpMiddleware } from "@effect/platform/HttpMiddleware"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Scope from "effect/Scope"
import type * as Http from "node:http"
import * as Net from "node:net"
import * as Tls from "node:tls"

export const isWebSocket = (headers: Readonly<Record<string, unknown>>): boolean =>
  String(headers["upgrade"]).toLowerCase() === "websocket"

/** How long a new connection has for its first request once the server has stopped listening. */
const freshMillis = 1000

const afterTurns = (turns: number, run: () => void): void => {
  setImmediate(() => turns === 1 ? run() : afterTurns(turns - 1, run))
}

/** The open connections of a server. */
class Connections {
  readonly #server: Http.Server
  /** The listeners for requests that the server came with. */
  readonly #others: number
  /** Each with its answers under way. */
  readonly #open = new Map<Net.Socket, Set<Http.ServerResponse>>()
  /** Those of them that have not sent a request yet. */
  readonly #fresh = new Set<Net.Socket>()
  readonly #ended = Deferred.unsafeMake<void>(FiberId.none)
  #early: Array<[Http.IncomingMessage, Http.ServerResponse]> | undefined = []
  #isDraining = false
  #isStopping = false
  /** Whether idle connections are closed. */
  #isClosing = false

  constructor(server: Http.Server) {
    this.#server = server
    this.#others = server.listenerCount("request")
    server.on(server instanceof Tls.Server ? "secureConnection" : "connection", (socket) => {
      if (this.#isClosing) return socket.destroy()
      this.#open.set(socket, new Set())
      this.#fresh.add(socket)
      socket.once("close", () => {
        this.#open.delete(socket)
        this.#fresh.delete(socket)
        this.#look()
      })
    })
    server.on("request", (request, response) => {
      if (this.#early !== undefined && server.listenerCount("request") === this.#others + 1) {
        this.#early.push([request, response])
      } else {
        this.#begin(request.socket, response)
      }
    })
  }

  /** Passes on the requests that came before the handler. */
  attached(): void {
    const early = this.#early ?? []
    this.#early = undefined
    for (const [request, response] of early) this.#server.emit("request", request, response)
    this.#server.on("upgrade", ({ headers, socket }) => {
      if (isWebSocket(headers)) this.#open.delete(socket)
    })
  }

  #begin(socket: Net.Socket, response: Http.ServerResponse): void {
    const answers = this.#open.get(socket)
    this.#fresh.delete(socket)
    answers?.add(response)
    if (this.#isDraining) response.shouldKeepAlive = false
    response.once("close", () => {
      answers?.delete(response)
      if (this.#isClosing && answers?.size === 0) socket.destroySoon()
    })
  }

  #look(): void {
    if (!this.#isClosing || this.#open.size > 0) return
    // It has stopped listening; this stops Node's timer for slow requests.
    this.#server.close()
    Deferred.unsafeDone(this.#ended, Exit.void)
  }

  #close(isDue: (socket: Net.Socket, answers: ReadonlySet<Http.ServerResponse>) => boolean): void {
    this.#isClosing = true
    for (const [socket, answers] of this.#open) if (isDue(socket, answers)) socket.destroy()
    this.#look()
  }

  #stopListening(): void {
    if (this.#server.listening) Net.Server.prototype.close.call(this.#server)
  }

  /** From now on each answer closes its connection, if its head has not been sent. */
  readonly drain = Effect.sync(() => {
    this.#isDraining = true
    for (const answers of this.#open.values()) {
      for (const response of answers) response.shouldKeepAlive = false
    }
  })

  /** Stops listening, and waits until every answer under way has been sent. */
  readonly stop = Effect.zipRight(
    this.drain,
    Effect.suspend(() => {
      if (!this.#isStopping) {
        this.#isStopping = true
        // A turn of the event loop accepts the connections that have arrived by now, and two more read their requests.
        afterTurns(1, () => {
          this.#stopListening()
          afterTurns(
            2,
            () => this.#close((socket, { size }) => size === 0 && !this.#fresh.has(socket))
          )
          setTimeout(() => this.#close((socket) => this.#fresh.has(socket)), freshMillis).unref()
        })
      }
      return Deferred.await(this.#ended)
    })
  )

  /** Cuts the answers that have begun and are not written to their end: the handler, interrupted, would end them as if whole. */
  readonly cutPartial = Effect.sync(() =>
    this.#close((_, answers) =>
      Array.from(answers).some(({ headersSent, writableEnded }) => headersSent && !writableEnded)
    )
  )

  readonly cut = Effect.sync(() => {
    this.#stopListening()
    this.#close(() => true)
  })
}

/** Listens, with the handler attached, until `stop` and then `close`. */
export const open = (
  evaluate: () => Http.Server,
  listen: Net.ListenOptions,
  app: HttpApp.Default<unknown>,
  middleware: HttpMiddleware
) =>
  Effect.gen(function*() {
    const node = evaluate()
    const connections = new Connections(node)
    const listening = yield* Scope.make()
    const handling = yield* Scope.make()
    // The server's scope waits for the web sockets, and the handler's ends them.
    const close = Effect.zipRight(
      Scope.close(handling, Exit.void),
      Scope.close(listening, Exit.void)
    )
    const started = Effect.gen(function*() {
      const server = yield* Scope.extend(NodeHttpServer.make(() => node, listen), listening)
      yield* Scope.extend(server.serve(app, middleware), handling)
      connections.attached()
      return server.address
    })
    const address = yield* Effect.onError(started, () => close)
    return { address, close, connections }
  })
