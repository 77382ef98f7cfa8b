/**
 * progress: one line that says how far a run is, on a terminal or in a log.
 *
 * DESIGN. The run writes plain counters into a `ProgressState`; `render` makes a line of them and is pure; the reporter is a
 * fiber that looks at the clock and draws. Nothing is counted here, so the last line cannot differ from the report.
 *
 * INVARIANTS
 * - Progress-1 A line is never wider than `width`, holds no control character, and drops its least important fields first.
 * - Progress-2 A terminal is drawn at most every 100 ms and its line is gone at the end; a log gets a line when another
 *   tenth is done or 2 seconds have passed.
 * - Progress-3 No number shown decreases, but for `inFlight`; the last line shows the final state.
 * - Progress-4 Showing never fails the run: a sink that throws is not written to again.
 *
 * COST one line per 100 ms, about 5 µs; no timers but the fiber's own sleep, on the `Clock`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as BatchProgress from "../Batch/Progress.ts"
import * as Managed from "../Managed.ts"

/** The counters of a run, which the run alone writes; `startedAt` is in milliseconds of the `Clock`. */
export interface ProgressState {
  total: number
  /** Begun or settled. */
  taken: number
  done: number
  /** Done by an earlier run. */
  alreadyDone: number
  failed: number
  skipped: number
  /** Received by this run. */
  bytes: number
  inFlight: number
  startedAt: number
}

/** Where lines go: `process.stderr` is one. */
export interface Sink {
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  readonly write: (text: string) => unknown
}

const paceAfter = 2000
/** In milliseconds. */
export const redrawEvery = 100
const logEvery = 2000

export const start = (total: number, startedAt: number): ProgressState => ({
  total,
  taken: 0,
  done: 0,
  alreadyDone: 0,
  failed: 0,
  skipped: 0,
  bytes: 0,
  inFlight: 0,
  startedAt
})

/** Takes over the counts of a run: nothing is counted twice. */
export const update = (
  state: ProgressState,
  { alreadyDone, done, failed, inFlight, skipped, taken }: BatchProgress.Progress
): void => {
  Object.assign(state, { alreadyDone, done, failed, inFlight, skipped, taken })
}

const settledOf = (state: ProgressState): number =>
  state.done + state.alreadyDone + state.failed + state.skipped

/** A number of bytes for people: `0 B`, `1.5 KiB`, `34 MiB`. */
export const bytesText = (bytes: number): string => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
  let value = Math.max(0, bytes)
  let unit = 0
  // 1023.95 would be rounded to "1024.0": it is the next unit's 1.0.
  while (unit < units.length - 1 && value >= (unit === 0 ? 1024 : 1023.95)) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? Math.floor(value) : value.toFixed(1)} ${units[unit]!}`
}

/** A number of milliseconds for people: `9s`, `2m05s`, `3h04m`. */
export const durationText = (millis: number): string => {
  const seconds = Math.max(0, Math.round(millis / 1000))
  const two = (n: number) => String(n).padStart(2, "0")
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${two(seconds % 60)}s`
  return `${Math.floor(seconds / 3600)}h${two(Math.floor(seconds / 60) % 60)}m`
}

/**
 * The mean rate since the start, and the time that the rest takes at the rate of the items so far; null in the first two
 * seconds. Items of an earlier run took no time, so they do not count.
 */
export const pace = (state: ProgressState, now: number) => {
  const elapsed = now - state.startedAt
  if (elapsed < paceAfter) return { bytesPerSecond: null, etaMillis: null }
  const worked = state.done + state.failed
  const left = Math.max(0, state.total - settledOf(state))
  return {
    bytesPerSecond: state.bytes * 1000 / elapsed,
    etaMillis: worked === 0 ? null : left * elapsed / worked
  }
}

interface Field {
  readonly text: string
  readonly paint?: number | undefined
  /** The field with the highest number is dropped first. */
  readonly spare: number
}

const red = 31
const dim = 2

const fieldsOf = (state: ProgressState, now: number): ReadonlyArray<Field> => {
  const settled = settledOf(state)
  const total = Math.max(state.total, settled)
  const { bytesPerSecond, etaMillis } = pace(state, now)
  const percent = total === 0 ? 100 : Math.floor(settled * 100 / total)
  const width = String(total).length
  const all: ReadonlyArray<Field | undefined> = [
    { text: `${String(settled).padStart(width)}/${total}`, spare: 0 },
    { text: `${String(percent).padStart(3)}%`, spare: 2 },
    { text: bytesText(state.bytes), spare: 3 },
    bytesPerSecond === null ? undefined : { text: `${bytesText(bytesPerSecond)}/s`, spare: 5 },
    etaMillis === null || settled >= total
      ? undefined
      : { text: `ETA ${durationText(etaMillis)}`, spare: 4 },
    state.inFlight === 0 ? undefined : { text: `${state.inFlight} in flight`, spare: 6 },
    state.alreadyDone === 0
      ? undefined
      : { text: `${state.alreadyDone} done before`, paint: dim, spare: 8 },
    state.skipped === 0 ? undefined : { text: `${state.skipped} skipped`, spare: 7 },
    state.failed === 0 ? undefined : { text: `${state.failed} failed`, paint: red, spare: 1 }
  ]
  return all.filter((field) => field !== undefined)
}

