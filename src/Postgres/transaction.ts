/**
 * Postgres/transaction: `withTransaction`, with savepoints for the nested ones.
 *
 * DESIGN. `outermost` takes a session and runs BEGIN, the body, and COMMIT or ROLLBACK; `nested` does it with a savepoint, under the
 * lock of its parent, so siblings run one after the other in the order of arrival. A loan knows its `outcome`, which is "unknown" from
 * the moment COMMIT is sent until it is answered. The hooks run when the session has been given back. ../Postgres.ts has the
 * invariants.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Tracer from "effect/Tracer"
import type * as Managed from "../Managed.ts"
import * as Nursery from "../Nursery.ts"
import {
  failed,
  isConnectionLost,
  isUnsent,
  sqlState,
  TransactionAborted,
  TransactionOutcomeUnknown
} from "./errors.ts"
import {
  ended,
  type Hook,
  Inside,
  insideOf,
  Loan,
  loanOf,
  opened,
  type TransactionOptions
} from "./loan.ts"
import type { SessionPool } from "./pool.ts"
import { type Results, resultsOf } from "./session.ts"
import { Statement } from "./statement.ts"

/** "unknown": COMMIT was sent and has not been answered. */
type Outcome = "open" | "committed" | "rolled back" | "unknown"

/** One transaction, or one nested transaction, on its way. */
class Attempt {
  readonly loan: Loan
  readonly restore: Managed.Restore
  readonly span: Tracer.Span
  readonly clock: Clock.Clock
  /** Written by the methods below. */
  outcome: Outcome = "open"

  constructor(loan: Loan, restore: Managed.Restore, span: Tracer.Span, clock: Clock.Clock) {
    this.loan = loan
    this.restore = restore
    this.span = span
    this.clock = clock
  }

  /** An outcome, and its event of the span. */
  end(outcome: Outcome, event: string): void {
    this.outcome = outcome
    this.span.event(`db.transaction.${event}`, this.clock.unsafeCurrentTimeNanos())
  }

  begin(sql: string, event: string): Effect.Effect<void, SqlError> {
    return Effect.zipRight(
      this.restore(this.loan.session.text(sql)),
      Effect.sync(() => this.end("open", event))
    )
  }

  /** Cancels what runs, then rolls back; both are bounded. If the connection is lost, the server has rolled back. */
  undo(rollback: string): Effect.Effect<void> {
    const { loan } = this
    return Effect.map(
      Effect.zipRight(
        loan.abort,
        Effect.suspend(() =>
          loan.session.lost === undefined ? loan.session.promptly(rollback) : Effect.void
        )
      ),
      () => this.end("rolled back", "rollback")
    )
  }

  /** Sends COMMIT. An interrupt leaves it its grace, and the outcome is known then as well. */
  get commit(): Effect.Effect<void, SqlError> {
    const { session } = this.loan
    const answered = (error: unknown, results: Results): void => {
      const isRefused = Option.isSome(sqlState(error)) && !isConnectionLost(error)
      // COMMIT of a failed transaction is answered "ROLLBACK", without an error.
      if (isRefused || (!error && resultsOf(results)[0]?.command === "ROLLBACK")) {
        this.end("rolled back", "rollback")
      } else if (!error) this.end("committed", "commit")
    }
    const exchange = session.exchange((pending) => {
      this.outcome = "unknown"
      const answer = (error: unknown, results: unknown): void => {
        answered(error, results as Results)
        pending.answer(error, results)
      }
      session.client.query(new Statement("COMMIT", [], undefined, identity, { answer }))
    }, "finish")
    return Effect.matchEffect(this.restore(exchange), {
      onFailure: (error) => {
        if (this.outcome === "unknown" && isUnsent(error)) this.end("rolled back", "rollback")
        return this.outcome === "unknown"
          ? Effect.fail(failed(new TransactionOutcomeUnknown({ reason: error.message })))
          : Effect.fail(error)
      },
      onSuccess: () =>
        this.outcome === "committed" ? Effect.void : Effect.fail(failed(new TransactionAborted()))
    })
  }

  release(name: string): Effect.Effect<void, SqlError> {
    const released = Effect.zipRight(
      this.restore(this.loan.session.text(`RELEASE SAVEPOINT ${name}`)),
      Effect.sync(() => this.end("committed", "savepoint"))
    )
    // 25P02: a statement of the body had failed.
    return Effect.mapError(
      released,
      (error) =>
        Option.contains(sqlState(error), "25P02") ? failed(new TransactionAborted()) : error
    )
  }

