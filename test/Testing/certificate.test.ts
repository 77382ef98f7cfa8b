/** The program that a certificate prints is run as a user would run it: by node, on the built package. */
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, RcRef, Ref } from "effect"
import { Explore, type Probe } from "holdfast/Testing"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { type HandOff, makeHandOff, type Mistakes } from "../seeds/handOff.ts"

const root = path.resolve(import.meta.dirname, "../..")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
fs.chmodSync(folder, 0o755)
const installed = path.join(folder, "node_modules")
fs.mkdirSync(installed)
fs.symlinkSync(path.join(root, "node_modules", "effect"), path.join(installed, "effect"))
fs.symlinkSync(root, path.join(installed, "holdfast"))
fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const run = (subject: string, program: string) => {
  fs.writeFileSync(path.join(folder, "subject.js"), subject)
  fs.writeFileSync(path.join(folder, "program.js"), program)
  const { status, stderr, stdout } = spawnSync(process.execPath, ["program.js"], {
    cwd: folder,
    encoding: "utf8",
    timeout: 20_000
  })
  return { status, stderr, stdout }
}

describe("a certificate is a program", () => {
  it("that hangs without any explorer (R1)", async () => {
    const subject = {
      name: "forEach",
      body: () => Effect.forEach([1, 2], (n) => Effect.sleep(n), { concurrency: 2 })
    }
    const { findings } = await Explore.interruptions(subject)
    const { program } = await Explore.certify(findings[0]!, subject)
    const text = `import { Effect } from "effect"
export const subject = {
  body: () => Effect.forEach([1, 2], (n) => Effect.sleep(n), { concurrency: 2 })
}`
    expect(run(text, program!)).toEqual({
      status: 1,
      stderr: "",
      stdout: "the target exits: never; without an interrupt: yes\n"
    })
    // The same program on what is right.
    const right = `import { Effect } from "effect"
export const subject = { body: () => Effect.sleep(1) }`
    expect(run(right, program!)).toMatchObject({ status: 0, stdout: "nothing went wrong\n" })
  })

  it("that leaks without any explorer (R0), as the finding predicts", async () => {
    const subject: Explore.Subject<RcRef.RcRef<unknown, unknown>> = {
      name: "RcRef",
      setup: (probe) => RcRef.make({ acquire: probe.resource("r", { acquireTakes: 50 }) }),
      body: (ref) => Effect.scoped(RcRef.get(ref))
    }
    const { findings } = await Explore.interruptions(subject)
    const text = `import { Effect, Exit, Fiber, RcRef, Ref } from "effect"
export const subject = {
  setup: (probe) => RcRef.make({ acquire: probe.resource("r", { acquireTakes: 50 }) }),
  body: (ref) => Effect.scoped(RcRef.get(ref))
}`
    expect(run(text, Explore.toProgram(findings[0]!)!)).toEqual({
      status: 1,
      stderr: "",
      stdout: "all is released: r#1, 1 finalizer(s); without an interrupt: yes\n"
    })
  })
})

/** Whether a finding's program fails on its subject, and on the same subject once it is fixed. */
const certified = async <S>(
  broken: Explore.Subject<S>,
  fixed: Partial<Explore.Subject<S>>,
  law: Explore.Violation["law"],
  options?: Explore.Options
) => {
  const { findings } = await Explore.interruptions(broken, options)
  const finding = findings.find(({ grade, violations }) =>
    grade <= "R2" && violations.some((violation) => violation.law === law)
  )
  const certificate = await Explore.certify(finding!, broken)
  expect(certificate.seen).toContain(law)
  const after = await Explore.certify(finding!, { ...broken, ...fixed })
  expect([certificate.certified, after.certified]).toEqual([true, false])
  return { certificate, finding: finding! }
}

