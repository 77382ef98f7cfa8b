/**
 * Ours on real files, sockets and servers, explored beside the event loop: each leaves nothing open, however it is cut. Those on
 * Postgres share one embedded server, and each run makes a pool or a lock service of its own on it.
 */
import { HttpClient, HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Deferred, Effect, Layer, Stream } from "effect"
import { Batch, Lock, Managed } from "holdfast"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import * as Files from "holdfast/Files"
import * as Http from "holdfast/Http"
import * as Server from "holdfast/Http/Server"
import * as LockFile from "holdfast/Lock/File"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as Postgres from "holdfast/Postgres"
import type * as Embedded from "holdfast/Postgres/Embedded"
import * as Tcp from "holdfast/Tcp"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import * as Origin from "../support/httpOrigin.ts"
import { alone, type Own } from "./own.ts"

/** A folder of its own, removed with its owner. */
const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "hf-real-"))),
  (dir) => Effect.sync(() => fs.rmSync(dir, { recursive: true, force: true }))
)

/** Nothing in the folder but these. */
const holdsOnly = (dir: string, ...names: ReadonlyArray<string>) => {
  const others = fs.readdirSync(dir).filter((name) => !names.includes(name))
  return others.length === 0 ? true : `left behind: ${others.join(", ")}`
}

const origin = Origin.make({ "/file": Origin.body(Buffer.from("content")) })
const text = (origin: Origin.Origin) =>
  Effect.flatMap(HttpClient.get(origin.url("/file")), (response) => response.text)

/** One request on a connection of its own; `signal` ends it. */
const ask = (port: number, signal: AbortSignal) =>
  new Promise<number | undefined>((resolve) => {
    const request = http.get({ port, host: "127.0.0.1", agent: false, signal }, (response) => {
      response.resume().on("close", () => resolve(response.statusCode))
    })
    request.on("error", () => request.once("close", () => resolve(undefined)))
  })

const onFilesAndSockets: ReadonlyArray<Own> = [
  alone({
    name: "Files.writeAtomic",
    setup: folder,
    body: (dir) =>
      Effect.provide(
        Files.writeAtomic(path.join(dir, "file"), "content", { durability: "none" }),
        NodeFileSystem.layer
      ),
    invariant: (dir) => holdsOnly(dir, "file")
  }),
  alone({
    name: "Http.session, and a request in it",
    setup: origin,
    body: (origin) => Effect.provide(text(origin), Http.session())
  }),
  alone({
    name: "a request in an Http.session that stays",
    setup: Effect.gen(function*() {
      return { origin: yield* origin, context: yield* Layer.build(Http.session()) }
    }),
    body: ({ context, origin }) => Effect.provide(text(origin), context)
  }),
  alone({
    name: "Http.download in a session",
    setup: Effect.all({ dir: folder, origin }),
    body: ({ dir, origin }) =>
      Http.download(origin.url("/file"), path.join(dir, "file")).pipe(
        // Not `Layer.merge`, which, interrupted at an unlucky yield, never ends.
        Effect.provide(Layer.provideMerge(Http.session(), NodeFileSystem.layer))
      ),
    invariant: ({ dir }) => holdsOnly(dir, "file")
  }),
  alone({
    name: "Http/Server, and a request to it",
    body: () =>
      Effect.gen(function*() {
        const server = http.createServer()
        const listening = Server.layer(() => server, { port: 0, host: "127.0.0.1" })
        yield* Layer.build(
          Layer.provide(HttpServer.serve(HttpServerResponse.text("content")), listening)
        )
        const { port } = server.address() as AddressInfo
        yield* Effect.promise((signal) => ask(port, signal))
      })
  }),
  alone({
    name: "Lock/File.withLock",
    setup: Effect.flatMap(folder, (directory) => LockFile.make({ directory, namespace: "real" })),
    body: (service: Lock.Service) =>
      Lock.withLock(Effect.yieldNow(), "key").pipe(Effect.provideService(Lock.Lock, service))
  }),
  alone({
    name: "Lock/File.withLock, waiting for another service",
    setup: Effect.flatMap(folder, (directory) => {
      const service = LockFile.make({ directory, namespace: "real" })
      return Effect.all({ holder: service, waiter: service })
    }),
    body: (services: { readonly holder: Lock.Service; readonly waiter: Lock.Service }) =>
      Effect.gen(function*() {
        const holds = yield* Deferred.make<void>()
        const hold = Effect.zipRight(Deferred.succeed(holds, undefined), Effect.sleep(5))
        yield* Effect.forkScoped(
          Effect.provideService(Lock.withLock(hold, "key"), Lock.Lock, services.holder)
        )
        yield* Deferred.await(holds)
        yield* Effect.provideService(
          Lock.withLock(Effect.void, "key"),
          Lock.Lock,
          services.waiter
        )
      })
  }),
  alone({
    name: "Tcp.connect, an echo",
    setup: Tcp.serve(
      { port: 0, host: "127.0.0.1" },
      (connection) =>
        Stream.runForEach(Tcp.stream(connection), (bytes) => Tcp.write(connection, bytes))
    ),
    body: ({ address }: Tcp.Server) =>
      Managed.use(
        Tcp.connect({ host: "127.0.0.1", port: (address as AddressInfo).port }),
        (connection) =>
          Effect.zipRight(Tcp.write(connection, "ping"), Tcp.readExactly(connection, 4))
      )
  })
]

const idle = (service: Postgres.Service) => {
  const { active, waiting } = Effect.runSync(service.stats)
  return active + waiting === 0 ? true : `${active} sessions in use, ${waiting} waiting`
}

