import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Random, type Scope, Stream } from "effect"
import { Ledger, Managed } from "holdfast"
import * as Files from "holdfast/Files"
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { pbkdf2 } from "node:crypto"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"

const root = process.getuid?.() === 0
const repository = path.resolve(import.meta.dirname, "..")

/** A directory of its own, gone with the test. */
const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => {
    const made = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    fs.chmodSync(made, 0o755)
    return made
  }),
  (made) => Effect.sync(() => fs.rmSync(made, { recursive: true, force: true }))
)

const live = <E>(name: string, test: Effect.Effect<unknown, E, Scope.Scope>) =>
  it.scopedLive(name, () => test)

const descriptors = (): number => fs.readdirSync("/proc/self/fd").length

const codeOf = <A, R>(effect: Effect.Effect<A, Files.FileError, R>) =>
  Effect.map(Effect.flip(effect), ({ code, operation }) => `${operation}: ${code}`)

/** Big enough to take several writes, and to be seen if it is torn. */
const whole = (letter: string): string => letter.repeat(3_000_000)

const isWhole = (content: string, length: number): boolean =>
  content.length === length && content === content[0]!.repeat(length)

describe("writeAtomic", () => {
  live(
    "writes text, bytes and streams, and leaves nothing else behind",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const contents = [
        "text ü",
        Buffer.from("bytes"),
        Stream.make(Buffer.from("str"), Buffer.from("eam")),
        "",
        Stream.empty,
        whole("w")
      ]
      const expected = ["text ü", "bytes", "stream", "", "", whole("w")]
      for (const [i, content] of contents.entries()) {
        for (const durability of ["none", "file", "full"] as const) {
          yield* Files.writeAtomic(at, content, { durability })
          expect(fs.readFileSync(at, "utf8")).toBe(expected[i])
        }
      }
      expect(fs.readdirSync(dir)).toEqual(["file"])
    })
  )

  live(
    "keeps the mode of the file it replaces, unless the options give another",
    Effect.gen(function*() {
      const at = path.join(yield* directory, "file")
      const mode = () => (fs.statSync(at).mode & 0o7777).toString(8)
      fs.writeFileSync(at, "old")
      fs.chmodSync(at, 0o646)
      yield* Files.writeAtomic(at, "new")
      expect(mode()).toBe("646")
      yield* Files.writeAtomic(at, "new", { mode: 0o600 })
      expect(mode()).toBe("600")
      fs.chmodSync(at, 0o400)
      yield* Files.writeAtomic(at, "newer")
      expect(mode()).toBe("400")
      expect(fs.readFileSync(at, "utf8")).toBe("newer")
    })
  )

  it.scopedLive.skipIf(!root)(
    "keeps the owner of the file it replaces (only root may give files away)",
    () =>
      Effect.gen(function*() {
        const at = path.join(yield* directory, "file")
        fs.writeFileSync(at, "old")
        fs.chownSync(at, 12_345, 54_321)
        fs.chmodSync(at, 0o4755)
        yield* Files.writeAtomic(at, "new")
        const { gid, mode, uid } = fs.statSync(at)
        expect([uid, gid, mode & 0o7777]).toEqual([12_345, 54_321, 0o4755])
      })
  )

  live(
    "writes through symbolic links, also to where nothing is yet",
    Effect.gen(function*() {
      const dir = yield* directory
      fs.mkdirSync(path.join(dir, "deep"))
      fs.symlinkSync("deep/second", path.join(dir, "first"))
      fs.symlinkSync("../file", path.join(dir, "deep", "second"))
      for (const content of ["made", "replaced"]) {
        yield* Files.writeAtomic(path.join(dir, "first"), content)
        expect(fs.readFileSync(path.join(dir, "file"), "utf8")).toBe(content)
      }
      expect(fs.lstatSync(path.join(dir, "first")).isSymbolicLink()).toBe(true)
      expect(fs.readdirSync(dir).toSorted()).toEqual(["deep", "file", "first"])
      fs.symlinkSync("circle", path.join(dir, "circle"))
      expect(yield* codeOf(Files.writeAtomic(path.join(dir, "circle"), ""))).toBe("follow: ELOOP")
    })
  )

  live(
    "Files-3: a stream that fails leaves the old content and passes its error",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      fs.writeFileSync(at, "old")
      const broken = Stream.concat(Stream.make(Buffer.from("ne")), Stream.fail("broken" as const))
      expect(yield* Effect.flip(Files.writeAtomic(at, broken))).toBe("broken")
      const dying = Stream.concat(Stream.make(Buffer.from("ne")), Stream.die("bug"))
      expect(Exit.isFailure(yield* Effect.exit(Files.writeAtomic(at, dying)))).toBe(true)
      expect(fs.readFileSync(at, "utf8")).toBe("old")
      expect(fs.readdirSync(dir)).toEqual(["file"])
    })
  )

  live(
    "Files-1: of several writers one wins, whole, and readers never see a mix",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      fs.writeFileSync(at, whole("0"))
      const write = (letter: string) => Files.writeAtomic(at, whole(letter), { durability: "none" })
      const writers = yield* Effect.forEach("abcdefgh".split(""), (l) => Effect.fork(write(l)))
      let reads = 0
      while (writers.some((writer) => writer.unsafePoll() === null)) {
        expect(isWhole(fs.readFileSync(at, "latin1"), 3_000_000)).toBe(true)
        reads++
        yield* Effect.promise(() => new Promise(setImmediate))
      }
      for (const writer of writers) yield* Fiber.join(writer)
      expect(reads).toBeGreaterThan(1)
      expect(fs.readFileSync(at, "latin1")[0]).not.toBe("0")
      expect(fs.readdirSync(dir)).toEqual(["file"])
    })
  )
})

