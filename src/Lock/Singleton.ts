/**
 * Lock/Singleton: a body that runs on one process at a time (leader election), on any lock.
 *
 * DESIGN. A bracket of the lock that is entered again when the lease is lost or the backend cannot be reached.
 *
 * INVARIANTS
 * - Singleton-1 Only the holder of the key runs the body. A loss, or an error of the backend, ends no run: it waits for its next turn.
 * - Singleton-2 (L5) The body's own failures and defects end the run, beside a loss too.
 *
 * NOT DONE a hand-over on demand: interrupt the run.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Ledger from "../Ledger.ts"
import * as Lock from "../Lock.ts"

/** A failure of the body, which may itself be the loss of another lock. */
class BodyFailed<E> extends Data.TaggedError("BodyFailed")<{ readonly failure: E }> {}

/** After an error of the backend. */
const pause = "1 second"

const failed = <A, E>(
  cause: Cause.Cause<BodyFailed<E> | Lock.LockError | Lock.LockLost>
): Effect.Effect<A, E | Lock.LockUnsupported> =>
  Effect.failCause(Cause.map(
    cause as Cause.Cause<BodyFailed<E> | Lock.LockUnsupported>,
    (failure) => failure instanceof BodyFailed ? failure.failure as E : failure
  ))

const runWith = <A, E, R>(
  body: Lock.Body<A, E, R>,
  key: string,
  options?: Lock.TryOptions
): Effect.Effect<A, E | Lock.LockUnsupported, R | Lock.Lock> => {
  const asked = { ...options, site: Ledger.unsafeSite() }
  const marked: Lock.Body<A, BodyFailed<E>, R> = (lease) =>
    Effect.mapError(
      Effect.isEffect(body) ? body : body(lease),
      (failure) => new BodyFailed({ failure })
    )
  type Run = Effect.Effect<A, E | Lock.LockUnsupported, R | Lock.Lock>
  const again: Run = Effect.suspend(() =>
    Effect.catchAllCause(Lock.withLock(marked, key, asked), (cause): Run => {
      const failures = Array.from(Cause.failures(cause))
      const unreachable = failures.find((failure) => failure instanceof Lock.LockBackendError)
      if (Cause.isDie(cause) || failures.some((failure) => failure instanceof BodyFailed)) {
        return failed(cause)
      }
      if (failures.some((failure) => failure instanceof Lock.LockLost)) return again
      if (unreachable === undefined) return failed(cause)
      const warning = `Lock "${key}" cannot be reached; trying again in ${pause}.`
      return Effect.logWarning(warning, unreachable).pipe(
        Effect.zipRight(Effect.sleep(pause)),
        Effect.zipRight(again)
      )
    })
  )
  return again
}

const isBodyFirst = ([first]: IArguments): boolean => typeof first !== "string"

/**
 * Runs the body on one process at a time: the one that holds the key. When that process ends, or loses the lease, another one that
 * called `run` starts its body; the loser waits for its next turn. It ends when its body ends, and the key is then free.
 *
 * **Interruption** — as `withLock`. **Errors** — of the body; `LockUnsupported`. An error of the backend is logged as a warning, and it
 *   tries again after a second. **Cost** — as `make`.
 *
 * **Example** (one scheduler in a fleet)
 * ```ts run
 * import { Effect } from "effect"
 * import { Lock } from "holdfast"
 * import * as Singleton from "holdfast/Lock/Singleton"
 *
 * const scheduler = Singleton.run("scheduler")((lease) => Effect.succeed(`leads with fence ${lease.fence}`))
 * await Effect.runPromise(Effect.provide(scheduler, Lock.layerMemory)) // => "leads with fence 1"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const run: {
  (key: string, options?: Lock.TryOptions): <A, E, R>(
    body: Lock.Body<A, E, R>
  ) => Effect.Effect<A, E | Lock.LockUnsupported, R | Lock.Lock>
  <A, E, R>(
    body: Lock.Body<A, E, R>,
    key: string,
    options?: Lock.TryOptions
  ): Effect.Effect<A, E | Lock.LockUnsupported, R | Lock.Lock>
} = dual(isBodyFirst, runWith)
