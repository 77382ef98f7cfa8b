/**
 * demo: `npm start` with no arguments. A bundled origin on loopback, mirrored by the real command.
 *
 * DESIGN. The origin's port is stored in the target folder, so that a second run asks for the same URLs and finds them done.
 * One demo at a time works in a folder: the lock is taken before the port is chosen, because two demos would overwrite each other's list.
 */
import * as FileSystem from "@effect/platform/FileSystem"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as path from "node:path"
import * as Files from "../Files.ts"
import * as Ledger from "../Ledger.ts"
import * as LockFile from "../Lock/File.ts"
import * as Mirror from "./mirror.ts"
import * as MirrorFolder from "./mirrorFolder.ts"
import * as Origin from "./origin.ts"
import * as Settings from "./settings.ts"

const portFile = "origin-port.txt"

/** Keeps a resource out of the ledger: it outlives the mirror, which sums the ledger while it is still held. */
const aside = Effect.provideService(Ledger.Ledger, undefined)

/** Writes a file of the demo. It refuses a link, which would lead to another file. */
const write = (file: string, text: string) =>
  Effect.zipRight(MirrorFolder.refuseLink(file), Files.writeAtomic(file, text))

/** The port of the last demo in this folder, if it is free again; else a free one. */
const openOrigin = (folder: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const file = path.join(folder, portFile)
    const port = Number.parseInt(
      yield* Effect.orElseSucceed(fs.readFileString(file), () => "0"),
      10
    )
    const origin = yield* aside(Effect.orElse(
      Origin.make({ port: port > 1023 && port < 65536 ? port : 0 }),
      () => Origin.make({ port: 0 })
    ))
    yield* write(file, `${origin.port}\n`)
    return origin
  })

const whatNext = (folder: string, code: number): ReadonlyArray<string> => [
  "",
  `The files are in ${folder}. What to try next:`,
  code === 0
    ? "  npm start                                  again: every file is verified, nothing is fetched"
    : "  npm start                                  again: files that are there are verified, the others fetched",
  `  rm -r ${folder} && npm start   and press Ctrl-C in the middle: it finishes what it has begun; run it again to resume`,
  "  npm start -- urls.txt --to out             your own list, one URL per line"
]

export const demo = (
  to: string,
  voice: Mirror.Voice
): Effect.Effect<number, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const folder = path.resolve(to)
    yield* fs.makeDirectory(folder, { recursive: true })
    // The origin's scope ends here, so that the next lines are printed after its release.
    const code = yield* Effect.scoped(Effect.gen(function*() {
      const locks = yield* aside(LockFile.make({ namespace: "holdfast" }))
      yield* aside(Mirror.take(locks, yield* fs.realPath(folder), "demo"))
      const origin = yield* openOrigin(folder)
      const list = path.join(folder, "urls.txt")
      yield* write(list, `${origin.urls.join("\n")}\n`)
      yield* voice.line(
        `Mirroring ${origin.urls.length} URLs of a bundled origin (slow ones, 503s, cut bodies, redirects) on 127.0.0.1:${origin.port}`
      )
      return yield* Mirror.mirror({
        ...Settings.defaults,
        list,
        to: folder,
        drain: Duration.seconds(25)
      }, voice)
    }))
    for (const line of whatNext(to, code)) yield* voice.line(line)
    return code
  }).pipe(Effect.catchAll((error) =>
    Effect.as(
      voice.error(`holdfast: ${error.message}`),
      error._tag === "Refusal" ? error.exitCode : 2
    )
  ))
