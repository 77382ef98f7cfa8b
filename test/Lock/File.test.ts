import { afterAll, describe, expect, it } from "@effect/vitest"
import { Config, ConfigProvider, Deferred, Effect, Exit, Fiber, Option } from "effect"
import * as Lock from "holdfast/Lock"
import * as LockFile from "holdfast/Lock/File"
import { type ChildProcess, spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import {
  eventually,
  failuresOf,
  freshKey,
  lockContract,
  rises,
  turns,
  unguardedCounter
} from "../Lock.contract.ts"

const root = path.resolve(import.meta.dirname, "../..")
const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
fs.chmodSync(directory, 0o755)
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }))

const namespace = `test-${process.pid}-${randomBytes(4).toString("hex")}`
const linux = process.platform === "linux"

const kinds: ReadonlyArray<readonly [string, LockFile.Options]> = [
  ...(linux ? [["abstract", { namespace }]] as const : []),
  ["socket files", { namespace, sockets: "file", directory }]
]

/** How many sockets this process has. */
const pipes = (): number =>
  process.getActiveResourcesInfo().filter((name) => name === "PipeWrap").length

/** A process of its own that runs `body` (with `lock` and `Effect` in scope) on the built package. */
const child = (options: LockFile.Options, body: string): ChildProcess =>
  spawn(process.execPath, [
    "--input-type=module",
    "-e",
    `import { Effect } from "effect"
import * as LockFile from "holdfast/Lock/File"
import * as fs from "node:fs"
const lock = await Effect.runPromise(LockFile.make(${JSON.stringify(options)}))
${body}`
  ], { cwd: root, stdio: ["ignore", "pipe", "inherit"] })

const saysSo = (process: ChildProcess): Effect.Effect<void> =>
  Effect.async((resume) => {
    process.stdout?.once("data", () => resume(Effect.void))
    process.once("exit", () => resume(Effect.void))
  })

const ended = (process: ChildProcess): Effect.Effect<number | string | null> =>
  Effect.async((resume) => {
    const done = (): void => resume(Effect.succeed(process.exitCode ?? process.signalCode))
    if (process.exitCode !== null || process.signalCode !== null) done()
    else process.once("exit", done)
  })

/** A child that holds `key`, killed when the scope closes. */
const holding = (options: LockFile.Options, key: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      child(
        options,
        `setInterval(() => {}, 1000)
await Effect.runPromise(lock.withLock(${JSON.stringify(key)}, { label: "child" })(
  Effect.zipRight(Effect.sync(() => console.log("held")), Effect.never)
))`
      )
    ),
    (holder) => {
      holder.kill("SIGKILL")
      return ended(holder)
    }
  ).pipe(Effect.flatMap((holder) => Effect.as(saysSo(holder), holder)))

