/**
 * Postgres/Embedded/processes: start a program, signal it, wait for its end; and find the processes of a server.
 *
 * DESIGN. A server runs in a session of its own, so that a terminal's Ctrl-C does not stop it before its users have ended. A pid
 * is signalled only while it is our child, or after its working directory and its command line were checked (Embedded-4).
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type ChildProcess, execFile, spawn, type SpawnOptions } from "node:child_process"
import * as fs from "node:fs"
import * as fsp from "node:fs/promises"
import * as path from "node:path"
import { EmbeddedFailed, type EmbeddedUnavailable, type Failure, unavailable } from "./errors.ts"
import { type Account, messageOf, poll, spawnable, tail } from "./files.ts"

/**
 * How a server process ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Exited {
  readonly code: number | null
  readonly signal: string | null
}

export interface Child {
  readonly pid: number
  readonly process: ChildProcess
  readonly exited: Deferred.Deferred<Exited>
}

export interface Launch {
  readonly dataDirectory: string
  readonly step: "initdb" | "start"
  readonly file: string
  readonly args: ReadonlyArray<string>
  readonly run: string
  readonly account: Account
}

const logFile = (launch: Launch): string => path.join(launch.run, `${launch.step}.log`)

export const failed = (launch: Launch, reason: string): Effect.Effect<never, EmbeddedFailed> =>
  Effect.flatMap(Effect.promise(() => tail(logFile(launch))), (log) => {
    const { dataDirectory, step } = launch
    return new EmbeddedFailed({ step, dataDirectory, reason, log })
  })

const cannotRun = (cause: unknown): EmbeddedUnavailable =>
  unavailable(
    `its binaries cannot be run here (${messageOf(cause)}); `
      + "they need glibc, which musl systems such as Alpine do not have"
  )

/** In a session of its own, with a file for its output: neither the parent's terminal nor its death reaches it. */
const spawnDetached = (launch: Launch): ChildProcess => {
  const log = fs.openSync(logFile(launch), "a")
  try {
    const options: SpawnOptions = {
      cwd: launch.run,
      detached: true,
      env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
      stdio: ["ignore", log, log],
      ...spawnable(launch.account)
    }
    return spawn(launch.file, launch.args, options)
  } finally {
    fs.closeSync(log)
  }
}

/** The programs that run. Written by `stopAtExit` alone. */
const running = new Set<ChildProcess>()

const stopAll = (): void => {
  for (const child of running) child.kill("SIGINT")
}

/** A forced `process.exit` runs no release: the last thing this process does is to ask its servers to end. One listener for all. */
const stopAtExit = (child: ChildProcess): void => {
  if (running.size === 0) process.on("exit", stopAll)
  running.add(child)
  child.once("exit", () => {
    running.delete(child)
    if (running.size === 0) process.off("exit", stopAll)
  })
}

/** Uninterruptible, like every acquire; ends with the first of the events "spawn" and "error". */
export const launched = (launch: Launch): Effect.Effect<Child, EmbeddedUnavailable> =>
  Effect.flatMap(Deferred.make<Exited>(), (exited) =>
    Effect.async((resume) => {
      let child: ChildProcess
      try {
        child = spawnDetached(launch)
      } catch (cause) {
        return resume(Effect.fail(cannotRun(cause)))
      }
      child.once("error", (cause) => resume(Effect.fail(cannotRun(cause))))
      child.once("exit", (code, signal) =>
        Deferred.unsafeDone(exited, Exit.succeed({ code, signal })))
      child.once("spawn", () => {
        stopAtExit(child)
        // The server must not keep the program alive: its scope does. While we wait, timers keep the loop going.
        child.unref()
        resume(Effect.succeed({ pid: child.pid ?? 0, process: child, exited }))
      })
    }))

const signalGroup = (child: Child, signal: NodeJS.Signals): Effect.Effect<void> =>
  Effect.sync(() => {
    // While its exit has not been seen the pid is still the child's own.
    if (child.process.exitCode !== null || child.process.signalCode !== null) return
    try {
      process.kill(-child.pid, signal)
    } catch {
      child.process.kill(signal)
    }
  })

export const hasExited = (child: Child): Effect.Effect<boolean> => Deferred.isDone(child.exited)

