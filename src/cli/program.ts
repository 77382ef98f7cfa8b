/**
 * program: the command line of `holdfast`, and the process that runs it.
 *
 * DESIGN. Importing this file runs the command; ../cli.ts does, and has the exit codes. Each subcommand loads its modules when its
 * options are read: help and a bad option need no database and no HTTP client.
 *
 * INVARIANTS
 * - Program-1 Text from outside (names, server messages) reaches terminal, log and report as `printable` lines; only a terminal
 *   gets colours.
 */
import * as Args from "@effect/cli/Args"
import * as Command from "@effect/cli/Command"
import * as CliOptions from "@effect/cli/Options"
import * as ValidationError from "@effect/cli/ValidationError"
import * as NodeContext from "@effect/platform-node/NodeContext"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import process from "node:process"
import type { WriteStream } from "node:tty"
import { stripVTControlCharacters } from "node:util"
import { printable } from "../Ledger/words.ts"
import * as Main from "../Main.ts"
import type * as Mirror from "./mirror.ts"
import { reportMissing } from "./packages.ts"
import type { Refusal } from "./refusal.ts"
import * as Settings from "./settings.ts"

const voice: Mirror.Voice = {
  line: (text) => Effect.sync(() => void process.stdout.write(`${printable(text)}\n`)),
  document: (text) => Effect.sync(() => void process.stdout.write(`${text}\n`)),
  // Not on standard output, which may be redirected to a file.
  error: (text) => Effect.sync(() => void process.stderr.write(`${printable(text)}\n`)),
  progress: process.stderr
}

// Set once, by the command that ran.
let exitCode = 0
const exitWith = (program: Effect.Effect<number, Refusal, NodeContext.NodeContext>) =>
  program.pipe(
    Effect.catchAll(({ exitCode, message }) =>
      Effect.as(voice.error(`holdfast: ${message}`), exitCode)
    ),
    Effect.map((code) => void (exitCode = code))
  )

/** Runs a subcommand whose module is loaded only now: 2 if a package that it needs is not installed. */
const load = <A, E, R>(
  module: () => Promise<A>,
  run: (module: A) => Effect.Effect<number, E, R>
): Effect.Effect<number, E, R> =>
  Effect.matchEffect(Effect.tryPromise({ try: module, catch: (error) => error }), {
    onFailure: (error) => reportMissing(error) ? Effect.succeed(2) : Effect.die(error),
    onSuccess: run
  })

const text = (name: string, help: string) => CliOptions.withDescription(CliOptions.text(name), help)
const integer = (name: string, byDefault: number, help: string) =>
  CliOptions.integer(name).pipe(
    CliOptions.withDescription(`${help} Default ${byDefault}.`),
    CliOptions.withDefault(byDefault)
  )
const duration = (name: string, byDefault: string, help: string) =>
  CliOptions.withDefault(text(name, `${help} Default "${byDefault}".`), byDefault)
const flag = (name: string, help: string) =>
  CliOptions.withDescription(CliOptions.boolean(name), help)

const mirror = Command.make("mirror", {
  list: Args.text({ name: "urls.txt" }).pipe(
    Args.withDescription("A text file, one URL per line; # starts a comment.")
  ),
  to: text("to", "The folder to mirror into."),
  concurrency: integer("concurrency", Settings.defaults.concurrency, "Downloads at once."),
  perHost: integer("per-host", Settings.defaults.perHost, "Connections to one host."),
  retries: integer(
    "retries",
    Settings.defaults.retries,
    "Further attempts after an error that may pass (503, a cut connection)."
  ),
  maxBytes: CliOptions.optional(
    text("max-bytes", "The largest file to accept, such as 500MB. Default: any.")
  ),
  timeout: duration("timeout", "30 seconds", "How long a server may be silent."),
  databaseUrl: CliOptions.redacted("database-url").pipe(
    CliOptions.withDescription(
      "A Postgres to keep the table in. Default: $DATABASE_URL, else an embedded server."
    ),
    CliOptions.optional
  ),
  report: CliOptions.optional(text("report", "Where to write the report as JSON.")),
  ledger: CliOptions.optional(
    text("ledger", "Where to write who held what, and when, as JSON for `holdfast view`.")
  ),
  drain: duration("drain", "25 seconds", "How long a first Ctrl-C lets running downloads go on."),
  verify: flag("verify", "Read and hash the files that are done; default: look at size and time.")
}, (given) =>
  exitWith(Effect.gen(function*() {
    const fromEnvironment = process.env["DATABASE_URL"]
    const options: Mirror.Options = {
      list: given.list,
      to: yield* Settings.folder("to", given.to),
      concurrency: yield* Settings.count("concurrency", given.concurrency, 1),
      perHost: yield* Settings.count("per-host", given.perHost, 1),
      retries: yield* Settings.count("retries", given.retries, 0),
      maxBytes: Option.isNone(given.maxBytes)
        ? undefined
        : yield* Settings.bytes("max-bytes", given.maxBytes.value),
      timeout: yield* Settings.duration("timeout", given.timeout),
      databaseUrl: Option.getOrUndefined(given.databaseUrl)
        ?? (fromEnvironment === undefined || fromEnvironment === ""
          ? undefined
          : Redacted.make(fromEnvironment)),
      report: Option.getOrUndefined(given.report),
      ledger: Option.getOrUndefined(given.ledger),
      drain: yield* Settings.duration("drain", given.drain),
      verify: given.verify
    }
    return yield* load(() => import("./mirror.ts"), ({ mirror }) => mirror(options, voice))
  }))).pipe(
    Command.withDescription(
      "Downloads every URL of a list once, into files and a table, resumably."
    )
  )

