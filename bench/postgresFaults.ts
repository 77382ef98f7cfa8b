/**
 * `npm run bench -- postgres-faults`: every scenario of test/support/pgScenarios.ts on ours and on sql-pg, in turns in one run on one
 * server. `npm run bench -- postgres-interruptions`: 20,000 random interruptions of ours. Neither writes a file.
 */
import { Cause, Effect, Exit, Option } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import { isDeepStrictEqual } from "node:util"
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

export const faults = (): Promise<void> =>
  serve((server) =>
    Effect.reduce(scenarios, true, (isMet, scenario) =>
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
