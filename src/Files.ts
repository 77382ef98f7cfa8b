/**
 * Files: writes that are whole or not at all, over `@effect/platform`'s `FileSystem`.
 *
 * DESIGN. Everything is a `Draft`: a file created exclusively beside its destination, written, and then either published
 * (fsync, rename, fsync of the directory) or removed. `writeAtomic` is a draft and its content; `Http.download` is a draft
 * and a body. Each call to the file system runs uninterruptibly, because the platform does not wait for a call it was
 * interrupted in: the kernel would still change the file after the fiber had ended.
 *
 * INVARIANTS
 * - Files-1 (F1) At every instant, after any interruption and after a kill, the destination holds the old content or the new
 *   content, never a mix, and never nothing where there was something.
 * - Files-2 (F2) Once an interrupt is seen, nothing of ours changes any file any more.
 * - Files-3 (F4) A draft that was not published is removed, on failure and on interruption; a draft that is already gone is
 *   no failure.
 * - Files-4 (L8) The operating system's code is in `FileError.code`, also where the platform says "Unknown".
 *
 * COST (2026-11, 4 KiB, 2 cores, overlay disk) about 3 ms, nearly all of it calls to the file system; two fsyncs come on
 *   top with `"full"` and cost what the disk makes them cost.
 * NOT DONE: extended attributes, ACLs and hard links of the replaced file (a rename cannot keep them); a log file; removal of
 *   drafts left by a killed process (`.name.*.draft`); Windows is not tested.
 * SOURCES npm write-file-atomic #28, PR #17; atomically PR #18 (short writes truncated a vault); gsd-core #1540 (never fall
 *   back to a plain write).
 *
 * @since 0.1.0
 */
import type { PlatformError } from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import * as Path from "node:path"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"

/**
 * How much of a crash the new content survives once published: of the process (`"none"`), of the machine with the content
 * whole if its name is there (`"file"`), of the machine with the name there (`"full"`).
 *
 * @category models
 * @since 0.1.0
 */
export type Durability = "none" | "file" | "full"

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
  ENOSPC: "The disk is full; free some space. The old content is untouched.",
  ENOTDIR: "Something above it is a file, not a directory.",
  EPERM:
    "The operating system forbids it, whatever the mode says (immutable file, sticky directory).",
  EROFS: "The file system is mounted read-only.",
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

/** The operating system's code: in the cause, or in the cause of the cause; else what the platform's reason says. */
const codeOf = (error: PlatformError): string => {
  let at: unknown = error
  for (let depth = 0; depth < 4 && typeof at === "object" && at !== null; depth++) {
    if ("code" in at && typeof at.code === "string") return at.code
    at = "cause" in at ? at.cause : undefined
  }
  return error._tag === "SystemError" ? reasons[error.reason] ?? error.reason : error._tag
}

/**
 * The error of the platform as a `FileError`: `Effect.mapError(fs.makeDirectory(path), toFileError("make", path))`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toFileError = (operation: string, path: string) => (cause: PlatformError): FileError =>
  new FileError({ operation, path, code: codeOf(cause), cause })

const step = <A, R>(
  operation: string,
  path: string,
  call: Effect.Effect<A, PlatformError, R>
): Effect.Effect<A, FileError, R> =>
  // MASK: a call in the kernel cannot be cancelled, so it is waited for (Files-2); nothing else waits here.
  Effect.uninterruptible(Effect.mapError(call, toFileError(operation, path)))

/**
 * How `publish` makes the new content last.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  /** Default `"full"`. */
  readonly durability?: Durability | undefined
}

const synced = (
  fs: FileSystem.FileSystem,
  path: string,
  operation: string
): Effect.Effect<void, FileError> => {
  const opened = fs.open(path, { flag: "r" })
  return step(operation, path, Effect.scoped(Effect.flatMap(opened, (file) => file.sync)))
}

/** Codes by which a file system says that it cannot sync directories. They are no failure; all others are. */
const cannotSync = new Set(["EINVAL", "EISDIR", "ENOSYS", "ENOTSUP", "EPERM"])

const syncedDirectory = (fs: FileSystem.FileSystem, path: string): Effect.Effect<void, FileError> =>
  Effect.catchIf(
    synced(fs, path, "sync the directory"),
    ({ code }) => cannotSync.has(code),
    () => Effect.void
  )

/** `synced` puts the content on the disk before the rename. */
const swap = (
  fs: FileSystem.FileSystem,
  from: string,
  to: string,
  synced: Effect.Effect<void, FileError>,
  { durability = "full" }: PublishOptions = {}
): Effect.Effect<void, FileError> => {
  const renamed = step("rename", to, fs.rename(from, to))
  if (durability === "none") return renamed
  if (durability === "file") return Effect.zipRight(synced, renamed)
  // MASK: the sync of the directory belongs to the rename; without it the new content might not last.
  const lasting = Effect.uninterruptible(
    Effect.zipRight(renamed, syncedDirectory(fs, Path.dirname(to)))
  )
  return Effect.zipRight(synced, lasting)
}

