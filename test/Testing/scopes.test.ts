import { expect, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { Explore } from "holdfast/Testing"

/** A scope whose finalizers run in the order they came: what a hand-written scope gets wrong. */
const runsForwards = (scope: Scope.CloseableScope): Effect.Effect<void> =>
  Effect.suspend(() => {
    const state: unknown = Reflect.get(scope, "state")
    const finalizers = Reflect.get(Object(state), "finalizers") as Map<
      object,
      Scope.Scope.Finalizer
    >
    const entries = [...finalizers].toReversed()
    finalizers.clear()
    for (const [key, finalizer] of entries) finalizers.set(key, finalizer)
    return Scope.close(scope, Exit.void)
  })

it("a scope that is never closed is a leak, though nothing in it counts itself", async () => {
  const verdict = await Explore.interruptions(
    Effect.flatMap(Scope.make(), (scope) =>
      Effect.zipRight(
        Effect.zipRight(Scope.addFinalizer(scope, Effect.void), Effect.sleep(1)),
        Scope.close(scope, Exit.void)
      ))
  )
  expect(verdict.findings[0]?.violations).toEqual([
    { law: "all is released", message: "1 finalizer(s) of scopes that were never closed" }
  ])
  expect(verdict.findings[0]?.grade).toBe("R0")
})

it("finalizers that run in the wrong order only when interrupted are found", async () => {
  const verdict = await Explore.interruptions(
    Effect.flatMap(Scope.make(), (scope) =>
      Scope.addFinalizer(scope, Effect.void).pipe(
        Effect.zipRight(Scope.addFinalizer(scope, Effect.void)),
        Effect.zipRight(Effect.sleep(1)),
        Effect.onExit((exit) =>
          Exit.isSuccess(exit) ? Scope.close(scope, exit) : runsForwards(scope)
        )
      ))
  )
  expect(verdict.findings.map(({ violations }) => violations[0]?.law)).toContain(
    "released in order"
  )
})
