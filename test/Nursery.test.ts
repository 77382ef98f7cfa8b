import { describe, expect, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Effect,
  Exit,
  Fiber,
  FiberRef,
  Layer,
  ManagedRuntime,
  Request,
  RequestResolver,
  Scope,
  Stream
} from "effect"
import {
  ExitStack,
  Lock,
  Managed,
  Mutex,
  Nursery,
  Pool,
  RateLimiter,
  RwLock,
  Semaphore,
  Shared
} from "holdfast"

interface Db {
  isOpen: boolean
}

/** A resource, and a log of its uses and of its release. */
const makeDb = () => {
  const log: Array<string> = []
  const db = Managed.make({
    name: "db",
    acquire: Effect.sync((): Db => ({ isOpen: true })),
    release: (db) =>
      Effect.sync(() => {
        db.isOpen = false
        log.push("released")
      })
  })
  const commit = (db: Db, n: number, millis = 20) =>
    Effect.uninterruptible(
      Effect.delay(Effect.sync(() => log.push(`commit ${n}, open=${db.isOpen}`)), millis)
    )
  const item = (db: Db) => (n: number) =>
    n === 1 ? Effect.delay(Effect.fail("boom"), 5) : Effect.asVoid(commit(db, n))
  return { db, log, commit, item }
}

const settled = (effect: Effect.Effect<unknown, unknown>) =>
  Effect.runPromise(Effect.zipLeft(Effect.exit(effect), Effect.sleep(60)))

/** What stock operators do with items of which the first fails while another commits. */
const operators: Record<
  string,
  (item: (n: number) => Effect.Effect<void, string>) => Effect.Effect<unknown, unknown>
> = {
  forEach: (item) => Effect.forEach([1, 2, 3], item, { concurrency: 2 }),
  "all unbounded": (item) => Effect.all([item(1), item(2)], { concurrency: "unbounded" }),
  zip: (item) => Effect.zip(item(1), item(2), { concurrent: true }),
  "timeout of disconnect": (item) => Effect.timeout(Effect.disconnect(item(2)), 5),
  "race of disconnect": (item) =>
    Effect.raceFirst(Effect.disconnect(item(2)), Effect.exit(item(1))),
  "Stream.mapEffect": (item) =>
    Stream.runDrain(Stream.mapEffect(Stream.make(1, 2, 3), item, { concurrency: 2 })),
  fork: (item) => Effect.zipRight(Effect.fork(item(2)), Effect.sleep(2)),
  "fork of a fork": (item) =>
    Effect.zipRight(
      Effect.fork(Effect.zipRight(Effect.fork(item(2)), Effect.sleep(2))),
      Effect.sleep(3)
    ),
  "daemon of an ended daemon": (item) =>
    Effect.flatMap(
      Effect.forkDaemon(Effect.forkDaemon(item(2))),
      (outer) =>
        Effect.flatMap(Fiber.join(outer), (inner) =>
          Effect.zipRight(Effect.sleep(2), Fiber.interruptFork(inner)))
    )
}

type Body = (db: Db) => Effect.Effect<unknown, unknown>
type Bracket = (
  parts: ReturnType<typeof makeDb>,
  body: Body
) => Effect.Effect<unknown, unknown>

class DbTag extends Context.Tag("DbTag")<DbTag, Db>() {}

const always: Db = { isOpen: true }

/** A lock is free again when the waiter of it runs. */
const locked = (
  withLock: Effect.Effect<
    (effect: Effect.Effect<unknown, unknown>) => Effect.Effect<unknown, unknown>
  >
): Bracket =>
({ log }, body) =>
  Effect.flatMap(withLock, (withLock) =>
    Effect.zipRight(
      Effect.forkDaemon(Effect.delay(withLock(Effect.sync(() => log.push("released"))), 1)),
      withLock(body(always))
    ))

