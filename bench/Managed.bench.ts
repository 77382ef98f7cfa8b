/**
 * The cost of a bracket: ours by the kind of its release and with the ledger on, and Effect's own two, whose release has no
 * deadline and no record.
 */
import { Effect } from "effect"
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
const recorded = (sites: Ledger.Sites, effect: Effect.Effect<unknown>) => () =>
  Effect.runPromise(Effect.provide(repeated(effect), Ledger.layer({ sites })))

const acquire = Effect.succeed(1)
const use = () => Effect.void
const releasing = (release: () => Effect.Effect<unknown>, releaseDeadline?: number) =>
  Managed.make({ name: "r", acquire, release, releaseDeadline })

const done = () => Effect.void
const count = Effect.sync(() => {})
const twoSteps = () => Effect.zipRight(count, count)
const wait = () => Effect.yieldNow()
const plain = releasing(done)
const twoLong = releasing(twoSteps)
const waiting = releasing(wait)

const brackets: Suite = {
  title: "Acquire, use, release",
  operations,
  contenders: {
    "Managed.use": times(Managed.use(plain, use)),
    "Effect.acquireUseRelease": times(Effect.acquireUseRelease(acquire, use, done)),
    "Managed.use, release of two steps": times(Managed.use(twoLong, use)),
    "  two steps, no deadline": times(Managed.use(releasing(twoSteps, Infinity), use)),
    "  acquireUseRelease, two steps": times(Effect.acquireUseRelease(acquire, use, twoSteps)),
    "Managed.use, release that waits": times(Managed.use(waiting, use)),
    "  waits, no deadline": times(Managed.use(releasing(wait, Infinity), use)),
    "  acquireUseRelease, waits": times(Effect.acquireUseRelease(acquire, use, wait)),
    "Managed in a scope": times(Effect.scoped(plain)),
    "  Effect.acquireRelease": times(Effect.scoped(Effect.acquireRelease(acquire, done))),
    "Managed.use, ledger on, no sites": recorded("off", Managed.use(plain, use)),
    // The line is captured where `use` is called, so here it is called anew each time.
    "  first line": recorded("first", Effect.suspend(() => Managed.use(plain, use))),
    "  no sites, called anew": recorded("off", Effect.suspend(() => Managed.use(plain, use)))
  }
}

export default [brackets]
