/** `Managed` in every form, for the explorer: cut at every point it must let go, in bounded time, of all it has opened. */
import { type Duration, Effect, Fiber, type Scope } from "effect"
import { Ledger, Managed, Shutdown } from "holdfast"
import type { Explore, Probe } from "holdfast/Testing"
import { alone, isReported, type Own } from "./own.ts"

const turn = Effect.yieldNow()
const hold = Effect.sleep(5)

const resource = (
  probe: Probe.Probe,
  name = "r",
  options?: Probe.Options,
  settings: Partial<Managed.Settings<Probe.Handle>> = {}
) =>
  Managed.make({
    name,
    acquire: probe.acquire(name, options),
    release: (handle) => probe.release(handle, options),
    releaseDeadline: "1 minute",
    ...settings
  })

type Use = Effect.Effect<unknown, unknown, Scope.Scope>

const slowly = { acquireTakes: 3, releaseTakes: 3 }

/** Opens at once, slowly, and more slowly still. */
const three = (probe: Probe.Probe, options?: Managed.AllOptions) =>
  Managed.all([
    resource(probe, "a"),
    resource(probe, "b", slowly),
    resource(probe, "c", { acquireTakes: 5, releaseTakes: 1 })
  ], options)

const cannot = Managed.make({
  name: "cannot",
  acquire: (restore) => Effect.zipRight(restore(Effect.sleep(4)), Effect.fail("no")),
  release: () => Effect.void
})

const forms: Readonly<Record<string, (probe: Probe.Probe) => Use>> = {
  "Managed in a scope, a deadline": (probe) => Effect.zipRight(resource(probe), turn),
  "Managed in a scope, slow": (probe) => Effect.zipRight(resource(probe, "r", slowly), hold),
  "Managed by yield*": (probe) =>
    Effect.gen(function*() {
      yield* resource(probe, "a", slowly)
      yield* turn
      yield* resource(probe, "b")
      yield* turn
    }),
  "Managed in a scope of its own": (probe) =>
    Effect.zipRight(Effect.scoped(Effect.zipRight(resource(probe), turn)), turn),
  "Managed.use, a release that waits": (probe) =>
    Managed.use(resource(probe, "r", slowly), () => turn),
  "Managed.use, no deadline": (probe) =>
    Managed.use(resource(probe, "r", slowly, { releaseDeadline: Infinity }), () => turn),
  "Managed.use, no deadline, a release that lets itself be cut": (probe) =>
    Managed.use(
      Managed.make({
        name: "lets",
        acquire: probe.acquire("r"),
        release: (handle) => Effect.zipRight(Effect.interruptible(hold), probe.release(handle)),
        releaseDeadline: Infinity
      }),
      () => turn
    ),
  "Managed.use, nested": (probe) =>
    Managed.use(resource(probe, "a"), () => Managed.use(resource(probe, "b", slowly), () => turn)),
  "Managed.use, its user fails": (probe) =>
    Effect.exit(
      Managed.use(resource(probe, "r", slowly), () => Effect.zipRight(turn, Effect.fail(1)))
    ),
  "Managed.use, its release fails": (probe) =>
    Effect.sandbox(Managed.use(
      Managed.make({
        name: "bad",
        acquire: probe.acquire("bad"),
        release: (handle) =>
          Effect.zipRight(probe.release(handle), Effect.zipRight(turn, Effect.fail("broken")))
      }),
      () => turn
    )).pipe(Effect.exit),
  "Managed.useOption": (probe) => Managed.useOption(resource(probe, "r", slowly), () => turn),
  "Managed.all": (probe) => Effect.zipRight(three(probe), turn),
  "Managed.all, by use": (probe) => Managed.use(three(probe), () => hold),
  "Managed.all, two at once": (probe) => Managed.use(three(probe, { concurrency: 2 }), () => turn),
  "Managed.all, one at once": (probe) => Managed.use(three(probe, { concurrency: 1 }), () => turn),
  "Managed.all, released together": (probe) =>
    Managed.use(three(probe, { releases: "parallel" }), () => turn),
  "Managed.all, one fails": (probe) =>
    Effect.exit(Managed.use(
      Managed.all([
        resource(probe, "a"),
        cannot,
        resource(probe, "b", { acquireTakes: 9, releaseTakes: 2 })
      ]),
      () => turn
    )),
  "Managed.all, nested": (probe) =>
    Managed.use(
      Managed.all({ three: three(probe), d: resource(probe, "d", slowly) }, {
        releases: "parallel"
      }),
      () => turn
    ),
  "Managed.flatMap and map": (probe) =>
    Managed.use(
      Managed.flatMap(
        Managed.map(resource(probe, "a", slowly), (handle) => [handle]),
        () => resource(probe, "b", slowly)
      ),
      () => turn
    ),
  "Managed.flatMap, the second fails": (probe) =>
    Effect.exit(Managed.use(Managed.flatMap(resource(probe, "a"), () => cannot), () => turn)),
  "Managed.fromScoped": (probe) =>
    Managed.use(
      Managed.fromScoped(
        { name: "both", releaseDeadline: "1 minute" },
        Effect.zip(resource(probe, "a", slowly), resource(probe, "b"))
      ),
      () => turn
    ),
  "Managed.gen": (probe) =>
    Managed.use(
      Managed.gen("gen", function*(use) {
        const handle = yield* probe.acquire("r", slowly)
        yield* use(handle)
        yield* turn
        yield* probe.release(handle, slowly)
      }),
      () => turn
    )
}

