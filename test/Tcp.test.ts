/** Against real sockets on the loopback: Node's own client and server stand on the other side. */
import { describe, expect, it } from "@effect/vitest"
import {
  Chunk,
  Config,
  ConfigProvider,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  LogLevel,
  Option,
  type Scheduler,
  Scope,
  Stream,
  TestClock
} from "effect"
import { Managed, Parallel } from "holdfast"
import * as Tcp from "holdfast/Tcp"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import * as tls from "node:tls"
import { selfSigned } from "./support/selfSigned.ts"

/** A server of Node, with the sockets that it has accepted. */
const nodeServer = (onSocket: (socket: net.Socket) => void, options: net.ServerOpts = {}) =>
  Effect.acquireRelease(
    Effect.async<
      { readonly port: number; readonly sockets: Set<net.Socket>; readonly server: net.Server }
    >(
      (resume) => {
        const sockets = new Set<net.Socket>()
        const server = net.createServer({ allowHalfOpen: true, ...options }, (socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("close", () => sockets.delete(socket))
          onSocket(socket)
        })
        server.listen({ port: 0, host: "127.0.0.1" }, () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(Effect.succeed({ port, sockets, server }))
        })
      }
    ),
    ({ server, sockets }) =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )

const portOf = (server: Tcp.Server): number => (server.address as net.AddressInfo).port
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString()
const host = "127.0.0.1"
/** Most peers here never end their side. */
const connect = (options: Tcp.ConnectOptions) =>
  Tcp.connect({ host, linger: "20 millis", ...options })
const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => condition() ? Effect.void : Effect.delay(until(condition), 2))

/** Every socket that this process has open. */
const openSockets = (): number =>
  fs.readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:")
    } catch {
      return false
    }
  }).length

