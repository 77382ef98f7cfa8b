/**
 * Semaphore: a number of permits, handed over in the order they were asked for.
 *
 * DESIGN. A counter and the fair queue. Order is decided in internal/waitQueue.ts: a release gives its permits straight to
 * the waiters at the head and wakes exactly those, and nobody who comes later passes a waiter. `effect`'s own semaphore
 * wakes every waiter on each release, which costs the square of the waiters and starves them.
 *
 * INVARIANTS
 * - Semaphore-1 (L1) `free + taken = permits` at every instant; a permit taken is released exactly once.
 * - Semaphore-2 (L6) FIFO by arrival, weighted waiters included: a small request never passes a large one.
 * - Semaphore-3 (L2) An interrupted waiter leaves nothing taken, and those behind it are served in the same step.
 * - Semaphore-4 Growing serves waiters in the same step. Shrinking takes nothing from a holder: `free` is negative until
 *   enough came back. A waiter that asked for more than is left dies, as a newcomer would, and blocks nobody.
 * - Semaphore-5 A try never waits and never passes a waiter.
 *
 * - Semaphore-6 (L9) With a ledger in force, who waits is `acquiring` there and who was granted is `held`, from the same step
 *   as in `stats`. What is taken by the parts for building brackets (`takeInMask`, `unsafeTryTake`) is not recorded.
 *
 * COST about 0.6 µs uncontended; one queue node per wait. With a ledger in force about 1 µs more, and its line.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Handover from "./internal/handover.ts"
import * as Hold from "./internal/hold.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"

/**
 * A counter with a line of waiters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Semaphore {
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** How many there are, free or not. Written by `resize` only. */
  permits: number
  /** @internal Guarded by the single thread; written only by this file. */
  free: number
  /** @internal */
  readonly queue: WaitQueue.WaitQueue
  /** @internal Gives one permit back. */
  readonly endingOfOne: Handover.Ending
  /** @internal Written only by internal/hold.ts. */
  holds: Hold.Holds | undefined
}

/**
 * What is free and who waits. `free` is negative while holders still have what a `resize` took away.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly permits: number
  readonly free: number
  readonly waiting: number
}

/**
 * Makes a part of a masked effect interruptible again.
 *
 * @category models
 * @since 0.1.0
 */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const checkSize = (permits: number): void => {
  if (!Number.isSafeInteger(permits) || permits < 1) {
    throw new RangeError(`A semaphore needs a whole number of permits, 1 or more; got ${permits}.`)
  }
}

/**
 * A semaphore of `permits` permits, all free. Misuse (not a positive whole number) throws a `RangeError`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (
  permits: number,
  options?: { readonly name?: string | undefined }
): Semaphore => {
  checkSize(permits)
  const self: Semaphore = {
    name: options?.name ?? "semaphore",
    permits,
    free: permits,
    queue: WaitQueue.make(),
    endingOfOne: Handover.endingWith(() => unsafeRelease(self, 1)),
    holds: undefined
  }
  return self
}

/**
 * A semaphore of `permits` permits, all free.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  permits: number,
  options?: { readonly name?: string | undefined }
): Effect.Effect<Semaphore> => Effect.sync(() => unsafeMake(permits, options))

/**
 * What is free and who waits, exact at this instant.
 *
 * @category getters
 * @since 0.1.0
 */
export const unsafeStats = (self: Semaphore): Stats => ({
  permits: self.permits,
  free: self.free,
  waiting: self.queue.size
})

/**
 * What is free and who waits, exact in the step that reads it.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: Semaphore): Effect.Effect<Stats> => Effect.sync(() => unsafeStats(self))

/** Serves the line from its head as far as the free permits reach. */
const serve = (self: Semaphore): void => {
  while (self.queue.head !== undefined && self.queue.head.need <= self.free) {
    self.free -= self.queue.head.need
    WaitQueue.grantHead(self.queue)
  }
}

