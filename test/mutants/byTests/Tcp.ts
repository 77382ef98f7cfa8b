/** Mutants of Tcp, found by test/Tcp.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { of } from "./mutant.ts"

const connection = of("Tcp/connection.ts", "Tcp.test.ts")
const door = of("Tcp.ts", "Tcp.test.ts")
const listener = of("Tcp/listener.ts", "Tcp.test.ts")

export const mutants = [
  connection(
    "bytes that were gathered are lost by an interrupt",
    "if (more === undefined) return Effect.zipRight(this.waitToRead, next(gathered.length))",
    "if (more === undefined) { this.rest = empty; return Effect.zipRight(this.waitToRead, Effect.suspend(() => { this.rest = gathered; return next(gathered.length) })) }",
    "Tcp-1: a reader that is interrupted"
  ),
  connection(
    "a delimiter that lies across two pieces is not found",
    "bytes.indexOf(delimiter, Math.max(0, from - delimiter.length + 1))",
    "bytes.indexOf(delimiter, from)",
    "Tcp-1: frames of any size"
  ),
  connection(
    "bytes are appended over those that were read",
    "const isInPlace = storeEnd + bytes.length <= store.length",
    "const isInPlace = store.length > 0",
    "Tcp-1: frames of any size"
  ),
  connection(
    "bytes before a reset are dropped",
    "    const bytes = this.socket.read()",
    "    if (this.socket.destroyed) return Exit.fail(this.lost())\n    const bytes = this.socket.read()",
    "Tcp-1: bytes before a reset"
  ),
  connection(
    "a write returns before the kernel has its bytes",
    "Effect.zipRight(send, this.flushed)",
    "send",
    "Tcp-2: a write waits"
  ),
  connection(
    "the release does not wait for the peer's end",
    "      this.finish()\n      return",
    "      this.finish()\n      socket.destroy()\n      return",
    "Tcp-3: unread bytes"
  ),
  connection(
    "an interrupted owner lingers",
    "if (isHasty) return this.cut()",
    "",
    "Tcp-3: an interrupted owner"
  ),
  connection(
    "a peer that never ends holds the release",
    "(ended) => Option.isSome(ended) ? Effect.void : this.cut()",
    "(ended) => Option.isSome(ended) ? Effect.void : this.closed",
    "Tcp-3: a peer that never ends"
  ),
  connection(
    "a bound waits for a caller that cannot be interrupted",
    "Effect.timeoutFail(Effect.interruptible(wait), {",
    "Effect.timeoutFail(wait, {",
    "Tcp-4: the bounds hold"
  ),
  connection(
    "a late reader gets bytes that came before the release",
    "if (this.isReleased) return this.tooLate(\"read\")",
    "",
    "Tcp-4: bytes that came before the release"
  ),
  listener(
    "sockets without a handler outlive the server",
    "for (const socket of sockets) socket.destroy()",
    "",
    "Tcp-5: a client in the midst"
  ),
  listener(
    "a client that leaves in its handshake leaves a socket",
    "Tls.createServer({ noDelay: true, ...tls }",
    "Tls.createServer({ allowHalfOpen: true, noDelay: true, ...tls }",
    "Tcp-5: a client that leaves"
  ),
  door(
    "what handlers acquire lives as long as the server",
    "Nursery.scoped(handler(connection))",
    "handler(connection) as Effect.Effect<A, E, Exclude<R, Scope.Scope>>",
    "Tcp-5: a handler's scope"
  ),
  door(
    "a failure of any kind is the peer's end",
    "&& cause.error.partial.length === 0",
    "",
    "Tcp-5: a handler's scope"
  ),
  listener(
    "the release does not wait for handlers",
    "const drained = Deadline.exit(ended, options.drain)",
    "const drained = Effect.void",
    "Tcp-5: the release waits"
  ),
  listener(
    "the end of a server cuts a connection that lingers",
    "Deadline.exit(ended, options.releaseDeadline)",
    "Effect.void",
    "Tcp-3: a connection lingers for the whole"
  ),
  door(
    "the failure of a handler ends the others",
    "Effect.logWarning(`The connection",
    "Effect.die(`The connection",
    "Tcp-5: the failure of a handler"
  )
]
