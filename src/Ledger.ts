/**
 * Ledger: who holds what, since when, and how each hold ended.
 *
 * DESIGN. A ledger is an object of plain counters and one map of live entries, written by synchronous calls from the same
 * step that acquires or releases, so it can never disagree with what is held. It is found through a `Context.Reference`
 * whose default is "off": without `Ledger.layer` no entry is made, no clock is read and nothing is counted.
 *
 * INVARIANTS
 * - Ledger-1 `acquired = released + abandoned + held`, per kind, in every snapshot.
 * - Ledger-2 An entry ends once: the first end (released, abandoned) counts, a later one is ignored.
 * - Ledger-3 Memory is O(held + kinds): ended entries leave only their counts.
 *
 * NOT DONE here yet: call sites, history, events, leak warnings, wait-for graph.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * Where a hold stands.
 *
 * @category models
 * @since 0.1.0
 */
export type State = "acquiring" | "held" | "releasing"

/**
 * One live hold. `since` is in milliseconds of the `Clock`, and is the moment it entered `state`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: State
  readonly since: number
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
 * A consistent picture of the ledger at one instant.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly takenAt: number
  readonly total: Totals
  readonly kinds: Readonly<Record<string, Totals>>
  readonly live: ReadonlyArray<Entry>
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
    const names = this.entries.map((entry) => `${entry.kind} "${entry.name}" (${entry.state})`)
    return `${this.entries.length} resource(s) still held: ${names.join(", ")}. `
      + "Look for a scope that is never closed or a release that never ends."
  }
}

/**
 * The writing side, used by the modules that acquire. Each call is synchronous and is made in the very step it records.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  /** Opens an entry in state `acquiring`. */
  readonly unsafeAcquiring: (kind: string, name: string, now: number) => Entry
  /** The acquire failed or was interrupted: the entry goes, nothing is counted. */
  readonly unsafeGaveUp: (entry: Entry) => void
  readonly unsafeHeld: (entry: Entry, now: number) => void
  readonly unsafeReleasing: (entry: Entry, now: number) => void
  readonly unsafeReleased: (entry: Entry, failed: boolean) => void
  readonly unsafeAbandoned: (entry: Entry) => void
}

/**
 * A ledger: a recorder and its readers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service extends Recorder {
  readonly snapshot: Effect.Effect<Snapshot>
  /** Fails with the live entries, if there are any. */
  readonly assertEmpty: Effect.Effect<void, StillHeld>
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

interface MutableTotals {
  acquired: number
  released: number
  failed: number
  abandoned: number
}

interface MutableEntry extends Entry {
  state: State
  since: number
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

/**
 * Makes a ledger of its own, empty.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — one map; about 0.3 µs an entry.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Service> = Effect.sync(() => {
  // Guarded by the single thread: every writer below is synchronous.
  const live = new Map<number, MutableEntry>()
  const kinds = new Map<string, MutableTotals>()
  let nextId = 1

  const totalsOf = (kind: string): MutableTotals => {
    const known = kinds.get(kind)
    if (known !== undefined) return known
    const fresh = zero()
    kinds.set(kind, fresh)
    return fresh
  }
  const moveTo = (state: State) => (entry: Entry, now: number): void => {
    const mine = live.get(entry.id)
    if (mine === undefined) return
    if (state === "held" && mine.state === "acquiring") totalsOf(mine.kind).acquired++
    mine.state = state
    mine.since = now
  }
  const snapshot = Effect.map(Clock.currentTimeMillis, (takenAt): Snapshot => ({
    takenAt,
    total: sum(kinds.values()),
    kinds: Object.fromEntries(Array.from(kinds, ([kind, totals]) => [kind, { ...totals }])),
    live: Array.from(live.values(), (entry) => ({ ...entry }))
  }))

  return {
    unsafeAcquiring: (kind, name, now) => {
      const entry: MutableEntry = { id: nextId++, kind, name, state: "acquiring", since: now }
      live.set(entry.id, entry)
      return entry
    },
    unsafeGaveUp: (entry) => {
      live.delete(entry.id)
    },
    unsafeHeld: moveTo("held"),
    unsafeReleasing: moveTo("releasing"),
    // INVARIANT Ledger-2: whoever deletes the entry is the one who counts.
    unsafeReleased: (entry, failed) => {
      if (!live.delete(entry.id)) return
      totalsOf(entry.kind).released++
      if (failed) totalsOf(entry.kind).failed++
    },
    unsafeAbandoned: (entry) => {
      if (live.delete(entry.id)) totalsOf(entry.kind).abandoned++
    },
    snapshot,
    assertEmpty: Effect.flatMap(
      snapshot,
      ({ live }) => live.length === 0 ? Effect.void : Effect.fail(new StillHeld({ entries: live }))
    )
  }
})

/**
 * Turns the ledger on for everything built on this layer.
 *
 * **Details** — Provide it last, outside the layers it is to see: one merged beside them is built beside them, and they do not
 *   see it.
 * **Interruption** — never waits. **Errors** — none. **Cost** — see `make`.
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
 * const totals = await Effect.runPromise(Effect.provide(sum, Ledger.layer))
 * totals // => { acquired: 1, released: 1, failed: 0, abandoned: 0 }
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = Layer.effect(Ledger, make)

const inForce: Effect.Effect<Service> = Effect.flatMap(Ledger, (ledger) =>
  ledger === undefined
    ? Effect.dieMessage("No ledger is in force: provide `Ledger.layer`, or run by `Main.run`.")
    : Effect.succeed(ledger))

/**
 * What the ledger in force says now.
 *
 * **Interruption** — never waits. **Errors** — none; without a ledger it is a defect. **Cost** — a copy of the live entries.
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
