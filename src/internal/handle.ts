/**
 * handle: what every handle of ours has besides its own fields: `pipe`, and a short form for logs and `console.log`.
 *
 * DESIGN. A class, because handles are classes with hot methods. Each handle adds its own TypeId with variance; `toJSON` names
 * it and its counters, never the values it holds.
 *
 * COST none per handle: everything stands on the prototype.
 */
import * as Inspectable from "effect/Inspectable"
import { type Pipeable, pipeArguments } from "effect/Pipeable"

export abstract class Handle extends Inspectable.Class implements Pipeable {
  pipe() {
    // Effect's own signature of `pipe` is a list of overloads over `arguments`.
    return pipeArguments(this, arguments)
  }
}

/** `name[key]`, for errors and the ledger. A key that throws when it is shown must not fail its request. */
export const nameOfKey = (name: string, key: unknown): string => {
  try {
    return `${name}[${Inspectable.toStringUnknown(key, 0)}]`
  } catch {
    return `${name}[${typeof key}]`
  }
}
