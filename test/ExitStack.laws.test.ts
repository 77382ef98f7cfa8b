/**
 * The laws of the stack: random programs against a model that is a list and a fold. Whatever is entered, pushed, moved and
 * closed in whatever order, and whoever of them fails, suppresses or translates, the log and the final exit are the model's.
 */
import { expect, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import * as fc from "fast-check"
import { Managed } from "holdfast"
import * as ExitStack from "holdfast/ExitStack"

const handling = [
  "look",
  "suppress",
  "translate",
  "again",
  "fail",
  "die",
  "throw",
  "fail two"
] as const

type Handling = typeof handling[number]

interface Member {
  readonly kind: "managed" | "scoped"
  readonly acquire: "opens" | "fails"
  readonly release: "closes" | "dies"
}

type Event =
  | { readonly kind: "enter"; readonly member: Member }
  | { readonly kind: "enter all"; readonly members: ReadonlyArray<Member> }
  | { readonly kind: "push"; readonly does: Handling }
  | { readonly kind: "callback"; readonly fails: boolean }
  | { readonly kind: "pop all" }
  | { readonly kind: "close"; readonly fails: boolean }
  | { readonly kind: "back" }

const member: fc.Arbitrary<Member> = fc.record({
  kind: fc.constantFrom("managed", "scoped"),
  acquire: fc.oneof(
    { weight: 4, arbitrary: fc.constant("opens" as const) },
    { weight: 1, arbitrary: fc.constant("fails" as const) }
  ),
  release: fc.oneof(
    { weight: 3, arbitrary: fc.constant("closes" as const) },
    { weight: 1, arbitrary: fc.constant("dies" as const) }
  )
})

const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("enter" as const), member }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("enter all" as const),
      members: fc.array(member, { maxLength: 4 })
    })
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("push" as const),
      does: fc.constantFrom(...handling)
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("callback" as const), fails: fc.boolean() })
  },
  { weight: 1, arbitrary: fc.constant({ kind: "pop all" as const }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("close" as const), fails: fc.boolean() }) },
  // From here on with the stack before the last hand-over.
  { weight: 1, arbitrary: fc.constant({ kind: "back" as const }) }
)

const ends = ["ok", "fail", "die"] as const
type End = typeof ends[number]

// The model.

/** What was, and what has been added to it; a replacement has nothing of what was. */
interface State {
  readonly before: ReadonlyArray<string>
  readonly added: ReadonlyArray<string>
  /** Of a success. */
  readonly value: string | undefined
}

const success = (value: string): State => ({ before: [], added: [], value })
const failure = (...before: ReadonlyArray<string>): State => ({
  before,
  added: [],
  value: undefined
})
const textOf = ({ added, before, value }: State): string =>
  value === undefined ? [...before, ...added].join(" + ") : `ok ${value}`

const plus = (state: State, ...added: ReadonlyArray<string>): State => ({
  before: state.before,
  added: [...state.added, ...added],
  value: undefined
})

type Step = (state: State) => State

class ModelStack {
  steps: Array<Step> = []
  isClosed = false
  final: State | undefined

  unwind(state: State): State {
    this.isClosed = true
    for (let step = this.steps.pop(); step !== undefined; step = this.steps.pop()) {
      state = step(state)
    }
    return state
  }

  close(state: State): State {
    return this.final ??= this.unwind(state)
  }
}

class Model {
  readonly log: Array<string> = []
  readonly stacks: Array<ModelStack> = [new ModelStack()]
  at = 0
  next = 0

  get stack(): ModelStack {
    return this.stacks[this.at]!
  }

