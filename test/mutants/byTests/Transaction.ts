/** Mutants of Postgres' transactions, above all of the commit window; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant, of } from "./mutant.ts"

const mutant = of("Postgres/transaction.ts", "Postgres/transaction.test.ts")
const loan = of("Postgres/loan.ts", "Postgres/transaction.test.ts")
const session = of("Postgres/session.ts", "Postgres/transaction.test.ts")
const commit = of("Postgres/transaction.ts", "Postgres.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  session(
    "a session in a transaction goes on although its cancel got no answer",
    `!pending.isSettled || this.stray === "sent"`,
    "!pending.isSettled",
    "the transaction fails, for the cancel may still hit"
  ),
  commit(
    "a nested transaction that failed is not rolled back",
    "() => this.outcome === \"open\" ? this.undo(rollback) : Effect.void",
    "() => Effect.void",
    "Postgres-5: all or nothing, nested too"
  ),
  commit(
    "a failed body is committed",
    "one.run(body(loan), one.commit, \"ROLLBACK\")",
    "one.run(body(loan), one.commit, \"COMMIT\")",
    "Postgres-5: all or nothing, nested too"
  ),
  commit(
    "a savepoint is released in the place of rolled back",
    "const rollback = `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`",
    "const rollback = `RELEASE SAVEPOINT ${name}`",
    "Postgres-5: all or nothing, nested too"
  ),
  commit(
    "a COMMIT that was answered ROLLBACK counts as committed",
    "command === \"ROLLBACK\")",
    "command === \"NEVER\")",
    "Postgres-5: a failure that was caught in the body"
  ),
  commit(
    "RELEASE of a failed nested transaction leaves the outer one failed",
    "Option.contains(sqlState(error), \"25P02\") ? failed(new TransactionAborted()) : error",
    "error",
    "Postgres-5: a failure that was caught in the body"
  ),
  commit(
    "an unknown outcome is taken for a failure",
    "      this.outcome = \"unknown\"\n",
    "",
    "Postgres-5: a connection lost during COMMIT"
  ),
  commit(
    "a COMMIT that the server refused has an unknown outcome",
    "const isRefused = Option.isSome(sqlState(error)) && !isConnectionLost(error)",
    "const isRefused = false",
    "Postgres-5: a COMMIT that fails is typed"
  ),
  commit(
    "an interrupt cancels a COMMIT under way",
    "}, \"finish\")",
    "})",
    "Postgres-5: an interrupt during COMMIT"
  ),
  commit(
    "siblings do not wait for each other",
    "      parent.take(step.restore),\n",
    "      Effect.void,\n",
    "Postgres-6: nested transactions side by side"
  ),
  mutant(
    "the hooks of an unknown outcome run",
    "attempt === undefined || attempt.outcome === \"unknown\"",
    "attempt === undefined",
    "Postgres-5: an unknown outcome runs no hook"
  ),
  mutant(
    "onCommit runs after a rollback",
    "attempt.outcome === \"committed\" ? \"commit\" : \"rollback\")",
    "\"commit\")",
    "Postgres-5: hooks run once"
  ),
  mutant(
    "the hooks of a nested transaction that was rolled back are kept",
    "if (attempt.outcome === \"committed\") parent.hooks.push",
    "parent.hooks.push",
    "Postgres-5: hooks run once"
  ),
  mutant(
    "hooks run inside the transaction that has ended",
    "const outside = Context.omit(SqlClient.TransactionConnection)(context as never)",
    "const outside = context as never",
    "Postgres-5: a hook has the pool to itself"
  ),
  mutant(
    "every failure is tried again",
    "while: () => again.isDue",
    "while: () => true",
    "Postgres-5: with `retry`"
  ),
  mutant(
    "a conflict of an earlier transaction makes this one run again",
    "        session.hadConflict = false\n",
    "",
    "Postgres-5: a conflict that the body turned"
  ),
  mutant(
    "the isolation does not reach the server",
    "` ISOLATION LEVEL ${isolation.toUpperCase()}`",
    "\"\"",
    "Postgres-5: isolation, read only and deferrable"
  ),
  mutant(
    "a nested transaction asks in vain for an isolation",
    "options.isolation !== undefined && options.isolation !== isolation",
    "false",
    "Postgres-5: a nested transaction cannot ask"
  ),
  loan(
    "a statement runs in the transaction of another pool",
    "while (inside !== undefined && inside.loan.pool !== pool) inside = inside.outer",
    "",
    "Postgres-6: two pools never get each other's statements"
  ),
  loan(
    "a client of another database gets the session of the transaction",
    "  readonly execute = (): Effect.Effect<never, SqlError> =>\n    Effect.fail(failed(new ForeignStatement()))",
    "  readonly execute = (): Effect.Effect<any, SqlError> => this.loan.run({ text: \"select 1\" })",
    "Postgres-6: a client of another kind"
  ),
  loan(
    "a statement that waits for itself waits for ever",
    "          isIdle()\n",
    "          false\n",
    "Postgres-6: a nested transaction that waits"
  )
]
