/**
 * Files/logFile: a file that lines are appended to, by one batching writer.
 *
 * DESIGN. `write` puts a line into a buffer and returns; a loop writes what has gathered, one call of the kernel per batch, as long as
 * there is something. The loop is no fiber: it has no interruption to survive, and a shutdown has nothing to wait for but
 * the release. All else that touches the file (flush, reopen) is a request that the loop answers after the lines that were
 * accepted before it.
 *
 * INVARIANTS
 * - LogFile-1 (F3) An accepted line is written once, whole, and after the lines that its producer wrote before. Only `"dropOldest"`
 *   drops lines, and counts them.
 * - LogFile-2 (F3) At most `maxBufferedBytes` wait in memory, or one line that is longer.
 * - LogFile-3 (L5, L8) After a failed write the lines stay in the buffer, the file ends with a whole line, and each `write` fails
 *   with the `FileError` and makes one more attempt, until one succeeds.
 * - LogFile-4 (F3) The release writes and syncs all that was accepted, whatever the exit; it fails if it cannot.
 * - LogFile-5 (F3) A rotation loses no line and doubles none; a file is at most `maxBytes`, or one line that is longer.
 * - LogFile-6 (L6) Waiting producers get room first come, first served; one that is interrupted while it waits has written nothing.
 * - LogFile-7 (L7) A write after the release fails with `LogFileClosed`.
 *
 * COST (2026-11) `npm run bench -- Files` shows it beside sonic-boom and pino.
 * NOT DONE several processes on one file: each line stays whole (O_APPEND), but they rotate it under each other. A process that is
 *   killed, or ends without releasing, loses its buffer: run under `Main.run`.
 * SOURCES sonic-boom #65 (unbounded buffer), #160 (reopen during a write ignored); pino #542, #871 (lines lost at exit); pino-roll #108;
 *   aya #89 (two rotators destroy a generation).
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Buffer } from "node:buffer"
import * as fs from "node:fs"
import * as Managed from "../Managed.ts"
import * as Semaphore from "../Semaphore.ts"
import { failed, FileError } from "./errors.ts"
import { nextGeneration, tidy } from "./generations.ts"
import { landing } from "./writeAtomic.ts"

/**
 * The log file was released. The line was not accepted.
 *
 * @category errors
 * @since 0.1.0
 */
export class LogFileClosed extends Data.TaggedError("LogFileClosed")<{ readonly path: string }> {
  override get message(): string {
    return `${this.path} was released before this line was written. Write while its owner lives.`
  }
}

/**
 * The buffer has no room (`onFull: "fail"`). The line was not accepted.
 *
 * @category errors
 * @since 0.1.0
 */
export class LogFileFull extends Data.TaggedError("LogFileFull")<{
  readonly path: string
  readonly bufferedBytes: number
}> {
  override get message(): string {
    return `${this.bufferedBytes} bytes wait to be written to ${this.path}. `
      + "Raise maxBufferedBytes, or choose onFull: \"wait\" or \"dropOldest\"."
  }
}

/**
 * When a log file becomes an old one: the file gets the next number as its ending, and a new one begins.
 *
 * @category models
 * @since 0.1.0
 */
export interface RotateOptions {
  /** Before a line that would make the file larger. */
  readonly maxBytes?: number | undefined
  /** With the first line of each new interval, counted from the epoch (`"1 day"`: at midnight UTC). */
  readonly every?: Duration.DurationInput | undefined
  /** How many old files stay. Default: all. */
  readonly keep?: number | undefined
  /** Compresses old files. Default `false`. */
  readonly gzip?: boolean | undefined
}

