/**
 * Our own primitives as subjects: each alone, and each with somebody in the way. The explorer finds nothing in them, at any
 * grade, and every order of the contended ones ends alike.
 */
import {
  Clock,
  Deferred,
  Effect,
  Fiber,
  identity,
  Request,
  RequestResolver,
  type Scope
} from "effect"
import { Batch, Ledger, Lock, Managed, Nursery, Parallel, Semaphore } from "holdfast"
import * as Mutex from "holdfast/Mutex"
import * as Pool from "holdfast/Pool"
import * as Control from "holdfast/Pool/Control"
import * as SharedPool from "holdfast/Pool/Shared"
import * as RateLimiter from "holdfast/RateLimiter"
import * as RwLock from "holdfast/RwLock"
import * as Shared from "holdfast/Shared"
import { Explore, type Probe } from "holdfast/Testing"
import { withoutFrames } from "../internal/frames.ts"
import { exitStacks } from "./exitStack.ts"
import { managed } from "./lifecycle.ts"
import { alone, type Own } from "./own.ts"

export type { Own }

/** A slow release is waited for here; that one past its deadline is abandoned by name is Managed-3's. */
const patient = { releaseDeadline: Infinity }

const resource = (probe: Probe.Probe, options?: Probe.Options) =>
  Managed.make({
    name: "r",
    acquire: probe.acquire("r", options),
    release: (handle) => probe.release(handle, options),
    ...patient
  })

class Get extends Request.TaggedClass("Get")<number, never, { readonly id: number }> {}

const gets = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) =>
  Effect.zipRight(
    Effect.sleep(1),
    Effect.forEach(requests, (request) => Request.succeed(request, request.id), { discard: true })
  )
)

type Use = Effect.Effect<unknown, unknown, Scope.Scope>

/** Two users at once; the second is awaited. */
const both = (one: Use, two: Use): Use =>
  Effect.gen(function*() {
    const first = yield* Effect.forkScoped(one)
    const second = yield* Effect.forkScoped(two)
    yield* Fiber.join(second)
    yield* Fiber.join(first)
  })

/** Another one is before us: this one waits. */
const behind = (holder: Use, use: Use): Use =>
  Effect.zipRight(
    Effect.forkScoped(Effect.zipRight(holder, Effect.void)),
    Effect.zipRight(Effect.yieldNow(), use)
  )

const turn = Effect.yieldNow()
const hold = Effect.sleep(5)

/** The explorer provides a ledger of its own: what goes another way where nobody looks is explored without it as well. */
const unrecorded = <S>({ body, name, ...rest }: Explore.Subject<S>): Explore.Subject<S> => ({
  ...rest,
  name: `${name}, no ledger`,
  body: (state, probe) => Effect.provideService(body(state, probe), Ledger.Ledger, undefined)
})

const masked = ({ interruptions, name, replay }: Own): Own => ({
  name: `${name}, in a mask`,
  interruptions: withoutFrames(interruptions),
  interleavings: undefined,
  replay: withoutFrames(replay)
})

/** The same use alone, behind a holder, and beside another; the first two also where nobody looks, and in a mask. */
const contended = <S>(
  name: string,
  setup: Exclude<Explore.Subject<S>["setup"], undefined>,
  use: (state: S, body: Effect.Effect<void>) => Use,
  settings: Pick<Explore.Subject<S>, "invariant"> = {}
): ReadonlyArray<Own> => {
  const waiting: Explore.Subject<S> = {
    ...settings,
    name: `${name}, waiting`,
    setup,
    body: (state) => behind(use(state, hold), use(state, turn))
  }
  const beside: Explore.Subject<S> = {
    ...settings,
    name: `${name}, beside`,
    setup,
    body: (state) => both(use(state, turn), use(state, turn))
  }
  const trio: Explore.Subject<S> = {
    ...settings,
    name: `${name}, three at once`,
    setup,
    body: (state) => both(use(state, turn), both(use(state, turn), use(state, turn)))
  }
  const undisturbed: Explore.Subject<S> = {
    ...settings,
    name,
    setup,
    body: (state) => use(state, turn)
  }
  return [
    alone(undisturbed),
    alone(unrecorded(undisturbed)),
    masked(alone(undisturbed)),
    alone(waiting),
    alone(unrecorded(waiting)),
    masked(alone(unrecorded(waiting))),
    {
      ...alone(beside),
      interleavings: (options) => Explore.interleavings(beside, options),
      trio: (options) => Explore.interleavings(trio, options)
    }
  ]
}