describe("Tcp, reading", () => {
  it.scopedLive("Tcp-1: bytes before the peer's end are read, then the end, as often as one asks", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.end("last words"))
      const connection = yield* connect({ port })
      yield* Effect.sleep(20)
      expect(text(Option.getOrThrow(yield* Tcp.read(connection)))).toBe("last words")
      expect(yield* Tcp.read(connection)).toEqual(Option.none())
      expect(yield* Tcp.read(connection)).toEqual(Option.none())
    }))

  it.live("Tcp-1: an end that comes before the owner of the connection has run is read", () => {
    const scheduler: Scheduler.Scheduler = {
      shouldYield: () => false,
      scheduleTask: (task) => void setTimeout(task, 5)
    }
    const read = Effect.flatMap(
      nodeServer((socket) => socket.end()),
      ({ port }) => Managed.use(connect({ port }), Tcp.read)
    )
    const late = Effect.scoped(Effect.withScheduler(read, scheduler))
    return Effect.map(late, (bytes) => expect(bytes).toEqual(Option.none()))
  })

  it.scopedLive("Tcp-1: the handler of the last bytes runs to its end, also as a stream", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.end("last words"))
      const connection = yield* connect({ port })
      const seen: Array<string> = []
      yield* Stream.runForEach(
        Tcp.stream(connection),
        (bytes) => Effect.delay(Effect.sync(() => seen.push(text(bytes))), 20)
      )
      expect(seen).toEqual(["last words"])
    }))

  it.scopedLive("Tcp-1: a reader that is interrupted loses no byte", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer(() => {})
      const connection = yield* connect({ port })
      yield* until(() => sockets.size === 1)
      const peer = [...sockets][0]!
      const read = yield* Effect.fork(Tcp.readExactly(connection, 8))
      peer.write("1234")
      yield* Effect.sleep(20)
      yield* Fiber.interrupt(read)
      peer.write("5678")
      expect(text(yield* Tcp.readExactly(connection, 8))).toBe("12345678")
    }))

  it.scopedLive("Tcp-1: frames of any size arrive whole, whatever the pieces in which they were sent", () =>
    Effect.gen(function*() {
      const lines = Array.from({ length: 300 }, (_, n) => `${n}:${"x".repeat(n * 7 % 400)}`)
      const { port } = yield* nodeServer((socket) => {
        const bytes = Buffer.from(`${lines.join("\r\n")}\r\n`)
        // One piece for each turn of the event loop, so that the reader sees most of them alone.
        const send = (from: number, n: number): void => {
          const to = from + 1 + (n * 31) % 97
          socket.write(bytes.subarray(from, to))
          if (to < bytes.length) setImmediate(send, to, n + 1)
          else socket.end()
        }
        send(0, 0)
      }, { noDelay: true })
      const connection = yield* connect({ port })
      const seen: Array<string> = []
      for (const _ of lines) seen.push(text(yield* Tcp.readUntil(connection, "\r\n")).trimEnd())
      expect(seen).toEqual(lines)
      expect(yield* Tcp.read(connection)).toEqual(Option.none())
    }))

  it.scopedLive("Tcp-1: readers take turns, in the order in which they asked", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.end("aabbcc"))
      const connection = yield* connect({ port })
      const pair = Effect.map(Tcp.readExactly(connection, 2), text)
      expect(yield* Parallel.all([pair, pair, pair], { concurrency: 3 })).toEqual([
        "aa",
        "bb",
        "cc"
      ])
    }))

  it.scopedLive("Tcp-1: a consumer that does not read stops the sender, and memory stays bounded", () =>
    Effect.gen(function*() {
      const sent = { bytes: 0 }
      const block = Buffer.alloc(1 << 20)
      const { port } = yield* nodeServer((socket) => {
        const more = (): void => {
          while (sent.bytes < 300 << 20) {
            sent.bytes += block.length
            if (!socket.write(block)) return void socket.once("drain", more)
          }
          socket.end()
        }
        more()
      })
      const connection = yield* connect({ port })
      yield* Tcp.readExactly(connection, 10)
      yield* Effect.sleep(200)
      expect(sent.bytes).toBeLessThan(32 << 20)
      expect(connection.toJSON()).toMatchObject({ address: `${host}:${port}` })
    }))

  it.scopedLive("Tcp-4: an end in the middle of a frame, and a frame without an end, are typed and lose nothing", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.end("no newline"))
      const connection = yield* connect({ port })
      const long = yield* Effect.flip(Tcp.readUntil(connection, "\n", { maxBytes: 5 }))
      expect(long).toMatchObject({ _tag: "TcpTooLong", maxBytes: 5 })
      expect(long.message).toContain("without \"\\n\". Raise `maxBytes`")
      const cut = yield* Effect.flip(Tcp.readUntil(connection, "\n"))
      expect(cut).toMatchObject({ _tag: "TcpTruncated", partial: Buffer.from("no newline") })
      expect(yield* Tcp.read(connection)).toEqual(Option.none())
    }))

  it.scopedLive("Tcp-1: bytes before a reset are read, then the reset is the failure (Tcp-4)", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.write("before"))
      const connection = yield* connect({ port })
      yield* until(() => (connection as any).socket.readableLength === 6)
      for (const socket of sockets) socket.resetAndDestroy()
      yield* Effect.sleep(20)
      expect(text(Option.getOrThrow(yield* Tcp.read(connection)))).toBe("before")
      const lost = yield* Effect.flip(Tcp.read(connection))
      expect(lost).toMatchObject({ _tag: "TcpConnectionLost", code: "ECONNRESET" })
      expect(lost.message).toContain("is lost: ECONNRESET. The peer cut the connection.")
    }))

  it.scopedLive("Tcp-4: the bounds hold where the caller cannot be interrupted, as in a release", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.pause())
      const bound = "20 millis"
      const connection = yield* connect({ port, readTimeout: bound, writeTimeout: bound })
      const tooLate: Array<string> = []
      const operations: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
        Tcp.read(connection),
        Tcp.write(connection, Buffer.alloc(32 << 20)),
        Managed.use(connect({ port, tls: true, connectTimeout: bound }), () => Effect.void)
      ]
      const all = Effect.forEach(
        operations,
        (operation) =>
          Effect.map(
            Effect.flip(operation),
            (error) => tooLate.push((error as Tcp.TcpTimeout).operation)
          )
      )
      const fiber = yield* Effect.fork(Effect.onInterrupt(Effect.never, () => Effect.orDie(all)))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      expect(tooLate).toEqual(["read", "write", "connect"])
    }))

  it.scopedLive("Tcp-4: a read that waits too long is typed, and loses no byte", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer(() => {})
      const connection = yield* connect({ port, readTimeout: "20 millis" })
      const late = yield* Effect.flip(Tcp.read(connection))
      expect(late).toMatchObject({ _tag: "TcpTimeout", operation: "read" })
      for (const socket of sockets) socket.write("late")
      expect(text(yield* Tcp.readExactly(connection, 4))).toBe("late")
    }))

  it("Tcp-4: nonsense is a clear error", () => {
    const connection = {} as Tcp.Connection
    expect(() => Tcp.connect({})).toThrow(
      "Tcp.connect: give either `port`, 0 to 65535, or `path`; got none."
    )
    expect(() => Tcp.readExactly(connection, -1)).toThrow("`count` has to be a whole number")
    expect(() => Tcp.readUntil("\n", { maxBytes: NaN })(connection)).toThrow(
      "`maxBytes` has to be a whole number, 1 or more; got NaN."
    )
    const expectRangeError = (make: () => unknown, message: string) => {
      expect(make).toThrow(RangeError)
      expect(make).toThrow(message)
    }
    const connectTo = (options: object) => () => Tcp.connect({ port: 1, ...options })
    const listenOn = (options: object) => () =>
      Tcp.serve({ port: 0, ...options }, () => Effect.void)
    expectRangeError(connectTo({ lingr: 5 }), "Tcp.connect has no option `lingr`. Its options: ")
    expectRangeError(connectTo({ linger: -5 }), "Tcp.connect: `linger` has to be a duration, 0 or")
    expectRangeError(connectTo({ readTimeout: "-1 seconds" }), "`readTimeout` has to be a duration")
    expectRangeError(connectTo({ connectTimeout: NaN }), "`connectTimeout` has to be a duration")
    expectRangeError(connectTo({ path: "/tmp/x.sock" }), "got both.")
    expectRangeError(listenOn({ port: 70_000 }), "`port` has to be a whole number, 0 to 65535")
    expectRangeError(
      listenOn({ maxConnections: 0 }),
      "`maxConnections` has to be a whole number, 1"
    )
    expectRangeError(
      () => Tcp.serve({ path: `/tmp/${"x".repeat(200)}` }, () => Effect.void),
      "Tcp.serve: `path` has to be a path of 1 to "
    )
  })
})

