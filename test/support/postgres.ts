/**
 * One embedded server per test file, and plain `pg` clients that owe nothing to the code under test.
 */
import { Effect, Exit, Scope } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import { Client } from "pg"
import { afterAll, beforeAll } from "vitest"

export interface TestServer {
  /** The server; only inside tests and hooks, after it has started. */
  readonly get: () => Embedded.Server
}

/**
 * Starts a server before all tests of this file (or `describe`) and stops it after them.
 */
export const embeddedServer = (options: Embedded.Options = {}): TestServer => {
  const scope = Effect.runSync(Scope.make())
  let server: Embedded.Server | undefined
  beforeAll(async () => {
    server = await Effect.runPromise(Scope.extend(Embedded.make(options), scope))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return {
    get: () => {
      if (server === undefined) {
        throw new Error("the server is not started yet: call get() in a test")
      }
      return server
    }
  }
}

export const urlOf = (server: Embedded.Server, database = "postgres"): string =>
  `postgres://postgres@localhost:${server.port}/${database}?host=${encodeURIComponent(server.host)}`

/** Runs `f` with a connected client, which is closed afterwards. */
export const withClient = async <A>(
  server: Pick<Embedded.Server, "host" | "port">,
  f: (client: Client) => Promise<A>,
  database = "postgres"
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
  server: Pick<Embedded.Server, "host" | "port">,
  sql: string,
  values: Array<unknown> = [],
  database = "postgres"
): Promise<Array<Record<string, any>>> =>
  withClient(server, async (client) => (await client.query(sql, values)).rows, database)
