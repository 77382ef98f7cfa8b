/** What `Testing` says about this library itself: nothing at any grade, in any order that was tried. */
import { describe, expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { ours } from "../seeds/ours.ts"

/**
 * A waiter that finds no permit and stands in line one operation later misses the release in between (found here; reported).
 * Once they pass, take the names away.
 */
const lostWakeUps = new Set([
  "Semaphore.withPermit, beside",
  "Mutex.withLock, beside",
  "KeyedMutex.withKeys, beside",
  "RwLock.withWrite, beside",
  "RwLock.withRead beside a writer, beside",
  "Lock.withLock, beside"
])

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
    const test = lostWakeUps.has(name) ? it.fails : it
    test(name, async () => {
      const verdict = await interleavings({ delays: 1, random: 50, pct: { runs: 50 } })
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
    })
  }
})
