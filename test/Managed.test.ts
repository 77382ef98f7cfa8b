import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  type Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  Layer,
  Logger,
  Scope,
  TestClock,
  TestContext
} from "effect"
import * as fc from "fast-check"
import { Ledger, Managed, Shutdown } from "holdfast"

const traced = (
  log: Array<string>,
  name: string,
  release: Effect.Effect<unknown, unknown> = Effect.void
) =>
  Managed.make({
    name,
    kind: "traced",
    acquire: Effect.sync(() => {
      log.push(`+${name}`)
      return name
    }),
    release: (_, exit) =>
      Effect.zipRight(Effect.sync(() => log.push(`-${name} ${exit._tag}`)), release)
  })

const pretty = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "a success"

const totals = Effect.flatMap(Ledger.Ledger, (ledger) => ledger!.snapshot)

describe("Managed", () => {
  it.effect("Managed-1: released once, in reverse order, seeing the exit", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.zipRight(traced(log, "a"), traced(log, "b")))
      expect(log).toEqual(["+a", "+b", "-b Success", "-a Success"])
      log.length = 0
      yield* Effect.exit(Managed.use(traced(log, "a"), () => Effect.fail("no")))
      expect(log).toEqual(["+a", "-a Failure"])
    }))

  it.effect("Managed-2: an acquire cut inside restore has registered nothing", () =>
    Effect.gen(function*() {
      let released = 0
      const never = Managed.make({
        name: "slow",
        acquire: (restore) => restore(Effect.never),
        release: () => Effect.sync(() => released++)
      })
      const fiber = yield* Effect.fork(Effect.scoped(never))
      yield* Effect.yieldNow()
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      expect(released).toBe(0)
    }))

  for (
    const [what, hung] of [
      ["never", Effect.never],
      ["an uninterruptible never", Effect.uninterruptible(Effect.never)],
      ["a promise that never settles", Effect.promise(() => new Promise(() => {}))]
    ] as const
  ) {
    it.effect(`Managed-3: a release that is ${what} is abandoned by name, the outer one still runs`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const fiber = yield* Effect.fork(
          Effect.scoped(Effect.zipRight(traced(log, "outer"), traced(log, "hung", hung)))
        )
        yield* TestClock.adjust("5 seconds")
        const exit = yield* Fiber.await(fiber)
        expect(log).toEqual(["+outer", "+hung", "-hung Success", "-outer Success"])
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(
          /ReleaseTimeout: The release of traced "hung" \(acquired at traced \(.*Managed\.test\.ts:\d+:\d+\)\) did not end within 5s/
        )
        const { kinds, live } = yield* totals
        expect(kinds["traced"]).toEqual({ acquired: 2, released: 1, failed: 0, abandoned: 1 })
        expect(live).toEqual([])
      }).pipe(Effect.provide(Ledger.layer())))
  }

  it.effect("Managed-3: a deadline never skips a good release of an interrupted owner", () =>
    Effect.gen(function*() {
      let done = false
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.void,
        release: () =>
          Effect.zipRight(
            Effect.sleep("1 second"),
            Effect.sync(() => {
              done = true
            })
          ),
        releaseDeadline: "3 seconds"
      })
      const fiber = yield* Effect.fork(Managed.use(slow, () => Effect.never))
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(ending)
      expect(done).toBe(true)
    }))

  it.effect("Managed-4: a failing release is kept beside the primary failure", () =>
    Effect.gen(function*() {
      const bad = traced([], "bad", Effect.fail("broken release"))
      const exit = yield* Effect.exit(Managed.use(bad, () => Effect.fail("primary")))
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      expect(Array.from(Cause.failures(exit.cause))).toEqual(["primary"])
      expect(Array.from(Cause.defects(exit.cause))).toEqual(["broken release"])
    }))

  it.effect("Managed-4: a release callback that throws is a failed release", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const throws = Managed.make({
        name: "t",
        acquire: Effect.void,
        release: () => {
          throw new Error("sync")
        }
      })
      const exit = yield* Effect.exit(Effect.scoped(Effect.zipRight(traced(log, "outer"), throws)))
      expect(Exit.isFailure(exit)).toBe(true)
      expect(log).toEqual(["+outer", "-outer Success"])
    }))
})

