// One program per argument, run by Main.run in a child process; test/Main.test.ts drives it with real signals.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Batch from "holdfast/Batch"
import * as Ledger from "holdfast/Ledger"
import * as Main from "holdfast/Main"
import * as Managed from "holdfast/Managed"
import * as Shutdown from "holdfast/Shutdown"
import * as fs from "node:fs"

// A mutant may never end, and the test that started this process may be gone by then.
setTimeout(() => process.kill(process.pid, "SIGKILL"), 25_000).unref()

const say = (line) => process.stdout.write(`${line}\n`)
const held = (name, release = Effect.void, options = {}) =>
  Managed.make({
    name,
    acquire: Effect.sync(() => say(`+${name}`)),
    release: () => Effect.zipRight(release, Effect.sync(() => say(`-${name}`))),
    ...options
  })
const ready = Effect.sync(() => say("ready"))
const waiting = Effect.zipRight(ready, Effect.never)
// Synchronous: nothing else of the process runs, and no signal is handled.
const computing = (millis) =>
  Effect.sync(() => {
    for (const until = performance.now() + millis; performance.now() < until;);
  })
/** An error that is its own cause: a printer of causes never ends. */
const circular = (message) => {
  const error = new Error(message)
  error.cause = error
  return error
}
const withA = (body) => Effect.scoped(Effect.zipRight(held("a"), body))

