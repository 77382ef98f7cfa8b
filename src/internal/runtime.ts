/**
 * runtime: THE place that reads Effect's runtime beyond its public operations. Another version of Effect changes this file.
 *
 * DESIGN. Each fact about the runtime that a module of ours relies on is a function here, so that it is checked in one place. Each
 * has an answer on public operations where the installed version lacks what it reads.
 */
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as GlobalValue from "effect/GlobalValue"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

export type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** The fiber that runs right now; undefined outside of any. */
export const currentFiber = (): AnyFiber | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())

/** The context that a fiber with these FiberRefs has. */
export const contextIn = (refs: FiberRefs.FiberRefs): Context.Context<never> =>
  FiberRefs.getOrDefault(refs, FiberRef.currentContext)

/**
 * Whether this is one operation that cannot wait, so that it may run where its caller stands. `_op` is the field that the run loop
 * itself reads; an effect without one of these three counts as one that may wait.
 */
export const isInstant = (effect: Effect.Effect<unknown, unknown, unknown>): boolean => {
  const op = "_op" in effect ? effect._op : undefined
  return op === "Success" || op === "Sync" || op === "Failure"
}

/** Effect's own counter of fibers, if this version has one: to make an id only to read its number takes 0.6 µs. */
const counter = GlobalValue.globalValue(
  Symbol.for("effect/Fiber/Id/_fiberCounter"),
  (): { readonly current?: unknown } | undefined => undefined
)

/** A number above the id of every fiber that exists now, and at most that of every later one. */
export const nextFiberId = (): number =>
  typeof counter?.current === "number" ? counter.current : FiberId.unsafeMake().id

/** Whether a scope is closed. A scope that is not Effect's own does not say: false. */
export const isClosed = (scope: Scope.Scope): boolean => {
  const { state } = scope as { readonly state?: { readonly _tag: string } }
  return state?._tag === "Closed"
}
