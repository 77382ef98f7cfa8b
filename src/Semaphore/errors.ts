/** errors: how a wait for permits fails, and the counters that it shows. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"

/**
 * The free permits and the number of waiters. `free` is negative while holders still have what a `resize` took away.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly permits: number
  readonly free: number
  readonly waiting: number
}

/**
 * The permits were not free within `acquireTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export class SemaphoreTimeout extends Data.TaggedError("SemaphoreTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly semaphore: string
  readonly asked: number
  readonly waited: Duration.Duration
  readonly stats: Stats
}> {
  override get message(): string {
    const { free, permits, waiting } = this.stats
    const waited = Duration.format(this.waited)
    return `${this.asked} of ${permits} permits of "${this.semaphore}" were not free within ${waited}: `
      + `${free} free, ${waiting} more waiting. Wait longer, or hold them for less.`
  }
}

/**
 * The semaphore is closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class SemaphoreClosed extends Data.TaggedError("SemaphoreClosed")<{
  readonly semaphore: string
}> {
  override get message(): string {
    return `Semaphore "${this.semaphore}" is closed: nothing more can be taken from it.`
  }
}

/**
 * `cancelWaiters` ended this wait. The semaphore is still open.
 *
 * @category errors
 * @since 0.1.0
 */
export class SemaphoreCancelled extends Data.TaggedError("SemaphoreCancelled")<{
  readonly semaphore: string
}> {
  override get message(): string {
    return `The wait for semaphore "${this.semaphore}" was cancelled. Ask again if it is still wanted.`
  }
}
