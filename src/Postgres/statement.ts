/**
 * Postgres/statement: one statement on the wire.
 *
 * DESIGN. What `pg.Query` does, without its events and its copy of the configuration, which cost more than Effect does.
 * `pg.Client` calls `submit` and the `handle…` methods; the session settles the statement when the server is ready for the next.
 */
import { createRequire } from "node:module"
import * as Pg from "pg"

export interface Result {
  readonly command?: string
  readonly rows?: ReadonlyArray<object>
}

/** Several, of a text of several statements. */
export type Results = Result | ReadonlyArray<Result>

/** A value as text or bytes of the protocol, as `pg` does it. */
export const { prepareValue }: { readonly prepareValue: (value: unknown) => unknown } =
  createRequire(
    import.meta.url
  )("pg/lib/utils.js")

/** The messages of a statement; pg's typings ask for one argument too many. */
interface Wire {
  readonly stream: { readonly cork: () => void; readonly uncork: () => void }
  readonly query: (text: string) => void
  readonly parse: (message: { readonly text: string }) => void
  readonly bind: (message: { readonly values: ReadonlyArray<unknown> }) => void
  readonly describe: (message: { readonly type: "P" }) => void
  readonly execute: (message: object) => void
  readonly sync: () => void
  readonly sendCopyFail: (reason: string) => void
}

export interface Field {
  readonly name: string
  readonly dataTypeID: number
  readonly format: string
}

type ParseValue = (text: string) => unknown

/** The part of `pg.Result` that its typings leave out. */
interface Gathered {
  command: string | null
  fields: ReadonlyArray<Field>
  readonly rows: Array<object>
  /** The client puts its type parsers in. */
  _types: { getTypeParser(type: number, format: string): ParseValue }
  _parsers: ReadonlyArray<ParseValue> | undefined
  addFields(fields: ReadonlyArray<Field>): void
  parseRow(values: ReadonlyArray<string | null>): object
  addCommandComplete(message: object): void
}

const Gathered = Pg.Result as unknown as new(
  rowMode: "array" | undefined,
  types: Gathered["_types"] | undefined
) => Gathered

/** A `pg.Result` without the model of a row, which takes `pg` longer to make than ten rows. */
export class Rows extends Gathered {
  /** `pg` makes the rows: of bytes, or with a name that a plain assignment would not set. */
  isSpecial = false

  override addFields(fields: ReadonlyArray<Field>): void {
    this.isSpecial = fields.some(({ format, name }) => format !== "text" || name === "__proto__")
    if (this.isSpecial) return super.addFields(fields)
    this.fields = fields
    this._parsers = fields.map(({ dataTypeID }) => this._types.getTypeParser(dataTypeID, "text"))
  }

  override parseRow(values: ReadonlyArray<string | null>): object {
    if (this.isSpecial) return super.parseRow(values)
    const row: Record<string, unknown> = {}
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!
      row[this.fields[i]!.name] = value === null ? null : this._parsers![i]!(value)
    }
    return row
  }
}

/** Gets the answer, once. */
interface Answered {
  readonly answer: (error: unknown, value: unknown) => void
}

export class Statement<A> implements Pg.Submittable {
  readonly text: string
  readonly values: ReadonlyArray<unknown>
  readonly rowMode: "array" | undefined
  readonly project: (results: Results) => A
  readonly pending: Answered
  _result: Rows
  /** Several, of a text of several statements. */
  results: Array<Rows> | undefined = undefined
  badRow: unknown = undefined

  /** Throws for a value that has no text, before anything is sent. */
  constructor(
    text: string,
    values: ReadonlyArray<unknown>,
    rowMode: "array" | undefined,
    project: (results: Results) => A,
    pending: Answered
  ) {
    this.text = text
    this.values = values.length === 0 ? values : values.map(prepareValue)
    this.rowMode = rowMode
    this.project = project
    this.pending = pending
    this._result = new Rows(rowMode, undefined)
  }

  submit(connection: Pg.Connection): void {
    const wire = connection as unknown as Wire
    if (this.values.length === 0) return wire.query(this.text)
    wire.stream.cork()
    wire.parse({ text: this.text })
    wire.bind({ values: this.values })
    wire.describe({ type: "P" })
    wire.execute({})
    wire.sync()
    wire.stream.uncork()
  }

  /** The result of the statement that is answered now. */
  get current(): Rows {
    if (this._result.command === null) return this._result
    this.results ??= [this._result]
    this._result = new Rows(this.rowMode, this._result._types)
    this.results.push(this._result)
    return this._result
  }

  handleRowDescription(message: { readonly fields: ReadonlyArray<Field> }): void {
    this.current.addFields(message.fields)
  }

  handleDataRow(message: { readonly fields: ReadonlyArray<string | null> }): void {
    try {
      this._result.rows.push(this._result.parseRow(message.fields))
    } catch (cause) {
      this.badRow ??= cause
    }
  }

  handleCommandComplete(message: object): void {
    this.current.addCommandComplete(message)
  }

  handleEmptyQuery(): void {}

  handleCopyInResponse(connection: Wire): void {
    connection.sendCopyFail("there is no source: use copyFrom")
  }

  handleCopyData(): void {}

  handleError(error: unknown): void {
    this.pending.answer(this.badRow ?? error, undefined)
  }

  handleReadyForQuery(): void {
    if (this.badRow !== undefined) return this.handleError(this.badRow)
    this.pending.answer(
      undefined,
      this.project((this.results ?? this._result) as unknown as Results)
    )
  }
}
