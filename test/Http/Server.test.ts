import {
  type HttpApp,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse
} from "@effect/platform"
import {
  Cause,
  Config,
  Context,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Scheduler,
  Scope,
  Stream
} from "effect"
import { Ledger, Shutdown } from "holdfast"
import * as Server from "holdfast/Http/Server"
import { Explore } from "holdfast/Testing"
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, expectTypeOf, it } from "vitest"

// Real clients.

interface Answer {
  readonly status: number
  readonly body: string
  readonly closes: boolean
}

interface Failed {
  readonly error: string
  /** Whether the connection had been established. */
  readonly connected: boolean
}

/** One request; an incomplete answer is a failure. */
const get = (
  port: number,
  url: string,
  options: http.RequestOptions = {},
  onResponse: (response: http.IncomingMessage) => void = () => {}
): Promise<Answer | Failed> =>
  new Promise((resolve) => {
    let connected = false
    const failed = (error: NodeJS.ErrnoException) =>
      resolve({ error: error.code ?? error.message, connected })
    const request = http.get(
      { port, path: url, agent: false, timeout: 3000, ...options },
      (response) => {
        onResponse(response)
        let body = ""
        response.on("data", (chunk: Buffer) => {
          body += chunk.toString()
        })
        response.on("error", failed)
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            body,
            closes: response.headers.connection === "close"
          }))
      }
    )
    request.on("timeout", () => request.destroy(new Error("no answer")))
    request.on("socket", (socket) => {
      if (!socket.connecting) connected = true
      else socket.once("connect", () => connected = true)
    })
    request.on("error", failed)
  })

const answered = async (port: number, url: string): Promise<Answer> => {
  const answer = await get(port, url)
  if ("error" in answer) throw new Error(`${url}: ${answer.error}`)
  return answer
}

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = http.createServer().listen(0, () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

// Processes under load.

const program = fileURLToPath(new URL("../support/programs/server.mjs", import.meta.url))
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-server-"))
const children = new Set<ChildProcess>()
afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
  fs.rmSync(folder, { recursive: true, force: true })
})

/**
 * Runs the service, and 20 clients with kept connections that send request after request: from before it listens, through its
 * SIGTERM, until it refuses connections again.
 */
const underLoad = async (mode: "ours" | "stock") => {
  const port = await freePort()
  const journal = path.join(folder, `${mode}.journal`)
  fs.writeFileSync(journal, "")
  const child = spawn(process.execPath, [program, mode, String(port), journal], {
    stdio: ["ignore", "ignore", "pipe"]
  })
  children.add(child)
  let err = ""
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString()
  })
  const exit = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)))
  const complete = new Set<number>()
  const failed = new Map<number, Failed>()
  /** What a load balancer sees, in its order: 0 for a refused connection. */
  const probes: Array<number> = []
  const seen = { sent: 0, signalled: false, closing: 0, wrong: 0 }
  let big: Promise<Answer | Failed> | undefined
  const agent = new http.Agent({ keepAlive: true, maxSockets: 20 })

  const signal = (): void => {
    seen.signalled = true
    // A slow reader, whose answer is written at once and sent for a while after that.
    big = get(port, "/big", {}, (response) => {
      child.kill("SIGTERM")
      response.pause()
      setTimeout(() => response.resume(), 500)
    })
  }
  const worker = async (): Promise<void> => {
    for (let refusals = 0; refusals < 3;) {
      const id = seen.sent++
      const answer = await get(port, `/work?id=${id}`, { agent })
      if ("error" in answer) {
        failed.set(id, answer)
        if (!answer.connected && complete.size === 0) await sleep(50)
        else refusals++
        continue
      }
      complete.add(id)
      if (answer.status !== 200 || answer.body !== String(id)) seen.wrong++
      if (answer.closes) seen.closing++
      if (complete.size >= (mode === "ours" ? 1000 : 300) && !seen.signalled) signal()
    }
  }
  const prober = async (): Promise<void> => {
    for (let refused = 0; refused < 3; await sleep(20)) {
      const answer = await get(port, "/ready")
      const status = "error" in answer ? 0 : answer.status
      if (status !== 0 || probes.length > 0) probes.push(status)
      if (status === 0 && probes.length > 0) refused++
    }
  }
  const hung = setTimeout(() => child.kill("SIGKILL"), 50_000)
  await Promise.all([...Array.from({ length: 20 }, worker), mode === "ours" ? prober() : undefined])
  // A stock server that has an unanswered request never ends.
  if (mode === "stock") child.kill("SIGKILL")
  const code = await exit
  clearTimeout(hung)
  agent.destroy()
  const accepted = fs.readFileSync(journal, "utf8").trim().split("\n")
    .map((line) => Number(line.slice("/work?id=".length)))
  return {
    ...seen,
    accepted: accepted.length,
    /** Requests that the server has begun to read, without a complete answer. */
    lost: accepted.filter((id) => !complete.has(id)).length,
    /** Of those that it has not: connections that it cut, and that were never established. */
    reset: Array.from(failed).filter(([id, { connected }]) => connected && !accepted.includes(id))
      .length,
    refused: Array.from(failed.values()).filter(({ connected }) => !connected).length,
    big: await big,
    probes,
    code,
    err
  }
}

