/** The user's line, in the ways a user's program is run: as it is, by source maps, in a bundle. */
import { build } from "esbuild"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { expect, it } from "vitest"

const root = path.resolve(import.meta.dirname, "../..")
const modules = path.join(root, "node_modules")

const program = `import { Effect } from "effect"
import { Ledger, Managed, Mutex } from "holdfast"
const lamp = Managed.make({ name: "lamp", acquire: Effect.void, release: () => Effect.void })
const mutex = Mutex.unsafeMake()
const main = Effect.gen(function* lightUp() {
  yield* lamp
  yield* Effect.scoped(Mutex.get(mutex))
  yield* Mutex.withLock(mutex)(Effect.void)
  const { ended, live } = yield* Ledger.snapshot
  return [...live, ...ended].map(({ site }) => site)
})
const sites = Effect.runSync(Effect.scoped(main).pipe(Effect.provide(Ledger.layer())))
process.stdout.write(JSON.stringify(sites))
`

/** A project of its own with this package installed, its name not without a space. */
const project = (text = program): string => {
  const folder = fs.mkdtempSync(path.join(root, "node_modules", ".hf site "))
  fs.chmodSync(folder, 0o755)
  fs.mkdirSync(path.join(folder, "node_modules"))
  for (const [name, target] of [["effect", path.join(modules, "effect")], ["holdfast", root]]) {
    fs.symlinkSync(target!, path.join(folder, "node_modules", name!))
  }
  fs.writeFileSync(path.join(folder, "main.mjs"), text)
  return folder
}

/** 50 requests, each handled by `handle`; how many of them were collected, and whether each line is still known. */
const forgetful = (handle: string, options = "{}") =>
  `import { Effect } from "effect"
import { Ledger, Managed } from "holdfast"
const lamp = Managed.make({ name: "lamp", acquire: Effect.void, release: () => Effect.void })
const pictures = []
let collected = 0
const registry = new FinalizationRegistry(() => { collected++ })
class Request {
  body = new Uint8Array(100_000)
  handle() {
    ${handle}
  }
}
const handle = Effect.suspend(() => {
  const request = new Request()
  registry.register(request, undefined)
  return request.handle()
})
const main = Effect.gen(function*() {
  yield* Effect.replicateEffect(handle, 50)
  for (let round = 0; collected < 50 && round < 50; round++) {
    yield* Effect.sleep("50 millis")
    globalThis.gc()
  }
  const { ended, live } = yield* Ledger.snapshot
  const shown = pictures.length === 0 ? [...ended, ...live] : pictures.flatMap((one) => one.ended)
  return [collected, shown.length, shown.every(({ cause, site }) =>
    site.includes("main.mjs:10:") && (cause === undefined || cause.includes("no light")))]
})
const seen = await Effect.runPromise(Effect.provide(main, Ledger.layer(${options})))
process.stdout.write(JSON.stringify(seen))
`

const sitesOf = (...args: ReadonlyArray<string>): ReadonlyArray<unknown> =>
  JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" }))

const lines = (file: string) => [6, 7, 8].map((line) => expect.stringContaining(`${file}:${line}:`))

it("Site-1: run as it is, or by source maps, each line is the user's", () => {
  const folder = project()
  try {
    const file = path.join(folder, "main.mjs")
    expect(sitesOf(file)).toEqual(lines(file))
    expect(sitesOf("--enable-source-maps", file)).toEqual(lines(file))
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
})

it("Site-1: in a bundle each line is the user's by its source map, and none is shown without", async () => {
  const folder = project()
  try {
    for (const format of ["esm", "cjs"] as const) {
      const outfile = path.join(folder, `bundle.${format === "esm" ? "mjs" : "cjs"}`)
      await build({
        entryPoints: [path.join(folder, "main.mjs")],
        outfile,
        format,
        bundle: true,
        platform: "node",
        sourcemap: true,
        logLevel: "error"
      })
      expect(sitesOf("--enable-source-maps", outfile)).toEqual(lines(path.join(folder, "main.mjs")))
      expect(sitesOf(outfile)).toEqual([null, null, null])
    }
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
})

const use = "Managed.use(lamp, () => Effect.void)"
const keeping =
  `Effect.sync(() => Ledger.unsafeInForce().unsafeAcquiring("k", "n", { site: Ledger.unsafeSite(2) }))`
const failing = `Managed.make({
  name: "dark",
  acquire: Effect.fail(Object.assign(new Error("no light"), { request: this })),
  release: () => Effect.void
})`

it.each([
  ["the line of what is still live", `return ${keeping}`, "{}", 50],
  ["its line", `return ${use}`, "{}", 50],
  [
    "the line of the call it was acquired for",
    `return Ledger.withSite(Effect.suspend(() => ${use}), Ledger.unsafeSite(2))`,
    "{}",
    50
  ],
  [
    "what it failed with",
    `return Effect.ignore(Managed.use(${failing}, () => Effect.void))`,
    "{}",
    50
  ],
  [
    "the line in a picture of it, though it has left the history",
    `return Effect.zipRight(${use}, Effect.tap(Ledger.snapshot, (one) => pictures.push(one)))`,
    "{ history: 1 }",
    50
  ]
])(
  "Ledger-3: an entry keeps nothing of the user's alive: %s",
  (_, handle, options, shown) => {
    const folder = project(forgetful(handle, options))
    try {
      const seen = sitesOf("--expose-gc", path.join(folder, "main.mjs"))
      expect(seen).toEqual([50, shown, true])
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  }
)

const outside = `import { Effect } from "effect"
import { Ledger } from "holdfast"
const captured = () => Array.from({ length: 1500 }, () => Ledger.unsafeSite()).filter(Boolean).length
const inFiber = () => Effect.runSync(Effect.sync(captured))
const seen = [inFiber(), captured(), captured()]
Effect.runSync(Ledger.make({ sites: "off" }))
seen.push(captured())
Effect.runSync(Ledger.make())
seen.push(captured(), inFiber())
process.stdout.write(JSON.stringify(seen))
`

it("Ledger-4: outside of any fiber only the first 1,000 lines are read, as long as no ledger wants any", () => {
  const folder = project(outside)
  try {
    expect(sitesOf(path.join(folder, "main.mjs"))).toEqual([0, 1000, 0, 0, 1500, 0])
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
})
