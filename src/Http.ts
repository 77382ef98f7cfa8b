/**
 * Http: a client whose sockets have an owner, and downloads that are whole or not at all.
 *
 * DESIGN. A session is one undici `Agent` owned by a scope. Whoever uses `@effect/platform`'s `HttpClient` inside gets that
 * agent with deadlines that fire; the stock layers turn them off. `download` talks to the agent itself, because a platform
 * error no longer tells a refused connection from a cut body. The body goes into a `Files.draft`, so what is at the
 * destination is the old file or the whole new one. Retrying is the caller's: `Effect.retry(retryPolicy())`.
 *
 * INVARIANTS
 * - Http-1 (H1) When the layer has closed, every socket is closed and every request in flight has failed.
 * - Http-2 (H1) A body nobody read is let go when the scope its request ran in ends, not when the garbage collector comes.
 * - Http-3 (H2) Every wait has a deadline: connect, headers, silence in the body. Each is a `Stalled` that says which.
 * - Http-4 (H3) After `download`, however it ended, the destination is untouched or complete, and the partial file is gone.
 * - Http-5 (H4) Never more than `perHost` connections to one origin, nor more than `total` downloads at once.
 *
 * COST (2026-11, loopback, 2 cores) about 3.5 ms a small download, nearly all of it calls to the file system; 300 MB/s a
 *   large one, hashed; one chunk (up to 64 KiB) in memory each.
 * NOT DONE: resuming with Range; proxies; HTTP/2; `total` counts downloads, not the `HttpClient`'s requests; a body without
 *   length or chunks ends where the server closes, so it cannot be told from a cut one (give `expectedSha256`); two
 *   processes must not share a partial path (within a session it is refused).
 * SOURCES undici #1139, #4364 (unread bodies hold connections), #5360 (its backpressure may end the process: see `Flow`);
 *   huggingface_hub #4060, httrack #428 (short answers taken for success); httpx #1461 (cancelled requests eat the pool).
 *
 * @since 0.1.0
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import Undici, { type buildConnector, type Dispatcher } from "@effect/platform-node/Undici"
import type * as FileSystem from "@effect/platform/FileSystem"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleInterval from "effect/ScheduleInterval"
import * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import { Socket } from "node:net"
import * as Path from "node:path"
import * as Files from "./Files.ts"
import * as Ledger from "./Ledger.ts"
import { printable } from "./Ledger/words.ts"
import * as Managed from "./Managed.ts"
import * as Semaphore from "./Semaphore.ts"

// ------------------------------------------------------------------------------------------ errors

/**
 * The server answered with something else than the file. `retryAfter` is what it asked for, if it did.
 *
 * @category errors
 * @since 0.1.0
 */
export class HttpStatus extends Data.TaggedError("HttpStatus")<{
  readonly url: string
  readonly status: number
  readonly retryAfter?: Duration.Duration | undefined
}> {
  override get message(): string {
    const wait = this.retryAfter === undefined
      ? ""
      : ` It asks to wait ${Duration.format(this.retryAfter)}.`
    return `${this.url} answered ${this.status}.${wait}`
      + (isRetryable(this) ? " It may pass: retry later." : " Retrying will not help.")
  }
}

/**
 * No connection could be made: refused, no such host, no route, a certificate that does not hold.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectFailed extends Data.TaggedError("ConnectFailed")<{
  readonly url: string
  readonly code: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `Could not connect to ${this.url}: ${this.code}. Check the address, and that the server runs and can be reached.`
  }
}

/**
 * Nothing came for so long. `bytes` is how much of the body had arrived; `"total"` is the deadline of the whole download.
 *
 * @category errors
 * @since 0.1.0
 */
export class Stalled extends Data.TaggedError("Stalled")<{
  readonly url: string
  readonly phase: "connect" | "headers" | "body" | "total"
  readonly bytes: number
  readonly after: Duration.Duration
}> {
  override get message(): string {
    const option = { connect: "connect", headers: "headers", body: "idle", total: "total" }
    return `${this.url} stalled (${this.phase}) for ${Duration.format(this.after)} `
      + `after ${this.bytes} bytes. Retry, or raise \`${option[this.phase]}Timeout\`.`
  }
}

