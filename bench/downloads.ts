/**
 * `npm run bench -- downloads`: 40 files of 12 MiB at 8, and 2,000 of 4 KiB at 16, from a server in a process of its own: ours, by
 * hand with the same promises, a plain pipeline, `got`, and `fetch` with `p-map`. The rounds are interleaved; the figures are medians: the time, and the processor time of this process, which other
 * programs disturb less. `-- downloads 8` takes an eighth of the files.
 */
import Undici, { type Agent } from "@effect/platform-node/Undici"
import { Effect, Exit, Layer, Scope } from "effect"
import { got } from "got"
import { Parallel } from "holdfast"
import * as Http from "holdfast/Http"
import { spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import { open, rename, rm } from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import pMap from "p-map"

const works = [
  { bytes: 12 << 20, files: 40, concurrency: 8, rounds: 3 },
  { bytes: 4096, files: 2000, concurrency: 16, rounds: 5 }
] as const

const server = `
  const bodies = new Map([${
  works.map(({ bytes }) => bytes)
}].map((n) => ["/" + n, Buffer.alloc(n, "x")]))
  const server = require("node:http").createServer(({ url }, response) => {
    const body = bodies.get(url)
    response.writeHead(200, { "content-length": body.length }).end(body)
  })
  server.listen(0, "127.0.0.1", () => console.log(server.address().port))
`

type Durability = "full" | "none"
type Download = (url: string, to: string) => Promise<unknown>

/** Hashed, checked for its length, gathered beside the destination, in place in one step, and gone if it fails. */
const byHand = (agent: Agent, durability: Durability): Download => async (url, to) => {
  const { origin, pathname } = new URL(url)
  const { body, headers, statusCode } = await agent.request({
    origin,
    path: pathname,
    method: "GET"
  })
  if (statusCode !== 200) throw new Error(`${statusCode}`)
  const draft = `${to}.${randomBytes(6).toString("hex")}`
  const hash = createHash("sha256")
  let received = 0
  try {
    await pipeline(
      body,
      async function*(chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          received += chunk.length
          hash.update(chunk)
          yield chunk
        }
      },
      fs.createWriteStream(draft, { flags: "wx", flush: durability === "full" })
    )
    if (received !== Number(headers["content-length"])) throw new Error("short")
    await rename(draft, to)
    if (durability === "full") {
      const directory = await open(path.dirname(to))
      await directory.sync().finally(() => directory.close())
    }
    return hash.digest("hex")
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

const measure = async (port: number, share: number) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hf-bench-"))
  for (const { bytes, concurrency, files, rounds } of works) {
    const agent = new Undici.Agent({ connections: concurrency })
    const scope = Effect.runSync(Scope.make())
    const session = Layer.buildWithScope(Http.session({ perHost: concurrency }), scope)
    const context = await Effect.runPromise(session)
    const url = `http://127.0.0.1:${port}/${bytes}`
    const names = Array.from(
      { length: Math.ceil(files / share) },
      (_, i) => path.join(directory, String(i))
    )
    const ours = (durability: Durability) => () =>
      Effect.runPromise(Effect.provide(
        Parallel.forEach(names, (to) => Http.download(url, to, { durability }), {
          concurrency,
          discard: true
        }),
        context
      ))
    const each = (download: Download) => () =>
      pMap(names, (name) => download(url, name), { concurrency })
    const contenders: Record<string, () => Promise<unknown>> = {
      "ours": ours("none"),
      "by hand": each(byHand(agent, "none")),
      "ours, fsync": ours("full"),
      "by hand, fsync": each(byHand(agent, "full")),
      "plain pipeline": each(async (url, to) => {
        const { origin, pathname } = new URL(url)
        const { body } = await agent.request({ origin, path: pathname, method: "GET" })
        await pipeline(body, fs.createWriteStream(to))
      }),
      "got": each((url, to) => pipeline(got.stream(url), fs.createWriteStream(to))),
      "fetch + p-map": each(async (url, to) => {
        const { body } = await fetch(url)
        await pipeline(Readable.fromWeb(body as never), fs.createWriteStream(to))
      })
    }
    const taken = new Map<string, Array<{ readonly wall: number; readonly cpu: number }>>()
    for (let round = -1; round < rounds; round++) {
      for (const [name, run] of Object.entries(contenders)) {
        const cpu = process.cpuUsage()
        const began = performance.now()
        await run()
        const wall = performance.now() - began
        const { system, user } = process.cpuUsage(cpu)
        if (round < 0) taken.set(name, [])
        else taken.get(name)!.push({ wall, cpu: (system + user) / 1000 })
      }
    }
    console.log(`\n${names.length} x ${bytes} bytes at ${concurrency}`)
    for (const [name, times] of taken) {
      const rival = taken.get(name.endsWith("fsync") ? "by hand, fsync" : "by hand")!
      const figures = (["wall", "cpu"] as const).map((key) => {
        const ms = median(times.map((time) => time[key]))
        const ratio = ms / median(rival.map((time) => time[key]))
        return `${key} ${ms.toFixed(0).padStart(6)} ms ${ratio.toFixed(2)}`
      })
      console.log(`  ${name.padEnd(20)} ${figures.join("  ")}`)
    }
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await agent.destroy()
  }
  fs.rmSync(directory, { recursive: true, force: true })
}

/** Measures and prints. */
export const downloads = async (share = 1) => {
  const child = spawn(process.execPath, ["-e", server], { stdio: ["ignore", "pipe", "inherit"] })
  const [port] = await once(child.stdout, "data") as [Buffer]
  await measure(Number(port), share)
  child.kill()
  process.exit(0)
}
