/**
 * Files/drafts: files that are being written, their names, and the removal of those that a killed process left.
 *
 * DESIGN. The name of a draft says who owns it: `.<name>.<place>-<pid>-<start>-<random>.draft`. The place stands for this host, this
 * boot and this PID namespace; the start time tells a process from a later one with its PID. Before a process makes its first draft in
 * a directory it removes the drafts there whose owners are gone. The place of other owners cannot be asked (a shared volume, a run
 * before the last boot): their drafts go when nothing has changed them for a day. If their owner lives after all, it fails to publish.
 *
 * INVARIANTS those of ../Files.ts; and
 * - Drafts-1 A sweep removes regular files with a draft's whole name, whose owner is dead or which have been silent for a day; nothing else.
 * - Drafts-2 What is published is the inode that was written; a path that leads elsewhere is refused, and left alone.
 *
 * COST a sweep reads the directory once per process (again after ten minutes, if it still writes there).
 * NOT DONE a check and a rename in one step: who may write in the directory of a draft can swap it between the two (no system call
 * renames a descriptor). On Windows and macOS there is no start time: a draft stays while another process has its owner's PID.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as Path from "node:path"
import * as Managed from "../Managed.ts"
import { call, failed, FileError, quick } from "./errors.ts"

// Names.

const textOr = (other: string, read: () => string): string => {
  try {
    return read()
  } catch {
    return other
  }
}

/** When a process started, in ticks since the boot; empty where that is not known; none if it is a zombie. */
const startOf = (pid: number | "self"): string | undefined => {
  const stat = textOr("", () => fs.readFileSync(`/proc/${pid}/stat`, "latin1"))
  // The name of the program stands in brackets, and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19] ?? ""
}

