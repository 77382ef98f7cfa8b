/**
 * disposable: how to dispose of an object that has its own way (`using`, `await using`).
 *
 * DESIGN. The method is looked up at each release: an object may get it after it was made. The types are built from the names of
 * the symbols, so that declarations compile in a project whose `lib` does not have them; there every object is accepted.
 */
import * as Effect from "effect/Effect"

type SymbolNamed<Name extends string> = SymbolConstructor extends
  { readonly [K in Name]: infer S extends symbol } ? S : never

/** `Disposable`, where the consumer's `lib` has it. */
export type SyncDisposed = { readonly [K in SymbolNamed<"dispose">]: () => void }

/** `AsyncDisposable`, where the consumer's `lib` has it. */
export type AsyncDisposed = { readonly [K in SymbolNamed<"asyncDispose">]: () => PromiseLike<void> }

/** As TypeScript and the polyfills do where the platform does not know the symbol. */
export const asyncDispose = (): SymbolNamed<"asyncDispose"> =>
  Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose") as typeof Symbol.asyncDispose
const dispose = (): typeof Symbol.dispose =>
  Symbol.dispose ?? Symbol.for("Symbol.dispose") as typeof Symbol.dispose

/** The disposal: by `Symbol.asyncDispose`, else by `Symbol.dispose`; undefined if the object has neither. */
export const disposal = (resource: object): Effect.Effect<unknown> | undefined => {
  const { [asyncDispose()]: later, [dispose()]: now } = resource as {
    readonly [key: symbol]: unknown
  }
  if (typeof later === "function") return Effect.promise(async () => later.call(resource))
  return typeof now === "function" ? Effect.sync(() => now.call(resource)) : undefined
}
