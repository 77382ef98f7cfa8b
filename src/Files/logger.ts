/**
 * Files/logger: an Effect `Logger` that writes to a log file. ../Files.ts has the invariants.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type { FileError } from "./errors.ts"
import { logFile, type LogFileOptions } from "./logFile.ts"

/**
 * Options of `layerLogger`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LoggerOptions extends Omit<LogFileOptions, "onFull"> {
  /** Default `"logfmt"`. `"text"` is Effect's `stringLogger`. */
  readonly format?: "text" | "logfmt" | "json" | undefined
  /** Whether the default logger, which writes to the console, goes. Default `false`. */
  readonly replace?: boolean | undefined
}

const formats = {
  text: Logger.stringLogger,
  logfmt: Logger.logfmtLogger,
  json: Logger.jsonLogger
}

/**
 * Adds a logger that writes one line per message to a log file, and releases the file with the layer.
 *
 * **Details** — A log call cannot wait, so a full buffer drops its oldest lines (`stats` of `logFile` counts them). A line feed in a
 *   message is written as `\n`. A file that cannot be written loses the messages of that time, and says so on standard error, once.
 * **Interruption** — as `logFile`. **Errors** — `FileError`: the file cannot be opened. **Cost** — the format, and a push.
 *
 * **Example** (JSON, one object per line)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const logged = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/app.log`
 *   const layer = Files.layerLogger(path, { format: "json", replace: true })
 *   yield* Effect.provide(Effect.log("started"), layer)
 *   return JSON.parse(fs.readFileSync(path, "utf8")).message
 * }))
 * await Effect.runPromise(logged) // => "started"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerLogger = (
  path: string,
  { format = "logfmt", replace = false, ...options }: LoggerOptions = {}
): Layer.Layer<never, FileError> => {
  const made = Effect.map(logFile(path, { ...options, onFull: "dropOldest" }), (file) => {
    let isSilent = true
    return Logger.map(formats[format], (line) => {
      const isAccepted = file.unsafeWrite(line.replaceAll("\n", "\\n"))
      if (!isAccepted && isSilent) process.stderr.write(`holdfast: ${path} cannot be written\n`)
      isSilent = isAccepted
    })
  })
  return replace ? Logger.replaceScoped(Logger.defaultLogger, made) : Logger.addScoped(made)
}
