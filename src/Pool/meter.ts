/** meter: a pool's metrics, in the shape of OpenTelemetry's `db.client.connection.*`. */
import * as MetricLabel from "effect/MetricLabel"
import * as Metrics from "../internal/meter.ts"
import type { Meter } from "./state.ts"

/** `true` is the default prefix. The last part of a prefix is the unit of its counts: `{connection}`, `{item}`. */
export const makeMeter = (metrics: true | string, pool: string): Meter => {
  const prefix = metrics === true ? "holdfast.pool.item" : metrics
  const poolName = metrics === true ? "holdfast.pool.name" : `${prefix}.pool.name`
  const item = prefix.slice(prefix.lastIndexOf(".") + 1)
  const labels = [MetricLabel.make(poolName, pool)]
  const labelled = (key: string, value: string) => [
    ...labels,
    MetricLabel.make(`${prefix}.${key}`, value)
  ]
  const level = (name: string, description: string, unit = item) =>
    Metrics.level(`${prefix}.${name}`, `{${unit}}`, description)
  const counter = (name: string, description: string, unit = item) => {
    const update = Metrics.counter(`${prefix}.${name}`, `{${unit}}`, description)
    return (all: Metrics.Labels = labels) => update(all)
  }
  const seconds = (name: string, description: string) => {
    const update = Metrics.seconds(`${prefix}.${name}`, description)
    return (millis: number) => update(millis, labels)
  }
  const count = level("count", `The number of ${item}s in the state of the state attribute.`)
  const [idle, used] = [labelled("state", "idle"), labelled("state", "used")]
  const max = level("max", `The maximum number of open ${item}s.`)
  const idleMin = level("idle.min", `The minimum number of idle ${item}s.`)
  const pending = level("pending_requests", `The number of waits for one ${item}.`, "request")
  const createTime = seconds("create_time", `The time to create one ${item}.`)
  const created = counter("created", `The number of ${item}s created.`)
  const destroyed = counter("destroyed", `The number of ${item}s destroyed, by reason.`)
  const createFailed = counter("create_failures", "The number of creations that failed.", "failure")
  const timedOut = counter("timeouts", "The number of waits that timed out.", "timeout")
  const cancelled = counter("cancelled_waits", "The number of interrupted waits.", "request")
  const leaked = counter("leaks", `The number of ${item}s held longer than leakDetection.`)
  return {
    sample: (stats) => {
      count(stats.idle, idle)
      count(stats.used, used)
      max(stats.max, labels)
      idleMin(stats.minIdle, labels)
      pending(stats.pending, labels)
    },
    waited: seconds("wait_time", `The time to obtain one ${item}.`),
    used: seconds("use_time", `The time between borrowing one ${item} and returning it.`),
    created: (millis) => {
      createTime(millis)
      created()
    },
    destroyed: (reason) => destroyed(labelled("reason", reason)),
    createFailed,
    timedOut,
    cancelled,
    leaked
  }
}
