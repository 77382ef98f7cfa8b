/** Mutants of Lock, found by test/Lock.test.ts and test/Lock/Permits.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant, of } from "./mutant.ts"

const mutant = (what: string, file: string, from: string, to: string, title: string): Mutant => ({
  what,
  file,
  from,
  to,
  tests: "Lock.test.ts",
  title
})

const permits = of("Lock/Permits.ts", "Lock/Permits.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "two grants get one fence",
    "Lock/service.ts",
    "    fence: ++lastFence,",
    "    fence: lastFence,",
    "memory: Lock-1: one at a time"
  ),
  mutant(
    "a release that hangs delays the body by an hour",
    "Lock/service.ts",
    "      releaseDeadline,\n      onOverrun",
    "      releaseDeadline: \"1 hour\",\n      onOverrun",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "a key whose release was abandoned is never free",
    "Lock/service.ts",
    "      onOverrun: (taken) => Effect.sync(() => free(taken)),\n",
    "",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "a failed release changes the exit of the body",
    "Lock/service.ts",
    "onReleaseFailure: \"report\"",
    "onReleaseFailure: \"cause\"",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "a key is not free after its release",
    "Lock/service.ts",
    "Effect.ensuring(release, Effect.sync(() => free(taken)))",
    "release",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "a key is free before its release has ended",
    "Lock/service.ts",
    "Effect.ensuring(release, Effect.sync(() => free(taken)))",
    "Effect.zipRight(Effect.sync(() => free(taken)), release)",
    "Lock-2: the next waiter gets the key after the release"
  ),
  mutant(
    "the interrupted body of a remote lease is not waited for",
    "Lock/lease.ts",
    "        return Fiber.interrupt(fiber)",
    "        return Effect.as(Fiber.interruptFork(fiber), Exit.interrupt(fiber.id()))",
    "Lock-2: an interrupted body of a remote lease"
  ),
  mutant(
    "a take that fails keeps the key from the next waiter",
    "Lock/service.ts",
    "        passOn(key, slot)\n        return Effect.failCause(cause)",
    "        return Effect.failCause(cause)",
    "Lock-3: interrupted at any step of a slow backend"
  ),
  mutant(
    "a granted waiter that is interrupted keeps the key",
    "Lock/service.ts",
    "      if (wasGranted) passOn(key, slot)",
    "",
    "memory: Lock-3: a waiter interrupted anywhere"
  ),
  mutant(
    "a late wait in the queue is an interruption",
    "Lock/service.ts",
    "      asking.isLate = true\n      return Cause.interrupt",
    "      return Cause.interrupt",
    "Lock-3: acquireTimeout is on the Clock"
  ),
  mutant(
    "a wait for the backend has no bound",
    "Lock/service.ts",
    "Math.max(until - now, 0)",
    "Infinity",
    "Lock-3: acquireTimeout counts in the queue and at the backend together"
  ),
  mutant(
    "the time in the queue does not count at the backend",
    "Lock/service.ts",
    "Math.max(until - now, 0)",
    "asking.acquireTimeout",
    "Lock-3: acquireTimeout counts in the queue and at the backend together"
  ),
  mutant(
    "a timeout names no holder",
    "Lock/service.ts",
    "const holder = Option.getOrUndefined(seen)",
    "const holder = undefined",
    "Lock-3: acquireTimeout is on the Clock"
  ),
  mutant(
    "the loss of a lease is ignored",
    "Lock/service.ts",
    "const lose = (reason: LossReason): void => end(hold, reason)",
    "const lose = (_: LossReason): void => {}",
    "Lock-4: loss interrupts the body"
  ),
  mutant(
    "a defect of a lost body vanishes",
    "Lock/lease.ts",
    ": Cause.sequential(Cause.fail(lost), exit.cause)",
    ": Cause.fail(lost)",
    "Lock-4: another defect of the body"
  ),
  mutant(
    "a lease lives on after its scope",
    "Lock/service.ts",
    "        end(taken.hold, \"released\")\n",
    "",
    "Lock-4: a scoped lease protects"
  ),
  mutant(
    "a fiber may wait for itself",
    "Lock/service.ts",
    "? Effect.die(new LockReentry({ key }))",
    "? Effect.void",
    "memory: Lock-7: the same fiber tree"
  ),
  mutant(
    "a fiber that was forked under a lock is refused for ever",
    "Lock/service.ts",
    "home === slots && hold.key === key && slots.get(key)?.hold === hold",
    "home === slots && hold.key === key",
    "memory: Lock-7: the same fiber tree"
  ),
  mutant(
    "a try takes a held key",
    "Lock/service.ts",
    "const slot = unsafeTryTake(asking.key)",
    "const slot = unsafeTryTake(asking.key) ?? slots.get(asking.key)",
    "memory: a try never waits"
  ),
  mutant(
    "the ledger does not know who is in the way",
    "Lock/service.ts",
    "first === undefined || first === asking.entry ? [] : [first]",
    "[]",
    "Lock-8: a waiter is acquiring"
  ),
  mutant(
    "several keys are taken in the order of the caller",
    "Lock/service.ts",
    "[keys] : keys)).toSorted()",
    "[keys] : keys))",
    "memory: Lock-9: bodies with several keys"
  ),
  mutant(
    "a key that is named twice is taken twice",
    "Lock/service.ts",
    "Array.from(new Set(typeof keys === \"string\" ? [keys] : keys)).toSorted()",
    "Array.from(keys).toSorted()",
    "memory: Lock-9: bodies with several keys"
  ),
  mutant(
    "each of several keys has the whole bound",
    "Lock/service.ts",
    "Math.max(0, bound - now + began)",
    "bound",
    "Lock-9: the second key fails or is late"
  ),
  mutant(
    "a timeout does not name the line of the holder",
    "Lock/lease.ts",
    "return line === undefined ? this.#name : `${this.#name} at ${line}`",
    "return this.#name",
    "Lock-3: a timeout names the line"
  ),
  mutant(
    "a singleton ends with its lease",
    "Lock/Singleton.ts",
    "if (failures.some((failure) => failure instanceof Lock.LockLost)) return again\n",
    "",
    "Singleton-1, Singleton-2: a singleton"
  ),
  mutant(
    "a singleton takes the loss of another lock for its own",
    "Lock/Singleton.ts",
    "(failure) => new BodyFailed({ failure })",
    "(failure) => failure as never",
    "Singleton-1, Singleton-2: a singleton"
  ),
  mutant(
    "the failure of a singleton's body vanishes beside a loss",
    "Lock/Singleton.ts",
    "      if (Cause.isDie(cause) || failures.some((failure) => failure instanceof BodyFailed)) {",
    "      if (Cause.isDie(cause)) {",
    "Singleton-1, Singleton-2: a singleton"
  ),
  permits(
    "a newcomer passes a waiter",
    "if (slot.queue.size > 0 || slot.used",
    "if (slot.used",
    "memory: Permits-2: a writer that waits"
  ),
  permits(
    "an interrupted waiter keeps its permits",
    "free(slot, request, wasGranted ? request.permits : 0)",
    "free(slot, request, 0)",
    "memory: Permits-3: a waiter"
  ),
  permits(
    "those behind a waiter that left are not served",
    "free(slot, request, wasGranted ? request.permits : 0)",
    "wasGranted && free(slot, request, request.permits)",
    "memory: Permits-3: a waiter"
  ),
  permits(
    "permits are not given back",
    "    slot.used -= permits\n",
    "",
    "memory: Permits-1: readers together"
  ),
  permits(
    "a loss does not end the body",
    "return backend.remote ? lease.protect(user) : user",
    "return user",
    "Permits-4: the loss of a lease"
  )
]
