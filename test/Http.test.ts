import {
  type FileSystem,
  HttpBody,
  HttpClient,
  type HttpClientError,
  HttpClientRequest,
  HttpClientResponse
} from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  DefaultServices,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Random,
  Schedule,
  Scope,
  Stream,
  TestClock,
  TestContext,
  Tracer
} from "effect"
import { Ledger } from "holdfast"
import * as Files from "holdfast/Files"
import * as Http from "holdfast/Http"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import type { IncomingHttpHeaders } from "node:http"
import * as https from "node:https"
import type { AddressInfo } from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import type { TLSSocket } from "node:tls"
import { gzipSync } from "node:zlib"
import * as Origin from "./support/httpOrigin.ts"
import { selfSigned } from "./support/selfSigned.ts"

/** A directory of its own, gone with the test. */
const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const made = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    fs.chmodSync(made, 0o755)
    return made
  }),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true }))
)

/** Runs a test with real files, real time, and a ledger that has to be empty in the end. */
const live = <E>(
  name: string,
  test: Effect.Effect<unknown, E, Scope.Scope | FileSystem.FileSystem>
) =>
  it.scopedLive(name, () =>
    Effect.scoped(test).pipe(
      Effect.zipRight(Effect.flatMap(Ledger.Ledger, (ledger) => ledger!.assertEmpty)),
      Effect.provide(Layer.merge(NodeFileSystem.layer, Ledger.layer()))
    ))

const quick = { connectTimeout: 250, headersTimeout: 250, idleTimeout: 250 }
const descriptors = (): number => fs.readdirSync("/proc/self/fd").length
const tick = Effect.promise(() => new Promise((done) => setImmediate(done)))
const content = Buffer.alloc(600_000, "n")
const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex")

/** A tracer that notes the spans that begin. */
const tracerOf = (begun: Array<string>) => {
  const live = Context.get(DefaultServices.liveServices, Tracer.Tracer)
  return Tracer.make({
    span: (name, parent, context, links, startTime, kind, options) => {
      begun.push(`${kind} ${name}`)
      return live.span(name, parent, context, links, startTime, kind, options)
    },
    context: live.context
  })
}

