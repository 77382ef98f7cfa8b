/**
 * deadlock: fibers that wait for each other in a circle, among the recorded waits.
 *
 * DESIGN. Reduction of the wait-for graph, after Coffman: a fiber that would be served runs on and releases what it holds, and
 * the waits that this may serve are examined again. The waits that remain cannot be served.
 *
 * COST one call of `isServedIf` for each group of alike waits, and one look at each holder that it reads. Holders are read one at
 * a time and only until the answer is known, because a thousand waiters for a thousand holders are a million pairs.
 */
import type { Deadlock } from "./model.ts"

export interface Hold {
  readonly id: number
  readonly fiberId: number | undefined
  /** The holds that this one waits for; none if it does not wait. */
  readonly holders: () => Iterable<Hold>
  /** Whether it would be served if the holders for which `releases` is true released. Monotonic in `releases`. */
  readonly isServedIf: (releases: (holder: Hold) => boolean) => boolean
  /** Holds with the same `alike` have the same answer of `isServedIf`; undefined: a hold of its own. */
  readonly alike: object | undefined
}

const first = <A>(items: Iterable<A>, accepts: (item: A) => boolean): A | undefined => {
  for (const item of items) if (accepts(item)) return item
  return undefined
}

const waitsByFiber = (live: Iterable<Hold>): Map<number, Hold> => {
  const waits = new Map<number, Hold>()
  for (const hold of live) {
    if (hold.fiberId !== undefined && first(hold.holders(), () => true) !== undefined) {
      waits.set(hold.fiberId, hold)
    }
  }
  return waits
}

/** The waits, by fiber, that stay unserved even if every fiber outside them releases what it holds. */
const stuckWaits = (live: Iterable<Hold>): ReadonlyMap<number, Hold> => {
  const stuck = waitsByFiber(live)
  const groups = new Map<object, Array<number>>()
  for (const [fiberId, { alike = {} }] of stuck) {
    const group = groups.get(alike)
    if (group === undefined) groups.set(alike, [fiberId])
    else group.push(fiberId)
  }
  const dependents = new Map<number, Array<ReadonlyArray<number>>>()
  const unexamined: Array<ReadonlyArray<number>> = Array.from(groups.values()).toReversed()
  for (let group = unexamined.pop(); group !== undefined; group = unexamined.pop()) {
    const [waiter, waiting] = [stuck.get(group[0]!), group]
    if (waiter === undefined) continue
    const releases = (holder: Hold): boolean => {
      if (holder.fiberId === undefined || !stuck.has(holder.fiberId)) return true
      const known = dependents.get(holder.fiberId)
      if (known === undefined) dependents.set(holder.fiberId, [waiting])
      else known.push(waiting)
      return false
    }
    if (!waiter.isServedIf(releases)) continue
    for (const fiberId of group) stuck.delete(fiberId)
    for (const fiberId of group) {
      for (const dependent of dependents.get(fiberId) ?? []) unexamined.push(dependent)
    }
  }
  return stuck
}

/** The holder to show for a stuck wait: one whose fiber is stuck too, if possible another fiber. */
const stuckHolder = (waiter: Hold, stuck: ReadonlyMap<number, Hold>): Hold | undefined => {
  const isStuck = ({ fiberId }: Hold) => fiberId !== undefined && stuck.has(fiberId)
  return first(waiter.holders(), (holder) => isStuck(holder) && holder.fiberId !== waiter.fiberId)
    ?? first(waiter.holders(), isStuck)
}

/** INVARIANT Ledger-5: one circle for each group of stuck waits; a wait for a member of a circle is not part of it. */
export const circlesAmong = (live: Iterable<Hold>): ReadonlyArray<Deadlock> => {
  const stuck = stuckWaits(live)
  const seen = new Set<number>()
  const circles: Array<Deadlock> = []
  for (const start of stuck.keys()) {
    const fibers: Array<number> = []
    const waits: Array<{ readonly waiter: number; readonly holder: number }> = []
    let at: number | undefined = start
    while (at !== undefined && !seen.has(at)) {
      seen.add(at)
      const waiter: Hold | undefined = stuck.get(at)
      const holder: Hold | undefined = waiter && stuckHolder(waiter, stuck)
      if (waiter === undefined || holder === undefined) break
      fibers.push(at)
      waits.push({ waiter: waiter.id, holder: holder.id })
      at = holder.fiberId
    }
    // Back at a fiber of this path: a circle. At a fiber of an older path: that circle is known.
    const from = at === undefined ? -1 : fibers.indexOf(at)
    if (from >= 0) circles.push({ waits: waits.slice(from) })
  }
  return circles
}
