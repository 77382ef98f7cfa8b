/**
 * dump: the fibers of a process as lines.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as FiberStatus from "effect/FiberStatus"
import { seconds } from "../Shutdown/words.ts"

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
    const age = seconds(Date.now() - startTimeMillis)
    const lines = [`${indent}${name} ${status._tag.toLowerCase()}${waiting} for ${age}${span}`]
    for (const child of yield* fiber.children) {
      for (const line of yield* linesOf(child, main, `${indent}  `)) lines.push(line)
    }
    return lines
  })

/** The root fibers but this one and `runner`, with their children. */
export const fiberLines = (
  main: AnyFiber | undefined,
  runner: AnyFiber
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.withFiberRuntime((self) => {
    const roots = Fiber.unsafeRoots().filter((fiber) => fiber !== self && fiber !== runner)
    const lines = Effect.forEach(roots, (fiber) => linesOf(fiber, main, "  "))
    return Effect.map(lines, (all) => all.flat())
  })