describe("download", () => {
  live(
    "runs in a client span, where there is a tracer",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({ "/file": Origin.body("x") })
      const begun: Array<string> = []
      yield* Http.download(origin.url("/file"), path.join(dir, "file")).pipe(
        Effect.provide(Http.session()),
        Effect.withTracer(tracerOf(begun))
      )
      expect(begun).toEqual(["client holdfast.http.download"])
    })
  )

  live(
    "Http-4: downloads the whole file, and reports its size, hash and type",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const origin = yield* Origin.make({
        "/length": Origin.body(content, { "content-type": "text/plain" }),
        "/chunked": (response) => {
          response.write(content.subarray(0, 1000))
          response.end(content.subarray(1000))
        },
        "/close": (response) => {
          response.useChunkedEncodingByDefault = false
          response.writeHead(200, { connection: "close" })
          response.end(content)
        },
        "/empty": Origin.body(""),
        // More than announced is not part of the answer.
        "/more": (response) => {
          response.writeHead(200, { "content-length": 3 })
          response.end("abcdef")
        }
      })
      for (const route of ["/length", "/chunked", "/close", "/empty", "/more"]) {
        fs.writeFileSync(at, "old")
        let progress = 0
        const url = origin.url(route)
        const downloaded = yield* Http.download(`${url}#fragment`, at, {
          onBytes: (added) => progress += added
        })
        const expected = { "/empty": Buffer.alloc(0), "/more": Buffer.from("abc") }[route] ??
          content
        expect(fs.readFileSync(at).equals(expected)).toBe(true)
        expect(downloaded).toEqual({
          url,
          finalUrl: url,
          path: at,
          bytes: expected.length,
          sha256: sha256(expected),
          status: 200,
          contentType: route === "/length" ? "text/plain" : undefined
        })
        expect(progress).toBe(expected.length)
        expect(fs.readdirSync(dir)).toEqual(["file"])
      }
      expect(origin.requests[0]!.headers).toMatchObject({
        "accept-encoding": "identity",
        "user-agent": "holdfast"
      })
    }).pipe(Effect.provide(Http.session()))
  )

  /** What fails how: the tag and the fields that say it. */
  const failures: Record<string, [Origin.Answer, object]> = {
    "/missing": [Origin.status(404), { _tag: "HttpStatus", status: 404, retryAfter: undefined }],
    "/partial": [Origin.status(206), { _tag: "HttpStatus", status: 206 }],
    "/busy": [Origin.status(503, { "retry-after": "7" }), {
      _tag: "HttpStatus",
      status: 503,
      retryAfter: Duration.seconds(7)
    }],
    "/silent": [Origin.silent, {
      _tag: "Stalled",
      phase: "headers",
      bytes: 0,
      after: Duration.millis(250)
    }],
    "/stall": [Origin.partly("abc", "silence"), { _tag: "Stalled", phase: "body", bytes: 3 }],
    "/stall-length": [Origin.partly("abc", "silence", { "content-length": 9 }), {
      _tag: "Stalled",
      phase: "body",
      bytes: 3
    }],
    "/cut-length": [Origin.partly("abc", "end", { "content-length": 9 }), {
      _tag: "Truncated",
      expected: 9
    }],
    "/cut-length-close": [
      Origin.partly("abc", "end", { "content-length": 9, connection: "close" }),
      { _tag: "Truncated", expected: 9 }
    ],
    "/cut-chunked": [Origin.partly("abc", "end"), { _tag: "Truncated", expected: undefined }],
    "/cut-chunked-close": [Origin.partly("abc", "end", { connection: "close" }), {
      _tag: "Truncated",
      expected: undefined
    }],
    "/reset-length": [Origin.partly("abc", "reset", { "content-length": 9 }), {
      _tag: "TransportFailed",
      code: "ECONNRESET",
      received: 3
    }],
    "/reset-chunked": [Origin.partly("abc", "reset"), {
      _tag: "TransportFailed",
      code: "ECONNRESET"
    }],
    // Nothing but the reset tells that this body is not complete.
    "/reset-plain": [(response) => {
      response.useChunkedEncodingByDefault = false
      Origin.partly("abc", "reset", { connection: "close" })(response, response.req, 1)
    }, { _tag: "TransportFailed", code: "ECONNRESET" }],
    "/reset-head": [(response) => response.socket!.resetAndDestroy(), {
      _tag: "TransportFailed",
      code: "ECONNRESET"
    }],
    "/end-head": [(response) => response.socket!.destroy(), {
      _tag: "TransportFailed",
      code: "UND_ERR_SOCKET"
    }],
    "/garbage": [(response) => response.socket!.end("HTTP/1.1 what?\r\n\r\n"), {
      _tag: "TransportFailed",
      code: "HTTPParserError"
    }],
    "/bad-chunk": [(response) => {
      response.socket!.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n")
    }, { _tag: "TransportFailed", code: "HTTPParserError" }],
    "/large": [Origin.body(content), { _tag: "TooLarge", maxBytes: 100_000, seen: 600_000 }],
    "/endless": [Origin.endless, { _tag: "TooLarge", maxBytes: 100_000 }],
    "/loop": [Origin.redirect("/loop?"), { _tag: "BadRedirect", reason: "loop" }],
    // The bytes are those of a gzip file, not of the file asked for.
    "/coded": [(response) => {
      const packed = gzipSync("text")
      response.socket!.write("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n")
      response.socket!.write(`${packed.length.toString(16)}\r\n`)
      response.socket!.write(packed)
      response.socket!.end("\r\n0\r\n\r\n")
    }, { _tag: "UnsupportedEncoding", encoding: "gzip, chunked" }],
    "/range": [Origin.status(416), { _tag: "HttpStatus", status: 416 }],
    "/flood": [(response) => {
      response.socket!.write("HTTP/1.1 200 OK\r\n")
      const { socket } = response
      const more = () => {
        if (socket?.destroyed === false) socket.write(`x-flood: ${"a".repeat(8_000)}\r\n`, more)
      }
      more()
    }, { _tag: "TransportFailed", code: "UND_ERR_HEADERS_OVERFLOW" }],
    "/early-flood": [(response) => {
      const timer = setInterval(() => {
        response.socket?.write("HTTP/1.1 103 Early\r\nlink: a\r\n\r\n")
      }, 1)
      response.on("close", () => clearInterval(timer))
    }, { _tag: "Stalled", phase: "headers" }],
    "/unknown": [Origin.status(999), { _tag: "HttpStatus", status: 999 }],
    "/ftp": [Origin.redirect("ftp://127.0.0.1/file"), { _tag: "BadRedirect", reason: "protocol" }],
    "/nowhere": [Origin.status(302), {
      _tag: "BadRedirect",
      reason: "missing",
      location: undefined
    }],
    "/invalid": [Origin.redirect("http://["), { _tag: "BadRedirect", reason: "invalid" }],
    "/far": [(response, _, hit) => Origin.redirect(`/far?${hit}`)(response, _, hit), {
      _tag: "TooManyRedirects",
      maxRedirects: 10
    }],
    "/other": [Origin.body("other"), { _tag: "ChecksumMismatch", actual: sha256("other") }]
  }

  live(
    "Http-3, Http-4: each failure has its name and numbers, and leaves the old file",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      fs.writeFileSync(at, "old")
      const answers = Object.entries(failures).map(([route, [answer]]) => [route, answer])
      const origin = yield* Origin.make(Object.fromEntries(answers))
      for (const [route, [, expected]] of Object.entries(failures)) {
        const download = Http.download(origin.url(route), at, {
          maxBytes: 100_000,
          expectedSha256: sha256("expected"),
          onBytes: origin.reset
        })
        // On a busy machine a short deadline would end the others, too.
        const session = Http.session("_tag" in expected && expected._tag === "Stalled" ? quick : {})
        const error = yield* Effect.flip(Effect.provide(download, session))
        expect(error, route).toMatchObject(expected)
        expect(error.message).toContain(route)
        expect(fs.readdirSync(dir), route).toEqual(["file"])
        expect(fs.readFileSync(at, "utf8"), route).toBe("old")
      }
    })
  )

  live(
    "Http-3: a connection that fails or stalls, and an address that is none",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const { port } = yield* Origin.mute
      const expected = {
        "http://127.0.0.1:1/": { _tag: "ConnectFailed", code: "ECONNREFUSED" },
        "https://127.0.0.1:1/": { _tag: "ConnectFailed", code: "ECONNREFUSED" },
        [`https://127.0.0.1:${port}/`]: { _tag: "Stalled", phase: "connect" },
        "ftp://127.0.0.1/": { _tag: "BadUrl", reason: "protocol" },
        "nonsense": { _tag: "BadUrl", reason: "unreadable" },
        "http://me:secret@127.0.0.1/": {
          _tag: "BadUrl",
          reason: "credentials",
          url: "http://127.0.0.1/"
        }
      }
      for (const [url, error] of Object.entries(expected)) {
        expect(yield* Effect.flip(Http.download(url, at)), url).toMatchObject(error)
      }
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "a header that cannot be sent is an error that no retry mends, and shows no value",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const headers = [
        { "bad header": "secret" },
        { "x-mine": "secret\r\nx-other: 1" },
        { "transfer-encoding": "secret" },
        { expect: "secret" }
      ]
      for (const given of headers) {
        const error = yield* Effect.flip(
          Http.download("http://127.0.0.1:1/", at, { headers: given })
        )
        expect(error).toMatchObject({ _tag: "BadRequest", url: "http://127.0.0.1:1/" })
        expect(Http.isRetryable(error)).toBe(false)
        expect(error.message).not.toContain("secret")
      }
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "Http-3: an origin that sends nothing but 103 is cut at the deadline for the headers",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const origin = yield* Origin.make({
        "/early": (response) => {
          const timer = setInterval(() => response.writeEarlyHints({ link: "</a>; rel=b" }), 20)
          response.on("close", () => clearInterval(timer))
        },
        "/late": (response) => {
          response.writeEarlyHints({ link: "</a>; rel=b" })
          setTimeout(() => response.end("text"), 50)
        }
      })
      const early = origin.url("/early")
      const stalled = { _tag: "Stalled", phase: "headers", bytes: 0 }
      expect(yield* Effect.flip(Http.download(early, at))).toMatchObject(stalled)
      for (const body of [HttpBody.empty, HttpBody.text("question")]) {
        const post = Effect.scoped(HttpClient.post(early, { body }))
        expect(yield* Effect.flip(post)).toMatchObject({ cause: stalled })
      }
      expect(yield* Http.download(origin.url("/late"), at)).toMatchObject({ bytes: 4 })
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "a body that its server calls gzip is saved as it came: a bomb does not expand",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const bomb = gzipSync(Buffer.alloc(50_000_000))
      const origin = yield* Origin.make({
        "/bomb": Origin.body(bomb, {
          "content-encoding": "gzip",
          "content-disposition": "attachment; filename=\"../../etc/passwd\""
        })
      })
      yield* Http.download(origin.url("/bomb"), at, { maxBytes: bomb.length })
      expect(fs.readFileSync(at).equals(bomb)).toBe(true)
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "Http-3: each bound can be set for a request, and switched off",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const slow = Origin.slowly(Buffer.from("slow"), 2, 250)
      const origin = yield* Origin.make({
        "/slow": (response, request, hit) => {
          setTimeout(() => slow(response, request, hit), 250)
        },
        "/silent": Origin.silent,
        "/a": Origin.redirect("/b"),
        "/b": Origin.body("b")
      })
      const off = { headersTimeout: Duration.infinity, idleTimeout: Duration.infinity }
      const text = Effect.flatMap(HttpClient.get(origin.url("/slow")), (response) => response.text)
      const strict = {
        connectTimeout: 100,
        headersTimeout: 100,
        idleTimeout: 100,
        totalTimeout: 150
      }
      const requests = Effect.gen(function*() {
        expect(yield* Effect.flip(Effect.scoped(text))).toMatchObject({
          cause: { phase: "headers" }
        })
        expect(yield* Effect.scoped(text).pipe(Http.withBounds(off))).toBe("slow")
        expect(yield* Http.withBounds(text, off)).toBe("slow")
        const download = Http.download(origin.url("/slow"), at)
        expect(yield* Effect.flip(Http.withBounds(download, off))).toMatchObject({ phase: "total" })
        const endless = Http.withBounds({ ...off, totalTimeout: Duration.infinity })
        expect(yield* endless(download)).toMatchObject({ bytes: 4 })
        const moved = Http.download(origin.url("/a"), at)
        const none = yield* Effect.flip(Http.withBounds(moved, { ...off, maxRedirects: 0 }))
        expect(none).toMatchObject({ _tag: "TooManyRedirects", maxRedirects: 0 })
      })
      yield* Effect.provide(requests, Http.session(strict))
    })
  )

  live(
    "Http-3: a deadline for the whole, waiting included",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({ "/trickle": Origin.slowly(content, 60_000, 10) })
      const error = yield* Effect.flip(
        Http.download(origin.url("/trickle"), path.join(dir, "file"))
      )
      expect(error).toMatchObject({ _tag: "Stalled", phase: "total" })
      expect(fs.readdirSync(dir)).toEqual([])
    }).pipe(Effect.provide(Http.session({ totalTimeout: 150 })))
  )

  live(
    "follows redirects, and sends credentials to the first origin only",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const other = yield* Origin.make({ "/file": Origin.body("here") })
      const first = yield* Origin.make({
        "/a": Origin.redirect("/b", 301),
        "/b": Origin.redirect(other.url("/file#part"), 308)
      })
      const headers = { Authorization: "Bearer secret", "X-Mine": "1" }
      const downloaded = yield* Http.download(first.url("/a"), at, { headers })
      expect(downloaded).toMatchObject({ url: first.url("/a"), finalUrl: other.url("/file") })
      const shown = [...first.requests, ...other.requests].map(({ headers }) => [
        headers.authorization,
        headers["x-mine"]
      ])
      expect(shown).toEqual([["Bearer secret", "1"], ["Bearer secret", "1"], [undefined, "1"]])
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "Http-6: once a redirect has left the first origin, no hop gets secrets or `host`, nor does the first origin again",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const headers = {
        Authorization: "1",
        Cookie: "1",
        Host: "a.example",
        "X-Api-Key": "1",
        "X-Amz-Security-Token": "1",
        "X-Named": "1",
        "X-Mine": "1"
      }
      const names = Object.keys(headers).map((name) => name.toLowerCase())
      let back = ""
      const b = yield* Origin.make({
        "/leave": (...answer) => Origin.redirect(back)(...answer)
      })
      const a = yield* Origin.make({
        "/start": Origin.redirect(b.url("/leave"), 307),
        "/chosen": Origin.body("here")
      })
      back = a.url("/chosen")
      yield* Http.download(a.url("/start"), at, { headers, secretHeaders: ["x-NAMED"] })
      const given = ({ headers }: { readonly headers: IncomingHttpHeaders }) =>
        names.filter((name) => headers[name] === "1" || headers[name] === "a.example")
      expect(a.requests.map(given)).toEqual([names, ["x-mine"]])
      expect(b.requests.map(given)).toEqual([["x-mine"]])
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "Http-6: queries and passwords stand in no error, ledger entry or span",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const origin = yield* Origin.make({
        "/missing": Origin.status(404),
        "/moved": Origin.redirect("ftp://me:secret@127.0.0.1/?k=secret"),
        "/again": Origin.redirect("/again?k=secret"),
        "/silent": Origin.silent
      })
      const bad = ["nonsense?k=secret", "http://me:secret@127.0.0.1/", "ftp://127.0.0.1/?k=secret"]
      const routes = ["/missing?k=secret", "/moved?k=secret", "/again?k=secret", "/silent?k=secret"]
      for (const url of [...routes.map(origin.url), ...bad, "http://127.0.0.1:1/?k=secret"]) {
        const error = yield* Effect.flip(Http.download(url, at))
        expect(`${error.message} ${JSON.stringify(error)}`, url).not.toContain("secret")
      }
      const fiber = yield* Effect.fork(Http.download(origin.url("/silent?k=secret"), at))
      yield* Origin.eventually("it is asked for", () => origin.requests.length === 5)
      const held = JSON.stringify(yield* Ledger.snapshot)
      expect(held).toContain(origin.url("/silent?…"))
      expect(held).not.toContain("secret")
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "Http-4: an error of the disk is a FileError, and the connection is released",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({ "/endless": Origin.endless, "/file": Origin.body("x") })
      const at = path.join(dir, "missing", "file")
      const error = yield* Effect.flip(Http.download(origin.url("/endless"), at))
      expect(error).toMatchObject({ _tag: "FileError", code: "ENOENT", operation: "create" })
      expect(Http.isRetryable(error)).toBe(false)
      yield* Origin.eventually("the socket is closed", () => origin.sockets.size === 0)
      fs.mkdirSync(path.join(dir, "taken"))
      const taken = yield* Effect.flip(Http.download(origin.url("/file"), path.join(dir, "taken")))
      expect(taken).toMatchObject({ _tag: "FileError", code: "EISDIR", operation: "rename" })
      expect(fs.readdirSync(dir)).toEqual(["taken"])
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "Http-4: two sessions download to one destination, and the file is whole; files of the user stay",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "song")
      const mine = path.join(dir, "song.part")
      fs.writeFileSync(mine, "mine")
      const whole = Buffer.alloc(200_000, "a")
      const origin = yield* Origin.make({
        "/slow": Origin.slowly(whole, 20, 10),
        "/short": Origin.partly("0123456789", "silence", { "content-length": 20 })
      })
      const get = (route: string) =>
        Effect.fork(Effect.provide(Http.download(origin.url(route), at), Http.session()))
      const slow = yield* get("/slow")
      const short = yield* get("/short")
      yield* Origin.eventually("both are written", () => fs.readdirSync(dir).length === 3)
      const { bytes, sha256: hash } = yield* Fiber.join(slow)
      expect([bytes, hash]).toEqual([200_000, sha256(whole)])
      expect(fs.readFileSync(at).equals(whole)).toBe(true)
      yield* Fiber.interrupt(short)
      expect(fs.readFileSync(at).equals(whole)).toBe(true)
      expect(fs.readdirSync(dir).toSorted()).toEqual(["song", "song.part"])
      expect(fs.readFileSync(mine, "utf8")).toBe("mine")
    })
  )

  live(
    "Http-4: a file that has taken the draft's place is not published",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const origin = yield* Origin.make({ "/file": Origin.body(content) })
      const planted = Effect.flip(Http.download(origin.url("/file"), at, {
        onBytes: () => {
          const [draft = ""] = fs.readdirSync(dir)
          fs.rmSync(path.join(dir, draft))
          fs.symlinkSync("/etc/passwd", path.join(dir, draft))
        }
      }))
      expect(yield* planted).toMatchObject({ _tag: "FileError", code: "ESTALE" })
      expect(fs.existsSync(at)).toBe(false)
    }).pipe(Effect.provide(Http.session()))
  )
})