  /** The body, then `commit` if it succeeded, else `rollback`. */
  run<A, E, R>(
    body: Effect.Effect<A, E, R>,
    commit: Effect.Effect<void, SqlError>,
    rollback: string
  ): Effect.Effect<A, E | SqlError, R> {
    return Effect.onError(
      Effect.flatMap(
        this.restore(body),
        (value) => Effect.as(Effect.zipRight(this.loan.settle(this.restore), commit), value)
      ),
      () => this.outcome === "open" ? this.undo(rollback) : Effect.void
    )
  }
}

type Body<A, E, R> = (loan: Loan) => Effect.Effect<A, E, R>

interface Step {
  readonly pool: SessionPool
  readonly options: TransactionOptions
  /** The transaction that the caller is in, whichever its database is. */
  readonly around: Inside | undefined
  readonly restore: Managed.Restore
  readonly span: Tracer.Span
  readonly clock: Clock.Clock
}

const beginOf = ({ deferrable, isolation, readOnly }: TransactionOptions): string =>
  "BEGIN" + (isolation === undefined ? "" : ` ISOLATION LEVEL ${isolation.toUpperCase()}`)
  + (readOnly === undefined ? "" : readOnly ? " READ ONLY" : " READ WRITE")
  + (deferrable === true ? " DEFERRABLE" : "")

const runHooks = (step: Step, loan: Loan, on: Hook["on"]): Effect.Effect<void> =>
  Effect.forEach(loan.hooks, (hook) => hook.on === on ? hook.run(step.around) : Effect.void, {
    discard: true
  })

/** `again` is set to true if the transaction was rolled back because of a concurrent one. */
const outermost = <A, E, R>(
  step: Step,
  body: Body<A, E, R>,
  again: { isDue: boolean }
): Effect.Effect<A, E | SqlError, R> => {
  let attempt: Attempt | undefined
  const lent = step.pool.lend((session) =>
    // MASK: from BEGIN to COMMIT or ROLLBACK. An exit, since an error of the body is none of the pool's.
    Effect.exit(Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const loan = opened(step.pool, session, "transaction")
        loan.options = step.options
        session.hadConflict = false
        const one = attempt = new Attempt(loan, restore, step.span, step.clock)
        return Effect.ensuring(
          Effect.zipRight(
            one.begin(beginOf(step.options), "begin"),
            one.run(body(loan), one.commit, "ROLLBACK")
          ),
          Effect.suspend(() => {
            again.isDue = one.outcome === "rolled back" && session.hadConflict
            return ended(loan)
          })
        )
      })
    ))
  )
  // The hooks run when the session has been given back.
  const hooks = Effect.suspend(() => {
    if (attempt === undefined || attempt.outcome === "unknown") return Effect.void
    return runHooks(step, attempt.loan, attempt.outcome === "committed" ? "commit" : "rollback")
  })
  return Effect.ensuring(Effect.flatten(step.restore(lent)), hooks)
}

const nested = <A, E, R>(
  step: Step,
  parent: Loan,
  body: Body<A, E, R>
): Effect.Effect<A, E | SqlError, R> =>
  Effect.suspend(() => {
    const { session } = parent
    const loan = new Loan(step.pool, session, "transaction", parent)
    loan.options = parent.options
    const attempt = new Attempt(loan, step.restore, step.span, step.clock)
    const name = `hf_${loan.depth}`
    const rollback = `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`
    const all = Effect.zipRight(
      Effect.zipRight(parent.ifOpen, attempt.begin(`SAVEPOINT ${name}`, "begin")),
      attempt.run(body(loan), attempt.release(name), rollback)
    )
    const release = Effect.sync(() => {
      loan.isOpen = false
      parent.unsafeRelease()
      // What was rolled back here does not end the whole transaction any more.
      if (attempt.outcome === "committed") parent.hooks.push(...loan.hooks)
    })
    const hooks = Effect.suspend(() =>
      attempt.outcome === "committed" ? Effect.void : runHooks(step, loan, "rollback")
    )
    return Effect.zipRight(
      parent.take(step.restore),
      Effect.ensuring(Effect.ensuring(all, release), hooks)
    )
  })

