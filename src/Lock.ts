/**
 * Lock: one holder per key. A lease with a fence, a loss signal that stops the body, and the in-process layer.
 *
 * DESIGN. Everything a caller sees is decided here, once. A backend (`Lock/Postgres.ts`, `Lock/File.ts`) only says how to
 * take, try, inspect and verify one key, and calls `lose` when its grant is gone. In front of every backend stands one fair
 * line per key (order is decided in internal/waitQueue.ts), so a process has at most one remote waiter per key, and the
 * in-process layer is that line and nothing more.
 *
 * INVARIANTS
 * - Lock-1 (G1) At most one holder per key; `fence` strictly increases in the order of the grants of a key.
 * - Lock-2 (G2, L1) Released exactly once on success, failure, defect and interruption; a release that fails or is slow
 *   changes nothing of the body's exit and delays it by `releaseWithin` at most.
 * - Lock-3 (G3, L2) Only waiting is interruptible. A waiter that is interrupted or late leaves nothing taken.
 * - Lock-4 (G4, L8) When the lease is lost the body is interrupted and the effect fails with `LockLost`.
 * - Lock-5 (G5) A bracket never raises `LockLost` by its own release, nor once its body has ended.
 * - Lock-6 (G6, L6) FIFO among the fibers that share one service.
 * - Lock-7 (G7) A key that the same fiber tree holds by `withLock` fails with `LockReentry` instead of waiting for itself.
 * - Lock-8 (L9) With a ledger in force, who waits for a key is `acquiring` there, blocked by who has it in this process.
 *
 * COST (2026-11, 2 small cores) in process, uncontended: 13 µs a bracket; `waitAtMost` forks two fibers; a remote lease runs its
 * body in a child fiber. State per key goes when nobody holds or awaits it.
 * NOT DONE shared mode, several keys at once, leases with a time to live. Deadlocks between keys are told by the ledger, within this
 * process, and not broken: take nested keys in one order everywhere, or give `waitAtMost`.
 * NOT PROMISED that a paused process, or a body which ignores interruption, stops in time: pass `fence` to what you write to,
 * and let it refuse.
 * SOURCES madelson/DistributedLock (handle-lost token), Kleppmann 2016 (fencing), Curator #985 (interrupt the body).
 *
 * To add a backend: copy a file of `Lock/`, and run `test/Lock.contract.ts` on it.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { exitWithin } from "./internal/deadline.ts"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"
import * as Semaphore from "./Semaphore.ts"

/**
 * Who holds a key, as far as the backend can tell. `since` is in milliseconds of the holder's clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Holder {
  readonly holder: string
  readonly fence?: bigint | undefined
  readonly since?: number | undefined
}

const describe = (holder: Holder): string =>
  holder.holder + (holder.fence === undefined ? "" : ` (fence ${holder.fence})`)

/**
 * The lock was not free within `waitAtMost`.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockTimeout extends Data.TaggedError("LockTimeout")<{
  readonly key: string
  readonly waited: Duration.Duration
  readonly holder?: Holder | undefined
}> {
  override get message(): string {
    const by = this.holder === undefined
      ? "an unknown holder (or it was freed just now)"
      : describe(this.holder)
    return `Lock "${this.key}" was not free within ${Duration.format(this.waited)}: held by ${by}. `
      + "Raise `waitAtMost`, or hold it for less."
  }
}

/**
 * Why a lease ended before its holder gave it up. `"released"`: it was used after its own scope had closed.
 *
 * @category models
 * @since 0.1.0
 */
export type LossReason = "connection" | "vanished" | "superseded" | "deadline" | "released"

