/** refusal: why the command does not do what it was asked, in words for the user, and the exit code that says so (../cli.ts). */
import * as Data from "effect/Data"

export class Refusal extends Data.TaggedError("Refusal")<{
  readonly message: string
  readonly exitCode: number
}> {}

/** By default for bad input: nothing was touched. */
export const refuse = (message: string, exitCode = 2): Refusal => new Refusal({ message, exitCode })

export const messageOf = (cause: unknown): string =>
  cause instanceof Error ? cause.message : String(cause)
