/**
 * Plain `pg` clients that owe nothing to the code under test; for tests and benches.
 */
import type * as Embedded from "holdfast/Postgres/Embedded"
import { Client } from "pg"

export const urlOf = (server: Embedded.Server, database = "postgres"): string =>
  `postgres://postgres@localhost:${server.port}/${database}?host=${encodeURIComponent(server.host)}`

interface At {
  readonly host: string
  readonly port: number
  readonly database?: string
}

/** Runs `f` with a connected client, which is closed afterwards. */
export const withClient = async <A>(
  server: At,
  f: (client: Client) => Promise<A>,
  database = server.database ?? "postgres"
): Promise<A> => {
  const client = new Client({ host: server.host, port: server.port, user: "postgres", database })
  client.on("error", () => {})
  await client.connect()
  try {
    return await f(client)
  } finally {
    await client.end()
  }
}

/** One statement on a connection of its own. */
export const query = (
  server: At,
  sql: string,
  values: Array<unknown> = [],
  database?: string
): Promise<Array<Record<string, any>>> =>
  withClient(server, async (client) => (await client.query(sql, values)).rows, database)
