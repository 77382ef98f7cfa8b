/**
 * `npm run bench -- lock-faults`: the same faults on our locks and on those of npm, and who failed what; `lock-faults Redis` only those.
 *
 * A body fails a fault if it ran (its side said that the lock was live) while another's did, if it was never told of a loss, or if
 * nobody got the lock in time. Each side has servers of its own.
 */
import { Effect, Exit, Scope } from "effect"
import { setTimeout as pause } from "node:timers/promises"
import { startRedis } from "../../test/support/redis.ts"
import { type TcpProxy, tcpProxy } from "../../test/support/tcpProxy.ts"
import { digits, row, type Servers, wanted, withServers } from "./servers.ts"
import { type Place, type Side, sides } from "./sides.ts"
import { now, Worker } from "./worker.ts"

const ttl = 1500
/** A lease has ended, and its waiters have asked again. */
const patience = 3 * ttl + 2000

interface Rig {
  readonly side: Side
  readonly key: string
  /** `near` talks to the server, `far` through the proxy; `ahead`: its clock is a minute ahead. */
  readonly start: (how?: "near" | "far" | "ahead") => Promise<Worker>
  readonly proxy: TcpProxy | undefined
  /** Kills the server and starts it without its data; or, of Postgres, all its sessions. */
  readonly restart: () => Promise<unknown>
  readonly flush: (() => Promise<unknown>) | undefined
}

/** A failure in few words; undefined: kept; `"–"`: there is no such fault here. */
type Verdict = string | undefined

/** How long `one` went on while `other` held, in words. */
const together = (one: Worker, other: Worker): Verdict => {
  const from = other.at("held") ?? Infinity
  const until = other.at("ended") ?? Infinity
  const ticks = one.events.filter(({ at, what }) => what === "tick" && at > from && at < until)
  return ticks.length === 0
    ? undefined
    : `two bodies, ${digits(ticks.at(-1)!.at - from)} ms`
}

const held = async (worker: Worker, key: string): Promise<Worker> => {
  worker.keep(key)
  if (await worker.until("held", 10_000) === undefined) throw new Error("not held at first")
  return worker
}

const faults: Readonly<Record<string, (rig: Rig) => Promise<Verdict>>> = {
  "holder killed": async ({ key, start }) => {
    const one = await held(await start(), key)
    const two = await start()
    two.keep(key)
    one.signal("SIGKILL")
    return await two.until("held", patience) === undefined ? "never granted again" : undefined
  },
  "holder stopped": async ({ key, start }) => {
    const one = await held(await start(), key)
    const two = await start()
    two.keep(key)
    one.signal("SIGSTOP")
    await pause(2.5 * ttl)
    one.signal("SIGCONT")
    await pause(300)
    return together(one, two)
  },
  "black hole": async ({ key, proxy, side, start }) => {
    if (proxy === undefined) return "–"
    const one = await held(await start("far"), key)
    const two = await start()
    two.keep(key)
    proxy.freeze()
    const told = await one.until("lost", side.server === "postgres" ? 8000 : 3 * ttl)
    return together(one, two) ?? (told === undefined ? "never told" : undefined)
  },
  "server restarts": async ({ key, proxy, restart, start }) => {
    if (proxy === undefined) return "–"
    const one = await held(await start(), key)
    await restart()
    const two = await start()
    two.keep(key)
    await pause(3 * ttl)
    return together(one, two)
  },
  "data flushed": async ({ flush, key, start }) => {
    if (flush === undefined) return "–"
    const one = await held(await start(), key)
    await flush()
    return await one.until("lost", 2 * ttl) === undefined ? "never told" : undefined
  },
  "renewal late": async ({ key, proxy, side, start }) => {
    if (proxy === undefined || side.server === "postgres") return "–"
    const one = await held(await start("far"), key)
    const two = await start()
    two.keep(key)
    proxy.hold()
    await pause(2 * ttl)
    proxy.resume()
    await pause(300)
    return together(one, two)
  },
  "another's lock freed": async ({ key, proxy, side, start }) => {
    if (proxy === undefined || side.server === "postgres") return "–"
    const one = await held(await start("far"), key)
    const two = await start()
    const three = await start()
    two.keep(key)
    proxy.hold()
    await two.until("held", patience)
    three.keep(key)
    one.free()
    proxy.resume()
    await pause(500)
    return three.at("held") === undefined ? undefined : "the next holder lost it"
  },
  "clock ahead": async ({ key, start }) => {
    const one = await held(await start(), key)
    const two = await start("ahead")
    two.keep(key)
    await pause(ttl / 2)
    return together(one, two)
  },
  "wait interrupted": async ({ key, side, start }) => {
    if (!side.isInterruptible) return "cannot"
    const one = await start()
    const two = await start()
    const grants = one.ask("contend", key, 4, 1500)
    const slowest = Math.max(...await two.ask("interrupt", key, 60))
    await grants
    one.keep(key)
    if (await one.until("held", ttl / 2) === undefined) return "a grant is left"
    return slowest > 250 ? `${digits(slowest)} ms` : undefined
  }
}

