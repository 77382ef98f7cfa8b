/**
 * runtime: THE place that reads Effect's runtime beyond its public operations. Another version of Effect changes this file.
 *
 * DESIGN. Each fact about the runtime that a module of ours relies on is a function here, so that it is checked in one place. Each
 * has an answer on public operations where the installed version lacks what it reads.
 *
 * INVARIANTS
 * - Runtime-1 A `Frame` runs once, in the step in which the effect above it ends, whatever the exit; it changes neither the exit nor
 *   the flags. Where a check at load finds that it does not, each bracket is a mask, with the same promises.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as FiberStatus from "effect/FiberStatus"
import * as GlobalValue from "effect/GlobalValue"
import * as Option from "effect/Option"
import * as RuntimeFlagsPatch from "effect/RuntimeFlagsPatch"
import type * as Scope from "effect/Scope"

export type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** The fiber that runs right now; undefined outside of any. */
export const currentFiber = (): AnyFiber | undefined =>
  Option.getOrUndefined(Fiber.getCurrentFiber())

/** The context that a fiber with these FiberRefs has. */
export const contextIn = (refs: FiberRefs.FiberRefs): Context.Context<never> =>
  FiberRefs.getOrDefault(refs, FiberRef.currentContext)

/** Forgets the default of a reference, which Effect keeps for the whole process: the next look-up makes another. */
export const forgetDefault = ({ key }: { readonly key: string }): void => {
  GlobalValue.globalValue("effect/Context/defaultValueCache", () => new Map()).delete(key)
}

/**
 * Whether this is one operation that cannot wait, so that it may run where its caller stands. `_op` is the field that the run loop
 * itself reads; an effect without one of these three counts as one that may wait.
 */
export const isInstant = (effect: Effect.Effect<unknown, unknown, unknown>): boolean => {
  const op = "_op" in effect ? effect._op : undefined
  return op === "Success" || op === "Sync" || op === "Failure"
}

/** Effect's own counter of fibers, if this version has one: to make an id only to read its number takes 0.6 µs. */
const counter = GlobalValue.globalValue(
  Symbol.for("effect/Fiber/Id/_fiberCounter"),
  (): { readonly current?: unknown } | undefined => undefined
)

/** A number above the id of every fiber that exists now, and at most that of every later one. */
export const nextFiberId = (): number =>
  typeof counter?.current === "number" ? counter.current : FiberId.unsafeMake().id

/** Whether a scope is closed. A scope that is not Effect's own does not say: false. */
export const isClosed = (scope: Scope.Scope): boolean => {
  const { state } = scope as { readonly state?: { readonly _tag: string } }
  return state?._tag === "Closed"
}

/** The fields of Effect's fiber that are read here. A version that lacks one gets the answer of the public operations. */
interface Inside {
  readonly _stack?: ReadonlyArray<unknown>
  readonly _queue?: ReadonlyArray<{ readonly _tag: string }>
  readonly _asyncBlockingOn?: FiberId.FiberId | null
  readonly pushStack?: (frame: Frame) => void
  readonly getChildren?: () => ReadonlySet<AnyFiber>
  readonly tell?: (message: unknown) => void
}

const insideOf = (fiber: AnyFiber): Inside => fiber as unknown as Inside

const hasMessage = (fiber: AnyFiber, tag: string): boolean =>
  insideOf(fiber)._queue?.some(({ _tag }) => _tag === tag) === true

/** Whether a fiber was interrupted, even if it has not run since. */
export const isInterrupted = (fiber: AnyFiber): boolean =>
  !Cause.isEmptyType(fiber.getFiberRef(FiberRef.interruptedCause)) ||
  hasMessage(fiber, "InterruptSignal")

/** Whether it is to run in a later turn of its scheduler. */
export const isRunnable = (fiber: AnyFiber): boolean => hasMessage(fiber, "Resume")

/** Whether it has not run its first step. */
export const isUnstarted = (fiber: AnyFiber): boolean =>
  insideOf(fiber)._stack?.length === 0 && hasMessage(fiber, "Resume")

/** The fibers that Effect interrupts at the end of this one. */
export const childrenOf = (fiber: AnyFiber): ReadonlySet<AnyFiber> =>
  insideOf(fiber).getChildren?.() ?? new Set()

/** The fibers whose end this one waits for, as far as it says so. */
export const waitsFor = (fiber: AnyFiber): FiberId.FiberId =>
  insideOf(fiber)._asyncBlockingOn ?? FiberId.none

/**
 * Calls `answer` in a step of the fiber, with whether it is suspended there, so that an interrupt now would cut a wait and no
 * computation. False, and no call, if this version of Effect cannot tell.
 */
export const askIfWaiting = (
  fiber: AnyFiber,
  answer: (isWaiting: boolean) => void
): boolean => {
  const { tell } = insideOf(fiber)
  if (tell === undefined) return false
  const onFiber = (_: unknown, status: FiberStatus.FiberStatus) =>
    answer(!FiberStatus.isRunning(status) && !hasMessage(fiber, "Resume"))
  tell.call(fiber, { _tag: "Stateful", onFiber })
  return true
}

/**
 * Calls `run` in the step in which the effect above it on the stack of a fiber has ended, whatever its exit. In the shape of the
 * frame that changes runtime flags back: the run loop reads its `patch`, once, when it takes the frame off. This patch changes none.
 */
export class Frame {
  readonly _op = "RevertFlags"
  readonly run: () => void

  constructor(run: () => void) {
    this.run = run
  }

  get patch(): RuntimeFlagsPatch.RuntimeFlagsPatch {
    this.run()
    return RuntimeFlagsPatch.empty
  }
}

/** Puts a frame on the stack of the fiber that runs. To be called in the step that returns the effect above it, if `frames.areSound`. */
export const pushFrame = (fiber: AnyFiber, frame: Frame): void => insideOf(fiber).pushStack!(frame)

/** Whether a frame runs once and leaves the exit as it is: on success, failure and interruption. */
const checkFrames = (): boolean => {
  let runs = 0
  const exitOf = (body: (fiber: AnyFiber) => Effect.Effect<unknown>) =>
    Effect.runSyncExit(Effect.withFiberRuntime((fiber) => {
      pushFrame(fiber, new Frame(() => void runs++))
      return body(fiber)
    }))
  const isSame = (exit: Exit.Exit<unknown>) => Equal.equals(exitOf(() => exit), exit)
  const interrupted = exitOf((fiber) => {
    fiber.unsafeInterruptAsFork(FiberId.none)
    return Effect.void
  })
  return isSame(Exit.succeed(1)) && isSame(Exit.die(1)) && Exit.isInterrupted(interrupted)
    && runs === 3
}

/** Whether this version of Effect runs frames of ours as it runs its own. If not, each bracket is a mask. Tests clear it. */
export const frames = { areSound: /* @__PURE__ */ checkFrames() }