/** Ends with the deadline of a release that never does. */
const overrunning = <A, E>(
  effect: Effect.Effect<A, E>,
  wait: Duration.DurationInput = "5 seconds"
) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust(wait)
    return yield* Fiber.await(fiber)
  })

const defectsOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Array.from(Cause.defects(exit.cause)) : []

describe("deadlines", () => {
  const nestedScope = Effect.scoped(
    Effect.zipRight(Effect.addFinalizer(() => Effect.never), Effect.void)
  )
  for (
    const [what, hung] of [
      ["never", Effect.never],
      ["an uninterruptible never", Effect.uninterruptible(Effect.never)],
      ["a promise that never settles", Effect.promise(() => new Promise(() => {}))],
      ["a nested scope that hangs", nestedScope],
      [
        "some steps, then never",
        Effect.zipRight(Effect.sync(() => {}), Effect.sync(() => {})).pipe(
          Effect.zipRight(Effect.never)
        )
      ]
    ] as const
  ) {
    for (const form of ["use", "scope", "interrupted"] as const) {
      it.effect(`Managed-3: ${what} (${form}) ends by the deadline, the outer one still runs`, () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const inner = traced(log, "hung", hung)
          const body = form === "interrupted" ? Effect.never : Effect.void
          const program = Managed.use(
            traced(log, "outer"),
            () =>
              form === "use"
                ? Managed.use(inner, () => body)
                : Effect.scoped(Effect.zipRight(inner, body))
          )
          const fiber = yield* Effect.fork(program)
          yield* Effect.yieldNow()
          if (form === "interrupted") yield* Effect.fork(Fiber.interrupt(fiber))
          yield* TestClock.adjust("4999 millis")
          expect(fiber.unsafePoll()).toBe(null)
          yield* TestClock.adjust("1 millis")
          const exit = yield* Fiber.await(fiber)
          expect(log.at(-1)).toBe("-outer Failure")
          const [timeout] = defectsOf(exit)
          expect(timeout).toBeInstanceOf(Managed.ReleaseTimeout)
          expect(timeout).toMatchObject({ resource: "hung", kind: "traced", step: "release" })
        }))
    }
  }

  it.effect("Managed-3: without a deadline a release may take for ever, and does not fail", () =>
    Effect.gen(function*() {
      const patient = Managed.make({
        name: "patient",
        acquire: Effect.void,
        release: () => Effect.sleep("1 day"),
        releaseDeadline: Infinity
      })
      expect(yield* overrunning(Managed.use(patient, () => Effect.succeed(1)), "1 day")).toEqual(
        Exit.succeed(1)
      )
    }))

  it.effect("Managed-3: one of a thousand hangs: 999 are released, it is named with its line", () =>
    Effect.gen(function*() {
      let released = 0
      const one = (n: number) =>
        Managed.make({
          name: `r${n}`,
          acquire: Effect.void,
          release: () => n === 500 ? Effect.never : Effect.sync(() => released++)
        })
      const exit = yield* overrunning(
        Effect.scoped(Effect.forEach(Array.from({ length: 1000 }, (_, n) => n), one))
      )
      expect(released).toBe(999)
      expect(String(defectsOf(exit)[0])).toMatch(
        /resource "r500" \(acquired at .*Managed\.test\.ts/
      )
      expect(yield* Ledger.snapshot).toMatchObject({
        total: { acquired: 1000, released: 999, abandoned: 1 },
        live: []
      })
    }).pipe(Effect.provide(Ledger.layer())))

  const withOverrun = (
    onOverrun: () => Effect.Effect<unknown, unknown>,
    options: { readonly releaseDeadline?: Duration.DurationInput } = {}
  ) =>
    Managed.make({
      name: "stuck",
      acquire: Effect.succeed("socket"),
      release: () => Effect.never,
      onOverrun,
      ...options
    })

  it.effect("Managed-3: onOverrun has its turn after the deadline, once, and it is still abandoned", () =>
    Effect.gen(function*() {
      const killed: Array<string> = []
      const stuck = Managed.make({
        name: "stuck",
        acquire: Effect.succeed("socket"),
        release: () => Effect.never,
        onOverrun: (socket) => Effect.sync(() => killed.push(socket))
      })
      const exit = yield* overrunning(Managed.use(stuck, () => Effect.void))
      expect(killed).toEqual(["socket"])
      expect(defectsOf(exit)).toMatchObject([{ _tag: "ReleaseTimeout", step: "release" }])
      const quick = Managed.make({
        name: "quick",
        acquire: Effect.succeed("quick"),
        release: () => Effect.sleep("1 second"),
        onOverrun: (socket) => Effect.sync(() => killed.push(socket))
      })
      yield* overrunning(Managed.use(quick, () => Effect.void))
      expect(killed).toEqual(["socket"])
      expect((yield* Ledger.snapshot).total).toMatchObject({ released: 1, abandoned: 1 })
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-3: an onOverrun that hangs ends too; one that fails is kept in the cause", () =>
    Effect.gen(function*() {
      const hangs = yield* overrunning(
        Managed.use(withOverrun(() => Effect.never), () => Effect.void),
        "6 seconds"
      )
      expect(defectsOf(hangs)).toMatchObject([{ step: "release" }, { step: "onOverrun" }])
      const short = withOverrun(() => Effect.never, { releaseDeadline: "300 millis" })
      const shortly = yield* overrunning(Managed.use(short, () => Effect.void), "600 millis")
      expect(defectsOf(shortly)).toMatchObject([{ step: "release" }, { step: "onOverrun" }])
      const fails = yield* overrunning(
        Managed.use(withOverrun(() => Effect.fail("no")), () => Effect.void)
      )
      expect(defectsOf(fails)).toMatchObject([{ step: "release" }, "no"])
      const throws = withOverrun(() => {
        throw new Error("thrown")
      })
      const thrown = yield* overrunning(Managed.use(throws, () => Effect.void))
      expect(defectsOf(thrown)).toMatchObject([{ step: "release" }, { message: "thrown" }])
    }))
})

describe("failures of a release", () => {
  const reported = (release: Effect.Effect<unknown, unknown>) =>
    Managed.make({
      name: "bad",
      acquire: Effect.void,
      release: () => release,
      onReleaseFailure: "report"
    })
  /** What is logged while it runs. */
  const logged = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      const lines: Array<string> = []
      const logger = Logger.make(({ cause, logLevel, message }) => {
        lines.push(`${logLevel.label} ${String(message)} ${Cause.pretty(cause)}`)
      })
      return Effect.map(
        Effect.exit(Effect.provide(effect, Logger.replace(Logger.defaultLogger, logger))),
        (exit) => ({ exit, lines })
      )
    })

  it.effect("Managed-4: reported, a success stays one and a typed failure can be caught", () =>
    Effect.gen(function*() {
      const bad = reported(Effect.fail("broken"))
      const success = yield* logged(Managed.use(bad, () => Effect.succeed(1)))
      expect(success.exit).toEqual(Exit.succeed(1))
      expect(success.lines).toEqual([
        expect.stringMatching(/^WARN The release of resource "bad" failed\..*broken/s)
      ])
      const caught = yield* logged(
        Effect.catchAll(
          Managed.use(bad, () => Effect.fail("primary")),
          (error) => Effect.succeed(error)
        )
      )
      expect(caught.exit).toEqual(Exit.succeed("primary"))
      const scoped = yield* logged(Effect.scoped(Effect.zipRight(bad, Effect.fail("primary"))))
      expect(scoped.exit).toEqual(Exit.fail("primary"))
      const { ended, total } = yield* Ledger.snapshot
      expect(total).toMatchObject({ acquired: 3, released: 3, failed: 3 })
      expect(ended.map(({ cause, state }) => [state, cause])).toEqual([
        ["failed", expect.stringContaining("broken")],
        ["failed", expect.stringContaining("broken")],
        ["failed", expect.stringContaining("broken")]
      ])
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-4: reported, an abandoned release is too, and a logger that throws costs nothing", () =>
    Effect.gen(function*() {
      const stuck = reported(Effect.never)
      const fiber = yield* Effect.fork(logged(Managed.use(stuck, () => Effect.succeed(1))))
      yield* TestClock.adjust("5 seconds")
      const { exit, lines } = yield* Fiber.join(fiber)
      expect(exit).toEqual(Exit.succeed(1))
      expect(lines).toEqual([expect.stringContaining("ReleaseTimeout")])
      const broken = Logger.make(() => {
        throw new Error("disk full")
      })
      const bad = Managed.use(reported(Effect.fail("x")), () => Effect.succeed(2))
      expect(
        yield* Effect.provide(bad, Logger.replace(Logger.defaultLogger, broken))
      ).toBe(2)
    }))

  it.effect("Managed-4: in the cause, in the order of the releases, defects and interruptions too", () =>
    Effect.gen(function*() {
      const ends = (cause: Cause.Cause<string>) => traced([], "r", Effect.failCause(cause))
      const exit = yield* Effect.exit(Effect.scoped(
        Effect.all([ends(Cause.fail("first")), ends(Cause.die("second"))]).pipe(
          Effect.zipRight(Effect.fail("primary"))
        )
      ))
      expect(defectsOf(exit)).toEqual(["second", "first"])
      expect(Exit.isFailure(exit) && Array.from(Cause.failures(exit.cause))).toEqual(["primary"])
    }))
})

describe("closed scopes", () => {
  it.effect("Managed-5: nothing is acquired into a scope that is closed", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Effect.exit(Scope.extend(traced(log, "late"), scope))
      expect(defectsOf(exit)).toMatchObject([{
        _tag: "OwnerClosed",
        owner: "scope",
        resource: "late"
      }])
      expect(log).toEqual([])
    }))

  it.effect("Managed-5: closed while it is being acquired, it is released and its taker dies", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.sleep("1 second"),
        release: () => Effect.sync(() => log.push("-slow"))
      })
      const taker = yield* Effect.fork(Scope.extend(slow, scope))
      yield* Effect.yieldNow()
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.await(taker)
      expect(defectsOf(exit)).toMatchObject([{ _tag: "OwnerClosed", resource: "slow" }])
      expect(log).toEqual(["-slow"])
    }))

  it.effect("Managed-1: a scope that is closed by hand and interrupted loses no release", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.void,
        release: () =>
          Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("-slow")))
      })
      yield* Scope.extend(slow, scope)
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow()
      yield* Effect.fork(Fiber.interrupt(closing))
      yield* TestClock.adjust("1 second")
      yield* Fiber.await(closing)
      expect(log).toEqual(["-slow"])
    }))

  it.effect("Layer.scoped: released with the layer, seeing how it was left", () =>
    Effect.gen(function*() {
      class Service extends Context.Tag("Service")<Service, string>() {}
      const log: Array<string> = []
      const layer = Layer.scoped(Service, traced(log, "s"))
      expect(yield* Effect.provide(Service, layer)).toBe("s")
      expect(log).toEqual(["+s", "-s Success"])
    }))
})

