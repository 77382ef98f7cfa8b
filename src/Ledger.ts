/**
 * Ledger: the record of every hold: its resource, fiber, times, line, and end.
 *
 * DESIGN. A ledger is written by synchronous calls from the same step that acquires or releases, so it never disagrees with
 * what is held. It is found through a `Context.Reference` whose default is "off": without `Ledger.layer` no entry is made, and
 * neither clock nor stack is read. Costly answers (the text of a line, a deadlock) are computed when they are read. Folder
 * Ledger: model.ts (types), recorder.ts (the ledger), entry.ts (one hold), deadlock.ts, meter.ts, words.ts; View.ts shows it.
 *
 * INVARIANTS
 * - Ledger-1 `acquired = released + abandoned + held`, per kind, in every snapshot.
 * - Ledger-2 An entry ends once: the first end (released, failed, abandoned) counts, a later one is ignored.
 * - Ledger-3 Memory is O(held + kinds + `history`): older ended entries leave only their counts, and no entry keeps anything
 *   of the user's alive but its attributes.
 * - Ledger-4 Off, nothing is recorded and neither a clock nor a stack is read, except, outside of any fiber, the lines of the
 *   first 1,000 descriptions; ids are unique and ascend.
 * - Ledger-5 Taking the fiber that made a request for the one that releases it: a deadlock is reported if and only if, among
 *   the recorded waits, fibers wait for each other in a circle and no other holder could serve one of them by a release.
 * - Ledger-6 A listener sees every change in its order, numbered; if it falls behind, the gap shows in the numbers.
 *
 * COST (2026-11, `npm run bench -- Managed`) see `layer`. Line retention (entry.ts, site.ts): an eager `Error.stack` costs 2 to
 * 2.5 µs per acquire on top of the 1.7 to 2.2 µs of `new Error` with 2 or 3 frames; `prepareStackTrace` with the numbers of one
 * frame costs 1.2 µs on top but ignores source maps. So lines are captured and read later.
 * NOT DONE waits that are not for a resource of this library (`Fiber.join`, a `Deferred`): a circle through one of them is
 * not seen. What a scope holds counts as held by the fiber that acquired it: a circle is also reported where another fiber
 * could still close that scope.
 * SOURCES Loom's thread dump (owners as a tree), HikariCP's leak detection, Deno's resource sanitizer, Coffman's wait-for graph,
 * OpenTelemetry's semantic conventions.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import { type AnyFiber, currentFiber } from "./internal/runtime.ts"
import * as CapturedSite from "./internal/site.ts"
import * as Span from "./internal/span.ts"
import { currentOwner } from "./Ledger/entry.ts"
import type * as Model from "./Ledger/model.ts"
import { make as makeLedger } from "./Ledger/recorder.ts"
import * as Words from "./Ledger/words.ts"

export type {
  Deadlock,
  Details,
  Entry,
  Event,
  LayerOptions,
  Options,
  Recorder,
  Service,
  Site,
  Sites,
  Snapshot,
  State,
  Totals
} from "./Ledger/model.ts"
export { StillHeld, TypeId } from "./Ledger/model.ts"

/**
 * The options of `withSpan`.
 *
 * @category models
 * @since 0.1.0
 */
export interface SpanOptions {
  /** Default: none. */
  readonly attributes?: (() => Readonly<Record<string, unknown>>) | undefined
  /** Default `"internal"`. */
  readonly kind?: Tracer.SpanKind | undefined
}

/**
 * The ledger in force, or `undefined` (the default).
 *
 * @category tags
 * @since 0.1.0
 */
export class Ledger extends Context.Reference<Ledger>()("holdfast/Ledger", {
  defaultValue: (): Model.Service | undefined => undefined
}) {}

/** Lines that are still captured outside of any fiber; unbounded once a ledger exists that records lines. */
let linesOutside = 1000

const open = (where: string, options: Model.LayerOptions): Effect.Effect<Model.Service> =>
  Effect.tap(makeLedger(where, options), ({ sites }) => {
    if (sites !== "off") linesOutside = Infinity
    return Effect.void
  })

/**
 * Makes an empty ledger. Its times are of the `Clock` in force here.
 *
 * **Errors** — an invalid option is a `RangeError` defect. **Cost** — two maps; see `layer` for the cost of an entry.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Model.Options = {}): Effect.Effect<Model.Service> =>
  open("Ledger.make", options)

/** Looks four times per `leakAfter`, so a warning is at most a quarter of it late. */
const watch = (ledger: Model.Service, leakAfter: Duration.Duration): Effect.Effect<never> => {
  const warn = Effect.suspend(() =>
    Effect.forEach(ledger.unsafeOverdue(leakAfter), (line) => Effect.logWarning(line), {
      discard: true
    })
  )
  return Effect.forever(Effect.zipRight(Effect.sleep(Duration.times(leakAfter, 0.25)), warn))
}

