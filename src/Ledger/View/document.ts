/**
 * document: reads the JSON of a snapshot, which json.ts writes.
 */
import * as Either from "effect/Either"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as Ledger from "../../Ledger.ts"
import { states } from "./analysis.ts"
import { version } from "./json.ts"

/** The fields of `LedgerFormatError`. */
export interface Problem {
  readonly reason: "not JSON" | "not a ledger" | "unknown version" | "wrong field"
  /** The path in the document: `live[3].state`; empty for the whole document. */
  readonly field: string
  readonly problem: string
}

const Time = Schema.Union(
  Schema.Number,
  Schema.transform(Schema.Literal("NaN", "Infinity", "-Infinity"), Schema.Number, {
    strict: true,
    decode: Number,
    encode: (value) => value === Infinity ? "Infinity" : value === -Infinity ? "-Infinity" : "NaN"
  })
).annotations({ message: () => "expected a time in milliseconds" })

const optional = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optionalWith(Schema.UndefinedOr(schema), { default: () => undefined })
const listOf = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optionalWith(Schema.Array(schema), { default: () => [] })

const { Number: Count } = Schema
const totals = { acquired: Count, released: Count, failed: Count, abandoned: Count }

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const Entry = Schema.Struct({
  id: Schema.Number,
  kind: Schema.String,
  name: Schema.String,
  state: Schema.Literal(...states),
  since: Time,
  owner: listOf(Schema.String),
  fiber: optional(Schema.String),
  span: optional(Schema.String),
  site: optional(Schema.String),
  attributes: Schema.optionalWith(
    // Not `Schema.Record`, which would lose a key such as "__proto__".
    Schema.Unknown.pipe(Schema.filter(isRecord, { message: () => "expected an object" })),
    { default: () => ({}) }
  ),
  blockedBy: listOf(Schema.Number),
  requestedAt: Time,
  heldAt: optional(Time),
  releasingAt: optional(Time),
  endedAt: optional(Time),
  cause: optional(Schema.String)
})

const Document = Schema.Struct({
  takenAt: Time,
  total: Schema.Struct(totals),
  kinds: Schema.Array(Schema.Struct({ kind: Schema.String, ...totals })),
  deadlocks: Schema.Array(Schema.Struct({
    waits: Schema.Array(Schema.Struct({ waiter: Schema.Number, holder: Schema.Number }))
  })),
  live: Schema.Array(Entry),
  ended: Schema.Array(Entry)
})

const decode = Schema.decodeUnknownEither(Document)

const fieldOf = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((key) => typeof key === "number" ? `[${key}]` : `.${String(key)}`).join("")
    .replace(/^\./, "")

const wrong = (error: ParseResult.ParseError): Problem => {
  const first = ParseResult.ArrayFormatter.formatErrorSync(error)[0]
  return {
    reason: "wrong field",
    field: fieldOf(first?.path ?? []),
    problem: first?.message ?? error.message
  }
}

const refuse = (reason: Problem["reason"], field: string, problem: string) =>
  Either.left<Problem>({ reason, field, problem })

export const read = (text: string): Either.Either<Ledger.Snapshot, Problem> => {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    return refuse("not JSON", "", error instanceof Error ? error.message : String(error))
  }
  const head = isRecord(document) ? document["holdfast"] : undefined
  const mark = isRecord(head) ? head["ledger"] : undefined
  if (mark === undefined) {
    return refuse("not a ledger", "holdfast.ledger", "field holdfast.ledger is missing")
  }
  if (mark !== version) {
    const found = JSON.stringify(mark)
    return refuse("unknown version", "holdfast.ledger", `expected ${version}, got ${found}`)
  }
  return Either.mapBoth(decode(document), {
    onLeft: wrong,
    onRight: ({ kinds, ...rest }) => ({
      ...rest,
      kinds: Object.fromEntries(kinds.map(({ kind, ...sums }) => [kind, sums]))
    })
  })
}
