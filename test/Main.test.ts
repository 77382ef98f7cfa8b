import * as Either from "effect/Either"
import * as View from "holdfast/Ledger/View"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { programs, startOf } from "./support/bundles.ts"

const { env, file: program } = startOf(programs.main)
const source = programs.main.source

interface Ended {
  readonly code: number | null
  readonly out: ReadonlyArray<string>
  readonly err: string
}

const children = new Set<ChildProcess>()
afterAll(() => {
  for (const child of children) child.kill("SIGKILL")
})

/** Runs one program of support/programs/main.mjs; `onReady` gets the child once it has said so. */
const runProgram = (
  name: string,
  onReady: (child: ChildProcess) => void = () => {}
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...name.split(" ")], {
      stdio: ["ignore", "pipe", "pipe"],
      env
    })
    children.add(child)
    let out = ""
    let err = ""
    let seen = false
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString()
      if (!seen && out.includes("ready")) {
        seen = true
        onReady(child)
      }
    })
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString()
    })
    const cap = setTimeout(() => {
      child.kill("SIGKILL")
      reject(new Error(`${name} did not end: ${out} ${err}`))
    }, 20_000)
    child.once("close", (code) => {
      clearTimeout(cap)
      children.delete(child)
      resolve({ code, out: out.trim().split("\n"), err })
    })
  })

/** Sends SIGINT until the child has ended: on a busy machine it may see the first one together with an earlier signal. */
const forceLater = (child: ChildProcess): void => {
  const timer = setInterval(() => child.kill("SIGINT"), 700)
  child.once("close", () => clearInterval(timer))
}

/** Runs a command line of bash; `$0` is node, `$1` the program. The code is the program's, not its reader's. */
const shell = (command: string, ...args: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(
      "bash",
      ["-o", "pipefail", "-c", command, process.execPath, program, ...args],
      { timeout: 20_000, env },
      (error, out, err) =>
        resolve({ code: Number(error?.code ?? 0), out: out.trim().split("\n"), err })
    )
  })

