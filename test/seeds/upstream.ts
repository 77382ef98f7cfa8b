/**
 * What the explorer finds in effect 3.22.4 itself, with the grade of reach it must find: a defect that is not seen any more
 * means that upstream has fixed it, or that the explorer has gone blind.
 */
import {
  Cache,
  Context,
  Duration,
  Effect,
  Layer,
  LayerMap,
  PartitionedSemaphore,
  Pool,
  RcMap,
  RcRef,
  Reloadable,
  type Scope,
  ScopedCache,
  ScopedRef,
  Stream
} from "effect"
import { Nursery } from "holdfast"
import { Explore, type Probe } from "holdfast/Testing"

// No export of the package: what its `Entity` and `Sharding` hold clients in.
const resourceMap = "../../node_modules/@effect/cluster/dist/esm/internal/resourceMap.js"
interface Cluster {
  readonly ResourceMap: {
    readonly make: <A, E>(
      lookup: (key: string) => Effect.Effect<A, E, Scope.Scope>
    ) => Effect.Effect<{ readonly get: (key: string) => Effect.Effect<A, E> }, never, Scope.Scope>
  }
}
const { ResourceMap }: Cluster = await import(new URL(resourceMap, import.meta.url).href)

export interface Seed {
  readonly name: string
  readonly explore: (options?: Explore.Options) => Promise<Explore.Verdict>
  /** Runs the finding's plain program on the subject; or on the subject mended by a mask, in which nothing can be cut. */
  readonly certify?:
    | ((finding: Explore.Finding, isMasked?: boolean) => Promise<Explore.Certificate>)
    | undefined
  readonly grade: Explore.Grade | undefined
  readonly law?: Explore.Violation["law"] | undefined
  /** The same body inside `Nursery.run`, which is interrupted where it waits. */
  readonly inNursery?: ((options?: Explore.Options) => Promise<Explore.Verdict>) | undefined
}

const exits = "the target exits"
const released = "all is released"
const second = "the second use is as the first"

/** What needs no unlucky yield (R0) stays inside a nursery. */
export const gradeInNursery = ({ grade }: Seed): Explore.Grade | undefined =>
  grade === "R0" ? grade : undefined

class One extends Context.Tag("One")<One, unknown>() {}
class Two extends Context.Tag("Two")<Two, unknown>() {}

type Run = typeof Explore.interruptions

const certifyOn =
  <S>(subject: Explore.Subject<S>) => (finding: Explore.Finding, isMasked = false) =>
    Explore.certify(
      finding,
      isMasked
        ? { ...subject, body: (state, probe) => Effect.uninterruptible(subject.body(state, probe)) }
        : subject
    )

const slow: Probe.Options = { acquireTakes: "10 millis" }

export const upstream = (run: Run): ReadonlyArray<Seed> => {
  const seed = <S = void>(
    grade: Explore.Grade | undefined,
    law: Explore.Violation["law"] | undefined,
    subject: Explore.Subject<S>
  ): Seed => ({
    name: subject.name,
    grade,
    law,
    explore: (options) => run(subject, options),
    inNursery: (options) =>
      run({ ...subject, body: (state, probe) => Nursery.run(subject.body(state, probe)) }, options),
    certify: certifyOn(subject)
  })
  return [
    seed("R1", exits, {
      name: "forEach",
      body: () => Effect.forEach([1, 2, 3], (n) => Effect.sleep(n), { concurrency: 2 })
    }),
    seed("R1", exits, {
      name: "all",
      body: () => Effect.all([Effect.sleep(1), Effect.sleep(2)], { concurrency: "unbounded" })
    }),
    seed("R1", exits, {
      name: "zip",
      body: () => Effect.zip(Effect.sleep(1), Effect.sleep(2), { concurrent: true })
    }),
    seed("R1", exits, {
      name: "race",
      body: () => Effect.race(Effect.sleep(1), Effect.sleep(2))
    }),
    seed("R1", exits, {
      name: "raceFirst",
      body: () => Effect.raceFirst(Effect.sleep(1), Effect.sleep(2))
    }),
    seed("R1", exits, {
      name: "Layer.mergeAll",
      body: (_, probe) =>
        Effect.provide(
          Effect.void,
          Layer.mergeAll(
            Layer.scoped(One, probe.resource("one")),
            Layer.scoped(Two, probe.resource("two"))
          )
        )
    }),
    seed("R0", released, {
      name: "RcRef.get, slow acquire",
      setup: (probe) => RcRef.make({ acquire: probe.resource("r", slow) }),
      body: (ref) => Effect.scoped(RcRef.get(ref))
    }),
    seed("R2", released, {
      name: "RcRef.get",
      setup: (probe) => RcRef.make({ acquire: probe.resource("r") }),
      body: (ref) => Effect.scoped(RcRef.get(ref))
    }),
    seed("R0", released, {
      name: "ScopedRef.set, slow acquire",
      setup: (probe) => ScopedRef.fromAcquire(probe.resource("r", slow)),
      body: (ref, probe) => ScopedRef.set(ref, probe.resource("r", slow))
    }),
    seed("R2", released, {
      name: "ScopedRef.set",
      setup: (probe) => ScopedRef.fromAcquire(probe.resource("r")),
      body: (ref, probe) => ScopedRef.set(ref, probe.resource("r"))
    }),
    seed("R0", released, {
      name: "ScopedCache.get",
      setup: (probe) =>
        ScopedCache.make({
          capacity: 2,
          timeToLive: Duration.infinity,
          lookup: (name: string) => probe.resource(name, slow)
        }),
      body: (cache) => Effect.scoped(cache.get("a"))
    }),
    seed("R1", released, {
      name: "withEarlyRelease",
      body: (_, probe) =>
        Effect.flatMap(Effect.withEarlyRelease(probe.resource("r")), ([release]) => release)
    }),
    seed("R4", second, {
      name: "Semaphore.withPermits",
      setup: Effect.makeSemaphore(1),
      body: (semaphore) => semaphore.withPermits(1)(Effect.yieldNow())
    }),
    seed("R4", second, {
      name: "Pool.get",
      setup: (probe) => Pool.make({ acquire: probe.resource("r"), size: 1 }),
      body: (pool) => Effect.scoped(pool.get)
    }),
    // What effect does right.
    seed(undefined, undefined, {
      name: "acquireRelease",
      body: (_, probe) => probe.resource("r", slow)
    }),
    seed(undefined, undefined, {
      name: "acquireUseRelease",
      body: (_, probe) =>
        Effect.acquireUseRelease(
          probe.acquire("r"),
          () => Effect.yieldNow(),
          (handle) => probe.release(handle)
        )
    }),
    seed(undefined, undefined, {
      name: "RcMap.get",
      setup: (probe) => RcMap.make({ lookup: (name: string) => probe.resource(name, slow) }),
      body: (map) => Effect.scoped(RcMap.get(map, "a"))
    }),
    seed(undefined, undefined, {
      name: "timeout",
      body: (_, probe) => Effect.timeoutOption(probe.resource("r", slow), "5 millis")
    })
  ]
}

