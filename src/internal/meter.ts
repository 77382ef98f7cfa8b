/**
 * meter: metrics with the names, units and descriptions of OpenTelemetry's conventions.
 *
 * DESIGN. Effect's metrics have no field for a unit; its OpenTelemetry exporter reads the label `unit` instead.
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"

export type Labels = ReadonlyArray<MetricLabel.MetricLabel>

/** From 1 ms to 17 minutes. */
const boundaries = MetricBoundaries.exponential({ start: 0.001, factor: 2, count: 20 })

const unitOf = (unit: string) => MetricLabel.make("unit", unit)

/** The current number of something. */
export const level = (name: string, unit: string, description: string) => {
  const metric = Metric.gauge(name, { description })
  const label = unitOf(unit)
  return (value: number, labels: Labels): void => metric.unsafeUpdate(value, [...labels, label])
}

/** How often something happened. */
export const counter = (name: string, unit: string, description: string) => {
  const metric = Metric.counter(name, { description, incremental: true })
  const label = unitOf(unit)
  return (labels: Labels): void => metric.unsafeUpdate(1, [...labels, label])
}

/** How long something took: from milliseconds to a histogram in seconds. */
export const seconds = (name: string, description: string) => {
  const metric = Metric.histogram(name, boundaries, description)
  const label = unitOf("s")
  return (millis: number, labels: Labels): void =>
    metric.unsafeUpdate(millis / 1000, [...labels, label])
}
