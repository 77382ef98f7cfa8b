/**
 * Tcp/connection: one socket, read by pulling and written in turn.
 *
 * DESIGN. The socket stays in Node's paused mode: `socket.read()` takes what has come, and Node stops reading from the kernel when
 * its buffer is full. An operation that must wait leaves its `resume` in `wake`; every event of the socket calls it, and the
 * operation looks again. A `resume` of a fiber that was interrupted does nothing, so nothing has to be taken back. ../Tcp.ts has
 * the invariants.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import { Buffer } from "node:buffer"
import * as Net from "node:net"
import * as Deadline from "../Deadline.ts"
import * as Mutex from "../Mutex.ts"
import {
  codeOf,
  TcpClosed,
  TcpConnectionLost,
  TcpTimeout,
  TcpTooLong,
  TcpTruncated
} from "./errors.ts"

export const TypeId: unique symbol = Symbol.for("holdfast/Tcp/Connection")

/** The bounds of a connection, decoded. */
export interface Bounds {
  readonly readTimeout: Duration.Duration | undefined
  readonly writeTimeout: Duration.Duration | undefined
  readonly linger: Duration.Duration
}

const empty = Buffer.alloc(0)

type Taken = Exit.Exit<Option.Option<Buffer>, TcpConnectionLost | TcpClosed>

/**
 * Bounds a wait, also where the caller cannot be interrupted, such as in a release: the wait runs in a fiber of its own. It may be
 * interrupted there, because an interrupt takes nothing.
 */
export const within = <A, E>(
  wait: Effect.Effect<A, E>,
  after: Duration.Duration | undefined,
  of: { readonly operation: "connect" | "read" | "write"; readonly address: string }
): Effect.Effect<A, E | TcpTimeout> =>
  after === undefined ? wait : Effect.timeoutFail(Effect.interruptible(wait), {
    duration: after,
    onTimeout: () => new TcpTimeout({ ...of, after })
  })

/** Only this file writes it. */
export class Connection extends Inspectable.Class implements Pipeable {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly socket: Net.Socket
  readonly address: string
  readonly bounds: Bounds
  readonly reading: Mutex.Mutex
  readonly writing: Mutex.Mutex
  /** Bytes that were read from the socket and not given to a reader: a view of `store` up to `storeEnd`, or a buffer of Node. */
  rest: Buffer = empty
  store: Buffer = empty
  storeEnd = 0
  /** Its release has begun. */
  isReleased = false
  /** This side has ended. */
  isFinished = false
  wakeReader: () => void = () => {}
  wakeWriter: () => void = () => {}
  bytesRead = 0

  constructor(socket: Net.Socket, address: string, bounds: Bounds) {
    super()
    this.socket = socket
    this.address = address
    this.bounds = bounds
    this.reading = Mutex.unsafeMake({ name: `reader of ${address}` })
    this.writing = Mutex.unsafeMake({ name: `writer of ${address}` })
    socket.on("readable", () => this.wakeReader())
    socket.on("end", () => this.wakeReader())
    // `close` follows, and the socket keeps the error.
    socket.on("error", () => {})
    socket.on("close", () => this.wake())
  }

  pipe() {
    return pipeArguments(this, arguments)
  }

  toJSON(): unknown {
    const { address, bytesRead, socket: { bytesWritten } } = this
    return { _id: "holdfast/Tcp/Connection", address, bytesRead, bytesWritten }
  }

  wake(): void {
    this.wakeReader()
    this.wakeWriter()
  }

  lost(): TcpConnectionLost {
    const cause = this.socket.errored ?? { code: "ECONNABORTED" }
    return new TcpConnectionLost({ address: this.address, code: codeOf(cause), cause })
  }

  tooLate(operation: "read" | "write"): TcpClosed {
    return new TcpClosed({ address: this.address, operation })
  }

  /** Until an event of the socket; then the caller looks again. One may have come since the caller looked. */
  readonly readerWaits = Effect.async<void>((resume) => {
    this.wakeReader = () => resume(Effect.void)
    const { destroyed, readableEnded, readableLength } = this.socket
    if (readableLength > 0 || readableEnded || this.isReleased || destroyed) this.wakeReader()
  })

  /** Appends to `rest`. The room doubles, so that each byte is copied about twice, however small the pieces. */
  append(bytes: Buffer): void {
    const { rest, store, storeEnd } = this
    if (rest.length === 0) {
      this.rest = bytes
      this.store = empty
      this.storeEnd = 0
      return
    }
    const length = rest.length + bytes.length
    const isInPlace = storeEnd + bytes.length <= store.length
    const target = isInPlace ? store : Buffer.allocUnsafeSlow(2 * length)
    if (!isInPlace) rest.copy(target)
    const end = isInPlace ? storeEnd : rest.length
    bytes.copy(target, end)
    this.store = target
    this.storeEnd = end + bytes.length
    this.rest = target.subarray(this.storeEnd - length, this.storeEnd)
  }

  /** The bytes that are there: none at the end, undefined if the reader has to wait. */
  take(): Taken | undefined {
    if (this.rest.length === 0 || this.isReleased) return this.takeMore()
    const bytes = this.rest
    this.rest = empty
    return Exit.succeed(Option.some(bytes))
  }

  takeMore(): Taken | undefined {
    if (this.isReleased) return Exit.fail(this.tooLate("read"))
    const bytes = this.socket.read() as Buffer | null
    if (bytes !== null) {
      this.bytesRead += bytes.length
      return Exit.succeed(Option.some(bytes))
    }
    if (this.socket.readableEnded) return Exit.succeed(Option.none())
    return this.socket.destroyed ? Exit.fail(this.lost()) : undefined
  }

