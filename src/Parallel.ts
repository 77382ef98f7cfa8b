/**
 * Parallel: `all`, `forEach` and `race` that may share one scoped resource safely.
 *
 * DESIGN. Workers that pull from one iterator (internal/workers.ts), behind the types of Effect's own operators. Two defects of
 * those under a shared scope are absent: in effect 3.22.4 a bounded `forEach` returns, and its scope releases, while one sibling
 * still runs after a failure; and both can hang when interrupted at an unlucky moment. With `batching` the items run in
 * rounds: an item that makes a request steps aside, and when no item runs, the requests are sent together and the items resume.
 *
 * INVARIANTS
 * - Parallel-1 (L10) When it returns, no item is running: a resource acquired outside is released after its last user.
 * - Parallel-2 An interrupted call always returns.
 * - Parallel-3 The first failure stops the intake and interrupts and awaits the siblings; every failure that happened
 *   meanwhile is in the cause.
 * - Parallel-4 At most `concurrency` items are in flight, and the input is pulled only by a free worker: memory does not
 *   depend on its length (with `discard`).
 * - Parallel-5 A race is over when its losers have ended; a defect of a loser that was interrupted fails the race.
 * - Parallel-6 Fibers that an item forks, what it leaves in FiberRefs, and its requests are treated as under Effect's operators.
 *
 * COST one fork per worker; per item about 0.4 µs over the item itself. `"unbounded"` forks once per item.
 * SOURCES p-map's pull model; Trio's nursery (the block ends after its last child).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { dual, identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as RequestBlock from "effect/RequestBlock"
import type * as Types from "effect/Types"
import * as Rules from "./internal/options.ts"
import * as Source from "./internal/source.ts"
import * as Workers from "./internal/workers.ts"

/**
 * Options of `forEach`, and with `mode` of `all`; the same as Effect's.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Items in flight at most: an integer from 1, `"unbounded"`, or `"inherit"` (`Effect.withConcurrency`). Default: 1. */
  readonly concurrency?: Types.Concurrency | undefined
  /** Sends the requests (`Effect.request`) of all items together. `"inherit"`: as `Effect.withRequestBatching` says. Default: false. */
  readonly batching?: boolean | "inherit" | undefined
  /** Returns nothing, and holds no results. Default: false. */
  readonly discard?: boolean | undefined
  /** Finalizers that items add to the surrounding scope run concurrently when it closes. Default: false. */
  readonly concurrentFinalizers?: boolean | undefined
}

const rules = {
  concurrency: Rules.concurrency,
  batching: Rules.oneOf(true, false, "inherit"),
  discard: Rules.flag,
  concurrentFinalizers: Rules.flag
}

const allRules = { ...rules, mode: Rules.oneOf("default", "validate", "either") }

type Any = Effect.Effect<unknown, unknown, unknown>

const ignore = () => {}

/** Runs `body` on every item with `count` workers, and `step` on each result. One worker is the caller itself. */
const runWorkers = <A, X, E, R>(
  items: Iterable<A>,
  count: number,
  body: (item: A, index: number) => Effect.Effect<X, E, R>,
  step: (value: X, index: number) => void
): Effect.Effect<void, E, R> => {
  const group = Workers.makeGroup<E>()
  const intake = Source.make(items)
  const positions: Array<number> = []
  const worker = (worker: number): Effect.Effect<void, E, R> => {
    let taken: Source.Taken<A> | undefined
    return Effect.whileLoop({
      while: () => {
        if (group.stopped || (taken = intake.pull()) === undefined) return false
        positions[worker] = taken.index
        return true
      },
      body: () => body(taken!.item, taken!.index),
      step: (value) => step(value, taken!.index)
    })
  }
  const working = count === 1 ? Effect.suspend(() => worker(0)) : Effect.zipRight(
    Workers.run(group, {
      count,
      worker,
      hasWork: () => !group.stopped && !intake.isExhausted(),
      positionOf: (worker) => positions[worker]!
    }),
    Workers.inherit(group)
  )
  return Effect.ensuring(working, Effect.sync(intake.close))
}

/** The number of workers: at most one per item, if the number of items is known. */
const countOf = (items: Iterable<unknown>, width: number): number =>
  Array.isArray(items) ? Math.min(width, items.length) : width

/** An item of a round: not begun, or suspended at the requests that it makes. */
interface Step<out E, out R> {
  readonly position: number
  readonly requests: RequestBlock.RequestBlock
  readonly effect: Effect.Effect<void, E, R>
}

/**
 * Runs items until each has ended or is suspended at a request, sends the requests of all together, and repeats this with the
 * suspended ones. The steps in `unstarted` must not be dropped: they release what they acquired only when they resume.
 */
