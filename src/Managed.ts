/**
 * Managed: a resource as a value. It has a name, an acquire, and a release that sees how its user ended.
 *
 * DESIGN. A description: yielded in a scope it is `acquireRelease` with a name, a deadline and a ledger entry; in `use` it is a
 * bracket without a `Scope`; `layer` provides it as a service. This file is the door. Managed/resource.ts has the types and one
 * hold, Managed/all.ts the combinations, Managed/generator.ts and Managed/hotswap.ts one form each. A release runs by
 * internal/release.ts, which bounds and records it.
 *
 * INVARIANTS
 * - Managed-1 (L1) Every successful acquire is followed by exactly one release, whatever the exit.
 * - Managed-2 (L2) Acquire and its registration are one uninterruptible step; only the part that `acquire` passes to `restore`
 *   can be interrupted, and an acquire that was interrupted has registered nothing.
 * - Managed-3 (L4) A release ends by `releaseDeadline`, and during a shutdown by its share of the time that is left, or is
 *   abandoned by name: the cause gains `ReleaseTimeout`, the ledger counts it as abandoned, `onOverrun` runs, and the releases
 *   after it still run.
 * - Managed-4 (L5) A failing release is appended to the cause of its user's exit, or reported to the ledger and the log if
 *   `onReleaseFailure` is `"report"`; it replaces nothing.
 * - Managed-5 (L7) Nothing is acquired into a closed scope: it dies with `OwnerClosed` before its acquire runs.
 * - Managed-6 The release gets its reason: success, failure, interruption, or the shutdown that was requested.
 * - Managed-7 (L3) `all` opens all or nothing, and releases in the reverse of the order in which they were open.
 * - Managed-8 A generator is entered once and left once: its user's failure is thrown in at the `yield`; owners that can change an
 *   exit (`useOption`, ExitStack.ts) take its answer, and no interruption is ever swallowed.
 * - Managed-9 (L9) Without a ledger, recording costs one lookup. With one, the entries that an acquire makes stand under its name.
 * - Managed-10 The release that a scope or a stack runs has the FiberRefs and the context of its acquire, whichever fiber closes.
 * - Managed-11 (L3) A hotswap releases an instance after its last user, and only the newest instance gains users.
 *
 * COST (2026-11, `npm run bench -- Managed`) `use` 1.3 µs with a release of one operation (`acquireUseRelease`, which bounds
 * nothing: 1.7), 5 with one of several, 20 with one that waits; in a scope 15 (Effect's own: 19). The ledger adds 1, the
 * user's line 3 to 4 more.
 * NOT DONE a release that computes for ever: JavaScript cannot stop it. `Effect.gen`'s rule holds for `gen` too: an effect that
 * fails ends the generator without running its `finally`.
 * SOURCES cats-effect `Resource.makeFull` (the argument of the release) and `Hotswap`, OTP child specs (a deadline per release,
 * then the kill), Python's `asynccontextmanager` and `AsyncExitStack`, TC39 explicit resource management.
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import type * as Scope from "effect/Scope"
import {
  asyncDispose,
  type AsyncDisposed,
  disposal,
  type SyncDisposed
} from "./internal/disposable.ts"
import * as Lent from "./internal/lent.ts"
import * as Ledger from "./Ledger.ts"
import { Chained } from "./Managed/all.ts"
import {
  Derived,
  endUnchanged,
  fromScopedAt,
  type Managed,
  type Opened,
  type Options,
  type Restore,
  type Settings,
  settingsOf,
  Single
} from "./Managed/resource.ts"

export { OwnerClosed } from "./internal/handover.ts"
export { ReleaseTimeout } from "./internal/release.ts"
export { all, type AllOptions } from "./Managed/all.ts"
export {
  fromAsyncGenerator,
  gen,
  GeneratorDidNotYield,
  GeneratorFailed,
  type GeneratorOptions,
  GeneratorYieldedTwice,
  type Held,
  Interrupted
} from "./Managed/generator.ts"
export { type Hotswap, hotswap, HotswapTypeId } from "./Managed/hotswap.ts"
export {
  type Managed,
  type Options,
  type ReleaseReason,
  type Restore,
  type Settings,
  TypeId
} from "./Managed/resource.ts"

// Making.

/**
 * Describes a resource. Nothing is acquired until it is yielded in a scope, provided by a layer, or given to `use`.
 *
 * **Details** — The release gets the exit of its user and the reason, and is bounded by `releaseDeadline` (default 5 seconds). In a
 *   scope it runs with the FiberRefs of the acquire, as `Effect.acquireRelease`'s does. `release` may also be the second
 *   argument: then TypeScript knows the type of its parameter however `acquire` is written. As an option it does not where
 *   `acquire` is the data-first form of some operators (`Effect.as(open, x)`, `Effect.map(open, (x) => …)`), which it reads after
 *   `release`; in a pipe it does.
 * **Interruption** — Waiting and opening: only the part that `acquire` gave to `restore`; nothing is then registered. Holding:
 *   released once, before any waiter for the owner sees the interrupt.
 * **Errors** — `E` of the acquire. A failed release is a defect in the owner's cause; one that overruns is a `ReleaseTimeout`
 *   there. In a closed scope it dies with `OwnerClosed`, and acquires nothing.
 * **Cost** — About 15 µs in a scope, less by `use`.
 * **Source** — cats-effect `Resource.makeFull`; the deadline per release is OTP's.
 *
 * **Example** (the release sees the exit)
 * ```ts run
 * import { Effect, Exit } from "effect"
 * import { Managed } from "holdfast"
 *
 * let seen = "nothing"
 * const door = Managed.make({
 *   name: "door",
 *   acquire: Effect.succeed("open"),
 *   release: (_, exit) => Effect.sync(() => { seen = Exit.isSuccess(exit) ? "left in peace" : "left in a hurry" })
 * })
 * await Effect.runPromiseExit(Effect.scoped(Effect.zipRight(door, Effect.fail("fire"))))
 * seen // => "left in a hurry"
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <A, E = never, R = never, R2 = never>(options: Options<A, E, R, R2>): Managed<A, E, R | R2>
  <A, E = never, R = never, R2 = never>(
    options: Omit<Options<A, E, R, R2>, "release">,
    release: Options<A, E, R, R2>["release"]
  ): Managed<A, E, R | R2>
} = <A, E, R, R2>(
  options: Omit<Options<A, E, R, R2>, "release"> & { readonly release?: unknown },
  release = options.release as Options<A, E, R, R2>["release"]
): Managed<A, E, R | R2> => new Single({ ...options, release }, Ledger.unsafeSite(2))

/**
 * One resource of everything that an effect acquires in its scope. The resource owns that scope and closes it within the deadline,
 * also if the effect fails.
 *
 * **Interruption** — Opening: as the effect allows; the part that was acquired is released. Holding: as `make`.
 * **Errors** — Those of the effect; releases as in `make`. **Cost** — As `make`, and a scope.
 *
 * **Example** (a scoped effect with a name and a deadline)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const scoped = Effect.acquireRelease(Effect.succeed("line"), () => Effect.sync(() => log.push("hang up")))
 * const line = Managed.fromScoped({ name: "line", releaseDeadline: "1 second" }, scoped)
 * await Effect.runPromise(Managed.use(line, (open) => Effect.sync(() => log.push(open))))
 * log // => ["line", "hang up"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromScoped = <A, E, R, R2 = never>(
  options: string | Settings<A, R2>,
  effect: Effect.Effect<A, E, R>
): Managed<A, E, Exclude<R, Scope.Scope> | R2> =>
  fromScopedAt(settingsOf(options), effect, Ledger.unsafeSite(2))

/**
 * The services of a layer, as one resource: built when it is opened, released together. Each opening builds anew.
 *
 * **Interruption**, **Errors**, **Cost** — As `fromScoped`, and those of the layer.
 *
 * **Example** (services for one bracket)
 * ```ts run
 * import { Context, Effect, Layer } from "effect"
 * import { Managed } from "holdfast"
 *
 * class Port extends Context.Tag("Port")<Port, number>() {}
 * const services = Managed.fromLayer("services", Layer.succeed(Port, 80))
 * await Effect.runPromise(Managed.use(services, (context) => Effect.provide(Port, context))) // => 80
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromLayer = <A, E, R, R2 = never>(
  options: string | Settings<Context.Context<A>, R2>,
  layer: Layer.Layer<A, E, R>
): Managed<Context.Context<A>, E, R | R2> =>
  // `any`: `Layer.build` asks for nothing but `R` and the scope that it gets here.
  fromScopedAt<Context.Context<A>, E, any, R2>(
    settingsOf(options),
    Layer.build(layer),
    Ledger.unsafeSite(2)
  )

/**
 * A layer that provides a resource as a service, and releases it when the layer ends.
 *
 * **Interruption**, **Errors**, **Cost** — As the resource in a scope.
 *
 * **Example** (a resource as a service)
 * ```ts run
 * import { Context, Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * class Lamp extends Context.Tag("Lamp")<Lamp, string>() {}
 * const lamp = Managed.make({ name: "lamp", acquire: Effect.succeed("lit"), release: () => Effect.void })
 * await Effect.runPromise(Effect.provide(Lamp, Managed.layer(Lamp, lamp))) // => "lit"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: {
  <I, A>(tag: Context.Tag<I, A>): <E, R>(self: Managed<A, E, R>) => Layer.Layer<I, E, R>
  <I, A, E, R>(tag: Context.Tag<I, A>, self: Managed<A, E, R>): Layer.Layer<I, E, R>
} = dual(2, <I, A, E, R>(tag: Context.Tag<I, A>, self: Managed<A, E, R>): Layer.Layer<I, E, R> =>
  // The scope that a Managed asks for is the layer's own.
  Layer.scoped(tag, self) as Layer.Layer<I, E, R>)

// Composing.

/**
 * The same resource with its value changed. A function that throws releases the resource and is a defect.
 *
 * **Interruption**, **Errors**, **Cost** — As the resource.
 *
 * **Example** (a part of the value)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const server = Managed.make({
 *   name: "server",
 *   acquire: Effect.succeed({ port: 80 }),
 *   release: () => Effect.void
 * })
 * await Effect.runPromise(Managed.use(Managed.map(server, ({ port }) => port), Effect.succeed)) // => 80
 * ```
 *
 * @category mapping
 * @since 0.1.0
 */
