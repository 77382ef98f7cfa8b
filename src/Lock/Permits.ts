/**
 * Lock/Permits: locks that several may hold at once. `SharedLock` has many readers or one writer per key, `DistributedSemaphore` a number
 * of permits per key.
 *
 * DESIGN. One machine for both: a reader takes one permit of very many, a writer all of them. A backend queues the waiters; the lease,
 * its loss and its fence are those of Lock/lease.ts. The two services are tags of their own, so a program's type says which of them its
 * backend must have: in this process (`layerMemory`) and through Redis (`LockRedis.layerPermits`).
 *
 * INVARIANTS
 * - Permits-1 (G1, L1) The permits of a key that are held are never more than its limit; a writer is alone. Each grant is released once.
 * - Permits-2 (L6) First come, first served: no newcomer passes a waiter, so a writer that waits holds back later readers.
 * - Permits-3 (G3, L2) A waiter that is interrupted or late holds nothing, and those behind it are served.
 * - Permits-4 (G4) A lost lease interrupts its body, which fails with `LockLost`.
 *
 * NOT DONE the ledger's deadlock report; a reader that becomes a writer. All users of a key must give one `limit`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Rules from "../internal/options.ts"
import * as WaitQueue from "../internal/waitQueue.ts"
import type * as Ledger from "../Ledger.ts"
import * as Managed from "../Managed.ts"
import type { TimeoutOf } from "../Semaphore.ts"
import { type Holder, type LockBackendError, type LockLost, LockTimeout } from "./errors.ts"
import { end, type Grant, Hold, type Lease, leaseOf } from "./lease.ts"
import {
  type Body,
  type LockError,
  noneIfHeld,
  NotFree,
  type Options as LockOptions,
  type Request as LockRequest,
  restoreUntil,
  rules,
  siteOf,
  type TryOptions
} from "./service.ts"

/**
 * How many permits a key has, how many are asked for (default 1), and how to wait.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends LockOptions {
  readonly limit: number
  readonly permits?: number | undefined
}

/**
 * Runs the body while holding what the operation takes. `O` are its options.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bracket<O0> {
  <O extends O0>(key: string, options?: O): <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<A, E | LockError | LockLost | TimeoutOf<O, LockTimeout>, R>
}

/**
 * As `Bracket`, but does not wait: none, and the body does not run, if it is not free.
 *
 * @category models
 * @since 0.1.0
 */
export interface TryBracket<O0> {
  (key: string, options?: O0): <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockError | LockLost, R>
}

/**
 * Holds what the operation takes until the scope closes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Get<O0> {
  <O extends O0>(key: string, options?: O): Effect.Effect<
    Lease,
    LockError | TimeoutOf<O, LockTimeout>,
    Scope.Scope
  >
}

/**
 * Permits by key.
 *
 * @category models
 * @since 0.1.0
 */
export interface SemaphoreService {
  readonly withPermits: Bracket<Options>
  readonly tryWithPermits: TryBracket<Options>
  readonly getPermits: Get<Options>
}

/**
 * Many readers or one writer, by key.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedService {
  readonly withRead: Bracket<LockOptions>
  readonly withWrite: Bracket<LockOptions>
  readonly tryWithRead: TryBracket<TryOptions>
  readonly tryWithWrite: TryBracket<TryOptions>
  readonly getRead: Get<LockOptions>
  readonly getWrite: Get<LockOptions>
}

/**
 * The readers-writer lock in the context.
 *
 * @category tags
 * @since 0.1.0
 */
export class SharedLock
  extends Context.Tag("holdfast/Lock/SharedLock")<SharedLock, SharedService>()
{}

/**
 * The semaphore in the context.
 *
 * @category tags
 * @since 0.1.0
 */
export class DistributedSemaphore extends Context.Tag("holdfast/Lock/DistributedSemaphore")<
  DistributedSemaphore,
  SemaphoreService
>() {}

/**
 * A request to a backend. The keys of the two kinds do not meet.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Request extends LockRequest {
  readonly kind: "shared" | "permits"
  readonly permits: number
  readonly limit: number
}

/**
 * A backend, as that of a lock (Lock.ts), for many grants of one key.
 *
 * @category backends
 * @since 0.1.0
 */
export interface Backend {
  readonly self: string
  readonly remote: boolean
  readonly take: (request: Request, restore: Managed.Restore) => Effect.Effect<Grant, LockError>
  readonly tryTake: (request: Request) => Effect.Effect<Option.Option<Grant>, LockError>
  /** One of the holders. */
  readonly inspect: (
    request: Pick<Request, "kind" | "key">
  ) => Effect.Effect<Option.Option<Holder>, LockBackendError>
}

/**
 * Both services over one backend.
 *
 * @category models
 * @since 0.1.0
 */
