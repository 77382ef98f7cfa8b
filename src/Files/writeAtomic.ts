/**
 * Files/writeAtomic: a file is replaced as a whole, by one writer at a time. ../Files.ts has the invariants.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import * as fs from "node:fs"
import * as Path from "node:path"
import * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"
import * as Mutex from "../Mutex.ts"
import { type OpenDraft, openDraftOf, type PublishOptions } from "./drafts.ts"
import { FileError, quick } from "./errors.ts"

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
export const landing = (path: string): string => {
  let at = path
  for (let links = 0; links <= maxLinks; links++) {
    if (fs.lstatSync(at, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return at
    const link = fs.readlinkSync(at)
    // Not normalised: `..` in a link counts from where its directory really is.
    at = Path.isAbsolute(link) ? link : `${Path.dirname(at)}/${link}`
  }
  throw new FileError({ operation: "follow", path, code: "ELOOP" })
}

/** One name for one file, however its directory was reached. A directory that is missing fails when the draft is created. */
export const keyOf = (target: string): string => {
  const directory = fs.statSync(Path.dirname(target), { throwIfNoEntry: false })
  return directory === undefined
    ? target
    : `${directory.dev}:${directory.ino}/${Path.basename(target)}`
}

/** The file about to be replaced; undefined if the name is free. */
const replaced = (path: string): fs.Stats | undefined => {
  const found = fs.lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined || found.isFile()) return found
  const code = found.isDirectory() ? "EISDIR" : "EINVAL"
  throw new FileError({ operation: "replace", path, code })
}

/**
 * Gives the draft the owner (where allowed) and the mode of the file it replaces: by its descriptor, for in the directory of
 * another account its path may lead elsewhere by now (Files-5).
 */
const copyOwnership = (
  { fd, inode }: OpenDraft,
  old: fs.Stats | undefined,
  mode: number | undefined
): void => {
  const changesOwner = old !== undefined
    && (BigInt(old.uid) !== inode.uid || BigInt(old.gid) !== inode.gid)
  if (changesOwner) {
    try {
      fs.fchownSync(fd, old.uid, old.gid)
    } catch {
      // Only root may change the owner; for others the file stays theirs.
    }
  }
  // A change of the owner clears bits of the mode.
  const changesMode = mode !== undefined && (changesOwner || mode !== Number(inode.mode & 0o7777n))
  if (changesMode) fs.fchmodSync(fd, mode)
}

interface Replacement {
  readonly draft: Managed.Managed<OpenDraft, FileError>
  readonly publish: (draft: OpenDraft) => Effect.Effect<void, FileError>
}

/** The draft of a new content, and the way to publish it. Only who holds the lock of the target runs it. */
const replacement = (
  target: string,
  options: WriteOptions
): Effect.Effect<Replacement, FileError> =>
  Effect.map(quick("look at", target, () => replaced(target)), (old) => {
    const mode = options.mode ?? (old === undefined ? undefined : old.mode & 0o7777)
    return {
      draft: openDraftOf(target, { mode, temporaryDirectory: options.temporaryDirectory }),
      publish: (draft) =>
        Effect.zipRight(
          quick("chmod", draft.path, () => copyOwnership(draft, old, mode)),
          draft.publish(target, options)
        )
    }
  })

let locks: Mutex.KeyedMutex<string> | undefined
/** The writers of this process, by file (Files-6). Made at its first use. */
const writers = () => locks ??= Effect.runSync(Mutex.makeKeyed<string>({ name: "file" }))

/**
 * Replaces the content of a file as a whole, or not at all.
 *
 * **Details** — through a symbolic link the file it leads to is replaced; mode and, where allowed, owner stay. The writers of one
 *   file in this process take turns; of several processes the last to finish wins, whole. A stream that writes the file which it
 *   is the content of dies with `MutexReentry`.
 * **Interruption** — the write in flight is awaited, the draft is removed, and the path holds what it held before, or already the
 *   new content.
 * **Errors** — `FileError` and the errors of a content stream; the old content is then in place. `ESTALE`: another program has
 *   taken the draft away.
 * **Cost** — see the file head; memory is one chunk of the stream.
 *
 * **Example** (a configuration is never half written)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const saved = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/config.json`
 *   yield* Files.writeAtomic(path, "{ \"port\": 80 }")
 *   return fs.readFileSync(path, "utf8")
 * }))
 * await Effect.runPromise(saved) // => "{ \"port\": 80 }"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const writeAtomic = <E = never, R = never>(
  path: string,
  content: string | Uint8Array | Stream.Stream<Uint8Array, E, R>,
  options: WriteOptions = {}
): Effect.Effect<void, FileError | E, R> => {
  const site = Ledger.unsafeSite()
  const pour = (draft: OpenDraft) =>
    typeof content === "string"
      ? draft.write(Buffer.from(content))
      : content instanceof Uint8Array
      ? draft.write(content)
      : Stream.runForEach(content, draft.write)
  const written = Effect.flatMap(located(path), ({ key, target }) =>
    Mutex.withLockKey(
      Effect.flatMap(replacement(target, options), ({ draft, publish }) =>
        Managed.use(draft, (open) =>
          Effect.zipRight(pour(open), publish(open)))),
      writers(),
      key
    ))
  return Ledger.withSite(written, site)
}

const located = (path: string) =>
  quick("look at", path, () => {
    const target = landing(path)
    return { target, key: keyOf(target) }
  })

/**
 * A sink that replaces the content of a file as a whole when the stream has ended, or not at all.
 *
 * **Interruption**, **Errors**, **Cost** — as `writeAtomic`. If the stream fails, the old content stays.
 *
 * **Example** (numbers into a file)
 * ```ts run
 * import { Effect, Stream } from "effect"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const saved = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/numbers`
 *   const lines = Stream.range(1, 3).pipe(Stream.map((n) => `${n}\n`), Stream.encodeText)
 *   yield* Stream.run(lines, Files.atomicSink(path))
 *   return fs.readFileSync(path, "utf8")
 * }))
 * await Effect.runPromise(saved) // => "1\n2\n3\n"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const atomicSink = (
  path: string,
  options: WriteOptions = {}
): Sink.Sink<void, Uint8Array, never, FileError> => {
  const site = Ledger.unsafeSite()
  return Sink.unwrapScoped(Ledger.withSite(
    Effect.gen(function*() {
      const { key, target } = yield* located(path)
      yield* Mutex.getKey(writers(), key)
      const { draft, publish } = yield* replacement(target, options)
      const open = yield* draft
      return Sink.mapEffect(Sink.forEach(open.write), () => publish(open))
    }),
    site
  ))
}
