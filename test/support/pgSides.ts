/**
 * The two clients that are compared: ours and sql-pg's own, each as the `PgClient` or `SqlClient` that a program would get.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import type * as SqlClient from "@effect/sql/SqlClient"
import { type Duration, Effect, type Scope, Stream } from "effect"
import * as Postgres from "holdfast/Postgres"

/** What the scenarios set. The timeouts are ours alone, except `connectTimeout`. */
export interface SideOptions {
  readonly host: string
  readonly port: number
  readonly applicationName: string
  readonly max: number
  readonly connectTimeout?: Duration.DurationInput | undefined
  readonly cancelTimeout?: Duration.DurationInput | undefined
  readonly drain?: Duration.DurationInput | undefined
}

export interface Opened {
  readonly sql: SqlClient.SqlClient
  /** The payloads of a channel; `undefined` where some may be missing. */
  readonly listen: (channel: string) => Stream.Stream<string | undefined, unknown>
  readonly notify: (channel: string, payload: string) => Effect.Effect<void, unknown>
}

export interface Side {
  readonly name: "holdfast" | "sql-pg"
  readonly open: (options: SideOptions) => Effect.Effect<Opened, unknown, Scope.Scope>
}

const address = { user: "postgres", database: "postgres" }

export const ours: Side = {
  name: "holdfast",
  open: (options) =>
    Effect.map(Postgres.make({ ...options, ...address }), ({ listen, notify, sql }) => ({
      sql,
      notify,
      listen: (channel) =>
        Stream.map(
          Stream.unwrapScoped(listen(channel)),
          (item) => item._tag === "Gap" ? undefined : item.payload
        )
    }))
}

export const raw: Side = {
  name: "sql-pg",
  open: ({ applicationName, connectTimeout, host, max, port }) =>
    PgClient.make({
      host,
      port,
      applicationName,
      connectTimeout,
      maxConnections: max,
      username: address.user,
      database: address.database
    }).pipe(
      Effect.map((sql) => ({ sql, listen: sql.listen, notify: sql.notify })),
      Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make)
    )
}
