/**
 * where: the source line of an effect, without instrumentation.
 *
 * DESIGN. The inspector of the own process knows where each function was written, and at which `yield*` each generator
 * stands. So the line of a stopped fiber is read from the closures of its next instruction and of its stack, only for findings.
 * Inlined source maps, which bundlers and test runners write, are followed.
 *
 * NOT DONE runtimes without `node:inspector` (browsers) get no lines. COST about 0.1 ms per function, cached.
 */
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Inspector from "node:inspector"
import { SourceMap } from "node:module"
import * as path from "node:path"
import * as process from "node:process"
import { fileURLToPath } from "node:url"
import { type AnyFiber, type Instruction, stackOf } from "./runtime.ts"

/** A line of a source file. */
export interface Line {
  readonly file: string
  readonly text: string
  /** Written by the user of the library under test, not by effect and not by us. */
  readonly isUser: boolean
  /** Of a probe's acquire or release: it stands for the user's code, but is no line to show. */
  readonly isProbe: boolean
}

/** Answers where things were written. */
export interface Locator {
  readonly lineOf: (value: unknown) => Line | undefined
  /** The lines of a fiber, innermost first, its next instruction before its stack. */
  readonly linesOf: (fiber: AnyFiber, next: Instruction | undefined) => ReadonlyArray<Line>
  /** The innermost line that the user wrote. */
  readonly userLineOf: (fiber: AnyFiber, next: Instruction | undefined) => Line | undefined
  /** The first line of the user in the fiber that runs now. */
  readonly here: () => string | undefined
}

/** Finds no line. For processes without an inspector. */
export const blind: Locator = {
  lineOf: () => undefined,
  linesOf: () => [],
  userLineOf: () => undefined,
  here: () => undefined
}

const ownFolder = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const probeFile = path.join("Testing", "recorder.")

const toPath = (url: string): string => url.startsWith("file:") ? fileURLToPath(url) : url

const isOwnFile = (file: string): boolean => file.startsWith(ownFolder + path.sep)

const isUserFile = (file: string): boolean =>
  !file.includes("/node_modules/") && !file.startsWith("node:") && file !== ""
  && (!isOwnFile(file) || file.includes(probeFile))

interface Script {
  readonly file: string
  readonly map: SourceMap | undefined
}

const inlined = /^data:application\/json[^,]*;base64,/

const scriptOf = (url: string, mapUrl: string | undefined): Script => {
  const file = toPath(url)
  if (mapUrl === undefined || !inlined.test(mapUrl)) return { file, map: undefined }
  try {
    const json = atob(mapUrl.replace(inlined, ""))
    return { file, map: new SourceMap(JSON.parse(json)) }
  } catch {
    return { file, map: undefined }
  }
}

interface RawLocation {
  readonly scriptId: string
  readonly lineNumber: number
  readonly columnNumber: number
}

const makeLine = (script: Script, { columnNumber, lineNumber }: RawLocation): Line => {
  let line = lineNumber + 1
  let column = columnNumber + 1
  const entry = script.map?.findEntry(lineNumber, columnNumber)
  if (entry !== undefined && "originalLine" in entry) {
    line = entry.originalLine + 1
    column = entry.originalColumn + 1
  }
  const shown = path.relative(process.cwd(), script.file)
  const file = shown.startsWith("..") ? script.file : shown
  return {
    file,
    text: `${file}:${line}:${column}`,
    isUser: isUserFile(script.file),
    isProbe: isOwnFile(script.file)
  }
}

/** The values of an instruction that were written somewhere: functions and generators. */
const codeOf = (instruction: Instruction): ReadonlyArray<unknown> =>
  [instruction.effect_instruction_i0, instruction.effect_instruction_i1].filter((value) =>
    typeof value === "function" || (typeof value === "object" && value !== null && "next" in value)
  )

/** Whether a line is the user's own. */
export const isShown = ({ isProbe, isUser }: Line): boolean => isUser && !isProbe

const slot = "__holdfastWhere"

/** A function stays where it was written, so it is asked once per process; a generator moves. */
const cache = new WeakMap<object, Line>()

