/**
 * Main: runs a program as a process that always ends, releases first, and reports what it did not release.
 *
 * DESIGN. The first signal asks for the end (Shutdown.ts), which then comes in phases, each bounded. This module adds the
 * process. Rooms: options, process (one program), signals, exit (codes and the last lines), output, dump, handlers (listeners and
 * timers).
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
 * - Main-7 The file of the ledger holds, after any end but a SIGKILL, the ledger as it was after the last release, or what it held
 *   before. A ledger that is not saved is reported, and makes a code of 0 a 1.
 * - Main-8 After a run with `onExit` the process has no listener and no timer of the run, and another run has a `Shutdown` of its own.
 * - Main-9 (L10) The program runs under the tracker (Nursery.ts): what its stock operators share is released after the last of
 *   their fibers that has been interrupted.
 *
 * NOT DONE a start without signals and lines for hosts that have their own: `Shutdown.run` is that.
 * SOURCES sysexits.h; cats-effect (fiber dump on a signal; force by a repeated SIGINT only: #1992); close-with-grace.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type { Options } from "./Main/options.ts"
import { Process } from "./Main/process.ts"

export type { Options } from "./Main/options.ts"

/**
 * Runs the program as the main fiber of the process, with a ledger of its own and the `Shutdown` of the process: a callback that
 * runs `Shutdown.inFlight` or `Shutdown.isReady` by a plain `Effect.runPromise` uses the same one. Once in a process, unless
 * `onExit` is given.
 *
 * **Details** — The program has all its services provided. If it ends by itself, the fibers that it left behind are interrupted
 *   and waited for.
 *   Exit codes: 1 failure (also of a hook or a release, even if that is only reported), stray error, or anything that did not end
 *   by its bound; else 75 (EX_TEMPFAIL, run again) if a `Batch` was drained because the end was asked for; else 129/130/143 (128
 *   + the signal) after SIGHUP/SIGINT/SIGTERM, also if the program then ended by itself; else 0. A forced exit has the code of
 *   its signal. `exitCode` gives another code. A `process.exit` of the program's own releases nothing: it is printed with the
 *   holders, and its 0 becomes 1 after a request.
 *   The program runs under the tracker (`Nursery.tracked`): a resource that stock operators share is released after their fibers.
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
export const run = <A, E>(program: Effect.Effect<A, E>, options: Options<A, E> = {}): void =>
  new Process(options).run(program)
