/**
 * pg: `holdfast pg [--data dir]`. Runs an embedded Postgres in the foreground, until a signal or its own end.
 *
 * INVARIANTS
 * - CliPg-1 When the command has ended, however it ended, its server has ended; without `--data` nothing of it is left.
 */
import * as Effect from "effect/Effect"
import * as Embedded from "../Postgres/Embedded.ts"
import type { Voice } from "./mirror.ts"

const foreground = (data: string | undefined, voice: Voice) =>
  Effect.scoped(Effect.gen(function*() {
    const { exited, url } = yield* Embedded.make({ dataDirectory: data })
    yield* voice.line(url)
    const { code, signal } = yield* exited
    const how = signal === null ? `with code ${code}` : `by ${signal}`
    yield* voice.error(`holdfast: the server ended by itself, ${how}`)
    return 1
  }))

/**
 * Runs the server and returns the exit code: 1 it failed or ended by itself, 2 it cannot run here, 3 another process runs one on
 * that directory.
 *
 * **Interruption** — stops the server; the data of `--data` stays.
 */
export const pg = (data: string | undefined, voice: Voice): Effect.Effect<number> =>
  Effect.catchAll(foreground(data, voice), (error) => {
    const code = error._tag === "EmbeddedUnavailable" ? 2 : error.step === "orphan" ? 3 : 1
    return Effect.as(voice.error(`holdfast: ${error.message}`), code)
  })
