/**
 * Http/flow: one request on its way: its deadlines, its owner, its backpressure, and the errors of undici as those of ./errors.ts.
 * ../Http.ts has the invariants.
 */
import type { Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import type { Socket } from "node:net"
import {
  BadRequest,
  ConnectFailed,
  SessionClosed,
  shown,
  Stalled,
  TransportFailed,
  Truncated
} from "./errors.ts"
import { Undici } from "./undici.ts"

export type TransportError =
  | BadRequest
  | ConnectFailed
  | SessionClosed
  | Stalled
  | TransportFailed
  | Truncated

/** The sockets of a session. */
export class Connections {
  closed = false
  /** Open and opening. */
  readonly sockets = new Set<Socket>()
  /** Sockets that give no data, because their readers are paused. */
  readonly held = new WeakSet<Socket>()
  /** The socket of the last read. undici calls a handler from inside that read. */
  reading: Socket | undefined = undefined
  /** Errors that the connector reported: the only sure sign that the connection could not be made. */
  readonly connectErrors = new WeakSet<object>()
  /** Sockets that broke, and how. */
  readonly broken = new WeakMap<Socket, Error>()
}

/** How long each wait of a request may take. */
export type Waits = Readonly<Record<Stalled["phase"], Duration.Duration>>

const timeoutPhases: Readonly<Record<string, Stalled["phase"]>> = {
  UND_ERR_CONNECT_TIMEOUT: "connect",
  UND_ERR_HEADERS_TIMEOUT: "headers",
  UND_ERR_BODY_TIMEOUT: "body"
}

/** The other side ended the body in an orderly way, but too early. */
const cutCodes: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH"
])

const isCut = (error: object, code: string): boolean =>
  cutCodes.has(code)
  // The parser failed without data: the body ended in the middle of a chunk.
  || (error instanceof Undici.errors.HTTPParserError && "data" in error && error.data === "")

const { InvalidArgumentError, NotSupportedError } = Undici.errors

const codeOf = (error: object): string => {
  if ("code" in error && typeof error.code === "string") return error.code
  return "name" in error && typeof error.name === "string" ? error.name : "UNKNOWN"
}

/** undici takes milliseconds, and 0 for "never". */
export const millis = (duration: Duration.Duration): number =>
  Duration.isFinite(duration) ? Math.max(1, Duration.toMillis(duration)) : 0

export const lengthOf = (header: string | ReadonlyArray<string> | undefined): number | undefined =>
  typeof header === "string" && /^\d+$/.test(header) ? Number(header) : undefined

/** The owner of a request ended it. */
export class Abandoned extends Error {}

/**
 * The handler between the agent and the reader. When the reader pauses, undici 7 pauses its parser; if a `connection: close`
 * arrives then, an assertion ends the process (undici #5360, fixed in 8 only). So a pause holds the socket instead of the parser.
 * undici's deadlines do not see such a pause, and count anew after each 103, so this class has its own: for the headers from
 * the request on, for the body while the reader wants more. `onFree` is called when the connection is free again.
 */
export class Flow implements Dispatcher.DispatchHandler {
  readonly inner: Dispatcher.DispatchHandler
  readonly connections: Connections
  readonly options: Dispatcher.DispatchOptions
  readonly after: Waits
  readonly hasBody: boolean
  readonly onFree: () => void
  /** Bytes of the body that have arrived. */
  received = 0
  expected: number | undefined
  free = false
  abandoned: Error | undefined
  controller: Dispatcher.DispatchController | undefined
  /** The controller that the reader gets: its pauses hold the socket. */
  controls: Dispatcher.DispatchController | undefined
  /** That of the answer. */
  socket: Socket | undefined
  /** Neither a length nor chunks say where the body ends. */
  endsByClose = false
  timer: NodeJS.Timeout | undefined

