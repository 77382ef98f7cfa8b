/**
 * use: how a fiber waits for an item, uses it, and gives it back: the brackets of `use` and `tryUse`, and the items of a scope.
 *
 * DESIGN. A `use` takes in one step, which also puts the frame that gives back on the fiber's stack (internal/handover.ts). The other
 * functions, and `use` where that is not possible, run in a masked region: `restore` makes only the wait and the user's own effect
 * interruptible. lend.ts changes the state.
 */
import type * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Handover from "../internal/handover.ts"
import * as Lent from "../internal/lent.ts"
import { type AnyFiber, currentFiber, Frame, isClosed, pushFrame } from "../internal/runtime.ts"
import * as CapturedSite from "../internal/site.ts"
import * as Span from "../internal/span.ts"
import * as WaitQueue from "../internal/waitQueue.ts"
import * as Ledger from "../Ledger.ts"
import { PoolClosed, PoolExhausted, refusal } from "./errors.ts"
import * as Lend from "./lend.ts"
import { unlessZero, type WaitOptions } from "./options.ts"
import * as State from "./state.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** `unsafeSite` itself, `siteOf`, the function the user calls, and three more if that is data-last in a pipe. */
const userFrames = 6

/** The line that asks, if leak detection or the ledger wants it. To be called in the function that the user calls. */
export const siteOf = <A, E>({ options }: State.State<A, E>): State.Site | undefined =>
  options.leakAfter === Infinity
    ? Ledger.unsafeSite(userFrames)
    : new CapturedSite.Site(new Error(), Infinity)

// Waiting.

const refusalOf = <A, E>(partition: State.Partition<A, E>): Cause.Cause<never> | undefined => {
  const { name, pool: { isClosed, options: { maxWaiters } } } = partition
  if (isClosed) return refusal(new PoolClosed({ pool: name }))
  if (!State.isFull(partition)) return undefined
  return refusal(new PoolExhausted({ pool: name, maxWaiters, stats: State.unsafeStats(partition) }))
}

const attributesOf = ({ name }: State.Partition<any, any>) => ({ "holdfast.pool.name": name })

/** Waits in line for an item. */
const waitInMask = <A, E>(
  partition: State.Partition<A, E>,
  fiber: AnyFiber,
  site: State.Site | undefined,
  restore: Restore,
  { acquireTimeout, priority = 0 }: WaitOptions = {}
): Effect.Effect<State.Item<A, E>, E> => {
  const { pool } = partition
  const refused = refusalOf(partition)
  if (refused !== undefined) {
    Lend.settle(partition)
    return Effect.failCause(refused)
  }
  const waiter: State.Waiter<A, E> = {
    id: ++pool.lastId,
    priority,
    fiber,
    site,
    hold: Lend.recorded(partition, fiber, site),
    since: State.nowOf(pool),
    isLate: false,
    item: undefined,
    failure: undefined
  }
  pool.waiters.set(waiter.id, waiter)
  const atMost = acquireTimeout === undefined
    ? pool.options.acquireTimeout
    : unlessZero(acquireTimeout)
  const late = (): Cause.Cause<never> => {
    waiter.isLate = true
    pool.totals.timeouts++
    pool.meter?.timedOut()
    return refusal(Lend.timeout(partition, "acquire", State.nowOf(pool) - waiter.since, fiber))
  }
  const wait = WaitQueue.waitInMask(
    partition.queue,
    waiter.id,
    restore,
    () => Lend.forgetWaiter(partition, waiter),
    waiter.hold,
    { priority, bound: { atMost: Duration.millis(atMost), late } }
  )
  // It stands in line from this step on, so now something may be granted.
  Lend.settle(partition)
  return Effect.flatMap(
    Span.withSpan(fiber, wait, "pool.acquire", attributesOf, partition),
    () =>
      waiter.item === undefined ? Effect.failCause(waiter.failure!) : Effect.succeed(waiter.item)
  )
}

// Using.

const traced = <A, E, B, E2, R2>(
  fiber: AnyFiber,
  body: Effect.Effect<B, E2, R2>,
  partition: State.Partition<A, E>
): Effect.Effect<B, E2, R2> => Span.withSpan(fiber, body, "pool.use", attributesOf, partition)

const runInMask = <A, E, B, E2, R2>(
  item: State.Item<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  restore: Restore
): Effect.Effect<B, E2, R2> => {
  const { holder, partition, site, value } = item
  // A fiber that was interrupted after its grant does not even build its body, which may throw.
  const body = Effect.suspend(() => f(value))
  const user = traced(holder!, body, partition)
  const lent = Lent.lend("children", holder, undefined, partition.queue)
  const subject = { kind: "pool", name: partition.name, site }
  return Lent.useThen(lent, subject, restore(user), (exit) => {
    Lend.giveBack(item, exit)
    return exit
  })
}

/** For `tryUse`. */
export const atOnce = "at once"

type Waiting = WaitOptions | undefined | typeof atOnce

