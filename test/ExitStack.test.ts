import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Option,
  Runtime,
  Scope,
  TestClock
} from "effect"
import { Ledger, Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"

/** A resource that tells when it comes and goes, and with which exit. */
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
      Effect.zipRight(Effect.sync(() => log.push(`-${name} ${show(exit)}`)), release)
  })

/** The same as an effect that needs a scope. */
const scoped = (log: Array<string>, name: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      log.push(`+${name}`)
      return name
    }),
    (_, exit) => Effect.sync(() => log.push(`-${name} ${show(exit)}`))
  )

/** `ok 1`, `fail boom`, `fail boom + die bad`, `interrupt`. */
const show = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.match(exit, { onSuccess: (value) => `ok ${value}`, onFailure: showCause })

const showCause = (cause: Cause.Cause<unknown>): string =>
  Cause.isInterruptedOnly(cause) ? "interrupt" : Cause.match(cause, {
    onEmpty: "",
    onFail: (error) => `fail ${textOf(error)}`,
    onDie: (defect) => `die ${textOf(defect)}`,
    onInterrupt: () => "interrupt",
    onSequential: (left, right) => `${left} + ${right}`,
    onParallel: (left, right) => `${left} & ${right}`
  })

const textOf = (error: unknown): string =>
  error instanceof Managed.ReleaseTimeout
    ? `ReleaseTimeout ${error.resource}`
    : error instanceof ExitStack.EnterTimeout
    ? `EnterTimeout ${error.entering.map(({ resource }) => resource).join(" and ")}`
    : error instanceof Managed.OwnerClosed
    ? `OwnerClosed ${error.owner} ${error.resource}`
    : error instanceof Error
    ? error.message
    : String(error)

const watch = (log: Array<string>, name: string) => (exit: Exit.Exit<unknown, unknown>) =>
  Effect.sync(() => {
    log.push(`${name} saw ${show(exit)}`)
  })

type Stack = ExitStack.ExitStack

const ends = <A, E>(effect: Effect.Effect<A, E>) => Effect.map(Effect.exit(effect), show)

describe("order and exits", () => {
  it.effect("ExitStack-1: what was entered or pushed runs once, the last first, for every exit", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const body = (end: Effect.Effect<number, string>) => (stack: Stack) =>
        Effect.gen(function*() {
          expect(yield* stack.enter(traced(log, "a"))).toBe("a")
          yield* stack.push(watch(log, "b"))
          expect(yield* stack.enter(scoped(log, "c"))).toBe("c")
          yield* stack.callback(Effect.sync(() => log.push("d")))
          return yield* end
        })
      for (
        const [end, seen] of [
          [Effect.succeed(1), "ok 1"],
          [Effect.fail("boom"), "fail boom"],
          [Effect.die("dead"), "die dead"],
          [Effect.interrupt, "interrupt"]
        ] as const
      ) {
        log.length = 0
        expect(yield* ends(ExitStack.use(body(end)))).toBe(seen)
        expect(log).toEqual(["+a", "+c", "d", `-c ${seen}`, `b saw ${seen}`, `-a ${seen}`])
      }
    }))

  it.effect("ExitStack-1: a body that throws is a body that dies", () =>
    Effect.gen(function*() {
      const exit = yield* ends(ExitStack.use(() => {
        throw new Error("thrown")
      }))
      expect(exit).toBe("die thrown")
    }))

  it.effect("ExitStack-1: an interrupted body's resources are released before the interrupt is seen", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const fiber = yield* Effect.fork(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          yield* stack.enter(scoped(log, "b"))
          yield* stack.push(watch(log, "c"))
          return yield* Effect.never
        })
      ))
      yield* Effect.yieldNow()
      expect(show(yield* Fiber.interrupt(fiber))).toBe("interrupt")
      expect(log).toEqual(["+a", "+b", "c saw interrupt", "-b interrupt", "-a interrupt"])
    }))

  it.effect("ExitStack-1: nested stacks unwind from the inside out", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const program = ExitStack.use((outer) =>
        Effect.zipRight(
          outer.enter(traced(log, "outer")),
          ExitStack.use((inner) =>
            Effect.zipRight(inner.enter(traced(log, "inner")), Effect.fail("boom"))
          )
        )
      )
      expect(yield* ends(program)).toBe("fail boom")
      expect(log).toEqual(["+outer", "+inner", "-inner fail boom", "-outer fail boom"])
    }))

  it.effect("ExitStack-1: 100,000 callbacks take no stack", () =>
    Effect.gen(function*() {
      let ran = 0
      yield* ExitStack.use((stack) =>
        Effect.repeatN(stack.callback(Effect.sync(() => ran++)), 99_999)
      )
      expect(ran).toBe(100_000)
    }))

  it.effect("ExitStack-3: a handler sees the exit as it is by then, and what the last leaves is the result", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const program = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(watch(log, "1"))
          yield* stack.push(() => Effect.succeed(Exit.succeed("made do")))
          yield* stack.push(watch(log, "2"))
          yield* stack.push(() => Effect.succeed(Exit.fail("other" as const)))
          yield* stack.push(watch(log, "3"))
          return yield* Effect.fail("boom" as const)
        })
      )
      const typed: Effect.Effect<string, "boom" | "other"> = program
      expect(yield* typed).toBe("made do")
      expect(log).toEqual(["3 saw fail boom", "2 saw fail other", "1 saw ok made do"])
    }))

  it.effect("ExitStack-3: what handlers put in place of the exit is in the type of the result", () =>
    Effect.gen(function*() {
      const plain: Effect.Effect<number> = ExitStack.use((stack) =>
        Effect.zipRight(stack.push(watch([], "a")), Effect.succeed(1))
      )
      expect(yield* ends(plain)).toBe("ok 1")
      const replaced = ExitStack.use((stack) =>
        Effect.zipRight(stack.push(() => Effect.succeed(Exit.succeed("no"))), Effect.succeed(1))
      )
      const result: Effect.Effect<number | string> = replaced
      // @ts-expect-error the handler may give a string
      const narrow: Effect.Effect<number> = replaced
      expect([yield* ends(result), yield* ends(narrow)]).toEqual(["ok no", "ok no"])
      // A failure of the handler is one of the result, too, and so is what is given instead.
      const fails: Effect.Effect<number | boolean, "bad"> = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(() => Effect.fail("bad" as const))
          yield* stack.enter(traced([], "a"), { instead: Exit.succeed(true) })
          return 1
        })
      )
      expect(yield* ends(fails)).toBe("fail bad")
      // What it requires besides stays.
      const Port = Context.GenericTag<"Port", number>("Port")
      const asks: Effect.Effect<string, never, "Port"> = ExitStack.use((stack) =>
        Effect.zipRight(
          stack.push(() => Effect.map(Port, (port) => Exit.succeed(`port ${port}`))),
          Effect.succeed("none")
        )
      )
      expect(yield* ends(Effect.provideService(asks, Port, 80))).toBe("ok port 80")
    }))

  it.effect("ExitStack-3: it may also stand in the parameter's type, and must where another `use` is between", () =>
    Effect.gen(function*() {
      const other = ExitStack.use((stack: ExitStack.ExitStack<string>) =>
        // @ts-expect-error a string was promised, not a number
        Effect.zipRight(stack.push(() => Effect.succeed(Exit.succeed(1))), Effect.succeed("a"))
      )
      expect(yield* ends(other)).toBe("ok 1")
      const nested: Effect.Effect<string | number> = ExitStack.use((
        outer: ExitStack.ExitStack<string>
      ) =>
        ExitStack.use((inner) =>
          Effect.gen(function*() {
            yield* outer.push(() => Effect.succeed(Exit.succeed("outer")))
            yield* inner.callback(Effect.void)
            return 1
          })
        )
      )
      expect(yield* ends(nested)).toBe("ok outer")
      // A function that only enters takes any stack.
      const enters = (stack: Stack) => stack.enter(traced([], "a"))
      const wide = ExitStack.use((stack: ExitStack.ExitStack<number, string>) => enters(stack))
      const plain: Effect.Effect<string> = ExitStack.use((stack) => enters(stack))
      expect([yield* ends(wide), yield* ends(plain)]).toEqual(["ok a", "ok a"])
    }))

  it.effect("ExitStack-1: a layer's stack is unwound when the layer ends, and prints its state", () =>
    Effect.gen(function*() {
      class Files extends Context.Tag("Files")<
        Files,
        ExitStack.ExitStack<unknown, unknown>
      >() {}
      const log: Array<string> = []
      const program = Effect.flatMap(
        Files,
        (files) => Effect.map(files.enter(traced(log, "a")), () => files)
      )
      const files = yield* Effect.provide(program, ExitStack.layer(Files, { name: "files" }))
      expect(log).toEqual(["+a", expect.stringMatching(/^-a ok/)])
      expect(ExitStack.TypeId in files).toBe(true)
      expect(JSON.parse(JSON.stringify(files))).toEqual({
        _id: "holdfast/ExitStack",
        name: "files",
        state: "closed",
        steps: 0,
        entering: 0
      })
    }))

  it.effect("ExitStack-3: a handler has what it required when it was pushed", () =>
    Effect.gen(function*() {
      const Port = Context.GenericTag<number>("Port")
      const seen: Array<number> = []
      yield* ExitStack.use((stack) =>
        Effect.provideService(
          stack.push(() => Effect.map(Port, (port) => void seen.push(port))),
          Port,
          80
        )
      )
      expect(seen).toEqual([80])
    }))

  it.effect("ExitStack-3: an interrupt of its own fiber is seen again, whatever a handler makes of it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const fiber = yield* Effect.fork(
        Effect.zipRight(
          ExitStack.use((stack: ExitStack.ExitStack<string>) =>
            Effect.gen(function*() {
              yield* stack.push(watch(log, "outer"))
              yield* stack.push(() => Effect.succeed(Exit.succeed("ignored")))
              return yield* Effect.never
            })
          ),
          Effect.sync(() => log.push("went on"))
        )
      )
      yield* Effect.yieldNow()
      expect(show(yield* Fiber.interrupt(fiber))).toBe("interrupt")
      expect(log).toEqual(["outer saw ok ignored"])
    }))
})

