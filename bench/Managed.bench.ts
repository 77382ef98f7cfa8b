/** What a bracket costs: ours with a bounded release and without, and Effect's own two, whose release nothing bounds. */
import { Duration, Effect } from "effect"
import { Ledger, Managed } from "holdfast"
import type { Suite } from "./run.ts"

const operations = 1_000
/** Not `repeatN`: that yields every round, which is then most of what is measured. */
const repeated = (effect: Effect.Effect<unknown>): Effect.Effect<void> =>
  Effect.suspend(() => {
    let left = operations
    return Effect.whileLoop({ while: () => left-- > 0, body: () => effect, step: () => {} })
  })
const times = (effect: Effect.Effect<unknown>) => () => Effect.runPromise(repeated(effect))

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
        Effect.provide(repeated(Managed.use(bounded, use)), Ledger.layer())
      ),
    "Managed.use, no release deadline": times(Managed.use(unbounded, use)),
    "Managed in a scope": times(Effect.scoped(bounded)),
    "Effect.acquireUseRelease": times(Effect.acquireUseRelease(acquire, use, release)),
    "Effect.scoped(acquireRelease)": times(Effect.scoped(Effect.acquireRelease(acquire, release)))
  }
}

export default [suite]
