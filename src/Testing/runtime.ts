/**
 * runtime: everything of effect's runtime that the explorer needs and that is not public API, in one place.
 *
 * DESIGN. Effect 3 gives a scheduler the fiber of each task and asks it before each operation whether to yield; that is
 * public. Not public, and read here only: a fiber's `run`, its stack of continuations, its flags and its children; the
 * prototype that all scopes share; the two instructions of an effect. `selfCheck` proves each fact on the effect in use and
 * fails loudly, before anything is explored, when one does not hold.
 *
 * INVARIANTS
 * - Explore-1 On an effect whose runtime differs from what the explorer relies on, it refuses to run and names the fact.
 *
 * COST the checks run once per process, in about a millisecond. SOURCES effect 3.22.4 `internal/fiberRuntime.ts`.
 */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as GlobalValue from "effect/GlobalValue"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import * as Supervisor from "effect/Supervisor"

/** A fiber of any type. */
export type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** An instruction as the run loop sees it: the name of the operation and the functions it may call. */
export interface Instruction {
  readonly _op: string
  readonly effect_instruction_i0?: unknown
  readonly effect_instruction_i1?: unknown
  readonly effect_instruction_i2?: unknown
  readonly commit?: unknown
}

interface PrivateFiber {
  readonly currentScheduler: Scheduler.Scheduler
  readonly run: () => void
  readonly _stack: ReadonlyArray<Instruction>
  readonly _children: ReadonlySet<AnyFiber> | null
  readonly _queue: ReadonlyArray<{ readonly _tag: string }>
  readonly currentOpCount: number
  readonly currentRuntimeFlags: number
}

const inside = (fiber: AnyFiber): PrivateFiber => fiber as unknown as PrivateFiber

/** The task that continues a fiber; any other task scheduled for it is a wake-up of something else. */
export const runOf = (fiber: AnyFiber): () => void => inside(fiber).run

/** How many operations the fiber has begun since it last started, resumed or yielded. */
export const offsetOf = (fiber: AnyFiber): number => inside(fiber).currentOpCount

export const stackOf = (fiber: AnyFiber): ReadonlyArray<Instruction> => inside(fiber)._stack

/** The scheduler that the fiber asks; `Effect.withScheduler` changes it. */
export const schedulerOf = (fiber: AnyFiber): Scheduler.Scheduler => inside(fiber).currentScheduler

/** The innermost loop or generator that the fiber is in. */
export const loopOf = (fiber: AnyFiber): Instruction | undefined =>
  stackOf(fiber).findLast(({ _op }) => _op === "Iterator" || _op === "While")

export const hasChildren = (fiber: AnyFiber): boolean => (inside(fiber)._children?.size ?? 0) > 0

/**
 * Whether a fiber below this one has had no interrupt. An interrupt goes down to all of them; a fiber that has had one already is
 * not changed by another.
 */
export const hasUninterrupted = (fiber: AnyFiber): boolean => {
  for (const child of inside(fiber)._children ?? []) {
    // One that is still in its mailbox goes down to its children as well.
    if (inside(child)._queue.some(({ _tag }) => _tag === "InterruptSignal")) continue
    const isInterrupted = !Cause.isEmpty(child.getFiberRef(FiberRef.interruptedCause))
    if (!isInterrupted || hasUninterrupted(child)) return true
  }
  return false
}

export const isInterruptible = (fiber: AnyFiber): boolean =>
  (inside(fiber).currentRuntimeFlags & RuntimeFlags.Interruption) !== 0

/** One number for where a fiber stands: equal runs give equal numbers, and most changes of code change it. */
export const standOf = (fiber: AnyFiber): number => {
  const { _stack, currentOpCount, currentRuntimeFlags } = inside(fiber)
  // Only whether it may be interrupted: a supervised run has a flag more and must give the same number.
  return (currentOpCount << 12) ^ (_stack.length << 1) ^
    (currentRuntimeFlags & RuntimeFlags.Interruption)
}

/** Operations that only push their handler and run no code of the program. */
export const pushes: ReadonlySet<string> = new Set([
  "OnSuccess",
  "OnFailure",
  "OnSuccessAndFailure",
  "OnStep"
])

