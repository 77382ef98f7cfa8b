/**
 * Postgres/copy: COPY from a stream and into one.
 *
 * DESIGN. A COPY is one exchange of a session, in a fiber of its own; the fiber of the caller feeds it or reads it. What does not end
 * well is ended by CopyFail (from) or by a cancel (to), bounded as any other statement. These are few messages of the protocol, so
 * they stand here and not in a dependency (pg-copy-streams), whose streams know no interruption. ../Postgres.ts has the invariants.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type * as Statement from "@effect/sql/Statement"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Socket } from "node:net"
import type * as Pg from "pg"
import { borrow, Inside, insideOf, Loan, loanOf } from "./loan.ts"
import type { SessionPool } from "./pool.ts"
import type { Pending, Session } from "./session.ts"
import { prepareValue } from "./statement.ts"

/**
 * What a COPY FROM reads: pieces of the data in the format of the statement, cut anywhere, or rows. A row is sent in the text format,
 * which is the default of COPY; null and undefined are NULL.
 *
 * @category models
 * @since 0.1.0
 */
export type CopyInput = Uint8Array | string | ReadonlyArray<unknown>

/**
 * A COPY statement without parameters, as text or as `sql`.
 *
 * @category models
 * @since 0.1.0
 */
export type CopyStatement = string | Statement.Statement<unknown>

/** The messages of a COPY, which pg's typings leave out. */
interface Wire {
  readonly stream: Socket
  readonly query: (text: string) => void
  readonly sendCopyFromChunk: (data: Uint8Array) => void
  readonly endCopyFrom: () => void
  readonly sendCopyFail: (reason: string) => void
}

/** So many bytes wait for the reader of a COPY TO before the socket is paused. */
const mostBytes = 1 << 18

const escapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\t": "\\t",
  "\n": "\\n",
  "\r": "\\r"
}

const fieldOf = (value: unknown): string => {
  const prepared = prepareValue(value)
  if (prepared === null || prepared === undefined) return "\\N"
  const text = Buffer.isBuffer(prepared) ? `\\x${prepared.toString("hex")}` : String(prepared)
  return text.replaceAll(/[\\\t\n\r]/g, (special) => escapes[special]!)
}

const bytesOf = (input: CopyInput): Uint8Array => {
  if (input instanceof Uint8Array) return input
  return Buffer.from(typeof input === "string" ? input : `${input.map(fieldOf).join("\t")}\n`)
}

const textOf = (statement: CopyStatement): string =>
  typeof statement === "string" ? statement : statement.compile()[0]

/** `pg.Client` calls `submit` and the `handle…` methods. */
abstract class Copy implements Pg.Submittable {
  readonly session: Session
  readonly text: string
  /** Fails when the exchange fails. */
  readonly failed = Deferred.unsafeMake<never, SqlError>(FiberId.none)
  pending: Pending | undefined = undefined
  error: unknown = undefined
  rows = 0

  constructor(session: Session, text: string) {
    this.session = session
    this.text = text
  }

  get wire(): Wire {
    return this.session.client.connection as unknown as Wire
  }

  /** How many rows were copied. */
  get exchange(): Effect.Effect<number, SqlError> {
    const exchange = this.session.exchange<number>((pending) => {
      this.pending = pending
      this.session.note(this.text)
      this.session.client.query(this)
    })
    return Effect.onExit(exchange, (exit) => {
      this.hasEnded()
      return Exit.isFailure(exit) ? Deferred.failCause(this.failed, exit.cause) : Effect.void
    })
  }

  abstract hasEnded(): void

  submit = (): void => this.wire.query(this.text)

  handleRowDescription(): void {
    this.error ??= new Error("it is no COPY")
  }

  handleDataRow(): void {}

  handleEmptyQuery(): void {
    this.handleRowDescription()
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.rows += Number(/^COPY (\d+)/.exec(text)?.[1] ?? 0)
  }

  handleError(error: unknown): void {
    this.pending?.answer(error, 0)
  }

  handleReadyForQuery(): void {
    this.pending?.answer(this.error, this.rows)
  }
}

class CopyFrom extends Copy {
  /** The server takes data. */
  readonly started = Deferred.unsafeMake<void, SqlError>(FiberId.none)
  isStarted = false

  hasEnded(): void {
    Deferred.unsafeDone(this.started, Deferred.await(this.failed))
  }

  handleCopyInResponse(): void {
    this.isStarted = true
    const { pending } = this
    const abort = (): void => this.wire.sendCopyFail("the source was interrupted or failed")
    // While it reads data the server does not see a cancel.
    if (pending?.isCancelled === true) return abort()
    if (pending !== undefined) pending.abort = abort
    Deferred.unsafeDone(this.started, Effect.void)
  }

  handleCopyData(): void {
    this.error ??= new Error("it is COPY TO, not COPY FROM STDIN")
  }

  override handleReadyForQuery(): void {
    if (!this.isStarted) this.error ??= new Error("it is no COPY FROM STDIN")
    super.handleReadyForQuery()
  }

