import { Effect, Exit, Scope } from "effect"
import * as Embedded from "holdfast/Postgres/Embedded"
import * as fs from "node:fs"
import * as path from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { Client } from "pg"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import * as Origin from "../../src/cli/origin.ts"
import {
  bundled,
  filesBelow,
  partials,
  processesOn,
  sha256,
  temporaryFolder,
  until,
  writeList
} from "../support/command.ts"

const { run, start } = bundled

interface Row {
  readonly url: string
  readonly path: string
  readonly sha256: string
  readonly status: string
  readonly bytes: string
}

let work = ""
let out = ""
let scope = Effect.runSync(Scope.make())
beforeEach(() => {
  work = temporaryFolder()
  out = path.join(work, "out")
  scope = Effect.runSync(Scope.make())
})
afterEach(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  fs.rmSync(work, { recursive: true, force: true })
})

const openOrigin = (options: Origin.Options): Promise<Origin.Origin> =>
  Effect.runPromise(Scope.extend(Origin.make(options), scope))

/** The table as the next run would find it. */
const rows = (folder: string): Promise<ReadonlyArray<Row>> =>
  Effect.runPromise(Effect.scoped(Effect.flatMap(
    Embedded.make({ dataDirectory: path.join(folder, ".holdfast", "pg") }),
    ({ database, host, port, user }) =>
      Effect.promise(async () => {
        const client = new Client({ host, port, user, database })
        await client.connect()
        const result = await client.query<Row>("SELECT * FROM mirror_file ORDER BY url")
        await client.end()
        return result.rows
      })
  )))

const report = (file: string) => JSON.parse(fs.readFileSync(file, "utf8"))
const endings = ["done", "alreadyDone", "skipped", "failed", "interrupted"]
const addsUp = (r: Record<string, number>): boolean =>
  endings.reduce((sum, ending) => sum + (r[ending] ?? Number.NaN), 0) === r["taken"]

/** One row per URL, every file the origin's, nothing else below the folder, nothing left over. */
const expectWhole = async (origin: Origin.Origin): Promise<void> => {
  const table = await rows(out)
  expect(table.map(({ url }) => url)).toEqual(origin.urls.toSorted())
  for (const row of table) {
    expect(row.status).toBe("done")
    expect(sha256(path.join(out, row.path)), row.url).toBe(origin.sha256Of(row.url))
    expect(row.sha256).toBe(origin.sha256Of(row.url))
  }
  expect(filesBelow(out).toSorted()).toEqual(table.map((row) => row.path).toSorted())
  expect(partials(out)).toEqual([])
  expect(processesOn(out)).toEqual([])
}

const someFiles = (n: number) => () => fs.existsSync(out) && filesBelow(out).length >= n

