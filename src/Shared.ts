/**
 * Shared: one instance for all its users, counted. And `KeyedShared`: one instance per key.
 *
 * DESIGN. An instance lives in a fiber of its own, which opens it, waits, and releases it; users only count themselves in
 * and out. So no user's interruption reaches the acquire of the others, and there is one place that lets go. What marks an
 * instance (replaced, cut, ending) is on the instance, never on the key: nothing an old one does can touch its successor.
 * A successor waits for the release of whatever was there before it, unless that is still in use after an `invalidate`.
 *
 * INVARIANTS
 * - Shared-1 (L1, L10) All users at one time have the same instance; it is released once, after the last of them has ended.
 * - Shared-2 (L2) An interrupted user interrupts nobody else. The acquire is cut when the last who awaits it has left.
 * - Shared-3 A failed acquire fails everyone who awaits it, and is not remembered: the next user acquires anew.
 * - Shared-4 The last user out starts `idleTimeToLive`; without it, it releases, and waits for that.
 * - Shared-5 After `invalidate` nobody new gets the old instance; its users keep it to their end; the new one is not
 *   touched by the end of the old.
 * - Shared-6 (L7) After the owner's scope began to close: `SharedClosed`, before anything is acquired. Those who awaited an
 *   acquire fail with it too; users keep what they have, and the close waits for them, then releases.
 * - Shared-7 (L4, L5) A release is bounded and recorded by `Managed`. Its failure reaches the user that waited for it, or
 *   else the owner of the scope.
 * - Shared-8 (L9) With a ledger in force, who awaits an acquire is `acquiring` there, blocked by that acquire, and who has the
 *   instance is `held`. An acquire that uses itself is a deadlock there.
 * - KeyedShared-1 A key without users and without an instance leaves nothing behind.
 * - KeyedShared-2 Never more than `capacity` instances, those being opened or released included. A newcomer takes the place
 *   of the instance that was idle longest, or fails with `SharedFull`.
 *
 * COST about 1.2 µs for a use of a living instance; about 60 µs for one that opens and releases it; one parked fiber an
 * instance. `idleTimeToLive` forks a timer once per such time, not per use.
 * NOT DONE refusal of an acquire that uses itself, and of a scope closed from inside a use: both wait for ever.
 * SOURCES effect#8389 (first caller owns the lookup), effect#7516 (old entry's cleanup removes its replacement).
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import { dual } from "effect/Function"
import * as Inspectable from "effect/Inspectable"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import { withFailure } from "./internal/exit.ts"
import * as Handover from "./internal/handover.ts"
import * as Hold from "./internal/hold.ts"
import * as Ledger from "./Ledger.ts"
import * as Managed from "./Managed.ts"

/**
 * The owner's scope has begun to close: nothing is shared any more.
 *
 * @category errors
 * @since 0.1.0
 */
export class SharedClosed extends Data.TaggedError("SharedClosed")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly shared: string
}> {
  override get message(): string {
    return `Shared "${this.shared}" is closed: the scope it was made in has begun to close. `
      + "Make it in a scope that outlives its users."
  }
}

/**
 * Every place is taken by an instance that is in use.
 *
 * @category errors
 * @since 0.1.0
 */
export class SharedFull extends Data.TaggedError("SharedFull")<{
  readonly shared: string
  readonly capacity: number
}> {
  override get message(): string {
    return `Shared "${this.shared}" has ${this.capacity} instances and all of them are in use. `
      + "Raise `capacity`, or use fewer keys at a time."
  }
}

/**
 * One instance for all its users.
 *
 * @category models
 * @since 0.1.0
 */
export interface Shared<out A, out E = never> {
  readonly name: string
  /** @internal */
  readonly cell: Cell<A, E>
}

/**
 * One instance per key; the keys are compared as `Equal` does (data by value, other objects by identity).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedShared<in out K, out A, out E = never> {
  readonly name: string
  /** @internal Guarded by the single thread; written only by this file. */
  readonly cells: MutableHashMap.MutableHashMap<K, Cell<A, E>>
  /** @internal */
  readonly makeCell: (key: K) => Cell<A, E>
}

