/**
 * instances: the instances of one `Shared`, from the first user to the end of the release.
 *
 * DESIGN. A `Group` has the keys, an `Instance` is one acquire with its users. A retired instance is never the present one of its
 * key again. Everything here happens in steps: a function that is no effect never waits. The invariants stand in Shared.ts.
 *
 * COST one fiber per instance; one sleeping fiber for all idle instances of a group (internal/timers.ts).
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { identity } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { withFailure } from "../internal/exit.ts"
import { Handle } from "../internal/handle.ts"
import * as Hold from "../internal/hold.ts"
import * as Interrupt from "../internal/interrupt.ts"
import * as Rules from "../internal/options.ts"
import { type AnyFiber, currentFiber } from "../internal/runtime.ts"
import * as Timers from "../internal/timers.ts"
import * as Ledger from "../Ledger.ts"
import { asManaged, fromScopedAt, type Opened, type Restore } from "../Managed/resource.ts"
import { SharedClosed, SharedClosedByHolder, SharedFull } from "./errors.ts"

/** One user: it waits until the instance is open, then has it. */
export interface User {
  readonly fiber: AnyFiber | undefined
  readonly site: Ledger.Site | undefined
  readonly hold: Hold.Hold | undefined
  wake: (() => void) | undefined
}

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Shared")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * One instance per key. Keys are compared as `Equal` does: data by value, other objects by identity.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedShared<in out K, out A, out E = never>
  extends Pipeable, Inspectable.Inspectable
{
  readonly [TypeId]: {
    readonly _K: Types.Invariant<K>
    readonly _A: Types.Covariant<A>
    readonly _E: Types.Covariant<E>
  }
  readonly name: string
}

/**
 * The options of `makeKeyed`.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedOptions<K, A, E, R> {
  /** Shown by the ledger and in errors. */
  readonly name: string
  /** Runs interruptibly in a fiber and a scope of its own; a `Managed` is used as it is. */
  readonly acquire: (key: K) => Effect.Effect<A, E, R>
  /**
   * How long an instance without users stays open; a function is called once per instance. Default 0: no time;
   * `Duration.infinity`: until the owner's scope closes.
   */
  readonly idleTimeToLive?:
    | Duration.DurationInput
    | ((key: K, value: A) => Duration.DurationInput)
    | undefined
  /** How long the release may take, all that was acquired together. Default 5 seconds; a `Managed` brings its own. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
  /** The most instances at a time, those being opened or released included. Default: no bound. */
  readonly capacity?: number | undefined
}

export const rules: Rules.Rules = {
  name: Rules.text,
  acquire: Rules.anything,
  idleTimeToLive: {
    expected: `${Rules.duration.expected}, or a function that returns one`,
    accepts: (value) => typeof value === "function" || Rules.duration.accepts(value)
  },
  releaseDeadline: Rules.duration
}

export const keyedRules: Rules.Rules = { ...rules, capacity: Rules.integer(1) }

/** One acquire, its value, its users, its release. Written only by this file. */
export class Instance<K, A, E> {
  readonly group: Group<K, A, E>
  readonly key: K
  readonly name: string
  /** All instances of the key whose fiber has not ended, the newest last. */
  readonly line: Array<Instance<K, A, E>>
  readonly fiber: Fiber.RuntimeFiber<void, E>
  readonly users = new Set<User>()
  state: "opening" | "open" | "ending" | "ended" = "opening"
  /** New users get another instance. */
  isRetired = false
  /** What the users get; undefined while it opens. */
  outcome: Exit.Exit<A, E | SharedClosed> | undefined = undefined
  /** A user waits for the release, and gets its failure. */
  isAwaited = false
  entry: Ledger.Entry | undefined = undefined
  holds: Hold.Holds | undefined = undefined
  release: (() => void) | undefined = undefined
  /** In milliseconds. */
  timeToLive = 0
  idleSince = 0
  timer: Timers.Timer | undefined = undefined

  /** It opens after the instances in `after` have ended. */
  constructor(
    group: Group<K, A, E>,
    key: K,
    line: Array<Instance<K, A, E>>,
    after: ReadonlyArray<Instance<K, A, E>>,
    site: Ledger.Site | undefined
  ) {
    this.group = group
    this.key = key
    this.name = group.nameOf(key)
    this.line = line
    line.push(this)
    group.live.add(this)
    this.fiber = group.fork(this.life(after, site))
    this.fiber.addObserver((exit) => this.ended(exit))
  }

