/**
 * Postgres/listen: notifications of the server, over one connection of the pool's own.
 *
 * DESIGN. `run` is the only fiber that talks to the server: it makes what the connection listens to equal to what the subscribers want,
 * and waits for the next change. It connects for the first subscriber and closes after the last one. When the connection is lost it
 * connects anew, listens again, and then tells each subscriber of the gap.
 *
 * INVARIANTS
 * - PgListen-1 A subscription is ready when the server has acknowledged its LISTEN: whatever is notified after that arrives, or a `Gap`.
 * - PgListen-2 A lost connection, one that does not answer within `cancelTimeout`, and a full buffer are each followed by a `Gap`.
 * - PgListen-3 The end of one subscription changes nothing for the others; after the last one no connection is left.
 */
import { SqlError } from "@effect/sql/SqlError"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Pg from "pg"
import * as Managed from "../Managed.ts"
import { connect, Connection, type Settings } from "./connection.ts"
import { failed, messageOf, PostgresClosed } from "./errors.ts"

/**
 * What somebody has sent to a channel.
 *
 * @category models
 * @since 0.1.0
 */
export interface Notification {
  readonly _tag: "Notification"
  readonly channel: string
  /** May be empty. */
  readonly payload: string
  /** The server's process that sent it. */
  readonly processId: number
}

/**
 * Notifications may be missing here: read again what they tell about.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gap {
  readonly _tag: "Gap"
  readonly channel: string
  readonly reason: string
}

/** Items that wait for a slow reader; one more, and all of them become a `Gap`. */
const capacity = 4096

/** The time between two questions to a connection on which nothing happens. */
const heartbeat = Duration.seconds(15)

const longestPause = Duration.seconds(5)

class Subscriber {
  readonly channel: string
  readonly ready = Deferred.unsafeMake<void, SqlError>(FiberId.none)
  // Written by the methods, and by the hub.
  isReady = false
  items: Array<Notification | Gap> = []
  error: SqlError | undefined = undefined
  wake: (() => void) | undefined = undefined

  constructor(channel: string) {
    this.channel = channel
  }

  offer(item: Notification | Gap): void {
    if (this.items.length < capacity) this.items.push(item)
    else this.items = [this.gap(`${capacity} notifications had not been read`)]
    this.wake?.()
  }

  gap(reason: string): Gap {
    return { _tag: "Gap", channel: this.channel, reason }
  }

  /** The server has acknowledged a LISTEN; `reason` says why it was necessary again. */
  begin(reason: string): void {
    if (this.isReady) return this.offer(this.gap(reason))
    this.isReady = true
    Deferred.unsafeDone(this.ready, Effect.void)
  }

  fail(error: SqlError): void {
    this.error ??= error
    Deferred.unsafeDone(this.ready, Effect.fail(error))
    this.wake?.()
  }

  readonly take = Effect.async<Chunk.Chunk<Notification | Gap>, Option.Option<SqlError>>(
    (resume) => {
      const answer = (): void => {
        if (this.items.length > 0) {
          const items = this.items
          this.items = []
          resume(Effect.succeed(Chunk.unsafeFromArray(items)))
        } else if (this.error !== undefined) resume(Effect.fail(Option.some(this.error)))
        else return
        this.wake = undefined
      }
      this.wake = answer
      answer()
    }
  )
}

export class Hub {
  readonly settings: Settings
  readonly applicationName: string
  readonly subscribers = new Map<string, Set<Subscriber>>()
  // The fields below are written by this class alone.
  /** The channels that the connection listens to. */
  listening = new Set<string>()
  isClosed = false
  changes = 0
  wake: (() => void) | undefined = undefined

  constructor(settings: Settings, applicationName: string) {
    this.settings = settings
    this.applicationName = applicationName
  }

  get all(): ReadonlyArray<Subscriber> {
    return Array.from(this.subscribers.values(), (some) => Array.from(some)).flat()
  }

  failAll(error: SqlError, which: (subscriber: Subscriber) => boolean): void {
    for (const subscriber of this.all) {
      if (!which(subscriber)) continue
      this.unsafeLeave(subscriber)
      subscriber.fail(error)
    }
  }

  poke(): void {
    this.changes++
    this.wake?.()
  }

  /** Waits for a change after the first `seen`. Only `run` calls it. */
  changeAfter(seen: number): Effect.Effect<void> {
    return Effect.async((resume) => {
      if (this.changes !== seen) return resume(Effect.void)
      this.wake = () => {
        this.wake = undefined
        resume(Effect.void)
      }
    })
  }

  /** A statement of `run`, which must be answered in time. */
  ask(connection: Connection, sql: string): Effect.Effect<void, SqlError> {
    const asked = Effect.async<void, SqlError>((resume) => {
      connection.client.query(sql, (cause: unknown) =>
        resume(
          cause
            ? Effect.fail(new SqlError({ message: `Failed to listen: ${messageOf(cause)}`, cause }))
            : Effect.void
        ))
    })
    const late = () => {
      connection.destroy()
      return failed(connection.lose("it did not answer in time"))
    }
    return Effect.timeoutFail(asked, { duration: this.settings.cancelTimeout, onTimeout: late })
  }

