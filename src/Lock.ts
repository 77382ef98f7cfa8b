/**
 * Lock: one holder per key. A lease with a fence, a loss signal that stops the body, and the in-process layer.
 *
 * DESIGN. This file is the door; Lock/service.ts decides all that a caller sees. A backend (`Lock/Postgres.ts`, `Lock/File.ts`) only takes, tries, inspects and
 * verifies one key, and calls `lose` when its grant is gone. Each key has one fair queue in front of the backend
 * (internal/waitQueue.ts), so a process has at most one remote waiter per key. The in-process layer is that queue and a counter.
 * `Managed` bounds and records the release; Lock/lease.ts has the lease, Lock/errors.ts the errors.
 * Two backends in one program are two tags (the example of `Lock`).
 *
 * INVARIANTS
 * - Lock-1 (G1) At most one holder per key; `fence` strictly increases in the order of the grants of a key.
 * - Lock-2 (G2, L1) Released exactly once on success, failure, defect and interruption; a release that fails or is slow
 *   changes nothing of the body's exit and delays it by `releaseDeadline` at most.
 * - Lock-3 (G3, L2) Only waiting is interruptible. A waiter that is interrupted or late leaves nothing taken.
 * - Lock-4 (G4, L8) When the lease is lost the body is interrupted and the effect fails with `LockLost`.
 * - Lock-5 (G5) A bracket never raises `LockLost` by its own release, nor once its body has ended.
 * - Lock-6 (G6, L6) FIFO among the fibers that share one service.
 * - Lock-7 (G7) `withLock` of a key that the same fiber tree holds by `withLock` dies with `LockReentry` instead of waiting for
 *   itself.
 * - Lock-8 (L9) With a ledger in force, a fiber that waits for a key is `acquiring` there, blocked by the holder in this process.
 * - Lock-9 `withLocks` takes its keys in one order, each once, and holds all of them or none; it loses all with one.
 *
 * COST (2026-11, 2 small cores) in process, uncontended: 13 µs a bracket; a remote lease runs its body in a child fiber.
 * `acquireTimeout` costs a timer in the queue, and two fibers while a backend waits. A key occupies memory while it is held.
 * NOT DONE several holders of one key: that is Lock/Permits. The ledger reports deadlocks between keys within this
 * process, and breaks none: take nested keys in one order everywhere, or give `acquireTimeout`.
 * NOT PROMISED that a paused process, or a body which ignores interruption, stops in time: pass `fence` to what you write to,
 * and let it refuse.
 * SOURCES madelson/DistributedLock (handle-lost token), Kleppmann 2016 (fencing), Curator #985 (interrupt the body).
 *
 * To add a backend: copy a file of `Lock/`, and run `test/Lock.contract.ts` on it.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Ledger from "./Ledger.ts"
import type { Holder, LockBackendError, LockLost, LockTimeout } from "./Lock/errors.ts"
import type { Lease } from "./Lock/lease.ts"
import {
  type Bodies,
  type Body,
  type Get,
  type LockError,
  makeMemory,
  type Options,
  type Service,
  type TryOptions,
  type WithLock,
  type WithLocks
} from "./Lock/service.ts"
import type { TimeoutOf } from "./Semaphore.ts"

export {
  type Holder,
  LockBackendError,
  LockLost,
  LockReentry,
  LockTimeout,
  LockUnsupported,
  type LossReason
} from "./Lock/errors.ts"
export type { Grant, Lease } from "./Lock/lease.ts"
export {
  type Backend,
  type Bodies,
  type Body,
  type Get,
  type LockError,
  make,
  makeMemory,
  type MakeOptions,
  type Options,
  type Request,
  type Service,
  type TryOptions,
  type UnboundedOptions,
  type WithLock,
  type WithLocks
} from "./Lock/service.ts"

/**
 * The lock service in the context.
 *
 * **Example** (two backends side by side: a tag of your own for the second)
 * ```ts run
 * import { Context, Effect, Layer } from "effect"
 * import { Lock } from "holdfast"
 *
 * class Local extends Context.Tag("Local")<Local, Lock.Service>() {}
 * const both = Layer.merge(Lock.layerMemory, Layer.effect(Local, Lock.makeMemory)) // or LockRedis.make(…)
 * const program = Effect.flatMap(Local, (local) =>
 *   Lock.withLock("report")(local.withLock("report")(Effect.succeed("held twice")))
 * )
 * await Effect.runPromise(Effect.provide(program, both)) // => "held twice"
 * ```
 *
 * @category tags
 * @since 0.1.0
 */
export class Lock extends Context.Tag("holdfast/Lock")<Lock, Service>() {}

/**
 * The in-process lock, for tests and for programs of one process.
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

/** The options with the user's line, which must be captured before the service is called. */
const fromHere = <O extends TryOptions>(options: O | undefined): O => {
  const site = Ledger.unsafeSite()
  return (site === undefined ? options : { ...options, site }) as O
}

