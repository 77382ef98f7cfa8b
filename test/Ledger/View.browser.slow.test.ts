/**
 * The page in a real headless Chromium, opened from a file: it is used as a person would use it, and its document is read. Skipped,
 * with a line on standard error, where there is no Chromium; with `CI=true` that is an error.
 */
import { afterAll, beforeAll, describe, expect, it } from "@effect/vitest"
import type { Ledger } from "holdfast"
import * as View from "holdfast/Ledger/View"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { pathToFileURL } from "node:url"
import { executable, launch, type Page } from "../support/browser.ts"

const start = Date.UTC(2026, 10, 20, 12)
const hostile = "</script><img src=x onerror=\"document.title='owned'\">"

const entryOf = (id: number): Ledger.Entry => {
  const requestedAt = start + id * 10
  const isLive = id % 100 === 0
  const heldAt = requestedAt + id % 7
  return {
    id,
    kind: id % 3 === 0 ? "file" : "lock",
    name: id === 13 ? hostile : `thing ${id}`,
    state: isLive ? "held" : id % 250 === 1 ? "failed" : "released",
    since: heldAt,
    owner: ["app", `request ${id % 5}`],
    fiber: `#${id}`,
    span: undefined,
    site: `open (/app/src/part${id % 4}.ts:${id}:3)`,
    attributes: id === 13 ? { [hostile]: hostile } : {},
    blockedBy: [],
    requestedAt,
    heldAt,
    releasingAt: isLive ? undefined : heldAt + id % 50,
    endedAt: isLive ? undefined : heldAt + id % 50 + 1,
    cause: id % 250 === 1 ? `Error: ${hostile}` : undefined
  }
}
const entries = Array.from({ length: 1000 }, (_, i) => entryOf(i + 1))
const snapshot: Ledger.Snapshot = {
  takenAt: start + 20_000,
  total: { acquired: 1000, released: 990, failed: 4, abandoned: 0 },
  kinds: { lock: { acquired: 1000, released: 990, failed: 4, abandoned: 0 } },
  live: entries.filter(({ state }) => state === "held"),
  ended: entries.filter(({ state }) => state !== "held"),
  deadlocks: []
}

/** What stands in the column of the rows that are in the document. */
const column = (name: string): string =>
  `Array.from(document.querySelectorAll("#body tr[data-at] td.${name}"), (td) => td.textContent)`
const text = (id: string): string => `document.getElementById("${id}").textContent`
const frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

/** Whether the page is dark, and the least contrast between a text in it and what lies behind that. */
const contrast = `(() => {
  const draw = document.createElementNS("http://www.w3.org/1999/xhtml", "canvas")
    .getContext("2d", { willReadFrequently: true })
  // However a color is written, the canvas has its bytes.
  const over = (color, below) => {
    draw.fillStyle = "rgb(" + below.join(" ") + ")"
    draw.fillRect(0, 0, 1, 1)
    draw.fillStyle = color
    draw.fillRect(0, 0, 1, 1)
    return Array.from(draw.getImageData(0, 0, 1, 1).data.slice(0, 3))
  }
  const luminance = (bytes) => {
    const [r, g, b] = bytes.map((byte) => byte / 255)
      .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const isSvg = document.documentElement.tagName === "svg"
  const canvasColor = isSvg
    ? over(getComputedStyle(document.querySelector("rect") ?? document.documentElement).fill, [255, 255, 255])
    : over(getComputedStyle(document.body).backgroundColor, [255, 255, 255])
  const behind = (element) => {
    if (element === null || isSvg) return canvasColor
    return over(getComputedStyle(element).backgroundColor, behind(element.parentElement))
  }
  const texts = Array.from(document.querySelectorAll("body *, svg text")).filter((element) =>
    element.getClientRects().length > 0
    && Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim() !== ""))
  const least = Math.min(...texts.map((element) => {
    const style = getComputedStyle(element)
    const back = behind(element)
    const [one, other] = [luminance(over(isSvg ? style.fill : style.color, back)), luminance(back)]
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
  }))
  return [luminance(canvasColor) < 0.2, least]
})()`

