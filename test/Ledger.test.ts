import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Config,
  ConfigProvider,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Metric,
  Stream,
  TestClock
} from "effect"
import * as fc from "effect/FastCheck"
import { Ledger, Managed } from "holdfast"

const thing = Managed.make({
  name: "held",
  kind: "thing",
  acquire: Effect.void,
  release: () => Effect.void
})

const inLedger = <A, E, R>(options: Ledger.LayerOptions, effect: Effect.Effect<A, E, R>) =>
  Effect.provide(effect, Ledger.layer(options))

describe("Ledger", () => {
  it.effect("Ledger-1: acquired = released + abandoned + held, at every instant", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      const fiber = yield* Effect.fork(Effect.provideService(
        Managed.use(thing, () => Effect.never),
        Ledger.Ledger,
        ledger
      ))
      yield* Effect.yieldNow()
      const during = yield* ledger.snapshot
      expect(during.total.acquired).toBe(1)
      expect(during.live.map((e) => [e.name, e.state])).toEqual([["held", "held"]])
      const refused = yield* Effect.flip(ledger.assertEmpty)
      expect(refused.message).toContain("thing \"held\" (held")
      yield* Fiber.interrupt(fiber)
      const after = yield* ledger.snapshot
      expect(after.total).toEqual({ acquired: 1, released: 1, failed: 0, abandoned: 0 })
      yield* ledger.assertEmpty
    }))

  it.effect("Ledger-1, Ledger-2: the totals agree and each entry ends once, for calls in any order", () =>
    Effect.gen(function*() {
      const call = fc.tuple(fc.nat(5), fc.integer({ min: 0, max: 5 }))
      for (const calls of fc.sample(fc.array(call, { maxLength: 60 }), 300)) {
        const ledger = yield* Ledger.make({ history: 1000 })
        const entries: Array<Ledger.Entry> = []
        for (const [which, what] of calls) {
          const entry = entries[which]
          if (what === 0 || entry === undefined) entries.push(ledger.unsafeAcquiring("k", "n"))
          else if (what === 1) ledger.unsafeHeld(entry)
          else if (what === 2) ledger.unsafeReleasing(entry)
          else if (what === 3) ledger.unsafeReleased(entry)
          else if (what === 4) ledger.unsafeReleased(entry, Cause.die("broken"))
          else ledger.unsafeAbandoned(entry)
          const { ended, live } = yield* ledger.snapshot
          const ids = [...ended, ...live].map(({ id }) => id)
          expect(new Set(ids).size).toBe(ids.length)
          expect(ids.length).toBe(entries.length)
        }
      }
    }))

  it.effect("Ledger-2: the first end of an entry counts, later ones are ignored", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      const entry = ledger.unsafeAcquiring("k", "n")
      ledger.unsafeHeld(entry)
      ledger.unsafeAbandoned(entry)
      ledger.unsafeReleased(entry)
      ledger.unsafeAbandoned(entry)
      const { ended, kinds } = yield* ledger.snapshot
      expect(kinds["k"]).toEqual({ acquired: 1, released: 0, failed: 0, abandoned: 1 })
      expect(ended.map(({ state }) => state)).toEqual(["abandoned"])
    }))

  it.effect("Ledger-3: an ended entry leaves its counts, and stays readable up to `history` entries", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make({ history: 3 })
      for (let i = 0; i < 1000; i++) {
        const entry = ledger.unsafeAcquiring("k", `n${i}`)
        if (i % 2 === 0) ledger.unsafeGaveUp(entry)
        else {
          ledger.unsafeHeld(entry)
          ledger.unsafeReleased(entry, i % 3 === 0 ? Cause.die("broken") : undefined)
        }
      }
      const { ended, live, total } = yield* ledger.snapshot
      expect(live).toEqual([])
      expect(total).toEqual({ acquired: 500, released: 500, failed: 167, abandoned: 0 })
      expect(ended.map(({ cause, name, state }) => [name, state, cause])).toEqual([
        ["n997", "released", undefined],
        ["n998", "failed", undefined],
        ["n999", "failed", "Error: broken"]
      ])
      const none = yield* Ledger.make({ history: 0 })
      none.unsafeGaveUp(none.unsafeAcquiring("k", "n"))
      expect((yield* none.snapshot).ended).toEqual([])
      const refused = yield* Effect.exit(Ledger.make({ history: -1 }))
      expect(Exit.isFailure(refused) && Cause.pretty(refused.cause)).toContain("history")
    }))

  it.effect("Ledger-4: off by default: nothing is recorded, no line is captured", () =>
    Effect.gen(function*() {
      expect(yield* Ledger.Ledger).toBe(undefined)
      expect(Ledger.unsafeInForce()).toBe(undefined)
      expect(Ledger.unsafeSite()).toBe(undefined)
      yield* Managed.use(thing, () => Effect.void).pipe(Ledger.withOwner("nobody"))
    }))

  it.effect("Ledger-4: entries show the fiber, the owners, the span and the time of each state", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const asked = yield* Effect.sync(() =>
          ledger.unsafeAcquiring("k", "n", { attributes: { of: "us" } })
        ).pipe(
          Effect.withSpan("request"),
          Ledger.withOwner("worker"),
          Ledger.withOwner("batch")
        )
        yield* TestClock.adjust("1 second")
        ledger.unsafeHeld(asked, { and: "them" })
        yield* TestClock.adjust("1 second")
        ledger.unsafeReleasing(asked)
        yield* TestClock.adjust("1 second")
        ledger.unsafeReleased(asked)
        const [entry] = (yield* Ledger.snapshot).ended
        expect(entry).toMatchObject({
          kind: "k",
          name: "n",
          state: "released",
          owner: ["batch", "worker"],
          span: "request",
          attributes: { of: "us", and: "them" },
          requestedAt: 0,
          heldAt: 1000,
          releasingAt: 2000,
          endedAt: 3000,
          since: 3000
        })
        expect(entry!.fiber).toMatch(/^#\d+$/)
        const other = ledger.unsafeAcquiring("k", "n")
        expect(other.id).toBeGreaterThan(entry!.id)
        ledger.unsafeGaveUp(other)
      })
    ))

  it.effect("Site-1: the line is the user's; `off` records none, `full` the stack", () =>
    Effect.gen(function*() {
      const site = (sites: Ledger.Sites) =>
        inLedger(
          { sites },
          Effect.sync(() => {
            const openTheDoor = () => Ledger.unsafeSite()?.text
            return openTheDoor()
          })
        )
      expect(yield* site("off")).toBe(undefined)
      expect(yield* site("first")).toMatch(/^openTheDoor \(\/.*test\/Ledger\.test\.ts:\d+:\d+\)$/)
      const full = (yield* site("full"))!.split("\n")
      expect(full[0]).toContain("openTheDoor")
      expect(full.filter((line) => /node_modules\/effect|\/src\/|node:/.test(line))).toEqual([])
    }))

  it("Site-1: outside of any fiber, where a module describes its resources, the line is captured", () => {
    expect(Ledger.unsafeSite()?.text).toContain("test/Ledger.test.ts:")
  })

  it.effect("Site-1: a resource that a module acquires for its user shows the line of the user's call", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const site = { text: "the call" }
        const asked = (own?: Ledger.Site) =>
          Effect.sync(() => ledger.unsafeAcquiring("k", "n", { site: own }))
        yield* Ledger.withSite(Ledger.withOwner(asked(), "inner"), site)
        yield* Ledger.withSite(asked({ text: undefined }), site)
        yield* Ledger.withSite(asked({ text: "his own" }), site)
        yield* Ledger.withSite(asked(), undefined)
        const { live } = yield* Ledger.snapshot
        expect(live.map((entry) => [entry.site, entry.owner])).toEqual([
          ["the call", ["inner"]],
          ["the call", []],
          ["his own", []],
          [undefined, []]
        ])
      })
    ))

  it.effect("a listener, an attribute or a module that throws prevents no snapshot and no release", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const bad = () => {
          throw new Error("bad")
        }
        ledger.unsafeListen(bad)
        const spoilt = Object.defineProperty({}, "it", { enumerable: true, get: bad })
        const entry = ledger.unsafeAcquiring("k", "n", { blockedBy: bad })
        expect((yield* Ledger.snapshot).live.map(({ blockedBy }) => blockedBy)).toEqual([[]])
        ledger.unsafeHeld(entry, spoilt)
        ledger.unsafeReleased(entry)
        expect((yield* Ledger.snapshot).total).toMatchObject({ acquired: 1, released: 1 })
      })
    ))

  it.effect("Site-1: where a program's `prepareStackTrace` gives no text, there is no line, and no failure", () =>
    inLedger(
      {},
      Effect.sync(() => {
        const { prepareStackTrace } = Error
        const texts = [() => [], () => {
          throw new Error("no stack")
        }].map((prepare) => {
          Error.prepareStackTrace = prepare
          const text = Ledger.unsafeSite()?.text
          Error.prepareStackTrace = prepareStackTrace
          return text
        })
        expect(texts).toEqual([undefined, undefined])
      })
    ))

  it.effect("Ledger-5: fibers that wait for each other in a circle are named; fibers that wait for the circle are not", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const forked = <A>(f: () => A) => Effect.flatMap(Effect.fork(Effect.sync(f)), Fiber.join)
        const held = (name: string) => {
          const entry = ledger.unsafeAcquiring("lock", name)
          ledger.unsafeHeld(entry)
          return entry
        }
        const left = yield* Deferred.make<Ledger.Entry>()
        const right = yield* Deferred.make<Ledger.Entry>()
        const taking = (
          name: string,
          mine: Deferred.Deferred<Ledger.Entry>,
          theirs: Deferred.Deferred<Ledger.Entry>
        ) =>
          Effect.gen(function*() {
            yield* Deferred.succeed(mine, held(name))
            const other = yield* Deferred.await(theirs)
            ledger.unsafeAcquiring("lock", other.name, { blockedBy: () => [other] })
            return yield* Effect.never
          })
        yield* Effect.fork(taking("left", left, right))
        yield* Effect.fork(taking("right", right, left))
        yield* Effect.yieldNow()
        yield* Effect.yieldNow()
        const behind = yield* Deferred.await(left)
        yield* forked(() => ledger.unsafeAcquiring("lock", "left", { blockedBy: () => [behind] }))
        const { deadlocks, live } = yield* Ledger.snapshot
        expect(deadlocks).toHaveLength(1)
        const { waits } = deadlocks[0]!
        const nameOf = (id: number) => live.find((entry) => entry.id === id)!.name
        expect(new Set(waits.map(({ holder }) => nameOf(holder)))).toEqual(
          new Set(["left", "right"])
        )
        const [one, other] = waits.map(({ holder }) => live.find(({ id }) => id === holder)!)
        expect(Ledger.describeDeadlock(deadlocks[0]!, live)).toMatch(
          new RegExp(
            `^Deadlock: fiber ${other!.fiber} waits for lock "${one!.name}", which fiber `
              + `${one!.fiber} holds; fiber ${one!.fiber} waits for lock "${other!.name}"`
          )
        )
        // It is over as soon as one of the two gives up.
        ledger.unsafeGaveUp(live.find(({ id }) => id === waits[0]!.waiter)!)
        expect((yield* Ledger.snapshot).deadlocks).toEqual([])
      })
    ))

  it.effect("Ledger-5: a snapshot reads only the first of many holders for each waiter, and asks waiters of one kind once", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const many = 500
        const holders: Array<Ledger.Entry> = []
        let read = 0
        function* blockedBy() {
          for (const holder of holders) {
            read++
            yield holder
          }
        }
        const both = Effect.sync(() => {
          const holder = ledger.unsafeAcquiring("k", "held")
          ledger.unsafeHeld(holder)
          holders.push(holder)
          ledger.unsafeAcquiring("k", "wanted", { blockedBy, isServedIf: () => false })
        })
        yield* Effect.replicateEffect(Effect.flatMap(Effect.fork(both), Fiber.join), many)
        expect(ledger.unsafeSnapshot().deadlocks).toHaveLength(1)
        expect(read).toBeLessThan(many * 110)
        let questions = 0
        const alike = {}
        const isServedIf = () => {
          questions++
          return true
        }
        const waiting = Effect.sync(() =>
          ledger.unsafeAcquiring("k", "wanted", { blockedBy: () => holders, isServedIf, alike })
        )
        yield* Effect.replicateEffect(Effect.flatMap(Effect.fork(waiting), Fiber.join), many)
        expect(ledger.unsafeSnapshot().deadlocks).toHaveLength(1)
        expect(questions).toBe(1)
      })
    ))

  it.effect("Ledger-6: a listener sees every change, numbered, until it is removed", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const seen = yield* Effect.fork(Stream.runCollect(Ledger.events.pipe(
          Stream.dropUntil(({ entry }) => entry.state === "released"),
          Stream.take(4)
        )))
        while (seen.unsafePoll() === null) {
          yield* Effect.yieldNow()
          yield* Managed.use(thing, () => Effect.void)
        }
        const events = Chunk.toReadonlyArray(yield* Fiber.join(seen))
        const first = events[0]!.seq
        expect(events.map(({ seq }) => seq)).toEqual([first, first + 1, first + 2, first + 3])
        expect(events.map(({ entry }) => entry.state)).toEqual([
          "acquiring",
          "held",
          "releasing",
          "released"
        ])
      })
    ))

  it.effect("leaks: entries held for longer, the oldest first; leakAfter warns of each once", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => lines.push(String(message)))
    return Effect.gen(function*() {
      const ledger = Ledger.unsafeInForce()!
      const hold = (name: string) => {
        const entry = ledger.unsafeAcquiring("k", name)
        ledger.unsafeHeld(entry)
        return entry
      }
      hold("old")
      yield* TestClock.adjust("30 seconds")
      const young = hold("young")
      yield* TestClock.adjust("40 seconds")
      expect((yield* Ledger.leaks("50 seconds")).map(({ name }) => name)).toEqual(["old"])
      expect((yield* Ledger.leaks("40 seconds")).map(({ name }) => name)).toEqual(["old", "young"])
      expect(lines).toHaveLength(1)
      expect(lines[0]).toMatch(/^Held for more than 1m: k "old" \(held\) of fiber #\d+/)
      ledger.unsafeReleased(young)
      yield* TestClock.adjust("5 minutes")
      expect(lines).toHaveLength(1)
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          Ledger.layer({ leakAfter: "1 minute" }),
          Logger.replace(Logger.defaultLogger, logger)
        )
      )
    )
  })

  it.effect("leakKinds: other kinds are no leaks", () =>
    inLedger(
      { leakKinds: ["lock"] },
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        for (const kind of ["server", "lock"]) ledger.unsafeHeld(ledger.unsafeAcquiring(kind, "n"))
        yield* TestClock.adjust("1 minute")
        const lines = ledger.unsafeOverdue(Duration.seconds(30))
        expect(lines.map((line) => line.split(" (")[0])).toEqual([
          "Held for more than 30s: lock \"n\""
        ])
        expect(ledger.unsafeOverdue(Duration.seconds(30))).toEqual([])
      })
    ))

  it.effect("leakAfter: 0 and Infinity never warn", () =>
    Effect.gen(function*() {
      for (const leakAfter of [0, Infinity]) {
        yield* Effect.gen(function*() {
          const ledger = Ledger.unsafeInForce()!
          ledger.unsafeHeld(ledger.unsafeAcquiring("k", "n"))
          yield* TestClock.adjust("1 day")
        }).pipe(Effect.provide(Ledger.layer({ leakAfter })))
      }
    }))

  it.effect("options are checked, and may come from the configuration", () =>
    Effect.gen(function*() {
      for (
        const options of [{ sites: "all" }, { leakAfter: -1 }, { histroy: 3 }, { history: NaN }]
      ) {
        const refused = yield* Effect.exit(Layer.build(Ledger.layer(options as {})))
        expect(Exit.isFailure(refused) && Cause.pretty(refused.cause)).toMatch(
          /^RangeError: Ledger\.layer/
        )
      }
      const configured = Ledger.layerConfig({ history: Config.integer("HISTORY") })
      const ended = yield* Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        for (let i = 0; i < 3; i++) ledger.unsafeGaveUp(ledger.unsafeAcquiring("k", `${i}`))
        return (yield* Ledger.snapshot).ended
      }).pipe(
        Effect.provide(configured),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["HISTORY", "2"]])))
      )
      expect(ended.map(({ name }) => name)).toEqual(["1", "2"])
      const missing = yield* Effect.flip(Layer.build(configured))
      expect(String(missing)).toContain("HISTORY")
    }).pipe(Effect.scoped))

  it.effect("a ledger is a handle: it has a type id, pipes, and shows its counters but no names", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.make()
      ledger.unsafeHeld(ledger.unsafeAcquiring("lock", "secret name"))
      expect(ledger[Ledger.TypeId]).toBe(Ledger.TypeId)
      expect(ledger.pipe((self) => self.sites)).toBe("first")
      expect(JSON.parse(String(ledger))).toEqual({
        _id: "holdfast/Ledger",
        live: 1,
        kinds: { lock: { acquired: 1, released: 0, failed: 0, abandoned: 0 } }
      })
    }))

  it.effect("View-3: descriptions are safe to print, with any name, owner and line", () =>
    inLedger(
      {},
      Effect.gen(function*() {
        const ledger = Ledger.unsafeInForce()!
        const hostile = "\u001b[31m\u009b2J\nred"
        yield* Effect.sync(() =>
          ledger.unsafeHeld(
            ledger.unsafeAcquiring(hostile, hostile, { site: { text: `at\u202e${hostile}` } })
          )
        ).pipe(Ledger.withOwner(hostile))
        const { live } = yield* Ledger.snapshot
        const texts = [
          Ledger.describe(live[0]!),
          Ledger.describeDeadlock({ waits: [{ waiter: 1, holder: 1 }] }, live),
          (yield* Effect.flip(Ledger.assertEmpty)).message,
          ...ledger.unsafeOverdue(Duration.zero)
        ]
        expect(texts).toHaveLength(4)
        for (const text of texts) {
          expect(text).toContain("\\u{9b}2J red")
          // oxlint-disable-next-line no-control-regex
          expect(text).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/)
        }
      })
    ))

  it.effect("metrics: under OpenTelemetry's names, by kind and state", () =>
    inLedger(
      { metrics: true },
      Effect.gen(function*() {
        const kind = "measured thing"
        const measured = Managed.make({
          name: "m",
          kind,
          acquire: Effect.void,
          release: () => Effect.void
        })
        yield* Managed.use(measured, () => Effect.void)
        const pairs = (yield* Metric.snapshot).filter(({ metricKey }) =>
          Array.from(metricKey.tags).some(({ value }) => value === kind)
        )
        expect(new Set(pairs.map(({ metricKey }) => metricKey.name))).toEqual(
          new Set([
            "holdfast.resource.count",
            "holdfast.resource.acquire.duration",
            "holdfast.resource.use.duration",
            "holdfast.resource.release.duration"
          ])
        )
        for (const { metricKey, metricState } of pairs) {
          if (metricKey.name === "holdfast.resource.count") {
            expect(metricState).toMatchObject({ value: 0 })
          } else expect(metricState).toMatchObject({ count: 1 })
        }
      })
    ))

  it.effect("metrics: all ledgers of a process add up", () =>
    Effect.gen(function*() {
      const kind = "shared kind"
      const ledgers = yield* Effect.all([
        Ledger.make({ metrics: true }),
        Ledger.make({ metrics: true })
      ])
      for (const [ledger, held] of [[ledgers[0], 3], [ledgers[1], 1]] as const) {
        for (let i = 0; i < held; i++) ledger.unsafeHeld(ledger.unsafeAcquiring(kind, `${i}`))
      }
      const seen = (yield* Metric.snapshot).filter(({ metricKey }) =>
        Array.from(metricKey.tags).some(({ value }) => value === kind)
      ).map(({ metricKey, metricState }) => ({
        name: metricKey.name,
        state: Array.from(metricKey.tags).find(({ key }) => key === "holdfast.resource.state")
          ?.value,
        metricState
      }))
      expect(seen.map(({ name, state }) => [name, state]).toSorted()).toEqual([
        ["holdfast.resource.acquire.duration", undefined],
        ["holdfast.resource.count", "acquiring"],
        ["holdfast.resource.count", "held"]
      ])
      expect(seen.find(({ state }) => state === "held")?.metricState).toMatchObject({ value: 4 })
    }))

  it.effect("the accessors read the ledger in force; without one they are a defect, so that no test passes by mistake", () =>
    Effect.gen(function*() {
      const exits: ReadonlyArray<Exit.Exit<unknown, unknown>> = [
        yield* Effect.exit(Ledger.assertEmpty),
        yield* Effect.exit(Ledger.snapshot),
        yield* Effect.exit(Ledger.leaks(0)),
        yield* Effect.exit(Stream.runDrain(Ledger.events))
      ]
      for (const exit of exits) {
        expect(Exit.isFailure(exit) && Cause.pretty(exit.cause)).toContain("No ledger is in force")
      }
      yield* Effect.gen(function*() {
        const held = yield* Effect.scoped(Effect.zipRight(thing, Effect.flip(Ledger.assertEmpty)))
        expect(held.entries.map((entry) => entry.name)).toEqual(["held"])
        yield* Ledger.assertEmpty
        expect((yield* Ledger.snapshot).total.released).toBe(1)
      }).pipe(Effect.provide(Ledger.layer()))
    }))
})
