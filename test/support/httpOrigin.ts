/**
 * httpOrigin: a real HTTP server on 127.0.0.1 whose every answer a test writes itself, down to resetting the socket.
 */
import { Effect, type Scope } from "effect"
import * as http from "node:http"
import * as net from "node:net"

/** Answers one request; `hit` counts the requests for this path, from 1. */
export type Answer = (
  response: http.ServerResponse,
  request: http.IncomingMessage,
  hit: number
) => void

export interface Origin {
  readonly url: (path: string) => string
  /** What was asked, in order. */
  readonly requests: Array<http.IncomingMessage>
  /** The sockets open now. */
  readonly sockets: ReadonlySet<net.Socket>
  readonly seen: { accepted: number; most: number }
  /**
   * Resets the connections whose answers are `partly(…, "reset")`. A client calls it when it has read what came: libuv reports a
   * reset that arrives with the bytes before it as an orderly end.
   */
  readonly reset: () => void
}

const listening = (server: net.Server): Effect.Effect<number> =>
  Effect.async((resume) => {
    server.listen(0, "127.0.0.1", () =>
      resume(Effect.succeed((server.address() as net.AddressInfo).port)))
  })

const stopped = (server: http.Server): Effect.Effect<void> =>
  Effect.async((resume) => {
    server.close(() => resume(Effect.void))
    server.closeAllConnections()
  })

/** Serves `answers` by path (the part before `?`) until the scope closes; anything else is a 404. */
export const make = (
  answers: Readonly<Record<string, Answer>>
): Effect.Effect<Origin, never, Scope.Scope> =>
  Effect.gen(function*() {
    const sockets = new Set<net.Socket>()
    const requests: Array<http.IncomingMessage> = []
    const hits = new Map<string, number>()
    const seen = { accepted: 0, most: 0 }
    const server = http.createServer((request, response) => {
      requests.push(request)
      const path = request.url!.split("?")[0]!
      const hit = (hits.get(path) ?? 0) + 1
      hits.set(path, hit)
      const answer = answers[path] ?? status(404)
      answer(response, request, hit)
    })
    server.keepAliveTimeout = 60_000
    server.on("connection", (socket) => {
      sockets.add(socket)
      seen.accepted++
      seen.most = Math.max(seen.most, sockets.size)
      socket.on("error", () => {})
      socket.once("close", () => sockets.delete(socket))
    })
    const port = yield* Effect.acquireRelease(listening(server), () => stopped(server))
    const reset = () => {
      for (const socket of sockets) if (resetting.delete(socket)) socket.resetAndDestroy()
    }
    return { url: (path) => `http://127.0.0.1:${port}${path}`, requests, sockets, seen, reset }
  })

/** Takes connections and never says a word: a TLS handshake has no end there. */
export const mute: Effect.Effect<
  { readonly port: number; readonly sockets: ReadonlySet<net.Socket> },
  never,
  Scope.Scope
> = Effect.gen(function*() {
  const sockets = new Set<net.Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => {}).once("close", () => sockets.delete(socket)).resume()
  })
  const port = yield* Effect.acquireRelease(
    listening(server),
    () =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )
  return { port, sockets }
})

/** A whole body, with its length. */
export const body =
  (bytes: Uint8Array | string, headers: http.OutgoingHttpHeaders = {}): Answer => (response) => {
    response.writeHead(200, { "content-length": Buffer.byteLength(bytes), ...headers })
    response.end(bytes)
  }

/** A whole body in chunks, one each `everyMs`. */
export const slowly = (bytes: Buffer, pieces: number, everyMs: number): Answer => (response) => {
  response.writeHead(200, { "content-length": bytes.length })
  const size = Math.ceil(bytes.length / pieces)
  let at = 0
  const timer = setInterval(() => {
    response.write(bytes.subarray(at, at += size))
    if (at < bytes.length) return
    clearInterval(timer)
    response.end()
  }, everyMs)
  response.on("close", () => clearInterval(timer))
}

export const status =
  (code: number, headers: http.OutgoingHttpHeaders = {}, text = "no"): Answer => (response) => {
    response.writeHead(code, headers)
    response.end(text)
  }

export const redirect = (location: string, code = 302): Answer => status(code, { location })

/** Takes the request and never answers. */
export const silent: Answer = () => {}

/** Those that `reset` resets. */
const resetting = new WeakSet<net.Socket>()

/** The head and some of the body, then `then`: nothing more, an orderly end, or a reset when the test asks for it. */
export const partly = (
  bytes: Uint8Array | string,
  then: "silence" | "end" | "reset",
  headers: http.OutgoingHttpHeaders = {}
): Answer =>
(response) => {
  const { socket } = response
  if (then === "reset" && socket !== null) resetting.add(socket)
  response.writeHead(200, headers)
  response.write(bytes, () => {
    if (then === "end") socket?.destroy()
  })
}

/** Zeros until the other side has had enough. */
export const endless: Answer = (response) => {
  const zeros = Buffer.alloc(64 * 1024)
  const more = () => {
    while (!response.destroyed && response.write(zeros));
  }
  response.writeHead(200)
  response.on("drain", more)
  more()
}

/** Waits for something another process or thread brings about; dies after a generous while. */
export const eventually = (what: string, isSo: () => boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let tries = 0; tries < 1000; tries++) {
      if (isSo()) return
      yield* Effect.sleep("10 millis")
    }
    return yield* Effect.die(new Error(`This never happened: ${what}`))
  })
