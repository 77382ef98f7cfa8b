import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { interruptions, total } from "../support/pgInterruptions.ts"
import { ours } from "../support/pgSides.ts"
import { embeddedServer } from "../support/postgres.ts"

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
