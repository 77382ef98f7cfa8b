import { describe, expect, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import * as fc from "fast-check"
import type { Ledger } from "holdfast"
import * as View from "holdfast/Ledger/View"

const start = Date.UTC(2026, 10, 20, 12)

const entry = (fields: Partial<Ledger.Entry> & { readonly id: number }): Ledger.Entry => ({
  kind: "lock",
  name: `thing ${fields.id}`,
  state: "held",
  since: start,
  owner: [],
  fiber: undefined,
  span: undefined,
  site: undefined,
  attributes: {},
  blockedBy: [],
  requestedAt: start,
  heldAt: undefined,
  releasingAt: undefined,
  endedAt: undefined,
  cause: undefined,
  ...fields
})

const none: Ledger.Totals = { acquired: 0, released: 0, failed: 0, abandoned: 0 }
const empty: Ledger.Snapshot = {
  takenAt: start,
  total: none,
  kinds: {},
  live: [],
  ended: [],
  deadlocks: []
}

const shop = ["shop", "POST /transfer"]
const small: Ledger.Snapshot = {
  takenAt: start + 4000,
  total: { acquired: 5, released: 2, failed: 1, abandoned: 1 },
  kinds: {
    lock: { acquired: 2, released: 0, failed: 0, abandoned: 0 },
    file: { acquired: 3, released: 2, failed: 1, abandoned: 1 }
  },
  live: [
    entry({
      id: 1,
      name: "account:1",
      owner: shop,
      fiber: "#7",
      site: "transfer (/app/src/bank.ts:31:12)",
      requestedAt: start + 1000,
      heldAt: start + 1000,
      since: start + 1000
    }),
    entry({
      id: 2,
      name: "account:2",
      owner: shop,
      fiber: "#8",
      requestedAt: start + 1010,
      heldAt: start + 1010,
      since: start + 1010
    }),
    entry({
      id: 3,
      name: "account:2",
      state: "acquiring",
      owner: shop,
      fiber: "#7",
      site: "transfer (/app/src/bank.ts:34:12)",
      requestedAt: start + 1500,
      since: start + 1500,
      blockedBy: [2]
    }),
    entry({
      id: 4,
      name: "account:1",
      state: "acquiring",
      owner: shop,
      fiber: "#8",
      requestedAt: start + 1600,
      since: start + 1600,
      blockedBy: [1]
    })
  ],
  ended: [
    entry({
      id: 5,
      kind: "file",
      name: "a.txt",
      state: "released",
      heldAt: start + 5,
      releasingAt: start + 500,
      endedAt: start + 520,
      since: start + 520,
      attributes: { bytes: 12 }
    }),
    entry({
      id: 6,
      kind: "file",
      name: "b.txt",
      state: "failed",
      heldAt: start + 5,
      releasingAt: start + 700,
      endedAt: start + 710,
      since: start + 710,
      cause: "Error: ENOSPC\n    at close (/app/src/files.ts:9:1)"
    }),
    entry({
      id: 7,
      kind: "file",
      name: "c.txt",
      state: "abandoned",
      heldAt: start + 5,
      releasingAt: start + 800,
      endedAt: start + 3800,
      since: start + 3800,
      cause: "ReleaseTimeout: not within 3 s"
    })
  ],
  deadlocks: [{ waits: [{ waiter: 3, holder: 2 }, { waiter: 4, holder: 1 }] }]
}

/** What a program could put there to be taken for more than text. */
const hostile = [
  "</script><script>alert(1)</script>",
  "<!--<script>",
  "<img src=x onerror=alert(1)>",
  "\"' onload='alert(1)",
  "]]>&amp;</text><script>alert(1)</script>",
  "\u001b[2J\u001b]0;owned\u0007",
  "line\nbreak\rand\u2028more",
  "\u202Egnp.exe",
  "half \uD800 character",
  "__proto__",
  "\u0000\uFFFF"
]

const hostileSnapshot: Ledger.Snapshot = {
  ...small,
  kinds: Object.fromEntries(hostile.map((text) => [text, none])),
  live: hostile.map((text, id) =>
    entry({
      id,
      kind: text,
      name: text,
      owner: [text, text],
      fiber: text,
      span: text,
      site: text,
      attributes: { [text]: text }
    })
  ),
  ended: hostile.map((text, id) =>
    entry({ id: id + 100, kind: text, name: text, state: "failed", cause: text, endedAt: start })
  ),
  deadlocks: [{ waits: [{ waiter: 0, holder: 1 }, { waiter: 999, holder: 998 }] }]
}

/** Times as a broken clock would have them. */
const anyTime = fc.oneof(
  fc.integer({ min: -1e13, max: 1e13 }),
  fc.constantFrom(NaN, Infinity, -Infinity, 0, 8.64e15, Number.MAX_VALUE)
)
const perhaps = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined, freq: 2 })
const anyText = fc.oneof(fc.string(), fc.fullUnicodeString(), fc.constantFrom(...hostile))
/** Plain data: what JSON gives back as it was. */
const anyAttributes = fc.dictionary(
  anyText,
  fc.jsonValue({ maxDepth: 3 }).map((value): unknown => JSON.parse(JSON.stringify(value)))
)
const anyEntry = (states: ReadonlyArray<Ledger.State>): fc.Arbitrary<Ledger.Entry> =>
  fc.record({
    id: fc.nat(),
    kind: anyText,
    name: anyText,
    state: fc.constantFrom(...states),
    since: anyTime,
    owner: fc.array(anyText, { maxLength: 3 }),
    fiber: perhaps(anyText),
    span: perhaps(anyText),
    site: perhaps(anyText),
    attributes: anyAttributes,
    blockedBy: fc.array(fc.nat(), { maxLength: 3 }),
    requestedAt: anyTime,
    heldAt: perhaps(anyTime),
    releasingAt: perhaps(anyTime),
    endedAt: perhaps(anyTime),
    cause: perhaps(anyText)
  })