describe("downloadAll", () => {
  const itemsOf = (origin: Origin.Origin, dir: string, routes: ReadonlyArray<string>) =>
    routes.map((route, i) => ({ url: origin.url(route), destination: path.join(dir, `${i}`) }))

  live(
    "Http-7: with `either` each file has its outcome, in order; the cap, the retries and the progress are exact",
    Effect.gen(function*() {
      const dir = yield* directory
      const { stats } = yield* Http.Session
      let most = 0
      const origin = yield* Origin.make({
        "/file": (response) => {
          most = Math.max(most, Effect.runSync(stats).downloads)
          setTimeout(() => response.end("text"), 5)
        },
        "/busy": (response, request, hit) =>
          (hit < 3 ? Origin.status(503) : Origin.body("at last"))(response, request, hit)
      })
      const routes = ["/file", "/missing", "/busy", ...Array.from({ length: 17 }, () => "/file")]
      const seen: Array<Http.DownloadProgress> = []
      const outcomes = yield* Http.downloadAll(itemsOf(origin, dir, routes), {
        concurrency: 3,
        mode: "either",
        retry: Http.retryPolicy({ base: 1 }),
        onProgress: (progress) => seen.push(progress)
      })
      expect(outcomes.map((one) => Either.isRight(one) ? one.right.bytes : one.left._tag)).toEqual(
        [4, "HttpStatus", 7, ...Array.from({ length: 17 }, () => 4)]
      )
      expect(most).toBe(3)
      expect(seen.at(-1)).toEqual({ bytes: 18 * 4 + 7, succeeded: 19, failed: 1 })
      expect(fs.readdirSync(dir).length).toBe(19)
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "Http-7: the first failure, or an interrupt, stops all; no file is half there, and nothing changes afterwards",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({
        "/endless": Origin.slowly(content, 60_000, 5),
        "/late": (response) => setTimeout(() => response.writeHead(404).end(), 50)
      })
      const items = itemsOf(origin, dir, ["/endless", "/endless", "/late", "/never"])
      const failed = yield* Effect.flip(Http.downloadAll(items, { concurrency: 3 }))
      expect(failed).toMatchObject({ _tag: "HttpStatus", status: 404 })
      expect(fs.readdirSync(dir)).toEqual([])
      const fiber = yield* Effect.fork(Http.downloadAll(items.slice(0, 2)))
      yield* Origin.eventually("both are written", () => fs.readdirSync(dir).length === 2)
      yield* Fiber.interrupt(fiber)
      expect(fs.readdirSync(dir)).toEqual([])
      expect(origin.requests.map(({ url }) => url)).not.toContain("/never")
      expect((yield* (yield* Http.Session).stats).downloads).toBe(0)
    }).pipe(Effect.provide(Http.session()))
  )
})

