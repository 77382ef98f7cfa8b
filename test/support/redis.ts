/**
 * A real Redis server on a Unix socket, without persistence, and plain clients that owe nothing to the code under test.
 */
import { Effect, type Scope } from "effect"
import { Redis } from "ioredis"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { tool } from "./tools.ts"

/** Undefined where a machine has none; its tests are then skipped. */
export const redisServer = tool("redis-server")

export interface RedisServer {
  /** The path of its socket, which is also a URL for ioredis. */
  readonly socket: string
  readonly pid: () => number
  /** Kills it, and starts it again without its data. */
  readonly restart: () => Promise<void>
  readonly kill: () => Promise<void>
  /** A command on a connection of its own. */
  readonly command: (name: string, ...args: ReadonlyArray<string | number>) => Promise<unknown>
}

const accepts = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const connection = net.connect(socket)
    connection.on("connect", () => {
      connection.destroy()
      resolve(true)
    })
    connection.on("error", () => resolve(false))
  })

const start = async (folder: string, socket: string): Promise<ChildProcess> => {
  fs.rmSync(socket, { force: true })
  const child = spawn(redisServer!, [
    "--port",
    "0",
    "--unixsocket",
    socket,
    "--dir",
    folder,
    "--save",
    "",
    "--appendonly",
    "no"
  ], { stdio: "ignore" })
  while (!(await accepts(socket))) {
    if (child.exitCode !== null) throw new Error(`redis-server ended with ${child.exitCode}`)
    await pause(10)
  }
  return child
}

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, "exit")
  child.kill("SIGKILL")
  await ended
}

/** A server that lives as long as the scope. */
export const startRedis: Effect.Effect<RedisServer, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-redis-"))
      const socket = path.join(folder, "redis.sock")
      return { folder, socket, child: await start(folder, socket) }
    }),
    (server) =>
      Effect.promise(async () => {
        await kill(server.child)
        fs.rmSync(server.folder, { recursive: true, force: true })
      })
  ),
  (server): RedisServer => ({
    socket: server.socket,
    pid: () => server.child.pid!,
    kill: () => kill(server.child),
    restart: async () => {
      await kill(server.child)
      server.child = await start(server.folder, server.socket)
    },
    command: async (name, ...args) => {
      const client = new Redis(server.socket, { lazyConnect: true, retryStrategy: () => null })
      client.on("error", () => {})
      await client.connect()
      try {
        return await client.call(name, ...args)
      } finally {
        client.disconnect()
      }
    }
  })
)