describe.concurrent("Main", () => {
  it("ends 0 on success and 1 with the reason on failure, released", async () => {
    expect(await runProgram("succeeds")).toMatchObject({
      code: 0,
      out: ["+a", "ready", "-a"],
      err: ""
    })
    const failed = await runProgram("fails")
    expect(failed).toMatchObject({ code: 1, out: ["+a", "-a"] })
    expect(failed.err).toContain("no luck")
  })

  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    it(`Main-1, Main-3: ${signal} releases, ends with ${code} and is summed up`, async () => {
      const ended = await runProgram("clean", (child) => child.kill(signal))
      expect(ended).toMatchObject({ code, out: ["+a", "ready", "-a"] })
      const [first, last, ...more] = ended.err.trim().split("\n")
      expect(first).toMatch(
        new RegExp(`^${signal}: process \\d+ is shutting down \\(SIGINT .*to force\\)\\.$`)
      )
      expect(last).toMatch(new RegExp(`^${signal}: 1 released in \\d+\\.\\d s; exit ${code}\\.$`))
      expect(more).toEqual([])
    })
  }

  it("Main-1: the same signal twice at once is one (npm's Ctrl-C); the slow release still ends", async () => {
    const ended = await runProgram("slowRelease", (child) => {
      child.kill("SIGINT")
      // When the first has been printed: two that come at once may arrive as one.
      child.stderr?.once("data", () => child.kill("SIGINT"))
    })
    expect(ended).toMatchObject({ code: 130, out: ["+slow", "ready", "-slow"] })
  })

  it("Main-1: a later SIGINT forces the exit and names the holders with their lines", async () => {
    for (const first of ["SIGINT", "SIGTERM"] as const) {
      const ended = await runProgram("unbounded patient", (child) => {
        child.kill(first)
        forceLater(child)
      })
      expect(ended.code).toBe(130)
      expect(ended.err).toContain("Second signal (SIGINT): forced exit.")
      expect(ended.err).toMatch(/releasing resource "for ever" for \d\.\d s.*main\.mjs:\d+/)
    }
  })

  it("Main-1: two SIGINTs at once are one, even if a synchronous release delays the second handler", async () => {
    const twice = (child: ChildProcess) => {
      child.kill("SIGINT")
      setTimeout(() => child.kill("SIGINT"), 5)
    }
    const once = await runProgram("computes", twice)
    expect(once).toMatchObject({ code: 130, out: ["+slow", "+index", "ready", "-index", "-slow"] })
    expect(once.err).not.toContain("forced")
    const later = await runProgram("computes patient", (child) => {
      twice(child)
      setTimeout(() => child.kill("SIGINT"), 1200)
    })
    expect(later).toMatchObject({ code: 130, out: ["+slow", "+index", "ready", "-index"] })
    expect(later.err).toContain("Second signal (SIGINT): forced exit.")
  })

  it("Main-1: another signal that comes with the first is ignored, which is printed", async () => {
    const ended = await runProgram("slowRelease", (child) => {
      child.kill("SIGTERM")
      setTimeout(() => child.kill("SIGINT"), 100)
    })
    expect(ended).toMatchObject({ code: 143, out: ["+slow", "ready", "-slow"] })
    expect(ended.err).toContain(
      "SIGINT: came with SIGTERM, and is ignored (SIGINT once more to force).\n"
    )
  })

  it("Main-1: a later SIGTERM or SIGHUP changes nothing, unless it is in `forceOn`", async () => {
    const twice = (child: ChildProcess) => {
      child.kill("SIGTERM")
      setTimeout(() => child.kill("SIGTERM"), 900)
      setTimeout(() => child.kill("SIGHUP"), 1000)
    }
    const waited = await runProgram("untilHup patient", twice)
    expect(waited).toMatchObject({ code: 143, out: ["+slow", "ready", "-slow"] })
    expect(waited.err).toContain(
      "SIGTERM: already shutting down, in phase releasing (SIGINT to force)"
    )
    expect(waited.err).toContain("SIGHUP: already shutting down")
    expect(await runProgram("forceOnTerm patient", twice)).toMatchObject({
      code: 143,
      out: ["+slow", "ready"]
    })
  })

  it("Main-2: a hung release is abandoned by name, the outer one still runs", async () => {
    const ended = await runProgram("hungRelease", (child) => child.kill("SIGTERM"))
    expect(ended.out).toEqual(["+outer", "+hung", "ready", "-outer"])
    expect(ended.err).toMatch(/The release of resource "hung" .*did not end within 300ms/)
    expect(ended.err).toMatch(/SIGTERM: 1 released, 1 abandoned in \d+\.\d s; exit 1\./)
    expect(ended.err).toMatch(
      /abandoned resource "hung" after \d+\.\d s, requested at .*main\.mjs:\d+/
    )
    expect(ended.code).toBe(1)
  })

  it("Main-2: one hung release among 1,000 good ones: all are released, it is named with its line", async () => {
    const line = fs.readFileSync(source, "utf8").split("\n")
      .findIndex((text) => text.endsWith("// THE HUNG ONE")) + 1
    const ended = await runProgram("thousand", (child) => child.kill("SIGTERM"))
    expect(ended.code).toBe(1)
    expect(ended.out.filter((said) => said === "-")).toHaveLength(1000)
    expect(ended.err).toMatch(/SIGTERM: 1,000 released, 1 abandoned in \d\.\d s; exit 1\./)
    expect(ended.err).toMatch(new RegExp(`abandoned resource "the hung one".*main\\.mjs:${line}:`))
    expect(ended.err).not.toContain("good")
  })

  it("Main-5: a reader that pauses gets every line of a program whose end overran", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    try {
      // It begins to read when the program prints its last line, with most of the output still in the program.
      const reader = "until grep -q \"exit 1\" \"$2\"; do sleep 0.02; done; grep -c ^-"
      const ended = await shell(
        `"$0" "$1" thousand long 2> "$2" | { ${reader}; }`,
        path.join(folder, "err")
      )
      expect(ended).toMatchObject({ code: 1, out: ["1000"] })
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  })

  it("Main-2: an unbounded release, a hung acquire or an uninterruptible body never hangs the exit", async () => {
    const unbounded = await runProgram("unbounded", (child) => child.kill("SIGTERM"))
    expect(unbounded.code).toBe(1)
    expect(unbounded.err).toMatch(/^ReleaseTimeout: The release of resource "for ever" /m)
    expect(unbounded.err).toMatch(/^ {2}abandoned resource "for ever" after 1\.\d s, requested at/m)
    const acquire = await runProgram("hungAcquire", (child) => child.kill("SIGTERM"))
    expect(acquire.code).toBe(1)
    expect(acquire.err).toContain("acquiring resource \"never open\"")
    expect(acquire.err).toMatch(
      /^ShutdownTimeout: The program did not end within 1s 5\d\dms of being interrupted.*"never open"/m
    )
    expect(acquire.err).not.toContain("    at ")
    const body = await runProgram("uninterruptible", (child) => child.kill("SIGTERM"))
    expect(body.code).toBe(1)
    expect(body.err).toContain("held resource \"a\"")
  })

  it("Main-3: a release that fails under a signal is printed, the others run, and the code is 1", async () => {
    const ended = await runProgram("brokenRelease", (child) => child.kill("SIGTERM"))
    expect(ended.out).toContain("-outer")
    expect(ended.err).toContain("Error: release broke\n")
    expect(ended.err).toContain("SIGTERM: 1 released, 1 failed in")
    expect(ended.err).toMatch(
      /failed resource "broken" after .* s, requested at .*main\.mjs.*: .*release broke/
    )
    expect(ended.code).toBe(1)
  })

  it("a daemon releases what it holds, whether the program ends or is interrupted", async () => {
    const alone = await runProgram("daemon")
    expect(alone).toMatchObject({ code: 0, err: "" })
    expect(alone.out.toSorted()).toEqual(["+a", "+daemon", "-a", "-daemon", "ready"].toSorted())
    const asked = await runProgram("daemon waits", (child) => child.kill("SIGTERM"))
    expect(asked.code).toBe(143)
    expect(asked.out.slice(-2)).toEqual(["-a", "-daemon"])
    const broken = await runProgram("brokenDaemon")
    expect(broken.code).toBe(1)
    expect(broken.err).toContain("the daemon's flush broke")
  })

  it("Main-2, Main-3: hooks run in their phases; one that fails or hangs is reported", async () => {
    const ended = await runProgram("hooks", (child) => child.kill("SIGTERM"))
    expect(ended.out).toEqual(["+a", "ready", "ready false", "stop", "-a"])
    expect(ended.err).toMatch(
      /^Still stopping after \d+\.\d s: 1 onStop hook at .*main\.mjs:\d+:\d+; continuing\.$/m
    )
    expect(ended.err).toMatch(
      /failed onStop hook after \d+\.\d s, registered at .*main\.mjs:\d+:\d+: .*no such room/
    )
    expect(ended.err).toMatch(
      /abandoned onStop hook after \d+\.\d s, registered at .*main\.mjs:\d+/
    )
    expect(ended.code).toBe(1)
  })

  it("a program serves on in a drain delay; work in flight finishes", async () => {
    const delayed = await runProgram("delayed", (child) => child.kill("SIGTERM"))
    expect(delayed).toMatchObject({ code: 143, out: ["+a", "ready", "still serving", "-a"] })
    const flying = await runProgram("inFlight", (child) => child.kill("SIGTERM"))
    expect(flying).toMatchObject({ code: 143, out: ["+a", "ready", "answered", "-a"] })
  })

  it("a drain delay that does not fit is reported at the start; an option that is no duration throws, by its name", async () => {
    expect((await runProgram("misfit")).err).toBe(
      "shutdown: drainDelay 4s, stopTimeout 600ms and releaseTimeout 1s 500ms do not fit in total 5s: "
        + "they get at most 2s 900ms, 600ms and 1s 500ms; raise total.\n"
    )
    expect((await runProgram("badOption")).err).toContain(
      "RangeError: Shutdown.shortfall: `drainDelay` must be a duration, 0 or more"
    )
  })

  it("a callback that runs effects by itself uses the same shutdown: its work finishes", async () => {
    const ended = await runProgram("callback", (child) => child.kill("SIGTERM"))
    expect(ended).toMatchObject({
      code: 143,
      out: ["+a", "ready", "answered, ready false", "-a"]
    })
  })

  it("Main-3: of thousands of holders the one that hangs comes first, equal ones share a line, and the list ends", async () => {
    const ended = await runProgram("crowd", (child) => child.kill("SIGTERM"))
    const lines = ended.err.split("\n")
    const [culprit, alike, ...more] = lines.slice(lines.indexOf("Still held:") + 1)
    expect(culprit).toMatch(/^ {2}acquiring resource "culprit" for \d\.\d s of #\d+, requested at/)
    expect(alike).toMatch(
      /^ {2}3,000 x held resource "connection" for up to \d\.\d s, requested at/
    )
    expect(more.slice(47)).toEqual([
      expect.stringContaining("held resource \"own 47\""),
      "  … and 12 more",
      ""
    ])
    expect(ended.err).toMatch(/^ShutdownTimeout: .* left behind, with resource "culprit"/m)
  })

  it("Main-3: work that overruns is reported with its line: at once, at the end, and in a dump", async () => {
    const lineOf = (mark: string) =>
      fs.readFileSync(source, "utf8").split("\n").findIndex((text) => text.endsWith(mark)) + 1
    const ended = await runProgram("tooLong", (child) => {
      child.kill("SIGUSR2")
      setTimeout(() => child.kill("SIGTERM"), 300)
    })
    const flying = `3 in flight at .*main\\.mjs:${lineOf("// IN FLIGHT")}:\\d+\\)?`
    const draining = `1 draining at .*main\\.mjs:${lineOf("// DRAINS")}:\\d+\\)?`
    expect(ended.err).toMatch(
      new RegExp(`Marked:\n  ${flying}, for \\d+\\.\\d s\n  ${draining}, for \\d+\\.\\d s\n`)
    )
    expect(ended.err).toMatch(
      new RegExp(
        `^Still stopping after \\d+\\.\\d s: ${flying}, ${draining}; continuing\\.$`,
        "m"
      )
    )
    expect(ended.err).toMatch(
      new RegExp(
        `^SIGTERM: 1 released in \\d+\\.\\d s; stopping overran with ${flying}, ${draining}; exit 1\\.$`,
        "m"
      )
    )
  })

  it("a program may ask for its own end; a release can read how far the end has come", async () => {
    const asked = await runProgram("asksItself")
    expect(asked).toMatchObject({ code: 0, out: ["+a", "ready", "-a"] })
    expect(asked.err).toContain("Asked for by the operator: 1 released")
    const seen = await runProgram("seesReason", (child) => child.kill("SIGTERM"))
    expect(seen.out[1]).toBe("[\"running\",\"draining\",\"stopping\",\"releasing\"]")
  })

  it("Main-6: SIGUSR2 prints holders, deadlocks and fibers, and nothing ends", async () => {
    const ended = await runProgram("deadlock", (child) => {
      child.kill("SIGUSR2")
      setTimeout(() => child.kill("SIGTERM"), 300)
    })
    expect(ended).toMatchObject({ code: 143, out: ["+a", "ready", "-a"] })
    const [dumped] = ended.err.split("SIGTERM")
    expect(dumped).toMatch(/^SIGUSR2: process \d+, in phase running\.\nStill held:\n/)
    expect(dumped).toMatch(
      / {2}held resource "a" for \d\.\d s of #\d+, requested at .*main\.mjs:\d+/
    )
    expect(dumped).toMatch(
      / {2}acquiring mutex "two" for .* of #\d+; waits for mutex "two" of #\d+/
    )
    expect(dumped).toMatch(/Deadlock: fiber #\d+ waits/)
    expect(dumped).toMatch(
      /Fibers:\n(.*\n)* {2}#\d+ \(main\) suspended for \d\.\d s, in a span\n {4}#\d+ suspended/
    )
  })

  it("`leakAfter`: a resource held for longer is reported once, with its line", async () => {
    const ended = await runProgram("leaks", (child) => child.kill("SIGTERM"))
    expect(ended.code).toBe(143)
    expect(ended.err.match(
      /^Held for more than 200ms: resource "a" \(held\) of fiber #\d+, requested at .*main\.mjs:\d+:\d+.*\.$/gm
    )).toHaveLength(1)
    const off = await runProgram("leaks off", (child) => child.kill("SIGTERM"))
    expect(off.err).not.toContain("Held for more")
  })

  it("Main-7: the ledger is saved after the last release, whole, however the end came", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    const entriesAfter = async (name: string, onReady?: (child: ChildProcess) => void) => {
      const file = path.join(folder, name.replaceAll(" ", "-"))
      fs.writeFileSync(file, "before")
      const before = fs.openSync(file, "r")
      await runProgram(`${name} --ledger=${file}`, onReady)
      // The file was replaced, not written over.
      expect(fs.readFileSync(before, "utf8")).toBe("before")
      fs.closeSync(before)
      const { ended, live } = Either.getOrThrow(View.parse(fs.readFileSync(file, "utf8")))
      return [...live, ...ended].map(({ name, state }) => `${state} ${name}`)
    }
    try {
      const sigterm = (child: ChildProcess) => child.kill("SIGTERM")
      const forced = (child: ChildProcess) => {
        child.kill("SIGTERM")
        forceLater(child)
      }
      const entries = await Promise.all([
        entriesAfter("clean", sigterm),
        entriesAfter("hungRelease", sigterm),
        entriesAfter("exits"),
        entriesAfter("unbounded patient", forced)
      ])
      expect(entries).toEqual([
        ["released a"],
        ["abandoned hung", "released outer"],
        ["held a"],
        ["releasing for ever"]
      ])
      expect(fs.readdirSync(folder)).toHaveLength(4)
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  })

  it("Main-7: a ledger that cannot be saved is reported, makes a code of 0 a 1 and leaves any other as it is", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    try {
      // A folder stands where the file should be: it is written beside, but cannot get its name.
      fs.mkdirSync(path.join(folder, "taken"))
      const ended = await Promise.all([
        runProgram(`succeeds --ledger=${folder}/taken`),
        runProgram(`fails --ledger=${folder}/missing/file`),
        runProgram(`clean --ledger=${folder}/taken`, (child) => child.kill("SIGTERM"))
      ])
      expect(ended.map(({ code }) => code)).toEqual([1, 1, 143])
      for (const { err } of ended) expect(err).toMatch(/^The ledger is not saved to .*: Error: E/m)
      expect(fs.readdirSync(folder)).toEqual(["taken"])
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  })

  it("Main-8: with `onExit` programs follow each other in a process, which keeps nothing of them", async () => {
    const { code, err, out } = await shell(`"$0" "$2"`, startOf(programs.again).file)
    const endedWith = (code: number, lines: number) => ({
      code,
      isReady: true,
      listened: true,
      left: false,
      lines
    })
    expect(err).toBe("")
    expect(out.map((line) => line.startsWith("{") ? JSON.parse(line) as unknown : line)).toEqual([
      endedWith(143, 2),
      endedWith(0, 0),
      endedWith(129, 2),
      endedWith(130, 4),
      expect.stringMatching(/^Main\.run: this process has a program already/),
      endedWith(1, 1)
    ])
    expect(code).toBe(7)
  })

  it("Main-6: nothing is held while it runs; a fiber does not wait for itself", async () => {
    const dumpOf = async (name: string) =>
      (await runProgram(name, (child) => {
        child.kill("SIGUSR2")
        setTimeout(() => child.kill("SIGTERM"), 300)
      })).err
    expect(await dumpOf("nothing")).toMatch(/^SIGUSR2: .*\.\nNothing is held\.\nFibers:\n/)
    expect(await dumpOf("tooLong")).toMatch(/^ {2}#\d+ \(main\) suspended for/m)
  })

  it("Main-3: an abandoned release that is only reported makes the code 1 and is summed up, however the end came", async () => {
    const asked = await runProgram("reported waits", (child) => child.kill("SIGTERM"))
    const alone = await runProgram("reported")
    for (const [ended, why] of [[asked, "SIGTERM"], [alone, "End"]] as const) {
      expect(ended.code).toBe(1)
      expect(ended.err).toMatch(
        new RegExp(`^${why}: 0 released, 1 abandoned in .* s; exit 1\\.$`, "m")
      )
      expect(ended.err).toMatch(/^ {2}abandoned resource "hung" after \d+\.\d s, requested at/m)
    }
  })

  it("Main-3: a release that failed makes the code 1, also where it is only reported", async () => {
    const ended = await runProgram("failureReported waits", (child) => child.kill("SIGTERM"))
    expect(ended.code).toBe(1)
    expect(ended.err).toMatch(/^SIGTERM: 0 released, 1 failed in \d\.\d s; exit 1\.$/m)
    expect(ended.err).toMatch(/^ {2}failed resource "broken" .*: release broke$/m)
    const alone = await runProgram("failureReported")
    expect(alone.code).toBe(1)
    expect(alone.err).toMatch(/^End: .* in \d\.\d s; 1 not released, as was reported; exit 1\.$/m)
  })

  it("Main-3: a release that went wrong and is only reported makes the code 1, whatever the ledger knows", async () => {
    const sigterm = (child: ChildProcess) => child.kill("SIGTERM")
    for (
      const [name, what] of [
        ["reported waits noLedger", "ended"],
        ["failureReported waits noLedger", "ended"],
        ["ownLedger", "0 released"]
      ] as const
    ) {
      const ended = await runProgram(name, sigterm)
      expect(ended.code).toBe(1)
      expect(ended.err).toMatch(
        new RegExp(
          `^SIGTERM: ${what} in \\d\\.\\d s; 1 not released, as was reported; exit 1\\.$`,
          "m"
        )
      )
    }
    expect((await runProgram("failureReported noLedger")).code).toBe(1)
  })

  it("Main-3: an error that cannot be shown hides nothing else", async () => {
    const failed = await runProgram("circularFailure")
    expect(failed).toMatchObject({ code: 1, out: ["+a", "-a"] })
    expect(failed.err).toMatch(/^Error: no end\n {4}at circular/)
    const unreadable = await runProgram("unreadable")
    expect(unreadable).toMatchObject({ code: 1, out: ["+a", "-a"] })
    expect(unreadable.err).toBe("something that cannot be shown\n")
    const released = await runProgram("circularRelease", (child) => child.kill("SIGTERM"))
    expect(released).toMatchObject({ code: 1, out: ["+outer", "+broken", "ready", "-outer"] })
    expect(released.err).toMatch(/^Error: no end\n {4}at circular/m)
    expect(released.err).toMatch(
      /^SIGTERM: 1 released, 1 failed in .*\n {2}failed resource "broken" .*: no end$/m
    )
    const hook = await runProgram("circularHook", (child) => child.kill("SIGTERM"))
    expect(hook).toMatchObject({ code: 1, out: ["+a", "ready", "-a"] })
    expect(hook.err).toMatch(/^SIGTERM: 1 released in .*\n {2}failed onStop hook .*: no end$/m)
    expect((await runProgram("isPrintedThrows")).err).toMatch(
      /^isPrinted: Error: not mine\n(.*\n)+Error: no luck\n/
    )
  })

  it("Main-2, Main-3: if the shutdown itself fails, earlier trouble is still printed", async () => {
    const ended = await runProgram("brokenShutdown", (child) => {
      child.kill("SIGUSR2")
      setTimeout(() => child.kill("SIGTERM"), 300)
    })
    expect(ended.code).toBe(1)
    expect(ended.err).toMatch(
      /^The marked work cannot be shown: Error: no report\n(.*\n)+Fibers:\n/m
    )
    expect(ended.err).toMatch(/^Main-2: the shutdown itself failed\. Error: no report$/m)
    expect(ended.err).toMatch(/^ {2}abandoned resource "hung" after \d+\.\d s, requested at/m)
    expect(ended.err).toMatch(/\nBroken: forced exit\.\nNothing is held any more\.\n$/)
  })

  it("a second `Main.run` in the process is refused, and the first continues", async () => {
    const ended = await runProgram("twice", (child) => child.kill("SIGTERM"))
    expect(ended).toMatchObject({
      code: 143,
      out: [
        "+a",
        "refused: Main.run: this process has a program already. Run this one inside it: `Shutdown.run`, or a fiber of it.",
        "ready",
        "-a"
      ]
    })
    expect(ended.err.trim().split("\n")).toHaveLength(2)
  })

  it("Main-3: a `process.exit` of the program's own is printed with the holders; after a request it is no success", async () => {
    const early = await runProgram("exits")
    expect(early.code).toBe(0)
    expect(early.err).toMatch(
      /^process\.exit\(0\) was called in phase running\.\nStill held:\n {2}held resource "a".*\n$/
    )
    const rude = await runProgram("releaseExits", (child) => child.kill("SIGTERM"))
    expect(rude).toMatchObject({ code: 1, out: ["+outer", "+rude", "ready"] })
    expect(rude.err).toMatch(
      /\nprocess\.exit\(0\) was called in phase releasing\.\nStill held:\n {2}releasing resource "rude".*\n {2}held resource "outer".*\n$/
    )
    const seven = await runProgram("releaseExits seven", (child) => child.kill("SIGTERM"))
    expect(seven.code).toBe(7)
    expect(seven.err).toContain("process.exit(7) was called in phase releasing.")
  })

  it("Main-3: the error that a program asks for its end by is printed, once", async () => {
    for (const name of ["asksForError", "asksForError fails"]) {
      const ended = await runProgram(name)
      expect(ended).toMatchObject({ code: 1, out: ["+a", "ready", "-a"] })
      expect(ended.err.match(/the queue is gone/g)).toHaveLength(1)
      expect(ended.err).toMatch(/^Asked to end for an error: Error: the queue is gone\n {4}at/)
      expect(ended.err).toMatch(/\nError: \d released in \d\.\d s; exit 1\.\n$/)
    }
  })

  it("Main-6: of many fibers only the first are printed", async () => {
    const { err } = await runProgram("manyFibers", (child) => {
      child.kill("SIGUSR2")
      setTimeout(() => child.kill("SIGTERM"), 300)
    })
    const [dumped] = err.split("SIGTERM")
    expect(dumped).toMatch(/\nFibers:\n( {2}.*\n){51}$/)
    expect(dumped).toMatch(/ {2}… and 151 more\n$/)
  })

  it("Main-3, Main-6: no name forges a line or moves the cursor of a terminal", async () => {
    const { err } = await runProgram("forges", (child) => {
      child.kill("SIGUSR2")
      setTimeout(() => child.kill("SIGTERM"), 300)
    })
    const name = "resource \"\\u{1b}[31mred SIGTERM: 5 released; exit 0.\""
    expect(err).toContain(`  held ${name} for`)
    expect(err).toContain(`  failed ${name} after`)
    expect(err).not.toMatch(/^SIGTERM: 5/m)
    expect(err).not.toContain("\u001b")
  })

  it("Main-3: no control character of a time-out, a failure or a fiber reaches the terminal, and none forges a line", async () => {
    const { code, err } = await runProgram("forgesErrors", (child) => child.kill("SIGTERM"))
    expect(code).toBe(1)
    expect(err).toContain(
      "ReleaseTimeout: The release of resource \"\\u{9b}31m SIGTERM: 5 released"
    )
    expect(err).toContain("Error: \\u{1b}[2J\\u{9b}2J\n  SIGTERM: 6 released")
    expect(err).toMatch(/ {2}fiber #\d+ was left behind and failed: .*\\u\{9b\}3J\n {2}SIGTERM: 7/)
    expect(err).not.toMatch(/^SIGTERM: [567]/m)
    // oxlint-disable-next-line no-control-regex
    expect(err).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
  })

  it("lines go to the Logger that the program has configured; failures also to standard error", async () => {
    const entries = ({ out }: Ended) =>
      out.filter((line) => line.startsWith("{")).map((line) =>
        JSON.parse(line) as { readonly logLevel: string; readonly message: string }
      )
    const asked = await runProgram("logs", (child) => child.kill("SIGTERM"))
    expect(asked).toMatchObject({ code: 143, err: "" })
    expect(entries(asked).map(({ logLevel }) => logLevel)).toEqual(["INFO", "INFO"])
    expect(entries(asked)[0]!.message).toMatch(/^SIGTERM: process \d+ is shutting down/)
    expect(entries(asked)[1]!.message).toMatch(/^SIGTERM: 1 released in .* s; exit 143\.$/)
    const failed = await runProgram("logsFailure")
    expect(failed.code).toBe(1)
    expect(failed.err).toMatch(/^Error: no luck\n/)
    expect(entries(failed)).toEqual([expect.objectContaining({ logLevel: "ERROR" })])
    const thrown = await runProgram("loggerThrows", (child) => child.kill("SIGTERM"))
    expect(thrown.code).toBe(143)
    expect(thrown.err).toMatch(/^SIGTERM: process \d+ is .*\nSIGTERM: 1 released in .*\n$/)
  })

  it("a program that interrupts every fiber of the process ends like an interrupted one, and prints so", async () => {
    const ended = await runProgram("interruptsAll")
    expect(ended).toMatchObject({ code: 1, out: ["+a", "ready", "-a"] })
    expect(ended.err).toBe("All fibers interrupted without errors.\n")
  })

  it("Main-3: without a ledger the end is still summed up", async () => {
    const ended = await runProgram("noLedger", (child) => child.kill("SIGTERM"))
    expect(ended.err).toMatch(/SIGTERM: ended in \d+\.\d s; exit 143\.\n$/)
  })

  it("Main-4: a stray throw or rejection releases and ends 1", async () => {
    for (const name of ["stray", "rejection"]) {
      const ended = await runProgram(name)
      expect(ended).toMatchObject({ code: 1, out: ["+a", "-a"] })
      expect(ended.err).toMatch(/stray|unheard/)
      expect(ended.err).toMatch(/\nStray error: 1 released in \d\.\d s; exit 1\.\n$/)
    }
  })

  it("Main-4: a stray throw while releasing makes the code 1, and the slow release still ends", async () => {
    const ended = await runProgram("strayLater", (child) => child.kill("SIGTERM"))
    expect(ended).toMatchObject({ code: 1, out: ["+slow", "ready", "-slow"] })
    expect(ended.err).toContain("late stray")
  })

  it("Main-9: what a stock operator shares is released after the last of its items that was interrupted", async () => {
    const ended = await runProgram("shares", (child) => child.kill("SIGTERM"))
    expect(ended).toMatchObject({ code: 143, out: ["+a", "ready", "commit 1", "commit 2", "-a"] })
  })

  it("a drained batch makes the code 75 if the end was asked for; a batch that stops by itself does not", async () => {
    const asked = await runProgram("batch asks")
    expect(asked.code).toBe(75)
    expect(asked.err).toMatch(
      /^Asked for by an item: .*; 1 drained, run again for the rest; exit 75\.$/m
    )
    expect((await runProgram("batch")).code).toBe(0)
  })

  it("Main-2: a draining program ends by itself, with the signal's code or its own; past `stopTimeout` it is interrupted", async () => {
    const drained = await runProgram("drains", (child) => child.kill("SIGTERM"))
    expect(drained).toMatchObject({ code: 143, out: ["ready", "drained"] })
    expect((await runProgram("drained", (child) => child.kill("SIGTERM"))).code).toBe(75)
    const tooLong = await runProgram("drainsTooLong", (child) => child.kill("SIGTERM"))
    expect(tooLong).toMatchObject({ code: 1, out: ["+a", "ready", "-a"] })
    expect(tooLong.err).toContain("Still stopping after 0.6 s")
  })

  it("an `exitCode` that throws, or gives no code, is reported and ends 1 at once", async () => {
    for (const name of ["codeThrows", "codeIsNone", "codeTooBig"]) {
      const ended = await runProgram(name)
      expect(ended.code).toBe(1)
      expect(ended.err).toMatch(/^No exit code: .*(no code for this|1\.5|256)/m)
      expect(ended.err).not.toContain("forced")
    }
  })

  it("Main-4: a stray throw after the end makes the code 1; so does the release of a daemon that fails", async () => {
    const late = await runProgram("strayAfter")
    expect(late).toMatchObject({ code: 1, out: ["ready"] })
    expect(late.err).toContain("late stray")
    const daemon = await runProgram("daemonBreaks")
    expect(daemon.code).toBe(1)
    expect(daemon.err).toContain("daemon broke")
  })

  it("Main-2: a `print` that rejects changes nothing", async () => {
    const ended = await runProgram("printRejects", (child) => child.kill("SIGTERM"))
    expect(ended).toMatchObject({ code: 143, out: ["+a", "ready", "-a"] })
    expect(ended.err).not.toContain("Stray")
  })

  it("Main-5: readers that leave change nothing: the program ends as it would have", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    try {
      const proof = path.join(folder, "proof")
      for (const pipe of ["| head -1", "2>&1 | head -1", "2>/dev/null >&2 | true"]) {
        const ended = await shell(`"$0" "$1" talks "$2" ${pipe}`, proof)
        expect([pipe, ended.code, ended.err.includes("EPIPE")]).toEqual([pipe, 0, false])
        expect(fs.readFileSync(proof, "utf8")).toBe("whole")
        fs.rmSync(proof)
      }
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  })

  it.skipIf(!fs.existsSync("/dev/full"))(
    "Main-5: output lost to a full disk is reported once and makes the code 1; the program continues",
    async () => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
      try {
        const proof = path.join(folder, "proof")
        const ended = await shell(`"$0" "$1" talks "$2" > /dev/full`, proof)
        expect(ended.code).toBe(1)
        expect(ended.err.match(/Standard output is lost: ENOSPC/g)).toHaveLength(1)
        expect(fs.readFileSync(proof, "utf8")).toBe("whole")
        expect((await shell(`"$0" "$1" talks "$2" > /dev/full 2>&1`, proof)).code).toBe(1)
      } finally {
        fs.rmSync(folder, { recursive: true })
      }
    }
  )

  it("a forgotten handle does not keep the process; the exit code may be the program's own", async () => {
    expect((await runProgram("leftHandle")).code).toBe(0)
    expect((await runProgram("ownCode")).code).toBe(7)
  })
})
