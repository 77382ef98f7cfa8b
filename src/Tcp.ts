/**
 * Tcp: connections and servers whose sockets are closed in time, read by pulling.
 *
 * DESIGN. Over `node:net` and `node:tls`, which connect well: several addresses of a host are tried side by side (happy eyeballs).
 * This module adds an owner, reads with backpressure, writes that wait, bounds, and a drain. `connect` and `serve` give a
 * `Managed`: yield it in a scope, give it to `Managed.use`, or make it a layer. Tcp/connection.ts has one socket, Tcp/listener.ts the
 * server, Tcp/options.ts the checks.
 *
 * INVARIANTS
 * - Tcp-1 (T1) Each byte that came before the peer's end, or before a reset that a read finds, is read, in order, by one reader.
 *   An interrupted or late read loses none. Bytes that no read has asked for stay in the buffers of the kernel and of Node.
 * - Tcp-2 Writes are sent whole and in turn. A write returns when the kernel has taken its bytes; an interrupted one is sent
 *   all the same, before the next.
 * - Tcp-3 (T2, L1, L4) When a connection is released its socket is closed: in order after what was written, within `linger`; at once
 *   by interruption. If bytes were left to send, TCP resets it; TLS and Unix sockets can only end.
 * - Tcp-4 (T3, L8) Each failure is typed, with the operating system's code; after the release every operation fails with `TcpClosed`.
 * - Tcp-5 (L3) A server ends after its last handler: it accepts no more, waits for `drain`, interrupts the handlers that are left, and
 *   leaves no socket open. The failure of a handler ends its connection alone.
 *
 * COST (2026-11) see bench/RESULTS.md, "TCP echo".
 * NOT DONE UDP. STARTTLS. `@effect/platform`'s `Socket`: its reader pushes, and interrupts the handler of the last bytes. Node's own limits:
 * after a write has found a reset, bytes still in the kernel are lost; an end without TLS's `close_notify` looks like any other.
 * SOURCES Trio's `SocketStream` (pull), Go's `net.Conn` (linger), nginx (`lingering_close`).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { dual } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Managed from "./Managed.ts"
import * as Mutex from "./Mutex.ts"
import * as Nursery from "./Nursery.ts"
import {
  type Bounds,
  Connection as Socket,
  TypeId as SocketTypeId,
  within
} from "./Tcp/connection.ts"
import {
  codeOf,
  type TcpClosed,
  TcpConnectFailed,
  type TcpConnectionLost,
  type TcpListenFailed,
  type TcpTimeout,
  type TcpTooLong,
  TcpTruncated
} from "./Tcp/errors.ts"
import * as Listener from "./Tcp/listener.ts"
import { addressOf, connectRules, hostAndPort, serveRules } from "./Tcp/options.ts"

export {
  TcpClosed,
  TcpConnectFailed,
  TcpConnectionLost,
  TcpListenFailed,
  TcpTimeout,
  TcpTooLong,
  TcpTruncated
} from "./Tcp/errors.ts"

/**
 * Identifies a `Connection`.
 *
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: typeof SocketTypeId = SocketTypeId

/**
 * An open connection. Its owner closes it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection extends Pipeable, Inspectable.Inspectable {
  readonly [SocketTypeId]: typeof SocketTypeId
  /** Of the peer: `host:port`, or the path of a Unix socket. */
  readonly address: string
}

/**
 * The bounds of a connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionOptions {
  /** How long a read may wait for the next bytes, however few. Default no bound. */
  readonly readTimeout?: Duration.DurationInput | undefined
  /** How long one write may take until the kernel has its bytes. Default no bound. */
  readonly writeTimeout?: Duration.DurationInput | undefined
  /** How long the release waits until everything is sent and the peer has ended its side. Default 1 second. */
  readonly linger?: Duration.DurationInput | undefined
}

