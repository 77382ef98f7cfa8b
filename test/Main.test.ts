import { type ChildProcess, execFile, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"

const program = fileURLToPath(new URL("./support/programs/main.mjs", import.meta.url))

interface Ended {
  readonly code: number | null
  readonly out: ReadonlyArray<string>
  readonly err: string
}

/** Runs one program of support/programs/main.mjs; `onReady` gets the child once it has said so. */
const runProgram = (
  name: string,
  onReady: (child: ChildProcess) => void = () => {}
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, name], { stdio: ["ignore", "pipe", "pipe"] })
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
      resolve({ code, out: out.trim().split("\n"), err })
    })
  })

/** Runs the program as bash tells; `$0` is node, `$1` the program. The code is the program's own, not its reader's. */
const shell = (command: string, ...args: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve) => {
    execFile(
      "bash",
      ["-o", "pipefail", "-c", command, process.execPath, program, ...args],
      { timeout: 20_000 },
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
    it(`Main-1: ${signal} releases and ends with ${code}`, async () => {
      const ended = await runProgram("clean", (child) => child.kill(signal))
      expect(ended).toMatchObject({ code, out: ["+a", "ready", "-a"] })
      expect(ended.err).toContain(`${signal}: letting go`)
    })
  }

  it("Main-1: the same signal twice at once is one (npm's Ctrl-C); the slow release still ends", async () => {
    const ended = await runProgram("slowRelease", (child) => {
      child.kill("SIGINT")
      setTimeout(() => child.kill("SIGINT"), 5)
    })
    expect(ended).toMatchObject({ code: 130, out: ["+slow", "ready", "-slow"] })
  })

  it("Main-1: a later signal forces the exit and names who still holds", async () => {
    const ended = await runProgram("unbounded", (child) => {
      child.kill("SIGINT")
      setTimeout(() => child.kill("SIGINT"), 700)
    })
    expect(ended.code).toBe(130)
    expect(ended.err).toContain("releasing resource \"for ever\"")
  })

  it("Main-2: a hung release is abandoned by name, the outer one still runs", async () => {
    const ended = await runProgram("hungRelease", (child) => child.kill("SIGTERM"))
    expect(ended.out).toEqual(["+outer", "+hung", "ready", "-outer"])
    expect(ended.err).toContain("The release of resource \"hung\" did not end within 300ms")
    expect(ended.code).toBe(143)
  })

  it("Main-2: an unbounded release or a hung acquire never hangs the exit", async () => {
    const unbounded = await runProgram("unbounded", (child) => child.kill("SIGTERM"))
    expect(unbounded.code).toBe(1)
    expect(unbounded.err).toContain("releasing resource \"for ever\"")
    const acquire = await runProgram("hungAcquire", (child) => child.kill("SIGTERM"))
    expect(acquire.code).toBe(1)
    expect(acquire.err).toContain("acquiring resource \"never open\"")
  })

  it("Main-3: a release that fails under a signal is printed, the others run", async () => {
    const ended = await runProgram("brokenRelease", (child) => child.kill("SIGTERM"))
    expect(ended.out).toContain("-outer")
    expect(ended.err).toContain("release broke")
  })

  it("Main-4: a stray throw or rejection releases and ends 1", async () => {
    for (const name of ["stray", "rejection"]) {
      const ended = await runProgram(name)
      expect(ended).toMatchObject({ code: 1, out: ["+a", "-a"] })
      expect(ended.err).toMatch(/stray|unheard/)
    }
  })

  it("Main-2: a draining program ends by itself; past `drain` it is interrupted", async () => {
    const drained = await runProgram("drains", (child) => child.kill("SIGTERM"))
    expect(drained).toMatchObject({ code: 0, out: ["ready", "drained"] })
    const tooLong = await runProgram("drainsTooLong", (child) => child.kill("SIGTERM"))
    expect(tooLong).toMatchObject({ code: 143, out: ["+a", "ready", "-a"] })
  })

  it("an `exitCode` that throws, or gives no code, is told and ends 1 at once", async () => {
    for (const name of ["codeThrows", "codeIsNone"]) {
      const ended = await runProgram(name)
      expect(ended.code).toBe(1)
      expect(ended.err).toMatch(/^No exit code: .*(no code for this|1\.5)/)
      expect(ended.err).not.toContain("forced")
    }
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
    "Main-5: output that is lost to a full disk is told once and makes the code 1; the program goes on",
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
