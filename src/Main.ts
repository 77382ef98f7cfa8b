/**
 * Main: runs a program as a process that always ends, and always lets go first.
 *
 * DESIGN. The first signal asks for the end (Shutdown.ts). If a part of the program drains, it gets `drain` to finish by
 * itself; else, or after that, the main fiber is interrupted and its releases get `release`. Both bounds are real timers
 * outside the program, so a hung release or a hung acquire cannot hold up the exit. What decides is read from an observer of
 * the main fiber, never from the interrupted fiber itself, so nothing ends in silence.
 *
 * INVARIANTS
 * - Main-1 The first signal is graceful; the same one again within `forceAfter` is the same Ctrl-C (npm delivers it twice) and
 *   is ignored; any later one forces the exit, after the holders are printed.
 * - Main-2 The process ends at most `drain + release` after the first signal.
 * - Main-3 (L5) A failure, and every failure of a release, is printed.
 * - Main-4 A stray throw or rejection ends the program gracefully, with code 1.
 * - Main-5 Nobody need listen: a reader that has left (EPIPE, or a terminal that is gone) changes nothing. Standard output
 *   that is lost otherwise (a full disk) is told once and makes the code 1 at the least.
 *
 * EXIT CODES 0 success; 1 failure, stray error or overrun; 129/130/143 ended or forced by SIGHUP/SIGINT/SIGTERM; whatever
 * `exitCode` says.
 * NOT DONE here yet: phases, readiness, dumps on SIGUSR2.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import process from "node:process"
import * as Ledger from "./Ledger.ts"
import * as Shutdown from "./Shutdown.ts"

/**
 * How a process runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A, E> {
  /** How long a draining program may take after the first signal. Default 25 seconds. */
  readonly drain?: Duration.DurationInput | undefined
  /** How long the releases may take after that. Default 10 seconds. */
  readonly release?: Duration.DurationInput | undefined
  /** The same signal again within this time is ignored. Default 500 milliseconds. */
  readonly forceAfter?: Duration.DurationInput | undefined
  /** Those that ask for the end. Default: SIGINT, SIGTERM, SIGHUP. */
  readonly signals?: ReadonlyArray<NodeJS.Signals> | undefined
  /** The exit code, where the default should not hold: 0 success, 1 failure, 128 and its number after a signal. */
  readonly exitCode?:
    | ((exit: Exit.Exit<A, E>, reason: Option.Option<Shutdown.Reason>) => number | undefined)
    | undefined
  /** Failures that the program has told its user of by itself. */
  readonly isPrinted?: ((error: E) => boolean) | undefined
  /** Where lines for people go. Default: standard error. */
  readonly print?: ((line: string) => void) | undefined
}

const signalNumbers: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }
const codeOf = (signal: string): number => 128 + (signalNumbers[signal] ?? 0)

const defaultCode = (
  exit: Exit.Exit<unknown, unknown>,
  reason: Option.Option<Shutdown.Reason>
): number => {
  if (Option.isSome(reason) && reason.value.kind === "error") return 1
  if (Exit.isSuccess(exit)) return 0
  return Option.isSome(reason) && reason.value.kind === "signal" && Cause.isInterrupted(exit.cause)
    ? codeOf(reason.value.signal)
    : 1
}

const holders = (entries: ReadonlyArray<Ledger.Entry>, now: number): Array<string> =>
  entries.map((entry) =>
    `  ${entry.state} ${entry.kind} "${entry.name}" for ${
      ((now - entry.since) / 1000).toFixed(1)
    } s`
  )

const isSilent = <E>(
  cause: Cause.Cause<E>,
  isPrinted: ((error: E) => boolean) | undefined
): boolean =>
  Cause.isInterruptedOnly(cause)
  || isPrinted !== undefined && cause._tag === "Fail" && isPrinted(cause.error)

/** What has happened so far. Guarded by the single thread; written only inside `run`. */
interface Course {
  reason: Option.Option<Shutdown.Reason>
  first: { readonly signal: string; readonly at: number } | undefined
  timer: NodeJS.Timeout | undefined
  outputLost: boolean
}

/** setTimeout's own limit, 24.8 days: what is longer, it takes for 1 ms. */
const longestTimer = 2 ** 31 - 1
const after = (millis: number, f: () => void): NodeJS.Timeout =>
  setTimeout(f, Math.min(millis, longestTimer))

const readerLeft = (error: NodeJS.ErrnoException): boolean =>
  ["EPIPE", "EIO", "ERR_STREAM_DESTROYED"].includes(error.code ?? "")

