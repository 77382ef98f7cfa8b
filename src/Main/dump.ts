/**
 * dump: prints the holders and waiters, the marked work and the fibers of a process.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberStatus from "effect/FiberStatus"
import type * as Shutdown from "../Shutdown.ts"
import * as Words from "../Shutdown/words.ts"
import { causeText, type Output } from "./output.ts"

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

/** A fiber and its children, each level indented. */
const linesOf = (
  fiber: AnyFiber,
  main: AnyFiber | undefined,
  indent: string
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const { id, startTimeMillis } = fiber.id()
    const status = yield* fiber.status
    // A fiber that waits for a `Deferred` which it made itself seems to wait for itself.
    const on = FiberStatus.isSuspended(status)
      ? Array.from(FiberId.ids(status.blockingOn)).filter((one) => one !== id)
      : []
    const waiting = on.length === 0 ? "" : ` on ${on.map((one) => `#${one}`).join(", ")}`
    const span = fiber.currentSpan?._tag === "Span" ? `, in ${fiber.currentSpan.name}` : ""
    const name = `#${id}${fiber === main ? " (main)" : ""}`
    const age = Words.seconds(Date.now() - startTimeMillis)
    const lines = [`${indent}${name} ${status._tag.toLowerCase()}${waiting} for ${age}${span}`]
    for (const child of yield* fiber.children) {
      for (const line of yield* linesOf(child, main, `${indent}  `)) lines.push(line)
    }
    return lines
  })

/** The root fibers but this one and `runner`, with their children. */
const fiberLines = (
  main: AnyFiber | undefined,
  runner: AnyFiber
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.withFiberRuntime((self) => {
    const roots = Fiber.unsafeRoots().filter((fiber) => fiber !== self && fiber !== runner)
    const lines = Effect.forEach(roots, (fiber) => linesOf(fiber, main, "  "))
    return Effect.map(lines, (all) => all.flat())
  })

/** INVARIANT Main-6. */
export const dump = (
  output: Output,
  shutdown: Shutdown.Service,
  holders: () => string,
  main: AnyFiber | undefined,
  runner: AnyFiber
): void => {
  output.guarded("The holders", () => output.info(holders()))
  output.guarded("The marked work", () => {
    const lines = shutdown.unsafeReport().unfinished.map((one) =>
      `  ${Words.unfinishedText([one])}, for ${Words.seconds(one.longest)}`
    )
    if (lines.length > 0) output.info(["Marked:", ...Words.capped(lines)].join("\n"))
  })
  Effect.runFork(
    Effect.matchCause(fiberLines(main, runner), {
      onSuccess: (lines) => output.info(["Fibers:", ...Words.capped(lines)].join("\n")),
      onFailure: (cause) => output.error(`The fibers cannot be shown: ${causeText(cause)}`)
    })
  )
}
