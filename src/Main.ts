/**
 * Main: runs a program as a process that always ends, always lets go first, and says what it did not let go of.
 *
 * DESIGN. The first signal asks for the end (Shutdown.ts), which then comes in phases, each bounded: draining, stopping,
 * releasing. Here are only the signals, the exit code and the words. What decides stands outside of the program's fibers:
 * its exit is read by an observer, never told by an interrupted fiber, and the last resort is a timer of the process.
 *
 * INVARIANTS
 * - Main-1 The first signal is graceful, and told with its name and the pid. Another within `forceAfter`, however late it can
 *   be looked at, is part of the same Ctrl-C (npm delivers it twice) and is ignored; of another kind, it is told so. A later
 *   one forces the exit if it is in `forceOn` (SIGINT), after the holders are printed; any other changes nothing and is told so.
 * - Main-2 The process ends at most `total` after the first request (a second more, should the shutdown itself be held up),
 *   whatever hangs: a release, an acquire, the main fiber, a hook, a daemon. A synchronous loop alone stops timers too.
 * - Main-3 (L5) A failure, and every failure of a release, is printed; at the end of a shutdown one line sums it up, and one
 *   each names what failed, was abandoned or is still held, with the line that asked for it. An error that cannot be printed
 *   hides nothing else, and no name forges a line. A `process.exit` of somebody else's is told with the holders.
 * - Main-4 A stray throw or rejection ends the program gracefully, with code 1.
 * - Main-5 Nobody need listen: a reader that has left (EPIPE, or a terminal that is gone) changes nothing. Standard output
 *   that is lost otherwise (a full disk) is told once and makes the code 1 at the least.
 * - Main-6 `dumpSignal` prints who holds and waits for what, the deadlocks, what is in flight or drains, and the fibers (of each
 *   50 lines at most), and changes nothing.
 *
 * EXIT CODES 0 success, also after a signal if the program ended by itself, and all let go at its own request; 129/130/143
 * (128 + the signal) all let go after SIGHUP/SIGINT/SIGTERM, or forced by it; 1 failure, a release's too (which
 * `onReleaseFailure: "report"` keeps from its owner only; since the request, or since its start if it ended by itself), stray
 * error, anything that did not end by its bound, or a `process.exit(0)` after the request; 75 (EX_TEMPFAIL) where a program
 * that drained says so by `exitCode`.
 * NOT DONE a start without signals and lines for hosts that have their own: `Shutdown.run` is that.
 * SOURCES sysexits.h; cats-effect (fiber dump on a signal; force by a repeated SIGINT only: #1992); close-with-grace.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberStatus from "effect/FiberStatus"
import * as GlobalValue from "effect/GlobalValue"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as fs from "node:fs"
import { constants } from "node:os"
import process from "node:process"
import { isatty } from "node:tty"
import { inspect } from "node:util"
import * as Ledger from "./Ledger.ts"
import { printable } from "./Ledger/words.ts"
import * as Shutdown from "./Shutdown.ts"

/**
 * How a process runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E> {
  /**
   * How long each phase of the end may take: 0, 5, 10, 10 and 25 seconds by default; see `Shutdown.Budgets`. A `drainDelay`
   * that does not fit in `total` with what comes after it is told at the start.
   */
  readonly shutdown?: Shutdown.Budgets | undefined
  /** Those that ask for the end. Default: SIGINT, SIGTERM, SIGHUP. */
  readonly signals?: ReadonlyArray<NodeJS.Signals> | undefined
  /** Those of them that force the exit when they come once more. Default: SIGINT. */
  readonly forceOn?: ReadonlyArray<NodeJS.Signals> | undefined
  /** A signal that comes within this time of the first, or waits that long to be looked at, is ignored. Default 500 milliseconds. */
  readonly forceAfter?: Duration.DurationInput | undefined
  /** The one that prints holders and fibers. Default: SIGUSR2; `false` for none. */
  readonly dumpSignal?: NodeJS.Signals | false | undefined
  /**
   * The ledger the program runs with; `false` for none. Default: sites `"first"`, history 1,000, and no `leakAfter`, whose
   * warnings are printed.
   */
  readonly ledger?: Ledger.LayerOptions | false | undefined
  /**
   * The exit code, where the default should not hold, which is `report.exitCode`. An exit that is a `ShutdownTimeout` defect means
   * that the program did not end.
   */
  readonly exitCode?:
    | ((
      exit: Exit.Exit<A, E>,
      reason: Option.Option<Shutdown.Reason>,
      report: Shutdown.Report
    ) => number | undefined)
    | undefined
  /** Failures that the program has told its user of by itself. */
  readonly isPrinted?: ((error: E) => boolean) | undefined
  /** Where lines for people go. Default: standard error. */
  readonly print?: ((line: string) => void) | undefined
}

