/**
 * Main: runs a program as a process that always ends, releases first, and reports what it did not release.
 *
 * DESIGN. The first signal asks for the end (Shutdown.ts), which then comes in phases, each bounded. Here are only the process:
 * signals (Main/signals), the exit code, and printing (Main/output, Main/dump). The decisions are made outside of the program's
 * fibers: an observer reads the program's exit, and the last resort is a timer of the process.
 *
 * INVARIANTS
 * - Main-1 The first signal asks for the end, and is printed with its name and the pid. Another within `forceAfter` belongs to
 *   the same Ctrl-C (npm delivers it twice), even if the process can handle it only later: it is ignored, which is printed if it
 *   is of another kind. A later one in `forceOn` (SIGINT) forces the exit, after the holders are printed; any other later one
 *   changes nothing but prints how far the end has come.
 * - Main-2 The process ends at most `total` after the first request (a second more if the shutdown itself is held up), even if a
 *   release, an acquire, the main fiber, a hook or a daemon hangs. Only a synchronous loop stops timers too.
 * - Main-3 (L5) Each failure, also of a release, is printed. At the end of a shutdown one line sums it up, and one line each
 *   names what failed, was abandoned or is still held, with the line that acquired it. An error that cannot be shown hides only
 *   itself, and no name forges a line. A `process.exit` of the program's own is printed with the holders.
 * - Main-4 A stray throw or rejection ends the program gracefully, with code 1.
 * - Main-5 A reader that has left (EPIPE, or a terminal that is gone) changes nothing. Standard output that is lost otherwise (a
 *   full disk) is reported once and makes the code 1 at least.
 * - Main-6 `dumpSignal` prints the holders and waiters, the deadlocks, the marked work and the fibers (of each 50 lines at most),
 *   and changes nothing.
 *
 * EXIT CODES 0 success, also after a signal if the program ended by itself, and after the program's own request if all was
 * released; 129/130/143 (128 + the signal) all released after SIGHUP/SIGINT/SIGTERM, or forced by it; 1 failure, also of a release
 * (`onReleaseFailure: "report"` hides it from its owner only), stray error, anything that did not end by its bound, or a
 * `process.exit(0)` after the request; 75 (EX_TEMPFAIL) if the program has drained and says so by `exitCode`.
 * NOT DONE a start without signals and lines for hosts that have their own: `Shutdown.run` is that.
 * SOURCES sysexits.h; cats-effect (fiber dump on a signal; force by a repeated SIGINT only: #1992); close-with-grace.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as GlobalValue from "effect/GlobalValue"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import process from "node:process"
import * as Ledger from "./Ledger.ts"
import { fiberLines } from "./Main/dump.ts"
import { causeText, errorText, Output, watchStreams } from "./Main/output.ts"
import { after, codeOf, every, listen } from "./Main/signals.ts"
import * as Shutdown from "./Shutdown.ts"
import * as Words from "./Shutdown/words.ts"

/**
 * The options of `run`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E> {
  /**
   * How long each phase of the end may take: 0, 5, 10, 10 and 25 seconds by default; see `Shutdown.Budgets`. A `drainDelay`
   * that does not fit in `total` with the phases after it is reported at the start.
   */
  readonly shutdown?: Shutdown.Budgets | undefined
  /** The signals that ask for the end. Default: SIGINT, SIGTERM, SIGHUP. */
  readonly signals?: ReadonlyArray<NodeJS.Signals> | undefined
  /** The signals of these that force the exit when they come again. Default: SIGINT. */
  readonly forceOn?: ReadonlyArray<NodeJS.Signals> | undefined
  /** A second signal within this time of the first is ignored. Default 500 milliseconds. */
  readonly forceAfter?: Duration.DurationInput | undefined
  /** The signal that prints holders and fibers. Default: SIGUSR2; `false` for none. */
  readonly dumpSignal?: NodeJS.Signals | false | undefined
  /**
   * The ledger the program runs with; `false` for none. Default: sites `"first"`, history 1,000, and no `leakAfter`, whose
   * warnings are printed.
   */
  readonly ledger?: Ledger.LayerOptions | false | undefined
  /**
   * The exit code; `undefined` for the default, which is `report.exitCode`. An exit that is a `ShutdownTimeout` defect means that
   * the program did not end.
   */
  readonly exitCode?:
    | ((
      exit: Exit.Exit<A, E>,
      reason: Option.Option<Shutdown.Reason>,
      report: Shutdown.Report
    ) => number | undefined)
    | undefined
  /** Whether the program has reported this failure to its user by itself. */
  readonly isPrinted?: ((error: E) => boolean) | undefined
  /** Where all lines go. Default: the program's `Logger` if it has one, else standard error. */
  readonly print?: ((line: string) => void) | undefined
}