const neverServed = (self: Semaphore, permits: number): RangeError =>
  new RangeError(
    `Semaphore-1: asked for ${permits} permits of "${self.name}", which has ${self.permits}; `
      + "this could never be served."
  )

const check = (self: Semaphore, permits: number): void => {
  if (!Number.isSafeInteger(permits) || permits < 1 || permits > self.permits) {
    throw neverServed(self, permits)
  }
}

/**
 * Takes permits if they are free and nobody waits before; never waits. What it took must be given to `unsafeRelease`.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeTryTake = (self: Semaphore, permits: number): boolean => {
  check(self, permits)
  // A newcomer never passes a waiter (Semaphore-2).
  if (self.queue.size > 0 || self.free < permits) return false
  self.free -= permits
  return true
}

/**
 * Gives permits back; the waiters they can serve are granted in this very step.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeRelease = (self: Semaphore, permits: number): void => {
  if (self.free + permits > self.permits) {
    throw new RangeError(
      `Semaphore-1 broken: ${
        self.free + permits
      } permits free of ${self.permits}; one was released twice.`
    )
  }
  self.free += permits
  if (self.queue.size > 0) serve(self)
}

/** What happens to permits that a waiter goes without. */
const givingOn = (self: Semaphore, permits: number): WaitQueue.GiveOn => (wasGranted) => {
  if (wasGranted) self.free += permits
  serve(self)
}

/** @internal Stands in line until granted. To be called in the step that found too few, inside the mask. */
export const waitInMask = (
  self: Semaphore,
  permits: number,
  restore: Restore,
  hold: Hold.Hold | undefined
): Effect.Effect<void> =>
  WaitQueue.waitInMask(self.queue, permits, restore, givingOn(self, permits), hold)

const causeOf = <E>(late: () => E): Cause.Cause<E> => {
  try {
    return Cause.fail(late())
  } catch (defect) {
    return Cause.die(defect)
  }
}

/** @internal As `waitInMask`, for `atMost` so long. */
export const waitWithinInMask = <E>(
  self: Semaphore,
  permits: number,
  restore: Restore,
  atMost: Duration.DurationInput,
  late: () => E,
  hold: Hold.Hold | undefined
): Effect.Effect<void, E> =>
  WaitQueue.waitAtMostInMask(
    self.queue,
    permits,
    restore,
    givingOn(self, permits),
    Duration.decode(atMost),
    () => causeOf(late),
    hold
  )

/**
 * Takes permits, waiting in line if need be. For building brackets: call it inside `Effect.uninterruptibleMask` and pass
 * that `restore`; only the wait is interruptible, and when it returns the permits are yours in the same masked step. Do NOT
 * wrap the call itself in `restore`: the interrupt could then fall between the grant and your bracket.
 *
 * **Interruption** — Waiting: the place in line is given up, or a grant just received is given on; nothing is taken.
 * **Errors** — none; asking for more than the semaphore has, or still has after a `resize`, is a `RangeError` defect.
 * **Cost** — none uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const takeInMask = (
  self: Semaphore,
  permits: number,
  restore: Restore
): Effect.Effect<void> =>
  Effect.suspend(() =>
    unsafeTryTake(self, permits) ? Effect.void : waitInMask(self, permits, restore, undefined)
  )

/**
 * `takeInMask` that waits `atMost` so long, by the `Clock`, and then fails as `late` says.
 *
 * **Interruption** — as `takeInMask`; who is late leaves the line in the timer's own step. **Errors** — what `late` makes.
 * **Cost** — none uncontended; one fork for the timer when it waits.
 *
 * @category operations
 * @since 0.1.0
 */
export const takeWithinInMask = <E>(
  self: Semaphore,
  permits: number,
  restore: Restore,
  atMost: Duration.DurationInput,
  late: () => E
): Effect.Effect<void, E> =>
  Effect.suspend(() =>
    unsafeTryTake(self, permits)
      ? Effect.void
      : waitWithinInMask(self, permits, restore, atMost, late, undefined)
  )

