/**
 * Ledger/View: a snapshot for people and for other programs: text, JSON, an SVG timeline, one HTML page.
 *
 * DESIGN. Each view is a pure function from a `Ledger.Snapshot` to a string: the same snapshot gives the same bytes, and nothing
 * else is read (no clock, no locale, no network). Nothing in a snapshot is trusted: names, lines, causes and attributes come
 * from the program. Folder View: tree.ts (text), json.ts, document.ts (reads it), timeline.ts (SVG), page.ts (HTML) with pageStyle.ts and
 * pageScript.ts; they share analysis.ts and format.ts.
 *
 * INVARIANTS
 * - View-1 A view is a function of the snapshot alone, and always ends: empty, huge, with times missing, infinite or backwards.
 * - View-2 `parse(json(snapshot))` equals the snapshot; any other text is refused with the problem and its field.
 * - View-3 No text of a snapshot becomes markup, script or a terminal's control sequence.
 * - View-4 A view that leaves entries out says how many of how many it shows.
 * - View-5 The page is self-contained: its policy forbids every request, and any script but its own.
 *
 * COST (2026-11, 20,000 entries, 2 busy cores) text 20 ms; JSON 120 ms, 7.5 MB, read back in 400 ms; SVG 100 ms, 42 kB;
 * HTML 150 ms, 1.7 MB; in headless Chromium it is painted after 250 ms, a sort takes 25 to 110 ms, a search 25 to 120 ms.
 * NOT DONE a page that follows a running program; more than one snapshot in a page.
 * SOURCES Chrome's network panel (waterfall, brush), `pg_stat_activity` and `pg_blocking_pids`, Okabe and Ito's palette.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Either from "effect/Either"
import type * as Ledger from "../Ledger.ts"
import * as Document from "./View/document.ts"
import * as Json from "./View/json.ts"
import * as Page from "./View/page.ts"
import * as Timeline from "./View/timeline.ts"
import * as Tree from "./View/tree.ts"

/**
 * A text is not the JSON of a ledger, or of an unknown version.
 *
 * @category errors
 * @since 0.1.0
 */
export class LedgerFormatError extends Data.TaggedError("LedgerFormatError")<Document.Problem> {
  override get message(): string {
    // If the text is not a ledger, the problem itself names the field.
    const where = this.field === "" || this.reason === "not a ledger" ? "" : ` at ${this.field}`
    const hint = this.reason === "unknown version"
      ? "Read it with the version of holdfast that wrote it, or a newer one."
      : "Give a file that `holdfast mirror --ledger`, `Main.run` or `View.json` wrote."
    return `This is not a readable ledger (${this.reason}${where}): ${this.problem}. ${hint}`
  }
}

/**
 * The options of `text`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TextOptions {
  /** In characters, at least 40; longer lines are cut. Default: no limit. */
  readonly width?: number | undefined
}

/**
 * The options of `svg`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SvgOptions {
  /** In pixels, at least 320. Below 640 names stand above their bars. Default 960. */
  readonly width?: number | undefined
  /** The maximum number of entries shown. Default 60. */
  readonly rows?: number | undefined
}

/**
 * The snapshot as text: deadlocks and failures, then the live entries by owner, the last releases, the totals.
 *
 * **Details** — One line for every live entry, for the first 20 that failed or were abandoned, and for the last 10 releases.
 * **Cost** — 20,000 entries: about 20 ms.
 *
 * **Example** (a lamp that is held)
 * ```ts run
 * import { Effect } from "effect"
 * import { Ledger, Managed } from "holdfast"
 * import * as View from "holdfast/Ledger/View"
 *
 * const lamp = Managed.make({
 *   name: "desk",
 *   kind: "lamp",
 *   acquire: Effect.void,
 *   release: () => Effect.void
 * })
 * const program = Effect.map(Managed.use(lamp, () => Ledger.snapshot), View.text)
 * const text = await Effect.runPromise(Effect.provide(program, Ledger.layer()))
 * text.includes(`● lamp "desk" [1]`) // => true
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const text = (snapshot: Ledger.Snapshot, options: TextOptions = {}): string =>
  Tree.draw(snapshot, Math.max(40, options.width ?? Infinity))

/**
 * The snapshot as JSON, one line for each entry: `{ "holdfast": { "ledger": 1 }, … }`.
 *
 * **Details** — Empty fields are left out. Attributes that are not plain data are written in a readable form; a `Redacted` stays
 *   redacted.
 * **Cost** — 20,000 entries: about 120 ms and 7.5 MB.
 *
 * @category conversions
 * @since 0.1.0
 */
export const json = (snapshot: Ledger.Snapshot): string => Json.write(snapshot)

/**
 * Parses the output of `json`.
 *
 * **Errors** — `LedgerFormatError`: the problem and its field.
 * **Cost** — 20,000 entries: about 400 ms.
 *
 * **Example** (a round trip)
 * ```ts run
 * import { Effect, Either } from "effect"
 * import { Ledger } from "holdfast"
 * import * as View from "holdfast/Ledger/View"
 *
 * const snapshot = await Effect.runPromise(Effect.provide(Ledger.snapshot, Ledger.layer()))
 * Either.getOrThrow(View.parse(View.json(snapshot))) // => snapshot
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const parse = (text: string): Either.Either<Ledger.Snapshot, LedgerFormatError> =>
  Either.mapLeft(Document.read(text), (problem) => new LedgerFormatError(problem))

/**
 * The snapshot as a timeline: each hold by owner, on one axis of time, with the order of the ends.
 *
 * **Details** — Light or dark as the reader's system is. With more entries than `rows` it shows the longest, a quarter of the rows
 *   each for live, abandoned and failed ones; it says how many of how many. The load on top is that of all entries.
 * **Cost** — 20,000 entries: about 100 ms and 42 kB.
 *
 * @category conversions
 * @since 0.1.0
 */
export const svg = (snapshot: Ledger.Snapshot, options: SvgOptions = {}): string =>
  Timeline.draw(snapshot, {
    width: Math.max(320, options.width ?? 960),
    rows: Math.max(0, options.rows ?? 60)
  })

/**
 * The snapshot as one page: verdict, deadlocks and failures, and every entry with its timeline in a table that can be sorted and
 * searched. It opens from a file, without a network, on a phone or a desktop, light or dark.
 *
 * **Details** — Its policy forbids every request, and any script but its own. The page contains the whole snapshot: check its
 *   attributes and names before you publish it.
 * **Cost** — 20,000 entries: about 150 ms and 1.7 MB.
 *
 * @category conversions
 * @since 0.1.0
 */
export const html = (snapshot: Ledger.Snapshot): string => Page.draw(snapshot)
