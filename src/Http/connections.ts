/**
 * Http/connections: the agent of a session, its sockets, and the flow of bytes between them and their readers. ../Http.ts has the
 * invariants.
 *
 * @since 0.1.0
 */
import Undici, { type buildConnector, type Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Socket } from "node:net"
import * as Semaphore from "../Semaphore.ts"
import type { Stalled } from "./errors.ts"

/**
 * Options of `session`. Each duration bounds one wait; `Duration.infinity` turns one off.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionOptions {
  /** Connections to one origin. Default 6. */
  readonly perHost?: number | undefined
  /** Downloads at once over all origins, first come first served. Default: no cap. */
  readonly total?: number | undefined
  /** Default 10 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** From the request sent to the headers. Default 30 seconds. */
  readonly headersTimeout?: Duration.DurationInput | undefined
  /** How long the body may be silent while we want more. Default 30 seconds. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** A whole download, waiting included. Default: none. */
  readonly totalTimeout?: Duration.DurationInput | undefined
  /** Of a download. Default 10. */
  readonly maxRedirects?: number | undefined
  /** Default `"holdfast"`. */
  readonly userAgent?: string | undefined
}

const whole = (option: string, value: number, least: number): number => {
  if (Number.isSafeInteger(value) && value >= least) return value
  throw new RangeError(
    `Http.session: \`${option}\` has to be a whole number, ${least} or more; got ${value}.`
  )
}

const settingsOf = (options: SessionOptions) => ({
  perHost: whole("perHost", options.perHost ?? 6, 1),
  maxRedirects: whole("maxRedirects", options.maxRedirects ?? 10, 0),
  userAgent: options.userAgent ?? "holdfast",
  after: {
    connect: Duration.decode(options.connectTimeout ?? "10 seconds"),
    headers: Duration.decode(options.headersTimeout ?? "30 seconds"),
    body: Duration.decode(options.idleTimeout ?? "30 seconds"),
    total: Duration.decode(options.totalTimeout ?? Duration.infinity)
  } satisfies Record<Stalled["phase"], Duration.Duration>
})

export type Settings = ReturnType<typeof settingsOf>

/** undici takes milliseconds, and 0 for "never". */
const millis = (duration: Duration.Duration): number =>
  Duration.isFinite(duration) ? Math.max(1, Duration.toMillis(duration)) : 0

class Connections {
  /** Open and opening. */
  readonly sockets = new Set<Socket>()
  /** Sockets that give no data, because their readers are paused. */
  readonly held = new WeakSet<Socket>()
  /** The socket of the last read. undici calls a handler from inside that read. */
  reading: Socket | undefined = undefined
  /** Errors that the connector reported: the only sure sign that the connection could not be made. */
  readonly connectErrors = new WeakSet<object>()
  /** How many sockets broke, by origin. undici takes a reset for the end of a body without a length. */
  readonly broken = new Map<string, number>()
}

export interface Live {
  readonly settings: Settings
  readonly connections: Connections
  readonly agent: Dispatcher
  /** The agent behind `Flow`; every request goes through it. */
  readonly dispatcher: Dispatcher
  readonly permits: Semaphore.Semaphore | undefined
  /** The partial files being written, by absolute path. */
  readonly writing: Set<string>
  closed: boolean
}

/** Makes a socket give no data while it is held: its buffer fills, and TCP makes the server wait. */
const holdable = (connections: Connections, socket: Socket): void => {
  const read = socket.read.bind(socket)
  socket.read = (size) => {
    // 0 asks for no data: the socket may look ahead.
    if (size !== 0 && connections.held.has(socket)) return null
    connections.reading = socket
    return read(size)
  }
}

/** Records every socket from its first step, so that closing reaches those that are still connecting. */
const connector = ({ after }: Settings, connections: Connections): buildConnector.connector => {
  const { broken, connectErrors, sockets } = connections
  // It returns the socket that it starts; its type does not say so.
  const connect: (...args: Parameters<buildConnector.connector>) => unknown = Undici
    .buildConnector({ timeout: millis(after.connect) })
  return (options, callback) => {
    const socket = connect(options, (...args) => {
      if (args[0] !== null) connectErrors.add(args[0])
      callback(...args)
    })
    if (!(socket instanceof Socket)) return
    const origin = `${options.protocol}//${options.host ?? options.hostname}`
    holdable(connections, socket)
    sockets.add(socket)
    socket.once("error", (error) => {
      // Errors of the operating system alone: undici ends sockets with errors of its own.
      if ("syscall" in error) broken.set(origin, (broken.get(origin) ?? 0) + 1)
    })
    socket.once("close", () => sockets.delete(socket))
  }
}