describe("reasons", () => {
  const seeing = (reasons: Array<Managed.ReleaseReason>) =>
    Managed.make({
      name: "r",
      acquire: Effect.void,
      release: (_, __, reason) => Effect.sync(() => reasons.push(reason))
    })

  it.effect("Managed-6: success, failure, defect, interruption", () =>
    Effect.gen(function*() {
      const reasons: Array<Managed.ReleaseReason> = []
      const seen = seeing(reasons)
      yield* Managed.use(seen, () => Effect.void)
      yield* Effect.exit(Managed.use(seen, () => Effect.fail("no")))
      yield* Effect.exit(Effect.scoped(Effect.zipRight(seen, Effect.die("bug"))))
      yield* Effect.exit(Managed.use(seen, () => Effect.interrupt))
      const fiber = yield* Effect.fork(Effect.scoped(Effect.zipRight(seen, Effect.never)))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      expect(reasons.map(({ kind }) => kind)).toEqual([
        "success",
        "failure",
        "failure",
        "interrupt",
        "interrupt"
      ])
    }))

  it.effect("Managed-6: an interruption stays one after an inner release has failed", () =>
    Effect.gen(function*() {
      const reasons: Array<Managed.ReleaseReason> = []
      const bad = traced([], "bad", Effect.fail("broken"))
      yield* Effect.exit(
        Managed.use(seeing(reasons), () => Managed.use(bad, () => Effect.interrupt))
      )
      expect(reasons).toEqual([{ kind: "interrupt" }])
    }))

  it.effect("Managed-6: the shutdown that was asked for, with its reason; not for a failure of its own", () =>
    Effect.gen(function*() {
      const reasons: Array<Managed.ReleaseReason> = []
      const seen = seeing(reasons)
      const inScope = yield* Effect.fork(Effect.scoped(Effect.zipRight(seen, Effect.never)))
      const inUse = yield* Effect.fork(Managed.use(seen, () => Effect.never))
      yield* Effect.yieldNow()
      yield* Shutdown.request({ kind: "signal", signal: "SIGTERM" })
      yield* Fiber.interruptAll([inScope, inUse])
      const reason = { kind: "signal", signal: "SIGTERM" }
      expect(reasons).toEqual([{ kind: "shutdown", reason }, { kind: "shutdown", reason }])
      yield* Effect.exit(Managed.use(seen, () => Effect.fail("no")))
      expect(reasons.at(-1)).toEqual({ kind: "failure" })
    }).pipe(Effect.provideServiceEffect(Shutdown.Shutdown, Effect.sync(Shutdown.unsafeMake))))
})

