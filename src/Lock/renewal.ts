/**
 * renewal: renews one lease, and knows without the server how long it lasts.
 *
 * DESIGN. A lease lasts from the moment at which its last successful renewal was sent, for its time to live less a margin, in which
 * the body can stop before the server gives the lock to another. The time that has passed is the longer of what two clocks say:
 * the monotonic clock stands still while a machine sleeps, and the wall clock may be set back. Both are the machine's own, not
 * Effect's `Clock`, because the server does not follow that.
 */
import type { LossReason } from "./errors.ts"

export interface Moment {
  readonly monotonic: number
  readonly wall: number
}

export const now = (): Moment => ({ monotonic: performance.now(), wall: Date.now() })

export const since = ({ monotonic, wall }: Moment): number =>
  Math.max(performance.now() - monotonic, Date.now() - wall)

/** The answer of most servers. */
export type Answer = "ours" | "vanished" | "superseded"

export interface Settings {
  readonly ttl: number
  /** The part of a time to live in which the body stops. */
  readonly margin: number
}

/** The longest delay of `setTimeout`. */
const longest = 2 ** 31 - 1

export class Renewal {
  readonly settings: Settings
  /** Asks most servers to let it live so long, or to look only if that is 0. */
  readonly ask: (ttl: number) => Promise<Answer>
  readonly lose: (reason: LossReason) => void
  sent: Moment
  lasts: number
  timer: ReturnType<typeof setTimeout> | undefined
  isOver = false

  constructor(
    settings: Settings,
    sent: Moment,
    ask: (ttl: number) => Promise<Answer>,
    lose: (reason: LossReason) => void
  ) {
    this.settings = settings
    this.ask = ask
    this.lose = lose
    this.sent = sent
    this.lasts = settings.ttl * (1 - settings.margin)
    this.wait(settings.ttl / 3)
  }

  /** In milliseconds. */
  left(): number {
    return this.lasts - since(this.sent)
  }

  /** Whether the lease is live, by the clocks of this machine alone. */
  isLive(): boolean {
    // INVARIANT LockRedis-3, LockPostgres-9: after a pause of this process the first look ends the lease, before any timer or answer.
    if (!this.isOver && this.left() <= 0) this.end("deadline")
    return !this.isOver
  }

  wait(millis: number): void {
    clearTimeout(this.timer)
    const delay = Math.max(0, Math.min(millis, this.left(), longest))
    this.timer = setTimeout(() => this.tick(), delay)
    this.timer.unref()
  }

  tick(): void {
    if (!this.isLive()) return
    // The next tick is the deadline, unless an answer comes before it.
    this.wait(this.left())
    this.renew(this.settings.ttl).catch(() => {
      if (!this.isOver) this.wait(this.settings.ttl / 12)
    })
  }

  /** Whether the lease is ours. Rejects if most servers do not answer. */
  async verify(): Promise<boolean> {
    const answer = await this.ask(0)
    if (this.isLive() && answer !== "ours") this.end(answer)
    return !this.isOver
  }

  /** As `verify`, and makes it last `ttl` more from now. */
  async renew(ttl: number): Promise<boolean> {
    const sent = now()
    const answer = await this.ask(ttl)
    if (!this.isLive()) return false
    if (answer !== "ours") {
      this.end(answer)
      return false
    }
    const lasts = ttl * (1 - this.settings.margin)
    if (lasts - since(sent) > this.left()) {
      this.sent = sent
      this.lasts = lasts
    }
    this.wait(this.settings.ttl / 3)
    return true
  }

  end(reason: LossReason): void {
    this.stop()
    this.lose(reason)
  }

  /** Before the release is sent: a renewal under way means nothing from here on. */
  stop(): void {
    this.isOver = true
    clearTimeout(this.timer)
  }
}