const brackets: Record<string, Bracket> = {
  "Managed.use": ({ db }, body) => Managed.use(db, body),
  "Managed.use of several": ({ db }, body) =>
    Managed.use(Managed.all([db, Managed.map(db, (one) => one)]), ([one]) => body(one)),
  "a Managed in a scope": ({ db }, body) => Effect.scoped(Effect.flatMap(db, body)),
  "Effect.provide of a layer": ({ db }, body) =>
    Effect.provide(Effect.flatMap(DbTag, body), Managed.layer(DbTag, db)),
  "Effect.provide of merged layers": ({ db }, body) =>
    Effect.provide(
      Effect.flatMap(DbTag, body),
      Layer.mergeAll(Managed.layer(DbTag, db), Layer.succeed(Context.GenericTag<number>("one"), 1))
    ),
  "a ManagedRuntime": ({ db }, body) =>
    Effect.flatMap(
      Effect.sync(() =>
        ManagedRuntime.make(Layer.provideMerge(Managed.layer(DbTag, db), Nursery.tracker))
      ),
      (runtime) =>
        Effect.ensuring(
          Effect.promise(() => runtime.runPromiseExit(Effect.flatMap(DbTag, body))),
          runtime.disposeEffect
        )
    ),
  "ExitStack.use": ({ db }, body) =>
    ExitStack.use((stack) => Effect.flatMap(stack.enter(db), body)),
  "ExitStack.make": ({ db }, body) =>
    Effect.scoped(
      Effect.flatMap(ExitStack.make(), (stack) => Effect.flatMap(stack.enter(db), body))
    ),
  "Shared.use": ({ db }, body) =>
    Effect.scoped(
      Effect.flatMap(Shared.make({ name: "db", acquire: db }), (shared) => Shared.use(shared, body))
    ),
  "Shared.get": ({ db }, body) =>
    Effect.scoped(
      Effect.flatMap(
        Shared.make({ name: "db", acquire: db }),
        (shared) => Effect.scoped(Effect.flatMap(Shared.get(shared), body))
      )
    ),
  "Pool.use": ({ db }, body) =>
    Effect.scoped(
      Effect.flatMap(Pool.make({ name: "db", acquire: db, max: 1 }), (pool) => Pool.use(pool, body))
    ),
  "Pool.get": ({ db }, body) =>
    Effect.scoped(
      Effect.flatMap(
        Pool.make({ name: "db", acquire: db, max: 1 }),
        (pool) => Effect.scoped(Effect.flatMap(Pool.get(pool), body))
      )
    ),
  "Semaphore.withPermits": locked(
    Effect.map(Semaphore.make(1), (permits) => Semaphore.withPermits(permits, 1))
  ),
  "Semaphore.get": locked(
    Effect.map(
      Semaphore.make(1),
      (permits) => (effect) => Effect.scoped(Effect.zipRight(Semaphore.get(permits, 1), effect))
    )
  ),
  "Mutex.withLock": locked(Effect.map(Mutex.make(), (mutex) => Mutex.withLock(mutex))),
  "RwLock.withWrite": locked(Effect.map(RwLock.make(), (lock) => RwLock.withWrite(lock))),
  "RwLock.withWriteDowngraded, its write": locked(
    Effect.map(
      RwLock.make(),
      (lock) => (effect) => RwLock.withWriteDowngraded(effect, lock, () => Effect.void)
    )
  ),
  "RwLock.withWriteDowngraded, its read": locked(
    Effect.map(
      RwLock.make(),
      (lock) => (effect) => RwLock.withWriteDowngraded(Effect.void, lock, () => effect)
    )
  ),
  "Lock.withLock": locked(
    Effect.map(Lock.makeMemory, (lock) => (effect) => lock.withLock("key")(effect))
  ),
  "Nursery.scoped of acquireRelease": ({ log }, body) =>
    Nursery.scoped(
      Effect.flatMap(
        Effect.acquireRelease(Effect.succeed<Db>({ isOpen: true }), (db) =>
          Effect.sync(() => {
            db.isOpen = false
            log.push("released")
          })),
        body
      )
    )
}

