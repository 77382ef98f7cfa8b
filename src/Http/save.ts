/**
 * Http/save: follows redirects, and saves the body of the last answer in a file, whole or not at all. ../Http.ts has the invariants.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import * as Files from "../Files.ts"
import * as Managed from "../Managed.ts"
import type { Settings } from "./connections.ts"
import {
  BadRedirect,
  BadUrl,
  ChecksumMismatch,
  type DownloadError,
  HttpStatus,
  shown,
  TooLarge,
  TooManyRedirects,
  Truncated,
  UnsupportedEncoding,
  waitOf
} from "./errors.ts"
import { drain, type Exchange } from "./exchange.ts"
import { lengthOf, type TransportError } from "./flow.ts"
import { isPrivate } from "./guard.ts"

/**
 * Options of `download`.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadOptions {
  /** Where the body is gathered; must be on the destination's file system. Default: the directory of the destination. */
  readonly temporaryDirectory?: string | undefined
  readonly maxBytes?: number | undefined
  /** In hexadecimal. */
  readonly expectedSha256?: string | undefined
  /** Default `"full"`. */
  readonly durability?: Files.Durability | undefined
  /** Called after each write with the number of bytes it added. */
  readonly onBytes?: ((added: number) => void) | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * Headers that only the origin of `url` may get, besides `authorization`, `cookie`, `x-api-key` and all others whose name has
   * a word like them. They are left out for good once a redirect leads to another origin.
   */
  readonly secretHeaders?: ReadonlyArray<string> | undefined
  /** Refuses redirects from a public server to this machine, its link or its private network. Default `false`. */
  readonly refusePrivate?: boolean | undefined
  /**
   * Which client sends the requests: the `HttpClient` of the Context, with what is wrapped around it, or the session alone. A client
   * that is not made of the session's has deadlines of its own. Default `"context"`.
   */
  readonly client?: "context" | "session" | undefined
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
  readonly options: DownloadOptions
  readonly progress: Progress
}

/** How far a download has come. */
export interface Progress {
  received: number
}

export const parse = (url: string | URL): Effect.Effect<URL, BadUrl> =>
  Effect.suspend(() => {
    const parsed = URL.canParse(String(url)) ? new URL(url) : undefined
    const refuse = (reason: BadUrl["reason"]) => new BadUrl({ url: shown(String(url)), reason })
    if (parsed === undefined) return refuse("unreadable")
    if (parsed.username !== "" || parsed.password !== "") return refuse("credentials")
    parsed.hash = ""
    return isWeb(parsed) ? Effect.succeed(parsed) : refuse("protocol")
  })

const isWeb = ({ protocol }: URL): boolean => protocol === "http:" || protocol === "https:"

/** Words that make a header a secret wherever they stand in its name. */
const secretWords =
  /(^|[-_])(auth|authorization|cookie|credentials?|jwt|key|apikey|passw(or)?d|secret|session|signature|token)([-_]|$)/

/**
 * The headers of one hop. Once a redirect has led to another origin, no later hop gets secrets, since a server that was not
 * given them chose its address; nor `host`, which names the first origin.
 */
const headersFor = (
  settings: Settings,
  { headers: given = {}, secretHeaders = [] }: DownloadOptions,
  hasCrossed: boolean
): Readonly<Record<string, string>> => {
  const headers: Record<string, string> = { "user-agent": settings.userAgent, "accept": "*/*" }
  const named = new Set(secretHeaders.map((name) => name.toLowerCase()))
  for (const [name, value] of Object.entries(given)) {
    const key = name.toLowerCase()
    const isBound = key === "host" || named.has(key) || secretWords.test(key)
    if (!hasCrossed || !isBound) headers[key] = value
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
  const to = location !== undefined && URL.canParse(location, from.href)
    ? new URL(location, from.href)
    : undefined
  const refuse = (reason: BadRedirect["reason"]) => {
    const at = location === undefined ? location : shown(location)
    return new BadRedirect({ url: shown(from.href), location: at, reason })
  }
  if (location === undefined) return refuse("missing")
  if (to === undefined) return refuse("invalid")
  to.hash = ""
  if (!isWeb(to) || to.username !== "" || to.password !== "") return refuse("protocol")
  return seen.has(to.href) ? refuse("loop") : Effect.succeed(to)
}

const refused = (exchange: Exchange): Effect.Effect<never, HttpStatus> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const { status, url } = exchange
    const wait = waitOf(exchange.header("retry-after"), now)
    const retryAfter = wait === undefined ? undefined : Duration.millis(wait)
    return Effect.zipRight(drain(exchange), new HttpStatus({ url, status, retryAfter }))
  })

