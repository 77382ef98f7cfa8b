/**
 * `npm run bench -- goals [--json]`: measures what goals.ts lists, prints it, and writes bench/RESULTS.md.
 *
 * Ours and the rival's run in turns in one process, on `dist`, as users get it; the figures are medians. On a busy machine run it
 * again.
 */
import { Mutex as AsyncMutex } from "async-mutex"
import { Effect, Fiber, Pool as EffectPool, Scope } from "effect"
import { createPool } from "generic-pool"
import { Ledger, Managed, Mutex, Nursery, Parallel, Pool, Semaphore } from "holdfast"
import { createPool as createLightning } from "lightning-pool"
import { Pool as Tarn } from "tarn"
import { type Figures, format, type Goal, goals, type Id, isMet, ratioOf } from "./goals.ts"
import { now, write } from "./results.ts"

type Work = (n: number) => Promise<unknown>

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

const nanosPerOperation = async (work: Work, n: number): Promise<number> => {
  const began = performance.now()
  await work(n)
  return ((performance.now() - began) * 1e6) / n
}

/** Nanoseconds per operation of each contender, medians; the rounds are interleaved, the warm-up is left out. */
const measure = async <K extends string>(
  contenders: Readonly<Record<K, Work>>,
  operations: number,
  rounds: number,
  exceptions: Readonly<Record<string, number>> = {}
): Promise<Record<K, number>> => {
  const names = Object.keys(contenders) as Array<K>
  const seen = new Map<K, Array<number>>(names.map((name) => [name, []]))
  const warmup = Math.ceil(rounds / 2)
  for (let round = -warmup; round < rounds; round++) {
    for (const name of names) {
      const nanos = await nanosPerOperation(contenders[name], exceptions[name] ?? operations)
      if (round >= 0) seen.get(name)!.push(nanos)
    }
  }
  return Object.fromEntries(names.map((name) => [name, median(seen.get(name)!)])) as Record<
    K,
    number
  >
}

const times = (n: number, effect: Effect.Effect<unknown, unknown>) =>
  Effect.suspend(() => {
    let i = 0
    return Effect.whileLoop({ while: () => i < n, body: () => effect, step: () => void i++ })
  })
const loop = (effect: Effect.Effect<unknown, unknown>): Work => (n) =>
  Effect.runPromise(times(n, effect))
const trackedLoop = (effect: Effect.Effect<unknown, unknown>): Work => (n) =>
  Effect.runPromise(Nursery.tracked(times(n, effect)))
const crowd = (effect: Effect.Effect<unknown, unknown>): Work => (n) =>
  Effect.runPromise(
    Effect.forEach(Array.from({ length: n }), () => effect, {
      concurrency: "unbounded",
      discard: true
    })
  )
const promises = (one: () => Promise<unknown>): Work => async (n) => {
  for (let i = 0; i < n; i++) await one()
}
const crowdOfPromises = (one: () => Promise<unknown>): Work => (n) =>
  Promise.all(Array.from({ length: n }, one))

/** The floor: a hand-written masked bracket without any other feature of a pool. */
const handWritten = (items: Array<object>) => {
  const use = (f: (item: object) => Effect.Effect<unknown>): Effect.Effect<unknown> =>
    Effect.uninterruptibleMask((restore) => {
      const item = items.pop()!
      return Effect.matchCauseEffect(restore(f(item)), {
        onFailure: (cause) => {
          items.push(item)
          return Effect.failCause(cause)
        },
        onSuccess: (value) => {
          items.push(item)
          return Effect.succeed(value)
        }
      })
    })
  return use(() => Effect.void)
}

const size = 10
const connect = Effect.acquireRelease(Effect.sync(() => ({})), () => Effect.void)

