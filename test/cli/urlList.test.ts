import { NodeFileSystem } from "@effect/platform-node"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Either } from "effect"
import fc from "fast-check"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { type Options, parse, read } from "../../src/cli/urlList.ts"

const good = (text: string, options?: Options) =>
  Either.getOrThrow(parse(text, "urls.txt", options))
const bad = (text: string) => Either.getOrThrow(Either.flip(parse(text, "urls.txt")))
const reasonOf = (line: string) => {
  const { rejected, urls } = good(`http://h/good\n${line}\n`)
  expect(urls).toEqual(["http://h/good"])
  expect(rejected.map((one) => one.line)).toEqual([2])
  return rejected[0]!
}

/** A directory of its own with one file in it. */
const withFile = <A, E, R>(
  contents: string | Uint8Array,
  f: (file: string, directory: string) => Effect.Effect<A, E, R>
) =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const directory = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
      fs.chmodSync(directory, 0o755)
      fs.writeFileSync(path.join(directory, "urls.txt"), contents)
      return directory
    }),
    (directory) => f(path.join(directory, "urls.txt"), directory),
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
  ).pipe(Effect.provide(NodeFileSystem.layer))

describe("urlList.parse", () => {
  it("comments, blank lines, CRLF, CR, BOM and spaces round a line do not count", () => {
    const text = "\uFEFF# the list\r\n\r\n  http://h/a  \r\nhttp://h/b\t\rhttp://h/c\n   # end\n"
    expect(good(text)).toEqual({
      urls: ["http://h/a", "http://h/b", "http://h/c"],
      duplicates: 0,
      rejected: []
    })
  })

  it("UrlList-2: URLs are normalised, and those that are then equal are one", () => {
    const text = [
      "HTTP://Example.COM:80/a/../b#part",
      "http://example.com/b",
      "http:\\\\example.com\\b",
      "https://example.com/b",
      "http://example.com/b?",
      "http://münchen.de/ä ö",
      "http://h/../../etc/passwd"
    ].join("\n")
    expect(good(text)).toEqual({
      urls: [
        "http://example.com/b",
        "https://example.com/b",
        "http://example.com/b?",
        "http://xn--mnchen-3ya.de/%C3%A4%20%C3%B6",
        "http://h/etc/passwd"
      ],
      duplicates: 2,
      rejected: []
    })
  })

  const lines: ReadonlyArray<readonly [string, string]> = [
    ["ftp://h/a", "cannot be fetched: \"ftp:\" is neither http: nor https:"],
    ["javascript:alert(1)", "cannot be fetched: \"javascript:\" is neither http: nor https:"],
    ["http://[bad", "is not a valid URL"],
    ["http://", "is not a valid URL"],
    ["http://h:99999/", "is not a valid URL"],
    ["/../../etc/passwd", "is not an absolute URL: it should begin with http:// or https://"],
    ["example.com/a", "is not an absolute URL: it should begin with http:// or https://"],
    ["http://h/\u0000a", "holds a control character (U+0000)"],
    ["http://h/a\tb", "holds a control character (U+0009)"],
    ["http://h/\u001b[2J", "holds a control character (U+001B)"],
    ["http://h/\uFFFD", "is not valid UTF-8"],
    ["http://h/a http://h/b", "holds more than one URL: write one per line"],
    ["http://user:secret@h/", "holds a user name or a password, which the report would show"]
  ]
  for (const [line, reason] of lines) {
    it(`UrlList-1: ${JSON.stringify(line)} is rejected by itself`, () => {
      expect(reasonOf(line).reason).toBe(reason)
    })
  }

  it("UrlList-1: an overlong URL is rejected, as written and as encoded", () => {
    const raw = reasonOf(`http://h/${"x".repeat(9_991)}`)
    expect(raw.reason).toBe("is 10000 characters long, more than the 8192 allowed")
    expect(raw.text.length).toBeLessThan(200)
    expect(raw.text).toContain("(10000 characters)")
    expect(reasonOf(`http://h/${"ä".repeat(2_000)}`).reason).toBe(
      "is 12009 characters long once encoded, more than the 8192 allowed"
    )
    expect(good("http://h/a\nhttp://h/abc", { maxUrlLength: 10 }).rejected).toHaveLength(1)
  })

  it("UrlList-3: controls are made visible, long lines cut, credentials hidden", () => {
    expect(reasonOf("ftp://h/\u001b[31m\u202Egnp").text).toBe("ftp://h/\\u{1b}[31m\\u{202e}gnp")
    for (
      const line of [
        "http://user:secret@h/",
        "http:user:secret@h/",
        "http:\\\\user:secret@h/",
        "ftp://user:secret@h/a",
        "user:secret@h/a",
        "secret:user@h/a",
        "http://user:sec/secret@[bad",
        "http://user:se@secret@h/\u0000",
        `http://user:secret@h/${"x".repeat(10_000)}`
      ]
    ) {
      const { reason, text } = reasonOf(line)
      expect(text + reason).not.toContain("secret")
      expect(text).toContain("***@")
    }
  })

  it("UrlList-1, UrlList-2, UrlList-3 hold for any text", () => {
    const line = fc.oneof(
      fc.webUrl({ withFragments: true, withQueryParameters: true }),
      fc.constantFrom(
        "",
        "#",
        "http://h/a",
        "http://h/A",
        "ftp://x",
        "http://u:pw@h",
        "\u0000",
        "\uD800",
        "https:h"
      ),
      fc.string({ unit: "binary" })
    )
    fc.assert(
      fc.property(fc.array(line), fc.constantFrom("\n", "\r\n", "\r"), (lines, newline) => {
        const result = parse(lines.join(newline), "urls.txt")
        const rejected = Either.isRight(result)
          ? result.right.rejected
          : result.left._tag === "ListEmpty"
          ? result.left.rejected
          : []
        for (const one of rejected) {
          if (/[\p{Cc}\p{Cs}]/u.test(one.text) || one.text.length > 1100) expect.fail(one.text)
        }
        if (Either.isLeft(result)) return
        const { duplicates, urls } = result.right
        expect(new Set(urls).size).toBe(urls.length)
        for (const url of urls) {
          const { hash, href, password, username } = new URL(url)
          expect([href, hash, username, password]).toEqual([url, "", "", ""])
        }
        const items = lines.join(newline).replace(/^\uFEFF/, "").split(/\r\n|\n|\r/)
          .filter((line) => line.trim() !== "" && !line.trim().startsWith("#"))
        expect(urls.length + duplicates + rejected.length).toBe(items.length)
      }),
      { numRuns: 150 }
    )
  })

  it("an empty list says how many lines were looked at", () => {
    expect(bad("").message).toBe(
      "\"urls.txt\" holds no URL to fetch: 0 lines looked at, each of them blank or a comment. Write one URL per line."
    )
    expect(bad("# a\n\n#b\n")).toMatchObject({ _tag: "ListEmpty", lines: 3, rejected: [] })
    const error = bad("ftp://a/\n\nhttp://[bad\nx\ny\n")
    expect(error).toMatchObject({ _tag: "ListEmpty", lines: 5 })
    expect(error.message).toBe(
      "\"urls.txt\" holds no URL to fetch: 5 lines looked at, 4 rejected: line 1 cannot be fetched: \"ftp:\" is neither"
        + " http: nor https:; line 3 is not a valid URL; line 4 is not an absolute URL: it should begin with http:// or"
        + " https://; and 1 more."
    )
  })

  it("one stray NUL is a bad line, many are another sort of file", () => {
    expect(good("http://h/a\nhttp://h/\u0000b").rejected).toHaveLength(1)
    expect(bad("http://h/a\n\u0000\u0000\u0000\u0000\u0000\n")).toMatchObject({
      _tag: "ListBinary",
      nul: 5
    })
  })
})

