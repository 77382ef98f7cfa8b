// A service over HTTP for test/Http/Server.test.ts: `server.mjs ours|stock PORT JOURNAL`. "stock" is the same service on
// `NodeRuntime.runMain` and `NodeHttpServer.layer`. The journal has one line for each request whose headers the server has read.
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Context, Effect, Layer, Schema } from "effect"
import { Managed } from "holdfast"
import * as Server from "holdfast/Http/Server"
import * as Main from "holdfast/Main"
import * as fs from "node:fs"
import { createServer } from "node:http"

const [, , mode, port, journal] = process.argv

// The test that started this process may be gone by then.
setTimeout(() => process.kill(process.pid, "SIGKILL"), 60_000).unref()

class Database extends Context.Tag("Database")() {}
// Slow to open, as a real one is: a server that listens meanwhile has no handler.
const database = Managed.make({
  name: "database",
  acquire: Effect.delay(Effect.sync(() => ({ open: true })), "300 millis"),
  release: (self) => Effect.delay(Effect.sync(() => { self.open = false }), "20 millis")
})

const Api = HttpApi.make("service").add(
  HttpApiGroup.make("all")
    .add(HttpApiEndpoint.get("work", "/work").setUrlParams(Schema.Struct({ id: Schema.NumberFromString })).addSuccess(Schema.Number))
    .add(HttpApiEndpoint.get("big", "/big").addSuccess(Schema.String))
)
const Handlers = HttpApiBuilder.group(Api, "all", (handlers) =>
  Effect.map(Database, (database) => {
    const used = Effect.suspend(() => database.open ? Effect.void : Effect.dieMessage("used after its release"))
    return handlers
      .handle("work", ({ urlParams: { id } }) => used.pipe(Effect.delay(id % 20), Effect.zipRight(used), Effect.as(id)))
      .handle("big", () => Effect.as(used, "x".repeat(8_000_000)))
  }))

const listening = () =>
  createServer().on("request", ({ url }) => {
    if (url.startsWith("/work")) fs.appendFileSync(journal, `${url}\n`)
  })
const server = mode === "ours" ? Server.layer(listening, { port }) : NodeHttpServer.layer(listening, { port })
const service = HttpApiBuilder.serve().pipe(
  Layer.provide(Layer.provide(HttpApiBuilder.api(Api), Handlers)),
  Layer.provide(Managed.layer(Database, database)),
  Layer.provide(server)
)

if (mode === "ours") Main.run(Layer.launch(service), { shutdown: { drainDelay: "300 millis" } })
else NodeRuntime.runMain(Layer.launch(service))
