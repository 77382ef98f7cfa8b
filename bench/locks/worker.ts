/**
 * worker: a process that has one side open, and does what its parent asks. Times are those of the machine's monotonic clock, in
 * milliseconds, which all processes share.
 */
import { type ChildProcess, fork } from "node:child_process"
import { once, setMaxListeners } from "node:events"
import { setTimeout as pause } from "node:timers/promises"
import { type Hold, type Place, type Side, sides } from "./sides.ts"

export const now = (): number => Number(process.hrtime.bigint()) / 1e6

export interface Event {
  readonly what: "held" | "tick" | "lost" | "ended"
  readonly at: number
}

type Emit = (what: Event["what"]) => void

/** Contenders that each hold for an instant, again and again: beginning and end of each grant. */
const contend = async (
  hold: Hold,
  key: string,
  contenders: number,
  millis: number
): Promise<ReadonlyArray<readonly [number, number]>> => {
  const grants: Array<readonly [number, number]> = []
  const over = new AbortController()
  setMaxListeners(0, over.signal)
  const until = now() + millis
  const contender = async (): Promise<void> => {
    while (now() < until) {
      await hold(key, async () => {
        grants.push([now(), now()])
      }, over.signal)
    }
  }
  const running = Array.from({ length: contenders }, () => contender().catch(() => {}))
  const timer = setTimeout(() => over.abort(), millis)
  // A side that cannot interrupt its waiters leaves them behind.
  await Promise.race([Promise.all(running), pause(millis + 500)])
  clearTimeout(timer)
  return grants
}

/** How long one acquire and release takes, each time. */
const alone = async (hold: Hold, key: string, millis: number): Promise<ReadonlyArray<number>> => {
  const took: Array<number> = []
  const until = now() + millis
  while (now() < until) {
    const began = now()
    await hold(key, async () => {})
    took.push(now() - began)
  }
  return took
}

/** How long an interrupted wait takes to end, each time. The key is held elsewhere, or released at about that moment. */
const interrupt = async (
  hold: Hold,
  key: string,
  rounds: number
): Promise<ReadonlyArray<number>> => {
  const took: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    const leaving = new AbortController()
    const waiting = hold(key, async () => {}, leaving.signal).catch(() => {})
    await pause(5 + Math.random() * 10)
    const began = now()
    leaving.abort()
    await waiting
    took.push(now() - began)
  }
  return took
}

/** Holds until it is freed, and ticks while the side says that the lock is live. A failed acquire is tried again. */
const keep = (hold: Hold, key: string, freed: AbortSignal, emit: Emit): Promise<void> => {
  let isHeld = false
  const again = (): Promise<void> | void => {
    if (!isHeld) return pause(10).then(attempt)
  }
  const attempt = (): Promise<void> =>
    hold(key, async ({ isLive }) => {
      isHeld = true
      emit("held")
      while (!freed.aborted && isLive()) {
        emit("tick")
        await pause(10)
      }
      if (!isLive()) emit("lost")
    }).catch(again)
  return attempt().then(() => emit("ended"))
}

const commands = { contend, alone, interrupt }
type Commands = typeof commands

interface Question {
  readonly id: number
  readonly command: keyof Commands | "keep" | "free"
  readonly args: ReadonlyArray<never>
}

/** The process itself. Its arguments: the name of a side, and the place. */
export const serve = async (): Promise<never> => {
  // What a library leaves unhandled must not end the bench; a user's process would end.
  for (const event of ["unhandledRejection", "uncaughtException"]) {
    process.on(event, () => process.send?.({ unhandled: true }))
  }
  process.on("disconnect", () => process.exit())
  const [name, place] = process.argv.slice(-2)
  const hold = await sides.find((side) => side.name === name)!.open(JSON.parse(place!))
  let freed = new AbortController()
  process.on("message", async ({ args, command, id }: Question) => {
    if (command === "free") return freed.abort()
    if (command !== "keep") {
      const run = commands[command] as (hold: Hold, ...args: ReadonlyArray<never>) => unknown
      return void process.send!({ id, result: await run(hold, ...args) })
    }
    freed = new AbortController()
    const emit: Emit = (what) => process.send!({ what, at: now() })
    await keep(hold, args[0]!, freed.signal, emit)
  })
  process.send!({ id: 0 })
  return new Promise(() => {})
}

/** Seen by the parent. */
export class Worker {
  readonly child: ChildProcess
  readonly events: Array<Event> = []
  unhandled = 0
  private readonly answers = new Map<number, (result: unknown) => void>()
  private asked = 0
  readonly ready: Promise<unknown>

  /** `ahead`: by so many milliseconds its wall clock is ahead. */
  constructor(side: Side, place: Place, ahead = 0) {
    const clock = `const real = Date.now; Date.now = () => real() + ${ahead}`
    this.child = fork(process.argv[1]!, ["lock-worker", side.name, JSON.stringify(place)], {
      execArgv: ahead === 0 ? [] : ["--import", `data:text/javascript,${encodeURIComponent(clock)}`]
    })
    this.ready = new Promise((resolve) => this.answers.set(0, resolve))
    this.child.on(
      "message",
      (message: Event & { id?: number; result: unknown; unhandled?: true }) => {
        if (message.unhandled) this.unhandled++
        else if (message.id === undefined) this.events.push(message)
        else this.answers.get(message.id)?.(message.result)
      }
    )
    this.child.on("error", () => {})
  }

  private send(question: object): void {
    if (this.child.connected) this.child.send(question)
  }

  ask<C extends keyof Commands>(
    command: C,
    ...args: Commands[C] extends (hold: Hold, ...args: infer A) => unknown ? A : never
  ): Promise<Awaited<ReturnType<Commands[C]>>> {
    const id = ++this.asked
    this.send({ id, command, args })
    return new Promise((resolve) => this.answers.set(id, resolve as (result: unknown) => void))
  }

  keep(key: string): void {
    this.send({ command: "keep", args: [key] })
  }

  free(): void {
    this.send({ command: "free" })
  }

  at(what: Event["what"]): number | undefined {
    return this.events.find((event) => event.what === what)?.at
  }

  /** The moment of the first such event, unless it does not come in time. */
  async until(what: Event["what"], millis: number): Promise<number | undefined> {
    const late = now() + millis
    while (this.at(what) === undefined && now() < late) await pause(5)
    return this.at(what)
  }

  signal(name: NodeJS.Signals): void {
    this.child.kill(name)
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const ended = once(this.child, "exit")
    this.child.kill("SIGKILL")
    await ended
  }
}
