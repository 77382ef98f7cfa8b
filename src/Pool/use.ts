/**
 * use: how a fiber waits for an item, uses it, and gives it back: the brackets of `use` and `tryUse`, and the items of a scope.
 *
 * DESIGN. A `use` takes in one step, which also puts the frame that gives back on the fiber's stack (internal/handover.ts). The other
 * functions, and `use` where that is not possible, run in a masked region: `restore` makes only the wait and the user's own effect
 * interruptible. lend.ts changes the state.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
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

const join = <A, E>(
  partition: State.Partition<A, E>,
  fiber: AnyFiber | undefined,
  site: State.Site | undefined,
  priority: number
): State.Waiter<A, E> => {
  const { pool } = partition
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
  return waiter
}

/** How a waiter waits. */
const waitOf = <A, E>(
  partition: State.Partition<A, E>,
  waiter: State.Waiter<A, E>,
  { acquireTimeout, priority = 0 }: WaitOptions = {}
): WaitQueue.Options<never> => {
  const { pool } = partition
  const atMost = acquireTimeout === undefined
    ? pool.options.acquireTimeout
    : unlessZero(acquireTimeout)
  const late = (): Cause.Cause<never> => {
    waiter.isLate = true
    pool.totals.timeouts++
    pool.meter?.timedOut()
    const waited = State.nowOf(pool) - waiter.since
    return refusal(Lend.timeout(partition, "acquire", waited, waiter.fiber))
  }
  return { priority, bound: { atMost: Duration.millis(atMost), late } }
}

/** A waiter that got no item got the failure to open one. */
const failureOf = <A, E>({ failure }: State.Waiter<A, E>): Effect.Effect<never, E> =>
  Effect.failCause(failure ?? Cause.die(new Error("Pool-3 broken: granted nothing")))

/** Waits in line for an item. */
const waitInMask = <A, E>(
  partition: State.Partition<A, E>,
  fiber: AnyFiber | undefined,
  site: State.Site | undefined,
  restore: Restore,
  options: WaitOptions | undefined
): Effect.Effect<State.Item<A, E>, E> => {
  const refused = refusalOf(partition)
  if (refused !== undefined) {
    Lend.settle(partition)
    return Effect.failCause(refused)
  }
  const waiter = join(partition, fiber, site, options?.priority ?? 0)
  const wait = WaitQueue.waitInMask(
    partition.queue,
    waiter.id,
    restore,
    () => Lend.forgetWaiter(partition, waiter),
    waiter.hold,
    waitOf(partition, waiter, options)
  )
  // It stands in line from this step on, so now something may be granted.
  Lend.settle(partition)
  return Effect.flatMap(
    fiber === undefined
      ? wait
      : Span.withSpan(fiber, wait, "pool.acquire", attributesOf, partition),
    () => waiter.item === undefined ? failureOf(waiter) : Effect.succeed(waiter.item)
  )
}

/** Waits in line, and uses the item that comes, where no ledger and no tracer looks. */
const useWhenGranted = <A, E, B, E2, R2>(
  partition: State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  fiber: AnyFiber,
  site: State.Site | undefined,
  options: WaitOptions | undefined
): Effect.Effect<B, E | E2, R2> => {
  const waiter = join(partition, fiber, site, options?.priority ?? 0)
  const used = WaitQueue.useInStep(
    fiber,
    partition.queue,
    waiter.id,
    (): Effect.Effect<B, E | E2, R2> =>
      waiter.item === undefined ? failureOf(waiter) : f(waiter.item.value),
    () => {
      if (waiter.item !== undefined) Lend.giveBack(waiter.item, Exit.void)
    },
    () => Lend.forgetWaiter(partition, waiter),
    waitOf(partition, waiter, options)
  )
  Lend.settle(partition)
  return used
}

// Using.