  /** Interruptible up to the acquire, whatever the flags of the fiber that called `make`. */
  life(
    after: ReadonlyArray<Instance<K, A, E>>,
    site: Ledger.Site | undefined
  ): Effect.Effect<void, E> {
    const onEntry = (entry: Ledger.Entry): void => {
      this.entry = entry
    }
    return Effect.interruptible(
      // MASK: from the acquire to the release nothing interrupts this fiber; the wait before is restored, and what the acquire
      // itself restores.
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(awaitAll(after)), () =>
          Effect.flatMap(
            this.group.open(this, restore, site, onEntry),
            ({ close, value }) => Effect.onExit(this.opened(value), (exit) => close(exit))
          ))
      )
    )
  }

  /** Waits for `end`, which starts the release. */
  opened(value: A): Effect.Effect<void> {
    return Effect.async((resume) => {
      this.timeToLive = this.group.timeToLive(this.key, value)
      this.state = "open"
      this.release = () => resume(Effect.void)
      this.decide(Exit.succeed(value))
      this.settle()
    })
  }

  decide(outcome: Exit.Exit<A, E | SharedClosed>): void {
    if (this.outcome !== undefined) return
    this.outcome = outcome
    for (const { hold, wake } of this.users) {
      if (Exit.isSuccess(outcome)) hold?.granted()
      else hold?.left(outcome.cause)
      wake?.()
    }
  }

  ended(exit: Exit.Exit<void, E>): void {
    const { group, key, line, state } = this
    this.isRetired = true
    this.state = "ended"
    group.live.delete(this)
    group.ending.delete(this)
    line.splice(line.indexOf(this), 1)
    if (line.length === 0) MutableHashMap.remove(group.lines, key)
    if (Exit.isSuccess(exit)) return
    const isHeard = state === "opening"
      ? this.users.size > 0 && this.outcome === undefined
      : this.isAwaited
    if (!isHeard) group.report(exit.cause)
    if (state === "opening") this.decide(Exit.failCause(exit.cause))
  }

  enter(user: User): void {
    if (this.users.size === 0) this.group.idle.delete(this)
    this.users.add(user)
  }

  leave(user: User): void {
    this.users.delete(user)
    this.settle()
  }

  /** Ends the instance, or makes it idle, if it has no users. */
  settle(): void {
    if (this.users.size > 0) return
    if (this.state === "opening" || this.isRetired || this.timeToLive <= 0) this.end()
    else this.becomeIdle()
  }

  /** Interrupts the acquire, or begins the release. */
  end(): void {
    if (this.state !== "opening" && this.state !== "open") return
    this.isRetired = true
    this.group.ending.add(this)
    if (this.state === "opening") return Interrupt.atWait(this.fiber, FiberId.none)
    this.state = "ending"
    this.group.idle.delete(this)
    if (this.timer !== undefined) Timers.stop(this.timer)
    this.release?.()
  }

  becomeIdle(): void {
    const { capacity, idle, timers } = this.group
    if (capacity !== Infinity) {
      idle.delete(this)
      idle.add(this)
    }
    if (this.timeToLive === Infinity) return
    this.idleSince = Timers.nowOf(timers)
    // One timer for many uses: it looks at `idleSince` when it is due.
    if (this.timer === undefined) this.startTimer(this.timeToLive)
  }

  startTimer(millis: number): void {
    const { timers } = this.group
    this.timer = Timers.start(timers, millis, this.fiber, () => {
      this.timer = undefined
      if (this.users.size > 0) return
      const rest = this.idleSince + this.timeToLive - Timers.nowOf(timers)
      if (rest > 0) this.startTimer(rest)
      else this.end()
    })
  }
}

const awaitAll = (
  instances: ReadonlyArray<{ readonly fiber: Fiber.Fiber<unknown, unknown> }>
): Effect.Effect<void> =>
  Effect.forEach(instances, ({ fiber }) => Fiber.await(fiber), { discard: true })

