import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, it } from "vitest"
import { run } from "../support/command.ts"

// Below the repository, so that the module finds the same `effect`.
const support = fileURLToPath(new URL("../support", import.meta.url))
const folder = fs.mkdtempSync(path.join(support, "explore-"))
afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true })
})

const moduleOf = (name: string, text: string): string => {
  const file = path.join(folder, `${name}.mjs`)
  fs.writeFileSync(file, text)
  return file
}

describe("holdfast explore", () => {
  it("CliExplore-1: safe effects and subjects pass", async () => {
    const safe = moduleOf(
      "safe",
      `import { Effect } from "effect"
       import { Semaphore } from "holdfast"
       export const bracket = Effect.acquireUseRelease(Effect.void, () => Effect.sleep(5), () => Effect.void)
       export const subjects = [{
         name: "a permit", setup: Semaphore.make(1), body: (one) => Semaphore.withPermit(one)(Effect.yieldNow())
       }]
       export const answer = 42`
    )
    const ended = await run(["explore", safe])
    expect(ended.code, ended.out + ended.err).toBe(0)
    expect(ended.out).toContain("bracket is safe")
    expect(ended.out).toContain("a permit is safe")
    expect(ended.out).toContain("2 passed, 0 failed")
  })

  it("CliExplore-1: a leak fails, with its line and a token; --json gives verdicts", async () => {
    const leaky = moduleOf(
      "leaky",
      `import { Effect } from "effect"
       let open = 0
       export const leaky = {
         name: "leaky",
         setup: Effect.sync(() => { open = 0 }),
         body: () => Effect.gen(function*() {
           open++
           yield* Effect.sleep(5)
           open--
         }),
         invariant: () => open === 0
       }`
    )
    const ended = await run(["explore", leaky])
    expect(ended.code, ended.out + ended.err).toBe(1)
    expect(ended.out).toContain("HOLDFAST_REPLAY=")
    expect(ended.out).toContain("0 passed, 1 failed")
    const json = await run(["explore", leaky, "--json", "--mode", "quick"])
    expect(json.code).toBe(1)
    expect(JSON.parse(json.out)).toMatchObject({ name: "leaky", status: "violations" })
  })

  it("CliExplore-2: --page writes one page with every verdict", async () => {
    const module = moduleOf(
      "pictured",
      `import { Effect } from "effect"
       export const safe = Effect.sleep(5)
       export const hangs = { name: "waits & waits", body: () => Effect.onInterrupt(Effect.sleep(5), () => Effect.never) }`
    )
    const page = path.join(folder, "out.html")
    const ended = await run(["explore", module, "--mode", "quick", "--page", page])
    expect(ended.code, ended.out + ended.err).toBe(1)
    const html = fs.readFileSync(page, "utf8")
    expect(html).toContain("<title>2 subjects: 1 passed, 1 failed</title>")
    expect(html.match(/<svg/g)).toHaveLength(2)
    expect(html).toContain("waits &#38; waits: 1 finding")
    expect(html).toContain("the target exits: the fiber never exits")

    const nowhere = path.join(folder, "missing", "out.html")
    const refused = await run(["explore", module, "--mode", "quick", "--page", nowhere])
    expect(refused.code).toBe(2)
    expect(refused.err).toContain(path.dirname(nowhere))
    expect(refused.out).toContain("1 passed, 1 failed")
  })

  it("nothing to explore: exit 2 and what to export", async () => {
    for (
      const file of [
        moduleOf("empty", "export const answer = 42"),
        path.join(folder, "missing.mjs")
      ]
    ) {
      const ended = await run(["explore", file])
      expect(ended.code).toBe(2)
      expect(ended.err).toContain("Export effects, or subjects")
    }
  })
})
