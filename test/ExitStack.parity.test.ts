/**
 * One table of scenarios on Python's `AsyncExitStack` (test/support/programs/exit_stack.py, in a real interpreter) and on ours.
 * Each row must come out alike, in what was logged and in how it ended, but for those in `differences`, which say why.
 *
 * A failure is written as the failures it is made of, the first to happen first: `boom + bad`.
 */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, type Scope } from "effect"
import { Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"
import { spawnSync } from "node:child_process"
import * as path from "node:path"
import { tool } from "./support/tools.ts"

interface Outcome {
  readonly log: ReadonlyArray<string>
  readonly end: string
}

type Log = Array<string>
type Stack<A = never, E = never> = ExitStack.ExitStack<A, E>
type Seen = Exit.Exit<unknown, unknown>

// Outcomes, as Python's side writes them.

const text = (failure: unknown): string => {
  if (failure instanceof TypeError) return "TypeError"
  if (failure instanceof Managed.GeneratorDidNotYield) return "generator didn't yield"
  if (failure instanceof Managed.GeneratorYieldedTwice) return "generator didn't stop"
  if (failure instanceof Managed.GeneratorFailed) return text(failure.cause)
  if (failure instanceof Managed.OwnerClosed) return "OwnerClosed"
  return failure instanceof Error ? failure.message : String(failure)
}

const parts = Cause.match<ReadonlyArray<string>, unknown>({
  onEmpty: [],
  onFail: (error) => [text(error)],
  onDie: (defect) => [text(defect)],
  onInterrupt: () => ["cancelled"],
  onSequential: (left, right) => [...left, ...right],
  onParallel: (left, right) => [...left, ...right]
})

/** An interrupt that is told twice is one. */
const chain = (cause: Cause.Cause<unknown>): string =>
  parts(cause).filter((part, index, all) => part !== "cancelled" || all.indexOf(part) === index)
    .join(" + ")

const seen = (exit: Seen): string => Exit.isSuccess(exit) ? "ok" : chain(exit.cause)

const ended = (exit: Seen): string =>
  Exit.isFailure(exit) ? chain(exit.cause) : exit.value === undefined ? "ok" : `ok ${exit.value}`

// What the scenarios are made of.

const resource = (
  log: Log,
  name: string,
  onExit: Effect.Effect<unknown, unknown> = Effect.void
) =>
  Managed.make({
    name,
    acquire: Effect.sync(() => {
      log.push(`+${name}`)
      return name
    }),
    release: (_, exit) => Effect.zipRight(says(log, `-${name} ${seen(exit)}`), onExit)
  })

const bad = (log: Log) =>
  Managed.make({
    name: "bad",
    acquire: Effect.fail("no"),
    release: () => says(log, "-bad")
  })

const says = (log: Log, line: string): Effect.Effect<void> => Effect.sync(() => void log.push(line))

const looks = (log: Log, name: string) => (exit: Seen) => says(log, `${name} ${seen(exit)}`)

const suppresses = () => Effect.succeed(Exit.void)

const boom = Effect.fail("boom")

/** Closes it as Python's `aclose` does: raises what went wrong. */
const aclose = (stack: Stack): Effect.Effect<unknown, unknown> =>
  Effect.flatten(stack.close(Exit.void))

const cancelledWhile = <A, E>(run: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.fork(run)
    yield* Effect.sleep("10 millis")
    return ended(yield* Fiber.interrupt(fiber))
  })

type Generator = AsyncGenerator<undefined, void, void>

/** A generator on a stack, below something that looks at what it made of the exit. */
const generated = (
  log: Log,
  body: () => Generator,
  end: Effect.Effect<unknown, unknown>,
  // Where it swallows the failure, something has to stand for the body's result.
  instead?: Exit.Exit<string>
) =>
  ExitStack.use((stack) =>
    Effect.gen(function*() {
      yield* stack.push(looks(log, "outer"))
      yield* stack.enter(Managed.fromAsyncGenerator("g", body), { instead })
      return yield* end
    })
  )

const after = Exit.succeed("after")

const scenarios: Readonly<
  Record<string, (log: Log) => Effect.Effect<unknown, unknown, Scope.Scope>>
