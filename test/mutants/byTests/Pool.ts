/** Mutants of Pool, found by its tests; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant, of } from "./mutant.ts"

const lend = of("Pool/lend.ts", "Pool.test.ts")
const use = of("Pool/use.ts", "Pool.test.ts")
const evict = of("Pool/evict.ts", "Pool.test.ts")
const items = of("Pool/items.ts", "Pool.test.ts")
const close = of("Pool/close.ts", "Pool.test.ts")
const state = of("Pool/state.ts", "Pool.test.ts")
const quota = of("Pool/quota.ts", "Pool/Keyed.test.ts")
const control = of("Pool/Control.ts", "Pool/Control.test.ts")
const lease = of("Pool/use.ts", "Pool/Control.test.ts")
const room = of("Pool/state.ts", "Pool/Control.test.ts")
const shared = of("Pool/Shared.ts", "Pool/Shared.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  control(
    "a surplus item that comes back is lent again",
    "  owesSlot: hasSurplus",
    "  owesSlot: () => false",
    "a surplus that is held goes"
  ),
  control(
    "items that are being destroyed count as surplus",
    "State.sizeOf(partition) - partition.closing > partition.max",
    "State.sizeOf(partition) > partition.max",
    "a surplus that is idle goes"
  ),
  control(
    "waiters do not get the new room",
    "    while (idle.head !== undefined && hasSurplus(partition)) Lend.destroy(idle.head, \"evicted\")\n    Lend.settle(partition)\n",
    "    while (idle.head !== undefined && hasSurplus(partition)) Lend.destroy(idle.head, \"evicted\")\n",
    "more room goes to the waiters"
  ),
  control(
    "a detached item keeps its slot",
    "    Items.forget(item, \"detached\")\n",
    "",
    "the slot is free at once"
  ),
  control(
    "nobody gets the slot of a detached item",
    "    Lend.settle(partition)\n    const lent",
    "    const lent",
    "the slot is free at once"
  ),
  control(
    "the metrics stop with the last observer",
    "pool.meter = replaced",
    "pool.meter = undefined",
    "metrics go on beside observers"
  ),
  lease(
    "a lease that was detached gives its item back",
    "      if (unsafeKeep() !== undefined) Lend.giveBack(item, exit)\n",
    "      Lend.giveBack(item, exit)\n",
    "the slot is free at once"
  ),
  room(
    "a surplus takes the places of waiters",
    "Math.max(0, Math.min(partition.max - sizeOf(partition), options.maxTotal - size))",
    "Math.min(partition.max - sizeOf(partition), options.maxTotal - size)",
    "with a surplus maxWaiters"
  ),
  shared(
    "a user is spread over items that have room",
    "group.users > (fullest?.users ?? 0)",
    "group.users <= (fullest?.users ?? 0)",
    "users come together"
  ),
  shared(
    "an item gets more users than it may have",
    "group.users < concurrencyPerItem && ",
    "",
    "an item has so many users"
  ),
  shared(
    "an item that is unfit gets new users",
    "group.item !== undefined && unfit(group.item, now) !== undefined",
    "false",
    "so does one past its lifetime"
  ),
  shared(
    "a user that has ended keeps its seat of the group",
    "  if (--group.users === 0) groups.delete(group)\n",
    "",
    "users come together"
  ),
  lend(
    "what idled for long is lent without a check",
    "    if (isStale(item, now)) return undefined\n",
    "",
    "S13: what idled is checked"
  ),
  lend(
    "an invalid item that comes back is lent again",
    "const reason = unfit(item, now) ?? (",
    "const reason = (",
    "S16: invalidate destroys once"
  ),
  lend(
    "the grant of an interrupted waiter is lost",
    "    unlend(waiter.item)\n    offer(waiter.item)\n",
    "    unlend(waiter.item)\n",
    "S5: a waiter interrupted after its grant"
  ),
  lend(
    "the failure of an opening reaches no waiter",
    "  if (partition.queue.head !== undefined) return refuseHead(partition, cause)\n",
    "",
    "S9: a failed opening fails exactly"
  ),
  lend(
    "an opening that is not wanted any more is not interrupted",
    "  if (options.interruptAbandoned && State.shortage(partition) < 0) Items.interruptNewest(partition)\n",
    "",
    "S8: an opening outlives its caller"
  ),
  lend(
    "an idle item that is invalidated stays",
    "  if (item.list === item.partition.idle) {",
    "  if (item.list === null) {",
    "S16: invalidate destroys once"
  ),
  lend(
    "invalidateAll does not reach what is lent",
    "  partition.generation++\n",
    "",
    "S16: invalidateAll reaches"
  ),
  lend(
    "the item of a leak comes back in silence",
    "  item.isWarnedOf = true\n",
    "",
    "S21: a leak is warned about once"
  ),
  lend(
    "a failed refill is not tried again",
    "    Items.backOff(partition, cause, () => settle(partition))\n",
    "",
    "S10: a failed refill is logged"
  ),
  evict(
    "idleTimeout goes below minIdle",
    "idle.size > options.minIdle ? options.idleTimeout : Infinity",
    "options.idleTimeout",
    "S15: idle ones above minIdle"
  ),
  evict(
    "an item that comes back to a closed pool stays",
    "  if (pool.isClosed) return \"shutdown\"\n",
    "",
    "S19: by default closing waits"
  ),
  evict(
    "the item that idled for longest is lent first",
    "pool.options.isFifo ? idle.head : idle.tail",
    "idle.head",
    "S13: the last used is lent first"
  ),
  items(
    "a release that fails keeps its slot",
    "  pool.fork(Effect.map(close(item), () => {\n",
    "  pool.fork(Effect.map(item.close, (exit) => {\n    if (Exit.isFailure(exit)) return\n",
    "Pool-7: an item whose release fails"
  ),
  items(
    "an item that fails its check is lent",
    "      && isGood(ended.value.value)",
    "",
    "S13: what idled is checked"
  ),
  close(
    "a close leaves the waiters waiting",
    "    while (partition.queue.head !== undefined) {",
    "    while (partition.queue.head === null) {",
    "S18: closing fails those who wait"
  ),
  close(
    "a holder that closes waits for itself",
    "    return own === undefined\n",
    "    return own !== null\n",
    "S20: closing from inside a borrow"
  ),
  close(
    "holders are not interrupted at the end of the drain",
    "      if (holder !== undefined) Interrupt.atWait(holder, FiberId.none)\n",
    "",
    "S19: after shutdownTimeout holders"
  ),
  state(
    "more are opened at once than maxConnecting",
    "\n  && partition.opening.size < partition.pool.options.maxConnecting",
    "",
    "S12: maxWaiters refuses at once"
  ),
  use(
    "maxWaiters refuses nobody",
    "  if (!State.isFull(partition)) return undefined\n",
    "  if (!isClosed) return undefined\n",
    "S12: maxWaiters refuses at once"
  ),
  use(
    "invalidateOn sees a success whatever the exit was",
    "if (invalidateOn === undefined && reset === undefined && Handover.isOneStep(fiber)) {",
    "if (Handover.isOneStep(fiber)) {",
    "S17: invalidateOn decides by the exit"
  ),
  use(
    "the step that takes pushes no frame",
    "        pushFrame(fiber, item.frame ??= new Frame(() => Lend.giveBack(item, Exit.void)))\n",
    "",
    "a body that throws instead of failing"
  ),
  quota(
    "an item goes back to its own key while others waited before",
    "unservedBefore(pool, State.headOf(partition)) > pool.closing",
    "pool.size < 0",
    "a busy key does not starve another"
  ),
  quota(
    "the item that was used last makes room",
    "head.idleSince < oldest.idleSince",
    "head.idleSince > oldest.idleSince",
    "the item idle for longest makes room"
  )
]
