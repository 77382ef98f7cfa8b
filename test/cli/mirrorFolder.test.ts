import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { afterEach, beforeEach, describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as MirrorFolder from "../../src/cli/mirrorFolder.ts"

let work = ""
let out = ""
beforeEach(() => {
  work = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "hf-folder-")))
  out = path.join(work, "out")
  fs.mkdirSync(path.join(out, ".holdfast"), { recursive: true })
})
afterEach(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

const failureOf = <A, E>(effect: Effect.Effect<A, E, any>): Promise<E> =>
  Effect.runPromise(
    Effect.flip(effect).pipe(Effect.provide(NodeFileSystem.layer)) as Effect.Effect<E, A>
  )

describe("mirrorFolder", () => {
  it("Mirror-2: a link to `.holdfast` is no way into it", async () => {
    fs.symlinkSync(".holdfast", path.join(out, "host"))
    const error = await failureOf(MirrorFolder.openAbove(out, path.join(out, "host/pg/base/1")))
    const what = `${path.join(out, "host")} leads out of the folder`
    expect(error).toMatchObject({ exitCode: 1, message: expect.stringContaining(what) })
    expect(fs.readdirSync(path.join(out, ".holdfast"))).toEqual([])
  })

  it("Mirror-2: a link that leads nowhere is refused, and nothing is made where it points", async () => {
    fs.symlinkSync(path.join(work, "gone"), path.join(out, "host"))
    expect(await failureOf(MirrorFolder.openAbove(out, path.join(out, "host/a")))).toMatchObject({
      _tag: "FileError",
      code: "ENOENT"
    })
    fs.rmdirSync(path.join(out, ".holdfast"))
    fs.symlinkSync(path.join(work, "gone"), path.join(out, ".holdfast"))
    expect(await failureOf(MirrorFolder.open(out))).toMatchObject({
      exitCode: 2,
      message: expect.stringContaining("is a symbolic link, to")
    })
    expect(fs.readdirSync(work)).toEqual(["out"])
  })
})