// Names a run of a batch. It keeps nothing that a later run sees.
let batches = 0

const onPostgres = (server: Embedded.Server): ReadonlyArray<Own> => {
  const { database, host, port, user } = server
  const address = { database, host, port, user }
  const pool = Postgres.make({ ...address, max: 2, applicationName: "explored" })
  return [
    alone({
      name: "Postgres.make, and a statement in it",
      body: () => Effect.flatMap(pool, ({ sql }) => sql`select 1`)
    }),
    alone({
      name: "Postgres: a statement",
      setup: pool,
      body: ({ sql }) => sql`select 1`,
      invariant: idle
    }),
    alone({
      name: "Postgres: a transaction is whole or absent",
      setup: Effect.tap(pool, ({ sql }) =>
        Effect.zipRight(
          sql`create table if not exists explored_pairs (n int)`,
          sql`delete from explored_pairs`
        )),
      body: ({ sql }) =>
        Effect.zipRight(
          sql.withTransaction(
            Effect.zipRight(
              sql`insert into explored_pairs values (1)`,
              sql`insert into explored_pairs values (2)`
            )
          ),
          Effect.filterOrDieMessage(
            sql<{ odd: boolean }>`select count(*) % 2 = 1 odd from explored_pairs`,
            ([row]) => row?.odd === false,
            "half a transaction"
          )
        ),
      invariant: idle
    }),
    alone({
      name: "Postgres: a reserved session",
      setup: pool,
      body: ({ reserve }) =>
        Effect.scoped(
          Effect.flatMap(reserve, (session) =>
            session.execute("select pg_advisory_lock(1)", [], undefined))
        ),
      invariant: idle
    }),
    alone({
      name: "Postgres: statements and a nested transaction between two fetches, and hooks",
      setup: pool,
      body: ({ onCommit, onRollback, sql }) =>
        Effect.suspend(() => {
          const hooks = { added: 0, run: 0 }
          const count = Effect.sync(() => void hooks.run++)
          const add = Effect.sync(() => void hooks.added++)
          const both = Effect.all([onCommit(count), onRollback(count), add])
          const rows = sql`select n from generate_series(1, 130) n`.stream
          const each = sql.withTransaction(sql`select 1`)
          const read = Stream.runForEachChunk(rows, () => each)
          return Effect.ensuring(
            sql.withTransaction(Effect.zipRight(Effect.uninterruptible(both), read)),
            Effect.suspend(() =>
              hooks.run === hooks.added ? Effect.void : Effect.dieMessage("a hook is missing")
            )
          )
        }),
      invariant: idle
    }),
    alone({
      name: "Postgres: listen and notify",
      setup: pool,
      body: ({ listen, notify }) =>
        Effect.scoped(
          Effect.flatMap(listen("explored"), (stream) =>
            Effect.zipRight(notify("explored", ""), Stream.runHead(stream)))
        ),
      invariant: idle
    }),
    alone({
      name: "Postgres: COPY from a stream, whole or absent",
      setup: Effect.tap(pool, ({ sql }) => sql`create table if not exists explored_rows (n int)`),
      body: ({ copyFrom, sql }) =>
        Effect.zipRight(
          sql.withTransaction(copyFrom("copy explored_rows from stdin", Stream.make([1], [2]))),
          Effect.filterOrDieMessage(
            sql<{ odd: boolean }>`select count(*) % 2 = 1 odd from explored_rows`,
            ([row]) => row?.odd === false,
            "half a copy"
          )
        ),
      invariant: idle
    }),
    alone({
      name: "Postgres: COPY into a stream that is not read to its end",
      setup: pool,
      body: ({ copyTo }) =>
        Stream.runHead(copyTo("copy (select generate_series(1, 1000)) to stdout")),
      invariant: idle
    }),
    alone({
      name: "Lock/Postgres.withLock",
      setup: LockPostgres.make({ ...address, namespace: "explored" }),
      body: (service: Lock.Service) =>
        Lock.withLock(Effect.yieldNow(), "key").pipe(Effect.provideService(Lock.Lock, service))
    }),
    alone({
      name: "Lock/Postgres, a lease: withLock",
      setup: LockPostgres.makeLease({ ...address, namespace: "explored" }),
      body: (service: Lock.Service) =>
        Lock.withLock(Effect.yieldNow(), "key").pipe(Effect.provideService(Lock.Lock, service))
    }),
    alone({
      name: "Batch with a checkpoint in Postgres: each effect once",
      setup: Effect.gen(function*() {
        const service = yield* pool
        const run = `explored-${++batches}`
        yield* service.sql`create table if not exists explored_effects (run text, item int)`
        const checkpoint = yield* Effect.provideService(
          BatchPostgres.checkpoint({ run }),
          SqlClient.SqlClient,
          service.sql
        )
        return { ...service, run, checkpoint }
      }),
      body: ({ checkpoint, run, sql }) =>
        Effect.zipRight(
          Batch.run(
            {
              name: "explored",
              key: String,
              process: () => Effect.void,
              commit: (item: number) =>
                Effect.asVoid(sql`insert into explored_effects values (${run}, ${item})`)
            },
            [1, 2],
            { concurrency: 1, checkpoint }
          ),
          Effect.filterOrDieMessage(
            sql<{ items: string }>`
              select string_agg(item::text, ' ' order by item) items from explored_effects where run = ${run}
            `,
            ([row]) => row?.items === "1 2",
            "not each effect once"
          )
        ),
      invariant: idle
    })
  ]
}

/** All of them; those on Postgres on this server. */
export const real = (server: Embedded.Server): ReadonlyArray<Own> => [
  ...onFilesAndSockets,
  ...onPostgres(server)
]
