/**
 * Nursery: a group of fibers that ends after its last child, and that holds what stock operators start inside it.
 *
 * DESIGN. The body of `run` and the children are fibers of one group (internal/workers.ts). What they start with stock operators is
 * followed by the tracker (internal/tracker.ts): under it, every release of ours waits for the dying fibers that were started
 * inside its bracket or scope. The rules, by the way in which a fiber was started:
 * - children (`Effect.fork`) are interrupted at the end of their parent, as always, and at the end of a bracket that lends them a
 *   resource (`Managed.use`, `Pool.use`, `Shared.use`, `ExitStack.use`, `Nursery.scoped`, `Nursery.contain`). Locks and scopes
 *   leave them alone;
 * - daemons (`forkDaemon`, `forkIn`, `Runtime.runFork` with a runtime taken inside, those of libraries) live on. One that was
 *   interrupted is waited for. With `contain: "all"` the nursery ends them too, those of libraries included. A plain
 *   `Effect.runFork` or `runPromise` starts a program of its own, which nothing here follows;
 * - children of the nursery (`start`) are waited for at its end.
 *
 * INVARIANTS
 * - Nursery-1 (L10) `run` returns, by success, failure, defect or interruption, after its last child, and after the dying fibers
 *   that were started inside it.
 * - Nursery-2 The first failure of a child or of the body interrupts the others; the cause has all failures, the body's first.
 *   A child that was interrupted has not failed.
 * - Nursery-3 An interrupt reaches the body and the children where they wait (internal/interrupt.ts).
 * - Nursery-4 (L7) A child that is started after the end dies with `OwnerClosed` in its starter; one that is started while the
 *   group is ending is interrupted at once.
 *
 * COST a fork (about 4 µs) per run and per child. Under the tracker a fork costs up to a quarter more.
 * SOURCES Trio's nurseries and cancel scopes; Effect's `FiberSet`, which does not wait.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import { dual } from "effect/Function"
import type * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import { Handle } from "./internal/handle.ts"
import { OwnerClosed } from "./internal/handover.ts"
import * as Interrupt from "./internal/interrupt.ts"
import * as Lent from "./internal/lent.ts"
import * as Rules from "./internal/options.ts"
import { type AnyFiber, currentFiber, isInterrupted } from "./internal/runtime.ts"
import * as Tracker from "./internal/tracker.ts"
import * as Workers from "./internal/workers.ts"
import * as Managed from "./Managed.ts"

export { StillInUse } from "./internal/tracker.ts"

/**
 * Identifies a `Nursery`.
 *
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/Nursery")

/**
 * The type of `TypeId`.
 *
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A group of fibers whose children may fail with `E`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Nursery<in E = never> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _E: Types.Contravariant<E> }
  readonly name: string
}

/**
 * The tag of the nursery that `layer` provides. Its children handle their own failures.
 *
 * @category tags
 * @since 0.1.0
 */
export const Nursery: Context.Tag<Nursery, Nursery> = Context.GenericTag("holdfast/Nursery")

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Shown by the ledger and in errors. Default `"nursery"`. */
  readonly name?: string | undefined
}

/**
 * @category models
 * @since 0.1.0
 */
export interface RunOptions extends Options {
  /**
   * `"all"`: the end also interrupts, and waits for, every other fiber that was started inside: daemons, and fibers of
   * libraries; not those of a plain `Effect.runFork`. Default `"children"`: they live on.
   */
  readonly contain?: "children" | "all" | undefined
}

/**
 * Exact counters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Children that have not ended, the body of `run` included. */
  readonly running: number
  readonly failed: number
}

const rules: Rules.Rules = { name: Rules.text, contain: Rules.oneOf("children", "all") }

const variance: Nursery<unknown>[TypeId] = { _E: (_) => _ }

class Implementation<E> extends Handle implements Nursery<E> {
  readonly [TypeId] = variance
  readonly name: string
  readonly group = Workers.makeGroup<E>(true)
  hasEnded = false
  /** Its failures have been given to a caller of `awaitAll`. */
  isAwaited = false
  /** The fiber of the body of `run`. */
  body: AnyFiber | undefined = undefined

  constructor({ name = "nursery" }: Options) {
    super()
    this.name = name
  }

