/**
 * What goes wrong between a program and Postgres, one scenario a row: interruptions, full pools, lost connections, black holes.
 * test/Postgres/faults.test.ts runs them on ours and compares the facts; `npm run bench -- postgres-faults` runs them on both sides
 * and prints the times too.
 *
 * DESIGN. A scenario returns facts, which do not depend on the speed of the machine, and the times that it took, which do. The facts
 * are read from the server by a client of its own. To add a scenario, add a row to `scenarios`.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import {
  Cause,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Option,
  type Scope,
  Stream
} from "effect"
import type * as Embedded from "holdfast/Postgres/Embedded"
import { query } from "./pgClient.ts"
import type { Opened, Side, SideOptions } from "./pgSides.ts"
import { type TcpProxy, tcpProxy } from "./tcpProxy.ts"

type Facts = Readonly<Record<string, unknown>>

export interface Outcome {
  readonly facts: Facts
  /** Milliseconds of each measured wait. */
  readonly millis?: ReadonlyArray<number>
}

/** One run of a scenario on one side. */
export interface Rig {
  readonly server: Embedded.Server
  readonly side: Side
  /** Rounds of the scenarios that repeat themselves: a few in tests, many in the bench. */
  readonly rounds: number
  /** Of ours. Long in the tests, so that what ends did not end by a timeout. */
  readonly cancelTimeout: Duration.DurationInput
  /** Of ours, where a timeout is what ends the wait. */
  readonly blackHoleTimeout: Duration.DurationInput
}

export interface Scenario {
  readonly row: string
  /** What ours promises. */
  readonly facts: Facts
  /** The bound in the bench of the 95th percentile of ours, in milliseconds. */
  readonly within?: number
  readonly run: (rig: Rig) => Effect.Effect<Outcome, unknown, Scope.Scope>
}

let names = 0

const open = (rig: Rig, max: number, options: Partial<SideOptions> = {}) =>
  Effect.gen(function*() {
    const { host, port } = rig.server
    const applicationName = `${rig.side.name}-${++names}`
    const { cancelTimeout } = rig
    const opened = yield* rig.side.open({
      host,
      port,
      applicationName,
      max,
      cancelTimeout,
      ...options
    })
    return { ...opened, applicationName }
  })

const table = (rig: Rig, columns: string) =>
  Effect.promise(async () => {
    const name = `scenario_${++names}`
    await query(rig.server, `create table ${name} (${columns})`)
    return name
  })

const ask = (rig: Rig, sql: string, ...values: Array<unknown>) =>
  Effect.promise(() => query(rig.server, sql, values))

const count = (rig: Rig, sql: string, ...values: Array<unknown>) =>
  Effect.map(ask(rig, `select count(*)::int as n ${sql}`, ...values), ([row]) => Number(row?.["n"]))

/** Sessions of a pool in that state; without one, all. */
const sessions = (rig: Rig, applicationName: string, state = "%") =>
  count(
    rig,
    "from pg_stat_activity where application_name = $1 and state like $2",
    applicationName,
    state
  )

/** Asks until it holds, for five seconds at most. */
const until = (holds: Effect.Effect<boolean>): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const end = performance.now() + 5_000
    while (!(yield* holds)) {
      if (performance.now() > end) return false
      yield* Effect.sleep(5)
    }
    return true
  })

const untilSessions = (rig: Rig, applicationName: string, state: string, n: number) =>
  until(Effect.map(sessions(rig, applicationName, state), (now) => now === n))

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.zip(Effect.sync(() => performance.now()), effect), ([began, value]) => ({
    value,
    millis: performance.now() - began
  }))

/** Interrupts, and gives up waiting after that long. */
const interrupt = (fiber: Fiber.Fiber<unknown, unknown>, giveUp = 15_000) =>
  timed(Effect.timeoutOption(Effect.disconnect(Fiber.interrupt(fiber)), giveUp)).pipe(
    Effect.map(({ millis, value }) => ({
      millis,
      exit: Option.match(value, { onNone: () => "hangs", onSome: howOf })
    }))
  )

const howOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.isInterruptedOnly(exit.cause)) return "interrupted"
  return Option.isSome(Cause.failureOption(exit.cause)) ? "typed" : "defect"
}

