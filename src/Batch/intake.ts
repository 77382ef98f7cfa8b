/**
 * Batch/intake: an iterable, an async iterable or a feed that several workers take items from. ../Batch.ts has the invariants.
 *
 * DESIGN. A question to an asynchronous source outlives the wait of an interrupted worker, because it may bring an item. So the
 * answer is kept here, and a worker takes it in the step that begins to settle it.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Condition from "../internal/condition.ts"
import { exitWithin } from "../internal/deadline.ts"
import * as Iterables from "../internal/source.ts"
import type * as Workers from "../internal/workers.ts"
import * as Semaphore from "../Semaphore.ts"

/**
 * An item, or none at the end, or the failure of the source.
 *
 * @category models
 * @since 0.1.0
 */
export type Answer<Item, E> = Exit.Exit<Option.Option<Item>, E>

/**
 * A source that is asked for one item at a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Feed<Item, E, R> {
  /** Asks for one item, and calls back whatever happens to the asker. */
  readonly ask: (answered: (answer: Answer<Item, E>) => void) => Effect.Effect<void, never, R>
  readonly close: Effect.Effect<unknown, never, R>
}

/**
 * Where items come from; endless ones too.
 *
 * @category models
 * @since 0.1.0
 */
export type Source<Item, E = never, R = never> =
  | Iterable<Item>
  | AsyncIterable<Item>
  | Feed<Item, E, R>

export type Taken<Item> = Iterables.Taken<Item>

export interface Intake<Item, E, R> {
  /** Waits until `take` may give an item. An interrupt loses no item. Undefined if the source is synchronous. */
  readonly ready: Effect.Effect<void, never, R> | undefined
  /** The next item if it is there, or how the source failed; run in the step that begins to settle it. */
  readonly take: () => Taken<Item> | Cause.Cause<E> | undefined
  /** Ends the source, and returns the last item that it gave if no worker took it. */
  readonly close: Effect.Effect<Taken<Item> | undefined, E, R>
  readonly isExhausted: () => boolean
}

const closeDeadline = Duration.seconds(5)

export const open = <Item, E, R>(
  source: Source<Item, E, R>,
  group: Workers.Group<unknown>
): Intake<Item, E, R> => {
  if (typeof source === "object" && "ask" in source) return asynchronous(source, group)
  if (Symbol.asyncIterator in Object(source)) {
    return asynchronous(promised(source as AsyncIterable<Item>), group)
  }
  const { close, isExhausted, pull } = Iterables.make(source as Iterable<Item>)
  return {
    ready: undefined,
    take: pull,
    close: Effect.as(Effect.sync(close), undefined),
    isExhausted
  }
}

const promised = <Item>(source: AsyncIterable<Item>): Feed<Item, never, never> => {
  const iterator = source[Symbol.asyncIterator]()
  const next = async (): Promise<Answer<Item, never>> => {
    try {
      const result = await iterator.next()
      return Exit.succeed(result.done === true ? Option.none() : Option.some(result.value))
    } catch (error) {
      return Exit.die(error)
    }
  }
  return {
    ask: (answered) => Effect.sync(() => void next().then(answered)),
    close: Effect.promise(async () => iterator.return?.())
  }
}

const asynchronous = <Item, E, R>(
  feed: Feed<Item, E, R>,
  group: Workers.Group<unknown>
): Intake<Item, E, R> => {
  const turn = Semaphore.unsafeMake(1, { name: "source" })
  let question: { answer: Answer<Item, E> | undefined } | undefined
  let exhausted = false
  let index = 0
  const isAnswered = () => question?.answer !== undefined
  const ready = Effect.suspend(() => {
    if (exhausted || group.stopped) return Effect.void
    const asked: { answer: Answer<Item, E> | undefined } = { answer: undefined }
    const ask = question !== undefined ? Effect.void : feed.ask((answer) => {
      asked.answer = answer
      Condition.notify(group.changed)
    })
    question ??= asked
    // A source that has nothing to give must not delay a drain.
    return Effect.zipRight(ask, Condition.wait(group.changed, () => isAnswered() || group.stopped))
  })
  const take = () => {
    const answer = question?.answer
    if (answer === undefined) return undefined
    question = undefined
    if (Exit.isSuccess(answer) && Option.isSome(answer.value)) {
      return { item: answer.value.value, index: index++ }
    }
    // A source that fails has ended.
    exhausted = true
    return Exit.isFailure(answer) ? answer.cause : undefined
  }
  const closed = Effect.zipRight(
    feed.close,
    Effect.suspend(() =>
      question === undefined ? Effect.void : Condition.wait(group.changed, isAnswered)
    )
  )
  return {
    ready: Semaphore.withPermit(turn)(ready),
    take,
    close: Effect.gen(function*() {
      if (exhausted) return undefined
      const ended = yield* exitWithin(closed, closeDeadline)
      if (Option.isSome(ended)) yield* ended.value
      const last = take()
      if (!Cause.isCause(last)) return last
      exhausted = Cause.isInterruptedOnly(last) ? false : exhausted
      return Cause.isInterruptedOnly(last) ? undefined : yield* Effect.failCause(last)
    }),
    isExhausted: () => exhausted
  }
}