/**
 * The body ended before it was complete. `expected` is unknown if the server named no length; `received` is what reached
 * us, which may be less than what the server had sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class Truncated extends Data.TaggedError("Truncated")<{
  readonly url: string
  readonly received: number
  readonly expected: number | undefined
}> {
  override get message(): string {
    const of = this.expected === undefined ? "" : ` of ${this.expected}`
    return `${this.url} was cut off after ${this.received}${of} bytes. Retry.`
  }
}

/**
 * The body is larger than allowed. `seen` is the length announced, or what had arrived when the limit was passed.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooLarge extends Data.TaggedError("TooLarge")<{
  readonly url: string
  readonly maxBytes: number
  readonly seen: number
}> {
  override get message(): string {
    return `${this.url} is too large: ${this.seen} bytes seen, ${this.maxBytes} allowed. Raise \`maxBytes\` if it may be.`
  }
}

/**
 * One redirect more than allowed.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyRedirects extends Data.TaggedError("TooManyRedirects")<{
  readonly url: string
  readonly maxRedirects: number
}> {
  override get message(): string {
    return `${this.url} redirects more than ${this.maxRedirects} times. Raise \`maxRedirects\` if that is right.`
  }
}

/**
 * A redirect that cannot be followed: it names no place, leads out of the web, or back to where it came from.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadRedirect extends Data.TaggedError("BadRedirect")<{
  readonly url: string
  readonly location: string | undefined
  readonly reason: "missing" | "invalid" | "protocol" | "loop"
}> {
  override get message(): string {
    const to = this.location === undefined ? "nowhere" : printable(this.location)
    return `${this.url} redirects to ${to} (${this.reason}). The server has to be put right.`
  }
}

/**
 * The bytes are not the ones expected. Nothing was published.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChecksumMismatch extends Data.TaggedError("ChecksumMismatch")<{
  readonly url: string
  readonly expected: string
  readonly actual: string
}> {
  override get message(): string {
    return `${this.url} has sha256 ${this.actual}, expected ${this.expected}. The file changed, or the expectation is old.`
  }
}

/**
 * The connection broke or broke the protocol. `code` is the operating system's or the parser's.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransportFailed extends Data.TaggedError("TransportFailed")<{
  readonly url: string
  readonly code: string
  readonly received: number
  readonly cause: unknown
}> {
  override get message(): string {
    return `The connection to ${this.url} failed after ${this.received} bytes: ${this.code}. Retry.`
  }
}

/**
 * Not an address of the web: unreadable, not http(s), or with a password in it (those end up in logs).
 *
 * @category errors
 * @since 0.1.0
 */
export class BadUrl extends Data.TaggedError("BadUrl")<{
  readonly url: string
  readonly reason: "unreadable" | "protocol" | "credentials"
}> {
  override get message(): string {
    return `"${printable(this.url)}" is no usable address (${this.reason}). `
      + "Use http:// or https://, and send credentials in `headers.authorization`."
  }
}

/**
 * The session's layer has closed. Nothing was asked of the server, or what was asked was cut.
 *
 * @category errors
 * @since 0.1.0
 */
export class SessionClosed extends Data.TaggedError("SessionClosed")<{
  readonly url: string
}> {
  override get message(): string {
    return `The HTTP session closed before ${this.url} was saved. Run downloads inside the scope that provides the session.`
  }
}

/**
 * What a download can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type DownloadError =
  | BadRedirect
  | BadUrl
  | ChecksumMismatch
  | ConnectFailed
  | Files.FileError
  | HttpStatus
  | SessionClosed
  | Stalled
  | TooLarge
  | TooManyRedirects
  | TransportFailed
  | Truncated

/**
 * Whether the same download may work a moment later. Of anything that is no `DownloadError` it says no.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRetryable = (error: unknown): boolean => {
  if (error instanceof HttpStatus) {
    const { status } = error
    return status === 408 || status === 425 || status === 429 || status >= 500
  }
  return error instanceof ConnectFailed || error instanceof Stalled
    || error instanceof TransportFailed || error instanceof Truncated
}

// ----------------------------------------------------------------------------------------- session

/**
 * What `session` takes. All durations bound one wait each; `Duration.infinity` turns one off.
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

interface Settings {
  readonly perHost: number
  readonly maxRedirects: number
  readonly userAgent: string
  readonly after: Readonly<Record<Stalled["phase"], Duration.Duration>>
}

const positive = (what: string, value: number): number => {
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new RangeError(`Http-5: \`${what}\` has to be a whole number, 1 or more; got ${value}.`)
}

const settingsOf = (options: SessionOptions): Settings => ({
  perHost: positive("perHost", options.perHost ?? 6),
  maxRedirects: options.maxRedirects ?? 10,
  userAgent: options.userAgent ?? "holdfast",
  after: {
    connect: Duration.decode(options.connectTimeout ?? "10 seconds"),
    headers: Duration.decode(options.headersTimeout ?? "30 seconds"),
    body: Duration.decode(options.idleTimeout ?? "30 seconds"),
    total: Duration.decode(options.totalTimeout ?? Duration.infinity)
  }
})

/** undici takes milliseconds, and 0 for "never". */
const millis = (duration: Duration.Duration): number =>
  Duration.isFinite(duration) ? Math.max(1, Duration.toMillis(duration)) : 0

