/**
 * Mutants of the tracker, of the interrupt at waits and of Nursery, found by their tests; test/mutants.byTests.slow.test.ts says how
 * to add one.
 */
import { type Mutant, of } from "./mutant.ts"

const tracker = of("internal/tracker.ts", "Nursery.test.ts")
const nursery = of("Nursery.ts", "Nursery.test.ts")
const workers = of("internal/workers.ts", "Nursery.test.ts")
const interrupt = of("internal/interrupt.ts", "internal/interrupt.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  tracker(
    "the release does not wait for dying fibers",
    "cut.has(fiber) || isInterrupted(fiber)",
    "cut.has(fiber)",
    "Managed.use ends after a sibling"
  ),
  tracker(
    "children of the body are left running",
    "(lent.ends === \"children\" && isChild(node, lent.since))",
    "false",
    "a child of the body ends before"
  ),
  tracker(
    "daemons are ended as children are",
    "lent.ends === \"children\" && isChild(node, lent.since)",
    "lent.ends === \"children\"",
    "a child of the body ends before"
  ),
  tracker(
    "what a daemon has forked is ended as children are",
    "(parent.fiber.id().id < since || isChild(parent, since))",
    "true",
    "what a pool opens outlives"
  ),
  tracker(
    "the fibers of an ended fiber are forgotten",
    "      this.attach(orphan, starter)\n",
    "",
    "daemon of an ended daemon"
  ),
  tracker(
    "a waiter of the closer is waited for",
    "      if (!waitsForOne(fiber, ids) && !waitsForHeld(fiber)) continue\n",
    "      if (!waitsForHeld(fiber)) continue\n",
    "that waits for the fiber that releases"
  ),
  tracker(
    "a waiter of a lock that the closer holds is waited for",
    "held.has(queue)",
    "false",
    "that waits when the bracket ends for what is released"
  ),
  tracker(
    "a fiber that begins to wait is not seen",
    "      if (fibers.has(fiber)) done()\n",
    "",
    "that begins to wait later for what is released"
  ),
  tracker(
    "an outer release waits again",
    "    for (const fiber of late) lent.tracker.abandoned.add(fiber)\n",
    "",
    "a fiber that does not end is named"
  ),
  tracker(
    "finalizers in new fibers see no users",
    "  while (node !== undefined && node.fiber.id().id >= since) node = node.starter\n",
    "",
    "Effect.provide of merged layers"
  ),
  tracker(
    "a fiber that has the resource in its context is not seen",
    "Array.from(fiber.currentContext.unsafeMap.values()).includes(value)",
    "value === null",
    "a ManagedRuntime"
  ),
  nursery(
    "a body that is interrupted leaves its children running",
    "        if (Exit.isFailure(exit)) Workers.cut(group)\n",
    "",
    "a body that fails or interrupts itself"
  ),
  nursery(
    "a child may be started after the end",
    "    nursery.hasEnded = true\n    // Without",
    "    // Without",
    "after its end it starts nothing"
  ),
  nursery(
    "cancel interrupts the body",
    "if (fiber !== body) Interrupt",
    "Interrupt",
    "startReady gives the value"
  ),
  nursery(
    "a scope that closes says nothing of a failed child",
    "return this.isAwaited ? Effect.void : this.failures()",
    "return Effect.void",
    "make: the scope's close"
  ),
  nursery(
    "a background child outlives its scope",
    "        Interrupt.atWait(fiber, by)\n        return fiber.await\n",
    "        return Effect.succeed(by)\n",
    "background ends with its scope"
  ),
  workers(
    "an interrupted child fails its nursery",
    "      if (!Cause.isEmptyType(cause) || !group.toleratesInterrupts) cut(group)",
    "      cut(group)",
    "a body that fails or interrupts itself"
  ),
  interrupt(
    "a computing fiber is interrupted at once",
    "      if (isWaiting) fiber",
    "      if (true) fiber",
    "a fiber that computes"
  ),
  interrupt(
    "a fiber that never waits is never interrupted",
    "++looks <= mostLooks &&",
    "true &&",
    "one that never waits"
  ),
  interrupt(
    "a fiber that has not begun begins",
    "!isUnstarted(fiber)",
    "true",
    "one that has not begun never begins"
  )
]
