/** The cost of three resources in a row: a stack, and Effect's own scopes, whose releases have no deadline. */
import { Duration, Effect, Exit, Scope } from "effect"
import { Ledger, Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"
import type { Suite } from "./run.ts"

const operations = 1_000
/** Not `repeatN`: that yields every round, which is then most of what is measured. */
const repeated = (effect: Effect.Effect<unknown, unknown>): Effect.Effect<void, unknown> =>
  Effect.suspend(() => {
    let left = operations
    return Effect.whileLoop({ while: () => left-- > 0, body: () => effect, step: () => {} })
  })
const times = (effect: Effect.Effect<unknown, unknown>) => () => Effect.runPromise(repeated(effect))

const acquire = Effect.succeed(1)
const release = () => Effect.sync(() => {})
const waiting = () => Effect.yieldNow()
const managed = Managed.make({ name: "m", acquire, release })
const slow = Managed.make({ name: "s", acquire, release: waiting })
const scoped = Effect.acquireRelease(acquire, release)
const unbounded = { releaseDeadline: Duration.infinity }

const thrice = <A, E>(
  enter: (stack: ExitStack.ExitStack) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  ExitStack.use((stack) =>
    Effect.zipRight(Effect.zipRight(enter(stack), enter(stack)), enter(stack))
  )

const inScope = (add: (scope: Scope.CloseableScope) => Effect.Effect<unknown>) =>
  Effect.flatMap(Scope.make(), (scope) =>
    Effect.zipRight(
      Effect.zipRight(Effect.zipRight(add(scope), add(scope)), add(scope)),
      Scope.close(scope, Exit.void)
    ))

const suite: Suite = {
  title: "Three resources, entered and released",
  operations,
  contenders: {
    "ExitStack.enter a Managed": times(thrice((stack) => stack.enter(managed))),
    "ExitStack.enter, ledger on": () =>
      Effect.runPromise(
        Effect.provide(
          repeated(thrice((stack) => stack.enter(managed))),
          Ledger.layer({ sites: "off" })
        )
      ),
    "ExitStack.enter, a release that waits": times(thrice((stack) => stack.enter(slow))),
    "ExitStack.enterAll": times(
      ExitStack.use((stack) => stack.enterAll([managed, managed, managed]))
    ),
    "ExitStack.enter a scoped effect": times(thrice((stack) => stack.enter(scoped))),
    "ExitStack.callback": times(thrice((stack) => stack.callback(release()))),
    "ExitStack.callback, no deadline": times(
      thrice((stack) => stack.callback(release(), unbounded))
    ),
    "Effect.scoped, three Managed": times(
      Effect.scoped(Effect.zipRight(Effect.zipRight(managed, managed), managed))
    ),
    "Effect.scoped, three acquireRelease": times(
      Effect.scoped(Effect.zipRight(Effect.zipRight(scoped, scoped), scoped))
    ),
    "Scope, three addFinalizer": times(inScope((scope) => Scope.addFinalizer(scope, release())))
  }
}

const empty: Suite = {
  title: "Nothing entered",
  operations,
  contenders: {
    "ExitStack.use": times(ExitStack.use(() => Effect.void)),
    "Effect.scoped": times(Effect.scoped(Effect.void)),
    "Effect.acquireUseRelease": times(
      Effect.acquireUseRelease(Effect.void, () => Effect.void, () => Effect.void)
    )
  }
}

export default [suite, empty]