/** The largest number of failed releases that the close reports. */
const maxFailures = 16

/** All instances of one `make`, and the handle of its users. Written only by this file. */
export class Group<K, A, E> extends Handle implements KeyedShared<K, A, E> {
  readonly [TypeId] = { _K: identity<K>, _A: identity<never>, _E: identity<never> }
  readonly name: string
  readonly capacity: number
  readonly options: KeyedOptions<K, A, E, Scope.Scope>
  readonly nameOf: (key: K) => string
  readonly runtime: Runtime.Runtime<never>
  readonly timers: Timers.Timers
  /** The instances of a key, while there are any. */
  readonly lines = MutableHashMap.empty<K, Array<Instance<K, A, E>>>()
  isClosed = false
  /** The instances whose fiber has not ended. */
  readonly live = new Set<Instance<K, A, E>>()
  /** Of those, the ones that are interrupted while opening, or being released. */
  readonly ending = new Set<Instance<K, A, E>>()
  /** Of those, the ones without users, the longest idle first. Only if there is a `capacity`. */
  readonly idle = new Set<Instance<K, A, E>>()
  /** Of releases that no user waited for. */
  readonly failures: Array<Cause.Cause<never>> = []

  constructor(
    options: KeyedOptions<K, A, E, Scope.Scope>,
    nameOf: (key: K) => string,
    runtime: Runtime.Runtime<never>,
    clock: Clock.Clock
  ) {
    super()
    this.name = options.name
    this.capacity = options.capacity ?? Infinity
    this.options = options
    this.nameOf = nameOf
    this.runtime = runtime
    this.timers = Timers.make(clock)
  }

  toJSON() {
    const { isClosed, live, name } = this
    return { _id: "Shared", name, isClosed, instances: live.size }
  }

  /** Starts a fiber that has no parent, after the step that asks for it. */
  fork<B, E2>(effect: Effect.Effect<B, E2>): Fiber.RuntimeFiber<B, E2> {
    return Runtime.runFork(this.runtime, effect, { immediate: false })
  }