describe("download through the HttpClient of the Context", () => {
  live(
    "what is wrapped around the session's client applies, and its failures keep their names",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const origin = yield* Origin.make({
        "/file": Origin.body(content),
        "/cut": Origin.partly("abc", "end", { "content-length": 9 }),
        "/stall": Origin.partly("abc", "silence")
      })
      const signed = Effect.map(HttpClient.HttpClient, (client) =>
        client.pipe(
          HttpClient.mapRequest(HttpClientRequest.bearerToken("mine")),
          HttpClient.filterStatusOk
        ))
      const get = (route: string, options?: Http.DownloadOptions) =>
        Effect.flatMap(signed, (client) =>
          Http.download(origin.url(route), at, options).pipe(
            Effect.provideService(HttpClient.HttpClient, client)
          ))
      expect(yield* get("/file")).toMatchObject({ bytes: content.length, sha256: sha256(content) })
      expect(fs.readFileSync(at).equals(content)).toBe(true)
      yield* get("/file", { client: "session" })
      expect(origin.requests.map(({ headers }) => headers.authorization)).toEqual([
        "Bearer mine",
        undefined
      ])
      expect(yield* Effect.flip(get("/missing"))).toMatchObject({ _tag: "HttpStatus", status: 404 })
      expect(yield* Effect.flip(get("/cut"))).toMatchObject({ _tag: "Truncated", expected: 9 })
      expect(yield* Effect.flip(get("/stall"))).toMatchObject({ _tag: "Stalled", phase: "body" })
      expect(yield* Effect.flip(get("/file", { headers: { expect: "1" } }))).toMatchObject({
        _tag: "BadRequest"
      })
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "Http-6: `refusePrivate` refuses a redirect from a public server to this machine or its network",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const origin = yield* Origin.make({ "/file": Origin.body("secret") })
      const get = (location: string) =>
        Effect.flatMap(HttpClient.HttpClient, (own) => {
          const client = HttpClient.make((request, url) =>
            url.hostname === "203.0.113.1"
              ? Effect.succeed(HttpClientResponse.fromWeb(
                request,
                new Response("", { status: 302, headers: { location } })
              ))
              : own.execute(request)
          )
          return Http.download("http://203.0.113.1/", at, { refusePrivate: true }).pipe(
            Effect.provideService(HttpClient.HttpClient, client)
          )
        })
      const { port } = new URL(origin.url("/"))
      for (
        const host of [
          "127.0.0.1",
          "localhost",
          "[::1]",
          "[::ffff:127.0.0.1]",
          "169.254.169.254",
          "10.0.0.1"
        ]
      ) {
        const error = yield* Effect.flip(get(`http://${host}:${port}/file`))
        expect(error, host).toMatchObject({ _tag: "BadRedirect", reason: "private" })
      }
      expect(origin.requests).toEqual([])
      const local = Http.download(origin.url("/file"), at, { refusePrivate: true })
      expect(yield* local).toMatchObject({ bytes: 6 })
    }).pipe(Effect.provide(Http.session(quick)))
  )
})