export const map: {
  <A, B>(f: (value: A) => B): <E, R>(self: Managed<A, E, R>) => Managed<B, E, R>
  <A, E, R, B>(self: Managed<A, E, R>, f: (value: A) => B): Managed<B, E, R>
} = dual(2, <A, E, R, B>(self: Managed<A, E, R>, f: (value: A) => B) => new Derived(self, f))

/**
 * A resource made with another: opened after it, released before it, both as one. Each keeps its name, deadline and ledger entry.
 *
 * **Interruption** — Opening: if the second is interrupted, the first is released. Holding: as one.
 * **Errors** — Those of both; releases as in `make`. **Cost** — That of both.
 *
 * **Example** (a transaction on a connection)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const named = (name: string) =>
 *   Managed.make({
 *     name,
 *     acquire: Effect.sync(() => { log.push(`+${name}`); return name }),
 *     release: () => Effect.sync(() => log.push(`-${name}`))
 *   })
 * const transaction = Managed.flatMap(named("connection"), (connection) => named(`tx on ${connection}`))
 * await Effect.runPromise(Managed.use(transaction, () => Effect.void))
 * log // => ["+connection", "+tx on connection", "-tx on connection", "-connection"]
 * ```
 *
 * @category sequencing
 * @since 0.1.0
 */
