/**
 * Files/temp: temporary files and directories. ../Files.ts has the invariants.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as Path from "node:path"
import * as Managed from "../Managed.ts"
import { call, type FileError, quick } from "./errors.ts"

/**
 * Options of `tempFile` and `tempDirectory`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TempOptions {
  /** Where it is made. Default: the temporary directory of the system. */
  readonly directory?: string | undefined
  /** What its name begins with. Default `"holdfast-"`. */
  readonly prefix?: string | undefined
  /** What the name of a file ends with (`".json"`). Default: nothing. */
  readonly suffix?: string | undefined
}

const temp = (
  kind: "file" | "directory",
  options: TempOptions,
  make: (path: string) => void
): Managed.Managed<string, FileError> => {
  const { directory = os.tmpdir(), prefix = "holdfast-", suffix = "" } = options
  return Managed.make<string, FileError>({
    name: `temporary ${kind} in ${directory}`,
    kind: `temporary ${kind}`,
    acquire: Effect.suspend(() => {
      const path = Path.join(directory, `${prefix}${randomBytes(9).toString("base64url")}${suffix}`)
      return quick("create", path, () => (make(path), path))
    }),
    // `force`: absent is as good as removed.
    release: (path) =>
      call("remove", path, (done) => fs.rm(path, { recursive: true, force: true }, done))
  })
}

/**
 * A new directory that only this account may read, removed with its owner and all that is in it. That it is gone already is no
 * failure.
 *
 * **Interruption** — creating it is one step with its registration; the removal is awaited.
 * **Errors** — `FileError`; a removal that fails is a defect in the owner's cause.
 * **Cost** — a mkdir, and the removal.
 *
 * **Example** (gone with its scope)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const path = await Effect.runPromise(Managed.use(Files.tempDirectory(), (path) => Effect.succeed(path)))
 * fs.existsSync(path) // => false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const tempDirectory = (
  options: Omit<TempOptions, "suffix"> = {}
): Managed.Managed<string, FileError> =>
  temp("directory", options, (path) => fs.mkdirSync(path, 0o700))

/**
 * A new empty file that only this account may read, removed with its owner. That it is gone already is no failure.
 *
 * **Interruption**, **Errors** — as `tempDirectory`. **Cost** — an open, a close, the removal.
 *
 * @category constructors
 * @since 0.1.0
 */
export const tempFile = (options: TempOptions = {}): Managed.Managed<string, FileError> =>
  temp("file", options, (path) => fs.closeSync(fs.openSync(path, "wx", 0o600)))
