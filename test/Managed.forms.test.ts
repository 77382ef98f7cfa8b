/** The forms that are made of other resources, and whose FiberRefs a release has. */
import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberRef,
  HashMap,
  Layer,
  Logger,
  Scope
} from "effect"
import { ExitStack, Managed, Mutex } from "holdfast"
import type { Shared } from "holdfast"

const traced = <A>(log: Array<string>, value: A) =>
  Managed.make({
    name: String(value),
    acquire: Effect.sync(() => {
      log.push(`+${String(value)}`)
      return value
    }),
    release: (_, exit) => Effect.sync(() => log.push(`-${String(value)} ${exit._tag}`))
  })

const user = FiberRef.unsafeMake("nobody")

describe("whose FiberRefs", () => {
  /** What the release sees, by the log and by a FiberRef, and whether with several operations or as one. */
  const seeing = (log: Array<string>) =>
    Managed.make({
      name: "seeing",
      acquire: Effect.succeed("r"),
      release: () =>
        Effect.zipRight(
          Effect.log("bye"),
          Effect.map(FiberRef.get(user), (name) => {
            log.push(name)
          })
        )
    })

  const logged = (log: Array<string>) =>
    Logger.replace(
      Logger.defaultLogger,
      Logger.make(({ annotations }) => {
        log.push(
          Array.from(HashMap.entries(annotations), ([key, value]) => `${key}=${value}`).join()
        )
      })
    )

  const asAda = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.locally(Effect.annotateLogs(effect, "request", 7), user, "Ada")

  for (
    const [what, acquire] of [
      ["acquireRelease, Effect's own", (log: Array<string>) =>
        Effect.acquireRelease(
          Effect.void,
          () =>
            Effect.zipRight(
              Effect.log("bye"),
              Effect.map(FiberRef.get(user), (name) => {
                log.push(name)
              })
            )
        )],
      ["a Managed in a scope", seeing],
      ["an all", (log: Array<string>) => Managed.all([seeing(log)])],
      ["a map", (log: Array<string>) => Managed.map(seeing(log), () => 1)]
    ] as const
  ) {
    it.effect(`Managed-10: a release has the FiberRefs of the acquire: ${what}`, () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        yield* Effect.scoped(asAda(acquire(log))).pipe(Effect.provide(logged(log)))
        expect(log).toEqual(["request=7", "Ada"])
      }))
  }

  it.effect("Managed-10: also where another fiber closes, and an ExitStack, its callbacks and its handlers", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const body = Effect.gen(function*() {
        const stack = yield* ExitStack.make()
        yield* asAda(stack.enter(seeing(log)))
        yield* Effect.locally(
          stack.callback(Effect.map(FiberRef.get(user), (name) => log.push(name))),
          user,
          "Bob"
        )
        yield* Effect.locally(
          stack.push(() =>
            Effect.map(FiberRef.get(user), (name) => {
              log.push(name)
            })
          ),
          user,
          "Cy"
        )
      })
      yield* Scope.extend(body, scope)
      yield* Fiber.join(
        yield* Effect.fork(Effect.provide(Scope.close(scope, Exit.void), logged(log)))
      )
      // The logger is the acquirer's, too.
      expect(log).toEqual(["Cy", "Bob", "Ada"])
    }))

  it.effect("Managed-10: a release by `use` sees what its user has set, as acquireUseRelease's does", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* Managed.use(seeing(log), () => FiberRef.set(user, "Eve")).pipe(
        Effect.provide(logged(log))
      )
      expect(log.slice(1)).toEqual(["Eve"])
    }))
})

