/**
 * Probe: resources for tests that count themselves, and may be made to fail.
 *
 * DESIGN. The explorer finds scopes by itself; a probe is for what never reaches a scope, for a name in the report, and for
 * faults. Each run gives its subject a probe of its own; `recorder.ts` has the probe.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import { type Fault, makeRecorder, pad as padding, type Probe } from "./recorder.ts"
import { makeLedger, pairsOf, pendingOf, watchPlainly } from "./scopes.ts"

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
 * A probe outside the explorer, and what it knows: for the plain programs that reproduce a finding.
 *
 * @category constructors
 * @since 0.1.0
 */
export const unsafeMake = (options: {
  /** How many operations that change nothing each acquire does first. */
  readonly padding?: number | undefined
  /** Which acquire or release goes wrong, counted from `arm`. */
  readonly fault?: { readonly fault: Fault; readonly nth: number } | undefined
  /** Watches all scopes of the process, until `stop`: `unreleased` then counts their finalizers too. Default false. */
  readonly scopes?: boolean | undefined
} = {}): {
  readonly probe: Probe
  /** Which calls the fault may strike from now on. Default: none. */
  readonly arm: (sides: "all" | "release" | "none") => void
  readonly unreleased: () => ReadonlyArray<string>
  readonly releasedTwice: () => ReadonlyArray<string>
  /** Counters that are not back at zero. */
  readonly unbalanced: () => ReadonlyArray<string>
  /** How many finalizers ran before those that were registered after them, in their scope or in one inside it. */
  readonly disorders: () => number
  readonly stop: () => void
} => {
  const { fault, padding: pad, scopes = false } = options
  const { arm, probe, releasedTwice, unbalanced, unreleased } = makeRecorder({ pad, fault })
  const { ledger, stop } = scopes ? watchPlainly() : { ledger: makeLedger(), stop: () => {} }
  return {
    probe,
    arm,
    unreleased: () => {
      const pending = pendingOf(ledger).length
      const names = unreleased().map(({ name }) => name)
      return pending === 0 ? names : [...names, `${pending} finalizer(s)`]
    },
    releasedTwice: () =>
      ledger.doubles === 0
        ? releasedTwice()
        : [...releasedTwice(), `${ledger.doubles} finalizer(s)`],
    unbalanced,
    disorders: () => ledger.disorders + pairsOf(ledger, "reversed").length,
    stop
  }
}
