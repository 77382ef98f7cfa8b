/**
 * Http/connections: the agent of a session and its sockets. ../Http.ts has the invariants.
 *
 * @since 0.1.0
 */
import type { buildConnector, Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Socket } from "node:net"
import * as Semaphore from "../Semaphore.ts"
import { shown } from "./errors.ts"
import { type Bounds, Connections, Flow, millis } from "./flow.ts"
import { Undici } from "./undici.ts"

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
  } satisfies Bounds
})

export type Settings = ReturnType<typeof settingsOf>

export interface Live {
  readonly settings: Settings
  readonly connections: Connections
  readonly agent: Dispatcher
  readonly permits: Semaphore.Semaphore | undefined
  /** How many have begun and not ended. */
  downloads: number
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
    holdable(connections, socket)
    sockets.add(socket)
    socket.once("error", (error) => {
      // Errors of the operating system alone: undici ends sockets with errors of its own.
      if ("syscall" in error) broken.set(socket, error)
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
  const permits = options.total === undefined
    ? undefined
    : Semaphore.unsafeMake(whole("total", options.total, 1), { name: "http downloads" })
  return { settings, connections, agent, permits, downloads: 0 }
}

export const close = (live: Live): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    live.connections.closed = true
    const destroyed = live.agent.destroy()
    // The agent forgets sockets that are still connecting.
    const closed = Array.from(live.connections.sockets, (socket) => {
      socket.destroy(new Error("The HTTP session has closed."))
      return socket.closed || new Promise((resolve) => socket.once("close", resolve))
    })
    return Effect.promise(() => Promise.all([destroyed, ...closed]))
  })

/** Sends a request. `onFlow` gets its flow before anything can happen to it. */
export const start = (
  live: Live,
  options: Dispatcher.DispatchOptions,
  handler: Dispatcher.DispatchHandler,
  onFlow?: (flow: Flow) => void,
  onFree: () => void = () => {}
): boolean => {
  const { after } = live.settings
  const hasBody = options.body !== null && options.body !== undefined
  const url = shown(`${options.origin}${options.path}`)
  const flow = new Flow(handler, live.connections, url, after, hasBody, onFree)
  onFlow?.(flow)
  if (flow.abandoned !== undefined) {
    flow.onResponseError(undefined, flow.abandoned)
    return true
  }
  // Set per request, because the platform's client turns off the options of the agent.
  const timeouts = { headersTimeout: hasBody ? millis(after.headers) : 0, bodyTimeout: 0 }
  return live.agent.dispatch({ ...options, ...timeouts }, flow)
}

interface Tied extends Dispatcher.DispatchOptions {
  readonly onFlow?: ((flow: Flow) => void) | undefined
  readonly onFree?: (() => void) | undefined
}

/** The agent as a dispatcher whose every request goes through a `Flow`. */
export const dispatcherOf = (live: Live): Dispatcher =>
  live.agent.compose(() => ({ onFlow, onFree, ...options }: Tied, handler) =>
    start(live, options, handler, onFlow, onFree)
  )
