/**
 * Postgres/stream: rows that are fetched when they are asked for.
 *
 * DESIGN. A portal of the extended protocol, which gives some rows per fetch. In a transaction it has a name and each fetch is an
 * exchange of its own, so that other statements of the transaction run between two fetches. Elsewhere the transaction of the
 * statement, and its portal with it, ends with the exchange: the session then serves the portal alone until it is closed.
 * ../Postgres.ts has the invariants.
 */
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Channel from "effect/Channel"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Pg from "pg"
import * as Deadline from "../Deadline.ts"
import type * as Managed from "../Managed.ts"
import type { Pending, Session } from "./session.ts"
import { type Field, prepareValue, Rows as Result } from "./statement.ts"

/** Rows of the first fetch. Each fetch asks for twice as many as the one before, up to `mostRows`. */
const firstRows = 128
const mostRows = 1024

/** The messages that a portal sends; pg's typings ask for one argument too many. */
interface Wire {
  readonly stream: { readonly cork: () => void; readonly uncork: () => void }
  readonly parse: (message: { readonly text: string }) => void
  readonly bind: (message: {
    readonly portal: string
    readonly values: ReadonlyArray<unknown>
  }) => void
  readonly describe: (message: { readonly type: "P"; readonly name: string }) => void
  readonly execute: (message: { readonly portal: string; readonly rows: number }) => void
  readonly close: (message: { readonly type: "P"; readonly name: string }) => void
  readonly flush: () => void
  readonly sync: () => void
}

let portals = 0

/** `pg.Client` calls `submit` and the `handle…` methods. */
class Portal implements Pg.Submittable {
  readonly name = `hf_${++portals}`
  readonly session: Session
  readonly sql: string
  values: ReadonlyArray<unknown>
  /** Whether other statements run between two fetches. */
  readonly isShared: boolean
  readonly _result = new Result(undefined, undefined)
  isBound = false
  isOver = false
  size = firstRows
  rows: Array<object> = []
  badRow: unknown = undefined
  pending: Pending | undefined = undefined

  constructor(
    session: Session,
    sql: string,
    values: ReadonlyArray<unknown>,
    isShared: boolean
  ) {
    this.session = session
    this.sql = sql
    this.values = values
    this.isShared = isShared
  }

  submit = (connection: Pg.Connection): void => {
    const wire = connection as unknown as Wire
    wire.stream.cork()
    if (!this.isBound) {
      this.isBound = true
      wire.parse({ text: this.sql })
      wire.bind({ portal: this.name, values: this.values })
      wire.describe({ type: "P", name: this.name })
    }
    wire.execute({ portal: this.name, rows: this.size })
    if (this.isShared) wire.sync()
    else wire.flush()
    wire.stream.uncork()
    this.size = Math.min(this.size * 2, mostRows)
  }

  answer(error: unknown): void {
    this.pending?.answer(error ?? this.badRow, this.rows)
    this.rows = []
  }

  handleRowDescription(message: { readonly fields: ReadonlyArray<Field> }): void {
    this._result.addFields(message.fields)
  }

  handleDataRow(message: { readonly fields: ReadonlyArray<string | null> }): void {
    try {
      this.rows.push(this._result.parseRow(message.fields))
    } catch (cause) {
      this.badRow ??= cause
    }
  }

  handlePortalSuspended(): void {
    if (this.isShared) return
    // The server is not ready for anything else, so this is the end of the exchange.
    this.answer(undefined)
    if (this.pending !== undefined) this.session.settle(this.pending)
  }

  handleCommandComplete(_: unknown, connection: Wire): void {
    this.isOver = true
    if (!this.isShared) connection.sync()
  }

  handleEmptyQuery(connection: Wire): void {
    this.handleCommandComplete(undefined, connection)
  }

  handleError(error: unknown, connection: Wire): void {
    this.isOver = true
    if (!this.isShared) connection.sync()
    this.answer(error)
  }

  handleReadyForQuery(): void {
    this.answer(undefined)
  }
}

