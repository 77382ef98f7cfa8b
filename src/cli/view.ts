/**
 * view: `holdfast view <ledger.json>`. shows a ledger file as text, as a timeline, or as a page.
 *
 * INVARIANTS
 * - CliView-1 A file that is no ledger changes nothing and ends with 2, saying what is wrong with it and where.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Files from "../Files.ts"
import type * as Ledger from "../Ledger.ts"
import * as View from "../Ledger/View.ts"
import type { Voice } from "./mirror.ts"
import { refuse } from "./refusal.ts"

/** The options of the command line. `width`: of the terminal, in characters; none if it is no terminal. */
export interface Options {
  readonly ledger: string
  readonly html: boolean
  readonly svg: boolean
  readonly text: boolean
  readonly output: string | undefined
  readonly width: number | undefined
}

const views = ["html", "svg", "text"] as const

const viewOf = (options: Options) => {
  const asked = views.filter((view) => options[view])
  if (asked.length <= 1) return Effect.succeed(asked[0] ?? "text")
  const flags = asked.map((view) => `--${view}`).join(" and ")
  return refuse(`${flags} at once: ask for one view.`)
}

const open = (ledger: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const text = yield* Effect.mapError(fs.readFileString(ledger), (error) => {
      const { code, message } = Files.toFileError("read", ledger)(error)
      // Without the hint of `FileError`, which is for writers.
      return refuse(`${ledger}: ${code === "ENOENT" ? "There is no such file." : message}`)
    })
    return yield* Effect.mapError(
      View.parse(text),
      ({ message }) => refuse(`${ledger}: ${message}`)
    )
  })

const draw = (
  snapshot: Ledger.Snapshot,
  view: (typeof views)[number],
  options: Options
): string => {
  if (view === "html") return View.html(snapshot)
  if (view === "svg") return View.svg(snapshot)
  // A file has no right edge.
  return View.text(snapshot, options.output === undefined ? { width: options.width } : {})
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
  }).pipe(Effect.catchAll((error) => Effect.as(voice.error(`holdfast: ${error.message}`), 2)))
