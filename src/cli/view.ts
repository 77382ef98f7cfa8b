/**
 * view: `holdfast view <ledger.json>`. shows a ledger file as text, as a timeline, or as a page.
 *
 * INVARIANTS
 * - CliView-1 A file that is no ledger changes nothing and ends with 2, saying what is wrong with it and where.
 */
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Files from "../Files.ts"
import type * as Ledger from "../Ledger.ts"
import * as View from "../Ledger/View.ts"
import type { Voice } from "./mirror.ts"

/** The options of the command line. `width`: of the terminal, in characters; none if it is no terminal. */
export interface Options {
  readonly ledger: string
  readonly html: boolean
  readonly svg: boolean
  readonly text: boolean
  readonly output: string | undefined
  readonly width: number | undefined
}

/** The ledger cannot be read, or is none. */
export class LedgerUnusable extends Data.TaggedError("LedgerUnusable")<{
  readonly ledger: string
  readonly reason: string
}> {
  override get message(): string {
    return `${this.ledger}: ${this.reason}`
  }
}

/** More than one view was asked for at once. */
export class OneViewOnly extends Data.TaggedError("OneViewOnly")<{
  readonly asked: ReadonlyArray<string>
}> {
  override get message(): string {
    return `${this.asked.map((view) => `--${view}`).join(" and ")} at once: ask for one view.`
  }
}

const views = ["html", "svg", "text"] as const

const viewOf = (options: Options) => {
  const asked = views.filter((view) => options[view])
  return asked.length > 1 ? new OneViewOnly({ asked }) : Effect.succeed(asked[0] ?? "text")
}

/** Without the hints of `FileError`, which are for writers. */
const unread = (ledger: string) => (error: PlatformError): LedgerUnusable => {
  const refused = Files.toFileError("read", ledger)(error)
  const reason = refused.code === "ENOENT" ? "There is no such file." : refused.message
  return new LedgerUnusable({ ledger, reason })
}

const open = (ledger: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const text = yield* Effect.mapError(fs.readFileString(ledger), unread(ledger))
    return yield* Effect.mapError(
      View.parse(text),
      ({ message }) => new LedgerUnusable({ ledger, reason: message })
    )
  })

const draw = (
  snapshot: Ledger.Snapshot,
  view: (typeof views)[number],
  options: Options
): string => {
  switch (view) {
    case "html":
      return View.html(snapshot)
    case "svg":
      return View.svg(snapshot)
    case "text":
      // A file has no right edge.
      return View.text(snapshot, options.output === undefined ? { width: options.width } : {})
  }
}

/**
 * Shows a ledger and returns the exit code: 0 shown, 2 no ledger, nowhere to write to, or more than one view asked for.
 *
 * **Interruption** — the output file holds all of the view or what it held before.
 */
export const view = (
  options: Options,
  voice: Voice
): Effect.Effect<number, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const chosen = yield* viewOf(options)
    const shown = draw(yield* open(options.ledger), chosen, options)
    if (options.output === undefined) yield* voice.document(shown.trimEnd())
    else yield* Files.writeAtomic(options.output, shown)
    return 0
  }).pipe(
    Effect.catchAll((error) => Effect.as(voice.error(`holdfast: ${error.message}`), 2))
  )
