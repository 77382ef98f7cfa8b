/**
 * 24 clients in 4 processes take one lock while processes are killed and stopped, connections cut and a server is silent.
 * `HOLDFAST_TORTURE=100000 npx vitest run … test/Lock/Redis.torture.test.ts` says how many grants; without it, the test is skipped.
 *
 * Each body appends a line when it begins and one when it ends, to one file; this process appends a line before each signal. So the
 * file has the order in which it all happened.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { redisServer, startRedis } from "../support/redis.ts"
import { tcpProxy } from "../support/tcpProxy.ts"

const grants = Number(process.env["HOLDFAST_TORTURE"] ?? 0)
const ttl = 600
const root = path.resolve(import.meta.dirname, "../..")

const program = (url: string, log: string): string =>
  `import { Effect, Scope } from "effect"
import * as LockRedis from "holdfast/Lock/Redis"
import * as fs from "node:fs"
const note = (line) => Effect.sync(() => fs.appendFileSync(${JSON.stringify(log)}, line + "\\n"))
const client = Effect.scoped(Effect.flatMap(
  LockRedis.make({ namespace: "torture", url: ${
    JSON.stringify(url)
  }, ttl: ${ttl}, pollInterval: 100, restartGuard: false }),
  (lock) => Effect.forever(Effect.exit(lock.withLock("k")(({ fence }) =>
    note("+ " + process.pid + " " + fence).pipe(
      Effect.zipRight(Effect.sleep(Math.random() < 0.2 ? 40 : 1)),
      Effect.ensuring(note("- " + process.pid + " " + fence))
    )
  )).pipe(Effect.zipRight(Effect.yieldNow())))
))
process.on("unhandledRejection", (error) => fs.appendFileSync(${
    JSON.stringify(log)
  }, "? " + process.pid + " " + error + "\\n"))
await Effect.runPromise(Effect.all(Array.from({ length: 6 }, () => client), { concurrency: "unbounded" }))`

interface Seen {
  readonly grants: number
  /** Bodies that began while another ran whose process was neither stopped nor killed. */
  readonly overlaps: number
  /** The same, of processes that were: what a target that knows fences must refuse. */
  readonly excused: number
  readonly fencesThatFell: number
  readonly unhandled: number
}

const judge = (lines: ReadonlyArray<string>): Seen => {
  const running = new Map<string, string>()
  /** Signalled since they last ended a body. */
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

it.skipIf(redisServer === undefined || grants === 0)(
  "LockRedis-1, LockRedis-3: under torture no two bodies run at once, and fences rise",
  async () => {
    const scope = Effect.runSync(Scope.make())
    const server = await Effect.runPromise(Scope.extend(startRedis, scope))
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    const log = path.join(folder, "log")
    fs.writeFileSync(log, "")
    const note = (what: string, pid: number | undefined): void =>
      fs.appendFileSync(log, `${what} ${pid}\n`)
    const proxies = [
      await tcpProxy(server.socket, 0, "raw"),
      await tcpProxy(server.socket, 0, "raw")
    ]
    const urls = [
      server.socket,
      server.socket,
      ...proxies.map(({ port }) => `redis://127.0.0.1:${port}`)
    ]
    const begin = (url: string): ChildProcess =>
      spawn(process.execPath, ["--input-type=module", "-e", program(url, log)], {
        cwd: root,
        stdio: "inherit"
      })
    const children = urls.map(begin)
    const count = () => fs.readFileSync(log, "utf8").split("\n+").length - 1
    try {
      for (let step = 0; count() < grants; step++) {
        await pause(100 + Math.random() * 300)
        const at = Math.floor(Math.random() * 4)
        const child = children[at]!
        switch (step % 5) {
          case 0: {
            note("!", child.pid)
            child.kill("SIGKILL")
            children[at] = begin(urls[at]!)
            break
          }
          case 1: {
            note("!", child.pid)
            child.kill("SIGSTOP")
            await pause(ttl * 1.5)
            child.kill("SIGCONT")
            break
          }
          case 2: {
            proxies[step % 2]!.hold()
            await pause(ttl * 1.5)
            // What waited in the proxy never arrives.
            proxies[step % 2]!.reset()
            proxies[step % 2]!.resume()
            break
          }
          case 3: {
            proxies[step % 2]!.reset()
            break
          }
          case 4: {
            await server.command("CLIENT", "KILL", "TYPE", "normal")
          }
        }
      }
    } finally {
      for (const child of children) child.kill("SIGKILL")
      await Promise.all(proxies.map((proxy) => proxy.close()))
      await Effect.runPromise(Scope.close(scope, Exit.void))
    }
    const seen = judge(fs.readFileSync(log, "utf8").trim().split("\n"))
    fs.rmSync(folder, { recursive: true })
    process.stderr.write(`${JSON.stringify(seen)}\n`)
    expect(seen).toMatchObject({ overlaps: 0, fencesThatFell: 0, unhandled: 0 })
  },
  600_000
)
