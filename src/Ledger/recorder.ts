/**
 * recorder: the ledger itself: counters, a map of live entries and a ring of ended ones.
 *
 * DESIGN. Every write is synchronous, so that a ledger never disagrees with what is held, and every write to an entry goes
 * through this file.
 */
import type * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { Handle } from "../internal/handle.ts"
import * as Options from "../internal/options.ts"
import { currentFiber } from "../internal/runtime.ts"
import * as Deadlock from "./deadlock.ts"
import { RecordedEntry } from "./entry.ts"
import { type Meter, meterOfAll } from "./meter.ts"
import * as Model from "./model.ts"
import * as Words from "./words.ts"

const zero = () => ({ acquired: 0, released: 0, failed: 0, abandoned: 0 })

type MutableTotals = ReturnType<typeof zero>

/** The last `size` items that were added. */
class Ring<A> {
  readonly size: number
  readonly #items: Array<A> = []
  #next = 0

  constructor(size: number) {
    this.size = size
  }

  /** Returns the item that this one displaces. */
  add(item: A): A | undefined {
    if (this.size === 0) return item
    const displaced = this.#items[this.#next]
    this.#items[this.#next] = item
    this.#next = (this.#next + 1) % this.size
    return displaced
  }

  toArray(): ReadonlyArray<A> {
    return this.#items.length < this.size
      ? this.#items
      : [...this.#items.slice(this.#next), ...this.#items.slice(0, this.#next)]
  }
}

const rules: Options.Rules = {
  sites: Options.oneOf("off", "first", "full"),
  history: Options.integer(0),
  metrics: Options.flag,
  leakKinds: Options.anything,
  leakAfter: Options.duration
}

const defaultHistory = 1000
/** In milliseconds: the longest time for which an entry keeps the user's objects alive. */
const detachAfter = 50

const copyOf = (entry: RecordedEntry): Model.Entry => entry.copy()

class Recorder extends Handle implements Model.Service {
  readonly [Model.TypeId]: Model.TypeId = Model.TypeId
  readonly sites: Model.Sites
  readonly #clock: Clock.Clock
  readonly #meter: Meter | undefined
  readonly #live = new Map<number, RecordedEntry>()
  readonly #ended: Ring<RecordedEntry>
  readonly #total = zero()
  readonly #kinds = new Map<string, MutableTotals>()
  readonly #listeners = new Set<(event: Model.Event) => void>()
  readonly #leakKinds: ReadonlyArray<string> | undefined
  /** The deadlocks that have been reported and still exist. */
  #reported: ReadonlySet<string> = new Set()
  #isDetaching = false
  #nextId = 1
  #seq = 0

  constructor(clock: Clock.Clock, options: Model.Options) {
    super()
    this.#clock = clock
    this.sites = options.sites ?? "first"
    this.#ended = new Ring(options.history ?? defaultHistory)
    this.#leakKinds = options.leakKinds
    this.#meter = options.metrics === true ? meterOfAll() : undefined
  }

  toJSON(): unknown {
    const kinds = Object.fromEntries(this.#kinds)
    return { _id: "holdfast/Ledger", live: this.#live.size, kinds }
  }

  #now(): number {
    return this.#clock.unsafeCurrentTimeMillis()
  }

  #count(kind: string, what: keyof MutableTotals): void {
    let totals = this.#kinds.get(kind)
    if (totals === undefined) this.#kinds.set(kind, totals = zero())
    totals[what]++
    this.#total[what]++
  }

