import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { cli, type Ended, run, temporaryFolder } from "../support/command.ts"

let work = ""
beforeEach(() => {
  work = temporaryFolder()
})
afterEach(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

const repository = path.resolve(cli, "../..")

/** A project that has installed holdfast and, of what it needs, only these packages. */
const install = (packages: ReadonlyArray<string>): string => {
  const modules = path.join(work, "node_modules")
  fs.mkdirSync(path.join(modules, "holdfast"), { recursive: true })
  for (const part of ["dist", "package.json"]) {
    fs.cpSync(path.join(repository, part), path.join(modules, "holdfast", part), {
      recursive: true
    })
  }
  for (const name of packages) {
    // A copy: through a link Node would find what is installed beside the real one.
    fs.cpSync(path.join(repository, "node_modules", name), path.join(modules, name), {
      recursive: true,
      filter: (file) => !/\/(src|dist\/(cjs|dts))$/.test(file)
    })
  }
  return path.join(modules, "holdfast", "dist", "cli.js")
}

const execute = (file: string, args: ReadonlyArray<string>): Promise<Ended> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [file, ...args],
      (_, out, err) => resolve({ code: child.exitCode, signal: child.signalCode, out, err })
    )
  })

describe("the command", { timeout: 60_000 }, () => {
  it("help names the command as it is typed, and has no colours in a pipe", async () => {
    const whole = await run(["--help"])
    expect(whole.code).toBe(0)
    const mirror = await run(["mirror", "--help"])
    expect(mirror.code).toBe(0)
    expect(mirror.out).toContain("$ holdfast mirror --to text")
    const wrong = await run(["mirror", "list", "--frobnicate"])
    for (const { err, out } of [whole, mirror, wrong]) {
      expect(out + err).not.toContain("\u001b")
      expect(out + err).not.toMatch(/\$ mirror/)
    }
  })

  it("without its packages: exit 2, and a line that installs them", async () => {
    const effect = ["effect", "fast-check", "pure-rand", "@standard-schema/spec"]
    const reader =
      "@effect/cli @effect/printer @effect/printer-ansi @effect/typeclass ini toml yaml @effect/platform @effect/platform-node @effect/platform-node-shared"
        .split(" ")
    // Each adds to those before it.
    const none = await execute(install([]), ["--help"])
    const one = await execute(install(effect), ["--help"])
    const readable = install(reader)
    // Help needs what reads the command line, and no more.
    expect((await execute(readable, ["mirror", "--help"])).code).toBe(0)
    const some = await execute(readable, ["mirror", "urls.txt", "--to", path.join(work, "out")])
    for (const ended of [none, one, some]) {
      expect(ended.code, ended.out + ended.err).toBe(2)
      expect(ended.err).toMatch(/^holdfast: the package "@?[\w/-]+" is not installed\./)
      expect(ended.err).toMatch(/ {2}npm i .*"effect@\^3\.\d+\.\d+".*"pg@\^8/)
      expect(ended.err).not.toContain("    at ")
    }
  })
})
