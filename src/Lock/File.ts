/**
 * Lock/File: a lock among the processes of one host, owned by the kernel.
 *
 * DESIGN. The holder of a key listens on a socket named after it. On Linux the name is an abstract one: the kernel lets one
 * process listen, and frees the name when that process is gone, however it died; there is no file, no time to live and no
 * stale state. A process that finds the name taken connects to the holder, reads who it is in one JSON line, and waits until
 * the connection closes; it does not poll. A stopped holder (SIGSTOP) still holds: it does not answer.
 * Elsewhere (`sockets: "file"`) the socket is a file, named by a claim file that link(2) makes: one per generation. The highest
 * claim rules and is never deleted; a dead one is superseded by claiming the next number. No take-over unlinks a file, so two
 * processes cannot both win; the age of a file is not read.
 *
 * INVARIANTS
 * - LockFile-1 (G1) The kernel or link(2) decides who holds; never a clock, never an age.
 * - LockFile-2 (G3) An interrupted waiter has closed its socket and holds nothing.
 * - LockFile-3 The listener is closed before the connections of the waiters, so a woken waiter finds the name free.
 * - LockFile-4 Fences of a key increase: with `directory` always (a counter file, written under the lock, never below the
 *   wall clock in µs). Without it, as long as the wall clock of the host does not step back: a fence is the wall clock in µs,
 *   and a release waits, at most about 1 ms, until the clock has passed it. A holder killed within the very millisecond of
 *   its grant is the one exception: its successor may get the same number.
 * - LockFile-5 Errors and `inspect` show the text that another account announces as its claim, in one line without control
 *   characters (Lock.ts).
 * - LockFile-6 A release wakes the process that has waited longest, and the others, with its own next waiter, when that one has
 *   the key. That one releases only when the others have come to it, or 10 ms later: each process gets its turn.
 * - LockFile-7 `make` removes the sockets that dead processes left in `directory`; a live one never.
 *
 * COST (2026-11) acquire and release 0.6 ms with `directory`; without, 1.2 ms (the clock must have advanced, LockFile-4);
 * a wake-up about 1 ms; one connection per waiting process and key; with socket files one small claim per key stays.
 * NOT DONE order against a newcomer that asks in the instant of a hand-over; shared volumes; other containers:
 * abstract names belong to a network namespace, use `sockets: "file"` with a shared `directory` on one kernel. Any account
 * of the host may hold an abstract name: `namespace` separates applications, it does not protect. Exclude `directory` from
 * programs that delete old files: a deleted claim no longer claims.
 * SOURCES unix(7), research B14 (stale-file takeover lets two processes win), nodejs/node#49656 (abstract sockets, 20.8).
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as crypto from "node:crypto"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import * as Lock from "../Lock.ts"
import type * as Managed from "../Managed.ts"
import { codeOf } from "./errors.ts"

/**
 * The options of `make`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Keeps the keys of one application apart from another's. */
  readonly namespace: string
  /**
   * Holds the fence counters, and the sockets of `sockets: "file"` (default there: `holdfast-locks` in the temporary
   * directory); made if missing.
   */
  readonly directory?: string | undefined
  /** Default: `"abstract"` on Linux, `"file"` elsewhere. */
  readonly sockets?: "abstract" | "file" | undefined
}

/** In bytes. A socket's path has at most 103 where it is shortest (macOS); a slash, `hf-` and 12 digits follow the directory. */
const longestDirectory = 87
/** In milliseconds: a holder that has not sent its line by then is unknown, but still holds. */
const answerWithin = 500
/** So many milliseconds the first waiter has to take a key before the others are woken: it may be stopped. */
const handOverTries = 25
/** So many milliseconds the others have to come to the new holder: they may be stopped or gone. */
const followTries = 10
/** In milliseconds: between two tries after an error that says nothing about the holder (a full backlog). */
const retryPause = 20

