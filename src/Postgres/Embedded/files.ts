/**
 * Postgres/Embedded/files: files, accounts and real time.
 *
 * DESIGN. Every file operation runs to its end; only the waiting between two of them can be interrupted. Time is the operating
 * system's, not the `Clock`'s: a process does not know a `TestClock`.
 */
import * as Effect from "effect/Effect"
import type { Stats } from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { EmbeddedFailed } from "./errors.ts"

/** The account the server runs as; `undefined` means ours. */
export type Account = { readonly uid: number; readonly gid: number } | undefined

export const pause = (millis: number): Effect.Effect<void> =>
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

export const removeTree = (directory: string): Promise<void> =>
  fsp.rm(directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })

export const give = async (file: string, account: Account): Promise<void> => {
  if (account !== undefined) await fsp.chown(file, account.uid, account.gid)
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

/** Root may not run Postgres: the cluster's owner does, else `postgres`, else `nobody`. */
export const accountFor = async (cluster: string | undefined): Promise<Account> => {
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
