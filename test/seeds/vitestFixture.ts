/** Run by Testing/Vitest.slow.test.ts in a vitest of its own: one subject that leaks, one that does not, one that holds nothing
 * the explorer could see, and one that takes longer than its test may. */
import { Effect } from "effect"
import { it } from "holdfast/Testing/Vitest"

// Another program, to make yesterday's token stale.
const before = process.env["HOLDFAST_FIXTURE_CHANGED"] === undefined
  ? Effect.void
  : Effect.yieldNow()

it.interruptSafe("leaks", (probe) =>
  Effect.zipRight(
    before,
    Effect.flatMap(probe.acquire("r"), (handle) =>
      Effect.zipRight(Effect.sleep(1), probe.release(handle)))
  ))

it.interruptSafe("keeps", (probe) => probe.resource("r"))

let inside = 0
it.interruptSafe("counts", () => Effect.sync(() => void inside++))

const uses: ReadonlyArray<number> = [1, 2, 3]
it.interruptSafe("long", {
  uses,
  body: () => Effect.forEach(Array.from({ length: 3_000 }), () => Effect.void, { discard: true })
}, 2_000)
