/**
 * disposable: how something is disposed of that knows how itself (`using`, `await using`).
 *
 * DESIGN. Asked anew each time: an object may get its method after it was made. It stands here, although one module uses it, for
 * the same reason as generator.ts: what a platform calls its symbols is no part of what a resource is.
 */
import * as Effect from "effect/Effect"

/** As TypeScript and the polyfills do where the platform does not know the symbol. */
export const asyncDispose = (): typeof Symbol.asyncDispose =>
  Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose") as typeof Symbol.asyncDispose
const dispose = (): typeof Symbol.dispose =>
  Symbol.dispose ?? Symbol.for("Symbol.dispose") as typeof Symbol.dispose

/** How it is disposed of: by `Symbol.asyncDispose` if it has that, else by `Symbol.dispose`; undefined if by neither. */
export const disposal = (resource: object): Effect.Effect<unknown> | undefined => {
  const { [asyncDispose()]: later, [dispose()]: now } = resource as {
    readonly [key: symbol]: unknown
  }
  if (typeof later === "function") return Effect.promise(async () => later.call(resource))
  return typeof now === "function" ? Effect.sync(() => now.call(resource)) : undefined
}
