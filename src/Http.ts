/**
 * Http: a client whose sockets have an owner, and downloads that are whole or not at all.
 *
 * DESIGN. A session is one undici `Agent` owned by a scope. `@effect/platform`'s `HttpClient` uses the same agent inside it, with
 * deadlines that fire; the stock layers turn them off. `download` talks to the agent itself, because a platform error does not
 * distinguish a refused connection from a cut body. The body goes into a `Files.draftOf`, so the destination holds the old file or
 * the whole new one. The caller retries: `Effect.retry(retryPolicy())`.
 * Http/connections.ts has the sockets, Http/exchange.ts one request, Http/save.ts redirects and the file, Http/client.ts the
 * platform's client.
 *
 * INVARIANTS
 * - Http-1 (H1) When the layer has closed, every socket is closed and every request in flight has failed.
 * - Http-2 (H1) An unread body is cut when the scope of its request ends, without waiting for the garbage collector.
 * - Http-3 (H2) Every wait has a deadline: connect, headers, silence in the body. Each is a `Stalled` that says which.
 * - Http-4 (H3) After `download`, however it ended, the destination is untouched or complete, and nothing of it is left beside it.
 *   Downloads to one destination do not touch each other, and no file of the user's but the destination is touched.
 * - Http-5 (H4) Never more than `perHost` connections to one origin, nor more than `total` downloads at once.
 * - Http-6 (H3) Once a redirect has left the first origin, no hop gets a secret. Errors, the ledger and spans show no query.
 * - Http-7 (H4) `downloadAll` has at most `concurrency` files in hand. When it has ended, however it ended, none of them changes.
 *
 * COST (2026-11, loopback, 2 cores) about 3.5 ms a small download, nearly all of it calls to the file system; 300 MB/s a
 *   large one, hashed; one chunk (up to 64 KiB) in memory each.
 * NOT DONE: resuming with Range; proxies; a circuit breaker; `refusePrivate` trusts that a name keeps the address it had when asked; HTTP/2; `total` counts downloads, not the `HttpClient`'s requests; a body without
 *   length or chunks ends where the server closes, so a cut one looks complete (give `expectedSha256`).
 * SOURCES undici #1139, #4364 (unread bodies hold connections), #5360 (its backpressure may end the process: see `Flow`);
 *   huggingface_hub #4060, httrack #428 (short answers taken for success); httpx #1461 (cancelled requests eat the pool).
 *
 * @since 0.1.0
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as ScheduleInterval from "effect/ScheduleInterval"
import { makeClient } from "./Http/client.ts"
import {
  type Bounds,
  bounds,
  close,
  type Live,
  open,
  type SessionOptions,
  settingsFor
} from "./Http/connections.ts"
import * as Errors from "./Http/errors.ts"
import { exchange, exchangeThrough } from "./Http/exchange.ts"
import * as Save from "./Http/save.ts"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"
import * as Parallel from "./Parallel.ts"
import * as RateLimiter from "./RateLimiter.ts"
import * as Semaphore from "./Semaphore.ts"

export type { Bounds, SessionOptions, Tls } from "./Http/connections.ts"
export {
  BadRedirect,
  BadRequest,
  BadUrl,
  ChecksumMismatch,
  ConnectFailed,
  type DownloadError,
  HttpStatus,
  isRetryable,
  SessionClosed,
  Stalled,
  TooLarge,
  TooManyRedirects,
  TransportFailed,
  Truncated,
  UnsupportedEncoding
} from "./Http/errors.ts"
export type { Downloaded, DownloadOptions } from "./Http/save.ts"

/**
 * The counters of a session at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface SessionStats {
  /** Connections open or opening. */
  readonly sockets: number
  /** Downloads that have begun and not ended. */
  readonly downloads: number
  readonly closed: boolean
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
  /** @internal */
  readonly own: HttpClient.HttpClient
}

/**
 * The session that `download` uses.
 *
 * @category tags
 * @since 0.1.0
 */
export class Session extends Context.Tag("holdfast/Http/Session")<Session, SessionService>() {}

