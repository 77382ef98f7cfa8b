// Several programs in one process, one after the other, each by Main.run with `onExit`. Prints one line of JSON for each;
// test/Main.test.ts reads them.
import { Deferred, Effect } from "effect"
import { Managed, Shutdown } from "holdfast"
import * as Main from "holdfast/Main"

setTimeout(() => process.kill(process.pid, "SIGKILL"), 25_000).unref()

const events = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2", "exit", "uncaughtException", "unhandledRejection"]
const listeners = () => [
  ...events.map((event) => process.listenerCount(event)),
  process.stdout.listenerCount("error"),
  process.stderr.listenerCount("error")
].join()
const signal = (name, millis) => Effect.sync(() => void setTimeout(() => process.kill(process.pid, name), millis))
const held = (release) => Managed.make({ name: "a", acquire: Effect.void, release: () => release, releaseDeadline: "1 minute" })

const before = listeners()
const run = async (program, options) => {
  const lines = []
  let during
  // As a callback of a server asks, outside of the program.
  let isReady
  const watched = Effect.zipRight(
    Effect.promise(async () => {
      isReady = await Effect.runPromise(Shutdown.isReady)
      during = listeners()
    }),
    program
  )
  const code = await new Promise((resolve) => {
    Main.run(watched, { print: (line) => void lines.push(line), onExit: resolve, ...options })
  })
  const said = { code, isReady, listened: during !== before, left: listeners() !== before, lines: lines.length }
  process.stdout.write(`${JSON.stringify(said)}\n`)
}

await run(Effect.scoped(Effect.zipRight(held(Effect.void), Effect.zipRight(signal("SIGTERM", 0), Effect.never))))
await run(Effect.succeed("done"))
await run(Effect.zipRight(signal("SIGHUP", 0), Effect.never))
const letGo = Deferred.unsafeMake()
const release = Deferred.await(letGo)
await run(
  Effect.scoped(Effect.zipRight(
    held(release),
    Effect.zipRight(signal("SIGTERM", 0), Effect.zipRight(signal("SIGINT", 100), Effect.never))
  )),
  { forceAfter: 10 }
)
// The one that was forced still runs.
try {
  Main.run(Effect.void)
} catch (refusal) {
  process.stdout.write(`${refusal.message}\n`)
}
Deferred.unsafeDone(letGo, Effect.void)
await new Promise((resolve) => setTimeout(resolve, 50))
await run(Effect.fail("no luck"))
process.exitCode = 7
