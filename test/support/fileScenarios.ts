/**
 * What goes wrong with files: each scenario on ours, and, where the platform has such a call, on that too. The facts count what must
 * not be; of ours all are 0. test/Files/scenarios.test.ts runs ours, `npm run bench -- files-faults` both.
 */
import { FileSystem } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { Effect, Exit, Fiber, Random, type Scope, Stream } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import * as fs from "node:fs"
import * as path from "node:path"

export type Facts = Readonly<Record<string, number>>

type Run = (dir: string, rounds: number) => Effect.Effect<Facts, unknown, Scope.Scope>

export interface Scenario {
  readonly name: string
  readonly ours: Run
  readonly raw?: Run
}

const turn = Effect.promise(() => new Promise((done) => setImmediate(done)))

/** Interrupts `work` after a random part of the time that it takes, `rounds` times; `check` sees what is left. */
const interrupted = (
  rounds: number,
  work: Effect.Effect<unknown, unknown>,
  check: () => void
) =>
  Effect.gen(function*() {
    let turns = 0
    const whole = yield* Effect.fork(work)
    while (whole.unsafePoll() === null) {
      yield* turn
      turns++
    }
    for (let round = 0; round < rounds; round++) {
      const fiber = yield* Effect.fork(work)
      yield* Effect.repeatN(turn, yield* Random.nextIntBetween(0, Math.ceil(turns * 1.2)))
      yield* Fiber.interrupt(fiber)
      check()
    }
  })

const platform = <A, E>(
  f: (fs: FileSystem.FileSystem) => Effect.Effect<A, E, Scope.Scope>
): Effect.Effect<A, E, Scope.Scope> =>
  Effect.provide(Effect.flatMap(FileSystem.FileSystem, f), NodeFileSystem.layer)

const isWhole = (content: string, length: number): boolean =>
  content.length === length && content === content[0]!.repeat(length)

const size = 4 << 20
const content = Buffer.alloc(size, "n")
const chunks = Stream.fromIterable(Array.from({ length: 64 }, () => content.subarray(0, 1 << 16)))

/** An old file is replaced, and the writer interrupted. */
const replaced = (write: (at: string) => Effect.Effect<unknown, unknown>): Run => (dir, rounds) =>
  Effect.gen(function*() {
    const at = path.join(dir, "file")
    const facts = { mixed: 0, "other files": 0 }
    yield* interrupted(rounds, write(at), () => {
      if (!isWhole(fs.readFileSync(at, "latin1"), size)) facts.mixed++
      facts["other files"] += fs.readdirSync(dir).length - 1
      fs.writeFileSync(at, Buffer.alloc(size, "o"))
    })
    return facts
  })

/** An interrupted write, and then a line: where does it land? */
const reused = (at: string, write: (bytes: Uint8Array) => Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    const long = yield* Effect.fork(write(Buffer.alloc(size, "n")))
    yield* Effect.repeatN(turn, 1)
    yield* Fiber.interrupt(long)
    yield* write(Buffer.from("line"))
    const text = fs.readFileSync(at, "latin1")
    return text.endsWith("line") && /^n*line$/.test(text) ? 0 : 1
  })

const died = (exit: Exit.Exit<unknown, unknown>): number => Exit.isFailure(exit) ? 1 : 0

const remove = (at: string) => Effect.sync(() => fs.rmSync(at, { recursive: true }))

