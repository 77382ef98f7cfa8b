import { Effect, Either, Exit, Scope } from "effect"
import * as View from "holdfast/Ledger/View"
import * as fs from "node:fs"
import * as path from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import * as Origin from "../../src/cli/origin.ts"
import {
  cli,
  filesBelow,
  run,
  start,
  temporaryFolder,
  until,
  writeList
} from "../support/command.ts"

let work = ""
let out = ""
let ledger = ""
let scope = Effect.runSync(Scope.make())
beforeEach(() => {
  work = temporaryFolder()
  out = path.join(work, "out")
  ledger = path.join(work, "ledger.json")
  scope = Effect.runSync(Scope.make())
})
afterEach(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  fs.rmSync(work, { recursive: true, force: true })
})

const openOrigin = (options: Origin.Options): Promise<Origin.Origin> =>
  Effect.runPromise(Scope.extend(Origin.make(options), scope))
const read = () => Either.getOrThrow(View.parse(fs.readFileSync(ledger, "utf8")))

describe("holdfast mirror --ledger, holdfast view", { timeout: 90_000 }, () => {
  it("Mirror-5: the ledger is written after the last release, and can be looked at", async () => {
    const origin = await openOrigin({ documents: 20, pace: 0 })
    const list = writeList(work, origin.urls)
    const report = path.join(work, "report.json")
    const args = ["mirror", list, "--to", out, "--ledger", ledger, "--report", report]
    const mirrored = await run(args)
    expect(mirrored.code, mirrored.out + mirrored.err).toBe(0)
    const snapshot = read()
    expect(snapshot.live).toEqual([])
    expect(snapshot.total.acquired).toBeGreaterThan(origin.urls.length)
    expect(snapshot.total).toMatchObject(JSON.parse(fs.readFileSync(report, "utf8")).ledger)

    const text = await run(["view", ledger])
    expect(text.code, text.out + text.err).toBe(0)
    expect(text.out).toContain("Nothing is held.")
    const svg = await run(["view", ledger, "--svg"])
    expect(svg.out).toMatch(/^<svg [\s\S]*<\/svg>\n$/)
    const page = path.join(work, "ledger.html")
    expect((await run(["view", ledger, "--html", "--output", page])).code).toBe(0)
    // The page holds functions of the built module, as text.
    const built: typeof View = await import(path.join(path.dirname(cli), "Ledger", "View.js"))
    expect(fs.readFileSync(page, "utf8")).toBe(built.html(snapshot))
    const none = await run(["view", report])
    expect(none.code).toBe(2)
    expect(none.err).toContain("(not a ledger): field holdfast.ledger is missing")
  })

  it("Mirror-5: also when it was stopped half way, and when it failed", async () => {
    const origin = await openOrigin({ documents: 60, pace: 30 })
    const list = writeList(work, origin.urls)
    const args = ["mirror", list, "--to", out, "--ledger", ledger, "--drain", "300 millis"]
    const running = start(args)
    await until("some files", () => fs.existsSync(out) && filesBelow(out).length >= 3)
    running.child.kill("SIGTERM")
    const ended = await running.ended
    expect(ended.code, ended.out + ended.err).toBe(75)
    const stopped = read()
    expect(stopped.live).toEqual([])
    expect(stopped.total.acquired).toBe(stopped.total.released)

    const refused = writeList(work, ["http://127.0.0.1:1/refused"])
    fs.rmSync(ledger)
    const failed = await run(["mirror", refused, "--to", out, "--ledger", ledger, "--retries", "0"])
    expect(failed.code, failed.out + failed.err).toBe(1)
    expect(read().live).toEqual([])
  })

  it("a ledger that could not be written is refused before anything is touched", async () => {
    const list = writeList(work, ["http://127.0.0.1:1/refused"])
    const cases = [
      [list, "it is the list"],
      [work, "it is there and is no regular file"],
      [path.join(work, "no", "ledger.json"), "no file can be made in"]
    ] as const
    for (const [place, said] of cases) {
      const refused = await run(["mirror", list, "--to", out, "--ledger", place])
      expect(refused.code).toBe(2)
      expect(refused.err).toContain(`The ledger cannot be written to ${place}: ${said}`)
    }
    const same = path.join(work, "both.json")
    const both = await run(["mirror", list, "--to", out, "--report", same, "--ledger", same])
    expect(both.err).toContain("it is the report")
    expect(fs.existsSync(out)).toBe(false)
  })
})