/**
 * The lease is gone: somebody else may hold the key now. The body was interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockLost extends Data.TaggedError("LockLost")<{
  readonly key: string
  readonly fence: bigint
  readonly reason: LossReason
}> {
  override get message(): string {
    return `The lease of lock "${this.key}" (fence ${this.fence}) was lost: ${this.reason}. `
      + "Somebody else may hold it now; what was written after the loss must be refused by its fence."
  }
}

/**
 * The same fiber tree holds this key already: waiting for it would wait for ever.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockReentry extends Data.TaggedError("LockReentry")<{ readonly key: string }> {
  override get message(): string {
    return `Lock "${this.key}" is held by this fiber or one that forked it, and would wait for itself. `
      + "Take it once, outside, and pass the lease in."
  }
}

/**
 * This backend cannot keep its promise here.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockUnsupported extends Data.TaggedError("LockUnsupported")<{
  readonly why: "pooler" | "platform"
  readonly detail: string
}> {
  override get message(): string {
    return `This lock cannot work here (${this.why}): ${this.detail}`
  }
}

/**
 * The backend failed while doing `op`. Nothing is held.
 *
 * @category errors
 * @since 0.1.0
 */
export class LockBackendError extends Data.TaggedError("LockBackendError")<{
  readonly op: string
  readonly cause: unknown
}> {
  override get message(): string {
    const why = this.cause instanceof Error ? this.cause.message : String(this.cause)
    return `The lock backend failed at "${this.op}": ${why}`
  }
}

/**
 * What an acquire can fail with.
 *
 * @category errors
 * @since 0.1.0
 */
export type LockError = LockTimeout | LockReentry | LockUnsupported | LockBackendError

/**
 * A held lock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  readonly key: string
  /** Unique to this hold: who we are, the label, and a number. */
  readonly owner: string
  /** Strictly increasing per key. Send it along with each write, and let the target refuse a smaller one. */
  readonly fence: bigint
  /** Fails when the lease is lost; completes in no other way. */
  readonly lost: Effect.Effect<never, LockLost>
  /** Local knowledge only, no I/O: call it before a side effect. */
  readonly ensureLive: Effect.Effect<void, LockLost>
  /** Asks the backend. */
  readonly verify: Effect.Effect<void, LockLost | LockBackendError>
  /** Runs an effect that is interrupted, and fails with `LockLost`, when the lease is lost or its scope closes. */
  readonly protect: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LockLost, R>
}

/**
 * How to try for a lock. `label` is shown to whoever waits for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryOptions {
  readonly label?: string | undefined
  /** @internal The line that asks, where it is not the one that calls the service. */
  readonly site?: Ledger.Site | undefined
}

/**
 * How to wait for a lock. Without `waitAtMost` the wait has no bound.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends TryOptions {
  readonly waitAtMost?: Duration.DurationInput | undefined
}

/**
 * What runs under a lock: an effect, or a function of the lease.
 *
 * @category models
 * @since 0.1.0
 */
export type Body<A, E, R> = Effect.Effect<A, E, R> | ((lease: Lease) => Effect.Effect<A, E, R>)

/**
 * A lock service: the same for every backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service {
  /** Waits for the key and holds it until the scope closes. */
  readonly acquire: (
    key: string,
    options?: Options
  ) => Effect.Effect<Lease, LockError, Scope.Scope>
  /** As `acquire`, but never waits for a holder: none if the key is held. */
  readonly tryAcquire: (
    key: string,
    options?: TryOptions
  ) => Effect.Effect<Option.Option<Lease>, LockError, Scope.Scope>
  /** Runs the body while holding the key. */
  readonly withLock: (
    key: string,
    options?: Options
  ) => <A, E, R>(body: Body<A, E, R>) => Effect.Effect<A, E | LockError | LockLost, R>
  /** As `withLock`, but never waits for a holder: none, and no body, if the key is held. */
  readonly withLockIfFree: (
    key: string,
    options?: TryOptions
  ) => <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockError | LockLost, R>
  /** Who holds the key now. */
  readonly inspect: (key: string) => Effect.Effect<Option.Option<Holder>, LockBackendError>
}

/**
 * The lock service in the context.
 *
 * @category tags
 * @since 0.1.0
 */
export class Lock extends Context.Tag("holdfast/Lock")<Lock, Service>() {}

/**
 * What a backend is asked for. `lose` may be called at any time, from any callback, any number of times.
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
 * What a backend gives.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Grant {
  readonly fence: bigint
  /** Is it still ours, by the backend's word? */
  readonly verify: Effect.Effect<boolean, LockBackendError>
  /** Runs once. Cut off after `releaseWithin`: it must then still let go by itself. */
  readonly release: Effect.Effect<unknown, unknown>
}

