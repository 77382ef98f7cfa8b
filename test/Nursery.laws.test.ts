/**
 * Random programs of stock operators over one resource: under a nursery no fiber uses it after its release, and none hangs. The same
 * programs without one are counted beside.
 */
import { expect, it } from "@effect/vitest"
import { Effect, Fiber, FiberSet, Stream } from "effect"
import * as fc from "fast-check"
import { Managed, Nursery } from "holdfast"
import { runVirtually } from "./support/virtualTime.ts"

/** A program of stock operators. Times are in milliseconds. */
type Program =
  | { readonly op: "use" | "commit"; readonly millis: number }
  | { readonly op: "fail" | "die" | "interrupt"; readonly millis: number }
  | {
    readonly op: "timeout" | "disconnectedTimeout"
    readonly millis: number
    readonly of: Program
  }
  | {
    readonly op: "fork" | "uninterruptible" | "exit" | "inner" | "innerScoped"
    readonly of: Program
  }
  | { readonly op: "daemon" | "scopedFork" | "set"; readonly millis: number; readonly of: Program }
  | {
    readonly op: "all" | "forEach" | "race" | "raceFirst" | "zip" | "stream" | "sequence"
    readonly width: number
    readonly of: ReadonlyArray<Program>
  }

const millis = fc.integer({ min: 0, max: 8 })
const { program } = fc.letrec<{ program: Program; leaf: Program }>((tie) => ({
  leaf: fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({ op: fc.constantFrom("use" as const, "commit" as const), millis })
    },
    {
      weight: 2,
      arbitrary: fc.record({
        op: fc.constantFrom("fail" as const, "die" as const, "interrupt" as const),
        millis
      })
    }
  ),
  program: fc.oneof(
    { maxDepth: 4, depthIdentifier: "program" },
    { weight: 1, arbitrary: tie("leaf") },
    {
      weight: 3,
      arbitrary: fc.record({
        op: fc.constantFrom(
          "all" as const,
          "forEach" as const,
          "race" as const,
          "raceFirst" as const,
          "zip" as const,
          "stream" as const,
          "sequence" as const
        ),
        width: fc.integer({ min: 1, max: 3 }),
        of: fc.array(tie("program"), { minLength: 2, maxLength: 4, depthIdentifier: "program" })
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({
        op: fc.constantFrom(
          "timeout" as const,
          "disconnectedTimeout" as const,
          "daemon" as const,
          "scopedFork" as const,
          "set" as const
        ),
        millis,
        of: tie("program")
      })
    },
    {
      weight: 1,
      arbitrary: fc.record({
        op: fc.constantFrom(
          "fork" as const,
          "uninterruptible" as const,
          "exit" as const,
          "inner" as const,
          "innerScoped" as const
        ),
        of: tie("program")
      })
    }
  )
}))

interface Resource {
  isOpen: boolean
  late: number
  uses: number
}

const touch = (resource: Resource) =>
  Effect.sync(() => {
    resource.uses++
    if (!resource.isOpen) resource.late++
  })

type Run = Effect.Effect<unknown, unknown>

const lentOut = (resource: Resource) =>
  Managed.make({
    name: "resource",
    acquire: Effect.succeed(resource),
    release: () => Effect.sync(() => void (resource.isOpen = false))
  })

/** The resources that the items of the present program have acquired. */
const inners: Array<Resource> = []

