/** What a verdict may say: never "safe" about what was not seen, never a violation of what is right. */
import { describe, expect, it } from "@effect/vitest"
import {
  Clock,
  Context,
  Effect,
  Exit,
  Fiber,
  Resource,
  Runtime,
  Schedule,
  Scheduler,
  Scope
} from "effect"
import { Parallel, Semaphore } from "holdfast"
import { Explore, type Probe } from "holdfast/Testing"
import { AsyncResource } from "node:async_hooks"
import * as crypto from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs/promises"
import * as Net from "node:net"

class Service extends Context.Tag("Service")<Service, number>() {}

type Body = Effect.Effect<unknown, unknown, Scope.Scope>

const explore = <S = void>(
  subject: Omit<Explore.Subject<S>, "name">,
  options?: Explore.Options
) => Explore.interruptions({ name: "subject", ...subject }, options)

const laws = ({ findings }: Explore.Verdict) =>
  findings.flatMap(({ violations }) => violations.map(({ law }) => law))

/** Acquired, used and released, without a bracket. */
const careless = (probe: Probe.Probe): Body =>
  Effect.flatMap(
    probe.acquire("r"),
    (handle) => Effect.zipRight(Effect.sleep(1), probe.release(handle))
  )

const range = (length: number) => Array.from({ length }, (_, index) => index)