> = {
  last_in_first_out: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(looks(log, "b"))
        yield* stack.enter(resource(log, "c"))
        yield* stack.callback(says(log, "d"))
        return 1
      })
    ),
  a_failure_is_seen: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(looks(log, "b"))
        return yield* boom
      })
    ),
  the_value_of_what_is_entered: (log) => ExitStack.use((stack) => stack.enter(resource(log, "a"))),
  an_empty_stack: () => ExitStack.use(() => boom),
  a_callback_has_its_arguments: (log) => {
    const f = (one: number, { k }: { readonly k: number }) => says(log, `${one} ${k}`)
    return ExitStack.use((stack) => stack.callback(f(1, { k: 2 })))
  },
  a_callback_cannot_suppress: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "a"))
        yield* stack.callback(Effect.succeed(Exit.succeed(true)))
        return yield* boom
      })
    ),

  a_handler_suppresses: (log) =>
    Effect.as(
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(looks(log, "outer"))
          yield* stack.push(suppresses)
          yield* stack.push(looks(log, "inner"))
          return yield* boom
        })
      ),
      "after"
    ),
  a_resource_suppresses: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        const swallows = Managed.fromAsyncGenerator("r", async function*() {
          log.push("+r")
          try {
            yield "r"
          } catch (error) {
            log.push(`-r ${text(error)}`)
          }
        })
        yield* stack.enter(resource(log, "outer"))
        yield* stack.enter(swallows, { instead: after })
        return yield* boom
      })
    ),
  suppressing_a_success_changes_nothing: () =>
    ExitStack.use((stack) =>
      Effect.as(
        stack.push((exit) => Exit.isFailure(exit) ? suppresses() : Effect.void),
        "value"
      )
    ),
  a_handler_translates: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "outer"))
        yield* stack.push(() => Effect.succeed(Exit.fail("other")))
        return yield* boom
      })
    ),
  a_translation_is_suppressed: (log) =>
    Effect.as(
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(suppresses)
          yield* stack.push(looks(log, "middle"))
          yield* stack.push(() => Effect.succeed(Exit.fail("other")))
          return yield* boom
        })
      ),
      "after"
    ),
  the_same_failure_given_back: (log) =>
    ExitStack.use((stack: Stack<unknown, unknown>) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "outer"))
        yield* stack.push((exit) => Effect.succeed(exit))
        return yield* boom
      })
    ),

  a_handler_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(looks(log, "outer"))
        yield* stack.push(() => Effect.fail("bad"))
        yield* stack.push(looks(log, "inner"))
        return yield* boom
      })
    ),
  a_handler_fails_after_a_success: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "outer"))
        yield* stack.push(() => Effect.fail("bad"))
        return 1
      })
    ),
  the_body_and_two_handlers_fail: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "outer"))
        yield* stack.push(() => Effect.fail("worse"))
        yield* stack.push(() => Effect.fail("bad"))
        return yield* boom
      })
    ),
  a_failing_handler_is_suppressed: () =>
    Effect.as(
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(suppresses)
          yield* stack.push(() => Effect.fail("bad"))
          return yield* boom
        })
      ),
      "after"
    ),
  one_suppresses_and_one_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(looks(log, "outer"))
        yield* stack.push(() => Effect.fail("bad"))
        yield* stack.push(suppresses)
        return yield* boom
      })
    ),
  a_callback_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.callback(Effect.fail("bad"))
        return yield* boom
      })
    ),
  a_release_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.enter(resource(log, "b", Effect.fail("bad")))
        return yield* boom
      })
    ),
  a_handler_throws_before_it_is_async: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(() => {
          throw new Error("thrown")
        })
      })
    ),
  entering_fails_midway: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        return yield* stack.enterAll([bad(log), resource(log, "b")])
      })
    ),
  entering_fails_and_the_body_goes_on: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* Effect.catchAll(stack.enter(bad(log)), (error) => says(log, `caught ${text(error)}`))
        yield* stack.enter(resource(log, "b"))
        return "fine"
      })
    ),
  entering_what_is_no_resource: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* Effect.asVoid(stack.enter(1 as unknown as Effect.Effect<void>))
      })
    ),
  pushing_what_is_no_handler: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(1 as unknown as () => Effect.Effect<void>)
        yield* says(log, "pushed")
      })
    ),

  nested_stacks: (log) =>
    ExitStack.use((outer) =>
      Effect.zipRight(
        outer.enter(resource(log, "outer")),
        ExitStack.use((inner) => Effect.zipRight(inner.enter(resource(log, "inner")), boom))
      )
    ),
  the_inner_stack_suppresses: (log) =>
    ExitStack.use((outer) =>
      Effect.gen(function*() {
        yield* outer.enter(resource(log, "outer"))
        yield* ExitStack.use((inner) => Effect.zipRight(inner.push(suppresses), boom))
        yield* says(log, "went on")
        return 2
      })
    ),
  a_stack_on_a_stack: (log) =>
    Effect.as(
      ExitStack.use((outer: Stack<unknown, unknown>) =>
        Effect.gen(function*() {
          const inner = yield* ExitStack.make()
          yield* outer.push(looks(log, "outer"))
          yield* outer.push((exit) => inner.close(exit))
          yield* inner.push(suppresses)
          yield* inner.enter(resource(log, "a"))
          return yield* boom
        })
      ),
      "after"
    ),

  pop_all_keeps_everything: (log) =>
    Effect.gen(function*() {
      const kept = yield* ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(log, "a"))
          yield* stack.push(looks(log, "b"))
          const kept = yield* stack.popAll
          yield* says(log, "moved")
          return kept
        })
      )
      yield* says(log, "left")
      yield* Effect.asVoid(aclose(kept))
    }),
  pop_all_then_the_body_fails: (log) =>
    Effect.gen(function*() {
      const moved: Array<Stack> = []
      yield* ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.enter(resource(log, "a"))
          moved.push(yield* stack.popAll)
          return yield* boom
        })
      ).pipe(Effect.catchAll((error) => says(log, `caught ${text(error)}`)))
      for (const kept of moved) yield* aclose(kept)
    }),
  what_was_popped_is_unwound_with_a_failure: (log) =>
    Effect.gen(function*() {
      const kept = yield* ExitStack.use((stack) =>
        Effect.zipRight(stack.enter(resource(log, "a")), stack.popAll)
      )
      yield* kept.enter(resource(log, "b"))
      return yield* boom
    }),
  pop_all_of_nothing: () =>
    ExitStack.use((stack) => Effect.as(Effect.flatMap(stack.popAll, aclose), 1)),
  close_twice: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* aclose(stack)
        yield* says(log, "closed")
        yield* Effect.asVoid(aclose(stack))
      })
    ),
  closed_in_the_body_then_it_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.push(suppresses)
        yield* stack.enter(resource(log, "a"))
        yield* aclose(stack)
        return yield* boom
      })
    ),
  a_close_that_fails: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.callback(Effect.fail("bad"))
        yield* Effect.catchAllCause(aclose(stack), (cause) => says(log, `caught ${chain(cause)}`))
        return "fine"
      })
    ),

  a_generator: (log) =>
    ExitStack.use((stack) =>
      stack.enter(Managed.fromAsyncGenerator("g", async function*() {
        log.push("open")
        try {
          yield "value"
        } finally {
          log.push("close")
        }
      }))
    ),
  a_generator_cleans_up_after_a_failure: (log) =>
    generated(
      log,
      async function*() {
        try {
          yield
        } finally {
          log.push("close")
        }
      },
      boom
    ),
  a_generator_swallows: (log) =>
    generated(
      log,
      async function*() {
        try {
          yield
        } catch (error) {
          log.push(`swallowed ${text(error)}`)
        }
      },
      boom,
      after
    ),
  a_generator_throws_again: (log) =>
    generated(
      log,
      async function*() {
        try {
          yield
        } catch (error) {
          log.push(`saw ${text(error)}`)
          throw error
        }
      },
      boom
    ),
  a_generator_translates: (log) =>
    generated(
      log,
      async function*() {
        try {
          yield
        } catch (error) {
          throw new Error("other", { cause: error })
        }
      },
      boom
    ),
  a_generator_fails_while_it_cleans_up: (log) =>
    generated(
      log,
      async function*() {
        try {
          yield
        } catch {
          throw new Error("bad")
        }
      },
      boom
    ),
  a_generator_fails_after_a_success: (log) =>
    generated(
      log,
      async function*() {
        yield
        throw new Error("bad")
      },
      Effect.succeed(1)
    ),
  a_generator_fails_before_it_yields: (log) =>
    generated(
      log,
      async function*(): Generator {
        if (log.length === 0) throw new Error("no")
        yield
      },
      Effect.void
    ),
  a_generator_does_not_yield: (log) =>
    generated(
      log,
      async function*(): Generator {
        if (log.length > 0) yield
      },
      Effect.void
    ),
  a_generator_yields_twice: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.enter(Managed.fromAsyncGenerator("g", async function*() {
          yield
          yield
        }))
      })
    ),

  cancellation_is_seen: (log) =>
    cancelledWhile(ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(looks(log, "b"))
        yield* Effect.sleep("1 minute")
      })
    )),
  a_handler_fails_while_cancelled: (log) =>
    cancelledWhile(ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(() => Effect.fail("bad"))
        yield* Effect.sleep("1 minute")
      })
    )),
  cancellation_is_suppressed: (log) =>
    cancelledWhile(Effect.zipRight(
      ExitStack.use((stack) =>
        Effect.gen(function*() {
          yield* stack.push(looks(log, "outer"))
          yield* stack.push(suppresses)
          yield* Effect.sleep("1 minute")
        })
      ),
      says(log, "went on")
    )),
  cancelled_while_it_enters: (log) =>
    cancelledWhile(ExitStack.use((stack) =>
      stack.enter(Managed.make({
        name: "slow",
        acquire: Effect.zipRight(says(log, "+slow"), Effect.sleep("50 millis")),
        release: () => says(log, "-slow")
      }))
    )),
  cancelled_while_it_releases: (log) =>
    cancelledWhile(ExitStack.use((stack) =>
      Effect.gen(function*() {
        const slow = Effect.zipRight(Effect.sleep("50 millis"), says(log, "released"))
        yield* stack.enter(resource(log, "a"))
        yield* stack.enter(resource(log, "slow", slow))
      })
    )),

  which_failure_is_caught: () =>
    Effect.catchAll(
      ExitStack.use((stack) => Effect.zipRight(stack.push(() => Effect.fail("bad")), boom)),
      (error) => Effect.succeed(`caught ${text(error)}`)
    ),
  used_after_pop_all: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.popAll
        yield* stack.enter(resource(log, "late"))
        yield* says(log, "entered")
      })
    ),
  used_after_close: (log) =>
    Effect.gen(function*() {
      const stack = yield* ExitStack.make()
      yield* aclose(stack)
      yield* stack.enter(resource(log, "late"))
      yield* says(log, "entered")
    }),
  pushed_while_it_unwinds: (log) =>
    ExitStack.use((stack) => stack.push(() => stack.callback(says(log, "late")))),
  two_close_at_once: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        const slow = Effect.zipRight(Effect.sleep("20 millis"), says(log, "released"))
        yield* stack.enter(resource(log, "a", slow))
        const close = (name: string) =>
          Effect.zipRight(aclose(stack), says(log, `${name} returned`))
        const first = yield* Effect.fork(close("first"))
        const second = yield* Effect.fork(close("second"))
        yield* Fiber.join(first)
        yield* Fiber.join(second)
      })
    ),
  pop_all_and_nobody_closes_it: (log) =>
    Effect.zipRight(
      ExitStack.use((stack) => Effect.zipRight(stack.enter(resource(log, "a")), stack.popAll)),
      says(log, "left")
    ),
  a_handler_closes_its_stack: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.push(() => Effect.orDie(Effect.zipRight(aclose(stack), says(log, "closed"))))
        return yield* boom
      })
    ),
  what_is_entered_closes_its_stack: (log) =>
    ExitStack.use((stack) =>
      Effect.gen(function*() {
        yield* stack.enter(resource(log, "a"))
        yield* stack.enter(Managed.make({
          name: "closing",
          acquire: Effect.zipRight(aclose(stack), says(log, "+closing")),
          release: (_, exit) => says(log, `-closing ${seen(exit)}`)
        }))
        yield* says(log, "entered")
      })
    )
}

