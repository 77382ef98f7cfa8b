/**
 * all: several resources as one, opened together, all or none; and the ways to close them.
 *
 * INVARIANTS Managed-7, named where it is kept.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import type * as Types from "effect/Types"
import { withFailure } from "../internal/exit.ts"
import * as Rules from "../internal/options.ts"
import * as Workers from "../internal/workers.ts"
import type * as Ledger from "../Ledger.ts"
import { Base, endUnchanged, type Managed, type Opened, type Restore } from "./resource.ts"

/**
 * How `all` opens and releases its members.
 *
 * @category models
 * @since 0.1.0
 */
export interface AllOptions {
  /** How many are opened at once. Default `"unbounded"`. */
  readonly concurrency?: Types.Concurrency | undefined
  /**
   * `"sequential"`: one after the other, in the reverse of the order in which they were open. `"parallel"`: all at once; then
   * none of them can change the exit. Default `"sequential"`.
   */
  readonly releases?: "sequential" | "parallel" | undefined
}

type AnyManaged = Managed<any, any, any>
type ValueOf<M> = M extends Managed<infer A, infer _E, infer _R> ? A : never
type ErrorOf<M> = M extends Managed<infer _A, infer E, infer _R> ? E : never
type ContextOf<M> = M extends Managed<infer _A, infer _E, infer R> ? R : never
type MemberOf<T> = T extends Iterable<infer M> ? M : T[keyof T]
type ValuesOf<T> = T extends ReadonlyArray<unknown> ? { -readonly [K in keyof T]: ValueOf<T[K]> }
  : T extends Iterable<infer M> ? Array<ValueOf<M>>
  : { -readonly [K in keyof T]: ValueOf<T[K]> }

/** Closes them one after the other, the last opened first, whatever the others do. */
const closeInTurn = (
  members: ReadonlyArray<Opened<unknown>>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.flatMap(
    Effect.reduceRight(members, Cause.empty as Cause.Cause<never>, ({ close }, before) =>
      Effect.matchCause(close(exit), {
        onFailure: (cause) =>
          Cause.isEmpty(before) ? cause : Cause.sequential(before, cause),
        onSuccess: () =>
          before
      })),
    (cause) =>
      Cause.isEmpty(cause) ? Effect.void : Effect.failCause(cause)
  )

const closeTogether = (
  members: ReadonlyArray<Opened<unknown>>,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    // Collected here: a group interrupts its members at the first failure.
    const causes: Array<Cause.Cause<never>> = []
    const worker = (index: number): Effect.Effect<void> =>
      Effect.matchCause(members[index]!.close(exit), {
        onFailure: (cause) => {
          causes.push(cause)
        },
        onSuccess: () => {}
      })
    return Effect.flatMap(
      Workers.run(Workers.makeGroup<never>(), { count: members.length, worker }),
      () => causes.length === 0 ? Effect.void : Effect.failCause(causes.reduce(Cause.parallel))
    )
  })

/** As `closeInTurn`; each sees the exit that the one before has left. */
const exitInTurn = <E, E2>(
  members: ReadonlyArray<Opened<unknown, E>>,
  exit: Exit.Exit<unknown, E2>
): Effect.Effect<Exit.Exit<unknown, E | E2>> =>
  Effect.reduceRight(
    members,
    exit as Exit.Exit<unknown, E | E2>,
    ({ close, exit }, current) =>
      exit === undefined
        ? Effect.matchCause(close(current), {
          onFailure: (cause) => withFailure(current, cause),
          onSuccess: () => current
        })
        : exit(current)
  )

const inTurn = <V, E>(members: ReadonlyArray<Opened<unknown, E>>, value: V): Opened<V, E> => {
  const close = (exit: Exit.Exit<unknown, unknown>) => closeInTurn(members, exit)
  return members.some(({ exit }) => exit !== undefined)
    ? { value, close, exit: (exit) => exitInTurn(members, exit) }
    : { value, close }
}

/** One resource, and another that is made with its value. */
export class Chained<A, E, R, B, E2, R2> extends Base<B, E | E2, R | R2> {
  readonly first: Managed<A, E, R>
  readonly f: (value: A) => Managed<B, E2, R2>

  constructor(first: Managed<A, E, R>, f: (value: A) => Managed<B, E2, R2>) {
    super(first.name, first.kind)
    this.first = first
    this.f = f
  }

  openInMask(
    restore: Restore,
    site?: Ledger.Site,
    onEntry?: (entry: Ledger.Entry) => void
  ): Effect.Effect<Opened<B, E | E2>, E | E2, R | R2> {
    return Effect.flatMap(
      this.first.openInMask(restore, site, onEntry),
      (first: Opened<unknown, E | E2> & { readonly value: A }) =>
        Effect.matchCauseEffect(
          Effect.suspend(() => this.f(first.value).openInMask(restore, site)),
          {
            onFailure: (cause) => endUnchanged(first, Exit.failCause(cause)),
            onSuccess: (second) => Effect.succeed(inTurn([first, second], second.value))
          }
        )
    )
  }
}