describe("never safe about what was not seen", () => {
  const failing: Record<string, () => Body> = {
    fails: () => Effect.fail("no"),
    dies: () => Effect.die("no"),
    throws: () => {
      throw new Error("no")
    },
    // Not an effect, which JavaScript does not see.
    "is an async function": (() => Promise.resolve()) as unknown as () => Body,
    "lacks a service": () => Service as unknown as Body
  }
  for (const [name, body] of Object.entries(failing)) {
    it(`Explore-10: a body that always ${name} is inconclusive`, async () => {
      const verdict = await explore({ body })
      expect(verdict).toMatchObject({ status: "inconclusive", passed: false, covered: "nothing" })
      expect(verdict.notes[0]).toMatch(/^without any interrupt: the body ends as failure: /)
    })
  }

  it("Explore-10: a failure that the subject expects is explored and shown", async () => {
    const verdict = await explore({ body: () => Effect.fail("no"), fails: true })
    expect(verdict).toMatchObject({ status: "safe", passed: true })
    expect(verdict.notes).toEqual(["the plain run ends as failure: Error: no, as expected"])
  })

  it("Explore-10: a daemon that dies in the plain run as well is inconclusive", async () => {
    const verdict = await explore({ body: () => Effect.forkDaemon(Effect.die("no")) })
    expect(verdict.notes[0]).toMatch(/^without any interrupt: no defect: /)
  })

  it("Explore-11: a memo that the first run warms is state that the setup shares", async () => {
    let memo: number | undefined
    const verdict = await explore({
      body: (_, probe) =>
        Effect.suspend(() =>
          memo === undefined
            ? Effect.tap(careless(probe), () => {
              memo = 1
            })
            : Effect.void
        )
    })
    expect(verdict).toMatchObject({ status: "inconclusive", passed: false, mode: "synchronous" })
    expect(verdict.notes[0]).toMatch(/^your setup shares state/)
  })

  it("Explore-11: state that only an interrupt leaves behind is no finding", async () => {
    let free = 1
    const verdict = await explore({
      body: () =>
        Effect.gen(function*() {
          yield* Effect.suspend(() => free > 0 ? Effect.void : Effect.never)
          free--
          yield* Effect.yieldNow()
          free++
        })
    })
    expect(verdict).toMatchObject({ status: "inconclusive", findings: [] })
    expect(verdict.notes.at(-1)).toMatch(/^your setup shares state/)
  })

  it("Explore-11: a first run in which real I/O comes in another order by chance shares no state", async () => {
    let runs = 0
    const native = (millis: number) =>
      Effect.uninterruptible(
        Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))
      )
    const verdict = await explore({
      // The first is abandoned, because it waits for something native.
      setup: Effect.sync(() => ++runs === 2),
      body: (isFirst) =>
        Parallel.all([native(isFirst ? 0 : 5), native(isFirst ? 5 : 0)], { concurrency: 2 })
    }, { mode: "quick" })
    expect(verdict).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("Explore-12: sampled points are said to be sampled, with their number", async () => {
    const many = Array.from({ length: 50 }, (_, index) => index)
    const verdict = await explore({
      body: () =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(
            Effect.forEach(many, () => Effect.yieldNow(), { discard: true })
          )
          yield* fiber.await
        })
    }, { others: 20 })
    expect(verdict.points.others).toBeGreaterThan(100)
    expect(verdict.covered).toMatch(
      /^every point of its own, 20 of \d{3} points of other fibers \(sampled\), FIFO order/
    )
  })

  it("a scheduler of the program's own is noticed", async () => {
    const own = new Scheduler.MixedScheduler(2048)
    const verdict = await explore({ body: () => Effect.withScheduler(Effect.yieldNow(), own) })
    expect(verdict).toMatchObject({ status: "inconclusive", passed: false })
    expect(verdict.notes[0]).toMatch(/went to another scheduler, out of control$/)
  })

  it("what the setup has warmed for a minute is warm as the body begins", async () => {
    const verdict = await explore({
      setup: Effect.gen(function*() {
        const cache = { warm: true }
        const cool = Effect.sync(() => {
          cache.warm = false
        })
        yield* Effect.forkScoped(Effect.zipRight(Effect.sleep("1 minute"), cool))
        return cache
      }),
      body: (cache, probe) => cache.warm ? careless(probe) : Effect.sleep(1)
    })
    expect(laws(verdict)).toEqual(["all is released"])
  })

  it("Explore-12: the second use is interrupted on request, and the verdict says which was", async () => {
    const subject: Omit<Explore.Subject<{ uses: number }>, "name"> = {
      setup: Effect.sync(() => ({ uses: 0 })),
      body: (state, probe) =>
        Effect.suspend(() => ++state.uses === 2 ? careless(probe) : Effect.sleep(1))
    }
    const first = await explore(subject)
    expect(first).toMatchObject({ status: "safe" })
    expect(first.covered).toMatch(/first use$/)
    const both = await explore(subject, { uses: [1, 2] })
    expect(laws(both)).toEqual(["all is released"])
    expect(both.covered).toMatch(/first use; .*use 2$/)
    const token = both.findings[0]!.token
    const again = await Explore.replay(token, { name: "subject", ...subject })
    expect(again.violations).toEqual(both.findings[0]!.violations)
  })
})

