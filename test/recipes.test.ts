/** The recipes of the README as a reader runs them: plain node on the built package. */
import { describe, expect, it, vi } from "@effect/vitest"
import { spawn } from "node:child_process"
import * as path from "node:path"

interface Ended {
  readonly code: number | null
  readonly lines: ReadonlyArray<string>
}

/** Starts `test/recipes/<name>.mjs`; `onLine` sees each line it prints. */
const start = (name: string, onLine: (line: string) => void = () => {}) => {
  const file = path.join(import.meta.dirname, "recipes", `${name}.mjs`)
  const child = spawn(process.execPath, [file], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, PORT: "0" }
  })
  const ended = new Promise<Ended>((resolve) => {
    const lines: Array<string> = []
    let rest = ""
    child.stdout.on("data", (chunk: Buffer) => {
      const whole = `${rest}${chunk}`.split("\n")
      rest = whole.pop() ?? ""
      lines.push(...whole)
      whole.forEach(onLine)
    })
    const cap = setTimeout(() => child.kill("SIGKILL"), 55_000)
    child.once("close", (code) => {
      clearTimeout(cap)
      resolve({ code, lines })
    })
  })
  return { child, ended }
}

/** The example at the top of the README is tested where it stands (docs.test.ts). */
describe("recipes", { concurrent: true, timeout: 60_000 }, () => {
  it("pool: worker threads are reused, and the process ends", async () => {
    const { code, lines } = await start("pool").ended
    expect({ code, lines }).toEqual({ code: 0, lines: ["[ 1, 4, 9, 16 ]"] })
  })

  it("batch: the second run finds everything done", async () => {
    const { code, lines } = await start("batch").ended
    expect({ code, lines }).toEqual({ code: 0, lines: ["first: 3 done; second: 3 already done"] })
  })

  it("service: is ready, answers, and drains before it ends", async () => {
    const urls: Array<string> = []
    const address = /http:\/\/\S+:\d+/
    const { child, ended } = start("service", (line) => urls.push(...address.exec(line) ?? []))
    await vi.waitUntil(() => urls.length > 0, { timeout: 45_000 })
    const [url] = urls
    const ask = async (path: string) => {
      const response = await fetch(`${url}${path}`)
      return { status: response.status, body: await response.json() }
    }
    expect(await ask("/ready")).toEqual({ status: 200, body: { status: "ok" } })
    expect(await ask("/cats")).toEqual({ status: 200, body: ["Tom", "Kit"] })
    child.kill("SIGTERM")
    await vi.waitUntil(async () => (await ask("/ready")).status === 503, { timeout: 4_500 })
    expect((await ask("/cats")).status).toBe(200)
    expect((await ended).code).toBe(143)
  })

  it("lock: one process at a time", async () => {
    const order: Array<string> = []
    const both = [1, 2].map(() => start("lock", (line) => order.push(line)).ended)
    const ended = await Promise.all(both)
    expect(ended.map(({ code }) => code)).toEqual([0, 0])
    const pids = order.map((line) => /\d+/.exec(line)?.[0])
    expect(order).toEqual([
      `process ${pids[0]} has the lock`,
      `process ${pids[0]} is done`,
      `process ${pids[2]} has the lock`,
      `process ${pids[2]} is done`
    ])
  })
})