describe("failing ends", () => {
  it.effect("ExitStack-4: what fails, dies or throws stops no other and is appended", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const program = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(watch(log, "last"))
          yield* stack.enter(traced(log, "r", Effect.fail("release")))
          yield* stack.callback(Effect.fail("callback"))
          yield* stack.push(() => Effect.fail("handler"))
          yield* stack.push(() => Effect.die("defect"))
          yield* stack.push(() => {
            throw new Error("thrown")
          })
          return yield* Effect.fail("boom")
        })
      )
      const all = "fail boom + die thrown + die defect + fail handler + die callback"
      expect(yield* ends(program)).toBe(`${all} + die release`)
      expect(log).toEqual(["+r", `-r ${all}`, `last saw ${all} + die release`])
    }))

  it.effect("ExitStack-4: after a success a failure is the exit; a later handler may still replace it", () =>
    Effect.gen(function*() {
      const program = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push((exit) => Effect.succeed(Exit.succeed(`after ${show(exit)}`)))
          yield* stack.callback(Effect.fail("bad"))
          return "good"
        })
      )
      expect(yield* ends(program)).toBe("ok after die bad")
    }))

  it.effect("ExitStack-4: all that a callback or a scoped effect's releases failed with is kept", () =>
    Effect.gen(function*() {
      const program = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.callback(
            Effect.failCause(Cause.sequential(Cause.fail("one"), Cause.fail("two")))
          )
          yield* stack.enter(Effect.addFinalizer(() => Effect.die("three")))
        })
      )
      expect(yield* ends(program)).toBe("die three + die one + die two")
    }))

  for (
    const [what, hung] of [
      ["never", Effect.never],
      ["an uninterruptible never", Effect.uninterruptible(Effect.never)],
      ["a promise that never settles", Effect.promise<never>(() => new Promise(() => {}))]
    ] as const
  ) {
    it.effect(`ExitStack-4: what is ${what} is abandoned by name, the others still run`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const fiber = yield* Effect.fork(ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a"))
            yield* stack.push(() => hung, { name: "goodbye" })
            yield* stack.callback(hung, { name: "flush", releaseDeadline: "1 second" })
            yield* stack.enter(Effect.addFinalizer(() => hung), { name: "tmp" })
            yield* stack.enter(traced(log, "hung", hung))
          })
        ))
        yield* TestClock.adjust("16 seconds")
        const all = ["hung", "tmp", "flush", "goodbye"].map((name) => `die ReleaseTimeout ${name}`)
        expect(show(yield* Fiber.await(fiber))).toBe(all.join(" + "))
        expect(log).toEqual(["+a", "+hung", "-hung ok undefined", `-a ${all.join(" + ")}`])
        const { ended, kinds, live } = yield* Ledger.snapshot
        expect(live).toEqual([])
        expect(kinds["callback"]).toEqual({ acquired: 1, released: 0, failed: 0, abandoned: 1 })
        expect(ended.map(({ kind, name, state }) => `${kind} ${name} ${state}`)).toEqual([
          "traced hung abandoned",
          "scope tmp abandoned",
          "callback flush abandoned",
          "exit handler goodbye abandoned",
          "traced a released"
        ])
      }).pipe(Effect.provide(Ledger.layer())))
  }

  it.effect("ExitStack-4: a deadline never skips a good handler of an interrupted owner", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const fiber = yield* Effect.fork(ExitStack.use((stack) =>
        Effect.zipRight(
          stack.callback(
            Effect.zipRight(Effect.sleep("4 seconds"), Effect.sync(() => log.push("done")))
          ),
          Effect.never
        )
      ))
      yield* Effect.yieldNow()
      const ending = yield* Effect.fork(Fiber.interrupt(fiber))
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.join(ending)
      expect(log).toEqual(["done"])
    }))

  it.effect("ExitStack-4: a deadline that is none, is an error of who pushes", () =>
    Effect.gen(function*() {
      const exit = yield* ends(ExitStack.use((stack) =>
        // @ts-expect-error no duration
        stack.callback(Effect.void, { releaseDeadline: "soon" })
      ))
      expect(exit).toMatch(/^die /)
    }))
})

