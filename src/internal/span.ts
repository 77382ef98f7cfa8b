/**
 * span: a tracing span around an effect, only where the program has a tracer.
 *
 * DESIGN. Effect's default tracer records nothing, so with it the effect is returned as it is. The tracer is read from the
 * fiber that runs, so `withSpan` is called inside the step that runs the effect, not where it is described.
 *
 * INVARIANTS
 * - Span-1 With Effect's default tracer, or with tracing disabled, `withSpan` returns its argument itself.
 *
 * COST without a tracer one comparison: nothing is allocated and `attributes` is not called. With one, Effect's own span.
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Tracer from "effect/Tracer"
import type { AnyFiber } from "./runtime.ts"

const defaultTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

/** Whether spans made in this fiber are recorded. */
export const isTraced = (fiber: AnyFiber): boolean =>
  fiber.currentTracer !== defaultTracer && fiber.getFiberRef(FiberRef.currentTracerEnabled)

/**
 * `operation` is `<module>.<operation>`, such as `"pool.acquire"`: the span is named `holdfast.pool.acquire`. `attributes` is a
 * function of `subject`, so that a caller allocates no closure.
 */
export const withSpan = <A, E, R, S>(
  fiber: AnyFiber,
  self: Effect.Effect<A, E, R>,
  operation: string,
  attributes: (subject: S) => Readonly<Record<string, unknown>>,
  subject: S,
  kind: Tracer.SpanKind = "internal"
): Effect.Effect<A, E, R> =>
  isTraced(fiber)
    // Without a cast the requirement `ParentSpan` would leave R, with the default tracer too.
    ? Effect.withSpan(self, `holdfast.${operation}`, {
      attributes: attributes(subject),
      kind,
      captureStackTrace: false
    }) as Effect.Effect<A, E, R>
    : self