describe("download, interrupted", () => {
  live(
    "Http-1, Http-4: 80 interruptions leave the old file or the new, no part, no socket, no descriptor",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const old = Buffer.alloc(content.length, "o")
      const origin = yield* Origin.make({
        "/slow": Origin.slowly(content, 12, 1),
        "/fast": Origin.body(content),
        "/moved": Origin.redirect("/fast")
      })
      const before = descriptors()
      const routes = ["/slow", "/fast", "/moved"]
      const downloads = Effect.gen(function*() {
        let whole = 0
        for (let i = 0; i < 80; i++) {
          fs.writeFileSync(at, old)
          const url = origin.url(routes[i % 3]!)
          const durability = i % 2 === 0 ? "none" : "full"
          const download = Http.download(url, at, { durability })
          const ops = i % 4 === 0 ? 17 : 2048
          const fiber = yield* Effect.fork(Effect.withMaxOpsBeforeYield(download, ops))
          const ticks = yield* Random.nextIntBetween(0, 60)
          for (let t = 0; t < ticks && fiber.unsafePoll() === null; t++) yield* tick
          yield* Fiber.interrupt(fiber)
          const now = fs.readFileSync(at)
          expect(now.equals(old) || now.equals(content)).toBe(true)
          expect(fs.readdirSync(dir)).toEqual(["file"])
          if (now.equals(content)) whole++
        }
        expect(whole).toBeLessThan(80)
        expect((yield* (yield* Http.Session).stats).downloads).toBe(0)
        // And it still works.
        yield* Http.download(origin.url("/fast"), at)
      })
      yield* Effect.provide(downloads, Http.session({ perHost: 2 }))
      yield* Origin.eventually("no sockets", () => origin.sockets.size === 0)
      yield* Origin.eventually("no descriptors", () => descriptors() <= before)
    })
  )
})

