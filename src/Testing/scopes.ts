/**
 * scopes: a ledger of every scope of a run, found without touching the program.
 *
 * DESIGN. All scopes share one prototype, so one replaced method sees each registration. A finalizer is counted when its
 * scope calls it. A finalizer that is never called belongs to a scope that was never closed: that is a leak, also where no test
 * double reports it.
 *
 * COST one record per finalizer. SOURCES Effect's `Scope`, resource ledgers of leak sanitizers.
 */
import { activeRun } from "./environment.ts"
import { interceptFinalizers, type PrivateScope } from "./runtime.ts"
import type { Simulation } from "./simulation.ts"

interface Registration {
  runs: number
  /** The line that registered it, in the one run that looks. */
  readonly at: string | undefined
}

/** The finalizers of one run. */
export interface ScopeLedger {
  // Written by this file alone.
  readonly registrations: Array<Registration>
  readonly scopes: Map<PrivateScope, Array<Registration>>
  doubles: number
  disorders: number
  /** The line of the running fiber; set in the one run that looks. */
  readonly locate: (() => string | undefined) | undefined
}

export const makeLedger = (locate?: () => string | undefined): ScopeLedger => ({
  registrations: [],
  scopes: new Map(),
  doubles: 0,
  disorders: 0,
  locate
})

export const makeScopeLedger = (
  simulation: Simulation,
  locate?: () => string | undefined
): ScopeLedger => {
  const ledger = makeLedger(locate)
  simulation.scopes = ledger
  return ledger
}

/** The registrations whose scope was never closed. */
export const pendingOf = (ledger: ScopeLedger): ReadonlyArray<Registration> =>
  ledger.registrations.filter(({ runs }) => runs === 0)

const enter = (ledger: ScopeLedger, scope: PrivateScope, registration: Registration): void => {
  ledger.registrations.push(registration)
  const known = ledger.scopes.get(scope)
  if (known === undefined) ledger.scopes.set(scope, [registration])
  else known.push(registration)
}

const run = (ledger: ScopeLedger, scope: PrivateScope, registration: Registration): void => {
  if (++registration.runs > 1) ledger.doubles++
  if (scope.strategy._tag !== "Sequential") return
  const all = ledger.scopes.get(scope) ?? []
  // Last in, first out: all that were registered after it have run before it.
  if (all.slice(all.indexOf(registration) + 1).some(({ runs }) => runs === 0)) ledger.disorders++
}

// The ledger of the plain program that runs now, and how to stop it. Written by `watchPlainly` alone.
let outside: ScopeLedger | undefined
let stopOutside = () => {}

/** Watches the scopes of a plain program, which has no run of its own. Ends the watch before it. */
export const watchPlainly = (): { readonly ledger: ScopeLedger; readonly stop: () => void } => {
  stopOutside()
  const ledger = makeLedger()
  const undo = watchScopes()
  outside = ledger
  const stop = () => {
    if (outside !== ledger) return
    outside = undefined
    undo()
  }
  stopOutside = stop
  return { ledger, stop }
}

/** Fills the ledger of the active run. Returns how to undo. */
export const watchScopes = (): () => void =>
  interceptFinalizers((scope, finalizer) => {
    // Written by `makeScopeLedger` only.
    const ledger = activeRun()?.scopes as ScopeLedger | undefined ?? outside
    if (ledger === undefined) return finalizer
    const registration: Registration = { runs: 0, at: ledger.locate?.() }
    enter(ledger, scope, registration)
    return (exit) => {
      run(ledger, scope, registration)
      return finalizer(exit)
    }
  })