const fetchInMask = (
  restore: Managed.Restore,
  portal: Portal
): Effect.Effect<ReadonlyArray<object>, SqlError> =>
  portal.session.exchangeInMask(restore, (pending) => {
    const { client } = portal.session
    portal.pending = pending
    // Fails here for a value that has no text, before the client is busy with it.
    if (!portal.isBound) portal.values = portal.values.map(prepareValue)
    if (portal.isShared || !portal.isBound) client.query(portal)
    else portal.submit(client.connection)
  })

/** Ends the implicit transaction of an exclusive portal, or closes the session. */
const end = (portal: Portal): Effect.Effect<unknown> =>
  Effect.suspend(() => {
    const { session } = portal
    session.portal = undefined
    if (portal.isOver || !portal.isBound || session.lost !== undefined) return Effect.void
    const ended = session.exchange((pending) => {
      portal.pending = pending
      portal.isOver = true
      const wire = session.client.connection as unknown as Wire
      wire.close({ type: "P", name: portal.name })
      wire.sync()
    })
    return Effect.map(Deadline.exit(ended, session.settings.cancelTimeout), (answer) => {
      if (Option.isNone(answer)) session.unsafeEnd("the server did not close a portal in time")
    })
  })

/**
 * Sent without waiting: the server answers together with the next statement. A COPY under way would take it for data; then the portal
 * ends with its transaction.
 */
const unsafeCloseShared = (portal: Portal): void => {
  const { session } = portal
  if (!portal.isBound || session.lost !== undefined || session.pending?.abort !== undefined) return
  const wire = session.client.connection as unknown as Wire
  wire.close({ type: "P", name: portal.name })
}

/** A loan, of which only this is used here. */
interface Lender {
  readonly session: Session
  readonly isOpen: boolean
  readonly ifOpen: Effect.Effect<void, SqlError>
}

/** Waits until an exchange may begin, which is called inside a mask. */
export type Turn = <A>(
  exchange: (restore: Managed.Restore) => Effect.Effect<A, SqlError>
) => Effect.Effect<A, SqlError>

export type TransformRows = Parameters<Connection["execute"]>[2]

/** Rows, chunk by chunk. */
export type Rows = Channel.Channel<Chunk.Chunk<any>, unknown, SqlError, unknown, unknown, unknown>

/** `pull` gives some rows, and none at the end. */
const channelOf = (
  pull: Effect.Effect<ReadonlyArray<object>, SqlError>,
  transformRows: TransformRows
): Rows => {
  // By hand: the loop of `Stream.repeatEffectChunkOption` takes twice as many operations.
  const rows: Rows = Channel.flatMap(Channel.fromEffect(pull), (some): Rows => {
    if (some.length === 0) return Channel.void
    const chunk = Chunk.unsafeFromArray(transformRows === undefined ? some : transformRows(some))
    return Channel.flatMap(Channel.write(chunk), () => rows)
  })
  return rows
}

/**
 * The rows of a statement. The scope of the stream closes the portal. In a transaction `turn` is for each fetch; without it the session
 * serves this stream alone.
 */
export const rowsOf = (
  loan: Lender,
  turn: Turn | undefined,
  sql: string,
  values: ReadonlyArray<unknown>,
  transformRows: TransformRows
): Effect.Effect<Rows, never, Scope.Scope> => {
  const { session } = loan
  const open = Effect.sync(() => {
    session.note(sql)
    const portal = new Portal(session, sql, values, turn !== undefined)
    if (!portal.isShared) session.portal = { end: end(portal) }
    return portal
  })
  const close = (portal: Portal): Effect.Effect<unknown> =>
    portal.isShared
      ? Effect.sync(() => loan.isOpen && unsafeCloseShared(portal))
      : end(portal)
  return Effect.map(Effect.acquireRelease(open, close), (portal) => {
    const next = (restore: Managed.Restore) => fetchInMask(restore, portal)
    // MASK: of the exchange; the wait for its answer is restored.
    const fetched = turn === undefined
      ? Effect.zipRight(loan.ifOpen, Effect.uninterruptibleMask(next))
      : turn(next)
    const pull = Effect.suspend(() => portal.isOver ? Effect.as(loan.ifOpen, []) : fetched)
    return channelOf(pull, transformRows)
  })
}