const codeOf = (signal: string): number =>
  128 + (Object.entries(constants.signals).find(([name]) => name === signal)?.[1] ?? 0)

const defaultCode = (exit: Exit.Exit<unknown, unknown>, report: Shutdown.Report): number => {
  const hookFailed = report.hooks.some(({ state }) => state === "failed")
  const leftFailed = report.fibers.length > 0
  // However little it bothers its owner (`onReleaseFailure: "report"`), such a release has not let go.
  const releaseFailed = report.failed > 0 || report.reported > 0
  if (report.overran || hookFailed || leftFailed || releaseFailed) return 1
  if (report.reason?.kind === "error") return 1
  if (Exit.isSuccess(exit)) return 0
  // Interrupted, as was asked for, and nothing else.
  if (report.reason === undefined || !Cause.isInterruptedOnly(exit.cause)) return 1
  return report.reason.kind === "signal" ? codeOf(report.reason.signal) : 0
}

// In words.

const seconds = (millis: number): string => `${(millis / 1000).toFixed(1)} s`
const many = (count: number): string => count.toLocaleString("en-US")
const firstLine = (text: string): string => text.split("\n", 1)[0]!
const askedFor = (site: string | undefined): string =>
  site === undefined ? "" : `, asked for at ${firstLine(site)}`

/** Whatever was thrown: `String` itself throws for what has no text. */
const stackOf = (error: unknown): string => {
  try {
    return error instanceof Error ? String(error.stack ?? error.message) : inspect(error)
  } catch {
    return "something that cannot be shown"
  }
}

/** An error that cannot be shown (its cause is itself, its getters throw) hides nothing but itself. */
const prettyOf = (cause: Cause.Cause<unknown>): string => {
  try {
    return Cause.pretty(cause, { renderErrorCause: true })
  } catch {
    return [...Cause.failures(cause), ...Cause.defects(cause)].map(stackOf).join("\n")
  }
}

const mostLines = 50
const mostShown = 5
const capped = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length <= mostLines
    ? lines
    : [...lines.slice(0, mostLines), `  … and ${many(lines.length - mostLines)} more`]

/** What hangs comes first: 3,000 that are merely held say little. */
const urgency: ReadonlyArray<Ledger.State> = ["releasing", "acquiring", "held"]

