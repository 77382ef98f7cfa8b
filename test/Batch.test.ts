import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Context,
  Data,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Option,
  Schedule,
  Schema,
  Stream,
  TestClock,
  Tracer
} from "effect"
import { Batch, Job, Ledger, Managed, RateLimiter, Shutdown } from "holdfast"
import * as Checkpoint from "holdfast/Batch/Checkpoint"
import * as BatchProgress from "holdfast/Batch/Progress"
import * as BatchStreams from "holdfast/Batch/Streams"
import { expectTypeOf } from "vitest"

const sum = (report: Batch.Report): number =>
  report.done + report.alreadyDone + report.skipped + report.failed + report.interrupted

/** In memory; what it is asked to do is in `log`. */
const memory = (done: Set<string> = new Set(), log: Array<string> = []): Checkpoint.Backend => ({
  run: "in memory",
  groupSize: 1,
  begin: (keys) =>
    Effect.succeed(
      new Map(keys.filter((key) => done.has(key)).map((key) => [key, "done" as const]))
    ),
  commit: (keys, effects) =>
    Effect.gen(function*() {
      log.push(`begin ${keys}`)
      yield* effects
      log.push(`end ${keys}`)
      for (const key of keys) done.add(key)
      return true
    }),
  release: () => Effect.void,
  bury: ({ key }) => Effect.sync(() => log.push(`bury ${key}`))
})

const range = (n: number): Array<number> => Array.from({ length: n }, (_, i) => i)