const runRound = <E, R>(
  steps: Iterable<Step<E, R>>,
  unstarted: Set<Step<E, R>>,
  width: number,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<void, E, R> =>
  Effect.suspend(() => {
    const suspended: Array<Step<E, R>> = []
    // MASK: an interrupt before a step resumes would drop the resources that it holds; the step restores its own interruptibility.
    const body = (step: Step<E, R>) =>
      Effect.uninterruptible(Effect.suspend(() => {
        unstarted.delete(step)
        return Effect.flatMap(Effect.step(step.effect), (result): Effect.Effect<void, E> => {
          if (result._op !== "Blocked") return result
          suspended.push({
            position: step.position,
            requests: result.effect_instruction_i0,
            effect: result.effect_instruction_i1
          })
          return Effect.void
        })
      }))
    const working = runWorkers(steps, countOf(steps, width), body, ignore)
    return Effect.flatMap(Effect.exit(restore(working)), (exit) => {
      if (Exit.isFailure(exit)) {
        return Effect.zipRight(
          Effect.mapErrorCause(
            abandon([...suspended, ...unstarted]),
            (cause) => Cause.parallel(exit.cause, cause)
          ),
          exit
        )
      }
      if (suspended.length === 0) return Effect.void
      suspended.sort((left, right) => left.position - right.position)
      const requests = suspended.map((step) => step.requests).reduce(RequestBlock.parallel)
      const next = suspended.map(({ effect, position }) => ({
        effect,
        position,
        requests: RequestBlock.empty
      }))
      // Suspended, a fiber keeps its context: `blocked` has no type for what is needed from it.
      const resumed = runRound(next, new Set(next), width, restore) as Effect.Effect<void, E>
      return Effect.blocked(requests, resumed)
    })
  })

/** Ends suspended steps: each resumes interrupted, and its requests are completed, most of them by an interrupt. */
const abandon = <E, R>(steps: ReadonlyArray<Step<E, R>>): Effect.Effect<void, E, R> => {
  const group = Workers.makeGroup<E>()
  Workers.cut(group)
  const requests = steps.map((step) => step.requests).reduce(
    RequestBlock.parallel,
    RequestBlock.empty
  )
  // A request that is not sent stays pending in a request cache, and the next fiber that makes it waits. The yield lets the
  // steps see their interrupt first.
  const complete = Effect.zipRight(Effect.yieldNow(), Effect.runRequestBlock(requests))
  return Effect.zipRight(
    Effect.forkDaemon(complete),
    Workers.run(group, {
      count: steps.length,
      hasWork: () => true,
      worker: (index) => steps[index]!.effect
    })
  )
}

const runBatched = <A, E, R>(
  items: Iterable<A>,
  f: (item: A, index: number) => Effect.Effect<void, E, R>,
  width: number
): Effect.Effect<void, E, R> =>
  // MASK: a suspended item must be resumed or abandoned; working is restored.
  Effect.uninterruptibleMask((restore) => {
    const first = function*(): Iterable<Step<E, R>> {
      let position = 0
      for (const item of items) {
        const index = position++
        const effect = restore(Effect.suspend(() => f(item, index)))
        yield { position: index, requests: RequestBlock.empty, effect }
      }
    }
    const steps = width === Infinity ? Array.from(first()) : first()
    return runRound(steps, new Set(), width, restore)
  })

const run = <A, B, E, R>(
  where: string,
  items: Iterable<A>,
  f: (item: A, index: number) => Effect.Effect<B, E, R>,
  options: Options = {}
): Effect.Effect<Array<B> | void, E, R> =>
  Effect.withFiberRuntime((fiber) => {
    const { batching, concurrentFinalizers, discard } = options
    const concurrency = options.concurrency === "inherit"
      ? fiber.getFiberRef(FiberRef.currentConcurrency)
      : options.concurrency ?? 1
    Rules.check(where, { ...options, concurrency }, rules)
    const width = concurrency === "unbounded" ? Infinity : concurrency
    const isBatched = batching === "inherit"
      ? fiber.getFiberRef(FiberRef.currentRequestBatchingEnabled)
      : batching === true
    const results: Array<B> = []
    const keep = discard === true ? ignore : (value: B, index: number) => {
      results[index] = value
    }
    const runAs = (f: (item: A, index: number) => Effect.Effect<B, E, R>) => {
      if (isBatched) {
        const kept = (item: A, index: number) =>
          Effect.map(f(item, index), (value) => keep(value, index))
        return runBatched(items, kept, width)
      }
      // With a fiber per item their number must be known.
      const list = width === Infinity ? Array.from(items) : items
      return runWorkers(list, countOf(list, width), f, keep)
    }
    const running = concurrentFinalizers !== true ? runAs(f) : Effect.finalizersMask(
      width === 1
        ? ExecutionStrategy.sequential
        : width === Infinity
        ? ExecutionStrategy.parallel
        : ExecutionStrategy.parallelN(width)
    )((restore) => runAs((item, index) => restore(f(item, index))))
    return discard === true ? running : Effect.as(running, results)
  })

/**
 * Runs `f` on every item, at most `concurrency` at once, and returns the results in input order (or nothing, with
 * `discard`). Type and behaviour are those of `Effect.forEach`, except for what **Differences** lists.
 *
 * **Details** — When it returns, in whatever way, no item is running any more (Parallel-1). Free workers pull the input, which is
 *   closed early when the run ends early. Fibers that an item forks belong to the caller, and run on after the item.
 * **Differences** — The cause leaves out the interrupts of siblings that a failure caused. Failures of items while the caller is
 *   interrupted are in the cause, after the interrupt. After the first failure no sibling begins, and requests that were not sent
 *   are interrupted. The input is not copied first. `concurrency: 0` and `1.5` are refused.
 * **Interruption** — Every item is interrupted and awaited, then the interrupt is seen.
 * **Errors** — The first failure interrupts the siblings; the cause holds all failures of that moment in parallel, in input
 *   order. An invalid option is a `RangeError` defect.
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
export const forEach: typeof Effect.forEach = dual(
  (args) => Predicate.isIterable(args[0]),
  <A, B, E, R>(
    items: Iterable<A>,
    f: (item: A, index: number) => Effect.Effect<B, E, R>,
    options?: Options
  ): Effect.Effect<Array<B> | void, E, R> => run("Parallel.forEach", items, f, options)
)

/**
 * Runs a list, iterable or record of effects and returns their results in the same shape. Type and behaviour are those of
 * `Effect.all`, with the differences of `forEach`.
 *
 * **Details** — With `mode: "either"` every effect runs to its end and the results are `Either`s. With `mode: "validate"` too,
 *   but one failure or more fails the whole, with an `Option` of an error for each effect, in the same shape.
 * **Interruption**, **Errors**, **Cost** — as `forEach`.
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
export const all: typeof Effect.all = (effects, options): never => {
  const { mode, ...rest }: AllOptions = options ?? {}
  const keys = Predicate.isIterable(effects) ? undefined : Object.keys(effects)
  const list: Iterable<Any> = Predicate.isIterable(effects) ? effects : Object.values(effects)
  const shaped = (values: ReadonlyArray<unknown>): unknown =>
    keys === undefined ? values : Object.fromEntries(keys.map((key, index) => [key, values[index]]))
  const runAs = <A, E>(f: (effect: Any) => Effect.Effect<A, E, unknown>, options: Options) =>
    run("Parallel.all", list, f, options)
  const plain = (f: (effect: Any) => Any) =>
    Effect.map(runAs(f, rest), (values) => values === undefined ? undefined : shaped(values))
  // The return type is Effect's conditional one, which the compiler cannot follow through the branches.
  return Effect.suspend((): Any => {
    Rules.check("Parallel.all", options, allRules)
    if (mode === "either") return plain(Effect.either)
    if (mode !== "validate") return plain(identity)
    return Effect.flatMap(runAs(Effect.either, { ...rest, discard: false }), (values) => {
      const eithers = values ?? []
      if (eithers.some(Either.isLeft)) return Effect.fail(shaped(eithers.map(Either.getLeft)))
      return rest.discard === true
        ? Effect.void
        : Effect.succeed(shaped(eithers.map(Either.getOrThrow)))
    })
  }) as never
}

interface AllOptions extends Options {
  readonly mode?: "default" | "validate" | "either" | undefined
}

/** How a racer failed before the race was over. */
interface Lost<E> {
  readonly cause: Cause.Cause<E>
  readonly index: number
}

/** Runs all at once until `wins` accepts an exit, then interrupts and awaits the others. If none wins, it fails with all, `inSequence`. */
const runRace = <A, E, R>(
  effects: ReadonlyArray<Effect.Effect<A, E, R>>,
  wins: (exit: Exit.Exit<A, E>) => boolean,
  inSequence: (lost: ReadonlyArray<Lost<E>>) => ReadonlyArray<Lost<E>>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const group = Workers.makeGroup<never>()
    const lost: Array<Lost<E>> = []
    let won:
      | { readonly exit: Exit.Exit<A, E>; readonly fiber: Fiber.RuntimeFiber<unknown> }
      | undefined
    const ended = (exit: Exit.Exit<A, E>, index: number) =>
      Effect.withFiberRuntime<void>((fiber) => {
        if (won === undefined && wins(exit)) {
          won = { exit, fiber }
          Workers.finish(group)
        } else if (Exit.isFailure(exit)) {
          // INVARIANT Parallel-5: of a loser that was interrupted, only a defect counts.
          if (group.stopped) return failWithDefects(exit.cause)
          lost.push({ cause: exit.cause, index })
        }
        return Effect.void
      })
    const racing = Workers.run(group, {
      count: effects.length,
      hasWork: () => true,
      keepsChildren: true,
      // MASK: how a racer ended must reach `ended`; the racer itself is restored.
      worker: (index) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(Effect.exit(restore(effects[index]!)), (exit) => ended(exit, index))
        )
    })
    return Effect.matchCauseEffect(racing, {
      onFailure: (cause) =>
        Effect.failCause(
          won !== undefined && Exit.isFailure(won.exit)
            ? Cause.parallel(won.exit.cause, cause)
            : cause
        ),
      onSuccess: () =>
        won !== undefined
          ? Effect.zipRight(won.fiber.inheritAll, won.exit)
          : Effect.failCause(inSequence(lost).map(({ cause }) => cause).reduce(Cause.parallel))
    })
  })

