/**
 * A TCP door to a Postgres server's Unix socket that speaks TLS with its clients, as the server does: after an SSLRequest.
 */
import { once } from "node:events"
import * as net from "node:net"
import * as tls from "node:tls"

export interface TlsProxy {
  readonly port: number
  /** How many connections began with something else than an SSLRequest. */
  readonly plain: () => number
  readonly encrypted: () => number
  readonly close: () => Promise<void>
}

// For tests only: self-signed, of nobody.
const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQghMHFdM3EqBi1VVPQ
N38+ghAbVvfbfXobsNhAceCDMnKhRANCAAQUNkQGUOt0ucRs6mcTtof9YR5dnQLY
EMw84/8OJXdBmbS4C9FhdPoRQUXlHu2jTKh16Si4llPlqHHdKQ/KQENe
-----END PRIVATE KEY-----`
const cert = `-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUV3mWOQo8+myyitv8SatavwhKMGMwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTE4NTEwNVoYDzIxMjYxMDI4
MTg1MTA1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQUNkQGUOt0ucRs6mcTtof9YR5dnQLYEMw84/8OJXdBmbS4C9FhdPoR
QUXlHu2jTKh16Si4llPlqHHdKQ/KQENeo1MwUTAdBgNVHQ4EFgQUDp75YuCuMQ12
B15asYgUV1cwNVkwHwYDVR0jBBgwFoAUDp75YuCuMQ12B15asYgUV1cwNVkwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAutGOifzdRAgXEI2D3a6s
aIIMrECnsSOPZ/Psc8lblPACIQDbc4BJNYMiiyA9ddQLWd31wcOIsmdbc10FBTS+
69r6dw==
-----END CERTIFICATE-----`

const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])

export const tlsProxy = async (host: string, port: number): Promise<TlsProxy> => {
  const sockets = new Set<net.Socket>()
  const secureContext = tls.createSecureContext({ key, cert })
  let plain = 0
  let encrypted = 0
  const add = <S extends net.Socket>(socket: S): S => {
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => sockets.delete(socket))
    return socket
  }
  const server = net.createServer((client) => {
    add(client).once("data", (first) => {
      if (!first.equals(sslRequest)) {
        plain++
        client.destroy()
        return
      }
      encrypted++
      client.pause()
      client.write("S")
      const inner = add(new tls.TLSSocket(client, { isServer: true, secureContext }))
      const upstream = add(net.connect(`${host}/.s.PGSQL.${port}`))
      inner.pipe(upstream)
      upstream.pipe(inner)
      upstream.on("close", () => inner.end())
      inner.on("close", () => upstream.destroy())
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    port: (server.address() as net.AddressInfo).port,
    plain: () => plain,
    encrypted: () => encrypted,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, "close")
    }
  }
}
