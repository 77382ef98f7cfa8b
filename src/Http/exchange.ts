/**
 * Http/exchange: one request of a download, and its answer. ../Http.ts has the invariants.
 */
import type { Dispatcher } from "@effect/platform-node/Undici"
import type * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Managed from "../Managed.ts"
import { atRate, type Live, start } from "./connections.ts"
import { isTransportError, shown, TransportFailed } from "./errors.ts"
import { Abandoned, type Flow, type TransportError, type Waits } from "./flow.ts"

/** An answer whose head has arrived. */
export interface Exchange {
  /** As errors show it. */
  readonly url: string
  readonly status: number
  readonly header: (name: string) => string | undefined
  /** The chunks that have arrived since the last call; none at the end. One reader at a time. */
  readonly take: Effect.Effect<ReadonlyArray<Uint8Array>, TransportError>
}

/** The server has to wait while so many bytes of an answer have not been taken. */
const mostHeld = 1 << 20

/** Gathers an answer for one reader. */
class Answer implements Exchange, Dispatcher.DispatchHandler {
  readonly url: string
  flow: Flow | undefined
  status = 0
  #headers: Parameters<NonNullable<Dispatcher.DispatchHandler["onResponseStart"]>>[2] = {}
  #chunks: Array<Uint8Array> = []
  #held = 0
  #hasEnded = false
  #failure: TransportError | undefined
  #controller: Dispatcher.DispatchController | undefined
  /** Guarded by the reader, which is one. */
  #wake: (() => void) | undefined

  constructor(url: string) {
    this.url = url
  }
  header(name: string): string | undefined {
    const value = this.#headers[name]
    return typeof value === "object" ? value[0] : value
  }
  #await<A>(poll: () => Effect.Effect<A, TransportError> | undefined) {
    // WINDOW: a waker left behind resumes a wait that has ended, which does nothing.
    return Effect.suspend(() =>
      poll() ?? Effect.async<A, TransportError>((resume) => {
        this.#wake = () => {
          const ready = poll()
          if (ready === undefined) return
          this.#wake = undefined
          resume(ready)
        }
        return Effect.sync(() => this.#wake = undefined)
      })
    )
  }
  /** Waits for the head. */
  readonly head: Effect.Effect<Exchange, TransportError> = this.#await(() => {
    if (this.#failure !== undefined) return Effect.fail(this.#failure)
    return this.status === 0 ? undefined : Effect.succeed(this)
  })
  readonly take = this.#await(() => {
    if (this.#failure !== undefined) return Effect.fail(this.#failure)
    const chunks = this.#chunks
    if (chunks.length === 0 && !this.#hasEnded) return undefined
    this.#chunks = []
    if (this.#held >= mostHeld) this.#controller?.resume()
    this.#held = 0
    return Effect.succeed(chunks)
  })
  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
  }
  onResponseStart(...[, status, headers]: HeadArguments): void {
    if (status < 200) return
    this.status = status
    this.#headers = headers
    this.#wake?.()
  }
  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.#held += chunk.length
    if (this.#held >= mostHeld) controller.pause()
    this.#wake?.()
  }
  onResponseEnd(): void {
    this.#hasEnded = true
    this.#wake?.()
  }
  onResponseError(_: unknown, error: Error): void {
    // `Flow` has made it ours.
    this.#failure = error as TransportError
    this.#wake?.()
  }
}

type HeadArguments = Parameters<NonNullable<Dispatcher.DispatchHandler["onResponseStart"]>>

/** One request and the use of its answer. Its connection is free or cut when this ends. */
export const exchange = <A, E, R>(
  live: Live,
  after: Waits,
  url: URL,
  headers: Readonly<Record<string, string>>,
  use: (exchange: Exchange) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TransportError, R> => {
  const shownUrl = shown(url.href)
  const request = Managed.make({
    name: shownUrl,
    kind: "http request",
    acquire: Effect.sync(() => {
      const answer = new Answer(shownUrl)
      const path = url.pathname + url.search
      const options = { method: "GET", origin: url.origin, path, headers: { ...headers } }
      start(live, options, answer, after, (flow) => answer.flow = flow)
      return answer
    }),
    release: ({ flow }) =>
      Effect.sync(() => flow?.abandon(() => new Abandoned("The download ended.")))
  })
  return atRate(
    live,
    url.host,
    Managed.use(request, ({ head }) => Effect.flatMap(head, use))
  )
}

/** A failure of an `HttpClient` that may not be ours. */
const failureOf = (url: string, received: number) => (error: HttpClientError): TransportError => {
  const { cause } = error
  if (isTransportError(cause)) return cause
  return new TransportFailed({ url, code: error.reason, received, cause: error })
}

/** As `exchange`, through any client. Its deadlines are its own. */
export const exchangeThrough = <A, E, R>(
  client: HttpClient.HttpClient,
  url: URL,
  headers: Readonly<Record<string, string>>,
  use: (exchange: Exchange) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | TransportError, R> => {
  const shownUrl = shown(url.href)
  let received = 0
  const exchanged = Effect.gen(function*() {
    const sent = client.execute(HttpClientRequest.get(url, { headers }))
    const response = yield* Effect.catchAll(sent, (error) =>
      // A client that fails for a status has an answer all the same.
      error._tag === "ResponseError" && error.reason === "StatusCode"
        ? Effect.succeed(error.response)
        : Effect.fail(failureOf(shownUrl, received)(error)))
    const pull = yield* Stream.toPull(response.stream)
    const take: Exchange["take"] = Effect.matchEffect(pull, {
      onSuccess: (chunk: Chunk.Chunk<Uint8Array>) => {
        const chunks = Chunk.toReadonlyArray(chunk)
        for (const { length } of chunks) received += length
        return Effect.succeed(chunks)
      },
      onFailure: Option.match({
        onNone: () => Effect.succeed<ReadonlyArray<Uint8Array>>([]),
        onSome: (error: HttpClientError) => Effect.fail(failureOf(shownUrl, received)(error))
      })
    })
    return yield* use({
      url: shownUrl,
      status: response.status,
      header: (name) => response.headers[name],
      take
    })
  })
  return Effect.scoped(exchanged) as Effect.Effect<A, E | TransportError, R>
}

const drainBytes = 16_384
const drainFor = Duration.seconds(1)

/** Reads a small body to its end, so that its connection can serve again. The request's owner cuts a large or slow one. */
export const drain = ({ take }: Exchange): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let left = drainBytes; left > 0;) {
      const chunks = yield* take
      if (chunks.length === 0) return
      for (const { length } of chunks) left -= length
    }
  }).pipe(Effect.ignore, Effect.timeoutOption(drainFor), Effect.asVoid)
