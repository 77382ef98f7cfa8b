import { Effect } from "effect"
import { Pool } from "holdfast"
import { it } from "holdfast/Testing/Vitest"

const connect = Effect.acquireRelease(Effect.succeed("connection"), () => Effect.void)

it.interruptSafe("two queries on one pool", {
  setup: Pool.make({ acquire: connect, max: 1 }),
  body: (pool) => Effect.zip(Pool.use(pool, Effect.succeed), Pool.use(pool, Effect.succeed)),
  invariant: (pool) => Pool.unsafeStats(pool).used === 0
})
