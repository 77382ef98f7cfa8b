/**
 * The explorer on programs that are known: what effect 3.22.4 gets wrong, what was planted, and what is right.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Ref } from "effect"
import { Batch, Lock, Managed, Parallel, Semaphore } from "holdfast"
import { Explore, type Probe } from "holdfast/Testing"
import { type HandOff, makeHandOff, type Mistakes } from "./seeds/handOff.ts"
import { planted } from "./seeds/planted.ts"
import { gradeInNursery, type Seed, upstream } from "./seeds/upstream.ts"

const seen = (verdict: Explore.Verdict, law: Explore.Violation["law"] | undefined) => {
  const finding = verdict.findings.find(({ violations }) =>
    law === undefined || violations.some((one) => one.law === law)
  )
  return { status: verdict.status, grade: finding?.grade, notes: verdict.notes }
}

const expected = ({ grade }: Seed) => ({
  status: grade === undefined ? "safe" : "violations",
  grade,
  notes: []
})

const known = upstream(Explore.interruptions)

// Explored once, looked at twice: by what it finds and by what it can prove.
const verdicts = new Map<Seed, Promise<Explore.Verdict>>()
const explored = (seed: Seed): Promise<Explore.Verdict> => {
  const verdict = verdicts.get(seed) ?? seed.explore()
  verdicts.set(seed, verdict)
  return verdict
}

describe("operators of effect 3.22.4", () => {
  for (const seed of known) {
    it(`${seed.name}: ${seed.grade ?? "safe"}`, async () => {
      expect(seen(await explored(seed), seed.law)).toEqual(expected(seed))
    })
  }
})

describe("the same inside a nursery", () => {
  // `npm run explore` shows the whole column.
  const some = new Set(["all", "race", "withEarlyRelease", "RcRef.get", "RcRef.get, slow acquire"])
  for (const seed of known.filter(({ name }) => some.has(name))) {
    const grade = gradeInNursery(seed)
    it(`Nursery-3: ${seed.name}: ${grade ?? "safe"}`, async () => {
      const verdict = await seed.inNursery!()
      expect(seen(verdict, seed.law), Explore.format(verdict)).toEqual(expected({ ...seed, grade }))
    })
  }
})

describe("planted bugs", () => {
  for (const seed of planted(Explore.interruptions)) {
    it(`${seed.name}: ${seed.grade ?? "safe"}`, async () => {
      const verdict = await seed.explore()
      expect(seen(verdict, seed.law), Explore.format(verdict)).toEqual(expected(seed))
    })
  }
})

const resource = (probe: Probe.Probe, options?: Probe.Options) =>
  Managed.make({
    name: "r",
    acquire: probe.acquire("r", options),
    release: (handle) => probe.release(handle, options)
  })

const allButEndlessAcquires: Explore.Faults = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "release dies",
  "release is slow",
  "release never returns"
]

describe("operators of holdfast", () => {
  const safe = async <S>(subject: Explore.Subject<S>, options?: Explore.Options) => {
    const verdict = await Explore.interruptions(subject, options)
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(verdict.covered).toMatch(/^every point, FIFO order/)
  }

  it("Managed, in a scope and by use", async () => {
    await safe({
      name: "Managed in a scope",
      body: (_, probe) => Effect.zipRight(resource(probe), Effect.sleep(1)),
      // An acquire is masked unless it restores: one that never returns would hang by contract.
      faults: allButEndlessAcquires
    })
    await safe({
      name: "Managed.use",
      body: (_, probe) => Managed.use(resource(probe), () => Effect.sleep(1)),
      faults: allButEndlessAcquires
    })
  })

  it("Semaphore.withPermits", () =>
    safe({
      name: "Semaphore.withPermits",
      setup: Semaphore.make(1),
      body: (semaphore) =>
        Effect.gen(function*() {
          yield* Effect.forkScoped(Semaphore.withPermit(semaphore)(Effect.sleep(5)))
          yield* Effect.yieldNow()
          yield* Semaphore.withPermit(semaphore)(Effect.yieldNow())
        }),
      invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1
    }, { interleave: 1, budget: { runs: 5_000 } }))

  it("Parallel.forEach and Parallel.all, one resource shared", async () => {
    await safe({
      name: "Parallel.forEach",
      body: (_, probe) =>
        Effect.zipRight(
          resource(probe),
          Parallel.forEach([1, 2, 3], (n) => Effect.sleep(n), { concurrency: 2 })
        )
    })
    await safe({
      name: "Parallel.all",
      body: (_, probe) =>
        Effect.zipRight(
          resource(probe),
          Parallel.all([Effect.sleep(1), Effect.yieldNow(), Effect.exit(Effect.fail("no"))], {
            concurrency: "unbounded"
          })
        )
    })
  })

  it("Lock, in process", () =>
    safe({
      name: "Lock.withLock",
      setup: Lock.makeMemory,
      body: (service) =>
        Effect.provideService(
          Effect.gen(function*() {
            yield* Effect.forkScoped(Lock.withLock("key")(Effect.sleep(5)))
            yield* Effect.yieldNow()
            yield* Lock.withLock("key")(Effect.yieldNow())
          }),
          Lock.Lock,
          service
        )
    }))

  it("Batch.run", () =>
    safe({
      name: "Batch.run",
      body: (_, probe) =>
        Effect.zipRight(
          resource(probe),
          Batch.run(
            { name: "job", process: (n: number) => Effect.sleep(n) },
            [1, 2, 3],
            { concurrency: 2 }
          )
        )
    }))
})

describe("verdicts", () => {
  const hung = {
    name: "forEach",
    body: () => Effect.forEach([1, 2], () => Effect.sleep(1), { concurrency: 2 })
  }

  it("Explore-2: the same program gives the same runs", async () => {
    const one = await Explore.interruptions(hung)
    const two = await Explore.interruptions(hung)
    expect(one.hash).toBe(two.hash)
    expect(one.findings.map(({ token }) => token)).toEqual(two.findings.map(({ token }) => token))
    const other = await Explore.interruptions({ ...hung, body: () => Effect.sleep(1) })
    expect(other.hash).not.toBe(one.hash)
  })

  it("Explore-2: time and chance are its own", async () => {
    const verdict = await Explore.interruptions({
      name: "chance",
      body: () =>
        Effect.suspend(() =>
          Date.now() > 1_000_000 ? Effect.die("real time") : Effect.sleep(Math.random() * 10)
        )
    })
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(Date.now()).toBeGreaterThan(1_000_000)
  })

  it("Explore-3: a violation without any interrupt is no finding, and nothing was explored", async () => {
    const leaks = await Explore.interruptions({
      name: "leaks",
      body: (_, probe) => probe.acquire("r")
    })
    expect(leaks).toMatchObject({ status: "inconclusive", passed: false, covered: "nothing" })
    expect(leaks.notes).toEqual([
      "without any interrupt: all is released: never released: r#1, r#2"
    ])
    const hangs = await Explore.interruptions(Effect.never)
    expect(hangs.notes).toEqual([
      "the body does not end, even without an interrupt: nothing is left that could wake it"
    ])
  })

  it("Explore-4: a program that waits on a native promise is explored beside the event loop", async () => {
    const verdict = await Explore.interruptions({
      name: "native",
      body: (_, probe) =>
        Effect.zipRight(probe.resource("r"), Effect.promise(() => Promise.resolve(1)))
    })
    expect(verdict).toMatchObject({ status: "safe", mode: "asynchronous", passed: true })
  })

  it("Explore-4: a handle that only an interrupt opens is no hang", async () => {
    const verdict = await Explore.interruptions({
      name: "native on interrupt",
      body: () =>
        Effect.onInterrupt(Effect.sleep(1), () => Effect.promise(() => Promise.resolve(1)))
    })
    expect(verdict).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("Explore-4: a handle that stays open is named, and no hang is reported", async () => {
    let timer: NodeJS.Timeout | undefined
    const verdict = await Explore.interruptions({
      name: "open handle",
      body: () =>
        Effect.async<void>((resume) => {
          timer = setTimeout(() => resume(Effect.void), 60_000)
        })
    })
    clearTimeout(timer)
    expect(verdict).toMatchObject({ status: "inconclusive", notes: ["waiting on Timeout"] })
  })

  it("Explore-5: a budget that is spent is no clean verdict", async () => {
    const verdict = await Explore.interruptions(
      { name: "long", body: () => Effect.repeatN(Effect.yieldNow(), 20) },
      { budget: { runs: 10 } }
    )
    expect(verdict).toMatchObject({ status: "inconclusive", passed: false })
    expect(verdict.covered).toMatch(
      /^7 of \d+ points \(budget spent\), FIFO order, this input, first use$/
    )
  })

  it("Explore-5: orders of which the budget leaves some out are no clean verdict", async () => {
    const yields = Effect.repeatN(Effect.yieldNow(), 3)
    const verdict = await Explore.interleavings(
      { name: "orders", body: () => Effect.zipRight(Effect.fork(yields), yields) },
      { budget: { runs: 10 } }
    )
    expect(verdict).toMatchObject({ status: "inconclusive", passed: false })
    expect(verdict.covered).toMatch(/^some orders with up to 2 delays \(budget spent\)/)
  })

  it("Explore-5: a program that is not deterministic is reported as such", async () => {
    let runs = 0
    const verdict = await Explore.interruptions({
      name: "chaos",
      body: () => Effect.suspend(() => Effect.repeatN(Effect.yieldNow(), ++runs % 3))
    })
    expect(verdict.status).toBe("inconclusive")
    expect(verdict.notes[0]).toMatch(/^not deterministic: two plain runs differ at op \d+/)
  })

  it("a clean verdict says exactly what it covered", async () => {
    const verdict = await Explore.interruptions({
      name: "clean",
      body: (_, probe) => probe.resource("r")
    })
    expect(verdict).toMatchObject({
      status: "safe",
      passed: true,
      covered: "every point, FIFO order, this input, first use",
      findings: [],
      notes: []
    })
    expect(verdict.runs).toBe(verdict.points.own + verdict.points.waits + verdict.points.others + 4)
    expect(Explore.format(verdict)).toMatch(/^✓ clean is safe\n {2}covered: every point/)
  })

  it("quick mode finds the same with one point of each class", async () => {
    const quick = await Explore.interruptions(hung, { mode: "quick" })
    const full = await Explore.interruptions(hung)
    expect(quick.runs).toBeLessThan(full.runs / 2)
    expect(quick.findings.map(({ grade }) => grade)).toEqual(["R1"])
    expect(quick.covered).toMatch(/^one point of each of \d+ classes/)
  })

  it("explorations at the same time do not see each other, and leave nothing behind", async () => {
    const before = [Date.now, Math.random, globalThis.setInterval]
    const alone = await Explore.interruptions(hung)
    const all = await Promise.all([
      Explore.interruptions(hung),
      Explore.interruptions({ name: "sleep", body: () => Effect.sleep(1) }),
      Explore.interruptions(hung)
    ])
    expect(all.map(({ status }) => status)).toEqual(["violations", "safe", "violations"])
    expect(all[2].hash).toBe(alone.hash)
    expect([Date.now, Math.random, globalThis.setInterval]).toEqual(before)
  })

  it("`after` must still work, instead of the body again", async () => {
    const once = (after: boolean): Explore.Subject<{ used: boolean }> => ({
      name: "once",
      setup: Effect.sync(() => ({ used: false })),
      body: (state) =>
        Effect.suspend(() => {
          if (state.used) return Effect.fail("used twice")
          state.used = true
          return Effect.sleep(1)
        }),
      after: after ? (state) => state.used ? Effect.void : Effect.fail("never used") : undefined
    })
    expect((await Explore.interruptions(once(false))).notes).toEqual([
      "without any interrupt: the second use is as the first: the next use ends as failure: Error: used twice"
    ])
    const { findings } = await Explore.interruptions(once(true))
    // Interrupted before it began: then it was never used, and `after` says so.
    expect(findings.map(({ window }) => window)).toEqual([expect.stringMatching(/^ops 1–\d+$/)])
  })

  it("grades that do not fail are reported and pass", async () => {
    const semaphore = known.find(({ name }) => name === "Semaphore.withPermits")
    const verdict = await explored(semaphore!)
    expect(verdict).toMatchObject({ status: "violations", passed: true })
    expect(await semaphore!.explore({ fail: ["R4"] })).toMatchObject({ passed: false })
  })

  it("a finding names the window, the line, the leak, and the nearest point that passes", async () => {
    const verdict = await Explore.interruptions({
      name: "late",
      body: (_, probe) =>
        Effect.gen(function*() {
          const handle = yield* probe.acquire("db")
          yield* Effect.sleep(1) // here
          yield* probe.release(handle)
        })
    })
    const [finding] = verdict.findings
    expect(finding?.window).toMatch(
      /^ops \d+–\d+; as it begins to wait, time 1; while nothing else runs, time 1/
    )
    expect(finding?.at).toMatch(/^test\/Testing\.test\.ts:\d+:\d+$/)
    expect(finding?.unreleased.map(({ name }) => name)).toEqual(["db#1"])
    expect(finding?.unreleased[0]?.at).toMatch(/^test\/Testing\.test\.ts:\d+:\d+$/)
    expect(finding?.nearestPass).toMatch(/^an interrupt at op \d+ breaks nothing; /)
    expect(finding?.steps).toContain("the target is interrupted here")
  })
})

describe("replay", () => {
  const subject = (pause: Effect.Effect<void>) => ({
    name: "a leak to replay",
    body: (_: void, probe: Probe.Probe) =>
      Effect.zipRight(
        pause,
        Effect.flatMap(
          probe.acquire("r"),
          (handle) => Effect.ensuring(Effect.sleep(1), probe.release(handle))
        )
      )
  })

  it("Explore-6: a token shows the same again", async () => {
    const { findings } = await Explore.interruptions(subject(Effect.void))
    const again = await Explore.replay(findings[0]!.token, subject(Effect.void))
    expect(again.violations).toEqual(findings[0]!.violations)
    expect(again.steps).toBe(findings[0]!.steps)
  })

  it("Explore-6: a token of changed code, of another subject, or of nothing is stale", async () => {
    const { findings } = await Explore.interruptions(subject(Effect.void))
    const token = findings[0]!.token
    const ends = (given: Promise<unknown>) =>
      given.then(() => "fine", (error: Error) => `${error.name}: ${error.message}`)
    expect(await ends(Explore.replay(token, subject(Effect.yieldNow()))))
      .toMatch(/^StaleToken: .* the code before its place has changed/)
    expect(await ends(Explore.replay(token, { ...subject(Effect.void), name: "other" })))
      .toMatch(/^StaleToken: .* another subject than "other"/)
    expect(await ends(Explore.replay("X1.nonsense", subject(Effect.void)))).toMatch(/^StaleToken/)
  })
})

describe("faults", () => {
  it("a release that never returns hangs a plain bracket, and is bounded in Managed", async () => {
    const plain = await Explore.interruptions(
      { name: "plain", body: (_, probe) => probe.resource("r") },
      { faults: ["release never returns"] }
    )
    expect(plain.findings[0]?.window).toMatch(/^not interrupted; .* when release 1 never returns$/)
    expect(plain.findings[0]?.violations[0]?.law).toBe("the target exits")
    const ours = await Explore.interruptions(
      { name: "ours", body: (_, probe) => resource(probe) },
      { faults: ["release never returns"] }
    )
    expect(ours.status, Explore.format(ours)).toBe("safe")
  })

  it("the second acquire that fails leaks the first", async () => {
    const verdict = await Explore.interruptions({
      name: "two",
      faults: ["acquire fails"],
      body: (_, probe) =>
        Effect.uninterruptible(Effect.gen(function*() {
          const one = yield* probe.acquire("one")
          const two = yield* probe.acquire("two")
          yield* probe.release(two)
          yield* probe.release(one)
        }))
    })
    const [finding] = verdict.findings
    expect(finding?.window).toMatch(/^not interrupted; .* when acquire 2 fails$/)
    expect(finding?.unreleased.map(({ name }) => name)).toEqual(["one#1"])
    expect(verdict.findings.length).toBe(1)
  })
})

describe("certificates", () => {
  for (const seed of known) {
    if (seed.grade === undefined || seed.grade === "R4" || seed.certify === undefined) continue
    it(`${seed.name} fails on the plain runtime, and passes in a mask`, async () => {
      const verdict = await explored(seed)
      const certificate = await seed.certify!(verdict.findings[0]!)
      expect(certificate.certified).toBe(true)
      expect(certificate.program).toContain("Fiber.interruptAsFork(target, FiberId.none)")
      const mended = await seed.certify!(verdict.findings[0]!, true)
      expect(mended.certified).toBe(false)
    })
  }
})

describe("interleavings", () => {
  const join = (one: Effect.Effect<unknown>, two: Effect.Effect<unknown>) =>
    Effect.gen(function*() {
      const fibers = [yield* Effect.fork(one), yield* Effect.fork(two)]
      for (const fiber of fibers) yield* Fiber.join(fiber)
    })

  it("a lost update needs one delay", async () => {
    const increment = (ref: Ref.Ref<number>) =>
      Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1))
    const subject = {
      name: "lost update",
      setup: Ref.make(0),
      body: (ref: Ref.Ref<number>) =>
        Effect.zipRight(join(increment(ref), increment(ref)), Ref.getAndSet(ref, 0))
    }
    const check: Explore.Check = (exit) => Exit.isSuccess(exit) && exit.value === 2
    const verdict = await Explore.interleavings(subject, { check })
    expect(verdict.findings[0]?.window).toMatch(/^not interrupted, delayed at op \d+$/)
    const again = await Explore.replay(verdict.findings[0]!.token, subject, { check })
    expect(again.violations[0]?.law).toBe("every schedule ends alike")
  })

  it("two locks in two orders need one delay to hang", async () => {
    const verdict = await Explore.interleavings({
      name: "inversion",
      setup: Effect.all([Semaphore.make(1), Semaphore.make(1)]),
      body: ([a, b]) =>
        join(
          Semaphore.withPermit(a)(Semaphore.withPermit(b)(Effect.void)),
          Semaphore.withPermit(b)(Semaphore.withPermit(a)(Effect.void))
        )
    })
    expect(verdict.findings[0]?.violations[0]).toEqual({
      law: "the target exits",
      message: "the fiber never exits"
    })
    expect(verdict.findings[0]?.window).toMatch(/delayed at op \d+$/)
  })

  it("a torn read that needs two delays is found with two, not with one", async () => {
    const subject = {
      name: "aba",
      body: () =>
        Effect.gen(function*() {
          let value = "A"
          const reader = Effect.gen(function*() {
            const one = yield* Effect.sync(() => value)
            const two = yield* Effect.sync(() => value)
            return one + two
          })
          const writer = Effect.zipRight(
            Effect.sync(() => value = "B"),
            Effect.sync(() => value = "A")
          )
          const reading = yield* Effect.fork(reader)
          const writing = yield* Effect.fork(writer)
          yield* Fiber.join(writing)
          return yield* Fiber.join(reading)
        })
    }
    const check: Explore.Check = (exit) => Exit.isSuccess(exit) && exit.value !== "AB"
    const none = { random: 0, pct: { runs: 0 }, check }
    const one = await Explore.interleavings(subject, { ...none, delays: 1 })
    expect(one.status, Explore.format(one)).toBe("safe")
    const two = await Explore.interleavings(subject, { ...none, delays: 2 })
    expect(two.findings[0]?.window).toMatch(/delayed at op \d+ and \d+$/)
  })

  it("random walks and PCT find it too, by a seed that replays", async () => {
    const subject = {
      name: "random",
      setup: Ref.make(0),
      body: (ref: Ref.Ref<number>) => {
        const increment = Effect.flatMap(Ref.get(ref), (n) => Ref.set(ref, n + 1))
        return Effect.zipRight(join(increment, increment), Ref.getAndSet(ref, 0))
      }
    }
    const check: Explore.Check = (exit) => Exit.isSuccess(exit) && exit.value === 2
    for (
      const [random, runs, kind] of [[2000, 0, "random walk"], [0, 2000, "PCT"]] as const
    ) {
      const verdict = await Explore.interleavings(subject, {
        delays: 0,
        random,
        pct: { runs },
        check
      })
      expect(verdict.findings[0]?.window).toContain(kind)
      const again = await Explore.replay(verdict.findings[0]!.token, subject, { check })
      expect(again.violations.length).toBe(1)
    }
  })

  const oneAtATime = (mistakes: Mistakes): Explore.Subject<HandOff> => ({
    name: "hand-off",
    setup: Effect.sync(() => makeHandOff(mistakes)),
    body: ({ withPermit }) =>
      Effect.suspend(() => {
        let inside = 0
        const enter = withPermit(Effect.suspend(() =>
          ++inside > 1
            ? Effect.die("two at once")
            : Effect.zipRight(Effect.yieldNow(), Effect.sync(() => inside--))
        ))
        return join(enter, enter)
      })
  })

  it("a wake-up is lost when one stands in line an operation after one looked", async () => {
    const verdict = await Explore.interleavings(oneAtATime({ standsLate: true }))
    expect(verdict.findings[0]?.violations[0]?.law).toBe("the target exits")
    // A second use would wake it: it hangs all the same.
    expect(verdict.findings[0]?.violations.map(({ message }) => message)).toEqual([
      "the fiber never exits"
    ])
  })

  it("two are inside when the count goes down an operation after the check", async () => {
    const verdict = await Explore.interleavings(oneAtATime({ checkThenAct: true }))
    expect(verdict.findings[0]?.violations[0]?.message).toContain("two at once")
  })

  it("a right program is safe in every order", async () => {
    const verdict = await Explore.interleavings(oneAtATime({}))
    expect(verdict.status, Explore.format(verdict)).toBe("safe")
    expect(verdict.passed).toBe(true)
    expect(verdict.covered).toMatch(/^every order with up to 2 delays, 200 random walks/)
  })
})
