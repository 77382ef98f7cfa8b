/** Mutants of Lock, found by test/Lock.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

const mutant = (what: string, file: string, from: string, to: string, title: string): Mutant => ({
  what,
  file,
  from,
  to,
  tests: "Lock.test.ts",
  title
})

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "two grants get one fence",
    "Lock.ts",
    "    fence: ++lastFence,",
    "    fence: lastFence,",
    "memory: Lock-1: one at a time"
  ),
  mutant(
    "a release that hangs is waited for without a bound",
    "Lock.ts",
    "exitWithin(grant.release, releaseWithin)",
    "Effect.asSome(Effect.exit(grant.release))",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "a key is not free after its release",
    "Lock.ts",
    "        giveSlot(hold.key, slot)\n        if (Option.isNone(ended)) {",
    "        if (Option.isNone(ended)) {",
    "Lock-2: a failed or hung release"
  ),
  mutant(
    "the interrupted body of a remote lease is not waited for",
    "Lock.ts",
    ": Fiber.interrupt(fiber),",
    ": Effect.as(Fiber.interruptFork(fiber), Exit.interrupt(fiber.id())),",
    "Lock-2: an interrupted body of a remote lease"
  ),
  mutant(
    "a take that fails keeps the key from the next waiter",
    "Lock.ts",
    "        giveSlot(key, slot)\n        return Effect.failCause(cause)",
    "        return Effect.failCause(cause)",
    "Lock-3: cut at any step of a slow backend"
  ),
  mutant(
    "a grant to an interrupted waiter is never released",
    "Lock.ts",
    "Exit.isSuccess(exit) ? giveBack(exit.value) : Effect.void,",
    "Effect.void,",
    "Lock-3: cut at any step of a slow backend, nothing is held ({\"waitAtMost"
  ),
  mutant(
    "a grant in the last moment is a timeout",
    "Lock.ts",
    "Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause) ? onLate : exit",
    "onLate",
    "Lock-3: what is granted as the time runs out"
  ),
  mutant(
    "a timeout names no holder",
    "Lock.ts",
    "new LockTimeout({ key, waited, holder: Option.getOrUndefined(holder) })",
    "new LockTimeout({ key, waited, holder: undefined })",
    "Lock-3: waitAtMost is on the Clock"
  ),
  mutant(
    "the loss of a lease is ignored",
    "Lock.ts",
    "const lose = (reason: LossReason): void => end(hold, reason)",
    "const lose = (_: LossReason): void => {}",
    "Lock-4: loss interrupts the body"
  ),
  mutant(
    "a defect of a lost body vanishes",
    "Lock.ts",
    ": Cause.sequential(lost, exit.cause)",
    ": lost",
    "Lock-4: what else the body died of"
  ),
  mutant(
    "a lease lives on after its scope",
    "Lock.ts",
    "      end(hold, \"released\")\n",
    "",
    "Lock-4: a scoped lease protects"
  ),
  mutant(
    "a fiber may wait for itself",
    "Lock.ts",
    "? Effect.fail(new LockReentry({ key }))",
    "? Effect.void",
    "memory: Lock-7: the same fiber tree"
  ),
  mutant(
    "a fiber that was forked under a lock is refused for ever",
    "Lock.ts",
    "hold.home === slots && hold.key === key && slots.get(key)?.hold === hold",
    "hold.home === slots && hold.key === key",
    "memory: Lock-7: the same fiber tree"
  ),
  mutant(
    "a try waits for the holder",
    "Lock.ts",
    "      if (!Semaphore.unsafeTryTake(slot.line, 1)) {",
    "      if (Semaphore.unsafeTryTake(slot.line, 1)) {",
    "memory: a try never waits"
  ),
  mutant(
    "the ledger does not know who is in the way",
    "Lock.ts",
    "first === undefined || first === asking.entry ? [] : [first]",
    "[]",
    "Lock-8: who waits is acquiring"
  )
]
