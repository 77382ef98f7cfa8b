/**
 * meter: the metrics of all ledgers of the process, because ledgers with a gauge each would overwrite each other's value in the
 * one registry of the process.
 */
import * as GlobalValue from "effect/GlobalValue"
import * as MetricLabel from "effect/MetricLabel"
import * as Metrics from "../internal/meter.ts"

type LiveState = "acquiring" | "held" | "releasing"

export type Meter = ReturnType<typeof makeMeter>

const prefix = "holdfast.resource"

const labelsOf = (kind: string): Metrics.Labels => [MetricLabel.make(`${prefix}.kind`, kind)]

const makeMeter = () => {
  const count = Metrics.level(
    `${prefix}.count`,
    "{resource}",
    "The number of resources in the state described by the state attribute."
  )
  const counts = new Map<string, number>()
  const shift = (kind: string, state: LiveState, by: number): void => {
    const key = `${state} ${kind}`
    const value = (counts.get(key) ?? 0) + by
    counts.set(key, value)
    count(value, [...labelsOf(kind), MetricLabel.make(`${prefix}.state`, state)])
  }
  const duration = (name: string, description: string) => {
    const update = Metrics.seconds(`${prefix}.${name}.duration`, description)
    return (kind: string, millis: number): void => update(millis, labelsOf(kind))
  }
  const counter = (name: string, unit: string, what: string) => {
    const update = Metrics.counter(`${prefix}.${name}`, `{${unit}}`, `The number of ${what}.`)
    return (kind: string): void => update(labelsOf(kind))
  }
  return {
    /** An entry left the state `from` (`undefined`: it is new) for `to` (`undefined`: it has ended). */
    moved: (kind: string, from: LiveState | undefined, to: LiveState | undefined): void => {
      if (from !== undefined) shift(kind, from, -1)
      if (to !== undefined) shift(kind, to, 1)
    },
    acquired: duration("acquire", "The time from the request of a resource until it was held."),
    used: duration("use", "The time between the acquire of a resource and its release."),
    released: duration("release", "The time that the release of a resource took."),
    failed: counter("failures", "failure", "acquires and releases that failed"),
    abandoned: counter("abandoned", "resource", "resources whose release did not end in time"),
    leaked: counter("leaked", "resource", "resources that were held for longer than leakAfter")
  }
}

export const meterOfAll = (): Meter => GlobalValue.globalValue("holdfast/Ledger/meter", makeMeter)