/** What a success goes on with: a function, a generator or a loop; nothing at the end of the fiber. */
const continuationOf = (fiber: AnyFiber): ReadonlyArray<unknown> => {
  const frame = stackOf(fiber).findLast(({ _op }) => _op !== "OnFailure")
  if (frame?._op === "OnSuccess") return [frame.effect_instruction_i1]
  if (frame?._op === "OnSuccessAndFailure") return [frame.effect_instruction_i2]
  return frame?._op === "Iterator" || frame?._op === "While" ? [frame] : []
}

/** What is behind a mask and an asynchronous wait: effect's own code, which calls what the instruction holds. */
const isWrapper = (called: unknown): boolean =>
  typeof called === "function"
  && /^function \(\) \{\s+(const effect = new EffectPrimitive\(OpCodes\.OP_UPDATE|let backingResume)/
    .test(String(called))

/**
 * The functions, generators and loops that an operation calls; code that cannot be told stands as its instruction. `before`: the
 * fiber's last operation.
 */
export const calledBy = (
  fiber: AnyFiber,
  next: Instruction,
  before: Instruction | undefined
): ReadonlyArray<unknown> => {
  const { _op, commit, effect_instruction_i0: i0, effect_instruction_i1: i1 } = next
  if (pushes.has(_op) || _op === "Yield" || _op === "RevertFlags" || _op === "Tag") return []
  switch (_op) {
    case "Success":
    case "Some":
    case "Right":
      return continuationOf(fiber)
    case "Sync":
      return [i0, ...continuationOf(fiber)]
    case "WithRuntime":
    case "Async":
      return [i0]
    case "UpdateRuntimeFlags":
      // A mask calls what its own first step holds.
      if (i1 === undefined) return []
      return before?._op === "Commit" && isWrapper(before.commit)
        ? [before.effect_instruction_i0]
        : [i1]
    case "Commit":
      if (!isWrapper(commit)) return [commit]
      // The first step of a mask only makes the second one; that of a wait registers.
      return String(commit).includes("backingResume") ? [i0] : []
    default:
      return [next]
  }
}

/** Operations that, in a masked region without children, change nothing that an interrupt could see. */
export const silent: ReadonlySet<string> = new Set([...pushes, "Success", "UpdateRuntimeFlags"])

/** Calls `onOperation` before each operation of whatever runs with it as supervisor and with `supervised` flags. */
export class Operations extends Supervisor.AbstractSupervisor<void> {
  readonly onOperation: (fiber: AnyFiber, instruction: Instruction) => void
  constructor(onOperation: (fiber: AnyFiber, instruction: Instruction) => void) {
    super()
    this.onOperation = onOperation
  }
  override get value(): Effect.Effect<void> {
    return Effect.void
  }
  override onEffect<A, E>(
    fiber: Fiber.RuntimeFiber<A, E>,
    effect: Effect.Effect<unknown, unknown, unknown>
  ): void {
    this.onOperation(fiber as AnyFiber, effect as unknown as Instruction)
  }
}

/** Without the process's counts of fibers: a run leaves nothing in them, and saves what they cost. */
export const plainRuntime = Runtime.disableRuntimeFlag(
  Runtime.defaultRuntime,
  RuntimeFlags.RuntimeMetrics
)
export const supervisedRuntime = Runtime.enableRuntimeFlag(plainRuntime, RuntimeFlags.OpSupervision)

/** Effect keeps each fiber without a parent in one set until it ends. */
const rootFibers = (): Set<unknown> =>
  GlobalValue.globalValue(Symbol.for("effect/FiberScope/Global"), () => ({
    roots: new Set<unknown>()
  })).roots

/** Lets the memory of a fiber go that will never end. */
export const forget = (fiber: AnyFiber): void => void rootFibers().delete(fiber)

// Scopes.

type Finalizer = (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<unknown>

/** A scope as its own methods see it. */
export interface PrivateScope {
  readonly strategy: { readonly _tag: string }
  readonly state:
    | { readonly _tag: "Open"; readonly finalizers: Map<object, Finalizer> }
    | { readonly _tag: "Closed"; readonly exit: Exit.Exit<unknown, unknown> }
}

interface ScopeMethods {
  addFinalizer: (this: PrivateScope, finalizer: Finalizer) => Effect.Effect<unknown>
}

const scopePrototype = (): ScopeMethods =>
  Object.getPrototypeOf(Effect.runSync(Scope.make())) as ScopeMethods

/**
 * Sees each registration in each scope, at the very operation that registers, and may replace the finalizer. The number of
 * operations stays what it is without it. Returns how to undo.
 */
export const interceptFinalizers = (
  onRegister: (scope: PrivateScope, finalizer: Finalizer) => Finalizer
): () => void => {
  const prototype = scopePrototype()
  const original = prototype.addFinalizer
  prototype.addFinalizer = function(finalizer) {
    return Effect.suspend(() => {
      const registered = onRegister(this, finalizer)
      if (this.state._tag === "Closed") return registered(this.state.exit)
      this.state.finalizers.set({}, registered)
      return Effect.void
    })
  }
  return () => {
    prototype.addFinalizer = original
  }
}

/** Sees each task that escapes a controlled run to effect's own scheduler. Returns how to undo. */
export const interceptDefaultScheduler = (onTask: () => void): () => void => {
  const scheduler = Scheduler.defaultScheduler as {
    scheduleTask: Scheduler.Scheduler["scheduleTask"]
  }
  const own = Object.getOwnPropertyDescriptor(scheduler, "scheduleTask")
  const original = scheduler.scheduleTask
  scheduler.scheduleTask = function(task, priority, fiber) {
    onTask()
    original.call(scheduler, task, priority, fiber)
  }
  return () => {
    if (own === undefined) Reflect.deleteProperty(scheduler, "scheduleTask")
    else Object.defineProperty(scheduler, "scheduleTask", own)
  }
}

interface FiberMethods {
  getInterruptedCause: (this: AnyFiber) => Cause.Cause<never>
}

const fiberPrototype = (): FiberMethods =>
  Object.getPrototypeOf(Effect.runFork(Effect.void)) as FiberMethods

/** Sees each time an interrupted fiber is stopped, at once, as it becomes interruptible again. Returns how to undo. */
export const interceptInterrupts = (onStop: (fiber: AnyFiber) => void): () => void => {
  const prototype = fiberPrototype()
  const original = prototype.getInterruptedCause
  prototype.getInterruptedCause = function() {
    onStop(this)
    return original.call(this)
  }
  return () => {
    prototype.getInterruptedCause = original
  }
}

// The self-check.

/** The effect in use does not behave as the explorer relies on. */
export class UnknownRuntime extends Data.TaggedError("UnknownRuntime")<{ readonly fact: string }> {
  override get message(): string {
    return `Explore-1: this version of effect is not one the explorer knows: ${this.fact}. `
      + "It was made for effect 3.22; findings on another runtime would mean nothing."
  }
}

interface Asked {
  readonly offset: number
  readonly op: string
}

/** Runs an effect to its end, calling `onAsked` where the scheduler is asked to yield. */
const observed = (
  effect: Effect.Effect<unknown, unknown>,
  onAsked: (fiber: AnyFiber, count: number) => number | false,
  onTask: (fiber: AnyFiber | undefined, task: () => void) => void
): { readonly fiber: AnyFiber; readonly asked: ReadonlyArray<Asked> } => {
  const queue: Array<() => void> = []
  const asked: Array<Asked> = []
  let op = ""
  const engine = Scheduler.makeBatched((run) => queue.push(run), (fiber) => {
    asked.push({ offset: offsetOf(fiber as AnyFiber), op })
    return onAsked(fiber as AnyFiber, asked.length)
  })
  const operations = new Operations((_, instruction) => {
    op = instruction._op
  })
  const fiber = Runtime.runFork(supervisedRuntime)(effect, {
    scheduler: {
      shouldYield: engine.shouldYield,
      scheduleTask: (task, priority, of) => {
        engine.scheduleTask(task, priority, of)
        onTask(of as AnyFiber | undefined, task)
      }
    },
    immediate: false,
    updateRefs: (refs, fiberId) =>
      FiberRefs.updateAs(refs, { fiberId, fiberRef: FiberRef.currentSupervisor, value: operations })
  })
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) next()
  return { fiber: fiber as AnyFiber, asked }
}

const facts: ReadonlyArray<readonly [fact: string, holds: () => boolean]> = [
  ["the scheduler is asked before each operation, with a count from 1", () => {
    const { asked } = observed(
      Effect.flatMap(Effect.sync(() => 1), Effect.succeed),
      () => false,
      () => {}
    )
    return asked.map(({ offset, op }) => `${offset}${op}`).join() === "1OnSuccess,2Sync,3Success"
  }],
  [
    "a fiber that yields is scheduled by its `run`, and an interrupt sent then comes after its resume",
    () => {
      const ran: Array<number> = []
      let yielding = false
      // MASK: the check is that the interrupt waits for the end of this region.
      const body = Effect.zipRight(
        Effect.sync(() => ran.push(1)),
        Effect.uninterruptible(
          Effect.zipRight(Effect.sync(() => ran.push(2)), Effect.sync(() => ran.push(3)))
        )
      )
      const { fiber } = observed(
        Effect.zipRight(body, Effect.sync(() => ran.push(4))),
        (_, count) => {
          yielding = count === 6
          return yielding ? 0 : false
        },
        (of, task) => {
          if (!yielding || of === undefined || task !== runOf(of)) return
          yielding = false
          of.unsafeInterruptAsFork(FiberId.none)
        }
      )
      const exit = fiber.unsafePoll()
      return exit !== null && Exit.isFailure(exit) && Cause.isInterruptedOnly(exit.cause)
        && !ran.includes(4) && (ran.length === 1 || ran.length === 3)
    }
  ],
  [
    "all scopes share one prototype with `addFinalizer`, and keep their finalizers in `state`",
    () => {
      let seen = 0
      let ran = 0
      const undo = interceptFinalizers((_, finalizer) => {
        seen++
        return finalizer
      })
      try {
        const use = Effect.acquireRelease(Effect.void, () => Effect.sync(() => ran++))
        const { asked } = observed(Effect.scoped(use), () => false, () => {})
        undo()
        const plain = observed(Effect.scoped(use), () => false, () => {}).asked
        return seen === 1 && ran === 2 && asked.length === plain.length
      } finally {
        undo()
      }
    }
  ],
  ["an interrupted fiber is stopped wherever it becomes interruptible again", () => {
    let stops = 0
    const undo = interceptInterrupts(() => stops++)
    const itself = Effect.withFiberRuntime<void>((fiber) => {
      fiber.unsafeInterruptAsFork(FiberId.none)
      return Effect.yieldNow()
    })
    const stop = Effect.exit(Effect.interruptible(Effect.void))
    try {
      // MASK: the check is that an interrupt reaches the interruptible regions inside.
      const twice = Effect.uninterruptible(Effect.zipRight(itself, Effect.zipRight(stop, stop)))
      observed(twice, () => false, () => {})
      return stops >= 2
    } finally {
      undo()
    }
  }],
  ["fibers without a parent are in one set until they end", () => {
    const { fiber } = observed(Effect.async(() => {}), () => false, () => {})
    const wasThere = Fiber.unsafeRoots().includes(fiber)
    forget(fiber)
    return wasThere && !Fiber.unsafeRoots().includes(fiber)
  }],
  ["a fiber shows its stack, its flags and its children", () => {
    let held = false
    // MASK: the check is that a fiber shows this region.
    observed(
      Effect.zipRight(Effect.fork(Effect.yieldNow()), Effect.uninterruptible(Effect.sync(() => 1))),
      (fiber) => {
        if (!isInterruptible(fiber) && hasChildren(fiber) && stackOf(fiber).length > 0) held = true
        return false
      },
      () => {}
    )
    return held
  }]
]

// Written once, by the first check.
let checked: UnknownRuntime | "known" | undefined

const check = (): UnknownRuntime | "known" => {
  for (const [fact, holds] of facts) {
    try {
      if (!holds()) return new UnknownRuntime({ fact: `not so: ${fact}` })
    } catch (error) {
      return new UnknownRuntime({ fact: `${fact} (${String(error)})` })
    }
  }
  return "known"
}

/** Throws `UnknownRuntime` unless all facts hold. Checks once per process. */
export const selfCheck = (): void => {
  checked ??= check()
  if (checked !== "known") throw checked
}
