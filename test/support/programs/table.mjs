// One program per row of the process table, on either runner: `node table.mjs holdfast|raw <program> [<log>]`. The raw side is what
// people write today: NodeRuntime.runMain and Effect.acquireRelease. test/Main.table.slow.test.ts drives both with real signals.
// Lines on standard output: `?x` x is being acquired, `+x` it is held, `-x` it is released, `=x` x is done, `ready` the signals may come,
// `exit 0` the process ends by itself with that code (under npm only the program knows).
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import * as http from "node:http"

// The log gets the lines too: a terminal may close.
const [, , runner, name, log] = process.argv
const isOurs = runner === "holdfast"
// Each side loads what it needs, as its own program would.
const { Batch, Main, Managed, NodeRuntime, Shutdown } = isOurs
  ? {
    Batch: await import("holdfast/Batch"),
    Main: await import("holdfast/Main"),
    Managed: await import("holdfast/Managed"),
    Shutdown: await import("holdfast/Shutdown")
  }
  : { NodeRuntime: await import("@effect/platform-node/NodeRuntime") }

const say = (line) => {
  if (log !== undefined) fs.appendFileSync(log, `${line}\n`)
  process.stdout.write(`${line}\n`)
}
// Not in the first step: runMain listens for signals only after that (`firstStep` shows it).
const ready = Effect.zipRight(Effect.sleep("1 millis"), Effect.sync(() => say("ready")))
const waiting = Effect.zipRight(ready, Effect.never)

/** A resource that reports its acquire and release. */
const held = (resource, release = Effect.void, open = Effect.void, releaseDeadline = "1 second") => {
  const acquire = Effect.suspend(() => {
    say(`?${resource}`)
    return Effect.tap(open, () => say(`+${resource}`))
  })
  const letGo = (value) =>
    Effect.zipRight(
      Effect.suspend(() => Effect.isEffect(release) ? release : release(value)),
      Effect.sync(() => say(`-${resource}`))
    )
  return isOurs
    ? Managed.make({ name: resource, acquire, release: letGo, releaseDeadline })
    : Effect.acquireRelease(acquire, letGo)
}
const slowUpload = held("slow-upload", Effect.sleep("1500 millis"), Effect.void, "5 seconds")
/** The inner one is released first. */
const inside = (inner, body = waiting) =>
  Effect.scoped(Effect.zipRight(Effect.zipRight(held("outer-db"), inner), body))
const later = (f) => Effect.sync(() => void setTimeout(f, 10))
const throwLater = later(() => {
  throw new Error("a stray throw")
})
// An object without a prototype, such as `import()` or `querystring` gives.
const throwOddLater = later(() => {
  throw Object.create(null)
})
const rejectLater = later(() => void Promise.reject(new Error("an unheard rejection")))
/** Work in flight that reports its end. Raw has no mark for it. */
const draining = (rest) => {
  const work = inside(
    held("batch-job"),
    Effect.zipRight(ready, Effect.zipRight(rest, Effect.sync(() => say("=whole"))))
  )
  return isOurs ? Shutdown.drains(work) : work
}
/** Two items at once. Ours stops after those that run; raw has no such stop. */
const batch = (items) => {
  const process = (n) => Effect.delay(Effect.sync(() => say(`=item-${n}`)), "300 millis")
  const running = isOurs
    ? Shutdown.drains(Batch.run({ name: "items", process }, items, {
      concurrency: 2,
      drain: { when: Shutdown.requested }
    }))
    : Effect.forEach(items, process, { concurrency: 2 })
  return inside(held("batch-job"), Effect.zipRight(Effect.fork(ready), running))
}
/**
 * A stock operator over one session, with a time limit for each item that does not wait for what it cuts. The items cannot be cut: they
 * commit after the interrupt, and say whether the session was open.
 */
const stockForEach = () => {
  let isOpen = true
  const session = held("db-session", Effect.sync(() => void (isOpen = false)))
  const commit = (n) =>
    Effect.uninterruptible(Effect.delay(
      Effect.sync(() => say(isOpen ? `=item-${n}` : `=late-${n}`)),
      `${150 * n} millis`
    ))
  const items = Effect.forEach(
    [1, 2, 3],
    (n) => Effect.timeout(Effect.disconnect(commit(n)), "5 seconds"),
    { concurrency: 3, discard: true }
  )
  return Effect.scoped(Effect.zipRight(
    held("outer-db", Effect.sleep("700 millis")),
    Effect.scoped(Effect.zipRight(session, Effect.zipRight(Effect.fork(ready), items)))
  ))
}
/** A daemon that holds a socket. It waits for something that does not keep the process alive (a queue, a message). */
const daemon = (release) => Effect.flatMap(Deferred.make(), (isHeld) =>
  Effect.zipRight(
    Effect.forkDaemon(Effect.scoped(Effect.zipRight(
      held("daemon-socket", release),
      Effect.zipRight(Deferred.succeed(isHeld, undefined), Effect.async(() => {}))
    ))),
    Deferred.await(isHeld)
  ))
