import { describe, expect, it } from "@effect/vitest"
import { Chunk, Deferred, Effect, Exit, Fiber, Queue, Scope, Stream } from "effect"
import type * as Postgres from "holdfast/Postgres"
import { embeddedServer } from "../support/postgres.ts"
import { failureOf, poolsOf, reasonOf, until } from "../support/postgresPool.ts"
import { tcpProxy } from "../support/tcpProxy.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })
const { ask, pool, statesOf } = poolsOf(server, "listen")

/** What a subscription gets, in order: the payloads, and "gap". */
const collected = (service: Postgres.Service, channel: string) =>
  Effect.gen(function*() {
    const items = yield* Queue.unbounded<string>()
    const stream = yield* service.listen(channel)
    yield* Effect.forkScoped(Stream.runForEach(stream, (item) =>
      Queue.offer(items, item._tag === "Gap" ? "gap" : item.payload)))
    return items
  })

const kill = (applicationName: string) =>
  ask(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1 and query like 'LISTEN%'",
    applicationName
  )

const sessions = (applicationName: string, count: number) =>
  until(
    `${applicationName} has ${count} sessions`,
    Effect.map(statesOf(applicationName), (states) => states.length === count)
  )

describe("Postgres/listen", () => {
  it.scopedLive("PgListen-1: ready on acknowledgement; empty payloads, odd names and quotes arrive", () =>
    Effect.gen(function*() {
      const service = yield* pool()
      const odd = `My "channel" 1`
      const items = yield* collected(service, odd)
      yield* service.notify(odd, "")
      yield* service.notify(odd, "it's")
      expect(yield* Queue.takeN(items, 2)).toEqual(Chunk.make("", "it's"))
    }))

  it.scopedLive("PgListen-1: a notification of a transaction arrives when it commits, and only then", () =>
    Effect.gen(function*() {
      const service = yield* pool()
      const items = yield* collected(service, "tx")
      yield* Effect.exit(
        service.transaction(Effect.zipRight(service.notify("tx", "rolled back"), Effect.fail("no")))
      )
      yield* service.transaction(service.notify("tx", "committed"))
      expect(yield* Queue.take(items)).toBe("committed")
    }))

  it.scopedLive("PgListen-3: one connection for all; the end of one subscription changes nothing for the others", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      const scope = yield* Scope.make()
      yield* Effect.asVoid(Scope.extend(collected(service, "a"), scope))
      const first = yield* collected(service, "a")
      const second = yield* collected(service, "b")
      yield* sessions(service.applicationName, 2)
      yield* Scope.close(scope, Exit.void)
      yield* service.notify("a", "1")
      yield* service.notify("b", "2")
      expect(yield* Effect.all([Queue.take(first), Queue.take(second)])).toEqual(["1", "2"])
    }))

  it.scopedLive("PgListen-3: after the last subscription no connection is left, also when they were interrupted at any moment", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      for (let i = 0; i < 30; i++) {
        const fiber = yield* Effect.fork(
          Effect.scoped(Effect.zipRight(service.listen("c"), Effect.never))
        )
        for (let k = 0; k < i; k++) yield* Effect.yieldNow()
        if (i % 3 === 0) yield* Effect.sleep(i / 6)
        yield* Fiber.interrupt(fiber)
      }
      yield* sessions(service.applicationName, 1)
      const items = yield* collected(service, "c")
      yield* service.notify("c", "still works")
      expect(yield* Queue.take(items)).toBe("still works")
    }))

  it.scopedLive("PgListen-2: a killed connection is made anew, listens again, and then tells of the gap", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      const items = yield* Effect.all([
        collected(service, "d"),
        collected(service, "d"),
        collected(service, "e")
      ])
      yield* kill(service.applicationName)
      for (const some of items) expect(yield* Queue.take(some)).toBe("gap")
      yield* service.notify("d", "after")
      expect(yield* Effect.all([Queue.take(items[0]), Queue.take(items[1])])).toEqual([
        "after",
        "after"
      ])
    }))

  it.scopedLive("PgListen-2: a reader that is too slow loses notifications, and is told", () =>
    Effect.gen(function*() {
      const service = yield* pool({ max: 1 })
      const stream = yield* service.listen("f")
      yield* service.sql`select pg_notify('f', n::text) from generate_series(1, 5000) n`
      const marker = yield* collected(service, "g")
      yield* service.notify("g", "sent after all of them")
      yield* Queue.take(marker)
      const first = yield* Stream.runCollect(Stream.take(stream, 904))
      expect(Chunk.unsafeHead(first)).toMatchObject({ _tag: "Gap", channel: "f" })
      expect(Chunk.unsafeLast(first)).toMatchObject({ _tag: "Notification", payload: "5000" })
    }))

  it.scopedLive("PgListen-1: a server that is out of reach fails a new subscription, and keeps one that was ready", () =>
    Effect.gen(function*() {
      const proxy = yield* Effect.acquireRelease(
        Effect.promise(() => tcpProxy(server.get().host, server.get().port)),
        (one) => Effect.promise(() => one.close())
      )
      const service = yield* pool({
        host: "127.0.0.1",
        port: proxy.port,
        connectTimeout: "300 millis",
        cancelTimeout: "200 millis"
      })
      const items = yield* collected(service, "h")
      proxy.freeze()
      proxy.cut()
      const error = yield* failureOf(Effect.scoped(service.listen("i")))
      expect(error.message).toContain("Failed to connect")
      expect(yield* Queue.size(items)).toBe(0)
    }))

  it.live("PgListen-3: the close of the pool fails subscriptions and leaves no connection", () =>
    Effect.gen(function*() {
      const closed = yield* Deferred.make<string | undefined>()
      const name = yield* Effect.scoped(Effect.gen(function*() {
        const service = yield* pool({ max: 1 })
        const listening = Effect.scoped(Effect.flatMap(service.listen("j"), Stream.runDrain))
        yield* Effect.forkDaemon(
          Effect.flatMap(failureOf(listening), (error) => Deferred.succeed(closed, reasonOf(error)))
        )
        yield* sessions(service.applicationName, 2)
        return service.applicationName
      }))
      expect(yield* Deferred.await(closed)).toBe("PostgresClosed")
      expect(yield* statesOf(name)).toEqual([])
    }))
})
