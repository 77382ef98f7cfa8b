/**
 * The examples are tests: each ` ```ts ` fence of the README, of a page in `src` and of a docstring there is type-checked (all in one tsc run),
 * those marked ` ```ts run ` are executed. There `expression // => value` is an assertion, and the comment lines after
 * `// Prints:` are what the example logs. A fence marked `file=test/recipes/x.mjs` is the text of that file, which is tested there.
 *
 * The fences are written to a folder outside the repository whose `node_modules` holds links to ours and to the package
 * itself, so an example imports `holdfast` as a reader would, and gets the sources. Each file is padded with empty lines: an
 * error in `Managed.ts(171,3)` is at line 171 of `src/Managed.ts`.
 */
import { afterAll, describe, expect, it, vi } from "@effect/vitest"
import { execFileSync, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { pathToFileURL } from "node:url"

interface Example {
  readonly source: string
  readonly line: number
  readonly title: string
  readonly run: boolean
  /** The file whose text this is. */
  readonly file: string | undefined
  readonly code: ReadonlyArray<string>
}

const root = path.resolve(import.meta.dirname, "..")

const examplesOf = (source: string): ReadonlyArray<Example> => {
  const lines = fs.readFileSync(path.join(root, source), "utf8").split("\n")
    .map((line) => source.endsWith(".ts") ? line.replace(/^\s*\* ?/, "") : line)
  return lines.flatMap((line, index): ReadonlyArray<Example> => {
    if (!/^```ts\b/.test(line)) return []
    const end = lines.findIndex((other, at) => at > index && other.startsWith("```"))
    const before = lines.slice(0, index).findLast((other) => other.trim() !== "") ?? ""
    return [{
      source,
      line: index + 1,
      title: /^\*\*Example\*\* \((.+)\)/.exec(before)?.[1] ?? "",
      run: /^```ts run\b/.test(line),
      file: /\bfile=(\S+)/.exec(line)?.[1],
      code: lines.slice(index + 1, end)
    }]
  })
}

const sources = fs.readdirSync(path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") || file.endsWith(".md")).toSorted().map((file) =>
    path.posix.join("src", file)
  )
const examples = ["README.md", ...sources]
  .filter((source) => fs.existsSync(path.join(root, source)))
  .flatMap(examplesOf)

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-docs-"))
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

const prepare = (): void => {
  const installed = path.join(folder, "node_modules")
  fs.mkdirSync(installed)
  for (const name of fs.readdirSync(path.join(root, "node_modules"))) {
    if (name.startsWith(".")) continue
    fs.symlinkSync(path.join(root, "node_modules", name), path.join(installed, name))
  }
  fs.symlinkSync(root, path.join(installed, "holdfast"))
  fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ type: "module" }))
  fs.writeFileSync(
    path.join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: path.join(root, "tsconfig.json"),
      compilerOptions: { noUnusedLocals: false, noUnusedParameters: false },
      include: ["*.ts"]
    })
  )
}

/** Writes an example beside the others, its lines where they are in the source. */
const write = (example: Example, suffix: string, code: ReadonlyArray<string>): string => {
  const file = path.join(
    folder,
    `${example.source.replaceAll(/[/.]/g, "-")}-${example.line}${suffix}.ts`
  )
  fs.writeFileSync(file, `${"\n".repeat(example.line)}${code.join("\n")}\nexport {}\n`)
  return file
}

/** `expression // => value` becomes a report of both; a declaration is reported by its name. */
const asserting = (line: string): string => {
  const found = /^(\s*)(.+?)\s*\/\/ => (.+)$/.exec(line)
  if (found === null) return line
  const [, indent, code = "", expected] = found
  const declared = /^(?:const|let) (\w+)\b/.exec(code)?.[1]
  return declared === undefined
    ? `${indent}globalThis.expectExample((${code}), (${expected}))`
    : `${indent}${code}; globalThis.expectExample((${declared}), (${expected}))`
}

/** The lines that the example says it prints; undefined if it says nothing. */
const printsOf = ({ code }: Example): ReadonlyArray<string> | undefined => {
  const from = code.indexOf("// Prints:")
  return from < 0 ? undefined : code.slice(from + 1).map((line) => line.replace(/^\/\/ ?/, ""))
}

describe("examples", () => {
  prepare()

  it("all type-check", () => {
    for (const example of examples) write(example, "", example.code)
    // The compiler of `npm run check`: an example that loses an effect is as wrong as one that does not compile.
    const tsc = execFileSync(
      path.join(root, "node_modules", ".bin", "effect-tsgo"),
      ["get-exe-path"],
      { encoding: "utf8" }
    ).trim()
    const { status, stdout } = spawnSync(tsc, ["-p", folder, "--pretty", "false"], {
      cwd: folder,
      encoding: "utf8"
    })
    expect(stdout).toBe("")
    expect(status).toBe(0)
  })

  for (const example of examples.filter(({ run }) => run)) {
    it(`${example.source}:${example.line} ${example.title}`, async () => {
      Object.assign(globalThis, {
        expectExample: (actual: unknown, expected: unknown) => expect(actual).toEqual(expected)
      })
      const printed: Array<string> = []
      const log = vi.spyOn(console, "log").mockImplementation((line) =>
        void printed.push(`${line}`)
      )
      try {
        await import(pathToFileURL(write(example, ".run", example.code.map(asserting))).href)
      } finally {
        log.mockRestore()
      }
      const prints = printsOf(example)
      if (prints !== undefined) expect(printed).toEqual(prints)
    })
  }

  for (const example of examples.filter(({ file }) => file !== undefined)) {
    it(`${example.source}:${example.line} is ${example.file}`, () => {
      expect(`${example.code.join("\n")}\n`)
        .toBe(fs.readFileSync(path.join(root, example.file!), "utf8"))
    })
  }
})
