/**
 * line: a thing that is taken at once or waited for in a queue, as a bracket, a try, or in a scope. Semaphore, Mutex, RwLock and
 * RateLimiter differ in what one takes and when it is free; everything else about taking is here.
 *
 * DESIGN. A class per kind of thing says what is free (`tryTake`), who is next (`serve`) and what comes back (`giveBack`). Keyed
 * things are one line per key, made when the key comes into use and forgotten in the step in which its last holder or waiter
 * leaves. Order is decided in waitQueue.ts, the hand-over in handover.ts, what the ledger sees in hold.ts.
 *
 * INVARIANTS those of Semaphore.ts, Mutex.ts, RwLock.ts and RateLimiter.ts.
 *
 * COST uncontended one operation and one frame; one queue record per wait.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Handle } from "./handle.ts"
import * as Handover from "./handover.ts"
import * as Hold from "./hold.ts"
import * as Lent from "./lent.ts"
import * as Rules from "./options.ts"
import { type AnyFiber, currentFiber, Frame, isClosed, pushFrame } from "./runtime.ts"
import * as Span from "./span.ts"
import * as WaitQueue from "./waitQueue.ts"

export type Restore = WaitQueue.Restore

export interface WaitOptions {
  readonly acquireTimeout?: Duration.DurationInput | undefined
  readonly priority?: number | undefined
}

/** How a line of a keyed thing is registered. */
export interface Registration {
  readonly key: unknown
  readonly forget: () => void
}

let ranks = 0

/** `E`: why the owner refuses; `T`: the failure of a late waiter. */
export abstract class Line<E, T> extends Handle implements Hold.Thing {
  readonly label: string
  readonly registration: Registration | undefined
  readonly queue = WaitQueue.make<E>()
  /** The order in which calls that take several lines take them. */
  readonly rank = ranks++
  /** The number of calls that will take it in a later step; until then it is not forgotten. */
  pins = 0
  holds: Hold.Holds | undefined = undefined
  #ending: Frame | undefined = undefined

  constructor(label: string, registration?: Registration) {
    super()
    this.label = label
    this.registration = registration
  }

  /** Its name in errors, the ledger and spans. */
  get name(): string {
    return this.registration === undefined
      ? this.label
      : `${this.label}[${Inspectable.toStringUnknown(this.registration.key, 0)}]`
  }

  line(): this {
    return this
  }

  /** The module, in the names of spans. */
  abstract readonly module: string
  abstract kindOf(need: number): string
  abstract recorder(fiber?: AnyFiber): Hold.Recorder | undefined
  /** The fiber that asks, if the thing remembers its holders. */
  asker(_fiber?: AnyFiber): AnyFiber | undefined {
    return undefined
  }
  /** Takes it for a newcomer if it is free and the queue is empty. */
  abstract tryTake(need: number, owner: AnyFiber | undefined): boolean
  /** The failure of a request that would wait for ever, or that comes after the close. */
  refusal(_need: number, _asker: AnyFiber | undefined): Effect.Effect<never, E> | undefined {
    return undefined
  }
  abstract late(need: number, waited: Duration.Duration): T
  /** Grants to the head of the queue as long as that is possible. */
  abstract serve(): void
  /** Takes back what was taken, serves, and settles. */
  abstract giveBack(need: number, owner: AnyFiber | undefined): void
  abstract isIdle(): boolean
  abstract isServedIf(waiting: Hold.Hold, releases: (hold: Hold.Hold) => boolean): boolean
  /** Set to the line where `isServedIf` does not depend on `waiting`. */
  readonly alike: object | undefined = undefined

  /** Forgets the line of a key without holders, waiters and pins. */
  settle(): void {
    if (this.registration !== undefined && this.pins === 0 && this.isIdle()) {
      this.registration.forget()
    }
  }

  /** Undefined where nothing is given back. */
  ending(
    need: number,
    owner: AnyFiber | undefined,
    hold: Hold.Hold | undefined
  ): Frame | undefined {
    if (hold === undefined && need === 1) {
      return this.#ending ??= new Frame(() => this.giveBack(1, undefined))
    }
    return new Frame(() => end(this, need, owner, hold))
  }
}

