/**
 * mirror: a URL list into files and Postgres, sharing one session, one pool and one lock.
 *
 * DESIGN. The whole runtime in one scope: folder lock, database, row lock, HTTP session, batch; released in reverse. The
 * folder lock comes first because it also guards the embedded server's data: a server that still runs there when we hold
 * the lock is an orphan. The results of the run outlive that scope, for Mirror-5.
 *
 * INVARIANTS
 * - Mirror-1 Two runs on one folder never overlap, on one host (folder lock) or through one database (row lock).
 * - Mirror-2 A file appears complete or not at all, and never outside the folder.
 * - Mirror-3 A row, which is the checkpoint, says `done` after the file is on disk.
 * - Mirror-4 `done + alreadyDone + skipped + failed + interrupted = taken` in the report, rejected lines (skipped) included.
 * - Mirror-5 The report is written and the ledger summed, and written, after the last release.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as SqlError from "@effect/sql/SqlError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as path from "node:path"
import * as Batch from "../Batch.ts"
import * as BatchProgress from "../Batch/Progress.ts"
import * as Files from "../Files.ts"
import * as Http from "../Http.ts"
import * as Job from "../Job.ts"
import * as Ledger from "../Ledger.ts"
import * as View from "../Ledger/View.ts"
import { printable } from "../Ledger/words.ts"
import type * as Lock from "../Lock.ts"
import * as LockFile from "../Lock/File.ts"
import * as LockPostgres from "../Lock/Postgres.ts"
import * as Postgres from "../Postgres.ts"
import * as Embedded from "../Postgres/Embedded.ts"
import * as Shutdown from "../Shutdown.ts"
import * as MirrorFolder from "./mirrorFolder.ts"
import * as MirrorPath from "./mirrorPath.ts"
import * as MirrorStore from "./mirrorStore.ts"
import * as Progress from "./progress.ts"
import * as Refusal from "./refusal.ts"
import * as Report from "./report.ts"
import * as UrlList from "./urlList.ts"

/** The options of the command line. Sizes in bytes. */
export interface Options {
  readonly list: string
  readonly to: string
  readonly concurrency: number
  readonly perHost: number
  readonly retries: number
  readonly maxBytes: number | undefined
  readonly databaseUrl: Redacted.Redacted | undefined
  readonly report: string | undefined
  readonly ledger: string | undefined
  readonly drain: Duration.Duration
  readonly timeout: Duration.Duration
  /** Whether files that are done are read and hashed. */
  readonly verify: boolean
}

/**
 * Where the command prints. `line` and `error` print one line each, on standard output and standard error, and make it safe for
 * a terminal; `document` prints text of several lines as it is.
 */
export interface Voice {
  readonly line: (text: string) => Effect.Effect<void>
  readonly document: (text: string) => Effect.Effect<void>
  readonly error: (text: string) => Effect.Effect<void>
  readonly progress: Progress.Sink
}

/** Longer URLs do not fit a Postgres primary key. */
const maxUrlLength = 2048

/** The results of the run so far. It outlives the run's scope, for the report (Mirror-5). */
interface Run {
  readonly items: Array<Report.Item>
  readonly progress: Progress.ProgressState
  status: Batch.Report["status"]
}

const describe = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  // The message of a SqlError names the operation; its cause holds the answer of the server.
  return error instanceof SqlError.SqlError && error.cause instanceof Error &&
      !error.message.includes(error.cause.message)
    ? `${error.message}: ${error.cause.message}`
    : error.message
}

const describeCause = (cause: Cause.Cause<unknown>): string => {
  const first = Cause.failureOption(cause)
  return Option.isSome(first) ? describe(first.value) : Cause.pretty(cause)
}

// ------------------------------------------------------------------------------------------- the scope

/** Refuses a file that cannot be written, or that would replace the list or the other file. */
const checkPlace = (option: "report" | "ledger", { ledger, list, report, to }: Options) =>
  Effect.gen(function*() {
    const file = option === "report" ? report : ledger
    if (file === undefined) return
    const fs = yield* FileSystem.FileSystem
    const refuse = (reason: string) =>
      Refusal.refuse(
        `The ${option} cannot be written to ${file}: ${reason}. Give another --${option}.`
      )
    if (file === "") return yield* refuse("it has no name")
    const real = (name: string) => Effect.option(fs.realPath(name))
    const place = Option.getOrElse(yield* real(file), () => file)
    if (Option.contains(yield* real(list), place)) return yield* refuse("it is the list")
    if (option === "ledger" && report !== undefined) {
      const other = Option.getOrElse(yield* real(report), () => report)
      if (path.resolve(other) === path.resolve(place)) return yield* refuse("it is the report")
    }
    const there = yield* Effect.option(fs.stat(place))
    if (Option.isSome(there) && there.value.type !== "File") {
      return yield* refuse("it is there and is no regular file")
    }
    const parent = path.dirname(place)
    // The target folder is made by the run itself.
    if (
      path.resolve(parent) === path.resolve(to) &&
      !(yield* Effect.orElseSucceed(fs.exists(parent), () => true))
    ) return
    const refused = () => refuse(`no file can be made in ${parent}`)
    yield* Effect.mapError(fs.access(parent, { writable: true }), refused)
  })

