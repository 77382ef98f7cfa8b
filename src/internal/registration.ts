/**
 * registration: a wait that registers something with its owner (an observer, a timer, a listener), and takes it away when it is
 * interrupted.
 *
 * DESIGN. Stock `Effect.async` calls its function first and installs the canceler that it returns two operations later: an
 * interrupt that comes in between leaves behind what was registered. Here the handler is in place before.
 *
 * INVARIANTS
 * - Registration-1 What was registered is taken away in the step of the interrupt, at whichever operation it comes.
 *
 * COST two operations more than `Effect.async`, before the wait begins.
 */
import * as Effect from "effect/Effect"
import type * as FiberId from "effect/FiberId"

/** Waits until `resume` is called. `register` returns what takes the registration away. */
export const wait = <A, E = never>(
  register: (resume: (effect: Effect.Effect<A, E>) => void) => () => void,
  blockingOn?: FiberId.FiberId
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    let leave: (() => void) | undefined
    const registered = Effect.async<A, E>((resume) => {
      leave = register(resume)
    }, blockingOn)
    return Effect.onInterrupt(registered, () => Effect.sync(() => leave?.()))
  })
