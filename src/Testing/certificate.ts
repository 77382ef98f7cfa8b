/**
 * certificate: a finding as a plain program: default runtime, default scheduler, real clock, public API only.
 *
 * DESIGN. An interrupt at offset `o` of a slice is what the default scheduler does after about `2047 - o` operations that
 * change nothing: before the call (R1), or in an acquire of the user (R2). Where the user's code takes no padding, a smaller
 * `Effect.withMaxOpsBeforeYield` stands for it, and at last the fiber's own count of operations is set as such code would leave it. A fiber that waits (R0) needs none. The program makes the plain use first,
 * then one use for each moment, and fails if a law of the finding ends otherwise than in the plain use. So a subject that fails by
 * contract passes, and a finding passes once it is fixed.
 *
 * INVARIANTS
 * - Explore-7 `certify` runs the very text that it prints, and twice; it certifies the finding's own law, never another.
 *
 * NOT DONE grades R3 and R4, and random orders: their programs would need a scheduler of their own.
 * SOURCES Effect's own padding sweeps ("0-2100: one leak at 1021").
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as RuntimeFlagsPatch from "effect/RuntimeFlagsPatch"
import * as Scope from "effect/Scope"
import * as Supervisor from "effect/Supervisor"
import { printable } from "../Ledger/words.ts"
import type { Law, Use } from "./experiment.ts"
import { type Graded, gradeOf, type Moment, type Plain } from "./findings.ts"
import * as Probe from "./Probe.ts"
import { defaultBudget, type Park, type Step, type Trace } from "./simulation.ts"

/**
 * The result of `certify`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Certificate {
  readonly certified: boolean
  readonly moment: Moment | undefined
  /** The law that broke, and how. */
  readonly seen: string | undefined
  /** The program that fails, if one does. */
  readonly program: string | undefined
}

const mostMillis = 100
const mostTurns = 8
const mostStops = 6
/** The operations of `pad` and its combinator, and the one that the yield comes after. */
const paddingOperations = 3
/** A yield takes nine operations: with a smaller budget a fiber never gets on. */
const leastBudget = 10

const range = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

/** Where in the plain run the waits are: a moment in the middle of each, in milliseconds of the program's clock. */
const middles = (parks: ReadonlyArray<Park>): ReadonlyArray<number> => {
  const middle: Array<number> = []
  let since: number | undefined
  for (const { kind, now } of parks) {
    if (kind === "parked") since = now
    if (kind !== "resumed" || since === undefined) continue
    if (now > since) middle.push(since + (now - since) / 2)
    since = undefined
  }
  return [...new Set(middle)].slice(0, mostTurns)
}

/** The predicted number of operations and its neighbours, nearest first. */
const around = (predicted: number, least: number): ReadonlyArray<number> =>
  [0, 1, -1, 2, -2, 3, -3].map((by) => predicted + by).filter((count) => count >= least)

/** Moments at which the default scheduler makes a fiber yield at this offset, in its first slice or a later one. */
const yieldingAt = (offset: number, isFirst: boolean, isUncut: boolean): ReadonlyArray<Moment> => {
  const at = (moment: Moment): Moment => isUncut ? { uncut: true, ...moment } : moment
  const paddings = around(defaultBudget - paddingOperations - offset, 0)
  if (isFirst) return paddings.map((before) => at({ turns: 1, before }))
  const turns = isUncut ? [0] : [1, 2, 3, 4, 5, 6]
  return [
    ...paddings.slice(0, 3).flatMap((inside) => turns.map((count) => at({ turns: count, inside }))),
    ...around(offset - 1, leastBudget).slice(0, 3).flatMap((budget) =>
      turns.map((count) => at({ turns: count, budget }))
    )
  ]
}

/** The moments before one operation, counted as the explorer counts it or as a supervisor does. */
const countedAt = (trace: Trace, step: Step, isUncut: boolean): ReadonlyArray<Moment> => {
  const mine = trace.steps.filter(({ fiber }) => fiber === step.fiber)
  const target = trace.steps.find(({ own }) => own > 0)?.fiber ?? 0
  if (step.fiber < target) return []
  const fiber = step.fiber - target
  return around(mine.indexOf(step) + 1, 1).slice(0, 5)
    .map((op): Moment => isUncut ? { fiber, op, uncut: true } : { fiber, op })
}

