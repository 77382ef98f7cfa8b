/**
 * Parallel: `all`, `forEach` and `race` that may share one scoped resource safely.
 *
 * DESIGN. Workers that pull from one iterator (internal/workers.ts). The same signatures as Effect's `all` and `forEach`,
 * without their two defects under a shared scope: in effect 3.22.4 a bounded `forEach` returns, and its scope releases,
 * while one sibling still runs after a failure; and both can hang for ever when interrupted at an unlucky moment.
 *
 * INVARIANTS
 * - Parallel-1 (L10) When it returns, no item is running: a resource acquired outside is released after its last user.
 * - Parallel-2 An interrupted call always returns.
 * - Parallel-3 The first failure stops the intake and interrupts and awaits the siblings; every failure that happened
 *   meanwhile is in the cause.
 * - Parallel-4 At most `concurrency` items are in flight, and the input is pulled only by a free worker: memory does not
 *   depend on its length (with `discard`).
 * - Parallel-5 A race is over when its losers have ended; what they failed with on the way out is kept.
 *
 * COST one fork per worker; per item about 0.4 µs over the item itself. `"unbounded"` forks once per item.
 * NOT DONE here yet: the modes `"either"` and `"validate"` of `Effect.all`.
 * SOURCES p-map's pull model; Trio's nursery (the block ends after its last child).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import type * as Types from "effect/Types"
import * as Source from "./internal/source.ts"
import * as Workers from "./internal/workers.ts"

/**
 * How many at once, and whether the results are wanted. Without `concurrency`: one after the other.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly concurrency?: Types.Concurrency | undefined
  readonly discard?: boolean | undefined
}

const widthOf = (
  concurrency: Types.Concurrency | undefined
): Effect.Effect<number> => {
  if (concurrency === "inherit") {
    return Effect.map(
      FiberRef.get(FiberRef.currentConcurrency),
      (inherited) => inherited === "unbounded" ? Number.POSITIVE_INFINITY : inherited
    )
  }
  return Effect.succeed(
    concurrency === "unbounded" ? Number.POSITIVE_INFINITY : concurrency ?? 1
  )
}

const isPositive = (width: number): boolean => width >= 1

const runAll = <A, B, E, R>(
  items: Iterable<A>,
  f: (item: A, index: number) => Effect.Effect<B, E, R>,
  width: number,
  keep: ((value: B, index: number) => void) | undefined
): Effect.Effect<void, E, R> => {
  if (!isPositive(width)) {
    return Effect.die(new RangeError(`Parallel-4: concurrency must be 1 or more; got ${width}.`))
  }
  // One fiber per item needs to know how many there are.
  const source = width === Number.POSITIVE_INFINITY ? Array.from(items) : items
  const count = Array.isArray(source) ? Math.min(width, source.length) : width
  const crew = Workers.makeCrew<E>()
  const intake = Source.make(source)
  const worker = (): Effect.Effect<void, E, R> => {
    let taken: Source.Taken<A> | undefined
    return Effect.whileLoop({
      while: () => !crew.stopped && (taken = intake.pull()) !== undefined,
      body: () => f(taken!.item, taken!.index),
      step: keep === undefined ? () => {} : (value) => keep(value, taken!.index)
    })
  }
  const crewed = Effect.suspend(() =>
    Workers.run(crew, { count, worker, isDry: intake.isExhausted })
  )
  return Effect.ensuring(
    width === 1 ? Effect.suspend(worker) : Effect.zipRight(crewed, Workers.inherit(crew)),
    Effect.sync(intake.close)
  )
}

/**
 * Runs `f` on every item, at most `concurrency` at once, and returns the results in input order (or nothing, with
 * `discard`).
 *
 * **Details** — When it returns, in whatever way, no item is running any more (Parallel-1). The input is pulled by free
 *   workers only and is closed early when the run ends early.
 * **Interruption** — Every item is interrupted and awaited, then the interrupt is seen.
 * **Errors** — The first failure interrupts the siblings; the cause holds all failures of that moment in parallel. A
 *   concurrency below 1 is a `RangeError` defect.
 * **Cost** — one fork per worker, about 0.4 µs per item.
 *
 * **Example** (one shared resource, released after its last user)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Parallel } from "holdfast"
 *
 * const log: Array<string> = []
 * const pen = Managed.make({
 *   name: "pen",
 *   acquire: Effect.succeed({ write: (n: number) => log.push(`wrote ${n}`) }),
 *   release: () => Effect.sync(() => log.push("put away"))
 * })
 * const program = Managed.use(pen, (pen) =>
 *   Parallel.forEach([1, 2, 3], (n) => Effect.sync(() => pen.write(n)), { concurrency: 2 }))
 * await Effect.runPromise(program)
 * log // => ["wrote 1", "wrote 2", "wrote 3", "put away"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const forEach: {
  <A, B, E, R>(
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options: Options & { readonly discard: true }
  ): (items: Iterable<A>) => Effect.Effect<void, E, R>
  <A, B, E, R>(
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options?: Options
  ): (items: Iterable<A>) => Effect.Effect<Array<B>, E, R>
  <A, B, E, R>(
    items: Iterable<A>,
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options: Options & { readonly discard: true }
  ): Effect.Effect<void, E, R>
  <A, B, E, R>(
    items: Iterable<A>,
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options?: Options
  ): Effect.Effect<Array<B>, E, R>
} = dual(
  (args) => Predicate.isIterable(args[0]),
  <A, B, E, R>(
    items: Iterable<A>,
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options?: Options
  ): Effect.Effect<Array<B> | void, E, R> =>
    Effect.flatMap(widthOf(options?.concurrency), (width) => {
      if (options?.discard === true) return runAll(items, f, width, undefined)
      const results: Array<B> = []
      return Effect.as(
        runAll(items, f, width, (value, index) => {
          results[index] = value
        }),
        results
      )
    })
)

/**
 * Runs a list or a record of effects and returns their results in the same shape.
 *
 * **Details**, **Interruption**, **Errors**, **Cost** — as `forEach`.
 *
 * **Example**
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel } from "holdfast"
 *
 * const both = Parallel.all({ a: Effect.succeed(1), b: Effect.succeed("x") }, { concurrency: 2 })
 * await Effect.runPromise(both) // => { a: 1, b: "x" }
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const all = <
  const Arg extends
    | Iterable<Effect.Effect<any, any, any>>
    | Record<string, Effect.Effect<any, any, any>>,
  O extends Types.NoExcessProperties<Options, O>
>(
  effects: Arg,
  options?: O
): Effect.All.Return<Arg, O> => {
  type Any = Effect.Effect<unknown, unknown, unknown>
  const identity = (effect: Any): Any => effect
  const run = (items: Iterable<Any>) =>
    options?.discard === true
      ? forEach(items, identity, { ...options, discard: true })
      : forEach(items, identity, options)
  const result: Effect.Effect<unknown, unknown, unknown> = Predicate.isIterable(effects)
    ? run(effects as Iterable<Any>)
    : allRecord(effects as Record<string, Any>, run)
  // The conditional type is Effect's own; it cannot be followed through the two branches.
  return result as Effect.All.Return<Arg, O>
}

const allRecord = (
  effects: Record<string, Effect.Effect<unknown, unknown, unknown>>,
  run: (
    items: Iterable<Effect.Effect<unknown, unknown, unknown>>
  ) => Effect.Effect<Array<unknown> | void, unknown, unknown>
): Effect.Effect<unknown, unknown, unknown> => {
  const keys = Object.keys(effects)
  return Effect.map(
    run(Object.values(effects)),
    (values) =>
      values === undefined
        ? undefined
        : Object.fromEntries(keys.map((key, index) => [key, values[index]]))
  )
}

/** How a race stands. Guarded by the single thread; written only by its racers. */
interface Race<A, E> {
  won: { readonly exit: Exit.Exit<A, E>; readonly index: number } | undefined
  readonly lost: Array<Cause.Cause<E>>
}