/** Nobody uses it, so nothing is kept. */
const isVacant = (shared: Shared.Shared<unknown, unknown>): boolean =>
  Effect.runSync(Shared.stats(shared)).state === "none"

/** Whoever is behind the one that is interrupted must not be forgotten. */
const inTheMiddle = (name: string, make: Effect.Effect<(body: Effect.Effect<void>) => Use>): Own =>
  alone({
    name: `${name}, in the middle of a line`,
    setup: make,
    body: (use) =>
      Effect.gen(function*() {
        // Nobody's children: what becomes of the one in the middle must not end the others.
        yield* Effect.forkDaemon(Effect.scoped(use(hold)))
        yield* Effect.yieldNow()
        yield* Effect.forkDaemon(Effect.scoped(Effect.zipRight(Effect.yieldNow(), use(turn))))
        yield* use(turn)
      }),
    after: (use) => use(turn)
  })

interface Guarded {
  open: boolean
  usedAfterRelease: number
}

/** Items that use a shared resource to their end, and tell if it was gone by then. */
const sharing = (
  name: string,
  run: (item: (n: number) => Effect.Effect<void>) => Effect.Effect<unknown, unknown>,
  around: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E> = identity
): Own =>
  alone({
    name: `${name}, sharing a resource`,
    setup: Effect.sync((): Guarded => ({ open: false, usedAfterRelease: 0 })),
    body: (state) =>
      around(Managed.use(
        Managed.make({
          name: "shared by all",
          acquire: Effect.sync(() => {
            state.open = true
          }),
          release: () =>
            Effect.sync(() => {
              state.open = false
            })
        }),
        () =>
          run((n) =>
            Effect.uninterruptible(Effect.zipRight(
              Effect.sleep(n),
              Effect.sync(() => {
                if (!state.open) state.usedAfterRelease++
              })
            ))
          )
      )),
    invariant: (state) => state.usedAfterRelease === 0
  })

interface BetweenReaders {
  readonly lock: RwLock.RwLock
  /** In milliseconds. */
  writerGone: number
  readerIn: number
}

