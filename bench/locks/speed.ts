/**
 * `npm run bench -- locks`: our locks beside those of npm and bare statements, on one machine, in one run; `locks Redis` only those.
 *
 * A hand-off is the time from the end of one body to the beginning of the next, in any process. `×` compares its median with that
 * of the bare statements on the same server. Numbers of one run compare with each other, not with another day's.
 */
import { loadavg } from "node:os"
import { setTimeout as pause } from "node:timers/promises"
import { digits, quantile, row, type Servers, wanted, withServers } from "./servers.ts"
import { type Side, sides } from "./sides.ts"
import { now, Worker } from "./worker.ts"

const cells = [1, 8].flatMap((processes) => [2, 16, 128].map((waiters) => ({ processes, waiters })))
const cellMillis = 1000
const ttl = 2000

interface Measured {
  readonly side: Side
  /** Milliseconds, by cell. */
  readonly handOffs: Array<ReadonlyArray<number>>
  overlaps: number
  alone: number
  regrant: number
  interrupted: number
  operations: number
  connections: number
}

const operations = async ({ admin, redis }: Servers, { server }: Side): Promise<number> => {
  if (server === "redis") {
    const stats = String(await redis.command("INFO", "stats"))
    return Number(/total_commands_processed:(\d+)/.exec(stats)?.[1])
  }
  if (server !== "postgres") return Number.NaN
  const { rows } = await admin.query(
    "SELECT sum(xact_commit + xact_rollback)::int AS n FROM pg_stat_database"
  )
  return rows[0].n
}

const connections = async ({ admin, redis }: Servers, { server }: Side): Promise<number> => {
  if (server === "redis") {
    const clients = String(await redis.command("INFO", "clients"))
    return Number(/connected_clients:(\d+)/.exec(clients)?.[1]) - 1
  }
  if (server !== "postgres") return Number.NaN
  const { rows } = await admin.query(
    "SELECT count(*)::int - 1 AS n FROM pg_stat_activity WHERE backend_type = 'client backend'"
  )
  return rows[0].n
}

/** One side in eight processes. */
const measure = async (servers: Servers, side: Side): Promise<Measured> => {
  const place = servers.place(ttl)
  const count = side.server === "process" ? 1 : 8
  const workers = Array.from({ length: count }, () => new Worker(side, place))
  await Promise.all(workers.map(({ ready }) => ready))
  const before = await operations(servers, side)
  const measured: Measured = {
    side,
    handOffs: [],
    overlaps: 0,
    alone: 0,
    regrant: Number.NaN,
    interrupted: Number.NaN,
    operations: Number.NaN,
    connections: Number.NaN
  }
  let grants = 0
  for (const { processes, waiters } of cells) {
    if (processes > count) {
      measured.handOffs.push([])
      continue
    }
    const running = workers.slice(0, Math.min(processes, waiters)).map((worker, index, all) => {
      const share = Math.floor(waiters / all.length) + (index < waiters % all.length ? 1 : 0)
      return worker.ask("contend", `${processes}-${waiters}`, share, cellMillis)
    })
    await pause(cellMillis / 2)
    measured.connections = await connections(servers, side)
    const seen = (await Promise.all(running)).flat().toSorted(([a], [b]) => a - b)
    grants += seen.length
    const gaps = seen.slice(1).map(([began], index) => began - seen[index]![1])
    measured.overlaps += gaps.filter((gap) => gap < 0).length
    measured.handOffs.push(gaps)
  }
  measured.operations = (await operations(servers, side) - before) / grants
  const [first, second] = workers
  const took = await first!.ask("alone", "alone", 500)
  measured.alone = quantile(took.slice(took.length >> 1), 0.5)
  if (second !== undefined) {
    first!.keep("crash")
    await first!.until("held", 10_000)
    if (side.isInterruptible) {
      measured.interrupted = quantile(await second.ask("interrupt", "crash", 20), 0.99)
    }
    second.keep("crash")
    await pause(100)
    const killed = now()
    first!.signal("SIGKILL")
    measured.regrant = (await second.until("held", 3 * ttl + 2000) ?? Number.NaN) - killed
  }
  await Promise.all(workers.map((worker) => worker.end()))
  return measured
}

const print = (all: ReadonlyArray<Measured>): void => {
  const bareOf = ({ side }: Measured): Measured | undefined =>
    all.find((other) => other.side.server === side.server && other.side.name.startsWith("bare"))
  console.log("\nHand-off: p50 / p99 in ms, and p50 in times the bare one; waiters × processes")
  row("", cells.map(({ processes, waiters }) => `${waiters} × ${processes}`), 20)
  for (const measured of all) {
    row(
      measured.side.name,
      measured.handOffs.map((gaps, cell) => {
        if (gaps.length === 0) return "–"
        const [p50, p99] = [quantile(gaps, 0.5), quantile(gaps, 0.99)]
        const ratio = p50 / quantile(bareOf(measured)?.handOffs[cell] ?? [], 0.5)
        return `${digits(p50)} / ${digits(p99)} ×${digits(ratio)}`
      }),
      20
    )
  }
  const columns = ["alone ms", "×", "crash ms", "interrupt", "ops", "connections", "overlaps"]
  console.log(
    "\nacquire + release alone, a killed holder to the next grant, p99 of 20 interrupted waits (– cannot), commands (Redis) or\n"
      + "transactions (Postgres) per grant, connections of 128 waiters in 8 processes, bodies that ran at once"
  )
  row("", columns, 12)
  for (const measured of all) {
    const { alone, connections, interrupted, operations, overlaps, regrant, side } = measured
    const ratio = alone / (bareOf(measured)?.alone ?? Number.NaN)
    const numbers = [alone, ratio, regrant, interrupted, operations, connections]
    row(side.name, [...numbers.map(digits), `${overlaps}`], 12)
  }
}

export const run = (): Promise<never> =>
  withServers(async (servers) => {
    const all: Array<Measured> = []
    for (const side of wanted(sides, "locks")) {
      all.push(await measure(servers, side))
      process.stderr.write(`${side.name}, load average ${loadavg()[0]!.toFixed(1)}\n`)
    }
    print(all)
    return all.every(({ overlaps, side }) => overlaps === 0 || !side.isOurs)
  })
