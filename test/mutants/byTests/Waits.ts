/**
 * Mutants of what waits are made of (timers, conditions, priorities, rate limits), found by their tests;
 * test/mutants.byTests.slow.test.ts says how to add one.
 */
import { type Mutant, of } from "./mutant.ts"

const timers = of("internal/timers.ts", "internal/timers.test.ts")
const condition = of("internal/condition.ts", "internal/condition.test.ts")
const registration = of("internal/registration.ts", "internal/registration.test.ts")
const queue = of("internal/waitQueue.ts", "internal/waitQueue.test.ts")
const limiter = of("RateLimiter.ts", "RateLimiter.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  timers(
    "the heap is not in order",
    "    if (parent.at <= timer.at) break\n",
    "    break\n",
    "each runs once, at its deadline"
  ),
  timers(
    "a timer that leaves the middle of the heap leaves it in disorder",
    "  if (index > 0 && parent!.at > last.at) rise(heap, last, index)\n  else sink(heap, last, index)",
    "  place(heap, last, index)",
    "runs what a sorted list would run"
  ),
  timers(
    "an earlier deadline does not wake the fiber",
    "  if (timer.at < self.wakeAt) wake(self, runtimeOf(caller))",
    "  if (self.wakeAt === Infinity) wake(self, runtimeOf(caller))",
    "each runs once, at its deadline"
  ),
  timers(
    "the fiber lives on without timers",
    "  timers.fiber?.unsafeInterruptAsFork(FiberId.none)\n  timers.fiber = undefined",
    "  timers.fiber = undefined",
    "one fiber for all, none when"
  ),
  timers(
    "an interrupt of the fiber ends all timers",
    "    if (self.epoch === epoch && self.heap.length > 0) wake(self, runtime)\n",
    "",
    "somebody else's interrupt"
  ),
  timers(
    "a timer runs before its deadline if its clock fires early",
    "next !== undefined && next.at <= now; next",
    "next !== undefined && next.at <= now + 1; next",
    "a clock that fires early"
  ),
  condition(
    "an observer is called at each notification",
    "observer.isMet() && self.delete(observer)",
    "observer.isMet()",
    "in the order of arrival, once"
  ),
  condition(
    "a test that holds already is not looked at",
    "isMet?.() === true",
    "false",
    "in the order of arrival, once"
  ),
  condition(
    "an interrupted wait stays",
    "Registration.wait((resume) => observe(self, () => resume(Effect.void), isMet), blockingOn)",
    "Effect.async((resume) => void observe(self, () => resume(Effect.void), isMet), blockingOn)",
    "an interrupted wait leaves at once"
  ),
  registration(
    "what a wait registered stays, if it is cut",
    "() => Effect.sync(() => leave?.())",
    "() => Effect.void",
    "an interrupt at any operation takes away"
  ),
  queue(
    "a higher priority joins at the end",
    "last.priority >= priority && isNearer",
    "isNearer",
    "higher priorities first"
  ),
  queue(
    "the last waiter of a priority leaves, and those before it are forgotten",
    "    if (previous?.priority === priority) queue.lasts.set(priority, previous)\n    else queue",
    "    queue",
    "higher priorities first"
  ),
  queue(
    "a waiter that leaves keeps its timer",
    "  if (waiter.timer !== undefined) Timers.stop(waiter.timer)\n",
    "",
    "all bounds of a queue share one timer"
  ),
  queue(
    "a bound is on the clock of the first waiter",
    "Timers.on(queue.timers, clock)",
    "queue.timers ?? Timers.make(clock)",
    "a bound is on its caller's clock"
  ),
  limiter(
    "a bucket holds any number of tokens",
    "    this.tokens = Math.min(burst, this.tokens + (now - this.at) * rate)",
    "    this.tokens = Math.max(0, this.tokens + (now - this.at) * rate)",
    "a burst at once, then each"
  ),
  limiter(
    "a newcomer passes those who wait",
    "    if (this.queue.size > 0) return false\n",
    "",
    "a burst at once, then each"
  ),
  limiter(
    "the tokens of one that was granted and interrupted are lost",
    "    this.tokens += tokens\n",
    "",
    "granted and interrupted before it ran"
  ),
  limiter(
    "the timer of a limiter runs on without waiters",
    "    if (this.timer !== undefined) Timers.stop(this.timer)\n",
    "",
    "no fiber lives for a limiter"
  ),
  limiter(
    "a full bucket is never forgotten",
    "      if (bucket.isIdle()) bucket.settle()\n      else this",
    "      this",
    "a full bucket is forgotten"
  )
]
