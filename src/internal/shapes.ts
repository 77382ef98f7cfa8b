/**
 * shapes: the types of the keyed operations that Semaphore, Mutex, RwLock and RateLimiter share.
 *
 * DESIGN. A keyed handle is given as a type lambda, because the type of its key is inferred at the call. `More` stands between
 * the key and the options; `T` is the failure of a late waiter.
 */
import type * as Effect from "effect/Effect"
import type { Kind, TypeLambda } from "effect/HKT"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { TimeoutOf, WaitOptions } from "./line.ts"

type Keyed<F extends TypeLambda, K> = Kind<F, never, never, never, K>
type Unbounded = { readonly acquireTimeout?: undefined }

/** Runs an effect while holding a key. */
export interface KeyBracket<
  F extends TypeLambda,
  T,
  More extends ReadonlyArray<unknown> = [],
  Options extends object = WaitOptions
> {
  <K, O extends Options = Options & Unbounded>(
    self: Keyed<F, K>,
    key: K,
    ...more: [...More, options?: O]
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | TimeoutOf<O, T>, R>
  <A, E, R, K, O extends Options = Options & Unbounded>(
    effect: Effect.Effect<A, E, R>,
    self: Keyed<F, K>,
    key: K,
    ...more: [...More, options?: O]
  ): Effect.Effect<A, E | TimeoutOf<O, T>, R>
}

/** Runs an effect while holding a key, if it is free at once; otherwise none. */
export interface KeyAttempt<F extends TypeLambda, More extends ReadonlyArray<unknown> = []> {
  <K>(
    self: Keyed<F, K>,
    key: K,
    ...more: More
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
  <A, E, R, K>(
    effect: Effect.Effect<A, E, R>,
    self: Keyed<F, K>,
    key: K,
    ...more: More
  ): Effect.Effect<Option.Option<A>, E, R>
}

/** Holds a key until the scope closes. */
export type KeyGet<F extends TypeLambda, T, More extends ReadonlyArray<unknown> = []> = <
  K,
  O extends WaitOptions = {}
>(
  self: Keyed<F, K>,
  key: K,
  ...more: [...More, options?: O]
) => Effect.Effect<void, TimeoutOf<O, T>, Scope.Scope>

/** Reads something of a key. */
export interface KeyGetter<F extends TypeLambda, B> {
  <K>(key: K): (self: Keyed<F, K>) => Effect.Effect<B>
  <K>(self: Keyed<F, K>, key: K): Effect.Effect<B>
}