type AnyLine = Line<any, any>

const end = (
  line: AnyLine,
  need: number,
  owner: AnyFiber | undefined,
  hold: Hold.Hold | undefined
): void => {
  hold?.left()
  line.giveBack(need, owner)
}

/** Whether a waiter is served, after those before it, if each hold for which `releases` is true is released. */
export const isServedInTurn = (
  line: AnyLine,
  capacity: number,
  waiting: Hold.Hold,
  releases: (hold: Hold.Hold) => boolean
): boolean => {
  let need = waiting.amount
  for (let before = waiting.waiter?.previous; before !== undefined; before = before.previous) {
    const { watch } = before
    // Most of a long queue stands or falls with the waiter just before, and that is one look.
    if (watch instanceof Hold.Hold) {
      if (!releases(watch)) return false
      break
    }
    need = Math.max(need, before.need)
  }
  return Hold.keepAtMost(line, capacity - need, releases)
}

/** The ledger's entry of a request, if a ledger is in force. */
export const record = (
  line: AnyLine,
  need: number,
  site: Hold.Site | undefined,
  fiber?: AnyFiber
): Hold.Hold | undefined => {
  const recorder = line.recorder(fiber)
  return recorder && new Hold.Hold(recorder, line, {
    kind: line.kindOf(need),
    name: line.name,
    amount: Math.max(need, 1),
    site,
    attributes: need > 1 ? { permits: need } : undefined,
    isServedIf: (waiting, releases) => line.isServedIf(waiting, releases),
    alike: line.alike
  })
}

// `tokens` is what a RateLimiter takes, and `tryTake` checks that.
const rules: Rules.Rules = { ...Rules.waitRules, tokens: Rules.anything }

const attributesOf = (line: AnyLine) => ({ [`holdfast.${line.module}.name`]: line.name })

/** How a request waits. */
const waitOf = <T>(
  line: Line<any, T>,
  need: number,
  owner: AnyFiber | undefined,
  options: WaitOptions = {}
): WaitQueue.Options<T> => {
  // The label alone: to show a key takes long, and may throw.
  Rules.check(`${line.module} "${line.label}"`, options, rules)
  const { acquireTimeout, priority } = options
  const atMost = acquireTimeout === undefined ? undefined : Duration.decode(acquireTimeout)
  const bound = atMost && { atMost, late: () => Cause.fail(line.late(need, atMost)) }
  return { priority, owner, bound }
}

const onLeaveOf =
  (line: AnyLine, need: number, owner: AnyFiber | undefined) => (wasGranted: boolean): void => {
    if (wasGranted) return line.giveBack(need, owner)
    line.serve()
    line.settle()
  }

/** Waits in the queue. To be called in the step that found nothing free, inside the mask (WaitQueue-5). */
export const wait = <E, T>(
  line: Line<E, T>,
  need: number,
  owner: AnyFiber | undefined,
  restore: Restore,
  hold: Hold.Hold | undefined,
  options?: WaitOptions
): Effect.Effect<void, E | T> => {
  const waiting = WaitQueue.waitInMask<E, T>(
    line.queue,
    need,
    restore,
    onLeaveOf(line, need, owner),
    hold,
    waitOf(line, need, owner, options)
  )
  // It may stand before those for whom too little was free; and time may serve it.
  line.serve()
  return Span.withSpan(currentFiber()!, waiting, `${line.module}.acquire`, attributesOf, line)
}

