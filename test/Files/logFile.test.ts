import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Random, type Scope, TestClock } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { gunzipSync } from "node:zlib"

const repository = path.resolve(import.meta.dirname, "../..")

const live = <E>(name: string, test: Effect.Effect<unknown, E, Scope.Scope>) =>
  it.scopedLive(name, () => test)

const turn = Effect.promise(() => new Promise((done) => setImmediate(done)))

/** The files of a log, the oldest first. */
const filesOf = (at: string): ReadonlyArray<string> => {
  const numberOf = (name: string) => Number(/\.(\d+)(\.gz)?$/.exec(name)?.[1] ?? Infinity)
  return fs.readdirSync(path.dirname(at))
    .filter((name) => name.startsWith(path.basename(at)))
    .toSorted((a, b) => numberOf(a) - numberOf(b))
    .map((name) => path.join(path.dirname(at), name))
}

const textOf = (file: string): string =>
  file.endsWith(".gz")
    ? gunzipSync(fs.readFileSync(file)).toString()
    : fs.readFileSync(file, "utf8")

const linesOf = (at: string): ReadonlyArray<string> => {
  const text = filesOf(at).map(textOf).join("")
  expect(text === "" || text.endsWith("\n")).toBe(true)
  return text.split("\n").slice(0, -1)
}

/** Of each producer: 0, 1, 2, … without gap or double, and at least what it knows to be accepted. */
const checkLines = (lines: ReadonlyArray<string>, accepted: ReadonlyArray<number>) => {
  const seen = accepted.map(() => 0)
  for (const line of lines) {
    const [, producer, number] = /^(\d+) (\d+) x{80}$/.exec(line) ?? []
    if (producer === undefined) throw new Error(`torn: ${line}`)
    expect(Number(number)).toBe(seen[Number(producer)]!++)
  }
  for (const [producer, least] of accepted.entries()) {
    // One more: the interrupt came after the line was accepted and before the producer knew.
    expect(seen[producer]! - least).toBeOneOf([0, 1])
  }
}