const demo = Command.make("demo", {
  to: CliOptions.withDefault(
    text("to", "The folder to mirror into. Default holdfast-demo."),
    "holdfast-demo"
  )
}, ({ to }) =>
  exitWith(
    Effect.flatMap(
      Settings.folder("to", to),
      (to) => load(() => import("./demo.ts"), ({ demo }) => demo(to, voice))
    )
  ))
  .pipe(
    Command.withDescription("Mirrors a bundled origin on loopback, to show what `mirror` does.")
  )

const explore = Command.make("explore", {
  module: Args.text({ name: "module" }).pipe(
    Args.withDescription("A module that exports effects, or subjects { name, setup?, body }.")
  ),
  mode: CliOptions.choice("mode", ["quick", "full"]).pipe(
    CliOptions.withDescription("Every point, or one of each class. Default full."),
    CliOptions.withDefault("full" as const)
  ),
  json: flag("json", "One verdict per line, as JSON."),
  page: CliOptions.optional(
    text("page", "Also write one HTML page with a picture of each verdict, such as out.html.")
  )
}, (given) =>
  exitWith(
    load(
      () => import("./explore.ts"),
      ({ explore }) => explore({ ...given, page: Option.getOrUndefined(given.page) }, voice)
    )
  ))
  .pipe(
    Command.withDescription(
      "Interrupts each effect that a module exports at every point where production could."
    )
  )

const view = Command.make("view", {
  ledger: Args.text({ name: "ledger.json" }).pipe(
    Args.withDescription(
      "What `holdfast mirror --ledger`, or `Main.run` with a ledger file, wrote."
    )
  ),
  html: flag("html", "One page, to be opened in a browser; it needs nothing else."),
  svg: flag("svg", "A timeline."),
  text: flag("text", "Who holds what under whom. The default."),
  output: CliOptions.optional(text("output", "The file to write. Default: standard output."))
}, (given) =>
  exitWith(load(() => import("./view.ts"), ({ view }) =>
    view({
      ...given,
      output: Option.getOrUndefined(given.output),
      width: process.stdout.isTTY ? process.stdout.columns : undefined
    }, voice)))).pipe(
    Command.withDescription("Shows a ledger: who held what, when, and what was not released.")
  )

const pg = Command.make("pg", {
  data: CliOptions.optional(
    text("data", "The directory of the data, which stays. Default: a temporary one.")
  )
}, ({ data }) =>
  exitWith(Effect.gen(function*() {
    const directory = Option.isNone(data)
      ? undefined
      : yield* Settings.folder("data", data.value)
    return yield* load(() => import("./pg.ts"), ({ pg }) => pg(directory, voice))
  }))).pipe(
    Command.withDescription("Runs a Postgres server until Ctrl-C, and prints its URL.")
  )

const holdfast = Command.make("holdfast").pipe(
  Command.withDescription("Resources that always come back."),
  Command.withSubcommands([mirror, demo, explore, view, pg])
)

/** Prints help as users type it, `$ holdfast mirror`, and in colours only on a terminal that has them. */
const print = (stream: WriteStream) => (...texts: ReadonlyArray<unknown>): Effect.Effect<void> =>
  Effect.sync(() => {
    const text = texts.join(" ").replace(/^\$ (?!holdfast\b)/gm, "$ holdfast ")
    const shown = stream.isTTY && stream.hasColors() ? text : stripVTControlCharacters(text)
    stream.write(`${shown}\n`)
  })

const withPlainHelp = <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.consoleWith((console) =>
    Effect.withConsole(command, {
      ...console,
      log: print(process.stdout),
      error: print(process.stderr)
    })
  )

/** The drain asked for, before the command line is parsed in full: Main needs it from the start. */
const drainOf = (argv: ReadonlyArray<string>): Duration.Duration => {
  const at = argv.findIndex((word) => word === "--drain" || word.startsWith("--drain="))
  const text = at < 0 ? undefined : argv[at]!.split("=")[1] ?? argv[at + 1]
  const asked = Effect.runSyncExit(Settings.duration("drain", text ?? "25 seconds"))
  return Exit.isSuccess(asked) ? asked.value : Duration.seconds(25)
}

const badArguments = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit)
  && Option.exists(Cause.failureOption(exit.cause), ValidationError.isValidationError)

Main.run(
  Command.run(holdfast, { name: "holdfast", version: "0.1.0" })(process.argv).pipe(
    Effect.provide(NodeContext.layer),
    withPlainHelp
  ),
  {
    shutdown: {
      // The batch's own grace ends first; this bound is for a drain that hangs.
      stopTimeout: Duration.sum(drainOf(process.argv), "5 seconds"),
      releaseTimeout: "15 seconds",
      total: Duration.sum(drainOf(process.argv), "20 seconds")
    },
    // A ledger that is written to a file holds the whole run: about four entries per URL.
    ledger: process.argv.some((word) => /^--ledger(=|$)/.test(word)) ? { history: 100_000 } : {},
    exitCode: (exit) => Exit.isSuccess(exit) ? exitCode : badArguments(exit) ? 2 : undefined,
    // The command line has printed its own errors already.
    isPrinted: ValidationError.isValidationError
  }
)