/** `any`: the types are those of the operations below. */
const scoped = (operation: "get" | "tryGet"): any => (key: string, options?: Options) => {
  const asked = fromHere(options)
  return Effect.flatMap(
    Lock,
    (lock): Effect.Effect<unknown, any, any> => lock[operation](key, asked)
  )
}

/**
 * Waits for the key and holds it until the scope closes.
 *
 * **Interruption** — Waiting: leaves the queue, and nothing is held. Holding: released as the scope closes.
 * **Errors** — `LockError`; `LockTimeout` if there is an `acquireTimeout`. A loss interrupts only what runs in `lease.protect`.
 *   A key that is taken twice in one scope waits for itself: Lock-7 is for the brackets, because any fiber may close a scope.
 * **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const get: Get<Lock> = /* @__PURE__ */ scoped("get")

/**
 * As `get`, but does not wait for a holder: none if the key is held.
 *
 * **Interruption** — Opening: nothing is held. **Errors** — `LockError`. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryGet: (
  key: string,
  options?: TryOptions
) => Effect.Effect<Option.Option<Lease>, LockError, Lock | Scope.Scope> = /* @__PURE__ */ scoped(
  "tryGet"
)

/** Keys are texts or iterables of them. */
const isBodyFirst = ([first]: IArguments): boolean =>
  typeof first === "function" || Effect.isEffect(first)

/** `any`: as above. */
const bracket = (operation: "withLock" | "tryWithLock" | "withLocks"): any =>
  dual(isBodyFirst, (body: any, key: any, options?: Options) => {
    const asked = fromHere(options)
    return Effect.flatMap(Lock, (lock) => lock[operation](key, asked)(body))
  })

/**
 * Runs the body while holding the key.
 *
 * **Interruption** — Waiting: leaves the queue, and nothing is held. Holding: the body is interrupted and the lock released before
 *   the interrupt is seen.
 * **Errors** — of the body; `LockError`, and `LockTimeout` if there is an `acquireTimeout`, before the body starts; `LockLost` if
 *   the lease is lost while it runs. A failed release is logged and changes nothing. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const withLock: WithLock<Lock> & {
  <A, E, R, O extends Options = {}>(
    body: Body<A, E, R>,
    key: string,
    options?: O
  ): Effect.Effect<A, E | LockError | LockLost | TimeoutOf<O, LockTimeout>, R | Lock>
} = /* @__PURE__ */ bracket("withLock")

/**
 * As `withLock`, but does not wait for a holder: none, and the body does not run, if the key is held.
 *
 * **Interruption** — as `withLock`. **Errors** — of the body; `LockError`; `LockLost`. **Cost** — as `make`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithLock: {
  (key: string, options?: TryOptions): <A, E, R>(
    body: Body<A, E, R>
  ) => Effect.Effect<Option.Option<A>, E | LockError | LockLost, R | Lock>
  <A, E, R>(
    body: Body<A, E, R>,
    key: string,
    options?: TryOptions
  ): Effect.Effect<Option.Option<A>, E | LockError | LockLost, R | Lock>
} = /* @__PURE__ */ bracket("tryWithLock")

/**
 * The present holder of the key, as far as the backend knows.
 *
 * **Errors** — `LockBackendError`. **Cost** — a map look-up for our own holds, one round trip for others'.
 *
 * @category getters
 * @since 0.1.0
 */
export const inspect = (
  key: string
): Effect.Effect<Option.Option<Holder>, LockBackendError, Lock> =>
  Effect.flatMap(Lock, (lock) => lock.inspect(key))

/**
 * Runs the body while holding all the keys. They are sorted, and each is taken once: two such callers never wait for each other.
 *
 * **Interruption** — as `withLock`: what was acquired is released, the last key first.
 * **Errors** — as `withLock`. `acquireTimeout` bounds the wait for all of them; the loss of one ends the body. A key that the same fiber
 *   tree holds already is a `LockReentry`, a defect.
 * **Cost** — as `make`, for each key.
 *
 * **Example** (a transfer between two accounts)
 * ```ts run
 * import { Effect } from "effect"
 * import { Lock } from "holdfast"
 *
 * const transfer = Lock.withLocks(["bob", "alice", "bob"])((leases) =>
 *   Effect.succeed(leases.map(({ key }) => key))
 * )
 * await Effect.runPromise(Effect.provide(transfer, Lock.layerMemory)) // => ["alice", "bob"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withLocks: WithLocks<Lock> & {
  <A, E, R, O extends Options = {}>(
    body: Bodies<A, E, R>,
    keys: Iterable<string>,
    options?: O
  ): Effect.Effect<A, E | LockError | LockLost | TimeoutOf<O, LockTimeout>, R | Lock>
} = /* @__PURE__ */ bracket("withLocks")
