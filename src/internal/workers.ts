/**
 * workers: a fixed number of fibers that share one supply of work and one lifetime.
 *
 * DESIGN. The workers are daemons, because Effect interrupts the children of an interrupted fiber at once, even inside an
 * uninterruptible region, and a drain must let them finish. The caller returns in one place: when no worker is alive. Fibers
 * that a worker forks belong to the caller's fiber scope, as under `Effect.forEach`; with `keepsChildren` they end with their
 * worker, as under `Effect.race`.
 *
 * INVARIANTS
 * - Workers-1 (L10) When `run` returns, by success, failure, defect or interruption, no worker fiber is alive.
 * - Workers-2 After the first failure, and after `stop`, no new item starts: `group.stopped` is set in the same step.
 * - Workers-3 (L5) The cause holds every failure except the interruptions that this file caused, by the position of their items.
 * - Workers-4 An interrupted caller always returns: it waits only for what the workers' observers end.
 * - Workers-5 Interrupting the workers costs O(workers), however many of them fail. A worker that is forked afterwards, or that
 *   was forked but not yet enlisted, is interrupted too.
 *
 * COST one fork (about 4 µs) per worker, not per item; no fork once `hasWork` says no.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRefs from "effect/FiberRefs"
import { identity } from "effect/Function"
import * as Condition from "./condition.ts"
import * as Interrupt from "./interrupt.ts"

/** The state of one run, written only by this file. A worker reads `stopped` before it takes the next item. */
export interface Group<E> {
  stopped: boolean
  /** The result is known: the caller need not wait for the workers to end by themselves. */
  isFinished: boolean
  /** All workers were interrupted; one that is forked later is interrupted too. */
  isCut: boolean
  /** The interruption of a worker is none of its failures. For workers that others may interrupt one by one. */
  readonly toleratesInterrupts: boolean
  /** The caller of `run` was interrupted while it waited. */
  wasInterrupted: boolean
  alive: number
  readonly failures: Array<Failure<E>>
  readonly fibers: Set<Fiber.RuntimeFiber<unknown, E>>
  /** The last ones that have ended, in that sequence. */
  readonly ended: Array<Fiber.RuntimeFiber<unknown, E>>
  /** The FiberRefs of those that had ended before them, joined: a group may live long, and start without end. */
  refs: FiberRefs.FiberRefs | undefined
  /** Notified when a worker ends, and by `stop` and `finish`. */
  readonly changed: Condition.Condition
  owner: FiberId.FiberId
}

interface Failure<out E> {
  readonly cause: Cause.Cause<E>
  readonly position: number
}

export const makeGroup = <E>(toleratesInterrupts = false): Group<E> => ({
  toleratesInterrupts,
  stopped: false,
  isFinished: false,
  isCut: false,
  wasInterrupted: false,
  alive: 0,
  failures: [],
  fibers: new Set(),
  ended: [],
  refs: undefined,
  changed: Condition.make(),
  owner: FiberId.none
})

/** No new item starts; running items continue. */
export const stop = <E>(group: Group<E>): void => {
  group.stopped = true
  Condition.notify(group.changed)
}

/** No new item starts, and every running one is interrupted. It does not wait for them. */
export const cut = <E>(group: Group<E>): void => {
  group.stopped = true
  // Each of n workers that fails calls this: without the check, n² interrupts.
  if (group.isCut) return
  group.isCut = true
  for (const fiber of group.fibers) Interrupt.atWait(fiber, group.owner)
}

/** The result is known: `run` interrupts the remaining workers, after each of them has started. */
export const finish = <E>(group: Group<E>): void => {
  group.stopped = true
  group.isFinished = true
  Condition.notify(group.changed)
}

/** After `run` has failed: whether its caller was interrupted, while it waited or before it could begin. */
export const wasInterrupted = <E>(group: Group<E>): boolean =>
  group.wasInterrupted || group.owner === FiberId.none

/** Interrupts the workers; the run fails with this cause too, after those of its items. */
export const fail = <E>(group: Group<E>, cause: Cause.Cause<E>): void => {
  group.failures.push({ cause, position: Number.POSITIVE_INFINITY })
  cut(group)
}

/** A balanced tree: Effect reads these ids by recursion, and there may be 100,000. */
const idsOf = (ids: ReadonlyArray<FiberId.FiberId>, from: number, to: number): FiberId.FiberId => {
  if (to - from <= 1) return ids[from] ?? FiberId.none
  const middle = (from + to) >> 1
  return FiberId.combine(idsOf(ids, from, middle), idsOf(ids, middle, to))
}

/** A fiber dump shows the workers that were alive when this wait began. */
const until = <E>(group: Group<E>, isMet: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const ids = Array.from(group.fibers, (fiber) => fiber.id())
    return Condition.wait(group.changed, isMet, idsOf(ids, 0, ids.length))
  })

/** Waits, without a bound, until no worker is alive, or no more than `but`. */
export const awaitEnd = <E>(group: Group<E>, but: () => number = () => 0): Effect.Effect<void> =>
  until(group, () => group.alive <= but())

const withoutInterrupts = <E>(cause: Cause.Cause<E>): Cause.Cause<E> => {
  const both =
    (combine: (left: Cause.Cause<E>, right: Cause.Cause<E>) => Cause.Cause<E>) =>
    (left: Cause.Cause<E>, right: Cause.Cause<E>) =>
      Cause.isEmptyType(left) ? right : Cause.isEmptyType(right) ? left : combine(left, right)
  return Cause.match<Cause.Cause<E>, E>(cause, {
    onEmpty: Cause.empty,
    onFail: (error) => Cause.fail(error),
    onDie: (defect) => Cause.die(defect),
    onInterrupt: () => Cause.empty,
    onSequential: both(Cause.sequential),
    onParallel: both(Cause.parallel)
  })
}

