/**
 * coverage: exactly what an exploration has tried, in words.
 *
 * DESIGN. "Every" is said only of what was tried without exception. A sample comes with its number and with how many there are.
 */
import { isSpent, type Session } from "./session.ts"
import type { Swept } from "./sweep.ts"

/** What was asked for. */
interface Asked {
  readonly mode: "quick" | "full"
  readonly interleave: 0 | 1 | 2
  readonly interrupts: 1 | 2
  /** How many points of other fibers at most. */
  readonly others: number
}

const count = (tried: number, all: number, of: string): string => `${tried} of ${all} ${of}`

/** Which points were tried: "every point" only if it was every one. */
const pointsIn = ({ points }: Session, swept: Swept, asked: Asked): string => {
  const { classes, others, waits } = points
  if (swept.planned > swept.tried) {
    return `${count(swept.tried, swept.planned, "points")} (budget spent)`
  }
  if (asked.mode === "quick") {
    const rest = others.length === 0 ? "" : `, none of ${others.length} points of other fibers`
    return `one point of each of ${classes} classes and ${waits.length} waits${rest}`
  }
  return others.length > asked.others
    ? `every point of its own, ${
      count(asked.others, others.length, "points of other fibers")
    } (sampled)`
    : "every point"
}

/** Which pairs of interrupts were tried. */
const pairsIn = ({ pairs }: Swept, { interrupts }: Asked): ReadonlyArray<string> => {
  if (interrupts !== 2) return []
  const { firsts, others, reaching } = pairs
  const part = ({ all, tried }: typeof others, of: string) =>
    `${count(tried, all, of)}${tried < all ? " (sampled)" : ""}`
  return [
    part(reaching, "pairs of interrupts whose second reaches another fiber"),
    part(others, "other pairs"),
    ...(firsts.tried < firsts.all ? [part(firsts, "first interrupts")] : [])
  ]
}

const useOf = ({ use }: Session): string => {
  if (use === "close") return "the owner's close"
  return use === 1 ? "first use" : `use ${use}`
}

/** The interrupts that were tried. */
export const coveredBy = (session: Session, swept: Swept, asked: Asked): string =>
  [
    pointsIn(session, swept, asked),
    ...pairsIn(swept, asked),
    asked.interleave === 0
      ? "FIFO order"
      : `FIFO order with up to ${asked.interleave} delay(s) at one point of each class`,
    "this input",
    useOf(session)
  ].join(", ")

/** The orders that were tried. */
export const ordersIn = (
  session: Session,
  { strikes }: Swept,
  asked: {
    readonly delays: 0 | 1 | 2
    readonly isReduced: boolean
    readonly walks: number
    readonly pct: number
    readonly depth: number
  }
): string => {
  const { delays, depth, isReduced, pct, walks } = asked
  return [
    isSpent(session)
      ? `some orders with up to ${delays} delays (budget spent)`
      : `every order with up to ${delays} delays`,
    ...(strikes.length === 0 ? [`${walks} random walks, ${pct} PCT runs of depth ${depth}`] : []),
    ...(isReduced && delays > 0
      ? ["one of each order of the operations that may touch what fibers share"]
      : []),
    "this input"
  ].join(", ")
}
