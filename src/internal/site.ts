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

/**
 * A captured line. Guarded by the single thread: read once, then the stack goes. Until then it keeps the frames, and with
 * them whatever their functions close over: `settle` soon.
 */
export class Site {
  #stack: Error | undefined
  #raw = ""
  #lines: ReadonlyArray<string> | undefined
  readonly #most: number

  constructor(stack: Error, most: number) {
    this.#stack = stack
    this.#most = most
  }

  /** The user's lines, the nearest first, at most as many as were asked for; none if no line is the user's. */
  get text(): string | undefined {
    if (this.#lines === undefined) {
      this.settle()
      this.#lines = userFrames(this.#raw, this.#most)
      this.#raw = ""
    }
    return this.#lines.length === 0 ? undefined : this.#lines.join("\n")
  }

  /** From now on it is text, and keeps nothing alive. */
  settle(): void {
    if (this.#stack === undefined) return
    this.#raw = stackOf(this.#stack)
    this.#stack = undefined
  }
}

/** A program may have a `prepareStackTrace` of its own, which gives anything, or throws: then there is no line. */
const stackOf = (error: Error): string => {
  try {
    const stack: unknown = error.stack
    return typeof stack === "string" ? stack : ""
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
 * Where this library's lines are. Source maps lead from `dist` to `src`, so both are ours. Bundled into one file with its user,
 * and without maps, nothing can be told apart: then that file's lines count as ours, for none is better than a wrong one.
 */
const readHome = (): RegExp => {
  // Its own frame says what its lines are called, by source maps or not, in a module or in a bundle of any format.
  const here = partsOf(stackOf(new Error()).split("\n")[1] ?? "").place ?? ""
  const [, root] = /^(.*[\\/])(?:dist|src)[\\/]internal[\\/]site\.[jt]s/.exec(here) ?? []
  const file = here.replace(/(:\d+)+$/, "")
  return root === undefined
    ? new RegExp(`^${escaped(file)}:`)
    // The command is a user of the library like any other.
    : new RegExp(`^${escaped(root)}(?:dist|src)[\\\\/](?!cli[.\\\\/])`)
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

/** Read once, when somebody first looks at a line. */
let home: RegExp | undefined

const isOurs = (path: string): boolean => (home ??= readHome()).test(path)

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

/** `at open (file:///app/db.ts:12:10)` as `open (/app/db.ts:12:10)`; none if it is not the user's. */
const userFrame = (line: string): string | undefined => {
  const { name, place } = partsOf(line)
  if (place === undefined || isForeign(place) || isOurs(place)) return undefined
  // Effect's own names for a callback that it calls say nothing.
  const isNamed = name !== undefined && !/<anonymous>|effect_instruction/.test(name)
  return isNamed ? `${name} (${place})` : place
}

const userFrames = (stack: string, most: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (const line of stack.split("\n")) {
    const frame = userFrame(line)
    if (frame !== undefined && lines.push(frame) === most) break
  }
  return lines
}