const anyTotals = fc.record({
  acquired: fc.nat(),
  released: fc.nat(),
  failed: fc.nat(),
  abandoned: fc.nat()
})
const anySnapshot: fc.Arbitrary<Ledger.Snapshot> = fc.record({
  takenAt: anyTime,
  total: anyTotals,
  kinds: fc.dictionary(anyText, anyTotals),
  live: fc.array(anyEntry(["acquiring", "held", "releasing"]), { maxLength: 8 }),
  ended: fc.array(anyEntry(["released", "failed", "abandoned"]), { maxLength: 8 }),
  deadlocks: fc.array(
    fc.record({ waits: fc.array(fc.record({ waiter: fc.nat(), holder: fc.nat() })) }),
    { maxLength: 2 }
  )
})

const many = (live: number, ended: number): Ledger.Snapshot => ({
  ...empty,
  takenAt: start + ended + live,
  live: Array.from(
    { length: live },
    (_, i) => entry({ id: i, requestedAt: start + i, heldAt: start + i })
  ),
  ended: Array.from({ length: ended }, (_, i) =>
    entry({
      id: live + i,
      state: "released",
      requestedAt: start + i,
      heldAt: start + i,
      endedAt: start + 2 * i
    }))
})

/** The page's data, as its own script reads it. */
const dataOf = (html: string) => {
  const text = /<script type="application\/json" id="ledger">(.*?)<\/script>/s.exec(html)?.[1] ?? ""
  return JSON.parse(text) as {
    readonly rows: ReadonlyArray<ReadonlyArray<number>>
    readonly strings: ReadonlyArray<string | null>
  }
}

const fails = (text: string): View.LedgerFormatError =>
  Either.getOrThrow(Either.flip(View.parse(text)))

