/**
 * RwLock: many readers or one writer, in the order they asked.
 *
 * DESIGN. A count of readers, one bit for the writer, and the fair queue, whose order is decided in internal/waitQueue.ts.
 * The readers that stand together at the head of the line are let in together; a reader that comes after a queued writer
 * waits behind it, so neither side starves. A writer can become a reader in one step; a reader can never become a writer.
 *
 * INVARIANTS
 * - RwLock-1 (L1) Never a writer beside anybody; what was let in is let out exactly once, whatever the exit.
 * - RwLock-2 (L6) FIFO by arrival; consecutive readers at the head enter in one step; nobody passes a waiter.
 * - RwLock-3 (L2) A waiter that is interrupted holds nothing, and whom it kept waiting enters in the same step.
 * - RwLock-4 A downgrade has no gap: no writer comes between the write and the read.
 * - RwLock-5 A fiber whose bracket is inside and that would have to wait for itself fails with `RwLockReentry` at once.
 * - RwLock-6 (L9) With a ledger in force, who waits is `acquiring` there and who was let in is `held`, as `"read lock"` or
 *   `"write lock"`; a downgrade ends the one and begins the other in one step.
 *
 * COST about 1.1 µs uncontended, 0.3 of it the set of the fibers inside (`detectReentry: false` keeps none).
 * NOT DONE upgrade (two readers that upgrade wait for each other); the reentry of a fiber forked by one inside.
 * SOURCES tokio's RwLock (one fair line; downgrade). AsyncEx #134: a writer that leaves the line must let the readers in.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Handover from "./internal/handover.ts"
import * as Hold from "./internal/hold.ts"
import * as WaitQueue from "./internal/waitQueue.ts"
import * as Ledger from "./Ledger.ts"

/**
 * How a holder is inside.
 *
 * @category models
 * @since 0.1.0
 */
export type Mode = "read" | "write"

/**
 * A bracket of this fiber is inside already, and it would have to wait for itself: to write what it reads, to read what it
 * writes, or to read again behind a writer that waits for its first read.
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
 * A lock for many readers or one writer. `Reentry` is what a fiber that would wait for itself fails with; `never` when
 * detection is off.
 *
 * @category models
 * @since 0.1.0
 */
export interface RwLock<out Reentry = RwLockReentry> {
  /** Shown in errors and by the ledger. */
  readonly name: string
  /** @internal */
  readonly state: State
  /** @internal */
  readonly reentry: MakeReentry<Reentry> | undefined
}

/**
 * Who is inside and how many wait, readers and writers together.
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
  /** Shown in errors and by the ledger. */
  readonly name?: string | undefined
  /** Whether a fiber that would wait for itself fails with `RwLockReentry`. Default `true`; else it waits for ever. */
  readonly detectReentry?: boolean | undefined
}

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

type MakeReentry<Reentry> = (
  name: string,
  fiber: AnyFiber,
  holds: Mode,
  asked: Mode
) => Reentry

/** All guarded by the single thread; written only by this file. */
interface State {
  readers: number
  writing: boolean
  readonly queue: WaitQueue.WaitQueue
  /** The fibers whose brackets are inside (RwLock-5); a scope's hold has none, since any fiber may close a scope. */
  readonly inside: Set<AnyFiber>
  /** How a bracket ends that has no entry of its own in `inside`. */
  readonly ending: Record<Mode, Handover.Ending>
  /** Who is inside, as far as recorded; written only by internal/hold.ts. */
  holds: Hold.Holds | undefined
}

// What a waiter `need`s, as the queue carries it.
const needOf: Record<Mode, number> = { read: 0, write: 1 }

const isOpen = (state: State, mode: Mode): boolean =>
  !state.writing && (mode === "read" || state.readers === 0)

const letIn = (state: State, mode: Mode): void => {
  if (mode === "read") state.readers++
  else state.writing = true
}

/** Lets in from the head of the line whoever can be inside together. */
const serve = (state: State): void => {
  for (let { head } = state.queue; head !== undefined; head = state.queue.head) {
    const mode = head.need === needOf.read ? "read" : "write"
    if (!isOpen(state, mode)) return
    letIn(state, mode)
    WaitQueue.grantHead(state.queue)
  }
}

const letOut = (state: State, mode: Mode): void => {
  if (mode === "read" ? state.readers === 0 : !state.writing) {
    throw new Error(`RwLock-1 broken: nobody is inside to ${mode}, yet somebody was let out.`)
  }
  if (mode === "read") state.readers--
  else state.writing = false
  serve(state)
}

