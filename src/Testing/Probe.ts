/**
 * Probe: resources for tests that count themselves, and may be made to fail.
 *
 * DESIGN. The explorer finds scopes by itself; a probe is for what never reaches a scope, for a name in the report, and for
 * faults. Each run gives its subject a probe of its own; `recorder.ts` has the probe.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import { makeRecorder, pad as padding, type Probe } from "./recorder.ts"

export {
  type Counter,
  type Fault,
  FaultInjected,
  type Handle,
  type Options,
  type Probe,
  type WrapOptions
} from "./recorder.ts"

/**
 * A number of operations that change nothing. They move an unlucky moment into reach of the default scheduler.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pad: (count: number) => Effect.Effect<void> = padding

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
  const { probe, releasedTwice, unreleased } = makeRecorder({ pad: options?.padding })
  return { probe, releasedTwice, unreleased: () => unreleased().map(({ name }) => name) }
}
