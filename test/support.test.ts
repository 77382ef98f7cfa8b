/** The support of other tests: what a machine lacks is never silent in CI. */
import { describe, expect, it } from "@effect/vitest"
import { tool } from "./support/tools.ts"

const bare = { PATH: "/nowhere" }

describe("programs that tests need", () => {
  it("a program that is absent is an error with CI=true and undefined without", () => {
    expect(tool("redis-server", bare)).toBe(undefined)
    expect(() => tool("redis-server", { ...bare, CI: "true" })).toThrow(
      "CI=true and redis-server does not run here (tried: redis-server --version). Install it."
    )
  })
})