const openLocator = async (): Promise<Locator> => {
  let inspector: typeof Inspector
  try {
    inspector = await import("node:inspector")
  } catch {
    return blind
  }
  const session = new inspector.Session()
  try {
    session.connect()
  } catch {
    return blind
  }
  const urls = new Map<string, readonly [url: string, mapUrl: string | undefined]>()
  const scripts = new Map<string, Script>()
  session.on("Debugger.scriptParsed", ({ params }) => {
    urls.set(params.scriptId, [params.url, params.sourceMapURL])
  })
  session.post("Debugger.enable")
  // Without this, `debugger` statements and exceptions would stop the process.
  session.post("Debugger.setSkipAllPauses", { skip: true })
  const script = (id: string): Script => {
    const known = scripts.get(id)
    if (known !== undefined) return known
    const made = scriptOf(...(urls.get(id) ?? ["", undefined]))
    scripts.set(id, made)
    return made
  }
  const rawOf = (value: unknown): RawLocation | undefined => {
    let raw: RawLocation | undefined
    Reflect.set(globalThis, slot, value)
    session.post("Runtime.evaluate", { expression: `globalThis.${slot}` }, (_, evaluated) => {
      const objectId = evaluated?.result?.objectId
      if (objectId === undefined) return
      session.post("Runtime.getProperties", { objectId, ownProperties: true }, (_, found) => {
        const location: unknown = found?.internalProperties?.find(({ name }) =>
          name === "[[GeneratorLocation]]" || name === "[[FunctionLocation]]"
        )?.value?.value
        raw = location as RawLocation | undefined
      })
      session.post("Runtime.releaseObject", { objectId })
    })
    Reflect.deleteProperty(globalThis, slot)
    return raw
  }
  const lineOf = (value: unknown): Line | undefined => {
    const isFunction = typeof value === "function"
    const known = isFunction ? cache.get(value) : undefined
    if (known !== undefined) return known
    const raw = rawOf(value)
    if (raw === undefined) return undefined
    const line = makeLine(script(raw.scriptId), raw)
    if (isFunction) cache.set(value, line)
    return line
  }
  const codesOf = (fiber: AnyFiber, next: Instruction | undefined): ReadonlyArray<unknown> =>
    [...(next === undefined ? [] : [next]), ...stackOf(fiber).toReversed()].flatMap(codeOf)
  const userLineOf = (fiber: AnyFiber, next: Instruction | undefined): Line | undefined => {
    for (const value of codesOf(fiber, next)) {
      const line = lineOf(value)
      if (line !== undefined && isShown(line)) return line
    }
    return undefined
  }
  return {
    lineOf,
    userLineOf,
    linesOf: (fiber, next) => codesOf(fiber, next).map(lineOf).filter((line) => line !== undefined),
    here: () => {
      const fiber = Option.getOrUndefined(Fiber.getCurrentFiber())
      return fiber === undefined ? undefined : userLineOf(fiber, undefined)?.text
    }
  }
}

// Opened at the first call: reading all scripts takes 30 ms. It stays open, which costs nothing and keeps no process alive.
let shared: Promise<Locator> | undefined

/** The locator of this process. */
export const getLocator = (): Promise<Locator> => shared ??= openLocator()

/** The first line of the user in a function, or in the functions of an effect. */
export const lineWithin = (locator: Locator, value: unknown, depth = 6): Line | undefined => {
  if (typeof value === "function") {
    const line = locator.lineOf(value)
    return line !== undefined && isShown(line) ? line : undefined
  }
  if (typeof value !== "object" || value === null || depth === 0) return undefined
  const { effect_instruction_i0: one, effect_instruction_i1: two } = value as Partial<Instruction>
  return lineWithin(locator, one, depth - 1) ?? lineWithin(locator, two, depth - 1)
}

/** Whether an instruction, or what it returns to, was written by the user. */
export const isUserCode = (locator: Locator, instruction: Instruction): boolean =>
  codeOf(instruction).some((value) => locator.lineOf(value)?.isUser === true)