/**
 * All that a backend has to say. Both takes run uninterruptibly and mark with `restore` what may be cut; one that fails or
 * is cut holds nothing. The takes of one key never overlap within one service.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Backend {
  /** Who we are to others: usually `host:pid`. */
  readonly self: string
  /** The grant lives elsewhere: it can be lost, and its release can hang. */
  readonly remote: boolean
  readonly take: (
    request: Request,
    restore: Managed.Restore
  ) => Effect.Effect<Grant, LockUnsupported | LockBackendError>
  readonly tryTake: (
    request: Request,
    restore: Managed.Restore
  ) => Effect.Effect<Option.Option<Grant>, LockUnsupported | LockBackendError>
  /** Bounded by itself; asked about keys that this service does not hold. */
  readonly inspect: (key: string) => Effect.Effect<Option.Option<Holder>, LockBackendError>
}

/** One key of one service, while anybody holds or awaits it. Guarded by the single thread. */
interface Slot {
  readonly line: Semaphore.Semaphore
  users: number
  hold: Hold | undefined
  /** Who has the line, if that is recorded: its holder, or who waits for the backend. */
  first: Ledger.Entry | undefined
}

/** One grant from first request to release. Guarded by the single thread. */
interface Hold {
  readonly home: ReadonlyMap<string, Slot>
  readonly key: string
  readonly owner: string
  readonly watchers: Set<() => void>
  grant: Grant | undefined
  since: number
  ended: LossReason | undefined
}

/** The keys that this fiber, or one that forked it, holds by `withLock` (Lock-7). */
const heldHere: FiberRef.FiberRef<ReadonlyArray<Hold>> = /* @__PURE__ */ FiberRef.unsafeMake<
  ReadonlyArray<Hold>
>([])

/** Whether the fiber ended before the signal; interruptible, and leaves both as they are. */
const endsBefore = (
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  listen: (fire: () => void) => () => void
): Effect.Effect<boolean> =>
  Effect.async((resume) => {
    const forget = listen(() => resume(Effect.succeed(false)))
    const ended = (): void => {
      forget()
      resume(Effect.succeed(true))
    }
    fiber.addObserver(ended)
    return Effect.sync(() => {
      fiber.removeObserver(ended)
      forget()
    })
  })

const end = (hold: Hold, reason: LossReason): void => {
  if (hold.ended !== undefined) return
  hold.ended = reason
  // A watcher that fires removes itself: walk a copy.
  for (const fire of Array.from(hold.watchers)) fire()
}

const listenForEnd = (hold: Hold) => (fire: () => void): () => void => {
  if (hold.ended !== undefined) fire()
  else hold.watchers.add(fire)
  return () => {
    hold.watchers.delete(fire)
  }
}

const lostBy = (hold: Hold, reason: LossReason): LockLost =>
  new LockLost({ key: hold.key, fence: hold.grant?.fence ?? 0n, reason })

const ensureLive = (hold: Hold): Effect.Effect<void, LockLost> =>
  Effect.suspend(() =>
    hold.ended === undefined ? Effect.void : Effect.fail(lostBy(hold, hold.ended))
  )

/** The interruption of a lost body is our doing; anything else it died of is kept beside the loss (L5). */
const lostWith = <A, E>(
  hold: Hold,
  reason: LossReason,
  exit: Exit.Exit<A, E>
): Effect.Effect<never, E | LockLost> => {
  const lost = Cause.fail(lostBy(hold, reason))
  return Effect.failCause<E | LockLost>(
    Exit.isSuccess(exit) || Cause.isInterruptedOnly(exit.cause)
      ? lost
      : Cause.sequential(lost, exit.cause)
  )
}