/**
 * A session for as long as the layer lives: `download` inside it, and `@effect/platform`'s `HttpClient` over the same
 * connections.
 *
 * **Interruption** — closing cuts requests in flight: they fail, downloads with `SessionClosed`.
 * **Errors** — options that are no positive whole numbers are a defect.
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
    acquire: Effect.map(
      options.hostRate === undefined
        ? Effect.succeed(undefined)
        : RateLimiter.makeKeyed<string>(options.hostRate),
      (rate) => open(options, rate)
    ),
    release: close
  })
  return Layer.scopedContext(Effect.map(Ledger.withSite(opened, site), (live) => {
    const stats = Effect.sync(() => ({
      sockets: live.connections.sockets.size,
      downloads: live.downloads,
      closed: live.connections.closed
    }))
    const own = makeClient(live)
    return Context.add(Context.make(HttpClient.HttpClient, own), Session, { live, own, stats })
  }))
}

/**
 * Downloads one file: one attempt, whole or not at all.
 *
 * **Details** — redirects are followed, the body is asked for uncompressed, hashed as it passes and gathered in a partial
 *   file, which takes the destination's place when it is complete. The directory must exist. The requests go through the
 *   `HttpClient` of the Context, if something is wrapped around the session's (`client`).
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
  options: Save.DownloadOptions = {}
): Effect.Effect<Save.Downloaded, Errors.DownloadError, Session> => {
  const site = Ledger.unsafeSite()
  const downloaded = Effect.gen(function*() {
    const { live, own } = yield* Session
    const start = yield* Save.parse(url)
    const shown = Errors.shown(start.href)
    const { permits } = live
    const settings = yield* settingsFor(live)
    const progress = { received: 0 }
    const found = options.client === "session"
      ? Option.none()
      : yield* Effect.serviceOption(HttpClient.HttpClient)
    const send: Save.Send = Option.isNone(found) || found.value === own
      ? (...request) => exchange(live, settings.after, ...request)
      : (...request) => exchangeThrough(found.value, ...request)
    const request: Save.Request = { url: start.href, destination, options, progress }
    const attempt = Effect.suspend(() =>
      live.connections.closed
        ? new Errors.SessionClosed({ url: shown })
        : Effect.acquireUseRelease(
          Effect.sync(() => live.downloads++),
          () => Save.fetched(send, settings, start, request),
          () => Effect.sync(() => live.downloads--)
        )
    )
    const turn = permits === undefined ? attempt : Semaphore.withPermits(permits, 1)(attempt)
    const traced = Ledger.withSpan(turn, "http.download", {
      kind: "client",
      attributes: () => ({ "http.request.method": "GET", "url.full": shown })
    })
    const { total } = settings.after
    if (!Duration.isFinite(total)) return yield* traced
    const onTimeout = () =>
      new Errors.Stalled({
        url: shown,
        phase: "total",
        bytes: progress.received,
        after: total
      })
    return yield* Effect.timeoutFail(traced, { duration: total, onTimeout })
  })
  return Ledger.withSite(downloaded, site)
}

/**
 * One file of `downloadAll`.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadItem extends Save.DownloadOptions {
  readonly url: string | URL
  readonly destination: string
}

/**
 * How far `downloadAll` has come.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadProgress {
  /** Written, those of failed attempts included. */
  readonly bytes: number
  readonly succeeded: number
  readonly failed: number
}

/**
 * Options of `downloadAll`.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadAllOptions {
  /** Files at once. The session's `perHost` bounds the connections to each origin. Default 8. */
  readonly concurrency?: number | undefined
  /** `"failFast"` interrupts the others when one fails; `"either"` gives the outcome of each. Default `"failFast"`. */
  readonly mode?: "either" | "failFast" | undefined
  /** When a file is tried again, such as `retryPolicy()`. Default: never. */
  readonly retry?: Schedule.Schedule<unknown, Errors.DownloadError> | undefined
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined
}

