/**
 * Lock/Redis on a real server: acquire and release, and hand-overs among 16 contenders in 4 services, beside bare ioredis with the
 * pattern that most programs use (SET NX PX, a compare-and-delete script, a poll).
 */
import { Effect, Fiber, Scope } from "effect"
import * as LockRedis from "holdfast/Lock/Redis"
import { Redis } from "ioredis"
import { setTimeout as pause } from "node:timers/promises"
import { redisServer, startRedis } from "../test/support/redis.ts"
import type { Suite } from "./run.ts"

const scope = Effect.runSync(Scope.make())
const inScope = <A>(effect: Effect.Effect<A, never, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Scope.extend(effect, scope))

const suites = async (): Promise<ReadonlyArray<Suite>> => {
  const server = await inScope(startRedis)
  process.on("exit", () => process.kill(server.pid(), "SIGKILL"))
  const options = { namespace: "bench", url: server.socket, restartGuard: false }
  const make = () => inScope(LockRedis.make(options))
  const locks = [await make(), await make(), await make(), await make()] as const
  const client = () => new Redis(server.socket)
  const clients = [client(), client(), client(), client()] as const

  const free = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end`
  const bare = async (redis: Redis, key: string, owner: string, pollMillis: number) => {
    while (await redis.set(key, owner, "PX", 15_000, "NX") === null) await pause(pollMillis)
    await redis.eval(free, 1, key, owner)
  }
  const bareContenders = (pollMillis: number) => () =>
    Promise.all(Array.from({ length: 16 }, async (_, i) => {
      for (let n = 0; n < 2; n++) await bare(clients[i % 4]!, "shared", `${i}`, pollMillis)
    }))

  const alone = (n: number) =>
    Effect.runPromise(Effect.repeatN(locks[0].withLock("alone")(Effect.void), n - 1))
  const contenders = Effect.gen(function*() {
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    for (let i = 0; i < 16; i++) {
      fibers.push(
        yield* Effect.fork(Effect.repeatN(locks[i % 4]!.withLock("shared")(Effect.void), 1))
      )
    }
    for (const fiber of fibers) yield* Fiber.join(fiber)
  })
  return [
    {
      title: "Acquire and release, alone",
      operations: 10,
      contenders: {
        "Lock/Redis": () => alone(10),
        "ioredis, SET NX and a script": async () => {
          for (let n = 0; n < 10; n++) await bare(clients[0], "alone", "me", 10)
        }
      }
    },
    {
      title: "Hand-over among 16 contenders in 4 services",
      operations: 32,
      contenders: {
        "Lock/Redis": () => Effect.runPromise(contenders),
        "ioredis, polled each 10 ms": bareContenders(10),
        "ioredis, polled each 1 ms": bareContenders(1)
      }
    }
  ]
}

export default redisServer === undefined ? [] : await suites()