describe("View.text", () => {
  it("shows deadlocks and failures, then the live entries by owner, then the totals", () => {
    expect(`\n${View.text(small)}`).toMatchInlineSnapshot(`
      "
      Ledger at 2026-11-20T12:00:04.000Z: Deadlock of 2 fibers, 1 abandoned, 1 release failed, 2 held, 2 acquiring.

      Deadlock
        fiber #7 waits at bank.ts:34 for lock "account:2" [3], which fiber #8 holds as [2]
        fiber #8 waits for lock "account:1" [4], which fiber #7 holds as [1]

      Abandoned and failed
        ▲ abandoned file "c.txt" [7] after 3.80 s: ReleaseTimeout: not within 3 s
        ✗ failed file "b.txt" [6] after 710 ms: Error: ENOSPC

      Held and waited for
      └─ shop
         └─ POST /transfer
            ├─ ● lock "account:1" [1]  held          3.00 s  #7  bank.ts:31
            ├─ ● lock "account:2" [2]  held          2.99 s  #8
            ├─ ○ lock "account:2" [3]  acquiring     2.50 s  #7  bank.ts:34  waits for [2] of fiber #8
            └─ ○ lock "account:1" [4]  acquiring     2.40 s  #8  waits for [1] of fiber #7

      Released last
        ✓ file "a.txt" [5]  after 520 ms

      Since the start
                acquired  released  of these failed  abandoned
        lock           2         0                0          0
        file           3         2                1          1
        in all         5         2                1          1
      "
    `)
  })

  it("an empty ledger", () => {
    expect(`\n${View.text(empty)}`).toMatchInlineSnapshot(`
      "
      Ledger at 2026-11-20T12:00:00.000Z: Nothing was acquired.
      "
    `)
  })

  it("View-4: it shows 20 of 30 failures and counts the others", () => {
    const failed = Array.from({ length: 30 }, (_, id) => entry({ id, state: "failed" }))
    expect(View.text({ ...empty, ended: failed })).toContain("… and 10 more")
  })

  it("View-4: it shows the last 10 releases and counts those before", () => {
    const text = View.text(many(0, 25))
    expect(text.match(/✓ /g)?.length).toBe(10)
    expect(text).toContain("… 15 before these: --html shows")
    expect(View.text(many(0, 10))).not.toContain("before these")
  })

  it("each live entry has one line, cut at the width", () => {
    const text = View.text(many(500, 0), { width: 40 })
    expect(text.match(/● lock/g)?.length).toBe(500)
    expect(Math.max(...text.split("\n").map((line) => Array.from(line).length))).toBe(40)
  })
})

