/**
 * origin: the HTTP server that `npm start` mirrors when it gets no list. It uses real sockets on loopback and has the faults of
 * real origins. A client that retries overcomes each of them.
 *
 * DESIGN. A table of documents drawn from a seed, and a handler that looks one up. Bodies are made when they are asked for
 * and never stored, so the server starts at once and holds only the answers in flight. A fault that hits only the first
 * request is remembered per document and per run of the server.
 *
 * INVARIANTS
 * - Origin-1 The same seed gives the same URLs and bytes, in every run.
 * - Origin-2 Each URL ends in 200 with the bytes of `sha256Of`, at the latest on the second request to each address it
 *   leads to; nothing is missing for good.
 * - Origin-3 After the release no socket and no timer of it is left.
 *
 * COST 44 MB in 240 documents of seed 1; 1 MB of body costs about 3 ms. At pace 1 a mirror takes 6 s with 16 connections and
 * 16 s with 6 (2026-11-20, two cores).
 * NOT DONE HTTP/2, TLS, compression; ranges other than the one `bytes=from-`.
 */
import * as Effect from "effect/Effect"
import { createCipheriv, createHash } from "node:crypto"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout as pause } from "node:timers/promises"
import * as Managed from "../Managed.ts"
import { messageOf, type Refusal, refuse } from "./refusal.ts"

export interface Options {
  /** Default 0: a free one. */
  readonly port?: number | undefined
  /** How many documents, besides one redirect for each twenty of them. Default 240. */
  readonly documents?: number | undefined
  /** Default 1. */
  readonly seed?: number | undefined
  /** Multiplies all waits; 0 removes the waits and keeps the failures. Default 1. */
  readonly pace?: number | undefined
}

/** The fault of a document; "busy" and "cut" occur the first time only. */
type Fault = "none" | "late" | "trickled" | "busy" | "cut"

interface Document {
  readonly kind: "document"
  readonly index: number
  readonly path: string
  readonly size: number
  readonly fault: Fault
  /** Milliseconds before the first byte of a late one. */
  readonly lateBy: number
}

interface Redirect {
  readonly kind: "redirect"
  readonly path: string
  readonly status: number
  readonly target: string
}

type Item = Document | Redirect

const smallest = 1024
const largest = 2 * 1024 * 1024
const pieces = 8
const betweenPieces = 100

/** Names that a mirror has to keep apart, and some it must not write as they are. */
const awkward: ReadonlyArray<string> = [
  "/",
  "/docs/",
  "/docs/index.html",
  "/names/folder",
  "/names/folder/page.html",
  "/names/Read.txt",
  "/names/read.txt",
  "/names/caf%C3%A9.txt",
  "/names/cafe%CC%81.txt",
  "/names/%E6%9D%B1%E4%BA%AC.txt",
  "/names/a%2Fb.txt",
  "/names/%2e%2e%2fup.txt",
  "/names/my%20file.txt",
  "/names/con.txt",
  "/names/.holdfast",
  "/names/almost.part",
  "/names/~tilde~3fx=1",
  "/names/tilde?x=1",
  "/search?q=holdfast",
  "/search?q=holdfast&page=2",
  "/search?q=Holdfast",
  `/names/${"long-".repeat(50)}name.txt`
]

const pathOf = (index: number): string => {
  const name = awkward[index]
  if (name !== undefined) return name
  const number = index - awkward.length
  const chapter = Math.floor(number / 20) + 1
  return `/docs/chapter-${chapter}/page-${number % 20 + 1}.${number % 3 === 0 ? "txt" : "html"}`
}

/** Of twenty documents five are late, and two each come in trickles, busy at first, and cut at first. */
const faults: ReadonlyArray<Fault> = [
  ...["late", "none", "trickled", "late", "none", "busy", "none", "cut", "late", "none"] as const,
  ...["none", "late", "none", "busy", "trickled", "none", "late", "none", "cut", "none"] as const
]