/** Holds the lock `<work>:<folder>` until the scope closes, or fails with its holder. */
export const take = (locks: Lock.Service, folder: string, work = "mirror") =>
  Effect.gen(function*() {
    const key = `${work}:${folder}`
    const lease = yield* locks.tryGet(key, { label: `holdfast ${work}` })
    if (Option.isSome(lease)) return lease.value
    const holder = yield* Effect.orElseSucceed(locks.inspect(key), () => Option.none<Lock.Holder>())
    const by = Option.isSome(holder) ? holder.value.holder : "another run"
    const whatToDo = "Wait until it has ended, or give another --to."
    return yield* Refusal.refuse(`The folder ${folder} is being mirrored by ${by}. ${whatToDo}`, 3)
  })

const connectionOf = (folder: string, databaseUrl: Redacted.Redacted | undefined) =>
  databaseUrl === undefined
    ? Effect.map(
      Embedded.make({ dataDirectory: path.join(folder, ".holdfast", "pg") }),
      ({ database, host, port, user }) => ({ host, port, user, database })
    )
    : Effect.succeed({ url: Redacted.value(databaseUrl) })

// ------------------------------------------------------------------------------------------- one item

const fetchInto = (folder: string, parts: string, place: string, url: string, options: {
  readonly maxBytes: number | undefined
  readonly onBytes: (added: number) => void
}) =>
  Effect.gen(function*() {
    const destination = path.join(folder, place)
    yield* MirrorFolder.openAbove(folder, destination)
    return yield* Http.download(url, destination, { ...options, temporaryDirectory: parts })
  })

/** Whether every other item would fail too: the disk is full or read-only, or the database is gone. */
const isFatal = (error: unknown): boolean =>
  error instanceof SqlError.SqlError
  || error instanceof Files.FileError &&
    ["ENOSPC", "EDQUOT", "EROFS", "EMFILE", "EIO"].includes(error.code)

const verdict = (cause: Cause.Cause<unknown>): Batch.Verdict => {
  const first = Cause.failureOption(cause)
  return Option.isSome(first) && !isFatal(first.value) ? "collect" : "fail"
}

// ------------------------------------------------------------------------------------------- the run

const download = (
  options: Options,
  folder: string,
  list: UrlList.UrlList,
  run: Run,
  voice: Voice
) =>
  Effect.gen(function*() {
    const shutdown = yield* Shutdown.Shutdown
    const store = yield* MirrorStore.open
    const parts = yield* MirrorFolder.openParts(folder)
    const taken = new Map(
      Array.from(store.rows.values()).flatMap(({ path, url }) => path === null ? [] : [[url, path]])
    )
    const plan = MirrorPath.plan(list.urls, taken)
    yield* store.reserve(plan)
    const { progress } = run
    const retry = Http.retryPolicy({ times: options.retries })
    const job = Job.make({
      name: "mirror",
      key: (url: string) => url,
      process: (url) =>
        fetchInto(folder, parts, plan.get(url)!, url, {
          maxBytes: options.maxBytes,
          onBytes: (added) => void (progress.bytes += added)
        }).pipe(Ledger.withOwner(url)),
      commitAll: store.done,
      retry
    })
    const settled = (outcome: Outcome): Effect.Effect<void, SqlError.SqlError> => {
      const item = reported(outcome, store, plan)
      run.items.push(item)
      // After a fatal error the row stays as it was; the next run finds it unfinished.
      return outcome.status === "failed" && verdict(outcome.cause) !== "fail"
        ? store.failed({ ...item, error: item.error ?? "" })
        : Effect.void
    }
    yield* Progress.reporter(progress, voice.progress)
    const report = yield* shutdown.drains(Batch.run(job, list.urls, {
      concurrency: options.concurrency,
      onError: verdict,
      drain: { when: shutdown.requested, grace: options.drain },
      checkpoint: store.checkpoint(folder, plan, options.verify),
      progress: BatchProgress.every(
        Progress.redrawEvery,
        (now) => Effect.sync(() => Progress.update(progress, now))
      ),
      onSettled: settled
    }))
    run.status = report.status
  })

type MirrorError = Effect.Effect.Error<ReturnType<typeof fetchInto>> | SqlError.SqlError
type Outcome = Batch.Outcome<string, Http.Downloaded, MirrorError | Batch.ItemFailure>