/**
 * What a session holds at this instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionStats {
  /** Connections open or opening. */
  readonly sockets: number
  /** Partial files being written. */
  readonly downloads: number
  readonly closed: boolean
}

/** The connections of a session. Guarded by the single thread: every change is synchronous. */
interface Wires {
  /** Open and opening. */
  readonly sockets: Set<Socket>
  /** Told to wait, because nobody reads what they bring. */
  readonly held: WeakSet<Socket>
  /** The last one that was read: what a handler is told, it is told from inside that read. */
  reading: Socket | undefined
  /** What the connector reported: the only sure sign that it was the connection that failed. */
  readonly connectErrors: WeakSet<object>
  /** How many sockets broke, by origin. undici takes a reset for the end of a body without a length. */
  readonly broken: Map<string, number>
}

interface Live {
  readonly settings: Settings
  readonly wires: Wires
  readonly agent: Dispatcher
  /** The agent behind `Flow`: what every request goes through. */
  readonly dispatcher: Dispatcher
  readonly permits: Semaphore.Semaphore | undefined
  /** The partial files being written, by absolute path. */
  readonly writing: Set<string>
  closed: boolean
}

/**
 * A live session. Made by `session`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionService {
  /** Exact at this instant. */
  readonly stats: Effect.Effect<SessionStats>
  /** @internal */
  readonly live: Live
}

/**
 * The session in force: what `download` needs.
 *
 * @category tags
 * @since 0.1.0
 */
export class Session extends Context.Tag("holdfast/Http/Session")<Session, SessionService>() {}

/** A held socket gives nothing, so that its buffer fills and TCP makes the server wait. */
const holdable = (wires: Wires, socket: Socket): void => {
  const read = socket.read.bind(socket)
  socket.read = (size) => {
    // 0 asks for no data: the socket may look ahead.
    if (size !== 0 && wires.held.has(socket)) return null
    wires.reading = socket
    return read(size)
  }
}

/** Every socket is ours from its first step, so that closing reaches those still connecting too. */
const connector = ({ after }: Settings, wires: Wires): buildConnector.connector => {
  const { broken, connectErrors, sockets } = wires
  // It returns the socket it starts, which its type keeps quiet about.
  const connect: (...args: Parameters<buildConnector.connector>) => unknown = Undici
    .buildConnector({ timeout: millis(after.connect) })
  return (options, callback) => {
    const socket = connect(options, (...args) => {
      if (args[0] !== null) connectErrors.add(args[0])
      callback(...args)
    })
    if (!(socket instanceof Socket)) return
    const origin = `${options.protocol}//${options.host ?? options.hostname}`
    holdable(wires, socket)
    sockets.add(socket)
    socket.once("error", (error) => {
      // Only what the operating system says; undici ends sockets with errors of its own.
      if ("syscall" in error) broken.set(origin, (broken.get(origin) ?? 0) + 1)
    })
    socket.once("close", () => sockets.delete(socket))
  }
}

const open = (options: SessionOptions): Live => {
  const settings = settingsOf(options)
  const wires: Wires = {
    sockets: new Set(),
    held: new WeakSet(),
    reading: undefined,
    connectErrors: new WeakSet(),
    broken: new Map()
  }
  const agent = new Undici.Agent({
    connections: settings.perHost,
    connect: connector(settings, wires)
  })
  const dispatcher = flowing(agent, wires, settings)
  const permits = options.total === undefined
    ? undefined
    : Semaphore.unsafeMake(options.total, { name: "http downloads" })
  return { settings, wires, agent, dispatcher, permits, writing: new Set(), closed: false }
}

const socketClosed = (socket: Socket): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (socket.closed) resume(Effect.void)
    else socket.once("close", () => resume(Effect.void))
  })

const close = (live: Live): Effect.Effect<void> =>
  Effect.suspend(() => {
    live.closed = true
    const destroyed = live.agent.destroy()
    // The agent forgets sockets that are still connecting.
    for (const socket of live.wires.sockets) {
      socket.destroy(new Error("The HTTP session has closed."))
    }
    return Effect.zipRight(
      Effect.promise(() => destroyed),
      Effect.forEach(Array.from(live.wires.sockets), socketClosed, { discard: true })
    )
  })

// -------------------------------------------------------------------------------------------- flow

/**
 * Between the agent and the one who reads. undici 7 pauses its parser when nobody reads, and a `connection: close` that then
 * ends trips an assertion that ends the process (undici #5360, put right in 8 only). So the parser is never paused: the
 * socket is held instead. With that goes undici's idle deadline, which knows only its own pauses; the one here counts
 * silence only while someone wants more. It also tells when the connection is free again.
 */