describe("Tcp, writing", () => {
  it.scopedLive("Tcp-2: writers take turns and each write is whole", () =>
    Effect.gen(function*() {
      const got: Array<Buffer> = []
      const { port } = yield* nodeServer((socket) => socket.on("data", (bytes) => got.push(bytes)))
      const connection = yield* connect({ port })
      const blocks = Array.from(
        { length: 20 },
        (_, n) => String.fromCharCode(97 + n).repeat(200_000)
      )
      yield* Parallel.forEach(blocks, (block) => Tcp.write(connection, block), { concurrency: 20 })
      yield* Tcp.end(connection)
      yield* until(() => Buffer.concat(got).length === 4_000_000)
      expect(Buffer.concat(got).toString()).toBe(blocks.join(""))
    }))

  it.scopedLive("Tcp-2: a write waits for a peer that does not read; interrupted, it is sent whole before the next", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.pause())
      const connection = yield* connect({ port })
      const block = "a".repeat(32 << 20)
      const write = yield* Effect.fork(Tcp.write(connection, block))
      yield* Effect.sleep(50)
      expect(write.unsafePoll()).toBeNull()
      yield* Fiber.interrupt(write)
      const got: Array<Buffer> = []
      for (const socket of sockets) socket.on("data", (bytes) => got.push(bytes)).resume()
      yield* Tcp.write(connection, "z")
      yield* until(() => Buffer.concat(got.slice(-1)).at(-1) === 122)
      expect(Buffer.concat(got).length).toBe(block.length + 1)
    }))

  it.scopedLive("Tcp-4: writing fails typed: after `end`, on a lost connection, after `writeTimeout`", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.pause())
      const ended = yield* connect({ port })
      yield* Tcp.end(ended)
      expect(yield* Effect.flip(Tcp.write(ended, "x"))).toMatchObject({
        _tag: "TcpClosed",
        operation: "write"
      })
      const stuck = yield* connect({ port, writeTimeout: "20 millis" })
      const late = yield* Effect.flip(Tcp.write(stuck, Buffer.alloc(32 << 20)))
      expect(late).toMatchObject({ _tag: "TcpTimeout", operation: "write" })
      const cut = yield* connect({ port })
      for (const socket of sockets) socket.resetAndDestroy()
      yield* until(() => sockets.size === 0)
      yield* Effect.sleep(20)
      expect(yield* Effect.flip(Tcp.write(cut, "x"))).toMatchObject({ _tag: "TcpConnectionLost" })
    }))

  it.scopedLive("Tcp-4: a second `end` does nothing, and a write after `end` is TcpClosed, also when the peer has ended", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.resume().on("end", () => socket.end()))
      const connection = yield* connect({ port })
      yield* Tcp.end(connection)
      yield* Tcp.end(connection)
      expect(yield* Tcp.read(connection)).toEqual(Option.none())
      yield* until(() => (connection as any).socket.destroyed)
      yield* Tcp.end(connection)
      expect(yield* Effect.flip(Tcp.write(connection, "x"))).toMatchObject({ _tag: "TcpClosed" })
    }))

  it.scopedLive("half a close: the peer reads to the end and still answers", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => {
        let size = 0
        socket.on("data", (bytes) => (size += bytes.length)).on("end", () => socket.end(`${size}`))
      })
      const connection = yield* connect({ port })
      yield* Tcp.write(connection, "12345")
      yield* Tcp.end(connection)
      const answer = yield* Stream.runCollect(Tcp.stream(connection))
      expect(text(Buffer.concat(Chunk.toArray(answer)))).toBe("5")
    }))

  it.scopedLive("abort: the peer sees a reset", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const { port } = yield* nodeServer((socket) =>
        socket.on("data", (bytes) => seen.push(`${bytes}`))
          .on("error", (error: NodeJS.ErrnoException) => seen.push(`${error.code}`))
      )
      const connection = yield* connect({ port })
      yield* Tcp.write(connection, "x")
      yield* until(() => seen.length === 1)
      yield* Tcp.abort(connection)
      yield* until(() => seen.length === 2)
      expect(seen).toEqual(["x", "ECONNRESET"])
      expect(yield* Effect.flip(Tcp.read(connection))).toMatchObject({ _tag: "TcpConnectionLost" })
    }))
})

