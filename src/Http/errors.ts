/**
 * Http/errors: the errors of a session, and which of them may pass.
 *
 * @since 0.1.0
 */
import { RequestError, ResponseError } from "@effect/platform/HttpClientError"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import type * as Files from "../Files.ts"
import { printable } from "../Ledger/words.ts"

/** An address without its query and its password, in which secrets may stand: errors, the ledger and spans show it like this. */
export const shown = (url: string): string => {
  const [path = "", query] = url.replace(/#.*$/s, "").split(/\?(.*)$/s, 2)
  return path.replace(/^([^/]*\/\/)[^/]*@/, "$1") + (query ? "?…" : "")
}

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
 * The server was silent for too long. `bytes` is how much of the body had arrived; `"total"` is the deadline of the whole download.
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
 * A redirect that cannot be followed: without a location, to another protocol, in a circle, or (with `refusePrivate`) from a
 * public server into a private network.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadRedirect extends Data.TaggedError("BadRedirect")<{
  readonly url: string
  readonly location: string | undefined
  readonly reason: "missing" | "invalid" | "protocol" | "loop" | "private"
}> {
  override get message(): string {
    const to = this.location === undefined ? "nowhere" : printable(this.location)
    return `${this.url} redirects to ${to} (${this.reason}). The server needs a repair.`
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
 * Not a usable URL: unreadable, not http(s), or with a password in it, which logs would show.
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
 * The request cannot be sent: a header that HTTP does not allow, or one that only the connection may set.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadRequest extends Data.TaggedError("BadRequest")<{
  readonly url: string
  readonly reason: string
}> {
  override get message(): string {
    return `The request to ${this.url} cannot be sent: ${
      printable(this.reason)
    }. Correct its headers.`
  }
}

/**
 * The server sent the body in a transfer coding other than `chunked`, though none was asked for. Its bytes are not the file's.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnsupportedEncoding extends Data.TaggedError("UnsupportedEncoding")<{
  readonly url: string
  readonly encoding: string
}> {
  override get message(): string {
    return `${this.url} came in the transfer coding "${
      printable(this.encoding)
    }", which was not asked for. The server needs a repair.`
  }
}

/**
 * The session's layer has closed. The request was not sent, or it was cut.
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

const transportErrors = [
  BadRequest,
  ConnectFailed,
  SessionClosed,
  Stalled,
  TransportFailed,
  Truncated
]

export const isTransportError = (
  error: unknown
): error is InstanceType<(typeof transportErrors)[number]> =>
  transportErrors.some((one) => error instanceof one)

/**
 * The failures of a download.
 *
 * @category errors
 * @since 0.1.0
 */
export type DownloadError =
  | BadRedirect
  | BadRequest
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
  | UnsupportedEncoding

/** `retry-after` in seconds or as a date, as a wait in milliseconds; any other text counts as none. */
export const waitOf = (header: string | undefined, now: number): number | undefined => {
  if (header === undefined) return undefined
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000
  const at = Date.parse(header)
  return Number.isNaN(at) ? undefined : Math.max(0, at - now)
}

/** The wait in milliseconds that a server asked for, or 0. */
export const askedWait = (error: unknown, now: number): number => {
  if (error instanceof HttpStatus && error.retryAfter !== undefined) {
    return Duration.toMillis(error.retryAfter)
  }
  return error instanceof ResponseError
    ? waitOf(error.response.headers["retry-after"], now) ?? 0
    : 0
}

const mayPass = (status: number): boolean =>
  status === 408 || status === 425 || status === 429 || (status >= 500 && status < 600)

/**
 * Whether the same download, or the same request of the session's `HttpClient`, may work a moment later. False for all other values.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRetryable = (error: unknown): boolean => {
  if (error instanceof HttpStatus) return mayPass(error.status)
  if (error instanceof ResponseError && error.reason === "StatusCode") {
    return mayPass(error.response.status)
  }
  if (error instanceof ResponseError || error instanceof RequestError) {
    return isRetryable(error.cause)
  }
  return error instanceof ConnectFailed || error instanceof Stalled
    || error instanceof TransportFailed || error instanceof Truncated
}