describe("acquiring", () => {
  it.effect("ExitStack-2: an acquire that fails or is cut has registered nothing", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const bad = Managed.make({
        name: "bad",
        acquire: Effect.fail("no"),
        release: () => Effect.sync(() => log.push("-bad"))
      })
      const slow = Managed.make({
        name: "slow",
        acquire: (restore) => restore(Effect.never),
        release: () => Effect.sync(() => log.push("-slow"))
      })
      yield* ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          expect(yield* ends(stack.enter(bad))).toBe("fail no")
          expect(yield* ends(stack.enter(Effect.zipRight(scoped(log, "b"), Effect.fail("no")))))
            .toBe("fail no")
          for (const never of [slow, Effect.zipRight(scoped(log, "c"), Effect.never)]) {
            const entering = yield* Effect.fork(stack.enter(never))
            yield* Effect.yieldNow()
            expect(show(yield* Fiber.interrupt(entering))).toBe("interrupt")
          }
        })
      )
      expect(log).toEqual(["+a", "+b", "-b fail no", "+c", "-c interrupt", "-a ok undefined"])
    }))

  it.effect("ExitStack-2: a scoped effect that fails keeps what its releases failed with, within the deadline", () =>
    Effect.gen(function*() {
      const failing = (release: Effect.Effect<void>) =>
        Effect.zipRight(Effect.addFinalizer(() => release), Effect.fail("no"))
      const fiber = yield* Effect.fork(ends(ExitStack.use((stack) =>
        Effect.zipRight(
          Effect.map(ends(stack.enter(failing(Effect.die("too")))), (exit) =>
            expect(exit).toBe("fail no + die too")),
          stack.enter(failing(Effect.uninterruptible(Effect.never)), { name: "tmp" })
        )
      )))
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(fiber)).toBe("fail no + die ReleaseTimeout tmp")
    }))

  it.effect("ExitStack-8: enterAll gives the values in order, and they are released in reverse of their coming", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const later = Effect.zipRight(Effect.sleep("1 second"), scoped(log, "a"))
      const fiber = yield* Effect.fork(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "first"))
          const [a, b] = yield* stack.enterAll([later, traced(log, "b")], { concurrency: 2 })
          const typed: readonly [string, string] = [a, b]
          const none: ReadonlyArray<Managed.Managed<string>> = []
          expect(yield* stack.enterAll(none)).toEqual([])
          return typed
        })
      ))
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toEqual(["a", "b"])
      expect(log.slice(0, 3)).toEqual(["+first", "+b", "+a"])
      expect(log.slice(3).map((line) => line.slice(0, 6))).toEqual(["-a ok ", "-b ok ", "-first"])
    }))

  for (const concurrency of [1, 3] as const) {
    it.effect(`ExitStack-8: when one of enterAll fails nothing of it stays, ${concurrency} at once`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const members = [
          traced(log, "b"),
          traced(log, "c", Effect.die("bad")),
          Effect.fail("no"),
          Effect.zipRight(Effect.sleep("1 second"), scoped(log, "d"))
        ] as const
        const program = ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a"))
            const exit = yield* ends(stack.enterAll(members, { concurrency }))
            expect(exit).toBe("fail no + die bad")
            log.push("went on")
            yield* stack.enter(traced(log, "e"))
            return "ok"
          })
        )
        expect(yield* program).toBe("ok")
        expect(log).toEqual([
          "+a",
          "+b",
          "+c",
          "-c fail no",
          "-b fail no + die bad",
          "went on",
          "+e",
          "-e ok ok",
          "-a ok ok"
        ])
      }))
  }
})

describe("ownership that moves", () => {
  it.effect("ExitStack-5: popAll leaves nothing behind, and the scope owns it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const opened = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          yield* stack.push(watch(log, "b"))
          const kept = yield* stack.popAll
          log.push("moved")
          return kept
        })
      )
      const program = Effect.gen(function*() {
        const kept = yield* opened
        log.push("left")
        yield* kept.callback(Effect.sync(() => log.push("c")))
        return yield* Effect.fail("boom")
      })
      expect(yield* ends(Effect.scoped(program))).toBe("fail boom")
      expect(log).toEqual(["+a", "moved", "left", "c", "b saw fail boom", "-a fail boom"])
    }))

  it.effect("ExitStack-5: what moved can be closed by hand, and is then not released again", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const kept = yield* ExitStack.use((stack) =>
          Effect.zipRight(stack.enter(traced(log, "a", Effect.die("bad"))), stack.popAll)
        )
        expect(show(yield* kept.close(Exit.succeed(1)))).toBe("die bad")
        log.push("closed")
      }))
      expect(log).toEqual(["+a", "-a ok 1", "closed"])
    }))

  it.effect("ExitStack-5: moveTo a scope, whose close fails with what was added and with nothing else", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      yield* ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.callback(Effect.fail("one"))
          yield* stack.push(() => Effect.fail("two"))
          yield* stack.enter(traced(log, "a"))
          yield* stack.moveTo(scope)
        })
      )
      expect(log).toEqual(["+a"])
      expect(yield* ends(Scope.close(scope, Exit.fail("boom")))).toBe("die two + die one")
      expect(log).toEqual(["+a", "-a fail boom"])
    }))

  it.effect("ExitStack-7: who has what a stack had waits for what was being acquired for that one, which may use it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.zipRight(Effect.sleep("1 second"), Effect.sync(() => log.push("+slow"))),
        release: () => Effect.sync(() => log.push("-slow"))
      })
      const given = yield* Effect.fork(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          const entering = yield* Effect.forkDaemon(ends(stack.enter(slow)))
          yield* Effect.yieldNow()
          yield* Effect.scoped(Effect.asVoid(stack.popAll))
          log.push("closed")
          return entering
        })
      ))
      yield* TestClock.adjust("1 second")
      const entering = yield* Fiber.join(given)
      expect(yield* Fiber.join(entering)).toBe("die OwnerClosed exit stack slow")
      expect(log.map((line) => line.slice(0, 5))).toEqual([
        "+a",
        "+slow",
        "-slow",
        "-a ok",
        "close"
      ])
    }))

  it.effect("ExitStack-6: a scope's close that is interrupted loses nothing of what moved to it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const stack = yield* Scope.extend(ExitStack.make(), scope)
      yield* stack.enter(traced(log, "a"))
      yield* stack.enter(traced(log, "b", Effect.sleep("1 second")))
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow()
      yield* Fiber.interruptFork(closing)
      yield* TestClock.adjust("1 second")
      yield* Fiber.await(closing)
      expect(log).toEqual(["+a", "+b", "-b ok undefined", "-a ok undefined"])
    }))

  it.effect("ExitStack-5: a replacement cannot change the scope's exit, but its failure is not lost", () =>
    Effect.gen(function*() {
      const under = (
        replacement: Exit.Exit<unknown, unknown>,
        end: Effect.Effect<string, string>
      ) =>
        ends(Effect.scoped(Effect.zipRight(
          Effect.flatMap(
            ExitStack.make(),
            (stack) => stack.push(() => Effect.succeed(replacement))
          ),
          end
        )))
      expect(yield* under(Exit.succeed("no"), Effect.fail("boom"))).toBe("fail boom")
      expect(yield* under(Exit.fail("other"), Effect.fail("boom"))).toBe("fail boom + die other")
      expect(yield* under(Exit.fail("other"), Effect.succeed("fine"))).toBe("die other")
    }))

  it.effect("ExitStack-5, ExitStack-7: nothing moves to a closed scope, nor from a stack that was emptied or closed", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      yield* Scope.close(scope, Exit.void)
      const program = ExitStack.use(
        (stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a"))
            expect(yield* ends(stack.moveTo(scope))).toBe("die OwnerClosed scope files")
            expect(yield* ends(Scope.extend(stack.popAll, scope))).toBe(
              "die OwnerClosed scope files"
            )
            log.push("still here")
            const kept = yield* stack.popAll
            expect(yield* ends(Effect.scoped(stack.popAll))).toBe("die OwnerClosed files popAll")
            yield* kept.close(Exit.void)
            expect(yield* ends(Effect.scoped(kept.popAll))).toBe("die OwnerClosed files popAll")
          }),
        { name: "files" }
      )
      yield* Effect.scoped(program)
      expect(log).toEqual(["+a", "still here", "-a ok undefined"])
    }))
})