const protect = (hold: Hold) =>
<A, E, R>(
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LockLost, R> =>
  // MASK: whoever forked the body sees it ended, whatever comes; the body and the wait for it are restored.
  Effect.uninterruptibleMask((restore) =>
    Effect.zipRight(
      ensureLive(hold),
      Effect.flatMap(Effect.fork(restore(body)), (fiber) =>
        Effect.flatMap(
          Effect.exit(restore(endsBefore(fiber, listenForEnd(hold)))),
          (first) =>
            Effect.flatMap(
              Exit.isSuccess(first) && first.value ? Fiber.await(fiber) : Fiber.interrupt(fiber),
              (exit) =>
                Effect.zipRight(
                  Fiber.inheritAll(fiber),
                  Exit.isSuccess(first) && !first.value && hold.ended !== undefined
                    ? lostWith(hold, hold.ended, exit)
                    : exit
                )
            )
        ))
    )
  )

const leaseOf = (hold: Hold, grant: Grant): Lease => ({
  key: hold.key,
  owner: hold.owner,
  fence: grant.fence,
  lost: Effect.async((resume) => {
    const forget = listenForEnd(hold)(() => {
      // Our own release is not a loss (Lock-5): whoever still watches waits until interrupted.
      if (hold.ended !== undefined && hold.ended !== "released") {
        resume(Effect.fail(lostBy(hold, hold.ended)))
      }
    })
    return Effect.sync(forget)
  }),
  ensureLive: ensureLive(hold),
  verify: Effect.zipRight(
    ensureLive(hold),
    Effect.flatMap(grant.verify, (ours) => {
      if (!ours) end(hold, "vanished")
      return ensureLive(hold)
    })
  ),
  protect: protect(hold)
})

/** Ends a wait at `limit`. What was granted at the last moment is kept; a cut or late wait gives its grant back. */
const waitWithin = <A, E, E2>(
  take: (restore: Managed.Restore) => Effect.Effect<A, E>,
  limit: Duration.Duration,
  restore: Managed.Restore,
  giveBack: (value: A) => Effect.Effect<void>,
  onLate: Effect.Effect<never, E2>
): Effect.Effect<A, E | E2> =>
  // Forked from a mask the work is uninterruptible to its very end, so a grant is its exit and cannot be cut away.
  Effect.flatMap(Effect.forkDaemon(take(Effect.interruptible)), (work) =>
    Effect.flatMap(
      Effect.forkDaemon(Effect.interruptible(Effect.sleep(limit))),
      (timer) => {
        const onTime = (fire: () => void) => {
          timer.addObserver(fire)
          return () => timer.removeObserver(fire)
        }
        return Effect.flatMap(Effect.exit(restore(endsBefore(work, onTime))), (first) => {
          timer.unsafeInterruptAsFork(work.id())
          if (Exit.isSuccess(first) && first.value) return Effect.flatten(Fiber.await(work))
          return Effect.flatMap(Fiber.interrupt(work), (exit): Effect.Effect<A, E | E2> => {
            if (Exit.isSuccess(first)) {
              return Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause) ? onLate : exit
            }
            return Effect.zipRight(
              Exit.isSuccess(exit) ? giveBack(exit.value) : Effect.void,
              Effect.failCause(first.cause)
            )
          })
        })
      }
    ))

/** The key was held: how a try says so to itself; never seen outside. */
class NotFree extends Data.TaggedError("NotFree") {}

/** Every other cause passes whole: `catchAll` would keep only its first failure. */
const noneIfHeld = <A, E, R>(
  effect: Effect.Effect<A, E | NotFree, R>
): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.catchAllCause(Effect.asSome(effect), (cause) => {
    const first = Cause.failureOption(cause)
    return Option.isSome(first) && first.value instanceof NotFree
      ? Effect.succeedNone
      : Effect.failCause(cause as Cause.Cause<E>)
  })

/**
 * What `make` can be told.
 *
 * @category models
 * @since 0.1.0
 */
export interface MakeOptions {
  /** How long a body's end may be delayed by a remote release. Default 2 seconds. */
  readonly releaseWithin?: Duration.DurationInput | undefined
}

interface Taken {
  readonly hold: Hold
  readonly slot: Slot
  readonly grant: Grant
  readonly lease: Lease
}

/** One who asks for a key. */
interface Asking {
  readonly key: string
  readonly label: string | undefined
  /** Its entry, if it is recorded. Guarded by the single thread; written once, before anything is waited for. */
  entry: Ledger.Entry | undefined
}