const rules: Rules.Rules = {
  concurrency: Rules.concurrency,
  releases: Rules.oneOf("sequential", "parallel")
}

class All<A, E, R> extends Base<A, E, R> {
  readonly members: ReadonlyArray<Managed<unknown, E, R>>
  readonly assemble: (values: ReadonlyArray<unknown>) => A
  readonly options: AllOptions

  constructor(
    members: ReadonlyArray<Managed<unknown, E, R>>,
    assemble: (values: ReadonlyArray<unknown>) => A,
    options: AllOptions
  ) {
    const names = members.slice(0, 5).map(({ name }) => name)
    super(`all(${names.join(", ")}${members.length > 5 ? ", …" : ""})`, "all")
    this.members = members
    this.assemble = assemble
    this.options = options
  }

  openInMask(restore: Restore, site?: Ledger.Site): Effect.Effect<Opened<A, E>, E, R> {
    return Effect.withFiberRuntime((fiber) => {
      const { concurrency = "unbounded" } = this.options
      const given = concurrency === "inherit"
        ? fiber.getFiberRef(FiberRef.currentConcurrency)
        : concurrency
      Rules.check("Managed-7: Managed.all", { ...this.options, concurrency: given }, rules)
      const width = given === "unbounded" ? Number.POSITIVE_INFINITY : given
      // In the order in which they were open: they are released in the reverse of it.
      const opened: Array<Opened<unknown, E>> = []
      const values: Array<unknown> = Array.from({ length: this.members.length })
      const group = Workers.makeGroup<E>()
      let next = 0
      const worker = (): Effect.Effect<void, E, R> =>
        Effect.whileLoop({
          while: () => !group.stopped && next < this.members.length,
          body: () => {
            const index = next++
            return openMember(this.members[index]!, site, (member) => {
              opened.push(member)
              values[index] = member.value
            })
          },
          step: () => {}
        })
      const opening = width === 1
        ? Effect.suspend(worker)
        : Effect.zipRight(
          Workers.run(group, { count: Math.min(width, this.members.length), worker }),
          Workers.inherit(group)
        )
      return Effect.matchCauseEffect(restore(opening), {
        // INVARIANT Managed-7: all or nothing.
        onFailure: (cause) => endUnchanged(this.opened(opened, undefined), Exit.failCause(cause)),
        onSuccess: () => Effect.succeed(this.opened(opened, this.assemble(values)))
      })
    })
  }

  opened<V>(members: ReadonlyArray<Opened<unknown, E>>, value: V): Opened<V, E> {
    return this.options.releases === "parallel"
      ? { value, close: (exit) => closeTogether(members, exit) }
      : inTurn(members, value)
  }
}

const openMember = <A, E, R>(
  member: Managed<A, E, R>,
  site: Ledger.Site | undefined,
  keep: (opened: Opened<A, E>) => void
): Effect.Effect<void, E, R> =>
  // MASK: acquire and registration are one step (Managed-2); waiting is restored by the member's own acquire.
  Effect.uninterruptibleMask((restore) => Effect.map(member.openInMask(restore, site), keep))

/**
 * Several resources as one: opened together, released in the reverse of the order in which they were open. Takes a tuple, a
 * record or anything iterable. Each keeps its name, its deadline and its entry in the ledger.
 *
 * **Interruption** — Opening: the interruptible part of each is interrupted, and those that were open are released. Holding: as one.
 * **Errors** — The first that fails interrupts the others; those that were open are released; the cause has all failures. An
 *   invalid option is a `RangeError` defect.
 * **Cost** — One fork for each worker that opens.
 *
 * **Example** (all or nothing)
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
 * const both = Managed.all({ db: named("db"), cache: named("cache") })
 * await Effect.runPromise(Managed.use(both, ({ cache, db }) => Effect.sync(() => log.push(db + cache))))
 * log // => ["+db", "+cache", "dbcache", "-cache", "-db"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const all = <const T extends Iterable<AnyManaged> | Readonly<Record<string, AnyManaged>>>(
  collection: T,
  options: AllOptions = {}
): Managed<ValuesOf<T>, ErrorOf<MemberOf<T>>, ContextOf<MemberOf<T>>> => {
  const keys = Symbol.iterator in collection ? undefined : Object.keys(collection)
  const members = Object.values(Symbol.iterator in collection ? Array.from(collection) : collection)
  // `ValuesOf` says the same in types.
  const assemble = (values: ReadonlyArray<unknown>): ValuesOf<T> =>
    (keys === undefined
      ? values
      : Object.fromEntries(keys.map((key, index) => [key, values[index]]))) as ValuesOf<T>
  return new All(members, assemble, options)
}