// Each is several starts of a command and of a server; what that takes is the machine's affair.
describe("holdfast mirror", { timeout: 90_000 }, () => {
  it("Mirror-2 Mirror-3 Mirror-4 Mirror-5: mirrors a list with everything in one scope, and a second run finds it done", async () => {
    const origin = await openOrigin({ documents: 60, pace: 0.2 })
    const list = writeList(work, origin.urls)
    const reportFile = path.join(work, "report.json")
    const first = await run(["mirror", list, "--to", out, "--report", reportFile])
    expect(first.code, first.out + first.err).toBe(0)
    const one = report(reportFile)
    expect(one).toMatchObject({ taken: origin.urls.length, done: origin.urls.length, failed: 0 })
    expect(one.ledger.acquired).toBe(one.ledger.released)
    expect(one.ledger.abandoned).toBe(0)
    expect(one.ledger.acquired).toBeGreaterThan(3)
    expect(first.out).toContain(
      `Ledger: ${one.ledger.acquired} acquired, ${one.ledger.acquired} released`
    )
    await expectWhole(origin)
    const requests = origin.requests
    const second = await run(["mirror", list, "--to", out, "--report", reportFile])
    expect(second.code).toBe(0)
    expect(report(reportFile)).toMatchObject({ done: 0, alreadyDone: origin.urls.length })
    expect(origin.requests).toBe(requests)
  })

  it("Mirror-3 MirrorStore-4: a file that was changed or removed is fetched again", async () => {
    const origin = await openOrigin({ documents: 20, pace: 0 })
    const list = writeList(work, origin.urls)
    expect((await run(["mirror", list, "--to", out])).code).toBe(0)
    const [one, two] = filesBelow(out)
    fs.appendFileSync(path.join(out, one!), "x")
    fs.rmSync(path.join(out, two!))
    const reportFile = path.join(work, "report.json")
    expect((await run(["mirror", list, "--to", out, "--report", reportFile])).code).toBe(0)
    expect(report(reportFile)).toMatchObject({ done: 2, alreadyDone: origin.urls.length - 2 })
    await expectWhole(origin)
  })

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it(`one ${signal} drains: running downloads finish, exit 75, and the next run resumes`, async () => {
      const origin = await openOrigin({ documents: 120, pace: 1 })
      const list = writeList(work, origin.urls)
      const reportFile = path.join(work, "report.json")
      const running = start(["mirror", list, "--to", out, "--report", reportFile])
      await until("some files", someFiles(10))
      running.child.kill(signal)
      // What npm does on one Ctrl-C.
      if (signal === "SIGINT") setTimeout(() => running.child.kill(signal), 5)
      const ended = await running.ended
      expect(ended.code, ended.out + ended.err).toBe(75)
      const drained = report(reportFile)
      expect(addsUp(drained)).toBe(true)
      expect(drained.interrupted).toBe(0)
      expect(drained.taken).toBeLessThan(origin.urls.length)
      const left = origin.urls.length - drained.done
      expect(ended.out).toContain(
        `Stopped on request: ${drained.done} done, ${left} left. Run the same command again to resume.`
      )
      expect(drained.ledger.acquired).toBe(drained.ledger.released)
      expect(processesOn(out)).toEqual([])
      expect((await run(["mirror", list, "--to", out])).code).toBe(0)
      await expectWhole(origin)
    })
  }

  it("past --drain running downloads are interrupted and counted as such, and still exit 75", async () => {
    const origin = await openOrigin({ documents: 60, pace: 30 })
    const list = writeList(work, origin.urls)
    const reportFile = path.join(work, "report.json")
    const running = start([
      "mirror",
      list,
      "--to",
      out,
      "--report",
      reportFile,
      "--drain",
      "300 millis"
    ])
    await until("some files", someFiles(3))
    running.child.kill("SIGTERM")
    const ended = await running.ended
    expect(ended.code, ended.out + ended.err).toBe(75)
    const drained = report(reportFile)
    expect(addsUp(drained)).toBe(true)
    expect(drained.interrupted).toBeGreaterThan(0)
    expect(partials(out)).toEqual([])
  })

  it("a later second SIGINT forces: exit 130, and the next run finds everything it needs", async () => {
    const origin = await openOrigin({ documents: 60, pace: 20 })
    const list = writeList(work, origin.urls)
    const running = start(["mirror", list, "--to", out])
    await until("some files", someFiles(3))
    running.child.kill("SIGINT")
    await pause(700)
    running.child.kill("SIGINT")
    const ended = await running.ended
    expect(ended.code, ended.out + ended.err).toBe(130)
    expect(ended.err).toContain("Still held:")
    await until("the server of a forced run has ended", () => processesOn(out).length === 0)
    await Effect.runPromise(Scope.close(scope, Exit.void))
    scope = Effect.runSync(Scope.make())
    const again = await openOrigin({ documents: 60, pace: 0, port: origin.port })
    expect((await run(["mirror", list, "--to", out])).code).toBe(0)
    await expectWhole(again)
  })

  it("Mirror-2 Mirror-3 MirrorStore-1 MirrorStore-2: five SIGKILLs at random moments, then one run: one row per URL, every hash right, nothing left", async () => {
    const origin = await openOrigin({ documents: 200, pace: 1 })
    const list = writeList(work, origin.urls)
    for (let kill = 0; kill < 5; kill++) {
      const running = start(["mirror", list, "--to", out])
      // Also before the server is up and between file and row.
      await pause(300 + Math.random() * 2000)
      running.child.kill("SIGKILL")
      await running.ended
    }
    const last = await run(["mirror", list, "--to", out])
    expect(last.code, last.out + last.err).toBe(0)
    await expectWhole(origin)
  })

  it("Mirror-1: a second run on the same folder says who holds it and exits 3; the first is not disturbed", async () => {
    // Slow enough to be at it still when the second has looked, whatever else the machine does.
    const origin = await openOrigin({ documents: 60, pace: 20 })
    const list = writeList(work, origin.urls)
    const first = start(["mirror", list, "--to", out, "--drain", "300 millis"])
    await until("some files", someFiles(1))
    const second = await run(["mirror", list, "--to", path.join(out, "..", "out")])
    expect(second.code, second.out + second.err).toBe(3)
    expect(second.err).toContain(String(first.child.pid))
    first.child.kill("SIGTERM")
    expect((await first.ended).code).toBe(75)
    await Effect.runPromise(Scope.close(scope, Exit.void))
    scope = Effect.runSync(Scope.make())
    const again = await openOrigin({ documents: 60, pace: 0, port: origin.port })
    expect((await run(["mirror", list, "--to", out])).code).toBe(0)
    await expectWhole(again)
  })

  it("Mirror-1: two runs that start at the same instant: one does it, the other exits 3", async () => {
    const origin = await openOrigin({ documents: 40, pace: 0.5 })
    const list = writeList(work, origin.urls)
    const both = await Promise.all([
      run(["mirror", list, "--to", out]),
      run(["mirror", list, "--to", out])
    ])
    expect(both.map(({ code }) => code).toSorted()).toEqual([0, 3])
    await expectWhole(origin)
  })

  it("the database killed in mid-run: a clear line, exit 1, and the next run resumes", async () => {
    const origin = await openOrigin({ documents: 120, pace: 1 })
    const list = writeList(work, origin.urls)
    const running = start(["mirror", list, "--to", out])
    await until("some files", someFiles(10))
    const pid = Number(
      fs.readFileSync(path.join(out, ".holdfast", "pg", "postmaster.pid"), "utf8").split("\n")[0]
    )
    process.kill(pid, "SIGKILL")
    const ended = await running.ended
    expect(ended.code, ended.out + ended.err).toBe(1)
    expect(ended.err).toMatch(/^holdfast: .*(connection|lock)/im)
    expect((await run(["mirror", list, "--to", out])).code).toBe(0)
    await expectWhole(origin)
  })

  it("with --database-url or DATABASE_URL it uses that server and starts none", async () => {
    const origin = await openOrigin({ documents: 20, pace: 0 })
    const list = writeList(work, origin.urls)
    const server = await Effect.runPromise(Scope.extend(Embedded.make(), scope))
    const url = `postgres:///postgres?host=${
      encodeURIComponent(server.host)
    }&port=${server.port}&user=postgres`
    const given = await run(["mirror", list, "--to", out, "--database-url", url])
    expect(given.code, given.out + given.err).toBe(0)
    expect(fs.existsSync(path.join(out, ".holdfast", "pg"))).toBe(false)
    const found = await run(["mirror", list, "--to", out], { DATABASE_URL: url })
    expect(found.out).toContain(`${origin.urls.length} already done`)
  })

  it("a table of that name that is another's: exit 2 and its name; rows that lie: fetched anew, inside the folder", async () => {
    const origin = await openOrigin({ documents: 20, pace: 0 })
    const list = writeList(work, origin.urls)
    const server = await Effect.runPromise(Scope.extend(Embedded.make(), scope))
    const url = `postgres:///postgres?host=${
      encodeURIComponent(server.host)
    }&port=${server.port}&user=postgres`
    const client = new Client({ ...server, user: "postgres", database: "postgres" })
    await client.connect()
    try {
      for (
        const [make, drop] of [
          ["CREATE TABLE mirror_file (id int)", "DROP TABLE mirror_file"],
          ["CREATE VIEW mirror_file AS SELECT 1 AS x", "DROP VIEW mirror_file"],
          [
            "CREATE TABLE mirror_file (url text, path text, bytes bigint, sha256 text, status text, attempts int)",
            "DROP TABLE mirror_file"
          ]
        ] as const
      ) {
        await client.query(make)
        const refused = await run(["mirror", list, "--to", out, "--database-url", url])
        expect([make, refused.code]).toEqual([make, 2])
        expect(refused.err).toMatch(/^holdfast: The table mirror_file of this database is not/m)
        await client.query(drop)
      }
      expect((await run(["mirror", list, "--to", out, "--database-url", url])).code).toBe(0)
      const [first, second, third] = origin.urls
      await client.query("UPDATE mirror_file SET path = '../evil' WHERE url = $1", [first])
      await client.query("UPDATE mirror_file SET path = NULL, status = 'odd' WHERE url = $1", [
        second
      ])
      await client.query("UPDATE mirror_file SET bytes = -1, sha256 = NULL WHERE url = $1", [third])
      const healed = await run(["mirror", list, "--to", out, "--database-url", url])
      expect(healed.code, healed.out + healed.err).toBe(0)
      expect(healed.out).toContain(` 3 done, ${origin.urls.length - 3} already done`)
      expect(fs.readdirSync(work).toSorted()).toEqual(["out", "urls.txt"])
    } finally {
      await client.end()
    }
  })
})