const separator = "  "

/** The line for a state, at most `width` columns wide; `now` is of the clock that gave `startedAt`. Pure. */
export const render = (
  state: ProgressState,
  options: { readonly width: number; readonly now: number; readonly color?: boolean }
): string => {
  let fields = fieldsOf(state, options.now)
  const plainWidth = () =>
    fields.reduce((sum, { text }) => sum + text.length + separator.length, -separator.length)
  while (fields.length > 1 && plainWidth() > options.width) {
    const first = Math.max(...fields.map(({ spare }) => spare))
    fields = fields.filter(({ spare }) => spare !== first)
  }
  // A truncated count would be a wrong number, so nothing is shown.
  if (plainWidth() > options.width) return ""
  return fields.map(({ paint, text }) =>
    options.color === true && paint !== undefined ? `\u001b[${paint}m${text}\u001b[0m` : text
  ).join(separator)
}

/** The sum of a state, as the last line says it. Pure. */
export const summary = (state: ProgressState, now: number): string => {
  const { alreadyDone, bytes, done, failed, skipped, startedAt, total } = state
  const elapsed = Math.max(0, now - startedAt)
  const open = total - settledOf(state)
  const rest = open > 0 ? `, ${open} not finished` : ""
  const rate = elapsed > 0 ? ` (${bytesText(bytes * 1000 / elapsed)}/s)` : ""
  const items = total === 1 ? "item" : "items"
  return `${total} ${items}: ${done} done, ${alreadyDone} done before, ${skipped} skipped, `
    + `${failed} failed${rest}; ${bytesText(bytes)} in ${(elapsed / 1000).toFixed(1)}s${rate}`
}

type Environment = Readonly<Record<string, string | undefined>>

const eraseLine = "\r\u001b[2K"

/** Updates the shown numbers; only `inFlight` may decrease (Progress-3). */
const raise = (shown: ProgressState, state: ProgressState): void => {
  const { inFlight, startedAt, ...rising } = state
  for (const key of Object.keys(rising) as Array<keyof typeof rising>) {
    shown[key] = Math.max(shown[key], rising[key])
  }
  Object.assign(shown, { inFlight, startedAt })
}

class Running {
  readonly state: ProgressState
  readonly sink: Sink
  readonly live: boolean
  readonly color: boolean
  readonly shown: ProgressState
  drawn = ""
  broken = false
  lastTenth = 0
  lastAt: number

  constructor(state: ProgressState, sink: Sink, env: Environment, now: number) {
    this.state = state
    this.sink = sink
    this.live = sink.isTTY === true && env["TERM"] !== "dumb"
    this.color = this.live && (env["NO_COLOR"] ?? "") === ""
    this.shown = { ...state }
    this.lastAt = now
  }

  write(text: string): void {
    if (this.broken) return
    try {
      this.sink.write(text)
    } catch {
      // INVARIANT Progress-4: a closed terminal is no reason to stop a download.
      this.broken = true
    }
  }

  draw(now: number): void {
    raise(this.shown, this.state)
    if (this.live) {
      // One column is left free: some terminals wrap a line that fills the last one.
      const width = (this.sink.columns || 80) - 1
      const line = render(this.shown, { width, now, color: this.color })
      if (line !== this.drawn) this.write(`${eraseLine}${line}`)
      this.drawn = line
      return
    }
    const { total } = this.shown
    const tenth = total === 0 ? 0 : Math.floor(settledOf(this.shown) * 10 / total)
    // The summary reports the last tenth.
    if ((tenth <= this.lastTenth || tenth >= 10) && now - this.lastAt < logEvery) return
    this.lastTenth = Math.max(this.lastTenth, tenth)
    this.lastAt = now
    this.write(`${render(this.shown, { width: Infinity, now })}\n`)
  }

  erase(): void {
    if (this.drawn !== "") this.write(eraseLine)
    this.drawn = ""
  }

  finish(now: number): void {
    this.erase()
    this.write(`${summary(this.state, now)}\n`)
  }
}

/**
 * Shows a state while the scope lasts: on a terminal as one line, redrawn and in the end erased, otherwise as lines of a log.
 * The release writes the `summary`. `env` is looked at for `NO_COLOR` and `TERM=dumb`.
 *
 * **Interruption** — holding: the release draws the last line.
 * **Cost** — a fiber that wakes every 100 ms.
 */
export const reporter = (
  state: ProgressState,
  sink: Sink,
  env: Environment = process.env
): Managed.Managed<void> =>
  Managed.map(
    Managed.make({
      name: "progress",
      kind: "progress line",
      acquire: Effect.gen(function*() {
        const running = new Running(state, sink, env, yield* Clock.currentTimeMillis)
        const draw = Effect.map(Clock.currentTimeMillis, (now) => running.draw(now))
        const loop = Effect.forever(Effect.zipRight(draw, Effect.sleep(redrawEvery)))
        // The acquire runs masked, and a fiber inherits that; the release has to be able to interrupt it.
        const fiber = yield* Effect.forkDaemon(Effect.interruptible(loop))
        const finish = Effect.map(Clock.currentTimeMillis, (now) => running.finish(now))
        return Effect.zipRight(Fiber.interrupt(fiber), finish)
      }),
      release: (finish) => finish
    }),
    () => {}
  )