const pools = async (scope: Scope.Scope) => {
  const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
    Effect.runPromise(Scope.extend(effect, scope))
  const ours = await inScope(Pool.make({ acquire: connect, max: size }))
  const effects = await inScope(EffectPool.make({ acquire: connect, size }))
  const create = async () => ({})
  const destroy = async () => {}
  const generic = createPool({ create, destroy }, { min: size, max: size })
  const tarn = new Tarn({ create, destroy: () => {}, min: size, max: size })
  const lightning = createLightning({ create, destroy }, { min: size, max: size })
  const warm = await measure(
    {
      ours: loop(Effect.ignore(Pool.use(ours, () => Effect.void))),
      bare: loop(Pool.use(ours, () => Effect.void)),
      effect: loop(Effect.scoped(EffectPool.get(effects))),
      hand: loop(handWritten(Array.from({ length: size }, () => ({})))),
      generic: promises(() => generic.use(create)),
      tarn: promises(async () => {
        tarn.release(await tarn.acquire().promise)
      }),
      lightning: promises(async () => {
        const item = await lightning.acquire()
        await lightning.releaseAsync(item)
      })
    },
    20_000,
    9
  )
  const held = Pool.use(ours, () => Effect.yieldNow())
  const crowded = await measure(
    {
      ours: crowd(held),
      effect: crowd(Effect.scoped(Effect.zipRight(EffectPool.get(effects), Effect.yieldNow())))
    },
    1_000,
    5
  )
  await generic.drain()
  await generic.clear()
  await tarn.destroy()
  await lightning.closeAsync(0)
  return {
    poolEffect: [warm.ours, warm.effect],
    poolHand: [warm.ours, warm.hand],
    poolGeneric: [warm.ours, warm.generic],
    poolTarn: [warm.ours, warm.tarn],
    poolLightning: [warm.ours, warm.lightning],
    poolCrowd: [crowded.ours, crowded.effect]
  } satisfies Partial<Record<Id, Figures>>
}

const locks = async () => {
  const mutex = Mutex.unsafeMake()
  const permit = Semaphore.unsafeMake(1)
  const effects = Effect.unsafeMakeSemaphore(1)
  const asyncMutex = new AsyncMutex()
  const alone = await measure(
    {
      ours: loop(Mutex.withLock(Effect.void, mutex)),
      effect: loop(effects.withPermits(1)(Effect.void)),
      async: promises(() => asyncMutex.runExclusive(() => {}))
    },
    20_000,
    9
  )
  const held = Semaphore.withPermits(permit, 1)(Effect.yieldNow())
  const crowded = await measure(
    {
      ours: crowd(held),
      ourHundred: async (n) => {
        for (let i = 0; i < n; i += 100) await crowd(held)(100)
      },
      ourTenThousand: crowd(held),
      baseline: crowd(Effect.yieldNow()),
      baseHundred: async (n) => {
        for (let i = 0; i < n; i += 100) await crowd(Effect.yieldNow())(100)
      },
      baseTenThousand: crowd(Effect.yieldNow()),
      async: crowdOfPromises(() =>
        asyncMutex.runExclusive(async () => {
          await Promise.resolve()
        })
      )
    },
    1_000,
    9,
    { ourHundred: 10_000, ourTenThousand: 10_000, baseHundred: 10_000, baseTenThousand: 10_000 }
  )
  const herd = await measure({ effect: crowd(effects.withPermits(1)(Effect.yieldNow())) }, 1_000, 3)
  return {
    mutexEffect: [alone.ours, alone.effect],
    mutexAsync: [alone.ours, alone.async],
    crowdEffect: [crowded.ours, herd.effect],
    perTask: [crowded.ourTenThousand, crowded.ourHundred],
    perTaskNet: [
      crowded.ourTenThousand / crowded.baseTenThousand,
      crowded.ourHundred / crowded.baseHundred
    ],
    crowdAsync: [Math.max(1, crowded.ours - crowded.baseline), crowded.async]
  } satisfies Partial<Record<Id, Figures>>
}

const peakHeap = async (n: number): Promise<number> => {
  let peak = 0
  const watched = (function*() {
    for (let i = 0; i < n; i++) {
      if (i % 1000 === 0) peak = Math.max(peak, process.memoryUsage().heapUsed)
      yield i
    }
  })()
  globalThis.gc?.()
  await Effect.runPromise(
    Parallel.forEach(watched, () => Effect.yieldNow(), { concurrency: 16, discard: true })
  )
  return peak
}

const parallel = async () => {
  const body = () => Effect.void
  const options = { concurrency: 16, discard: true } as const
  const items = (n: number) => Array.from({ length: n }, (_, i) => i)
  const each = await measure(
    {
      ours: (n) => Effect.runPromise(Parallel.forEach(items(n), body, options)),
      effect: (n) => Effect.runPromise(Effect.forEach(items(n), body, options))
    },
    1_000_000,
    3
  )
  const small = await peakHeap(20_000)
  const large = await peakHeap(400_000)
  return {
    forEach: [each.ours, each.effect],
    heap: [large / 1e6, small / 1e6]
  } satisfies Partial<Record<Id, Figures>>
}

