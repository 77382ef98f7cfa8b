import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpServer
} from "@effect/platform"
import { SqlClient } from "@effect/sql"
import { Effect, Layer, Schema } from "effect"
import * as Server from "holdfast/Http/Server"
import * as Main from "holdfast/Main"
import * as Postgres from "holdfast/Postgres"
import { createServer } from "node:http"

const Api = HttpApi.make("zoo").add(
  HttpApiGroup.make("cats").add(
    HttpApiEndpoint.get("names", "/cats").addSuccess(Schema.Array(Schema.String))
  )
)
const Cats = HttpApiBuilder.group(Api, "cats", (handlers) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const names = sql`select name from (values ('Tom'), ('Kit')) as cats (name)`
    return handlers.handle("names", () =>
      Effect.orDie(Effect.map(names, (rows) => rows.map(({ name }) => `${name}`))))
  }))

const database = Effect.flatMap(SqlClient.SqlClient, (sql) => sql`select 1`)
const Service = HttpApiBuilder.serve().pipe(
  HttpServer.withLogAddress,
  Layer.provide(Layer.provide(HttpApiBuilder.api(Api), Cats)),
  // In the place of NodeHttpServer.layer; answers /ready and /live, too.
  Layer.provide(
    Server.layer(() => createServer(), { port: Number(process.env.PORT ?? 3000) }, {
      ready: { database }
    })
  ),
  Layer.provide(Postgres.layerEmbedded())
)
// Longer than the load balancer takes to see that /ready answers 503.
Main.run(Layer.launch(Service), { shutdown: { drainDelay: "5 seconds" } })
