/**
 * Postgres/client: the `SqlClient` of a pool.
 *
 * DESIGN. As `SqlClient.make`, but a statement looks for the transaction of its own pool, where that takes whichever transaction is
 * around. ../Postgres.ts has the invariants.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Statement from "@effect/sql/Statement"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
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

export const makeClient = (
  { compiler, pool, reserve, spanAttributes, transformRows }: Options
): Effect.Effect<SqlClient.SqlClient, never, Reactivity.Reactivity> =>
  Effect.map(Reactivity.Reactivity, (reactivity) => {
    const single = new Single(pool)
    const acquirer = Effect.contextWith((context: Context.Context<never>) =>
      loanOf(context, pool) ?? single
    )
    const client: any = Object.assign(
      Statement.make(acquirer, compiler, spanAttributes, transformRows),
      {
        [SqlClient.TypeId]: SqlClient.TypeId,
        reserve,
        withTransaction: withTransaction(pool, spanAttributes),
        withoutTransforms(this: SqlClient.SqlClient) {
          if (transformRows === undefined) return this
          const bare = Statement.make(
            acquirer,
            compiler.withoutTransform,
            spanAttributes,
            undefined
          )
          const other: any = Object.assign(bare, { ...this, ...bare })
          return Object.assign(other, { safe: other, withoutTransforms: () => other })
        },
        reactive: reactivity.stream,
        reactiveMailbox: reactivity.query
      }
    )
    return Object.assign(client, { safe: client })
  })