/** Whether a statement still works; a pool that has lost its connections would wait for ever. */
const works = (sql: SqlClient.SqlClient) =>
  timed(Effect.timeoutOption(Effect.disconnect(Effect.exit(sql`select 1 as one`)), 15_000)).pipe(
    Effect.map(({ millis, value }) => ({
      millis,
      next: Option.match(value, { onNone: () => "hangs", onSome: howOf })
    }))
  )

/** xorshift: the same choices in every run. */
export const randomFrom = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const sleeping = (sql: SqlClient.SqlClient) => Effect.fork(sql`select pg_sleep(30)`)

/** Interrupts statements in a pool of that size, all of its sessions in use or one to spare. */
const interruptsStatements = (max: number, running: number) => (rig: Rig) =>
  Effect.gen(function*() {
    const millis: Array<number> = []
    const exits = new Set<string>()
    let active = 0
    const { applicationName, sql } = yield* open(rig, max)
    const rounds = rig.side.name === "sql-pg" && max === running ? 1 : rig.rounds
    for (let round = 0; round < rounds; round++) {
      const fibers = yield* Effect.all(Array.from({ length: running }, () => sleeping(sql)))
      yield* untilSessions(rig, applicationName, "active", running)
      for (const fiber of fibers) {
        const done = yield* interrupt(fiber)
        millis.push(done.millis)
        exits.add(done.exit)
      }
      active += yield* sessions(rig, applicationName, "active")
    }
    const { next } = yield* works(sql)
    return { millis, facts: { exits: [...exits], active, next } }
  })

const innocents = (rig: Rig) =>
  Effect.gen(function*() {
    const { sql } = yield* open(rig, 2)
    let cancelled = 0
    const innocent = Effect.forever(Effect.matchEffect(sql`select pg_sleep(0.002)`, {
      onFailure: () => Effect.sync(() => cancelled++),
      onSuccess: () => Effect.void
    }))
    const others = yield* Effect.all([Effect.fork(innocent), Effect.fork(innocent)])
    const random = randomFrom(7)
    for (let round = 0; round < rig.rounds * 3; round++) {
      // The cancel goes out at about the moment at which the statement ends.
      const fiber = yield* Effect.fork(sql`select pg_sleep(0.005)`)
      yield* Effect.sleep(3 + random(12))
      yield* interrupt(fiber)
    }
    yield* Fiber.interruptAll(others)
    return { facts: { cancelled } }
  })

const randomInterrupts = (max: number, together: number) => (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, max)
    const name = yield* table(rig, "id int primary key, n int not null")
    yield* ask(rig, `insert into ${name} select i, 100 from generate_series(0, 3) i`)
    const random = randomFrom(42)
    const move = (id: number, n: number) =>
      sql`update ${sql(name)} set n = n + ${n} where id = ${id}`
    const transfer = (from: number, to: number) =>
      sql.withTransaction(Effect.gen(function*() {
        yield* move(Math.min(from, to), from < to ? -1 : 1)
        yield* sql`select pg_sleep(${random(3) * 0.004})`
        yield* sql.withTransaction(move(Math.max(from, to), from < to ? 1 : -1))
      }))
    const millis: Array<number> = []
    let left = rig.rounds * 4
    const worker = Effect.gen(function*() {
      while (left-- > 0) {
        const from = random(4)
        const fiber = yield* Effect.fork(transfer(from, (from + 1 + random(3)) % 4))
        yield* Effect.sleep(random(12))
        millis.push((yield* interrupt(fiber)).millis)
      }
    })
    yield* Effect.forEach(Array.from({ length: together }), () => worker, {
      concurrency: together,
      discard: true
    })
    const { next } = yield* works(sql)
    return {
      millis,
      facts: {
        inTransaction: yield* sessions(rig, applicationName, "idle in transaction%"),
        sum: (yield* ask(rig, `select sum(n)::int as n from ${name}`))[0]?.["n"],
        next
      }
    }
  })