export interface Services {
  readonly semaphore: SemaphoreService
  readonly shared: SharedService
}

interface Taken {
  readonly hold: Hold
  readonly grant: Grant
  readonly lease: Lease
}

type Asked = Pick<Request, "kind" | "key" | "permits" | "limit"> & { readonly entry: string }

const permitRules: Rules.Rules = { ...rules, limit: Rules.integer(1), permits: Rules.integer(1) }

/** The permits of a readers-writer lock: more readers than there will ever be. */
const many = 1_000_000

/**
 * Both services over a backend.
 *
 * **Interruption** — Waiting: holds nothing. Holding: the body is interrupted and its permits released before the interrupt is seen.
 * **Errors** — `LockTimeout` after `acquireTimeout`; `LockLost` from the brackets; what the backend fails with. A wrong option is a
 *   defect, and so are more permits than the limit.
 * **Cost** — that of the backend, and a bracket of `Managed`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backend: Backend): Services => {
  let nextOwner = 1

  const managed = <E>(
    asked: Asked,
    options: LockOptions,
    site: Ledger.Site | undefined,
    take: (request: Request, restore: Managed.Restore) => Effect.Effect<Grant, E>
  ): Managed.Managed<Taken, E> => {
    const { entry, key } = asked
    const label = options.label === undefined ? "" : `:${options.label}`
    const acquire = (restore: Managed.Restore): Effect.Effect<Taken, E> => {
      const hold = new Hold(key, `${backend.self}${label}#${nextOwner++}`, site)
      const { owner } = hold
      const request = {
        ...asked,
        owner,
        label: options.label,
        lose: (reason: Hold["ended"] & string) => end(hold, reason)
      }
      return Effect.map(take(request, restore), (grant) => {
        hold.grant = grant
        return { hold, grant, lease: leaseOf(hold, grant) }
      })
    }
    return Managed.make({
      name: key,
      kind: entry,
      acquire: (restore) => Effect.suspend(() => acquire(restore)),
      release: ({ grant, hold }) => {
        end(hold, "released")
        return grant.release
      },
      releaseDeadline: "2 seconds",
      onReleaseFailure: "report",
      recording: { site, onEntry: () => {}, blockedBy: () => [] }
    })
  }

  const waiting = (asked: Asked, options: LockOptions, site: Ledger.Site | undefined) => {
    const { acquireTimeout = Infinity } = options
    const waited = Duration.decode(acquireTimeout)
    if (!Duration.isFinite(waited)) return managed(asked, options, site, backend.take)
    return managed(
      asked,
      options,
      site,
      (request, restore) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const wait = { isLate: false }
          const within = restoreUntil(wait, restore, now + Duration.toMillis(waited))
          return Effect.catchAllCause(
            backend.take(request, within),
            (cause): Effect.Effect<never, LockError | LockTimeout> => {
              if (!wait.isLate || !Cause.isInterruptedOnly(cause)) return Effect.failCause(cause)
              const seen = restore(
                Effect.orElseSucceed(backend.inspect(asked), Option.none<Holder>)
              )
              return Effect.flatMap(
                seen,
                (holder) =>
                  new LockTimeout({ key: asked.key, waited, holder: Option.getOrUndefined(holder) })
              )
            }
          )
        })
    )
  }

  const holding = <A, E, R>(body: Body<A, E, R>) => ({ lease }: Taken) => {
    const user = Effect.suspend(() => Effect.isEffect(body) ? body : body(lease))
    return backend.remote ? lease.protect(user) : user
  }

  /** `any`: the types are those of the services. */
  const operations = <O extends LockOptions>(askedFor: (key: string, options: O) => Asked) => ({
    with:
      (key: string, options?: O) => (body: Body<any, any, any>): Effect.Effect<any, any, any> => {
        const site = siteOf(options)
        const given = options ?? {} as O
        return Effect.suspend(() =>
          Managed.use(waiting(askedFor(key, given), given, site), holding(body))
        )
      },
    tryWith:
      (key: string, options?: O) => (body: Body<any, any, any>): Effect.Effect<any, any, any> => {
        const site = siteOf(options)
        const given = options ?? {} as O
        return noneIfHeld(Effect.suspend(() =>
          Managed.use(
            managed(askedFor(key, given), given, site, (request) =>
              Effect.flatMap(
                backend.tryTake(request),
                Option.match({ onNone: () => new NotFree(), onSome: Effect.succeed })
              )),
            holding(body)
          )
        ))
      },
    get: (key: string, options?: O): Effect.Effect<Lease, any, Scope.Scope> => {
      const site = siteOf(options)
      const given = options ?? {} as O
      return Effect.map(
        Effect.suspend(() => waiting(askedFor(key, given), given, site)),
        ({ lease }) => lease
      )
    }
  })

  const semaphore = operations((key, options: Options): Asked => {
    Rules.check("Lock/Permits", options, permitRules)
    const { limit, permits = 1 } = options
    if (!(permits <= limit)) {
      throw new RangeError(
        `Lock/Permits: ${permits} permits of at most ${limit} can never be taken`
      )
    }
    return { kind: "permits", entry: "permit", key, permits, limit }
  })
  const shared = (entry: string, permits: number) =>
    operations((key, options: LockOptions): Asked => {
      Rules.check("Lock/Permits", options, rules)
      return { kind: "shared", entry, key, permits, limit: many }
    })
  const [read, write] = [shared("read lock", 1), shared("write lock", many)]
  return {
    semaphore: {
      withPermits: semaphore.with,
      tryWithPermits: semaphore.tryWith,
      getPermits: semaphore.get
    },
    shared: {
      withRead: read.with,
      withWrite: write.with,
      tryWithRead: read.tryWith,
      tryWithWrite: write.tryWith,
      getRead: read.get,
      getWrite: write.get
    }
  }
}

