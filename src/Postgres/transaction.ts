/** Postgres/transaction: `withTransaction`, with savepoints for the nested ones. ../Postgres.ts has the invariants. */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type * as Managed from "../Managed.ts"
import * as Nursery from "../Nursery.ts"
import * as Semaphore from "../Semaphore.ts"
import {
  failed,
  isConnectionLost,
  sqlState,
  TransactionAborted,
  TransactionOutcomeUnknown
} from "./errors.ts"
import { ended, Loan, opened } from "./loan.ts"
import type { SessionPool } from "./pool.ts"
import { resultsOf, type Session } from "./session.ts"

interface Step<A, E, R> {
  readonly loan: Loan
  readonly restore: Managed.Restore
  readonly body: Effect.Effect<A, E, R>
  readonly begin: string
  readonly commit: Effect.Effect<void, SqlError>
  readonly rollback: string
}

/** Begin, body, commit or rollback. Runs inside a mask; begin, body and commit are restored. */
const runStep = <A, E, R>(step: Step<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
  Effect.gen(function*() {
    const { loan, restore } = step
    const undo = Effect.zipRight(
      loan.abort,
      Effect.suspend(() =>
        loan.session.lost === undefined ? loan.session.promptly(step.rollback) : Effect.void
      )
    )
    yield* restore(loan.session.text(step.begin))
    const exit = yield* Effect.exit(restore(step.body))
    if (Exit.isFailure(exit)) {
      yield* undo
      return yield* exit
    }
    yield* Effect.onError(loan.settle(restore), () => undo)
    yield* restore(step.commit)
    return exit.value
  })

const commitTransaction = (session: Session): Effect.Effect<void, SqlError> =>
  Effect.suspend(() => {
    // Nothing was sent yet, so nothing can have been committed.
    if (session.lost !== undefined) return failed(session.lost)
    return session.query({ text: "COMMIT" }, "finish").pipe(
      Effect.catchAll((error) =>
        isConnectionLost(error)
          ? Effect.fail(failed(new TransactionOutcomeUnknown({ reason: error.message })))
          : Effect.fail(error)
      ),
      // COMMIT of a failed transaction is answered "ROLLBACK", without an error.
      Effect.flatMap((result) =>
        resultsOf(result).some((one) => one.command === "ROLLBACK")
          ? Effect.fail(failed(new TransactionAborted()))
          : Effect.void
      )
    )
  })

const releaseSavepoint = (session: Session, name: string): Effect.Effect<void, SqlError> =>
  Effect.catchAll(session.text(`RELEASE SAVEPOINT ${name}`), (error) =>
    // 25P02: a statement of the body had failed. Undone here, so that the outer transaction can go on.
    Option.contains(sqlState(error), "25P02")
      ? Effect.zipRight(
        session.promptly(`ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`),
        Effect.fail(failed(new TransactionAborted()))
      )
      : Effect.fail(error))

type Body<A, E, R> = (loan: Loan, depth: number) => Effect.Effect<A, E, R>

const outermost = <A, E, R>(
  pool: SessionPool,
  restore: Managed.Restore,
  body: Body<A, E, R>
): Effect.Effect<A, E | SqlError, R> => {
  const lent = pool.lend((session) =>
    // MASK: from BEGIN to COMMIT or ROLLBACK. An exit, since an error of the body is none of the pool's.
    Effect.exit(Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const loan = opened(pool, session, "transaction")
        return Effect.ensuring(
          runStep({
            loan,
            restore,
            body: body(loan, 0),
            begin: "BEGIN",
            commit: commitTransaction(session),
            rollback: "ROLLBACK"
          }),
          ended(loan)
        )
      })
    ))
  )
  return Effect.flatten(restore(lent))
}

/** Holds the statement permit of its parent, so that siblings run one after the other. */
const nested = <A, E, R>(
  parent: Loan,
  depth: number,
  restore: Managed.Restore,
  body: Body<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.zipRight(
    Semaphore.takeInMask(parent.lock, 1, restore),
    Effect.ensuring(
      Effect.zipRight(
        parent.ifOpen,
        Effect.suspend(() => {
          const loan = new Loan(parent.pool, parent.session, "transaction")
          const name = `hf_${depth}`
          return runStep({
            loan,
            restore,
            body: body(loan, depth),
            begin: `SAVEPOINT ${name}`,
            commit: releaseSavepoint(parent.session, name),
            rollback: `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`
          })
        })
      ),
      Effect.sync(() => Semaphore.unsafeRelease(parent.lock, 1))
    )
  )

export const transactionOf =
  (pool: SessionPool): SqlClient.SqlClient["withTransaction"] => (effect) =>
    // MASK: between begin and commit or rollback nothing may be cut but what is restored: waiting, begin, body, commit.
    Effect.uninterruptibleMask((restore) =>
      Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) =>
        Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (outer) => {
          const body = (loan: Loan, depth: number) =>
            // Under a tracker, a statement of a dying fiber comes before the commit or the rollback.
            Nursery.contain(effect).pipe(
              Effect.provideService(SqlClient.TransactionConnection, [loan, depth] as const),
              Effect.provideService(Tracer.ParentSpan, span)
            )
          const around = Option.getOrUndefined(outer)
          return around !== undefined && around[0] instanceof Loan && around[0].pool === pool
            ? nested(around[0], around[1] + 1, restore, body)
            : outermost(pool, restore, body)
        }))
    )
