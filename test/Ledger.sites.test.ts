/** In every form of every request the ledger shows the user's line. */
import { expect, it } from "@effect/vitest"
import { Effect, pipe, type Scope } from "effect"
import { Ledger, Lock, Managed, Mutex, Pool, RwLock, Semaphore, Shared } from "holdfast"
import * as KeyedPool from "holdfast/Pool/Keyed"
import * as fs from "node:fs"

type Ask = Effect.Effect<unknown, unknown, Scope.Scope>

const semaphore = Semaphore.unsafeMake(4)
const mutex = Mutex.unsafeMake()
const rwLock = RwLock.unsafeMake()
const work: Effect.Effect<number> = Effect.succeed(1)
const job = () => work

/** Each in lines of its own, so that a line tells which it was. */
const forms = Effect.gen(function*() {
  const keyed = yield* Mutex.makeKeyed<string>()
  const pool = yield* Pool.make({ acquire: work, max: 2 })
  const keyedPool = yield* KeyedPool.make({
    acquire: (key: string) => Effect.succeed(key),
    maxPerKey: 2
  })
  const shared = yield* Shared.make({ name: "shared", acquire: work })
  const keyedShared = yield* Shared.makeKeyed({
    name: "keyed",
    acquire: (key: string) => Effect.succeed(key)
  })
  const locks = yield* Lock.makeMemory
  const locked = Effect.provideService(Lock.Lock, locks)
  const asks: Readonly<Record<string, () => Ask>> = {
    "Semaphore.withPermits": () => Semaphore.withPermits(work, semaphore, 2),
    "Semaphore.withPermits, piped": () => work.pipe(Semaphore.withPermits(semaphore, 2)),
    "Semaphore.withPermit": () => Semaphore.withPermit(work, semaphore),
    "Semaphore.withPermit, pipe": () => pipe(work, Semaphore.withPermit(semaphore)),
    "Semaphore.tryWithPermits": () => work.pipe(Semaphore.tryWithPermits(semaphore, 1)),
    "Semaphore.get": () => Semaphore.get(semaphore, 1),
    "Mutex.withLock": () => Mutex.withLock(work, mutex),
    "Mutex.withLock, piped": () => work.pipe(Mutex.withLock(mutex)),
    "Mutex.withLock, bounded": () =>
      work.pipe(Mutex.withLock(mutex, { acquireTimeout: "1 second" })),
    "Mutex.tryWithLock": () => Mutex.tryWithLock(work, mutex),
    "Mutex.get": () => Mutex.get(mutex),
    "Mutex.withLockKey": () => work.pipe(Mutex.withLockKey(keyed, "k")),
    "Mutex.withLockKeys": () => Mutex.withLockKeys(work, keyed, ["k", "l"]),
    "RwLock.withRead": () => work.pipe(RwLock.withRead(rwLock)),
    "RwLock.withWrite": () => RwLock.withWrite(work, rwLock),
    "RwLock.withWriteDowngraded": () => RwLock.withWriteDowngraded(work, rwLock, job),
    "RwLock.getRead": () => RwLock.getRead(rwLock),
    "RwLock.getWrite": () => RwLock.getWrite(rwLock),
    "Pool.use": () => Pool.use(pool, job),
    "Pool.use, pipe": () => pipe(pool, Pool.use(job)),
    "Pool.tryUse": () => Effect.zipRight(Pool.use(pool, job), Pool.tryUse(pool, job)),
    "Pool.get": () => Pool.get(pool),
    "Pool.lease": () => Pool.lease(pool),
    "KeyedPool.use": () => KeyedPool.use(keyedPool, "k", job),
    "KeyedPool.use, pipe": () => pipe(keyedPool, KeyedPool.use("k", job)),
    "KeyedPool.get": () => KeyedPool.get(keyedPool, "k"),
    "Shared.use": () => Shared.use(shared, job),
    "Shared.use, pipe": () => pipe(shared, Shared.use(job)),
    "Shared.get": () => Shared.get(shared),
    "Shared.useKey": () => Shared.useKey(keyedShared, "k", job),
    "Shared.useKey, pipe": () => pipe(keyedShared, Shared.useKey("k", job)),
    "Shared.getKey": () => Shared.getKey(keyedShared, "k"),
    "Lock.withLock": () => locked(work.pipe(Lock.withLock("k"))),
    "Lock.tryWithLock": () => locked(Lock.tryWithLock("k")(work)),
    "Lock.get": () => locked(Lock.get("k")),
    "Lock.tryGet": () => locked(Lock.tryGet("k")),
    "a lock service": () => work.pipe(locks.withLock("k")),
    "a lock service, get": () => locks.get("k"),
    "Managed.use": () =>
      Managed.use(
        Managed.make({ name: "m", acquire: work, release: () => Effect.void }),
        job
      )
  }
  return asks
})

const lines = fs.readFileSync(import.meta.filename, "utf8").split("\n")

/** Which form stands in that line of this file. */
const formAt = (line: number): string | undefined =>
  lines.slice(0, line).map((text) => /^ {4}"(.*)": \(\) =>/.exec(text)?.[1]).findLast((form) =>
    form !== undefined
  )

it.effect("Site-1: the user's line, in every form of every primitive", () =>
  Effect.scoped(Effect.gen(function*() {
    const asks = yield* forms
    for (const [form, ask] of Object.entries(asks)) {
      const ledger = yield* Ledger.make()
      yield* Effect.provideService(
        Effect.scoped(Effect.suspend(ask)),
        Ledger.Ledger,
        ledger
      )
      const { ended } = yield* ledger.snapshot
      // What a pool opens is asked for by the pool, what is shared by its first user.
      const entries = ended.filter(({ kind }) => kind !== "pool item")
      expect(`${form}: ${entries.length > 0}`).toBe(`${form}: true`)
      for (const { kind, site } of entries) {
        const [, line] = /test\/Ledger\.sites\.test\.ts:(\d+):\d+\)?$/.exec(site ?? "") ?? []
        expect(`${form} (${kind}): ${formAt(Number(line))}`).toBe(`${form} (${kind}): ${form}`)
      }
    }
  })))