/** The deadlocks, then who releases, waits or holds, and who blocks whom; what is alike in one line. */
const holderLines = ({ deadlocks, live, takenAt }: Ledger.Snapshot): ReadonlyArray<string> => {
  const byId = new Map(live.map((entry) => [entry.id, entry]))
  const fiberOf = ({ fiber }: Ledger.Entry): string => fiber === undefined ? "" : ` of ${fiber}`
  const blocked = ({ blockedBy }: Ledger.Entry): string => {
    const holders = blockedBy.flatMap((id) => byId.get(id) ?? [])
    const shown = holders.slice(0, mostShown)
      .map((holder) => `${holder.kind} "${holder.name}"${fiberOf(holder)}`)
    const more = holders.length - shown.length
    return holders.length === 0
      ? ""
      : `; waits for ${shown.join(", ")}${more > 0 ? ` and ${many(more)} more` : ""}`
  }
  const what = ({ kind, name, owner, state }: Ledger.Entry): string =>
    `${state} ${[...owner, `${kind} "${name}"`].join(" > ")}`
  const where = (entry: Ledger.Entry): string => `${askedFor(entry.site)}${blocked(entry)}`
  const groups = new Map<string, Array<Ledger.Entry>>()
  for (const entry of live) {
    const key = `${what(entry)}${where(entry)}`
    const alike = groups.get(key)
    if (alike === undefined) groups.set(key, [entry])
    else alike.push(entry)
  }
  const lines = Array.from(groups.values())
    .toSorted(([one], [other]) => urgency.indexOf(one!.state) - urgency.indexOf(other!.state))
    .map((alike) => {
      const [first] = alike
      const longest = seconds(
        takenAt - alike.reduce((least, { since }) => Math.min(least, since), Infinity)
      )
      return alike.length === 1
        ? `  ${what(first!)} for ${longest}${fiberOf(first!)}${where(first!)}`
        : `  ${many(alike.length)} x ${what(first!)} for up to ${longest}${where(first!)}`
    })
  const circles = deadlocks.map((deadlock) => `  ${Ledger.describeDeadlock(deadlock, live)}`)
  return [...capped(circles), ...capped(lines)]
}

const worded = {
  inFlight: "in flight",
  drains: "draining",
  onDrain: "onDrain hook",
  onStop: "onStop hook",
  program: "program that was to end by itself"
} as const

/** `4 in flight at serve (/app/service.js:62:3), 1 draining`. */
const unfinishedIn = (unfinished: ReadonlyArray<Shutdown.Unfinished>): string => {
  const shown = unfinished.slice(0, mostShown).map(({ count, site, what }) =>
    `${many(count)} ${worded[what]}${site === undefined ? "" : ` at ${firstLine(site)}`}`
  )
  const more = unfinished.length - shown.length
  return `${shown.join(", ")}${more > 0 ? ` and more at ${more} other lines` : ""}`
}

const troubleLine = (
  { cause, kind, name, site, state }: Ledger.Entry | Shutdown.ResourceReport,
  releaseTook: number
): string =>
  printable(
    `  ${state} ${kind} "${name}" after ${seconds(releaseTook)}${askedFor(site)}${
      // That it did not end in time says the word itself.
      cause === undefined || state === "abandoned" ? "" : `: ${firstLine(cause)}`}`
  )

/** What has failed or was abandoned ever since, where there is no report. */
const troubleIn = ({ ended }: Ledger.Snapshot): ReadonlyArray<string> =>
  ended.filter(({ heldAt, state }) =>
    heldAt !== undefined && (state === "failed" || state === "abandoned")
  ).map((entry) => troubleLine(entry, (entry.endedAt ?? 0) - (entry.releasingAt ?? 0)))

/** What did not go well, a line each. */
const troubleLines = (report: Shutdown.Report): ReadonlyArray<string> => [
  ...report.hooks.filter(({ state }) => state === "failed" || state === "abandoned")
    .map(({ cause, phase, site, state, took }) =>
      printable(
        `  ${state} ${phase === "draining" ? "onDrain" : "onStop"} hook after ${seconds(took)}${
          site === undefined ? "" : `, registered at ${firstLine(site)}`
        }${cause === undefined ? "" : `: ${firstLine(cause)}`}`
      )
    ),
  ...report.resources.filter(({ state }) => state === "failed" || state === "abandoned")
    .map((resource) => troubleLine(resource, resource.releaseTook ?? 0)),
  ...report.fibers.map(({ cause, fiber, state }) =>
    state === "running"
      ? `  fiber ${fiber} was left behind and did not end`
      : `  fiber ${fiber} was left behind and failed: ${cause}`
  )
]

const reasonOf = (reason: Shutdown.Reason | undefined): string => {
  if (reason === undefined) return "End"
  if (reason.kind === "signal") return reason.signal
  return reason.kind === "error" ? "Error" : `Asked for by ${reason.by}`
}