describe("Tcp, the end of a connection", () => {
  it.scopedLive("Tcp-3: everything written arrives, the socket is gone, and every operation fails with TcpClosed (Tcp-4)", () =>
    Effect.gen(function*() {
      let got = 0
      const { port } = yield* nodeServer((socket) =>
        socket.on("data", (bytes) => (got += bytes.length)).on("end", () => socket.end())
      )
      const before = openSockets()
      const connection = yield* Managed.use(
        connect({ port }),
        (connection) => Effect.as(Tcp.write(connection, Buffer.alloc(1 << 20)), connection)
      )
      yield* until(() => openSockets() <= before)
      expect(got).toBe(1 << 20)
      expect(yield* Effect.flip(Tcp.read(connection))).toMatchObject({
        _tag: "TcpClosed",
        operation: "read"
      })
      expect(yield* Effect.flip(Tcp.write(connection, "x"))).toMatchObject({ _tag: "TcpClosed" })
    }))

  it.scopedLive("Tcp-4: bytes that came before the release are not read after it", () =>
    Effect.gen(function*() {
      const { port } = yield* nodeServer((socket) => socket.end("a\nb\n"))
      const connection = yield* Managed.use(
        connect({ port }),
        (connection) => Effect.as(Tcp.readUntil(connection, "\n"), connection)
      )
      const late = [
        Tcp.read(connection),
        Tcp.readUntil(connection, "\n"),
        Tcp.readExactly(connection, 0),
        Tcp.end(connection)
      ]
      for (const operation of late) {
        expect(yield* Effect.flip(operation)).toMatchObject({ _tag: "TcpClosed" })
      }
    }))

  it.scopedLive("Tcp-3: unread bytes of the peer do not cost it what was written", () =>
    Effect.gen(function*() {
      const got: Array<string> = []
      const { port } = yield* nodeServer((socket) => {
        socket.write(Buffer.alloc(100_000))
        setTimeout(() => {
          socket.on("data", (bytes) => got.push(`${bytes}`)).on("end", () => socket.end())
        }, 30)
      })
      const answer = Managed.use(
        connect({ port, linger: "5 seconds" }),
        (connection) =>
          Effect.zipRight(Tcp.readExactly(connection, 10), Tcp.write(connection, "goodbye"))
      )
      yield* answer
      expect(got).toEqual(["goodbye"])
    }))

  it.scopedLive("Tcp-3: a peer that never ends its side holds the release for `linger` only", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.resume())
      yield* Managed.use(
        connect({ port, linger: "30 millis" }),
        (connection) => Tcp.write(connection, "x")
      )
      yield* until(() => [...sockets].every((socket) => socket.readableEnded))
      expect(sockets.size).toBe(1)
    }))

  it.scopedLive("Tcp-3: an interrupted owner with bytes left to send resets at once, whatever the peer does", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.pause())
      const before = openSockets()
      const use = Managed.use(
        connect({ port, linger: "1 hour" }),
        (connection) => Tcp.write(connection, Buffer.alloc(64 << 20))
      )
      const fiber = yield* Effect.fork(use)
      yield* until(() => sockets.size === 1)
      yield* Effect.sleep(20)
      yield* Fiber.interrupt(fiber)
      yield* until(() => openSockets() <= before + 1)
    }))

  it.scopedLive("Tcp-3: 200 interruptions at random moments leave no socket", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.pipe(socket))
      const before = openSockets()
      yield* Parallel.forEach(
        Array.from({ length: 200 }, (_, n) => n),
        (n) =>
          Managed.use(connect({ port }), (connection) =>
            Effect.zipRight(
              Tcp.write(connection, Buffer.alloc(1 << 16)),
              Tcp.readExactly(connection, 1 << 16)
            )).pipe(Effect.timeoutOption(n % 23), Effect.exit),
        { concurrency: 16, discard: true }
      )
      yield* until(() => sockets.size === 0)
      yield* until(() => openSockets() <= before)
    }))

  it.live("Tcp-4: a connect that fails says why", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(Effect.scoped(connect({ port: 1 })))
      expect(refused).toMatchObject({
        _tag: "TcpConnectFailed",
        code: "ECONNREFUSED",
        address: `${host}:1`
      })
      expect(refused.message).toBe(
        `Could not connect to ${host}:1: ECONNREFUSED. Nothing listens there.`
      )
      expect((yield* Effect.flip(Effect.scoped(connect({ port: 1, host: "::1" })))).address)
        .toBe("[::1]:1")
      const file = path.join(os.tmpdir(), "hf-no-such.sock")
      const missing = yield* Effect.flip(Effect.scoped(Tcp.connect({ path: file })))
      expect(missing).toMatchObject({ code: "ENOENT" })
    }))

  it.scopedLive("Tcp-4: a handshake that never ends is cut after `connectTimeout`", () =>
    Effect.gen(function*() {
      const { port, sockets } = yield* nodeServer((socket) => socket.resume())
      const silent = connect({ port, tls: true, connectTimeout: "30 millis" })
      const late = yield* Effect.flip(Effect.scoped(silent))
      expect(late).toMatchObject({ _tag: "TcpTimeout", operation: "connect" })
      yield* until(() => [...sockets].every((socket) => socket.readableEnded || socket.destroyed))
    }))
})

