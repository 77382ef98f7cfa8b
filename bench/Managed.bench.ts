/** What a bracket costs: ours with a bounded release and without, and Effect's own two, whose release nothing bounds. */
import { Duration, Effect } from "effect"
import { Ledger, Managed } from "holdfast"
import type { Suite } from "./run.ts"

const operations = 1_000
const times = (effect: Effect.Effect<unknown>) => () =>
  Effect.runPromise(Effect.repeatN(effect, operations - 1))

const acquire = Effect.succeed(1)
const release = () => Effect.void
const bounded = Managed.make({ name: "b", acquire, release })
const unbounded = Managed.make({ name: "u", acquire, release, releaseDeadline: Duration.infinity })
const use = () => Effect.void

const suite: Suite = {
  title: "Acquire, use, release",
  operations,
  contenders: {
    "Managed.use": times(Managed.use(bounded, use)),
    "Managed.use, ledger on": () =>
      Effect.runPromise(
        Effect.provide(Effect.repeatN(Managed.use(bounded, use), operations - 1), Ledger.layer)
      ),
    "Managed.use, no release deadline": times(Managed.use(unbounded, use)),
    "Managed in a scope": times(Effect.scoped(bounded)),
    "Effect.acquireUseRelease": times(Effect.acquireUseRelease(acquire, use, release)),
    "Effect.scoped(acquireRelease)": times(Effect.scoped(Effect.acquireRelease(acquire, release)))
  }
}

export default [suite]
