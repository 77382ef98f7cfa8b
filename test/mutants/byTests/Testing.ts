/**
 * Mutants of the explorer's second interrupts, of its reduced orders and of its hasty runs, found by their tests;
 * test/mutants.byTests.slow.test.ts says how to add one.
 */
import { type Mutant, of } from "./mutant.ts"

const twice = (file: string) => of(`Testing/${file}`, "Testing/twice.test.ts")
const orders = (file: string) => of(`Testing/${file}`, "Testing/orders.test.ts")
const verdicts = (file: string) => of(`Testing/${file}`, "Testing/verdicts.test.ts")

export const mutants: ReadonlyArray<Mutant> = [
  twice("simulation.ts")(
    "no second interrupt is sent",
    "this.#aim(this.hitAgain ? undefined : this.#plan.again)",
    "this.#aim(undefined)",
    "the second cuts a clean-up that runs in a child"
  ),
  twice("runtime.ts")(
    "a child that the clean-up has started counts as reached",
    "if (!isInterrupted || hasUninterrupted(child)) return true",
    "if (isInterrupted && hasUninterrupted(child)) return true",
    "a masked clean-up is safe, and the verdict counts the pairs"
  ),
  twice("experiment.ts")(
    "the owner's close is not what is interrupted",
    "simulation.forkTarget(isClose ? close : use)",
    "simulation.forkTarget(use)",
    "it cuts a release that runs in a child"
  ),
  orders("conflicts.ts")(
    "no operation touches anything shared",
    ".some((one) => !isKnown(one))",
    ".some(() => false)",
    "a lost update of a Ref: found"
  ),
  orders("interleavings.ts")(
    "a delay is expected to change no order",
    "    ...part(end, resumed),\n    ...part(at, end),\n",
    "    ...part(at, end),\n    ...part(end, resumed),\n",
    "a lost update of a Ref: found"
  ),
  orders("schedules.ts")(
    "a second delay is not tried",
    "|| most === 1) continue\n",
    "|| most > 0) continue\n",
    "a torn read that takes two delays: found"
  ),
  verdicts("session.ts")(
    "a hasty run that breaks a law is not made again",
    "return isSuspect ? driver.run(program, settingsOf(session, given)) : outcome",
    "return outcome",
    "what a heartbeat puts right after many beats is no finding"
  ),
  verdicts("simulation.ts")(
    "no run is hasty",
    "(isHasty ? hastyBeats : mostBeats)[as]",
    "mostBeats[as]",
    "a run waits for few beats of a heartbeat"
  )
]