const run = (resource: Resource) => {
  const both = (millis: number) =>
    Effect.zipRight(
      touch(resource),
      millis === 0 ? touch(resource) : Effect.delay(touch(resource), millis)
    )
  const after = (millis: number, effect: Run): Run =>
    millis === 0 ? effect : Effect.delay(effect, millis)
  const of = (program: Program): Run => {
    switch (program.op) {
      case "use":
        return both(program.millis)
      case "commit":
        return Effect.uninterruptible(both(program.millis))
      case "fail":
        return after(program.millis, Effect.fail("failed"))
      case "die":
        return after(program.millis, Effect.die("died"))
      case "interrupt":
        return after(program.millis, Effect.interrupt)
      case "timeout":
        return Effect.timeout(of(program.of), program.millis)
      case "disconnectedTimeout":
        return Effect.timeout(Effect.disconnect(of(program.of)), program.millis)
      case "fork":
        return Effect.fork(of(program.of))
      case "daemon":
        // As a library does it: nothing waits for the daemon that it interrupts.
        return Effect.acquireUseRelease(
          Effect.forkDaemon(Effect.interruptible(of(program.of))),
          () => Effect.sleep(program.millis),
          Fiber.interruptFork
        )
      case "scopedFork":
        return Effect.scoped(
          Effect.zipRight(Effect.forkScoped(of(program.of)), Effect.sleep(program.millis))
        )
      case "set":
        return Effect.scoped(
          Effect.flatMap(
            FiberSet.make<unknown, unknown>(),
            (set) =>
              Effect.zipRight(FiberSet.run(set, of(program.of)), Effect.sleep(program.millis))
          )
        )
      case "inner":
      case "innerScoped": {
        // Each use of the inner one uses the outer one, too.
        const inner: Resource = { isOpen: true, late: 0, uses: 0 }
        const managed = lentOut(inner)
        const both = Effect.ensuring(run(inner)(program.of), touch(resource))
        const used = program.op === "inner"
          ? Managed.use(managed, () => both)
          : Nursery.scoped(Effect.zipRight(managed, both))
        return Effect.ensuring(used, Effect.sync(() => inners.push(inner)))
      }
      case "uninterruptible":
        return Effect.uninterruptible(of(program.of))
      case "exit":
        return Effect.exit(of(program.of))
      case "all":
        return Effect.all(program.of.map(of), { concurrency: program.width })
      case "forEach":
        return Effect.forEach(program.of, of, { concurrency: "unbounded", discard: true })
      case "race":
        return Effect.raceAll(program.of.map(of))
      case "raceFirst":
        return Effect.raceFirst(of(program.of[0]!), Effect.disconnect(of(program.of[1]!)))
      case "zip":
        return Effect.zip(of(program.of[0]!), of(program.of[1]!), { concurrent: true })
      case "stream":
        return Stream.runDrain(
          Stream.mapEffect(Stream.fromIterable(program.of), of, { concurrency: program.width })
        )
      case "sequence":
        return Effect.forEach(program.of, of)
    }
  }
  return of
}

/** Ends by itself, or is interrupted after `cutAfter`, in virtual time. */
const judge = (
  program: Program,
  cutAfter: number | undefined,
  nursery: (effect: Run) => Run
): { readonly late: number; readonly hangs: boolean } => {
  const resource: Resource = { isOpen: true, late: 0, uses: 0 }
  inners.length = 0
  const use = nursery(Managed.use(lentOut(resource), (db) => run(db)(program)))
  const fiber = runVirtually((run, scheduler) => {
    const fiber = Effect.runFork(run(use), { scheduler })
    if (cutAfter !== undefined) {
      const cut = Effect.sync(() => fiber.unsafeInterruptAsFork(fiber.id()))
      Effect.runFork(run(Effect.delay(cut, cutAfter)), { scheduler })
    }
    return fiber
  }, 500)
  const late = [resource, ...inners].reduce((sum, one) => sum + one.late, 0)
  return { late, hangs: fiber.unsafePoll() === null }
}

const runs = 1000

it(
  "Tracker-1, Nursery-1: a thousand random programs of stock operators use nothing after its release, and end",
  () => {
    const raw = { late: 0, hangs: 0 }
    const held = { late: 0, hangs: 0 }
    const cut = fc.option(fc.integer({ min: 0, max: 9 }), { nil: undefined })
    fc.assert(
      fc.property(program, cut, (program, cutAfter) => {
        const bare = judge(program, cutAfter, (effect) => effect)
        raw.late += Math.sign(bare.late)
        raw.hangs += Number(bare.hangs)
        const safe = judge(program, cutAfter, (effect) => Nursery.run(effect))
        held.late += Math.sign(safe.late)
        held.hangs += Number(safe.hangs)
        expect(safe).toEqual({ late: 0, hangs: false })
      }),
      { numRuns: runs, seed: 20261121 }
    )
    // oxlint-disable-next-line no-console -- the counts are printed beside
    console.log(
      `${runs} random programs: raw ${raw.late} use the resource after its release, ${raw.hangs} hang; `
        + `in a nursery ${held.late} and ${held.hangs}.`
    )
    // The README says so.
    expect(raw.late).toBeGreaterThan(100)
  },
  60_000
)