  get stats(): Stats {
    return { running: this.group.alive, failed: this.group.failures.length }
  }

  toJSON(): unknown {
    return { _id: "holdfast/Nursery", name: this.name, ...this.stats }
  }

  start<A, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R> {
    return Effect.suspend(() =>
      this.hasEnded
        ? Effect.die(new OwnerClosed({ owner: this.name, resource: "child" }))
        : Workers.start(this.group, effect)
    )
  }

  /** Interrupts the children, waits for them, and fails with what they have failed with, unless `awaitAll` has. */
  close(): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      Workers.cut(this.group)
      return Effect.flatMap(Workers.awaitEnd(this.group), () => {
        this.hasEnded = true
        return this.isAwaited ? Effect.void : this.failures()
      })
    })
  }

  awaitAll(): Effect.Effect<void, E> {
    const bodies = () => this.body === undefined || this.body.unsafePoll() !== null ? 0 : 1
    return Effect.flatMap(Workers.awaitEnd(this.group, bodies), () => {
      this.isAwaited = true
      return this.failures()
    })
  }

  failures(): Effect.Effect<void, E> {
    const causes = Workers.causesOf(Exit.void, this.group)
    return causes.length === 0 ? Effect.void : Effect.failCause(causes.reduce(Cause.parallel))
  }
}

// Every handle is made here.
const implementationOf = <E>(self: Nursery<E>): Implementation<E> => self as Implementation<E>

type Body<A, E, R, EC> =
  | Effect.Effect<A, E, R>
  | ((nursery: Nursery<EC>) => Effect.Effect<A, E, R>)

