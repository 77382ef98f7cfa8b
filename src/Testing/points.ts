/**
 * points: every place at which a run can be interrupted, from the trace of the plain run.
 *
 * DESIGN. Three kinds that together are all of them: before each operation of the target (as a forced yield there lets it
 * happen), at each wait of the target (as it parks, when nothing else can run, behind what wakes it), and before each
 * operation of any other fiber while the target lives. Two neighbours are of one class if an interrupt between them
 * changes nothing that the program could observe: then one of them stands for both.
 *
 * A second interrupt adds to the first only where it reaches a fiber that the first did not: a child that the clean-up has
 * started. The target itself is interrupted already, so each interruptible region ends at its first step anyway.
 *
 * COST linear in the operations of the subject. SOURCES research on effect 3.22.4: 4,330 points, 2,187 classes, none wrong.
 */
import { pushes, silent } from "./runtime.ts"
import type { Place, Step, Trace } from "./simulation.ts"

/** A place, and what must have happened before it for a run to be the same run. */
export interface Point {
  readonly place: Place
  /** The hash over all operations up to here. */
  readonly hash: number
  /** Where it stands in the plain run, counted over all fibers. */
  readonly global: number
  /** First of its class. */
  readonly leads: boolean
  /** In a run that is interrupted: a second interrupt here would reach a fiber that the first did not. */
  readonly spreads: boolean
}

/** The points of a subject. */
export interface Points {
  readonly own: ReadonlyArray<Point>
  readonly waits: ReadonlyArray<Point>
  readonly others: ReadonlyArray<Point>
  readonly classes: number
}

/** Whether an interrupt between two neighbouring operations of one fiber changes nothing that could be observed. */
const sameClass = (before: Step, after: Step): boolean =>
  before.slice === after.slice
  && before.interruptible === after.interruptible
  && before.children === after.children
  && (before.interruptible
    ? pushes.has(before.op)
    : !before.children && silent.has(before.op))

/** The steps that begin a class, fiber by fiber. */
const leaders = (steps: ReadonlyArray<Step>): ReadonlySet<Step> => {
  const last = new Map<number, Step>()
  const leading = new Set<Step>()
  for (const step of steps) {
    const before = last.get(step.fiber)
    if (before === undefined || !sameClass(before, step)) leading.add(step)
    last.set(step.fiber, step)
  }
  return leading
}

/** The point of a run that is not interrupted, or whose interrupt is only known by its place. */
export const pointAt = (
  place: Place,
  { hash, hitGlobal }: { readonly hash: number; readonly hitGlobal: number }
): Point => ({ place, hash, global: hitGlobal, leads: true, spreads: false })

export const pointsOf = (trace: Trace): Points => {
  const leading = leaders(trace.steps)
  const own: Array<Point> = []
  const others: Array<Point> = []
  for (const [index, step] of trace.steps.entries()) {
    const global = index + 1
    const shared = { hash: step.hash, global, leads: leading.has(step), spreads: step.spreads }
    if (step.own > 0) own.push({ place: { kind: "op", index: step.own }, ...shared })
    else others.push({ place: { kind: "global", index: global }, ...shared })
  }
  const waits = trace.parks.map(({ global, hash, index, kind, spreads }): Point => ({
    place: { kind, index },
    hash,
    global,
    leads: true,
    spreads
  }))
  return { own, waits, others, classes: own.filter(({ leads }) => leads).length }
}