const failWithDefects = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Option.match(Cause.keepDefects(cause), { onNone: () => Effect.void, onSome: Effect.failCause })

const latestFirst = <E>(lost: ReadonlyArray<Lost<E>>) => lost.toReversed()

const inInputOrder = <E>(lost: ReadonlyArray<Lost<E>>) =>
  lost.toSorted((left, right) => left.index - right.index)

const raceOfTwo = (wins: (exit: Exit.Exit<unknown, unknown>) => boolean): typeof Effect.race =>
  dual(
    2,
    <A, E, R, A2, E2, R2>(
      self: Effect.Effect<A, E, R>,
      that: Effect.Effect<A2, E2, R2>
    ): Effect.Effect<A | A2, E | E2, R | R2> =>
      runRace<A | A2, E | E2, R | R2>([self, that], wins, inInputOrder)
  )

/**
 * Runs all effects at once and returns the first success; the others are interrupted and awaited. Type and behaviour are those
 * of `Effect.raceAll`, except for what **Differences** lists.
 *
 * **Differences** — It never returns before its losers, interrupted or not. A defect of an interrupted loser, in its release say,
 *   fails the race (Parallel-5). A race of no effects is a `RangeError` defect.
 * **Interruption** — All are interrupted and awaited. **Errors** — all failures in parallel, the latest first, if none succeeds.
 * **Cost** — one fork per effect.
 *
 * @category racing
 * @since 0.1.0
 */