/**
 * Where to connect.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectOptions extends ConnectionOptions {
  /** Default `"localhost"`. */
  readonly host?: string | undefined
  /** Either this or `path`. */
  readonly port?: number | undefined
  /** A Unix socket. */
  readonly path?: string | undefined
  /** `true` checks the certificate and the name of the host; or options of Node's `tls.connect`, such as `ca`. Default no TLS. */
  readonly tls?: boolean | Tls.ConnectionOptions | undefined
  /** How long the lookup of the name, the connection and the TLS handshake may take together. Default 10 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
}

/**
 * Where to listen, and the bounds of the server and of its connections.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServeOptions extends ConnectionOptions {
  /** Default `"localhost"`. */
  readonly host?: string | undefined
  /** 0 for any free one. Either this or `path`. */
  readonly port?: number | undefined
  /** A Unix socket. */
  readonly path?: string | undefined
  /** How many connections may wait to be accepted. Default 511. */
  readonly backlog?: number | undefined
  /** Options of Node's `tls.createServer`: `key` and `cert` at least. Default no TLS. */
  readonly tls?: Tls.TlsOptions | undefined
  /** Further connections are closed at once. Default no bound. */
  readonly maxConnections?: number | undefined
  /** How long the release waits for the handlers before it interrupts them. Default 5 seconds. */
  readonly drain?: Duration.DurationInput | undefined
}

/**
 * A server that listens.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  /** Where it listens; the path of a Unix socket. */
  readonly address: Net.AddressInfo | string
  /** Exact counters. */
  readonly stats: Effect.Effect<ServerStats>
}

/**
 * The counters of a server: open connections, all that were accepted, and those that `maxConnections` refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerStats {
  readonly connections: number
  readonly accepted: number
  readonly refused: number
}

/**
 * What reading and writing can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type TcpError = TcpConnectionLost | TcpClosed | TcpTimeout

// Every connection is made here.
const socketOf = (self: Connection): Socket => self as Socket

const optional = (duration: Duration.DurationInput | undefined): Duration.Duration | undefined =>
  duration === undefined ? undefined : Duration.decode(duration)

const boundsOf = (options: ConnectionOptions): Bounds => ({
  readTimeout: optional(options.readTimeout),
  writeTimeout: optional(options.writeTimeout),
  linger: Duration.decode(options.linger ?? "1 second")
})

/** After `linger` it is cut; a little more, for the socket to close. */
const releaseDeadlineOf = ({ linger }: Bounds): Duration.Duration =>
  Duration.sum(linger, "1 second")

const managed = <E>(
  kind: string,
  address: string,
  bounds: Bounds,
  acquire: (restore: Managed.Restore) => Effect.Effect<Connection, E>
): Managed.Managed<Connection, E> =>
  Managed.make({
    name: address,
    kind,
    releaseDeadline: releaseDeadlineOf(bounds),
    acquire,
    release: (connection: Connection, _, { kind }) =>
      socketOf(connection).release(kind === "interrupt" || kind === "shutdown")
  })

// Connecting.

const openSocket = ({ host = "localhost", path, port, tls }: ConnectOptions): Net.Socket => {
  const to = path === undefined ? { host, port: port! } : { path }
  const common = { ...to, allowHalfOpen: true, noDelay: true }
  if (tls === undefined || tls === false) return Net.connect(common)
  // A name for SNI; an address is none.
  const servername = Net.isIP(host) === 0 ? { servername: host } : {}
  return Tls.connect({ ...servername, ...tls === true ? {} : tls, ...common })
}

/** The listeners are set in the step that opens the socket: an event may come before anyone waits for it. */
const connecting = (
  socket: Net.Socket,
  event: "connect" | "secureConnect",
  address: string
): Deferred.Deferred<void, TcpConnectFailed> => {
  const opened = Deferred.unsafeMake<void, TcpConnectFailed>(FiberId.none)
  const fail = (cause: unknown) =>
    Deferred.unsafeDone(
      opened,
      Exit.fail(new TcpConnectFailed({ address, code: codeOf(cause), cause }))
    )
  // It stays: Node reports an attempt that was given up as an error.
  socket.on("error", fail)
  socket.once("close", () => fail({ code: "ECONNABORTED" }))
  socket.once(event, () => Deferred.unsafeDone(opened, Exit.void))
  return opened
}

