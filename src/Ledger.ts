/**
 * Ledger: who holds what, since when, from which line, and how each hold ended.
 *
 * DESIGN. A ledger is an object of plain counters, one map of live entries and a ring of ended ones, written by synchronous
 * calls from the same step that acquires or releases, so it can never disagree with what is held. It is found through a
 * `Context.Reference` whose default is "off": without `Ledger.layer` no entry is made, no clock and no stack is read. What
 * is dear (the text of a line, who blocks whom, a deadlock) is worked out when somebody looks. It is shown by Ledger/View.ts.
 *
 * INVARIANTS
 * - Ledger-1 `acquired = released + abandoned + held`, per kind, in every snapshot.
 * - Ledger-2 An entry ends once: the first end (released, failed, abandoned) counts, a later one is ignored.
 * - Ledger-3 Memory is O(held + kinds + `history`): older ended entries leave only their counts, and no entry keeps anything
 *   of the user's alive but its attributes.
 * - Ledger-4 Off, nothing is recorded and neither a clock nor a stack is read, but, outside of any fiber, the lines of the
 *   first 1,000 descriptions; ids are unique and ascend.
 * - Ledger-5 Taking who asked for a hold for the one who lets go of it: a deadlock is reported if and only if, among the
 *   recorded waits, fibers wait for each other in a circle and nobody else holds anything that could let one of them go on.
 * - Ledger-6 A listener sees every change in its order, numbered; if it falls behind, the gap shows in the numbers.
 *
 * COST (2026-11, `npm run bench -- Managed`) see `layer`.
 * NOT DONE waits that are not for a resource of this library (`Fiber.join`, a `Deferred`): a circle through one of them is
 * not seen. What a scope holds counts as held by the fiber that took it: a circle is also reported where another fiber
 * could still close that scope.
 * SOURCES Loom's thread dump (owners as a tree), HikariCP's leak detection, Deno's resource sanitizer, Coffman's wait-for graph.
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import { dual } from "effect/Function"
import * as GlobalValue from "effect/GlobalValue"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"
import * as MetricLabel from "effect/MetricLabel"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import { prettyOf } from "./internal/exit.ts"
import * as CapturedSite from "./internal/site.ts"
import * as Span from "./internal/span.ts"

/**
 * What is kept of the line that asked: nothing, the line itself, or the user's whole stack.
 *
 * @category models
 * @since 0.1.0
 */
export type Sites = "off" | "first" | "full"

/**
 * What `make` and `layer` take.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What is kept of the line that asked. Default `"first"`. */
  readonly sites?: Sites | undefined
  /** How many ended entries are kept. Default 1,000. */
  readonly history?: number | undefined
  /**
   * Whether to feed `Metric`: the gauge `resource.held` by `state`; the histograms `resource.acquire.duration`,
   * `resource.hold.duration` and `resource.release.duration`, in seconds; the counters `resource.failed` (acquires and releases),
   * `resource.abandoned` and `resource.leaked`; all by `resource.kind`. Default `false`.
   */
  readonly metrics?: boolean | undefined
  /** The kinds that `leakAfter` is about, such as `["lock", "pool lease"]`: what lives as long as its program is no leak. Default: all. */
  readonly leakKinds?: ReadonlyArray<string> | undefined
}

/**
 * What `layer` takes besides.
 *
 * @category models
 * @since 0.1.0
 */
export interface LayerOptions extends Options {
  /** Warn once, in the log, of each resource that is held for longer, and of each deadlock. Default: never. */
  readonly leakAfter?: Duration.DurationInput | undefined
}

/**
 * Where a hold stands. `failed`: its acquire failed (it was never held) or its release did.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "acquiring" | "held" | "releasing" | "released" | "failed" | "abandoned"

/**
 * One hold. Times are in milliseconds of the ledger's `Clock`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Unique in its ledger, ascending. */
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: State
  /** When it entered `state`. */
  readonly since: number
  /** Inside what it was asked for, the outermost first: see `withOwner`. */
  readonly owner: ReadonlyArray<string>
  /** Who asked: `"#12"`. */
  readonly fiber: string | undefined
  /** The span in which it was asked for. */
  readonly span: string | undefined
  /**
   * The line that asked: `"openDb (/app/src/db.ts:12:10)"`; with sites `"full"` the user's stack, a line each. Where Effect asked
   * on the user's behalf (a pipe, `Layer.scoped`, `Effect.all`) it is the line that described the resource.
   */
  readonly site: string | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  /** The ids of those that hold what this one waits for; of many the first 100. */
  readonly blockedBy: ReadonlyArray<number>
  readonly askedAt: number
  readonly heldAt: number | undefined
  readonly releasingAt: number | undefined
  readonly endedAt: number | undefined
  /** Why it failed or was abandoned. */
  readonly cause: string | undefined
}

/**
 * How many holds of one kind began and how they ended. `failed` counts the releases, already in `released`, that ended in
 * a failure of their own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Totals {
  readonly acquired: number
  readonly released: number
  readonly failed: number
  readonly abandoned: number
}

/**
 * Fibers that wait for each other in a circle: `waiter` waits for what `holder` is, which belongs to the fiber of the next
 * waiter, and so round. Ids of entries.
 *
 * @category models
 * @since 0.1.0
 */
