import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Runtime,
  type Scope,
  Stream,
  TestClock
} from "effect"
import { Batch, Ledger, Managed, Parallel, Shutdown } from "holdfast"
import { runVirtually } from "./support/virtualTime.ts"

const why = { kind: "request", by: "a test" } as const

/** A log, and effects that write it. */
const journal = () => {
  const lines: Array<string> = []
  const say = (line: string) => Effect.sync(() => void lines.push(line))
  const held = (
    name: string,
    release: Effect.Effect<unknown, unknown> = Effect.void,
    releaseDeadline: Duration.DurationInput = "5 seconds"
  ) =>
    Managed.make({
      name,
      acquire: say(`+${name}`),
      release: () => Effect.zipRight(release, say(`-${name}`)),
      releaseDeadline
    })
  return { lines, say, held }
}

/** The program in a fiber, run up to its first wait, and its shutdown. */
const launch = <A, E>(
  program: Effect.Effect<A, E>,
  options?: Shutdown.Options
) =>
  Effect.gen(function*() {
    const shutdown = Shutdown.unsafeMake()
    const fiber = yield* Effect.fork(shutdown.run(program, options))
    yield* settle
    return { shutdown, ended: Fiber.join(fiber), fiber }
  })

const settle = Effect.repeatN(Effect.yieldNow(), 50)
const pass = (duration: Duration.DurationInput) =>
  Effect.zipRight(TestClock.adjust(duration), settle)

const pretty = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "success"

const phasesOf = (report: Shutdown.Report) =>
  report.phases.map(({ duration, overran, phase }) =>
    `${phase} ${duration}${overran ? " overran" : ""}`
  )

describe("Shutdown", () => {
  it.effect("Shutdown-1: the first request wins and wakes all waiters", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      expect(yield* shutdown.reason).toEqual(Option.none())
      const waiting = yield* Effect.fork(shutdown.requested)
      const first = { kind: "signal", signal: "SIGTERM" } as const
      expect(yield* shutdown.request(first)).toBe(true)
      expect(yield* shutdown.request({ kind: "request", by: "later" })).toBe(false)
      expect(yield* Fiber.join(waiting)).toEqual(first)
      expect(yield* shutdown.reason).toEqual(Option.some(first))
      expect(shutdown.unsafeReason()).toEqual(Option.some(first))
    }))

  it.effect("Shutdown-2: drainers are counted exactly, however they end", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      const inside = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        shutdown.drains(Effect.zipRight(Deferred.succeed(inside, undefined), Effect.never))
      )
      yield* Deferred.await(inside)
      expect(shutdown.unsafeDrainers()).toBe(1)
      yield* Fiber.interrupt(fiber)
      yield* Effect.exit(shutdown.drains(Effect.fail("no")))
      expect(shutdown.unsafeDrainers()).toBe(0)
    }))

  it.effect("the accessors speak of the shutdown in force", () => {
    const shutdown = Shutdown.unsafeMake()
    return Effect.gen(function*() {
      const seen = yield* Shutdown.drains(Effect.sync(() => shutdown.unsafeDrainers()))
      expect([seen, shutdown.unsafeDrainers()]).toEqual([1, 0])
      expect(yield* Shutdown.reason).toEqual(Option.none())
      expect([yield* Shutdown.isReady, yield* Shutdown.phase.get]).toEqual([true, "running"])
      expect(yield* Shutdown.request(why)).toBe(true)
      expect(yield* Shutdown.requested).toEqual(why)
      expect(yield* shutdown.reason).toEqual(Option.some(why))
      expect([yield* Shutdown.isReady, yield* Shutdown.phase.get]).toEqual([false, "draining"])
      expect((yield* Shutdown.report).reason).toEqual(why)
    }).pipe(Effect.provideService(Shutdown.Shutdown, shutdown))
  })
})

