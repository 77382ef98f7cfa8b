/** settings: the texts of options (`"25 seconds"`, `10MiB`) as values, or an error that says what to write; and the defaults. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** Those of `holdfast mirror`. */
export const defaults = {
  concurrency: 16,
  perHost: 6,
  retries: 4,
  maxBytes: undefined,
  databaseUrl: undefined,
  report: undefined,
  ledger: undefined,
  timeout: Duration.seconds(30)
} as const

export class BadOption extends Data.TaggedError("BadOption")<{
  readonly option: string
  readonly value: string
  readonly expected: string
}> {
  override get message(): string {
    return `--${this.option} ${this.value}: expected ${this.expected}.`
  }
}

/** A name of a folder. An empty one would mean the current folder, so it is refused. */
export const folder = (option: string, value: string): Effect.Effect<string, BadOption> =>
  value.trim() === ""
    ? new BadOption({ option, value: `"${value}"`, expected: "a folder" })
    : Effect.succeed(value)

/** A whole number from `least` up. */
export const count = (
  option: string,
  value: number,
  least: number
): Effect.Effect<number, BadOption> =>
  Number.isSafeInteger(value) && value >= least
    ? Effect.succeed(value)
    : new BadOption({ option, value: String(value), expected: `a whole number, ${least} or more` })

const durationExpected = "a duration with its unit, such as \"25 seconds\" or \"500 millis\""

/** `"25 seconds"`, `"500 millis"`. A bare number has no unit: 5 might be seconds or milliseconds. */
export const duration = (
  option: string,
  value: string
): Effect.Effect<Duration.Duration, BadOption> =>
  Option.match(
    value.trim().startsWith("-") ? Option.none() : Duration.decodeUnknown(value.trim()),
    {
      onNone: () => new BadOption({ option, value: `"${value}"`, expected: durationExpected }),
      onSome: (found) => Effect.succeed(found)
    }
  )

const units: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3
}

/** `1048576`, `10MB`, `1.5GiB`. */
export const bytes = (option: string, value: string): Effect.Effect<number, BadOption> => {
  const [, amount, unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(value) ?? []
  const factor = units[unit.toLowerCase()]
  const size = amount === undefined || factor === undefined
    ? 0
    : Math.floor(Number(amount) * factor)
  return Number.isSafeInteger(size) && size > 0
    ? Effect.succeed(size)
    : new BadOption({ option, value, expected: "a size such as 500000, 10MB or 1GiB" })
}
