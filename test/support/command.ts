/**
 * The built `holdfast` command in a child process, and what can be seen of it from outside: its files, its table, what
 * still runs.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { bundledCli, cli } from "./bundles.ts"

export { bundledCli, cli }

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

export interface Running {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  readonly output: () => string
}

const cap = 120_000

interface Command {
  /** It is killed after two minutes, whatever it does. */
  readonly start: (args: ReadonlyArray<string>, env?: Record<string, string>) => Running
  readonly run: (args: ReadonlyArray<string>, env?: Record<string, string>) => Promise<Ended>
}

const startFile = (
  file: string,
  args: ReadonlyArray<string>,
  env: Record<string, string> = {}
): Running => {
  const { DATABASE_URL: _, ...inherited } = process.env
  const child = spawn(process.execPath, [file, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...inherited, ...env }
  })
  let out = ""
  let err = ""
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString()
  })
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString()
  })
  const ended = new Promise<Ended>((resolve) => {
    const timer = setTimeout(() => child.kill("SIGKILL"), cap)
    child.once("close", (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, out, err })
    })
  })
  return { child, ended, output: () => out + err }
}

const commandIn = (file: string): Command => ({
  start: (args, env) => startFile(file, args, env),
  run: (args, env) => startFile(file, args, env).ended
})

export const { run, start } = commandIn(cli)

/** For tests that start the command again and again, and look at neither its lines nor its packages. */
export const bundled = commandIn(bundledCli)

/** A fresh folder that an unprivileged account can enter. */
export const temporaryFolder = (): string => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
  fs.chmodSync(folder, 0o755)
  return folder
}

export const writeList = (folder: string, lines: ReadonlyArray<string>): string => {
  const list = path.join(folder, "urls.txt")
  fs.writeFileSync(list, `${lines.join("\n")}\n`)
  return list
}

const isDirectory = (file: string): boolean =>
  fs.lstatSync(file, { throwIfNoEntry: false })?.isDirectory() ?? false

/** Every file below a folder, relative; not below its `.holdfast`. */
export const filesBelow = (folder: string, below = ""): ReadonlyArray<string> =>
  fs.readdirSync(path.join(folder, below)).flatMap((name) => {
    const file = path.join(below, name)
    if (file === ".holdfast") return []
    return isDirectory(path.join(folder, file)) ? filesBelow(folder, file) : [file]
  })

/** Partial files anywhere, `.holdfast` included; the server's own data aside. */
export const partials = (folder: string): ReadonlyArray<string> =>
  fs.readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => !file.startsWith(path.join(".holdfast", "pg")))
    .filter((file) => /\.part$|\.tmp$|~tmp/.test(file))

export const sha256 = (file: string): string =>
  createHash("sha256").update(fs.readFileSync(file)).digest("hex")

/** Waits until `holds`, looking every 20 ms, for half a minute at the most. */
export const until = async (what: string, holds: () => boolean): Promise<void> => {
  for (let i = 0; i < 1500; i++) {
    if (holds()) return
    await pause(20)
  }
  throw new Error(`never came true: ${what}`)
}

/** Processes of ours whose command line or working directory names the folder (Linux). */
export const processesOn = (folder: string): ReadonlyArray<string> => {
  if (!fs.existsSync("/proc/self/cmdline")) return []
  const real = fs.realpathSync(folder)
  const data = path.join(real, ".holdfast", "pg")
  const places = [real, fs.existsSync(data) ? fs.realpathSync(data) : real]
  return fs.readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && pid !== String(process.pid))
    .flatMap((pid) => {
      try {
        const command = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
        const state = fs.readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "")[0]
        let cwd = ""
        try {
          cwd = fs.readlinkSync(`/proc/${pid}/cwd`)
        } catch {
          // Another account's: its command line must do.
        }
        const here = places.some((place) => command.includes(place) || cwd.startsWith(place))
        return here && state !== "Z" ? [`${pid} ${command}`] : []
      } catch {
        return []
      }
    })
}
