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
    "Shutdown/run.ts",
    "    if (this.#reason !== undefined) return false\n",
    "",
    "Shutdown-1: the first request wins and wakes all waiters"
  ),
  mutant(
    "a mark stays after its work has ended",
    "Shutdown/marks.ts",
    "          among.delete(mark)\n",
    "",
    "Shutdown-2: drainers are counted exactly, however they end"
  ),
  mutant(
    "stopping does not wait for what is in flight",
    "Shutdown/run.ts",
    "      inFlight.size === 0 && drains",
    "      drains",
    "Shutdown-2: stopping waits for marked work, and for no other"
  ),
  mutant(
    "a program that drains is interrupted when its last mark ends",
    "Shutdown/run.ts",
    "      && (!this.#marks.endsByItself || main.exit !== undefined)\n",
    "",
    "Shutdown-2: a program that drains in any fiber ends by itself, also after the marked work"
  ),
  mutant(
    "readiness goes only after waiters were notified",
    "Shutdown/run.ts",
    "    if (this.#phases.current === \"running\") this.#phases.enter(\"draining\")\n",
    "",
    "Shutdown-3: readiness is gone before"
  ),
  mutant(
    "stopping has no bound of its own",
    "Shutdown/run.ts",
    "Math.min(bounds.workEndsBy, this.#waits.now() + this.#millis.stopTimeout)",
    "bounds.workEndsBy",
    "Shutdown-4: each phase ends by its bound, even if everything in it hangs"
  ),
  mutant(
    "draining leaves stopping no time",
    "Shutdown/phases.ts",
    "work - Math.min(stopTimeout, work / 3)",
    "work",
    "Shutdown-4: `total` bounds all phases, and the earlier ones leave the releases their time"
  ),
  mutant(
    "a release may take all that is left",
    "Shutdown/run.ts",
    "      this.#budget.begin({ by, now: () => this.#waits.now() })\n",
    "",
    "Shutdown-4: a release takes at most its share of the time left, and those after it still run"
  ),
  mutant(
    "the budget of the releases never ends",
    "Shutdown/run.ts",
    "        this.#budget.end()\n",
    "",
    "Shutdown-4: a release after the end has its own deadline only"
  ),
  mutant(
    "the scope of a hook that runs does not wait for it",
    "Shutdown/marks.ts",
    "          return this.#waits.until(() => !this.#isDue(hook), Infinity)\n",
    "          return Effect.void\n",
    "Shutdown-5: a scope that closes while its hook runs"
  ),
  mutant(
    "a hook whose scope has closed runs all the same",
    "Shutdown/marks.ts",
    "          if (!this.#isDue(hook)) this.#registered.delete(hook)\n",
    "",
    "Shutdown-5: hooks run once, concurrently, in their phase; failures are reported with their lines"
  ),
  mutant(
    "work that overran is not interrupted before the main fiber",
    "Shutdown/run.ts",
    "      this.#overran.add(marked.filter(isWork), self.id())\n",
    "",
    "Shutdown-6: work that overran is interrupted and ends before the main fiber releases what it uses"
  ),
  mutant(
    "fibers are waited for and not interrupted",
    "Shutdown/fibers.ts",
    "      if (!Deadline.isBounded(fiber)) Interrupt.atWait(fiber, by)\n",
    "",
    "Shutdown-6: fibers left behind release what they hold, however the program ends"
  ),
  mutant(
    "a release under way is interrupted",
    "Shutdown/fibers.ts",
    "      if (!Deadline.isBounded(fiber)) Interrupt.atWait(fiber, by)\n",
    "      Interrupt.atWait(fiber, by)\n",
    "Shutdown-6: a marked release is not interrupted"
  ),
  mutant(
    "a program is interrupted where it computes",
    "Shutdown/run.ts",
    "Interrupt.atWait(main.fiber, self.id())",
    "main.fiber.unsafeInterruptAsFork(self.id())",
    "Shutdown-6: a program that is asked to end while a stock operator computes"
  ),
  mutant(
    "the fibers of others are interrupted, too",
    "Shutdown/run.ts",
    "      fiber !== main.fiber && (isAll || this.#isAround(fiber))\n",
    "      fiber !== main.fiber\n",
    "Shutdown-6: a marked fiber of another program is waited for, not interrupted"
  ),
  mutant(
    "a failed release that leaves the history of the ledger is forgotten",
    "Shutdown/report.ts",
    "        this.#troubled.set(entry.id, entry)\n",
    "",
    "Shutdown-7: the report names what failed"
  ),
  mutant(
    "a batch that was drained before the request counts",
    "Shutdown/run.ts",
    "    this.#drainedBefore = this.#budget.drained\n",
    "",
    "the report counts the batches"
  ),
  mutant(
    "the failure of a fiber that was left behind is not reported",
    "Shutdown/fibers.ts",
    "this.#failed.set(fiber, exit.cause)",
    "void 0",
    "Shutdown-7: the failure of a fiber left behind is reported"
  ),
  mutant(
    "a request is not passed to nested runs",
    "Shutdown/run.ts",
    "    for (const child of this.#children) if (!child.#isShielded) child.unsafeRequest(reason)\n",
    "",
    "Shutdown-8: it gets the request in the same step, with the same reason, and ends before the outer run releases"
  ),
  mutant(
    "a request is passed to a run in a release",
    "Shutdown/run.ts",
    "this.#isShielded = !RuntimeFlags.interruptible(runtimeFlags) || Deadline.isWork(caller)",
    "this.#isShielded = false",
    "Shutdown-8: one in a release, or masked, gets no request, whether it began before or after it"
  ),
  mutant(
    "one ledger of two runs is counted twice",
    "Shutdown/report.ts",
    "const read = earliest(all).map",
    "const read = all.map",
    "Shutdown-8: the report counts each ledger once, however many runs use it"
  )
]
