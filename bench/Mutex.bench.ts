/** What a lock costs, alone and in a crowd: ours, Effect's own, and the promise libraries that do the same. */
import { Effect } from "effect"
import * as Mutex from "holdfast/Mutex"
import type { Suite } from "./run.ts"

/** A promise library that need not be installed: without it the row is missing, and a line says so. */
const rival = async <M>(
  name: string,
  contenders: (module: M) => Suite["contenders"]
): Promise<Suite["contenders"]> => {
  try {
    return contenders(await import(/* @vite-ignore */ name) as M)
  } catch {
    console.log(`${name} is not installed: its rows are missing`)
    return {}
  }
}

interface AsyncMutex {
  readonly Mutex: new() => { readonly runExclusive: (f: () => unknown) => Promise<unknown> }
}

const loop = (operations: number, effect: Effect.Effect<unknown, unknown>) => () => {
  let done = 0
  return Effect.runPromise(
    Effect.whileLoop({ while: () => done < operations, body: () => effect, step: () => done++ })
  )
}

/** So many fibers at once; each of them waits in line, then holds on across one yield. */
const crowd = (size: number, effect: Effect.Effect<unknown, unknown>) => () =>
  Effect.runPromise(
    Effect.forEach(Array.from({ length: size }), () => effect, {
      concurrency: "unbounded",
      discard: true
    })
  )

const operations = 10_000
const mutex = Mutex.unsafeMake()
const unaware = Mutex.unsafeMake({ detectReentry: false })
const keyed = Effect.runSync(Mutex.makeKeyed<number>())
const theirs = Effect.unsafeMakeSemaphore(1).withPermits(1)
const nothing = () => {}

const alone: Suite = {
  title: "A lock that nobody else wants",
  operations,
  contenders: {
    "Mutex.withLock": loop(operations, Mutex.withLock(mutex, Effect.void)),
    "Mutex.withLock, no detection": loop(operations, Mutex.withLock(unaware, Effect.void)),
    "Mutex.withKey": loop(operations, Mutex.withKey(keyed, 1, Effect.void)),
    "Effect.Semaphore": loop(operations, theirs(Effect.void)),
    "the loop alone": loop(operations, Effect.void),
    ...await rival<AsyncMutex>("async-mutex", ({ Mutex }) => {
      const mutex = new Mutex()
      return {
        "async-mutex": async () => {
          for (let i = 0; i < operations; i++) await mutex.runExclusive(nothing)
        }
      }
    })
  }
}

const crowded = async (size: number, withEffect: boolean): Promise<Suite> => ({
  title: `${size} fibers at once, each holds on across one yield`,
  operations: size,
  contenders: {
    "Mutex.withLock": crowd(size, Mutex.withLock(mutex, Effect.yieldNow())),
    ...withEffect ? { "Effect.Semaphore": crowd(size, theirs(Effect.yieldNow())) } : {},
    "fork and yield alone": crowd(size, Effect.yieldNow()),
    ...await rival<AsyncMutex>("async-mutex", ({ Mutex }) => {
      const mutex = new Mutex()
      return {
        "async-mutex": () =>
          Promise.all(
            Array.from({ length: size }, () => mutex.runExclusive(() => Promise.resolve()))
          )
      }
    })
  }
})

// Effect's own takes seconds and gigabytes from a thousand waiters on; it is shown where it can be shown.
export default [alone, await crowded(100, true), await crowded(1_000, false), await crowded(10_000, false)]