let named: string | undefined
/** The part of a draft's name that is the same for all drafts of this process. Written once, by `owner`. */
const owner = (): string => {
  if (named !== undefined) return named
  const boot = textOr("", () => fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1"))
  const space = textOr("", () => fs.readlinkSync("/proc/self/ns/pid"))
  const place = createHash("sha256").update(`${os.hostname()}\0${boot}\0${space}`).digest("hex")
  return named = `${place.slice(0, 12)}-${process.pid}-${startOf("self") || 0}`
}

/** A hidden, unique name. It uses at most 32 characters of the target's, so that it is never too long. */
const nameFor = (target: string): string =>
  `.${Path.basename(target).slice(0, 32)}.${owner()}-${randomBytes(6).toString("hex")}.draft`

const pattern = /^\.[^/]+\.([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{12}\.draft$/

// Sweeping.

const isAlive = (pid: number, start: string): boolean => {
  try {
    process.kill(pid, 0)
  } catch (error) {
    // EPERM: it lives, under another account.
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false
  }
  const now = startOf(pid)
  return now === "" || start === "0" || now === start
}

const silence = 24 * 3600 * 1000

/** By name only; `undefined` if this is no draft. */
const isAbandoned = (name: string, changedAt: () => number): boolean => {
  const [, place, pid, start] = pattern.exec(name) ?? []
  if (place === undefined) return false
  return owner().startsWith(`${place}-`)
    ? !isAlive(Number(pid), start!)
    : Date.now() - changedAt() > silence
}

const sweepIn = async (directory: string): Promise<number> => {
  let removed = 0
  for await (const entry of await fs.promises.opendir(directory)) {
    const path = Path.join(directory, entry.name)
    const changedAt = () => fs.lstatSync(path).mtimeMs
    try {
      if (!isAbandoned(entry.name, changedAt) || !fs.lstatSync(path).isFile()) continue
      await fs.promises.unlink(path)
      removed++
    } catch {
      // Another process has swept it, or it is not ours to remove.
    }
  }
  return removed
}

/**
 * Removes the drafts in a directory whose processes are gone, and says how many those were.
 *
 * **Details** — A writer does this by itself before its first draft in a directory. A file counts as a draft by its whole name, which
 *   names its process; no other file is touched.
 * **Interruption** — It is awaited. **Errors** — `FileError` if the directory cannot be read. **Cost** — Reads the directory.
 *
 * **Example** (nothing to do)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Files from "holdfast/Files"
 *
 * const removed = Effect.scoped(Effect.flatMap(Files.tempDirectory(), Files.sweep))
 * await Effect.runPromise(removed) // => 0
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const sweep = (directory: string): Effect.Effect<number, FileError> =>
  // MASK: a call in the kernel cannot be cancelled, so it is awaited (Files-2).
  Effect.uninterruptible(Effect.tryPromise({
    try: () => sweepIn(directory),
    catch: failed("sweep", directory)
  }))

const again = 10 * 60 * 1000
const mostRemembered = 1_000
/** When this process swept a directory; the oldest first. Written by `sweepOnce` alone. */
const swept = new Map<string, number>()

const sweepOnce = (directory: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    const now = performance.now()
    if (now - (swept.get(directory) ?? -Infinity) < again) return Effect.void
    swept.delete(directory)
    swept.set(directory, now)
    for (const [oldest] of swept) {
      if (swept.size <= mostRemembered) break
      swept.delete(oldest)
    }
    // A directory that cannot be read may still be written to.
    return Effect.ignore(sweep(directory))
  })

// Publishing.

/**
 * How much of a crash the new content survives once published: of the process (`"none"`), of the machine with the content
 * whole if its name is there (`"file"`), of the machine with the name there (`"full"`).
 *
 * @category models
 * @since 0.1.0
 */
export type Durability = "none" | "file" | "full"

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

/** Codes by which a file system says that it cannot sync directories. They are no failure; all others are. */
const cannotSync = new Set(["EINVAL", "EISDIR", "ENOSYS", "ENOTSUP", "EPERM"])

export const syncDirectory = (path: string): Effect.Effect<void, FileError> => {
  const operation = "sync the directory"
  // MASK: the descriptor is closed in the step that has synced.
  return Effect.uninterruptible(
    Effect.flatMap(quick(operation, path, () => fs.openSync(path, "r")), (fd) =>
      Effect.ensuring(
        call(operation, path, (done) => fs.fsync(fd, done)),
        Effect.sync(() => fs.closeSync(fd))
      ))
  ).pipe(Effect.catchIf(({ code }) => cannotSync.has(code), () => Effect.void))
}

interface Inode {
  readonly dev: bigint
  readonly ino: bigint
}

/** Whether a path is this very file; it follows no link. */
const leadsTo = (path: string, { dev, ino }: Inode): boolean => {
  try {
    const found = fs.lstatSync(path, { bigint: true })
    return found.ino === ino && found.dev === dev
  } catch {
    return false
  }
}

/** The descriptor is open, so the kernel gives its inode's number to no other file (Drafts-2). */
const swap = (
  file: { readonly fd: number; readonly path: string; readonly inode: Inode },
  to: string,
  { durability = "full" }: PublishOptions,
  onRenamed: () => void
): Effect.Effect<void, FileError> => {
  const { fd, inode, path } = file
  const renamed = Effect.suspend(() =>
    leadsTo(path, inode)
      ? Effect.map(call("rename", to, (done) => fs.rename(path, to, done)), onRenamed)
      : new FileError({ operation: "publish", path, code: "ESTALE" })
  )
  // MASK: with the rename go its record and the sync of the directory; without that the new content might not last.
  const lasting = Effect.uninterruptible(
    durability === "full" ? Effect.zipRight(renamed, syncDirectory(Path.dirname(to))) : renamed
  )
  if (durability === "none") return lasting
  return Effect.zipRight(call("sync", path, (done) => fs.fsync(fd, done)), lasting)
}

/**
 * Puts a finished file in the place of another in one step: fsync of the file, rename, fsync of the directory.
 *
 * **Details** — both must be on one file system; the directory of `to` must exist. A symbolic link at `from` is refused.
 * **Interruption** — each step is awaited; after an interrupt `to` is the old file or the new one.
 * **Errors** — `FileError`; the old file is then untouched, unless the fsync of the directory failed after the rename.
 * **Cost** — a rename and two fsyncs.
 *
 * @category operations
 * @since 0.1.0
 */
export const publish = (
  from: string,
  to: string,
  options: PublishOptions = {}
): Effect.Effect<void, FileError> => {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants
  return Effect.acquireUseRelease(
    // Non-blocking: opening a pipe would wait for its writer.
    quick("open", from, () => fs.openSync(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)),
    (fd) => {
      const inode = fs.fstatSync(fd, { bigint: true })
      return swap({ fd, path: from, inode }, to, options, () => {})
    },
    (fd) => Effect.sync(() => fs.closeSync(fd))
  )
}

// Drafts.

/**
 * A file that is being written. It is removed with its owner unless it was published.
 *
 * @category models
 * @since 0.1.0
 */
export interface Draft {
  readonly path: string
  /** How many bytes it has. */
  readonly written: number
  /** Appends. Interruptible between pieces of 1 MiB, never inside one. Many chunks go to the kernel in one call. */
  readonly write: (bytes: Bytes) => Effect.Effect<void, FileError>
  /** Cuts it to its first `bytes`; what is written next follows them. */
  readonly truncate: (bytes: number) => Effect.Effect<void, FileError>
  /** Renames it to `to`, which then holds exactly what was written. */
  readonly publish: (to: string, options?: PublishOptions) => Effect.Effect<void, FileError>
}

/**
 * Bytes in one piece or in several.
 *
 * @category models
 * @since 0.1.0
 */
export type Bytes = Uint8Array | ReadonlyArray<Uint8Array>

const pieceBytes = 1 << 20
/** The kernel copies so many bytes sooner than a thread is asked to. */
const atOnceBytes = 1 << 16
/** The kernel takes 1,024 at once. */
const piecesAtOnce = 1_000

/** The first 1 MiB. */
const firstOf = (chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> => {
  const first: Array<Uint8Array> = []
  let room = pieceBytes
  for (const chunk of chunks) {
    if (room === 0 || first.length === piecesAtOnce) break
    first.push(chunk.length <= room ? chunk : chunk.subarray(0, room))
    room -= first.at(-1)!.length
  }
  return first
}

/** What follows the first `n` bytes; without empty chunks, of which the kernel writes none. */
const after = (chunks: ReadonlyArray<Uint8Array>, n: number): ReadonlyArray<Uint8Array> => {
  let whole = 0
  let left = n
  while (whole < chunks.length && chunks[whole]!.length <= left) left -= chunks[whole++]!.length
  return whole === chunks.length
    ? []
    : [chunks[whole]!.subarray(left), ...chunks.slice(whole + 1)]
}

/** Has a descriptor until it is ended. */
export class OpenDraft implements Draft {
  written = 0
  #published = false
  readonly path: string
  readonly fd: number
  readonly inode: fs.BigIntStats

  constructor(path: string, mode: number) {
    this.path = path
    this.fd = fs.openSync(path, "wx", mode)
    this.inode = fs.fstatSync(this.fd, { bigint: true })
  }

  readonly write = (bytes: Bytes): Effect.Effect<void, FileError> =>
    Effect.asVoid(Effect.iterate(after(bytes instanceof Uint8Array ? [bytes] : bytes, 0), {
      while: (left) => left.length > 0,
      // MASK: a piece that is written is counted in the same step.
      body: (left) => Effect.uninterruptible(this.#piece(left))
    }))

  /** One call of the kernel, which may write less than it is given. Gives what is left. */
  #piece(left: ReadonlyArray<Uint8Array>): Effect.Effect<ReadonlyArray<Uint8Array>, FileError> {
    const { fd, path, written } = this
    const piece = firstOf(left)
    const [first] = piece
    const wrote = piece.length > 1
      ? call<number>("write", path, (done) => fs.writev(fd, piece, written, done))
      : first!.length <= atOnceBytes
      ? quick("write", path, () => fs.writeSync(fd, first!, 0, null, written))
      : call<number>("write", path, (done) => fs.write(fd, first!, 0, null, written, done))
    return Effect.map(wrote, (n) => {
      this.written += n
      return after(left, n)
    })
  }

  readonly truncate = (bytes: number): Effect.Effect<void, FileError> => {
    const cut = call("truncate", this.path, (done) => fs.ftruncate(this.fd, bytes, done))
    // MASK: as in `write`.
    return Effect.uninterruptible(Effect.map(cut, () => {
      this.written = bytes
    }))
  }

  readonly publish = (to: string, options: PublishOptions = {}): Effect.Effect<void, FileError> =>
    swap(this, to, options, () => {
      this.#published = true
    })

  /** Closes it, and removes it unless it was published. What another program has put at its path stays (Drafts-2). */
  readonly end = (): Effect.Effect<void, FileError> => {
    // One operation: such a release needs no fiber of its own.
    const closed = Effect.sync(() => fs.closeSync(this.fd))
    return !this.#published && leadsTo(this.path, this.inode)
      ? Effect.ensuring(removeIfThere(this.path), closed)
      : closed
  }
}

/** Removes a file; its absence is no failure (Files-3). */
const removeIfThere = (path: string): Effect.Effect<void, FileError> =>
  Effect.catchIf(
    call("remove", path, (done) => fs.unlink(path, done)),
    ({ code }) => code === "ENOENT" || code === "ENOTDIR",
    () => Effect.void
  )

/**
 * Options of `draftOf`.
 *
 * @category models
 * @since 0.1.0
 */
export interface DraftOfOptions {
  /** Permission bits at creation, less the umask. Default `0o666`. */
  readonly mode?: number | undefined
  /** Where it is made; must be on the file system of the target. Default: the directory of the target. */
  readonly temporaryDirectory?: string | undefined
}

/** As `draftOf`, with what only the rooms of this module use. */
export const openDraftOf = (
  target: string,
  { mode = 0o666, temporaryDirectory: directory = Path.dirname(target) }: DraftOfOptions
): Managed.Managed<OpenDraft, FileError> => {
  const path = Path.join(directory, nameFor(target))
  const opened = quick("create", path, () => new OpenDraft(path, mode))
  return Managed.make({
    name: path,
    kind: "file",
    acquire: Effect.zipRight(sweepOnce(directory), opened),
    release: (draft) => draft.end()
  })
}

/**
 * Creates a file with a new name beside `target`, in which the content of `target` can be gathered; it is removed with its owner
 * unless it was published before. What a killed process leaves, a later one removes (`sweep`).
 *
 * **Interruption** — creating it is one step with its registration; each write is awaited.
 * **Errors** — `FileError`. A draft that cannot be removed is a defect in the owner's cause.
 * **Cost** — an open, a close, an unlink.
 *
 * **Example** (published as a whole)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const names = Effect.scoped(Effect.gen(function*() {
 *   const directory = yield* Files.tempDirectory()
 *   const target = `${directory}/report`
 *   yield* Managed.use(Files.draftOf(target), (draft) =>
 *     Effect.zipRight(draft.write(Buffer.from("whole")), draft.publish(target)))
 *   return fs.readdirSync(directory)
 * }))
 * await Effect.runPromise(names) // => ["report"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const draftOf = (
  target: string,
  options: DraftOfOptions = {}
): Managed.Managed<Draft, FileError> => openDraftOf(target, options)

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

/**
 * As `draftOf`, at a path of your own, which must be free.
 *
 * @category constructors
 * @since 0.1.0
 */
export const draft = (
  path: string,
  { mode = 0o666, replace = false }: DraftOptions = {}
): Managed.Managed<Draft, FileError> => {
  const opened = quick("create", path, () => new OpenDraft(path, mode))
  return Managed.make<OpenDraft, FileError>({
    name: path,
    kind: "file",
    acquire: replace ? Effect.zipRight(removeIfThere(path), opened) : opened,
    release: (draft) => draft.end()
  })
}
