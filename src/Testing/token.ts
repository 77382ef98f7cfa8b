/**
 * token: a run in one short line, to be replayed later, and refused loudly when the code has changed before its place.
 *
 * DESIGN. `X1.<subject>.<place>[.i<place>][.u<use>][.y<delays>][.f<fault>].s<seed>.<hash>`. The hash is over every operation up to the interrupt,
 * so a token of yesterday's code is stale, never silently green.
 *
 * SOURCES shuttle's rotting schedules (a removed switch point "breaks schedules"), SQLite's loops.
 */
import * as Data from "effect/Data"
import type { Use } from "./experiment.ts"
import type * as Recording from "./recorder.ts"
import type { Place } from "./simulation.ts"

/** A random schedule, by the name of its strategy. */
export interface Chosen {
  readonly kind: "walk" | "pct"
  readonly seed: number
  readonly depth: number
  readonly steps: number
}

/** The content of a token. */
export interface Recipe {
  readonly name: string
  readonly place: Place
  /** The place of a second interrupt. */
  readonly again: Place | undefined
  /** What is interrupted. */
  readonly use: Use
  readonly delays: ReadonlyArray<number>
  readonly chosen: Chosen | undefined
  readonly fault: Recording.PlannedFault | undefined
  readonly seed: number
  readonly hash: number
}

/** A token does not fit the code any more, or never did: nothing was tested by it. */
export class StaleToken extends Data.TaggedError("StaleToken")<{
  readonly token: string
  readonly reason: string
}> {
  override get message(): string {
    return `The replay token ${this.token} is stale: ${this.reason}. Explore again and take the new one.`
  }
}

const letters: Record<Place["kind"], string> = {
  op: "k",
  global: "g",
  parked: "p",
  between: "b",
  quiet: "q",
  resumed: "r",
  nowhere: "n"
}

/** Every sort of fault; a token names them by their place here, so append only. */
export const allFaults: ReadonlyArray<Recording.Fault> = [
  "acquire fails",
  "acquire dies",
  "acquire is slow",
  "acquire never returns",
  "release dies",
  "release is slow",
  "release never returns"
]

/** FNV-1a of a name, short. */
export const nameHash = (name: string): string => {
  let hash = 0x811C9DC5
  for (let at = 0; at < name.length; at++) {
    hash = Math.imul(hash ^ name.charCodeAt(at), 16_777_619)
  }
  return (hash >>> 0).toString(36).slice(0, 4)
}

const hashText = (hash: number): string => (hash >>> 0).toString(36)

export const toToken = (recipe: Recipe): string => {
  const { again, chosen, delays, fault, hash, name, place, seed, use } = recipe
  return [
    "X1",
    nameHash(name),
    `${letters[place.kind]}${place.index}`,
    ...(again === undefined ? [] : [`i${letters[again.kind]}${again.index}`]),
    ...(use === 1 ? [] : [`u${use === "close" ? "c" : use}`]),
    ...(delays.length === 0 ? [] : [`y${delays.join("-")}`]),
    ...(chosen === undefined
      ? []
      : [`${chosen.kind === "walk" ? "w" : "c"}${chosen.seed}-${chosen.depth}-${chosen.steps}`]),
    ...(fault === undefined ? [] : [`f${allFaults.indexOf(fault.fault)}-${fault.nth}`]),
    `s${seed}`,
    hashText(hash)
  ].join(".")
}

const shape = new RegExp(
  "^X1\\.(\\w+)\\.([kgpbqrn])(\\d+)(?:\\.i([kgpbqr])(\\d+))?(?:\\.u(\\d+|c))?(?:\\.y([\\d-]+))?(?:\\.([wc])(\\d+)-(\\d+)-(\\d+))?"
    + "(?:\\.f(\\d)-(\\d+))?\\.s(\\d+)\\.(\\w+)$"
)

/** A token taken apart; the name and the hash stay in their short form. */
export type Parsed = Omit<Recipe, "name" | "hash"> & {
  readonly nameHash: string
  readonly hashText: string
}

const placeOf = (letter: string | undefined, index: string | undefined): Place => {
  const kind = (Object.keys(letters) as Array<Place["kind"]>).find((one) => letters[one] === letter)
  return { kind: kind ?? "nowhere", index: Number(index) }
}

export const fromToken = (token: string): Parsed => {
  const found = shape.exec(token.trim())
  if (found === null) {
    throw new StaleToken({ token, reason: "it is not of the form this version writes" })
  }
  const [
    ,
    name = "",
    letter,
    index,
    letterAgain,
    indexAgain,
    use,
    delays,
    strategy,
    chosenSeed,
    depth,
    steps,
    fault,
    nth,
    seed,
    hash = ""
  ] = found
  const planned = fault === undefined ? undefined : allFaults[Number(fault)]
  return {
    nameHash: name,
    place: placeOf(letter, index),
    again: letterAgain === undefined ? undefined : placeOf(letterAgain, indexAgain),
    use: use === undefined ? 1 : use === "c" ? "close" : Number(use),
    delays: delays === undefined ? [] : delays.split("-").map(Number),
    chosen: strategy === undefined
      ? undefined
      : {
        kind: strategy === "w" ? "walk" : "pct",
        seed: Number(chosenSeed),
        depth: Number(depth),
        steps: Number(steps)
      },
    fault: planned === undefined ? undefined : { fault: planned, nth: Number(nth) },
    seed: Number(seed),
    hashText: hash
  }
}

export const isHash = (hash: number, text: string): boolean => hashText(hash) === text
