/** Ours on real files, sockets and servers, explored beside the event loop: each leaves nothing open, however it is cut. */
import { NodeFileSystem } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Lock } from "holdfast"
import * as Files from "holdfast/Files"
import * as Http from "holdfast/Http"
import * as LockFile from "holdfast/Lock/File"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Origin from "../support/httpOrigin.ts"
import { alone, type Own } from "./own.ts"

/** A folder of its own, removed with its owner. */
const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "hf-real-"))),
  (dir) => Effect.sync(() => fs.rmSync(dir, { recursive: true, force: true }))
)

/** Nothing in the folder but these. */
const holdsOnly = (dir: string, ...names: ReadonlyArray<string>) => {
  const others = fs.readdirSync(dir).filter((name) => !names.includes(name))
  return others.length === 0 ? true : `left behind: ${others.join(", ")}`
}

export const real: ReadonlyArray<Own> = [
  alone({
    name: "Files.writeAtomic",
    setup: folder,
    body: (dir) =>
      Effect.provide(
        Files.writeAtomic(path.join(dir, "file"), "content", { durability: "none" }),
        NodeFileSystem.layer
      ),
    invariant: (dir) => holdsOnly(dir, "file")
  }),
  alone({
    name: "Http.download in a session",
    setup: Effect.gen(function*() {
      const origin = yield* Origin.make({ "/file": Origin.body(Buffer.from("content")) })
      return { dir: yield* folder, origin }
    }),
    body: ({ dir, origin }) =>
      Http.download(origin.url("/file"), path.join(dir, "file")).pipe(
        Effect.provide(Layer.merge(Http.session(), NodeFileSystem.layer))
      ),
    invariant: ({ dir }) => holdsOnly(dir, "file")
  }),
  alone({
    name: "Lock/File.withLock",
    setup: Effect.flatMap(folder, (directory) => LockFile.make({ directory, namespace: "real" })),
    body: (service: Lock.Service) =>
      Lock.withLock(Effect.yieldNow(), "key").pipe(Effect.provideService(Lock.Lock, service))
  })
]