/**
 * What both kinds take.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommonOptions {
  /** Shown by the ledger and in errors. */
  readonly name: string
  /** How long an instance without users is kept. Default: not at all; `Duration.infinity`: until the owner's scope closes. */
  readonly idleTimeToLive?: Duration.DurationInput | undefined
  /** How long the release may take, all that was acquired together. Default 5 seconds; a `Managed` brings its own. */
  readonly releaseDeadline?: Duration.DurationInput | undefined
}

/**
 * What `make` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E, R> extends CommonOptions {
  /** Runs interruptibly in a fiber and a scope of its own; a `Managed` is taken as it is. */
  readonly acquire: Effect.Effect<A, E, R>
}

/**
 * What `makeKeyed` takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedOptions<K, A, E, R> extends CommonOptions {
  /** As in `make`. */
  readonly acquire: (key: K) => Effect.Effect<A, E, R>
  /** At most so many instances at a time. Default: no bound. */
  readonly capacity?: number | undefined
}

/**
 * Which instance `invalidate` means: without `only` the present one, whatever it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface InvalidateOptions<A> {
  /** Only if this is still the one: what replaced it meanwhile stays. */
  readonly only?: A
}

/**
 * Where an instance stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** `"none"`: the next user acquires. */
  readonly state: "none" | "opening" | "open" | "closed"
  /** Who has it or awaits it. */
  readonly users: number
  /** Instances that are not the present one any more, but still in use or being released. */
  readonly former: number
}

/** What all instances of one `make` have in common. All guarded by the single thread; written only by this file. */
interface House {
  readonly name: string
  readonly clock: Clock.Clock
  /** In milliseconds. */
  readonly timeToLive: number
  /** Starts a fiber that is nobody's child, soon: never in the step that asks for it. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.RuntimeFiber<A, E>
  isClosed: boolean
  /** Everything whose fiber has not ended. */
  readonly live: Set<Instance<unknown, unknown>>
  /** Of those, the ones on their way out: cut while opening, or being released. */
  readonly ending: Set<Instance<unknown, unknown>>
  /** Of those, the ones without users, the longest idle first. Kept only where there is a `capacity`. */
  readonly idle: Set<Instance<unknown, unknown>>
  /** What went wrong in releases that nobody waited for, the first few; the owner gets them. */
  readonly failures: Array<Cause.Cause<never>>
}

const maxFailures = 16

const keepFailure = (house: House, cause: Cause.Cause<unknown>): void => {
  const defects = Cause.keepDefects(cause)
  if (Option.isSome(defects) && house.failures.length < maxFailures) {
    house.failures.push(defects.value)
  }
}

/** The place of one instance after the other. Guarded by the single thread; written only by this file. */
interface Cell<out A, out E> {
  readonly house: House
  readonly name: string
  readonly open: Open<A, E, never>
  /** How many instances the house may have, and what a newcomer is told when there is no place. */
  readonly limit: { readonly capacity: number; readonly refusal: () => E } | undefined
  /** Nothing is left here. */
  readonly vanish: () => void
  current: Instance<A, E> | undefined
  readonly live: Set<Instance<unknown, unknown>>
}

/** One who awaits an acquire. */
interface Waiter {
  readonly hold: Hold.Hold | undefined
  /** Nothing, as long as its fiber has not come to wait. */
  wake: () => void
}

/** One acquire and what came of it. Guarded by the single thread; written only by this file. */
class Instance<out A, out E> {
  readonly cell: Cell<A, E>
  readonly fiber: Fiber.RuntimeFiber<void, E>
  state: "opening" | "open" | "ending" | "ended" = "opening"
  /** Who has it or awaits it. */
  users = 0
  /** It is not for newcomers any more. */
  isDoomed = false
  /** Somebody waits for the release and takes its failure. */
  isJoined = false
  /** What the users get; none while it opens. */
  outcome: Exit.Exit<A, E | SharedClosed> | undefined = undefined
  readonly waiters = new Set<Waiter>()
  /** What the ledger knows of the acquire. */
  entry: Ledger.Entry | undefined = undefined
  /** Who has it, as far as recorded; written only by internal/hold.ts. */
  holds: Hold.Holds | undefined = undefined
  letGo: (() => void) | undefined = undefined
  idleSince = 0
  timer: Fiber.RuntimeFiber<void> | undefined = undefined