describe("closing", () => {
  it.effect("ExitStack-6: everybody who closes waits for the same end and gets the same exit", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.push(() => Effect.succeed(Exit.succeed("replaced")))
        yield* stack.enter(traced(log, "a", Effect.sleep("2 seconds")))
        const one = yield* Effect.fork(stack.close(Exit.fail("one")))
        yield* Effect.yieldNow()
        const two = yield* Effect.fork(stack.close(Exit.fail("two")))
        yield* TestClock.adjust("1 second")
        expect(one.unsafePoll()).toBe(null)
        expect(two.unsafePoll()).toBe(null)
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.join(one)
        expect(show(exit)).toBe("ok replaced")
        expect(yield* Fiber.join(two)).toBe(exit)
        expect(yield* stack.close(Exit.void)).toBe(exit)
      }))
      expect(log).toEqual(["+a", "-a fail one"])
    }))

  it.effect("ExitStack-6: an interrupted closer releases everything; one who only waits goes at once", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(traced(log, "a", Effect.sleep("1 second")))
        yield* stack.enter(traced(log, "b", Effect.sleep("1 second")))
        const one = yield* Effect.fork(stack.close(Exit.void))
        yield* Effect.yieldNow()
        const two = yield* Effect.fork(stack.close(Exit.void))
        yield* Effect.yieldNow()
        expect(show(yield* Fiber.interrupt(two))).toBe("interrupt")
        yield* Fiber.interruptFork(one)
        yield* TestClock.adjust("2 seconds")
        expect(show(yield* Fiber.await(one))).toBe("interrupt")
      }))
      expect(log).toEqual(["+a", "+b", "-b ok undefined", "-a ok undefined"])
    }))

  it.effect("ExitStack-6: a body that closes its stack keeps its own exit; use waits for somebody else's close", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const program = ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a", Effect.sleep("1 second")))
          yield* Effect.forkDaemon(stack.close(Exit.fail("early")))
          yield* Effect.yieldNow()
          return "mine"
        })
      )
      const fiber = yield* Effect.fork(program)
      yield* TestClock.adjust("999 millis")
      expect(fiber.unsafePoll()).toBe(null)
      yield* TestClock.adjust("1 millis")
      expect(yield* Fiber.join(fiber)).toBe("mine")
      expect(log).toEqual(["+a", "-a fail early"])
    }))

  it.effect("ExitStack-7: a closed stack refuses before anything is acquired", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const closed = yield* Scope.extend(ExitStack.make({ name: "files" }), scope)
      yield* Scope.close(scope, Exit.void)
      const inClosedScope = yield* Scope.extend(ExitStack.make({ name: "files" }), scope)
      const emptied = yield* Effect.scoped(
        Effect.tap(ExitStack.make({ name: "files" }), (stack) => stack.popAll)
      )
      for (const stack of [closed, inClosedScope, emptied]) {
        const refusal = Cause.squash(
          yield* Effect.flip(Effect.sandbox(stack.enter(traced(log, "a"))))
        )
        expect(refusal).toBeInstanceOf(Managed.OwnerClosed)
        expect(refusal).toMatchObject({ owner: "files", resource: "a" })
        expect(yield* ends(stack.enter(scoped(log, "b"), { name: "b" })))
          .toBe("die OwnerClosed files b")
        expect(yield* ends(stack.enterAll([traced(log, "c"), scoped(log, "d")])))
          .toBe("die OwnerClosed files c, scoped effect")
        expect(yield* ends(stack.push(watch(log, "e")))).toMatch(/^die OwnerClosed files/)
        expect(yield* ends(stack.callback(Effect.sync(() => log.push("f")), { name: "f" })))
          .toBe("die OwnerClosed files f")
        yield* stack.close(Exit.void)
      }
      expect(log).toEqual([])
    }))

  it.effect("ExitStack-7: a handler that enters into the stack it runs in is refused", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* ExitStack.use((stack) =>
        stack.push(() =>
          Effect.map(ends(stack.enter(traced(log, "late"))), (exit) => void log.push(exit))
        )
      )
      expect(log).toEqual(["die OwnerClosed exit stack late"])
    }))

  for (const way of ["enter", "enterAll", "scoped"] as const) {
    it.effect(`ExitStack-7: what is being acquired when it closes is given back first (${way})`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const gate = yield* Deferred.make<void>()
        const slow = Managed.make({
          name: "slow",
          acquire: Effect.zipRight(Deferred.await(gate), Effect.sync(() => log.push("+slow"))),
          release: (_, exit) =>
            Effect.zipRight(
              Effect.sleep("1 second"),
              Effect.sync(() => log.push(`-slow ${show(exit)}`))
            )
        })
        const enters = {
          enter: (stack: Stack) => stack.enter(slow),
          enterAll: (stack: Stack) => stack.enterAll([slow, traced(log, "b")]),
          scoped: (stack: Stack) =>
            stack.enter(Effect.zipRight(slow, Effect.void), { name: "slow" })
        }[way]
        yield* Effect.scoped(Effect.gen(function*() {
          const stack = yield* ExitStack.make()
          yield* stack.enter(traced(log, "a"))
          const entering = yield* Effect.fork(ends(enters(stack)))
          yield* Effect.yieldNow()
          const closing = yield* Effect.fork(stack.close(Exit.void))
          yield* TestClock.adjust("4 seconds")
          expect(log).toEqual(["+a"])
          yield* Deferred.succeed(gate, undefined)
          yield* TestClock.adjust("1 second")
          const refused = way === "enterAll" ? "slow, b" : "slow"
          expect(yield* Fiber.join(entering)).toBe(`die OwnerClosed exit stack ${refused}`)
          expect(show(yield* Fiber.join(closing))).toBe("ok undefined")
          const seen = `die OwnerClosed exit stack ${refused}`
          expect(log).toEqual([
            "+a",
            "+slow",
            ...way === "enterAll" ? ["+b", `-b ${seen}`] : [],
            `-slow ${seen}`,
            "-a ok undefined"
          ])
        }))
      }))
  }

  it.effect("ExitStack-7: what is being acquired when everything moves is given back, what moved stays", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(traced(log, "a"))
        const entering = yield* Effect.fork(
          ends(stack.enter(Effect.zipRight(Effect.sleep("1 second"), scoped(log, "slow"))))
        )
        yield* Effect.yieldNow()
        const kept = yield* stack.popAll
        yield* TestClock.adjust("1 second")
        expect(yield* Fiber.join(entering)).toBe("die OwnerClosed exit stack scoped effect")
        expect(log.map((line) => line.slice(0, 5))).toEqual(["+a", "+slow", "-slow"])
        yield* kept.close(Exit.void)
      }))
      expect(log.at(-1)).toBe("-a ok undefined")
    }))
})

