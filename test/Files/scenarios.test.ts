import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Files from "holdfast/Files"
import { operations, scenarios, swept } from "../support/fileScenarios.ts"

const zero = (facts: object) =>
  expect(facts).toEqual(Object.fromEntries(Object.keys(facts).map((name) => [name, 0])))

describe("what goes wrong with files (npm run bench -- files-faults has the platform beside ours)", () => {
  for (const { name, ours } of scenarios) {
    it.scopedLive(`Files-1, Files-2, Files-3: ${name}`, () =>
      Effect.gen(function*() {
        zero(yield* ours(yield* Files.tempDirectory(), 10))
      }))
  }
})

describe("interruptions, at another step each time", () => {
  // HOLDFAST_INTERRUPTIONS=1000 for more.
  const rounds = Number(process.env["HOLDFAST_INTERRUPTIONS"] ?? 60)
  for (const [name, operation] of Object.entries(operations)) {
    it.scopedLive(`Files-1, Files-3, Files-7: ${name} leaves no descriptor, no file and no mix`, () =>
      Effect.gen(function*() {
        zero(yield* swept(operation, yield* Files.tempDirectory(), rounds))
      }))
  }
})
