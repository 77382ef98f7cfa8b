/**
 * Programs that want to be judged wrongly: wrong ones that look clean, right ones that look broken, and ones that nobody can
 * judge. Half of them do real I/O: files, sockets, servers, HTTP, child processes, native timers and promises. Each comes with
 * its rightful verdict; the wrong ones with the law that they break.
 */
import {
  Clock,
  Context,
  Effect,
  Exit,
  Fiber,
  PubSub,
  Queue,
  Resource,
  Runtime,
  Schedule,
  Scheduler,
  Scope
} from "effect"
import { Explore, type Probe } from "holdfast/Testing"
import * as Child from "node:child_process"
import * as Crypto from "node:crypto"
import * as Dns from "node:dns/promises"
import { once } from "node:events"
import { createReadStream, createWriteStream, type FSWatcher, watch } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Http from "node:http"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Stream from "node:stream/promises"
import * as Zlib from "node:zlib"

type Rightful = "safe" | "inconclusive" | Explore.Violation["law"]

/** A program and what must be said about it. */
export interface Hostile {
  readonly name: string
  readonly rightful: Rightful
  /** Does real I/O, or waits for something native. */
  readonly isReal: boolean
  /** Judged by `npm test` too. */
  readonly isFast: boolean
  readonly explore: () => Promise<Explore.Verdict>
}

/** What a verdict says of a program, in the words of `rightful`. */
export const saidOf = (verdict: Explore.Verdict, { rightful }: Hostile): string => {
  const laws = verdict.findings.flatMap(({ violations }) => violations.map(({ law }) => law))
  const isFound = verdict.status === "violations" && !verdict.passed
    && laws.some((law) => law === rightful)
  if (isFound) return rightful
  const isConsistent = verdict.passed === (verdict.status === "safe")
  return `${verdict.status}${isConsistent ? "" : ", though it should not pass"}`
}

type Subject<S> = Omit<Explore.Subject<S>, "name">
type Use = Effect.Effect<unknown, unknown, Scope.Scope>

// Each takes long, or is like one in `Testing/verdicts.test.ts`.
const slow: ReadonlySet<string> = new Set([
  "fails, as expected, and leaks when interrupted",
  "a leak while a cache of a minute is warm",
  "a leak of the second use",
  "a drain of three minutes",
  "a sleep of five minutes",
  "a drain of an hour",
  "a drain of an hour, with time for it",
  "a heartbeat, and a leak",
  "closes what is not there yet",
  "a daemon that uses what is closed",
  "a release that is cut half-way",
  "a scope of each key that stays open by design",
  "a release through a native promise",
  "a release through `then`",
  "a release through `runFork`",
  "copies a file through a stream",
  "fetches, and aborts",
  "counts requests that are under way, and not those that are cut",
  "asks over a unix socket",
  "asks on a connection that the setup holds",
  "counts the questions on a connection that the setup holds",
  "runs a fiber in the callback of a timer",
  "a heartbeat of a millisecond",
  "a resource that renews itself",
  "waits for ever beside a heartbeat",
  "closes the outer scope first",
  "closes the inner scope first",
  "swallows its interrupt for eight rounds",
  "three brackets, one in the other",
  "a native timer of a minute",
  "an interval that success alone ends",
  "a temporary file that is always removed",
  "compresses",
  "leaves its socket open when it is cut",
  "a server that success alone stops",
  "watches a file until it is cut, and goes on",
  "an answer that never comes",
  "a timeout on an answer that never comes",
  "leaves its child process running",
  "waits for a child process"
])

const options: Explore.Options = { budget: { runs: 20_000, millis: 120_000 } }

const hostile = <S = void>(
  rightful: Rightful,
  name: string,
  subject: Subject<S>,
  settings?: Explore.Options
): Hostile => ({
  name,
  rightful,
  isReal: false,
  isFast: !slow.has(name),
  explore: () => Explore.interruptions({ name, ...subject }, { ...options, ...settings })
})

const real = <S = void>(
  rightful: Rightful,
  name: string,
  subject: Subject<S>,
  settings?: Explore.Options
): Hostile => ({ ...hostile(rightful, name, subject, settings), isReal: true })

const careless = (probe: Probe.Probe): Use =>
  Effect.flatMap(
    probe.acquire("r"),
    (handle) => Effect.zipRight(Effect.sleep(1), probe.release(handle))
  )