/** Runs all at once until `wins` accepts an exit; then the others are interrupted and awaited. */
const runRace = <A, E, R>(
  effects: ReadonlyArray<Effect.Effect<A, E, R>>,
  wins: (exit: Exit.Exit<A, E>) => boolean
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const crew = Workers.makeCrew<never>()
    const race: Race<A, E> = { won: undefined, lost: [] }
    const racer = (index: number) =>
      Effect.flatMap(Effect.exit(effects[index]!), (exit) =>
        Effect.sync(() => {
          if (race.won === undefined && wins(exit)) {
            race.won = { exit, index }
            Workers.cut(crew)
          } else if (
            Exit.isFailure(exit) && !(crew.stopped && Cause.isInterruptedOnly(exit.cause))
          ) {
            race.lost.push(exit.cause)
          }
        }))
    return Effect.zipRight(
      Workers.run(crew, { count: effects.length, worker: racer }),
      Effect.suspend(() => finish(race, crew))
    )
  })

const finish = <A, E>(race: Race<A, E>, crew: Workers.Crew<never>): Effect.Effect<A, E> => {
  if (race.won === undefined) {
    return race.lost.length === 0
      ? Effect.die(
        new RangeError("Parallel-5: a race of nobody has no winner; give it one effect or more.")
      )
      : Effect.failCause(race.lost.reduce(Cause.parallel))
  }
  const { exit, index } = race.won
  if (Exit.isFailure(exit)) return Effect.failCause(race.lost.reduce(Cause.parallel, exit.cause))
  // A loser's failure is news only if it is a defect: of failures a race is allowed to have some (Parallel-5).
  const defects = race.lost.filter(Cause.isDie)
  return defects.length > 0
    ? Effect.failCause(defects.reduce(Cause.parallel))
    : Effect.zipRight(crew.fibers[index]!.inheritAll, exit)
}