const makeState = (): State => {
  const state: State = {
    readers: 0,
    writing: false,
    queue: WaitQueue.make(),
    inside: new Set(),
    ending: {
      read: Handover.endingWith(() => letOut(state, "read")),
      write: Handover.endingWith(() => letOut(state, "write"))
    },
    holds: undefined
  }
  return state
}

const makeReentry: MakeReentry<RwLockReentry> = (name, fiber, holds, asked) =>
  new RwLockReentry({ lock: name, fiberId: fiber.id(), holds, asked })

/**
 * A lock with nobody inside.
 *
 * @category constructors
 * @since 0.1.0
 */
export function unsafeMake(options: Options & { readonly detectReentry: false }): RwLock<never>
export function unsafeMake(options?: Options): RwLock
export function unsafeMake(options?: Options): RwLock {
  return {
    name: options?.name ?? "lock",
    state: makeState(),
    reentry: options?.detectReentry === false ? undefined : makeReentry
  }
}

/**
 * A lock with nobody inside.
 *
 * **Interruption** — never waits. **Errors** — none. **Cost** — one record and an empty line.
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
export function make(
  options: Options & { readonly detectReentry: false }
): Effect.Effect<RwLock<never>>
export function make(options?: Options): Effect.Effect<RwLock>
export function make(options?: Options): Effect.Effect<RwLock> {
  return Effect.sync(() => unsafeMake(options))
}

/**
 * Who is inside and how many wait, exact in the step that reads it.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: RwLock<unknown>): Effect.Effect<Stats> =>
  Effect.sync(() => ({
    readers: self.state.readers,
    writing: self.state.writing,
    waiting: self.state.queue.size
  }))

const askerOf = (reentry: MakeReentry<unknown> | undefined): AnyFiber | undefined =>
  reentry === undefined ? undefined : Option.getOrUndefined(Fiber.getCurrentFiber())

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** One who asks to come in, as the ledger in force is told. */
const recorded = <M>(
  self: RwLock<M>,
  mode: Mode,
  site: Ledger.Site | undefined
): Hold.Hold | undefined => {
  const ledger = Ledger.unsafeInForce()
  return ledger && new Hold.Hold(ledger, self.state, {
    kind: `${mode} lock`,
    name: self.name,
    amount: 1,
    site,
    // Whoever waits is a writer or behind one: all who are inside must leave.
    isServedIf: (_, letsGo) => Hold.keepAtMost(self.state, 0, letsGo)
  })
}

/**
 * Enters, waiting in line if need be, and goes on with the hold that was recorded, if one was. When that runs the caller is
 * inside and must be let out.
 */