const careful = (probe: Probe.Probe): Use =>
  Effect.acquireUseRelease(
    probe.acquire("r"),
    () => Effect.sleep(1),
    (handle) => probe.release(handle)
  )

const isInterrupt = Exit.isInterrupted
const later = (done: () => void) => Promise.resolve().then(done)

class Missing extends Context.Tag("Missing")<Missing, number>() {}

interface Count {
  open: number
}

const counted = { setup: Effect.sync((): Count => ({ open: 0 })) }
const isZero = ({ open }: Count) => open === 0 ? true : `${open} open`

/** Opens, waits, and closes in a way of its own when it is interrupted. */
const closes = (how: (close: () => void) => Effect.Effect<unknown>): Subject<Count> => ({
  ...counted,
  body: (state) => {
    const close = () => {
      state.open--
    }
    return Effect.acquireUseRelease(
      Effect.sync(() => state.open++),
      () => Effect.sleep(1),
      (_, exit) => isInterrupt(exit) ? how(close) : Effect.sync(close)
    )
  },
  invariant: isZero
})

/** Two scopes, the second opened inside the first, and the order in which an interrupt closes them. */
const nested = (rightly: boolean) => (_: void, probe: Probe.Probe) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const outer = yield* Scope.make()
      yield* Scope.extend(probe.resource("connection"), outer)
      const inner = yield* Scope.make()
      yield* Scope.extend(probe.resource("transaction"), inner)
      yield* Effect.onExit(restore(Effect.sleep(1)), (exit) =>
        rightly || Exit.isSuccess(exit)
          ? Effect.zipRight(Scope.close(inner, exit), Scope.close(outer, exit))
          : Effect.zipRight(Scope.close(outer, exit), Scope.close(inner, exit)))
    })
  )

const rounds = (count: number) => () =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      for (let round = 0; round < count; round++) yield* Effect.exit(restore(Effect.sleep(1)))
    })
  )

// State outside of every setup: what these programs are about.
const memo = { value: undefined as number | undefined, permits: 1, runs: 0 }

