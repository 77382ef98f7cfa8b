/** close: the making of a pool's state and its end. */
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import type * as Scope from "effect/Scope"
import * as Condition from "../internal/condition.ts"
import { exitWithin } from "../internal/deadline.ts"
import * as Interrupt from "../internal/interrupt.ts"
import type { Rules } from "../internal/options.ts"
import * as Timers from "../internal/timers.ts"
import { PoolClosed, PoolClosedByHolder, PoolLeak, refusal } from "./errors.ts"
import { destroyIdle, refuseHead } from "./lend.ts"
import { makeMeter } from "./meter.ts"
import * as Options from "./options.ts"
import * as State from "./state.ts"

/** The state of a pool, which closes with the scope. To be run in a masked region. */
export const makeState = <A, E, R2, R3>(
  where: string,
  rules: Rules,
  settings: Options.Settings<A, R2, R3>,
  limits: Readonly<Record<string, number | undefined>>,
  quota: State.Quota | undefined
): Effect.Effect<State.State<A, E>, never, R2 | R3 | Scope.Scope> =>
  Effect.withFiberRuntime<State.State<A, E>, never, R2 | R3>((maker) =>
    Effect.flatMap(Effect.runtime<R2 | R3>(), (runtime) => {
      const options = Options.resolve(where, rules, settings, limits, runtime.context)
      const { idleTimeout, leakAfter, maxLifetime, name, validate } = options
      const { metrics = false } = settings
      const meter = metrics === false ? undefined : makeMeter(metrics, name)
      // MASK: a fiber of the pool is cut only where it says so itself, never before its first step.
      const masked = Runtime.disableRuntimeFlag(runtime, RuntimeFlags.Interruption)
      return Effect.map(Effect.clock, (clock): State.State<A, E> => ({
        options,
        quota: options.maxTotal === Infinity ? undefined : quota,
        meter,
        clock,
        isTimed: validate !== undefined || meter !== undefined || options.maxTotal !== Infinity
          || Math.min(leakAfter, maxLifetime, idleTimeout) !== Infinity,
        // Never in the step that forks: that step settles the state first.
        fork: (effect) => Runtime.runFork(masked, effect, { immediate: false }),
        maker,
        timers: Timers.make(clock),
        changes: Condition.make(),
        ended: undefined,
        partitions: new Set(),
        waiters: new Map(),
        totals: {
          created: 0,
          destroyed: 0,
          createFailures: 0,
          timeouts: 0,
          cancelledWaits: 0,
          leaks: 0
        },
        size: 0,
        closing: 0,
        isClosed: false,
        lastId: 0,
        timer: undefined,
        wakeAt: Infinity
      }))
    })
  ).pipe(Effect.tap((pool) => Effect.addFinalizer(() => close(pool))))

const beginClosing = <A, E>(pool: State.State<A, E>): void => {
  if (pool.isClosed) return
  // INVARIANT Pool-6: from this step on nothing is lent.
  pool.isClosed = true
  if (pool.timer !== undefined) Timers.stop(pool.timer)
  for (const partition of pool.partitions) {
    partition.backoff?.unsafeInterruptAsFork(FiberId.none)
    while (partition.queue.head !== undefined) {
      refuseHead(partition, refusal(new PoolClosed({ pool: partition.name })))
    }
    for (const { fiber } of partition.opening) {
      if (fiber !== undefined) Interrupt.atWait(fiber, FiberId.none)
    }
    destroyIdle(partition, "shutdown")
  }
  pool.fork(
    Effect.map(Effect.exit(shutDown(pool)), (exit) => {
      pool.ended = exit
      State.notify(pool)
    })
  )
  State.notify(pool)
}

const shutDown = <A, E>(pool: State.State<A, E>): Effect.Effect<void> => {
  const { interruptHolders, name, shutdownTimeout } = pool.options
  const drained = exitWithin(Condition.wait(pool.changes, () => pool.size === 0), shutdownTimeout)
  const leaked = Effect.dieSync(() => {
    const [holders, stats] = [State.unsafeHolders(pool), State.unsafeTotalStats(pool)]
    return new PoolLeak({ pool: name, holders, stats })
  })
  return Effect.flatMap(drained, (inTime) => {
    if (Option.isSome(inTime)) return Effect.void
    const holders = State.unsafeHolders(pool).map(State.describeHolder).join("; ")
    State.warn(pool, `Pool "${name}": still held at shutdown by ${holders}`)
    if (!interruptHolders) return leaked
    for (const { holder } of State.lentItems(pool)) {
      if (holder !== undefined) Interrupt.atWait(holder, FiberId.none)
    }
    return Effect.flatMap(drained, (late) => Option.isSome(late) ? Effect.void : leaked)
  })
}

/** Begins closing, once, and waits for its end. */
export const close = <A, E>(pool: State.State<A, E>): Effect.Effect<void> =>
  Effect.withFiberRuntime((fiber) => {
    beginClosing(pool)
    const own = State.lentItems(pool).find(({ holder }) => holder === fiber)
    return own === undefined
      ? Effect.zipRight(
        Condition.wait(pool.changes, () => pool.ended !== undefined),
        Effect.suspend(() => pool.ended ?? Effect.void)
      )
      : Effect.die(new PoolClosedByHolder({ pool: pool.options.name, holder: State.holderOf(own) }))
  })

export const awaitQuiet = <A, E>(pool: State.State<A, E>): Effect.Effect<void> =>
  Condition.wait(pool.changes, () => State.isQuiet(pool))