/** The moments at which a strike may show, likeliest first. None for R3 and R4. */
const momentsOf = (
  { chosen, delays, grade, point: { place }, step, trace }: Graded
): ReadonlyArray<Moment> => {
  if (grade === "R3" || grade === "R4" || chosen !== undefined) return []
  if (place.kind === "nowhere") {
    const [delayed] = delays.map((global) => trace.steps[global - 1])
    return delayed === undefined
      ? [{ uncut: true }]
      : [
        ...yieldingAt(delayed.offset, delayed.own > 0 && delayed.slice === 0, true),
        ...(grade === "R2" ? countedAt(trace, delayed, true) : [])
      ]
  }
  if (grade === "R0") {
    return [
      ...middles(trace.parks).map((millis): Moment => ({ millis })),
      ...range(mostTurns).map((turns): Moment => ({ turns })),
      ...range(mostStops).map((index): Moment => ({ stops: index + 1 }))
    ]
  }
  if (step === undefined) return []
  if (grade === "R1") return yieldingAt(step.offset, true, false)
  return [...yieldingAt(step.offset, false, false), ...countedAt(trace, step, false)]
}

const mostFirsts = 8

/** The moments of the first interrupt, each with those after it at which the second may come. */
const pairedMoments = (strike: Graded): ReadonlyArray<Moment> => {
  const { first, trace } = strike
  if (first === undefined) return momentsOf(strike)
  const step = trace.steps[first.global - 1]
  const grade = strike.grade > "R2" ? strike.grade : gradeOf(first.place, step, () => true)
  const since = trace.parks.findLast(({ global }) => global <= first.global)?.now ?? 0
  const later = [
    ...middles(trace.parks).filter((at) => at > since).map((at) => ({ millis: at - since })),
    ...range(mostTurns).map((turns) => ({ turns }))
  ]
  return momentsOf({ ...strike, first: undefined, point: first, grade, step })
    .filter(({ op, stops }) => op === undefined && stops === undefined)
    .slice(0, mostFirsts)
    .flatMap((moment) => later.map((again): Moment => Object.assign({ again }, moment)))
}

/** What the plain program of a group of strikes needs: moments of the one that stands for them, and of the latest in its slice. */
export const plainOf = (
  group: ReadonlyArray<Graded>,
  chosen: Graded,
  use: Use
): Plain | undefined => {
  const { fault, grade, trace: { parks }, violations } = chosen
  const laws = violations.map(({ law }) => law)
  // Nothing outside the explorer sees how often an interrupt was swallowed.
  if (laws.includes("the target exits at once")) return undefined
  const offset = ({ step }: Graded) => step?.offset ?? 0
  const latest = group.filter((one) => one.grade === grade)
    .reduce((last, one) => offset(one) > offset(last) ? one : last, chosen)
  const moments = [...pairedMoments(chosen), ...(grade === "R2" ? pairedMoments(latest) : [])]
  if (moments.length === 0) return undefined
  const lasts = parks.at(-1)?.now ?? 0
  const speed = Math.max(1, Math.ceil(lasts / mostMillis))
  return { laws, fault, use, moments, speed, cap: 250 * speed + 2 * lasts }
}

/** What a law shows of a use, and after how much of it: the first use, the second, the owner's close, what is left. */
const shows: Readonly<Record<Law, readonly [stage: number, shown: string]>> = {
  "the target exits": [0, `first === "never" ? "never" : "yes"`],
  "the target exits at once": [0, `"yes"`],
  "the run ends": [0, `first === "never" ? "never" : "yes"`],
  "every schedule ends alike": [0, "subject.check?.(target.unsafePoll()) ?? first"],
  "the invariant holds": [1, `said ?? "yes"`],
  "the second use is as the first": [1, "second"],
  "the owner closes": [2, "close"],
  "all is released": [3, `ledger.unreleased().join(", ") || "yes"`],
  "released once": [3, `[...ledger.releasedTwice(), ...ledger.unbalanced()].join(", ") || "yes"`],
  "released in order": [3, `ledger.disorders() === 0 ? "yes" : "no"`],
  "no fiber is left": [3, `alive() === 0 ? "yes" : alive() + " left"`],
  "no defect": [3, `defects().join(", ") || "yes"`]
}

