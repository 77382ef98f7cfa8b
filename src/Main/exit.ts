/**
 * exit: the exit code of a process, and the lines that it prints about its end.
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import type * as Ledger from "../Ledger.ts"
import type * as Shutdown from "../Shutdown.ts"
import * as Words from "../Shutdown/words.ts"
import { errorText, type Output } from "./output.ts"
import { codeOf } from "./signals.ts"

/** EX_TEMPFAIL of sysexits.h: run the program again. */
const temporaryFailure = 75

/** 0, 75, or 128 and the signal, if all went well; else 1. */
export const defaultCode = (exit: Exit.Exit<unknown, unknown>, report: Shutdown.Report): number => {
  const { drained, failed, fibers, hooks, overran, reason, reported } = report
  // A failure that is only reported to its owner (`onReleaseFailure: "report"`) is one all the same.
  const hasTrouble = overran || failed > 0 || reported > 0 || fibers.length > 0
    || hooks.some(({ state }) => state === "failed")
  if (hasTrouble || reason?.kind === "error") return 1
  // An interruption that was asked for is no failure.
  const isInterruption = (cause: Cause.Cause<unknown>): boolean =>
    reason !== undefined && Cause.isInterruptedOnly(cause)
  if (Exit.isFailure(exit) && !isInterruption(exit.cause)) return 1
  if (drained > 0) return temporaryFailure
  return reason?.kind === "signal" ? codeOf(reason.signal) : 0
}

/** Whether the cause is this one error and nothing else. */
const isOnly = (cause: Cause.Cause<unknown>, error: unknown): boolean =>
  cause._tag === "Fail" && cause.error === error || cause._tag === "Die" && cause.defect === error

/** The code that the program gives; 1 if that is no exit code, or if it throws. */
export const codeGiven = (output: Output, given: () => number): number => {
  try {
    const code = given()
    if (!Number.isInteger(code) || code < 0 || code > 255) {
      throw new RangeError(`${code} is not one: 0 to 255`)
    }
    return code
  } catch (thrown) {
    output.error(`No exit code: ${errorText(thrown)}`)
    return 1
  }
}

/** INVARIANT Main-3: an interruption that was asked for is not printed; any failure beside it is, once. */
export const isSilent = <E>(
  output: Output,
  cause: Cause.Cause<E>,
  reason: Shutdown.Reason | undefined,
  printed: { readonly error: unknown } | undefined,
  isPrinted: ((error: E) => boolean) | undefined
): boolean => {
  if (reason !== undefined && Cause.isInterruptedOnly(cause)) return true
  if (printed !== undefined && isOnly(cause, printed.error)) return true
  try {
    return cause._tag === "Fail" && isPrinted?.(cause.error) === true
  } catch (thrown) {
    output.error(`isPrinted: ${errorText(thrown)}`)
    return false
  }
}

/** The holders and waiters of a ledger, as lines. */
export const holdersText = (ledger: Ledger.Service | undefined, isEnding: boolean): string => {
  if (ledger === undefined) return "No ledger: the holders are not known."
  const snapshot = ledger.unsafeSnapshot()
  return snapshot.live.length === 0
    ? `Nothing is held${isEnding ? " any more" : ""}.`
    : ["Still held:", ...Words.holderLines(snapshot)].join("\n")
}

/** INVARIANT Main-3: an end that came by itself is summed up only if something went wrong. */
export const printSummary = (
  output: Output,
  report: Shutdown.Report,
  hasLedger: boolean,
  isStray: boolean
): void => {
  const trouble = Words.troubleLines(report)
  const hasTrouble = trouble.length > 0 || report.overran || report.reported > 0
  if (report.reason === undefined && !hasTrouble) return
  const lines = [Words.summary(report, hasLedger, isStray), ...Words.capped(trouble)]
  output[hasTrouble ? "error" : "info"](lines.join("\n"))
}
