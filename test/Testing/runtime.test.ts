import { expect, it } from "@effect/vitest"
import { Effect, Scope } from "effect"
import { vi } from "vitest"

it("Explore-1: on a runtime it does not know it refuses to run, and names the fact", async () => {
  // The check is made once per process: a fresh copy of the module makes it again.
  vi.resetModules()
  const { Explore } = await import("holdfast/Testing")
  const prototype: object = Object.getPrototypeOf(Effect.runSync(Scope.make()))
  const original = Object.getOwnPropertyDescriptor(prototype, "addFinalizer")!
  const explored = (): Promise<string> =>
    Promise.resolve().then(() => Explore.interruptions(Effect.void)).then(
      (verdict) => verdict.status,
      (error: Error) => `${error.name}: ${error.message}`
    )
  // As if another version had sealed its scopes.
  Object.defineProperty(prototype, "addFinalizer", { ...original, writable: false })
  try {
    const refused = /^UnknownRuntime: Explore-1: .* all scopes share one prototype/
    expect(await explored()).toMatch(refused)
    Object.defineProperty(prototype, "addFinalizer", original)
    expect(await explored()).toMatch(refused)
  } finally {
    Object.defineProperty(prototype, "addFinalizer", original)
  }
})