/** The explorer looks through a ledger of its own; without one, `use` takes a shorter way. */
const unseen = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(effect, Ledger.Ledger, undefined)

const withAndWithout = <S>(
  name: string,
  subject: Pick<Explore.Subject<S>, "setup" | "invariant" | "mayDie"> & {
    readonly body: (state: S, probe: Probe.Probe) => Use
  }
): ReadonlyArray<Own> => [
  alone<S>({ ...subject, name }),
  alone<S>({
    ...subject,
    name: `No ledger: ${name}`,
    body: (state, probe) => unseen(subject.body(state, probe))
  })
]

/** One user of the instance that is replaced, and one of the other. */
const swapped = withAndWithout("Managed.hotswap", {
  mayDie: isReported,
  setup: Effect.sync(() => ({ usedAfterRelease: 0 })),
  body: (state, probe) => {
    const instance = (name: string) => {
      let isOpen = true
      return Managed.make(
        {
          name,
          acquire: Effect.map(probe.acquire(name, slowly), (handle) => ({
            handle,
            isOpen: () => isOpen
          })),
          releaseDeadline: "1 minute"
        },
        ({ handle }) =>
          Effect.suspend(() => {
            isOpen = false
            return probe.release(handle, slowly)
          })
      )
    }
    const use = (get: Managed.Managed<{ readonly isOpen: () => boolean }>) =>
      Managed.use(get, ({ isOpen }) =>
        Effect.zipRight(
          hold,
          Effect.sync(() => {
            if (!isOpen()) state.usedAfterRelease++
          })
        ))
    return Managed.use(
      Managed.hotswap(instance("first")),
      ({ get, swap }) =>
        Effect.gen(function*() {
          const user = yield* Effect.fork(use(get))
          yield* turn
          yield* swap(instance("second"))
          yield* use(get)
          yield* Fiber.join(user)
        })
    )
  },
  invariant: ({ usedAfterRelease }) => usedAfterRelease === 0
})

/** A release of one step runs where its owner stands, without a fiber and without a probe. */
const instant = withAndWithout("Managed.use and in a scope, releases of one step", {
  setup: Effect.sync(() => ({ open: 0 })),
  body: (state) => {
    const step = (by: number) =>
      Effect.sync(() => {
        state.open += by
      })
    const one = Managed.make({ name: "one", acquire: step(1), release: () => step(-1) })
    return Effect.zipRight(one, Managed.use(one, () => turn))
  },
  invariant: ({ open }) => open === 0
})

interface Hung {
  outer: number
  killed: number
  entered: number
}

/** A release that hangs is abandoned, and the one outside it runs. */
const hungIn = (
  name: string,
  releaseDeadline: Duration.DurationInput,
  run: (program: Effect.Effect<unknown>) => Effect.Effect<unknown>
) =>
  withAndWithout<Hung>(name, {
    mayDie: isReported,
    setup: Effect.sync(() => ({ outer: 0, killed: 0, entered: 0 })),
    body: (state) => {
      const outer = Managed.make({
        name: "outer",
        acquire: Effect.sync(() => {
          state.outer++
        }),
        release: () =>
          Effect.zipRight(
            turn,
            Effect.sync(() => {
              state.outer--
            })
          )
      })
      const stuck = Managed.make({
        name: "stuck",
        acquire: Effect.sync(() => {
          state.entered++
        }),
        release: () => Effect.never,
        releaseDeadline,
        onOverrun: () =>
          Effect.sync(() => {
            state.killed++
          })
      })
      return run(Managed.use(outer, () => Managed.use(stuck, () => turn)))
    },
    invariant: ({ entered, killed, outer }) => outer === 0 && killed === entered
  })

const hung = hungIn("Managed.use, a release that hangs", "1 second", Effect.exit)

const request = Shutdown.request({ kind: "request", by: "itself" })

/** Without a deadline of its own it has that of the shutdown, whether it begins before the end or in it. */
const hungInTheEnd = hungIn(
  "Shutdown.run, a release that hangs without a deadline",
  Infinity,
  (program) => Shutdown.run(Effect.zipRight(Effect.forkDaemon(request), program))
)

const form = (name: string): ReadonlyArray<Own> => {
  const body = (_: void, probe: Probe.Probe) => forms[name]!(probe)
  // What a release dies of is part of the cause of an interrupt.
  const mayDie = (defect: unknown) => defect === "broken"
  return /^Managed(\.use| in a)/.test(name)
    ? withAndWithout<void>(name, { body, mayDie })
    : [alone({ name, body, mayDie })]
}

export const managed: ReadonlyArray<Own> = [
  ...Object.keys(forms).flatMap(form),
  ...swapped,
  ...instant,
  ...hung,
  ...hungInTheEnd
]
