/**
 * server: one Redis server, asked over connections of our own.
 *
 * DESIGN. ioredis neither reconnects nor sends again here: it would use a new connection before the age of its server is known
 * (LockRedis-5). A question is asked again when its connection ends, because each script may run twice. A connection that does not
 * answer in time is destroyed: what else it carries would not be answered either. All waits are in real time, as the server's.
 */
import { Redis, type RedisOptions } from "ioredis"
import * as crypto from "node:crypto"

export interface Settings {
  readonly url: string
  readonly client: RedisOptions
  /** How long an answer may take on a connection that works. */
  readonly answerMillis: number
  /** After how long a question fails; a connection may take as long. */
  readonly patienceMillis: number
}

/** A connection whose server has said how old it is. */
export interface Link {
  readonly client: Redis
  /** When its server started, by `performance.now()`; true to a second. */
  readonly startedAt: number
}

/** Between two tries for a connection. */
const retryMillis = 20

const pause = (millis: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, millis))

const within = <A>(work: Promise<A>, millis: number): Promise<A> =>
  new Promise((resolve, reject) => {
    const late = (): void => reject(new Error(`no answer within ${Math.round(millis)} ms`))
    const timer = setTimeout(late, Math.max(0, millis))
    const ended = <B>(settle: (result: B) => void) => (result: B): void => {
      clearTimeout(timer)
      settle(result)
    }
    work.then(ended(resolve), ended(reject))
  })

const connect = async ({ client: options, patienceMillis, url }: Settings): Promise<Redis> => {
  const client = new Redis(url, {
    ...options,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResubscribe: false,
    retryStrategy: () => null,
    connectTimeout: patienceMillis,
    // After this time the socket of a silent server is destroyed.
    disconnectTimeout: 100,
    keepAlive: 5000
  })
  let reason: unknown
  // INVARIANT LockRedis-6: an 'error' without a listener would be printed, and the text of `connect` does not say why.
  client.on("error", (error) => {
    reason = error
  })
  try {
    await within(client.connect(), patienceMillis)
    return client
  } catch (error) {
    client.disconnect()
    throw reason ?? error
  }
}

const uptimeOf = (info: string): number => {
  const seconds = /^uptime_in_seconds:(\d+)/m.exec(info)?.[1]
  if (seconds === undefined) throw new Error("INFO server does not say uptime_in_seconds")
  return Number(seconds)
}

const digests = new Map<string, string>()
const digestOf = (script: string): string => {
  const digest = digests.get(script) ?? crypto.createHash("sha1").update(script).digest("hex")
  digests.set(script, digest)
  return digest
}

/** Sends the text of a script only to a server that does not have it. */
export const evaluate = async (
  client: Redis,
  script: string,
  keys: ReadonlyArray<string>,
  args: ReadonlyArray<string | number>
): Promise<unknown> => {
  try {
    return await client.evalsha(digestOf(script), keys.length, ...keys, ...args)
  } catch (error) {
    if (!(error instanceof Error && error.message.startsWith("NOSCRIPT"))) throw error
    return client.eval(script, keys.length, ...keys, ...args)
  }
}

export class Server {
  readonly settings: Settings
  /** The connection for questions, or the try to make it. Written only by this class, as `hearing`. */
  linking: Promise<Link> | undefined
  /** The result of `linking`: a question on it needs no timer of its own for the connection. */
  linked: Link | undefined
  /** The connection that is subscribed. */
  hearing: Promise<Redis> | undefined
  readonly clients = new Set<Redis>()
  isClosed = false

  constructor(settings: Settings) {
    this.settings = settings
  }

  async open(): Promise<Redis> {
    const client = await connect(this.settings)
    if (this.isClosed) {
      client.disconnect()
      throw new Error("the lock service is closed")
    }
    this.clients.add(client)
    client.once("end", () => this.clients.delete(client))
    return client
  }

  async openLink(): Promise<Link> {
    const client = await this.open()
    const info = await within(client.info("server"), this.settings.patienceMillis)
    return { client, startedAt: performance.now() - uptimeOf(info) * 1000 }
  }

  link(): Promise<Link> {
    if (this.linking === undefined) {
      const linking = this.openLink()
      this.linking = linking
      linking.then(
        (link) => {
          if (this.linking === linking) this.linked = link
          link.client.once("end", () => this.forget(linking))
        },
        () => this.forget(linking)
      )
    }
    return this.linking
  }

  forget(linking: Promise<Link>): void {
    if (this.linking === linking) this.linking = this.linked = undefined
  }

  /** What `question` gives on a connection that works. It is asked again when its connection ends. */
  async ask<A>(question: (link: Link) => Promise<A>): Promise<A> {
    const until = performance.now() + this.settings.patienceMillis
    for (;;) {
      const linking = this.link()
      try {
        const link = this.linked ?? await within(linking, until - performance.now())
        const left = until - performance.now()
        return await within(question(link), Math.min(left, this.settings.answerMillis))
      } catch (error) {
        // An answer, though a refusal.
        if (error instanceof Error && error.name === "ReplyError") throw error
        this.forget(linking)
        linking.then(({ client }) => client.disconnect(), () => {})
        if (this.isClosed || performance.now() + retryMillis >= until) throw error
        await pause(retryMillis)
      }
    }
  }

  /** The answer of a script. */
  run(
    script: string,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Promise<unknown> {
    return this.ask(({ client }) => evaluate(client, script, keys, args))
  }

  get isHearing(): boolean {
    return this.hearing !== undefined
  }

  /** Subscribes, unless it is subscribed. A lost message is a delay only, and so is a failure here. */
  async hear(channel: string, onMessage: (text: string) => void): Promise<void> {
    this.hearing ??= this.open().then(async (client) => {
      client.once("end", () => {
        this.hearing = undefined
      })
      client.on("message", (_, text) => onMessage(text))
      await within(client.subscribe(channel), this.settings.patienceMillis)
      return client
    })
    await this.hearing.catch(() => {
      this.hearing = undefined
    })
  }

  /** What is under way fails. */
  close(): void {
    this.isClosed = true
    for (const client of this.clients) client.disconnect()
  }
}
