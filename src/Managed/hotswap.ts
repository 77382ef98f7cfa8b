/**
 * hotswap: one live instance for many users, which can be replaced while it is in use.
 *
 * DESIGN. The hotswap is a `Managed`, and so is the use of its live instance. An instance that is replaced, or whose hotswap
 * closes, is released by its last user, or at once if it has none. The close waits for all instances.
 *
 * INVARIANTS Managed-11, named where it is kept.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Inspectable from "effect/Inspectable"
import type { Pipeable } from "effect/Pipeable"
import type * as Types from "effect/Types"
import { Handle } from "../internal/handle.ts"
import { OwnerClosed } from "../internal/handover.ts"
import * as Ledger from "../Ledger.ts"
import { inside, type Managed, type Opened, Single } from "./resource.ts"

/**
 * @category symbols
 * @since 0.1.0
 */
export const HotswapTypeId: unique symbol = Symbol.for("holdfast/Managed/Hotswap")

/**
 * A live instance that can be replaced.
 *
 * @category models
 * @since 0.1.0
 */
export interface Hotswap<in out A> extends Pipeable, Inspectable.Inspectable {
  readonly [HotswapTypeId]: { readonly _A: Types.Invariant<A> }
  readonly name: string
  /**
   * The instance that is live when this is opened. It stays open until this is released.
   *
   * **Interruption** — It never waits. Its release waits for that of the instance, if the instance was replaced meanwhile.
   * **Errors** — `OwnerClosed`, a defect, after the hotswap has closed. **Cost** — As any `Managed`.
   */
  readonly get: Managed<A>
  /**
   * Opens another instance and makes it the live one. The old one is released after its last user, which gets the failure of
   * that release in its cause; here, if it has no user.
   *
   * **Interruption** — Opening: as the resource allows; the old one then stays live. **Errors** — Those of the acquire;
   *   `OwnerClosed`, a defect, if the hotswap has closed. **Cost** — That of the resource.
   */
  readonly swap: <E, R>(next: Managed<A, E, R>) => Effect.Effect<void, E, R>
}

interface Instance<out A> {
  readonly opened: Opened<A>
  users: number
  /** The exit that its release is to see, once it is no longer live. */
  exit: Exit.Exit<unknown, unknown> | undefined
}

const variance: Hotswap<never>[typeof HotswapTypeId] = { _A: (_) => _ }

class HotswapImpl<in out A> extends Handle implements Hotswap<A> {
  readonly [HotswapTypeId]: Hotswap<A>[typeof HotswapTypeId] = variance as any
  readonly name: string
  readonly get: Managed<A>
  live: Instance<A> | undefined
  /** The number of instances that are opening or open. */
  instances = 0
  wake: (() => void) | undefined

  constructor(name: string, opened: Opened<A>) {
    super()
    this.name = name
    this.instances = 1
    this.live = { opened, users: 0, exit: undefined }
    this.get = inside({ name, kind: "hotswap use", releaseDeadline: Infinity }, {
      acquire: Effect.suspend(() => {
        const instance = this.live
        if (instance === undefined) return this.refused(name)
        instance.users++
        return Effect.succeed({ instance, value: instance.opened.value })
      }),
      release: ({ instance }) =>
        Effect.suspend(() => --instance.users === 0 ? this.settle(instance) : Effect.void)
    }, undefined)
    this.swap = this.swap.bind(this)
  }

  refused(resource: string): Effect.Effect<never> {
    return Effect.die(new OwnerClosed({ owner: this.name, resource }))
  }

  swap<E, R>(next: Managed<A, E, R>): Effect.Effect<void, E, R> {
    const site = Ledger.unsafeSite(2)
    // MASK: an instance that is open is live in the same step; waiting is restored by its own acquire.
    return Effect.uninterruptibleMask((restore) => {
      if (this.live === undefined) return this.refused(next.name)
      this.instances++
      return Effect.matchCauseEffect(next.openInMask(restore, site), {
        onFailure: (cause) => {
          this.gone()
          return Effect.failCause(cause)
        },
        onSuccess: (opened) => {
          const old = this.live
          const instance: Instance<A> = { opened, users: 0, exit: undefined }
          if (old === undefined) {
            return Effect.zipRight(this.retire(instance, Exit.void), this.refused(next.name))
          }
          this.live = instance
          return this.retire(old, Exit.void)
        }
      })
    })
  }

  retire(instance: Instance<A>, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    instance.exit = exit
    return this.settle(instance)
  }

  /** INVARIANT Managed-11: releases an instance that is no longer live and has no user. */
  settle({ exit, opened, users }: Instance<A>): Effect.Effect<void> {
    return exit === undefined || users > 0
      ? Effect.void
      : Effect.ensuring(opened.close(exit), Effect.sync(() => this.gone()))
  }

  gone(): void {
    if (--this.instances === 0) this.wake?.()
  }

  close(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      const last = this.live
      this.live = undefined
      const others = Effect.async<void>((resume) => {
        this.wake = () => resume(Effect.void)
        if (this.instances === 0) this.wake()
      })
      if (last === undefined) return others
      const ended = Effect.exit(this.retire(last, exit))
      return Effect.flatMap(ended, (ended) => Effect.zipRight(others, ended))
    })
  }

  toJSON(): unknown {
    return { _id: "holdfast/Managed/Hotswap", name: this.name, instances: this.instances }
  }
}

/**
 * A live instance of a resource that can be replaced while it is in use: credentials that rotate, a configuration that is reloaded.
 *
 * **Details** — `get` is the live instance, for `use` or a scope. The release of an instance sees a success when it was replaced,
 *   else the exit of the hotswap's owner.
 * **Interruption** — Opening: as the resource. Its release waits for all users, then for the releases; a user must not wait for it.
 * **Errors** — Those of the acquire. **Cost** — As `make`; one use as one `Managed` with a release of one operation.
 * **Source** — cats-effect's `Hotswap`, which releases the old instance first.
 *
 * **Example** (the old one goes after its last user)
 * ```ts run
 * import { Effect } from "effect"
 * import { Managed } from "holdfast"
 *
 * const log: Array<string> = []
 * const key = (name: string) =>
 *   Managed.make({ name, acquire: Effect.succeed(name), release: () => Effect.sync(() => log.push(`-${name}`)) })
 * const program = Managed.use(Managed.hotswap(key("first")), ({ get, swap }) =>
 *   Effect.zipRight(
 *     Managed.use(get, (old) => Effect.zipRight(swap(key("second")), Effect.sync(() => log.push(`still ${old}`)))),
 *     Managed.use(get, (live) => Effect.sync(() => log.push(live)))
 *   ))
 * await Effect.runPromise(program)
 * log // => ["still first", "-first", "second", "-second"]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const hotswap = <A, E, R>(initial: Managed<A, E, R>): Managed<Hotswap<A>, E, R> => {
  const site = Ledger.unsafeSite(2)
  return new Single<HotswapImpl<A>, E, R, never>({
    name: initial.name,
    kind: "hotswap",
    acquire: (restore) =>
      Effect.map(
        initial.openInMask(restore, site),
        (opened) => new HotswapImpl(initial.name, opened)
      ),
    release: (self, exit) => self.close(exit),
    // The instances have deadlines of their own; for its users it waits.
    releaseDeadline: Infinity
  }, site)
}
