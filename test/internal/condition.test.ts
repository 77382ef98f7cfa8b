import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Condition from "../../src/internal/condition.ts"

const settle = Effect.repeatN(Effect.yieldNow(), 4)

describe("condition", () => {
  it("Condition-1: a notification calls those whose test holds, in the order of arrival, once", () => {
    const condition = Condition.make()
    const log: Array<string> = []
    let level = 0
    const atLeast = (name: string, least: number) =>
      Condition.observe(condition, () => log.push(name), () => level >= least)
    atLeast("two", 2)
    atLeast("one", 1)
    atLeast("two again", 2)
    const leave = atLeast("gone", 1)
    atLeast("zero", 0)
    expect(log).toEqual(["zero"])
    leave()
    level = 1
    Condition.notify(condition)
    expect(log).toEqual(["zero", "one"])
    level = 2
    Condition.notify(condition)
    Condition.notify(condition)
    expect(log).toEqual(["zero", "one", "two", "two again"])
    expect(condition.size).toBe(0)
  })

  it("Condition-1: an observer without a test is called by the next notification; one may notify from within", () => {
    const condition = Condition.make()
    const log: Array<string> = []
    Condition.observe(condition, () => {
      log.push("first")
      Condition.notify(condition)
    })
    Condition.observe(condition, () => log.push("second"))
    expect(log).toEqual([])
    Condition.notify(condition)
    expect(log).toEqual(["first", "second"])
  })

  it.effect("Condition-2: an interrupted wait leaves at once; the others still wait", () =>
    Effect.gen(function*() {
      const condition = Condition.make()
      let isMet = false
      const one = yield* Effect.fork(Condition.wait(condition, () => isMet))
      const two = yield* Effect.fork(Condition.wait(condition, () => isMet))
      yield* settle
      yield* Fiber.interrupt(one)
      expect(condition.size).toBe(1)
      Condition.notify(condition)
      yield* settle
      expect(two.unsafePoll()).toBeNull()
      isMet = true
      Condition.notify(condition)
      expect(condition.size).toBe(0)
      yield* Fiber.join(two)
      yield* Condition.wait(condition, () => isMet)
    }))
})
