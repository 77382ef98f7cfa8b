/**
 * A small hand-off semaphore with one permit, right as it stands, and the ways to break it: each is a bug that somebody
 * shipped. The explorer must find each and nothing in the right one.
 */
import { Effect } from "effect"

export interface Mistakes {
  /** A granted waiter that is interrupted keeps the grant for itself. */
  readonly noPassOn?: boolean
  /** An interrupted waiter stays in line. */
  readonly noCancel?: boolean
  /** Between the grant and the release an interrupt gets in. */
  readonly noMask?: boolean
  /** The release is skipped when the body is interrupted. */
  readonly releaseOnSuccessOnly?: boolean
  /** The count goes down one operation after the check. */
  readonly checkThenAct?: boolean
  /** Whoever finds nothing free stands in line one operation later. */
  readonly standsLate?: boolean
  /** The release counts twice when the body is interrupted. */
  readonly releaseTwice?: boolean
}

interface Waiter {
  granted: boolean
  resume: () => void
}

export interface HandOff {
  readonly withPermit: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly free: () => number
  readonly waiting: () => number
}

export const makeHandOff = (mistakes: Mistakes = {}): HandOff => {
  // Guarded by the single thread.
  let free = 1
  const waiters: Array<Waiter> = []
  const release = () => {
    const next = waiters.shift()
    if (next === undefined) {
      free++
      return
    }
    next.granted = true
    next.resume()
  }
  const wait = () => {
    const waiter: Waiter = { granted: false, resume: () => {} }
    waiters.push(waiter)
    const granted = Effect.async<void>((resume) => {
      waiter.resume = () => resume(Effect.void)
      if (waiter.granted) resume(Effect.void)
    })
    return Effect.onInterrupt(Effect.interruptible(granted), () =>
      Effect.sync(() => {
        if (waiter.granted) {
          if (mistakes.noPassOn !== true) release()
        } else if (mistakes.noCancel !== true) waiters.splice(waiters.indexOf(waiter), 1)
      }))
  }
  const decrement = () => {
    free--
  }
  const take = Effect.suspend(() => {
    if (free === 0) return mistakes.standsLate === true ? Effect.suspend(wait) : wait()
    if (mistakes.checkThenAct === true) return Effect.sync(decrement)
    decrement()
    return Effect.void
  })
  const settle = Effect.sync(release)
  const withPermit: HandOff["withPermit"] = (body) => {
    if (mistakes.noMask === true) return Effect.zipRight(take, Effect.ensuring(body, settle))
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(take, () => {
        const held = restore(body)
        if (mistakes.releaseOnSuccessOnly === true) return Effect.tap(held, settle)
        return mistakes.releaseTwice === true
          ? Effect.ensuring(Effect.onInterrupt(held, () => settle), settle)
          : Effect.ensuring(held, settle)
      })
    )
  }
  return { withPermit, free: () => free, waiting: () => waiters.length }
}