/** Holds the only session for two seconds, and interrupts what waits for it. */
const interruptsWaiting =
  (wait: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>) => (rig: Rig) =>
    Effect.gen(function*() {
      const { sql } = yield* open(rig, 1)
      const held = yield* Deferred.make<void>()
      const holder = yield* Effect.fork(Effect.scoped(Effect.zipRight(
        Effect.zipRight(sql.reserve, Deferred.succeed(held, void 0)),
        Effect.sleep(2_000)
      )))
      yield* Deferred.await(held)
      const waiting = yield* Effect.fork(wait(sql))
      yield* Effect.sleep(50)
      const { exit, millis } = yield* interrupt(waiting)
      const beforeHolder = (yield* Fiber.poll(holder))._tag === "None"
      yield* Fiber.interrupt(holder)
      return {
        millis: [millis],
        facts: { exit, beforeHolder, next: (yield* works(sql)).next }
      }
    })

const interruptsReserve = (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, 2)
    const millis: Array<number> = []
    for (let round = 0; round < rig.rounds; round++) {
      const waiting = yield* Effect.forEach([1, 2, 3], () =>
        Effect.fork(Effect.scoped(Effect.zipRight(sql.reserve, Effect.sleep(1)))))
      if (round % 2 === 1) {
        yield* Effect.yieldNow()
      }
      for (const fiber of waiting) {
        millis.push((yield* interrupt(fiber)).millis)
      }
    }
    const { next } = yield* Effect.scoped(Effect.zipRight(
      Effect.timeoutOption(Effect.disconnect(sql.reserve), "2 seconds"),
      works(sql)
    ))
    const atMostTwo = yield* until(
      Effect.map(sessions(rig, applicationName), (now) =>
        now <= 2)
    )
    return { millis, facts: { next, atMostTwo } }
  })

const interruptsStream = (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, 2)
    const fiber = yield* Effect.fork(
      Stream.runDrain(sql`select pg_sleep(6) from generate_series(1, 3)`.stream)
    )
    yield* untilSessions(rig, applicationName, "active", 1)
    const { exit, millis } = yield* interrupt(fiber, 25_000)
    const active = yield* sessions(rig, applicationName, "active")
    return { millis: [millis], facts: { exit, active, next: (yield* works(sql)).next } }
  })

const abandonsStreams = (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, 2)
    const rows = sql`select * from generate_series(1, 1000)`.stream
    for (let i = 0; i < rig.rounds; i++) yield* Stream.runDrain(Stream.take(rows, 1))
    const random = randomFrom(3)
    for (let i = 0; i < rig.rounds * 2; i++) {
      const fiber = yield* Effect.fork(Stream.runDrain(rows))
      for (let k = random(20); k > 0; k--) yield* Effect.yieldNow()
      yield* interrupt(fiber)
    }
    const { next } = yield* works(sql)
    const idle = yield* until(
      Effect.map(sessions(rig, applicationName, "idle"), (now) => now >= 1 && now <= 2)
    )
    return { facts: { next, idle } }
  })

const leavesASession = (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, 1)
    yield* Effect.scoped(Effect.gen(function*() {
      const session = yield* sql.reserve
      yield* session.execute("set statement_timeout = 12345", [], undefined)
      yield* session.execute("select pg_advisory_lock(815)", [], undefined)
      yield* session.execute("begin", [], undefined)
    }))
    const inTransaction = yield* sessions(rig, applicationName, "idle in transaction")
    const [row] = yield* sql<{ statement_timeout: string }>`show statement_timeout`
    const locks = yield* count(rig, "from pg_locks where locktype = 'advisory' and objid = 815")
    return { facts: { inTransaction, timeout: row?.statement_timeout, locks } }
  })

const killsTheBackend = (rig: Rig) =>
  Effect.gen(function*() {
    const { sql } = yield* open(rig, 1)
    const exit = yield* Effect.exit(sql.withTransaction(Effect.gen(function*() {
      const [row] = yield* sql<{ pid: number }>`select pg_backend_pid() as pid`
      yield* ask(rig, "select pg_terminate_backend($1)", row?.pid)
      yield* sql`select 1`
    })))
    return { facts: { exit: howOf(exit), next: (yield* works(sql)).next } }
  })

const failsToCommit = (rig: Rig) =>
  Effect.gen(function*() {
    const { sql } = yield* open(rig, 1)
    const name = yield* table(rig, "id int, unique (id) deferrable initially deferred")
    const twice = sql`insert into ${sql(name)} values (1), (1)`
    const exit = yield* Effect.exit(sql.withTransaction(twice))
    return { facts: { exit: howOf(exit), next: (yield* works(sql)).next } }
  })

