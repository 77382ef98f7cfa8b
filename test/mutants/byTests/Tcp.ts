/** Mutants of Tcp, found by test/Tcp.test.ts; test/mutants.byTests.slow.test.ts says how to add one. */
import { of } from "./mutant.ts"

const connection = of("Tcp/connection.ts", "Tcp.test.ts")
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
    "Effect.zipRight(Effect.zipRight(this.flushed, send), this.flushed)",
    "Effect.zipRight(this.flushed, send)",
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
  listener(
    "the release does not wait for handlers",
    "return Deadline.exit(Nursery.awaitAll(nursery), options.drain)",
    "return Effect.void",
    "Tcp-5: the release waits"
  ),
  listener(
    "the failure of a handler ends the others",
    "Nursery.start(nursery, reported(handle(socket), name))",
    "Nursery.start(nursery, Effect.asVoid(Effect.orDie(handle(socket))))",
    "Tcp-5: the failure of a handler"
  )
]