describe("Batch", () => {
  it.effect("the ledger shows the job as the owner of what its items acquire", () =>
    Effect.gen(function*() {
      const page = Managed.make({ name: "page", acquire: Effect.void, release: () => Effect.void })
      yield* Batch.run(
        { name: "import", process: () => Managed.use(page, () => Effect.void) },
        range(4),
        { concurrency: 2 }
      )
      const { ended } = yield* Ledger.snapshot
      expect(ended.map(({ owner }) => owner)).toEqual(range(4).map(() => ["import"]))
    }).pipe(Effect.provide(Ledger.layer())))

  it.effect("Batch-1: a shared resource is released once, after the last item, in every mode of ending", () =>
    Effect.gen(function*() {
      for (const how of ["success", "failure", "defect", "interruption"] as const) {
        let open = false
        let acquired = 0
        let released = 0
        let usedAfter = 0
        const resource = Managed.make({
          name: "r",
          acquire: Effect.sync(() => {
            open = true
            acquired++
          }),
          release: () =>
            Effect.sync(() => {
              open = false
              released++
            })
        })
        const job = {
          name: how,
          process: (i: number) =>
            Effect.uninterruptible(Effect.zipRight(
              Effect.sleep(10 + i),
              Effect.suspend(() => {
                if (!open) usedAfter++
                if (i !== 3 || how === "success" || how === "interruption") return Effect.void
                return how === "failure" ? Effect.fail("no") : Effect.die("bug")
              })
            ))
        }
        const fiber = yield* Effect.fork(
          Managed.use(resource, () => Batch.run(job, range(20), { concurrency: 4 }))
        )
        yield* TestClock.adjust("12 millis")
        if (how === "interruption") yield* Fiber.interruptFork(fiber)
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.await(fiber)
        expect(Exit.isSuccess(exit)).toBe(how === "success")
        expect({ acquired, released, usedAfter }).toEqual({
          acquired: 1,
          released: 1,
          usedAfter: 0
        })
      }
    }))

  it.effect("Batch-2: the report adds up, with failures collected and skipped", () =>
    Effect.gen(function*() {
      const job = {
        name: "mixed",
        process: (i: number) => i % 3 === 0 ? Effect.fail(i) : Effect.succeed(i)
      }
      const report = yield* Batch.run(job, range(30), {
        concurrency: 4,
        onError: (cause) => Cause.contains(cause, Cause.fail(9)) ? "skip" : "collect"
      })
      expect(report).toEqual({
        name: "mixed",
        status: "complete",
        taken: 30,
        done: 20,
        alreadyDone: 0,
        skipped: 1,
        failed: 9,
        interrupted: 0,
        duplicates: 0
      })
      const skipped = yield* Batch.run(job, range(4), { onError: "skip" })
      expect([skipped.done, skipped.skipped, skipped.failed]).toEqual([2, 2, 0])
      const bug = yield* Effect.exit(
        Batch.run({ name: "bug", process: () => Effect.die("bug") }, [1], { onError: "skip" })
      )
      expect(Exit.isFailure(bug)).toBe(true)
    }))

  it.effect("Batch-2 Batch-4: a fatal failure stops the intake and carries the report and the cause", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Batch.run(
        {
          name: "fatal",
          process: (i: number) => i === 7 ? Effect.fail("seven") : Effect.yieldNow()
        },
        range(1000),
        { concurrency: 3 }
      ))
      if (Exit.isSuccess(exit)) return expect.fail("should have failed")
      const [failed] = Array.from(Cause.failures(exit.cause))
      expect(failed).toBeInstanceOf(Batch.BatchFailed)
      const { report } = failed!
      expect(sum(report)).toBe(report.taken)
      expect(report.taken).toBeLessThan(15)
      expect(failed!.message).toContain("seven")
    }))

  it.effect("Batch-3: at most `concurrency` in flight, no look-ahead, endless sources, sync and async", () =>
    Effect.gen(function*() {
      const sources = {
        sync: (pulled: { n: number; closed: boolean }) =>
          (function*() {
            try {
              while (true) yield pulled.n++
            } finally {
              pulled.closed = true
            }
          })(),
        async: (pulled: { n: number; closed: boolean }) =>
          (async function*() {
            try {
              while (true) yield pulled.n++
            } finally {
              pulled.closed = true
            }
          })()
      }
      for (const open of Object.values(sources)) {
        const pulled = { n: 0, closed: false }
        let inFlight = 0
        let most = 0
        let started = 0
        const exit = yield* Effect.exit(Batch.run(
          {
            name: "endless",
            process: () =>
              Effect.gen(function*() {
                started++
                most = Math.max(most, ++inFlight)
                expect(pulled.n - started).toBeLessThanOrEqual(4)
                yield* Effect.yieldNow()
                inFlight--
                if (started >= 50) return yield* Effect.fail("enough")
              })
          },
          open(pulled),
          { concurrency: 4 }
        ))
        expect(Exit.isFailure(exit)).toBe(true)
        expect(most).toBeLessThanOrEqual(4)
        expect(pulled.closed).toBe(true)
      }
    }))

  it.effect("Batch-4: a drain lets what runs finish and takes nothing more", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      let finished = 0
      const fiber = yield* Effect.fork(Batch.run(
        {
          name: "drain",
          process: () => Effect.zipRight(Effect.sleep("300 millis"), Effect.sync(() => finished++))
        },
        range(100),
        { concurrency: 8, drain: { when: shutdown.requested } }
      ))
      yield* TestClock.adjust("100 millis")
      yield* shutdown.request({ kind: "request", by: "test" })
      yield* TestClock.adjust("200 millis")
      const report = yield* Fiber.join(fiber)
      expect([report.status, report.taken, report.done, finished]).toEqual(["drained", 8, 8, 8])
    }))

  it.effect("Batch-4 Batch-5: past the grace, items are interrupted and awaited, and counted as interrupted", () =>
    Effect.gen(function*() {
      const requested = yield* Deferred.make<void>()
      let cleaned = 0
      const fiber = yield* Effect.fork(Batch.run(
        {
          name: "grace",
          process: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => cleaned++))
        },
        range(100),
        {
          concurrency: 4,
          onError: "collect",
          drain: { when: Deferred.await(requested), grace: "1 second" }
        }
      ))
      yield* TestClock.adjust("10 millis")
      yield* Deferred.succeed(requested, undefined)
      yield* TestClock.adjust("1 second")
      const report = yield* Fiber.join(fiber)
      expect([report.status, report.taken, report.interrupted, report.failed, cleaned]).toEqual([
        "drained",
        4,
        4,
        0,
        4
      ])
    }))

  it.effect("Batch-4: an interrupted caller drains too; without `drain` it cuts at once", () =>
    Effect.gen(function*() {
      for (const drain of [{ grace: "1 second" }, undefined] as const) {
        let finished = 0
        const fiber = yield* Effect.fork(Batch.run(
          {
            name: "interrupted",
            process: () =>
              Effect.zipRight(Effect.sleep("300 millis"), Effect.sync(() => finished++))
          },
          range(100),
          { concurrency: 4, drain }
        ))
        yield* TestClock.adjust("100 millis")
        const ending = yield* Effect.fork(Fiber.interrupt(fiber))
        yield* TestClock.adjust("300 millis")
        expect(Exit.isInterrupted(yield* Fiber.join(ending))).toBe(true)
        expect(finished).toBe(drain === undefined ? 0 : 4)
      }
    }))

  it.effect("Batch-4: an async source that never yields does not delay a drain", () =>
    Effect.gen(function*() {
      const shutdown = Shutdown.unsafeMake()
      let asked = 0
      const silent: AsyncIterable<number> = {
        [Symbol.asyncIterator]: () => ({
          next: () => {
            asked++
            return new Promise(() => {})
          },
          return: () => new Promise(() => {})
        })
      }
      const fiber = yield* Effect.fork(
        Batch.run({ name: "silent", process: () => Effect.void }, silent, {
          drain: { when: shutdown.requested }
        })
      )
      yield* Effect.repeatN(Effect.yieldNow(), 10)
      expect(asked).toBe(1)
      yield* shutdown.request({ kind: "request", by: "test" })
      // Its bound to close, not the grace of the items.
      yield* TestClock.adjust("5 seconds")
      const exit = fiber.unsafePoll()
      expect(exit !== null && Exit.isSuccess(exit) && exit.value.status).toBe("drained")
    }))

  it.effect("Batch-2: an item that an async source was giving when the run ended early is in the report", () =>
    Effect.gen(function*() {
      for (const how of ["drain", "failure", "interruption"] as const) {
        for (const hasReturn of [true, false]) {
          let dequeued = 0
          const gate = yield* Deferred.make<void>()
          const requested = yield* Deferred.make<void>()
          const outcomes: Array<string> = []
          const source: AsyncIterable<number> = {
            [Symbol.asyncIterator]: () => ({
              next: async () => {
                const value = ++dequeued
                if (value === 3) await Effect.runPromise(Deferred.await(gate))
                return { value, done: false }
              },
              ...hasReturn ? { return: async () => ({ value: undefined, done: true }) } : {}
            })
          }
          const fiber = yield* Effect.fork(Batch.run(
            {
              name: how,
              process: (n) =>
                n === 2 && how === "failure"
                  ? Effect.zipRight(Effect.sleep("1 second"), Effect.fail("no"))
                  : Effect.void
            },
            source,
            {
              concurrency: 2,
              drain: { when: Deferred.await(requested), grace: "1 second" },
              onSettled: ({ attempts, item, status }) =>
                Effect.sync(() => outcomes.push(`${item} ${status} after ${attempts}`))
            }
          ))
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
          if (how === "drain") yield* Deferred.succeed(requested, undefined)
          if (how === "interruption") yield* Fiber.interruptFork(fiber)
          yield* TestClock.adjust("1 second")
          yield* Deferred.succeed(gate, undefined)
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 5)))
          yield* TestClock.adjust("1 second")
          const exit = fiber.unsafePoll()
          expect([how, hasReturn, exit === null]).toEqual([how, hasReturn, false])
          expect([how, hasReturn, dequeued, outcomes.toSorted()]).toEqual([how, hasReturn, 3, [
            "1 done after 1",
            how === "failure" ? "2 failed after 1" : "2 done after 1",
            "3 interrupted after 0"
          ]])
          if (how === "interruption") continue
          const failure = Option.flatMap(
            exit !== null && Exit.isFailure(exit) ? Option.some(exit.cause) : Option.none(),
            Cause.failureOption
          )
          const report = exit !== null && Exit.isSuccess(exit)
            ? exit.value
            : Option.getOrThrow(failure).report
          expect([report.taken, sum(report), report.interrupted]).toEqual([3, 3, 1])
        }
      }
    }))

  it.effect("each item has a span where the program has a tracer", () =>
    Effect.gen(function*() {
      const spans: Array<readonly [string, unknown]> = []
      const tracer = Tracer.make({
        span: (name, parent, context, links, startTime, kind) => {
          const attributes = new Map<string, unknown>()
          return {
            _tag: "Span",
            spanId: name,
            traceId: "trace",
            sampled: true,
            status: { _tag: "Started", startTime },
            name,
            parent,
            context,
            links,
            kind,
            attributes,
            attribute: (key, value) => attributes.set(key, value),
            addLinks: () => {},
            event: () => {},
            end: (_, exit) => {
              spans.push([name, { ...Object.fromEntries(attributes), exit: exit._tag }])
            }
          }
        },
        context: (run) => run()
      })
      const job = {
        name: "traced",
        key: String,
        process: (n: number) => n === 2 ? Effect.fail("no") : Effect.void
      }
      const run = Batch.run(job, [1, 2], { onError: "collect", concurrency: 1 })
      yield* Effect.withTracer(run, tracer)
      const item = (index: number, exit: string) => [
        "holdfast.batch.item",
        {
          "holdfast.batch.job": "traced",
          "holdfast.batch.index": index,
          "holdfast.batch.key": `${index + 1}`,
          exit
        }
      ]
      expect(spans).toEqual([item(0, "Success"), item(1, "Failure")])
    }))

  it.effect("Batch-6: a key that comes twice is one item", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const report = yield* Batch.run({
        name: "keys",
        key: (s: string) => s,
        process: (s: string) => Effect.sync(() => seen.push(s))
      }, ["a", "b", "a", "a"])
      expect(seen).toEqual(["a", "b"])
      expect([report.taken, report.duplicates]).toEqual([2, 2])
    }))

  it.effect("retries by schedule, times each attempt out, tells the attempts", () =>
    Effect.gen(function*() {
      const outcomes: Array<[string, number]> = []
      const fiber = yield* Effect.fork(Batch.run(
        {
          name: "retry",
          process: (i: number, attempt) =>
            i === 0 || attempt < 3 ? Effect.sleep("10 seconds") : Effect.void,
          retry: Schedule.recurs(3),
          timeout: "1 second"
        },
        [0, 1],
        {
          onError: "collect",
          onSettled: (o) => Effect.sync(() => outcomes.push([o.status, o.attempts]))
        }
      ))
      yield* TestClock.adjust("10 seconds")
      const report = yield* Fiber.join(fiber)
      expect([report.done, report.failed]).toEqual([1, 1])
      expect(outcomes).toEqual([["done", 3], ["failed", 4]])
    }))

  it.effect("with a checkpoint: what is done is not processed again, and commit runs inside it", () =>
    Effect.gen(function*() {
      const done = new Set(["0", "1"])
      const log: Array<string> = []
      const report = yield* Batch.run(
        {
          name: "checkpointed",
          key: String,
          process: (i: number) => Effect.succeed(i * 2),
          commit: (_, value) => Effect.sync(() => log.push(`effect ${value}`))
        },
        range(4),
        {
          concurrency: 1,
          checkpoint: Checkpoint.make(memory(done, log))
        }
      )
      expect([report.done, report.alreadyDone]).toEqual([2, 2])
      expect(log).toEqual(["begin 2", "effect 4", "end 2", "begin 3", "effect 6", "end 3"])
    }))

  it.effect("Job-1: process, commit, source and hooks each have errors and needs of their own, inferred", () =>
    Effect.gen(function*() {
      class Odd extends Data.TaggedError("Odd")<{ readonly n: number }> {}
      class Refused
        extends Data.TaggedError("Refused")<{ readonly n: number; readonly by: string }>
      {}
      class Cut extends Data.TaggedError("Cut")<{ readonly at: number }> {}
      class Full extends Data.TaggedError("Full")<{ readonly bytes: bigint }> {}
      class Web extends Context.Tag("Web")<Web, { readonly get: number }>() {}
      class Store extends Context.Tag("Store")<Store, { readonly limit: number }>() {}
      class Log extends Context.Tag("Log")<Log, Array<string>>() {}
      class Feed extends Context.Tag("Feed")<Feed, { readonly size: number }>() {}
      const lost = new Checkpoint.CheckpointError({ operation: "begin", run: "r", cause: "gone" })
      const checkpoint = Checkpoint.make({
        ...memory(),
        begin: (keys: ReadonlyArray<string>) =>
          keys.includes("7") ? Effect.fail(lost) : Effect.succeed(new Map())
      })
      const timeouts = Schedule.recurWhile((error: Odd | Job.ItemTimeout) =>
        error._tag === "ItemTimeout"
      )
      const job = Job.make({
        name: "mixed",
        item: Schema.NumberFromString,
        key: String,
        process: (n: number) =>
          Effect.flatMap(
            Web,
            ({ get }) => n % 2 === 1 && n < 7 ? new Odd({ n }) : Effect.succeed(n * get)
          ),
        retry: timeouts,
        commit: (n, value) =>
          Effect.flatMap(
            Store,
            ({ limit }) => value > limit ? new Refused({ n, by: "limit" }) : Effect.void
          )
      })
      expectTypeOf(job).toEqualTypeOf<Job.Job<number, number, Odd | Refused, Web | Store>>()
      const source = Stream.unwrap(
        Effect.map(
          Feed,
          ({ size }) =>
            size > 99 ? Stream.fail(new Cut({ at: size })) : Stream.fromIterable(range(size))
        )
      )
      const run = Batch.run(job, BatchStreams.source(source), {
        concurrency: 1,
        checkpoint,
        onError: (cause) =>
          Cause.failures(cause).pipe(Chunk.some((e) => e._tag === "CheckpointError"))
            ? "skip"
            : "collect",
        onSettled: (outcome) =>
          outcome.index > 99
            ? new Full({ bytes: 1n })
            : Effect.flatMap(Log, (log) =>
              Effect.sync(() => {
                const error = outcome.status === "failed" || outcome.status === "skipped"
                  ? Option.getOrUndefined(Cause.failureOption(outcome.cause))
                  : undefined
                log.push(error?._tag ?? outcome.status)
              }))
      })
      type Failure = Batch.BatchFailed<Odd | Refused | Cut | Full | Batch.ItemFailure>
      expectTypeOf(run).toEqualTypeOf<
        Effect.Effect<Batch.Report, Failure, Web | Store | Log | Feed>
      >()
      const log: Array<string> = []
      const report = yield* run.pipe(
        Effect.provideService(Web, { get: 10 }),
        Effect.provideService(Store, { limit: 50 }),
        Effect.provideService(Log, log),
        Effect.provideService(Feed, { size: 8 })
      )
      expect(log).toEqual([
        "done",
        "Odd",
        "done",
        "Odd",
        "done",
        "Odd",
        "Refused",
        "CheckpointError"
      ])
      expect([report.done, report.failed, report.skipped]).toEqual([3, 4, 1])

      const sure = Batch.run({ name: "sure", process: Effect.succeed, retry: Schedule.recurs(1) }, [
        1
      ])
      expectTypeOf(sure).toEqualTypeOf<
        Effect.Effect<Batch.Report, Batch.BatchFailed<Batch.ItemFailure>>
      >()
      expect((yield* sure).done).toBe(1)
    }))

  it.effect("Batch-2: whatever throws, the report adds up and the run says what threw", () =>
    Effect.gen(function*() {
      const bomb = (): never => {
        throw new Error("bomb")
      }
      const job = { name: "bombs", key: String, process: (i: number) => Effect.succeed(i) }
      const failing = { ...job, process: () => Effect.fail("item") }
      const items = [1, 2, 3]
      const runs = {
        key: Batch.run({ ...job, key: bomb }, items),
        process: Batch.run({ ...job, process: bomb }, items),
        commit: Batch.run({ ...job, commit: bomb }, items),
        begin: Batch.run(job, items, {
          checkpoint: Checkpoint.make({ ...memory(), begin: bomb })
        }),
        bury: Batch.run(failing, items, {
          onError: "skip",
          checkpoint: Checkpoint.make({ ...memory(), bury: bomb })
        }),
        release: Batch.run(failing, items, {
          onError: "collect",
          checkpoint: Checkpoint.make({ ...memory(), release: bomb }),
          onSettled: bomb
        }),
        progress: Batch.run(job, items, { progress: BatchProgress.every("1 second", bomb) }),
        onSettled: Batch.run(job, items, { onSettled: bomb }),
        onError: Batch.run(failing, items, { onError: bomb }),
        both: Batch.run(failing, items, { onSettled: bomb }),
        when: Batch.run(job, items, { drain: { when: Effect.sync(bomb) } })
      }
      for (const [where, batch] of Object.entries(runs)) {
        const exit = yield* Effect.exit(batch as Effect.Effect<Batch.Report, unknown>)
        const failed = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        if (!(failed instanceof Batch.BatchFailed)) return expect.fail(`${where}: ${failed}`)
        expect([where, sum(failed.report)]).toEqual([where, failed.report.taken])
        expect(Cause.pretty(failed.failure)).toContain("bomb")
        if (where === "onError" || where === "both") {
          expect(Cause.pretty(failed.failure)).toContain("item")
        }
      }
    }))

  it.effect("Batch-2: an item that interrupts itself counts as interrupted, a hook that does fails the run; the caller is not interrupted", () =>
    Effect.gen(function*() {
      const job = { name: "quits", process: () => Effect.void }
      const taken = yield* Batch.run({ ...job, process: () => Effect.interrupt }, [1, 2])
      expect([taken.taken, taken.interrupted]).toEqual([2, 2])
      const settled = yield* Effect.flip(Batch.run(job, [1, 2], {
        onSettled: () => Effect.interrupt
      }))
      expect(sum(settled.report)).toBe(settled.report.taken)
    }))

  it.effect("a source that throws has ended and is not closed; one that cannot be closed fails the run", () =>
    Effect.gen(function*() {
      const throwing = (what: string) => () => {
        throw new Error(what)
      }
      const rejecting = (what: string) => () => Promise.reject(new Error(what))
      const job = { name: "source", process: () => Effect.fail("item") }
      const one = { value: 1, done: false }
      const sync = (iterator: Iterator<number>): Iterable<number> => ({
        [Symbol.iterator]: () => iterator
      })
      const async = (iterator: AsyncIterator<number>): AsyncIterable<number> => ({
        [Symbol.asyncIterator]: () => iterator
      })
      const sources = [
        [
          sync({ next: throwing("no next"), return: throwing("no return") }),
          /^(?!.*no return).*no next/s
        ],
        [sync({ next: () => one, return: throwing("no return") }), /item.*no return/s],
        [
          async({ next: rejecting("no next"), return: rejecting("no return") }),
          /^(?!.*no return).*no next/s
        ],
        [
          async({ next: () => Promise.resolve(one), return: rejecting("no return") }),
          /item.*no return/s
        ]
      ] as const
      for (const [source, says] of sources) {
        const failed = yield* Effect.flip(Batch.run(job, source, { concurrency: 1 }))
        expect(Cause.pretty(failed.failure)).toMatch(says)
      }
      const text = yield* Batch.run({ name: "text", process: () => Effect.void }, "abc")
      expect(text.done).toBe(3)
    }))

  it.effect("a concurrency far above the number of items costs next to nothing", () =>
    Effect.gen(function*() {
      const job = { name: "wide", process: () => Effect.void }
      expect((yield* Batch.run(job, range(3), { concurrency: 1_000_000_000 })).done).toBe(3)
    }))

  it.effect("misuse is refused by name", () =>
    Effect.gen(function*() {
      const job = { name: "j", process: () => Effect.void }
      const said = (run: Effect.Effect<unknown, unknown>) =>
        Effect.map(
          Effect.exit(run),
          (exit) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : exit
        )
      for (const concurrency of [0, 1.5, Infinity, Number.NaN]) {
        expect(yield* said(Batch.run(job, [1], { concurrency }))).toContain(
          `Batch.run: \`concurrency\` must be an integer, 1 or more; got ${concurrency}.`
        )
      }
      expect(yield* said(Batch.run(job, [1], { drain: { grace: -1 } }))).toContain(
        "Batch.run, drain: `grace` must be a duration"
      )
      expect(yield* said(Batch.run({ ...job, timeout: 0 }, [1]))).toContain(
        "Batch.run, job: `timeout` must be a duration above 0"
      )
      // @ts-expect-error a wrong name
      expect(yield* said(Batch.run(job, [1], { concurency: 2 }))).toContain(
        "Batch.run has no option `concurency`."
      )
      // @ts-expect-error a wrong verdict
      expect(yield* said(Batch.run(job, [1], { onError: "ignore" }))).toContain(
        `\`onError\` must be one of "fail", "collect", "skip", or a function; got "ignore".`
      )
      const keyless = yield* Effect.exit(
        Batch.run(job, [1], { checkpoint: Checkpoint.make(memory()) })
      )
      expect(Exit.isFailure(keyless) && Cause.pretty(keyless.cause)).toContain("no `key`")
    }))

  it.effect("BatchCheckpoint-2: items that wait together share a transaction; one that fails spoils no other", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const checkpoint = Checkpoint.make({ ...memory(new Set(), log), groupSize: 4 })
      const commits: Array<string> = []
      const report = yield* Batch.run(
        Job.make({
          name: "groups",
          key: String,
          process: Effect.succeed<number>,
          commitAll: (group) =>
            Effect.suspend(() => {
              const items = group.map(({ item }) => item)
              commits.push(`${items}`)
              return items.includes(5) ? Effect.fail("five") : Effect.void
            })
        }),
        range(8),
        { concurrency: 8, checkpoint, onError: "collect" }
      )
      expect([report.done, report.failed]).toEqual([7, 1])
      expect(commits).toEqual(["0,1,2,3", "4,5,6,7", "4", "5", "6", "7"])
      expect(log.filter((line) => line.startsWith("end"))).toEqual([
        "end 0,1,2,3",
        "end 4",
        "end 6",
        "end 7"
      ])
    }))

  it.effect("BatchCheckpoint-1: a group that is interrupted is awaited, and what waits leaves its place", () =>
    Effect.gen(function*() {
      for (const groupSize of [1, 3]) {
        const ended: Array<string> = []
        const checkpoint = Checkpoint.make({
          ...memory(),
          groupSize,
          commit: (keys, effects) =>
            Effect.onExit(
              Effect.as(Effect.zipRight(effects, Effect.sleep("1 second")), true),
              (exit) => Effect.sync(() => ended.push(`${keys} ${exit._tag}`))
            )
        })
        const fiber = yield* Effect.fork(Batch.run(
          Job.make({ name: "cut", key: String, process: Effect.succeed<number> }),
          range(4),
          { concurrency: 4, checkpoint, drain: { grace: "1 second" } }
        ))
        yield* TestClock.adjust("10 millis")
        expect(ended).toEqual([])
        yield* Fiber.interruptFork(fiber)
        yield* TestClock.adjust("5 seconds")
        expect(Exit.isInterrupted(yield* Fiber.await(fiber))).toBe(true)
        expect(ended.toSorted()).toEqual(
          groupSize === 1
            ? ["0 Success", "1 Success", "2 Success", "3 Success"]
            : ["0,1,2 Success", "3 Failure"]
        )
      }
    }))

  it.effect("Batch-7: at most `skipLimit` are skipped, by all workers together, each with one dead letter written before", () =>
    Effect.gen(function*() {
      const job = Job.make({
        name: "skips",
        key: String,
        process: (n: number) =>
          Effect.zipRight(Effect.yieldNow(), n % 2 === 0 ? Effect.fail("even") : Effect.void)
      })
      const log: Array<string> = []
      const checkpoint = Checkpoint.make({
        ...memory(),
        bury: ({ key }) => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => log.push(key)))
      })
      const onSettled = ({ item, status }: Batch.Outcome<number, void, unknown>) =>
        Effect.sync(() => {
          if (status === "skipped") expect(log).toContain(`${item}`)
        })
      const failed = yield* Effect.flip(
        Batch.run(job, range(50), {
          concurrency: 8,
          onError: "skip",
          skipLimit: 3,
          checkpoint,
          onSettled
        })
      )
      expect([failed.report.skipped, log.length]).toEqual([3, 3])
      expect(sum(failed.report)).toBe(failed.report.taken)
      const unwritten = yield* Effect.flip(Batch.run(job, range(3), {
        onError: "skip",
        checkpoint: Checkpoint.make({
          ...memory(),
          bury: () =>
            Effect.fail(
              new Checkpoint.CheckpointError({ operation: "bury", run: "r", cause: "full" })
            )
        })
      }))
      expect([unwritten.report.skipped, unwritten.report.failed]).toEqual([0, 2])
      const dead = yield* Batch.run(job, range(3), {
        checkpoint: Checkpoint.make({
          ...memory(),
          begin: () => Effect.succeed(new Map([["0", "dead"], ["2", "crashing"]]))
        })
      })
      expect([dead.done, dead.skipped]).toEqual([1, 2])
    }))

  it.effect("BatchStreams-1: a stream is a source: no look-ahead, closed once, its failure typed", () =>
    Effect.gen(function*() {
      let pulled = 0
      let closed = 0
      const stream = Stream.ensuring(
        Stream.repeatEffect(Effect.sync(() => pulled++)),
        Effect.sync(() => closed++)
      )
      const job = {
        name: "stream",
        process: (n: number) => n >= 9 ? Effect.fail("nine") : Effect.void
      }
      const failed = yield* Effect.flip(
        Batch.run(job, BatchStreams.source(stream), { concurrency: 3 })
      )
      expect(Cause.failureOption(failed.failure)).toEqual(Option.some("nine"))
      expect(pulled - failed.report.taken).toBeLessThan(2)
      expect(closed).toBe(1)
      const broken = Stream.concat(Stream.make(1, 2), Stream.fail({ _tag: "Cut" } as const))
      const cut = yield* Effect.flip(Batch.run(job, BatchStreams.source(broken)))
      expectTypeOf(cut.failure).toEqualTypeOf<
        Cause.Cause<string | { readonly _tag: "Cut" } | Batch.ItemFailure>
      >()
      expect(Cause.failures(cut.failure)).toEqual(Chunk.of({ _tag: "Cut" }))
      expect(cut.report.done).toBe(2)
      const whole = yield* Batch.run(job, BatchStreams.source(Stream.range(1, 5)))
      expect([whole.status, whole.done]).toEqual(["complete", 5])
      const fiber = yield* Effect.fork(
        Batch.run(job, BatchStreams.source(Stream.concat(Stream.make(1), Stream.never)), {
          drain: { when: Effect.sleep("1 second") }
        })
      )
      yield* TestClock.adjust("1 second")
      expect((yield* Fiber.join(fiber)).status).toBe("drained")
    }))

  it.effect("BatchProgress-1: progress never decreases and ends as the report; a rate limit paces the starts and not a drain", () =>
    Effect.gen(function*() {
      const seen: Array<BatchProgress.Progress> = []
      const rate = yield* RateLimiter.make({ limit: 2, interval: "1 second", burst: 1 })
      const options = {
        concurrency: 4,
        rate,
        progress: BatchProgress.every("1 second", (now) => Effect.sync(() => seen.push(now)))
      }
      const job = { name: "paced", process: () => Effect.void }
      const fiber = yield* Effect.fork(Batch.run(job, range(9), options))
      yield* TestClock.adjust("3900 millis")
      expect(fiber.unsafePoll()).toBe(null)
      expect(seen.map(({ done }) => done)).toEqual([3, 5, 7])
      const last = seen.at(-1)!
      expect([last.total, last.inFlight, last.perSecond, last.eta]).toEqual([
        9,
        0,
        7 / 3,
        Duration.seconds(2 / (7 / 3))
      ])
      yield* TestClock.adjust("200 millis")
      const report = yield* Fiber.join(fiber)
      expect({ ...report, ...seen.at(-1) }).toMatchObject(report)
      const drained = yield* Effect.fork(
        Batch.run(job, range(9), { ...options, drain: { when: Effect.sleep("1 second") } })
      )
      yield* TestClock.adjust("1 second")
      expect(drained.unsafePoll()).not.toBe(null)
    }))

  it.effect("BatchStreams-2: a stream of outcomes, in order if asked; a slow reader holds the items back, one that leaves ends them", () =>
    Effect.gen(function*() {
      let started = 0
      const job = Job.make({
        name: "results",
        process: (n: number) =>
          Effect.zipRight(
            Effect.sync(() => started++),
            Effect.zipRight(
              Effect.sleep(n % 3 * 10),
              n === 4 ? Effect.fail("four") : Effect.succeed(n)
            )
          )
      })
      for (const ordered of [true, false]) {
        const fiber = yield* Effect.fork(Stream.runCollect(
          BatchStreams.outcomes(job, range(30), {
            ordered,
            concurrency: 5,
            window: 6,
            onError: "collect"
          })
        ))
        yield* TestClock.adjust("1 second")
        const outcomes = Array.from(yield* Fiber.join(fiber))
        const items = outcomes.map(({ item }) => item)
        expect(ordered ? items : items.toSorted((a, b) => a - b)).toEqual(range(30))
        expect(outcomes.find(({ item }) => item === 4)?.status).toBe("failed")
      }
      started = 0
      const endless = (function*() {
        for (let n = 0;; n += 3) yield n
      })()
      const first = Stream.runHead(
        BatchStreams.outcomes(job, endless, { ordered: true, concurrency: 2, window: 4 })
      )
      const fiber = yield* Effect.fork(first)
      yield* TestClock.adjust("1 second")
      expect(Option.map(yield* Fiber.join(fiber), ({ index }) => index)).toEqual(Option.some(0))
      expect(started).toBeLessThan(20)
      const failing = yield* Effect.fork(
        Effect.flip(Stream.runDrain(BatchStreams.outcomes(job, [4])))
      )
      yield* TestClock.adjust("1 second")
      const failed = yield* Fiber.join(failing)
      expect(failed._tag).toBe("BatchFailed")
    }))
})