export const flatMap: {
  <A, B, E2, R2>(
    f: (value: A) => Managed<B, E2, R2>
  ): <E, R>(self: Managed<A, E, R>) => Managed<B, E | E2, R | R2>
  <A, E, R, B, E2, R2>(
    self: Managed<A, E, R>,
    f: (value: A) => Managed<B, E2, R2>
  ): Managed<B, E | E2, R | R2>
} = dual(
  2,
  <A, E, R, B, E2, R2>(self: Managed<A, E, R>, f: (value: A) => Managed<B, E2, R2>) =>
    new Chained(self, f)
)

// Brackets.

const bracketInMask = <A, E, R, B, E2, R2, C, E3>(
  self: Managed<A, E, R>,
  restore: Restore,
  f: (resource: A) => Effect.Effect<B, E2, R2>,
  end: (opened: Opened<A, E>, exit: Exit.Exit<B, E2>) => Effect.Effect<C, E3>,
  site: Ledger.Site | undefined
): Effect.Effect<C, E | E3, R | R2> =>
  Effect.flatMap(self.openInMask(restore, site), (opened) =>
    Lent.useThen(
      Lent.lend("children"),
      self,
      restore(Effect.suspend(() => f(opened.value))),
      (exit) => end(opened, exit)
    ))

/**
 * Acquires, runs `f`, releases: the bracket, without a `Scope` in the context.
 *
 * **Interruption** — Opening: as in `make`. Holding: `f` is interrupted, the release runs to its end or its deadline, then the
 *   interrupt is seen.
 * **Errors** — `E` of the acquire and of `f`; a failing release is appended to the cause (Managed-4).
 * **Cost** — 1.3 µs with a release of one operation (`Effect.sync`), 5 with one of several, 20 with one that waits.
 *
 * @category operations
 * @since 0.1.0
 */
