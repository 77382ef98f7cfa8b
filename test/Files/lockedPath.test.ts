import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Files from "holdfast/Files"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"

describe("lockedPath", () => {
  it.scopedLive("Files-8: one process at a time, by whatever path; free when its process is killed", () =>
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      fs.mkdirSync(path.join(dir, "real"))
      fs.symlinkSync("real", path.join(dir, "alias"))
      const script = `
        import * as Effect from "effect/Effect"
        import * as Files from "holdfast/Files"
        const held = Effect.zipRight(Effect.sync(() => process.stdout.write("held")), Effect.sleep("1 hour"))
        await Effect.runPromise(Files.lockedPath(process.argv[1])(held))`
      const child = spawn(
        process.execPath,
        ["--input-type=module", "-e", script, path.join(dir, "alias/file")],
        { cwd: path.resolve(import.meta.dirname, "../.."), stdio: ["ignore", "pipe", "inherit"] }
      )
      yield* Effect.promise(() => new Promise((done) => child.stdout.once("data", done)))
      const at = path.join(dir, "real/file")
      const late = yield* Effect.flip(
        Files.lockedPath(at, { acquireTimeout: "50 millis" })(Effect.void)
      )
      expect(late._tag).toBe("LockTimeout")
      child.kill("SIGKILL")
      expect(yield* Files.lockedPath(at)(Effect.succeed("ours"))).toBe("ours")
      const missing = yield* Effect.flip(Files.lockedPath("/proc/version/x")(Effect.void))
      expect(missing).toMatchObject({ _tag: "FileError", code: "ENOTDIR" })
    }))
})