const runOn = async (side: Side, servers: Servers): Promise<ReadonlyArray<Verdict>> => {
  const scope = Effect.runSync(Scope.make())
  const redis = await Effect.runPromise(Scope.extend(startRedis, scope))
  const place: Place = { ...servers.place(ttl), redis: redis.socket }
  const { admin, postgres: { host, port } } = servers
  const verdicts: Array<Verdict> = []
  for (const [name, fault] of Object.entries(faults)) {
    const workers: Array<Worker> = []
    const proxy = side.server === "redis"
      ? await tcpProxy(redis.socket, 0, "raw")
      : side.server === "postgres"
      ? await tcpProxy(host, port)
      : undefined
    const far: Place = {
      ...place,
      redis: `redis://127.0.0.1:${proxy?.port}`,
      postgres: { ...place.postgres, host: "127.0.0.1", port: proxy?.port ?? 0 }
    }
    const rig: Rig = {
      side,
      key: name.replaceAll(/\W/g, "-"),
      proxy,
      start: async (how) => {
        const worker = new Worker(side, how === "far" ? far : place, how === "ahead" ? 60_000 : 0)
        workers.push(worker)
        await worker.ready
        return worker
      },
      restart: () =>
        side.server === "redis"
          ? redis.restart()
          : admin.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
              + " AND backend_type = 'client backend'"
          ),
      flush: side.server === "redis" ? () => redis.command("FLUSHALL") : undefined
    }
    const verdict = await fault(rig).catch((error: Error) => error.message)
    const unhandled = workers.some((worker) => worker.unhandled > 0) ? " unhandled error" : ""
    verdicts.push(verdict === "–" ? verdict : `${verdict ?? ""}${unhandled}`.trim() || undefined)
    await Promise.all(workers.map((worker) => worker.end()))
    await proxy?.close()
  }
  await Effect.runPromise(Scope.close(scope, Exit.void))
  return verdicts
}

export const run = (): Promise<never> =>
  withServers(async (servers) => {
    const began = now()
    const names = Object.keys(faults)
    const among = wanted(sides, "lock-faults").filter(({ server }) => server !== "process")
    const verdictsOf = new Map<Side, ReadonlyArray<Verdict>>()
    // Three at a time; those of Postgres in turns, because they share its server.
    const lanes = [0, 1, 2].map((lane) =>
      among.filter((side, at) => (side.server === "redis" ? at % 2 : 2) === lane)
    )
    await Promise.all(lanes.map(async (lane) => {
      for (const side of lane) {
        const verdicts = await runOn(side, servers)
        verdictsOf.set(side, verdicts)
        console.log(`\n${side.name}`)
        names.forEach((name, at) => console.log(`  ${name.padEnd(24)}${verdicts[at] ?? "kept"}`))
      }
    }))
    const all = among.map((side) => ({ side, verdicts: verdictsOf.get(side)! }))
    console.log(`\nWho failed what (${digits((now() - began) / 1000)} s)`)
    row("", names.map((_, at) => `${at + 1}`), 6)
    for (const { side, verdicts } of all) {
      row(
        side.name,
        verdicts.map((verdict) =>
          verdict === undefined ? "kept" : verdict === "–" || verdict === "cannot" ? "–" : "FAILS"
        ),
        6
      )
    }
    names.forEach((name, at) => console.log(`${at + 1} ${name}`))
    return all.every(({ side, verdicts }) =>
      !side.isOurs || verdicts.every((verdict) => verdict === undefined || verdict === "–")
    )
  })
