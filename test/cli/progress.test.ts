import { describe, expect, it } from "@effect/vitest"
import { Effect, Exit, TestClock } from "effect"
import fc from "fast-check"
import { Ledger, Managed } from "holdfast"
import * as Progress from "../../src/cli/progress.ts"

const state = (part: Partial<Progress.ProgressState>): Progress.ProgressState => ({
  ...Progress.start(240, 0),
  ...part
})

// oxlint-disable-next-line no-control-regex -- the colours are what is taken off
const uncoloured = (line: string) => line.replace(/\u001b\[\d+m/g, "")

/** A terminal of one line and what stands above it. */
const terminal = (columns: number) => {
  const screen = { columns, isTTY: true, above: Array<string>(), line: "", writes: 0 }
  return Object.assign(screen, {
    write: (text: string) => {
      screen.writes++
      for (const piece of text.replaceAll("\r\u001b[2K", "\r").split(/([\r\n])/)) {
        if (piece === "\r") screen.line = ""
        else if (piece === "\n") {
          screen.above.push(screen.line)
          screen.line = ""
        } else screen.line += piece
      }
    }
  })
}

const log = () => {
  const lines: Array<string> = []
  return { lines, write: (text: string) => lines.push(text) }
}

describe("progress.render", () => {
  it("shows the counters that are known", () => {
    const half = state({ done: 100, alreadyDone: 20, failed: 2, bytes: 36e6, inFlight: 16 })
    expect(Progress.render(half, { width: 200, now: 1_999 })).toBe(
      "122/240   50%  34.3 MiB  16 in flight  20 done before  2 failed"
    )
    expect(Progress.render(half, { width: 200, now: 10_000 })).toBe(
      "122/240   50%  34.3 MiB  3.4 MiB/s  ETA 12s  16 in flight  20 done before  2 failed"
    )
    expect(Progress.render(half, { width: 200, now: 0, color: true })).toContain(
      "\u001b[31m2 failed\u001b[0m"
    )
    expect(Progress.render(Progress.start(0, 0), { width: 80, now: 0 })).toBe("0/0  100%  0 B")
  })

  it("there is no pace before two seconds, nor an ETA before the first item", () => {
    expect(Progress.pace(state({ bytes: 1e6, done: 9 }), 1_999)).toEqual({
      bytesPerSecond: null,
      etaMillis: null
    })
    expect(Progress.pace(state({ bytes: 1e6, alreadyDone: 100 }), 2_000)).toEqual({
      bytesPerSecond: 5e5,
      etaMillis: null
    })
    expect(Progress.pace(state({ done: 60, alreadyDone: 60 }), 6_000).etaMillis).toBe(12_000)
  })

  it("sizes and durations are for people", () => {
    expect([0, 1, 1023, 1024, 1536, 1_048_575, 1_048_576, 5e12, -1].map(Progress.bytesText))
      .toEqual([
        "0 B",
        "1 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "1.0 MiB",
        "4.5 TiB",
        "0 B"
      ])
    expect([0, 59_400, 59_500, 125_000, 3_599_600, 11_040_000].map(Progress.durationText)).toEqual([
      "0s",
      "59s",
      "1m00s",
      "2m05s",
      "1h00m",
      "3h04m"
    ])
  })

  const counts = fc.record({
    total: fc.nat(100_000),
    taken: fc.nat(100_000),
    done: fc.nat(100_000),
    alreadyDone: fc.nat(100_000),
    failed: fc.nat(100_000),
    skipped: fc.nat(100_000),
    bytes: fc.nat(2 ** 40),
    inFlight: fc.nat(1000),
    startedAt: fc.nat(1_000_000)
  })

  it("Progress-1: a line fits its width, says the failures while it can, and holds no control character", () => {
    fc.assert(
      fc.property(counts, fc.nat(120), fc.nat(10_000_000), (state, width, now) => {
        const line = Progress.render(state, { width, now })
        expect(line.length).toBeLessThanOrEqual(width)
        expect(line).not.toMatch(/\p{Cc}|NaN|Infinity|undefined/u)
        expect(uncoloured(Progress.render(state, { width, now, color: true }))).toBe(line)
        if (width >= 40 && state.failed > 0) expect(line).toContain(`${state.failed} failed`)
        if (width >= 20) expect(line).toMatch(/^ *\d+\/\d+/)
      })
    )
  })
})

describe("progress.reporter", () => {
  it.effect("Progress-2: a terminal has one line, at most ten times a second, that is gone at the end", () =>
    Effect.gen(function*() {
      const screen = terminal(40)
      const counts = Progress.start(100, 0)
      yield* Managed.use(
        Progress.reporter(counts, screen, { NO_COLOR: "1" }),
        () =>
          Effect.gen(function*() {
            for (let i = 0; i < 100; i++) {
              counts.done++
              counts.bytes += 1000
              yield* TestClock.adjust("10 millis")
            }
            expect(screen.writes).toBeLessThanOrEqual(11)
            expect(screen.writes).toBeGreaterThan(5)
            expect(screen.above).toEqual([])
            expect(screen.line).toMatch(/^100\/100 {2}100% {2}97\.7 KiB$/)
            screen.columns = 10
            counts.bytes++
            yield* TestClock.adjust("100 millis")
            expect(screen.line).toBe("100/100")
          })
      )
      expect(screen.line).toBe("")
      expect(screen.above).toEqual([Progress.summary(counts, 1_100)])
    }))

  it.effect("Progress-2: a log gets a line each tenth or each two seconds, without colour", () =>
    Effect.gen(function*() {
      const { lines, write } = log()
      const counts = Progress.start(100, 0)
      yield* Managed.use(
        Progress.reporter(counts, { write }, {}),
        () =>
          Effect.gen(function*() {
            for (let i = 0; i < 50; i++) {
              counts.failed++
              yield* TestClock.adjust("100 millis")
            }
            expect(lines.map((line) => /^ *\d+\/\d+/.exec(line)?.[0])).toEqual([
              " 10/100",
              " 20/100",
              " 30/100",
              " 40/100",
              " 50/100"
            ])
            lines.length = 0
            yield* TestClock.adjust("10 seconds")
            expect(lines.length).toBe(5)
            counts.failed = 100
            lines.length = 0
          })
      )
      expect(lines).toEqual([`${Progress.summary(counts, 15_000)}\n`])
      expect(lines[0]).not.toContain("\u001b")
    }))

  it.effect("Progress-3: shown numbers never go back, and the last line is the state", () =>
    Effect.gen(function*() {
      const screen = terminal(100)
      const counts = state({ total: 10, done: 3, bytes: 5000 })
      yield* Managed.use(
        Progress.reporter(counts, screen, {}),
        () =>
          Effect.gen(function*() {
            yield* TestClock.adjust("100 millis")
            counts.bytes = 100
            yield* TestClock.adjust("100 millis")
            expect(screen.line).toContain("4.9 KiB")
          })
      )
      expect(screen.above).toEqual([
        "10 items: 3 done, 0 done before, 0 skipped, 0 failed, 7 not finished; 100 B in 0.2s (500 B/s)"
      ])
    }))

  it.effect("a dumb terminal is a log", () =>
    Effect.gen(function*() {
      const { lines, write } = log()
      const sink = { isTTY: true, columns: 80, write }
      const reporter = Progress.reporter(state({ total: 10, done: 3 }), sink, { TERM: "dumb" })
      yield* Managed.use(reporter, () => TestClock.adjust("3 seconds"))
      expect(lines.length).toBeGreaterThan(1)
      expect(lines.join("")).not.toContain("\u001b")
    }))

  it.effect("Progress-4: a sink that throws fails nothing, and nothing is left", () =>
    Effect.gen(function*() {
      let writes = 0
      const write = () => {
        writes++
        throw new Error("EPIPE")
      }
      const exit = yield* Effect.exit(
        Managed.use(
          Progress.reporter(state({}), { isTTY: true, columns: 80, write }, {}),
          () => TestClock.adjust("1 second")
        )
      )
      expect(Exit.isSuccess(exit)).toBe(true)
      expect(writes).toBe(1)
      const ledger = (yield* Ledger.Ledger)!
      yield* ledger.assertEmpty
      expect((yield* ledger.snapshot).total).toMatchObject({ acquired: 1, released: 1, failed: 0 })
    }).pipe(Effect.provide(Ledger.layer())))
})