  /** Called by one reader at a time. */
  readonly pull: Effect.Effect<Option.Option<Buffer>, TcpConnectionLost | TcpClosed | TcpTimeout> =
    Effect.suspend(() => this.take() ?? Effect.zipRight(this.waitToRead, this.pull))

  get waitToRead(): Effect.Effect<void, TcpTimeout> {
    return within(this.readerWaits, this.bounds.readTimeout, {
      operation: "read",
      address: this.address
    })
  }

  /**
   * Gathers bytes until `isEnough` says how many of them to give; the others stay for the next reader. The bytes are put back before
   * each wait, so that an interrupt loses none.
   */
  gather<E>(
    isEnough: (bytes: Buffer, from: number) => number | undefined | E,
    expected: string
  ): Effect.Effect<Buffer, E | TcpConnectionLost | TcpClosed | TcpTimeout | TcpTruncated> {
    const next = (
      had: number
    ): Effect.Effect<Buffer, E | TcpConnectionLost | TcpClosed | TcpTimeout | TcpTruncated> =>
      Effect.suspend(() => {
        if (this.isReleased) return this.tooLate("read")
        const gathered = this.rest
        const count = isEnough(gathered, had)
        if (typeof count === "number") {
          this.rest = gathered.subarray(count)
          return Effect.succeed(gathered.subarray(0, count))
        }
        if (count !== undefined) return Effect.fail(count)
        const more = this.takeMore()
        if (more === undefined) return Effect.zipRight(this.waitToRead, next(gathered.length))
        if (Exit.isFailure(more)) return Effect.failCause(more.cause)
        if (Option.isSome(more.value)) {
          this.append(more.value.value)
          return next(gathered.length)
        }
        this.rest = empty
        return new TcpTruncated({ address: this.address, expected, partial: gathered })
      })
    return next(0)
  }

  readExactly(count: number) {
    return this.gather<never>(
      (bytes) => bytes.length >= count ? count : undefined,
      `${count} bytes`
    )
  }

  readUntil(delimiter: Buffer, maxBytes: number) {
    const { address } = this
    const shown = JSON.stringify(delimiter.toString("latin1"))
    return this.gather<TcpTooLong>((bytes, from) => {
      const at = bytes.indexOf(delimiter, Math.max(0, from - delimiter.length + 1))
      if (at >= 0 && at + delimiter.length <= maxBytes) return at + delimiter.length
      return at >= 0 || bytes.length >= maxBytes
        ? new TcpTooLong({ address, delimiter: shown, maxBytes })
        : undefined
    }, shown)
  }

  /** All that was written has been given to the kernel. */
  get isFlushed(): boolean {
    return this.socket.writableLength === 0
  }

  /** Called by one writer at a time. The bytes of a writer that was interrupted go first. */
  readonly flushed: Effect.Effect<void, TcpConnectionLost | TcpClosed> = Effect.suspend(() => {
    if (this.isReleased) return this.tooLate("write")
    if (this.socket.destroyed) return this.lost()
    return this.isFlushed ? Effect.void : Effect.zipRight(this.writerWaits, this.flushed)
  })

  readonly writerWaits = Effect.async<void>((resume) => {
    this.wakeWriter = () => resume(Effect.void)
    if (this.isFlushed || this.isReleased || this.socket.destroyed) this.wakeWriter()
  })

  /** Runs an operation after the writers before it; `late` instead if this side has ended. */
  inTurn(
    operation: Effect.Effect<void, TcpConnectionLost | TcpClosed>,
    late: () => Effect.Effect<void, TcpClosed>
  ): Effect.Effect<void, TcpConnectionLost | TcpClosed | TcpTimeout> {
    const { address, bounds: { writeTimeout } } = this
    const bounded = within(Effect.zipRight(this.flushed, operation), writeTimeout, {
      operation: "write",
      address
    })
    return Mutex.withLock(
      Effect.suspend(() => this.isFinished && !this.isReleased ? late() : bounded),
      this.writing
    )
  }

  write(bytes: Uint8Array | string) {
    const send: Effect.Effect<void, TcpClosed> = Effect.suspend(() => {
      if (this.isFinished) return this.tooLate("write")
      this.socket.write(bytes, () => this.wakeWriter())
      return Effect.void
    })
    return this.inTurn(Effect.zipRight(send, this.flushed), () => this.tooLate("write"))
  }

  end() {
    return this.inTurn(Effect.sync(() => this.finish()), () => Effect.void)
  }

  finish(): void {
    this.isFinished = true
    this.socket.end()
  }

  /** Cuts the connection: the peer sees a reset, and bytes that were not sent are dropped. */
  abort(): void {
    const { socket } = this
    // Node resets TCP alone: not TLS, nor a Unix socket.
    const canReset = socket.constructor === Net.Socket && socket.remoteFamily !== undefined
    if (canReset) socket.resetAndDestroy()
    else socket.destroy()
  }

  readonly closed = Effect.async<void>((resume) => {
    if (this.socket.closed) resume(Effect.void)
    else this.socket.once("close", () => resume(Effect.void))
  })

  /**
   * Sends what was written, ends this side, drops what still comes, and waits until the peer has ended its side; or cuts it.
   */
  release(isHasty: boolean): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isReleased = true
      this.wake()
      const { socket } = this
      if (isHasty) return this.cut()
      socket.removeAllListeners("readable")
      socket.resume()
      this.finish()
      return Effect.flatMap(
        Deadline.exit(this.closed, this.bounds.linger),
        (ended) => Option.isSome(ended) ? Effect.void : this.cut()
      )
    })
  }

  /** Closes it now: in order if everything was sent, else by a reset. */
  cut(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.isFlushed) this.socket.destroy()
      else this.abort()
      return this.closed
    })
  }
}