/** The options of a nested transaction are those of the outermost one, which has begun. */
const mismatch = (options: TransactionOptions, loan: Loan): string | undefined => {
  const { isolation, readOnly = false } = loan.options
  if (options.isolation !== undefined && options.isolation !== isolation) {
    return `isolation "${options.isolation}"`
  }
  return options.readOnly === true && !readOnly ? "readOnly" : undefined
}

const runStep = <A, E, R>(
  step: Step,
  outer: Loan | undefined,
  effect: Effect.Effect<A, E, R>,
  again: { isDue: boolean }
): Effect.Effect<A, E | SqlError, R> => {
  // Under a tracker, a statement of a dying fiber comes before the commit or the rollback.
  const body = (loan: Loan) =>
    Nursery.contain(effect).pipe(
      Effect.provideService(SqlClient.TransactionConnection, [
        new Inside(loan, step.around),
        loan.depth
      ]),
      Effect.provideService(Tracer.ParentSpan, step.span)
    )
  if (outer === undefined) return outermost(step, body, again)
  const wrong = mismatch(step.options, outer)
  return wrong === undefined
    ? nested(step, outer, body)
    : Effect.dieMessage(
      `A nested transaction asks for ${wrong}, which its outermost transaction does not have. Ask for it there.`
    )
}

const attemptOf =
  (pool: SessionPool, spanAttributes: ReadonlyArray<readonly [string, unknown]>) =>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: TransactionOptions,
    again: { isDue: boolean }
  ): Effect.Effect<A, E | SqlError, R> =>
    // MASK: between begin and commit or rollback only waiting, begin, body and commit are restored. The hooks are not.
    Effect.uninterruptibleMask((restore) =>
      Effect.useSpan("sql.transaction", { kind: "client", captureStackTrace: false }, (span) => {
        for (const [key, value] of spanAttributes) span.attribute(key, value)
        return Effect.flatMap(Effect.context<never>(), (context) =>
          Effect.flatMap(Effect.clock, (clock) => {
            const step = { pool, options, around: insideOf(context), restore, span, clock }
            return runStep(step, loanOf(context, pool), effect, again)
          }))
      })
    )

const scheduleOf = (retry: NonNullable<TransactionOptions["retry"]>) =>
  typeof retry === "number"
    ? Schedule.exponential("2 millis").pipe(
      Schedule.either(Schedule.spaced("100 millis")),
      Schedule.jittered,
      Schedule.intersect(Schedule.recurs(retry))
    )
    : retry

/** A transaction of a pool; a nested one if the fiber is in a transaction of the same pool. */
export type WithTransaction = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options?: TransactionOptions | undefined
) => Effect.Effect<A, E | SqlError, R>

export const withTransaction = (
  pool: SessionPool,
  spanAttributes: ReadonlyArray<readonly [string, unknown]>
): WithTransaction => {
  const attempt = attemptOf(pool, spanAttributes)
  return (effect, options = {}) => {
    const { retry } = options
    if (retry === undefined) return attempt(effect, options, { isDue: false })
    return Effect.suspend(() => {
      const again = { isDue: false }
      const once = Effect.suspend(() => {
        again.isDue = false
        return attempt(effect, options, again)
      })
      return Effect.retry(once, { schedule: scheduleOf(retry), while: () => again.isDue })
    })
  }
}

/** Runs `effect` when the transaction around this fiber has ended so; at once if there is none and `on` is "commit". */
export const addHook = <R>(
  pool: SessionPool,
  on: Hook["on"],
  effect: Effect.Effect<void, never, R>
): Effect.Effect<void, never, R> =>
  Effect.flatMap(Effect.context<R>(), (context) => {
    const loan = loanOf(context as Context.Context<never>, pool)
    if (loan === undefined || !loan.isOpen) return on === "commit" ? effect : Effect.void
    const outside = Context.omit(SqlClient.TransactionConnection)(context as never)
    loan.hooks.push({
      on,
      run: (around) =>
        Effect.catchAllCause(
          Effect.provide(
            effect,
            around === undefined
              ? outside
              : Context.add(outside, SqlClient.TransactionConnection, [around, around.loan.depth])
          ) as Effect.Effect<void>,
          (cause) => Effect.logError(`A hook of a Postgres transaction (${on}) failed.`, cause)
        )
    })
    return Effect.void
  })