describe("holdfast demo", { timeout: 90_000 }, () => {
  it("a second demo of the same folder, at once: exit 3, and the first one's origin stays", async () => {
    const first = start(["demo", "--to", out])
    await until("the first is at work", () => first.output().includes("Mirroring"))
    const port = fs.readFileSync(path.join(out, "origin-port.txt"), "utf8")
    const second = await run(["demo", "--to", out])
    expect(second.code, second.out + second.err).toBe(3)
    expect(second.err).toContain(String(first.child.pid))
    first.child.kill("SIGTERM")
    expect([0, 75, 143]).toContain((await first.ended).code)
    expect(fs.readFileSync(path.join(out, "origin-port.txt"), "utf8")).toBe(port)
  })

  it("a link where the demo writes its list is refused, and the file behind it is untouched", async () => {
    const theirs = path.join(work, "theirs")
    fs.writeFileSync(theirs, "of value")
    fs.mkdirSync(out)
    fs.symlinkSync(theirs, path.join(out, "urls.txt"))
    const ended = await run(["demo", "--to", out])
    expect(ended.code, ended.out + ended.err).toBe(2)
    expect(ended.err).toContain("urls.txt is a symbolic link")
    expect(fs.readFileSync(theirs, "utf8")).toBe("of value")
  })

  it("mirrors the bundled origin, suggests next steps, and finds it done the second time", async () => {
    const first = await run(["demo", "--to", out])
    expect(first.code, first.out + first.err).toBe(0)
    expect(first.out).toContain("What to try next")
    const [, acquired, released] =
      /Ledger: (\d+) acquired, (\d+) released, 0 abandoned/.exec(first.out) ?? []
    expect(acquired).toBe(released)
    expect(processesOn(out)).toEqual([])
    const second = await run(["demo", "--to", out])
    expect(second.out).toContain(" 0 done")
    expect(second.code).toBe(0)
  })
})