describe("View.json", () => {
  it("one line for each entry, without empty fields", () => {
    expect(`\n${View.json({ ...small, live: small.live.slice(0, 1) })}`).toMatchInlineSnapshot(`
      "
      {
        "holdfast": {"ledger":1},
        "takenAt": 1795176004000,
        "total": {"acquired":5,"released":2,"failed":1,"abandoned":1},
        "kinds": [{"kind":"lock","acquired":2,"released":0,"failed":0,"abandoned":0},{"kind":"file","acquired":3,"released":2,"failed":1,"abandoned":1}],
        "deadlocks": [{"waits":[{"waiter":3,"holder":2},{"waiter":4,"holder":1}]}],
        "live": [
          {"id":1,"kind":"lock","name":"account:1","state":"held","since":1795176001000,"owner":["shop","POST /transfer"],"fiber":"#7","site":"transfer (/app/src/bank.ts:31:12)","requestedAt":1795176001000,"heldAt":1795176001000}
        ],
        "ended": [
          {"id":5,"kind":"file","name":"a.txt","state":"released","since":1795176000520,"attributes":{"bytes":12},"requestedAt":1795176000000,"heldAt":1795176000005,"releasingAt":1795176000500,"endedAt":1795176000520},
          {"id":6,"kind":"file","name":"b.txt","state":"failed","since":1795176000710,"requestedAt":1795176000000,"heldAt":1795176000005,"releasingAt":1795176000700,"endedAt":1795176000710,"cause":"Error: ENOSPC\\n    at close (/app/src/files.ts:9:1)"},
          {"id":7,"kind":"file","name":"c.txt","state":"abandoned","since":1795176003800,"requestedAt":1795176000000,"heldAt":1795176000005,"releasingAt":1795176000800,"endedAt":1795176003800,"cause":"ReleaseTimeout: not within 3 s"}
        ]
      }
      "
    `)
  })

  it("View-2: parsing what was written gives the same snapshot", () => {
    fc.assert(fc.property(anySnapshot, (snapshot) => {
      expect(Either.getOrThrow(View.parse(View.json(snapshot)))).toStrictEqual(snapshot)
    }))
  })

  it("View-1: attributes of any sort can be written, and secrets stay secret", () => {
    const circle: Record<string, unknown> = {}
    circle["self"] = circle
    const attributes = {
      circle,
      big: 12n,
      none: undefined,
      nan: NaN,
      call: Math.max,
      symbol: Symbol("s"),
      date: new Date(0),
      secret: Redacted.make("hunter2"),
      error: new RangeError("too much"),
      map: new Map([["a", 1]]),
      set: new Set([1]),
      get thrown(): unknown {
        throw new Error("no")
      }
    }
    const text = View.json({ ...empty, live: [entry({ id: 1, attributes })] })
    expect(Either.getOrThrow(View.parse(text)).live[0]?.attributes).toMatchInlineSnapshot(`
      {
        "big": "12n",
        "call": "[function max]",
        "circle": {
          "self": "[circular]",
        },
        "date": "1970-01-01T00:00:00.000Z",
        "error": "RangeError: too much",
        "map": [
          [
            "a",
            1,
          ],
        ],
        "nan": "NaN",
        "secret": "<redacted>",
        "set": [
          1,
        ],
        "symbol": "Symbol(s)",
        "thrown": "[no]",
      }
    `)
  })

  it("View-2: a text that is not a ledger is refused with the problem and its field", () => {
    const json = View.json(small)
    expect(fails("nonsense")).toMatchObject({ reason: "not JSON", field: "" })
    expect(fails("[1]")).toMatchObject({ reason: "not a ledger", field: "holdfast.ledger" })
    expect(fails(json.replace("\"ledger\":1", "\"ledger\":2"))).toMatchObject({
      reason: "unknown version",
      problem: "expected 1, got 2"
    })
    const broken = fails(json.replace("\"state\":\"acquiring\"", "\"state\":\"asleep\""))
    expect(broken).toMatchObject({ reason: "wrong field", field: "live[2].state" })
    expect(broken.message).toMatchInlineSnapshot(
      `"This is not a readable ledger (wrong field at live[2].state): Expected "acquiring", actual "asleep". Give a file that \`holdfast mirror --ledger\`, \`Main.run\` or \`View.json\` wrote."`
    )
    expect(fails(json.replace(`"requestedAt":${start + 1000}`, "\"requestedAt\":\"noon\"")))
      .toMatchObject({
        field: "live[0].requestedAt"
      })
    expect(fails("{\"holdfast\":{\"ledger\":1}}")).toMatchObject({ field: "takenAt" })
  })

  it("an unknown field is ignored", () => {
    const text = View.json(small).replace("\"takenAt\"", "\"later\": true,\n  \"takenAt\"")
    expect(Either.getOrThrow(View.parse(text))).toStrictEqual(small)
  })
})