/**
 * Options of `logFile`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogFileOptions {
  /** Default 1 MiB. */
  readonly maxBufferedBytes?: number | undefined
  /** What happens to a line for which the buffer has no room. Default `"wait"`. */
  readonly onFull?: "wait" | "dropOldest" | "fail" | undefined
  /** Permission bits of a new file, less the umask. Default `0o666`. */
  readonly mode?: number | undefined
  readonly rotate?: RotateOptions | undefined
  /**
   * Opens the path anew at this signal, after logrotate has moved the file. `Main.run` takes SIGHUP as a request to end, unless its
   * `signals` leave it out. Default: none.
   */
  readonly reopenOn?: NodeJS.Signals | undefined
}

/**
 * Exact in the step that reads them.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogFileStats {
  /** Lines. */
  readonly accepted: number
  readonly written: number
  readonly dropped: number
  readonly bufferedBytes: number
  readonly rotations: number
  /** Of the last attempt to write; else of the last time that old files could not be tidied or the path opened anew. */
  readonly failure: FileError | undefined
}

/**
 * A log file that is open.
 *
 * @category models
 * @since 0.1.0
 */
export interface LogFile {
  readonly path: string
  /**
   * Accepts a line; the line feed is added.
   *
   * **Interruption** — waiting for room: the line is not accepted. **Errors** — `FileError` while the file cannot be written,
   *   `LogFileFull` with `onFull: "fail"`, `LogFileClosed`. **Cost** — less than a microsecond where there is room.
   */
  readonly write: (line: string) => Effect.Effect<void, WriteError>
  /** As `write`, but never waits: false if the line was not accepted. */
  readonly unsafeWrite: (line: string) => boolean
  /** Waits until all that was accepted so far is on the disk. **Interruption** — ends the wait alone. */
  readonly flush: Effect.Effect<void, FileError>
  /** Opens the path anew, after the lines accepted so far. Until that succeeds the old file stays in use. */
  readonly reopen: Effect.Effect<void, FileError>
  readonly stats: Effect.Effect<LogFileStats>
}

type WriteError = FileError | LogFileClosed | LogFileFull

interface Request {
  /** It runs when so many lines are settled. */
  readonly after: number
  readonly run: () => Promise<void>
  readonly resolve: () => void
  readonly reject: (error: FileError) => void
}

const batchBytes = 1 << 18
/** So many old files may wait for their sync; then the writer waits. */
const mostUntidied = 4

const attempt = async <A>(operation: string, path: string, run: () => Promise<A>): Promise<A> => {
  try {
    return await run()
  } catch (error) {
    throw failed(operation, path)(error)
  }
}

/** Written by its own methods alone; `#pump` is the only one that touches the file. */
class Writer implements LogFile {
  readonly path: string
  readonly #options: LogFileOptions
  readonly #clock: Clock.Clock
  readonly #maxBufferedBytes: number
  /** A permit is a free byte of the buffer; the semaphore's queue is that of the producers (LogFile-6). */
  readonly #room: Semaphore.Semaphore<Semaphore.Cancelled>

  #file!: fs.promises.FileHandle
  #fileBytes = 0
  #period = 0

  /** Accepted, not yet in a batch: from `#head` on. Each with its line feed. */
  #lines: Array<string> = []
  #sizes: Array<number> = []
  #head = 0
  /** The batch that is being written, and what is left of it. */
  #batch: { readonly lines: number; readonly bytes: Buffer; from: number } | undefined
  #requests: Array<Request> = []
  #accepted = 0
  #written = 0
  #dropped = 0
  #bufferedBytes = 0
  #rotations = 0
  /** Of the last attempt to write; while lines wait, none is accepted. */
  #failure: FileError | undefined
  #tidyFailure: FileError | undefined
  #isClosed = false
  #pumping: Promise<void> | undefined
  #tidying: Promise<void> = Promise.resolve()
  #untidied = 0

  constructor(path: string, options: LogFileOptions, clock: Clock.Clock) {
    this.path = path
    this.#options = options
    this.#clock = clock
    this.#maxBufferedBytes = options.maxBufferedBytes ?? 1 << 20
    this.#room = Semaphore.unsafeMake(this.#maxBufferedBytes, { name: path, closable: true })
  }

