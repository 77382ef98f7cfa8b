// A whole service, for test/Main.service.slow.test.ts: orders come by HTTP, each is priced by another service and written under a
// lock; a batch bills them. `service.mjs ours|stock PORT SOCKET_DIRECTORY DATABASE UPSTREAM JOURNAL`. "stock" is the same on
// `NodeRuntime.runMain` and `NodeHttpServer.layer`. The journal has a line for each request whose headers the server has read.
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup, HttpClient } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { Cause, Effect, Layer, Schema } from "effect"
import { Batch, Shutdown } from "holdfast"
import * as BatchPostgres from "holdfast/Batch/Postgres"
import * as Http from "holdfast/Http"
import * as Server from "holdfast/Http/Server"
import * as Lock from "holdfast/Lock"
import * as LockPostgres from "holdfast/Lock/Postgres"
import * as Main from "holdfast/Main"
import * as Postgres from "holdfast/Postgres"
import * as fs from "node:fs"
import { createServer } from "node:http"

const [, , mode, port, host, database, upstream, journal] = process.argv

// The test that started this process may be gone by then.
setTimeout(() => process.kill(process.pid, "SIGKILL"), 180_000).unref()

const address = { host, port: 5432, user: "postgres", database }

const Order = Schema.Struct({ id: Schema.NumberFromString })
const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.get("order", "/order").setUrlParams(Order).addSuccess(Schema.Number)
  )
)
const Orders = HttpApiBuilder.group(Api, "orders", (handlers) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const lock = yield* Lock.Lock
    const client = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
    const priceOf = (id) => Effect.scoped(Effect.flatMap(client.get(`${upstream}/price?id=${id}`), (response) => response.json))
    const order = (id) =>
      Effect.gen(function*() {
        const price = yield* priceOf(id)
        // One order of a customer at a time, among all processes.
        yield* lock.withLock(`customer ${id % 7}`)(sql.withTransaction(Effect.zipRight(
          sql`insert into orders (id, price) values (${id}, ${price})`,
          sql`update customers set orders = orders + 1 where id = ${id % 7}`
        )))
        return price
      })
    const report = (id) => (cause) =>
      Effect.sync(() => fs.writeSync(2, `order ${id} failed: ${Cause.pretty(cause, { renderErrorCause: true })}\n`))
    return handlers.handle("order", ({ urlParams: { id } }) =>
      Effect.orDie(Effect.tapErrorCause(order(id), report(id))))
  }))

/** Bills orders until the end is asked for, in one process at a time. */
const Billing = Layer.scopedDiscard(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const lock = yield* Lock.Lock
  const checkpoint = yield* BatchPostgres.checkpoint({ run: "billing" })
  const unbilled = sql`select id, price from orders where not exists (select 1 from bills where bills.id = orders.id) limit 50`
  const job = {
    name: "billing",
    key: ({ id }) => String(id),
    process: ({ price }) => Effect.delay(Effect.succeed(price * 2), "5 millis"),
    commit: ({ id }, amount) => sql`insert into bills (id, amount) values (${id}, ${amount})`
  }
  const billed = Effect.flatMap(unbilled, (orders) =>
    Batch.run(job, orders, { checkpoint, concurrency: 4, drain: { when: Shutdown.requested } }))
  const rounds = Shutdown.inFlight(billed).pipe(
    Effect.delay("5 millis"),
    Effect.repeat({ until: ({ status }) => status === "drained" })
  )
  yield* lock.withLock("billing")(rounds).pipe(
    Effect.tapErrorCause(Effect.logError),
    Effect.forkScoped
  )
}))

const checks = { database: Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select 1`) }
const listening = () =>
  createServer().on("request", ({ url }) => {
    if (url.startsWith("/order")) fs.appendFileSync(journal, `${url}\n`)
  })
const server = mode === "ours"
  ? Server.layer(listening, { port }, { ready: checks })
  : NodeHttpServer.layer(listening, { port })

const service = HttpApiBuilder.serve().pipe(
  Layer.provide(Layer.provide(HttpApiBuilder.api(Api), Orders)),
  Layer.provide(server),
  Layer.merge(Billing),
  Layer.provide(Http.session()),
  Layer.provide(LockPostgres.layer({ namespace: "shop", ...address })),
  Layer.provide(Postgres.layer({ applicationName: `shop:${process.pid}`, ...address }))
)

if (mode === "ours") Main.run(Layer.launch(service), { shutdown: { drainDelay: "50 millis" } })
else NodeRuntime.runMain(Layer.launch(service))
process.stdout.write("up\n")