class Flow implements Dispatcher.DispatchHandler {
  readonly inner: Dispatcher.DispatchHandler
  readonly wires: Wires
  readonly idleMillis: number
  readonly onFree: () => void
  free = false
  controller: Dispatcher.DispatchController | undefined
  socket: Socket | undefined
  idle: NodeJS.Timeout | undefined

  constructor(inner: Dispatcher.DispatchHandler, wires: Wires, idle: number, onFree: () => void) {
    this.inner = inner
    this.wires = wires
    this.idleMillis = idle
    this.onFree = onFree
  }
  /** Cuts the request unless its connection is free already. */
  letGo(reason: Error): void {
    if (!this.free) this.controller?.abort(reason)
  }
  hold(): void {
    if (this.free || this.socket === undefined) return
    this.wires.held.add(this.socket)
    this.rest()
  }
  release(): void {
    const { socket } = this
    if (this.free || socket === undefined || !this.wires.held.delete(socket)) return
    this.listen()
    // Later: we may be inside the very parser that this would call.
    queueMicrotask(() => socket.emit("readable"))
  }
  /** From now on, silence counts. */
  listen(): void {
    this.rest()
    if (this.idleMillis === 0) return
    this.idle = setTimeout(() => this.letGo(new Undici.errors.BodyTimeoutError()), this.idleMillis)
  }
  /** Silence does not count any more. */
  rest(): void {
    clearTimeout(this.idle)
    this.idle = undefined
  }
  freed(): void {
    this.rest()
    // The next answer on this socket is someone else's.
    if (this.socket !== undefined) this.wires.held.delete(this.socket)
    this.free = true
    this.onFree()
  }
  /** What the reader sees of the connection: its pauses are ours to make. */
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
  onRequestUpgrade(...[controller, ...rest]: Told<"onRequestUpgrade">): void {
    this.inner.onRequestUpgrade?.(this.controls(controller), ...rest)
  }
  onResponseStart(...[controller, ...rest]: Told<"onResponseStart">): void {
    this.socket = this.wires.reading
    this.listen()
    this.inner.onResponseStart?.(this.controls(controller), ...rest)
  }
  onResponseData(...[controller, chunk]: Told<"onResponseData">): void {
    this.idle?.refresh()
    this.inner.onResponseData?.(this.controls(controller), chunk)
  }
  onResponseEnd(...[controller, trailers]: Told<"onResponseEnd">): void {
    this.freed()
    this.inner.onResponseEnd?.(this.controls(controller), trailers)
  }
  onResponseError(...[controller, error]: Told<"onResponseError">): void {
    this.freed()
    this.inner.onResponseError?.(this.controls(controller), error)
  }
}

type Told<Event extends keyof Dispatcher.DispatchHandler> = Parameters<
  NonNullable<Dispatcher.DispatchHandler[Event]>
>

/** Rides along in the options of one request, from its effect to its dispatch. */
interface Ridden extends Dispatcher.DispatchOptions {
  readonly onFlow?: ((flow: Flow) => void) | undefined
  readonly onFree?: (() => void) | undefined
}

const flowing = (agent: Dispatcher, wires: Wires, { after }: Settings): Dispatcher =>
  agent.compose((dispatch) => ({ onFlow, onFree, ...options }: Ridden, handler) => {
    const flow = new Flow(handler, wires, millis(after.body), onFree ?? (() => {}))
    onFlow?.(flow)
    // Here, and not in the agent's own options, because the platform's client turns them off.
    const timeouts = { headersTimeout: millis(after.headers), bodyTimeout: 0 }
    return dispatch({ ...options, ...timeouts }, flow)
  })

// ----------------------------------------------------------------------------- the platform client

/** Ties a request to the scope it runs in, if any, until its connection is free (Http-2). */
const tied = <A, E, R>(request: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.contextWithEffect((context: Context.Context<R>) =>
    Option.match(Context.getOption(context, Scope.Scope), {
      onNone: () => request,
      onSome: (scope) =>
        // MASK: the tie is made before the request and undone with it; the request itself is restored.
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function*() {
            // A scope of its own, so that the long-lived one forgets the request when its connection is free.
            const tie = yield* Scope.fork(scope, ExecutionStrategy.sequential)
            let flow: Flow | undefined
            const onFree = () => Effect.runSync(Scope.close(tie, Exit.void))
            const onFlow = (started: Flow) => flow = started
            const ended = () => flow?.letGo(new Error("The scope of this request has ended."))
            yield* Scope.addFinalizer(tie, Effect.sync(ended))
            const given = Context.getOption(context, NodeHttpClient.UndiciRequestOptions)
            // Path and method are the request's; the platform writes them over these.
            const options = {
              path: "",
              method: "GET",
              ...Option.getOrUndefined(given),
              onFlow,
              onFree
            } as const
            const sent = Effect.provideService(
              request,
              NodeHttpClient.UndiciRequestOptions,
              options
            )
            return yield* Effect.onError(
              restore(sent),
              (cause) => Scope.close(tie, Exit.failCause(cause))
            )
          })
        )
    })
  )