describe("View.svg", () => {
  it("a row for each hold, by owner, in order of release", () => {
    const rows = View.svg(small, { width: 640 }).split("\n").filter((line) =>
      line.startsWith("<g><title>") || line.includes("class=\"owner\"")
    )
    expect(rows).toMatchInlineSnapshot(`
      [
        "<text class="owner" x="16" y="176">no owner</text>",
        "<g><title>file &#34;a.txt&#34; [5], released; requested at +0 ms; waited 5 ms; held 495 ms; releasing 20 ms</title><text x="24" y="199">file a.txt</text><rect class="acquiring" x="208" y="191.5" width="1.5" height="7"/><rect class="held" x="208.4" y="189.5" width="38.6" height="11"/><rect class="releasing" x="247" y="190.5" width="1.6" height="9"/><path class="tick" d="M248.6 188L248.6 202"/><text class="end" x="592" y="199">495 ms</text><text class="soft end" x="624" y="199">1</text></g>",
        "<g><title>file &#34;b.txt&#34; [6], failed; requested at +0 ms; waited 5 ms; held 695 ms; releasing 10 ms; Error: ENOSPC</title><text x="24" y="221">file b.txt</text><rect class="acquiring" x="208" y="213.5" width="1.5" height="7"/><rect class="held" x="208.4" y="211.5" width="54.2" height="11"/><rect class="releasing" x="262.6" y="212.5" width="1.5" height="9"/><path class="cross" d="M259.4 213L267.4 221M259.4 221L267.4 213"/><text class="end" x="592" y="221">695 ms</text><text class="soft end" x="624" y="221">2</text></g>",
        "<g><title>file &#34;c.txt&#34; [7], abandoned; requested at +0 ms; waited 5 ms; held 795 ms; releasing 3.00 s; ReleaseTimeout: not within 3 s</title><text x="24" y="243">file c.txt</text><rect class="acquiring" x="208" y="235.5" width="1.5" height="7"/><rect class="held" x="208.4" y="233.5" width="62" height="11"/><rect class="releasing" x="270.4" y="234.5" width="234" height="9"/><path class="abandoned" d="M504.4 233L510.4 244L498.4 244Z"/><text class="end" x="592" y="243">795 ms</text><text class="soft end" x="624" y="243">3</text></g>",
        "<text class="owner" x="16" y="272">shop › POST /transfer</text>",
        "<g><title>lock &#34;account:1&#34; [1], held; requested at +1.00 s; waited 0 ms; held 3.00 s; fiber #7; at bank.ts:31</title><text x="24" y="295">lock account:1</text><rect class="held" x="286" y="285.5" width="234" height="11"/><path class="live" d="M521 286L527 291L521 296Z"/><text class="end" x="592" y="295">3.00 s</text></g>",
        "<g><title>lock &#34;account:2&#34; [2], held; requested at +1.01 s; waited 0 ms; held 2.99 s; fiber #8</title><text x="24" y="317">lock account:2</text><rect class="held" x="286.8" y="307.5" width="233.2" height="11"/><path class="live" d="M521 308L527 313L521 318Z"/><text class="end" x="592" y="317">2.99 s</text></g>",
        "<g><title>lock &#34;account:2&#34; [3], acquiring; requested at +1.50 s; waiting 2.50 s; fiber #7; at bank.ts:34; waits for [2]</title><text x="24" y="339">lock account:2</text><rect class="acquiring" x="325" y="331.5" width="195" height="7"/><path class="live" d="M521 330L527 335L521 340Z"/><text class="end" x="592" y="339">not yet</text></g>",
        "<g><title>lock &#34;account:1&#34; [4], acquiring; requested at +1.60 s; waiting 2.40 s; fiber #8; waits for [1]</title><text x="24" y="361">lock account:1</text><rect class="acquiring" x="332.8" y="353.5" width="187.2" height="7"/><path class="live" d="M521 352L527 357L521 362Z"/><text class="end" x="592" y="361">not yet</text></g>",
      ]
    `)
  })

  it("View-4: with more entries than rows it says how many it shows, and stays small", () => {
    const svg = View.svg(many(3, 20_000))
    expect(svg).toContain("Showing 60 of 20,003, the longest of each: 3 live, 57 released")
    expect(svg.match(/<g><title>/g)?.length).toBe(60)
    expect(svg.length).toBeLessThan(60_000)
    expect(View.svg(many(0, 5))).not.toContain("Showing")
    // Many failures do not hide what is still held.
    const failed = Array.from({ length: 500 }, (_, id) => entry({ id: 1000 + id, state: "failed" }))
    const held = many(20, 0)
    expect(View.svg({ ...held, ended: failed }, { rows: 40 })).toContain(
      "Showing 40 of 520, the longest of each: 20 live, 20 failed"
    )
  })

  it("View-3: it contains no markup but its own", () => {
    const svg = View.svg(hostileSnapshot)
    const tags = new Set(Array.from(svg.matchAll(/<\/?([a-zA-Z!?][^\s>/]*)/g), ([, tag]) => tag))
    expect(Array.from(tags).toSorted()).toEqual(
      ["defs", "desc", "g", "path", "pattern", "rect", "style", "svg", "text", "title"]
    )
    // oxlint-disable-next-line no-control-regex
    expect(svg).not.toMatch(/[\u0000-\u0008\u000b-\u001f\u202e\uffff]|\p{Surrogate}/u)
    expect(svg).not.toMatch(/<[^>]*\son\w+=/)
  })
})

