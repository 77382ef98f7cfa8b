/** The report of a verdict, as its reader sees it: the mistake, the line, the fix; and its picture. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, RcRef } from "effect"
import { Explore } from "holdfast/Testing"
import { planted } from "../seeds/planted.ts"

const late: Explore.Subject = {
  name: "late <script>",
  body: (_, probe) =>
    Effect.gen(function*() {
      const handle = yield* probe.acquire("db")
      yield* Effect.addFinalizer(() => probe.release(handle)) // here
    })
}

/** The kinds of mistakes that are found in each planted bug. */
const kinds: Readonly<Record<string, string>> = {
  "grant without pass-on": "taken, and not given back",
  "cancel handler dropped": "taken, and not given back",
  "mask removed": "taken, and not given back",
  "release on success only": "taken, and not given back",
  "release twice": "a change that is half done",
  "release registered one step late": "acquired, but not yet registered",
  "bracket without a mask": "acquired, but not yet registered",
  "release after the use, not whatever happens": "released only when the use ends well",
  "released by the finalizer and by the interrupt": "two owners of one release",
  "a counter that comes down on success only": "counted up, and not down",
  "a cache that its first user poisons": "taken, and not given back",
  "a daemon that only success ends": "a fiber that nobody ends",
  "a close that waits for what only success brings":
    "a close that waits for what only a finished use gives",
  "a masked wait for a child that was interrupted": "a wait that nothing ends",
  "a loop that waits for a flag without waiting": "a loop that never sleeps",
  "a wrapped service that is not closed when its use is cut": "released only when the use ends well"
}

describe("a report", () => {
  it("names the mistake, the user's line, why and the fix; explains the grades once; has the plain program", async () => {
    const verdict = await Explore.interruptions(late)
    const [finding] = verdict.findings
    const text = Explore.format(verdict)
    expect(text).toMatch(/^✗ late <script> is not safe: 1 finding/)
    expect(text).toContain("1. R1 · acquired, but not yet registered")
    expect(text).toMatch(/stopped at +test\/Testing\/report\.test\.ts:1[1-4]:/)
    expect(text).toMatch(/fix +Acquire and register in one step: Effect\.acquireRelease/)
    expect(text.match(/ R1 in its first slice/g)).toHaveLength(1)
    expect(text).toContain("const find = async () => {")
    // The trace is collapsed: a row for a line of source, not for an operation.
    expect(finding!.steps.split("\n").length).toBeLessThan(12)
    expect(finding!.steps).toMatch(/> +\d+ │/)
  })

  it("an acquire that goes on after the interrupt is another mistake, at the body's line when all frames are a library's", async () => {
    const { findings } = await Explore.interruptions<RcRef.RcRef<unknown, unknown>>({
      name: "RcRef",
      setup: (probe) => RcRef.make({ acquire: probe.resource("r", { acquireTakes: 10 }) }),
      body: (ref) => Effect.scoped(RcRef.get(ref)) // the body
    })
    expect(findings[0]).toMatchObject({
      grade: "R0",
      mistake: { kind: "an acquire that outlives its interrupt" },
      at: expect.stringMatching(/^in the body at test\/Testing\/report\.test\.ts:57:/)
    })
  })

  it("an effect alone has a line as well", async () => {
    const alone = Effect.gen(function*() {
      yield* Effect.yieldNow()
      yield* Effect.forEach([1, 2], () => Effect.yieldNow(), { concurrency: 2 })
    })
    const { findings } = await Explore.interruptions(alone)
    expect(findings[0]?.at).toMatch(/test\/Testing\/report\.test\.ts:69:/)
  })

  for (const seed of planted(Explore.interruptions)) {
    if (seed.grade === undefined) continue
    it(`the mistake in "${seed.name}"`, async () => {
      const { findings } = await seed.explore({ mode: "quick" })
      expect(findings[0]?.mistake?.kind).toBe(kinds[seed.name])
    })
  }
})

describe("a picture", () => {
  it("has a line of operations for each finding, its windows by grade, and no markup of the program's", async () => {
    const verdict = await Explore.interruptions(late)
    const svg = Explore.svg(verdict)
    expect(svg).toMatch(/^<svg .* role="img"/)
    expect(svg).toMatch(/<rect class="R1"[^>]*><title>R1: operations \d+ to \d+<\/title><\/rect>/)
    expect(svg).toContain("prefers-color-scheme:dark")
    const html = Explore.html(verdict)
    expect(html).toContain(svg)
    expect(html).not.toContain("<script>")
    expect(html).toContain("default-src 'none'")
    expect(html).toContain("<summary>A plain program that fails without the explorer</summary>")
  })

  it("shows waits, and operations of other fibers on a line of their own", async () => {
    const grant = planted(Explore.interruptions).find(({ name }) => name === "release twice")
    const verdict = await grant!.explore()
    const svg = Explore.svg(verdict)
    expect(svg).toMatch(/<polygon class="R0"[^>]*><title>R0: as it waits after operation \d+/)
    expect(svg).toContain("operations of all fibers")
    expect(verdict.findings[0]?.ranges.map(({ kind }) => kind)).toContain("other")
  })

  it("of a safe verdict is one line", async () => {
    const svg = Explore.svg(await Explore.interruptions(Effect.void))
    expect(svg).toContain("own operations, each interrupted")
    expect(svg.match(/<line /g)).toHaveLength(1)
  })
})
