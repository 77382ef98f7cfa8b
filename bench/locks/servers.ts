/**
 * servers: what the lock benches run on, and the tables that they print.
 */
import { Effect, Exit, Scope } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { Client } from "pg"
import { type RedisServer, redisServer, startRedis } from "../../test/support/redis.ts"
import type { Place, Side } from "./sides.ts"

export interface Servers {
  readonly redis: RedisServer
  readonly postgres: Embedded.Server
  readonly admin: Client
  readonly place: (ttl: number) => Place
}

/** Runs on servers of its own, and ends the process. */
export const withServers = async (run: (servers: Servers) => Promise<boolean>): Promise<never> => {
  if (redisServer === undefined) throw new Error("The lock benches need redis-server.")
  const scope = Effect.runSync(Scope.make())
  const opened = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
    Effect.runPromise(Scope.extend(effect, scope))
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
  let isMet = false
  try {
    const redis = await opened(startRedis)
    const postgres = await opened(Embedded.make({ settings: { max_connections: "400" } }))
    const { host, port, user } = postgres
    const admin = new Client({ host, port, user })
    admin.on("error", () => {})
    await admin.connect()
    const place = (ttl: number): Place => ({
      ttl,
      redis: redis.socket,
      postgres: { host, port, user },
      directory
    })
    isMet = await run({ redis, postgres, admin, place })
    await admin.end()
  } finally {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    fs.rmSync(directory, { recursive: true, force: true })
  }
  process.exit(isMet ? 0 : 1)
}

export const quantile = (values: ReadonlyArray<number>, part: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))]
    ?? Number.NaN

export const digits = (value: number): string =>
  !Number.isFinite(value) ? "–" : value < 10 ? value.toFixed(2) : value.toFixed(0)

export const row = (name: string, cells: ReadonlyArray<string>, width: number): void =>
  console.log(`${name.padEnd(32)}${cells.map((cell) => cell.padStart(width)).join("")}`)

/** Those whose name has the text, and the bare ones that they are compared with. */
export const wanted = (sides: ReadonlyArray<Side>, command: string): ReadonlyArray<Side> => {
  const text = process.argv[process.argv.indexOf(command) + 1] ?? ""
  return sides.filter(({ name }) => name.includes(text) || (text !== "" && name.startsWith("bare")))
}
