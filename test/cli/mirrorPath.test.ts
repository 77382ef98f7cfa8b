import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { isInside, plain, plan } from "../../src/cli/mirrorPath.ts"

/** What file systems of various kinds take for equal, each one by itself and then all together. */
const folds: ReadonlyArray<(text: string) => string> = [
  (text) => text.normalize("NFC").toLowerCase(),
  (text) => text.normalize("NFD").toUpperCase(),
  (text) => text.normalize("NFKD").toLowerCase()
]
const fold = (text: string) => text.normalize("NFKC").toUpperCase().toLowerCase().normalize("NFKC")

const nastyPart = fc.oneof(
  fc.constantFrom(
    "a",
    "A",
    "b",
    "index.html",
    "index~.html",
    "",
    ".",
    "..",
    "%2e%2e",
    "%2E%2E%2F",
    "..%2f..",
    "%2F",
    "%5c",
    "\\",
    "\\..\\..",
    "%00",
    "\u0000",
    "C:",
    "c%3A",
    "CON",
    "con.txt",
    "nul",
    "COM1.html",
    "lpt9",
    "CONIN$",
    "aux.",
    "name.",
    "name...",
    "name%20",
    "name ",
    ".holdfast",
    ".HOLDFAST",
    ".holdfast-x",
    "%2eholdfast",
    ".ｈoldfast",
    ".hold\u200Cfast",
    "a.part",
    "a.PART",
    ".part",
    "a.part.",
    "con.part",
    "a~b",
    "~",
    "~7e",
    "~~",
    "a~~0123456789abcdef",
    "é",
    "e\u0301",
    "É",
    "%C3%A9",
    "%c3%a9",
    "%E9",
    "straße",
    "STRASSE",
    "İ",
    "ı",
    "ſ",
    "K",
    "ﬁ",
    "Σ",
    "ς",
    "東京",
    "\u3164",
    "😀",
    "@u",
    "a:b",
    "a*b",
    "a|b",
    "a;b",
    "a%b",
    "%",
    "+",
    "-rf",
    "a+b",
    "a?",
    "a?x=1",
    "a?x=1&y=2",
    "a?/../..",
    "a?b?c",
    "a%3Fx=1",
    "a@x=1",
    "a?x.",
    "?a.part",
    "x".repeat(250),
    "é".repeat(120),
    `${"y".repeat(300)}.html`
  ),
  fc.string({ unit: "grapheme", maxLength: 6 }),
  fc.string({ unit: "binary", maxLength: 4 })
)
const nastyHost = fc.constantFrom(
  "http://h",
  "https://h",
  "http://h:8080",
  "https://h:8080",
  "http://h+8080",
  "http://h+https",
  "http://H",
  "http://..",
  "http://.",
  "http://.holdfast",
  "http://con",
  "http://h.part",
  "http://h.",
  "http://[::1]",
  "http://ip6+--1",
  "http://a~b",
  "http://127.0.0.1",
  "http://münchen.de",
  `http://${"l".repeat(300)}.example`,
  `https://${"l".repeat(300)}.example`
)
const nastyUrl = fc.tuple(nastyHost, fc.array(nastyPart, { maxLength: 6 })).map(([host, parts]) =>
  `${host}/${parts.join("/")}`
).filter((url) => URL.canParse(url)).map((url) => {
  const parsed = new URL(url)
  parsed.hash = ""
  return parsed.href
})
const nastyUrls = fc.uniqueArray(nastyUrl, { minLength: 1, maxLength: 30 })