describe("a process", () => {
  it(
    "HttpServer-1, HttpServer-2: of more than 1,000 requests before, at and after SIGTERM none is lost",
    async () => {
      const { big, err, probes, ...ours } = await underLoad("ours")
      const { err: _, big: stockBig, probes: _none, ...stock } = await underLoad("stock")
      const shown = (big: Answer | Failed | undefined) =>
        big === undefined ? "none" : "error" in big ? big.error : `${big.body.length} bytes`
      process.stdout.write(
        `${
          JSON.stringify({
            ours: { ...ours, big: shown(big) },
            stock: { ...stock, big: shown(stockBig) }
          })
        }\n`
      )
      expect(ours).toMatchObject({ lost: 0, wrong: 0, code: 143 })
      expect(ours.accepted).toBeGreaterThan(1000)
      expect(big).toMatchObject({ status: 200 })
      expect(shown(big)).toBe("8000002 bytes")
      // Readiness went before the listener did, and connections were closed by their answers.
      expect(probes.filter((status, at) => status !== probes[at - 1])).toEqual([200, 503, 0])
      expect(ours.closing).toBeGreaterThan(0)
      expect(err).toMatch(/SIGTERM: 2 released in \d+\.\d s; exit 143\.\n$/)
    },
    120_000
  )
})

// Servers in this process.

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/hello", HttpServerResponse.text("hello")),
  HttpRouter.get(
    "/endless",
    HttpServerResponse.stream(Stream.concat(Stream.make(Buffer.from("begun")), Stream.never))
  )
)

/** Serves until the scope ends, and gives the port. */
const served = <R>(
  server: Layer.Layer<HttpServer.HttpServer, unknown, R>,
  app: HttpApp.Default<unknown> = router
) =>
  Effect.map(
    Layer.build(
      Layer.effect(Port, HttpServer.addressWith(Effect.succeed)).pipe(
        Layer.provide(Layer.provideMerge(HttpServer.serve(app), server))
      )
    ),
    (context) => {
      const address = Context.get(context, Port)
      return address._tag === "TcpAddress" ? address.port : 0
    }
  )
class Port extends Context.Tag("Port")<Port, HttpServer.Address>() {}

/** Runs `f` while a server with these options serves. */
const serving = <A, Ready extends Server.Checks = {}, Live extends Server.Checks = {}>(
  options: Server.Options<Ready, Live>,
  f: (port: number) => Promise<A>
) =>
  Effect.scoped(
    Effect.flatMap(
      served(Server.layer(() => http.createServer(), { port: 0 }, options)),
      (port) => Effect.promise(() => f(port))
    )
  )

