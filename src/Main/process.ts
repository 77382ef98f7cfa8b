/**
 * process: one program in this process. It asks the program to end, forces that, and reports it.
 *
 * DESIGN. All decisions are made outside of the program's fibers: an observer reads the program's exit, and a timer of the process
 * forces the exit at last.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as GlobalValue from "effect/GlobalValue"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import * as fs from "node:fs"
import process from "node:process"
import * as Ledger from "../Ledger.ts"
import * as Json from "../Ledger/View/json.ts"
import * as Nursery from "../Nursery.ts"
import * as Shutdown from "../Shutdown.ts"
import { millisIn } from "../Shutdown/phases.ts"
import * as Words from "../Shutdown/words.ts"
import { dump } from "./dump.ts"
import { codeGiven, defaultCode, holdersText, isSilent, printSummary } from "./exit.ts"
import { Handlers } from "./handlers.ts"
import type { Options } from "./options.ts"
import { causeText, errorText, Output, watchStreams, whenWritten } from "./output.ts"
import { codeOf, listen } from "./signals.ts"

/** One for the whole process, even if this module is loaded in several copies. */
const taken = GlobalValue.globalValue("holdfast/Main/taken", () => ({ isTaken: false }))

/** Milliseconds that things which end by themselves may take for it. */
const grace = 1000

/** Writes all of a file or nothing: to a file beside it, which then gets its name. Synchronous, for the end of the process. */
const writeWhole = (file: string, text: string): void => {
  const beside = `${file}.${process.pid}.part`
  try {
    fs.writeFileSync(beside, text, { flush: true })
    fs.renameSync(beside, file)
  } catch (error) {
    fs.rmSync(beside, { force: true })
    throw error
  }
}

/** Every field is written by this class alone. */
export class Process<A, E> {
  readonly #options: Options<A, E>
  readonly #output: Output
  readonly #handlers = new Handlers()
  readonly #ledger: Ledger.Service | undefined
  /** That of the process: effects outside of the program use it, too. */
  readonly #shutdown: Shutdown.Service
  #main: Fiber.RuntimeFiber<unknown, unknown> | undefined
  /** Whether the last timer runs, which forces the exit. */
  #isBounded = false
  /** The error that asked for the end, once it is printed. */
  #printed: { readonly error: unknown } | undefined
  #hasStray = false
  /** Whether standard output, or the file of the ledger, is lost. */
  #hasLost = false
  #hasEnded = false

  constructor(options: Options<A, E>) {
    if (taken.isTaken) {
      throw new Error(
        "Main.run: this process has a program already. Run this one inside it: `Shutdown.run`, or a fiber of it."
      )
    }
    this.#options = options
    this.#output = new Output(options.print)
    const misfit = Shutdown.shortfall(options.shutdown ?? {})
    if (misfit !== undefined) this.#output.info(misfit)
    if (options.ledger !== false) {
      const { file: _, ...ledger } = options.ledger ?? {}
      this.#ledger = Effect.runSync(Ledger.make(ledger))
    }
    this.#shutdown = Shutdown.unsafeOfProcess()
  }