for (const [kind, options] of kinds) {
  lockContract(`file (${kind})`, {
    one: LockFile.make(options),
    two: LockFile.make(options),
    offsets: 48,
    queued: turns(20),
    step: turns
  })

  describe(`file (${kind})`, () => {
    it.scopedLive("LockFile-1: a killed holder frees the key at once, and a waiter gets it", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const lock = yield* LockFile.make(options)
        const process = yield* holding(options, key)
        expect(Option.getOrThrow(yield* lock.inspect(key)).holder).toContain(
          `:${process.pid}:child`
        )
        const waiter = yield* Effect.fork(
          lock.withLock(key)((lease) => Effect.succeed(lease.fence))
        )
        yield* turns(20)
        process.kill("SIGKILL")
        expect(yield* Fiber.join(waiter)).toBeGreaterThan(0n)
        expect(yield* lock.inspect(key)).toEqual(Option.none())
      }))

    it.scopedLive("LockFile-1: a stopped holder still holds, though it does not answer", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const lock = yield* LockFile.make(options)
        const process = yield* holding(options, key)
        process.kill("SIGSTOP")
        expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.none())
        const exit = yield* Effect.exit(
          lock.withLock(key, { acquireTimeout: "100 millis" })(Effect.void)
        )
        expect(failuresOf(exit)).toMatchObject([{
          _tag: "LockTimeout",
          holder: { holder: "a process that does not answer (stopped?)" }
        }])
        process.kill("SIGCONT")
        process.kill("SIGKILL")
        expect(yield* lock.withLock(key)(Effect.succeed("mine"))).toBe("mine")
      }))

    it.scopedLive("LockFile-1, LockFile-3, LockFile-4: two processes lose no update of an unguarded counter, and their fences rise", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const { fences, increments, read } = unguardedCounter(directory, `counter-${kind}`, key)
        const processes = yield* Effect.acquireRelease(
          Effect.sync(() => [1, 2].map(() => child(options, increments(150)))),
          (processes) => Effect.sync(() => processes.forEach((process) => process.kill("SIGKILL")))
        )
        for (const process of processes) expect(yield* ended(process)).toBe(0)
        expect(read()).toBe("300")
        expect(rises(fences)).toBe(300)
      }))

    it.scopedLive("LockFile-6: three clients that always have waiters of their own take turns", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const order: Array<number> = []
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (const client of [0, 1, 2]) {
          const lock = yield* LockFile.make(options)
          const use = lock.withLock(key)(Effect.sync(() => order.push(client)))
          for (let i = 0; i < 3; i++) fibers.push(yield* Effect.fork(Effect.repeatN(use, 14)))
        }
        for (const fiber of fibers) yield* Fiber.join(fiber)
        expect(order.length).toBe(135)
        // While all three contend, each has half of an equal share at least: a newcomer may come first in the instant of a hand-over.
        const middle = order.slice(15, 105)
        const shares = [0, 1, 2].map((client) => middle.filter((one) => one === client).length)
        expect(Math.min(...shares)).toBeGreaterThan(15)
      }))

    it.scopedLive("LockFile-6: the process that has waited longest is next", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const order: Array<number> = []
        const isHeld = yield* Deferred.make<void>()
        const mayEnd = yield* Deferred.make<void>()
        const before = pipes()
        const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
        for (const client of [0, 1, 2, 3]) {
          const lock = yield* LockFile.make(options)
          const use = Deferred.succeed(isHeld, undefined).pipe(
            Effect.zipRight(Deferred.await(mayEnd)),
            Effect.zipRight(Effect.sync(() => order.push(client)))
          )
          fibers.push(yield* Effect.fork(lock.withLock(key)(use)))
          if (client === 0) yield* Deferred.await(isHeld)
          // Each begins to wait at a time of its own, in milliseconds.
          yield* Effect.sleep("2 millis")
        }
        // Both ends of three connections.
        yield* eventually(() => pipes() - before >= 6)
        yield* turns(20)
        yield* Deferred.succeed(mayEnd, undefined)
        for (const fiber of fibers) yield* Fiber.join(fiber)
        expect(order).toEqual([0, 1, 2, 3])
      }))

    it.scopedLive("LockFile-2: an interrupted waiter has closed its socket", () =>
      Effect.gen(function*() {
        const key = freshKey()
        const lock = yield* LockFile.make(options)
        yield* holding(options, key)
        const waiter = yield* Effect.fork(lock.withLock(key)(Effect.void))
        const before = pipes()
        yield* turns(20)
        expect(Exit.isInterrupted(yield* Fiber.interrupt(waiter))).toBe(true)
        yield* turns(5)
        expect(pipes()).toBeLessThanOrEqual(before)
      }))
  })
}

describe("fences", () => {
  it.scopedLive("LockFile-4: with a directory the counter outlives the service, and never falls below the clock", () =>
    Effect.gen(function*() {
      const key = freshKey()
      const started = BigInt(Date.now()) * 1000n
      const fenceOf = Effect.flatMap(
        LockFile.make({ namespace, directory }),
        (lock) => lock.withLock(key)((lease) => Effect.succeed(lease.fence))
      )
      const first = yield* fenceOf
      expect(first).toBeGreaterThanOrEqual(started)
      const file = fs.readdirSync(directory).find((name) =>
        name.endsWith(".fence")
        && fs.readFileSync(path.join(directory, name), "utf8").trim() === first.toString()
      )
      // As if the clock had been an hour ahead when the last fence was drawn.
      const ahead = first + 3_600_000_000n
      fs.writeFileSync(path.join(directory, file!), `${ahead}\n`)
      expect(yield* fenceOf).toBe(ahead + 1n)
    }).pipe(Effect.when(() => linux)))

  it.scopedLive("LockFile-4: without one, a release waits until the clock has passed the fence", () =>
    Effect.gen(function*() {
      const lock = yield* LockFile.make({ namespace, sockets: "abstract" })
      for (let i = 0; i < 20; i++) {
        const fence = yield* lock.withLock(`k${i}`)((lease) => Effect.succeed(lease.fence))
        expect(BigInt(Date.now()) * 1000n > fence).toBe(true)
      }
    }).pipe(Effect.when(() => linux)))
})