const outlivesItsTransaction = (rig: Rig) =>
  Effect.gen(function*() {
    const { sql } = yield* open(rig, 1)
    const name = yield* table(rig, "id int")
    const go = yield* Deferred.make<void>()
    const late = yield* sql.withTransaction(Effect.forkDaemon(Effect.zipRight(
      Deferred.await(go),
      sql`insert into ${sql(name)} values (1)`
    )))
    // It runs while the next, unrelated transaction is open on the same connection.
    const next = yield* sql.withTransaction(Effect.zipRight(
      Deferred.succeed(go, void 0),
      Fiber.await(late)
    ))
    return { facts: { late: howOf(next), rows: yield* count(rig, `from ${name}`) } }
  })

const nestsInParallel = (rig: Rig) =>
  Effect.gen(function*() {
    const { sql } = yield* open(rig, 1)
    const name = yield* table(rig, "id int primary key")
    const branch = (id: number) =>
      sql.withTransaction(Effect.zipRight(
        Effect.zipRight(sql`insert into ${sql(name)} values (${id})`, Effect.sleep(1)),
        id % 2 === 0 ? Effect.fail("even") : Effect.void
      ))
    const exit = yield* Effect.exit(sql.withTransaction(
      Effect.forEach([1, 2, 3], (id) => Effect.exit(branch(id)), { concurrency: 3 })
    ))
    const rows = yield* ask(rig, `select id from ${name} order by id`)
    return { facts: { exit: howOf(exit), rows: rows.map((row) => row["id"]) } }
  })

const closesWhileADaemonRuns = (rig: Rig) =>
  Effect.gen(function*() {
    const name = yield* Deferred.make<string>()
    const { millis } = yield* Effect.scoped(Effect.gen(function*() {
      const { applicationName, sql } = yield* open(rig, 2, { cancelTimeout: "5 seconds" })
      yield* Effect.forkDaemon(sql`select pg_sleep(8)`)
      yield* untilSessions(rig, applicationName, "active", 1)
      yield* Deferred.succeed(name, applicationName)
      return performance.now()
    })).pipe(Effect.map((began) => ({ millis: performance.now() - began })))
    // A goodbye that was sent is read by the server a moment later.
    yield* Effect.sleep(100)
    return {
      millis: [millis],
      facts: { sessions: yield* sessions(rig, yield* Deferred.await(name)) }
    }
  })

const door = (rig: Rig): Effect.Effect<TcpProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => tcpProxy(rig.server.host, rig.server.port)),
    (proxy) => Effect.promise(() => proxy.close())
  )

/** A closed session is gone for the server only when the goodbye has arrived there. */
const interruptsOverASlowNetwork = (rig: Rig) =>
  Effect.gen(function*() {
    const proxy = yield* door(rig)
    proxy.delay(8)
    const { applicationName, sql } = yield* open(rig, 4, { host: "127.0.0.1", port: proxy.port })
    let most = 0
    const watcher = yield* Effect.fork(Effect.forever(
      Effect.map(sessions(rig, applicationName), (now) => {
        most = Math.max(most, now)
      })
    ))
    const random = randomFrom(11)
    let left = rig.rounds * 8
    const worker = Effect.gen(function*() {
      while (left-- > 0) {
        // The cancel comes when the statement has ended by itself: the session cannot be kept.
        const fiber = yield* Effect.fork(sql`select pg_sleep(0.01)`)
        yield* Effect.sleep(random(3) === 0 ? random(80) : 24)
        yield* interrupt(fiber)
      }
    })
    yield* Effect.forEach(Array.from({ length: 8 }), () => worker, {
      concurrency: 8,
      discard: true
    })
    yield* Fiber.interrupt(watcher)
    yield* until(Effect.map(sessions(rig, applicationName), (now) => now <= 4))
    return { facts: { atMostFour: most <= 4, next: (yield* works(sql)).next } }
  })