describe("acquires that do not end", () => {
  const hung = Managed.make({ name: "hung", acquire: Effect.never, release: () => Effect.void })

  const patient = Managed.make({
    name: "patient",
    acquire: (restore) => restore(Effect.never),
    release: () => Effect.void
  })

  /** Open as soon as the gate is; nobody can cut it. */
  const gated = (log: Array<string>, gate: Deferred.Deferred<void>) =>
    Effect.gen(function*() {
      yield* Effect.uninterruptible(Deferred.await(gate))
      return yield* traced(log, "late")
    })

  for (const [way, end] of [["returns", Effect.void], ["fails", Effect.fail("boom")]] as const) {
    it.effect(`ExitStack-10: a stack that ${way} waits 5 seconds for them, then names them and goes on`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const gate = yield* Deferred.make<void>()
        const late: Array<Fiber.Fiber<string>> = []
        const program = ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a"))
            yield* stack.push(watch(log, "b"))
            for (
              const enter of [
                Effect.asVoid(stack.enter(gated(log, gate), { name: "one" })),
                Effect.asVoid(stack.enterAll([gated(log, gate), traced(log, "never opened")])),
                stack.enter(hung)
              ]
            ) late.push(yield* Effect.forkDaemon(ends(enter)))
            yield* Effect.yieldNow()
            yield* end
          })
        )
        const fiber = yield* Effect.fork(ends(program))
        yield* TestClock.adjust("4999 millis")
        expect(log).toEqual(["+a"])
        yield* TestClock.adjust("1 millis")
        const all = "die EnterTimeout one and scoped effect, never opened and hung"
        const seen = way === "fails" ? `fail boom + ${all}` : all
        expect(yield* Fiber.join(fiber)).toBe(seen)
        expect(log).toEqual(["+a", `b saw ${seen}`, `-a ${seen}`])
        log.length = 0
        // What comes now is given back.
        yield* Deferred.succeed(gate, undefined)
        expect(yield* Fiber.join(late[0]!)).toBe("die OwnerClosed exit stack one")
        expect(yield* Fiber.join(late[1]!)).toMatch(/^die OwnerClosed exit stack /)
        expect(log.map((line) => line.slice(0, 5)).toSorted())
          .toEqual(["+late", "+late", "-late", "-late"])
      }))
  }

  it.effect("ExitStack-10: one that was given up, and is still there, keeps nothing for ever", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const fiber = yield* Effect.fork(ends(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          yield* stack.enter(hung).pipe(Effect.disconnect, Effect.timeoutOption(100))
        })
      )))
      yield* TestClock.adjust("100 millis")
      expect(log).toEqual(["+a"])
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(fiber)).toBe("die EnterTimeout hung")
      expect(log).toEqual(["+a", "-a die EnterTimeout hung"])
    }))

  it.effect("ExitStack-10: all who close it get the same exit, and the close of a scope fails with it", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const stack = yield* Scope.extend(ExitStack.make(), scope)
      yield* Effect.forkDaemon(stack.enter(hung))
      yield* Effect.yieldNow()
      const closing = yield* Effect.fork(ends(Scope.close(scope, Exit.fail("boom"))))
      yield* Effect.yieldNow()
      const other = yield* Effect.fork(stack.close(Exit.void))
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(closing)).toBe("die EnterTimeout hung")
      expect(show(yield* Fiber.join(other))).toBe("fail boom + die EnterTimeout hung")
    }))

  it.effect("ExitStack-10: it says whose stack it is, what is late, who asked, and what to do", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* Effect.forkDaemon(stack.enter(hung))
          yield* Effect.yieldNow()
        }), { name: "files" }))
      yield* TestClock.adjust("5 seconds")
      const exit = yield* Fiber.await(fiber)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(
        /The exit stack "files" waited 5s .+ did not wait any longer for "hung" \(requested at .*ExitStack\.test\.ts:.+\): .+ Bound the acquire/
      )
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("ExitStack-7, ExitStack-10: what came in time is given back to its end, however long that takes", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const slow = Managed.make({
        name: "slow",
        acquire: Effect.sleep("4 seconds"),
        release: () =>
          Effect.zipRight(Effect.sleep("40 seconds"), Effect.sync(() => log.push("-slow"))),
        releaseDeadline: "1 minute"
      })
      const fiber = yield* Effect.fork(ends(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          yield* Effect.forkDaemon(stack.enter(slow))
          yield* Effect.forkDaemon(stack.enter(hung))
          yield* Effect.yieldNow()
        })
      )))
      yield* TestClock.adjust("44 seconds")
      expect(yield* Fiber.join(fiber)).toBe("die EnterTimeout hung")
      expect(log).toEqual(["+a", "-slow", "-a die EnterTimeout hung"])
    }))

  const children: Record<string, (stack: Stack) => Effect.Effect<unknown, unknown>> = {
    "enter": (stack) => stack.enter(patient),
    "a scoped effect": (stack) => stack.enter(Effect.never),
    "enterAll": (stack) => stack.enterAll([traced([], "b"), patient], { concurrency: 2 }),
    "enter, with a timeout": (stack) => Effect.timeoutOption(stack.enter(patient), "1 minute"),
    "enter, by a child of it": (stack) =>
      Effect.flatMap(Effect.fork(stack.enter(patient)), Fiber.join)
  }

  it.effect("ExitStack-10: also if a child is the first to call `enter`, as the second thing it does", () =>
    Effect.gen(function*() {
      const entering = (stack: Stack) =>
        Effect.zipRight(Effect.yieldNow(), Effect.suspend(() => stack.enter(patient)))
      const body = (stack: Stack) =>
        Effect.gen(function*() {
          const forked = [yield* Effect.fork(entering(stack)), yield* Effect.fork(entering(stack))]
          yield* Effect.repeatN(Effect.yieldNow(), 9)
          return forked
        })
      for (
        const program of [
          ExitStack.use(body),
          Effect.scoped(Effect.flatMap(ExitStack.make(), body))
        ]
      ) {
        for (const child of yield* program) {
          expect(show(yield* Fiber.await(child))).toMatch(/^interrupt/)
        }
      }
    }))

  for (const [way, enters] of Object.entries(children)) {
    for (const owner of ["use", "make"] as const) {
      it.effect(`ExitStack-10: by a child of its own fiber they are cut at once: ${way}, ${owner}`, () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const body = (stack: Stack) =>
            Effect.gen(function*() {
              yield* stack.enter(traced(log, "a"))
              const child = yield* Effect.fork(enters(stack))
              yield* Effect.repeatN(Effect.yieldNow(), 9)
              return child
            })
          const program = owner === "use"
            ? ExitStack.use(body)
            : Effect.scoped(Effect.flatMap(ExitStack.make(), body))
          const child = yield* program
          expect(show(yield* Fiber.await(child))).toMatch(/^interrupt/)
          expect(log.map((line) => line.slice(0, 5))).toEqual(["+a", "-a ok"])
        }))
    }
  }

  it.effect("ExitStack-10: what the stack's owner has not forked since is never cut, nor anything by hand", () =>
    Effect.gen(function*() {
      const slow = Managed.make({
        name: "slow",
        acquire: (restore) => restore(Effect.sleep("1 second")),
        release: () => Effect.void
      })
      const fiber = yield* Effect.fork(Effect.gen(function*() {
        const given = yield* Deferred.make<Stack>()
        // A child of the same fiber, which lives longer than the stack.
        const worker = yield* Effect.fork(ends(
          Effect.flatMap(
            Deferred.await(given),
            (stack) => Effect.raceFirst(stack.enter(slow), Effect.never)
          )
        ))
        const daemon = yield* ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* Deferred.succeed(given, stack)
            const daemon = yield* Effect.forkDaemon(ends(stack.enter(slow)))
            yield* Effect.repeatN(Effect.yieldNow(), 9)
            return daemon
          })
        )
        const byHand = yield* Effect.scoped(Effect.gen(function*() {
          const stack = yield* ExitStack.make()
          const child = yield* Effect.fork(ends(stack.enter(slow)))
          yield* Effect.yieldNow()
          yield* stack.close(Exit.void)
          return child
        }))
        return yield* Fiber.join(Fiber.all([worker, daemon, byHand]))
      }))
      yield* TestClock.adjust("2 seconds")
      const refused = "die OwnerClosed exit stack slow"
      expect(yield* Fiber.join(fiber)).toEqual([refused, refused, refused])
    }))
})

