/**
 * mirrorStore: the table `mirror_file`, one row per URL.
 *
 * DESIGN. A row is reserved, with its path, before anything is fetched, so that a later run with another list can never give
 * the same path to another URL. `done` runs inside the checkpoint's transaction.
 *
 * INVARIANTS
 * - MirrorStore-1 One row per URL (the primary key), and no two rows share a path.
 * - MirrorStore-2 A row says `done` only when the file it names has been published.
 * - MirrorStore-3 Rows are reserved in the order of their URLs, so two mirrors on one database cannot deadlock.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Order from "effect/Order"
import { type Refusal, refuse } from "./refusal.ts"

/** The row of one URL; `bytes` in bytes, `sha256` in hex. */
export interface Row {
  readonly url: string
  /** Null, as the fields below, if another program wrote the row. */
  readonly path: string | null
  readonly bytes: number | null
  readonly sha256: string | null
  /** "pending", "done" or "failed", where it is ours. */
  readonly status: string | null
}

/** How an item ended. */
interface Ended {
  readonly url: string
  readonly attempts: number
}

/** SQLSTATEs for a table of another shape: no such column, another type, no key, a view. */
const otherShape = new Set(["42703", "42P10", "42804", "42846", "42809", "22P02", "42883", "55000"])

const codeOf = ({ cause }: SqlError.SqlError): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

/** Refuses a table `mirror_file` of another program. */
const named = (error: SqlError.SqlError): SqlError.SqlError | Refusal => {
  if (!otherShape.has(String(codeOf(error)))) return error
  const why = error.cause instanceof Error ? error.cause.message : error.message
  return refuse(
    `The table mirror_file of this database is not one of a mirror: ${why}. `
      + "Give another database, or rename that table."
  )
}

const rowsPerInsert = 500

const createTable = (sql: SqlClient.SqlClient) =>
  sql.withTransaction(Effect.zipRight(
    // Of two concurrent CREATE TABLE IF NOT EXISTS one may fail.
    sql`SELECT pg_advisory_xact_lock(hashtext('mirror_file'))`,
    sql`CREATE TABLE IF NOT EXISTS mirror_file (
      url text PRIMARY KEY,
      path text,
      bytes bigint,
      sha256 text,
      status text,
      attempts int,
      error text,
      finished_at timestamptz
    )`
  ))

export const open = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* createTable(sql)
  // float8: a bigint column arrives as text, and no file is longer than 2^53 bytes.
  const rows = yield* Effect.mapError(
    sql<Row>`SELECT url, path, bytes::float8 AS bytes, sha256, status FROM mirror_file`,
    named
  )

  const reserveSome = (entries: ReadonlyArray<readonly [string, string]>) =>
    sql`INSERT INTO mirror_file ${
      sql.insert(entries.map(([url, path]) => ({ url, path, status: "pending", attempts: 0 })))
    } ON CONFLICT (url) DO UPDATE SET path = excluded.path`

  return {
    /** As they were when the table was opened. */
    rows: new Map(rows.map((row) => [row.url, row])),
    reserve: (plan: ReadonlyMap<string, string>) =>
      Effect.forEach(
        // INVARIANT MirrorStore-3.
        Arr.chunksOf(Arr.sortWith(plan, ([url]) => url, Order.string), rowsPerInsert),
        reserveSome,
        { discard: true }
      ).pipe(Effect.mapError(named)),
    done: (
      { attempts, bytes, sha256, url }: Ended & { readonly bytes: number; readonly sha256: string }
    ) =>
      Effect.asVoid(
        sql`UPDATE mirror_file SET status = 'done', bytes = ${bytes}, sha256 = ${sha256},
        attempts = ${attempts}, error = NULL, finished_at = now() WHERE url = ${url}`
      ),
    failed: ({ attempts, error, url }: Ended & { readonly error: string }) =>
      Effect.asVoid(sql`UPDATE mirror_file SET status = 'failed', attempts = ${attempts},
        error = ${error}, finished_at = now() WHERE url = ${url}`)
  }
})

/** The table. */
export type Store = Effect.Effect.Success<typeof open>
