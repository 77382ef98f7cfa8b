/**
 * tracker: the fibers that run, and which of them may still use a resource when its release begins.
 *
 * DESIGN. Stock operators (`Effect.all`, `forEach`, `timeout(disconnect(…))`, `Stream.mapEffect`) return while fibers that they have
 * interrupted still run. A `Supervisor` keeps, for each living fiber, the fiber that started it. Fiber ids only grow, so a bracket
 * is a fiber and a number: what that fiber has started since, and what those have started, began inside the bracket. When a fiber
 * ends, the fibers that it started move to its own starter. Before a release, the owner waits for the users that are dying:
 * they were interrupted and have not ended. Other fibers are left alone: daemons live on, as under Effect.
 *
 * INVARIANTS
 * - Tracker-1 (L3, L10) Under the tracker, no release of a bracket or scope begins while a dying fiber that was started inside it
 *   runs, until the deadline.
 * - Tracker-2 (L4, L5) At the deadline the release begins, and the defect `StillInUse` names those fibers; no outer release waits
 *   for them again.
 * - Tracker-3 A release never waits for the fiber that releases, for those it descends from, or for fibers that wait for one of them,
 *   or for a lock of ours or an item of a pool that one of them holds by a bracket.
 * - Tracker-4 A bracket that lends a resource interrupts the children that its body has forked, and their children, as the end of
 *   a fiber does. Daemons and what these have forked live on.
 *
 * COST without a tracker one comparison per bracket; with one, a map entry per fiber, and per bracket a look-up.
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberRef from "effect/FiberRef"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Supervisor from "effect/Supervisor"
import { isBounded, outcomeWithin, releaseDeadlineOf } from "./deadline.ts"
import * as Interrupt from "./interrupt.ts"
import { install, type Installed, type Lent, type Subject } from "./lent.ts"
import * as Registration from "./registration.ts"
import {
  type AnyFiber,
  childrenOf,
  currentFiber,
  isInterrupted,
  isRunnable,
  waitsFor
} from "./runtime.ts"
import * as WaitQueue from "./waitQueue.ts"

/** A fiber that runs under the tracker, or that has started one that does. Written only by this file. */
class Node {
  readonly fiber: AnyFiber
  /** The nearest living fiber that it descends from. */
  starter: Node | undefined = undefined
  /** The id of the fiber, this one or an ended one it descends from, that `starter` itself started. */
  link: number
  /** The living fibers whose starter this is. */
  started: Set<Node> | undefined = undefined
  /** The highest link among them, now or before. */
  newest = -1
  /** For a fiber that runs without the tracker: notifies the tracker of its end. */
  observer: (() => void) | undefined = undefined

  constructor(fiber: AnyFiber) {
    this.fiber = fiber
    this.link = fiber.id().id
  }
}

/** One for each installation, so that a program that is dropped with its fibers leaves nothing behind. */
class Tracker extends Supervisor.AbstractSupervisor<void> implements Installed {
  /** By the ids of their fibers: what is lent must not keep a fiber in memory. */
  readonly nodes = new Map<number, Node>()
  /** Those without a living starter. */
  readonly roots = new Set<Node>()
  /** Those that a release has waited for in vain: no other one does. */
  readonly abandoned = new WeakSet<AnyFiber>()
  /** The queues of the locks and pools that each fiber holds something of, by its id. */
  readonly held = new Map<number, Array<object>>()

  mayBeInUse(lent: Lent, closer: AnyFiber): boolean {
    return mayBeInUse(lent as Use, closer)
  }

  settle(
    lent: Lent,
    closer: AnyFiber,
    subject: Subject
  ): Effect.Effect<Cause.Cause<never> | undefined> {
    return settle(lent as Use, closer, subject)
  }

  override get value(): Effect.Effect<void> {
    return Effect.void
  }