describe("Shutdown.run", () => {
  it.effect("a program that ends by itself gives its exit, and takes no time", () =>
    Effect.gen(function*() {
      const good = yield* Shutdown.run(Effect.succeed(7))
      expect(good.exit).toEqual(Exit.succeed(7))
      expect(phasesOf(good.report)).toEqual(["running 0", "releasing 0", "exited 0"])
      expect(good.report).toMatchObject({ reason: undefined, overran: false, fibers: [] })
      const bad = yield* Shutdown.run(Effect.fail("no"))
      expect(bad.exit).toEqual(Exit.fail("no"))
    }))

  it.effect("Shutdown-3: a request passes through all phases in no time if none has work", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const program = Effect.scoped(Effect.zipRight(held("a"), Effect.never))
      const { ended, shutdown } = yield* launch(program)
      const seen = yield* Effect.fork(Stream.runCollect(shutdown.phase.changes))
      yield* settle
      expect(yield* shutdown.isReady).toBe(true)
      yield* shutdown.request(why)
      expect(yield* shutdown.isReady).toBe(false)
      const { exit, report } = yield* ended
      expect(Exit.isInterrupted(exit)).toBe(true)
      expect(lines).toEqual(["+a", "-a"])
      expect(Chunk.toReadonlyArray(yield* Fiber.join(seen)))
        .toEqual(["running", "draining", "stopping", "releasing", "exited"])
      expect(phasesOf(report)).toEqual([
        "running 0",
        "draining 0",
        "stopping 0",
        "releasing 0",
        "exited 0"
      ])
      // A late reader sees only the last phase.
      expect(Chunk.toReadonlyArray(yield* Stream.runCollect(shutdown.phase.changes)))
        .toEqual(["exited"])
    }))

  it.effect("Shutdown-3: readiness is gone before a waiter, a hook or the delay begins", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const look = (who: string) =>
        Effect.map(Shutdown.isReady, (ready) => void seen.push(`${who} ${ready}`))
      const program = Effect.scoped(Effect.gen(function*() {
        yield* Shutdown.onDrain(look("hook"))
        yield* Effect.fork(Effect.zipRight(Shutdown.requested, look("waiter")))
        return yield* Effect.forever(Effect.zipRight(Effect.sleep("1 second"), look("served")))
      }))
      const { ended, shutdown } = yield* launch(program, { drainDelay: "2500 millis" })
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      const { report } = yield* ended
      expect(seen.toSorted()).toEqual([
        "hook false",
        "served false",
        "served false",
        "waiter false"
      ])
      expect(phasesOf(report)[1]).toBe("draining 2500")
    }))

  it.effect("draining ends when its delay has passed and its hooks have ended, whichever is later", () =>
    Effect.gen(function*() {
      for (const [delay, hook, took] of [[3, 1, 3000], [1, 3, 3000], [0, 2, 2000]] as const) {
        const program = Effect.scoped(
          Effect.zipRight(Shutdown.onDrain(Effect.sleep(`${hook} seconds`)), Effect.never)
        )
        const { ended, shutdown } = yield* launch(program, { drainDelay: `${delay} seconds` })
        yield* shutdown.request(why)
        yield* pass("10 seconds")
        expect((yield* ended).report.phases[1]).toMatchObject({ duration: took, overran: false })
      }
    }))

  it.effect("Shutdown-5: hooks run once, concurrently, in their phase; failures are reported with their lines", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const slow = (name: string) => Effect.zipRight(Effect.sleep("1 second"), say(name))
      const program = Effect.scoped(Effect.gen(function*() {
        yield* Shutdown.onStop(slow("stop 1"))
        yield* Shutdown.onDrain(slow("drain 1"))
        yield* Shutdown.onDrain(Effect.fail("no luck"))
        yield* Shutdown.onDrain(Effect.die(new Error("worse")))
        yield* Shutdown.onStop(slow("stop 2"))
        yield* Effect.scoped(Shutdown.onStop(say("too early")))
        yield* Effect.addFinalizer(() => say("released"))
        return yield* Effect.never
      }))
      const shutdown = Shutdown.unsafeMake()
      const fiber = yield* Effect.fork(
        Effect.provide(shutdown.run(program), Ledger.layer({ sites: "first" }))
      )
      yield* settle
      yield* shutdown.request(why)
      yield* pass("1 second")
      expect(lines).toEqual(["drain 1"])
      yield* pass("1 second")
      expect(lines.slice(0, 3).toSorted()).toEqual(["drain 1", "stop 1", "stop 2"])
      expect(lines.at(-1)).toBe("released")
      const { report } = yield* Fiber.join(fiber)
      expect(report.overran).toBe(false)
      expect(report.hooks.map(({ phase, state, took }) => [phase, state, took])).toEqual([
        ["draining", "done", 1000],
        ["draining", "failed", 0],
        ["draining", "failed", 0],
        ["stopping", "done", 1000],
        ["stopping", "done", 1000]
      ])
      expect(report.hooks[1]!.cause).toContain("no luck")
      expect(report.hooks.every(({ site }) => site?.includes("Shutdown.test.ts"))).toBe(true)
    }))

  it.effect("Shutdown-5: a hook registered in its own phase runs at once, a later one never", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const program = Effect.scoped(Effect.gen(function*() {
        yield* Shutdown.onDrain(Effect.sleep("1 second"))
        yield* Effect.fork(
          Effect.gen(function*() {
            yield* Shutdown.requested
            yield* Effect.sleep("500 millis")
            yield* Shutdown.onDrain(say("late drain"))
          }).pipe(Effect.zipRight(Effect.never), Effect.scoped)
        )
        yield* Shutdown.onStop(Effect.zipRight(
          say("stop"),
          Effect.scoped(Shutdown.onDrain(say("never")))
        ))
        return yield* Effect.never
      }))
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("500 millis")
      expect(lines).toEqual(["late drain"])
      yield* pass("500 millis")
      yield* ended
      expect(lines).toEqual(["late drain", "stop"])
    }))

  it.effect("Shutdown-5: a scope that closes while its hook runs waits for it, at most to the end of the phase", () =>
    Effect.gen(function*() {
      for (const [seconds, ends] of [[2, "2: hook, closed"], [60, "5: closed"]] as const) {
        const { lines, say } = journal()
        const program = Effect.scoped(Effect.gen(function*() {
          yield* Effect.addFinalizer(() => say("closed"))
          yield* Shutdown.onDrain(Effect.zipRight(Effect.sleep(`${seconds} seconds`), say("hook")))
          yield* Shutdown.requested
        }))
        const { ended, shutdown } = yield* launch(program)
        yield* shutdown.request(why)
        yield* pass("1 second")
        expect(lines).toEqual([])
        yield* pass("10 seconds")
        const { report } = yield* ended
        expect(`${report.took / 1000}: ${lines.join(", ")}`).toBe(ends)
      }
    }))

  it.effect("Shutdown-2: stopping waits for marked work, and for no other", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const after = (seconds: number, line: string) => Effect.delay(say(line), `${seconds} seconds`)
      const program = Effect.gen(function*() {
        yield* Effect.fork(Shutdown.inFlight(after(3, "answered")))
        yield* Effect.forkDaemon(
          Shutdown.inFlight(Effect.zipRight(after(2, "tried"), Effect.fail("no")))
        )
        yield* Effect.fork(after(4, "not waited for"))
        return yield* Effect.never
      })
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      const { report } = yield* ended
      expect(lines).toEqual(["tried", "answered"])
      expect(phasesOf(report).slice(1)).toEqual([
        "draining 0",
        "stopping 3000",
        "releasing 0",
        "exited 0"
      ])
    }))

  it.effect("Shutdown-2, Shutdown-7: work that overran is reported by phase and line, and counted", () =>
    Effect.gen(function*() {
      const program = Effect.gen(function*() {
        yield* Effect.forEach([1, 2, 3], () => Effect.fork(Shutdown.inFlight(Effect.never)))
        yield* Effect.fork(Shutdown.drains(Effect.delay(Effect.void, "2 seconds")))
        return yield* Effect.never
      })
      const shutdown = Shutdown.unsafeMake()
      const fiber = yield* Effect.fork(
        Effect.provide(shutdown.run(program, { stopTimeout: "4 seconds" }), Ledger.layer())
      )
      yield* settle
      yield* shutdown.request(why)
      const seen = shutdown.unsafeReport().unfinished
      expect(seen.map(({ count, what }) => [count, what])).toEqual([[3, "inFlight"], [1, "drains"]])
      expect(seen.every(({ site }) => site?.includes("Shutdown.test.ts"))).toBe(true)
      yield* pass("4 seconds")
      const { report } = yield* Fiber.join(fiber)
      expect(report.unfinished).toEqual([])
      expect(
        report.phases.map(({ unfinished }) =>
          unfinished.map(({ count, longest, what }) => [count, longest, what])
        )
      ).toEqual([[], [], [[3, 4000, "inFlight"], [1, 4000, "program"]], [], []])
    }))

  it.effect("Shutdown-2: a program that drains in any fiber ends by itself, also after the marked work", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const batch = Effect.zipRight(Shutdown.requested, Effect.sleep("3 seconds"))
      const program = Effect.gen(function*() {
        const forked = yield* Effect.fork(Shutdown.drains(batch))
        yield* Fiber.join(forked)
        yield* Effect.sleep("4 seconds")
        yield* say("summed up")
        return 75
      })
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("20 seconds")
      const { exit, report } = yield* ended
      expect([exit, lines]).toEqual([Exit.succeed(75), ["summed up"]])
      expect(phasesOf(report)[2]).toBe("stopping 7000")
    }))

  it.effect("the report counts the batches that were drained since the request, also of nested runs", () =>
    Effect.gen(function*() {
      const endless = (name: string, when: Effect.Effect<unknown>) =>
        Batch.run({ name, process: () => Effect.sleep("1 second") }, [1, 2, 3], {
          concurrency: 1,
          drain: { when }
        })
      const program = Effect.gen(function*() {
        yield* endless("before", Effect.void)
        const nested = Shutdown.run(Shutdown.drains(endless("nested", Shutdown.requested)))
        yield* Effect.fork(nested)
        yield* Shutdown.drains(endless("outer", Shutdown.requested))
        yield* Batch.run({ name: "whole", process: () => Effect.void }, [1])
      })
      const { ended, shutdown } = yield* launch(program)
      yield* pass("1500 millis")
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      const { exit, report } = yield* ended
      expect([exit, report.drained, report.children.map(({ drained }) => drained)])
        .toEqual([Exit.void, 2, [1]])
    }))

  it.effect("Shutdown-2: work that drains in a fiber that was left behind finishes, too", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const batch = Effect.zipRight(
        Shutdown.requested,
        Effect.delay(say("drained"), "3 seconds")
      )
      const program = Effect.zipRight(
        Effect.forkDaemon(Shutdown.drains(batch)),
        Effect.delay(Effect.void, "1 second")
      )
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("20 seconds")
      const { exit, report } = yield* ended
      expect([exit, lines, report.took]).toEqual([Exit.void, ["drained"], 3000])
    }))

  it.effect("Shutdown-4: each phase ends by its bound, even if everything in it hangs", () =>
    Effect.gen(function*() {
      const hang = Effect.uninterruptible(Effect.never)
      const program = Effect.scoped(Effect.gen(function*() {
        yield* Shutdown.onDrain(hang)
        yield* Shutdown.onStop(hang)
        return yield* Shutdown.drains(hang)
      }))
      const ends: Array<string> = []
      const { ended, shutdown } = yield* launch(program, {
        drainTimeout: "1 second",
        stopTimeout: "2 seconds",
        releaseTimeout: "3 seconds",
        onPhaseEnd: ({ phase }) => ends.push(phase)
      })
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      const { exit, report } = yield* ended
      expect(phasesOf(report).slice(1)).toEqual([
        "draining 1000 overran",
        "stopping 2000 overran",
        "releasing 3000 overran",
        "exited 0"
      ])
      expect(ends).toEqual(["running", "draining", "stopping", "releasing"])
      expect(report.overran).toBe(true)
      expect(report.hooks.map(({ state }) => state)).toEqual(["abandoned", "abandoned"])
      expect(pretty(exit)).toContain("did not end within 3s of being interrupted")
      // The two hooks. The main fiber is not left behind: the exit reports it.
      expect(report.fibers).toHaveLength(2)
    }))

  it.effect("Shutdown-4: `total` bounds all phases, and the earlier ones leave the releases their time", () =>
    Effect.gen(function*() {
      for (
        const [budgets, expected] of [
          [{ total: "10 seconds", releaseTimeout: "4 seconds" }, [0, 6000, 4000]],
          [{ total: "10 seconds", releaseTimeout: "8 seconds" }, [0, 5000, 5000]],
          [{ total: "12 seconds", drainDelay: "20 seconds" }, [4000, 2000, 6000]],
          [{ drainDelay: "20 seconds" }, [10_000, 5000, 10_000]],
          [{ drainDelay: "8 seconds" }, [8000, 7000, 10_000]],
          [{ total: Infinity, stopTimeout: "1 hour", releaseTimeout: "1 day" }, [0, 3600e3, 864e5]],
          [{}, [0, 10_000, 10_000]]
        ] as const
      ) {
        const program = Shutdown.drains(Effect.uninterruptible(Effect.never))
        const { ended, shutdown } = yield* launch(program, budgets)
        yield* shutdown.request(why)
        for (const duration of expected) yield* pass(duration)
        const { report } = yield* ended
        expect(report.phases.slice(1, 4).map(({ duration }) => duration)).toEqual(expected)
      }
    }))

  it.effect("Shutdown-4: a delay that does not fit, and a wrong option by its name, are reported before the program starts", () =>
    Effect.gen(function*() {
      expect(Shutdown.shortfall({ drainDelay: "20 seconds" })).toBe(
        "shutdown: drainDelay 20s, stopTimeout 10s and releaseTimeout 10s do not fit in total 25s: "
          + "they get at most 10s, 5s and 10s; raise total."
      )
      expect(Shutdown.shortfall({ drainDelay: "1 minute", total: Infinity })).toBeUndefined()
      expect(Shutdown.shortfall({ total: "1 second" })).toBeUndefined()
      let hasBegun = false
      const program = Effect.sync(() => void (hasBegun = true))
      for (const wrong of ["5 secs" as Duration.DurationInput, NaN, -1]) {
        const exit = yield* Effect.exit(Shutdown.run(program, { stopTimeout: wrong }))
        expect(pretty(exit)).toContain("Shutdown.run: `stopTimeout` must be a duration")
        expect(pretty(exit)).toContain(`got ${JSON.stringify(wrong)}`.replace("null", "NaN"))
      }
      expect(hasBegun).toBe(false)
    }))

  it.effect("Shutdown-4: a run without bounds waits for a release of ten days", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const program = Effect.scoped(
        Effect.zipRight(held("slow", Effect.sleep("10 days"), Infinity), Effect.never)
      )
      const { ended, shutdown } = yield* launch(program, {
        total: Infinity,
        releaseTimeout: Infinity
      })
      yield* shutdown.request(why)
      yield* pass("11 days")
      expect((yield* ended).report.overran).toBe(false)
      expect(lines).toEqual(["+slow", "-slow"])
    }))

  it.effect("Shutdown-4: a release takes at most its share of the time left, and those after it still run", () =>
    Effect.gen(function*() {
      const uncuttable = Effect.uninterruptible(Effect.never)
      for (
        const [hung, deadline, took] of [
          [Effect.never, "1 minute", 8000],
          [uncuttable, Infinity, 8000],
          [uncuttable, "5 seconds", 5000]
        ] as const
      ) {
        const { lines, held } = journal()
        const program = Effect.scoped(Effect.gen(function*() {
          yield* held("a", Effect.sleep("1 second"))
          yield* held("hung", hung, deadline)
          return yield* Effect.never
        }))
        const shutdown = Shutdown.unsafeMake()
        const fiber = yield* Effect.fork(Effect.provide(shutdown.run(program), Ledger.layer()))
        yield* settle
        yield* shutdown.request(why)
        yield* pass("20 seconds")
        const { exit, report } = yield* Fiber.join(fiber)
        expect(lines).toEqual(["+a", "+hung", "-a"])
        expect(report).toMatchObject({ took: took + 1000, released: 1, abandoned: 1, held: 0 })
        expect(report).toMatchObject({ overran: true, fibers: [] })
        expect(report.phases.at(-2)).toMatchObject({ phase: "releasing", overran: false })
        expect(pretty(exit)).toContain(`"hung"`)
        expect(pretty(exit)).toContain(`did not end within ${took / 1000}s`)
        const isCut = pretty(exit).includes("its share of what the shutdown had left")
        expect(isCut).toBe(took === 8000)
      }
    }))

  it.effect("Shutdown-4: a release under way has the same bound from the beginning of releasing on, and none before", () =>
    Effect.gen(function*() {
      const { lines, held, say } = journal()
      const program = Effect.scoped(Effect.gen(function*() {
        yield* held("a")
        yield* Effect.forkDaemon(
          Managed.use(held("hung", Effect.never, "1 hour"), () => Effect.void).pipe(
            Effect.ensuring(say("went on"))
          )
        )
        yield* Shutdown.inFlight(Effect.sleep("1 minute"))
      }))
      const { ended, shutdown } = yield* launch(program)
      yield* pass("10 seconds")
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      expect(shutdown.unsafePhase()).toBe("releasing")
      expect(lines).toEqual(["+a", "+hung", "-a"])
      yield* pass("7 seconds")
      expect(lines.at(-1)).toBe("-a")
      yield* pass("1 second")
      expect((yield* ended).report.phases.at(-2)).toMatchObject({ duration: 8000, overran: false })
      expect(lines.at(-1)).toBe("went on")
    }))

  it.effect("Shutdown-4: a release after the end has its own deadline only", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const go = yield* Deferred.make<void>()
      const program = Effect.uninterruptible(
        Managed.use(held("late", Effect.sleep("4 seconds")), () => Deferred.await(go))
      )
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("20 seconds")
      yield* ended
      yield* Deferred.succeed(go, undefined)
      yield* pass("4 seconds")
      expect(lines).toEqual(["+late", "-late"])
    }))

  it.effect("Shutdown-7: the report has releases in the step of the request", () =>
    Effect.gen(function*() {
      const { held } = journal()
      const broken = held("broken", Effect.die("no"))
      const program = Effect.scoped(
        Effect.zipRight(
          held("a"),
          Effect.zipRight(
            Effect.exit(Managed.use(broken, () => Shutdown.request(why))),
            Effect.void
          )
        )
      )
      const { report } = yield* Effect.provide(Shutdown.run(program), Ledger.layer())
      expect(report).toMatchObject({ released: 1, failed: 1 })
      expect(report.resources.map(({ name }) => name).toSorted()).toEqual(["a", "broken"])
    }))

  it.effect("Shutdown-6: work that overran is interrupted and ends before the main fiber releases what it uses", () =>
    Effect.gen(function*() {
      const forms: Record<
        string,
        (work: Effect.Effect<never>) => Effect.Effect<unknown, never, Scope.Scope>
      > = {
        "in flight in a daemon": (work) => Effect.forkDaemon(Shutdown.inFlight(work)),
        "in flight in a fork": (work) => Effect.fork(Shutdown.inFlight(work)),
        "in flight, deeper": (work) =>
          Effect.forkDaemon(Shutdown.inFlight(Effect.flatMap(Effect.fork(work), Fiber.join))),
        "drains in a fork": (work) => Effect.fork(Shutdown.drains(work)),
        "a hook to drain": Shutdown.onDrain,
        "a hook to stop": Shutdown.onStop
      }
      for (const [form, mark] of Object.entries(forms)) {
        const { lines, held, say } = journal()
        const work = Effect.onInterrupt(
          Effect.never,
          () => Effect.zipRight(Effect.sleep("1 second"), say("rolled back"))
        )
        const program = Effect.scoped(
          Effect.zipRight(held("db"), Effect.zipRight(mark(work), Effect.never))
        )
        const { ended, shutdown } = yield* launch(program)
        yield* shutdown.request(why)
        yield* pass("11 seconds")
        const { exit, report } = yield* ended
        expect([form, ...lines]).toEqual([form, "+db", "rolled back", "-db"])
        expect(report.fibers).toEqual([])
        expect(Exit.isInterrupted(exit)).toBe(true)
      }
    }))

  it.effect("Shutdown-6: work that ignores its interruption leaves the main fiber half of the time", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const program = Effect.scoped(Effect.gen(function*() {
        yield* held("db", Effect.sleep("3 seconds"))
        yield* Effect.forkDaemon(Shutdown.inFlight(Effect.uninterruptible(Effect.never)))
        return yield* Effect.never
      }))
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("17900 millis")
      expect(lines).toEqual(["+db"])
      yield* pass("100 millis")
      expect(lines).toEqual(["+db", "-db"])
      yield* pass("2 seconds")
      const { report } = yield* ended
      expect(report.took).toBe(20_000)
      expect(report.fibers).toHaveLength(1)
    }))

  it.effect("Shutdown-6: a marked fiber of another program is waited for, not interrupted", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const { ended, shutdown } = yield* launch(Effect.never, { stopTimeout: "1 second" })
      const work = shutdown.inFlight(Effect.delay(say("worked"), "2 seconds"))
      yield* Effect.forkDaemon(Effect.onInterrupt(work, () => say("cut")))
      yield* settle
      yield* shutdown.request(why)
      yield* pass("1 second")
      const { report } = yield* ended
      yield* pass("1 second")
      expect(lines).toEqual(["worked"])
      expect(phasesOf(report).slice(2)).toEqual([
        "stopping 1000 overran",
        "releasing 0",
        "exited 0"
      ])
    }))

  it.effect("Shutdown-6: marked work of a nested run is interrupted like its own", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const shutdown = Shutdown.unsafeMake()
      const work = Effect.onInterrupt(shutdown.inFlight(Effect.never), () => say("cut"))
      // Masked, so that it gets no request.
      const inner = Effect.uninterruptible(Shutdown.run(work))
      const fiber = yield* Effect.fork(
        shutdown.run(Effect.zipRight(Effect.forkDaemon(inner), Effect.never), {
          stopTimeout: "1 second"
        })
      )
      yield* settle
      yield* shutdown.request(why)
      yield* pass("1 second")
      yield* Fiber.join(fiber)
      expect(lines).toEqual(["cut"])
    }))

  it.effect("Shutdown-6: a marked release is not interrupted", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const flush = Shutdown.inFlight(Effect.sleep("3 seconds"))
      const program = Effect.zipRight(
        // Its release is under way at the request.
        Effect.forkDaemon(Managed.use(held("log", flush), () => Effect.void)),
        Effect.never
      )
      const { ended, shutdown } = yield* launch(program, { stopTimeout: "1 second" })
      yield* shutdown.request(why)
      yield* pass("10 seconds")
      expect((yield* ended).report.took).toBe(3000)
      expect(lines).toEqual(["+log", "-log"])
    }))

  it.effect("Shutdown-6: fibers left behind release what they hold, however the program ends", () =>
    Effect.gen(function*() {
      const endings: ReadonlyArray<Effect.Effect<unknown, string>> = [
        Effect.void,
        Effect.fail("no"),
        Effect.die("never"),
        Shutdown.request(why),
        Effect.zipRight(Shutdown.request(why), Effect.never)
      ]
      for (const ending of endings) {
        const { lines, held } = journal()
        const daemon = Managed.use(held("daemon", Effect.sleep("1 second")), () => Effect.never)
        const program = Effect.zipRight(
          Effect.forkDaemon(daemon),
          Effect.zipRight(Effect.sleep("1 second"), ending)
        )
        const { ended } = yield* launch(program)
        yield* pass("5 seconds")
        const { report } = yield* ended
        expect(lines).toEqual(["+daemon", "-daemon"])
        expect(report.fibers).toEqual([])
        expect(report.phases.at(-2)).toMatchObject({ phase: "releasing", duration: 1000 })
      }
    }))

  it.effect("Shutdown-6: a release under way is waited for, never interrupted; nor are fibers of other programs", () =>
    Effect.gen(function*() {
      const { lines, held, say } = journal()
      const stranger = yield* Effect.forkDaemon(Effect.never)
      const other = yield* launch(Effect.never)
      // Ends by itself just before the program does, and is still releasing then.
      const daemon = Managed.use(
        held("slow", Effect.sleep("3 seconds")),
        () => Effect.sleep("1 second")
      )
      const sharing = Parallel.forEach([1, 2, 3], () => Effect.never, { concurrency: 2 }).pipe(
        Effect.onInterrupt(() => say("workers ended"))
      )
      const program = Effect.zipRight(
        Effect.zipRight(Effect.forkDaemon(daemon), Effect.forkDaemon(sharing)),
        Effect.sleep("2 seconds")
      )
      const { ended } = yield* launch(program)
      yield* pass("10 seconds")
      const { report } = yield* ended
      expect(lines).toEqual(["+slow", "workers ended", "-slow"])
      expect(report.phases.at(-2)).toMatchObject({ duration: 2000, overran: false })
      expect(yield* Fiber.poll(stranger)).toEqual(Option.none())
      expect(yield* Fiber.poll(other.fiber)).toEqual(Option.none())
      yield* Fiber.interrupt(stranger)
      yield* Fiber.interrupt(other.fiber)
    }))

  it.effect("Shutdown-6: a fiber that a release under way has forked is not interrupted", () =>
    Effect.gen(function*() {
      const { lines, held, say } = journal()
      const working = Effect.flatMap(
        Effect.forkDaemon(Effect.delay(say("worked"), "3 seconds")),
        Fiber.join
      )
      const daemon = Managed.use(held("slow", working), () => Effect.sleep("1 second"))
      const program = Effect.zipRight(Effect.forkDaemon(daemon), Effect.sleep("2 seconds"))
      const { ended } = yield* launch(program)
      yield* pass("10 seconds")
      const { report } = yield* ended
      expect(lines).toEqual(["+slow", "worked", "-slow"])
      expect(report).toMatchObject({ overran: false, fibers: [], took: 2000 })
    }))

  it.effect("Shutdown-6: fibers that are forked in the end of a fiber left behind release, too", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const second = Managed.use(held("second", Effect.sleep("1 second")), () => Effect.never)
      const first = Effect.ensuring(
        Effect.never,
        Effect.forkDaemon(Effect.interruptible(second))
      )
      const program = Effect.zipRight(Effect.forkDaemon(first), Effect.sleep("1 second"))
      const { ended } = yield* launch(program)
      yield* pass("5 seconds")
      expect((yield* ended).report).toMatchObject({ overran: false, fibers: [] })
      // Interrupted before its first step, it never held anything.
      expect([[], ["+second", "-second"]]).toContainEqual(lines)
    }))

  it.effect("Shutdown-6, Shutdown-7: a fiber that ignores its interruption is left behind and reported", () =>
    Effect.gen(function*() {
      const program = Effect.as(
        Effect.forkDaemon(Effect.uninterruptible(Effect.never)),
        "done"
      )
      const { ended } = yield* launch(program, { releaseTimeout: "2 seconds" })
      yield* pass("2 seconds")
      const { exit, report } = yield* ended
      expect(exit).toEqual(Exit.succeed("done"))
      expect(report.fibers).toEqual([
        { fiber: expect.stringMatching(/^#\d+$/), state: "running", cause: undefined }
      ])
      expect(report.overran).toBe(true)
    }))

  it.effect("Shutdown-7: the failure of a fiber left behind is reported", () =>
    Effect.gen(function*() {
      const daemon = Effect.acquireUseRelease(
        Effect.void,
        () => Effect.never,
        () => Effect.dieMessage("the flush broke")
      )
      const { report } = yield* Shutdown.run(
        Effect.zipRight(Effect.forkDaemon(daemon), Effect.yieldNow())
      )
      expect(report.fibers.map(({ state }) => state)).toEqual(["failed"])
      expect(report.fibers[0]!.cause).toContain("the flush broke")
      expect(report.overran).toBe(false)
    }))

  it.effect("Shutdown-6: a main fiber that hangs leaves the others a tenth of the time", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const program = Effect.zipRight(
        Effect.forkDaemon(Managed.use(held("daemon"), () => Effect.never)),
        Effect.uninterruptible(Effect.never)
      )
      const { ended, shutdown } = yield* launch(program)
      yield* shutdown.request(why)
      yield* pass("8900 millis")
      expect(lines).toEqual(["+daemon"])
      yield* pass("100 millis")
      expect(lines).toEqual(["+daemon", "-daemon"])
      yield* pass("1 second")
      expect((yield* ended).report.fibers).toEqual([])
    }))

  it.effect("Shutdown-7: the report names what failed, was abandoned or is still held, the slowest release first", () =>
    Effect.gen(function*() {
      const { held } = journal()
      const program = Effect.scoped(Effect.gen(function*() {
        yield* Managed.use(held("before"), () => Effect.void)
        yield* held("good", Effect.sleep("1 second"))
        yield* held("hung", Effect.never, "3 seconds")
        yield* held("broken", Effect.die(new Error("stuck")))
        yield* Effect.forkDaemon(
          Managed.use(held("kept", Effect.never, Infinity), () => Effect.never)
        )
        return yield* Effect.never
      }))
      const shutdown = Shutdown.unsafeMake()
      const fiber = yield* Effect.fork(
        // The history is too short for all releases: the failed ones must still be reported.
        Effect.provide(shutdown.run(program), Ledger.layer({ history: 2, sites: "first" }))
      )
      yield* settle
      yield* TestClock.adjust("2 seconds")
      yield* shutdown.request(why)
      yield* pass("20 seconds")
      const { exit, report } = yield* Fiber.join(fiber)
      expect(
        report.resources.map(({ heldFor, name, releaseTook, state }) => ({
          name,
          state,
          heldFor,
          releaseTook
        }))
      ).toEqual([
        { name: "kept", state: "abandoned", heldFor: 6000, releaseTook: 4800 },
        { name: "hung", state: "abandoned", heldFor: 2000, releaseTook: 3000 },
        { name: "good", state: "released", heldFor: 5000, releaseTook: 1000 },
        { name: "broken", state: "failed", heldFor: 2000, releaseTook: 0 }
      ])
      expect(report).toMatchObject({ released: 1, failed: 1, abandoned: 2, held: 0, overran: true })
      expect(report.took).toBe(8800)
      const [kept, hung, , broken] = report.resources
      expect(broken!.cause).toContain("stuck")
      expect(hung!.site).toContain("Shutdown.test.ts")
      expect(kept!.cause).toContain("its share of what the shutdown had left")
      // The daemon, for the failure of its release; not the release that it waited for.
      expect(report.fibers.map(({ state }) => state)).toEqual(["failed"])
      expect(pretty(exit)).toContain("stuck")
    }))

  it.effect("an interruption of the run asks for the end and waits for it", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const program = Effect.scoped(
        Effect.zipRight(held("a", Effect.sleep("1 second")), Effect.never)
      )
      const { fiber, shutdown } = yield* launch(program)
      const interrupting = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* pass("1 second")
      expect(Exit.isInterrupted(yield* Fiber.join(interrupting))).toBe(true)
      expect(lines).toEqual(["+a", "-a"])
      expect(shutdown.unsafeReason()).toEqual(
        Option.some({ kind: "request", by: "interruption" })
      )
      expect(shutdown.unsafePhase()).toBe("exited")
    }))

  it.effect("a request before the program starts is not lost; a second program is a defect", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      yield* shutdown.request(why)
      const { exit } = yield* shutdown.run(Effect.never)
      expect(Exit.isInterrupted(exit)).toBe(true)
      expect(pretty(yield* Effect.exit(shutdown.run(Effect.void)))).toContain(
        "has a program already"
      )
    }))

  it.effect("a request after the program has ended by itself does not change its exit", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const daemon = Managed.use(held("daemon", Effect.sleep("2 seconds")), () => Effect.never)
      const { ended, shutdown } = yield* launch(
        Effect.as(Effect.zipLeft(Effect.forkDaemon(daemon), Effect.yieldNow()), 7)
      )
      yield* pass("1 second")
      expect(shutdown.unsafePhase()).toBe("releasing")
      expect(yield* shutdown.request(why)).toBe(true)
      yield* pass("1 second")
      const { exit, report } = yield* ended
      expect([exit, report.reason, lines]).toEqual([Exit.succeed(7), why, ["+daemon", "-daemon"]])
    }))
})

