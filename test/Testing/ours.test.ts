/** What `Testing` says about this library itself: nothing at any grade, in any order that was tried. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { exitStacks } from "../seeds/exitStack.ts"
import { managed } from "../seeds/lifecycle.ts"
import { ours } from "../seeds/ours.ts"

/** No limit by the clock: a busy machine looks at every point too. */
const budget = { millis: Infinity }

/** These are explored without a fault, too, in the slow files that explore them with each; `npm run check` leaves those out. */
const elsewhere: ReadonlyArray<unknown> = process.env["HOLDFAST_SLOW"] === "false"
  ? []
  : [...exitStacks, ...managed]
const here = ours.filter((own) => !elsewhere.includes(own))

describe("interrupted at every point", { timeout: 120_000 }, () => {
  for (const { interruptions, name } of here) {
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