const virtual: ReadonlyArray<Hostile> = [
  // Bodies that never work.
  hostile("inconclusive", "always fails", { body: () => Effect.fail("no") }),
  hostile("inconclusive", "always dies", { body: () => Effect.die("no") }),
  hostile("inconclusive", "throws as it is called", {
    body: () => {
      throw new Error("no")
    }
  }),
  hostile("inconclusive", "is an async function", {
    body: (() => Promise.resolve(1)) as unknown as () => Use
  }),
  hostile("inconclusive", "lacks a service", { body: () => Missing as unknown as Use }),
  hostile("inconclusive", "interrupts itself", { body: () => Effect.interrupt }),
  hostile("inconclusive", "its setup fails", { setup: Effect.fail("no"), body: () => Effect.void }),
  hostile("inconclusive", "its setup never ends", { setup: Effect.never, body: () => Effect.void }),
  hostile(
    "inconclusive",
    "its setup spins",
    { setup: Effect.forever(Effect.void), body: () => Effect.void },
    { opLimit: 5_000 }
  ),
  hostile("inconclusive", "never ends", { body: () => Effect.never }),
  hostile("inconclusive", "its daemon dies each time", {
    body: () => Effect.forkDaemon(Effect.die("no"))
  }),
  hostile("inconclusive", "leaves a daemon each time", {
    body: () => Effect.forkDaemon(Effect.never)
  }),
  hostile("inconclusive", "leaks each time", { body: (_, probe) => probe.acquire("r") }),
  hostile("safe", "fails, as expected", {
    body: (_, probe) => Effect.zipRight(careful(probe), Effect.fail("no")),
    fails: true
  }),
  hostile("all is released", "fails, as expected, and leaks when interrupted", {
    body: (_, probe) => Effect.zipRight(careless(probe), Effect.fail("no")),
    fails: true
  }),
  // State that survives.
  hostile("inconclusive", "a memo that the first run warms", {
    body: (_, probe) =>
      Effect.suspend(() => {
        if (memo.value !== undefined) return Effect.void
        return Effect.tap(careless(probe), () => {
          memo.value = 1
        })
      }).pipe(
        Effect.ensuring(Effect.sync(() => ++memo.runs % 50 === 0 && (memo.value = undefined)))
      )
  }),
  hostile("inconclusive", "another order in each run", {
    body: () => Effect.suspend(() => Effect.repeatN(Effect.yieldNow(), ++memo.runs % 3))
  }),
  // Out of sight.
  hostile("inconclusive", "a scheduler of its own", {
    body: () => Effect.withScheduler(Effect.yieldNow(), new Scheduler.MixedScheduler(2048))
  }),
  hostile("all is released", "a leak while a cache of a minute is warm", {
    setup: Effect.gen(function*() {
      const cache = { warm: true }
      const cool = Effect.sync(() => {
        cache.warm = false
      })
      yield* Effect.forkScoped(Effect.zipRight(Effect.sleep("1 minute"), cool))
      return cache
    }),
    body: (cache, probe) => cache.warm ? careless(probe) : Effect.sleep(1)
  }),
  hostile("all is released", "a leak of the second use", {
    setup: Effect.sync(() => ({ uses: 0 })),
    body: (state, probe) =>
      Effect.suspend(() => ++state.uses === 2 ? careless(probe) : Effect.sleep(1))
  }, { uses: [1, 2] }),
  // Long, and restless.
  hostile("safe", "a drain of three minutes", {
    body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.sleep("3 minutes"))
  }),
  hostile("safe", "a sleep of five minutes", { body: () => Effect.sleep("5 minutes") }),
  hostile("inconclusive", "a drain of an hour", {
    body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.sleep("1 hour"))
  }),
  hostile("safe", "a drain of an hour, with time for it", {
    body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.sleep("1 hour"))
  }, { horizon: "2 hours" }),
  hostile("safe", "a heartbeat of a millisecond", {
    setup: Effect.forkScoped(Effect.forever(Effect.sleep(1))),
    body: (_, probe) => careful(probe)
  }),
  hostile("all is released", "a heartbeat, and a leak", {
    setup: Effect.forkScoped(Effect.forever(Effect.sleep(5))),
    body: (_, probe) => careless(probe)
  }),
  hostile("safe", "a resource that renews itself", {
    setup: Resource.auto(Effect.succeed(1), Schedule.spaced(10)),
    body: (resource) => Resource.get(resource)
  }),
  hostile("the target exits", "waits for ever beside a heartbeat", {
    setup: Effect.forkScoped(Effect.forever(Effect.sleep("1 second"))),
    body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.never)
  }),
  // Laws.
  hostile("no defect", "closes what is not there yet", {
    body: () =>
      Effect.suspend(() => {
        let connection = undefined as { close: () => void } | undefined
        const connect = Effect.sync(() => {
          connection = { close: () => {} }
        })
        return Effect.zipRight(Effect.sleep(1), connect).pipe(
          Effect.ensuring(Effect.sync(() => connection!.close()))
        )
      })
  }),
  hostile("safe", "closes what may not be there", {
    body: () =>
      Effect.suspend(() => {
        let connection = undefined as { close: () => void } | undefined
        const connect = Effect.sync(() => {
          connection = { close: () => {} }
        })
        return Effect.zipRight(Effect.sleep(1), connect).pipe(
          Effect.ensuring(Effect.sync(() => connection?.close()))
        )
      })
  }),
  hostile("no defect", "a daemon that uses what is closed", {
    setup: Effect.sync(() => ({ isOpen: true })),
    body: (state) =>
      Effect.scoped(Effect.gen(function*() {
        state.isOpen = true
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => {
            state.isOpen = false
          })
        )
        const use = Effect.sync(() => {
          if (!state.isOpen) throw new Error("used after close")
        })
        yield* Effect.forkDaemon(Effect.zipRight(Effect.sleep(5), use))
        yield* Effect.sleep(10)
      }))
  }),
  hostile("released in order", "closes the outer scope first", { body: nested(false) }),
  hostile("safe", "closes the inner scope first", { body: nested(true) }),
  hostile("all is released", "a release that is cut half-way", {
    body: (_, probe) =>
      Effect.acquireUseRelease(
        probe.acquire("r"),
        () => Effect.sleep(1),
        (handle) => Effect.interruptible(probe.release(handle, { releaseTakes: 10 }))
      )
  }),
  hostile("the target exits at once", "swallows its interrupt for eight rounds", {
    body: rounds(8)
  }),
  hostile("safe", "tidies up and waits once more", { body: rounds(2) }),
  hostile("safe", "three brackets, one in the other", {
    body: (_, probe) =>
      Effect.scoped(
        Effect.zipRight(
          probe.resource("a", { releaseTakes: 3 }),
          Effect.scoped(
            Effect.zipRight(probe.resource("b", { releaseTakes: 3 }), careful(probe))
          )
        )
      )
  }),
  hostile("safe", "a scope of each key that stays open by design", {
    setup: Effect.sync(() => ({ scope: undefined as Scope.CloseableScope | undefined })),
    body: (state, probe) =>
      Effect.uninterruptible(Effect.gen(function*() {
        if (state.scope === undefined) {
          const scope = yield* Scope.make()
          yield* Scope.extend(probe.resource("of a key"), scope)
          state.scope = scope
        }
        yield* careful(probe)
      })),
    staysOpen: true
  }),
  hostile("the second use is as the first", "a queue that an interrupted taker empties", {
    setup: Effect.gen(function*() {
      const queue = yield* Queue.bounded<number>(1)
      yield* Queue.offer(queue, 1)
      return queue
    }),
    body: (queue) =>
      Effect.gen(function*() {
        const one = yield* Queue.take(queue)
        yield* Effect.sleep(1)
        yield* Queue.offer(queue, one)
      })
  }),
  hostile("safe", "a subscription that ends with its scope", {
    setup: PubSub.bounded<number>(4),
    body: (hub) =>
      Effect.gen(function*() {
        const inbox = yield* PubSub.subscribe(hub)
        yield* PubSub.publish(hub, 1)
        yield* Queue.take(inbox)
      })
  }),
  hostile("no fiber is left", "a daemon that only success ends", {
    body: () =>
      Effect.gen(function*() {
        const daemon = yield* Effect.forkDaemon(Effect.never)
        yield* Effect.sleep(1)
        yield* Fiber.interrupt(daemon)
      })
  })
]