describe("probes", () => {
  it("HttpServer-4: run all checks, name those that failed, and readiness comes back", async () => {
    let isWarm = false
    const ran: Array<string> = []
    class Missing extends Data.TaggedError("Missing") {
      override readonly message = "still cold"
    }
    const ready = {
      fine: Effect.sync(() => ran.push("fine")),
      warm: Effect.suspend(() => isWarm ? Effect.void : Effect.fail(new Missing())),
      sound: Effect.suspend(() => isWarm ? Effect.void : Effect.die("a defect")),
      last: Effect.sync(() => ran.push("last"))
    }
    await Effect.runPromise(serving({ ready }, async (port) => {
      expect(await answered(port, "/ready?from=test")).toMatchObject({
        status: 503,
        body: JSON.stringify({
          status: "failing",
          failed: { warm: "still cold", sound: "a defect" }
        })
      })
      expect(ran.toSorted()).toEqual(["fine", "last"])
      expect(await answered(port, "/live")).toMatchObject({ status: 200 })
      isWarm = true
      expect(await answered(port, "/ready")).toMatchObject({ status: 200, body: `{"status":"ok"}` })
      isWarm = false
      expect(await answered(port, "/ready")).toMatchObject({ status: 503 })
      expect(await answered(port, "/hello")).toMatchObject({ status: 200, body: "hello" })
    }))
  })

  it("HttpServer-4: a check that hangs, even masked, is bounded and has one fiber", async () => {
    let started = 0
    let free = () => {}
    const stuck = Effect.uninterruptible(Effect.async<void>((resume) => {
      started++
      free = () => resume(Effect.void)
    }))
    const live = { stuck, slow: Effect.never }
    const options = { live, checkTimeout: "50 millis", livePath: "/health/live" } as const
    await Effect.runPromise(serving(options, async (port) => {
      const late = "did not end within 50ms"
      const body = JSON.stringify({ status: "failing", failed: { stuck: late, slow: late } })
      const probe = () => answered(port, "/health/live")
      expect(await probe()).toMatchObject({ status: 503, body })
      expect(await Promise.all([probe(), probe()])).toMatchObject([{ body }, { body }])
      expect(started).toBe(1)
      free()
      expect(await probe()).toMatchObject({ status: 503 })
      expect(started).toBe(2)
      free()
    }))
  })

  it("need the services of their checks, and paths can be chosen", async () => {
    class Gauge extends Context.Tag("Gauge")<Gauge, { readonly full: boolean }>() {}
    const server = Server.layerConfig(() => http.createServer(), { port: Config.succeed(0) }, {
      ready: { gauge: Effect.filterOrFail(Gauge, ({ full }) => full, () => "empty") },
      live: { fine: Effect.void },
      readyPath: "/is/ready"
    })
    expectTypeOf<Layer.Layer.Context<typeof server>>().toEqualTypeOf<Gauge>()
    const program = Effect.scoped(
      Effect.flatMap(
        served(server),
        (port) =>
          Effect.promise(() => Promise.all([answered(port, "/is/ready"), answered(port, "/ready")]))
      )
    )
    expect(await Effect.runPromise(Effect.provideService(program, Gauge, { full: false })))
      .toMatchObject([{ status: 503, body: `{"status":"failing","failed":{"gauge":"empty"}}` }, {
        status: 404
      }])
  })
})