describe("writeAtomic, in a directory where others may write", () => {
  const draftIn = (dir: string) =>
    path.join(dir, fs.readdirSync(dir).find((name) => name.endsWith(".draft"))!)

  /** Writes `at`, and puts something else in the place of the draft before the content is whole. */
  const swapped = (at: string, plant: (draft: string) => void) => {
    const planted = Stream.sync(() => {
      const draft = draftIn(path.dirname(at))
      fs.unlinkSync(draft)
      plant(draft)
      return Buffer.from("new")
    })
    return codeOf(Files.writeAtomic(at, planted))
  }

  live(
    "Files-5, Drafts-2: a link planted at the draft's path gives no other file away",
    Effect.gen(function*() {
      const dir = yield* directory
      const [at, victim] = [path.join(dir, "file"), path.join(yield* directory, "victim")]
      fs.writeFileSync(at, "old", { mode: 0o666 })
      fs.chmodSync(at, 0o666)
      if (root) fs.chownSync(at, 12_345, 12_345)
      for (const plant of [fs.symlinkSync, fs.linkSync]) {
        fs.writeFileSync(victim, "secret", { mode: 0o600 })
        const result = yield* swapped(at, (draft) => plant(victim, draft))
        expect(result).toBe("publish: ESTALE")
        const { mode, uid } = fs.statSync(victim)
        expect([uid, mode & 0o777]).toEqual([process.getuid?.(), 0o600])
        expect(fs.readFileSync(at, "utf8")).toBe("old")
        // It was planted by another: not ours to remove.
        fs.unlinkSync(draftIn(dir))
      }
    })
  )

  live(
    "Drafts-2: only the file that was written is published",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const result = yield* swapped(at, (draft) => fs.writeFileSync(draft, "another's"))
      expect(result).toBe("publish: ESTALE")
      expect(fs.existsSync(at)).toBe(false)
      expect(fs.readFileSync(draftIn(dir), "utf8")).toBe("another's")
    })
  )
})