/**
 * Runs the program as the process's main fiber, with a ledger and a `Shutdown` of its own.
 *
 * **Details** — All that the program needs is provided before. Exit codes: 0 success; 1 failure, stray error or overrun;
 *   129/130/143 ended or forced by SIGHUP/SIGINT/SIGTERM; or what `exitCode` says.
 * **Interruption** — The first signal asks for the end: what is marked by `Shutdown.drains` has `drain` to finish, anything
 *   else is interrupted at once; releases have `release`. A later signal forces the exit and names who still holds.
 * **Errors** — printed; exit code 1.
 * **Cost** — signal handlers and one timer per phase.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E>(program: Effect.Effect<A, E>, options: Options<A, E> = {}): void => {
  const write = options.print ?? ((line: string) => process.stderr.write(`${line}\n`))
  const print = (line: string): void => {
    try {
      write(line)
    } catch {
      // INVARIANT Main-5: there is nobody left to tell.
    }
  }
  const drain = Duration.toMillis(options.drain ?? "25 seconds")
  const release = Duration.toMillis(options.release ?? "10 seconds")
  const forceAfter = Duration.toMillis(options.forceAfter ?? "500 millis")
  const signals = options.signals ?? ["SIGINT", "SIGTERM", "SIGHUP"]
  const ledger = Effect.runSync(Ledger.make())
  const shutdown = Shutdown.unsafeMake()
  const course: Course = {
    reason: Option.none(),
    first: undefined,
    timer: undefined,
    outputLost: false
  }

  const printHolders = (): void => {
    const { live, takenAt } = Effect.runSync(ledger.snapshot)
    print(live.length === 0 ? "Nothing is held any more." : "Still held:")
    holders(live, takenAt).forEach((line) => print(line))
  }
  const forced = (why: string, code: number): never => {
    print(`${why}: forced exit.`)
    printHolders()
    return process.exit(code)
  }
  const interrupt = (): void => {
    course.timer = after(
      release,
      () => forced(`The releases did not end within ${release} ms`, 1)
    )
    fiber.unsafeInterruptAsFork(fiber.id())
  }
  const begin = (reason: Shutdown.Reason): void => {
    course.reason = Option.some(reason)
    shutdown.unsafeRequest(reason)
    if (shutdown.unsafeDrainers() === 0) return interrupt()
    course.timer = after(drain, () => {
      print(`Not drained within ${drain} ms: interrupting what still runs.`)
      interrupt()
    })
  }
  const onSignal = (signal: NodeJS.Signals): void => {
    const { first } = course
    if (Option.isNone(course.reason)) {
      course.first = { signal, at: performance.now() }
      print(`${signal}: letting go (once more to force).`)
      return begin({ kind: "signal", signal })
    }
    // INVARIANT Main-1: one Ctrl-C under npm is two SIGINTs.
    if (first?.signal === signal && performance.now() - first.at < forceAfter) return
    forced(`Second signal (${signal})`, codeOf(signal))
  }
  const onStray = (error: unknown): void => {
    print(`Stray error: ${error instanceof Error ? error.stack ?? error.message : String(error)}`)
    if (Option.isNone(course.reason)) begin({ kind: "error", error })
  }

  const onOutputError = (error: NodeJS.ErrnoException): void => {
    if (readerLeft(error) || course.outputLost) return
    course.outputLost = true
    print(`Standard output is lost: ${error.message}`)
    // It may come after the program's own end.
    if (process.exitCode === 0) process.exitCode = 1
  }
  const codeOfExit = (exit: Exit.Exit<A, E>): number => {
    try {
      // INVARIANT Main-3: an interruption that was asked for is no news; anything beside it is.
      if (Exit.isFailure(exit) && !isSilent(exit.cause, options.isPrinted)) {
        print(Cause.pretty(exit.cause, { renderErrorCause: true }))
      }
      const code = options.exitCode?.(exit, course.reason) ?? defaultCode(exit, course.reason)
      if (!Number.isInteger(code)) throw new RangeError(`${code} is not one`)
      return code
    } catch (thrown) {
      print(
        `No exit code: ${thrown instanceof Error ? thrown.stack ?? thrown.message : String(thrown)}`
      )
      return 1
    }
  }

  // Keeps the process alive while the program waits for something that holds no handle.
  const alive = setInterval(() => {}, 2 ** 30)
  signals.forEach((signal) => process.on(signal, onSignal))
  process.on("uncaughtException", onStray)
  process.on("unhandledRejection", onStray)
  process.stdout.on("error", onOutputError)
  process.stderr.on("error", () => {})

  // Last: it runs at once up to its first yield, and a signal may come in that time.
  const fiber: Fiber.RuntimeFiber<A, E> = Effect.runFork(program.pipe(
    Effect.provideService(Ledger.Ledger, ledger),
    Effect.provideService(Shutdown.Shutdown, shutdown)
  ))

  fiber.addObserver((exit) => {
    clearInterval(alive)
    clearTimeout(course.timer)
    const code = codeOfExit(exit)
    process.exitCode = code === 0 && course.outputLost ? 1 : code
    // The loop should be empty now and the process end by itself; a forgotten handle must not keep it.
    setTimeout(() => process.exit(), 1000).unref()
  })
}
