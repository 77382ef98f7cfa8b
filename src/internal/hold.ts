/**
 * hold: the ledger entry of one user that waits for a thing or holds it.
 *
 * DESIGN. A hold is made in the step that asks. It reaches the ledger in the step that decides: `granted` when the queue grants
 * (the fiber runs later, or never), `left` when the waiter leaves the queue or gives back. So the ledger and the queue agree at
 * every instant. Without a ledger no hold is made; a deadlock search then assumes that unrecorded holders release.
 *
 * INVARIANTS
 * - Hold-1 A hold is in the set of its thing exactly from its grant to its end, and ends once.
 *
 * COST none without a ledger; with one, the entry and three closures.
 */
import type * as Cause from "effect/Cause"
import type * as WaitQueue from "./waitQueue.ts"

/** An entry of a ledger; opaque here. */
interface Entry {
  readonly id: number
}

/** A captured line of the user's code. */
export interface Site {
  readonly text: string | undefined
}

/** The part of `Ledger.Service` that is needed here. Methods, because TypeScript compares their parameters in both directions. */
export interface Recorder {
  unsafeAcquiring(
    kind: string,
    name: string,
    details?: {
      readonly site?: Site | undefined
      readonly attributes?: Readonly<Record<string, unknown>> | undefined
      readonly blockedBy?: (() => Iterable<Entry>) | undefined
      readonly isServedIf?: ((releases: (holder: Entry) => boolean) => boolean) | undefined
      readonly alike?: object | undefined
    }
  ): Entry
  unsafeHeld(entry: Entry): void
  unsafeGaveUp(entry: Entry, cause?: Cause.Cause<unknown>): void
  unsafeReleased(entry: Entry): void
}

/** The recorded holders of a thing, and how much of it they hold together. Only this file writes it. */
export class Holds extends Set<Hold> {
  amount = 0
}

/** A thing that can be held. The set is made with the first recorded holder. */
export interface Thing {
  holds: Holds | undefined
}

/** A request for a thing. */
export interface Request {
  readonly kind: string
  readonly name: string
  readonly amount: number
  readonly site: Site | undefined
  readonly attributes?: Readonly<Record<string, unknown>> | undefined
  /** The holders that block a waiter. Default: all holders of the thing. */
  readonly inTheWay?: (() => Iterable<{ readonly entry: Entry }>) | undefined
  /**
   * Whether the waiter would be served if each holder for which `releases` is true released, and each unrecorded one. Default: one
   * of the blocking holders is enough.
   */
  readonly isServedIf?:
    | ((waiting: Hold, releases: (hold: Hold) => boolean) => boolean)
    | undefined
  /** Waits with the same `alike` have the same answer of `isServedIf`. */
  readonly alike?: object | undefined
}

export class Hold implements WaitQueue.Watch {
  readonly recorder: Recorder
  readonly thing: Thing
  readonly amount: number
  readonly entry: Entry
  /** Set when it joins the queue. */
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
      isServedIf: isServedIf && ((releases) => isServedIf(this, (hold) => releases(hold.entry)))
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

// A generator, because of many holders only the first are read.
function* entriesOf(holds: Iterable<{ readonly entry: Entry }>): Iterable<Entry> {
  for (const { entry } of holds) yield entry
}

/** Whether the recorded holders that do not let go keep at most `most`. It stops at the first holder that decides. */
export const keepAtMost = (
  thing: Thing,
  most: number,
  releases: (hold: Hold) => boolean
): boolean => {
  const { holds } = thing
  if (holds === undefined) return most >= 0
  let kept = 0
  let unknown = holds.amount
  for (const hold of holds) {
    // Whatever the others do.
    if (kept + unknown <= most) return true
    unknown -= hold.amount
    if (releases(hold)) continue
    kept += hold.amount
    if (kept > most) return false
  }
  return kept <= most
}
