/**
 * RwLock: many readers or one writer, in the order in which they asked. And `KeyedRwLock`: one such lock per key.
 *
 * DESIGN. A count of readers, one bit for the writer, and the fair queue, whose order is decided in internal/waitQueue.ts;
 * brackets, scopes and keys are in internal/line.ts. The readers that stand together at the head of the queue enter together; a
 * reader that comes after a queued writer waits behind it, so neither side starves. A writer can become a reader in one step; a
 * reader can never become a writer.
 *
 * INVARIANTS
 * - RwLock-1 (L1) A writer is inside alone; each entry has exactly one exit, whatever the exit of its user.
 * - RwLock-2 (L6) FIFO by arrival within one priority; consecutive readers at the head enter in one step; no newcomer passes a
 *   waiter.
 * - RwLock-3 (L2) An interrupted waiter holds nothing, and those that it blocked enter in the same step.
 * - RwLock-4 A downgrade has no gap: no writer comes between the write and the read.
 * - RwLock-5 A fiber whose bracket is inside and that would have to wait for itself dies with `RwLockReentry` at once.
 * - RwLock-6 (L9) With a ledger in force, a waiter is `acquiring` there and one that entered is `held`, as `"read lock"` or
 *   `"write lock"`; a downgrade ends the one and begins the other in one step.
 * - KeyedRwLock-1 Different keys never wait for each other; a key without holders and waiters takes no memory.
 *
 * COST about 0.6 µs uncontended, 0.2 of it the set of the fibers inside (`detectReentry: false` keeps none).
 * NOT DONE upgrade (two readers that upgrade wait for each other); the reentry of a fiber forked by one inside.
 * SOURCES tokio's RwLock (one fair line; downgrade). AsyncEx #134: a writer that leaves the line must let the readers in.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as FiberId from "effect/FiberId"
import { dual, identity } from "effect/Function"
import type { TypeLambda } from "effect/HKT"
import type * as Inspectable from "effect/Inspectable"
import type { Pipeable } from "effect/Pipeable"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import * as Handover from "./internal/handover.ts"
import * as Hold from "./internal/hold.ts"
import * as Line from "./internal/line.ts"
import * as Rules from "./internal/options.ts"
import { type AnyFiber, currentFiber, Frame } from "./internal/runtime.ts"
import type * as Shapes from "./internal/shapes.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"
import type { TimeoutOf, WaitOptions } from "./Semaphore.ts"

/**
 * How a holder is inside.
 *
 * @category models
 * @since 0.1.0
 */
export type Mode = "read" | "write"

/**
 * The defect of a fiber whose bracket is inside already and that would have to wait for itself: to write what it reads, to read
 * what it writes, or to read again behind a writer that waits for its first read.
 *
 * @category errors
 * @since 0.1.0
 */
export class RwLockReentry extends Data.TaggedError("RwLockReentry")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly lock: string
  readonly fiberId: FiberId.FiberId
  readonly holds: Mode
  readonly asked: Mode
}> {
  override get message(): string {
    return `This fiber holds lock "${this.lock}" to ${this.holds} and asked to ${this.asked}, which would wait for itself. `
      + "Take it once, outside, in the stronger mode (and downgrade)."
  }
}

/**
 * The lock was not free within `acquireTimeout`.
 *
 * @category errors
 * @since 0.1.0
 */
export class RwLockTimeout extends Data.TaggedError("RwLockTimeout")<{
  /** Its name; a field called `name` would replace the error's own. */
  readonly lock: string
  readonly asked: Mode
  readonly waited: Duration.Duration
  readonly stats: Stats
}> {
  override get message(): string {
    const { readers, waiting, writing } = this.stats
    const inside = writing ? "a writer" : `${readers} readers`
    const waited = Duration.format(this.waited)
    return `Lock "${this.lock}" could not be entered to ${this.asked} within ${waited}: ${inside} inside, `
      + `${waiting} more waiting. Wait longer, or stay inside for less.`
  }
}

/**
 * @category symbols
 * @since 0.1.0
 */
export const TypeId: unique symbol = Symbol.for("holdfast/RwLock")