const failed = (op: string) => (cause: unknown): Lock.LockBackendError =>
  new Lock.LockBackendError({ op, cause })

const tryPromise = <A>(op: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: failed(op) })

const pause = (millis: number): Effect.Effect<void> =>
  // Not `Effect.sleep`: a TestClock does not move the kernel.
  // WINDOW: a timer of milliseconds fires for nobody.
  Effect.async((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** A listening socket. `announce` sends a line on each connection; `close` frees the name, then closes the connections. */
interface Listener {
  readonly announce: (line: string) => void
  readonly close: Effect.Effect<void>
  /** As `close`, but wakes the process that waits longest, and the others after `taken`. */
  readonly handOver: (taken: Effect.Effect<void>) => Effect.Effect<void>
  /** Whether `others` wait, and each connection has said that it waits. */
  readonly isFollowed: (others: number) => boolean
}

/** None if the name is taken. Runs uninterruptibly: it ends as soon as the kernel has answered. */
const listen = (name: string): Effect.Effect<Option.Option<Listener>, Lock.LockBackendError> =>
  Effect.async((resume) => {
    const visitors = new Set<net.Socket>()
    /** Those of the visitors that have said since when they wait. */
    const waiting = new Map<net.Socket, number>()
    let line: string | undefined
    const server = net.createServer((socket) => {
      visitors.add(socket)
      // A waiter that dies or leaves does not concern the holder.
      socket.on("error", () => {})
      socket.on("close", () => {
        visitors.delete(socket)
        waiting.delete(socket)
      })
      socket.on("data", (since) => waiting.set(socket, Number(since.toString())))
      if (line !== undefined) socket.write(line)
    })
    server.on("error", (error) => {
      const isTaken = codeOf(error) === "EADDRINUSE"
      resume(isTaken ? Effect.succeedNone : Effect.fail(failed("listen")(error)))
    })
    const wakeAll = Effect.sync(() => {
      for (const socket of visitors) socket.destroy()
    })
    const closed = (first: Effect.Effect<void>) =>
      Effect.suspend(() => {
        // INVARIANT LockFile-3: this frees the name in this step, before the connections close.
        const ended = new Promise<void>((resolve) => server.close(() => resolve()))
        return Effect.zipRight(Effect.zipRight(first, wakeAll), Effect.promise(() => ended))
      })
    const close = closed(Effect.void)
    const handOver = (taken: Effect.Effect<void>) =>
      closed(Effect.suspend(() => {
        const [first] = [...waiting].toSorted(([, since], [, other]) => since - other)
        first?.[0].end(`${visitors.size - 1}\n`)
        return first === undefined ? Effect.void : taken
      }))
    const isFollowed = (others: number): boolean =>
      waiting.size >= others && waiting.size === visitors.size
    const announce = (announcement: string): void => {
      line = announcement
      for (const socket of visitors) socket.write(announcement)
    }
    // exclusive: in a cluster worker the primary would otherwise share one listener among all workers.
    server.listen(
      { path: name, exclusive: true },
      () => resume(Effect.succeedSome({ announce, close, handOver, isFollowed }))
    )
  })

/** How a connection to the holder ended. */
type Visit =
  | { readonly ended: "line"; readonly line: string }
  /** `others` is how many waited when the holder handed the key over to us. */
  | { readonly ended: "closed"; readonly others: number }
  | { readonly ended: "connected" | "refused" | "busy" | "silent" }

/**
 * Connects to the holder, and waits until it closes (`closedSince`: in ms, since when we wait), or until it has sent its line
 * (`"line"`), which is bounded; or only connects (`"connected"`). Interrupted, it closes the socket.
 */
const visit = (
  name: string,
  until: "connected" | "line" | { readonly closedSince: number }
): Effect.Effect<Visit, Lock.LockBackendError> =>
  Effect.suspend(() => {
    let leave = (): void => {}
    const visited = Effect.async<Visit, Lock.LockBackendError>((resume) => {
      const socket = net.connect({ path: name }).setEncoding("utf8")
      let text = ""
      let connected = false
      const closed = () =>
        Effect.succeed<Visit>({
          ended: "closed",
          others: Number(/\n(\d{1,6})\n$/.exec(text)?.[1] ?? 0)
        })
      const silent = () => finish(Effect.succeed({ ended: "silent" }))
      const timer = until === "line" ? setTimeout(silent, answerWithin) : undefined
      leave = () => {
        clearTimeout(timer)
        socket.destroy()
      }
      const finish = (visited: Effect.Effect<Visit, Lock.LockBackendError>): void => {
        leave()
        resume(visited)
      }
      socket.on("connect", () => {
        connected = true
        if (until === "connected") finish(Effect.succeed({ ended: "connected" }))
        else if (until !== "line") socket.write(`${until.closedSince}`)
      })
      socket.on("data", (chunk: string) => {
        text += chunk
        if (until !== "line") {
          text = text.slice(-16)
          return
        }
        const newline = text.indexOf("\n")
        if (newline >= 0) {
          finish(Effect.succeed({ ended: "line", line: text.slice(0, newline) }))
        } else if (text.length > 4096) silent()
      })
      socket.on("error", (error) => {
        const code = codeOf(error)
        if (code === "ECONNREFUSED" || code === "ENOENT") {
          finish(Effect.succeed({ ended: "refused" }))
        } else if (connected || code === "ECONNRESET" || code === "EPIPE") {
          finish(closed())
        } else if (code === "EAGAIN") finish(Effect.succeed({ ended: "busy" }))
        else finish(Effect.fail(failed("connect")(error)))
      })
      socket.on("close", () => finish(closed()))
    })
    // A canceler that `Effect.async` is given comes two operations late: an interrupt in between would leave the socket open.
    return Effect.onInterrupt(visited, () => Effect.sync(() => leave()))
  })

/** The listener of a key that is ours now, or else the socket of its holder. */
type Attempt = Either.Either<Listener, string>

/** How a key is taken and its holder found, with either kind of socket. */
interface Names {
  /** Whether the socket belongs to this account; `pid` is what its owner says. */
  readonly isOurs: (socket: string, pid: number) => Promise<boolean>
  readonly attempt: (key: string) => Effect.Effect<Attempt, Lock.LockBackendError>
  /** The socket of the present holder, dead or alive; none if there never was one. */
  readonly find: (key: string) => Effect.Effect<Option.Option<string>, Lock.LockBackendError>
}

const digest = (namespace: string, key: string): string =>
  crypto.createHash("sha256").update(namespace).update("\0").update(key).digest("hex")

/** The names of a key's files begin with it. */
const stemOf = (namespace: string, key: string): string => `${digest(namespace, key).slice(0, 32)}.`

/** Whether process `pid` is of this account and has the listening end of an abstract name. */
const listensHere = async (name: string, pid: number): Promise<boolean> => {
  const { uid } = await fs.promises.stat(`/proc/${pid}`)
  if (uid !== process.getuid?.()) return false
  const inodes = new Set<string>()
  for (const line of (await fs.promises.readFile("/proc/net/unix", "utf8")).split("\n")) {
    const [, , , flags, , , inode, path] = line.trim().split(/\s+/)
    // Flags 10000: it listens. Some versions of Node fill the name up with zeros.
    const listens = path?.replace(/@+$/, "") === `@${name.slice(1)}` && flags === "00010000"
    if (listens) inodes.add(`socket:[${inode}]`)
  }
  for (const file of await fs.promises.readdir(`/proc/${pid}/fd`)) {
    const link = await fs.promises.readlink(`/proc/${pid}/fd/${file}`).catch(() => "")
    if (inodes.has(link)) return true
  }
  return false
}

const abstractNames = (namespace: string): Names => {
  // An abstract name has at most 107 bytes. The digest keeps it exact; the namespace is for readers of `ss -xl`.
  const readable = namespace.replaceAll(/[^\w.-]/g, "_").slice(0, 24)
  const nameOf = (key: string): string => `\0holdfast:${readable}:${digest(namespace, key)}`
  return {
    isOurs: listensHere,
    attempt: (key) => Effect.map(listen(nameOf(key)), Either.fromOption(() => nameOf(key))),
    find: (key) => Effect.succeedSome(nameOf(key))
  }
}

/** A claim: `<digest>.<generation>`, whose text is the file name of the claimant's socket. */
interface Claim {
  readonly generation: number
  readonly socket: string
}

const claimNames = (namespace: string, directory: string): Names => {
  const read = async (file: string): Promise<string | undefined> => {
    try {
      return await fs.promises.readFile(path.join(directory, file), "utf8")
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined
      throw error
    }
  }
  const remove = async (file: string): Promise<void> => {
    await fs.promises.rm(path.join(directory, file), { force: true })
  }
  const generations = async (stem: string): Promise<ReadonlyArray<number>> => {
    const found: Array<number> = []
    for (const file of await fs.promises.readdir(directory)) {
      if (file.startsWith(stem)) found.push(Number(file.slice(stem.length)))
    }
    return found.filter(Number.isSafeInteger).toSorted((a, b) => a - b)
  }
  /** The ruling claim. It may be superseded and removed while it is read: then look again. */
  const ruling = async (stem: string): Promise<Claim | undefined> => {
    for (;;) {
      const generation = (await generations(stem)).at(-1)
      if (generation === undefined) return undefined
      const socket = await read(stem + generation)
      if (socket !== undefined) return { generation, socket }
    }
  }
  /** Claims a generation with a socket that listens already; false if another process has claimed it or a higher one. */
  const claim = async (stem: string, generation: number, socket: string): Promise<boolean> => {
    const draft = `${socket}.claim`
    await fs.promises.writeFile(path.join(directory, draft), socket)
    try {
      // link(2), not rename: it fails if the name exists, and the text is whole when the name appears.
      await fs.promises.link(path.join(directory, draft), path.join(directory, stem + generation))
    } catch (error) {
      if (codeOf(error) === "EEXIST") return false
      throw error
    } finally {
      await remove(draft)
    }
    const all = await generations(stem)
    if (all.at(-1) !== generation) {
      // The number had been superseded and removed: the higher claim rules.
      await remove(stem + generation)
      return false
    }
    for (const old of all.slice(0, -1)) {
      const dead = await read(stem + old)
      if (dead !== undefined) await remove(dead)
      await remove(stem + old)
    }
    return true
  }
  const take = (
    stem: string,
    after: number
  ): Effect.Effect<Option.Option<Listener>, Lock.LockBackendError> => {
    const socket = `hf-${crypto.randomBytes(6).toString("hex")}`
    return Effect.flatMap(listen(path.join(directory, socket)), (listener) => {
      if (Option.isNone(listener)) return Effect.succeedNone
      const claimed = tryPromise("claim", async () => {
        const isOurs = await claim(stem, after + 1, socket)
        // A sweeper that took a process for dead which was stopped before it listened: a claim without a socket is a dead one.
        return isOurs && fs.existsSync(path.join(directory, socket))
      })
      return Effect.matchCauseEffect(claimed, {
        onFailure: (cause) => Effect.zipRight(listener.value.close, Effect.failCause(cause)),
        onSuccess: (ours) =>
          ours ? Effect.succeed(listener) : Effect.as(listener.value.close, Option.none())
      })
    })
  }
  const rulingOf = (key: string) => tryPromise("look", () => ruling(stemOf(namespace, key)))
  const attempt = (key: string): Effect.Effect<Attempt, Lock.LockBackendError> =>
    Effect.flatMap(rulingOf(key), (now): Effect.Effect<Attempt, Lock.LockBackendError> => {
      const claimNext = Effect.flatMap(
        take(stemOf(namespace, key), now?.generation ?? 0),
        (taken) => Option.isSome(taken) ? Effect.succeed(Either.right(taken.value)) : attempt(key)
      )
      if (now === undefined) return claimNext
      const socket = path.join(directory, now.socket)
      return Effect.if(alive(socket), {
        onTrue: () => Effect.succeed(Either.left(socket)),
        onFalse: () => claimNext
      })
    })
  return {
    isOurs: async (socket) => (await fs.promises.stat(socket)).uid === process.getuid?.(),
    attempt,
    find: (key) =>
      Effect.map(
        rulingOf(key),
        (now) => Option.map(Option.fromNullable(now), ({ socket }) => path.join(directory, socket))
      )
  }
}

/** In milliseconds: a file that is younger may belong to a process that is about to listen. */
const sweepAfter = 60_000

/** Removes the sockets and drafts of processes that died; claims stay. A failure is ignored: another process may sweep, too. */
const sweep = (directory: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const names = yield* tryPromise("sweep", () => fs.promises.readdir(directory))
    for (const name of names.filter((name) => /^hf-[0-9a-f]{12}(\.claim)?$/.test(name))) {
      const file = path.join(directory, name)
      const { mtimeMs } = yield* tryPromise("sweep", () => fs.promises.stat(file))
      if (Date.now() - mtimeMs < sweepAfter || (yield* alive(file.replace(/\.claim$/, "")))) {
        continue
      }
      yield* tryPromise("sweep", () => fs.promises.rm(file, { force: true }))
    }
  }).pipe(Effect.ignore)

/**
 * Whether a process listens: the kernel answers at once, even for a stopped holder. After a reset (the holder has just closed,
 * or has no file descriptor left) it tries again, and after five resets it takes the holder for alive.
 */
const alive = (socket: string, tries = 5): Effect.Effect<boolean, Lock.LockBackendError> =>
  Effect.flatMap(visit(socket, "connected"), ({ ended }) =>
    ended === "closed" && tries > 1
      ? alive(socket, tries - 1)
      : Effect.succeed(ended !== "refused"))

const nowMicros = (): bigint => BigInt(Date.now()) * 1000n

/** The next number after `last`, and never below the clock. */
const after = (last: bigint): bigint => {
  const now = nowMicros()
  return now > last ? now : last + 1n
}

/** The highest fence this process has drawn from the clock. */
let lastByClock = 0n

/** Makes the fences; `settle` waits until the next one will be higher (LockFile-4). */
interface Fences {
  readonly next: (key: string) => Effect.Effect<bigint, Lock.LockBackendError>
  readonly settle: (fence: bigint) => Effect.Effect<void>
}

/** A clock that was set back further than this, in µs, is not waited for (LockFile-4). */
const worthWaitingFor = 5000n

const settleByClock = (fence: bigint): Effect.Effect<void> =>
  Effect.suspend(() => {
    const ahead = fence - nowMicros()
    return ahead < 0n || ahead > worthWaitingFor
      ? Effect.void
      : Effect.zipRight(pause(1), settleByClock(fence))
  })

const clockFences: Fences = {
  next: () =>
    Effect.sync(() => {
      lastByClock = after(lastByClock)
      return lastByClock
    }),
  settle: settleByClock
}

const counterFences = (namespace: string, directory: string): Fences => ({
  next: (key) =>
    tryPromise("fence", async () => {
      const file = path.join(directory, `${stemOf(namespace, key)}fence`)
      const last = await fs.promises.readFile(file, "utf8").catch((error: unknown) => {
        if (codeOf(error) === "ENOENT") return "0"
        throw error
      })
      const fence = after(BigInt(last.trim()))
      // Renamed into place: a reader after a crash finds the old number or the new one, never half of one.
      await fs.promises.writeFile(`${file}.new`, `${fence}\n`)
      await fs.promises.rename(`${file}.new`, file)
      return fence
    }),
  settle: () => Effect.void
})

const host = os.hostname()
const unknownHolder: Lock.Holder = { holder: "a process that does not answer (stopped?)" }

/** Any account may hold the name and announce what it likes: its line is then shown as a claim. */
const holderOf = async (names: Names, socket: string, line: string): Promise<Lock.Holder> => {
  try {
    const { fence, owner, pid, since } = JSON.parse(line) as Readonly<Record<string, unknown>>
    if (typeof owner !== "string") return unknownHolder
    const isOurs = typeof pid === "number" && await names.isOurs(socket, pid).catch(() => false)
    return {
      holder: isOurs
        ? owner
        : `a process of an account unknown to us, which calls itself "${owner}"`,
      since: typeof since === "number" ? since : undefined,
      fence: typeof fence === "string" ? BigInt(fence) : undefined
    }
  } catch {
    return unknownHolder
  }
}

const backend = (names: Names, fences: Fences): Lock.Backend => {
  /** Until the woken waiter has the key: our own next waiter, and the others, come after it. */
  const taken = (key: string, tries = handOverTries): Effect.Effect<void> =>
    Effect.flatMap(
      Effect.orElseSucceed(isHeld(key), () => true),
      (isTaken) =>
        isTaken || tries === 1 ? Effect.void : Effect.zipRight(pause(1), taken(key, tries - 1))
    )
  const isHeld = (key: string): Effect.Effect<boolean, Lock.LockBackendError> =>
    Effect.flatMap(names.find(key), (socket) =>
      Option.isNone(socket)
        ? Effect.succeed(false)
        : Effect.map(visit(socket.value, "connected"), ({ ended }) => ended === "connected"))
  /** Until the others have come, or `followTries` have passed. */
  const followed = (listener: Listener, others: number, tries = followTries): Effect.Effect<void> =>
    Effect.suspend(() =>
      listener.isFollowed(others) || tries === 0
        ? Effect.void
        : Effect.zipRight(pause(1), followed(listener, others, tries - 1))
    )
  const grantOf = (
    { key, label, owner }: Lock.Request,
    listener: Listener,
    others = 0
  ): Effect.Effect<Lock.Grant, Lock.LockBackendError> =>
    Effect.matchCauseEffect(fences.next(key), {
      onFailure: (cause) => Effect.zipRight(listener.close, Effect.failCause(cause)),
      onSuccess: (fence) => {
        const line = { pid: process.pid, host, label, owner, since: Date.now(), fence: `${fence}` }
        listener.announce(`${JSON.stringify(line)}\n`)
        return Effect.succeed({
          fence,
          verify: Effect.succeed(true),
          release: fences.settle(fence).pipe(
            Effect.zipRight(followed(listener, others)),
            Effect.zipRight(listener.handOver(taken(key)))
          )
        })
      }
    })

  const take = (
    request: Lock.Request,
    restore: Managed.Restore,
    since = Date.now(),
    others = 0
  ): Effect.Effect<Lock.Grant, Lock.LockBackendError> =>
    Effect.flatMap(names.attempt(request.key), (attempt) =>
      Either.isRight(attempt)
        ? grantOf(request, attempt.right, others)
        // Only this waits (Lock-3); the kernel wakes it when the holder releases or dies.
        : Effect.flatMap(restore(untilGone(attempt.left, since)), (others) =>
          take(request, restore, since, others)))

  return {
    self: `${host}:${process.pid}`,
    remote: false,
    take: (request, restore) => take(request, restore),
    tryTake: (request) =>
      Effect.flatMap(names.attempt(request.key), (attempt) =>
        Either.isRight(attempt)
          ? Effect.asSome(grantOf(request, attempt.right))
          : Effect.succeedNone),
    inspect: (key) =>
      Effect.flatMap(names.find(key), (socket) =>
        Option.isSome(socket)
          ? Effect.flatMap(visit(socket.value, "line"), holderSeen(names, socket.value))
          : Effect.succeedNone)
  }
}

/** How many others waited when the holder handed the key over to us. */
const untilGone = (socket: string, since: number): Effect.Effect<number, Lock.LockBackendError> =>
  Effect.flatMap(visit(socket, { closedSince: since }), (visited) => {
    if (visited.ended === "closed") return Effect.succeed(visited.others)
    return Effect.as(visited.ended === "busy" ? pause(retryPause) : Effect.void, 0)
  })

const holderSeen =
  (names: Names, socket: string) => (visited: Visit): Effect.Effect<Option.Option<Lock.Holder>> => {
    if (visited.ended === "closed" || visited.ended === "refused") return Effect.succeedNone
    if (visited.ended !== "line") return Effect.succeedSome(unknownHolder)
    return Effect.asSome(Effect.promise(() => holderOf(names, socket, visited.line)))
  }

/**
 * A lock service among the processes of this host.
 *
 * **Interruption** — Waiting: the socket to the holder is closed, and nothing is held. Holding: the lock is released before the
 *   interrupt is seen.
 * **Errors** — `LockUnsupported` on Windows; `LockBackendError` if `directory` cannot be made. A lease is never lost: the
 *   kernel keeps it as long as this process lives.
 * **Cost** — about 1 ms for acquire and release.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Effect.Effect<Lock.Service, Lock.LockError> =>
  Effect.suspend((): Effect.Effect<Lock.Service, Lock.LockError> => {
    const unsupported = (detail: string) => new Lock.LockUnsupported({ why: "platform", detail })
    if (process.platform === "win32") {
      return unsupported("Lock/File knows Unix sockets only. Use Lock/Postgres.")
    }
    const { namespace, sockets = process.platform === "linux" ? "abstract" : "file" } = options
    const inFiles = sockets === "file"
    const directory = options.directory
      ?? (inFiles ? path.join(os.tmpdir(), "holdfast-locks") : undefined)
    if (directory === undefined) {
      return Effect.succeed(Lock.make(backend(abstractNames(namespace), clockFences)))
    }
    const bytes = Buffer.byteLength(directory)
    if (inFiles && bytes > longestDirectory) {
      return unsupported(
        `a socket's path is short: the directory has ${bytes} bytes, at most ${longestDirectory} fit. `
          + `Choose a shorter one than ${directory}.`
      )
    }
    const names = inFiles ? claimNames(namespace, directory) : abstractNames(namespace)
    return tryPromise("mkdir", () => fs.promises.mkdir(directory, { recursive: true })).pipe(
      Effect.zipRight(inFiles ? sweep(directory) : Effect.void),
      Effect.as(Lock.make(backend(names, counterFences(namespace, directory))))
    )
  })

/**
 * The lock of one host as a layer.
 *
 * **Interruption**, **Errors**, **Cost** — as `make`.
 *
 * **Example** (one process of this host at a time)
 * ```ts run
 * import { Effect } from "effect"
 * import * as Lock from "holdfast/Lock"
 * import * as LockFile from "holdfast/Lock/File"
 *
 * const job = Lock.withLock("nightly", { acquireTimeout: "1 minute" })(Effect.succeed("done"))
 * const host = LockFile.layer({ namespace: "docs-example" })
 * const result = await Effect.runPromise(Effect.provide(job, host))
 * result // => "done"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Lock.Lock, Lock.LockError> =>
  Layer.effect(Lock.Lock, make(options))

/**
 * `layer`, with options from the configuration.
 *
 * **Errors** — as `make`; `ConfigError`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<Lock.Lock, Lock.LockError | ConfigError.ConfigError> =>
  Layer.effect(Lock.Lock, Effect.flatMap(Config.unwrap(config), make))
