/**
 * Files/generations: the files that a log file was rotated into: `app.log.1`, `app.log.2`, … (the highest is the newest), or `….gz`.
 *
 * DESIGN. A rotation is one rename, to a number that no file has; nothing is renamed twice. What is left to do (compress, remove the
 * oldest) is computed from the names alone, so a killed process leaves nothing that the next tidying does not finish: a
 * compressed file appears whole (a draft), and the plain one is removed after it. ../Files.ts has the invariants.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as fs from "node:fs"
import * as Path from "node:path"
import { pipeline } from "node:stream/promises"
import { createGzip } from "node:zlib"
import * as Managed from "../Managed.ts"
import { type Draft, openDraftOf } from "./drafts.ts"
import { failed, type FileError } from "./errors.ts"

/** The numbers of the generations of `path`, the oldest first; each with the endings it has (`""`, `".gz"`). */
const generations = async (path: string): Promise<ReadonlyArray<[number, Set<string>]>> => {
  const found = new Map<number, Set<string>>()
  const base = `${Path.basename(path)}.`
  for (const name of await fs.promises.readdir(Path.dirname(path))) {
    const [, number, ending = ""] = name.startsWith(base)
      ? /^([1-9]\d{0,14})(\.gz)?$/.exec(name.slice(base.length)) ?? []
      : []
    if (number === undefined) continue
    found.set(Number(number), (found.get(Number(number)) ?? new Set()).add(ending))
  }
  return [...found].toSorted(([a], [b]) => a - b)
}

/** The number that the next generation gets. */
export const nextGeneration = async (path: string): Promise<number> =>
  ((await generations(path)).at(-1)?.[0] ?? 0) + 1

const remove = async (path: string): Promise<void> => {
  await fs.promises.rm(path, { force: true })
}

/** `path.gz`, whole, in the place of `path`. */
const compress = (path: string): Effect.Effect<void, FileError> => {
  const draft = openDraftOf(`${path}.gz`, { mode: fs.statSync(path).mode & 0o777 })
  const copied = (draft: Draft) =>
    Effect.tryPromise({
      try: () =>
        pipeline(fs.createReadStream(path), createGzip(), async (chunks) => {
          for await (const chunk of chunks) await Effect.runPromise(draft.write(chunk))
        }),
      catch: failed("compress", path)
    })
  const published = Managed.use(
    draft,
    (draft) => Effect.zipRight(copied(draft), draft.publish(`${path}.gz`))
  )
  return Effect.zipRight(published, Effect.sync(() => fs.rmSync(path, { force: true })))
}

/** Removes all but the newest `keep` generations, and compresses what is left. */
export const tidy = async (path: string, keep: number, gzip: boolean): Promise<void> => {
  const found = await generations(path)
  const old = Math.max(0, found.length - keep)
  for (const [at, [number, endings]] of found.entries()) {
    const plain = `${path}.${number}`
    if (at < old) { for (const ending of endings) await remove(plain + ending) }
    // Killed between the two: the compressed one is whole.
    else if (endings.size === 2) await remove(plain)
    else if (gzip && endings.has("")) {
      const result = await Effect.runPromise(Effect.either(compress(plain)))
      if (Either.isLeft(result)) throw result.left
    }
  }
}
