/**
 * steps: the operations around an interrupt as a table, one column for each fiber.
 *
 * DESIGN. Neighbours of one fiber on one line of source become one row, so that a row is a step its reader knows. Only the
 * operation at the interrupt has a row of its own. SOURCES Lincheck's interleaving table.
 */
import type { Step } from "./simulation.ts"

/** One operation and the line of the user it belongs to, or "". */
export interface Row {
  readonly global: number
  readonly step: Step
  readonly line: string
}

/** Neighbours that are shown as one. */
interface Block {
  readonly fiber: number
  readonly from: number
  to: number
  readonly op: string
  line: string
}

const rowsBefore = 6
const rowsAfter = 3
const width = 16

const blocksOf = (rows: ReadonlyArray<Row>, center: number): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  for (const { global, line, step } of rows) {
    const last = blocks.at(-1)
    const joins = last !== undefined && last.fiber === step.fiber && global !== center
      && last.from !== center && (line === "" || last.line === "" || line === last.line)
    if (joins) {
      last.to = global
      if (last.line === "") last.line = line
    } else blocks.push({ fiber: step.fiber, from: global, to: global, op: step.op, line })
  }
  return blocks
}

/** The last steps of each fiber before the operation `center`, and the first after it. */
export const tableOf = (
  rows: ReadonlyArray<Row>,
  center: number,
  target: number,
  isInterrupted: boolean
): string => {
  const blocks = blocksOf(rows, center)
  const perFiber = new Map<number, number>()
  const before = blocks.filter(({ from }) => from <= center).toReversed().filter(({ fiber }) => {
    const count = (perFiber.get(fiber) ?? 0) + 1
    perFiber.set(fiber, count)
    return count <= rowsBefore
  }).toReversed()
  const after = blocks.filter(({ from }) => from > center).slice(0, rowsAfter)
  const fibers = [...new Set([...before, ...after].map(({ fiber }) => fiber))]
    .toSorted((a, b) => a - b)
  const lineOf = (cells: ReadonlyArray<string>) => cells.join(" │ ").trimEnd()
  const show = ({ fiber, from, line, op, to }: Block): string =>
    lineOf([
      `${from === center ? ">" : " "}${(from === to ? `${from}` : `${from}–${to}`).padStart(9)}`,
      ...fibers.map((one) =>
        (one !== fiber ? "" : from === to ? op : `${to - from + 1} operations`).padEnd(width)
      ),
      line
    ])
  const head = lineOf([
    "        op",
    ...fibers.map((fiber) => (fiber === target ? "target" : `fiber ${fiber}`).padEnd(width))
  ])
  const mark = isInterrupted ? ["            ── the target is interrupted here ──"] : []
  return [head, ...before.map(show), ...mark, ...after.map(show)].join("\n")
}
