/** Resources of other worlds: disposables, async generators (Python's asynccontextmanager), generators of effects. */
import { describe, expect, expectTypeOf, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, TestClock } from "effect"
import { Ledger, Managed, Shutdown } from "holdfast"

const defectsOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Array.from(Cause.defects(exit.cause)) : []
const failuresOf = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? Array.from(Cause.failures(exit.cause)) : []

/** Lets promises that are settled be seen by the fibers that wait for them. */
const promises = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

describe("fromDisposable", () => {
  it.effect("Managed-1: disposed of once, by asyncDispose if there is one", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const both = Managed.fromDisposable("both", () => ({
        [Symbol.asyncDispose]: async () => {
          await Promise.resolve()
          log.push("later")
        },
        [Symbol.dispose]: () => void log.push("now")
      }))
      yield* Effect.scoped(both)
      const now = Managed.fromDisposable(
        { name: "now", kind: "disposable" },
        Effect.sync(() => ({ [Symbol.dispose]: () => void log.push("now") }))
      )
      yield* Managed.use(now, () => Effect.void)
      expect(log).toEqual(["later", "now"])
      expect((yield* Ledger.snapshot).kinds["disposable"]).toMatchObject({ released: 1 })
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-4: a disposal that throws or rejects is a failed release; one that hangs is abandoned", () =>
    Effect.gen(function*() {
      const throws = Managed.fromDisposable("throws", () => ({
        [Symbol.dispose]: () => {
          throw new Error("no")
        }
      }))
      expect(defectsOf(yield* Effect.exit(Effect.scoped(throws)))).toMatchObject([{
        message: "no"
      }])
      const rejects = Managed.fromDisposable("rejects", () => ({
        [Symbol.asyncDispose]: () => Promise.reject(new Error("never"))
      }))
      expect(defectsOf(yield* Effect.exit(Effect.scoped(rejects)))).toMatchObject([{
        message: "never"
      }])
      const hangs = Managed.fromDisposable({ name: "hangs", releaseDeadline: "1 second" }, () => ({
        [Symbol.asyncDispose]: () => new Promise<void>(() => {})
      }))
      const fiber = yield* Effect.fork(Effect.scoped(hangs))
      yield* TestClock.adjust("1 second")
      expect(defectsOf(yield* Fiber.await(fiber))).toMatchObject([{ _tag: "ReleaseTimeout" }])
    }))

  it.effect("what fails is not held: typed by the effect, a defect by the call or without a dispose", () =>
    Effect.gen(function*() {
      const typed = Managed.fromDisposable(
        "typed",
        Effect.fail("no") as Effect.Effect<Disposable, string>
      )
      expect(failuresOf(yield* Effect.exit(Effect.scoped(typed)))).toEqual(["no"])
      const throws = Managed.fromDisposable("throws", (): Disposable => {
        throw new Error("no")
      })
      expect(defectsOf(yield* Effect.exit(Effect.scoped(throws)))).toMatchObject([{
        message: "no"
      }])
      const without = Managed.fromDisposable("without", () => ({}) as Disposable)
      expect(defectsOf(yield* Effect.exit(Effect.scoped(without)))).toMatchObject([
        { message: "\"without\" has no dispose method." }
      ])
      expect((yield* Ledger.snapshot).total.acquired).toBe(0)
    }).pipe(Effect.provide(Ledger.layer())))
})

