/**
 * The two clients that are compared: ours and sql-pg's own, each as the `PgClient` or `SqlClient` that a program would get.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import { PgClient } from "@effect/sql-pg"
import type * as SqlClient from "@effect/sql/SqlClient"
import { type Duration, Effect, type Scope } from "effect"
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

export interface Side {
  readonly name: "holdfast" | "sql-pg"
  readonly open: (
    options: SideOptions
  ) => Effect.Effect<SqlClient.SqlClient, unknown, Scope.Scope>
}

const address = { user: "postgres", database: "postgres" }

export const ours: Side = {
  name: "holdfast",
  open: (options) => Effect.map(Postgres.make({ ...options, ...address }), ({ sql }) => sql)
}

export const raw: Side = {
  name: "sql-pg",
  open: ({ applicationName, connectTimeout, host, max, port }) =>
    Effect.provideServiceEffect(
      PgClient.make({
        host,
        port,
        applicationName,
        connectTimeout,
        maxConnections: max,
        username: address.user,
        database: address.database
      }),
      Reactivity.Reactivity,
      Reactivity.make
    )
}
