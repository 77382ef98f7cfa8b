/** `Managed` stopped and interrupted at every point: strict, so at all five grades of reach. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { managed } from "./seeds/lifecycle.ts"

const strict: Explore.Options = { fail: ["R0", "R1", "R2", "R3", "R4"] }

describe("Managed-1, Managed-2, Managed-3, Managed-7: interrupted at every point", () => {
  for (const { interruptions, name } of managed) {
    it(name, async () => {
      const verdict = await interruptions(strict)
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
      expect(verdict.covered).toBe("every point, FIFO order, this input")
    })
  }
})
