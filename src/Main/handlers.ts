/**
 * handlers: the listeners and timers that a run adds to its process, and takes away.
 */
import type { EventEmitter } from "node:events"

/** setTimeout's limit, 24.8 days: it takes a longer time for 1 ms. */
const longestTimer = 2 ** 31 - 1

export class Handlers {
  readonly #removals: Array<() => void> = []
  readonly #timers: Array<NodeJS.Timeout> = []

  on<Arguments extends ReadonlyArray<never>>(
    emitter: EventEmitter,
    event: string,
    listener: (...args: Arguments) => void
  ): void {
    emitter.on(event, listener)
    this.#removals.push(() => emitter.off(event, listener))
  }

  /** Runs `f` after a time, unless the process has ended by then. */
  after(millis: number, f: () => void): void {
    this.#timers.push(setTimeout(f, Math.min(millis, longestTimer)).unref())
  }

  /** Also gives the timer, which does not keep the process alive unless it is `ref`ed. */
  every(millis: number, f: () => void): NodeJS.Timeout {
    const timer = setInterval(f, Math.min(millis, longestTimer)).unref()
    this.#timers.push(timer)
    return timer
  }

  stopTimers(): void {
    this.#timers.splice(0).forEach(clearTimeout)
  }

  remove(): void {
    this.stopTimers()
    this.#removals.splice(0).forEach((remove) => remove())
  }
}
