import { execFile, execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as net from "node:net"
import * as path from "node:path"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import {
  bundled,
  bundledCli,
  type Ended,
  filesBelow,
  partials,
  processesOn,
  temporaryFolder,
  writeList
} from "../support/command.ts"

const { run } = bundled

/** An origin that does what hosts do at their worst, one path each. */
const misbehave: http.RequestListener = (request, response) => {
  const body = `the body of ${request.url}`
  switch (new URL(request.url!, "http://x").pathname) {
    case "/resets":
      return void request.socket.resetAndDestroy()
    case "/silent":
      return
    case "/stalls":
      response.writeHead(200, { "content-length": "1000" })
      return void response.write("some")
    case "/lies-long":
      response.writeHead(200, { "content-length": "1000" })
      response.write("short")
      return void setTimeout(() => request.socket.destroy(), 50)
    case "/lies-short":
      request.socket.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmuch more than four")
      return void request.socket.end()
    case "/redirects":
      return void response.writeHead(302, { location: `/redirects?${Math.random()}` }).end()
    case "/to-ftp":
      return void response.writeHead(302, { location: "ftp://127.0.0.1/x" }).end()
    case "/to-controls":
      // In latin1 and in UTF-8 alike this holds U+009B, which begins a command to a terminal.
      return void response.writeHead(302, { location: "ftp://h/\u00c2\u009b31m" }).end()
    case "/zeros": {
      response.writeHead(200)
      const zeros = Buffer.alloc(65536)
      let sent = 0
      const more = (): void => {
        while (sent++ < 16384 && response.write(zeros));
        if (sent < 16384 && !response.destroyed) response.once("drain", more)
      }
      return more()
    }
    case "/missing":
      return void response.writeHead(404).end("no")
    default:
      return void response.end(body)
  }
}

let server: http.Server
let origin = ""
let refused = ""
beforeAll(async () => {
  server = http.createServer(misbehave)
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const gone = net.createServer()
  await new Promise<void>((resolve) => gone.listen(0, "127.0.0.1", resolve))
  refused = `http://127.0.0.1:${(gone.address() as AddressInfo).port}/x`
  await new Promise((resolve) => gone.close(resolve))
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

let work = ""
let out = ""
beforeEach(() => {
  work = temporaryFolder()
  out = path.join(work, "out")
})
afterEach(() => {
  fs.rmSync(work, { recursive: true, force: true })
})

const reportOf = () => JSON.parse(fs.readFileSync(path.join(work, "report.json"), "utf8"))
const mirror = (list: string, ...more: ReadonlyArray<string>): Promise<Ended> =>
  run(["mirror", list, "--to", out, "--report", path.join(work, "report.json"), ...more])

describe("a hostile list", { timeout: 90_000 }, () => {
  for (
    const [what, content, says] of [
      ["empty", "", /no URL/i],
      ["of comments only", "# one\r\n\r\n  # two\r\n", /no URL/i],
      ["of nothing usable", "ftp://h/x\nhttp://[bad\n", /ftp/],
      ["binary", Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 256)), /not a text/i]
    ] as const
  ) {
    it(`${what}: exit 2, a clear line, nothing touched`, async () => {
      const list = path.join(work, "urls.txt")
      fs.writeFileSync(list, content)
      const ended = await mirror(list)
      expect(ended.code, ended.out + ended.err).toBe(2)
      expect(ended.err).toMatch(says)
      expect(ended.err.trim().split("\n").length).toBeLessThan(8)
      expect(fs.existsSync(out)).toBe(false)
    })
  }

  it("missing, or a folder: exit 2, nothing touched", async () => {
    for (const list of [path.join(work, "no-such-list"), work]) {
      const ended = await mirror(list)
      expect(ended.code).toBe(2)
      expect(ended.err).toContain(list)
    }
    expect(fs.existsSync(out)).toBe(false)
  })

  it("Mirror-2 Mirror-4 Report-1: bad lines spoil nothing, no URL leaves the folder, clashing names stay apart", async () => {
    const good = [
      `${origin}/../../etc/passwd`,
      `${origin}/%2e%2e%2fetc%2fpasswd`,
      `${origin}/..%5c..%5cwindows`,
      `${origin}/a`,
      `${origin}/a/b`,
      `${origin}/a/b/`,
      `${origin}/A`,
      `${origin}/q?x=1`,
      `${origin}/q?x=2`,
      `${origin}/caf%C3%A9`,
      `${origin}/日本`,
      `${origin}/${"long".repeat(300)}`,
      `${origin}/.holdfast/pg/postmaster.pid`,
      `${origin}//double//slash`,
      `${origin}/con.txt`,
      `${origin}/x.part`
    ]
    const bad = [
      "ftp://127.0.0.1/x",
      "http://[bad",
      `${origin}/${"x".repeat(10_000)}`,
      `${origin}/nul\0byte`,
      "just words"
    ]
    const list = path.join(work, "urls.txt")
    fs.writeFileSync(list, `\uFEFF# a comment\r\n${[...good, ...bad, good[3]].join("\r\n")}\r\n`)
    const ended = await mirror(list)
    expect(ended.code, ended.out + ended.err).toBe(1)
    const report = reportOf()
    expect(report).toMatchObject({
      taken: good.length + bad.length,
      done: good.length,
      skipped: bad.length,
      failed: 0
    })
    for (const reason of ["ftp", "line 18", "line 19", "2048", "line 21"]) {
      expect(ended.out).toContain(reason)
    }
    expect(ended.out).not.toContain("\0")
    expect(filesBelow(out).length).toBe(good.length)
    expect(fs.readdirSync(work).toSorted()).toEqual(["out", "report.json", "urls.txt"])
    for (
      const { path: place, url } of report.items.filter((item: { status: string }) =>
        item.status === "done"
      )
    ) {
      const at = new URL(url)
      expect(fs.readFileSync(path.join(out, place), "utf8")).toBe(
        `the body of ${at.pathname}${at.search}`
      )
    }
    expect((await mirror(list)).code).toBe(1)
    expect(reportOf()).toMatchObject({ alreadyDone: good.length, done: 0 })
  })
})

describe("hostile hosts", { timeout: 90_000 }, () => {
  it("each failure is named with its reason, the rest is done, nothing is left over", async () => {
    const cases: Record<string, RegExp> = {
      [refused]: /refused/i,
      [`${origin}/resets`]: /reset|closed|cut/i,
      [`${origin}/silent`]: /header|silent|answer/i,
      [`${origin}/stalls`]: /4 bytes|silent|stall/i,
      [`${origin}/lies-long`]: /1000|cut|expected/i,
      [`${origin}/redirects`]: /redirect/i,
      [`${origin}/to-ftp`]: /ftp/i,
      [`${origin}/zeros`]: /larger|more than|max/i,
      [`${origin}/missing`]: /404/
    }
    const list = writeList(work, [...Object.keys(cases), `${origin}/fine`, `${origin}/lies-short`])
    const ended = await mirror(
      list,
      "--timeout",
      "500 millis",
      "--retries",
      "1",
      "--max-bytes",
      "10MB"
    )
    expect(ended.code, ended.out + ended.err).toBe(1)
    const { items, ledger } = reportOf() as {
      items: ReadonlyArray<{ url: string; status: string; error: string }>
      ledger: { acquired: number; released: number }
    }
    for (const [url, reason] of Object.entries(cases)) {
      const item = items.find((item) => item.url === url)
      expect(item, url).toMatchObject({ status: "failed" })
      expect(item!.error).toMatch(reason)
      expect(ended.out).toContain(`failed ${url}: `)
    }
    expect(items.find((item) => item.url === `${origin}/fine`)).toMatchObject({ status: "done" })
    expect(ledger.acquired).toBe(ledger.released)
    expect(partials(out)).toEqual([])
    expect(processesOn(out)).toEqual([])
  })
})

/** A line of bash; `$0` is node, `$1` the command. */
const shell = (line: string, ...args: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number; readonly out: string; readonly err: string }>((resolve) => {
    execFile(
      "bash",
      ["-o", "pipefail", "-c", line, process.execPath, bundledCli, ...args],
      { timeout: 25_000 },
      (error, out, err) => resolve({ code: Number(error?.code ?? 0), out, err })
    )
  })

describe("a hostile place", { timeout: 90_000 }, () => {
  const fine = () => writeList(work, [`${origin}/one`, `${origin}/two`])

  it("a folder that cannot be made or written: exit 2 and a hint", async () => {
    fs.writeFileSync(path.join(work, "file"), "")
    const ended = await run(["mirror", fine(), "--to", path.join(work, "file", "out")])
    expect(ended.code).toBe(2)
    expect(ended.err).toMatch(/Cannot write into the folder/)
    if (process.getuid?.() === 0) return
    fs.mkdirSync(out, { mode: 0o555 })
    expect((await mirror(fine())).code).toBe(2)
  })

  it("Program-1: control characters of a server reach neither the terminal nor the report", async () => {
    const ended = await mirror(writeList(work, [`${origin}/to-controls`]))
    expect(ended.code).toBe(1)
    expect(ended.out).toContain("\\u{9b}31m")
    // oxlint-disable-next-line no-control-regex
    expect(ended.out + ended.err).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/)
    const report = fs.readFileSync(path.join(work, "report.json"), "utf8")
    // oxlint-disable-next-line no-control-regex
    expect(report).not.toMatch(/[\u007f-\u009f]/)
  })

  it("a link that leads out of the folder is not followed", async () => {
    const list = fine()
    expect((await mirror(list)).code).toBe(0)
    const [first] = filesBelow(out)
    const host = path.join(out, path.dirname(first!))
    fs.rmSync(host, { recursive: true })
    fs.mkdirSync(path.join(work, "elsewhere"))
    fs.symlinkSync(path.join(work, "elsewhere"), host)
    const ended = await mirror(list)
    expect(ended.code).toBe(1)
    expect(ended.out).toContain("leads out of the folder")
    expect(fs.readdirSync(path.join(work, "elsewhere"))).toEqual([])
  })

  it("Mirror-2: nothing is made behind a host folder that is a link", async () => {
    const elsewhere = path.join(work, "elsewhere")
    fs.mkdirSync(elsewhere)
    fs.mkdirSync(out)
    const { host } = new URL(origin)
    fs.symlinkSync(elsewhere, path.join(out, host.replace(":", "+")))
    const ended = await mirror(writeList(work, [`${origin}/deep/er/one`]))
    expect(ended.code, ended.out + ended.err).toBe(1)
    expect(ended.out).toContain("leads out of the folder")
    expect(fs.readdirSync(elsewhere)).toEqual([])
  })

  it("Mirror-2: `.holdfast` that is a link is refused, and nothing behind it is deleted", async () => {
    const elsewhere = path.join(work, "elsewhere")
    fs.mkdirSync(path.join(elsewhere, "parts"), { recursive: true })
    fs.writeFileSync(path.join(elsewhere, "parts", "mine"), "of value")
    fs.mkdirSync(out)
    fs.symlinkSync(elsewhere, path.join(out, ".holdfast"))
    const ended = await run(["mirror", fine(), "--to", out])
    expect(ended.code, ended.out + ended.err).toBe(2)
    expect(ended.err).toMatch(/\.holdfast is a symbolic link, to .*elsewhere\. .*Remove the link/)
    expect(fs.readFileSync(path.join(elsewhere, "parts", "mine"), "utf8")).toBe("of value")
    expect(fs.readdirSync(elsewhere)).toEqual(["parts"])
  })

  it("Mirror-2: a link where the database keeps its data is refused; a folder that is a link is used", async () => {
    const elsewhere = path.join(work, "elsewhere")
    fs.mkdirSync(path.join(elsewhere, ".holdfast"), { recursive: true })
    fs.symlinkSync(work, path.join(elsewhere, ".holdfast", "pg"))
    fs.symlinkSync(elsewhere, out)
    const refused = await run(["mirror", fine(), "--to", out])
    expect(refused.code, refused.out + refused.err).toBe(2)
    expect(refused.err).toContain("pg is a symbolic link")
    fs.rmSync(path.join(elsewhere, ".holdfast", "pg"))
    expect((await mirror(fine())).code).toBe(0)
    expect(filesBelow(elsewhere)).toHaveLength(2)
  })

  it("a wrong database URL: exit 2, a clear line without the password", async () => {
    for (
      const url of [
        "postgres://u:secret@127.0.0.1:1/none",
        "postgres://u:secret@no-such-host.invalid/none",
        "nonsense://u:secret@h/x",
        "postgres:///x?host=/no/such/dir"
      ]
    ) {
      const ended = await mirror(fine(), "--database-url", url)
      expect(ended.code, ended.out + ended.err).toBe(2)
      expect(ended.err).toMatch(/^holdfast: /m)
      expect(ended.out + ended.err).not.toContain("secret")
    }
  })

  it("a report that could not be written: exit 2 before anything is touched", async () => {
    const list = fine()
    fs.mkdirSync(path.join(work, "folder"))
    execFileSync("mkfifo", [path.join(work, "pipe")])
    for (const report of ["no/such/folder/r.json", "folder", "pipe", "urls.txt", ""]) {
      const at = report === "" ? "" : path.join(work, report)
      const ended = await run(["mirror", list, "--to", out, "--report", at])
      expect([report, ended.code]).toEqual([report, 2])
      expect(ended.err).toMatch(/^holdfast: The report cannot be written/m)
    }
    expect(fs.existsSync(out)).toBe(false)
    expect(fs.readFileSync(list, "utf8")).toContain(origin)
    const inside = path.join(out, "report.json")
    expect((await run(["mirror", list, "--to", out, "--report", inside])).code).toBe(0)
    expect(fs.existsSync(inside)).toBe(true)
  })

  it("a reader that leaves after one line, or a full disk behind it: the mirror is whole, nothing is left", async () => {
    const list = fine()
    for (const [pipe, code] of [["2>&1 | head -1", 0], ["> /dev/full", 1]] as const) {
      const ended = await shell(`"$0" "$1" mirror "$2" --to "$3" ${pipe}`, list, out)
      expect([pipe, ended.code, ended.err.includes("EPIPE")]).toEqual([pipe, code, false])
      expect(filesBelow(out).length).toBe(2)
      expect(processesOn(out)).toEqual([])
      fs.rmSync(out, { recursive: true })
    }
  })

  it("the list from a pipe", async () => {
    fs.writeFileSync(path.join(work, "some"), `${origin}/missing\n${origin}/x y\nnot a URL\n`)
    const ended = await shell(
      `cat "$2" | "$0" "$1" mirror /dev/stdin --to "$3"`,
      path.join(work, "some"),
      out
    )
    expect(ended.out).toContain("3 taken: 1 done, 0 already done, 1 skipped, 1 failed")
    expect(ended.code).toBe(1)
  })

  it("bad arguments: exit 2 and what is expected", async () => {
    const list = fine()
    for (
      const [args, says] of [
        [["mirror", list], "--to"],
        [["mirror", list, "--to", ""], "expected a folder"],
        [["demo", "--to", " "], "expected a folder"],
        [["mirror", list, "--to", out, "--concurrency", "0"], "whole number"],
        [["mirror", list, "--to", out, "--concurrency", "many"], "many"],
        [["mirror", list, "--to", out, "--drain", "soon"], "25 seconds"],
        [["mirror", list, "--to", out, "--timeout", "5"], "a duration with its unit"],
        [["mirror", list, "--to", out, "--timeout", "-5 seconds"], "a duration with its unit"],
        [["mirror", list, "--to", out, "--max-bytes", "lots"], "10MB"],
        [["mirror", list, "--to", out, "--frobnicate"], "--frobnicate"],
        [["frobnicate"], "mirror"]
      ] as const
    ) {
      const ended = await run(args)
      expect(ended.code, args.join(" ")).toBe(2)
      expect(ended.out + ended.err).toContain(says)
    }
    expect(fs.existsSync(out)).toBe(false)
  })

  const mountable = (() => {
    const probe = temporaryFolder()
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "none", probe], { stdio: "ignore" })
      execFileSync("umount", [probe])
      return true
    } catch {
      return false
    } finally {
      fs.rmSync(probe, { recursive: true, force: true })
    }
  })()

  it.skipIf(!mountable)(
    "a full disk: a clear line, exit 1, nothing half-written, and room later finishes it",
    async () => {
      fs.mkdirSync(out)
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=75m,mode=755", "none", out])
      try {
        const ballast = path.join(out, "ballast")
        const list = writeList(work, [`${origin}/one`, `${origin}/zeros`])
        const ended = await mirror(list)
        expect(ended.code, ended.out + ended.err).toBe(1)
        expect(ended.out).toMatch(/no space|disk is full|ENOSPC|full/i)
        expect(partials(out)).toEqual([])
        expect(processesOn(out)).toEqual([])
        fs.rmSync(ballast, { force: true })
        expect((await run(["mirror", writeList(work, [`${origin}/one`]), "--to", out])).code).toBe(
          0
        )
      } finally {
        execFileSync("umount", [out])
      }
    }
  )
})