/** Signals in turn, each with its wait, until the process has ended. */
export const signalUntil = (
  steps: ReadonlyArray<readonly [NodeJS.Signals, number]>,
  send: (signal: NodeJS.Signals) => Effect.Effect<void>,
  ended: Effect.Effect<boolean>
): Effect.Effect<boolean> =>
  Effect.reduce(
    steps,
    false,
    (over, [signal, millis]) =>
      over ? Effect.succeed(true) : Effect.zipRight(send(signal), poll(ended, millis))
  )

/** Fast shutdown, then immediate, then by force. */
export const shutdown = [["SIGINT", 5_000], ["SIGQUIT", 3_000], ["SIGKILL", 3_000]] as const

export const runToEnd = (launch: Launch, until: number): Effect.Effect<void, Failure> =>
  Effect.scoped(Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      launched(launch),
      (child) =>
        signalUntil([["SIGKILL", 3_000]], (signal) => signalGroup(child, signal), hasExited(child))
    )
    const ended = yield* poll(hasExited(child), until - performance.now())
    if (!ended) return yield* failed(launch, "it did not end in time (raise `startTimeout`)")
    const { code, signal } = yield* Deferred.await(child.exited)
    // 127: the program loader did not find a library.
    if (code === 127) {
      return yield* Effect.fail(cannotRun(yield* Effect.promise(() => tail(logFile(launch)))))
    }
    if (code !== 0) return yield* failed(launch, `it ended with ${signal ?? `code ${code}`}`)
  }))

interface PidFile {
  readonly pid: number
  readonly socketDirectory: string
  readonly isReady: boolean
}

export const readPidFile = async (directory: string): Promise<PidFile | undefined> => {
  const text = await fsp.readFile(path.join(directory, "postmaster.pid"), "utf8").catch(() => "")
  const lines = text.split("\n")
  const pid = Number(lines[0])
  return pid > 1
    ? { pid, socketDirectory: lines[4] ?? "", isReady: lines[7]?.trim() === "ready" }
    : undefined
}

const isPostgres = (args: ReadonlyArray<string>): boolean =>
  args.some((arg) => path.basename(arg) === "postgres" || arg.startsWith("postgres: "))

/** Linux: whatever is a Postgres and works in that directory, the server and its children alike. */
const processesBelow = async (directory: string): Promise<ReadonlyArray<number>> => {
  const pids = (await fsp.readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const mine = await Promise.all(pids.map(async (pid) => {
    const cwd = await fsp.readlink(`/proc/${pid}/cwd`).catch(() => undefined)
    if (cwd !== directory) return false
    const command = await fsp.readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")
    return isPostgres(command.split("\0"))
  }))
  return pids.filter((_, index) => mine[index]).map(Number)
}

/** Elsewhere: the recorded process, if its command line says it is a server on that directory. */
const recordedProcess = (directory: string, pid: number): Promise<ReadonlyArray<number>> =>
  new Promise((resolve) => {
    execFile("ps", ["-ww", "-o", "command=", "-p", String(pid)], (error, command) => {
      const is = error === null && /(^|\/)postgres /.test(command) &&
        command.includes(`-D ${directory} `)
      resolve(is ? [pid] : [])
    })
  })

/** The processes of a server on that directory, and nothing else (Embedded-4). */
export const processesOn = async (directory: string): Promise<ReadonlyArray<number>> => {
  if (process.platform === "linux") return processesBelow(directory)
  const recorded = await readPidFile(directory)
  return recorded === undefined ? [] : recordedProcess(directory, recorded.pid)
}

const signalAll = (pids: ReadonlyArray<number>, signal: NodeJS.Signals): void => {
  for (const pid of pids) {
    try {
      process.kill(pid, signal)
    } catch {
      // it has ended meanwhile
    }
  }
}

/**
 * Stops what runs on the directory. The gentle signals go to the server alone, since its children take them otherwise;
 * children without a server are of no use to anybody.
 */
export const stopProcesses = (directory: string): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const left = Effect.promise(() => processesOn(directory))
    const pids = yield* left
    if (pids.length === 0) return true
    const server = (yield* Effect.promise(() => readPidFile(directory)))?.pid
    const none = Effect.map(left, ({ length }) => length === 0)
    const send = (signal: NodeJS.Signals) =>
      Effect.map(left, (now) =>
        signalAll(signal === "SIGKILL" ? now : now.filter((pid) => pid === server), signal))
    const steps = server !== undefined && pids.includes(server) ? shutdown : shutdown.slice(2)
    return yield* signalUntil(steps, send, none)
  })
