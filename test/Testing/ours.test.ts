/** What `Testing` says about this library itself: nothing at any grade, in any order that was tried. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { ours } from "../seeds/ours.ts"

/** No limit by the clock: a busy machine looks at every point too. */
const budget = { millis: Infinity }

describe("interrupted at every point", { timeout: 120_000 }, () => {
  for (const { interruptions, name } of ours) {
    it(name, async () => {
      const verdict = await interruptions({ budget })
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
      expect(verdict.covered).toBe("every point, FIFO order, this input, first use")
    })
  }
})

describe("in every order with one delay", { timeout: 120_000 }, () => {
  for (const { interleavings, name } of ours) {
    if (interleavings === undefined) continue
    it(name, async () => {
      const verdict = await interleavings({ delays: 1, random: 50, pct: { runs: 50 }, budget })
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
    })
  }
})