export interface Deadlock {
  readonly waits: ReadonlyArray<{ readonly waiter: number; readonly holder: number }>
}

/**
 * A consistent picture of the ledger at one instant. What is waiting, held or being released stands in
 * `live` by ascending id, the history in `ended` with the oldest end first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly takenAt: number
  readonly total: Totals
  readonly kinds: Readonly<Record<string, Totals>>
  readonly live: ReadonlyArray<Entry>
  readonly ended: ReadonlyArray<Entry>
  readonly deadlocks: ReadonlyArray<Deadlock>
}

/**
 * A change: `entry` as it became. `seq` counts up by one for each change of the ledger.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event {
  readonly seq: number
  readonly at: number
  readonly entry: Entry
}

/**
 * Something is still held where nothing should be. The entries name it.
 *
 * @category errors
 * @since 0.1.0
 */
export class StillHeld extends Data.TaggedError("StillHeld")<{
  readonly entries: ReadonlyArray<Entry>
}> {
  override get message(): string {
    const shown = this.entries.slice(0, 10).map((entry) =>
      `${entry.kind} "${entry.name}" (${entry.state}${lineIn(", asked for at ", entry)})`
    )
    const more = this.entries.length - shown.length
    return `${this.entries.length} resource(s) still held: ${shown.join(", ")}${
      more > 0 ? ` and ${more} more` : ""
    }. Look for a scope that is never closed or a release that never ends.`
  }
}

/**
 * A line that was captured and that nobody has read yet.
 *
 * @category models
 * @since 0.1.0
 */
export interface Site {
  readonly text: string | undefined
  /** Makes it plain text, which keeps nothing of the user's alive. */
  readonly settle?: (() => void) | undefined
}

/**
 * What a module that acquires can tell of one hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Details {
  readonly site?: Site | undefined
  readonly attributes?: Readonly<Record<string, unknown>> | undefined
  /** Who holds what is waited for; asked whenever somebody looks, as long as it waits. */
  readonly blockedBy?: (() => Iterable<Entry>) | undefined
  /**
   * Whether it would be served if those for which `letsGo` is true let go. Default: one of `blockedBy` is enough. A look for
   * deadlocks asks it again and again with ever more of them: once true, it stays true.
   */
  readonly isServedIf?: ((letsGo: (holder: Entry) => boolean) => boolean) | undefined
  /** Who asks. Default: the current fiber. */
  readonly fiber?: Fiber.RuntimeFiber<unknown, unknown> | undefined
}

/**
 * What `withSpan` takes.
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
 * The writing side, used by the modules that acquire. Each call is synchronous and is made in the very step it records; the
 * time is of the ledger's own clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  /** Opens an entry in state `acquiring`. */
  readonly unsafeAcquiring: (kind: string, name: string, details?: Details) => Entry
  /** The acquire failed or was interrupted: nothing is counted. */
  readonly unsafeGaveUp: (entry: Entry, cause?: Cause.Cause<unknown>) => void
  readonly unsafeHeld: (entry: Entry, attributes?: Readonly<Record<string, unknown>>) => void
  readonly unsafeReleasing: (entry: Entry) => void
  readonly unsafeReleased: (entry: Entry, failure?: Cause.Cause<unknown>) => void
  readonly unsafeAbandoned: (entry: Entry, cause?: Cause.Cause<unknown>) => void
}

/**
 * A ledger: a recorder and its readers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service extends Recorder {
  readonly sites: Sites
  readonly snapshot: Effect.Effect<Snapshot>
  readonly unsafeSnapshot: () => Snapshot
  /** Fails with the live entries, if there are any. */
  readonly assertEmpty: Effect.Effect<void, StillHeld>
  /** What has been held for longer, the oldest first. */
  readonly leaks: (olderThan: Duration.DurationInput) => Effect.Effect<ReadonlyArray<Entry>>
  /** In words, each once: what has been held for longer than `leakAfter`, and deadlocks. */
  readonly unsafeOverdue: (leakAfter: Duration.Duration) => ReadonlyArray<string>
  /** Calls `listener` in the step of each change, until the returned function is called. It must not throw. */
  readonly unsafeListen: (listener: (event: Event) => void) => () => void
}

/**
 * The ledger in force, or `undefined` when nobody looks (the default).
 *
 * @category tags
 * @since 0.1.0
 */
export class Ledger extends Context.Reference<Ledger>()("holdfast/Ledger", {
  defaultValue: (): Service | undefined => undefined
}) {}

/** Inside what something is asked for; a linked list, so that to go one deeper copies nothing. */
interface Owner {
  readonly name: string | undefined
  /** The line to show for what has none of its own. */
  readonly site: Site | undefined
  readonly outer: Owner | undefined
}

const currentOwner: FiberRef.FiberRef<Owner | undefined> = GlobalValue.globalValue(
  "holdfast/Ledger/currentOwner",
  () => FiberRef.unsafeMake<Owner | undefined>(undefined)
)