  /** In the step that asks for it; the instances in `after` end before it opens. */
  constructor(
    cell: Cell<A, E>,
    after: ReadonlyArray<Instance<unknown, unknown>>,
    site: Ledger.Site | undefined
  ) {
    this.cell = cell
    cell.current = this
    cell.live.add(this)
    cell.house.live.add(this)
    this.fiber = cell.house.fork(this.life(after, site))
    this.fiber.addObserver((exit) => this.ended(exit))
  }

  /** Interruptible up to the acquire, whatever the flags of the fiber that called `make`. */
  life(
    after: ReadonlyArray<Instance<unknown, unknown>>,
    site: Ledger.Site | undefined
  ): Effect.Effect<void, E> {
    const asked = (entry: Ledger.Entry): void => {
      this.entry = entry
    }
    return Effect.interruptible(
      // MASK: from the acquire to the release nobody cuts this fiber; only the waits before are restored, and what the
      // acquire itself restores.
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          restore(
            Effect.forEach(after, (instance) => Fiber.await(instance.fiber), { discard: true })
          ),
          () =>
            Effect.flatMap(
              this.cell.open(restore, site, asked),
              ({ close, value }) => Effect.zipRight(this.opened(value), close(Exit.void))
            )
        )
      )
    )
  }

  /** Tells the users, and waits until it shall be released. */
  opened(value: A): Effect.Effect<void> {
    return Effect.async((resume) => {
      this.state = "open"
      this.letGo = () => resume(Effect.void)
      this.tell(Exit.succeed(value))
      this.settle()
    })
  }

  tell(outcome: Exit.Exit<A, E | SharedClosed>): void {
    if (this.outcome !== undefined) return
    this.outcome = outcome
    for (const { hold, wake } of this.waiters) {
      if (Exit.isSuccess(outcome)) hold?.granted()
      else hold?.left(outcome.cause)
      wake()
    }
    this.waiters.clear()
  }

  ended(exit: Exit.Exit<void, E>): void {
    const { cell } = this
    this.doom()
    cell.house.live.delete(this)
    cell.house.ending.delete(this)
    cell.live.delete(this)
    vanishIfEmpty(cell)
    const wasOpening = this.state === "opening"
    this.state = "ended"
    if (Exit.isSuccess(exit)) return
    // What nobody waits for is the owner's to hear: the end of a release, or of an acquire that was cut.
    const isHeard = wasOpening ? this.users > 0 && this.outcome === undefined : this.isJoined
    if (!isHeard) keepFailure(cell.house, exit.cause)
    if (wasOpening) this.tell(Exit.failCause(exit.cause))
  }

  countIn(): void {
    if (++this.users === 1) this.cell.house.idle.delete(this)
  }

  countOut(): void {
    this.users--
    this.settle()
  }

  /** From now on newcomers get another one. */
  doom(): void {
    this.isDoomed = true
    if (this.cell.current === this) this.cell.current = undefined
  }

  /** What follows when nobody has it and nobody awaits it. */
  settle(): void {
    if (this.users > 0) return
    if (this.state === "opening") this.cut()
    else if (this.state === "open") {
      if (this.isDoomed || this.cell.house.timeToLive <= 0) this.end()
      else this.beIdle()
    }
  }

  cut(): void {
    this.doom()
    this.cell.house.ending.add(this)
    this.fiber.unsafeInterruptAsFork(FiberId.none)
  }

  end(): void {
    const { house } = this.cell
    this.doom()
    this.state = "ending"
    house.ending.add(this)
    house.idle.delete(this)
    this.timer?.unsafeInterruptAsFork(FiberId.none)
    this.letGo?.()
  }

  beIdle(): void {
    const { house, limit } = this.cell
    if (limit !== undefined) house.idle.add(this)
    if (house.timeToLive === Number.POSITIVE_INFINITY) return
    this.idleSince = house.clock.unsafeCurrentTimeMillis()
    // One timer at a time, and none per use: it looks at `idleSince` when it fires.
    if (this.timer === undefined) this.startTimer(house.timeToLive)
  }

  startTimer(millis: number): void {
    const { house } = this.cell
    this.timer = house.fork(Effect.sleep(millis))
    this.timer.addObserver(() => {
      this.timer = undefined
      if (this.state !== "open" || this.users > 0) return
      const rest = this.idleSince + house.timeToLive - house.clock.unsafeCurrentTimeMillis()
      if (rest > 0) this.startTimer(rest)
      else this.end()
    })
  }
}

