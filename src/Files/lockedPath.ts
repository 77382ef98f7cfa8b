/**
 * Files/lockedPath: one user of a path at a time, among the processes of this host. Lock/File.ts has the invariants of the lock.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Lock from "../Lock.ts"
import * as LockFile from "../Lock/File.ts"
import { type FileError, quick } from "./errors.ts"
import { keyOf, landing } from "./writeAtomic.ts"

/**
 * Runs an effect while no other `lockedPath` of this host runs one for the same file, by whatever path they name it.
 *
 * **Details** — It is a lock of `Lock/File`: the kernel frees it when the process is gone. Programs that do not ask are not kept out. The
 *   file need not exist, its directory must.
 * **Interruption** — waiting: nothing is held. Holding: the effect is interrupted, then the lock is released.
 * **Errors** — those of the effect; `FileError`; those of the lock, `LockTimeout` only with `acquireTimeout`.
 * **Cost** — about 1 ms.
 *
 * **Example** (read, change, write)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Files from "holdfast/Files"
 * import * as fs from "node:fs"
 *
 * const counted = Effect.scoped(Effect.gen(function*() {
 *   const path = `${yield* Files.tempDirectory()}/count`
 *   const add = Effect.suspend(() => {
 *     const count = fs.existsSync(path) ? Number(fs.readFileSync(path, "utf8")) : 0
 *     return Files.writeAtomic(path, `${count + 1}`, { durability: "none" })
 *   })
 *   yield* Effect.forEach([1, 2, 3], () => Files.lockedPath(path)(add), { concurrency: 3 })
 *   return fs.readFileSync(path, "utf8")
 * }))
 * await Effect.runPromise(counted) // => "3"
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const lockedPath = (path: string, options: Lock.Options = {}) =>
<A, E, R>(
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | FileError | Lock.LockError | Lock.LockLost | Lock.LockTimeout, R> =>
  Effect.flatMap(
    quick("look at", path, () => keyOf(landing(path))),
    (key) => Effect.flatMap(service, (locks) => locks.withLock(key, options)(body))
  )

let made: Lock.Service | undefined
/** One for all: the callers of one service queue within the process. Made at its first use. */
const service = Effect.suspend(() =>
  made === undefined
    ? Effect.map(LockFile.make({ namespace: "holdfast.path" }), (service) => made ??= service)
    : Effect.succeed(made)
)
