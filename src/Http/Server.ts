/**
 * Http/Server: `@effect/platform`'s HTTP server on Node, made so that no request is lost when the process starts or ends.
 *
 * DESIGN. `layer` takes the place of `NodeHttpServer.layer`; `HttpApi`, routers and `Layer.launch` stay as they are. The stock
 * layer listens before the handler and its services exist, and removes the handler before it stops listening. Here the listener
 * is a resource of the layer that serves: it opens last and is released first. Each request passes a middleware that answers the
 * probes and marks all other requests as in flight. Shutdown.ts decides when each phase of the end begins.
 *
 * INVARIANTS
 * - HttpServer-1 The listener opens when all that the handler needs is built, and closes before any of it is released. A request
 *   that comes before the handler is attached is passed to it.
 * - HttpServer-2 (L3) While draining, the server accepts connections, is not ready, and answers with `Connection: close`. In
 *   stopping it accepts no more; each request whose headers it has read gets its whole answer before the connection is closed.
 * - HttpServer-3 (L4) A connection that is still open at the release deadline is cut, and the server is reported as abandoned.
 * - HttpServer-4 Each probe runs all of its checks. Each check ends by `checkTimeout`, and has at most one fiber. Readiness comes
 *   back as soon as the checks pass again.
 *
 * COST (2026-11) about 10 µs of CPU a request, beside 150 of the stock server and a client.
 * NOT DONE HTTP/2. WebSockets are not in flight: they are closed when the server is released. A client that reuses a connection
 *   in the very moment in which it is closed gets a reset, as from every HTTP/1.1 server; a `drainDelay` avoids that.
 * SOURCES terminus and lightship (the order), http-terminator (connections), nodejs/node#60617.
 *
 * @since 0.1.0
 */
import type * as NodeContext from "@effect/platform-node/NodeContext"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import type * as Etag from "@effect/platform/Etag"
import type * as HttpApp from "@effect/platform/HttpApp"
import type { HttpMiddleware } from "@effect/platform/HttpMiddleware"
import type { HttpPlatform } from "@effect/platform/HttpPlatform"
import * as HttpServer from "@effect/platform/HttpServer"
import type { ServeError } from "@effect/platform/HttpServerError"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Http from "node:http"
import type * as Net from "node:net"
import * as Deadline from "../Deadline.ts"
import * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"
import * as Parallel from "../Parallel.ts"
import * as Shutdown from "../Shutdown.ts"
import { isWebSocket, open } from "./listener.ts"

/**
 * Named effects, such as a query that must succeed. One that fails, dies or takes too long makes its probe answer 503.
 *
 * @category models
 * @since 0.1.0
 */
export type Checks = Readonly<Record<string, Effect.Effect<unknown, unknown, unknown>>>

/**
 * The options of `layer`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<Ready extends Checks = {}, Live extends Checks = {}> {
  /** What must work for the service to get requests. Run at each probe. */
  readonly ready?: Ready | undefined
  /** What only a restart of the process repairs. Run at each probe. Default: none, so the answer says that the process runs. */
  readonly live?: Live | undefined
  /** The bound of each check. Default 1 second, which is the bound that Kubernetes has for a probe. */
  readonly checkTimeout?: Duration.DurationInput | undefined
  /** Default `"/ready"`. */
  readonly readyPath?: string | undefined
  /** Default `"/live"`. */
  readonly livePath?: string | undefined
  /** How long the release waits for answers under way. Default 5 seconds. A shutdown has waited its `stopTimeout` before. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

type Probe = Effect.Effect<HttpServerResponse.HttpServerResponse>

type NeedsOf<E> = E extends Effect.Effect<unknown, unknown, infer R> ? R : never

/** What the checks of each record need. */
type Needs<C> = C extends Checks ? NeedsOf<C[keyof C]> : never

/** What `NodeHttpServer.layer` provides. */
type Provided = HttpServer.HttpServer | HttpPlatform | Etag.Generator | NodeContext.NodeContext

// Probes.

const respond = (status: number, body: unknown) =>
  HttpServerResponse.unsafeJson(body, { status, headers: { "cache-control": "no-store" } })

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return String(error instanceof Error && error.message !== "" ? error.message : error)
}

