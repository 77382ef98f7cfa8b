/**
 * Every way to borrow, interrupted at every yield: with op budgets so small that each op is a yield somewhere in the sweep,
 * and with the default budget moved along by padding. After each, the pool must be as it was before.
 */
import { describe, expect, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { Ledger } from "holdfast"
import * as Pool from "holdfast/Pool"

/** As many yields as any of these programs may need to end: more is a hang. */
const patience = 400

const endOf = <A, E>(fiber: Fiber.RuntimeFiber<A, E>, what: string) =>
  Effect.gen(function*() {
    for (let i = 0; i < patience && fiber.unsafePoll() === null; i++) yield* Effect.yieldNow()
    const exit = fiber.unsafePoll()
    return exit ?? (yield* Effect.die(new Error(`${what} hangs`)))
  })

type Subject = (
  pool: Pool.Pool<number, Pool.PoolError | "down">
) => Effect.Effect<unknown, unknown>

interface Setting {
  readonly options?: Partial<Pool.Settings<number>>
  readonly max?: number
  readonly down?: (attempt: number) => boolean
  /** Runs beside the subject from before it starts. */
  readonly beside?: Subject
  readonly warm?: boolean
}

/** One case: who is interrupted after how many yields. Says whether the subject had ended by itself by then. */
const oneCase = (
  subject: Subject,
  { beside, down = () => false, max = 1, options = {}, warm = false }: Setting,
  yields: number,
  label: string
) =>
  Effect.gen(function*() {
    const ledger = yield* Ledger.make()
    let live = 0
    let attempts = 0
    let overlap = 0
    const acquire = Effect.acquireRelease(
      Effect.gen(function*() {
        yield* Effect.yieldNow()
        if (down(++attempts)) return yield* Effect.fail("down" as const)
        return ++live
      }),
      () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => live--))
    )
    const scope = yield* Scope.make()
    const pool = yield* Pool.make({ ...options, acquire, max }).pipe(
      Scope.extend(scope),
      Effect.provideService(Ledger.Ledger, ledger)
    )
    if (warm) yield* Pool.use(pool, () => Effect.void)
    const other = beside === undefined ? undefined : yield* Effect.fork(beside(pool))
    if (other !== undefined) yield* Effect.repeatN(Effect.yieldNow(), 1)
    const fiber = yield* Effect.fork(Effect.exit(subject(pool)))
    for (let i = 0; i < yields; i++) {
      yield* Effect.yieldNow()
      const { creating, idle, used } = Pool.unsafeStats(pool)
      if (idle + used + creating > max) overlap++
    }
    const endedBefore = fiber.unsafePoll() !== null
    yield* Fiber.interruptFork(fiber)
    yield* endOf(fiber, `${label}: the subject`)
    if (other !== undefined) yield* endOf(other, `${label}: the other`)
    // The second use is served, unless the subject closed the pool.
    const second = yield* Effect.fork(Effect.exit(Pool.use(pool, () => Effect.yieldNow())))
    const exit = yield* endOf(second, `${label}: the second use`)
    const idle = yield* Effect.fork(Pool.awaitIdle(pool))
    yield* endOf(idle, `${label}: awaitIdle`)
    const { creating, pending, size, used, idle: idling } = Pool.unsafeStats(pool)
    const closing = yield* Effect.fork(Effect.exit(Scope.close(scope, Exit.void)))
    const closed = yield* endOf(closing, `${label}: closing`)
    const { live: held } = yield* ledger.snapshot
    expect({
      label,
      second: Exit.isSuccess(exit),
      closed: Exit.isSuccess(Exit.flatten(closed)),
      rest: { creating, pending, used },
      overlap,
      live,
      held,
      tooMany: size > max || idling > max
    }).toEqual({
      label,
      second: true,
      closed: true,
      rest: { creating: 0, pending: 0, used: 0 },
      overlap: 0,
      live: 0,
      held: [],
      tooMany: false
    })
    return endedBefore
  })

