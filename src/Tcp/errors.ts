/** Tcp/errors: why a connection could not be opened, or an operation on it failed. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"

const hints: Readonly<Record<string, string>> = {
  EACCES: "The account may not use that address; ports below 1024 need a privilege.",
  EADDRINUSE:
    "Another process listens there: stop it, or choose another address. If a process that crashed left its socket file, remove the file.",
  EADDRNOTAVAIL: "This host does not have that address.",
  ECONNABORTED: "This process cut the connection.",
  ECONNREFUSED: "Nothing listens there.",
  ECONNRESET: "The peer cut the connection.",
  EHOSTUNREACH: "There is no route to that host.",
  EMFILE: "Too many files are open in this process; raise `ulimit -n` or open fewer connections.",
  ENOENT: "There is no such socket file.",
  ENOTFOUND: "The name of the host is not known.",
  EPIPE: "The peer had closed the connection.",
  ETIMEDOUT: "The peer does not answer."
}

const withHint = (text: string, code: string): string => {
  const hint = hints[code]
  return hint === undefined ? `${text}: ${code}.` : `${text}: ${code}. ${hint}`
}

/**
 * The connection could not be opened. `code` is the operating system's own (`"ECONNREFUSED"`), or one of TLS (`"CERT_HAS_EXPIRED"`).
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpConnectFailed extends Data.TaggedError("TcpConnectFailed")<{
  readonly address: string
  readonly code: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return withHint(`Could not connect to ${this.address}`, this.code)
  }
}

/**
 * The server could not listen.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpListenFailed extends Data.TaggedError("TcpListenFailed")<{
  readonly address: string
  readonly code: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return withHint(`Could not listen on ${this.address}`, this.code)
  }
}

/**
 * The connection broke: the peer, the network or `abort` cut it.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpConnectionLost extends Data.TaggedError("TcpConnectionLost")<{
  readonly address: string
  readonly code: string
  readonly cause?: unknown
}> {
  override get message(): string {
    return withHint(`The connection to ${this.address} is lost`, this.code)
  }
}

/**
 * An operation did not end within its bound. A read has lost no bytes. The bytes of a write may be sent all the same.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpTimeout extends Data.TaggedError("TcpTimeout")<{
  readonly operation: "connect" | "read" | "write"
  readonly address: string
  readonly after: Duration.Duration
}> {
  override get message(): string {
    return `${this.operation} with ${this.address} did not end within ${
      Duration.format(this.after)
    }. `
      + `Look at what the peer does, or raise \`${this.operation}Timeout\`.`
  }
}

/**
 * The peer ended its side before all that was to be read had come. `partial` has the bytes that came: none, if it ended between two
 * frames.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpTruncated extends Data.TaggedError("TcpTruncated")<{
  readonly address: string
  /** Such as `"8 bytes"`, or the delimiter. */
  readonly expected: string
  readonly partial: Uint8Array
}> {
  override get message(): string {
    return `${this.address} ended the connection after ${this.partial.length} bytes; expected ${this.expected}.`
  }
}

/**
 * The delimiter did not come within `maxBytes`. The bytes stay unread.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpTooLong extends Data.TaggedError("TcpTooLong")<{
  readonly address: string
  readonly delimiter: string
  readonly maxBytes: number
}> {
  override get message(): string {
    return `${this.address} sent more than ${this.maxBytes} bytes without ${this.delimiter}. Raise \`maxBytes\`, or drop the peer.`
  }
}

/**
 * The operation came too late: the owner of the connection has released it, or `end` has ended the writing side.
 *
 * @category errors
 * @since 0.1.0
 */
export class TcpClosed extends Data.TaggedError("TcpClosed")<{
  readonly address: string
  readonly operation: "read" | "write"
}> {
  override get message(): string {
    return `The connection to ${this.address} is closed for ${this.operation}. Use it inside the scope that owns it, and write before \`end\`.`
  }
}

/** The code of an error of Node. An attempt on several addresses fails with the errors of each. */
export const codeOf = (error: unknown): string => {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error
  const { code } = (first ?? {}) as { readonly code?: unknown }
  return typeof code === "string" ? code : String(first)
}
