/**
 * environment: the services of every fiber of every run: virtual time, seeded random numbers, a ledger, no loggers.
 *
 * DESIGN. Two runtimes per process, plain and supervised, whose services ask whichever run is active. So a run costs no
 * services of its own, and starting a fiber adds nothing to it: no operation, no layer.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as HashSet from "effect/HashSet"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import { AsyncLocalStorage } from "node:async_hooks"
import { Handle } from "../internal/handle.ts"
import * as Ledger from "../Ledger.ts"
import {
  type AnyFiber,
  type Instruction,
  Operations,
  plainRuntime,
  supervisedRuntime
} from "./runtime.ts"

/** The part of a run that the services use. */
export interface Active {
  readonly now: number
  readonly at: (delay: number, fire: () => void) => () => boolean
  /** A number from 0 to 1. */
  readonly random: () => number
  readonly chance: Random.Random
  /** The entries of our own resources. */
  readonly held: Set<Ledger.Entry>
  readonly onOperation: (fiber: AnyFiber, instruction: Instruction) => void
  /** Called as an interrupted fiber is stopped where it became interruptible again. */
  readonly onStop: (fiber: AnyFiber) => void
  /** The ledger of the scopes of this run; `scopes.ts` knows its type. */
  readonly scopes: unknown
  /** Tasks that went to effect's own scheduler. */
  escapes: number
}

/** The run that is executing a task at this moment; everything global asks it. */
let active: Active | undefined

/** The run whose callback the event loop calls: a socket, a timer or a promise of a run may start a fiber of it. */
const around = new AsyncLocalStorage<Active>()

export const activeRun = (): Active | undefined => active

/** The active run; in a native callback, the run that the callback belongs to. */
export const runHere = (): Active | undefined => active ?? around.getStore()

/** Calls `part`; what the event loop calls because of it belongs to this run. */
export const runAround = (run: Active, part: () => void): void => around.run(run, part)

/** Makes a run the active one; returns the one before, to be restored. */
export const activate = (run: Active | undefined): Active | undefined => {
  const outer = active
  active = run
  return outer
}

const inRun = (): Active => {
  const run = runHere()
  if (run === undefined) throw new Error("a service of a controlled run is used outside of it")
  return run
}

const clockScheduler: Clock.ClockScheduler = {
  unsafeSchedule: (task, duration) => {
    const millis = Duration.toMillis(duration)
    return Number.isFinite(millis) ? inRun().at(millis, task) : () => false
  }
}

const millis = () => runHere()?.now ?? 0
const nanos = () => BigInt(Math.round(millis() * 1_000_000))

const clock = {
  [Clock.ClockTypeId]: Clock.ClockTypeId,
  unsafeCurrentTimeMillis: millis,
  unsafeCurrentTimeNanos: nanos,
  currentTimeMillis: Effect.sync(millis),
  currentTimeNanos: Effect.sync(nanos),
  scheduler: () => Effect.succeed(clockScheduler),
  // As many operations as effect's own clock takes.
  // WINDOW: as there, a timer is left, which fires for nobody.
  sleep: (duration: Duration.Duration) =>
    Effect.async<void>((resume) => {
      const cancel = clockScheduler.unsafeSchedule(() => resume(Effect.void), duration)
      return Effect.asVoid(Effect.sync(cancel))
    })
} satisfies Clock.Clock & { readonly scheduler: () => unknown }

const random: Random.Random = {
  [Random.RandomTypeId]: Random.RandomTypeId,
  get next() {
    return inRun().chance.next
  },
  get nextBoolean() {
    return inRun().chance.nextBoolean
  },
  get nextInt() {
    return inRun().chance.nextInt
  },
  nextRange: (min, max) => inRun().chance.nextRange(min, max),
  nextIntBetween: (min, max) => inRun().chance.nextIntBetween(min, max),
  shuffle: (elements) => inRun().chance.shuffle(elements)
}

// It may end in a callback that belongs to no run.
const end = (entry: Ledger.Entry): void => {
  if (entry instanceof Held) entry.run?.held.delete(entry)
}

/** Only what its end is judged by. A class: to copy a whole entry by a spread takes longer than all else that is recorded. */
class Held implements Ledger.Entry {
  readonly kind: string
  readonly name: string
  readonly id = 0
  readonly state = "acquiring"
  readonly since = 0
  readonly owner: ReadonlyArray<string> = []
  readonly fiber = undefined
  readonly span = undefined
  readonly site = undefined
  readonly attributes = {}
  readonly blockedBy = []
  readonly requestedAt = 0
  readonly heldAt = undefined
  readonly releasingAt = undefined
  readonly endedAt = undefined
  readonly cause = undefined
  readonly run = runHere()

  constructor(kind: string, name: string) {
    this.kind = kind
    this.name = name
  }
}

const picture = (): Ledger.Snapshot => ({
  takenAt: millis(),
  total: { acquired: 0, released: 0, failed: 0, abandoned: 0 },
  kinds: {},
  live: [...inRun().held],
  ended: [],
  deadlocks: []
})

/** Cheaper than a real ledger, because only the holders at the end matter. */
class HoldersOnly extends Handle implements Ledger.Service {
  readonly [Ledger.TypeId]: typeof Ledger.TypeId = Ledger.TypeId
  readonly sites = "off"
  readonly snapshot = Effect.sync(picture)
  readonly unsafeSnapshot = picture
  readonly assertEmpty = Effect.void
  readonly unsafeGaveUp = end
  readonly unsafeReleased = end
  readonly unsafeAbandoned = end
  readonly unsafeAcquiring = (kind: string, name: string) => new Held(kind, name)
  readonly unsafeHeld = (entry: Ledger.Entry): void => {
    if (entry instanceof Held) entry.run?.held.add(entry)
  }
  readonly unsafeReleasing = (): void => {}
  readonly unsafeOverdue = () => []
  readonly unsafeListen = () => () => {}
  readonly leaks = () => Effect.succeed([])

  toJSON(): unknown {
    return { _id: "holdfast/Ledger", held: runHere()?.held.size }
  }
}

const ledger: Ledger.Service = new HoldersOnly()

const services = DefaultServices.liveServices.pipe(
  Context.add(Clock.Clock, clock),
  Context.add(Random.Random, random)
)

const equip = (runtime: Runtime.Runtime<never>): Runtime.Runtime<never> =>
  runtime.pipe(
    Runtime.setFiberRef(DefaultServices.currentServices, services),
    // A thousand runs would log a thousand times.
    Runtime.setFiberRef(FiberRef.currentLoggers, HashSet.empty()),
    Runtime.updateContext((context: Context.Context<never>): Context.Context<never> =>
      Context.add(context, Ledger.Ledger, ledger)
    )
  )

export const runtime = equip(plainRuntime)
export const tracedRuntime = Runtime.setFiberRef(
  equip(supervisedRuntime),
  FiberRef.currentSupervisor,
  new Operations((fiber, instruction) => runHere()?.onOperation(fiber, instruction))
)
