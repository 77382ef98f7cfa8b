/** Runs a program in virtual time, on a scheduler of its own: thousands of programs a second, and each ends at once. */
import { Clock, Duration, Effect, type Scheduler } from "effect"

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

/** Runs `start` and all that it causes until nothing is left to do, or `most` milliseconds of virtual time have passed. */
export const runVirtually = <A>(
  start: (
    run: <B, E>(effect: Effect.Effect<B, E>) => Effect.Effect<B, E>,
    scheduler: Scheduler.Scheduler
  ) => A,
  most: number,
  /** Called before each task of the scheduler, with its number. */
  onTask: (number: number) => void = () => {}
): A => {
  let now = 0
  let count = 0
  const tasks: Array<() => void> = []
  let sleepers: Array<Sleeper> = []
  const scheduler: Scheduler.Scheduler = {
    scheduleTask: (task) => void tasks.push(task),
    shouldYield: (fiber) => fiber.currentOpCount > 2048 ? 0 : false
  }
  const clock: Clock.Clock = {
    ...Clock.make(),
    unsafeCurrentTimeMillis: () => now,
    unsafeCurrentTimeNanos: () => BigInt(now) * 1_000_000n,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    sleep: (duration) =>
      Effect.async((resume) => {
        const sleeper: Sleeper = {
          at: now + Duration.toMillis(duration),
          wake: () => resume(Effect.void)
        }
        sleepers.push(sleeper)
        return Effect.sync(() => {
          sleepers = sleepers.filter((one) => one !== sleeper)
        })
      })
  }
  const drain = () => {
    for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) {
      onTask(++count)
      task()
    }
  }
  const started = start(
    (effect) => Effect.withScheduler(Effect.withClock(effect, clock), scheduler),
    scheduler
  )
  drain()
  while (sleepers.length > 0) {
    const next = sleepers.reduce((one, other) => other.at < one.at ? other : one)
    if (next.at > most) break
    sleepers = sleepers.filter((one) => one !== next)
    now = next.at
    next.wake()
    drain()
  }
  return started
}