/** Where ours does something else, and why that is better. */
const differences: Readonly<Record<string, Outcome & { readonly why: string }>> = {
  which_failure_is_caught: {
    log: [],
    end: "ok caught boom",
    why:
      "what failed first stays what the caller catches; in Python a failing handler hides it behind its own failure"
  },
  used_after_pop_all: {
    log: [],
    end: "OwnerClosed",
    why:
      "an emptied stack is closed: what is entered by whoever still has it would belong to a block that has moved on"
  },
  used_after_close: {
    log: [],
    end: "OwnerClosed",
    why:
      "a closed stack refuses before it acquires; in Python what is entered then is never released"
  },
  pushed_while_it_unwinds: {
    log: [],
    end: "OwnerClosed",
    why: "a stack that unwinds ends: handlers that push handlers could keep it going for ever"
  },
  two_close_at_once: {
    log: ["+a", "-a ok", "released", "first returned", "second returned"],
    end: "ok",
    why:
      "whoever closes waits for the end; in Python the second returns while the release still runs"
  },
  pop_all_and_nobody_closes_it: {
    log: ["+a", "left", "-a ok"],
    end: "ok",
    why: "what popAll returns belongs to the scope; in Python it is leaked if it is dropped"
  },
  a_handler_closes_its_stack: {
    log: ["+a", "closed", "-a boom"],
    end: "boom",
    why:
      "the stack is closing, so its handler's close changes nothing; in Python the rest is released inside the handler and told that all went well"
  },
  what_is_entered_closes_its_stack: {
    log: ["+a", "-a ok", "+closing", "-closing OwnerClosed"],
    end: "OwnerClosed",
    why: "a closed stack takes nothing on, not even from who closed it"
  },
  cancellation_is_suppressed: {
    log: ["outer ok"],
    end: "ok cancelled",
    why:
      "a fiber that is interrupted ends: no handler can keep it alive by a catch that is too wide"
  },
  cancelled_while_it_enters: {
    log: ["+slow", "-slow"],
    end: "ok cancelled",
    why:
      "acquire and registration are one step; in Python what was acquired by then is never released"
  },
  cancelled_while_it_releases: {
    log: ["+a", "+slow", "-slow ok", "released", "-a ok"],
    end: "ok cancelled",
    why: "a release is not cut by the interrupt of its owner, only by its deadline"
  }
}

