/** Two interrupts of one use, and an interrupt of the fiber that closes the owner and waits for its releases. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, type Scope } from "effect"
import { Explore, type Probe } from "holdfast/Testing"

type Work = Effect.Effect<void>

/** Cleans up in a child, which the next interrupt of its parent reaches. */
const inChild = (work: Work): Work =>
  Effect.asVoid(Effect.flatMap(Effect.fork(Effect.interruptible(work)), Fiber.await))

/** The same, masked. */
const inMaskedChild = (work: Work): Work =>
  Effect.asVoid(Effect.flatMap(Effect.fork(Effect.uninterruptible(work)), Fiber.await))

type Within = (work: Work) => Work

/** A use that on an interrupt says goodbye for a while, before it releases. */
const farewell = (within: Within): Explore.Subject => ({
  name: "farewell",
  body: (_, probe) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(probe.acquire("r"), (handle) => {
        const release = probe.release(handle)
        const slowly = Effect.zipRight(Effect.sleep(10), release)
        const use = Effect.onInterrupt(restore(Effect.sleep(5)), () => within(slowly))
        return Effect.zipRight(use, release)
      })
    )
})

/** A resource of the owner, released in a fiber of its own. */
const owned = (within: Within): Explore.Subject<Probe.Handle> => ({
  name: "owned",
  setup: (probe): Effect.Effect<Probe.Handle, unknown, Scope.Scope> =>
    Effect.acquireRelease(
      probe.acquire("r"),
      (handle) => within(Effect.zipRight(Effect.sleep(10), probe.release(handle)))
    ),
  body: () => Effect.sleep(1)
})

describe("two interrupts", () => {
  it("Explore-14: the second cuts a clean-up that runs in a child", async () => {
    const once = await Explore.interruptions(farewell(inChild))
    expect(once.status, Explore.format(once)).toBe("safe")
    const twice = await Explore.interruptions(farewell(inChild), { interrupts: 2 })
    const [finding] = twice.findings
    expect(twice.findings.length).toBe(1)
    expect(finding).toMatchObject({
      grade: "R0",
      violations: [{ law: "all is released" }],
      mistake: { kind: "a clean-up that a second interrupt cuts" }
    })
    expect(finding?.window).toMatch(
      /^ops .*as it begins to wait, time 1.*, again .*as it begins to wait, time 1/
    )
    expect(finding?.nearestPass).toMatch(/breaks nothing; resources: \+r#1 -r#1/)
  })

  it("Explore-14: a token of two interrupts replays them, and its plain program fails", async () => {
    const { findings } = await Explore.interruptions(farewell(inChild), { interrupts: 2 })
    const token = findings[0]!.token
    expect(token).toMatch(/^X1\.\w+\.[a-z]\d+\.i[a-z]\d+\./)
    const again = await Explore.replay(token, farewell(inChild))
    expect(again.violations).toEqual(findings[0]!.violations)
    expect(again.steps).toBe(findings[0]!.steps)
    const certificate = await Explore.certify(findings[0]!, farewell(inChild))
    expect(certificate.moment?.again).toBeDefined()
    const fixed = await Explore.certify(findings[0]!, farewell(inMaskedChild))
    expect(fixed.certified).toBe(false)
  })

  it("Explore-14: a masked clean-up is safe, and the verdict counts the pairs", async () => {
    const settings = { interrupts: 2 as const, pairs: 100 }
    const verdict = await Explore.interruptions(farewell(inMaskedChild), settings)
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(verdict.covered).toMatch(
      /^every point, 100 of \d{3,} pairs of interrupts whose second reaches another fiber \(sampled\), 10 of \d{2,} other pairs \(sampled\), FIFO order/
    )
  })

  it("Explore-14: what the second interrupt cannot reach ends as with one", async () => {
    const verdict = await Explore.interruptions(farewell((work) => work), {
      interrupts: 2,
      pairs: 100_000
    })
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(verdict.covered).toMatch(
      /, 0 of 0 pairs of .*, (?<all>\d{3,}) of \k<all> other pairs, FIFO order/
    )
  })
})

describe("an interrupt of the owner's close", () => {
  const settings: Explore.Options = { uses: ["close"] }

  it("Explore-14: it cuts a release that runs in a child", async () => {
    const use = await Explore.interruptions(owned(inChild), { interrupts: 2 })
    expect(use.status, Explore.format(use)).toBe("safe")
    const close = await Explore.interruptions(owned(inChild), settings)
    const [finding] = close.findings
    expect(finding).toMatchObject({
      grade: "R0",
      violations: [{ law: "all is released" }],
      mistake: { kind: "a release that an interrupt can cut" }
    })
    expect(finding?.token).toMatch(/\.uc\./)
    const again = await Explore.replay(finding!.token, owned(inChild))
    expect(again.violations).toEqual(finding!.violations)
    expect((await Explore.certify(finding!, owned(inChild))).certified).toBe(true)
  })

  it("Explore-14: a masked release goes on to its end", async () => {
    const verdict = await Explore.interruptions(owned(inMaskedChild), settings)
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(verdict.covered).toBe("every point, FIFO order, this input, the owner's close")
  })
})