  open(
    { key, name }: Instance<K, A, E>,
    restore: Restore,
    site: Ledger.Site | undefined,
    onEntry: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<A>, E> {
    // suspend: an `acquire` that throws is a failed acquire.
    return Effect.suspend(() => {
      const { acquire, releaseDeadline } = this.options
      const resource = acquire(key)
      const known = asManaged(resource)
      if (known !== undefined) {
        return Ledger.withOwner(known.openInMask(restore, site, onEntry), name)
      }
      const settings = { name, kind: "shared", releaseDeadline }
      return fromScopedAt(settings, resource, undefined).openInMask(restore, site, onEntry)
    })
  }

  /** In milliseconds; throws for what is no duration. */
  timeToLive(key: K, value: A): number {
    const { idleTimeToLive = 0 } = this.options
    if (typeof idleTimeToLive !== "function") return Duration.toMillis(idleTimeToLive)
    const given = idleTimeToLive(key, value)
    Rules.check(`Shared "${this.nameOf(key)}"`, { idleTimeToLive: given }, rules)
    return Duration.toMillis(given)
  }

  lineOf(key: K): Array<Instance<K, A, E>> | undefined {
    return Option.getOrUndefined(MutableHashMap.get(this.lines, key))
  }

  /** The instance that a new user of the key gets, if there is one. */
  present(key: K): Instance<K, A, E> | undefined {
    const newest = this.lineOf(key)?.at(-1)
    return newest?.isRetired === false ? newest : undefined
  }

  /** `present`, or a new instance; undefined if there is no room for that. */
  presentOrNew(key: K, site: Ledger.Site | undefined): Instance<K, A, E> | undefined {
    const present = this.present(key)
    if (present !== undefined) return present
    const { capacity, ending, live } = this
    if (live.size - ending.size >= capacity) {
      const [longestIdle] = this.idle
      if (longestIdle === undefined) return undefined
      longestIdle.end()
    }
    const known = this.lineOf(key)
    const line = known ?? []
    if (known === undefined) MutableHashMap.set(this.lines, key, line)
    // At the capacity it opens after all that are ending, otherwise after those of its own key.
    const after = live.size >= capacity
      ? Array.from(ending)
      : line.filter((former) => ending.has(former))
    return new Instance(this, key, line, after, site)
  }

  report(cause: Cause.Cause<unknown>): void {
    const defects = Cause.keepDefects(cause)
    if (Option.isSome(defects) && this.failures.length < maxFailures) {
      this.failures.push(defects.value)
    }
  }

  /** Fails those who wait for an acquire, waits for the users, and fails with the failures of releases. */
  close(): Effect.Effect<void> {
    return Effect.withFiberRuntime((closer) => {
      this.isClosed = true
      const awaited: Array<Instance<K, A, E>> = []
      for (const instance of Array.from(this.live)) {
        const { name: shared, users } = instance
        instance.isRetired = true
        if (instance.state === "opening") {
          instance.decide(Exit.fail(new SharedClosed({ shared })))
          instance.end()
        } else instance.settle()
        const own = Array.from(users).find(({ fiber }) => fiber === closer)
        if (own === undefined) {
          awaited.push(instance)
          continue
        }
        const fiber = FiberId.threadName(closer.id())
        this.report(Cause.die(new SharedClosedByHolder({ shared, fiber, site: own.site?.text })))
      }
      return Effect.flatMap(awaitAll(awaited), () => {
        const [first, ...more] = this.failures
        return first === undefined
          ? Effect.void
          : Effect.failCause(more.reduce(Cause.sequential<never, never>, first))
      })
    })
  }
}

/** Waits until the instance is open. To be called in the step that entered. */
const awaitOpen = <K, A, E>(
  instance: Instance<K, A, E>,
  user: User,
  restore: Restore
): Effect.Effect<A, E | SharedClosed> => {
  const decided = Effect.async<void>((resume) => {
    user.wake = () => resume(Effect.void)
    if (instance.outcome !== undefined) user.wake()
  })
  return Effect.matchCauseEffect(restore(decided), {
    onFailure: (cause) => leave(instance, user, Exit.failCause(cause)),
    onSuccess: () => {
      const outcome = instance.outcome ?? Exit.die(new Error("Shared-2 broken: woken too early"))
      return Exit.isSuccess(outcome) ? outcome : leave(instance, user, outcome)
    }
  })
}

/** Ends a use with `exit`. The last user waits for the release, and gets its failure. */
export const leave = <K, A, E, B, E2>(
  instance: Instance<K, A, E>,
  user: User,
  exit: Exit.Exit<B, E2>
): Effect.Effect<B, E2> => {
  user.hold?.left(Exit.isFailure(exit) ? exit.cause : undefined)
  instance.leave(user)
  if (instance.state !== "ending" || instance.isAwaited) return exit
  instance.isAwaited = true
  return Effect.flatMap(
    Fiber.await(instance.fiber),
    (released) =>
      Exit.isSuccess(released) ? exit : withFailure(exit, Cause.stripFailures(released.cause))
  )
}

/** Enters, waits until the instance is open, and continues with `use`, which must leave. */
export const enterInMask = <K, A, E, B, E2, R2>(
  group: Group<K, A, E>,
  key: K,
  restore: Restore,
  site: Ledger.Site | undefined,
  use: (instance: Instance<K, A, E>, user: User, value: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2 | SharedClosed, R2> => {
  const { capacity, isClosed, name } = group
  if (isClosed) return Effect.fail(new SharedClosed({ shared: group.nameOf(key) }))
  const instance = group.presentOrNew(key, site)
  // With a capacity `makeKeyed` has the error in `E`.
  if (instance === undefined) return Effect.fail(new SharedFull({ shared: name, capacity }) as E)
  const ledger = Ledger.unsafeInForce()
  const hold = ledger && new Hold.Hold(ledger, instance, {
    kind: "shared use",
    name: instance.name,
    amount: 1,
    site,
    inTheWay: () => instance.entry === undefined ? [] : [{ entry: instance.entry }]
  })
  const user: User = { fiber: currentFiber(), site, hold, wake: undefined }
  instance.enter(user)
  const { outcome } = instance
  if (outcome !== undefined && Exit.isSuccess(outcome)) {
    hold?.granted()
    return use(instance, user, outcome.value)
  }
  return Effect.flatMap(awaitOpen(instance, user, restore), (value) => use(instance, user, value))
}
