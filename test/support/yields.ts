/**
 * For sweeps over the default op budget: a delay of so many operations puts the next yield of a fiber where one wants it.
 */
import { Effect, Fiber } from "effect"

/** How many turns of the loop below fit in before a fiber yields by itself. */
export const turnsBeforeYield = Effect.gen(function*() {
  let turns = 0
  const looping = yield* Effect.fork(
    Effect.whileLoop({ while: () => true, body: () => Effect.void, step: () => turns++ })
  )
  // Its turn comes when the one before it yields for the first time.
  const looking = yield* Effect.fork(Effect.sync(() => turns))
  const atYield = yield* Fiber.join(looking)
  yield* Fiber.interrupt(looping)
  return atYield
})

/** So many operations, none of which yields. */
export const delayed = (turns: number) => {
  let left = turns
  return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step: () => {} })
}