const vanishIfEmpty = (cell: Cell<unknown, unknown>): void => {
  if (cell.live.size === 0 && cell.current === undefined) cell.vanish()
}

/** Whether there is a place for a newcomer. If all are taken, the longest idle instance is sent away for it. */
const makePlace = (house: House, capacity: number): boolean => {
  if (house.live.size - house.ending.size < capacity) return true
  const [longest] = house.idle
  longest?.end()
  return longest !== undefined
}

/** Counts the caller in, who must be counted out; or says why not. */
const enter = <A, E>(
  cell: Cell<A, E>,
  site: Ledger.Site | undefined
): Instance<A, E> | Effect.Effect<never, E | SharedClosed> => {
  const { house, limit } = cell
  if (house.isClosed) {
    vanishIfEmpty(cell)
    return Effect.fail(new SharedClosed({ shared: cell.name }))
  }
  let instance = cell.current
  if (instance === undefined) {
    if (limit !== undefined && !makePlace(house, limit.capacity)) {
      vanishIfEmpty(cell)
      return Effect.failSync(limit.refusal)
    }
    // A house that is full opens when all that are on their way out have gone; else only this place has to be empty.
    const isFull = limit !== undefined && house.live.size >= limit.capacity
    const after = isFull
      ? Array.from(house.ending)
      : Array.from(cell.live).filter((former) => house.ending.has(former))
    instance = new Instance(cell, after, site)
  }
  instance.countIn()
  return instance
}

/** One user, as the ledger in force is told. */
const recorded = <A, E>(
  instance: Instance<A, E>,
  site: Ledger.Site | undefined
): Hold.Hold | undefined => {
  const ledger = Ledger.unsafeInForce()
  return ledger && new Hold.Hold(ledger, instance, {
    kind: "shared use",
    name: instance.cell.name,
    amount: 1,
    site,
    inTheWay: () => instance.entry === undefined ? [] : [{ entry: instance.entry }]
  })
}

/** Waits until the instance is open. Whoever does not get it is counted out. To be called in the step that counted in. */
const awaitOpen = <A, E>(
  instance: Instance<A, E>,
  restore: Managed.Restore,
  hold: Hold.Hold | undefined
): Effect.Effect<A, E | SharedClosed> => {
  const waiter: Waiter = { hold, wake: () => {} }
  instance.waiters.add(waiter)
  const told = Effect.async<void>((resume) => {
    waiter.wake = () => resume(Effect.void)
    if (instance.outcome !== undefined) waiter.wake()
  })
  return Effect.matchCauseEffect(restore(told), {
    onFailure: (cause) => {
      instance.waiters.delete(waiter)
      return leave(instance, hold, Exit.failCause(cause))
    },
    onSuccess: () => {
      const outcome = instance.outcome ?? Exit.die(new Error("Shared-2 broken: told of nothing"))
      return Exit.isSuccess(outcome) ? outcome : leave(instance, hold, outcome)
    }
  })
}

/** Counts a user out, and lets it end as `exit` says. The one who is the last waits for the release, and hears of it. */
const leave = <A, E>(
  instance: Instance<unknown, unknown>,
  hold: Hold.Hold | undefined,
  exit: Exit.Exit<A, E>
): Effect.Effect<A, E> => {
  hold?.left(Exit.isFailure(exit) ? exit.cause : undefined)
  instance.countOut()
  if (instance.state !== "ending" || instance.isJoined) return exit
  instance.isJoined = true
  return Effect.flatMap(Fiber.await(instance.fiber), (released) => {
    if (Exit.isSuccess(released)) return exit
    const cause = Cause.stripFailures(released.cause)
    return withFailure(exit, cause)
  })
}

