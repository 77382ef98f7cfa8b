/**
 * Files/errors: the one error of files, and the two ways to call the kernel. ../Files.ts has the invariants.
 *
 * @since 0.1.0
 */
import type { PlatformError } from "@effect/platform/Error"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

const hints: Readonly<Record<string, string>> = {
  EACCES: "Check the owner and the mode of the file and of every directory above it.",
  EBUSY: "Something else is using it; wait for that to end.",
  EDQUOT: "The disk quota is used up; free some space.",
  EEXIST: "Something is there already; remove it or choose another name.",
  EFBIG: "The file system or a limit of the process (`ulimit -f`) does not allow a file so large.",
  EINVAL: "Only a regular file can be replaced as a whole.",
  EISDIR: "It is a directory; name a file.",
  ELOOP: "The symbolic links lead in a circle.",
  EMFILE: "Too many files are open in this process; raise `ulimit -n` or open fewer at once.",
  ENAMETOOLONG: "Shorten the name (255 bytes on most file systems).",
  ENOENT: "Make its directory first.",
  ENOSPC: "The disk is full; free some space.",
  ENOTDIR: "Something above it is a file, not a directory.",
  EPERM:
    "The operating system forbids it, whatever the mode says (immutable file, sticky directory).",
  EROFS: "The file system is mounted read-only.",
  ESTALE:
    "Another program has put something else at the draft's path; nothing was published. Check who may write to its directory.",
  EXDEV: "A rename cannot cross file systems; keep the draft on the destination's file system."
}

/**
 * The file system refused. `code` is the operating system's own (`"ENOSPC"`, `"EACCES"`, …).
 *
 * @category errors
 * @since 0.1.0
 */
export class FileError extends Data.TaggedError("FileError")<{
  /** `"open"`, `"write"`, `"sync"`, `"rename"`, … */
  readonly operation: string
  readonly path: string
  readonly code: string
  readonly cause?: unknown
}> {
  override get message(): string {
    const hint = hints[this.code]
    return `Could not ${this.operation} ${this.path}: ${this.code}.`
      + (hint === undefined ? "" : ` ${hint}`)
  }
}

const reasons: Readonly<Record<string, string>> = {
  AlreadyExists: "EEXIST",
  Busy: "EBUSY",
  NotFound: "ENOENT",
  PermissionDenied: "EACCES"
}

/** The operating system's code: in the error, in its cause, or in the cause of the cause. */
export const codeOf = (error: unknown): string | undefined => {
  let at = error
  for (let depth = 0; depth < 4 && typeof at === "object" && at !== null; depth++) {
    if ("code" in at && typeof at.code === "string") return at.code
    at = "cause" in at ? at.cause : undefined
  }
  return undefined
}

/**
 * The error of the platform as a `FileError`: `Effect.mapError(fs.makeDirectory(path), toFileError("make", path))`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toFileError =
  (operation: string, path: string) => (cause: PlatformError): FileError => {
    const said = cause._tag === "SystemError" ? reasons[cause.reason] ?? cause.reason : cause._tag
    return new FileError({ operation, path, code: codeOf(cause) ?? said, cause })
  }

/** A `FileError` stays what it is. */
export const failed = (operation: string, path: string) => (cause: unknown): FileError =>
  cause instanceof FileError
    ? cause
    : new FileError({ operation, path, code: codeOf(cause) ?? "EIO", cause })

type Done<A> = (error: NodeJS.ErrnoException | null, value?: A) => void

/** A call that may take long. A call in the kernel cannot be cancelled, so it is awaited, whatever happens (Files-2). */
export const call = <A = void>(
  operation: string,
  path: string,
  start: (done: Done<A>) => void
): Effect.Effect<A, FileError> =>
  // MASK: as above; nothing else waits here.
  Effect.uninterruptible(Effect.async<A, FileError>((resume) => {
    const done: Done<A> = (error, value) =>
      resume(error === null ? Effect.succeed(value as A) : failed(operation, path)(error))
    try {
      start(done)
    } catch (error) {
      // Node throws for a path with a zero byte.
      resume(failed(operation, path)(error))
    }
  }))

/** A call that reads or writes a few bytes about a file, and never its content: cheaper than a way through the threads. */
export const quick = <A>(
  operation: string,
  path: string,
  run: () => A
): Effect.Effect<A, FileError> => Effect.try({ try: run, catch: failed(operation, path) })