/**
 * Puts a finished file in the place of another in one step: fsync of the file, rename, fsync of the directory.
 *
 * **Details** — both must be on one file system; the directory of `to` must exist.
 * **Interruption** — each step is waited for; after an interrupt `to` is the old file or the new one.
 * **Errors** — `FileError`; the old file is then untouched, unless the fsync of the directory failed after the rename.
 * **Cost** — a rename and two fsyncs.
 *
 * @category operations
 * @since 0.1.0
 */
export const publish = (
  from: string,
  to: string,
  options?: PublishOptions
): Effect.Effect<void, FileError, FileSystem.FileSystem> =>
  Effect.flatMap(
    FileSystem.FileSystem,
    (fs) => swap(fs, from, to, synced(fs, from, "sync"), options)
  )

/**
 * A file that is being written. It is removed with its owner unless it was published.
 *
 * @category models
 * @since 0.1.0
 */
export interface Draft {
  readonly path: string
  /** Appends. Interruptible between pieces of 1 MiB, never inside one. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, FileError>
  /** Renames it to `to`, which then holds exactly what was written. */
  readonly publish: (to: string, options?: PublishOptions) => Effect.Effect<void, FileError>
}

/**
 * Options of `draft`.
 *
 * @category models
 * @since 0.1.0
 */
export interface DraftOptions {
  /** Permission bits at creation, less the umask. Default `0o666`. */
  readonly mode?: number | undefined
  /** Removes what an earlier run may have left at this path first. Default `false`: it is then an `EEXIST`. */
  readonly replace?: boolean | undefined
}

const pieceBytes = 1 << 20

const writeIn =
  (file: FileSystem.File, path: string) => (bytes: Uint8Array): Effect.Effect<void, FileError> =>
    // A loop, not one call: the platform takes an empty write for a failed one, and a long one could not be cut.
    Effect.asVoid(Effect.iterate(0, {
      while: (offset) => offset < bytes.length,
      body: (offset) =>
        Effect.as(
          step("write", path, file.writeAll(bytes.subarray(offset, offset + pieceBytes))),
          offset + pieceBytes
        )
    }))

/** Removes a file; its absence is no failure (Files-3). */
const removeIfThere = (fs: FileSystem.FileSystem, path: string): Effect.Effect<void, FileError> =>
  Effect.catchIf(
    step("remove", path, fs.remove(path)),
    ({ code }) => code === "ENOENT" || code === "ENOTDIR",
    () => Effect.void
  )

interface OpenDraft extends Draft {
  /** Holds the descriptor. */
  readonly scope: Scope.CloseableScope
}

const openDraft = (
  fs: FileSystem.FileSystem,
  path: string,
  options: DraftOptions
): Effect.Effect<OpenDraft, FileError> =>
  Effect.gen(function*() {
    if (options.replace === true) yield* removeIfThere(fs, path)
    const scope = yield* Scope.make()
    const opened = Scope.extend(fs.open(path, { flag: "wx", mode: options.mode ?? 0o666 }), scope)
    const file = yield* step("create", path, opened)
    const publish: Draft["publish"] = (to, options) =>
      swap(fs, path, to, step("sync", path, file.sync), options)
    return { path, scope, write: writeIn(file, path), publish }
  })

/**
 * Creates a file that must not exist yet; it is removed with its owner unless it was published before.
 *
 * **Interruption** — creating it is one step with its registration; each write is waited for.
 * **Errors** — `FileError`. A draft that cannot be removed is a defect in the owner's cause.
 * **Cost** — an open, a close, an unlink.
 *
 * @category constructors
 * @since 0.1.0
 */
export const draft = (
  path: string,
  options: DraftOptions = {}
): Managed.Managed<Draft, FileError, FileSystem.FileSystem> =>
  Managed.make<OpenDraft, FileError, FileSystem.FileSystem, FileSystem.FileSystem>({
    name: path,
    kind: "file",
    acquire: Effect.flatMap(FileSystem.FileSystem, (fs) => openDraft(fs, path, options)),
    release: ({ scope }) =>
      Effect.flatMap(
        FileSystem.FileSystem,
        (fs) => Effect.ensuring(removeIfThere(fs, path), Scope.close(scope, Exit.void))
      )
  })

/**
 * Options of `writeAtomic`.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteOptions extends PublishOptions {
  /** Permission bits of the result. Default: those of the file it replaces, else `0o666` less the umask. */
  readonly mode?: number | undefined
  /** Where the draft is made; must be on the same file system. Default: the directory of the destination. */
  readonly temporaryDirectory?: string | undefined
}

