/** The cost per item of a parallel loop: ours, Effect's own, and plain async workers as the floor. */
import { Effect } from "effect"
import { Parallel } from "holdfast"
import type { Suite } from "./run.ts"

const operations = 100_000
const items = Array.from({ length: operations }, (_, index) => index)
const options = { concurrency: 16, discard: true } as const

const workers = async (work: (item: number) => Promise<void>): Promise<void> => {
  let next = 0
  const worker = async () => {
    while (next < items.length) await work(items[next++]!)
  }
  await Promise.all(Array.from({ length: options.concurrency }, worker))
}

const suiteOf = (
  title: string,
  effect: (item: number) => Effect.Effect<void>,
  promise: (item: number) => Promise<void>
): Suite => ({
  title,
  operations,
  contenders: {
    "Parallel.forEach": () => Effect.runPromise(Parallel.forEach(items, effect, options)),
    "Effect.forEach": () => Effect.runPromise(Effect.forEach(items, effect, options)),
    "plain async workers": () => workers(promise)
  }
})

export default [
  suiteOf("100,000 items, 16 at once, nothing to do", () => Effect.void, async () => {}),
  suiteOf(
    "100,000 items, 16 at once, each yields once",
    () => Effect.yieldNow(),
    () => new Promise((resolve) => setImmediate(resolve))
  )
]