describe("fromAsyncGenerator", () => {
  /** Tells what comes in at its `yield`. */
  const telling = (log: Array<string>, onError: (error: unknown) => void) =>
    Managed.fromAsyncGenerator("telling", async function*() {
      log.push("open")
      try {
        yield "it"
        log.push("left")
      } catch (error) {
        log.push(`saw ${error instanceof Error ? error.name : String(error)}`)
        onError(error)
      } finally {
        await Promise.resolve()
        log.push("close")
      }
    })
  const rethrow = (error: unknown) => {
    throw error
  }

  it.live("Managed-8: a success comes back at the yield, a failure and a defect are thrown in", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const resource = telling(log, rethrow)
      expect(yield* Managed.use(resource, Effect.succeed)).toBe("it")
      expect(log.splice(0)).toEqual(["open", "left", "close"])
      expect(yield* Effect.exit(Managed.use(resource, () => Effect.fail("no")))).toEqual(
        Exit.fail("no")
      )
      expect(log.splice(0)).toEqual(["open", "saw no", "close"])
      const bug = new TypeError("bug")
      expect(yield* Effect.exit(Effect.scoped(Effect.zipRight(resource, Effect.die(bug))))).toEqual(
        Exit.die(bug)
      )
      expect(log).toEqual(["open", "saw TypeError", "close"])
    }))

  it.live("Managed-8: an interruption is thrown in as an AbortError with its reason, and cannot be swallowed", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const seen: Array<unknown> = []
      const resource = telling(log, (error) => seen.push(error))
      const run = Effect.gen(function*() {
        const fiber = yield* Effect.fork(Managed.useOption(resource, () => Effect.never))
        yield* promises
        return yield* Fiber.interrupt(fiber)
      })
      expect(Exit.isInterrupted(yield* run)).toBe(true)
      expect(log.splice(0)).toEqual(["open", "saw AbortError", "close"])
      expect(
        Exit.isInterrupted(yield* Effect.exit(Managed.useOption(resource, () => Effect.interrupt)))
      )
        .toBe(true)
      yield* Shutdown.request({ kind: "request", by: "test" })
      yield* run
      expect(seen).toMatchObject([
        { _tag: "Interrupted", reason: { kind: "interrupt" } },
        { _tag: "Interrupted", reason: { kind: "interrupt" } },
        { reason: { kind: "shutdown", reason: { kind: "request", by: "test" } } }
      ])
    }).pipe(Effect.provideServiceEffect(Shutdown.Shutdown, Effect.sync(Shutdown.unsafeMake))))

  it.live("Managed-8: what it swallows is suppressed for useOption, and stays for use and for a scope", () =>
    Effect.gen(function*() {
      const resource = telling([], () => {})
      const fails = () => Effect.fail("no")
      expect(yield* Managed.useOption(resource, Effect.succeed)).toEqual(Option.some("it"))
      expect(yield* Managed.useOption(resource, fails)).toEqual(Option.none())
      expect(yield* Managed.useOption(resource, () => Effect.die("bug"))).toEqual(Option.none())
      expect(yield* Effect.exit(Managed.use(resource, fails))).toEqual(Exit.fail("no"))
      expect(yield* Effect.exit(Effect.scoped(Effect.zipRight(resource, fails())))).toEqual(
        Exit.fail("no")
      )
      const both = Managed.all([resource, telling([], rethrow)])
      expect(yield* Managed.useOption(both, fails)).toEqual(Option.none())
      const plain = Managed.make({ name: "p", acquire: Effect.void, release: () => Effect.void })
      expect(yield* Effect.exit(Managed.useOption(plain, fails))).toEqual(Exit.fail("no"))
    }))

  it.live("Managed-8: translated if it says from what, by catch; anything else it throws is a failed release", () =>
    Effect.gen(function*() {
      const translating = Managed.fromAsyncGenerator(
        { name: "t", catch: (error) => ({ translated: (error as Error).message }) },
        async function*() {
          try {
            yield 1
          } catch (error) {
            throw new Error("better", { cause: error })
          }
        }
      )
      const fails = () => Effect.fail("no")
      expect(yield* Effect.exit(Managed.useOption(translating, fails))).toEqual(
        Exit.fail({ translated: "better" })
      )
      const used = yield* Effect.exit(Managed.use(translating, fails))
      expect([failuresOf(used), defectsOf(used)]).toEqual([["no"], [{ translated: "better" }]])
      const broken = Managed.fromAsyncGenerator("broken", async function*() {
        try {
          yield 1
        } finally {
          // oxlint-disable-next-line no-unsafe-finally
          throw new Error("close failed")
        }
      })
      for (const run of [Managed.use, Managed.useOption]) {
        const exit = yield* Effect.exit(run(broken, fails))
        expect([failuresOf(exit), defectsOf(exit)]).toMatchObject([["no"], [{
          message: "close failed"
        }]])
        const alone = yield* Effect.exit(run(broken, () => Effect.void))
        expect(defectsOf(alone)).toMatchObject([{ message: "close failed" }])
      }
    }))

  it.live("Managed-8: what it throws before its yield is typed, and so is not to yield", () =>
    Effect.gen(function*() {
      const refused = new Error("refused")
      const throwing = async function*(): AsyncGenerator<number> {
        await Promise.reject(refused)
        yield 1
      }
      const failed = yield* Effect.flip(Effect.scoped(Managed.fromAsyncGenerator("db", throwing)))
      expect(failed).toMatchObject({ _tag: "GeneratorFailed", resource: "db", cause: refused })
      expect(failed.message).toContain("refused")
      const own = Managed.fromAsyncGenerator({ name: "db", catch: () => "own" as const }, throwing)
      expect(yield* Effect.flip(Effect.scoped(own))).toBe("own")
      const empty = Managed.fromAsyncGenerator("db", async function*(): AsyncGenerator<number> {})
      expect(yield* Effect.flip(Effect.scoped(empty))).toMatchObject({
        _tag: "GeneratorDidNotYield"
      })
      expect((yield* Ledger.snapshot).total.acquired).toBe(0)
    }).pipe(Effect.provide(Ledger.layer())))

  it.live("Managed-8: a second yield is a failed release, and the generator is ended all the same", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const twice = Managed.fromAsyncGenerator("twice", async function*() {
        try {
          yield 1
          yield 2
        } catch {
          yield 3
        } finally {
          log.push("ended")
        }
      })
      const exit = yield* Effect.exit(Managed.use(twice, () => Effect.void))
      expect(defectsOf(exit)).toMatchObject([{ _tag: "GeneratorYieldedTwice", resource: "twice" }])
      const failed = yield* Effect.exit(Managed.use(twice, () => Effect.fail("no")))
      expect([failuresOf(failed), defectsOf(failed)]).toMatchObject([["no"], [{
        _tag: "GeneratorYieldedTwice"
      }]])
      expect(log).toEqual(["ended", "ended"])
    }))

  it.live("Managed-2: interrupted before its yield it hears the signal, and is left if it gets there all the same", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const listens = Managed.fromAsyncGenerator("listens", async function*(signal) {
        await new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason as Error))
        })
        yield 1
      })
      const stubborn = Managed.fromAsyncGenerator("stubborn", async function*(signal) {
        try {
          await new Promise((resolve) => signal.addEventListener("abort", resolve))
          log.push("open all the same")
          yield 1
        } finally {
          log.push("close")
        }
      })
      for (const resource of [listens, stubborn]) {
        const fiber = yield* Effect.fork(Effect.scoped(resource))
        yield* promises
        expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      }
      expect(log).toEqual(["open all the same", "close"])
      yield* Ledger.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Managed-3: an acquire that ignores its interruption is given up, and closed if it ever gets there", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      let go = () => {}
      const deaf = Managed.fromAsyncGenerator("deaf", async function*() {
        try {
          await new Promise<void>((resolve) => {
            go = resolve
          })
          yield 1
        } finally {
          log.push("close")
        }
      })
      const fiber = yield* Effect.fork(Effect.scoped(deaf))
      yield* promises
      yield* Fiber.interruptFork(fiber)
      yield* promises
      yield* TestClock.adjust("5 seconds")
      expect(defectsOf(yield* Fiber.await(fiber))).toMatchObject([{ _tag: "ReleaseTimeout" }])
      go()
      yield* promises
      expect(log).toEqual(["close"])
    }))

  it.effect("Managed-3: a release that overruns is aborted, then has its onOverrun", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const stuck = Managed.fromAsyncGenerator(
        {
          name: "stuck",
          attributes: (port) => ({ port }),
          onOverrun: (port) => Effect.sync(() => log.push(`kill ${port}`))
        },
        async function*(signal) {
          signal.addEventListener("abort", () => log.push("aborted"))
          try {
            yield 80
          } finally {
            await new Promise(() => {})
          }
        }
      )
      const fiber = yield* Effect.fork(Managed.use(stuck, Effect.succeed))
      yield* promises
      yield* TestClock.adjust("5 seconds")
      expect(defectsOf(yield* Fiber.await(fiber))).toMatchObject([{ _tag: "ReleaseTimeout" }])
      expect(log).toEqual(["aborted", "kill 80"])
      expect((yield* Ledger.snapshot).ended[0]).toMatchObject({
        state: "abandoned",
        attributes: { port: 80 }
      })
    }).pipe(Effect.provide(Ledger.layer())))
})