  constructor(
    inner: Dispatcher.DispatchHandler,
    connections: Connections,
    options: Dispatcher.DispatchOptions,
    after: Waits,
    onFree: () => void
  ) {
    this.inner = inner
    this.connections = connections
    this.options = options
    this.after = after
    this.hasBody = options.body !== null && options.body !== undefined
    this.onFree = onFree
  }
  /** Cuts the request unless its connection is free already. One that waits for a connection ends when it gets one. */
  abandon(reason: () => Error): void {
    if (this.free) return
    this.abandoned = reason()
    this.controller?.abort(this.abandoned)
  }
  hold(): void {
    if (this.free || this.socket === undefined) return
    this.connections.held.add(this.socket)
    this.stopTimer()
  }
  release(): void {
    const { socket } = this
    if (this.free || socket === undefined || !this.connections.held.delete(socket)) return
    this.startIdle()
    // Later: this call may come from inside the parser that it would call.
    queueMicrotask(() => socket.emit("readable"))
  }
  startTimer(after: Duration.Duration, error: new() => Error): void {
    this.stopTimer()
    const ms = millis(after)
    if (ms > 0) this.timer = setTimeout(() => this.abandon(() => new error()), ms)
  }
  startIdle(): void {
    this.startTimer(this.after.body, Undici.errors.BodyTimeoutError)
  }
  stopTimer(): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }
  freed(): void {
    this.stopTimer()
    // The next answer on this socket belongs to another request.
    if (this.socket !== undefined) this.connections.held.delete(this.socket)
    this.free = true
    this.onFree()
  }
  failureOf(cause: Error): Abandoned | TransportError {
    const { after, connections, expected, options, received } = this
    const url = shown(`${options.origin}${options.path}`)
    if (connections.closed) return new SessionClosed({ url })
    if (cause instanceof Abandoned) return cause
    if (cause instanceof InvalidArgumentError || cause instanceof NotSupportedError) {
      return new BadRequest({ url, reason: cause.message })
    }
    const code = codeOf(cause)
    const phase = timeoutPhases[code]
    if (phase !== undefined) {
      return new Stalled({ url, phase, bytes: received, after: after[phase] })
    }
    if (connections.connectErrors.has(cause)) return new ConnectFailed({ url, code, cause })
    return this.socket !== undefined && isCut(cause, code)
      ? new Truncated({ url, received, expected })
      : new TransportFailed({ url, code, received, cause })
  }
  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    if (this.abandoned !== undefined) return controller.abort(this.abandoned)
    this.controller = controller
    this.controls = {
      get aborted() {
        return controller.aborted
      },
      get paused() {
        return controller.paused
      },
      get reason() {
        return controller.reason
      },
      get rawHeaders() {
        return controller.rawHeaders ?? null
      },
      get rawTrailers() {
        return controller.rawTrailers ?? null
      },
      abort: (reason) => controller.abort(reason),
      pause: () => this.hold(),
      resume: () => this.release()
    }
    // How long a body takes to be sent is not the server's silence; undici sees that.
    if (!this.hasBody) this.startTimer(this.after.headers, Undici.errors.HeadersTimeoutError)
    this.inner.onRequestStart?.(this.controls, context)
  }
  onRequestUpgrade(...[, ...rest]: Arguments<"onRequestUpgrade">): void {
    this.stopTimer()
    this.inner.onRequestUpgrade?.(this.controls!, ...rest)
  }
  onResponseStart(...[, status, headers, message]: Arguments<"onResponseStart">): void {
    if (status < 200) {
      // No answer: the deadline for the headers goes on.
      if (this.timer === undefined) {
        this.startTimer(this.after.headers, Undici.errors.HeadersTimeoutError)
      }
      return this.inner.onResponseStart?.(this.controls!, status, headers, message)
    }
    this.socket = this.connections.reading
    this.expected = lengthOf(headers["content-length"])
    this.endsByClose = this.expected === undefined && headers["transfer-encoding"] === undefined
    this.startIdle()
    this.inner.onResponseStart?.(this.controls!, status, headers, message)
  }
  onResponseData(...[, chunk]: Arguments<"onResponseData">): void {
    this.timer?.refresh()
    this.received += chunk.length
    this.inner.onResponseData?.(this.controls!, chunk)
  }
  onResponseEnd(...[controller, trailers]: Arguments<"onResponseEnd">): void {
    const { broken } = this.connections
    const reset = this.endsByClose && this.socket !== undefined
      ? broken.get(this.socket)
      : undefined
    // undici takes a reset for the end of a body that ends with its connection.
    if (reset !== undefined) return this.onResponseError(controller, reset)
    this.freed()
    this.inner.onResponseEnd?.(this.controls!, trailers)
  }
  onResponseError(controller: Dispatcher.DispatchController | undefined, error: Error): void {
    if (this.free) return
    this.freed()
    // A request that was never sent has no controller, and its handler needs none.
    this.inner.onResponseError?.((this.controls ?? controller)!, this.failureOf(error))
  }
}

type Arguments<Event extends keyof Dispatcher.DispatchHandler> = Parameters<
  NonNullable<Dispatcher.DispatchHandler[Event]>
>