/**
 * Runs a body in a fiber of its own, under the tracker, and ends after its last child.
 *
 * **Details** — The type of the children's failures is that of the parameter: `(nursery: Nursery.Nursery<MyError>) => …`; without
 *   it they must not fail. Fibers of `Effect.fork` end with the body; those of `start` are waited for.
 *
 * **Interruption** — The body and the children are interrupted where they wait, and waited for.
 * **Errors** — Those of the body and of the children; after them the defect `StillInUse`, if a fiber that was interrupted inside
 *   has not ended 5 seconds later. The failure of a child that the body has joined is in the cause twice.
 * **Cost** — One fork.
 *
 * **Example** (stock `Effect.forEach` over one resource)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed, Nursery } from "holdfast"
 *
 * const log: Array<string> = []
 * const db = Managed.make({
 *   name: "db",
 *   acquire: Effect.sync(() => ({ isOpen: true })),
 *   release: (connection) => Effect.sync(() => { connection.isOpen = false; log.push("released") })
 * })
 * const save = (connection: { readonly isOpen: boolean }) => (item: number) =>
 *   item === 1
 *     ? Effect.fail("disk full")
 *     : Effect.uninterruptible(Effect.delay(
 *       Effect.sync(() => log.push(`item ${item} saved, open: ${connection.isOpen}`)), 10))
 * const all = Managed.use(db, (connection) =>
 *   Effect.forEach([1, 2, 3], save(connection), { concurrency: 2 }))
 * await Effect.runPromise(Effect.flip(Nursery.run(all))) // => "disk full"
 * log // => ["item 2 saved, open: true", "released"]
 * ```
 *
 * **Example** (children)
 * ```ts run
 * import { Effect } from "effect"
 * import { Nursery } from "holdfast"
 *
 * const seen: Array<string> = []
 * const program = Nursery.run((nursery: Nursery.Nursery<"lost">) => Effect.gen(function*() {
 *   yield* Nursery.start(nursery, Effect.ensuring(Effect.never, Effect.sync(() => seen.push("stopped"))))
 *   yield* Nursery.start(nursery, Effect.delay(Effect.fail("lost" as const), 5))
 * }))
 * await Effect.runPromise(Effect.flip(program)) // => "lost"
 * seen // => ["stopped"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <A, E, R, EC = never>(
  body: Body<A, E, R, EC>,
  options: RunOptions = {}
): Effect.Effect<A, E | EC, R> => {
  Rules.check("Nursery.run", options, rules)
  return Tracker.tracked(
    // MASK: the caller returns after the last fiber; its wait is restored.
    Effect.uninterruptibleMask((restore) => runInMask(body, options, restore))
  )
}

const runInMask = <A, E, R, EC>(
  body: Body<A, E, R, EC>,
  options: RunOptions,
  restore: Managed.Restore
): Effect.Effect<A, E | EC, R> => {
  const nursery = new Implementation<E | EC>(options)
  const { group, name } = nursery
  const lent = Lent.lend(options.contain ?? "children")
  let result: Exit.Exit<A, E | EC> | undefined
  const main = Effect.onExit(
    Effect.suspend(() => {
      nursery.body = currentFiber()
      return Effect.isEffect(body) ? body : body(nursery)
    }),
    (exit) =>
      Effect.sync(() => {
        result = exit
        if (Exit.isFailure(exit)) Workers.cut(group)
      })
  )
  const ended = Workers.run(group, {
    count: 1,
    worker: () => Effect.asVoid(main),
    keepsChildren: true
  })
  return Effect.flatMap(Effect.exit(restore(ended)), (exit) => {
    nursery.hasEnded = true
    // Without failures there is a result: an interruption of the body alone is one, too.
    const final: Exit.Exit<A, E | EC> = Exit.isFailure(exit)
      ? Exit.failCause(exit.cause)
      : result ?? Exit.interrupt(FiberId.none)
    return Lent.settleThen(
      lent,
      { kind: "nursery", name },
      final,
      (settled) => Effect.zipRight(Workers.inherit(group), settled)
    )
  })
}

/**
 * A nursery that belongs to the current scope. As the scope closes, the children are interrupted and waited for. When a child has
 * failed, the others are interrupted, and so is each one that is started later.
 *
 * **Interruption** — None while it is made. **Errors** — The close fails, with defects, if a child has failed and `awaitAll` has
 *   not said so; it ends within 5 seconds, as any release.
 * **Cost** — That of a `Managed`; it does not install the tracker.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <E = never>(
  options: Options = {}
): Effect.Effect<Nursery<E>, never, Scope.Scope> => {
  Rules.check("Nursery.make", options, rules)
  return Managed.make({
    name: options.name ?? "nursery",
    kind: "nursery",
    acquire: Effect.sync(() => new Implementation<E>(options)),
    release: (nursery) => nursery.close()
  })
}

/**
 * Installs the tracker for what is built on it. A `ManagedRuntime` has no tracker of its own, wherever it is made: give it this layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const tracker: Layer.Layer<never> = Layer.scopedDiscard(
  Effect.locallyScopedWith(FiberRef.currentSupervisor, Tracker.withTracker)
)

/**
 * Provides a nursery for the background work of services, and installs the tracker. The children end as the layer does.
 *
 * **Interruption**, **Errors**, **Cost** — As `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Nursery> =>
  Layer.provideMerge(Layer.scoped(Nursery, make(options)), tracker)

/**
 * Runs an effect under the tracker, in this fiber: releases inside it wait for their dying users.
 *
 * **Interruption**, **Errors** — Those of the effect. **Cost** — That of `Effect.locally`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tracked: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> =
  Tracker.tracked

/**
 * Starts a child. It is interruptible, and it has the FiberRefs and the context of its starter.
 *
 * **Errors** — None of the starter's: the failure of a child ends its nursery. After the end the starter dies with `OwnerClosed`.
 * **Cost** — One fork.
 *
 * @category operations
 * @since 0.1.0
 */
export const start: {
  <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ): (self: Nursery<E>) => Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R>
  <A, E, R>(
    self: Nursery<E>,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R>
} = dual(
  2,
  <A, E, R>(self: Nursery<E>, effect: Effect.Effect<A, E, R>) =>
    implementationOf(self).start(effect)
)

