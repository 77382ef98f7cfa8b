/** A fast part of the hostile programs, each judged once. `npm run explore -- hostile` judges all of them, 20 times in a row. */
import { expect, it } from "@effect/vitest"
import { Explore } from "holdfast/Testing"
import { hostiles, saidOf, tidyUp } from "../seeds/hostile.ts"

it("there are at least sixty, and half of them do real I/O", () => {
  expect(hostiles.length).toBeGreaterThanOrEqual(60)
  expect(hostiles.filter(({ isReal }) => isReal).length * 2).toBeGreaterThanOrEqual(hostiles.length)
})

for (const hostile of hostiles.filter(({ isFast }) => isFast)) {
  it(`${hostile.name}: ${hostile.rightful}`, async () => {
    const verdict = await hostile.explore().finally(tidyUp)
    expect(saidOf(verdict, hostile), Explore.format(verdict)).toBe(hostile.rightful)
  })
}