describe("session", () => {
  live(
    "Http-1: closing it cuts requests in flight at every stage, and closes every socket",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({
        "/silent": Origin.silent,
        "/stall": Origin.partly("abc", "silence"),
        "/endless": Origin.endless,
        "/file": Origin.body("x")
      })
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Http.session({ perHost: 2, total: 5 }), scope)
      const get = (route: string, name: string) =>
        Http.download(origin.url(route), path.join(dir, name)).pipe(
          Effect.either,
          Effect.provide(context)
        )
      yield* get("/file", "kept")
      const routes = ["/silent", "/stall", "/endless", "/silent", "/stall", "/endless", "/file"]
      const fibers = yield* Effect.forEach(routes, (route, i) => Effect.fork(get(route, `${i}`)))
      yield* Origin.eventually("both connections are taken", () => origin.requests.length === 3)
      yield* Scope.close(scope, Exit.void)
      const { stats } = Context.get(context, Http.Session)
      expect(yield* stats).toMatchObject({ sockets: 0, closed: true })
      for (const fiber of fibers) {
        const ended = yield* Fiber.join(fiber)
        expect(Either.isLeft(ended) && ended.left._tag).toBe("SessionClosed")
      }
      expect(yield* stats).toEqual({ sockets: 0, downloads: 0, closed: true })
      yield* Origin.eventually("no sockets", () => origin.sockets.size === 0)
      expect(fs.readdirSync(dir)).toEqual(["kept"])
      const late = yield* get("/file", "late")
      expect(Either.isLeft(late) && late.left._tag).toBe("SessionClosed")
      expect(origin.requests.length).toBe(3)
      const client = HttpClient.get(origin.url("/file")).pipe(Effect.provide(context))
      expect((yield* Effect.flip(client))._tag).toBe("RequestError")
    })
  )

  live(
    "Http-1: closing it reaches a connection that is still being made",
    Effect.gen(function*() {
      const { port, sockets } = yield* Origin.mute
      const at = path.join(yield* directory, "file")
      const connecting = Effect.gen(function*() {
        const download = Http.download(`https://127.0.0.1:${port}/`, at)
        const fiber = yield* Effect.forkDaemon(download)
        yield* Origin.eventually("it connects", () => sockets.size === 1)
        return fiber
      })
      const fiber = yield* Effect.provide(connecting, Http.session())
      expect((yield* Effect.flip(Fiber.join(fiber)))._tag).toBe("SessionClosed")
      yield* Origin.eventually("no sockets", () => sockets.size === 0)
    })
  )

  live(
    "Http-5: keeps connections alive, and never has more than perHost",
    Effect.gen(function*() {
      const dir = yield* directory
      const origin = yield* Origin.make({
        "/small": Origin.body("x"),
        "/slow": Origin.slowly(content, 3, 2),
        "/busy": Origin.status(503)
      })
      const get = (route: string, name: string) =>
        Effect.either(
          Http.download(origin.url(route), path.join(dir, name), { durability: "none" })
        )
      for (let i = 0; i < 60; i++) yield* get(i % 3 === 0 ? "/busy" : "/small", "one")
      expect(origin.seen.accepted).toBeLessThanOrEqual(3)
      const fibers = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, i) => i),
        (i) => Effect.fork(get("/slow", `${i}`))
      )
      for (const fiber of fibers) expect(Either.isRight(yield* Fiber.join(fiber))).toBe(true)
      expect(origin.seen.most).toBeLessThanOrEqual(3)
      expect(fs.readdirSync(dir).length).toBe(51)
    }).pipe(Effect.provide(Http.session({ perHost: 3 })))
  )

  live(
    "Http-5: never more than total downloads at once, first come first served",
    Effect.gen(function*() {
      const dir = yield* directory
      let now = 0
      let most = 0
      const origin = yield* Origin.make({
        "/file": (response) => {
          most = Math.max(most, ++now)
          setTimeout(() => {
            now--
            response.end("x")
          }, 5)
        }
      })
      const order: Array<number> = []
      const fibers = yield* Effect.forEach(
        [0, 1, 2, 3, 4, 5, 6, 7],
        (i) =>
          Http.download(origin.url("/file"), path.join(dir, `${i}`)).pipe(
            Effect.tap(() => Effect.sync(() => order.push(i))),
            Effect.fork
          )
      )
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fibers[4]!)
      for (const [i, fiber] of fibers.entries()) if (i !== 4) yield* Fiber.join(fiber)
      expect(most).toBe(1)
      expect(order).toEqual([0, 1, 2, 3, 5, 6, 7])
    }).pipe(Effect.provide(Http.session({ total: 1 })))
  )

  live(
    "TLS: a certificate is checked, `ca` adds one, and a client shows its own",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const options = {
        ...selfSigned,
        ca: selfSigned.cert,
        requestCert: true,
        rejectUnauthorized: false
      }
      const server = https.createServer(options, (request, response) => {
        response.end(String((request.socket as TLSSocket).authorized))
      })
      yield* Effect.acquireRelease(
        Effect.promise(() => once(server.listen(0, "127.0.0.1"), "listening")),
        () => Effect.sync(() => server.close())
      )
      const { port } = server.address() as AddressInfo
      const get = (session: Http.SessionOptions) =>
        Http.download(`https://localhost:${port}/`, at).pipe(
          Effect.as(undefined),
          Effect.zipRight(Effect.sync(() => fs.readFileSync(at, "utf8"))),
          Effect.provide(Http.session(session))
        )
      const refused = yield* Effect.flip(get({}))
      expect(refused).toMatchObject({ _tag: "ConnectFailed", code: "DEPTH_ZERO_SELF_SIGNED_CERT" })
      const { cert, key } = selfSigned
      expect(yield* get({ tls: { ca: cert } })).toBe("false")
      expect(yield* get({ tls: { ca: cert, cert, key } })).toBe("true")
    })
  )

  live(
    "Http-5: requests to one host keep its rate, redirects and those of the HttpClient included",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const other = yield* Origin.make({ "/file": Origin.body("x") })
      const origin = yield* Origin.make({
        "/file": Origin.body("x"),
        "/moved": Origin.redirect("/file")
      })
      const get = HttpClient.get(origin.url("/file"))
      yield* Http.download(origin.url("/moved"), at)
      yield* Http.download(other.url("/file"), at)
      const waiting = yield* Effect.fork(Http.download(origin.url("/file"), at))
      const client = yield* Effect.fork(Effect.scoped(get))
      yield* Effect.repeatN(tick, 20)
      expect(origin.requests.length).toBe(2)
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(waiting)
      yield* Fiber.join(client)
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          Http.session({ hostRate: { limit: 2, interval: "1 hour" } }),
          TestContext.TestContext
        )
      )
    )
  )

  live(
    "Http-5: caps that are no whole number are a defect at once",
    Effect.gen(function*() {
      for (
        const options of [
          { perHost: 0 },
          { perHost: 1.5 },
          { total: 0 },
          { maxRedirects: -1 },
          { maxRedirects: Number.NaN }
        ]
      ) {
        const exit = yield* Effect.exit(Effect.provide(Effect.void, Http.session(options)))
        expect(Exit.isFailure(exit) && Cause.isDie(exit.cause)).toBe(true)
      }
    })
  )
})