/** Found here for the first time. They take long, so that only `npm run explore` looks for them, and not inside a nursery. */
export const upstreamMore = (run: Run): ReadonlyArray<Seed> => {
  const seed = <S = void>(
    grade: Explore.Grade,
    law: Explore.Violation["law"],
    subject: Explore.Subject<S>
  ): Seed => ({
    name: subject.name,
    grade,
    law,
    explore: (options) => run(subject, options),
    certify: certifyOn(subject)
  })
  const minute = { idleTimeToLive: "1 minute" } as const
  return [
    seed("R2", "the invariant holds", {
      name: "Effect.async, before its canceler is installed",
      setup: Effect.sync(() => ({ open: 0 })),
      body: (state) =>
        Effect.timeoutOption(
          Effect.async<never>(() => {
            state.open++
            return Effect.sync(() => state.open--)
          }),
          3
        ),
      invariant: ({ open }) => open === 0
    }),
    seed("R3", released, {
      name: "RcMap.invalidate",
      setup: (probe) => RcMap.make({ lookup: (name: string) => probe.resource(name), ...minute }),
      body: (map) => Effect.zipRight(Effect.scoped(RcMap.get(map, "a")), RcMap.invalidate(map, "a"))
    }),
    seed("R3", released, {
      name: "LayerMap.invalidate",
      setup: (probe) =>
        LayerMap.make((name: string) => Layer.scoped(One, probe.resource(name)), minute),
      body: (map) =>
        Effect.zipRight(
          Effect.scoped(Effect.provide(One, map.get("a"))),
          map.invalidate("a")
        )
    }),
    seed("R1", released, {
      name: "ScopedCache.invalidate",
      setup: (probe) =>
        ScopedCache.make({
          capacity: 2,
          timeToLive: Duration.infinity,
          lookup: (name: string) => probe.resource(name)
        }),
      body: (cache) => Effect.zipRight(Effect.scoped(cache.get("a")), cache.invalidate("a"))
    }),
    seed("R1", second, {
      name: "Cache.refresh",
      setup: Cache.make({
        capacity: 2,
        timeToLive: Duration.infinity,
        lookup: (name: string) => Effect.as(Effect.sleep(5), name)
      }),
      body: (cache) => Effect.zipRight(cache.get("a"), cache.refresh("a"))
    }),
    seed("R0", second, {
      name: "PartitionedSemaphore.withPermits, waiting",
      setup: PartitionedSemaphore.make<string>({ permits: 1 }),
      body: (semaphore) =>
        Effect.gen(function*() {
          yield* Effect.forkScoped(semaphore.withPermits("a", 1)(Effect.sleep(5)))
          yield* Effect.yieldNow()
          yield* semaphore.withPermits("b", 1)(Effect.yieldNow())
        })
    }),
    seed("R0", released, {
      name: "Reloadable.reload",
      setup: (probe) =>
        Layer.build(
          Reloadable.manual(One, { layer: Layer.scoped(One, probe.resource("one", slow)) })
        ),
      body: (context) =>
        Effect.provide(Effect.zipRight(Reloadable.reload(One), Reloadable.get(One)), context)
    }),
    seed("R0", released, {
      name: "cluster's ResourceMap.get",
      setup: (probe) => ResourceMap.make((name) => probe.resource(name, slow)),
      body: (map) => map.get("a")
    }),
    seed("R3", released, {
      name: "Stream.share",
      setup: (): Effect.Effect<Stream.Stream<number>, never, Scope.Scope> =>
        Stream.share(Stream.make(1, 2), { capacity: 2 }),
      body: (stream) => Stream.runDrain(stream)
    }),
    seed("R3", exits, {
      name: "Stream.merge",
      body: () => Stream.runDrain(Stream.merge(Stream.make(1), Stream.make(2)))
    }),
    seed("R3", exits, {
      name: "Stream.zipLatest",
      body: () => Stream.runDrain(Stream.zipLatest(Stream.make(1), Stream.make(2)))
    }),
    seed("R3", exits, {
      name: "Stream.debounce",
      body: () => Stream.runDrain(Stream.debounce(Stream.make(1, 2), "1 millis"))
    })
  ]
}
