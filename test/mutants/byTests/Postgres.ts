/** Mutants of Postgres, found by its tests; test/mutants.byTests.slow.test.ts says how to add one. */
import * as Mutants from "./mutant.ts"

const state = Mutants.of("Postgres/state.ts", "Postgres/state.test.ts")
const stream = Mutants.of("Postgres/stream.ts", "Postgres/state.test.ts")
const wipe = Mutants.of("Postgres/session.ts", "Postgres/state.test.ts")
const session = Mutants.of("Postgres/session.ts", "Postgres.test.ts")
const connection = Mutants.of("Postgres/connection.ts", "Postgres.test.ts")
const pool = Mutants.of("Postgres/pool.ts", "Postgres.test.ts")

export const mutants: ReadonlyArray<Mutants.Mutant> = [
  state(
    "a function that the server does not have is taken for harmless",
    "return keywords.has(lower) || harmless.has(lower)",
    "return true",
    "by a statement"
  ),
  state(
    "a comment hides a call",
    " || hidden.test(text)",
    "",
    "by a statement"
  ),
  state(
    "a library that was loaded stays",
    `if (spoils.test(text)) return "spoilt"`,
    `if (spoils.test(text)) return "dirty"`,
    "by a statement"
  ),
  stream("what a stream leaves is not noted", "    session.note(sql)\n", "", "by a stream"),
  wipe(
    "a session is lent again without a reset",
    `this.isDirty = !(yield* this.promptly("DISCARD ALL"))`,
    "this.isDirty = false",
    "by a transaction"
  ),
  session(
    "a cancel that went astray is forgotten",
    `      this.stray = "sent"\n`,
    "",
    "Postgres-2: a session whose cancel was not confirmed"
  ),
  connection(
    "a place is free before the server has closed its end",
    "    else this.wire.end()",
    "    else this.destroy()",
    "PgPool-1"
  ),
  connection(
    "a cancel gives its key away",
    "if (!ssl) send()",
    "if (true) send()",
    "PgConnection-2"
  ),
  pool(
    "a session that was lost while idle is lent",
    "onLost: () => void Effect.runSync(Pool.invalidate(this.pool, session))",
    "onLost: () => {}",
    "PgPool-2: sessions terminated"
  ),
  pool(
    "a server without room fails statements",
    "isFull(cause) && this.sessions.size > 0",
    "isFull(cause) && this.sessions.size > 1000",
    "PgPool-3"
  ),
  pool(
    "a statement that was not sent fails",
    "return this.lend(statement, isUnsent)",
    "return this.lend(statement)",
    "PgPool-2: a statement that cannot have reached"
  )
]
