/**
 * mistakes: the kind of mistake behind a finding, why it happens, and its fix in one line.
 *
 * DESIGN. The kind follows from facts of the finding: the law, the injected fault, whether the resource was acquired before
 * the interrupt or after it, and whether a later interrupt is harmless. To add a kind, add a row to `mistakes` and a rule.
 */
import type { Mistake, Strike } from "./findings.ts"

const mistakes = {
  late: {
    kind: "acquired, but not yet registered",
    why:
      "Between the acquire and the registration of its release is a step at which an interrupt gets in.",
    fix:
      "Acquire and register in one step: Effect.acquireRelease(acquire, release), or Managed.make."
  },
  afterUse: {
    kind: "released only when the use ends well",
    why: "The release is code after the use, and an interrupt skips that code.",
    fix: "Make it a finalizer: Effect.acquireRelease, Effect.acquireUseRelease or Managed.use."
  },
  orphan: {
    kind: "an acquire that outlives its interrupt",
    why:
      "The acquire went on after the interrupt, and its result reached nobody who would release it.",
    fix:
      "Let the acquire's own fiber register the release. For one resource of many users: Shared.make."
  },
  cut: {
    kind: "a release that an interrupt can cut",
    why: "The release had begun, and the interrupt reached it before its end.",
    fix: "Run it masked, as the release of Effect.acquireRelease or Managed.make is."
  },
  again: {
    kind: "a clean-up that a second interrupt cuts",
    why: "The clean-up runs in a child fiber, and a second interrupt goes down to the children.",
    fix:
      "Clean up in the fiber itself, or mask the child: Effect.uninterruptible around what is forked."
  },
  openScope: {
    kind: "a scope that nobody closes",
    why: "A scope has finalizers, and the code that closes it is skipped.",
    fix: "Open it with Effect.scoped, or close it in Effect.onExit of a masked region."
  },
  earlierStay: {
    kind: "one acquire fails, the earlier ones stay",
    why: "The failure leaves before the releases of what was already acquired are registered.",
    fix:
      "Register each release with its own acquire: one Effect.acquireRelease for each, or Managed.all."
  },
  oneReleaseForAll: {
    kind: "a release that fails skips the releases after it",
    why: "Several resources are released by one effect, which ends at its first failure.",
    fix: "Give each resource a finalizer of its own."
  },
  endlessRelease: {
    kind: "a release without a deadline",
    why: "Whoever closes the scope waits for this release, and it does not return.",
    fix: "Bound it: Managed.make with a releaseDeadline."
  },
  swallowed: {
    kind: "an interrupt that is swallowed",
    why: "A loop catches the interrupt as if it were a failure, and goes on.",
    fix: "Retry and catch failures only, or end the loop when the cause is an interrupt."
  },
  defect: {
    kind: "a defect on the way out",
    why: "A finalizer or another fiber uses what the interrupted code has closed, or never opened.",
    fix: "Register the finalizer after what it uses is there; end other users before the close."
  },
  endlessWait: {
    kind: "a wait that nothing ends",
    why:
      "The interrupted fiber waits, uninterruptibly, for something that the interrupt has prevented.",
    fix:
      "Wait interruptibly (restore), or only for what always comes. For stock all, forEach and race: Parallel or Nursery."
  },
  spin: {
    kind: "a loop that never sleeps",
    why: "It waits for a flag that the interrupted code no longer sets.",
    fix: "Wait on a Deferred that is completed in Effect.ensuring."
  },
  taken: {
    kind: "taken, and not given back",
    why: "The next use waits for what the interrupted use took: a permit, a slot, an entry.",
    fix: "Take and give back in one bracket: Effect.acquireUseRelease, or Semaphore.withPermit."
  },
  poisoned: {
    kind: "an interrupt that is kept as a result",
    why: "The interrupted use has stored its own interrupt where the next use reads its result.",
    fix:
      "Store successes only; on any other exit remove the entry. For a shared resource: Shared.make."
  },
  halfDone: {
    kind: "a change that is half done",
    why: "The use was interrupted between two changes of state that belong together.",
    fix: "Undo it in Effect.onExit, or make both changes in one Effect.sync."
  },
  endlessClose: {
    kind: "a close that waits for what only a finished use gives",
    why: "The interrupted use has not done what the owner's close waits for.",
    fix: "Do it in Effect.ensuring, so that it happens on every exit."
  },
  counter: {
    kind: "counted up, and not down",
    why: "The decrement is code after the use, and an interrupt skips that code.",
    fix: "Count in a bracket: Effect.acquireUseRelease(increment, use, decrement)."
  },
  twice: {
    kind: "two owners of one release",
    why: "Two handlers release the same resource, and an interrupt runs both.",
    fix: "Leave the release to one finalizer."
  },
  order: {
    kind: "released before its users",
    why: "A resource was released while one that was acquired after it, and may use it, was held.",
    fix:
      "Acquire first what the others need, in one scope. Of nested scopes, close the inner one first."
  },
  strayFiber: {
    kind: "a fiber that nobody ends",
    why: "A fiber that the interrupted use started is alive after the owner's close.",
    fix: "Start it with Effect.forkScoped, or as a child of a Nursery."
  },
  race: {
    kind: "a read and a write with a gap",
    why: "Another fiber runs in between and changes what was read.",
    fix: "Make it one step (Ref.update), or hold a Mutex over both."
  }
} as const satisfies Record<string, Mistake>