/**
 * Runs all effects at once and returns the first success; the others are interrupted and awaited.
 *
 * **Details** — As `Effect.raceAll`, but it always ends when interrupted and never before its losers. Fails when all have
 *   failed. A defect of a loser, in its release say, fails the race: it is not dropped (Parallel-5).
 * **Interruption** — All are interrupted and awaited. **Errors** — all failures in parallel, if none succeeds.
 * **Cost** — one fork per effect.
 *
 * @category racing
 * @since 0.1.0
 */
export const raceAll = <Eff extends Effect.Effect<any, any, any>>(
  effects: Iterable<Eff>
): Effect.Effect<
  Effect.Effect.Success<Eff>,
  Effect.Effect.Error<Eff>,
  Effect.Effect.Context<Eff>
> =>
  Effect.suspend(() =>
    runRace<
      Effect.Effect.Success<Eff>,
      Effect.Effect.Error<Eff>,
      Effect.Effect.Context<Eff>
    >(Array.from(effects), Exit.isSuccess)
  )

/**
 * The first success of two; the other is interrupted and awaited.
 *
 * **Details**, **Interruption**, **Errors**, **Cost** — as `raceAll`.
 *
 * **Example** (the loser has let go before the race returns)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel } from "holdfast"
 *
 * const log: Array<string> = []
 * const slow = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("let go")))
 * log.push(await Effect.runPromise(Parallel.race(slow, Effect.as(Effect.sleep("1 millis"), "won"))))
 * log // => ["let go", "won"]
 * ```
 *
 * @category racing
 * @since 0.1.0
 */
export const race: {
  <A2, E2, R2>(
    that: Effect.Effect<A2, E2, R2>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A | A2, E | E2, R | R2>
  <A, E, R, A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    that: Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2>
} = dual(
  2,
  <A, E, R, A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    that: Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2> =>
    raceAll<Effect.Effect<A | A2, E | E2, R | R2>>([self, that])
)

/**
 * The first of two to end, in success or failure; the other is interrupted and awaited.
 *
 * **Details**, **Interruption**, **Cost** — as `raceAll`. **Errors** — those of the first to end.
 *
 * @category racing
 * @since 0.1.0
 */
export const raceFirst: {
  <A2, E2, R2>(
    that: Effect.Effect<A2, E2, R2>
  ): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A | A2, E | E2, R | R2>
  <A, E, R, A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    that: Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2>
} = dual(
  2,
  <A, E, R, A2, E2, R2>(
    self: Effect.Effect<A, E, R>,
    that: Effect.Effect<A2, E2, R2>
  ): Effect.Effect<A | A2, E | E2, R | R2> =>
    Effect.suspend(() => runRace<A | A2, E | E2, R | R2>([self, that], () => true))
)