describe("Nursery, what stock operators start", () => {
  for (const [name, operator] of Object.entries(operators)) {
    it(`Tracker-1: ${name} inside Managed.use is released after its last fiber`, async () => {
      const { db, item, log } = makeDb()
      await settled(Nursery.run(Managed.use(db, (db) => operator(item(db)))))
      expect(log.at(-1)).toBe("released")
      expect(log.join()).not.toContain("open=false")
    })
  }

  for (const [name, bracket] of Object.entries(brackets)) {
    it(`Tracker-1: ${name} ends after a sibling that stock forEach has left behind`, async () => {
      const parts = makeDb()
      const body: Body = (db) => Effect.forEach([1, 2, 3], parts.item(db), { concurrency: 2 })
      await settled(Nursery.run(bracket(parts, body)))
      expect(parts.log.filter((line) => line !== "released")).toEqual(["commit 2, open=true"])
      expect(parts.log.at(-1)).toBe("released")
    })
  }

  it("raw Effect releases under a running sibling", async () => {
    const { db, item, log } = makeDb()
    await settled(Managed.use(db, (db) => operators.forEach!(item(db))))
    expect(log).toEqual(["released", "commit 2, open=false"])
  })
})

describe("Nursery, releases under the tracker", () => {
  const stuck = (millis: number | "ever") =>
    Effect.uninterruptible(millis === "ever" ? Effect.never : Effect.sleep(millis))

  it("Tracker-2: a fiber that does not end is named, and the release begins at its deadline", async () => {
    const { log } = makeDb()
    const db = Managed.make({
      name: "db",
      acquire: Effect.void,
      release: () => Effect.sync(() => log.push("released")),
      releaseDeadline: "20 millis"
    })
    const use = Managed.use(
      db,
      () => Effect.timeout(Effect.disconnect(Effect.withSpan(stuck("ever"), "download")), 2)
    )
    const exit = await Effect.runPromiseExit(Nursery.run(use))
    expect(log).toEqual(["released"])
    const defects = Exit.isFailure(exit) ? Array.from(Cause.defects(exit.cause)) : []
    expect(defects).toHaveLength(1)
    expect(defects[0]).toBeInstanceOf(Nursery.StillInUse)
    expect(String(defects[0])).toMatch(
      /The release of resource "db" \(acquired at \S+\) waited 20ms for fibers .* have not ended: #\d+ \(span "download"\)\. They may/
    )
    expect(Exit.isFailure(exit) && Cause.failures(exit.cause).length).toBe(1)
  })

  it("Tracker-3: a dying fiber that waits for the fiber that releases is not waited for", async () => {
    const { db, log } = makeDb()
    const use = Managed.use(db, () =>
      Effect.withFiberRuntime<void>((closer) =>
        Effect.flatMap(
          Effect.forkDaemon(
            Effect.uninterruptible(Effect.zipRight(
              Fiber.await(closer),
              Effect.sync(() => log.push("waited"))
            ))
          ),
          (daemon) => Effect.zipRight(Effect.yieldNow(), Fiber.interruptFork(daemon))
        )
      ))
    await Effect.runPromise(Nursery.run(use))
    await Effect.runPromise(Effect.sleep(5))
    expect(log).toEqual(["released", "waited"])
  })

  type Run = Effect.Effect<unknown>
  type Lock = (effect: Run) => Effect.Effect<unknown, unknown>
  const waiters: Record<string, (lock: (effect: Run) => Run, end: Run) => Run> = {
    "waits when the bracket ends": (lock, end) =>
      Effect.timeoutOption(Effect.disconnect(Effect.ensuring(Effect.never, lock(end))), 2),
    "begins to wait later": (lock, end) =>
      Effect.timeoutOption(
        Effect.disconnect(Effect.ensuring(Effect.never, Effect.delay(lock(end), 5))),
        2
      )
  }
  const locks: Record<string, Effect.Effect<Lock, never, Scope.Scope>> = {
    "Semaphore.withPermits": Effect.map(
      Semaphore.make(1),
      (permits) => Semaphore.withPermits(permits, 1)
    ),
    "Mutex.withLock": Effect.map(Mutex.make(), (mutex) => Mutex.withLock(mutex)),
    "Mutex.withLock round Managed.use": Effect.map(
      Mutex.make(),
      (mutex) => (effect) => Mutex.withLock(Managed.use(makeDb().db, () => effect), mutex)
    ),
    "Pool.use": Effect.map(
      Pool.make({ acquire: Effect.void, max: 1 }),
      (pool) => (effect) => Pool.use(pool, () => effect)
    )
  }
  for (const [name, make] of Object.entries(locks)) {
    for (const [when, user] of Object.entries(waiters)) {
      it(
        `Tracker-3: a dying fiber that ${when} for what is released is not waited for (${name})`,
        async () => {
          const log: Array<string> = []
          const end = Effect.sync(() => log.push("cleaned up"))
          const program = Effect.scoped(Effect.flatMap(make, (lock) => {
            const orDie = (effect: Run) => Effect.orDie(lock(effect))
            const use = orDie(user(orDie, end))
            return Effect.zipRight(
              Effect.zipRight(use, Effect.sync(() => log.push("released"))),
              Effect.sleep(10)
            )
          }))
          const exit = await Effect.runPromiseExit(Nursery.run(program))
          expect(Exit.isSuccess(exit)).toBe(true)
          expect(log.toSorted()).toEqual(["cleaned up", "released"])
        },
        4000
      )
    }
  }

  it("Tracker-1: readers enter at a downgrade after the last dying fiber of its write", async () => {
    const { commit, log } = makeDb()
    const program = Effect.gen(function*() {
      const lock = yield* RwLock.make()
      const reader = RwLock.withRead(Effect.sync(() => log.push("released")), lock)
      yield* Effect.forkDaemon(Effect.delay(reader, 1))
      const write = Effect.timeoutOption(Effect.disconnect(commit(always, 2)), 2)
      yield* RwLock.withWriteDowngraded(write, lock, () => Effect.sleep(5))
    })
    await settled(Nursery.run(program))
    expect(log).toEqual(["commit 2, open=true", "released"])
  })

  it("Tracker-1: a dying fiber that waits for tokens is waited for inside of a rate limit, which holds nothing", async () => {
    const { db, log } = makeDb()
    const program = Effect.gen(function*() {
      const limiter = yield* RateLimiter.make({ limit: 1, interval: "20 millis" })
      const token = RateLimiter.withLimit(Effect.sync(() => log.push("token")), limiter)
      const late = Effect.ensuring(Effect.never, Effect.orDie(token))
      const use = Managed.use(db, () => Effect.timeoutOption(Effect.disconnect(late), 2))
      yield* RateLimiter.withLimit(use, limiter)
    })
    await settled(Nursery.run(program))
    expect(log).toEqual(["token", "released"])
  })

  it("a rate limit does not wait for the dying fibers of its user", async () => {
    const log: Array<string> = []
    const slow = Effect.uninterruptible(
      Effect.zipRight(Effect.sleep(20), Effect.sync(() => log.push("ended")))
    )
    const program = Effect.flatMap(
      RateLimiter.make({ limit: 1, interval: "1 second" }),
      (limiter) => RateLimiter.withLimit(Effect.timeoutOption(Effect.disconnect(slow), 2), limiter)
    )
    const noted = Effect.tap(program, () => Effect.sync(() => log.push("returned")))
    await settled(Nursery.run(noted))
    expect(log).toEqual(["returned", "ended"])
  })

  it("Tracker-4: a child of the body ends before the release, a daemon lives on, a lock leaves its children alone", async () => {
    const { db, log } = makeDb()
    const forever = (name: string) =>
      Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push(`${name} interrupted`)))
    const program = Effect.gen(function*() {
      const mutex = yield* Mutex.make()
      const daemon = yield* Managed.use(db, () =>
        Effect.zipRight(
          Effect.zipRight(Effect.fork(forever("child")), Effect.sleep(1)),
          Effect.forkDaemon(forever("daemon"))
        ))
      yield* Mutex.withLock(
        Effect.zipRight(Effect.fork(forever("child of a lock")), Effect.sleep(1)),
        mutex
      )
      log.push("after the lock")
      yield* Fiber.interrupt(daemon)
    })
    await Effect.runPromise(Nursery.run(program))
    expect(log).toEqual([
      "child interrupted",
      "released",
      "after the lock",
      "daemon interrupted",
      "child of a lock interrupted"
    ])
  })

  it("Tracker-4: the children of a daemon live on with it", async () => {
    const { db, log } = makeDb()
    const late = Effect.delay(Effect.sync(() => log.push("the daemon's own child")), 20)
    const program = Effect.gen(function*() {
      // Stock `timeout` runs its effect in a child.
      const daemon = yield* Managed.use(
        db,
        () => Effect.zipLeft(Effect.forkDaemon(Effect.timeout(late, "1 minute")), Effect.sleep(1))
      )
      yield* Fiber.join(daemon)
    })
    await Effect.runPromise(Nursery.run(program))
    expect(log).toEqual(["released", "the daemon's own child"])
  })

  it("Tracker-4: what a pool opens outlives the bracket of the fiber that asked for it", async () => {
    const { db } = makeDb()
    let opened = 0
    const program = Effect.gen(function*() {
      const slow = Effect.timeout(Effect.delay(Effect.sync(() => ++opened), 20), "1 minute")
      const pool = yield* Pool.make({ acquire: slow, max: 1 })
      const asked = Managed.use(
        db,
        () => Effect.timeoutOption(Pool.use(pool, () => Effect.void), 5)
      )
      const later = Effect.delay(Pool.use(pool, Effect.succeed), 1)
      const [, item] = yield* Effect.all([asked, later], { concurrency: 2 })
      expect(item).toBe(1)
    })
    await Effect.runPromise(Nursery.run(Effect.scoped(program)))
  })

  it("Tracker-1: what a batched forEach resumes in new fibers is followed, too", async () => {
    const { commit, db, log } = makeDb()
    class Get extends Request.TaggedClass("Get")<number, string, { readonly id: number }> {}
    const resolver = RequestResolver.makeBatched((requests: ReadonlyArray<Get>) =>
      Effect.forEach(
        requests,
        (request) =>
          request.id === 1 ? Request.fail(request, "gone") : Request.succeed(request, request.id),
        {
          discard: true
        }
      )
    )
    const use = Managed.use(
      db,
      (db) =>
        Effect.forEach(
          [1, 2],
          (id) => Effect.flatMap(Effect.request(new Get({ id }), resolver), (id) => commit(db, id)),
          {
            concurrency: 2,
            batching: true
          }
        )
    )
    await settled(Nursery.run(use))
    expect(log.at(-1)).toBe("released")
    expect(log.join()).not.toContain("open=false")
  })

  it("without a tracker everything is as before", async () => {
    const { db, log } = makeDb()
    const child = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("interrupted")))
    await Effect.runPromise(
      Effect.zipRight(
        Managed.use(db, () => Effect.zipRight(Effect.fork(child), Effect.sleep(1))),
        Effect.void
      )
    )
    expect(log).toEqual(["released", "interrupted"])
  })
})