/** One key in this process. */
interface Slot {
  readonly queue: WaitQueue.WaitQueue
  readonly holders: Set<{ readonly holder: string; readonly fence: bigint }>
  used: number
}

const memory = (): Backend => {
  const slots = new Map<string, Slot>()
  let lastFence = 0n
  const nameOf = ({ key, kind }: Pick<Request, "kind" | "key">): string => `${kind} ${key}`

  const slotOf = (request: Request): Slot => {
    const found = slots.get(nameOf(request))
    if (found !== undefined) return found
    const made: Slot = { queue: WaitQueue.make(), holders: new Set(), used: 0 }
    slots.set(nameOf(request), made)
    return made
  }
  const free = (slot: Slot, request: Request, permits: number): void => {
    slot.used -= permits
    const { queue } = slot
    while (queue.head !== undefined && slot.used + queue.head.need <= request.limit) {
      slot.used += queue.head.need
      WaitQueue.grantHead(queue)
    }
    if (slot.used === 0 && queue.size === 0) slots.delete(nameOf(request))
  }
  const grantOf = (slot: Slot, request: Request): Grant => {
    const holder = { holder: request.owner, fence: ++lastFence }
    slot.holders.add(holder)
    return {
      fence: holder.fence,
      verify: Effect.succeed(true),
      release: Effect.sync(() => {
        slot.holders.delete(holder)
        free(slot, request, request.permits)
      })
    }
  }
  const tryTake = (slot: Slot, { limit, permits }: Request): boolean => {
    if (slot.queue.size > 0 || slot.used + permits > limit) return false
    slot.used += permits
    return true
  }
  return {
    self: "this process",
    remote: false,
    take: (request, restore) =>
      Effect.suspend(() => {
        const slot = slotOf(request)
        if (tryTake(slot, request)) return Effect.succeed(grantOf(slot, request))
        const onLeave = (wasGranted: boolean) =>
          free(slot, request, wasGranted ? request.permits : 0)
        const waited = WaitQueue.waitInMask(slot.queue, request.permits, restore, onLeave)
        return Effect.map(waited, () => grantOf(slot, request))
      }),
    tryTake: (request) =>
      Effect.sync(() => {
        const slot = slotOf(request)
        return tryTake(slot, request) ? Option.some(grantOf(slot, request)) : Option.none()
      }),
    inspect: (request) =>
      Effect.sync(() => Option.fromIterable(slots.get(nameOf(request))?.holders ?? []))
  }
}

/**
 * Both services over one backend as a layer.
 *
 * **Errors** — those of the backend. **Cost** — as `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R>(
  backend: Effect.Effect<Backend, E, R>
): Layer.Layer<SharedLock | DistributedSemaphore, E, Exclude<R, Scope.Scope>> =>
  Layer.scopedContext(Effect.map(backend, (backend) => {
    const { semaphore, shared } = make(backend)
    return Context.make(SharedLock, shared).pipe(Context.add(DistributedSemaphore, semaphore))
  }))

/**
 * Both services within this process, for tests and for programs of one process.
 *
 * **Example** (readers together, at most two uploads)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Permits from "holdfast/Lock/Permits"
 *
 * const program = Effect.gen(function*() {
 *   const shared = yield* Permits.SharedLock
 *   const uploads = yield* Permits.DistributedSemaphore
 *   const read = shared.withRead("index")(shared.withRead("index")(Effect.succeed("read")))
 *   return yield* uploads.withPermits("uploads", { limit: 2 })(read)
 * })
 * await Effect.runPromise(Effect.provide(program, Permits.layerMemory)) // => "read"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<SharedLock | DistributedSemaphore> = layer(
  Effect.sync(memory)
)
