/**
 * One row of the process table: a program as a real child process on one of two runners, the signals it got and when, and how
 * it ended as seen from outside.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { stripVTControlCharacters } from "node:util"
import { programs, startOf } from "./bundles.ts"
import { tool } from "./tools.ts"

/** `holdfast` is Main.run with Managed, `raw` NodeRuntime.runMain with Effect.acquireRelease. */
export type Runner = "holdfast" | "raw"

export interface Row {
  readonly title: string
  /** A key of support/programs/table.mjs. */
  readonly program: string
  /** The signals, each at so many ms after `ready`. */
  readonly signals?: ReadonlyArray<readonly [atMs: number, signal: NodeJS.Signals]> | undefined
  /**
   * Under a pty. `sh`, `bash`: run by `npm start` with that `script-shell`, and Ctrl-C is typed at `ready`; the terminal signals the
   * whole group, and npm passes its own signal on to the shell: bash has become the program by then (two SIGINTs), dash has not
   * (one). `closes`: the terminal goes at `ready`, and nobody hears what the program says then.
   */
  readonly terminal?: "sh" | "bash" | "closes" | undefined
}

/** How the program ended: its code or its signal (under npm, where it did not end by itself: npm's). */
export type End = number | NodeJS.Signals | "killed by the driver"

export interface Seen {
  readonly end: End
  /** From `ready` to the end, in ms. */
  readonly took: number
  /** Each resource whose acquire began, in order. */
  readonly asked: ReadonlyArray<string>
  /** In order. */
  readonly released: ReadonlyArray<string>
  /** Work that the program says is whole. */
  readonly done: ReadonlyArray<string>
  /** Resources that the output names, outside of the lines by which the program reports. */
  readonly named: ReadonlyArray<string>
  /** The other lines of the child. */
  readonly printed: string
}

/** Milliseconds after `ready` at which a child is killed. */
export const budget = 8000
/** Milliseconds to start, on a busy machine. */
const startCap = 30_000

export const table = programs.table.source
const { env, file } = startOf(programs.table)

/** Runs a command under a pty that at `ready` gets a Ctrl-C or closes, and ends as it did. Node has no pty of its own. */
const underTerminal = `
import os, pty, signal, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen = b""
typed = False
while True:
    try:
        chunk = os.read(fd, 65536)
    except OSError:
        break
    if not chunk:
        break
    os.write(1, chunk)
    seen += chunk
    if not typed and b"ready\\r\\n" in seen:
        typed = True
        if sys.argv[1] == "closes":
            os.close(fd)
            break
        os.write(fd, b"\\x03")
_, status = os.waitpid(pid, 0)
if os.WIFSIGNALED(status):
    signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
sys.exit(os.WEXITSTATUS(status))
`

/** Whether this machine can give a child a terminal. */
export const hasTerminal = (): boolean =>
  tool("python3") !== undefined
  && [["npm", "--version"], ["bash", "-c", "true"]].every(([command, ...args]) =>
    spawnSync(command!, args).status === 0
  )

/** A folder with a package whose `start` is the program. */
const packageOf = (folder: string, program: ReadonlyArray<string>): void =>
  fs.writeFileSync(
    path.join(folder, "package.json"),
    JSON.stringify({
      name: "table",
      private: true,
      scripts: { start: program.map((word) => JSON.stringify(word)).join(" ") }
    })
  )

/** Where the program reports under a terminal: that may go, and npm draws on it too. */
const logOf = (folder: string): string => path.join(folder, "log")

const launch = (row: Row, runner: Runner, folder: string): ChildProcess => {
  const program = [process.execPath, file, runner, row.program]
  const logged = [...program, logOf(folder)]
  const inTerminal = ["python3", "-c", underTerminal, row.terminal ?? ""]
  const [command, ...args] = row.terminal === undefined
    ? program
    : [...inTerminal, ...row.terminal === "closes" ? logged : ["npm", "start"]]
  fs.writeFileSync(logOf(folder), "")
  packageOf(folder, logged)
  return spawn(command!, args, {
    // Where a core and npm's logs may lie.
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...env,
      npm_config_cache: path.join(folder, "npm"),
      npm_config_progress: "false",
      npm_config_script_shell: row.terminal === "bash" ? "bash" : "sh",
      npm_config_update_notifier: "false"
    }
  })
}

