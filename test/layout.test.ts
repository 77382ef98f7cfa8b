/**
 * The rules of the house that no linter says: who may import whom, what stands before a mask, and that each invariant is
 * stated, tested and promised (test/GUARANTEES.md) under one id. Plain text, no parser.
 */
import { expect, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { goals } from "../bench/goals.ts"
import { keyOf } from "../bench/results.ts"

/** The core modules; each may import those before it. */
const cores = [
  "Deadline",
  "Ledger",
  "Shutdown",
  "Managed",
  "Nursery",
  "Parallel",
  "ExitStack",
  "Semaphore",
  "Mutex",
  "RwLock",
  "RateLimiter",
  "Shared",
  "Pool",
  "Lock",
  "Job",
  "Batch"
]

/** Modules in a core's folder that are adapters, with their own folders; all others there belong to the core. */
const adapters = /^(Ledger\/View|Lock\/(Postgres|Redis|File)|Batch\/(Postgres|Cluster))(\/|$)/

/** Where the core that a module belongs to stands in the list; -1 for any other module. */
const rankOf = (name: string): number =>
  adapters.test(name) ? -1 : cores.indexOf(name.split("/", 1)[0]!)

const root = path.resolve(import.meta.dirname, "..")
const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8")
const filesUnder = (folder: string): ReadonlyArray<string> =>
  fs.readdirSync(path.join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .map((file) => path.posix.join(folder, file))
    .toSorted()

const isComment = (line: string) => /^\s*(\/\/|\/\*|\*)/.test(line)

interface Module {
  /** `src/Lock/Postgres.ts` */
  readonly file: string
  /** `Lock/Postgres` */
  readonly name: string
  readonly lines: ReadonlyArray<string>
  /** The lines that are not comments: examples in docstrings import and mask as they like. */
  readonly code: string
  /** The first docstring. */
  readonly head: string
}

const modules = filesUnder("src").map((file): Module => {
  const text = read(file)
  const lines = text.split("\n")
  return {
    file,
    name: file.slice("src/".length, -".ts".length),
    lines,
    code: lines.filter((line) => !isComment(line)).join("\n"),
    head: /^(?:#!.*\n)?\/\*\*[\s\S]*?\*\//.exec(text)?.[0] ?? ""
  }
})
const testFiles = filesUnder("test")

const importsOf = ({ code }: Module) =>
  Array.from(code.matchAll(/(?:\bfrom|\bimport\(?)\s*"([^"]+)"/g), (found) => found[1]!)

/** A relative import as the name of the module it means. */
const target = (from: Module, specifier: string) =>
  path.posix.join(path.posix.dirname(from.name), specifier).replace(/\.ts$/, "")

const packageJson = JSON.parse(read("package.json")) as {
  readonly dependencies?: Record<string, string>
  readonly peerDependencies: Record<string, string>
}
const declared = Object.keys({ ...packageJson.dependencies, ...packageJson.peerDependencies })

const mayImport = (from: Module, specifier: string): boolean => {
  if (specifier.startsWith("effect/")) return true
  const to = specifier.startsWith(".") ? target(from, specifier) : undefined
  // Nothing imports Testing but the command that explores.
  if (to?.startsWith("Testing")) return /^(Testing|cli\/explore$)/.test(from.name)
  if (from.name.startsWith("internal/")) return to?.startsWith("internal/") ?? false
  if (from.name === "index") return to !== undefined && cores.includes(to)
  const rank = rankOf(from.name)
  if (rank >= 0) {
    return to !== undefined
      && (to.startsWith("internal/") || (rankOf(to) >= 0 && rankOf(to) <= rank))
  }
  // Adapters, the command, Testing: any public module, and what the package declares.
  if (to !== undefined) {
    return to !== "index" && (from.name.startsWith("Testing") || !to.startsWith("internal/"))
  }
  return specifier.startsWith("node:")
    || declared.some((name) => specifier === name || specifier.startsWith(`${name}/`))
}

it("imports point down: internal, then the cores in order, then the adapters; Testing on top", () => {
  const wrong = modules.flatMap((module) =>
    importsOf(module).filter((specifier) => !mayImport(module, specifier))
      .map((specifier) => `${module.file} imports ${specifier}`)
  )
  expect(wrong).toEqual([])
})

it("src builds on none of the primitives that leak, hang or stampede", () => {
  const banned =
    /\b(makeSemaphore|unsafeMakeSemaphore|withEarlyRelease)\b|\b(RcRef|ScopedRef|ScopedCache)\.|"effect\/(RcRef|ScopedRef|ScopedCache|Pool|KeyedPool)"/
  const found = modules.filter(({ code }) => banned.test(code)).map(({ code, file }) =>
    `${file}: ${banned.exec(code)?.[0]}`
  )
  expect(found).toEqual([])
})

it("each uninterruptible region says why, in the six lines before it", () => {
  const silent = modules.flatMap(({ file, lines }) =>
    lines.flatMap((line, index) =>
      !isComment(line) && /\buninterruptible(Mask)?\b(?=[(,)]|$)/.test(line)
        && !/^\s*import\b/.test(line)
        && !lines.slice(Math.max(0, index - 6), index).some((before) => before.includes("// MASK:"))
        ? [`${file}:${index + 1}`]
        : []
    )
  )
  expect(silent).toEqual([])
})

/** Whether a call of `Effect.async` on this line returns a canceler, by the indentation of its body. */
const returnsCanceler = (lines: ReadonlyArray<string>, at: number): boolean => {
  const indent = /^ */.exec(lines[at]!)![0]
  const end = lines.findIndex((line, index) =>
    index > at && line.startsWith(`${indent}}`) && line.trim() !== ""
  )
  return lines.slice(at + 1, end).some((line) =>
    line.startsWith(`${indent}  return `) && !line.startsWith(`${indent}  return resume(`)
  )
}

it("each canceler that `Effect.async` installs two operations late says why that does no harm, or Registration.wait is used", () => {
  const silent = modules.flatMap(({ file, lines }) =>
    lines.flatMap((line, at) =>
      !isComment(line) && /\bEffect\.async\b/.test(line) && returnsCanceler(lines, at)
        && !lines.slice(Math.max(0, at - 6), at).some((before) => before.includes("// WINDOW:"))
        ? [`${file}:${at + 1}`]
        : []
    )
  )
  expect(silent).toEqual([])
})

it("a file is named after its concept", () => {
  const vague = /\b(utils?|common|helpers?|core|manager|inner|misc)\b/i
  const files = ["src", "test", "bench"].flatMap(filesUnder)
  expect(files.filter((file) => vague.test(file.replace(/([a-z])([A-Z])/g, "$1 $2")))).toEqual([])
})

it("the top of the repository holds what a newcomer expects", () => {
  const allowed = new Set([
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "src",
    "test",
    "bench",
    // Made by tools, not committed.
    "node_modules",
    "dist",
    "out",
    "holdfast-demo"
  ])
  const strangers = fs.readdirSync(root)
    .filter((name) => !allowed.has(name) && !name.startsWith(".") && !name.endsWith(".tgz"))
  expect(strangers).toEqual([])
})

it("the README stays short: 400 lines, 25 kB", () => {
  const readme = read("README.md")
  expect(readme.split("\n").length - 1).toBeLessThanOrEqual(400)
  expect(Buffer.byteLength(readme)).toBeLessThanOrEqual(25_000)
})

it("the README's install lines name each peer at a version that the package accepts, and effect@3", () => {
  const lines = read("README.md").split("\n").filter((line) => line.startsWith("npm i "))
  const named = new Map(
    lines.flatMap((line) => Array.from(line.matchAll(/(@?[\w/-]+)@(\d[\w.-]*)/g)))
      .map(([, name = "", version]) => [name, version])
  )
  const wrong = Object.entries(packageJson.peerDependencies)
    .filter(([name, range]) => !`${range}.`.startsWith(`^${named.get(name)}.`))
  expect(wrong).toEqual([])
  expect(lines.filter((line) => !line.includes("effect@3"))).toEqual([])
})

it("the README links to files that exist", () => {
  const targets = Array.from(read("README.md").matchAll(/\]\(([^):]+)\)/g), ([, target]) => target!)
  expect(targets.length).toBeGreaterThan(5)
  expect(targets.filter((target) => !fs.existsSync(path.join(root, target)))).toEqual([])
})

it("bench/RESULTS.md has one row for each goal (npm run bench -- goals)", () => {
  const rows = Array.from(
    read("bench/RESULTS.md").matchAll(/^(\| .+? \| .+? \|) .+ \| (?:yes|\*\*no\*\*) \|$/gm),
    ([, key]) => key
  )
  expect(rows).toEqual(Object.values(goals).map(keyOf))
})

it("the lock file is complete for all platforms and names no address (npm run lock)", () => {
  const { packages } = JSON.parse(read("package-lock.json")) as {
    readonly packages: Record<string, { readonly optionalDependencies?: Record<string, string> }>
  }
  const missing = Object.entries(packages).flatMap(([at, parent]) =>
    Object.keys(parent.optionalDependencies ?? {}).filter((name) =>
      !(`node_modules/${name}` in packages) && !(`${at}/node_modules/${name}` in packages)
    )
  )
  expect(missing).toEqual([])
  expect(Object.keys(packages).filter((at) => "resolved" in packages[at]!)).toEqual([])
})

// Invariants.

const idsIn = (text: string, pattern: RegExp) =>
  Array.from(text.matchAll(pattern)).flatMap((found) =>
    Array.from(found[0].matchAll(/[A-Z][A-Za-z]*-\d+/g), ([id]) => id)
  )

/** Stated: ` * - Pool-3 …` in a file head. */
const stated = new Map(
  modules.flatMap(({ file, head }) =>
    idsIn(head, /^ \* - [A-Z][A-Za-z]*-\d+/gm).map((id) => [id, file])
  )
)
/** Tested: a title that begins with one id or several (`"Pool-3, Pool-4: …"`). The lists of mutants only quote titles. */
const tested = new Set(
  testFiles.filter((file) => !file.startsWith("test/mutants/")).flatMap((file) =>
    idsIn(read(file), /["'`][A-Z][A-Za-z]*-\d+(?:(?:,? | and |\/)[A-Z][A-Za-z]*-\d+)*:/g)
  )
)
const prefix = (id: string) => id.slice(0, id.indexOf("-"))

it("each invariant of a file head is named by a test", () => {
  const untested = Array.from(stated).filter(([id]) => !tested.has(id))
  expect(untested.map(([id, file]) => `${id} (${file})`)).toEqual([])
})

it("each id in a test's name is stated in a file head", () => {
  const prefixes = new Set(Array.from(stated.keys(), prefix))
  expect(Array.from(tested).filter((id) => prefixes.has(prefix(id)) && !stated.has(id))).toEqual([])
})

it("test/GUARANTEES.md promises exactly what is stated", () => {
  const promised = new Set(idsIn(read("test/GUARANTEES.md"), /^- \*\*[A-Z][A-Za-z]*-\d+/gm))
  expect({
    unpromised: Array.from(stated.keys()).filter((id) => !promised.has(id)),
    unstated: Array.from(promised).filter((id) => !stated.has(id))
  }).toEqual({ unpromised: [], unstated: [] })
})

it("test/GUARANTEES.md is what `npm run guarantees` writes", () => {
  const { stderr } = spawnSync(process.execPath, [".scripts/guarantees.mjs", "--check"], {
    cwd: root,
    encoding: "utf8"
  })
  expect(stderr).toBe("")
})
