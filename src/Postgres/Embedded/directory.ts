/**
 * Postgres/Embedded/directory: the data directory, the run directory, and what a killed process left in either.
 *
 * DESIGN. `initdb` works beside the data directory and its result is renamed into place, so that the directory is whole or absent
 * (Embedded-2). Each run directory names its maker, so that what a killed process left differs from what is in use.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import * as fsp from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { EmbeddedFailed, type Failure } from "./errors.ts"
import {
  type Account,
  accountFor,
  canReach,
  exists,
  files,
  givenDirectory,
  guardedDirectory,
  removeTree
} from "./files.ts"
import { type Launch, processesOn, readPidFile, runToEnd, stopProcesses } from "./processes.ts"

export const port = 5432
const socketName = `.s.PGSQL.${port}`
const runPrefix = "hf-pg-"
/** The shortest limit on a socket's path among our platforms (macOS: 104 with the closing zero). */
const maxSocketPath = 103
const sharedPlace = "/var/lib/holdfast"

/** Data directories in use by this process (Embedded-3). */
const inUse = new Set<string>()

export const reserve = (
  asked: string,
  directory: string
): Effect.Effect<void, EmbeddedFailed, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      if (inUse.has(directory)) {
        const reason = "this process already runs a server on it; share that one"
        return new EmbeddedFailed({ step: "prepare", dataDirectory: asked, reason, log: "" })
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

export const locate = async (dataDirectory: string): Promise<Place> => {
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
export const initialize = (
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
    const workshop = yield* Effect.acquireRelease(
      here(() => guardedDirectory(path.join(parent, prefix), account)),
      (directory) => Effect.promise(() => removeTree(directory))
    )
    const fresh = yield* here(() => givenDirectory(path.join(workshop, "data"), account))
    const flags = "-A trust --auth-host=reject -U postgres -E UTF8 --locale=C --no-instructions"
    yield* runToEnd({
      ...launch,
      step: "initdb",
      file: path.join(binaries, "bin", "initdb"),
      args: ["-D", fresh, ...flags.split(" "), ...durable ? [] : ["--no-sync"]]
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

/** The process that made a run directory. It distinguishes directories in use from those of killed processes. */
interface Owner {
  readonly pid: number
  /** With the pid it names one process, and only within its pid namespace. */
  readonly startedAt: string
  readonly namespace: string
  /** The data it serves; none if the data is inside. */
  readonly directory: string | undefined
}

const ownerFile = "owner.json"

/** When a process started, "ended" for a zombie, "" if that cannot be known. */
const startOf = async (pid: number): Promise<string> => {
  if (process.platform !== "linux") return startByPs(pid)
  const stat = await fsp.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return /^[ZX]/.test(fields[0] ?? "") ? "ended" : fields[19] ?? ""
}

const startByPs = (pid: number): Promise<string> =>
  new Promise((resolve) => {
    // The same words for every process that asks.
    const env = { ...process.env, LC_ALL: "C", TZ: "UTC" }
    execFile("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { env }, (error, line) => {
      const [, state = "", start = ""] = /^\s*(\S+)\s+(.*?)\s*$/.exec(line) ?? []
      resolve(error !== null ? "" : state.startsWith("Z") ? "ended" : start)
    })
  })

const namespaceOf = (): Promise<string> => fsp.readlink("/proc/self/ns/pid").catch(() => "")

const signRunDirectory = async (run: string, directory: string | undefined): Promise<void> => {
  const { pid } = process
  const [startedAt, namespace] = [await startOf(pid), await namespaceOf()]
  const owner: Owner = { pid, startedAt, namespace, directory }
  await fsp.writeFile(path.join(run, ownerFile), JSON.stringify(owner))
}

const isGone = async ({ namespace, pid, startedAt }: Owner): Promise<boolean> => {
  // A process of another pid namespace cannot be seen from here: nothing of it is touched.
  if (namespace !== await namespaceOf()) return false
  try {
    process.kill(pid, 0)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ESRCH") return true
  }
  const start = await startOf(pid)
  return start !== "" && start !== startedAt
}

type Claim = readonly [run: string, owner: Owner]

/** The claim in a run directory of ours. In one of another account anything may be written. */
const claimIn = async (run: string): Promise<ReadonlyArray<Claim>> => {
  try {
    const stats = await fsp.lstat(run)
    if (!stats.isDirectory() || stats.uid !== process.getuid?.()) return []
    return [[run, JSON.parse(await fsp.readFile(path.join(run, ownerFile), "utf8"))]]
  } catch {
    // gone meanwhile, or not signed yet
    return []
  }
}

const claims = async (): Promise<ReadonlyArray<Claim>> => {
  const temporary = await fsp.realpath(os.tmpdir()).catch(() => "/tmp")
  const runs = await Promise.all([...new Set([temporary, "/tmp"])].map(async (base) => {
    const names = await fsp.readdir(base).catch(() => [])
    return names.filter((name) => name.startsWith(runPrefix)).map((name) => path.join(base, name))
  }))
  return (await Promise.all(runs.flat().map(claimIn))).flat()
}

/** Removes what killed processes left: temporary servers with their data, and run directories that serve nothing any more. */
export const sweep: Effect.Effect<void> = Effect.gen(function*() {
  for (const [run, owner] of yield* Effect.promise(claims)) {
    if (!(yield* Effect.promise(() => isGone(owner)))) continue
    const { directory } = owner
    // A server on durable data is stopped only by the next `make` on that data.
    const isFree = directory === undefined
      ? yield* stopProcesses(path.join(run, "data"))
      : yield* Effect.promise(async () => (await processesOn(directory)).length === 0)
    if (isFree) yield* Effect.promise(() => removeTree(run).catch(() => {}))
  }
})

/**
 * Stops the server that a killed process left on the directory, and removes its run directory. Only a run directory that claims
 * this very directory is its own: the `postmaster.pid` of a copy names the run directory of the original, which may be in use.
 */
export const stopOrphan = (
  asked: string,
  directory: string,
  ownRun: string
): Effect.Effect<void, EmbeddedFailed> =>
  Effect.gen(function*() {
    const record = yield* Effect.promise(() => readPidFile(directory))
    const refuse = (reason: string) =>
      new EmbeddedFailed({ step: "orphan", dataDirectory: asked, reason, log: "" })
    const found = yield* Effect.promise(async () => {
      const named = await claimIn(path.dirname(record?.socketDirectory ?? ownRun))
      return new Map([...await claims(), ...named])
    })
    const gone: Array<string> = []
    for (const [run, owner] of found) {
      if (run === ownRun || owner.directory !== directory) continue
      if (yield* Effect.promise(() => isGone(owner))) gone.push(run)
      else if (owner.namespace === (yield* Effect.promise(namespaceOf))) {
        return yield* refuse(`the process ${owner.pid} runs a server on it`)
      }
    }
    const pid = record?.pid ?? "unknown"
    // A server of ours has its socket in a run directory; a cleaner of the temporary directory may have taken that.
    const isOurs = gone.length > 0
      || path.basename(path.dirname(record?.socketDirectory ?? "")).startsWith(runPrefix)
    if (!isOurs && (yield* Effect.promise(() => processesOn(directory))).length > 0) {
      return yield* refuse(`a Postgres that was not started here runs on it (pid ${pid}); stop it`)
    }
    if (!(yield* stopProcesses(directory))) {
      return yield* refuse(`the server left by an earlier process does not stop (pid ${pid})`)
    }
    yield* files(asked, "orphan", async () => {
      // A stale record would keep the server from starting if its pid is some other program's now.
      await fsp.rm(path.join(directory, "postmaster.pid"), { force: true })
      for (const run of gone) await removeTree(run)
    })
  })

export const socketDirectory = (run: string): string => path.join(run, "socket")

/** A run directory, with the claim of this process and the socket's directory in it. */
export const runDirectory = (
  asked: string,
  kept: string | undefined,
  account: Account
): Effect.Effect<string, EmbeddedFailed, Scope.Scope> =>
  Effect.acquireRelease(
    files(asked, "prepare", async () => {
      const wanted = await fsp.realpath(os.tmpdir())
      const longest = socketDirectory(path.join(wanted, `${runPrefix}XXXXXX`))
      const fits = path.join(longest, `${socketName}.lock`).length <= maxSocketPath
        && await canReach(wanted, account)
      return guardedDirectory(path.join(fits ? wanted : "/tmp", runPrefix), account)
    }),
    (directory) => Effect.promise(() => removeTree(directory))
  ).pipe(Effect.tap((run) =>
    files(asked, "prepare", async () => {
      await signRunDirectory(run, kept)
      await givenDirectory(socketDirectory(run), account)
    })
  ))