/** `; stopping overran with 4 in flight at serve (/app/service.js:62:3)`. */
const overrunsOf = ({ phases }: Shutdown.Report): string =>
  phases.filter(({ overran }) => overran).map(({ phase, unfinished }) =>
    `; ${phase} overran${unfinished.length === 0 ? "" : ` with ${unfinishedIn(unfinished)}`}`
  ).join("")

const summary = (report: Shutdown.Report, isCounted: boolean, isStray: boolean): string => {
  const { abandoned, exitCode, failed, held, reason, released, reported, took } = report
  const counts = [
    [released, "released"],
    [failed, "failed"],
    [abandoned, "abandoned"],
    [held, "still held"]
  ] as const
  const what = isCounted
    ? counts.filter(([count], index) => index === 0 || count > 0)
      .map(([count, word]) => `${many(count)} ${word}`).join(", ")
    : "ended"
  // A ledger that is not the program's knows nothing of them.
  const unknown = Math.max(0, reported - failed - abandoned)
  const more = unknown === 0 ? "" : `; ${many(unknown)} not released, as was reported`
  return `${isStray ? "Stray error" : reasonOf(reason)}: ${what} in ${seconds(took)}${
    overrunsOf(report)
  }${more}; exit ${exitCode}.`
}

/** A fiber and those forked in it, deeper ones further in. */
const fiberLines = (
  fiber: Fiber.RuntimeFiber<unknown, unknown>,
  main: FiberId.FiberId | undefined,
  indent = "  "
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const id = fiber.id()
    const status = yield* fiber.status
    // A `Deferred` of its own says that it waits for itself.
    const on = FiberStatus.isSuspended(status)
      ? Array.from(FiberId.ids(status.blockingOn)).filter((one) => one !== id.id)
      : []
    const waiting = on.length === 0 ? "" : ` on ${on.map((one) => `#${one}`).join(", ")}`
    const span = fiber.currentSpan?._tag === "Span" ? `, in ${fiber.currentSpan.name}` : ""
    const lines = [
      `${indent}#${id.id}${
        id === main ? " (main)" : ""
      } ${status._tag.toLowerCase()}${waiting} for ${
        seconds(Date.now() - id.startTimeMillis)
      }${span}`
    ]
    for (const child of yield* fiber.children) {
      for (const line of yield* fiberLines(child, main, `${indent}  `)) lines.push(line)
    }
    return lines
  })

/** Whether the cause is this one error and nothing else. */
const isOnly = (cause: Cause.Cause<unknown>, error: unknown): boolean =>
  cause._tag === "Fail" && cause.error === error || cause._tag === "Die" && cause.defect === error

const failureOf = (cause: Cause.Cause<unknown>): string =>
  // Its stack would be ours.
  cause._tag === "Die" && cause.defect instanceof Shutdown.ShutdownTimeout
    ? printable(`${cause.defect._tag}: ${cause.defect.message}`)
    : prettyOf(cause)

/** What has happened so far. Guarded by the single thread; written only inside `run`. */
interface Course {
  firstSignal: NodeJS.Signals | undefined
  /** Whether what was sent with the first signal has been looked at. */
  isSecondMeant: boolean
  main: FiberId.FiberId | undefined
  lastResort: NodeJS.Timeout | undefined
  hasStray: boolean
  /** The error the end was asked for by, once it is printed. */
  told: { readonly error: unknown; readonly isStray: boolean } | undefined
  hasEnded: boolean
  outputLost: boolean
}

/** Guarded by the single thread; of the whole process, in however many copies this module is loaded. */
const taken = GlobalValue.globalValue("holdfast/Main/taken", () => ({ isTaken: false }))

/** setTimeout's own limit, 24.8 days: what is longer, it takes for 1 ms. */
const longestTimer = 2 ** 31 - 1
const after = (millis: number, f: () => void): NodeJS.Timeout =>
  setTimeout(f, Math.min(millis, longestTimer)).unref()

const every = (millis: number, f: () => void): NodeJS.Timeout =>
  setInterval(f, Math.min(millis, longestTimer)).unref()