const defaultCode = (exit: Exit.Exit<unknown, unknown>, report: Shutdown.Report): number => {
  const { failed, fibers, hooks, overran, reason, reported } = report
  // A release that failed has not released, even if its owner does not see that (`onReleaseFailure: "report"`).
  const hasTrouble = overran || failed > 0 || reported > 0 || fibers.length > 0
    || hooks.some(({ state }) => state === "failed")
  if (hasTrouble || reason?.kind === "error") return 1
  if (Exit.isSuccess(exit)) return 0
  // Interrupted, as was asked for, and nothing else.
  if (reason === undefined || !Cause.isInterruptedOnly(exit.cause)) return 1
  return reason.kind === "signal" ? codeOf(reason.signal) : 0
}

/** Whether the cause is this one error and nothing else. */
const isOnly = (cause: Cause.Cause<unknown>, error: unknown): boolean =>
  cause._tag === "Fail" && cause.error === error || cause._tag === "Die" && cause.defect === error

const millisOf = (option: string, given: Duration.DurationInput): number => {
  try {
    return Duration.toMillis(given)
  } catch {
    throw new RangeError(
      `Main: ${option} is not a duration: ${String(given)}. Give milliseconds or "5 seconds".`
    )
  }
}

/** Of the whole process, in however many copies this module is loaded. */
const taken = GlobalValue.globalValue("holdfast/Main/taken", () => ({ isTaken: false }))

/** Milliseconds in which what ends by itself has ended. */
const grace = 1000

