/** Mutants of Lock/File, found by test/Lock/File.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { of } from "./mutant.ts"

const file = of("Lock/File.ts", "Lock/File.test.ts")

export const mutants = [
  file(
    "the one that came last is woken first",
    "since - other)",
    "other - since)",
    "LockFile-6: the process"
  ),
  file(
    "the name is free only after the connections close",
    "server.close(() => resolve())",
    "setTimeout(() => server.close(() => resolve()), 5)",
    "LockFile-1, LockFile-3"
  ),
  file(
    "an interrupted waiter keeps its socket",
    "return Effect.onInterrupt(visited, () => Effect.sync(() => leave()))",
    "return visited",
    "LockFile-2"
  ),
  file(
    "a stopped holder is taken for dead",
    "Effect.succeed(ended !== \"refused\"))",
    "Effect.succeed(ended === \"line\"))",
    "LockFile-1: a stopped holder"
  ),
  file(
    "the counter may fall below the clock",
    "return now > last ? now : last + 1n",
    "return last + 1n",
    "LockFile-4: with a directory"
  ),
  file(
    "a release does not wait for the clock",
    "release: fences.settle(fence).pipe(",
    "release: Effect.void.pipe(",
    "LockFile-4: without one"
  ),
  file(
    "the claim of another account is believed",
    "  return false\n}\n\nconst abstractNames",
    "  return true\n}\n\nconst abstractNames",
    "LockFile-5: the label"
  ),
  file(
    "the sweep removes what lives",
    "Date.now() - mtimeMs < sweepAfter || (yield* alive(file.replace(/\\.claim$/, \"\")))",
    "Date.now() - mtimeMs < sweepAfter",
    "LockFile-7"
  ),
  file(
    "the sweep removes what is young",
    "Date.now() - mtimeMs < sweepAfter || (yield* alive(file.replace(/\\.claim$/, \"\")))",
    "yield* alive(file.replace(/\\.claim$/, \"\"))",
    "LockFile-7"
  )
]