describe("Nursery, its children", () => {
  const log: Array<string> = []
  const until = (name: string, millis: number) =>
    Effect.onExit(
      Effect.delay(Effect.succeed(name), millis),
      (exit) =>
        Effect.sync(() => log.push(`${name} ${Exit.isSuccess(exit) ? "ended" : "interrupted"}`))
    )
  const run = async <A, E>(program: Effect.Effect<A, E>) => {
    log.length = 0
    return Effect.runPromiseExit(program)
  }

  it("Nursery-1: run ends after its last child", async () => {
    const exit = await run(Nursery.run((nursery) =>
      Effect.gen(function*() {
        const fiber = yield* Nursery.start(nursery, until("child", 10))
        yield* Nursery.start(
          nursery,
          Effect.zipRight(Nursery.start(nursery, until("grandchild", 15)), Effect.void)
        )
        log.push("body")
        return fiber
      })
    ))
    expect(log).toEqual(["body", "child ended", "grandchild ended"])
    expect(Exit.isSuccess(exit) && Exit.isSuccess(exit.value.unsafePoll()!)).toBe(true)
  })

  it("Nursery-2: the first failure ends the rest, and the cause has all of them", async () => {
    const slow = Effect.ensuring(Effect.never, Effect.die("cleanup"))
    const exit = await run(
      Nursery.run((nursery: Nursery.Nursery<"lost">) =>
        Effect.gen(function*() {
          yield* Nursery.start(nursery, Effect.delay(Effect.fail("lost" as const), 3))
          yield* Nursery.start(nursery, slow)
          yield* Nursery.start(nursery, until("sibling", 1000))
          yield* until("body", 1000)
        })
      )
    )
    expect(log.toSorted()).toEqual(["body interrupted", "sibling interrupted"])
    const cause = Exit.isFailure(exit) ? exit.cause : Cause.empty
    expect(Array.from(Cause.failures(cause))).toEqual(["lost"])
    expect(Array.from(Cause.defects(cause))).toEqual(["cleanup"])
    expect(Cause.isInterrupted(cause)).toBe(false)
  })

  it("Nursery-2: a body that fails or interrupts itself ends the children; a child that was interrupted fails nobody", async () => {
    const failing = await run(
      Nursery.run((nursery) =>
        Effect.zipRight(
          Nursery.start(nursery, until("child", 1000)),
          Effect.delay(Effect.fail("no"), 2)
        )
      )
    )
    expect(failing).toEqual(Exit.fail("no"))
    const interrupted = await run(
      Nursery.run((nursery) =>
        Effect.zipRight(
          Nursery.start(nursery, until("child", 1000)),
          Effect.delay(Effect.interrupt, 2)
        )
      )
    )
    expect(Exit.isInterrupted(interrupted)).toBe(true)
    expect(log).toEqual(["child interrupted"])
    const tolerant = await run(
      Nursery.run((nursery) =>
        Effect.flatMap(
          Nursery.start(nursery, until("child", 1000)),
          (child) =>
            Effect.gen(function*() {
              yield* Effect.sleep(1)
              yield* Fiber.interrupt(child)
              yield* Effect.sleep(1)
              return "fine"
            })
        )
      )
    )
    expect(tolerant).toEqual(Exit.succeed("fine"))
  })

  it("Nursery-1: an interrupt ends body and children first", async () => {
    log.length = 0
    const fiber = Effect.runFork(
      Nursery.run((nursery) =>
        Effect.zipRight(Nursery.start(nursery, until("child", 1000)), until("body", 1000))
      )
    )
    await Effect.runPromise(Effect.sleep(5))
    const exit = await Effect.runPromise(Fiber.interrupt(fiber))
    expect(log.toSorted()).toEqual(["body interrupted", "child interrupted"])
    expect(Exit.isInterrupted(exit)).toBe(true)
  })

  it("Nursery-4: after its end it starts nothing; while it ends, what starts is interrupted", async () => {
    const gone = await run(Effect.flatMap(
      Nursery.run((nursery) => Effect.succeed(nursery)),
      (nursery) => Nursery.start(nursery, until("late", 1))
    ))
    expect(Exit.isFailure(gone) && String(Cause.squash(gone.cause))).toContain(
      "\"nursery\" is closed"
    )
    await run(Nursery.run((nursery: Nursery.Nursery<string>) =>
      Effect.zipRight(
        Nursery.start(
          nursery,
          Effect.ensuring(Effect.never, Nursery.start(nursery, until("late", 1000)))
        ),
        Effect.delay(Effect.fail("no"), 2)
      )
    ))
    expect(log).toEqual([])
  })

  it("startReady gives the value of ready; a child that ends before fails it", async () => {
    const ready = await run(Nursery.run((nursery) =>
      Effect.zipLeft(
        Nursery.startReady(nursery, (ready: (port: number) => Effect.Effect<void>) =>
          Effect.zipRight(Effect.delay(ready(80), 2), until("server", 1000))),
        Effect.zipRight(Nursery.cancel(nursery), Effect.sleep(2))
      )
    ))
    expect(ready).toEqual(Exit.succeed(80))
    expect(log).toEqual(["server interrupted"])
    const failed = await run(
      Nursery.run((nursery: Nursery.Nursery<string>) =>
        Nursery.startReady(
          nursery,
          (_ready: (port: number) => Effect.Effect<void>) => Effect.fail("in use")
        )
      )
    )
    expect(Exit.isFailure(failed) && Array.from(Cause.failures(failed.cause))).toContain("in use")
    const silent = await run(
      Nursery.run((nursery) =>
        Nursery.startReady(nursery, (_ready: (port: number) => Effect.Effect<void>) => Effect.void)
      )
    )
    expect(Exit.isFailure(silent) && String(Cause.squash(silent.cause))).toContain(
      "before it was ready"
    )
  })

  it("background ends with its scope", async () => {
    await run(Nursery.run((nursery) =>
      Effect.gen(function*() {
        yield* Effect.scoped(
          Effect.zipRight(Nursery.background(nursery, until("heartbeat", 1000)), Effect.sleep(2))
        )
        log.push("after the scope")
      })
    ))
    expect(log).toEqual(["heartbeat interrupted", "after the scope"])
  })

  it("make: the scope's close ends the children, and fails with what nobody has asked for", async () => {
    const quiet = await run(Effect.scoped(Effect.flatMap(
      Nursery.make(),
      (nursery) => Effect.zipRight(Nursery.start(nursery, until("child", 1000)), Effect.sleep(2))
    )))
    expect(Exit.isSuccess(quiet)).toBe(true)
    expect(log).toEqual(["child interrupted"])
    const failed = await run(Effect.scoped(Effect.flatMap(
      Nursery.make<string>(),
      (nursery) => Effect.zipRight(Nursery.start(nursery, Effect.fail("lost")), Effect.sleep(2))
    )))
    expect(Exit.isFailure(failed) && Array.from(Cause.defects(failed.cause))).toEqual(["lost"])
    const asked = await run(Effect.scoped(Effect.flatMap(
      Nursery.make<string>(),
      (nursery) =>
        Effect.zipRight(Nursery.start(nursery, Effect.fail("lost")), Nursery.awaitAll(nursery))
    )))
    expect(asked).toEqual(Exit.fail("lost"))
  })

  it("layer gives a nursery and the tracker to what is built on it", async () => {
    const { db, item, log: uses } = makeDb()
    const program = Effect.gen(function*() {
      const nursery = yield* Nursery.Nursery
      yield* Nursery.start(nursery, until("child", 1000))
      yield* Effect.exit(Managed.use(db, (db) => operators.forEach!(item(db))))
      expect(yield* Nursery.stats(nursery)).toEqual({ running: 1, failed: 0 })
    })
    await run(Effect.provide(program, Nursery.layer()))
    expect(log).toEqual(["child interrupted"])
    expect(uses).toEqual(["commit 2, open=true", "released"])
  })

  it("contain all: daemons end with the nursery", async () => {
    await run(
      Nursery.run(Effect.zipRight(Effect.forkDaemon(until("daemon", 1000)), Effect.sleep(1)), {
        contain: "all"
      })
    )
    expect(log).toEqual(["daemon interrupted"])
    const wrong = await run(
      Effect.suspend(() => Nursery.run(Effect.void, { contain: "some" as "all" }))
    )
    expect(Exit.isFailure(wrong) && String(Cause.squash(wrong.cause))).toContain("contain")
  })

  it("timeout waits for the effect it has interrupted", async () => {
    const committed = Effect.uninterruptible(until("commit", 10))
    const late = await run(Nursery.timeout(committed, 2))
    expect(log).toEqual(["commit ended"])
    expect(Exit.isFailure(late) && String(Cause.squash(late.cause))).toContain(
      "did not end within 2ms"
    )
    expect(await run(Nursery.timeout(until("fast", 1), 500))).toEqual(Exit.succeed("fast"))
    expect(await run(Nursery.timeout(Effect.fail("no"), 500))).toEqual(Exit.fail("no"))
    const both = await run(Nursery.timeout(Effect.ensuring(Effect.never, Effect.die("cleanup")), 2))
    expect(Exit.isFailure(both) && Array.from(Cause.defects(both.cause))).toEqual(["cleanup"])
    expect(Exit.isFailure(both) && Array.from(Cause.failures(both.cause))).toHaveLength(1)
  })

  it("FiberRefs of the body are those of its caller afterwards", async () => {
    const ref = FiberRef.unsafeMake("before")
    const seen = await Effect.runPromise(
      Effect.zipRight(Nursery.run(FiberRef.set(ref, "after")), FiberRef.get(ref))
    )
    expect(seen).toBe("after")
  })

  it("FiberRefs of many children are joined in the sequence in which they end", async () => {
    const [last, left, none] = [
      FiberRef.unsafeMake("before"),
      FiberRef.unsafeMake("before"),
      FiberRef.unsafeMake("before")
    ]
    const seen = await Effect.runPromise(Effect.gen(function*() {
      yield* FiberRef.set(none, "the caller's")
      yield* Nursery.run((nursery) =>
        Effect.gen(function*() {
          yield* FiberRef.set(left, "the body's")
          for (let n = 0; n < 600; n++) {
            yield* Nursery.start(nursery, n % 7 === 0 ? FiberRef.set(last, `${n}`) : Effect.void)
          }
        })
      )
      return [yield* FiberRef.get(last), yield* FiberRef.get(left), yield* FiberRef.get(none)]
    }))
    expect(seen).toEqual(["595", "the body's", "the caller's"])
  })

  it("a long-lived nursery does not keep the children that have ended", async () => {
    const kept = await Effect.runPromise(Nursery.run((nursery) =>
      Effect.gen(function*() {
        for (let n = 0; n < 2000; n++) yield* Nursery.start(nursery, Effect.void)
        yield* Nursery.awaitAll(nursery)
        const { group } = nursery as unknown as {
          readonly group: { readonly ended: Array<unknown> }
        }
        return group.ended.length
      })
    ))
    expect(kept).toBeLessThan(300)
  })

  it("a fiber that runs one nursery after the other keeps nothing of them", async () => {
    const observers = Effect.withFiberRuntime<number>((fiber) =>
      Effect.succeed(
        (fiber as unknown as { readonly _observers: Array<unknown> })._observers.length
      )
    )
    const [before, after] = await Effect.runPromise(Effect.gen(function*() {
      // Effect adds one of its own.
      yield* Effect.sleep(1)
      const before = yield* observers
      for (let n = 0; n < 20; n++) yield* Nursery.run(Effect.fork(Effect.never))
      return [before, yield* observers]
    }))
    expect(after).toBe(before)
  })

  it("timeout in an uninterruptible region returns as soon as the effect ends", async () => {
    const began = Date.now()
    await Effect.runPromise(Effect.uninterruptible(Nursery.timeout(Effect.sleep(2), "1 minute")))
    expect(Date.now() - began).toBeLessThan(30_000)
  })

  it("the body may wait for its children by awaitAll", async () => {
    const log: Array<string> = []
    await Effect.runPromise(Nursery.run((nursery) =>
      Effect.gen(function*() {
        yield* Nursery.start(nursery, Effect.delay(Effect.sync(() => log.push("child")), 5))
        yield* Nursery.awaitAll(nursery)
        log.push("body")
      })
    ))
    expect(log).toEqual(["child", "body"])
  })

  it("startReady in a nursery that is ending returns", async () => {
    const exit = await Effect.runPromise(
      Effect.flatMap(Scope.make(), (scope) =>
        Effect.gen(function*() {
          const nursery = yield* Nursery.make<string>()
          const first = yield* Nursery.start(nursery, Effect.fail("first"))
          yield* Fiber.await(first)
          return yield* Effect.exit(Nursery.startReady(
            nursery,
            (ready: (n: number) => Effect.Effect<void>) => Effect.zipRight(ready(1), Effect.never)
          ))
        }).pipe(Scope.extend(scope)))
    )
    expect(Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)).toBe(true)
  })

  it("cancel interrupts a child once, however often it is called", async () => {
    let count = 0
    await Effect.runPromise(Nursery.run((nursery) =>
      Effect.gen(function*() {
        const child = yield* Nursery.start(nursery, Effect.uninterruptible(Effect.sleep(20)))
        yield* Effect.sleep(1)
        const interrupt = child.unsafeInterruptAsFork.bind(child)
        child.unsafeInterruptAsFork = (by) => {
          count++
          interrupt(by)
        }
        for (let n = 0; n < 10; n++) {
          yield* Nursery.cancel(nursery)
          yield* Effect.yieldNow()
        }
      })
    ))
    expect(count).toBe(1)
  })
})