  override onStart<A, E, R>(
    _context: Context.Context<R>,
    _effect: Effect.Effect<A, E, R>,
    parent: Option.Option<Fiber.RuntimeFiber<any, any>>,
    fiber: Fiber.RuntimeFiber<A, E>
  ): void {
    // `Runtime.runFork` names no parent: it is the fiber that runs now, if one does.
    const starter = Option.isSome(parent) ? parent.value : currentFiber()
    this.add(fiber, starter && this.nodeOf(starter))
  }

  override onEnd<A, E>(_exit: Exit.Exit<A, E>, fiber: Fiber.RuntimeFiber<A, E>): void {
    this.remove(fiber)
  }

  /**
   * The node of a fiber that may run without the tracker, such as the one that installed it. It is kept only while something that
   * the fiber has started lives: a fiber may install one tracker after the other.
   */
  nodeOf(fiber: AnyFiber): Node | undefined {
    const known = this.nodes.get(fiber.id().id)
    if (known !== undefined) return known
    if (fiber.unsafePoll() !== null) return undefined
    const node = this.add(fiber, undefined)
    node.observer = () => this.remove(fiber)
    fiber.addObserver(node.observer)
    return node
  }

  add(fiber: AnyFiber, starter: Node | undefined): Node {
    const node = new Node(fiber)
    this.nodes.set(node.link, node)
    this.attach(node, starter)
    return node
  }

  attach(node: Node, starter: Node | undefined): void {
    node.starter = starter
    if (starter === undefined) {
      this.roots.add(node)
      return
    }
    starter.started ??= new Set()
    starter.started.add(node)
    if (node.link > starter.newest) starter.newest = node.link
  }

  remove(fiber: AnyFiber): void {
    const id = fiber.id().id
    const node = this.nodes.get(id)
    if (node === undefined) return
    const { link, started, starter } = node
    this.nodes.delete(id)
    if (starter === undefined) this.roots.delete(node)
    else starter.started?.delete(node)
    for (const orphan of started ?? []) {
      if (starter !== undefined) orphan.link = link
      this.attach(orphan, starter)
    }
    if (starter?.observer !== undefined && starter.started?.size === 0) this.forget(starter)
  }

  /** Takes away what is left in a fiber that runs without the tracker, unless its observers are being called. */
  forget({ fiber, observer }: Node): void {
    if (observer === undefined || fiber.unsafePoll() !== null) return
    fiber.removeObserver(observer)
    this.remove(fiber)
  }
}

/** A supervisor that has a tracker stays as it is. */
export const withTracker = (supervisor: Supervisor.Supervisor<any>): Supervisor.Supervisor<any> => {
  install(trackerIn)
  WaitQueue.watch()
  if (supervisor === Supervisor.none) return new Tracker()
  return trackerIn(supervisor) === undefined ? supervisor.zip(new Tracker()) : supervisor
}

/** `left` and `right` are those of a `zip`. */
const trackerIn = (supervisor: Supervisor.Supervisor<any> | undefined): Tracker | undefined => {
  if (supervisor === undefined || supervisor === Supervisor.none) return undefined
  if (supervisor instanceof Tracker) return supervisor
  const { left, right } = supervisor as {
    readonly left?: Supervisor.Supervisor<any>
    readonly right?: Supervisor.Supervisor<any>
  }
  return trackerIn(left) ?? trackerIn(right)
}

/** Runs an effect, and all that it starts, under a tracker. */
export const tracked = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.locallyWith(effect, FiberRef.currentSupervisor, withTracker)

// Users.

/** Its tracker has made it. */
type Use = Lent & { readonly tracker: Tracker }

const hasStarted = (node: Node | undefined, since: number): boolean =>
  node?.started !== undefined && node.started.size > 0 && node.newest >= since

/** The fiber that is older than the acquire and that the closer descends from: a scope may run its finalizers in new fibers. */
const ownerOf = ({ since, tracker }: Use, closer: AnyFiber): Node | undefined => {
  let node = tracker.nodes.get(closer.id().id)
  while (node !== undefined && node.fiber.id().id >= since) node = node.starter
  return node
}

/** Adds to the list those that descend from its members. */
const withStarted = (found: Array<Node>): ReadonlyArray<Node> => {
  // It grows while it is read.
  for (const { started } of found) for (const node of started ?? []) found.push(node)
  return found
}