/**
 * A connection to a server.
 *
 * **Interruption** — Opening: the attempt is cut. Holding: closed at once; bytes that were not sent are dropped.
 * **Errors** — `TcpConnectFailed`; `TcpTimeout` after `connectTimeout`. Throws a `RangeError` for an option that cannot be; TLS options
 *   that Node refuses are a defect.
 * **Cost** — That of Node's socket and of a `Managed`. The release takes up to `linger` if the peer does not end its side.
 *
 * **Example** (a line there, a line back)
 * ```ts run
 * import { Effect, Stream } from "effect"
 * import { Managed } from "holdfast"
 * import * as Tcp from "holdfast/Tcp"
 * import type { AddressInfo } from "node:net"
 *
 * const echo = Tcp.serve({ port: 0 }, (connection) =>
 *   Stream.runForEach(Tcp.stream(connection), (bytes) => Tcp.write(connection, bytes)))
 * const ask = ({ address }: Tcp.Server) =>
 *   Managed.use(Tcp.connect({ port: (address as AddressInfo).port }), (connection) =>
 *     Effect.zipRight(Tcp.write(connection, "hello\n"), Tcp.readUntil(connection, "\n")))
 * const answer = await Effect.runPromise(Managed.use(echo, ask))
 * new TextDecoder().decode(answer) // => "hello\n"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = (
  options: ConnectOptions
): Managed.Managed<Connection, TcpConnectFailed | TcpTimeout> => {
  const address = addressOf("Tcp.connect", options, connectRules)
  const bounds = boundsOf(options)
  const after = Duration.decode(options.connectTimeout ?? "10 seconds")
  const event = options.tls === undefined || options.tls === false ? "connect" : "secureConnect"
  return managed("tcp connection", address, bounds, (restore) =>
    Effect.suspend(() => {
      const socket = openSocket(options)
      const opened = within(Deferred.await(connecting(socket, event, address)), after, {
        operation: "connect",
        address
      })
      return Effect.onError(
        Effect.map(restore(opened), () => new Socket(socket, address, bounds)),
        () => Effect.sync(() => socket.destroy())
      )
    }))
}

// Serving.

/** The peer has ended its side where a frame would begin. That is no failure. */
const hasLeft = (cause: Cause.Cause<unknown>, address: string): boolean =>
  cause._tag === "Fail"
  && cause.error instanceof TcpTruncated
  && cause.error.address === address
  && cause.error.partial.length === 0