describe("no violation of what is right", () => {
  const safe = async <S = void>(
    subject: Omit<Explore.Subject<S>, "name">,
    options?: Explore.Options
  ) => {
    const verdict = await explore(subject, options)
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", passed: true })
    return verdict
  }

  it("a file that is read, twelve times", async () => {
    for (let nth = 0; nth < 12; nth++) {
      await safe({
        body: (_, probe) =>
          Effect.zipRight(
            probe.resource("r"),
            Effect.promise(() => fs.readFile(import.meta.filename))
          )
      })
    }
  })

  it("a native timer", () =>
    safe({ body: () => Effect.promise(() => new Promise((done) => setTimeout(done, 5))) }))

  it("a drain of three minutes, a sleep of five", async () => {
    await safe({ body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.sleep("3 minutes")) })
    await safe({ body: () => Effect.sleep("5 minutes") })
  })

  it("what is longer than the horizon is called so, and may be given more", async () => {
    const drain = {
      body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.sleep("20 minutes"))
    }
    const verdict = await explore(drain)
    expect(verdict).toMatchObject({ status: "inconclusive", passed: false, findings: [] })
    expect(verdict.notes).toEqual([
      expect.stringMatching(/^at \d+ point\(s\): the target takes longer than 10m of virtual time/)
    ])
    await safe(drain, { horizon: "1 hour" })
    expect((await explore({ body: () => Effect.sleep("20 minutes") })).notes).toEqual([
      expect.stringMatching(/^the target takes longer than 10m/)
    ])
  })

  const releases: Record<string, (done: () => void) => Effect.Effect<unknown>> = {
    "a native promise": (done) => Effect.promise(() => Promise.resolve().then(done)),
    "`then`": (done) => Effect.sync(() => void Promise.resolve().then(done)),
    "`runFork`": (done) =>
      Effect.sync(() => void Effect.runFork(Effect.zipRight(Effect.yieldNow(), Effect.sync(done))))
  }
  for (const [name, release] of Object.entries(releases)) {
    it(`a release through ${name}, only when interrupted`, () =>
      safe({
        setup: Effect.sync(() => ({ open: 0 })),
        body: (state) => {
          const done = () => {
            state.open--
          }
          return Effect.acquireUseRelease(
            Effect.sync(() => state.open++),
            () => Effect.sleep(1),
            (_, exit) => Exit.isInterrupted(exit) ? release(done) : Effect.sync(done)
          )
        },
        invariant: ({ open }) => open === 0
      }))
  }

  it("Explore-12: a heartbeat in the setup, and a resource that renews itself", async () => {
    await safe({
      setup: Effect.forkScoped(Effect.forever(Effect.sleep(1))),
      body: (_, probe) => Effect.zipRight(probe.resource("r"), Effect.sleep(5))
    })
    await safe({
      setup: Resource.auto(Effect.succeed(1), Schedule.spaced(10)),
      body: (resource) => Resource.get(resource)
    })
  })

  it("Explore-12: a run waits for few beats of a heartbeat", async () => {
    let beats = 0
    const beat = Effect.zipRight(Effect.sleep(1), Effect.sync(() => beats++))
    const { runs } = await safe({
      setup: Effect.forkScoped(Effect.forever(beat)),
      body: (_, probe) => probe.resource("r")
    })
    expect(beats / runs).toBeLessThan(12)
  })

  it("Explore-12: what a heartbeat puts right after many beats is no finding", async () => {
    interface State {
      open: number
      left: number
      age: number
    }
    const collect = (state: State) =>
      Effect.sync(() => {
        if (state.left > 0 && ++state.age === 10) Object.assign(state, { open: 0, left: 0, age: 0 })
      })
    const verdict = await safe<State>({
      setup: Effect.tap(
        Effect.sync(() => ({ open: 0, left: 0, age: 0 })),
        (state) =>
          Effect.forkScoped(Effect.forever(Effect.zipRight(Effect.sleep(1), collect(state))))
      ),
      body: (state) =>
        Effect.acquireUseRelease(
          Effect.sync(() => state.open++),
          () => Effect.yieldNow(),
          (_, exit) => Effect.sync(() => Exit.isSuccess(exit) ? state.open-- : state.left++)
        ),
      invariant: ({ open }) => open === 0
    })
    expect(verdict.mode).toBe("synchronous")
  })

  it("Explore-12: two hundred million pairs of delays are tried one by one, within the budget", async () => {
    let count = 0
    const long = Effect.forEach(range(10_000), () => Effect.sync(() => count++), { discard: true })
    const both = Effect.flatMap(
      Effect.all([Effect.fork(long), Effect.fork(long)]),
      (fibers) => Fiber.joinAll(fibers)
    )
    const verdict = await explore({ body: () => both }, { interleave: 2, budget: { runs: 20 } })
    expect(verdict.covered).toMatch(/^\d+ of \d{10,} points \(budget spent\)/)
  })

  it("a verdict on many broken points is no larger than one on few", async () => {
    const sizeOf = async (points: number) => {
      const work = Effect.forEach(range(points), () => Effect.void, { discard: true })
      const verdict = await explore({
        body: (_, probe) =>
          Effect.flatMap(
            probe.acquire("r"),
            (handle) => Effect.zipRight(work, probe.release(handle))
          )
      })
      expect(verdict.runs).toBeGreaterThan(points)
      return JSON.stringify(verdict.findings).length
    }
    expect(await sizeOf(400)).toBeLessThan(1.1 * await sizeOf(20))
  })

  it("Explore-12: a setup that spins has a verdict", async () => {
    const setup = Effect.forever(Effect.void)
    const verdict = await explore({ setup, body: () => Effect.void }, { opLimit: 1_000 })
    expect(verdict).toMatchObject({ status: "inconclusive" })
    expect(verdict.notes[0]).toMatch(/more than 1000 operations/)
  })

  const keyed = {
    setup: Effect.sync(() => ({ scope: undefined as Scope.CloseableScope | undefined })),
    body: (
      state: { scope: Scope.CloseableScope | undefined },
      probe: Probe.Probe
    ) =>
      Effect.gen(function*() {
        if (state.scope === undefined) {
          const scope = yield* Scope.make()
          yield* Scope.extend(probe.resource("of a key"), scope)
          state.scope = scope
        }
        yield* careless(probe)
      }).pipe(Effect.uninterruptible)
  }
  it("Explore-10: what stays open by design is declared, and more than that is a leak", async () => {
    expect((await explore(keyed)).notes).toEqual([
      expect.stringMatching(/^without any interrupt: all is released/)
    ])
    const verdict = await safe({ ...keyed, staysOpen: true })
    expect(verdict.notes).toEqual([
      "as declared, 2 resource(s) and finalizer(s) and 0 fiber(s) stay open"
    ])
    const leaks = await explore({
      body: (_, probe) => Effect.zipRight(probe.acquire("for ever"), careless(probe)),
      staysOpen: true
    })
    expect(laws(leaks)).toContain("all is released")
  })
})