/** Whether one in line would be served: those before it, and then it, with what others do not keep. */
const isServedIf = (
  self: Semaphore,
  waiting: Hold.Hold,
  letsGo: (hold: Hold.Hold) => boolean
): boolean => {
  let need = waiting.amount
  for (let before = waiting.waiter?.previous; before !== undefined; before = before.previous) {
    const { watch } = before
    // First of all, for it is one look: most of a long line stands or falls with the one before.
    if (watch instanceof Hold.Hold) {
      if (!letsGo(watch)) return false
      break
    }
    need = Math.max(need, before.need)
  }
  return Hold.keepAtMost(self, self.permits - need, letsGo)
}

/** @internal One who asks for permits, as the ledger is told. */
export const holdOf = (
  self: Semaphore,
  permits: number,
  ledger: Ledger.Service,
  kind: string,
  name: string,
  site: Ledger.Site | undefined
): Hold.Hold =>
  new Hold.Hold(ledger, self, {
    kind,
    name,
    amount: permits,
    site,
    attributes: permits === 1 ? undefined : { permits },
    isServedIf: (waiting, letsGo) => isServedIf(self, waiting, letsGo)
  })

/** If a ledger is in force, of this step. */
const recorded = (
  self: Semaphore,
  permits: number,
  site: Ledger.Site | undefined
): Hold.Hold | undefined => {
  const ledger = Ledger.unsafeInForce()
  return ledger && holdOf(self, permits, ledger, "permit", self.name, site)
}

const giveBack = (self: Semaphore, permits: number, hold: Hold.Hold | undefined): void => {
  hold?.left()
  unsafeRelease(self, permits)
}

const endingOf = (
  self: Semaphore,
  permits: number,
  hold: Hold.Hold | undefined
): Handover.Ending =>
  permits === 1 && hold === undefined
    ? self.endingOfOne
    : Handover.endingWith(() => giveBack(self, permits, hold))

const bracket = <A, E, R>(
  self: Semaphore,
  permits: number,
  effect: Effect.Effect<A, E, R>,
  site: Ledger.Site | undefined
): Effect.Effect<A, E, R> => {
  const unrecorded = endingOf(self, permits, undefined)
  // MASK: from the grant to the release; the wait and the effect are restored.
  return Effect.uninterruptibleMask((restore) => {
    const isFree = unsafeTryTake(self, permits)
    const hold = recorded(self, permits, site)
    const ending = hold === undefined ? unrecorded : endingOf(self, permits, hold)
    if (isFree) {
      hold?.granted()
      return Handover.useInMask(effect, restore, ending)
    }
    return Effect.flatMap(
      waitInMask(self, permits, restore, hold),
      () => Handover.useInMask(effect, restore, ending)
    )
  })
}

/**
 * Runs an effect while holding `permits` permits.
 *
 * **Interruption** — Waiting: leaves the line, nothing is taken. Holding: the effect is cut and the permits go to the next
 *   in line. **Errors** — the effect's own; a request that could never be served is a `RangeError` defect.
 * **Cost** — about 0.6 µs uncontended.
 *
 * **Example** (two at a time)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel, Semaphore } from "holdfast"
 *
 * const two = Semaphore.unsafeMake(2)
 * let inside = 0
 * let most = 0
 * const visit = Effect.gen(function*() {
 *   most = Math.max(most, ++inside)
 *   yield* Effect.yieldNow()
 *   inside--
 * })
 * const visits = Array.from({ length: 10 }, () => visit.pipe(Semaphore.withPermits(two, 1)))
 * await Effect.runPromise(Parallel.all(visits, { concurrency: 10, discard: true }))
 * most // => 2
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export function withPermits(
  self: Semaphore,
  permits: number
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
export function withPermits<A, E, R>(
  self: Semaphore,
  permits: number,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R>
export function withPermits(
  self: Semaphore,
  permits: number,
  effect?: Effect.Effect<unknown, unknown, unknown>
) {
  // One frame more than itself: `withPermit`.
  const site = Ledger.unsafeSite(3)
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) => bracket(self, permits, effect, site)
  return effect === undefined ? run : run(effect)
}

/**
 * `withPermits` of one permit.
 *
 * @category operations
 * @since 0.1.0
 */