/**
 * @category symbols
 * @since 0.1.0
 */
export type TypeId = typeof TypeId

/**
 * A lock for many readers or one writer.
 *
 * @category models
 * @since 0.1.0
 */
export interface RwLock extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: TypeId
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** @internal */
  line(): State
}

/**
 * One such lock per key; the keys are compared as `Equal` does (data by value, other objects by identity).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedRwLock<in out K> extends Pipeable, Inspectable.Inspectable {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> }
  readonly name: string
  /** @internal */
  at(key: K): Line.Source<never, RwLockTimeout>
  /** @internal */
  unsafeFind(key: K): State | undefined
  /** @internal The keys in use. */
  readonly size: number
}

interface KeyedRwLockLambda extends TypeLambda {
  readonly type: KeyedRwLock<this["Target"]>
}

/**
 * The readers and the writer inside, and the number of waiters, readers and writers together.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  readonly readers: number
  readonly writing: boolean
  readonly waiting: number
}

/**
 * How to make a lock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Shown in errors and by the ledger. Default `"lock"`. */
  readonly name?: string | undefined
  /** Whether a fiber that would wait for itself dies with `RwLockReentry`. Default `true`; else it waits for ever. */
  readonly detectReentry?: boolean | undefined
}

/** The modes as a queue carries them. */
const reading = 0
const writing = 1

const modeOf = (need: number): Mode => need === reading ? "read" : "write"

const idle: Stats = { readers: 0, writing: false, waiting: 0 }

/** Only this file writes it. */
class State extends Line.Line<never, RwLockTimeout> implements RwLock {
  readonly [TypeId]: TypeId = TypeId
  readonly module = "rwLock"
  readonly detects: boolean
  readers = 0
  writing = false
  /** The fibers whose brackets are inside (RwLock-5); a scope's hold has none, since any fiber may close a scope. */
  readonly inside = new Set<AnyFiber>()

  constructor(name: string, detects: boolean, registration?: Line.Registration) {
    super(name, registration)
    this.detects = detects
  }

  stats(): Stats {
    return { readers: this.readers, writing: this.writing, waiting: this.queue.size }
  }

  toJSON(): unknown {
    return { _id: "RwLock", name: this.name, ...this.stats() }
  }

  kindOf(need: number): string {
    return `${modeOf(need)} lock`
  }

  recorder(fiber?: AnyFiber): Hold.Recorder | undefined {
    return Ledger.unsafeInForce(fiber)
  }

  override asker(fiber = currentFiber()): AnyFiber | undefined {
    return this.detects ? fiber : undefined
  }

  isOpen(need: number): boolean {
    return !this.writing && (need === reading || this.readers === 0)
  }

  enter(need: number): void {
    if (need === reading) this.readers++
    else this.writing = true
  }

  tryTake(need: number): boolean {
    if (this.queue.size > 0 || !this.isOpen(need)) return false
    this.enter(need)
    return true
  }

  override refusal(need: number, asker: AnyFiber | undefined): Effect.Effect<never> | undefined {
    if (asker === undefined || !this.inside.has(asker)) return undefined
    const holds = this.writing ? "write" : "read"
    return Effect.die(
      new RwLockReentry({ lock: this.name, fiberId: asker.id(), holds, asked: modeOf(need) })
    )
  }

  late(need: number, waited: Duration.Duration): RwLockTimeout {
    return new RwLockTimeout({ lock: this.name, asked: modeOf(need), waited, stats: this.stats() })
  }

  /** Grants to all at the head that can be inside together. */
  serve(): void {
    const { queue } = this
    while (queue.head !== undefined && this.isOpen(queue.head.need)) {
      this.enter(queue.head.need)
      WaitQueue.grantHead(queue)
    }
  }

  giveBack(need: number): void {
    if (need === reading ? this.readers === 0 : !this.writing) {
      throw new Error("RwLock-1 broken: released twice")
    }
    if (need === reading) this.readers--
    else this.writing = false
    this.serve()
    this.settle()
  }

  isIdle(): boolean {
    return !this.writing && this.readers === 0
  }

  override readonly alike = this