/**
 * An entry in words, safe to print: kind, name, state, owners, fiber and line.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describe = (entry: Model.Entry): string => Words.describe(entry)

/**
 * A deadlock in words, safe to print; `live` is of the same snapshot.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeDeadlock = (
  deadlock: Model.Deadlock,
  live: ReadonlyArray<Model.Entry>
): string => Words.describeDeadlock(deadlock.waits, live)

/**
 * Turns the ledger on for everything built on this layer.
 *
 * **Details** — Provide it last, outside the layers it should see: layers merged beside it do not see it. `leakAfter` is checked
 *   four times in that time. `Main.run` provides a ledger already: pass the options there, because Main cannot report what a
 *   ledger of your own inside it records.
 * **Errors** — as `make`. **Cost** — about 1 µs for an acquire and its release, 2 to 4 more with sites; a snapshot of 10,000
 *   held about 3 ms, and 3 µs for each line that is then read.
 *
 * **Example** (nothing is left)
 * ```ts run
 * import { Effect } from "effect"
 * import { Ledger, Managed } from "holdfast"
 *
 * const lamp = Managed.make({
 *   name: "lamp",
 *   kind: "light",
 *   acquire: Effect.succeed("on"),
 *   release: () => Effect.void
 * })
 * const sum = Effect.gen(function*() {
 *   yield* Managed.use(lamp, () => Effect.void)
 *   yield* Ledger.assertEmpty
 *   return (yield* Ledger.snapshot).kinds["light"]
 * })
 * const totals = await Effect.runPromise(Effect.provide(sum, Ledger.layer()))
 * totals // => { acquired: 1, released: 1, failed: 0, abandoned: 0 }
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Model.LayerOptions = {}): Layer.Layer<never> =>
  Layer.scoped(
    Ledger,
    Effect.tap(open("Ledger.layer", options), (ledger) => {
      const leakAfter = Duration.decode(options.leakAfter ?? Infinity)
      return Duration.isFinite(leakAfter) && !Duration.isZero(leakAfter)
        ? Effect.forkScoped(Effect.interruptible(watch(ledger, leakAfter)))
        : Effect.void
    })
  )

/**
 * `layer` with options from the configuration.
 *
 * **Errors** — `ConfigError`, and as `layer`.
 *
 * **Example** (a warning after `LEAK_AFTER`, if it is set)
 * ```ts run
 * import { Config, ConfigProvider, Effect, Layer } from "effect"
 * import { Ledger } from "holdfast"
 *
 * const ledger = Ledger.layerConfig({
 *   leakAfter: Config.withDefault(Config.duration("LEAK_AFTER"), Infinity),
 *   history: Config.succeed(100)
 * })
 * const config = Layer.setConfigProvider(ConfigProvider.fromMap(new Map([["LEAK_AFTER", "1 minute"]])))
 * const { total } = await Effect.runPromise(
 *   Effect.provide(Ledger.snapshot, Layer.provide(ledger, config))
 * )
 * total.acquired // => 0
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Config.Wrap<Model.LayerOptions>
): Layer.Layer<never, ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layer))

/**
 * The ledger in force in that fiber; by default in the current one.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeInForce = (
  fiber: AnyFiber | undefined = currentFiber()
): Model.Service | undefined =>
  // Not `Context.get`, which also looks for the default of a reference.
  fiber?.currentContext.unsafeMap.get(Ledger.key) as Model.Service | undefined

const sitesIn = (fiber: AnyFiber | undefined): Model.Sites => {
  if (fiber !== undefined) return unsafeInForce(fiber)?.sites ?? "off"
  return linesOutside-- > 0 ? "first" : "off"
}

/**
 * The line of the user's code that called the caller of this function, if the ledger in force records lines. Outside of any fiber
 * there is no ledger: the line is captured if a ledger that records lines was made before. If not, only the first 1,000 lines are
 * captured, for resources that modules describe while they are loaded; so callbacks of a server without a ledger cost nothing.
 *
 * Call it synchronously in a function that the user calls. At most `frames` frames may be ours, this one included.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeSite = (frames = 6): Model.Site | undefined => {
  const sites = sitesIn(currentFiber())
  if (sites === "off") return undefined
  const before = Error.stackTraceLimit
  // Each frame costs time, so no more are captured than can be needed.
  Error.stackTraceLimit = sites === "first" ? frames + 1 : frames + 24
  const stack = new Error()
  Error.stackTraceLimit = before
  return new CapturedSite.Site(stack, sites === "first" ? 1 : 16)
}

/**
 * Names an owner: the ledger shows everything acquired inside under it.
 *
 * **Interruption**, **Errors** — the effect's own. **Cost** — one `FiberRef` with the ledger on, none when off.
 *
 * **Example** (a page of a report)
 * ```ts run
 * import { Effect } from "effect"
 * import { Ledger, Managed } from "holdfast"
 *
 * const page = Managed.make({ name: "page", acquire: Effect.void, release: () => Effect.void })
 * const program = Managed.use(page, () => Ledger.snapshot).pipe(Ledger.withOwner("report 42"))
 * const { live } = await Effect.runPromise(Effect.provide(program, Ledger.layer()))
 * live.map((entry) => [...entry.owner, entry.name]) // => [["report 42", "page"]]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withOwner: {
  (name: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, name: string): Effect.Effect<A, E, R> =>
    Effect.suspend(() =>
      unsafeInForce() === undefined
        ? self
        : Effect.locallyWith(self, currentOwner, (outer) => ({ name, site: undefined, outer }))
    )
)

/**
 * Sets the line that the ledger shows for everything acquired inside without a line of the user's. For a function that acquires
 * on behalf of its caller: capture the line by `unsafeSite` in the call itself.
 *
 * **Interruption**, **Errors** — the effect's own. **Cost** — one `FiberRef` where there is a line, none otherwise.
 *
 * @category operations
 * @since 0.1.0
 */