describe("sweep", () => {
  live(
    "Drafts-1: removes what no living process owns, and never a user's own file",
    Effect.gen(function*() {
      const dir = yield* directory
      const held = yield* Files.draftOf(path.join(dir, "song"))
      const mine = path.basename(held.path)
      const [, place, start] = /^\.song\.(\w+)-\d+-(\d+)-/.exec(mine)!
      const dead = spawnSync("true").pid
      const random = "0123456789ab"
      const abandoned = [
        `.song.${place}-${dead}-${start}-${random}.draft`,
        // Its number belongs to another process now.
        `.song.${place}-${process.pid}-${Number(start) + 1}-${random}.draft`,
        // A run before the last boot, silent for two days.
        `.song.ffffffffffff-${dead}-${start}-${random}.draft`
      ]
      const kept = [
        mine,
        "song",
        "song.part",
        ".song.draft",
        `.song.${place}-${dead}-${start}-${random}.draft.bak`,
        `song.${place}-${dead}-${start}-${random}.draft`,
        `.song.eeeeeeeeeeee-${dead}-${start}-${random}.draft`
      ]
      for (const name of [...abandoned, ...kept]) fs.writeFileSync(path.join(dir, name), "x")
      const old = Date.now() / 1000 - 2 * 24 * 3600
      for (const name of [abandoned[2]!, ...kept.slice(1, 6)]) {
        fs.utimesSync(path.join(dir, name), old, old)
      }
      const folder = `.folder.${place}-${dead}-${start}-${random}.draft`
      fs.mkdirSync(path.join(dir, folder))
      const link = `.link.${place}-${dead}-${start}-${random}.draft`
      fs.symlinkSync("song", path.join(dir, link))
      expect(yield* Files.sweep(dir)).toBe(3)
      expect(fs.readdirSync(dir).toSorted()).toEqual([...kept, folder, link].toSorted())
      expect(yield* codeOf(Files.sweep(path.join(dir, "missing")))).toBe("sweep: ENOENT")
    })
  )
})

describe("writers of one file", () => {
  live(
    "Files-6: take turns, first come, first served, by whatever path they name it",
    Effect.gen(function*() {
      const dir = yield* directory
      fs.mkdirSync(path.join(dir, "real"))
      fs.symlinkSync("real", path.join(dir, "alias"))
      fs.symlinkSync("real/file", path.join(dir, "link"))
      const log: Array<string> = []
      const write = (name: string, letter: string) => {
        const drafts = () =>
          fs.readdirSync(path.join(dir, "real")).filter((name) => name.endsWith(".draft")).length
        const content = Stream.fromEffect(
          Effect.zipRight(Effect.yieldNow(), Effect.sync(() => log.push(`${letter}${drafts()}`)))
        )
        return Files.writeAtomic(
          path.join(dir, name),
          Stream.map(content, () => Buffer.from(letter))
        )
      }
      // The first write to a directory sweeps it, which takes time.
      yield* Files.writeAtomic(path.join(dir, "real/file"), "a")
      yield* write("alias/file", "b")
      const fibers = [
        yield* Effect.fork(write("alias/file", "c")),
        yield* Effect.fork(write("link", "e")),
        yield* Effect.fork(write("real/file", "d")),
        yield* Effect.fork(Stream.run(
          Stream.sync(() => (log.push("f"), Buffer.from("f"))),
          Files.atomicSink(path.join(dir, "real/file"))
        ))
      ]
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fibers[2]!)
      for (const fiber of fibers) yield* Fiber.await(fiber)
      expect(log).toEqual(["b1", "c1", "e1", "f"])
      expect(fs.readFileSync(path.join(dir, "real/file"), "utf8")).toBe("f")
      expect(fs.readdirSync(path.join(dir, "real"))).toEqual(["file"])
    })
  )
})

describe("atomicSink", () => {
  live(
    "Files-1, Files-3: replaces at the end of the stream; a stream that fails leaves the old content",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      yield* Stream.run(Stream.make(Buffer.from("on"), Buffer.from("e")), Files.atomicSink(at))
      expect(fs.readFileSync(at, "utf8")).toBe("one")
      const broken = Stream.concat(Stream.make(Buffer.from("tw")), Stream.fail("broken" as const))
      expect(yield* Effect.flip(Stream.run(broken, Files.atomicSink(at)))).toBe("broken")
      const endless = yield* Effect.fork(
        Stream.run(Stream.repeatValue(Buffer.from("x")), Files.atomicSink(at))
      )
      yield* Effect.repeatN(Effect.promise(() => new Promise((done) => setImmediate(done))), 9)
      yield* Fiber.interrupt(endless)
      expect(fs.readFileSync(at, "utf8")).toBe("one")
      expect(fs.readdirSync(dir)).toEqual(["file"])
    })
  )
})

