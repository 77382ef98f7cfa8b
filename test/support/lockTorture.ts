/**
 * 24 clients in 4 processes take one lock while processes are killed and stopped, connections cut and servers are silent.
 *
 * Each body appends a line when it begins and one when it ends, to one file; this process appends a line before each fault. So the
 * file has the order in which it all happened. With Postgres, some bodies also write their fence in a transaction with `guard`.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { Client } from "pg"
import type { RedisServer } from "./redis.ts"
import { type TcpProxy, tcpProxy } from "./tcpProxy.ts"

export interface Torture {
  readonly backend: "redis" | "postgres" | "abstract" | "file"
  readonly grants: number
  readonly seed: number
  /** It ends after so long, if it has fewer grants then. */
  readonly millis?: number | undefined
  readonly redis?: RedisServer | undefined
  readonly postgres?:
    | {
      readonly host: string
      readonly port: number
      readonly user: string
      readonly database?: string
    }
    | undefined
}

export interface Seen {
  readonly grants: number
  /** Bodies that began while another ran whose process was not disturbed. */
  readonly overlaps: number
  /** The same, of processes that were: what a target that knows fences must refuse. */
  readonly excused: number
  readonly fencesThatFell: number
  /** Fences in the order of their guarded transactions that are lower than one before, and how many there are. */
  readonly staleCommits: number
  readonly commits: number
  readonly unhandled: number
}

const ttl = 600
/** Longer than a session of Lock/Postgres may be silent. */
const silentMillis = 7000
const program = path.resolve("test/support/programs/lockTorture.mjs")

/** Mulberry32. */
const random = (seed: number) => (): number => {
  seed = (seed + 0x6D2B79F5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const judge = (lines: ReadonlyArray<string>) => {
  const running = new Map<string, string>()
  /** By process: disturbed since it last ended a body. */
  const disturbed = new Set<string>()
  const seen = { grants: 0, overlaps: 0, excused: 0, fencesThatFell: 0, unhandled: 0 }
  let last = 0n
  for (const line of lines) {
    const [what, pid = "", fence = ""] = line.split(" ")
    if (what === "?") seen.unhandled++
    if (what === "!") disturbed.add(pid)
    if (what === "-") {
      running.delete(fence)
      disturbed.delete(pid)
    }
    if (what !== "+") continue
    seen.grants++
    for (const other of running.values()) {
      if (disturbed.has(other) || disturbed.has(pid)) seen.excused++
      else seen.overlaps++
    }
    for (const [old, other] of running) if (disturbed.has(other)) running.delete(old)
    if (BigInt(fence) <= last && !disturbed.has(pid)) seen.fencesThatFell++
    last = BigInt(fence) > last ? BigInt(fence) : last
    running.set(fence, pid)
  }
  return seen
}

/** Whether a fence is lower than one before it. */
const isStale = (fence: bigint, at: number, all: ReadonlyArray<bigint>): boolean =>
  all.slice(0, at).some((before) => before > fence)

export const torture = async (
  { backend, grants, millis = Infinity, postgres, redis, seed }: Torture
): Promise<Seen> => {
  const next = random(seed)
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
  const log = path.join(directory, "log")
  fs.writeFileSync(log, "")
  const admin = postgres && new Client(postgres)
  await admin?.connect()
  await admin?.query("DROP TABLE IF EXISTS commits")
  await admin?.query("CREATE TABLE commits (at bigserial, fence bigint)")
  const proxies: Array<TcpProxy> = []
  if (backend === "redis" || backend === "postgres") {
    for (let n = 0; n < 2; n++) {
      proxies.push(
        backend === "redis"
          ? await tcpProxy(redis!.socket, 0, "raw")
          : await tcpProxy(postgres!.host, postgres!.port)
      )
    }
  }
  /** Two processes talk to the server, two through a proxy each. */
  const through = (at: number): unknown => {
    const proxy = proxies[at - 2]
    if (backend === "redis") return proxy ? `redis://127.0.0.1:${proxy.port}` : redis!.socket
    return proxy ? { host: "127.0.0.1", port: proxy.port } : {}
  }
  const begin = (at: number): ChildProcess => {
    const namespace = path.basename(directory)
    const given = { backend, directory, log, namespace, postgres, through: through(at), ttl }
    return spawn(process.execPath, [program, JSON.stringify(given)], {
      stdio: ["ignore", "ignore", "inherit"]
    })
  }
  const children = [0, 1, 2, 3].map(begin)
  const disturb = (at: number): void => fs.appendFileSync(log, `! ${children[at]!.pid}\n`)
  const cut = (at: number): void => {
    // A session that ends frees its lock at once, so its holder learns of it while the next one starts (LockPostgres-3).
    if (backend === "postgres") disturb(at + 2)
    proxies[at]!.reset()
  }
  const faults: Array<() => Promise<void>> = [
    async () => {
      const at = Math.floor(next() * 4)
      disturb(at)
      children[at]!.kill("SIGKILL")
      children[at] = begin(at)
    },
    async () => {
      const at = Math.floor(next() * 4)
      disturb(at)
      children[at]!.kill("SIGSTOP")
      await pause(ttl * 1.5)
      children[at]!.kill("SIGCONT")
    }
  ]
  if (proxies.length > 0) {
    faults.push(async () => cut(Math.floor(next() * 2)), async () => {
      const at = Math.floor(next() * 2)
      // The silence of a session lasts too long for a short run.
      proxies[at]!.hold()
      await pause(backend === "redis" || grants < 10_000 ? ttl * 1.5 : silentMillis)
      // What waited in the proxy never arrives.
      cut(at)
      proxies[at]!.resume()
    })
  }
  if (backend === "redis") {
    faults.push(async () => void await redis!.command("CLIENT", "KILL", "TYPE", "normal"))
  }
  const count = (): number => fs.readFileSync(log, "utf8").split("\n+").length - 1
  try {
    // By grants, not by time: a slow machine must not spend the run on starting processes.
    const apart = Math.min(200, grants / 5)
    const until = performance.now() + millis
    const isOver = (): boolean => count() >= grants || performance.now() > until
    for (let step = 0, at = apart / 2; !isOver(); await pause(10)) {
      if (count() < at) continue
      await faults[step++ % faults.length]!()
      at = count() + apart * (0.5 + next() / 2)
    }
  } finally {
    const ended = children.map((child) => {
      child.kill("SIGKILL")
      return child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined
    })
    await Promise.all(ended)
    await Promise.all(proxies.map((proxy) => proxy.close()))
  }
  const written = await admin?.query<{ fence: string }>("SELECT fence FROM commits ORDER BY at")
  const fences = written?.rows.map(({ fence }) => BigInt(fence)) ?? []
  await admin?.end()
  const seen = judge(fs.readFileSync(log, "utf8").trim().split("\n"))
  fs.rmSync(directory, { recursive: true })
  return { ...seen, commits: fences.length, staleCommits: fences.filter(isStale).length }
}
