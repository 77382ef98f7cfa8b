/**
 * scopes: a ledger of every scope of a run, found without touching the program.
 *
 * DESIGN. All scopes share one prototype, so one replaced method sees each registration. A finalizer is counted when its
 * scope calls it. A finalizer that is never called belongs to a scope that was never closed: that is a leak, also where no test
 * double reports it. Order across scopes is compared with the plain run, and only for what one fiber opened and closed itself.
 *
 * COST one record per finalizer. SOURCES Effect's `Scope`, resource ledgers of leak sanitizers.
 */
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { runHere } from "./environment.ts"
import { interceptFinalizers, type PrivateScope } from "./runtime.ts"
import type { Simulation } from "./simulation.ts"

interface Registration {
  runs: number
  readonly scope: PrivateScope
  /** The fiber that registered it, and the one that ran it first; -1 for none. */
  readonly by: number
  /** How many finalizers of the run had run before. */
  readonly after: number
  ranBy: number
  /** Which of all finalizers of the run it was. */
  ranAs: number
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
  ran: number
  /** The number of the fiber that runs now. */
  readonly running: () => number
  /** The line of the running fiber; set in the one run that looks. */
  readonly locate: (() => string | undefined) | undefined
}

const current = (): number => Option.getOrUndefined(Fiber.getCurrentFiber())?.id().id ?? -1

export const makeLedger = (
  locate?: () => string | undefined,
  running: () => number = current
): ScopeLedger => ({
  registrations: [],
  scopes: new Map(),
  doubles: 0,
  disorders: 0,
  ran: 0,
  running,
  locate
})

export const makeScopeLedger = (
  simulation: Simulation,
  locate?: () => string | undefined
): ScopeLedger => {
  const ledger = makeLedger(locate, () => simulation.runningNumber)
  simulation.scopes = ledger
  return ledger
}

/** The registrations whose scope was never closed. */
export const pendingOf = (ledger: ScopeLedger): ReadonlyArray<Registration> =>
  ledger.registrations.filter(({ runs }) => runs === 0)

const mostCompared = 200

/**
 * The pairs of finalizers of two scopes, one opened inside the other, that the fiber which opened both also closed. As "inner of
 * outer", by the numbers of their registrations: from the inside out, or reversed.
 */
export const pairsOf = ({ registrations }: ScopeLedger, order: "nested" | "reversed") => {
  const pairs: Array<string> = []
  const all = registrations.slice(0, mostCompared)
  for (const [at, outer] of all.entries()) {
    if (outer.by < 0 || outer.by !== outer.ranBy) continue
    for (let index = at + 1; index < all.length; index++) {
      const inner = all[index]!
      const isPair = inner.by === outer.by && inner.by === inner.ranBy
        && inner.scope !== outer.scope && outer.ranAs >= inner.after
      const isNested = outer.ranAs > inner.ranAs
      if (isPair && isNested === (order === "nested")) pairs.push(`${index + 1} of ${at + 1}`)
    }
  }
  return pairs
}

const enter = (ledger: ScopeLedger, scope: PrivateScope, registration: Registration): void => {
  ledger.registrations.push(registration)
  const known = ledger.scopes.get(scope)
  if (known === undefined) ledger.scopes.set(scope, [registration])
  else known.push(registration)
}

const run = (ledger: ScopeLedger, scope: PrivateScope, registration: Registration): void => {
  if (++registration.runs > 1) ledger.doubles++
  else {
    registration.ranBy = ledger.running()
    registration.ranAs = ledger.ran++
  }
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
    const ledger = runHere()?.scopes as ScopeLedger | undefined ?? outside
    if (ledger === undefined) return finalizer
    const registration: Registration = {
      runs: 0,
      scope,
      by: ledger.running(),
      after: ledger.ran,
      ranBy: -1,
      ranAs: -1,
      at: ledger.locate?.()
    }
    enter(ledger, scope, registration)
    return (exit) => {
      run(ledger, scope, registration)
      return finalizer(exit)
    }
  })