const readerLeft = (error: NodeJS.ErrnoException): boolean =>
  ["EPIPE", "EIO", "ERR_STREAM_DESTROYED"].includes(error.code ?? "")

const millisOf = (option: string, given: Duration.DurationInput): number => {
  try {
    return Duration.toMillis(given)
  } catch {
    throw new RangeError(
      `Main: ${option} is not a duration: ${String(given)}. Give milliseconds or "5 seconds".`
    )
  }
}

/** By the time this has passed, what ends by itself has. */
const grace = 1000

/**
 * Runs the program as the process's main fiber, with a ledger of its own and the `Shutdown` of the process: a callback that
 * runs `Shutdown.inFlight` or `Shutdown.isReady` by a plain `Effect.runPromise` sees the same one. Once in a process.
 *
 * **Details** — All that the program needs is provided before. A program that ends by itself has the fibers it left behind
 *   interrupted and waited for. Exit codes: 0 success, or all let go at the program's own request; 129/130/143 all let go after
 *   SIGHUP/SIGINT/SIGTERM, or forced by it; 1 failure (a hook's or a release's too, even if that is only reported), stray
 *   error, or anything that did not end by its bound; or what `exitCode` says, such as 75 for "drained". A `process.exit` of
 *   your own lets go of nothing: it is told with what is held, and its 0 becomes 1 once the end has been asked for.
 *   There is a ledger already: a `Ledger.layer` of your own inside takes over what is built on it, and Main does not see that.
 * **Interruption** — The first signal asks for the end: readiness goes, hooks run, what is marked by `Shutdown.drains` or
 *   `inFlight` finishes; then the program is interrupted, or at once where there is nothing of that kind. A later SIGINT forces
 *   the exit and names who still holds; a later SIGTERM or SIGHUP is told to wait.
 * **Errors** — printed; exit code 1. Throws, at once, a `RangeError` for an option that is not a duration, and an `Error` in a
 *   process that has a program already.
 * **Cost** — signal handlers, one fiber, and the ledger's 3 µs an acquire.
 *
 * **Example** (a service under Kubernetes, which sends requests for some seconds more)
 * ```ts
 * import { Effect } from "effect"
 * import { Managed, Shutdown } from "holdfast"
 * import * as Main from "holdfast/Main"
 * import * as http from "node:http"
 *
 * const answer = (response: http.ServerResponse) =>
 *   Effect.delay(Effect.sync(() => response.end("hello")), "1 second")
 *
 * const listening = Effect.async<http.Server, Error>((resume) => {
 *   const server = http.createServer(({ url }, response) => {
 *     if (url !== "/ready") Effect.runFork(Shutdown.inFlight(answer(response)))
 *     else response.writeHead(Effect.runSync(Shutdown.isReady) ? 200 : 503).end()
 *   })
 *   server.once("error", (error) => resume(Effect.fail(error)))
 *   server.listen(8080, () => resume(Effect.succeed(server)))
 * })
 * const server = Managed.make({
 *   name: "http server",
 *   acquire: listening,
 *   // Waits for every socket, of which Node keeps track: a client may keep one open for ever.
 *   release: (server) =>
 *     Effect.async<void>((resume) => {
 *       server.close(() => resume(Effect.void))
 *       server.closeIdleConnections()
 *     }),
 *   releaseDeadline: "3 seconds",
 *   onOverrun: (server) => Effect.sync(() => server.closeAllConnections())
 * })
 * Main.run(Effect.scoped(Effect.zipRight(server, Effect.never)), {
 *   shutdown: { drainDelay: "5 seconds" }
 * })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E>(program: Effect.Effect<A, E>, options: Options<A, E> = {}): void => {
  if (taken.isTaken) {
    throw new Error(
      "Main.run: this process has a program already. Run this one inside it: `Shutdown.run`, or a fiber of it."
    )
  }
  const write = options.print ?? ((line: string) => process.stderr.write(`${line}\n`))
  const print = (line: string): void => {
    try {
      const told: unknown = write(line)
      // TypeScript takes an async function for one that returns nothing; its rejection would come back here as a stray one.
      if (told instanceof Promise) told.catch(() => {})
    } catch {
      // INVARIANT Main-5: there is nobody left to tell.
    }
  }
  /** What is printed must not depend on it. */
  const guarded = (what: string, tell: () => void): void => {
    try {
      tell()
    } catch (thrown) {
      print(`${what} cannot be shown: ${stackOf(thrown)}`)
    }
  }
  const misfit = Shutdown.shortfall(options.shutdown ?? {})
  if (misfit !== undefined) print(misfit)
  const total = Duration.toMillis(options.shutdown?.total ?? "25 seconds")
  const forceAfter = millisOf("forceAfter", options.forceAfter ?? "500 millis")
  const forceOn = options.forceOn ?? ["SIGINT"]
  const dumpSignal = options.dumpSignal ?? "SIGUSR2"
  const ledger = options.ledger === false
    ? undefined
    : Effect.runSync(Ledger.make(options.ledger ?? {}))
  const leakAfter = Duration.millis(
    millisOf("ledger.leakAfter", options.ledger ? options.ledger.leakAfter ?? Infinity : Infinity)
  )
  // The process's own: a callback that runs an effect outside of the program sees the same one.
  const shutdown = Effect.runSync(Shutdown.Shutdown)
  const course: Course = {
    firstSignal: undefined,
    isSecondMeant: false,
    main: undefined,
    lastResort: undefined,
    hasStray: false,
    told: undefined,
    hasEnded: false,
    outputLost: false
  }

  const nothingHeld = (): string =>
    shutdown.unsafePhase() === "running" ? "Nothing is held." : "Nothing is held any more."
  const printHolders = (): void =>
    guarded("The holders", () => {
      if (ledger === undefined) return print("No ledger: who holds what is not known.")
      const snapshot = ledger.unsafeSnapshot()
      print(snapshot.live.length === 0 ? nothingHeld() : "Still held:")
      holderLines(snapshot).forEach((line) => print(printable(line)))
    })
  const forced = (why: string, code: number): never => {
    print(`${why}: forced exit.`)
    printHolders()
    course.hasEnded = true
    return process.exit(code)
  }
  /** INVARIANT Main-2: should even the shutdown itself be held up. */
  const bound = (): void => {
    course.lastResort ??= after(
      total + grace,
      () => forced(`The process did not end within ${seconds(total)}`, 1)
    )
  }
  const begin = (reason: Shutdown.Reason): boolean => {
    bound()
    return shutdown.unsafeRequest(reason)
  }

  const onSignal = (signal: NodeJS.Signals): void => {
    const { firstSignal, isSecondMeant } = course
    const isFirst = firstSignal === undefined
    const how = forceOn.length === 0
      ? ""
      : ` (${forceOn.join(" or ")} ${
        !isSecondMeant && forceOn.includes(signal) ? "once more " : ""
      }to force)`
    // INVARIANT Main-1: one Ctrl-C under npm is two SIGINTs, a supervisor may send two kinds at once.
    if (!isFirst && !isSecondMeant) {
      if (signal !== firstSignal) {
        print(`${signal}: came with ${firstSignal}, and is ignored${how}.`)
      }
      return
    }
    course.firstSignal ??= signal
    // By a clock alone, one that came with the first and could not be looked at for so long would be a later one. Between
    // these two steps of the loop Node looks at every signal that has come.
    if (isFirst) {
      after(forceAfter, () =>
        setImmediate(() => {
          course.isSecondMeant = true
        }))
    }
    if (course.hasEnded) return process.exit()
    if (begin({ kind: "signal", signal })) {
      print(`${signal}: process ${process.pid} is letting go${how}.`)
    } else if (!isFirst && forceOn.includes(signal)) {
      forced(`Second signal (${signal})`, codeOf(signal))
    } else {
      print(`${signal}: already letting go, in phase ${shutdown.unsafePhase()}${how}.`)
    }
  }
  const onStray = (error: unknown): void => {
    course.hasStray = true
    print(`Stray error: ${stackOf(error)}`)
    if (Option.isNone(shutdown.unsafeReason())) course.told = { error, isStray: true }
    if (!course.hasEnded) begin({ kind: "error", error })
    // It may come after the program's own end.
    else if (process.exitCode === 0) process.exitCode = 1
  }
  /** INVARIANT Main-6. */
  const dump = (signal: NodeJS.Signals): void => {
    print(`${signal}: process ${process.pid}, in phase ${shutdown.unsafePhase()}.`)
    printHolders()
    guarded("What is marked", () => {
      const { unfinished } = shutdown.unsafeReport()
      if (unfinished.length > 0) print("Marked:")
      capped(unfinished.map((one) => `  ${unfinishedIn([one])}, for ${seconds(one.longest)}`))
        .forEach((line) => print(printable(line)))
    })
    Effect.runFork(Effect.withFiberRuntime<void>((self) => {
      const roots = Fiber.unsafeRoots().filter((fiber) => fiber !== self && fiber !== runner)
      return Effect.forEach(roots, (fiber) => fiberLines(fiber, course.main)).pipe(
        Effect.map((lines) =>
          ["Fibers:", ...capped(lines.flat())].forEach((line) => print(printable(line)))
        ),
        Effect.catchAllCause((cause) =>
          Effect.sync(() => print(`The fibers cannot be shown: ${prettyOf(cause)}`))
        )
      )
    }))
  }
  /** INVARIANT Main-3: nobody but us tells what a program asked for its end for. */
  const tellReason = (): void => {
    const reason = Option.getOrUndefined(shutdown.unsafeReason())
    if (reason?.kind !== "error" || course.told !== undefined) return
    course.told = { error: reason.error, isStray: false }
    print(`Asked to end for an error: ${stackOf(reason.error)}`)
  }
  const onPhaseEnd = ({ duration, overran, phase, unfinished }: Shutdown.PhaseReport): void => {
    bound()
    tellReason()
    if (!overran || phase === "releasing") return
    const what = unfinishedIn(unfinished)
    print(printable(`Still ${phase} after ${seconds(duration)}: ${what}; going on without.`))
  }

  const onOutputError = (error: NodeJS.ErrnoException): void => {
    if (readerLeft(error) || course.outputLost) return
    course.outputLost = true
    print(`Standard output is lost: ${error.message}`)
    // It may come after the program's own end.
    if (process.exitCode === 0) process.exitCode = 1
  }
  const codeOfExit = (exit: Exit.Exit<A, E>, report: Shutdown.Report): number => {
    try {
      const given = options.exitCode?.(exit, Option.fromNullable(report.reason), report)
      const code = given ?? report.exitCode
      if (code === undefined || !Number.isInteger(code) || code < 0 || code > 255) {
        throw new RangeError(`${code} is not one: 0 to 255`)
      }
      return code
    } catch (thrown) {
      print(`No exit code: ${stackOf(thrown)}`)
      return 1
    }
  }
  const printEnd = (report: Shutdown.Report): void => {
    const trouble = troubleLines(report)
    // INVARIANT Main-3: an end that was asked for is summed up; one that came by itself only if something went wrong.
    const wentWrong = trouble.length > 0 || report.overran || report.reported > 0
    if (report.reason !== undefined || wentWrong) {
      print(printable(summary(report, ledger !== undefined, course.told?.isStray === true)))
    }
    capped(trouble).forEach(print)
    if (report.resources.some(({ state }) => ["acquiring", "held", "releasing"].includes(state))) {
      printHolders()
    }
  }
  /** INVARIANT Main-3: an interruption that was asked for is no news; anything beside it is. */
  const isSilent = (cause: Cause.Cause<E>, reason: Shutdown.Reason | undefined): boolean => {
    if (reason !== undefined && Cause.isInterruptedOnly(cause)) return true
    if (course.told !== undefined && isOnly(cause, course.told.error)) return true
    try {
      return cause._tag === "Fail" && options.isPrinted?.(cause.error) === true
    } catch (thrown) {
      print(`isPrinted: ${stackOf(thrown)}`)
      return false
    }
  }
  const end = ({ exit, report }: Shutdown.Ended<A, E>): void => {
    course.hasEnded = true
    clearInterval(alive)
    clearInterval(overdue)
    clearTimeout(course.lastResort)
    tellReason()
    if (Exit.isFailure(exit) && !isSilent(exit.cause, report.reason)) print(failureOf(exit.cause))
    const fallback = course.hasStray ? 1 : defaultCode(exit, report)
    const asked = codeOfExit(exit, { ...report, exitCode: fallback })
    const exitCode = asked === 0 && course.outputLost ? 1 : asked
    process.exitCode = exitCode
    printEnd({ ...report, exitCode })
    // Whatever still runs has had its time.
    if (report.overran) process.exit()
    // The loop should be empty now and the process end by itself; a forgotten handle must not keep it.
    after(grace, () => process.exit())
  }

  /** INVARIANT Main-3: nobody lets go of anything after a `process.exit` that is not ours. */
  const onExit = (code: number): void => {
    if (course.hasEnded) return
    print(`process.exit(${code}) was called in phase ${shutdown.unsafePhase()}.`)
    printHolders()
    if (code === 0 && Option.isSome(shutdown.unsafeReason())) process.exitCode = 1
  }

  taken.isTaken = true
  // Before what closes the terminal.
  process.on("exit", onExit)
  // INVARIANT Main-5: Node before nodejs/node#58200 aborts at its exit when it cannot restore a terminal that is gone.
  const terminals = [0, 1, 2].filter((fd) => isatty(fd))
  process.on("exit", () =>
    terminals.filter((fd) => !isatty(fd)).forEach((fd) => {
      try {
        fs.closeSync(fd)
      } catch {
        // Closed already: that is what is wanted.
      }
    }))

  // Keeps the process alive while the program waits for something that holds no handle.
  const alive = setInterval(() => {}, 2 ** 30)
  // No fiber of the program's, which the end would interrupt or a dump show.
  const overdue = ledger !== undefined && Duration.isFinite(leakAfter)
    ? every(
      Duration.toMillis(leakAfter) / 4,
      () => capped(ledger.unsafeOverdue(leakAfter)).forEach((line) => print(printable(line)))
    )
    : undefined
  const signals = options.signals ?? ["SIGINT", "SIGTERM", "SIGHUP"]
  signals.forEach((signal) => process.on(signal, onSignal))
  if (dumpSignal !== false) process.on(dumpSignal, dump)
  process.on("uncaughtException", onStray)
  process.on("unhandledRejection", onStray)
  process.stdout.on("error", onOutputError)
  process.stderr.on("error", () => {})

  const named = Effect.withFiberRuntime<A, E>((self) => {
    course.main = self.id()
    return program
  })
  // MASK: a program may interrupt all that `Fiber.roots` gives, and this is among it. The flag, for a masked region hears of
  // it at its end; `Shutdown.run` forks interruptibly the program and all that may wait in it.
  const masked = Runtime.disableRuntimeFlag(Runtime.defaultRuntime, RuntimeFlags.Interruption)
  // Last: it runs at once up to its first yield, and a signal may come in that time.
  const runner = Runtime.runFork(
    masked,
    Effect.provideService(
      shutdown.run(named, { ...options.shutdown, fibers: "all", onPhaseEnd }),
      Ledger.Ledger,
      ledger
    )
  )
  runner.addObserver((exit) => {
    if (Exit.isSuccess(exit)) return end(exit.value)
    print(`Main-2: the shutdown itself failed. ${prettyOf(exit.cause)}`)
    guarded(
      "What went wrong before",
      () => capped(ledger === undefined ? [] : troubleIn(ledger.unsafeSnapshot())).forEach(print)
    )
    forced("Broken", 1)
  })
}