const pathOf = (owner: Owner | undefined): ReadonlyArray<string> => {
  const path: Array<string> = []
  for (let at = owner; at !== undefined; at = at.outer) {
    if (at.name !== undefined) path.push(at.name)
  }
  return path.toReversed()
}

/** What a module of ours acquires for its user has no line of the user's: then it is that of the nearest call that has. */
const lineOf = (line: Site | undefined, inside: Owner | undefined): string | undefined => {
  let text = line?.text
  for (let at = inside; text === undefined && at !== undefined; at = at.outer) text = at.site?.text
  return text
}

interface MutableTotals {
  acquired: number
  released: number
  failed: number
  abandoned: number
}

/**
 * Why something failed: made into text if somebody asks, or soon; until then it keeps the user's error. Guarded by the
 * single thread.
 */
class Reason {
  #cause: Cause.Cause<unknown> | undefined
  #text = ""

  constructor(cause: Cause.Cause<unknown>) {
    this.#cause = cause
  }

  get text(): string {
    this.settle()
    return this.#text
  }

  settle(): void {
    if (this.#cause === undefined) return
    this.#text = prettyOf(this.#cause)
    this.#cause = undefined
  }
}

const nothing: Readonly<Record<string, unknown>> = {}

const mostBlockers = 100

/** An entry as it is kept. Guarded by the single thread; written only by the recorder. */
class Kept implements Entry {
  /** Whose it is: in another ledger its number means nothing. */
  readonly book: unknown
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly askedAt: number
  /** The number of the fiber that asked. */
  readonly asker: number | undefined
  readonly span: string | undefined
  /** Like `line`, none any more once nobody can ask for it. */
  inside: Owner | undefined
  line: Site | undefined
  state: State = "acquiring"
  since: number
  attributes: Readonly<Record<string, unknown>>
  blockers: (() => Iterable<Entry>) | undefined
  served: ((letsGo: (holder: Entry) => boolean) => boolean) | undefined
  heldAt: number | undefined = undefined
  releasingAt: number | undefined = undefined
  endedAt: number | undefined = undefined
  reason: Reason | undefined = undefined
  warned = false
  /** Whether somebody has a picture of it, which reads the same lines. */
  isShown = false

  constructor(
    book: unknown,
    id: number,
    kind: string,
    name: string,
    now: number,
    details: Details | undefined,
    fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  ) {
    this.book = book
    this.id = id
    this.kind = kind
    this.name = name
    this.askedAt = now
    this.since = now
    this.asker = fiber?.id().id
    this.span = spanOf(fiber)
    this.inside = fiber?.getFiberRef(currentOwner)
    this.line = details?.site
    this.attributes = details?.attributes ?? nothing
    this.blockers = details?.blockedBy
    this.served = details?.isServedIf
  }

  get owner(): ReadonlyArray<string> {
    return pathOf(this.inside)
  }

  get fiber(): string | undefined {
    return this.asker === undefined ? undefined : `#${this.asker}`
  }

  get site(): string | undefined {
    return lineOf(this.line, this.inside)
  }

  get blockedBy(): ReadonlyArray<number> {
    // Ten thousand waiters for a thousand holders are as many pairs, and nobody reads them.
    return this.inTheWay(mostBlockers).map(({ id }) => id)
  }

  /** Who holds what it waits for, as far as this ledger knows; a module that cannot tell costs nobody his snapshot. */
  inTheWay(most = Infinity): ReadonlyArray<Kept> {
    const found: Array<Kept> = []
    if (this.state !== "acquiring" || this.blockers === undefined) return found
    try {
      for (const entry of this.blockers()) {
        if (this.isBeside(entry) && found.push(entry) === most) break
      }
    } catch {
      return []
    }
    return found
  }

  isBeside(entry: Entry): entry is Kept {
    return entry instanceof Kept && entry.book === this.book
  }

  get cause(): string | undefined {
    return this.reason?.text
  }

  copy(): Entry {
    this.isShown = true
    return new Copy(this)
  }

  get mayKeepAlive(): boolean {
    return this.line?.settle !== undefined || this.inside !== undefined || this.reason !== undefined
  }

  /** Makes text of what may keep something of the user's alive. */
  settle(): void {
    this.line?.settle?.()
    for (let at = this.inside; at !== undefined; at = at.outer) at.site?.settle?.()
    this.reason?.settle()
  }

  /** Nobody can ask for it any more, but who has a picture of it. */
  forget(): void {
    if (this.isShown) this.settle()
    this.line = undefined
    this.inside = undefined
    this.reason = undefined
  }
}

/** An entry as it was. Its line is read when somebody looks at it: of 10,000 that would be most of a snapshot's time. */
class Copy implements Entry {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: State
  readonly since: number
  readonly owner: ReadonlyArray<string>
  readonly fiber: string | undefined
  readonly span: string | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  readonly blockedBy: ReadonlyArray<number>
  readonly askedAt: number
  readonly heldAt: number | undefined
  readonly releasingAt: number | undefined
  readonly endedAt: number | undefined
  readonly #line: Site | undefined
  readonly #inside: Owner | undefined
  readonly #reason: Reason | undefined

