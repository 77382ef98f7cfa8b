/**
 * runtime: THE place that reads Effect's runtime beyond its public operations. Another version of Effect changes this file.
 *
 * DESIGN. Each fact about the runtime that a module of ours relies on is a function here, so that it is checked in one place.
 */
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"

export type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** The fiber that runs right now; undefined outside of any. */
export const currentFiber = (): AnyFiber | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())

/** Whether a scope is closed. A scope that is not Effect's own does not say: false. */
export const isClosed = (scope: Scope.Scope): boolean => {
  const { state } = scope as { readonly state?: { readonly _tag: string } }
  return state?._tag === "Closed"
}