// Real I/O.

const here = import.meta.filename

/** A folder of its own, removed with its owner. */
const folder = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "hf-hostile-"))),
  (path) => Effect.promise(() => Fs.rm(path, { recursive: true, force: true }))
)

// What wrong programs leave open stays reachable, so that the collector does not close it first.
const timers = new Set<NodeJS.Timeout>()
const files = new Set<Fs.FileHandle>()
const sockets = new Set<Net.Socket>()
const servers = new Set<Net.Server>()
const watchers = new Set<FSWatcher>()
const fileMemo: Array<number> = []

const openFile = Effect.promise(async () => {
  const file = await Fs.open(here)
  files.add(file)
  return file
})
const closeFile = (file: Fs.FileHandle) =>
  Effect.promise(async () => {
    files.delete(file)
    await file.close()
  })
const readSome = (file: Fs.FileHandle) =>
  Effect.promise(() => file.read(Buffer.alloc(64), 0, 64, 0))

/** A server of real connections, closed with its owner. */
const serving = (onConnection: (socket: Net.Socket) => void, path = "") =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Net.Socket>()
      const server = Net.createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        onConnection(socket)
      })
      server.listen(path === "" ? { port: 0, host: "127.0.0.1" } : { path })
      await once(server, "listening")
      const address = server.address() as Net.AddressInfo
      return { server, sockets, path, port: address.port }
    }),
    ({ server, sockets }) =>
      Effect.promise(() => {
        for (const socket of sockets) socket.destroy()
        return new Promise((done) => server.close(done))
      })
  )

const echo = serving((socket) => socket.pipe(socket))
// A server that no run closes.
let outer: Promise<{ readonly server: Net.Server; readonly port: number }> | undefined
const lasting = Effect.promise(() =>
  outer ??= (async () => {
    const server = Net.createServer((socket) => socket.on("error", () => {}).pipe(socket))
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return { server, port: (server.address() as Net.AddressInfo).port }
  })()
)

const unixEcho = Effect.flatMap(
  folder,
  (path) => serving((socket) => socket.pipe(socket), Path.join(path, "s"))
)
const silent = serving(() => {})

const connect = (at: number | string) =>
  Effect.promise(async () => {
    const socket = typeof at === "string" ? Net.connect(at) : Net.connect(at, "127.0.0.1")
    sockets.add(socket)
    socket.on("error", () => {}).on("close", () => sockets.delete(socket))
    await once(socket, "connect")
    return socket
  })

const ask = (socket: Net.Socket) =>
  Effect.promise(async () => {
    socket.write("hello")
    await once(socket, "data")
  })

const destroy = (socket: Net.Socket) =>
  Effect.promise(async () => {
    const closed = once(socket, "close")
    socket.destroy()
    await closed
  })

