/**
 * Http/undici: the undici of `@effect/platform-node`. Bun puts a stub without dispatchers in the place of the package `undici`, so
 * there the package is loaded from its file.
 */
import Stock from "@effect/platform-node/Undici"
import { createRequire } from "node:module"

const load = (): typeof Stock => {
  const platform = createRequire(import.meta.url).resolve("@effect/platform-node/Undici")
  return createRequire(platform)("undici/index.js")
}

export const Undici: typeof Stock = "dispatch" in Stock.Agent.prototype ? Stock : load()
