import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Stream, TestClock } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import * as fs from "node:fs"
import * as path from "node:path"

const descriptors = () => fs.readdirSync("/proc/self/fd").length

describe("tail", () => {
  it.scoped("Tail-1, Tail-2, Tail-3: follows a file that comes, grows, is rotated and cut", () =>
    Effect.gen(function*() {
      const before = descriptors()
      const dir = yield* Files.tempDirectory()
      const at = path.join(dir, "app.log")
      const seen: Array<string> = []
      const lines = Stream.runForEach(Files.tail(at), (line) => Effect.sync(() => seen.push(line)))
      const fiber = yield* Effect.fork(lines)
      /** Two looks: one at the end of the old file, one at the new. The reads are real, the waits are not. */
      const look = Effect.repeatN(
        Effect.zipRight(
          TestClock.adjust("250 millis"),
          Effect.promise(() => fs.promises.stat(dir))
        ),
        9
      )
      const expectNext = (...next: ReadonlyArray<string>) =>
        Effect.zipRight(look, Effect.sync(() => expect(seen.splice(0)).toEqual(next)))
      yield* expectNext()
      fs.writeFileSync(at, "one\ntw")
      yield* expectNext("one")
      fs.appendFileSync(at, "o\nthr")
      yield* expectNext("two")
      fs.appendFileSync(at, "ee\n")
      fs.renameSync(at, `${at}.1`)
      fs.appendFileSync(`${at}.1`, "four\n")
      yield* expectNext("three", "four")
      fs.appendFileSync(`${at}.1`, "five\n")
      fs.writeFileSync(at, "six €\n")
      yield* expectNext("five", "six €")
      fs.truncateSync(at)
      fs.appendFileSync(at, "7\n")
      yield* expectNext("7")
      yield* Fiber.interrupt(fiber)
      expect(descriptors()).toBe(before)
    }))

  it.scopedLive("Tail-1, Tail-2: every line of a log file that is rotated all the time, interrupted and resumed", () =>
    Effect.gen(function*() {
      const at = path.join(yield* Files.tempDirectory(), "app.log")
      const numbers = Array.from({ length: 3_000 }, (_, i) => `${i}`)
      const tailed = Files.tail(at, { fromStart: true, every: "1 millis" }).pipe(
        Stream.take(numbers.length),
        Stream.runCollect
      )
      const reader = yield* Effect.fork(tailed)
      yield* Managed.use(
        Files.logFile(at),
        (log) =>
          Effect.forEach(numbers, (n) =>
            Effect.gen(function*() {
              yield* log.write(n)
              if (Number(n) % 300 !== 0) return
              yield* log.flush
              // Not faster than the reader looks, which would miss a file in the middle.
              yield* Effect.sleep("20 millis")
              fs.renameSync(at, `${at}.${n}`)
              yield* log.reopen
            }))
      )
      expect(Array.from(yield* Fiber.join(reader))).toEqual(numbers)
    }))

  it.scopedLive("Tail-3: from the end or the beginning; a pipe or an endless line is a typed error", () =>
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      const at = path.join(dir, "file")
      fs.writeFileSync(at, "x".repeat(100_000))
      const long = Stream.runDrain(Files.tail(at, { fromStart: true, maxLineBytes: 99_999 }))
      expect((yield* Effect.flip(long)).code).toBe("EMSGSIZE")
      expect((yield* Effect.flip(Stream.runDrain(Files.tail(dir)))).code).toBe("EINVAL")
      for (let i = 0; i < 100; i++) {
        const fiber = yield* Effect.fork(
          Effect.withMaxOpsBeforeYield(Stream.runDrain(Files.tail(at)), 14 + i % 20)
        )
        yield* Effect.repeatN(Effect.yieldNow(), i % 9)
        yield* Fiber.interrupt(fiber)
      }
    }))
})