/**
 * Starts a child and waits until it calls `ready`: a server that listens, a consumer that has subscribed. The child runs on.
 *
 * **Interruption** — The child runs on; its nursery ends it. **Errors** — That of a child that fails before it is ready. One that
 *   succeeds before is a defect.
 * **Source** — Trio's `nursery.start`.
 *
 * **Example**
 * ```ts run
 * import { Effect } from "effect"
 * import { Nursery } from "holdfast"
 *
 * const server = (ready: (port: number) => Effect.Effect<void>) => Effect.zipRight(ready(8080), Effect.never)
 * const program = Nursery.run((nursery) => Effect.gen(function*() {
 *   const port = yield* Nursery.startReady(nursery, server)
 *   yield* Nursery.cancel(nursery)
 *   return port
 * }))
 * await Effect.runPromise(program) // => 8080
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const startReady: {
  <V, A, E, R>(
    child: (ready: (value: V) => Effect.Effect<void>) => Effect.Effect<A, E, R>
  ): (self: Nursery<E>) => Effect.Effect<V, E, R>
  <V, A, E, R>(
    self: Nursery<E>,
    child: (ready: (value: V) => Effect.Effect<void>) => Effect.Effect<A, E, R>
  ): Effect.Effect<V, E, R>
} = dual(
  2,
  <V, A, E, R>(
    self: Nursery<E>,
    child: (ready: (value: V) => Effect.Effect<void>) => Effect.Effect<A, E, R>
  ): Effect.Effect<V, E, R> =>
    Effect.suspend(() => {
      const isReady = Deferred.unsafeMake<V, E>(FiberId.none)
      const ready = (value: V) => Effect.asVoid(Deferred.succeed(isReady, value))
      const notReady = Cause.die(new Error(`A child of "${self.name}" ended before it was ready.`))
      // By an observer: a child that is interrupted before its first step runs no finalizer.
      const watch = (fiber: Fiber.RuntimeFiber<A, E>) =>
        fiber.addObserver((exit) =>
          Deferred.unsafeDone(isReady, Exit.failCause(Exit.isFailure(exit) ? exit.cause : notReady))
        )
      const started = Effect.map(start(self, Effect.suspend(() => child(ready))), watch)
      return Effect.zipRight(started, Deferred.await(isReady))
    })
)

/**
 * A child that ends with the current scope, or before, with its nursery: a heartbeat beside a connection.
 *
 * **Errors** — As `start`. **Cost** — As `start`, and that of a `Managed`.
 *
 * @category operations
 * @since 0.1.0
 */
