/** Small files replaced, and lines logged: ours, by hand, and with what others use. */
import { FileSystem } from "@effect/platform"
import { NodeFileSystem } from "@effect/platform-node"
import { Effect, Exit, Scope } from "effect"
import { Managed } from "holdfast"
import * as Files from "holdfast/Files"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import sonicBoomModule from "sonic-boom"
import type { Suite } from "./run.ts"

const scope = Effect.runSync(Scope.make())
const directory = await Effect.runPromise(Scope.extend(Files.tempDirectory(), scope))
export const close = () => Effect.runPromise(Scope.close(scope, Exit.void))

// One file, replaced again and again.

const writes = 200
const content = Buffer.alloc(4096, "x")

/** What `"none"` and `"full"` take at least, with node:fs. */
const byHand = async (at: string, durability: Files.Durability) => {
  const draft = `${at}.${randomBytes(6).toString("hex")}`
  const file = await fs.promises.open(draft, "wx")
  await file.writeFile(content)
  if (durability === "full") await file.sync()
  await file.close()
  await fs.promises.rename(draft, at)
  if (durability !== "full") return
  const above = await fs.promises.open(path.dirname(at), "r")
  await above.sync()
  await above.close()
}

const replacing = (durability: Files.Durability): Suite => ({
  title: `4 KiB replaced as a whole, durability "${durability}"`,
  operations: writes,
  contenders: {
    "writeAtomic": () => {
      let n = 0
      const write = Files.writeAtomic(path.join(directory, "ours"), content, { durability })
      return Effect.runPromise(
        Effect.whileLoop({ while: () => n++ < writes, body: () => write, step: () => {} })
      )
    },
    "node:fs by hand": async () => {
      for (let n = 0; n < writes; n++) await byHand(path.join(directory, "theirs"), durability)
    }
  }
})

// Lines, of 100 bytes each, by 100 producers; at the end they are on the disk.

const producers = 100
const line = "x".repeat(99)

const fresh = () => path.join(directory, `${randomBytes(6).toString("hex")}.log`)

const checked = (at: string, lines: number): void => {
  if (fs.statSync(at).size !== lines * 100) throw new Error(`${at} has lost lines`)
  fs.unlinkSync(at)
}

const ours = (lines: number) => async () => {
  const at = fresh()
  const produce = (log: Files.LogFile) => {
    let n = 0
    const most = lines / producers
    return Effect.whileLoop({
      while: () => n++ < most,
      body: () => log.write(line),
      step: () => {}
    })
  }
  await Effect.runPromise(
    Managed.use(
      Files.logFile(at),
      (log) =>
        Effect.forEach(Array.from({ length: producers }), () => produce(log), {
          concurrency: "unbounded",
          discard: true
        })
    )
  )
  checked(at, lines)
}

/** As pino uses it: one call per line, and a wait where its buffer is full. */
const sonicBoom = (lines: number) => async () => {
  const at = fresh()
  const log = new sonicBoomModule.SonicBoom({ dest: at, minLength: 4096, fsync: false })
  await once(log, "ready")
  for (let n = 0; n < lines; n++) {
    if (!log.write(`${line}\n`)) await once(log, "drain")
  }
  log.end()
  await once(log, "close")
  const file = await fs.promises.open(at, "r")
  await file.sync()
  await file.close()
  checked(at, lines)
}

/** One call of the platform's file per line. */
const platform = (lines: number) => async () => {
  const at = fresh()
  const bytes = Buffer.from(`${line}\n`)
  const program = Effect.gen(function*() {
    const file = yield* (yield* FileSystem.FileSystem).open(at, { flag: "a" })
    yield* Effect.forEach(Array.from({ length: lines }), () => file.writeAll(bytes), {
      concurrency: producers,
      discard: true
    })
    yield* file.sync
  })
  await Effect.runPromise(Effect.provide(Effect.scoped(program), NodeFileSystem.layer))
  checked(at, lines)
}

const many = 200_000
const few = 1_000

export default [
  replacing("none"),
  replacing("full"),
  {
    title: `${many} lines of 100 bytes by ${producers} producers, on the disk`,
    operations: many,
    contenders: { "logFile": ours(many), "sonic-boom (one loop)": sonicBoom(many) }
  },
  {
    title: `${few} lines by ${producers} producers`,
    operations: few,
    contenders: { "logFile": ours(few), "platform File.writeAll": platform(few) }
  }
]
