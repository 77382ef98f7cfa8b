/**
 * source: an iterable that several workers pull from, one item at a time.
 *
 * DESIGN. A pull is synchronous: a free worker takes one item in one step, and no other worker runs meanwhile.
 *
 * INVARIANTS
 * - Source-1 No look-ahead: an item is taken from the iterator in the pull that hands it out.
 * - Source-2 Closed early, the iterator's `return` is called once; one that has ended, or has thrown, is left alone.
 */

/** One item and its place in the source, from 0. */
export interface Taken<out A> {
  readonly item: A
  readonly index: number
}

export interface Source<out A> {
  readonly pull: () => Taken<A> | undefined
  readonly close: () => void
  readonly isExhausted: () => boolean
}

export const make = <A>(items: Iterable<A>): Source<A> => {
  const iterator = items[Symbol.iterator]()
  let exhausted = false
  let index = 0
  return {
    pull: () => {
      if (exhausted) return undefined
      // An iterator that throws has ended.
      exhausted = true
      const next = iterator.next()
      if (next.done === true) return undefined
      exhausted = false
      return { item: next.value, index: index++ }
    },
    close: () => {
      if (!exhausted) iterator.return?.()
    },
    isExhausted: () => exhausted
  }
}
