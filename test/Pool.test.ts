import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Pool from "holdfast/Pool"

describe("Pool", () => {
  it.scoped("lends, takes back, counts", () =>
    Effect.gen(function*() {
      let made = 0
      const pool = yield* Pool.make({ acquire: Effect.sync(() => ++made), max: 2 })
      expect(yield* Pool.use(pool, (item) => Effect.as(Effect.yieldNow(), item))).toBe(1)
      const { idle, size, used } = Pool.unsafeStats(pool)
      expect({ idle, size, used }).toEqual({ idle: 1, size: 1, used: 0 })
    }))
})
