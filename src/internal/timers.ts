/**
 * timers: many deadlines of one owner, and one fiber that sleeps until the next of them.
 *
 * DESIGN. A heap of timers, each of which knows its index, so that a stopped timer leaves the heap at once. The fiber sleeps on the
 * `Clock` of those who wait, so `TestClock` and the explorer drive it. It exists only while the heap has a timer: a sleeping fiber
 * would keep the process alive. A clock that fires early, or that cannot sleep for so long, is slept on again. An owner whose
 * callers use different clocks has one `Timers` for each (`on`).
 *
 * INVARIANTS
 * - Timers-1 A timer runs once, in one step, at its deadline or later, and never after `stop`; earlier deadlines run first.
 * - Timers-2 One fiber for all timers of an owner, none when there is no timer; an interrupt of it by another fiber ends no timer.
 *
 * COST start and stop O(log n). The first timer forks; a timer that is due before all others forks anew.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import type { AnyFiber } from "./runtime.ts"

/** One deadline. Written only by this file. */
export interface Timer {
  readonly timers: Timers
  readonly at: number
  readonly run: () => void
  /** In the heap; -1 outside. */
  index: number
}

/** Written only by this file. */
export interface Timers {
  readonly clock: Clock.Clock
  readonly heap: Array<Timer>
  fiber: AnyFiber | undefined
  /** The fiber wakes then or earlier; `-Infinity` while it runs timers. */
  wakeAt: number
  /** The number of fibers so far. A fiber that was replaced may still run its last step. */
  epoch: number
}

export const make = (clock: Clock.Clock): Timers => ({
  clock,
  heap: [],
  fiber: undefined,
  wakeAt: Infinity,
  epoch: 0
})

/** `timers` if they run on this clock or have nothing to do on theirs; else, and at first, new ones. */
export const on = (timers: Timers | undefined, clock: Clock.Clock): Timers =>
  timers !== undefined && timers.clock === clock ? timers : make(clock)

/** Milliseconds that only go forward, whatever becomes of the wall clock. */
export const nowOf = ({ clock }: Timers): number => Number(clock.unsafeCurrentTimeNanos()) / 1e6

/** Milliseconds, below the longest sleep that a platform timer accepts. */
const longestSleep = 2 ** 30

const place = (heap: Array<Timer>, timer: Timer, index: number): void => {
  heap[index] = timer
  timer.index = index
}

const rise = (heap: Array<Timer>, timer: Timer, from: number): void => {
  let index = from
  while (index > 0) {
    const parent = heap[(index - 1) >> 1]!
    if (parent.at <= timer.at) break
    place(heap, parent, index)
    index = (index - 1) >> 1
  }
  place(heap, timer, index)
}

const sink = (heap: Array<Timer>, timer: Timer, from: number): void => {
  let index = from
  for (let child = 2 * index + 1; child < heap.length; child = 2 * index + 1) {
    const right = heap[child + 1]
    if (right !== undefined && right.at < heap[child]!.at) child++
    if (timer.at <= heap[child]!.at) break
    place(heap, heap[child]!, index)
    index = child
  }
  place(heap, timer, index)
}

const remove = (heap: Array<Timer>, timer: Timer): void => {
  const { index } = timer
  timer.index = -1
  const last = heap.pop()!
  if (last === timer) return
  const parent = heap[(index - 1) >> 1]
  if (index > 0 && parent!.at > last.at) rise(heap, last, index)
  else sink(heap, last, index)
}

const sleepers = new WeakSet<object>()

/** Whether a fiber only sleeps for others. It ends when they do. */
export const isSleeper = (fiber: object): boolean => sleepers.has(fiber)

/** Runs what is due, and says whether this fiber has more to wait for. */
const runDue = (self: Timers, epoch: number): boolean => {
  if (epoch !== self.epoch) return false
  const { heap } = self
  const now = nowOf(self)
  self.wakeAt = -Infinity
  for (let next = heap[0]; next !== undefined && next.at <= now; next = heap[0]) {
    remove(heap, next)
    next.run()
  }
  self.wakeAt = heap[0]?.at ?? Infinity
  if (heap.length === 0) self.fiber = undefined
  return heap.length > 0
}

const sleep = (self: Timers): Effect.Effect<void> =>
  self.clock.sleep(
    Duration.millis(Math.min(Math.ceil(Math.max(self.wakeAt - nowOf(self), 0)), longestSleep))
  )

/** A new fiber sleeps until the first timer. It runs as the fiber that asks: on its scheduler, under its supervisor. */
const wake = (self: Timers, runtime: Runtime.Runtime<never>): void => {
  const epoch = ++self.epoch
  self.wakeAt = self.heap[0]!.at
  self.fiber?.unsafeInterruptAsFork(FiberId.none)
  const fiber = Runtime.runFork(
    runtime,
    Effect.whileLoop({ while: () => runDue(self, epoch), body: () => sleep(self), step: () => {} }),
    { immediate: true }
  )
  if (self.heap.length === 0) return
  self.fiber = fiber
  sleepers.add(fiber)
  // INVARIANT Timers-2: a program may interrupt every fiber that it finds.
  fiber.addObserver(() => {
    if (self.epoch === epoch && self.heap.length > 0) wake(self, runtime)
  })
}

const runtimeOf = (caller: AnyFiber): Runtime.Runtime<never> => {
  const fiberRefs = caller.getFiberRefs()
  return Runtime.make({
    context: Context.empty(),
    // A fiber that has ended is winding down, and so uninterruptible: `stop` would leave the sleep to its end.
    runtimeFlags: RuntimeFlags.disable(
      RuntimeFlags.enable(
        FiberRefs.getOrDefault(fiberRefs, FiberRef.currentRuntimeFlags),
        RuntimeFlags.Interruption
      ),
      RuntimeFlags.WindDown
    ),
    fiberRefs
  })
}

/** Runs `run` after `millis`, in the step of the fiber that slept. It must not throw. `caller` is the fiber that asks. */
export const start = (
  self: Timers,
  millis: number,
  caller: AnyFiber,
  run: () => void
): Timer => {
  const timer: Timer = { timers: self, at: nowOf(self) + millis, run, index: -1 }
  self.heap.push(timer)
  rise(self.heap, timer, self.heap.length - 1)
  if (timer.at < self.wakeAt) wake(self, runtimeOf(caller))
  return timer
}

/** Does nothing for a timer that has run or is stopped. */
export const stop = (timer: Timer): void => {
  if (timer.index === -1) return
  const { timers } = timer
  remove(timers.heap, timer)
  if (timers.heap.length > 0 || timers.wakeAt === -Infinity) return
  timers.wakeAt = Infinity
  timers.fiber?.unsafeInterruptAsFork(FiberId.none)
  timers.fiber = undefined
}