  /** Each waiter is a writer or behind one, so every holder must release. */
  isServedIf(_: Hold.Hold, releases: (hold: Hold.Hold) => boolean): boolean {
    return Hold.keepAtMost(this, 0, releases)
  }

  /** Until it ends, the bracket of `owner` counts as inside. A nested bracket leaves that to the outer one. */
  override ending(
    need: number,
    owner: AnyFiber | undefined,
    hold: Hold.Hold | undefined
  ): Frame {
    const isOuter = owner !== undefined && !this.inside.has(owner)
    if (isOuter) this.inside.add(owner)
    return new Frame(() => this.leave(need, isOuter ? owner : undefined, hold))
  }

  leave(need: number, owner: AnyFiber | undefined, hold: Hold.Hold | undefined): void {
    if (owner !== undefined) this.inside.delete(owner)
    hold?.left()
    this.giveBack(need)
  }

  /** The writer inside becomes a reader, in one step. */
  downgrade(
    owner: AnyFiber | undefined,
    hold: Hold.Hold | undefined,
    site: Ledger.Site | undefined
  ): Frame {
    if (owner !== undefined) this.inside.delete(owner)
    hold?.left()
    this.writing = false
    this.readers++
    const next = Line.record(this, reading, site)
    next?.granted()
    this.serve()
    return this.ending(reading, owner, next)
  }
}

class KeyedStates<in out K> extends Line.Keyed<K, State> implements KeyedRwLock<K> {
  readonly [TypeId]: { readonly _K: Types.Invariant<K> } = { _K: identity }
  readonly id = "KeyedRwLock"
  readonly detects: boolean

  constructor(name: string, detects: boolean) {
    super(name)
    this.detects = detects
  }

  makeLine(registration: Line.Registration): State {
    return new State(this.name, this.detects, registration)
  }
}

const rules: Rules.Rules = { name: Rules.text, detectReentry: Rules.flag }

const settingsOf = (where: string, options: Options = {}): readonly [string, boolean] => {
  Rules.check(where, options, rules)
  return [options.name ?? "lock", options.detectReentry ?? true]
}

/**
 * A free lock.
 *
 * @category unsafe
 * @since 0.1.0
 */
export const unsafeMake = (options?: Options): RwLock =>
  new State(...settingsOf("RwLock.make", options))

/**
 * A free lock.
 *
 * **Errors** — an unknown option is a `RangeError` defect.
 *
 * **Example** (readers together, the writer alone)
 * ```ts run
 * import { Effect } from "effect"
 * import { Parallel, RwLock } from "holdfast"
 *
 * const log: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const lock = yield* RwLock.make({ name: "config" })
 *   const step = (who: string) =>
 *     Effect.gen(function*() {
 *       log.push(`+${who}`)
 *       yield* Effect.yieldNow()
 *       log.push(`-${who}`)
 *     })
 *   const all = [
 *     step("r1").pipe(RwLock.withRead(lock)),
 *     step("r2").pipe(RwLock.withRead(lock)),
 *     step("w").pipe(RwLock.withWrite(lock)),
 *     step("r3").pipe(RwLock.withRead(lock))
 *   ]
 *   yield* Parallel.all(all, { concurrency: 4, discard: true })
 * })
 * await Effect.runPromise(program)
 * log // => ["+r1", "+r2", "-r1", "-r2", "+w", "-w", "+r3", "-r3"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options?: Options): Effect.Effect<RwLock> =>
  Effect.sync(() => unsafeMake(options))

/**
 * A free lock for each key. A key without holders and waiters takes no memory.
 *
 * **Example** (a writer of one file, a reader of another)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { RwLock } from "holdfast"
 *
 * const program = Effect.gen(function*() {
 *   const files = yield* RwLock.makeKeyed<string>({ name: "file" })
 *   const other = RwLock.tryWithReadKey(Effect.succeed("read"), files, "b.txt")
 *   return yield* RwLock.withWriteKey(other, files, "a.txt")
 * })
 * Effect.runSync(program) // => Option.some("read")
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyed = <K>(options?: Options): Effect.Effect<KeyedRwLock<K>> =>
  Effect.sync(() => new KeyedStates<K>(...settingsOf("RwLock.makeKeyed", options)))

/**
 * The readers, the writer and the waiters, exact in the step that reads them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: RwLock): Effect.Effect<Stats> => Effect.sync(() => self.line().stats())

/**
 * `stats` of one key.
 *
 * @category getters
 * @since 0.1.0
 */