/** One message of the server is lost, the rest arrives; whatever the client makes of it, the next answers are its own. */
const losesReplies = (rig: Rig) =>
  Effect.gen(function*() {
    const proxy = yield* door(rig)
    const { sql } = yield* open(rig, 1, {
      host: "127.0.0.1",
      port: proxy.port,
      cancelTimeout: rig.blackHoleTimeout
    })
    const wrong: Array<string> = []
    // ParseComplete, BindComplete, RowDescription, DataRow, CommandComplete, ReadyForQuery
    for (const type of ["1", "2", "T", "D", "C", "Z"]) {
      const lost = proxy.swallow(type)
      const fiber = yield* Effect.fork(sql`select ${type}::text as lost`)
      yield* Effect.promise(() => lost)
      yield* Effect.sleep(20)
      if ((yield* interrupt(fiber)).exit === "hangs") wrong.push(`${type}: hangs`)
      for (const n of [1, 2]) {
        const answer = yield* Effect.timeoutOption(
          Effect.disconnect(Effect.exit(sql<{ n: number }>`select ${n}::int as n`)),
          "3 seconds"
        )
        const got = Option.match(answer, {
          onNone: () => "hangs",
          onSome: Exit.match({ onFailure: () => "failed", onSuccess: ([row]) => String(row?.n) })
        })
        if (got !== String(n)) wrong.push(`${type}: ${got}`)
      }
    }
    return { facts: { wrong } }
  })

/** The answer to COMMIT is lost, and then the connection. */
const losesTheCommit = (rig: Rig) =>
  Effect.gen(function*() {
    const proxy = yield* door(rig)
    const { sql } = yield* open(rig, 1, { host: "127.0.0.1", port: proxy.port })
    const name = yield* table(rig, "id int")
    const fiber = yield* Effect.fork(Effect.exit(sql.withTransaction(Effect.gen(function*() {
      yield* sql`insert into ${sql(name)} values (1)`
      proxy.hold("toClient")
    }))))
    const committed = yield* until(Effect.map(count(rig, `from ${name}`), (n) => n === 1))
    proxy.cut()
    const exit = yield* Effect.flatten(Fiber.join(fiber)).pipe(Effect.exit)
    const cause = Exit.isFailure(exit)
      ? String(Option.getOrUndefined(Cause.failureOption(exit.cause)))
      : ""
    proxy.resume()
    return {
      facts: {
        committed,
        exit: howOf(exit),
        isNamed: /during COMMIT/.test(cause),
        next: (yield* works(sql)).next
      }
    }
  })

/** The network becomes a black hole while `work` runs. */
const blackHole =
  (work: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>, state: string) =>
  (rig: Rig) =>
    Effect.gen(function*() {
      const proxy = yield* door(rig)
      const opened = yield* open(rig, 2, {
        host: "127.0.0.1",
        port: proxy.port,
        cancelTimeout: rig.blackHoleTimeout,
        drain: "10 millis"
      })
      const fiber = yield* Effect.fork(work(opened.sql))
      yield* untilSessions(rig, opened.applicationName, state, 1)
      proxy.freeze()
      const { exit, millis } = yield* interrupt(fiber)
      return { millis: [millis], facts: { exit } }
    })

const closesInABlackHole = (rig: Rig) =>
  Effect.gen(function*() {
    const proxy = yield* door(rig)
    const began = yield* Effect.scoped(Effect.gen(function*() {
      const { sql } = yield* open(rig, 2, {
        host: "127.0.0.1",
        port: proxy.port,
        cancelTimeout: rig.blackHoleTimeout,
        drain: "10 millis"
      })
      yield* sql`select 1`
      proxy.freeze()
      return performance.now()
    }))
    return { millis: [performance.now() - began], facts: {} }
  })

const isNeverAnswered = (rig: Rig) =>
  Effect.gen(function*() {
    const proxy = yield* door(rig)
    proxy.ignoreNew()
    const connecting = Effect.scoped(open(rig, 1, {
      host: "127.0.0.1",
      port: proxy.port,
      connectTimeout: rig.blackHoleTimeout,
      cancelTimeout: rig.blackHoleTimeout
    }))
    const { millis, value } = yield* timed(
      Effect.timeoutOption(Effect.disconnect(Effect.exit(connecting)), 15_000)
    )
    const exit = Option.match(value, { onNone: () => "hangs", onSome: howOf })
    return { millis: [millis], facts: { exit } }
  })