describe("Tcp, serving", () => {
  const echo = (connection: Tcp.Connection) =>
    Stream.runForEach(Tcp.stream(connection), (bytes) => Tcp.write(connection, bytes))

  it.scopedLive("TLS and Unix sockets: an echo there and back", () =>
    Effect.gen(function*() {
      const ask = (to: Tcp.ConnectOptions) =>
        Managed.use(connect(to), (connection) =>
          Effect.zipRight(
            Tcp.write(connection, "hello\n"),
            Effect.map(Tcp.readUntil(connection, "\n"), text)
          ))
      const secure = yield* Tcp.serve({ port: 0, host, tls: selfSigned }, echo)
      expect(yield* ask({ host: "localhost", port: portOf(secure), tls: { ca: selfSigned.cert } }))
        .toBe("hello\n")
      const distrust = yield* Effect.flip(
        ask({ host: "localhost", port: portOf(secure), tls: true })
      )
      expect(distrust).toMatchObject({
        _tag: "TcpConnectFailed",
        code: "DEPTH_ZERO_SELF_SIGNED_CERT"
      })
      const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "hf-")), "echo.sock")
      yield* Tcp.serve({ path: file }, echo)
      expect(yield* ask({ path: file })).toBe("hello\n")
      expect(tls.DEFAULT_MIN_VERSION).toBe("TLSv1.2")
    }))

  it.scopedLive("Tcp-5: the failure of a handler ends its connection alone; others are counted and refused beyond the bound", () =>
    Effect.gen(function*() {
      const server = yield* Tcp.serve(
        { port: 0, host, maxConnections: 2, drain: "20 millis", linger: "20 millis" },
        (connection) =>
          Effect.gen(function*() {
            const line = yield* Tcp.readUntil(connection, "\n")
            if (text(line) === "fail\n") return yield* Effect.fail("asked to")
            yield* Tcp.write(connection, line)
            return yield* Effect.never
          })
      )
      const to = { port: portOf(server) }
      const one = yield* connect(to)
      const other = yield* connect(to)
      yield* Tcp.write(other, "stay\n")
      yield* Tcp.readUntil(other, "\n")
      const third = yield* connect(to)
      const refused = yield* Effect.exit(Tcp.read(third))
      expect(Exit.isFailure(refused) || Option.isNone(refused.value)).toBe(true)
      expect(yield* server.stats).toEqual({ connections: 2, accepted: 2, refused: 1 })
      yield* Tcp.write(one, "fail\n")
      expect(yield* Tcp.read(one)).toEqual(Option.none())
      yield* until(() => Effect.runSync(server.stats).connections === 1)
    }).pipe(Logger.withMinimumLogLevel(LogLevel.None)))

  it.scopedLive("Tcp-5: a handler's scope closes with it, and a peer that leaves between two frames is no failure", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const logger = Logger.make(({ message }) => void log.push(`${message}`))
      const server = yield* Tcp.serve({ port: 0, host }, (connection) =>
        Effect.zipRight(
          Effect.acquireRelease(Effect.void, () => Effect.sync(() => log.push("released"))),
          Effect.forever(Tcp.readUntil(connection, "\n"))
        )).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      const ask = (bytes: string) =>
        Managed.use(
          connect({ port: portOf(server), linger: "1 second" }),
          (connection) => Tcp.write(connection, bytes)
        )
      yield* ask("one\ntwo\n")
      expect(log).toEqual(["released"])
      yield* ask("half")
      yield* until(() => log.length === 3)
      expect(log[2]).toMatch(/^The connection of .* ended with a failure/)
    }))

  it.scoped("Tcp-3: a connection lingers for the whole of `linger`, also while its server ends", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const serve = Tcp.serve({ port: 0, host, linger: "1 minute", drain: 0 }, () => Effect.void)
      const server = yield* Scope.extend(serve, scope)
      const client = net.connect({ port: portOf(server), host, allowHalfOpen: true }).resume()
      yield* Effect.promise(() => once(client, "end"))
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      for (let seconds = 0; seconds < 50; seconds += 10) {
        yield* Effect.promise(() => new Promise(setImmediate))
        yield* TestClock.adjust("10 seconds")
      }
      expect(closing.unsafePoll()).toBeNull()
      client.end()
      yield* Fiber.join(closing)
    }))

  it.scopedLive("as a layer: with a handler that needs a service, and options from the configuration", () =>
    Effect.gen(function*() {
      class Word extends Context.Tag("Word")<Word, string>() {}
      const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "hf-")), "word.sock")
      const options = { path: Config.string("SOCKET"), drain: Config.duration("DRAIN") }
      const say = (connection: Tcp.Connection) =>
        Effect.flatMap(Word, (word) => Tcp.write(connection, word))
      const layerWith = (settings: Readonly<Record<string, string>>) =>
        Tcp.layerConfig(options, say).pipe(
          Layer.provide(Layer.succeed(Word, "hello")),
          Layer.provide(
            Layer.setConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(settings))))
          )
        )
      const ask = Managed.use(
        connect({ path: file }),
        (connection) => Effect.map(Tcp.readExactly(connection, 5), text)
      )
      const said = Effect.provide(ask, layerWith({ SOCKET: file, DRAIN: "1 second" }))
      expect(yield* said).toBe("hello")
      const missing = yield* Effect.flip(Effect.provide(ask, layerWith({ SOCKET: file })))
      expect(missing).toMatchObject({ _op: "MissingData", path: ["DRAIN"] })
    }))

  it.scopedLive("Tcp-5: a client in the midst of a TLS handshake does not outlive the server", () =>
    Effect.gen(function*() {
      const isOpen = yield* Managed.use(
        Tcp.serve({ port: 0, host, tls: selfSigned }, () => Effect.never),
        (server) =>
          Effect.gen(function*() {
            const client = net.connect(portOf(server), host).on("error", () => {}).resume()
            yield* until(() => !client.connecting)
            yield* Effect.sleep(20)
            return () => !client.destroyed
          })
      )
      yield* until(() => !isOpen())
    }))

  it.scopedLive("Tcp-5: a client that leaves in the midst of a TLS handshake leaves no socket", () =>
    Effect.gen(function*() {
      const server = yield* Tcp.serve({ port: 0, host, tls: selfSigned }, () => Effect.never)
      const before = openSockets()
      const client = net.connect(portOf(server), host).resume()
      yield* until(() => openSockets() === before + 2)
      client.end()
      yield* until(() => openSockets() === before)
    }))

  it.scopedLive("half a close of TLS: the peer reads to the end and still answers", () =>
    Effect.gen(function*() {
      const server = yield* Tcp.serve(
        { port: 0, host, tls: selfSigned },
        (connection) =>
          Effect.flatMap(
            Stream.runCollect(Tcp.stream(connection)),
            (asked) => Effect.delay(Tcp.write(connection, Buffer.concat(Chunk.toArray(asked))), 10)
          )
      )
      const to = { host: "localhost", port: portOf(server), tls: { ca: selfSigned.cert } }
      const connection = yield* connect(to)
      yield* Tcp.write(connection, "12345")
      yield* Tcp.end(connection)
      const answer = yield* Stream.runCollect(Tcp.stream(connection))
      expect(text(Buffer.concat(Chunk.toArray(answer)))).toBe("12345")
    }))

  it.scopedLive("Tcp-5: the release waits for a handler under way, and interrupts one that does not end", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const log: Array<string> = []
      const began = yield* Deferred.make<void>()
      const server = yield* Scope.extend(
        Tcp.serve(
          { port: 0, host, drain: "100 millis", linger: "20 millis" },
          (connection) =>
            Effect.flatMap(Tcp.readUntil(connection, "\n"), (line) =>
              text(line) === "slow\n"
                ? Effect.zipRight(
                  Deferred.succeed(began, undefined),
                  Effect.zipRight(Effect.sleep(30), Tcp.write(connection, "answer\n"))
                )
                : Effect.onInterrupt(
                  Effect.never,
                  () => Effect.sync(() => log.push("interrupted"))
                ))
        ),
        scope
      )
      const to = { port: portOf(server) }
      const slow = yield* connect(to)
      const stuck = yield* connect(to)
      yield* Tcp.write(stuck, "stuck\n")
      yield* Tcp.write(slow, "slow\n")
      yield* Deferred.await(began)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      expect(text(yield* Tcp.readUntil(slow, "\n"))).toBe("answer\n")
      const late = yield* Effect.flip(Effect.scoped(connect(to)))
      expect(late).toMatchObject({ code: "ECONNREFUSED" })
      yield* Fiber.join(closing)
      expect(log).toEqual(["interrupted"])
    }))

  it.scopedLive("Tcp-4: an address in use says so", () =>
    Effect.gen(function*() {
      const server = yield* Tcp.serve({ port: 0, host }, echo)
      const twice = yield* Effect.flip(
        Effect.scoped(Tcp.serve({ port: portOf(server), host }, echo))
      )
      expect(twice).toMatchObject({ _tag: "TcpListenFailed", code: "EADDRINUSE" })
      expect(twice.message).toContain("Another process listens there")
      const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "hf-")), "left.sock")
      fs.writeFileSync(file, "")
      const left = yield* Effect.flip(Effect.scoped(Tcp.serve({ path: file }, echo)))
      expect(left.message).toContain("remove the file")
    }))
})