/** The lines of a child; a terminal adds carriage returns and colours, and echoes what was typed. */
const linesOf = (text: string): ReadonlyArray<string> =>
  stripVTControlCharacters(text).replaceAll("\r", "").replaceAll("^C", "").split("\n")

const report = /^([?+=-])([a-z][\w-]*)$/
const ownCode = /^exit (\d+)$/
const isReport = (line: string) => line === "ready" || report.test(line) || ownCode.test(line)

const read = (log: string, out: string, err: string): Omit<Seen, "end" | "took"> => {
  const lines = linesOf(log)
  const reported = (mark: string) =>
    lines.flatMap((line) => {
      const [, found, resource] = report.exec(line) ?? []
      return found === mark ? [resource!] : []
    })
  const asked = reported("?")
  const printed = [...linesOf(out), ...linesOf(err)].filter((line) => !isReport(line)).join("\n")
    .trim()
  return {
    asked,
    released: reported("-"),
    done: reported("="),
    named: asked.filter((resource) => new RegExp(`(?<![\\w-])${resource}(?![\\w-])`).test(printed)),
    printed
  }
}

const isUnderNpm = ({ terminal }: Row): boolean => terminal === "sh" || terminal === "bash"

/** The code that the program itself says it ends with. */
const codeSaid = (log: string): number | undefined =>
  linesOf(log).filter((line) => ownCode.test(line)).map((line) => Number(line.slice(5)))[0]

/** Runs one side of a row, to its end or until it is killed. */
export const runRow = (row: Row, runner: Runner): Promise<Seen> =>
  new Promise((resolve, reject) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    const child = launch(row, runner, folder)
    let out = ""
    let err = ""
    let readyAt: number | undefined
    let isKilled = false
    const kill = () => {
      isKilled = true
      child.kill("SIGKILL")
    }
    let cap = setTimeout(kill, startCap)
    const onReady = () => {
      readyAt = performance.now()
      clearTimeout(cap)
      cap = setTimeout(kill, budget)
      for (const [atMs, signal] of row.signals ?? []) setTimeout(() => child.kill(signal), atMs)
    }
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString()
      if (readyAt === undefined && /ready\r?\n/.test(out)) onReady()
    })
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString()
    })
    child.once("error", reject)
    child.once("close", (code, signal) => {
      clearTimeout(cap)
      const log = row.terminal === undefined ? out : fs.readFileSync(logOf(folder), "utf8")
      fs.rmSync(folder, { recursive: true, force: true })
      resolve({
        end: isKilled
          ? "killed by the driver"
          : (isUnderNpm(row) ? codeSaid(log) : undefined) ?? signal ?? code!,
        took: readyAt === undefined ? 0 : performance.now() - readyAt,
        ...read(log, out, err)
      })
    })
  })

const someOf = (names: ReadonlyArray<string>): string =>
  names.length <= 2 ? names.join(", ") : `${names.slice(0, 2).join(", ")}, … ${names.length}`

const cells = ({ asked, done, end, named, released, took }: Seen): ReadonlyArray<string> => [
  end === "killed by the driver" ? "hung, killed" : typeof end === "number" ? `exit ${end}` : end,
  `${(took / 1000).toFixed(1)} s`,
  [`${released.length}/${asked.length}`, ...done].join(" "),
  someOf(named) || "-",
  someOf(asked.filter((name) => !released.includes(name) && !named.includes(name))) || "-"
]

/** The table, aligned: each row on both sides. `lost` is neither released nor named. */
export const format = (
  rows: ReadonlyArray<{ readonly title: string; readonly ours: Seen; readonly raw: Seen }>
): string => {
  const head = ["end", "took", "released", "named", "lost"]
  const grid = [
    ["", "Main.run", "", "", "", "", "runMain", "", "", "", ""],
    ["program + what is sent (ms after ready)", ...head, ...head],
    ...rows.map(({ ours, raw, title }) => [title, ...cells(ours), ...cells(raw)])
  ]
  const widths = grid[0]!.map((_, column) => Math.max(...grid.map((line) => line[column]!.length)))
  return grid.map((line) =>
    line.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()
  ).join("\n")
}