describe("Explore-7: a certificate breaks the finding's own law, and nothing once that is fixed", () => {
  it("of a fault", async () => {
    const { certificate } = await certified(
      {
        name: "two",
        body: (_, probe) =>
          Effect.uninterruptible(Effect.gen(function*() {
            const one = yield* probe.acquire("one")
            const two = yield* probe.acquire("two")
            yield* probe.release(two)
            yield* probe.release(one)
          }))
      },
      { body: (_, probe) => Effect.zip(probe.resource("one"), probe.resource("two")) },
      "all is released",
      { faults: ["acquire fails"] }
    )
    expect(certificate.moment).toEqual({ uncut: true })
    expect(certificate.program).toContain(`const fault = { fault: "acquire fails", nth: 2 }`)
  })

  it("of an invariant, by a fiber that is interrupted as it is woken", async () => {
    const withOne = (mistakes: Mistakes) => Effect.sync(() => makeHandOff(mistakes))
    const { certificate } = await certified<HandOff>(
      {
        name: "grant without pass-on",
        setup: withOne({ noPassOn: true }),
        body: ({ withPermit }) =>
          Effect.gen(function*() {
            yield* Effect.forkScoped(withPermit(Effect.sleep(5)))
            yield* Effect.yieldNow()
            yield* withPermit(Effect.yieldNow())
          }),
        invariant: (handOff) => handOff.free() === 1
      },
      { setup: withOne({}) },
      "the invariant holds"
    )
    expect(certificate.moment).toEqual({ stops: expect.any(Number) })
  })

  it("of a point of another fiber", async () => {
    const child = (probe: Probe.Probe, isOneStep: boolean) => {
      const late = Effect.flatMap(
        probe.acquire("r"),
        (handle) => Effect.addFinalizer(() => probe.release(handle))
      )
      const use = isOneStep ? probe.resource("r") : late
      return Effect.zipRight(Effect.yieldNow(), Effect.zipRight(use, Effect.sleep(1)))
    }
    const subject = (isOneStep: boolean) => ({
      name: "child",
      body: (_: void, probe: Probe.Probe) =>
        Effect.flatMap(Effect.fork(child(probe, isOneStep)), Fiber.join)
    })
    const { finding } = await certified(subject(false), subject(true), "all is released")
    expect(finding).toMatchObject({
      grade: "R2",
      window: expect.stringMatching(/ops of other fibers/)
    })
  })

  it("of a subject that fails by contract, and waits for a minute", async () => {
    const use = (isRight: boolean) => (_: void, probe: Probe.Probe) =>
      Effect.zipRight(
        isRight
          ? Effect.scoped(Effect.zipRight(probe.resource("r"), Effect.sleep("1 minute")))
          : Effect.flatMap(
            probe.acquire("r"),
            (handle) => Effect.zipRight(Effect.sleep("1 minute"), probe.release(handle))
          ),
        Effect.fail("no")
      )
    const { certificate } = await certified(
      { name: "fails", body: use(false), fails: true },
      { body: use(true) },
      "all is released"
    )
    expect(certificate.moment).toEqual({ millis: 30_000 })
  })

  it("of code that takes no padding: a child without a probe, and a lost update", async () => {
    const child = (isOneStep: boolean) => (state: { open: number }) => {
      const count = (by: number) => Effect.sync(() => void (state.open += by))
      const use = isOneStep
        ? Effect.acquireUseRelease(count(1), () => Effect.void, () => count(-1))
        : Effect.zipRight(Effect.zipRight(count(1), Effect.void), count(-1))
      return Effect.flatMap(Effect.fork(Effect.zipRight(Effect.yieldNow(), use)), Fiber.join)
    }
    const { certificate } = await certified(
      {
        name: "child",
        setup: Effect.sync(() => ({ open: 0 })),
        body: child(false),
        invariant: ({ open }) => open === 0
      },
      { body: child(true) },
      "the invariant holds"
    )
    expect(certificate.moment).toMatchObject({ fiber: 1 })

    const twice = (increment: (ref: Ref.Ref<number>) => Effect.Effect<void>) => ({
      name: "lost update",
      setup: Ref.make(0),
      body: (ref: Ref.Ref<number>) =>
        Effect.gen(function*() {
          const fibers = [yield* Effect.fork(increment(ref)), yield* Effect.fork(increment(ref))]
          for (const fiber of fibers) yield* Fiber.join(fiber)
          return yield* Ref.getAndSet(ref, 0)
        })
    })
    const check: Explore.Check = (exit) => Exit.isSuccess(exit) && exit.value === 2
    const broken = twice((ref) => Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1)))
    const { findings } = await Explore.interleavings(broken, { check })
    const [finding] = findings
    expect(finding?.grade).toBe("R2")
    const fixed = twice((ref) => Ref.update(ref, (n) => n + 1))
    expect(await Explore.certify(finding!, broken, { check })).toMatchObject({ certified: true })
    expect(await Explore.certify(finding!, fixed, { check })).toMatchObject({ certified: false })
  })
})
