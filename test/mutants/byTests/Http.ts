/** Mutants of Http, found by test/Http.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { of } from "./mutant.ts"

const client = of("Http/client.ts", "Http.test.ts")
const connections = of("Http/connections.ts", "Http.test.ts")
const errors = of("Http/errors.ts", "Http.test.ts")
const flow = of("Http/flow.ts", "Http.test.ts")
const door = of("Http.ts", "Http.test.ts")
const save = of("Http/save.ts", "Http.test.ts")

export const mutants = [
  flow(
    "a 103 counts as an answer",
    "if (status < 200) {",
    "if (status < 100) {",
    "nothing but 103"
  ),
  flow(
    "a 103 starts the deadline for the headers again",
    "if (this.timer === undefined) {",
    "if (this.timer !== null) {",
    "nothing but 103"
  ),
  flow(
    "a request that waits for a connection outlives its scope",
    "if (this.abandoned !== undefined) return controller.abort(this.abandoned)",
    "",
    "in a scope that has closed"
  ),
  client(
    "a request starts in a scope that has closed",
    "if (hasEnded) abandon()",
    "",
    "in a scope that has closed"
  ),
  flow(
    "a reset is the end of a body without a length",
    "if (reset !== undefined) return this.onResponseError(controller, reset)",
    "",
    "each failure has"
  ),
  connections(
    "the reset of a socket is not noted",
    "if (\"syscall\" in error) broken.set(socket, error)",
    "",
    "each failure has"
  ),
  flow(
    "a header that cannot be sent may pass",
    "return new BadRequest({ url, reason: cause.message })",
    "return new TransportFailed({ url, code: cause.message, received, cause })",
    "a header that cannot be sent"
  ),
  save(
    "a body in another transfer coding is saved",
    "if (encoding !== \"chunked\") return",
    "if (encoding === \"\") return",
    "each failure has"
  ),
  save(
    "the way back to the first origin gets the secrets again",
    "hasCrossed ||= at.origin !== start.origin",
    "hasCrossed = at.origin !== start.origin",
    "once a redirect has left"
  ),
  save(
    "`host` follows a redirect to another origin",
    "key === \"host\" || ",
    "",
    "once a redirect has left"
  ),
  save(
    "the headers that the caller names are no secrets",
    "named.has(key) || ",
    "",
    "once a redirect has left"
  ),
  save(
    "a redirect into the private network is followed",
    "if (isPublic && (yield* isPrivate(outcome))) {",
    "if (isPublic && false) {",
    "`refusePrivate` refuses"
  ),
  door(
    "what is wrapped around the client of the session does not apply",
    "Option.isNone(found) || found.value === own",
    "true",
    "what is wrapped around"
  ),
  door(
    "`withBounds` changes nothing",
    "(outer) => ({ ...outer, ...own })",
    "(outer) => outer",
    "each bound can be set"
  ),
  door(
    "the cap of files is not kept",
    "return Parallel.forEach(items, each, { concurrency })",
    "return Parallel.forEach(items, each, { concurrency: concurrency + 1 })",
    "with `either` each file"
  ),
  errors(
    "an error shows the query",
    "(query ? \"?…\" : \"\")",
    "(query ? `?${query}` : \"\")",
    "queries and passwords"
  ),
  errors(
    "a status that does not exist may pass",
    "(status >= 500 && status < 600)",
    "status >= 500",
    "does not wait after an error that stays"
  ),
  errors(
    "a failure of the HttpClient is not retried",
    "return isRetryable(error.cause)",
    "return false",
    "is retried like a download"
  )
]