/** Those that `starter` has started since, and all that descend from them. */
const startedSince = (starter: Node | undefined, since: number): ReadonlyArray<Node> => {
  if (starter?.started === undefined || starter.newest < since) return []
  return withStarted(Array.from(starter.started).filter(({ link }) => link >= since))
}

/** Those that were started after the acquire and have the resource in their context. */
const reaching = ({ since, tracker, value }: Use): ReadonlyArray<Node> => {
  // Only an object is the same one wherever it is found.
  if (!Predicate.isObject(value)) return []
  const recent = Array.from(tracker.roots).filter(({ link }) => link >= since)
  return withStarted(recent).filter(({ fiber }) =>
    Array.from(fiber.currentContext.unsafeMap.values()).includes(value)
  )
}

/** Whether any living fiber was started inside. If not, the release may begin in this step. */
const mayBeInUse = (lent: Use, closer: AnyFiber): boolean => {
  const { by, since, tracker } = lent
  if (hasStarted(tracker.nodes.get(by), since)) return true
  if (by !== closer.id().id && hasStarted(ownerOf(lent, closer), since)) return true
  return reaching(lent).some((node) => isInterrupted(node.fiber))
}

const startedInside = (lent: Use, closer: AnyFiber): ReadonlyArray<Node> => [
  ...startedSince(lent.tracker.nodes.get(lent.by), lent.since),
  ...lent.by === closer.id().id ? [] : startedSince(ownerOf(lent, closer), lent.since),
  ...reaching(lent)
]

/**
 * Whether the end of the fiber that acquired would interrupt it: neither it nor a fiber between the two is a daemon. A pool opens
 * its items in daemons, whoever asks first.
 */
const isChild = ({ fiber, starter }: Node, since: number): boolean => {
  let parent = starter
  while (parent !== undefined && !childrenOf(parent.fiber).has(fiber)) parent = parent.starter
  return parent !== undefined && (parent.fiber.id().id < since || isChild(parent, since))
}

const waitsForOne = (fiber: AnyFiber, ids: HashSet.HashSet<FiberId.FiberId>): boolean =>
  HashSet.some(FiberId.toSet(waitsFor(fiber)), (id) => HashSet.has(ids, id))

/** INVARIANT Tracker-3: `found` without those whose end may need the end of this release. */
const awaitable = (
  { by, tracker }: Use,
  found: Set<AnyFiber>,
  closer: AnyFiber
): Set<AnyFiber> => {
  let ids = HashSet.make<[FiberId.FiberId]>(closer.id())
  const held = new Set([...tracker.held.get(by) ?? [], ...tracker.held.get(closer.id().id) ?? []])
  for (let next = tracker.nodes.get(closer.id().id); next !== undefined; next = next.starter) {
    ids = HashSet.add(ids, next.fiber.id())
    found.delete(next.fiber)
    for (const queue of tracker.held.get(next.fiber.id().id) ?? []) held.add(queue)
  }
  const waitsForHeld = (fiber: AnyFiber): boolean => {
    const queue = WaitQueue.queueOf(fiber)
    return queue !== undefined && held.has(queue)
  }
  for (let size = -1; size !== found.size;) {
    size = found.size
    for (const fiber of found) {
      if (!waitsForOne(fiber, ids) && !waitsForHeld(fiber)) continue
      ids = HashSet.add(ids, fiber.id())
      found.delete(fiber)
    }
  }
  return found
}

/** The fibers that the release waits for. Those that it is to end are interrupted, once each: `cut` has them. */
const dyingIn = (lent: Use, closer: AnyFiber, cut: WeakSet<AnyFiber>): Set<AnyFiber> => {
  const found = new Set<AnyFiber>()
  const ending = new Set<AnyFiber>()
  for (const node of startedInside(lent, closer)) {
    const { fiber } = node
    if (isBounded(fiber) || lent.tracker.abandoned.has(fiber)) continue
    if (cut.has(fiber) || isInterrupted(fiber)) found.add(fiber)
    else if (lent.ends === "all" || (lent.ends === "children" && isChild(node, lent.since))) {
      ending.add(fiber)
    }
  }
  for (const fiber of awaitable(lent, ending, closer)) {
    cut.add(fiber)
    found.add(fiber)
    Interrupt.atWait(fiber, closer.id())
  }
  return awaitable(lent, found, closer)
}