/** `f` may throw instead of failing; the item must come back all the same. */
const bodyOf = <A, B, E2, R2>(
  value: A,
  f: (item: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R2> => {
  try {
    return f(value)
  } catch (defect) {
    return Effect.die(defect)
  }
}

const runInMask = <A, E, B, E2, R2>(
  item: State.Item<A, E>,
  body: Effect.Effect<B, E2, R2>,
  restore: Restore
): Effect.Effect<B, E2, R2> => {
  const { holder, partition } = item
  const user = holder === undefined ? body : traced(holder, body, partition)
  const lent = Lent.lend("children", holder, undefined, partition.queue)
  return Effect.matchCauseEffect(restore(user), {
    onFailure: (cause) => endUse(item, Exit.failCause(cause), lent),
    onSuccess: (value) => endUse(item, Exit.succeed(value), lent)
  })
}

const endUse = <A, E, B, E2>(
  item: State.Item<A, E>,
  exit: Exit.Exit<B, E2>,
  lent: Lent.Lent | undefined
): Effect.Effect<B, E2> => {
  if (lent !== undefined) {
    const subject = { kind: "pool", name: item.partition.name, site: item.site }
    return Lent.settleThen(lent, subject, exit, (settled) => endUse(item, settled, undefined))
  }
  Lend.giveBack(item, exit)
  return exit
}

const traced = <A, E, B, E2, R2>(
  fiber: AnyFiber,
  body: Effect.Effect<B, E2, R2>,
  partition: State.Partition<A, E>
): Effect.Effect<B, E2, R2> => Span.withSpan(fiber, body, "pool.use", attributesOf, partition)

/** The bracket of `use`. `partitionOf` is called in the step that takes. */
export const use = <A, E, B, E2, R2>(
  { options: { invalidateOn, reset } }: State.State<A, E>,
  partitionOf: () => State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: State.Site | undefined,
  options: WaitOptions | undefined
): Effect.Effect<B, E | E2, R2> =>
  Effect.withFiberRuntime<B, E | E2, R2>((fiber) => {
    // A frame does not know the exit, which these two are called with.
    const isOneStep = invalidateOn === undefined && reset === undefined
      && Handover.isOneStep(fiber)
    return (isOneStep ? useInStep(partitionOf(), f, fiber, site, options) : undefined)
      // MASK: from the taking to the giving back; the wait and `f` are restored.
      ?? Effect.uninterruptibleMask((restore) =>
        useInMask(partitionOf(), f, site, restore, options)
      )
  })

/** Undefined if the use must be in a mask: where a ledger or a tracer sees the wait, and to be refused. */
const useInStep = <A, E, B, E2, R2>(
  partition: State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  fiber: AnyFiber,
  site: State.Site | undefined,
  options: WaitOptions | undefined
): Effect.Effect<B, E | E2, R2> | undefined => {
  const item = Lend.takeNow(partition, fiber, site)
  if (item !== undefined) {
    item.frame ??= new Frame(() => Lend.giveBack(item, Exit.void))
    pushFrame(fiber, item.frame)
    // If `f` throws, the frame gives the item back all the same.
    return traced(fiber, f(item.value), partition)
  }
  const isSeen = Span.isTraced(fiber) || Ledger.unsafeInForce(fiber) !== undefined
  if (!isSeen && refusalOf(partition) === undefined) {
    return useWhenGranted(partition, f, fiber, site, options)
  }
  if (State.isVacant(partition)) partition.forget()
  return undefined
}

const useInMask = <A, E, B, E2, R2>(
  partition: State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: State.Site | undefined,
  restore: Restore,
  options: WaitOptions | undefined
): Effect.Effect<B, E | E2, R2> => {
  const fiber = currentFiber()
  const item = Lend.takeNow(partition, fiber, site)
  if (item !== undefined) return runInMask(item, bodyOf(item.value, f), restore)
  return Effect.flatMap(
    waitInMask(partition, fiber, site, restore, options),
    // suspend: a fiber that was interrupted after its grant does not even build its body.
    (granted) => runInMask(granted, Effect.suspend(() => f(granted.value)), restore)
  )
}

/** The bracket of `tryUse`. */
export const tryUseInMask = <A, E, B, E2, R2>(
  partition: State.Partition<A, E>,
  f: (item: A) => Effect.Effect<B, E2, R2>,
  site: State.Site | undefined,
  restore: Restore
): Effect.Effect<Option.Option<B>, E | E2, R2> => {
  if (partition.pool.isClosed) {
    Lend.settle(partition)
    return Effect.failCause(refusal(new PoolClosed({ pool: partition.name })))
  }
  const item = Lend.takeNow(partition, currentFiber(), site)
  if (item !== undefined) {
    return Effect.map(runInMask(item, bodyOf(item.value, f), restore), Option.some)
  }
  Lend.checkNextIdle(partition)
  Lend.settle(partition)
  return Effect.succeedNone
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
      const partition = partitionOf()
      const fiber = currentFiber()
      const item = Lend.takeNow(partition, fiber, site)
      const taking = item === undefined
        ? waitInMask(partition, fiber, site, restore, options)
        : Effect.succeed(item)
      return Effect.flatMap(taking, (taken) => own(scope, taken))
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
}

/** A child scope for each lease: a release before the end of a long-lived scope leaves nothing behind in it. */
export const leaseInScope = <A, E>(
  scope: Scope.Scope,
  item: State.Item<A, E>
): Effect.Effect<Lease<A>> => {
  const lent = Lent.lend("none", undefined, item.value)
  // After the end the item may have another holder.
  let hasEnded = false
  const end = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.sync(() => {
      if (hasEnded) return
      hasEnded = true
      Lend.giveBack(item, exit)
    })
  return Effect.flatMap(
    Scope.fork(scope, ExecutionStrategy.sequential),
    (own) =>
      Effect.as(Handover.ownInScope(own, item.partition.name, end, lent), {
        value: item.value,
        // MASK: a release that has begun is finished.
        release: Effect.uninterruptible(Scope.close(own, Exit.void)),
        invalidate: Effect.sync(() => !hasEnded && Lend.unsafeInvalidate(item))
      })
  )
}