const clientOf = (live: Live): HttpClient.HttpClient =>
  NodeHttpClient.makeUndici(live.dispatcher).pipe(
    HttpClient.mapRequest((request) =>
      request.headers["user-agent"] === undefined
        ? HttpClientRequest.setHeader(request, "user-agent", live.settings.userAgent)
        : request
    ),
    HttpClient.transformResponse(tied)
  )

/**
 * A session for as long as the layer lives: `download` inside it, and `@effect/platform`'s `HttpClient` over the same
 * connections.
 *
 * **Interruption** — making it never waits. Closing cuts what is in flight: requests fail, downloads with `SessionClosed`.
 * **Errors** — none here; misuse (no positive whole number) is a defect.
 * **Cost** — nothing until the first request; then a connection per request at once, up to `perHost`, kept alive 4 seconds.
 *
 * @category layers
 * @since 0.1.0
 */
export const session = (
  options: SessionOptions = {}
): Layer.Layer<HttpClient.HttpClient | Session> => {
  const site = Ledger.unsafeSite()
  const opened = Managed.make({
    name: options.userAgent ?? "holdfast",
    kind: "http session",
    acquire: Effect.sync(() => open(options)),
    release: close
  })
  return Layer.scopedContext(
    Effect.map(
      Ledger.withSite(opened, site),
      (live) =>
        Context.make(HttpClient.HttpClient, clientOf(live)).pipe(
          Context.add(Session, {
            live,
            stats: Effect.sync(() => ({
              sockets: live.wires.sockets.size,
              downloads: live.writing.size,
              closed: live.closed
            }))
          })
        )
    )
  )
}

// ---------------------------------------------------------------------------------------- exchange

type TransportError = ConnectFailed | SessionClosed | Stalled | TransportFailed | Truncated

/** How far an exchange has come when it breaks. */
interface Progress {
  phase: "headers" | "body"
  received: number
  expected: number | undefined
}

const timeoutPhases: Readonly<Record<string, Stalled["phase"]>> = {
  UND_ERR_CONNECT_TIMEOUT: "connect",
  UND_ERR_HEADERS_TIMEOUT: "headers",
  UND_ERR_BODY_TIMEOUT: "body"
}

/** The other side ended the body in an orderly way, but too early. */
const cutCodes: ReadonlySet<string> = new Set([
  "UND_ERR_SOCKET",
  "UND_ERR_RES_CONTENT_LENGTH_MISMATCH",
  "ERR_STREAM_PREMATURE_CLOSE"
])

const isCut = (error: object, code: string): boolean =>
  cutCodes.has(code)
  // The parser broke on no data at all: it was told of the end, in the middle of a chunk.
  || (error instanceof Undici.errors.HTTPParserError && "data" in error && error.data === "")

const codeOf = (error: object): string => {
  if ("code" in error && typeof error.code === "string") return error.code
  return "name" in error && typeof error.name === "string" ? error.name : "UNKNOWN"
}

const transportError = (
  live: Live,
  url: string,
  progress: Progress,
  cause: unknown
): TransportError => {
  if (live.closed) return new SessionClosed({ url })
  const error = typeof cause === "object" && cause !== null ? cause : {}
  const code = codeOf(error)
  const phase = timeoutPhases[code]
  const { expected, received } = progress
  if (phase !== undefined) {
    return new Stalled({ url, phase, bytes: received, after: live.settings.after[phase] })
  }
  if (live.wires.connectErrors.has(error)) return new ConnectFailed({ url, code, cause })
  return progress.phase === "body" && isCut(error, code)
    ? new Truncated({ url, received, expected })
    : new TransportFailed({ url, code, received, cause })
}

/** What undici promises, with its errors told apart; what it calls our own mistake is a defect. */
const promised = <A>(
  live: Live,
  url: string,
  progress: Progress,
  promise: () => Promise<A>
): Effect.Effect<A, TransportError> =>
  Effect.catchAll(
    Effect.tryPromise({ try: promise, catch: (cause) => cause }),
    (cause) =>
      cause instanceof Undici.errors.InvalidArgumentError
        ? Effect.die(cause)
        : Effect.fail(transportError(live, url, progress, cause))
  )

interface Exchange {
  readonly url: string
  readonly origin: string
  readonly response: Dispatcher.ResponseData
  readonly progress: Progress
  readonly live: Live
}