/** A connection that lives as long as the setup's server. */
const held = Effect.flatMap(
  echo,
  ({ port }) => Effect.acquireRelease(connect(port), destroy)
)

const serveHttp = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = Http.createServer((_, response) => {
      setTimeout(() => response.end("hello"), 1)
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return { server, port: (server.address() as Net.AddressInfo).port }
  }),
  ({ server }) =>
    Effect.promise(() => {
      server.closeAllConnections()
      return new Promise((done) => server.close(done))
    })
)

/** One request on a connection of its own. `onCut`: what an interrupt does with it. */
const request = (port: number, onCut: (request: Http.ClientRequest) => void) =>
  Effect.async<void>((resume) => {
    const sent = Http.get({ port, host: "127.0.0.1", agent: false }, (response) => {
      response.on("end", () => resume(Effect.void)).resume()
    })
    sent.on("error", () => resume(Effect.void))
    return Effect.sync(() => onCut(sent))
  })

// Children that a wrong program leaves behind, ended after it was judged.
const children = new Set<Child.ChildProcess>()

const start = (command: string, ...args: ReadonlyArray<string>) =>
  Effect.sync(() => {
    const child = Child.spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] })
    children.add(child)
    child.on("exit", () => children.delete(child))
    return child
  })

const answer = (child: Child.ChildProcessWithoutNullStreams | Child.ChildProcess) =>
  Effect.promise(async () => {
    child.stdin!.write("hello")
    await once(child.stdout!, "data")
  })

const end = (child: Child.ChildProcess) =>
  Effect.promise(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, "close")
    child.kill("SIGKILL")
    await exited
  })

const killed = (one: Hostile): Hostile => ({
  ...one,
  explore: () =>
    one.explore().finally(() => {
      for (const child of children) child.kill("SIGKILL")
    })
})