  constructor(kept: Kept) {
    this.id = kept.id
    this.kind = kept.kind
    this.name = kept.name
    this.state = kept.state
    this.since = kept.since
    this.owner = kept.owner
    this.fiber = kept.fiber
    this.span = kept.span
    this.attributes = kept.attributes
    this.blockedBy = kept.blockedBy
    this.askedAt = kept.askedAt
    this.heldAt = kept.heldAt
    this.releasingAt = kept.releasingAt
    this.endedAt = kept.endedAt
    this.#line = kept.line
    this.#inside = kept.inside
    this.#reason = kept.reason
  }

  get site(): string | undefined {
    return lineOf(this.#line, this.#inside)
  }

  get cause(): string | undefined {
    return this.#reason?.text
  }

  toJSON(): Entry {
    return { ...this, site: this.site, cause: this.cause }
  }
}

const spanOf = (fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined): string | undefined => {
  const span = fiber?.currentSpan
  return span?._tag === "Span" ? span.name : undefined
}

const zero = (): MutableTotals => ({ acquired: 0, released: 0, failed: 0, abandoned: 0 })

const sum = (kinds: Iterable<Totals>): Totals => {
  const total = zero()
  for (const one of kinds) {
    total.acquired += one.acquired
    total.released += one.released
    total.failed += one.failed
    total.abandoned += one.abandoned
  }
  return total
}

/** The last `size` of what was put in. */
class Ring<A> {
  readonly size: number
  // Guarded by the single thread.
  readonly #items: Array<A> = []
  #next = 0

  constructor(size: number) {
    this.size = size
  }

  /** Gives what there is no room for any more. */
  add(item: A): A | undefined {
    if (this.size === 0) return item
    const dropped = this.#items[this.#next]
    this.#items[this.#next] = item
    this.#next = (this.#next + 1) % this.size
    return dropped
  }

