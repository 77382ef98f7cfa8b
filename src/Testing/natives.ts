/**
 * natives: what a run has opened outside effect: requests, native timers, sockets, files, child processes.
 *
 * DESIGN. Node reports the birth of each such resource and the context it was born in (`async_hooks`); each run has a context of
 * its own, so what earlier runs, the test runner or the user's own server do is never taken for the run's. A request, a timer
 * and a child process will bring something by themselves; a socket or a server may stay silent for ever.
 *
 * COST only while a program with real I/O is explored: hooks on each promise and handle. SOURCES `why-is-node-running`.
 */
import { AsyncLocalStorage, createHook } from "node:async_hooks"

interface Native {
  readonly type: string
  /** It was not opened here but came in through a server of the run: it answers, and owes no answer. */
  readonly isAccepted: boolean
  readonly resource: {
    readonly hasRef?: () => boolean
    readonly fd?: number
    readonly _repeat?: number | null
    readonly ondone?: unknown
    /** Of a stream. */
    readonly bytesWritten?: number
  }
}

/** A connection that the setup has opened. */
class Background {
  readonly native: Native
  // Written by `brings` alone: how much had been written when the last part of an answer came, and the looks at it since.
  #written: number
  #looks = Infinity

  constructor(native: Native) {
    this.native = native
    this.#written = native.resource.bytesWritten ?? 0
  }

  /** To be called before what it brings is handled, which may write again. */
  brings(): void {
    this.#written = this.native.resource.bytesWritten ?? 0
    this.#looks = 0
  }

  /** Whether bytes were written to it that it has not answered. An answer may come in parts: so many looks are due after each. */
  owesAnswer(looksAfterPart: number): boolean {
    const { isAccepted, resource } = this.native
    if (isAccepted) return false
    return (resource.bytesWritten ?? 0) > this.#written || this.#looks++ < looksAfterPart
  }
}

const context = new AsyncLocalStorage<Natives>()

/** Ends with its first callback. */
const isRequest = (type: string): boolean => /REQ|CONNECTWRAP|WRITEWRAP|SHUTDOWNWRAP/.test(type)

const watched =
  /^(Timeout|(TCP|PIPE)(SERVER)?WRAP|UDPWRAP|TTYWRAP|PROCESSWRAP|FSEVENTWRAP|STATWATCHER|FILEHANDLE|ZLIB|WORKER)$/

const words: Readonly<Record<string, string>> = {
  TCPWRAP: "TCP socket",
  TCPSERVERWRAP: "TCP server",
  PIPEWRAP: "pipe",
  PIPESERVERWRAP: "pipe server",
  PROCESSWRAP: "child process",
  FSEVENTWRAP: "file watcher",
  FILEHANDLE: "file"
}

const wordOf = ({ type }: Native): string =>
  words[type] ?? (type.startsWith("FSREQ") ? "file request" : type)

/** A synchronous call of `node:crypto` makes the same request as an asynchronous one, which nobody calls back. */
const isAsync = ({ resource, type }: Native): boolean =>
  !type.endsWith("REQUEST") || typeof resource.ondone === "function"

/** What one run has opened. */
export class Natives {
  readonly #open = new Map<number, Native>()
  readonly #background = new Map<number, Background>()
  /** Grows with each callback of something that the run has opened. */
  events = 0

  begin(id: number, type: string, resource: Native["resource"], trigger = 0): void {
    if (type === "HTTPCLIENTREQUEST" || !(isRequest(type) || watched.test(type))) return
    const isAccepted = this.#open.get(trigger)?.type.endsWith("SERVERWRAP") === true
    this.#open.set(id, { type, isAccepted, resource })
  }

  before(id: number): void {
    this.events++
    this.#background.get(id)?.brings()
  }

  after(id: number): void {
    const native = this.#open.get(id)
    if (native !== undefined && isRequest(native.type)) this.#open.delete(id)
  }

  end(id: number): void {
    this.#open.delete(id)
    this.#background.delete(id)
  }

  /** The setup is over: what it keeps open is waited for only while it owes an answer. */
  markBackground(): void {
    for (const [id, native] of this.#open) this.#background.set(id, new Background(native))
  }

  #living(): ReadonlyArray<Native> {
    return Array.from(this.#open).filter(([id, native]) =>
      !this.#background.has(id) && isAsync(native) && (native.resource.hasRef?.() ?? true)
    ).map(([, native]) => native)
  }

  /** What may still bring something, and whether it is sure to. `looksAfterPart`: see `Background`. */
  pending(
    looksAfterPart: number
  ): { readonly names: ReadonlyArray<string>; readonly isSure: boolean } {
    const asked = Array.from(this.#background.values())
      .filter((one) => one.owesAnswer(looksAfterPart)).map(({ native }) => native)
    const living = [...this.#living().filter(({ type }) => type !== "FILEHANDLE"), ...asked]
    const isSure = living.some(({ resource, type }) =>
      isRequest(type) || type === "PROCESSWRAP"
      || (type === "Timeout" && typeof resource._repeat !== "number")
    )
    return { names: [...new Set(living.map(wordOf))], isSure }
  }

  /** What is open and has to be closed by someone. */
  leftOpen(): ReadonlyArray<string> {
    return this.#living().filter(({ resource, type }) =>
      !isRequest(type) && type !== "ZLIB" && (type !== "FILEHANDLE" || (resource.fd ?? -1) >= 0)
    ).map(wordOf).toSorted()
  }
}

// Which run a resource is of: asked again at its end, when the context may be another one.
const owners = new Map<number, Natives>()

// Node makes a file outside of every context, just before it calls back the request that opened it.
let files: Array<readonly [id: number, resource: Native["resource"]]> = []

const hook = createHook({
  init: (id, type, trigger, resource) => {
    const natives = context.getStore()
    if (natives === undefined && type === "FILEHANDLE") files.push([id, resource])
    if (natives === undefined || type === "PROMISE" || type === "TickObject") return
    owners.set(id, natives)
    natives.begin(id, type, resource, trigger)
  },
  before: (id) => {
    const natives = owners.get(id) ?? context.getStore()
    natives?.before(id)
    if (files.length === 0) return
    for (const [file, resource] of files) natives?.begin(file, "FILEHANDLE", resource)
    files = []
  },
  after: (id) => owners.get(id)?.after(id),
  destroy: (id) => {
    owners.get(id)?.end(id)
    owners.delete(id)
  }
})

// Written by `watching` alone.
let runs = 0

/** Watches what is opened inside `within`, until `use` has ended. */
export const watching = async <A>(
  use: (natives: Natives, within: (part: () => void) => void) => Promise<A>
): Promise<A> => {
  const natives = new Natives()
  if (runs++ === 0) hook.enable()
  try {
    return await use(natives, (part) => context.run(natives, part))
  } finally {
    if (--runs === 0) {
      hook.disable()
      owners.clear()
    }
  }
}