/** Facts of a finding that its outcome alone does not tell. */
export interface Facts {
  /** The resource was acquired after the interrupt had come. */
  readonly isAfter: boolean
  /** The fiber that closes the owner was interrupted. */
  readonly isClose: boolean
  /** At least one later operation of the target may be interrupted without harm. */
  readonly isHarmlessLater: boolean
}

const ofUnreleased = (
  { fault, outcome }: Strike,
  { isAfter, isClose, isHarmlessLater }: Facts
): Mistake => {
  if (fault?.fault.startsWith("acquire") === true) return mistakes.earlierStay
  if (fault !== undefined) return mistakes.oneReleaseForAll
  if (isClose) return mistakes.cut
  if (outcome.unreleased.length === 0) return mistakes.openScope
  if (outcome.unreleased.some(({ name }) => name.includes("cut half-way"))) return mistakes.cut
  if (isAfter) return mistakes.orphan
  return isHarmlessLater ? mistakes.late : mistakes.afterUse
}

/** The mistake behind a strike, by its most telling law. */
export const mistakeOf = (strike: Strike, facts: Facts): Mistake | undefined => {
  const { fault, outcome, violations } = strike
  const broke = (law: string) => violations.some((violation) => violation.law === law)
  if (fault?.fault === "release never returns") return mistakes.endlessRelease
  // The first interrupt alone was harmless.
  if (strike.first !== undefined) return mistakes.again
  if (broke("the run ends")) return mistakes.spin
  if (broke("every schedule ends alike")) return mistakes.race
  if (broke("the target exits")) return mistakes.endlessWait
  if (broke("the target exits at once")) return mistakes.swallowed
  if (broke("all is released")) return ofUnreleased(strike, facts)
  if (broke("released once")) {
    return outcome.doubles.some((one) => one.includes(" = ")) ? mistakes.counter : mistakes.twice
  }
  if (broke("released in order")) return mistakes.order
  if (broke("the second use is as the first")) {
    if (outcome.second === "never") return mistakes.taken
    return outcome.second === "interrupted" ? mistakes.poisoned : mistakes.halfDone
  }
  if (broke("the invariant holds")) return mistakes.halfDone
  if (broke("the owner closes")) return mistakes.endlessClose
  if (broke("no defect")) return mistakes.defect
  return broke("no fiber is left") ? mistakes.strayFiber : undefined
}
