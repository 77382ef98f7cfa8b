/**
 * A real headless Chromium over the DevTools protocol, with nothing but Node: the protocol goes through two pipes, a JSON
 * message at a time, each ended by a zero byte.
 */
import { type ChildProcess, spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import type { Readable, Writable } from "node:stream"
import { tool } from "./tools.ts"

/** The browser on this machine, if there is one. */
export const executable = tool("chromium")

export interface Page {
  readonly send: (
    method: string,
    params?: Readonly<Record<string, unknown>>
  ) => Promise<Readonly<Record<string, unknown>>>
  /** What an expression comes to, as plain data. */
  readonly evaluate: <A>(expression: string) => Promise<A>
  readonly open: (url: string) => Promise<void>
  /** Keys as a person types them, into whatever has the focus. */
  readonly type: (text: string) => Promise<void>
  readonly press: (key: string) => Promise<void>
  /** Each request that left the page, each error it met. */
  readonly requests: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
  readonly close: () => Promise<void>
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Record<string, any>
  readonly result?: Record<string, any>
  readonly error?: { readonly message: string }
}

const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--hide-scrollbars",
  "--remote-debugging-pipe"
]

/** Opens the browser with one empty page. */
export const launch = async (): Promise<Page> => {
  if (executable === undefined) throw new Error("no Chromium on PATH")
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "hf-browser-"))
  const child: ChildProcess = spawn(executable, [...flags, `--user-data-dir=${profile}`], {
    stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"]
  })
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()))
  const [input, output] = [child.stdio[3] as Writable, child.stdio[4] as Readable]
  // Guarded by the single thread.
  const waiting = new Map<number, { readonly resolve: (m: Message) => void }>()
  const listeners = new Set<(message: Message) => void>()
  const requests: Array<string> = []
  const errors: Array<string> = []
  let nextId = 1
  let buffered = ""

  const receive = (message: Message): void => {
    if (message.id !== undefined) waiting.get(message.id)?.resolve(message)
    if (message.method === "Network.requestWillBeSent") {
      requests.push(String(message.params?.["request"].url))
    }
    if (message.method === "Runtime.exceptionThrown") {
      errors.push(JSON.stringify(message.params?.["exceptionDetails"]))
    }
    if (message.method === "Log.entryAdded") errors.push(String(message.params?.["entry"].text))
    for (const listener of listeners) listener(message)
  }
  output.setEncoding("utf8")
  output.on("data", (chunk: string) => {
    const texts = (buffered + chunk).split("\0")
    buffered = texts.pop() ?? ""
    texts.forEach((text) => receive(JSON.parse(text)))
  })
  const call = async (
    method: string,
    params: Readonly<Record<string, unknown>>,
    sessionId?: string
  ): Promise<Record<string, any>> => {
    const id = nextId++
    const answer = new Promise<Message>((resolve) => waiting.set(id, { resolve }))
    input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`)
    const { error, result } = await Promise.race([
      answer,
      ended.then((): Message => ({ error: { message: "the browser has ended" } }))
    ])
    waiting.delete(id)
    if (error !== undefined) throw new Error(`${method}: ${error.message}`)
    return result ?? {}
  }
  const close = async (): Promise<void> => {
    await call("Browser.close", {}).catch(() => undefined)
    await ended
    fs.rmSync(profile, { recursive: true, force: true })
  }

  const { targetId } = await call("Target.createTarget", { url: "about:blank" })
  const { sessionId } = await call("Target.attachToTarget", { targetId, flatten: true })
  const send = (method: string, params: Readonly<Record<string, unknown>> = {}) =>
    call(method, params, sessionId)
  for (const domain of ["Page", "Runtime", "Network", "Log"]) await send(`${domain}.enable`)

  const evaluate = async <A>(expression: string): Promise<A> => {
    const { exceptionDetails, result } = await call("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true
    }, sessionId)
    if (exceptionDetails !== undefined) throw new Error(JSON.stringify(exceptionDetails))
    return result["value"] as A
  }
  const open = async (url: string): Promise<void> => {
    const loaded = new Promise<void>((resolve) => {
      const listener = ({ method }: Message): void => {
        if (method !== "Page.loadEventFired") return
        listeners.delete(listener)
        resolve()
      }
      listeners.add(listener)
    })
    await send("Page.navigate", { url })
    await loaded
  }
  const type = async (text: string): Promise<void> => {
    for (const character of text) {
      await send("Input.dispatchKeyEvent", { type: "char", text: character })
    }
  }
  const press = async (key: string): Promise<void> => {
    const text = key === "Enter" ? "\r" : undefined
    const windowsVirtualKeyCode = { Enter: 13, Escape: 27, Tab: 9 }[key] ?? 0
    await send("Input.dispatchKeyEvent", { type: "keyDown", key, text, windowsVirtualKeyCode })
    await send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode })
  }
  return { send, evaluate, open, type, press, requests, errors, close }
}
