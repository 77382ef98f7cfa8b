/** A primitive of ours as a subject, for the lists of them (`ours.ts` has them all). */
import { Predicate } from "effect"
import { Explore } from "holdfast/Testing"

export interface Own {
  readonly name: string
  readonly interruptions: (options?: Explore.Options) => Promise<Explore.Verdict>
  /** Where somebody is in the way. */
  readonly interleavings: ((options?: Explore.Schedules) => Promise<Explore.Verdict>) | undefined
  /** Three users at once; only `npm run explore` tries their orders. */
  readonly trio?: ((options?: Explore.Schedules) => Promise<Explore.Verdict>) | undefined
  readonly replay: (token: string) => Promise<Explore.Replay>
}

/** What we report as a defect, by name: a release that was abandoned, an acquire for an owner that is closed. */
export const isReported = (defect: unknown): boolean =>
  ["ReleaseTimeout", "EnterTimeout", "OwnerClosed"].some((tag) => Predicate.isTagged(defect, tag))

/** With nobody in the way. */
export const alone = <S = void>(subject: Explore.Subject<S>): Own => ({
  name: subject.name,
  interruptions: (options) => Explore.interruptions(subject, options),
  interleavings: undefined,
  replay: (token) => Explore.replay(token, subject)
})
