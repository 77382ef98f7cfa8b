import { describe, expect, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { ExitStack, Managed, Mutex, Nursery, Parallel, Pool, Semaphore, Shared } from "holdfast"

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
    Effect.zipRight(Effect.fork(Effect.zipRight(Effect.fork(item(2)), Effect.sleep(2))), Effect.sleep(3))
}

const brackets: Record<
  string,
  (use: (db: Db) => Effect.Effect<unknown, unknown>) => {
    readonly log: Array<string>
    readonly program: Effect.Effect<unknown, unknown>
  }
> = {}

describe("Nursery", () => {
  for (const [name, operator] of Object.entries(operators)) {
    it(`Tracker-1: ${name} inside Managed.use is released after its last fiber`, async () => {
      const { db, item, log } = makeDb()
      const program = Managed.use(db, (db) => operator(item(db)))
      await settled(Nursery.run(program))
      expect(log.at(-1)).toBe("released")
      expect(log.join()).not.toContain("open=false")
    })
  }

  it("raw Effect releases under a running sibling", async () => {
    const { db, item, log } = makeDb()
    await settled(Managed.use(db, (db) => operators.forEach!(item(db))))
    expect(log).toEqual(["released", "commit 2, open=false"])
  })
})