export function withPermit(
  self: Semaphore
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
export function withPermit<A, E, R>(
  self: Semaphore,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R>
export function withPermit(
  self: Semaphore,
  effect?: Effect.Effect<unknown, unknown, unknown>
) {
  return effect === undefined ? withPermits(self, 1) : withPermits(self, 1, effect)
}

/**
 * Runs an effect while holding `permits` permits, if they are free at once and nobody waits; otherwise none.
 *
 * **Interruption** — never waits. Holding: as `withPermits`. **Errors**, **Cost** — as `withPermits`.
 *
 * @category operations
 * @since 0.1.0
 */
export function tryWithPermits(
  self: Semaphore,
  permits: number
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
export function tryWithPermits<A, E, R>(
  self: Semaphore,
  permits: number,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E, R>
export function tryWithPermits(
  self: Semaphore,
  permits: number,
  effect?: Effect.Effect<unknown, unknown, unknown>
) {
  const site = Ledger.unsafeSite(2)
  const run = <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<Option.Option<A>, E, R> =>
    // MASK: from the take to the release; the effect is restored and nothing waits.
    Effect.uninterruptibleMask((restore) => {
      if (!unsafeTryTake(self, permits)) return Effect.succeedNone
      const hold = recorded(self, permits, site)
      hold?.granted()
      return Handover.useInMask(Effect.asSome(effect), restore, endingOf(self, permits, hold))
    })
  return effect === undefined ? run : run(effect)
}

/**
 * Takes permits, waiting in line if need be, and holds them until the scope closes.
 *
 * **Interruption** — Waiting: leaves the line, nothing is taken. **Errors** — none; a closed scope is a defect, and nothing
 *   stays taken. **Cost** — about 9 µs.
 *
 * @category operations
 * @since 0.1.0
 */
export const take = (
  self: Semaphore,
  permits = 1
): Effect.Effect<void, never, Scope.Scope> => {
  const site = Ledger.unsafeSite(2)
  // MASK: the take and the finalizer that gives back are one step; the wait is restored.
  return Effect.uninterruptibleMask((restore) => {
    const isFree = unsafeTryTake(self, permits)
    const hold = recorded(self, permits, site)
    const kept = Handover.holdInScope(
      self.name,
      Effect.sync(() => giveBack(self, permits, hold))
    )
    if (!isFree) return Effect.zipRight(waitInMask(self, permits, restore, hold), kept)
    hold?.granted()
    return kept
  })
}

/**
 * Changes how many permits there are.
 *
 * **Details** — Growing serves those in line at once. Shrinking never touches a holder: `free` is negative until enough
 *   came back. A waiter that asked for more than there are now dies with the `RangeError` a newcomer would get.
 * **Interruption** — never waits. **Errors** — not a positive whole number is a `RangeError` defect.
 * **Cost** — one look at each waiter when shrinking.
 *
 * @category operations
 * @since 0.1.0
 */
export const resize: {
  (permits: number): (self: Semaphore) => Effect.Effect<void>
  (self: Semaphore, permits: number): Effect.Effect<void>
} = dual(2, (self: Semaphore, permits: number): Effect.Effect<void> =>
  Effect.sync(() => {
    checkSize(permits)
    const isSmaller = permits < self.permits
    self.free += permits - self.permits
    self.permits = permits
    if (isSmaller) {
      WaitQueue.refuse(
        self.queue,
        (need) => need > permits ? Cause.die(neverServed(self, need)) : undefined
      )
    }
    serve(self)
  }))