/** Runs per second of one exploration after the other, for three seconds: the median. */
const runsPerSecond = async (body: Effect.Effect<void>): Promise<number> => {
  const { Explore } = await import("holdfast/Testing")
  const subject = {
    name: "Pool.use",
    setup: Pool.make({ acquire: connect, max: 2 }),
    body: (pool: Pool.Pool<object, Pool.PoolClosed>) => Pool.use(pool, () => body)
  }
  const seen: Array<number> = []
  const began = performance.now()
  while (performance.now() - began < 3000) {
    const from = performance.now()
    const { runs } = await Explore.interruptions(subject)
    seen.push((runs * 1000) / (performance.now() - from))
  }
  return median(seen)
}

const explorer = async () =>
  ({
    explorer: [await runsPerSecond(Effect.void), 10_000],
    explorerYield: [await runsPerSecond(Effect.yieldNow()), 10_000]
  }) satisfies Partial<Record<Id, Figures>>

/** In nanoseconds: the median of some snapshots of a ledger with that many resources held. */
const snapshotNanos = (held: number): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(Effect.gen(function*() {
      for (let i = 0; i < held; i++) {
        yield* Managed.make({ name: `r${i}`, acquire: Effect.void, release: () => Effect.void })
      }
      const taken: Array<number> = []
      for (let i = 0; i < 15; i++) {
        const began = performance.now()
        yield* Ledger.snapshot
        taken.push((performance.now() - began) * 1e6)
      }
      return median(taken)
    })).pipe(Effect.provide(Ledger.layer()))
  )

const lifecycle = async () => {
  const acquire = Effect.succeed(1)
  const done = () => Effect.void
  const thing = Managed.make({ name: "thing", acquire, release: done })
  const forked = Effect.flatMap(Effect.fork(Effect.void), Fiber.join)
  // The line is captured where `use` is called, so it is called anew each time: in a generator, as users write it, and in a
  // thunk. There V8 reads one frame more, that of Effect's run loop, before it sees that it has enough.
  const inGenerator = (n: number) =>
    Effect.gen(function*() {
      for (let i = 0; i < n; i++) yield* Managed.use(thing, done)
    })
  const calledAnew = Effect.suspend(() => Managed.use(thing, done))
  const inThunk = (n: number) => times(n, calledAnew)
  const recorded = (each: typeof inThunk, sites: Ledger.Sites): Work => (n) =>
    Effect.runPromise(Effect.provide(each(n), Ledger.layer({ sites })))
  const took = await measure(
    {
      ours: loop(Managed.use(thing, done)),
      effect: loop(Effect.acquireUseRelease(acquire, done, done)),
      tracked: trackedLoop(Managed.use(thing, done)),
      fork: loop(forked),
      trackedFork: trackedLoop(forked),
      generator: (n) => Effect.runPromise(inGenerator(n)),
      generatorOff: recorded(inGenerator, "off"),
      generatorFirst: recorded(inGenerator, "first"),
      thunkOff: recorded(inThunk, "off"),
      thunkFirst: recorded(inThunk, "first")
    },
    20_000,
    15
  )
  return {
    managed: [took.ours, took.effect],
    trackedUse: [took.tracked, took.effect],
    trackedFork: [took.trackedFork, took.fork],
    siteInGenerator: [took.generatorFirst - took.generatorOff, 3_000],
    siteInThunk: [took.thunkFirst - took.thunkOff, 3_000],
    ledgerAndSite: [took.generatorFirst - took.generator, 3_000],
    snapshot: [await snapshotNanos(10_000), 20_000_000]
  } satisfies Partial<Record<Id, Figures>>
}

/** Measures all, prints, and writes bench/RESULTS.md; the exit code says whether every goal is met. */
export const run = async (asJson: boolean): Promise<void> => {
  const began = now()
  const scope = Effect.runSync(Scope.make())
  const figures: Record<Id, Figures> = {
    ...await lifecycle(),
    ...await pools(scope),
    ...await locks(),
    ...await parallel(),
    ...await explorer()
  }
  const rows = Object.entries<Goal>(goals)
    .map(([id, goal]) => ({ goal, figures: figures[id as Id] }))
  for (const { figures: [ours, theirs], goal } of rows) {
    const met = isMet(goal, [ours, theirs])
    const ratio = ratioOf([ours, theirs])
    console.log(
      asJson
        ? JSON.stringify({ ...goal, ours, theirs, ratio, met })
        : `${met ? "met   " : "MISSED"} ${goal.work} against ${goal.against}: `
          + `${format(goal, ours)} : ${format(goal, theirs)} = ${ratio} (${goal.goal})`
    )
  }
  write(rows, began)
  process.exit(rows.every(({ figures, goal }) => isMet(goal, figures)) ? 0 : 1)
}
