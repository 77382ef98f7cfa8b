/**
 * Mutation: what the primitives do to let go is taken away piece by piece in a copy of the sources, and the explorer must see
 * each piece missing. A mutant that no longer fits its file fails here too: the list is then to be brought up to date.
 */
import { build, type Plugin } from "esbuild"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Mutant, mutants } from "./mutants/list.ts"

const root = path.join(import.meta.dirname, "..")
const exec = promisify(execFile)
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
        return `import ${type}* as ${module} from "effect/${module}"`
      }).join("\n")
  )

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
    bundling.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path: file }) => {
      if (mutant === undefined || file !== path.join(root, "src", mutant.file)) return undefined
      const parts = fs.readFileSync(file, "utf8").split(mutant.from)
      if (parts.length !== 2) {
        throw new Error(
          `"${mutant.what}" fits ${parts.length - 1} places of ${mutant.file}, not one`
        )
      }
      return { contents: parts.join(mutant.to), loader: "ts" }
    })
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

interface Found {
  readonly explored: ReadonlyArray<string>
  readonly found: ReadonlyArray<string>
}

const explored = async (mutant: Mutant | undefined, id: string): Promise<Found | "never ended"> => {
  const file = path.join(work, `${id}.mjs`)
  await bundle(mutant, file)
  const subjects = mutant?.subjects ?? mutants.flatMap(({ subjects }) => subjects)
  const script = path.join(root, "test/mutants/explore.mjs")
  try {
    const { stdout } = await exec(process.execPath, [script, file, ...subjects], {
      // A mutant takes some seconds at most, the original half a minute: these are caps.
      timeout: mutant === undefined ? 280_000 : 100_000,
      killSignal: "SIGKILL",
      env: { ...process.env, FIRST: mutant === undefined ? "0" : "1" }
    })
    return JSON.parse(stdout) as Found
  } catch (error) {
    // A mutant that spins in one step of JavaScript, or throws out of the explorer, has been noticed as well.
    if (mutant !== undefined && error instanceof Error && "killed" in error) return "never ended"
    throw error
  }
}

describe.concurrent("mutants", () => {
  // What a mutant is given, without the mutant; test/Testing/ours.test.ts has all subjects.
  it("the sources as they are: nothing is found", async () => {
    const found = await explored(undefined, "original")
    expect(found).toMatchObject({ found: [] })
  }, 300_000)

  it("there are thirty or more", () => {
    expect(mutants.length).toBeGreaterThanOrEqual(30)
  })

  for (const [index, mutant] of mutants.entries()) {
    it(`${mutant.file}: ${mutant.what}`, async () => {
      const found = await explored(mutant, `mutant-${index}`)
      if (found === "never ended") return
      expect(found.explored).not.toEqual([])
      expect(found.found).not.toEqual([])
    }, 120_000)
  }
})
