import * as fs from "node:fs"
import * as path from "node:path"
import { Client } from "pg"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { run, type Running, start, temporaryFolder, until } from "../support/command.ts"

let work = ""
beforeEach(() => {
  work = temporaryFolder()
})
afterEach(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

const serve = (...args: ReadonlyArray<string>) => start(["pg", ...args], { TMPDIR: work })

const urlOf = async (running: Running): Promise<string> => {
  await until("it prints its URL", () => /postgres:\/\/.*\n/.test(running.output()))
  return /postgres:\/\/\S+/.exec(running.output())![0]
}

const query = async (url: string, sql: string): Promise<ReadonlyArray<Record<string, unknown>>> => {
  const client = new Client(url)
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}

const left = (): ReadonlyArray<string> =>
  fs.readdirSync(work).filter((name) => name.startsWith("hf-pg-"))

describe("holdfast pg", { timeout: 60_000 }, () => {
  it("CliPg-1: prints its URL, keeps its data, refuses a second on it, and ends by Ctrl-C", async () => {
    const data = path.join(work, "data")
    const one = serve("--data", data)
    const url = await urlOf(one)
    await query(url, "create table kept as select 42 as answer")
    const second = await run(["pg", "--data", data], { TMPDIR: work })
    expect(second).toMatchObject({ code: 3, out: "" })
    expect(second.err).toContain(`the process ${one.child.pid} runs a server on it`)
    one.child.kill("SIGINT")
    expect(await one.ended).toMatchObject({ code: 130, out: `${url}\n` })
    expect(fs.existsSync(path.join(data, "postmaster.pid"))).toBe(false)
    expect(left()).toEqual([])
    const again = serve("--data", data)
    expect(await query(await urlOf(again), "select answer from kept")).toEqual([{ answer: 42 }])
    again.child.kill("SIGTERM")
    expect((await again.ended).code).toBe(143)
  })

  it("CliPg-1: without --data nothing is left; a server that ends by itself is reported", async () => {
    const running = serve()
    const [row] = await query(
      await urlOf(running),
      "select pg_read_file('postmaster.pid') as record"
    )
    process.kill(Number.parseInt(String(row?.["record"]), 10), "SIGINT")
    expect(await running.ended).toMatchObject({
      code: 1,
      err: "holdfast: the server ended by itself, with code 0\n"
    })
    expect(left()).toEqual([])
  })
})
