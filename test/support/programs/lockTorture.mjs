// A process of test/support/lockTorture.ts: six clients that take one key, hold it for an instant, and write down when.
import { Effect, Layer } from "effect"
import * as fs from "node:fs"

const { backend, directory, log, namespace, postgres, through, ttl } = JSON.parse(process.argv[2])
const note = (line) => Effect.sync(() => fs.appendFileSync(log, `${line}\n`))
// A test that was killed kills none of its processes.
const parent = process.ppid
setInterval(() => process.ppid === parent || process.exit(1), 1000).unref()
process.on("unhandledRejection", (error) => fs.appendFileSync(log, `? ${process.pid} ${error}\n`))

// Only what this backend needs: the processes start often.
const LockFile = await import("holdfast/Lock/File")
const LockRedis = backend === "redis" ? await import("holdfast/Lock/Redis") : undefined
const LockPostgres = postgres && await import("holdfast/Lock/Postgres")
const PgClient = postgres && await import("@effect/sql-pg/PgClient")
const SqlClient = postgres && await import("@effect/sql/SqlClient")

const make = {
  redis: () => LockRedis.make({ namespace, url: through, ttl, pollInterval: 100, restartGuard: false }),
  postgres: () => LockPostgres.make({ namespace, ...postgres, ...through }),
  abstract: () => LockFile.make({ namespace }),
  file: () => LockFile.make({ namespace, directory, sockets: "file" })
}[backend]

// What a stale holder must not do: its fence is written after a higher one.
const commit = ({ fence }) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`INSERT INTO commits (fence) VALUES (${String(fence)}::bigint)`)
const database = postgres === undefined ? Layer.empty : PgClient.layer({
  host: postgres.host, port: postgres.port, username: postgres.user, database: postgres.database, maxConnections: 2
})
const commits = (lease) =>
  postgres === undefined || lease.realm === undefined || Math.random() < 0.8
    ? Effect.void
    : Effect.exit(LockPostgres.guard(lease)(commit(lease)))

const body = (lease) =>
  note(`+ ${process.pid} ${lease.fence}`).pipe(
    Effect.zipRight(Effect.sleep(Math.random() < 0.03 ? 40 : 1)),
    Effect.zipRight(commits(lease)),
    Effect.ensuring(note(`- ${process.pid} ${lease.fence}`))
  )
const client = Effect.scoped(Effect.flatMap(
  make(),
  (lock) => Effect.forever(Effect.zipRight(Effect.exit(lock.withLock("k")(body)), Effect.yieldNow()))
))
await Effect.runPromise(Effect.provide(
  Effect.all(Array.from({ length: 6 }, () => client), { concurrency: "unbounded" }),
  database
))
