// One program per argument, run by Main.run in a child process; test/Main.test.ts drives it with real signals.
import { Effect, Exit } from "effect"
import { Managed, Shutdown } from "holdfast"
import * as Main from "holdfast/Main"
import * as fs from "node:fs"

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
  drains: Effect.gen(function*() {
    const shutdown = yield* Shutdown.Shutdown
    yield* ready
    yield* shutdown.drains(Effect.zipRight(shutdown.requested, Effect.sleep("300 millis")))
    say("drained")
  }),
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
  codeThrows: Effect.void,
  codeIsNone: Effect.void,
  leftHandle: Effect.sync(() => void setInterval(() => {}, 1000)),
  ownCode: Effect.succeed(7)
}
Main.run(programs[process.argv[2]], {
  drain: process.argv[2] === "drains" ? Infinity : "600 millis",
  release: "1500 millis",
  exitCode: (exit) => {
    if (process.argv[2] === "codeThrows") throw new Error("no code for this")
    if (process.argv[2] === "codeIsNone") return 1.5
    return process.argv[2] === "ownCode" && Exit.isSuccess(exit) ? exit.value : undefined
  }
})
