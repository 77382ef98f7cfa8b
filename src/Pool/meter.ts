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
  const count = level("count", `${item}s by state`)
  const [idle, used] = [labelled("state", "idle"), labelled("state", "used")]
  const max = level("max", `most ${item}s`)
  const idleMin = level("idle.min", `fewest idle ${item}s`)
  const pending = level("pending_requests", "waiters", "request")
  const createTime = seconds("create_time", `opening of a ${item}`)
  const created = counter("created", `${item}s created`)
  const destroyed = counter("destroyed", `${item}s destroyed by reason`)
  const createFailed = counter("create_failures", "create failures", "failure")
  const timedOut = counter("timeouts", "timeouts", "timeout")
  const cancelled = counter("cancelled_waits", "cancelled waits", "request")
  const leaked = counter("leaks", `${item}s leaked`)
  return {
    sample: (stats) => {
      count(stats.idle, idle)
      count(stats.used, used)
      max(stats.max, labels)
      idleMin(stats.minIdle, labels)
      pending(stats.pending, labels)
    },
    waited: seconds("wait_time", `wait for a ${item}`),
    used: seconds("use_time", `use of a ${item}`),
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
