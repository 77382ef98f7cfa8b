/**
 * A TCP door to a server's Unix socket that can be frozen (bytes vanish into a black hole) and cut.
 */
import { once } from "node:events"
import * as net from "node:net"

export interface TcpProxy {
  readonly port: number
  /** From now on nothing passes, in either direction, and nobody is told. */
  readonly freeze: () => void
  /** From now on new connections are accepted and then never heard; those there are go on. */
  readonly ignoreNew: () => void
  /** The next bytes a client sends into the frozen proxy. */
  readonly swallowed: () => Promise<unknown>
  /** Ends every connection there is. */
  readonly cut: () => void
  readonly close: () => Promise<void>
}

export const tcpProxy = async (host: string, port: number): Promise<TcpProxy> => {
  const sockets = new Set<net.Socket>()
  let isFrozen = false
  let isIgnoringNew = false
  let tell = (): void => {}
  const keep = (socket: net.Socket): net.Socket => {
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => sockets.delete(socket))
    return socket
  }
  const pass = (from: net.Socket, to: net.Socket, isFromClient: boolean): void => {
    from.on("data", (bytes) => {
      if (!isFrozen) to.write(bytes)
      else if (isFromClient) tell()
    })
    from.on("close", () => {
      if (!isFrozen) to.destroy()
    })
  }
  const server = net.createServer((client) => {
    keep(client)
    if (isFrozen || isIgnoringNew) {
      client.on("data", () => tell())
      return
    }
    const upstream = keep(net.connect(`${host}/.s.PGSQL.${port}`))
    pass(client, upstream, true)
    pass(upstream, client, false)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as net.AddressInfo).port,
    freeze: () => {
      isFrozen = true
    },
    ignoreNew: () => {
      isIgnoringNew = true
    },
    swallowed: () =>
      new Promise<void>((resolve) => {
        tell = resolve
      }),
    cut,
    close: async () => {
      cut()
      server.close()
      await once(server, "close")
    }
  }
}
