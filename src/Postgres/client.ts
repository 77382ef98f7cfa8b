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
import * as Channel from "effect/Channel"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import type * as Effectable from "effect/Effectable"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { loanOf, Single, type Statements } from "./loan.ts"
import type { SessionPool } from "./pool.ts"
import type { Rows } from "./stream.ts"
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

/** A statement of `@effect/sql`, with what its typings keep private. */
declare class Stock extends Effectable.Class<ReadonlyArray<any>, SqlError> {
  constructor(segments: ReadonlyArray<Statement.Segment>, ...client: ReadonlyArray<unknown>)
  readonly segments: ReadonlyArray<Statement.Segment>
  withConnection(
    operation: string,
    run: Run,
    withoutTransform?: boolean
  ): Effect.Effect<unknown, SqlError>
  get stream(): Stream.Stream<any, SqlError>
  compile(withoutTransform?: boolean): readonly [sql: string, params: ReadonlyArray<unknown>]
  commit(): Effect.Effect<ReadonlyArray<any>, SqlError>
}

/** Whether nothing looks at the statements of a fiber. */
const isUnwatched = (fiber: Fiber.RuntimeFiber<any, any>): boolean =>
  fiber.currentTracer === noTracer
  && Option.isNone(fiber.getFiberRef(Statement.currentTransformer))

/** `Statement.make`, whose statements take the short way where they can. */
const constructorOf = (
  { compiler, pool, spanAttributes, transformRows }: Omit<Options, "reserve">
): Statement.Constructor => {
  const single = new Single(pool)
  const connectionOf = (context: Context.Context<never>): Statements =>
    loanOf(context, pool) ?? single
  const client = [
    Effect.contextWith(connectionOf),
    compiler,
    spanAttributes,
    transformRows
  ] as const
  const stock = Statement.make(...client)
  const Base = stock.unsafe("").constructor as typeof Stock
  class Quick extends Base {
    override withConnection(operation: string, run: Run, withoutTransform?: boolean) {
      return Effect.withFiberRuntime<unknown, SqlError>((fiber) => {
        if (!isUnwatched(fiber)) return super.withConnection(operation, run, withoutTransform)
        const [sql, params] = this.compile(withoutTransform)
        return run(connectionOf(fiber.currentContext), sql, params)
      })
    }

    override get stream() {
      const rows = Effect.withFiberRuntime<Rows, SqlError, Scope.Scope>((fiber) => {
        if (!isUnwatched(fiber)) return Effect.succeed(Stream.toChannel(super.stream))
        const [sql, params] = this.compile()
        return connectionOf(fiber.currentContext).rows(sql, params, transformRows)
      })
      return Stream.fromChannel(Channel.unwrapScoped(rows))
    }
  }
  const quicken = ({ segments }: Statement.Fragment): any => new Quick(segments, ...client)
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
