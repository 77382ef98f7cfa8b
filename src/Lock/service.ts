/**
 * service: the types of a lock service, and `make`, which builds one over a backend. The invariants stand in Lock.ts.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Rules from "../internal/options.ts"
import * as WaitQueue from "../internal/waitQueue.ts"
import * as Ledger from "../Ledger.ts"
import { printable } from "../Ledger/words.ts"
import * as Managed from "../Managed.ts"
import type { TimeoutOf } from "../Semaphore.ts"
import {
  type Holder,
  type LockBackendError,
  type LockLost,
  LockReentry,
  LockTimeout,
  type LockUnsupported,
  type LossReason
} from "./errors.ts"
import { end, type Grant, Hold, type Lease, leaseOf } from "./lease.ts"

/**
 * The errors of each acquire. With an `acquireTimeout` there is also `LockTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export type LockError = LockUnsupported | LockBackendError

/**
 * How to try for a lock. `label` is shown to those who wait for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryOptions {
  readonly label?: string | undefined
  /** @internal The user's line, if it is not the one that calls the service. */
  readonly site?: Ledger.Site | undefined
}

/**
 * How to wait for a lock. `acquireTimeout` bounds the wait, by the `Clock`. Default: no bound.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends TryOptions {
  readonly acquireTimeout?: Duration.DurationInput | undefined
}

/**
 * Options without an `acquireTimeout`: the operation does not fail with `LockTimeout`.
 *
 * @category models
 * @since 0.1.0
 */
export interface UnboundedOptions extends TryOptions {
  readonly acquireTimeout?: undefined
}

/**
 * The body under a lock: an effect, or a function of the lease.
 *
 * @category models
 * @since 0.1.0
 */
export type Body<A, E, R> = Effect.Effect<A, E, R> | ((lease: Lease) => Effect.Effect<A, E, R>)

/**
 * The body under several locks: an effect, or a function of the leases in the order of their keys.
 *
 * @category models
 * @since 0.1.0
 */
export type Bodies<A, E, R> =
  | Effect.Effect<A, E, R>
  | ((leases: ReadonlyArray<Lease>) => Effect.Effect<A, E, R>)

/**
 * Acquires the key into the scope. `R` is the rest of the context that the operation needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Get<R = never> {
  <O extends Options = {}>(
    key: string,
    options?: O
  ): Effect.Effect<Lease, LockError | TimeoutOf<O, LockTimeout>, Scope.Scope | R>
}

/**
 * Runs the body while holding the key. `R0` is the rest of the context that the operation needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithLock<R0 = never> {
  <O extends Options = {}>(key: string, options?: O): <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<A, E | LockError | LockLost | TimeoutOf<O, LockTimeout>, R | R0>
}

/**
 * Runs the body while holding all the keys. `R0` is the rest of the context that the operation needs.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithLocks<R0 = never> {
  <O extends Options = {}>(keys: Iterable<string>, options?: O): <A, E, R>(
    body: Bodies<A, E, R>
  ) => Effect.Effect<A, E | LockError | LockLost | TimeoutOf<O, LockTimeout>, R | R0>
}

/**
 * A lock service, the same for every backend. Its operations are those of this module, data-last.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  readonly get: Get
  readonly tryGet: (
    key: string,
    options?: TryOptions
  ) => Effect.Effect<Option.Option<Lease>, LockError, Scope.Scope>
  readonly withLock: WithLock
  readonly tryWithLock: (key: string, options?: TryOptions) => <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockError | LockLost, R>
  readonly withLocks: WithLocks
  readonly inspect: (key: string) => Effect.Effect<Option.Option<Holder>, LockBackendError>
}

/**
 * A request to a backend. It may call `lose` at any time, from any callback, any number of times.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Request {
  readonly key: string
  readonly owner: string
  readonly label: string | undefined
  readonly lose: (reason: LossReason) => void
}

/**
 * A backend. Both takes run uninterruptibly, and pass to `restore` the steps that may be interrupted. A take that fails or is
 * interrupted holds nothing. The takes of one key never overlap within one service.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Backend {
  /** The name that others see, usually `host:pid`. */
  readonly self: string
  /** Whether a grant can be lost. The body then runs in a child fiber, which the loss interrupts. */
  readonly remote: boolean
  /** The `realm` of its leases. */
  readonly realm?: string | undefined
  readonly take: (request: Request, restore: Managed.Restore) => Effect.Effect<Grant, LockError>
  readonly tryTake: (
    request: Request,
    restore: Managed.Restore
  ) => Effect.Effect<Option.Option<Grant>, LockError>
  /** Ends within a bound of its own. Called for keys that this service does not hold. */
  readonly inspect: (key: string) => Effect.Effect<Option.Option<Holder>, LockBackendError>
}