describe.skipIf(executable === undefined)("the page in Chromium", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "hf-view-"))
  const write = (name: string, content: string): string => {
    const file = path.join(folder, name)
    fs.writeFileSync(file, content)
    return pathToFileURL(file).href
  }
  let page: Page
  beforeAll(async () => {
    page = await launch()
  })
  afterAll(async () => {
    await page.close()
    fs.rmSync(folder, { recursive: true, force: true })
  })

  const size = (width: number, height: number) =>
    page.send("Emulation.setDeviceMetricsOverride", {
      width,
      height,
      deviceScaleFactor: 1,
      mobile: width < 500
    })
  const settled = () => page.evaluate(frames)
  const click = async (selector: string): Promise<void> => {
    await page.evaluate(`document.querySelector(${JSON.stringify(selector)}).click()`)
    await settled()
  }

  it("View-5: it opens from a file without any other request and without an error", async () => {
    await size(1440, 900)
    const before = page.requests.length
    const url = write("page.html", View.html(snapshot))
    await page.open(url)
    const [own, ...others] = page.requests.slice(before)
    expect(own).toBe(url)
    expect(others.filter((one) => !one.startsWith("data:"))).toEqual([])
    expect(page.errors).toEqual([])
    expect(await page.evaluate("\"ready\" in document.documentElement.dataset")).toBe(true)
    expect(await page.evaluate(text("headline"))).toBe("4\u00a0releases failed, 10\u00a0held")
    expect(await page.evaluate(text("count"))).toBe("1,000 entries")
  })

  it("View-3: a snapshot's contents are text, in the table, the details and the causes", async () => {
    await click("#problems .which .link")
    expect(await page.evaluate(text("detail"))).toContain(hostile)
    await page.press("Escape")
    expect(await page.evaluate("document.getElementById(\"detail\").hidden")).toBe(true)
    expect(await page.evaluate("document.querySelectorAll(\"img\").length")).toBe(0)
    expect(await page.evaluate("document.title")).toBe("Ledger: 4 releases failed, 10 held")
  })

  it("the worst comes first; only the visible rows are in the document", async () => {
    const states = await page.evaluate<ReadonlyArray<string>>(column("state"))
    expect(states.slice(0, 5)).toEqual(["failed", "failed", "failed", "failed", "held"])
    expect(states.length).toBeLessThan(60)
    await page.evaluate("scrollTo(0, 1e9)")
    await settled()
    const last = await page.evaluate<ReadonlyArray<string>>(column("fiber"))
    expect(last.at(-1)).toBe("#999")
  })

  it("the search requires every word", async () => {
    await page.evaluate("document.getElementById(\"search\").focus()")
    await page.type("PART3 thing 99")
    await settled()
    // Of the lines of part3, those with 99 in them.
    expect(await page.evaluate(text("count"))).toBe("12 of 1,000")
    expect(await page.evaluate<ReadonlyArray<string>>(column("fiber"))).toContain("#199")
    await page.type("zzz")
    await settled()
    expect(await page.evaluate(text("nothing"))).toBe("No entry matches.")
    await click("#clear")
    expect(await page.evaluate(text("count"))).toBe("1,000 entries")
  })

  it("every column sorts in both directions and shows it", async () => {
    const columns = ["kind", "name", "owner", "fiber", "waited", "held", "release", "time", "state"]
    for (const name of columns) {
      const sorted: Array<string> = []
      for (let turn = 0; turn < 2; turn++) {
        await click(`th.${name} button`)
        sorted.push(await page.evaluate(`document.querySelector("th.${name}").ariaSort`))
      }
      expect(sorted.toSorted(), name).toEqual(["ascending", "descending"])
      expect(
        await page.evaluate(
          "document.querySelectorAll(\"#entries th:not([aria-sort=none])\").length"
        )
      )
        .toBe(1)
    }
    await click("th.fiber button")
    // By their numbers, not by their letters.
    expect((await page.evaluate<ReadonlyArray<string>>(column("fiber"))).slice(0, 3))
      .toEqual(["#1", "#2", "#3"])
    await click("th.held button")
    const [longest] = await page.evaluate<ReadonlyArray<string>>(column("held-for"))
    expect(longest).toBe("19.0 s")
  })

  it("chips select states and kinds; the brush selects a time", async () => {
    await click("#states .chip[data-value=\"1\"]")
    expect(await page.evaluate(text("count"))).toBe("10 of 1,000")
    await click("#clear")
    await click("#in")
    expect(await page.evaluate(text("window"))).toBe("10.0 s from +5.00 s")
    expect(await page.evaluate(text("count"))).not.toBe("1,000 entries")
    await click("#all")
    expect(await page.evaluate(text("count"))).toBe("1,000 entries")
  })

  it("the arrow keys move through the rows", async () => {
    await click("th.fiber button")
    await page.evaluate("document.querySelector(\"#body button[tabindex='0']\").focus()")
    await page.press("ArrowDown")
    await page.press("ArrowDown")
    await page.press("Enter")
    await settled()
    expect(await page.evaluate(text("detail"))).toContain("thing 3")
    await page.press("End")
    await settled()
    expect(await page.evaluate(text("detail"))).toContain("thing 1000")
    await page.press("Escape")
    expect(await page.evaluate("document.activeElement.textContent")).toBe("thing 1000")
  })

  for (const width of [360, 720, 820, 1024, 1200, 1366, 1440]) {
    it(`nothing is wider than a screen of ${width}, and the sorted column is visible`, async () => {
      await size(width, 800)
      await page.open(write("page.html", View.html(snapshot)))
      expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true)
      await page.evaluate("document.getElementById(\"sheet\").scrollIntoView()")
      await settled()
      const [name = 0, owner = 0, cut = 0] = await page.evaluate<ReadonlyArray<number>>(`[
        document.querySelector("#body tr[data-at] td.name").offsetWidth,
        document.querySelector("#body tr[data-at] td.owner").offsetWidth,
        // Names and lines, all short here, that are cut off.
        Array.from(document.querySelectorAll("#body .named > *"))
          .filter((one) => one.scrollWidth > one.clientWidth + 1).length
      ]`)
      expect(name).toBeGreaterThanOrEqual(width < 1000 ? 150 : 200)
      expect(owner).toBeLessThan(name)
      if (width >= 1000) expect(cut).toBe(0)
      expect(page.errors).toEqual([])
    })
  }

  it("View-1: an empty ledger, and one of 20,000", async () => {
    await size(1440, 900)
    const nothing = { acquired: 0, released: 0, failed: 0, abandoned: 0 }
    const empty = { ...snapshot, total: nothing, kinds: {}, live: [], ended: [] }
    await page.open(write("empty.html", View.html(empty)))
    expect(await page.evaluate(text("nothing"))).toBe("The ledger has no entries.")
    const ended = Array.from({ length: 20_000 }, (_, i) => entryOf(i + 1))
    await page.open(write("large.html", View.html({ ...snapshot, live: [], ended })))
    await page.evaluate("scrollTo(0, 1e9)")
    await settled()
    expect(await page.evaluate("document.querySelectorAll(\"*\").length")).toBeLessThan(2000)
    expect(page.errors).toEqual([])
  })

  for (const scheme of ["light", "dark"]) {
    it.each([10, 1000, 20_000])(
      `all that is said can be read: ${scheme}, %i entries`,
      async (many) => {
        await size(1440, 900)
        await page.send("Emulation.setEmulatedMedia", {
          features: [{ name: "prefers-color-scheme", value: scheme }]
        })
        const ended = Array.from({ length: many }, (_, i) => entryOf(i + 1))
        const live = ended.filter(({ state }) => state === "held")
        await page.open(write("scheme.html", View.html({ ...snapshot, live, ended })))
        await click("#body button")
        const [isDark, least] = await page.evaluate<readonly [boolean, number]>(contrast)
        expect(isDark).toBe(scheme === "dark")
        // WCAG 2, level AA.
        expect(least).toBeGreaterThanOrEqual(4.5)
        await page.open(write("scheme.svg", View.svg({ ...snapshot, live, ended })))
        expect((await page.evaluate<readonly [boolean, number]>(contrast))[1])
          .toBeGreaterThanOrEqual(4.5)
        expect(page.errors).toEqual([])
      }
    )
  }

  it("the timeline is XML that a browser draws, with any names", async () => {
    const url = write("timeline.svg", View.svg(snapshot, { rows: 1000 }))
    await page.open(url)
    expect(await page.evaluate("document.documentElement.tagName")).toBe("svg")
    expect(await page.evaluate("document.querySelectorAll(\"parsererror\").length")).toBe(0)
    expect(await page.evaluate("document.querySelectorAll(\"g > title\").length")).toBe(1000)
    expect(page.errors).toEqual([])
  })
})