/** Mulberry32: a small generator that is the same everywhere. */
const random = (seed: number): () => number => {
  let state = seed | 0
  return () => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const draw = (count: number, seed: number): ReadonlyMap<string, Item> => {
  const next = random(seed)
  const items = new Map<string, Item>()
  for (let index = 0; index < count; index++) {
    const path = pathOf(index)
    // Small ones are many; the first is as small and the third as large as they come.
    const scale = index === 0 ? 0 : index === 2 ? 1 : next() ** 1.35
    const size = Math.round(smallest * (largest / smallest) ** scale)
    const fault = faults[index % faults.length]!
    items.set(path, { kind: "document", index, path, size, fault, lateBy: 200 + 600 * next() })
  }
  const statuses = [301, 302, 303, 307, 308]
  for (let index = 0; index < Math.ceil(count / 20); index++) {
    // The second one leads to the first: a chain.
    const target = index === 1 ? "/moved/1" : pathOf(Math.floor(next() * count))
    const path = `/moved/${index + 1}`
    items.set(path, { kind: "redirect", path, status: statuses[index % 5]!, target })
  }
  return items
}

/** Text that never repeats, so bytes from a wrong place show. */
const bodyOf = ({ index, path, size }: Document, seed: number): Buffer => {
  const key = createHash("sha256").update(`holdfast origin ${seed} ${index}`).digest()
  const cipher = createCipheriv("aes-256-ctr", key, Buffer.alloc(16))
  const noise = cipher.update(Buffer.alloc(Math.ceil(size * 3 / 4))).toString("base64")
  return Buffer.from(`${path}\n${noise}`.slice(0, size), "latin1")
}

const documentOf = (items: ReadonlyMap<string, Item>, path: string): Document | undefined => {
  const item = items.get(path)
  return item?.kind === "redirect" ? documentOf(items, item.target) : item
}

/** The first byte to send, if the client already has a part of this version. */
const rangeStart = (request: Http.IncomingMessage, etag: string): number | undefined => {
  const { "if-range": validator, range } = request.headers
  const from = /^bytes=(\d+)-$/.exec(range ?? "")?.[1]
  return from === undefined || (validator !== undefined && validator !== etag)
    ? undefined
    : Number(from)
}

interface Site {
  readonly items: ReadonlyMap<string, Item>
  readonly seed: number
  readonly pace: number
  /** Documents whose first-request fault has occurred. */
  readonly met: Set<string>
}

const isFirst = (site: Site, path: string): boolean => {
  if (site.met.has(path)) return false
  site.met.add(path)
  return true
}

const sendBody = async (
  site: Site,
  { fault }: Document,
  body: Buffer,
  response: Http.ServerResponse,
  signal: AbortSignal
): Promise<void> => {
  // A body is small enough to be written whole; a slow client delays only its own answer.
  const step = fault === "trickled" ? Math.ceil(body.length / pieces) : body.length
  for (let from = 0; from < body.length; from += step) {
    if (from > 0) await pause(betweenPieces * site.pace, undefined, { signal })
    response.write(body.subarray(from, from + step))
  }
  response.end()
}

const sendDocument = async (
  site: Site,
  document: Document,
  request: Http.IncomingMessage,
  response: Http.ServerResponse,
  signal: AbortSignal
): Promise<void> => {
  const { fault, index, lateBy, path, size } = document
  const first = (fault === "busy" || fault === "cut") && isFirst(site, path)
  if (first && fault === "busy") {
    response.writeHead(503, { "retry-after": String(Math.ceil(site.pace)) }).end("Busy\n")
    return
  }
  if (fault === "late") await pause(lateBy * site.pace, undefined, { signal })
  const etag = `"${site.seed}-${index}-${size}"`
  const start = rangeStart(request, etag)
  if (start !== undefined && start >= size) {
    response.writeHead(416, { "content-range": `bytes */${size}` }).end()
    return
  }
  const body = bodyOf(document, site.seed).subarray(start ?? 0)
  response.writeHead(start === undefined ? 200 : 206, {
    etag,
    "accept-ranges": "bytes",
    "content-length": body.length,
    "content-type": "text/plain; charset=utf-8",
    ...(start === undefined ? {} : { "content-range": `bytes ${start}-${size - 1}/${size}` })
  })
  if (request.method === "HEAD") response.end()
  else if (first) {
    response.write(body.subarray(0, body.length >> 1), () => response.destroy())
  } else await sendBody(site, document, body, response, signal)
}

const answer = async (
  site: Site,
  request: Http.IncomingMessage,
  response: Http.ServerResponse
): Promise<void> => {
  const item = site.items.get(request.url ?? "/")
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { allow: "GET, HEAD" }).end("Only GET and HEAD\n")
  } else if (item === undefined) response.writeHead(404).end("No such document\n")
  else if (item.kind === "redirect") {
    response.writeHead(item.status, { location: item.target }).end(`Moved to ${item.target}\n`)
  } else {
    const gone = new AbortController()
    response.once("close", () => gone.abort())
    await sendDocument(site, item, request, response, gone.signal).catch((cause: unknown) => {
      // A client that disconnected is no failure. After any other error the answer must not look complete.
      if (!gone.signal.aborted) response.destroy(cause instanceof Error ? cause : undefined)
    })
  }
}