describe("the platform's HttpClient", () => {
  live(
    "Http-2: an unread body is cut with its scope; two connections serve twenty of them",
    Effect.gen(function*() {
      const origin = yield* Origin.make({
        "/endless": Origin.endless,
        "/refused": (response) => {
          response.writeHead(503)
          response.write(Buffer.alloc(1_000_000))
        },
        "/file": Origin.body("text")
      })
      for (let i = 0; i < 20; i++) {
        const response = yield* Effect.scoped(HttpClient.get(origin.url("/endless")))
        expect(response.status).toBe(200)
        const refused = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
        const error = yield* Effect.flip(Effect.scoped(refused.get(origin.url("/refused"))))
        expect(error._tag).toBe("ResponseError")
      }
      yield* Origin.eventually("all are let go", () => origin.sockets.size === 0)
      // A body that was read is not cut, and its connection serves again.
      for (let i = 0; i < 20; i++) {
        const text = yield* Effect.scoped(
          Effect.flatMap(HttpClient.get(origin.url("/file")), (response) => response.text)
        )
        expect(text).toBe("text")
      }
      expect(origin.sockets.size).toBeLessThanOrEqual(2)
      expect(origin.requests.at(-1)!.headers["user-agent"]).toBe("holdfast")
    }).pipe(Effect.provide(Http.session({ perHost: 2 })))
  )

  live(
    "a \"connection: close\" body that waits to be read does no harm: not read, read slowly, closed on",
    Effect.gen(function*() {
      // undici's own backpressure ends the process here, by an assertion of its own (#5360).
      const closing =
        (headers: Record<string, string | number>, chunked: boolean): Origin.Answer =>
        (response) => {
          response.useChunkedEncodingByDefault = chunked
          response.writeHead(200, { connection: "close", ...headers })
          response.end(content)
        }
      const origin = yield* Origin.make({
        "/plain": closing({}, false),
        "/chunked": closing({}, true),
        "/length": closing({ "content-length": content.length }, false)
      })
      for (const route of ["/plain", "/chunked", "/length"]) {
        for (const pause of [0, 1, 20]) {
          const bytes = Effect.gen(function*() {
            const response = yield* HttpClient.get(origin.url(route))
            yield* Effect.sleep(pause * 3)
            return yield* Stream.runFold(
              Stream.tap(response.stream, () =>
                Effect.sleep(pause)),
              0,
              (sum, chunk) => sum + chunk.length
            )
          })
          expect(yield* Effect.provide(bytes, Http.session()), route).toBe(content.length)
        }
        const unread = Effect.zipRight(HttpClient.get(origin.url(route)), Effect.sleep(50))
        yield* Effect.provide(unread, Http.session())
        yield* Effect.provide(Effect.scoped(unread), Http.session())
      }
      yield* Origin.eventually("no sockets", () => origin.sockets.size === 0)
    })
  )

  live(
    "Http-3: a slow reader is not taken for a silent server, and the server has to wait",
    Effect.gen(function*() {
      let sent = 0
      const zeros = Buffer.alloc(64 * 1024)
      const origin = yield* Origin.make({
        "/endless": (response) => {
          const more = () => {
            while (!response.destroyed && response.write(zeros)) sent += zeros.length
          }
          response.on("drain", more)
          more()
        },
        "/file": Origin.body(content)
      })
      yield* Effect.scoped(Effect.gen(function*() {
        yield* HttpClient.get(origin.url("/endless"))
        const file = yield* HttpClient.get(origin.url("/file"))
        // Three times the idle deadline, unread.
        yield* Effect.sleep(750)
        expect((yield* file.arrayBuffer).byteLength).toBe(content.length)
      }))
      // What the kernel's buffers hold, not what an eager reader would have swallowed meanwhile.
      expect(sent).toBeLessThan(32_000_000)
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "Http-1: closing the session fails requests in flight with errors of their own",
    Effect.gen(function*() {
      const origin = yield* Origin.make({
        "/silent": Origin.silent,
        "/stall": Origin.partly("abc", "silence")
      })
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Http.session(), scope)
      const read = (route: string) =>
        Effect.flatMap(
          HttpClient.get(origin.url(route)),
          (response) => Stream.runDrain(response.stream)
        ).pipe(Effect.provide(context), Effect.flip, Effect.fork)
      const fibers = [yield* read("/silent"), yield* read("/stall")]
      yield* Origin.eventually("both are asked for", () => origin.requests.length === 2)
      yield* Effect.repeatN(tick, 5)
      yield* Scope.close(scope, Exit.void)
      const tags = []
      for (const fiber of fibers) tags.push((yield* Fiber.join(fiber))._tag)
      expect(tags[0]).toBe("RequestError")
      expect(["RequestError", "ResponseError"]).toContain(tags[1])
    })
  )

  live(
    "Http-3: its deadlines fire",
    Effect.gen(function*() {
      const origin = yield* Origin.make({
        "/silent": Origin.silent,
        "/stall": Origin.partly("abc", "silence")
      })
      const silent = yield* Effect.flip(Effect.scoped(HttpClient.get(origin.url("/silent"))))
      expect(silent).toMatchObject({ cause: { _tag: "Stalled", phase: "headers" } })
      expect(Http.isRetryable(silent)).toBe(true)
      const stalled: HttpClientError.HttpClientError = yield* Effect.flip(
        Effect.scoped(
          Effect.flatMap(
            HttpClient.get(origin.url("/stall")),
            (response) => Stream.runDrain(response.stream)
          )
        )
      )
      expect(stalled).toMatchObject({ cause: { _tag: "Stalled", phase: "body", bytes: 3 } })
    }).pipe(Effect.provide(Http.session(quick)))
  )

  live(
    "Http-2: a request in a scope that has closed fails and takes no connection, also if it waited for one",
    Effect.gen(function*() {
      const origin = yield* Origin.make({ "/endless": Origin.endless, "/file": Origin.body("x") })
      const closed = yield* Scope.make()
      const get = Scope.extend(HttpClient.get(origin.url("/endless")), closed)
      const holder = yield* Scope.make()
      yield* Scope.extend(HttpClient.get(origin.url("/endless")), holder)
      // It waits for the only connection, in a scope that closes meanwhile.
      const waiting = yield* Effect.fork(Effect.flip(get))
      yield* Effect.repeatN(tick, 5)
      yield* Scope.close(closed, Exit.void)
      expect(yield* Effect.flip(get)).toMatchObject({ _tag: "RequestError" })
      yield* Scope.close(holder, Exit.void)
      expect(yield* Fiber.join(waiting)).toMatchObject({ _tag: "RequestError" })
      expect(
        yield* Effect.scoped(Effect.flatMap(HttpClient.get(origin.url("/file")), (r) => r.text))
      )
        .toBe("x")
      expect(origin.requests.map(({ url }) => url)).toEqual(["/endless", "/file"])
    }).pipe(Effect.provide(Http.session({ perHost: 1 })))
  )

  live(
    "Http-2: 60 interruptions leave no socket taken",
    Effect.gen(function*() {
      const origin = yield* Origin.make({
        "/endless": Origin.endless,
        "/silent": Origin.silent,
        "/file": Origin.body("x")
      })
      for (let i = 0; i < 60; i++) {
        const read = Effect.flatMap(
          HttpClient.get(origin.url(i % 2 === 0 ? "/endless" : "/silent")),
          (response) => Stream.runDrain(response.stream)
        )
        const fiber = yield* Effect.fork(Effect.scoped(read))
        for (let ticks = 0; ticks < i % 20; ticks++) yield* tick
        yield* Fiber.interrupt(fiber)
      }
      expect((yield* HttpClient.get(origin.url("/file"))).status).toBe(200)
      yield* Origin.eventually("one socket", () => origin.sockets.size <= 1)
    }).pipe(Effect.provide(Http.session({ perHost: 2 })))
  )
})

describe("retry", () => {
  const failing = (error: Http.DownloadError | Error) => {
    const at: Array<number> = []
    const attempt = Effect.flatMap(TestClock.currentTimeMillis, (now) => {
      at.push(now)
      return Effect.fail(error)
    })
    return { at, attempt }
  }
  const status = (status: number, retryAfter?: Duration.Duration) =>
    new Http.HttpStatus({ url: "u", status, retryAfter })
  const policy = { times: 4, base: "1 second", cap: "5 seconds", jittered: false } as const

  it.effect("waits longer each time, at least as long as asked, never longer than the cap", () =>
    Effect.gen(function*() {
      const expected: Array<[Http.DownloadError, Array<number>]> = [
        [status(500), [0, 1, 3, 7, 12]],
        [status(429, Duration.seconds(2)), [0, 2, 4, 8, 13]],
        [status(503, Duration.hours(1)), [0, 5, 10, 15, 20]],
        [new Http.Truncated({ url: "u", received: 1, expected: 2 }), [0, 1, 3, 7, 12]]
      ]
      for (const [error, seconds] of expected) {
        const { at, attempt } = failing(error)
        const fiber = yield* Effect.fork(
          Effect.flip(Effect.retry(attempt, Http.retryPolicy(policy)))
        )
        yield* TestClock.adjust("1 minute")
        expect(yield* Fiber.join(fiber)).toBe(error)
        expect(at.map((ms) => (ms - at[0]!) / 1000)).toEqual(seconds)
      }
    }))

  it.effect("shortens its own waits at random by up to half, never those the server asked for", () =>
    Effect.gen(function*() {
      for (
        const [error, least] of [[status(500), 0.5], [status(500, Duration.seconds(1)), 1]] as const
      ) {
        const { at, attempt } = failing(error)
        const once = Http.retryPolicy({ times: 1, base: "1 second" })
        const fiber = yield* Effect.fork(Effect.flip(Effect.retry(attempt, once)))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        expect(at[1]! - at[0]!).toBeGreaterThanOrEqual(least * 1000)
        expect(at[1]! - at[0]!).toBeLessThanOrEqual(1000)
      }
    }))

  it.effect("does not wait after an error that stays", () =>
    Effect.gen(function*() {
      const url = "u"
      const hopeless = [
        status(404),
        status(301),
        status(600),
        status(999),
        new Http.TooLarge({ url, maxBytes: 1, seen: 2 }),
        new Http.BadRedirect({ url, location: undefined, reason: "missing" }),
        new Http.ChecksumMismatch({ url, expected: "a", actual: "b" }),
        new Http.SessionClosed({ url }),
        new Files.FileError({ operation: "write", path: "p", code: "ENOSPC" }),
        new Error("something else")
      ]
      for (const error of hopeless) {
        const { at, attempt } = failing(error)
        expect(yield* Effect.flip(Effect.retry(attempt, Http.retryPolicy(policy)))).toBe(error)
        expect(at.length).toBe(1)
      }
      for (const code of [408, 425, 429, 500, 503]) {
        expect(Http.isRetryable(status(code))).toBe(true)
      }
    }))

  it.scoped("reads Retry-After as seconds and as a date", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.UTC(2026, 0, 1))
      const at = path.join(yield* directory, "file")
      const wanted: Array<[string, Duration.Duration | undefined]> = [
        ["120", Duration.minutes(2)],
        ["Thu, 01 Jan 2026 00:01:30 GMT", Duration.seconds(90)],
        ["Thu, 01 Jan 1970 00:00:00 GMT", Duration.zero],
        ["soon", undefined]
      ]
      for (const [header, retryAfter] of wanted) {
        const origin = yield* Origin.make({ "/": Origin.status(429, { "retry-after": header }) })
        const error = yield* Effect.flip(Http.download(origin.url("/"), at))
        expect(error).toMatchObject({ _tag: "HttpStatus", status: 429, retryAfter })
      }
    }).pipe(Effect.provide(Layer.merge(NodeFileSystem.layer, Http.session()))))

  live(
    "a request of the HttpClient is retried like a download, after the wait that the server asks for",
    Effect.gen(function*() {
      const origin = yield* Origin.make({
        "/busy": (response, request, hit) =>
          (hit < 3 ? Origin.status(503, { "retry-after": "1" }) : Origin.body("at last"))(
            response,
            request,
            hit
          ),
        "/missing": Origin.status(404),
        "/cut": Origin.partly("abc", "end", { "content-length": 9 })
      })
      const client = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
      const policy = Http.retryPolicy({ base: "1 millis", cap: "20 millis" })
      const get = (route: string) =>
        Effect.scoped(Effect.flatMap(client.get(origin.url(route)), ({ text }) => text)).pipe(
          Effect.retry(policy)
        )
      expect(yield* get("/busy")).toBe("at last")
      expect(yield* Effect.flip(get("/missing"))).toMatchObject({ _tag: "ResponseError" })
      expect(yield* Effect.flip(get("/cut"))).toMatchObject({ cause: { _tag: "Truncated" } })
      expect(origin.requests.length).toBe(3 + 1 + 4)
    }).pipe(Effect.provide(Http.session()))
  )

  live(
    "a server that is busy twice is asked a third time",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const busy = Origin.status(503, { "retry-after": "0" })
      const origin = yield* Origin.make({
        "/file": (response, request, hit) =>
          (hit < 3 ? busy : Origin.body("at last"))(response, request, hit)
      })
      yield* Http.download(origin.url("/file"), at).pipe(
        Effect.retry(
          Http.retryPolicy({ base: "1 millis" }).pipe(Schedule.intersect(Schedule.forever))
        )
      )
      expect(fs.readFileSync(at, "utf8")).toBe("at last")
      expect(origin.requests.length).toBe(3)
    }).pipe(Effect.provide(Http.session()))
  )
})