export const background: {
  <A, E, R>(
    effect: Effect.Effect<A, E, R>
  ): (self: Nursery<E>) => Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R | Scope.Scope>
  <A, E, R>(
    self: Nursery<E>,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<Fiber.RuntimeFiber<A, E>, never, R | Scope.Scope>
} = dual(2, <A, E, R>(self: Nursery<E>, effect: Effect.Effect<A, E, R>) =>
  Managed.make({
    name: self.name,
    kind: "background",
    acquire: start(self, effect),
    release: (fiber: Fiber.RuntimeFiber<A, E>) =>
      Effect.flatMap(Effect.fiberId, (by) => {
        Interrupt.atWait(fiber, by)
        return fiber.await
      })
  }))

/**
 * Interrupts the children that run now, where they wait, and returns at once. The body of `run` goes on, and may start others.
 *
 * @category operations
 * @since 0.1.0
 */
export const cancel = (self: Nursery<never>): Effect.Effect<void> =>
  Effect.map(Effect.fiberId, (by) => {
    const { body, group } = implementationOf(self)
    for (const fiber of group.fibers) {
      // Once each: every further interrupt costs it a step.
      if (isInterrupted(fiber)) continue
      if (fiber !== body) Interrupt.atWait(fiber, by)
    }
  })

/**
 * Waits until no child runs, and fails with what the children have failed with. The body of `run` is no child here and may call
 * it; a child that does waits for itself.
 *
 * **Interruption** — Ends the wait only. **Errors** — Those of the children.
 *
 * @category operations
 * @since 0.1.0
 */
export const awaitAll = <E>(self: Nursery<E>): Effect.Effect<void, E> =>
  implementationOf(self).awaitAll()

/**
 * The counters of this moment.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: Nursery<never>): Effect.Effect<Stats> =>
  Effect.sync(() => implementationOf(self).stats)

/**
 * `Effect.scoped` whose scope closes after the children and the dying fibers that were started inside: for stock `acquireRelease`.
 *
 * **Interruption** — As `Effect.scoped`. **Errors** — Those of the effect, and `StillInUse` as a defect.
 * **Cost** — That of `Effect.scoped`. Without a tracker it is `Effect.scoped`.
 *
 * @category operations
 * @since 0.1.0
 */
export const scoped = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> => Effect.scoped(contain(effect))

/**
 * Runs an effect and continues after the children and the dying fibers that were started inside it: the bracket without a resource.
 *
 * **Interruption**, **Errors** — As `scoped`. **Cost** — That of a mask; none without a tracker.
 *
 * @category operations
 * @since 0.1.0
 */
export const contain = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  // MASK: it continues after the dying fibers; the effect is restored.
  Effect.uninterruptibleMask((restore) => {
    const lent = Lent.lend("children")
    const subject = { kind: "scope", name: "scope" }
    return lent === undefined
      ? restore(effect)
      : Lent.useThen(lent, subject, restore(effect), (exit) => exit)
  })

/**
 * Runs an effect in a fiber of its own and interrupts it, where it waits, after a while; it ends before this does.
 *
 * **Interruption** — Interrupts the effect, where it waits. **Errors** — Those of the effect; that of `onTimeout` if it was
 *   interrupted for its time, and after it what the effect failed with then.
 * **Cost** — Two forks. Different from `Effect.timeoutFail`, the interrupt never reaches the effect while it computes, unless for
 *   long.
 *
 * @category operations
 * @since 0.1.0
 */
export const timeoutFail: {
  <E2>(options: {
    readonly duration: Duration.DurationInput
    readonly onTimeout: () => E2
  }): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | E2, R>
  <A, E, R, E2>(
    effect: Effect.Effect<A, E, R>,
    options: {
      readonly duration: Duration.DurationInput
      readonly onTimeout: () => E2
    }
  ): Effect.Effect<A, E | E2, R>
} = dual(
  2,
  <A, E, R, E2>(
    effect: Effect.Effect<A, E, R>,
    { duration, onTimeout }: {
      readonly duration: Duration.DurationInput
      readonly onTimeout: () => E2
    }
  ): Effect.Effect<A, E | E2, R> =>
    // MASK: the caller returns after both fibers have ended; its wait is restored.
    Effect.uninterruptibleMask((restore) => {
      const group = Workers.makeGroup<E>(true)
      let result: Exit.Exit<A, E> | "late" | undefined
      const decide = (by: Exit.Exit<A, E> | "late") =>
        Effect.sync(() => {
          result ??= by
          Workers.finish(group)
        })
      // Interruptible even if the caller is not, as that of `Effect.timeout`: nobody waits for the rest of the time.
      const timer = Effect.zipRight(Effect.interruptible(Effect.sleep(duration)), decide("late"))
      const ended = Workers.run(group, {
        count: 2,
        worker: (index) => index === 0 ? Effect.asVoid(Effect.onExit(effect, decide)) : timer,
        keepsChildren: true
      })
      return Effect.flatMap(Effect.exit(restore(ended)), (exit): Effect.Effect<A, E | E2> => {
        if (result === "late") {
          const late = Effect.suspend(() => Effect.fail(onTimeout()))
          return Exit.isSuccess(exit)
            ? late
            : Effect.catchAllCause(late, (cause) =>
              Effect.failCause(Cause.sequential(cause, exit.cause)))
        }
        if (Exit.isFailure(exit)) {
          return Effect.failCause(exit.cause)
        }
        return Effect.zipRight(Workers.inherit(group), result ?? Effect.interrupt)
      })
    })
)

/**
 * As `timeoutFail`, with Effect's `TimeoutException`.
 *
 * **Interruption**, **Errors**, **Cost** — As `timeoutFail`.
 *
 * **Example**
 * ```ts run
 * import { Effect } from "effect"
 * import { Nursery } from "holdfast"
 *
 * const late = Nursery.timeout(Effect.never, "5 millis")
 * await Effect.runPromise(Effect.flip(late).pipe(Effect.map((error) => error._tag))) // => "TimeoutException"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const timeout: {
  (
    duration: Duration.DurationInput
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Cause.TimeoutException, R>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    duration: Duration.DurationInput
  ): Effect.Effect<A, E | Cause.TimeoutException, R>
} = dual(
  2,
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    duration: Duration.DurationInput
  ): Effect.Effect<A, E | Cause.TimeoutException, R> =>
    timeoutFail(effect, {
      duration,
      onTimeout: () =>
        new Cause.TimeoutException(`The effect did not end within ${Duration.format(duration)}.`)
    })
)