type Use<A, E, B, E2, R2> = (
  instance: Instance<A, E>,
  value: A,
  hold: Hold.Hold | undefined
) => Effect.Effect<B, E2, R2>

/** From no user to one that has the value, in a mask. */
const takeInMask = <A, E, B, E2, R2>(
  cell: Cell<A, E>,
  restore: Managed.Restore,
  site: Ledger.Site | undefined,
  use: Use<A, E, B, E2, R2>
): Effect.Effect<B, E | E2 | SharedClosed, R2> => {
  const instance = enter(cell, site)
  if (Effect.isEffect(instance)) return instance
  const hold = recorded(instance, site)
  const { outcome } = instance
  if (outcome !== undefined && Exit.isSuccess(outcome)) {
    hold?.granted()
    return use(instance, outcome.value, hold)
  }
  return Effect.flatMap(
    awaitOpen(instance, restore, hold),
    (value) => use(instance, value, hold)
  )
}

// The cell is looked up in the step that counts in: a key's cell without anybody in it is cleared away.

const useCell = <A, E, B, E2, R2>(
  cellOf: () => Cell<A, E>,
  f: (value: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2 | SharedClosed, R2> => {
  const site = Ledger.unsafeSite()
  // MASK: from counting in to counting out; the wait and the use are restored.
  return Effect.uninterruptibleMask((restore) =>
    takeInMask(cellOf(), restore, site, (instance, value, hold) =>
      Effect.matchCauseEffect(
        restore(Effect.suspend(() => f(value))),
        {
          onFailure: (cause) => leave(instance, hold, Exit.failCause(cause)),
          onSuccess: (result) => leave(instance, hold, Exit.succeed(result))
        }
      ))
  )
}

const getCell = <A, E>(
  cellOf: () => Cell<A, E>
): Effect.Effect<A, E | SharedClosed, Scope.Scope> => {
  const site = Ledger.unsafeSite()
  // MASK: counting in and the finalizer that counts out are one step; the wait is restored.
  return Effect.uninterruptibleMask((restore) =>
    takeInMask(cellOf(), restore, site, (instance, value, hold) =>
      Effect.as(
        Handover.holdInScope(
          instance.cell.name,
          Effect.suspend(() => leave(instance, hold, Exit.void))
        ),
        value
      ))
  )
}

const invalidateCell = <A>(
  cell: Cell<A, unknown>,
  options: InvalidateOptions<A> | undefined
): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const instance = cell.current
    if (instance === undefined) return Effect.succeed(false)
    if (options !== undefined && "only" in options) {
      const { outcome } = instance
      const isIt = outcome !== undefined && Exit.isSuccess(outcome) &&
        outcome.value === options.only
      if (!isIt) return Effect.succeed(false)
    }
    instance.doom()
    instance.settle()
    return instance.state === "ending"
      ? Effect.as(Fiber.await(instance.fiber), true)
      : Effect.succeed(true)
  })

const statsOf = ({ current, house, live }: Cell<unknown, unknown>): Stats => ({
  state: house.isClosed ? "closed" : current === undefined ? "none" : isOpen(current),
  users: current?.users ?? 0,
  former: live.size - (current === undefined ? 0 : 1)
})

const isOpen = (instance: Instance<unknown, unknown>): "opening" | "open" =>
  instance.state === "open" ? "open" : "opening"

/** Nothing new; who awaits an acquire is told; who uses one is waited for. */
const close = (house: House): Effect.Effect<void> =>
  Effect.suspend(() => {
    house.isClosed = true
    const live = Array.from(house.live)
    for (const instance of live) {
      instance.doom()
      if (instance.state === "opening") {
        instance.tell(Exit.fail(new SharedClosed({ shared: instance.cell.name })))
        instance.cut()
      } else instance.settle()
    }
    return Effect.zipRight(
      Effect.forEach(live, ({ fiber }) => Fiber.await(fiber), { discard: true }),
      Effect.suspend(() => {
        const [first, ...more] = house.failures
        return first === undefined
          ? Effect.void
          : Effect.failCause(more.reduce(Cause.sequential<never, never>, first))
      })
    )
  })

