import { expect, it } from "@effect/vitest"
import { printable } from "../../src/Ledger/words.ts"

it("View-3: what a terminal would obey is shown as its code, on one line", () => {
  expect(printable("a\nb\tc")).toBe("a b c")
  const hostile = ["\u0000", "\u0007", "\r", "\u001b", "\u007f", "\u0085", "\u009b", "\u061c"]
    .concat(["\u200b", "\u200e", "\u2028", "\u202e", "\u2066", "\u2069", "\ufeff", "\ufffe"])
    .concat(["\ud800", "\udc00"])
  for (const text of hostile) {
    expect(printable(`${text}[31m`)).toBe(`\\u{${text.charCodeAt(0).toString(16)}}[31m`)
  }
})

it("View-3: what people write stays", () => {
  const texts = ["naïve Ünïcode", "漢字", "שלום", "سلام", "क्‍ष", "👩‍💻", "😀", "a\\b"]
  for (const text of texts) expect(printable(text)).toBe(text)
})