describe("with real I/O", () => {
  it("Explore-13: a finding is repeated, and says how often it shows again", async () => {
    const timers = new Set<NodeJS.Timeout>()
    const verdict = await explore({
      body: () =>
        Effect.acquireUseRelease(
          Effect.sync(() => setInterval(() => {}, 1_000)),
          () => Effect.promise(() => Promise.resolve(1)),
          (timer, exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit)) clearInterval(timer)
              else timers.add(timer)
            })
        )
    }, { mode: "quick" })
    for (const timer of timers) clearInterval(timer)
    expect(laws(verdict)).toEqual(["all is released"])
    expect(verdict.findings.map(({ rate }) => rate)).toEqual([{ seen: 5, of: 5 }])
    expect(Explore.format(verdict)).toContain("5 of 5 times")
  })

  it("Explore-16: the first run, which does without the event loop, leaves nothing open", async () => {
    let open = 0
    const verdict = await explore({
      setup: Effect.acquireRelease(
        Effect.promise(() => Promise.resolve(++open)),
        () => Effect.sync(() => open--)
      ),
      body: () => Effect.promise(() => Promise.resolve())
    })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
    expect(open).toBe(0)
  })

  it("Explore-17: a question on a connection of the setup is answered", async () => {
    // It answers in two parts, the second of them some turns later.
    const server = Effect.acquireRelease(
      Effect.promise(async () => {
        const listening = Net.createServer(
          { noDelay: true },
          (socket) =>
            socket.on("error", () => {}).on("data", () => {
              socket.write("a")
              setTimeout(() => socket.write("b"), 5)
            })
        )
        listening.listen(0, "127.0.0.1")
        await once(listening, "listening")
        return listening
      }),
      (listening) => Effect.promise(() => new Promise((done) => listening.close(done)))
    )
    const connection = (listening: Net.Server) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const { port } = listening.address() as Net.AddressInfo
          const socket = Net.connect(port, "127.0.0.1")
          await once(socket, "connect")
          return socket
        }),
        (socket) => Effect.sync(() => socket.destroy())
      )
    const ask = (socket: Net.Socket) =>
      Effect.async<void>((resume) => {
        let text = ""
        socket.on("data", (part: Buffer) => {
          text += part.toString()
          if (text !== "ab") return
          socket.removeAllListeners("data")
          resume(Effect.void)
        })
        socket.write("question")
      })
    const verdict = await explore<Net.Socket>({
      setup: Effect.flatMap(server, connection),
      // Two questions: the second is written as the answer to the first arrives.
      body: (socket) => Effect.uninterruptible(Effect.zipRight(ask(socket), ask(socket)))
    }, { mode: "quick" })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("a fiber that a native callback starts is a fiber of the run", async () => {
    const verdict = await explore({
      body: () =>
        Effect.flatMap(Effect.runtime<never>(), (runtime) =>
          Effect.async<number>((resume) => {
            const use = Effect.zipRight(Effect.sleep("1 hour"), Clock.currentTimeMillis)
            const timer = setTimeout(() => {
              Runtime.runCallback(runtime)(use, { onExit: (exit) => resume(exit) })
            }, 1)
            return Effect.sync(() => clearTimeout(timer))
          }))
    }, { mode: "quick", horizon: "2 hours" })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("what a run holds may be released in a callback that belongs to no run", async () => {
    const outside = new AsyncResource("outside")
    const verdict = await explore({
      setup: Semaphore.make(1),
      body: (semaphore) =>
        Effect.uninterruptible(Effect.gen(function*() {
          const runtime = yield* Effect.runtime<never>()
          const scope = yield* Scope.make()
          yield* Scope.extend(Semaphore.get(semaphore, 1), scope)
          const close = Scope.close(scope, Exit.void)
          yield* Effect.async<void>((resume) => {
            const run = () => Runtime.runCallback(runtime)(close, { onExit: resume })
            setTimeout(() => outside.runInAsyncScope(run), 1)
          })
        }))
    }, { mode: "quick" })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("a promise of another runtime is a native promise", async () => {
    const verdict = await explore({
      body: () => Effect.promise(() => Effect.runPromise(Effect.promise(() => Promise.resolve(1))))
    }, { mode: "quick" })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
  })

  it("a socket, a file and a server that stay open are leaks, without any probe", async () => {
    // The setup's own server is not: it is open before the body begins.
    const server = Effect.acquireRelease(
      Effect.promise(async () => {
        const listening = Net.createServer((socket) => socket.on("error", () => {}))
        listening.listen(0, "127.0.0.1")
        await once(listening, "listening")
        return listening
      }),
      (listening) => Effect.promise(() => new Promise((done) => listening.close(done)))
    )
    const verdict = await explore({ setup: server, body: () => server })
    expect(verdict, Explore.format(verdict)).toMatchObject({ status: "safe", mode: "asynchronous" })
    const opened: Array<fs.FileHandle> = []
    const leak = await explore({
      body: () =>
        Effect.gen(function*() {
          const file = yield* Effect.promise(() => fs.open(import.meta.filename))
          opened.push(file)
          yield* Effect.promise(() => file.stat())
          yield* Effect.promise(() => file.close())
        })
    }, { mode: "quick" })
    expect(leak.findings[0]?.violations).toEqual([
      { law: "all is released", message: "left open natively: file" }
    ])
    for (const file of opened) await file.close()
  })

  it("random bytes, which were there at once, do not hide a hang", async () => {
    const verdict = await explore({
      body: () =>
        Effect.sync(() => crypto.randomBytes(8)).pipe(
          Effect.zipRight(Effect.promise(() => fs.stat(import.meta.filename))),
          Effect.onInterrupt(() => Effect.never)
        )
    }, { mode: "quick" })
    expect(laws(verdict), Explore.format(verdict)).toContain("the target exits")
  })

  it("a replay that cannot be judged does not pass", async () => {
    const dies = (after: Effect.Effect<void>) => ({
      name: "drain",
      body: () =>
        Effect.onInterrupt(Effect.sleep(1), () => Effect.zipRight(after, Effect.die("no")))
    })
    const { findings } = await Explore.interruptions(dies(Effect.void))
    const slow = dies(Effect.sleep("20 minutes"))
    const ends = Explore.replay(findings[0]!.token, slow).then(() => "passes", String)
    expect(await ends).toMatch(/longer than 10m/)
  })
})

describe("laws", () => {
  const broken = async <S = void>(
    subject: Omit<Explore.Subject<S>, "name">,
    law: Explore.Violation["law"],
    message: RegExp
  ) => {
    const verdict = await explore(subject)
    const found = verdict.findings.flatMap(({ violations }) => violations)
      .find((one) => one.law === law)
    expect(found?.message, Explore.format(verdict)).toMatch(message)
    expect(verdict).toMatchObject({ status: "violations", passed: false })
  }

  it("no defect: a finalizer that closes what is not there yet", () =>
    broken(
      {
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
      },
      "no defect",
      /^not in the plain run: TypeError/
    ))

  it("no defect: a daemon that uses what is closed", () =>
    broken(
      {
        setup: Effect.sync(() => ({ open: true })),
        body: (state) =>
          Effect.scoped(Effect.gen(function*() {
            state.open = true
            yield* Effect.addFinalizer(() =>
              Effect.sync(() => {
                state.open = false
              })
            )
            const use = Effect.sync(() => {
              if (!state.open) throw new Error("use after close")
            })
            yield* Effect.forkDaemon(Effect.zipRight(Effect.sleep(5), use))
            yield* Effect.sleep(10)
          }))
      },
      "no defect",
      /use after close$/
    ))

  it("no defect: one by which the subject reports is declared", async () => {
    const reports: Omit<Explore.Subject, "name"> = {
      body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.die("given up")),
      mayDie: (defect) => defect === "given up"
    }
    expect(await explore(reports)).toMatchObject({ status: "safe" })
    expect(laws(await explore({ ...reports, mayDie: undefined }))).toEqual(["no defect"])
  })

  it("released in order: an outer scope closes before the one inside it", () => {
    const nested = (probe: Probe.Probe, rightly: boolean) =>
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
    return Promise.all([
      broken(
        { body: (_, probe) => nested(probe, false) },
        "released in order",
        /^an outer scope closed before the one inside it: finalizer 1 ran before finalizer 2; resources: \+connection#1 \+transaction#1 -connection#1 -transaction#1/
      ),
      explore({ body: (_, probe) => nested(probe, true) }).then((verdict) =>
        expect(verdict.status).toBe("safe")
      )
    ])
  })

  it("all is released: a release that is cut half-way is none", async () => {
    const verdict = await explore({
      body: (_, probe) =>
        Effect.acquireUseRelease(
          probe.acquire("r"),
          () => Effect.void,
          (handle) => Effect.interruptible(probe.release(handle, { releaseTakes: 10 }))
        )
    })
    expect(laws(verdict)).toEqual(["all is released"])
    // Its only wait is in the release.
    expect(verdict.findings[0]?.window).toContain("as it begins to wait, time 1")
  })

  it("the target exits at once: not after rounds in which it swallows its interrupt", async () => {
    const rounds = (count: number): Omit<Explore.Subject, "name"> => ({
      body: () =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function*() {
            for (let round = 0; round < count; round++) {
              yield* Effect.exit(restore(Effect.sleep(1)))
            }
          })
        )
    })
    await broken(
      rounds(8),
      "the target exits at once",
      /^it has swallowed its interrupt \d times$/
    )
    // To tidy up and to wait once more is no such loop.
    expect(await explore(rounds(2))).toMatchObject({ status: "safe" })
  })
})

it("fibers that hang in a run are not kept after it", async () => {
  const before = Fiber.unsafeRoots().length
  const verdict = await explore({
    body: () => Effect.onInterrupt(Effect.sleep(1), () => Effect.never)
  })
  expect(laws(verdict)).toContain("the target exits")
  expect(Fiber.unsafeRoots().length).toBe(before)
})