export const use: {
  <A, B, E2, R2>(
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): <E, R>(self: Managed<A, E, R>) => Effect.Effect<B, E | E2, R | R2>
  <A, E, R, B, E2, R2>(
    self: Managed<A, E, R>,
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<B, E | E2, R | R2>
} = (first: any, second?: any): any => {
  // Not `dual`, nor `...args`: each frame and value between the user's line and this is captured too.
  const site = Ledger.unsafeSite(2)
  return typeof first === "function"
    ? (self: Managed<unknown>) => useAt(site, self, first)
    : useAt(site, first, second)
}

const useAt = <A, E, R, B, E2, R2>(
  site: Ledger.Site | undefined,
  self: Managed<A, E, R>,
  f: (resource: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2, R | R2> =>
  // MASK: from the acquire to the release only `f` can be interrupted.
  Effect.uninterruptibleMask((restore) =>
    self instanceof Single && !self.changesExit
      ? self.useInMask(restore, f, site)
      : bracketInMask(self, restore, f, endUnchanged, site)
  )

const endChanging = <E, B, E2>(
  opened: Opened<unknown, E>,
  exit: Exit.Exit<B, E2>
): Effect.Effect<Option.Option<B>, E | E2> =>
  opened.exit === undefined || Exit.isSuccess(exit)
    ? Effect.map(endUnchanged(opened, exit), Option.some)
    : Effect.flatMap(opened.exit(exit), (changed) =>
      Exit.isSuccess(changed) ? Effect.succeedNone : Effect.failCause(changed.cause))

/**
 * As `use`, for a resource that may swallow its user's failure, as a Python `with` block does: none if it did. It may also replace
 * the failure by one of its own type.
 *
 * **Details** — Only `fromAsyncGenerator`, `gen` and what is made of them can do either; with any other the result is always some.
 * **Interruption** — As `use`; an interruption is never swallowed.
 * **Errors** — `E` of the acquire and of `f`, unless swallowed; a failing release is appended to the cause (Managed-4).
 * **Cost** — As `use`.
 *
 * **Example** (a missing file is ignored)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const forgiving = Managed.fromAsyncGenerator("forgiving", async function*() {
 *   try {
 *     yield "desk"
 *   } catch (error) {
 *     if (error !== "not found") throw error
 *   }
 * })
 * const found = await Effect.runPromise(Managed.useOption(forgiving, () => Effect.fail("not found")))
 * found._tag // => "None"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const useOption: {
  <A, B, E2, R2>(
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): <E, R>(self: Managed<A, E, R>) => Effect.Effect<Option.Option<B>, E | E2, R | R2>
  <A, E, R, B, E2, R2>(
    self: Managed<A, E, R>,
    f: (resource: A) => Effect.Effect<B, E2, R2>
  ): Effect.Effect<Option.Option<B>, E | E2, R | R2>
} = (first: any, second?: any): any => {
  const site = Ledger.unsafeSite(2)
  const useAt = (self: Managed<unknown>, f: (resource: unknown) => Effect.Effect<unknown>) =>
    // MASK: as `use`.
    Effect.uninterruptibleMask((restore) => bracketInMask(self, restore, f, endChanging, site))
  return typeof first === "function"
    ? (self: Managed<unknown>) => useAt(self, first)
    : useAt(first, second)
}

// Interop.

/**
 * A resource of something that can be disposed of (`using`, `await using`): by `Symbol.asyncDispose` if it has that, else by
 * `Symbol.dispose`. `acquire` makes it, as a plain call or as an effect.
 *
 * **Interruption**, **Cost** — As `make`.
 * **Errors** — Those of the effect; a plain call that throws is a defect, and so is a value that cannot be disposed of.
 *
 * **Example** (a disposable in a bracket)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * let open = true
 * const gate = Managed.fromDisposable("gate", () => ({ wide: true, [Symbol.dispose]() { open = false } }))
 * await Effect.runPromise(Managed.use(gate, ({ wide }) => Effect.succeed([wide, open]))) // => [true, true]
 * open // => false
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const fromDisposable = <
  A extends SyncDisposed | AsyncDisposed,
  E = never,
  R = never,
  R2 = never
>(
  options: string | Settings<A, R2>,
  acquire: (() => A) | Effect.Effect<A, E, R>
): Managed<A, E, R | R2> => {
  const settings = settingsOf(options)
  const site = Ledger.unsafeSite(2)
  const opening = Effect.isEffect(acquire) ? acquire : Effect.sync(acquire)
  const opened = Effect.tap(opening, (resource) =>
    disposal(resource) === undefined
      ? Effect.die(new TypeError(`"${settings.name}" has no dispose method.`))
      : Effect.void)
  const release = (resource: A) => disposal(resource) ?? Effect.void
  return new Single({ ...settings, acquire: opened, release }, site)
}

/**
 * A resource that its owner disposes of by hand, or by `await using`.
 *
 * @category models
 * @since 0.1.0
 */
export type Owned<A> = AsyncDisposed & { readonly value: A }

/**
 * Opens a resource for code that is not Effect's: `await using owned = await Effect.runPromise(Managed.toAsyncDisposable(m))`.
 *
 * **Details** — Its release sees a success: a disposable does not learn how its user ended. To dispose of it again waits for the
 *   one release.
 * **Interruption** — Opening: as `make`; if it was interrupted by the time it is open, it is released at once. After that the
 *   caller is the owner: run it as a whole program, so that no interrupt can lose the result.
 * **Errors** — Those of the acquire. A failing release rejects the promise of the disposal.
 * **Cost** — As `make`.
 *
 * **Example** (disposed of at the end of the block)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * let lit = false
 * const lamp = Managed.make({
 *   name: "lamp",
 *   acquire: Effect.sync(() => { lit = true; return "lamp" }),
 *   release: () => Effect.sync(() => { lit = false })
 * })
 * const owned = await Effect.runPromise(Managed.toAsyncDisposable(lamp))
 * const before = [owned.value, lit]
 * await owned[Symbol.asyncDispose]()
 * before.concat(lit) // => ["lamp", true, false]
 * ```
 *
 * @category interop
 * @since 0.1.0
 */
export const toAsyncDisposable = <A, E, R>(
  self: Managed<A, E, R>
): Effect.Effect<Owned<A>, E, R> => {
  const site = Ledger.unsafeSite(2)
  // MASK: until it is open and handed over, this owns it; waiting is restored by `acquire` itself.
  return Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const runtime = yield* Effect.runtime()
      const { close, value } = yield* self.openInMask(restore, site)
      // Set before the release begins: that may dispose of it, too.
      let ending: Promise<void> | undefined
      const end = (): Promise<void> => {
        if (ending !== undefined) return ending
        let endsAs!: (ended: Promise<void>) => void
        ending = new Promise((resolve) => {
          endsAs = resolve
        })
        // MASK: only its deadline can end it early.
        endsAs(Runtime.runPromise(runtime, Effect.uninterruptible(close(Exit.void))))
        return ending
      }
      return yield* Effect.matchCauseEffect(restore(Effect.void), {
        onFailure: (cause) => endUnchanged({ value, close }, Exit.failCause(cause)),
        onSuccess: () => Effect.succeed({ value, [asyncDispose()]: end })
      })
    })
  )
}
