/** Every scenario of test/support/pgScenarios.ts on ours, by its facts; and the proxy that spoils the connections. */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { once } from "node:events"
import * as net from "node:net"
import { Client } from "pg"
import { scenarios } from "../support/pgScenarios.ts"
import { ours } from "../support/pgSides.ts"
import { embeddedServer, query } from "../support/postgres.ts"
import { type TcpProxy, tcpProxy } from "../support/tcpProxy.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })

const door = Effect.acquireRelease(
  Effect.promise(() => tcpProxy(server.get().host, server.get().port)),
  (proxy) => Effect.promise(() => proxy.close())
)

/** A plain client through the proxy. */
const through = (proxy: TcpProxy) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const client = new Client({ host: "127.0.0.1", port: proxy.port, user: "postgres" })
      client.on("error", () => {})
      await client.connect()
      return client
    }),
    (client) => Effect.promise(() => client.end().catch(() => {}))
  )

describe("the proxy", () => {
  it.scopedLive("swallows one message in either direction; the rest passes", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      const client = yield* through(proxy)
      const order: Array<string> = []
      // The rows arrive, and nothing says that they are all: the next statement's end ends this one.
      const lost = proxy.swallow("Z").then(() => order.push("lost"))
      const first = client.query("select 1").then(() => order.push("first"))
      yield* Effect.promise(() => lost)
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
      expect(order).toEqual(["lost"])
      proxy.cut()
      yield* Effect.promise(() => first.catch(() => {}))
      const other = yield* through(proxy)
      const unsent = proxy.swallow("Q", "toServer")
      const never = other.query("create table never (id int)").catch(() => "cut")
      yield* Effect.promise(() => unsent)
      proxy.reset()
      expect(yield* Effect.promise(() => never)).toBe("cut")
      const [row] = yield* Effect.promise(() =>
        query(server.get(), "select to_regclass('never') as there")
      )
      expect(row).toEqual({ there: null })
    }))

  it.scopedLive("holds and delays in order, refuses and counts", () =>
    Effect.gen(function*() {
      const proxy = yield* door
      const client = yield* through(proxy)
      const order: Array<unknown> = []
      proxy.hold("toClient")
      const held = client.query("select 1 as n").then(({ rows }) => order.push(rows))
      yield* Effect.promise(() => query(server.get(), "select 1"))
      expect(order).toEqual([])
      proxy.resume()
      yield* Effect.promise(() => held)
      proxy.delay(5)
      yield* Effect.promise(() => client.query("select string_agg(repeat('x', 100000), '')"))
      expect([proxy.connections(), proxy.accepted()]).toEqual([1, 1])
      proxy.refuseNew()
      const refused = yield* Effect.exit(Effect.sandbox(through(proxy)))
      expect(String(refused)).toContain("ECONNRESET")
      expect(order).toEqual([[{ n: 1 }]])
    }))

  it.scopedLive("passes what is no Postgres as it comes", () =>
    Effect.gen(function*() {
      const echo = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const server = net.createServer((socket) => socket.pipe(socket))
          server.listen(0, "127.0.0.1")
          await once(server, "listening")
          return server
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = echo.address() as net.AddressInfo
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => tcpProxy("127.0.0.1", port, "raw")),
        (proxy) => Effect.promise(() => proxy.close())
      )
      const socket = net.connect(proxy.port, "127.0.0.1")
      socket.write("PING\r\n")
      const [answer] = yield* Effect.promise(() => once(socket, "data"))
      expect(String(answer)).toBe("PING\r\n")
      proxy.freeze()
      const lost = proxy.swallowed()
      socket.write("PING\r\n")
      yield* Effect.promise(() => lost)
      socket.destroy()
    }))
})

describe("Postgres: faults", () => {
  for (const { facts, row, run } of scenarios) {
    it.scopedLive(row, () =>
      Effect.gen(function*() {
        const outcome = yield* run({
          server: server.get(),
          side: ours,
          rounds: 5,
          cancelTimeout: "1 hour",
          blackHoleTimeout: "100 millis"
        })
        expect(outcome.facts).toEqual(facts)
      }))
  }
})