const enterInMask = <A, E, R, M>(
  self: RwLock<M>,
  mode: Mode,
  asker: AnyFiber | undefined,
  restore: Restore,
  site: Ledger.Site | undefined,
  inside: (hold: Hold.Hold | undefined) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | M, R> => {
  const { reentry, state } = self
  const isFree = state.queue.size === 0 && isOpen(state, mode)
  if (!isFree && reentry !== undefined && asker !== undefined && state.inside.has(asker)) {
    return Effect.fail(reentry(self.name, asker, state.writing ? "write" : "read", mode))
  }
  const hold = recorded(self, mode, site)
  if (isFree) {
    letIn(state, mode)
    hold?.granted()
    return inside(hold)
  }
  const waited = WaitQueue.waitInMask(state.queue, needOf[mode], restore, (wasGranted) => {
    if (wasGranted) letOut(state, mode)
    else serve(state)
  }, hold)
  return Effect.flatMap(waited, () => inside(hold))
}

/** How the bracket of `asker` ends; until then it counts as inside. A nested bracket leaves that to the outer one. */
const insideUntilEnd = (
  state: State,
  mode: Mode,
  asker: AnyFiber | undefined,
  hold: Hold.Hold | undefined
): Handover.Ending => {
  const isOuter = asker !== undefined && !state.inside.has(asker)
  if (!isOuter && hold === undefined) return state.ending[mode]
  if (isOuter) state.inside.add(asker)
  return Handover.endingWith(() => {
    if (isOuter) state.inside.delete(asker)
    hold?.left()
    letOut(state, mode)
  })
}

const bracket = <A, E, R, M>(
  self: RwLock<M>,
  mode: Mode,
  effect: Effect.Effect<A, E, R>,
  site: Ledger.Site | undefined
): Effect.Effect<A, E | M, R> =>
  // MASK: from the entry to the exit; the wait and the effect are restored.
  Effect.uninterruptibleMask((restore) => {
    const asker = askerOf(self.reentry)
    return enterInMask(
      self,
      mode,
      asker,
      restore,
      site,
      (hold) => Handover.useInMask(effect, restore, insideUntilEnd(self.state, mode, asker, hold))
    )
  })

/**
 * Runs an effect beside other readers, and beside no writer.
 *
 * **Interruption** — Waiting: leaves the line. Holding: the effect is cut, and whoever can is let in.
 * **Errors** — the effect's own; `RwLockReentry` if this fiber would wait for itself. **Cost** — about 1.1 µs uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export function withRead<M>(
  self: RwLock<M>
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | M, R>
export function withRead<A, E, R, M>(
  self: RwLock<M>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | M, R>
export function withRead<M>(
  self: RwLock<M>,
  effect?: Effect.Effect<unknown, unknown, unknown>
) {
  const site = Ledger.unsafeSite(2)
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) => bracket(self, "read", effect, site)
  return effect === undefined ? run : run(effect)
}

/**
 * Runs an effect with nobody else inside.
 *
 * **Interruption**, **Errors**, **Cost** — as `withRead`.
 *
 * @category operations
 * @since 0.1.0
 */
export function withWrite<M>(
  self: RwLock<M>
): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | M, R>
export function withWrite<A, E, R, M>(
  self: RwLock<M>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | M, R>
export function withWrite<M>(
  self: RwLock<M>,
  effect?: Effect.Effect<unknown, unknown, unknown>
) {
  const site = Ledger.unsafeSite(2)
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>) => bracket(self, "write", effect, site)
  return effect === undefined ? run : run(effect)
}

/**
 * Writes, then reads on without a gap: when `write` has succeeded, the readers at the head of the line come in, and no
 * writer does until `read` has ended too.
 *
 * **Interruption** — as `withRead`, in both parts. **Errors** — those of both parts; `RwLockReentry` as `withWrite`. If
 *   `write` fails, `read` does not run. **Cost** — about 2.5 µs uncontended.
 *
 * @category operations
 * @since 0.1.0
 */
export const withWriteDowngraded = <A, E, R, B, E2, R2, M>(
  self: RwLock<M>,
  write: Effect.Effect<A, E, R>,
  read: (written: A) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E | E2 | M, R | R2> => {
  const site = Ledger.unsafeSite(2)
  // MASK: from the entry to the exit; the wait and both parts are restored.
  return Effect.uninterruptibleMask((restore) => {
    const { state } = self
    const asker = askerOf(self.reentry)
    const leave = (mode: Mode, hold: Hold.Hold | undefined): void => {
      if (asker !== undefined) state.inside.delete(asker)
      hold?.left()
      letOut(state, mode)
    }
    const downgraded = (written: A, hold: Hold.Hold | undefined): Effect.Effect<B, E2, R2> => {
      hold?.left()
      state.writing = false
      state.readers++
      const reading = recorded(self, "read", site)
      reading?.granted()
      serve(state)
      return Effect.onExit(
        restore(Effect.suspend(() => read(written))),
        () => Effect.sync(() => leave("read", reading))
      )
    }
    return enterInMask(self, "write", asker, restore, site, (hold) => {
      if (asker !== undefined) state.inside.add(asker)
      return Effect.matchCauseEffect(restore(write), {
        onFailure: (cause) => {
          leave("write", hold)
          return Effect.failCause(cause)
        },
        onSuccess: (written) => downgraded(written, hold)
      })
    })
  })
}

const hold = <M>(self: RwLock<M>, mode: Mode): Effect.Effect<void, M, Scope.Scope> => {
  const { name, reentry, state } = self
  // One frame more than itself: `read` or `write`.
  const site = Ledger.unsafeSite(3)
  // MASK: the entry and the finalizer that lets out are one step; the wait is restored.
  return Effect.uninterruptibleMask((restore) =>
    enterInMask(self, mode, askerOf(reentry), restore, site, (hold) =>
      Handover.holdInScope(
        name,
        Effect.sync(() => {
          hold?.left()
          letOut(state, mode)
        })
      ))
  )
}

/**
 * Enters to read and stays until the scope closes. Such a hold belongs to the scope, which any fiber may close: only
 * brackets are looked at to tell a fiber that it would wait for itself.
 *
 * **Interruption** — Waiting: leaves the line. **Errors** — `RwLockReentry`; a closed scope is a defect, and nobody stays
 *   inside. **Cost** — about 9 µs.
 *
 * @category operations
 * @since 0.1.0
 */
export const read = <M>(self: RwLock<M>): Effect.Effect<void, M, Scope.Scope> => hold(self, "read")

/**
 * Enters to write and stays until the scope closes.
 *
 * **Interruption**, **Errors**, **Cost** — as `read`.
 *
 * @category operations
 * @since 0.1.0
 */
export const write = <M>(self: RwLock<M>): Effect.Effect<void, M, Scope.Scope> =>
  hold(self, "write")