  unsafeAcquiring = (kind: string, name: string, details?: Model.Details): Model.Entry => {
    const fiber = details?.fiber ?? currentFiber()
    const entry = new RecordedEntry(this, this.#nextId++, kind, name, this.#now(), details, fiber)
    this.#live.set(entry.id, entry)
    this.#detachSoon()
    this.#meter?.moved(kind, undefined, "acquiring")
    this.#changed(entry)
    return entry
  }

  /** INVARIANT Ledger-3. The delay saves work: in a busy program most entries have left the history by then. */
  #detachSoon(): void {
    if (this.#isDetaching) return
    this.#isDetaching = true
    // Real time, because memory does not follow the `Clock`.
    const timer: { readonly unref?: () => void } | number = setTimeout(() => {
      this.#isDetaching = false
      for (const entry of this.#live.values()) entry.detach()
      for (const entry of this.#ended.toArray()) entry.detach()
    }, detachAfter)
    if (typeof timer === "object") timer.unref?.()
  }

  unsafeHeld = (given: Model.Entry, attributes?: Readonly<Record<string, unknown>>): void => {
    const entry = this.#live.get(given.id)
    if (entry?.state !== "acquiring") return
    this.#count(entry.kind, "acquired")
    if (attributes !== undefined) entry.addAttributes(attributes)
    this.#meter?.moved(entry.kind, entry.state, "held")
    entry.become("held", this.#now())
    this.#meter?.acquired(entry.kind, entry.since - entry.requestedAt)
    this.#changed(entry)
  }

  unsafeReleasing = (given: Model.Entry): void => {
    const entry = this.#live.get(given.id)
    if (entry?.state !== "held") return
    this.#meter?.moved(entry.kind, entry.state, "releasing")
    const heldAt = entry.since
    entry.become("releasing", this.#now())
    this.#meter?.used(entry.kind, entry.since - heldAt)
    this.#changed(entry)
  }

  unsafeGaveUp = (given: Model.Entry, cause?: Cause.Cause<unknown>): void => {
    this.#end(given, "failed", cause)
  }

  unsafeReleased = (given: Model.Entry, failure?: Cause.Cause<unknown>): void => {
    const entry = this.#end(given, failure === undefined ? "released" : "failed", failure)
    if (entry === undefined) return
    this.#count(entry.kind, "released")
    if (failure !== undefined) this.#count(entry.kind, "failed")
  }

  unsafeAbandoned = (given: Model.Entry, cause?: Cause.Cause<unknown>): void => {
    const entry = this.#end(given, "abandoned", cause)
    if (entry !== undefined) this.#count(entry.kind, "abandoned")
  }

  /** INVARIANT Ledger-2: the call that takes the entry out of the map counts its end; `undefined` for any later one. */
  #end(
    given: Model.Entry,
    state: "released" | "failed" | "abandoned",
    cause: Cause.Cause<unknown> | undefined
  ): RecordedEntry | undefined {
    const entry = this.#live.get(given.id)
    if (entry === undefined) return undefined
    this.#live.delete(entry.id)
    if (cause !== undefined) {
      entry.failedWith(cause)
      this.#detachSoon()
    }
    const before = entry.state
    entry.become(state, this.#now())
    if (this.#meter !== undefined) this.#measureEnd(this.#meter, entry, before)
    const displaced = this.#ended.add(entry)
    this.#changed(entry)
    displaced?.forget()
    return entry
  }

  #measureEnd(meter: Meter, entry: RecordedEntry, before: Model.State): void {
    const { heldAt, kind, releasingAt, since, state } = entry
    meter.moved(kind, before as "acquiring" | "held" | "releasing", undefined)
    if (state === "abandoned") meter.abandoned(kind)
    if (state === "failed") meter.failed(kind)
    if (releasingAt !== undefined) meter.released(kind, since - releasingAt)
    // A release that is a plain call is never in state `releasing`.
    else if (heldAt !== undefined) meter.used(kind, since - heldAt)
  }

  #changed(entry: RecordedEntry): void {
    this.#seq++
    if (this.#listeners.size === 0) return
    const event: Model.Event = { seq: this.#seq, at: entry.since, entry: entry.copy() }
    for (const listener of this.#listeners) {
      try {
        listener(event)
      } catch {
        // A listener that throws must not prevent a release.
      }
    }
  }

  unsafeListen = (listener: (event: Model.Event) => void): () => void => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  unsafeSnapshot = (): Model.Snapshot => ({
    takenAt: this.#now(),
    total: { ...this.#total },
    kinds: Object.fromEntries(Array.from(this.#kinds, ([kind, totals]) => [kind, { ...totals }])),
    live: Array.from(this.#live.values(), copyOf),
    ended: this.#ended.toArray().map(copyOf),
    deadlocks: Deadlock.circlesAmong(this.#live.values())
  })

  readonly snapshot: Effect.Effect<Model.Snapshot> = Effect.sync(() => this.unsafeSnapshot())

  readonly assertEmpty: Effect.Effect<void, Model.StillHeld> = Effect.suspend(() =>
    this.#live.size === 0
      ? Effect.void
      : new Model.StillHeld({ entries: Array.from(this.#live.values(), copyOf) })
  )

  #heldLonger(millis: number): ReadonlyArray<RecordedEntry> {
    const before = this.#now() - millis
    return Array.from(this.#live.values())
      .filter(({ since, state }) => state === "held" && since <= before)
      .toSorted((one, other) => one.since - other.since)
  }

  unsafeOverdue = (leakAfter: Duration.Duration): ReadonlyArray<string> => {
    const lines: Array<string> = []
    for (const entry of this.#heldLonger(Duration.toMillis(leakAfter))) {
      if (entry.warned || this.#leakKinds?.includes(entry.kind) === false) continue
      entry.warned = true
      this.#meter?.leaked(entry.kind)
      lines.push(`Held for more than ${Duration.format(leakAfter)}: ${Words.describe(entry)}.`)
    }
    const found = new Set<string>()
    for (const { waits } of Deadlock.circlesAmong(this.#live.values())) {
      const key = waits.map(({ waiter }) => waiter).toSorted((a, b) => a - b).join(" ")
      found.add(key)
      if (this.#reported.has(key)) continue
      lines.push(Words.describeDeadlock(waits, Array.from(this.#live.values())))
    }
    this.#reported = found
    return lines
  }

  leaks = (olderThan: Duration.DurationInput): Effect.Effect<ReadonlyArray<Model.Entry>> =>
    Effect.sync(() => this.#heldLonger(Duration.toMillis(olderThan)).map(copyOf))
}

/** `where` is the operation as users write it. */
export const make = (where: string, options: Model.LayerOptions): Effect.Effect<Model.Service> =>
  Effect.map(Effect.clock, (clock) => {
    Options.check(where, options, rules)
    return new Recorder(clock, options)
  })
