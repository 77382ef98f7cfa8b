/**
 * site: the line of the user's code that asked for something.
 *
 * DESIGN. To capture is an `Error` with as few frames as will do; to read it is work that is done once, and only if
 * somebody looks. Of the frames the first is meant that is neither ours, nor effect's, nor Node's.
 *
 * INVARIANTS
 * - Site-1 What is shown is the user's line, never one of this library, of effect or of Node.
 *
 * COST about 2 µs to capture, as much again to read the first time; Node's own `Error`, whatever the depth of the stack.
 */

/** A captured line. Guarded by the single thread: formatted once, then the stack goes. */
export class Site {
  #stack: Error | undefined
  #lines: ReadonlyArray<string> = []
  readonly #most: number

  constructor(stack: Error, most: number) {
    this.#stack = stack
    this.#most = most
  }

  /** The user's lines, the nearest first, at most as many as were asked for; none if no line is the user's. */
  get text(): string | undefined {
    if (this.#stack !== undefined) {
      this.#lines = userFrames(this.#stack, this.#most)
      this.#stack = undefined
    }
    return this.#lines.length === 0 ? undefined : this.#lines.join("\n")
  }
}

/** This library's folder; none where it was bundled into a file with its user, in which nothing can be told apart. */
const home = /^(.*\/)internal\/site\.[jt]s/.exec(import.meta.url)?.[1]
const homePath = home?.replace(/^file:\/\//, "")

const isOurs = (location: string): boolean => {
  for (const root of [home, homePath]) {
    // The command is a user of the library like any other.
    if (root !== undefined && location.startsWith(root)) {
      return !/^cli[./]/.test(location.slice(root.length))
    }
  }
  return false
}

const isForeign = (location: string): boolean =>
  location.startsWith("node:")
  || /\/node_modules\/(@effect\/[^/]+|effect)\//.test(location)
  || !/:\d+$/.test(location)

/** `at open (file:///app/db.ts:12:10)` as `open (/app/db.ts:12:10)`; none if it is not the user's. */
const userFrame = (line: string): string | undefined => {
  const [, name, inner, bare] = /^\s+at (?:(.*?) \((.*)\)|(.*))$/.exec(line) ?? []
  const location = inner ?? bare?.replace(/^async /, "")
  if (location === undefined || isForeign(location) || isOurs(location)) return undefined
  const place = location.replace(/^file:\/\//, "")
  // Effect's own names for a callback that it calls say nothing.
  const isNamed = name !== undefined && !/<anonymous>|effect_instruction/.test(name)
  return isNamed ? `${name} (${place})` : place
}

const userFrames = ({ stack = "" }: Error, most: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (const line of stack.split("\n")) {
    const frame = userFrame(line)
    if (frame !== undefined && lines.push(frame) === most) break
  }
  return lines
}