export const raceAll: typeof Effect.raceAll = <Eff extends Effect.Effect<any, any, any>>(
  effects: Iterable<Eff>
) =>
  Effect.suspend(() => {
    const racers = Array.from(effects, (effect) => Effect.interruptible(effect))
    return racers.length === 0
      ? Effect.die(
        new RangeError("Parallel.raceAll: a race of no effects has no winner; give it one or more.")
      )
      : runRace<
        Effect.Effect.Success<Eff>,
        Effect.Effect.Error<Eff>,
        Effect.Effect.Context<Eff>
      >(racers, Exit.isSuccess, latestFirst)
  })

/**
 * The first success of two; the other is interrupted and awaited. Type and behaviour are those of `Effect.race`, with the
 * differences of `raceAll`.
 *
 * **Interruption**, **Cost** — as `raceAll`. **Errors** — both failures in parallel, in input order, if none succeeds.
 *
 * **Example** (the loser has been released before the race returns)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel } from "holdfast"
 *
 * const log: Array<string> = []
 * const slow = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("released")))
 * log.push(await Effect.runPromise(Parallel.race(slow, Effect.as(Effect.sleep("1 millis"), "won"))))
 * log // => ["released", "won"]
 * ```
 *
 * @category racing
 * @since 0.1.0
 */
export const race: typeof Effect.race = raceOfTwo(Exit.isSuccess)

/**
 * The first of two to end, in success or failure; the other is interrupted and awaited. Type and behaviour are those of
 * `Effect.raceFirst`, with the differences of `raceAll`.
 *
 * **Interruption**, **Cost** — as `raceAll`. **Errors** — those of the first to end.
 *
 * @category racing
 * @since 0.1.0
 */
export const raceFirst: typeof Effect.raceFirst = raceOfTwo(() => true)