/** One request and what is done with its answer; its connection is free or cut when this ends. */
const exchange = <A, E, R>(
  live: Live,
  url: URL,
  headers: Readonly<Record<string, string>>,
  progress: Progress,
  use: (exchange: Exchange) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TransportError, R> => {
  const request = Managed.make({
    name: url.href,
    kind: "http request",
    // Before the request exists: there is no instant at which a request, or its answer, has no owner.
    acquire: Effect.sync(() => new AbortController()),
    release: (controller) => Effect.sync(() => controller.abort())
  })
  return Managed.use(request, ({ signal }) => {
    progress.phase = "headers"
    const answer = promised(live, url.href, progress, () =>
      live.dispatcher.request({
        method: "GET",
        origin: url.origin,
        path: url.pathname + url.search,
        headers: { ...headers },
        signal
      }))
    return Effect.flatMap(answer, (response) => {
      // A body cut after we have looked away must not end the process.
      response.body.on("error", () => {})
      return use({ live, url: url.href, origin: url.origin, response, progress })
    })
  })
}

const headerOf = ({ response }: Exchange, name: string): string | undefined => {
  const value = response.headers[name]
  return Array.isArray(value) ? value[0] : value
}

const drainBytes = 16_384
const drainFor = Duration.seconds(1)

/** Reads a small body to its end, so that its connection can serve again; what is not small or quick is cut by its owner. */
const drain = ({ response }: Exchange): Effect.Effect<void> =>
  Effect.promise(() => response.body.dump({ limit: drainBytes }).catch(() => {})).pipe(
    Effect.timeoutOption(drainFor),
    Effect.asVoid
  )

// ---------------------------------------------------------------------------------------- download

/**
 * What `download` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadOptions {
  /** Where the body is gathered; must be on the destination's file system. Default: the destination and `.part`. */
  readonly partial?: string | undefined
  readonly maxBytes?: number | undefined
  /** In hexadecimal. */
  readonly expectedSha256?: string | undefined
  /** Default `"full"`. */
  readonly durability?: Files.Durability | undefined
  /** Told after each write how many bytes it added. */
  readonly onBytes?: ((added: number) => void) | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/**
 * A file that has arrived.
 *
 * @category models
 * @since 0.1.0
 */
export interface Downloaded {
  readonly url: string
  /** Where the redirects led. */
  readonly finalUrl: string
  readonly path: string
  readonly bytes: number
  readonly sha256: string
  readonly status: number
  readonly contentType: string | undefined
}

interface Order {
  readonly url: string
  readonly destination: string
  readonly partial: string
  readonly options: DownloadOptions
  readonly progress: Progress
}

const parse = (url: string | URL): Effect.Effect<URL, BadUrl> =>
  Effect.suspend(() => {
    const parsed = URL.canParse(String(url)) ? new URL(url) : undefined
    if (parsed === undefined) return new BadUrl({ url: String(url), reason: "unreadable" })
    if (parsed.username !== "" || parsed.password !== "") {
      parsed.username = ""
      parsed.password = ""
      return new BadUrl({ url: parsed.href, reason: "credentials" })
    }
    parsed.hash = ""
    return isWeb(parsed)
      ? Effect.succeed(parsed)
      : new BadUrl({ url: parsed.href, reason: "protocol" })
  })

const isWeb = ({ protocol }: URL): boolean => protocol === "http:" || protocol === "https:"

const secrets = new Set(["authorization", "cookie", "proxy-authorization"])

/** The headers of one hop. What proves who we are is sent only to the origin it was given for. */
const headersFor = (
  settings: Settings,
  given: Readonly<Record<string, string>> = {},
  sameOrigin: boolean
): Readonly<Record<string, string>> => {
  const headers: Record<string, string> = { "user-agent": settings.userAgent, "accept": "*/*" }
  for (const [name, value] of Object.entries(given)) {
    const key = name.toLowerCase()
    if (sameOrigin || !secrets.has(key)) headers[key] = value
  }
  // The bytes of the file, not of a compressed form of it.
  return { ...headers, "accept-encoding": "identity" }
}

const redirects = new Set([301, 302, 303, 307, 308])

/** Where a redirect leads, if it leads anywhere we may and should go. */
const redirected = (
  from: URL,
  location: string | undefined,
  seen: ReadonlySet<string>
): Effect.Effect<URL, BadRedirect> => {
  const refuse = (reason: BadRedirect["reason"]) =>
    new BadRedirect({ url: from.href, location, reason })
  if (location === undefined) return refuse("missing")
  if (!URL.canParse(location, from.href)) return refuse("invalid")
  const to = new URL(location, from.href)
  to.hash = ""
  if (!isWeb(to) || to.username !== "" || to.password !== "") return refuse("protocol")
  return seen.has(to.href) ? refuse("loop") : Effect.succeed(to)
}

/** In seconds, or as a date; the rest is no header. */
const retryAfterOf = (
  header: string | undefined
): Effect.Effect<Duration.Duration | undefined> => {
  if (header === undefined) return Effect.succeed(undefined)
  if (/^\d+$/.test(header.trim())) return Effect.succeed(Duration.seconds(Number(header)))
  const at = Date.parse(header)
  return Number.isNaN(at)
    ? Effect.succeed(undefined)
    : Effect.map(Clock.currentTimeMillis, (now) => Duration.millis(Math.max(0, at - now)))
}

const refused = (exchange: Exchange): Effect.Effect<never, HttpStatus> =>
  Effect.flatMap(retryAfterOf(headerOf(exchange, "retry-after")), (retryAfter) =>
    Effect.zipRight(
      drain(exchange),
      new HttpStatus({ url: exchange.url, status: exchange.response.statusCode, retryAfter })
    ))

/** Within a session, one partial file has one writer: two would publish each other's halves. */
const claim = ({ writing }: Live, partial: string) => {
  const path = Path.resolve(partial)
  return Managed.make({
    name: path,
    kind: "partial file",
    acquire: Effect.suspend(() =>
      writing.has(path)
        ? new Files.FileError({ operation: "claim", path, code: "EBUSY" })
        : Effect.sync(() => void writing.add(path))
    ),
    release: () => Effect.sync(() => writing.delete(path))
  })
}

/** undici takes a reset for the end of a body without a length or chunks; we do not. */
const breaks = (exchange: Exchange): number =>
  exchange.progress.expected === undefined && headerOf(exchange, "transfer-encoding") === undefined
    ? exchange.live.wires.broken.get(exchange.origin) ?? 0
    : 0

/** Whether what has arrived is all there is. */
const complete = (
  exchange: Exchange,
  brokenBefore: number
): Effect.Effect<void, TransportError> => {
  const { progress: { expected, received }, url } = exchange
  if (expected !== undefined && received !== expected) {
    return new Truncated({ url, received, expected })
  }
  return breaks(exchange) > brokenBefore
    ? new TransportFailed({ url, code: "ECONNRESET", received, cause: undefined })
    : Effect.void
}

/** The body into the draft, chunk by chunk: the next one is asked for when the last one is written. */
const pour = (
  exchange: Exchange,
  draft: Files.Draft,
  { maxBytes = Infinity, onBytes }: DownloadOptions
): Effect.Effect<string, Files.FileError | TooLarge | TransportError> =>
  Effect.gen(function*() {
    const { live, progress, response, url } = exchange
    const hash = createHash("sha256")
    const chunks: AsyncIterator<Uint8Array> = response.body[Symbol.asyncIterator]()
    const brokenBefore = breaks(exchange)
    progress.phase = "body"
    while (true) {
      const next = yield* promised(live, url, progress, () => chunks.next())
      if (next.done === true) break
      progress.received += next.value.length
      if (progress.received > maxBytes) {
        return yield* new TooLarge({ url, maxBytes, seen: progress.received })
      }
      hash.update(next.value)
      yield* draft.write(next.value)
      onBytes?.(next.value.length)
    }
    yield* complete(exchange, brokenBefore)
    return hash.digest("hex")
  })

const lengthOf = (exchange: Exchange): number | undefined => {
  const header = headerOf(exchange, "content-length")
  return header !== undefined && /^\d+$/.test(header) ? Number(header) : undefined
}

const save = (exchange: Exchange, order: Order) =>
  Effect.gen(function*() {
    const { progress, response, url } = exchange
    const { durability, expectedSha256, maxBytes = Infinity } = order.options
    const expected = lengthOf(exchange)
    if (expected !== undefined && expected > maxBytes) {
      return yield* new TooLarge({ url, maxBytes, seen: expected })
    }
    progress.expected = expected
    return yield* Managed.use(Files.draft(order.partial, { replace: true }), (draft) =>
      Effect.gen(function*() {
        const sha256 = yield* pour(exchange, draft, order.options)
        if (expectedSha256 !== undefined && expectedSha256.toLowerCase() !== sha256) {
          return yield* new ChecksumMismatch({ url, expected: expectedSha256, actual: sha256 })
        }
        yield* draft.publish(order.destination, { durability })
        const downloaded: Downloaded = {
          url: order.url,
          finalUrl: url,
          path: order.destination,
          bytes: progress.received,
          sha256,
          status: response.statusCode,
          contentType: headerOf(exchange, "content-type")
        }
        return downloaded
      }))
  })

/** Follows redirects to the answer that is not one. Each hop's connection is free before the next is asked for. */
const fetched = (
  live: Live,
  start: URL,
  order: Order
): Effect.Effect<Downloaded, DownloadError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const { maxRedirects } = live.settings
    const seen = new Set([start.href])
    let at = start
    while (true) {
      const headers = headersFor(live.settings, order.options.headers, at.origin === start.origin)
      const here = at
      const outcome = yield* exchange(
        live,
        here,
        headers,
        order.progress,
        (exchange): Effect.Effect<Downloaded | URL, DownloadError, FileSystem.FileSystem> => {
          const { statusCode } = exchange.response
          if (statusCode === 200 || statusCode === 203) {
            return save(exchange, order)
          }
          return redirects.has(statusCode)
            ? Effect.zipRight(
              drain(exchange),
              redirected(here, headerOf(exchange, "location"), seen)
            )
            : refused(exchange)
        }
      )
      if (!(outcome instanceof URL)) return outcome
      if (seen.size > maxRedirects) {
        return yield* new TooManyRedirects({ url: order.url, maxRedirects })
      }
      at = outcome
      seen.add(at.href)
    }
  })

