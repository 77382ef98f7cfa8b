/**
 * Probe: resources for tests that count themselves, and may be made to fail.
 *
 * DESIGN. The explorer finds scopes by itself; a probe is for what never reaches a scope, for a name in the report, and for
 * faults. Each run gives its subject a probe of its own; `recorder.ts` has the probe.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import * as recorder from "./recorder.ts"

/**
 * What a subject gets to count with: `resource` in a scope, its halves `acquire` and `release`, `counter`, and `wrap` for a
 * service of handles.
 *
 * @category models
 * @since 0.1.0
 */
export type Probe = recorder.Probe

/**
 * One acquisition of a probe's resource.
 *
 * @category models
 * @since 0.1.0
 */
export type Handle = recorder.Handle

/**
 * How long an acquire or a release of a probe takes, in virtual time. Default: no time.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = recorder.ProbeOptions

/**
 * A sort of fault. A slow one takes thirty virtual seconds; one that never returns can only be interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export type Fault = recorder.Fault

/**
 * A number that must be back at zero in the end.
 *
 * @category models
 * @since 0.1.0
 */
export type Counter = recorder.Counter

/**
 * Which methods of a service open something, and which close it.
 *
 * @category models
 * @since 0.1.0
 */
export type WrapOptions = recorder.WrapOptions

/**
 * The failure of a probe's acquire when the explorer makes it fail.
 *
 * @category errors
 * @since 0.1.0
 */
export const FaultInjected = recorder.FaultInjected

/**
 * A number of operations that change nothing. They move an unlucky moment into reach of the default scheduler.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pad: (count: number) => Effect.Effect<void> = recorder.pad

/**
 * A probe outside the explorer, and what it knows: for the plain programs that reproduce a finding. `padding` is how many
 * operations that change nothing each acquire does first.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (options?: { readonly padding?: number | undefined }): {
  readonly probe: Probe
  readonly unreleased: () => ReadonlyArray<string>
  readonly releasedTwice: () => ReadonlyArray<string>
} => {
  const { probe, releasedTwice, unreleased } = recorder.makeRecorder({ pad: options?.padding })
  return { probe, releasedTwice, unreleased: () => unreleased().map(({ name }) => name) }
}
