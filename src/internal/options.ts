/**
 * options: checks the options of a `make` before anything is made.
 *
 * DESIGN. A rule per option: what it accepts and how to say that. `undefined` is always accepted. Effect turns a negative or NaN
 * duration into zero in silence, so durations are checked as they were written.
 *
 * INVARIANTS
 * - Options-1 An option that no rule accepts, or that has no rule, throws a `RangeError` that names the operation, the option,
 *   the value and what to write.
 *
 * COST one look per option, once per `make`.
 */
import * as Duration from "effect/Duration"

export interface Rule {
  /** Completes "must be …". */
  readonly expected: string
  readonly accepts: (value: unknown) => boolean
}

export type Rules = Readonly<Record<string, Rule>>

/** An integer from `least`, or `Infinity` for no bound. */
export const integer = (least: number): Rule => ({
  expected: `an integer, ${least} or more, or Infinity for no bound`,
  accepts: (value) =>
    typeof value === "number" && value >= least && (Number.isInteger(value) || value === Infinity)
})

/** A finite number from `least` to `most`. */
export const number = (least: number, most: number): Rule => ({
  expected: `a number from ${least} to ${most}`,
  accepts: (value) => typeof value === "number" && value >= least && value <= most
})

const millisOf = (value: unknown): number => {
  if (typeof value === "number") return value
  if (typeof value === "bigint") return Number(value)
  if (typeof value === "string" && value.trim().startsWith("-")) return NaN
  if (Array.isArray(value) && value.some((part) => !(part >= 0))) return NaN
  const decoded = Duration.decodeUnknown(value)
  return decoded._tag === "Some" ? Duration.toMillis(decoded.value) : NaN
}

/** A duration, 0 included. */
export const duration: Rule = {
  expected: `a duration, 0 or more, such as "5 seconds", or Infinity for no bound`,
  accepts: (value) => millisOf(value) >= 0
}

/** A duration above 0. */
export const positiveDuration: Rule = {
  expected: `a duration above 0, such as "5 seconds", or Infinity for no bound`,
  accepts: (value) => millisOf(value) > 0
}

export const oneOf = (...values: ReadonlyArray<string | number | boolean>): Rule => ({
  expected: `one of ${values.map((value) => JSON.stringify(value)).join(", ")}`,
  accepts: (value) => values.some((one) => one === value)
})

/** How many at once, as Effect writes it. */
export const concurrency: Rule = {
  expected: `an integer, 1 or more, or "unbounded" or "inherit"`,
  accepts: (value) => value === "unbounded" || value === "inherit" || integer(1).accepts(value)
}

/** Of one wait. */
export const waitRules: Rules = {
  priority: {
    expected: "a number",
    accepts: (value) => typeof value === "number" && !Number.isNaN(value)
  },
  acquireTimeout: duration
}

export const flag: Rule = oneOf(true, false)

const ofType = (type: string, expected: string): Rule => ({
  expected,
  accepts: (value) => typeof value === type
})

export const text: Rule = ofType("string", "a string")

export const callback: Rule = ofType("function", "a function")

/** For what only its own module can check. */
export const anything: Rule = { expected: "", accepts: () => true }

const shown = (value: unknown): string => {
  try {
    return typeof value === "string" ? JSON.stringify(value) : String(value)
  } catch {
    return typeof value
  }
}

/** INVARIANT Options-1. `where` is the operation as users write it: `"Pool.make"`. */
export const check = (where: string, options: object | undefined, rules: Rules): void => {
  for (const [name, value] of Object.entries(options ?? {})) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) {
      throw new RangeError(
        `${where} has no option \`${name}\`. Its options: ${Object.keys(rules).join(", ")}.`
      )
    }
    if (value !== undefined && !rule.accepts(value)) {
      throw new RangeError(`${where}: \`${name}\` must be ${rule.expected}; got ${shown(value)}.`)
    }
  }
}
