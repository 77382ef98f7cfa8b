/** quota: how the partitions of a keyed pool share one bound (`maxTotal`). Only reads. */
import * as State from "./state.ts"

const precedes = <A, E>(one: State.Waiter<A, E>, other: State.Waiter<A, E> | undefined): boolean =>
  other === undefined || one.priority > other.priority
  || (one.priority === other.priority && one.id < other.id)

/** The first waiter for whom nothing is being opened or checked. */
const firstUnserved = <A, E>(partition: State.Partition<A, E>): State.Waiter<A, E> | undefined => {
  let waiter = partition.queue.head
  for (let i = partition.opening.size + partition.checking; i > 0 && waiter !== undefined; i--) {
    waiter = waiter.next
  }
  return waiter && partition.pool.waiters.get(waiter.need)
}

/** The partition that gets the next slot: that of the first waiter who has nothing coming, then any that is short. */
const neediest = <A, E>(pool: State.State<A, E>): State.Partition<A, E> | undefined => {
  let best: State.Partition<A, E> | undefined
  let first: State.Waiter<A, E> | undefined
  for (const partition of pool.partitions) {
    if (State.shortage(partition) <= 0 || !State.hasRoom(partition)) continue
    const waiter = firstUnserved(partition)
    if (best === undefined || (waiter !== undefined && precedes(waiter, first))) {
      best = partition
      first = waiter
    }
  }
  return best
}

/** How many waiters, of partitions that may still grow, precede this one and have nothing coming. */
const unservedBefore = <A, E>(
  pool: State.State<A, E>,
  last: State.Waiter<A, E> | undefined
): number => {
  const { maxConnecting } = pool.options
  let count = 0
  for (const partition of pool.partitions) {
    const { checking, max, opening, queue } = partition
    const room = Math.min(max - State.sizeOf(partition), maxConnecting - opening.size)
    let skip = opening.size + checking
    let unserved = 0
    for (let next = queue.head; next !== undefined && unserved < room; next = next.next) {
      if (skip-- > 0) continue
      const waiter = pool.waiters.get(next.need)
      if (waiter === undefined || !precedes(waiter, last)) break
      unserved++
    }
    count += unserved
  }
  return count
}

const longestIdle = <A, E>(pool: State.State<A, E>): State.Item<A, E> | undefined => {
  let oldest: State.Item<A, E> | undefined
  for (const { idle: { head } } of pool.partitions) {
    if (head !== undefined && (oldest === undefined || head.idleSince < oldest.idleSince)) {
      oldest = head
    }
  }
  return oldest
}

export const quota: State.Quota = {
  /** A free slot goes to the neediest partition; if none is free, the item that was idle for longest makes room for a waiter. */
  next: <A, E>(pool: State.State<A, E>): State.Decision<A, E> | undefined => {
    const partition = neediest(pool)
    if (partition === undefined) return undefined
    if (pool.size < pool.options.maxTotal) return { _tag: "open", partition }
    if (partition.queue.size === 0 || pool.closing >= unservedBefore(pool, undefined)) {
      return undefined
    }
    const item = longestIdle(pool)
    return item && { _tag: "destroy", item, reason: "evicted" }
  },
  /** INVARIANT KeyedPool-2: a returned item gives up its slot if waiters of other keys precede those of its own. */
  owesSlot: (partition) => {
    const { pool } = partition
    return pool.size >= pool.options.maxTotal
      && unservedBefore(pool, State.headOf(partition)) > pool.closing
  }
}
