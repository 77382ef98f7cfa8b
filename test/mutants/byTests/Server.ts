/** Mutants of Http/Server, found by test/Http/Server.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { type Mutant } from "./mutant.ts"

const mutant = (
  file: "listener" | "Server",
  what: string,
  from: string,
  to: string,
  title: string
): Mutant => ({
  what,
  file: `Http/${file}.ts`,
  from,
  to,
  tests: "Http/Server.test.ts",
  title
})

export const mutants: ReadonlyArray<Mutant> = [
  mutant(
    "listener",
    "a request that comes before the handler is not held",
    "this.#early.push([request, response])",
    "this.#begin(request.socket, response)",
    "HttpServer-1: a request that comes while the handler"
  ),
  mutant(
    "listener",
    "a connection with an answer under way counts as idle",
    "size === 0 && !this.#fresh",
    "!this.#fresh",
    "HttpServer-2: without a shutdown"
  ),
  mutant(
    "Server",
    "each probe starts its checks anew",
    "if (running !== undefined) return Effect.succeed(running)",
    "",
    "HttpServer-4: a check that hangs"
  )
]