  /** Sends data, and waits while the socket has more than it wants. */
  send(inputs: Chunk.Chunk<CopyInput>): Effect.Effect<void> {
    // WINDOW: without its canceller it leaves a listener that does nothing.
    return Effect.async((resume) => {
      const { stream } = this.wire
      this.wire.sendCopyFromChunk(Buffer.concat(Chunk.toReadonlyArray(inputs).map(bytesOf)))
      if (!stream.writableNeedDrain) return resume(Effect.void)
      const wake = (): void => resume(Effect.void)
      stream.once("drain", wake)
      return Effect.sync(() => stream.off("drain", wake))
    })
  }

  /** All of the data is sent. From here a cancel is seen. */
  readonly end = Effect.sync(() => {
    this.wire.endCopyFrom()
    if (this.pending !== undefined) this.pending.abort = undefined
  })
}

class CopyTo extends Copy {
  // Written by the methods.
  chunks: Array<Uint8Array> = []
  bytes = 0
  isOver = false
  wake: (() => void) | undefined = undefined

  hasEnded(): void {
    this.isOver = true
    this.wake?.()
  }

  handleCopyInResponse(): void {
    this.wire.sendCopyFail("it is COPY FROM STDIN, not COPY TO STDOUT")
  }

  handleCopyData({ chunk }: { readonly chunk: Uint8Array }): void {
    if (this.isOver) return
    // The parser uses its buffer again.
    this.chunks.push(Uint8Array.from(chunk))
    this.bytes += chunk.length
    if (this.bytes > mostBytes) this.wire.stream.pause()
    this.wake?.()
  }

  readonly take = Effect.async<Chunk.Chunk<Uint8Array>, Option.Option<SqlError>>((resume) => {
    const answer = (): void => {
      if (this.chunks.length > 0) {
        const { chunks } = this
        this.chunks = []
        this.bytes = 0
        this.wire.stream.resume()
        resume(Effect.succeed(Chunk.unsafeFromArray(chunks)))
      } else if (this.isOver) resume(Effect.fail(Option.none()))
      else return
      this.wake = undefined
    }
    this.wake = answer
    answer()
  })

  /** What still comes is dropped, so that the answer to a cancel is read. */
  discard(): void {
    this.isOver = true
    this.chunks = []
    this.wire.stream.resume()
  }
}

const fork = (copy: Copy): Effect.Effect<Fiber.RuntimeFiber<number, SqlError>> =>
  Effect.forkDaemon(Effect.interruptible(copy.exchange))

const loanFor = (pool: SessionPool): Effect.Effect<Loan, SqlError, Scope.Scope> =>
  Effect.contextWithEffect((context: Context.Context<never>) => {
    const loan = loanOf(context, pool)
    return loan === undefined ? borrow(pool, false) : Effect.succeed(loan)
  })

/** A statement of the source to the transaction of the COPY would wait for itself, so it is refused. */
const withoutSession = <E, R>(
  loan: Loan,
  source: Stream.Stream<CopyInput, E, R>
): Stream.Stream<CopyInput, E, R> => {
  if (loan.owner === "session") return source
  const busy = new Loan(loan.pool, loan.session, loan.owner, loan)
  busy.keeper = "copy"
  return Stream.contextWithStream((context: Context.Context<R>) =>
    Stream.provideService(source, SqlClient.TransactionConnection, [
      new Inside(busy, insideOf(context as Context.Context<never>)),
      busy.depth
    ])
  ) as Stream.Stream<CopyInput, E, R>
}

/** Sends a stream to `COPY … FROM STDIN`. Gives the number of rows. */
export const copyFrom = <E, R>(
  pool: SessionPool,
  statement: CopyStatement,
  source: Stream.Stream<CopyInput, E, R>
): Effect.Effect<number, E | SqlError, R> =>
  Effect.scoped(Effect.flatMap(loanFor(pool), (loan) => {
    const copied = Effect.suspend(() => {
      const copy = new CopyFrom(loan.session, textOf(statement))
      const data = Stream.interruptWhen(withoutSession(loan, source), Deferred.await(copy.failed))
      const fed = Effect.zipRight(
        Deferred.await(copy.started),
        Effect.zipRight(Stream.runForEachChunk(data, (inputs) => copy.send(inputs)), copy.end)
      )
      // MASK: the exchange ends before this does; feeding it and waiting for it are restored.
      return Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(fork(copy), (fiber) =>
          Effect.onError(
            restore(Effect.zipRight(fed, Fiber.join(fiber))),
            () => Fiber.interrupt(fiber)
          ))
      )
    })
    return loan.turn((restore) => restore(copied))
  }))

/** The data of `COPY … TO STDOUT`, as it is read. */
export const copyTo = (
  pool: SessionPool,
  statement: CopyStatement
): Stream.Stream<Uint8Array, SqlError> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const loan = yield* loanFor(pool)
    yield* loan.keepFor("copy")
    const copy = new CopyTo(loan.session, textOf(statement))
    const fiber = yield* Effect.acquireRelease(fork(copy), (fiber) =>
      Effect.zipRight(Effect.sync(() => copy.discard()), Fiber.interrupt(fiber)))
    return Stream.concat(
      Stream.repeatEffectChunkOption(copy.take),
      Stream.drain(Stream.fromEffect(Fiber.join(fiber)))
    )
  }))