export const withSite = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  site: Model.Site | undefined
): Effect.Effect<A, E, R> =>
  site === undefined
    ? self
    : Effect.locallyWith(self, currentOwner, (outer) => ({ name: undefined, site, outer }))

/**
 * Runs an effect in a tracing span `holdfast.<operation>`, if the program has a tracer. For modules that acquire: resources,
 * backends and adapters.
 *
 * **Details** — With Effect's default tracer, which records nothing, or with tracing disabled there is no span. `operation` is
 *   `<module>.<operation>`; `attributes` is called only if there is a span; name them as OpenTelemetry's conventions do.
 * **Interruption**, **Errors** — the effect's own. **Cost** — without a tracer one step of the fiber.
 *
 * **Example** (a span of an adapter)
 * ```ts run
 * import { Effect } from "effect"
 * import { Ledger } from "holdfast"
 *
 * const download = Ledger.withSpan(Effect.succeed(200), "mirror.download", {
 *   kind: "client",
 *   attributes: () => ({ "url.full": "https://example.org/" })
 * })
 * await Effect.runPromise(download) // => 200
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withSpan = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  operation: string,
  options: SpanOptions = {}
): Effect.Effect<A, E, R> =>
  Effect.withFiberRuntime((fiber) =>
    Span.withSpan(fiber, self, operation, attributesOf, options, options.kind)
  )

const attributesOf = ({ attributes }: SpanOptions) => attributes?.() ?? {}

const inForce: Effect.Effect<Model.Service> = Effect.flatMap(
  Ledger,
  (ledger) =>
    ledger === undefined
      ? Effect.dieMessage("No ledger is in force: provide `Ledger.layer()`, or run by `Main.run`.")
      : Effect.succeed(ledger)
)

/**
 * A copy of the ledger in force.
 *
 * **Errors** — without a ledger it is a defect. **Cost** — a copy of the entries.
 *
 * @category getters
 * @since 0.1.0
 */
export const snapshot: Effect.Effect<Model.Snapshot> = Effect.flatMap(
  inForce,
  (ledger) => ledger.snapshot
)

/**
 * Fails with the live entries, if there are any. Call it at the end of a test, after the layers that hold resources have closed.
 *
 * **Errors** — `StillHeld`; without a ledger it is a defect, so that a test without one does not pass.
 * **Cost** — as `snapshot`.
 *
 * @category operations
 * @since 0.1.0
 */
export const assertEmpty: Effect.Effect<void, Model.StillHeld> = Effect.flatMap(
  inForce,
  (ledger) => ledger.assertEmpty
)

/**
 * The entries held for longer than that, the oldest first.
 *
 * **Errors** — without a ledger it is a defect. **Cost** — one comparison for each live entry.
 *
 * @category getters
 * @since 0.1.0
 */
export const leaks = (
  olderThan: Duration.DurationInput
): Effect.Effect<ReadonlyArray<Model.Entry>> =>
  Effect.flatMap(inForce, (ledger) => ledger.leaks(olderThan))

const eventBuffer = 4096

/**
 * Every change from now on. A reader that falls more than 4,096 changes behind loses the oldest and sees it in `seq`.
 *
 * **Interruption** — Waiting: at once; the listener is removed. **Errors** — without a ledger it is a defect.
 * **Cost** — a copy of the entry for each change while the stream is read.
 *
 * @category getters
 * @since 0.1.0
 */
export const events: Stream.Stream<Model.Event> = Stream.unwrap(
  Effect.map(inForce, (ledger) =>
    Stream.asyncPush<Model.Event>(
      (emit) =>
        Effect.acquireRelease(
          Effect.sync(() => ledger.unsafeListen((event) => void emit.single(event))),
          (remove) => Effect.sync(remove)
        ),
      { bufferSize: eventBuffer, strategy: "sliding" }
    ))
)