describe("composing", () => {
  it.effect("Managed-7: map changes the value and nothing else; one that throws releases", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const length = traced(log, "abc").pipe(Managed.map((text) => text.length))
      expect(yield* Managed.use(length, Effect.succeed)).toBe(3)
      const throws = Managed.map(traced(log, "d"), (): number => {
        throw new Error("no")
      })
      const exit = yield* Effect.exit(Effect.scoped(throws))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("no")
      expect(log).toEqual(["+abc", "-abc Success", "+d", "-d Failure"])
    }))

  it.effect("Managed-7: flatMap opens the second with the first, releases in reverse, and all or nothing", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const bad = Managed.make({
        name: "bad",
        acquire: Effect.fail("no" as const),
        release: () => Effect.void
      })
      const pair = Managed.flatMap(traced(log, "a"), (a) => traced(log, `${a}b`))
      expect(yield* Managed.use(pair, Effect.succeed)).toBe("ab")
      expect(yield* Effect.flip(Effect.scoped(Managed.flatMap(pair, () => bad)))).toBe("no")
      expect(log).toEqual([
        "+a",
        "+ab",
        "-ab Success",
        "-a Success",
        "+a",
        "+ab",
        "-ab Failure",
        "-a Failure"
      ])
    }))

  it.effect("Managed-8: a flatMap of generators may swallow its user's failure", () =>
    Effect.gen(function*() {
      const forgiving = Managed.gen("forgiving", function*(use) {
        yield* use("x")
        return Exit.void
      })
      const log: Array<string> = []
      const pair = Managed.flatMap(forgiving, () => traced(log, "y"))
      expect(yield* Managed.useOption(pair, () => Effect.fail("boom"))).toMatchObject({
        _tag: "None"
      })
      expect(log).toEqual(["+y", "-y Failure"])
    }))

  class Port extends Context.Tag("Port")<Port, number>() {}

  it.effect("Managed-1: fromScoped and fromLayer release what they acquired; layer provides and releases", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const port = Effect.zipRight(traced(log, "port"), Effect.succeed(80))
      expect(yield* Managed.use(Managed.fromScoped("port", port), Effect.succeed)).toBe(80)
      const layer = Layer.scoped(Port, port)
      const fromLayer = Managed.fromLayer("port", layer)
      expect(yield* Managed.use(fromLayer, (context) => Effect.provide(Port, context))).toBe(80)
      const provided = Managed.layer(Port, Managed.fromScoped("port", port))
      expect(yield* Effect.provide(Port, provided)).toBe(80)
      expect(log).toEqual(Array.from({ length: 3 }, () => ["+port", "-port Success"]).flat())
    }))

  it.effect("Managed-4: a release that fails in a bracket of one operation is appended", () =>
    Effect.gen(function*() {
      const bad = Managed.make({
        name: "bad",
        acquire: Effect.void,
        release: () => Effect.fail("stuck")
      })
      const exit = yield* Effect.exit(Managed.use(bad, () => Effect.fail("first")))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toMatch(/first[^]+stuck/)
    }))
})

describe("hotswap", () => {
  const program = <A, E, R>(
    log: Array<string>,
    body: (hotswap: Managed.Hotswap<string>) => Effect.Effect<A, E, R>
  ) => Managed.use(Managed.hotswap(traced(log, "a")), body)

  it.effect("Managed-11: the old one is released at once if nobody uses it, else after its last user", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      yield* program(log, ({ get, swap }) =>
        Effect.gen(function*() {
          yield* swap(traced(log, "b"))
          log.push("swapped")
          const gate = yield* Deferred.make<void>()
          const uses = yield* Effect.forEach(["one", "two"], (name) =>
            Effect.fork(
              Managed.use(
                get,
                (value) => Effect.map(Deferred.await(gate), () => log.push(`${name} ${value}`))
              )
            ))
          yield* Effect.yieldNow()
          yield* swap(traced(log, "c"))
          expect(yield* Managed.use(get, Effect.succeed)).toBe("c")
          yield* Deferred.succeed(gate, undefined)
          yield* Effect.forEach(uses, Fiber.join)
        }))
      expect(log).toEqual([
        "+a",
        "+b",
        "-a Success",
        "swapped",
        "+c",
        "one b",
        "two b",
        "-b Success",
        "-c Success"
      ])
    }))

  it.effect("Managed-11: a swap that fails changes nothing; the close waits for users, then nothing is given", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const { get, swap } = yield* Scope.extend(Managed.hotswap(traced(log, "a")), scope)
      const bad = Managed.make({
        name: "bad",
        acquire: Effect.fail("no" as const),
        release: () => Effect.void
      })
      expect(yield* Effect.flip(swap(bad))).toBe("no")
      const gate = yield* Deferred.make<void>()
      const use = yield* Effect.fork(
        Effect.scoped(Effect.zipRight(get, Deferred.await(gate)))
      )
      yield* Effect.yieldNow()
      const closing = yield* Effect.fork(Scope.close(scope, Exit.fail("end")))
      yield* Effect.yieldNow()
      expect(log).toEqual(["+a"])
      const late = yield* Effect.all([
        Effect.exit(swap(traced(log, "b"))),
        Effect.exit(Managed.use(get, Effect.succeed))
      ])
      for (const exit of late as ReadonlyArray<Exit.Exit<unknown>>) {
        expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toBeInstanceOf(Managed.OwnerClosed)
      }
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(use)
      yield* Fiber.join(closing)
      expect(log).toEqual(["+a", "-a Failure"])
    }))

  it.effect("Managed-11: a swap under way when it closes is released, and the close waits for it", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const scope = yield* Scope.make()
      const { swap } = yield* Scope.extend(Managed.hotswap(traced(log, "a")), scope)
      const gate = yield* Deferred.make<void>()
      const slow = Managed.flatMap(
        Managed.make({
          name: "slow",
          acquire: Deferred.await(gate),
          release: () => Effect.void
        }),
        () => traced(log, "b")
      )
      const swapping = yield* Effect.fork(Effect.exit(swap(slow)))
      yield* Effect.yieldNow()
      const closing = yield* Effect.fork(Scope.close(scope, Exit.void))
      yield* Effect.yieldNow()
      expect(closing.unsafePoll()).toBe(null)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(closing)
      expect(log).toEqual(["+a", "-a Success", "+b", "-b Success"])
      const exit = yield* Fiber.join(swapping)
      expect(Exit.isFailure(exit) && Cause.squash(exit.cause)).toBeInstanceOf(Managed.OwnerClosed)
    }))
})

