import { Effect, Exit } from "effect"
import { Parallel, Pool } from "holdfast"
import { Worker } from "node:worker_threads"

const code = `const { parentPort } = require("node:worker_threads")
parentPort.on("message", (n) => parentPort.postMessage(n * n))`

const acquire = Effect.acquireRelease(
  Effect.sync(() => new Worker(code, { eval: true })),
  (worker) => Effect.promise(() => worker.terminate())
)
const ask = (worker, n) =>
  Effect.async((resume) => {
    worker.once("message", (answer) => resume(Effect.succeed(answer)))
    worker.postMessage(n)
  })

const program = Effect.gen(function*() {
  const pool = yield* Pool.make({
    acquire,
    max: 2,
    // A longer wait fails with `PoolTimeout`.
    acquireTimeout: "5 seconds",
    // The worker of an interrupted user still computes: it is replaced.
    invalidateOn: Exit.isInterrupted
  })
  const square = (n) => Pool.use(pool, (worker) => ask(worker, n))
  return yield* Parallel.forEach([1, 2, 3, 4], square, { concurrency: 4 })
})
console.log(await Effect.runPromise(Effect.scoped(program)))
