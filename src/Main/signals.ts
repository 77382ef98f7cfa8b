/**
 * signals: turns the signals of a process into a request, a forced exit or a dump.
 */
import * as Duration from "effect/Duration"
import { constants } from "node:os"
import process from "node:process"
import type { Handlers } from "./handlers.ts"
import type { Options } from "./options.ts"

/** The exit code after a signal. */
export const codeOf = (signal: string): number =>
  128 + (Object.entries(constants.signals).find(([name]) => name === signal)?.[1] ?? 0)

type Settings = Pick<
  Options<never, never>,
  "signals" | "forceOn" | "forceAfter" | "dumpSignal"
>

const millisOf = (given: Duration.DurationInput): number => {
  try {
    return Duration.toMillis(given)
  } catch {
    throw new RangeError(
      `Main: forceAfter is not a duration: ${String(given)}. Give milliseconds or "5 seconds".`
    )
  }
}

export interface Actions {
  /** Asks for the end; false if it was asked for before. */
  readonly request: (signal: NodeJS.Signals) => boolean
  readonly force: (signal: NodeJS.Signals) => void
  readonly dump: (signal: NodeJS.Signals) => void
  readonly print: (line: string) => void
  readonly phase: () => string
}

export const listen = (settings: Settings, handlers: Handlers, actions: Actions): void => {
  const { dumpSignal = "SIGUSR2", forceOn = ["SIGINT"] } = settings
  const { signals = ["SIGINT", "SIGTERM", "SIGHUP"] } = settings
  const forceAfter = millisOf(settings.forceAfter ?? 500)
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
      handlers.after(forceAfter, () =>
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
  for (const signal of signals) handlers.on(process, signal, onSignal)
  if (dumpSignal !== false) handlers.on(process, dumpSignal, actions.dump)
}