describe("gen", () => {
  const telling = (
    log: Array<string>,
    result?: (exit: Exit.Exit<unknown, unknown>) => Exit.Exit<void, "other">
  ) =>
    Managed.gen("telling", function*(use) {
      yield* Effect.sync(() => log.push("open"))
      const exit = yield* use(7)
      yield* Effect.sync(() => log.push(`close ${exit._tag}`))
      return result?.(exit)
    })

  it.effect("Managed-8: acquires up to its use, releases after it with the exit", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const seven: number = yield* Managed.use(telling(log), Effect.succeed)
      expect(seven).toBe(7)
      yield* Effect.exit(Effect.scoped(Effect.zipRight(telling(log), Effect.fail("no"))))
      expect(log).toEqual(["open", "close Success", "open", "close Failure"])
    }))

  it.effect("Managed-8: an exit that it returns counts for useOption; elsewhere a failure is added", () =>
    Effect.gen(function*() {
      const fails = () => Effect.fail("no")
      const swallows = telling([], () => Exit.void)
      expect(yield* Managed.useOption(swallows, fails)).toEqual(Option.none())
      expect(yield* Effect.exit(Managed.use(swallows, fails))).toEqual(Exit.fail("no"))
      const interrupted = yield* Effect.exit(Managed.useOption(swallows, () => Effect.interrupt))
      expect(Exit.isInterrupted(interrupted)).toBe(true)
      const other = telling([], () => Exit.fail("other"))
      expect(yield* Effect.exit(Managed.useOption(other, fails))).toEqual(Exit.fail("other"))
      const added = yield* Effect.exit(Managed.use(other, fails))
      expect([failuresOf(added), defectsOf(added)]).toEqual([["no"], ["other"]])
    }))

  it.effect("its type is what it uses, whatever else it yields", () =>
    Effect.gen(function*() {
      const room = Managed.gen("room", function*(use, restore) {
        yield* Effect.void
        yield* restore(Effect.succeed<unknown>("anything"))
        const exit = yield* use("r")
        expectTypeOf(exit).toEqualTypeOf<Exit.Exit<unknown, unknown>>()
        yield* Effect.log(exit)
        if (Exit.isFailure(exit)) yield* Effect.fail("no" as const)
        return Exit.void
      })
      expectTypeOf(room).toEqualTypeOf<
        Managed.Managed<string, "no" | Managed.GeneratorDidNotYield>
      >()
      const empty = Managed.gen("empty", function*() {})
      expectTypeOf(empty).toEqualTypeOf<Managed.Managed<never, Managed.GeneratorDidNotYield>>()
      expect(yield* Managed.use(room, Effect.succeed)).toBe("r")
    }))

  it.effect("Managed-8: not to use is typed, to use twice is a failed release", () =>
    Effect.gen(function*() {
      const never = Managed.gen("never", function*() {
        yield* Effect.void
      })
      expect(yield* Effect.flip(Effect.scoped(never))).toMatchObject({
        _tag: "GeneratorDidNotYield",
        resource: "never"
      })
      const twice = Managed.gen("twice", function*(use) {
        yield* use(1)
        yield* use(2)
      })
      expect(defectsOf(yield* Effect.exit(Managed.use(twice, Effect.succeed)))).toMatchObject([
        { _tag: "GeneratorYieldedTwice", resource: "twice" }
      ])
      const elsewhere = Managed.gen("elsewhere", function*(use) {
        // @ts-expect-error: it is no effect, so only the generator itself can yield it.
        yield* Effect.asVoid(use(1)) as Effect.Effect<void>
      })
      expect(defectsOf(yield* Effect.exit(Effect.scoped(elsewhere)))).toHaveLength(1)
    }))

  it.effect("Managed-2: its acquire is cut only where restore says, and its errors are typed", () =>
    Effect.gen(function*() {
      const slow = Managed.gen("slow", function*(use, restore) {
        yield* restore(Effect.never)
        yield* use(1)
      })
      const fiber = yield* Effect.fork(Effect.scoped(slow))
      yield* Effect.yieldNow()
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
      const fails = Managed.gen("fails", function*(use) {
        yield* Effect.fail("typed" as const)
        yield* use(1)
      })
      expect(yield* Effect.flip(Effect.scoped(fails))).toBe("typed")
      yield* Ledger.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))
})

