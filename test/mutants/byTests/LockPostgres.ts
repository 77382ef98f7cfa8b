/**
 * Mutants of Lock/Postgres, found by its tests on a real server; test/mutants.byTests.slow.test.ts says how to add one.
 */
import { type Mutant, of } from "./mutant.ts"

const advisory = of("Lock/Postgres/advisory.ts", "Lock/Postgres.test.ts")
const session = of("Lock/Postgres/session.ts", "Lock/Postgres.test.ts")
const lease = of("Lock/Postgres/lease.ts", "Lock/Postgres/lease.test.ts")
const guard = of("Lock/Postgres/guard.ts", "Lock/Postgres/guard.test.ts")
const schema = of("Lock/Postgres/schema.ts", "Lock/Postgres/guard.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  guard(
    "a lower fence is let in",
    " WHERE lease.fence <= excluded.fence",
    "",
    "LockPostgres-7: the present holder commits"
  ),
  guard(
    "a guarded transaction does not keep its row",
    "$2::bigint FOR KEY SHARE",
    "$2::bigint",
    "LockPostgres-7: a holder that is overtaken"
  ),
  guard(
    "a lease that its own process has released is let in",
    "      lease.ensureLive,",
    "      Effect.void,",
    "LockPostgres-7: the present holder commits"
  ),
  guard(
    "a transaction takes no lock",
    "sql.withTransaction(Effect.zipRight(waited, body))",
    "sql.withTransaction(body)",
    "LockPostgres-6: ours: transactions of a key take turns"
  ),
  guard(
    "a transaction and a lease of one key have different locks",
    "idOf(namespace, key)",
    "idOf(\"\", key)",
    "LockPostgres-6: ours: transactions of a key take turns"
  ),
  schema(
    "a higher fence does not wait for those that keep the row",
    ", UNIQUE (name, fence)",
    "",
    "LockPostgres-7: a holder that is overtaken"
  ),
  schema(
    "a long key has no row",
    "name.length <= 500",
    "name.length <= 500_000",
    "LockPostgres-7: a long key"
  ),
  advisory(
    "no fence is drawn",
    "THEN nextval('holdfast.lock_fence'::regclass) END AS fence",
    "THEN 7 END AS fence",
    "postgres: Lock-1: one at a time"
  ),
  advisory(
    "the end of a session is no loss",
    "  session.hold(lost)\n",
    "",
    "LockPostgres-3: the end of a session loses all"
  ),
  advisory(
    "a release does not unlock",
    "isNamed ? unnameSql : unlockSql",
    "verifySql",
    "postgres: a try never waits"
  ),
  advisory(
    "a fence that is refused leaves the key locked",
    "session.undo(undoSql, [id])",
    "Effect.void",
    "LockPostgres-1: a role that may lock"
  ),
  advisory(
    "with all sessions in use a wait stands still",
    "{ acquireTimeout: pollInterval }",
    "{ acquireTimeout: \"1 hour\" }",
    "LockPostgres-8: with all sessions in use"
  ),
  advisory(
    "each key that is held has a session of its own",
    "isWarm ? Effect.succeedNone : tryTake(request, restore)",
    "Effect.succeedNone",
    "LockPostgres-8: a hundred keys"
  ),
  advisory(
    "a pooler is not noticed",
    "if (!(yield* isDirect(session))) return yield* pooler()",
    "",
    "LockPostgres-5: behind a pooler it refuses"
  ),
  advisory(
    "a lease outlives its layer",
    "session.unsafeEnd(\"the lock service is closed\")",
    "session.leases.clear()",
    "LockPostgres-4: closing the layer"
  ),
  session(
    "a silent server keeps a lease",
    "if (this.leases.size > 0) this.own.fork(this.ping)",
    "",
    "LockPostgres-3: a peer that goes silent"
  ),
  lease(
    "a later grant has no higher fence",
    "greatest(lease.fence + 1, ${micros})",
    "lease.fence",
    "postgres lease: Lock-1: one at a time"
  ),
  lease(
    "a key that is held is free",
    "(owner IS NULL OR owner = $2 OR expires_at <= clock_timestamp())",
    "true",
    "postgres lease: a try never waits"
  ),
  lease(
    "a late release frees the lease of another",
    "AND owner = $2 FOR NO KEY UPDATE",
    "AND $2::text <> '' FOR NO KEY UPDATE",
    "LockPostgres-10: a row that another took"
  ),
  lease(
    "a lease that another has is renewed",
    "WHERE name = $1 AND owner = $2 RETURNING 1",
    "WHERE name = $1 AND $2::text <> '' RETURNING 1",
    "LockPostgres-10: a row that another took"
  ),
  lease(
    "a release wakes nobody",
    "CASE WHEN wanted THEN",
    "CASE WHEN false THEN",
    "LockPostgres-11: a release wakes a waiter"
  ),
  lease(
    "a waiter does not ask again",
    "Math.min(tried + 1, atMost)",
    "tried + 1",
    "LockPostgres-11: without any notification"
  ),
  lease(
    "a statement whose connection ended fails",
    "while: isPassing,",
    "while: () => false,",
    "LockPostgres-10: resets, and the end of each session"
  ),
  of("Lock/Postgres/session.ts", "Lock/Postgres/lease.test.ts")(
    "a session that was lost at the end of its opening is kept",
    "if (this.lost !== undefined) this.own.onLost(this)",
    "",
    "LockPostgres-10: a session that ends with the last answer"
  )
]