describe("types", () => {
  const open = Effect.succeed(1)

  it.effect("the parameter of a release after the options has the type of any acquire", () =>
    Effect.gen(function*() {
      const door = Managed.make(
        { name: "door", acquire: Effect.map(open, (n) => ({ wide: `${n}` })) },
        ({ wide }) => Effect.sync(() => wide.length)
      )
      const { wide }: { readonly wide: string } = yield* Managed.use(door, Effect.succeed)
      const lamp = Managed.make(
        {
          name: "lamp",
          acquire: Effect.flatMap(open, (n) => Effect.tap(open, () => Effect.log(n)))
        },
        (n) => Effect.sync(() => n.toFixed())
      )
      const room = Managed.make({
        name: "room",
        acquire: Effect.map((n: number) => ({ n }))(open),
        release: ({ n }) => Effect.sync(() => n.toFixed())
      })
      expect([wide, yield* Managed.use(lamp, Effect.succeed)]).toEqual(["1", 1])
      expect(yield* Managed.use(room, Effect.succeed)).toEqual({ n: 1 })
    }))

  it("a handle of another kind is no Managed, and a Managed prints its name, not its value", () => {
    const log: Array<string> = []
    const lamp = traced(log, "lamp")
    // @ts-expect-error a Mutex is not a Managed
    const wrong: Managed.Managed<unknown> = Mutex.unsafeMake()
    // @ts-expect-error a Managed is not a Shared
    const other: Shared.Shared<string, never> = lamp
    expect([wrong, other]).toHaveLength(2)
    expect(JSON.parse(JSON.stringify(lamp))).toEqual({
      _id: "holdfast/Managed",
      name: "lamp",
      kind: "resource"
    })
    expect(Managed.TypeId in lamp).toBe(true)
  })
})

describe("options", () => {
  const make = (settings: object) => () =>
    Managed.make({
      name: "lamp",
      acquire: Effect.void,
      release: () => Effect.void,
      ...settings
    })

  it("a wrong option of a Managed, a callback or a handler is an error that says what to write", () => {
    expect(make({ releaseDeadline: -1 })).toThrow(
      /Managed "lamp": `releaseDeadline` must be a duration, 0 or more/
    )
    expect(make({ releaseDeadline: NaN })).toThrow(RangeError)
    expect(make({ onReleaseFailure: "log" })).toThrow(/one of "cause", "report"/)
    expect(make({ releaseDeadLine: 1 })).toThrow(/no option `releaseDeadLine`/)
    expect(make({ releaseDeadline: Infinity, kind: undefined })).not.toThrow()
    const lamp = make({})()
    for (
      const [effect, complaint] of [
        [
          Managed.all([lamp], { concurrency: 1.5 }),
          "Managed.all: `concurrency` must be an integer"
        ],
        [Managed.all([lamp], { concurrency: 0 }), "Managed.all: `concurrency` must be an integer"],
        [Managed.all([lamp], { releases: "none" as never }), "one of \"sequential\", \"parallel\""],
        [Managed.all([lamp], { size: 1 } as {}), "Managed.all has no option `size`"],
        [ExitStack.make({ label: "x" } as {}), "ExitStack has no option `label`"],
        [ExitStack.use(() => Effect.void, { name: 1 as never }), "`name` must be a string"],
        [
          ExitStack.use((stack) => stack.enter(lamp, { deadline: 1 } as {})),
          "ExitStack \"exit stack\" has no option `deadline`"
        ]
      ] as ReadonlyArray<readonly [Effect.Effect<unknown, never, Scope.Scope>, string]>
    ) {
      const exit = Effect.runSyncExit(Effect.scoped(effect))
      expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain(complaint)
    }
    const exit = Effect.runSyncExit(
      ExitStack.use((stack) => stack.callback(Effect.void, { releaseDeadline: -1 }))
    )
    expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("RangeError: ExitStack")
  })
})
