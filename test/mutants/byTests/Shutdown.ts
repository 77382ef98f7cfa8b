/** Mutants of Shutdown, found by test/Shutdown.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

const mutant = (what: string, file: string, from: string, to: string, title: string): Mutant => ({
  what,
  file,
  from,
  to,
  tests: "Shutdown.test.ts",
  title
})

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "a later request replaces the reason of the first",
    "Shutdown.ts",
    "    if (this.why !== undefined) return false\n    this.why = reason",
    "    this.why = reason",
    "Shutdown-1: the first request wins"
  ),
  mutant(
    "a mark stays after its work has ended",
    "Shutdown.ts",
    "          among.delete(region)\n",
    "",
    "Shutdown-2: a draining region is counted"
  ),
  mutant(
    "stopping does not wait for what is in flight",
    "Shutdown.ts",
    "            this.flying.size === 0 && this.drainers",
    "            this.drainers",
    "Shutdown-2: stopping waits for what is in flight"
  ),
  mutant(
    "a program that drains is interrupted when its last mark ends",
    "Shutdown.ts",
    "            && (!this.endsByItself || main.exit !== undefined),\n",
    "            && true,\n",
    "Shutdown-2: a program that drains ends by itself"
  ),
  mutant(
    "readiness goes only after waiters were notified",
    "Shutdown.ts",
    "    if (this.unsafePhase() === \"running\") this.enter(\"draining\")\n",
    "",
    "Shutdown-3: readiness is gone before"
  ),
  mutant(
    "stopping has no bound of its own",
    "Shutdown.ts",
    "          Math.min(bounds.workEndsBy, this.now() + bounds.stopTimeout)",
    "          bounds.workEndsBy",
    "Shutdown-4: every phase ends by its bound"
  ),
  mutant(
    "draining leaves stopping no time",
    "Shutdown.ts",
    "work - Math.min(stopTimeout, work / 3)",
    "work",
    "Shutdown-4: `total` caps all"
  ),
  mutant(
    "releases get the whole of what is left",
    "Shutdown.ts",
    "      this.budget.begin({ by, now: () => this.now() })\n",
    "",
    "Shutdown-4: a release takes no more than its share"
  ),
  mutant(
    "the budget of the releases never ends",
    "Shutdown.ts",
    "          this.budget.end()\n",
    "",
    "Shutdown-4: after the end nothing is bounded"
  ),
  mutant(
    "the scope of a hook that runs does not wait for it",
    "Shutdown.ts",
    "          return this.until(() => !this.isDue(hook), Infinity)\n",
    "          return Effect.void\n",
    "Shutdown-5: a scope that closes while its hook runs"
  ),
  mutant(
    "a hook whose scope has closed runs all the same",
    "Shutdown.ts",
    "          if (!this.isDue(hook)) this.hooks.delete(hook)\n",
    "",
    "Shutdown-5: hooks run once"
  ),
  mutant(
    "work that overran is not interrupted before the main fiber",
    "Shutdown.ts",
    "      return this.cutWork(main, self.id(), cutBy, isOurs).pipe(",
    "      return Effect.void.pipe(",
    "Shutdown-6: what overran is interrupted"
  ),
  mutant(
    "fibers that the program left behind are not interrupted",
    "Shutdown.ts",
    "      if (!Deadline.isBounded(fiber)) fiber.unsafeInterruptAsFork(this.#by)\n",
    "",
    "Shutdown-6: what a program leaves behind"
  ),
  mutant(
    "a marked release is interrupted",
    "Shutdown.ts",
    "fiber === main.fiber || Deadline.isBounded(fiber)) continue",
    "fiber === main.fiber) continue",
    "Shutdown-6: a release that is marked"
  ),
  mutant(
    "the fibers of others are interrupted, too",
    "Shutdown.ts",
    "        .filter((fiber) => fiber !== undefined && isOurs(fiber))\n",
    "",
    "Shutdown-6: somebody else's fiber that is marked"
  ),
  mutant(
    "a failed release that leaves the history of the ledger is forgotten",
    "Shutdown.ts",
    "        this.troubled.set(entry.id, entry)\n",
    "",
    "Shutdown-7: the report names what failed"
  ),
  mutant(
    "a fiber that was left behind may fail unreported",
    "Shutdown.ts",
    "        if (!Cause.isInterruptedOnly(exit.cause)) this.#failed.set(fiber, exit.cause)\n",
    "",
    "Shutdown-7: what fails in a fiber"
  ),
  mutant(
    "a run inside of another is not asked for its end",
    "Shutdown.ts",
    "    for (const inner of this.inside) if (!inner.isShielded) inner.unsafeRequest(reason)\n",
    "",
    "Shutdown-8: it is asked for its end in the same step"
  ),
  mutant(
    "a run in a release is asked for its end",
    "Shutdown.ts",
    "inner.isShielded = !RuntimeFlags.interruptible(runtimeFlags) || Deadline.isWork(caller)",
    "inner.isShielded = false",
    "Shutdown-8: one in a release, or masked"
  ),
  mutant(
    "one ledger of two runs is counted twice",
    "Shutdown.ts",
    "ledgers.set(one.ledger, other === undefined ? one : seenByBoth(other, one))",
    "ledgers.set({ ...one.ledger } as never, one)",
    "Shutdown-8: of each ledger it is told once"
  )
]
