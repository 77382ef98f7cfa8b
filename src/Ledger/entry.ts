/**
 * entry: one hold as the ledger stores it, and its copies for readers.
 *
 * DESIGN. A line is captured as an `Error` and read later: reading takes as long as capturing, and most entries leave the history
 * unread. An unread line keeps the functions of its frames alive, and a cause keeps the user's error: `detach` converts both to
 * text, `forget` drops both. Copies share the line with their entry, so to detach the entry detaches them too.
 */
import type * as Cause from "effect/Cause"
import type * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import * as GlobalValue from "effect/GlobalValue"
import { prettyOf } from "../internal/exit.ts"
import type * as Deadlock from "./deadlock.ts"
import type * as Model from "./model.ts"

/** A chain of owners, the innermost first; entering one copies nothing. */
export interface Owner {
  readonly name: string | undefined
  /** The line for requests inside that have no line of their own. */
  readonly site: Model.Site | undefined
  readonly outer: Owner | undefined
}

export const currentOwner: FiberRef.FiberRef<Owner | undefined> = GlobalValue.globalValue(
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

/** The entry's own line, or that of the nearest owner that has one. */
const lineOf = (line: Model.Site | undefined, owner: Owner | undefined): string | undefined => {
  let text = line?.text
  for (let at = owner; text === undefined && at !== undefined; at = at.outer) text = at.site?.text
  return text
}

/** The text of a cause, computed on the first read. */
class Reason {
  #cause: Cause.Cause<unknown> | undefined
  #text = ""

  constructor(cause: Cause.Cause<unknown>) {
    this.#cause = cause
  }

  get text(): string {
    if (this.#cause !== undefined) this.#text = prettyOf(this.#cause)
    this.#cause = undefined
    return this.#text
  }
}

const mostBlockers = 100

const noAttributes: Model.Entry["attributes"] = {}
const noHolders: ReadonlyArray<RecordedEntry> = []

/** Written only by the recorder. */
export class RecordedEntry implements Model.Entry, Deadlock.Hold {
  /** The ledger in which its id and its holders are valid. */
  readonly ledger: unknown
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly requestedAt: number
  readonly fiberId: number | undefined
  readonly span: string | undefined
  #blockedBy: Model.Details["blockedBy"]
  #isServedIf: Model.Details["isServedIf"]
  alike: object | undefined
  state: Model.State = "acquiring"
  since: number
  attributes: Model.Entry["attributes"]
  heldAt: number | undefined = undefined
  releasingAt: number | undefined = undefined
  endedAt: number | undefined = undefined
  warned = false
  #line: Model.Site | undefined
  #within: Owner | undefined
  #reason: Reason | undefined = undefined
  #isCopied = false
  #isDetached = false

  constructor(
    ledger: unknown,
    id: number,
    kind: string,
    name: string,
    now: number,
    details: Model.Details | undefined,
    fiber: Fiber.RuntimeFiber<unknown, unknown> | undefined
  ) {
    const span = fiber?.currentSpan
    this.ledger = ledger
    this.id = id
    this.kind = kind
    this.name = name
    this.requestedAt = now
    this.since = now
    this.fiberId = fiber?.id().id
    this.span = span?._tag === "Span" ? span.name : undefined
    this.attributes = details?.attributes ?? noAttributes
    this.#blockedBy = details?.blockedBy
    this.#isServedIf = details?.isServedIf
    this.alike = details?.alike
    this.#line = details?.site
    this.#within = fiber?.getFiberRef(currentOwner)
  }

  get owner(): ReadonlyArray<string> {
    return pathOf(this.#within)
  }

  get fiber(): string | undefined {
    return this.fiberId === undefined ? undefined : `#${this.fiberId}`
  }

  get site(): string | undefined {
    return lineOf(this.#line, this.#within)
  }

  get cause(): string | undefined {
    return this.#reason?.text
  }

  get blockedBy(): ReadonlyArray<number> {
    const ids: Array<number> = []
    for (const { id } of this.holders()) if (ids.push(id) === mostBlockers) break
    return ids
  }

  holders(): Iterable<RecordedEntry> {
    return this.#blockedBy === undefined ? noHolders : this.#holdersIn(this.#blockedBy)
  }

  *#holdersIn(blockedBy: () => Iterable<Model.Entry>): Iterable<RecordedEntry> {
    try {
      for (const holder of blockedBy()) if (this.isBeside(holder)) yield holder
    } catch {
      // A module that throws here must not fail a snapshot.
    }
  }

  isServedIf(releases: (holder: RecordedEntry) => boolean): boolean {
    if (this.#isServedIf !== undefined) {
      return this.#isServedIf((holder) => !this.isBeside(holder) || releases(holder))
    }
    for (const holder of this.holders()) if (releases(holder)) return true
    return false
  }

  isBeside(entry: Model.Entry): entry is RecordedEntry {
    return entry instanceof RecordedEntry && entry.ledger === this.ledger
  }

  become(state: Exclude<Model.State, "acquiring">, now: number): void {
    this.state = state
    this.since = now
    if (state === "held") this.heldAt = now
    else if (state === "releasing") this.releasingAt = now
    else this.endedAt = now
    // They keep alive the resource that it waited for.
    this.#blockedBy = undefined
    this.#isServedIf = undefined
    this.alike = undefined
  }

  addAttributes(attributes: Model.Entry["attributes"]): void {
    try {
      this.attributes = { ...this.attributes, ...attributes }
    } catch {
      // Attributes only describe a resource: a getter that throws must not fail its acquire.
    }
  }

  failedWith(cause: Cause.Cause<unknown>): void {
    this.#reason = new Reason(cause)
    this.#isDetached = false
  }

  copy(): Model.Entry {
    this.#isCopied = true
    return new EntryCopy(this, this.#line, this.#within, this.#reason)
  }

  /** Converts its line and its cause to text, so that they keep none of the user's objects alive. */
  detach(): void {
    if (this.#isDetached) return
    this.#isDetached = true
    this.#line?.settle?.()
    for (let at = this.#within; at !== undefined; at = at.outer) at.site?.settle?.()
    void this.#reason?.text
  }

  /** After this only its copies have its line and its cause. */
  forget(): void {
    if (this.#isCopied) this.detach()
    this.#line = undefined
    this.#within = undefined
    this.#reason = undefined
  }
}

/** An entry as it was. Its line and its cause are read on demand: for 10,000 entries they are most of a snapshot's time. */
class EntryCopy implements Model.Entry {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: Model.State
  readonly since: number
  readonly owner: ReadonlyArray<string>
  readonly fiber: string | undefined
  readonly span: string | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  readonly blockedBy: ReadonlyArray<number>
  readonly requestedAt: number
  readonly heldAt: number | undefined
  readonly releasingAt: number | undefined
  readonly endedAt: number | undefined
  readonly #line: Model.Site | undefined
  readonly #within: Owner | undefined
  readonly #reason: Reason | undefined

  constructor(
    entry: RecordedEntry,
    line: Model.Site | undefined,
    within: Owner | undefined,
    reason: Reason | undefined
  ) {
    this.id = entry.id
    this.kind = entry.kind
    this.name = entry.name
    this.state = entry.state
    this.since = entry.since
    this.owner = entry.owner
    this.fiber = entry.fiber
    this.span = entry.span
    this.attributes = entry.attributes
    this.blockedBy = entry.blockedBy
    this.requestedAt = entry.requestedAt
    this.heldAt = entry.heldAt
    this.releasingAt = entry.releasingAt
    this.endedAt = entry.endedAt
    this.#line = line
    this.#within = within
    this.#reason = reason
  }

  get site(): string | undefined {
    return lineOf(this.#line, this.#within)
  }

  get cause(): string | undefined {
    return this.#reason?.text
  }

  toJSON(): Model.Entry {
    return { ...this, site: this.site, cause: this.cause }
  }
}