  /** The oldest first. */
  toArray(): ReadonlyArray<A> {
    return this.#items.length < this.size
      ? this.#items
      : [...this.#items.slice(this.#next), ...this.#items.slice(0, this.#next)]
  }
}

// Deadlocks.

const isServed = (waiter: Kept, letsGo: (holder: Entry) => boolean): boolean =>
  waiter.served === undefined ? waiter.inTheWay().some(letsGo) : waiter.served(letsGo)

/** By the fiber that waits: a thousand who wait for a thousand are a million pairs, so who holds is asked for when needed. */
const waitsAmong = (live: Iterable<Kept>): Map<number, Kept> => {
  const waits = new Map<number, Kept>()
  for (const waiter of live) {
    if (waiter.asker !== undefined && waiter.inTheWay(1).length > 0) waits.set(waiter.asker, waiter)
  }
  return waits
}

/** The waits, by fiber, that nobody can end: not even if all who are not among them let go of what they hold. */
const stuckWaits = (live: Iterable<Kept>): ReadonlyMap<number, Kept> => {
  const waits = waitsAmong(live)
  // Whoever would be served goes on by and by, and lets go; then those are looked at again who asked for that.
  const askersOf = new Map<number, Array<number>>()
  const unsettled = Array.from(waits.keys()).toReversed()
  for (let asker = unsettled.pop(); asker !== undefined; asker = unsettled.pop()) {
    const waiter = waits.get(asker)
    if (waiter === undefined) continue
    const letsGo = (holder: Entry): boolean => {
      const of = holder instanceof Kept && waiter.isBeside(holder) ? holder.asker : undefined
      if (of === undefined || !waits.has(of)) return true
      const known = askersOf.get(of)
      if (known === undefined) askersOf.set(of, [asker])
      else known.push(asker)
      return false
    }
    if (!isServed(waiter, letsGo)) continue
    waits.delete(asker)
    for (const again of askersOf.get(asker) ?? []) unsettled.push(again)
  }
  return waits
}

/** Whom of its holders a stuck wait is shown to wait for: one that is stuck as well, and another fiber if there is one. */
const stuckHolder = (waiter: Kept, stuck: ReadonlyMap<number, Kept>): Kept | undefined => {
  const isStuck = ({ asker }: Kept) => asker !== undefined && stuck.has(asker)
  const holders = waiter.inTheWay()
  return holders.find((holder) => isStuck(holder) && holder.asker !== waiter.asker)
    ?? holders.find(isStuck)
}

/** One circle for each knot of stuck waits; who merely waits for somebody in a circle is not part of it. */
const deadlocksAmong = (live: Iterable<Kept>): ReadonlyArray<Deadlock> => {
  const stuck = stuckWaits(live)
  const seen = new Set<number>()
  const found: Array<Deadlock> = []
  for (const start of stuck.keys()) {
    const path: Array<
      { readonly asker: number; readonly waiter: number; readonly holder: number }
    > = []
    let at: number | undefined = start
    while (at !== undefined && !seen.has(at)) {
      seen.add(at)
      const waiter: Kept | undefined = stuck.get(at)
      const holder: Kept | undefined = waiter && stuckHolder(waiter, stuck)
      if (waiter === undefined || holder === undefined) break
      path.push({ asker: at, waiter: waiter.id, holder: holder.id })
      at = holder.asker
    }
    // Back on this very path: a circle. On an older one: that one has been reported.
    const from = path.findIndex(({ asker }) => asker === at)
    if (from >= 0) {
      found.push({ waits: path.slice(from).map(({ holder, waiter }) => ({ waiter, holder })) })
    }
  }
  return found
}

// Metrics.

interface Meter {
  readonly moved: (kind: string, from: State | undefined, to: State) => void
  readonly acquired: (kind: string, millis: number) => void
  readonly held: (kind: string, millis: number) => void
  readonly released: (kind: string, millis: number) => void
  readonly abandoned: (kind: string) => void
  readonly failed: (kind: string) => void
  readonly leaked: (kind: string) => void
}

/** One for all ledgers, as the registry of metrics is: several would each overwrite the others' gauge. */
const meterOfAll = (): Meter => GlobalValue.globalValue("holdfast/Ledger/meter", makeMeter)

const makeMeter = (): Meter => {
  const boundaries = MetricBoundaries.exponential({ start: 0.001, factor: 2, count: 20 })
  const held = Metric.gauge("resource.held")
  const labelsOf = (kind: string) => [MetricLabel.make("resource.kind", kind)]
  // Guarded by the single thread.
  const counts = new Map<string, number>()
  const shift = (kind: string, state: State, by: number): void => {
    const key = `${state} ${kind}`
    const count = (counts.get(key) ?? 0) + by
    counts.set(key, count)
    held.unsafeUpdate(count, [...labelsOf(kind), MetricLabel.make("state", state)])
  }
  const histogram = (name: string) => {
    const metric = Metric.histogram(name, boundaries)
    return (kind: string, millis: number): void =>
      metric.unsafeUpdate(millis / 1000, labelsOf(kind))
  }
  const counter = (name: string) => {
    const metric = Metric.counter(name, { incremental: true })
    return (kind: string): void => metric.unsafeUpdate(1, labelsOf(kind))
  }
  return {
    moved: (kind, from, to) => {
      if (from !== undefined) shift(kind, from, -1)
      if (isLive(to)) shift(kind, to, 1)
    },
    acquired: histogram("resource.acquire.duration"),
    held: histogram("resource.hold.duration"),
    released: histogram("resource.release.duration"),
    abandoned: counter("resource.abandoned"),
    failed: counter("resource.failed"),
    leaked: counter("resource.leaked")
  }
}

const isLive = (state: State): boolean =>
  state === "acquiring" || state === "held" || state === "releasing"

/** What only describes a resource must not cost it: a getter may throw. */
const joined = (
  one: Readonly<Record<string, unknown>>,
  other: Readonly<Record<string, unknown>>
): Readonly<Record<string, unknown>> => {
  try {
    return { ...one, ...other }
  } catch {
    return one
  }
}

const defaultHistory = 1000
/** In milliseconds: how long an entry may keep alive what its line's frames close over, or what it failed with. */
const settleAfter = 50
const mostUnsettled = 4096

/** A ledger's book: what is written, and by whom it is read. Guarded by the single thread: every writer is synchronous. */
class Book implements Service {
  readonly sites: Sites
  readonly clock: Clock.Clock
  readonly meter: Meter | undefined
  readonly live = new Map<number, Kept>()
  readonly kinds = new Map<string, MutableTotals>()
  readonly listeners = new Set<(event: Event) => void>()
  readonly ended: Ring<Kept>
  readonly leakKinds: ReadonlyArray<string> | undefined
  /** The circles that have been told of, and still are. */
  told: ReadonlySet<string> = new Set()
  /** Those that may still keep something of the user's alive, and some that do no more. */
  readonly unsettled: Array<Kept> = []
  timer: unknown
  nextId = 1
  seq = 0

  constructor(clock: Clock.Clock, options: Options) {
    this.clock = clock
    this.sites = options.sites ?? "first"
    this.ended = new Ring(checkedHistory(options.history ?? defaultHistory))
    this.leakKinds = options.leakKinds
    this.meter = options.metrics === true ? meterOfAll() : undefined
    if (this.sites !== "off") linesOutside = Infinity
  }

  totalsOf(kind: string): MutableTotals {
    const known = this.kinds.get(kind)
    if (known !== undefined) return known
    const fresh = zero()
    this.kinds.set(kind, fresh)
    return fresh
  }

  unsafeAcquiring = (kind: string, name: string, details?: Details): Entry => {
    const fiber = details?.fiber ?? Option.getOrUndefined(Fiber.getCurrentFiber())
    const now = this.clock.unsafeCurrentTimeMillis()
    const entry = new Kept(this, this.nextId++, kind, name, now, details, fiber)
    this.live.set(entry.id, entry)
    if (entry.mayKeepAlive) this.settleSoon(entry)
    this.meter?.moved(kind, undefined, "acquiring")
    this.changed(entry)
    return entry
  }

