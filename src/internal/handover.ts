/**
 * handover: gives an owner to something that was just acquired and that a plain call gives back (a permit, a lock, an item).
 *
 * DESIGN. No interrupt may fall between the acquire and its owner. A bracket is one operation where that is possible: the step that
 * acquires also puts a frame on the fiber's stack, which gives back (internal/runtime.ts). Otherwise the acquire is inside a mask.
 * The give-back runs in the step in which its user ended, before anything else of that fiber; it cannot wait, fail or be
 * interrupted.
 *
 * INVARIANTS
 * - Handover-1 (L1, L2) The give-back runs exactly once, in the step in which the user ended, whatever its exit; under a tracker,
 *   in the step in which the last dying fiber of the user ended.
 * - Handover-2 (L7) An acquire for a closed scope is given back at once, and its fiber dies with `OwnerClosed`.
 *
 * COST of the bracket in one operation: about 0.1 µs; of a mask 0.7 µs.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Lent from "./lent.ts"
import * as Runtime from "./runtime.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * The owner is closed, so nothing more is acquired into it. A defect: the program uses an owner after its end.
 *
 * @category errors
 * @since 0.1.0
 */
export class OwnerClosed extends Data.TaggedError("OwnerClosed")<{
  /** The owner that is closed: the name of a stack, or `"scope"`. */
  readonly owner: string
  /** The resource that was asked for. */
  readonly resource: string
}> {
  override get message(): string {
    return `"${this.resource}" was not acquired: its owner "${this.owner}" is closed. `
      + "Acquire it before its owner closes, or in an owner that lives longer."
  }
}

/** Dies with `OwnerClosed`, for a scope. */
export const ownerClosed = (resource: string): Effect.Effect<never> =>
  Effect.die(new OwnerClosed({ owner: "scope", resource }))

/**
 * Whether a bracket in this fiber may be one operation: the step that takes puts the frame that gives back on the stack, so no mask
 * need be entered first. Not under a tracker, where the end may have to wait.
 */
export const isOneStep = (fiber: Runtime.AnyFiber): boolean =>
  Runtime.frames.areSound && Lent.lend("none", fiber) === undefined

/** What is taken, in messages. A getter may make its name. */
export interface Taken {
  /** Where others wait for it. */
  readonly queue: object
  readonly module: string
  readonly name: string
}

/** Runs a user with what was just taken, then `end` with its exit. Under a tracker, its dying users end first. */
export const useThen = <A, E, R, B, E2, R2>(
  user: Effect.Effect<A, E, R>,
  restore: Restore,
  taken: Taken,
  end: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2, R | R2> =>
  Lent.useThen(
    Lent.lend("none", undefined, undefined, taken.queue),
    () => ({ kind: taken.module, name: taken.name }),
    restore(user),
    end
  )

/** Runs a user with what was just taken, and gives it back. */
export const useInMask = <A, E, R>(
  user: Effect.Effect<A, E, R>,
  restore: Restore,
  taken: Taken,
  ending: Runtime.Frame
): Effect.Effect<A, E, R> =>
  useThen(user, restore, taken, (exit) => {
    ending.run()
    return exit
  })

const endAfterUsers = (
  lent: Lent.Lent,
  name: string,
  end: () => Effect.Effect<unknown>
): Effect.Effect<void> =>
  // MASK: a scope may be closed by hand where that can be interrupted; it waits for the dying users, for 5 seconds at most.
  Effect.uninterruptible(Effect.suspend(() =>
    Lent.settleThen(
      lent,
      { kind: "resource", name },
      Exit.void,
      (settled) => Effect.zipRight(end(), settled)
    )
  ))

/**
 * Gives what was just taken to a scope, which runs `end` when it closes. A scope that is closed already runs `end` at once: then
 * the taker dies, for what it took has gone back. To be called inside the mask in which the thing was taken. `lent`: since when it
 * is in use; `end` waits for its dying users.
 */
export const ownInScope = (
  scope: Scope.Scope,
  resource: string,
  end: (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown>,
  lent?: Lent.Lent
): Effect.Effect<void> => {
  // Set in the step in which `end` begins.
  let hasEnded = false
  return Effect.flatMap(
    Scope.addFinalizerExit(scope, (exit) => {
      hasEnded = true
      return lent === undefined ? end(exit) : endAfterUsers(lent, resource, () => end(exit))
    }),
    () => hasEnded ? ownerClosed(resource) : Effect.void
  )
}