describe("all", () => {
  it.effect("Managed-7: tuples, records and iterables; released in reverse", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const a = traced(log, "a")
      const b = traced(log, "b")
      const tuple: readonly [string, string] = yield* Managed.use(
        Managed.all([a, b]),
        (both: [string, string]) => Effect.succeed(both)
      )
      expect(tuple).toEqual(["a", "b"])
      expect(log).toEqual(["+a", "+b", "-b Success", "-a Success"])
      log.length = 0
      const record: { a: string; b: string } = yield* Effect.scoped(Managed.all({ a, b }))
      expect(record).toEqual({ a: "a", b: "b" })
      expect(log).toEqual(["+a", "+b", "-b Success", "-a Success"])
      const array: Array<string> = yield* Effect.scoped(
        Managed.all(new Set([a, b]), { concurrency: 1 })
      )
      expect(array).toEqual(["a", "b"])
      expect(yield* Effect.scoped(Managed.all([]))).toEqual([])
      expect(yield* Effect.scoped(Managed.all({}))).toEqual({})
    }))

  const timed = (log: Array<string>, name: string, millis: number) =>
    Managed.make({
      name,
      acquire: (restore) =>
        Effect.zipRight(restore(Effect.sleep(millis)), Effect.sync(() => log.push(`+${name}`))),
      release: () => Effect.zipRight(Effect.sleep(millis), Effect.sync(() => log.push(`-${name}`)))
    })

  it.effect("Managed-7: opened together, released in the reverse of the order in which they were open", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const members = [timed(log, "slow", 30), timed(log, "quick", 10), timed(log, "middle", 20)]
      const fiber = yield* Effect.fork(Effect.scoped(Managed.all(members)))
      yield* TestClock.adjust("30 millis")
      expect(log).toEqual(["+quick", "+middle", "+slow"])
      yield* TestClock.adjust("60 millis")
      yield* Fiber.join(fiber)
      expect(log.slice(3)).toEqual(["-slow", "-middle", "-quick"])
    }))

  it.effect("Managed-7: or released together", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const members = [timed(log, "slow", 30), timed(log, "quick", 10), timed(log, "middle", 20)]
      const fiber = yield* Effect.fork(
        Effect.scoped(Managed.all(members, { releases: "parallel" }))
      )
      yield* TestClock.adjust("60 millis")
      yield* Fiber.join(fiber)
      expect(log.slice(3)).toEqual(["-quick", "-middle", "-slow"])
    }))

  for (const releases of ["sequential", "parallel"] as const) {
    it.effect(`Managed-7, Managed-4: each ${releases} release has its own deadline, and all run`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const members = [
          traced(log, "a"),
          traced(log, "hung", Effect.never),
          traced(log, "bad", Effect.fail("broken")),
          traced(log, "b")
        ]
        const exit = yield* overrunning(
          Managed.use(Managed.all(members, { releases }), () => Effect.fail("primary"))
        )
        expect(log.slice(4).toSorted()).toEqual(
          ["-a", "-b", "-bad", "-hung"].map((l) => `${l} Failure`)
        )
        expect(Exit.isFailure(exit) && Array.from(Cause.failures(exit.cause))).toEqual(["primary"])
        expect(defectsOf(exit)).toHaveLength(2)
        expect((yield* Ledger.snapshot).total).toEqual({
          acquired: 4,
          released: 3,
          failed: 1,
          abandoned: 1
        })
      }).pipe(Effect.provide(Ledger.layer())))
  }

  it.effect("Managed-7: one fails: what is being opened is cut or finished, what was opened is released", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const fails = Managed.make({
        name: "fails",
        acquire: Effect.zipRight(Effect.sleep(15), Effect.fail("no")),
        release: () => Effect.void
      })
      const finishes = Managed.make({
        name: "finishes",
        acquire: Effect.zipRight(Effect.sleep(20), Effect.sync(() => log.push("+finishes"))),
        release: () => Effect.sync(() => log.push("-finishes"))
      })
      const members = [timed(log, "quick", 10), fails, finishes, timed(log, "slow", 1000)] as const
      const fiber = yield* Effect.fork(Effect.scoped(Managed.all(members)))
      yield* TestClock.adjust("30 millis")
      const exit: Exit.Exit<unknown, string> = yield* Fiber.await(fiber)
      expect(exit).toEqual(Exit.fail("no"))
      expect(log).toEqual(["+quick", "+finishes", "-finishes", "-quick"])
    }))

  it.effect("Managed-7: interrupted while it opens, everything that was opened is released", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const members = [timed(log, "quick", 10), timed(log, "slow", 1000)]
      const fiber = yield* Effect.fork(Effect.scoped(Managed.all(members)))
      yield* TestClock.adjust("10 millis")
      yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("10 millis")
      expect(Exit.isInterrupted(yield* Fiber.await(fiber))).toBe(true)
      expect(log).toEqual(["+quick", "-quick"])
    }))

  it.effect("Managed-7: one after the other with concurrency 1; below that it is a defect", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const members = [timed(log, "slow", 30), timed(log, "quick", 10)]
      const fiber = yield* Effect.fork(
        Managed.use(Managed.all(members, { concurrency: 1 }), () => Effect.void)
      )
      yield* TestClock.adjust("80 millis")
      yield* Fiber.join(fiber)
      expect(log).toEqual(["+slow", "+quick", "-quick", "-slow"])
      const zero = yield* Effect.exit(Effect.scoped(Managed.all(members, { concurrency: 0 })))
      expect(String(defectsOf(zero)[0])).toContain("Managed-7")
    }))

  it.effect("Managed-7: nested, and named after its members", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const pair = Managed.all([traced(log, "a"), traced(log, "b")])
      expect(pair.name).toBe("all(a, b)")
      const nested = Managed.all({ pair, c: traced(log, "c") }, { concurrency: 1 })
      const { c, pair: [a, b] } = yield* Effect.scoped(nested)
      expect([a, b, c]).toEqual(["a", "b", "c"])
      expect(log).toEqual(["+a", "+b", "+c", "-c Success", "-b Success", "-a Success"])
    }))

  type Tree =
    | { readonly kind: "leaf"; readonly takes: number; readonly acquire: "good" | "fails" }
    | {
      readonly kind: "all"
      readonly members: ReadonlyArray<Tree>
      readonly concurrency: number | "unbounded"
      readonly releases: "sequential" | "parallel"
    }
  const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
    tree: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      fc.record({
        kind: fc.constant("leaf" as const),
        takes: fc.integer({ min: 0, max: 3 }),
        acquire: fc.constantFrom(
          "good" as const,
          "good" as const,
          "good" as const,
          "fails" as const
        )
      }),
      fc.record({
        kind: fc.constant("all" as const),
        members: fc.array(tie("tree"), { maxLength: 4 }),
        concurrency: fc.constantFrom(1, 2, "unbounded" as const),
        releases: fc.constantFrom("sequential" as const, "parallel" as const)
      })
    )
  }))

  it("Managed-7: any tree, good, slow, failing, cut: releases exactly what it opened, siblings in order", async () => {
    const leaf = (id: number, node: Extract<Tree, { kind: "leaf" }>, log: Array<number>) =>
      Managed.make({
        name: `${id}`,
        acquire: (restore) =>
          Effect.flatMap(
            restore(Effect.sleep(node.takes)),
            () => node.acquire === "fails" ? Effect.fail("no") : Effect.sync(() => log.push(id))
          ),
        release: () => Effect.zipRight(Effect.sleep(node.takes), Effect.sync(() => log.push(-id)))
      })
    await fc.assert(
      fc.asyncProperty(tree, fc.option(fc.integer({ min: 0, max: 6 })), async (root, cutAt) => {
        // An id when it is open, its negative when it is released.
        const log: Array<number> = []
        const siblings: Array<Set<number>> = []
        let ids = 0
        const build = (node: Tree, among?: Set<number>): Managed.Managed<unknown, string> => {
          if (node.kind === "leaf") {
            const id = ++ids
            among?.add(id)
            return leaf(id, node, log)
          }
          const members = new Set<number>()
          if (node.releases === "sequential") siblings.push(members)
          return Managed.all(node.members.map((member) => build(member, members)), node)
        }
        const program = Effect.gen(function*() {
          const fiber = yield* Effect.fork(Managed.use(build(root), () => Effect.sleep(1)))
          if (cutAt !== null) {
            yield* TestClock.adjust(cutAt)
            yield* Fiber.interruptFork(fiber)
          }
          yield* TestClock.adjust("1 minute")
          yield* Fiber.await(fiber)
          yield* Ledger.assertEmpty
        })
        const layer = Layer.provideMerge(Ledger.layer({ sites: "off" }), TestContext.TestContext)
        await Effect.runPromise(Effect.provide(program, layer))
        const opened = log.filter((id) => id > 0)
        const released = log.filter((id) => id < 0).map((id) => -id)
        expect(released.toSorted()).toEqual(opened.toSorted())
        for (const members of siblings) {
          const among = (id: number) => members.has(id)
          expect(released.filter(among)).toEqual(opened.filter(among).toReversed())
        }
      }),
      { numRuns: 300 }
    )
  })
})

