/** What `Testing` says about this library itself: nothing at any grade, in any order that was tried. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { ours } from "../seeds/ours.ts"

describe("interrupted at every point", () => {
  for (const { interruptions, name } of ours) {
    it(name, async () => {
      const verdict = await interruptions()
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
      expect(verdict.covered).toBe("every point, FIFO order, this input")
    })
  }
})

describe("in every order with one delay", () => {
  for (const { interleavings, name } of ours) {
    if (interleavings === undefined) continue
    it(name, async () => {
      const verdict = await interleavings({ delays: 1, random: 50, pct: { runs: 50 } })
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
    })
  }
})
