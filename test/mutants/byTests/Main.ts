/** Mutants of Main, found by test/Main.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

const mutant = (what: string, file: string, from: string, to: string, title: string): Mutant => ({
  what,
  file,
  from,
  to,
  tests: "Main.test.ts",
  title
})

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "the second signal of one Ctrl-C forces the exit",
    "Main/signals.ts",
    "    if (!isFirst && !isLater) {\n",
    "    if (false) {\n",
    "Main-1: the same signal twice at once"
  ),
  mutant(
    "a later SIGTERM forces the exit",
    "Main/signals.ts",
    "    } else if (!isFirst && forceOn.includes(signal)) {",
    "    } else if (!isFirst) {",
    "Main-1: a later SIGTERM or SIGHUP changes nothing, unless it is in `forceOn`"
  ),
  mutant(
    "the code after a signal is 0",
    "Main/exit.ts",
    "codeOf(reason.signal) : 0",
    "0 : 0",
    "Main-1, Main-3: SIGINT releases"
  ),
  mutant(
    "a drained batch counts as an end like any other",
    "Main/exit.ts",
    "  if (drained > 0) return temporaryFailure\n",
    "",
    "a drained batch makes the code 75"
  ),
  mutant(
    "output that its reader has not read yet is dropped",
    "Main/process.ts",
    "      if (report.overran) whenWritten(grace, () => process.exit())\n",
    "      if (report.overran) process.exit()\n",
    "Main-5: a reader that pauses gets every line"
  ),
  mutant(
    "a phase that overran is reported at the end only",
    "Main/process.ts",
    "    if (!overran || phase === \"releasing\") return\n",
    "    if (true) return\n",
    "Main-2, Main-3: hooks run in their phases; one that fails or hangs is reported"
  ),
  mutant(
    "a release that is only reported leaves the code 0",
    "Main/exit.ts",
    "overran || failed > 0 || reported > 0 ||",
    "overran || failed > 0 ||",
    "Main-3: a release that went wrong and is only reported"
  ),
  mutant(
    "an error that cannot be shown is thrown",
    "Main/output.ts",
    "  } catch {\n    return errorText(error)\n  }",
    "  } finally {}",
    "Main-3: an error that cannot be shown hides nothing else"
  ),
  mutant(
    "a process.exit of the program's own is not reported",
    "Main/process.ts",
    "    this.#output.text(`process.exit(${code}) was called in phase ${this.#shutdown.unsafePhase()}.`)\n",
    "",
    "Main-3: a `process.exit` of the program's own is printed with the holders; after a request it is no success"
  ),
  mutant(
    "the error of a request is printed twice",
    "Main/exit.ts",
    "  if (printed !== undefined && isOnly(cause, printed.error)) return true\n",
    "",
    "Main-3: the error that a program asks for its end by"
  ),
  mutant(
    "control characters are printed raw",
    "Main/output.ts",
    "write(printable(line))",
    "write(line)",
    "Main-3: no control character"
  ),
  mutant(
    "the message of an error forges a line",
    "Main/output.ts",
    "index === 0 || /^[\\s}]/.test(line) ? line",
    "true ? line",
    "Main-3: no control character"
  ),
  mutant(
    "a name in a list of holders forges a line",
    "Shutdown/words.ts",
    "  return [...capped(circles), ...capped(lines)].map(printable)",
    "  return [...capped(circles), ...capped(lines)]",
    "Main-3, Main-6: no name forges a line"
  ),
  mutant(
    "bad news goes to the logger only",
    "Main/output.ts",
    "    this.#log(LogLevel.Error, text)\n    this.text(text)",
    "    this.#log(LogLevel.Error, text) || this.text(text)",
    "lines go to the Logger"
  ),
  mutant(
    "a stray error leaves the code as it was",
    "Main/process.ts",
    "    const fallback = this.#hasStray ? 1 : defaultCode(exit, report)",
    "    const fallback = defaultCode(exit, report)",
    "Main-4: a stray throw while releasing makes the code 1, and the slow release still ends"
  ),
  mutant(
    "lost output leaves the code 0",
    "Main/process.ts",
    "    return asked === 0 && this.#hasLost ? 1 : asked",
    "    return asked",
    "Main-5: output lost to a full disk is reported once and makes the code 1; the program continues"
  ),
  mutant(
    "a dump prints every fiber",
    "Main/dump.ts",
    "[\"Fibers:\", ...Words.capped(lines)]",
    "[\"Fibers:\", ...lines]",
    "Main-6: of many fibers only the first are printed"
  ),
  mutant(
    "a handle that the program forgot keeps the process",
    "Main/process.ts",
    "      this.#handlers.after(grace, () => process.exit())",
    "      void 0",
    "a forgotten handle"
  ),
  mutant(
    "the ledger is written in place",
    "Main/process.ts",
    "    fs.renameSync(beside, file)\n",
    "    fs.writeFileSync(file, text)\n",
    "Main-7: the ledger is saved"
  ),
  mutant(
    "what could not get its name stays beside the file",
    "Main/process.ts",
    "    fs.rmSync(beside, { force: true })\n",
    "",
    "Main-7: a ledger that cannot be saved"
  ),
  mutant(
    "a run leaves its listeners on the process",
    "Main/process.ts",
    "    this.#handlers.remove()\n",
    "",
    "Main-8: with `onExit`"
  ),
  mutant(
    "a program runs without the tracker",
    "Main/process.ts",
    "Nursery.tracked(Effect.provideService(running, Ledger.Ledger, this.#ledger))",
    "Effect.provideService(running, Ledger.Ledger, this.#ledger)",
    "Main-9: what a stock operator shares"
  ),
  mutant(
    "another run gets the shutdown of the last one",
    "Shutdown.ts",
    "  forgetDefault(Shutdown)\n",
    "",
    "Main-8: with `onExit`"
  )
]
