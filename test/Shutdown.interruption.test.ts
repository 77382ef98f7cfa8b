/** A run interrupted at every point, or that asks for its own end: it and its daemons release everything. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { Managed, Shutdown } from "holdfast"
import { Explore, type Probe } from "holdfast/Testing"

const held = (probe: Probe.Probe, name: string) =>
  Managed.make({
    name,
    acquire: probe.acquire(name),
    release: (handle) => probe.release(handle),
    releaseDeadline: Infinity
  })

const request = Shutdown.request({ kind: "request", by: "itself" })
const turn = Effect.yieldNow()

const programs: Record<
  string,
  (probe: Probe.Probe) => Effect.Effect<unknown, unknown, Scope.Scope>
> = {
  "ends by itself": (probe) => Effect.zipRight(held(probe, "r"), turn),
  "asks for its end": (probe) =>
    Effect.zipRight(held(probe, "r"), Effect.zipRight(request, Effect.never)),
  "leaves a daemon behind": (probe) =>
    Effect.gen(function*() {
      yield* Effect.forkDaemon(Managed.use(held(probe, "daemon"), () => Effect.never))
      yield* held(probe, "r")
      yield* turn
    }),
  "drains, with hooks": (probe) =>
    Effect.gen(function*() {
      yield* held(probe, "r")
      yield* Shutdown.onDrain(turn)
      yield* Shutdown.onStop(Managed.use(held(probe, "hook"), () => turn))
      yield* Shutdown.drains(Effect.zipRight(request, turn))
    }),
  "overruns with work in flight": (probe) =>
    Effect.gen(function*() {
      yield* held(probe, "r")
      yield* Effect.forkDaemon(
        Shutdown.inFlight(Managed.use(held(probe, "flying"), () => Effect.never))
      )
      yield* Shutdown.onStop(Managed.use(held(probe, "hook"), () => Effect.never))
      yield* turn
      return yield* Effect.zipRight(request, Effect.never)
    }),
  "has another run inside": (probe) =>
    Effect.gen(function*() {
      yield* held(probe, "r")
      yield* Effect.fork(Shutdown.run(Effect.scoped(Effect.gen(function*() {
        yield* held(probe, "in")
        yield* Effect.forkDaemon(Managed.use(held(probe, "daemon"), () => Effect.never))
        yield* Shutdown.inFlight(Effect.sleep("1 minute"))
      }))))
      yield* turn
      return yield* Effect.zipRight(request, Effect.never)
    })
}

const all: Explore.Options = {
  fail: ["R0", "R1", "R2", "R3", "R4"],
  // No limit by the clock: a busy machine looks at every point too.
  budget: { millis: Infinity }
}

describe("Shutdown-4, Shutdown-5, Shutdown-6, Shutdown-8: a run interrupted at any point releases everything", () => {
  for (const [name, program] of Object.entries(programs)) {
    it(name, async () => {
      const verdict = await Explore.interruptions({
        name,
        body: (_, probe) => Shutdown.run(Effect.scoped(program(probe)))
      }, all)
      expect(verdict.status, Explore.format(verdict)).toBe("safe")
    })
  }
})