/** A group keeps no more ended fibers than these. */
const mostEnded = 256

/** The id of no fiber, and newer than any: Effect takes what has it for a change, and looks below it for the common ancestor. */
const joiner = FiberId.runtime(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)

const keepEnded = <E>(group: Group<E>, fiber: Fiber.RuntimeFiber<unknown, E>): void => {
  const { ended } = group
  ended.push(fiber)
  if (ended.length <= mostEnded) return
  for (const each of ended) {
    const refs = each.getFiberRefs()
    group.refs = group.refs === undefined ? refs : FiberRefs.joinAs(group.refs, joiner, refs)
  }
  ended.length = 0
}

const enlist = <E>(
  group: Group<E>,
  fiber: Fiber.RuntimeFiber<unknown, E>,
  position: () => number
): void => {
  group.fibers.add(fiber)
  fiber.addObserver((exit) => {
    group.fibers.delete(fiber)
    keepEnded(group, fiber)
    if (Exit.isFailure(exit)) {
      // Interruptions after `stopped` are our own.
      const cause = group.stopped || group.toleratesInterrupts
        ? withoutInterrupts(exit.cause)
        : exit.cause
      if (!Cause.isEmptyType(cause)) group.failures.push({ cause, position: position() })
      if (!Cause.isEmptyType(cause) || !group.toleratesInterrupts) cut(group)
    }
    group.alive--
    Condition.notify(group.changed)
  })
  // It may have run, and the others been interrupted, between its fork and here.
  if (group.isCut) fiber.unsafeInterruptAsFork(group.owner)
}

/** Starts one more fiber, interruptible, as long as the group has not ended. It ends with the group. */
export const start = <A, E, R>(
  group: Group<E>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R> =>
  // MASK: the fiber is counted from its fork on.
  Effect.uninterruptible(Effect.suspend(() => {
    group.alive++
    return Effect.map(Effect.forkDaemon(Effect.interruptible(effect)), (fiber) => {
      enlist(group, fiber, () => fiber.id().id)
      return fiber
    })
  }))

interface Options<E, R> {
  readonly count: number
  readonly worker: (index: number) => Effect.Effect<void, E, R>
  /** False when a further worker would find nothing to do. Default: until `stopped`. */
  readonly hasWork?: (() => boolean) | undefined
  /** The input position of the item that a worker has in hand. Default: causes come in the sequence of the failures. */
  readonly positionOf?: ((worker: number) => number) | undefined
  readonly keepsChildren?: boolean | undefined
  readonly onInterrupted?: Effect.Effect<unknown> | undefined
}

const forkAll = <E, R>(
  group: Group<E>,
  { count, hasWork = () => !group.stopped, positionOf, worker }: Options<E, R>
): Effect.Effect<void, never, R> => {
  let index = 0
  return Effect.whileLoop({
    while: () => index < count && hasWork(),
    body: () => {
      group.alive++
      return Effect.forkDaemon(worker(index++))
    },
    step: (fiber) => {
      const worker = index - 1
      enlist(group, fiber, () => positionOf?.(worker) ?? 0)
    }
  })
}

/** The cause of `first` and those of the workers by position; empty if none failed. */
export const causesOf = <E>(
  first: Exit.Exit<void>,
  { failures }: Group<E>
): ReadonlyArray<Cause.Cause<E>> => [
  ...Exit.isFailure(first) ? [first.cause] : [],
  ...failures.toSorted((left, right) => left.position - right.position).map(({ cause }) => cause)
]

/**
 * Runs `worker` in `count` fibers and returns when all have ended. A failing worker interrupts the others. An interrupted caller
 * runs `onInterrupted` (which may let them finish for a while) and then interrupts them.
 */
export const run = <E, R>(
  group: Group<E>,
  options: Options<E, R>
): Effect.Effect<void, E, R> =>
  // MASK: the caller must not return between the first fork and the end of the last worker. Its wait is restored, and the
  // workers are as interruptible as the caller was.
  Effect.uninterruptibleMask((restore) =>
    Effect.transplant((graft) =>
      Effect.gen(function*() {
        group.owner = yield* Effect.fiberId
        const child = options.keepsChildren === true ? identity : graft
        yield* forkAll(group, {
          ...options,
          worker: (index) => child(restore(options.worker(index)))
        })
        const waited = yield* Effect.exit(restore(
          until(group, () => group.alive === 0 || group.isFinished)
        ))
        if (Exit.isFailure(waited)) {
          group.stopped = true
          group.wasInterrupted = true
          if (options.onInterrupted !== undefined) yield* options.onInterrupted
        }
        if (group.alive > 0) {
          cut(group)
          yield* awaitEnd(group)
        }
        const causes = causesOf(waited, group)
        if (causes.length > 0) yield* Effect.failCause(causes.reduce(Cause.parallel))
      })
    )
  )

/** Joins what the workers left in FiberRefs into the caller's, in the sequence in which they ended. After the run. */
export const inherit = <E>(group: Group<E>): Effect.Effect<void> =>
  Effect.zipRight(
    group.refs === undefined ? Effect.void : Effect.inheritFiberRefs(group.refs),
    Effect.forEach(group.ended, (fiber) => fiber.inheritAll, { discard: true })
  )