export const statsKey: Shapes.KeyGetter<KeyedRwLockLambda, Stats> = dual(
  2,
  (self: KeyedRwLock<any>, key: unknown) => Effect.sync(() => self.unsafeFind(key)?.stats() ?? idle)
)

/**
 * How many keys are held or awaited.
 *
 * @category getters
 * @since 0.1.0
 */
export const size = <K>(self: KeyedRwLock<K>): Effect.Effect<number> => Effect.sync(() => self.size)

type Bracket = Line.Bracket<RwLock, WaitOptions, RwLockTimeout>

const bracket = (need: number): Bracket =>
  dual(
    Line.isDataFirst,
    (effect: Line.AnyEffect, self: RwLock, options?: WaitOptions) =>
      Line.use(self, need, effect, Ledger.unsafeSite(), options)
  )

type KeyBracket = Shapes.KeyBracket<KeyedRwLockLambda, RwLockTimeout>

const keyBracket = (need: number): KeyBracket =>
  dual(
    Line.isDataFirst,
    (effect: Line.AnyEffect, self: KeyedRwLock<any>, key: unknown, options?: WaitOptions) =>
      Line.use(self.at(key), need, effect, Ledger.unsafeSite(), options)
  )

type Attempt = Line.Attempt<RwLock>

const attempt = (need: number): Attempt =>
  dual(
    Line.isDataFirst,
    (effect: Line.AnyEffect, self: RwLock) => Line.tryUse(self, need, effect, Ledger.unsafeSite())
  )

type KeyAttempt = Shapes.KeyAttempt<KeyedRwLockLambda>

const keyAttempt = (need: number): KeyAttempt =>
  dual(
    Line.isDataFirst,
    (effect: Line.AnyEffect, self: KeyedRwLock<any>, key: unknown) =>
      Line.tryUse(self.at(key), need, effect, Ledger.unsafeSite())
  )

const get = (need: number) =>
<O extends WaitOptions = {}>(
  self: RwLock,
  options?: O
): Effect.Effect<void, TimeoutOf<O, RwLockTimeout>, Scope.Scope> =>
  Line.get(self, need, Ledger.unsafeSite(), options)

type KeyGet = Shapes.KeyGet<KeyedRwLockLambda, RwLockTimeout>

const keyGet = (need: number): KeyGet => (self, key, options) =>
  Line.get(self.at(key), need, Ledger.unsafeSite(), options)

