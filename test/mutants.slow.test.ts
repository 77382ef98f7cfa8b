/**
 * Mutation: what the primitives do to let go is taken away piece by piece in a copy of the sources, and the explorer must see
 * each piece missing. A mutant that no longer fits its file fails here too: the list is then to be brought up to date.
 *
 * `npm test` runs each third one, and looks whether all fit; `npm run mutants` runs all.
 */
import { build, type Plugin } from "esbuild"
import { fork } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Mutant, mutants } from "./mutants/list.ts"

const root = path.join(import.meta.dirname, "..")
let work = ""
beforeAll(async () => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), "hf-mutants-"))
  fs.writeFileSync(path.join(work, "package.json"), JSON.stringify({ type: "module" }))
  await bundleEffect()
})
afterAll(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

/** `import { A, type B } from "effect"`, module by module: whoever imports the index loads all of effect. */
const byModule = (text: string): string =>
  text.replace(
    /^import \{([^}]*)\} from "effect"$/gm,
    (_, names: string) =>
      names.split(",").map((name) => {
        const [, type = "", module] = /^\s*(type )?(\w+)\s*$/.exec(name) ?? []
        return /^[a-z]/.test(module!)
          ? `import { ${module} } from "effect/Function"`
          : `import ${type}* as ${module} from "effect/${module}"`
      }).join("\n")
  )

const mutated = ({ file, from, to, what }: Mutant): string => {
  const parts = fs.readFileSync(path.join(root, "src", file), "utf8").split(from)
  if (parts.length === 2) return parts.join(to)
  throw new Error(`"${what}" fits ${parts.length - 1} places of ${file}, not one`)
}

/** `holdfast` and `holdfast/X` are the sources; those of the mutated file are its mutant. Effect is what `bundleEffect` made. */
const sources = (mutant: Mutant | undefined): Plugin => ({
  name: "sources",
  setup: (bundling) => {
    bundling.onResolve({ filter: /^holdfast(\/|$)/ }, ({ path: name }) => ({
      path: path.join(
        root,
        "src",
        `${name === "holdfast" ? "index" : name.slice("holdfast/".length)}.ts`
      )
    }))
    bundling.onResolve({ filter: /^effect(\/|$)/ }, ({ path: name }) => ({
      path: `./${name}.js`,
      external: true
    }))
    bundling.onLoad({ filter: /\/test\/seeds\/.*\.ts$/ }, ({ path: file }) => ({
      contents: byModule(fs.readFileSync(file, "utf8")),
      loader: "ts"
    }))
    bundling.onLoad(
      { filter: /\/src\/.*\.ts$/ },
      ({ path: file }) =>
        mutant === undefined || file !== path.join(root, "src", mutant.file)
          ? undefined
          : { contents: mutated(mutant), loader: "ts" }
    )
  }
})

const bundle = (mutant: Mutant | undefined, file: string) =>
  build({
    entryPoints: [path.join(root, "test/seeds/ours.ts")],
    outfile: file,
    bundle: true,
    format: "esm",
    platform: "node",
    logLevel: "silent",
    metafile: true,
    plugins: [sources(mutant)]
  })

/** The modules of effect that the subjects use, in a few files below `work`: a child loads those in a third of the time. */
const bundleEffect = async (): Promise<void> => {
  const { metafile } = await bundle(undefined, path.join(work, "original.mjs"))
  const used = Object.values(metafile.outputs).flatMap(({ imports }) => imports)
    .flatMap(({ path: name }) => /^\.\/(effect(?:\/.*)?)\.js$/.exec(name)?.[1] ?? [])
  await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(used.map((name) => [name, name])),
    outdir: work,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    logLevel: "silent"
  })
}

/** One subject, explored in one way: see explore.mjs. */
interface Exploration {
  readonly subject: string
  readonly mode: string
}

interface Explored {
  readonly ran: ReadonlyArray<Exploration>
  /** Those that broke a law, each with its verdict. */
  readonly found: ReadonlyArray<Exploration & { readonly verdict: string }>
}

/** A process that explores one bundle after another, so that effect is loaded and compiled once. */
class Child {
  readonly #process = fork(path.join(root, "test/mutants/explore.mjs"), { execArgv: [] })
  isFresh = true

  /** Gives nothing if the process ends before it has answered, which it does after `cap` milliseconds at the latest. */
  explore(job: object, cap: number): Promise<Explored | undefined> {
    this.isFresh = false
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.kill(), cap)
      const end = (explored?: Explored) => {
        clearTimeout(timer)
        this.#process.removeAllListeners()
        resolve(explored)
      }
      this.#process.once("message", (explored) => end(explored as Explored))
      this.#process.once("exit", () => end())
      this.#process.send(job)
    })
  }

  kill(): void {
    this.#process.kill("SIGKILL")
  }
}

const idle: Array<Child> = []
afterAll(() => {
  for (const child of idle) child.kill()
})

/** A process that ends without an answer is asked again as a fresh one: what an earlier bundle left behind may have ended it. */
const ask = async (job: object, cap: number): Promise<Explored | undefined> => {
  const child = idle.pop() ?? new Child()
  const { isFresh } = child
  const explored = await child.explore(job, cap)
  if (explored === undefined) return isFresh ? undefined : ask(job, cap)
  idle.push(child)
  return explored
}

const exploredOf = new Map<Mutant, Promise<Explored | undefined>>()

/** Explores the mutant, once, until something is found. Nothing if it ended its process or never ended, which is noticed as well. */
const explore = (mutant: Mutant): Promise<Explored | undefined> => {
  const known = exploredOf.get(mutant)
  if (known !== undefined) return known
  const file = path.join(work, `mutant-${exploredOf.size}.mjs`)
  const exploring = bundle(mutant, file).then(() =>
    // A mutant takes a second or two: this is a cap.
    ask({ bundle: file, subjects: mutant.subjects }, 100_000)
  )
  exploredOf.set(mutant, exploring)
  return exploring
}

const isWhole = process.env["HOLDFAST_MUTANTS"] === "all"
const chosen = isWhole ? mutants : mutants.filter((_, index) => index % 3 === 0)

it("each mutant fits the sources", () => {
  for (const mutant of mutants) expect(mutated(mutant)).not.toBe("")
})

describe.concurrent("mutants", () => {
  for (const mutant of chosen) {
    it(`${mutant.file}: ${mutant.what}`, async () => {
      const explored = await explore(mutant)
      if (explored === undefined) return
      expect(explored.ran).not.toEqual([])
      expect(explored.found).not.toEqual([])
    }, 220_000)
  }

  it("there are thirty or more", () => {
    expect(mutants.length).toBeGreaterThanOrEqual(30)
  })

  // Each exploration that found a mutant, without the mutant. test/Testing/ours.test.ts explores all subjects in full.
  it("the sources as they are: nothing is found", async () => {
    const explorations = new Map<string, Exploration>()
    for (const mutant of chosen) {
      const { found = [] } = await explore(mutant) ?? {}
      for (const { mode, subject } of found) {
        explorations.set(`${mode} ${subject}`, { mode, subject })
      }
    }
    const job = {
      bundle: path.join(work, "original.mjs"),
      explorations: [...explorations.values()]
    }
    const explored = await ask(job, 280_000)
    expect(explored?.found).toEqual([])
  }, 300_000)
})