  run(program: Effect.Effect<A, E>): void {
    listen(this.#options, this.#handlers, {
      request: (signal) => this.#request({ kind: "signal", signal }),
      force: (signal) => this.#force(`Second signal (${signal})`, codeOf(signal)),
      dump: (signal) => {
        this.#output.info(
          `${signal}: process ${process.pid}, in phase ${this.#shutdown.unsafePhase()}.`
        )
        dump(this.#output, this.#shutdown, () => this.#holders(), this.#main, runner)
      },
      print: (line) => this.#output.info(line),
      phase: this.#shutdown.unsafePhase
    })
    taken.isTaken = true
    this.#handlers.on(process, "exit", (code) => this.#onForeignExit(code))
    watchStreams(this.#handlers, (error) => {
      this.#lose(`Standard output is lost: ${error.message}`)
      // It may come after the program's own end.
      if (process.exitCode === 0) process.exitCode = 1
    })
    // The program may wait for something that holds no handle.
    this.#handlers.every(1000, () => this.#output.look()).ref()
    const onStray = (error: unknown) => this.#onStray(error)
    this.#handlers.on(process, "uncaughtException", onStray)
    this.#handlers.on(process, "unhandledRejection", onStray)
    this.#watchLedger()
    // Last: it runs at once up to its first yield, and a signal may come in that time.
    const runner = this.#start(program)
    runner.addObserver((exit) => {
      // A process that ends by itself has no other program.
      taken.isTaken = this.#options.onExit === undefined
      if (this.#hasEnded) return
      if (Exit.isSuccess(exit)) return this.#end(exit.value)
      this.#output.error(`Main-2: the shutdown itself failed. ${causeText(exit.cause)}`)
      this.#output.guarded("The trouble before", () => {
        const trouble = this.#ledger === undefined
          ? []
          : Words.troubleIn(this.#ledger.unsafeSnapshot())
        Words.capped(trouble).forEach((line) => this.#output.error(line))
      })
      this.#force("Broken", 1)
    })
  }

  #start(program: Effect.Effect<A, E>): Fiber.RuntimeFiber<Shutdown.Ended<A, E>> {
    const followed = Effect.withFiberRuntime<A, E>((self) => {
      this.#main = self
      this.#output.follow(self)
      return program
    })
    // MASK: a program may interrupt every fiber that `Fiber.roots` gives, and this is one of them. The flag, because a masked region
    // sees an interrupt at its end. `Shutdown.run` forks the program interruptibly.
    const masked = Runtime.disableRuntimeFlag(Runtime.defaultRuntime, RuntimeFlags.Interruption)
    const onPhaseEnd = (phase: Shutdown.PhaseReport) => this.#onPhaseEnd(phase)
    const running = this.#shutdown.run(followed, {
      ...this.#options.shutdown,
      fibers: "all",
      onPhaseEnd
    })
    return Runtime.runFork(
      masked,
      Nursery.tracked(Effect.provideService(running, Ledger.Ledger, this.#ledger))
    )
  }

  /** Prints what is held for too long. No fiber: the end would interrupt it, and a dump would show it. */
  #watchLedger(): void {
    const leakAfter = Duration.decode((this.#options.ledger || {}).leakAfter ?? Infinity)
    if (!Duration.isFinite(leakAfter) || Duration.isZero(leakAfter)) return
    this.#handlers.every(Duration.toMillis(leakAfter) / 4, () => {
      const overdue = this.#ledger?.unsafeOverdue(leakAfter) ?? []
      Words.capped(overdue).forEach((line) => this.#output.info(line))
    })
  }

  #request(reason: Shutdown.Reason): boolean {
    if (this.#hasEnded) process.exit()
    this.#bound()
    return this.#shutdown.unsafeRequest(reason)
  }

  /** INVARIANT Main-2: also if the shutdown itself is held up. */
  #bound(): void {
    if (this.#isBounded) return
    this.#isBounded = true
    const { total } = millisIn(this.#options.shutdown ?? {})
    this.#handlers.after(
      total + grace,
      () => this.#force(`The process did not end within ${Words.seconds(total)}`, 1)
    )
  }

  #onStray(error: unknown): void {
    this.#hasStray = true
    this.#output.error(`Stray error: ${errorText(error)}`)
    if (Option.isNone(this.#shutdown.unsafeReason())) this.#printed = { error }
    if (!this.#hasEnded) this.#request({ kind: "error", error })
    else if (process.exitCode === 0) process.exitCode = 1
  }

  #onPhaseEnd({ duration, overran, phase, unfinished }: Shutdown.PhaseReport): void {
    if (this.#hasEnded) return
    this.#bound()
    this.#printReason()
    if (!overran || phase === "releasing") return
    const work = Words.unfinishedText(unfinished)
    this.#output.info(`Still ${phase} after ${Words.seconds(duration)}: ${work}; continuing.`)
  }

  /** INVARIANT Main-3: a program that asks for its end with an error does not print it. */
  #printReason(): void {
    const reason = Option.getOrUndefined(this.#shutdown.unsafeReason())
    if (reason?.kind !== "error" || this.#printed !== undefined) return
    this.#printed = { error: reason.error }
    this.#output.error(`Asked to end for an error: ${errorText(reason.error)}`)
  }

  #end({ exit, report }: Shutdown.Ended<A, E>): void {
    const { isPrinted } = this.#options
    const output = this.#output
    this.#hasEnded = true
    this.#handlers.stopTimers()
    this.#printReason()
    if (
      Exit.isFailure(exit)
      && !isSilent(output, exit.cause, report.reason, this.#printed, isPrinted)
    ) output.error(causeText(exit.cause))
    this.#save()
    const exitCode = this.#codeOf(exit, report)
    const isStray = this.#hasStray && this.#printed !== undefined
    printSummary(output, { ...report, exitCode }, this.#ledger !== undefined, isStray)
    if (report.resources.some(({ state }) => ["acquiring", "held", "releasing"].includes(state))) {
      this.#printHolders()
    }
    this.#leave(exitCode, () => {
      process.exitCode = exitCode
      // The time of all that still runs is over.
      if (report.overran) whenWritten(grace, () => process.exit())
      // With an empty loop the process ends by itself. This is for a handle that the program forgot.
      this.#handlers.after(grace, () => process.exit())
    })
  }

  #codeOf(exit: Exit.Exit<A, E>, report: Shutdown.Report): number {
    const fallback = this.#hasStray ? 1 : defaultCode(exit, report)
    const reason = Option.fromNullable(report.reason)
    const asked = codeGiven(
      this.#output,
      () => this.#options.exitCode?.(exit, reason, { ...report, exitCode: fallback }) ?? fallback
    )
    return asked === 0 && this.#hasLost ? 1 : asked
  }

  #force(why: string, code: number): void {
    this.#output.error(`${why}: forced exit.`)
    this.#printHolders()
    this.#hasEnded = true
    this.#save()
    this.#leave(code, () => process.exit(code))
  }

  /** Ends the process by `end`, or gives it back to a test. */
  #leave(code: number, end: () => void): void {
    const { onExit } = this.#options
    if (onExit === undefined) return end()
    this.#handlers.remove()
    onExit(code)
  }

  /** INVARIANT Main-3: nothing is released after a `process.exit` that is not ours. */
  #onForeignExit(code: number): void {
    if (this.#hasEnded) return
    this.#output.text(`process.exit(${code}) was called in phase ${this.#shutdown.unsafePhase()}.`)
    this.#printHolders()
    this.#save()
    const isSuccess = Option.isNone(this.#shutdown.unsafeReason()) && !this.#hasLost
    if (code === 0 && !isSuccess) process.exitCode = 1
  }

  /** INVARIANT Main-7. */
  #save(): void {
    const { file } = this.#options.ledger || {}
    if (this.#ledger === undefined || file === undefined) return
    try {
      writeWhole(file, Json.write(this.#ledger.unsafeSnapshot()))
    } catch (error) {
      this.#lose(`The ledger is not saved to ${file}: ${errorText(error)}`)
    }
  }

  #lose(what: string): void {
    this.#hasLost = true
    this.#output.error(what)
  }

  #holders(): string {
    return holdersText(this.#ledger, this.#shutdown.unsafePhase() !== "running")
  }

  /** Past any logger: the process ends in this step. */
  #printHolders(): void {
    this.#output.guarded("The holders", () => this.#output.text(this.#holders()))
  }
}
