/**
 * options: what a program gives to `Main.run`.
 */
import type * as Duration from "effect/Duration"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type * as Ledger from "../Ledger.ts"
import type * as Shutdown from "../Shutdown.ts"

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
   * warnings are printed. It is saved to `file`, if there is one, as JSON for `holdfast view`, when the program has ended, is
   * forced to end, or calls `process.exit`.
   */
  readonly ledger?: Ledger.LayerOptions & { readonly file?: string | undefined } | false | undefined
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
  /**
   * For tests: called with the exit code after the last line, in place of the end of the process. All handlers are removed by
   * then, and another `run` may follow. A forced exit leaves the program running, and another `run` may follow once it has ended.
   */
  readonly onExit?: ((code: number) => void) | undefined
}