const reported = (
  outcome: Outcome,
  store: MirrorStore.Store,
  plan: ReadonlyMap<string, string>
): Report.Item => {
  const { attempts, item: url, status } = outcome
  const item = { url, status, path: null, bytes: null, sha256: null, attempts, error: null }
  switch (outcome.status) {
    case "interrupted":
      return item
    case "done":
    case "alreadyDone": {
      const { bytes, sha256 } = outcome.status === "done"
        ? outcome.value
        : store.rows.get(url) ?? item
      return { ...item, path: plan.get(url) ?? null, bytes, sha256 }
    }
    default:
      return { ...item, error: printable(describeCause(outcome.cause)) }
  }
}

const inFolder = (options: Options, list: UrlList.UrlList, run: Run, voice: Voice) =>
  Effect.scoped(Effect.gen(function*() {
    const folder = yield* MirrorFolder.open(options.to)
    yield* take(yield* LockFile.make({ namespace: "holdfast" }), folder)
    const connection = yield* connectionOf(folder, options.databaseUrl)
    // One after the other: stock `Layer.merge` would build and release them at once.
    const database = yield* Layer.build(Postgres.layer({
      ...connection,
      max: Math.min(10, options.concurrency),
      applicationName: "holdfast"
    }))
    const session = yield* Layer.build(Http.session({
      perHost: options.perHost,
      headersTimeout: options.timeout,
      idleTimeout: options.timeout,
      userAgent: "holdfast-mirror"
    }))
    const services = Context.merge(database, session)
    const locks = yield* LockPostgres.make({ ...connection, namespace: "holdfast" })
    const lease = yield* take(locks, folder)
    yield* lease.protect(Effect.provide(download(options, folder, list, run, voice), services))
  }))

const codeOf = (error: { readonly _tag: string }): number => {
  if (error instanceof Refusal.Refusal) return error.exitCode
  switch (error._tag) {
    case "ListUnreadable":
    case "ListEmpty":
    case "ListBinary":
    case "InvalidUrl":
    case "PostgresUnavailable":
    case "EmbeddedUnavailable":
      return 2
    default:
      return 1
  }
}

/** Writes a file, and returns whether that worked: a failure must not hide how the run ended. */
const store = (file: string, content: string, voice: Voice) =>
  Files.writeAtomic(file, content).pipe(
    Effect.as(true),
    Effect.catchAll((error) => Effect.as(voice.error(`holdfast: ${error.message}`), false))
  )

const summarise = (options: Options, run: Run, voice: Voice) =>
  Effect.gen(function*() {
    const ledger = yield* Ledger.Ledger
    const snapshot = ledger === undefined ? undefined : yield* ledger.snapshot
    const report = Report.make(run.items, snapshot)
    for (const line of Report.lines(report, snapshot)) yield* voice.line(line)
    const isReportStored = options.report === undefined
      || (yield* store(options.report, `${JSON.stringify(report, null, 2)}\n`, voice))
    const isLedgerStored = options.ledger === undefined || snapshot === undefined
      || (yield* store(options.ledger, View.json(snapshot), voice))
    return { report, isStored: isReportStored && isLedgerStored }
  })

/**
 * Mirrors a list and returns the exit code: 0 all done, 1 something failed, 2 bad input with nothing touched, 3 held
 * elsewhere, 75 drained before the end.
 *
 * **Interruption** — everything is released and the report written, then the interrupt is seen.
 */
export const mirror = (
  options: Options,
  voice: Voice
): Effect.Effect<number, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const list = yield* UrlList.read(options.list, { maxUrlLength })
    yield* checkPlace("report", options)
    yield* checkPlace("ledger", options)
    const run: Run = {
      items: list.rejected.map((rejected) => Report.rejected(rejected)),
      progress: Progress.start(list.urls.length, Date.now()),
      status: "failed"
    }
    // MASK: the report and the ledger's sum come after the last release, also when we are interrupted; the run is restored.
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(restore(inFolder(options, list, run, voice)))
        const failure = Exit.isFailure(exit) ? Cause.failureOption(exit.cause) : Option.none()
        if (Option.isSome(failure) && codeOf(failure.value) > 1) return yield* failure.value
        const { isStored, report } = yield* summarise(options, run, voice)
        if (Exit.isFailure(exit)) return yield* Effect.failCause(exit.cause)
        if (run.status === "drained") {
          const done = report.done + report.alreadyDone
          const sum = `${done} done, ${list.urls.length - done} left`
          yield* voice.line(`Stopped on request: ${sum}. Run the same command again to resume.`)
          return 75
        }
        return report.failed + report.skipped > 0 || !isStored ? 1 : 0
      })
    )
  }).pipe(Effect.catchAll((error) =>
    Effect.as(voice.error(`holdfast: ${describeFailure(error)}`), codeOf(error))
  ))

const describeFailure = (error: unknown): string =>
  error instanceof Batch.BatchFailed
    ? `stopped early: ${describeCause(error.failure)} Run it again to go on.`
    : describe(error)