/**
 * The options of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface MakeOptions {
  /** How long a release may delay the end of a body. Default 2 seconds. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

/** One key of one service, while it is held or asked for. */
interface Slot {
  readonly queue: WaitQueue.WaitQueue
  hold: Hold | undefined
  /** The ledger's entry of the fiber that has the slot: the holder, or one that waits for the backend. */
  first: Ledger.Entry | undefined
}

interface Asking {
  readonly key: string
  readonly label: string | undefined
  readonly acquireTimeout: Duration.Duration
  readonly site: Ledger.Site | undefined
  /** The ledger's entry; set once, before the first wait. */
  entry: Ledger.Entry | undefined
  /** The `acquireTimeout` ended the wait, as an interruption would. */
  isLate: boolean
}

interface Taken {
  readonly hold: Hold
  readonly slot: Slot
  readonly grant: Grant
  readonly lease: Lease
}

/** A key that a fiber holds by `withLock`. */
interface Held {
  readonly slots: ReadonlyMap<string, Slot>
  readonly hold: Hold
}

/** Of this fiber, or one that forked it (Lock-7). */
const heldHere: FiberRef.FiberRef<ReadonlyArray<Held>> = /* @__PURE__ */ FiberRef.unsafeMake<
  ReadonlyArray<Held>
>([])

/** The key is held: a try that fails with it gives `None`. */
export class NotFree extends Data.TaggedError("NotFree") {}

/** Not `catchAll`, which would keep only the first failure of any other cause. */
export const noneIfHeld = <A, E, R>(
  effect: Effect.Effect<A, E | NotFree, R>
): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.catchAllCause(Effect.asSome(effect), (cause) => {
    const first = Cause.failureOption(cause)
    return Option.isSome(first) && first.value instanceof NotFree
      ? Effect.succeedNone
      : Effect.failCause(cause as Cause.Cause<E>)
  })

const span = (key: string): Ledger.SpanOptions => ({
  attributes: () => ({ "holdfast.lock.key": key })
})

export const siteOf = (options: TryOptions | undefined): Ledger.Site | undefined =>
  options?.site ?? Ledger.unsafeSite()

/** As `restore`, but interrupts an effect that has not ended by `until`, in milliseconds of the `Clock`. */
export const restoreUntil =
  (asking: { isLate: boolean }, restore: Managed.Restore, until: number): Managed.Restore =>
  (effect) =>
    restore(
      Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Effect.flatMap(Effect.timeoutOption(effect, Math.max(until - now, 0)), (ended) => {
          if (Option.isSome(ended)) {
            return Effect.succeed(ended.value)
          }
          asking.isLate = true
          return Effect.interrupt
        }))
    )

/** INVARIANT Lock-9: one order for all, so that no two wait for each other; a nested bracket frees what is open if it fails. */
const several = (withLock: WithLock): WithLocks =>
(keys, options) =>
<A, E, R>(
  body: Bodies<A, E, R>
): Effect.Effect<A, any, R> =>
  Effect.flatMap(Clock.currentTimeMillis, (began) => {
    Rules.check("Lock", options, rules)
    // A text is iterable, too.
    const sorted = Array.from(new Set(typeof keys === "string" ? [keys] : keys)).toSorted()
    const bound = Duration.toMillis(options?.acquireTimeout ?? Infinity)
    const from = (leases: ReadonlyArray<Lease>): Effect.Effect<A, any, R> => {
      const key = sorted[leases.length]
      if (key === undefined) return Effect.isEffect(body) ? body : body(leases)
      return Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const acquireTimeout = Math.max(0, bound - now + began)
        return withLock(key, { ...options, acquireTimeout })((lease) => from([...leases, lease]))
      })
    }
    return from([])
  })