  step(name: string, does: Handling | "dies" | "closes"): Step {
    return (state) => {
      this.log.push(`${name} saw ${textOf(state)}`)
      switch (does) {
        case "suppress":
          return success(name)
        case "translate":
          // Nothing of what was is left, so everything is new.
          return { before: [], added: [`fail ${name}`], value: undefined }
        case "fail":
          return plus(state, `fail ${name}`)
        case "fail two":
          return plus(state, `fail ${name}`, `fail ${name}`)
        case "die":
        case "throw":
        case "dies":
          return plus(state, `die ${name}`)
        default:
          return state
      }
    }
  }

  /** All or none. */
  enter(members: ReadonlyArray<Member>): void {
    const name = `r${this.next++}`
    if (this.stack.isClosed) return void this.log.push("refused")
    const part = new ModelStack()
    for (const [index, { acquire, release }] of members.entries()) {
      if (acquire === "fails") {
        const exit = part.unwind(failure(`fail ${name}.${index}`))
        return void this.log.push(textOf(exit))
      }
      part.steps.push(this.step(`${name}.${index}`, release))
    }
    this.stack.steps.push(...part.steps)
    this.log.push("entered")
  }

  register(step: Step): void {
    if (this.stack.isClosed) return void this.log.push("refused")
    this.stack.steps.push(step)
  }

  do(event: Event): void {
    switch (event.kind) {
      case "enter":
        return this.enter([event.member])
      case "enter all":
        return this.enter(event.members)
      case "push":
        return this.register(this.step(`h${this.next++}`, event.does))
      case "callback": {
        const name = `c${this.next++}`
        return this.register((state) => {
          this.log.push(name)
          return event.fails ? plus(state, `die ${name}`) : state
        })
      }
      case "pop all": {
        if (this.stack.isClosed) return void this.log.push("refused")
        const heir = new ModelStack()
        heir.steps = this.stack.steps
        this.stack.steps = []
        this.stack.isClosed = true
        this.at = this.stacks.push(heir) - 1
        return
      }
      case "close": {
        const given = event.fails ? failure(`fail x${this.next++}`) : success("x")
        return void this.log.push(`closed ${textOf(this.stack.close(given))}`)
      }
      case "back":
        this.at = Math.max(0, this.at - 1)
    }
  }

  end(end: End): State {
    const exit = end === "ok" ? success("end") : failure(`${end} end`)
    const used = this.stacks[0]!.final === undefined ? this.stacks[0]!.close(exit) : exit
    // The scope's own exit stays; what its heirs add to it is added as defects.
    const before = used.value === undefined ? [...used.before, ...used.added] : []
    const given = { ...used, before, added: [] }
    const news = this.stacks.slice(1).toReversed().flatMap((heir) => {
      if (heir.final !== undefined) return []
      const { added, before: kept, value } = heir.close(given)
      if (value !== undefined) return []
      // A failure that replaced, or followed, a success has nothing of the scope's.
      return (kept === before ? added : [...kept, ...added]).map((part) =>
        part.replace(/^fail/, "die")
      )
    })
    return news.length === 0 ? given : plus(given, ...news)
  }
}

// The real thing.

const shown = (exit: Exit.Exit<unknown, unknown>): string =>
  Exit.isSuccess(exit) ? `ok ${exit.value}` : parts(exit.cause).join(" + ")

const parts = Cause.match<ReadonlyArray<string>, unknown>({
  onEmpty: [],
  onFail: (error) => [`fail ${error}`],
  onDie: (defect) => [`die ${defect instanceof Error ? defect.message : defect}`],
  onInterrupt: () => ["interrupt"],
  onSequential: (left, right) => [...left, ...right],
  onParallel: (left, right) => [...left, ...right]
})

type Stack = ExitStack.ExitStack<unknown, unknown>

const handler =
  (log: Array<string>, name: string, does: Handling) => (exit: Exit.Exit<unknown, unknown>) => {
    log.push(`${name} saw ${shown(exit)}`)
    switch (does) {
      case "look":
        return Effect.void
      case "suppress":
        return Effect.succeed(Exit.succeed(name))
      case "translate":
        return Effect.succeed(Exit.fail(name))
      case "again":
        return Effect.succeed(exit)
      case "fail":
        return Effect.fail(name)
      case "fail two":
        return Effect.failCause(Cause.sequential(Cause.fail(name), Cause.fail(name)))
      case "die":
        return Effect.zipRight(Effect.yieldNow(), Effect.die(name))
      case "throw":
        throw new Error(name)
    }
  }

