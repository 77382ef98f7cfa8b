/**
 * items: opens, checks, resets and destroys items in fibers of the pool.
 *
 * DESIGN. Each function changes the state in the step of its call and starts a fiber. The last step of that fiber calls `then`, by
 * which lend.ts decides the next step. No borrower's interruption reaches these fibers: they start uninterruptible, and only
 * `acquire`, a check and a reset may be cut.
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { exitWithin, releaseDeadlineOf } from "../internal/deadline.ts"
import { withFailure } from "../internal/exit.ts"
import * as Interrupt from "../internal/interrupt.ts"
import * as Release from "../internal/release.ts"
import * as Ledger from "../Ledger.ts"
import * as State from "./state.ts"

/**
 * Acquires one item in a scope of its own. Its `close` closes that scope within the deadline and gives the exit. Both must run in a
 * masked region.
 */
export const opening = <A, E, R>(
  name: string,
  acquire: Effect.Effect<A, E, R>,
  releaseDeadline: Duration.DurationInput | undefined,
  site: Ledger.Site | undefined
): Effect.Effect<State.Opened<A>, E, Exclude<R, Scope.Scope>> =>
  Effect.withFiberRuntime<State.Opened<A>, E, Exclude<R, Scope.Scope>>((fiber) => {
    const ledger = Ledger.unsafeInForce(fiber)
    const kind = "pool item"
    const entry = ledger?.unsafeAcquiring(kind, name, { site })
    const recorded = entry && ledger && { entry, ledger }
    const deadline = releaseDeadlineOf({ releaseDeadline })
    return Effect.flatMap(
      Scope.make(),
      (scope) =>
        Effect.matchCauseEffect(Effect.interruptible(Scope.extend(acquire, scope)), {
          onFailure: (cause) => {
            const failed = Exit.failCause(cause)
            const closing = Release.run({ kind, name, deadline, site }, () =>
              Scope.close(scope, failed), failed)
            return Effect.flatMap(closing, (closed) => {
              recorded?.ledger.unsafeGaveUp(recorded.entry, cause)
              return Exit.isSuccess(closed) ? failed : withFailure(failed, closed.cause)
            })
          },
          onSuccess: (value) => {
            recorded?.ledger.unsafeHeld(recorded.entry)
            const close = Effect.suspend(() =>
              Release.run(
                { kind, name, deadline, site, recorded },
                () =>
                  Scope.close(scope, Exit.void),
                Exit.void
              )
            )
            return Effect.succeed({ value, close })
          }
        })
    )
  })

const itemOf = <A, E>(
  partition: State.Partition<A, E>,
  { close, value }: State.Opened<A>,
  { generation }: State.Opening,
  random: number
): State.Item<A, E> => {
  const { jitter, keepAlive, maxLifetime } = partition.pool.options
  const now = State.nowOf(partition.pool)
  return {
    value,
    close,
    partition,
    generation,
    // Rounded on its own: added to a date, a nanosecond is nothing, and the item would expire before it is lent.
    expiresAt: now + Math.ceil(maxLifetime * (1 - random * jitter)),
    keepAliveEvery: Math.ceil(keepAlive * (1 - random * 0.1)),
    isInvalid: false,
    uses: 0,
    idleSince: now,
    soundSince: now,
    keepAliveAt: Infinity,
    holder: undefined,
    lentAt: 0,
    isWarnedOf: false,
    site: undefined,
    hold: undefined,
    frame: undefined,
    list: undefined,
    previous: undefined,
    next: undefined
  }
}

const endOpening = <A, E>(partition: State.Partition<A, E>, opening: State.Opening): void => {
  opening.hasEnded = true
  partition.opening.delete(opening)
}

/** Opens an item. `then` gets it, on no list, or the failure. */
export const open = <A, E>(
  partition: State.Partition<A, E>,
  then: (opening: State.Opening, exit: Exit.Exit<State.Item<A, E>, E>) => void
): State.Opening => {
  const { pool } = partition
  const startedAt = State.nowOf(pool)
  const opening: State.Opening = {
    generation: partition.generation,
    startedAt,
    deadline: startedAt + pool.options.createTimeout,
    hasEnded: false,
    isUnwanted: false,
    fiber: undefined
  }
  partition.opening.add(opening)
  pool.size++
  const opened = (one: State.Opened<A>, random: number): Effect.Effect<void> => {
    pool.totals.created++
    // Later than its `createTimeout`.
    if (opening.hasEnded) return Effect.map(one.close, () => void pool.totals.destroyed++)
    return Effect.sync(() => {
      endOpening(partition, opening)
      const item = itemOf(partition, one, opening, random)
      partition.items.add(item)
      pool.meter?.created(item.idleSince - startedAt, item.value)
      stopBackingOff(partition)
      then(opening, Exit.succeed(item))
    })
  }
  const failed = (cause: Cause.Cause<E>): void => {
    if (opening.hasEnded) return
    endOpening(partition, opening)
    pool.size--
    then(opening, Exit.failCause(cause))
  }
  opening.fiber = pool.fork(
    Effect.flatMap(Random.next, (random) =>
      Effect.matchCauseEffect(partition.open, {
        onFailure: (cause) => Effect.sync(() => failed(cause)),
        onSuccess: (one) => opened(one, random)
      }))
  )
  return opening
}