describe("View.html", () => {
  it("View-5: its policy forbids every request, and any script but its own", () => {
    const html = View.html(small)
    expect(/Content-Security-Policy" content="([^"]*)"/.exec(html)?.[1]).toMatch(
      /^default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'; img-src data:; base-uri 'none'; form-action 'none'$/
    )
    // The only addresses are names of formats.
    expect(new Set(html.match(/\b(?:https?|file):\/*[^"'\s)<]*/g))).toEqual(
      new Set(["http://www.w3.org/2000/svg"])
    )
    expect(html).not.toMatch(/\ssrc=|<link(?! rel="icon" href="data:,")|@import|url\(/)
  })

  it("View-3: no text of a snapshot becomes markup", () => {
    const quiet = View.html(small).match(/<[a-z!/]/gi)?.length
    const html = View.html({ ...hostileSnapshot, total: small.total })
    expect(html.match(/<[a-z!/]/gi)?.length).toBe(quiet)
    expect(html.match(/<script/g)?.length).toBe(2)
    expect(dataOf(html).strings).toEqual(expect.arrayContaining(hostile))
  })

  it("its data: a row of numbers for each entry, texts once", () => {
    const { rows, strings } = dataOf(View.html(small))
    expect(strings).toMatchInlineSnapshot(`
      [
        null,
        "lock",
        "account:1",
        "shop › POST /transfer",
        "#7",
        "transfer (/app/src/bank.ts:31:12)",
        "account:2",
        "#8",
        "transfer (/app/src/bank.ts:34:12)",
        "file",
        "a.txt",
        "{
        "bytes": 12
      }",
        "b.txt",
        "Error: ENOSPC
          at close (/app/src/files.ts:9:1)",
        "c.txt",
        "ReleaseTimeout: not within 3 s",
      ]
    `)
    expect(rows.map((row) => row.join(" "))).toMatchInlineSnapshot(`
      [
        "1 1 1 2 3 4 0 5 0 0 1000 1000 -1 4000  0 4 1",
        "2 1 1 6 3 7 0 0 0 0 1010 1010 -1 4000  0 3 1",
        "3 0 1 6 3 4 0 8 0 0 1500 -1 -1 4000 2 1  0",
        "4 0 1 2 3 7 0 0 0 0 1600 -1 -1 4000 1 1  0",
        "5 3 9 10 0 0 0 0 11 0 0 5 500 520",
        "6 4 9 12 0 0 0 0 0 13 0 5 700 710",
        "7 5 9 14 0 0 0 0 0 15 0 5 800 3800",
      ]
    `)
  })

  it("its header shows the verdict", () => {
    expect(/<title>.*<\/title>/.exec(View.html(small))?.[0]).toMatchInlineSnapshot(
      `"<title>Ledger: Deadlock of 2 fibers, 1 abandoned, 1 release failed, 2 held, 2 acquiring</title>"`
    )
    expect(/<title>.*<\/title>/.exec(View.html(empty))?.[0]).toMatchInlineSnapshot(
      `"<title>Ledger: Nothing was acquired</title>"`
    )
    const busy = many(2, 0)
    expect(/<title>.*<\/title>/.exec(View.html(busy))?.[0]).toMatchInlineSnapshot(
      `"<title>Ledger: 2 held</title>"`
    )
  })
})

describe("every view", () => {
  it("View-1: is a function of the snapshot, and always ends", () => {
    fc.assert(fc.property(anySnapshot, (snapshot) => {
      for (const view of [View.text, View.json, View.svg, View.html]) {
        expect(view(snapshot)).toBe(view(snapshot))
      }
      expect(View.svg(snapshot)).not.toMatch(/NaN|Infinity"|="-\d[\d.]*" height/)
      const times = dataOf(View.html(snapshot)).rows.map((row) => row.slice(10, 14))
      for (const [asked = NaN, held = NaN, releasing = NaN, end = NaN] of times) {
        const order = [asked, held, releasing, end].filter((at) => at !== -1)
        expect(order).toEqual(order.toSorted((one, other) => one - other))
        expect(asked).toBeGreaterThanOrEqual(0)
        expect(end).toBeLessThan(Infinity)
      }
    }))
  })

  it("View-3: no text of a snapshot controls a terminal", () => {
    const text = View.text(hostileSnapshot)
    // oxlint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u0080-\u009f\u2028\u202e]|\p{Surrogate}/u)
    expect(text.split("\n").length).toBeLessThan(80)
  })

  it("View-1: a clock that went back shows no span that runs backwards", () => {
    const back = entry({
      id: 1,
      state: "released",
      requestedAt: start + 100,
      heldAt: start + 50,
      releasingAt: start + 20,
      endedAt: start
    })
    const snapshot = { ...empty, takenAt: start + 200, ended: [back] }
    expect(dataOf(View.html(snapshot)).rows[0]?.slice(10, 14)).toEqual([100, 100, 100, 100])
    expect(View.svg(snapshot)).toContain("waited 0 ms; held 0 ms; releasing 0 ms")
  })

  it("View-1, View-4: of thousands of waiters for a thousand holders each it shows some and counts the rest", () => {
    const live = Array.from({ length: 20_000 }, (_, id) =>
      entry({
        id,
        state: "acquiring",
        blockedBy: Array.from({ length: 1000 }, (_, i) => (id + i) % 20_000)
      }))
    const snapshot = { ...empty, live }
    expect(View.text(snapshot)).toContain("waits for [5], [6], [7] and 997 more")
    expect(View.text(snapshot).length).toBeLessThan(4_000_000)
    expect(View.svg(snapshot)).toContain("waits for [5] [6] [7] [8] [9] and 995 more")
    const html = View.html(snapshot)
    expect(html.length).toBeLessThan(10_000_000)
    const [, , , , , row = []] = dataOf(html).rows
    expect(row.slice(15).map((field) => Array.isArray(field) ? field.length : field))
      .toEqual([1000, 20, 1000])
  })

  it("View-1, View-4: of many deadlocks, and of a deadlock of many fibers, it shows some and counts the rest", () => {
    const ring = {
      waits: Array.from({ length: 20_000 }, (_, i) => ({ waiter: i, holder: i + 1 }))
    }
    const pair = { waits: ring.waits.slice(0, 2) }
    const snapshot = { ...empty, deadlocks: [ring, ...Array.from({ length: 1999 }, () => pair)] }
    const text = View.text(snapshot)
    expect(text.length).toBeLessThan(20_000)
    expect(text).toContain("… and 19,980 more fibers in it")
    expect(text).toContain("… and 1,995 more deadlocks")
    const svg = View.svg(snapshot)
    expect(svg.length).toBeLessThan(20_000)
    expect(svg).toContain("and 19,992 more")
    expect(svg).toContain("and 1,997 more deadlocks")
    expect(View.html(snapshot).length).toBeLessThan(80_000)
  })

  it("View-1: owner paths of any length and any number of kinds do not overflow the stack", () => {
    const owner = Array.from({ length: 20_000 }, (_, i) => `o${i}`)
    const kinds = Object.fromEntries(
      owner.flatMap((o) => Array.from({ length: 10 }, (_, i) => [o + i, none]))
    )
    const snapshot = { ...empty, kinds, live: [entry({ id: 1, owner })] }
    for (const view of [View.text, View.svg, View.html]) {
      expect(view(snapshot).length).toBeLessThan(20_000_000)
    }
  })

  it("View-1: 20,000 entries are drawn in time", () => {
    const snapshot = many(100, 20_000)
    expect(View.html(snapshot).length).toBeLessThan(4_000_000)
    expect(View.text(snapshot).split("\n").length).toBeLessThan(120)
    expect(Either.getOrThrow(View.parse(View.json(snapshot))).ended.length).toBe(20_000)
  })
})