  /**
   * Not at once: to read a line takes as long as to capture it, and of most holds nobody can ask any more by the time that
   * somebody looks.
   */
  settleSoon(entry: Kept): void {
    this.unsettled.push(entry)
    if (this.unsettled.length >= mostUnsettled) this.settleIfMany()
    if (this.timer !== undefined) return
    // The process's own timer: this is about memory, not about the program's time. It keeps nobody up.
    const timer: { readonly unref?: () => void } | number = setTimeout(() => {
      this.timer = undefined
      this.settle()
    }, settleAfter)
    this.timer = timer
    if (typeof timer === "object") timer.unref?.()
  }

  /** Of what nobody can ask for any more nothing is kept: it is dropped, not read. */
  settleIfMany(): void {
    let kept = 0
    for (const entry of this.unsettled) {
      if (entry.mayKeepAlive) this.unsettled[kept++] = entry
    }
    this.unsettled.length = kept
    if (kept > mostUnsettled / 2) this.settle()
  }

  settle(): void {
    for (const entry of this.unsettled) entry.settle()
    this.unsettled.length = 0
  }

  unsafeHeld = (entry: Entry, attributes?: Readonly<Record<string, unknown>>): void => {
    const kept = this.live.get(entry.id)
    if (kept === undefined || kept.state !== "acquiring") return
    this.totalsOf(kept.kind).acquired++
    kept.blockers = undefined
    kept.served = undefined
    if (attributes !== undefined) kept.attributes = joined(kept.attributes, attributes)
    this.move(kept, "held")
    kept.heldAt = kept.since
    this.meter?.acquired(kept.kind, kept.since - kept.askedAt)
    this.changed(kept)
  }

  unsafeReleasing = (entry: Entry): void => {
    const kept = this.live.get(entry.id)
    if (kept === undefined || kept.state !== "held") return
    this.move(kept, "releasing")
    kept.releasingAt = kept.since
    this.meter?.held(kept.kind, kept.since - (kept.heldAt ?? kept.since))
    this.changed(kept)
  }

  unsafeGaveUp = (entry: Entry, cause?: Cause.Cause<unknown>): void => {
    this.end(entry, "failed", cause)
  }

  unsafeReleased = (entry: Entry, failure?: Cause.Cause<unknown>): void => {
    const kept = this.end(entry, failure === undefined ? "released" : "failed", failure)
    if (kept === undefined) return
    const totals = this.totalsOf(kept.kind)
    totals.released++
    if (failure !== undefined) totals.failed++
  }

  unsafeAbandoned = (entry: Entry, cause?: Cause.Cause<unknown>): void => {
    const kept = this.end(entry, "abandoned", cause)
    if (kept !== undefined) this.totalsOf(kept.kind).abandoned++
  }

  /** INVARIANT Ledger-2: whoever deletes the entry is the one who counts. */
  end(
    entry: Entry,
    state: "released" | "failed" | "abandoned",
    cause: Cause.Cause<unknown> | undefined
  ): Kept | undefined {
    const kept = this.live.get(entry.id)
    if (kept === undefined) return undefined
    this.live.delete(kept.id)
    kept.blockers = undefined
    kept.served = undefined
    if (cause !== undefined) {
      kept.reason = new Reason(cause)
      this.settleSoon(kept)
    }
    this.move(kept, state)
    kept.endedAt = kept.since
    if (this.meter !== undefined) this.measureEnd(this.meter, kept)
    const dropped = this.ended.add(kept)
    this.changed(kept)
    dropped?.forget()
    return kept
  }

  measureEnd(meter: Meter, kept: Kept): void {
    if (kept.state === "abandoned") meter.abandoned(kept.kind)
    if (kept.state === "failed") meter.failed(kept.kind)
    if (kept.releasingAt !== undefined) meter.released(kept.kind, kept.since - kept.releasingAt)
    // What is given back by a plain call is never `releasing`.
    else if (kept.heldAt !== undefined) meter.held(kept.kind, kept.since - kept.heldAt)
  }

  move(kept: Kept, state: State): void {
    this.meter?.moved(kept.kind, kept.state, state)
    kept.state = state
    kept.since = this.clock.unsafeCurrentTimeMillis()
  }

  changed(kept: Kept): void {
    this.seq++
    if (this.listeners.size === 0) return
    const event: Event = { seq: this.seq, at: kept.since, entry: kept.copy() }
    for (const listener of this.listeners) {
      try {
        listener(event)
      } catch {
        // Whoever listens must not cost a resource its release.
      }
    }
  }

  unsafeListen = (listener: (event: Event) => void): () => void => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  unsafeSnapshot = (): Snapshot => ({
    takenAt: this.clock.unsafeCurrentTimeMillis(),
    total: sum(this.kinds.values()),
    kinds: Object.fromEntries(Array.from(this.kinds, ([kind, totals]) => [kind, { ...totals }])),
    live: Array.from(this.live.values(), (kept) => kept.copy()),
    ended: this.ended.toArray().map((kept) => kept.copy()),
    deadlocks: deadlocksAmong(this.live.values())
  })

  readonly snapshot: Effect.Effect<Snapshot> = Effect.sync(() => this.unsafeSnapshot())

  readonly assertEmpty: Effect.Effect<void, StillHeld> = Effect.suspend(() =>
    this.live.size === 0
      ? Effect.void
      : Effect.fail(
        new StillHeld({ entries: Array.from(this.live.values(), (kept) => kept.copy()) })
      )
  )

