/**
 * urlList: a text file of URLs, one per line, as the list of distinct items a mirror works on.
 *
 * DESIGN. One bad line never spoils the others: it becomes a `rejected` line with a reason, for the report. Only what
 * makes the whole list useless is an error. URLs are compared as WHATWG normalises them, without their fragment, because
 * that is what is sent to the server.
 *
 * INVARIANTS
 * - UrlList-1 Nothing vanishes: each line is blank, a comment, an item, a duplicate of an item, or rejected with a reason.
 * - UrlList-2 Items are distinct, absolute, http(s), without fragment and credentials, and normalise to themselves.
 * - UrlList-3 The text of a rejected line is short, one line, free of control characters and of credentials.
 *
 * COST O(bytes); the file is held in memory once, at most `maxBytes` (default 64 MiB).
 * NOT DONE "-" for standard input: `/dev/stdin` does it where it exists, for a pipe too.
 * SOURCES the URL standard (url.spec.whatwg.org), wget's `--input-file`.
 */
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { createReadStream } from "node:fs"
import { printable } from "../Ledger/words.ts"

/** A line that is no item, and the reason. `text` is for display only: it is shortened and made safe (UrlList-3). */
export interface Rejected {
  /** Counted from 1. */
  readonly line: number
  readonly text: string
  readonly reason: string
}

/** The content of a list. `urls` are in the order of the file; `duplicates` counts the lines that repeat one of them. */
export interface UrlList {
  readonly urls: ReadonlyArray<string>
  readonly duplicates: number
  readonly rejected: ReadonlyArray<Rejected>
}

export interface Options {
  /** In characters, as written and as normalised. Default 8192, what common servers take. */
  readonly maxUrlLength?: number | undefined
  /** Of the file. Default 64 MiB. */
  readonly maxBytes?: number | undefined
}

export type UnreadableReason = "missing" | "directory" | "denied" | "too large" | "failed"

/** The list cannot be read: look at its name, its permissions, or its size. */
export class ListUnreadable extends Data.TaggedError("ListUnreadable")<{
  readonly name: string
  readonly reason: UnreadableReason
  readonly maxBytes: number
  readonly cause?: unknown
}> {
  override get message(): string {
    const name = shown(this.name, 400)
    switch (this.reason) {
      case "missing":
        return `There is no file "${name}". Give the path of a text file with one URL per line.`
      case "directory":
        return `"${name}" is a directory. Give the path of a text file with one URL per line.`
      case "denied":
        return `"${name}" may not be read by this user. Look at its permissions.`
      case "too large":
        return `"${name}" is larger than ${this.maxBytes} bytes. Split the list.`
      case "failed":
        return `"${name}" cannot be read: ${shown(String(this.cause), 400)}`
    }
  }
}

/** There is nothing to do: the list holds no URL that could be fetched. */
export class ListEmpty extends Data.TaggedError("ListEmpty")<{
  readonly name: string
  /** How many lines were looked at. */
  readonly lines: number
  readonly rejected: ReadonlyArray<Rejected>
}> {
  override get message(): string {
    const lines = `${this.lines} line${this.lines === 1 ? "" : "s"}`
    const looked = `"${shown(this.name, 400)}" holds no URL to fetch: ${lines} looked at`
    if (this.rejected.length === 0) {
      return `${looked}, each of them blank or a comment. Write one URL per line.`
    }
    const first = this.rejected.slice(0, 3).map((one) => `line ${one.line} ${one.reason}`)
    const more = this.rejected.length > 3 ? `; and ${this.rejected.length - 3} more` : ""
    return `${looked}, ${this.rejected.length} rejected: ${first.join("; ")}${more}.`
  }
}

/** The file is not text, so none of its lines was taken for a URL. */
export class ListBinary extends Data.TaggedError("ListBinary")<{
  readonly name: string
  readonly characters: number
  readonly nul: number
  readonly invalid: number
}> {
  override get message(): string {
    // UTF-16 of mostly ASCII: every other byte is NUL, and nothing but the mark at its start is invalid.
    const nuls = this.nul / this.characters
    const hint = nuls > 0.3 && nuls < 0.6 && this.invalid * 10 < this.characters
      ? "It may be UTF-16: save it as UTF-8."
      : "Give a text file in UTF-8 with one URL per line."
    const bad = `${this.nul} NUL and ${this.invalid} characters that are not UTF-8`
    return `"${shown(this.name, 400)}" is not a text list: ${bad} among ${this.characters}. ${hint}`
  }
}

const defaultMaxUrlLength = 8192
const defaultMaxBytes = 64 * 1024 * 1024
const shownLength = 120

const codePoint = (character: string): string =>
  `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`

const shown = (text: string, length: number): string => {
  const head = text.length > length ? text.slice(0, length).replace(/[\uD800-\uDBFF]$/, "") : text
  const safe = printable(head)
  return text.length > length ? `${safe}… (${text.length} characters)` : safe
}

/** Hides every part that may be a user name or a password. It may hide too much, because a password may hold any character. */
const withoutCredentials = (text: string): string => {
  const at = text.lastIndexOf("@")
  if (at < 0) return text
  const scheme = /^[a-z][a-z0-9+.-]*:[/\\]+/i.exec(text)?.[0] ?? ""
  return at < scheme.length ? text : `${scheme}***${text.slice(at)}`
}

