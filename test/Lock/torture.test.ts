/**
 * The short, seeded form of `npm run bench -- lock-torture`, which also does it with Lock/File.
 */
import { afterAll, beforeAll, expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { type Torture, torture } from "../support/lockTorture.ts"
import { embeddedServer } from "../support/postgres.ts"
import { type RedisServer, redisServer, startRedis } from "../support/redis.ts"

const postgres = embeddedServer()
const scope = Effect.runSync(Scope.make())
let redis: RedisServer | undefined
beforeAll(async () => {
  if (redisServer !== undefined) {
    redis = await Effect.runPromise(Scope.extend(startRedis, scope))
  }
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const under = async (backend: Torture["backend"], grants: number): Promise<void> => {
  const seen = await torture({ backend, grants, seed: 13, redis, postgres: postgres.get() })
  expect(seen).toMatchObject({ fencesThatFell: 0, staleCommits: 0, unhandled: 0 })
  // On a busy machine a body may be paused beyond its lease, and then only its fence stops it.
  if (backend !== "redis") expect(seen.overlaps).toBe(0)
  expect(seen.commits).toBeGreaterThan(0)
}

it.skipIf(redisServer === undefined)(
  "LockRedis-1, LockPostgres-7: under torture fences rise, and no guarded commit is stale (T11)",
  () => under("redis", 1700),
  60_000
)

it(
  "LockPostgres-1, LockPostgres-7: under torture no two bodies run at once, fences rise, and no guarded commit is stale (T11)",
  () => under("postgres", 300),
  60_000
)