describe("a nested Shutdown.run", () => {
  /** `body` in a nested run, in a scope of the outer program that holds "db". */
  const inside = <A, E>(
    held: (name: string) => Effect.Effect<unknown, never, Scope.Scope>,
    body: Effect.Effect<A, E>,
    options?: Shutdown.Options
  ) =>
    Effect.scoped(Effect.gen(function*() {
      yield* held("db")
      yield* Shutdown.run(body, options)
      return yield* Effect.never
    }))

  it.effect("Shutdown-8: it gets the request in the same step, with the same reason, and ends before the outer run releases", () =>
    Effect.gen(function*() {
      for (const depth of [1, 2]) {
        const { lines, held, say } = journal()
        let isReady = () => false
        const innermost = Effect.scoped(Effect.gen(function*() {
          const runtime = yield* Effect.runtime()
          isReady = () => Runtime.runSync(runtime, Shutdown.isReady)
          yield* Managed.make({
            name: "in",
            acquire: Effect.void,
            release: (_, __, reason) => say(JSON.stringify(reason))
          })
          yield* Effect.fork(Shutdown.inFlight(Effect.delay(say("answered"), "2 seconds")))
          return yield* Effect.never
        }))
        const program = depth === 1
          ? inside(held, innermost)
          : inside(held, inside((name) => held(`${name} 2`), innermost))
        const { ended, shutdown } = yield* launch(program)
        expect(isReady()).toBe(true)
        const reason = { kind: "signal", signal: "SIGTERM" } as const
        yield* Effect.sync(() => {
          shutdown.unsafeRequest(reason)
          expect(isReady()).toBe(false)
        })
        yield* pass("2 seconds")
        const { report } = yield* ended
        expect(lines.filter((line) => !line.startsWith("+"))).toEqual([
          "answered",
          JSON.stringify({ kind: "shutdown", reason }),
          ...depth === 1 ? ["-db"] : ["-db 2", "-db"]
        ])
        expect(report).toMatchObject({ took: 2000, overran: false })
      }
    }))

  it.effect("Shutdown-8: it ends within the outer stopTimeout, and its unfinished work is in the outer report", () =>
    Effect.gen(function*() {
      const { lines, held, say } = journal()
      const body = Effect.scoped(Effect.gen(function*() {
        yield* held("in")
        yield* Shutdown.onStop(Effect.never)
        yield* Effect.fork(
          Effect.onInterrupt(Shutdown.inFlight(Effect.never), () => say("rolled back"))
        )
        yield* Effect.addFinalizer(() => Effect.never)
        return yield* Effect.never
      }))
      const shutdown = Shutdown.unsafeMake()
      const fiber = yield* Effect.fork(
        Effect.provide(shutdown.run(inside(held, body)), Ledger.layer())
      )
      yield* settle
      yield* shutdown.request(why)
      const { unfinished } = shutdown.unsafeReport()
      expect(unfinished.map(({ count, what }) => [count, what])).toEqual([[1, "inFlight"]])
      expect(unfinished[0]!.site).toContain("Shutdown.test.ts")
      // Of the outer's 10 s, half for its releases.
      yield* pass("5 seconds")
      expect(lines).toEqual(["+db", "+in", "rolled back"])
      yield* pass("5 seconds")
      expect(lines).toEqual(["+db", "+in", "rolled back", "-db"])
      const { report } = yield* Fiber.join(fiber)
      expect(report).toMatchObject({ took: 10_000, overran: true })
      expect(phasesOf(report).slice(1)).toEqual([
        "draining 0",
        "stopping 10000 overran",
        "releasing 0",
        "exited 0"
      ])
      expect(report.phases[2]!.unfinished.map(({ count, what }) => [count, what])).toEqual([
        [1, "inFlight"],
        [1, "onStop"]
      ])
      expect(report.hooks.map(({ state }) => state)).toEqual(["abandoned"])
    }))

  it.effect("Shutdown-8: the outer report has its failures, abandoned releases and fibers, whichever ledger it has", () =>
    Effect.gen(function*() {
      for (const own of [true, false]) {
        const { held } = journal()
        const body = Effect.scoped(Effect.gen(function*() {
          yield* held("good", Effect.sleep("1 second"))
          yield* held("hung", Effect.never, "2 seconds")
          yield* Effect.forkDaemon(Effect.uninterruptible(Effect.never))
          yield* Shutdown.onDrain(Effect.fail("no"))
          return yield* Effect.never
        }))
        const program = inside(held, body)
        const shutdown = Shutdown.unsafeMake()
        const fiber = yield* Effect.fork(
          Effect.provide(
            shutdown.run(own ? Effect.provide(program, Ledger.layer()) : program),
            own ? Layer.empty : Ledger.layer()
          )
        )
        yield* settle
        yield* shutdown.request(why)
        yield* pass("20 seconds")
        const { report } = yield* Fiber.join(fiber)
        expect(report).toMatchObject({ abandoned: 1, held: 0, overran: true })
        expect(report.resources.slice(0, 2).map(({ name, state }) => [name, state])).toEqual([
          ["hung", "abandoned"],
          ["good", "released"]
        ])
        expect(report.fibers.map(({ state }) => state)).toEqual(["running"])
        expect(report.hooks.map(({ state }) => state)).toEqual(["failed"])
      }
    }))

  it.effect("Shutdown-8: one that ended before the request is not in the report; one that begins after it gets it at once", () =>
    Effect.gen(function*() {
      const { lines, say } = journal()
      const failing = Effect.zipRight(Shutdown.onDrain(Effect.fail("no")), Shutdown.request(why))
      const late = Effect.zipRight(Shutdown.run(Effect.never), say("late one ended"))
      const program = Effect.gen(function*() {
        const first = yield* Shutdown.run(Effect.scoped(failing))
        expect(first.report.hooks).toHaveLength(1)
        expect((yield* Shutdown.report).children).toEqual([])
        yield* Effect.forkDaemon(Effect.zipRight(Shutdown.requested, late))
        return yield* Shutdown.inFlight(Effect.sleep("1 second"))
      })
      const { ended, shutdown } = yield* launch(program)
      expect(shutdown.unsafePhase()).toBe("running")
      yield* shutdown.request(why)
      yield* settle
      expect(lines).toEqual(["late one ended"])
      yield* pass("1 second")
      expect((yield* ended).report).toMatchObject({ hooks: [], fibers: [], overran: false })
    }))

  it.effect("Shutdown-8: one in a fiber left behind has its time, too", () =>
    Effect.gen(function*() {
      const { lines, held } = journal()
      const slow = Effect.scoped(
        Effect.zipRight(held("in", Effect.sleep("3 seconds")), Effect.never)
      )
      const { ended } = yield* launch(
        Effect.zipRight(Effect.forkDaemon(Shutdown.run(slow)), Effect.sleep("1 second"))
      )
      yield* pass("10 seconds")
      const { report } = yield* ended
      expect(lines).toEqual(["+in", "-in"])
      expect(report).toMatchObject({ took: 3000, overran: false, fibers: [] })
    }))

  it.effect("Shutdown-8: the report counts each ledger once, however many runs use it", () =>
    Effect.gen(function*() {
      const broken = Managed.make({
        name: "broken",
        acquire: Effect.void,
        release: () => Effect.die("no")
      })
      const run = (program: Effect.Effect<unknown>): Effect.Effect<unknown> => Shutdown.run(program)
      const inner = run(Managed.use(broken, () => Effect.never))
      const own = (program: Effect.Effect<unknown>) => Effect.provide(program, Ledger.layer())
      const both = Effect.all([inner, inner], { concurrency: "unbounded", discard: true })
      const all = {
        "one for all three": [1, run(inner)],
        "one for the outer two, one for the inner": [1, run(own(inner))],
        "one for the inner two": [1, own(run(inner))],
        "one for two side by side": [2, own(both)],
        "one for each": [1, own(run(own(inner)))]
      } as const
      for (const [what, [failed, program]] of Object.entries(all)) {
        const shutdown = Shutdown.unsafeMake()
        const running = shutdown.run(program)
        const fiber = yield* Effect.fork(
          what.startsWith("one for the inner") || what.startsWith("one for two")
            ? running
            : Effect.provide(running, Ledger.layer())
        )
        yield* settle
        yield* shutdown.request(why)
        const { report } = yield* Fiber.join(fiber)
        expect([what, report.failed, report.resources.map(({ state }) => state)]).toEqual([
          what,
          failed,
          Array.from({ length: failed }, () => "failed")
        ])
      }
    }))

  it.effect("Shutdown-8: its unfinished work counts in the outer stopping phase, in whichever phase the outer run is", () =>
    Effect.gen(function*() {
      const inner = Shutdown.run(Shutdown.inFlight(Effect.never), { stopTimeout: "1 second" })
      const ended: Array<unknown> = []
      const { ended: end, shutdown } = yield* launch(
        Effect.zipRight(Effect.fork(inner), Effect.never),
        {
          drainDelay: "3 seconds",
          onPhaseEnd: ({ overran, phase, unfinished }) => {
            ended.push([phase, overran, unfinished.map(({ count, what }) => `${count} ${what}`)])
          }
        }
      )
      yield* shutdown.request(why)
      yield* pass("2 seconds")
      expect(shutdown.unsafeReport()).toMatchObject({ overran: true })
      yield* pass("1 second")
      yield* end
      expect(ended).toEqual([
        ["running", false, []],
        ["draining", false, []],
        ["stopping", true, ["1 inFlight"]],
        ["releasing", false, []]
      ])
    }))

  it.effect("Shutdown-8: runs that have ended since the request are children of the report, with their hooks", () =>
    Effect.gen(function*() {
      const failing = (work: Duration.DurationInput) =>
        Shutdown.run(Effect.scoped(Effect.gen(function*() {
          yield* Shutdown.onDrain(Effect.fail("no"))
          yield* Effect.fork(Shutdown.inFlight(Effect.sleep(work)))
          return yield* Effect.never
        })))
      const { ended, shutdown } = yield* launch(
        Effect.all([failing(0), failing(0), failing("2 seconds")], { concurrency: "unbounded" })
      )
      yield* shutdown.request(why)
      yield* pass("1 second")
      const failed = ["failed", "failed", "failed"]
      const seen = shutdown.unsafeReport()
      expect(seen.hooks.map(({ state }) => state)).toEqual(failed)
      expect(seen.children.map(({ phases }) => phases.at(-1)!.phase)).toEqual([
        "exited",
        "exited",
        "stopping"
      ])
      yield* pass("1 second")
      const { report } = yield* ended
      expect(report.hooks.map(({ state }) => state)).toEqual(failed)
      expect(report.children).toHaveLength(3)
    }))

  it.effect("Shutdown-8: one in a release, or masked, gets no request, whether it began before or after it", () =>
    Effect.gen(function*() {
      const { lines, held, say } = journal()
      const flush = Shutdown.run(Effect.delay(say("flushed"), "2 seconds"))
      const shielded = {
        "a release that begins after it": Managed.use(held("upload", flush), () => Effect.never),
        "a release under way": Managed.use(held("upload", flush), () => Effect.void),
        "a plain finalizer": Effect.ensuring(Effect.never, flush),
        "masked, in flight": Shutdown.inFlight(Effect.uninterruptible(flush)),
        "masked, begun after it": Effect.uninterruptible(
          Effect.zipRight(Shutdown.requested, flush)
        )
      }
      for (const [what, program] of Object.entries(shielded)) {
        const { ended, shutdown } = yield* launch(program)
        yield* pass("1 second")
        yield* shutdown.request(why)
        yield* pass("3 seconds")
        const { report } = yield* ended
        expect([what, lines.splice(0).filter((line) => line !== "+upload")]).toEqual([
          what,
          what.startsWith("a release") ? ["flushed", "-upload"] : ["flushed"]
        ])
        expect(report).toMatchObject({ reported: 0, overran: false, unfinished: [] })
      }
    }))

  it.effect("Shutdown-8: one in a release that does not end is bounded by the release", () =>
    Effect.gen(function*() {
      const { held } = journal()
      const hung = Managed.use(held("upload", Shutdown.run(Effect.never)), () => Effect.never)
      const { ended, shutdown } = yield* launch(hung)
      yield* shutdown.request(why)
      yield* pass("5 seconds")
      expect((yield* ended).report).toMatchObject({ took: 5000 })
    }))

  it.effect("Shutdown-8: its own request ends it alone", () =>
    Effect.gen(function*() {
      const program = Effect.zipRight(
        Shutdown.run(Effect.zipRight(Shutdown.request(why), Effect.never)),
        Effect.zip(Shutdown.isReady, Shutdown.report)
      )
      const { exit } = yield* Shutdown.run(program)
      expect(Exit.map(exit, ([ready, { reason }]) => [ready, reason])).toEqual(
        Exit.succeed([true, undefined])
      )
    }))
})

const pad = (count: number): Effect.Effect<void> => {
  let left = count
  return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step: () => {} })
}

it("Shutdown-6: a program that is asked to end while a stock operator computes does not hang", () => {
  const one = Effect.sleep(50)
  const all = Effect.all([one, one, one], { concurrency: "unbounded" })
  let asked = 0
  let overran = 0
  // Round the budget of operations after which a fiber yields.
  for (let offset = 1960; offset < 2056; offset++) {
    for (const task of [1, 2, 3]) {
      const shutdown = Shutdown.unsafeMake()
      runVirtually(
        (inTime, scheduler) =>
          Effect.runFork(
            inTime(shutdown.run(Effect.suspend(() => Effect.zipRight(pad(offset), all)))),
            { scheduler, immediate: false }
          ),
        60_000,
        (number) => {
          if (number !== task || shutdown.unsafePhase() !== "running") return
          if (shutdown.unsafeRequest({ kind: "request", by: "a test" })) asked++
        }
      )
      if (shutdown.unsafeReport().overran) overran++
      expect(shutdown.unsafePhase()).toBe("exited")
    }
  }
  expect(asked).toBeGreaterThan(96)
  expect(overran).toBe(0)
})
