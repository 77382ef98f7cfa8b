/**
 * A real pgbouncer in transaction mode before a Postgres server, on a Unix socket.
 */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { tool } from "./tools.ts"

/** Undefined where a machine has none; its tests are then skipped. */
export const pgbouncer = tool("pgbouncer")

const port = 6432

const accepts = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const connection = net.connect(socket)
    connection.on("connect", () => {
      connection.destroy()
      resolve(true)
    })
    connection.on("error", () => resolve(false))
  })

/** `sessions`: how many sessions of the server all clients share. */
export const startPgbouncer = (
  server: { readonly host: string; readonly port: number },
  sessions: number
): Effect.Effect<{ readonly host: string; readonly port: number }, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        // The server lets its own account in; pgbouncer refuses to run as root.
        const { gid, uid } = fs.statSync(server.host)
        const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-bouncer-"))
        const settings = path.join(folder, "pgbouncer.ini")
        fs.writeFileSync(
          settings,
          `[databases]
* = host=${server.host} port=${server.port} user=postgres
[pgbouncer]
listen_port = ${port}
unix_socket_dir = ${folder}
auth_type = any
pool_mode = transaction
default_pool_size = ${sessions}
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
`
        )
        const isRoot = process.getuid?.() === 0
        if (isRoot) { for (const name of [folder, settings]) fs.chownSync(name, uid, gid) }
        const child = spawn(pgbouncer!, [settings], {
          stdio: "ignore",
          ...(isRoot ? { uid, gid } : {})
        })
        while (!(await accepts(path.join(folder, `.s.PGSQL.${port}`)))) {
          if (child.exitCode !== null) throw new Error(`pgbouncer ended with ${child.exitCode}`)
          await pause(10)
        }
        return { child, folder }
      }),
      ({ child, folder }) =>
        Effect.promise(async () => {
          if (child.exitCode === null && child.signalCode === null) {
            const ended = once(child, "exit")
            child.kill("SIGKILL")
            await ended
          }
          fs.rmSync(folder, { recursive: true, force: true })
        })
    ),
    ({ folder }) => ({ host: folder, port })
  )