const programs = {
  clean: Effect.scoped(Effect.zipRight(held("a"), waiting)),
  succeeds: Effect.scoped(Effect.zipRight(held("a"), ready)),
  fails: Effect.scoped(Effect.zipRight(held("a"), Effect.fail(new Error("no luck")))),
  slowRelease: Effect.scoped(Effect.zipRight(held("slow", Effect.sleep("800 millis")), waiting)),
  hungRelease: Effect.scoped(Effect.gen(function*() {
    yield* held("outer")
    yield* held("hung", Effect.never, { releaseDeadline: "300 millis" })
    yield* waiting
  })),
  unbounded: Effect.scoped(
    Effect.zipRight(held("for ever", Effect.never, { releaseDeadline: Infinity }), waiting)
  ),
  hungAcquire: Effect.scoped(Effect.zipRight(
    Managed.make({ name: "never open", acquire: Effect.zipRight(ready, Effect.never), release: () => Effect.void }),
    Effect.void
  )),
  brokenRelease: Effect.scoped(Effect.gen(function*() {
    yield* held("outer")
    yield* held("broken", Effect.die(new Error("release broke")))
    yield* waiting
  })),
  stray: Effect.scoped(Effect.zipRight(
    held("a"),
    Effect.zipRight(Effect.sync(() => setTimeout(() => { throw new Error("stray") }, 10)), Effect.never)
  )),
  rejection: Effect.scoped(Effect.zipRight(
    held("a"),
    Effect.zipRight(Effect.sync(() => void Promise.reject(new Error("unheard"))), Effect.never)
  )),
  // The daemon waits for something that does not keep the process alive.
  daemon: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    yield* Effect.forkDaemon(Managed.use(held("daemon", Effect.sleep("50 millis")), () => Effect.never))
    yield* Effect.sleep("20 millis")
    yield* ready
    if (process.argv[3] === "waits") yield* Effect.never
  })),
  brokenDaemon: Effect.gen(function*() {
    yield* Effect.forkDaemon(Effect.ensuring(Effect.never, Effect.dieMessage("the daemon's flush broke")))
    yield* Effect.sleep("20 millis")
  }),
  uninterruptible: Effect.scoped(Effect.zipRight(held("a"), Effect.uninterruptible(waiting))),
  thousand: Effect.scoped(Effect.gen(function*() {
    const quiet = (name, release) => Managed.make({ name, acquire: Effect.void, release: () => release, releaseDeadline: "500 millis" })
    // "long": the output is five times what a pipe holds.
    const isLong = process.argv[3] === "long"
    const released = Effect.sync(() => say(isLong ? `-${"x".repeat(300)}` : "-"))
    for (let n = 0; n < 500; n++) yield* quiet(`good ${n}`, released)
    yield* quiet("the hung one", Effect.never) // THE HUNG ONE
    for (let n = 500; n < 1000; n++) yield* quiet(`good ${n}`, released)
    if (isLong) process.kill(process.pid, "SIGTERM")
    yield* waiting
  })),
  hooks: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    yield* Shutdown.onDrain(Effect.flatMap(Shutdown.isReady, (isReady) => Effect.sync(() => say(`ready ${isReady}`))))
    yield* Shutdown.onStop(Effect.sync(() => say("stop")))
    yield* Shutdown.onStop(Effect.fail(new Error("no such room")))
    yield* Shutdown.onStop(Effect.never)
    yield* waiting
  })),
  delayed: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    yield* ready
    yield* Shutdown.requested
    yield* Effect.sleep("100 millis")
    say("still serving")
    yield* Effect.never
  })),
  inFlight: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    const answer = Effect.zipRight(Effect.sleep("300 millis"), Effect.sync(() => say("answered")))
    yield* Effect.fork(Shutdown.inFlight(answer))
    yield* waiting
  })),
  tooLong: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    for (let n = 0; n < 3; n++) {
      yield* Effect.fork(Shutdown.inFlight(Effect.never)) // IN FLIGHT
    }
    yield* Effect.fork(Effect.never.pipe(Shutdown.drains)) // DRAINS
    yield* Effect.yieldNow()
    yield* ready
    yield* Deferred.await(yield* Deferred.make())
  })),
  leaks: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    yield* Effect.sleep("500 millis")
    yield* waiting
  })),
  nothing: waiting,
  reported: Effect.scoped(Effect.gen(function*() {
    yield* held("hung", Effect.never, { releaseDeadline: "300 millis", onReleaseFailure: "report" })
    if (process.argv[3] === "waits") yield* waiting
  })),
  crowd: Effect.scoped(Effect.gen(function*() {
    const quiet = (name) => Managed.make({ name, acquire: Effect.void, release: () => Effect.void })
    for (let n = 0; n < 3000; n++) yield* quiet("connection")
    for (let n = 0; n < 60; n++) yield* quiet(`own ${n}`)
    yield* Managed.make({ name: "culprit", acquire: waiting, release: () => Effect.void })
  })),
  // As the callback of a server: on the default runtime.
  callback: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    const answer = Effect.delay(
      Effect.map(Shutdown.isReady, (isReady) => say(`answered, ready ${isReady}`)),
      "300 millis"
    )
    setTimeout(() => {
      void Effect.runPromise(Shutdown.inFlight(answer))
      say("ready")
    }, 10)
    yield* Effect.never
  })),
  // Two fibers with the entries that locks record: each holds the lock that the other waits for.
  deadlock: Effect.gen(function*() {
    const ledger = yield* Ledger.Ledger
    const holds = new Map()
    const both = (first, second) =>
      Effect.gen(function*() {
        const entry = ledger.unsafeAcquiring("mutex", first)
        ledger.unsafeHeld(entry)
        holds.set(first, entry)
        yield* Effect.yieldNow()
        ledger.unsafeAcquiring("mutex", second, { blockedBy: () => [holds.get(second)] })
        yield* Effect.never
      })
    yield* Effect.fork(both("one", "two"))
    yield* Effect.fork(both("two", "one"))
    yield* Effect.sleep("20 millis")
    yield* Effect.withSpan(Effect.scoped(Effect.zipRight(held("a"), waiting)), "a span")
  }),
  asksItself: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    yield* ready
    yield* Shutdown.request({ kind: "request", by: "the operator" })
    yield* Effect.never
  })),
  strayLater: Effect.scoped(Effect.zipRight(
    held("slow", Effect.zipRight(
      Effect.sync(() => setTimeout(() => { throw new Error("late stray") }, 10)),
      Effect.sleep("300 millis")
    )),
    waiting
  )),
  seesReason: Effect.scoped(Effect.gen(function*() {
    yield* Effect.addFinalizer(() => Effect.map(Shutdown.report, (report) => say(JSON.stringify(report.phases.map(({ phase }) => phase)))))
    yield* waiting
  })),
  drains: Effect.gen(function*() {
    const shutdown = yield* Shutdown.Shutdown
    yield* ready
    yield* shutdown.drains(Effect.zipRight(shutdown.requested, Effect.sleep("300 millis")))
    say("drained")
  }),
  // An item asks for the end, or the batch stops by a condition of its own.
  batch: Shutdown.drains(Batch.run(
    {
      name: "items",
      process: () => Effect.zipRight(
        process.argv[3] === "asks" ? Shutdown.request({ kind: "request", by: "an item" }) : Effect.void,
        Effect.sleep("5 millis")
      )
    },
    [1, 2],
    { concurrency: 1, drain: { when: process.argv[3] === "asks" ? Shutdown.requested : Effect.void } }
  )),
  drainsTooLong: Effect.gen(function*() {
    const shutdown = yield* Shutdown.Shutdown
    yield* shutdown.drains(Effect.scoped(Effect.zipRight(held("a"), waiting)))
  }),
  talks: Effect.scoped(Effect.gen(function*() {
    yield* held("a")
    for (let n = 0; n < 200; n++) {
      say(`line ${n}`)
      process.stderr.write(`note ${n}\n`)
      yield* Effect.sleep("1 millis")
    }
    fs.writeFileSync(process.argv[3], "whole")
  })),
  // Stock operators that do not wait for what they cut; the items commit all the same.
  shares: withA(Effect.forEach(
    [1, 2],
    (n) => {
      const commit = Effect.delay(Effect.sync(() => say(`commit ${n}`)), `${100 * n} millis`)
      const item = n === 2 ? Effect.zipRight(ready, commit) : commit
      return Effect.timeout(Effect.disconnect(Effect.uninterruptible(item)), "5 seconds")
    },
    { concurrency: 2 }
  )),
  // Releases at the next SIGHUP.
  untilHup: Effect.scoped(Effect.zipRight(
    held("slow", Effect.async((resume) => void process.once("SIGHUP", () => resume(Effect.void)))),
    waiting
  )),
  forceOnTerm: Effect.scoped(Effect.zipRight(held("slow", Effect.sleep("5 seconds")), waiting)),
  noLedger: Effect.scoped(Effect.zipRight(held("a"), waiting)),
  misfit: Effect.void,
  badOption: Effect.void,
  drained: Shutdown.drains(Effect.zipRight(ready, Shutdown.requested)),
  codeThrows: Effect.void,
  codeTooBig: Effect.fail("no luck"),
  daemonBreaks: Effect.zipRight(
    Effect.forkDaemon(Effect.scoped(Effect.zipRight(held("d", Effect.die(new Error("daemon broke"))), Effect.never))),
    Effect.zipRight(Effect.sleep("20 millis"), ready)
  ),
  strayAfter: Effect.sync(() => {
    ready.pipe(Effect.runSync)
    setTimeout(() => { throw new Error("late stray") }, 100)
  }),
  printRejects: Effect.scoped(Effect.zipRight(held("a"), waiting)),
  // The synchronous release comes first.
  computes: Effect.scoped(Effect.gen(function*() {
    yield* held("slow", Effect.sleep(process.argv[3] === "patient" ? "10 seconds" : "50 millis"), { releaseDeadline: Infinity })
    yield* held("index", computing(700))
    yield* waiting
  })),
  circularFailure: withA(Effect.suspend(() => Effect.fail(circular("no end")))),
  circularRelease: Effect.scoped(Effect.gen(function*() {
    yield* held("outer")
    yield* held("broken", Effect.suspend(() => Effect.die(circular("no end"))))
    yield* waiting
  })),
  circularHook: withA(Effect.zipRight(Shutdown.onStop(Effect.suspend(() => Effect.fail(circular("no end")))), waiting)),
  unreadable: withA(Effect.suspend(() =>
    Effect.fail(Object.defineProperty(new Error("hidden"), "message", { get: () => { throw new Error("no message") } }))
  )),
  isPrintedThrows: withA(Effect.fail(new Error("no luck"))),
  // A broken shutdown.
  brokenShutdown: Effect.scoped(Effect.gen(function*() {
    yield* held("hung", Effect.never, { releaseDeadline: "300 millis" })
    const shutdown = yield* Shutdown.Shutdown
    shutdown.unsafeReport = () => {
      throw circular("no report")
    }
    yield* waiting
  })),
  failureReported: Effect.scoped(Effect.zipRight(
    held("broken", Effect.die(new Error("release broke")), { onReleaseFailure: "report" }),
    process.argv[3] === "waits" ? waiting : ready
  )),
  ownLedger: Effect.provide(
    Effect.scoped(Effect.zipRight(
      held("hung", Effect.never, { releaseDeadline: "300 millis", onReleaseFailure: "report" }),
      waiting
    )),
    Ledger.layer()
  ),
  twice: withA(Effect.gen(function*() {
    try {
      Main.run(Effect.void)
    } catch (refusal) {
      say(`refused: ${refusal.message}`)
    }
    yield* waiting
  })),
  exits: withA(Effect.zipRight(ready, Effect.sync(() => process.exit(0)))),
  releaseExits: Effect.scoped(Effect.gen(function*() {
    yield* held("outer")
    yield* held("rude", Effect.sync(() => process.exit(process.argv[3] === "seven" ? 7 : 0)))
    yield* waiting
  })),
  asksForError: withA(Effect.gen(function*() {
    yield* ready
    const error = new Error("the queue is gone")
    yield* Shutdown.request({ kind: "error", error })
    yield* process.argv[3] === "fails" ? Effect.uninterruptible(Effect.fail(error)) : Effect.never
  })),
  manyFibers: Effect.gen(function*() {
    for (let n = 0; n < 200; n++) yield* Effect.fork(Effect.never)
    yield* Effect.sleep("20 millis")
    yield* waiting
  }),
  forges: Effect.scoped(Effect.gen(function*() {
    yield* held("\u001b[31mred\nSIGTERM: 5 released; exit 0.", Effect.die(new Error("\u001b[2J")), { onReleaseFailure: "report" })
    yield* waiting
  })),
  // Names with control characters, in messages of our own and of the program's.
  forgesErrors: Effect.scoped(Effect.gen(function*() {
    yield* held("\u009b31m\nSIGTERM: 5 released; exit 0.", Effect.never, { releaseDeadline: "200 millis" })
    yield* held("b", Effect.die(new Error("\u001b[2J\u009b2J\nSIGTERM: 6 released; exit 0.")))
    yield* Effect.forkDaemon(Effect.ensuring(Effect.never, Effect.dieMessage("\u009b3J\nSIGTERM: 7 released; exit 0.")))
    yield* Effect.yieldNow()
    yield* waiting
  })),
  logs: Effect.provide(withA(waiting), Logger.json),
  logsFailure: Effect.provide(Effect.zipRight(Effect.sleep("1200 millis"), Effect.fail(new Error("no luck"))), Logger.json),
  loggerThrows: Effect.provide(withA(waiting), Logger.replace(Logger.defaultLogger, Logger.make(() => {
    throw new Error("no disk")
  }))),
  interruptsAll: withA(Effect.gen(function*() {
    yield* ready
    for (const fiber of Fiber.unsafeRoots()) fiber.unsafeInterruptAsFork(fiber.id())
    yield* Effect.never
  })),
  codeIsNone: Effect.void,
  leftHandle: Effect.sync(() => void setInterval(() => {}, 1000)),
  ownCode: Effect.succeed(7)
}
const ledgerFile = process.argv.find((word) => word.startsWith("--ledger="))
const is = (name) => process.argv[2] === name
Main.run(programs[process.argv[2]], {
  shutdown: {
    drainDelay: is("delayed") ? "300 millis" : is("misfit") ? "4 seconds" : is("badOption") ? "5 secs" : 0,
    stopTimeout: is("drains") ? "1 minute" : "600 millis",
    releaseTimeout: process.argv[3] === "patient" ? "30 seconds" : "1500 millis",
    total: is("drains") ? Infinity : process.argv[3] === "patient" ? "1 minute" : "5 seconds"
  },
  ...is("thousand") ? { ledger: { sites: "first", history: 10 } } : {},
  ...is("leaks") ? { ledger: { leakAfter: process.argv[3] === "off" ? 0 : "200 millis" } } : {},
  ...ledgerFile === undefined ? {} : { ledger: { file: ledgerFile.slice("--ledger=".length) } },
  ...is("forceOnTerm") ? { forceOn: ["SIGINT", "SIGTERM"] } : {},
  ...is("printRejects") ? { print: async (line) => { process.stderr.write(`${line}\n`); throw new Error("print") } } : {},
  ...is("noLedger") || process.argv.includes("noLedger") ? { ledger: false } : {},
  ...is("isPrintedThrows") ? { isPrinted: () => { throw new Error("not mine") } } : {},
  exitCode: (exit, _, report) => {
    if (is("codeThrows")) throw new Error("no code for this")
    if (is("codeIsNone")) return 1.5
    if (is("codeTooBig")) return 256
    if (is("drained")) return report.reason === undefined ? undefined : 75
    return is("ownCode") && Exit.isSuccess(exit) ? exit.value : undefined
  }
})
