/** An echo over the loopback: ours on both sides, and plain `node:net` on both sides. */
import { Effect, Exit, Scope, Stream } from "effect"
import * as Tcp from "holdfast/Tcp"
import { once } from "node:events"
import * as net from "node:net"
import type { Suite } from "./run.ts"

const host = "127.0.0.1"
const scope = Effect.runSync(Scope.make())
const portOf = (address: net.AddressInfo | string | null): number =>
  (address as net.AddressInfo).port

const server = await Effect.runPromise(
  Scope.extend(
    Tcp.serve(
      { host, port: 0 },
      (connection) =>
        Stream.runForEach(Tcp.stream(connection), (bytes) => Tcp.write(connection, bytes))
    ),
    scope
  )
)
const ours = await Effect.runPromise(
  Scope.extend(Tcp.connect({ host, port: portOf(server.address) }), scope)
)

const plain = net.createServer({ noDelay: true }, (socket) => {
  socket.pipe(socket)
})
plain.listen(0, host)
await once(plain, "listening")
const theirs = net.connect({ host, port: portOf(plain.address()), noDelay: true })
await once(theirs, "connect")

process.once("beforeExit", () => {
  theirs.destroy()
  plain.close()
  void Effect.runPromise(Scope.close(scope, Exit.void))
})

const rounds = 200

const oursAsks = (bytes: Buffer) => () => {
  let done = 0
  const round = Effect.zipRight(Tcp.write(ours, bytes), Tcp.readExactly(ours, bytes.length))
  return Effect.runPromise(
    Effect.whileLoop({ while: () => done < rounds, body: () => round, step: () => done++ })
  )
}

const theirsAsks = (bytes: Buffer) => async () => {
  for (let done = 0; done < rounds; done++) {
    theirs.write(bytes)
    for (let left = bytes.length; left > 0;) {
      const piece = theirs.read() as Buffer | null
      if (piece === null) await once(theirs, "readable")
      else left -= piece.length
    }
  }
}

const suiteOf = (title: string, bytes: Buffer): Suite => ({
  title,
  operations: rounds,
  contenders: { "Tcp": oursAsks(bytes), "node:net": theirsAsks(bytes) }
})

export default [
  suiteOf("TCP echo, 64 bytes there and back", Buffer.alloc(64)),
  suiteOf("TCP echo, 64 KiB there and back", Buffer.alloc(1 << 16))
]