const notText = (name: string, text: string): ListBinary | undefined => {
  let nul = 0
  let invalid = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0) nul++
    else if (code === 0xFFFD) invalid++
  }
  // A few such characters spoil a line. More than a tenth of the file means that it is not text.
  return nul + invalid >= 4 && (nul + invalid) * 10 > text.length
    ? new ListBinary({ name, characters: text.length, nul, invalid })
    : undefined
}

/** The normalised URL of a line, or why it is none. The reason completes the sentence "line 7 …". */
const urlOf = (text: string, maxUrlLength: number): Either.Either<string, string> => {
  if (text.length > maxUrlLength) {
    return Either.left(`is ${text.length} characters long, more than the ${maxUrlLength} allowed`)
  }
  const control = /\p{Cc}/u.exec(text)?.[0]
  if (control !== undefined) return Either.left(`holds a control character (${codePoint(control)})`)
  if (text.includes("\uFFFD")) return Either.left("is not valid UTF-8")
  if (/\shttps?:\/\//i.test(text)) return Either.left("holds more than one URL: write one per line")
  if (!URL.canParse(text)) {
    return Either.left(
      /^https?:/i.test(text)
        ? "is not a valid URL"
        : "is not an absolute URL: it should begin with http:// or https://"
    )
  }
  const url = new URL(text)
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    // "user:secret@host" parses as the scheme "user:", so a scheme is shown only where no credentials can be.
    const scheme = text.includes("@") ? "its scheme" : `"${shown(url.protocol, 20)}"`
    return Either.left(`cannot be fetched: ${scheme} is neither http: nor https:`)
  }
  if (url.username !== "" || url.password !== "") {
    return Either.left("holds a user name or a password, which the report would show")
  }
  url.hash = ""
  const { href } = url
  return href.length <= maxUrlLength ? Either.right(href) : Either.left(
    `is ${href.length} characters long once encoded, more than the ${maxUrlLength} allowed`
  )
}

/**
 * Reads a list from its text. Pure.
 *
 * **Errors** — `ListBinary`: not text. `ListEmpty`: no line of it can be fetched; says why the first ones cannot.
 * **Cost** — O(characters).
 */
export const parse = (
  text: string,
  name: string,
  options: Options = {}
): Either.Either<UrlList, ListEmpty | ListBinary> => {
  const binary = notText(name, text)
  if (binary !== undefined) return Either.left(binary)
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/)
  // A final newline does not begin another line.
  if (lines.at(-1) === "") lines.pop()
  const urls = new Set<string>()
  const rejected: Array<Rejected> = []
  let duplicates = 0
  for (const [index, whole] of lines.entries()) {
    const line = whole.trim()
    if (line === "" || line.startsWith("#")) continue
    const url = urlOf(line, options.maxUrlLength ?? defaultMaxUrlLength)
    if (Either.isLeft(url)) {
      const text = shown(withoutCredentials(line), shownLength)
      rejected.push({ line: index + 1, text, reason: url.left })
    } else if (urls.has(url.right)) duplicates++
    else urls.add(url.right)
  }
  return urls.size === 0
    ? Either.left(new ListEmpty({ name, lines: lines.length, rejected }))
    : Either.right({ urls: Array.from(urls), duplicates, rejected })
}

const reasons: Readonly<Record<string, UnreadableReason>> = {
  NotFound: "missing",
  PermissionDenied: "denied"
}

const unreadable = (name: string, maxBytes: number) => (cause: PlatformError): ListUnreadable => {
  const reason = cause._tag === "SystemError" ? reasons[cause.reason] ?? "failed" : "failed"
  return new ListUnreadable({ name, reason, maxBytes, cause })
}

/** Reads in sequence a file that has no positions, such as a pipe. */
const pipeOf = (name: string, maxBytes: number): Stream.Stream<Uint8Array, ListUnreadable> =>
  Stream.fromAsyncIterable(
    createReadStream(name, { end: maxBytes }) as AsyncIterable<Uint8Array>,
    (cause) => new ListUnreadable({ name, reason: "failed", maxBytes, cause })
  )

/**
 * Reads a list from a file of UTF-8 text.
 *
 * **Interruption** — while reading: the file is closed before the interrupt is seen.
 * **Errors** — `ListUnreadable` (carries a reason), `ListBinary`, `ListEmpty`.
 * **Cost** — the file in memory, once; reading stops at `maxBytes`, so an endless device is no danger.
 */
export const read = (
  path: string,
  options: Options = {}
): Effect.Effect<UrlList, ListUnreadable | ListEmpty | ListBinary, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const maxBytes = options.maxBytes ?? defaultMaxBytes
    const failed = unreadable(path, maxBytes)
    const { type } = yield* Effect.mapError(fs.stat(path), failed)
    if (type === "Directory") {
      return yield* new ListUnreadable({ name: path, reason: "directory", maxBytes })
    }
    const decoder = new TextDecoder("utf-8")
    const parts: Array<string> = []
    let bytes = 0
    yield* Stream.runForEach(
      type === "File"
        ? Stream.mapError(fs.stream(path, { bytesToRead: maxBytes + 1 }), failed)
        : pipeOf(path, maxBytes),
      (chunk) =>
        Effect.sync(() => {
          bytes += chunk.length
          parts.push(decoder.decode(chunk, { stream: true }))
        })
    )
    if (bytes > maxBytes) {
      return yield* new ListUnreadable({ name: path, reason: "too large", maxBytes })
    }
    parts.push(decoder.decode())
    return yield* parse(parts.join(""), path, options)
  })
