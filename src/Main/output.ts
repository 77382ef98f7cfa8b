/**
 * output: the lines that a process prints about itself.
 *
 * DESIGN. A line goes to the `Logger` that the program's main fiber has configured, else as text to standard error. Bad news goes
 * to both: when the program has ended, so has the layer of its logger, and a logger may lose lines that it had buffered.
 * Every line passes `printable` here, and no line but the first of an error begins at the margin, so that no name and no message
 * forges one.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as fs from "node:fs"
import process from "node:process"
import { isatty } from "node:tty"
import { inspect } from "node:util"
import { printable } from "../Ledger/words.ts"
import type { Handlers } from "./handlers.ts"

const indented = (text: string): string =>
  text.split("\n").map((line, index) => index === 0 || /^[\s}]/.test(line) ? line : `  ${line}`)
    .join("\n")

/** Any thrown value as text. `String` throws for some of them. */
export const errorText = (error: unknown): string => {
  try {
    return indented(error instanceof Error ? String(error.stack ?? error.message) : inspect(error))
  } catch {
    return "something that cannot be shown"
  }
}

/** One failure or defect. Our own time-outs come without a stack, which would be ours. */
const failureText = (cause: Cause.Fail<unknown> | Cause.Die): string => {
  const error = cause._tag === "Fail" ? cause.error : cause.defect
  try {
    return error instanceof Error && /^(Shutdown|Release)Timeout$/.test(error.name)
      ? `${error.name}: ${printable(error.message)}`
      : indented(Cause.pretty(cause, { renderErrorCause: true }))
  } catch {
    return errorText(error)
  }
}

/** An error that cannot be shown (its cause is itself, its getters throw) hides only itself. */
export const causeText = (cause: Cause.Cause<unknown>): string =>
  Cause.isInterruptedOnly(cause) ? Cause.pretty(cause) : Cause.reduce(
    cause,
    [] as ReadonlyArray<string>,
    (texts, one) =>
      one._tag === "Fail" || one._tag === "Die"
        ? Option.some([...texts, failureText(one)])
        : Option.none()
  ).join("\n")

const loggersIn = (refs: FiberRefs.FiberRefs) =>
  FiberRefs.getOrDefault(refs, FiberRef.currentLoggers)

export class Output {
  readonly #print: ((line: string) => void) | undefined
  #main: Fiber.RuntimeFiber<unknown, unknown> | undefined
  #refs: FiberRefs.FiberRefs | undefined

  constructor(print: ((line: string) => void) | undefined) {
    this.#print = print
  }

  /** From now on lines go to the logger of this fiber, once it has one. */
  follow(main: Fiber.RuntimeFiber<unknown, unknown>): void {
    this.#main = main
  }

  /** Remembers the logger of the main fiber: a layer of the program sets it, and resets it when it ends. */
  look(): void {
    const main = this.#main
    if (main === undefined || this.#print !== undefined) return
    const refs = main.getFiberRefs()
    if (!Equal.equals(loggersIn(refs), loggersIn(FiberRefs.empty()))) this.#refs = refs
  }

  info(text: string): void {
    if (!this.#log(LogLevel.Info, text)) this.text(text)
  }

  /** Bad news, which must not get lost with a logger. */
  error(text: string): void {
    this.#log(LogLevel.Error, text)
    this.text(text)
  }

  /** Lines for people, past any logger. */
  text(text: string): void {
    const write = this.#print ?? ((line: string) => process.stderr.write(`${line}\n`))
    for (const line of text.split("\n")) {
      try {
        const written: unknown = write(printable(line))
        // TypeScript accepts an async function here; its rejection would come back as a stray one.
        if (written instanceof Promise) written.catch(() => {})
      } catch {
        // INVARIANT Main-5: there is no other place to report to.
      }
    }
  }

  /** Prints by `print`, and reports if that throws. */
  guarded(what: string, print: () => void): void {
    try {
      print()
    } catch (thrown) {
      this.error(`${what} cannot be shown: ${errorText(thrown)}`)
    }
  }

  #log(level: LogLevel.LogLevel, text: string): boolean {
    this.look()
    if (this.#refs === undefined) return false
    const message = text.split("\n").map(printable).join("\n")
    const logged = Effect.zipRight(
      Effect.setFiberRefs(this.#refs),
      Effect.logWithLevel(level, message)
    )
    return Effect.runSyncExit(logged)._tag === "Success"
  }
}

/**
 * Calls `end` once both outputs have passed on what was written, or after `millis`, because a reader may have stopped reading. A
 * pipe whose reader is slow holds lines back, and `process.exit` drops those.
 */
export const whenWritten = (millis: number, end: () => void): void => {
  const pending = [process.stdout, process.stderr].filter((stream) => stream.writableLength > 0)
  let left = pending.length
  if (left === 0) return end()
  setTimeout(end, millis)
  for (const stream of pending) {
    stream.write("", () => {
      if (--left === 0) end()
    })
  }
}

const hasReaderLeft = (error: NodeJS.ErrnoException): boolean =>
  ["EPIPE", "EIO", "ERR_STREAM_DESTROYED"].includes(error.code ?? "")

/** INVARIANT Main-5. Calls `onLost` once if standard output is lost, but not if only its reader has left. */
export const watchStreams = (handlers: Handlers, onLost: (error: Error) => void): void => {
  let isLost = false
  handlers.on(process.stdout, "error", (error: NodeJS.ErrnoException) => {
    if (isLost || hasReaderLeft(error)) return
    isLost = true
    onLost(error)
  })
  handlers.on(process.stderr, "error", () => {})
  // Node before nodejs/node#58200 aborts at its exit if it cannot restore a terminal that is gone.
  const terminals = [0, 1, 2].filter((fd) => isatty(fd))
  handlers.on(process, "exit", () =>
    terminals.filter((fd) => !isatty(fd)).forEach((fd) => {
      try {
        fs.closeSync(fd)
      } catch {
        // Closed already.
      }
    }))
}
