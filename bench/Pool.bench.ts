/** The cost of a borrow: ours, Effect's own, a masked bracket by hand as the floor, and the pools of npm that are installed. */
import { Effect, Exit, Scope } from "effect"
import * as EffectPool from "effect/Pool"
import * as Pool from "holdfast/Pool"
import type { Suite } from "./run.ts"

type Contenders = Record<string, () => Promise<unknown>>

const size = 10
const operations = 1_000
const scope = Effect.runSync(Scope.make())
const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Scope.extend(effect, scope))
const item = Effect.sync(() => ({}))
const noop = () => Effect.void
const hold = () => Effect.yieldNow()

const ours = await inScope(Pool.make({ acquire: item, max: size }))
const everything = await inScope(Pool.make({
  acquire: item,
  max: size,
  minIdle: size,
  acquireTimeout: "30 seconds",
  createTimeout: "10 seconds",
  validate: () => Effect.succeed(true),
  maxLifetime: "30 minutes",
  idleTimeout: "10 minutes",
  leakDetection: "1 minute"
}))
const effects = await inScope(EffectPool.make({ acquire: item, size }))

/** A pool by hand: a stack and a queue, without a bound on opening, deadlines or a close. */
const byHand = () => {
  const idle: Array<object> = Array.from({ length: size }, () => ({}))
  const queue: Array<{ item: object | undefined; gone: boolean; wake: () => void }> = []
  const put = (free: object): void => {
    for (let waiter = queue.shift(); waiter !== undefined; waiter = queue.shift()) {
      if (waiter.gone) continue
      waiter.item = free
      return waiter.wake()
    }
    idle.push(free)
  }
  return <A, E, R>(f: (one: object) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.uninterruptibleMask((restore) => {
      const run = (one: object) =>
        Effect.matchCauseEffect(restore(f(one)), {
          onFailure: (cause) => {
            put(one)
            return Effect.failCause(cause)
          },
          onSuccess: (value) => {
            put(one)
            return Effect.succeed(value)
          }
        })
      const free = idle.pop()
      if (free !== undefined) return run(free)
      const waiter = { item: undefined as object | undefined, gone: false, wake: () => {} }
      const wait = Effect.async<void>((resume) => {
        waiter.wake = () => resume(Effect.void)
        queue.push(waiter)
      })
      return Effect.matchCauseEffect(restore(wait), {
        onFailure: (cause) => {
          if (waiter.item === undefined) waiter.gone = true
          else put(waiter.item)
          return Effect.failCause(cause)
        },
        onSuccess: () => run(waiter.item!)
      })
    })
}
const useByHand = byHand()

const warm: Contenders = {}
const crowded: Contenders = {}

/** Not `repeatN`: it yields to the scheduler between two rounds, which costs as much as a borrow. */
const times = (effect: Effect.Effect<unknown, unknown>) => () => {
  let left = operations
  return Effect.runPromise(
    Effect.whileLoop({ while: () => left-- > 0, body: () => effect, step: () => {} })
  )
}
const together = (effect: Effect.Effect<unknown, unknown>) => () =>
  Effect.runPromise(
    Effect.forEach(Array.from({ length: operations }), () => effect, {
      concurrency: "unbounded",
      discard: true
    })
  )

const add = (
  name: string,
  use: (f: (one: object) => Effect.Effect<void>) => Effect.Effect<unknown, unknown>
): void => {
  warm[name] = times(use(noop))
  crowded[name] = together(use(hold))
}
add("Pool.use", (f) => Pool.use(ours, f))
add("Pool.use, every option on", (f) => Pool.use(everything, f))
add("a masked bracket by hand", useByHand)
add("Effect.scoped(Pool.get), ours", (f) => Effect.scoped(Effect.flatMap(Pool.get(ours), f)))
add(
  "Effect.scoped(Pool.get), effect 3",
  (f) => Effect.scoped(Effect.flatMap(EffectPool.get(effects), f))
)
warm["an empty loop"] = times(Effect.void)
crowded["fork and yield alone"] = together(Effect.yieldNow())

// The pools of npm. One that is not installed is left out by name.

const tick = () => new Promise<void>((resolve) => setImmediate(resolve))

const addRival = async (
  name: string,
  load: () => Promise<(work: (() => Promise<void>) | undefined) => Promise<void>>
): Promise<void> => {
  try {
    const borrow = await load()
    // Warm: every item has been made.
    await Promise.all(Array.from({ length: size }, () => borrow(tick)))
    warm[name] = async () => {
      for (let i = 0; i < operations; i++) await borrow(undefined)
    }
    crowded[name] = () => Promise.all(Array.from({ length: operations }, () => borrow(tick)))
  } catch (cause) {
    if (!(cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND")) {
      throw cause
    }
    console.log(`Pool: ${name} is not installed and is left out`)
  }
}

interface Acquirable<Item> {
  readonly acquire: () => Promise<Item>
  readonly release: (one: Item) => unknown
}

const borrowing =
  <Item>(pool: Acquirable<Item>) => async (work: (() => Promise<void>) | undefined) => {
    const one = await pool.acquire()
    if (work !== undefined) await work()
    await pool.release(one)
  }

const factory = { create: async () => ({}), destroy: async () => {} }
const long = 3_600_000
/** The compiler does not resolve this import, because a rival need not be installed. */
const rival = (name: string): Promise<Record<string, never>> => import(/* @vite-ignore */ name)

await addRival("generic-pool", async () => {
  const { createPool } = await rival("generic-pool") as unknown as {
    readonly createPool: (f: typeof factory, options: object) => Acquirable<object>
  }
  return borrowing(createPool(factory, { min: size, max: size }))
})
await addRival("tarn", async () => {
  const tarn = await rival("tarn") as unknown as {
    readonly Pool: new(options: object) => {
      readonly acquire: () => { readonly promise: Promise<object> }
      readonly release: (one: object) => boolean
    }
  }
  const pool = new tarn.Pool({ ...factory, min: size, max: size, idleTimeoutMillis: long })
  return borrowing({
    acquire: () => pool.acquire().promise,
    release: (one) => pool.release(one)
  })
})
await addRival("lightning-pool", async () => {
  const lightning = await rival("lightning-pool") as unknown as {
    readonly Pool: new(f: typeof factory, options: object) => Acquirable<object>
  }
  return borrowing(
    new lightning.Pool(factory, {
      min: size,
      max: size,
      maxQueue: operations,
      idleTimeoutMillis: long
    })
  )
})

process.once("beforeExit", () => Effect.runFork(Scope.close(scope, Exit.void)))

const suites: ReadonlyArray<Suite> = [
  { title: "Borrow and give back, warm", operations, contenders: warm },
  {
    title: "1,000 fibers on a pool of 10, each holds for one yield",
    operations,
    contenders: crowded
  }
]

export default suites
