/**
 * recorder: the probe of a run: resources that count themselves, and may be made to fail.
 *
 * DESIGN. The explorer finds scopes by itself; a probe is for what never reaches a scope, for a name in the report, and for
 * faults. Each run has a probe of its own. A fault strikes the nth acquire or release of the
 * explored use, or the nth release of the owner's close, once.
 *
 * COST one record per acquire. SOURCES SQLite's out-of-memory loops (the nth call fails, until there is no nth call).
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"

/**
 * The failure of a probe's acquire when the explorer makes it fail.
 *
 * @category errors
 * @since 0.1.0
 */
export class FaultInjected extends Data.TaggedError("FaultInjected")<{
  readonly name: string
  readonly fault: string
}> {
  override get message(): string {
    return `The explorer made "${this.name}" go wrong: ${this.fault}.`
  }
}

/**
 * One acquisition of a probe's resource.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handle {
  readonly name: string
  readonly id: number
}

/**
 * How long an acquire or a release of a probe takes, in virtual time. Default: no time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly acquireTakes?: Duration.DurationInput | undefined
  readonly releaseTakes?: Duration.DurationInput | undefined
}

/**
 * A sort of fault. A slow one takes thirty virtual seconds; one that never returns can only be interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export type Fault =
  | "acquire fails"
  | "acquire dies"
  | "acquire is slow"
  | "acquire never returns"
  | "release dies"
  | "release is slow"
  | "release never returns"

/**
 * Which methods of a service open something, and which close it.
 *
 * @category models
 * @since 0.1.0
 */
export interface WrapOptions {
  /** Methods of the service whose result is a handle. */
  readonly open: ReadonlyArray<string>
  /** Methods that end a handle: of the handle itself, or of the service, with the handle as first argument. */
  readonly close: ReadonlyArray<string>
}

/**
 * Counters and resources for a subject: `resource` in a scope, its halves `acquire` and `release`, `counter`, and `wrap` for a
 * service of handles.
 *
 * @category models
 * @since 0.1.0
 */
export interface Probe {
  /** A resource in the current scope. */
  readonly resource: (
    name: string,
    options?: Options
  ) => Effect.Effect<Handle, FaultInjected, Scope.Scope>
  /** The two halves of a resource, for what has a shape of its own (`Managed.make`, a pool). */
  readonly acquire: (name: string, options?: Options) => Effect.Effect<Handle, FaultInjected>
  readonly release: (handle: Handle, options?: Options) => Effect.Effect<void>
  /** A number that must be back at zero in the end. */
  readonly counter: (name: string) => Counter
  /** A service whose handles are counted; methods may return effects, promises or plain values. */
  readonly wrap: <A extends object>(name: string, service: A, options: WrapOptions) => A
}

/**
 * A number that must be back at zero in the end.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counter {
  readonly increment: Effect.Effect<void>
  readonly decrement: Effect.Effect<void>
  /** Its value now. */
  readonly unsafeValue: () => number
}

/** The nth acquire or release of a run goes wrong. */
export interface PlannedFault {
  readonly fault: Fault
  readonly nth: number
}

interface Entry {
  readonly handle: Handle
  /** Releases that came to their end. */
  releases: number
  wasCut: boolean
  readonly at: string | undefined
}

/** A probe and what only the explorer may do with it. */
export interface Recorder {
  readonly probe: Probe
  /** Which calls are counted from now on, and struck. */
  readonly arm: (sides: "all" | "release" | "none") => void
  readonly struck: () => boolean
  readonly unreleased: () => ReadonlyArray<
    { readonly name: string; readonly at: string | undefined }
  >
  readonly releasedTwice: () => ReadonlyArray<string>
  readonly unbalanced: () => ReadonlyArray<string>
  readonly log: ReadonlyArray<string>
  /** Resources and counters, so far. */
  readonly count: () => number
}

/** Operations that change nothing. */
export const pad = (count: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    let done = 0
    return Effect.whileLoop({
      while: () => done++ < count,
      body: () => Effect.void,
      step: () => {}
    })
  })

const slow = "30 seconds"

const strike = (name: string, fault: Fault): Effect.Effect<void, FaultInjected> => {
  if (fault.endsWith("fails")) return Effect.fail(new FaultInjected({ name, fault }))
  if (fault.endsWith("dies")) return Effect.die(new FaultInjected({ name, fault }))
  return fault.endsWith("slow") ? Effect.sleep(slow) : Effect.never
}

/** Runs `then` on what a method returned, when it is there. */
const whenDone = (result: unknown, then: (value: unknown) => unknown): unknown => {
  if (Effect.isEffect(result)) return Effect.map(result, then)
  return Predicate.isPromise(result) ? result.then(then) : then(result)
}

const isMethod = (value: unknown): value is (...args: ReadonlyArray<unknown>) => unknown =>
  typeof value === "function"