describe("writeAtomic, interrupted", () => {
  const settle = Effect.promise(() => new Promise((done) => setImmediate(done)))

  /** Old or new, never a mix, no draft, and nothing changes after the interrupt has been seen. */
  const check = (dir: string, at: string) =>
    Effect.gen(function*() {
      const look = () => fs.readdirSync(dir).join() + fs.statSync(at).mtimeMs + fs.statSync(at).ino
      const first = look()
      const content = fs.readFileSync(at, "latin1")
      expect(isWhole(content, 3_000_000)).toBe(true)
      expect(fs.readdirSync(dir)).toEqual(["file"])
      yield* Effect.repeatN(settle, 3)
      expect(look()).toBe(first)
      return content[0] === "n"
    })

  const chunks = Stream.fromIterable(Array.from({ length: 30 }, () => Buffer.alloc(100_000, "n")))

  live(
    "Files-1, Files-2: 90 interruptions at random",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      const fds = descriptors()
      const write = (i: number) =>
        Files.writeAtomic(at, i % 2 === 0 ? whole("n") : chunks, {
          durability: i % 3 === 0 ? "full" : "none"
        })
      // How long one takes on this machine now, so that the interruptions fall inside and a little behind.
      let ticks = 0
      const first = yield* Effect.fork(write(1))
      while (first.unsafePoll() === null) {
        yield* settle
        ticks++
      }
      let published = 0
      for (let i = 0; i < 90; i++) {
        fs.writeFileSync(at, whole("o"))
        const fiber = yield* Effect.fork(write(i))
        yield* Effect.repeatN(settle, yield* Random.nextIntBetween(0, Math.ceil(ticks * 1.3)))
        yield* Fiber.interrupt(fiber)
        if (yield* check(dir, at)) published++
      }
      expect(published).toBeLessThan(90)
      expect(descriptors()).toBe(fds)
      yield* Ledger.assertEmpty
      const { site } = (yield* Ledger.snapshot).ended.at(-1)!
      expect(site).toMatch(/test\/Files\.test\.ts:\d+/)
    }).pipe(Effect.provide(Ledger.layer()))
  )

  live(
    "Files-1, Files-2: 96 interruptions, swept over the scheduler's steps",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "file")
      fs.writeFileSync(at, whole("o"))
      const fds = descriptors()
      for (const ops of [14, 17, 23, 2048]) {
        for (let yields = 0; yields < 24; yields++) {
          const writing = Files.writeAtomic(at, whole("n"), { durability: "none" })
          const fiber = yield* Effect.fork(Effect.withMaxOpsBeforeYield(writing, ops))
          yield* Effect.repeatN(yields % 2 === 0 ? Effect.yieldNow() : settle, yields)
          yield* Fiber.interrupt(fiber)
          yield* check(dir, at)
        }
      }
      expect(descriptors()).toBe(fds)
    })
  )

  const script = `
    import * as Effect from "effect/Effect"
    import * as Files from "holdfast/Files"
    const [, path, seed] = process.argv
    const write = (letter) => Files.writeAtomic(path, letter.repeat(3_000_000), { durability: "none" })
    await Effect.runPromise(write("a"))
    setTimeout(() => process.kill(process.pid, "SIGKILL"), Number(seed))
    await Effect.runPromise(Effect.forever(Effect.zipRight(write("b"), write("a"))))`

  /** Killed by itself, so many milliseconds after its first write. */
  const killed = (at: string, millis: number) =>
    Effect.promise(() =>
      new Promise((done) =>
        spawn(process.execPath, ["--input-type=module", "-e", script, at, `${millis}`], {
          cwd: repository,
          stdio: ["ignore", "inherit", "inherit"]
        }).once("close", (_, signal) => done(signal))
      )
    )

  live(
    "Files-1, Files-3: 20 processes killed while they write leave old or new, and the next writer removes their drafts",
    Effect.gen(function*() {
      const dir = yield* directory
      const names = ["a", "b", "c", "d"]
      let drafts = 0
      for (let round = 0; round < 5; round++) {
        // Seeded: 0 to 20 ms, no two alike.
        const kills = names.map((name, i) => killed(path.join(dir, name), (round * 4 + i) * 7 % 21))
        expect(yield* Effect.all(kills, { concurrency: 4 })).toEqual(names.map(() => "SIGKILL"))
        drafts += fs.readdirSync(dir).length - names.length
        for (const name of names) {
          expect(isWhole(fs.readFileSync(path.join(dir, name), "latin1"), 3_000_000)).toBe(true)
        }
      }
      expect(drafts).toBeGreaterThan(0)
      yield* Files.writeAtomic(path.join(dir, "a"), "after")
      expect(fs.readdirSync(dir)).toEqual(names)
    })
  )
})