describe("logFile", () => {
  live(
    "LogFile-1, LogFile-5, LogFile-6: 100 producers, interrupted at random, rotation: each accepted line once, whole, in order",
    Effect.gen(function*() {
      const at = path.join(yield* Files.tempDirectory(), "app.log")
      const accepted = Array.from({ length: 100 }, () => 0)
      const produce = (log: Files.LogFile, producer: number) =>
        Effect.whileLoop({
          while: () => accepted[producer]! < 500,
          body: () => log.write(`${producer} ${accepted[producer]} ${"x".repeat(80)}`),
          step: () => {
            accepted[producer]!++
          }
        })
      const options = { maxBufferedBytes: 1 << 16, rotate: { maxBytes: 1 << 20 } }
      yield* Managed.use(Files.logFile(at, options), (log) =>
        Effect.gen(function*() {
          const fibers = yield* Effect.forEach(accepted, (_, producer) =>
            Effect.fork(produce(log, producer)))
          for (let i = 0; i < 50; i++) {
            yield* Effect.repeatN(turn, yield* Random.nextIntBetween(0, 3))
            yield* Fiber.interrupt(fibers[i]!)
            expect((yield* log.stats).bufferedBytes).toBeLessThan((1 << 16) + 100)
          }
          yield* Fiber.joinAll(fibers.slice(50))
        }))
      checkLines(linesOf(at), accepted)
      const sizes = filesOf(at).map((file) => fs.statSync(file).size)
      expect(sizes.length).toBeGreaterThan(2)
      for (const size of sizes.slice(0, -1)) expect(size).toBeGreaterThan((1 << 20) - 100)
      for (const size of sizes) expect(size).toBeLessThanOrEqual(1 << 20)
    })
  )

  live(
    "LogFile-4: SIGTERM in the midst of 100 producers, and SIGHUP before it: nothing accepted is lost",
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      const at = path.join(dir, "app.log")
      const script = `
        import * as Effect from "effect/Effect"
        import * as Files from "holdfast/Files"
        import * as Main from "holdfast/Main"
        import * as fs from "node:fs"
        const [, at] = process.argv
        const accepted = Array.from({ length: 100 }, () => 0)
        const produce = (log, producer) => Effect.whileLoop({
          while: () => true,
          body: () => log.write(producer + " " + accepted[producer] + " " + "x".repeat(80)),
          step: () => { accepted[producer]++ }
        })
        const program = Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Effect.sync(() => fs.writeFileSync(at + "-accepted", JSON.stringify(accepted))))
          const log = yield* Files.logFile(at, { reopenOn: "SIGHUP", rotate: { maxBytes: 1 << 20 } })
          setTimeout(() => process.stdout.write("producing"), 100)
          yield* Effect.forEach(accepted, (_, i) => produce(log, i), { concurrency: "unbounded" })
        })
        Main.run(Effect.scoped(program), { signals: ["SIGTERM"] })`
      const child = spawn(process.execPath, ["--input-type=module", "-e", script, at], {
        cwd: repository,
        stdio: ["ignore", "pipe", "ignore"]
      })
      const closed = new Promise((done) => child.once("close", done))
      yield* Effect.promise(() => new Promise((done) => child.stdout.once("data", done)))
      child.kill("SIGHUP")
      yield* Effect.sleep(20)
      child.kill("SIGTERM")
      yield* Effect.promise(() => closed)
      const accepted = JSON.parse(fs.readFileSync(`${at}-accepted`, "utf8")) as ReadonlyArray<
        number
      >
      fs.unlinkSync(`${at}-accepted`)
      checkLines(linesOf(at), accepted)
      expect(filesOf(at).length).toBeGreaterThan(1)
    })
  )

  live(
    "LogFile-2, LogFile-6: a full buffer waits, drops the oldest, or fails",
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      // The writer begins a turn later: until then the buffer holds what comes.
      const use = <A, E>(
        onFull: "wait" | "dropOldest" | "fail",
        body: (log: Files.LogFile) => Effect.Effect<A, E>
      ) => Managed.use(Files.logFile(path.join(dir, onFull), { maxBufferedBytes: 8, onFull }), body)
      const three = (log: Files.LogFile) =>
        Effect.forEach(["one", "two", "six"], (line) => log.write(line))
      const full = yield* Effect.flip(use("fail", three))
      expect(full).toMatchObject({ _tag: "LogFileFull", bufferedBytes: 8 })
      expect(full.message).toContain("8 bytes wait")
      expect(linesOf(path.join(dir, "fail"))).toEqual(["one", "two"])
      const stats = yield* use("dropOldest", (log) => Effect.zipRight(three(log), log.stats))
      expect(stats).toMatchObject({ accepted: 3, dropped: 1, bufferedBytes: 8 })
      expect(linesOf(path.join(dir, "dropOldest"))).toEqual(["two", "six"])
      yield* use("wait", (log) =>
        Effect.gen(function*() {
          yield* log.write("one")
          yield* log.write("two")
          const waiting = yield* Effect.forEach(["a", "b", "c"], (line) =>
            Effect.fork(log.write(line)))
          yield* Effect.yieldNow()
          expect(log.unsafeWrite("newcomer")).toBe(false)
          yield* Fiber.interrupt(waiting[1]!)
          yield* Fiber.join(waiting[2]!)
          expect(log.unsafeWrite("d")).toBe(true)
        }))
      expect(linesOf(path.join(dir, "wait"))).toEqual(["one", "two", "a", "c", "d"])
    })
  )

  live(
    "LogFile-5: keeps the newest files, compressed, and finishes what a killed process left",
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      const at = path.join(dir, "app.log")
      // Killed between the compressed file and the removal of the plain one; and before a compression.
      yield* Managed.use(
        Files.logFile(at, { rotate: { maxBytes: 10, gzip: true } }),
        (log) => Effect.forEach(["a 1", "a 2", "a 3"], (line) => log.write(line))
      )
      expect(filesOf(at).map((file) => path.basename(file))).toEqual(["app.log.1.gz", "app.log"])
      fs.writeFileSync(`${at}.1`, "a 1\na 2\n")
      yield* Managed.use(Files.logFile(at, { rotate: {} }), () => Effect.void)
      expect(fs.existsSync(`${at}.1`)).toBe(false)
      fs.writeFileSync(`${at}.7`, "a 4\n")
      fs.writeFileSync(`${at}.old`, "a user's own")
      const rotate = { maxBytes: 10, keep: 3, gzip: true }
      yield* Managed.use(Files.logFile(at, { rotate }), (log) => log.write("a 5"))
      expect(fs.readdirSync(dir).toSorted()).toEqual(
        ["app.log", "app.log.1.gz", "app.log.7.gz", "app.log.old"]
      )
      yield* Managed.use(
        Files.logFile(at, { rotate }),
        (log) => Effect.forEach(["a 6", "a 7", "a 8", "a line that is longer"], (l) => log.write(l))
      )
      fs.unlinkSync(`${at}.old`)
      expect(filesOf(at).map((file) => path.basename(file))).toEqual(
        ["app.log.8.gz", "app.log.9.gz", "app.log.10.gz", "app.log"]
      )
      expect(linesOf(at)).toEqual(["a 3", "a 5", "a 6", "a 7", "a 8", "a line that is longer"])
    })
  )

  it.scoped("LogFile-5: rotates with the first line of a new interval", () =>
    Effect.gen(function*() {
      const at = path.join(yield* Files.tempDirectory(), "app.log")
      yield* TestClock.setTime(Date.now())
      const day = 24 * 3600 * 1000
      yield* Managed.use(
        Files.logFile(at, { rotate: { every: "1 day" } }),
        (log) =>
          Effect.gen(function*() {
            const writeAfter = (days: number, line: string) =>
              Effect.gen(function*() {
                const midnight = (Math.floor(Date.now() / day) + days) * day
                if (days > 0) yield* TestClock.setTime(midnight)
                yield* log.write(line)
                yield* log.flush
              })
            yield* writeAfter(0, "today")
            yield* writeAfter(1, "tomorrow")
            yield* writeAfter(1, "tomorrow too")
            yield* writeAfter(4, "later")
            expect((yield* log.stats).rotations).toBe(2)
          })
      )
      expect(filesOf(at).map(textOf)).toEqual(["today\n", "tomorrow\ntomorrow too\n", "later\n"])
    }))

  live(
    "LogFile-4, LogFile-7: what was accepted is there after any exit; then nothing is accepted",
    Effect.gen(function*() {
      const at = path.join(yield* Files.tempDirectory(), "app.log")
      const descriptors = () => fs.readdirSync("/proc/self/fd").length
      const before = descriptors()
      let kept: Files.LogFile | undefined
      const ends = [Effect.void, Effect.fail("failed"), Effect.die("died"), Effect.interrupt]
      for (const [i, end] of ends.entries()) {
        const exit = yield* Effect.exit(Managed.use(Files.logFile(at), (log) => {
          kept = log
          return Effect.zipRight(log.write(`line ${i}`), end)
        }))
        expect(Exit.isSuccess(exit)).toBe(i === 0)
        expect(linesOf(at).at(-1)).toBe(`line ${i}`)
      }
      expect((yield* Effect.flip(kept!.write("late")))._tag).toBe("LogFileClosed")
      expect(kept!.unsafeWrite("late")).toBe(false)
      yield* kept!.flush
      expect(linesOf(at)).toHaveLength(4)
      expect(descriptors()).toBe(before)
    })
  )

  live(
    "LogFile-1: flush, and reopen after the file was moved",
    Effect.gen(function*() {
      const at = path.join(yield* Files.tempDirectory(), "app.log")
      yield* Managed.use(Files.logFile(at), (log) =>
        Effect.gen(function*() {
          yield* log.write("one")
          yield* log.flush
          expect(linesOf(at)).toEqual(["one"])
          fs.renameSync(at, `${at}.1`)
          yield* log.write("two")
          const reopened = yield* Effect.fork(log.reopen)
          yield* Effect.yieldNow()
          yield* log.write("three")
          yield* Fiber.join(reopened)
          yield* log.write("four")
        }))
      expect(textOf(`${at}.1`).startsWith("one\ntwo\n")).toBe(true)
      expect(linesOf(at)).toEqual(["one", "two", "three", "four"])
      expect(textOf(at)).toContain("four")
    })
  )

  live(
    "opens regular files alone, and never waits for a pipe",
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      const open = (at: string) =>
        Effect.map(
          Effect.flip(Managed.use(Files.logFile(at), () => Effect.void)),
          ({ code, operation }) => `${operation}: ${code}`
        )
      spawnSync("mkfifo", [path.join(dir, "pipe")])
      expect(yield* open(path.join(dir, "pipe"))).toBe("open: ENXIO")
      expect(yield* open("/dev/full")).toBe("open: EINVAL")
      expect(yield* open(path.join(dir, "missing/app.log"))).toBe("open: ENOENT")
    })
  )

  const mayMount =
    spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]).status === 0
  it.scopedLive.skipIf(!mayMount)(
    "LogFile-3: a full disk is a typed error, the file ends with a whole line, and once there is room nothing is lost",
    () =>
      Effect.gen(function*() {
        const dir = yield* Files.tempDirectory()
        const script = `
          import * as Effect from "effect/Effect"
          import * as Managed from "holdfast/Managed"
          import * as Schedule from "effect/Schedule"
          import * as Files from "holdfast/Files"
          import * as fs from "node:fs"
          const [, dir] = process.argv
          const at = dir + "/app.log"
          fs.writeFileSync(dir + "/filler", Buffer.alloc(40_000))
          const text = () => fs.readFileSync(at, "utf8")
          let next = 0
          const program = Managed.use(Files.logFile(at), (log) => Effect.gen(function*() {
            const write = Effect.suspend(() => Effect.tap(log.write("line " + next + " ".repeat(90)), () => { next++ }))
            const batches = Effect.forever(Effect.zipRight(Effect.repeatN(write, 9), log.flush))
            const error = yield* Effect.flip(batches)
            console.log(error._tag, error.operation, error.code, text().endsWith("\\n"))
            console.log((yield* Effect.flip(write)).code)
            fs.unlinkSync(dir + "/filler")
            yield* Effect.retry(write, { while: (error) => error.code === "ENOSPC", schedule: Schedule.spaced("5 millis") })
            yield* write
          }))
          await Effect.runPromise(program)
          const lines = text().split("\\n").slice(0, -1)
          console.log(lines.length === next, lines.every((line, i) => line.trim() === "line " + i))`
        const { stderr, stdout } = spawnSync("unshare", [
          "-rm",
          "sh",
          "-c",
          "mount -t tmpfs -o size=64k tmpfs \"$2\" && exec \"$0\" --input-type=module -e \"$1\" -- \"$2\"",
          process.execPath,
          script,
          dir
        ], { cwd: repository, encoding: "utf8" })
        expect(stderr + stdout).toBe("FileError write ENOSPC true\nENOSPC\ntrue true\n")
      })
  )
})

describe("layerLogger", () => {
  live(
    "LogFile-1: each message is one line, as text, logfmt or JSON",
    Effect.gen(function*() {
      const dir = yield* Files.tempDirectory()
      for (const format of ["text", "logfmt", "json"] as const) {
        const at = path.join(dir, format)
        const layer = Files.layerLogger(at, { format, replace: true })
        const program = Effect.log("two\nlines").pipe(Effect.annotateLogs("key", "value"))
        yield* Effect.provide(Effect.zipRight(program, Effect.logWarning("second")), layer)
        const [first = "", second = "", ...others] = linesOf(at)
        expect(others).toEqual([])
        expect(first).toMatch(/two\\n+lines/)
        expect(second).toMatch(/WARN.*second|second.*WARN/)
        if (format === "json") {
          expect(JSON.parse(first)).toMatchObject({
            message: "two\nlines",
            annotations: { key: "value" }
          })
        } else expect(first).toContain("key=value")
      }
    })
  )
})