  heldLonger(millis: number): ReadonlyArray<Kept> {
    const before = this.clock.unsafeCurrentTimeMillis() - millis
    return Array.from(this.live.values())
      .filter(({ heldAt, state }) => state === "held" && heldAt !== undefined && heldAt <= before)
      .toSorted((one, other) => one.since - other.since)
  }

  unsafeOverdue = (leakAfter: Duration.Duration): ReadonlyArray<string> => {
    const lines: Array<string> = []
    for (const kept of this.heldLonger(Duration.toMillis(leakAfter))) {
      if (kept.warned || this.leakKinds?.includes(kept.kind) === false) continue
      kept.warned = true
      this.meter?.leaked(kept.kind)
      lines.push(`Held for more than ${Duration.format(leakAfter)}: ${describe(kept.copy())}.`)
    }
    const told = new Set<string>()
    for (const deadlock of deadlocksAmong(this.live.values())) {
      const key = deadlock.waits.map(({ waiter }) => waiter).toSorted((a, b) => a - b).join(" ")
      told.add(key)
      if (!this.told.has(key)) {
        lines.push(describeDeadlock(deadlock, Array.from(this.live.values())))
      }
    }
    this.told = told
    return lines
  }

  leaks = (olderThan: Duration.DurationInput): Effect.Effect<ReadonlyArray<Entry>> =>
    Effect.sync(() => this.heldLonger(Duration.toMillis(olderThan)).map((kept) => kept.copy()))
}

const checkedHistory = (history: number): number => {
  if (!Number.isSafeInteger(history) || history < 0) {
    throw new RangeError(`A ledger's history is a whole number, 0 or more; got ${history}.`)
  }
  return history
}

const makeBook = (options: Options): Effect.Effect<Book> =>
  Effect.map(Effect.clock, (clock) => new Book(clock, options))

/**
 * Makes a ledger of its own, empty. Its times are of the `Clock` in force where it is made.
 *
 * **Interruption** — never waits. **Errors** — a `history` that is not a whole number is a `RangeError` defect.
 * **Cost** — two maps; see `layer` for what an entry costs.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Effect.Effect<Service> => makeBook(options)

/** Looks four times in that time: nobody is told of much later, and nothing is kept sorted for it. */
const watch = (book: Book, leakAfter: Duration.Duration): Effect.Effect<never> => {
  const look = Effect.suspend(() =>
    Effect.forEach(book.unsafeOverdue(leakAfter), (line) => Effect.logWarning(line), {
      discard: true
    })
  )
  return Effect.forever(Effect.zipRight(Effect.sleep(Duration.times(leakAfter, 0.25)), look))
}

/**
 * An entry in words: what, whose, from where.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describe = (entry: Entry): string => {
  const path = entry.owner.length === 0 ? "" : `${entry.owner.join(" > ")} > `
  const who = entry.fiber === undefined ? "" : ` of fiber ${entry.fiber}`
  return `${path}${entry.kind} "${entry.name}" (${entry.state})${who}${
    lineIn(", asked for at ", entry)
  }`
}

/**
 * A deadlock in words; `live` is the snapshot's it comes from.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describeDeadlock = (deadlock: Deadlock, live: ReadonlyArray<Entry>): string => {
  const byId = new Map(live.map((entry) => [entry.id, entry]))
  const links = deadlock.waits.map(({ holder, waiter }) => {
    const [wanted, held] = [byId.get(waiter), byId.get(holder)]
    return `${whoOf(wanted)} waits${lineIn(" at ", wanted)} for ${wanted?.kind} "${wanted?.name}", `
      + `which ${whoOf(held)} holds${lineIn(" since ", held)}`
  })
  return `Deadlock: ${links.join("; ")}. Take them in one order everywhere, or in one call.`
}

const whoOf = (entry: Entry | undefined): string => {
  const fiber = `fiber ${entry?.fiber}`
  return entry === undefined || entry.owner.length === 0
    ? fiber
    : `${entry.owner.join(" > ")} (${fiber})`
}

const lineIn = (words: string, entry: Entry | undefined): string =>
  entry?.site === undefined ? "" : `${words}${entry.site.split("\n", 1)[0]}`

/**
 * Turns the ledger on for everything built on this layer.
 *
 * **Details** — Provide it last, outside the layers it is to see: one merged beside them is built beside them, and they do not
 *   see it. `leakAfter` looks four times in that time. `Main.run` gives its program a ledger: a layer of your own inside takes
 *   over what is built on it, which Main then cannot name; hand the options to `Main.run` instead.
 * **Interruption** — never waits. **Errors** — as `make`. **Cost** — about 1 µs for an acquire and its release, 2 to 4 more with
 *   sites; a snapshot of 10,000 held about 2 ms, and 3 µs for each line that is then read.
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
export const layer = (options: LayerOptions = {}): Layer.Layer<never> =>
  Layer.scoped(
    Ledger,
    Effect.tap(makeBook(options), (book) => {
      if (options.leakAfter === undefined) return Effect.void
      const leakAfter = Duration.decode(options.leakAfter)
      return Duration.isFinite(leakAfter)
        ? Effect.forkScoped(Effect.interruptible(watch(book, leakAfter)))
        : Effect.void
    })
  )

/**
 * The ledger in force in that fiber; by default in the one that runs now, in this very step.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeInForce = (
  fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined = Option.getOrUndefined(
    Fiber.getCurrentFiber()
  )
): Service | undefined => ledgerOf(fiber)

/** Straight from the map: `Context.get` of a reference also looks for its default. */
const ledgerOf = (
  fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
): Service | undefined => fiber?.currentContext.unsafeMap.get(Ledger.key) as Service | undefined

/**
 * How many lines are still captured outside of any fiber. Guarded by the single thread: as many as modules need that describe
 * what they hold while they are loaded; once a ledger is made that wants lines, there is no bound.
 */
let linesOutside = 1000

const sitesIn = (fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined): Sites => {
  if (fiber !== undefined) return ledgerOf(fiber)?.sites ?? "off"
  return linesOutside-- > 0 ? "first" : "off"
}

/**
 * The line that called whoever calls this, if the ledger in force wants it. Outside of any fiber no ledger can be asked: there
 * it is captured if any ledger has been made that wants lines, and until then the first 1,000 times, which is for what modules
 * describe while they are loaded. A server whose callbacks describe effects, with no ledger, pays for no line.
 *
 * To be called, synchronously, in a function that the user calls; `frames` is how many frames may be ours, this one included.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeSite = (frames = 6): Site | undefined => {
  const sites = sitesIn(Option.getOrUndefined(Fiber.getCurrentFiber()))
  if (sites === "off") return undefined
  const before = Error.stackTraceLimit
  // Each frame is paid for, so none is asked for that cannot be needed.
  Error.stackTraceLimit = sites === "first" ? frames + 1 : frames + 24
  const stack = new Error()
  Error.stackTraceLimit = before
  return new CapturedSite.Site(stack, sites === "first" ? 1 : 16)
}

/**
 * Names an owner: what is acquired inside stands under it in the ledger.
 *
 * **Interruption**, **Errors** — the effect's own. **Cost** — one `FiberRef` with the ledger on, none when off.
 *
 * **Example** (whose it is)
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
 * For a function that acquires on behalf of whoever calls it: what is acquired inside and has no line of the user's own shows
 * this one. Capture it by `unsafeSite` in the call itself.
 *
 * **Interruption**, **Errors** — the effect's own. **Cost** — one `FiberRef` where there is a line, none otherwise.
 *
 * @category operations
 * @since 0.1.0
 */
export const withSite = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  site: Site | undefined
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

const attributesOf = ({ attributes }: SpanOptions) => attributes?.() ?? nothing

const inForce: Effect.Effect<Service> = Effect.flatMap(Ledger, (ledger) =>
  ledger === undefined
    ? Effect.dieMessage("No ledger is in force: provide `Ledger.layer()`, or run by `Main.run`.")
    : Effect.succeed(ledger))

/**
 * What the ledger in force says now.
 *
 * **Interruption** — never waits. **Errors** — none; without a ledger it is a defect. **Cost** — a copy of the entries.
 *
 * @category getters
 * @since 0.1.0
 */
export const snapshot: Effect.Effect<Snapshot> = Effect.flatMap(
  inForce,
  (ledger) => ledger.snapshot
)

/**
 * Fails with what is held, if anything is: the last line of a test. Call it outside what provides the resources.
 *
 * **Interruption** — never waits. **Errors** — `StillHeld`; without a ledger it is a defect, not a test passed.
 * **Cost** — as `snapshot`.
 *
 * @category operations
 * @since 0.1.0
 */
export const assertEmpty: Effect.Effect<void, StillHeld> = Effect.flatMap(
  inForce,
  (ledger) => ledger.assertEmpty
)

/**
 * What has been held for longer than that, the oldest first.
 *
 * **Interruption** — never waits. **Errors** — none; without a ledger it is a defect. **Cost** — a look at each live entry.
 *
 * @category getters
 * @since 0.1.0
 */
export const leaks = (
  olderThan: Duration.DurationInput
): Effect.Effect<ReadonlyArray<Entry>> =>
  Effect.flatMap(inForce, (ledger) => ledger.leaks(olderThan))

const eventBuffer = 4096

/**
 * Every change from now on. A reader that falls more than 4,096 changes behind loses the oldest and sees it in `seq`.
 *
 * **Interruption** — Waiting: at once; nothing is left behind. **Errors** — none; without a ledger it is a defect.
 * **Cost** — a copy of the entry for each change, as long as somebody reads.
 *
 * @category getters
 * @since 0.1.0
 */
export const events: Stream.Stream<Event> = Stream.unwrap(
  Effect.map(inForce, (ledger) =>
    Stream.asyncPush<Event>(
      (emit) =>
        Effect.acquireRelease(
          Effect.sync(() => ledger.unsafeListen((event) => void emit.single(event))),
          (forget) => Effect.sync(forget)
        ),
      { bufferSize: eventBuffer, strategy: "sliding" }
    ))
)
