/**
 * A TCP proxy in front of a server, in this process, that spoils connections: it delays, holds or loses bytes in either
 * direction, swallows single Postgres messages, ignores or refuses new connections, and ends connections by FIN or RST.
 *
 * DESIGN. Each direction of each connection is a `Lane`: bytes are cut into messages, a rule may swallow a message, the rest waits
 * in an outbox until it is due. A fault acts on the connections that are open and, unless its name says otherwise, on later ones.
 */
import { once } from "node:events"
import * as net from "node:net"

export type Direction = "toServer" | "toClient"

export interface TcpProxy {
  readonly port: number
  /** The connections that are open now. */
  readonly connections: () => number
  /** The connections that were accepted so far. */
  readonly accepted: () => number
  /** From now on bytes are lost, in both directions unless one is named; ends of connections are not passed on either. */
  readonly freeze: (direction?: Direction) => void
  /** New connections are accepted and never answered; open ones go on. */
  readonly ignoreNew: () => void
  /** New connections are reset; open ones go on. */
  readonly refuseNew: () => void
  /** Bytes arrive that much later, in order. */
  readonly delay: (millis: number, direction?: Direction) => void
  /** Bytes wait in the proxy until `resume`. */
  readonly hold: (direction?: Direction) => void
  /** Ends `hold`, `delay`, `ignoreNew` and `refuseNew`, and delivers what waits. */
  readonly resume: () => void
  /**
   * The next Postgres message of that type is lost and the rest passes: `"C"` from the server is CommandComplete, `"Z"`
   * ReadyForQuery; to the server, `"Q"` is a query, `"cancel"` a CancelRequest. The promise resolves when it is lost.
   */
  readonly swallow: (type: string, direction?: Direction) => Promise<void>
  /** The next bytes that a client sends and that are lost. */
  readonly swallowed: () => Promise<void>
  /** Closes every connection (FIN). */
  readonly cut: () => void
  /** Resets every connection (RST to the client). */
  readonly reset: () => void
  readonly close: () => Promise<void>
}

interface Faults {
  isFrozen: boolean
  isHeld: boolean
  delayMillis: number
  readonly swallowing: Array<{ readonly type: string; readonly done: () => void }>
}

interface Message {
  readonly type: string
  readonly bytes: Buffer
}

const cancelCode = 80877102
const encryptionCodes = new Set([80877103, 80877104])

/** Cuts the bytes of one direction into Postgres messages. TLS and other protocols pass as they come. */
class Messages {
  private rest: Buffer = Buffer.alloc(0)
  /** `answer`: the one byte that answers a request for encryption. */
  state: "startup" | "typed" | "answer" | "raw"
  other: Messages | undefined

  constructor(state: Messages["state"]) {
    this.state = state
  }

  cut(bytes: Buffer): ReadonlyArray<Message> {
    this.rest = this.rest.length === 0 ? bytes : Buffer.concat([this.rest, bytes])
    const found: Array<Message> = []
    for (let message = this.next(); message !== undefined; message = this.next()) {
      found.push(message)
    }
    return found
  }

  private take(type: string, length: number): Message | undefined {
    if (length === 0 || this.rest.length < length) return undefined
    const bytes = this.rest.subarray(0, length)
    this.rest = this.rest.subarray(length)
    return { type, bytes }
  }

  private next(): Message | undefined {
    const { rest } = this
    switch (this.state) {
      case "raw":
        return this.take("raw", rest.length)
      case "answer": {
        const answer = this.take("answer", 1)
        if (answer === undefined) return undefined
        this.state = "typed"
        if (answer.bytes.toString() !== "N") this.state = this.other!.state = "raw"
        return answer
      }
      case "startup": {
        if (rest.length < 8) return undefined
        const code = rest.readInt32BE(4)
        const message = this.take(code === cancelCode ? "cancel" : "startup", rest.readInt32BE(0))
        if (message === undefined) return undefined
        if (encryptionCodes.has(code)) this.other!.state = "answer"
        else this.state = "typed"
        return message
      }
      case "typed":
        return rest.length < 5
          ? undefined
          : this.take(String.fromCharCode(rest[0]!), 1 + rest.readInt32BE(1))
    }
  }
}

/** One direction of one connection. */
class Lane {
  private readonly outbox: Array<{ readonly due: number; readonly deliver: () => void }> = []
  private timer: NodeJS.Timeout | undefined
  private readonly faults: Faults
  private readonly to: net.Socket

