import { NodeFileSystem } from "@effect/platform-node"
import { afterAll, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Ledger, Managed } from "holdfast"
import * as View from "holdfast/Ledger/View"
import * as fs from "node:fs"
import * as path from "node:path"
import * as CliView from "../../src/cli/view.ts"
import { temporaryFolder } from "../support/command.ts"

const folder = temporaryFolder()
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))
const inFolder = (name: string): string => path.join(folder, name)

const lamp = Managed.make({
  name: "desk",
  kind: "lamp",
  acquire: Effect.void,
  release: () => Effect.void
})
const snapshot = Effect.runSync(Effect.provide(
  Managed.use(lamp, () => Ledger.snapshot),
  Ledger.layer({ sites: "off" })
))
const written = inFolder("ledger.json")
fs.writeFileSync(written, View.json(snapshot))

/** What the command says, and its exit code. */
const show = async (options: Partial<CliView.Options>) => {
  const lines: Array<string> = []
  const errors: Array<string> = []
  const code = await Effect.runPromise(
    CliView.view(
      {
        ledger: written,
        html: false,
        svg: false,
        text: false,
        output: undefined,
        width: undefined,
        ...options
      },
      {
        line: (text) => Effect.sync(() => void lines.push(text)),
        document: (text) => Effect.sync(() => void lines.push(text)),
        error: (text) => Effect.sync(() => void errors.push(text)),
        progress: { isTTY: false, write: () => true }
      }
    ).pipe(Effect.provide(NodeFileSystem.layer))
  )
  return { code, out: lines.join("\n"), err: errors.join("\n") }
}

describe("holdfast view", () => {
  it("shows text by default, as wide as the terminal", async () => {
    const { code, out } = await show({})
    expect(code).toBe(0)
    expect(`${out}\n`).toBe(View.text(snapshot))
    expect(await show({ text: true })).toEqual({ code: 0, out, err: "" })
    const narrow = await show({ width: 40 })
    expect(Math.max(...narrow.out.split("\n").map((line) => line.length))).toBe(40)
  })

  it("writes a page or a timeline, to standard output or a file", async () => {
    expect(await show({ svg: true })).toEqual({
      code: 0,
      out: View.svg(snapshot).trimEnd(),
      err: ""
    })
    const page = inFolder("ledger.html")
    expect(await show({ html: true, output: page })).toEqual({ code: 0, out: "", err: "" })
    expect(fs.readFileSync(page, "utf8")).toBe(View.html(snapshot))
  })

  it("CliView-1: a file that is no ledger changes nothing; the error names the fault, and the exit code is 2", async () => {
    const page = inFolder("untouched.html")
    fs.writeFileSync(page, "as it was")
    const cases: ReadonlyArray<readonly [string, string, RegExp]> = [
      ["binary.json", "\u0000\u0001", /binary\.json: .*\(not JSON\)/],
      ["empty.json", "", /\(not JSON\)/],
      [
        "other.json",
        "{\"name\":\"holdfast\"}",
        /\(not a ledger\): field holdfast\.ledger is missing\./
      ],
      ["bare.json", "{}", /field holdfast\.ledger is missing/],
      ["newer.json", "{\"holdfast\":{\"ledger\":2}}", /expected 1, got 2.*newer/],
      [
        "broken.json",
        View.json(snapshot).replace("\"held\"", "\"hold\""),
        /\(wrong field at live\[0\]\.state\)/
      ]
    ]
    for (const [name, content, said] of cases) {
      fs.writeFileSync(inFolder(name), content)
      const { code, err, out } = await show({ ledger: inFolder(name), html: true })
      expect(code, name).toBe(2)
      expect(err, name).toMatch(said)
      // Where the page would go: that may be a file.
      expect(out, name).toBe("")
    }
    const missing = inFolder("missing.json")
    expect(await show({ ledger: missing, output: page })).toEqual({
      code: 2,
      out: "",
      err: `holdfast: ${missing}: There is no such file.`
    })
    expect((await show({ ledger: folder })).err).toMatch(/Could not read .*EISDIR/)
    expect(fs.readFileSync(page, "utf8")).toBe("as it was")
  })

  it("one view at a time, and into a folder that is there", async () => {
    expect(await show({ html: true, svg: true })).toEqual({
      code: 2,
      out: "",
      err: "holdfast: --html and --svg at once: ask for one view."
    })
    const nowhere = await show({ html: true, output: inFolder("no/such/page.html") })
    expect(nowhere.code).toBe(2)
    expect(nowhere.err).toContain("ENOENT")
  })
})