/** Uses up this much of the budget, so that the next yield falls elsewhere. */
const steps = (ops: number): Effect.Effect<void> =>
  Effect.suspend(() => {
    let left = ops
    return Effect.whileLoop({ while: () => left-- > 0, body: () => Effect.void, step: () => {} })
  })

const padded = (ops: number, subject: Subject): Subject => (pool) =>
  Effect.zipRight(steps(ops), subject(pool))

/** Every number of yields until the subject ends by itself, for every budget, from two offsets into it. */
const sweep = (subject: Subject, setting: Setting = {}) =>
  Effect.gen(function*() {
    let cases = 0
    for (let budget = 14; budget <= 42; budget++) {
      for (const offset of [0, budget >> 1]) {
        for (let yields = 0; yields < patience; yields++) {
          cases++
          const label = `budget ${budget}, offset ${offset}, after ${yields}`
          const ended = yield* Effect.withMaxOpsBeforeYield(
            oneCase(padded(offset, subject), setting, yields, label),
            budget
          )
          if (ended) break
        }
      }
    }
    return cases
  })

const body = () => Effect.repeatN(Effect.yieldNow(), 2)
const use: Subject = (pool) => Pool.use(pool, body)
const get: Subject = (pool) => Effect.scoped(Effect.flatMap(Pool.get(pool), body))
const lease: Subject = (pool) =>
  Effect.scoped(
    Effect.flatMap(Pool.lease(pool), ({ release }) => Effect.zipRight(body(), release))
  )
const leaseInvalid: Subject = (pool) =>
  Effect.scoped(
    Effect.flatMap(
      Pool.lease(pool),
      ({ invalidate, release }) => Effect.zipRight(Effect.zipRight(body(), invalidate), release)
    )
  )
const tryUse: Subject = (pool) => Pool.tryUse(pool, body)
const useAgain: Subject = (pool) => Effect.zipRight(use(pool), use(pool))
const everything: Setting["options"] = {
  minIdle: 1,
  acquireTimeout: "1 minute",
  createTimeout: "1 minute",
  maxLifetime: "1 hour",
  idleTimeout: "1 hour",
  leakDetection: "1 hour",
  validate: () => Effect.as(Effect.yieldNow(), true),
  validateAfterIdle: "0 millis",
  reset: () => Effect.yieldNow()
}

describe("Pool, interrupted at every yield", () => {
  const subjects: Record<string, readonly [Subject, Setting]> = {
    "use of an idle item": [use, { warm: true }],
    "use that opens": [use, {}],
    "use that waits": [use, { beside: use }],
    "use that is waited for": [use, { beside: useAgain }],
    "use, opening fails first": [use, { down: (attempt) => attempt === 1, beside: use }],
    "use with every option on": [use, { options: everything, beside: use, max: 2 }],
    "use, item spent after one": [use, { options: { maxUses: 1 }, beside: use }],
    "use, opening cut when unwanted": [use, { options: { createOnAbandon: "interrupt" } }],
    "get of an idle item": [get, { warm: true }],
    "get that opens or waits": [get, { beside: use }],
    "lease, given back early": [lease, { beside: use }],
    "lease, invalidated": [leaseInvalid, { beside: use }],
    "tryUse of an idle item": [tryUse, { warm: true }],
    "tryUse beside a use": [tryUse, { beside: use, options: everything, max: 2 }]
  }
  for (const [name, [subject, setting]] of Object.entries(subjects)) {
    it.effect(`Pool-3: S6: ${name}`, () =>
      Effect.map(sweep(subject, setting), (cases) => expect(cases).toBeGreaterThan(100)))
  }

  it.effect("Pool-3: a lease given back early, each op of giving it back", () =>
    Effect.gen(function*() {
      const budget = 14
      for (let offset = 0; offset < budget; offset++) {
        const early: Subject = (pool) =>
          Effect.scoped(Effect.flatMap(
            Pool.lease(pool),
            ({ release }) => Effect.zipRight(Effect.zipRight(body(), steps(offset)), release)
          ))
        for (let yields = 0; yields < patience; yields++) {
          const ended = yield* Effect.withMaxOpsBeforeYield(
            oneCase(early, { warm: true }, yields, `offset ${offset}, after ${yields}`),
            budget
          )
          if (ended) break
        }
      }
    }))

  it.effect("Pool-6: S20: who closes is interrupted at every yield, and it closes all the same", () =>
    Effect.gen(function*() {
      for (let budget = 14; budget <= 42; budget++) {
        for (let yields = 0; yields < 40; yields++) {
          yield* Effect.withMaxOpsBeforeYield(closingCase(yields), budget)
        }
      }
    }))

  it.effect("Pool-6: S18: who asks while it closes is refused, whichever step the closing falls on", () =>
    Effect.gen(function*() {
      const budget = 20
      for (let offset = 0; offset < budget; offset++) {
        for (let yields = 0; yields < 16; yields++) {
          for (const subject of [use, get]) {
            yield* Effect.withMaxOpsBeforeYield(askingWhileClosing(subject, offset, yields), budget)
          }
        }
      }
    }))

  it.effect("Pool-3: the same with the default budget, moved along op by op", () =>
    Effect.gen(function*() {
      for (const subject of [use, get, lease, tryUse]) {
        for (const setting of [{ warm: true }, {}, { beside: use }]) {
          for (let padding = 2048 - 40; padding <= 2048; padding++) {
            yield* oneCase(
              padded(padding, subject),
              setting,
              1,
              `padding ${padding}`
            )
          }
        }
      }
    }))
})

