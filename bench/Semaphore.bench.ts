/** The cost of a permit, uncontended and in a crowd: ours, Effect's own, and the promise libraries that do the same. */
import { Mutex as AsyncMutex } from "async-mutex"
import { Sema } from "async-sema"
import { Effect } from "effect"
import { Semaphore } from "holdfast"
import pLimit from "p-limit"
import type { Suite } from "./run.ts"

const one = Semaphore.unsafeMake(1)
const three = Semaphore.unsafeMake(3)
const theirs = Effect.unsafeMakeSemaphore(1)
const mutex = new AsyncMutex()
const sema = new Sema(1)
const limit = pLimit(1)
const operations = 10_000

const loop = (effect: Effect.Effect<unknown>) => () => {
  let done = 0
  return Effect.runPromise(
    Effect.whileLoop({ while: () => done < operations, body: () => effect, step: () => done++ })
  )
}

const alone: Suite = {
  title: "An uncontended permit",
  operations,
  contenders: {
    "Semaphore.withPermit": loop(Semaphore.withPermit(Effect.void, one)),
    "Semaphore.withPermits, three of them": loop(Semaphore.withPermits(Effect.void, three, 3)),
    "Effect.Semaphore": loop(theirs.withPermits(1)(Effect.void)),
    "async-sema": async () => {
      for (let i = 0; i < operations; i++) {
        await sema.acquire()
        sema.release()
      }
    },
    "p-limit": async () => {
      for (let i = 0; i < operations; i++) await limit(() => {})
    },
    "the loop alone": loop(Effect.void)
  }
}

const fibers = (size: number, effect: Effect.Effect<unknown>) => () =>
  Effect.runPromise(
    Effect.forEach(Array.from({ length: size }), () => effect, {
      concurrency: "unbounded",
      discard: true
    })
  )
const promises = (size: number, run: () => Promise<unknown>) => () =>
  Promise.all(Array.from({ length: size }, run))

const crowd = (size: number): Suite => ({
  title: `${size} at once for one permit, each holds on across one yield`,
  operations: size,
  contenders: {
    "Semaphore.withPermit": fibers(size, Semaphore.withPermit(Effect.yieldNow(), one)),
    // From a thousand waiters on it takes seconds and gigabytes.
    ...(size > 100
      ? {}
      : { "Effect.Semaphore": fibers(size, theirs.withPermits(1)(Effect.yieldNow())) }),
    "async-mutex": promises(size, () => mutex.runExclusive(() => Promise.resolve())),
    "fork and yield alone": fibers(size, Effect.yieldNow())
  }
})

export default [alone, crowd(100), crowd(1_000), crowd(10_000)]