interface OpenHouse<R> {
  readonly house: House
  readonly context: Context.Context<R>
}

const openHouse = <R>(
  options: CommonOptions
): Effect.Effect<OpenHouse<R>, never, R | Scope.Scope> =>
  Effect.flatMap(Effect.runtime<R>(), (runtime) =>
    Effect.flatMap(Effect.clock, (clock) => {
      const house: House = {
        name: options.name,
        clock,
        timeToLive: Duration.toMillis(options.idleTimeToLive ?? Duration.zero),
        fork: (effect) => Runtime.runFork(runtime, effect, { immediate: false }),
        isClosed: false,
        live: new Set(),
        ending: new Set(),
        idle: new Set(),
        failures: []
      }
      return Effect.as(
        Effect.addFinalizer(() => close(house)),
        { house, context: runtime.context }
      )
    }))

/** What the ledger calls these. */
const kind = "shared"

type Open<A, E, R> = (
  restore: Managed.Restore,
  site: Ledger.Site | undefined,
  asked: (entry: Ledger.Entry) => void
) => Effect.Effect<Managed.Opened<A>, E, R>

/** How to open and close what `acquire` acquires, in a scope of its own. */
const openerOf = <A, E, R>(
  name: string,
  acquire: Effect.Effect<A, E, R>,
  { releaseDeadline }: CommonOptions
): Open<A, E, Exclude<R, Scope.Scope>> => {
  const known = Managed.asManaged(acquire)
  if (known !== undefined) {
    return (restore, site, asked) => Ledger.withOwner(known.openInMask(restore, site, asked), name)
  }
  const managed = Managed.fromScoped({ name, kind, releaseDeadline }, acquire, undefined)
  return (restore, site, asked) => managed.openInMask(restore, site, asked)
}

