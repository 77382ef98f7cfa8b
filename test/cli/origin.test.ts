import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { Ledger, Managed } from "holdfast"
import { createHash } from "node:crypto"
import * as http from "node:http"
import * as net from "node:net"
import * as Origin from "../../src/cli/origin.ts"

interface Reply {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
  readonly whole: boolean
}

/** One request, as sent: no redirects, no second try. A body that is cut is a reply that is not whole. */
const fetchOnce = (
  agent: http.Agent,
  url: string,
  options: http.RequestOptions = {}
): Promise<Reply> =>
  new Promise((resolve, reject) => {
    // A URL object would do, but this shows that the path is not normalised once more.
    const { hostname, port } = new URL(url)
    const path = url.slice(`http://${hostname}:${port}`.length)
    http.get({ agent, hostname, port, path, ...options }, (response) => {
      const chunks: Array<Buffer> = []
      const end = () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
          whole: response.complete
        })
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("error", () => {})
      response.on("close", end)
    }).on("error", reject)
  })

const sha256 = (body: Buffer) => createHash("sha256").update(body).digest("hex")

interface Fetched {
  readonly body: Buffer
  /** How each request but the good one ended. */
  readonly faults: ReadonlyArray<string>
}

/** What a patient client gets: follows redirects, tries again. */
const fetchAll = async (agent: http.Agent, url: string): Promise<Fetched> => {
  const faults: Array<string> = []
  let at = url
  for (let tries = 0; tries < 8; tries++) {
    const reply = await fetchOnce(agent, at)
    if (reply.status === 200 && reply.whole) return { body: reply.body, faults }
    faults.push(reply.status === 200 ? "cut" : String(reply.status))
    if (reply.headers.location !== undefined) at = new URL(reply.headers.location, at).href
  }
  throw new Error(`${url}: ${faults.join(" ")}`)
}

const withAgent = <A>(f: (agent: http.Agent) => Promise<A>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new http.Agent({ keepAlive: true, maxSockets: 16 })),
    (agent) => Effect.promise(() => f(agent)),
    (agent) => Effect.sync(() => agent.destroy())
  )

const tally = (words: ReadonlyArray<string>) => {
  const counts: Record<string, number> = {}
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1
  return counts
}