/** Writes the body into the draft: what has arrived in one write, while the next bytes arrive. */
const pour = (
  exchange: Exchange,
  draft: Files.Draft,
  { options: { maxBytes = Infinity, onBytes }, progress }: Request
): Effect.Effect<string, Files.FileError | TooLarge | TransportError> =>
  Effect.gen(function*() {
    const { take, url } = exchange
    const hash = createHash("sha256")
    while (true) {
      const chunks = yield* take
      if (chunks.length === 0) return hash.digest("hex")
      let added = 0
      for (const { length } of chunks) added += length
      progress.received += added
      if (progress.received > maxBytes) {
        return yield* new TooLarge({ url, maxBytes, seen: progress.received })
      }
      for (const chunk of chunks) hash.update(chunk)
      yield* draft.write(chunks)
      onBytes?.(added)
    }
  })

const save = (exchange: Exchange, finalUrl: string, request: Request) =>
  Effect.gen(function*() {
    const { url } = exchange
    const { progress } = request
    const { durability, expectedSha256, maxBytes = Infinity } = request.options
    const encoding = exchange.header("transfer-encoding")?.trim().toLowerCase() ?? "chunked"
    if (encoding !== "chunked") return yield* new UnsupportedEncoding({ url, encoding })
    const expected = lengthOf(exchange.header("content-length"))
    if (expected !== undefined && expected > maxBytes) {
      return yield* new TooLarge({ url, maxBytes, seen: expected })
    }
    return yield* Managed.use(Files.draftOf(request.destination, request.options), (draft) =>
      Effect.gen(function*() {
        const sha256 = yield* pour(exchange, draft, request)
        const { received } = progress
        if (expected !== undefined && received !== expected) {
          return yield* new Truncated({ url, received, expected })
        }
        if (expectedSha256 !== undefined && expectedSha256.toLowerCase() !== sha256) {
          return yield* new ChecksumMismatch({ url, expected: expectedSha256, actual: sha256 })
        }
        yield* draft.publish(request.destination, { durability })
        const downloaded: Downloaded = {
          url: request.url,
          finalUrl,
          path: request.destination,
          bytes: received,
          sha256,
          status: exchange.status,
          contentType: exchange.header("content-type")
        }
        return downloaded
      }))
  })

/** Sends one request, and uses its answer. */
export type Send = <A, E>(
  url: URL,
  headers: Readonly<Record<string, string>>,
  use: (exchange: Exchange) => Effect.Effect<A, E>
) => Effect.Effect<A, E | TransportError>

/** Follows redirects. The connection of each hop is free before the next request. */
export const fetched = (
  send: Send,
  settings: Settings,
  start: URL,
  request: Request
): Effect.Effect<Downloaded, DownloadError> =>
  Effect.gen(function*() {
    const { maxRedirects } = settings
    const { refusePrivate = false } = request.options
    const isPublic = refusePrivate && !(yield* isPrivate(start))
    const seen = new Set([start.href])
    let at = start
    let hasCrossed = false
    while (true) {
      hasCrossed ||= at.origin !== start.origin
      const headers = headersFor(settings, request.options, hasCrossed)
      const here = at
      const answered = (exchange: Exchange): Effect.Effect<Downloaded | URL, DownloadError> => {
        const { status } = exchange
        if (status === 200 || status === 203) return save(exchange, here.href, request)
        if (!redirects.has(status)) return refused(exchange)
        const location = exchange.header("location")
        return Effect.zipRight(drain(exchange), redirected(here, location, seen))
      }
      const outcome = yield* send(here, headers, answered)
      if (!(outcome instanceof URL)) return outcome
      if (seen.size > maxRedirects) {
        return yield* new TooManyRedirects({ url: shown(start.href), maxRedirects })
      }
      if (isPublic && (yield* isPrivate(outcome))) {
        const location = shown(outcome.href)
        return yield* new BadRedirect({ url: shown(at.href), location, reason: "private" })
      }
      at = outcome
      seen.add(at.href)
    }
  })