/**
 * A lock service over a backend. The layers are built by this, and so is one over a backend of your own.
 *
 * **Interruption** — Waiting: leaves the queue, and passes on what it was just granted. Opening: as the backend says. Holding: the
 *   body is interrupted and the lock released before the interrupt is seen.
 * **Errors** — `LockTimeout` after `acquireTimeout`; `LockLost` from the brackets; what the backend fails with. `LockReentry` is a
 *   defect, and so is a wrong option.
 * **Cost** — one map; see the head of this file for the operations.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backend: Backend, options?: MakeOptions): Service => {
  Rules.check("Lock.make", options, { releaseDeadline: Rules.duration })
  const releaseDeadline = options?.releaseDeadline ?? "2 seconds"
  // A key is here while its slot is taken; the waiters are in its queue.
  const slots = new Map<string, Slot>()
  let nextOwner = 1

  const unsafeTryTake = (key: string): Slot | undefined => {
    if (slots.has(key)) return undefined
    const slot: Slot = { queue: WaitQueue.make(), hold: undefined, first: undefined }
    slots.set(key, slot)
    return slot
  }
  /** The next waiter has the slot, in this step. */
  const passOn = (key: string, slot: Slot): void => {
    slot.hold = undefined
    slot.first = undefined
    if (slot.queue.size > 0) WaitQueue.grantHead(slot.queue)
    else slots.delete(key)
  }

  const waitForSlot = (asking: Asking, restore: Managed.Restore): Effect.Effect<Slot> => {
    const { acquireTimeout: atMost, key } = asking
    const free = unsafeTryTake(key)
    if (free !== undefined) return Effect.succeed(free)
    const slot = slots.get(key)!
    const onLeave = (wasGranted: boolean): void => {
      if (wasGranted) passOn(key, slot)
    }
    const late = (): Cause.Cause<never> => {
      asking.isLate = true
      return Cause.interrupt(FiberId.none)
    }
    const options = { bound: { atMost, late } }
    const waited = WaitQueue.waitInMask(slot.queue, 1, restore, onLeave, undefined, options)
    return Effect.as(waited, slot)
  }

  /** From the slot to the backend's grant; on any failure the next waiter has the slot. */
  const takeGrant = <E>(
    { entry, key, label, site }: Asking,
    slot: Slot,
    ask: (request: Request) => Effect.Effect<Grant, E>
  ): Effect.Effect<Taken, E> => {
    slot.first = entry
    const shown = label === undefined ? "" : `:${label}`
    const hold = new Hold(key, `${backend.self}${shown}#${nextOwner++}`, site)
    const lose = (reason: LossReason): void => end(hold, reason)
    const request = {
      key,
      label,
      lose,
      get owner() {
        return hold.owner
      }
    }
    return Effect.matchCauseEffect(ask(request), {
      onFailure: (cause) => {
        passOn(key, slot)
        return Effect.failCause(cause)
      },
      onSuccess: (grant) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          hold.grant = grant
          hold.since = now
          slot.hold = hold
          return { hold, slot, grant, lease: leaseOf(hold, grant, backend.realm) }
        })
    })
  }

  const take = (
    asking: Asking,
    restore: Managed.Restore,
    within: Managed.Restore
  ): Effect.Effect<Taken, LockError> =>
    Effect.flatMap(
      Effect.suspend(() => waitForSlot(asking, restore)),
      (slot) => takeGrant(asking, slot, (request) => backend.take(request, within))
    )

  const takeInTime = (
    asking: Asking,
    restore: Managed.Restore
  ): Effect.Effect<Taken, LockError | LockTimeout> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const { acquireTimeout: waited } = asking
      const within = restoreUntil(asking, restore, now + Duration.toMillis(waited))
      return Effect.catchAllCause(
        take(asking, restore, within),
        (cause): Effect.Effect<never, LockError | LockTimeout> => {
          const { isLate, key } = asking
          if (!isLate || !Cause.isInterruptedOnly(cause)) return Effect.failCause(cause)
          const seen = restore(Effect.orElseSucceed(inspect(key), Option.none<Holder>))
          return Effect.flatMap(seen, (seen) => {
            const holder = Option.getOrUndefined(seen)
            return new LockTimeout({ key, waited, holder })
          })
        }
      )
    })

  const tryTake = (
    asking: Asking,
    restore: Managed.Restore
  ): Effect.Effect<Taken, LockError | NotFree> =>
    Effect.suspend((): Effect.Effect<Taken, LockError | NotFree> => {
      const slot = unsafeTryTake(asking.key)
      if (slot === undefined) return new NotFree()
      return takeGrant(asking, slot, (request) =>
        Effect.flatMap(
          backend.tryTake(request, restore),
          Option.match({ onNone: () => new NotFree(), onSome: Effect.succeed })
        ))
    })

  const free = ({ hold, slot }: Taken): void => {
    // A release that was abandoned may end later, when the slot is another's.
    if (slot.hold === hold) passOn(hold.key, slot)
  }

  /** For one run, which has one entry in the ledger. */
  const managed = <E>(
    key: string,
    { acquireTimeout = Infinity, label }: Options,
    site: Ledger.Site | undefined,
    acquire: (asking: Asking, restore: Managed.Restore) => Effect.Effect<Taken, E>
  ): Managed.Managed<Taken, E> => {
    const asking: Asking = {
      key,
      label,
      acquireTimeout: Duration.decode(acquireTimeout),
      site,
      entry: undefined,
      isLate: false
    }
    return Managed.make({
      name: key,
      kind: "lock",
      acquire: (restore) => Ledger.withSpan(acquire(asking, restore), "lock.acquire", span(key)),
      release: (taken) => {
        end(taken.hold, "released")
        const { release } = taken.grant
        if (!Exit.isExit(release)) return Effect.ensuring(release, Effect.sync(() => free(taken)))
        free(taken)
        return release
      },
      releaseDeadline,
      onOverrun: (taken) => Effect.sync(() => free(taken)),
      onReleaseFailure: "report",
      recording: {
        site,
        onEntry: (entry) => {
          asking.entry = entry
        },
        blockedBy: () => {
          const first = slots.get(key)?.first
          return first === undefined || first === asking.entry ? [] : [first]
        }
      }
    })
  }

  const refuseReentry = (key: string): Effect.Effect<void> =>
    Effect.flatMap(FiberRef.get(heldHere), (held) => {
      const isHeld = ({ hold, slots: home }: Held): boolean =>
        home === slots && hold.key === key && slots.get(key)?.hold === hold
      return held.some(isHeld) ? Effect.die(new LockReentry({ key })) : Effect.void
    })

  const inspect = (key: string): Effect.Effect<Option.Option<Holder>, LockBackendError> =>
    Effect.suspend(() => {
      const hold = slots.get(key)?.hold
      return hold?.grant === undefined || hold.ended !== undefined
        ? Effect.map(
          backend.inspect(key),
          Option.map(({ fence, holder, since }) => ({ holder: printable(holder), fence, since }))
        )
        : Effect.succeedSome({ holder: hold.owner, fence: hold.grant.fence, since: hold.since })
    })

  const waiting = (
    key: string,
    options: Options = {},
    site: Ledger.Site | undefined
  ): Managed.Managed<Taken, LockError | LockTimeout> => {
    Rules.check("Lock", options, rules)
    return managed(key, options, site, (asking, restore) =>
      Effect.zipRight(
        refuseReentry(key),
        Duration.isFinite(asking.acquireTimeout)
          ? takeInTime(asking, restore)
          : take(asking, restore, restore)
      ))
  }

  const trying = (
    key: string,
    options: TryOptions,
    site: Ledger.Site | undefined
  ): Managed.Managed<Taken, LockError | NotFree> => {
    Rules.check("Lock", options, tryRules)
    return managed(key, options, site, tryTake)
  }

  const holding = <A, E, R>(body: Body<A, E, R>) =>
  (
    { hold, lease }: Taken
  ): Effect.Effect<A, E | LockLost, R> => {
    const user = Effect.suspend(() => Effect.isEffect(body) ? body : body(lease))
    const run = Ledger.withSpan(user, "lock.hold", span(hold.key))
    return Effect.locallyWith(
      // A grant of this process cannot be lost, so no fiber is forked to watch over it.
      backend.remote ? lease.protect(run) : run,
      heldHere,
      (held) => [...held, { hold, slots }]
    )
  }

  const withLock = (key: string, options?: Options) =>
  <A, E, R>(
    body: Body<A, E, R>
  ): Effect.Effect<A, any, R> => {
    const site = siteOf(options)
    return Effect.suspend(() => Managed.use(waiting(key, options, site), holding(body)))
  }

  return {
    // `any`: with no `acquireTimeout` there is no `LockTimeout`, and the types of `Service` say so.
    get: (key, options): Effect.Effect<Lease, any, Scope.Scope> => {
      const site = siteOf(options)
      return Effect.map(Effect.suspend(() => waiting(key, options, site)), ({ lease }) => lease)
    },
    tryGet: (key, options = {}) => {
      const site = siteOf(options)
      const tried = Effect.suspend(() => trying(key, options, site))
      return noneIfHeld(Effect.map(tried, ({ lease }) => lease))
    },
    withLock,
    tryWithLock: (key, options = {}) => (body) => {
      const site = siteOf(options)
      return noneIfHeld(
        Effect.suspend(() => Managed.use(trying(key, options, site), holding(body)))
      )
    },
    withLocks: several(withLock),
    inspect
  }
}

export const tryRules: Rules.Rules = { label: Rules.text, site: Rules.anything }
export const rules: Rules.Rules = { ...tryRules, acquireTimeout: Rules.duration }

/**
 * A lock service within this process: the fair queue of each key, and a counter for the fences.
 *
 * **Interruption** — as `make`. **Errors** — `LockTimeout`; a lease is never lost. **Cost** — as `make`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeMemory: Effect.Effect<Service> = Effect.sync(() => {
  let lastFence = 0n
  const grant: Effect.Effect<Grant> = Effect.sync(() => ({
    fence: ++lastFence,
    verify: Effect.succeed(true),
    release: Effect.void
  }))
  return make({
    self: "this process",
    remote: false,
    take: () => grant,
    tryTake: () => Effect.asSome(grant),
    inspect: () => Effect.succeedNone
  })
})
