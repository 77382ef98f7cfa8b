/**
 * `npm run bench -- postgres-faults`: every scenario of test/support/pgScenarios.ts on ours and on sql-pg, in turns in one run on one
 * server; `npm run bench -- postgres-faults LISTEN` those whose row has that word. `npm run bench -- postgres-interruptions`:
 * 20,000 random interruptions of ours. Neither writes a file.
 */
import { Cause, Effect, Exit, Option } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import { loadavg } from "node:os"
import { setTimeout } from "node:timers/promises"
import { isDeepStrictEqual } from "node:util"
import { Client, Connection } from "pg"
import { interruptions, total } from "../test/support/pgInterruptions.ts"
import { type Outcome, type Scenario, scenarios } from "../test/support/pgScenarios.ts"
import { ours, raw, type Side } from "../test/support/pgSides.ts"

const serve = (program: (server: Embedded.Server) => Effect.Effect<boolean>): Promise<void> =>
  Effect.runPromise(Effect.scoped(Effect.flatMap(
    Embedded.make({ settings: { max_connections: "100" } }),
    program
  ))).then((isMet) => process.exit(isMet ? 0 : 1))

const percentile95 = (millis: ReadonlyArray<number>): number =>
  millis.toSorted((a, b) => a - b)[Math.ceil(millis.length * 0.95) - 1] ?? 0

const words = ({ facts, millis = [] }: Outcome): string =>
  [
    ...millis.length === 0 ? [] : [`p95 ${percentile95(millis).toFixed(1)} ms of ${millis.length}`],
    ...Object.entries(facts).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  ].join(", ")

/** A scenario may hang on a client that has lost its connections. */
const runOn = (server: Embedded.Server, side: Side, scenario: Scenario): Effect.Effect<Outcome> => {
  const rig = {
    server,
    side,
    rounds: 40,
    cancelTimeout: "1 second",
    blackHoleTimeout: "1 second"
  } as const
  return Effect.scoped(scenario.run(rig)).pipe(
    Effect.exit,
    Effect.disconnect,
    Effect.timeoutOption("90 seconds"),
    Effect.map(Option.match({
      onNone: () => ({ facts: { scenario: "did not end in 90 s" } }),
      onSome: Exit.match({
        onFailure: (cause) => ({ facts: { scenario: Cause.pretty(cause).split("\n")[0] } }),
        onSuccess: (outcome) => outcome
      })
    }))
  )
}

/** What a cancel costs here at the least: bare pg, a CancelRequest on a socket of its own, until the statement has failed. */
const floor = async (server: Embedded.Server): Promise<string> => {
  const { host, port, user } = server
  const client = new Client({ host, port, user })
  await client.connect()
  const millis: Array<number> = []
  for (let round = 0; round < 40; round++) {
    const ended = client.query("select pg_sleep(30)").catch(() => {})
    await setTimeout(20)
    const began = performance.now()
    const { processID, secretKey } = client as unknown as Readonly<Record<string, number>>
    const wire = new Connection({})
    wire.on("connect", () => (wire as unknown as Canceller).cancel(processID!, secretKey!))
    wire.on("error", () => {})
    ;(wire as unknown as Canceller).connect(`${host}/.s.PGSQL.${port}`)
    await ended
    millis.push(performance.now() - began)
  }
  await client.end()
  return `bare pg, one statement cancelled: p95 ${percentile95(millis).toFixed(1)} ms of 40`
}

/** Of pg's connection, for which it has no typings. */
interface Canceller {
  readonly connect: (path: string) => void
  readonly cancel: (processId: number, secretKey: number) => void
}

const text = process.argv[process.argv.indexOf("postgres-faults") + 1] ?? ""
const wanted = scenarios.filter(({ row }) => row.includes(text))

const faultsOn = (server: Embedded.Server): Effect.Effect<boolean> =>
  Effect.reduce(wanted, true, (isMet, scenario) =>
    Effect.gen(function*() {
      const mine = yield* runOn(server, ours, scenario)
      const theirs = yield* runOn(server, raw, scenario)
      const { facts, row, within = Infinity } = scenario
      const isKept = isDeepStrictEqual(mine.facts, facts)
        && percentile95(mine.millis ?? []) <= within
      const bound = within === Infinity ? "" : ` (p95 within ${within} ms)`
      console.log(`\n${isKept ? "kept  " : "BROKEN"} ${row}${bound}`)
      console.log(`         holdfast  ${words(mine)}`)
      console.log(`         sql-pg    ${words(theirs)}`)
      return isMet && isKept
    }))

export const faults = (): Promise<void> =>
  serve((server) =>
    Effect.flatMap(Effect.promise(() => floor(server)), (line) => {
      console.log(`${line}; load average ${loadavg()[0]!.toFixed(1)}`)
      return faultsOn(server)
    })
  )

const cells = [1, 2, 8].flatMap((size) => [1, 8, 64].map((fibers) => ({ size, fibers })))

export const manyInterruptions = (): Promise<void> =>
  serve((server) =>
    Effect.reduce(cells, true, (isMet, { fibers, size }) =>
      Effect.gen(function*() {
        const count = Math.ceil(20_000 / cells.length)
        const began = performance.now()
        const result = yield* Effect.scoped(interruptions({
          server,
          side: ours,
          interruptions: count,
          size,
          fibers,
          seed: Number(process.env["SEED"] ?? 1)
        }))
        const isKept = isDeepStrictEqual(
          { ...result, mostSessions: Math.max(size, result.mostSessions) },
          {
            idleInTransaction: 0,
            mostSessions: size,
            sum: total,
            innocents: [],
            next: size,
            advisoryLocks: 0
          }
        )
        const seconds = ((performance.now() - began) / 1000).toFixed(1)
        console.log(
          `${
            isKept ? "kept  " : "BROKEN"
          } ${count} interruptions, pool of ${size}, ${fibers} fibers, ${seconds} s: ${
            JSON.stringify(result)
          }`
        )
        return isMet && isKept
      })).pipe(Effect.orDie)
  )