/**
 * A server that runs `handler` for each connection, in a fiber of its own. The connection is released when its handler has ended.
 *
 * **Details** — Each handler has a scope of its own, which closes before the connection. It may read and write at the same time; bytes
 *   are read only as it asks for them. A handler that fails is logged as a warning, and its connection is closed. `TcpTruncated` with
 *   an empty `partial` is not logged: the peer has ended its side between two frames.
 * **Interruption** — Holding: the release accepts no more connections, waits for the handlers up to `drain`, and interrupts them. A
 *   handler that waits for its next request takes all of `drain`.
 * **Errors** — `TcpListenFailed`. Throws a `RangeError` for an option that cannot be; TLS options that Node refuses are a defect.
 * **Cost** — Two forks per connection.
 *
 * **Example** (a line protocol: the end of the client ends the loop, the end of the bracket ends the server)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 * import * as Tcp from "holdfast/Tcp"
 * import type { AddressInfo } from "node:net"
 *
 * const answer = (connection: Tcp.Connection) => (line: Uint8Array) =>
 *   Tcp.write(connection, new TextDecoder().decode(line).toUpperCase())
 * const server = Tcp.serve({ port: 0, drain: "1 second" }, (connection) =>
 *   Tcp.readUntil(connection, "\n").pipe(Effect.flatMap(answer(connection)), Effect.forever))
 * const program = Managed.use(server, ({ address }) =>
 *   Managed.use(Tcp.connect({ port: (address as AddressInfo).port }), (connection) =>
 *     Effect.zipRight(Tcp.write(connection, "a\nb\n"), Tcp.readExactly(connection, 4))))
 * new TextDecoder().decode(await Effect.runPromise(program)) // => "A\nB\n"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const serve = <A, E, R>(
  options: ServeOptions,
  handler: (connection: Connection) => Effect.Effect<A, E, R>
): Managed.Managed<Server, TcpListenFailed, Exclude<R, Scope.Scope>> => {
  const name = addressOf("Tcp.serve", options, serveRules)
  const { backlog, host = "localhost", maxConnections, path, port, tls } = options
  const bounds = boundsOf(options)
  const drain = Duration.decode(options.drain ?? "5 seconds")
  const listen = {
    ...path === undefined ? { host, port } : { path },
    ...backlog === undefined ? {} : { backlog }
  }
  const handle = (socket: Net.Socket) => {
    const { remoteAddress, remotePort } = socket
    const address = remoteAddress === undefined ? name : hostAndPort(remoteAddress, remotePort)
    const connection = new Socket(socket, address, bounds)
    const handled = Managed.use(
      managed("tcp connection", address, bounds, () => Effect.succeed(connection)),
      // The runtime of the server has the scope of the server, which ends much later.
      (connection) => Nursery.scoped(handler(connection))
    )
    return Effect.catchAllCause(
      Effect.asVoid(handled),
      (cause) =>
        Cause.isInterruptedOnly(cause) || hasLeft(cause, address)
          ? Effect.void
          : Effect.logWarning(`The connection of ${address} to ${name} ended with a failure`, cause)
    )
  }
  const releaseDeadline = releaseDeadlineOf(bounds)
  return Managed.fromScoped(
    { name, kind: "tcp server", releaseDeadline: Duration.sum(drain, releaseDeadline) },
    Listener.open({ listen, name, tls, maxConnections, drain, releaseDeadline }, handle)
  )
}

/**
 * A server that listens as long as the layer lives. For its address and its counters, give `serve` to `Managed.layer`, with a tag.
 *
 * **Interruption**, **Errors**, **Cost** — As `serve`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <A, E, R>(
  options: ServeOptions,
  handler: (connection: Connection) => Effect.Effect<A, E, R>
): Layer.Layer<never, TcpListenFailed, Exclude<R, Scope.Scope>> =>
  // The scope that a Managed asks for is the layer's own.
  Layer.scopedDiscard(serve(options, handler)) as Layer.Layer<
    never,
    TcpListenFailed,
    Exclude<R, Scope.Scope>
  >

/**
 * `layer`, with the options from the configuration.
 *
 * **Errors** — and `ConfigError`. **Interruption**, **Cost** — As `serve`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <A, E, R>(
  options: Config.Config.Wrap<ServeOptions>,
  handler: (connection: Connection) => Effect.Effect<A, E, R>
): Layer.Layer<
  never,
  ConfigError.ConfigError | TcpListenFailed,
  Exclude<R, Scope.Scope>
> => Layer.unwrapEffect(Effect.map(Config.unwrap(options), (options) => layer(options, handler)))

// Reading.

/**
 * The bytes that have come, at least one; none after the peer has ended its side.
 *
 * **Interruption** — Waiting: no byte is lost. **Errors** — `TcpConnectionLost` after the last byte that came, `TcpTimeout` after
 *   `readTimeout`, `TcpClosed`. **Cost** — About 1 µs, and what Node takes for the bytes.
 *
 * @category operations
 * @since 0.1.0
 */
export const read = (self: Connection): Effect.Effect<Option.Option<Uint8Array>, TcpError> => {
  const socket = socketOf(self)
  return Mutex.withLock(socket.pull, socket.reading)
}

/**
 * Exactly `count` bytes. They are held in memory: bound a count that the peer sends.
 *
 * **Interruption** — Waiting: no byte is lost. **Errors** — As `read`, and `TcpTruncated` if the peer ends its side before.
 *
 * @category operations
 * @since 0.1.0
 */
export const readExactly: {
  (count: number): (self: Connection) => Effect.Effect<Uint8Array, TcpError | TcpTruncated>
  (self: Connection, count: number): Effect.Effect<Uint8Array, TcpError | TcpTruncated>
} = dual(
  2,
  (self: Connection, count: number): Effect.Effect<Uint8Array, TcpError | TcpTruncated> => {
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new RangeError(
        `Tcp.readExactly: \`count\` has to be a whole number, 0 or more; got ${count}.`
      )
    }
    const socket = socketOf(self)
    return Mutex.withLock(socket.readExactly(count), socket.reading)
  }
)

