/**
 * lent: a resource in use, from its acquire to its release, as a tracker sees it.
 *
 * DESIGN. The small half of tracker.ts, which every bracket loads. A tracker installs itself; until one does, a bracket pays one
 * comparison, and a program that has none does not load it.
 *
 * INVARIANTS those of tracker.ts.
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Supervisor from "effect/Supervisor"
import { withFailure } from "./exit.ts"
import { type AnyFiber, currentFiber, nextFiberId } from "./runtime.ts"

/** A tracker, as far as a bracket needs it. */
export interface Installed {
  /** The queues of the locks and pools that each fiber holds something of, by its id. */
  readonly held: Map<number, Array<object>>
  /** Whether any living fiber was started inside. If not, the release may begin in this step. */
  mayBeInUse(lent: Lent, closer: AnyFiber): boolean
  /** Waits for the dying users: the defect `StillInUse`, or undefined if all have ended by the deadline. */
  settle(
    lent: Lent,
    closer: AnyFiber,
    subject: Subject
  ): Effect.Effect<Cause.Cause<never> | undefined>
}

/** What is lent, from the step in which it was acquired. */
export interface Lent {
  readonly tracker: Installed
  /** The id of the fiber that acquired it. */
  readonly by: number
  /** Fibers that were started later have this id or a higher one. */
  readonly since: number
  /** Whether its end interrupts children (Tracker-4), or each fiber that was started inside. */
  readonly ends: "none" | "children" | "all"
  /** A fiber whose context holds it can reach it. For what is held by a scope, which may belong to a layer. */
  readonly value?: unknown
  /** Where others wait for it. */
  readonly queue?: object | undefined
}

/** What is released, for the message. */
export interface Subject {
  readonly kind: string
  readonly name: string
  readonly deadline?: Duration.Duration | undefined
  /** The line that acquired it. */
  readonly site?: { readonly text: string | undefined } | undefined
}

/** Finds the tracker in a supervisor; undefined until the first one of the process. */
let trackerIn:
  | ((supervisor: Supervisor.Supervisor<any> | undefined) => Installed | undefined)
  | undefined

export const install = (find: typeof trackerIn): void => {
  trackerIn = find
}

/** Undefined without a tracker. To be called in the step that acquired. */
export const lend = (
  ends: Lent["ends"],
  acquirer?: AnyFiber,
  value?: unknown,
  queue?: object
): Lent | undefined => {
  if (trackerIn === undefined) return undefined
  const fiber = acquirer ?? currentFiber()
  const tracker = trackerIn(fiber?.currentSupervisor)
  if (fiber === undefined || tracker === undefined) return undefined
  const by = fiber.id().id
  if (queue !== undefined) {
    const held = tracker.held.get(by)
    if (held === undefined) tracker.held.set(by, [queue])
    else held.push(queue)
  }
  return { tracker, by, since: nextFiberId(), ends, value, queue }
}

/** To be called in the step in which it is given back. */
const giveBack = ({ by, queue, tracker }: Lent): void => {
  const held = tracker.held.get(by)
  if (queue === undefined || held === undefined) return
  if (held.length === 1) tracker.held.delete(by)
  else held.splice(held.lastIndexOf(queue), 1)
}

/**
 * Continues with the exit of the users, in this step if no living fiber was started inside; otherwise once the dying ones have
 * ended (Tracker-1). Must run inside an uninterruptible region.
 */
export const settleThen = <A, E, B, E2, R2>(
  lent: Lent | undefined,
  subject: Subject | (() => Subject),
  exit: Exit.Exit<A, E>,
  then: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R2> => {
  if (lent === undefined) return then(exit)
  const closer = currentFiber()
  if (closer === undefined || !lent.tracker.mayBeInUse(lent, closer)) {
    giveBack(lent)
    return then(exit)
  }
  return Effect.flatMap(
    lent.tracker.settle(lent, closer, typeof subject === "function" ? subject() : subject),
    (late) => {
      giveBack(lent)
      return then(late === undefined ? exit : withFailure(exit, late))
    }
  )
}

/** Runs the users of what was lent, then `end` with their exit, as `settleThen` does. */
export const useThen = <A, E, R, B, E2, R2>(
  lent: Lent | undefined,
  subject: Subject | (() => Subject),
  users: Effect.Effect<A, E, R>,
  end: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R | R2> =>
  Effect.matchCauseEffect(users, {
    onFailure: (cause) => settleThen(lent, subject, Exit.failCause(cause), end),
    onSuccess: (value) => settleThen(lent, subject, Exit.succeed(value), end)
  })