it.scopedLive("a foreign listener that answers nonsense is a holder, too", () =>
  Effect.gen(function*() {
    const key = freshKey()
    const lock = yield* LockFile.make({ namespace, sockets: "file", directory })
    const socket = path.join(directory, "stranger")
    const server = net.createServer((peer) => {
      peer.on("error", () => {})
      peer.write("hello\n")
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => {
        server.listen(socket, () => resume(Effect.void))
      }),
      () => Effect.sync(() => server.close())
    )
    yield* Effect.scoped(lock.get(key))
    const claim = fs.readdirSync(directory).filter((name) => /^[0-9a-f]{32}\.\d+$/.test(name))
      .map((name) => path.join(directory, name))
      .toSorted((a, b) => fs.statSync(b).mtimeMs - fs.statSync(a).mtimeMs)[0]!
    fs.writeFileSync(claim, "stranger")
    expect(yield* lock.tryWithLock(key)(Effect.void)).toEqual(Option.none())
    expect(Option.getOrThrow(yield* lock.inspect(key)).holder).toContain("does not answer")
  }))

it.scopedLive("LockFile-7: `make` removes what dead processes left, not what lives or is young", () =>
  Effect.gen(function*() {
    const left = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    yield* Effect.addFinalizer(() => Effect.sync(() => fs.rmSync(left, { recursive: true })))
    const file = (name: string) => path.join(left, name)
    const listening = (name: string) =>
      `require("net").createServer().listen(${JSON.stringify(file(name))}, () => console.log("up"))`
    const killed = spawn(process.execPath, [
      "-e",
      `${listening("hf-00000000dead")};${listening("hf-0000000000aa")}`
    ], { stdio: ["ignore", "pipe", "inherit"] })
    yield* Effect.async<void>((resume) => {
      let lines = 0
      killed.stdout.on("data", (bytes: Buffer) => {
        lines += `${bytes}`.split("up").length - 1
        if (lines === 2) resume(Effect.void)
      })
    })
    killed.kill("SIGKILL")
    yield* ended(killed)
    fs.writeFileSync(file("hf-00000000dead.claim"), "hf-00000000dead")
    const lock = yield* LockFile.make({ namespace, sockets: "file", directory: left })
    const key = freshKey()
    const [before, during] = yield* lock.withLock(key)(Effect.gen(function*() {
      const before = fs.readdirSync(left)
      const old = new Date(Date.now() - 120_000)
      for (const name of before.filter((name) => !name.endsWith("aa"))) {
        fs.utimesSync(file(name), old, old)
      }
      const other = yield* LockFile.make({ namespace, sockets: "file", directory: left })
      expect(yield* other.tryWithLock(key)(Effect.void)).toEqual(Option.none())
      return [before, fs.readdirSync(left)] as const
    }))
    const gone = before.filter((name) => !during.includes(name))
    expect(gone.toSorted()).toEqual(["hf-00000000dead", "hf-00000000dead.claim"])
  }))

it.scopedLive("a directory too long for a socket, in bytes, is refused before anything is made", () =>
  Effect.gen(function*() {
    const deep = path.join(directory, "é".repeat(45))
    const error = yield* Effect.flip(
      LockFile.make({ namespace, sockets: "file", directory: deep })
    )
    expect(error).toMatchObject({ _tag: "LockUnsupported", why: "platform" })
    expect(fs.existsSync(deep)).toBe(false)
  }))

/** Listens on the name of `key` as any account of the host may, and answers with `line`. */
const squat = (key: string, line: string) =>
  Effect.acquireRelease(
    Effect.async<net.Server>((resume) => {
      const digest = createHash("sha256").update(namespace).update("\0").update(key).digest("hex")
      const server = net.createServer((socket) => {
        socket.on("error", () => {})
        socket.write(`${line}\n`)
      })
      server.listen(
        `\0holdfast:${namespace.slice(0, 24)}:${digest}`,
        () => resume(Effect.succeed(server))
      )
    }),
    (server) => Effect.sync(() => server.close())
  )

