import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import * as fs from "node:fs"
import * as path from "node:path"

describe("temp", () => {
  it.scopedLive("Files-7: private, and gone with its owner, also if it is gone already", () =>
    Effect.gen(function*() {
      const directory = yield* Files.tempDirectory()
      const file = Files.tempFile({ directory, prefix: "p-", suffix: ".json" })
      const inside = Files.tempDirectory({ directory })
      const mode = (at: string) => (fs.statSync(at).mode & 0o777).toString(8)
      expect(mode(directory)).toBe("700")
      yield* Managed.use(file, (at) =>
        Effect.sync(() => {
          expect(path.basename(at)).toMatch(/^p-.{12}\.json$/)
          expect(mode(at)).toBe("600")
        }))
      yield* Managed.use(file, (at) => Effect.sync(() => fs.rmSync(at)))
      yield* Managed.use(
        inside,
        (at) => Effect.sync(() => fs.mkdirSync(path.join(at, "a/b"), { recursive: true }))
      )
      yield* Managed.use(inside, (at) => Effect.sync(() => fs.rmdirSync(at)))
      expect(fs.readdirSync(directory)).toEqual([])
      const missing = Files.tempFile({ directory: path.join(directory, "missing") })
      const { code, operation } = yield* Effect.flip(Managed.use(missing, () => Effect.void))
      expect([operation, code]).toEqual(["create", "ENOENT"])
    }))
})
