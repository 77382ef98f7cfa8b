/**
 * Postgres/Embedded/files: files, accounts and real time.
 *
 * DESIGN. Every file operation runs to its end; only the waiting between two of them can be interrupted. Time is the operating
 * system's, not the `Clock`'s: a process does not know a `TestClock`.
 */
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { constants, type Stats } from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { EmbeddedFailed } from "./errors.ts"

/** The account the server runs as; `undefined` means ours. */
export type Account = { readonly uid: number; readonly gid: number } | undefined

const isRoot = (): boolean => process.getuid?.() === 0

/** Node takes ids as signed numbers where it starts a process, as unsigned ones elsewhere; macOS has a `nobody` of -2. */
export const spawnable = (account: Account): Account =>
  account === undefined ? undefined : { uid: account.uid | 0, gid: account.gid | 0 }

export const pause = (millis: number): Effect.Effect<void> =>
  // WINDOW: a timer of milliseconds fires for nobody.
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** Asks every `everyMillis` until `done` or until `millis` have passed; true if done. */
export const poll = (
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

export const messageOf = (cause: unknown): string =>
  cause instanceof Error ? cause.message : String(cause)

// MASK: a file operation cannot be cancelled half way; each is short, and waits are between operations.
export const files = <A>(
  dataDirectory: string,
  step: EmbeddedFailed["step"],
  run: () => Promise<A>
): Effect.Effect<A, EmbeddedFailed> =>
  Effect.uninterruptible(Effect.tryPromise({
    try: run,
    catch: (cause) => new EmbeddedFailed({ step, dataDirectory, reason: messageOf(cause), log: "" })
  }))

export const exists = (file: string): Promise<boolean> =>
  fsp.lstat(file).then(() => true, () => false)

/** Runs a program with the rights of an account, and ignores how it ends. */
const runAs = ({ gid, uid }: NonNullable<Account>, program: string, args: ReadonlyArray<string>) =>
  new Promise<void>((resolve) => {
    execFile(program, args, { cwd: "/", ...spawnable({ uid, gid }) }, () => resolve())
  })

/** Again if it is not empty then: an `initdb` whose parent was killed may still write. */
const removeAs = async (
  owner: NonNullable<Account>,
  directory: string,
  tries = 20
): Promise<void> => {
  await runAs(owner, "rm", ["-rf", directory])
  try {
    await fsp.rmdir(directory)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === "ENOENT") return
    if (tries === 0 || code !== "ENOTEMPTY") throw cause
    await new Promise((resolve) => setTimeout(resolve, 50))
    return removeAs(owner, directory, tries - 1)
  }
}

/**
 * Removes a directory with all that it contains. As root, a directory of another account is emptied with the rights of that
 * account: a symlink that is planted in it meanwhile leads root nowhere.
 */
export const removeTree = async (directory: string): Promise<void> => {
  if (isRoot()) {
    const stats = await fsp.lstat(directory).catch(() => undefined)
    if (stats?.isDirectory() !== true) return
    if (stats.uid !== 0) return removeAs(stats, directory)
    for (const entry of await fsp.readdir(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) await removeTree(path.join(directory, entry.name))
    }
  }
  await fsp.rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
}

/** Changes a directory that we own, through a descriptor: what was put in its place meanwhile is refused, not followed. */
const change = async (
  directory: string,
  run: (handle: fsp.FileHandle) => Promise<void>
): Promise<void> => {
  const handle = await fsp.open(directory, constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    if ((await handle.stat()).uid !== process.getuid?.()) {
      throw new Error(`${directory} was replaced by a directory of another account`)
    }
    await run(handle)
  } finally {
    await handle.close()
  }
}

/**
 * A fresh directory in which we work and which the account can enter, by its group, and cannot list or change. What the account
 * writes is in directories below it, made by `givenDirectory`.
 */
export const guardedDirectory = async (prefix: string, account: Account): Promise<string> => {
  const directory = await fsp.mkdtemp(prefix)
  if (account === undefined) return directory
  await change(directory, async (handle) => {
    await handle.chown(0, account.gid)
    await handle.chmod(0o710)
  })
  return directory
}

/** A fresh directory of the account. As root we do not work in it any more. */
export const givenDirectory = async (directory: string, account: Account): Promise<string> => {
  await fsp.mkdir(directory, { mode: 0o700 })
  if (account !== undefined) {
    await change(directory, (handle) => handle.chown(account.uid, account.gid))
  }
  return directory
}

export const may = (stats: Stats, account: Account, bits: number): boolean => {
  if (account === undefined) return true
  const shift = stats.uid === account.uid ? 6 : stats.gid === account.gid ? 3 : 0
  return ((stats.mode >> shift) & bits) === bits
}

export const canReach = async (directory: string, account: Account): Promise<boolean> => {
  if (account === undefined) return true
  for (let at = await fsp.realpath(directory);; at = path.dirname(at)) {
    if (!may(await fsp.stat(at), account, 1)) return false
    if (at === path.dirname(at)) return true
  }
}

export const tail = async (file: string): Promise<string> => {
  const text = await fsp.readFile(file, "utf8").catch(() => "")
  return text.split("\n").slice(-20).join("\n").trim()
}

const rowsOf = async (file: string): Promise<ReadonlyArray<ReadonlyArray<string>>> =>
  (await fsp.readFile(file, "utf8").catch(() => "")).split("\n").map((line) => line.split(":"))

/** A group that no account of this machine is in. */
const unusedGroup = async (): Promise<number> => {
  const used = new Set((await rowsOf("/etc/group")).map(([, , gid]) => Number(gid)))
  let gid = 65_500
  while (used.has(gid)) gid--
  return gid
}

/**
 * Root may not run Postgres: the cluster's owner does, else `postgres`, else `nobody`. Other programs run as `nobody` too, so
 * that server gets a group of its own: the kernel keeps them out of its directories and away from its socket (Embedded-5).
 */
export const accountFor = async (cluster: string | undefined): Promise<Account> => {
  if (!isRoot()) return undefined
  const rows = await rowsOf("/etc/passwd")
  const named = (...names: ReadonlyArray<string>) =>
    rows.find(([name = ""]) => names.includes(name))
  // >>> 0: macOS writes nobody as -2.
  const nobody = Number(named("nobody")?.[2] ?? 65_534) >>> 0
  const owner = cluster === undefined ? undefined : await fsp.stat(cluster)
  const postgres = named("postgres", "_postgres")
  const account = owner !== undefined && owner.uid !== 0
    ? { uid: owner.uid, gid: owner.gid }
    : postgres !== undefined
    ? { uid: Number(postgres[2]), gid: Number(postgres[3]) }
    : { uid: nobody, gid: nobody }
  return account.uid === nobody ? { uid: nobody, gid: await unusedGroup() } : account
}