describe.runIf(linux)("a name that another account holds", () => {
  const unprintable = /\p{Cc}/u

  it.scopedLive("one whose line is too long is a holder, too", () =>
    Effect.gen(function*() {
      const lock = yield* LockFile.make({ namespace })
      const key = freshKey()
      yield* squat(key, "x".repeat(1_000_000))
      expect(Option.getOrThrow(yield* lock.inspect(key)).holder).toContain("does not answer")
    }))

  it.scopedLive("LockFile-5: the owner that it claims to be reaches errors and `inspect` without control characters", () =>
    Effect.gen(function*() {
      const lock = yield* LockFile.make({ namespace })
      const key = freshKey()
      const owner = "root\u009b2J\u001b[31m\u001b]0;title\u0007:1#1"
      yield* squat(key, JSON.stringify({ pid: 1, host: "h", owner, since: 1, fence: "7" }))
      const holder = Option.getOrThrow(yield* lock.inspect(key))
      expect(holder).toMatchObject({ since: 1, fence: 7n })
      expect(holder.holder).toContain("root")
      expect(holder.holder).not.toMatch(unprintable)
      const error = yield* Effect.flip(
        lock.withLock(key, { acquireTimeout: "20 millis" })(Effect.void)
      )
      expect(error.message).toContain("root")
      expect(error.message).not.toMatch(unprintable)
    }))

  it.scopedLive("LockFile-5: the label of our own account is believed, that of another is shown as its claim", () =>
    Effect.gen(function*() {
      const lock = yield* LockFile.make({ namespace })
      const ours = freshKey()
      const holder = yield* lock.withLock(ours, { label: "nightly" })(
        Effect.flatMap(LockFile.make({ namespace }), (other) => other.inspect(ours))
      )
      expect(Option.getOrThrow(holder).holder).toMatch(/^[^"]+:nightly#1$/)
      if (process.getuid?.() !== 0) return
      const theirs = freshKey()
      const digest = createHash("sha256").update(namespace).update("\0").update(theirs).digest(
        "hex"
      )
      const line = JSON.stringify({
        pid: process.pid,
        owner: `${os.hostname()}:${process.pid}:nightly#1`
      })
      const squatter = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, [
            "-e",
            `require("net").createServer((socket) => socket.on("error", () => {}).write(${
              JSON.stringify(`${line}\n`)
            })).listen("\\0holdfast:${namespace.slice(0, 24)}:${digest}", () => console.log("up"))`
          ], { uid: 65_534, gid: 65_534, cwd: "/", stdio: ["ignore", "pipe", "inherit"] })
        ),
        (child) => {
          child.kill("SIGKILL")
          return ended(child)
        }
      )
      yield* saysSo(squatter)
      const { message } = yield* Effect.flip(
        lock.withLock(theirs, { acquireTimeout: "20 millis" })(Effect.void)
      )
      expect(message).toContain(`an account unknown to us, which calls itself "${os.hostname()}`)
    }))

  it.scopedLive("LockFile-5: an answer of other types is a holder without a name", () =>
    Effect.gen(function*() {
      const lock = yield* LockFile.make({ namespace })
      for (const owner of [7, { toString: 1 }, null]) {
        const key = freshKey()
        yield* squat(key, JSON.stringify({ owner, since: "now", fence: "7" }))
        const holder = Option.getOrThrow(yield* lock.inspect(key))
        expect([typeof holder.holder, holder.since]).toEqual(["string", undefined])
      }
    }))
})

it.scopedLive("`layerConfig` reads its options from the configuration, and fails with what is missing there", () =>
  Effect.gen(function*() {
    const config = { namespace: Config.string("NAMESPACE"), directory: Config.succeed(directory) }
    const key = freshKey()
    const use = (values: ReadonlyMap<string, string>) =>
      Lock.withLock((lease) => Effect.succeed(lease.key), key).pipe(
        Effect.provide(LockFile.layerConfig(config)),
        Effect.withConfigProvider(ConfigProvider.fromMap(new Map(values)))
      )
    expect(yield* use(new Map([["NAMESPACE", namespace]]))).toBe(key)
    expect(String(yield* Effect.flip(use(new Map())))).toContain("NAMESPACE")
  }))