const interruptsACommit = (rig: Rig) =>
  Effect.gen(function*() {
    const { applicationName, sql } = yield* open(rig, 1)
    const name = yield* table(rig, "id int")
    yield* ask(
      rig,
      `create function slow_${name}() returns trigger language plpgsql as
        $$ begin perform pg_sleep(0.3); return null; end $$`
    )
    yield* ask(
      rig,
      `create constraint trigger slow after insert on ${name}
        deferrable initially deferred for each row execute function slow_${name}()`
    )
    const fiber = yield* Effect.fork(sql.withTransaction(sql`insert into ${sql(name)} values (1)`))
    yield* until(Effect.map(
      count(
        rig,
        "from pg_stat_activity where application_name = $1 and query = 'COMMIT' and state = 'active'",
        applicationName
      ),
      (n) => n === 1
    ))
    const { exit, millis } = yield* interrupt(fiber)
    return { millis: [millis], facts: { exit, rows: yield* count(rig, `from ${name}`) } }
  })

/** Hears a channel in the background; what it heard is in the array. */
const hearing = (rig: Rig, opened: { readonly listen: Opened["listen"] }, channel: string) =>
  Effect.gen(function*() {
    const heard: Array<string | undefined> = []
    const fiber = yield* Effect.fork(Effect.ignore(
      Stream.runForEach(opened.listen(channel), (payload) => Effect.sync(() => heard.push(payload)))
    ))
    yield* untilListening(rig, channel)
    return { heard, fiber, hears: (n: number) => until(Effect.sync(() => heard.length >= n)) }
  })

/** The connection that listens says so by its last statement. */
const listener =
  "from pg_stat_activity where state = 'idle' and query ilike 'listen %' || $1 || '%'"
const untilListening = (rig: Rig, channel: string) =>
  until(Effect.map(count(rig, listener, channel), (n) => n > 0))

const notified = (rig: Rig, channel: string, payload: string) =>
  ask(rig, "select pg_notify($1, $2)", channel, payload)

const losesTheListener = (rig: Rig) =>
  Effect.gen(function*() {
    const channel = `channel_${++names}`
    const { heard, hears } = yield* hearing(rig, yield* open(rig, 2), channel)
    yield* notified(rig, channel, "one")
    yield* hears(1)
    yield* ask(rig, `select pg_terminate_backend(pid) ${listener}`, channel)
    // Ours says that there is a gap once it listens again.
    yield* hears(2)
    yield* untilListening(rig, channel)
    yield* notified(rig, channel, "")
    yield* notified(rig, channel, "two")
    yield* hears(4)
    return { facts: { heard: heard.map((payload) => payload ?? "gap") } }
  })

const endsOneOfTwoListeners = (rig: Rig) =>
  Effect.gen(function*() {
    const channel = `channel_${++names}`
    const opened = yield* open(rig, 2)
    const one = yield* hearing(rig, opened, channel)
    const other = yield* hearing(rig, opened, channel)
    yield* notified(rig, channel, "both")
    yield* one.hears(1)
    yield* other.hears(1)
    yield* Fiber.interrupt(one.fiber)
    yield* notified(rig, channel, "still")
    yield* other.hears(2)
    return { facts: { heard: other.heard } }
  })

const interruptsListening = (rig: Rig) =>
  Effect.gen(function*() {
    const random = randomFrom(5)
    const applicationName = yield* Effect.scoped(Effect.gen(function*() {
      const { applicationName, listen } = yield* open(rig, 2)
      for (let i = 0; i < 20; i++) {
        const fiber = yield* Effect.fork(Stream.runDrain(listen("interrupted")))
        for (let k = random(30); k > 0; k--) yield* Effect.yieldNow()
        yield* interrupt(fiber)
      }
      return applicationName
    }))
    yield* untilSessions(rig, applicationName, "%", 0)
    return { facts: { sessions: yield* sessions(rig, applicationName) } }
  })

const notifies = (rig: Rig) =>
  Effect.gen(function*() {
    const { notify } = yield* open(rig, 1)
    return { facts: { exit: howOf(yield* Effect.exit(notify("anything", "it's"))) } }
  })

const sound = { exits: ["interrupted"], active: 0, next: "success" }
const intact = { inTransaction: 0, sum: 400, next: "success" }
const left = { exit: "interrupted", beforeHolder: true, next: "success" }