export const scenarios: ReadonlyArray<Scenario> = [
  {
    name: "4 MiB over an old file, interrupted",
    ours: replaced((at) => Files.writeAtomic(at, content, { durability: "none" })),
    raw: replaced((at) => Effect.scoped(platform((fs) => fs.writeFile(at, content))))
  },
  {
    name: "a stream into a sink, interrupted",
    ours: replaced((at) => Stream.run(chunks, Files.atomicSink(at, { durability: "none" }))),
    raw: replaced((at) => Effect.scoped(platform((fs) => Stream.run(chunks, fs.sink(at)))))
  },
  {
    name: "an interrupted write, and the same handle again",
    ours: (dir, rounds) =>
      Effect.gen(function*() {
        let overwritten = 0
        for (let round = 0; round < rounds; round++) {
          const used = Managed.use(
            Files.draftOf(path.join(dir, "file")),
            (draft) => reused(draft.path, draft.write)
          )
          overwritten += yield* used
        }
        return { overwritten }
      }),
    raw: (dir, rounds) =>
      Effect.gen(function*() {
        let overwritten = 0
        for (let round = 0; round < rounds; round++) {
          const at = path.join(dir, `${round}`)
          const used = platform((fs) =>
            Effect.flatMap(fs.open(at, { flag: "w" }), (file) =>
              reused(at, (bytes) => file.writeAll(bytes)))
          )
          overwritten += yield* Effect.scoped(used)
        }
        return { overwritten }
      })
  },
  {
    name: "a temporary directory that is gone before its owner",
    ours: (dir) =>
      Effect.map(
        Effect.exit(Managed.use(Files.tempDirectory({ directory: dir }), remove)),
        (exit) => ({ failed: died(exit) })
      ),
    raw: (dir) =>
      Effect.map(
        Effect.exit(
          Effect.scoped(
            platform((fs) => Effect.flatMap(fs.makeTempDirectoryScoped({ directory: dir }), remove))
          )
        ),
        (exit) => ({ failed: died(exit) })
      )
  },
  {
    name: "a temporary file that cannot be opened",
    ours: (dir) =>
      Effect.map(
        Effect.exit(
          Managed.use(Files.tempFile({ directory: dir, suffix: "/x" }), () => Effect.void)
        ),
        () => ({ left: fs.readdirSync(dir).length })
      ),
    raw: (dir) =>
      Effect.map(
        Effect.exit(Effect.scoped(
          platform((fs) => fs.makeTempFileScoped({ directory: dir, suffix: "/x" }))
        )),
        () => ({ left: fs.readdirSync(dir).length })
      )
  }
]

/** Each operation, to be interrupted at any of its steps. */
export const operations: Readonly<
  Record<string, (dir: string) => Effect.Effect<unknown, unknown>>
> = {
  writeAtomic: (dir) => Files.writeAtomic(path.join(dir, "file"), "new", { durability: "none" }),
  atomicSink: (dir) =>
    Stream.run(
      Stream.make(Buffer.from("n"), Buffer.from("ew")),
      Files.atomicSink(path.join(dir, "file"), { durability: "none" })
    ),
  draftOf: (dir) =>
    Managed.use(Files.draftOf(path.join(dir, "file")), ({ write }) => write(Buffer.from("new"))),
  tempFile: (dir) => Managed.use(Files.tempFile({ directory: dir }), () => Effect.yieldNow()),
  tempDirectory: (dir) =>
    Managed.use(Files.tempDirectory({ directory: dir }), () => Effect.yieldNow()),
  logFile: (dir) =>
    Managed.use(
      Files.logFile(path.join(dir, "log"), { maxBufferedBytes: 4 }),
      (log) => Effect.zipRight(log.write("one"), log.write("two"))
    ),
  tail: (dir) => Stream.runDrain(Files.tail(path.join(dir, "file"), { fromStart: true })),
  lockedPath: (dir) => Files.lockedPath(path.join(dir, "file"))(Effect.yieldNow())
}

const descriptors = (): number => fs.readdirSync("/proc/self/fd").length

/** Interrupts an operation `rounds` times, at another step each time. */
export const swept = (
  operation: (dir: string) => Effect.Effect<unknown, unknown>,
  dir: string,
  rounds: number
): Effect.Effect<Facts> =>
  Effect.gen(function*() {
    const at = path.join(dir, "file")
    fs.writeFileSync(at, "old")
    fs.writeFileSync(path.join(dir, "log"), "")
    yield* Effect.ignore(Effect.timeout(operation(dir), "100 millis"))
    const before = descriptors()
    const facts = { mixed: 0, "other files": 0, descriptors: 0 }
    for (let round = 0; round < rounds; round++) {
      const fiber = yield* Effect.fork(
        Effect.withMaxOpsBeforeYield(operation(dir), 14 + round % 29)
      )
      yield* Effect.repeatN(round % 2 === 0 ? Effect.yieldNow() : turn, Math.floor(round / 2) % 13)
      yield* Fiber.interrupt(fiber)
      if (!["old", "new"].includes(fs.readFileSync(at, "utf8"))) facts.mixed++
      facts["other files"] += fs.readdirSync(dir).length - 2
    }
    facts.descriptors = descriptors() - before
    return facts
  })