describe("closing from inside", () => {
  /** A minute is more than any deadline here: what has not ended by then hangs. */
  const within = <A, E>(program: Effect.Effect<A, E>) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkDaemon(program)
      yield* TestClock.adjust("1 minute")
      expect(fiber.unsafePoll(), "it hangs").not.toBe(null)
      return yield* Fiber.join(fiber)
    })

  const closes = (log: Array<string>, close: Effect.Effect<Exit.Exit<unknown, unknown>>) =>
    Effect.map(close, (exit) => void log.push(`closed ${show(exit)}`))

  /** Closes it while it is being acquired. */
  const closing = (log: Array<string>, close: Effect.Effect<unknown>) =>
    Managed.make({
      name: "r",
      acquire: Effect.zipRight(close, Effect.sync(() => log.push("+r"))),
      release: (_, exit) => Effect.sync(() => log.push(`-r ${show(exit)}`))
    })

  const ways = {
    enter: (stack: Stack, r: Managed.Managed<unknown>) => stack.enter(r),
    scoped: (stack: Stack, r: Managed.Managed<unknown>) =>
      stack.enter(Effect.zipRight(r, Effect.void), { name: "r" }),
    enterAll: (stack: Stack, r: Managed.Managed<unknown>) => stack.enterAll([r]),
    "enterAll, 2 at once": (stack: Stack, r: Managed.Managed<unknown>) =>
      stack.enterAll([r], { concurrency: 2 })
  } as const

  for (const way of Object.keys(ways) as ReadonlyArray<keyof typeof ways>) {
    for (const [when, before] of [["at once", Effect.void], ["later", Effect.sleep(1)]] as const) {
      it.effect(`ExitStack-9: what is acquired closes the stack ${when} (${way}): it is refused and given back`, () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          yield* within(ExitStack.use((stack) =>
            Effect.gen(function*() {
              yield* stack.enter(traced(log, "a"))
              const close = Effect.zipRight(before, closes(log, stack.close(Exit.succeed("x"))))
              log.push(yield* ends(ways[way](stack, closing(log, close))))
              log.push(yield* ends(stack.enter(traced(log, "late"))))
            })
          ))
          const refused = "die OwnerClosed exit stack r"
          expect(log).toEqual([
            "+a",
            "-a ok x",
            "closed ok x",
            "+r",
            `-r ${refused}`,
            refused,
            "die OwnerClosed exit stack late"
          ])
        }))
    }
  }

  it.effect("ExitStack-9: what is acquired closes the scope that owns the stack", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const stack = yield* Scope.extend(ExitStack.make(), scope)
      yield* stack.enter(traced(log, "a"))
      const close = Scope.close(scope, Exit.succeed("x"))
      expect(yield* within(ends(stack.enter(closing(log, close)))))
        .toBe("die OwnerClosed exit stack r")
      expect(log).toEqual(["+a", "-a ok x", "+r", "-r die OwnerClosed exit stack r"])
    }))

  it.effect("ExitStack-9: two that are acquired close it both, and a third one is waited for", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* within(Effect.scoped(Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(traced(log, "a"))
        const enters = (name: string, seconds: number, close: Effect.Effect<unknown>) =>
          Effect.fork(Effect.exit(stack.enter(Managed.make({
            name,
            acquire: Effect.zipRight(Effect.sleep(seconds * 1_000), close),
            release: () => Effect.sync(() => log.push(`-${name}`))
          }))))
        const close = closes(log, stack.close(Exit.succeed("x")))
        const fibers = [
          yield* enters("b", 1, close),
          yield* enters("c", 2, close),
          yield* enters("d", 3, Effect.void)
        ]
        yield* Fiber.joinAll(fibers)
      })))
      expect(log.slice(0, 3)).toEqual(["+a", "-d", "-a ok x"])
      expect(log.slice(3).toSorted()).toEqual(["-b", "-c", "closed ok x", "closed ok x"])
    }))

  it.effect("ExitStack-9: what is acquired closes it while somebody waits for that to end", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      for (const way of Object.keys(ways) as ReadonlyArray<keyof typeof ways>) {
        log.length = 0
        yield* within(Effect.scoped(Effect.gen(function*() {
          const stack = yield* ExitStack.make()
          yield* stack.enter(traced(log, "a"))
          const close = Effect.zipRight(
            Effect.sleep("1 second"),
            closes(log, stack.close(Exit.succeed("late")))
          )
          const entering = yield* Effect.fork(Effect.exit(ways[way](stack, closing(log, close))))
          yield* Effect.yieldNow()
          yield* stack.close(Exit.succeed("x"))
          yield* Fiber.join(entering)
        })))
        expect(log, way).toEqual([
          "+a",
          "-a ok x",
          "closed ok x",
          "+r",
          "-r die OwnerClosed exit stack r"
        ])
      }
    }))

  for (const concurrency of [1, 2] as const) {
    it.effect(`ExitStack-9: one of enterAll closes it: nothing more is opened, ${concurrency} at once`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        yield* within(ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a"))
            const all = [
              traced(log, "b"),
              closing(log, Effect.zipRight(Effect.sleep(1), stack.close(Exit.void))),
              Effect.zipRight(Effect.sleep(2), traced(log, "c")),
              traced(log, "d")
            ] as const
            log.push(yield* ends(stack.enterAll(all, { concurrency })))
          })
        ))
        const refused = "die OwnerClosed exit stack r"
        expect(log).toEqual([
          "+a",
          "+b",
          "-a ok undefined",
          "+r",
          `-r ${refused}`,
          `-b ${refused}`,
          refused
        ])
      }))
  }

  it.effect("ExitStack-9: what is acquired moves everything, and closes what is left and what moved", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* within(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(traced(log, "a"))
          const moves = Effect.orDie(Effect.scoped(Effect.gen(function*() {
            const kept = yield* stack.popAll
            yield* closes(log, stack.close(Exit.succeed("emptied")))
            yield* closes(log, kept.close(Exit.succeed("moved")))
          })))
          log.push(yield* ends(stack.enter(closing(log, moves))))
        })
      ))
      const refused = "die OwnerClosed exit stack r"
      expect(log).toEqual([
        "+a",
        "closed ok emptied",
        "-a ok moved",
        "closed ok moved",
        "+r",
        `-r ${refused}`,
        refused
      ])
    }))

  const releases = {
    "a handler": (stack: Stack, close: Effect.Effect<void>) => stack.push(() => close),
    "a callback": (stack: Stack, close: Effect.Effect<void>) => stack.callback(close),
    "a release": (stack: Stack, close: Effect.Effect<void>) =>
      stack.enter(Managed.make({ name: "r", acquire: Effect.void, release: () => close })),
    "a finalizer": (stack: Stack, close: Effect.Effect<void>) =>
      stack.enter(Effect.addFinalizer(() => close)),
    "a finalizer's finalizer": (stack: Stack, close: Effect.Effect<void>) =>
      stack.enter(
        Effect.addFinalizer(() =>
          Effect.scoped(Managed.make({ name: "r", acquire: Effect.void, release: () => close }))
        )
      ),
    "a handler of a stack that it closes": (stack: Stack, close: Effect.Effect<void>) =>
      stack.callback(ExitStack.use((inner) => Effect.orDie(inner.callback(close)))),
    "a handler 20 stacks further in": (stack: Stack, close: Effect.Effect<void>) =>
      stack.callback(
        Array.from({ length: 20 }).reduce<Effect.Effect<void>>(
          (inside) => ExitStack.use((inner) => Effect.orDie(inner.callback(inside))),
          close
        )
      )
  } as const

  for (const by of Object.keys(releases) as ReadonlyArray<keyof typeof releases>) {
    for (const [when, before] of [["at once", Effect.void], ["later", Effect.sleep(1)]] as const) {
      it.effect(`ExitStack-9: ${by} closes the stack that runs it ${when}: nothing comes of it`, () =>
        Effect.gen(function*() {
          const log: Array<string> = []
          const scope = yield* Scope.make()
          const stack = yield* Scope.extend(ExitStack.make(), scope)
          yield* stack.push((exit) => Effect.as(watch(log, "first")(exit), Exit.succeed("y")))
          yield* releases[by](
            stack,
            Effect.zipRight(
              before,
              Effect.zipRight(
                closes(log, stack.close(Exit.succeed("mine"))),
                Effect.zipRight(Scope.close(scope, Exit.void), Effect.sync(() => log.push("end")))
              )
            )
          )
          yield* stack.push(watch(log, "last"))
          yield* within(closes(log, stack.close(Exit.fail("boom"))))
          expect(log).toEqual([
            "last saw fail boom",
            "closed ok mine",
            "end",
            "first saw fail boom",
            "closed ok y"
          ])
        }))
    }
  }

  it.effect("ExitStack-9: what came too late closes the stack in its release", () =>
    Effect.gen(function*() {
      for (const moves of [false, true]) {
        const log: Array<string> = []
        yield* within(Effect.scoped(Effect.gen(function*() {
          const stack = yield* ExitStack.make()
          yield* stack.enter(traced(log, "a"))
          const entering = yield* Effect.fork(Effect.exit(stack.enter(Managed.make({
            name: "r",
            acquire: Effect.sleep("1 second"),
            release: () => closes(log, stack.close(Exit.succeed("mine")))
          }))))
          yield* Effect.yieldNow()
          yield* moves ? stack.popAll : closes(log, stack.close(Exit.succeed("x")))
          yield* Fiber.join(entering)
        })))
        expect(log).toEqual(
          moves
            ? ["+a", "closed ok mine", "-a ok undefined"]
            : ["+a", "closed ok mine", "-a ok x", "closed ok x"]
        )
      }
    }))

  it.effect("ExitStack-9: a fiber that an acquire or a release has left behind waits like anybody else", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* within(Effect.scoped(Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* stack.enter(traced(log, "a", Effect.sleep("1 second")))
        const left = (name: string) =>
          Effect.zipRight(
            // Who runs on a captured runtime has all that the fiber had.
            Effect.flatMap(Effect.runtime<never>(), (runtime) =>
              Effect.sync(() =>
                Runtime.runFork(
                  runtime,
                  Effect.map(stack.close(Exit.succeed("x")), (exit) =>
                    log.push(`${name} closed ${show(exit)}`))
                )
              )),
            Effect.forkDaemon(
              Effect.map(stack.close(Exit.succeed("x")), (exit) =>
                log.push(`${name}'s child closed ${show(exit)}`))
            )
          )
        yield* stack.callback(Effect.zipRight(left("callback"), Effect.sleep("1 second")))
        log.push(
          yield* ends(stack.enter(Managed.make({
            name: "r",
            acquire: Effect.zipRight(left("acquire"), Effect.sleep("1 second")),
            release: () => Effect.sync(() => log.push("-r"))
          })))
        )
        yield* stack.close(Exit.void)
        // The others, too, have heard by now.
        yield* Effect.sleep(1)
      })))
      expect(log.slice(0, 2)).toEqual(["+a", "-r"])
      expect(log).toContain("die OwnerClosed exit stack r")
      const closed = log.filter((line) => line.includes("closed ok"))
      expect(closed.toSorted()).toEqual([
        "acquire closed ok x",
        "acquire's child closed ok x",
        "callback closed ok x",
        "callback's child closed ok x"
      ])
      expect(log.indexOf("-a ok x")).toBeLessThan(log.indexOf(closed[0]!))
    }))

  it.effect("ExitStack-9: a release that was abandoned holds nobody up any more, so its close waits", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* within(
        ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced(log, "a", Effect.sleep("4 seconds")))
            yield* stack.callback(
              Effect.uninterruptible(Effect.zipRight(
                Effect.sleep("2 seconds"),
                closes(log, stack.close(Exit.succeed("mine")))
              )),
              { releaseDeadline: "1 second" }
            )
          })
        ).pipe(ends, Effect.map((exit) => void log.push(exit)))
      )
      const late = "die ReleaseTimeout callback"
      expect(log.slice(0, 2)).toEqual(["+a", `-a ${late}`])
      expect(log.slice(2).toSorted()).toEqual([`closed ${late}`, late])
    }))
})

