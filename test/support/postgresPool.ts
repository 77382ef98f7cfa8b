/** Pools on the server of a test file, and what the server says about them. */
import { Effect, Option } from "effect"
import * as Postgres from "holdfast/Postgres"
import { query, type TestServer } from "./postgres.ts"

export const failureOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<E, never, R> =>
  Effect.orDieWith(Effect.flip(effect), () => new Error("should have failed"))

/** The tag of an error of the pool or of a transaction. */
export const reasonOf = (error: unknown): string | undefined =>
  Option.getOrUndefined(Option.map(Postgres.causeOf(error), (cause) => cause._tag))

export const until = <E, R>(
  what: string,
  check: Effect.Effect<boolean, E, R>
): Effect.Effect<void, E, R> =>
  Effect.gen(function*() {
    const end = performance.now() + 15_000
    while (!(yield* check)) {
      if (performance.now() > end) return yield* Effect.dieMessage(`never happened: ${what}`)
      yield* Effect.sleep(5)
    }
  })

let names = 0

export const poolsOf = (server: TestServer, prefix: string) => {
  /** One statement on a connection that owes nothing to the code under test. */
  const ask = (sql: string, ...values: Array<unknown>) =>
    Effect.promise(() => query(server.get(), sql, values))
  return {
    ask,
    /** A pool with a name of its own, by which the server tells its sessions. */
    pool: (options: Postgres.Options = {}) => {
      const { database, host, port, user } = server.get()
      // A server may serve several processes of tests.
      const applicationName = `${prefix}-${process.pid}-${++names}`
      return Effect.map(
        Postgres.make({ host, port, user, database, applicationName, ...options }),
        (service) => ({ ...service, applicationName })
      )
    },
    /** The states of the sessions of a pool: "active", "idle", "idle in transaction", … */
    statesOf: (applicationName: string) =>
      Effect.map(
        ask(
          "select state from pg_stat_activity where application_name = $1 order by 1",
          applicationName
        ),
        (rows) => rows.map((row) => String(row["state"]))
      ),
    /** Waits until a session of a pool runs COMMIT. */
    untilCommits: (applicationName: string) =>
      until(
        "COMMIT runs",
        Effect.map(
          ask(
            "select 1 from pg_stat_activity where application_name = $1 and query = 'COMMIT' and state = 'active'",
            applicationName
          ),
          (rows) => rows.length === 1
        )
      ),
    table: (columns: string) => {
      const name = `t_${++names}`
      return Effect.as(ask(`create table ${name} (${columns})`), name)
    }
  }
}
