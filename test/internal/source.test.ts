import { describe, expect, it } from "vitest"
import * as Source from "../../src/internal/source.ts"

const watched = (fails: boolean) => {
  const seen = { pulled: 0, returned: 0 }
  const items: Iterable<number> = {
    [Symbol.iterator]: () => ({
      next: () => {
        if (fails) throw new Error("no more")
        return seen.pulled === 3
          ? { done: true, value: undefined }
          : { done: false, value: seen.pulled++ }
      },
      return: () => {
        seen.returned++
        return { done: true, value: undefined }
      }
    })
  }
  return { seen, source: Source.make(items) }
}

describe("source", () => {
  it("Source-1: hands out what it takes, in order, and takes nothing ahead", () => {
    const { seen, source } = watched(false)
    expect(seen.pulled).toBe(0)
    expect([source.pull(), source.pull()]).toEqual([{ item: 0, index: 0 }, { item: 1, index: 1 }])
    expect(seen.pulled).toBe(2)
  })

  it("Source-2: closed early it returns the iterator; ended or broken it leaves it alone", () => {
    const early = watched(false)
    early.source.pull()
    early.source.close()
    expect([early.source.isExhausted(), early.seen.returned]).toEqual([false, 1])

    const ended = watched(false)
    while (ended.source.pull() !== undefined);
    ended.source.close()
    expect([ended.source.isExhausted(), ended.source.pull(), ended.seen.returned]).toEqual([
      true,
      undefined,
      0
    ])

    const broken = watched(true)
    expect(() => broken.source.pull()).toThrow("no more")
    broken.source.close()
    expect([broken.source.isExhausted(), broken.seen.returned]).toEqual([true, 0])
  })
})
