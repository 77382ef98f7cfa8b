/**
 * site: the line of the user's code that made a request.
 *
 * DESIGN. A line is captured as an `Error` with few frames, and its text is computed on the first read. The user's line is the
 * first frame that is neither of this library, nor of effect, nor of Node.
 *
 * INVARIANTS
 * - Site-1 The line shown is the user's, never one of this library, of effect or of Node.
 *
 * COST about 2 µs to capture, as much again for the first read; both are V8's `Error`, independent of the depth of the stack.
 */

/** A captured line, unread: an `Error`, which keeps alive what its frames' functions close over, or the text of its stack. */
export class Site {
  #stack: Error | string | undefined
  #text: string | undefined
  readonly #most: number

  constructor(stack: Error, most: number) {
    this.#stack = stack
    this.#most = most
  }

  /** The user's lines, the nearest first, at most `most`; undefined if no line is the user's. */
  get text(): string | undefined {
    if (this.#stack !== undefined) this.#text = userLines(textOf(this.#stack), this.#most)
    this.#stack = undefined
    return this.#text
  }

  /** Converts it to text, which keeps nothing alive. */
  settle(): void {
    if (this.#stack !== undefined) this.#stack = textOf(this.#stack)
  }
}

/** Empty if the program has a `prepareStackTrace` of its own that throws or gives no text. */
const textOf = (stack: Error | string): string => {
  if (typeof stack === "string") return stack
  try {
    const text: unknown = stack.stack
    return typeof text === "string" ? text : ""
  } catch {
    return ""
  }
}

const pathOf = (location: string): string => {
  const path = location.replace(/^file:\/\//, "")
  if (path === location) return path
  try {
    return decodeURI(path)
  } catch {
    return path
  }
}

/**
 * Matches the files of this library. Source maps lead from `dist` to `src`, so both match. In one bundle with the user's code and
 * without source maps, the two cannot be distinguished: the whole bundle matches, because no line is better than a wrong one.
 */
const readOwnFiles = (): RegExp => {
  // The frame of this line shows how this file is named, with source maps or without, in a module or a bundle of any format.
  const here = partsOf(textOf(new Error()).split("\n")[1] ?? "").place ?? ""
  const [, root] = /^(.*[\\/])(?:dist|src)[\\/]internal[\\/]site\.[jt]s/.exec(here) ?? []
  const file = here.replace(/(:\d+)+$/, "")
  return root === undefined
    ? new RegExp(`^${escaped(file)}:`)
    // The command is a user of the library like any other.
    : new RegExp(`^${escaped(root)}(?:dist|src)[\\\\/](?!cli[.\\\\/])`)
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

/** Computed on the first read of any line. */
let ownFiles: RegExp | undefined

const isOurs = (path: string): boolean => (ownFiles ??= readOwnFiles()).test(path)

const isForeign = (path: string): boolean =>
  path.startsWith("node:")
  || /\/node_modules\/(@effect\/[^/]+|effect)\//.test(path)
  || !/:\d+$/.test(path)

const frame = /^\s+at (?:(.*?) \((.*)\)|(.*))$/

const partsOf = (line: string) => {
  const [, name, inner, bare] = frame.exec(line) ?? []
  const location = inner ?? bare?.replace(/^async /, "")
  return { name, place: location === undefined ? undefined : pathOf(location) }
}

/** `at open (file:///app/db.ts:12:10)` as `open (/app/db.ts:12:10)`; undefined if it is not the user's. */
const userLine = (line: string): string | undefined => {
  const { name, place } = partsOf(line)
  if (place === undefined || isForeign(place) || isOurs(place)) return undefined
  // Effect's own names for a callback mean nothing to the user.
  const isNamed = name !== undefined && !/<anonymous>|effect_instruction/.test(name)
  return isNamed ? `${name} (${place})` : place
}

const userLines = (stack: string, most: number): string | undefined => {
  const lines: Array<string> = []
  for (const line of stack.split("\n")) {
    const shown = userLine(line)
    if (shown !== undefined && lines.push(shown) === most) break
  }
  return lines.length === 0 ? undefined : lines.join("\n")
}
