/**
 * Http/save: follows redirects, and saves the body of the last answer in a file, whole or not at all. ../Http.ts has the invariants.
 *
 * @since 0.1.0
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import * as Path from "node:path"
import * as Files from "../Files.ts"
import * as Managed from "../Managed.ts"
import type { Live, Settings } from "./connections.ts"
import {
  BadRedirect,
  BadUrl,
  ChecksumMismatch,
  type DownloadError,
  HttpStatus,
  TooLarge,
  TooManyRedirects,
  TransportFailed,
  Truncated
} from "./errors.ts"
import {
  drain,
  type Exchange,
  exchange,
  headerOf,
  type Progress,
  promised,
  type TransportError
} from "./exchange.ts"

/**
 * Options of `download`.
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
  /** Called after each write with the number of bytes it added. */
  readonly onBytes?: ((added: number) => void) | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/**
 * A downloaded file.
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

export interface Request {
  readonly url: string
  readonly destination: string
  readonly partial: string
  readonly options: DownloadOptions
  readonly progress: Progress
}

export const parse = (url: string | URL): Effect.Effect<URL, BadUrl> =>
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

/** The headers of one hop. Credentials go only to the origin they were given for. */
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

/** `retry-after` in seconds or as a date; any other text counts as none. */
const retryAfterOf = (header = ""): Effect.Effect<Duration.Duration | undefined> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    if (/^\d+$/.test(header.trim())) return Duration.seconds(Number(header))
    const at = Date.parse(header)
    return Number.isNaN(at) ? undefined : Duration.millis(Math.max(0, at - now))
  })

const refused = (exchange: Exchange): Effect.Effect<never, HttpStatus> =>
  Effect.flatMap(retryAfterOf(headerOf(exchange, "retry-after")), (retryAfter) =>
    Effect.zipRight(
      drain(exchange),
      new HttpStatus({ url: exchange.url, status: exchange.response.statusCode, retryAfter })
    ))

/** Within a session a partial file has one writer: two would mix their bytes. */
export const claim = ({ writing }: Live, partial: string) => {
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

/** For a body without length or chunks, the number of broken sockets of the origin: undici takes a reset for the end of such a body. */
const breaks = (exchange: Exchange): number =>
  exchange.progress.expected === undefined && headerOf(exchange, "transfer-encoding") === undefined
    ? exchange.live.connections.broken.get(exchange.origin) ?? 0
    : 0

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

/** Writes the body into the draft. Each chunk is asked for when the one before is written. */
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

const save = (exchange: Exchange, request: Request) =>
  Effect.gen(function*() {
    const { progress, response, url } = exchange
    const { durability, expectedSha256, maxBytes = Infinity } = request.options
    const expected = lengthOf(exchange)
    if (expected !== undefined && expected > maxBytes) {
      return yield* new TooLarge({ url, maxBytes, seen: expected })
    }
    progress.expected = expected
    return yield* Managed.use(Files.draft(request.partial, { replace: true }), (draft) =>
      Effect.gen(function*() {
        const sha256 = yield* pour(exchange, draft, request.options)
        if (expectedSha256 !== undefined && expectedSha256.toLowerCase() !== sha256) {
          return yield* new ChecksumMismatch({ url, expected: expectedSha256, actual: sha256 })
        }
        yield* draft.publish(request.destination, { durability })
        const downloaded: Downloaded = {
          url: request.url,
          finalUrl: url,
          path: request.destination,
          bytes: progress.received,
          sha256,
          status: response.statusCode,
          contentType: headerOf(exchange, "content-type")
        }
        return downloaded
      }))
  })

/** Follows redirects. The connection of each hop is free before the next request. */
export const fetched = (
  live: Live,
  start: URL,
  request: Request
): Effect.Effect<Downloaded, DownloadError, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const { maxRedirects } = live.settings
    const seen = new Set([start.href])
    let at = start
    while (true) {
      const headers = headersFor(live.settings, request.options.headers, at.origin === start.origin)
      const here = at
      const answered = (
        exchange: Exchange
      ): Effect.Effect<Downloaded | URL, DownloadError, FileSystem.FileSystem> => {
        const { statusCode } = exchange.response
        if (statusCode === 200 || statusCode === 203) return save(exchange, request)
        if (!redirects.has(statusCode)) return refused(exchange)
        const location = headerOf(exchange, "location")
        return Effect.zipRight(drain(exchange), redirected(here, location, seen))
      }
      const outcome = yield* exchange(live, here, headers, request.progress, answered)
      if (!(outcome instanceof URL)) return outcome
      if (seen.size > maxRedirects) {
        return yield* new TooManyRedirects({ url: request.url, maxRedirects })
      }
      at = outcome
      seen.add(at.href)
    }
  })