describe("ledger", () => {
  it.effect("Managed-9: the line of the user: where it was yielded, used, or else described", () =>
    Effect.gen(function*() {
      const lamp = traced([], "lamp")
      const used = Managed.use(lamp, () => Effect.void)
      yield* used
      yield* lamp.pipe(Managed.use(() => Effect.void))
      yield* Effect.scoped(lamp)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* lamp
        yield* Effect.void
      }))
      const { ended } = yield* Ledger.snapshot
      const described = /traced \(.*Managed\.test\.ts:\d+:\d+\)$/
      const here = /Managed\.test\.ts:\d+:\d+\)?$/
      expect(
        ended.map(({ site }) => described.test(site ?? "") ? "described" : here.test(site ?? ""))
      )
        .toEqual([true, true, "described", true])
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-9: off, and with sites off, no line is read but that of the description", () =>
    Effect.gen(function*() {
      const lamp = traced([], "lamp")
      yield* Managed.use(lamp, () => Effect.void)
      expect((yield* Ledger.snapshot).ended.map(({ site }) => site)).toEqual([undefined])
    }).pipe(Effect.provide(Ledger.layer({ sites: "off" }))))

  it.effect("Managed-9: what an acquire acquires stands under its name; its user's does not", () =>
    Effect.gen(function*() {
      const part = traced([], "part")
      const whole = Managed.make({
        name: "whole",
        acquire: Effect.zipRight(part, Effect.void),
        release: () => Effect.void
      })
      yield* Effect.scoped(Effect.zipRight(whole, traced([], "other")))
      const { ended } = yield* Ledger.snapshot
      expect(ended.map(({ name, owner }) => [...owner, name].join(" > ")).toSorted()).toEqual([
        "other",
        "whole",
        "whole > part"
      ])
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-9: attributes: plain, of the resource, and a describer that throws costs nothing", () =>
    Effect.gen(function*() {
      let released = 0
      const described = (
        attributes: Managed.Settings<number>["attributes"]
      ) =>
        Managed.make({
          name: "a",
          acquire: Effect.succeed(7),
          release: () => Effect.sync(() => released++),
          attributes
        })
      yield* Managed.use(described({ port: 1 }), () => Effect.void)
      yield* Managed.use(described((n) => ({ n })), () => Effect.void)
      const throws = described(() => {
        throw new Error("no")
      })
      yield* Managed.use(throws, () => Effect.void)
      const getter = described(() => ({
        get port(): number {
          throw new Error("getter")
        }
      }))
      yield* Managed.use(getter, () => Effect.void)
      const textless = described(() => {
        throw Object.create(null)
      })
      yield* Managed.use(textless, () => Effect.void)
      const { ended } = yield* Ledger.snapshot
      expect(ended.map(({ attributes }) => attributes)).toEqual([
        { port: 1 },
        { n: 7 },
        { attributesFailed: "Error: no" },
        { attributesFailed: "Error: getter" },
        { attributesFailed: "something that has no text" }
      ])
      expect(released).toBe(5)
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-9: a release runs with the context of its acquire, whoever closes", () =>
    Effect.gen(function*() {
      class Name extends Context.Tag("Name")<Name, string>() {}
      const seen: Array<string> = []
      const asks = Managed.make({
        name: "asks",
        acquire: Effect.void,
        release: () => Effect.flatMap(Name, (name) => Effect.sync(() => seen.push(name)))
      })
      const scope = yield* Scope.make()
      yield* Effect.provideService(Scope.extend(asks, scope), Name, "mine")
      yield* Scope.close(scope, Exit.void)
      yield* Effect.provideService(Managed.use(asks, () => Effect.void), Name, "yours")
      expect(seen).toEqual(["mine", "yours"])
    }))

  for (
    const [kind, first] of [
      ["failure", Cause.fail("no")],
      ["interrupt", Cause.interrupt(FiberId.none)]
    ] as const
  ) {
    it.effect(`Managed-1, Managed-6: released after a cause of any depth, that began as ${kind}`, () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const plain = Managed.make({
          name: "plain",
          acquire: Effect.void,
          release: (_, __, reason) => Effect.sync(() => seen.push(reason.kind))
        })
        const deep = Array.from({ length: 12_000 }, (_, index) => Cause.die(index))
          .reduce<Cause.Cause<string>>(Cause.sequential, first)
        const deepRight = Cause.sequential(Cause.empty, Cause.sequential(first, Cause.die("late")))
        yield* Effect.exit(Managed.use(plain, () => Effect.failCause(deep)))
        yield* Effect.exit(Effect.scoped(Effect.zipRight(plain, Effect.failCause(deep))))
        yield* Effect.exit(Managed.use(plain, () => Effect.failCause(deepRight)))
        expect(seen).toEqual([kind, kind, kind])
      }))
  }

  it.effect("Managed-4: a release that gives no effect has failed", () =>
    Effect.gen(function*() {
      for (const given of [undefined, 42, {}, Promise.resolve()]) {
        const plain = Managed.make({
          name: "plain",
          acquire: Effect.void,
          // What JavaScript may do.
          release: () => given as never
        })
        const used = yield* Effect.exit(Managed.use(plain, () => Effect.fail("no")))
        expect(pretty(used)).toMatch(
          /^Error: no\nTypeError: The release of resource "plain" gave no effect/
        )
        const scoped = yield* Effect.exit(Effect.scoped(plain))
        expect(pretty(scoped)).toContain("TypeError")
      }
      const { live, total } = yield* Ledger.snapshot
      expect(live).toEqual([])
      expect(total).toMatchObject({ acquired: 8, failed: 8 })
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-4: a release that ends by an interrupt has failed: its owner was not interrupted", () =>
    Effect.gen(function*() {
      for (const release of [Effect.interrupt, Exit.interrupt(FiberId.none)]) {
        const own = Managed.make({ name: "own", acquire: Effect.void, release: () => release })
        for (
          const user of [Managed.use(own, () => Effect.succeed(1)), Effect.scoped(own)]
        ) {
          const exit = yield* Effect.exit(user)
          expect(Exit.isFailure(exit) && Cause.isInterrupted(exit.cause)).toBe(false)
          expect(pretty(exit)).toContain(`The release of resource "own" ended by an interrupt`)
        }
      }
      // Given back what its owner ended with, it has added nothing of its own.
      const echo = Managed.make({ name: "echo", acquire: Effect.void, release: (_, exit) => exit })
      const cut = yield* Effect.exit(Managed.use(echo, () => Effect.interrupt))
      expect(Exit.isFailure(cut) && Cause.isInterruptedOnly(cut.cause)).toBe(true)
    }))
})
