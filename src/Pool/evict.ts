/**
 * evict: decides which items are not lent, checked or destroyed, and when to look again. It only reads.
 *
 * To add a reason to destroy an item: `Reason` (state.ts), then `unfit` for a returned item or `dueOf` for an idle one. To add a
 * deadline: `nextDue`, and what it does in `housekeep` (lend.ts).
 */
import type { Decision, Item, Partition, Reason } from "./state.ts"

/** INVARIANTS Pool-5, Pool-6: why an item may not be lent. */
export const unfit = <A, E>(item: Item<A, E>, now: number): Reason | undefined => {
  const { generation, pool } = item.partition
  if (pool.isClosed) return "shutdown"
  if (item.isInvalid || item.generation !== generation) return "invalid"
  if (item.uses >= pool.options.maxUses) return "uses"
  return item.expiresAt <= now ? "lifetime" : undefined
}

export const isStale = <A, E>({ partition, soundSince }: Item<A, E>, now: number): boolean => {
  const { validate, validateAfterIdle } = partition.pool.options
  return validate !== undefined && now - soundSince >= validateAfterIdle
}

/** The idle item that is lent next. */
export const nextIdle = <A, E>({ idle, pool }: Partition<A, E>): Item<A, E> | undefined =>
  pool.options.isFifo ? idle.head : idle.tail

const idleLimit = <A, E>({ idle, pool: { options } }: Partition<A, E>): number =>
  idle.size > options.minIdle ? options.idleTimeout : Infinity

export const dueOf = <A, E>(item: Item<A, E>, now: number): Decision<A, E> | undefined => {
  if (item.expiresAt <= now) return { _tag: "destroy", item, reason: "lifetime" }
  if (item.idleSince + idleLimit(item.partition) <= now) {
    return { _tag: "destroy", item, reason: "idle" }
  }
  return item.keepAliveAt <= now ? { _tag: "check", item } : undefined
}

/** When something is next due because of an item that has just gone idle. */
export const nextDueOf = <A, E>({ expiresAt, keepAliveAt, partition }: Item<A, E>): number =>
  // The item that is idle for longest may have passed `idleTimeout` as one of `minIdle`. One more idle item makes it due.
  Math.min(expiresAt, keepAliveAt, (partition.idle.head?.idleSince ?? 0) + idleLimit(partition))

export const nextDue = <A, E>(partition: Partition<A, E>): number => {
  const { idle, lent, opening, pool } = partition
  let next = (lent.head?.lentAt ?? Infinity) + pool.options.leakAfter
  for (const { deadline } of opening) next = Math.min(next, deadline)
  for (let item = idle.head; item !== undefined; item = item.next) {
    next = Math.min(next, nextDueOf(item))
  }
  return next
}