/**
 * Downloads many files; each is whole or not there.
 *
 * **Details** — the results are in the order of the items, which are taken as workers become free.
 * **Interruption** — stops all, and waits until none of them changes a file any more.
 * **Errors** — with `"failFast"` the first; with `"either"` none.
 * **Cost** — a download each.
 *
 * **Example** (all that can be had)
 * ```ts
 * import { Effect } from "effect"
 * import * as Http from "holdfast/Http"
 *
 * const names = ["a", "b", "c"]
 * const items = names.map((name) => ({ url: `https://example.com/${name}`, destination: name }))
 * export const outcomes = Http.downloadAll(items, { mode: "either", retry: Http.retryPolicy() }).pipe(
 *   Effect.provide(Http.session())
 * )
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const downloadAll: {
  (
    items: Iterable<DownloadItem>,
    options: DownloadAllOptions & { readonly mode: "either" }
  ): Effect.Effect<
    Array<Either.Either<Save.Downloaded, Errors.DownloadError>>,
    never,
    Session
  >
  (
    items: Iterable<DownloadItem>,
    options?: DownloadAllOptions & { readonly mode?: "failFast" | undefined }
  ): Effect.Effect<Array<Save.Downloaded>, Errors.DownloadError, Session>
} = (items: Iterable<DownloadItem>, options: DownloadAllOptions = {}) =>
  // The type depends on the mode, which an implementation cannot say.
  (options.mode === "either"
    ? all(items, options, Effect.either)
    : all(items, options, (one) => one)) as Effect.Effect<Array<never>, never, Session>

const all = <A, E>(
  items: Iterable<DownloadItem>,
  { concurrency = 8, onProgress, retry }: DownloadAllOptions,
  outcome: (
    one: Effect.Effect<Save.Downloaded, Errors.DownloadError, Session>
  ) => Effect.Effect<A, E, Session>
): Effect.Effect<Array<A>, E, Session> =>
  Effect.suspend(() => {
    let progress: DownloadProgress = { bytes: 0, succeeded: 0, failed: 0 }
    const add = (key: keyof DownloadProgress, n: number) => {
      progress = { ...progress, [key]: progress[key] + n }
      onProgress?.(progress)
    }
    const each = ({ destination, url, ...own }: DownloadItem) => {
      const onBytes = (added: number) => {
        own.onBytes?.(added)
        add("bytes", added)
      }
      const one = download(url, destination, { ...own, onBytes })
      return outcome(Effect.tapBoth(retry === undefined ? one : Effect.retry(one, retry), {
        onFailure: () => Effect.sync(() => add("failed", 1)),
        onSuccess: () => Effect.sync(() => add("succeeded", 1))
      }))
    }
    return Parallel.forEach(items, each, { concurrency })
  })

/**
 * Runs requests with other bounds than those of their session: downloads, and requests of the session's `HttpClient`.
 *
 * **Example** (a stream that may be silent for as long as it likes)
 * ```ts
 * import { HttpClient } from "@effect/platform"
 * import { Duration, Effect, Stream } from "effect"
 * import * as Http from "holdfast/Http"
 *
 * const events = Effect.flatMap(HttpClient.get("https://example.com/events"), (response) =>
 *   Stream.runForEach(response.stream, (bytes) => Effect.log(bytes.length)))
 *
 * export const heard = Effect.scoped(events).pipe(Http.withBounds({ idleTimeout: Duration.infinity }))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const withBounds: {
  (own: Bounds): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, own: Bounds): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, own: Bounds) =>
    Effect.locallyWith(self, bounds, (outer) => ({ ...outer, ...own }))
)

/**
 * Options of `retryPolicy`.
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
 * Retries after a growing wait, or after the wait that the server asked for. An error that `isRetryable` excludes is not retried.
 * For downloads, and for requests of `HttpClient` that may be sent twice.
 *
 * **Example** (three more attempts)
 * ```ts
 * import { Effect } from "effect"
 * import * as Http from "holdfast/Http"
 *
 * export const downloaded = Http.download("https://example.com/a", "a.html").pipe(
 *   Effect.retry(Http.retryPolicy({ times: 3 }))
 * )
 * ```
 *
 * @category schedules
 * @since 0.1.0
 */
export const retryPolicy = (options: RetryOptions = {}): Schedule.Schedule<number, unknown> => {
  const times = options.times ?? 3
  const base = Duration.toMillis(options.base ?? "100 millis")
  const cap = Duration.toMillis(options.cap ?? "30 seconds")
  const factor = options.jittered === false
    ? Effect.succeed(1)
    : Effect.map(Random.next, (random) => 1 - random / 2)
  return Schedule.makeWithState(0, (now, error: unknown, tried) => {
    if (tried >= times || !Errors.isRetryable(error)) {
      return Effect.succeed([tried, tried, ScheduleDecision.done] as const)
    }
    return Effect.map(factor, (factor) => {
      const asked = Errors.askedWait(error, now)
      const wait = Math.min(cap, Math.max(base * 2 ** tried * factor, asked))
      const next = ScheduleDecision.continueWith(ScheduleInterval.after(now + wait))
      return [tried + 1, tried + 1, next] as const
    })
  })
}