describe("origin", () => {
  it.live("Origin-2: every URL ends in its bytes, after the faults of a real origin", () =>
    Managed.use(Origin.make({ pace: 0 }), (origin) =>
      Effect.gen(function*() {
        expect(origin.urls.length).toBe(252)
        expect(new Set(origin.urls.map((url) => new URL(url).href))).toEqual(new Set(origin.urls))
        const all = yield* withAgent((agent) =>
          Promise.all(origin.urls.map((url) => fetchAll(agent, url)))
        )
        expect(all.map(({ body }) => sha256(body))).toEqual(origin.urls.map(origin.sha256Of))
        const sizes = all.map(({ body }) => body.length)
        expect(Math.min(...sizes)).toBe(1024)
        expect(Math.max(...sizes)).toBe(2 * 1024 * 1024)
        const bytes = sizes.reduce((sum, size) => sum + size, 0)
        expect(bytes).toBe(origin.totalBytes)
        expect(bytes).toBeGreaterThan(40e6)
        expect(bytes).toBeLessThan(60e6)
        const faults = tally(all.flatMap(({ faults }) => faults))
        expect(faults["503"]).toBe(24)
        expect(faults["cut"]).toBe(24)
        expect(["301", "302", "303", "307", "308"].map((status) => faults[status]! > 0))
          .not.toContain(false)
        expect(origin.requests).toBe(252 + Object.values(faults).reduce((a, b) => a + b, 0))
      })))

  it.live("Origin-2: the faults are of the first time only, and of each run", () =>
    Effect.gen(function*() {
      for (let run = 0; run < 2; run++) {
        yield* Managed.use(
          Origin.make({ documents: 40, pace: 0 }),
          (origin) =>
            withAgent(async (agent) => {
              const faultsOf = async () => {
                const all: Array<string> = []
                for (const url of origin.urls) all.push(...(await fetchAll(agent, url)).faults)
                return tally(all)
              }
              expect(await faultsOf()).toMatchObject({ "503": 4, cut: 4 })
              const again = await faultsOf()
              expect([again["503"], again["cut"]]).toEqual([undefined, undefined])
            })
        )
      }
    }))

  it.live("Origin-1: a seed decides names and bytes, and no two documents are equal", () =>
    Effect.gen(function*() {
      const digests = (seed: number) =>
        Managed.use(
          Origin.make({ documents: 60, seed }),
          (origin) =>
            Effect.sync(() =>
              origin.urls.map((url) => [new URL(url).pathname, origin.sha256Of(url)] as const)
            )
        )
      const first = yield* digests(7)
      expect(yield* digests(7)).toEqual(first)
      const other = yield* digests(8)
      expect(other[0]![1]).not.toBe(first[0]![1])
      const documents = first.slice(0, 60).map(([, digest]) => digest)
      expect(new Set(documents).size).toBe(60)
    }))

  it.live("a document has a length, an ETag and ranges; HEAD has no body; the rest is refused", () =>
    Managed.use(Origin.make({ documents: 3, pace: 0 }), (origin) =>
      withAgent(async (agent) => {
        const url = origin.urls[1]!
        const whole = await fetchOnce(agent, url)
        const { etag } = whole.headers
        expect(Number(whole.headers["content-length"])).toBe(whole.body.length)
        expect(etag).toMatch(/^"[^"]+"$/)
        const rest = await fetchOnce(agent, url, {
          headers: { "range": "bytes=100-", "if-range": etag! }
        })
        expect([rest.status, rest.headers["content-range"]]).toEqual([
          206,
          `bytes 100-${whole.body.length - 1}/${whole.body.length}`
        ])
        expect(rest.body.equals(whole.body.subarray(100))).toBe(true)
        const changed = { "range": "bytes=100-", "if-range": "\"other\"" }
        expect((await fetchOnce(agent, url, { headers: changed })).body.equals(whole.body)).toBe(
          true
        )
        expect((await fetchOnce(agent, url, { headers: { range: "bytes=99999999-" } })).status)
          .toBe(416)
        const head = await fetchOnce(agent, url, { method: "HEAD" })
        expect([head.status, head.headers["content-length"], head.body.length]).toEqual([
          200,
          String(whole.body.length),
          0
        ])
        expect((await fetchOnce(agent, url, { method: "PUT" })).status).toBe(405)
        expect((await fetchOnce(agent, new URL("/none", url).href)).status).toBe(404)
        expect(origin.sha256Of(new URL("/none", url).href)).toBe(undefined)
        expect(origin.sha256Of("http://example.com/")).toBe(undefined)
      })))

  it.live("Origin-3: the release cuts what is under way and leaves no socket", () =>
    Effect.gen(function*() {
      // Such a pace that the first byte never comes.
      const held = yield* Managed.use(
        Origin.make({ pace: 1e6 }),
        (origin) =>
          Effect.promise(async () => {
            const agent = new http.Agent()
            const late = fetchOnce(agent, origin.urls[0]!).catch((cause: unknown) => cause)
            const idle = net.connect(origin.port, "127.0.0.1")
            const idleClosed = new Promise((resolve) => idle.once("close", resolve))
            idle.on("error", () => {})
            while (origin.requests < 1 || origin.sockets < 2) {
              await new Promise((resolve) => setImmediate(resolve))
            }
            return { origin, late, idleClosed }
          })
      )
      expect(yield* Effect.promise(() => held.late)).toBeInstanceOf(Error)
      yield* Effect.promise(() => held.idleClosed)
      expect(held.origin.sockets).toBe(0)
      const ledger = (yield* Ledger.Ledger)!
      yield* ledger.assertEmpty
      expect((yield* ledger.snapshot).kinds["http origin"]).toMatchObject({
        acquired: 1,
        released: 1
      })
    }).pipe(Effect.provide(Ledger.layer())))

  it.live("a port that is taken, or is none, is a typed failure", () =>
    Managed.use(Origin.make({ documents: 1 }), ({ port }) =>
      Effect.gen(function*() {
        const taken = yield* Effect.flip(Effect.scoped(Origin.make({ port })))
        expect(taken).toMatchObject({ _tag: "Refusal", exitCode: 2 })
        expect(taken.message).toContain(`127.0.0.1:${port}: listen EADDRINUSE`)
        const none = yield* Effect.exit(Effect.scoped(Origin.make({ port: 70_000 })))
        expect(Exit.isFailure(none) && none.cause._tag).toBe("Fail")
      })))
})
