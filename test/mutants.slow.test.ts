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
beforeAll(() => {
  work = fs.mkdtempSync(path.join(os.tmpdir(), "hf-mutants-"))
  fs.symlinkSync(path.join(root, "node_modules"), path.join(work, "node_modules"))
})
afterAll(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

/** `holdfast` and `holdfast/X` are the sources; those of the mutated file are its mutant. */
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
    bundling.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path: file }) => {
      const text = fs.readFileSync(file, "utf8")
      if (mutant === undefined || file !== path.join(root, "src", mutant.file)) {
        return { contents: text, loader: "ts" }
      }
      const parts = text.split(mutant.from)
      if (parts.length !== 2) {
        throw new Error(
          `"${mutant.what}" fits ${parts.length - 1} places of ${mutant.file}, not one`
        )
      }
      return { contents: parts.join(mutant.to), loader: "ts" }
    })
  }
})

interface Found {
  readonly explored: ReadonlyArray<string>
  readonly found: ReadonlyArray<string>
}

const explored = async (mutant: Mutant | undefined, id: string): Promise<Found | "never ended"> => {
  const bundle = path.join(work, `${id}.mjs`)
  await build({
    entryPoints: [path.join(root, "test/seeds/ours.ts")],
    outfile: bundle,
    bundle: true,
    format: "esm",
    platform: "node",
    logLevel: "silent",
    external: ["effect", "effect/*"],
    plugins: [sources(mutant)]
  })
  const script = path.join(root, "test/mutants/explore.mjs")
  try {
    const { stdout } = await exec(process.execPath, [script, bundle, ...mutant?.subjects ?? []], {
      timeout: mutant === undefined ? 120_000 : 40_000,
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
  it("the sources as they are: nothing is found", async () => {
    const found = await explored(undefined, "original")
    expect(found).toMatchObject({ found: [] })
  }, 150_000)

  it("there are thirty or more", () => {
    expect(mutants.length).toBeGreaterThanOrEqual(30)
  })

  for (const [index, mutant] of mutants.entries()) {
    it(`${mutant.file}: ${mutant.what}`, async () => {
      const found = await explored(mutant, `mutant-${index}`)
      if (found === "never ended") return
      expect(found.explored).not.toEqual([])
      expect(found.found).not.toEqual([])
    }, 60_000)
  }
})