describe("fromAsyncGenerator of a user that failed with undefined", () => {
  it.effect("Managed-8: an error made from nothing is no translation of it", () =>
    Effect.gen(function*() {
      const broken = Managed.fromAsyncGenerator("broken", async function*() {
        try {
          yield
        } catch {
          throw new Error("flush failed")
        }
      })
      const exit = yield* Effect.exit(Managed.useOption(broken, () => Effect.fail(undefined)))
      expect(Exit.isFailure(exit) && Cause.failureOption(exit.cause)).toEqual(
        Option.some(undefined)
      )
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("flush failed")
    }))
})

describe("toAsyncDisposable", () => {
  const traced = (log: Array<string>, release: Effect.Effect<unknown, unknown> = Effect.void) =>
    Managed.make({
      name: "traced",
      acquire: Effect.sync(() => {
        log.push("+")
        return 7
      }),
      release: (_, exit) => Effect.zipRight(Effect.sync(() => log.push(`-${exit._tag}`)), release)
    })

  it("Managed-1: await using lets go at the end of the block, whatever happens in it", async () => {
    const log: Array<string> = []
    const block = async (): Promise<void> => {
      await using owned = await Effect.runPromise(Managed.toAsyncDisposable(traced(log)))
      log.push(`use ${owned.value}`)
      throw new Error("no")
    }
    await expect(block()).rejects.toThrow("no")
    expect(log).toEqual(["+", "use 7", "-Success"])
  })

  it("Managed-1: disposing twice, or at once, waits for the one release and says what it said", async () => {
    const log: Array<string> = []
    const slow = traced(log, Effect.zipRight(Effect.sleep(5), Effect.sync(() => log.push("done"))))
    const owned = await Effect.runPromise(Managed.toAsyncDisposable(slow))
    await Promise.all([owned[Symbol.asyncDispose](), owned[Symbol.asyncDispose]()])
    await owned[Symbol.asyncDispose]()
    expect(log).toEqual(["+", "-Success", "done"])
    const bad = await Effect.runPromise(
      Managed.toAsyncDisposable(traced([], Effect.fail("broken")))
    )
    await expect(bad[Symbol.asyncDispose]()).rejects.toThrow("broken")
    await expect(bad[Symbol.asyncDispose]()).rejects.toThrow("broken")
  })

  it("Managed-1: a release that disposes of its own resource is the only one", async () => {
    let releases = 0
    const again: Array<PromiseLike<void>> = []
    const socket = Managed.make({
      name: "socket",
      acquire: Effect.void,
      release: () =>
        Effect.promise(async () => {
          if (++releases < 5) again.push(owned[Symbol.asyncDispose]())
        })
    })
    const owned = await Effect.runPromise(Managed.toAsyncDisposable(socket))
    await owned[Symbol.asyncDispose]()
    await Promise.all(again)
    expect(releases).toBe(1)
  })

  it.effect("Managed-1: interrupted by the time it is open, it is released at once", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.sleep("1 second"),
        release: (_, exit) => Effect.sync(() => log.push(exit._tag))
      })
      const fiber = yield* Effect.fork(Managed.toAsyncDisposable(slow))
      yield* Effect.yieldNow()
      yield* Fiber.interruptFork(fiber)
      yield* TestClock.adjust("1 second")
      expect(Exit.isInterrupted(yield* Fiber.await(fiber))).toBe(true)
      expect(log).toEqual(["Failure"])
    }))
})