describe("the ledger", () => {
  it.effect("ExitStack-1: what a named stack holds stands under its name, with the user's line", () =>
    Effect.gen(function*() {
      const program = ExitStack.use(
        (stack) =>
          Effect.gen(function*() {
            yield* stack.enter(traced([], "a"))
            yield* stack.enterAll([traced([], "b")])
            yield* stack.enter(scoped([], "c"), { name: "c" })
            yield* stack.push(function goodbye() {
              return Effect.void
            })
            yield* stack.callback(Effect.void)
            return (yield* Ledger.snapshot).live
          }),
        { name: "files" }
      )
      const live = yield* program
      expect(live.map(({ kind, name, owner, state }) => [...owner, kind, name, state].join(" ")))
        .toEqual([
          "files traced a held",
          "files traced b held",
          "files scope c held",
          "files exit handler goodbye held",
          "files callback callback held"
        ])
      expect(live.map(({ site }) => site?.includes("ExitStack.test.ts")).slice(2)).toEqual([
        true,
        true,
        true
      ])
      yield* Ledger.assertEmpty
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("ExitStack-4: a scoped effect that failed was never held; a handler that failed says why", () =>
    Effect.gen(function*() {
      yield* Effect.exit(ExitStack.use((stack) =>
        Effect.zipRight(
          stack.callback(Effect.fail("bad")),
          stack.enter(Effect.fail("no"), { name: "s" })
        )
      ))
      const { ended } = yield* Ledger.snapshot
      expect(ended.map(({ heldAt, name, state }) => [name, state, heldAt])).toEqual([
        ["s", "failed", undefined],
        ["callback", "failed", 0]
      ])
      expect(ended.map(({ cause }) => Option.fromNullable(cause).pipe(Option.isSome)))
        .toEqual([true, true])
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("its functions can be handed on, and each hold shows the user's line", () =>
    Effect.gen(function*() {
      const lamp = Managed.make({
        name: "lamp",
        acquire: Effect.succeed("lit"),
        release: () => Effect.void
      })
      const { live, values } = yield* ExitStack.use(({ callback, enter, enterAll, push }) =>
        Effect.gen(function*() {
          const one = yield* lamp.pipe(enter)
          const [other] = yield* enterAll([lamp])
          yield* push(() => Effect.void)
          yield* callback(Effect.void)
          return { values: [one, other], live: (yield* Ledger.snapshot).live }
        })
      )
      expect(values).toEqual(["lit", "lit"])
      expect(live).toHaveLength(4)
      for (const { site } of live) expect(site).toContain("test/ExitStack.test.ts:")
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("ExitStack-4: 2,000 that fail, and one that changes the exit, after a cause of any depth", () =>
    Effect.gen(function*() {
      let released = 0
      const bad = Managed.make({
        name: "bad",
        acquire: Effect.void,
        release: () => {
          released++
          return Effect.die("bad")
        }
      })
      const translates = Managed.fromAsyncGenerator("translates", async function*() {
        try {
          yield
        } catch (error) {
          throw new Error("translated", { cause: error })
        }
      })
      const deep = Array.from({ length: 12_000 }, (_, index) => Cause.die(index))
        .reduce<Cause.Cause<string>>(Cause.sequential, Cause.fail("primary"))
      const log: Array<string> = []
      for (const last of [bad, translates]) {
        const scope = yield* Scope.make()
        const stack = yield* Scope.extend(ExitStack.make(), scope)
        yield* stack.enter(last)
        for (let i = 0; i < 1_000; i++) yield* stack.enter(bad)
        const closed = yield* Effect.exit(Scope.close(scope, Exit.failCause(deep)))
        log.push(closed._tag)
      }
      expect(released).toBe(2_001)
      expect(log).toEqual(["Failure", "Failure"])
    }))

  it.effect("ExitStack-4: a callback or a handler that gives no effect has failed", () =>
    Effect.gen(function*() {
      for (const given of [undefined, 42, {}]) {
        const exit = yield* Effect.exit(ExitStack.use((stack) =>
          Effect.gen(function*() {
            yield* stack.callback(given as unknown as Effect.Effect<void>)
            yield* stack.push(() => given as never)
          })
        ))
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(
          /^TypeError: The release of exit handler ".+" gave no effect[^]+TypeError: The release of callback "callback" gave/
        )
      }
    }))

  it.effect("ExitStack-3: what a handler gives that is no exit changes nothing", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const exit = yield* Effect.exit(ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push((seen) => Effect.sync(() => void log.push(show(seen))))
          yield* stack.push(() => Effect.succeed(42 as never))
          yield* stack.push(() => Effect.succeed({ _tag: "Success" } as never))
          return yield* Effect.fail("primary")
        })
      ))
      expect(exit).toEqual(Exit.fail("primary"))
      expect(log).toEqual(["fail primary"])
    }))

  it.effect("ExitStack-4: a callback or a handler that ends by an interrupt has failed", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        ExitStack.use((stack) =>
          Effect.zipRight(stack.callback(Effect.interrupt), stack.push(() => Effect.interrupt))
        )
      )
      expect(Exit.isFailure(exit) && Cause.isInterrupted(exit.cause)).toBe(false)
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(
        /exit handler ".+" ended by an interrupt[^]+callback "callback" ended by an interrupt/
      )
    }))
})
