import { expect, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Options from "../../src/internal/options.ts"

const rules = {
  max: Options.integer(1),
  jitter: Options.number(0, 1),
  maxLifetime: Options.positiveDuration,
  idleTimeout: Options.duration,
  reuse: Options.oneOf("lifo", "fifo"),
  metrics: Options.flag,
  name: Options.text,
  validate: Options.callback,
  source: Options.anything
}
const check = (options: object | undefined) => () => Options.check("Pool.make", options, rules)

it("Options-1: what the rules accept passes, undefined always", () => {
  for (
    const options of [
      undefined,
      {},
      { max: 1, jitter: 0, maxLifetime: "1 minute", idleTimeout: 0 },
      { max: Infinity, jitter: 1, maxLifetime: Infinity, idleTimeout: Duration.infinity },
      { maxLifetime: 5n, idleTimeout: [1, 0] },
      { reuse: "fifo", metrics: false, name: "", validate: () => true, source: Symbol.iterator },
      { max: undefined, maxLifetime: undefined }
    ]
  ) expect(check(options)).not.toThrow()
})

it("Options-1: a refused value is named with what to write", () => {
  const refused: ReadonlyArray<readonly [object, string]> = [
    [
      { max: 0 },
      "Pool.make: `max` must be an integer, 1 or more, or Infinity for no bound; got 0."
    ],
    [{ max: 1.5 }, "`max` must be"],
    [{ max: Number.NaN }, "got NaN"],
    [{ jitter: 1.1 }, "`jitter` must be a number from 0 to 1; got 1.1."],
    [{ jitter: Number.NaN }, "`jitter` must be"],
    [{ maxLifetime: 0 }, "`maxLifetime` must be a duration above 0"],
    [{ maxLifetime: "-5 seconds" }, "got \"-5 seconds\""],
    [{ maxLifetime: "soon" }, "`maxLifetime` must be"],
    [{ idleTimeout: -1 }, "`idleTimeout` must be a duration, 0 or more"],
    [{ idleTimeout: Number.NaN }, "`idleTimeout` must be"],
    [{ idleTimeout: [-1, 0] }, "`idleTimeout` must be"],
    [{ reuse: "random" }, "`reuse` must be one of \"lifo\", \"fifo\"; got \"random\"."],
    [{ metrics: "yes" }, "`metrics` must be one of true, false"],
    [{ validate: 1 }, "`validate` must be a function; got 1."],
    [{ maxLifetme: 1 }, "Pool.make has no option `maxLifetme`. Its options: max, jitter"],
    [{ toString: 1 }, "Pool.make has no option `toString`"]
  ]
  for (const [options, message] of refused) {
    expect(check(options)).toThrow(RangeError)
    expect(check(options)).toThrow(message)
  }
})