export const ours: ReadonlyArray<Own> = [
  alone({
    name: "Managed in a scope",
    body: (_, probe) => Effect.zipRight(resource(probe), Effect.sleep(1))
  }),
  alone({
    name: "Managed.use, slow",
    body: (_, probe) =>
      Managed.use(resource(probe, { acquireTakes: 5, releaseTakes: 5 }), () => hold)
  }),
  ...contended(
    "Semaphore.withPermit",
    Semaphore.make(1),
    (semaphore, body) => Semaphore.withPermit(semaphore)(body),
    { invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1 }
  ),
  ...contended(
    "Mutex.withLock",
    Mutex.make(),
    (mutex, body) => Mutex.withLock(mutex)(body)
  ),
  ...contended(
    "KeyedMutex.withLockKeys",
    Mutex.makeKeyed<string>(),
    (mutex, body) => Mutex.withLockKeys(mutex, ["a", "b"])(body),
    { invariant: (mutex) => Effect.runSync(Mutex.size(mutex)) === 0 }
  ),
  ...contended(
    "RwLock.withWrite",
    RwLock.make(),
    (lock, body) => RwLock.withWrite(lock)(body)
  ),
  ...contended(
    "RwLock.withRead beside a writer",
    RwLock.make(),
    (lock, body) => both(RwLock.withWrite(lock)(turn), RwLock.withRead(lock)(body))
  ),
  ...contended(
    "Pool.use",
    (probe) => Pool.make({ ...patient, acquire: resource(probe), max: 1 }),
    (pool, body) => Pool.use(pool, () => body)
  ),
  ...contended(
    "Pool.use, slow opening",
    (probe) =>
      Pool.make({
        ...patient,
        acquire: resource(probe, { acquireTakes: 3, releaseTakes: 3 }),
        max: 2
      }),
    (pool, body) => Pool.use(pool, () => body)
  ),
  ...contended(
    "Pool.get",
    (probe) => Pool.make({ ...patient, acquire: resource(probe), max: 1 }),
    (pool, body) => Effect.scoped(Effect.zipRight(Pool.get(pool), body))
  ),
  ...contended(
    "Shared.use",
    (probe) => Shared.make({ name: "shared", acquire: resource(probe) }),
    (shared, body) => Shared.use(shared, () => body),
    { invariant: isVacant }
  ),
  ...contended(
    "Shared.get",
    (probe) => Shared.make({ name: "shared", acquire: resource(probe) }),
    (shared, body) => Effect.scoped(Effect.zipRight(Shared.get(shared), body)),
    { invariant: isVacant }
  ),
  ...contended(
    "Shared.useKey",
    (probe) =>
      Shared.makeKeyed({
        ...patient,
        name: "keyed",
        acquire: (key: string) => Effect.as(resource(probe), key)
      }),
    (shared, body) => Shared.useKey(shared, "key", () => body),
    { invariant: (shared) => Effect.runSync(Shared.size(shared)) === 0 }
  ),
  ...contended(
    "Shared.use, slow",
    (probe) =>
      Shared.make({
        name: "shared",
        acquire: resource(probe, { acquireTakes: 3, releaseTakes: 3 })
      }),
    (shared, body) => Shared.use(shared, () => body),
    { invariant: isVacant }
  ),
  ...contended(
    "Lock.withLock",
    Lock.makeMemory,
    (service, body) => Effect.provideService(Lock.withLock("key")(body), Lock.Lock, service)
  ),
  alone({
    name: "Parallel.forEach",
    body: (_, probe) =>
      Effect.zipRight(
        resource(probe),
        Parallel.forEach([1, 2, 3], (n) => Effect.sleep(n), { concurrency: 2 })
      )
  }),
  alone({
    name: "Parallel.all, one fails",
    body: (_, probe) =>
      Effect.zipRight(
        resource(probe),
        Effect.exit(Parallel.all([hold, Effect.zipRight(turn, Effect.fail("no"))], {
          concurrency: "unbounded"
        }))
      )
  }),
  alone({
    name: "Parallel.forEach, batching",
    body: (_, probe) =>
      Parallel.forEach(
        [1, 2, 3],
        (id) => Managed.use(resource(probe), () => Effect.request(new Get({ id }), gets)),
        { concurrency: 2, batching: true }
      )
  }),
  alone({
    name: "Parallel.race",
    body: (_, probe) =>
      Parallel.race(
        Managed.use(resource(probe), () => Effect.sleep(1)),
        Managed.use(resource(probe), () => Effect.sleep(2))
      )
  }),
  alone({
    name: "Batch.run",
    body: (_, probe) =>
      Effect.zipRight(
        resource(probe),
        Batch.run(
          { name: "job", process: (n: number) => Effect.sleep(n) },
          [1, 2, 3],
          { concurrency: 2 }
        )
      )
  }),
  inTheMiddle(
    "Semaphore.withPermit",
    Effect.map(Semaphore.make(1), (semaphore) => (body) => Semaphore.withPermit(semaphore)(body))
  ),
  inTheMiddle(
    "Mutex.withLock",
    Effect.map(Mutex.make(), (mutex) => (body) => Mutex.withLock(mutex)(body))
  ),
  inTheMiddle(
    "RwLock.withWrite",
    Effect.map(RwLock.make(), (lock) => (body) => RwLock.withWrite(lock)(body))
  ),
  alone<BetweenReaders>({
    name: "RwLock.withWrite, between readers",
    setup: Effect.map(RwLock.make(), (lock) => ({ lock, writerGone: Infinity, readerIn: 0 })),
    body: (state) =>
      Effect.gen(function*() {
        const { lock } = state
        yield* Effect.forkDaemon(RwLock.withRead(lock)(Effect.sleep("1 minute")))
        yield* Effect.yieldNow()
        const enters = Effect.map(Clock.currentTimeMillis, (now) => {
          state.readerIn = now
        })
        yield* Effect.forkDaemon(Effect.zipRight(Effect.yieldNow(), RwLock.withRead(lock)(enters)))
        yield* Effect.onExit(RwLock.withWrite(lock)(turn), () =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            state.writerGone = now
          }))
      }),
    after: ({ lock }) => RwLock.withRead(lock)(turn),
    // Behind a writer that has gone, a reader waits for nobody.
    invariant: ({ readerIn, writerGone }) => readerIn <= writerGone
  }),
  alone({
    name: "RwLock.withWriteDowngraded",
    setup: RwLock.make(),
    body: (lock) =>
      behind(RwLock.withRead(lock)(hold), RwLock.withWriteDowngraded(turn, lock, () => turn))
  }),
  ...contended(
    "Semaphore.get",
    Semaphore.make(1),
    (semaphore, body) => Effect.scoped(Effect.zipRight(Semaphore.get(semaphore, 1), body)),
    { invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1 }
  ),
  ...contended(
    "Mutex.get",
    Mutex.make(),
    (mutex, body) => Effect.scoped(Effect.zipRight(Mutex.get(mutex), body))
  ),
  ...contended(
    "RwLock.getRead",
    RwLock.make(),
    (lock, body) =>
      both(RwLock.withWrite(lock)(turn), Effect.scoped(Effect.zipRight(RwLock.getRead(lock), body)))
  ),
  ...contended(
    "Mutex.withLock, bounded",
    Mutex.make(),
    (mutex, body) => Effect.exit(Mutex.withLock(mutex, { acquireTimeout: "3 millis" })(body))
  ),
  ...contended(
    "Mutex.withLock, with a priority",
    Mutex.make(),
    (mutex, body) =>
      both(
        Mutex.withLock(hold, mutex),
        both(Mutex.withLock(turn, mutex), Mutex.withLock(body, mutex, { priority: 1 }))
      )
  ),
  ...contended(
    "KeyedMutex.withLockKey",
    Mutex.makeKeyed<string>(),
    (mutex, body) =>
      Effect.exit(Mutex.withLockKey(body, mutex, "a", { acquireTimeout: "3 millis" })),
    { invariant: (mutex) => Effect.runSync(Mutex.size(mutex)) === 0 }
  ),
  ...contended(
    "KeyedSemaphore.withPermitsKey",
    Semaphore.makeKeyed<string>(1),
    (semaphore, body) => Semaphore.withPermitsKey(body, semaphore, "a", 1),
    { invariant: (semaphore) => Effect.runSync(Semaphore.size(semaphore)) === 0 }
  ),
  ...contended(
    "RateLimiter.withLimit",
    RateLimiter.make({ limit: 1, interval: "3 millis" }),
    (limiter, body) => RateLimiter.withLimit(body, limiter),
    { invariant: (limiter) => Effect.runSync(RateLimiter.stats(limiter)).waiting === 0 }
  ),
  ...contended(
    "RateLimiter.withLimit, bounded",
    RateLimiter.make({ limit: 1, interval: "5 millis" }),
    (limiter, body) =>
      both(
        Effect.exit(RateLimiter.withLimit(turn, limiter, { acquireTimeout: "3 millis" })),
        RateLimiter.withLimit(body, limiter)
      ),
    { invariant: (limiter) => Effect.runSync(RateLimiter.stats(limiter)).waiting === 0 }
  ),
  ...contended(
    "Semaphore.tryWithPermits",
    Semaphore.make(1),
    (semaphore, body) => Semaphore.tryWithPermits(body, semaphore, 1),
    { invariant: (semaphore) => Semaphore.unsafeStats(semaphore).free === 1 }
  ),
  ...contended(
    "RwLock.withWrite, bounded",
    RwLock.make(),
    (lock, body) =>
      both(
        RwLock.withRead(hold, lock),
        both(
          Effect.exit(RwLock.withWrite(turn, lock, { acquireTimeout: "3 millis" })),
          RwLock.withRead(body, lock)
        )
      )
  ),
  alone({
    name: "Semaphore.close, beside a waiter",
    setup: Semaphore.make(1, { closable: true }),
    body: (semaphore) =>
      Effect.gen(function*() {
        yield* Effect.forkScoped(Semaphore.withPermit(Effect.never, semaphore))
        yield* Effect.yieldNow()
        yield* Effect.forkScoped(Effect.zipRight(Effect.sleep(1), Semaphore.close(semaphore)))
        yield* Effect.exit(Semaphore.withPermit(turn, semaphore))
      }),
    invariant: (semaphore) => {
      const { free, waiting } = Semaphore.unsafeStats(semaphore)
      return free === 1 && waiting === 0
    }
  }),
  ...contended(
    "Pool.tryUse",
    (probe) => Pool.make({ ...patient, acquire: resource(probe), max: 1 }),
    (pool, body) => Pool.tryUse(pool, () => body)
  ),
  alone({
    name: "Control.detach, beside a waiter",
    setup: (probe: Probe.Probe) => Pool.make({ ...patient, acquire: resource(probe), max: 1 }),
    body: (pool) =>
      both(
        Effect.scoped(
          Effect.flatMap(Pool.lease(pool), (lease) => Effect.zipRight(Control.detach(lease), turn))
        ),
        Pool.use(pool, () => turn)
      )
  }),
  alone({
    name: "Control.resize and observe, beside users",
    setup: (probe: Probe.Probe) => Pool.make({ ...patient, acquire: resource(probe), max: 1 }),
    body: (pool) =>
      both(
        Effect.zipRight(
          Control.observe(pool, () => {}),
          Effect.zipRight(Control.resize(pool, 2), Effect.zipRight(turn, Control.resize(pool, 1)))
        ),
        both(Pool.use(pool, () => turn), Pool.use(pool, () => turn))
      ),
    invariant: (pool) => Pool.unsafeStats(pool).used === 0
  }),
  alone({
    name: "SharedPool.use, two share",
    setup: (probe: Probe.Probe) =>
      SharedPool.make({ ...patient, acquire: resource(probe), max: 1, concurrencyPerItem: 2 }),
    body: (pool) => {
      const use = SharedPool.use(pool, () => turn)
      return both(use, use)
    },
    invariant: (pool) => pool.groups.size === 0
  }),
  ...contended(
    "Lock.acquire",
    Lock.makeMemory,
    (service, body) => Effect.scoped(Effect.zipRight(service.get("key"), body))
  ),
  sharing("Parallel.forEach", (item) => Parallel.forEach([1, 2, 3], item, { concurrency: 2 })),
  sharing(
    "Parallel.all, one fails",
    (item) =>
      Effect.exit(Parallel.all([item(5), Effect.zipRight(item(1), Effect.fail("no")), item(7)], {
        concurrency: "unbounded"
      }))
  ),
  sharing("Parallel.race", (item) => Parallel.race(item(1), item(3))),
  sharing(
    "Nursery.run, forEach",
    (item) => Effect.forEach([1, 2, 3], item, { concurrency: 2 }),
    Nursery.run
  ),
  sharing(
    "Nursery.run, all, one fails",
    (item) =>
      Effect.exit(Effect.all([item(5), Effect.zipRight(item(1), Effect.fail("no"))], {
        concurrency: "unbounded"
      })),
    Nursery.run
  ),
  sharing(
    "Nursery.run, timeout of disconnect",
    (item) => Effect.exit(Effect.timeout(Effect.disconnect(item(3)), 1)),
    Nursery.run
  ),
  sharing("Nursery.run, fork", (item) => Effect.zipRight(Effect.fork(item(3)), turn), Nursery.run),
  alone({
    name: "Nursery.run, children",
    setup: Effect.void,
    body: (_, probe) => {
      const child = Effect.orDie(
        Effect.scoped(Effect.zipRight(probe.resource("child"), hold))
      )
      return Nursery.run((nursery) =>
        Effect.gen(function*() {
          yield* Nursery.start(nursery, child)
          yield* Nursery.startReady(
            nursery,
            (ready: (value: number) => Effect.Effect<void>) => Effect.zipRight(ready(1), child)
          )
          yield* Nursery.start(nursery, Effect.zipRight(child, Nursery.start(nursery, turn)))
        })
      )
    }
  }),
  alone({
    name: "Nursery.make",
    setup: Effect.void,
    body: (_, probe) =>
      Effect.scoped(Effect.gen(function*() {
        const nursery = yield* Nursery.make()
        yield* Nursery.start(
          nursery,
          Effect.orDie(Effect.scoped(Effect.zipRight(probe.resource("child"), Effect.never)))
        )
        yield* Effect.scoped(Effect.zipRight(Nursery.background(nursery, Effect.never), turn))
      }))
  }),
  sharing(
    "Batch.run",
    (item) => Batch.run({ name: "job", process: item }, [1, 2, 3], { concurrency: 2 })
  ),
  alone({
    name: "Parallel.forEach, one item waits for a later one",
    setup: Effect.void,
    body: () =>
      Effect.flatMap(Deferred.make<void>(), (latch) =>
        Parallel.forEach(
          [Deferred.await(latch), turn, Deferred.succeed(latch, undefined)],
          Effect.asVoid,
          { concurrency: 2, discard: true }
        ))
  }),
  alone({
    name: "Managed.use, a release with a deadline",
    setup: Effect.sync((): Guarded => ({ open: false, usedAfterRelease: 0 })),
    body: (state) =>
      Managed.use(
        Managed.make({
          name: "bounded",
          acquire: Effect.sync(() => {
            state.open = true
          }),
          release: () =>
            Effect.zipRight(
              hold,
              Effect.sync(() => {
                state.open = false
              })
            ),
          releaseDeadline: "1 second"
        }),
        () => turn
      ),
    invariant: ({ open }) => !open
  }),
  ...managed,
  ...exitStacks
]
