/**
 * explore: `holdfast explore <module>`. Every subject a module exports is interrupted at every point.
 *
 * DESIGN. A subject is an exported effect, or an exported object with a `name` and a `body` (`Explore.Subject`); lists of them
 * count one by one. The module is loaded by Node: compiled JavaScript, or TypeScript under a loader of the user's.
 *
 * INVARIANTS
 * - CliExplore-1 The exit code is 0 only if every subject was explored in full and nothing that counts was found.
 * - CliExplore-2 `--page` writes one HTML page with every verdict, whole or not at all; the exit code is 2 if it cannot be written.
 */
import type * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import * as Files from "../Files.ts"
import type * as Testing from "../Testing.ts"
import type { Voice } from "./mirror.ts"
import { messageOf, type Refusal, refuse } from "./refusal.ts"

export interface Options {
  readonly module: string
  readonly mode: "quick" | "full"
  readonly json: boolean
  /** The file to write the page to. */
  readonly page: string | undefined
}

type Subject = Testing.Explore.Subject<unknown>

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

const subjectsIn = (name: string, value: unknown): ReadonlyArray<Subject> => {
  if (Effect.isEffect(value)) {
    // A missing service ends its plain run; the verdict says so.
    const body = value as Effect.Effect<unknown, unknown>
    return [{ name, body: () => body }]
  }
  if (Array.isArray(value)) return value.flatMap((one, i) => subjectsIn(`${name}[${i}]`, one))
  return isRecord(value) && typeof value["body"] === "function"
    ? [{ ...value, name: typeof value["name"] === "string" ? value["name"] : name } as Subject]
    : []
}

const load = (module: string): Effect.Effect<ReadonlyArray<Subject>, Refusal> =>
  Effect.gen(function*() {
    const nothing = (why: string) =>
      refuse(
        `${module}: ${why}. Export effects, or subjects \`{ name, setup?, body }\`, from a module that Node can load.`
      )
    const url = pathToFileURL(path.resolve(module)).href
    const exports = yield* Effect.tryPromise({
      try: (): Promise<Record<string, unknown>> => import(url),
      catch: (error) => nothing(`it cannot be loaded (${messageOf(error)})`)
    })
    const subjects = Object.entries(exports).flatMap(([name, value]) => subjectsIn(name, value))
    if (subjects.length > 0) return subjects
    return yield* nothing("it exports nothing to explore")
  })

/**
 * Explores a module and returns the exit code: 0 all safe, 1 something found or inconclusive, 2 nothing to explore, or the page
 * cannot be written.
 *
 * **Interruption** — between two subjects. The page holds all verdicts or what it held before.
 */
export const explore = (
  options: Options,
  voice: Voice
): Effect.Effect<number, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    // Testing is loaded by this command only.
    const { Explore } = yield* Effect.promise(() => import("../Testing.ts"))
    const subjects = yield* load(options.module)
    const verdicts: Array<Testing.Explore.Verdict> = []
    for (const subject of subjects) {
      const { mode } = options
      const verdict = yield* Effect.promise(() => Explore.interruptions(subject, { mode }))
      verdicts.push(verdict)
      yield* voice.document(options.json ? JSON.stringify(verdict) : Explore.format(verdict))
    }
    const failed = verdicts.filter(({ passed }) => !passed).length
    if (!options.json) yield* voice.line(`${subjects.length - failed} passed, ${failed} failed`)
    if (options.page !== undefined) yield* Files.writeAtomic(options.page, Explore.html(verdicts))
    return failed === 0 ? 0 : 1
  }).pipe(Effect.catchAll((error) => Effect.as(voice.error(`holdfast: ${error.message}`), 2)))