/** Waits until all have ended, or one begins to wait for something that the releasing fiber may hold. */
const endedOrWaiting = (fibers: ReadonlySet<AnyFiber>): Effect.Effect<void> =>
  Registration.wait((resume) => {
    let count = fibers.size
    const done = () => {
      stop()
      resume(Effect.void)
    }
    const stop = WaitQueue.onWait((fiber) => {
      if (fibers.has(fiber)) done()
    })
    for (const fiber of fibers) {
      fiber.addObserver(() => {
        if (--count === 0) done()
      })
    }
    return stop
  })

/** How many turns of the scheduler fibers that compute may take before they count as left alone. */
const mostTurns = 20

/** Waits until no dying user is left. */
const quiet = (lent: Use, closer: AnyFiber): Effect.Effect<void> => {
  const cut = new WeakSet<AnyFiber>()
  const next = (turns: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      const dying = dyingIn(lent, closer, cut)
      if (dying.size > 0) return Effect.flatMap(endedOrWaiting(dying), () => next(0))
      // An interrupt may be under way: stock operators send it by a task of the scheduler, or from a fiber of its own.
      const maySettle = turns === 0
        ? mayBeInUse(lent, closer)
        : turns < mostTurns && startedInside(lent, closer).some(({ fiber }) => isRunnable(fiber))
      return maySettle ? Effect.flatMap(Effect.yieldNow(), () => next(turns + 1)) : Effect.void
    })
  return next(0)
}

/**
 * A release began although fibers that were started while its resource was in use were interrupted and had not ended by the
 * deadline. It is a defect in the cause of the owner's exit.
 *
 * @category errors
 * @since 0.1.0
 */
export class StillInUse extends Data.TaggedError("StillInUse")<{
  /** Its name. */
  readonly resource: string
  readonly kind: string
  /** The line that acquired it, if it is known. */
  readonly site: string | undefined
  /** Such as `#12 (span "download")`. */
  readonly fibers: ReadonlyArray<string>
  readonly deadline: Duration.Duration
  /** How long it waited: less than `deadline` where a shutdown had less time left. */
  readonly elapsed: Duration.Duration
}> {
  override get message(): string {
    const where = this.site === undefined ? "" : ` (acquired at ${this.site.split("\n", 1)[0]})`
    return `The release of ${this.kind} "${this.resource}"${where} waited ${
      Duration.format(Duration.min(this.elapsed, this.deadline))
    } for fibers that were started while it was in use, were interrupted and have not ended: ${
      this.fibers.join(", ")
    }. They may use it after its release. Look for what they wait for in an uninterruptible region.`
  }
}

const shown = (fiber: AnyFiber): string => {
  const span = fiber.currentSpan
  const id = `#${fiber.id().id}`
  return span?._tag === "Span" ? `${id} (span "${span.name}")` : id
}

/** The defect `StillInUse`, or undefined if all has ended by the deadline. Must run inside an uninterruptible region. */
const settle = (
  lent: Use,
  closer: AnyFiber,
  { deadline = releaseDeadlineOf(), kind, name, site }: Subject
): Effect.Effect<Cause.Cause<never> | undefined> =>
  Effect.map(outcomeWithin(quiet(lent, closer), deadline), (outcome) => {
    if (Either.isRight(outcome)) return undefined
    const late = dyingIn({ ...lent, ends: "none" }, closer, new WeakSet())
    for (const fiber of late) lent.tracker.abandoned.add(fiber)
    return Cause.die(
      new StillInUse({
        resource: name,
        kind,
        site: site?.text,
        fibers: Array.from(late, shown),
        deadline,
        elapsed: outcome.left
      })
    )
  })
