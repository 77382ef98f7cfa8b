/** Random interruptions: what is left of the sessions and of the money. */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Data, Effect, Exit, Fiber, Option, Schedule } from "effect"
import * as Postgres from "holdfast/Postgres"
import { interruptions, total } from "../support/pgInterruptions.ts"
import { randomFrom } from "../support/pgScenarios.ts"
import { ours } from "../support/pgSides.ts"
import { embeddedServer, query } from "../support/postgres.ts"

const server = embeddedServer({ settings: { max_connections: "60" } })

// 1,000 in all; `npm run bench -- postgres-interruptions` does 20,000.
const rounds = [[1, 1, 100], [1, 8, 150], [2, 16, 250], [8, 1, 100], [8, 64, 400]] as const

describe("Postgres: interrupted at random", () => {
  for (const [size, fibers, count] of rounds) {
    it.scopedLive(`Postgres-3: ${count} interruptions, pool of ${size}, ${fibers} fibers`, () =>
      Effect.gen(function*() {
        const { mostSessions, ...result } = yield* interruptions({
          server: server.get(),
          side: ours,
          interruptions: count,
          size,
          fibers,
          seed: 20_261_121
        })
        expect(result).toEqual({
          idleInTransaction: 0,
          sum: total,
          innocents: [],
          next: size,
          advisoryLocks: 0
        })
        expect(mostSessions).toBeLessThanOrEqual(size)
      }))
  }
})

class InsufficientFunds extends Data.TaggedError("InsufficientFunds")<{ readonly from: number }> {}

const accounts = 10
const fibers = 64
const transfers = 4
/** Conflicts that last, a killed backend (57P01), and what the client says of a lost connection. */
const expected = /^(InsufficientFunds|40001|40P01|57P01|ConnectionLost|TransactionOutcomeUnknown)$/

const kindOf = (error: unknown): string =>
  error instanceof InsufficientFunds
    ? error._tag
    : Option.getOrElse(
      Option.orElse(
        Option.map(Postgres.causeOf(error), ({ _tag }): string => _tag),
        () => Postgres.sqlState(error)
      ),
      () => String(error)
    )

describe("transfer_funds", () => {
  it.scopedLive("Postgres-5: 64 fibers, serializable with retry, interrupts and killed backends: the total stays, every failure is typed", () =>
    Effect.gen(function*() {
      const { host, port } = server.get()
      const ask = (sql: string) => Effect.promise(() => query(server.get(), sql))
      yield* ask(
        "create table account (id int primary key, balance int not null check (balance >= 0))"
      )
      yield* ask("create table journal (source int, target int, amount int)")
      yield* ask(`insert into account select i, 100 from generate_series(1, ${accounts}) i`)
      const pool = yield* Postgres.make({
        host,
        port,
        user: "postgres",
        database: "postgres",
        max: 8
      })
      const { onCommit, sql, transaction } = pool
      const random = randomFrom(64)
      let commits = 0
      const move = (source: number, target: number, amount: number) =>
        transaction(
          Effect.gen(function*() {
            const [row] = yield* sql<{ balance: number }>`
              select balance from account where id = ${source}`
            if (row!.balance < amount) return yield* new InsufficientFunds({ from: source })
            yield* sql`update account set balance = balance - ${amount} where id = ${source}`
            yield* sql`update account set balance = balance + ${amount} where id = ${target}`
            yield* sql`insert into journal values (${source}, ${target}, ${amount})`
            yield* onCommit(Effect.sync(() => commits++))
          }),
          { isolation: "serializable", retry: Schedule.recurs(4) }
        )
      const kinds = new Map<string, number>()
      const worker = Effect.gen(function*() {
        for (let i = 0; i < transfers; i++) {
          const source = 1 + random(accounts)
          const target = 1 + (source + random(accounts - 1)) % accounts
          const fiber = yield* Effect.fork(move(source, target, 1 + random(60)))
          const isInterrupted = random(3) === 0
          if (isInterrupted) yield* Effect.sleep(random(60))
          const exit = yield* isInterrupted ? Fiber.interrupt(fiber) : Fiber.await(fiber)
          const kind = Exit.match(exit, {
            onSuccess: () => "committed",
            onFailure: (cause) =>
              Cause.isInterruptedOnly(cause)
                ? "interrupted"
                : Option.match(Cause.failureOption(cause), {
                  onNone: () => Cause.pretty(cause),
                  onSome: kindOf
                })
          })
          kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
        }
      })
      const kill = ask(`select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'holdfast' order by random() limit 1`)
      const killer = yield* Effect.fork(Effect.forever(Effect.delay(kill, 40)))
      yield* Effect.forEach(Array.from({ length: fibers }), () => worker, {
        concurrency: "unbounded",
        discard: true
      })
      yield* Fiber.interrupt(killer)

      const unexpected = [...kinds.keys()].filter((kind) =>
        kind !== "committed" && kind !== "interrupted" && !expected.test(kind)
      )
      expect(unexpected).toEqual([])
      const [after] = yield* ask(
        `select sum(balance)::int as total, (select count(*)::int from journal) as moves,
          (select sum(100 - coalesce((select sum(amount) from journal where source = id), 0)
            + coalesce((select sum(amount) from journal where target = id), 0))::int from account) as booked
        from account`
      )
      expect(after).toMatchObject({ total: accounts * 100, booked: accounts * 100 })
      // The hooks run for what was committed; a commit whose answer was lost may be committed too.
      const unknown = kinds.get("TransactionOutcomeUnknown") ?? 0
      expect(after!["moves"]).toBeGreaterThanOrEqual(commits)
      expect(after!["moves"]).toBeLessThanOrEqual(
        commits + unknown + (kinds.get("interrupted") ?? 0)
      )
      expect(commits).toBeGreaterThan(0)
      expect(yield* pool.stats).toMatchObject({ active: 0, waiting: 0 })
    }))
})