  // The file.

  async open(): Promise<void> {
    const { mode = 0o666 } = this.#options
    const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = fs.constants
    // Non-blocking: opening a pipe would wait for its reader.
    const flags = O_APPEND | O_CREAT | O_NONBLOCK | O_WRONLY
    const file = await attempt("open", this.path, () => fs.promises.open(this.path, flags, mode))
    const stat = await file.stat()
    if (!stat.isFile()) {
      await file.close()
      throw new FileError({ operation: "open", path: this.path, code: "EINVAL" })
    }
    this.#file = file
    this.#fileBytes = stat.size
    this.#period = this.#periodOf(stat.mtimeMs)
  }

  #now(): number {
    return this.#clock.unsafeCurrentTimeMillis()
  }

  #periodOf(millis: number): number {
    const every = this.#options.rotate?.every
    return every === undefined ? 0 : Math.floor(millis / Duration.toMillis(every))
  }

  async #reopen(): Promise<void> {
    const old = this.#file
    await this.open()
    this.tidyAfter(old)
  }

  async #rotate(): Promise<void> {
    const [ours, found] = [
      await this.#file.stat(),
      await fs.promises.lstat(this.path).catch(() => undefined)
    ]
    // If it is another file, somebody else has moved ours already.
    if (found?.ino === ours.ino && found.dev === ours.dev) {
      await attempt(
        "rotate",
        this.path,
        async () => fs.promises.rename(this.path, `${this.path}.${await nextGeneration(this.path)}`)
      )
    }
    await this.#reopen()
    this.#rotations++
  }

  /** Beside the writer: puts the old file on the disk, then sees to the generations. */
  tidyAfter(old?: fs.promises.FileHandle): void {
    const { gzip = false, keep = Infinity } = this.#options.rotate ?? {}
    this.#untidied++
    this.#tidying = this.#tidying.then(async () => {
      try {
        await old?.sync()
        await old?.close()
        if (this.#options.rotate !== undefined) await tidy(this.path, keep, gzip)
      } catch (error) {
        this.#tidyFailure = failed("tidy", this.path)(error)
      }
      this.#untidied--
    })
  }

  // The loop.

  #start(): void {
    if (this.#pumping !== undefined) return
    // A turn later: what is written until then goes with the first batch.
    const turn = new Promise((resolve) => setImmediate(resolve))
    this.#pumping = turn.then(() => this.#pump())
  }

  async #pump(): Promise<void> {
    try {
      while (true) {
        const settled = this.#written + this.#dropped
        if (this.#requests.length > 0 && this.#requests[0]!.after <= settled) {
          await this.#answer(this.#requests.shift()!)
        } else if (this.#batch !== undefined || this.#head < this.#lines.length) {
          await this.#step()
          this.#failure = undefined
        } else break
      }
    } catch (error) {
      this.#failure = failed("write", this.path)(error)
      for (const { reject } of this.#requests.splice(0)) reject(this.#failure)
      Effect.runSync(Semaphore.cancelWaiters(this.#room))
    }
    this.#pumping = undefined
  }

  async #answer({ reject, resolve, run }: Request): Promise<void> {
    try {
      await run()
      resolve()
    } catch (error) {
      reject(failed("write", this.path)(error))
    }
  }

  async #step(): Promise<void> {
    if (this.#batch === undefined) {
      if (this.#untidied > mostUntidied) await this.#tidying
      if (this.#mustRotate()) await this.#rotate()
      if (this.#fileBytes === 0) this.#period = this.#periodOf(this.#now())
      this.#batch = this.#nextBatch()
    }
    const batch = this.#batch
    const before = this.#fileBytes - batch.from
    try {
      while (batch.from < batch.bytes.length) {
        const { bytesWritten } = await this.#file.write(batch.bytes, batch.from)
        batch.from += bytesWritten
        this.#fileBytes += bytesWritten
      }
    } catch (error) {
      await this.#cut(batch, before)
      throw error
    }
    this.#batch = undefined
    this.#written += batch.lines
    this.#free(batch.bytes.length)
  }

  /** Takes back the part of a batch that was written, unless another process has appended to the file. */
  async #cut(batch: { from: number }, before: number): Promise<void> {
    if (batch.from === 0) return
    try {
      if ((await this.#file.stat()).size !== before + batch.from) return
      await this.#file.truncate(before)
      batch.from = 0
      this.#fileBytes = before
    } catch {
      // The rest of the batch follows with the next attempt.
    }
  }

  #mustRotate(): boolean {
    if (this.#fileBytes === 0) return false
    const { maxBytes = Infinity } = this.#options.rotate ?? {}
    return this.#fileBytes + this.#sizes[this.#head]! > maxBytes
      || this.#periodOf(this.#now()) > this.#period
  }

  /** As many whole lines as fit in the file, at least one. */
  #nextBatch() {
    const room = Math.min(
      batchBytes,
      (this.#options.rotate?.maxBytes ?? Infinity) - this.#fileBytes
    )
    let end = this.#head
    let size = 0
    do size += this.#sizes[end++]!
    while (end < this.#lines.length && size + this.#sizes[end]! <= room)
    const lines = end - this.#head
    const bytes = Buffer.from(this.#lines.slice(this.#head, end).join(""))
    this.#head = end
    this.#compact()
    return { lines, bytes, from: 0 }
  }

  #compact(): void {
    if (this.#head < this.#lines.length && this.#head < 1 << 14) return
    this.#lines = this.#lines.slice(this.#head)
    this.#sizes = this.#sizes.slice(this.#head)
    this.#head = 0
  }

  // Producers.

  /** A line that is longer than the buffer needs all of it. */
  #permits(bytes: number): number {
    return Math.min(bytes, this.#maxBufferedBytes)
  }

  #free(bytes: number): void {
    this.#bufferedBytes -= bytes
    Semaphore.unsafeRelease(this.#room, this.#permits(bytes))
  }

  /** The permits are taken. */
  #accept(line: string, size: number): void {
    this.#lines.push(`${line}\n`)
    this.#sizes.push(size)
    this.#bufferedBytes += size
    this.#accepted++
    this.#start()
  }

  /** Drops lines until there is room, at last the new one: what is being written cannot be dropped. */
  #acceptNewest(line: string, size: number): void {
    while (this.#head < this.#lines.length) {
      this.#dropped++
      this.#free(this.#sizes[this.#head++]!)
      if (Semaphore.unsafeTryTake(this.#room, this.#permits(size))) {
        this.#compact()
        return this.#accept(line, size)
      }
    }
    this.#accepted++
    this.#dropped++
  }

  /** Why no line is accepted now. A failed file gets one more attempt. */
  #refusal(): FileError | LogFileClosed | undefined {
    if (this.#isClosed) return new LogFileClosed({ path: this.path })
    if (this.#failure !== undefined && this.#hasWork()) {
      this.#start()
      return this.#failure
    }
    return undefined
  }

  #hasWork(): boolean {
    return this.#batch !== undefined || this.#head < this.#lines.length
  }

  readonly write = (line: string): Effect.Effect<void, WriteError> =>
    Effect.suspend((): Effect.Effect<void, WriteError> => {
      if (this.unsafeWrite(line)) return Effect.void
      const refusal = this.#refusal()
      if (refusal !== undefined) return refusal
      return this.#options.onFull === "fail"
        ? new LogFileFull({ path: this.path, bufferedBytes: this.#bufferedBytes })
        : this.#writeInTurn(line)
    })

  readonly unsafeWrite = (line: string): boolean => {
    if (this.#refusal() !== undefined) return false
    const size = Buffer.byteLength(line) + 1
    if (Semaphore.unsafeTryTake(this.#room, this.#permits(size))) this.#accept(line, size)
    else if (this.#options.onFull === "dropOldest") this.#acceptNewest(line, size)
    else return false
    return true
  }

  #writeInTurn(line: string): Effect.Effect<void, FileError | LogFileClosed> {
    const size = Buffer.byteLength(line) + 1
    // MASK: room that was taken is filled in the same step (LogFile-6); the wait is restored.
    return Effect.uninterruptibleMask((restore) =>
      Effect.matchEffect(Semaphore.takeInMask(this.#room, this.#permits(size), restore), {
        onSuccess: () => Effect.sync(() => this.#accept(line, size)),
        // The file failed, or is closed; or a later attempt has succeeded by now.
        onFailure: () => this.#refusal() ?? restore(this.#writeInTurn(line))
      })
    )
  }

  // Requests.

  #request(run: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#requests.push({ after: this.#accepted, run, resolve, reject })
      this.#start()
    })
  }

  #asked(operation: string, run: () => Promise<void>): Effect.Effect<void, FileError> {
    return Effect.tryPromise({
      try: () => this.#isClosed ? Promise.resolve() : this.#request(run),
      catch: failed(operation, this.path)
    })
  }

  readonly flush = this.#asked("sync", () => this.#file.sync())

  readonly reopen = this.#asked("reopen", () => this.#reopen())

  readonly stats = Effect.sync((): LogFileStats => ({
    accepted: this.#accepted,
    written: this.#written,
    dropped: this.#dropped,
    bufferedBytes: this.#bufferedBytes,
    rotations: this.#rotations,
    failure: this.#failure ?? this.#tidyFailure
  }))

  /** Its failure shows in `stats`. */
  readonly onSignal = (): void => {
    this.#request(() => this.#reopen()).catch((error: unknown) => {
      this.#tidyFailure = failed("reopen", this.path)(error)
    })
  }

  /** Writes and syncs all that was accepted. Fails if lines are left. */
  async close(): Promise<void> {
    this.#isClosed = true
    Effect.runSync(Semaphore.close(this.#room))
    try {
      await this.#pumping
      await this.#request(() => this.#file.sync())
    } finally {
      await this.#tidying
      await this.#file.close()
    }
  }
}

/**
 * A log file: lines are accepted at once, written in batches, and all on the disk when its owner ends, also by an interruption.
 *
 * **Details** — The file is made if it is missing, and appended to. Through a symbolic link it is the file that it leads to.
 * **Interruption** — the release writes what was accepted. It has 5 seconds, after which it is abandoned by name.
 * **Errors** — `FileError`: the file cannot be opened. At the release, lines that could not be written are a defect in the owner's cause.
 * **Cost** — at most `maxBufferedBytes` of memory, and one batch.
 *
 * **Example** (two lines)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const lines = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/app.log`
 *   yield* Managed.use(Files.logFile(path, { rotate: { maxBytes: 1 << 20, keep: 5, gzip: true } }), (log) =>
 *     Effect.zipRight(log.write("started"), log.write("ended")))
 *   return fs.readFileSync(path, "utf8")
 * }))
 * await Effect.runPromise(lines) // => "started\nended\n"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const logFile = (
  path: string,
  options: LogFileOptions = {}
): Managed.Managed<LogFile, FileError> => {
  const { reopenOn } = options
  return Managed.make<Writer, FileError>({
    name: path,
    kind: "log file",
    acquire: Effect.clockWith((clock) =>
      Effect.tryPromise({
        try: async () => {
          const writer = new Writer(landing(path), options, clock)
          await writer.open()
          if (options.rotate !== undefined) writer.tidyAfter()
          if (reopenOn !== undefined) process.on(reopenOn, writer.onSignal)
          return writer
        },
        catch: failed("open", path)
      })
    ),
    release: (writer) => {
      if (reopenOn !== undefined) process.off(reopenOn, writer.onSignal)
      return Effect.tryPromise({ try: () => writer.close(), catch: failed("close", path) })
    }
  })
}
