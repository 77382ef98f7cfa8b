/**
 * mirrorFolder: the folder that a mirror writes to, and the folders below it.
 *
 * DESIGN. The folder itself may be a link: that is the user's choice, and its real path is used from then on. Below it the mirror
 * makes and checks one component at a time, so that nothing is made behind a link before the link was seen. In `.holdfast`, where
 * the mirror also deletes, it refuses every link but the one that Postgres/Embedded makes for its data.
 *
 * INVARIANTS Mirror-2, stated in mirror.ts, is decided here.
 * NOT DONE an account that replaces a folder by a link between the check and the write: Node has no `openat`.
 */
import type * as PlatformError from "@effect/platform/Error"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as path from "node:path"
import * as Files from "../Files.ts"
import { messageOf, refuse } from "./refusal.ts"

const unusable = (folder: string) => (cause: unknown) =>
  refuse(
    `Cannot write into the folder ${folder}: ${messageOf(cause)}. `
      + "Give another --to, or its rights to this account."
  )

/** Where Postgres/Embedded keeps data that its account could not reach below the folder. */
const embeddedData = "/var/lib/holdfast/"

/** Makes a directory that may be there already, as a directory or as a link to one. */
const ensure = (directory: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) =>
    Effect.catchIf(
      fs.makeDirectory(directory),
      (error) => error._tag === "SystemError" && error.reason === "AlreadyExists",
      () => Effect.void
    ))

/** Fails if a symbolic link stands at `file`, also one that leads nowhere; one that leads below `allowed` may stay. */
export const refuseLink = (file: string, allowed?: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const target = yield* Effect.option(fs.readLink(file))
    if (Option.isNone(target)) return
    const leadsTo = path.resolve(path.dirname(file), target.value)
    if (allowed !== undefined && leadsTo.startsWith(allowed)) return
    return yield* refuse(
      `${file} is a symbolic link, to ${leadsTo}. The mirror replaces and deletes files there, so it follows no link. `
        + "Remove the link, or give another --to."
    )
  })

/** Makes the folder and its `.holdfast`, and gives the real path of the folder. */
export const open = (to: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const absolute = path.resolve(to)
    const usable = <A>(
      work: Effect.Effect<A, PlatformError.PlatformError, FileSystem.FileSystem>
    ) => Effect.mapError(work, unusable(absolute))
    yield* usable(fs.makeDirectory(absolute, { recursive: true }))
    const folder = yield* usable(fs.realPath(absolute))
    const own = path.join(folder, ".holdfast")
    yield* refuseLink(own)
    yield* usable(ensure(own))
    yield* refuseLink(path.join(own, "pg"), embeddedData)
    yield* usable(fs.access(folder, { writable: true }))
    yield* usable(fs.access(own, { writable: true }))
    return folder
  })

/** An empty folder for partial downloads, removed with its scope. It first removes what a killed run left there. */
export const openParts = (folder: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const parts = path.join(folder, ".holdfast", "parts")
    // If `parts` is a link, only the link is removed.
    const clear = fs.remove(parts, { recursive: true, force: true })
    return yield* Effect.acquireRelease(
      Effect.as(Effect.zipRight(clear, fs.makeDirectory(parts)), parts),
      () => Effect.ignore(clear)
    ).pipe(Effect.mapError(unusable(parts)))
  })

const isWithin = (file: string, folder: string): boolean =>
  file === folder || file.startsWith(folder + path.sep)

/** INVARIANT Mirror-2: makes the folders above `file`, outermost first, and stops at one that leads out of `folder`. */
export const openAbove = (folder: string, file: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    let above = folder
    for (const name of path.relative(folder, path.dirname(file)).split(path.sep)) {
      above = path.join(above, name)
      yield* Effect.mapError(ensure(above), Files.toFileError("mkdir", above))
      const real = yield* Effect.mapError(fs.realPath(above), Files.toFileError("realPath", above))
      // A link into `.holdfast` stays inside the folder, but a write through it would replace files of ours.
      if (!isWithin(real, folder) || isWithin(real, path.join(folder, ".holdfast"))) {
        // Of this item alone: the others are mirrored.
        const what =
          `${above} leads out of the folder, to ${real}. Remove that link to mirror below it.`
        return yield* refuse(what, 1)
      }
    }
  })
