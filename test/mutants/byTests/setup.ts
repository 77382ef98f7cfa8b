/** Runs in each worker before the tests of one copy: skips those that are not for its mutant. */
import type { EventEmitter } from "node:events"
import * as path from "node:path"
import { afterAll, beforeEach, expect, inject } from "vitest"

const folder = path.relative(inject("copies"), expect.getState().testPath ?? "").split(path.sep)[0]!
const titles = inject("titles")[folder] ?? []

/** What effect keeps for the whole process, such as default services, is the code of one copy: the next makes its own. */
const kept: unknown = Reflect.get(globalThis, "effect/GlobalValue")
const defaults = kept instanceof Map ? kept.get("effect/Context/defaultValueCache") : undefined
for (const values of [kept, defaults]) {
  if (!(values instanceof Map)) continue
  for (const key of values.keys()) if (String(key).startsWith("holdfast/")) values.delete(key)
}

/** A mutant's listeners leave with it. */
const emitter: EventEmitter = process
const before = new Set(emitter.eventNames().flatMap((name) => emitter.rawListeners(name)))
afterAll(() => {
  for (const name of emitter.eventNames()) {
    for (const listener of emitter.rawListeners(name)) {
      if (!before.has(listener)) emitter.removeListener(name, listener as () => void)
    }
  }
})

beforeEach(({ skip, task }) => {
  if (!titles.some((title) => task.name.includes(title))) skip()
})

declare module "vitest" {
  export interface ProvidedContext {
    /** The folder that holds the copies. */
    readonly copies: string
    /** Parts of the titles of the tests to run, by the folder of the copy. */
    readonly titles: Readonly<Record<string, ReadonlyArray<string>>>
  }
}