export const open = (options: SessionOptions): Live => {
  const settings = settingsOf(options)
  const connections = new Connections()
  const agent = new Undici.Agent({
    connections: settings.perHost,
    connect: connector(settings, connections)
  })
  const dispatcher = flowing(agent, connections, settings)
  const permits = options.total === undefined
    ? undefined
    : Semaphore.unsafeMake(whole("total", options.total, 1), { name: "http downloads" })
  return { settings, connections, agent, dispatcher, permits, writing: new Set(), closed: false }
}

export const close = (live: Live): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    live.closed = true
    const destroyed = live.agent.destroy()
    // The agent forgets sockets that are still connecting.
    const closed = Array.from(live.connections.sockets, (socket) => {
      socket.destroy(new Error("The HTTP session has closed."))
      return socket.closed || new Promise((resolve) => socket.once("close", resolve))
    })
    return Effect.promise(() => Promise.all([destroyed, ...closed]))
  })

/**
 * The handler between the agent and the reader. When the reader pauses, undici 7 pauses its parser; if a `connection: close`
 * arrives then, an assertion ends the process (undici #5360, fixed in 8 only). So a pause holds the socket instead of the parser.
 * undici's idle deadline does not see such a pause, so this class has its own: it counts silence only while the reader wants
 * more. `onFree` is called when the connection is free again.
 */
export class Flow implements Dispatcher.DispatchHandler {
  readonly inner: Dispatcher.DispatchHandler
  readonly connections: Connections
  readonly idleMillis: number
  readonly onFree: () => void
  free = false
  controller: Dispatcher.DispatchController | undefined
  socket: Socket | undefined
  idle: NodeJS.Timeout | undefined

  constructor(
    inner: Dispatcher.DispatchHandler,
    connections: Connections,
    idle: number,
    onFree: () => void
  ) {
    this.inner = inner
    this.connections = connections
    this.idleMillis = idle
    this.onFree = onFree
  }
  /** Cuts the request unless its connection is free already. */
  abandon(reason: Error): void {
    if (!this.free) this.controller?.abort(reason)
  }
  hold(): void {
    if (this.free || this.socket === undefined) return
    this.connections.held.add(this.socket)
    this.stopIdle()
  }
  release(): void {
    const { socket } = this
    if (this.free || socket === undefined || !this.connections.held.delete(socket)) return
    this.startIdle()
    // Later: this call may come from inside the parser that it would call.
    queueMicrotask(() => socket.emit("readable"))
  }
  startIdle(): void {
    this.stopIdle()
    if (this.idleMillis === 0) return
    const abandon = () => this.abandon(new Undici.errors.BodyTimeoutError())
    this.idle = setTimeout(abandon, this.idleMillis)
  }
  stopIdle(): void {
    clearTimeout(this.idle)
    this.idle = undefined
  }
  freed(): void {
    this.stopIdle()
    // The next answer on this socket belongs to another request.
    if (this.socket !== undefined) this.connections.held.delete(this.socket)
    this.free = true
    this.onFree()
  }
  /** The controller that the reader gets: its pauses hold the socket. */
  controls(controller: Dispatcher.DispatchController): Dispatcher.DispatchController {
    return {
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
  }
  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    this.controller = controller
    this.inner.onRequestStart?.(this.controls(controller), context)
  }
  onRequestUpgrade(...[controller, ...rest]: Arguments<"onRequestUpgrade">): void {
    this.inner.onRequestUpgrade?.(this.controls(controller), ...rest)
  }
  onResponseStart(...[controller, ...rest]: Arguments<"onResponseStart">): void {
    this.socket = this.connections.reading
    this.startIdle()
    this.inner.onResponseStart?.(this.controls(controller), ...rest)
  }
  onResponseData(...[controller, chunk]: Arguments<"onResponseData">): void {
    this.idle?.refresh()
    this.inner.onResponseData?.(this.controls(controller), chunk)
  }
  onResponseEnd(...[controller, trailers]: Arguments<"onResponseEnd">): void {
    this.freed()
    this.inner.onResponseEnd?.(this.controls(controller), trailers)
  }
  onResponseError(...[controller, error]: Arguments<"onResponseError">): void {
    this.freed()
    this.inner.onResponseError?.(this.controls(controller), error)
  }
}

type Arguments<Event extends keyof Dispatcher.DispatchHandler> = Parameters<
  NonNullable<Dispatcher.DispatchHandler[Event]>
>

interface Tied extends Dispatcher.DispatchOptions {
  readonly onFlow?: ((flow: Flow) => void) | undefined
  readonly onFree?: (() => void) | undefined
}

const flowing = (agent: Dispatcher, connections: Connections, { after }: Settings): Dispatcher =>
  agent.compose((dispatch) => ({ onFlow, onFree, ...options }: Tied, handler) => {
    const flow = new Flow(handler, connections, millis(after.body), onFree ?? (() => {}))
    onFlow?.(flow)
    // Set per request, because the platform's client turns off the options of the agent.
    const timeouts = { headersTimeout: millis(after.headers), bodyTimeout: 0 }
    return dispatch({ ...options, ...timeouts }, flow)
  })
