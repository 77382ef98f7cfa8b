/** `Managed` interrupted at every point while nothing or one thing goes wrong, all grades counted. */
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
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
      expect(verdict.covered).toBe("every point, FIFO order, this input, first use")
    })
  }
})
