/**
 * mirrorStore: the table `mirror_file`, one row per URL, which is the checkpoint of the run.
 *
 * DESIGN. A row is reserved, with its path, before anything is fetched, so that a later run with another list can never give
 * the same path to another URL. The downloads that end at about the same time are written by one statement, which is a
 * transaction of its own. A download of the same URL twice gives the same row, so no mark beside it is needed.
 *
 * INVARIANTS
 * - MirrorStore-1 One row per URL (the primary key), and no two rows share a path.
 * - MirrorStore-2 A row says `done` only when the file it names has been published.
 * - MirrorStore-3 Rows are written in the order of their URLs, so two mirrors on one database cannot deadlock.
 * - MirrorStore-4 A URL is done if its row says so and its file has the size of the row and is not younger than it, or has its hash.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as SqlClient from "@effect/sql/SqlClient"
import type * as SqlError from "@effect/sql/SqlError"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Order from "effect/Order"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as path from "node:path"
import * as Checkpoint from "../Batch/Checkpoint.ts"
import type * as Http from "../Http.ts"
import type * as Job from "../Job.ts"
import * as Parallel from "../Parallel.ts"
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
  /** By the clock of the host that wrote the file, in milliseconds. */
  readonly finishedAt: number | null
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

const rowsPerStatement = 500

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

/** INVARIANT MirrorStore-4. The hash is read of a younger file, and of each if `verify`. */
const isUnchanged = (file: string, row: Row, verify: boolean) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { mtime, size } = yield* fs.stat(file)
    if (Number(size) !== row.bytes || row.sha256 === null) return false
    const isYounger = Option.match(mtime, {
      onNone: () => true,
      onSome: (at) => at.getTime() > (row.finishedAt ?? 0)
    })
    if (!verify && !isYounger) return true
    const hash = createHash("sha256")
    yield* Stream.runForEach(fs.stream(file), (chunk) => Effect.sync(() => hash.update(chunk)))
    return hash.digest("hex") === row.sha256
  }).pipe(Effect.orElseSucceed(() => false))

export const open = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const fs = yield* FileSystem.FileSystem
  yield* createTable(sql)
  // float8: a bigint column arrives as text, and no file is longer than 2^53 bytes.
  const found = yield* Effect.mapError(
    sql<Row>`SELECT url, path, bytes::float8 AS bytes, sha256, status,
      (extract(epoch FROM finished_at) * 1000)::float8 AS "finishedAt" FROM mirror_file`,
    named
  )
  const rows = new Map(found.map((row) => [row.url, row]))

  const reserveSome = (entries: ReadonlyArray<readonly [string, string]>) =>
    sql`INSERT INTO mirror_file ${
      sql.insert(entries.map(([url, path]) => ({ url, path, status: "pending", attempts: 0 })))
    } ON CONFLICT (url) DO UPDATE SET path = excluded.path`

  return {
    /** As they were when the table was opened. */
    rows,
    /** Writes the rows that are new or have another path. */
    reserve: (plan: ReadonlyMap<string, string>) =>
      Effect.forEach(
        // INVARIANT MirrorStore-3.
        Arr.chunksOf(
          Arr.sortWith(
            Array.from(plan).filter(([url, path]) => rows.get(url)?.path !== path),
            ([url]) => url,
            Order.string
          ),
          rowsPerStatement
        ),
        reserveSome,
        { discard: true }
      ).pipe(Effect.mapError(named)),
    done: (group: ReadonlyArray<Job.Processed<string, Http.Downloaded>>) => {
      const json = JSON.stringify(
        group.map(({ attempts, item: url, value: { bytes, sha256 } }) => ({
          url,
          bytes,
          sha256,
          attempts
        }))
      )
      // INVARIANT MirrorStore-3: an UPDATE alone would lock its rows in any order.
      return Effect.asVoid(sql`WITH locked AS MATERIALIZED (
          SELECT mirror_file.url, ended.bytes, ended.sha256, ended.attempts
          FROM mirror_file JOIN json_to_recordset(${json}::json)
            AS ended (url text, bytes bigint, sha256 text, attempts int) USING (url)
          ORDER BY mirror_file.url FOR UPDATE OF mirror_file
        )
        UPDATE mirror_file SET status = 'done', bytes = locked.bytes, sha256 = locked.sha256,
          attempts = locked.attempts, error = NULL, finished_at = ${new Date()}
        FROM locked WHERE mirror_file.url = locked.url`)
    },
    failed: (
      { attempts, error, url }: {
        readonly url: string
        readonly attempts: number
        readonly error: string
      }
    ) =>
      Effect.asVoid(sql`UPDATE mirror_file SET status = 'failed', attempts = ${attempts},
        error = ${error}, finished_at = ${new Date()} WHERE url = ${url}`),
    /** The rows as a checkpoint for a job whose `commitAll` is `done`. */
    checkpoint: (
      folder: string,
      plan: ReadonlyMap<string, string>,
      verify: boolean
    ): Checkpoint.Checkpoint =>
      Checkpoint.make({
        run: `mirror:${folder}`,
        groupSize: rowsPerStatement,
        begin: (urls) =>
          Effect.map(
            Parallel.forEach(urls, (url) => {
              const row = rows.get(url)
              return row?.status === "done" && row.path !== null && row.path === plan.get(url)
                ? isUnchanged(path.join(folder, row.path), row, verify)
                : Effect.succeed(false)
            }, { concurrency: 16 }),
            (isDone) =>
              new Map(urls.filter((_, at) => isDone[at]).map((url) => [url, "done"] as const))
          ).pipe(Effect.provideService(FileSystem.FileSystem, fs)),
        commit: (_, effects) => Effect.as(effects, true),
        release: () => Effect.void,
        bury: () => Effect.void
      })
  }
})

/** The table. */
export type Store = Effect.Effect.Success<typeof open>
