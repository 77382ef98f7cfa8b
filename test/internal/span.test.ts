import { expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import { Ledger } from "holdfast"
import * as Span from "../../src/internal/span.ts"

interface Recorded {
  readonly name: string
  readonly parent: string | undefined
  readonly kind: Tracer.SpanKind
  readonly attributes: Map<string, unknown>
  exit: Exit.Exit<unknown, unknown> | undefined
}

/** A tracer as an exporter has one: it records every span that begins, and how it ends. */
const recording = () => {
  const spans: Array<Recorded> = []
  const tracer = Tracer.make({
    span: (name, parent, context, links, startTime, kind) => {
      const recorded: Recorded = {
        name,
        parent: Option.getOrUndefined(parent)?.spanId,
        kind,
        attributes: new Map(),
        exit: undefined
      }
      spans.push(recorded)
      return {
        _tag: "Span",
        name,
        spanId: name,
        traceId: "trace",
        parent,
        context,
        status: { _tag: "Started", startTime },
        attributes: recorded.attributes,
        links,
        sampled: true,
        kind,
        end: (_, exit) => {
          recorded.exit = exit
        },
        attribute: (key, value) => void recorded.attributes.set(key, value),
        event: () => {},
        addLinks: () => {}
      }
    },
    context: (run) => run()
  })
  return { spans, tracer }
}

const work = Effect.succeed(7)
const silent = () => {
  throw new Error("attributes are read")
}
const same = (): Effect.Effect<boolean> =>
  Effect.withFiberRuntime((fiber) =>
    Effect.succeed(Span.withSpan(fiber, work, "lamp.use", silent, undefined) === work)
  )

it("Span-1: without a tracer, or with tracing disabled, it is the effect itself and no attribute is read", () => {
  const { spans, tracer } = recording()
  expect(Effect.runSync(same())).toBe(true)
  expect(Effect.runSync(Effect.withSpan(same(), "a span of the default tracer"))).toBe(true)
  const disabled = same().pipe(Effect.withTracerEnabled(false), Effect.withTracer(tracer))
  expect(Effect.runSync(disabled)).toBe(true)
  expect(Effect.runSync(Ledger.withSpan(work, "lamp.use", { attributes: silent }))).toBe(7)
  expect(spans).toEqual([])
})

it("with a tracer each run is a span with its attributes, its parent and its end", () => {
  const { spans, tracer } = recording()
  const program = Ledger.withSpan(
    Ledger.withSpan(Effect.fail("dark"), "lamp.use", {
      kind: "client",
      attributes: () => ({ "lamp.name": "desk" })
    }),
    "room.use"
  ).pipe(Effect.withTracer(tracer))
  const exit = Effect.runSyncExit(program)
  expect(exit).toEqual(Exit.fail("dark"))
  expect(spans).toEqual([
    {
      name: "holdfast.room.use",
      parent: undefined,
      kind: "internal",
      attributes: new Map(),
      exit
    },
    {
      name: "holdfast.lamp.use",
      parent: "holdfast.room.use",
      kind: "client",
      attributes: new Map([["lamp.name", "desk"]]),
      exit
    }
  ])
})

it("the effect's own requirement of a parent span stays", () => {
  const parent: Effect.Effect<string, never, Tracer.ParentSpan> = Ledger.withSpan(
    Effect.map(Tracer.ParentSpan, (span) => span.spanId),
    "lamp.use"
  )
  const outer = Tracer.externalSpan({ spanId: "outer", traceId: "trace" })
  const provided = Effect.provide(parent, Context.make(Tracer.ParentSpan, outer))
  expect(Effect.runSync(provided)).toBe("outer")
  expect(Effect.runSync(Effect.withTracer(provided, recording().tracer))).toBe("holdfast.lamp.use")
})
