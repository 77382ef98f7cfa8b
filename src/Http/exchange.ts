/**
 * Http/exchange: one request and its answer; the errors of undici become those of ./errors.ts. ../Http.ts has the invariants.
 */
import Undici, { type Dispatcher } from "@effect/platform-node/Undici"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Managed from "../Managed.ts"
import type { Live } from "./connections.ts"
import { ConnectFailed, SessionClosed, Stalled, TransportFailed, Truncated } from "./errors.ts"

export type TransportError = ConnectFailed | SessionClosed | Stalled | TransportFailed | Truncated

export interface Progress {
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
  // The parser failed without data: the body ended in the middle of a chunk.
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
  if (live.connections.connectErrors.has(error)) return new ConnectFailed({ url, code, cause })
  return progress.phase === "body" && isCut(error, code)
    ? new Truncated({ url, received, expected })
    : new TransportFailed({ url, code, received, cause })
}

/** A promise of undici, with its errors as ours. An invalid argument is a mistake of ours, so a defect. */
export const promised = <A>(
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

export interface Exchange {
  readonly url: string
  readonly origin: string
  readonly response: Dispatcher.ResponseData
  readonly progress: Progress
  readonly live: Live
}

/** One request and the use of its answer. Its connection is free or cut when this ends. */
export const exchange = <A, E, R>(
  live: Live,
  url: URL,
  headers: Readonly<Record<string, string>>,
  progress: Progress,
  use: (exchange: Exchange) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TransportError, R> => {
  const request = Managed.make({
    name: url.href,
    kind: "http request",
    // The owner exists before the request, so a request or its answer never lacks one.
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
      // Without a listener, a body that is cut after its use would end the process.
      response.body.on("error", () => {})
      return use({ live, url: url.href, origin: url.origin, response, progress })
    })
  })
}

export const headerOf = ({ response }: Exchange, name: string): string | undefined => {
  const value = response.headers[name]
  return Array.isArray(value) ? value[0] : value
}

const drainBytes = 16_384
const drainFor = Duration.seconds(1)

/** Reads a small body to its end, so that its connection can serve again. The request's owner cuts a large or slow one. */
export const drain = ({ response }: Exchange): Effect.Effect<void> =>
  Effect.promise(() => response.body.dump({ limit: drainBytes }).catch(() => {})).pipe(
    Effect.timeoutOption(drainFor),
    Effect.asVoid
  )