/** Counts what a service opens and closes, by a proxy of it and of its handles. */
const wrapWith = (
  opened: (name: string) => Handle,
  closed: (handle: Handle) => void
): Probe["wrap"] =>
(name, service, { close, open }) => {
  const handles = new WeakMap<object, Handle>()
  const end = (value: unknown) => {
    const handle = Predicate.isObject(value) ? handles.get(value) : undefined
    if (handle !== undefined) closed(handle)
  }
  const counted = <A extends object>(target: A): A =>
    new Proxy(target, {
      get: (of, key) => {
        const value: unknown = Reflect.get(of, key, of)
        if (!isMethod(value) || typeof key !== "string") return value
        if (open.includes(key)) {
          return (...args: ReadonlyArray<unknown>) =>
            whenDone(value.apply(of, [...args]), (made) => {
              if (!Predicate.isObject(made)) return made
              const shown = counted(made)
              const handle = opened(name)
              handles.set(made, handle)
              handles.set(shown, handle)
              return shown
            })
        }
        if (!close.includes(key)) return value.bind(of)
        return (...args: ReadonlyArray<unknown>) =>
          whenDone(value.apply(of, [...args]), (result) => {
            end(handles.has(of) ? of : args[0])
            return result
          })
      }
    })
  return counted(service)
}

export const makeRecorder = (options: {
  readonly fault?: PlannedFault | undefined
  /** Extra operations of each acquire. */
  readonly pad?: number | undefined
  /** The line of the running fiber, which has just acquired this. */
  readonly locate?: ((acquired: string) => string | undefined) | undefined
}): Recorder => {
  const entries: Array<Entry> = []
  const counters = new Map<string, number>()
  const log: Array<string> = []
  let armed: "all" | "release" | "none" = "none"
  let acquires = 0
  let releases = 0
  let struck = false

  const faultFor = (side: "acquire" | "release"): Fault | undefined => {
    if (armed !== "all" && armed !== side) return undefined
    const count = side === "acquire" ? ++acquires : ++releases
    const { fault } = options
    if (fault === undefined || !fault.fault.startsWith(side) || fault.nth !== count) {
      return undefined
    }
    struck = true
    return fault.fault
  }
  const opened = (name: string): Handle => {
    const handle = { name, id: entries.filter((entry) => entry.handle.name === name).length + 1 }
    entries.push({
      handle,
      releases: 0,
      wasCut: false,
      at: options.locate?.(`${name}#${handle.id}`)
    })
    log.push(`+${name}#${handle.id}`)
    return handle
  }
  const closed = (handle: Handle): void => {
    const entry = entries.find((one) => one.handle === handle)
    if (entry === undefined) return
    entry.releases++
    log.push(`-${handle.name}#${handle.id}`)
  }
  const padding = options.pad ?? 0
  const acquire: Probe["acquire"] = (name, { acquireTakes } = {}) =>
    Effect.suspend(() => {
      const fault = faultFor("acquire")
      let before: Effect.Effect<void, FaultInjected> = padding > 0 ? pad(padding) : Effect.void
      if (fault !== undefined) before = strike(name, fault)
      else if (acquireTakes !== undefined) {
        before = Effect.zipRight(before, Effect.sleep(acquireTakes))
      }
      return Effect.zipRight(before, Effect.sync(() => opened(name)))
    })
  const cut = (handle: Handle): void => {
    const entry = entries.find((one) => one.handle === handle)
    if (entry !== undefined) entry.wasCut = true
  }
  const release: Probe["release"] = (handle, { releaseTakes } = {}) =>
    Effect.suspend(() => {
      const fault = faultFor("release")
      if (fault === undefined && releaseTakes !== undefined) {
        return Effect.onInterrupt(
          Effect.zipRight(Effect.sleep(releaseTakes), Effect.sync(() => closed(handle))),
          () => Effect.sync(() => cut(handle))
        )
      }
      // A release that fails was tried: its owner is not at fault.
      closed(handle)
      return fault === undefined ? Effect.void : Effect.orDie(strike(handle.name, fault))
    })
  const counter = (name: string): Counter => {
    const by = (change: number) =>
      Effect.sync(() => {
        counters.set(name, (counters.get(name) ?? 0) + change)
      })
    return {
      increment: by(1),
      decrement: by(-1),
      unsafeValue: () => counters.get(name) ?? 0
    }
  }
  return {
    probe: {
      acquire,
      release,
      // MASK: none of its own: `acquireRelease` acquires and registers in one masked step.
      resource: (name, settings) =>
        Effect.acquireRelease(acquire(name, settings), (handle) => release(handle, settings)),
      counter,
      wrap: wrapWith(opened, closed)
    },
    arm: (sides) => {
      armed = sides
    },
    struck: () => struck,
    unreleased: () =>
      entries.filter((entry) => entry.releases === 0).map(({ at, handle, wasCut }) => ({
        name: `${handle.name}#${handle.id}${wasCut ? ", its release was cut half-way" : ""}`,
        at
      })),
    releasedTwice: () =>
      entries.filter((entry) => entry.releases > 1).map(({ handle }) =>
        `${handle.name}#${handle.id}`
      ),
    unbalanced: () =>
      Array.from(counters).filter(([, value]) => value !== 0).map(([name, value]) =>
        `${name} = ${value}`
      ),
    log,
    count: () => entries.length + counters.size
  }
}