/** Takes at once or waits; then `inside` runs in the same masked step and must give back what was taken. */
export const takeInMask = <A, E, R, E2, T>(
  line: Line<E2, T>,
  need: number,
  asker: AnyFiber | undefined,
  owner: AnyFiber | undefined,
  restore: Restore,
  site: Hold.Site | undefined,
  options: WaitOptions | undefined,
  inside: (hold: Hold.Hold | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | E2 | T, R> => {
  const isTaken = line.tryTake(need, owner)
  const refusal = isTaken ? undefined : line.refusal(need, asker)
  if (refusal !== undefined) return refusal
  const hold = record(line, need, site)
  if (!isTaken) {
    return Effect.flatMap(wait(line, need, owner, restore, hold, options), () => inside(hold))
  }
  hold?.granted()
  return inside(hold)
}

/** A handle, or a key of a keyed one: the line is looked up in the step that takes. */
export interface Source<E, T> {
  line(): Line<E, T>
}

/** `T` if the options `O` may bound the wait. */
export type TimeoutOf<O, T> = "acquireTimeout" extends keyof O
  ? [O["acquireTimeout"]] extends [undefined] ? never : T
  : never

type Unbounded = { readonly acquireTimeout?: undefined }

/** Runs an effect while holding `Handle`. `T`: the failure of a late waiter. */
export interface Bracket<Handle, Options, T> {
  <O extends Options = Options & Unbounded>(
    self: Handle,
    options?: O
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | TimeoutOf<O, T>, R>
  <A, E, R, O extends Options = Options & Unbounded>(
    effect: Effect.Effect<A, E, R>,
    self: Handle,
    options?: O
  ): Effect.Effect<A, E | TimeoutOf<O, T>, R>
}

/** Runs an effect while holding `Handle`, if it is free at once; otherwise none. */
export interface Attempt<Handle, Options extends ReadonlyArray<unknown> = []> {
  (
    self: Handle,
    ...options: Options
  ): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E, R>
  <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    self: Handle,
    ...options: Options
  ): Effect.Effect<Option.Option<A>, E, R>
}

/** For `dual`: whether the effect comes first. */
export const isDataFirst = (args: IArguments): boolean => Effect.isEffect(args[0])

/** The effect in the implementation of a bracket, whose declared type is exact. */
export type AnyEffect = Effect.Effect<any, any, any>

/** Runs an effect with what was just taken. */
const useInMask = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  restore: Restore,
  line: AnyLine,
  need: number,
  owner: AnyFiber | undefined,
  hold: Hold.Hold | undefined
): Effect.Effect<A, E, R> => {
  const ending = line.ending(need, owner, hold)
  return ending === undefined
    ? restore(effect)
    : Handover.useInMask(effect, restore, line, ending)
}

/** The bracket. */
export const use = <A, E, R, E2, T>(
  source: Source<E2, T>,
  need: number,
  effect: Effect.Effect<A, E, R>,
  site: Hold.Site | undefined,
  options: WaitOptions | undefined
): Effect.Effect<A, E | E2 | T, R> =>
  Effect.withFiberRuntime<A, E | E2 | T, R>((fiber) => {
    if (Handover.isOneStep(fiber)) {
      const line = source.line()
      const asker = line.asker(fiber)
      if (line.tryTake(need, asker)) {
        const hold = record(line, need, site, fiber)
        hold?.granted()
        const ending = line.ending(need, asker, hold)
        if (ending !== undefined) pushFrame(fiber, ending)
        return effect
      }
      // Where no ledger and no tracer looks.
      if (line.recorder(fiber) === undefined && !Span.isTraced(fiber)) {
        const refusal = line.refusal(need, asker)
        if (refusal !== undefined) return refusal
        const used = WaitQueue.useInStep(
          fiber,
          line.queue,
          need,
          () => effect,
          () => line.ending(need, asker, undefined),
          onLeaveOf(line, need, asker),
          waitOf(line, need, asker, options)
        )
        line.serve()
        return used
      }
    }
    // MASK: from the grant to the release; the wait and the effect are restored.
    return Effect.uninterruptibleMask((restore) => {
      const line = source.line()
      const asker = line.asker()
      return takeInMask<A, E, R, E2, T>(
        line,
        need,
        asker,
        asker,
        restore,
        site,
        options,
        (hold) => useInMask(effect, restore, line, need, asker, hold)
      )
    })
  })

/** The bracket that runs nothing unless the thing is free. */
export const tryUse = <A, E, R, E2>(
  source: Source<E2, unknown>,
  need: number,
  effect: Effect.Effect<A, E, R>,
  site: Hold.Site | undefined
): Effect.Effect<Option.Option<A>, E | E2, R> =>
  // MASK: from the take to the release; the effect is restored and nothing waits.
  Effect.uninterruptibleMask((restore): Effect.Effect<Option.Option<A>, E | E2, R> => {
    const line = source.line()
    const asker = line.asker()
    if (!line.tryTake(need, asker)) return line.refusal(need, undefined) ?? Effect.succeedNone
    const hold = record(line, need, site)
    hold?.granted()
    return useInMask(Effect.asSome(effect), restore, line, need, asker, hold)
  })

/** Holds until the scope closes. Any fiber may close a scope, so no fiber is the owner. */
export const get = <E, T, O extends WaitOptions>(
  source: Source<E, T>,
  need: number,
  site: Hold.Site | undefined,
  options: O | undefined
): Effect.Effect<void, E | TimeoutOf<O, T>, Scope.Scope> =>
  // MASK: the take and the finalizer that gives back are one step; the wait is restored.
  Effect.uninterruptibleMask((restore) => {
    return Effect.flatMap(Effect.scope, (scope) => {
      // In the step that takes.
      // `any`: the type of `takeInMask` does not say that only a bounded wait is late.
      const line: Line<E, any> = source.line()
      if (isClosed(scope)) {
        line.settle()
        return Handover.ownerClosed(line.name)
      }
      return takeInMask(line, need, line.asker(), undefined, restore, site, options, (hold) =>
        Handover.ownInScope(
          scope,
          line.name,
          () =>
            Effect.sync(() =>
              end(line, need, undefined, hold)
            ),
          Lent.lend("none")
        ))
    })
  })

/** The brackets of several lines, nested in the order of their ranks, which is the same in every call. */
export const useAll = <A, E, R, E2, T>(
  linesOf: () => ReadonlyArray<Line<E2, T>>,
  effect: Effect.Effect<A, E, R>,
  site: Hold.Site | undefined,
  options: WaitOptions | undefined
): Effect.Effect<A, E | E2 | T, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const lines = linesOf().toSorted((one, other) => one.rank - other.rank)
      for (const line of lines) line.pins++
      return lines
    }),
    (lines) => {
      const asker = lines[0]?.asker()
      // Each is asked before any is taken.
      const refusals = lines.map((line) => line.refusal(1, asker))
      return refusals.find((one) => one !== undefined)
        ?? lines.reduceRight<Effect.Effect<A, E | E2 | T, R>>(
          (inside, line) => use(line, 1, inside, site, options),
          effect
        )
    },
    (lines) =>
      Effect.sync(() => {
        for (const line of lines) {
          line.pins--
          line.settle()
        }
      })
  )

/** One line per key that is in use. Keys are compared as `Equal` does: data by value, other objects by identity. */
export abstract class Keyed<K, L> extends Handle {
  readonly name: string
  readonly lines = MutableHashMap.empty<K, L>()

  constructor(name: string) {
    super()
    this.name = name
  }

  abstract makeLine(registration: Registration): L

  toJSON(): unknown {
    return { _id: this.id, name: this.name, keys: MutableHashMap.size(this.lines) }
  }

  abstract readonly id: string

  /** To be called in the step that takes: a line that is never taken is never forgotten. */
  lineOf(key: K): L {
    const known = MutableHashMap.get(this.lines, key)
    if (Option.isSome(known)) return known.value
    const line = this.makeLine({
      key,
      forget: () => void MutableHashMap.remove(this.lines, key)
    })
    MutableHashMap.set(this.lines, key, line)
    return line
  }

  at(key: K): { line(): L } {
    return { line: () => this.lineOf(key) }
  }

  unsafeFind(key: K): L | undefined {
    return Option.getOrUndefined(MutableHashMap.get(this.lines, key))
  }

  get size(): number {
    return MutableHashMap.size(this.lines)
  }
}
