/** Http/client: `@effect/platform`'s `HttpClient` over the connections of a session. ../Http.ts has the invariants. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { atRate, dispatcherOf, type Live, type Settings, settingsFor } from "./connections.ts"
import { Abandoned, type Flow } from "./flow.ts"

const { UndiciRequestOptions } = NodeHttpClient

/** Path and method are the request's; the platform writes them over these. */
const own = { path: "", method: "GET" } as const

/** Ties a request to the scope it runs in, if any, until its connection is free (Http-2). */
const tied = <A, E, R>(request: Effect.Effect<A, E, R>, settings: Settings) =>
  Effect.contextWithEffect((context: Context.Context<R>) => {
    const given = Option.getOrUndefined(Context.getOption(context, UndiciRequestOptions))
    const { after } = settings
    const scope = Context.getOption(context, Scope.Scope)
    if (Option.isNone(scope)) {
      const options = { ...own, ...given, after }
      return Effect.provideService(request, UndiciRequestOptions, options)
    }
    // MASK: the tie is made before the request and undone with it; the request itself is restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        // A scope of its own, so that the long-lived one forgets the request when its connection is free.
        const tie = yield* Scope.fork(scope.value, ExecutionStrategy.sequential)
        let flow: Flow | undefined
        let hasEnded = false
        const onFree = () => Effect.runSync(Scope.close(tie, Exit.void))
        const abandon = () =>
          flow?.abandon(() => new Abandoned("The scope of this request has ended."))
        const onFlow = (started: Flow) => {
          flow = started
          if (hasEnded) abandon()
        }
        const ended = () => {
          hasEnded = true
          abandon()
        }
        yield* Scope.addFinalizer(tie, Effect.sync(ended))
        const options = { ...own, ...given, after, onFlow, onFree }
        const sent = restore(Effect.provideService(request, UndiciRequestOptions, options))
        return yield* Effect.onError(sent, (cause) => Scope.close(tie, Exit.failCause(cause)))
      })
    )
  })

const hostOf = ({ url }: HttpClientRequest.HttpClientRequest): string =>
  URL.canParse(url) ? new URL(url).host : ""

export const makeClient = (live: Live): HttpClient.HttpClient =>
  NodeHttpClient.makeUndici(dispatcherOf(live)).pipe(
    HttpClient.mapRequest((request) =>
      request.headers["user-agent"] === undefined
        ? HttpClientRequest.setHeader(request, "user-agent", live.settings.userAgent)
        : request
    ),
    HttpClient.transform((sent, request) =>
      atRate(
        live,
        hostOf(request),
        Effect.flatMap(settingsFor(live), (settings) => tied(sent, settings))
      )
    )
  )
