/**
 * Http/connections: the agent of a session and its sockets. ../Http.ts has the invariants.
 *
 * @since 0.1.0
 */
import type { buildConnector, Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as GlobalValue from "effect/GlobalValue"
import { Socket } from "node:net"
import type { SecureContextOptions } from "node:tls"
import * as RateLimiter from "../RateLimiter.ts"
import * as Semaphore from "../Semaphore.ts"
import { Connections, Flow, millis, type Waits } from "./flow.ts"
import { Undici } from "./undici.ts"

/**
 * The bounds of a session, and of the requests in `withBounds`. Each duration bounds one wait; `Duration.infinity` turns one off.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounds {
  /** From the request sent to the headers of its answer. Default 30 seconds. */
  readonly headersTimeout?: Duration.DurationInput | undefined
  /** How long the body may be silent while we want more. Default 30 seconds. */
  readonly idleTimeout?: Duration.DurationInput | undefined
  /** A whole download, waiting included. Default: none. */
  readonly totalTimeout?: Duration.DurationInput | undefined
  /** Of a download. Default 10. */
  readonly maxRedirects?: number | undefined
}

/**
 * Options of `session`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionOptions extends Bounds {
  /** Connections to one origin. Default 6. */
  readonly perHost?: number | undefined
  /** Downloads at once over all origins, first come first served. Default: no cap. */
  readonly total?: number | undefined
  /** Requests to one host in a time, redirects included; more wait their turn. Default: no limit. */
  readonly hostRate?: RateLimiter.Options | undefined
  /** Each step of making a connection. It serves many requests, so it has one bound. Default 10 seconds. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** Certificates that are trusted (`ca`), those that the client shows (`cert`, `key`), and all else that TLS has. */
  readonly tls?: Tls | undefined
  /** Default `"holdfast"`. */
  readonly userAgent?: string | undefined
}

/**
 * Options of TLS, as those of `node:tls`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tls extends SecureContextOptions {
  /** The name that the certificate has to have. Default: the host. */
  readonly servername?: string | undefined
  /** `false` trusts any certificate. Default `true`. */
  readonly rejectUnauthorized?: boolean | undefined
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
  } satisfies Waits
})

export type Settings = ReturnType<typeof settingsOf>

/** What `withBounds` sets. */
export const bounds: FiberRef.FiberRef<Bounds> = GlobalValue.globalValue(
  "holdfast/Http/bounds",
  () => FiberRef.unsafeMake<Bounds>({})
)

/** The settings for a request of this fiber. */
export const settingsFor = ({ settings }: Live): Effect.Effect<Settings> =>
  Effect.map(FiberRef.get(bounds), (own) => {
    const { headersTimeout, idleTimeout, maxRedirects, totalTimeout } = own
    const { after } = settings
    const either = (given: Duration.DurationInput | undefined, other: Duration.Duration) =>
      given === undefined ? other : Duration.decode(given)
    if (Object.keys(own).length === 0) return settings
    return {
      ...settings,
      maxRedirects: whole("maxRedirects", maxRedirects ?? settings.maxRedirects, 0),
      after: {
        connect: after.connect,
        headers: either(headersTimeout, after.headers),
        body: either(idleTimeout, after.body),
        total: either(totalTimeout, after.total)
      }
    }
  })

/** Runs a request when the rate of its host allows it. */
export const atRate = <A, E, R>(
  { rate }: Live,
  host: string,
  request: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  rate === undefined ? request : RateLimiter.withLimitKey(request, rate, host)

export interface Live {
  readonly settings: Settings
  readonly connections: Connections
  readonly agent: Dispatcher
  readonly permits: Semaphore.Semaphore | undefined
  readonly rate: RateLimiter.KeyedRateLimiter<string> | undefined
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
const connector = (
  { after }: Settings,
  tls: Tls | undefined,
  connections: Connections
): buildConnector.connector => {
  const { broken, connectErrors, sockets } = connections
  // It returns the socket that it starts; its type does not say so.
  const connect: (...args: Parameters<buildConnector.connector>) => unknown = Undici
    .buildConnector({ ...tls, timeout: millis(after.connect) })
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

export const open = (
  options: SessionOptions,
  rate: RateLimiter.KeyedRateLimiter<string> | undefined
): Live => {
  const settings = settingsOf(options)
  const connections = new Connections()
  const agent = new Undici.Agent({
    connections: settings.perHost,
    connect: connector(settings, options.tls, connections)
  })
  const permits = options.total === undefined
    ? undefined
    : Semaphore.unsafeMake(whole("total", options.total, 1), { name: "http downloads" })
  return { settings, connections, agent, permits, rate, downloads: 0 }
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

/** Sends a request, with the deadlines of `after`. `onFlow` gets its flow before anything can happen to it. */
export const start = (
  live: Live,
  options: Dispatcher.DispatchOptions,
  handler: Dispatcher.DispatchHandler,
  after: Waits = live.settings.after,
  onFlow?: (flow: Flow) => void,
  onFree: () => void = () => {}
): boolean => {
  const flow = new Flow(handler, live.connections, options, after, onFree)
  onFlow?.(flow)
  if (flow.abandoned !== undefined) {
    flow.onResponseError(undefined, flow.abandoned)
    return true
  }
  // Set per request, because the platform's client turns off the options of the agent.
  const timeouts = { headersTimeout: flow.hasBody ? millis(after.headers) : 0, bodyTimeout: 0 }
  return live.agent.dispatch({ ...options, ...timeouts }, flow)
}

interface Tied extends Dispatcher.DispatchOptions {
  readonly after?: Waits | undefined
  readonly onFlow?: ((flow: Flow) => void) | undefined
  readonly onFree?: (() => void) | undefined
}

/** The agent as a dispatcher whose every request goes through a `Flow`. */
export const dispatcherOf = (live: Live): Dispatcher =>
  live.agent.compose(() => ({ after, onFlow, onFree, ...options }: Tied, handler) =>
    start(live, options, handler, after, onFlow, onFree)
  )