/** A server whose only client never closes its event stream. */
const server = held(
  "http-server",
  (listening) => Effect.async((resume) => void listening.close(() => resume(Effect.void))),
  Effect.async((resume) => {
    const listening = http.createServer((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      response.write("data: hello\n\n")
    })
    listening.listen(0, "127.0.0.1", () => resume(Effect.succeed(listening)))
  })
)
const openStream = (listening) =>
  Effect.async((resume) => {
    http.get({ host: "127.0.0.1", port: listening.address().port }, (response) =>
      response.once("data", () => resume(Effect.void)))
  })
// Synchronous: nothing else of the process runs meanwhile.
const computing = Effect.sync(() => {
  for (const until = Date.now() + 700; Date.now() < until;);
})
const good = Array.from({ length: 1000 }, (_, n) => `good-${n}`)

const programs = {
  succeeds: inside(held("user-cache"), ready),
  fails: inside(held("user-cache"), Effect.zipRight(ready, Effect.fail(new Error("no luck")))),
  clean: inside(held("user-cache")),
  cleanOnQuit: inside(held("user-cache")),
  hungRelease: inside(held("hung-queue", Effect.never)),
  unboundedRelease: inside(held("hung-queue", Effect.never, Effect.void, Infinity)),
  hungAcquire: inside(held("hung-vault", Effect.void, Effect.zipRight(ready, Effect.never))),
  slowRelease: inside(slowUpload),
  computingRelease: inside(
    Effect.zipRight(held("slow-upload", Effect.sleep("200 millis")), held("search-index", computing))
  ),
  failingRelease: inside(held("broken-cache", Effect.die(new Error("the flush broke")))),
  stray: inside(held("user-cache"), Effect.zipRight(throwLater, waiting)),
  rejection: inside(held("user-cache"), Effect.zipRight(rejectLater, waiting)),
  strayObject: inside(held("user-cache"), Effect.zipRight(throwOddLater, waiting)),
  firstStep: inside(
    held("user-cache"),
    Effect.zipRight(
      Effect.sync(() => {
        say("ready")
        for (const until = Date.now() + 300; Date.now() < until;);
      }),
      Effect.never
    )
  ),
  daemonSuccess: inside(daemon(Effect.sleep("50 millis")), ready),
  daemonWaits: inside(daemon(Effect.sleep("50 millis"))),
  uninterruptible: inside(held("user-cache"), Effect.uninterruptible(waiting)),
  amongAThousand: Effect.scoped(Effect.gen(function*() {
    for (const resource of good.slice(0, 500)) yield* held(resource)
    const hung = held("hung-queue", Effect.never)
    yield* hung // THE HUNG ONE
    for (const resource of good.slice(500)) yield* held(resource)
    yield* waiting
  })),
  drains: draining(Effect.sleep("700 millis")),
  batch: batch(Array.from({ length: 100 }, (_, n) => n + 1)),
  lastItem: batch([1]),
  stockForEach: stockForEach(),
  drainsTooLong: draining(Effect.never),
  // Failures during another end.
  strayInRelease: inside(held("slow-upload", Effect.zipRight(throwLater, Effect.sleep("500 millis")))),
  hungDaemon: inside(daemon(Effect.never), ready),
  eventStream: Effect.scoped(Effect.zipRight(
    held("outer-db"),
    Effect.flatMap(server, (listening) => Effect.zipRight(openStream(listening), waiting))
  ))
}

process.on("exit", (code) => say(`exit ${code}`))
const program = programs[name]
if (isOurs) {
  Main.run(program, {
    shutdown: { stopTimeout: "2 seconds", releaseTimeout: "3 seconds", total: "5 seconds" },
    ...name === "cleanOnQuit" ? { signals: ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] } : {}
  })
} else {
  NodeRuntime.runMain(program)
}
