/**
 * certificate: a finding as a plain program: default runtime, default scheduler, real clock, public API only.
 *
 * DESIGN. An interrupt at offset `o` of a slice is what the default scheduler does after about `2047 - o` operations that
 * change nothing: before the call (R1), or in an acquire of the user (R2). A fiber that waits (R0) needs none. The moments
 * are tried one after the other; each is a program of its own, and the first that breaks a law is the certificate.
 *
 * NOT DONE grades R3 and R4: their programs would need a scheduler of their own.
 * SOURCES Effect's own padding sweeps ("0-2100: one leak at 1021").
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { never, type Program, show } from "./experiment.ts"
import type { Grade } from "./findings.ts"
import { pad, unsafeMake } from "./Probe.ts"
import { defaultBudget, type Park, type Place, type Step } from "./simulation.ts"

/** When a plain program interrupts: after some turns of the scheduler, and after some real time. */
export interface Moment {
  readonly turns: number
  readonly millis: number
  /** Operations before the call. */
  readonly before: number
  /** Operations in each acquire of the probe. */
  readonly inside: number
}

/** The result of a plain program. */
export interface Certificate {
  readonly certified: boolean
  readonly moment: Moment | undefined
  /** How it went wrong, in words. */
  readonly seen: string | undefined
  readonly attempts: number
}

const capMillis = 250
const mostMillis = 2_000
const mostTurns = 12
/** The operations of `pad` and its combinator, and the one that the yield comes after. */
const paddingOperations = 3

/** Where in the plain run the waits are: a real moment in the middle of each. */
const middles = (parks: ReadonlyArray<Park>): ReadonlyArray<number> => {
  const middle: Array<number> = []
  let since: number | undefined
  for (const { kind, now } of parks) {
    if (kind === "parked") since = now
    if (kind !== "resumed" || since === undefined) continue
    if (now > since && now <= mostMillis) middle.push(since + (now - since) / 2)
    since = undefined
  }
  return middle
}

/** The predicted number of operations and its neighbours, nearest first. */
const around = (offset: number): ReadonlyArray<number> => {
  const predicted = defaultBudget - paddingOperations - offset
  return [0, 1, -1, 2, -2, 3, -3, 4, -4, 6, -6, 8, -8].map((by) => predicted + by)
    .filter((count) => count >= 0)
}

const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

const makeMoment = (moment: Partial<Moment>): Moment => ({
  turns: 0,
  millis: 0,
  before: 0,
  inside: 0,
  ...moment
})

/** The moments at which a finding of this grade may show, likeliest first. */
export const momentsOf = (
  grade: Grade,
  place: Place,
  step: Step | undefined,
  parks: ReadonlyArray<Park>
): ReadonlyArray<Moment> => {
  if (grade === "R0") {
    return [
      ...middles(parks).map((millis) => makeMoment({ millis })),
      ...range(mostTurns).map((turns) => makeMoment({ turns }))
    ]
  }
  if (place.kind !== "op" || step === undefined) return []
  const paddings = around(step.offset)
  if (grade === "R1") return paddings.map((before) => makeMoment({ turns: 1, before }))
  if (grade !== "R2") return []
  return [1, 2, 3, 4].flatMap((turns) => paddings.map((inside) => makeMoment({ turns, inside })))
}

const capped = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<Option.Option<Exit.Exit<A, E>>> =>
  Effect.flatMap(
    Effect.forkDaemon(effect),
    (fiber) => Effect.timeoutOption(Fiber.await(fiber), capMillis)
  )

const shown = (exit: Option.Option<Exit.Exit<unknown, unknown>>): string =>
  show(Option.getOrNull(exit))

/** One plain run; says what went wrong, if anything did. */
const attempt = (
  program: Program,
  moment: Moment | undefined,
  expected: { readonly second: string }
): Effect.Effect<string | undefined> =>
  Effect.gen(function*() {
    const { probe, releasedTwice, unreleased } = unsafeMake({ padding: moment?.inside })
    // `runPromise`'s first slice is special; leave it.
    yield* Effect.yieldNow()
    const owner = yield* Scope.make()
    const prepared = yield* Effect.exit(
      Scope.extend(Effect.suspend(() => program.setup(probe)), owner)
    )
    if (Exit.isFailure(prepared)) return yield* Effect.failCause(Cause.die(prepared.cause))
    const state = prepared.value as never
    const use = Effect.scoped(Effect.suspend(() => program.body(state, probe)))
    const before = moment?.before ?? 0
    const target = yield* Effect.forkDaemon(before > 0 ? Effect.zipRight(pad(before), use) : use)
    if (moment !== undefined) {
      for (let turn = 0; turn < moment.turns; turn++) yield* Effect.yieldNow()
      if (moment.millis > 0) yield* Effect.sleep(moment.millis)
      yield* Fiber.interruptAsFork(target, FiberId.none)
    }
    const first = shown(yield* Effect.timeoutOption(Fiber.await(target), capMillis))
    const { after } = program
    const again = after === undefined
      ? use
      : Effect.scoped(Effect.suspend(() => after(state)))
    const second = shown(yield* capped(again))
    const close = shown(yield* capped(Scope.close(owner, Exit.void)))
    const wrong = [
      ...(first === never ? ["the fiber never exits"] : []),
      ...(second === expected.second ? [] : [`the next use: ${second}`]),
      ...(close === never ? ["closing the owner hangs"] : []),
      ...unreleased().map((name) => `${name} is never released`),
      ...releasedTwice().map((name) => `${name} is released twice`)
    ]
    return wrong.length === 0 ? undefined : wrong.join("; ")
  })