/**
 * One instance for all its users, in the scope it is made in. Nothing is acquired before the first user asks.
 *
 * **Details** — The acquire sees the context of this call, and none of a user's. To offer it to services, hand it to
 *   `Layer.scoped`.
 * **Interruption** — never waits. The owner's close waits for the users, then for the release.
 * **Errors** — none. What releases without an audience failed with is in the exit of the owner's close.
 * **Cost** — one record.
 *
 * **Example** (acquired once, released after the last user)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Parallel, Shared } from "holdfast"
 *
 * const log: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const shared = yield* Shared.make({
 *     name: "line",
 *     acquire: Managed.make({
 *       name: "line",
 *       acquire: Effect.sync(() => log.push("open")),
 *       release: () => Effect.sync(() => log.push("close"))
 *     })
 *   })
 *   const user = Shared.use(shared, () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => log.push("use"))))
 *   yield* Parallel.all([user, user, user], { concurrency: 3, discard: true })
 * })
 * await Effect.runPromise(Effect.scoped(program))
 * log // => ["open", "use", "use", "use", "close"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E, R>(
  options: Options<A, E, R>
): Effect.Effect<Shared<A, E>, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.map(
    openHouse<Exclude<R, Scope.Scope>>(options),
    ({ context, house }): Shared<A, E> => {
      const open = openerOf(options.name, options.acquire, options)
      return {
        name: options.name,
        cell: {
          house,
          name: options.name,
          open: (restore, site, asked) => Effect.provide(open(restore, site, asked), context),
          limit: undefined,
          vanish: () => {},
          current: undefined,
          live: new Set()
        }
      }
    }
  )

/**
 * One instance per key, in the scope it is made in. Nothing is acquired before the first user of a key asks.
 *
 * **Details**, **Interruption**, **Errors** — as `make`. With a `capacity` the users can fail with `SharedFull`.
 * **Cost** — one empty map; a key costs one record while it has an instance.
 *
 * **Example** (one instance per key)
 * ```ts run
 * import { Effect } from "effect"
 * import { Shared } from "holdfast"
 *
 * let opened = 0
 * const program = Effect.gen(function*() {
 *   const houses = yield* Shared.makeKeyed({
 *     name: "house",
 *     acquire: (street: string) => Effect.sync(() => `${street} ${++opened}`),
 *     idleTimeToLive: "1 minute",
 *     capacity: 2
 *   })
 *   const visit = (street: string) => Shared.useKey(houses, street, Effect.succeed)
 *   return [yield* visit("Elm"), yield* visit("Oak"), yield* visit("Elm"), yield* visit("Ash"), yield* visit("Oak")]
 * })
 * await Effect.runPromise(Effect.scoped(program)) // => ["Elm 1", "Oak 2", "Elm 1", "Ash 3", "Oak 4"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeKeyed<K, A, E, R>(
  options: KeyedOptions<K, A, E, R> & { readonly capacity: number }
): Effect.Effect<KeyedShared<K, A, E | SharedFull>, never, Exclude<R, Scope.Scope> | Scope.Scope>
export function makeKeyed<K, A, E, R>(
  options: KeyedOptions<K, A, E, R> & { readonly capacity?: undefined }
): Effect.Effect<KeyedShared<K, A, E>, never, Exclude<R, Scope.Scope> | Scope.Scope>
export function makeKeyed<K, A, E, R>(
  options: KeyedOptions<K, A, E, R>
): Effect.Effect<KeyedShared<K, A, E | SharedFull>, never, Exclude<R, Scope.Scope> | Scope.Scope> {
  const { acquire, capacity, name } = options
  if (capacity !== undefined && !(Number.isSafeInteger(capacity) && capacity >= 1)) {
    return Effect.die(
      new RangeError(`KeyedShared-2: capacity must be a whole number, 1 or more; got ${capacity}.`)
    )
  }
  const limit = capacity === undefined ? undefined : {
    capacity,
    refusal: () => new SharedFull({ shared: name, capacity })
  }
  return Effect.map(
    openHouse<Exclude<R, Scope.Scope>>(options),
    ({ context, house }): KeyedShared<K, A, E | SharedFull> => {
      const cells = MutableHashMap.empty<K, Cell<A, E | SharedFull>>()
      const makeCell = (key: K): Cell<A, E | SharedFull> => {
        const keyed = `${name}[${Inspectable.toStringUnknown(key, 0)}]`
        return {
          house,
          name: keyed,
          open: (restore, site, asked) =>
            Effect.provide(
              // suspend: an `acquire` that throws is a failed acquire.
              Effect.suspend(() => openerOf(keyed, acquire(key), options)(restore, site, asked)),
              context
            ),
          limit,
          vanish: () => MutableHashMap.remove(cells, key),
          current: undefined,
          live: new Set()
        }
      }
      return { name, cells, makeCell }
    }
  )
}

/** The place of a key; `enter`, which every caller goes on to, clears it away if nothing comes of it. */
const cellOf = <K, A, E>(self: KeyedShared<K, A, E>, key: K): Cell<A, E> => {
  const known = MutableHashMap.get(self.cells, key)
  if (Option.isSome(known)) return known.value
  const cell = self.makeCell(key)
  MutableHashMap.set(self.cells, key, cell)
  return cell
}

/**
 * Runs `f` with the instance, acquiring it if there is none: the bracket, without a `Scope` in the context.
 *
 * **Interruption** — Waiting: the others go on waiting; the acquire is cut if nobody else awaits it, and not waited for.
 *   Holding: `f` is cut; the last user out waits for the release unless there is an `idleTimeToLive`.
 * **Errors** — `E` of the acquire, for all who await it; `SharedClosed`; a failed release is appended to the cause.
 * **Cost** — about 1.2 µs if it is open.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2>(
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: Shared<A, E>) => Effect.Effect<B, E | E2 | SharedClosed, R2>
  <A, E, B, E2, R2>(
    self: Shared<A, E>,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2>
} = dual(
  2,
  <A, E, B, E2, R2>(
    self: Shared<A, E>,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2> => useCell(() => self.cell, f)
)

/**
 * `use` of one key.
 *
 * **Interruption**, **Errors**, **Cost** — as `use`; `SharedFull` if there is a `capacity` and all are in use.
 *
 * @category operations
 * @since 0.1.0
 */
