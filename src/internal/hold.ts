/**
 * hold: one who waits for something or has it, as the ledger is told.
 *
 * DESIGN. A hold is made in the step that asks, and told of in the step that decides: `granted` when the line gives it the
 * thing (not when its fiber runs, which is later or never), `left` when it leaves the line or what it had comes back. So the
 * ledger says what the line says, at every instant. Where no ledger is in force no hold is made, and a thing counts those
 * who have it without one among those who let go.
 *
 * INVARIANTS
 * - Hold-1 From its grant to its end, and never else, a hold is in the set of its thing; it ends once.
 *
 * COST none without a ledger; with one, the entry and three closures.
 */
import type * as Cause from "effect/Cause"
import type * as WaitQueue from "./waitQueue.ts"

/** An entry of a ledger; opaque here. */
interface Entry {
  readonly id: number
}

/** A line that was captured and that nobody has read yet. */
export interface Site {
  readonly text: string | undefined
}

/** As much of `Ledger.Service` as is needed here. Methods, so that its own type of entries will do. */
export interface Recorder {
  unsafeAcquiring(
    kind: string,
    name: string,
    details?: {
      readonly site?: Site | undefined
      readonly attributes?: Readonly<Record<string, unknown>> | undefined
      readonly blockedBy?: (() => Iterable<Entry>) | undefined
      readonly isServedIf?: ((letsGo: (holder: Entry) => boolean) => boolean) | undefined
      readonly alike?: object | undefined
    }
  ): Entry
  unsafeHeld(entry: Entry): void
  unsafeGaveUp(entry: Entry, cause?: Cause.Cause<unknown>): void
  unsafeReleased(entry: Entry): void
}

/** Those who have a thing, and how much of it they have together. Guarded by the single thread; written only by this file. */
export class Holds extends Set<Hold> {
  amount = 0
}

/** What is held. Guarded by the single thread; the set is made when somebody is recorded. */
export interface Thing {
  holds: Holds | undefined
}

/** What is asked for. */
export interface Request {
  readonly kind: string
  readonly name: string
  /** How much of it. */
  readonly amount: number
  readonly site: Site | undefined
  readonly attributes?: Readonly<Record<string, unknown>> | undefined
  /** Who is in the way of one who waits. Default: all who hold the thing. */
  readonly inTheWay?: (() => Iterable<{ readonly entry: Entry }>) | undefined
  /**
   * Whether the one who waits would be served if all let go for whom `letsGo` is true, and all who are not recorded. Default:
   * one of those who are in the way is enough.
   */
  readonly isServedIf?:
    | ((waiting: Hold, letsGo: (hold: Hold) => boolean) => boolean)
    | undefined
  /** Waits with the same `alike` have the same answer of `isServedIf`. */
  readonly alike?: object | undefined
}

/** Guarded by the single thread. */
export class Hold implements WaitQueue.Watch {
  readonly recorder: Recorder
  readonly thing: Thing
  readonly amount: number
  readonly entry: Entry
  /** Its place in line, from when it stands there. */
  waiter: WaitQueue.Waiter<unknown> | undefined = undefined
  state: "waiting" | "held" | "ended" = "waiting"

  constructor(recorder: Recorder, thing: Thing, request: Request) {
    const { amount, attributes, inTheWay = () => thing.holds ?? [], isServedIf, kind, name, site } =
      request
    this.recorder = recorder
    this.thing = thing
    this.amount = amount
    this.entry = recorder.unsafeAcquiring(kind, name, {
      site,
      attributes,
      alike: request.alike,
      blockedBy: () => entriesOf(inTheWay()),
      isServedIf: isServedIf && ((letsGo) => isServedIf(this, (hold) => letsGo(hold.entry)))
    })
  }

  joined(waiter: WaitQueue.Waiter<unknown>): void {
    this.waiter = waiter
  }

  granted(): void {
    if (this.state !== "waiting") return
    this.state = "held"
    this.thing.holds ??= new Holds()
    this.thing.holds.add(this)
    this.thing.holds.amount += this.amount
    this.recorder.unsafeHeld(this.entry)
  }

  left(cause?: Cause.Cause<unknown>): void {
    const was = this.state
    this.state = "ended"
    if (was === "waiting") this.recorder.unsafeGaveUp(this.entry, cause)
    if (was !== "held") return
    if (this.thing.holds?.delete(this) === true) this.thing.holds.amount -= this.amount
    this.recorder.unsafeReleased(this.entry)
  }
}

// One by one: of many holders only the first are looked at.
function* entriesOf(holds: Iterable<{ readonly entry: Entry }>): Iterable<Entry> {
  for (const { entry } of holds) yield entry
}

/** Whether the recorded holders who do not let go keep no more than that. It looks at as few of them as will tell. */
export const keepAtMost = (
  thing: Thing,
  most: number,
  letsGo: (hold: Hold) => boolean
): boolean => {
  const { holds } = thing
  if (holds === undefined) return most >= 0
  let kept = 0
  let unknown = holds.amount
  for (const hold of holds) {
    // Whatever the others do.
    if (kept + unknown <= most) return true
    unknown -= hold.amount
    if (letsGo(hold)) continue
    kept += hold.amount
    if (kept > most) return false
  }
  return kept <= most
}
