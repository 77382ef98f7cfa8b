/** Orders of three fibers: the reduced exploration finds what the plain one finds, with a tenth of its schedules. */
import { describe, expect, it } from "@effect/vitest"
import { ordersOf, trios } from "../seeds/trios.ts"

describe("reduced orders", () => {
  for (const trio of trios) {
    it(`Explore-15: ${trio.name}: ${trio.isBroken ? "found" : "safe"}`, async () => {
      const { status, wrong } = await ordersOf(trio, true)
      expect({ status, isWrong: wrong.length > 0 }).toEqual({
        status: trio.isBroken ? "violations" : "safe",
        isWrong: trio.isBroken
      })
    })
  }

  // `npm run explore -- orders` shows all of them.
  const some = new Set(["a torn read that takes two delays", "a lost update of a Ref"])
  for (const trio of trios.filter(({ name }) => some.has(name))) {
    it(`Explore-15: ${trio.name}: the same ends as every set of delays, with a tenth of them`, async () => {
      const plain = await ordersOf(trio, false)
      const reduced = await ordersOf(trio, true)
      expect(reduced.wrong).toEqual(plain.wrong)
      expect(reduced.runs).toBeLessThan(plain.runs / 10)
    })
  }
})
