/**
 * runtime: THE place that reads Effect's runtime beyond its public operations. Another version of Effect changes this file.
 *
 * DESIGN. Each fact about the runtime that a module of ours relies on is a function here, so that it is checked in one place.
 */
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"

export type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** The fiber that runs right now; undefined outside of any. */
export const currentFiber = (): AnyFiber | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())