export const scenarios: ReadonlyArray<Scenario> = [
  {
    row: "interrupt a statement, a session to spare",
    facts: sound,
    within: 20,
    run: interruptsStatements(2, 1)
  },
  {
    row: "interrupt statements, the pool saturated (1 of 1)",
    facts: sound,
    within: 20,
    run: interruptsStatements(1, 1)
  },
  {
    row: "interrupt statements, the pool saturated (4 of 4)",
    facts: sound,
    within: 20,
    run: interruptsStatements(4, 4)
  },
  { row: "innocent statements hit by a late cancel", facts: { cancelled: 0 }, run: innocents },
  {
    row: "random interrupts of nested transactions, 3 at a time, pool of 8",
    facts: intact,
    run: randomInterrupts(8, 3)
  },
  {
    row: "random interrupts of nested transactions, 4 at a time, pool of 4",
    facts: intact,
    run: randomInterrupts(4, 4)
  },
  {
    row: "random interrupts of nested transactions, 4 at a time, pool of 1",
    facts: intact,
    run: randomInterrupts(1, 4)
  },
  {
    row: "interrupt a transaction that waits for a session",
    facts: left,
    within: 20,
    run: interruptsWaiting((sql) => sql.withTransaction(sql`select 1`))
  },
  {
    row: "interrupt a reserve that waits for a session",
    facts: left,
    within: 20,
    run: interruptsWaiting((sql) => Effect.scoped(sql.reserve))
  },
  {
    row: "interrupt reserves that wait or connect",
    facts: { next: "success", atMostTwo: true },
    run: interruptsReserve
  },
  {
    row: "interrupt a stream that is blocked in a read",
    facts: { exit: "interrupted", active: 0, next: "success" },
    within: 20,
    run: interruptsStream
  },
  {
    row: "streams left after one row, streams interrupted anywhere",
    facts: { next: "success", idle: true },
    run: abandonsStreams
  },
  {
    row: "a session left in BEGIN, with a SET and an advisory lock",
    facts: { inTransaction: 0, timeout: "0", locks: 0 },
    run: leavesASession
  },
  {
    row: "the backend killed in a transaction",
    facts: { exit: "typed", next: "success" },
    run: killsTheBackend
  },
  {
    row: "a COMMIT that fails (deferred constraint)",
    facts: { exit: "typed", next: "success" },
    run: failsToCommit
  },
  {
    row: "a fiber that outlives its transaction",
    facts: { late: "typed", rows: 0 },
    run: outlivesItsTransaction
  },
  {
    row: "nested transactions side by side",
    facts: { exit: "success", rows: [1, 3] },
    run: nestsInParallel
  },
  {
    row: "close while a daemon runs a statement",
    facts: { sessions: 0 },
    run: closesWhileADaemonRuns
  },
  {
    row: "black hole: interrupt a statement",
    facts: { exit: "interrupted" },
    within: 2_000,
    run: blackHole((sql) => sql`select pg_sleep(60)`, "active")
  },
  {
    row: "black hole: interrupt a transaction",
    facts: { exit: "interrupted" },
    within: 2_000,
    run: blackHole(
      (sql) => sql.withTransaction(Effect.zipRight(sql`select 1`, Effect.never)),
      "idle in transaction"
    )
  },
  {
    row: "interrupts over a slow network, pool of 4",
    facts: { atMostFour: true, next: "success" },
    run: interruptsOverASlowNetwork
  },
  { row: "a single reply lost", facts: { wrong: [] }, run: losesReplies },
  {
    row: "the answer to COMMIT lost with the connection",
    facts: { committed: true, exit: "typed", isNamed: true, next: "success" },
    run: losesTheCommit
  },
  { row: "black hole: close", facts: {}, within: 2_000, run: closesInABlackHole },
  {
    row: "connect to a server that never answers",
    facts: { exit: "typed" },
    run: isNeverAnswered
  },
  {
    row: "LISTEN: its connection lost",
    facts: { heard: ["one", "gap", "", "two"] },
    run: losesTheListener
  },
  {
    row: "LISTEN: one of two listeners ends",
    facts: { heard: ["both", "still"] },
    run: endsOneOfTwoListeners
  },
  {
    row: "LISTEN interrupted while it connects, then closed",
    facts: { sessions: 0 },
    run: interruptsListening
  },
  { row: "NOTIFY", facts: { exit: "success" }, run: notifies },
  {
    row: "interrupt a COMMIT under way",
    facts: { exit: "interrupted", rows: 1 },
    run: interruptsACommit
  }
]