const natively: ReadonlyArray<Hostile> = [
  // Promises and timers.
  real("safe", "a native promise", { body: () => Effect.promise(() => later(() => {})) }),
  real("inconclusive", "a native promise that always fails", {
    body: () => Effect.promise(() => Promise.reject(new Error("no")))
  }),
  real("safe", "a native promise that fails, and is handled", {
    body: () => Effect.exit(Effect.tryPromise(() => Promise.reject(new Error("no"))))
  }),
  real("safe", "a native timer", {
    body: () => Effect.promise(() => new Promise((done) => setTimeout(done, 3)))
  }),
  real(
    "safe",
    "a release through a native promise",
    closes((close) => Effect.promise(() => later(close)))
  ),
  real("safe", "a release through `then`", closes((close) => Effect.sync(() => void later(close)))),
  real(
    "safe",
    "a release through `runFork`",
    closes((close) =>
      Effect.sync(() => void Effect.runFork(Effect.zipRight(Effect.yieldNow(), Effect.sync(close))))
    )
  ),
  real(
    "safe",
    "a release through a native timer",
    closes((close) =>
      Effect.promise(() => new Promise((done) => setTimeout(done, 2))).pipe(
        Effect.zipRight(Effect.sync(close))
      )
    )
  ),
  real(
    "the invariant holds",
    "a release that a native promise forgets",
    closes(() => Effect.promise(() => later(() => {})))
  ),
  real("inconclusive", "a native timer of a minute", {
    body: () =>
      Effect.async<void>((resume) => {
        const timer = setTimeout(() => resume(Effect.void), 60_000)
        timer.unref()
        timer.ref()
        setTimeout(() => clearTimeout(timer), 10_000).unref()
      })
  }),
  real("all is released", "an interval that success alone ends", {
    body: () =>
      Effect.gen(function*() {
        const timer = setInterval(() => {}, 50)
        timers.add(timer)
        yield* Effect.promise(() => later(() => {}))
        clearInterval(timer)
      })
  }, { mode: "quick" }),
  real("safe", "an interval that is always ended", {
    body: () =>
      Effect.acquireUseRelease(
        Effect.sync(() => setInterval(() => {}, 50)),
        () => Effect.promise(() => later(() => {})),
        (timer) => Effect.sync(() => clearInterval(timer))
      )
  }),
  real("inconclusive", "a memo of what came from a file", {
    body: () =>
      Effect.suspend(() =>
        fileMemo.length > 0
          ? Effect.void
          : Effect.tap(Effect.promise(() => Fs.readFile(here, "utf8")), (text) => {
            fileMemo.push(text.length)
          })
      )
  }),
  // Files.
  real("safe", "reads a file", {
    body: (_, probe) =>
      Effect.zipRight(probe.resource("r"), Effect.promise(() => Fs.readFile(here)))
  }),
  real("safe", "reads a file, and may be aborted", {
    body: () => Effect.exit(Effect.tryPromise((signal) => Fs.readFile(here, { signal })))
  }),
  real("safe", "opens, reads and closes a file", {
    body: () => Effect.acquireUseRelease(openFile, readSome, closeFile)
  }),
  real("all is released", "closes a file on success only", {
    body: () =>
      Effect.gen(function*() {
        const file = yield* openFile
        yield* readSome(file)
        yield* closeFile(file)
      })
  }, { mode: "quick" }),
  real("all is released", "opens a file interruptibly", {
    body: () => Effect.flatMap(openFile, (file) => Effect.ensuring(readSome(file), closeFile(file)))
  }, { mode: "quick" }),
  real("safe", "a temporary file that is always removed", {
    setup: folder,
    body: (path) => {
      const file = Path.join(path, "lock")
      return Effect.acquireUseRelease(
        Effect.promise(() => Fs.writeFile(file, "", { flag: "wx" })),
        () => Effect.promise(() => Fs.readFile(file)),
        () => Effect.promise(() => Fs.rm(file))
      )
    }
  }),
  real("the second use is as the first", "a lock file that success alone removes", {
    setup: folder,
    body: (path) => {
      const file = Path.join(path, "lock")
      return Effect.gen(function*() {
        yield* Effect.tryPromise(() => Fs.writeFile(file, "", { flag: "wx" }))
        yield* Effect.promise(() => Fs.readFile(file))
        yield* Effect.promise(() => Fs.rm(file))
      })
    }
  }, { mode: "quick" }),
  real("safe", "replaces a file whole", {
    setup: folder,
    body: (path) => {
      const target = Path.join(path, "target")
      return Effect.uninterruptible(Effect.gen(function*() {
        yield* Effect.promise(() => Fs.writeFile(`${target}.new`, "hello"))
        yield* Effect.promise(() => Fs.rename(`${target}.new`, target))
      }))
    }
  }),
  real("safe", "compresses", {
    body: () =>
      Effect.async<void>((resume) => {
        Zlib.gzip("hello".repeat(1_000), () => resume(Effect.void))
      })
  }),
  real("safe", "hashes a password", {
    body: () =>
      Effect.async<void>((resume) => {
        Crypto.scrypt("password", "salt", 16, { N: 2 }, () => resume(Effect.void))
      })
  }),
  real("safe", "looks up a name", {
    body: () => Effect.promise(() => Dns.lookup("localhost"))
  }),
  real("safe", "copies a file through a stream", {
    setup: folder,
    body: (path) =>
      Effect.exit(Effect.tryPromise((signal) =>
        Stream.pipeline(
          createReadStream(here),
          Zlib.createGzip(),
          createWriteStream(Path.join(path, "copy")),
          { signal }
        )
      ))
  }),
  real("safe", "watches a file for a while", {
    body: () =>
      Effect.acquireUseRelease(
        Effect.sync(() => watch(here)),
        () => Effect.promise(() => later(() => {})),
        (watcher) => Effect.sync(() => watcher.close())
      )
  }),
  real("all is released", "watches a file until it is cut, and goes on", {
    body: () =>
      Effect.gen(function*() {
        const watcher = watch(here)
        watchers.add(watcher)
        yield* Effect.promise(() => later(() => {}))
        watcher.close()
      })
  }, { mode: "quick" }),
  // Sockets.
  real("safe", "asks over a unix socket", {
    setup: unixEcho,
    body: ({ path }) => Effect.acquireUseRelease(connect(path), ask, destroy)
  }),
  real("safe", "asks over a socket", {
    setup: echo,
    body: ({ port }) => Effect.acquireUseRelease(connect(port), ask, destroy)
  }),
  real("safe", "asks on a connection that the setup holds", {
    setup: held,
    body: (socket) => Effect.uninterruptible(ask(socket))
  }),
  real("the invariant holds", "counts the questions on a connection that the setup holds", {
    setup: Effect.map(held, (socket) => ({ open: 0, socket })),
    body: (state: Count & { readonly socket: Net.Socket }) =>
      Effect.gen(function*() {
        state.open++
        yield* ask(state.socket)
        state.open--
      }),
    invariant: (state) => isZero(state)
  }, { mode: "quick" }),
  real("safe", "runs a fiber in the callback of a timer", {
    body: () =>
      Effect.flatMap(Effect.runtime<never>(), (runtime) =>
        Effect.async<number>((resume) => {
          const timer = setTimeout(() => {
            const use = Effect.zipRight(Effect.sleep("1 minute"), Clock.currentTimeMillis)
            Runtime.runCallback(runtime)(use, { onExit: resume })
          }, 1)
          return Effect.sync(() => clearTimeout(timer))
        }))
  }, { mode: "quick" }),
  real("all is released", "leaves its socket open when it is cut", {
    setup: lasting,
    body: ({ port }) =>
      Effect.gen(function*() {
        const socket = yield* connect(port)
        yield* ask(socket)
        yield* destroy(socket)
      })
  }, { mode: "quick" }),
  real("safe", "listens and stops", { body: () => echo }),
  real("all is released", "a server that success alone stops", {
    body: () =>
      Effect.gen(function*() {
        const server = Net.createServer()
        servers.add(server)
        yield* Effect.promise(() => {
          server.listen(0, "127.0.0.1")
          return once(server, "listening")
        })
        yield* Effect.promise(() => later(() => {}))
        yield* Effect.promise(() => new Promise((done) => server.close(done)))
      })
  }, { mode: "quick" }),
  real("inconclusive", "an answer that never comes", {
    setup: silent,
    body: ({ port }) => Effect.acquireUseRelease(connect(port), ask, destroy)
  }),
  real("safe", "a timeout on an answer that never comes", {
    setup: silent,
    body: ({ port }) =>
      Effect.acquireUseRelease(
        connect(port),
        (socket) => Effect.timeoutOption(ask(socket), "5 seconds"),
        destroy
      )
  }, { mode: "quick" }),
  // HTTP.
  real("safe", "asks over HTTP, and aborts", {
    setup: serveHttp,
    body: ({ port }) => request(port, (sent) => sent.destroy())
  }),
  real("safe", "fetches, and aborts", {
    setup: serveHttp,
    body: ({ port }) =>
      Effect.exit(
        Effect.tryPromise((signal) =>
          fetch(`http://127.0.0.1:${port}`, { signal, headers: { connection: "close" } })
            .then((response) => response.text())
        )
      )
  }),
  real("the invariant holds", "counts requests that are under way, and not those that are cut", {
    setup: Effect.map(serveHttp, ({ port }) => ({ open: 0, port })),
    body: (state: Count & { readonly port: number }) =>
      Effect.suspend(() => {
        state.open++
        return Effect.tap(request(state.port, (sent) => sent.destroy()), () => {
          state.open--
        })
      }),
    invariant: (state) => isZero(state)
  }, { mode: "quick" }),
  // Child processes.
  killed(real("safe", "asks a child process, and ends it", {
    body: () => Effect.acquireUseRelease(start("cat"), answer, end)
  }, { mode: "quick" })),
  killed(real("all is released", "leaves its child process running", {
    body: () =>
      Effect.gen(function*() {
        const child = yield* start("cat")
        yield* answer(child)
        yield* end(child)
      })
  }, { mode: "quick" })),
  killed(real("safe", "waits for a child process", {
    body: () =>
      Effect.uninterruptible(
        Effect.flatMap(start("true"), (child) => Effect.promise(() => once(child, "close")))
      )
  }, { mode: "quick" })),
  // What effect 3.22.4 itself gets wrong, with real I/O inside.
  real("the target exits", "reads two files at once", {
    body: () =>
      Effect.forEach([here, here], (file) => Effect.promise(() => Fs.readFile(file)), {
        concurrency: 2
      })
  })
]

/** Closes all that the wrong programs have left open. */
export const tidyUp = async (): Promise<void> => {
  for (const timer of timers) clearInterval(timer)
  for (const socket of sockets) socket.destroy()
  for (const server of servers) server.close()
  for (const watcher of watchers) watcher.close()
  const last = await outer
  last?.server.close()
  outer = undefined
  await Promise.allSettled(Array.from(files, (file) => file.close()))
  for (const all of [timers, files, sockets, servers, watchers]) all.clear()
  memo.value = undefined
  memo.runs = 0
  fileMemo.length = 0
}

export const hostiles: ReadonlyArray<Hostile> = [...virtual, ...natively]
