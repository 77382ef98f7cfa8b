/**
 * One embedded server per test file, and the clients of pgClient.ts.
 */
import { Effect, Exit, Scope } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import { afterAll, beforeAll } from "vitest"
import { query } from "./pgClient.ts"

export * from "./pgClient.ts"

export interface TestServer {
  /** The server; only inside tests and hooks, after it has started. */
  readonly get: () => Embedded.Server
}

/** Also under mutation (mutants.byTests.slow.test.ts), where other hooks have less. */
const startTimeout = 60_000

/** A running server, of which each test file gets a database of its own: the mutants start one for all their copies. */
const givenServer = process.env["HOLDFAST_TEST_SERVER"]

const databaseOf = (text: string): TestServer => {
  const server = JSON.parse(text) as Embedded.Server
  const database = `test_${process.pid}_${Math.random().toString(36).slice(2)}`
  beforeAll(() => query(server, `create database ${database}`), startTimeout)
  return { get: () => ({ ...server, database } as unknown as Embedded.Server) }
}

/**
 * Starts a server before all tests of this file (or `describe`) and stops it after them.
 */
export const embeddedServer = (options: Embedded.Options = {}): TestServer => {
  if (givenServer !== undefined) return databaseOf(givenServer)
  const scope = Effect.runSync(Scope.make())
  let server: Embedded.Server | undefined
  beforeAll(async () => {
    server = await Effect.runPromise(Scope.extend(Embedded.make(options), scope))
  }, startTimeout)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)), startTimeout)
  return {
    get: () => {
      if (server === undefined) {
        throw new Error("the server is not started yet: call get() in a test")
      }
      return server
    }
  }
}