/** The reason why a check failed, if it did. INVARIANT HttpServer-4: probes at one time share one run of it. */
const bounded = (check: Effect.Effect<unknown, unknown>, timeout: Duration.Duration) => {
  const late = `did not end within ${Duration.format(timeout)}`
  let running: Deferred.Deferred<unknown, unknown> | undefined
  const started = Effect.suspend(() => {
    if (running !== undefined) return Effect.succeed(running)
    const ended = running = Deferred.unsafeMake<unknown, unknown>(FiberId.none)
    return check.pipe(
      Effect.timeoutFail({ duration: timeout, onTimeout: () => new Error(late) }),
      Effect.interruptible,
      Effect.onExit((exit) =>
        Effect.sync(() => {
          running = undefined
          Deferred.unsafeDone(ended, exit)
        })
      ),
      Effect.forkDaemon,
      Effect.as(ended)
    )
  })
  // A check that does not stop when it is interrupted holds up no probe.
  return Effect.map(
    Effect.flatMap(started, (ended) => Deadline.exit(Deferred.await(ended), timeout)),
    Option.match({
      onNone: () => late,
      onSome: (exit) => Exit.isFailure(exit) ? reasonOf(exit.cause) : undefined
    })
  )
}

const probeOf = (
  checks: Checks,
  timeout: Duration.DurationInput,
  context: Context.Context<never>
): Probe => {
  const all = Object.entries(checks).map(([name, check]) => {
    // The type of `make` asks for what the checks need.
    const provided = Effect.provide(check, context) as Effect.Effect<unknown, unknown>
    return Effect.map(
      bounded(provided, Duration.decode(timeout)),
      (failed) => [name, failed] as const
    )
  })
  return Effect.map(Parallel.all(all, { concurrency: "unbounded" }), (ended) => {
    const failed = Object.fromEntries(ended.filter(([, reason]) => reason !== undefined))
    return Object.keys(failed).length === 0
      ? respond(200, { status: "ok" })
      : respond(503, { status: "failing", failed })
  })
}

/** Not ready from the step of the request on. Until then the checks decide. */
const readiness = (shutdown: Shutdown.Service, checks: Probe): Probe =>
  Effect.if(shutdown.isReady, {
    onTrue: () => checks,
    onFalse: () => Effect.succeed(respond(503, { status: shutdown.unsafePhase() }))
  })

/** Answers probes, and marks all other requests as in flight. */
const middlewareOf =
  (shutdown: Shutdown.Service, probes: ReadonlyMap<string, Probe>, site: Ledger.Site | undefined) =>
  (app: HttpApp.Default<unknown>): HttpApp.Default<unknown> =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers, method, url }) => {
      const isRead = method === "GET" || method === "HEAD"
      const probe = isRead ? probes.get(url.split("?", 1)[0]!) : undefined
      return probe ?? (isWebSocket(headers) ? app : shutdown.inFlight(app, site))
    })

const make = <Ready extends Checks, Live extends Checks>(
  evaluate: () => Http.Server,
  listen: Net.ListenOptions,
  options: Options<Ready, Live>,
  site: Ledger.Site | undefined
): Effect.Effect<HttpServer.HttpServer, never, Needs<Live | Ready>> =>
  Effect.map(Effect.context<Needs<Live | Ready>>(), (context) => {
    const timeout = options.checkTimeout ?? "1 second"
    const ready = probeOf(options.ready ?? {}, timeout, context)
    const live = probeOf(options.live ?? {}, timeout, context)
    let address: HttpServer.Address | undefined
    const serve = (app: HttpApp.Default<unknown>, middleware?: HttpMiddleware) =>
      Effect.gen(function*() {
        const shutdown = yield* Shutdown.Shutdown
        const ours = middlewareOf(
          shutdown,
          new Map([
            [options.readyPath ?? "/ready", readiness(shutdown, ready)],
            [options.livePath ?? "/live", live]
          ]),
          site
        )
        const listener = Managed.make({
          name: String(listen.path ?? `port ${listen.port}`),
          kind: "http server",
          releaseDeadline: options.releaseDeadline,
          acquire: open(evaluate, listen, app, (app) => ours(middleware?.(app) ?? app)),
          release: ({ close, connections }) => Effect.zipRight(connections.stop, close),
          onOverrun: ({ connections }) => connections.cut
        })
        const { connections, ...opened } = yield* Ledger.withSite(listener, site)
        address = opened.address
        yield* shutdown.onDrain(connections.drain, site)
        yield* shutdown.onStop(
          Effect.onInterrupt(connections.stop, () => connections.cutPartial),
          site
        )
      })
    const server = HttpServer.make({
      // Its ServeError stands in the type of the layer, which is provided to every layer that serves.
      serve: serve as HttpServer.HttpServer["serve"],
      address: { _tag: "UnixAddress", path: "" }
    })
    return Object.defineProperty(server, "address", {
      get: () => {
        if (address !== undefined) return address
        throw new Error(
          "holdfast/Http/Server: there is no address before a handler is served. Ask for it in a layer that is built after that."
        )
      }
    })
  })