export const useKey: {
  <K, A, B, E2, R2>(
    key: K,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): <E>(self: KeyedShared<K, A, E>) => Effect.Effect<B, E | E2 | SharedClosed, R2>
  <K, A, E, B, E2, R2>(
    self: KeyedShared<K, A, E>,
    key: K,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2>
} = dual(
  3,
  <K, A, E, B, E2, R2>(
    self: KeyedShared<K, A, E>,
    key: K,
    f: (value: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2 | SharedClosed, R2> => useCell(() => cellOf(self, key), f)
)

/**
 * The instance, acquired if there is none, and kept until the scope closes.
 *
 * **Interruption** — as `use`. **Errors** — as `use`; a scope that is closed already is a defect, and nothing is kept.
 * **Cost** — about 9 µs if it is open.
 *
 * @category operations
 * @since 0.1.0
 */
export const get = <A, E>(
  self: Shared<A, E>
): Effect.Effect<A, E | SharedClosed, Scope.Scope> => getCell(() => self.cell)

/**
 * `get` of one key.
 *
 * **Interruption**, **Errors**, **Cost** — as `get`; `SharedFull` if there is a `capacity` and all are in use.
 *
 * @category operations
 * @since 0.1.0
 */
export const getKey: {
  <K>(key: K): <A, E>(
    self: KeyedShared<K, A, E>
  ) => Effect.Effect<A, E | SharedClosed, Scope.Scope>
  <K, A, E>(
    self: KeyedShared<K, A, E>,
    key: K
  ): Effect.Effect<A, E | SharedClosed, Scope.Scope>
} = dual(
  2,
  <K, A, E>(
    self: KeyedShared<K, A, E>,
    key: K
  ): Effect.Effect<A, E | SharedClosed, Scope.Scope> => getCell(() => cellOf(self, key))
)

/**
 * The next user gets a new instance. Present users keep theirs to their end; if there are none, it is released, and this
 * waits for it. Tells whether there was anything to invalidate.
 *
 * **Interruption** — of the wait only; the instance is invalid all the same. **Errors** — none; a failed release is the
 *   owner's to hear. **Cost** — that of the release, if it waits for it.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidate = <A, E>(
  self: Shared<A, E>,
  options?: InvalidateOptions<A>
): Effect.Effect<boolean> => invalidateCell(self.cell, options)

/**
 * `invalidate` of one key.
 *
 * **Interruption**, **Errors**, **Cost** — as `invalidate`.
 *
 * @category operations
 * @since 0.1.0
 */
export const invalidateKey = <K, A, E>(
  self: KeyedShared<K, A, E>,
  key: K,
  options?: InvalidateOptions<A>
): Effect.Effect<boolean> =>
  Effect.suspend(() =>
    Option.match(MutableHashMap.get(self.cells, key), {
      onNone: () => Effect.succeed(false),
      onSome: (cell) => invalidateCell(cell, options)
    })
  )

/**
 * How many have the present instance or await it.
 *
 * @category getters
 * @since 0.1.0
 */
export const refCount = (self: Shared<unknown, unknown>): Effect.Effect<number> =>
  Effect.sync(() => self.cell.current?.users ?? 0)

/**
 * Where the present instance stands, exact in the step that reads it.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: Shared<unknown, unknown>): Effect.Effect<Stats> =>
  Effect.sync(() => statsOf(self.cell))

/**
 * Where the instance of a key stands; none if nothing is known of the key.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey = <K, A, E>(
  self: KeyedShared<K, A, E>,
  key: K
): Effect.Effect<Option.Option<Stats>> =>
  Effect.sync(() => Option.map(MutableHashMap.get(self.cells, key), statsOf))

/**
 * How many keys have an instance, those being opened, idle or released included.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K, A, E>(self: KeyedShared<K, A, E>): Effect.Effect<number> =>
  Effect.sync(() => MutableHashMap.size(self.cells))
