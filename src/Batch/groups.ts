/**
 * Batch/groups: joins the requests of many workers into few larger ones.
 *
 * DESIGN. There is no fiber of its own and no timer. A worker that finds nobody at work leads: it answers all that has gathered, its
 * own request included, while later ones gather. Another leads beside it as soon as a whole group waits. Alone, a request waits
 * for one yield.
 *
 * INVARIANTS
 * - BatchGroups-1 Each request is in one group and gets one exit; an interrupted one that waits leaves its place, one that
 *   is in a group waits for the group.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Condition from "../internal/condition.ts"

interface Request<In, Out, E> {
  readonly input: In
  exit: Exit.Exit<Out, E> | undefined
}

/** `answer` gives one exit for each input, in their order; if it fails, all of them fail so. */
export const make = <In, Out, E, R>(
  size: number,
  answer: (inputs: ReadonlyArray<In>) => Effect.Effect<ReadonlyArray<Exit.Exit<Out, E>>, E, R>
): (input: In) => Effect.Effect<Out, E, R> => {
  const waiting: Array<Request<In, Out, E>> = []
  const changed = Condition.make()
  let leaders = 0
  let isGathering = false
  const mayLead = () =>
    !isGathering && waiting.length > 0 && (leaders === 0 || waiting.length >= size)
  // MASK: a group that was taken is answered; the answer itself is restored.
  const lead = Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      leaders++
      isGathering = true
      // Those that are ready in this turn of the event loop join in.
      return Effect.flatMap(size === 1 ? Effect.void : Effect.yieldNow(), () => {
        isGathering = false
        const group = waiting.splice(0, size)
        Condition.notify(changed)
        const inputs = group.map(({ input }) => input)
        return Effect.map(Effect.exit(restore(Effect.suspend(() => answer(inputs)))), (exit) => {
          leaders--
          for (const [index, request] of group.entries()) {
            request.exit = Exit.isSuccess(exit) ? exit.value[index]! : Exit.failCause(exit.cause)
          }
          Condition.notify(changed)
        })
      })
    })
  )
  return (input) =>
    // MASK: a request that a leader has taken is not left; its wait for one is restored.
    Effect.uninterruptibleMask((restore) => {
      const request: Request<In, Out, E> = { input, exit: undefined }
      const isAnswered = () => request.exit !== undefined
      waiting.push(request)
      const leave = Effect.suspend(() => {
        const at = waiting.indexOf(request)
        if (at < 0) return Condition.wait(changed, isAnswered)
        waiting.splice(at, 1)
        return Effect.void
      })
      const wait = Condition.wait(changed, () => isAnswered() || mayLead())
      return Effect.matchCauseEffect(
        Effect.whileLoop({
          while: () => !isAnswered(),
          body: () => restore(mayLead() ? lead : wait),
          step: () => {}
        }),
        {
          onFailure: (cause) =>
            Effect.flatMap(leave, () => request.exit ?? Effect.failCause(cause)),
          onSuccess: () => request.exit!
        }
      )
    })
}
