/** musl cannot be run here: the decision is tested, not the machine. */
import { expect, it } from "@effect/vitest"
import { missingLoader } from "../../../src/Postgres/Embedded/binaries.ts"

it("a system without the program loader of glibc is refused by name, before anything is run", () => {
  expect(missingLoader(() => true, "linux-x64")).toBe(undefined)
  for (const platform of ["linux-x64", "linux-arm64"]) {
    expect(missingLoader(() => false, platform)).toContain("Alpine and other musl systems")
  }
  expect(missingLoader(() => false, "darwin-arm64")).toBe(undefined)
})