const mostAttempts = 120

export const certifyPlainly = async (
  program: Program,
  moments: ReadonlyArray<Moment>,
  expected: { readonly second: string }
): Promise<Certificate> => {
  const run = (moment: Moment | undefined) => Effect.runPromise(attempt(program, moment, expected))
  // A failure without an interrupt proves nothing.
  if ((await run(undefined)) !== undefined) {
    return { certified: false, moment: undefined, seen: undefined, attempts: 1 }
  }
  let attempts = 1
  for (const moment of moments.slice(0, mostAttempts)) {
    attempts++
    const seen = await run(moment)
    // It must fail again: a busy machine may fail once by chance.
    if (seen === undefined || (await run(moment)) === undefined) continue
    return { certified: true, moment, seen, attempts }
  }
  return { certified: false, moment: undefined, seen: undefined, attempts }
}

const indent = (lines: ReadonlyArray<string>): string => lines.map((line) => `  ${line}`).join("\n")

const probeModule = "holdfast/Testing"

/** The text of the program. It imports the subject from wherever the user keeps it. */
export const programText = (name: string, moment: Moment): string => {
  const { before, inside, millis, turns } = moment
  const steps = [
    "yield* Effect.yieldNow()",
    "const owner = yield* Scope.make()",
    "const state = yield* Scope.extend(setup(probe), owner)",
    "const use = Effect.scoped(Effect.suspend(() => subject.body(state, probe)))",
    before > 0
      ? `const target = yield* Effect.forkDaemon(Effect.zipRight(pad(${before}), use))`
      : "const target = yield* Effect.forkDaemon(use)",
    ...Array.from({ length: turns }, () => "yield* Effect.yieldNow()"),
    ...(millis > 0 ? [`yield* Effect.sleep(${millis})`] : []),
    "yield* Fiber.interruptAsFork(target, FiberId.none)",
    "const first = yield* Fiber.await(target).pipe(Effect.timeoutOption(250))",
    "if (Option.isNone(first)) wrong.push(\"the interrupted fiber never exits\")",
    "const again = subject.after === undefined ? use : Effect.scoped(subject.after(state))",
    "const second = yield* ending(again)",
    "if (second !== \"Success\") wrong.push(`the next use: ${second}`)",
    "const close = yield* ending(Scope.close(owner, Exit.void))",
    "if (close === \"hangs\") wrong.push(\"closing the owner hangs\")",
    "wrong.push(...unreleased().map((name) => `${name} is never released`))",
    "wrong.push(...releasedTwice().map((name) => `${name} is released twice`))"
  ]
  return `// ${name}: fails on the default runtime, without any explorer.
import { Effect, Exit, Fiber, FiberId, Option, Scope } from "effect"
import { Probe } from ${JSON.stringify(probeModule)}
import { subject } from "./subject.js" // what was given to Explore.interruptions

const pad = (count) => Effect.suspend(() => {
  let done = 0
  return Effect.whileLoop({ while: () => done++ < count, body: () => Effect.void, step: () => {} })
})
const { probe, releasedTwice, unreleased } = Probe.unsafeMake({ padding: ${inside} })
const setup = (probe) =>
  subject.setup === undefined ? Effect.void : Effect.isEffect(subject.setup) ? subject.setup : subject.setup(probe)
const ending = (effect) =>
  Effect.flatMap(Effect.forkDaemon(effect), (fiber) => Effect.timeoutOption(Fiber.await(fiber), 250)).pipe(
    Effect.map(Option.match({ onNone: () => "hangs", onSome: (exit) => exit._tag }))
  )
const wrong = []
await Effect.runPromise(Effect.gen(function*() {
${indent(steps)}
}))
console.log(wrong.length === 0 ? "nothing went wrong" : wrong.join("\\n"))
process.exit(wrong.length === 0 ? 0 : 1)
`
}