describe("FileError", () => {
  live(
    "Files-4: carries the operating system's code, and a hint",
    Effect.gen(function*() {
      const dir = yield* directory
      const inside = (name: string) => path.join(dir, name)
      const write = (name: string) => codeOf(Files.writeAtomic(inside(name), "x"))
      fs.writeFileSync(inside("file"), "old")
      fs.mkdirSync(inside("directory"))
      execFileSync("mkfifo", [inside("fifo")])
      expect(yield* write("file/below")).toBe("look at: ENOTDIR")
      expect(yield* write("directory")).toBe("replace: EISDIR")
      expect(yield* write("missing/file")).toBe("create: ENOENT")
      expect(yield* write("n".repeat(256))).toBe("look at: ENAMETOOLONG")
      expect(yield* write("fifo")).toBe("replace: EINVAL")
      expect(yield* codeOf(Files.publish(inside("nothing"), inside("file")))).toBe("open: ENOENT")
      expect(yield* codeOf(Files.publish(inside("file"), inside("missing/file"))))
        .toBe("rename: ENOENT")
      expect(fs.readdirSync(dir).toSorted()).toEqual(["directory", "fifo", "file"])
      expect(fs.readFileSync(inside("file"), "utf8")).toBe("old")
      const error = yield* Effect.flip(Files.writeAtomic(inside("missing/file"), "x"))
      expect(error.message).toMatch(
        /^Could not create .*missing.*: ENOENT\. Make its directory first\.$/
      )
    })
  )

  it.scopedLive.skipIf(root)(
    "Files-4: EACCES (root may write anywhere, so only as an ordinary user)",
    () =>
      Effect.gen(function*() {
        const dir = yield* directory
        fs.writeFileSync(path.join(dir, "file"), "old")
        fs.chmodSync(dir, 0o555)
        expect(yield* codeOf(Files.writeAtomic(path.join(dir, "file"), "x"))).toBe("create: EACCES")
        fs.chmodSync(dir, 0o755)
      })
  )

  /** Tries to replace a file of 100 bytes by one of 1 MB, and prints what came of it. */
  const attempt = `
    import { Effect } from "effect"
    import * as Files from "holdfast/Files"
    import * as fs from "node:fs"
    const at = process.argv[1] + "/file"
    fs.writeFileSync(at, "o".repeat(100))
    const write = Effect.flip(Files.writeAtomic(at, "n".repeat(1_000_000)))
    const { _tag, code, operation } = await Effect.runPromise(write)
    console.log(_tag, operation, code, fs.readdirSync(process.argv[1]).join(), fs.statSync(at).size)`

  live(
    "Files-3, Files-4: a file larger than the process may write",
    Effect.gen(function*() {
      const dir = yield* directory
      const limited = "ulimit -f 64; exec \"$0\" --input-type=module -e \"$1\" -- \"$2\""
      const { stderr, stdout } = spawnSync("sh", ["-c", limited, process.execPath, attempt, dir], {
        cwd: repository,
        encoding: "utf8"
      })
      expect(stderr + stdout).toBe("FileError write EFBIG file 100\n")
    })
  )

  const unshared = ["-rm", "sh", "-c"]
  const mayMount =
    spawnSync("unshare", [...unshared, "mount -t tmpfs -o size=64k tmpfs /mnt"]).status === 0
  it.scopedLive.skipIf(!mayMount)(
    "Files-3, Files-4: a disk that is full (needs a mount namespace)",
    () =>
      Effect.gen(function*() {
        const dir = yield* directory
        const full =
          "mount -t tmpfs -o size=64k tmpfs \"$2\" && exec \"$0\" --input-type=module -e \"$1\" -- \"$2\""
        const { stderr, stdout } = spawnSync("unshare", [
          ...unshared,
          full,
          process.execPath,
          attempt,
          dir
        ], {
          cwd: repository,
          encoding: "utf8"
        })
        expect(stderr + stdout).toBe("FileError write ENOSPC file 100\n")
      })
  )
})

