/** The cost of an uncontended lock: ours with and without its extras, Effect's own, and the promise lock. */
import { Mutex as AsyncMutex } from "async-mutex"
import { Effect, Scope } from "effect"
import { Mutex, RwLock, Shared } from "holdfast"
import type { Suite } from "./run.ts"

const operations = 10_000

const loop = (effect: Effect.Effect<unknown, unknown>) => () => {
  let done = 0
  return Effect.runPromise(
    Effect.whileLoop({ while: () => done < operations, body: () => effect, step: () => done++ })
  )
}

const mutex = Mutex.unsafeMake()
const unaware = Mutex.unsafeMake({ detectReentry: false })
const keyed = Effect.runSync(Mutex.makeKeyed<number>())
const theirs = Effect.unsafeMakeSemaphore(1).withPermits(1)
const asynchronous = new AsyncMutex()
const nothing = () => {}

const suite: Suite = {
  title: "An uncontended lock",
  operations,
  contenders: {
    "Mutex.withLock": loop(Mutex.withLock(Effect.void, mutex)),
    "Mutex.withLock, no detection": loop(Mutex.withLock(Effect.void, unaware)),
    "Mutex.withLock, bounded": loop(
      Mutex.withLock(Effect.void, mutex, { acquireTimeout: "1 second" })
    ),
    "Mutex.withLockKey": loop(Mutex.withLockKey(Effect.void, keyed, 1)),
    "Mutex.get in a scope": loop(Effect.scoped(Mutex.get(mutex))),
    "Effect.Semaphore": loop(theirs(Effect.void)),
    "async-mutex": async () => {
      for (let i = 0; i < operations; i++) await asynchronous.runExclusive(nothing)
    },
    "the loop alone": loop(Effect.void)
  }
}

const lock = RwLock.unsafeMake()
const blind = RwLock.unsafeMake({ detectReentry: false })

const readers: Suite = {
  title: "An uncontended reader-writer lock",
  operations,
  contenders: {
    "RwLock.withRead": loop(RwLock.withRead(Effect.void, lock)),
    "RwLock.withRead, no detection": loop(RwLock.withRead(Effect.void, blind)),
    "RwLock.withWrite": loop(RwLock.withWrite(Effect.void, lock)),
    "RwLock.withWriteDowngraded": loop(
      RwLock.withWriteDowngraded(Effect.void, lock, () => Effect.void)
    )
  }
}

const resource = Effect.acquireRelease(Effect.void, () => Effect.void)
const use = () => Effect.void
// Never closed: it lives as long as the process.
const forEver = Effect.provideService(Scope.Scope, Effect.runSync(Scope.make()))
const lasting = Effect.runSync(
  forEver(Shared.make({ name: "lasting", acquire: resource, idleTimeToLive: "1 hour" }))
)
const brief = Effect.runSync(forEver(Shared.make({ name: "brief", acquire: resource })))

const shared: Suite = {
  title: "An instance with one user",
  operations,
  contenders: {
    "Shared.use": loop(Shared.use(lasting, use)),
    "Shared.get in a scope": loop(Effect.scoped(Shared.get(lasting))),
    "Shared.use, opened and released each time": loop(Shared.use(brief, use))
  }
}

export default [suite, readers, shared]