/** The user's line. */
const siteOf = (options: TryOptions | undefined): Ledger.Site | undefined =>
  options?.site ?? Ledger.unsafeSite()

/**
 * A lock service over a backend. This is how the layers are built, and how a backend of your own becomes one.
 *
 * **Interruption** — Waiting: gives up its place, and what it was just granted; Opening: as the backend says; Holding: the
 *   body is interrupted, the lock released, then the interrupt is seen.
 * **Errors** — `LockTimeout` after `waitAtMost`; `LockReentry`; `LockLost` from the brackets; what the backend fails with.
 * **Cost** — one map; see the head of this file for the operations.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backend: Backend, options?: MakeOptions): Service => {
  const releaseWithin = Duration.decode(options?.releaseWithin ?? "2 seconds")
  // Guarded by the single thread; an entry stays as long as `users` counts anybody.
  const slots = new Map<string, Slot>()
  let nextOwner = 1

  const enter = (key: string): Slot => {
    let slot = slots.get(key)
    if (slot === undefined) {
      slot = { line: Semaphore.unsafeMake(1), users: 0, hold: undefined, first: undefined }
      slots.set(key, slot)
    }
    slot.users++
    return slot
  }
  const leave = (key: string, slot: Slot): void => {
    if (--slot.users === 0) slots.delete(key)
  }
  const giveSlot = (key: string, slot: Slot): void => {
    slot.hold = undefined
    slot.first = undefined
    Semaphore.unsafeRelease(slot.line, 1)
    leave(key, slot)
  }
  const newHold = (key: string, label: string | undefined): Hold => ({
    home: slots,
    key,
    owner: `${backend.self}${label === undefined ? "" : `:${label}`}#${nextOwner++}`,
    watchers: new Set(),
    grant: undefined,
    since: 0,
    ended: undefined
  })

  /** From the slot that is ours to the backend's grant; on any failure the slot goes on to the next in line. */
  const takeGrant = <E>(
    { entry, key, label }: Asking,
    slot: Slot,
    ask: (request: Request) => Effect.Effect<Grant, E>
  ): Effect.Effect<Taken, E> => {
    slot.first = entry
    const hold = newHold(key, label)
    const lose = (reason: LossReason): void => end(hold, reason)
    return Effect.matchCauseEffect(ask({ key, label, owner: hold.owner, lose }), {
      onFailure: (cause) => {
        giveSlot(key, slot)
        return Effect.failCause(cause)
      },
      onSuccess: (grant) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          hold.grant = grant
          hold.since = now
          slot.hold = hold
          return { hold, slot, grant, lease: leaseOf(hold, grant) }
        })
    })
  }

  const waitForGrant = (
    asking: Asking,
    restore: Managed.Restore
  ): Effect.Effect<Taken, LockError> =>
    Effect.suspend(() => {
      const { key } = asking
      const slot = enter(key)
      return Effect.matchCauseEffect(Semaphore.takeInMask(slot.line, 1, restore), {
        onFailure: (cause) => {
          leave(key, slot)
          return Effect.failCause(cause)
        },
        onSuccess: () => takeGrant(asking, slot, (request) => backend.take(request, restore))
      })
    })

  const tryForGrant = (
    asking: Asking,
    restore: Managed.Restore
  ): Effect.Effect<Taken, LockError | NotFree> =>
    Effect.suspend((): Effect.Effect<Taken, LockError | NotFree> => {
      const { key } = asking
      const slot = enter(key)
      if (!Semaphore.unsafeTryTake(slot.line, 1)) {
        leave(key, slot)
        return Effect.fail(new NotFree())
      }
      return takeGrant(asking, slot, (request) =>
        Effect.flatMap(
          backend.tryTake(request, restore),
          (grant): Effect.Effect<Grant, NotFree> =>
            Option.isSome(grant) ? Effect.succeed(grant.value) : Effect.fail(new NotFree())
        ))
    })

  /** Never fails (Lock-2): a failed or slow release is told to the log and to nobody else. */
  const release = ({ grant, hold, slot }: Taken): Effect.Effect<void> =>
    Effect.suspend(() => {
      end(hold, "released")
      const released = backend.remote
        ? exitWithin(grant.release, releaseWithin)
        : Effect.asSome(Effect.exit(grant.release))
      return Effect.flatMap(released, (ended) => {
        giveSlot(hold.key, slot)
        if (Option.isNone(ended)) {
          return Effect.logWarning(
            `The release of lock "${hold.key}" did not end within ${
              Duration.format(releaseWithin)
            } and was left to itself.`
          )
        }
        return Exit.isFailure(ended.value)
          ? Effect.logWarning(`The release of lock "${hold.key}" failed.`, ended.value.cause)
          : Effect.void
      })
    })

  /** For one run, which has one entry. */
  const managed = <E>(
    key: string,
    options: TryOptions | undefined,
    site: Ledger.Site | undefined,
    acquire: (asking: Asking, restore: Managed.Restore) => Effect.Effect<Taken, E>
  ): Managed.Managed<Taken, E> => {
    const asking: Asking = { key, label: options?.label, entry: undefined }
    return Managed.make({
      name: key,
      kind: "lock",
      acquire: (restore) => acquire(asking, restore),
      release,
      // `release` keeps its own bound and never fails.
      releaseDeadline: Duration.infinity,
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

  const refuseReentry = (key: string): Effect.Effect<void, LockReentry> =>
    Effect.flatMap(
      FiberRef.get(heldHere),
      (holds) =>
        holds.some((hold) =>
            hold.home === slots && hold.key === key && slots.get(key)?.hold === hold
          )
          ? Effect.fail(new LockReentry({ key }))
          : Effect.void
    )

  const inspect = (key: string): Effect.Effect<Option.Option<Holder>, LockBackendError> =>
    Effect.suspend(() => {
      const hold = slots.get(key)?.hold
      return hold === undefined || hold.grant === undefined || hold.ended !== undefined
        ? backend.inspect(key)
        : Effect.succeed(
          Option.some({ holder: hold.owner, fence: hold.grant.fence, since: hold.since })
        )
    })

  const timedOut = (
    key: string,
    waited: Duration.Duration,
    restore: Managed.Restore
  ): Effect.Effect<never, LockTimeout> =>
    Effect.flatMap(
      restore(Effect.orElseSucceed(inspect(key), Option.none)),
      (holder) =>
        Effect.fail(new LockTimeout({ key, waited, holder: Option.getOrUndefined(holder) }))
    )

  const waiting = (
    key: string,
    options: Options | undefined,
    site: Ledger.Site | undefined
  ): Managed.Managed<Taken, LockError> =>
    managed(key, options, site, (asking, restore) => {
      const take = (restore: Managed.Restore) => waitForGrant(asking, restore)
      if (options?.waitAtMost === undefined) {
        return Effect.zipRight(refuseReentry(key), take(restore))
      }
      const limit = Duration.decode(options.waitAtMost)
      return Effect.zipRight(
        refuseReentry(key),
        waitWithin(take, limit, restore, release, timedOut(key, limit, restore))
      )
    })

  const trying = (
    key: string,
    options: TryOptions | undefined,
    site: Ledger.Site | undefined
  ): Managed.Managed<Taken, LockError | NotFree> => managed(key, options, site, tryForGrant)

  const holding = <A, E, R>(body: Body<A, E, R>) =>
  (
    { hold, lease }: Taken
  ): Effect.Effect<A, E | LockLost, R> => {
    const run = Effect.suspend(() => Effect.isEffect(body) ? body : body(lease))
    return Effect.locallyWith(
      // A grant that lives in this process cannot be lost: no fiber is forked to watch over it.
      backend.remote ? lease.protect(run) : run,
      heldHere,
      (holds) => [...holds, hold]
    )
  }

  return {
    acquire: (key, options) => {
      const site = siteOf(options)
      return Effect.map(Effect.suspend(() => waiting(key, options, site)), ({ lease }) => lease)
    },
    tryAcquire: (key, options) => {
      const site = siteOf(options)
      const tried = Effect.suspend(() => trying(key, options, site))
      return noneIfHeld(Effect.map(tried, ({ lease }) => lease))
    },
    withLock: (key, options) => (body) => {
      const site = siteOf(options)
      return Effect.suspend(() => Managed.use(waiting(key, options, site), holding(body)))
    },
    withLockIfFree: (key, options) => (body) => {
      const site = siteOf(options)
      return noneIfHeld(
        Effect.suspend(() => Managed.use(trying(key, options, site), holding(body)))
      )
    },
    inspect
  }
}

/**
 * A lock service within this process: the fair line of each key, and a counter for the fences.
 *
 * **Interruption** — as `make`. **Errors** — `LockTimeout`, `LockReentry`; a lease is never lost. **Cost** — as `make`.
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

/**
 * The in-process lock, for tests and for programs of one process.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — one map.
 *
 * **Example** (one at a time)
 * ```ts run
 * import { Effect } from "effect"
 * import { Lock } from "holdfast"
 *
 * const fence = Lock.withLock("report:42")((lease) => Effect.succeed(lease.fence))
 * const both = Effect.provide(Effect.zip(fence, fence), Lock.layerMemory)
 * const fences = await Effect.runPromise(both)
 * fences // => [1n, 2n]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Lock> = Layer.effect(Lock, makeMemory)

/** As asked for here: the service is called later, where the user's line cannot be seen. */
const fromHere = <O extends TryOptions>(options: O | undefined): O | TryOptions | undefined => {
  const site = Ledger.unsafeSite()
  return site === undefined ? options : { ...options, site }
}

/**
 * Waits for the key and holds it until the scope closes.
 *
 * **Interruption** — Waiting: the place is given up and nothing is held. Holding: released as the scope closes.
 * **Errors** — `LockError`. Loss is told by the lease: wrap what must not go on in `lease.protect`. Only the brackets mark the
 *   key as held (Lock-7), for a scope may be closed by anybody: taking it twice in one scope waits for itself.
 * **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const acquire = (
  key: string,
  options?: Options
): Effect.Effect<Lease, LockError, Lock | Scope.Scope> => {
  const asked = fromHere(options)
  return Effect.flatMap(Lock, (lock) => lock.acquire(key, asked))
}

/**
 * As `acquire`, but never waits for a holder: none if the key is held.
 *
 * **Interruption** — Opening: nothing is held. **Errors** — `LockError`. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryAcquire = (
  key: string,
  options?: TryOptions
): Effect.Effect<Option.Option<Lease>, LockError, Lock | Scope.Scope> => {
  const asked = fromHere(options)
  return Effect.flatMap(Lock, (lock) => lock.tryAcquire(key, asked))
}

/**
 * Runs the body while holding the key.
 *
 * **Interruption** — Waiting: the place is given up and nothing is held. Holding: the body is interrupted, the lock released,
 *   then the interrupt is seen.
 * **Errors** — of the body; `LockError` before the body starts; `LockLost` if the lease is lost while it runs. A failing
 *   release is logged and changes nothing. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLock =
  (key: string, options?: Options) =>
  <A, E, R>(body: Body<A, E, R>): Effect.Effect<A, E | LockError | LockLost, R | Lock> => {
    const asked = fromHere(options)
    return Effect.flatMap(Lock, (lock) => lock.withLock(key, asked)(body))
  }

/**
 * As `withLock`, but never waits for a holder: none, and the body does not run, if the key is held.
 *
 * **Interruption** — as `withLock`. **Errors** — as `withLock`. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLockIfFree = (key: string, options?: TryOptions) =>
<A, E, R>(
  body: Body<A, E, R>
): Effect.Effect<Option.Option<A>, E | LockError | LockLost, R | Lock> => {
  const asked = fromHere(options)
  return Effect.flatMap(Lock, (lock) => lock.withLockIfFree(key, asked)(body))
}

/**
 * Who holds the key now, as far as the backend can tell.
 *
 * **Interruption** — safe at any point. **Errors** — `LockBackendError`. **Cost** — a map look-up for our own holds, one round
 *   trip for others'.
 *
 * @category getters
 * @since 0.1.0
 */
export const inspect = (
  key: string
): Effect.Effect<Option.Option<Holder>, LockBackendError, Lock> =>
  Effect.flatMap(Lock, (lock) => lock.inspect(key))