/** The slot is free in this step, even if the opening ignores its interruption. */
export const abandon = <A, E>(partition: State.Partition<A, E>, opening: State.Opening): void => {
  endOpening(partition, opening)
  partition.pool.size--
  if (opening.fiber !== undefined) Interrupt.atWait(opening.fiber, FiberId.none)
}

/** Interrupts the newest opening that is not unwanted yet. */
export const interruptNewest = <A, E>(partition: State.Partition<A, E>): void => {
  const newest = Array.from(partition.opening).findLast(({ isUnwanted }) => !isUnwanted)
  if (newest === undefined) return
  newest.isUnwanted = true
  if (newest.fiber !== undefined) Interrupt.atWait(newest.fiber, FiberId.none)
}

/** Waits, as the schedule says, before the next refill; a schedule that is done never calls `then`. */
export const backOff = <A, E>(
  partition: State.Partition<A, E>,
  cause: Cause.Cause<E>,
  then: () => void
): void => {
  const { pool, retry } = partition
  const next = Effect.flatMap(
    retry === undefined ? Schedule.driver(pool.options.retry) : Effect.succeed(retry),
    (driver) => {
      partition.retry = driver
      return driver.next(cause)
    }
  )
  const backoff = pool.fork(Effect.map(Effect.exit(Effect.interruptible(next)), (exit) => {
    if (Exit.isFailure(exit) || partition.backoff !== backoff) return
    partition.backoff = undefined
    then()
  }))
  partition.backoff = backoff
}

const stopBackingOff = <A, E>(partition: State.Partition<A, E>): void => {
  partition.retry = undefined
  partition.backoff?.unsafeInterruptAsFork(FiberId.none)
  partition.backoff = undefined
}

/** INVARIANT Pool-7: the item is sound if the work on it ends in time with an answer that `isGood`. */
const inspect = <A, E>(
  item: State.Item<A, E>,
  work: Effect.Effect<unknown, unknown>,
  deadline: Duration.Duration,
  isGood: (answer: unknown) => boolean,
  then: (item: State.Item<A, E>, isSound: boolean) => void
): void => {
  const { partition } = item
  const { pool } = partition
  State.unlink(item)
  partition.checking++
  pool.fork(Effect.map(exitWithin(work, deadline), (ended) => {
    const isSound = Option.isSome(ended) && Exit.isSuccess(ended.value)
      && isGood(ended.value.value)
    partition.checking--
    if (isSound && pool.isTimed) item.soundSince = State.nowOf(pool)
    then(item, isSound)
  }))
}

export const check = <A, E>(
  item: State.Item<A, E>,
  then: (item: State.Item<A, E>, isSound: boolean) => void
): void => {
  const { validate, validateTimeout } = item.partition.pool.options
  const work = Effect.suspend(() => validate!(item.value))
  inspect(item, work, validateTimeout, (answer) => answer === true, then)
}

export const reset = <A, E>(
  item: State.Item<A, E>,
  exit: Exit.Exit<unknown, unknown>,
  then: (item: State.Item<A, E>, isSound: boolean) => void
): void => {
  const { reset, resetTimeout } = item.partition.pool.options
  const work = Effect.suspend(() => reset!(item.value, exit))
  inspect(item, work, resetTimeout, () => true, then)
}

export const destroy = <A, E>(
  item: State.Item<A, E>,
  reason: State.Reason,
  then: (partition: State.Partition<A, E>) => void
): void => {
  const { partition } = item
  const { pool } = partition
  State.unlink(item)
  partition.closing++
  pool.closing++
  pool.fork(Effect.map(close(item), () => {
    partition.closing--
    pool.closing--
    forget(item, reason)
    then(partition)
  }))
}

/** Its release; a failure is logged. */
export const close = <A, E>({ close, partition }: State.Item<A, E>): Effect.Effect<void> =>
  Effect.map(close, (exit) => {
    if (Exit.isFailure(exit)) {
      State.warn(partition.pool, `Pool "${partition.name}": a release failed`, exit.cause)
    }
  })

/** Its slot is free from this step on. */
export const forget = <A, E>(item: State.Item<A, E>, reason: State.Reason): void => {
  const { partition: { items, pool }, value } = item
  items.delete(item)
  pool.size--
  pool.totals.destroyed++
  pool.meter?.destroyed(reason, value)
}

/** Whether `invalidateOn` rules the item out after this use. */
export const isRuledOut = <A, E>(
  pool: State.State<A, E>,
  exit: Exit.Exit<unknown, unknown>
): boolean => {
  try {
    return pool.options.invalidateOn?.(exit) ?? false
  } catch (defect) {
    const what = `Pool "${pool.options.name}": invalidateOn threw; the item is destroyed`
    State.warn(pool, what, Cause.die(defect))
    return true
  }
}