describe("urlList.read", () => {
  it.effect("reads a file whose characters lie across chunks", () => {
    const lines = Array.from({ length: 20_000 }, (_, i) => `http://h/東京/${i}`)
    return withFile(
      `\uFEFF${lines.join("\n")}`,
      (file) =>
        Effect.map(read(file), ({ rejected, urls }) => {
          expect(urls).toEqual(lines.map((line) => new URL(line).href))
          expect(rejected).toEqual([])
        })
    )
  })

  it.effect("a list that cannot be read gives its reason", () =>
    withFile("http://h/a", (file, directory) =>
      Effect.gen(function*() {
        const missing = yield* Effect.flip(read(path.join(directory, "none\u001b[2J.txt")))
        expect(missing).toMatchObject({ _tag: "ListUnreadable", reason: "missing" })
        expect(missing.message).toContain("none\\u{1b}[2J.txt\". Give the path")
        expect(yield* Effect.flip(read(directory))).toMatchObject({ reason: "directory" })
        expect(yield* Effect.flip(read(file, { maxBytes: 9 }))).toMatchObject({
          reason: "too large"
        })
        expect((yield* read(file, { maxBytes: 10 })).urls).toEqual(["http://h/a"])
        expect(yield* Effect.flip(read(path.join(file, "below")))).toMatchObject({
          _tag: "ListUnreadable"
        })
        expect(yield* Effect.flip(read("nul\u0000.txt"))).toMatchObject({ _tag: "ListUnreadable" })
      })))

  // Permissions do not bind root.
  it.effect.skipIf(process.getuid?.() === 0)(
    "a file without permission is denied",
    () =>
      withFile("http://h/a", (file) =>
        Effect.gen(function*() {
          fs.chmodSync(file, 0)
          expect(yield* Effect.flip(read(file))).toMatchObject({ reason: "denied" })
        }))
  )

  const binaries: ReadonlyArray<readonly [string, Uint8Array]> = [
    ["this program", fs.readFileSync(process.execPath).subarray(0, 1 << 20)],
    ["UTF-16", Buffer.from("\uFEFFhttp://h/a\nhttp://h/b\n", "utf16le")],
    ["zeros", new Uint8Array(1000)],
    ["a picture", Uint8Array.from({ length: 4096 }, (_, i) => (i * i * 31 + i * 7) & 255)]
  ]
  for (const [what, bytes] of binaries) {
    it.effect(`${what} is not a text list`, () =>
      withFile(bytes, (file) =>
        Effect.map(Effect.flip(read(file)), (error) => {
          expect(error._tag).toBe("ListBinary")
          expect(error.message.includes("UTF-16")).toBe(what === "UTF-16")
        })))
  }

  it.effect("a list in Latin-1 loses the lines it spoils, not the others", () =>
    withFile(
      Buffer.from("http://h/plain\nhttp://h/caf\u00e9\n", "latin1"),
      (file) =>
        Effect.map(read(file), ({ rejected, urls }) => {
          expect(urls).toEqual(["http://h/plain"])
          expect(rejected).toMatchObject([{ line: 2, reason: "is not valid UTF-8" }])
        })
    ))
})