const maxLinks = 40

/** Where a write to `path` lands: the end of the chain of symbolic links, also if nothing is there yet. */
const landing = (fs: FileSystem.FileSystem, path: string): Effect.Effect<string, FileError> =>
  Effect.gen(function*() {
    let at = path
    for (let links = 0; links <= maxLinks; links++) {
      // MASK: a call in the kernel cannot be cancelled, so it is waited for (Files-2); nothing else waits here.
      const link = yield* Effect.option(Effect.uninterruptible(fs.readLink(at)))
      if (Option.isNone(link)) return at
      // Not normalised: `..` in a link counts from where its directory really is.
      at = Path.isAbsolute(link.value) ? link.value : `${Path.dirname(at)}/${link.value}`
    }
    return yield* new FileError({ operation: "follow", path, code: "ELOOP" })
  })

/** The file about to be replaced, or none if the name is free. */
const replaced = (
  fs: FileSystem.FileSystem,
  path: string
): Effect.Effect<Option.Option<FileSystem.File.Info>, FileError> =>
  step("look at", path, fs.stat(path)).pipe(
    Effect.flatMap((info) => {
      if (info.type === "File") return Effect.succeed(Option.some(info))
      const code = info.type === "Directory" ? "EISDIR" : "EINVAL"
      return new FileError({ operation: "replace", path, code })
    }),
    Effect.catchIf(({ code }) => code === "ENOENT", () => Effect.succeed(Option.none()))
  )

/** Gives the draft the owner (where allowed) and the mode of the file it replaces. */
const copyOwnership = (
  fs: FileSystem.FileSystem,
  path: string,
  old: Option.Option<FileSystem.File.Info>,
  mode: number | undefined
): Effect.Effect<void, FileError> =>
  Effect.gen(function*() {
    if (Option.isSome(old)) {
      const owner = Option.all([old.value.uid, old.value.gid])
      if (Option.isSome(owner)) {
        // Only root may change the owner; for others the call fails and the file stays theirs.
        yield* Effect.ignore(step("chown", path, fs.chown(path, ...owner.value)))
      }
    }
    if (mode !== undefined) yield* step("chmod", path, fs.chmod(path, mode))
  })

/** A hidden, unique name. It uses at most 32 characters of the old name, so that it is never too long. */
const draftName = (target: string): string =>
  `.${Path.basename(target).slice(0, 32)}.${process.pid}-${randomBytes(6).toString("hex")}.draft`

/**
 * Replaces the content of a file as a whole, or not at all.
 *
 * **Details** — through a symbolic link the file it leads to is replaced; mode and, where allowed, owner stay. Of several
 *   writers at once the last to finish wins, whole.
 * **Interruption** — the write in flight is waited for, the draft is removed, and the path holds what it held before, or
 *   already the new content.
 * **Errors** — `FileError` and the errors of a content stream; the old content is then in place.
 * **Cost** — see the file head; memory is one chunk of the stream.
 *
 * **Example** (a configuration is never half written)
 * ```ts run
 * import { FileSystem } from "@effect/platform"
 * import { NodeFileSystem } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import * as Files from "holdfast/Files"
 *
 * const saved = Effect.scoped(Effect.gen(function*() {
 *   const fs = yield* FileSystem.FileSystem
 *   const path = `${yield* fs.makeTempDirectoryScoped()}/config.json`
 *   yield* Files.writeAtomic(path, "{ \"port\": 80 }")
 *   return yield* fs.readFileString(path)
 * }))
 * const text = await Effect.runPromise(Effect.provide(saved, NodeFileSystem.layer))
 * text // => "{ \"port\": 80 }"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const writeAtomic = <E = never, R = never>(
  path: string,
  content: string | Uint8Array | Stream.Stream<Uint8Array, E, R>,
  options: WriteOptions = {}
): Effect.Effect<void, FileError | E, FileSystem.FileSystem | R> => {
  const site = Ledger.unsafeSite()
  const written = Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const target = yield* landing(fs, path)
    const old = yield* replaced(fs, target)
    const mode = options.mode ?? (Option.isSome(old) ? old.value.mode & 0o7777 : undefined)
    const directory = options.temporaryDirectory ?? Path.dirname(target)
    return yield* Managed.use(
      draft(Path.join(directory, draftName(target)), { mode }),
      (draft) =>
        Effect.gen(function*() {
          if (typeof content === "string") yield* draft.write(Buffer.from(content))
          else if (content instanceof Uint8Array) yield* draft.write(content)
          else yield* Stream.runForEach(content, draft.write)
          yield* copyOwnership(fs, draft.path, old, mode)
          yield* draft.publish(target, options)
        })
    )
  })
  return Ledger.withSite(written, site)
}
