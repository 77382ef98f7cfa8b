/**
 * Transfers on one pool, interrupted at random, beside transfers that nothing interrupts. test/Postgres/interruptions.test.ts runs
 * 1,000 interruptions with a fixed seed; `npm run bench -- postgres-interruptions` 20,000.
 *
 * DESIGN. A victim runs one piece of work of a random kind and is interrupted after a random number of yields or milliseconds. An
 * innocent does the same work and is never interrupted, so a failure of it is the pool's. The number of sessions is read from the
 * server all the time. The seed fixes what is chosen; the server decides when its answers arrive.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import { Effect, Fiber, type Scope, Stream } from "effect"
import type * as Embedded from "holdfast/Postgres/Embedded"
import { query } from "./pgClient.ts"
import { randomFrom } from "./pgScenarios.ts"
import type { Side } from "./pgSides.ts"

export interface Options {
  readonly server: Embedded.Server
  readonly side: Side
  readonly interruptions: number
  readonly size: number
  readonly fibers: number
  readonly seed: number
}

export interface Result {
  /** What the server said about sessions that stay in a transaction after the last interruption. */
  readonly idleInTransaction: number
  /** The most sessions that the server had at once. */
  readonly mostSessions: number
  /** The balances of all accounts. */
  readonly sum: number
  /** The errors of the innocents. */
  readonly innocents: ReadonlyArray<string>
  /** As many transactions at once as the pool has sessions, after all. */
  readonly next: number
  readonly advisoryLocks: number
}

const accounts = 64
export const total = accounts * 100

type Work = (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>

/** Each kind takes a session in another way. A transfer takes its accounts in order: no deadlocks. */
const kinds = (name: string, random: (below: number) => number): ReadonlyArray<Work> => {
  const transfer = (sql: SqlClient.SqlClient) => {
    const one = random(accounts - 1)
    const other = one + 1 + random(accounts - one - 1)
    const amount = random(20) - 10
    const move = (id: number, n: number) =>
      sql`update ${sql(name)} set n = n + ${n} where id = ${id}`
    return { one: move(one, amount), other: move(other, -amount) }
  }
  return [
    (sql) => sql`select 1`,
    (sql) => sql`select pg_sleep(${random(4) / 1000})`,
    (sql) => {
      const { one, other } = transfer(sql)
      return sql.withTransaction(Effect.zipRight(one, other))
    },
    (sql) => {
      const { one, other } = transfer(sql)
      return sql.withTransaction(Effect.zipRight(one, sql.withTransaction(other)))
    },
    (sql) => Stream.runDrain(Stream.take(sql`select * from generate_series(1, 300)`.stream, 200)),
    (sql) =>
      Effect.scoped(Effect.flatMap(sql.reserve, (session) =>
        Effect.zipRight(
          session.execute("select pg_advisory_lock(hashtext('victims'))", [], undefined),
          session.execute("set search_path to nowhere", [], undefined)
        )))
  ]
}

export const interruptions = (
  { fibers, interruptions, seed, server, side, size }: Options
): Effect.Effect<Result, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const applicationName = `interruptions-${size}-${fibers}-${seed}`
    const name = `accounts_${size}_${fibers}_${seed}`
    const ask = (sql: string, ...values: Array<unknown>) =>
      Effect.promise(() => query(server, sql, values))
    const number = (sql: string, ...values: Array<unknown>) =>
      Effect.map(ask(sql, ...values), ([row]) => Number(row?.["n"]))
    yield* ask(`create table ${name} (id int primary key, n int not null)`)
    yield* ask(`insert into ${name} select i, 100 from generate_series(0, ${accounts - 1}) i`)
    const { host, port } = server
    const { sql } = yield* side.open({ host, port, applicationName, max: size })
    const random = randomFrom(seed)
    const works = kinds(name, random)
    const pick = (): Effect.Effect<unknown, unknown> => works[random(works.length)]!(sql)

    let left = interruptions
    const victim = Effect.gen(function*() {
      while (left-- > 0) {
        const fiber = yield* Effect.fork(pick())
        if (random(2) === 0) { for (let k = random(30); k > 0; k--) yield* Effect.yieldNow() }
        else yield* Effect.sleep(random(8))
        yield* Fiber.interrupt(fiber)
      }
    })
    const errors: Array<string> = []
    const innocent = Effect.forever(
      Effect.catchAll(
        Effect.suspend(pick),
        (error) => Effect.sync(() => errors.push(String(error)))
      )
    )
    let mostSessions = 0
    const sessions = "select count(*)::int as n from pg_stat_activity where application_name = $1"
    const watch = Effect.forever(Effect.zipRight(
      Effect.map(number(sessions, applicationName), (n) => {
        mostSessions = Math.max(mostSessions, n)
      }),
      Effect.sleep(20)
    ))
    const watcher = yield* Effect.fork(watch)
    const innocents = yield* Effect.forEach(
      Array.from({ length: Math.ceil(fibers / 8) }),
      () => Effect.fork(innocent)
    )
    yield* Effect.forEach(Array.from({ length: fibers }), () => victim, {
      concurrency: "unbounded",
      discard: true
    })
    yield* Fiber.interruptAll([...innocents, watcher])

    const after = yield* Effect.forEach(
      Array.from({ length: size }),
      () => sql.withTransaction(sql`select pg_sleep(0.001)`),
      { concurrency: "unbounded" }
    )
    return {
      idleInTransaction: yield* number(
        `${sessions} and state like 'idle in transaction%'`,
        applicationName
      ),
      mostSessions,
      sum: yield* number(`select sum(n)::int as n from ${name}`),
      innocents: [...new Set(errors)],
      next: after.length,
      advisoryLocks: yield* number(
        "select count(*)::int as n from pg_locks where locktype = 'advisory' and objid = hashtext('victims')::bigint::bit(32)::bigint"
      )
    }
  })