const resource = (log: Array<string>, name: string, { acquire, kind, release }: Member) => {
  const opens = acquire === "opens" ? Effect.succeed(name) : Effect.fail(name)
  const closes = (_: string, exit: Exit.Exit<unknown, unknown>) =>
    Effect.suspend(() => {
      log.push(`${name} saw ${shown(exit)}`)
      return release === "dies" ? Effect.die(name) : Effect.void
    })
  return kind === "managed"
    ? Managed.make({ name, acquire: opens, release: closes })
    : Effect.acquireRelease(opens, closes)
}

const run = (events: ReadonlyArray<Event>, end: End, log: Array<string>) =>
  Effect.scoped(ExitStack.use((first: Stack) =>
    Effect.gen(function*() {
      const stacks: Array<Stack> = [first]
      let at = 0
      let next = 0
      const tell = (effect: Effect.Effect<unknown, unknown>, done: string | undefined) =>
        Effect.map(Effect.exit(effect), (exit) => {
          if (Exit.isSuccess(exit)) return done === undefined ? undefined : log.push(done)
          const [refusal] = Cause.defects(exit.cause)
          return log.push(refusal instanceof Managed.OwnerClosed ? "refused" : shown(exit))
        })
      for (const event of events) {
        const stack = stacks[at]!
        if (event.kind === "enter") {
          yield* tell(stack.enter(resource(log, `r${next++}.0`, event.member)), "entered")
        } else if (event.kind === "enter all") {
          const name = `r${next++}`
          const members = event.members.map((member, index) =>
            resource(log, `${name}.${index}`, member)
          )
          yield* tell(stack.enterAll(members), "entered")
        } else if (event.kind === "push") {
          yield* tell(stack.push(handler(log, `h${next++}`, event.does)), undefined)
        } else if (event.kind === "callback") {
          const name = `c${next++}`
          const callback = Effect.suspend(() => {
            log.push(name)
            return event.fails ? Effect.fail(name) : Effect.void
          })
          yield* tell(stack.callback(callback), undefined)
        } else if (event.kind === "pop all") {
          const moved = yield* Effect.exit(stack.popAll)
          if (Exit.isSuccess(moved)) at = stacks.push(moved.value) - 1
          else log.push("refused")
        } else if (event.kind === "close") {
          const given = event.fails ? Exit.fail(`x${next++}`) : Exit.succeed("x")
          log.push(`closed ${shown(yield* stack.close(given))}`)
        } else at = Math.max(0, at - 1)
      }
      return yield* end === "ok"
        ? Effect.succeed("end")
        : end === "fail"
        ? Effect.fail("end")
        : Effect.die("end")
    })
  ))

it("ExitStack-1, ExitStack-3, ExitStack-4, ExitStack-5, ExitStack-7, ExitStack-8: 3,000 random programs go as the model does", async () => {
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 14 }),
      fc.constantFrom(...ends),
      async (events, end) => {
        const model = new Model()
        for (const event of events) model.do(event)
        const expected = { end: textOf(model.end(end)), log: model.log }
        const log: Array<string> = []
        const exit = shown(await Effect.runPromiseExit(run(events, end, log)))
        expect({ end: exit, log }).toEqual(expected)
        for (const line of [exit, ...log]) seen.add(line.replaceAll(/[a-z]\d+(\.\d)?/g, "#"))
      }
    ),
    { numRuns: 3_000, seed: 20_261_120 }
  )
  // The programs were no idle ones.
  expect(seen.size).toBeGreaterThan(200)
})