const forbidden =
  /^\.holdfast|\.part$|[. ]$|^(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)(\.|$)|[\p{Cc}<>:"|?*\\]/iu

const isGood = (one: string): boolean =>
  path.posix.resolve("/out", one) === `/out/${one}`
  && path.win32.resolve("C:\\out", one) === `C:\\out\\${one.replaceAll("/", "\\")}`
  && isInside(one)
  && Buffer.byteLength(one) <= 1000
  && one.split("/").every((part) =>
    part !== "" && Buffer.byteLength(part) <= 200 && !forbidden.test(part)
  )

/** MirrorPath-1, -3 and -5 for a set of paths that live together. */
const expectGood = (paths: ReadonlyArray<string>) => {
  expect(paths.filter((one) => !isGood(one))).toEqual([])
  const files = new Set(paths.map(fold))
  expect(files.size).toBe(paths.length)
  for (const fold of folds) expect(new Set(paths.map(fold)).size).toBe(paths.length)
  const folders = Array.from(files).flatMap((file) =>
    Array.from(file.matchAll(/\//g), ({ index }) => file.slice(0, index))
  )
  expect(folders.filter((folder) => files.has(folder))).toEqual([])
}

const shuffled = <A>(values: ReadonlyArray<A>, seed: number): Array<A> => {
  let state = seed >>> 0
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0)
  return values.map((value) => [next(), value] as const).toSorted(([a], [b]) => a - b)
    .map(([, value]) => value)
}

describe("mirrorPath", () => {
  it("ordinary URLs keep their names", () => {
    const names: ReadonlyArray<readonly [string, string]> = [
      ["http://example.com/docs/a.html", "example.com/docs/a.html"],
      ["https://example.com/docs/a.html", "example.com+https/docs/a.html"],
      ["http://example.com:8080/a", "example.com+8080/a"],
      ["http://example.com/", "example.com/index~.html"],
      ["http://example.com/docs/", "example.com/docs/index~.html"],
      ["http://example.com/a.html?x=1&y=2", "example.com/a.html~3fx=1&y=2"],
      ["http://example.com/a?", "example.com/a~3f"],
      ["http://example.com/caf%C3%A9.html", "example.com/café.html"],
      ["http://example.com/caf%c3%a9.html", "example.com/caf%c3%a9.html"],
      ["http://example.com/my%20file.txt", "example.com/my%20file.txt"],
      ["http://example.com//a", "example.com/~/a"],
      ["http://example.com/~user/a", "example.com/~7euser/a"],
      ["http://[2001:db8::1]/a", "ip6+2001-db8--1/a"],
      ["http://example.com/../../etc/passwd", "example.com/etc/passwd"],
      ["http://example.com/%2e%2e%2f%2e%2e%2fetc", "example.com/%2e%2e%2f%2e%2e%2fetc"],
      ["http://../.holdfast/con.txt/a.part", ".~2e/~2eholdfast/~63on.txt/a~2epart"]
    ]
    expect(names.map(([url]) => [url, plan([url]).get(url)])).toEqual(names)
  })

  it("MirrorPath-2: distinct URLs have distinct plain names, none of them marked as hashed", () => {
    fc.assert(
      fc.property(nastyUrls, (urls) => {
        const names = urls.map(plain)
        expect(new Set(names).size).toBe(urls.length)
        for (const name of names) expect(name.split("/").at(-1)).not.toContain("~~")
      }),
      { numRuns: 150 }
    )
  })

  it("MirrorPath-1, MirrorPath-3, MirrorPath-5: every path is inside, alone, and no folder of another", () => {
    fc.assert(
      fc.property(nastyUrls, (urls) => {
        const places = plan(urls)
        expect(Array.from(places.keys())).toEqual(urls)
        expectGood(Array.from(places.values()))
      }),
      { numRuns: 150 }
    )
  })

  it("MirrorPath-1, MirrorPath-3: a real folder takes a whole plan, and nothing lands beside it", () => {
    const base = fs.mkdtempSync(path.join(os.tmpdir(), "hf-"))
    try {
      fs.chmodSync(base, 0o755)
      fc.assert(
        fc.property(nastyUrls, fc.nat(), (urls, run) => {
          const out = path.join(base, `${run}`, "out")
          fs.mkdirSync(out, { recursive: true })
          const places = plan(urls)
          for (const [url, place] of places) {
            fs.mkdirSync(path.join(out, path.dirname(place)), { recursive: true })
            fs.writeFileSync(path.join(out, place), url, { flag: "wx" })
          }
          for (const [url, place] of places) {
            expect(fs.readFileSync(path.join(out, place), "utf8")).toBe(url)
          }
          expect(fs.readdirSync(path.dirname(out))).toEqual(["out"])
          fs.rmSync(path.dirname(out), { recursive: true })
        }),
        { numRuns: 20 }
      )
    } finally {
      fs.rmSync(base, { recursive: true, force: true })
    }
  })

  it("MirrorPath-4: the order of the list does not matter", () => {
    fc.assert(
      fc.property(nastyUrls, fc.integer(), (urls, seed) => {
        const one = plan(urls)
        const other = plan(shuffled(urls, seed))
        for (const url of urls) expect(other.get(url)).toBe(one.get(url))
      }),
      { numRuns: 150 }
    )
  })

  it("MirrorPath-4: a later list moves nothing that was taken", () => {
    fc.assert(
      fc.property(nastyUrls, nastyUrls, fc.integer(), (before, after, seed) => {
        const taken = plan(before)
        const all = shuffled([...new Set([...before, ...after])], seed)
        const now = plan(all, taken)
        for (const url of before) expect(now.get(url)).toBe(taken.get(url))
        expectGood(Array.from(now.values()))
        // Also when the new list has none of the old URLs.
        const others = plan(after.filter((url) => !taken.has(url)), taken)
        expectGood([...taken.values(), ...others.values()])
      }),
      { numRuns: 150 }
    )
  })

  it("a file that is another's folder, and names that differ in case alone, get hashed names", () => {
    const list = ["http://h/a", "http://h/a/b", "http://h/Read.html", "http://h/read.html"]
    const places = plan(list)
    expect(places.get("http://h/a/b")).toBe("h/a/b")
    expect(places.get("http://h/a")).toMatch(/^h\/a~~[0-9a-f]{16}$/)
    expect(places.get("http://h/Read.html")).toMatch(/^h\/Read~~[0-9a-f]{16}\.html$/)
    expect(places.get("http://h/read.html")).toMatch(/^h\/read~~[0-9a-f]{16}\.html$/)
  })

  it("a folder that is in the way of a taken file is left out", () => {
    const places = plan(["http://h/a/b.css", "http://h/A/c/d"], plan(["http://h/a"]))
    expect(places.get("http://h/a/b.css")).toMatch(/^h\/b~~[0-9a-f]{16}\.css$/)
    expect(places.get("http://h/A/c/d")).toMatch(/^h\/d~~[0-9a-f]{16}$/)
  })

  it("long names are cut, keep their extension, and stay distinct", () => {
    const long = "x".repeat(300)
    const list = [
      `http://h/${long}.png?a=1`,
      `http://h/${long}.png?a=2`,
      `http://h/${long}/a.css`,
      `http://h/${`${"d".repeat(150)}/`.repeat(20)}a.css`,
      `http://${"h".repeat(300)}/a`
    ]
    const paths = Array.from(plan(list).values())
    expectGood(paths)
    expect(paths[0]).toMatch(/^h\/x{178}~~[0-9a-f]{16}\.png$/)
    expect(paths[2]).toMatch(/^h\/a~~[0-9a-f]{16}\.css$/)
    expect(paths[3]).toMatch(/^h\/(d{150}\/){6}a~~[0-9a-f]{16}\.css$/)
    expect(paths[4]).toMatch(/^h{182}~~[0-9a-f]{16}\/a$/)
  })

  it("MirrorPath-1: a recorded path that leaves the folder is not trusted", () => {
    for (
      const path of [
        "/etc/passwd",
        "../x",
        "h/../../x",
        "",
        "h//x",
        "C:/x",
        "h\\..\\x",
        ".holdfast/pg/x",
        ".HoldFast",
        "h/\u0000"
      ]
    ) {
      expect(isInside(path)).toBe(false)
      expect(plan(["http://h/a"], new Map([["http://h/a", path]])).get("http://h/a")).toBe("h/a")
    }
  })

  it("MirrorPath-3: two records of one path are not both trusted", () => {
    const taken = new Map([["http://h/a", "h/x"], ["http://h/b", "H/X"], ["http://h/c", "h/x/y"]])
    const places = plan(["http://h/a", "http://h/b", "http://h/c"], taken)
    expect(places.get("http://h/a")).toBe("h/x")
    expectGood(Array.from(places.values()))
  })

  it("a URL that is not http is a defect that names the invariant", () => {
    expect(() => plan(["ftp://h/a"])).toThrow("MirrorPath-1")
  })
})