/**
 * Brings one file home: one attempt, whole or not at all.
 *
 * **Details** — redirects are followed, the body is asked for uncompressed, hashed as it passes and gathered in a partial
 *   file, which takes the destination's place when it is complete. The directory must exist.
 * **Interruption** — waiting for a permit, a connection or bytes: at once. Writing: after the chunk in flight. The partial
 *   file is removed, the connection cut, the destination untouched, unless the rename had begun: then it is complete.
 * **Errors** — see `DownloadError`; `isRetryable` says which may pass, `retryPolicy` waits for them.
 * **Cost** — see the file head.
 *
 * @category operations
 * @since 0.1.0
 */
export const download = (
  url: string | URL,
  destination: string,
  options: DownloadOptions = {}
): Effect.Effect<Downloaded, DownloadError, FileSystem.FileSystem | Session> => {
  const site = Ledger.unsafeSite()
  const downloaded = Effect.gen(function*() {
    const { live } = yield* Session
    const start = yield* parse(url)
    const { permits, settings: { after } } = live
    const partial = options.partial ?? `${destination}.part`
    const progress: Progress = { phase: "headers", received: 0, expected: undefined }
    const order: Order = { url: start.href, destination, partial, options, progress }
    const attempt = Effect.suspend(() =>
      live.closed
        ? new SessionClosed({ url: start.href })
        : Managed.use(claim(live, partial), () => fetched(live, start, order))
    )
    const turn = permits === undefined ? attempt : Semaphore.withPermits(permits, 1)(attempt)
    if (!Duration.isFinite(after.total)) return yield* turn
    return yield* Effect.timeoutFail(turn, {
      duration: after.total,
      onTimeout: () =>
        new Stalled({
          url: start.href,
          phase: "total",
          bytes: progress.received,
          after: after.total
        })
    })
  })
  return Ledger.withSite(downloaded, site)
}