  constructor(
    from: net.Socket,
    to: net.Socket,
    faults: Faults,
    messages: Messages,
    onLost: () => void
  ) {
    this.faults = faults
    this.to = to
    from.on("data", (bytes) => {
      if (faults.isFrozen) return onLost()
      for (const message of messages.cut(bytes)) {
        const at = faults.swallowing.findIndex(({ type }) => type === message.type)
        if (at === -1) this.post(() => to.write(message.bytes))
        else faults.swallowing.splice(at, 1)[0]!.done()
      }
    })
    from.on("end", () => {
      if (!faults.isFrozen) this.post(() => to.end())
    })
    from.on("close", () => {
      if (!faults.isFrozen) this.post(() => to.destroy())
    })
  }

  private post(deliver: () => void): void {
    this.outbox.push({ due: performance.now() + this.faults.delayMillis, deliver })
    this.flush()
  }

  flush(): void {
    clearTimeout(this.timer)
    while (this.outbox.length > 0 && !this.faults.isHeld) {
      const wait = this.faults.delayMillis === 0 ? 0 : this.outbox[0]!.due - performance.now()
      if (wait > 0) {
        this.timer = setTimeout(() => this.flush(), wait)
        return
      }
      this.outbox.shift()!.deliver()
    }
  }

  end(): void {
    clearTimeout(this.timer)
    this.to.destroy()
  }
}

const connectTo = (host: string, port: number, protocol: string): net.Socket => {
  const path = protocol === "raw" ? host : `${host}/.s.PGSQL.${port}`
  const address = host.startsWith("/") ? { path } : { host, port }
  return net.connect({ ...address, allowHalfOpen: true })
}

/** `protocol: "raw"` for servers that speak no Postgres: `swallow` is not for them, and a path is that of their socket. */
export const tcpProxy = async (
  host: string,
  port: number,
  protocol: "postgres" | "raw" = "postgres"
): Promise<TcpProxy> => {
  const clients = new Set<net.Socket>()
  const lanes = new Set<Lane>()
  const fault = (): Faults => ({ isFrozen: false, isHeld: false, delayMillis: 0, swallowing: [] })
  const faults: Record<Direction, Faults> = { toServer: fault(), toClient: fault() }
  let forNew: "connect" | "ignore" | "refuse" = "connect"
  let accepted = 0
  let onLost = (): void => {}
  const on = (direction: Direction | undefined, change: (faults: Faults) => void): void => {
    for (const one of ["toServer", "toClient"] as const) {
      if (direction === undefined || direction === one) change(faults[one])
    }
  }
  // Half open: the FIN of a client is passed on, or lost, but not answered here.
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    accepted++
    client.on("error", () => {})
    if (forNew === "refuse") return void client.resetAndDestroy()
    clients.add(client)
    client.on("close", () => clients.delete(client))
    if (forNew === "ignore" || (faults.toServer.isFrozen && faults.toClient.isFrozen)) {
      return void client.on("data", () => onLost())
    }
    const upstream = connectTo(host, port, protocol)
    upstream.on("error", () => {})
    const sent = new Messages(protocol === "raw" ? "raw" : "startup")
    const answered = new Messages(protocol === "raw" ? "raw" : "typed")
    sent.other = answered
    answered.other = sent
    const pair = [
      new Lane(client, upstream, faults.toServer, sent, () => onLost()),
      new Lane(upstream, client, faults.toClient, answered, () => {})
    ]
    for (const lane of pair) lanes.add(lane)
    upstream.on("close", () => {
      for (const lane of pair) lanes.delete(lane)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const endAll = (end: (client: net.Socket) => void): void => {
    for (const client of clients) end(client)
    for (const lane of lanes) lane.end()
  }
  const cut = (): void => endAll((client) => client.destroy())
  return {
    port: (server.address() as net.AddressInfo).port,
    connections: () => clients.size,
    accepted: () => accepted,
    freeze: (direction) =>
      on(direction, (one) => {
        one.isFrozen = true
      }),
    ignoreNew: () => {
      forNew = "ignore"
    },
    refuseNew: () => {
      forNew = "refuse"
    },
    delay: (millis, direction) =>
      on(direction, (one) => {
        one.delayMillis = millis
      }),
    hold: (direction) =>
      on(direction, (one) => {
        one.isHeld = true
      }),
    resume: () => {
      forNew = "connect"
      on(undefined, (one) => {
        one.isHeld = false
        one.delayMillis = 0
      })
      for (const lane of lanes) lane.flush()
    },
    swallow: (type, direction = "toClient") =>
      new Promise((done) => {
        faults[direction].swallowing.push({ type, done })
      }),
    swallowed: () =>
      new Promise((resolve) => {
        onLost = resolve
      }),
    cut,
    reset: () => endAll((client) => client.resetAndDestroy()),
    close: async () => {
      cut()
      server.close()
      await once(server, "close")
    }
  }
}
