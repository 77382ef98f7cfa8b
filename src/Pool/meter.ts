/** meter: a pool's metrics, under the names of OpenTelemetry's semantic conventions. */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"
import type { Meter } from "./state.ts"

const boundaries = MetricBoundaries.exponential({ start: 0.001, factor: 2, count: 16 })

export const makeMeter = (prefix: string, pool: string): Meter => {
  const labels = [MetricLabel.make("pool.name", pool)]
  const gauge = (name: string, state?: string) => {
    const metric = Metric.gauge(`${prefix}.${name}`)
    const all = state === undefined ? labels : [...labels, MetricLabel.make("state", state)]
    return (value: number) => metric.unsafeUpdate(value, all)
  }
  const counter = (name: string) => {
    const metric = Metric.counter(`${prefix}.${name}`, { incremental: true })
    return () => metric.unsafeUpdate(1, labels)
  }
  const timer = (name: string) => {
    const metric = Metric.histogram(`${prefix}.${name}`, boundaries)
    return (millis: number) => metric.unsafeUpdate(millis / 1000, labels)
  }
  const idle = gauge("count", "idle")
  const used = gauge("count", "used")
  const max = gauge("max")
  const idleMin = gauge("idle.min")
  const pending = gauge("pending_requests")
  const destroyed = Metric.counter(`${prefix}.destroyed`, { incremental: true })
  const createTime = timer("create_time")
  const created = counter("created")
  return {
    sample: (stats) => {
      idle(stats.idle)
      used(stats.used)
      max(stats.max)
      idleMin(stats.minIdle)
      pending(stats.pending)
    },
    waited: timer("wait_time"),
    used: timer("use_time"),
    created: (millis) => {
      createTime(millis)
      created()
    },
    destroyed: (reason) =>
      destroyed.unsafeUpdate(1, [...labels, MetricLabel.make("reason", reason)]),
    createFailed: counter("create_failures"),
    timedOut: counter("timeouts"),
    cancelled: counter("cancelled_waits"),
    leaked: counter("leaks")
  }
}