/**
 * The bytes up to a delimiter, which is included. `maxBytes` is 65,536 unless given.
 *
 * **Interruption** — Waiting: no byte is lost. **Errors** — As `read`; `TcpTruncated` if the peer ends its side before the delimiter;
 *   `TcpTooLong` if it is not within the first `maxBytes`, which stay unread. At the end of the last line, `partial` of
 *   `TcpTruncated` is empty.
 *
 * @category operations
 * @since 0.1.0
 */
export const readUntil: {
  (
    delimiter: string | Uint8Array,
    options?: { readonly maxBytes?: number | undefined }
  ): (self: Connection) => Effect.Effect<Uint8Array, TcpError | TcpTruncated | TcpTooLong>
  (
    self: Connection,
    delimiter: string | Uint8Array,
    options?: { readonly maxBytes?: number | undefined }
  ): Effect.Effect<Uint8Array, TcpError | TcpTruncated | TcpTooLong>
} = dual(
  (args) => isConnection(args[0]),
  (
    self: Connection,
    delimiter: string | Uint8Array,
    { maxBytes = 65_536 }: { readonly maxBytes?: number | undefined } = {}
  ): Effect.Effect<Uint8Array, TcpError | TcpTruncated | TcpTooLong> => {
    if (delimiter.length === 0) throw new RangeError("Tcp.readUntil: the delimiter is empty.")
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) {
      throw new RangeError(
        `Tcp.readUntil: \`maxBytes\` has to be a whole number, 1 or more; got ${maxBytes}.`
      )
    }
    const socket = socketOf(self)
    return Mutex.withLock(socket.readUntil(Buffer.from(delimiter), maxBytes), socket.reading)
  }
)

/**
 * All bytes until the peer ends its side, as they come. The peer is slowed down to the speed of the consumer.
 *
 * **Interruption**, **Errors** — As `read`.
 *
 * @category operations
 * @since 0.1.0
 */
export const stream = (self: Connection): Stream.Stream<Uint8Array, TcpError> =>
  Stream.repeatEffectOption(
    Effect.flatMap(
      Effect.mapError(read(self), Option.some),
      Option.match({ onNone: () => Effect.fail(Option.none()), onSome: Effect.succeed })
    )
  )

/**
 * Whether a value is a `Connection`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isConnection = (value: unknown): value is Connection => value instanceof Socket

// Writing.

/**
 * Sends bytes, or a string in UTF-8, and returns when the kernel has taken them all. Do not change the array before.
 *
 * **Interruption** — Waiting for other writers, or for their bytes: nothing is sent. Later: the bytes are sent all the same, before
 *   those of the next writer. **Errors** — `TcpConnectionLost`, `TcpTimeout` after `writeTimeout` (as an interrupt), `TcpClosed`, also
 *   after `end`.
 *
 * @category operations
 * @since 0.1.0
 */
export const write: {
  (bytes: Uint8Array | string): (self: Connection) => Effect.Effect<void, TcpError>
  (self: Connection, bytes: Uint8Array | string): Effect.Effect<void, TcpError>
} = dual(
  2,
  (self: Connection, bytes: Uint8Array | string): Effect.Effect<void, TcpError> =>
    socketOf(self).write(bytes)
)

/**
 * Ends this side after everything that was written: the peer reads to its end. Reading goes on. A second `end` does nothing.
 *
 * **Interruption**, **Errors** — As `write`.
 *
 * @category operations
 * @since 0.1.0
 */
export const end = (self: Connection): Effect.Effect<void, TcpError> => socketOf(self).end()

/**
 * Cuts the connection at once: over TCP the peer sees a reset; over TLS and Unix sockets, an end. Operations here fail with
 * `TcpConnectionLost`, a read after it has given the bytes that had come.
 *
 * @category operations
 * @since 0.1.0
 */
export const abort = (self: Connection): Effect.Effect<void> =>
  Effect.sync(() => socketOf(self).abort())