  /** Brings the connection one step nearer to what is wanted; waits if nothing is to be done. */
  step(connection: Connection, reason: string): Effect.Effect<void> {
    for (const [channel, some] of this.subscribers) {
      if (this.listening.has(channel)) continue
      const listened = this.ask(connection, `LISTEN ${Pg.escapeIdentifier(channel)}`)
      return Effect.match(listened, {
        onFailure: (error) => {
          if (connection.lost !== undefined) return
          this.failAll(error, (one) => some.has(one))
        },
        onSuccess: () => {
          this.listening.add(channel)
          for (const one of this.subscribers.get(channel) ?? []) one.begin(reason)
        }
      })
    }
    for (const channel of this.listening) {
      if (this.subscribers.has(channel)) continue
      this.listening.delete(channel)
      return Effect.ignore(this.ask(connection, `UNLISTEN ${Pg.escapeIdentifier(channel)}`))
    }
    return Effect.flatMap(
      Effect.timeoutOption(this.changeAfter(this.changes), heartbeat),
      (changed) => Option.isSome(changed) ? Effect.void : Effect.ignore(this.ask(connection, ""))
    )
  }

  /** One connection, until it is lost or nobody listens. `reason` says why the last one was lost. */
  serve(connection: Connection, reason: string): Effect.Effect<string> {
    return Effect.suspend(() => {
      this.listening = new Set()
      connection.client.on("notification", ({ channel, payload = "", processId }) => {
        for (const one of this.subscribers.get(channel) ?? []) {
          one.offer({ _tag: "Notification", channel, payload, processId })
        }
      })
      connection.client.once("end", () => this.poke())
      const isOver = () => connection.lost !== undefined || this.subscribers.size === 0
      const served = Effect.repeat(Effect.suspend(() => this.step(connection, reason)), {
        until: isOver
      })
      return Effect.as(served, "")
    }).pipe(
      Effect.map(() => connection.lost?.reason ?? ""),
      Effect.ensuring(Effect.sync(() => this.listening.clear()))
    )
  }

  get managed(): Managed.Managed<Connection, unknown> {
    return Managed.make({
      name: this.applicationName,
      kind: "postgres connection",
      acquire: (restore) => connect(new Connection(this.settings), restore),
      release: (connection) => connection.close("nobody listens any more"),
      releaseDeadline: Duration.times(this.settings.cancelTimeout, 3)
    })
  }

  /** Connects whenever somebody listens. `failures` in a row make the pauses longer. */
  run(reason: string, failures: number): Effect.Effect<never> {
    return Effect.suspend(() => {
      if (this.subscribers.size === 0) {
        return Effect.zipRight(this.changeAfter(this.changes), this.run("", 0))
      }
      const used = Managed.use(this.managed, (connection) => this.serve(connection, reason))
      return Effect.matchEffect(used, {
        onFailure: (cause) => {
          const message = `Failed to connect: ${messageOf(cause)}`
          // A subscription that is ready waits for the server; a new one can act on the failure.
          this.failAll(new SqlError({ message, cause }), (one) => !one.isReady)
          const pause = Duration.min(Duration.millis(100 * 2 ** failures), longestPause)
          return Effect.zipRight(
            Effect.timeoutOption(this.changeAfter(this.changes), pause),
            Effect.suspend(() => this.run(reason, Math.min(failures + 1, 10)))
          )
        },
        onSuccess: (lost) => this.run(lost, 0)
      })
    })
  }

  unsafeJoin(channel: string): Subscriber {
    const subscriber = new Subscriber(channel)
    const some = this.subscribers.get(channel)
    if (some === undefined) this.subscribers.set(channel, new Set([subscriber]))
    else some.add(subscriber)
    if (this.isClosed) this.failAll(this.closed, () => true)
    else if (this.listening.has(channel)) subscriber.begin("")
    else this.poke()
    return subscriber
  }

  unsafeLeave(subscriber: Subscriber): void {
    const some = this.subscribers.get(subscriber.channel)
    some?.delete(subscriber)
    if (some?.size === 0) {
      this.subscribers.delete(subscriber.channel)
      this.poke()
    }
  }

  get closed(): SqlError {
    return failed(new PostgresClosed({ applicationName: this.applicationName }))
  }

  /** Ready when the server has acknowledged it (PgListen-1). */
  listen(
    channel: string
  ): Effect.Effect<Stream.Stream<Notification | Gap, SqlError>, SqlError, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => this.unsafeJoin(channel)),
      (subscriber) => Effect.sync(() => this.unsafeLeave(subscriber))
    ).pipe(
      Effect.tap((subscriber) => Deferred.await(subscriber.ready)),
      Effect.map((subscriber) => Stream.repeatEffectChunkOption(subscriber.take))
    )
  }
}

/** The hub of a pool. Its end fails all subscriptions and closes the connection. */
export const managedHub = (settings: Settings, applicationName: string): Managed.Managed<Hub> =>
  Managed.map(
    Managed.make({
      name: applicationName,
      kind: "postgres listener",
      acquire: Effect.suspend(() => {
        const hub = new Hub(settings, applicationName)
        return Effect.map(
          Effect.forkDaemon(Effect.interruptible(hub.run("", 0))),
          (fiber) => ({ fiber, hub })
        )
      }),
      release: ({ fiber, hub }) =>
        Effect.suspend(() => {
          hub.isClosed = true
          hub.failAll(hub.closed, () => true)
          return Fiber.interrupt(fiber)
        }),
      releaseDeadline: Duration.times(settings.cancelTimeout, 4)
    }),
    ({ hub }) => hub
  )
