/** `Managed` interrupted at every point while one thing goes wrong, all grades counted; without a fault: test/Testing/ours.test.ts. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { managed } from "./seeds/lifecycle.ts"

/** Not those that never return: what is masked then waits for ever by contract, or is abandoned by name (Managed-3). */
const faults: Explore.Faults = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "release dies",
  "release is slow"
]

/** No limit by the clock: a busy machine looks at every point too. */
const budget = { millis: Infinity }

describe("Managed-1, Managed-4, Managed-7: with each fault, interrupted at every point", {
  timeout: 120_000
}, () => {
  for (const { interruptions, name } of managed) {
    it(name, async () => {
      const verdict = await interruptions({ fail: ["R0", "R1", "R2", "R3", "R4"], faults, budget })
      expect(verdict.passed, Explore.format(verdict)).toBe(true)
    })
  }
})