// MASK: stock `Layer.merge`, of which this layer is made, never ends if it is interrupted at an unlucky yield. It does not wait.
const platform = Effect.uninterruptible(Layer.build(NodeHttpServer.layerContext))

/** The server and the services of the platform, one after the other. */
const withPlatform = <E, R>(
  made: Effect.Effect<HttpServer.HttpServer, E, R>
): Layer.Layer<Provided, E, Exclude<R, Scope.Scope>> =>
  Layer.scopedContext(
    Effect.zipWith(
      platform,
      made,
      (services, server) => Context.add(services, HttpServer.HttpServer, server)
    )
  )

/**
 * The HTTP server of a service: the services of `NodeHttpServer.layer`, whose place it takes, with the same arguments.
 *
 * **Details** — The server listens once `HttpApiBuilder.serve`, `HttpServer.serve` or `HttpLayerRouter.serve` has been built with all
 *   that it needs. It answers `readyPath` and `livePath` itself: 200 `{"status":"ok"}`; 503 `{"status":"failing","failed":{…}}` with
 *   the reason of each failed check; not ready after the request for the end: 503 `{"status":"draining"}`.
 *   The end, under `Main.run`: not ready, and `Connection: close`, for `drainDelay`; then it stops listening and answers what is
 *   under way, for `stopTimeout`; then the program is interrupted, and requests that are left get 503. Without `Main.run`
 *   the release does this within `releaseDeadline`. End an endless response by `Stream.interruptWhen(Shutdown.requested)`.
 *   Mark a batch that runs beside the server by `Shutdown.inFlight`; `drains` is for a program that then ends by itself.
 *   Give `drainDelay` the time in which your load balancer sees that the service is not ready: until then it sends requests.
 * **Interruption** — Holding: released as above. A request: as by the stock server.
 * **Errors** — `ServeError` if it cannot listen, when the layer that serves is built.
 * **Cost** — see the file head.
 *
 * **Example** (a service that ends without losing a request)
 * ```ts
 * import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpMiddleware, HttpServer } from "@effect/platform"
 * import { SqlClient } from "@effect/sql"
 * import { Effect, Layer, Schema } from "effect"
 * import * as Server from "holdfast/Http/Server"
 * import * as Main from "holdfast/Main"
 * import * as Postgres from "holdfast/Postgres"
 * import { createServer } from "node:http"
 *
 * const Api = HttpApi.make("shop").add(
 *   HttpApiGroup.make("cats").add(HttpApiEndpoint.get("count", "/cats").addSuccess(Schema.Number))
 * )
 * const Cats = HttpApiBuilder.group(Api, "cats", (handlers) =>
 *   Effect.map(SqlClient.SqlClient, (sql) =>
 *     handlers.handle("count", () =>
 *       Effect.orDie(Effect.map(sql`select 1`, (rows) => rows.length)))))
 * const database = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select 1`)
 *
 * const Service = HttpApiBuilder.serve(HttpMiddleware.logger).pipe(
 *   HttpServer.withLogAddress,
 *   Layer.provide(HttpApiBuilder.api(Api)),
 *   Layer.provide(Cats),
 *   Layer.provide(Server.layer(() => createServer(), { port: 3000 }, { ready: { database } })),
 *   Layer.provide(Postgres.layer())
 * )
 * Main.run(Layer.launch(Service), { shutdown: { drainDelay: "5 seconds" } })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <Ready extends Checks = {}, Live extends Checks = {}>(
  evaluate: () => Http.Server,
  listen: Net.ListenOptions,
  options: Options<Ready, Live> = {}
): Layer.Layer<Provided, ServeError, Needs<Live | Ready>> => {
  return withPlatform(make(evaluate, listen, options, Ledger.unsafeSite()))
}

/**
 * `layer`, with the address from the configuration.
 *
 * **Errors** — and `ConfigError`. **Interruption**, **Cost** — as `layer`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <Ready extends Checks = {}, Live extends Checks = {}>(
  evaluate: () => Http.Server,
  listen: Config.Config.Wrap<Net.ListenOptions>,
  options: Options<Ready, Live> = {}
): Layer.Layer<Provided, ConfigError.ConfigError | ServeError, Needs<Live | Ready>> => {
  const site = Ledger.unsafeSite()
  return withPlatform(
    Effect.flatMap(Config.unwrap(listen), (listen) => make(evaluate, listen, options, site))
  )
}