/**
 * Runs the program as the main fiber of the process, with a ledger of its own and the `Shutdown` of the process: a callback that
 * runs `Shutdown.inFlight` or `Shutdown.isReady` by a plain `Effect.runPromise` uses the same one. Once in a process.
 *
 * **Details** — The program has all its services provided. If it ends by itself, the fibers that it left behind are interrupted
 *   and waited for. Exit codes: 0 success, or all released after the program's own request; 129/130/143 all released after
 *   SIGHUP/SIGINT/SIGTERM, or forced by it; 1 failure (also of a hook or a release, even if that is only reported), stray error,
 *   or anything that did not end by its bound; or the code that `exitCode` gives, such as 75 for "drained". A `process.exit` of
 *   the program's own releases nothing: it is printed with the holders, and its 0 becomes 1 after a request.
 *   A `Ledger.layer` inside the program has the resources that are built on it; Main does not see those.
 *   Lines go to the `Logger` that the main fiber has configured (`Logger.json`), else as text to standard error. Failures, forced
 *   exits and stray errors go to both, because a logger whose layer has ended may lose them.
 * **Interruption** — The first signal asks for the end: readiness goes, hooks run, work marked by `Shutdown.drains` or `inFlight`
 *   finishes; then, or at once if there is no such work, the program is interrupted. A later SIGINT forces the exit and names the
 *   holders; a later SIGTERM or SIGHUP changes nothing.
 * **Errors** — printed; exit code 1. Throws a `RangeError` for an option that is not a duration, and an `Error` in a process that
 *   has a program already.
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
  const output = new Output(options.print)
  const misfit = Shutdown.shortfall(options.shutdown ?? {})
  if (misfit !== undefined) output.info(misfit)
  const total = Duration.toMillis(options.shutdown?.total ?? "25 seconds")
  const forceAfter = millisOf("forceAfter", options.forceAfter ?? "500 millis")
  const ledger = options.ledger === false
    ? undefined
    : Effect.runSync(Ledger.make(options.ledger ?? {}))
  const leakAfter = millisOf(
    "ledger.leakAfter",
    options.ledger ? options.ledger.leakAfter ?? Infinity : Infinity
  )
  // The process's own, which effects outside of the program use, too.
  const shutdown = Effect.runSync(Shutdown.Shutdown)
  let main: Fiber.RuntimeFiber<unknown, unknown> | undefined
  let lastResort: NodeJS.Timeout | undefined
  /** The error that the end was asked for by, once it is printed. */
  let printed: { readonly error: unknown } | undefined
  let hasStray = false
  let isOutputLost = false
  let hasEnded = false

  const holders = (): string => {
    if (ledger === undefined) return "No ledger: the holders are not known."
    const snapshot = ledger.unsafeSnapshot()
    const more = shutdown.unsafePhase() === "running" ? "" : " any more"
    return snapshot.live.length === 0
      ? `Nothing is held${more}.`
      : ["Still held:", ...Words.holderLines(snapshot)].join("\n")
  }
  // Past any logger: the process ends in this step.
  const printHolders = () => output.guarded("The holders", () => output.text(holders()))
  const force = (why: string, code: number): never => {
    output.error(`${why}: forced exit.`)
    printHolders()
    hasEnded = true
    return process.exit(code)
  }
  /** INVARIANT Main-2: also if the shutdown itself is held up. */
  const bound = (): void => {
    lastResort ??= after(
      total + grace,
      () => force(`The process did not end within ${Words.seconds(total)}`, 1)
    )
  }
  const request = (reason: Shutdown.Reason): boolean => {
    if (hasEnded) process.exit()
    bound()
    return shutdown.unsafeRequest(reason)
  }
  const onStray = (error: unknown): void => {
    hasStray = true
    output.error(`Stray error: ${errorText(error)}`)
    if (Option.isNone(shutdown.unsafeReason())) printed = { error }
    if (!hasEnded) request({ kind: "error", error })
    else if (process.exitCode === 0) process.exitCode = 1
  }
  /** INVARIANT Main-3: the program asks for its end by an error, and does not print it. */
  const printReason = (): void => {
    const reason = Option.getOrUndefined(shutdown.unsafeReason())
    if (reason?.kind !== "error" || printed !== undefined) return
    printed = { error: reason.error }
    output.error(`Asked to end for an error: ${errorText(reason.error)}`)
  }
  /** INVARIANT Main-6. */
  const dump = (signal: NodeJS.Signals): void => {
    output.info(`${signal}: process ${process.pid}, in phase ${shutdown.unsafePhase()}.`)
    output.guarded("The holders", () => output.info(holders()))
    output.guarded("The marked work", () => {
      const { unfinished } = shutdown.unsafeReport()
      const lines = unfinished.map((one) =>
        `  ${Words.unfinishedText([one])}, for ${Words.seconds(one.longest)}`
      )
      if (lines.length > 0) output.info(["Marked:", ...Words.capped(lines)].join("\n"))
    })
    Effect.runFork(
      Effect.matchCause(fiberLines(main, runner), {
        onSuccess: (lines) => output.info(["Fibers:", ...Words.capped(lines)].join("\n")),
        onFailure: (cause) => output.error(`The fibers cannot be shown: ${causeText(cause)}`)
      })
    )
  }
  const onPhaseEnd = ({ duration, overran, phase, unfinished }: Shutdown.PhaseReport): void => {
    bound()
    printReason()
    if (!overran || phase === "releasing") return
    const what = Words.unfinishedText(unfinished)
    output.info(`Still ${phase} after ${Words.seconds(duration)}: ${what}; continuing.`)
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
      output.error(`No exit code: ${errorText(thrown)}`)
      return 1
    }
  }
  /** INVARIANT Main-3: an interruption that was asked for is not printed; anything beside it is. */
  const isSilent = (cause: Cause.Cause<E>, reason: Shutdown.Reason | undefined): boolean => {
    if (reason !== undefined && Cause.isInterruptedOnly(cause)) return true
    if (printed !== undefined && isOnly(cause, printed.error)) return true
    try {
      return cause._tag === "Fail" && options.isPrinted?.(cause.error) === true
    } catch (thrown) {
      output.error(`isPrinted: ${errorText(thrown)}`)
      return false
    }
  }
  const printEnd = (report: Shutdown.Report): void => {
    const trouble = Words.troubleLines(report)
    const hasTrouble = trouble.length > 0 || report.overran || report.reported > 0
    // INVARIANT Main-3: an end that came by itself is summed up only if something went wrong.
    if (report.reason !== undefined || hasTrouble) {
      const line = Words.summary(report, ledger !== undefined, hasStray && printed !== undefined)
      output[hasTrouble ? "error" : "info"]([line, ...Words.capped(trouble)].join("\n"))
    }
    if (report.resources.some(({ state }) => ["acquiring", "held", "releasing"].includes(state))) {
      printHolders()
    }
  }
  const end = ({ exit, report }: Shutdown.Ended<A, E>): void => {
    hasEnded = true
    clearInterval(alive)
    clearInterval(overdue)
    clearTimeout(lastResort)
    printReason()
    if (Exit.isFailure(exit) && !isSilent(exit.cause, report.reason)) {
      output.error(causeText(exit.cause))
    }
    const fallback = hasStray ? 1 : defaultCode(exit, report)
    const asked = codeOfExit(exit, { ...report, exitCode: fallback })
    const exitCode = asked === 0 && isOutputLost ? 1 : asked
    process.exitCode = exitCode
    printEnd({ ...report, exitCode })
    // Whatever still runs has had its time.
    if (report.overran) process.exit()
    // The loop should be empty now and the process end by itself. A forgotten handle does not keep it.
    after(grace, () => process.exit())
  }

  taken.isTaken = true
  /** INVARIANT Main-3: nothing is released after a `process.exit` that is not ours. */
  process.on("exit", (code) => {
    if (hasEnded) return
    output.text(`process.exit(${code}) was called in phase ${shutdown.unsafePhase()}.`)
    printHolders()
    if (code === 0 && Option.isSome(shutdown.unsafeReason())) process.exitCode = 1
  })
  watchStreams((error) => {
    isOutputLost = true
    output.error(`Standard output is lost: ${error.message}`)
    // It may come after the program's own end.
    if (process.exitCode === 0) process.exitCode = 1
  })
  // Keeps the process alive while the program waits for something that holds no handle.
  const alive = setInterval(() => output.look(), 1000)
  // Not a fiber: the end would interrupt it, and a dump show it.
  const overdue = ledger === undefined || leakAfter === Infinity ? undefined : every(
    leakAfter / 4,
    () =>
      Words.capped(ledger.unsafeOverdue(Duration.millis(leakAfter))).forEach((line) =>
        output.info(line)
      )
  )
  listen({
    signals: options.signals ?? ["SIGINT", "SIGTERM", "SIGHUP"],
    forceOn: options.forceOn ?? ["SIGINT"],
    dumpSignal: options.dumpSignal ?? "SIGUSR2",
    forceAfter
  }, {
    request: (signal) => request({ kind: "signal", signal }),
    force: (signal) => force(`Second signal (${signal})`, codeOf(signal)),
    dump,
    print: (line) => output.info(line),
    phase: shutdown.unsafePhase
  })
  process.on("uncaughtException", onStray)
  process.on("unhandledRejection", onStray)

  const followed = Effect.withFiberRuntime<A, E>((self) => {
    main = self
    output.follow(self)
    return program
  })
  // MASK: a program may interrupt every fiber that `Fiber.roots` gives, and this is one of them. The flag, because a masked region
  // sees an interrupt at its end. `Shutdown.run` forks the program interruptibly.
  const masked = Runtime.disableRuntimeFlag(Runtime.defaultRuntime, RuntimeFlags.Interruption)
  // Last: it runs at once up to its first yield, and a signal may come in that time.
  const runner = Runtime.runFork(
    masked,
    Effect.provideService(
      shutdown.run(followed, { ...options.shutdown, fibers: "all", onPhaseEnd }),
      Ledger.Ledger,
      ledger
    )
  )
  runner.addObserver((exit) => {
    if (Exit.isSuccess(exit)) return end(exit.value)
    output.error(`Main-2: the shutdown itself failed. ${causeText(exit.cause)}`)
    output.guarded("The trouble before", () => {
      const trouble = ledger === undefined ? [] : Words.troubleIn(ledger.unsafeSnapshot())
      Words.capped(trouble).forEach((line) => output.error(line))
    })
    force("Broken", 1)
  })
}