export class Origin {
  readonly server: Http.Server
  readonly port: number
  /** Every document and every redirect, once. */
  readonly urls: ReadonlyArray<string>
  /** The bytes of all `urls`, each fetched once. */
  readonly totalBytes: number
  readonly site: Site
  readonly base: string
  // Written by the server's events alone. The requests that have come in, and the connections that are open now.
  requests = 0
  sockets = 0

  constructor(server: Http.Server, site: Site) {
    this.server = server
    this.site = site
    this.port = (server.address() as AddressInfo).port
    this.base = `http://127.0.0.1:${this.port}`
    const paths = Array.from(site.items.keys())
    this.urls = paths.map((path) => this.base + path)
    this.totalBytes = paths.reduce((sum, path) => sum + documentOf(site.items, path)!.size, 0)
    server.on("request", (request, response) => {
      this.requests++
      void answer(site, request, response)
    })
    server.on("connection", (socket) => {
      this.sockets++
      socket.once("close", () => this.sockets--)
    })
  }

  /** The hash of the body at the end of the redirects; undefined for a URL that is not in `urls`. */
  sha256Of = (url: string): string | undefined => {
    if (!url.startsWith(`${this.base}/`)) return undefined
    const document = documentOf(this.site.items, url.slice(this.base.length))
    return document && createHash("sha256").update(bodyOf(document, this.site.seed)).digest("hex")
  }
}

const start = (options: Options): Effect.Effect<Origin, Refusal> =>
  Effect.async((resume) => {
    const seed = options.seed ?? 1
    const items = draw(options.documents ?? 240, seed)
    const port = options.port ?? 0
    const server = Http.createServer()
    // Longer than any client keeps a connection idle, so that none is closed under a request that is on its way.
    server.keepAliveTimeout = 120_000
    const failed = (cause: unknown) =>
      resume(refuse(
        `The bundled origin cannot listen on 127.0.0.1:${port}: ${messageOf(cause)}. `
          + "Give another port, or 0 for a free one."
      ))
    // The listener stays: a later failure to accept (no descriptor left) must not end the process.
    server.on("error", failed)
    try {
      server.listen(port, "127.0.0.1", () => {
        const site = { items, seed, pace: options.pace ?? 1, met: new Set<string>() }
        resume(Effect.succeed(new Origin(server, site)))
      })
    } catch (cause) {
      // `listen` throws on a number that is no port.
      failed(cause)
    }
  })

const stop = ({ server }: Origin): Effect.Effect<void> =>
  Effect.async((resume) => {
    server.close(() => resume(Effect.void))
    server.closeAllConnections()
  })

/**
 * The bundled origin: listens on 127.0.0.1 from its acquire to its release.
 *
 * **Interruption** — holding: answers under way are cut and every socket is closed.
 * **Errors** — the port is taken, forbidden, or none.
 * **Cost** — milliseconds to start; no body is made before it is asked for.
 */
export const make = (options: Options = {}): Managed.Managed<Origin, Refusal> =>
  Managed.make({
    name: "bundled origin",
    kind: "http origin",
    acquire: start(options),
    release: stop
  })