describe("a server", () => {
  it("HttpServer-1: serves no request before its handler, and gives its address after that", async () => {
    const server = Server.layer(() => http.createServer(), { port: 0 })
    const early = await Effect.runPromiseExit(
      Effect.provide(HttpServer.addressWith(Effect.succeed), server)
    )
    expect(Exit.isFailure(early) && Cause.pretty(early.cause)).toContain(
      "no address before a handler"
    )
  })

  it("HttpServer-1: a request that comes while the handler is being attached is answered", async () => {
    let arrive = () => {}
    let isFree = Promise.resolve()
    let first: Promise<Answer | Failed> | undefined
    const server = http.createServer().on("request", () => arrive()).on("listening", () => {
      // From here the fiber that listens makes no step before the request has arrived.
      isFree = new Promise((resolve) => {
        arrive = resolve
      })
      first = get((server.address() as AddressInfo).port, "/hello")
    })
    const slow = Scheduler.make((task) => void isFree.then(task), () => false)
    const serving = Effect.withScheduler(served(Server.layer(() => server, { port: 0 })), slow)
    const answer = Effect.promise(async () => first)
    expect(await Effect.runPromise(Effect.scoped(Effect.zipRight(serving, answer))))
      .toMatchObject({ status: 200, body: "hello" })
  })

  it("its layer ends wherever it is interrupted", async () => {
    const verdict = await Explore.interruptions(
      {
        name: "layer",
        body: () => Layer.build(Server.layer(() => http.createServer(), { port: 0 }))
      },
      { mode: "quick", fail: ["R0", "R1", "R2", "R3", "R4"] }
    )
    expect(verdict.passed, Explore.format(verdict)).toBe(true)
  })

  it("fails with ServeError where it cannot listen", async () => {
    const taken = await Effect.runPromise(
      serving(
        {},
        async (port) =>
          Effect.runPromise(
            Effect.flip(Effect.scoped(served(Server.layer(() => http.createServer(), { port }))))
          )
      )
    )
    expect(taken).toMatchObject({ _tag: "ServeError", cause: { code: "EADDRINUSE" } })
  })

  it("HttpServer-2: without a shutdown, its release waits for the answers under way", async () => {
    const log: Array<string> = []
    const program = Effect.gen(function*() {
      const arrived = yield* Deferred.make<void>()
      const slow = HttpRouter.empty.pipe(HttpRouter.get(
        "/slow",
        Effect.gen(function*() {
          yield* Deferred.succeed(arrived, undefined)
          yield* Effect.sleep("100 millis")
          log.push("answered")
          return HttpServerResponse.text("whole")
        })
      ))
      const below = Layer.scopedDiscard(
        Effect.addFinalizer(() => Effect.sync(() => log.push("released")))
      )
      const scope = yield* Scope.make()
      const server = Layer.provide(Server.layer(() => http.createServer(), { port: 0 }), below)
      const port = yield* Scope.extend(served(server, slow), scope)
      const answer = yield* Effect.fork(Effect.promise(() => answered(port, "/slow")))
      yield* Deferred.await(arrived)
      yield* Scope.close(scope, Exit.void)
      expect(yield* Effect.promise(() => get(port, "/slow"))).toMatchObject({ connected: false })
      return yield* Fiber.join(answer)
    })
    expect(await Effect.runPromise(program)).toMatchObject({ status: 200, body: "whole" })
    expect(log).toEqual(["answered", "released"])
  })

  it("HttpServer-2: while draining it serves, is not ready, and each answer closes its connection", async () => {
    const shutdown = Shutdown.unsafeMake()
    const seen: Array<Answer | Failed> = []
    const agent = new http.Agent({ keepAlive: true })
    const program = Effect.scoped(Effect.gen(function*() {
      const port = yield* served(Server.layer(() => http.createServer(), { port: 0 }))
      const see = Effect.promise(async () => {
        for (const url of ["/ready", "/live", "/hello"]) seen.push(await get(port, url, { agent }))
      })
      yield* see
      yield* Shutdown.onDrain(see)
      yield* Shutdown.request({ kind: "request", by: "the test" })
      return yield* Effect.never
    }))
    const { report } = await Effect.runPromise(shutdown.run(program))
    agent.destroy()
    expect(report.overran).toBe(false)
    const ok = `{"status":"ok"}`
    expect(seen).toEqual([
      { status: 200, body: ok, closes: false },
      { status: 200, body: ok, closes: false },
      { status: 200, body: "hello", closes: false },
      { status: 503, body: `{"status":"draining"}`, closes: true },
      { status: 200, body: ok, closes: true },
      { status: 200, body: "hello", closes: true }
    ])
  })

  it("HttpServer-3: an endless answer is cut at the release deadline, and the server is reported", async () => {
    let answer: Promise<Answer | Failed> | undefined
    const exit = await Effect.runPromiseExit(
      serving({ releaseDeadline: "50 millis" }, (port) =>
        new Promise<void>((resolve) => {
          answer = get(port, "/endless", {}, (response) => response.once("data", () => resolve()))
        }))
    )
    expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(`http server "port 0"`)
    expect(await answer).toMatchObject({ error: "ECONNRESET" })
  })

  it("names an answer that overran stopping, with the line of the server", async () => {
    let answer: Promise<Answer | Failed> | undefined
    const program = Effect.scoped(Effect.gen(function*() {
      const port = yield* served(Server.layer(() => http.createServer(), { port: 0 }))
      answer = get(
        port,
        "/endless",
        {},
        (response) =>
          response.once(
            "data",
            () => shutdown.unsafeRequest({ kind: "request", by: "the test" })
          )
      )
      return yield* Effect.never
    }))
    const shutdown = Shutdown.unsafeMake()
    const { report } = await Effect.runPromise(
      Effect.provide(shutdown.run(program, { stopTimeout: "50 millis" }), Ledger.layer())
    )
    expect(report.phases.find(({ phase }) => phase === "stopping")?.unfinished)
      .toContainEqual(expect.objectContaining({
        what: "inFlight",
        count: 1,
        site: expect.stringContaining("Server.test.ts")
      }))
    expect(report).toMatchObject({ held: 0, abandoned: 0 })
    expect(await answer).toMatchObject({ error: "ECONNRESET" })
  })

  it("closes a web socket when it is released", async () => {
    const app = HttpRouter.empty.pipe(HttpRouter.get(
      "/socket",
      Effect.scoped(Effect.gen(function*() {
        const request = yield* HttpServerRequest.HttpServerRequest
        const socket = yield* request.upgrade
        yield* socket.run(() => {})
        return HttpServerResponse.empty()
      }))
    ))
    const headers = {
      "connection": "Upgrade",
      "upgrade": "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": Buffer.alloc(16).toString("base64")
    }
    let closed: Promise<void> | undefined
    const program = Effect.scoped(Effect.flatMap(
      served(Server.layer(() => http.createServer(), { port: 0 }), app),
      (port) =>
        Effect.async<void>((resume) => {
          http.get({ port, path: "/socket", headers }).on("upgrade", (_, socket) => {
            closed = new Promise((resolve) => socket.resume().once("close", () => resolve()))
            // A well-behaved client answers the frame of a close, which begins so, with its own.
            socket.on("data", (frame: Buffer) =>
              frame[0] === 0x88 && socket.end(Buffer.from([0x88, 0x80, 0, 0, 0, 0])))
            resume(Effect.void)
          })
        })
    ))
    await Effect.runPromise(program)
    await closed
  })
})
