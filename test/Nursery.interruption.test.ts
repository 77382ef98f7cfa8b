/**
 * Interrupts stock operators at each of 96 op offsets round the budget of the run loop, and at each task of the scheduler: raw they
 * hang or leak at some; through a nursery the interrupt arrives only where they wait.
 */
import { expect, it } from "@effect/vitest"
import { Context, Effect, Layer, type Scope, Stream } from "effect"
import { Nursery } from "holdfast"
import { runVirtually } from "./support/virtualTime.ts"

type Run = Effect.Effect<unknown, unknown>

class One extends Context.Tag("One")<One, number>() {}
class Two extends Context.Tag("Two")<Two, number>() {}

const subjects: Record<
  string,
  (resource: Effect.Effect<number, never, Scope.Scope>) => Run
> = {
  all: (one) => Effect.scoped(Effect.all([one, one, one], { concurrency: "unbounded" })),
  forEach: (one) =>
    Effect.scoped(
      Effect.forEach([1, 2, 3], () => Effect.zipRight(one, Effect.sleep(50)), { concurrency: 2 })
    ),
  zip: (one) => Effect.scoped(Effect.zip(one, one, { concurrent: true })),
  race: (one) => Effect.scoped(Effect.race(Effect.zipRight(one, Effect.never), Effect.sleep(5))),
  raceFirst: (one) =>
    Effect.scoped(Effect.raceFirst(Effect.zipRight(one, Effect.never), Effect.sleep(5))),
  "Layer.mergeAll": (one) =>
    Effect.provide(Effect.void, Layer.mergeAll(Layer.scoped(One, one), Layer.scoped(Two, one))),
  "Stream.mapEffect": (one) =>
    Effect.scoped(
      Stream.runDrain(Stream.mapEffect(Stream.make(1, 2, 3), () => one, { concurrency: 2 }))
    ),
  withEarlyRelease: (one) =>
    Effect.scoped(Effect.flatMap(Effect.withEarlyRelease(one), ([release]) => release))
}

const pad = (count: number): Effect.Effect<void> => {
  let left = count
  return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step: () => {} })
}

const offsets = Array.from({ length: 96 }, (_, i) => 1960 + i)
const tasks = [2, 3, 4, 5]

/** The runs that hang, and those that leak. */
const sweep = (
  subject: (resource: Effect.Effect<number, never, Scope.Scope>) => Run,
  nursery: (effect: Run) => Run
) => {
  const counts = { interrupted: 0, hangs: 0, leaks: 0 }
  for (const offset of offsets) {
    for (const task of tasks) {
      let open = 0
      const resource = Effect.acquireRelease(
        Effect.sync(() => ++open),
        () => Effect.sync(() => --open)
      )
      let cut = () => {}
      const fiber = runVirtually(
        (run, scheduler) => {
          // Made once per run: the loop counts down.
          const program = nursery(
            Effect.suspend(() => Effect.zipRight(pad(offset), subject(resource)))
          )
          const fiber = Effect.runFork(run(program), { scheduler, immediate: false })
          cut = () => {
            if (fiber.unsafePoll() !== null) return
            counts.interrupted++
            fiber.unsafeInterruptAsFork(fiber.id())
          }
          return fiber
        },
        1000,
        (number) => {
          if (number === task) cut()
        }
      )
      if (fiber.unsafePoll() === null) counts.hangs++
      else if (open !== 0) counts.leaks++
    }
  }
  return counts
}

for (const [name, subject] of Object.entries(subjects)) {
  it(
    `Nursery-3: ${name}, interrupted through a nursery at any offset, neither hangs nor leaks`,
    () => {
      const raw = sweep(subject, (effect) => effect)
      const held = sweep(subject, (effect) => Nursery.run(effect))
      // oxlint-disable-next-line no-console -- the counts are printed beside
      console.log(
        `${name}: raw ${raw.hangs} hang and ${raw.leaks} leak of ${raw.interrupted}; `
          + `in a nursery ${held.hangs} and ${held.leaks} of ${held.interrupted}`
      )
      expect(held).toEqual({ interrupted: held.interrupted, hangs: 0, leaks: 0 })
      expect(held.interrupted).toBeGreaterThan(96)
    },
    60_000
  )
}