const braced = (fields: object): string =>
  `{ ${
    Object.entries(fields).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")
  } }`

/** A clock for subjects that wait for long. */
const fastClock = (speed: number): string =>
  `// The subject waits for long, so its time runs ${speed} times as fast as the real one.
const real = Clock.make()
const clock = Object.assign(Object.create(real), {
  sleep: (duration) => real.sleep(Duration.times(duration, 1 / ${speed})),
  unsafeCurrentTimeMillis: () => real.unsafeCurrentTimeMillis() * ${speed},
  currentTimeMillis: Effect.map(real.currentTimeMillis, (now) => now * ${speed})
})`

const watchText = `
// Knows which fibers live, and interrupts the target as another fiber stops for the nth time: when that one has just woken it.
class Watch extends Supervisor.AbstractSupervisor {
  value = Effect.void
  fibers = new Set()
  started = []
  stops = 0
  ops = 0
  constructor(moment) {
    super()
    this.moment = moment
  }
  onStart(context, effect, parent, fiber) {
    this.fibers.add(fiber)
    if (this.target && Option.getOrNull(parent) !== this.main) this.started.push(fiber)
  }
  onEffect(fiber) {
    if (!this.target || fiber !== [this.target, ...this.started][this.moment.fiber]) return
    if (++this.ops !== this.moment.op) return
    // As if the code before it had been longer: the default scheduler makes the fiber yield.
    fiber.currentOpCount = 4096
    this.yielding = fiber
  }
  onSuspend(fiber) {
    if (fiber === this.yielding && !this.moment.uncut) this.target.unsafeInterruptAsFork(FiberId.none)
    if (fiber === this.yielding) this.yielding = undefined
    if (!this.target || fiber === this.target || fiber === this.main) return
    if (++this.stops === this.moment.stops) this.target.unsafeInterruptAsFork(FiberId.none)
  }
}`

const invariantText = `const invariant = (state) => {
  try {
    const said = subject.invariant(state)
    return said === false ? "no" : typeof said === "string" ? said : undefined
  } catch (error) {
    return String(error)
  }
}`

const againText = `    const { again } = moment
    if (again) {
      for (let turn = 0; turn < (again.turns ?? 0); turn++) yield* Effect.yieldNow()
      if (again.millis) yield* Effect.sleep(again.millis)
      yield* Fiber.interruptAsFork(target, FiberId.none)
    }`

