/** The program that a certificate prints is run as a user would run it: by node, on the built package. */
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect, RcRef } from "effect"
import { Explore } from "holdfast/Testing"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

const root = path.resolve(import.meta.dirname, "../..")
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
fs.chmodSync(folder, 0o755)
const installed = path.join(folder, "node_modules")
fs.mkdirSync(installed)
fs.symlinkSync(path.join(root, "node_modules", "effect"), path.join(installed, "effect"))
fs.symlinkSync(root, path.join(installed, "holdfast"))
fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const run = (subject: string, program: string) => {
  fs.writeFileSync(path.join(folder, "subject.js"), subject)
  fs.writeFileSync(path.join(folder, "program.js"), program)
  const { status, stderr, stdout } = spawnSync(process.execPath, ["program.js"], {
    cwd: folder,
    encoding: "utf8",
    timeout: 20_000
  })
  return { status, stderr, stdout }
}

describe("a certificate is a program", () => {
  it("that hangs without any explorer (R1)", async () => {
    const subject = {
      name: "forEach",
      body: () => Effect.forEach([1, 2], (n) => Effect.sleep(n), { concurrency: 2 })
    }
    const { findings } = await Explore.interruptions(subject)
    const { program } = await Explore.certify(findings[0]!, subject)
    const text = `import { Effect } from "effect"
export const subject = {
  body: () => Effect.forEach([1, 2], (n) => Effect.sleep(n), { concurrency: 2 })
}`
    expect(run(text, program!)).toEqual({
      status: 1,
      stderr: "",
      stdout: "the interrupted fiber never exits\n"
    })
    // The same program on what is right.
    const right = `import { Effect } from "effect"
export const subject = { body: () => Effect.sleep(1) }`
    expect(run(right, program!)).toMatchObject({ status: 0, stdout: "nothing went wrong\n" })
  })

  it("that leaks without any explorer (R0), as the finding predicts", async () => {
    const subject: Explore.Subject<RcRef.RcRef<unknown, unknown>> = {
      name: "RcRef",
      setup: (probe) => RcRef.make({ acquire: probe.resource("r", { acquireTakes: 50 }) }),
      body: (ref) => Effect.scoped(RcRef.get(ref))
    }
    const { findings } = await Explore.interruptions(subject)
    const text = `import { Effect, RcRef } from "effect"
export const subject = {
  setup: (probe) => RcRef.make({ acquire: probe.resource("r", { acquireTakes: 50 }) }),
  body: (ref) => Effect.scoped(RcRef.get(ref))
}`
    expect(run(text, Explore.toProgram(findings[0]!)!)).toEqual({
      status: 1,
      stderr: "",
      stdout: "r#1 is never released\n"
    })
  })
})