/** The bracket of `use`, or of `tryUse`. `partitionOf` is called in the step that takes. */
export const use = <A, E, B, E2, R2>(
  { options: { invalidateOn, reset } }: State.State<A, E>,
  partitionOf: () => State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: State.Site | undefined,
  waiting: Waiting
): Effect.Effect<B, E | E2, R2> =>
  Effect.withFiberRuntime<B, E | E2, R2>((fiber) => {
    // A frame does not know the exit, which these two are called with.
    if (invalidateOn === undefined && reset === undefined && Handover.isOneStep(fiber)) {
      const partition = partitionOf()
      const item = Lend.takeNow(partition, fiber, site)
      if (item !== undefined) {
        pushFrame(fiber, item.frame ??= new Frame(() => Lend.giveBack(item, Exit.void)))
        // If `f` throws, the frame gives the item back all the same.
        return traced(fiber, f(item.value), partition)
      }
      if (State.isVacant(partition)) partition.forget()
    }
    // MASK: from the taking to the giving back; the wait and `f` are restored.
    return Effect.uninterruptibleMask((restore): Effect.Effect<any, E | E2, R2> => {
      const partition = partitionOf()
      const taking = takeInMask(partition, site, restore, waiting)
      return taking === undefined
        ? giveUp(partition)
        : Effect.flatMap(taking, (item) => runInMask(item, f, restore))
    })
  })

/** Nothing was idle and fit. */
const giveUp = <A, E>(partition: State.Partition<A, E>): Effect.Effect<Option.Option<never>> => {
  Lend.checkNextIdle(partition)
  Lend.settle(partition)
  const refused = partition.pool.isClosed ? refusalOf(partition) : undefined
  return refused === undefined ? Effect.succeedNone : Effect.failCause(refused)
}

/** Takes an item at once or waits for it, unless it must be there at once. */
const takeInMask = <A, E>(
  partition: State.Partition<A, E>,
  site: State.Site | undefined,
  restore: Restore,
  waiting: Waiting
): Effect.Effect<State.Item<A, E>, E> | undefined => {
  const fiber = currentFiber()!
  const item = Lend.takeNow(partition, fiber, site)
  if (item !== undefined) return Effect.succeed(item)
  return waiting === atOnce ? undefined : waitInMask(partition, fiber, site, restore, waiting)
}

/** Takes an item for the scope of the context; `own` registers the end of the lending with it. */
export const takeInScope = <A, E, B>(
  resourceOf: () => string,
  partitionOf: () => State.Partition<A, E>,
  site: State.Site | undefined,
  own: (scope: Scope.Scope, item: State.Item<A, E>) => Effect.Effect<B>,
  options: WaitOptions | undefined
): Effect.Effect<B, E, Scope.Scope> =>
  // MASK: the taking and its finalizer are one step; the wait is restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.scope, (scope) => {
      if (isClosed(scope)) return Handover.ownerClosed(resourceOf())
      const taking = takeInMask(partitionOf(), site, restore, options)!
      return Effect.flatMap(taking, (item) => own(scope, item))
    })
  )

export const ownInScope = <A, E>(scope: Scope.Scope, item: State.Item<A, E>): Effect.Effect<A> =>
  Effect.as(
    Handover.ownInScope(
      scope,
      item.partition.name,
      (exit) => Effect.sync(() => Lend.giveBack(item, exit)),
      Lent.lend("none", undefined, item.value)
    ),
    item.value
  )

/**
 * An item that can be given back before its scope ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease<out A> {
  readonly value: A
  /** Gives the item back; a second time it does nothing. */
  readonly release: Effect.Effect<void>
  /** The item will be destroyed instead of lent again. */
  readonly invalidate: Effect.Effect<boolean>
  /** @internal Ends the lease without giving the item back, in this step; undefined if it has ended. For Control.ts. */
  readonly unsafeKeep: () => State.Item<any, any> | undefined
}

/** A child scope for each lease: a release before the end of a long-lived scope leaves nothing behind in it. */
export const leaseInScope = <A, E>(
  scope: Scope.Scope,
  item: State.Item<A, E>
): Effect.Effect<Lease<A>> => {
  const lent = Lent.lend("none", undefined, item.value)
  // After the end the item may have another holder.
  let hasEnded = false
  const unsafeKeep = () => {
    if (hasEnded) return undefined
    hasEnded = true
    return item
  }
  const end = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (unsafeKeep() !== undefined) Lend.giveBack(item, exit)
    })
  return Effect.flatMap(
    Scope.fork(scope, ExecutionStrategy.sequential),
    (own) =>
      Effect.as(Handover.ownInScope(own, item.partition.name, end, lent), {
        value: item.value,
        // MASK: a release that has begun is finished.
        release: Effect.uninterruptible(Scope.close(own, Exit.void)),
        invalidate: Effect.sync(() => !hasEnded && Lend.unsafeInvalidate(item)),
        unsafeKeep
      })
  )
}
