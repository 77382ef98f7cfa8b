import { Effect } from "effect"
import * as Cause from "effect/Cause"
import { Ledger, Managed } from "holdfast"
import * as View from "holdfast/Ledger/View"
import { describe, expect, it } from "vitest"
import { prettyOf } from "../../src/internal/exit.ts"

const circular = (): Error => {
  const error = new Error("round and round")
  error.cause = error
  return error
}
const secretive = (): Error =>
  Object.defineProperty(new Error(), "message", {
    get: () => {
      throw new Error("no comment")
    }
  })

describe("an error that cannot be shown", () => {
  it("hides nothing but itself", () => {
    const cause = Cause.sequential(
      Cause.fail(circular()),
      Cause.parallel(Cause.die(secretive()), Cause.die(new Error("the other one")))
    )
    expect(prettyOf(cause).split("\n")).toEqual([
      "Error: round and round",
      "an error that cannot be shown",
      "Error: the other one"
    ])
  })

  it("View-1: does not take a ledger's views with it", async () => {
    const bad = (error: Error) =>
      Managed.make({ name: "bad", acquire: Effect.void, release: () => Effect.fail(error) })
    const program = Effect.gen(function*() {
      for (const error of [circular(), secretive()]) {
        yield* Effect.sandbox(Managed.use(bad(error), () => Effect.void)).pipe(Effect.ignore)
      }
      return yield* Ledger.snapshot
    })
    const seen = await Effect.runPromise(Effect.provide(program, Ledger.layer()))
    expect(seen.ended.map(({ cause }) => cause)).toEqual([
      "Error: round and round",
      "an error that cannot be shown"
    ])
    expect(JSON.stringify(seen)).toContain("round and round")
    for (const view of [View.text, View.json, View.svg, View.html]) {
      expect(view(seen)).toContain("bad")
    }
  })
})