/** The program without its imports and its end: defines `find`, which gives the first moment at which a law breaks. */
const coreOf = ({ cap, fault, laws, moments, speed, use }: Plain): string => {
  const stage = Math.max(...laws.map((law) => shows[law][0]))
  const when = (needed: boolean, ...lines: ReadonlyArray<string>) => needed ? lines : []
  const hasFault = fault !== undefined
  const counts = moments.some(({ op }) => op !== undefined)
  const stops = counts || moments.some((moment) => moment.stops !== undefined)
  const watches = stops || laws.includes("no fiber is left") || laws.includes("no defect")
  const isClose = use === "close"
  const uses = isClose ? 2 : use
  const cut = isClose ? "closing" : "use"
  const hasInvariant = laws.includes("the invariant holds")
  const flagged = counts ? "Effect.withRuntimeFlagsPatch(use, supervise)" : "use"
  const within = speed > 1 ? `Effect.withClock(${flagged}, clock)` : flagged
  const settings = [
    "padding: moment.inside",
    ...when(hasFault, "fault: plain && fault"),
    ...when(stage === 3, "scopes: true")
  ].join(", ")
  return [
    "const moments = [",
    moments.map((moment) => `  ${braced(moment)}`).join(",\n"),
    "]",
    ...when(hasFault, `const fault = ${braced(fault ?? {})}`),
    ...when(speed > 1, fastClock(speed)),
    `const shown = (exit) => Exit.isSuccess(exit) ? "success" : Cause.pretty(exit.cause).split("\\n")[0]`,
    `const cap = ${cap} // What takes longer, in milliseconds, hangs.`,
    "const ended = (fiber) =>",
    `  Effect.map(Effect.timeoutOption(Fiber.await(fiber), cap), Option.match({ onNone: () => "never", onSome: shown }))`,
    "const ending = (effect) => Effect.flatMap(Effect.forkDaemon(effect), ended)",
    "const setup = (probe) =>",
    "  Effect.isEffect(subject.setup) ? subject.setup : subject.setup?.(probe) ?? Effect.void",
    ...when(hasInvariant, invariantText),
    ...when(watches, watchText),
    "const differs = (plain, seen) => Object.keys(seen).find((law) => seen[law] !== plain[law])",
    "",
    "// One use, interrupted at the moment; then as much of a second use, the owner's close and what is left as the law needs.",
    `const run = (moment, plain${watches ? ", watch" : ""}) => Effect.gen(function*() {`,
    `  const { arm, probe, ...ledger } = Probe.unsafeMake({ ${settings} })`,
    "  yield* Effect.yieldNow() // The first slice of a program is special.",
    "  const owner = yield* Scope.make()",
    "  const state = yield* Scope.extend(setup(probe), owner)",
    `  yield* Effect.sleep(${speed})`,
    "  const use = Effect.scoped(Effect.suspend(() => subject.body(state, probe)))",
    ...when(uses > 1, `  for (let nth = 1; nth < ${uses}; nth++) yield* ending(use)`),
    ...when(hasFault, `  arm("all")`),
    // MASK: of the printed program, which closes as `Effect.scoped` does.
    ...when(
      isClose,
      "  const closing = Effect.uninterruptible(Scope.close(owner, Exit.void)) // As Effect.scoped closes."
    ),
    `  const call = moment.before ? Effect.zipRight(Probe.pad(moment.before), ${cut}) : ${cut}`,
    "  const target = yield* Effect.withMaxOpsBeforeYield(Effect.forkDaemon(call), moment.budget ?? 2048)",
    ...when(
      stops,
      "  watch.main = Option.getOrNull(Fiber.getCurrentFiber())",
      "  watch.target = target"
    ),
    `  if (${stops ? "!moment.stops && !moment.op && " : ""}!moment.uncut) {`,
    "    for (let turn = 0; turn < (moment.turns ?? 0); turn++) yield* Effect.yieldNow()",
    "    if (moment.millis) yield* Effect.sleep(moment.millis)",
    "    yield* Fiber.interruptAsFork(target, FiberId.none)",
    ...when(moments.some(({ again }) => again !== undefined), againText),
    "  }",
    "  const first = yield* ended(target)",
    ...when(stage >= 1, `  yield* Effect.sleep(${speed})`),
    ...when(hasInvariant, "  let said = invariant(state)"),
    ...when(stage >= 1 && hasFault, `  arm("none")`),
    ...when(
      stage >= 1 && !isClose,
      "  const second = yield* ending(",
      "    subject.after === undefined ? use : Effect.scoped(Effect.suspend(() => subject.after(state)))",
      "  )"
    ),
    ...when(hasInvariant, `  yield* Effect.sleep(${speed})`, "  said ??= invariant(state)"),
    ...when(stage >= 2 && hasFault, `  arm("release")`),
    ...when(stage >= 2, "  const close = yield* ending(Scope.close(owner, Exit.void))"),
    ...when(
      laws.includes("no fiber is left"),
      "  const alive = () => [...watch.fibers].filter((fiber) => fiber !== target && fiber.unsafePoll() === null).length"
    ),
    ...when(
      laws.includes("no defect"),
      "  const causes = () => [...watch.fibers].map((fiber) => fiber.unsafePoll()).filter((exit) => exit?._tag === \"Failure\")",
      "  const defects = () => [...new Set(causes().flatMap(({ cause }) => [...Cause.defects(cause)].map(String)))]"
    ),
    "  const see = () => ({",
    laws.map((law) => `    ${JSON.stringify(law)}: ${shows[law][1]}`).join(",\n"),
    "  })",
    ...when(
      stage === 3,
      "  // Fibers that are dying may still release.",
      "  for (let wait = 0; wait < 20 && (plain === undefined || differs(plain, see())); wait++) {",
      `    yield* Effect.sleep(${10 * speed})`,
      "  }",
      "  ledger.stop()"
    ),
    "  return see()",
    "})",
    "",
    "const find = async () => {",
    "  const start = async (moment, plain) => {",
    ...when(watches, "    const watch = new Watch(moment)"),
    `    const use = ${
      watches ? "Effect.supervised(run(moment, plain, watch), watch)" : "run(moment, plain)"
    }`,
    ...when(counts, "    const supervise = RuntimeFlagsPatch.enable(RuntimeFlags.OpSupervision)"),
    `    return Effect.runPromise(${within})`,
    "  }",
    "  const plain = await start({ uncut: true })",
    "  for (const moment of moments) {",
    "    const seen = await start(moment, plain)",
    "    const law = differs(plain, seen)",
    "    if (law) return { moment, wrong: `${law}: ${seen[law]}; without an interrupt: ${plain[law]}` }",
    "  }",
    "}"
  ].join("\n")
}

