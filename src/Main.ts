/**
 * Main: runs a program as a process that always ends, releases first, and reports what it did not release.
 *
 * DESIGN. The first signal asks for the end (Shutdown.ts), which then comes in phases, each bounded. This module adds the
 * process. Rooms: signals, exit (codes and the last lines), output, dump. All decisions are made outside of the program's fibers: an
 * observer reads the program's exit, and a timer of the process forces the exit at last.
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
 * NOT DONE a start without signals and lines for hosts that have their own: `Shutdown.run` is that.
 * SOURCES sysexits.h; cats-effect (fiber dump on a signal; force by a repeated SIGINT only: #1992); close-with-grace.
 *
 * @since 0.1.0
 */
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
import { dump } from "./Main/dump.ts"
import { codeGiven, defaultCode, holdersText, isSilent, printSummary } from "./Main/exit.ts"
import { causeText, errorText, Output, watchStreams, whenWritten } from "./Main/output.ts"
import { after, codeOf, every, listen } from "./Main/signals.ts"
import * as Shutdown from "./Shutdown.ts"
import { millisIn } from "./Shutdown/phases.ts"
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

const millisOf = (option: string, given: Duration.DurationInput): number => {
  try {
    return Duration.toMillis(given)
  } catch {
    throw new RangeError(
      `Main: ${option} is not a duration: ${String(given)}. Give milliseconds or "5 seconds".`
    )
  }
}

/** One for the whole process, even if this module is loaded in several copies. */
const taken = GlobalValue.globalValue("holdfast/Main/taken", () => ({ isTaken: false }))

/** Milliseconds that things which end by themselves may take for it. */
const grace = 1000

/**
 * Runs the program as the main fiber of the process, with a ledger of its own and the `Shutdown` of the process: a callback that
 * runs `Shutdown.inFlight` or `Shutdown.isReady` by a plain `Effect.runPromise` uses the same one. Once in a process.
 *
 * **Details** — The program has all its services provided. If it ends by itself, the fibers that it left behind are interrupted
 *   and waited for.
 *   Exit codes: 1 failure (also of a hook or a release, even if that is only reported), stray error, or anything that did not end
 *   by its bound; else 75 (EX_TEMPFAIL, run again) if a `Batch` was drained because the end was asked for; else 129/130/143 (128
 *   + the signal) after SIGHUP/SIGINT/SIGTERM, also if the program then ended by itself; else 0. A forced exit has the code of
 *   its signal. `exitCode` gives another code. A `process.exit` of the program's own releases nothing: it is printed with the
 *   holders, and its 0 becomes 1 after a request.
 *   A `Ledger.layer` inside the program has the resources that are built on it; Main does not see those.
 *   Lines go to the `Logger` that the main fiber has configured (`Logger.json`), else as text to standard error. Failures, forced
 *   exits and stray errors go to both, because a logger whose layer has ended may lose them.
 * **Interruption** — The first signal asks for the end: the program is not ready any more, hooks run, work marked by `Shutdown.drains` or `inFlight`
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
  const { isPrinted } = options
  const output = new Output(options.print)
  const misfit = Shutdown.shortfall(options.shutdown ?? {})
  if (misfit !== undefined) output.info(misfit)
  const { total } = millisIn(options.shutdown ?? {})
  const forceAfter = millisOf("forceAfter", options.forceAfter ?? "500 millis")
  const ledger = options.ledger === false
    ? undefined
    : Effect.runSync(Ledger.make(options.ledger ?? {}))
  const leakAfter = millisOf(
    "ledger.leakAfter",
    options.ledger ? options.ledger.leakAfter ?? Infinity : Infinity
  )
  // The shutdown of the process: effects outside of the program use it, too.
  const shutdown = Effect.runSync(Shutdown.Shutdown)
  let main: Fiber.RuntimeFiber<unknown, unknown> | undefined
  let lastResort: NodeJS.Timeout | undefined
  /** The error that asked for the end, once it is printed. */
  let printed: { readonly error: unknown } | undefined
  let hasStray = false
  let isOutputLost = false
  let hasEnded = false

  const holders = (): string => holdersText(ledger, shutdown.unsafePhase() !== "running")
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
  /** INVARIANT Main-3: a program that asks for its end with an error does not print it. */
  const printReason = (): void => {
    const reason = Option.getOrUndefined(shutdown.unsafeReason())
    if (reason?.kind !== "error" || printed !== undefined) return
    printed = { error: reason.error }
    output.error(`Asked to end for an error: ${errorText(reason.error)}`)
  }
  const onPhaseEnd = ({ duration, overran, phase, unfinished }: Shutdown.PhaseReport): void => {
    bound()
    printReason()
    if (!overran || phase === "releasing") return
    const work = Words.unfinishedText(unfinished)
    output.info(`Still ${phase} after ${Words.seconds(duration)}: ${work}; continuing.`)
  }
  const end = ({ exit, report }: Shutdown.Ended<A, E>): void => {
    hasEnded = true
    clearInterval(alive)
    clearInterval(overdue)
    clearTimeout(lastResort)
    printReason()
    if (Exit.isFailure(exit) && !isSilent(output, exit.cause, report.reason, printed, isPrinted)) {
      output.error(causeText(exit.cause))
    }
    const fallback = hasStray ? 1 : defaultCode(exit, report)
    const reason = Option.fromNullable(report.reason)
    const asked = codeGiven(
      output,
      () => options.exitCode?.(exit, reason, { ...report, exitCode: fallback }) ?? fallback
    )
    const exitCode = asked === 0 && isOutputLost ? 1 : asked
    process.exitCode = exitCode
    printSummary(
      output,
      { ...report, exitCode },
      ledger !== undefined,
      hasStray && printed !== undefined
    )
    if (report.resources.some(({ state }) => ["acquiring", "held", "releasing"].includes(state))) {
      printHolders()
    }
    // The time of all that still runs is over.
    if (report.overran) whenWritten(grace, () => process.exit())
    // With an empty loop the process ends by itself. This is for a handle that the program forgot.
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
  // No fiber: the end would interrupt it, and a dump would show it.
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
    dump: (signal) => {
      output.info(`${signal}: process ${process.pid}, in phase ${shutdown.unsafePhase()}.`)
      dump(output, shutdown, holders, main, runner)
    },
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