/**
 * Runs an effect beside other readers, and beside no writer.
 *
 * **Interruption** — Waiting: leaves the queue. Holding: the effect is interrupted, and each waiter that can enter does.
 * **Errors** — the effect's own; `RwLockTimeout` with `acquireTimeout`; a fiber that would wait for itself dies with
 *   `RwLockReentry`. **Cost** — about 0.6 µs uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const withRead: Bracket = bracket(reading)

/**
 * Runs an effect as the only holder.
 *
 * **Interruption**, **Errors**, **Cost** — as `withRead`.
 *
 * **Example** (a bounded wait)
 * ```ts run
 * import { Effect } from "effect"
 * import { RwLock } from "holdfast"
 *
 * const lock = RwLock.unsafeMake()
 * const write = RwLock.withWrite(Effect.succeed("written"), lock, { acquireTimeout: "1 second" })
 * Effect.runSync(write) // => "written"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withWrite: Bracket = bracket(writing)

/**
 * `withRead` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const withReadKey: KeyBracket = keyBracket(reading)

/**
 * `withWrite` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const withWriteKey: KeyBracket = keyBracket(writing)

/**
 * `withRead` if it can enter at once and the queue is empty; otherwise none.
 *
 * **Errors** — the effect's own. **Cost** — as `withRead`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithRead: Attempt = attempt(reading)

/**
 * `withWrite` if it can enter at once; otherwise none.
 *
 * **Errors** — the effect's own. **Cost** — as `withWrite`.
 *
 * **Example** (not beside a reader)
 * ```ts run
 * import { Effect, Option } from "effect"
 * import { RwLock } from "holdfast"
 *
 * const lock = RwLock.unsafeMake()
 * const write = RwLock.tryWithWrite(Effect.succeed("written"), lock)
 * Effect.runSync(RwLock.withRead(write, lock)) // => Option.none()
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithWrite: Attempt = attempt(writing)

/**
 * `tryWithRead` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithReadKey: KeyAttempt = keyAttempt(reading)

/**
 * `tryWithWrite` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryWithWriteKey: KeyAttempt = keyAttempt(writing)

/**
 * Writes, then becomes a reader in one step. The readers at the head of the queue enter in that step; no writer enters until `read`
 * has ended.
 *
 * **Interruption** — as `withRead`, in both parts. **Errors** — those of both parts; `RwLockReentry` as `withWrite`. If
 *   `write` fails, `read` does not run. **Cost** — about 2.5 µs uncontended.
 *
 * **Example** (write, then read with others)
 * ```ts run
 * import { Effect } from "effect"
 * import { RwLock } from "holdfast"
 *
 * const lock = RwLock.unsafeMake()
 * const both = RwLock.withWriteDowngraded(Effect.succeed(1), lock, (written) =>
 *   Effect.map(RwLock.stats(lock), ({ readers }) => [written, readers]))
 * Effect.runSync(both) // => [1, 1]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const withWriteDowngraded = <A, E, R, B, E2, R2, O extends WaitOptions = {}>(
  write: Effect.Effect<A, E, R>,
  self: RwLock,
  read: (written: A) => Effect.Effect<B, E2, R2>,
  options?: O
): Effect.Effect<B, E | E2 | TimeoutOf<O, RwLockTimeout>, R | R2> => {
  const site = Ledger.unsafeSite()
  // MASK: from the entry to the exit; the wait and both parts are restored.
  // `any`: the type of a wait does not say that only a bounded one is late.
  return Effect.uninterruptibleMask((restore): Effect.Effect<B, any, R | R2> => {
    const state = self.line()
    const asker = state.asker()
    return Line.takeInMask(state, writing, asker, asker, restore, site, options, (hold) => {
      const ending = state.ending(writing, asker, hold)
      return Handover.useThen(write, restore, state, (exit): Effect.Effect<B, E | E2, R2> => {
        if (Exit.isFailure(exit)) {
          ending.run()
          return Effect.failCause(exit.cause)
        }
        const next = Effect.suspend(() => read(exit.value))
        return Handover.useInMask(next, restore, state, state.downgrade(asker, hold, site))
      })
    })
  })
}

/**
 * Enters to read and stays until the scope closes. Such a hold belongs to the scope, which any fiber may close: only the brackets
 * of a fiber count as its own.
 *
 * **Interruption** — Waiting: leaves the queue. **Errors** — `RwLockTimeout` with `acquireTimeout`; `RwLockReentry` as `withRead`;
 *   in a closed scope it dies with `Managed.OwnerClosed`, and holds nothing. **Cost** — about 9 µs.
 *
 * **Example** (inside for as long as the scope)
 * ```ts run
 * import { Effect } from "effect"
 * import { RwLock } from "holdfast"
 *
 * const lock = RwLock.unsafeMake()
 * const inside = Effect.scoped(Effect.zipRight(RwLock.getRead(lock), RwLock.stats(lock)))
 * Effect.runSync(inside).readers // => 1
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const getRead = get(reading)

/**
 * Enters to write and stays until the scope closes.
 *
 * **Interruption**, **Errors**, **Cost** — as `getRead`.
 *
 * @category operations
 * @since 0.1.0
 */
export const getWrite = get(writing)

/**
 * `getRead` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const getReadKey: KeyGet = keyGet(reading)

/**
 * `getWrite` of one key.
 *
 * @category operations
 * @since 0.1.0
 */
export const getWriteKey: KeyGet = keyGet(writing)