const modules = {
  Cause,
  Clock,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  Option,
  RuntimeFlags,
  RuntimeFlagsPatch,
  Scope,
  Supervisor
}

const probeModule = "holdfast/Testing"

/** The text of the program. It imports the subject from wherever the user keeps it. */
export const programText = (name: string, plain: Plain): string =>
  `// ${printable(name)}: ${
    plain.laws.join(", ")
  }. No explorer: the default runtime and scheduler, in real time.
// Exit code 1: a law breaks at one of the moments; 0: none does (any more).
import { ${Object.keys(modules).join(", ")} } from "effect"
import { Probe } from ${JSON.stringify(probeModule)}
import { subject } from "./subject.js" // what was given to the explorer

${coreOf(plain)}

const found = await find()
console.log(found === undefined ? "nothing went wrong" : found.wrong)
process.exit(found === undefined ? 0 : 1)
`

interface Found {
  readonly moment: Moment
  readonly wrong: string
}

/** INVARIANT Explore-7: the printed text itself, with this process's modules as its imports. */
const execute = (plain: Plain, subject: unknown): Promise<Found | undefined> => {
  const text = `const { ${Object.keys(modules).join(", ")} } = modules\n${
    coreOf(plain)
  }\nreturn find()`
  // oxlint-disable-next-line no-new-func, no-implied-eval
  return new Function("modules", "Probe", "subject", text)(modules, Probe, subject)
}

// In real time, two programs at once would only slow each other down.
let last: Promise<unknown> = Promise.resolve()

const uncertified: Certificate = {
  certified: false,
  moment: undefined,
  seen: undefined,
  program: undefined
}

const searches = 3

/** It must fail twice at one moment: a busy machine may fail once by chance, or miss the moment once. */
const certifyAlone = async (name: string, plain: Plain, subject: unknown): Promise<Certificate> => {
  for (let search = 0; search < searches; search++) {
    const found = await execute(plain, subject)
    if (found === undefined) break
    const exact = { ...plain, moments: [found.moment] }
    const again = await execute(exact, subject)
    if (again === undefined) continue
    const { moment, wrong } = again
    return { certified: true, moment, seen: wrong, program: programText(name, exact) }
  }
  return uncertified
}

/** INVARIANT Explore-7: the first moment at which a law of the finding breaks, twice. */
export const certifyPlainly = (
  name: string,
  plain: Plain | undefined,
  subject: unknown
): Promise<Certificate> => {
  if (plain === undefined) return Promise.resolve(uncertified)
  const certified = last.then(() => certifyAlone(name, plain, subject))
  last = certified.catch(() => undefined)
  return certified
}
