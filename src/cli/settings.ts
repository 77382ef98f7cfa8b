/** settings: the texts of options (`"25 seconds"`, `10MiB`) as values, or an error that says what to write; and the defaults. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type Refusal, refuse } from "./refusal.ts"

/** Those of `holdfast mirror`. */
export const defaults = {
  concurrency: 16,
  perHost: 6,
  retries: 4,
  maxBytes: undefined,
  databaseUrl: undefined,
  report: undefined,
  ledger: undefined,
  timeout: Duration.seconds(30),
  verify: false
} as const

const bad = (option: string, value: string, expected: string): Refusal =>
  refuse(`--${option} ${value}: expected ${expected}.`)

/** A name of a folder. An empty one would mean the current folder, so it is refused. */
export const folder = (option: string, value: string): Effect.Effect<string, Refusal> =>
  value.trim() === ""
    ? bad(option, `"${value}"`, "a folder")
    : Effect.succeed(value)

/** A whole number from `least` up. */
export const count = (
  option: string,
  value: number,
  least: number
): Effect.Effect<number, Refusal> =>
  Number.isSafeInteger(value) && value >= least
    ? Effect.succeed(value)
    : bad(option, String(value), `a whole number, ${least} or more`)

const durationExpected = "a duration with its unit, such as \"25 seconds\" or \"500 millis\""

/** `"25 seconds"`, `"500 millis"`. A bare number has no unit: 5 might be seconds or milliseconds. */
export const duration = (
  option: string,
  value: string
): Effect.Effect<Duration.Duration, Refusal> =>
  Option.match(
    value.trim().startsWith("-") ? Option.none() : Duration.decodeUnknown(value.trim()),
    {
      onNone: () => bad(option, `"${value}"`, durationExpected),
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
export const bytes = (option: string, value: string): Effect.Effect<number, Refusal> => {
  const [, amount, unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(value) ?? []
  const factor = units[unit.toLowerCase()]
  const size = amount === undefined || factor === undefined
    ? 0
    : Math.floor(Number(amount) * factor)
  return Number.isSafeInteger(size) && size > 0
    ? Effect.succeed(size)
    : bad(option, value, "a size such as 500000, 10MB or 1GiB")
}
