/** words: an entry and a deadlock in words, and text from outside (names, lines, server messages) made safe to print. */

/**
 * Control characters (C0, C1), line and paragraph separators, changes of direction, invisible format characters, half
 * surrogate pairs and what XML does not allow. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
 */
const unprintable =
  // oxlint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]|\p{Surrogate}/gu

/**
 * THE function for text that reaches a terminal, a log, a report or a page and that this library did not write itself. The
 * result is one line: a line break or a tab becomes a space, any other unprintable character its escape, such as `\u{9b}`.
 */
export const printable = (text: string): string =>
  text.replace(
    unprintable,
    (found) => found === "\n" || found === "\t" ? " " : `\\u{${found.codePointAt(0)!.toString(16)}}`
  )

export interface Described {
  readonly id: number
  readonly kind: string
  readonly name: string
  readonly state: string
  readonly owner: ReadonlyArray<string>
  readonly fiber: string | undefined
  readonly site: string | undefined
}

const lineOf = (words: string, entry: Described | undefined): string =>
  entry?.site === undefined ? "" : `${words}${entry.site.split("\n", 1)[0]}`

/** `report > lock "a" (held) of fiber #3, requested at f (/app/a.ts:1:2)`. */
export const describe = (entry: Described): string => {
  const { fiber, kind, name, owner, state } = entry
  const path = [...owner, `${kind} "${name}" (${state})`].join(" > ")
  const by = fiber === undefined ? "" : ` of fiber ${fiber}`
  return printable(`${path}${by}${lineOf(", requested at ", entry)}`)
}

const waiterOf = (entry: Described | undefined): string => {
  const fiber = `fiber ${entry?.fiber}`
  return entry === undefined || entry.owner.length === 0
    ? fiber
    : `${entry.owner.join(" > ")} (${fiber})`
}

export const describeDeadlock = (
  waits: ReadonlyArray<{ readonly waiter: number; readonly holder: number }>,
  live: ReadonlyArray<Described>
): string => {
  const byId = new Map(live.map((entry) => [entry.id, entry]))
  const links = waits.map(({ holder, waiter }) => {
    const [wanted, held] = [byId.get(waiter), byId.get(holder)]
    return `${waiterOf(wanted)} waits${lineOf(" at ", wanted)} for ${wanted?.kind} `
      + `"${wanted?.name}", which ${waiterOf(held)} holds${lineOf(" since ", held)}`
  })
  return printable(
    `Deadlock: ${links.join("; ")}. Acquire them in the same order everywhere, or in one call.`
  )
}

const mostListed = 10

export const describeStillHeld = (entries: ReadonlyArray<Described>): string => {
  const listed = entries.slice(0, mostListed).map((entry) =>
    `${entry.kind} "${entry.name}" (${entry.state}${lineOf(", requested at ", entry)})`
  )
  const left = entries.length - listed.length
  const more = left > 0 ? ` and ${left} more` : ""
  return printable(
    `${entries.length} resource(s) still held: ${listed.join(", ")}${more}. `
      + "Look for a scope that is never closed or a release that never ends."
  )
}
