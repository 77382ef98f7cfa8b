/** Every way to use a stack, interrupted at every point, with each fault and in other orders, all grades counted. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { exitStacks } from "./seeds/exitStack.ts"

const strict: Explore.Options = { fail: ["R0", "R1", "R2", "R3", "R4"] }

/** Not those that never return: what is masked then waits for ever by contract, or is abandoned by name (ExitStack-4). */
const faults: Explore.Faults = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "release dies",
  "release is slow"
]

describe("ExitStack-1, ExitStack-2, ExitStack-5, ExitStack-6, ExitStack-7, ExitStack-8: interrupted at every point", () => {
  for (const { interruptions, name } of exitStacks) {
    it(name, async () => {
      const verdict = await interruptions(strict)
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
      expect(verdict.covered).toBe("every point, FIFO order, this input")
      const faulty = await interruptions({ ...strict, faults })
      expect(faulty.passed, Explore.format(faulty)).toBe(true)
    })
  }
})

describe("ExitStack-5, ExitStack-6, ExitStack-7: in every order with one delay", () => {
  for (const { interleavings, name } of exitStacks) {
    if (interleavings === undefined) continue
    it(name, async () => {
      const verdict = await interleavings({ delays: 1, random: 50, pct: { runs: 50 } })
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
    })
  }
})