const closingCase = (yields: number) =>
  Effect.gen(function*() {
    let live = 0
    const acquire = Effect.acquireRelease(
      Effect.sync(() => live++),
      () => Effect.zipRight(Effect.yieldNow(), Effect.sync(() => live--))
    )
    const pool = yield* Effect.acquireRelease(Scope.make(), Scope.close).pipe(
      Effect.flatMap((scope) => Scope.extend(Pool.make({ acquire, max: 2 }), scope))
    )
    const gate = yield* Deferred.make<void>()
    const holder = yield* Effect.fork(Pool.use(pool, () => Deferred.await(gate)))
    yield* Pool.use(pool, () => Effect.yieldNow())
    const closer = yield* Effect.fork(Effect.exit(Pool.close(pool)))
    for (let i = 0; i < yields; i++) yield* Effect.yieldNow()
    yield* Fiber.interruptFork(closer)
    yield* endOf(closer, `after ${yields}: the closer`)
    yield* Deferred.succeed(gate, undefined)
    expect(Exit.isSuccess(yield* endOf(holder, "the holder"))).toBe(true)
    const second = yield* Effect.fork(Pool.close(pool))
    expect(Exit.isSuccess(yield* endOf(second, `after ${yields}: the second closer`))).toBe(true)
    expect(live).toBe(0)
    expect(Exit.isFailure(yield* Effect.exit(Pool.use(pool, () => Effect.void)))).toBe(true)
  }).pipe(Effect.scoped)

const askingWhileClosing = (subject: Subject, offset: number, yields: number) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const pool = yield* Scope.extend(Pool.make({ acquire: Effect.succeed(1), max: 1 }), scope)
    const gate = yield* Deferred.make<void>()
    const holder = yield* Effect.fork(Pool.use(pool, () => Deferred.await(gate)))
    yield* Effect.repeatN(Effect.yieldNow(), 5)
    // A whole budget for the two forks: were we to yield between them, the asker would be a step ahead.
    yield* Effect.yieldNow()
    const asker = yield* Effect.fork(Effect.flip(padded(offset, subject)(pool)))
    // Takes turns with the asker, so that it closes between two of his steps.
    const closer = yield* Effect.fork(
      Effect.gen(function*() {
        for (let i = 0; i < yields; i++) yield* Effect.yieldNow()
        yield* Pool.close(pool)
      })
    )
    const label = `offset ${offset}, after ${yields}`
    expect(yield* endOf(asker, label)).toMatchObject({ value: { _tag: "PoolClosed" } })
    yield* Deferred.succeed(gate, undefined)
    yield* endOf(holder, label)
    yield* endOf(closer, label)
    yield* Scope.close(scope, Exit.void)
  })