const program = path.join(import.meta.dirname, "support/programs/exit_stack.py")
const interpreter = tool("python3")
const { error, stderr, stdout } = interpreter === undefined
  ? { error: undefined, stderr: "", stdout: "" }
  : spawnSync(interpreter, [program], { encoding: "utf8", timeout: 60_000 })
const python = stdout ? JSON.parse(stdout) as Readonly<Record<string, Outcome>> : {}

const outcomeOf = async (name: string): Promise<Outcome> => {
  const log: Log = []
  const scenario = Effect.suspend(() => scenarios[name]!(log))
  const end = ended(await Effect.runPromiseExit(Effect.scoped(scenario)))
  return { log, end }
}

describe("AsyncExitStack and ExitStack", () => {
  it.skipIf(interpreter === undefined)(
    "ExitStack-1, ExitStack-3, ExitStack-4: both have the same table",
    () => {
      expect([error, stderr]).toEqual([undefined, ""])
      expect(Object.keys(python)).toEqual(Object.keys(scenarios))
    }
  )

  for (const name of Object.keys(scenarios)) {
    const title = name.replaceAll("_", " ")
    const different = differences[name]
    const row = different === undefined
      ? `${title}: alike`
      : `${title}: different, for ${different.why}`
    it.skipIf(interpreter === undefined)(row, async () => {
      const ours = await outcomeOf(name)
      if (different === undefined) return expect(ours).toEqual(python[name])
      const { end, log } = different
      expect(ours).toEqual({ log, end })
      expect(ours).not.toEqual(python[name])
    })
  }
})