describe("draft", () => {
  live(
    "Files-3: is removed unless published; gone already is no failure",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "deep", "draft")
      const draft = Files.draft(at)
      for (
        const before of [
          () => {},
          () => fs.rmSync(at),
          () => fs.rmSync(path.dirname(at), { recursive: true }),
          () => {
            fs.rmSync(path.dirname(at), { recursive: true })
            fs.writeFileSync(path.dirname(at), "a file where its directory was")
          }
        ]
      ) {
        fs.rmSync(path.dirname(at), { recursive: true, force: true })
        fs.mkdirSync(path.dirname(at))
        yield* Managed.use(
          draft,
          (draft) => Effect.zipRight(draft.write(Buffer.from("x")), Effect.sync(before))
        )
        expect(fs.existsSync(at)).toBe(false)
      }
    })
  )

  live(
    "is exclusive, or replaces the draft of an earlier run",
    Effect.gen(function*() {
      const dir = yield* directory
      const at = path.join(dir, "draft")
      fs.writeFileSync(at, "left by a killed process")
      expect(yield* codeOf(Managed.use(Files.draft(at), () => Effect.void))).toBe("create: EEXIST")
      yield* Managed.use(
        Files.draft(at, { replace: true }),
        (draft) =>
          Effect.zipRight(draft.write(Buffer.from("new")), draft.publish(path.join(dir, "to")))
      )
      expect(fs.readdirSync(dir)).toEqual(["to"])
      expect(fs.readFileSync(path.join(dir, "to"), "utf8")).toBe("new")
    })
  )
})

describe("draftOf", () => {
  live(
    "writes one chunk or many, each byte once, and counts them",
    Effect.gen(function*() {
      const dir = yield* directory
      const to = path.join(dir, "to")
      const chunks = Array.from(
        { length: 2_345 },
        (_, i) => Buffer.alloc(i % 3 === 0 ? 0 : i, 97 + i % 26)
      )
      yield* Managed.use(
        Files.draftOf(to),
        (draft) =>
          Effect.gen(function*() {
            yield* draft.write(Buffer.from("first"))
            yield* draft.truncate(0)
            yield* draft.write([])
            yield* draft.write(chunks)
            yield* draft.write(Buffer.from("last"))
            expect(draft.written).toBe(Buffer.concat(chunks).length + 4)
            yield* draft.publish(to)
          })
      )
      expect(fs.readFileSync(to).equals(Buffer.concat([...chunks, Buffer.from("last")]))).toBe(true)
      expect(fs.readdirSync(dir)).toEqual(["to"])
    })
  )
})

describe("publish", () => {
  live(
    "puts a finished file in the place of another",
    Effect.gen(function*() {
      const dir = yield* directory
      const [from, to] = [path.join(dir, "from"), path.join(dir, "to")]
      for (const durability of ["none", "file", "full"] as const) {
        fs.writeFileSync(from, durability)
        yield* Files.publish(from, to, { durability })
        expect(fs.readFileSync(to, "utf8")).toBe(durability)
        expect(fs.readdirSync(dir)).toEqual(["to"])
      }
    })
  )

  live(
    "Files-2: interrupted while the kernel has not come to it yet, it waits for the kernel",
    Effect.gen(function*() {
      const dir = yield* directory
      const [from, to] = [path.join(dir, "from"), path.join(dir, "to")]
      for (const durability of ["none", "file", "full"] as const) {
        fs.writeFileSync(from, "new")
        fs.writeFileSync(to, "old")
        // Takes every thread that could serve the file system.
        const busy = Array.from(
          { length: 8 },
          () => promisify(pbkdf2)("password", "salt", 30_000, 64, "sha512")
        )
        const fiber = yield* Effect.fork(Files.publish(from, to, { durability }))
        yield* Effect.yieldNow()
        yield* Fiber.interrupt(fiber)
        const seen = fs.readFileSync(to, "utf8")
        yield* Effect.promise(() => Promise.all(busy))
        yield* Effect.promise(() => fs.promises.stat(to))
        expect(fs.readFileSync(to, "utf8"), durability).toBe(seen)
        expect(fs.existsSync(from)).toBe(seen === "old")
      }
    })
  )
})