// ------------------------------------------------------------------------------------------- retry

/**
 * What `retryPolicy` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryOptions {
  /** Retries after the first attempt. Default 3. */
  readonly times?: number | undefined
  /** The first wait; each next one is twice as long. Default 100 milliseconds. */
  readonly base?: Duration.DurationInput | undefined
  /** No wait is longer, whatever the server asks for. Default 30 seconds. */
  readonly cap?: Duration.DurationInput | undefined
  /** Shortens each wait of ours by up to half, at random, so that many clients spread. Default `true`. */
  readonly jittered?: boolean | undefined
}

/**
 * When to try again: after a growing wait, or as long as the server asked for; never after what will not pass.
 *
 * **Interruption** — it only waits. **Errors** — none: it ends, and `Effect.retry` fails with the last error.
 * **Cost** — none to speak of.
 *
 * **Example** (three more attempts)
 * ```ts
 * import { Effect } from "effect"
 * import * as Http from "holdfast/Http"
 *
 * export const brought = Http.download("https://example.com/a", "a.html").pipe(
 *   Effect.retry(Http.retryPolicy({ times: 3 }))
 * )
 * ```
 *
 * @category schedules
 * @since 0.1.0
 */
export const retryPolicy = (
  options: RetryOptions = {}
): Schedule.Schedule<number, unknown> => {
  const times = options.times ?? 3
  const base = Duration.toMillis(options.base ?? "100 millis")
  const cap = Duration.toMillis(options.cap ?? "30 seconds")
  const factor = options.jittered === false
    ? Effect.succeed(1)
    : Effect.map(Random.next, (random) => 1 - random / 2)
  return Schedule.makeWithState(0, (now, error: unknown, tried) => {
    if (tried >= times || !isRetryable(error)) {
      return Effect.succeed([tried, tried, ScheduleDecision.done] as const)
    }
    return Effect.map(factor, (factor) => {
      const asked = error instanceof HttpStatus && error.retryAfter !== undefined
        ? Duration.toMillis(error.retryAfter)
        : 0
      const wait = Math.min(cap, Math.max(base * 2 ** tried * factor, asked))
      const next = ScheduleDecision.continueWith(ScheduleInterval.after(now + wait))
      return [tried + 1, tried + 1, next] as const
    })
  })
}
