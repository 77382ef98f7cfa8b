/**
 * signals: turns the signals of a process into a request, a forced exit or a dump.
 */
import { constants } from "node:os"
import process from "node:process"

/** The exit code after a signal. */
export const codeOf = (signal: string): number =>
  128 + (Object.entries(constants.signals).find(([name]) => name === signal)?.[1] ?? 0)

export interface Settings {
  /** Those that ask for the end. */
  readonly signals: ReadonlyArray<NodeJS.Signals>
  /** Those that force it when they come again. */
  readonly forceOn: ReadonlyArray<NodeJS.Signals>
  /** Milliseconds in which a second signal belongs to the first. */
  readonly forceAfter: number
  readonly dumpSignal: NodeJS.Signals | false
}

export interface Actions {
  /** Asks for the end; false if it was asked for before. */
  readonly request: (signal: NodeJS.Signals) => boolean
  readonly force: (signal: NodeJS.Signals) => void
  readonly dump: (signal: NodeJS.Signals) => void
  readonly print: (line: string) => void
  readonly phase: () => string
}

/** setTimeout's limit, 24.8 days: it takes a longer time for 1 ms. */
const longestTimer = 2 ** 31 - 1

/** Runs `f` after a time, unless the process has ended by then. */
export const after = (millis: number, f: () => void): NodeJS.Timeout =>
  setTimeout(f, Math.min(millis, longestTimer)).unref()

export const every = (millis: number, f: () => void): NodeJS.Timeout =>
  setInterval(f, Math.min(millis, longestTimer)).unref()

export const listen = (settings: Settings, actions: Actions): void => {
  const { dumpSignal, forceAfter, forceOn, signals } = settings
  let first: NodeJS.Signals | undefined
  /** Whether `forceAfter` has passed since the first signal. */
  let isLater = false
  const onSignal = (signal: NodeJS.Signals): void => {
    const isFirst = first === undefined
    const again = !isLater && forceOn.includes(signal) ? "once more " : ""
    const how = forceOn.length === 0 ? "" : ` (${forceOn.join(" or ")} ${again}to force)`
    // INVARIANT Main-1: one Ctrl-C under npm is two SIGINTs, and a supervisor may send two kinds at once.
    if (!isFirst && !isLater) {
      if (signal !== first) actions.print(`${signal}: came with ${first}, and is ignored${how}.`)
      return
    }
    if (isFirst) {
      first = signal
      // By time alone, a signal that came with the first during a long synchronous step would count as a later one. Between
      // these two steps of the loop Node handles every signal that has come.
      after(forceAfter, () =>
        setImmediate(() => {
          isLater = true
        }))
    }
    if (actions.request(signal)) {
      actions.print(`${signal}: process ${process.pid} is shutting down${how}.`)
    } else if (!isFirst && forceOn.includes(signal)) {
      actions.force(signal)
    } else {
      actions.print(`${signal}: already shutting down, in phase ${actions.phase()}${how}.`)
    }
  }
  for (const signal of signals) process.on(signal, onSignal)
  if (dumpSignal !== false) process.on(dumpSignal, actions.dump)
}
