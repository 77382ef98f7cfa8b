/**
 * Postgres/client: the `SqlClient` of a pool.
 *
 * DESIGN. As `SqlClient.make`, but a statement looks for the transaction of its own pool, where that takes whichever transaction is
 * around. A statement that has neither a tracer nor a transformer runs without a span and a scope, which cost more than the
 * statement. ../Postgres.ts has the invariants.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { loanOf, Single } from "./loan.ts"
import type { SessionPool } from "./pool.ts"
import { withTransaction } from "./transaction.ts"

interface Options {
  readonly pool: SessionPool
  readonly reserve: Effect.Effect<Connection, SqlError, Scope.Scope>
  readonly compiler: Statement.Compiler
  readonly spanAttributes: ReadonlyArray<readonly [string, unknown]>
  readonly transformRows?: Parameters<typeof Statement.make>[3]
}

/** Effect's default tracer, which records nothing. */
const noTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

type Run = (
  connection: Connection,
  sql: string,
  params: ReadonlyArray<unknown>
) => Effect.Effect<unknown, SqlError>

type WithConnection = (
  operation: string,
  run: Run,
  withoutTransform?: boolean
) => Effect.Effect<unknown, SqlError>

/** The method through which a statement of `@effect/sql` runs; its typings keep it private. */
interface Running extends Statement.Statement<any> {
  withConnection: WithConnection
}

/** `Statement.make`, whose statements take the short way. A version of `@effect/sql` without `withConnection` never takes it. */
const constructorOf = (
  { compiler, pool, spanAttributes, transformRows }: Omit<Options, "reserve">
): Statement.Constructor => {
  const single = new Single(pool)
  const connectionOf = (context: Context.Context<never>): Connection =>
    loanOf(context, pool) ?? single
  const stock = Statement.make(
    Effect.contextWith(connectionOf),
    compiler,
    spanAttributes,
    transformRows
  )
  const { withConnection }: Running = Object.getPrototypeOf(stock.unsafe(""))
  function quick(this: Running, ...how: Parameters<WithConnection>) {
    return Effect.withFiberRuntime<unknown, SqlError>((fiber) => {
      const isBare = fiber.currentTracer === noTracer
        && Option.isNone(fiber.getFiberRef(Statement.currentTransformer))
      if (!isBare) return withConnection.apply(this, how)
      const [, run, withoutTransform] = how
      const [sql, params] = this.compile(withoutTransform)
      return run(connectionOf(fiber.currentContext), sql, params)
    })
  }
  const quicken = (statement: object): any => {
    ;(statement as Running).withConnection = quick
    return statement
  }
  const template = (first: any, ...values: Array<any>) => {
    const made = stock(first, ...values)
    return typeof first === "string" ? made : quicken(made)
  }
  const unsafe: Statement.Constructor["unsafe"] = (sql, params) =>
    quicken(stock.unsafe(sql, params))
  return Object.assign(template, stock, { unsafe }) as Statement.Constructor
}

export const makeClient = (
  options: Options
): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> =>
  Effect.map(Reactivity.Reactivity, (reactivity) => {
    const { compiler, pool, reserve, spanAttributes, transformRows } = options
    const client: any = Object.assign(constructorOf(options), {
      [SqlClient.TypeId]: SqlClient.TypeId,
      reserve,
      withTransaction: withTransaction(pool, spanAttributes),
      withoutTransforms(this: SqlClient.SqlClient) {
        if (transformRows === undefined) return this
        const untransformed = { compiler: compiler.withoutTransform, transformRows: undefined }
        const bare = constructorOf({ ...options, ...untransformed })
        const other: any = Object.assign(bare, { ...this, ...bare })
        return Object.assign(other, { safe: other, withoutTransforms: () => other })
      },
      reactive: reactivity.stream,
      reactiveMailbox: reactivity.query
    })
    return Object.assign(client, { safe: client })
  })
