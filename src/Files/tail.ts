/**
 * Files/tail: the lines of a file that grows, as a stream. It asks the file again and again; it needs no watcher of the system.
 *
 * INVARIANTS
 * - Tail-1 Each line is given once, whole, in the order of the file; what has no line feed yet waits.
 * - Tail-2 After a rotation the rest of the old file comes first, then the new file from its beginning. A file that became shorter than
 *   what was read begins anew.
 * - Tail-3 The descriptor is closed with the stream; a file that is not there yet is awaited.
 *
 * COST one lstat and one read per `every` without news. NOT DONE a file that is rotated twice between two looks: the one in the
 * middle is missed.
 *
 * @since 0.1.0
 */
import * as Chunk from "effect/Chunk"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Buffer } from "node:buffer"
import * as fs from "node:fs"
import { StringDecoder } from "node:string_decoder"
import { call, FileError, quick } from "./errors.ts"

/**
 * Options of `tail`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TailOptions {
  /** Whether the lines that are there already come first. Default `false`: only what is appended from now on. */
  readonly fromStart?: boolean | undefined
  /** How long it waits at the end of the file before it looks again. Default 250 ms. */
  readonly every?: Duration.DurationInput | undefined
  /** A longer line fails with `EMSGSIZE`. Default 1 MiB. */
  readonly maxLineBytes?: number | undefined
}

const readBytes = 1 << 16

/** What is open, and how far it was read. Written by the stream's own fiber alone. */
class Tail {
  #fd: number | undefined
  #position = 0
  #partial = ""
  #decoder = new StringDecoder("utf8")
  readonly #bytes = Buffer.allocUnsafe(readBytes)
  readonly #path: string
  readonly #maxLineBytes: number

  constructor(path: string, maxLineBytes: number) {
    this.#path = path
    this.#maxLineBytes = maxLineBytes
  }

  /** Opens the path if it is there. */
  readonly open = (fromStart: boolean): void => {
    const { O_NONBLOCK, O_RDONLY } = fs.constants
    try {
      // Non-blocking: opening a pipe would wait for its writer.
      this.#fd = fs.openSync(this.#path, O_RDONLY | O_NONBLOCK)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error
      return
    }
    const stat = fs.fstatSync(this.#fd)
    if (!stat.isFile()) {
      throw new FileError({ operation: "tail", path: this.#path, code: "EINVAL" })
    }
    this.#begin(fromStart ? 0 : stat.size)
  }

  #begin(position: number): void {
    this.#position = position
    this.#partial = ""
    this.#decoder = new StringDecoder("utf8")
  }

  readonly close = (): void => {
    if (this.#fd !== undefined) fs.closeSync(this.#fd)
    this.#fd = undefined
  }

  /** The next lines; none at the end of what is there. */
  read(): Effect.Effect<ReadonlyArray<string>, FileError> {
    const fd = this.#fd
    if (fd === undefined) return Effect.succeed([])
    const got = call<number>(
      "read",
      this.#path,
      (done) => fs.read(fd, this.#bytes, 0, readBytes, this.#position, done)
    )
    return Effect.flatMap(got, (n) => {
      this.#position += n
      const lines = (this.#partial + this.#decoder.write(this.#bytes.subarray(0, n))).split("\n")
      this.#partial = lines.pop()!
      const isLong = Buffer.byteLength(this.#partial) > this.#maxLineBytes
      if (isLong) return new FileError({ operation: "read", path: this.#path, code: "EMSGSIZE" })
      return n > 0 && lines.length === 0 ? this.read() : Effect.succeed(lines)
    })
  }

  /** At the end: whether the path is another file by now, or a shorter one. Where it is gone, the old one is kept. */
  hasChanged(): boolean {
    const found = fs.statSync(this.#path, { throwIfNoEntry: false })
    if (found === undefined) return false
    if (this.#fd === undefined) return true
    const ours = fs.fstatSync(this.#fd)
    if (ours.size < this.#position) this.#begin(0)
    return found.ino !== ours.ino || found.dev !== ours.dev
  }
}

/**
 * The lines of a file, as they are appended; through rotations and truncations, without end.
 *
 * **Interruption** — at once; the descriptor is closed. **Errors** — `FileError`; a file that is not there is none.
 * **Cost** — a read and a stat each `every` (on `Clock`) while nothing happens.
 *
 * **Example** (the first two lines)
 * ```ts run
 * import { Effect, Stream } from "effect"
 * import * as Files from "holdfast/Files"
 *
 * const lines = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/app.log`
 *   yield* Files.writeAtomic(path, "one\ntwo\nthr")
 *   return yield* Stream.runCollect(Stream.take(Files.tail(path, { fromStart: true }), 2))
 * }))
 * Array.from(await Effect.runPromise(lines)) // => ["one", "two"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const tail = (
  path: string,
  { every = Duration.millis(250), fromStart = false, maxLineBytes = 1 << 20 }: TailOptions = {}
): Stream.Stream<string, FileError> =>
  Stream.unwrapScoped(Effect.map(opened(path, fromStart, maxLineBytes), (tail) => {
    const changed = quick("look at", path, () => tail.hasChanged())
    const read = Effect.suspend(() => tail.read())
    const next: Effect.Effect<ReadonlyArray<string>, FileError> = Effect.flatMap(
      read,
      (lines) => lines.length > 0 ? Effect.succeed(lines) : Effect.flatMap(changed, turn)
    )
    // Looked at after its end was seen: what was appended in between is read before the old file is left.
    const turn = (hasChanged: boolean) =>
      hasChanged
        ? Effect.flatMap(read, (lines) =>
          lines.length > 0 ? Effect.succeed(lines) : Effect.zipRight(anew, next))
        : Effect.zipRight(Effect.sleep(every), next)
    const anew = quick("open", path, () => {
      tail.close()
      tail.open(true)
    })
    return Stream.repeatEffectChunkOption(
      Effect.mapBoth(next, { onSuccess: Chunk.fromIterable, onFailure: Option.some })
    )
  }))

const opened = (
  path: string,
  fromStart: boolean,
  maxLineBytes: number
): Effect.Effect<Tail, FileError, Scope.Scope> =>
  Effect.tap(
    Effect.acquireRelease(
      Effect.sync(() => new Tail(path, maxLineBytes)),
      (tail) => Effect.sync(tail.close)
    ),
    (tail) => quick("open", path, () => tail.open(fromStart))
  )
